//! Allocation that is asked outside.
