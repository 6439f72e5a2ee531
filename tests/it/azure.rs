//! The edges for existing Azure SDKs, spoken to byte by byte: what SDKs never send is sent here.

mod backend;
mod devices;
mod hubs;
mod lines;
mod proofs;
mod service;
mod websocket;
mod wire;
