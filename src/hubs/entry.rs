//! What a hub keeps of a device, and the one total function by which it obeys a call; pure, shared by every hub of ours.
//!
//! ```text
//!            create              activate, unseal            seal
//!   nothing ────────▶ staged ───────────────────▶ open ◀───────────▶ sealed        delete: from any phase to nothing
//!                        └────────── seal ──▶ sealed        unseal
//! ```
//!
//! **Orders.** The highest order ever answered is the fence, and it outlives the device. Lower: refused as stale. Equal:
//! the same answer again, and nothing changes. Higher: a new call.
//!
//! **A refusal raises the fence too**, and is remembered as the answer of its order. Were it not, a call of a lower order
//! that is still in the network could make untrue what the service was told and has acted on: a collect is told that
//! there is no such device and is done, then a late create leaves an orphan (trace 1d by another road). Nothing is lost
//! by raising it: whoever sends a higher order gives up what it asked by lower ones, since it cannot know beforehand
//! whether the higher one will be obeyed, and an obeyed one raises the fence anyway.
//!
//! **Collect** is the one pair of calls under one order: seal, then delete. A seal that arrives after its delete is a
//! duplicate that nobody waits for: it is told that the device is not there.

use subtle::{Choice, ConstantTimeEq};

use crate::domain::twin::check_initial;
use crate::domain::{
    Credential, DeviceState, Document, HubAnswer, HubCall, HubEffect, HubRefusal, HubStatus, InitialState, MustSeal,
    NewDevice, Order, Timestamp, limits, twin::Metadata,
};

/// The kind of a call, without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EffectKind {
    Create,
    Activate,
    Seal,
    Unseal,
    Delete,
    ReplaceTwin,
    UpdateCredential,
}

impl From<&HubEffect> for EffectKind {
    fn from(effect: &HubEffect) -> Self {
        match effect {
            HubEffect::Create(_) => EffectKind::Create,
            HubEffect::Activate => EffectKind::Activate,
            HubEffect::Seal => EffectKind::Seal,
            HubEffect::Unseal => EffectKind::Unseal,
            HubEffect::Delete | HubEffect::Discard(_) => EffectKind::Delete,
            HubEffect::ReplaceTwin(_) => EffectKind::ReplaceTwin,
            HubEffect::UpdateCredential(_) | HubEffect::ReplaceCredential(_) => EffectKind::UpdateCredential,
        }
    }
}

/// Where a device stands in a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It exists and accepts nothing yet.
    Staged,
    /// Writes are accepted.
    Open,
    /// Its state was answered to a seal: no more writes.
    Sealed,
}

/// A device that a hub has.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// The order of the intent that brought it here.
    pub generation: Order,
    pub phase: Phase,
    pub credential: Credential,
    pub state: DeviceState,
}

/// How the call of the highest order ended: all that is needed to give its answer again.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    /// The answer is the tenant's state, which cannot have changed since.
    Sealed,
    /// The state that was replaced.
    Replaced(Box<DeviceState>),
    Refused(HubRefusal),
}

/// The call of the highest order.
#[derive(Debug, Clone, PartialEq)]
pub struct LastCall {
    pub effect: EffectKind,
    pub outcome: Outcome,
}

/// Everything a hub keeps of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The fence: the highest order answered.
    pub highest: Order,
    pub last: LastCall,
    /// Absent when the device has left, or never was here.
    pub tenant: Option<Tenant>,
    /// What a device that has left signed in with, so that it, and nobody else, is told to register again.
    pub departed: Option<Credential>,
}

/// What those who watch the device must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing that they could see.
    Unseen,
    /// It is sealed or has left.
    Closed,
    /// Its twin is another one.
    Replaced,
    /// It signs in with something else.
    Credential,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What to keep from now on; `None` when that has not changed.
    pub entry: Option<Entry>,
    pub answer: Result<HubAnswer, HubRefusal>,
    pub change: Change,
}

/// Obeys a call, or says why not. Total; the same arguments give the same verdict. `entry` is `None` when the hub has
/// never heard of the device.
pub fn obey(entry: Option<&Entry>, call: &HubCall, now: Timestamp) -> Verdict {
    let highest = entry.map_or(Order::default(), |entry| entry.highest);
    match entry {
        Some(entry) if call.order == highest => repeat(entry, call, now),
        Some(_) | None if call.order > highest => advance(entry, call.order, &call.effect, now),
        Some(_) | None => unchanged(Err(HubRefusal::Stale { highest })),
    }
}

/// Takes one line of the list that comes before a lease may run again. `None`: nothing has to be kept.
///
/// As a seal under that order, except that a device which came later than the home that was bypassed is left as it is
/// (trace 4b), and that the fence is raised whatever is found (trace 4c).
pub fn take(entry: Option<&Entry>, must: &MustSeal, now: Timestamp) -> Option<Entry> {
    if entry.is_some_and(|entry| entry.highest >= must.order) {
        return None;
    }
    let came_later = |entry: &&Entry| entry.tenant.as_ref().is_some_and(|tenant| tenant.generation > must.generation);
    match entry.filter(came_later) {
        Some(entry) => {
            let last = LastCall { effect: EffectKind::Seal, outcome: Outcome::Refused(HubRefusal::OrderReused) };
            Some(Entry { highest: must.order, last, ..entry.clone() })
        }
        None => advance(entry, must.order, &HubEffect::Seal, now).entry,
    }
}

/// What a device of a restored hub becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Reinstated {
    /// What is there stays and accepts nothing: its home is elsewhere, or nobody's. What is staged accepts nothing as it is,
    /// and stays so: a move that made it may be under way still, gets the same answer when it makes it again, and opens it.
    Sealed,
    /// The device as the service knows it.
    As {
        generation: Order,
        phase: Phase,
        /// Absent when it is not known: what is there stays, and where nothing is, nobody signs in until it is told.
        credential: Option<Credential>,
        state: Box<DeviceState>,
        /// Below every call that the service may still make, and whatever it was: calls of an earlier life name another
        /// incarnation and are refused for that.
        fence: Order,
    },
}

/// Sets a device of a restored hub right. `None`: nothing has to be kept.
pub fn reinstate(entry: Option<&Entry>, becomes: &Reinstated) -> Result<Option<Entry>, HubRefusal> {
    match becomes {
        Reinstated::Sealed => Ok(entry.and_then(|entry| {
            let tenant = entry.tenant.as_ref().filter(|tenant| tenant.phase == Phase::Open)?;
            Some(Entry { tenant: Some(in_phase(tenant, Phase::Sealed)), ..entry.clone() })
        })),
        Reinstated::As { generation, phase, credential, state, fence } => {
            check_state(state)?;
            let kept = entry.and_then(|entry| Some(entry.tenant.as_ref()?.credential.clone()));
            let (effect, outcome) = match phase {
                Phase::Staged => (EffectKind::Create, Outcome::Done),
                Phase::Open => (EffectKind::Activate, Outcome::Done),
                Phase::Sealed => (EffectKind::Seal, Outcome::Sealed),
            };
            let tenant = Tenant {
                generation: *generation,
                phase: *phase,
                credential: credential.clone().or(kept).unwrap_or_else(|| Credential::x509([])),
                state: (**state).clone(),
            };
            let last = LastCall { effect, outcome };
            Ok(Some(Entry { highest: *fence, last, tenant: Some(tenant), departed: None }))
        }
    }
}

impl Entry {
    /// The device when it is here and accepts writes.
    pub fn is_open(&self) -> bool {
        self.tenant.as_ref().is_some_and(|tenant| tenant.phase == Phase::Open)
    }
}

impl Tenant {
    /// Whether `presented` is something this device signs in with.
    pub fn knows(&self, presented: &Credential) -> bool {
        matches(&self.credential, presented)
    }
}

/// Whether everything presented is among what is kept; says nothing by its timing about how close a miss was.
pub fn matches(kept: &Credential, presented: &Credential) -> bool {
    match (kept, presented) {
        (Credential::X509 { thumbprints: kept }, Credential::X509 { thumbprints: presented }) => {
            let all = presented.iter().fold(Choice::from(1), |all, one| {
                all & kept.iter().fold(Choice::from(0), |any, own| any | own.0.ct_eq(&one.0))
            });
            !presented.is_empty() && bool::from(all)
        }
        // Nobody presents a key: what a key has signed is asked of `SignedToken`.
        (Credential::X509 { .. }, Credential::Delivered(_) | Credential::Shared(_))
        | (Credential::Delivered(_) | Credential::Shared(_), _) => false,
    }
}

/// The credential that a device has once its hub is told of a new one: delivered keys come before those that were delivered
/// earlier, since nobody knows yet whether the new one arrived; anything else takes the place of what was there.
fn taken(before: &Credential, told: &Credential) -> Credential {
    match (before, told) {
        (Credential::Delivered(earlier), Credential::Delivered(new)) => Credential::Delivered(new.after(earlier)),
        (Credential::X509 { .. } | Credential::Shared(_), Credential::Delivered(_))
        | (_, Credential::X509 { .. } | Credential::Shared(_)) => told.clone(),
    }
}

fn unchanged(answer: Result<HubAnswer, HubRefusal>) -> Verdict {
    Verdict { entry: None, answer, change: Change::Unseen }
}

fn repeat(entry: &Entry, call: &HubCall, now: Timestamp) -> Verdict {
    let (before, again) = (entry.last.effect, EffectKind::from(&call.effect));
    if before == again {
        return unchanged(match &entry.last.outcome {
            Outcome::Done => Ok(HubAnswer::Done),
            Outcome::Sealed => match &entry.tenant {
                Some(tenant) => Ok(HubAnswer::State(Box::new(tenant.state.clone()))),
                None => Err(HubRefusal::NoSuchDevice),
            },
            Outcome::Replaced(state) => Ok(HubAnswer::State(state.clone())),
            Outcome::Refused(refusal) => Err(refusal.clone()),
        });
    }
    if before == EffectKind::Seal && again == EffectKind::Delete {
        return advance(Some(entry), call.order, &call.effect, now);
    }
    if before == EffectKind::Delete && again == EffectKind::Seal {
        return unchanged(Err(HubRefusal::NoSuchDevice));
    }
    unchanged(Err(HubRefusal::OrderReused))
}

/// What a call makes of a device that it is new to.
struct Step {
    tenant: Option<Tenant>,
    outcome: Outcome,
    answer: HubAnswer,
    change: Change,
}

fn advance(entry: Option<&Entry>, order: Order, call: &HubEffect, now: Timestamp) -> Verdict {
    let tenant = entry.and_then(|entry| entry.tenant.as_ref());
    let departed = entry.and_then(|entry| entry.departed.clone());
    let effect = EffectKind::from(call);
    let keep =
        |tenant, outcome, departed| Entry { highest: order, last: LastCall { effect, outcome }, tenant, departed };
    match step(tenant, call, now) {
        Ok(step) => {
            let departed = match (&step.tenant, tenant) {
                (Some(_), Some(_) | None) => None,
                (None, Some(left)) => Some(left.credential.clone()),
                (None, None) => departed,
            };
            Verdict {
                entry: Some(keep(step.tenant, step.outcome, departed)),
                answer: Ok(step.answer),
                change: step.change,
            }
        }
        Err(refusal) => Verdict {
            entry: Some(keep(tenant.cloned(), Outcome::Refused(refusal.clone()), departed)),
            answer: Err(refusal),
            change: Change::Unseen,
        },
    }
}

fn step(tenant: Option<&Tenant>, effect: &HubEffect, now: Timestamp) -> Result<Step, HubRefusal> {
    match effect {
        HubEffect::Create(device) => create(tenant, device),
        HubEffect::Activate => match tenant {
            Some(tenant) if tenant.phase == Phase::Staged => Ok(quiet(in_phase(tenant, Phase::Open))),
            Some(_) => Err(HubRefusal::NotStaged),
            None => Err(HubRefusal::NoSuchDevice),
        },
        HubEffect::Seal => {
            let tenant = tenant.ok_or(HubRefusal::NoSuchDevice)?;
            Ok(Step {
                tenant: Some(in_phase(tenant, Phase::Sealed)),
                outcome: Outcome::Sealed,
                answer: HubAnswer::State(Box::new(tenant.state.clone())),
                change: Change::Closed,
            })
        }
        HubEffect::Unseal => {
            let tenant = tenant.ok_or(HubRefusal::NoSuchDevice)?;
            Ok(quiet(in_phase(tenant, Phase::Open)))
        }
        HubEffect::Discard(generation) => match tenant {
            Some(tenant) if tenant.generation != *generation => Ok(quiet(tenant.clone())),
            Some(_) | None => step(tenant, &HubEffect::Delete, now),
        },
        HubEffect::Delete => {
            Ok(Step { tenant: None, outcome: Outcome::Done, answer: HubAnswer::Done, change: Change::Closed })
        }
        HubEffect::ReplaceTwin(initial) => replace(tenant.ok_or(HubRefusal::NoSuchDevice)?, initial, now),
        HubEffect::UpdateCredential(credential) => {
            let tenant = tenant.ok_or(HubRefusal::NoSuchDevice)?;
            let credential = taken(&tenant.credential, credential);
            let change = match (&tenant.credential, &credential) {
                (before, after) if before == after => Change::Unseen,
                // Whoever watches still may.
                (Credential::Delivered(_), Credential::Delivered(_)) => Change::Unseen,
                (Credential::X509 { .. } | Credential::Delivered(_) | Credential::Shared(_), _) => Change::Credential,
            };
            Ok(Step { change, ..quiet(Tenant { credential, ..tenant.clone() }) })
        }
        HubEffect::ReplaceCredential(credential) => {
            let tenant = tenant.ok_or(HubRefusal::NoSuchDevice)?;
            let change = if tenant.credential == *credential { Change::Unseen } else { Change::Credential };
            Ok(Step { change, ..quiet(Tenant { credential: credential.clone(), ..tenant.clone() }) })
        }
    }
}

fn in_phase(tenant: &Tenant, phase: Phase) -> Tenant {
    Tenant { phase, ..tenant.clone() }
}

fn quiet(tenant: Tenant) -> Step {
    Step { tenant: Some(tenant), outcome: Outcome::Done, answer: HubAnswer::Done, change: Change::Unseen }
}

fn create(tenant: Option<&Tenant>, device: &NewDevice) -> Result<Step, HubRefusal> {
    if tenant.is_some() {
        return Err(HubRefusal::Occupied);
    }
    check_state(&device.state)?;
    Ok(quiet(Tenant {
        generation: device.generation,
        phase: Phase::Staged,
        credential: device.credential.clone(),
        state: device.state.clone(),
    }))
}

fn replace(tenant: &Tenant, initial: &InitialState, now: Timestamp) -> Result<Step, HubRefusal> {
    check_initial(initial).map_err(|fault| HubRefusal::StateInvalid(fault.to_string()))?;
    let state = DeviceState {
        twin: tenant.state.twin.reset(initial, now),
        capabilities: initial.capabilities,
        status: tenant.state.status.clone(),
    };
    let replaced = Box::new(tenant.state.clone());
    Ok(Step {
        tenant: Some(Tenant { state, ..tenant.clone() }),
        outcome: Outcome::Replaced(replaced.clone()),
        answer: HubAnswer::State(replaced),
        change: Change::Replaced,
    })
}

/// Holds a state from elsewhere against the limits of a twin, so that nothing is taken in that could not be kept.
fn check_state(state: &DeviceState) -> Result<(), HubRefusal> {
    let twin = &state.twin;
    let sections: [(&str, &Document, usize); 3] = [
        ("tags", &twin.tags, limits::TAGS_BYTES_MAX),
        ("desired", &twin.desired.properties, limits::DESIRED_BYTES_MAX),
        ("reported", &twin.reported.properties, limits::REPORTED_BYTES_MAX),
    ];
    for (name, document, bytes_max) in sections {
        document.check(bytes_max).map_err(|fault| HubRefusal::StateInvalid(format!("{name} {fault}")))?;
    }
    for (name, section) in [("desired", &twin.desired), ("reported", &twin.reported)] {
        // The root is one level more than the deepest object below it, and a leaf one more again.
        if is_deeper(&section.metadata, limits::TWIN_DEPTH_MAX + 1) {
            return Err(HubRefusal::StateInvalid(format!("{name} has metadata below its deepest level")));
        }
    }
    match &state.status {
        HubStatus::Disabled { reason } if reason.chars().count() > limits::REASON_CHARS_MAX => {
            Err(HubRefusal::StateInvalid("the reason of the status is too long".to_owned()))
        }
        HubStatus::Disabled { .. } | HubStatus::Enabled => Ok(()),
    }
}

fn is_deeper(metadata: &Metadata, levels: usize) -> bool {
    levels == 0 || metadata.properties.values().any(|below| is_deeper(below, levels - 1))
}

#[cfg(test)]
mod tests;
