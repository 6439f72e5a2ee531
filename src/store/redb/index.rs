//! What the store keeps in mind beside the file: open moves by device, and how hubs are used. Made again at every open,
//! and changed by the writer alone, so that an intent costs no row at a random key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::domain::{DeviceId, HubId, Order, RegistrationId};
use crate::store::open_move::OpenMove;
use crate::store::{HubUse, StoreFault};

/// One change; a commit's changes are applied when the commit is.
#[derive(Debug, Clone)]
pub(super) enum IndexChange {
    /// A registration lives somewhere else than before; absent is nowhere.
    Home {
        from: Option<HubId>,
        to: Option<HubId>,
    },
    /// A move was opened, or has a new line.
    Move(OpenMove),
    Closed(Order),
}

/// The index.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    moves: BTreeMap<Order, OpenMove>,
    by_device: BTreeMap<String, BTreeSet<Order>>,
    /// By the name a device has in its hubs.
    by_name: HashMap<DeviceId, BTreeSet<Order>>,
    /// Hubs that are not used have no entry.
    uses: HashMap<HubId, HubUse>,
}

impl Index {
    pub fn apply(&mut self, change: IndexChange) {
        match change {
            IndexChange::Home { from, to } => {
                from.iter().for_each(|hub| self.count(hub, |used| used.homes = used.homes.saturating_sub(1)));
                to.iter().for_each(|hub| self.count(hub, |used| used.homes += 1));
            }
            IndexChange::Move(open) => {
                self.take_out(open.generation);
                open.arriving_at().into_iter().for_each(|hub| self.count(hub, |used| used.arriving += 1));
                open.hubs().for_each(|hub| self.count(hub, |used| used.moves += 1));
                self.by_name.entry(open.device.clone()).or_default().insert(open.generation);
                self.by_device.entry(open.registration.folded()).or_default().insert(open.generation);
                self.moves.insert(open.generation, open);
            }
            IndexChange::Closed(generation) => self.take_out(generation),
        }
    }

    /// Counts the homes that were found at the hub of a key's prefix.
    pub fn settle(&mut self, prefix: &[u8], homes: u64) -> Result<(), StoreFault> {
        if homes == 0 {
            return Ok(());
        }
        let hub = prefix.strip_suffix(&[0]).and_then(|hub| std::str::from_utf8(hub).ok());
        let hub = hub.and_then(|hub| HubId::parse(hub).ok());
        let hub = hub.ok_or_else(|| StoreFault::Corrupt("a home names no hub".to_owned()))?;
        self.count(&hub, |used| used.homes += homes);
        Ok(())
    }

    fn take_out(&mut self, generation: Order) {
        let Some(open) = self.moves.remove(&generation) else { return };
        open.arriving_at()
            .into_iter()
            .for_each(|hub| self.count(hub, |used| used.arriving = used.arriving.saturating_sub(1)));
        open.hubs().for_each(|hub| self.count(hub, |used| used.moves = used.moves.saturating_sub(1)));
        if let Some(generations) = self.by_name.get_mut(&open.device) {
            generations.remove(&generation);
            if generations.is_empty() {
                self.by_name.remove(&open.device);
            }
        }
        let folded = open.registration.folded();
        if let Some(generations) = self.by_device.get_mut(&folded) {
            generations.remove(&generation);
            if generations.is_empty() {
                self.by_device.remove(&folded);
            }
        }
    }

    fn count(&mut self, hub: &HubId, change: impl FnOnce(&mut HubUse)) {
        let used = self.uses.entry(hub.clone()).or_default();
        change(used);
        if *used == HubUse::default() {
            self.uses.remove(hub);
        }
    }

    pub fn use_of(&self, hub: &HubId) -> HubUse {
        self.uses.get(hub).copied().unwrap_or_default()
    }

    /// How many open moves name the hub that began after an order.
    pub fn named_after(&self, hub: &HubId, after: Order) -> u64 {
        let later = self.moves.range((Bound::Excluded(after), Bound::Unbounded));
        later.filter(|(_, open)| open.hubs().any(|named| named == hub)).count() as u64
    }

    pub fn open_move(&self, generation: Order) -> Option<&OpenMove> {
        self.moves.get(&generation)
    }

    /// Another registration than `but` that has an open move of a device of this name.
    pub fn names(&self, device: &DeviceId, but: &RegistrationId) -> Option<RegistrationId> {
        let moves = self.by_name.get(device).into_iter().flatten().filter_map(|generation| self.moves.get(generation));
        moves.map(|open| &open.registration).find(|owner| *owner != but).cloned()
    }

    /// The open moves of a device, oldest first.
    pub fn generations(&self, folded: &str) -> Vec<Order> {
        self.by_device.get(folded).into_iter().flatten().copied().collect()
    }

    /// The devices that their open moves may list under another status than their record, or without one, whose folded id
    /// is after `after`.
    pub fn unsettled(&self, after: Option<&str>) -> BTreeSet<String> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_device
            .range::<str, _>((start, Bound::Unbounded))
            .filter(|(_, generations)| {
                let mut moves = generations.iter().filter_map(|generation| self.moves.get(generation));
                moves.any(|open| open.is_under_way() || open.is_refused())
            })
            .map(|(folded, _)| folded.clone())
            .collect()
    }

    /// The open moves of a device and the order of the last line of each, oldest first.
    pub fn seen(&self, folded: &str) -> Vec<(Order, Order)> {
        let generations = self.by_device.get(folded).into_iter().flatten();
        let moves = generations.filter_map(|generation| self.moves.get(generation));
        moves.map(|open| (open.generation, open.last)).collect()
    }

    /// The devices with an open move, by id.
    pub fn unfinished(&self) -> Vec<RegistrationId> {
        let newest = |generations: &BTreeSet<Order>| generations.last().and_then(|last| self.moves.get(last));
        self.by_device.values().filter_map(newest).map(|open| open.registration.clone()).collect()
    }
}
