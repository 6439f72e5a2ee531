//! A registration as existing device SDKs ask for it and read it (reference/dps.md §3.3 and §5).

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::domain::{
    ApiVersion, ClientFacts, Credential, EnrollmentId, OperationStatus, RegistrationId, SubStatus, limits,
};
use crate::service::DeviceView;

use super::etag;
use super::fault::{Code, Refusal};
use super::time::seven_digits;

/// A date of the protocol.
const fn dated(date: u32) -> ApiVersion {
    ApiVersion { date, preview: false }
}

/// The versions that are spoken (reference/dps.md §0.1), oldest first.
const SPOKEN: &[ApiVersion] = &[
    ApiVersion { date: 20170831, preview: true },
    dated(20171115),
    dated(20180401),
    ApiVersion { date: 20180901, preview: true },
    dated(20181101),
    dated(20190331),
    dated(20190415),
    dated(20210601),
    dated(20211001),
];
/// The last one that knows no reprovisioning, and so no sub-status.
const LAST_STICKY: ApiVersion = dated(20180401);
/// From here on there is a word for a device that stays.
const FIRST_WITH_STAYED: ApiVersion = dated(20190415);

/// The version that a device states, when it is one that is spoken.
pub fn api_version(text: Option<&str>) -> Result<ApiVersion, Refusal> {
    let spoken = || SPOKEN.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = text.ok_or_else(|| Refusal::new(400_004, format!("api-version is missing; one of {}", spoken())))?;
    match text.parse::<ApiVersion>() {
        Ok(version) if SPOKEN.contains(&version) => Ok(version),
        Ok(_) | Err(_) => Err(Refusal::new(400_004, format!("this api-version is not spoken; one of {}", spoken()))),
    }
}

/// The body of a registration: `{registrationId?, payload?, tpm?}`, or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    pub payload: Option<Value>,
    pub tpm: Option<TpmKeys>,
}

/// `TPM2B_PUBLIC` of both keys, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmKeys {
    pub endorsement_key: Vec<u8>,
    pub storage_root_key: Option<Vec<u8>>,
}

impl Asked {
    /// Reads the body of a request for `id`. A null member is an absent one.
    pub fn parse(id: &RegistrationId, body: &[u8]) -> Result<Self, Refusal> {
        let invalid = |what: String| Refusal::new(400_004, what);
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let value = serde_json::from_slice::<Value>(body).map_err(|_| invalid("the body is not JSON".to_owned()))?;
        let Value::Object(mut members) = value else { return Err(invalid("the body is no JSON object".to_owned())) };
        let mut take = |name: &str| members.remove(name).filter(|value| !value.is_null());
        match take("registrationId") {
            None => {}
            Some(Value::String(text)) if RegistrationId::parse(&text).is_ok_and(|named| named == *id) => {}
            Some(_) => return Err(invalid("registrationId is not the one of the address".to_owned())),
        }
        let payload = take("payload");
        if payload.as_ref().is_some_and(|payload| payload.to_string().len() > limits::PAYLOAD_BYTES_MAX) {
            return Err(invalid(format!("payload is larger than {} bytes", limits::PAYLOAD_BYTES_MAX)));
        }
        let tpm = match take("tpm") {
            None => None,
            Some(Value::Object(keys)) => Some(TpmKeys::read(&keys)?),
            Some(_) => return Err(invalid("tpm is no JSON object".to_owned())),
        };
        Ok(Self { payload, tpm })
    }

    /// What the device says of itself.
    pub fn facts(&self, version: ApiVersion) -> ClientFacts {
        ClientFacts { api_version: Some(version), payload: self.payload.clone(), ..ClientFacts::default() }
    }
}

impl TpmKeys {
    fn read(keys: &Map<String, Value>) -> Result<Self, Refusal> {
        let key = |name: &str| match keys.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= limits::TPM_PUBLIC_BYTES_MAX * 2 => {
                let bytes = BASE64.decode(text.as_bytes());
                bytes.map(Some).map_err(|_| Refusal::new(400_004, format!("tpm.{name} is not base64")))
            }
            Some(_) => Err(Refusal::new(400_004, format!("tpm.{name} is no text of a key's length"))),
        };
        let endorsement_key = key("endorsementKey")?;
        Ok(Self {
            endorsement_key: endorsement_key
                .ok_or_else(|| Refusal::new(400_004, "tpm.endorsementKey is missing".to_owned()))?,
            storage_root_key: key("storageRootKey")?,
        })
    }
}

/// The answer about an operation: its status as in HTTP, and the body. 202 while it runs.
pub fn operation(view: &DeviceView, version: ApiVersion) -> (u16, Value) {
    let operation = &view.standing.operation;
    let running = !operation.status.is_final();
    let mut body = json!({ "operationId": operation.id.to_string(), "status": operation.status.as_str() });
    body["registrationState"] = match running {
        true => json!({ "registrationId": view.standing.id.as_str(), "status": operation.status.as_str() }),
        false => result(view, version),
    };
    (if running { 202 } else { 200 }, body)
}

/// The registration as its device is told it: with what proved it.
pub fn result(view: &DeviceView, version: ApiVersion) -> Value {
    let mut body = state(view, version);
    match (&view.standing.operation.status, proof(view)) {
        (OperationStatus::Assigned { .. }, Some((proof, told))) => body[proof] = told,
        (OperationStatus::Assigned { .. }, None)
        | (OperationStatus::Assigning | OperationStatus::Failed { .. } | OperationStatus::Disabled, _) => {}
    }
    body
}

/// The registration itself. Absent members are left out.
pub fn state(view: &DeviceView, version: ApiVersion) -> Value {
    let standing = &view.standing;
    let mut body = json!({
        "registrationId": standing.id.as_str(),
        "createdDateTimeUtc": seven_digits(standing.created_at),
        "lastUpdatedDateTimeUtc": seven_digits(standing.updated_at),
        "status": standing.operation.status.as_str(),
        "etag": etag::of(standing.version, standing.created_at),
    });
    match &standing.operation.status {
        OperationStatus::Assigned { sub_status, .. } => {
            if let Some(word) = sub_status_word(*sub_status, version) {
                body["substatus"] = word.into();
            }
            body["deviceId"] = standing.device_id.as_str().into();
            if let Some(hub) = &view.home {
                body["assignedHub"] = hub.host_name.as_str().into();
            }
            if let Some(payload) = standing.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()) {
                body["payload"] = payload;
            }
        }
        OperationStatus::Failed { reason, message } => {
            body["errorCode"] = Code::of(*reason).code.into();
            body["errorMessage"] = message.as_str().into();
        }
        OperationStatus::Assigning | OperationStatus::Disabled => {}
    }
    body
}

/// What proved the device, and what comes of that: the group where one decided, and the hub's key for a TPM.
fn proof(view: &DeviceView) -> Option<(&'static str, Value)> {
    let standing = &view.standing;
    let group = match &standing.enrollment {
        EnrollmentId::Group(id) => Some(id.as_str()),
        EnrollmentId::Individual(_) => None,
    };
    if let Some(tpm) = &standing.tpm {
        return Some(("tpm", json!({ "authenticationKey": BASE64.encode(&tpm.blob) })));
    }
    match (standing.assignment.as_ref()?.credential.as_ref()?, group) {
        (Credential::X509 { .. }, None) => Some(("x509", json!({}))),
        (Credential::X509 { .. }, Some(group)) => Some(("x509", json!({ "enrollmentGroupId": group }))),
        (Credential::Shared(_), Some(group)) => Some(("symmetricKey", json!({ "enrollmentGroupId": group }))),
        (Credential::Shared(_), None) | (Credential::Delivered(_), _) => None,
    }
}

/// The word for a sub-status in that version; none where the version has no such member.
fn sub_status_word(sub_status: SubStatus, version: ApiVersion) -> Option<&'static str> {
    if version <= LAST_STICKY {
        return None;
    }
    Some(match sub_status {
        SubStatus::InitialAssignment => "initialAssignment",
        SubStatus::DeviceDataMigrated => "deviceDataMigrated",
        SubStatus::DeviceDataReset => "deviceDataReset",
        SubStatus::ReprovisionedToInitialAssignment if version < FIRST_WITH_STAYED => "initialAssignment",
        SubStatus::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RegistrationId {
        RegistrationId::parse("Dev-1").unwrap()
    }

    #[test]
    fn bodies_as_sdks_send_them() {
        let check =
            |body: &str, expected: Asked| assert_eq!(Asked::parse(&id(), body.as_bytes()), Ok(expected), "{body}");
        check("", Asked::default());
        check(" ", Asked::default());
        check(r#"{"registrationId":"Dev-1"}"#, Asked::default());
        check(r#"{"payload":null,"registrationId":"dev-1"}"#, Asked::default());
        check(r#"{"payload":{"a":1},"csr":null}"#, Asked { payload: Some(json!({ "a": 1 })), tpm: None });
        let keys = TpmKeys { endorsement_key: vec![1, 2], storage_root_key: Some(vec![3]) };
        check(r#"{"tpm":{"endorsementKey":"AQI=","storageRootKey":"Aw=="}}"#, Asked { payload: None, tpm: Some(keys) });
    }

    #[test]
    fn bodies_that_are_refused() {
        let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(limits::PAYLOAD_BYTES_MAX));
        for body in [
            "{",
            "[]",
            r#"{"registrationId":"dev-2"}"#,
            r#"{"registrationId":7}"#,
            r#"{"tpm":{}}"#,
            r#"{"tpm":{"endorsementKey":"?"}}"#,
            r#"{"tpm":{"endorsementKey":7}}"#,
            r#"{"tpm":7}"#,
            &large,
        ] {
            let refusal = Asked::parse(&id(), body.as_bytes()).unwrap_err();
            assert_eq!(refusal.code.code, 400_004, "{body}");
        }
        assert!(Asked::parse(&id(), "[".repeat(100_000).as_bytes()).is_err(), "the stack is bounded");
    }

    #[test]
    fn versions_that_are_spoken() {
        for text in ["2017-08-31-preview", "2018-04-01", "2018-09-01-preview", "2019-03-31", "2021-06-01", "2021-10-01"]
        {
            assert!(api_version(Some(text)).is_ok(), "{text}");
        }
        for text in [None, Some(""), Some("2016-01-01"), Some("2019-03-31-preview"), Some("2099-01-01"), Some("now")] {
            assert_eq!(api_version(text).unwrap_err().code.status, 400, "{text:?}");
        }
    }

    #[test]
    fn the_version_decides_which_words_there_are() {
        use SubStatus::{DeviceDataMigrated, InitialAssignment, ReprovisionedToInitialAssignment};
        let check = |sub_status, version: &str, expected: Option<&str>| {
            assert_eq!(sub_status_word(sub_status, version.parse().unwrap()), expected, "{sub_status:?} {version}");
        };
        check(InitialAssignment, "2018-04-01", None);
        check(DeviceDataMigrated, "2018-04-01", None);
        check(DeviceDataMigrated, "2018-09-01-preview", Some("deviceDataMigrated"));
        check(ReprovisionedToInitialAssignment, "2019-03-31", Some("initialAssignment"));
        check(ReprovisionedToInitialAssignment, "2019-04-15", Some("reprovisionedToInitialAssignment"));
        check(ReprovisionedToInitialAssignment, "2021-10-01", Some("reprovisionedToInitialAssignment"));
    }
}
