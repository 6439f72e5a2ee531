//! The service's own store went back in time: its orders are raised above every hub's, and its homes are held against
//! what the hubs have. Until that is over no device is moved and no other call is made.
//!
//! What the store says of moves under way is not believed: a move that it remembers in the middle may be over for long.
//! Every such move is closed, and the device lives where it is found. A state that such a move has sealed may be nowhere
//! else by now, so its journal stays in the history.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    Assignment, AuditEntry, CallFault, DeviceId, Fault, HubAnswer, HubCall, HubEffect, HubId, Operation,
    OperationStatus, Order, Past, Reason, Registration, RegistrationId, Timestamp, Version, limits,
};
use crate::hubs::entry::Phase;
use crate::moves::{Episode, Machine};
use crate::service::fault;
use crate::store::{Change, Commit, CommitFault, DeviceFile, Expect, PageRequest, RegistrationFilter, StoreLife};

use super::hub::replay;
use super::{ReconcileNews, Reinstatement, Run, away};

/// Where a device was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    hub: HubId,
    phase: Phase,
    generation: Order,
}

/// What all hubs have.
#[derive(Debug, Default)]
struct Found {
    sightings: BTreeMap<DeviceId, Vec<Sighting>>,
    /// Hubs that go on from an older copy, too: of another time than the store's copy and the other hubs.
    restored: BTreeSet<HubId>,
}

impl Run {
    pub(super) async fn store(&self, life: StoreLife) -> Result<(), Fault> {
        let inner = &self.ground;
        let berths = inner.fleet.berths();
        // All of them must answer: one that does not may have obeyed the highest order, and may have any device.
        let (mut highest, mut found_at) = (life.last, Found::default());
        for berth in &berths {
            let hub = &berth.hub.id;
            let advice = |why: CallFault| {
                let Fault { message, .. } = away(hub, why);
                let message = format!("{message}; bring it up, or unlink it by force: every hub must be asked");
                Fault::new(Reason::HubUnavailable, message).with("hub", hub.as_str())
            };
            let report = berth.connector.describe().await.map_err(advice)?;
            highest = highest.max(report.highest);
            if report.restored {
                found_at.restored.insert(hub.clone());
            }
            let mut since = None;
            loop {
                let page = berth.connector.changes(since, limits::FEED_ROWS_MAX).await.map_err(advice)?;
                for row in page.rows {
                    let (phase, generation) = (row.phase, row.generation);
                    let sighting = Sighting { hub: hub.clone(), phase, generation };
                    found_at.sightings.entry(row.device).or_default().push(sighting);
                }
                if !page.more {
                    break;
                }
                since = Some(page.next);
            }
        }
        self.teller.tell(ReconcileNews::StoreBegan { orders_above: highest }).await?;
        if !self.dry_run {
            let now = inner.clock.now();
            let detail = format!("the store was put back; its orders go on above {highest}");
            let audit = AuditEntry::new(now, &*self.by, crate::domain::AuditAction::StoreReconciled, detail);
            let changes = vec![Change::RaiseOrders { above: highest }, Change::SetRestored(true)];
            let commit = Commit { changes, audit: vec![audit], ..Commit::default() };
            inner.store.commit(commit).await.map_err(fault::of_commit)?;
        }
        let mut page = PageRequest { size: limits::PAGE_SIZE_MAX, token: None };
        loop {
            let all = RegistrationFilter::default();
            let found = inner.store.list_registrations(&all, &page).await.map_err(fault::of_store)?;
            for file in found.rows {
                self.look_at(file, &mut found_at).await?;
            }
            match found.next {
                Some(token) => page.token = Some(token),
                None => break,
            }
        }
        // Of a deletion that is not over, or of registrations that the store does not remember.
        for id in inner.store.unfinished().await.map_err(fault::of_store)? {
            let file = inner.store.load_device(&id).await.map_err(fault::of_store)?;
            if file.registration.is_none() && !self.dry_run {
                self.close(&file, None, None, &id).await?;
            }
        }
        for (device, seen) in found_at.sightings {
            for sighting in seen {
                self.news(&sighting.hub, &device, None, Reinstatement::Unknown, None, None).await?;
            }
        }
        if !self.dry_run {
            let commit = Commit { changes: vec![Change::SetRestored(false)], ..Commit::default() };
            inner.store.commit(commit).await.map_err(fault::of_commit)?;
            for berth in &berths {
                inner.fleet.set_unheard(&berth.hub.id, None);
            }
            inner.fleet.set_halted(None);
        }
        self.teller.tell(ReconcileNews::StoreDone).await
    }

    /// Holds one device against what was found.
    async fn look_at(&self, file: DeviceFile, found: &mut Found) -> Result<(), Fault> {
        let Some(record) = &file.registration else { return Ok(()) };
        let seen = found.sightings.remove(&record.device_id).unwrap_or_default();
        let recorded = record.assignment.as_ref().map(|home| (&home.hub, home.generation));
        let known = recorded.map(|(hub, _)| hub);
        let Some(home) = choose(recorded, &seen, &found.restored) else {
            if let Some(hub) = known {
                self.news(hub, &record.device_id, Some(&record.id), Reinstatement::Missing, None, None).await?;
            }
            if !file.open.is_empty() && !self.dry_run {
                self.close(&file, Some(record), None, &record.id).await?;
            }
            return Ok(());
        };
        let home = &home;
        let is_corrected = recorded.is_none_or(|(hub, generation)| *hub != home.hub || generation < home.generation);
        let is_closed = home.phase != Phase::Open;
        if !self.dry_run {
            let mut order = None;
            if is_corrected || is_closed || !file.open.is_empty() {
                order = Some(self.close(&file, Some(record), Some(home), &record.id).await?);
            }
            if let Some(order) = order.filter(|_| is_closed) {
                self.open(&home.hub, &record.device_id, order).await?;
            }
            for other in seen.iter().filter(|other| other.hub != home.hub) {
                self.collect(&other.hub, &record.id, other.generation).await?;
            }
        }
        for other in seen.iter().filter(|other| other.hub != home.hub) {
            let (hub, device) = (&other.hub, &record.device_id);
            self.news(hub, device, Some(&record.id), Reinstatement::Collected, None, None).await?;
        }
        let became = if is_corrected || is_closed { Reinstatement::HomeCorrected } else { Reinstatement::Kept };
        self.news(&home.hub, &record.device_id, Some(&record.id), became, None, None).await
    }

    /// Closes what the store takes for under way, and records the home that was found. Answers the order of it.
    async fn close(
        &self,
        file: &DeviceFile,
        record: Option<&Registration>,
        home: Option<&Sighting>,
        id: &RegistrationId,
    ) -> Result<Order, Fault> {
        let inner = &self.ground;
        let now = inner.clock.now();
        let moves = replay(file)?;
        let seen = moves.iter().map(|this| (this.generation, this.last)).collect();
        let closed = moves.iter().map(|this| Change::CloseMove { generation: this.generation });
        let kept = closed_history(file, record)?;
        let gone = moves.iter().map(|this| this.generation).chain(kept.dropped.iter().copied());
        let gone: BTreeSet<Order> = gone.filter(|generation| !kept.past.contains(*generation)).collect();
        let forgotten = gone.into_iter().map(|generation| Change::ForgetMove { generation });
        // A device whose first home was on its way has no record yet: the history needs one.
        let first = match (record, kept.needs_record) {
            (None, Some(of)) => Some(first_record(file, id, of, now)?),
            (Some(_), Some(_) | None) | (None, None) => None,
        };
        let corrected = record.or(first.as_ref()).map(|record| {
            let of_this_time = |before: &&Assignment| {
                home.is_some_and(|home| home.hub == before.hub && home.generation <= before.generation)
            };
            let before = record.assignment.as_ref().filter(of_this_time);
            let assignment = match (home, before) {
                (Some(_), Some(before)) => Some(before.clone()),
                // What it signs in with there is not known: its next registration has it written.
                (Some(home), None) => Some(Assignment {
                    hub: home.hub.clone(),
                    generation: home.generation,
                    credential: None,
                    assigned_at: now,
                }),
                (None, _) => record.assignment.clone(),
            };
            let operation = match record.operation.status {
                OperationStatus::Assigning => Operation {
                    status: OperationStatus::Failed {
                        reason: Reason::MoveAborted,
                        message: "the service was put back to an earlier state".to_owned(),
                    },
                    updated_at: now,
                    ..record.operation.clone()
                },
                OperationStatus::Assigned { .. } | OperationStatus::Failed { .. } | OperationStatus::Disabled => {
                    record.operation.clone()
                }
            };
            let past = kept.past.clone();
            let record = Registration { assignment, operation, past, updated_at: now, ..record.clone() };
            Change::PutRegistration(Box::new(record))
        });
        let detail = match home {
            Some(home) => format!("the store was put back: {id} lives at {}, where it was found", home.hub),
            None => format!("the store was put back: what it took for under way of {id} is closed"),
        };
        let mut entry = AuditEntry::new(now, &*self.by, crate::domain::AuditAction::StoreReconciled, detail);
        entry.registration = Some(id.clone());
        entry.hub = home.map(|home| home.hub.clone());
        let commit = Commit {
            expect: vec![
                Expect::Journal { registration: id.clone(), seen },
                Expect::Record {
                    registration: id.clone(),
                    version: record.map_or(Version::ABSENT, |record| record.version),
                    home: record.and_then(|record| record.assignment.as_ref()).map(|home| home.generation),
                },
            ],
            changes: closed.chain(forgotten).chain(corrected).collect(),
            audit: vec![entry],
        };
        let order = match inner.store.commit(commit).await {
            Err(CommitFault::Unexpected(_)) => {
                let message = format!("{id} went on meanwhile: run it again to go on");
                return Err(Fault::new(Reason::ServiceUnavailable, message));
            }
            written => written.map_err(fault::of_commit),
        };
        // Where it is not known whether it was written, the device is read again all the same.
        inner.tidings.read_again(id);
        order
    }

    /// Opens a home that a move had sealed or staged. A hub that waits is set right when it is gone through.
    async fn open(&self, hub: &HubId, device: &DeviceId, order: Order) -> Result<(), Fault> {
        let Some(berth) = self.ground.fleet.berth(hub) else { return Ok(()) };
        if berth.connector.describe().await.map_err(|why| away(hub, why))?.restored {
            return Ok(());
        }
        let call = HubCall { hub: hub.clone(), device: device.clone(), order, effect: HubEffect::Unseal };
        match berth.connector.obey(berth.hub.incarnation, &call).await {
            Ok(HubAnswer::Done | HubAnswer::State(_)) => Ok(()),
            Err(why) => Err(away(hub, why)),
        }
    }
}

/// The history of a device whose open moves are all closed.
struct Kept {
    past: Past,
    /// What fell out of the history.
    dropped: Vec<Order>,
    /// A move whose state has to be kept, and no record that could.
    needs_record: Option<Order>,
}

/// What is remembered stays so, and so does every move that holds a state: where the device went on after this copy was
/// made, nobody else may have what it left.
fn closed_history(file: &DeviceFile, record: Option<&Registration>) -> Result<Kept, Fault> {
    let mut past = record.map_or(&file.earlier, |record| &record.past).clone();
    let mut needs_record = None;
    for log in &file.open {
        let episode = Episode::read(log.clone());
        let holds = episode.map_err(|illegal| Fault::new(Reason::Internal, illegal.to_string()))?.has_state;
        if holds && !past.contains(log.generation) {
            past.push(log.generation);
            needs_record = record.is_none().then_some(log.generation);
        }
    }
    let dropped = past.drop_surplus(limits::HISTORY_ENTRIES_MAX);
    Ok(Kept { past, dropped, needs_record })
}

/// A record for what a first assignment has found and not yet replaced.
fn first_record(file: &DeviceFile, id: &RegistrationId, of: Order, now: Timestamp) -> Result<Registration, Fault> {
    let machine = Machine::load(id.clone(), None, file.open.clone(), file.earlier.clone());
    let machine = machine.map_err(|illegal| Fault::new(Reason::Internal, illegal.to_string()))?;
    let Some(this) = machine.open_move(of) else {
        return Err(Fault::new(Reason::Internal, format!("move {of} is not open")));
    };
    Ok(machine.record_of(&this.intent, OperationStatus::Assigning, this.started_at, now))
}

/// The home among what was found: where it is open, else where the record says, else where it came last.
///
/// What a hub that was restored itself has may be of an earlier time than everything else: it stands back behind whatever
/// came later elsewhere, and behind a record that is newer than all that was found.
fn choose(recorded: Option<(&HubId, Order)>, seen: &[Sighting], restored: &BTreeSet<HubId>) -> Option<Sighting> {
    if let Some((hub, generation)) = recorded
        && restored.contains(hub)
        && seen.iter().all(|it| it.generation < generation && (it.phase != Phase::Open || restored.contains(&it.hub)))
    {
        return Some(Sighting { hub: hub.clone(), phase: Phase::Open, generation });
    }
    let is_outdone =
        |it: &Sighting| restored.contains(&it.hub) && seen.iter().any(|other| other.generation > it.generation);
    let current = || seen.iter().filter(|it| !is_outdone(it));
    let open = current().filter(|it| it.phase == Phase::Open).max_by_key(|it| it.generation);
    let known = || current().find(|it| recorded.is_some_and(|(hub, _)| it.hub == *hub));
    open.or_else(known).or_else(|| current().max_by_key(|it| it.generation)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::hub_id;

    #[test]
    fn a_device_lives_where_it_is_found() {
        use Phase::{Open, Sealed, Staged};
        for (known, seen, restored, expected) in [
            (Some(("a", 1)), vec![], vec![], None),
            (None, vec![("a", Staged, 1)], vec![], Some(("a", 1))),
            (Some(("a", 1)), vec![("a", Open, 1)], vec![], Some(("a", 1))),
            (Some(("a", 1)), vec![("b", Open, 2)], vec![], Some(("b", 2))),
            (Some(("a", 1)), vec![("a", Sealed, 1), ("b", Open, 2)], vec![], Some(("b", 2))),
            (Some(("a", 1)), vec![("a", Sealed, 1), ("b", Staged, 2)], vec![], Some(("a", 1))),
            (Some(("c", 1)), vec![("a", Sealed, 1), ("b", Staged, 2)], vec![], Some(("b", 2))),
            (Some(("a", 1)), vec![("a", Open, 1), ("b", Open, 2)], vec![], Some(("b", 2))),
            (Some(("b", 2)), vec![("a", Open, 1), ("b", Staged, 2)], vec![], Some(("a", 1))),
            // One that was restored has what was there at some earlier time.
            (Some(("a", 1)), vec![("a", Open, 1), ("b", Staged, 2)], vec!["a"], Some(("b", 2))),
            (Some(("a", 1)), vec![("a", Open, 1), ("b", Sealed, 2)], vec!["a"], Some(("b", 2))),
            (Some(("a", 1)), vec![("a", Open, 1), ("b", Staged, 2)], vec!["b"], Some(("a", 1))),
            (Some(("a", 1)), vec![("a", Open, 1)], vec!["a"], Some(("a", 1))),
            (Some(("a", 1)), vec![("a", Open, 4)], vec!["a"], Some(("a", 4))),
            // The record is newer than all copies of hubs: the device was on its way between them.
            (Some(("b", 2)), vec![("a", Open, 1)], vec!["a", "b"], Some(("b", 2))),
            (Some(("b", 2)), vec![], vec!["a", "b"], Some(("b", 2))),
            (Some(("b", 2)), vec![("a", Sealed, 1)], vec!["b"], Some(("b", 2))),
            (Some(("b", 2)), vec![], vec!["a"], None),
            (Some(("b", 2)), vec![("a", Open, 1)], vec!["b"], Some(("a", 1))),
            (Some(("b", 2)), vec![("a", Open, 3)], vec!["a", "b"], Some(("a", 3))),
        ] {
            let seen: Vec<Sighting> = seen
                .into_iter()
                .map(|(hub, phase, generation)| Sighting { hub: hub_id(hub), phase, generation: Order(generation) })
                .collect();
            let known = known.map(|(hub, generation)| (hub_id(hub), Order(generation)));
            let restored: BTreeSet<HubId> = restored.into_iter().map(hub_id).collect();
            let recorded = known.as_ref().map(|(hub, generation)| (hub, *generation));
            let found = choose(recorded, &seen, &restored).map(|it| (it.hub.to_string(), it.generation.0));
            let expected = expected.map(|(hub, generation)| (hub.to_owned(), generation));
            assert_eq!(found, expected, "{known:?} {seen:?} {restored:?}");
        }
    }
}
