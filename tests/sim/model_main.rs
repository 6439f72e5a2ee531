//! The small model.

mod model;
