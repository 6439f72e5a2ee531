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
use std::sync::Arc;

use futures_util::future::BoxFuture;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub use self::factory::EmbeddedHubs;
use self::gate::Gate;
use self::reader::{ReadFault, Reader};
pub use self::tables::{BackUpFault, OpenFault};
use self::writer::{Asker, CallJob, Job, ReadmitJob, TwinAsk, TwinJob, Writer};
use super::twins::{self, Presence};
use super::watch::Watchers;
use super::{
    Abilities, DesiredEvent, HubConnector, HubReport, Resident, ResidentPage, TwinCaller, TwinHost, TwinRefusal,
    TwinWrite,
};
use crate::ambient::{Clock, Entropy, GroupWriter};
use crate::domain::{CallFault, CallOutcome, DeviceId, DeviceState, Document, HubCall, Incarnation, limits};

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
    incarnation: Incarnation,
    database: Arc<Database>,
    reader: Reader,
    watchers: Arc<Watchers>,
    gate: Arc<Gate>,
    writer: GroupWriter<Job>,
}

impl EmbeddedHub {
    /// Opens the hub's file, or makes it. Blocks while a file is repaired that was not closed.
    pub fn open(config: Config, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Result<Self, OpenFault> {
        let (database, identity) = tables::open(&config.path, config.cache_bytes, entropy)?;
        Self::over(database, identity, config, clock)
    }

    fn over(
        database: Database,
        identity: tables::Identity,
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenFault> {
        let database = Arc::new(database);
        let watchers = Arc::new(Watchers::default());
        let gate = Arc::new(Gate::new());
        let mut writer = Writer {
            database: database.clone(),
            clock,
            watchers: watchers.clone(),
            gate: gate.clone(),
            incarnation: identity.incarnation,
            restored: identity.restored,
            devices_max: config.devices_max,
        };
        let writer = GroupWriter::start("hub-writer", QUEUE_MAX, GROUP_MAX, move |jobs| writer.write(jobs))
            .map_err(OpenFault::Thread)?;
        let core = Core {
            path: config.path,
            incarnation: identity.incarnation,
            reader: Reader::new(database.clone()),
            database,
            watchers,
            gate,
            writer,
        };
        Ok(Self { core: Arc::new(core) })
    }

    pub fn incarnation(&self) -> Incarnation {
        self.core.incarnation
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

    /// Lets a restored hub take twin writes again: its devices have been gone through. Others are not changed by it.
    pub async fn readmit(&self) -> Result<(), CallFault> {
        let (asker, answer) = Asker::new();
        self.core.hand_in(Job::Readmit(ReadmitJob { asker }), answer).await.map_err(CallFault::from)?
    }
}

impl Core {
    fn check(&self) -> Result<(), Silence> {
        self.gate.check().map_err(Silence::Unavailable)
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
            Ok(HubReport { incarnation: self.core.incarnation, devices: self.core.reader.count()? })
        })
    }

    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        Box::pin(async move {
            let (asker, answer) = Asker::new();
            let job = Job::Call(CallJob { incarnation, call: call.clone(), asker });
            self.core.hand_in(job, answer).await?
        })
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<DeviceState>, CallFault>> {
        Box::pin(async move {
            self.core.check()?;
            Ok(self.core.reader.tenant(device)?.map(|tenant| tenant.state))
        })
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        Some(Arc::new(EmbeddedTwins { core: self.core.clone() }))
    }
}

impl EmbeddedTwins {
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
            let found = self.core.reader.find(device)?;
            let tenant = twins::admit(Presence::from(&found), caller)?;
            Ok(twins::resident(device, tenant))
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
            self.core.watchers.enter(device, || {
                // Under the lock of the watchers: whoever takes the hub down either is seen here or ends this watch.
                self.core.check()?;
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
