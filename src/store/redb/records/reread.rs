//! A door for tests from outside: any bytes as a record of any kind, read, written and read again.

use super::Stored;
use crate::domain::{AuditEntry, Enrollment, EnrollmentId, Hub, Order, Past, Registration};
use crate::moves::{Effect, JournalLine, JournalRecord};
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
    let lines = lines.map(|record| JournalLine { order: Order(7), at: samples::NOW, record });
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
    ]
    .concat()
}
