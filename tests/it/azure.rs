//! The edges for existing Azure SDKs, spoken to byte by byte: what SDKs never send is sent here.

mod devices;
mod proofs;
mod websocket;
mod wire;
