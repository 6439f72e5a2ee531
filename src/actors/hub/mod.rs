//! The actor of one hub: its rate limit, its circuit, and the time limit of every call.
//!
//! ```text
//! circuit: closed ─ FAILURES_TO_OPEN failures in a row ─► open ─ after a pause: probe ─► closed
//!                                                          ▲──────── no answer ────────┘ (longer pause)
//! ```
//!
//! While the circuit is open a call is answered *unavailable* at once: it did not happen, and the device retries.
//! Calls wait for their slot in the hub's rate for at most [`SLOT_WAIT_MAX`]; beyond that they are told to come back.

mod handlers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};

use crate::ambient::Clock;
use crate::domain::{CallFault, Hub, Timestamp};
use crate::hubs::HubConnector;
use crate::telemetry::{self, ActorKind};

use super::fleet::Fleet;

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
    clock: Arc<dyn Clock>,
    fleet: Arc<Fleet>,
    circuit: Circuit,
    rate: Rate,
    in_flight: usize,
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
    pub fn new(hub: Hub, connector: Arc<dyn HubConnector>, clock: Arc<dyn Clock>, fleet: Arc<Fleet>) -> Self {
        Self {
            hub,
            connector,
            clock,
            fleet,
            circuit: Circuit::Closed { failures: 0 },
            rate: Rate::default(),
            in_flight: 0,
        }
    }

    /// Why a call cannot be made now; it did not happen.
    fn hindrance(&self) -> Option<CallFault> {
        let why = if self.hub.taken_down {
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
            self.fleet.set_reachable(&self.hub.id, true);
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
                self.fleet.set_reachable(&self.hub.id, false);
                self.circuit = Circuit::Open { pause: PROBE_FIRST };
                self.probe_after(PROBE_FIRST, ctx);
            }
            // A call that was under way when the circuit opened says nothing new.
            Circuit::Open { .. } => {}
        }
    }

    fn probe_after(&self, pause: Duration, ctx: &mut Context<Self>) {
        let (clock, connector, this) = (self.clock.clone(), self.connector.clone(), ctx.address().downgrade());
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
    }
}
