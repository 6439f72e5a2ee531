//! The gRPC edge: the server, and one file for each service of the API.

mod audit;
mod call;
mod enrollment;
mod failure;
mod group;
mod hub;
mod pages;
mod records;
mod registration;
mod registration_admin;
mod routes;
mod server;
mod store;
mod twin;
mod twin_admin;

#[cfg(test)]
mod tests;

pub use server::{Limits, serve};
