//! Disks that fail: what was acknowledged is in the file, whatever the disk did.
//!
//! Two ways. A *recorded* disk keeps every operation: each prefix of them is a moment at which the power may go, and of
//! the writes since the last sync any may have arrived. A *failing* disk stops obeying at its Nth operation under a whole
//! service, which is then killed and started again on what is left.

mod disk;
mod hub;
mod service;
mod store;

/// How thorough: 1 looks at every moment. `REHOME_DISK_STRIDE`, for those who have the time.
fn stride(usual: usize) -> usize {
    std::env::var("REHOME_DISK_STRIDE").ok().map_or(usual, |text| text.parse().expect("REHOME_DISK_STRIDE is a number"))
}
