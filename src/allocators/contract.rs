//! The JSON that is exchanged with an allocation webhook (reference/dps.md §1.10), and nothing about how it travels.
//!
//! What the outside is shown of an enrollment is written down here field by field: no certificate, no key, and the
//! webhook's own URL with its query masked.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::{Map, Value};

use crate::domain::{
    AllocationPolicy, Attestation, Capabilities, Document, Enrollment, EnrollmentId, InitialState, ReprovisionPolicy,
    limits, twin,
};

use super::{AllocationAnswer, AllocationQuestion, AllocatorFault, AnsweredTwin, CertificateFacts, ChosenHub, HubHost};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_group: Option<EnrollmentBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    individual_enrollment: Option<EnrollmentBody<'a>>,
    device_runtime_context: ContextBody<'a>,
    linked_hubs: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EnrollmentBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    attestation: AttestationBody,
    capabilities: CapabilitiesBody,
    initial_twin: TwinBody<'a>,
    etag: String,
    provisioning_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reprovision_policy: Option<ReprovisionBody>,
    created_date_time_utc: String,
    last_updated_date_time_utc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_policy: Option<&'static str>,
    iot_hubs: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_allocation_definition: Option<WebhookBody<'a>>,
}

#[derive(Debug, Serialize)]
struct AttestationBody {
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesBody {
    iot_edge: bool,
}

#[derive(Debug, Serialize)]
struct TwinBody<'a> {
    tags: &'a Map<String, Value>,
    properties: PropertiesBody<'a>,
}

#[derive(Debug, Serialize)]
struct PropertiesBody<'a> {
    desired: &'a Map<String, Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReprovisionBody {
    update_hub_assignment: bool,
    migrate_device_data: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookBody<'a> {
    webhook_url: String,
    api_version: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContextBody<'a> {
    registration_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_iot_hub_host_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_device_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509: Option<X509Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key: Option<SymmetricKeyBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
}

/// Says that a key proved the device, and nothing of the key.
#[derive(Debug, Serialize)]
struct SymmetricKeyBody {}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct X509Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificates: Option<CertificatesBody<'a>>,
}

#[derive(Debug, Serialize)]
struct CertificatesBody<'a> {
    primary: CertificateBody<'a>,
}

#[derive(Debug, Serialize)]
struct CertificateBody<'a> {
    info: CertificateInfoBody<'a>,
}

/// Without the SHA-1 thumbprint: nothing of ours identifies a certificate by it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateInfoBody<'a> {
    subject_name: &'a str,
    sha256_thumbprint: String,
    issuer_name: &'a str,
    not_before_utc: String,
    not_after_utc: String,
    serial_number: &'a str,
    version: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseBody {
    iot_hub_host_name: String,
    initial_twin: Option<ResponseTwin>,
    payload: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ResponseTwin {
    tags: Option<Map<String, Value>>,
    properties: Option<ResponseProperties>,
}

#[derive(Debug, Deserialize)]
struct ResponseProperties {
    desired: Option<Map<String, Value>>,
}

/// Writes the request.
pub fn write(question: &AllocationQuestion) -> Result<Vec<u8>, AllocatorFault> {
    let record = EnrollmentBody::of(question);
    let (enrollment_group, individual_enrollment) = match &question.enrollment.id {
        EnrollmentId::Group(_) => (Some(record), None),
        EnrollmentId::Individual(_) => (None, Some(record)),
    };
    let body = RequestBody {
        enrollment_group,
        individual_enrollment,
        device_runtime_context: ContextBody::of(question),
        linked_hubs: question.offered.iter().map(|offered| offered.host_name.as_str()).collect(),
    };
    serde_json::to_vec(&body).map_err(AllocatorFault::Question)
}

impl<'a> EnrollmentBody<'a> {
    fn of(question: &'a AllocationQuestion) -> Self {
        let enrollment = &question.enrollment;
        let Enrollment { id, initial, device_id, created_at, updated_at, version, .. } = enrollment;
        let (registration_id, enrollment_group_id) = match id {
            EnrollmentId::Individual(id) => (Some(id.as_str()), None),
            EnrollmentId::Group(id) => (None, Some(id.as_str())),
        };
        Self {
            registration_id,
            enrollment_group_id,
            device_id: device_id.as_ref().map(|id| id.as_str()),
            attestation: AttestationBody { kind: attestation_type(&enrollment.attestation) },
            capabilities: CapabilitiesBody { iot_edge: initial.capabilities.iot_edge },
            initial_twin: TwinBody {
                tags: &initial.tags.0,
                properties: PropertiesBody { desired: &initial.desired.0 },
            },
            etag: version.etag(),
            provisioning_status: if enrollment.enabled { "enabled" } else { "disabled" },
            reprovision_policy: enrollment.reprovision.map(ReprovisionBody::of),
            created_date_time_utc: created_at.to_string(),
            last_updated_date_time_utc: updated_at.to_string(),
            allocation_policy: enrollment.allocation.as_ref().map(allocation_text),
            iot_hubs: &question.enrollment_host_names,
            custom_allocation_definition: enrollment.allocation.as_ref().and_then(WebhookBody::of),
        }
    }
}

fn attestation_type(attestation: &Attestation) -> &'static str {
    match attestation {
        Attestation::X509Leaf(_) | Attestation::X509Ca(_) => "x509",
        Attestation::Tpm(_) | Attestation::TpmFleet(_) => "tpm",
        Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => "symmetricKey",
    }
}

/// The contract's own names, which are not ours.
fn allocation_text(policy: &AllocationPolicy) -> &'static str {
    match policy {
        AllocationPolicy::Static => "static",
        AllocationPolicy::Hashed => "hashed",
        AllocationPolicy::LowestLatency => "geoLatency",
        AllocationPolicy::Custom(_) => "custom",
    }
}

impl ReprovisionBody {
    fn of(policy: ReprovisionPolicy) -> Self {
        let (update_hub_assignment, migrate_device_data) = match policy {
            ReprovisionPolicy::Migrate => (true, true),
            ReprovisionPolicy::Reset => (true, false),
            ReprovisionPolicy::Never => (false, false),
        };
        Self { update_hub_assignment, migrate_device_data }
    }
}

impl<'a> WebhookBody<'a> {
    fn of(policy: &'a AllocationPolicy) -> Option<Self> {
        match policy {
            AllocationPolicy::Custom(webhook) => {
                Some(Self { webhook_url: webhook.masked_url(), api_version: &webhook.api_version })
            }
            AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency => None,
        }
    }
}

impl<'a> ContextBody<'a> {
    fn of(question: &'a AllocationQuestion) -> Self {
        let x509 = match &question.enrollment.attestation {
            Attestation::X509Leaf(_) | Attestation::X509Ca(_) => {
                Some(X509Body { client_certificates: question.certificate.as_ref().map(CertificatesBody::of) })
            }
            Attestation::Tpm(_)
            | Attestation::TpmFleet(_)
            | Attestation::SymmetricKey(_)
            | Attestation::MasterKey(_) => None,
        };
        Self {
            registration_id: question.registration_id.as_str(),
            current_iot_hub_host_name: question.current.as_ref().map(|home| home.host_name.as_str()),
            current_device_id: question.current.as_ref().map(|home| home.device_id.as_str()),
            x509,
            symmetric_key: question.enrollment.attestation.keys().map(|_| SymmetricKeyBody {}),
            payload: question.payload.as_ref(),
        }
    }
}

impl<'a> CertificatesBody<'a> {
    fn of(facts: &'a CertificateFacts) -> Self {
        let info = CertificateInfoBody {
            subject_name: &facts.subject_name,
            sha256_thumbprint: facts.thumbprint.to_string(),
            issuer_name: &facts.issuer_name,
            not_before_utc: facts.not_before.to_string(),
            not_after_utc: facts.not_after.to_string(),
            serial_number: &facts.serial_number,
            version: 3,
        };
        Self { primary: CertificateBody { info } }
    }
}

/// Reads the answer. `body` is bounded by the caller; members that the contract does not know are ignored.
pub fn read(body: &[u8], offered: &[HubHost]) -> Result<AllocationAnswer, AllocatorFault> {
    let body: ResponseBody = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let host_name = body.iot_hub_host_name;
    if host_name.chars().count() > limits::HOST_NAME_CHARS_MAX {
        return Err(AllocatorFault::HostNameTooLong { max: limits::HOST_NAME_CHARS_MAX });
    }
    let hub = match offered.iter().find(|offered| offered.host_name.eq_ignore_ascii_case(&host_name)) {
        Some(offered) => ChosenHub::Offered(offered.hub.clone()),
        None => ChosenHub::NotOffered { host_name },
    };
    let initial_twin = body.initial_twin.map(answered_twin).transpose()?;
    Ok(AllocationAnswer { hub, initial_twin, payload: body.payload })
}

fn malformed(error: &serde_json::Error) -> AllocatorFault {
    let what = match error.classify() {
        Category::Io | Category::Eof => "ends too early",
        Category::Syntax => "is not JSON",
        Category::Data => "is not what the contract says",
    };
    AllocatorFault::Malformed { what, line: error.line(), column: error.column() }
}

/// Held against the limits of a twin here, so that a bad one fails the allocation and not the move that it starts.
fn answered_twin(body: ResponseTwin) -> Result<AnsweredTwin, AllocatorFault> {
    let desired = body.properties.and_then(|properties| properties.desired);
    let tags = Document::from(body.tags.unwrap_or_default());
    let desired = Document::from(desired.unwrap_or_default());
    let initial = InitialState { tags, desired, capabilities: Capabilities::default() };
    twin::check_initial(&initial).map_err(AllocatorFault::InitialTwin)?;
    Ok(AnsweredTwin { tags: initial.tags, desired: initial.desired })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::allocators::samples;
    use crate::domain::{HubId, Thumbprint, Timestamp};

    fn written(question: &AllocationQuestion) -> Value {
        serde_json::from_slice(&write(question).unwrap()).unwrap()
    }

    #[test]
    fn the_question_of_an_individual() {
        let mut question = samples::question("https://w.example/api?code=secret");
        question.certificate = Some(CertificateFacts {
            thumbprint: Thumbprint([0xab; 32]),
            subject_name: "CN=dev-1".to_owned(),
            issuer_name: "CN=root".to_owned(),
            not_before: Timestamp(0),
            not_after: Timestamp(1_000),
            serial_number: "01".to_owned(),
        });
        assert_eq!(
            written(&question),
            json!({
                "individualEnrollment": {
                    "registrationId": "dev-1",
                    "attestation": {"type": "x509"},
                    "capabilities": {"iotEdge": false},
                    "initialTwin": {"tags": {}, "properties": {"desired": {"rate": 5}}},
                    "etag": "v3",
                    "provisioningStatus": "enabled",
                    "createdDateTimeUtc": "1970-01-01T00:00:00.000Z",
                    "lastUpdatedDateTimeUtc": "1970-01-01T00:00:00.000Z",
                    "allocationPolicy": "custom",
                    "iotHubs": ["hub-a.example.net"],
                    "customAllocationDefinition": {"webhookUrl": "https://w.example/api?****", "apiVersion": "2021-10-01"},
                },
                "deviceRuntimeContext": {
                    "registrationId": "dev-1",
                    "x509": {"clientCertificates": {"primary": {"info": {
                        "subjectName": "CN=dev-1",
                        "sha256Thumbprint": "ab".repeat(32),
                        "issuerName": "CN=root",
                        "notBeforeUtc": "1970-01-01T00:00:00.000Z",
                        "notAfterUtc": "1970-01-01T00:00:01.000Z",
                        "serialNumber": "01",
                        "version": 3,
                    }}}},
                },
                "linkedHubs": ["hub-a.example.net", "hub-b.example.net"],
            })
        );
    }

    #[test]
    fn the_question_of_a_group_and_a_device_that_has_a_home() {
        let mut question = samples::question("https://w.example/");
        question.enrollment.id = EnrollmentId::Group("fleet".parse().unwrap());
        question.enrollment.reprovision = Some(ReprovisionPolicy::Reset);
        question.current = Some(crate::allocators::CurrentHome {
            host_name: "hub-b.example.net".to_owned(),
            device_id: "Dev-1".parse().unwrap(),
        });
        question.payload = Some(json!({"model": 7}));
        let body = written(&question);
        assert_eq!(body["enrollmentGroup"]["enrollmentGroupId"], "fleet");
        assert_eq!(body.get("individualEnrollment"), None);
        assert_eq!(
            body["enrollmentGroup"]["reprovisionPolicy"],
            json!({"updateHubAssignment": true, "migrateDeviceData": false})
        );
        assert_eq!(
            body["deviceRuntimeContext"],
            json!({
                "registrationId": "dev-1",
                "currentIotHubHostName": "hub-b.example.net",
                "currentDeviceId": "Dev-1",
                "x509": {},
                "payload": {"model": 7},
            })
        );
    }

    #[test]
    fn answers() {
        let offered = samples::question("https://w.example/").offered;
        let read = |body: &str| super::read(body.as_bytes(), &offered);
        let hub_a = ChosenHub::Offered(HubId::parse("hub-a").unwrap());
        let plain = read(r#"{"iotHubHostName":"HUB-A.example.net"}"#).unwrap();
        assert_eq!(plain, AllocationAnswer { hub: hub_a, initial_twin: None, payload: None });
        let nulls = read(r#"{"iotHubHostName":"hub-a.example.net","initialTwin":null,"payload":null,"x":1}"#).unwrap();
        assert_eq!(nulls, plain);
        let full = read(
            r#"{"iotHubHostName":"x","initialTwin":{"tags":{"a":1},"properties":{"desired":{"b":2}}},"payload":[1]}"#,
        )
        .unwrap();
        assert_eq!(full.hub, ChosenHub::NotOffered { host_name: "x".to_owned() });
        let twin = full.initial_twin.unwrap();
        assert_eq!((twin.tags.to_text().as_str(), twin.desired.to_text().as_str()), (r#"{"a":1}"#, r#"{"b":2}"#));
        assert_eq!(full.payload, Some(json!([1])));
    }

    #[test]
    fn answers_that_are_refused() {
        let long = format!(r#"{{"iotHubHostName":"{}"}}"#, "x".repeat(254));
        for (body, part) in [
            ("", "ends too early"),
            ("<html>", "is not JSON (line 1, column 1)"),
            ("[]", "not what the contract says"),
            ("{}", "not what the contract says"),
            (r#"{"iotHubHostName":null}"#, "not what the contract says"),
            (r#"{"iotHubHostName":"a","initialTwin":[]}"#, "not what the contract says"),
            (r#"{"iotHubHostName":"a"} x"#, "is not JSON"),
            (r#"{"iotHubHostName":"a""#, "ends too early"),
            (r#"{"iotHubHostName":"a","initialTwin":"for the device"}"#, "says (line 1, column 52)"),
            (r#"{"iotHubHostName":"a","initialTwin":{"tags":{"a.b":1}}}"#, "initial twin is refused: tags"),
            (r#"{"iotHubHostName":"a","initialTwin":{"properties":{"desired":{"$x":1}}}}"#, "refused: desired"),
            (long.as_str(), "more than 253 characters"),
        ] {
            let fault = read(body.as_bytes(), &[]).unwrap_err().to_string();
            assert!(fault.contains(part), "{body}: {fault}");
        }
    }
}
