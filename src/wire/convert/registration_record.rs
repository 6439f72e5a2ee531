//! Answers about registrations: records, their past, and explanations, in domain words both ways.

use serde_json::Value;

use super::enrollment::wire_reprovision;
use super::registration::{StatusFields, UpdateStatus, data_source, wire_data_source};
use super::registration_admin::{applied_policy, wire_applied_policy};
use super::twin::{DeviceRecord, wire_device};
use super::{field, json};
use crate::domain::{
    AllocationPolicy, Assignment, Credential, DataSource, DeliveredKeys, DeviceId, Document, EnrollmentId, HubId,
    KeyFingerprint, KeyPair, OperationId, Order, Pin, RegistrationId, ReprovisionPolicy, RequestId, SealedKey,
    SubStatus, Thumbprint, Timestamp, Version,
};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::device::v1::RegistrationSubStatus;

/// A registration as an operator reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrationRecord {
    pub id: RegistrationId,
    pub device_id: DeviceId,
    pub enrollment: EnrollmentId,
    /// The policy that applied last; `None` is sticky.
    pub policy: Option<ReprovisionPolicy>,
    pub assignment: Option<Assignment>,
    /// The operation that runs, else the last one; its status is the registration's.
    pub operation: OperationRecord,
    pub pin: Option<Pin>,
    pub payload: Option<Value>,
    /// What the device's TPM proved last.
    pub tpm: Option<TpmFacts>,
    pub running: Option<MoveProgress>,
    pub obligations: Vec<Obligation>,
    /// Hubs that may still accept late writes.
    pub split: Vec<HubId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Absent while the first assignment runs.
    pub version: Version,
}

/// What a TPM proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmFacts {
    /// SHA-256 of the endorsement key in lower-case base32.
    pub endorsement_key_hash: String,
    /// Hexadecimal; absent after it was forgotten.
    pub storage_root_key_name: Option<String>,
}

/// One run of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRecord {
    pub id: OperationId,
    pub status: UpdateStatus,
    pub request_id: Option<RequestId>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A move that is under way. Words are stable texts, since a newer service may know more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveProgress {
    pub generation: Order,
    pub plan: String,
    pub from: Option<HubId>,
    pub to: Option<HubId>,
    pub step: String,
    /// The hub that is asked to do the step.
    pub hub: HubId,
    pub started_at: Timestamp,
    /// Since when the step is due.
    pub since: Timestamp,
    pub attempts: u32,
    pub last_error: Option<String>,
}

/// Clean-up that is owed to a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obligation {
    pub generation: Order,
    pub hub: HubId,
    pub what: String,
    pub since: Timestamp,
    pub attempts: u32,
    pub last_error: Option<String>,
    /// The hub refused: it waits for a person.
    pub stuck_reason: Option<String>,
}

/// One move of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    pub generation: Order,
    pub at: Timestamp,
    pub by: String,
    pub plan: String,
    pub from: Option<HubId>,
    pub to: Option<HubId>,
    pub why: String,
    pub ended: String,
    pub data_source: Option<DataSource>,
    pub has_twins: bool,
    /// Why the old home was left without being sealed, a stable word.
    pub bypassed: Option<String>,
    /// It may still accept late writes.
    pub split: bool,
    /// What was given up, each as a sentence.
    pub abandoned: Vec<String>,
}

/// A device state of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryTwin {
    /// Absent where only the move's reason says where it was found.
    pub hub: Option<HubId>,
    pub at: Timestamp,
    /// Taken after the device had left.
    pub late: bool,
    pub device: DeviceRecord,
    /// How a late one differs from what was carried in its stead.
    pub differences: Option<Document>,
}

/// An allocation policy without its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocationKind {
    Static,
    Hashed,
    LowestLatency,
    Custom,
}

impl AllocationKind {
    pub fn as_str(self) -> &'static str {
        match self {
            AllocationKind::Static => "static",
            AllocationKind::Hashed => "hashed",
            AllocationKind::LowestLatency => "lowest_latency",
            AllocationKind::Custom => "custom",
        }
    }
}

impl From<&AllocationPolicy> for AllocationKind {
    fn from(policy: &AllocationPolicy) -> Self {
        match policy {
            AllocationPolicy::Static => AllocationKind::Static,
            AllocationPolicy::Hashed => AllocationKind::Hashed,
            AllocationPolicy::LowestLatency => AllocationKind::LowestLatency,
            AllocationPolicy::Custom(_) => AllocationKind::Custom,
        }
    }
}

/// Where a device would go now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub enrollment: EnrollmentId,
    pub stored_policy: Option<ReprovisionPolicy>,
    /// `None` is sticky.
    pub applied_policy: Option<ReprovisionPolicy>,
    pub policy_basis: String,
    /// `None`: the service's default.
    pub allocation: Option<AllocationKind>,
    pub current: Option<HubId>,
    /// Where it would live then.
    pub hub: Option<HubId>,
    /// A stable word.
    pub outcome: String,
    pub sub_status: Option<SubStatus>,
    pub allocation_why: String,
    pub outcome_why: String,
    pub not_taken: Vec<(HubId, String)>,
    pub pin: Option<Pin>,
    /// Set when the outcome is a failure.
    pub reason: Option<String>,
    /// It would move if its policy let it.
    pub held_by_policy: bool,
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

fn optional_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<&RegistrationRecord> for v1::Registration {
    fn from(record: &RegistrationRecord) -> Self {
        let status = StatusFields::from(&record.operation.status);
        Self {
            registration_id: record.id.to_string(),
            device_id: record.device_id.to_string(),
            enrollment: Some((&record.enrollment).into()),
            policy: wire_applied_policy(record.policy).into(),
            assignment: record.assignment.as_ref().map(Into::into),
            status: status.status.into(),
            sub_status: status.sub_status.into(),
            data_source: status.data_source.into(),
            data_seen_at: status.data_seen_at,
            operation: Some((&record.operation).into()),
            pin: record.pin.as_ref().map(Into::into),
            payload: record.payload.as_ref().map(json::wire_value),
            r#move: record.running.as_ref().map(Into::into),
            obligations: record.obligations.iter().map(Into::into).collect(),
            split_hub_ids: record.split.iter().map(HubId::to_string).collect(),
            created_at: Some(field::wire_time(record.created_at)),
            updated_at: Some(field::wire_time(record.updated_at)),
            etag: record.version.etag(),
            tpm: record.tpm.as_ref().map(|tpm| v1::TpmRecord {
                endorsement_key_hash: tpm.endorsement_key_hash.clone(),
                storage_root_key_name: tpm.storage_root_key_name.clone().unwrap_or_default(),
            }),
        }
    }
}

impl TryFrom<&v1::Registration> for RegistrationRecord {
    type Error = WireFault;

    fn try_from(message: &v1::Registration) -> Result<Self, WireFault> {
        let operation = field::required("operation", message.operation.as_ref())?;
        let status = UpdateStatus::try_from(StatusFields {
            status: message.status(),
            sub_status: message.sub_status(),
            data_source: message.data_source(),
            data_seen_at: message.data_seen_at,
            reason: operation.reason.clone(),
            message: operation.message.clone(),
        })?;
        Ok(Self {
            id: field::id("registration_id", &message.registration_id, RegistrationId::parse)?,
            device_id: field::id("device_id", &message.device_id, DeviceId::parse)?,
            enrollment: field::enrollment_id("enrollment", message.enrollment.as_ref())?,
            policy: field::required("policy", applied_policy(message.policy()))?,
            assignment: message.assignment.as_ref().map(Assignment::try_from).transpose()?,
            operation: OperationRecord {
                id: field::id("operation.operation_id", &operation.operation_id, str::parse::<OperationId>)?,
                status,
                request_id: field::optional_id("operation.request_id", &operation.request_id, RequestId::parse)?,
                started_at: field::required_time("operation.started_at", operation.started_at.as_ref())?,
                updated_at: field::required_time("operation.updated_at", operation.updated_at.as_ref())?,
            },
            pin: message.pin.as_ref().map(Pin::try_from).transpose()?,
            payload: message.payload.as_ref().map(|value| json::payload("payload", value)).transpose()?,
            tpm: message.tpm.as_ref().map(|tpm| TpmFacts {
                endorsement_key_hash: tpm.endorsement_key_hash.clone(),
                storage_root_key_name: optional_text(&tpm.storage_root_key_name),
            }),
            running: message.r#move.as_ref().map(MoveProgress::try_from).transpose()?,
            obligations: message.obligations.iter().map(Obligation::try_from).collect::<Result<_, _>>()?,
            split: message
                .split_hub_ids
                .iter()
                .map(|hub| field::id("split_hub_ids", hub, HubId::parse))
                .collect::<Result<_, _>>()?,
            created_at: field::required_time("created_at", message.created_at.as_ref())?,
            updated_at: field::required_time("updated_at", message.updated_at.as_ref())?,
            version: field::etag("etag", &message.etag)?,
        })
    }
}

impl From<&Assignment> for v1::Assignment {
    fn from(assignment: &Assignment) -> Self {
        let fingerprint = |key: &SealedKey| key.fingerprint().to_string();
        let (thumbprints, key_fingerprints, keys_are_shared) = match &assignment.credential {
            Some(Credential::X509 { thumbprints }) => {
                (thumbprints.iter().map(ToString::to_string).collect(), Vec::new(), false)
            }
            Some(Credential::Delivered(keys)) => {
                (Vec::new(), keys.newest_first().iter().map(fingerprint).collect(), false)
            }
            Some(Credential::Shared(keys)) => (Vec::new(), keys.both().map(fingerprint).to_vec(), true),
            None => (Vec::new(), Vec::new(), false),
        };
        Self {
            hub_id: assignment.hub.to_string(),
            generation: assignment.generation.0,
            assigned_at: Some(field::wire_time(assignment.assigned_at)),
            thumbprints,
            key_fingerprints,
            keys_are_shared,
        }
    }
}

impl TryFrom<&v1::Assignment> for Assignment {
    type Error = WireFault;

    fn try_from(message: &v1::Assignment) -> Result<Self, WireFault> {
        let thumbprint = |text: &String| field::id("assignment.thumbprints", text, str::parse::<Thumbprint>);
        let thumbprints: Vec<Thumbprint> = message.thumbprints.iter().map(thumbprint).collect::<Result<_, _>>()?;
        // A fingerprint without its key.
        let key = |text: &String| {
            let fingerprint = field::id("assignment.key_fingerprints", text, str::parse::<KeyFingerprint>)?;
            Ok(SealedKey::new(fingerprint, Vec::new()))
        };
        let keys: Vec<Option<SealedKey>> =
            message.key_fingerprints.iter().map(key).collect::<Result<_, WireFault>>()?;
        let keys: Vec<SealedKey> = keys.into_iter().flatten().collect();
        Ok(Self {
            hub: field::id("assignment.hub_id", &message.hub_id, HubId::parse)?,
            generation: Order(message.generation),
            credential: match (thumbprints.is_empty(), keys.as_slice(), message.keys_are_shared) {
                (false, _, _) => Some(Credential::x509(thumbprints)),
                (true, [primary, secondary], true) => {
                    Some(Credential::Shared(KeyPair { primary: primary.clone(), secondary: secondary.clone() }))
                }
                (true, [_, ..], _) => Some(Credential::Delivered(DeliveredKeys::kept(keys))),
                (true, [], _) => None,
            },
            assigned_at: field::required_time("assignment.assigned_at", message.assigned_at.as_ref())?,
        })
    }
}

impl From<&OperationRecord> for v1::Operation {
    fn from(operation: &OperationRecord) -> Self {
        let status = StatusFields::from(&operation.status);
        Self {
            operation_id: operation.id.to_string(),
            status: status.status.into(),
            request_id: operation.request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            reason: status.reason,
            message: status.message,
            started_at: Some(field::wire_time(operation.started_at)),
            updated_at: Some(field::wire_time(operation.updated_at)),
        }
    }
}

impl From<&MoveProgress> for v1::MoveProgress {
    fn from(running: &MoveProgress) -> Self {
        Self {
            generation: running.generation.0,
            plan: running.plan.clone(),
            from_hub_id: text(running.from.as_ref()),
            to_hub_id: text(running.to.as_ref()),
            step: running.step.clone(),
            hub_id: running.hub.to_string(),
            started_at: Some(field::wire_time(running.started_at)),
            since: Some(field::wire_time(running.since)),
            attempts: running.attempts,
            last_error: running.last_error.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<&v1::MoveProgress> for MoveProgress {
    type Error = WireFault;

    fn try_from(message: &v1::MoveProgress) -> Result<Self, WireFault> {
        Ok(Self {
            generation: Order(message.generation),
            plan: message.plan.clone(),
            from: field::optional_id("move.from_hub_id", &message.from_hub_id, HubId::parse)?,
            to: field::optional_id("move.to_hub_id", &message.to_hub_id, HubId::parse)?,
            step: message.step.clone(),
            hub: field::id("move.hub_id", &message.hub_id, HubId::parse)?,
            started_at: field::required_time("move.started_at", message.started_at.as_ref())?,
            since: field::required_time("move.since", message.since.as_ref())?,
            attempts: message.attempts,
            last_error: optional_text(&message.last_error),
        })
    }
}

impl From<&Obligation> for v1::Obligation {
    fn from(owed: &Obligation) -> Self {
        Self {
            generation: owed.generation.0,
            hub_id: owed.hub.to_string(),
            what: owed.what.clone(),
            since: Some(field::wire_time(owed.since)),
            attempts: owed.attempts,
            last_error: owed.last_error.clone().unwrap_or_default(),
            stuck_reason: owed.stuck_reason.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<&v1::Obligation> for Obligation {
    type Error = WireFault;

    fn try_from(message: &v1::Obligation) -> Result<Self, WireFault> {
        Ok(Self {
            generation: Order(message.generation),
            hub: field::id("obligations.hub_id", &message.hub_id, HubId::parse)?,
            what: message.what.clone(),
            since: field::required_time("obligations.since", message.since.as_ref())?,
            attempts: message.attempts,
            last_error: optional_text(&message.last_error),
            stuck_reason: optional_text(&message.stuck_reason),
        })
    }
}

impl From<&HistoryRecord> for v1::HistoryEntry {
    fn from(record: &HistoryRecord) -> Self {
        let (data_source, data_seen_at) = wire_data_source(record.data_source);
        Self {
            generation: record.generation.0,
            at: Some(field::wire_time(record.at)),
            by: record.by.clone(),
            plan: record.plan.clone(),
            from_hub_id: text(record.from.as_ref()),
            to_hub_id: text(record.to.as_ref()),
            why: record.why.clone(),
            ended: record.ended.clone(),
            data_source: data_source.into(),
            data_seen_at,
            has_twins: record.has_twins,
            bypassed: record.bypassed.clone().unwrap_or_default(),
            split: record.split,
            abandoned: record.abandoned.clone(),
        }
    }
}

impl TryFrom<&v1::HistoryEntry> for HistoryRecord {
    type Error = WireFault;

    fn try_from(message: &v1::HistoryEntry) -> Result<Self, WireFault> {
        Ok(Self {
            generation: Order(message.generation),
            at: field::required_time("at", message.at.as_ref())?,
            by: message.by.clone(),
            plan: message.plan.clone(),
            from: field::optional_id("from_hub_id", &message.from_hub_id, HubId::parse)?,
            to: field::optional_id("to_hub_id", &message.to_hub_id, HubId::parse)?,
            why: message.why.clone(),
            ended: message.ended.clone(),
            data_source: data_source(message.data_source(), message.data_seen_at.as_ref())?,
            has_twins: message.has_twins,
            bypassed: optional_text(&message.bypassed),
            split: message.split,
            abandoned: message.abandoned.clone(),
        })
    }
}

impl From<&HistoryTwin> for v1::HistoryTwin {
    fn from(twin: &HistoryTwin) -> Self {
        let DeviceRecord { device, state, accepts_writes } = &twin.device;
        Self {
            hub_id: twin.hub.as_ref().map(ToString::to_string).unwrap_or_default(),
            at: Some(field::wire_time(twin.at)),
            late: twin.late,
            device: Some(wire_device(device, state, *accepts_writes)),
            differences: twin.differences.as_ref().map(json::wire_document),
        }
    }
}

impl TryFrom<&v1::HistoryTwin> for HistoryTwin {
    type Error = WireFault;

    fn try_from(message: &v1::HistoryTwin) -> Result<Self, WireFault> {
        Ok(Self {
            hub: match message.hub_id.as_str() {
                "" => None,
                text => Some(field::id("hub_id", text, HubId::parse)?),
            },
            at: field::required_time("at", message.at.as_ref())?,
            late: message.late,
            device: DeviceRecord::try_from(field::required("device", message.device.as_ref())?)?,
            differences: json::optional_document("differences", message.differences.as_ref())?,
        })
    }
}

fn wire_allocation_kind(kind: Option<AllocationKind>) -> v1::AllocationPolicy {
    match kind {
        None => v1::AllocationPolicy::Unspecified,
        Some(AllocationKind::Static) => v1::AllocationPolicy::Static,
        Some(AllocationKind::Hashed) => v1::AllocationPolicy::Hashed,
        Some(AllocationKind::LowestLatency) => v1::AllocationPolicy::LowestLatency,
        Some(AllocationKind::Custom) => v1::AllocationPolicy::Custom,
    }
}

fn allocation_kind(policy: v1::AllocationPolicy) -> Option<AllocationKind> {
    match policy {
        v1::AllocationPolicy::Unspecified => None,
        v1::AllocationPolicy::Static => Some(AllocationKind::Static),
        v1::AllocationPolicy::Hashed => Some(AllocationKind::Hashed),
        v1::AllocationPolicy::LowestLatency => Some(AllocationKind::LowestLatency),
        v1::AllocationPolicy::Custom => Some(AllocationKind::Custom),
    }
}

impl From<&Explanation> for v1::ExplainResponse {
    fn from(explanation: &Explanation) -> Self {
        let not_taken = |(hub, why): &(HubId, String)| v1::HubNotTaken { hub_id: hub.to_string(), why: why.clone() };
        let sub_status = explanation.sub_status.map_or(RegistrationSubStatus::Unspecified, Into::into);
        Self {
            enrollment: Some((&explanation.enrollment).into()),
            stored_policy: wire_reprovision(explanation.stored_policy).into(),
            applied_policy: wire_applied_policy(explanation.applied_policy).into(),
            policy_basis: explanation.policy_basis.clone(),
            allocation_policy: wire_allocation_kind(explanation.allocation).into(),
            current_hub_id: text(explanation.current.as_ref()),
            hub_id: text(explanation.hub.as_ref()),
            outcome: explanation.outcome.clone(),
            sub_status: sub_status.into(),
            allocation_why: explanation.allocation_why.clone(),
            outcome_why: explanation.outcome_why.clone(),
            hubs_not_taken: explanation.not_taken.iter().map(not_taken).collect(),
            pin: explanation.pin.as_ref().map(Into::into),
            reason: explanation.reason.clone().unwrap_or_default(),
            held_by_policy: explanation.held_by_policy,
        }
    }
}

impl TryFrom<&v1::ExplainResponse> for Explanation {
    type Error = WireFault;

    fn try_from(message: &v1::ExplainResponse) -> Result<Self, WireFault> {
        let not_taken = |hub: &v1::HubNotTaken| {
            Ok((field::id("hubs_not_taken.hub_id", &hub.hub_id, HubId::parse)?, hub.why.clone()))
        };
        Ok(Self {
            enrollment: field::enrollment_id("enrollment", message.enrollment.as_ref())?,
            stored_policy: applied_from_stored(message.stored_policy()),
            applied_policy: field::required("applied_policy", applied_policy(message.applied_policy()))?,
            policy_basis: message.policy_basis.clone(),
            allocation: allocation_kind(message.allocation_policy()),
            current: field::optional_id("current_hub_id", &message.current_hub_id, HubId::parse)?,
            hub: field::optional_id("hub_id", &message.hub_id, HubId::parse)?,
            outcome: message.outcome.clone(),
            sub_status: sub_status(message.sub_status()),
            allocation_why: message.allocation_why.clone(),
            outcome_why: message.outcome_why.clone(),
            not_taken: message.hubs_not_taken.iter().map(not_taken).collect::<Result<_, WireFault>>()?,
            pin: message.pin.as_ref().map(Pin::try_from).transpose()?,
            reason: optional_text(&message.reason),
            held_by_policy: message.held_by_policy,
        })
    }
}

fn applied_from_stored(policy: v1::ReprovisionPolicy) -> Option<ReprovisionPolicy> {
    match policy {
        v1::ReprovisionPolicy::Unspecified => None,
        v1::ReprovisionPolicy::Migrate => Some(ReprovisionPolicy::Migrate),
        v1::ReprovisionPolicy::Reset => Some(ReprovisionPolicy::Reset),
        v1::ReprovisionPolicy::Never => Some(ReprovisionPolicy::Never),
    }
}

fn sub_status(value: RegistrationSubStatus) -> Option<SubStatus> {
    match value {
        RegistrationSubStatus::Unspecified => None,
        RegistrationSubStatus::InitialAssignment => Some(SubStatus::InitialAssignment),
        RegistrationSubStatus::DeviceDataMigrated => Some(SubStatus::DeviceDataMigrated),
        RegistrationSubStatus::DeviceDataReset => Some(SubStatus::DeviceDataReset),
        RegistrationSubStatus::ReprovisionedToInitialAssignment => Some(SubStatus::ReprovisionedToInitialAssignment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, DeviceState, GroupId, HubStatus, InitialState, Twin};

    fn hub(id: &str) -> HubId {
        HubId::parse(id).unwrap()
    }

    fn pin() -> Pin {
        let (hub, by, reason) = (hub("hub-b"), "ann".to_owned(), "quarantine".to_owned());
        Pin { hub, by, reason, set_at: Timestamp(1), expires_at: Some(Timestamp(9)) }
    }

    fn record() -> RegistrationRecord {
        RegistrationRecord {
            id: RegistrationId::parse("Dev-1").unwrap(),
            device_id: DeviceId::parse("pump#7").unwrap(),
            enrollment: EnrollmentId::Group(GroupId::parse("g").unwrap()),
            policy: None,
            assignment: Some(Assignment {
                hub: hub("hub-a"),
                generation: Order(4),
                credential: Some(Credential::x509([Thumbprint([1; 32]), Thumbprint([2; 32])])),
                assigned_at: Timestamp(3),
            }),
            operation: OperationRecord {
                id: OperationId(7),
                status: UpdateStatus::Assigning,
                request_id: Some(RequestId::parse("r").unwrap()),
                started_at: Timestamp(4),
                updated_at: Timestamp(5),
            },
            pin: Some(pin()),
            tpm: Some(TpmFacts {
                endorsement_key_hash: "a".repeat(52),
                storage_root_key_name: Some("000b".to_owned()),
            }),
            payload: Some(serde_json::json!({"a": 1})),
            running: Some(MoveProgress {
                generation: Order(8),
                plan: "relocate".to_owned(),
                from: Some(hub("hub-a")),
                to: Some(hub("hub-b")),
                step: "seal".to_owned(),
                hub: hub("hub-a"),
                started_at: Timestamp(4),
                since: Timestamp(5),
                attempts: 3,
                last_error: Some("no answer".to_owned()),
            }),
            obligations: vec![Obligation {
                generation: Order(2),
                hub: hub("hub-c"),
                what: "collect".to_owned(),
                since: Timestamp(2),
                attempts: 0,
                last_error: None,
                stuck_reason: Some("stale".to_owned()),
            }],
            split: vec![hub("hub-b")],
            created_at: Timestamp(1),
            updated_at: Timestamp(5),
            version: Version(6),
        }
    }

    #[test]
    fn records_come_back() {
        let failed = UpdateStatus::Failed { reason: "NOT_KNOWN_HERE".to_owned(), message: "why".to_owned() };
        let data_source = Some(DataSource::LastKnown { seen_at: Timestamp(2) });
        let assigned = UpdateStatus::Assigned { sub_status: SubStatus::DeviceDataMigrated, data_source };
        for status in [UpdateStatus::Assigning, UpdateStatus::Disabled, failed, assigned] {
            let mut record = record();
            record.operation.status = status;
            assert_eq!(RegistrationRecord::try_from(&v1::Registration::from(&record)), Ok(record));
        }
        let first = RegistrationRecord {
            policy: Some(ReprovisionPolicy::Migrate),
            assignment: None,
            pin: None,
            payload: None,
            running: None,
            obligations: Vec::new(),
            version: Version::ABSENT,
            ..record()
        };
        assert_eq!(RegistrationRecord::try_from(&v1::Registration::from(&first)), Ok(first));
    }

    #[test]
    fn every_field_of_a_record_is_checked() {
        fn refused(change: impl FnOnce(&mut v1::Registration), field: &str) {
            let mut message = v1::Registration::from(&record());
            change(&mut message);
            assert_eq!(RegistrationRecord::try_from(&message).map_err(|fault| fault.field), Err(field));
        }
        refused(|r| r.registration_id.clear(), "registration_id");
        refused(|r| r.device_id.clear(), "device_id");
        refused(|r| r.enrollment = None, "enrollment");
        refused(|r| r.policy = 0, "policy");
        refused(|r| r.status = 0, "status");
        refused(|r| r.operation = None, "operation");
        refused(|r| r.operation.get_or_insert_default().operation_id.clear(), "operation.operation_id");
        refused(|r| r.assignment.get_or_insert_default().hub_id.clear(), "assignment.hub_id");
        refused(|r| r.assignment.get_or_insert_default().thumbprints = vec!["x".to_owned()], "assignment.thumbprints");
        refused(|r| r.pin.get_or_insert_default().set_at = None, "pin.set_at");
        refused(|r| r.r#move.get_or_insert_default().hub_id.clear(), "move.hub_id");
        refused(|r| r.obligations = vec![v1::Obligation::default()], "obligations.hub_id");
        refused(|r| r.etag.clear(), "etag");
    }

    #[test]
    fn the_past_comes_back() {
        for (from, data_source) in [(None, None), (Some(hub("hub-a")), Some(DataSource::Sealed))] {
            let record = HistoryRecord {
                generation: Order(4),
                at: Timestamp(1),
                by: "device".to_owned(),
                plan: "relocate".to_owned(),
                from,
                to: Some(hub("hub-b")),
                why: "nearer".to_owned(),
                ended: "done".to_owned(),
                data_source,
                has_twins: true,
                bypassed: Some("away".to_owned()),
                split: true,
                abandoned: vec!["delete at hub-a".to_owned()],
            };
            assert_eq!(HistoryRecord::try_from(&v1::HistoryEntry::from(&record)), Ok(record));
        }
        let twin = Twin::initial(&InitialState::default(), Timestamp(1));
        let state = DeviceState { twin, capabilities: Capabilities::default(), status: HubStatus::Enabled };
        let device = DeviceRecord { device: DeviceId::parse("d").unwrap(), state, accepts_writes: false };
        let twin = HistoryTwin {
            hub: Some(hub("hub-a")),
            at: Timestamp(1),
            late: true,
            device,
            differences: Some(Document::default()),
        };
        assert_eq!(HistoryTwin::try_from(&v1::HistoryTwin::from(&twin)), Ok(twin));
    }

    #[test]
    fn explanations_come_back() {
        let kinds = [None, Some(AllocationKind::Static), Some(AllocationKind::Hashed)];
        let more = [Some(AllocationKind::LowestLatency), Some(AllocationKind::Custom)];
        for allocation in kinds.into_iter().chain(more) {
            let explanation = Explanation {
                enrollment: EnrollmentId::Individual(RegistrationId::parse("d").unwrap()),
                stored_policy: None,
                applied_policy: Some(ReprovisionPolicy::Migrate),
                policy_basis: "nothing stored, new device".to_owned(),
                allocation,
                current: Some(hub("hub-a")),
                hub: None,
                outcome: "fail".to_owned(),
                sub_status: allocation.map(|_| SubStatus::DeviceDataReset),
                allocation_why: "none".to_owned(),
                outcome_why: "no hub".to_owned(),
                not_taken: vec![(hub("hub-b"), "is full".to_owned())],
                pin: Some(pin()),
                reason: Some("NO_HUB_AVAILABLE".to_owned()),
                held_by_policy: true,
            };
            assert_eq!(Explanation::try_from(&v1::ExplainResponse::from(&explanation)), Ok(explanation));
        }
    }
}
