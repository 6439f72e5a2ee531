//! What the service says of registrations, in the words of the wire.

use crate::domain::AllocationPolicy;
use crate::service::{CallKey, Effect, Episode, Explained, Outcome, RegistrationView, Tries};
use crate::wire::convert::registration::UpdateStatus;
use crate::wire::convert::registration_record::{
    AllocationKind, Explanation, HistoryRecord, MoveProgress, Obligation, OperationRecord, RegistrationRecord, TpmFacts,
};

pub fn registration(view: &RegistrationView) -> RegistrationRecord {
    let RegistrationView { standing, tries } = view;
    let operation = &standing.operation;
    RegistrationRecord {
        id: standing.id.clone(),
        device_id: standing.device_id.clone(),
        enrollment: standing.enrollment.clone(),
        policy: standing.policy,
        assignment: standing.assignment.clone(),
        operation: OperationRecord {
            id: operation.id,
            status: UpdateStatus::from(&operation.status),
            request_id: operation.request_id.clone(),
            started_at: operation.started_at,
            updated_at: operation.updated_at,
        },
        pin: standing.pin.clone(),
        payload: standing.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        tpm: standing.tpm.as_ref().map(|tpm| TpmFacts {
            endorsement_key_hash: tpm.ek.registration_id().to_string(),
            storage_root_key_name: tpm.srk.as_ref().map(ToString::to_string),
        }),
        running: standing.running.as_ref().map(|running| {
            let tried = tried(tries, |key| {
                key.generation == running.generation && key.effect == running.effect && key.hub == running.hub
            });
            MoveProgress {
                generation: running.generation,
                plan: running.plan.to_owned(),
                from: running.from.clone(),
                to: running.to.clone(),
                step: running.effect.as_str().to_owned(),
                hub: running.hub.clone(),
                started_at: running.started_at,
                since: running.since,
                attempts: tried.attempts,
                last_error: tried.last_fault,
            }
        }),
        obligations: standing
            .obligations
            .iter()
            .map(|owed| {
                let tried = tried(tries, |key| {
                    key.generation == owed.generation && key.effect == owed.effect && key.hub == owed.hub
                });
                Obligation {
                    generation: owed.generation,
                    hub: owed.hub.clone(),
                    what: word(owed.effect),
                    since: owed.since,
                    attempts: tried.attempts,
                    last_error: tried.last_fault,
                    stuck_reason: owed.stuck.as_ref().map(ToString::to_string),
                }
            })
            .collect(),
        split: standing.split.clone(),
        created_at: standing.created_at,
        updated_at: standing.updated_at,
        version: standing.version,
    }
}

fn word(effect: Effect) -> String {
    effect.as_str().to_owned()
}

fn tried(tries: &[(CallKey, Tries)], is_it: impl Fn(&CallKey) -> bool) -> Tries {
    tries.iter().find(|(key, _)| is_it(key)).map(|(_, tries)| tries.clone()).unwrap_or_default()
}

pub fn episode(episode: &Episode) -> HistoryRecord {
    HistoryRecord {
        generation: episode.generation,
        at: episode.at,
        by: episode.by.clone(),
        plan: episode.plan.to_owned(),
        from: episode.from.clone(),
        to: episode.to.clone(),
        why: episode.why.clone(),
        ended: episode.ended.as_str().to_owned(),
        data_source: episode.data_source,
        has_twins: episode.has_state,
        bypassed: episode.bypassed.map(|bypassed| bypassed.as_str().to_owned()),
        split: episode.split,
        abandoned: episode.abandoned.iter().map(ToString::to_string).collect(),
    }
}

pub fn explanation(explained: &Explained) -> Explanation {
    let Explained { enrollment, explanation, pin } = explained;
    let decision = &explanation.decision;
    let current = explanation.current.hub().cloned();
    let (outcome, hub, reason) = match &decision.outcome {
        Outcome::Assign { to } => ("assign", Some(to.clone()), None),
        Outcome::Relocate { to, .. } => ("relocate", Some(to.clone()), None),
        Outcome::AssignAnew { to, .. } => ("assign_anew", Some(to.clone()), None),
        Outcome::Restore { to, .. } => ("restore", Some(to.clone()), None),
        Outcome::ResetInPlace { at } => ("reset_in_place", Some(at.clone()), None),
        Outcome::Stay { at, .. } => ("stay", Some(at.clone()), None),
        Outcome::Fail { reason, .. } => ("fail", current.clone(), Some(reason.as_str().to_owned())),
    };
    Explanation {
        enrollment: explanation.enrollment.clone(),
        stored_policy: enrollment.reprovision,
        applied_policy: explanation.applies.policy(),
        policy_basis: explanation.basis.to_string(),
        allocation: enrollment.allocation.as_ref().map(|policy| match policy {
            AllocationPolicy::Static => AllocationKind::Static,
            AllocationPolicy::Hashed => AllocationKind::Hashed,
            AllocationPolicy::LowestLatency => AllocationKind::LowestLatency,
            AllocationPolicy::Custom(_) => AllocationKind::Custom,
        }),
        current,
        hub,
        outcome: outcome.to_owned(),
        sub_status: decision.sub_status(),
        allocation_why: explanation.allocation.why.clone(),
        outcome_why: decision.why.clone(),
        not_taken: explanation.allocation.not_taken.iter().map(|(hub, why)| (hub.clone(), why.to_string())).collect(),
        pin: pin.clone(),
        reason,
        held_by_policy: explanation.held_by_policy,
    }
}
