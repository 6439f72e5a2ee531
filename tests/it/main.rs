//! The integration tests: features over real gRPC, and the promises that only the whole tree can keep.

mod away;
mod azure;
mod bench;
mod certificates;
mod fences;
mod following;
mod grpc_surface;
mod import;
mod keys;
mod killed;
mod logs;
mod moves;
mod readme;
mod refusals;
mod restart;
mod restored;
mod serving;
mod starting;
mod swtpm;
mod tpm;
mod tpm_device;
mod tpm_real;
mod world;
