//! Linking hubs, their lifecycle, and taking one down on purpose.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::domain::hub::HubEvent;
use crate::domain::{
    AuditAction, AuditEntry, Fault, Hub, HubDraft, HubId, HubKind, HubState, Reason, Timestamp, Version, limits,
};
use crate::hubs::HubConnector;
use crate::moves::{Move, MoveLog, OwedState, names};
use crate::store::{Change, Commit, CommitFault, Expect, HubUse, Unexpected};

use super::{Service, fault};

/// A hub as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubReading {
    pub hub: Hub,
    pub used: HubUse,
    /// It answers now; false while taken down.
    pub reachable: bool,
    /// It goes on from an older copy and waits to be gone through.
    pub restored: bool,
    /// When everything in its change feed was read last.
    pub synced_at: Option<Timestamp>,
    /// When it last answered a renewal of its lease.
    pub lease_renewed_at: Option<Timestamp>,
    /// Where they were asked for.
    pub debts: Option<HubDebts>,
}

/// What is owed to a hub after moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubDebts {
    pub owed: u64,
    /// Refused by the hub: they wait for a person.
    pub stuck: u64,
    pub oldest_at: Option<Timestamp>,
    /// Devices that were moved away while it could not be reached.
    pub splits: u64,
}

/// How often devices are forced out of a hub while others go on to name it.
const FORCED_TRIES_MAX: u32 = 16;

/// Devices with unfinished moves that are read for the debts of a hub: a second's work.
const DEBTORS_MAX: usize = 2_000;

impl Service {
    /// Opens every linked hub and takes up every device that has work left. Once, before anything is served.
    /// Returns the number of devices taken up.
    pub async fn start(&self) -> Result<usize, Fault> {
        let _gate = self.inner.fleet_gate.lock().await;
        let (fleet, life) = (self.inner.directory.fleet(), self.inner.store.life().await.map_err(fault::of_store)?);
        if life.restored {
            fleet.set_halted(Some("the store was put back to an earlier state".to_owned()));
        }
        for (hub, _) in self.inner.store.hubs().await.map_err(fault::of_store)? {
            let connector = self.open(&hub).await?;
            let (mut restored, mut unheard) = (false, None);
            match connector.describe().await {
                Ok(report) => {
                    restored = report.restored || hub.incarnation.is_some_and(|known| known != report.incarnation);
                    if report.highest > life.last {
                        let why = format!(
                            "hub {} has obeyed order {}, and the service knows of none above {}",
                            hub.id, report.highest, life.last
                        );
                        fleet.set_halted(Some(format!("{why}: its store went back in time")));
                        self.note_restored().await;
                    }
                }
                Err(fault) => {
                    tracing::warn!(hub = %hub.id, "the hub does not answer: {fault}");
                    unheard = Some(life.last);
                }
            }
            // A copy that lies under its old name shows by its feed, before anybody can write there.
            let since = self.inner.store.load_feed(&hub.id).await.map_err(fault::of_store)?;
            if let (Some(since), Ok(page)) = (since, connector.changes(since, 1).await) {
                restored |= page.next.incarnation != since.incarnation;
            }
            if hub.taken_down {
                self.inner.hubs.take_down(&hub.id);
            }
            let id = hub.id.clone();
            self.inner.directory.attach_hub(hub, connector);
            fleet.set_unheard(&id, unheard);
            if restored {
                fleet.set_restored(&id, true);
            }
        }
        self.inner.directory.resume().await
    }

    /// Keeps over a restart that the store went back in time.
    async fn note_restored(&self) {
        let note = Commit { changes: vec![Change::SetRestored(true)], ..Commit::default() };
        if let Err(fault) = self.inner.store.commit(note).await {
            tracing::warn!("that the store went back in time was not written: {fault}");
        }
    }

    /// Links a hub, active. Its data is opened, or made.
    pub async fn link_hub(&self, draft: HubDraft, by: &str) -> Result<HubReading, Fault> {
        draft.check()?;
        let _gate = self.inner.fleet_gate.lock().await;
        let linked = self.inner.store.hubs().await.map_err(fault::of_store)?;
        if linked.iter().any(|(hub, _)| hub.id == draft.id) {
            return Err(Fault::new(Reason::AlreadyExists, format!("hub {} is linked already", draft.id)));
        }
        if linked.len() >= limits::HUBS_MAX {
            let message = format!("{} hubs are linked, which is the most", limits::HUBS_MAX);
            return Err(Fault::invalid("hub", message));
        }
        let (id, now) = (draft.id.clone(), self.inner.clock.now());
        let mut hub = Hub {
            id: id.clone(),
            host_name: String::new(),
            endpoint: String::new(),
            kind: draft.kind,
            state: HubState::Active,
            location: None,
            weight: draft.weight,
            capacity: None,
            calls_per_second: None,
            incarnation: None,
            taken_down: false,
            created_at: now,
            updated_at: now,
            version: Version::ABSENT,
        };
        self.settle(&mut hub, draft);
        self.check_host_name(&hub)?;
        let connector = self.open(&hub).await?;
        match self.record_link(hub, connector.as_ref(), by).await {
            Ok(hub) => {
                self.inner.directory.attach_hub(hub.clone(), connector);
                Ok(self.reading(hub, HubUse::default()))
            }
            Err(fault) => {
                drop(connector);
                self.inner.hubs.close(&id).await;
                Err(fault)
            }
        }
    }

    async fn record_link(&self, hub: Hub, connector: &dyn HubConnector, by: &str) -> Result<Hub, Fault> {
        let report = connector
            .describe()
            .await
            .map_err(|fault| Fault::new(Reason::HubUnavailable, format!("hub {} does not answer: {fault}", hub.id)))?;
        if report.devices > 0 {
            // They may have other homes by now: opening these would give them two.
            let message = format!(
                "the data of hub {} holds {} devices of an earlier link: choose another id, or move its file away",
                hub.id, report.devices
            );
            return Err(Fault::new(Reason::HubStateConflict, message).with("devices", report.devices.to_string()));
        }
        let hub = Hub { incarnation: Some(report.incarnation), ..hub };
        let detail = format!("hub {} was linked", hub.id);
        self.put_hub(hub, AuditAction::HubLinked, by, detail).await
    }

    /// One hub.
    pub async fn hub(&self, id: &HubId) -> Result<HubReading, Fault> {
        let hubs = self.hubs().await?;
        hubs.into_iter().find(|reading| reading.hub.id == *id).ok_or_else(|| fault::no_hub(id))
    }

    /// One hub and what is owed to it.
    pub async fn hub_and_debts(&self, id: &HubId) -> Result<HubReading, Fault> {
        let reading = self.hub(id).await?;
        let (store, mut debts) = (&self.inner.store, HubDebts::default());
        for device in store.unfinished().await.map_err(fault::of_store)?.iter().take(DEBTORS_MAX) {
            let file = store.load_device(device).await.map_err(fault::of_store)?;
            // A journal that cannot be replayed is said by its device's actor.
            for this in file.open.into_iter().filter_map(|log| Move::replay(log).ok()) {
                for owed in this.owed().iter().filter(|owed| owed.hub == *id) {
                    debts.owed += 1;
                    debts.stuck += u64::from(matches!(owed.state, OwedState::Stuck(_)));
                    debts.oldest_at = Some(debts.oldest_at.map_or(owed.since, |oldest| oldest.min(owed.since)));
                }
                debts.splits += u64::from(this.bypass().is_some_and(|(hub, _)| hub == *id));
            }
        }
        Ok(HubReading { debts: Some(debts), ..reading })
    }

    /// Reads what is new in a hub's change feed. Answers how many devices had changed.
    pub async fn sync_hub(&self, id: &HubId) -> Result<u64, Fault> {
        Ok(self.inner.directory.read_feed(id).await?.devices)
    }

    /// Every linked hub, by id.
    pub async fn hubs(&self) -> Result<Vec<HubReading>, Fault> {
        let hubs = self.inner.store.hubs().await.map_err(fault::of_store)?;
        Ok(hubs.into_iter().map(|(hub, used)| self.reading(hub, used)).collect())
    }

    /// Replaces a hub's settings. Moves no device by itself.
    pub async fn update_hub(&self, draft: HubDraft, version: Version, by: &str) -> Result<HubReading, Fault> {
        draft.check()?;
        let _gate = self.inner.fleet_gate.lock().await;
        let HubReading { mut hub, used, .. } = self.hub(&draft.id).await?;
        fault::check_etag(format!("hub {}", hub.id), Some(version), hub.version)?;
        match (hub.kind, draft.kind) {
            (HubKind::Embedded, HubKind::Embedded) => {}
        }
        self.settle(&mut hub, draft);
        self.check_host_name(&hub)?;
        let detail = format!("hub {} was updated", hub.id);
        self.change_hub(hub, used, by, detail).await
    }

    /// One step in a hub's lifecycle. A step that changes nothing is not written.
    pub async fn step_hub(
        &self,
        id: &HubId,
        event: HubEvent,
        version: Option<Version>,
        by: &str,
    ) -> Result<HubReading, Fault> {
        let _gate = self.inner.fleet_gate.lock().await;
        let HubReading { hub, used, .. } = self.hub(id).await?;
        fault::check_etag(format!("hub {id}"), version, hub.version)?;
        let state = hub
            .state
            .apply(event)
            .map_err(|illegal| Fault::new(Reason::HubStateConflict, illegal.to_string()).with("hub", id.as_str()))?;
        if state == hub.state {
            return Ok(self.reading(hub, used));
        }
        let detail = format!("hub {id} was {}, is now {}", hub.state.as_str(), state.as_str());
        self.change_hub(Hub { state, ..hub }, used, by, detail).await
    }

    /// Forgets a hub; its data stays where it is. Forced, it is the operator's word that the hub accepts no writes: moves
    /// that have not pivoted are given up, what is owed to the hub is abandoned, and devices that live there are left
    /// without a hub.
    pub async fn unlink_hub(&self, id: &HubId, version: Option<Version>, force: bool, by: &str) -> Result<(), Fault> {
        let _gate = self.inner.fleet_gate.lock().await;
        let HubReading { hub, used, .. } = self.hub(id).await?;
        fault::check_etag(format!("hub {id}"), version, hub.version)?;
        let HubUse { homes, arriving: _, moves } = used;
        if !force && (homes > 0 || moves > 0) {
            return Err(fault::hub_in_use(id, homes, moves));
        }
        let now = self.inner.clock.now();
        let entry = |detail: String| AuditEntry {
            hub: Some(id.clone()),
            ..AuditEntry::new(now, by, AuditAction::HubUnlinked, detail)
        };
        let change = Change::DeleteHub { id: id.clone(), version: hub.version };
        if force {
            // What begins while the last ones are forced out is found by the commit, and forced out in its turn. A move that
            // was may stay open for another hub; it owes this one nothing.
            for attempt in 1.. {
                let after = self.inner.store.life().await.map_err(fault::of_store)?.last;
                self.force_out(id, by).await?;
                let detail = format!(
                    "hub {id} was unlinked by force: {by} states that it accepts no writes; {homes} devices lived there and {moves} moves named it"
                );
                let commit = Commit {
                    expect: vec![Expect::HubUnnamed { hub: id.clone(), after }],
                    changes: vec![change.clone()],
                    audit: vec![entry(detail)],
                };
                match self.inner.store.commit(commit).await {
                    Ok(_) => break,
                    Err(CommitFault::Unexpected(Unexpected::HubInUse { .. })) if attempt < FORCED_TRIES_MAX => {}
                    Err(fault) => return Err(fault::of_commit(fault)),
                }
            }
        } else {
            let expect = vec![Expect::HubUnused { hub: id.clone() }];
            let audit = vec![entry(format!("hub {id} was unlinked"))];
            let commit = Commit { expect, changes: vec![change], audit };
            self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        }
        // The connector closes its files when the last call on them has ended.
        drop(self.inner.directory.detach_hub(id));
        self.inner.hubs.close(id).await;
        Ok(())
    }

    /// Has every device give up what names the hub.
    async fn force_out(&self, id: &HubId, by: &str) -> Result<(), Fault> {
        let why = format!("hub {id} is unlinked by force: it accepts no writes");
        let store = &self.inner.store;
        let unfinished = store.unfinished().await.map_err(fault::of_store)?;
        let forced = stream::iter(unfinished).map(|device| {
            let why = why.clone();
            async move {
                let file = store.load_device(&device).await.map_err(fault::of_store)?;
                // A journal that cannot be replayed is said by its device's actor, which refuses.
                let is_named = |log: MoveLog| Move::replay(log).map_or(true, |this| names(&this, id));
                if !file.open.into_iter().any(is_named) {
                    return Ok(());
                }
                self.inner.directory.force_out(&device, id, by, &why).await?.map_err(fault::of_refused)?;
                Ok(())
            }
        });
        forced.buffer_unordered(limits::RECONCILED_AT_ONCE).try_collect::<()>().await
    }

    /// Makes a hub behave as if it did not answer, for the service and for devices.
    pub async fn take_down_hub(&self, id: &HubId, by: &str) -> Result<HubReading, Fault> {
        self.set_taken_down(id, true, by).await
    }

    /// Ends what [`Service::take_down_hub`] began.
    pub async fn bring_up_hub(&self, id: &HubId, by: &str) -> Result<HubReading, Fault> {
        self.set_taken_down(id, false, by).await
    }

    async fn set_taken_down(&self, id: &HubId, taken_down: bool, by: &str) -> Result<HubReading, Fault> {
        let _gate = self.inner.fleet_gate.lock().await;
        let HubReading { hub, used, .. } = self.hub(id).await?;
        if hub.taken_down == taken_down {
            return Ok(self.reading(hub, used));
        }
        let detail = format!("hub {id} was {}", if taken_down { "taken down" } else { "brought up" });
        let reading = self.change_hub(Hub { taken_down, ..hub }, used, by, detail).await?;
        if taken_down {
            self.inner.hubs.take_down(id);
        } else {
            self.inner.hubs.bring_up(id);
        }
        Ok(reading)
    }

    /// The settings of a draft; what it leaves open is the service's own choice.
    fn settle(&self, hub: &mut Hub, draft: HubDraft) {
        let config = &self.inner.config;
        let HubDraft { id, kind, host_name, endpoint, location, weight, capacity, calls_per_second } = draft;
        hub.host_name = host_name.unwrap_or_else(|| format!("{id}.{}", config.embedded_domain));
        hub.endpoint = endpoint.unwrap_or_else(|| config.embedded_endpoint.clone());
        (hub.kind, hub.location, hub.weight) = (kind, location, weight);
        (hub.capacity, hub.calls_per_second) = (capacity, calls_per_second);
    }

    /// Callers over HTTPS and MQTT say by a host name whom they mean: no two may have the same.
    fn check_host_name(&self, hub: &Hub) -> Result<(), Fault> {
        let berths = self.inner.directory.fleet().berths();
        let other = berths
            .iter()
            .map(|berth| &berth.hub)
            .find(|other| other.id != hub.id && other.host_name.eq_ignore_ascii_case(&hub.host_name));
        if let Some(other) = other {
            return Err(Fault::invalid("hub.host_name", format!("is the one of hub {}", other.id)));
        }
        if self.inner.config.shared_access.host_name.eq_ignore_ascii_case(&hub.host_name) {
            return Err(Fault::invalid("hub.host_name", "is the one of this service"));
        }
        Ok(())
    }

    async fn open(&self, hub: &Hub) -> Result<Arc<dyn HubConnector>, Fault> {
        self.inner.hubs.open(hub).await.map_err(|fault| {
            Fault::new(Reason::HubUnavailable, format!("hub {} cannot be opened: {fault}", hub.id))
                .with("hub", hub.id.as_str())
        })
    }

    async fn change_hub(&self, hub: Hub, used: HubUse, by: &str, detail: String) -> Result<HubReading, Fault> {
        let hub = Hub { updated_at: self.inner.clock.now(), ..hub };
        let hub = self.put_hub(hub, AuditAction::HubUpdated, by, detail).await?;
        self.inner.directory.hub_changed(hub.clone()).await;
        Ok(self.reading(hub, used))
    }

    async fn put_hub(&self, hub: Hub, action: AuditAction, by: &str, detail: String) -> Result<Hub, Fault> {
        let now = self.inner.clock.now();
        let audit = AuditEntry { hub: Some(hub.id.clone()), ..AuditEntry::new(now, by, action, detail) };
        let change = Change::PutHub(Box::new(hub.clone()));
        let commit = Commit { changes: vec![change], audit: vec![audit], ..Commit::default() };
        self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        Ok(Hub { version: hub.version.next(), ..hub })
    }

    fn reading(&self, hub: Hub, used: HubUse) -> HubReading {
        let berth = self.inner.directory.fleet().berth(&hub.id);
        let berth = berth.as_ref();
        HubReading {
            reachable: berth.is_some_and(|berth| berth.reachable) && !hub.taken_down,
            restored: berth.is_some_and(|berth| berth.restored),
            synced_at: berth.and_then(|berth| berth.feed_at),
            lease_renewed_at: berth.and_then(|berth| berth.lease_at),
            debts: None,
            hub,
            used,
        }
    }
}
