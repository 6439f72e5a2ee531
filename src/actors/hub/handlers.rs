//! What a hub's actor does with each message.

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use tracing::Instrument;

use crate::domain::CallFault;
use crate::telemetry::{self, HubCallOutcome};

use super::super::messages::{HubChanged, Perform, Probed};
use super::{CALL_TIMEOUT, Circuit, HubActor, PROBE_MAX};

impl Handler<Perform> for HubActor {
    type Result = ();

    fn handle(&mut self, Perform { call, span, reply }: Perform, ctx: &mut Context<Self>) {
        if let Some(fault) = self.hindrance() {
            // Whoever asked may have given up.
            let _ = reply.send(Err(fault));
            return;
        }
        let Some(slot) = self.rate.slot(self.hub.calls_per_second, self.clock.now()) else {
            let _ = reply.send(Err(CallFault::Unavailable("its rate is used up for the next seconds".to_owned())));
            return;
        };
        self.in_flight += 1;
        let (clock, connector, incarnation) = (self.clock.clone(), self.connector.clone(), self.hub.incarnation);
        let (hub, kind) = (self.hub.id.clone(), call.effect.as_str());
        let made = async move {
            clock.sleep_until(slot).await;
            let began = clock.monotonic();
            let limit = clock.sleep(CALL_TIMEOUT);
            let outcome = tokio::select! {
                outcome = connector.obey(incarnation, &call) => outcome,
                () = limit => Err(CallFault::Unknown(format!("no answer in {} s", CALL_TIMEOUT.as_secs()))),
            };
            telemetry::hub_call_finished(
                &hub,
                kind,
                HubCallOutcome::of(&outcome),
                clock.monotonic().saturating_sub(began),
            );
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
        self.fleet.set_record(hub.clone());
        self.hub = hub;
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
