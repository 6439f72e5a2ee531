//! The promises, checked after every event on the devices that it touched.

use std::collections::BTreeSet;

use rehome::domain::{DeviceId, HubId};
use rehome::hubs::entry::{Outcome, Phase};

use super::keys::Keys;
use super::world::{Held, World, broken};

/// What a hub has of a device.
struct Seen {
    hub: HubId,
    phase: Phase,
    /// In its twin, or in one that was replaced and whose answer the hub still gives.
    keys: Keys,
    versions: (u64, u64, u64),
}

impl World {
    pub fn check(&mut self) -> Held {
        let (broken_rules, touched) =
            self.store.ledger(|ledger| (std::mem::take(&mut ledger.broken), std::mem::take(&mut ledger.touched)));
        if let Some(first) = broken_rules.into_iter().next() {
            return broken(first);
        }
        let mut names = std::mem::take(&mut self.dirty);
        names.extend(touched);
        names.iter().try_for_each(|name| self.check_device(name))
    }

    pub fn check_all(&mut self) -> Held {
        let names: BTreeSet<DeviceId> = self.store.ledger(|ledger| {
            let homes = ledger.homes.values().map(|home| home.device.clone());
            homes.chain(ledger.owed.keys().cloned()).chain(ledger.history.keys().cloned()).collect()
        });
        names.iter().try_for_each(|name| self.check_device(name))
    }

    fn seen(&self, name: &DeviceId) -> Vec<Seen> {
        let seen = self.hubs.iter().filter_map(|(id, hub)| {
            hub.scripted.inspect(name, |entry| {
                let entry = entry?;
                let tenant = entry.tenant.as_ref()?;
                let replaced = match &entry.last.outcome {
                    Outcome::Replaced(state) => Keys::of(state),
                    Outcome::Done | Outcome::Sealed | Outcome::Refused(_) => Keys::default(),
                };
                let twin = &tenant.state.twin;
                Some(Seen {
                    hub: id.clone(),
                    phase: tenant.phase,
                    keys: Keys::of(&tenant.state) | replaced,
                    versions: (twin.desired.version, twin.reported.version, twin.version),
                })
            })
        });
        seen.collect()
    }

    fn check_device(&mut self, name: &DeviceId) -> Held {
        let seen = self.seen(name);
        self.check_writes(name, &seen)?;
        self.check_one_open(name, &seen)?;
        self.check_home(name, &seen)
    }

    /// Every accepted write is where it must be.
    fn check_writes(&self, name: &DeviceId, seen: &[Seen]) -> Held {
        self.store.ledger(|ledger| {
            for (hub, owed) in ledger.owed.get(name).into_iter().flatten() {
                // Judged once it accepts writes again.
                if ledger.waiting.contains_key(hub) {
                    continue;
                }
                let there = seen.iter().find(|seen| seen.hub == *hub).map(|seen| seen.keys).unwrap_or_default();
                if !there.holds(*owed) {
                    return broken(format!("{name} at {hub} has lost {:?}", owed.without(there)));
                }
            }
            let history = ledger.history.get(name).copied().unwrap_or_default();
            if history.is_empty() {
                return Ok(());
            }
            let kept = ledger.kept(name);
            if kept.holds(history) {
                Ok(())
            } else {
                broken(format!("{name}'s history has lost {:?}", history.without(kept)))
            }
        })
    }

    fn check_one_open(&self, name: &DeviceId, seen: &[Seen]) -> Held {
        let open: Vec<&HubId> = self.store.ledger(|ledger| {
            let is_stray = |hub: &HubId| ledger.is_nobodys(hub, name);
            // A hub that was passed by may accept late writes until it is collected: a split, which the enrollment allowed.
            let split = |hub: &HubId| ledger.splits(name).any(|from| from == hub);
            let counts = |hub: &HubId| !is_stray(hub) && !split(hub) && !ledger.waiting.contains_key(hub);
            let open = seen.iter().filter(|seen| seen.phase == Phase::Open && counts(&seen.hub));
            open.map(|seen| &seen.hub).collect()
        });
        if open.len() > 1 {
            return broken(format!("{name} is open at {} hubs: {open:?}", open.len()));
        }
        Ok(())
    }

    /// A device that was assigned has a home, whose versions never go down.
    fn check_home(&mut self, name: &DeviceId, seen: &[Seen]) -> Held {
        let (home, reborn) = self.store.ledger(|ledger| {
            let home = ledger.homes.values().find(|home| home.device == *name).and_then(|home| home.hub.clone());
            (home, ledger.reborn.remove(name))
        });
        if reborn {
            self.versions.remove(name);
        }
        // Where an operator unlinked the home by force, nobody has it.
        // One that waits to be gone through shows nothing.
        if home.as_ref().and_then(|home| self.hubs.get(home)).is_some_and(|hub| hub.scripted.is_restored()) {
            return Ok(());
        }
        let Some(home) = home.filter(|home| self.hubs.contains_key(home)) else {
            self.versions.remove(name);
            return Ok(());
        };
        let Some(there) = seen.iter().find(|seen| seen.hub == home) else {
            return broken(format!("{name} lives at {home}, which does not have it"));
        };
        if there.phase != Phase::Open {
            return Ok(());
        }
        let (desired, reported, twin) = there.versions;
        match self.versions.insert(name.clone(), there.versions) {
            Some(before) if desired < before.0 || reported < before.1 || twin < before.2 => {
                broken(format!("versions of {name} went from {before:?} to {:?}", there.versions))
            }
            Some(_) | None => Ok(()),
        }
    }
}
