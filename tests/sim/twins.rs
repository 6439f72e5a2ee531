//! Writes of devices and back ends, at whatever hub they believe in, and devices that appear behind the service's back.

use futures_util::FutureExt;
use rehome::ambient::Clock;
use rehome::domain::{
    Capabilities, Credential, DeviceId, DeviceState, Document, HubId, HubStatus, InitialState, Order, Thumbprint, Twin,
    TwinPatch,
};
use rehome::hubs::entry::{EffectKind, Entry, LastCall, Outcome, Phase, Tenant};
use rehome::hubs::{HubConnector, TwinCaller, TwinWrite};
use rehome::moves::plan::Side;

use super::dice::Dice;
use super::identity::identity;
use super::keys::{Keys, WRITES_MAX};
use super::world::{Held, World, broken};

impl World {
    pub fn write(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let name = self.name_of(device);
        // Mostly where it is, sometimes where it is not, or not any more.
        let here = self.hubs.iter().filter(|(_, hub)| hub.scripted.phase(&name).is_some()).map(|(id, _)| id.clone());
        let here: Vec<HubId> = here.collect();
        let target = if here.is_empty() || dice.percent(10) {
            self.hub_of(dice.below(1 << 16))
        } else {
            Some(dice.pick(&here).clone())
        };
        let Some(target) = target else { return Ok(()) };
        let written = self.written.entry(name.clone()).or_default();
        let write = *written;
        if write >= WRITES_MAX {
            return Ok(());
        }
        let hub = self.hubs[&target].scripted.clone();
        let before =
            hub.inspect(&name, |entry| entry.and_then(|entry| entry.tenant.as_ref()).map(|it| Keys::of(&it.state)));
        let Some(twins) = hub.twins() else { return Ok(()) };
        let document = || Document::from_text(&format!(r#"{{"w{write}":{write}}}"#)).unwrap_or_default();
        let (who, outcome) = match dice.below(20) {
            0..9 => {
                let leaf = dice.pick(&identity(device).leaves);
                let caller = TwinCaller::Device(Credential::x509([leaf.reference.thumbprint]));
                ("the device reports", twins.report(&name, &caller, document()).now_or_never())
            }
            9..14 => {
                let patch = TwinPatch { desired: Some(document()), ..TwinPatch::default() };
                ("a back end patches desired", twins.write(&name, None, TwinWrite::Patch(patch)).now_or_never())
            }
            14..17 => {
                let patch = TwinPatch { tags: Some(document()), ..TwinPatch::default() };
                ("a back end patches tags", twins.write(&name, None, TwinWrite::Patch(patch)).now_or_never())
            }
            17 => {
                let replace = TwinWrite::Replace { tags: None, desired: Some(document()) };
                ("a back end replaces desired", twins.write(&name, None, replace).now_or_never())
            }
            18 => {
                let status = if dice.percent(40) {
                    HubStatus::Disabled { reason: "the script".to_owned() }
                } else {
                    HubStatus::Enabled
                };
                ("a back end sets the status", twins.write(&name, None, TwinWrite::Status(status)).now_or_never())
            }
            _ => {
                let gone =
                    Document::from_text(&format!(r#"{{"w{}":null}}"#, dice.below(write + 1))).unwrap_or_default();
                let patch = TwinPatch { desired: Some(gone), ..TwinPatch::default() };
                ("a back end deletes", twins.write(&name, None, TwinWrite::Patch(patch)).now_or_never())
            }
        };
        if let Some(Ok(resident)) = outcome {
            if self.hubs[&target].scripted.is_restored() {
                return broken(format!("{target} goes on from an older copy and accepts w{write} of {name}"));
            }
            *written += 1;
            let after = Keys::of(&resident.state);
            let gone = before.unwrap_or_default().without(after);
            let new = Keys::one(write) & after;
            self.tally.writes += 1;
            let is_late = self.store.ledger(|ledger| ledger.splits(&name).any(|from| *from == target));
            self.tally.late_writes += u64::from(is_late);
            self.note(|| format!("{who} w{write} to {name} at {target}"));
            self.store.ledger(|ledger| ledger.accepted(&name, &target, new, gone));
            self.dirty.insert(name);
        }
        Ok(())
    }

    /// Somebody makes a device at a hub without the service; what is written in it counts as written there.
    pub fn stray(&mut self, device: usize, hub: usize) {
        let name = DeviceId::from(&identity(device).id);
        let Some(id) = self.hub_of(hub) else { return };
        let written = self.written.entry(name.clone()).or_default();
        let scripted = &self.hubs[&id].scripted;
        if *written >= WRITES_MAX || scripted.phase(&name).is_some() || scripted.is_restored() {
            return;
        }
        // A hub that was restored has forgotten the fence behind which what it is still owed would stay.
        let is_owed = self.hubs[&id].restored
            && self.store.ledger(|ledger| {
                let of_device = |note: &&super::ledger::Note| note.device == name && note.open;
                let names = |note: &super::ledger::Note| {
                    [Side::From, Side::To].into_iter().any(|side| note.plan.hub(side) == Some(&id))
                };
                ledger.moves.values().filter(of_device).any(names)
            });
        if is_owed {
            return;
        }
        let write = *written;
        *written += 1;
        let initial = InitialState {
            desired: Document::from_text(&format!(r#"{{"w{write}":"stray"}}"#)).unwrap_or_default(),
            ..InitialState::default()
        };
        let state = DeviceState {
            twin: Twin::initial(&initial, self.clock.now()),
            capabilities: Capabilities::default(),
            status: HubStatus::Enabled,
        };
        let credential = Credential::x509([Thumbprint([9; 32])]);
        let tenant = Some(Tenant { generation: Order(0), phase: Phase::Open, credential, state });
        let entry = match scripted.entry(&name) {
            Some(entry) => Entry { tenant, ..entry },
            None => {
                let last = LastCall { effect: EffectKind::Delete, outcome: Outcome::Done };
                Entry { highest: Order(0), last, tenant, departed: None }
            }
        };
        scripted.place(&name, Some(entry));
        self.note(|| format!("somebody makes a device {name} at {id}"));
        self.store.ledger(|ledger| {
            ledger.strays.insert((id.clone(), name.clone()));
            ledger.accepted(&name, &id, Keys::one(write), Keys::default());
        });
        self.tally.writes += 1;
        self.dirty.insert(name);
    }
}
