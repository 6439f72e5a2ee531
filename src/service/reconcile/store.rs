//! The service's own store went back in time: its orders are raised above every hub's, and its homes are held against
//! what the hubs have. Until that is over no device is moved and no other call is made.
//!
//! What the store says of moves under way is not believed: a move that it remembers in the middle may be over for long.
//! Every such move is closed, and the device lives where it is found.

use std::collections::BTreeMap;

use crate::domain::{
    Assignment, AuditEntry, CallFault, DeviceId, Fault, HubAnswer, HubCall, HubEffect, HubId, Operation,
    OperationStatus, Order, Reason, Registration, RegistrationId, limits,
};
use crate::hubs::entry::Phase;
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

/// Everything that all hubs have.
type Sightings = BTreeMap<DeviceId, Vec<Sighting>>;

impl Run {
    pub(super) async fn store(&self, life: StoreLife) -> Result<(), Fault> {
        let inner = &self.service.inner;
        let berths = inner.directory.fleet().berths();
        // All of them must answer: one that does not may have obeyed the highest order, and may have any device.
        let (mut highest, mut sightings) = (life.last, Sightings::new());
        for berth in &berths {
            let hub = &berth.hub.id;
            let advice = |why: CallFault| {
                let Fault { message, .. } = away(hub, why);
                let message = format!("{message}; bring it up, or unlink it by force: every hub must be asked");
                Fault::new(Reason::HubUnavailable, message).with("hub", hub.as_str())
            };
            highest = highest.max(berth.connector.describe().await.map_err(advice)?.highest);
            let mut since = None;
            loop {
                let page = berth.connector.changes(since, limits::FEED_ROWS_MAX).await.map_err(advice)?;
                for row in page.rows {
                    let (phase, generation) = (row.phase, row.generation);
                    let sighting = Sighting { hub: hub.clone(), phase, generation };
                    sightings.entry(row.device).or_default().push(sighting);
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
                self.look_at(file, &mut sightings).await?;
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
        for (device, seen) in sightings {
            for sighting in seen {
                self.news(&sighting.hub, &device, None, Reinstatement::Unknown, None, None).await?;
            }
        }
        if !self.dry_run {
            let commit = Commit { changes: vec![Change::SetRestored(false)], ..Commit::default() };
            inner.store.commit(commit).await.map_err(fault::of_commit)?;
            inner.directory.fleet().set_halted(None);
        }
        self.teller.tell(ReconcileNews::StoreDone).await
    }

    /// Holds one device against what was found.
    async fn look_at(&self, file: DeviceFile, sightings: &mut Sightings) -> Result<(), Fault> {
        let Some(record) = &file.registration else { return Ok(()) };
        let seen = sightings.remove(&record.device_id).unwrap_or_default();
        let known = record.assignment.as_ref().map(|home| &home.hub);
        let Some(home) = choose(known, &seen) else {
            if let Some(hub) = known {
                self.news(hub, &record.device_id, Some(&record.id), Reinstatement::Missing, None, None).await?;
            }
            if !file.open.is_empty() && !self.dry_run {
                self.close(&file, Some(record), None, &record.id).await?;
            }
            return Ok(());
        };
        let is_corrected = known != Some(&home.hub);
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
                self.collect(&other.hub, &record.id).await?;
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
        let inner = &self.service.inner;
        let now = inner.clock.now();
        let moves = replay(file)?;
        let seen = moves.iter().map(|this| (this.generation, this.last)).collect();
        let closed = moves.iter().map(|this| Change::CloseMove { generation: this.generation });
        let kept = |generation: Order| match record {
            Some(record) => record.past.contains(generation),
            None => file.earlier.contains(generation),
        };
        let gone = moves.iter().map(|this| this.generation).filter(|generation| !kept(*generation));
        let forgotten = gone.map(|generation| Change::ForgetMove { generation });
        let corrected = record.map(|record| {
            let before = record.assignment.as_ref().filter(|before| home.is_some_and(|home| home.hub == before.hub));
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
            Change::PutRegistration(Box::new(Registration { assignment, operation, updated_at: now, ..record.clone() }))
        });
        let detail = match home {
            Some(home) => format!("the store was put back: {id} lives at {}, where it was found", home.hub),
            None => format!("the store was put back: what it took for under way of {id} is closed"),
        };
        let mut entry = AuditEntry::new(now, &*self.by, crate::domain::AuditAction::StoreReconciled, detail);
        entry.registration = Some(id.clone());
        entry.hub = home.map(|home| home.hub.clone());
        let commit = Commit {
            expect: vec![Expect::Journal { registration: id.clone(), seen }],
            changes: closed.chain(forgotten).chain(corrected).collect(),
            audit: vec![entry],
        };
        let order = match inner.store.commit(commit).await {
            Err(CommitFault::Unexpected(_)) => {
                let message = format!("{id} went on meanwhile: run it again to go on");
                return Err(Fault::new(Reason::ServiceUnavailable, message));
            }
            written => written.map_err(fault::of_commit)?,
        };
        inner.directory.read_again(id);
        Ok(order)
    }

    /// Opens a home that a move had sealed or staged. A hub that waits is set right when it is gone through.
    async fn open(&self, hub: &HubId, device: &DeviceId, order: Order) -> Result<(), Fault> {
        let Some(berth) = self.service.inner.directory.fleet().berth(hub) else { return Ok(()) };
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

/// The home among what was found: where it is open, else where the record says, else where it came last.
fn choose<'s>(known: Option<&HubId>, seen: &'s [Sighting]) -> Option<&'s Sighting> {
    let open = seen.iter().filter(|it| it.phase == Phase::Open).max_by_key(|it| it.generation);
    let recorded = || seen.iter().find(|it| Some(&it.hub) == known);
    open.or_else(recorded).or_else(|| seen.iter().max_by_key(|it| it.generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::hub_id;

    #[test]
    fn a_device_lives_where_it_is_found() {
        use Phase::{Open, Sealed, Staged};
        for (known, seen, expected) in [
            (Some("a"), vec![], None),
            (None, vec![("a", Staged, 1)], Some("a")),
            (Some("a"), vec![("a", Open, 1)], Some("a")),
            (Some("a"), vec![("b", Open, 2)], Some("b")),
            (Some("a"), vec![("a", Sealed, 1), ("b", Open, 2)], Some("b")),
            (Some("a"), vec![("a", Sealed, 1), ("b", Staged, 2)], Some("a")),
            (Some("c"), vec![("a", Sealed, 1), ("b", Staged, 2)], Some("b")),
            (Some("a"), vec![("a", Open, 1), ("b", Open, 2)], Some("b")),
            (Some("b"), vec![("a", Open, 1), ("b", Staged, 2)], Some("a")),
        ] {
            let seen: Vec<Sighting> = seen
                .into_iter()
                .map(|(hub, phase, generation)| Sighting { hub: hub_id(hub), phase, generation: Order(generation) })
                .collect();
            let known = known.map(hub_id);
            let found = choose(known.as_ref(), &seen).map(|it| it.hub.to_string());
            assert_eq!(found.as_deref(), expected, "{known:?} {seen:?}");
        }
    }
}
