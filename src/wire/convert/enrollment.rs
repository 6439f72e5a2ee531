//! Enrollments and groups: drafts from operators, records to them.

use std::fmt;
use std::time::Duration;

use super::{field, json, symmetric_key, tpm};
use crate::domain::{
    AllocationPolicy, Attestation, AttestationDraft, Capabilities, CertificateRef, DeviceId, Enrollment,
    EnrollmentDraft, EnrollmentId, GroupId, HubId, InitialState, RegistrationId, ReprovisionPolicy, ResetOnSameHub,
    SrkDraft, SrkRule, Timestamp, TpmDevice, TpmFleet, UnreachableRule, Version, WebhookPolicy, limits,
};
use crate::wire::WireFault;
use crate::wire::admin::v1;

impl fmt::Debug for v1::Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let webhook = WebhookPolicy { url: self.url.clone(), api_version: self.api_version.clone() };
        write!(f, "{webhook:?}")
    }
}

/// What `enabled` means where it is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Absent is enabled.
    Create,
    /// Absent is refused, or a replacement would enable what an operator disabled.
    Update,
}

/// An individual enrollment as an operator asks for it. Its bounds are judged by [`EnrollmentDraft::check`].
pub fn draft(message: &v1::Enrollment, writing: Writing) -> Result<EnrollmentDraft, WireFault> {
    let id = field::id("registration_id", &message.registration_id, RegistrationId::parse)?;
    let device_id = field::optional_id("device_id", &message.device_id, DeviceId::parse)?;
    let tpm = message.tpm.as_ref().map(tpm::attestation).transpose()?;
    let parts = Parts {
        ways: [x509(message.x509.as_ref())?, ("tpm", tpm), keys(message.symmetric_key.as_ref())?],
        settings: message.settings.as_ref(),
    };
    parts.draft(EnrollmentId::Individual(id), device_id, writing)
}

/// As [`draft`], of a group.
pub fn group_draft(message: &v1::EnrollmentGroup, writing: Writing) -> Result<EnrollmentDraft, WireFault> {
    let id = field::id("group_id", &message.group_id, GroupId::parse)?;
    let fleet = message.endorsement.as_ref().map(tpm::fleet_attestation).transpose()?;
    let parts = Parts {
        ways: [x509(message.x509.as_ref())?, ("endorsement", fleet), keys(message.symmetric_key.as_ref())?],
        settings: message.settings.as_ref(),
    };
    parts.draft(EnrollmentId::Group(id), None, writing)
}

/// A way of proof, where it is given, and its field.
type Way = (&'static str, Option<AttestationDraft>);

fn x509(message: Option<&v1::X509Attestation>) -> Result<Way, WireFault> {
    Ok(("x509", message.map(by_certificate).transpose()?))
}

fn keys(message: Option<&v1::SymmetricKeyAttestation>) -> Result<Way, WireFault> {
    Ok(("symmetric_key", message.map(symmetric_key::attestation).transpose()?))
}

/// What both kinds have in common.
struct Parts<'a> {
    ways: [Way; 3],
    settings: Option<&'a v1::EnrollmentSettings>,
}

impl Parts<'_> {
    fn draft(
        self,
        id: EnrollmentId,
        device_id: Option<DeviceId>,
        writing: Writing,
    ) -> Result<EnrollmentDraft, WireFault> {
        let [first, second, third] = [self.ways[0].0, self.ways[1].0, self.ways[2].0];
        let mut given = self.ways.into_iter().filter_map(|(field, draft)| Some((field, draft?)));
        let attestation = match (given.next(), given.next()) {
            (Some((_, attestation)), None) => attestation,
            (Some((one, _)), Some((another, _))) => {
                let message = format!("is given together with {one}: an enrollment has one way of proof");
                return Err(WireFault::new(another, message));
            }
            (None, _) => {
                let message = format!("is missing, and so are {second} and {third}: give one of them");
                return Err(WireFault::new(first, message));
            }
        };
        let absent = v1::EnrollmentSettings::default();
        let settings = self.settings.unwrap_or(&absent);
        let enabled = match (settings.enabled, writing) {
            (Some(enabled), Writing::Create | Writing::Update) => enabled,
            (None, Writing::Create) => true,
            (None, Writing::Update) => return Err(WireFault::new("settings.enabled", "is missing: say true or false")),
        };
        Ok(EnrollmentDraft {
            id,
            attestation,
            enabled,
            device_id,
            initial: initial(settings.initial.as_ref())?,
            reprovision: reprovision(settings.reprovision_policy)?,
            allocation: allocation(settings)?,
            hubs: hubs(&settings.hub_ids)?,
            unreachable: unreachable(settings)?,
            allow_late_writes: settings.allow_late_writes,
            reset_on_same_hub: reset_on_same_hub(settings.reset_on_same_hub)?,
            reassign_when_down: settings.reassign_when_down,
            adopt_existing: settings.adopt_existing,
        })
    }
}

fn by_certificate(x509: &v1::X509Attestation) -> Result<AttestationDraft, WireFault> {
    let primary = field::required("x509.primary", x509.primary.as_ref())?;
    Ok(AttestationDraft::X509 {
        primary: primary.der.clone(),
        secondary: x509.secondary.as_ref().map(|certificate| certificate.der.clone()),
    })
}

fn initial(message: Option<&v1::InitialState>) -> Result<InitialState, WireFault> {
    let Some(message) = message else { return Ok(InitialState::default()) };
    Ok(InitialState {
        tags: json::document_or_empty("settings.initial.tags", message.tags.as_ref())?,
        desired: json::document_or_empty("settings.initial.desired", message.desired.as_ref())?,
        capabilities: Capabilities { iot_edge: message.iot_edge },
    })
}

fn not_known(field: &'static str) -> impl Fn(prost::UnknownEnumValue) -> WireFault {
    move |value| WireFault::new(field, format!("{} is not a value of it", value.0))
}

fn reprovision(number: i32) -> Result<Option<ReprovisionPolicy>, WireFault> {
    match v1::ReprovisionPolicy::try_from(number).map_err(not_known("settings.reprovision_policy"))? {
        v1::ReprovisionPolicy::Unspecified => Ok(None),
        v1::ReprovisionPolicy::Migrate => Ok(Some(ReprovisionPolicy::Migrate)),
        v1::ReprovisionPolicy::Reset => Ok(Some(ReprovisionPolicy::Reset)),
        v1::ReprovisionPolicy::Never => Ok(Some(ReprovisionPolicy::Never)),
    }
}

/// A stored policy; none is none.
pub fn wire_reprovision(policy: Option<ReprovisionPolicy>) -> v1::ReprovisionPolicy {
    match policy {
        None => v1::ReprovisionPolicy::Unspecified,
        Some(ReprovisionPolicy::Migrate) => v1::ReprovisionPolicy::Migrate,
        Some(ReprovisionPolicy::Reset) => v1::ReprovisionPolicy::Reset,
        Some(ReprovisionPolicy::Never) => v1::ReprovisionPolicy::Never,
    }
}

fn allocation(settings: &v1::EnrollmentSettings) -> Result<Option<AllocationPolicy>, WireFault> {
    const POLICY: &str = "settings.allocation_policy";
    let policy = match v1::AllocationPolicy::try_from(settings.allocation_policy).map_err(not_known(POLICY))? {
        v1::AllocationPolicy::Unspecified => None,
        v1::AllocationPolicy::Static => Some(AllocationPolicy::Static),
        v1::AllocationPolicy::Hashed => Some(AllocationPolicy::Hashed),
        v1::AllocationPolicy::LowestLatency => Some(AllocationPolicy::LowestLatency),
        v1::AllocationPolicy::Custom => {
            let webhook = field::required("settings.webhook", settings.webhook.as_ref())?;
            let (url, api_version) = (webhook.url.clone(), webhook.api_version.clone());
            return Ok(Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version })));
        }
    };
    match &settings.webhook {
        Some(_) => Err(WireFault::new("settings.webhook", "is for the allocation policy custom only")),
        None => Ok(policy),
    }
}

/// A stored policy; none is none.
pub fn wire_allocation(policy: Option<&AllocationPolicy>) -> v1::AllocationPolicy {
    match policy {
        None => v1::AllocationPolicy::Unspecified,
        Some(AllocationPolicy::Static) => v1::AllocationPolicy::Static,
        Some(AllocationPolicy::Hashed) => v1::AllocationPolicy::Hashed,
        Some(AllocationPolicy::LowestLatency) => v1::AllocationPolicy::LowestLatency,
        Some(AllocationPolicy::Custom(_)) => v1::AllocationPolicy::Custom,
    }
}

fn hubs(ids: &[String]) -> Result<Vec<HubId>, WireFault> {
    const FIELD: &str = "settings.hub_ids";
    if ids.len() > limits::HUBS_MAX {
        return Err(WireFault::new(FIELD, format!("names {} hubs, the most is {}", ids.len(), limits::HUBS_MAX)));
    }
    ids.iter().map(|id| field::id(FIELD, id, HubId::parse)).collect()
}

fn unreachable(settings: &v1::EnrollmentSettings) -> Result<UnreachableRule, WireFault> {
    const WAIT: &str = "settings.unreachable_wait_for";
    let wait_for = settings.unreachable_wait_for.as_ref().map(|span| field::span(WAIT, span)).transpose()?;
    let other = |rule: UnreachableRule| match wait_for {
        Some(_) => Err(WireFault::new(WAIT, "is for the rule wait only")),
        None => Ok(rule),
    };
    match v1::UnreachableRule::try_from(settings.unreachable_rule).map_err(not_known("settings.unreachable_rule"))? {
        v1::UnreachableRule::Unspecified | v1::UnreachableRule::Wait => {
            Ok(UnreachableRule::Wait { deadline: wait_for.unwrap_or(limits::UNREACHABLE_WAIT_DEFAULT) })
        }
        v1::UnreachableRule::LastKnown => other(UnreachableRule::LastKnown),
        v1::UnreachableRule::Reset => other(UnreachableRule::Reset),
    }
}

fn wire_unreachable(rule: UnreachableRule) -> (v1::UnreachableRule, Option<Duration>) {
    match rule {
        UnreachableRule::Wait { deadline } => (v1::UnreachableRule::Wait, Some(deadline)),
        UnreachableRule::LastKnown => (v1::UnreachableRule::LastKnown, None),
        UnreachableRule::Reset => (v1::UnreachableRule::Reset, None),
    }
}

fn reset_on_same_hub(number: i32) -> Result<ResetOnSameHub, WireFault> {
    match v1::ResetOnSameHub::try_from(number).map_err(not_known("settings.reset_on_same_hub"))? {
        v1::ResetOnSameHub::Unspecified | v1::ResetOnSameHub::Always => Ok(ResetOnSameHub::Always),
        v1::ResetOnSameHub::WhenEnrollmentChanged => Ok(ResetOnSameHub::WhenEnrollmentChanged),
        v1::ResetOnSameHub::Off => Ok(ResetOnSameHub::Off),
    }
}

fn wire_reset_on_same_hub(when: ResetOnSameHub) -> v1::ResetOnSameHub {
    match when {
        ResetOnSameHub::Always => v1::ResetOnSameHub::Always,
        ResetOnSameHub::WhenEnrollmentChanged => v1::ResetOnSameHub::WhenEnrollmentChanged,
        ResetOnSameHub::Off => v1::ResetOnSameHub::Off,
    }
}

/// An enrollment on its way to an operator; one of the two messages, by the kind of its id.
#[derive(Debug, Clone, PartialEq)]
pub enum EnrollmentMessage {
    Individual(v1::Enrollment),
    Group(v1::EnrollmentGroup),
}

/// The record as operators see it: the webhook's query is masked.
pub fn wire_enrollment(enrollment: &Enrollment) -> EnrollmentMessage {
    let draft = EnrollmentDraft {
        id: enrollment.id.clone(),
        attestation: match &enrollment.attestation {
            Attestation::X509Leaf(leaves) => attested(&leaves.primary, leaves.secondary.as_ref()),
            Attestation::X509Ca(anchors) => attested(&anchors.primary, anchors.secondary.as_ref()),
            Attestation::Tpm(TpmDevice { endorsement_key, ek_hash: _, rules }) => AttestationDraft::Tpm {
                endorsement_key: endorsement_key.clone(),
                storage_root_key: match &rules.storage_root_key {
                    SrkRule::Any => SrkDraft::Any,
                    SrkRule::PinFirst => SrkDraft::PinFirst,
                    SrkRule::Pinned(name) => SrkDraft::Name(name.clone()),
                },
                pcrs: rules.pcrs.clone(),
            },
            Attestation::TpmFleet(TpmFleet { anchors, makes, usage_may_be_absent, rules }) => {
                AttestationDraft::TpmFleet {
                    primary: anchors.primary.der.clone(),
                    secondary: anchors.secondary.as_ref().map(|certificate| certificate.der.clone()),
                    makes: makes.clone(),
                    usage_may_be_absent: *usage_may_be_absent,
                    pin_first: match &rules.storage_root_key {
                        SrkRule::Any => false,
                        // A group names no key: never stored so.
                        SrkRule::PinFirst | SrkRule::Pinned(_) => true,
                    },
                    pcrs: rules.pcrs.clone(),
                }
            }
            Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => {
                AttestationDraft::SymmetricKey { primary: None, secondary: None }
            }
        },
        enabled: enrollment.enabled,
        device_id: enrollment.device_id.clone(),
        initial: enrollment.initial.clone(),
        reprovision: enrollment.reprovision,
        allocation: enrollment.allocation.as_ref().map(masked),
        hubs: enrollment.hubs.clone(),
        unreachable: enrollment.unreachable,
        allow_late_writes: enrollment.allow_late_writes,
        reset_on_same_hub: enrollment.reset_on_same_hub,
        reassign_when_down: enrollment.reassign_when_down,
        adopt_existing: enrollment.adopt_existing,
    };
    let thumbprints: Vec<String> =
        enrollment.attestation.certificates().map(|certificate| certificate.thumbprint.to_string()).collect();
    let mut message = wire_draft(&draft);
    let certificates: Vec<&mut v1::Certificate> = match &mut message {
        EnrollmentMessage::Individual(message) => {
            message.created_at = Some(field::wire_time(enrollment.created_at));
            message.updated_at = Some(field::wire_time(enrollment.updated_at));
            message.etag = enrollment.version.etag();
            if let (Some(tpm), Attestation::Tpm(device)) = (&mut message.tpm, &enrollment.attestation) {
                tpm.endorsement_key_hash = device.ek_hash.registration_id().to_string();
            }
            if let (Some(told), Some(keys)) = (&mut message.symmetric_key, enrollment.attestation.keys()) {
                symmetric_key::tell_fingerprints(told, keys);
            }
            let x509 = message.x509.iter_mut();
            x509.flat_map(|x509| x509.primary.iter_mut().chain(&mut x509.secondary)).collect()
        }
        EnrollmentMessage::Group(message) => {
            message.created_at = Some(field::wire_time(enrollment.created_at));
            message.updated_at = Some(field::wire_time(enrollment.updated_at));
            message.etag = enrollment.version.etag();
            if let (Some(told), Some(keys)) = (&mut message.symmetric_key, enrollment.attestation.keys()) {
                symmetric_key::tell_fingerprints(told, keys);
            }
            let x509 = message.x509.iter_mut().flat_map(|x509| x509.primary.iter_mut().chain(&mut x509.secondary));
            let fleet = message.endorsement.iter_mut();
            x509.chain(fleet.flat_map(|fleet| fleet.primary.iter_mut().chain(&mut fleet.secondary))).collect()
        }
    };
    let told = certificates.into_iter().zip(thumbprints);
    told.for_each(|(certificate, thumbprint)| certificate.thumbprint = thumbprint);
    message
}

fn attested(primary: &CertificateRef, secondary: Option<&CertificateRef>) -> AttestationDraft {
    AttestationDraft::X509 {
        primary: primary.der.clone(),
        secondary: secondary.map(|certificate| certificate.der.clone()),
    }
}

fn masked(policy: &AllocationPolicy) -> AllocationPolicy {
    match policy {
        AllocationPolicy::Static => AllocationPolicy::Static,
        AllocationPolicy::Hashed => AllocationPolicy::Hashed,
        AllocationPolicy::LowestLatency => AllocationPolicy::LowestLatency,
        AllocationPolicy::Custom(webhook) => AllocationPolicy::Custom(WebhookPolicy {
            url: webhook.masked_url(),
            api_version: webhook.api_version.clone(),
        }),
    }
}

/// A draft on its way to the service, without etag.
pub fn wire_draft(draft: &EnrollmentDraft) -> EnrollmentMessage {
    let certificate = |der: &Vec<u8>| v1::Certificate { der: der.clone(), thumbprint: String::new() };
    let x509 = match &draft.attestation {
        AttestationDraft::X509 { primary, secondary } => Some(v1::X509Attestation {
            primary: Some(certificate(primary)),
            secondary: secondary.as_ref().map(certificate),
        }),
        AttestationDraft::Tpm { .. } | AttestationDraft::TpmFleet { .. } | AttestationDraft::SymmetricKey { .. } => {
            None
        }
    };
    let symmetric_key = symmetric_key::wire_attestation(&draft.attestation);
    let settings = Some(wire_settings(draft));
    match &draft.id {
        EnrollmentId::Individual(id) => EnrollmentMessage::Individual(v1::Enrollment {
            registration_id: id.to_string(),
            x509,
            device_id: draft.device_id.as_ref().map(DeviceId::to_string).unwrap_or_default(),
            settings,
            created_at: None,
            updated_at: None,
            etag: String::new(),
            tpm: tpm::wire_attestation(&draft.attestation),
            symmetric_key,
        }),
        EnrollmentId::Group(id) => EnrollmentMessage::Group(v1::EnrollmentGroup {
            group_id: id.to_string(),
            x509,
            settings,
            created_at: None,
            updated_at: None,
            etag: String::new(),
            endorsement: tpm::wire_fleet_attestation(&draft.attestation),
            symmetric_key,
        }),
    }
}

fn wire_settings(draft: &EnrollmentDraft) -> v1::EnrollmentSettings {
    let webhook = match &draft.allocation {
        Some(AllocationPolicy::Custom(webhook)) => {
            Some(v1::Webhook { url: webhook.url.clone(), api_version: webhook.api_version.clone() })
        }
        None | Some(AllocationPolicy::Static | AllocationPolicy::Hashed | AllocationPolicy::LowestLatency) => None,
    };
    let (unreachable_rule, wait_for) = wire_unreachable(draft.unreachable);
    v1::EnrollmentSettings {
        enabled: Some(draft.enabled),
        reprovision_policy: wire_reprovision(draft.reprovision).into(),
        allocation_policy: wire_allocation(draft.allocation.as_ref()).into(),
        webhook,
        hub_ids: draft.hubs.iter().map(HubId::to_string).collect(),
        initial: Some(v1::InitialState {
            tags: Some(json::wire_document(&draft.initial.tags)),
            desired: Some(json::wire_document(&draft.initial.desired)),
            iot_edge: draft.initial.capabilities.iot_edge,
        }),
        unreachable_rule: unreachable_rule.into(),
        unreachable_wait_for: wait_for.map(field::wire_span),
        allow_late_writes: draft.allow_late_writes,
        reset_on_same_hub: wire_reset_on_same_hub(draft.reset_on_same_hub).into(),
        reassign_when_down: draft.reassign_when_down,
        adopt_existing: draft.adopt_existing,
    }
}

/// An enrollment as an operator reads it: a draft that can be changed and written back under its version.
#[derive(Debug, Clone, PartialEq)]
pub struct EnrollmentRecord {
    /// The webhook's query is masked; written back unchanged, the stored one stays.
    pub draft: EnrollmentDraft,
    /// SHA-256 of the primary certificate, then of the secondary one.
    pub thumbprints: Vec<String>,
    /// SHA-256 of the endorsement key in lower-case base32, of an enrollment by TPM.
    pub endorsement_key_hash: Option<String>,
    /// Fingerprints of the primary key, then of the secondary one, of an enrollment by symmetric keys.
    pub key_fingerprints: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}

impl TryFrom<&EnrollmentMessage> for EnrollmentRecord {
    type Error = WireFault;

    fn try_from(message: &EnrollmentMessage) -> Result<Self, WireFault> {
        let of = |certificate: &v1::Certificate| certificate.thumbprint.clone();
        let of_x509 = |x509: &Option<v1::X509Attestation>| -> Vec<String> {
            x509.iter().flat_map(|x509| x509.primary.iter().chain(&x509.secondary)).map(of).collect()
        };
        let (draft, thumbprints, created_at, updated_at, etag) = match message {
            EnrollmentMessage::Individual(m) => {
                (draft(m, Writing::Update)?, of_x509(&m.x509), &m.created_at, &m.updated_at, &m.etag)
            }
            EnrollmentMessage::Group(m) => {
                let fleet = m.endorsement.iter().flat_map(|fleet| fleet.primary.iter().chain(&fleet.secondary));
                let thumbprints = of_x509(&m.x509).into_iter().chain(fleet.map(of)).collect();
                (group_draft(m, Writing::Update)?, thumbprints, &m.created_at, &m.updated_at, &m.etag)
            }
        };
        let endorsement_key_hash = match message {
            EnrollmentMessage::Individual(m) => m.tpm.as_ref().map(|tpm| tpm.endorsement_key_hash.clone()),
            EnrollmentMessage::Group(_) => None,
        };
        let key_fingerprints = symmetric_key::fingerprints(match message {
            EnrollmentMessage::Individual(m) => m.symmetric_key.as_ref(),
            EnrollmentMessage::Group(m) => m.symmetric_key.as_ref(),
        });
        Ok(Self {
            draft,
            thumbprints,
            endorsement_key_hash,
            key_fingerprints,
            created_at: field::required_time("created_at", created_at.as_ref())?,
            updated_at: field::required_time("updated_at", updated_at.as_ref())?,
            version: field::etag("etag", etag)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Document, Thumbprint, X509Anchors, X509Leaves};

    fn certificate(byte: u8) -> CertificateRef {
        CertificateRef { der: vec![byte; 3], thumbprint: Thumbprint([byte; 32]), subject: Thumbprint([9; 32]) }
    }

    fn enrollment() -> Enrollment {
        Enrollment {
            id: EnrollmentId::Individual(RegistrationId::parse("Dev-1").unwrap()),
            attestation: Attestation::X509Leaf(X509Leaves { primary: certificate(1), secondary: Some(certificate(2)) }),
            enabled: false,
            device_id: Some(DeviceId::parse("pump#7").unwrap()),
            initial: InitialState {
                tags: Document::from_text(r#"{"site":"x"}"#).unwrap(),
                desired: Document::from_text(r#"{"rate":5}"#).unwrap(),
                capabilities: Capabilities { iot_edge: true },
            },
            reprovision: None,
            allocation: None,
            hubs: vec![HubId::parse("hub-a").unwrap(), HubId::parse("hub-b").unwrap()],
            unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(60) },
            allow_late_writes: true,
            reset_on_same_hub: ResetOnSameHub::Off,
            reassign_when_down: true,
            adopt_existing: true,
            created_at: Timestamp(1),
            updated_at: Timestamp(2),
            version: Version(3),
        }
    }

    /// Through the wire and back: everything but what is read from the certificates.
    fn check(enrollment: &Enrollment) {
        let record = EnrollmentRecord::try_from(&wire_enrollment(enrollment)).unwrap();
        assert_eq!(record.version, enrollment.version);
        let thumbprints: Vec<String> =
            enrollment.attestation.certificates().map(|c| c.thumbprint.to_string()).collect();
        assert_eq!(record.thumbprints, thumbprints);
        assert_eq!(record.draft.check(), Ok(()));
        let EnrollmentRecord { draft, created_at, updated_at, version, .. } = record;
        let read = draft.into_enrollment(enrollment.attestation.clone(), created_at, updated_at, version);
        assert_eq!(&read, enrollment);
    }

    #[test]
    fn enrollments_come_back() {
        check(&enrollment());
        let policies = [None, Some(ReprovisionPolicy::Migrate), Some(ReprovisionPolicy::Reset)];
        for reprovision in policies.into_iter().chain([Some(ReprovisionPolicy::Never)]) {
            check(&Enrollment { reprovision, ..enrollment() });
        }
        for allocation in [AllocationPolicy::Hashed, AllocationPolicy::LowestLatency] {
            check(&Enrollment { allocation: Some(allocation), ..enrollment() });
        }
        let hubs = vec![HubId::parse("hub-a").unwrap()];
        check(&Enrollment { allocation: Some(AllocationPolicy::Static), hubs, ..enrollment() });
        for unreachable in [UnreachableRule::LastKnown, UnreachableRule::Reset] {
            check(&Enrollment { unreachable, ..enrollment() });
        }
        for reset_on_same_hub in [ResetOnSameHub::Always, ResetOnSameHub::WhenEnrollmentChanged] {
            check(&Enrollment { reset_on_same_hub, ..enrollment() });
        }
        let attestation = Attestation::X509Ca(X509Anchors { primary: certificate(1), secondary: None });
        let id = EnrollmentId::Group(GroupId::parse("g").unwrap());
        check(&Enrollment { id, attestation, device_id: None, ..enrollment() });
    }

    #[test]
    fn a_webhook_s_query_is_not_shown() {
        let webhook =
            WebhookPolicy { url: "https://x.example/a?code=secret".to_owned(), api_version: "2024-01-01".to_owned() };
        let custom = Enrollment { allocation: Some(AllocationPolicy::Custom(webhook.clone())), ..enrollment() };
        let EnrollmentMessage::Individual(message) = wire_enrollment(&custom) else { panic!("not an individual") };
        let shown = message.settings.unwrap().webhook.unwrap();
        assert_eq!((shown.url.as_str(), shown.api_version.as_str()), ("https://x.example/a?****", "2024-01-01"));
        let sent = v1::Webhook { url: webhook.url, api_version: webhook.api_version };
        assert!(!format!("{sent:?}").contains("secret"));
    }

    #[test]
    fn absent_settings_are_the_defaults_and_none_stays_none() {
        let message = v1::Enrollment {
            registration_id: "dev".to_owned(),
            x509: Some(v1::X509Attestation {
                primary: Some(v1::Certificate { der: vec![1], thumbprint: String::new() }),
                secondary: None,
            }),
            ..v1::Enrollment::default()
        };
        let read = draft(&message, Writing::Create).unwrap();
        assert!(read.enabled && read.reprovision.is_none() && read.allocation.is_none() && read.hubs.is_empty());
        assert_eq!(read.unreachable, UnreachableRule::Wait { deadline: limits::UNREACHABLE_WAIT_DEFAULT });
        assert_eq!(draft(&message, Writing::Update).map_err(|fault| fault.field), Err("settings.enabled"));
    }

    #[test]
    fn every_field_is_checked() {
        fn refused(change: impl FnOnce(&mut v1::Enrollment, &mut v1::EnrollmentSettings), field: &str) {
            let EnrollmentMessage::Individual(mut message) = wire_enrollment(&enrollment()) else {
                panic!("not an individual")
            };
            let mut settings = message.settings.take().unwrap();
            change(&mut message, &mut settings);
            message.settings = Some(settings);
            assert_eq!(draft(&message, Writing::Create).map_err(|fault| fault.field), Err(field));
        }
        let webhook = || Some(v1::Webhook::default());
        refused(|m, _| m.registration_id = "a b".to_owned(), "registration_id");
        refused(|m, _| m.device_id = "a b".to_owned(), "device_id");
        refused(|m, _| m.x509 = None, "x509");
        refused(|m, _| m.x509.get_or_insert_default().primary = None, "x509.primary");
        refused(|_, s| s.reprovision_policy = 9, "settings.reprovision_policy");
        refused(|_, s| s.allocation_policy = -1, "settings.allocation_policy");
        refused(|_, s| s.allocation_policy = v1::AllocationPolicy::Custom.into(), "settings.webhook");
        refused(|_, s| s.webhook = webhook(), "settings.webhook");
        refused(|_, s| s.hub_ids = vec!["Hub".to_owned()], "settings.hub_ids");
        refused(|_, s| s.hub_ids = vec!["hub".to_owned(); 51], "settings.hub_ids");
        refused(|_, s| s.unreachable_rule = 9, "settings.unreachable_rule");
        refused(|_, s| s.unreachable_rule = v1::UnreachableRule::Reset.into(), "settings.unreachable_wait_for");
        refused(
            |_, s| s.unreachable_wait_for = Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            "settings.unreachable_wait_for",
        );
        refused(|_, s| s.reset_on_same_hub = 9, "settings.reset_on_same_hub");
        refused(
            |_, s| {
                let broken = prost_types::Value { kind: None };
                let tags = prost_types::Struct { fields: [("a".to_owned(), broken)].into() };
                s.initial.get_or_insert_default().tags = Some(tags);
            },
            "settings.initial.tags",
        );
    }
}
