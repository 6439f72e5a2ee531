//! Texts: ids and other words, the configuration file, a webhook's answer, page tokens.

use std::fmt::Display;

use futures_util::FutureExt as _;
use rehome::allocators::{HubHost, read_answer};
use rehome::config::Config;
use rehome::domain::{
    DeviceId, GroupId, HubId, OperationId, RegistrationId, RequestId, RoleGrant, Timestamp, TrackingId, Version,
};
use rehome::store::{AuditFilter, EnrollmentListing, MemoryStore, PageRequest, RegistrationFilter, Store as _};

/// What was read is read again from its own text, as the same.
fn reads<T: Display + PartialEq + std::fmt::Debug, F: std::fmt::Debug>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, F>,
) -> bool {
    let Ok(value) = parse(text) else { return false };
    assert_eq!(parse(&value.to_string()).expect("its own text"), value);
    true
}

/// Every word that comes from outside.
pub fn words(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let version = Version::from_etag(text);
    if let Some(version) = version {
        assert_eq!(Version::from_etag(&version.etag()), Some(version));
    }
    [
        reads(text, RegistrationId::parse),
        reads(text, DeviceId::parse),
        reads(text, GroupId::parse),
        reads(text, HubId::parse),
        RequestId::parse(text).is_ok_and(|id| RequestId::parse(id.as_str()) == Ok(id)),
        reads(text, str::parse::<OperationId>),
        reads(text, str::parse::<TrackingId>),
        reads(text, str::parse::<RoleGrant>),
        reads(text, str::parse::<Timestamp>),
        version.is_some(),
    ]
    .contains(&true)
}

/// A configuration file.
pub fn configuration(input: &[u8]) -> bool {
    std::str::from_utf8(input).is_ok_and(|text| Config::of_text(text).is_ok())
}

/// A webhook's answer: the hub is one of those that were offered.
pub fn webhook_answer(input: &[u8]) -> bool {
    let offered =
        ["hub-a", "hub-b"].map(|id| HubHost { hub: HubId::parse(id).expect("an id"), host_name: format!("{id}.test") });
    read_answer(input, &offered).is_ok()
}

/// A page token that no service has given.
pub fn page_token(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let page = PageRequest { size: 10, token: Some(text.to_owned()) };
    let store = MemoryStore::new();
    let now = |outcome: Option<bool>| outcome.expect("a store in memory does not wait");
    let filter = RegistrationFilter::default();
    let audit = AuditFilter::default();
    [
        now(store.list_registrations(&filter, &page).now_or_never().map(|page| page.is_ok())),
        now(store.list_enrollments(EnrollmentListing::Groups, &page).now_or_never().map(|page| page.is_ok())),
        now(store.list_audit(&audit, &page).now_or_never().map(|page| page.is_ok())),
    ]
    .contains(&true)
}
