//! What the service learns of its homes from the hubs' feeds, by its own code, one turn at a time.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Context;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::task::noop_waker_ref;
use rehome::actors::{FeedFault, FeedRead, FeedRound};
use rehome::domain::HubId;

use super::line::Line;
use super::world::{Held, World};

/// A round of reading that is under way.
pub struct Reading {
    pub hub: HubId,
    round: BoxFuture<'static, ()>,
    ended: Arc<Mutex<Option<Result<FeedRead, FeedFault>>>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({})", self.hub)
    }
}

impl World {
    /// As a hub's actor begins: not of a hub that waits, nor twice at once.
    pub fn read_feed(&mut self, number: usize) {
        let Some(id) = self.hub_of(number) else { return };
        if self.surroundings.fleet.is_restored(&id) || self.readings.iter().any(|reading| reading.hub == id) {
            return;
        }
        let hub = &self.hubs[&id];
        let connector = Line { scripted: hub.scripted.clone(), cut: hub.cut() };
        let (record, store, clock) = (hub.record.clone(), self.store.clone(), self.clock.clone());
        let ended = Arc::new(Mutex::new(None));
        let tell = ended.clone();
        let round = async move {
            let read = FeedRound::of(&record, &connector, store.as_ref());
            let outcome = read.read(|| rehome::ambient::Clock::now(clock.as_ref())).await;
            *tell.lock().unwrap() = Some(outcome);
        };
        self.readings.push(Reading { hub: id, round: round.boxed(), ended });
    }

    /// Every round goes on by one turn.
    pub fn read_on(&mut self) -> Held {
        for mut reading in std::mem::take(&mut self.readings) {
            self.store.pace(true);
            let poll = reading.round.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
            self.store.pace(false);
            if poll.is_pending() {
                self.readings.push(reading);
                continue;
            }
            let outcome = reading.ended.lock().unwrap().take();
            match outcome {
                Some(Ok(read)) => {
                    *self.tally.acts.entry("rounds of a feed read").or_default() += 1;
                    self.note(|| format!("the feed of {} is read: {} devices", reading.hub, read.devices));
                }
                Some(Err(FeedFault::Restored { current }))
                    if self.hubs.get(&reading.hub).is_some_and(|hub| hub.record.incarnation == Some(current)) => {}
                Some(Err(FeedFault::Restored { .. })) => {
                    self.note(|| format!("the feed of {} says that it went back in time", reading.hub));
                    self.surroundings.fleet.set_restored(&reading.hub, true);
                }
                Some(Err(FeedFault::Waits | FeedFault::Hub(_) | FeedFault::Read(_) | FeedFault::Write(_))) | None => {}
            }
        }
        Ok(())
    }

    /// The home of a device is cut off until its rule lets it be passed by, or nearly so; its devices still reach it.
    pub fn strand(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = super::dice::Dice::new(seed);
        let id = &super::identity::identity(device).id;
        let home = self.store.ledger(|ledger| ledger.homes.get(id).and_then(|home| home.hub.clone()));
        let Some(home) = home.filter(|home| self.hubs.contains_key(home)) else { return Ok(()) };
        if let Some(hub) = self.hubs.get(&home) {
            hub.set_cut(true);
        }
        self.note(|| format!("the way to {home} is cut for long"));
        self.fault("hub unreachable for long");
        self.let_late_writes_in(device, &mut dice);
        self.send_elsewhere(device, &home);
        self.register(device, dice.draw())?;
        for _ in 0..6 + dice.below(10) {
            self.write(device, dice.draw())?;
            self.advance(std::time::Duration::from_secs(2 + dice.draw() % 12))?;
            for _ in 0..6 {
                let of_device = |flight: &super::network::Flight| {
                    flight.caller.as_ref().is_some_and(|caller| caller.device == device)
                };
                let Some(at) = self.network.flights.iter().position(of_device) else { break };
                let is_home = self.network.flights[at].call.hub == home;
                let fate = if is_home { super::script::Fate::Unreachable } else { super::script::Fate::Arrives };
                if self.carry(at, fate) {
                    self.answer(self.network.answers.len() - 1)?;
                }
            }
            while let Some(at) = self.network.answers.iter().position(|(caller, _)| caller.device == device) {
                self.answer(at)?;
            }
            self.check()?;
        }
        Ok(())
    }
}
