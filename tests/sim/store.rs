//! The simulated store: the memory store behind faults that strike the next step of a device, watched by the ledger.
//!
//! A crash is a commit that never returns: whoever waits for it is dropped, as the process would be.

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rehome::domain::{
    AnchorRef, Claim, DeviceId, Enrollment, EnrollmentId, FeedToken, Hub, HubId, Order, RegistrationId, StoredAudit,
    TrackingId,
};
use rehome::moves::MoveLog;
use rehome::store::{
    AuditFilter, Commit, CommitFault, DeviceFile, EnrollmentListing, Expect, HubUse, LastKnown, MemoryStore, Page,
    PageRequest, RegistrationFilter, Store, StoreFault, StoreLife,
};

use super::ledger::Ledger;
use super::line::take_turns;
use super::mutation::{Line, Mutation, is_left_out, lines_of};

/// What happens to one commit of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Nothing was written, and the store says so.
    NotWritten,
    /// Nothing was written, and nobody can tell.
    LostUnknown,
    /// It was written, and nobody can tell.
    WrittenUnknown,
    CrashBeforeWrite,
    /// Written and not yet synced; what was not synced may be there after the crash or not.
    CrashAfterWrite {
        kept: bool,
    },
    /// Written and synced, and the answer is lost with the process.
    CrashAfterSync,
}

pub struct SimStore {
    memory: MemoryStore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    strikes: VecDeque<Strike>,
    struck: Option<Strike>,
    crashed: bool,
    ledger: Ledger,
    mutation: Option<Mutation>,
    /// The lines that were written, where somebody wants to know.
    passed: Option<BTreeSet<(&'static str, Line)>>,
    commits: u64,
    /// A mutation has left a line out.
    has_left_out: bool,
    /// Whoever asks now lets others go first.
    paced: bool,
}

impl std::fmt::Debug for SimStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimStore")
    }
}

impl SimStore {
    pub fn new() -> Self {
        // An audit log that is kept whole would be most of what a run does.
        Self { memory: MemoryStore::with_audit_max(16), state: Mutex::default() }
    }

    /// For the suite of the port: as a user of the service would have it.
    pub fn with_audit_max(audit_max: u64) -> Self {
        Self { memory: MemoryStore::with_audit_max(audit_max), state: Mutex::default() }
    }

    /// What happens to the next commit of a device.
    pub fn strike(&self, strike: Strike) {
        self.lock().strikes.push_back(strike);
    }

    /// Leaves out what a mutation says.
    pub fn mutate(&self, mutation: Mutation) {
        self.lock().mutation = Some(mutation);
    }

    pub fn watch(&self) {
        self.lock().passed = Some(BTreeSet::new());
    }

    pub fn passed(&self) -> BTreeSet<(&'static str, Line)> {
        self.lock().passed.clone().unwrap_or_default()
    }

    pub fn has_left_out(&self) -> bool {
        self.lock().has_left_out
    }

    /// Whether commits and reads of devices take turns with whatever else happens.
    pub fn pace(&self, paced: bool) {
        self.lock().paced = paced;
    }

    pub fn calm(&self) {
        self.lock().strikes.clear();
    }

    /// The fault that the last commit met, once.
    pub fn struck(&self) -> Option<Strike> {
        self.lock().struck.take()
    }

    /// Whether the process died since this was asked last.
    pub fn take_crash(&self) -> bool {
        std::mem::take(&mut self.lock().crashed)
    }

    /// Commits of devices that were tried and have come to their end.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    pub fn ledger<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        look(&mut self.lock().ledger)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What is written and what the ledger has of it are one thing: another thread sees neither or both.
    fn write(&self, commit: Commit) -> Result<Order, CommitFault> {
        let State { ledger, passed, .. } = &mut *self.lock();
        let written = self.memory.commit(commit.clone()).now_or_never();
        let order = written.ok_or_else(|| CommitFault::Unknown("the memory waits".to_owned()))??;
        if let Some(passed) = passed {
            passed.extend(lines_of(ledger, &commit));
        }
        ledger.note(order, &commit);
        Ok(order)
    }

    async fn die(&self) -> Result<Order, CommitFault> {
        self.lock().crashed = true;
        pending().await
    }
}

impl Store for SimStore {
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
        if !self.lock().paced {
            return self.memory.load_device(id);
        }
        Box::pin(async move {
            take_turns().await;
            self.memory.load_device(id).await
        })
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
        let of_a_device = commit.expect.iter().any(|expect| matches!(expect, Expect::Journal { .. }));
        let (strike, left_out, paced) = {
            let mut state = self.lock();
            let paced = state.paced;
            let strike = if of_a_device { state.strikes.pop_front() } else { None };
            state.struck = strike.or(state.struck);
            let State { mutation, ledger, .. } = &*state;
            let left_out = of_a_device && mutation.is_some_and(|mutation| is_left_out(mutation, ledger, &commit));
            state.has_left_out |= left_out;
            (strike, left_out, paced)
        };
        Box::pin(async move {
            if paced {
                take_turns().await;
            }
            let outcome = match strike {
                _ if left_out => self.memory.commit(Commit::default()).await,
                None => self.write(commit),
                Some(Strike::NotWritten) => Err(CommitFault::NotWritten("the disk is full".to_owned())),
                Some(Strike::LostUnknown) => Err(CommitFault::Unknown("the request was lost".to_owned())),
                Some(Strike::WrittenUnknown) => {
                    self.write(commit).and_then(|_| Err(CommitFault::Unknown("the answer was lost".to_owned())))
                }
                Some(Strike::CrashBeforeWrite | Strike::CrashAfterWrite { kept: false }) => self.die().await,
                Some(Strike::CrashAfterWrite { kept: true } | Strike::CrashAfterSync) => match self.write(commit) {
                    Ok(_) => self.die().await,
                    Err(fault) => Err(fault),
                },
            };
            // Only now: whoever waits for so many commits must find them in the ledger.
            self.lock().commits += u64::from(of_a_device);
            outcome
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
