//! The integration tests: features over real gRPC, and the promises that only the whole tree can keep.

mod certificates;
mod fences;
mod following;
mod readme;
