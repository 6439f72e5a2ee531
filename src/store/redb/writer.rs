//! The one writer: takes commits in groups, judges each against what those before it left, and makes the group durable
//! with one sync.
//!
//! A commit is judged and changed in a [`Draft`]; only one that holds as a whole reaches the transaction, so that one that
//! does not leaves no trace in the group. When the sync itself fails nobody knows what is in the file, and the index may
//! differ from it: the writer is *poisoned* and writes nothing more until the store is opened again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::oneshot;

use super::index::{Index, IndexChange};
use super::reader::Live;
use super::records::Stored;
use super::tables::{
    IndexRow, LAST_ORDER_KEY, OpenTables, RESTORED_KEY, Rows, Table, borrowed, enrollment_key, enrollment_rows,
    generation_key, hub_key, journal_key, prefix_bounds, registration_rows, storage_fault, tracking_key,
};
use super::{GroupEvent, GroupObserver};
use crate::ambient::FileSize;
use crate::domain::{
    AuditEntry, Claim, DeviceId, DeviceState, Enrollment, EnrollmentId, Hub, HubId, Order, Registration,
    RegistrationId, Timestamp, Version,
};
use crate::moves::{JournalLine, JournalRecord};
use crate::store::listing::audit_position_bytes;
use crate::store::open_move::OpenMove;
use crate::store::shape::{check_shape, expect_existing, is_newer, named, next_order, not_written, takes};
use crate::store::{Change, Commit, CommitFault, Expect, HubUse, LastKnown, StoreFault, Unexpected};

/// Entries that a commit removes beyond those it adds, when there are more than are kept: trimming is spread over commits.
const AUDIT_TRIM_EXTRA: u64 = 16;

/// Groups whose versions are kept: more than an operator has by hand.
const GROUP_VERSIONS_MAX: usize = 1_024;

/// A commit and who waits for it.
pub(super) struct Job {
    pub commit: Commit,
    pub reply: oneshot::Sender<Result<Order, CommitFault>>,
}

/// What the writer thread owns.
pub(super) struct Writer {
    pub database: Arc<Database>,
    pub live: Arc<RwLock<Live>>,
    /// The index with the commits of the running group on top.
    pub ahead: Index,
    /// A commit of the running group changes what enrollments say.
    pub enrollments_changed: bool,
    /// Versions of groups as the transaction has them: every device of a group expects one. Forgotten with each change of an
    /// enrollment, and with each group of commits that is not written.
    pub group_versions: HashMap<Vec<u8>, Version>,
    pub last: Order,
    pub audit_max: u64,
    /// Of the file: a large one is to be opened quickly after a kill.
    pub size: FileSize,
    pub poison: Option<String>,
    pub observer: GroupObserver,
}

/// How a group ended that did not become durable.
enum GroupFault {
    /// Nothing of it is in the file.
    NotWritten(String),
    Unknown(String),
}

impl From<StoreFault> for GroupFault {
    fn from(fault: StoreFault) -> Self {
        GroupFault::NotWritten(fault.to_string())
    }
}

/// A commit that is in the transaction.
struct Applied {
    order: Order,
    changes: Vec<IndexChange>,
}

impl Writer {
    pub fn write(&mut self, jobs: Vec<Job>) {
        (self.observer)(GroupEvent::Began { commits: jobs.len() });
        let (commits, replies): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.commit, job.reply)).unzip();
        let mut outcomes = Vec::with_capacity(commits.len());
        let ended = match &self.poison {
            Some(why) => Err(GroupFault::NotWritten(format!("the store must be opened again: {why}"))),
            None => self.write_group(&commits, &mut outcomes),
        };
        let outcomes = self.settle(commits.len(), ended, outcomes);
        let count = |kind: fn(&CommitFault) -> bool| {
            outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).filter(|fault| kind(fault)).count()
        };
        let refused = count(|fault| matches!(fault, CommitFault::Unexpected(_)));
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        (self.observer)(GroupEvent::Ended { written, refused, failed: outcomes.len() - written - refused });
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // Whoever does not wait any more learns it by reading again.
            let _ = reply.send(outcome);
        }
    }

    /// What each commit is told. A group that was not made durable takes those with it that would have been.
    fn settle(
        &mut self,
        commits: usize,
        ended: Result<(), GroupFault>,
        outcomes: Vec<Result<Applied, CommitFault>>,
    ) -> Vec<Result<Order, CommitFault>> {
        let fault = match ended {
            Ok(()) => return outcomes.into_iter().map(|outcome| outcome.map(|applied| applied.order)).collect(),
            Err(GroupFault::NotWritten(why)) => {
                let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
                self.ahead = (*live.index).clone();
                self.group_versions.clear();
                self.last = live.last;
                CommitFault::NotWritten(why)
            }
            Err(GroupFault::Unknown(why)) => {
                self.poison = Some(why.clone());
                CommitFault::Unknown(why)
            }
        };
        let mut told: Vec<_> =
            outcomes.into_iter().map(|outcome| Err(outcome.err().unwrap_or(fault.clone()))).collect();
        told.resize_with(commits, || Err(fault.clone()));
        told
    }

    fn write_group(
        &mut self,
        commits: &[Commit],
        outcomes: &mut Vec<Result<Applied, CommitFault>>,
    ) -> Result<(), GroupFault> {
        let begin = |why: redb::TransactionError| GroupFault::NotWritten(why.to_string());
        let mut transaction = self.database.begin_write().map_err(begin)?;
        transaction.set_durability(Durability::Immediate).map_err(|why| GroupFault::NotWritten(why.to_string()))?;
        transaction.set_quick_repair(self.size.is_large());
        self.enrollments_changed = false;
        {
            let mut tables = OpenTables::over(&transaction);
            for commit in commits {
                let outcome = self.write_one(&mut tables, commit)?;
                outcomes.push(outcome);
            }
            let last = self.last.0.to_be_bytes();
            tables.of_mut(Table::Meta)?.insert(LAST_ORDER_KEY, last.as_slice()).map_err(storage_fault)?;
        }
        if outcomes.iter().all(Result::is_err) {
            // Nothing holds, so there is nothing to sync. An abort that fails leaves the file as it was.
            let _ = transaction.abort();
            return Ok(());
        }
        transaction.commit().map_err(|why| GroupFault::Unknown(why.to_string()))?;
        let snapshot = self.database.begin_read().map_err(|why| GroupFault::Unknown(why.to_string()))?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.snapshot = Arc::new(live.snapshot.after(snapshot, self.enrollments_changed));
        live.last = self.last;
        // Copied only while a listing still holds the one before.
        let index = Arc::make_mut(&mut live.index);
        for change in outcomes.iter().flatten().flat_map(|applied| &applied.changes) {
            index.apply(change.clone());
        }
        Ok(())
    }

    /// Judges one commit and, when it holds, puts it into the transaction. The outer fault ends the group.
    fn write_one(
        &mut self,
        tables: &mut OpenTables<'_>,
        commit: &Commit,
    ) -> Result<Result<Applied, CommitFault>, GroupFault> {
        let order = next_order(self.last, commit);
        let (rows, changes, group_versions) = (BTreeMap::new(), Vec::new(), &mut self.group_versions);
        let mut draft = Draft { tables, index: &self.ahead, order, rows, changes, group_versions };
        if let Err(fault) = draft.judge(commit) {
            return Ok(Err(fault));
        }
        let Draft { rows, changes, .. } = draft;
        if rows.keys().any(|(table, _)| matches!(table, Table::Enrollments | Table::Certificates | Table::Subjects)) {
            self.enrollments_changed = true;
            self.group_versions.clear();
        }
        for ((table, key), value) in rows {
            let table = tables.of_mut(table)?;
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice()).map_err(storage_fault)?,
                None => table.remove(key.as_slice()).map_err(storage_fault)?,
            };
        }
        trim_audit(tables, self.audit_max, commit.audit.len() as u64)?;
        changes.iter().for_each(|change| self.ahead.apply(change.clone()));
        self.last = order;
        Ok(Ok(Applied { order, changes }))
    }
}

/// Removes the oldest entries above the bound, with the tracking rows that lead to them.
fn trim_audit(tables: &mut OpenTables<'_>, audit_max: u64, added: u64) -> Result<(), GroupFault> {
    if added == 0 {
        return Ok(());
    }
    let above = tables.of(Table::Audit)?.len().map_err(storage_fault)?.saturating_sub(audit_max);
    for _ in 0..above.min(added + AUDIT_TRIM_EXTRA) {
        let oldest = match tables.of_mut(Table::Audit)?.pop_first().map_err(storage_fault)? {
            Some((key, value)) => (key.value().to_vec(), AuditEntry::decode(value.value())),
            None => break,
        };
        // An entry that cannot be read goes all the same; `check` finds what may have led to it.
        if let (key, Ok(AuditEntry { tracking: Some(tracking), .. })) = oldest {
            let tracking = tracking_key(tracking);
            if tables.get(Table::Tracking, &tracking)?.as_ref() == Some(&key) {
                tables.of_mut(Table::Tracking)?.remove(tracking.as_slice()).map_err(storage_fault)?;
            }
        }
    }
    Ok(())
}

impl From<StoreFault> for CommitFault {
    fn from(fault: StoreFault) -> Self {
        not_written(fault.to_string())
    }
}

/// A commit on top of the transaction: reads see its own changes, and nobody else does.
struct Draft<'a, 'txn> {
    tables: &'a OpenTables<'txn>,
    index: &'a Index,
    order: Order,
    rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    changes: Vec<IndexChange>,
    group_versions: &'a mut HashMap<Vec<u8>, Version>,
}

impl Rows for Draft<'_, '_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.rows.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.tables.get(table, key),
        }
    }
}

impl Draft<'_, '_> {
    fn judge(&mut self, commit: &Commit) -> Result<(), CommitFault> {
        check_shape(commit)?;
        // Before any change of its own, so that what is found is what the transaction has.
        commit.expect.iter().try_for_each(|expect| self.expect(expect))?;
        commit.changes.iter().try_for_each(|change| self.change(change))?;
        for (place, entry) in (0..).zip(&commit.audit) {
            let key = audit_position_bytes(self.order, place);
            if let Some(tracking) = entry.tracking {
                self.set(Table::Tracking, tracking_key(tracking), Some(key.clone()));
            }
            self.store(Table::Audit, key, entry)?;
        }
        Ok(())
    }

    fn expect(&mut self, expect: &Expect) -> Result<(), CommitFault> {
        match expect {
            Expect::Enrollment { id, version } => self.expect_enrollment(id, *version),
            Expect::HubTakes { hub, pinned } => {
                let record: Option<Hub> = self.load(Table::Hubs, &hub_key(hub))?;
                Ok(takes(record.as_ref(), hub, *pinned, || self.index.use_of(hub))?)
            }
            Expect::HubUnused { hub } => match self.index.use_of(hub) {
                HubUse { homes: 0, moves: 0, arriving: _ } => Ok(()),
                HubUse { homes, moves, arriving: _ } => {
                    Err(Unexpected::HubInUse { hub: hub.clone(), homes, moves }.into())
                }
            },
            Expect::HubLinked { hub } => match self.get(Table::Hubs, &hub_key(hub))? {
                Some(_) => Ok(()),
                None => Err(Unexpected::HubNotLinked { hub: hub.clone() }.into()),
            },
            Expect::HubUnnamed { hub, after } => match self.index.named_after(hub, *after) {
                0 => Ok(()),
                moves => {
                    let homes = self.index.use_of(hub).homes;
                    Err(Unexpected::HubInUse { hub: hub.clone(), homes, moves }.into())
                }
            },
            Expect::EndorsementKeyUnclaimed { key } => self.expect_unclaimed(Claim::EndorsementKey(*key), &[]),
            Expect::DeviceId { device, registration } => {
                self.expect_device_id(device, registration)?;
                match self.index.names(device, registration) {
                    Some(owner) => Err(Unexpected::DeviceIdTaken { device: device.clone(), owner }.into()),
                    None => Ok(()),
                }
            }
            Expect::Record { registration, version, home } => {
                let found = self.registration_at(registration, *version)?.and_then(|found| found.assignment);
                let fault = || Unexpected::Journal { id: registration.clone() };
                if found.map(|found| found.generation) == *home { Ok(()) } else { Err(fault().into()) }
            }
            Expect::Journal { registration, seen } => {
                let fault = || Unexpected::Journal { id: registration.clone() };
                if self.index.seen(&registration.folded()) == *seen { Ok(()) } else { Err(fault().into()) }
            }
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), CommitFault> {
        match change {
            Change::PutEnrollment(put) => self.put_enrollment(put),
            Change::DeleteEnrollment { id, version } => {
                expect_existing(*version)?;
                let before = self.enrollment_at(id, *version)?;
                self.reindex(&before.as_ref().map(enrollment_rows).unwrap_or_default(), &[]);
                self.set(Table::Enrollments, enrollment_key(id), None);
                Ok(())
            }
            Change::PutHub(put) => {
                self.hub_at(&put.id, put.version)?;
                let hub = Hub { version: put.version.next(), ..(**put).clone() };
                self.store(Table::Hubs, hub_key(&hub.id), &hub)
            }
            Change::DeleteHub { id, version } => {
                expect_existing(*version)?;
                self.hub_at(id, *version)?;
                self.set(Table::Hubs, hub_key(id), None);
                self.set(Table::Feeds, hub_key(id), None);
                Ok(())
            }
            Change::PutRegistration(put) => self.put_registration(put),
            Change::DeleteRegistration { id, version, past } => {
                expect_existing(*version)?;
                let before = self.registration_at(id, *version)?;
                self.reindex(&before.as_ref().map(registration_rows).unwrap_or_default(), &[]);
                self.rehome(before.as_ref(), None);
                let key = id.folded().into_bytes();
                self.set(Table::Registrations, key.clone(), None);
                self.set(Table::LastKnown, key.clone(), None);
                let past = named(past, self.order);
                if past.is_empty() {
                    self.set(Table::Earlier, key, None);
                    Ok(())
                } else {
                    self.store(Table::Earlier, key, &past)
                }
            }
            Change::Journal { registration, generation, at, record } => {
                let line = JournalLine { order: self.order, at: *at, record: record.clone() };
                let open = self.journal(registration, *generation, &line)?;
                self.store(Table::Journal, journal_key(open.generation, self.order), &line)?;
                self.changes.push(IndexChange::Move(open));
                Ok(())
            }
            Change::CloseMove { generation } => {
                self.open_move(*generation)?;
                self.set(Table::OpenMoves, generation_key(*generation), None);
                self.changes.push(IndexChange::Closed(*generation));
                Ok(())
            }
            Change::ForgetMove { generation } => self.forget(*generation),
            Change::NoteSeen { hub, token, seen_at, rows } => {
                for (device, state) in rows {
                    self.note_seen(hub, *seen_at, device, state)?;
                }
                self.store(Table::Feeds, hub_key(hub), token)
            }
            // Its order is all there is to it.
            Change::RaiseOrders { above: _ } => Ok(()),
            Change::SetRestored(restored) => {
                self.set(Table::Meta, RESTORED_KEY.to_vec(), restored.then(Vec::new));
                Ok(())
            }
        }
    }

    /// Nobody claims it, but perhaps the enrollment of this key.
    fn expect_unclaimed(&self, claim: Claim, but: &[u8]) -> Result<(), CommitFault> {
        let owner = self.get(Table::Certificates, claim.digest())?.filter(|owner| *owner != but);
        let Some(owner) = owner else { return Ok(()) };
        let found: Option<Enrollment> = self.load(Table::Enrollments, &owner)?;
        let owner = found.ok_or_else(|| not_written("a claim leads to no enrollment"))?.id;
        Err(Unexpected::taken(claim, owner).into())
    }

    fn note_seen(
        &mut self,
        hub: &HubId,
        seen_at: Timestamp,
        device: &DeviceId,
        state: &DeviceState,
    ) -> Result<(), CommitFault> {
        let Some(owner) = self.get(Table::DeviceIds, &super::tables::device_key(device))? else { return Ok(()) };
        let registration: Option<Registration> = self.load(Table::Registrations, &owner)?;
        if registration.and_then(|it| it.assignment).is_none_or(|home| home.hub != *hub) {
            return Ok(());
        }
        let known: Option<LastKnown> = self.load(Table::LastKnown, &owner)?;
        if !is_newer(known.as_ref(), hub, state) {
            return Ok(());
        }
        self.store(Table::LastKnown, owner, &LastKnown { hub: hub.clone(), state: Box::new(state.clone()), seen_at })
    }

    fn put_enrollment(&mut self, put: &Enrollment) -> Result<(), CommitFault> {
        let before = self.enrollment_at(&put.id, put.version)?;
        let key = enrollment_key(&put.id);
        for claim in put.attestation.claims() {
            self.expect_unclaimed(claim, &key)?;
        }
        let enrollment = Enrollment { version: put.version.next(), ..put.clone() };
        self.reindex(&before.as_ref().map(enrollment_rows).unwrap_or_default(), &enrollment_rows(&enrollment));
        self.store(Table::Enrollments, key, &enrollment)
    }

    fn put_registration(&mut self, put: &Registration) -> Result<(), CommitFault> {
        let before = self.registration_at(&put.id, put.version)?;
        let key = put.id.folded().into_bytes();
        self.expect_device_id(&put.device_id, &put.id)?;
        let past = named(&put.past, self.order);
        let registration = Registration { version: put.version.next(), past, ..put.clone() };
        self.reindex(&before.as_ref().map(registration_rows).unwrap_or_default(), &registration_rows(&registration));
        self.rehome(before.as_ref(), Some(&registration));
        self.store(Table::Registrations, key, &registration)
    }

    /// No other registration has the device id.
    fn expect_device_id(&self, device: &DeviceId, registration: &RegistrationId) -> Result<(), CommitFault> {
        let key = registration.folded().into_bytes();
        let owner = self.get(Table::DeviceIds, &super::tables::device_key(device))?.filter(|owner| *owner != key);
        let Some(owner) = owner else { return Ok(()) };
        let found: Option<Registration> = self.load(Table::Registrations, &owner)?;
        let owner = found.ok_or_else(|| not_written("a device id leads to no registration"))?.id;
        Err(Unexpected::DeviceIdTaken { device: device.clone(), owner }.into())
    }

    /// The move after a new line; without a generation, a new one.
    fn journal(
        &mut self,
        registration: &RegistrationId,
        generation: Option<Order>,
        line: &JournalLine,
    ) -> Result<OpenMove, CommitFault> {
        match (generation, &line.record) {
            (None, JournalRecord::Intent(intent)) => {
                self.set(Table::OpenMoves, generation_key(self.order), Some(Vec::new()));
                Ok(OpenMove::begin(self.order, intent))
            }
            // Whoever guesses its own order would write two lines of one move, under one key.
            (Some(generation), _) if generation == self.order => Err(Unexpected::MoveNotOpen { generation }.into()),
            (Some(generation), _) => {
                let mut open = self.open_move(generation)?;
                if open.registration != *registration {
                    return Err(not_written(format!("move {generation} is of another registration")));
                }
                open.note(line);
                Ok(open)
            }
            (
                None,
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
            ) => Err(not_written("a move opens with an intent")),
        }
    }

    fn forget(&mut self, generation: Order) -> Result<(), CommitFault> {
        if self.open_move(generation).is_ok() {
            return Err(not_written(format!("move {generation} is open and is not forgotten")));
        }
        let bounds = prefix_bounds(&generation_key(generation), None);
        let mut keys = Vec::new();
        for row in self.tables.of(Table::Journal)?.range::<&[u8]>(borrowed(&bounds)).map_err(storage_fault)? {
            keys.push(row.map_err(storage_fault)?.0.value().to_vec());
        }
        // The one line that this commit itself may have added.
        keys.push(journal_key(generation, self.order));
        keys.into_iter().for_each(|key| self.set(Table::Journal, key, None));
        Ok(())
    }

    fn expect_enrollment(&mut self, id: &EnrollmentId, expected: Version) -> Result<(), CommitFault> {
        let EnrollmentId::Group(_) = id else { return self.enrollment_at(id, expected).map(drop) };
        let key = enrollment_key(id);
        if self.group_versions.get(&key) == Some(&expected) {
            return Ok(());
        }
        self.enrollment_at(id, expected)?;
        if self.group_versions.len() >= GROUP_VERSIONS_MAX {
            self.group_versions.clear();
        }
        self.group_versions.insert(key, expected);
        Ok(())
    }

    fn enrollment_at(&self, id: &EnrollmentId, expected: Version) -> Result<Option<Enrollment>, CommitFault> {
        let found: Option<Enrollment> = self.load(Table::Enrollments, &enrollment_key(id))?;
        let version = found.as_ref().map_or(Version::ABSENT, |enrollment| enrollment.version);
        let fault = || Unexpected::Enrollment { id: id.clone(), expected, found: version };
        if version == expected { Ok(found) } else { Err(fault().into()) }
    }

    fn registration_at(&self, id: &RegistrationId, expected: Version) -> Result<Option<Registration>, CommitFault> {
        let found: Option<Registration> = self.load(Table::Registrations, id.folded().as_bytes())?;
        let version = found.as_ref().map_or(Version::ABSENT, |registration| registration.version);
        let fault = || Unexpected::Registration { id: id.clone(), expected, found: version };
        if version == expected { Ok(found) } else { Err(fault().into()) }
    }

    fn hub_at(&self, id: &HubId, expected: Version) -> Result<(), CommitFault> {
        let found: Option<Hub> = self.load(Table::Hubs, &hub_key(id))?;
        let version = found.map_or(Version::ABSENT, |hub| hub.version);
        let fault = || Unexpected::Hub { id: id.clone(), expected, found: version };
        if version == expected { Ok(()) } else { Err(fault().into()) }
    }

    /// An open move, as the changes before this one left it.
    fn open_move(&self, generation: Order) -> Result<OpenMove, CommitFault> {
        let changed = self.changes.iter().rev().find_map(|change| match change {
            IndexChange::Move(open) if open.generation == generation => Some(Some(open)),
            IndexChange::Closed(closed) if *closed == generation => Some(None),
            IndexChange::Move(_) | IndexChange::Closed(_) | IndexChange::Home { .. } => None,
        });
        let open = changed.unwrap_or_else(|| self.index.open_move(generation));
        open.cloned().ok_or_else(|| Unexpected::MoveNotOpen { generation }.into())
    }

    /// Takes out the index rows that are no more, and puts in those that are new; the rest is not touched.
    fn reindex(&mut self, before: &[IndexRow], after: &[IndexRow]) {
        for (table, key, _) in before.iter().filter(|row| !after.contains(row)) {
            self.set(*table, key.clone(), None);
        }
        for (table, key, value) in after.iter().filter(|row| !before.contains(row)) {
            self.set(*table, key.clone(), Some(value.clone()));
        }
    }

    fn rehome(&mut self, before: Option<&Registration>, after: Option<&Registration>) {
        let home = |registration: Option<&Registration>| registration?.assignment.as_ref().map(|at| at.hub.clone());
        let (from, to) = (home(before), home(after));
        if from != to {
            if let Some(registration) = before {
                self.set(Table::LastKnown, registration.id.folded().into_bytes(), None);
            }
            self.changes.push(IndexChange::Home { from, to });
        }
    }

    fn store<T: Stored>(&mut self, table: Table, key: Vec<u8>, value: &T) -> Result<(), CommitFault> {
        let bytes = value.encode().map_err(|why| not_written(why.to_string()))?;
        self.set(table, key, Some(bytes));
        Ok(())
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.rows.insert((table, key), value);
    }
}
