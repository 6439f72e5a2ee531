//! The linked hubs as every actor sees them: records, health, occupancy and how to reach them.
//!
//! A board that hub actors write their health on and device actors read a snapshot from. Occupancy is refreshed at most
//! once a second, which is enough for choosing; that a hub is not overfilled is the store's check at the commit.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use actix::{Actor, Addr};

use crate::domain::{Hub, HubId, Order, Timestamp, limits};
use crate::hubs::{HubConnector, TwinHost};
use crate::policy::HubView;
use crate::store::HubUse;
use crate::telemetry;

use super::device::Surroundings;
use super::hub::HubActor;

/// One hub's place on the board.
#[derive(Debug, Clone)]
pub struct Berth {
    pub hub: Hub,
    /// Absent where somebody else makes the calls, as a simulation does.
    pub actor: Option<Addr<HubActor>>,
    pub connector: Arc<dyn HubConnector>,
    /// The circuit to it is closed.
    pub reachable: bool,
    /// Its data went back in time: no call is made until its devices have been gone through.
    pub restored: bool,
    /// Everything in its change feed was read at this time.
    pub feed_at: Option<Timestamp>,
    /// When the hub last answered a renewal of its lease.
    pub lease_at: Option<Timestamp>,
    pub used: HubUse,
    /// It has not answered since the service started: the highest order that had been given out by then. What it has obeyed
    /// above that is of a life of the store that is forgotten.
    pub unheard: Option<Order>,
}

impl Berth {
    /// Of a hub about which nothing is known yet.
    pub fn new(hub: Hub, actor: Option<Addr<HubActor>>, connector: Arc<dyn HubConnector>) -> Self {
        Self {
            hub,
            actor,
            connector,
            reachable: true,
            restored: false,
            feed_at: None,
            lease_at: None,
            used: HubUse::default(),
            unheard: None,
        }
    }

    /// The twins it serves, while it is up.
    pub fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        if self.hub.taken_down { None } else { self.connector.twins() }
    }
}

/// The board.
#[derive(Debug)]
pub struct Fleet {
    board: RwLock<Board>,
    /// How often the feed of each hub is read.
    feed_every: Duration,
    /// When a hub counts as away.
    away_after: Duration,
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(limits::FEED_EVERY_DEFAULT, limits::BYPASS_AFTER)
    }
}

#[derive(Debug, Default)]
struct Board {
    berths: BTreeMap<HubId, Berth>,
    views: Arc<Vec<HubView>>,
    counted_at: Option<Timestamp>,
    /// Why no device is moved, when that is so.
    halted: Option<String>,
}

impl Fleet {
    pub fn new(feed_every: Duration, away_after: Duration) -> Self {
        Self { board: RwLock::default(), feed_every, away_after }
    }

    pub(super) fn away_after(&self) -> Duration {
        self.away_after
    }

    pub(super) fn feed_every(&self) -> Duration {
        self.feed_every
    }

    /// Why no device is moved and no hub is called: the service's own memory went back in time.
    pub fn halted(&self) -> Option<String> {
        self.read().halted.clone()
    }

    /// Stops all moves, or lets them go on.
    pub fn set_halted(&self, why: Option<String>) {
        telemetry::moves_halted(why.is_some());
        match (&why, self.halted()) {
            (Some(why), None) => tracing::error!("no device is moved until `rehome reconcile` has run: {why}"),
            (None, Some(_)) => tracing::info!("devices are moved again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.write().halted = why;
    }

    /// Every linked hub, for choosing among them.
    pub fn views(&self) -> Arc<Vec<HubView>> {
        self.read().views.clone()
    }

    pub fn berth(&self, hub: &HubId) -> Option<Berth> {
        self.read().berths.get(hub).cloned()
    }

    pub(super) fn actor(&self, hub: &HubId) -> Option<Addr<HubActor>> {
        self.read().berths.get(hub)?.actor.clone()
    }

    /// The hub's actor; a new one, on the arbiter of the caller, when the old one ended by a panic. What it had under way
    /// is answered *unknown* and asked again under its order, so nothing depends on its memory.
    pub(super) fn living_actor(&self, hub: &HubId, surroundings: &Arc<Surroundings>) -> Option<Addr<HubActor>> {
        let living = self.actor(hub)?;
        if living.connected() {
            return Some(living);
        }
        let mut revived = None;
        self.change(|board| {
            let Some(berth) = board.berths.get_mut(hub) else { return };
            if !berth.actor.as_ref().is_some_and(Addr::connected) {
                tracing::error!(hub = %hub, "the hub's actor ended by a panic and is started again: a defect");
                let actor = HubActor::new(berth.hub.clone(), berth.connector.clone(), surroundings.clone());
                berth.actor = Some(actor.start());
                berth.reachable = true;
            }
            revived = berth.actor.clone();
        });
        revived
    }

    pub fn is_linked(&self, hub: &HubId) -> bool {
        self.read().berths.contains_key(hub)
    }

    pub fn berths(&self) -> Vec<Berth> {
        self.read().berths.values().cloned().collect()
    }

    /// Gives a hub its place.
    pub fn put(&self, berth: Berth) {
        self.change(|board| {
            board.berths.insert(berth.hub.id.clone(), berth);
        });
    }

    /// Takes a hub off the board.
    pub fn remove(&self, hub: &HubId) -> Option<Berth> {
        let mut removed = None;
        self.change(|board| removed = board.berths.remove(hub));
        removed
    }

    /// Notes a hub's new record.
    pub fn set_record(&self, hub: Hub) {
        self.change(|board| {
            if let Some(berth) = board.berths.get_mut(&hub.id) {
                berth.hub = hub;
            }
        });
    }

    /// Notes whether the circuit to a hub is closed.
    /// Notes that a hub goes on from an older copy, or that its devices have been gone through.
    pub fn set_restored(&self, hub: &HubId, restored: bool) {
        self.change(|board| {
            let Some(berth) = board.berths.get_mut(hub) else { return };
            if restored && !berth.restored {
                tracing::error!(hub = %hub, "the hub was restored from an older copy: it waits for `rehome reconcile`");
            }
            berth.restored = restored;
        });
    }

    pub fn is_restored(&self, hub: &HubId) -> bool {
        self.read().berths.get(hub).is_some_and(|berth| berth.restored)
    }

    /// Notes that a hub did not answer at the start, when this was the highest order, or that it has answered by now.
    pub fn set_unheard(&self, hub: &HubId, last: Option<Order>) {
        if let Some(berth) = self.write().berths.get_mut(hub) {
            berth.unheard = last;
        }
    }

    pub(super) fn unheard(&self, hub: &HubId) -> Option<Order> {
        self.read().berths.get(hub)?.unheard
    }

    pub(super) fn note_feed(&self, hub: &HubId, at: Timestamp) {
        if let Some(berth) = self.write().berths.get_mut(hub) {
            berth.feed_at = Some(at);
        }
    }

    pub(super) fn note_lease(&self, hub: &HubId, at: Timestamp) {
        if let Some(berth) = self.write().berths.get_mut(hub) {
            berth.lease_at = Some(at);
        }
    }

    pub fn set_reachable(&self, hub: &HubId, reachable: bool) {
        self.change(|board| {
            if let Some(berth) = board.berths.get_mut(hub) {
                berth.reachable = reachable;
            }
        });
    }

    /// Whether occupancy was counted longer than a second ago (or never, or the clock went back).
    pub(super) fn is_count_old(&self, now: Timestamp) -> bool {
        self.read().counted_at.is_none_or(|at| now < at || now.0 - at.0 >= 1000)
    }

    /// A commit found a hub fuller than the board says: count again before the next choice.
    pub(super) fn expire_counts(&self) {
        self.write().counted_at = None;
    }

    pub(super) fn set_counts(&self, counts: impl IntoIterator<Item = (HubId, HubUse)>, now: Timestamp) {
        self.change(|board| {
            for (hub, used) in counts {
                if let Some(berth) = board.berths.get_mut(&hub) {
                    berth.used = used;
                }
            }
            board.counted_at = Some(now);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Board)) {
        let mut board = self.write();
        change(&mut board);
        for berth in board.berths.values() {
            telemetry::hub_reachable(&berth.hub.id, berth.reachable && !berth.hub.taken_down);
            telemetry::hub_restored(&berth.hub.id, berth.restored);
        }
        let views = board.berths.values().map(|berth| HubView {
            hub: berth.hub.clone(),
            occupied: berth.used.homes.saturating_add(berth.used.arriving),
            reachable: berth.reachable && !berth.restored,
        });
        board.views = Arc::new(views.collect());
    }

    fn read(&self) -> RwLockReadGuard<'_, Board> {
        self.board.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Board> {
        self.board.write().unwrap_or_else(PoisonError::into_inner)
    }
}
