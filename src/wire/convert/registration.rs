//! Registration as devices see it.

use std::time::Duration;

use serde_json::Value;

use super::field;
use super::json;
use super::tpm::TpmAnswer;
use crate::domain::{
    ApiVersion, ClientFacts, DataSource, DeviceId, HubId, Latency, OperationId, OperationStatus, RegistrationId,
    RequestId, SdkVersion, SubStatus, Timestamp, limits,
};
use crate::wire::WireFault;
use crate::wire::device::v1;

/// What a device asks with, once its fields were checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterCall {
    pub registration_id: RegistrationId,
    pub facts: ClientFacts,
    pub request_id: Option<RequestId>,
    /// The answer to a challenge, beside a token.
    pub tpm: Option<TpmAnswer>,
}

/// A registration as its device is told.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrationUpdate {
    pub registration_id: RegistrationId,
    pub operation_id: OperationId,
    pub status: UpdateStatus,
    pub device_id: DeviceId,
    /// The home, if there is one: while *assigning* or after *failed*, the earlier one.
    pub hub: Option<AssignedHub>,
    /// Rises with every new home; 0 without one.
    pub generation: u64,
    /// What the allocation webhook hands the device.
    pub payload: Option<Value>,
    pub retry_after: Option<Duration>,
    /// What comes through the device's TPM with the assignment.
    pub tpm: Option<TpmCredential>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The credential of a hub, which only the device's TPM can open.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmCredential {
    /// The activation blob.
    pub authentication_key: Vec<u8>,
    /// What tokens for the hub are signed for.
    pub resource: String,
}

impl std::fmt::Debug for TpmCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmCredential({})", self.resource)
    }
}

/// Where the device lives, and how it gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedHub {
    pub id: HubId,
    pub host_name: String,
    /// `host:port`.
    pub endpoint: String,
    pub assigned_at: Timestamp,
}

/// [`OperationStatus`] as it is told: the reason is text, since a newer service may know more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateStatus {
    Assigning,
    Assigned { sub_status: SubStatus, data_source: Option<DataSource> },
    Failed { reason: String, message: String },
    Disabled,
}

impl UpdateStatus {
    pub fn is_final(&self) -> bool {
        match self {
            UpdateStatus::Assigning => false,
            UpdateStatus::Assigned { .. } | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => true,
        }
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            UpdateStatus::Assigning => "assigning",
            UpdateStatus::Assigned { .. } => "assigned",
            UpdateStatus::Failed { .. } => "failed",
            UpdateStatus::Disabled => "disabled",
        }
    }
}

impl From<&OperationStatus> for UpdateStatus {
    fn from(status: &OperationStatus) -> Self {
        match status {
            OperationStatus::Assigning => UpdateStatus::Assigning,
            OperationStatus::Assigned { sub_status, data_source } => {
                UpdateStatus::Assigned { sub_status: *sub_status, data_source: *data_source }
            }
            OperationStatus::Failed { reason, message } => {
                UpdateStatus::Failed { reason: reason.as_str().to_owned(), message: message.clone() }
            }
            OperationStatus::Disabled => UpdateStatus::Disabled,
        }
    }
}

impl From<v1::StartRegistrationRequest> for v1::RegisterRequest {
    fn from(request: v1::StartRegistrationRequest) -> Self {
        Self {
            registration_id: request.registration_id,
            api_version: request.api_version,
            sdk: request.sdk,
            payload: request.payload,
            latencies: request.latencies,
            location: request.location,
            request_id: request.request_id,
            tpm: request.tpm,
        }
    }
}

impl From<v1::RegisterRequest> for v1::StartRegistrationRequest {
    fn from(request: v1::RegisterRequest) -> Self {
        Self {
            registration_id: request.registration_id,
            api_version: request.api_version,
            sdk: request.sdk,
            payload: request.payload,
            latencies: request.latencies,
            location: request.location,
            request_id: request.request_id,
            tpm: request.tpm,
        }
    }
}

impl TryFrom<&v1::RegisterRequest> for RegisterCall {
    type Error = WireFault;

    fn try_from(request: &v1::RegisterRequest) -> Result<Self, WireFault> {
        let api_version = field::optional_id("api_version", &request.api_version, str::parse::<ApiVersion>)?;
        let sdk = request
            .sdk
            .as_ref()
            .map(|sdk| SdkVersion::parse(&sdk.name, &sdk.version).map_err(|fault| WireFault::new("sdk", fault)))
            .transpose()?;
        Ok(Self {
            registration_id: field::id("registration_id", &request.registration_id, RegistrationId::parse)?,
            facts: ClientFacts {
                api_version,
                sdk,
                payload: request.payload.as_ref().map(|value| json::payload("payload", value)).transpose()?,
                latencies: latencies(&request.latencies)?,
                location: field::place("location", request.location.as_ref())?,
            },
            request_id: field::optional_id("request_id", &request.request_id, RequestId::parse)?,
            tpm: request.tpm.as_ref().map(TpmAnswer::try_from).transpose()?,
        })
    }
}

fn latencies(given: &[v1::HubLatency]) -> Result<Vec<Latency>, WireFault> {
    const FIELD: &str = "latencies";
    if given.len() > limits::LATENCIES_MAX {
        return Err(WireFault::new(FIELD, format!("are {}, the most is {}", given.len(), limits::LATENCIES_MAX)));
    }
    let mut latencies: Vec<Latency> = Vec::with_capacity(given.len());
    for latency in given {
        let hub = field::id("latencies.hub_id", &latency.hub_id, HubId::parse)?;
        if latencies.iter().any(|seen| seen.hub == hub) {
            return Err(WireFault::new(FIELD, format!("name {hub} twice")));
        }
        latencies.push(Latency { hub, milliseconds: latency.milliseconds });
    }
    Ok(latencies)
}

impl From<&RegisterCall> for v1::RegisterRequest {
    fn from(call: &RegisterCall) -> Self {
        let facts = &call.facts;
        let latency =
            |latency: &Latency| v1::HubLatency { hub_id: latency.hub.to_string(), milliseconds: latency.milliseconds };
        Self {
            registration_id: call.registration_id.to_string(),
            api_version: facts.api_version.map(|version| version.to_string()).unwrap_or_default(),
            sdk: facts.sdk.as_ref().map(|sdk| v1::Sdk { name: sdk.name.clone(), version: sdk.version.clone() }),
            payload: facts.payload.as_ref().map(json::wire_value),
            latencies: facts.latencies.iter().map(latency).collect(),
            location: facts.location.map(field::wire_place),
            request_id: call.request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            tpm: call.tpm.as_ref().map(Into::into),
        }
    }
}

/// Whose operation, and which.
pub fn operation_of(request: &v1::GetOperationRequest) -> Result<(RegistrationId, OperationId), WireFault> {
    Ok((
        field::id("registration_id", &request.registration_id, RegistrationId::parse)?,
        field::id("operation_id", &request.operation_id, str::parse::<OperationId>)?,
    ))
}

impl From<SubStatus> for v1::RegistrationSubStatus {
    fn from(sub_status: SubStatus) -> Self {
        match sub_status {
            SubStatus::InitialAssignment => Self::InitialAssignment,
            SubStatus::DeviceDataMigrated => Self::DeviceDataMigrated,
            SubStatus::DeviceDataReset => Self::DeviceDataReset,
            SubStatus::ReprovisionedToInitialAssignment => Self::ReprovisionedToInitialAssignment,
        }
    }
}

fn sub_status(value: v1::RegistrationSubStatus) -> Result<SubStatus, WireFault> {
    match value {
        v1::RegistrationSubStatus::InitialAssignment => Ok(SubStatus::InitialAssignment),
        v1::RegistrationSubStatus::DeviceDataMigrated => Ok(SubStatus::DeviceDataMigrated),
        v1::RegistrationSubStatus::DeviceDataReset => Ok(SubStatus::DeviceDataReset),
        v1::RegistrationSubStatus::ReprovisionedToInitialAssignment => Ok(SubStatus::ReprovisionedToInitialAssignment),
        v1::RegistrationSubStatus::Unspecified => Err(WireFault::new("sub_status", "is missing or not known here")),
    }
}

/// A data source in its two fields.
pub fn wire_data_source(source: Option<DataSource>) -> (v1::DataSource, Option<prost_types::Timestamp>) {
    match source {
        None => (v1::DataSource::Unspecified, None),
        Some(DataSource::Sealed) => (v1::DataSource::Sealed, None),
        Some(DataSource::LastKnown { seen_at }) => (v1::DataSource::LastKnown, Some(field::wire_time(seen_at))),
        Some(DataSource::Initial) => (v1::DataSource::Initial, None),
    }
}

/// A data source from its two fields.
pub fn data_source(
    source: v1::DataSource,
    seen_at: Option<&prost_types::Timestamp>,
) -> Result<Option<DataSource>, WireFault> {
    match source {
        v1::DataSource::Unspecified => Ok(None),
        v1::DataSource::Sealed => Ok(Some(DataSource::Sealed)),
        v1::DataSource::LastKnown => {
            field::required_time("data_seen_at", seen_at).map(|seen_at| Some(DataSource::LastKnown { seen_at }))
        }
        v1::DataSource::Initial => Ok(Some(DataSource::Initial)),
    }
}

/// A status in its fields, as devices and operators are told alike.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StatusFields {
    pub status: v1::RegistrationStatus,
    pub sub_status: v1::RegistrationSubStatus,
    pub data_source: v1::DataSource,
    pub data_seen_at: Option<prost_types::Timestamp>,
    pub reason: String,
    pub message: String,
}

impl From<&UpdateStatus> for StatusFields {
    fn from(status: &UpdateStatus) -> Self {
        match status {
            UpdateStatus::Assigning => Self { status: v1::RegistrationStatus::Assigning, ..Self::default() },
            UpdateStatus::Assigned { sub_status, data_source } => {
                let (data_source, data_seen_at) = wire_data_source(*data_source);
                Self {
                    status: v1::RegistrationStatus::Assigned,
                    sub_status: (*sub_status).into(),
                    data_source,
                    data_seen_at,
                    ..Self::default()
                }
            }
            UpdateStatus::Failed { reason, message } => Self {
                status: v1::RegistrationStatus::Failed,
                reason: reason.clone(),
                message: message.clone(),
                ..Self::default()
            },
            UpdateStatus::Disabled => Self {
                status: v1::RegistrationStatus::Disabled,
                reason: crate::domain::Reason::EnrollmentDisabled.as_str().to_owned(),
                message: "the enrollment is disabled".to_owned(),
                ..Self::default()
            },
        }
    }
}

impl TryFrom<StatusFields> for UpdateStatus {
    type Error = WireFault;

    fn try_from(fields: StatusFields) -> Result<Self, WireFault> {
        match fields.status {
            v1::RegistrationStatus::Unspecified => Err(WireFault::new("status", "is missing or not known here")),
            v1::RegistrationStatus::Assigning => Ok(UpdateStatus::Assigning),
            v1::RegistrationStatus::Assigned => Ok(UpdateStatus::Assigned {
                sub_status: sub_status(fields.sub_status)?,
                data_source: data_source(fields.data_source, fields.data_seen_at.as_ref())?,
            }),
            v1::RegistrationStatus::Failed => {
                Ok(UpdateStatus::Failed { reason: fields.reason, message: fields.message })
            }
            v1::RegistrationStatus::Disabled => Ok(UpdateStatus::Disabled),
        }
    }
}

impl From<&RegistrationUpdate> for v1::RegistrationUpdate {
    fn from(update: &RegistrationUpdate) -> Self {
        let status = StatusFields::from(&update.status);
        Self {
            registration_id: update.registration_id.to_string(),
            operation_id: update.operation_id.to_string(),
            status: status.status.into(),
            sub_status: status.sub_status.into(),
            data_source: status.data_source.into(),
            data_seen_at: status.data_seen_at,
            device_id: update.device_id.to_string(),
            hub: update.hub.as_ref().map(|hub| v1::AssignedHub {
                hub_id: hub.id.to_string(),
                host_name: hub.host_name.clone(),
                endpoint: hub.endpoint.clone(),
                assigned_at: Some(field::wire_time(hub.assigned_at)),
            }),
            generation: update.generation,
            payload: update.payload.as_ref().map(json::wire_value),
            reason: status.reason,
            message: status.message,
            retry_after: update.retry_after.map(field::wire_span),
            created_at: Some(field::wire_time(update.created_at)),
            updated_at: Some(field::wire_time(update.updated_at)),
            tpm: update.tpm.as_ref().map(|tpm| v1::TpmCredential {
                authentication_key: tpm.authentication_key.clone(),
                resource: tpm.resource.clone(),
            }),
        }
    }
}

impl TryFrom<v1::RegistrationUpdate> for RegistrationUpdate {
    type Error = WireFault;

    fn try_from(update: v1::RegistrationUpdate) -> Result<Self, WireFault> {
        let status = UpdateStatus::try_from(StatusFields {
            status: update.status(),
            sub_status: update.sub_status(),
            data_source: update.data_source(),
            data_seen_at: update.data_seen_at,
            reason: update.reason,
            message: update.message,
        })?;
        let hub = update.hub.map(|hub| {
            Ok(AssignedHub {
                id: field::id("hub.hub_id", &hub.hub_id, HubId::parse)?,
                host_name: hub.host_name,
                endpoint: hub.endpoint,
                assigned_at: field::required_time("hub.assigned_at", hub.assigned_at.as_ref())?,
            })
        });
        Ok(Self {
            registration_id: field::id("registration_id", &update.registration_id, RegistrationId::parse)?,
            operation_id: field::id("operation_id", &update.operation_id, str::parse::<OperationId>)?,
            status,
            device_id: field::id("device_id", &update.device_id, DeviceId::parse)?,
            hub: hub.transpose()?,
            generation: update.generation,
            payload: update.payload.as_ref().map(|value| json::payload("payload", value)).transpose()?,
            retry_after: update.retry_after.as_ref().map(|span| field::span("retry_after", span)).transpose()?,
            tpm: update
                .tpm
                .map(|tpm| TpmCredential { authentication_key: tpm.authentication_key, resource: tpm.resource }),
            created_at: field::required_time("created_at", update.created_at.as_ref())?,
            updated_at: field::required_time("updated_at", update.updated_at.as_ref())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Geo, Reason};

    fn call() -> RegisterCall {
        RegisterCall {
            registration_id: RegistrationId::parse("Dev-1").unwrap(),
            facts: ClientFacts {
                api_version: Some("2019-03-31".parse().unwrap()),
                sdk: Some(SdkVersion::parse("rust", "0.1").unwrap()),
                payload: Some(serde_json::json!({"model": [1, 2.5, null]})),
                latencies: vec![Latency { hub: HubId::parse("hub-a").unwrap(), milliseconds: 7 }],
                location: Geo::new(52.5, 13.4),
            },
            tpm: Some(TpmAnswer { challenge: 7, quote: None }),
            request_id: Some(RequestId::parse("r-1").unwrap()),
        }
    }

    #[test]
    fn a_call_comes_back_by_either_way_of_asking() {
        let bare = RegisterCall { facts: ClientFacts::default(), request_id: None, ..call() };
        for call in [call(), bare] {
            let request = v1::RegisterRequest::from(&call);
            let polled = v1::RegisterRequest::from(v1::StartRegistrationRequest::from(request.clone()));
            assert_eq!(request, polled);
            assert_eq!(RegisterCall::try_from(&request), Ok(call));
        }
    }

    #[test]
    fn every_field_of_a_call_is_checked() {
        let latency = |hub: &str| v1::HubLatency { hub_id: hub.to_owned(), milliseconds: 1 };
        let sdk = |name: usize, version: usize| Some(v1::Sdk { name: "n".repeat(name), version: "v".repeat(version) });
        fn check(change: impl FnOnce(&mut v1::RegisterRequest), field: &str) {
            let mut request = v1::RegisterRequest::from(&call());
            change(&mut request);
            assert_eq!(RegisterCall::try_from(&request).map_err(|fault| fault.field), Err(field));
        }
        check(|r| r.registration_id.clear(), "registration_id");
        check(|r| r.registration_id = "a b".to_owned(), "registration_id");
        check(|r| r.api_version = "new".to_owned(), "api_version");
        check(|r| r.sdk = sdk(65, 1), "sdk");
        check(|r| r.sdk = sdk(1, 33), "sdk");
        check(|r| r.payload = Some(prost_types::Value { kind: None }), "payload");
        check(|r| r.latencies = vec![latency("Hub")], "latencies.hub_id");
        check(|r| r.latencies = vec![latency("a"), latency("a")], "latencies");
        check(|r| r.latencies = (0..51).map(|n| latency(&format!("h{n}"))).collect(), "latencies");
        check(|r| r.location = Some(v1::GeoPoint { latitude: 91.0, longitude: 0.0 }), "location");
        check(|r| r.request_id = "a b".to_owned(), "request_id");
    }

    fn update(status: UpdateStatus) -> RegistrationUpdate {
        RegistrationUpdate {
            registration_id: RegistrationId::parse("Dev-1").unwrap(),
            operation_id: OperationId(7),
            status,
            device_id: DeviceId::parse("Dev-1").unwrap(),
            hub: Some(AssignedHub {
                id: HubId::parse("hub-a").unwrap(),
                host_name: "hub-a.example".to_owned(),
                endpoint: "hub-a.example:8443".to_owned(),
                assigned_at: Timestamp(5),
            }),
            generation: 9,
            payload: Some(serde_json::json!("x")),
            retry_after: Some(Duration::from_millis(1500)),
            tpm: Some(TpmCredential { authentication_key: vec![1, 2, 3], resource: "a/devices/b".to_owned() }),
            created_at: Timestamp(1),
            updated_at: Timestamp(2_001),
        }
    }

    #[test]
    fn updates_come_back() {
        let sources = [
            None,
            Some(DataSource::Sealed),
            Some(DataSource::LastKnown { seen_at: Timestamp(77) }),
            Some(DataSource::Initial),
        ];
        let sub_statuses = [
            SubStatus::InitialAssignment,
            SubStatus::DeviceDataMigrated,
            SubStatus::DeviceDataReset,
            SubStatus::ReprovisionedToInitialAssignment,
        ];
        let assigned = sub_statuses
            .into_iter()
            .zip(sources)
            .map(|(sub_status, data_source)| OperationStatus::Assigned { sub_status, data_source });
        let failed = OperationStatus::Failed { reason: Reason::NoHubAvailable, message: "no hub is left".to_owned() };
        for status in assigned.chain([OperationStatus::Assigning, OperationStatus::Disabled, failed]) {
            let update = update(UpdateStatus::from(&status));
            assert_eq!(update.status.as_str(), status.as_str());
            assert_eq!(update.status.is_final(), status.is_final());
            assert_eq!(RegistrationUpdate::try_from(v1::RegistrationUpdate::from(&update)), Ok(update));
        }
    }

    #[test]
    fn every_field_of_an_update_is_checked() {
        fn check(change: impl FnOnce(&mut v1::RegistrationUpdate), field: &str) {
            let last_known = Some(DataSource::LastKnown { seen_at: Timestamp(1) });
            let status = UpdateStatus::Assigned { sub_status: SubStatus::DeviceDataMigrated, data_source: last_known };
            let mut message = v1::RegistrationUpdate::from(&update(status));
            change(&mut message);
            assert_eq!(RegistrationUpdate::try_from(message).map_err(|fault| fault.field), Err(field));
        }
        check(|u| u.registration_id.clear(), "registration_id");
        check(|u| u.operation_id = "7".to_owned(), "operation_id");
        check(|u| u.status = 0, "status");
        check(|u| u.status = 99, "status");
        check(|u| u.sub_status = 0, "sub_status");
        check(|u| u.data_seen_at = None, "data_seen_at");
        check(|u| u.device_id.clear(), "device_id");
        check(|u| u.hub.get_or_insert_default().hub_id.clear(), "hub.hub_id");
        check(|u| u.hub.get_or_insert_default().assigned_at = None, "hub.assigned_at");
        check(|u| u.retry_after = Some(prost_types::Duration { seconds: -1, nanos: 0 }), "retry_after");
        check(|u| u.created_at = None, "created_at");
        check(|u| u.updated_at = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), "updated_at");
    }

    #[test]
    fn an_operation_is_named_by_both_ids() {
        let request = |registration_id: &str, operation_id: &str| v1::GetOperationRequest {
            registration_id: registration_id.to_owned(),
            operation_id: operation_id.to_owned(),
        };
        assert!(operation_of(&request("dev", &OperationId(1).to_string())).is_ok());
        assert_eq!(operation_of(&request("dev", "1")).map_err(|fault| fault.field), Err("operation_id"));
        let id = OperationId(1).to_string();
        assert_eq!(operation_of(&request("", &id)).map_err(|fault| fault.field), Err("registration_id"));
    }
}
