//! The network between service and hubs: calls and answers under way, each at the script's mercy.

use std::time::Duration;

use futures_util::FutureExt;
use rehome::actors::unless_gone_back;
use rehome::domain::{
    CallFault, CallOutcome, Document, HubCall, HubEffect, HubRefusal, Incarnation, Timestamp, limits,
};
use rehome::hubs::HubConnector;
use rehome::hubs::entry::{EffectKind, Entry, LastCall, Outcome};
use rehome::moves::CallKey;
use serde_json::json;

use super::hub::SimHub;
use super::identity::identity;
use super::mutation::unfenced;
use super::script::Fate;
use super::world::{Held, World, broken};

/// As long as a hub's actor waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub struct Caller {
    pub device: usize,
    pub seat: u64,
    pub key: CallKey,
}

/// A call on its way. Without a caller it is a late copy.
#[derive(Debug, Clone)]
pub struct Flight {
    pub call: HubCall,
    pub incarnation: Option<Incarnation>,
    pub caller: Option<Caller>,
    pub given_up_at: Timestamp,
    /// The hub obeys it whatever its order: a mutation.
    pub unfenced: bool,
    /// A mutation is looked for here.
    pub aimed: bool,
}

impl Flight {
    /// A copy that nobody waits for, of a call that a mutation is about.
    pub fn is_aimed_copy(&self) -> bool {
        self.aimed && self.caller.is_none()
    }

    /// Such a copy, of another call to the same device at the same hub.
    fn haunts(&self, call: &HubCall) -> bool {
        let other = &self.call;
        self.is_aimed_copy() && (&other.hub, &other.device) == (&call.hub, &call.device) && other.order != call.order
    }
}

#[derive(Debug, Default)]
pub struct Network {
    pub flights: Vec<Flight>,
    pub answers: Vec<(Caller, CallOutcome)>,
}

impl Network {
    /// The process that called is gone; its calls are not.
    pub fn forget_callers(&mut self) {
        self.answers.clear();
        self.flights.iter_mut().for_each(|flight| flight.caller = None);
    }
}

fn unavailable(why: &str) -> CallOutcome {
    Err(CallFault::Unavailable(why.to_owned()))
}

fn unknown(why: &str) -> CallOutcome {
    Err(CallFault::Unknown(why.to_owned()))
}

impl World {
    /// An actor makes a call: nothing may be asked of a hub that is not in the journal.
    pub fn send(&mut self, device: usize, seat: u64, key: CallKey, call: HubCall) -> Held {
        self.tally.calls += 1;
        let is_journaled = self.store.ledger(|ledger| ledger.lines.contains(&(key.generation, call.order)));
        if !is_journaled {
            return broken(format!(
                "{} is asked to {} under order {}, which no journal line has",
                call.hub,
                call.effect.as_str(),
                call.order
            ));
        }
        let caller = Caller { device, seat, key };
        self.pass(&caller);
        if let Some(outcome) = self.interpose(&caller, &call) {
            self.network.answers.push((caller, outcome));
            return Ok(());
        }
        self.put_on_the_way(caller, call);
        Ok(())
    }

    pub fn put_on_the_way(&mut self, caller: Caller, call: HubCall) {
        if self.is_to_be_passed_by(&caller)
            && let Some(hub) = self.hubs.get(&call.hub)
        {
            hub.set_cut(true);
        }
        if self.is_to_be_regained(&caller) {
            self.heal_hubs();
        }
        let hindrance = match self.hubs.get(&call.hub) {
            None => Some("it is not linked"),
            Some(_) if self.surroundings.fleet.is_restored(&call.hub) => Some("it was restored from an older copy"),
            Some(hub) if hub.record.taken_down => Some("it was taken down by an operator"),
            Some(hub) if hub.is_given_up() => Some("it did not answer lately, and is being probed"),
            Some(_) => None,
        };
        self.note(|| {
            let (id, effect) = (&identity(caller.device).id, call.effect.as_str());
            let why = hindrance.map(|why| format!(", but {why}")).unwrap_or_default();
            format!("{id}: {effect}({}) under order {}{why}", call.hub, call.order)
        });
        if let Some(why) = hindrance {
            self.network.answers.push((caller, unavailable(why)));
            return;
        }
        let incarnation = self.hubs.get(&call.hub).and_then(|hub| hub.record.incarnation);
        let given_up_at = self.now().plus(CALL_TIMEOUT);
        let (unfenced, aimed) = (self.is_unfenced(&caller), self.is_aimed_at(&caller));
        self.network.flights.push(Flight { call, incarnation, caller: Some(caller), given_up_at, unfenced, aimed });
    }

    /// One call comes to its end. Whether somebody is to hear of it.
    pub fn carry(&mut self, pick: usize, fate: Fate) -> bool {
        if self.network.flights.is_empty() {
            return false;
        }
        let at = pick % self.network.flights.len();
        if self.network.flights[at].is_aimed_copy() && self.lingers() {
            return false;
        }
        let Flight { call, incarnation, caller, given_up_at, unfenced, aimed } = self.network.flights.remove(at);
        let cut = self.hubs.get(&call.hub).is_some_and(SimHub::is_cut);
        let Some(caller) = caller else {
            if cut {
                self.network.flights.push(Flight { call, incarnation, caller: None, given_up_at, unfenced, aimed });
                return false;
            }
            self.arrive_late(incarnation, &call, unfenced);
            return false;
        };
        let fate = match (fate, &call.effect) {
            _ if cut => Fate::Unreachable,
            // A hub that says no without a reason is no hub: only room and contents are its own business.
            (Fate::Refused, HubEffect::Create(_) | HubEffect::ReplaceTwin(_)) => Fate::Refused,
            (Fate::Refused, _) => Fate::Arrives,
            (fate, _) => fate,
        };
        let is_haunted = !cut && self.network.flights.iter().any(|flight| flight.haunts(&call));
        let fate = match (cut, aimed) {
            (false, true) => self.aimed_fate(fate),
            // What lingers may come between this call and its repeat.
            (false, false) if is_haunted && self.is_worst_moment() => Fate::AnswerLost,
            (true | false, _) => fate,
        };
        let late = Flight { call: call.clone(), incarnation, caller: None, given_up_at, unfenced, aimed };
        let copies = if aimed { self.copies() } else { 1 };
        let late = std::iter::repeat_n(late, copies);
        let outcome = match fate {
            Fate::Arrives => self.obey(incarnation, &call, unfenced),
            Fate::AnswerLost => {
                self.fault("answer lost");
                let _ = self.obey(incarnation, &call, unfenced);
                unknown("the answer was lost")
            }
            Fate::CallLost => {
                self.fault("call lost");
                unknown("the call was lost")
            }
            Fate::Delayed => {
                self.fault("call delayed");
                self.network.flights.extend(late);
                unknown("no answer came")
            }
            Fate::Duplicated => {
                self.fault("call duplicated");
                self.network.flights.extend(late);
                self.obey(incarnation, &call, unfenced)
            }
            Fate::Unreachable => {
                self.fault("call did not get through");
                unavailable("no way to it")
            }
            Fate::Refused => {
                self.fault("call refused");
                self.refuse(incarnation, &call, unfenced)
            }
        };
        self.note(|| {
            let (effect, hub) = (call.effect.as_str(), &call.hub);
            format!("{effect}({hub}) under order {}: {fate:?}, {}", call.order, short(&outcome))
        });
        // What such an answer says of hub or store is the hub's actor's business.
        let heard = unless_gone_back(&self.surroundings, &call.hub, incarnation, outcome).now_or_never();
        let outcome = heard.unwrap_or_else(|| unknown("the store does not answer"));
        self.note_health(&call, &outcome);
        self.network.answers.push((caller, outcome));
        if !cut
            && let Some(at) = self.network.flights.iter().position(|flight| flight.haunts(&call))
            && self.is_worst_moment()
        {
            let Flight { call, incarnation, unfenced, .. } = self.network.flights.remove(at);
            self.arrive_late(incarnation, &call, unfenced);
        }
        true
    }

    fn arrive_late(&mut self, incarnation: Option<Incarnation>, call: &HubCall, unfenced: bool) {
        self.note(|| format!("a late {}({}) under order {} arrives", call.effect.as_str(), call.hub, call.order));
        let outcome = self.obey(incarnation, call, unfenced);
        self.note(|| format!("  and nobody hears {outcome:?}", outcome = short(&outcome)));
        self.fault("late copy arrives");
    }

    /// The hub that a device waits for is cut off; the operator sends the device to another, and it registers.
    pub fn corner(&mut self, device: usize, seed: u64) -> Held {
        if seed.is_multiple_of(3) {
            self.uproot(device)?;
            return self.register(device, seed);
        }
        let of_device = |flight: &Flight| flight.caller.as_ref().is_some_and(|caller| caller.device == device);
        let Some(at) = self.network.flights.iter().position(of_device) else { return Ok(()) };
        let id = self.network.flights[at].call.hub.clone();
        if let Some(hub) = self.hubs.get(&id) {
            hub.set_cut(true);
        }
        self.note(|| format!("the way to {id} is cut"));
        self.fault("hub unreachable");
        if self.carry(at, Fate::Unreachable) {
            self.answer(self.network.answers.len() - 1)?;
        }
        self.send_elsewhere(device, &id);
        self.register(device, seed)
    }

    /// The hub says no for a reason of its own: it has no room, or what it is given does not fit a twin.
    fn refuse(&mut self, incarnation: Option<Incarnation>, call: &HubCall, unfenced: bool) -> CallOutcome {
        let has_device = self.hubs.get(&call.hub).is_some_and(|hub| hub.scripted.phase(&call.device).is_some());
        let too_long = || Document::from_value(json!({ "k": "x".repeat(limits::TWIN_STRING_BYTES_MAX + 1) }));
        let mut call = call.clone();
        match &mut call.effect {
            HubEffect::Create(_) if call.order.0.is_multiple_of(2) && !has_device => {
                return Err(CallFault::Refused(HubRefusal::Full));
            }
            HubEffect::Create(device) => device.state.twin.tags = too_long().unwrap_or_default(),
            HubEffect::ReplaceTwin(initial) => initial.desired = too_long().unwrap_or_default(),
            // Only where it is aimed at.
            HubEffect::Activate
            | HubEffect::Seal
            | HubEffect::Unseal
            | HubEffect::Delete
            | HubEffect::Discard(_)
            | HubEffect::UpdateCredential(_)
            | HubEffect::ReplaceCredential(_) => {
                if let Some(refusal) = self.refuse_for_good(&call) {
                    return Err(CallFault::Refused(refusal));
                }
            }
        }
        self.obey(incarnation, &call, unfenced)
    }

    /// A refusal is the answer of its order from then on, as of whatever else a hub says. `None` when it has answered.
    fn refuse_for_good(&mut self, call: &HubCall) -> Option<HubRefusal> {
        let hub = self.hubs.get(&call.hub)?;
        let entry = hub.scripted.entry(&call.device).filter(|entry| entry.highest < call.order)?;
        let refusal = HubRefusal::StateInvalid("the script".to_owned());
        let last = LastCall { effect: EffectKind::from(&call.effect), outcome: Outcome::Refused(refusal.clone()) };
        hub.scripted.place(&call.device, Some(Entry { highest: call.order, last, ..entry }));
        self.dirty.insert(call.device.clone());
        Some(refusal)
    }

    pub fn obey(&mut self, incarnation: Option<Incarnation>, call: &HubCall, is_unfenced: bool) -> CallOutcome {
        self.dirty.insert(call.device.clone());
        let Some(hub) = self.hubs.get(&call.hub) else { return unavailable("it is not there any more") };
        let hub = hub.scripted.clone();
        let fence = hub.inspect(&call.device, |entry| entry.map(|entry| entry.highest));
        if is_unfenced && let Some(entry) = hub.entry(&call.device) {
            hub.place(&call.device, Some(unfenced(entry, call)));
        }
        let outcome = hub.obey(incarnation, call).now_or_never().unwrap_or_else(|| unknown("it waits"));
        if is_unfenced && let Some(entry) = hub.entry(&call.device) {
            hub.place(&call.device, Some(Entry { highest: entry.highest.max(fence.unwrap_or_default()), ..entry }));
        }
        if hub.phase(&call.device).is_none() {
            self.store.ledger(|ledger| ledger.strays.remove(&(call.hub.clone(), call.device.clone())));
        }
        self.release_held(call);
        outcome
    }

    /// One answer reaches its actor, if that is still there.
    pub fn answer(&mut self, pick: usize) -> Held {
        if self.network.answers.is_empty() {
            return Ok(());
        }
        let at = pick % self.network.answers.len();
        let (caller, outcome) = self.network.answers.remove(at);
        self.note(|| {
            let (effect, hub) = (caller.key.effect.as_str(), &caller.key.hub);
            format!("{} hears of {effect}({hub}): {}", identity(caller.device).id, short(&outcome))
        });
        let aimed = self.is_aimed_at(&caller);
        self.trouble_around(&caller)?;
        self.step_finished(caller.device, caller.seat, caller.key, outcome)?;
        self.resolved_around(caller.device, aimed)
    }

    /// Calls that nobody answered in time are given up; they may arrive all the same.
    pub fn expire_calls(&mut self) {
        let now = self.now();
        let mut expired = Vec::new();
        for flight in &mut self.network.flights {
            if flight.given_up_at <= now
                && let Some(caller) = flight.caller.take()
            {
                expired.push((caller, flight.call.clone()));
            }
        }
        for (caller, call) in expired {
            self.fault("hub slow: call given up");
            self.note(|| format!("no answer to {}({}) in time", call.effect.as_str(), call.hub));
            let outcome = unknown("no answer in 10 s");
            self.note_health(&call, &outcome);
            self.network.answers.push((caller, outcome));
        }
    }
}

pub fn short(outcome: &CallOutcome) -> String {
    match outcome {
        Ok(rehome::domain::HubAnswer::Done) => "done".to_owned(),
        Ok(rehome::domain::HubAnswer::State(state)) => format!("done, state with {:?}", super::keys::Keys::of(state)),
        Err(fault) => fault.to_string(),
    }
}
