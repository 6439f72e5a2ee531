//! What listings share: page tokens, and which rows a filter admits.
//!
//! A token is a position, and a digest that binds it to one listing and filter. The digest is a check against mixing
//! tokens up, not a secret: whoever makes one by hand only chooses where in a listing that they may read they begin.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::BASE64URL_NOPAD;

use super::open_move::OpenMove;
use super::{
    AuditFilter, DeviceFile, EnrollmentListing, Page, PageRequest, RegistrationFilter, StatusFilter, StoreFault,
};
use crate::domain::{
    AuditEntry, EnrollmentId, GroupId, OperationStatus, Order, RegistrationId, ReprovisionPolicy, limits,
};
use crate::moves::{Intent, JournalRecord};

const DIGEST_BYTES: usize = 16;
/// A position is at most a registration id; base64 and the digest stay well below.
const TOKEN_CHARS_MAX: usize = 256;

/// One listing with its filter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listing<'a> {
    Enrollments(EnrollmentListing),
    Registrations(&'a RegistrationFilter),
    Audit(&'a AuditFilter),
}

impl Listing<'_> {
    /// The position that a request continues after; `None` for the first page.
    pub fn position(self, page: &PageRequest) -> Result<Option<Vec<u8>>, StoreFault> {
        let Some(token) = &page.token else { return Ok(None) };
        if token.len() > TOKEN_CHARS_MAX {
            return Err(StoreFault::PageToken);
        }
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| StoreFault::PageToken)?;
        match bytes.split_at_checked(DIGEST_BYTES) {
            Some((digest, position)) if digest == self.digest(position) => Ok(Some(position.to_vec())),
            Some(_) | None => Err(StoreFault::PageToken),
        }
    }

    /// The page of `rows`, of which at most one more than fit were gathered; `position` is where a row stands.
    pub fn page<T>(self, mut rows: Vec<T>, size: usize, position: impl Fn(&T) -> Vec<u8>) -> Page<T> {
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|last| self.token(&position(last)));
        Page { rows, next }
    }

    fn token(self, position: &[u8]) -> String {
        let mut bytes = self.digest(position).to_vec();
        bytes.extend_from_slice(position);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// A digest of listing, filter and position. Every field has a tag and ends where its length says, so that no two
    /// filters look the same.
    fn digest(self, position: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut text = Vec::new();
        let mut field = |tag: u8, bytes: &[u8]| {
            text.push(tag);
            text.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            text.extend_from_slice(bytes);
        };
        match self {
            Listing::Enrollments(EnrollmentListing::Individuals) => field(b'e', b"individuals"),
            Listing::Enrollments(EnrollmentListing::Groups) => field(b'e', b"groups"),
            Listing::Registrations(RegistrationFilter { hub, group, status, policy, pinned }) => {
                field(b'r', b"");
                hub.iter().for_each(|hub| field(b'h', hub.as_str().as_bytes()));
                group.iter().for_each(|group| field(b'g', group.folded().as_bytes()));
                status.iter().for_each(|status| field(b's', status_word(*status).as_bytes()));
                policy.iter().for_each(|policy| field(b'p', policy_word(*policy).as_bytes()));
                pinned.iter().for_each(|pinned| field(b'n', &[u8::from(*pinned)]));
            }
            Listing::Audit(AuditFilter { action, registration }) => {
                field(b'a', b"");
                action.iter().for_each(|action| field(b'c', action.as_str().as_bytes()));
                registration.iter().for_each(|id| field(b'i', id.folded().as_bytes()));
            }
        }
        field(b'.', position);
        let mut context = Context::new(&SHA256);
        context.update(b"rehome page token 1");
        context.update(&text);
        let mut digest = [0; DIGEST_BYTES];
        let full = context.finish();
        digest.iter_mut().zip(full.as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }
}

fn status_word(status: StatusFilter) -> &'static str {
    match status {
        StatusFilter::Assigning => "assigning",
        StatusFilter::Assigned => "assigned",
        StatusFilter::Failed => "failed",
        StatusFilter::Disabled => "disabled",
    }
}

fn policy_word(policy: Option<ReprovisionPolicy>) -> &'static str {
    policy.map_or("sticky", ReprovisionPolicy::as_str)
}

/// How many rows a request asks for, within the bounds.
pub(super) fn page_size(page: &PageRequest) -> usize {
    page.size.clamp(1, limits::PAGE_SIZE_MAX) as usize
}

/// The folded id that a position in a listing by id holds.
pub(super) fn id_position(bytes: Vec<u8>) -> Result<String, StoreFault> {
    String::from_utf8(bytes).map_err(|_| StoreFault::PageToken)
}

/// The key that a position in the audit listing holds.
pub(super) fn audit_position(bytes: &[u8]) -> Result<(Order, u32), StoreFault> {
    let (order, place) = bytes.split_at_checked(8).ok_or(StoreFault::PageToken)?;
    match (order.try_into(), place.try_into()) {
        (Ok(order), Ok(place)) => Ok((Order(u64::from_be_bytes(order)), u32::from_be_bytes(place))),
        (Err(_), _) | (_, Err(_)) => Err(StoreFault::PageToken),
    }
}

pub(super) fn audit_position_bytes(order: Order, place: u32) -> Vec<u8> {
    [order.0.to_be_bytes().as_slice(), &place.to_be_bytes()].concat()
}

/// The device a file is about; `None` when the file is empty.
pub(super) fn file_id(file: &DeviceFile) -> Option<&RegistrationId> {
    let of_moves = || file.open.first().map(|log| &log.registration);
    file.registration.as_ref().map(|registration| &registration.id).or_else(of_moves)
}

/// The status a device is listed under; `None` when it is not listed: there is no record, and no operation under way.
/// As [`crate::moves::Standing`] tells it to people.
fn status_of(file: &DeviceFile) -> Option<StatusFilter> {
    if running(file).is_some() {
        return Some(StatusFilter::Assigning);
    }
    let registration = file.registration.as_ref()?;
    let refused = file.open.last().and_then(OpenMove::of).is_some_and(|newest| newest.is_refused());
    Some(if refused { StatusFilter::Failed } else { recorded_status(&registration.operation.status) })
}

/// The intent of the newest move that is under way.
fn running(file: &DeviceFile) -> Option<&Intent> {
    let log = file.open.iter().rev().find(|log| OpenMove::of(log).is_some_and(|open| open.is_under_way()))?;
    match &log.lines.first()?.record {
        JournalRecord::Intent(intent) => Some(intent),
        JournalRecord::StepDone { .. }
        | JournalRecord::Pivoted { .. }
        | JournalRecord::Aborted { .. }
        | JournalRecord::Collected { .. }
        | JournalRecord::Settled { .. }
        | JournalRecord::Stuck { .. }
        | JournalRecord::Dropped { .. }
        | JournalRecord::Bypassed { .. }
        | JournalRecord::Regained { .. }
        | JournalRecord::Retried { .. }
        | JournalRecord::Abandoned { .. } => None,
    }
}

/// The status of a record on its own.
pub(super) fn recorded_status(status: &OperationStatus) -> StatusFilter {
    match status {
        OperationStatus::Assigning => StatusFilter::Assigning,
        OperationStatus::Assigned { .. } => StatusFilter::Assigned,
        OperationStatus::Failed { .. } => StatusFilter::Failed,
        OperationStatus::Disabled => StatusFilter::Disabled,
    }
}

/// Whether a device belongs to a listing. One without a record (its first assignment is under way) lives at no hub and has
/// no pin; its group is that of the intent. The policy is that of the operation under way, where there is one.
pub(super) fn admits(filter: &RegistrationFilter, file: &DeviceFile) -> bool {
    let Some(status) = status_of(file) else { return false };
    let (record, intent) = (file.registration.as_ref(), running(file));
    let hub = record.and_then(|record| record.assignment.as_ref()).map(|assignment| &assignment.hub);
    let enrollment = record.map(|record| &record.enrollment).or(intent.map(|intent| &intent.enrollment));
    let policy = intent.map(|intent| intent.policy).or(record.map(|record| record.policy)).flatten();
    let pinned = record.is_some_and(|record| record.pin.is_some());
    let in_group = |group: &GroupId| match enrollment {
        Some(EnrollmentId::Group(of)) => of == group,
        Some(EnrollmentId::Individual(_)) | None => false,
    };
    filter.hub.as_ref().is_none_or(|wanted| hub == Some(wanted))
        && filter.group.as_ref().is_none_or(in_group)
        && filter.status.is_none_or(|wanted| wanted == status)
        && filter.policy.is_none_or(|wanted| wanted == policy)
        && filter.pinned.is_none_or(|wanted| wanted == pinned)
}

/// Whether an audit entry belongs to a listing.
pub(super) fn admits_audit(filter: &AuditFilter, entry: &AuditEntry) -> bool {
    filter.action.is_none_or(|action| action == entry.action)
        && filter.registration.as_ref().is_none_or(|id| entry.registration.as_ref() == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_listing_and_filter_only() {
        let plain = RegistrationFilter::default();
        let by_group = RegistrationFilter { group: GroupId::parse("Site-A").ok(), ..plain.clone() };
        let same_group = RegistrationFilter { group: GroupId::parse("site-a").ok(), ..plain.clone() };
        let sticky = RegistrationFilter { policy: Some(None), ..plain.clone() };
        let audit = AuditFilter::default();
        let token = Listing::Registrations(&by_group).token(b"dev-1");
        let mut flipped = token.clone().into_bytes();
        flipped[25] = if flipped[25] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(flipped).unwrap();
        for (listing, token, good) in [
            (Listing::Registrations(&by_group), token.as_str(), true),
            (Listing::Registrations(&same_group), token.as_str(), true),
            (Listing::Registrations(&plain), token.as_str(), false),
            (Listing::Registrations(&sticky), token.as_str(), false),
            (Listing::Audit(&audit), token.as_str(), false),
            (Listing::Enrollments(EnrollmentListing::Groups), token.as_str(), false),
            (Listing::Registrations(&by_group), flipped.as_str(), false),
            (Listing::Registrations(&by_group), &token[..token.len() - 2], false),
            (Listing::Registrations(&by_group), "", false),
            (Listing::Registrations(&by_group), "not base64!", false),
            (Listing::Registrations(&by_group), &"A".repeat(100_000), false),
        ] {
            let request = PageRequest { size: 1, token: Some(token.to_owned()) };
            let expected = if good { Ok(Some(b"dev-1".to_vec())) } else { Err(StoreFault::PageToken) };
            assert_eq!(listing.position(&request), expected, "{listing:?} {token:.60}");
        }
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    }
}
