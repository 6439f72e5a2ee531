//! One line of a file of enrollments: what it says, laid over what the flags say of all of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use data_encoding::BASE64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::input;
use crate::cli::settings::SettingsFlags;
use crate::client::EnrollmentRecord;
use crate::domain::{
    AllocationPolicy, AttestationDraft, Capabilities, DeviceId, EnrollmentDraft, EnrollmentId, HubId, KeyPair,
    RegistrationId, ReprovisionPolicy, ResetOnSameHub, SrkDraft, TokenKey, TpmPublic, UnreachableRule, limits,
};

/// An enrollment as a line writes it; the same names as `rehome enroll show --json`. What is absent is as the flags say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    pub registration_id: String,
    /// PEM, or base64 of the DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// In its place: a file, beside the one that is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary_certificate_file: Option<PathBuf>,
    /// In place of a certificate: a TPM's endorsement key, base64 of its `TPM2B_PUBLIC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endorsement_key: Option<String>,
    /// Of a TPM: `any`, `pin_first`, or base64 of the `TPM2B_PUBLIC` that it must be; absent is `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_root_key: Option<String>,
    /// In place of both: symmetric keys, drawn by the service unless the next two name them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetric_key: Option<bool>,
    /// Base64 of 16 to 64 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Base64Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary_key: Option<Base64Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `none`, `migrate`, `reset` or `never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reprovision_policy: Option<String>,
    /// `default`, `static`, `hashed` or `lowest_latency`; a webhook is named by the flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_twin: Option<InitialTwinLine>,
    /// `wait`, `last_known` or `reset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable_rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable_wait_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_late_writes: Option<bool>,
    /// `always`, `when_enrollment_changed` or `off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_on_same_hub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reassign_when_down: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopt_existing: Option<bool>,
}

/// A key as a line holds it; never shown otherwise.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Base64Key(String);

impl fmt::Debug for Base64Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base64Key(****)")
    }
}

impl Base64Key {
    fn of(key: &TokenKey) -> Self {
        Self(BASE64.encode(key.secret()))
    }

    fn read(&self) -> anyhow::Result<TokenKey> {
        let bytes =
            BASE64.decode(self.0.trim().as_bytes()).map_err(|_| anyhow::anyhow!("it is not base64 of a key"))?;
        Ok(TokenKey::new(&bytes)?)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitialTwinLine {
    pub tags: Map<String, Value>,
    pub desired: Map<String, Value>,
    pub iot_edge: bool,
}

/// What the lines of a file have in common.
#[derive(Debug, Clone)]
pub struct Common<'a> {
    pub flags: &'a SettingsFlags,
    pub disabled: bool,
    /// Where files that lines name are looked for.
    pub folder: &'a Path,
}

impl Line {
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).context("it is not an enrollment in JSON")
    }

    /// A row under the headings of a table. An empty cell is absent.
    pub fn from_cells<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> anyhow::Result<Self> {
        let mut object = Map::new();
        for (heading, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
            object.insert(heading.to_owned(), value_of(heading, cell)?);
        }
        serde_json::from_value(Value::Object(object)).context("it is not an enrollment")
    }

    pub fn draft(&self, common: &Common<'_>) -> anyhow::Result<EnrollmentDraft> {
        let id = RegistrationId::parse(&self.registration_id).context("registration_id")?;
        let attestation = self.attestation(common)?;
        let enabled = self.enabled.unwrap_or(!common.disabled);
        let mut draft = common.flags.create(EnrollmentId::Individual(id), attestation, enabled)?;
        self.lay_over(&mut draft)?;
        draft.check()?;
        Ok(draft)
    }

    fn attestation(&self, common: &Common<'_>) -> anyhow::Result<AttestationDraft> {
        let read = |text: &Option<String>, file: &Option<PathBuf>| certificate(text, file, common.folder);
        let primary = read(&self.certificate, &self.certificate_file).context("certificate")?;
        let secondary =
            read(&self.secondary_certificate, &self.secondary_certificate_file).context("secondary_certificate")?;
        if let Some(keys) = self.keys()? {
            if primary.is_some() || secondary.is_some() || self.endorsement_key.is_some() {
                bail!("it mixes symmetric keys with another proof");
            }
            return Ok(keys);
        }
        match (primary, &self.endorsement_key) {
            (Some(primary), None) if self.storage_root_key.is_none() => {
                Ok(AttestationDraft::X509 { primary, secondary })
            }
            (None, Some(key)) if secondary.is_none() => Ok(AttestationDraft::Tpm {
                endorsement_key: public(key).context("endorsement_key")?,
                storage_root_key: match self.storage_root_key.as_deref() {
                    None | Some("any") => SrkDraft::Any,
                    Some("pin_first") => SrkDraft::PinFirst,
                    Some(key) => SrkDraft::Key(public(key).context("storage_root_key")?),
                },
                pcrs: None,
            }),
            (None, None) => bail!("it has none of certificate, certificate_file, endorsement_key and symmetric_key"),
            (Some(_), _) | (None, Some(_)) => bail!("it mixes certificates with the keys of a TPM"),
        }
    }

    /// The symmetric keys that it asks for.
    fn keys(&self) -> anyhow::Result<Option<AttestationDraft>> {
        let read = |key: &Option<Base64Key>| key.as_ref().map(Base64Key::read).transpose();
        let primary = read(&self.primary_key).context("primary_key")?;
        let secondary = read(&self.secondary_key).context("secondary_key")?;
        let is_asked = self.symmetric_key.unwrap_or(primary.is_some() || secondary.is_some());
        match (is_asked, &primary, &secondary) {
            (true, _, _) => Ok(Some(AttestationDraft::SymmetricKey { primary, secondary })),
            (false, None, None) => Ok(None),
            (false, _, _) => bail!("it holds a key, and symmetric_key is false"),
        }
    }

    /// With the keys that its record does not tell.
    pub fn with_keys(self, keys: &KeyPair<TokenKey>) -> Self {
        let [primary, secondary] = keys.both().map(Base64Key::of);
        Self { primary_key: Some(primary), secondary_key: Some(secondary), ..self }
    }

    fn lay_over(&self, draft: &mut EnrollmentDraft) -> anyhow::Result<()> {
        if let Some(device) = &self.device_id {
            draft.device_id = Some(DeviceId::parse(device).context("device_id")?);
        }
        if let Some(policy) = &self.reprovision_policy {
            draft.reprovision = reprovision(policy)?;
        }
        if let Some(hubs) = &self.hub_ids {
            draft.hubs = hubs.iter().map(|hub| HubId::parse(hub)).collect::<Result<_, _>>().context("hub_ids")?;
        }
        if let Some(policy) = &self.allocation_policy {
            draft.allocation = allocation(policy)?;
        }
        if let Some(twin) = &self.initial_twin {
            draft.initial.tags = twin.tags.clone().into();
            draft.initial.desired = twin.desired.clone().into();
            draft.initial.capabilities = Capabilities { iot_edge: twin.iot_edge };
        }
        if let Some(rule) = &self.unreachable_rule {
            draft.unreachable = self.unreachable(rule)?;
        } else if self.unreachable_wait_seconds.is_some() {
            bail!("unreachable_wait_seconds needs unreachable_rule");
        }
        if let Some(when) = &self.reset_on_same_hub {
            draft.reset_on_same_hub = match when.as_str() {
                "always" => ResetOnSameHub::Always,
                "when_enrollment_changed" => ResetOnSameHub::WhenEnrollmentChanged,
                "off" => ResetOnSameHub::Off,
                other => bail!("reset_on_same_hub: {other:?} is none of always, when_enrollment_changed, off"),
            };
        }
        draft.allow_late_writes = self.allow_late_writes.unwrap_or(draft.allow_late_writes);
        draft.reassign_when_down = self.reassign_when_down.unwrap_or(draft.reassign_when_down);
        draft.adopt_existing = self.adopt_existing.unwrap_or(draft.adopt_existing);
        Ok(())
    }

    fn unreachable(&self, rule: &str) -> anyhow::Result<UnreachableRule> {
        let wait_for = self.unreachable_wait_seconds.map(Duration::from_secs);
        match (rule, wait_for) {
            ("wait", _) => Ok(UnreachableRule::Wait { deadline: wait_for.unwrap_or(limits::UNREACHABLE_WAIT_DEFAULT) }),
            ("last_known", None) => Ok(UnreachableRule::LastKnown),
            ("reset", None) => Ok(UnreachableRule::Reset),
            ("last_known" | "reset", Some(_)) => bail!("unreachable_wait_seconds is for the rule wait only"),
            (other, _) => bail!("unreachable_rule: {other:?} is none of wait, last_known, reset"),
        }
    }
}

/// The line that makes the same enrollment again, but for its symmetric keys ([`Line::with_keys`]). A webhook's URL may hold a key and is not told: such an enrollment has
/// no line.
impl TryFrom<EnrollmentRecord> for Line {
    type Error = anyhow::Error;

    fn try_from(record: EnrollmentRecord) -> anyhow::Result<Self> {
        let draft = record.draft;
        let id = match draft.id {
            EnrollmentId::Individual(id) => id,
            EnrollmentId::Group(id) => bail!("group {id} is no individual enrollment"),
        };
        let mut proof = Self::default();
        match draft.attestation {
            AttestationDraft::X509 { primary, secondary } => {
                proof.certificate = Some(BASE64.encode(&primary));
                proof.secondary_certificate = secondary.map(|der| BASE64.encode(&der));
            }
            AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs: None } => {
                proof.endorsement_key = Some(BASE64.encode(endorsement_key.as_bytes()));
                proof.storage_root_key = Some(match storage_root_key {
                    SrkDraft::Any => "any".to_owned(),
                    SrkDraft::PinFirst => "pin_first".to_owned(),
                    SrkDraft::Key(key) => BASE64.encode(key.as_bytes()),
                    SrkDraft::Name(_) => {
                        bail!("{id} names its storage root key, which no line can: enroll it by itself")
                    }
                });
            }
            AttestationDraft::Tpm { pcrs: Some(_), .. } => {
                bail!("{id} asks for values of registers, which no line can: enroll it by itself")
            }
            AttestationDraft::TpmFleet { .. } => bail!("{id} is proven as a group is"),
            AttestationDraft::SymmetricKey { .. } => proof.symmetric_key = Some(true),
        }
        let allocation = match &draft.allocation {
            Some(AllocationPolicy::Custom(_)) => {
                bail!("{id} asks a webhook, whose URL the service does not tell: enroll it by itself")
            }
            Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) | None => {
                draft.allocation.as_ref().map_or("default", AllocationPolicy::as_str)
            }
        };
        let (rule, wait_for) = match draft.unreachable {
            UnreachableRule::Wait { deadline } => ("wait", Some(deadline.as_secs())),
            UnreachableRule::LastKnown => ("last_known", None),
            UnreachableRule::Reset => ("reset", None),
        };
        Ok(Self {
            registration_id: id.to_string(),
            device_id: draft.device_id.map(|device| device.to_string()),
            enabled: Some(draft.enabled),
            reprovision_policy: Some(draft.reprovision.map_or("none", ReprovisionPolicy::as_str).to_owned()),
            allocation_policy: Some(allocation.to_owned()),
            hub_ids: Some(draft.hubs.iter().map(ToString::to_string).collect()),
            initial_twin: Some(InitialTwinLine {
                tags: draft.initial.tags.0.into_inner(),
                desired: draft.initial.desired.0.into_inner(),
                iot_edge: draft.initial.capabilities.iot_edge,
            }),
            unreachable_rule: Some(rule.to_owned()),
            unreachable_wait_seconds: wait_for,
            allow_late_writes: Some(draft.allow_late_writes),
            reset_on_same_hub: Some(
                match draft.reset_on_same_hub {
                    ResetOnSameHub::Always => "always",
                    ResetOnSameHub::WhenEnrollmentChanged => "when_enrollment_changed",
                    ResetOnSameHub::Off => "off",
                }
                .to_owned(),
            ),
            reassign_when_down: Some(draft.reassign_when_down),
            adopt_existing: Some(draft.adopt_existing),
            ..proof
        })
    }
}

/// A cell as the JSON that a line would hold.
fn value_of(heading: &str, cell: &str) -> anyhow::Result<Value> {
    Ok(match heading {
        "enabled" | "symmetric_key" | "allow_late_writes" | "reassign_when_down" | "adopt_existing" => match cell {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            other => bail!("{heading}: {other:?} is neither true nor false"),
        },
        "hub_ids" => cell.split_whitespace().map(Value::from).collect(),
        "initial_twin" => serde_json::from_str(cell).context("initial_twin is not JSON")?,
        "unreachable_wait_seconds" => {
            Value::from(cell.parse::<u64>().with_context(|| format!("{heading}: {cell:?} is no whole number"))?)
        }
        _ => Value::from(cell),
    })
}

fn reprovision(policy: &str) -> anyhow::Result<Option<ReprovisionPolicy>> {
    Ok(match policy {
        "none" => None,
        "migrate" => Some(ReprovisionPolicy::Migrate),
        "reset" => Some(ReprovisionPolicy::Reset),
        "never" => Some(ReprovisionPolicy::Never),
        other => bail!("reprovision_policy: {other:?} is none of none, migrate, reset, never"),
    })
}

fn allocation(policy: &str) -> anyhow::Result<Option<AllocationPolicy>> {
    Ok(match policy {
        "default" => None,
        "static" => Some(AllocationPolicy::Static),
        "hashed" => Some(AllocationPolicy::Hashed),
        "lowest_latency" => Some(AllocationPolicy::LowestLatency),
        "custom" => bail!("allocation_policy: a webhook is named by --allocation custom and its flags, for all lines"),
        other => bail!("allocation_policy: {other:?} is none of default, static, hashed, lowest_latency"),
    })
}

fn public(text: &str) -> anyhow::Result<TpmPublic> {
    let bytes = BASE64.decode(text.trim().as_bytes()).context("it is not base64 of a TPM2B_PUBLIC")?;
    Ok(TpmPublic::parse(&bytes)?)
}

fn certificate(text: &Option<String>, file: &Option<PathBuf>, folder: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match (text, file) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => bail!("it is given twice, as text and as a file"),
        (None, Some(file)) => input::certificate(&folder.join(file)).map(Some),
        (Some(text), None) if text.contains("-----BEGIN") => {
            let first = CertificateDer::pem_slice_iter(text.as_bytes()).next();
            let first = first.context("there is no certificate in the PEM text")?;
            Ok(Some(first.context("the PEM text is broken")?.to_vec()))
        }
        (Some(text), None) => {
            Ok(Some(BASE64.decode(text.trim().as_bytes()).context("it is neither PEM nor base64 of the DER")?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Timestamp, Version};

    fn common(flags: &SettingsFlags) -> Common<'_> {
        Common { flags, disabled: false, folder: Path::new(".") }
    }

    #[test]
    fn a_line_may_ask_for_symmetric_keys() {
        let flags = SettingsFlags::default();
        let read = |text: &str| Line::from_json(text).and_then(|line| line.draft(&common(&flags)));
        let key = TokenKey::new(&[7; 32]).unwrap();
        let given = BASE64.encode(&[7; 32]);
        for (fields, primary) in [
            (r#""symmetric_key":true"#.to_owned(), None),
            (format!(r#""symmetric_key":true,"primary_key":"{given}""#), Some(key.clone())),
            (format!(r#""primary_key":"{given}""#), Some(key)),
        ] {
            let draft = read(&format!(r#"{{"registration_id":"a",{fields}}}"#)).unwrap();
            assert_eq!(draft.attestation, AttestationDraft::SymmetricKey { primary, secondary: None }, "{fields}");
        }
        for fields in [
            format!(r#""symmetric_key":false,"primary_key":"{given}""#),
            format!(r#""primary_key":"{given}","certificate":"MIIA""#),
            r#""primary_key":"AAAA""#.to_owned(),
            r#""primary_key":"?""#.to_owned(),
            r#""symmetric_key":false"#.to_owned(),
        ] {
            let refused = read(&format!(r#"{{"registration_id":"a",{fields}}}"#)).unwrap_err();
            assert!(!format!("{refused:#?}").contains(&given), "{refused:#}");
        }
        let shown = format!("{:?}", Line::from_json(&format!(r#"{{"primary_key":"{given}"}}"#)).unwrap());
        assert!(!shown.contains(&given), "{shown}");
    }

    fn check(text: &str, expected: Result<(), &str>) {
        let flags = SettingsFlags::default();
        let found = Line::from_json(text).and_then(|line| line.draft(&common(&flags)));
        match (found, expected) {
            (Ok(_), Ok(())) => {}
            (Err(found), Err(word)) => {
                let found = format!("{found:#}");
                assert!(found.contains(word), "{text}: {found}");
            }
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_line_says_what_is_wrong_with_it() {
        check(r#"{"registration_id":"d","certificate":"MIIA"}"#, Ok(()));
        check(r#"{"registration_id":"d","certificate":"MIIA","hub_ids":["hub-a"],"enabled":false}"#, Ok(()));
        check("", Err("not an enrollment"));
        check("[]", Err("registration_id"));
        check("7", Err("not an enrollment"));
        check(r#"{"registration_id":"d","certifikate":"MIIA"}"#, Err("certifikate"));
        check(r#"{"registration_id":"-d-","certificate":"MIIA"}"#, Err("registration_id"));
        check(r#"{"registration_id":"d"}"#, Err("none of"));
        check(r#"{"registration_id":"d","endorsement_key":"AAIAAQ=="}"#, Ok(()));
        check(r#"{"registration_id":"d","endorsement_key":"AAIAAQ==","storage_root_key":"pin_first"}"#, Ok(()));
        check(r#"{"registration_id":"d","endorsement_key":"AAMAAQ=="}"#, Err("endorsement_key"));
        check(
            r#"{"registration_id":"d","endorsement_key":"AAIAAQ==","storage_root_key":"?"}"#,
            Err("storage_root_key"),
        );
        check(r#"{"registration_id":"d","endorsement_key":"AAIAAQ==","certificate":"MIIA"}"#, Err("mixes"));
        check(r#"{"registration_id":"d","storage_root_key":"any","certificate":"MIIA"}"#, Err("mixes"));
        check(r#"{"registration_id":"d","certificate":"?"}"#, Err("base64"));
        check(r#"{"registration_id":"d","certificate":"-----BEGIN CERTIFICATE-----"}"#, Err("PEM"));
        check(r#"{"registration_id":"d","certificate":"MIIA","certificate_file":"x"}"#, Err("twice"));
        check(r#"{"registration_id":"d","certificate_file":"/nowhere/at/all"}"#, Err("/nowhere/at/all"));
        check(r#"{"registration_id":"d","certificate":"MIIA","reprovision_policy":"move"}"#, Err("move"));
        check(r#"{"registration_id":"d","certificate":"MIIA","allocation_policy":"custom"}"#, Err("webhook"));
        check(
            r#"{"registration_id":"d","certificate":"MIIA","allocation_policy":"static","hub_ids":["a","b"]}"#,
            Err("one hub"),
        );
        check(r#"{"registration_id":"d","certificate":"MIIA","unreachable_wait_seconds":5}"#, Err("unreachable_rule"));
        check(r#"{"registration_id":"d","certificate":"MIIA","hub_ids":["Hub A"]}"#, Err("hub_ids"));
    }

    #[test]
    fn a_row_is_a_line() {
        let cells = [
            ("registration_id", "d"),
            ("certificate", "MIIA"),
            ("enabled", "false"),
            ("hub_ids", "hub-a  hub-b"),
            ("initial_twin", r#"{"desired":{"a":1}}"#),
            ("device_id", ""),
        ];
        let line = Line::from_cells(cells.into_iter()).unwrap();
        assert_eq!((line.enabled, line.device_id.clone()), (Some(false), None));
        assert_eq!(line.hub_ids, Some(vec!["hub-a".to_owned(), "hub-b".to_owned()]));
        assert_eq!(line.initial_twin.unwrap().desired["a"], 1);
        for (heading, cell) in
            [("enabled", "yes"), ("initial_twin", "{"), ("unreachable_wait_seconds", "-1"), ("x", "1")]
        {
            assert!(Line::from_cells([(heading, cell)].into_iter()).is_err(), "{heading}");
        }
    }

    #[test]
    fn what_is_exported_is_imported_as_it_was() {
        for text in [
            r#"{"registration_id":"d","certificate":"MIIA","secondary_certificate":"MIIB","device_id":"pump",
            "enabled":false,"reprovision_policy":"none","allocation_policy":"lowest_latency","hub_ids":["hub-a"],
            "initial_twin":{"tags":{"a":[1]},"desired":{"b":2},"iot_edge":true},"unreachable_rule":"last_known",
            "allow_late_writes":true,"reset_on_same_hub":"off","reassign_when_down":true,"adopt_existing":true}"#,
            r#"{"registration_id":"d","endorsement_key":"AAIAAQ==","storage_root_key":"AAIABQ=="}"#,
            r#"{"registration_id":"d","endorsement_key":"AAIAAQ==","storage_root_key":"pin_first"}"#,
        ] {
            check_round_trip(text);
        }
    }

    fn check_round_trip(text: &str) {
        let flags = SettingsFlags::default();
        let draft = Line::from_json(text).unwrap().draft(&common(&flags)).unwrap();
        let record = EnrollmentRecord {
            draft: draft.clone(),
            thumbprints: Vec::new(),
            endorsement_key_hash: None,
            key_fingerprints: Vec::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(1),
        };
        let exported = serde_json::to_string(&Line::try_from(record).unwrap()).unwrap();
        assert_eq!(Line::from_json(&exported).unwrap().draft(&common(&flags)).unwrap(), draft);
    }
}
