//! The embedded hub: a real one, with durable twins in a file of its own.
//!
//! Calls and twin writes go through one writer thread and are durable before they are answered; reads come from what is
//! durable. It holds no lease: it lives in the process of the service that would give it one.

mod factory;
mod gate;
mod reader;
mod records;
mod tables;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub use self::factory::EmbeddedHubs;
use self::gate::Gate;
use self::reader::{ReadFault, Reader};
#[cfg(feature = "testing")]
pub use self::records::{reread_row, row_samples};
pub use self::tables::{BackUpFault, OpenFault};
use self::tables::{Identity, Marks};
pub use self::writer::SyncObserver;
use self::writer::{Asker, CallJob, Job, ReadmitJob, ReinstateJob, TwinAsk, TwinJob, Writer};
use super::twins::{self, Presence};
use super::watch::Watchers;
use super::{
    Abilities, ChangePage, DesiredEvent, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, Resident,
    ResidentPage, Sighting, TwinCaller, TwinHost, TwinRefusal, TwinWrite,
};
use crate::ambient::{Clock, Entropy, FileSize, GroupWriter};
use crate::domain::{CallFault, CallOutcome, DeviceId, Document, FeedToken, HubCall, Incarnation, Order, limits};

/// Jobs that wait for the writer: some ten groups, a fraction of a second's work.
const QUEUE_MAX: usize = 1024;
/// Jobs that share one commit: beyond a hundred the gain is small, and each holds at most a twin (reference/stack.md §3c).
const GROUP_MAX: usize = 128;

/// Where a hub keeps its devices and how much it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The hub's own file; made when it is not there.
    pub path: PathBuf,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// Devices it takes; `None` is no bound.
    pub devices_max: Option<u64>,
}

/// A hub in this process. Clones are handles on the same hub; its file is closed when the last one is dropped.
#[derive(Clone)]
pub struct EmbeddedHub {
    core: Arc<Core>,
}

/// The same hub as its devices and back ends see it.
#[derive(Clone)]
struct EmbeddedTwins {
    core: Arc<Core>,
}

struct Core {
    path: PathBuf,
    life: Arc<Life>,
    entropy: Arc<dyn Entropy>,
    database: Arc<Database>,
    reader: Reader,
    watchers: Arc<Watchers>,
    gate: Arc<Gate>,
    writer: GroupWriter<Job>,
}

/// Which life of its data a hub is in, and how far it has come in it.
#[derive(Debug)]
struct Life(Mutex<(Identity, Marks)>);

impl Life {
    fn identity(&self) -> Identity {
        self.lock().0
    }

    fn marks(&self) -> Marks {
        self.lock().1
    }

    /// What a group of jobs has made of it. Only a readmission ends the wait.
    fn advance(&self, readmitted: bool, marks: Marks) {
        let mut life = self.lock();
        life.0.restored &= !readmitted;
        life.1 = marks;
    }

    fn lock(&self) -> MutexGuard<'_, (Identity, Marks)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmbeddedHub {
    /// Opens the hub's file, or makes it. Blocks while a file is repaired that was not closed.
    pub fn open(config: Config, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, OpenFault> {
        Self::open_observed(config, clock, entropy, Arc::new(|| {}))
    }

    /// As above; `synced` is told of every group that was made durable, on the writer's thread.
    pub fn open_observed(
        config: Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        synced: SyncObserver,
    ) -> Result<Self, OpenFault> {
        let (database, identity) = tables::open(&config.path, config.cache_bytes, entropy.as_ref())?;
        Self::over(database, identity, config, (clock, entropy), synced)
    }

    /// A hub on a disk that a test has made; it must hold a hub already.
    #[cfg(feature = "testing")]
    pub fn on(
        backend: impl redb::StorageBackend,
        config: Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenFault> {
        let (database, identity) = tables::open_on(backend, &config.path, config.cache_bytes, entropy.as_ref())?;
        Self::over(database, identity, config, (clock, entropy), Arc::new(|| {}))
    }

    fn over(
        database: Database,
        identity: Identity,
        config: Config,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        synced: SyncObserver,
    ) -> Result<Self, OpenFault> {
        let marks = tables::read_marks(&database)
            .map_err(|source| OpenFault::Database { path: config.path.clone(), source })?;
        let life = Arc::new(Life(Mutex::new((identity, marks))));
        let database = Arc::new(database);
        let watchers = Arc::new(Watchers::default());
        let gate = Arc::new(Gate::new());
        let mut writer = Writer {
            database: database.clone(),
            clock,
            watchers: watchers.clone(),
            gate: gate.clone(),
            life: life.clone(),
            session: Order::default(),
            marks,
            devices_max: config.devices_max,
            synced,
            size: FileSize::of(&config.path, limits::QUICK_REPAIR_FROM_BYTES),
        };
        let writer = GroupWriter::start("hub-writer", QUEUE_MAX, GROUP_MAX, move |jobs| writer.write(jobs))
            .map_err(OpenFault::Thread)?;
        let core = Core {
            path: config.path,
            life,
            entropy,
            reader: Reader::new(database.clone()),
            database,
            watchers,
            gate,
            writer,
        };
        Ok(Self { core: Arc::new(core) })
    }

    pub fn incarnation(&self) -> Incarnation {
        self.core.life.identity().incarnation
    }

    /// Behaves from now on as a hub that does not answer; whoever watches is cut off. What is being written meanwhile
    /// may still be answered.
    pub fn take_down(&self) {
        self.core.gate.take_down();
        self.core.watchers.end_all();
    }

    /// Answers again, with everything it had. A hub that a failed write has broken must be opened again instead.
    pub fn bring_up(&self) {
        self.core.gate.bring_up();
    }

    /// Copies everything durable to a new file while the hub goes on. A hub opened from it has a new incarnation and
    /// takes no twin writes until it is readmitted. Blocks for as long as it takes: not for an async thread.
    pub fn back_up(&self, to: &Path) -> Result<(), BackUpFault> {
        tables::back_up(&self.core.database, to)
    }
}

impl Core {
    fn check(&self) -> Result<(), Silence> {
        self.gate.check().map_err(Silence::Unavailable)
    }

    /// The token, when the feed can go on from it. One of this incarnation that lies beyond its end was given out by a
    /// life of this file that is gone: an older copy was put in its place.
    fn proven(&self, since: Option<FeedToken>) -> Result<Option<FeedToken>, CallFault> {
        let (identity, marks) = (self.life.identity(), self.life.marks());
        let Some(since) = since.filter(|since| since.incarnation == identity.incarnation) else { return Ok(None) };
        if since.position <= marks.position {
            return Ok(Some(since));
        }
        tracing::error!(path = %self.path.display(), "the hub's file is an older copy of what it was");
        let risen = Identity { incarnation: Incarnation(self.entropy.draw_u128()), restored: true };
        // Writes are turned away before it is durable: whatever the disk says, none of them may get in.
        self.life.lock().0 = risen;
        self.watchers.end_all();
        // Waits for the group that is being written: milliseconds, and once in the life of a file.
        match tables::mark_restored(&self.database, risen) {
            Ok(()) => Ok(None),
            Err(fault) => {
                self.gate.break_down(fault.to_string());
                Err(CallFault::Unavailable(fault.to_string()))
            }
        }
    }

    async fn hand_in<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Result<T, Silence> {
        self.check()?;
        self.writer.hand_in(job).await.map_err(|fault| Silence::Unavailable(fault.to_string()))?;
        // The writer answers every job, unless it ends in the middle of one.
        answer.await.map_err(|_| Silence::Unknown("the writer ended before it answered".to_owned()))
    }
}

/// No answer at all.
enum Silence {
    Unavailable(String),
    Unknown(String),
}

impl From<Silence> for CallFault {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unavailable(why) => CallFault::Unavailable(why),
            Silence::Unknown(why) => CallFault::Unknown(why),
        }
    }
}

impl From<Silence> for TwinRefusal {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unavailable(_) => TwinRefusal::Unavailable,
            Silence::Unknown(why) => TwinRefusal::Unknown(why),
        }
    }
}

impl From<ReadFault> for CallFault {
    fn from(fault: ReadFault) -> Self {
        CallFault::Unavailable(fault.to_string())
    }
}

impl From<ReadFault> for TwinRefusal {
    fn from(fault: ReadFault) -> Self {
        tracing::error!(%fault, "a hub's file cannot be read");
        TwinRefusal::Unavailable
    }
}

impl HubConnector for EmbeddedHub {
    fn abilities(&self) -> Abilities {
        Abilities { writes_reported: true, seals: true, stages: true, fences: true, leases: false }
    }

    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>> {
        Box::pin(async {
            self.core.check()?;
            let Identity { incarnation, restored } = self.core.life.identity();
            let highest = self.core.life.marks().highest;
            Ok(HubReport { incarnation, devices: self.core.reader.count()?, restored, highest })
        })
    }

    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        Box::pin(async move {
            let (asker, answer) = Asker::new();
            let job = Job::Call(CallJob { incarnation, call: call.clone(), asker });
            self.core.hand_in(job, answer).await?
        })
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>> {
        Box::pin(async move {
            self.core.check()?;
            Ok(self.core.reader.tenant(device)?.map(|tenant| twins::sighting(device, &tenant)))
        })
    }

    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>> {
        Box::pin(async move {
            self.core.check()?;
            let since = self.core.proven(since)?;
            let incarnation = self.core.life.identity().incarnation;
            let from = since.map_or(0, |since| since.position);
            let (rows, position, more) = self.core.reader.changes(from, max.clamp(1, limits::FEED_ROWS_MAX))?;
            Ok(ChangePage { rows, next: FeedToken { incarnation, position }, more, whole: since.is_none() })
        })
    }

    fn renew_lease<'a>(&'a self, _: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>> {
        Box::pin(async { Err(CallFault::Unavailable("it holds no lease".to_owned())) })
    }

    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>> {
        Box::pin(async move {
            let (asker, answer) = Asker::new();
            let job = Job::Reinstate(Box::new(ReinstateJob { device: device.clone(), asker }));
            self.core.hand_in(job, answer).await?
        })
    }

    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>> {
        Box::pin(async move {
            let (asker, answer) = Asker::new();
            self.core.hand_in(Job::Readmit(ReadmitJob { incarnation, session, asker }), answer).await?
        })
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        Some(Arc::new(EmbeddedTwins { core: self.core.clone() }))
    }
}

impl EmbeddedTwins {
    /// Whether this caller's key ends older ones. Who may not come in at all is told so later.
    fn uses_up(&self, device: &DeviceId, caller: &TwinCaller) -> Result<bool, TwinRefusal> {
        self.core.check()?;
        let found = self.core.reader.find(device)?;
        Ok(twins::admit(Presence::from(&found), caller)
            .is_ok_and(|tenant| twins::used_up(&tenant.credential, caller).is_some()))
    }

    async fn write(&self, device: &DeviceId, ask: TwinAsk) -> Result<Resident, TwinRefusal> {
        let (asker, answer) = Asker::new();
        let job = Job::Twin(Box::new(TwinJob { device: device.clone(), ask, asker }));
        self.core.hand_in(job, answer).await?
    }
}

impl TwinHost for EmbeddedTwins {
    fn read<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move {
            self.core.check()?;
            if self.core.life.identity().restored && matches!(caller, TwinCaller::Device(_) | TwinCaller::Token(_)) {
                return Err(TwinRefusal::Moving);
            }
            let found = self.core.reader.find(device)?;
            let tenant = twins::admit(Presence::from(&found), caller)?;
            match twins::used_up(&tenant.credential, caller) {
                // Durable before the device sees anything: it must not find older keys good again after a crash.
                Some(_) => self.write(device, TwinAsk::Use { caller: caller.clone() }).await,
                None => Ok(twins::resident(device, tenant)),
            }
        })
    }

    fn report<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
        patch: Document,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move { self.write(device, TwinAsk::Report { caller: caller.clone(), patch }).await })
    }

    fn write<'a>(
        &'a self,
        device: &'a DeviceId,
        version: Option<u64>,
        write: TwinWrite,
    ) -> BoxFuture<'a, Result<Resident, TwinRefusal>> {
        Box::pin(async move { self.write(device, TwinAsk::Write { version, write }).await })
    }

    fn watch<'a>(
        &'a self,
        device: &'a DeviceId,
        caller: &'a TwinCaller,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<DesiredEvent>, TwinRefusal>> {
        Box::pin(async move {
            if self.uses_up(device, caller)? {
                self.write(device, TwinAsk::Use { caller: caller.clone() }).await?;
            }
            self.core.watchers.enter(device, || {
                // Under the lock of the watchers: whoever takes the hub down either is seen here or ends this watch.
                self.core.check()?;
                if self.core.life.identity().restored {
                    return Err(TwinRefusal::Moving);
                }
                let found = self.core.reader.find(device)?;
                let tenant = twins::admit_write(Presence::from(&found), caller)?;
                Ok(twins::whole(&tenant.state))
            })
        })
    }

    fn list<'a>(&'a self, size: u32, token: Option<&'a str>) -> BoxFuture<'a, Result<ResidentPage, TwinRefusal>> {
        Box::pin(async move {
            self.core.check()?;
            let after = token.map(twins::read_token).transpose()?;
            let size = size.clamp(1, limits::PAGE_SIZE_MAX);
            Ok(self.core.reader.page(size, after.as_ref())?)
        })
    }
}

impl fmt::Debug for EmbeddedHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedHub({})", self.core.path.display())
    }
}

impl fmt::Debug for EmbeddedTwins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedTwins({})", self.core.path.display())
    }
}

#[cfg(test)]
mod tests;
