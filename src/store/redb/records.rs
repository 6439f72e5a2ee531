//! Records as they stand in the file: private mirrors of domain values, each behind a version byte.
//!
//! The shapes are in [`super::form`]; here is how domain values become them and are made of them again. Documents are kept
//! as JSON text. Bytes that cannot be understood are a fault, never a panic.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::form;
use crate::domain::twin::Metadata;
use crate::domain::*;
use crate::moves::{Carry, Effect, Intent, JournalLine, JournalRecord, Plan};

/// The version of every record that is written now.
const VERSION: u8 = 1;
/// Levels of metadata that are followed: twins have at most [`limits::TWIN_DEPTH_MAX`], with room for the root.
const METADATA_DEPTH_MAX: usize = 4 * limits::TWIN_DEPTH_MAX;

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct RecordFault {
    what: &'static str,
    why: String,
}

type Decoded<T> = Result<T, RecordFault>;

fn fault(what: &'static str, why: impl ToString) -> RecordFault {
    RecordFault { what, why: why.to_string() }
}

/// A domain value that has a place in the file.
pub(super) trait Stored: Sized {
    /// What it is called in faults.
    const WHAT: &'static str;
    type Record: Serialize + DeserializeOwned;

    fn to_record(&self) -> Self::Record;
    fn from_record(record: Self::Record) -> Decoded<Self>;

    fn encode(&self) -> Decoded<Vec<u8>> {
        postcard::to_extend(&self.to_record(), vec![VERSION]).map_err(|why| fault(Self::WHAT, why))
    }

    fn decode(bytes: &[u8]) -> Decoded<Self> {
        match bytes.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((record, [])) => Self::from_record(record),
                Ok((_, rest)) => Err(fault(Self::WHAT, format!("{} bytes too many", rest.len()))),
                Err(why) => Err(fault(Self::WHAT, why)),
            },
            Some((version, _)) => Err(fault(Self::WHAT, format!("record version {version} is not known"))),
            None => Err(fault(Self::WHAT, "no bytes")),
        }
    }
}

/// Enums without data, written by name on both sides so that a new variant fails to compile until it has its place.
macro_rules! words {
    ($($name:ident { $($variant:ident),+ $(,)? })+) => {
        $(impl From<&$name> for form::$name {
            fn from(value: &$name) -> Self {
                match value { $($name::$variant => form::$name::$variant),+ }
            }
        }

        impl From<form::$name> for $name {
            fn from(value: form::$name) -> Self {
                match value { $(form::$name::$variant => $name::$variant),+ }
            }
        })+
    };
}

words! {
    ReprovisionPolicy { Migrate, Reset, Never }
    ResetOnSameHub { Always, WhenEnrollmentChanged, Off }
    HubKind { Embedded }
    HubState { Active, Draining, Retired }
    SubStatus { InitialAssignment, DeviceDataMigrated, DeviceDataReset, ReprovisionedToInitialAssignment }
    Carry { State, Initial }
    Effect { Seal, Create, Withhold, UpdateCredential, Activate, Unseal, Delete, Collect, ReplaceTwin }
}

fn registration_id(text: &str) -> Decoded<RegistrationId> {
    RegistrationId::parse(text).map_err(|why| fault("registration id", why))
}

fn device_id(text: &str) -> Decoded<DeviceId> {
    DeviceId::parse(text).map_err(|why| fault("device id", why))
}

fn hub_id(text: &str) -> Decoded<HubId> {
    HubId::parse(text).map_err(|why| fault("hub id", why))
}

fn request_id(text: &str) -> Decoded<RequestId> {
    RequestId::parse(text).map_err(|why| fault("request id", why))
}

fn document(text: &str) -> Decoded<Document> {
    Document::from_text(text).map_err(|why| fault("document", why))
}

fn reason(text: &str) -> Decoded<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or_else(|| fault("reason", text))
}

fn text(id: &HubId) -> String {
    id.as_str().to_owned()
}

impl From<&EnrollmentId> for form::EnrollmentId {
    fn from(id: &EnrollmentId) -> Self {
        match id {
            EnrollmentId::Individual(id) => form::EnrollmentId::Individual(id.as_str().to_owned()),
            EnrollmentId::Group(id) => form::EnrollmentId::Group(id.as_str().to_owned()),
        }
    }
}

impl TryFrom<form::EnrollmentId> for EnrollmentId {
    type Error = RecordFault;

    fn try_from(id: form::EnrollmentId) -> Decoded<Self> {
        match id {
            form::EnrollmentId::Individual(id) => registration_id(&id).map(EnrollmentId::Individual),
            form::EnrollmentId::Group(id) => {
                GroupId::parse(&id).map(EnrollmentId::Group).map_err(|why| fault("group id", why))
            }
        }
    }
}

impl From<&CertificateRef> for form::Certificate {
    fn from(held: &CertificateRef) -> Self {
        Self { der: held.der.clone(), thumbprint: held.thumbprint.0, subject: held.subject.0 }
    }
}

impl From<form::Certificate> for CertificateRef {
    fn from(held: form::Certificate) -> Self {
        Self { der: held.der, thumbprint: Thumbprint(held.thumbprint), subject: Thumbprint(held.subject) }
    }
}

impl From<&Attestation> for form::Attestation {
    fn from(attestation: &Attestation) -> Self {
        let both = |primary: &CertificateRef, secondary: &Option<CertificateRef>| {
            (primary.into(), secondary.as_ref().map(Into::into))
        };
        match attestation {
            Attestation::X509Leaf(leaves) => {
                let (primary, secondary) = both(&leaves.primary, &leaves.secondary);
                form::Attestation::X509Leaf { primary, secondary }
            }
            Attestation::X509Ca(anchors) => {
                let (primary, secondary) = both(&anchors.primary, &anchors.secondary);
                form::Attestation::X509Ca { primary, secondary }
            }
        }
    }
}

impl From<form::Attestation> for Attestation {
    fn from(attestation: form::Attestation) -> Self {
        match attestation {
            form::Attestation::X509Leaf { primary, secondary } => {
                Attestation::X509Leaf(X509Leaves { primary: primary.into(), secondary: secondary.map(Into::into) })
            }
            form::Attestation::X509Ca { primary, secondary } => {
                Attestation::X509Ca(X509Anchors { primary: primary.into(), secondary: secondary.map(Into::into) })
            }
        }
    }
}

impl From<&AllocationPolicy> for form::AllocationPolicy {
    fn from(policy: &AllocationPolicy) -> Self {
        match policy {
            AllocationPolicy::Static => form::AllocationPolicy::Static,
            AllocationPolicy::Hashed => form::AllocationPolicy::Hashed,
            AllocationPolicy::LowestLatency => form::AllocationPolicy::LowestLatency,
            AllocationPolicy::Custom(WebhookPolicy { url, api_version }) => {
                form::AllocationPolicy::Custom { url: url.clone(), api_version: api_version.clone() }
            }
        }
    }
}

impl From<form::AllocationPolicy> for AllocationPolicy {
    fn from(policy: form::AllocationPolicy) -> Self {
        match policy {
            form::AllocationPolicy::Static => AllocationPolicy::Static,
            form::AllocationPolicy::Hashed => AllocationPolicy::Hashed,
            form::AllocationPolicy::LowestLatency => AllocationPolicy::LowestLatency,
            form::AllocationPolicy::Custom { url, api_version } => {
                AllocationPolicy::Custom(WebhookPolicy { url, api_version })
            }
        }
    }
}

impl From<&UnreachableRule> for form::UnreachableRule {
    fn from(rule: &UnreachableRule) -> Self {
        match rule {
            UnreachableRule::Wait { deadline } => {
                form::UnreachableRule::Wait { seconds: deadline.as_secs(), nanoseconds: deadline.subsec_nanos() }
            }
            UnreachableRule::LastKnown => form::UnreachableRule::LastKnown,
            UnreachableRule::Reset => form::UnreachableRule::Reset,
        }
    }
}

impl From<form::UnreachableRule> for UnreachableRule {
    fn from(rule: form::UnreachableRule) -> Self {
        match rule {
            form::UnreachableRule::Wait { seconds, nanoseconds } => {
                // Not `Duration::new`, which panics where the two overflow.
                let rest = Duration::from_nanos(u64::from(nanoseconds));
                UnreachableRule::Wait { deadline: Duration::from_secs(seconds).saturating_add(rest) }
            }
            form::UnreachableRule::LastKnown => UnreachableRule::LastKnown,
            form::UnreachableRule::Reset => UnreachableRule::Reset,
        }
    }
}

impl From<Capabilities> for form::Capabilities {
    fn from(Capabilities { iot_edge }: Capabilities) -> Self {
        Self { iot_edge }
    }
}

impl From<form::Capabilities> for Capabilities {
    fn from(form::Capabilities { iot_edge }: form::Capabilities) -> Self {
        Self { iot_edge }
    }
}

impl From<&InitialState> for form::InitialState {
    fn from(InitialState { tags, desired, capabilities }: &InitialState) -> Self {
        Self { tags: tags.to_text(), desired: desired.to_text(), capabilities: (*capabilities).into() }
    }
}

impl TryFrom<form::InitialState> for InitialState {
    type Error = RecordFault;

    fn try_from(record: form::InitialState) -> Decoded<Self> {
        Ok(Self {
            tags: document(&record.tags)?,
            desired: document(&record.desired)?,
            capabilities: record.capabilities.into(),
        })
    }
}

impl From<&Credential> for form::Credential {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::X509 { thumbprints } => {
                form::Credential::X509 { thumbprints: thumbprints.iter().map(|thumbprint| thumbprint.0).collect() }
            }
        }
    }
}

impl From<form::Credential> for Credential {
    fn from(credential: form::Credential) -> Self {
        match credential {
            form::Credential::X509 { thumbprints } => Credential::x509(thumbprints.into_iter().map(Thumbprint)),
        }
    }
}

impl From<DataSource> for form::DataSource {
    fn from(source: DataSource) -> Self {
        match source {
            DataSource::Sealed => form::DataSource::Sealed,
            DataSource::LastKnown { seen_at } => form::DataSource::LastKnown { seen_at: seen_at.0 },
            DataSource::Initial => form::DataSource::Initial,
        }
    }
}

impl From<form::DataSource> for DataSource {
    fn from(source: form::DataSource) -> Self {
        match source {
            form::DataSource::Sealed => DataSource::Sealed,
            form::DataSource::LastKnown { seen_at } => DataSource::LastKnown { seen_at: Timestamp(seen_at) },
            form::DataSource::Initial => DataSource::Initial,
        }
    }
}

impl From<&OperationStatus> for form::OperationStatus {
    fn from(status: &OperationStatus) -> Self {
        match status {
            OperationStatus::Assigning => form::OperationStatus::Assigning,
            OperationStatus::Assigned { sub_status, data_source } => form::OperationStatus::Assigned {
                sub_status: sub_status.into(),
                data_source: data_source.map(Into::into),
            },
            OperationStatus::Failed { reason, message } => {
                form::OperationStatus::Failed { reason: reason.as_str().to_owned(), message: message.clone() }
            }
            OperationStatus::Disabled => form::OperationStatus::Disabled,
        }
    }
}

impl TryFrom<form::OperationStatus> for OperationStatus {
    type Error = RecordFault;

    fn try_from(status: form::OperationStatus) -> Decoded<Self> {
        Ok(match status {
            form::OperationStatus::Assigning => OperationStatus::Assigning,
            form::OperationStatus::Assigned { sub_status, data_source } => {
                OperationStatus::Assigned { sub_status: sub_status.into(), data_source: data_source.map(Into::into) }
            }
            form::OperationStatus::Failed { reason: word, message } => {
                OperationStatus::Failed { reason: reason(&word)?, message }
            }
            form::OperationStatus::Disabled => OperationStatus::Disabled,
        })
    }
}

impl From<&Pin> for form::Pin {
    fn from(Pin { hub, by, reason, set_at, expires_at }: &Pin) -> Self {
        Self {
            hub: text(hub),
            by: by.clone(),
            reason: reason.clone(),
            set_at: set_at.0,
            expires_at: expires_at.map(|at| at.0),
        }
    }
}

impl TryFrom<form::Pin> for Pin {
    type Error = RecordFault;

    fn try_from(record: form::Pin) -> Decoded<Self> {
        Ok(Self {
            hub: hub_id(&record.hub)?,
            by: record.by,
            reason: record.reason,
            set_at: Timestamp(record.set_at),
            expires_at: record.expires_at.map(Timestamp),
        })
    }
}

impl From<&Plan> for form::Plan {
    fn from(plan: &Plan) -> Self {
        match plan {
            Plan::Assign { to } => form::Plan::Assign { to: text(to) },
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
        }
    }
}

impl TryFrom<form::Plan> for Plan {
    type Error = RecordFault;

    fn try_from(plan: form::Plan) -> Decoded<Self> {
        Ok(match plan {
            form::Plan::Assign { to } => Plan::Assign { to: hub_id(&to)? },
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
            unreachable: (&intent.unreachable).into(),
            allow_late_writes: intent.allow_late_writes,
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
            credential: record.credential.into(),
            initial: record.initial.try_into()?,
            unreachable: record.unreachable.into(),
            allow_late_writes: record.allow_late_writes,
            payload: record.payload,
            pin: record.pin.map(TryInto::try_into).transpose()?,
            why: record.why,
        })
    }
}

fn flatten(metadata: &Metadata) -> Vec<form::MetadataNode> {
    fn visit(key: &str, depth: u32, metadata: &Metadata, nodes: &mut Vec<form::MetadataNode>) {
        nodes.push(form::MetadataNode {
            depth,
            key: key.to_owned(),
            last_updated_at: metadata.last_updated_at.0,
            last_updated_version: metadata.last_updated_version,
        });
        for (key, below) in &metadata.properties {
            visit(key, depth + 1, below, nodes);
        }
    }
    let mut nodes = Vec::new();
    visit("", 0, metadata, &mut nodes);
    nodes
}

/// Builds the tree again. `path` holds the nodes that are still growing, root first.
fn grow(nodes: Vec<form::MetadataNode>) -> Decoded<Metadata> {
    let wrong = || fault("metadata", "the nodes make no tree");
    let mut path: Vec<(String, Metadata)> = Vec::new();
    let fold = |path: &mut Vec<(String, Metadata)>| {
        if let Some((key, done)) = path.pop()
            && let Some((_, parent)) = path.last_mut()
        {
            parent.properties.insert(key, done);
        }
    };
    for (place, node) in nodes.into_iter().enumerate() {
        let depth = usize::try_from(node.depth).map_err(|_| wrong())?;
        if depth > path.len() || depth > METADATA_DEPTH_MAX || (depth == 0) != (place == 0) {
            return Err(wrong());
        }
        while path.len() > depth {
            fold(&mut path);
        }
        let metadata = Metadata {
            last_updated_at: Timestamp(node.last_updated_at),
            last_updated_version: node.last_updated_version,
            properties: BTreeMap::new(),
        };
        path.push((node.key, metadata));
    }
    while path.len() > 1 {
        fold(&mut path);
    }
    path.pop().map(|(_, root)| root).ok_or_else(wrong)
}

impl From<&Section> for form::Section {
    fn from(Section { properties, version, metadata }: &Section) -> Self {
        Self { properties: properties.to_text(), version: *version, metadata: flatten(metadata) }
    }
}

impl TryFrom<form::Section> for Section {
    type Error = RecordFault;

    fn try_from(record: form::Section) -> Decoded<Self> {
        Ok(Self {
            properties: document(&record.properties)?,
            version: record.version,
            metadata: grow(record.metadata)?,
        })
    }
}

impl From<&DeviceState> for form::DeviceState {
    fn from(DeviceState { twin, capabilities, status }: &DeviceState) -> Self {
        let Twin { desired, reported, tags, version } = twin;
        Self {
            twin: form::Twin {
                desired: desired.into(),
                reported: reported.into(),
                tags: tags.to_text(),
                version: *version,
            },
            capabilities: (*capabilities).into(),
            status: match status {
                HubStatus::Enabled => form::HubStatus::Enabled,
                HubStatus::Disabled { reason } => form::HubStatus::Disabled { reason: reason.clone() },
            },
        }
    }
}

impl TryFrom<form::DeviceState> for DeviceState {
    type Error = RecordFault;

    fn try_from(record: form::DeviceState) -> Decoded<Self> {
        Ok(Self {
            twin: Twin {
                desired: record.twin.desired.try_into()?,
                reported: record.twin.reported.try_into()?,
                tags: document(&record.twin.tags)?,
                version: record.twin.version,
            },
            capabilities: record.capabilities.into(),
            status: match record.status {
                form::HubStatus::Enabled => HubStatus::Enabled,
                form::HubStatus::Disabled { reason } => HubStatus::Disabled { reason },
            },
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
            JournalRecord::Intent(intent) => form::JournalRecord::Intent(Box::new((&**intent).into())),
            JournalRecord::StepDone { effect, state } => {
                form::JournalRecord::StepDone { effect: effect.into(), state: state_form(state) }
            }
            JournalRecord::Pivoted { data_source } => {
                form::JournalRecord::Pivoted { data_source: data_source.map(Into::into) }
            }
            JournalRecord::Aborted { reason, message } => {
                form::JournalRecord::Aborted { reason: reason.as_str().to_owned(), message: message.clone() }
            }
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
        }
    }
}

impl TryFrom<form::JournalRecord> for JournalRecord {
    type Error = RecordFault;

    fn try_from(record: form::JournalRecord) -> Decoded<Self> {
        Ok(match record {
            form::JournalRecord::Intent(intent) => JournalRecord::Intent(Box::new((*intent).try_into()?)),
            form::JournalRecord::StepDone { effect, state } => {
                JournalRecord::StepDone { effect: effect.into(), state: state_back(state)? }
            }
            form::JournalRecord::Pivoted { data_source } => {
                JournalRecord::Pivoted { data_source: data_source.map(Into::into) }
            }
            form::JournalRecord::Aborted { reason: word, message } => {
                JournalRecord::Aborted { reason: reason(&word)?, message }
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
        })
    }
}

impl Stored for Enrollment {
    const WHAT: &'static str = "enrollment";
    type Record = form::Enrollment;

    fn to_record(&self) -> form::Enrollment {
        form::Enrollment {
            id: (&self.id).into(),
            attestation: (&self.attestation).into(),
            enabled: self.enabled,
            device_id: self.device_id.as_ref().map(|id| id.as_str().to_owned()),
            initial: (&self.initial).into(),
            reprovision: self.reprovision.as_ref().map(Into::into),
            allocation: self.allocation.as_ref().map(Into::into),
            hubs: self.hubs.iter().map(text).collect(),
            unreachable: (&self.unreachable).into(),
            allow_late_writes: self.allow_late_writes,
            reset_on_same_hub: (&self.reset_on_same_hub).into(),
            reassign_when_down: self.reassign_when_down,
            adopt_existing: self.adopt_existing,
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
            version: self.version.0,
        }
    }

    fn from_record(record: form::Enrollment) -> Decoded<Self> {
        Ok(Self {
            id: record.id.try_into()?,
            attestation: record.attestation.into(),
            enabled: record.enabled,
            device_id: record.device_id.as_deref().map(device_id).transpose()?,
            initial: record.initial.try_into()?,
            reprovision: record.reprovision.map(Into::into),
            allocation: record.allocation.map(Into::into),
            hubs: record.hubs.iter().map(|id| hub_id(id)).collect::<Decoded<_>>()?,
            unreachable: record.unreachable.into(),
            allow_late_writes: record.allow_late_writes,
            reset_on_same_hub: record.reset_on_same_hub.into(),
            reassign_when_down: record.reassign_when_down,
            adopt_existing: record.adopt_existing,
            created_at: Timestamp(record.created_at),
            updated_at: Timestamp(record.updated_at),
            version: Version(record.version),
        })
    }
}

impl Stored for Hub {
    const WHAT: &'static str = "hub";
    type Record = form::Hub;

    fn to_record(&self) -> form::Hub {
        form::Hub {
            id: text(&self.id),
            host_name: self.host_name.clone(),
            endpoint: self.endpoint.clone(),
            kind: (&self.kind).into(),
            state: (&self.state).into(),
            location: self.location.map(|at| (at.latitude, at.longitude)),
            weight: self.weight,
            capacity: self.capacity,
            calls_per_second: self.calls_per_second,
            taken_down: self.taken_down,
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
            version: self.version.0,
        }
    }

    fn from_record(record: form::Hub) -> Decoded<Self> {
        let location = |(latitude, longitude)| {
            Geo::new(latitude, longitude).ok_or_else(|| fault("location", "is not a point on Earth"))
        };
        Ok(Self {
            id: hub_id(&record.id)?,
            host_name: record.host_name,
            endpoint: record.endpoint,
            kind: record.kind.into(),
            state: record.state.into(),
            location: record.location.map(location).transpose()?,
            weight: record.weight,
            capacity: record.capacity,
            calls_per_second: record.calls_per_second,
            taken_down: record.taken_down,
            created_at: Timestamp(record.created_at),
            updated_at: Timestamp(record.updated_at),
            version: Version(record.version),
        })
    }
}

impl Stored for Registration {
    const WHAT: &'static str = "registration";
    type Record = form::Registration;

    fn to_record(&self) -> form::Registration {
        let assignment = |assignment: &Assignment| form::Assignment {
            hub: text(&assignment.hub),
            generation: assignment.generation.0,
            credential: assignment.credential.as_ref().map(Into::into),
            assigned_at: assignment.assigned_at.0,
        };
        form::Registration {
            id: self.id.as_str().to_owned(),
            device_id: self.device_id.as_str().to_owned(),
            enrollment: (&self.enrollment).into(),
            enrollment_version: self.enrollment_version.0,
            policy: self.policy.as_ref().map(Into::into),
            assignment: self.assignment.as_ref().map(assignment),
            operation: form::Operation {
                id: self.operation.id.0,
                status: (&self.operation.status).into(),
                request_id: self.operation.request_id.as_ref().map(|id| id.as_str().to_owned()),
                started_at: self.operation.started_at.0,
                updated_at: self.operation.updated_at.0,
            },
            pin: self.pin.as_ref().map(Into::into),
            payload: self.payload.clone(),
            past: self.past.iter().map(|order| order.0).collect(),
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
            version: self.version.0,
        }
    }

    fn from_record(record: form::Registration) -> Decoded<Self> {
        let assignment = |assignment: form::Assignment| {
            Ok(Assignment {
                hub: hub_id(&assignment.hub)?,
                generation: Order(assignment.generation),
                credential: assignment.credential.map(Into::into),
                assigned_at: Timestamp(assignment.assigned_at),
            })
        };
        Ok(Self {
            id: registration_id(&record.id)?,
            device_id: device_id(&record.device_id)?,
            enrollment: record.enrollment.try_into()?,
            enrollment_version: Version(record.enrollment_version),
            policy: record.policy.map(Into::into),
            assignment: record.assignment.map(assignment).transpose()?,
            operation: Operation {
                id: OperationId(record.operation.id),
                status: record.operation.status.try_into()?,
                request_id: record.operation.request_id.as_deref().map(request_id).transpose()?,
                started_at: Timestamp(record.operation.started_at),
                updated_at: Timestamp(record.operation.updated_at),
            },
            pin: record.pin.map(TryInto::try_into).transpose()?,
            payload: record.payload,
            past: record.past.into_iter().map(Order).collect(),
            created_at: Timestamp(record.created_at),
            updated_at: Timestamp(record.updated_at),
            version: Version(record.version),
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

impl Stored for AuditEntry {
    const WHAT: &'static str = "audit entry";
    type Record = form::AuditEntry;

    fn to_record(&self) -> form::AuditEntry {
        form::AuditEntry {
            at: self.at.0,
            actor: self.actor.clone(),
            action: self.action.as_str().to_owned(),
            registration: self.registration.as_ref().map(|id| id.as_str().to_owned()),
            enrollment: self.enrollment.as_ref().map(Into::into),
            hub: self.hub.as_ref().map(text),
            operation: self.operation.map(|id| id.0),
            tracking: self.tracking.map(|id| id.0),
            detail: self.detail.clone(),
        }
    }

    fn from_record(record: form::AuditEntry) -> Decoded<Self> {
        let known = AuditAction::ALL.iter().copied().find(|action| action.as_str() == record.action);
        Ok(Self {
            at: Timestamp(record.at),
            actor: record.actor,
            action: known.ok_or_else(|| fault("audit action", &record.action))?,
            registration: record.registration.as_deref().map(registration_id).transpose()?,
            enrollment: record.enrollment.map(TryInto::try_into).transpose()?,
            hub: record.hub.as_deref().map(hub_id).transpose()?,
            operation: record.operation.map(OperationId),
            tracking: record.tracking.map(TrackingId),
            detail: record.detail,
        })
    }
}

/// What a deleted registration left behind.
impl Stored for Vec<Order> {
    const WHAT: &'static str = "list of generations";
    type Record = Vec<u64>;

    fn to_record(&self) -> Vec<u64> {
        self.iter().map(|order| order.0).collect()
    }

    fn from_record(record: Vec<u64>) -> Decoded<Self> {
        Ok(record.into_iter().map(Order).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn check(bytes: &[u8]) -> Result<Registration, String> {
        Registration::decode(bytes).map_err(|fault| fault.to_string())
    }

    #[test]
    fn bytes_that_are_no_record_are_a_fault() {
        let good = samples::registration("d", Some("a")).encode().unwrap();
        assert!(check(&good).is_ok());
        let with = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            bytes
        };
        for (bytes, why) in [
            (vec![], "registration: no bytes"),
            (with(0, 2), "registration: record version 2 is not known"),
            (with(0, 0), "registration: record version 0 is not known"),
            ([good.clone(), vec![0]].concat(), "registration: 1 bytes too many"),
            (with(2, b'/'), "registration id: registration id may hold ASCII letters, digits and -._:, not '/'"),
        ] {
            assert_eq!(check(&bytes), Err(why.to_owned()));
        }
        for length in 1..good.len() {
            assert!(check(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let state = Some(Box::new(samples::device_state()));
        let record = JournalRecord::StepDone { effect: Effect::Seal, state };
        let good = JournalLine { order: Order(7), at: samples::NOW, record }.encode().unwrap();
        for place in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, good[place] ^ 1] {
                let mut bytes = good.clone();
                bytes[place] = byte;
                let _ = JournalLine::decode(&bytes);
                let _ = Enrollment::decode(&bytes);
                let _ = AuditEntry::decode(&bytes);
                let _ = Hub::decode(&bytes);
            }
        }
    }

    #[test]
    fn metadata_that_makes_no_tree_is_refused() {
        let node =
            |depth| form::MetadataNode { depth, key: format!("k{depth}"), last_updated_at: 0, last_updated_version: 1 };
        for (depths, fits) in [
            (vec![0], true),
            (vec![0, 1, 2, 1, 2, 2], true),
            (vec![], false),
            (vec![1], false),
            (vec![0, 0], false),
            (vec![0, 2], false),
            ((0..100).collect(), false),
        ] {
            assert_eq!(grow(depths.iter().copied().map(node).collect()).is_ok(), fits, "{depths:?}");
        }
    }
}
