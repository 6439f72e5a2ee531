//! The command line.
pub mod advice;
mod api;
mod input;
pub mod output;
mod settings;
mod value;
mod view;
