//! A door for tests from outside: any bytes as a record of any kind, read, written and read again.

use super::Stored;
use crate::domain::{AuditEntry, EkHash, Enrollment, EnrollmentId, Hub, Order, Past, Registration, TpmDelivery};
use crate::moves::shapes::shapes;
use crate::moves::{Bypass, Carry, Effect, Intent, JournalLine, JournalRecord, KnownState};
use crate::store::samples;

/// Whether the record that the bytes are is the same once it was written; `None` when they are not one of that kind.
pub fn reread_record(kind: u8, bytes: &[u8]) -> Option<bool> {
    match kind {
        0 => reread::<Enrollment>(bytes),
        1 => reread::<Hub>(bytes),
        2 => reread::<Registration>(bytes),
        3 => reread::<JournalLine>(bytes),
        4 => reread::<AuditEntry>(bytes),
        5 => reread::<Past>(bytes),
        _ => None,
    }
}

fn reread<T: Stored + PartialEq>(bytes: &[u8]) -> Option<bool> {
    let value = T::decode(bytes).ok()?;
    let written = value.encode().and_then(|written| T::decode(&written));
    Some(written.is_ok_and(|again| again == value))
}

/// Records of every kind, as this build writes them.
pub fn record_samples() -> Vec<(u8, Vec<u8>)> {
    fn put<T: Stored>(kind: u8, values: impl IntoIterator<Item = T>) -> Vec<(u8, Vec<u8>)> {
        values.into_iter().filter_map(|value| Some((kind, value.encode().ok()?))).collect()
    }
    let id = samples::reg_id("dev-1");
    let hub = samples::hub_id("a");
    let state = || Some(Box::new(samples::device_state()));
    let lines = [
        JournalRecord::Intent(Box::new(samples::intent(&id, samples::assign_to("a")))),
        JournalRecord::StepDone { effect: Effect::Seal, state: state() },
        samples::pivoted(),
        samples::aborted(),
        JournalRecord::Collected { hub: hub.clone(), state: state() },
        samples::settled(Effect::Delete, &hub),
        samples::stuck(Effect::Activate, &hub),
        samples::dropped(Effect::Unseal, &hub),
    ];
    let as_line = |record| JournalLine { order: Order(7), at: samples::NOW, record };
    let lines = lines.map(as_line);
    [
        put(
            0,
            [
                samples::enrollment(EnrollmentId::Individual(id), 1),
                samples::enrollment(samples::group_id("g"), 2),
                samples::key_group(samples::group_id("k"), [1, 2], 1),
            ],
        ),
        put(1, [samples::hub("a")]),
        put(2, [samples::registration("dev-1", Some("a")), samples::registration("dev-2", None)]),
        put(3, lines),
        put(4, [samples::audit("linked", Some("dev-1"))]),
        put(5, [Past { moves: vec![Order(1), Order(9)], late: vec![Order(9)] }]),
        // What came later stands at the end: kept inputs are named by their place.
        put(3, later_lines().into_iter().map(as_line)),
    ]
    .concat()
}

/// Intents of every shape of a plan, and the lines of what goes past a hub and of what a person resolves.
fn later_lines() -> Vec<JournalRecord> {
    let (id, hub) = (samples::reg_id("dev-1"), samples::hub_id("a"));
    let state = || Box::new(samples::device_state());
    let known = || KnownState { state: state(), seen_at: samples::NOW };
    let retried = |effect, as_effect| JournalRecord::Retried {
        effect,
        hub: hub.clone(),
        as_effect,
        by: "olga".to_owned(),
        why: "it has room again".to_owned(),
    };
    let abandoned = |unheard| JournalRecord::Abandoned {
        effect: Effect::Collect,
        hub: hub.clone(),
        by: "olga".to_owned(),
        why: "it burnt down".to_owned(),
        unheard,
    };
    let mut lines = vec![
        JournalRecord::Bypassed { cause: Bypass::Away, known: Some(known()), carry: Carry::State },
        JournalRecord::Bypassed { cause: Bypass::Missing, known: None, carry: Carry::Initial },
        JournalRecord::Regained { state: state(), clear: true },
        retried(Effect::Delete, Effect::Delete),
        retried(Effect::Activate, Effect::Unseal),
        abandoned(false),
        abandoned(true),
    ];
    let intent = |plan| Intent { planted: Some(state()), ..samples::intent(&id, plan) };
    lines.extend(shapes().into_iter().map(|plan| JournalRecord::Intent(Box::new(intent(plan)))));
    let blob = vec![9; 40].into();
    let tpm = Some(TpmDelivery { ek: EkHash([7; 32]), srk: Some(samples::tpm_name(1)), blob });
    lines.push(JournalRecord::Intent(Box::new(Intent { tpm, ..intent(samples::assign_to("a")) })));
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::form::JournalRecord as Form;
    use super::*;

    /// The place of a form of line among all. A new one does not compile before it has one.
    fn place(form: &Form) -> usize {
        match form {
            Form::Intent(_) => 0,
            Form::StepDone { .. } => 1,
            Form::Pivoted { .. } => 2,
            Form::Aborted { .. } => 3,
            Form::Collected { .. } => 4,
            Form::Settled { .. } => 5,
            Form::Stuck { .. } => 6,
            Form::Dropped { .. } => 7,
            Form::TpmIntent { .. } => 8,
            Form::Bypassed { .. } => 9,
            Form::Regained { .. } => 10,
            Form::Retried { .. } => 11,
            Form::Abandoned { .. } => 12,
            Form::AbandonedUnheard { .. } => 13,
        }
    }

    /// Kept inputs are made from these, so that no later build can forget one.
    #[test]
    fn the_samples_have_every_form_of_a_journal_line() {
        let lines = record_samples().into_iter().filter(|(kind, _)| *kind == 3);
        let lines = lines.map(|(_, bytes)| JournalLine::decode(&bytes).unwrap().record);
        let places: BTreeSet<usize> = lines.map(|record| place(&(&record).into())).collect();
        assert_eq!(places, (0..14).collect());
    }
}
