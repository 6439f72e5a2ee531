//! Points in time as existing SDKs read them.

use crate::domain::Timestamp;

/// ISO 8601 in UTC with seven decimals, as `2022-07-05T21:27:16.8120000Z` (reference/dps.md §1.6).
pub fn seven_digits(time: Timestamp) -> String {
    let text = time.to_string();
    match text.strip_suffix('Z') {
        Some(milliseconds) => format!("{milliseconds}0000Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seven_decimals() {
        assert_eq!(seven_digits(Timestamp(1_700_000_000_120)), "2023-11-14T22:13:20.1200000Z");
        assert_eq!(seven_digits(Timestamp(0)), "1970-01-01T00:00:00.0000000Z");
    }
}
