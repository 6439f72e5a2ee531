//! What a hub's actor does with each message.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use tracing::Instrument;

use crate::domain::{CallFault, HubRefusal, limits};
use crate::telemetry::{self, HubCallOutcome};

use super::super::messages::{
    EndLease, FeedEnded, HubChanged, LeaseLoaded, LeaseRenewed, Perform, Probed, ReadFeed, RenewLease,
};
use super::{CALL_TIMEOUT, Circuit, FeedFault, HubActor, PROBE_MAX};

impl Handler<Perform> for HubActor {
    type Result = ();

    fn handle(&mut self, Perform { call, span, reply }: Perform, ctx: &mut Context<Self>) {
        if let Some(fault) = self.hindrance() {
            // Whoever asked may have given up.
            let _ = reply.send(Err(fault));
            return;
        }
        let Some(slot) = self.rate.slot(self.hub.calls_per_second, self.surroundings.clock.now()) else {
            let _ = reply.send(Err(CallFault::Unavailable("its rate is used up for the next seconds".to_owned())));
            return;
        };
        self.in_flight += 1;
        let (surroundings, connector, incarnation) =
            (self.surroundings.clone(), self.connector.clone(), self.hub.incarnation);
        let clock = surroundings.clock.clone();
        let (hub, kind) = (self.hub.id.clone(), call.effect.as_str());
        let made = async move {
            clock.sleep_until(slot).await;
            let began = clock.monotonic();
            let limit = clock.sleep(CALL_TIMEOUT);
            let obeyed = async {
                super::hear(&surroundings, &hub, connector.as_ref()).await?;
                connector.obey(incarnation, &call).await
            };
            let outcome = tokio::select! {
                outcome = obeyed => outcome,
                () = limit => Err(CallFault::Unknown(format!("no answer in {} s", CALL_TIMEOUT.as_secs()))),
            };
            telemetry::hub_call_finished(
                &hub,
                kind,
                HubCallOutcome::of(&outcome),
                clock.monotonic().saturating_sub(began),
            );
            let outcome = super::unless_gone_back(&surroundings, &hub, incarnation, outcome).await;
            if let Err(fault) = &outcome {
                tracing::debug!(hub = %call.hub, order = %call.order, "{} failed: {fault}", call.effect.as_str());
            }
            (outcome, reply)
        }
        .instrument(span);
        ctx.spawn(made.into_actor(self).map(|(outcome, reply), this, ctx| {
            this.in_flight -= 1;
            match &outcome {
                Ok(_) | Err(CallFault::Refused(_)) => this.note_answer(),
                Err(CallFault::Unavailable(_) | CallFault::Unknown(_)) => this.note_failure(ctx),
            }
            let _ = reply.send(outcome);
        }));
    }
}

impl Handler<HubChanged> for HubActor {
    type Result = ();

    fn handle(&mut self, HubChanged { hub }: HubChanged, _: &mut Context<Self>) {
        self.surroundings.fleet.set_record(hub.clone());
        self.hub = hub;
    }
}

impl Handler<ReadFeed> for HubActor {
    type Result = ();

    fn handle(&mut self, ReadFeed { reply }: ReadFeed, ctx: &mut Context<Self>) {
        let restored = self.surroundings.fleet.is_restored(&self.hub.id);
        match &mut self.reading {
            Some(waiting) => waiting.extend(reply),
            None if restored => {
                // Whoever asked may have given up, here and below.
                let _ = reply.map(|reply| reply.send(Err(FeedFault::Waits)));
                self.read_feed_later(ctx);
            }
            None => {
                self.reading = Some(reply.into_iter().collect());
                self.read_feed(ctx);
            }
        }
    }
}

impl Handler<FeedEnded> for HubActor {
    type Result = ();

    fn handle(&mut self, FeedEnded { outcome }: FeedEnded, ctx: &mut Context<Self>) {
        let (hub, fleet) = (&self.hub.id, &self.surroundings.fleet);
        match &outcome {
            Ok(read) => {
                if let Some(at) = read.up_to {
                    fleet.note_feed(hub, at);
                }
            }
            // One that it has been gone through as since then is nothing new.
            Err(FeedFault::Restored { current }) if self.hub.incarnation == Some(*current) => {}
            Err(FeedFault::Restored { .. }) => fleet.set_restored(hub, true),
            Err(fault) => tracing::debug!(hub = %hub, "the feed was not read: {fault}"),
        }
        for reply in self.reading.take().into_iter().flatten() {
            let _ = reply.send(outcome.clone());
        }
        self.read_feed_later(ctx);
    }
}

impl Handler<EndLease> for HubActor {
    type Result = ();

    fn handle(&mut self, EndLease { must_seal, reply }: EndLease, ctx: &mut Context<Self>) {
        let now = self.surroundings.clock.monotonic();
        match &mut self.lease {
            None => {
                let _ = reply.send(());
            }
            Some(lease) => {
                let left = lease.bypass(must_seal, reply, now);
                self.nudge_after(left, RenewLease { in_turn: false }, ctx);
                // A hub that can be reached takes it at once.
                self.renew_lease(ctx);
            }
        }
    }
}

impl Handler<RenewLease> for HubActor {
    type Result = ();

    fn handle(&mut self, RenewLease { in_turn }: RenewLease, ctx: &mut Context<Self>) {
        let now = self.surroundings.clock.monotonic();
        let Some(lease) = &mut self.lease else { return };
        lease.look(now);
        if in_turn {
            self.nudge_after(limits::LEASE_RENEWED_EVERY, RenewLease { in_turn: true }, ctx);
            self.renew_lease(ctx);
        }
    }
}

impl Handler<LeaseLoaded> for HubActor {
    type Result = ();

    fn handle(&mut self, LeaseLoaded { stored }: LeaseLoaded, ctx: &mut Context<Self>) {
        match (stored, &mut self.lease) {
            (Some(stored), Some(lease)) => {
                lease.load(stored);
                self.renew_lease(ctx);
            }
            (None, Some(_)) => self.load_lease(limits::LEASE_RENEWED_EVERY, ctx),
            (Some(_) | None, None) => {}
        }
    }
}

impl Handler<LeaseRenewed> for HubActor {
    type Result = ();

    fn handle(&mut self, LeaseRenewed { carried, extended, outcome }: LeaseRenewed, ctx: &mut Context<Self>) {
        let Some(lease) = &mut self.lease else { return };
        match outcome {
            Ok(ticket) => {
                lease.take(&carried);
                lease.ticket = Some(ticket);
                if extended {
                    self.surroundings.fleet.note_lease(&self.hub.id, self.surroundings.clock.now());
                } else {
                    self.renew_lease(ctx);
                }
            }
            Err(CallFault::Refused(HubRefusal::WrongIncarnation { current }))
                if self.hub.incarnation != Some(current) =>
            {
                self.surroundings.fleet.set_restored(&self.hub.id, true);
            }
            Err(fault) => tracing::debug!(hub = %self.hub.id, "the lease was not renewed: {fault}"),
        }
    }
}

impl Handler<Probed> for HubActor {
    type Result = ();

    fn handle(&mut self, Probed { answered }: Probed, ctx: &mut Context<Self>) {
        match (self.circuit, answered) {
            (Circuit::Closed { .. }, _) => {}
            (Circuit::Open { .. }, true) => self.note_answer(),
            (Circuit::Open { pause }, false) => {
                let pause = (pause * 2).min(PROBE_MAX);
                self.circuit = Circuit::Open { pause };
                self.probe_after(pause, ctx);
            }
        }
    }
}
