//! The hubs: the real rules of an entry behind a network that can be cut, and what a hub's actor makes of its silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rehome::actors::Berth;
use rehome::ambient::Clock;
use rehome::domain::hub::HubEvent;
use rehome::domain::{
    CallFault, CallOutcome, Geo, Hub, HubCall, HubId, HubKind, HubState, Incarnation, Timestamp, Version,
};
use rehome::hubs::scripted::ScriptedHub;
use rehome::store::{Change, Commit, Expect, Store};

use super::actors::Op;
use super::backup::Backup;
use super::dice::Dice;
use super::line::Line;
use super::world::{Held, World, broken};

/// As a hub's actor has them.
const FAILURES_TO_OPEN: u32 = 5;
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(30);

/// How often an operator forces a hub out that is not gone yet: more often than faults can wait for it.
const FORCED_TRIES: usize = 64;

/// A linked hub.
#[derive(Debug)]
pub struct SimHub {
    pub record: Hub,
    pub scripted: ScriptedHub,
    /// The service does not reach it.
    cut: Arc<AtomicBool>,
    /// It came back as an older copy at least once.
    pub restored: bool,
    /// Copies of it.
    pub backups: Vec<Backup>,
    failures: u32,
    /// Set while the circuit is open: the next probe, and the pause after it.
    probe: Option<(Timestamp, Duration)>,
}

impl SimHub {
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// The way itself, for whoever goes it step by step.
    pub fn cut(&self) -> Arc<AtomicBool> {
        self.cut.clone()
    }

    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.probe.is_some()
    }
}

impl World {
    /// The operator links a hub of a new name.
    pub fn link_hub(&mut self, dice: &mut Dice) {
        let id = HubId::parse(&format!("hub-{}", self.hubs_made)).unwrap();
        self.hubs_made += 1;
        let incarnation = Incarnation(self.hubs_made as u128);
        let now = self.now();
        let record = Hub {
            host_name: format!("{id}.test"),
            id: id.clone(),
            endpoint: "127.0.0.1:1".to_owned(),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: Geo::new(dice.below(180) as f64 - 90.0, dice.below(360) as f64 - 180.0),
            weight: 1 + dice.below(3) as u32,
            capacity: dice.percent(30).then(|| 1 + dice.below(3) as u64),
            calls_per_second: None,
            incarnation: Some(incarnation),
            taken_down: false,
            created_at: now,
            updated_at: now,
            version: Version::ABSENT,
        };
        let scripted = ScriptedHub::new(incarnation, self.clock.clone());
        let cut = Arc::new(AtomicBool::new(false));
        let hub = SimHub {
            record: record.clone(),
            scripted,
            cut,
            restored: false,
            backups: Vec::new(),
            failures: 0,
            probe: None,
        };
        self.note(|| format!("{id} is linked"));
        self.hubs.insert(id, hub);
        self.put_hub(record);
    }

    /// Gives a linked hub its place on the board of a new life.
    pub fn moor(&mut self, record: Hub) {
        let Some(hub) = self.hubs.get_mut(&record.id) else { return };
        hub.record = record.clone();
        (hub.failures, hub.probe) = (0, None);
        let connector = Arc::new(Line { scripted: hub.scripted.clone(), cut: hub.cut.clone() });
        let id = record.id.clone();
        self.surroundings.fleet.put(Berth::new(record, None, connector));
        self.greet(&id);
    }

    fn put_hub(&mut self, record: Hub) {
        let commit = Commit { changes: vec![Change::PutHub(Box::new(record.clone()))], ..Commit::default() };
        if self.operate(commit) {
            let record = Hub { version: record.version.next(), ..record };
            if let Some(hub) = self.hubs.get_mut(&record.id) {
                hub.record = record.clone();
            }
            if self.surroundings.fleet.is_linked(&record.id) {
                self.op(Op::HubChanged(Box::new(record.clone())));
                self.surroundings.fleet.set_record(record);
            } else {
                self.moor(record);
            }
        }
    }

    /// An operator's commit; `false` when an expectation did not hold.
    pub fn operate(&mut self, commit: Commit) -> bool {
        let done = self.store.commit(commit.clone()).now_or_never().is_some_and(|written| written.is_ok());
        if done {
            self.op(Op::Operate(Box::new(commit)));
        }
        done
    }

    pub fn change_hub(&mut self, number: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let Some(id) = self.hub_of(number) else {
            self.link_hub(&mut dice);
            return Ok(());
        };
        let record = self.hubs[&id].record.clone();
        let stepped = |event| Hub { state: record.state.apply(event).unwrap_or(record.state), ..record.clone() };
        let (what, changed) = match dice.below(12) {
            0..3 => ("drained", stepped(HubEvent::Drain)),
            3..5 => ("activated", stepped(HubEvent::Activate)),
            5 => ("retired", stepped(HubEvent::Retire)),
            6 => ("taken down", Hub { taken_down: true, ..record.clone() }),
            7 => ("brought up", Hub { taken_down: false, ..record.clone() }),
            8 => (
                "given another capacity",
                Hub { capacity: dice.percent(60).then(|| dice.below(4) as u64), ..record.clone() },
            ),
            9 => ("given another weight", Hub { weight: 1 + dice.below(5) as u32, ..record.clone() }),
            10 if self.hubs.len() < 5 => {
                self.link_hub(&mut dice);
                return Ok(());
            }
            _ => return self.unlink(&id, dice.percent(25)),
        };
        if changed != record {
            self.note(|| format!("{id} is {what}"));
            self.put_hub(changed);
        }
        Ok(())
    }

    pub fn drain_or_activate(&mut self, number: usize) {
        let Some(id) = self.hub_of(number) else { return };
        let record = self.hubs[&id].record.clone();
        let event = if record.state == HubState::Active { HubEvent::Drain } else { HubEvent::Activate };
        let state = record.state.apply(event).unwrap_or(record.state);
        self.put_hub(Hub { state, ..record });
    }

    /// Forced, the operator signs that the hub accepts no writes any more: here it is destroyed.
    fn unlink(&mut self, id: &HubId, force: bool) -> Held {
        if self.hubs.len() < 2 {
            return Ok(());
        }
        let version = self.hubs[id].record.version;
        let change = Change::DeleteHub { id: id.clone(), version };
        let commit = |expect| Commit { expect: vec![expect], changes: vec![change.clone()], ..Commit::default() };
        if force {
            let mut tries = 0..FORCED_TRIES;
            loop {
                if tries.next().is_none() {
                    return broken(format!("{id} cannot be forced out"));
                }
                // What begins meanwhile is forced out in its turn.
                let Some(after) = self.force_out(id)? else { continue };
                if self.operate(commit(Expect::HubUnnamed { hub: id.clone(), after })) {
                    break;
                }
            }
        } else if !self.operate(commit(Expect::HubUnused { hub: id.clone() })) {
            return Ok(());
        }
        self.note(|| format!("{id} is unlinked{}", if force { " by force, and is no more" } else { "" }));
        self.fault(if force { "hub unlinked by force" } else { "hub unlinked" });
        self.surroundings.fleet.remove(id);
        self.hubs.remove(id);
        self.readings.retain(|reading| reading.hub != *id);
        // Late copies to it arrive nowhere.
        self.network.flights.retain(|flight| flight.call.hub != *id || flight.caller.is_some());
        let abandoned = self.store.ledger(|ledger| {
            ledger.strays.retain(|(hub, _)| hub != id);
            ledger.left.retain(|(hub, _)| hub != id);
            ledger.waiting.remove(id);
            let mut abandoned = 0;
            for (device, hubs) in &mut ledger.owed {
                if let Some(keys) = hubs.remove(id) {
                    abandoned += keys.count();
                    ledger.uprooted.insert((device.clone(), id.clone()), keys);
                }
            }
            abandoned
        });
        self.tally.abandoned += abandoned;
        Ok(())
    }

    /// The hub that a device lives at is unlinked by force; under reset the device starts anew elsewhere.
    pub fn uproot(&mut self, device: usize) -> Held {
        let id = &super::identity::identity(device).id;
        let home = self.store.ledger(|ledger| ledger.homes.get(id).and_then(|home| home.hub.clone()));
        let Some(home) = home.filter(|home| self.hubs.contains_key(home)) else { return Ok(()) };
        self.unlink(&home, true)?;
        self.send_elsewhere(device, &home);
        Ok(())
    }

    /// What a call's end says about its hub.
    pub fn note_health(&mut self, call: &HubCall, outcome: &CallOutcome) {
        let now = self.clock.now();
        let Some(hub) = self.hubs.get_mut(&call.hub) else { return };
        match outcome {
            Ok(_) | Err(CallFault::Refused(_)) => {
                hub.failures = 0;
                if hub.probe.take().is_some() {
                    self.surroundings.fleet.set_reachable(&call.hub, true);
                }
            }
            Err(CallFault::Unavailable(_) | CallFault::Unknown(_)) if hub.probe.is_none() => {
                hub.failures += 1;
                if hub.failures >= FAILURES_TO_OPEN {
                    hub.probe = Some((now.plus(PROBE_FIRST), PROBE_FIRST));
                    self.surroundings.fleet.set_reachable(&call.hub, false);
                    self.note(|| format!("{} does not answer, and is given up for now", call.hub));
                    self.fault("circuit opens");
                }
            }
            Err(CallFault::Unavailable(_) | CallFault::Unknown(_)) => {}
        }
    }

    pub fn probe_hubs(&mut self) {
        let now = self.clock.now();
        for (id, hub) in &mut self.hubs {
            let Some((at, pause)) = hub.probe.filter(|(at, _)| *at <= now) else { continue };
            if hub.is_cut() {
                let pause = (pause * 2).min(PROBE_MAX);
                hub.probe = Some((at.max(now).plus(pause), pause));
            } else {
                (hub.failures, hub.probe) = (0, None);
                self.surroundings.fleet.set_reachable(id, true);
            }
        }
    }

    /// Every hub answers and takes what comes: for coming to rest.
    pub fn heal_hubs(&mut self) {
        let ids: Vec<HubId> = self.hubs.keys().cloned().collect();
        for id in ids {
            let record = self.hubs[&id].record.clone();
            if record.taken_down {
                self.put_hub(Hub { taken_down: false, ..record });
            }
            if let Some(hub) = self.hubs.get_mut(&id) {
                hub.set_cut(false);
                (hub.failures, hub.probe) = (0, None);
                hub.scripted.set_devices_max(None);
                self.surroundings.fleet.set_reachable(&id, true);
            }
        }
    }
}
