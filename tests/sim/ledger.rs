//! What ought to be: follows every durable commit and every accepted write, and says where each write must be found.
//!
//! It reads journals as an auditor would and shares no code with the machine that writes them.

use std::collections::{BTreeMap, BTreeSet};

use rehome::domain::{DataSource, DeviceId, HubId, OperationId, Order, RegistrationId};
use rehome::moves::plan::Side;
use rehome::moves::{Carry, Effect, Intent, JournalRecord, Plan};
use rehome::store::{Change, Commit};

use super::copies::{Copied, Seen};
use super::keys::Keys;

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Before,
    After,
    Undoing,
}

/// A move as its journal tells it.
#[derive(Debug, Clone)]
pub struct Note {
    pub registration: RegistrationId,
    pub device: DeviceId,
    pub plan: Plan,
    pub open: bool,
    pub stage: Stage,
    /// Effects whose refusal is on record.
    pub stuck: usize,
    planted: Keys,
    pub sealed: Option<Keys>,
    /// The old home was left unsealed: it is collected later.
    pub bypassed: bool,
    /// The writes in all states that its lines hold.
    kept: Keys,
    /// The move that made the home which the device had when this one began.
    home: Order,
    /// The writes that it brought to the new home, where it carried a state.
    pub brought: Keys,
}

/// A registration's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    pub device: DeviceId,
    pub hub: Option<HubId>,
    pub generation: Order,
    pub past: Vec<Order>,
}

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Writes that must be in the twin that a hub has of a device.
    pub owed: BTreeMap<DeviceId, BTreeMap<HubId, Keys>>,
    /// Writes that must be in a journal that is kept.
    pub history: BTreeMap<DeviceId, Keys>,
    pub moves: BTreeMap<Order, Note>,
    pub homes: BTreeMap<RegistrationId, Home>,
    /// Devices at hubs that the service was never told of.
    pub strays: BTreeSet<(HubId, DeviceId)>,
    /// Where operators gave clean-up up: whatever is left of the device stays there, unless it lives there.
    pub left: BTreeSet<(HubId, DeviceId)>,
    /// Devices that began a new life with a fresh twin: versions start again.
    pub reborn: BTreeSet<DeviceId>,
    /// Every journal line that was ever durable: its move and its order.
    pub lines: BTreeSet<(Order, Order)>,
    /// Moves begun, by plan.
    pub begun: BTreeMap<&'static str, u64>,
    /// Registrations and devices that a commit was about since the last check.
    pub touched: BTreeSet<DeviceId>,
    pub broken: Vec<String>,
    /// Every durable commit as a line of text, where that is wanted.
    pub journal: Vec<String>,
    pub keeps_journal: bool,
    /// Writes that an operator gave up by unlinking a hub by force.
    pub abandoned: u64,
    /// What twins showed at a hub when it was unlinked by force.
    pub uprooted: BTreeMap<(DeviceId, HubId), Keys>,
    /// Writes whose history fell out of its bound.
    pub trimmed: u64,
    /// Moves whose late twins an operator removes, and the writes that went with them.
    pub pardoned: BTreeSet<Order>,
    pub forgotten: u64,
    /// Hubs that go on from an older copy and accept nothing yet, and what those copies have.
    pub waiting: BTreeMap<HubId, BTreeMap<DeviceId, Copied>>,
    /// What was seen of homes in the feeds of their hubs.
    pub seen: BTreeMap<DeviceId, Seen>,
    /// How often the audit log said of a device at a restored hub that writes may be gone.
    pub reported: BTreeMap<(HubId, DeviceId), u64>,
    /// Of these, before the hub was restored once more.
    pub said_before: BTreeSet<(HubId, DeviceId)>,
    /// Writes that a hub's copy did not have and nobody else knew: at homes, each reported; and elsewhere.
    pub lost_with_copies: u64,
    pub lost_late: u64,
    generations: BTreeMap<RegistrationId, Order>,
    last: Order,
}

impl Ledger {
    pub fn owed_at(&mut self, device: &DeviceId, hub: &HubId) -> &mut Keys {
        self.owed.entry(device.clone()).or_default().entry(hub.clone()).or_default()
    }

    /// A write was accepted; `gone` are those that it replaced.
    pub fn accepted(&mut self, device: &DeviceId, hub: &HubId, write: Keys, gone: Keys) {
        let owed = self.owed_at(device, hub);
        *owed = (*owed | write).without(gone);
        self.touched.insert(device.clone());
    }

    /// Takes in a commit that has become durable.
    pub fn note(&mut self, order: Order, commit: &Commit) {
        if order <= self.last {
            self.broken.push(format!("order {order} was given after {}", self.last));
        }
        self.last = order;
        if self.keeps_journal {
            self.journal.push(format!("{order}: {}", commit.changes.iter().map(text).collect::<Vec<_>>().join("; ")));
        }
        self.report(commit);
        let mut forgotten = Vec::new();
        for change in &commit.changes {
            match change {
                Change::Journal {
                    registration: _, generation: None, record: JournalRecord::Intent(intent), ..
                } => {
                    self.begin(order, intent);
                }
                Change::Journal { generation: None, .. } => self.broken.push("a move begins without intent".to_owned()),
                Change::Journal { generation: Some(generation), record, .. } => self.line(*generation, order, record),
                Change::CloseMove { generation } => {
                    if let Some(note) = self.moves.get_mut(generation) {
                        note.open = false;
                        self.touched.insert(note.device.clone());
                    }
                }
                Change::ForgetMove { generation } => forgotten.push(*generation),
                Change::PutRegistration(record) => {
                    let generation = record.assignment.as_ref().map(|assignment| match assignment.generation {
                        Order(0) => order,
                        named => named,
                    });
                    let highest = self.generations.entry(record.id.clone()).or_default();
                    if let Some(generation) = generation {
                        if generation < *highest {
                            let what = format!("generation of {} went from {highest} to {generation}", record.id);
                            self.broken.push(what);
                        }
                        *highest = generation;
                    }
                    let past = record.past.mapped(|it| if it == Order(0) { order } else { it }).moves;
                    let home = Home {
                        device: record.device_id.clone(),
                        hub: record.assignment.as_ref().map(|assignment| assignment.hub.clone()),
                        generation: generation.unwrap_or_default(),
                        past,
                    };
                    self.touched.insert(home.device.clone());
                    let before = self.homes.insert(record.id.clone(), home.clone());
                    if let Some(before) = before {
                        if before.hub.is_some() && home.hub.is_none() {
                            self.broken.push(format!("{} was assigned and has no home any more", record.id));
                        }
                        // A name that no hub was ever told may change: of two actors one may know an earlier record.
                        if before.device != home.device && before.hub.is_some() {
                            self.broken.push(format!("{} has another device id than before", record.id));
                        }
                    }
                }
                Change::DeleteRegistration { id, .. } => {
                    if let Some(home) = self.homes.remove(id) {
                        self.seen.remove(&home.device);
                        self.touched.insert(home.device);
                    }
                }
                Change::NoteSeen { hub, rows, .. } => self.saw(hub, rows),
                Change::PutEnrollment(_)
                | Change::DeleteEnrollment { .. }
                | Change::PutHub(_)
                | Change::DeleteHub { .. }
                | Change::RaiseOrders { .. }
                | Change::SetRestored(_) => {}
            }
        }
        for generation in forgotten {
            self.forget(generation);
        }
    }

    fn begin(&mut self, order: Order, intent: &Intent) {
        *self.begun.entry(word(&intent.plan)).or_default() += 1;
        let planted = intent.planted.as_deref().map(Keys::of).unwrap_or_default();
        let note = Note {
            registration: intent.registration.clone(),
            device: intent.device.clone(),
            plan: intent.plan.clone(),
            open: true,
            stage: if intent.plan.steps().before.is_empty() { Stage::After } else { Stage::Before },
            stuck: 0,
            planted,
            sealed: None,
            bypassed: false,
            kept: planted,
            home: self.homes.get(&intent.registration).map(|home| home.generation).unwrap_or_default(),
            brought: Keys::default(),
        };
        self.touched.insert(intent.device.clone());
        self.lines.insert((order, order));
        self.moves.insert(order, note);
    }

    fn line(&mut self, generation: Order, order: Order, record: &JournalRecord) {
        let Some(note) = self.moves.get_mut(&generation).filter(|note| note.open) else {
            self.broken.push(format!("a line was written to move {generation}, which is not open"));
            return;
        };
        self.lines.insert((generation, order));
        let device = note.device.clone();
        self.touched.insert(device.clone());
        match record {
            JournalRecord::Intent(_) => self.broken.push(format!("move {generation} has a second intent")),
            JournalRecord::StepDone { effect, state } => {
                let Some(state) = state else { return };
                let keys = Keys::of(state);
                note.kept |= keys;
                if *effect == Effect::Seal {
                    note.sealed = Some(keys);
                }
                if let Plan::TakeOver { to, adopt: false } = note.plan.clone() {
                    self.keep_in_history(&device, &to, keys);
                }
            }
            JournalRecord::Pivoted { data_source } => {
                note.stage = Stage::After;
                let note = note.clone();
                self.check_newest(generation, &note);
                self.pivot(generation, &note, *data_source);
                let carries = matches!(data_source, Some(DataSource::Sealed | DataSource::LastKnown { .. }));
                if let Some(to) = note.plan.hub(Side::To).filter(|_| carries) {
                    let brought = *self.owed_at(&device, to);
                    if let Some(note) = self.moves.get_mut(&generation) {
                        note.brought = brought;
                    }
                }
            }
            JournalRecord::Aborted { .. } => {
                let before = std::mem::replace(&mut note.stage, Stage::Undoing);
                if before != Stage::Before {
                    self.broken.push(format!("move {generation} was given up after its pivot"));
                }
            }
            JournalRecord::Collected { hub, state: Some(state) }
            | JournalRecord::Settled { hub, state: Some(state), .. } => {
                let keys = Keys::of(state);
                note.kept |= keys;
                self.keep_in_history(&device, hub, keys);
            }
            JournalRecord::Bypassed { known, .. } => {
                let keys = known.as_ref().map(|known| Keys::of(&known.state)).unwrap_or_default();
                note.kept |= keys;
                (note.sealed, note.bypassed) = (Some(keys), true);
            }
            JournalRecord::Regained { state, .. } => {
                let keys = Keys::of(state);
                note.kept |= keys;
                (note.sealed, note.bypassed) = (Some(keys), false);
            }
            JournalRecord::Retried { .. } => note.stuck = note.stuck.saturating_sub(1),
            JournalRecord::Abandoned { effect: Effect::Collect | Effect::Delete, hub, .. } => {
                self.left.insert((hub.clone(), device));
            }
            JournalRecord::Abandoned { .. } => {}
            JournalRecord::Stuck { .. } => note.stuck += 1,
            JournalRecord::Collected { state: None, .. }
            | JournalRecord::Settled { state: None, .. }
            | JournalRecord::Dropped { .. } => {}
        }
    }

    /// The states of a twin that is no more are in the history.
    fn keep_in_history(&mut self, device: &DeviceId, hub: &HubId, keys: Keys) {
        let owed = self.owed_at(device, hub);
        let moved = *owed & keys;
        *owed = owed.without(keys);
        *self.history.entry(device.clone()).or_default() |= moved;
    }

    /// A home that is left without being sealed is left with the newest state that any durable line has of it: of the
    /// move that made it, or sealed there for a move that was given up since.
    fn check_newest(&mut self, generation: Order, note: &Note) {
        let (from, taken) = match &note.plan {
            Plan::Rehouse { from, .. } | Plan::Restore { from, .. } => (from, note.planted),
            Plan::Relocate { from, .. } if note.bypassed => (from, note.sealed.unwrap_or_default()),
            _ => return,
        };
        let uprooted = self.uprooted.remove(&(note.device.clone(), from.clone())).unwrap_or_default();
        let written = *self.owed_at(&note.device, from) | uprooted;
        let made = self.moves.get(&note.home).map(|made| made.brought).unwrap_or_default();
        let given_up = self.moves.range(note.home..generation).map(|(_, other)| other).filter(|other| {
            let at_home = other.registration == note.registration && other.plan.hub(Side::From) == Some(from);
            at_home && other.stage == Stage::Undoing && !other.bypassed
        });
        let durable = given_up.fold(made, |keys, other| keys | other.sealed.unwrap_or_default());
        let lost = (written & durable).without(taken);
        if !lost.is_empty() {
            let what =
                format!("move {generation} of {} leaves {from} without {lost:?}, which a journal has", note.device);
            self.broken.push(what);
        }
    }

    fn pivot(&mut self, generation: Order, note: &Note, data_source: Option<DataSource>) {
        let device = &note.device;
        if let Some(to) = note.plan.hub(Side::To) {
            self.left.remove(&(to.clone(), device.clone()));
        }
        match &note.plan {
            Plan::Relocate { from, to, carry } => {
                let written = *self.owed_at(device, from);
                let sealed = note.sealed.unwrap_or_default();
                if note.bypassed {
                    let carried = match data_source {
                        Some(DataSource::LastKnown { .. }) if *carry == Carry::State => written & sealed,
                        Some(DataSource::LastKnown { .. }) => note.planted,
                        Some(DataSource::Sealed | DataSource::Initial) | None => Keys::default(),
                    };
                    *self.owed_at(device, to) = carried;
                    // What the old hub accepted meanwhile has raised versions that nobody here knows of.
                    self.reborn.insert(device.clone());
                    return;
                }
                match (carry, data_source) {
                    (Carry::Planted { .. }, _) => {
                        *self.history.entry(device.clone()).or_default() |= written;
                        *self.owed_at(device, to) = note.planted;
                    }
                    (_, Some(DataSource::LastKnown { .. })) => {
                        *self.owed_at(device, to) = written & sealed;
                        return;
                    }
                    (Carry::State, Some(DataSource::Initial)) => return,
                    (Carry::State, Some(DataSource::Sealed) | None) => *self.owed_at(device, to) = written,
                    (Carry::Initial, Some(DataSource::Sealed | DataSource::Initial) | None) => {
                        *self.history.entry(device.clone()).or_default() |= written;
                    }
                }
                if !sealed.holds(written) {
                    let lost = written.without(sealed);
                    self.broken.push(format!("move {generation} of {device} from {from} leaves {lost:?} behind"));
                }
                *self.owed_at(device, from) = Keys::default();
            }
            Plan::Replant { from, to, .. } => {
                let written = std::mem::take(self.owed_at(device, from));
                if !note.planted.holds(written) {
                    let lost = written.without(note.planted);
                    self.broken.push(format!("move {generation} of {device} plants a state without {lost:?}"));
                }
                *self.owed_at(device, to) = written;
            }
            Plan::Rehouse { from, .. } => {
                self.abandoned += std::mem::take(self.owed_at(device, from)).count();
                self.reborn.insert(device.clone());
            }
            Plan::Restore { from, to, .. } => {
                let written = std::mem::take(self.owed_at(device, from));
                self.abandoned += written.without(note.planted).count();
                self.reborn.insert(device.clone());
                *self.owed_at(device, to) = written & note.planted;
            }
            Plan::TakeOver { to, adopt } => {
                self.strays.remove(&(to.clone(), device.clone()));
                self.reborn.insert(device.clone());
                debug_assert!(*adopt || self.owed_at(device, to).is_empty());
            }
            Plan::Assign { .. } => {
                self.reborn.insert(device.clone());
            }
            Plan::ResetInPlace { .. } | Plan::Refresh { .. } | Plan::Release { .. } | Plan::Collect { .. } => {}
        }
    }

    /// What a journal kept is gone: allowed for what the history's bound pushed out.
    fn forget(&mut self, generation: Order) {
        let Some(note) = self.moves.remove(&generation) else { return };
        if note.open {
            self.broken.push(format!("move {generation} was forgotten while open"));
        }
        let needed = self.history.get(&note.device).copied().unwrap_or_default();
        let kept = self.kept(&note.device);
        let lost = needed.without(kept);
        if lost.is_empty() {
            return;
        }
        let full = self.homes.get(&note.registration).is_some_and(|home| {
            home.past.len() >= rehome::domain::limits::HISTORY_ENTRIES_MAX
                && home.past.iter().all(|it| *it > generation)
        });
        if self.pardoned.remove(&generation) {
            self.forgotten += lost.count();
            *self.history.entry(note.device).or_default() = needed.without(lost);
        } else if full {
            self.trimmed += lost.count();
            *self.history.entry(note.device).or_default() = needed.without(lost);
        } else {
            self.broken.push(format!("move {generation} was forgotten with {lost:?} of {}", note.device));
        }
    }

    /// Hubs that were passed by when the device left them and are still to be collected.
    pub fn splits<'a>(&'a self, device: &'a DeviceId) -> impl Iterator<Item = &'a HubId> {
        let of_device = self.moves.values().filter(move |note| {
            // Before the pivot the old home is the home: nothing else may be open beside it.
            note.device == *device && note.open && note.bypassed && note.stage == Stage::After
        });
        of_device.filter_map(|note| note.plan.hub(Side::From))
    }

    /// Whether what a hub has of a device is nobody's business: made behind the service's back, or given up by an operator.
    pub fn is_nobodys(&self, hub: &HubId, device: &DeviceId) -> bool {
        let place = (hub.clone(), device.clone());
        self.strays.contains(&place) || self.left.contains(&place)
    }

    /// Writes in the states of all journals of a device.
    pub fn kept(&self, device: &DeviceId) -> Keys {
        let of_device = self.moves.values().filter(|note| note.device == *device);
        of_device.fold(Keys::default(), |keys, note| keys | note.kept)
    }
}

/// A change as a text that is the same for the same change, whatever the operation is called.
fn text(change: &Change) -> String {
    let mut change = change.clone();
    match &mut change {
        Change::Journal { record: JournalRecord::Intent(intent), .. } => intent.operation = OperationId(0),
        Change::PutRegistration(record) => record.operation.id = OperationId(0),
        _ => {}
    }
    format!("{change:?}")
}

pub fn word(plan: &Plan) -> &'static str {
    match plan {
        Plan::Relocate { carry: Carry::Initial, .. } => "relocate and reset",
        Plan::Relocate { carry: Carry::Planted { .. }, .. } => "relocate and put back",
        Plan::TakeOver { adopt: true, .. } => "take_over and adopt",
        Plan::Assign { .. }
        | Plan::TakeOver { adopt: false, .. }
        | Plan::Relocate { carry: Carry::State, .. }
        | Plan::Replant { .. }
        | Plan::Rehouse { .. }
        | Plan::Restore { .. }
        | Plan::ResetInPlace { .. }
        | Plan::Refresh { .. }
        | Plan::Release { .. }
        | Plan::Collect { .. } => plan.as_str(),
    }
}
