//! Spans of time as people write them: `30s`, `250ms`, `1h 30m`.

use std::time::Duration;

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads one or more numbers with units, largest unit first; `None` for anything else.
pub(super) fn read_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    let mut unit_min = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let position = UNITS.iter().position(|(name, _)| *name == unit)?;
        if position < unit_min {
            return None;
        }
        unit_min = position + 1;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(UNITS[position].1)?)?;
        rest = after.trim_start();
    }
    (unit_min > 0).then(|| Duration::from_millis(millis))
}

/// The shortest text that reads back as the span, to the millisecond.
pub(super) fn span_text(span: Duration) -> String {
    let mut millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut parts = Vec::new();
    for (name, size) in UNITS {
        if millis >= *size {
            parts.push(format!("{}{name}", millis / size));
            millis %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_write_them() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("250ms", Some(250)),
            ("5m", Some(300_000)),
            ("1h 30m", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("0s", Some(0)),
            (" 10s ", Some(10_000)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("30 s", None),
            ("30m 1h", None),
            ("1s 1s", None),
            ("10 minutes", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("5µs", None),
        ] {
            assert_eq!(read_span(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn a_written_span_reads_back() {
        for millis in [0, 1, 999, 1_000, 61_001, 5_400_000, 604_800_000] {
            let span = Duration::from_millis(millis);
            assert_eq!(read_span(&span_text(span)), Some(span), "{}", span_text(span));
        }
    }
}
