//! Single fields: ids, times, spans, places, pages.

use std::time::Duration;

use crate::domain::{EnrollmentId, Geo, GroupId, IdFault, RegistrationId, Timestamp, Version, limits};
use crate::wire::WireFault;
use crate::wire::admin::v1::{EnrollmentRef, enrollment_ref};
use crate::wire::device::v1::GeoPoint;

/// 0001-01-01 and 9999-12-31, which bound `google.protobuf.Timestamp`.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;
/// Some 10,000 years, which bound `google.protobuf.Duration`.
const SPAN_SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// A page token of ours is far shorter; a longer text is somebody else's.
const PAGE_TOKEN_CHARS_MAX: usize = 1024;

/// A required text with a form of its own.
pub fn id<T>(field: &'static str, text: &str, parse: impl Fn(&str) -> Result<T, IdFault>) -> Result<T, WireFault> {
    parse(text).map_err(|fault| WireFault::new(field, fault))
}

/// As [`id`]; empty is none.
pub fn optional_id<T>(
    field: &'static str,
    text: &str,
    parse: impl Fn(&str) -> Result<T, IdFault>,
) -> Result<Option<T>, WireFault> {
    if text.is_empty() { Ok(None) } else { id(field, text, parse).map(Some) }
}

/// A message that must be there.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireFault> {
    value.ok_or_else(|| WireFault::new(field, "is missing"))
}

/// An etag that must be there.
pub fn etag(field: &'static str, text: &str) -> Result<Version, WireFault> {
    if text.is_empty() {
        return Err(WireFault::new(field, "is missing: send the one that was read"));
    }
    Version::from_etag(text).ok_or_else(|| WireFault::new(field, "is not an etag of this service"))
}

/// An etag; empty is no precondition.
pub fn optional_etag(field: &'static str, text: &str) -> Result<Option<Version>, WireFault> {
    if text.is_empty() { Ok(None) } else { etag(field, text).map(Some) }
}

/// Free text of at most `chars_max` characters, none of them a control character.
pub fn free_text(field: &'static str, text: &str, chars_max: usize) -> Result<String, WireFault> {
    let length = text.chars().count();
    if length > chars_max {
        return Err(WireFault::new(field, format!("has {length} characters, the most is {chars_max}")));
    }
    if text.chars().any(char::is_control) {
        return Err(WireFault::new(field, "holds a control character"));
    }
    Ok(text.to_owned())
}

/// A point in time, cut to milliseconds.
pub fn time(field: &'static str, time: &prost_types::Timestamp) -> Result<Timestamp, WireFault> {
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&time.seconds) || !(0..NANOS_PER_SECOND).contains(&time.nanos) {
        return Err(WireFault::new(field, "is not a time between the years 1 and 9999"));
    }
    Ok(Timestamp(time.seconds * 1000 + i64::from(time.nanos / 1_000_000)))
}

pub fn optional_time(
    field: &'static str,
    value: Option<&prost_types::Timestamp>,
) -> Result<Option<Timestamp>, WireFault> {
    value.map(|value| time(field, value)).transpose()
}

/// A time that an answer always has.
pub fn required_time(field: &'static str, value: Option<&prost_types::Timestamp>) -> Result<Timestamp, WireFault> {
    time(field, required(field, value)?)
}

pub fn wire_time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: time.as_secs(), nanos }
}

/// A span that is not negative.
pub fn span(field: &'static str, span: &prost_types::Duration) -> Result<Duration, WireFault> {
    let fits = (0..=SPAN_SECONDS_MAX).contains(&span.seconds) && (0..NANOS_PER_SECOND).contains(&span.nanos);
    match (u64::try_from(span.seconds), u32::try_from(span.nanos)) {
        (Ok(seconds), Ok(nanos)) if fits => Ok(Duration::new(seconds, nanos)),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(WireFault::new(field, "is not a span of zero or more")),
    }
}

/// A span; one that is longer than the format holds becomes the longest.
pub fn wire_span(span: Duration) -> prost_types::Duration {
    match i64::try_from(span.as_secs()) {
        Ok(seconds) if seconds < SPAN_SECONDS_MAX => {
            prost_types::Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
        }
        Ok(_) | Err(_) => prost_types::Duration { seconds: SPAN_SECONDS_MAX, nanos: 0 },
    }
}

pub fn place(field: &'static str, point: Option<&GeoPoint>) -> Result<Option<Geo>, WireFault> {
    let Some(point) = point else { return Ok(None) };
    Geo::new(point.latitude, point.longitude)
        .map(Some)
        .ok_or_else(|| WireFault::new(field, "is not a latitude of -90 to 90 and a longitude of -180 to 180"))
}

pub fn wire_place(place: Geo) -> GeoPoint {
    GeoPoint { latitude: place.latitude, longitude: place.longitude }
}

/// Which page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to [`limits::PAGE_SIZE_MAX`].
    pub size: u32,
    pub token: Option<String>,
}

pub fn page(size: u32, token: &str) -> Result<PageQuery, WireFault> {
    let size = match size {
        0 => limits::PAGE_SIZE_DEFAULT,
        size if size <= limits::PAGE_SIZE_MAX => size,
        _ => return Err(WireFault::new("page_size", format!("is more than {}", limits::PAGE_SIZE_MAX))),
    };
    if token.chars().count() > PAGE_TOKEN_CHARS_MAX {
        return Err(WireFault::new("page_token", "is not a page token of this service"));
    }
    Ok(PageQuery { size, token: (!token.is_empty()).then(|| token.to_owned()) })
}

pub fn enrollment_id(field: &'static str, value: Option<&EnrollmentRef>) -> Result<EnrollmentId, WireFault> {
    match value.and_then(|reference| reference.id.as_ref()) {
        Some(enrollment_ref::Id::RegistrationId(text)) => {
            id(field, text, RegistrationId::parse).map(EnrollmentId::Individual)
        }
        Some(enrollment_ref::Id::GroupId(text)) => id(field, text, GroupId::parse).map(EnrollmentId::Group),
        None => Err(WireFault::new(field, "is missing")),
    }
}

impl From<&EnrollmentId> for EnrollmentRef {
    fn from(id: &EnrollmentId) -> Self {
        let id = match id {
            EnrollmentId::Individual(id) => enrollment_ref::Id::RegistrationId(id.as_str().to_owned()),
            EnrollmentId::Group(id) => enrollment_ref::Id::GroupId(id.as_str().to_owned()),
        };
        Self { id: Some(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded_and_cut_to_milliseconds() {
        for (seconds, nanos, expected) in [
            (0, 0, Some(0)),
            (1, 999_999_999, Some(1_999)),
            (-1, 1_000_000, Some(-999)),
            (SECONDS_MAX, 0, Some(SECONDS_MAX * 1000)),
            (SECONDS_MAX + 1, 0, None),
            (SECONDS_MIN - 1, 0, None),
            (i64::MAX, 0, None),
            (i64::MIN, 0, None),
            (0, -1, None),
            (0, 1_000_000_000, None),
        ] {
            let read = time("at", &prost_types::Timestamp { seconds, nanos });
            assert_eq!(read.clone().ok(), expected.map(Timestamp), "{seconds} {nanos}");
            if let Ok(read) = read {
                assert_eq!(time("at", &wire_time(read)), Ok(read));
            }
        }
        let far = wire_time(Timestamp(i64::MIN));
        assert!((0..NANOS_PER_SECOND).contains(&far.nanos));
    }

    #[test]
    fn spans_are_bounded() {
        for (seconds, nanos, fits) in [
            (0, 0, true),
            (5, 500_000_000, true),
            (SPAN_SECONDS_MAX, 0, true),
            (SPAN_SECONDS_MAX + 1, 0, false),
            (-1, 0, false),
            (0, -1, false),
            (1, i32::MAX, false),
            (i64::MAX, 0, false),
        ] {
            assert_eq!(span("for", &prost_types::Duration { seconds, nanos }).is_ok(), fits, "{seconds} {nanos}");
        }
        assert_eq!(wire_span(Duration::MAX).seconds, SPAN_SECONDS_MAX);
        let exact = Duration::new(5, 7);
        assert_eq!(span("for", &wire_span(exact)), Ok(exact));
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(page(0, ""), Ok(PageQuery { size: limits::PAGE_SIZE_DEFAULT, token: None }));
        assert_eq!(page(1000, "x"), Ok(PageQuery { size: 1000, token: Some("x".to_owned()) }));
        assert_eq!(page(1001, "").map_err(|fault| fault.field), Err("page_size"));
        assert_eq!(page(1, &"x".repeat(1025)).map_err(|fault| fault.field), Err("page_token"));
    }

    #[test]
    fn etags_and_texts() {
        assert_eq!(etag("etag", "v7"), Ok(Version(7)));
        assert_eq!(optional_etag("etag", ""), Ok(None));
        for text in ["", "7", "v07", "*"] {
            assert!(etag("etag", text).is_err(), "{text}");
        }
        assert!(optional_etag("etag", "W/x").is_err());
        assert!(free_text("reason", &"ä".repeat(128), 128).is_ok());
        assert!(free_text("reason", &"ä".repeat(129), 128).is_err());
        assert!(free_text("reason", "a\nb", 128).is_err());
    }

    #[test]
    fn places_are_on_earth() {
        for (latitude, longitude, fits) in
            [(52.5, 13.4, true), (91.0, 0.0, false), (0.0, 181.0, false), (f64::NAN, 0.0, false)]
        {
            let read = place("location", Some(&GeoPoint { latitude, longitude }));
            assert_eq!(read.is_ok(), fits, "{latitude} {longitude}");
        }
        assert_eq!(place("location", None), Ok(None));
    }

    #[test]
    fn enrollment_references_come_back() {
        for id in [
            EnrollmentId::Individual(RegistrationId::parse("Dev-1").unwrap()),
            EnrollmentId::Group(GroupId::parse("g").unwrap()),
        ] {
            assert_eq!(enrollment_id("enrollment", Some(&EnrollmentRef::from(&id))), Ok(id));
        }
        let bad = EnrollmentRef { id: Some(enrollment_ref::Id::GroupId("a b".to_owned())) };
        assert!(enrollment_id("enrollment", Some(&bad)).is_err());
        assert!(enrollment_id("enrollment", Some(&EnrollmentRef { id: None })).is_err());
        assert!(enrollment_id("enrollment", None).is_err());
    }
}
