//! Coming to rest: the faults end, everything that is under way arrives, and what is left must be in order.

use std::time::Duration;

use futures_util::FutureExt;
use rehome::domain::{HubId, OperationStatus, Reason, Timestamp};
use rehome::hubs::entry::Phase;
use rehome::moves::{Machine, OwedState, Standing};
use rehome::store::{DeviceFile, Store};

use super::identity::identity;
use super::script::Fate;
use super::world::{Held, World, broken};

/// Rounds until rest: a device has at most a handful of moves open, each of a handful of calls.
const ROUNDS_MAX: usize = 5_000;

impl World {
    pub fn rest(&mut self) -> Held {
        self.note(|| "the faults end".to_owned());
        self.come_to_rest()?;
        self.check_rest()?;
        self.note(|| "every device registers once more".to_owned());
        let since = self.now();
        for device in 0..self.devices.len() {
            self.register(device, device as u64)?;
            self.settle_asks()?;
            self.check()?;
        }
        self.come_to_rest()?;
        self.check_rest()?;
        (0..self.devices.len()).try_for_each(|device| self.check_first_home(device, since))
    }

    /// Nothing is wrong with any hub any more: none may refuse a device its first home.
    fn check_first_home(&self, device: usize, since: Timestamp) -> Held {
        let id = &identity(device).id;
        let record = self.store.load_device(id).now_or_never().and_then(Result::ok).and_then(|file| file.registration);
        let latest = record.filter(|it| it.assignment.is_none() && it.operation.started_at >= since);
        match latest.map(|record| record.operation.status) {
            Some(OperationStatus::Failed { reason: Reason::HubRefused, message }) => {
                broken(format!("{id} is refused its first home, though no hub has anything against it: {message}"))
            }
            Some(
                OperationStatus::Failed { .. }
                | OperationStatus::Assigning
                | OperationStatus::Assigned { .. }
                | OperationStatus::Disabled,
            )
            | None => Ok(()),
        }
    }

    fn come_to_rest(&mut self) -> Held {
        self.store.calm();
        self.mutant.is_resting = true;
        self.heal_hubs();
        for (device, seats) in self.devices.iter_mut().zip(&mut self.seats) {
            if std::mem::take(&mut device.doubled) {
                seats.clear();
            }
        }
        for _ in 0..ROUNDS_MAX {
            self.take_up()?;
            if self.going.is_some() || self.waiting_hub().is_some() {
                self.reconcile()?;
            }
            if !self.network.flights.is_empty() {
                self.carry(0, Fate::Arrives);
            } else if !self.network.answers.is_empty() {
                self.answer(0)?;
            } else if !self.questions.is_empty() {
                self.webhook(0, 7)?;
            } else {
                let busy =
                    self.seats.iter().flatten().filter(|seat| seat.core.as_ref().is_some_and(|core| !core.is_idle()));
                let Some(at) = busy.filter_map(|seat| seat.wakes_at).min() else {
                    if self.going.is_none() && self.waiting_hub().is_none() {
                        return Ok(());
                    }
                    continue;
                };
                let span = at.since(self.now()).max(Duration::from_millis(1));
                self.advance(span)?;
            }
            self.settle_asks()?;
            self.check()?;
        }
        broken("no rest: something goes on for ever")
    }

    fn check_rest(&mut self) -> Held {
        self.check_all()?;
        for device in 0..self.devices.len() {
            self.check_device_at_rest(device)?;
        }
        Ok(())
    }

    /// The device signs in with what the record says that the hub was told.
    fn check_credential(&self, file: &DeviceFile) -> Held {
        let Some(record) = &file.registration else { return Ok(()) };
        let Some(home) = &record.assignment else { return Ok(()) };
        let (Some(hub), Some(credential)) = (self.hubs.get(&home.hub), &home.credential) else { return Ok(()) };
        let kept = hub.scripted.entry(&record.device_id).and_then(|entry| entry.tenant).map(|tenant| tenant.credential);
        if kept.as_ref() == Some(credential) {
            return Ok(());
        }
        broken(format!("{} cannot sign in at {}: it was last told something else", record.device_id, home.hub))
    }

    fn check_device_at_rest(&mut self, device: usize) -> Held {
        let id = &identity(device).id;
        let Some(Ok(file)) = self.store.load_device(id).now_or_never() else {
            return broken("the store does not answer");
        };
        let machine =
            match Machine::load(id.clone(), file.registration.clone(), file.open.clone(), file.earlier.clone()) {
                Ok(machine) => machine,
                Err(illegal) => return broken(illegal.to_string()),
            };
        let mut stuck = 0;
        for open in machine.moves() {
            let what = open.intent.plan.as_str();
            if open.owed().is_empty() {
                return broken(format!("{what} {} of {id} has not ended: {:?}", open.generation, open.phase));
            }
            for owed in open.owed() {
                match &owed.state {
                    OwedState::Stuck(_) => stuck += 1,
                    OwedState::Due | OwedState::Collected => {
                        let effect = owed.effect.as_str();
                        return broken(format!(
                            "{what} {} of {id} still owes {effect} to {}",
                            open.generation, owed.hub
                        ));
                    }
                }
            }
        }
        self.tally.stuck += stuck;
        // The memory of the actor is what the store says.
        if let Some(core) = self.seats[device].first().and_then(|seat| seat.core.as_ref()) {
            let read = Standing::of(file.registration.as_ref(), machine.moves());
            if core.standing() != read {
                return broken(format!("the actor of {id} believes {:?}, the store says {read:?}", core.standing()));
            }
        }
        if stuck > 0 {
            return Ok(());
        }
        let name = match &file.registration {
            Some(record) => record.device_id.clone(),
            None => return Ok(()),
        };
        let is_stray = |hub: &HubId| self.store.ledger(|ledger| ledger.is_nobodys(hub, &name));
        let phases: Vec<(HubId, Phase)> = self
            .hubs
            .iter()
            .filter_map(|(hub, it)| Some((hub.clone(), it.scripted.phase(&name)?)))
            .filter(|(hub, _)| !is_stray(hub))
            .collect();
        let home = file.registration.as_ref().and_then(|record| record.assignment.as_ref()).map(|at| at.hub.clone());
        let home = home.filter(|home| self.hubs.contains_key(home));
        let expected: Vec<(HubId, Phase)> = home.into_iter().map(|home| (home, Phase::Open)).collect();
        if phases != expected {
            return broken(format!("{name} should be at {expected:?} and is at {phases:?}"));
        }
        self.check_credential(&file)?;
        let assigning = file.registration.is_some_and(|record| record.operation.status == OperationStatus::Assigning);
        if assigning { broken(format!("{id} is assigning for ever")) } else { Ok(()) }
    }
}
