//! When a move leaves a home that it could not seal: hubs that are away, and hubs that have lost their device.
//!
//! **When a hub is away.** The rules `last_known` and `reset` pass an old hub by once [`limits::BYPASS_TRIES_MIN`] seals
//! have failed (each refused a connection, cut off, or unanswered for its whole time limit) and [`Machine::away_after`] has
//! passed since the intent, and one more seal has failed after that: a hub that has just come back is not passed by. They
//! are counted by the machine alone: the journal has the intent's time, and the tries are
//! those since this machine was loaded, so a restart of the *service* never makes a hub look away. Without leave for late
//! writes both rules wait, as `wait` does.
//!
//! **Why a bypass is a line of its own.** It names the state that is carried, so that a repeat of the `create` behind it is
//! the same call after a restart, whatever the service has seen since. It is committed before anything is asked of the new
//! hub under it. It is not the pivot: until that, the assignment stands, and giving up unseals the old hub and takes back
//! what the new one was given, by orders above the bypass's own.
//!
//! **Why the seal goes on beside it.** The old hub may answer a moment later. Its sealed state is complete and the carried
//! one is not, so whichever is *committed* first counts: `Pivoted`, or `Regained` with the sealed state. They are lines of
//! one journal, each written over the other's absence, so both never stand. After `Regained` what the new hub may have been
//! made with is the wrong state: it is deleted, under the order of that line, before it is created anew under the order of
//! the deletion. A late copy of the first `create` is below both. The deletion is spared when no `create` can have been
//! sent, since it would take away whoever else has the name there.
//!
//! **Why a late write is never lost.** After the pivot the old hub is owed `collect`, which seals it under the pivot's order,
//! commits what it holds as the late twin, and only then deletes it. A plain delete is owed only where the sealed state
//! stands in the journal. The move is kept in the history beyond its bound until an operator removes it.
//!
//! **Why versions go on.** The state that is carried may be older than what the old hub accepted, and who follows the twin
//! has seen those versions. So every version of what arrives is ahead by [`limits::VERSIONS_SKIPPED`], whatever is carried
//! and also where nothing was known ([`Move::arriving_state`]): who remembers the old ones does not ignore the new ones.
//!
//! **Leases.** `create` at the new hub (and so the pivot and the activation) is not due before [`Machine::lease_ended`] was
//! told. Whoever tells it has stopped renewing the old hub's lease *after* the bypass was durable (it is asked only then),
//! has waited the lease out, and renews it only with the list of homes to be sealed: [`Move::bypass`] of every open move.
//! The generation on that list is the bypassing move's own. Every home that the device had at that hub before is of a lower
//! one and is sealed; one that it is given there later is of a higher one and stays open (trace 4b). The order is the
//! bypass's: an `unseal` of an older, abandoned move is below it (trace 4c), the one of this move, given up, above it.
//!
//! **A hub that has lost its device** has answered, so nothing can be written there: no leave is needed, nothing is split,
//! and its fence is above every earlier call. A device that moves is given the newest state known. One that stays is made
//! there again: the same operation goes on by the plan *restore* (or *rehouse* under reset). With nothing known the operation
//! fails by a reason of its own; an empty twin never takes the place of a lost one.

use crate::domain::{AuditAction, HubId, Order, Reason, Timestamp, UnreachableRule, limits};

use super::super::journal::{Bypass, Carry, Effect, Intent, JournalRecord, KnownState, Plan};
use super::super::plan::Side;
use super::super::progress::{Move, Phase};
use super::{CallKey, Commit, EndLease, Lease, Machine, Recall, due_step, waits};

impl Machine {
    /// The state that is needed now, if any.
    pub(super) fn recall(&self) -> Option<Recall> {
        let this = self.running()?;
        let key = self.lost_at(this);
        if let Some(key) = key {
            return Some(Recall { generation: this.generation, hub: key.hub.clone(), why: Bypass::Missing });
        }
        let (from, at) = (this.intent.plan.hub(Side::From)?, self.bypass_at()?);
        let mut seals = self.tries.iter().filter(|(key, _)| key.generation == this.generation);
        let is_away = seals.any(|(key, tries)| {
            tries.attempts >= limits::BYPASS_TRIES_MIN
                && tries.failed_at.is_some_and(|failed_at| failed_at >= at)
                && !self.in_flight.contains(key)
        });
        is_away.then(|| Recall { generation: this.generation, hub: from.clone(), why: Bypass::Away })
    }

    /// The call that a hub answered by having no such device.
    fn lost_at(&self, this: &Move) -> Option<&CallKey> {
        let mut lost = self.tries.iter().filter(|(key, tries)| key.generation == this.generation && tries.missing);
        lost.next().map(|(key, _)| key)
    }

    /// From when on the hub whose seal is due may count as away. `None` when it is waited for.
    pub(super) fn bypass_at(&self) -> Option<Timestamp> {
        let this = self.running()?;
        let sealing = matches!(this.intent.plan, Plan::Relocate { .. })
            && due_step(this).is_some_and(|step| step.effect == Effect::Seal);
        (sealing && !waits(&this.intent)).then(|| this.started_at.plus(self.away_after))
    }

    /// What follows from the newest state known, once it was looked for. `None` when nobody asks any more.
    pub fn recalled(&self, recall: &Recall, known: Option<KnownState>, now: Timestamp) -> Option<Commit> {
        if self.recall().as_ref() != Some(recall) {
            return None;
        }
        let this = self.moves.get(&recall.generation)?;
        Some(match &this.intent.plan {
            Plan::Relocate { carry, .. } => self.bypass(this, recall, *carry, known, now),
            Plan::ResetInPlace { at, .. } => {
                let plan = Plan::Rehouse { from: at.clone(), to: at.clone() };
                self.make_again(this, plan, known, now)
            }
            Plan::Refresh { at } => match known {
                None => self.nothing_known(this, &recall.hub, recall.why, now),
                Some(known) => {
                    let plan = Plan::Restore { from: at.clone(), to: at.clone(), seen_at: known.seen_at };
                    self.make_again(this, plan, Some(known), now)
                }
            },
            Plan::Assign { .. }
            | Plan::TakeOver { .. }
            | Plan::Replant { .. }
            | Plan::Rehouse { .. }
            | Plan::Restore { .. }
            | Plan::Release { .. }
            | Plan::Collect { .. } => return None,
        })
    }

    fn bypass(&self, this: &Move, recall: &Recall, carry: Carry, known: Option<KnownState>, now: Timestamp) -> Commit {
        let hub = &recall.hub;
        let late = self.registration.as_ref().map_or(0, |record| record.past.late.len());
        if recall.why == Bypass::Away && late >= limits::LATE_TWINS_MAX {
            let message = format!(
                "hub {hub} cannot be reached, and {late} homes of the device that were left so are still in its history: \
                 remove their late twins first"
            );
            return self.abort(this, Reason::HubUnavailable, message, false, now);
        }
        let carry = match (carry, recall.why, this.intent.unreachable) {
            (Carry::State, Bypass::Away, UnreachableRule::Reset) => Carry::Initial,
            (Carry::State, Bypass::Missing, _) | (Carry::State, Bypass::Away, _) => Carry::State,
            (Carry::Initial | Carry::Planted { .. }, Bypass::Away | Bypass::Missing, _) => carry,
        };
        if carry == Carry::State && known.is_none() {
            return self.nothing_known(this, hub, recall.why, now);
        }
        let what = match (carry, &known) {
            (Carry::State, Some(known)) => format!("the state seen at {} is carried", known.seen_at),
            (Carry::Planted { .. }, _) => "a state of its history is carried".to_owned(),
            (Carry::State | Carry::Initial, _) => "the initial configuration is carried".to_owned(),
        };
        let why = match recall.why {
            Bypass::Away => format!("hub {hub} does not answer and is passed by: {what}"),
            Bypass::Missing => format!("hub {hub} has no such device: {what}"),
        };
        let mut commit = self.blank_commit(now);
        let mut audit = self.audit(&this.intent, AuditAction::HomeBypassed, why, now);
        audit.hub = Some(hub.clone());
        commit.audit.push(audit);
        commit.lines.push((Some(this.generation), JournalRecord::Bypassed { cause: recall.why, known, carry }));
        commit
    }

    fn nothing_known(&self, this: &Move, hub: &HubId, why: Bypass, now: Timestamp) -> Commit {
        let what = match why {
            Bypass::Away => "does not answer",
            Bypass::Missing => "has no such device",
        };
        let message =
            format!("hub {hub} {what}, and the service has seen no state of the device that could be carried");
        // What answered has nothing to be undone; what did not answer may have sealed.
        self.abort(this, Reason::NoLastKnownState, message, why == Bypass::Missing, now)
    }

    /// The device is made again where it should be: the same operation goes on by another plan.
    fn make_again(&self, this: &Move, plan: Plan, known: Option<KnownState>, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        self.close(this, &mut commit);
        let at = plan.hub(Side::To).map(ToString::to_string).unwrap_or_default();
        let with = match &known {
            Some(known) if matches!(plan, Plan::Restore { .. }) => format!("the state seen at {}", known.seen_at),
            Some(_) | None => "the initial configuration".to_owned(),
        };
        let intent = Intent {
            why: format!("{}; {at} has lost the device, which is made there again with {with}", this.intent.why),
            planted: known.map(|known| known.state),
            plan,
            ..(*this.intent).clone()
        };
        commit.audit.push(self.audit(&intent, AuditAction::RegistrationStarted, intent.why.clone(), now));
        commit.lines.push((None, JournalRecord::Intent(Box::new(intent))));
        commit
    }

    /// The running move that a second request joins. None when a new one may start from it: its new home never opened, or
    /// cannot be reached.
    pub fn joinable(&self, now: Timestamp) -> Option<&Move> {
        self.running().filter(|_| self.replantable().is_none() && !self.is_home_away(now))
    }

    /// The new home of the running move does not answer, and may or may not have opened: it is then a home like any other
    /// whose hub is away, and a move that leaves it passes it by or waits, as its rule says (trace 10). The call that would
    /// open it is below the orders of that move.
    pub fn is_home_away(&self, now: Timestamp) -> bool {
        let Some(this) = self.running().filter(|this| matches!(this.phase, Phase::After { .. })) else { return false };
        this.owed().iter().filter(|owed| owed.awaited && owed.effect == Effect::Activate).any(|owed| {
            let key = super::owed_key(this, owed);
            now >= owed.since.plus(self.away_after)
                && self.tries.get(&key).is_some_and(|tries| tries.attempts >= limits::BYPASS_TRIES_MIN)
        })
    }

    /// Whether a `create` of this move may have been sent in any life of the service.
    pub(super) fn may_have_created(&self, this: &Move) -> bool {
        let is_create = |key: &CallKey| key.generation == this.generation && key.effect == Effect::Create;
        self.in_flight.iter().any(is_create)
            || self.tries.iter().any(|(key, tries)| is_create(key) && (tries.attempts > 0 || tries.may_have_happened))
    }

    /// The lease that must end before the running move goes on, when nobody was asked to end it yet.
    pub(super) fn lease_to_end(&mut self) -> Option<EndLease> {
        let open = &self.moves;
        self.leases.retain(|generation, _| open.contains_key(generation));
        let this = self.running().filter(|this| matches!(this.phase, Phase::Before { .. }))?;
        let (hub, must_seal) = this.bypass()?;
        let generation = this.generation;
        if self.leases.contains_key(&generation) {
            return None;
        }
        self.leases.insert(generation, Lease::Asked);
        Some(EndLease { generation, hub, must_seal })
    }

    /// The bypassed hub holds no lease any more, and gets none before it has sealed what it must.
    pub fn lease_ended(&mut self, generation: Order, now: Timestamp) {
        if self.moves.contains_key(&generation) {
            self.leases.insert(generation, Lease::Ended { at: now });
        }
    }

    /// Nobody could tell whether the lease has ended: it is asked again.
    pub fn lease_unknown(&mut self, generation: Order) {
        if self.leases.get(&generation) == Some(&Lease::Asked) {
            self.leases.remove(&generation);
        }
    }

    /// Whether the call follows a bypass whose lease has not ended for sure.
    pub(super) fn waits_for_lease(&self, key: &CallKey) -> bool {
        key.effect == Effect::Create
            && self.moves.get(&key.generation).is_some_and(|this| this.bypass().is_some())
            && !matches!(self.leases.get(&key.generation), Some(Lease::Ended { .. }))
    }

    /// When the step that is due is given up. While a lease runs out nobody could be faster.
    pub(super) fn deadline_of(&self, this: &Move) -> Option<Timestamp> {
        let deadline = super::journaled_deadline(this)?;
        if this.bypass().is_none() || this.clearing {
            return Some(deadline);
        }
        match self.leases.get(&this.generation) {
            Some(Lease::Ended { at }) => Some(deadline.max(at.plus(limits::TARGET_WAIT))),
            Some(Lease::Asked) | None => None,
        }
    }
}
