//! What happens to a device that registers (DESIGN 6b): policy × current hub × what allocation says.
//!
//! [`decide`] is total: one match without wildcard, so that a new policy, state or answer cannot be forgotten here.

use crate::domain::{HubId, HubState, Reason, ReprovisionPolicy, ResetOnSameHub, SubStatus, UnreachableRule};

use super::allocation::{Allocated, Allocation};
use super::compatibility::Applies;

/// Where the device lives now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Current {
    /// It was never assigned.
    None,
    Linked {
        hub: HubId,
        state: HubState,
        /// Its circuit is closed and it is not taken down.
        reachable: bool,
    },
    /// The record names a hub that is no longer linked.
    Unlinked { hub: HubId },
}

impl Current {
    pub fn hub(&self) -> Option<&HubId> {
        match self {
            Current::None => None,
            Current::Linked { hub, .. } | Current::Unlinked { hub } => Some(hub),
        }
    }
}

/// Everything the decision depends on, from one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub applies: Applies,
    pub current: &'a Current,
    /// The current hub is gone for good, and never opened the device's home: its exact state is in the journal.
    pub never_opened: bool,
    pub allocation: &'a Allocation,
    pub unreachable: UnreachableRule,
    pub allow_late_writes: bool,
    pub reset_on_same_hub: ResetOnSameHub,
    /// The enrollment changed since the device was last assigned or reset.
    pub enrollment_changed: bool,
}

/// What a moving device brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carry {
    /// Its device state, as sealed at the old hub.
    State,
    /// The initial configuration. The old state is sealed all the same and goes to the history.
    Initial,
}

/// Why a device stays although something else was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StayNote {
    /// Allocation found no hub; the device keeps the one it has.
    NoOtherHub,
    /// It should have been reset, and its hub does not answer.
    HubUnavailable,
    /// Allocation has no answer, so there is no payload; the policy keeps the device where it is anyway.
    AllocationFailed,
}

impl StayNote {
    pub fn as_str(self) -> &'static str {
        match self {
            StayNote::NoOtherHub => "no_other_hub",
            StayNote::HubUnavailable => "hub_unavailable",
            StayNote::AllocationFailed => "allocation_failed",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The first assignment, with the initial configuration.
    Assign { to: HubId },
    /// A move between two linked hubs.
    Relocate { from: HubId, to: HubId, carry: Carry },
    /// A new start away from a hub that is gone: initial configuration, the last known twin goes to the history and the
    /// clean-up at `from` is abandoned.
    AssignAnew { from: HubId, to: HubId },
    /// A new home away from a hub that is gone, with the newest state that the service has seen; the clean-up at `from` is
    /// abandoned.
    Restore { from: HubId, to: HubId },
    /// Factory reset where the device is: tags and desired as the enrollment has them now, reported empty.
    ResetInPlace { at: HubId },
    /// The twin is not touched. The caller still refreshes the credential.
    Stay { at: HubId, note: Option<StayNote> },
    /// The operation fails; whatever assignment is on record is kept.
    Fail { reason: Reason, message: String },
}

/// What is to be done, and why in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub outcome: Outcome,
    pub why: String,
}

impl Decision {
    /// What the device is told once the outcome is done; nothing for a failure.
    pub fn sub_status(&self) -> Option<SubStatus> {
        match &self.outcome {
            Outcome::Assign { .. } => Some(SubStatus::InitialAssignment),
            Outcome::Relocate { carry: Carry::State, .. } | Outcome::Restore { .. } => {
                Some(SubStatus::DeviceDataMigrated)
            }
            Outcome::Relocate { carry: Carry::Initial, .. }
            | Outcome::AssignAnew { .. }
            | Outcome::ResetInPlace { .. } => Some(SubStatus::DeviceDataReset),
            Outcome::Stay { .. } => Some(SubStatus::ReprovisionedToInitialAssignment),
            Outcome::Fail { .. } => None,
        }
    }

    /// Whether an initial twin that the allocation webhook handed over replaces the enrollment's: at a first assignment
    /// and at a reset that changes the hub, never otherwise (reference/dps.md §1.10).
    pub fn takes_webhook_twin(&self) -> bool {
        match &self.outcome {
            Outcome::Assign { .. } | Outcome::AssignAnew { .. } | Outcome::Relocate { carry: Carry::Initial, .. } => {
                true
            }
            Outcome::Relocate { carry: Carry::State, .. }
            | Outcome::Restore { .. }
            | Outcome::ResetInPlace { .. }
            | Outcome::Stay { .. }
            | Outcome::Fail { .. } => false,
        }
    }

    fn new(outcome: Outcome, why: String) -> Self {
        Self { outcome, why }
    }

    fn fail(reason: Reason, message: String) -> Self {
        Self { why: message.clone(), outcome: Outcome::Fail { reason, message } }
    }
}

/// Whether the policy keeps a device at a hub that wants to be rid of it: what a drain reports as *held by policy*.
pub fn held_by_policy(applies: Applies, current: &Current) -> bool {
    match (applies, current) {
        (
            Applies::Sticky | Applies::Policy(ReprovisionPolicy::Never),
            Current::Linked { state: HubState::Draining | HubState::Retired, .. },
        ) => true,
        (
            Applies::Sticky | Applies::Policy(ReprovisionPolicy::Never),
            Current::None | Current::Unlinked { .. } | Current::Linked { state: HubState::Active, .. },
        )
        | (
            Applies::Policy(ReprovisionPolicy::Migrate | ReprovisionPolicy::Reset),
            Current::None | Current::Unlinked { .. } | Current::Linked { .. },
        ) => false,
    }
}

/// Decides about one registration.
///
/// A pin is an operator's order: it moves a device that *never* or *sticky* would keep, and carries its state, since
/// these policies promise that nothing happens to it. Under *reset* a pin moves as any allocation does.
///
/// Two hubs in `current` and `allocation` come from one snapshot; an unlinked hub that allocation names all the same (it
/// was linked again in between) counts as another hub.
pub fn decide(situation: &Situation<'_>) -> Decision {
    use Allocated::{Failed, Hub, NoHub, NotAsked, Pinned};
    use Applies::{Policy, Sticky};
    use ReprovisionPolicy::{Migrate, Never, Reset};

    let applies = situation.applies;
    match (applies, situation.current, &situation.allocation.allocated) {
        // Never assigned: no policy has anything to keep yet.
        (Sticky | Policy(Migrate | Reset | Never), Current::None, Hub(to) | Pinned(to)) => Decision::new(
            Outcome::Assign { to: to.clone() },
            format!("the device has no hub yet, and {}", situation.allocation.why),
        ),
        (Sticky | Policy(Migrate | Reset | Never), Current::None, NoHub) => no_hub_available(situation),
        (Sticky | Policy(Migrate | Reset | Never), Current::None, Failed(_)) => allocation_failed(situation),
        (Sticky | Policy(Migrate | Reset | Never), Current::None, NotAsked)
        | (Policy(Migrate | Reset), Current::Linked { .. } | Current::Unlinked { .. }, NotAsked) => Decision::fail(
            Reason::Internal,
            format!("under {} a hub must be looked for, and none was", applies.as_str()),
        ),

        // Migrate and reset follow allocation.
        (Policy(Migrate), Current::Linked { hub, .. }, Hub(to) | Pinned(to)) if to == hub => {
            stay_where_allocated(situation, hub)
        }
        (Policy(Reset), Current::Linked { hub, reachable, .. }, Hub(to) | Pinned(to)) if to == hub => {
            reset_in_place(situation, hub, *reachable)
        }
        (Policy(Migrate), Current::Linked { hub, .. }, Hub(to) | Pinned(to)) => {
            relocate(situation, hub, to, Carry::State)
        }
        (Policy(Reset), Current::Linked { hub, .. }, Hub(to) | Pinned(to)) => {
            relocate(situation, hub, to, Carry::Initial)
        }
        (Policy(Migrate | Reset), Current::Linked { hub, .. }, NoHub) => Decision::new(
            Outcome::Stay { at: hub.clone(), note: Some(StayNote::NoOtherHub) },
            format!("the device stays at {hub}, since {}", no_hub_text(situation)),
        ),
        (Policy(Migrate), Current::Unlinked { hub }, Hub(to) | Pinned(to)) => leave_unlinked(situation, hub, to),
        (Policy(Reset), Current::Unlinked { hub }, Hub(to) | Pinned(to)) => Decision::new(
            Outcome::AssignAnew { from: hub.clone(), to: to.clone() },
            format!("{hub} is no longer linked, and under reset the device starts anew: {}", situation.allocation.why),
        ),
        (Policy(Migrate | Reset), Current::Unlinked { .. }, NoHub) => no_hub_available(situation),
        (Policy(Migrate | Reset), Current::Linked { .. } | Current::Unlinked { .. }, Failed(_)) => {
            allocation_failed(situation)
        }

        // Never and sticky keep the hub, whatever allocation says; only a pin moves the device.
        (Sticky | Policy(Never), Current::Linked { hub, .. }, Pinned(to)) if to != hub => {
            relocate(situation, hub, to, Carry::State)
        }
        (Sticky | Policy(Never), Current::Linked { hub, .. }, Hub(_) | Pinned(_) | NoHub | NotAsked) => Decision::new(
            Outcome::Stay { at: hub.clone(), note: None },
            format!("under {} the device keeps {hub}", applies.as_str()),
        ),
        (Sticky | Policy(Never), Current::Linked { hub, .. }, Failed(fault)) => Decision::new(
            Outcome::Stay { at: hub.clone(), note: Some(StayNote::AllocationFailed) },
            format!("under {} the device keeps {hub}, without a payload: {fault}", applies.as_str()),
        ),
        (Sticky | Policy(Never), Current::Unlinked { hub }, Pinned(to)) => leave_unlinked(situation, hub, to),
        (Sticky | Policy(Never), Current::Unlinked { hub }, Hub(_) | NoHub | Failed(_) | NotAsked) => Decision::fail(
            Reason::AssignedHubUnlinked,
            format!("under {} the device keeps {hub}, which is no longer linked", applies.as_str()),
        ),
    }
}

fn stay_where_allocated(situation: &Situation<'_>, hub: &HubId) -> Decision {
    Decision::new(
        Outcome::Stay { at: hub.clone(), note: None },
        format!("the device is at the right hub: {}", situation.allocation.why),
    )
}

fn reset_in_place(situation: &Situation<'_>, hub: &HubId, reachable: bool) -> Decision {
    let due = match (situation.reset_on_same_hub, situation.enrollment_changed) {
        (ResetOnSameHub::Always, true | false) | (ResetOnSameHub::WhenEnrollmentChanged, true) => Ok(()),
        (ResetOnSameHub::WhenEnrollmentChanged, false) => Err("the enrollment has not changed since the last one"),
        (ResetOnSameHub::Off, true | false) => Err("the enrollment turns it off"),
    };
    let stay = |note, why| Decision::new(Outcome::Stay { at: hub.clone(), note }, why);
    match (due, reachable, rule_in_force(situation)) {
        (Err(because), true | false, Rule::Wait | Rule::LastKnown | Rule::Reset) => {
            stay(None, format!("the device is at the right hub and is not reset there: {because}"))
        }
        (Ok(()), true, Rule::Wait | Rule::LastKnown | Rule::Reset) | (Ok(()), false, Rule::Wait) => Decision::new(
            Outcome::ResetInPlace { at: hub.clone() },
            format!("under reset the device is set back at its hub: {}", situation.allocation.why),
        ),
        (Ok(()), false, Rule::LastKnown | Rule::Reset) => stay(
            Some(StayNote::HubUnavailable),
            format!("{hub} does not answer and the enrollment does not wait for it, so the device is not set back"),
        ),
    }
}

/// Whether the old hub answers is the move's business: by the rule it waits for it or passes it by.
fn relocate(situation: &Situation<'_>, from: &HubId, to: &HubId, carry: Carry) -> Decision {
    Decision::new(
        Outcome::Relocate { from: from.clone(), to: to.clone(), carry },
        format!("the device moves from {from} to {to}: {}", situation.allocation.why),
    )
}

fn leave_unlinked(situation: &Situation<'_>, from: &HubId, to: &HubId) -> Decision {
    let why = |what| format!("{from} is no longer linked, and {what}: {}", situation.allocation.why);
    let (from, to) = (from.clone(), to.clone());
    if situation.never_opened {
        let why = why("the device's home never opened there, so it goes on with the state that was to arrive");
        return Decision::new(Outcome::Restore { from, to }, why);
    }
    match rule_in_force(situation) {
        Rule::Wait => Decision::fail(
            Reason::AssignedHubUnlinked,
            format!("the device's state is at {from}, which is no longer linked"),
        ),
        Rule::LastKnown => {
            let why = why("by its rule the device goes on with the state that was seen last");
            Decision::new(Outcome::Restore { from, to }, why)
        }
        Rule::Reset => {
            let why = why("by its rule the device starts anew");
            Decision::new(Outcome::AssignAnew { from, to }, why)
        }
    }
}

fn no_hub_available(situation: &Situation<'_>) -> Decision {
    Decision::fail(Reason::NoHubAvailable, no_hub_text(situation))
}

fn no_hub_text(situation: &Situation<'_>) -> String {
    let reasons = situation.allocation.reasons();
    let why = &situation.allocation.why;
    if reasons.is_empty() { format!("{why}: no hub is linked") } else { format!("{why}: {reasons}") }
}

fn allocation_failed(situation: &Situation<'_>) -> Decision {
    Decision::fail(Reason::AllocationFailed, situation.allocation.why.clone())
}

/// The unreachable rule as it works: without leave for late writes, the two bypassing rules wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Wait,
    LastKnown,
    Reset,
}

fn rule_in_force(situation: &Situation<'_>) -> Rule {
    match (situation.unreachable, situation.allow_late_writes) {
        (UnreachableRule::LastKnown, true) => Rule::LastKnown,
        (UnreachableRule::Reset, true) => Rule::Reset,
        (UnreachableRule::Wait { .. }, true | false) | (UnreachableRule::LastKnown | UnreachableRule::Reset, false) => {
            Rule::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::allocation::{AllocationFault, NotTaken};
    use crate::policy::samples::hub_id;
    use Applies::{Policy, Sticky};
    use ReprovisionPolicy::{Migrate, Never, Reset};

    const WAIT: UnreachableRule = UnreachableRule::Wait { deadline: Duration::from_secs(1) };
    const ALL: [Applies; 4] = [Sticky, Policy(Migrate), Policy(Reset), Policy(Never)];

    #[derive(Clone, Copy)]
    struct Settings {
        unreachable: UnreachableRule,
        allow_late_writes: bool,
        reset_on_same_hub: ResetOnSameHub,
        enrollment_changed: bool,
    }

    const DEFAULT: Settings = Settings {
        unreachable: WAIT,
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        enrollment_changed: false,
    };
    const BYPASS: Settings = Settings { unreachable: UnreachableRule::LastKnown, allow_late_writes: true, ..DEFAULT };
    const START_OVER: Settings = Settings { unreachable: UnreachableRule::Reset, ..BYPASS };

    /// `-`, `a`, `a draining`, `a retired`, `a away` or `a unlinked`.
    fn current(text: &str) -> Current {
        let linked = |state, reachable| Current::Linked { hub: hub_id("a"), state, reachable };
        match text {
            "-" => Current::None,
            "a" => linked(HubState::Active, true),
            "a draining" => linked(HubState::Draining, true),
            "a retired" => linked(HubState::Retired, true),
            "a away" => linked(HubState::Active, false),
            "a unlinked" | "a unopened" => Current::Unlinked { hub: hub_id("a") },
            other => panic!("{other}"),
        }
    }

    /// `none`, `failed`, `not asked`, `pin X` or a hub.
    fn allocation(text: &str) -> Allocation {
        let allocated = match text {
            "none" => Allocated::NoHub,
            "failed" => Allocated::Failed(AllocationFault::Webhook("it broke".to_owned())),
            "not asked" => Allocated::NotAsked,
            hub => match hub.strip_prefix("pin ") {
                Some(hub) => Allocated::Pinned(hub_id(hub)),
                None => Allocated::Hub(hub_id(hub)),
            },
        };
        Allocation { allocated, not_taken: vec![(hub_id("x"), NotTaken::Draining)], why: "because".to_owned() }
    }

    fn decided(applies: Applies, now: &str, says: &str, settings: Settings) -> Decision {
        decide(&Situation {
            applies,
            current: &current(now),
            never_opened: now.ends_with("unopened"),
            allocation: &allocation(says),
            unreachable: settings.unreachable,
            allow_late_writes: settings.allow_late_writes,
            reset_on_same_hub: settings.reset_on_same_hub,
            enrollment_changed: settings.enrollment_changed,
        })
    }

    /// Outcome and sub-status as one text.
    fn told(decision: &Decision) -> String {
        let outcome = match &decision.outcome {
            Outcome::Assign { to } => format!("assign {to}"),
            Outcome::Relocate { from, to, carry: Carry::State } => format!("{from}>{to} with state"),
            Outcome::Relocate { from, to, carry: Carry::Initial } => format!("{from}>{to} initial"),
            Outcome::AssignAnew { from, to } => format!("{from}>{to} anew"),
            Outcome::Restore { from, to } => format!("{from}>{to} restored"),
            Outcome::ResetInPlace { at } => format!("reset at {at}"),
            Outcome::Stay { at, note: None } => format!("stay at {at}"),
            Outcome::Stay { at, note: Some(note) } => format!("stay at {at} ({})", note.as_str()),
            Outcome::Fail { reason, .. } => format!("fail {reason}"),
        };
        match decision.sub_status() {
            Some(status) => format!("{outcome}: {}", status.as_str()),
            None => outcome,
        }
    }

    fn check(policies: &[Applies], now: &str, says: &str, settings: Settings, expected: &str) {
        for applies in policies {
            let decision = decided(*applies, now, says, settings);
            assert_eq!(told(&decision), expected, "{} | {now} | {says}", applies.as_str());
            assert!(!decision.why.is_empty());
        }
    }

    const STAYED: &str = "stay at a: reprovisioned_to_initial_assignment";
    const NO_OTHER: &str = "stay at a (no_other_hub): reprovisioned_to_initial_assignment";

    #[test]
    fn the_table_row_by_row() {
        let (migrate, reset, keep) = (&[Policy(Migrate)], &[Policy(Reset)], &[Sticky, Policy(Never)]);
        let follow = &[Policy(Migrate), Policy(Reset)];
        check(&ALL, "-", "b", DEFAULT, "assign b: initial_assignment");
        check(&ALL, "-", "none", DEFAULT, "fail NO_HUB_AVAILABLE");
        check(migrate, "a", "b", DEFAULT, "a>b with state: device_data_migrated");
        check(reset, "a", "b", DEFAULT, "a>b initial: device_data_reset");
        check(migrate, "a", "a", DEFAULT, STAYED);
        check(reset, "a", "a", DEFAULT, "reset at a: device_data_reset");
        check(keep, "a", "b", DEFAULT, STAYED);
        check(keep, "a", "not asked", DEFAULT, STAYED);
        check(follow, "a", "none", DEFAULT, NO_OTHER);
        check(follow, "a draining", "none", DEFAULT, NO_OTHER);
        check(follow, "a retired", "none", DEFAULT, NO_OTHER);
        check(migrate, "a unlinked", "b", DEFAULT, "fail ASSIGNED_HUB_UNLINKED");
        check(migrate, "a unlinked", "b", BYPASS, "a>b restored: device_data_migrated");
        check(migrate, "a unlinked", "b", START_OVER, "a>b anew: device_data_reset");
        check(reset, "a unlinked", "b", DEFAULT, "a>b anew: device_data_reset");
        check(follow, "a unlinked", "none", DEFAULT, "fail NO_HUB_AVAILABLE");
        for now in ["a", "a draining", "a away", "a unlinked"] {
            check(follow, now, "failed", DEFAULT, "fail ALLOCATION_FAILED");
        }
        check(keep, "a", "failed", DEFAULT, "stay at a (allocation_failed): reprovisioned_to_initial_assignment");
        for says in ["b", "none", "failed", "not asked"] {
            check(keep, "a unlinked", says, DEFAULT, "fail ASSIGNED_HUB_UNLINKED");
        }
    }

    #[test]
    fn every_lifecycle_of_the_hub_left_is_left_alike() {
        for now in ["a draining", "a retired", "a away"] {
            check(&[Policy(Migrate)], now, "b", DEFAULT, "a>b with state: device_data_migrated");
            check(&[Policy(Reset)], now, "b", DEFAULT, "a>b initial: device_data_reset");
            check(&[Sticky, Policy(Never)], now, "not asked", DEFAULT, STAYED);
        }
        check(&ALL, "-", "failed", DEFAULT, "fail ALLOCATION_FAILED");
        check(&ALL, "-", "not asked", DEFAULT, "fail INTERNAL");
        check(&[Policy(Migrate), Policy(Reset)], "a", "not asked", DEFAULT, "fail INTERNAL");
        check(&[Policy(Migrate), Policy(Reset)], "a unlinked", "not asked", DEFAULT, "fail INTERNAL");
    }

    #[test]
    fn a_reset_at_the_same_hub_is_the_operators_choice() {
        let reset = &[Policy(Reset)];
        let at = |reset_on_same_hub, enrollment_changed| Settings { reset_on_same_hub, enrollment_changed, ..DEFAULT };
        let done = "reset at a: device_data_reset";
        check(reset, "a", "a", at(ResetOnSameHub::Always, true), done);
        check(reset, "a", "a", at(ResetOnSameHub::WhenEnrollmentChanged, true), done);
        check(reset, "a", "a", at(ResetOnSameHub::WhenEnrollmentChanged, false), STAYED);
        check(reset, "a", "a", at(ResetOnSameHub::Off, true), STAYED);
        check(reset, "a away", "a", at(ResetOnSameHub::Off, true), STAYED);
        let unavailable = "stay at a (hub_unavailable): reprovisioned_to_initial_assignment";
        check(reset, "a away", "a", DEFAULT, done);
        check(reset, "a away", "a", BYPASS, unavailable);
        check(reset, "a away", "a", START_OVER, unavailable);
        check(reset, "a away", "a", Settings { allow_late_writes: false, ..BYPASS }, done);
        check(reset, "a", "a", BYPASS, done);
    }

    #[test]
    fn a_hub_that_is_away_is_left_like_any_other_and_one_that_is_gone_by_the_rule() {
        for rule in [DEFAULT, BYPASS, START_OVER] {
            check(&[Policy(Migrate)], "a away", "b", rule, "a>b with state: device_data_migrated");
            check(&[Policy(Reset)], "a away", "b", rule, "a>b initial: device_data_reset");
        }
        // Nothing can have been written where the device's home never opened.
        for rule in [DEFAULT, BYPASS, START_OVER] {
            check(&[Policy(Migrate)], "a unopened", "b", rule, "a>b restored: device_data_migrated");
            check(&[Policy(Reset)], "a unopened", "b", rule, "a>b anew: device_data_reset");
            check(&ALL[..2], "a unopened", "pin b", rule, "a>b restored: device_data_migrated");
            check(&[Sticky, Policy(Never)], "a unopened", "not asked", rule, "fail ASSIGNED_HUB_UNLINKED");
        }
        let not_allowed = Settings { allow_late_writes: false, ..BYPASS };
        check(&[Policy(Migrate)], "a away", "b", not_allowed, "a>b with state: device_data_migrated");
        check(&[Policy(Migrate)], "a", "b", BYPASS, "a>b with state: device_data_migrated");
        check(&[Policy(Migrate)], "a unlinked", "b", not_allowed, "fail ASSIGNED_HUB_UNLINKED");
        check(&[Policy(Reset)], "a unlinked", "b", BYPASS, "a>b anew: device_data_reset");
    }

    #[test]
    fn a_pin_moves_what_the_policy_would_keep() {
        let keep = &[Sticky, Policy(Never)];
        check(&ALL, "-", "pin b", DEFAULT, "assign b: initial_assignment");
        check(keep, "a", "pin b", DEFAULT, "a>b with state: device_data_migrated");
        check(keep, "a", "pin a", DEFAULT, STAYED);
        check(keep, "a unlinked", "pin b", DEFAULT, "fail ASSIGNED_HUB_UNLINKED");
        check(keep, "a unlinked", "pin b", BYPASS, "a>b restored: device_data_migrated");
        check(keep, "a unlinked", "pin b", START_OVER, "a>b anew: device_data_reset");
        check(keep, "a away", "pin b", DEFAULT, "a>b with state: device_data_migrated");
        check(keep, "a away", "pin b", BYPASS, "a>b with state: device_data_migrated");
        check(&[Policy(Migrate)], "a", "pin b", DEFAULT, "a>b with state: device_data_migrated");
        check(&[Policy(Reset)], "a", "pin b", DEFAULT, "a>b initial: device_data_reset");
    }

    #[test]
    fn the_webhooks_twin_is_taken_at_a_start_only() {
        for (applies, now, says, taken) in [
            (Policy(Migrate), "-", "b", true),
            (Policy(Reset), "a", "b", true),
            (Policy(Reset), "a unlinked", "b", true),
            (Policy(Migrate), "a", "b", false),
            (Policy(Reset), "a", "a", false),
            (Policy(Never), "a", "b", false),
            (Policy(Migrate), "a", "failed", false),
        ] {
            assert_eq!(decided(applies, now, says, DEFAULT).takes_webhook_twin(), taken, "{applies:?} {now} {says}");
        }
    }

    #[test]
    fn a_drain_reports_who_is_held() {
        for (applies, now, held) in [
            (Sticky, "a draining", true),
            (Policy(Never), "a retired", true),
            (Policy(Never), "a", false),
            (Policy(Never), "-", false),
            (Sticky, "a unlinked", false),
            (Policy(Migrate), "a draining", false),
            (Policy(Reset), "a retired", false),
        ] {
            assert_eq!(held_by_policy(applies, &current(now)), held, "{applies:?} {now}");
        }
    }

    #[test]
    fn a_failure_names_the_hubs() {
        let decision = decided(Policy(Migrate), "-", "none", DEFAULT);
        assert_eq!(decision.why, "because: x is draining");
    }
}
