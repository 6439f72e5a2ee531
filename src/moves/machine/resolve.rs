//! What a person may do about a move that waits for one, and what follows when a hub is gone for good.
//!
//! **Retry** orders a refused call anew. Its order is that of the line `Retried`, committed first: the newest of the whole
//! store, so above everything that was ever sent to any hub, and a hub does not refuse it as stale (unless its own data is
//! of a later time than ours, and then it must). It is safe, since nothing that was ordered between the refusal and the
//! retry can be undone by it: a later move *to* that hub is not begun while clean-up is owed there, stuck or not; one that
//! *leaves* it drops what would open it; one that *stays* does not begin while it is closed. A reset in place that was
//! refused keeps no later move from beginning, and is not ordered anew while one is open: its new order would be above
//! that move's own calls, whose answers (a sealed state, a replaced twin) may not have been heard yet. Copies of the refused call are
//! below the fence, which the refusal raised. A call that was *not* refused keeps its order: its first copy may be obeyed
//! yet, and an activation obeyed under one order is refused under the next. Its pause is ended instead.
//!
//! **Abandon** drops clean-up: what it was for stays at the hub, and the journal says who wanted that. Before the pivot it
//! gives the move up (step 4′). Not for what opens the device's home: it would have none. And not for a reset in place that
//! no hub has refused: a call that is still under way is obeyed or not, and its answer, the twin that was replaced, must
//! find the move open.
//!
//! **Force** is for a home that a hub refused to open. Its hub is the one on record, and every other one is sealed, deleted
//! or was bypassed: that is what the pivot and the abort made sure of. So whatever makes *this* hub accept writes gives the
//! device one home, never two. Where the hub has the device, in whatever phase, `unseal` under a new order opens it
//! (`activate` opens only what is staged, and the refusal says that it is not). Where the hub has no such device it is made
//! there anew from the journal, by the plan *restore*. What the hub had of another move stays below the new order.
//!
//! **A hub that was forced out** accepts no writes, on its operator's word. Moves that name it and have not pivoted are given
//! up; what is owed to it is abandoned. A device that lives there keeps its record, and its next registration decides by the
//! unreachable rule, with the newest state known.
//!
//! Two states must outlive such a hub. *Sealed and given up*: the move has the home's exact state in its journal and is to
//! unseal it. As long as that is owed the move is open, and when it is not owed any more though the home did not open (the
//! hub was forced out, or a later move leaves it, [`Machine::supersede`]), the move goes to the device's history and keeps
//! its lines. Later such moves have newer states, so what the history's bound drops first is never the newest. *Pivoted and
//! never opened*: the activation was refused or never sent, as at [`Machine::replantable`]. The line says so, since
//! nobody will know after a restart, and the next move takes the state that was to arrive there, whatever the rule:
//! the rule is about writes that the service may not have, and there are none. An activation that may have been obeyed
//! makes the home one like any other.

use crate::domain::{
    AuditAction, AuditEntry, HubId, HubRefusal, OperationId, Order, Reason, Registration, SubStatus, Timestamp,
};

use super::super::journal::{Effect, Intent, JournalRecord, KnownState, Plan};
use super::super::plan::Side;
use super::super::progress::{Move, Owed, OwedState, Phase};
use super::{Commit, Machine, RecordChange};

/// What a person wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Retry,
    Abandon,
    Force,
}

impl Way {
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Retry => "retry",
            Way::Abandon => "abandon",
            Way::Force => "force",
        }
    }
}

/// Which debt of which move, who wants it resolved, how and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    pub generation: Order,
    /// Absent where the move owes one thing only, or one that is stuck.
    pub effect: Option<Effect>,
    pub hub: Option<HubId>,
    pub way: Way,
    pub by: String,
    pub why: String,
}

/// Why a wish cannot be granted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("no move {generation} of the device is open: nothing of it waits")]
    NoMove { generation: Order },
    #[error("move {generation} owes no such thing")]
    NotOwed { generation: Order },
    #[error("move {generation} owes more than one thing: name the effect and the hub")]
    Ambiguous { generation: Order },
    #[error("without it the device would have no home that accepts writes: retry or force it")]
    OpensHome,
    #[error("the device's home does not depend on it: retry or abandon it")]
    NoHome,
    #[error("the hub has not refused it and is still being asked: wait, or retry it now")]
    NotStuck,
    #[error("a later move of the device is open: retry it when that is over, or abandon it")]
    Overtaken,
    #[error("the hub's data is of another time: reconcile the hub first")]
    OtherIncarnation,
    #[error("no state of the device is known that it could be made anew with")]
    NothingKnown,
    #[error("a move that has not changed the assignment yet is given up (abandon) or waits; there is nothing to force")]
    NotPivoted,
    #[error("the history has no late twin of move {generation}")]
    NoLateTwin { generation: Order },
    #[error("move {generation} is still open: its late twin is not collected yet")]
    StillOpen { generation: Order },
}

impl Machine {
    /// The commit that grants a wish. `operation` and `known` are for a home that must be made anew.
    pub fn resolve(
        &self,
        wish: &Resolve,
        operation: OperationId,
        known: Option<KnownState>,
        now: Timestamp,
    ) -> Result<Commit, Unresolved> {
        let generation = wish.generation;
        let this = self.moves.get(&generation).ok_or(Unresolved::NoMove { generation })?;
        if let Phase::Before { .. } = this.phase {
            return match wish.way {
                Way::Retry => Ok(self.noted(this, wish, None, now)),
                Way::Abandon => {
                    let message = format!("given up by {}: {}", wish.by, wish.why);
                    Ok(by(&wish.by, self.abort(this, Reason::MoveAborted, message, false, now)))
                }
                Way::Force => Err(Unresolved::NotPivoted),
            };
        }
        let owed = debt(this, wish)?;
        match (wish.way, &owed.state) {
            (Way::Retry, OwedState::Due | OwedState::Collected) => Ok(self.noted(this, wish, Some(owed), now)),
            (Way::Retry, OwedState::Stuck(_)) if owed.effect == Effect::ReplaceTwin && self.is_overtaken(this) => {
                Err(Unresolved::Overtaken)
            }
            (Way::Retry, OwedState::Stuck(_)) => Ok(self.ordered_anew(this, owed, owed.effect, wish, now)),
            (Way::Abandon, OwedState::Due | OwedState::Collected | OwedState::Stuck(_)) => {
                if opens_home(owed) {
                    return Err(Unresolved::OpensHome);
                }
                // A hub that obeys it after all answers with the twin that it replaced, and nobody else has that.
                if owed.effect == Effect::ReplaceTwin && owed.state == OwedState::Due {
                    return Err(Unresolved::NotStuck);
                }
                let mut commit = self.blank_commit(now);
                self.abandon(this, owed, &wish.by, &wish.why, &mut commit);
                Ok(commit)
            }
            (Way::Force, _) if !opens_home(owed) => Err(Unresolved::NoHome),
            (Way::Force, OwedState::Due | OwedState::Collected) => Err(Unresolved::NotStuck),
            (Way::Force, OwedState::Stuck(HubRefusal::WrongIncarnation { .. })) => Err(Unresolved::OtherIncarnation),
            (Way::Force, OwedState::Stuck(HubRefusal::NoSuchDevice)) => {
                // What stood there: the old home's own state, or what arrived at the new one, however it is opened.
                let own = match &this.phase {
                    Phase::After { .. } => this.arriving_state().map(Box::new),
                    Phase::Before { .. } | Phase::Undoing { .. } => this.sealed.clone(),
                };
                let own = own.map(|state| KnownState { state, seen_at: this.at });
                let newest = KnownState::newest(own.into_iter().chain(known)).ok_or(Unresolved::NothingKnown)?;
                Ok(self.made_anew(this, owed, newest, wish, operation, now))
            }
            (
                Way::Force,
                OwedState::Stuck(
                    HubRefusal::Stale { .. }
                    | HubRefusal::Occupied
                    | HubRefusal::NotStaged
                    | HubRefusal::Full
                    | HubRefusal::StateInvalid(_)
                    | HubRefusal::OrderReused,
                ),
            ) => Ok(self.ordered_anew(this, owed, Effect::Unseal, wish, now)),
        }
    }

    /// A later move of the device is under way, other than clean-up beside it.
    fn is_overtaken(&self, this: &Move) -> bool {
        self.moves.values().any(|other| other.generation > this.generation && !other.is_aside())
    }

    /// Ends the pauses of a move's calls: a person wants them tried now.
    pub fn hurry(&mut self, generation: Order, now: Timestamp) {
        let tries = self.tries.iter_mut().filter(|(key, _)| key.generation == generation);
        tries.for_each(|(_, tries)| tries.next_at = tries.next_at.min(now));
    }

    /// Nothing changes but the audit log: what waits is tried again at once.
    fn noted(&self, this: &Move, wish: &Resolve, owed: Option<&Owed>, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        let what = owed.map_or("what is due", |owed| owed.effect.as_str());
        let detail = format!("{what} is tried again at once: {}", wish.why);
        let mut audit = self.audit(&this.intent, AuditAction::ObligationRetried, detail, now);
        audit.actor.clone_from(&wish.by);
        audit.hub = owed.map(|owed| owed.hub.clone()).or(audit.hub);
        commit.audit.push(audit);
        commit
    }

    fn ordered_anew(&self, this: &Move, owed: &Owed, as_effect: Effect, wish: &Resolve, now: Timestamp) -> Commit {
        let mut commit = self.blank_commit(now);
        let action = match wish.way {
            Way::Retry | Way::Abandon => AuditAction::ObligationRetried,
            Way::Force => AuditAction::HomeForced,
        };
        let detail =
            format!("{} at {} is ordered anew as {}: {}", owed.effect.as_str(), owed.hub, as_effect.as_str(), wish.why);
        let mut audit = self.audit(&this.intent, action, detail, now);
        (audit.actor, audit.hub) = (wish.by.clone(), Some(owed.hub.clone()));
        commit.audit.push(audit);
        let record = JournalRecord::Retried {
            effect: owed.effect,
            hub: owed.hub.clone(),
            as_effect,
            by: wish.by.clone(),
            why: wish.why.clone(),
        };
        commit.lines.push((Some(this.generation), record));
        commit
    }

    /// The home's hub has lost the device: it is made there anew, and what was owed for the old one is void.
    fn made_anew(
        &self,
        this: &Move,
        owed: &Owed,
        known: KnownState,
        wish: &Resolve,
        operation: OperationId,
        now: Timestamp,
    ) -> Commit {
        let at = owed.hub.clone();
        let intent = Intent {
            operation,
            request_id: None,
            by: wish.by.clone(),
            sub_status: SubStatus::ReprovisionedToInitialAssignment,
            planted: Some(known.state),
            plan: Plan::Restore { from: at.clone(), to: at.clone(), seen_at: known.seen_at },
            why: format!("{at} has lost the device, which is made there anew: {}", wish.why),
            pin: self.registration.as_ref().and_then(|record| record.pin.clone()),
            ..(*this.intent).clone()
        };
        // Voids the debt, as the beginning of every move that makes a home does.
        let mut commit = self.begin(Box::new(intent), super::Preconditions::default(), now);
        let mut audit = self.audit(&this.intent, AuditAction::HomeForced, wish.why.clone(), now);
        (audit.actor, audit.hub) = (wish.by.clone(), Some(at));
        commit.audit.push(audit);
        commit
    }

    /// Drops a debt. The line stays in the history where the move does.
    fn abandon(&self, this: &Move, owed: &Owed, by: &str, why: &str, commit: &mut Commit) {
        let left = match owed.effect {
            Effect::Delete | Effect::Collect => "what the hub holds of the device stays there",
            Effect::ReplaceTwin => "the twin stays as it is",
            Effect::Unseal | Effect::Activate => "the device's home is not opened there",
            Effect::Seal | Effect::Create | Effect::Withhold | Effect::UpdateCredential => "it is not done",
        };
        let detail = format!("{} owed to {} is given up, {left}: {why}", owed.effect.as_str(), owed.hub);
        let mut audit = self.audit(&this.intent, AuditAction::ObligationAbandoned, detail, commit.at);
        (audit.actor, audit.hub) = (by.to_owned(), Some(owed.hub.clone()));
        commit.audit.push(audit);
        let record = JournalRecord::Abandoned {
            effect: owed.effect,
            hub: owed.hub.clone(),
            by: by.to_owned(),
            why: why.to_owned(),
            unheard: self.is_unheard(this, owed),
        };
        self.keep_sealed(this, owed, commit);
        commit.lines.push((Some(this.generation), record));
        if this.owed().len() == 1 {
            self.close(this, commit);
        }
    }

    /// Whether the hub cannot have obeyed what it is owed.
    fn is_unheard(&self, this: &Move, owed: &Owed) -> bool {
        let key = super::owed_key(this, owed);
        match &owed.state {
            OwedState::Stuck(_) => true,
            OwedState::Due | OwedState::Collected => {
                !self.in_flight.contains(&key) && self.tries.get(&key).is_none_or(|tries| !tries.may_have_happened)
            }
        }
    }

    /// A home that was sealed is not to be opened again any more: its state stays in the history.
    pub(super) fn keep_sealed(&self, this: &Move, owed: &Owed, commit: &mut Commit) {
        let holds = owed.effect == Effect::Unseal && this.sealed.is_some();
        if !holds || !matches!(this.phase, Phase::Undoing { .. }) {
            return;
        }
        if commit.record == RecordChange::Keep
            && let Some(record) = &self.registration
        {
            commit.record = RecordChange::Put(Box::new(Registration { updated_at: commit.at, ..record.clone() }));
        }
        let mut past = match &mut commit.record {
            RecordChange::Put(record) => std::mem::take(&mut record.past),
            RecordChange::Delete { past, .. } => std::mem::take(past),
            RecordChange::Keep => return,
        };
        past.push(this.generation);
        past.moves.sort_by_key(|it| if *it == super::OWN_ORDER { Order(u64::MAX) } else { *it });
        self.keep_bounded(&mut past, commit);
        match &mut commit.record {
            RecordChange::Put(record) => record.past = past,
            RecordChange::Delete { past: of_release, .. } => *of_release = past,
            RecordChange::Keep => {}
        }
    }

    /// What is to be committed since the hub is gone for good. To be asked again until it answers nothing.
    pub fn forced_out(&self, hub: &HubId, who: &str, why: &str, now: Timestamp) -> Option<Commit> {
        let names =
            |this: &Move| [Side::From, Side::To].into_iter().any(|side| this.intent.plan.hub(side) == Some(hub));
        let unfinished = self.moves.values().find(|this| matches!(this.phase, Phase::Before { .. }) && names(this));
        if let Some(this) = unfinished {
            let message = format!("hub {hub} was forced out by {who}: {why}");
            return Some(by(who, self.abort(this, Reason::MoveAborted, message, false, now)));
        }
        let mut commit = self.blank_commit(now);
        for this in self.moves.values() {
            if let Some(owed) = this.owed().iter().find(|owed| owed.hub == *hub) {
                self.abandon(this, owed, who, why, &mut commit);
            }
        }
        (!commit.lines.is_empty()).then_some(commit)
    }

    /// The commit that takes a late twin, and the move that left it, out of the history.
    pub fn forget_late_twin(&self, generation: Order, by: &str, now: Timestamp) -> Result<Commit, Unresolved> {
        let record = self.registration.as_ref().ok_or(Unresolved::NoLateTwin { generation })?;
        if !record.past.late.contains(&generation) {
            return Err(Unresolved::NoLateTwin { generation });
        }
        if self.moves.contains_key(&generation) {
            return Err(Unresolved::StillOpen { generation });
        }
        let mut record = record.clone();
        record.past.remove(generation);
        record.updated_at = now;
        let mut commit = self.blank_commit(now);
        let detail = format!("the late twin of move {generation} was removed from the history");
        commit.audit.push(AuditEntry {
            registration: Some(self.id.clone()),
            ..AuditEntry::new(now, by, AuditAction::LateTwinForgotten, detail)
        });
        commit.record = RecordChange::Put(Box::new(record));
        commit.forget.push(generation);
        Ok(commit)
    }
}

/// The commit as the act of a person.
fn by(who: &str, mut commit: Commit) -> Commit {
    commit.audit.iter_mut().for_each(|entry| who.clone_into(&mut entry.actor));
    commit
}

/// The debt that is meant.
fn debt<'a>(this: &'a Move, wish: &Resolve) -> Result<&'a Owed, Unresolved> {
    let generation = this.generation;
    let meant = |owed: &&Owed| {
        wish.effect.is_none_or(|effect| effect == owed.effect) && wish.hub.as_ref().is_none_or(|hub| *hub == owed.hub)
    };
    let all: Vec<&Owed> = this.owed().iter().filter(meant).collect();
    let stuck: Vec<&Owed> = all.iter().copied().filter(|owed| matches!(owed.state, OwedState::Stuck(_))).collect();
    match (all.as_slice(), stuck.as_slice()) {
        ([], _) => Err(Unresolved::NotOwed { generation }),
        ([one], _) | (_, [one]) => Ok(one),
        (_, _) => Err(Unresolved::Ambiguous { generation }),
    }
}

/// Whether the device's home accepts no writes before this is done.
fn opens_home(owed: &Owed) -> bool {
    match owed.effect {
        Effect::Activate | Effect::Unseal => true,
        Effect::Seal
        | Effect::Create
        | Effect::Withhold
        | Effect::UpdateCredential
        | Effect::Delete
        | Effect::Collect
        | Effect::ReplaceTwin => false,
    }
}
