//! Starting what a handler decided: calls to hubs, questions to the webhook, timers. All come back as messages.

use actix::{AsyncContext, Context};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::allocators::{AllocationAnswer, AllocatorFault};
use crate::domain::{CallFault, CallOutcome, HubCall, OperationId, Timestamp, limits};
use crate::moves::{CallKey, EndLease};
use crate::telemetry::{self, Queue, WebhookOutcome};

use super::super::messages::{self, Allocated, LeaseEnded, Perform, StepFinished, Wake};
use super::{After, DeviceActor};

impl DeviceActor {
    pub(super) fn perform(&mut self, after: After, ctx: &mut Context<Self>) {
        for (key, call, operation) in after.calls {
            self.call(key, call, operation, ctx);
        }
        if let Some(question) = after.question {
            let (allocator, this) = (self.surroundings.allocator.clone(), ctx.address());
            let clock = self.surroundings.clock.clone();
            actix_rt::spawn(async move {
                let began = clock.monotonic();
                let outcome = allocator.ask(*question).await;
                telemetry::webhook_call_finished(word_of(&outcome), clock.monotonic().saturating_sub(began));
                // An actor that stopped meanwhile has dropped its askers, who ask again.
                let _ = this.send(Allocated { outcome }).await;
            });
        }
        if let Some(asked) = after.end_lease {
            self.end_lease(asked, ctx);
        }
        if let Some(at) = after.wake_at {
            self.wake_at(at, ctx);
        }
    }

    /// Asks the hub's actor when the lease has surely run out. Where nobody can tell it is asked again, and never taken for
    /// ended.
    fn end_lease(&self, asked: EndLease, ctx: &mut Context<Self>) {
        let hub = self.surroundings.fleet.living_actor(&asked.hub, &self.surroundings);
        let (clock, this) = (self.surroundings.clock.clone(), ctx.address());
        actix_rt::spawn(async move {
            let EndLease { generation, hub: _, must_seal } = asked;
            let (reply, over) = oneshot::channel();
            let sent = hub.map(|hub| hub.try_send(messages::EndLease { must_seal, reply }));
            let ended = matches!(sent, Some(Ok(()))) && over.await.is_ok();
            if !ended {
                clock.sleep(limits::RETRY_MAX).await;
            }
            // Where the actor has stopped, its successor asks again.
            let _ = this.send(LeaseEnded { generation, ended }).await;
        });
    }

    fn call(&self, key: CallKey, call: HubCall, operation: OperationId, ctx: &mut Context<Self>) {
        let hub = self.surroundings.fleet.living_actor(&key.hub, &self.surroundings);
        let this = ctx.address();
        let span = telemetry::registration_span(&self.id, Some(&operation));
        let hub_span = span.clone();
        let made = async move {
            let outcome = match hub {
                Some(hub) => {
                    let (reply, answer) = oneshot::channel();
                    match hub.try_send(Perform { call, span: hub_span, reply }) {
                        Ok(()) => answer.await.unwrap_or_else(|_| unknown("the hub's actor ended")),
                        Err(_) => {
                            telemetry::overloaded(Queue::HubMailbox);
                            unavailable("too many calls wait for it")
                        }
                    }
                }
                None => unavailable("it is not linked"),
            };
            // Where the actor has stopped, its successor makes the call again with the same order.
            let _ = this.send(StepFinished { key, outcome }).await;
        };
        actix_rt::spawn(made.instrument(span));
    }

    /// Sets a timer, unless an earlier one is set.
    pub(super) fn wake_at(&mut self, at: Timestamp, ctx: &mut Context<Self>) {
        if self.wakes_at.is_some_and(|set| set <= at) {
            return;
        }
        self.wakes_at = Some(at);
        let (timer, this) = (self.surroundings.clock.sleep_until(at), ctx.address().downgrade());
        actix_rt::spawn(async move {
            timer.await;
            if let Some(this) = this.upgrade() {
                // A device with a full mailbox is awake anyway.
                let _ = this.try_send(Wake);
            }
        });
    }
}

fn unavailable(why: &str) -> CallOutcome {
    Err(CallFault::Unavailable(why.to_owned()))
}

fn unknown(why: &str) -> CallOutcome {
    Err(CallFault::Unknown(why.to_owned()))
}

fn word_of(outcome: &Result<AllocationAnswer, AllocatorFault>) -> WebhookOutcome {
    match outcome {
        Ok(_) => WebhookOutcome::Answered,
        Err(AllocatorFault::Timeout { .. }) => WebhookOutcome::TimedOut,
        Err(AllocatorFault::Status { .. } | AllocatorFault::Redirect { .. }) => WebhookOutcome::Refused,
        Err(
            AllocatorFault::Url(_)
            | AllocatorFault::Unresolved(_)
            | AllocatorFault::NotLoopback { .. }
            | AllocatorFault::Unreachable(_)
            | AllocatorFault::Tls(_)
            | AllocatorFault::Connection(_)
            | AllocatorFault::TooLarge { .. }
            | AllocatorFault::Malformed { .. }
            | AllocatorFault::HostNameTooLong { .. }
            | AllocatorFault::InitialTwin(_)
            | AllocatorFault::Question(_),
        ) => WebhookOutcome::Failed,
    }
}
