//! A store that does as it is told: a memory store behind faults that strike a chosen commit.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::domain::{
    AnchorRef, Claim, DeviceId, Enrollment, EnrollmentId, FeedToken, Hub, HubId, Order, RegistrationId, StoredAudit,
    TrackingId,
};
use crate::moves::MoveLog;
use crate::store::{
    AuditFilter, Commit, CommitFault, DeviceFile, EnrollmentListing, HubUse, LastKnown, MemoryStore, Page, PageRequest,
    RegistrationFilter, Store, StoreFault, StoreLife,
};

/// What happens to one commit.
#[derive(Debug, Clone)]
pub enum Strike {
    Pass,
    NotWritten,
    /// Written, but nobody can tell.
    WrittenUnknown,
    /// Not written, but nobody can tell.
    LostUnknown,
    Panic,
    /// Waits until it is let go.
    Hold(Arc<Gate>),
}

/// A place where a commit waits.
#[derive(Debug, Default)]
pub struct Gate {
    reached: Notify,
    open: Notify,
}

impl Gate {
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    pub fn release(&self) {
        self.open.notify_one();
    }
}

#[derive(Debug)]
pub struct FaultyStore {
    pub memory: Arc<MemoryStore>,
    strikes: Mutex<VecDeque<Strike>>,
    commits: Mutex<Vec<Commit>>,
}

impl FaultyStore {
    pub fn new() -> Self {
        Self { memory: Arc::new(MemoryStore::new()), strikes: Mutex::default(), commits: Mutex::default() }
    }

    /// What happens to the next commits, in order; then they pass.
    pub fn strike(&self, strikes: impl IntoIterator<Item = Strike>) {
        self.strikes.lock().unwrap().extend(strikes);
    }

    pub fn hold(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        self.strike([Strike::Hold(gate.clone())]);
        gate
    }

    /// How many commits were tried.
    pub fn commits(&self) -> usize {
        self.commits.lock().unwrap().len()
    }
}

impl Store for FaultyStore {
    fn load_enrollment<'a>(
        &'a self,
        id: &'a EnrollmentId,
    ) -> BoxFuture<'a, Result<Option<Arc<Enrollment>>, StoreFault>> {
        self.memory.load_enrollment(id)
    }

    fn find_groups<'a>(&'a self, chain: &'a [AnchorRef]) -> BoxFuture<'a, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        self.memory.find_groups(chain)
    }

    fn key_groups(&self) -> BoxFuture<'_, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        self.memory.key_groups()
    }

    fn load_hub<'a>(&'a self, id: &'a HubId) -> BoxFuture<'a, Result<Option<Hub>, StoreFault>> {
        self.memory.load_hub(id)
    }

    fn hubs(&self) -> BoxFuture<'_, Result<Vec<(Hub, HubUse)>, StoreFault>> {
        self.memory.hubs()
    }

    fn load_device<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<DeviceFile, StoreFault>> {
        self.memory.load_device(id)
    }

    fn load_move(&self, generation: Order) -> BoxFuture<'_, Result<Option<MoveLog>, StoreFault>> {
        self.memory.load_move(generation)
    }

    fn find_claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Option<EnrollmentId>, StoreFault>> {
        self.memory.find_claim(claim)
    }

    fn find_owner<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<RegistrationId>, StoreFault>> {
        self.memory.find_owner(device)
    }

    fn list_enrollments<'a>(
        &'a self,
        listing: EnrollmentListing,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<Arc<Enrollment>>, StoreFault>> {
        self.memory.list_enrollments(listing, page)
    }

    fn list_registrations<'a>(
        &'a self,
        filter: &'a RegistrationFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<DeviceFile>, StoreFault>> {
        self.memory.list_registrations(filter, page)
    }

    fn list_audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<StoredAudit>, StoreFault>> {
        self.memory.list_audit(filter, page)
    }

    fn find_audit(&self, tracking: TrackingId) -> BoxFuture<'_, Result<Option<StoredAudit>, StoreFault>> {
        self.memory.find_audit(tracking)
    }

    fn load_last_known<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<Option<LastKnown>, StoreFault>> {
        self.memory.load_last_known(id)
    }

    fn load_feed<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, Result<Option<FeedToken>, StoreFault>> {
        self.memory.load_feed(hub)
    }

    fn life(&self) -> BoxFuture<'_, Result<StoreLife, StoreFault>> {
        self.memory.life()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<RegistrationId>, StoreFault>> {
        self.memory.unfinished()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Order, CommitFault>> {
        self.commits.lock().unwrap().push(commit.clone());
        let strike = self.strikes.lock().unwrap().pop_front().unwrap_or(Strike::Pass);
        Box::pin(async move {
            match strike {
                Strike::Pass => self.memory.commit(commit).await,
                Strike::NotWritten => Err(CommitFault::NotWritten("the disk is full".to_owned())),
                Strike::WrittenUnknown => {
                    self.memory.commit(commit).await?;
                    Err(CommitFault::Unknown("the answer was lost".to_owned()))
                }
                Strike::LostUnknown => Err(CommitFault::Unknown("the request was lost".to_owned())),
                Strike::Panic => panic!("a defect, on purpose"),
                Strike::Hold(gate) => {
                    gate.reached.notify_one();
                    gate.open.notified().await;
                    self.memory.commit(commit).await
                }
            }
        })
    }

    fn back_up<'a>(
        &'a self,
        to: &'a Path,
        progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    ) -> BoxFuture<'a, Result<(), StoreFault>> {
        self.memory.back_up(to, progress)
    }
}
