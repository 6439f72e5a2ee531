//! What the simulation stands on keeps the rules of the real thing: the suites of the ports, run against its store and hubs.

use std::sync::Arc;

use rehome::store::{MemoryStore, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_conforms() {
    rehome::store::conformance::check(|| (Arc::new(MemoryStore::new()) as Arc<dyn Store>, ())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_conforms() {
    for leases in [false, true] {
        rehome::hubs::conformance::check(|clock| rehome::hubs::conformance::scripted(clock, leases)).await;
    }
}
