//! The tables of the file, their keys, and which index rows belong to a record.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | name | number, big-endian |
//! | `enrollments` | kind, folded id | record |
//! | `certificates` | thumbprint of a certificate, hash of an endorsement key or fingerprint of a group's key | key of its enrollment |
//! | `subjects` | subject, key of a group | – |
//! | `key_groups` | key of a group whose devices' keys are made of its | – |
//! | `hubs` | id | record |
//! | `registrations` | folded id | record |
//! | `registrations_by_hub` | hub, 0, folded id | – |
//! | `registrations_by_group` | folded group, 0, folded id | – |
//! | `registrations_by_status` | status, folded id | – |
//! | `device_ids` | device id | folded id |
//! | `earlier` | folded id | generations |
//! | `last_known` | folded id | the newest state seen at its home |
//! | `feeds` | hub | how far its change feed was read |
//! | `journal` | generation, order | line |
//! | `open_moves` | generation | – |
//! | `audit` | order, place | entry |
//! | `tracking` | tracking id | key of the entry |
//!
//! Numbers in keys are big-endian, so that bytes sort as numbers do. Journal, open moves and audit grow at their end: their
//! rows share pages. The others have a row at a random place for each record, and index rows change only when what they
//! index does.

use std::cell::OnceCell;
use std::ops::Bound;

use redb::{ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction};

use super::records::{RecordFault, Stored};
use crate::domain::{Attestation, DeviceId, Enrollment, EnrollmentId, GroupId, HubId, Order, Registration, TrackingId};
use crate::store::{StatusFilter, StoreFault, listing};

/// Every table holds bytes under bytes.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Meta,
    Enrollments,
    Certificates,
    Subjects,
    Hubs,
    Registrations,
    ByHub,
    ByGroup,
    ByStatus,
    DeviceIds,
    Earlier,
    Journal,
    OpenMoves,
    Audit,
    Tracking,
    LastKnown,
    Feeds,
    KeyGroups,
}

impl Table {
    /// Every table, each at the place of its number.
    pub const ALL: [Table; 18] = [
        Table::Meta,
        Table::Enrollments,
        Table::Certificates,
        Table::Subjects,
        Table::Hubs,
        Table::Registrations,
        Table::ByHub,
        Table::ByGroup,
        Table::ByStatus,
        Table::DeviceIds,
        Table::Earlier,
        Table::Journal,
        Table::OpenMoves,
        Table::Audit,
        Table::Tracking,
        Table::LastKnown,
        Table::Feeds,
        Table::KeyGroups,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Enrollments => "enrollments",
            Table::Certificates => "certificates",
            Table::Subjects => "subjects",
            Table::Hubs => "hubs",
            Table::Registrations => "registrations",
            Table::ByHub => "registrations_by_hub",
            Table::ByGroup => "registrations_by_group",
            Table::ByStatus => "registrations_by_status",
            Table::DeviceIds => "device_ids",
            Table::Earlier => "earlier",
            Table::Journal => "journal",
            Table::OpenMoves => "open_moves",
            Table::Audit => "audit",
            Table::Tracking => "tracking",
            Table::LastKnown => "last_known",
            Table::Feeds => "feeds",
            Table::KeyGroups => "key_groups",
        }
    }

    pub fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}

/// The version of the layout above.
/// Format 1 had neither the states seen nor the feeds, format 2 no symmetric keys.
pub(super) const FORMAT: u64 = 3;
pub(super) const FORMAT_KEY: &[u8] = b"format";
/// The highest order that was given out.
pub(super) const LAST_ORDER_KEY: &[u8] = b"last_order";
/// Stands in copies: whoever opens one knows that the service's memory goes back in time.
pub(super) const COPY_KEY: &[u8] = b"copy";
/// Stands while the store is known to have gone back and nobody has gone through the hubs.
pub(super) const RESTORED_KEY: &[u8] = b"restored";

/// An index row: table, key and value.
pub(super) type IndexRow = (Table, Vec<u8>, Vec<u8>);

pub(super) fn enrollment_key(id: &EnrollmentId) -> Vec<u8> {
    match id {
        EnrollmentId::Individual(id) => [&[INDIVIDUALS], id.folded().as_bytes()].concat(),
        EnrollmentId::Group(id) => [&[GROUPS], id.folded().as_bytes()].concat(),
    }
}

/// The kinds of enrollment: the first byte of their keys.
pub(super) const INDIVIDUALS: u8 = 0;
pub(super) const GROUPS: u8 = 1;

pub(super) fn hub_key(id: &HubId) -> Vec<u8> {
    id.as_str().as_bytes().to_vec()
}

pub(super) fn device_key(id: &DeviceId) -> Vec<u8> {
    id.as_str().as_bytes().to_vec()
}

/// What the keys of a hub's registrations begin with. Hub ids hold no zero byte, nor do group ids.
pub(super) fn by_hub_prefix(hub: &HubId) -> Vec<u8> {
    [hub.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn by_group_prefix(group: &GroupId) -> Vec<u8> {
    [group.folded().as_bytes(), &[0]].concat()
}

pub(super) fn by_status_prefix(status: StatusFilter) -> Vec<u8> {
    let byte = match status {
        StatusFilter::Assigning => 0,
        StatusFilter::Assigned => 1,
        StatusFilter::Failed => 2,
        StatusFilter::Disabled => 3,
    };
    vec![byte]
}

pub(super) fn generation_key(generation: Order) -> Vec<u8> {
    generation.0.to_be_bytes().to_vec()
}

pub(super) fn journal_key(generation: Order, order: Order) -> Vec<u8> {
    [generation.0.to_be_bytes(), order.0.to_be_bytes()].concat()
}

pub(super) fn tracking_key(id: TrackingId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// The index rows of an enrollment.
pub(super) fn enrollment_rows(enrollment: &Enrollment) -> Vec<IndexRow> {
    let key = enrollment_key(&enrollment.id);
    let mut rows = Vec::new();
    for claim in enrollment.attestation.claims() {
        rows.push((Table::Certificates, claim.digest().to_vec(), key.clone()));
    }
    for certificate in enrollment.attestation.certificates() {
        match &enrollment.id {
            EnrollmentId::Individual(_) => {}
            EnrollmentId::Group(_) => {
                rows.push((Table::Subjects, [certificate.subject.0.as_slice(), &key].concat(), Vec::new()));
            }
        }
    }
    match &enrollment.attestation {
        Attestation::MasterKey(_) => rows.push((Table::KeyGroups, key, Vec::new())),
        Attestation::X509Leaf(_)
        | Attestation::X509Ca(_)
        | Attestation::Tpm(_)
        | Attestation::TpmFleet(_)
        | Attestation::SymmetricKey(_) => {}
    }
    rows.sort();
    rows.dedup();
    rows
}

/// The index rows of a registration.
pub(super) fn registration_rows(registration: &Registration) -> Vec<IndexRow> {
    let folded = registration.id.folded().into_bytes();
    let under = |table, prefix: Vec<u8>| (table, [prefix, folded.clone()].concat(), Vec::new());
    let status = listing::recorded_status(&registration.operation.status);
    let mut rows = vec![
        (Table::DeviceIds, device_key(&registration.device_id), folded.clone()),
        under(Table::ByStatus, by_status_prefix(status)),
    ];
    if let Some(assignment) = &registration.assignment {
        rows.push(under(Table::ByHub, by_hub_prefix(&assignment.hub)));
    }
    match &registration.enrollment {
        EnrollmentId::Individual(_) => {}
        EnrollmentId::Group(group) => rows.push(under(Table::ByGroup, by_group_prefix(group))),
    }
    rows
}

/// The bounds of all keys that begin with `prefix`, from after `prefix` + `after` on.
pub(super) fn prefix_bounds(prefix: &[u8], after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = match after {
        Some(after) => Bound::Excluded([prefix, after].concat()),
        None => Bound::Included(prefix.to_vec()),
    };
    // The first key after them: the prefix without its trailing 0xff bytes, the last byte one higher.
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    let end = kept.map_or(Bound::Unbounded, |last| {
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        Bound::Excluded(end)
    });
    (start, end)
}

/// Bounds as redb takes them.
pub(super) fn borrowed(bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice))
}

/// A table of a write transaction.
type BytesMut<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// The tables of a write transaction, each opened once for a group, when it is first asked for.
pub(super) struct OpenTables<'txn> {
    transaction: &'txn WriteTransaction,
    open: [OnceCell<BytesMut<'txn>>; Table::ALL.len()],
}

impl<'txn> OpenTables<'txn> {
    pub fn over(transaction: &'txn WriteTransaction) -> Self {
        Self { transaction, open: std::array::from_fn(|_| OnceCell::new()) }
    }

    pub fn of(&self, table: Table) -> Result<&BytesMut<'txn>, StoreFault> {
        // `ALL` has every table at the place of its number: a test holds it so.
        let place = &self.open[table as usize];
        if let Some(open) = place.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(table.definition()).map_err(table_fault)?;
        Ok(place.get_or_init(|| open))
    }

    pub fn of_mut(&mut self, table: Table) -> Result<&mut BytesMut<'txn>, StoreFault> {
        self.of(table)?;
        let missing = || StoreFault::Broken(format!("table {} is not open", table.name()));
        self.open[table as usize].get_mut().ok_or_else(missing)
    }
}

/// Something rows can be read from: a snapshot, or a transaction with a commit on top.
pub(super) trait Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault>;

    /// A record, if it is there.
    fn load<T: Stored>(&self, table: Table, key: &[u8]) -> Result<Option<T>, StoreFault> {
        self.get(table, key)?.map(|bytes| T::decode(&bytes)).transpose().map_err(StoreFault::from)
    }
}

impl Rows for OpenTables<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.of(table)?.get(key).map_err(storage_fault)?.map(|guard| guard.value().to_vec()))
    }
}

impl From<RecordFault> for StoreFault {
    fn from(fault: RecordFault) -> Self {
        StoreFault::Corrupt(fault.to_string())
    }
}

pub(super) fn storage_fault(fault: StorageError) -> StoreFault {
    match fault {
        StorageError::Corrupted(why) => StoreFault::Corrupt(why),
        // The enum is open-ended, and the others say the same to a caller: it did not work.
        other => StoreFault::Broken(other.to_string()),
    }
}

pub(super) fn table_fault(fault: TableError) -> StoreFault {
    match fault {
        TableError::Storage(fault) => storage_fault(fault),
        other => StoreFault::Broken(other.to_string()),
    }
}

/// A number of the `meta` table.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_at_the_place_of_their_number() {
        for (place, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, place);
        }
        let mut names = Table::ALL.map(Table::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        for (prefix, end) in [
            (vec![], Bound::Unbounded),
            (vec![1, 2], Bound::Excluded(vec![1, 3])),
            (vec![1, 0xff], Bound::Excluded(vec![2])),
            (vec![0xff, 0xff], Bound::Unbounded),
        ] {
            assert_eq!(prefix_bounds(&prefix, None), (Bound::Included(prefix.clone()), end), "{prefix:?}");
        }
        assert_eq!(prefix_bounds(&[1], Some(&[7])).0, Bound::Excluded(vec![1, 7]));
    }
}
