//! Journal lines in the file.

use super::{Decoded, RecordFault, Stored, device_id, form, hub_id, reason, registration_id, request_id, text};
use crate::domain::{DeviceState, HubRefusal, Incarnation, OperationId, Order, Timestamp, Version};
use crate::moves::{Carry, Intent, JournalLine, JournalRecord, KnownState, Plan};

impl From<&Carry> for form::Carry {
    fn from(carry: &Carry) -> Self {
        match carry {
            Carry::State => form::Carry::State,
            Carry::Initial => form::Carry::Initial,
            Carry::Planted { seen_at } => form::Carry::Planted { seen_at: seen_at.0 },
        }
    }
}

impl From<form::Carry> for Carry {
    fn from(carry: form::Carry) -> Self {
        match carry {
            form::Carry::State => Carry::State,
            form::Carry::Initial => Carry::Initial,
            form::Carry::Planted { seen_at } => Carry::Planted { seen_at: Timestamp(seen_at) },
        }
    }
}

impl From<&KnownState> for form::KnownState {
    fn from(KnownState { state, seen_at }: &KnownState) -> Self {
        Self { state: Box::new((&**state).into()), seen_at: seen_at.0 }
    }
}

impl TryFrom<form::KnownState> for KnownState {
    type Error = RecordFault;

    fn try_from(form::KnownState { state, seen_at }: form::KnownState) -> Decoded<Self> {
        Ok(Self { state: Box::new((*state).try_into()?), seen_at: Timestamp(seen_at) })
    }
}

impl From<&Plan> for form::Plan {
    fn from(plan: &Plan) -> Self {
        match plan {
            Plan::Assign { to } => form::Plan::Assign { to: text(to) },
            Plan::TakeOver { to, adopt } => form::Plan::TakeOver { to: text(to), adopt: *adopt },
            Plan::Relocate { from, to, carry } => {
                form::Plan::Relocate { from: text(from), to: text(to), carry: carry.into() }
            }
            Plan::Replant { from, to, source } => {
                form::Plan::Replant { from: text(from), to: text(to), source: source.0 }
            }
            Plan::Rehouse { from, to } => form::Plan::Rehouse { from: text(from), to: text(to) },
            Plan::ResetInPlace { at, credential } => form::Plan::ResetInPlace { at: text(at), credential: *credential },
            Plan::Refresh { at } => form::Plan::Refresh { at: text(at) },
            Plan::Release { from } => form::Plan::Release { from: from.as_ref().map(text) },
            Plan::Collect { from } => form::Plan::Collect { from: from.as_ref().map(text) },
            Plan::Restore { from, to, seen_at } => {
                form::Plan::Restore { from: text(from), to: text(to), seen_at: seen_at.0 }
            }
        }
    }
}

impl TryFrom<form::Plan> for Plan {
    type Error = RecordFault;

    fn try_from(plan: form::Plan) -> Decoded<Self> {
        Ok(match plan {
            form::Plan::Assign { to } => Plan::Assign { to: hub_id(&to)? },
            form::Plan::TakeOver { to, adopt } => Plan::TakeOver { to: hub_id(&to)?, adopt },
            form::Plan::Relocate { from, to, carry } => {
                Plan::Relocate { from: hub_id(&from)?, to: hub_id(&to)?, carry: carry.into() }
            }
            form::Plan::Replant { from, to, source } => {
                Plan::Replant { from: hub_id(&from)?, to: hub_id(&to)?, source: Order(source) }
            }
            form::Plan::Rehouse { from, to } => Plan::Rehouse { from: hub_id(&from)?, to: hub_id(&to)? },
            form::Plan::ResetInPlace { at, credential } => Plan::ResetInPlace { at: hub_id(&at)?, credential },
            form::Plan::Refresh { at } => Plan::Refresh { at: hub_id(&at)? },
            form::Plan::Release { from } => Plan::Release { from: from.as_deref().map(hub_id).transpose()? },
            form::Plan::Collect { from } => Plan::Collect { from: from.as_deref().map(hub_id).transpose()? },
            form::Plan::Restore { from, to, seen_at } => {
                Plan::Restore { from: hub_id(&from)?, to: hub_id(&to)?, seen_at: Timestamp(seen_at) }
            }
        })
    }
}

impl From<&Intent> for form::Intent {
    fn from(intent: &Intent) -> Self {
        Self {
            operation: intent.operation.0,
            request_id: intent.request_id.as_ref().map(|id| id.as_str().to_owned()),
            by: intent.by.clone(),
            registration: intent.registration.as_str().to_owned(),
            device: intent.device.as_str().to_owned(),
            plan: (&intent.plan).into(),
            enrollment: (&intent.enrollment).into(),
            enrollment_version: intent.enrollment_version.0,
            policy: intent.policy.as_ref().map(Into::into),
            sub_status: (&intent.sub_status).into(),
            credential: (&intent.credential).into(),
            initial: (&intent.initial).into(),
            planted: state_form(&intent.planted),
            unreachable: (&intent.unreachable).into(),
            allow_late_writes: intent.allow_late_writes,
            adopt_existing: intent.adopt_existing,
            payload: intent.payload.clone(),
            pin: intent.pin.as_ref().map(Into::into),
            why: intent.why.clone(),
        }
    }
}

impl TryFrom<form::Intent> for Intent {
    type Error = RecordFault;

    fn try_from(record: form::Intent) -> Decoded<Self> {
        Ok(Self {
            operation: OperationId(record.operation),
            request_id: record.request_id.as_deref().map(request_id).transpose()?,
            by: record.by,
            registration: registration_id(&record.registration)?,
            device: device_id(&record.device)?,
            plan: record.plan.try_into()?,
            enrollment: record.enrollment.try_into()?,
            enrollment_version: Version(record.enrollment_version),
            policy: record.policy.map(Into::into),
            sub_status: record.sub_status.into(),
            credential: record.credential.try_into()?,
            initial: record.initial.try_into()?,
            planted: state_back(record.planted)?,
            unreachable: record.unreachable.into(),
            allow_late_writes: record.allow_late_writes,
            adopt_existing: record.adopt_existing,
            payload: record.payload,
            tpm: None,
            pin: record.pin.map(TryInto::try_into).transpose()?,
            why: record.why,
        })
    }
}

fn state_form(state: &Option<Box<DeviceState>>) -> Option<Box<form::DeviceState>> {
    state.as_ref().map(|state| Box::new((&**state).into()))
}

fn state_back(state: Option<Box<form::DeviceState>>) -> Decoded<Option<Box<DeviceState>>> {
    state.map(|state| (*state).try_into().map(Box::new)).transpose()
}

impl From<&HubRefusal> for form::HubRefusal {
    fn from(refusal: &HubRefusal) -> Self {
        match refusal {
            HubRefusal::Stale { highest } => form::HubRefusal::Stale { highest: highest.0 },
            HubRefusal::Occupied => form::HubRefusal::Occupied,
            HubRefusal::NotStaged => form::HubRefusal::NotStaged,
            HubRefusal::NoSuchDevice => form::HubRefusal::NoSuchDevice,
            HubRefusal::WrongIncarnation { current } => form::HubRefusal::WrongIncarnation { current: current.0 },
            HubRefusal::Full => form::HubRefusal::Full,
            HubRefusal::StateInvalid(why) => form::HubRefusal::StateInvalid(why.clone()),
            HubRefusal::OrderReused => form::HubRefusal::OrderReused,
        }
    }
}

impl From<form::HubRefusal> for HubRefusal {
    fn from(refusal: form::HubRefusal) -> Self {
        match refusal {
            form::HubRefusal::Stale { highest } => HubRefusal::Stale { highest: Order(highest) },
            form::HubRefusal::Occupied => HubRefusal::Occupied,
            form::HubRefusal::NotStaged => HubRefusal::NotStaged,
            form::HubRefusal::NoSuchDevice => HubRefusal::NoSuchDevice,
            form::HubRefusal::WrongIncarnation { current } => {
                HubRefusal::WrongIncarnation { current: Incarnation(current) }
            }
            form::HubRefusal::Full => HubRefusal::Full,
            form::HubRefusal::StateInvalid(why) => HubRefusal::StateInvalid(why),
            form::HubRefusal::OrderReused => HubRefusal::OrderReused,
        }
    }
}

impl From<&JournalRecord> for form::JournalRecord {
    fn from(record: &JournalRecord) -> Self {
        match record {
            JournalRecord::Intent(intent) => {
                let first = Box::new((&**intent).into());
                match &intent.tpm {
                    None => form::JournalRecord::Intent(first),
                    Some(tpm) => form::JournalRecord::TpmIntent { intent: first, tpm: tpm.into() },
                }
            }
            JournalRecord::StepDone { effect, state } => {
                form::JournalRecord::StepDone { effect: effect.into(), state: state_form(state) }
            }
            JournalRecord::Pivoted { data_source } => {
                form::JournalRecord::Pivoted { data_source: data_source.map(Into::into) }
            }
            JournalRecord::Aborted { reason, message, spare_current } => form::JournalRecord::Aborted {
                reason: reason.as_str().to_owned(),
                message: message.clone(),
                spare_current: *spare_current,
            },
            JournalRecord::Collected { hub, state } => {
                form::JournalRecord::Collected { hub: text(hub), state: state_form(state) }
            }
            JournalRecord::Settled { effect, hub, state } => {
                form::JournalRecord::Settled { effect: effect.into(), hub: text(hub), state: state_form(state) }
            }
            JournalRecord::Stuck { effect, hub, refusal } => {
                form::JournalRecord::Stuck { effect: effect.into(), hub: text(hub), refusal: refusal.into() }
            }
            JournalRecord::Dropped { effect, hub, why } => {
                form::JournalRecord::Dropped { effect: effect.into(), hub: text(hub), why: why.clone() }
            }
            JournalRecord::Bypassed { cause, known, carry } => form::JournalRecord::Bypassed {
                cause: cause.into(),
                known: known.as_ref().map(Into::into),
                carry: carry.into(),
            },
            JournalRecord::Regained { state, clear } => {
                form::JournalRecord::Regained { state: Box::new((&**state).into()), clear: *clear }
            }
            JournalRecord::Retried { effect, hub, as_effect, by, why } => form::JournalRecord::Retried {
                effect: effect.into(),
                hub: text(hub),
                as_effect: as_effect.into(),
                by: by.clone(),
                why: why.clone(),
            },
            JournalRecord::Abandoned { effect, hub, by, why, unheard } => {
                let (effect, hub, by, why) = (effect.into(), text(hub), by.clone(), why.clone());
                match unheard {
                    false => form::JournalRecord::Abandoned { effect, hub, by, why },
                    true => form::JournalRecord::AbandonedUnheard { effect, hub, by, why },
                }
            }
        }
    }
}

impl TryFrom<form::JournalRecord> for JournalRecord {
    type Error = RecordFault;

    fn try_from(record: form::JournalRecord) -> Decoded<Self> {
        Ok(match record {
            form::JournalRecord::Intent(intent) => JournalRecord::Intent(Box::new((*intent).try_into()?)),
            form::JournalRecord::TpmIntent { intent, tpm } => {
                let intent = Intent { tpm: Some(tpm.try_into()?), ..(*intent).try_into()? };
                JournalRecord::Intent(Box::new(intent))
            }
            form::JournalRecord::StepDone { effect, state } => {
                JournalRecord::StepDone { effect: effect.into(), state: state_back(state)? }
            }
            form::JournalRecord::Pivoted { data_source } => {
                JournalRecord::Pivoted { data_source: data_source.map(Into::into) }
            }
            form::JournalRecord::Aborted { reason: word, message, spare_current } => {
                JournalRecord::Aborted { reason: reason(&word)?, message, spare_current }
            }
            form::JournalRecord::Collected { hub, state } => {
                JournalRecord::Collected { hub: hub_id(&hub)?, state: state_back(state)? }
            }
            form::JournalRecord::Settled { effect, hub, state } => {
                JournalRecord::Settled { effect: effect.into(), hub: hub_id(&hub)?, state: state_back(state)? }
            }
            form::JournalRecord::Stuck { effect, hub, refusal } => {
                JournalRecord::Stuck { effect: effect.into(), hub: hub_id(&hub)?, refusal: refusal.into() }
            }
            form::JournalRecord::Dropped { effect, hub, why } => {
                JournalRecord::Dropped { effect: effect.into(), hub: hub_id(&hub)?, why }
            }
            form::JournalRecord::Bypassed { cause, known, carry } => JournalRecord::Bypassed {
                cause: cause.into(),
                known: known.map(TryInto::try_into).transpose()?,
                carry: carry.into(),
            },
            form::JournalRecord::Regained { state, clear } => {
                JournalRecord::Regained { state: Box::new((*state).try_into()?), clear }
            }
            form::JournalRecord::Retried { effect, hub, as_effect, by, why } => JournalRecord::Retried {
                effect: effect.into(),
                hub: hub_id(&hub)?,
                as_effect: as_effect.into(),
                by,
                why,
            },
            form::JournalRecord::Abandoned { effect, hub, by, why } => {
                JournalRecord::Abandoned { effect: effect.into(), hub: hub_id(&hub)?, by, why, unheard: false }
            }
            form::JournalRecord::AbandonedUnheard { effect, hub, by, why } => {
                JournalRecord::Abandoned { effect: effect.into(), hub: hub_id(&hub)?, by, why, unheard: true }
            }
        })
    }
}

impl Stored for JournalLine {
    const WHAT: &'static str = "journal line";
    type Record = form::JournalLine;

    fn to_record(&self) -> form::JournalLine {
        form::JournalLine { order: self.order.0, at: self.at.0, record: (&self.record).into() }
    }

    fn from_record(record: form::JournalLine) -> Decoded<Self> {
        Ok(Self { order: Order(record.order), at: Timestamp(record.at), record: record.record.try_into()? })
    }
}
