//! Tests of the embedded hub alone.
