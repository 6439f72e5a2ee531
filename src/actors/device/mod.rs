//! The actor of one device: the only one that decides about it, one thing at a time.
//!
//! A handler is *snapshot → decide → commit → reply, start effects*, and runs atomically: while it waits for its commit,
//! later messages wait in the mailbox. It owns the [`Core`] for that time and gives it back with the [`After`], the
//! effects to start. Calls to hubs and webhooks run outside and come back as facts.
//!
//! After a commit of unknown outcome, or one refused because somebody else went on with the device, the actor stops: its
//! memory is a cache, and the next message finds a new one that has read the store.

mod core;
mod handlers;
mod judge;
mod perform;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, AtomicResponse, Context, WrapFuture};
use tokio::sync::watch;
use tracing::Instrument;

use crate::allocators::Allocator;
use crate::ambient::{Clock, Entropy};
use crate::domain::{OperationId, RegistrationId, Timestamp};
use crate::moves::Standing;
use crate::store::Store;
use crate::telemetry::{self, ActorKind};

pub use self::core::{After, Asker, Core, Request};
use super::directory::Devices;
use super::fleet::Fleet;

/// What devices live among.
#[derive(Debug)]
pub struct Surroundings {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub allocator: Arc<dyn Allocator>,
    pub fleet: Arc<Fleet>,
}

/// See the module's documentation.
pub struct DeviceActor {
    id: RegistrationId,
    surroundings: Arc<Surroundings>,
    devices: Arc<Devices>,
    /// Absent while a handler has it, and before the load.
    core: Option<Core>,
    updates: watch::Sender<Option<Standing>>,
    passivate_after: Duration,
    mailbox_max: usize,
    used_at: Timestamp,
    /// The earliest timer that is set.
    wakes_at: Option<Timestamp>,
}

impl fmt::Debug for DeviceActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceActor({})", self.id)
    }
}

impl DeviceActor {
    pub(super) fn new(
        id: RegistrationId,
        surroundings: Arc<Surroundings>,
        devices: Arc<Devices>,
        passivate_after: Duration,
        mailbox_max: usize,
    ) -> Self {
        let used_at = surroundings.clock.now();
        Self {
            id,
            surroundings,
            devices,
            core: None,
            updates: watch::Sender::new(None),
            passivate_after,
            mailbox_max,
            used_at,
            wakes_at: None,
        }
    }

    /// Runs one atomic piece of work on the core and starts what follows from it.
    fn atomically<F>(&mut self, work: impl FnOnce(Core) -> F) -> AtomicResponse<Self, ()>
    where
        F: Future<Output = (Core, After)> + 'static,
    {
        self.atomically_about(|core| core.machine.running().map(|running| running.intent.operation), work)
    }

    /// As above; what is written to the log names the operation that the work is about.
    fn atomically_about<F>(
        &mut self,
        about: impl FnOnce(&Core) -> Option<OperationId>,
        work: impl FnOnce(Core) -> F,
    ) -> AtomicResponse<Self, ()>
    where
        F: Future<Output = (Core, After)> + 'static,
    {
        self.used_at = self.surroundings.clock.now();
        match self.core.take() {
            Some(core) => {
                let operation = about(&core);
                let span = telemetry::registration_span(&self.id, operation.as_ref());
                let work = work(core).instrument(span);
                AtomicResponse::new(Box::pin(async move { Some(work.await) }.into_actor(self).map(
                    |done, this, ctx| {
                        if let Some((core, after)) = done {
                            this.settle_down(core, after, ctx);
                        }
                    },
                )))
            }
            // The load failed and the actor is stopping, or it was passivated: dropping the message tells its sender.
            None => AtomicResponse::new(Box::pin(async {}.into_actor(self))),
        }
    }

    fn settle_down(&mut self, core: Core, after: After, ctx: &mut Context<Self>) {
        if after.stop {
            self.devices.forget(&self.id, &ctx.address());
            ctx.stop();
            return;
        }
        core.publish();
        self.core = Some(core);
        self.perform(after, ctx);
        self.rest_or_wake(ctx);
    }

    /// Gives the memory back when nothing is left to do and nobody asked for a while; else sets the timer to look again.
    fn rest_or_wake(&mut self, ctx: &mut Context<Self>) {
        let is_idle = self.core.as_ref().is_some_and(Core::is_idle);
        if !is_idle {
            return;
        }
        let rests_at = self.used_at.plus(self.passivate_after);
        if self.surroundings.clock.now() >= rests_at {
            telemetry::actors_passivated(ActorKind::Device, 1);
            self.devices.forget(&self.id, &ctx.address());
            // Whoever asked this very actor a moment ago asks its successor: were both to decide, the one that commits would
            // leave the other with a memory that is out of date, and answers that write nothing are not held against the store.
            self.core = None;
        } else {
            self.wake_at(rests_at, ctx);
        }
    }
}

impl Drop for DeviceActor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(registration_id = %self.id, "the device's actor ended by a panic: a defect");
            telemetry::actor_panicked(ActorKind::Device);
        }
    }
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.mailbox_max);
        let load = Core::load(self.id.clone(), self.surroundings.clone(), self.updates.clone());
        ctx.wait(load.into_actor(self).map(|loaded, this, ctx| match loaded {
            Ok((core, after)) => this.settle_down(core, after, ctx),
            Err(why) => {
                tracing::error!(registration_id = %this.id, "the device cannot be taken up: {why}");
                this.devices.forget(&this.id, &ctx.address());
                ctx.stop();
            }
        }));
    }
}
