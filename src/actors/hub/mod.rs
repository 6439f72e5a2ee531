//! The actor of one hub: its rate limit, its circuit, and the time limit of every call.
//!
//! ```text
//! circuit: closed ─ FAILURES_TO_OPEN failures in a row ─► open ─ after a pause: probe ─► closed
//!                                                          ▲──────── no answer ────────┘ (longer pause)
//! ```
//!
//! While the circuit is open a call is answered *unavailable* at once: it did not happen, and the device retries.
//! Calls wait for their slot in the hub's rate for at most [`SLOT_WAIT_MAX`]; beyond that they are told to come back.

mod feed;
mod handlers;
mod lease;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};

use crate::domain::{CallFault, CallOutcome, Hub, HubId, HubRefusal, Incarnation, Order, Timestamp, limits};
use crate::hubs::{HubConnector, LeaseRenewal};
use crate::moves::Move;
use crate::store::{Change, Commit, StoreFault};
use crate::telemetry::{self, ActorKind};

pub use self::feed::{FeedFault, FeedRead, FeedRound};
pub use self::lease::Lease;
use super::device::Surroundings;
use super::messages::{FeedEnded, LeaseLoaded, LeaseRenewed, ReadFeed, RenewLease, Reply};

/// No answer within this counts as unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a call waits for its slot in the hub's rate.
pub const SLOT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Failures in a row that open the circuit: one may be chance, five is a pattern and costs a device two seconds.
pub const FAILURES_TO_OPEN: u32 = 5;
/// First and longest pause before a probe.
pub const PROBE_FIRST: Duration = Duration::from_secs(1);
pub const PROBE_MAX: Duration = Duration::from_secs(30);
/// Calls under way at once: a slow hub must not hold more than this many of the service's tasks.
pub const CALLS_IN_FLIGHT_MAX: usize = 1024;
/// Messages that may wait: a storm of moves toward one hub is answered *unavailable* beyond this.
pub const MAILBOX_MAX: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub struct HubActor {
    hub: Hub,
    connector: Arc<dyn HubConnector>,
    surroundings: Arc<Surroundings>,
    circuit: Circuit,
    rate: Rate,
    in_flight: usize,
    /// Who waits for the round of reading the feed that is under way; absent when none is.
    reading: Option<Vec<Reply<Result<FeedRead, FeedFault>>>>,
    /// Present for a hub that can hold a lease.
    lease: Option<Lease>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed { failures: u32 },
    Open { pause: Duration },
}

/// Slots at an even pace, handed out in order.
#[derive(Debug, Default)]
struct Rate {
    /// The last slots handed out, as many as fit a second: the next is free one second after the oldest.
    taken: VecDeque<Timestamp>,
}

impl Rate {
    /// The time of the next slot under `per_second`, or `None` when it is too far away.
    fn slot(&mut self, per_second: Option<u32>, now: Timestamp) -> Option<Timestamp> {
        let Some(per_second) = per_second.filter(|rate| *rate > 0) else { return Some(now) };
        // Slots so far ahead were handed out by a clock that has gone back since.
        if self.taken.back().is_some_and(|last| *last > now.plus(SLOT_WAIT_MAX)) {
            self.taken.clear();
        }
        let places = usize::try_from(per_second).unwrap_or(usize::MAX);
        let free_at = match self.taken.len().checked_sub(places) {
            Some(oldest) => self.taken[oldest].plus(Duration::from_secs(1)).max(now),
            None => now,
        };
        if free_at > now.plus(SLOT_WAIT_MAX) {
            return None;
        }
        self.taken.push_back(free_at);
        while self.taken.len() > places {
            self.taken.pop_front();
        }
        Some(free_at)
    }
}

impl HubActor {
    pub fn new(hub: Hub, connector: Arc<dyn HubConnector>, surroundings: Arc<Surroundings>) -> Self {
        let lease = connector.abilities().leases.then(|| Lease::new(surroundings.clock.monotonic()));
        Self {
            hub,
            connector,
            surroundings,
            circuit: Circuit::Closed { failures: 0 },
            rate: Rate::default(),
            in_flight: 0,
            reading: None,
            lease,
        }
    }

    /// Why a call cannot be made now; it did not happen.
    fn hindrance(&self) -> Option<CallFault> {
        if let Some(why) = self.surroundings.fleet.halted() {
            return Some(CallFault::Unavailable(format!("no device is moved: {why}")));
        }
        let why = if self.surroundings.fleet.is_restored(&self.hub.id) {
            "it was restored from an older copy and waits for `rehome reconcile`"
        } else if self.hub.taken_down {
            "it was taken down by an operator"
        } else if let Circuit::Open { .. } = self.circuit {
            "it did not answer lately, and is being probed"
        } else if self.in_flight >= CALLS_IN_FLIGHT_MAX {
            "too many calls to it are under way"
        } else {
            return None;
        };
        Some(CallFault::Unavailable(why.to_owned()))
    }

    fn note_answer(&mut self) {
        if let Circuit::Open { .. } = self.circuit {
            tracing::info!(hub = %self.hub.id, "the hub answers again");
            telemetry::circuit_changed(&self.hub.id, false);
            self.surroundings.fleet.set_reachable(&self.hub.id, true);
        }
        self.circuit = Circuit::Closed { failures: 0 };
    }

    fn note_failure(&mut self, ctx: &mut Context<Self>) {
        match self.circuit {
            Circuit::Closed { failures } if failures + 1 < FAILURES_TO_OPEN => {
                self.circuit = Circuit::Closed { failures: failures + 1 };
            }
            Circuit::Closed { .. } => {
                tracing::warn!(hub = %self.hub.id, "the hub does not answer, its circuit is open");
                telemetry::circuit_changed(&self.hub.id, true);
                self.surroundings.fleet.set_reachable(&self.hub.id, false);
                self.circuit = Circuit::Open { pause: PROBE_FIRST };
                self.probe_after(PROBE_FIRST, ctx);
            }
            // A call that was under way when the circuit opened says nothing new.
            Circuit::Open { .. } => {}
        }
    }

    fn probe_after(&self, pause: Duration, ctx: &mut Context<Self>) {
        let clock = self.surroundings.clock.clone();
        let (connector, this) = (self.connector.clone(), ctx.address().downgrade());
        actix_rt::spawn(async move {
            clock.sleep(pause).await;
            let answered = {
                let limit = clock.sleep(CALL_TIMEOUT);
                tokio::select! {
                    report = connector.describe() => report.is_ok(),
                    () = limit => false,
                }
            };
            if let Some(this) = this.upgrade() {
                // The actor may have stopped meanwhile: then nobody needs to know.
                let _ = this.send(super::messages::Probed { answered }).await;
            }
        });
    }
}

impl HubActor {
    /// Sends a nudge to itself after a pause, unless the actor has stopped by then.
    fn nudge_after<M>(&self, pause: Duration, nudge: M, ctx: &mut Context<Self>)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        Self: actix::Handler<M>,
    {
        let (timer, this) = (self.surroundings.clock.sleep(pause), ctx.address().downgrade());
        actix_rt::spawn(async move {
            timer.await;
            if let Some(this) = this.upgrade() {
                // The actor may have stopped meanwhile: then nobody needs to know.
                let _ = this.send(nudge).await;
            }
        });
    }

    fn read_feed_later(&self, ctx: &mut Context<Self>) {
        let pause = feed::pause(self.surroundings.fleet.feed_every(), self.surroundings.entropy.draw_u128());
        self.nudge_after(pause, ReadFeed { reply: None }, ctx);
    }

    /// Starts a round; it comes back as [`FeedEnded`].
    fn read_feed(&self, ctx: &mut Context<Self>) {
        let (hub, connector) = (self.hub.clone(), self.connector.clone());
        let (surroundings, this) = (self.surroundings.clone(), ctx.address());
        actix_rt::spawn(async move {
            let round = FeedRound::of(&hub, connector.as_ref(), surroundings.store.as_ref());
            let outcome = round.read(|| surroundings.clock.now()).await;
            // The actor may have stopped meanwhile: its successor reads on from the place that is stored.
            let _ = this.send(FeedEnded { outcome }).await;
        });
    }

    /// Reads the bypasses of this hub that stand; they come back as [`LeaseLoaded`].
    fn load_lease(&self, pause: Duration, ctx: &mut Context<Self>) {
        let (hub, surroundings, this) = (self.hub.id.clone(), self.surroundings.clone(), ctx.address());
        actix_rt::spawn(async move {
            surroundings.clock.sleep(pause).await;
            let load = async {
                let mut stored = Vec::new();
                for id in surroundings.store.unfinished().await? {
                    let open = surroundings.store.load_device(&id).await?.open;
                    // What cannot be replayed is said by the device's own actor, which cannot go on either.
                    let moves = open.into_iter().filter_map(|log| Move::replay(log).ok());
                    let bypasses = moves.filter_map(|this| this.bypass()).filter(|(at, _)| *at == hub);
                    stored.extend(bypasses.map(|(_, must)| must));
                }
                Ok::<_, StoreFault>(stored)
            };
            let stored = load.await.inspect_err(|fault| tracing::warn!("bypasses cannot be read: {fault}")).ok();
            let _ = this.send(LeaseLoaded { stored }).await;
        });
    }

    /// Renews the lease, when it may be; the answer comes back as [`LeaseRenewed`].
    fn renew_lease(&mut self, ctx: &mut Context<Self>) {
        if self.hindrance_of_lease() {
            return;
        }
        let now = self.surroundings.clock.monotonic();
        let incarnation = self.hub.incarnation;
        let Some(lease) = &mut self.lease else { return };
        let Some(carried) = lease.list() else { return };
        let ticket = lease.ticket.take();
        let extended = ticket.is_some();
        if extended {
            lease.sending(now);
        }
        let (surroundings, connector, this) = (self.surroundings.clone(), self.connector.clone(), ctx.address());
        let (clock, hub) = (surroundings.clock.clone(), self.hub.id.clone());
        actix_rt::spawn(async move {
            let renew = async {
                hear(&surroundings, &hub, connector.as_ref()).await?;
                // A long list goes first, in parts that extend nothing.
                for part in carried.chunks(lease::LIST_MAX) {
                    let part = LeaseRenewal { incarnation, ticket: None, must_seal: part.to_vec() };
                    connector.renew_lease(&part).await?;
                }
                connector.renew_lease(&LeaseRenewal { incarnation, ticket, must_seal: Vec::new() }).await
            };
            let limit = clock.sleep(CALL_TIMEOUT);
            let outcome = tokio::select! {
                outcome = renew => outcome,
                () = limit => Err(CallFault::Unknown(format!("no answer in {} s", CALL_TIMEOUT.as_secs()))),
            };
            let _ = this.send(LeaseRenewed { carried, extended, outcome }).await;
        });
    }

    /// Whether the lease must run out: the hub is to do nothing, or the service does not know what it should do.
    fn hindrance_of_lease(&self) -> bool {
        let fleet = &self.surroundings.fleet;
        self.hub.taken_down || fleet.halted().is_some() || fleet.is_restored(&self.hub.id)
    }
}

/// A refusal that says something of the hub, or of the service's own memory, rather than of the device: the call did not
/// happen, and is made again once that is mended.
///
/// A call that was long on its way may name an incarnation that is over, of a hub that has been gone through since: that says
/// nothing new. Only one that is refused though it names the current one, or by a hub of one that nobody knows, does.
pub async fn unless_gone_back(
    surroundings: &Surroundings,
    hub: &HubId,
    named: Option<Incarnation>,
    outcome: CallOutcome,
) -> CallOutcome {
    match outcome {
        Err(CallFault::Refused(HubRefusal::WrongIncarnation { current })) => {
            let known = surroundings.fleet.berth(hub).and_then(|berth| berth.hub.incarnation);
            if named.is_none_or(|named| named == current) || known != Some(current) {
                surroundings.fleet.set_restored(hub, true);
            }
            Err(CallFault::Unavailable("it was restored from an older copy".to_owned()))
        }
        Err(CallFault::Refused(HubRefusal::Stale { highest })) => match surroundings.store.life().await {
            Ok(life) if highest <= life.last => Err(CallFault::Refused(HubRefusal::Stale { highest })),
            Ok(life) => Err(went_back(surroundings, hub, highest, life.last).await),
            Err(fault) => Err(CallFault::Unavailable(format!("whether its order is known cannot be read: {fault}"))),
        },
        Ok(_) | Err(CallFault::Refused(_) | CallFault::Unavailable(_) | CallFault::Unknown(_)) => outcome,
    }
}

/// Listens to a hub that was away when the service started, before anything is said to it: what it has obeyed is compared
/// with what had been ordered before the start. Later the service's own new orders would hide that some were forgotten.
pub async fn hear(surroundings: &Surroundings, hub: &HubId, connector: &dyn HubConnector) -> Result<(), CallFault> {
    if surroundings.fleet.unheard(hub).is_none() {
        return Ok(());
    }
    let report = connector.describe().await;
    let report =
        report.map_err(|fault| CallFault::Unavailable(format!("it has not answered since the start: {fault}")))?;
    // Another call may have heard it meanwhile, and have been obeyed.
    match surroundings.fleet.unheard(hub) {
        Some(last) if report.highest > last => Err(went_back(surroundings, hub, report.highest, last).await),
        Some(_) => {
            surroundings.fleet.set_unheard(hub, None);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Stops all moves, since a hub has obeyed an order that this store does not know of.
async fn went_back(surroundings: &Surroundings, hub: &HubId, highest: Order, last: Order) -> CallFault {
    let why = format!(
        "hub {hub} has obeyed order {highest}, and the service knows of none above {last}: its store went back in time"
    );
    surroundings.fleet.set_halted(Some(why.clone()));
    let note = Commit { changes: vec![Change::SetRestored(true)], ..Commit::default() };
    if let Err(fault) = surroundings.store.commit(note).await {
        // In memory it stands; after a restart the next answer of that hub says it again.
        tracing::warn!("that the store went back in time was not written: {fault}");
    }
    CallFault::Unavailable(why)
}

impl Drop for HubActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            telemetry::actor_panicked(ActorKind::Hub);
        }
    }
}

impl Actor for HubActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        self.read_feed_later(ctx);
        if self.lease.is_some() {
            self.load_lease(Duration::ZERO, ctx);
            self.nudge_after(limits::LEASE_RENEWED_EVERY, RenewLease { in_turn: true }, ctx);
        }
    }
}
