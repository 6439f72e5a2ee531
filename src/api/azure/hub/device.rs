//! The identity of a device at a hub: who it is, how it signs in, whether it is let in (reference/dps.md §8.1).
//!
//! Only the last may be written here. Devices come to a hub and leave it by registering, and sign in with what they
//! registered with: a hub that took others would let in who was not enrolled.

use data_encoding::{BASE64, HEXUPPER};
use serde_json::{Value, json};

use crate::api::azure::enrollment::attestation::{shown_keys, token_key};
use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{Members, wrong};
use crate::domain::{Credential, DeviceId, HubStatus, KeyPair, TokenKey};
use crate::service::HubDevice;

use super::NEVER;

/// The identity, with keys where they are handed.
pub fn shown(device: &HubDevice, keys: Option<&KeyPair<TokenKey>>) -> Value {
    let state = &device.resident.state;
    let (status, reason) = status(&state.status);
    json!({
        "deviceId": device.resident.device.as_str(),
        "generationId": device.generation.map(|generation| generation.to_string()).unwrap_or_default(),
        "etag": etag(device),
        "connectionState": "Disconnected",
        "status": status,
        "statusReason": reason,
        "connectionStateUpdatedTime": NEVER,
        "statusUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "capabilities": { "iotEdge": state.capabilities.iot_edge },
        "authentication": authentication(device, keys),
    })
}

pub fn status(status: &HubStatus) -> (&'static str, Option<&str>) {
    match status {
        HubStatus::Enabled => ("enabled", None),
        HubStatus::Disabled { reason } if reason.is_empty() => ("disabled", None),
        HubStatus::Disabled { reason } => ("disabled", Some(reason)),
    }
}

fn authentication(device: &HubDevice, keys: Option<&KeyPair<TokenKey>>) -> Value {
    json!({
        "type": authentication_type(device.credential.as_ref()),
        "symmetricKey": keys.map_or_else(|| json!({ "primaryKey": null, "secondaryKey": null }), shown_keys),
        "x509Thumbprint": thumbprints(device.credential.as_ref()),
    })
}

/// How the device signs in, in a word.
pub fn authentication_type(credential: Option<&Credential>) -> &'static str {
    match credential {
        Some(Credential::X509 { .. }) => "selfSigned",
        Some(Credential::Delivered(_) | Credential::Shared(_)) => "sas",
        None => "none",
    }
}

/// SHA-256 thumbprints; one alone stands in both places.
pub fn thumbprints(credential: Option<&Credential>) -> Value {
    let (primary, secondary) = match credential {
        Some(Credential::X509 { thumbprints }) => {
            let hex = |place: usize| thumbprints.get(place).map(|thumbprint| HEXUPPER.encode(&thumbprint.0));
            (hex(0), hex(1).or_else(|| hex(0)))
        }
        Some(Credential::Delivered(_) | Credential::Shared(_)) | None => (None, None),
    };
    json!({ "primaryThumbprint": primary, "secondaryThumbprint": secondary })
}

/// Changes whenever the identity does.
pub fn etag(device: &HubDevice) -> String {
    let state = &device.resident.state;
    let (status, reason) = status(&state.status);
    let thumbprints = thumbprints(device.credential.as_ref()).to_string();
    let iot_edge = if state.capabilities.iot_edge { "edge" } else { "" };
    let generation = device.generation.map(|generation| generation.to_string()).unwrap_or_default();
    let keys: Vec<String> = match &device.credential {
        Some(Credential::Shared(keys)) => keys.both().map(|key| key.fingerprint().to_string()).to_vec(),
        Some(Credential::Delivered(keys)) => {
            keys.newest_first().iter().map(|key| key.fingerprint().to_string()).collect()
        }
        Some(Credential::X509 { .. }) | None => Vec::new(),
    };
    let keys = keys.join(" ");
    let parts = [generation.as_str(), status, reason.unwrap_or_default(), iot_edge, &thumbprints, &keys];
    BASE64.encode(&fnv(parts.join("\n").as_bytes()).to_be_bytes())
}

/// FNV-1a, 64 bits: enough to notice a change, and the same in every build.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The status that a written identity asks for; `None` leaves it. Refuses whatever else it would change.
pub fn wanted_status(
    given: &Members<'_>,
    device: &HubDevice,
    known_keys: Option<&KeyPair<TokenKey>>,
) -> Result<Option<HubStatus>, Refusal> {
    let here = &device.resident;
    let named = given.parsed("deviceId", DeviceId::parse)?;
    if named.is_some_and(|named| named != here.device) {
        return Err(wrong("deviceId", "is not the one of the address"));
    }
    let edge = given.object("capabilities")?.map(|capabilities| capabilities.switch("iotEdge")).transpose()?.flatten();
    if edge.is_some_and(|edge| edge != here.state.capabilities.iot_edge) {
        return Err(not_here("capabilities"));
    }
    if let Some(asked) = given.object("authentication")? {
        let kind = asked.text("type")?;
        if kind.is_some_and(|kind| kind != authentication_type(device.credential.as_ref())) {
            return Err(not_here("authentication"));
        }
        if let Some(asked) = asked.object("x509Thumbprint")? {
            let known = thumbprints(device.credential.as_ref());
            for name in ["primaryThumbprint", "secondaryThumbprint"] {
                let text = asked.text(name)?.filter(|text| !text.is_empty());
                if text.is_some_and(|text| known[name].as_str().is_none_or(|known| !known.eq_ignore_ascii_case(text))) {
                    return Err(not_here("authentication"));
                }
            }
        }
        if let Some(keys) = asked.object("symmetricKey")? {
            let known = known_keys.map(|known| [&known.primary, &known.secondary]);
            for (place, name) in ["primaryKey", "secondaryKey"].into_iter().enumerate() {
                let Some(text) = keys.text(name)?.filter(|text| !text.is_empty()) else { continue };
                let asked = token_key(&keys.path(name), text)?;
                if known.is_none_or(|known| *known[place] != asked) {
                    return Err(not_here("authentication"));
                }
            }
        }
    }
    let reason = given.text("statusReason")?;
    match given.text("status")?.map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("enabled") => Ok(Some(HubStatus::Enabled)),
        Some("disabled") => Ok(Some(HubStatus::Disabled { reason: reason.unwrap_or_default().to_owned() })),
        Some(_) => Err(wrong("status", "is neither enabled nor disabled")),
    }
}

fn not_here(what: &str) -> Refusal {
    let message = format!("{what} come from the device's enrollment: change that, and let the device register again");
    Refusal::new(400_003, message)
}

/// A device that is to be made here.
pub fn not_made_here() -> Refusal {
    let message = "devices are not made at a hub: enroll the device, and it comes to its hub by registering";
    Refusal::new(400_003, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, DeviceState, InitialState, Order, Thumbprint, Timestamp, Twin};
    use crate::service::Resident;

    fn device() -> HubDevice {
        let twin = Twin::initial(&InitialState::default(), Timestamp(0));
        let state = DeviceState { twin, capabilities: Capabilities::default(), status: HubStatus::Enabled };
        HubDevice {
            resident: Resident { device: DeviceId::parse("dev-1").unwrap(), state, open: true },
            generation: Some(Order(7)),
            credential: Some(Credential::x509([Thumbprint([0xab; 32])])),
        }
    }

    #[test]
    fn an_identity_has_what_sdks_read() {
        let shown = shown(&device(), None);
        let thumbprint = "AB".repeat(32);
        assert_eq!(shown["authentication"]["type"], "selfSigned");
        assert_eq!(shown["authentication"]["x509Thumbprint"]["secondaryThumbprint"], thumbprint);
        assert_eq!((&shown["generationId"], &shown["status"]), (&json!("7"), &json!("enabled")));
    }

    #[test]
    fn an_etag_changes_with_the_identity() {
        let plain = device();
        let changed = |change: &dyn Fn(&mut HubDevice)| {
            let mut device = plain.clone();
            change(&mut device);
            etag(&device) != etag(&plain)
        };
        assert!(!changed(&|_| {}));
        assert!(!changed(&|device| device.resident.state.twin.version = 9));
        assert!(changed(&|device| device.generation = Some(Order(8))));
        assert!(changed(&|device| device.resident.state.status = HubStatus::Disabled { reason: String::new() }));
        assert!(changed(&|device| device.credential = None));
        assert!(changed(&|device| device.resident.state.capabilities.iot_edge = true));
    }

    #[test]
    fn a_status_may_be_written_and_nothing_else() {
        let disabled = |reason: &str| Ok(Some(HubStatus::Disabled { reason: reason.to_owned() }));
        let written = shown(&device(), None);
        let keys = KeyPair { primary: TokenKey::new(&[1; 32]).unwrap(), secondary: TokenKey::new(&[2; 32]).unwrap() };
        let with_keys = shown(&device(), Some(&keys));
        let mut swapped = with_keys.clone();
        swapped["authentication"]["symmetricKey"]["primaryKey"] =
            with_keys["authentication"]["symmetricKey"]["secondaryKey"].clone();
        for (body, expected) in [
            (json!({}), Ok(None)),
            (written, Ok(Some(HubStatus::Enabled))),
            (with_keys, Ok(Some(HubStatus::Enabled))),
            (swapped, Err(400_003)),
            (json!({ "status": "disabled" }), disabled("")),
            (json!({ "status": "Disabled", "statusReason": "lost" }), disabled("lost")),
            (json!({ "deviceId": "dev-2" }), Err(400_004)),
            (json!({ "status": "away" }), Err(400_004)),
            (json!({ "capabilities": { "iotEdge": true } }), Err(400_003)),
            (json!({ "authentication": { "type": "sas" } }), Err(400_003)),
            (json!({ "authentication": { "x509Thumbprint": { "primaryThumbprint": "CD" } } }), Err(400_003)),
            (json!({ "authentication": { "symmetricKey": { "primaryKey": "AAAA" } } }), Err(400_004)),
        ] {
            let status = wanted_status(&Members::of(&body).unwrap(), &device(), Some(&keys));
            assert_eq!(status.map_err(|refusal| refusal.code.code), expected, "{body}");
        }
    }
}
