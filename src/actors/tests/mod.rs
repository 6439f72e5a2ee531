//! Actors as they are used: one directory with a memory store, scripted hubs and a manual clock.

mod device;
mod faulty;
mod hub;
mod outages;
mod traces;
mod world;
