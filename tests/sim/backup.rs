//! Hubs that come back as an older copy of themselves, and the service's own code going through them, one turn at a time
//! while everything else goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Context;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::task::noop_waker_ref;
use rehome::domain::{DeviceId, Hub, HubId, Incarnation, RegistrationId};
use rehome::hubs::HubConnector;
use rehome::hubs::entry::{Entry, Phase};
use rehome::service::{Ground, News, ReconcileNews, Reinstatement, Tidings};
use tokio::sync::Mutex as Gate;

use super::copies::Copied;
use super::dice::Dice;
use super::identity::identity;
use super::keys::Keys;
use super::world::{Held, World, broken};

/// Copies of one hub that are kept.
const BACKUPS_MAX: usize = 3;

/// All that a hub had at some time.
pub type Backup = BTreeMap<DeviceId, Entry>;

/// What a run has told those who must hear of it.
#[derive(Debug, Default)]
struct Heard {
    read_again: Mutex<Vec<RegistrationId>>,
    changed: Mutex<Vec<Hub>>,
}

impl Tidings for Heard {
    fn read_again(&self, id: &RegistrationId) {
        self.read_again.lock().unwrap().push(id.clone());
    }

    fn hub_changed(&self, hub: Hub) -> BoxFuture<'_, ()> {
        self.changed.lock().unwrap().push(hub);
        ready(()).boxed()
    }
}

/// A run of the reconciler that is under way.
pub struct Going {
    run: BoxFuture<'static, ()>,
    news: News,
    heard: Arc<Heard>,
}

impl fmt::Debug for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Going")
    }
}

impl World {
    /// A copy of a hub is made while it goes on.
    pub fn back_up_hub(&mut self, number: usize) {
        let Some(id) = self.hub_of(number) else { return };
        let Some(hub) = self.hubs.get_mut(&id).filter(|hub| !hub.scripted.is_restored()) else { return };
        if hub.backups.len() >= BACKUPS_MAX {
            hub.backups.remove(0);
        }
        hub.backups.push(hub.scripted.snapshot());
        self.note(|| format!("{id} is backed up"));
    }

    /// The hub comes back as what it was when one of its copies was made.
    pub fn restore_hub(&mut self, number: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        let Some(id) = self.hub_of(number) else { return };
        let backups = &self.hubs[&id].backups;
        if backups.is_empty() {
            return;
        }
        let backup = dice.pick(backups).clone();
        self.incarnations += 1;
        let incarnation = Incarnation(1_000 + self.incarnations);
        let copied = backup.iter().filter_map(|(device, entry)| {
            let tenant = entry.tenant.as_ref()?;
            Some((device.clone(), Copied { generation: tenant.generation, keys: Keys::of(&tenant.state) }))
        });
        self.store.ledger(|ledger| ledger.restored(&id, copied.collect()));
        if let Some(hub) = self.hubs.get_mut(&id) {
            hub.restored = true;
            hub.scripted.restore(incarnation, backup);
        }
        self.note(|| format!("{id} is restored from a backup, as incarnation {incarnation}"));
        self.fault("hub restored from a backup");
        let known: Vec<DeviceId> = self.store.ledger(|ledger| ledger.owed.keys().cloned().collect());
        self.dirty.extend(known);
    }

    pub fn waiting_hub(&self) -> Option<&HubId> {
        self.hubs.iter().find(|(_, hub)| hub.scripted.is_restored()).map(|(id, _)| id)
    }

    /// One turn of going through the hubs; begins when something waits.
    pub fn reconcile(&mut self) -> Held {
        let mut going = match self.going.take() {
            Some(going) => going,
            None if self.waiting_hub().is_some() => self.begin_to_reconcile(),
            None => return Ok(()),
        };
        self.store.pace(true);
        let poll = going.run.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
        self.store.pace(false);
        self.count_strike();
        while let Ok(news) = going.news.try_recv() {
            match news {
                Ok(ReconcileNews::Device(news)) => {
                    self.note(|| format!("  {} at {} is {}", news.device, news.hub, news.became.as_str()));
                    // Closed, until somebody takes it over.
                    if news.became == Reinstatement::Unknown {
                        self.store.ledger(|ledger| ledger.left.insert((news.hub.clone(), news.device.clone())));
                    }
                    *self.tally.reinstated.entry(news.became.as_str()).or_default() += 1;
                }
                Ok(other) => self.note(|| format!("  {other:?}")),
                Err(fault) => self.note(|| format!("  going through the hubs ends: {fault}")),
            }
        }
        for hub in std::mem::take(&mut *going.heard.changed.lock().unwrap()) {
            if let Some(own) = self.hubs.get_mut(&hub.id) {
                own.record = hub.clone();
            }
            self.surroundings.fleet.set_record(hub);
        }
        self.readmitted()?;
        if self.store.take_crash() {
            self.crash();
            return Ok(());
        }
        let read_again = std::mem::take(&mut *going.heard.read_again.lock().unwrap());
        if poll.is_pending() {
            self.going = Some(going);
        }
        for id in read_again {
            let Some(device) = (0..self.devices.len()).find(|device| identity(*device).id == id) else { continue };
            self.read_again(device)?;
        }
        Ok(())
    }

    fn begin_to_reconcile(&mut self) -> Going {
        self.note(|| "an operator has the hubs gone through".to_owned());
        let heard = Arc::new(Heard::default());
        let ground = Ground {
            store: self.store.clone(),
            clock: self.clock.clone(),
            entropy: self.surroundings.entropy.clone(),
            fleet: self.surroundings.fleet.clone(),
            tidings: heard.clone(),
            fleet_gate: Arc::new(Gate::default()),
        };
        let (run, news) = ground.go_through(None, false, "operator");
        Going { run, news, heard }
    }

    /// Hubs that accept writes again: what they have of each device must be what it ought to be.
    fn readmitted(&mut self) -> Held {
        let waiting: Vec<HubId> = self.store.ledger(|ledger| ledger.waiting.keys().cloned().collect());
        for id in waiting {
            let Some(hub) = self.hubs.get(&id).filter(|hub| !hub.scripted.is_restored()) else { continue };
            let there = hub.scripted.snapshot().into_iter().filter_map(|(device, entry)| {
                let tenant = entry.tenant?;
                Some((device, (tenant.phase, Keys::of(&tenant.state))))
            });
            let there: BTreeMap<DeviceId, (Phase, Keys)> = there.collect();
            self.note(|| format!("{id} accepts writes again"));
            self.store.ledger(|ledger| ledger.readmitted(&id, &there)).or_else(broken)?;
            let known: Vec<DeviceId> = self.store.ledger(|ledger| ledger.owed.keys().cloned().collect());
            self.dirty.extend(known);
            self.dirty.extend(there.into_keys());
        }
        Ok(())
    }

    /// As a hub's actor does when the service starts: what the hub says of itself.
    pub fn greet(&mut self, id: &HubId) {
        let Some(hub) = self.hubs.get(id).filter(|hub| !hub.is_cut()) else { return };
        let report = hub.scripted.describe().now_or_never().and_then(Result::ok);
        let known = hub.record.incarnation;
        if report.is_some_and(|report| report.restored || known.is_some_and(|known| known != report.incarnation)) {
            self.surroundings.fleet.set_restored(id, true);
        }
    }
}
