//! The store in memory: the reference for what every operation means, and the model that others are tested against.
//!
//! It keeps next to no indexes: where redb counts, this one looks at everything. Nothing survives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};

use super::listing::{self, Listing};
use super::open_move::OpenMove;
use super::shape::{check_shape, expect_existing, is_newer, named, next_order, not_written, takes};
use super::{
    AuditFilter, Change, Commit, CommitFault, DeviceFile, EnrollmentListing, Expect, HubUse, LastKnown, Page,
    PageRequest, RegistrationFilter, Store, StoreFault, StoreLife, Unexpected,
};
use crate::domain::{
    AnchorRef, Attestation, AuditEntry, Claim, DeviceId, DeviceState, Enrollment, EnrollmentId, FeedToken, Hub, HubId,
    Order, Past, Registration, RegistrationId, StoredAudit, Timestamp, TrackingId, Version, limits,
};
use crate::moves::{JournalLine, MoveLog};

/// The store in memory.
pub struct MemoryStore {
    state: Mutex<State>,
    audit_max: u64,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::with_audit_max(limits::AUDIT_ENTRIES_MAX)
    }

    /// One that keeps fewer audit entries.
    pub fn with_audit_max(audit_max: u64) -> Self {
        Self { state: Mutex::new(State::default()), audit_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way: a poisoned lock still guards whole tables.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, commit: Commit) -> Result<Order, CommitFault> {
        check_shape(&commit)?;
        let mut state = self.lock();
        let order = next_order(state.last, &commit);
        let outcome = state.attempt(order, &commit);
        state.finish(outcome.is_ok());
        outcome?;
        state.last = order;
        state.write_down(order, commit.audit, self.audit_max);
        Ok(order)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "MemoryStore({} registrations, order {})", state.registrations.rows.len(), state.last)
    }
}

/// A map whose changes can be taken back until they are kept.
#[derive(Debug)]
struct Table<K, V> {
    rows: BTreeMap<K, V>,
    undo: Vec<(K, Option<V>)>,
}

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), undo: Vec::new() }
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    fn set(&mut self, key: K, value: Option<V>) {
        let before = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.undo.push((key, before));
    }

    fn finish(&mut self, keep: bool) {
        let undo = std::mem::take(&mut self.undo);
        if keep {
            return;
        }
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }
}

/// A move, open or closed.
#[derive(Debug, Clone)]
struct Kept {
    log: MoveLog,
    open: bool,
}

#[derive(Debug, Default)]
struct State {
    last: Order,
    enrollments: Table<EnrollmentId, Arc<Enrollment>>,
    claims: Table<Claim, EnrollmentId>,
    hubs: Table<HubId, Hub>,
    registrations: Table<RegistrationId, Registration>,
    devices: Table<DeviceId, RegistrationId>,
    earlier: Table<RegistrationId, Past>,
    moves: Table<Order, Arc<Kept>>,
    open: Table<(RegistrationId, Order), ()>,
    last_known: Table<RegistrationId, LastKnown>,
    feeds: Table<HubId, FeedToken>,
    restored: Table<(), ()>,
    audit: BTreeMap<(Order, u32), AuditEntry>,
    tracking: BTreeMap<TrackingId, (Order, u32)>,
}

impl State {
    /// Changes the tables, all the way or up to the first thing that does not hold; [`State::finish`] decides.
    fn attempt(&mut self, order: Order, commit: &Commit) -> Result<(), CommitFault> {
        commit.expect.iter().try_for_each(|expect| self.judge(expect)).map_err(CommitFault::Unexpected)?;
        commit.changes.iter().try_for_each(|change| self.change(order, change))
    }

    fn finish(&mut self, keep: bool) {
        let Self {
            last: _,
            enrollments,
            claims,
            hubs,
            registrations,
            devices,
            earlier,
            moves,
            open,
            last_known,
            feeds,
            restored,
            audit: _,
            tracking: _,
        } = self;
        enrollments.finish(keep);
        claims.finish(keep);
        hubs.finish(keep);
        registrations.finish(keep);
        devices.finish(keep);
        earlier.finish(keep);
        moves.finish(keep);
        open.finish(keep);
        last_known.finish(keep);
        feeds.finish(keep);
        restored.finish(keep);
    }

    fn write_down(&mut self, order: Order, entries: Vec<AuditEntry>, audit_max: u64) {
        for (place, entry) in (0..).zip(entries) {
            if let Some(tracking) = entry.tracking {
                self.tracking.insert(tracking, (order, place));
            }
            self.audit.insert((order, place), entry);
        }
        while self.audit.len() as u64 > audit_max {
            let Some((key, entry)) = self.audit.pop_first() else { break };
            if let Some(tracking) = entry.tracking.filter(|tracking| self.tracking.get(tracking) == Some(&key)) {
                self.tracking.remove(&tracking);
            }
        }
    }

    fn judge(&self, expect: &Expect) -> Result<(), Unexpected> {
        match expect {
            Expect::Enrollment { id, version } => self.expect_enrollment(id, *version),
            Expect::HubTakes { hub, pinned } => takes(self.hubs.rows.get(hub), hub, *pinned, || self.hub_use(hub)),
            Expect::HubUnused { hub } => match self.hub_use(hub) {
                HubUse { homes: 0, moves: 0, arriving: _ } => Ok(()),
                HubUse { homes, moves, arriving: _ } => Err(Unexpected::HubInUse { hub: hub.clone(), homes, moves }),
            },
            Expect::HubLinked { hub } => match self.hubs.rows.contains_key(hub) {
                true => Ok(()),
                false => Err(Unexpected::HubNotLinked { hub: hub.clone() }),
            },
            Expect::HubUnnamed { hub, after } => {
                let later = self.open_logs().filter(|log| log.generation > *after).filter_map(OpenMove::of);
                match later.filter(|open| open.hubs().any(|named| named == hub)).count() as u64 {
                    0 => Ok(()),
                    moves => Err(Unexpected::HubInUse { hub: hub.clone(), homes: self.hub_use(hub).homes, moves }),
                }
            }
            Expect::EndorsementKeyUnclaimed { key } => {
                let claim = Claim::EndorsementKey(*key);
                match self.claims.rows.get(&claim) {
                    Some(owner) => Err(Unexpected::taken(claim, owner.clone())),
                    None => Ok(()),
                }
            }
            Expect::DeviceId { device, registration } => {
                let named = self.open_logs().filter_map(OpenMove::of).filter(|open| open.device == *device);
                let owners =
                    self.devices.rows.get(device).cloned().into_iter().chain(named.map(|open| open.registration));
                match owners.into_iter().find(|owner| owner != registration) {
                    Some(owner) => Err(Unexpected::DeviceIdTaken { device: device.clone(), owner }),
                    None => Ok(()),
                }
            }
            Expect::Record { registration, version, home } => {
                self.expect_registration(registration, *version)?;
                let found = self.registrations.rows.get(registration).and_then(|found| found.assignment.as_ref());
                let fault = || Unexpected::Journal { id: registration.clone() };
                if found.map(|found| found.generation) == *home { Ok(()) } else { Err(fault()) }
            }
            Expect::Journal { registration, seen } => {
                let open =
                    self.open.rows.range((registration.clone(), Order(0))..=(registration.clone(), Order(u64::MAX)));
                let logs = open.filter_map(|((_, generation), ())| self.moves.rows.get(generation));
                let found =
                    logs.map(|kept| (kept.log.generation, kept.log.lines.last().map_or(Order(0), |line| line.order)));
                let fault = || Unexpected::Journal { id: registration.clone() };
                if found.eq(seen.iter().copied()) { Ok(()) } else { Err(fault()) }
            }
        }
    }

    fn change(&mut self, order: Order, change: &Change) -> Result<(), CommitFault> {
        match change {
            Change::PutEnrollment(put) => self.put_enrollment(put)?,
            Change::DeleteEnrollment { id, version } => {
                expect_existing(*version)?;
                self.expect_enrollment(id, *version)?;
                self.drop_claims(id);
                self.enrollments.set(id.clone(), None);
            }
            Change::PutHub(put) => {
                self.expect_hub(&put.id, put.version)?;
                let hub = Hub { version: put.version.next(), ..(**put).clone() };
                self.hubs.set(hub.id.clone(), Some(hub));
            }
            Change::DeleteHub { id, version } => {
                expect_existing(*version)?;
                self.expect_hub(id, *version)?;
                self.hubs.set(id.clone(), None);
                self.feeds.set(id.clone(), None);
            }
            Change::PutRegistration(put) => self.put_registration(put, order)?,
            Change::DeleteRegistration { id, version, past } => {
                expect_existing(*version)?;
                self.expect_registration(id, *version)?;
                self.drop_device_id(id);
                self.registrations.set(id.clone(), None);
                self.last_known.set(id.clone(), None);
                self.earlier.set(id.clone(), Some(named(past, order)).filter(|past| !past.is_empty()));
            }
            Change::Journal { registration, generation, at, record } => {
                let line = JournalLine { order, at: *at, record: record.clone() };
                match generation {
                    None => {
                        let log = MoveLog { generation: order, registration: registration.clone(), lines: vec![line] };
                        self.moves.set(order, Some(Arc::new(Kept { log, open: true })));
                        self.open.set((registration.clone(), order), Some(()));
                    }
                    // Whoever guesses its own order would write two lines of one move.
                    Some(generation) if *generation == order => {
                        return Err(Unexpected::MoveNotOpen { generation: order }.into());
                    }
                    Some(generation) => {
                        let mut kept = self.open_move(*generation)?;
                        if kept.log.registration != *registration {
                            return Err(not_written(format!("move {generation} is of another registration")));
                        }
                        kept.log.lines.push(line);
                        self.moves.set(*generation, Some(Arc::new(kept)));
                    }
                }
            }
            Change::CloseMove { generation } => {
                let kept = self.open_move(*generation)?;
                self.open.set((kept.log.registration.clone(), *generation), None);
                self.moves.set(*generation, Some(Arc::new(Kept { open: false, ..kept })));
            }
            Change::ForgetMove { generation } => {
                if self.moves.rows.get(generation).is_some_and(|kept| kept.open) {
                    return Err(not_written(format!("move {generation} is open and is not forgotten")));
                }
                self.moves.set(*generation, None);
            }
            Change::NoteSeen { hub, token, seen_at, rows } => {
                for (device, state) in rows {
                    self.note_seen(hub, *seen_at, device, state);
                }
                self.feeds.set(hub.clone(), Some(*token));
            }
            // Its order is all there is to it.
            Change::RaiseOrders { above: _ } => {}
            Change::SetRestored(restored) => self.restored.set((), restored.then_some(())),
        }
        Ok(())
    }

    fn note_seen(&mut self, hub: &HubId, seen_at: Timestamp, device: &DeviceId, state: &DeviceState) {
        let Some(owner) = self.devices.rows.get(device) else { return };
        let registration = self.registrations.rows.get(owner);
        if registration.and_then(|it| it.assignment.as_ref()).is_none_or(|home| home.hub != *hub) {
            return;
        }
        if !is_newer(self.last_known.rows.get(owner), hub, state) {
            return;
        }
        let seen = LastKnown { hub: hub.clone(), state: Box::new(state.clone()), seen_at };
        self.last_known.set(owner.clone(), Some(seen));
    }

    fn put_enrollment(&mut self, put: &Enrollment) -> Result<(), Unexpected> {
        self.expect_enrollment(&put.id, put.version)?;
        self.drop_claims(&put.id);
        for claim in put.attestation.claims() {
            if let Some(owner) = self.claims.rows.get(&claim).filter(|owner| **owner != put.id) {
                return Err(Unexpected::taken(claim, owner.clone()));
            }
            self.claims.set(claim, Some(put.id.clone()));
        }
        let enrollment = Enrollment { version: put.version.next(), ..put.clone() };
        self.enrollments.set(put.id.clone(), Some(Arc::new(enrollment)));
        Ok(())
    }

    fn put_registration(&mut self, put: &Registration, order: Order) -> Result<(), Unexpected> {
        self.expect_registration(&put.id, put.version)?;
        self.drop_device_id(&put.id);
        if let Some(owner) = self.devices.rows.get(&put.device_id) {
            return Err(Unexpected::DeviceIdTaken { device: put.device_id.clone(), owner: owner.clone() });
        }
        self.devices.set(put.device_id.clone(), Some(put.id.clone()));
        let past = named(&put.past, order);
        let home = |it: Option<&Registration>| it?.assignment.as_ref().map(|home| home.hub.clone());
        if home(self.registrations.rows.get(&put.id)) != home(Some(put)) {
            self.last_known.set(put.id.clone(), None);
        }
        let registration = Registration { version: put.version.next(), past, ..put.clone() };
        self.registrations.set(put.id.clone(), Some(registration));
        Ok(())
    }

    fn drop_claims(&mut self, id: &EnrollmentId) {
        let Some(enrollment) = self.enrollments.rows.get(id).cloned() else { return };
        for claim in enrollment.attestation.claims() {
            self.claims.set(claim, None);
        }
    }

    fn drop_device_id(&mut self, id: &RegistrationId) {
        if let Some(device) = self.registrations.rows.get(id).map(|registration| registration.device_id.clone()) {
            self.devices.set(device, None);
        }
    }

    fn expect_enrollment(&self, id: &EnrollmentId, expected: Version) -> Result<(), Unexpected> {
        let found = self.enrollments.rows.get(id).map_or(Version::ABSENT, |enrollment| enrollment.version);
        let fault = || Unexpected::Enrollment { id: id.clone(), expected, found };
        if found == expected { Ok(()) } else { Err(fault()) }
    }

    fn expect_registration(&self, id: &RegistrationId, expected: Version) -> Result<(), Unexpected> {
        let found = self.registrations.rows.get(id).map_or(Version::ABSENT, |registration| registration.version);
        let fault = || Unexpected::Registration { id: id.clone(), expected, found };
        if found == expected { Ok(()) } else { Err(fault()) }
    }

    fn expect_hub(&self, id: &HubId, expected: Version) -> Result<(), Unexpected> {
        let found = self.hubs.rows.get(id).map_or(Version::ABSENT, |hub| hub.version);
        let fault = || Unexpected::Hub { id: id.clone(), expected, found };
        if found == expected { Ok(()) } else { Err(fault()) }
    }

    fn open_move(&self, generation: Order) -> Result<Kept, Unexpected> {
        match self.moves.rows.get(&generation) {
            Some(kept) if kept.open => Ok((**kept).clone()),
            Some(_) | None => Err(Unexpected::MoveNotOpen { generation }),
        }
    }

    fn open_logs(&self) -> impl Iterator<Item = &MoveLog> {
        self.open.rows.keys().filter_map(|(_, generation)| self.moves.rows.get(generation)).map(|kept| &kept.log)
    }

    fn hub_use(&self, hub: &HubId) -> HubUse {
        let lives = |registration: &&Registration| registration.assignment.as_ref().is_some_and(|a| a.hub == *hub);
        let mut used =
            HubUse { homes: self.registrations.rows.values().filter(lives).count() as u64, ..HubUse::default() };
        for open in self.open_logs().filter_map(OpenMove::of) {
            used.arriving += u64::from(open.arriving_at() == Some(hub));
            used.moves += u64::from(open.hubs().any(|named| named == hub));
        }
        used
    }

    fn device(&self, id: &RegistrationId) -> DeviceFile {
        let all = (id.clone(), Order(0))..=(id.clone(), Order(u64::MAX));
        let open = self.open.rows.range(all).filter_map(|((_, generation), ())| self.moves.rows.get(generation));
        DeviceFile {
            registration: self.registrations.rows.get(id).cloned(),
            open: open.map(|kept| kept.log.clone()).collect(),
            earlier: self.earlier.rows.get(id).cloned().unwrap_or_default(),
        }
    }

    fn find_groups(&self, chain: &[AnchorRef]) -> Vec<Arc<Enrollment>> {
        let holds = |enrollment: &&Arc<Enrollment>| {
            enrollment
                .attestation
                .certificates()
                .any(|held| chain.iter().any(|link| link.thumbprint == held.thumbprint || link.issuer == held.subject))
        };
        self.enrollments.rows.values().filter(|enrollment| is_group(&enrollment.id)).filter(holds).cloned().collect()
    }

    fn key_groups(&self) -> Vec<Arc<Enrollment>> {
        let is_by_key = |enrollment: &&Arc<Enrollment>| match &enrollment.attestation {
            Attestation::MasterKey(_) => true,
            Attestation::X509Leaf(_)
            | Attestation::X509Ca(_)
            | Attestation::Tpm(_)
            | Attestation::TpmFleet(_)
            | Attestation::SymmetricKey(_) => false,
        };
        let mut groups: Vec<_> = self.enrollments.rows.values().filter(is_by_key).cloned().collect();
        groups.sort_by_key(|group| folded(&group.id));
        groups
    }

    fn list_enrollments(
        &self,
        which: EnrollmentListing,
        request: &PageRequest,
    ) -> Result<Page<Arc<Enrollment>>, StoreFault> {
        let listing = Listing::Enrollments(which);
        let after = listing.position(request)?.map(listing::id_position).transpose()?;
        let size = listing::page_size(request);
        let groups = match which {
            EnrollmentListing::Individuals => false,
            EnrollmentListing::Groups => true,
        };
        let rows = self
            .enrollments
            .rows
            .values()
            .filter(|enrollment| is_group(&enrollment.id) == groups)
            .filter(|enrollment| after.as_ref().is_none_or(|after| folded(&enrollment.id) > *after))
            .take(size + 1)
            .cloned()
            .collect();
        Ok(listing.page(rows, size, |enrollment| folded(&enrollment.id).into_bytes()))
    }

    fn list_registrations(
        &self,
        filter: &RegistrationFilter,
        request: &PageRequest,
    ) -> Result<Page<DeviceFile>, StoreFault> {
        let listing = Listing::Registrations(filter);
        let after = listing.position(request)?.map(listing::id_position).transpose()?;
        let size = listing::page_size(request);
        let ids: BTreeSet<&RegistrationId> =
            self.registrations.rows.keys().chain(self.open.rows.keys().map(|(id, _)| id)).collect();
        let rows = ids
            .into_iter()
            .filter(|id| after.as_ref().is_none_or(|after| id.folded() > *after))
            .map(|id| self.device(id))
            .filter(|file| listing::admits(filter, file))
            .take(size + 1)
            .collect();
        Ok(listing
            .page(rows, size, |file| listing::file_id(file).map(RegistrationId::folded).unwrap_or_default().into()))
    }

    fn list_audit(&self, filter: &AuditFilter, request: &PageRequest) -> Result<Page<StoredAudit>, StoreFault> {
        let listing = Listing::Audit(filter);
        let before = listing.position(request)?.map(|bytes| listing::audit_position(&bytes)).transpose()?;
        let size = listing::page_size(request);
        let rows = self
            .audit
            .range((Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded)))
            .rev()
            .filter(|(_, entry)| listing::admits_audit(filter, entry))
            .take(size + 1)
            .map(|((order, place), entry)| StoredAudit { order: *order, place: *place, entry: entry.clone() })
            .collect();
        Ok(listing.page(rows, size, |row: &StoredAudit| listing::audit_position_bytes(row.order, row.place)))
    }
}

fn is_group(id: &EnrollmentId) -> bool {
    match id {
        EnrollmentId::Individual(_) => false,
        EnrollmentId::Group(_) => true,
    }
}

fn folded(id: &EnrollmentId) -> String {
    match id {
        EnrollmentId::Individual(id) => id.folded(),
        EnrollmentId::Group(id) => id.folded(),
    }
}

impl Store for MemoryStore {
    fn load_enrollment<'a>(
        &'a self,
        id: &'a EnrollmentId,
    ) -> BoxFuture<'a, Result<Option<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().enrollments.rows.get(id).cloned())))
    }

    fn find_groups<'a>(&'a self, chain: &'a [AnchorRef]) -> BoxFuture<'a, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().find_groups(chain))))
    }

    fn key_groups(&self) -> BoxFuture<'_, Result<Vec<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().key_groups())))
    }

    fn load_hub<'a>(&'a self, id: &'a HubId) -> BoxFuture<'a, Result<Option<Hub>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().hubs.rows.get(id).cloned())))
    }

    fn hubs(&self) -> BoxFuture<'_, Result<Vec<(Hub, HubUse)>, StoreFault>> {
        let state = self.lock();
        Box::pin(ready(Ok(state.hubs.rows.values().map(|hub| (hub.clone(), state.hub_use(&hub.id))).collect())))
    }

    fn load_device<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<DeviceFile, StoreFault>> {
        Box::pin(ready(Ok(self.lock().device(id))))
    }

    fn load_move(&self, generation: Order) -> BoxFuture<'_, Result<Option<MoveLog>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().moves.rows.get(&generation).map(|kept| kept.log.clone()))))
    }

    fn find_claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Option<EnrollmentId>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().claims.rows.get(claim).cloned())))
    }

    fn find_owner<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<RegistrationId>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().devices.rows.get(device).cloned())))
    }

    fn list_enrollments<'a>(
        &'a self,
        listing: EnrollmentListing,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<Arc<Enrollment>>, StoreFault>> {
        Box::pin(ready(self.lock().list_enrollments(listing, page)))
    }

    fn list_registrations<'a>(
        &'a self,
        filter: &'a RegistrationFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<DeviceFile>, StoreFault>> {
        Box::pin(ready(self.lock().list_registrations(filter, page)))
    }

    fn list_audit<'a>(
        &'a self,
        filter: &'a AuditFilter,
        page: &'a PageRequest,
    ) -> BoxFuture<'a, Result<Page<StoredAudit>, StoreFault>> {
        Box::pin(ready(self.lock().list_audit(filter, page)))
    }

    fn find_audit(&self, tracking: TrackingId) -> BoxFuture<'_, Result<Option<StoredAudit>, StoreFault>> {
        let state = self.lock();
        let found = state.tracking.get(&tracking).and_then(|key| state.audit.get_key_value(key));
        let stored =
            found.map(|((order, place), entry)| StoredAudit { order: *order, place: *place, entry: entry.clone() });
        Box::pin(ready(Ok(stored)))
    }

    fn load_last_known<'a>(&'a self, id: &'a RegistrationId) -> BoxFuture<'a, Result<Option<LastKnown>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().last_known.rows.get(id).cloned())))
    }

    fn load_feed<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, Result<Option<FeedToken>, StoreFault>> {
        Box::pin(ready(Ok(self.lock().feeds.rows.get(hub).copied())))
    }

    fn life(&self) -> BoxFuture<'_, Result<StoreLife, StoreFault>> {
        let state = self.lock();
        let restored = state.restored.rows.contains_key(&());
        Box::pin(ready(Ok(StoreLife { last: state.last, restored })))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<RegistrationId>, StoreFault>> {
        let state = self.lock();
        let mut ids: Vec<RegistrationId> = state.open.rows.keys().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        Box::pin(ready(Ok(ids)))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Order, CommitFault>> {
        Box::pin(async move { self.commit_now(commit) })
    }

    fn back_up<'a>(
        &'a self,
        _to: &'a Path,
        _progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    ) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(ready(Err(StoreFault::BackUp("a store in memory has nothing to copy".to_owned()))))
    }
}
