//! Reads: from the snapshot and the index that the last group left, which always belong together.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Bound, Deref};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::index::{Index, IndexChange};
use super::records::Stored;
use super::tables::{
    GROUPS, INDIVIDUALS, LAST_ORDER_KEY, Rows, Table, borrowed, by_group_prefix, by_hub_prefix, by_status_prefix,
    device_key, generation_key, number, prefix_bounds, storage_fault, table_fault, tracking_key,
};
use crate::domain::{
    AnchorRef, AuditEntry, Claim, DeviceId, Enrollment, EnrollmentId, Hub, HubId, Order, Registration, RegistrationId,
    StoredAudit, Thumbprint, TrackingId,
};
use crate::moves::{JournalLine, JournalRecord, MoveLog};
use crate::store::listing::{self, Listing};
use crate::store::open_move::OpenMove;
use crate::store::{
    AuditFilter, DeviceFile, EnrollmentListing, HubUse, Page, PageRequest, RegistrationFilter, StatusFilter, StoreFault,
};

/// What the writer publishes after every group.
pub(super) struct Live {
    pub snapshot: Arc<View>,
    pub index: Arc<Index>,
    pub last: Order,
}

impl Live {
    /// Reads the file as it is, and makes the index from it: every open move's journal, and one pass over the keys of the
    /// registrations by hub.
    pub fn of(database: &Database) -> Result<Self, StoreFault> {
        let snapshot = database.begin_read().map_err(|why| StoreFault::Broken(why.to_string()))?;
        let last = snapshot.get(Table::Meta, LAST_ORDER_KEY)?.as_deref().and_then(number);
        let last = Order(last.ok_or_else(|| StoreFault::Corrupt("the last order is missing".to_owned()))?);
        let mut index = Index::default();
        snapshot.scan(Table::OpenMoves, &[], None, |key, _| {
            let generation = number(key).map(Order).ok_or_else(|| corrupt("an open move has no generation"))?;
            let log = snapshot.move_log(generation)?;
            let open = log.as_ref().and_then(OpenMove::of);
            index.apply(IndexChange::Move(open.ok_or_else(|| corrupt(format!("move {generation} has no intent")))?));
            Ok(true)
        })?;
        // Keys of one hub stand together: its name is read once.
        let (mut prefix, mut homes) = (Vec::new(), 0);
        snapshot.scan(Table::ByHub, &[], None, |key, _| {
            if homes == 0 || !key.starts_with(&prefix) {
                index.settle(&prefix, homes)?;
                let end = key.iter().position(|byte| *byte == 0).ok_or_else(|| corrupt("a home names no hub"))?;
                (prefix, homes) = (key[..=end].to_vec(), 0);
            }
            homes += 1;
            Ok(true)
        })?;
        index.settle(&prefix, homes)?;
        Ok(Self { snapshot: Arc::new(View::new(snapshot, Arc::default())), index: Arc::new(index), last })
    }
}

pub(super) fn corrupt(why: impl Into<String>) -> StoreFault {
    StoreFault::Corrupt(why.into())
}

/// A table of a snapshot.
type Bytes = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The file as one group left it. Each table is opened once, when it is first asked for.
pub(super) struct View {
    transaction: ReadTransaction,
    tables: [OnceLock<Bytes>; Table::ALL.len()],
    groups: Arc<KnownGroups>,
}

/// What the groups of enrollments say, decoded once.
///
/// One of these belongs to the snapshots between two changes of any enrollment: the writer publishes the change's own
/// snapshot with a new, empty one ([`View::after`]). A reader takes both by one look and fills what belongs to its
/// snapshot, so that nothing in here is ever older or newer than the rows beside it.
#[derive(Default)]
pub(super) struct KnownGroups {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<Vec<u8>, Arc<Enrollment>>,
    /// The keys of the groups whose authority has a subject. Subjects that no group has are not kept: anybody can present
    /// more of them than there is memory.
    by_issuer: HashMap<Thumbprint, Arc<[Vec<u8>]>>,
}

/// Groups that are kept decoded, some 3 KiB each: more than an operator has by hand.
const KNOWN_GROUPS_MAX: usize = 1_024;

impl KnownGroups {
    fn read(&self) -> RwLockReadGuard<'_, Kept> {
        // Whoever holds it inserts and does nothing else.
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, keep: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.by_key.len().max(kept.by_issuer.len()) >= KNOWN_GROUPS_MAX {
            *kept = Kept::default();
        }
        keep(&mut kept);
    }
}

impl View {
    pub fn new(transaction: ReadTransaction, groups: Arc<KnownGroups>) -> Self {
        Self { transaction, tables: std::array::from_fn(|_| OnceLock::new()), groups }
    }

    /// The state after this one; `enrollments_changed` when they may say something else there.
    pub fn after(&self, transaction: ReadTransaction, enrollments_changed: bool) -> Self {
        Self::new(transaction, if enrollments_changed { Arc::default() } else { self.groups.clone() })
    }

    /// For reads of everything.
    pub fn transaction(&self) -> &ReadTransaction {
        &self.transaction
    }

    pub fn find_groups(&self, chain: &[AnchorRef]) -> Result<Vec<Arc<Enrollment>>, StoreFault> {
        let mut keys = BTreeSet::new();
        for link in chain {
            keys.extend(self.get(Table::Certificates, &link.thumbprint.0)?);
            keys.extend(self.groups_of(&link.issuer)?.iter().cloned());
        }
        let groups = keys.into_iter().filter(|key| key.first() == Some(&GROUPS));
        groups.map(|key| self.group(key)).collect()
    }

    /// The groups whose devices prove themselves by keys.
    pub fn key_groups(&self) -> Result<Vec<Arc<Enrollment>>, StoreFault> {
        let mut keys = Vec::new();
        self.scan(Table::KeyGroups, &[], None, |key, _| {
            keys.push(key.to_vec());
            Ok(true)
        })?;
        keys.into_iter().map(|key| self.group(key)).collect()
    }

    /// The keys of the groups that have an authority of this subject.
    fn groups_of(&self, issuer: &Thumbprint) -> Result<Arc<[Vec<u8>]>, StoreFault> {
        if let Some(found) = self.groups.read().by_issuer.get(issuer) {
            return Ok(found.clone());
        }
        let mut keys = Vec::new();
        self.scan(Table::Subjects, &issuer.0, None, |key, _| {
            keys.extend(key.get(issuer.0.len()..).map(<[u8]>::to_vec));
            Ok(true)
        })?;
        let found: Arc<[Vec<u8>]> = keys.into();
        if !found.is_empty() {
            self.groups.keep(|kept| drop(kept.by_issuer.insert(*issuer, found.clone())));
        }
        Ok(found)
    }

    fn group(&self, key: Vec<u8>) -> Result<Arc<Enrollment>, StoreFault> {
        if let Some(found) = self.groups.read().by_key.get(&key) {
            return Ok(found.clone());
        }
        let found: Option<Enrollment> = self.load(Table::Enrollments, &key)?;
        let found = Arc::new(found.ok_or_else(|| corrupt("a group is missing"))?);
        self.groups.keep(|kept| drop(kept.by_key.insert(key, found.clone())));
        Ok(found)
    }
}

impl Rows for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.opened(table)?.get(key).map_err(storage_fault)?.map(|guard| guard.value().to_vec()))
    }
}

impl Rows for ReadTransaction {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.opened(table)?.get(key).map_err(storage_fault)?.map(|guard| guard.value().to_vec()))
    }
}

/// The reads of a snapshot.
pub(super) trait Snapshot: Rows {
    fn opened(&self, table: Table) -> Result<impl Deref<Target = Bytes>, StoreFault>;

    /// Shows every row under a prefix, from after `prefix` + `after` on, until told to stop.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreFault>,
    ) -> Result<(), StoreFault> {
        let table = self.opened(table)?;
        let bounds = prefix_bounds(prefix, after);
        for row in table.range::<&[u8]>(borrowed(&bounds)).map_err(storage_fault)? {
            let (key, value) = row.map_err(storage_fault)?;
            if !visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }

    /// The lines of a move.
    fn move_log(&self, generation: Order) -> Result<Option<MoveLog>, StoreFault> {
        let mut lines: Vec<JournalLine> = Vec::new();
        self.scan(Table::Journal, &generation_key(generation), None, |_, value| {
            lines.push(JournalLine::decode(value)?);
            Ok(true)
        })?;
        match lines.first().map(|line| &line.record) {
            None => Ok(None),
            Some(JournalRecord::Intent(intent)) => {
                Ok(Some(MoveLog { generation, registration: intent.registration.clone(), lines }))
            }
            Some(
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
                | JournalRecord::Abandoned { .. },
            ) => Err(corrupt(format!("move {generation} does not begin with an intent"))),
        }
    }

    /// A device's file, when its open moves are known.
    fn device(&self, folded: &str, generations: &[Order]) -> Result<DeviceFile, StoreFault> {
        let log = |generation: &Order| {
            let found = self.move_log(*generation)?;
            found.ok_or_else(|| corrupt(format!("the open move {generation} has no lines")))
        };
        Ok(DeviceFile {
            registration: self.load(Table::Registrations, folded.as_bytes())?,
            open: generations.iter().map(log).collect::<Result<_, _>>()?,
            earlier: self.load(Table::Earlier, folded.as_bytes())?.unwrap_or_default(),
        })
    }

    fn find_claim(&self, claim: &Claim) -> Result<Option<EnrollmentId>, StoreFault> {
        let Some(key) = self.get(Table::Certificates, claim.digest())? else { return Ok(None) };
        let owner: Option<Enrollment> = self.load(Table::Enrollments, &key)?;
        owner.map(|owner| Some(owner.id)).ok_or_else(|| corrupt("a claim leads to no enrollment"))
    }

    fn find_owner(&self, device: &DeviceId) -> Result<Option<RegistrationId>, StoreFault> {
        let Some(folded) = self.get(Table::DeviceIds, &device_key(device))? else { return Ok(None) };
        let owner: Option<Registration> = self.load(Table::Registrations, &folded)?;
        owner.map(|owner| Some(owner.id)).ok_or_else(|| corrupt(format!("device id {device} leads to no registration")))
    }

    fn hubs(&self, index: &dyn Fn(&HubId) -> HubUse) -> Result<Vec<(Hub, HubUse)>, StoreFault> {
        let mut hubs = Vec::new();
        self.scan(Table::Hubs, &[], None, |_, value| {
            let hub = Hub::decode(value)?;
            let used = index(&hub.id);
            hubs.push((hub, used));
            Ok(true)
        })?;
        Ok(hubs)
    }

    fn find_audit(&self, tracking: TrackingId) -> Result<Option<StoredAudit>, StoreFault> {
        let Some(key) = self.get(Table::Tracking, &tracking_key(tracking))? else { return Ok(None) };
        let missing = || corrupt(format!("tracking id {tracking} leads to no entry"));
        let (order, place) = listing::audit_position(&key).map_err(|_| missing())?;
        let entry: AuditEntry = self.load(Table::Audit, &key)?.ok_or_else(missing)?;
        Ok(Some(StoredAudit { order, place, entry }))
    }

    fn list_enrollments(
        &self,
        which: EnrollmentListing,
        request: &PageRequest,
    ) -> Result<Page<Arc<Enrollment>>, StoreFault> {
        let listing = Listing::Enrollments(which);
        let after = listing.position(request)?;
        let size = listing::page_size(request);
        let prefix = match which {
            EnrollmentListing::Individuals => [INDIVIDUALS],
            EnrollmentListing::Groups => [GROUPS],
        };
        let mut rows = Vec::new();
        self.scan(Table::Enrollments, &prefix, after.as_deref(), |key, value| {
            rows.push((key.to_vec(), Arc::new(Enrollment::decode(value)?)));
            Ok(rows.len() <= size)
        })?;
        let page = listing.page(rows, size, |(key, _)| key.get(1..).unwrap_or_default().to_vec());
        Ok(Page { rows: page.rows.into_iter().map(|(_, enrollment)| enrollment).collect(), next: page.next })
    }

    fn list_audit(&self, filter: &AuditFilter, request: &PageRequest) -> Result<Page<StoredAudit>, StoreFault> {
        let listing = Listing::Audit(filter);
        let before = listing.position(request)?;
        let size = listing::page_size(request);
        let table = self.opened(Table::Audit)?;
        let bounds = (Bound::Unbounded, before.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut rows = Vec::new();
        for row in table.range::<&[u8]>(bounds).map_err(storage_fault)?.rev() {
            let (key, value) = row.map_err(storage_fault)?;
            let entry = AuditEntry::decode(value.value())?;
            if listing::admits_audit(filter, &entry) {
                let position = listing::audit_position(key.value());
                let (order, place) = position.map_err(|_| corrupt("an audit entry has a key of the wrong length"))?;
                rows.push(StoredAudit { order, place, entry });
            }
            if rows.len() > size {
                break;
            }
        }
        Ok(listing.page(rows, size, |row| listing::audit_position_bytes(row.order, row.place)))
    }
}

impl Snapshot for View {
    fn opened(&self, table: Table) -> Result<impl Deref<Target = Bytes>, StoreFault> {
        // `ALL` has every table at the place of its number: a test holds it so.
        let place = &self.tables[table as usize];
        if let Some(open) = place.get() {
            return Ok(open);
        }
        let open = self.transaction.open_table(table.definition()).map_err(table_fault)?;
        Ok(place.get_or_init(|| open))
    }
}

impl Snapshot for ReadTransaction {
    fn opened(&self, table: Table) -> Result<impl Deref<Target = Bytes>, StoreFault> {
        self.open_table(table.definition()).map(Box::new).map_err(table_fault)
    }
}

/// The candidates of a listing of registrations: ids under an index, and devices whose open moves say more than their
/// record, which may not be there yet. Each is looked at once, in order; the filter decides.
pub(super) struct RegistrationScan<'a> {
    pub filter: &'a RegistrationFilter,
    pub after: Option<String>,
    pub size: usize,
}

impl RegistrationScan<'_> {
    /// The narrowest index that the filter allows.
    fn source(&self) -> (Table, Vec<u8>) {
        let RegistrationFilter { hub, group, status, policy: _, pinned: _ } = self.filter;
        match (hub, group, status) {
            (Some(hub), _, _) => (Table::ByHub, by_hub_prefix(hub)),
            (None, Some(group), _) => (Table::ByGroup, by_group_prefix(group)),
            (None, None, Some(status)) => (Table::ByStatus, by_status_prefix(*status)),
            (None, None, None) => (Table::Registrations, Vec::new()),
        }
    }

    /// Whether a device that the source does not have may be admitted: not where only its record counts.
    pub fn looks_at_moves(&self) -> bool {
        let by_moves = match self.filter.status {
            None | Some(StatusFilter::Assigning | StatusFilter::Failed) => true,
            Some(StatusFilter::Assigned | StatusFilter::Disabled) => false,
        };
        by_moves && self.filter.hub.is_none()
    }

    pub fn page(
        self,
        snapshot: &impl Snapshot,
        unsettled: BTreeSet<String>,
        generations: &dyn Fn(&str) -> Vec<Order>,
    ) -> Result<Page<DeviceFile>, StoreFault> {
        let (table, prefix) = self.source();
        let mut rows = Vec::new();
        let mut look = |folded: &str| {
            let file = snapshot.device(folded, &generations(folded))?;
            if listing::admits(self.filter, &file) {
                rows.push((folded.to_owned(), file));
            }
            Ok::<_, StoreFault>(rows.len() <= self.size)
        };
        let mut waiting = unsettled.into_iter().peekable();
        let mut full = false;
        snapshot.scan(table, &prefix, self.after.as_deref().map(str::as_bytes), |key, _| {
            let folded = key.get(prefix.len()..).and_then(|folded| std::str::from_utf8(folded).ok());
            let folded = folded.ok_or_else(|| corrupt("a registration has no id"))?;
            while let Some(first) = waiting.next_if(|waiting| waiting.as_str() <= folded) {
                if first != folded && !look(&first)? {
                    full = true;
                    return Ok(false);
                }
            }
            full = !look(folded)?;
            Ok(!full)
        })?;
        while !full && let Some(first) = waiting.next() {
            full = !look(&first)?;
        }
        let page = Listing::Registrations(self.filter).page(rows, self.size, |(folded, _)| folded.clone().into_bytes());
        Ok(Page { rows: page.rows.into_iter().map(|(_, file)| file).collect(), next: page.next })
    }
}
