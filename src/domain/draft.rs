//! What an operator asks an enrollment or a hub to be: checked for shape, not yet for truth.
//!
//! A draft's certificates are bytes that nobody has read, its hubs are names that may not exist.

use super::enrollment::{
    AllocationPolicy, Attestation, Enrollment, EnrollmentId, InitialState, ReprovisionPolicy, ResetOnSameHub,
    UnreachableRule,
};
use super::evidence::Geo;
use super::fault::{Fault, Reason};
use super::hub::HubKind;
use super::ids::{DeviceId, HubId, Version};
use super::limits;
use super::time::Timestamp;
use super::token::TokenKey;
use super::tpm::{PcrPolicy, TpmMake, TpmName, TpmPublic};
use super::twin::check_initial;

/// How devices are to prove themselves.
#[derive(Clone, PartialEq, Eq)]
pub enum AttestationDraft {
    /// DER that was not read yet: leaves of an individual enrollment, authorities of a group.
    X509 { primary: Vec<u8>, secondary: Option<Vec<u8>> },
    /// The TPM of an individual enrollment; whether its keys are ones that a TPM may use was not judged yet.
    Tpm { endorsement_key: TpmPublic, storage_root_key: SrkDraft, pcrs: Option<PcrPolicy> },
    /// DER of authorities of endorsement keys, of a group.
    TpmFleet {
        primary: Vec<u8>,
        secondary: Option<Vec<u8>>,
        makes: Vec<TpmMake>,
        usage_may_be_absent: bool,
        /// The storage root key a device comes with first is the one it must come with later.
        pin_first: bool,
        pcrs: Option<PcrPolicy>,
    },
    /// Keys of an individual enrollment, or of a group. One that is absent is drawn by the service when the enrollment is
    /// made, and stays as it is when it is changed.
    SymmetricKey { primary: Option<TokenKey>, secondary: Option<TokenKey> },
}

/// Which storage root key is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SrkDraft {
    Any,
    PinFirst,
    /// The one with this public area.
    Key(TpmPublic),
    /// The one with this name.
    Name(TpmName),
}

impl AttestationDraft {
    /// Bytes of what it holds.
    pub fn bytes(&self) -> usize {
        match self {
            AttestationDraft::X509 { primary, secondary } | AttestationDraft::TpmFleet { primary, secondary, .. } => {
                primary.len() + secondary.as_ref().map_or(0, Vec::len)
            }
            // Two keys at most.
            AttestationDraft::Tpm { endorsement_key, .. } => {
                endorsement_key.as_bytes().len() + limits::TPM_PUBLIC_BYTES_MAX
            }
            AttestationDraft::SymmetricKey { .. } => 2 * limits::TOKEN_KEY_BYTES_MAX,
        }
    }
}

impl std::fmt::Debug for AttestationDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AttestationDraft::X509 { primary, secondary } => {
                let second = secondary.as_ref().map_or(0, Vec::len);
                write!(f, "AttestationDraft::X509({} bytes, {second} bytes)", primary.len())
            }
            AttestationDraft::Tpm { endorsement_key, .. } => write!(f, "AttestationDraft::Tpm({endorsement_key:?})"),
            AttestationDraft::TpmFleet { primary, makes, .. } => {
                write!(f, "AttestationDraft::TpmFleet({} bytes, {} makes)", primary.len(), makes.len())
            }
            AttestationDraft::SymmetricKey { primary, secondary } => {
                let told = |key: &Option<TokenKey>| if key.is_some() { "given" } else { "absent" };
                write!(f, "AttestationDraft::SymmetricKey({}, {})", told(primary), told(secondary))
            }
        }
    }
}

/// An enrollment as an operator asks for it. The fields are those of [`Enrollment`].
#[derive(Debug, Clone, PartialEq)]
pub struct EnrollmentDraft {
    pub id: EnrollmentId,
    pub attestation: AttestationDraft,
    pub enabled: bool,
    pub device_id: Option<DeviceId>,
    pub initial: InitialState,
    pub reprovision: Option<ReprovisionPolicy>,
    pub allocation: Option<AllocationPolicy>,
    pub hubs: Vec<HubId>,
    pub unreachable: UnreachableRule,
    pub allow_late_writes: bool,
    pub reset_on_same_hub: ResetOnSameHub,
    pub reassign_when_down: bool,
    pub adopt_existing: bool,
}

impl EnrollmentDraft {
    /// Holds the draft against every rule that needs no other record: sizes, counts, and fields that exclude each other.
    pub fn check(&self) -> Result<(), Fault> {
        match (&self.id, &self.device_id) {
            (EnrollmentId::Group(_), Some(_)) => {
                return Err(Fault::invalid("device_id", "a group's devices are named by their registration ids"));
            }
            (EnrollmentId::Individual(_) | EnrollmentId::Group(_), _) => {}
        }
        match (&self.attestation, &self.id) {
            (AttestationDraft::X509 { primary, secondary }, _) => {
                check_pair(["x509.primary", "x509.secondary"], primary, secondary.as_deref())?;
            }
            (AttestationDraft::TpmFleet { primary, secondary, .. }, EnrollmentId::Group(_)) => {
                check_pair(["endorsement.primary", "endorsement.secondary"], primary, secondary.as_deref())?;
            }
            (AttestationDraft::Tpm { .. }, EnrollmentId::Individual(_))
            | (AttestationDraft::SymmetricKey { .. }, EnrollmentId::Individual(_) | EnrollmentId::Group(_)) => {}
            (AttestationDraft::TpmFleet { .. }, EnrollmentId::Individual(_)) => {
                return Err(Fault::invalid(
                    "endorsement",
                    "is for groups: an individual enrollment names the key itself",
                ));
            }
            (AttestationDraft::Tpm { .. }, EnrollmentId::Group(_)) => {
                return Err(Fault::invalid("tpm", "is for individual enrollments: a group names an authority of keys"));
            }
        }
        check_initial(&self.initial).map_err(|fault| {
            Fault::new(Reason::TwinInvalid, format!("settings.initial: {fault}")).with("field", "settings.initial")
        })?;
        self.check_hubs()?;
        self.check_allocation()?;
        match self.unreachable {
            UnreachableRule::Wait { deadline } if deadline > limits::UNREACHABLE_WAIT_MAX => {
                Err(Fault::invalid("settings.unreachable_wait_for", "is longer than 7 days"))
            }
            UnreachableRule::Wait { .. } => Ok(()),
            UnreachableRule::LastKnown | UnreachableRule::Reset if !self.allow_late_writes => Err(Fault::invalid(
                "settings.unreachable_rule",
                "this rule lets a cut-off hub take writes that only the history keeps: set allow_late_writes as well",
            )),
            UnreachableRule::LastKnown | UnreachableRule::Reset => Ok(()),
        }
    }

    fn check_hubs(&self) -> Result<(), Fault> {
        const FIELD: &str = "settings.hub_ids";
        if self.hubs.len() > limits::HUBS_MAX {
            return Err(Fault::invalid(FIELD, format!("names more than {} hubs", limits::HUBS_MAX)));
        }
        let mut seen: Vec<&HubId> = self.hubs.iter().collect();
        seen.sort();
        match seen.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Fault::invalid(FIELD, format!("names {} twice", pair[0]))),
            None => Ok(()),
        }
    }

    fn check_allocation(&self) -> Result<(), Fault> {
        match &self.allocation {
            Some(AllocationPolicy::Static) if self.hubs.len() > 1 => {
                Err(Fault::invalid("settings.hub_ids", "the policy static takes one hub, not more"))
            }
            None | Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) => {
                Ok(())
            }
            Some(AllocationPolicy::Custom(webhook)) => {
                // Whether plain http is asked at all is a setting of the allocators; beyond the loopback it never is.
                let reached_by = ["https://", "http://127.0.0.1", "http://[::1]", "http://localhost"];
                let url_fits = reached_by.iter().any(|start| webhook.url.starts_with(start))
                    && webhook.url.chars().count() <= limits::WEBHOOK_URL_CHARS_MAX
                    && webhook.url.chars().all(|c| c.is_ascii_graphic());
                if !url_fits {
                    let most = limits::WEBHOOK_URL_CHARS_MAX;
                    return Err(Fault::invalid(
                        "settings.webhook.url",
                        format!("must start with https:// and hold at most {most} printable ASCII characters"),
                    ));
                }
                let length = webhook.api_version.chars().count();
                if length == 0 || length > limits::API_VERSION_CHARS_MAX {
                    let most = limits::API_VERSION_CHARS_MAX;
                    return Err(Fault::invalid(
                        "settings.webhook.api_version",
                        format!("must be 1 to {most} characters"),
                    ));
                }
                Ok(())
            }
        }
    }

    /// The enrollment, once its certificates were read.
    pub fn into_enrollment(
        self,
        attestation: Attestation,
        created_at: Timestamp,
        updated_at: Timestamp,
        version: Version,
    ) -> Enrollment {
        Enrollment {
            id: self.id,
            attestation,
            enabled: self.enabled,
            device_id: self.device_id,
            initial: self.initial,
            reprovision: self.reprovision,
            allocation: self.allocation,
            hubs: self.hubs,
            unreachable: self.unreachable,
            allow_late_writes: self.allow_late_writes,
            reset_on_same_hub: self.reset_on_same_hub,
            reassign_when_down: self.reassign_when_down,
            adopt_existing: self.adopt_existing,
            created_at,
            updated_at,
            version,
        }
    }
}

fn check_pair(fields: [&'static str; 2], primary: &[u8], secondary: Option<&[u8]>) -> Result<(), Fault> {
    check_certificate(fields[0], primary)?;
    let Some(secondary) = secondary else { return Ok(()) };
    check_certificate(fields[1], secondary)?;
    if primary == secondary {
        return Err(Fault::invalid(fields[1], "is the same certificate as the primary one"));
    }
    Ok(())
}

fn check_certificate(field: &'static str, der: &[u8]) -> Result<(), Fault> {
    match der.len() {
        0 => Err(Fault::invalid(field, "is missing")),
        bytes if bytes > limits::CERTIFICATE_BYTES_MAX => {
            Err(Fault::invalid(field, format!("is {bytes} bytes, the most is {}", limits::CERTIFICATE_BYTES_MAX)))
        }
        _ => Ok(()),
    }
}

/// A hub as an operator asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct HubDraft {
    pub id: HubId,
    pub kind: HubKind,
    /// Absent: the service's own choice.
    pub host_name: Option<String>,
    /// `host:port`. Absent: the service's own choice.
    pub endpoint: Option<String>,
    pub location: Option<Geo>,
    pub weight: u32,
    pub capacity: Option<u64>,
    pub calls_per_second: Option<u32>,
}

impl HubDraft {
    /// Holds the draft against every rule that needs no other record.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(name) = &self.host_name
            && !is_host_name(name)
        {
            return Err(Fault::invalid("hub.host_name", "is not a DNS name of at most 253 characters"));
        }
        if let Some(endpoint) = &self.endpoint
            && !is_endpoint(endpoint)
        {
            return Err(Fault::invalid("hub.endpoint", "is not host:port, as in hub-a.example:8443"));
        }
        if !(1..=limits::HUB_WEIGHT_MAX).contains(&self.weight) {
            return Err(Fault::invalid("hub.weight", format!("must be 1 to {}", limits::HUB_WEIGHT_MAX)));
        }
        match self.calls_per_second {
            Some(0) => Err(Fault::invalid("hub.calls_per_second", "must be at least 1; leave it out for no bound")),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= limits::HOST_NAME_CHARS_MAX && text.split('.').all(is_label)
}

/// A host name or address, and a port that is not zero. IPv6 stands in brackets.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_fits = port.parse::<u16>().is_ok_and(|number| number != 0) && !port.starts_with('+');
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    port_fits && host_fits
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Document, GroupId, RegistrationId, WebhookPolicy};

    fn draft() -> EnrollmentDraft {
        EnrollmentDraft {
            id: EnrollmentId::Individual(RegistrationId::parse("dev-1").unwrap()),
            attestation: AttestationDraft::X509 { primary: vec![1], secondary: None },
            enabled: true,
            device_id: None,
            initial: InitialState::default(),
            reprovision: None,
            allocation: None,
            hubs: Vec::new(),
            unreachable: UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT },
            allow_late_writes: false,
            reset_on_same_hub: ResetOnSameHub::Always,
            reassign_when_down: false,
            adopt_existing: false,
        }
    }

    fn webhook(url: &str, api_version: &str) -> Option<AllocationPolicy> {
        Some(AllocationPolicy::Custom(WebhookPolicy { url: url.to_owned(), api_version: api_version.to_owned() }))
    }

    fn check(change: impl FnOnce(&mut EnrollmentDraft), expected: Option<&str>) {
        let mut draft = draft();
        change(&mut draft);
        let found = draft.check().err();
        let field = found.as_ref().and_then(|fault| fault.metadata.iter().find(|(key, _)| *key == "field"));
        assert_eq!(field.map(|(_, value)| value.as_str()), expected, "{found:?}");
    }

    #[test]
    fn a_draft_is_held_against_its_bounds() {
        let hub = |id: &str| HubId::parse(id).unwrap();
        check(|_| {}, None);
        check(|d| d.attestation = AttestationDraft::X509 { primary: vec![], secondary: None }, Some("x509.primary"));
        check(
            |d| d.attestation = AttestationDraft::X509 { primary: vec![0; 16 * 1024 + 1], secondary: None },
            Some("x509.primary"),
        );
        check(
            |d| d.attestation = AttestationDraft::X509 { primary: vec![1], secondary: Some(vec![1]) },
            Some("x509.secondary"),
        );
        check(
            |d| {
                d.id = EnrollmentId::Group(GroupId::parse("g").unwrap());
                d.device_id = Some(DeviceId::parse("x").unwrap());
            },
            Some("device_id"),
        );
        check(|d| d.initial.tags = Document::from_text(r#"{"$a":1}"#).unwrap(), Some("settings.initial"));
        check(|d| d.hubs = (0..51).map(|n| hub(&format!("h{n}"))).collect(), Some("settings.hub_ids"));
        check(|d| d.hubs = vec![hub("a"), hub("b"), hub("a")], Some("settings.hub_ids"));
        check(|d| d.allocation = Some(AllocationPolicy::Static), None);
        check(
            |d| {
                d.allocation = Some(AllocationPolicy::Static);
                d.hubs = vec![hub("a"), hub("b")];
            },
            Some("settings.hub_ids"),
        );
        check(
            |d| {
                d.allocation = Some(AllocationPolicy::Static);
                d.hubs = vec![hub("a")];
            },
            None,
        );
        check(|d| d.allocation = webhook("https://x.example/a?code=1", "2024-01-01"), None);
        check(|d| d.allocation = webhook("http://x.example/", "2024-01-01"), Some("settings.webhook.url"));
        check(|d| d.allocation = webhook("https://x.example/ a", "2024-01-01"), Some("settings.webhook.url"));
        check(|d| d.allocation = webhook("http://127.0.0.1:8080/a?code=1", "2024-01-01"), None);
        check(|d| d.allocation = webhook("https://x.example/", ""), Some("settings.webhook.api_version"));
        check(|d| d.unreachable = UnreachableRule::LastKnown, Some("settings.unreachable_rule"));
        check(
            |d| d.unreachable = UnreachableRule::Wait { deadline: Duration::from_secs(7 * 24 * 3600 + 1) },
            Some("settings.unreachable_wait_for"),
        );
    }

    #[test]
    fn a_hub_is_held_against_its_bounds() {
        for (host_name, endpoint, weight, fits) in [
            (Some("hub-a.example"), Some("hub-a.example:8443"), 1, true),
            (None, Some("127.0.0.1:8443"), 1000, true),
            (None, Some("[::1]:8443"), 1, true),
            (None, None, 0, false),
            (None, None, 1001, false),
            (Some("a b"), None, 1, false),
            (Some(".a"), None, 1, false),
            (Some(""), None, 1, false),
            (None, Some("hub-a.example"), 1, false),
            (None, Some("hub-a.example:0"), 1, false),
            (None, Some("hub-a.example:99999"), 1, false),
            (None, Some("::1:8443"), 1, false),
            (None, Some("https://hub-a:8443"), 1, false),
        ] {
            let draft = HubDraft {
                id: HubId::parse("hub-a").unwrap(),
                kind: HubKind::Embedded,
                host_name: host_name.map(str::to_owned),
                endpoint: endpoint.map(str::to_owned),
                location: None,
                weight,
                capacity: None,
                calls_per_second: None,
            };
            assert_eq!(draft.check().is_ok(), fits, "{draft:?}");
        }
    }
}
