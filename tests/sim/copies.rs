//! What the ledger makes of a hub that comes back as an older copy of itself.
//!
//! Whatever anybody else has of a device must be there again: the copy itself, what was seen of the hub, what a move
//! brought there, what moves had sealed there and given back. The rest is lost, and the audit log must have said so before
//! the hub accepted another write.

use std::collections::BTreeMap;

use rehome::domain::{AuditAction, DeviceId, DeviceState, HubId, Order, RegistrationId};
use rehome::hubs::entry::Phase;
use rehome::moves::Plan;
use rehome::moves::plan::Side;
use rehome::service::Reinstatement;
use rehome::store::Commit;

use super::keys::Keys;
use super::ledger::{Home, Ledger, Stage};

/// A device in a hub's copy.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub generation: Order,
    pub keys: Keys,
}

/// What the service has read of a device in the feed of a hub.
#[derive(Debug, Clone)]
pub struct Seen {
    pub hub: HubId,
    progress: u128,
    pub keys: Keys,
}

/// Whether what is said to have become of a device admits that writes may be gone.
fn admits_loss(became: Reinstatement) -> bool {
    match became {
        Reinstatement::Kept | Reinstatement::Replaced | Reinstatement::Recreated | Reinstatement::StartedAnew => true,
        Reinstatement::AsJournaled
        | Reinstatement::Collected
        | Reinstatement::Unknown
        | Reinstatement::HomeCorrected
        | Reinstatement::Missing => false,
    }
}

impl Ledger {
    /// The hub has what this copy has, and accepts nothing.
    pub fn restored(&mut self, hub: &HubId, copies: BTreeMap<DeviceId, Copied>) {
        let is_again = self.waiting.insert(hub.clone(), copies).is_some();
        // What was said to be lost of the copy before may be in this one: it has been given up all the same.
        if is_again {
            let said = self.reported.keys().filter(|(of, _)| of == hub).cloned();
            self.said_before.extend(said);
        } else {
            self.reported.retain(|(of, _), _| of != hub);
        }
    }

    /// Rows of a feed, as the store keeps them: of homes, the furthest.
    pub fn saw(&mut self, hub: &HubId, rows: &[(DeviceId, DeviceState)]) {
        for (device, state) in rows {
            if self.home_of(device).is_none_or(|home| home.hub.as_ref() != Some(hub)) {
                continue;
            }
            let progress = state.twin.progress();
            let is_older = self.seen.get(device).is_some_and(|seen| seen.hub == *hub && seen.progress > progress);
            if !is_older {
                self.seen.insert(device.clone(), Seen { hub: hub.clone(), progress, keys: Keys::of(state) });
            }
        }
    }

    /// What the audit log says of devices of restored hubs.
    pub fn report(&mut self, commit: &Commit) {
        for entry in commit.audit.iter().filter(|entry| entry.action == AuditAction::HubReconciled) {
            let (Some(hub), Some(registration)) = (&entry.hub, &entry.registration) else { continue };
            let Some(home) = self.homes.get(registration) else { continue };
            let says = |became: &Reinstatement| entry.detail.contains(&format!("{} {}", home.device, became.as_str()));
            let dated = entry.detail.contains(", as it was at ");
            if dated || Reinstatement::ALL.into_iter().any(|became| admits_loss(became) && says(&became)) {
                let told = self.reported.entry((hub.clone(), home.device.clone())).or_default();
                *told += 1;
            }
        }
    }

    pub fn home_of(&self, device: &DeviceId) -> Option<&Home> {
        self.homes.values().find(|home| home.device == *device)
    }

    /// The writes of a home at a hub that somebody else knows of.
    fn known(&self, device: &DeviceId, hub: &HubId, home: &Home, copy: Option<&Copied>) -> Keys {
        let copied = copy.filter(|copy| copy.generation == home.generation).map(|copy| copy.keys);
        let seen = self.seen.get(device).filter(|seen| seen.hub == *hub).map(|seen| seen.keys);
        let brought = self.moves.get(&home.generation).map(|made| made.brought);
        let left = self.moves.range(home.generation..).map(|(_, note)| note).filter(|note| {
            note.device == *device
                && note.plan.hub(Side::From) == Some(hub)
                && !note.bypassed
                && note.stage != Stage::After
        });
        let sealed = left.filter_map(|note| note.sealed);
        copied.into_iter().chain(seen).chain(brought).chain(sealed).fold(Keys::default(), |all, keys| all | keys)
    }

    /// The hub accepts writes again, with this in it.
    pub fn readmitted(&mut self, hub: &HubId, there: &BTreeMap<DeviceId, (Phase, Keys)>) -> Result<(), String> {
        let Some(copies) = self.waiting.remove(hub) else { return Ok(()) };
        let devices: Vec<DeviceId> =
            self.owed.iter().filter(|(_, hubs)| hubs.contains_key(hub)).map(|(device, _)| device.clone()).collect();
        for device in devices {
            let owed = *self.owed_at(&device, hub);
            let here = there.get(&device).map(|(_, keys)| *keys).unwrap_or_default();
            let lost = owed.without(here);
            match self.home_of(&device).filter(|home| home.hub.as_ref() == Some(hub)) {
                Some(home) => {
                    let known = self.known(&device, hub, home, copies.get(&device));
                    let forgotten = lost & known;
                    let is_said = self.said_before.contains(&(hub.clone(), device.clone()));
                    if !forgotten.is_empty() && !is_said {
                        return Err(format!("{device} at {hub} is set right without {forgotten:?}, which are known"));
                    }
                    if !lost.is_empty() && !self.reported.contains_key(&(hub.clone(), device.clone())) {
                        return Err(format!("nobody is told that {device} at {hub} has lost {lost:?}"));
                    }
                    self.lost_with_copies += lost.count();
                }
                // Of a home that was left unsealed, or of nobody's.
                None => self.lost_late += lost.count(),
            }
            *self.owed_at(&device, hub) = owed & here;
        }
        self.said_before.retain(|(of, _)| of != hub);
        self.strays.retain(|(at, device)| at != hub || there.contains_key(device));
        for (device, (phase, _)) in there {
            let home = self.home_of(device);
            let lives = home.is_some_and(|home| home.hub.as_ref() == Some(hub));
            // Without a home, what is there waits for a first one, which takes it over.
            if home.is_none_or(|home| home.hub.is_none()) {
                self.left.insert((hub.clone(), device.clone()));
            }
            // A home that was given up is open until it is collected.
            let given_up = self.moves.values().any(|note| {
                note.device == *device && note.open && note.plan == Plan::Release { from: Some(hub.clone()) }
            });
            if *phase == Phase::Open && !lives && !given_up && !self.splits(device).any(|from| from == hub) {
                return Err(format!("{hub} is let in with {device} open, which does not live there"));
            }
        }
        Ok(())
    }
}

/// What must be found: each case takes away one thing that makes the first one right.
#[test]
fn a_copy_that_is_let_in_wrongly_is_found() {
    let (a, b) = (HubId::parse("a").unwrap(), HubId::parse("b").unwrap());
    let device = DeviceId::parse("dev-0").unwrap();
    let (of_copy, later) = (Keys::one(0), Keys::one(1));
    let check = |home: &HubId, generation: u64, reported: bool, there: Keys, found: Option<&str>| {
        let mut ledger = Ledger::default();
        let home =
            Home { device: device.clone(), hub: Some(home.clone()), generation: Order(generation), past: Vec::new() };
        ledger.homes.insert(RegistrationId::parse("dev-0").unwrap(), home);
        ledger.accepted(&device, &a, of_copy | later, Keys::default());
        let copied = Copied { generation: Order(5), keys: of_copy };
        ledger.restored(&a, BTreeMap::from([(device.clone(), copied)]));
        if reported {
            ledger.reported.insert((a.clone(), device.clone()), 1);
        }
        let said = ledger.readmitted(&a, &BTreeMap::from([(device.clone(), (Phase::Open, there))]));
        match (said, found) {
            (Ok(()), None) => assert_eq!(ledger.lost_with_copies, 1),
            (Err(said), Some(found)) => assert!(said.contains(found), "{said}"),
            (said, found) => panic!("{said:?}, not {found:?}"),
        }
    };
    check(&a, 5, true, of_copy, None);
    check(&a, 5, false, of_copy, Some("nobody is told"));
    check(&a, 5, true, later, Some("which are known"));
    check(&b, 9, true, of_copy, Some("which does not live there"));
}
