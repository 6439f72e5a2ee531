//! The whole chain from one snapshot to a decision, with every reason kept: what a registration performs and what
//! `Explain` shows.

use crate::domain::{
    AllocationPolicy, ClientFacts, Enrollment, EnrollmentId, HubId, Pin, RegistrationId, ReprovisionPolicy,
    WebhookPolicy,
};

use super::allocation::{self, Allocation, AllocationRequest, HubView, WebhookOutcome};
use super::compatibility::{self, Applies, Basis};
use super::reprovision::{self, Current, Decision, Situation};

/// All that a decision depends on, as it stood at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    pub registration_id: &'a RegistrationId,
    pub enrollment: &'a Enrollment,
    pub facts: &'a ClientFacts,
    /// The hub of the recorded assignment, linked or not.
    pub current: Option<&'a HubId>,
    /// That hub is gone for good, and never opened the device's home: its exact state is in the journal.
    pub never_opened: bool,
    /// A pin **in force**: the caller has held it against the clock.
    pub pin: Option<&'a Pin>,
    /// Every linked hub.
    pub hubs: &'a [HubView],
    pub webhook: &'a WebhookOutcome,
    /// The enrollment changed since the device was last assigned or reset.
    pub enrollment_changed: bool,
}

/// A decision and everything that led to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub enrollment: EnrollmentId,
    /// Why [`Explanation::applies`] is what it is.
    pub basis: Basis,
    pub applies: Applies,
    pub current: Current,
    pub allocation: Allocation,
    pub decision: Decision,
    /// The policy keeps the device at a hub that is to be emptied.
    pub held_by_policy: bool,
}

/// A question that must be put to the webhook before [`evaluate`].
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookCall<'a> {
    pub webhook: &'a WebhookPolicy,
    /// What it may choose from; never empty.
    pub offered: Vec<&'a HubView>,
}

/// Whether the webhook is to be asked, and what it is offered. It is asked even where its hub will not be taken (a pin,
/// never, sticky), for the payload it hands the device; then it is offered that one hub. Without a hub to offer there is
/// nothing to ask.
pub fn webhook_call<'a>(snapshot: &Snapshot<'a>) -> Option<WebhookCall<'a>> {
    let webhook = match &snapshot.enrollment.allocation {
        Some(AllocationPolicy::Custom(webhook)) => webhook,
        Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) | None => {
            return None;
        }
    };
    let (_, applies) = governing(snapshot);
    let fixed = match (snapshot.pin, applies) {
        (Some(pin), _) => Some(&pin.hub),
        (None, Applies::Sticky | Applies::Policy(ReprovisionPolicy::Never)) => snapshot.current,
        (None, Applies::Policy(ReprovisionPolicy::Migrate | ReprovisionPolicy::Reset)) => None,
    };
    let offered: Vec<&HubView> = match fixed {
        Some(id) => snapshot.hubs.iter().filter(|view| view.hub.id == *id).collect(),
        None => allocation::candidates(&request(snapshot)).0,
    };
    (!offered.is_empty()).then_some(WebhookCall { webhook, offered })
}

/// Decides about one registration.
pub fn evaluate(snapshot: &Snapshot<'_>) -> Explanation {
    let (basis, applies) = governing(snapshot);
    let current = current(snapshot);
    let allocation = allocate(snapshot, applies, &current);
    let decision = reprovision::decide(&Situation {
        applies,
        current: &current,
        never_opened: snapshot.never_opened,
        allocation: &allocation,
        unreachable: snapshot.enrollment.unreachable,
        allow_late_writes: snapshot.enrollment.allow_late_writes,
        reset_on_same_hub: snapshot.enrollment.reset_on_same_hub,
        enrollment_changed: snapshot.enrollment_changed,
    });
    Explanation {
        enrollment: snapshot.enrollment.id.clone(),
        basis,
        applies,
        held_by_policy: reprovision::held_by_policy(applies, &current),
        current,
        allocation,
        decision,
    }
}

fn governing(snapshot: &Snapshot<'_>) -> (Basis, Applies) {
    let facts = snapshot.facts;
    let basis = compatibility::basis(facts.api_version, facts.sdk.as_ref(), snapshot.enrollment.reprovision);
    (basis, basis.applies())
}

fn current(snapshot: &Snapshot<'_>) -> Current {
    let Some(id) = snapshot.current else { return Current::None };
    match snapshot.hubs.iter().find(|view| view.hub.id == *id) {
        Some(view) => Current::Linked { hub: id.clone(), state: view.hub.state, reachable: !view.is_down() },
        None => Current::Unlinked { hub: id.clone() },
    }
}

/// Where the policy keeps the device, only a pin or the webhook (for its payload) is heard.
fn allocate(snapshot: &Snapshot<'_>, applies: Applies, current: &Current) -> Allocation {
    let keeps = match (applies, current) {
        (
            Applies::Sticky | Applies::Policy(ReprovisionPolicy::Never),
            Current::Linked { .. } | Current::Unlinked { .. },
        ) => true,
        (Applies::Sticky | Applies::Policy(ReprovisionPolicy::Never), Current::None)
        | (
            Applies::Policy(ReprovisionPolicy::Migrate | ReprovisionPolicy::Reset),
            Current::None | Current::Linked { .. } | Current::Unlinked { .. },
        ) => false,
    };
    match (keeps, snapshot.pin, snapshot.webhook) {
        (true, None, WebhookOutcome::Failed(reason)) => Allocation::webhook_failed(reason),
        (
            true,
            None,
            WebhookOutcome::Answered { .. } | WebhookOutcome::AnsweredOther { .. } | WebhookOutcome::NotAsked,
        ) => Allocation::not_asked(),
        (true, Some(_), _) | (false, _, _) => allocation::choose_hub(&request(snapshot)),
    }
}

fn request<'a>(snapshot: &Snapshot<'a>) -> AllocationRequest<'a> {
    AllocationRequest {
        registration_id: snapshot.registration_id,
        enrollment: snapshot.enrollment,
        facts: snapshot.facts,
        current: snapshot.current,
        pin: snapshot.pin,
        hubs: snapshot.hubs,
        webhook: snapshot.webhook,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{HubState, Reason, Timestamp};
    use crate::policy::allocation::Allocated;
    use crate::policy::reprovision::{Outcome, StayNote};
    use crate::policy::samples::{self, hub, hub_id};
    use ReprovisionPolicy::{Migrate, Never};

    struct Case {
        enrollment: Enrollment,
        facts: ClientFacts,
        current: Option<HubId>,
        pin: Option<Pin>,
        hubs: Vec<HubView>,
        webhook: WebhookOutcome,
    }

    /// A device at hub-a among hub-a and hub-b, under a webhook.
    fn case(reprovision: ReprovisionPolicy) -> Case {
        let mut enrollment = samples::individual("dev");
        enrollment.reprovision = Some(reprovision);
        enrollment.allocation = Some(AllocationPolicy::Custom(WebhookPolicy {
            url: "https://w.example/".to_owned(),
            api_version: "2021-10-01".to_owned(),
        }));
        Case {
            enrollment,
            facts: ClientFacts::default(),
            current: Some(hub_id("hub-a")),
            pin: None,
            hubs: vec![hub("hub-a"), hub("hub-b")],
            webhook: WebhookOutcome::NotAsked,
        }
    }

    impl Case {
        fn on<T>(&self, ask: impl FnOnce(&Snapshot<'_>) -> T) -> T {
            ask(&Snapshot {
                registration_id: &samples::registration_id("dev"),
                enrollment: &self.enrollment,
                facts: &self.facts,
                current: self.current.as_ref(),
                never_opened: false,
                pin: self.pin.as_ref(),
                hubs: &self.hubs,
                webhook: &self.webhook,
                enrollment_changed: false,
            })
        }

        fn offered(&self) -> Option<Vec<String>> {
            self.on(|snapshot| {
                webhook_call(snapshot).map(|call| call.offered.iter().map(|view| view.hub.id.to_string()).collect())
            })
        }

        fn pinned_to(mut self, hub: &str) -> Self {
            let (by, reason) = ("ann".to_owned(), String::new());
            self.pin = Some(Pin { hub: hub_id(hub), by, reason, set_at: Timestamp(0), expires_at: None });
            self
        }
    }

    #[test]
    fn the_webhook_is_offered_what_it_may_choose_from() {
        let both = Some(vec!["hub-a".to_owned(), "hub-b".to_owned()]);
        let (only_a, only_b) = (Some(vec!["hub-a".to_owned()]), Some(vec!["hub-b".to_owned()]));
        assert_eq!(case(Migrate).offered(), both);
        assert_eq!(case(Never).offered(), only_a);
        assert_eq!(case(Never).pinned_to("hub-b").offered(), only_b);
        let first = Case { current: None, ..case(Never) };
        assert_eq!(first.offered(), both);
        let mut draining = case(Migrate);
        draining.hubs[0].hub.state = HubState::Draining;
        assert_eq!(draining.offered(), only_b);
        draining.hubs.pop();
        assert_eq!(draining.offered(), None);
        let mut hashed = case(Migrate);
        hashed.enrollment.allocation = None;
        assert_eq!(hashed.offered(), None);
    }

    #[test]
    fn under_never_the_webhooks_hub_is_not_taken_and_its_failure_costs_the_payload_only() {
        let mut case = case(Never);
        let stay = |note| Outcome::Stay { at: hub_id("hub-a"), note };
        for (webhook, expected) in [
            (WebhookOutcome::Answered { hub: hub_id("hub-b") }, stay(None)),
            (WebhookOutcome::AnsweredOther { host_name: "x".to_owned() }, stay(None)),
            (WebhookOutcome::NotAsked, stay(None)),
            (WebhookOutcome::Failed("it broke".to_owned()), stay(Some(StayNote::AllocationFailed))),
        ] {
            case.webhook = webhook;
            assert_eq!(case.on(evaluate).decision.outcome, expected);
        }
    }

    #[test]
    fn an_explanation_holds_every_step() {
        let case = Case { webhook: WebhookOutcome::Answered { hub: hub_id("hub-b") }, ..case(Migrate) };
        let explanation = case.on(evaluate);
        assert_eq!(explanation.basis, Basis::Stored(Migrate));
        assert_eq!(explanation.allocation.allocated, Allocated::Hub(hub_id("hub-b")));
        assert_eq!(explanation.allocation.reasons(), "hub-a is not what the allocation webhook chose");
        assert_eq!(
            explanation.decision.why,
            "the device moves from hub-a to hub-b: the allocation webhook chose hub-b"
        );
    }

    #[test]
    fn an_old_device_sticks_to_its_hub_and_is_reported_by_a_drain() {
        let mut case = case(Migrate);
        case.enrollment.reprovision = None;
        case.facts.api_version = "2018-04-01".parse().ok();
        case.hubs[0].hub.state = HubState::Draining;
        let explanation = case.on(evaluate);
        assert!(explanation.held_by_policy);
        assert_eq!(explanation.decision.outcome, Outcome::Stay { at: hub_id("hub-a"), note: None });
        let moved = case.pinned_to("hub-b").on(evaluate);
        assert!(matches!(moved.decision.outcome, Outcome::Relocate { .. }));
    }

    #[test]
    fn a_hub_that_is_gone_is_known_as_such() {
        let mut case = case(Never);
        case.hubs.remove(0);
        let explanation = case.on(evaluate);
        assert_eq!(explanation.current, Current::Unlinked { hub: hub_id("hub-a") });
        assert!(matches!(explanation.decision.outcome, Outcome::Fail { reason: Reason::AssignedHubUnlinked, .. }));
    }
}
