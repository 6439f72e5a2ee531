//! The store in one redb file: the default.
//!
//! Reads are served from the newest snapshot on the thread that asks (they are microseconds out of the cache); listings and
//! copies run on the blocking pool. Writes go through one writer thread. Must be used inside a tokio runtime.

mod backup;
mod check;
mod index;
mod open;
mod reader;
mod records;
mod tables;
mod writer;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ::redb::Database;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::oneshot;

use self::reader::{Live, RegistrationScan, Snapshot, View};
use self::tables::{RESTORED_KEY, Rows, Table, enrollment_key, hub_key};
use self::writer::{Job, Writer};
use super::listing::{self, Listing};
use super::{
    AuditFilter, Commit, CommitFault, DeviceFile, EnrollmentListing, HubUse, LastKnown, Page, PageRequest,
    RegistrationFilter, Store, StoreFault, StoreLife,
};
use crate::ambient::{FileSize, GroupWriter};
use crate::domain::{
    AnchorRef, Claim, DeviceId, Enrollment, EnrollmentId, FeedToken, Hub, HubId, Order, RegistrationId, StoredAudit,
    TrackingId, limits,
};
#[cfg(feature = "testing")]
use crate::moves::JournalLine;
use crate::moves::MoveLog;

pub use check::{Finding, check};
pub use open::{OpenFault, compact};
#[cfg(feature = "testing")]
pub use records::{record_samples, reread_record};

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub path: PathBuf,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// Commits that may wait; more wait for a place.
    pub queue_max: usize,
    /// Commits that share one sync.
    pub group_max: usize,
    /// Audit entries that are kept.
    pub audit_max: u64,
    /// From this size of the file on each group records what opening after a kill needs. That costs a second sync and some
    /// pages; without it, opening after a kill reads the whole file once.
    pub quick_repair_from: u64,
}

impl Config {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: 256 * 1024 * 1024,
            // Four full groups: deeper queues only add waiting.
            queue_max: 1024,
            // Where a group's cost is no longer its sync but its pages (reference/stack.md §3c).
            group_max: 256,
            audit_max: limits::AUDIT_ENTRIES_MAX,
            quick_repair_from: limits::QUICK_REPAIR_FROM_BYTES,
        }
    }
}

/// What the writer tells of each group, on its own thread: the time between the two is what the group took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupEvent {
    Began {
        commits: usize,
    },
    /// `written` and `refused` (an expectation did not hold) and `failed` (anything else) make up the group.
    Ended {
        written: usize,
        refused: usize,
        failed: usize,
    },
}

pub type GroupObserver = Box<dyn FnMut(GroupEvent) + Send>;

/// Who is told what goes on inside.
pub struct Hooks {
    /// How far the repair of a file is that a killed process left behind, 0 to 1. Not called where there is none.
    pub repair: Box<dyn Fn(f64)>,
    pub group: GroupObserver,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { repair: Box::new(|_| {}), group: Box::new(|_| {}) }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// The store in one redb file. Dropping it finishes what is queued, and gives the file free once no read runs.
///
/// After a commit whose outcome is unknown (the disk failed under it) it goes on serving what was acknowledged before, and
/// writes nothing more until it is opened again.
pub struct RedbStore {
    // Before the rest, so that the writer has ended when they are dropped.
    writer: GroupWriter<Job>,
    shared: Arc<Shared>,
    path: PathBuf,
}

/// What reads need. The snapshot goes before the database it is of.
struct Shared {
    live: Arc<RwLock<Live>>,
    _database: Arc<Database>,
}

impl Shared {
    fn live(&self) -> RwLockReadGuard<'_, Live> {
        // The writer changes it in steps that do not panic.
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Arc<View> {
        self.live().snapshot.clone()
    }

    fn list_registrations(
        &self,
        filter: &RegistrationFilter,
        request: &PageRequest,
    ) -> Result<Page<DeviceFile>, StoreFault> {
        let after = Listing::Registrations(filter).position(request)?.map(listing::id_position).transpose()?;
        let scan = RegistrationScan { filter, after, size: listing::page_size(request) };
        let (snapshot, unsettled, index) = {
            let live = self.live();
            let unsettled =
                if scan.looks_at_moves() { live.index.unsettled(scan.after.as_deref()) } else { Default::default() };
            (live.snapshot.clone(), unsettled, live.index.clone())
        };
        scan.page(&*snapshot, unsettled, &|folded| index.generations(folded))
    }
}

/// A line of a journal as it stands in the file.
#[cfg(feature = "testing")]
pub fn journal_line_bytes(line: &JournalLine) -> Result<Vec<u8>, StoreFault> {
    Ok(records::Stored::encode(line)?)
}

/// The line that such bytes hold.
#[cfg(feature = "testing")]
pub fn journal_line(bytes: &[u8]) -> Result<JournalLine, StoreFault> {
    Ok(records::Stored::decode(bytes)?)
}

impl RedbStore {
    /// Opens the store of a file, made if there is none. Reads what is needed to serve at once.
    pub fn open(config: Config, hooks: Hooks) -> Result<Self, OpenFault> {
        let database = open::open_or_create(&config.path, config.cache_bytes, hooks.repair)?;
        open::leave_the_copy_behind(&config.path, &database)?;
        Self::serve(database, config, hooks.group)
    }

    /// A store on a disk that a test has made; it must hold a store already.
    #[cfg(feature = "testing")]
    pub fn on(backend: impl ::redb::StorageBackend, config: Config, hooks: Hooks) -> Result<Self, OpenFault> {
        let mut builder = ::redb::Builder::new();
        let opened = builder.set_cache_size(config.cache_bytes).create_with_backend(backend);
        let damaged =
            |why: ::redb::DatabaseError| OpenFault::Damaged { path: config.path.clone(), why: why.to_string() };
        let database = opened.map_err(damaged)?;
        Self::serve(database, config, hooks.group)
    }

    fn serve(database: Database, config: Config, observer: GroupObserver) -> Result<Self, OpenFault> {
        let Config { path, cache_bytes: _, queue_max, group_max, audit_max, quick_repair_from } = config;
        let database = Arc::new(database);
        let live =
            Live::of(&database).map_err(|fault| OpenFault::Damaged { path: path.clone(), why: fault.to_string() })?;
        let (ahead, last) = ((*live.index).clone(), live.last);
        let live = Arc::new(RwLock::new(live));
        let mut writer = Writer {
            database: database.clone(),
            live: live.clone(),
            ahead,
            enrollments_changed: false,
            group_versions: HashMap::new(),
            last,
            audit_max,
            size: FileSize::of(&path, quick_repair_from),
            poison: None,
            observer,
        };
        let started = GroupWriter::start("store-writer", queue_max, group_max, move |jobs| writer.write(jobs));
        let writer = started.map_err(|source| OpenFault::Io { path: path.clone(), source })?;
        Ok(Self { writer, shared: Arc::new(Shared { live, _database: database }), path })
    }

    /// Commits that wait now.
    pub fn queued(&self) -> usize {
        self.writer.queued()
    }

    /// Runs a read that may take long where it holds nobody up.
    fn aside<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, StoreFault> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, StoreFault>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let outcome = tokio::task::spawn_blocking(move || read(&shared)).await;
            outcome.unwrap_or_else(|why| Err(StoreFault::Broken(why.to_string())))
        })
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedbStore({}, {} queued)", self.path.display(), self.queued())
    }
}

impl Store for RedbStore {
    fn load_enrollment<'a>(
        &'a self,
        id: &'a EnrollmentId,
    ) -> BoxFuture<'a, Result<Option<Arc<Enrollment>>, StoreFault>> {
        let found = self.shared.snapshot().load(Table::Enrollments, &enrollment_key(id));
        Box::pin(ready(found.map(|found| found.map(Arc::new))))
    }

    fn find_groups<'a>(&'a self, chain: &'a [AnchorRef]) -> BoxFuture<'a, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().find_groups(chain)))
    }

    fn key_groups(&self) -> BoxFuture<'_, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().key_groups()))
    }

    fn load_hub<'a>(&'a self, id: &'a HubId) -> BoxFuture<'a, Result<Option<Hub>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().load(Table::Hubs, &hub_key(id))))
    }

    fn hubs(&self) -> BoxFuture<'_, Result<Vec<(Hub, HubUse)>, StoreFault>> {
        let live = self.shared.live();
        Box::pin(ready(live.snapshot.hubs(&|hub| live.index.use_of(hub))))
    }

    fn load_device<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<DeviceFile, StoreFault>> {
        let folded = id.folded();
        let (snapshot, generations) = {
            let live = self.shared.live();
            (live.snapshot.clone(), live.index.generations(&folded))
        };
        Box::pin(ready(snapshot.device(&folded, &generations)))
    }

    fn load_move(&self, generation: Order) -> BoxFuture<'_, Result<Option<MoveLog>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().move_log(generation)))
    }

    fn find_claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Option<EnrollmentId>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().find_claim(claim)))
    }

    fn find_owner<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<RegistrationId>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().find_owner(device)))
    }

    fn list_enrollments<'a>(
        &'a self,
        listing: EnrollmentListing,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<Arc<Enrollment>>, StoreFault>> {
        let page = page.clone();
        self.aside(move |shared| shared.snapshot().list_enrollments(listing, &page))
    }

    fn list_registrations<'a>(
        &'a self,
        filter: &'a RegistrationFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<DeviceFile>, StoreFault>> {
        let (filter, page) = (filter.clone(), page.clone());
        self.aside(move |shared| shared.list_registrations(&filter, &page))
    }

    fn list_audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<StoredAudit>, StoreFault>> {
        let (filter, page) = (filter.clone(), page.clone());
        self.aside(move |shared| shared.snapshot().list_audit(&filter, &page))
    }

    fn find_audit(&self, tracking: TrackingId) -> BoxFuture<'_, Result<Option<StoredAudit>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().find_audit(tracking)))
    }

    fn load_last_known<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<Option<LastKnown>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().load(Table::LastKnown, id.folded().as_bytes())))
    }

    fn load_feed<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, Result<Option<FeedToken>, StoreFault>> {
        Box::pin(ready(self.shared.snapshot().load(Table::Feeds, &hub_key(hub))))
    }

    fn life(&self) -> BoxFuture<'_, Result<StoreLife, StoreFault>> {
        let (snapshot, last) = {
            let live = self.shared.live();
            (live.snapshot.clone(), live.last)
        };
        let restored = snapshot.get(Table::Meta, RESTORED_KEY).map(|row| row.is_some());
        Box::pin(ready(restored.map(|restored| StoreLife { last, restored })))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<RegistrationId>, StoreFault>> {
        Box::pin(ready(Ok(self.shared.live().index.unfinished())))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Order, CommitFault>> {
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let handed_in = self.writer.hand_in(Job { commit, reply }).await;
            handed_in.map_err(|closed| CommitFault::NotWritten(closed.to_string()))?;
            outcome.await.unwrap_or_else(|_| Err(CommitFault::Unknown("the writer stopped".to_owned())))
        })
    }

    fn back_up<'a>(
        &'a self,
        to: &'a Path,
        progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    ) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(backup::back_up(self.shared.snapshot(), to.to_owned(), progress))
    }
}
