//! The small model: every interleaving of one device, its hubs and what can go wrong between them, to the end.
//!
//! What runs is the service's own code: the step function ([`rehome::moves::Machine`]), the decision
//! ([`rehome::policy::evaluate`]) and what a hub obeys ([`rehome::hubs::entry::obey`]). The model owns only what stands
//! between them: a store that keeps commits, a network that loses, doubles and delays calls, and a process that dies.
//!
//! `explore` is the search, `world` the states and steps, `copies` what goes back in time, `rules` what can be taken away, `traces` the named tests.
//!
//! Why a search of its own and no model checker from a registry: those want states that hash and compare as a whole, which
//! journals with JSON documents do not, and the usual one brings a web server along. Here a state's fingerprint is kept up
//! to date piece by piece, from the `Debug` text of what has changed, so that no field can be forgotten.

mod copies;
mod explore;
mod rules;
mod traces;
mod world;
