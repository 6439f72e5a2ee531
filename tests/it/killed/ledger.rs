//! What was acknowledged, and whether it can be found.

use rehome::domain::Document;
use serde_json::Value;

/// Each key of a twin is written over and over, so that a twin stays small however long the test runs.
const KEYS: u64 = 16;

/// A write that was acknowledged.
#[derive(Debug)]
pub struct Written {
    value: u64,
    /// Of what was written to, as the answer says.
    version: u64,
}

/// One side's writes. Each overwrites the one before under its key, and has a higher value.
#[derive(Debug, Default)]
pub struct Ledger {
    tried: u64,
    pub acknowledged: Vec<Written>,
}

/// A part of a twin as it was at some time.
#[derive(Debug)]
pub struct Held {
    pub version: u64,
    pub document: Document,
}

/// Versions that a hub gave out after the state which it was put back to, and before it was: their writes may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub after: u64,
    pub up_to: u64,
}

/// What became of the writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub in_history: u64,
    pub lost: u64,
}

impl Ledger {
    /// The next write: it overwrites one key.
    pub fn draw(&mut self) -> (String, u64) {
        self.tried += 1;
        (key_of(self.tried), self.tried)
    }

    pub fn acknowledge(&mut self, value: u64, version: u64) {
        self.acknowledged.push(Written { value, version });
    }

    /// Finds every write in `held`, the states of all times, but for those that a hub which was put back has lost.
    #[track_caller]
    pub fn check(&self, whose: &str, held: &mut [Held], gaps: &[Gap]) -> Found {
        held.sort_by_key(|held| held.version);
        let last = held.len().saturating_sub(1);
        let mut all = Found::default();
        for written in &self.acknowledged {
            let Written { value, version } = *written;
            if gaps.iter().any(|gap| version > gap.after && version <= gap.up_to) {
                all.lost += 1;
                continue;
            }
            let place = held.partition_point(|held| held.version < version);
            let state = held.get(place).unwrap_or_else(|| panic!("{whose}: nothing is as new as {written:?}"));
            let key = key_of(value);
            let found = state.document.0.get(&key).and_then(Value::as_u64);
            // Or one that overwrote it since, acknowledged or not.
            let fits = found.is_some_and(|found| found >= value && found <= self.tried && key_of(found) == key);
            assert!(fits, "{whose}, {key}: found {found:?} at version {}, and {written:?}", state.version);
            all.in_history += u64::from(place < last);
        }
        all
    }
}

fn key_of(value: u64) -> String {
    format!("k{}", value % KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::document;

    #[test]
    fn the_ledger_notices_what_was_lost() {
        let mut ledger = Ledger::default();
        let (key, first) = ledger.draw();
        ledger.acknowledge(first, 2);
        for _ in 1..KEYS {
            ledger.draw();
        }
        let (again, second) = ledger.draw();
        assert_eq!(again, key);
        let held = |states: &[(u64, Option<u64>)]| {
            let state = |(version, value): &(u64, Option<u64>)| {
                let text = value.map_or("{}".to_owned(), |value| format!(r#"{{"{key}":{value}}}"#));
                Held { version: *version, document: document(&text) }
            };
            states.iter().map(state).collect::<Vec<_>>()
        };
        let fits = |ledger: &Ledger, states: &[(u64, Option<u64>)]| {
            std::panic::catch_unwind(|| ledger.check("x", &mut held(states), &[]).in_history).ok()
        };
        // The second write may have happened or not; the first must not be gone.
        let before = [Some(first), Some(second), None, Some(second + 1)].map(|value| fits(&ledger, &[(3, value)]));
        assert_eq!(before, [Some(0), Some(0), None, None], "at the hub");
        ledger.acknowledge(second, 3);
        let after = [Some(first), Some(second), None].map(|value| fits(&ledger, &[(3, value)]));
        assert_eq!(after, [None, Some(0), None]);
        // A reset after the first write leaves it to the history, and nowhere else.
        assert_eq!(fits(&ledger, &[(2, Some(first)), (9, None)]), None);
        assert_eq!(fits(&ledger, &[(2, Some(first)), (3, Some(second)), (9, None)]), Some(2));
        assert_eq!(fits(&ledger, &[(2, None), (9, Some(second))]), None);
        assert_eq!(fits(&ledger, &[(2, Some(first))]), None, "nothing is as new as the second");
        // A hub that was put back has lost what came after, and nothing else.
        let put_back = |after| {
            let gap = Gap { after, up_to: 3 };
            let found = || ledger.check("x", &mut held(&[(2 + (1 << 20), Some(first))]), &[gap]);
            std::panic::catch_unwind(found).ok()
        };
        assert_eq!([put_back(2), put_back(3)], [Some(Found { in_history: 0, lost: 1 }), None]);
    }
}
