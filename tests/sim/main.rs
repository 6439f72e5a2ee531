//! The seeded simulation of devices, hubs, network, store and operators over the very code that the service runs.

mod actors;
mod backup;
mod check;
mod clock;
mod conformance;
mod copies;
mod dice;
mod disks;
mod hub;
mod identity;
mod keys;
mod ledger;
mod line;
mod model;
mod mutation;
mod network;
mod operator;
mod rest;
mod run;
mod script;
mod seat;
mod seeds;
mod store;
mod twins;
mod verbs;
mod world;
