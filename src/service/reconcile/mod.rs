//! Going through hubs that were restored from an older copy, and through all hubs when the service's own store was.
//!
//! It takes no notes of its own: it looks at hubs and store, and sets right what is not as it should be. So it can end
//! anywhere, by a crash or because nobody listens any more, and be started again. What was set right is in the audit log.

mod home;
mod hub;
mod store;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream;
use futures_util::{FutureExt, Stream};
use tokio::sync::{Mutex, mpsc};

use crate::actors::{Directory, Fleet};
use crate::ambient::{Clock, Entropy};
use crate::domain::{DeviceId, Fault, Hub, HubId, Order, Reason, RegistrationId, Timestamp};
use crate::store::Store;

use super::{Service, fault};

/// News that may wait for whoever reads them: a reader that is slow slows the work down.
const NEWS_MAX: usize = 64;

/// What has happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reinstatement {
    /// What the hub has is the newest that is known: writes after it was last seen are lost, if there were any.
    Kept,
    /// What the hub had was older than what was seen of it, and was replaced by that.
    Replaced,
    /// The hub did not have it: made again of what was seen of it.
    Recreated,
    /// The hub did not have it and nothing was ever seen of it: it starts from the initial twin.
    StartedAnew,
    /// In the middle of a move: as the journal says, to the letter.
    AsJournaled,
    /// Its home is elsewhere: closed, its twin goes to the history, and then it is deleted here.
    Collected,
    /// No registration has it: closed, until a registration takes it over.
    Unknown,
    /// The store said that it lives elsewhere (or was on its way): its home is here.
    HomeCorrected,
    /// The store says that it lives here, and the hub does not have it.
    Missing,
}

impl Reinstatement {
    pub const ALL: [Reinstatement; 9] = [
        Reinstatement::Kept,
        Reinstatement::Replaced,
        Reinstatement::Recreated,
        Reinstatement::StartedAnew,
        Reinstatement::AsJournaled,
        Reinstatement::Collected,
        Reinstatement::Unknown,
        Reinstatement::HomeCorrected,
        Reinstatement::Missing,
    ];

    /// A stable word for reports and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Reinstatement::Kept => "kept",
            Reinstatement::Replaced => "replaced",
            Reinstatement::Recreated => "recreated",
            Reinstatement::StartedAnew => "started_anew",
            Reinstatement::AsJournaled => "as_journaled",
            Reinstatement::Collected => "collected",
            Reinstatement::Unknown => "unknown",
            Reinstatement::HomeCorrected => "home_corrected",
            Reinstatement::Missing => "missing",
        }
    }
}

/// One device that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNews {
    pub hub: HubId,
    pub device: DeviceId,
    pub registration: Option<RegistrationId>,
    pub became: Reinstatement,
    /// When the state that is there now was seen, or written into the journal; writes after that are lost. Absent where no
    /// write can have been lost, or nothing was seen.
    pub seen_at: Option<Timestamp>,
    /// Of the twin that the state is from.
    pub version: Option<u64>,
}

/// How the work goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileNews {
    /// The store was put back: its orders go on above this one, and its homes are held against what the hubs have.
    StoreBegan {
        orders_above: Order,
    },
    HubBegan {
        hub: HubId,
        devices: u64,
    },
    Device(DeviceNews),
    HubDone {
        hub: HubId,
        devices: u64,
    },
    StoreDone,
}

/// Where news go. An error means that nobody listens any more.
struct Teller(mpsc::Sender<Result<ReconcileNews, Fault>>);

impl Teller {
    async fn tell(&self, news: ReconcileNews) -> Result<(), Fault> {
        let gone = |_| Fault::new(Reason::ServiceUnavailable, "nobody listens any more: run it again to go on");
        self.0.send(Ok(news)).await.map_err(gone)
    }
}

/// Who must hear of what a run has changed.
pub trait Tidings: fmt::Debug + Send + Sync {
    /// Somebody else than the device's actor has written lines of it.
    fn read_again(&self, id: &RegistrationId);

    fn hub_changed(&self, hub: Hub) -> BoxFuture<'_, ()>;
}

impl Tidings for Directory {
    fn read_again(&self, id: &RegistrationId) {
        self.read_again(id);
    }

    fn hub_changed(&self, hub: Hub) -> BoxFuture<'_, ()> {
        self.hub_changed(hub).boxed()
    }
}

/// What a run works on. It knows neither actors nor threads: a simulation (`tests/sim`) runs the same code step by step.
#[derive(Debug, Clone)]
pub struct Ground {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub fleet: Arc<Fleet>,
    pub tidings: Arc<dyn Tidings>,
    /// Held while a hub's record and the hub itself are changed together.
    pub fleet_gate: Arc<Mutex<()>>,
}

/// News of a run, as they come.
pub type News = mpsc::Receiver<Result<ReconcileNews, Fault>>;

impl Ground {
    /// A run, and its news. Dropped half way it can be started again.
    pub fn go_through(self, only: Option<HubId>, dry_run: bool, by: &str) -> (BoxFuture<'static, ()>, News) {
        let (news, read) = mpsc::channel(NEWS_MAX);
        let run = Run { ground: self, by: by.to_owned(), dry_run, teller: Teller(news) };
        (run.go(only).boxed(), read)
    }
}

/// One run.
struct Run {
    ground: Ground,
    by: String,
    dry_run: bool,
    teller: Teller,
}

impl Service {
    /// Goes through the store, when it was put back, and through every hub that waits (or the one that is named). One at a
    /// time. A dry run changes nothing and tells the same.
    pub async fn reconcile(
        &self,
        only: Option<HubId>,
        dry_run: bool,
        by: &str,
    ) -> Result<impl Stream<Item = Result<ReconcileNews, Fault>> + Send + use<>, Fault> {
        let Ok(turn) = self.inner.reconcile_gate.clone().try_lock_owned() else {
            return Err(Fault::new(Reason::Overloaded, "another reconcile is under way"));
        };
        if let Some(hub) = &only {
            self.hub(hub).await?;
        }
        let inner = &self.inner;
        let ground = Ground {
            store: inner.store.clone(),
            clock: inner.clock.clone(),
            entropy: inner.entropy.clone(),
            fleet: inner.directory.fleet().clone(),
            tidings: Arc::new(inner.directory.clone()),
            fleet_gate: inner.fleet_gate.clone(),
        };
        let (run, read) = ground.go_through(only, dry_run, by);
        tokio::spawn(async move {
            let _turn = turn;
            run.await;
        });
        Ok(stream::unfold(read, |mut read| async move { Some((read.recv().await?, read)) }))
    }
}

impl Run {
    async fn go(self, only: Option<HubId>) {
        if let Err(fault) = self.attempt(only).await {
            tracing::warn!("reconcile ended early: {}", fault.message);
            // Nobody may listen any more.
            let _ = self.teller.0.send(Err(fault)).await;
        }
    }

    async fn attempt(&self, only: Option<HubId>) -> Result<(), Fault> {
        let inner = &self.ground;
        let life = inner.store.life().await.map_err(fault::of_store)?;
        if life.restored || inner.fleet.halted().is_some() {
            if let Some(hub) = only {
                let message = format!("the store was put back: all hubs are gone through, not {hub} alone");
                return Err(Fault::new(Reason::HubStateConflict, message));
            }
            self.store(life).await?;
        }
        for (hub, _) in inner.store.hubs().await.map_err(fault::of_store)? {
            if only.as_ref().is_none_or(|only| *only == hub.id) {
                self.hub(hub).await?;
            }
        }
        Ok(())
    }
}

fn away(hub: &HubId, why: impl std::fmt::Display) -> Fault {
    Fault::new(Reason::HubUnavailable, format!("hub {hub} does not answer: {why}")).with("hub", hub.as_str())
}
