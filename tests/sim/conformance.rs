//! What the simulation stands on keeps the rules of the real thing: the suites of the ports, run against its store and
//! hubs.

use std::sync::Arc;

use rehome::store::Store;

use super::store::SimStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_conforms() {
    let fresh = || (Arc::new(SimStore::with_audit_max(1_000)) as Arc<dyn Store>, ());
    rehome::store::conformance::check(fresh).await;
    rehome::store::conformance::check_audit_is_trimmed(Arc::new(SimStore::with_audit_max(4))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_conforms() {
    for leases in [false, true] {
        rehome::hubs::conformance::check(|clock| rehome::hubs::conformance::scripted(clock, leases)).await;
    }
}
