//! Proof by TPM: what operators enroll, and what a device and the service say to each other.

use std::collections::BTreeMap;

use super::field;
use crate::domain::{
    AttestationDraft, IdFault, PcrIndex, PcrMode, PcrPolicy, PcrValue, RegistrationId, SrkDraft, Timestamp, TpmMake,
    TpmManufacturer, TpmModel, TpmName, TpmPublic, limits,
};
use crate::wire::WireFault;
use crate::wire::admin::v1 as admin;
use crate::wire::device::v1 as device;

fn not_known(field: &'static str) -> impl Fn(prost::UnknownEnumValue) -> WireFault {
    move |value| WireFault::new(field, format!("{} is not a value of it", value.0))
}

fn public(field: &'static str, bytes: &[u8]) -> Result<TpmPublic, WireFault> {
    match bytes {
        [] => Err(WireFault::new(field, "is missing")),
        bytes => TpmPublic::parse(bytes).map_err(|fault| WireFault::new(field, fault)),
    }
}

/// How the TPM of an individual enrollment is to prove itself.
pub fn attestation(message: &admin::TpmAttestation) -> Result<AttestationDraft, WireFault> {
    const SRK: &str = "tpm.storage_root_key";
    let key = match message.storage_root_key.as_slice() {
        [] => None,
        bytes => Some(SrkDraft::Key(public(SRK, bytes)?)),
    };
    let name = match message.storage_root_key_name.as_str() {
        "" => None,
        text => Some(SrkDraft::Name(name("tpm.storage_root_key_name", text)?)),
    };
    let pinned = match (key, name) {
        (Some(_), Some(_)) => return Err(WireFault::new(SRK, "is given together with its name: give one of them")),
        (key, name) => key.or(name),
    };
    let rule = admin::SrkRule::try_from(message.srk_rule).map_err(not_known("tpm.srk_rule"))?;
    let storage_root_key = match (rule, pinned) {
        (admin::SrkRule::Pinned, Some(pinned)) => pinned,
        (admin::SrkRule::Pinned, None) => return Err(WireFault::new(SRK, "is needed by the rule pinned")),
        (admin::SrkRule::Unspecified | admin::SrkRule::Any | admin::SrkRule::PinFirst, Some(_)) => {
            return Err(WireFault::new(SRK, "is for the rule pinned only"));
        }
        (admin::SrkRule::Unspecified | admin::SrkRule::Any, None) => SrkDraft::Any,
        (admin::SrkRule::PinFirst, None) => SrkDraft::PinFirst,
    };
    Ok(AttestationDraft::Tpm {
        endorsement_key: public("tpm.endorsement_key", &message.endorsement_key)?,
        storage_root_key,
        pcrs: message.pcr_policy.as_ref().map(|policy| pcr_policy("tpm.pcr_policy", policy)).transpose()?,
    })
}

/// How the TPMs of a group are to prove themselves.
pub fn fleet_attestation(message: &admin::EndorsementAttestation) -> Result<AttestationDraft, WireFault> {
    const RULE: &str = "endorsement.srk_rule";
    const MAKES: &str = "endorsement.makes";
    let primary = field::required("endorsement.primary", message.primary.as_ref())?;
    if message.makes.len() > limits::TPM_MAKES_MAX {
        let (found, most) = (message.makes.len(), limits::TPM_MAKES_MAX);
        return Err(WireFault::new(MAKES, format!("are {found}, the most is {most}")));
    }
    let make = |make: &admin::TpmMake| {
        let manufacturer: TpmManufacturer =
            make.manufacturer.parse().map_err(|fault| WireFault::new("endorsement.makes.manufacturer", fault))?;
        let model = match make.model.as_str() {
            "" => None,
            model => Some(TpmModel::parse(model).map_err(|fault| WireFault::new("endorsement.makes.model", fault))?),
        };
        Ok(TpmMake { manufacturer, model })
    };
    let pin_first = match admin::SrkRule::try_from(message.srk_rule).map_err(not_known(RULE))? {
        admin::SrkRule::Unspecified | admin::SrkRule::Any => false,
        admin::SrkRule::PinFirst => true,
        admin::SrkRule::Pinned => return Err(WireFault::new(RULE, "a group cannot name the key of one device")),
    };
    Ok(AttestationDraft::TpmFleet {
        primary: primary.der.clone(),
        secondary: message.secondary.as_ref().map(|certificate| certificate.der.clone()),
        makes: message.makes.iter().map(make).collect::<Result<_, WireFault>>()?,
        usage_may_be_absent: message.usage_may_be_absent,
        pin_first,
        pcrs: message.pcr_policy.as_ref().map(|policy| pcr_policy("endorsement.pcr_policy", policy)).transpose()?,
    })
}

fn name(field: &'static str, text: &str) -> Result<TpmName, WireFault> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let bytes = bytes.map_err(|_| WireFault::new(field, "is not hexadecimal"))?;
    TpmName::parse(&bytes).map_err(|fault| WireFault::new(field, fault))
}

fn pcr_policy(field: &'static str, message: &admin::PcrPolicy) -> Result<PcrPolicy, WireFault> {
    let mode = match admin::PcrMode::try_from(message.mode).map_err(not_known(field))? {
        admin::PcrMode::Unspecified | admin::PcrMode::Enforce => PcrMode::Enforce,
        admin::PcrMode::Audit => PcrMode::Audit,
    };
    let mut allowed = BTreeMap::new();
    for rule in &message.pcrs {
        let index = PcrIndex::new(rule.index).map_err(|fault| WireFault::new(field, fault))?;
        let values = rule.digests.iter().map(|digest| pcr_value(field, digest)).collect::<Result<Vec<_>, _>>()?;
        if allowed.insert(index, values).is_some() {
            return Err(WireFault::new(field, format!("names register {index} twice")));
        }
    }
    PcrPolicy::new(mode, allowed).map_err(|fault| WireFault::new(field, fault))
}

fn pcr_value(field: &'static str, digest: &[u8]) -> Result<PcrValue, WireFault> {
    let bytes = digest.try_into().map_err(|_| WireFault::new(field, "a value must have 32 bytes"))?;
    Ok(PcrValue(bytes))
}

fn wire_pcr_policy(policy: &PcrPolicy) -> admin::PcrPolicy {
    let mode = match policy.mode() {
        PcrMode::Enforce => admin::PcrMode::Enforce,
        PcrMode::Audit => admin::PcrMode::Audit,
    };
    let rule = |(index, values): (&PcrIndex, &Vec<PcrValue>)| admin::PcrRule {
        index: index.number().into(),
        digests: values.iter().map(|value| value.0.to_vec()).collect(),
    };
    admin::PcrPolicy { mode: mode.into(), pcrs: policy.allowed().iter().map(rule).collect() }
}

/// An attestation by TPM on its way to the service; `None` for one by certificate.
pub fn wire_attestation(draft: &AttestationDraft) -> Option<admin::TpmAttestation> {
    let AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs } = draft else { return None };
    let (rule, key, name) = match storage_root_key {
        SrkDraft::Any => (admin::SrkRule::Any, Vec::new(), String::new()),
        SrkDraft::PinFirst => (admin::SrkRule::PinFirst, Vec::new(), String::new()),
        SrkDraft::Key(key) => (admin::SrkRule::Pinned, key.as_bytes().to_vec(), String::new()),
        SrkDraft::Name(name) => (admin::SrkRule::Pinned, Vec::new(), name.to_string()),
    };
    Some(admin::TpmAttestation {
        endorsement_key: endorsement_key.as_bytes().to_vec(),
        storage_root_key: key,
        srk_rule: rule.into(),
        pcr_policy: pcrs.as_ref().map(wire_pcr_policy),
        endorsement_key_hash: String::new(),
        storage_root_key_name: name,
    })
}

/// As [`wire_attestation`], of a group.
pub fn wire_fleet_attestation(draft: &AttestationDraft) -> Option<admin::EndorsementAttestation> {
    let AttestationDraft::TpmFleet { primary, secondary, makes, usage_may_be_absent, pin_first, pcrs } = draft else {
        return None;
    };
    let certificate = |der: &Vec<u8>| admin::Certificate { der: der.clone(), thumbprint: String::new() };
    let make = |make: &TpmMake| admin::TpmMake {
        manufacturer: make.manufacturer.to_string(),
        model: make.model.as_ref().map(|model| model.as_str().to_owned()).unwrap_or_default(),
    };
    let rule = if *pin_first { admin::SrkRule::PinFirst } else { admin::SrkRule::Any };
    Some(admin::EndorsementAttestation {
        primary: Some(certificate(primary)),
        secondary: secondary.as_ref().map(certificate),
        makes: makes.iter().map(make).collect(),
        usage_may_be_absent: *usage_may_be_absent,
        srk_rule: rule.into(),
        pcr_policy: pcrs.as_ref().map(wire_pcr_policy),
    })
}

/// What opens a proof by TPM, once its fields were checked for size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginCall {
    pub registration_id: RegistrationId,
    pub endorsement_key: TpmPublic,
    pub storage_root_key: TpmPublic,
    /// DER, leaf first.
    pub endorsement_certificates: Vec<Vec<u8>>,
    pub attestation_key: Option<TpmPublic>,
}

impl TryFrom<device::BeginTpmAttestationRequest> for BeginCall {
    type Error = WireFault;

    fn try_from(message: device::BeginTpmAttestationRequest) -> Result<Self, WireFault> {
        const CERTIFICATES: &str = "endorsement_certificates";
        let certificates = message.endorsement_certificates;
        if certificates.len() > limits::CHAIN_CERTIFICATES_MAX {
            let (found, most) = (certificates.len(), limits::CHAIN_CERTIFICATES_MAX);
            return Err(WireFault::new(CERTIFICATES, format!("are {found}, the most is {most}")));
        }
        if certificates.iter().any(|der| der.len() > limits::CERTIFICATE_BYTES_MAX) {
            let most = limits::CERTIFICATE_BYTES_MAX;
            return Err(WireFault::new(CERTIFICATES, format!("one has more than {most} bytes")));
        }
        Ok(Self {
            registration_id: field::id("registration_id", &message.registration_id, RegistrationId::parse)?,
            endorsement_key: public("endorsement_key", &message.endorsement_key)?,
            storage_root_key: public("storage_root_key", &message.storage_root_key)?,
            endorsement_certificates: certificates,
            attestation_key: match message.attestation_key.as_slice() {
                [] => None,
                bytes => Some(public("attestation_key", bytes)?),
            },
        })
    }
}

/// A challenge on its way to the device.
#[derive(Clone, PartialEq, Eq)]
pub struct BeginAnswer {
    pub challenge: u128,
    pub blob: Vec<u8>,
    pub key_name: String,
    pub expires_at: Timestamp,
    pub quote: Option<QuoteChallenge>,
}

/// What a quote must be.
#[derive(Clone, PartialEq, Eq)]
pub struct QuoteChallenge {
    pub nonce: Vec<u8>,
    pub pcrs: Vec<PcrIndex>,
    /// `TPM2B_ID_OBJECT`, then `TPM2B_ENCRYPTED_SECRET`; empty where the device sent no key for the quote.
    pub credential: Vec<u8>,
}

impl std::fmt::Debug for BeginAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BeginAnswer({:032x}, until {})", self.challenge, self.expires_at)
    }
}

impl std::fmt::Debug for QuoteChallenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuoteChallenge({:?})", self.pcrs)
    }
}

impl From<BeginAnswer> for device::BeginTpmAttestationResponse {
    fn from(answer: BeginAnswer) -> Self {
        Self {
            challenge_id: format!("{:032x}", answer.challenge),
            authentication_key: answer.blob,
            key_name: answer.key_name,
            expires_at: Some(field::wire_time(answer.expires_at)),
            quote: answer.quote.map(|quote| device::TpmQuoteChallenge {
                nonce: quote.nonce,
                pcrs: quote.pcrs.iter().map(|index| index.number().into()).collect(),
                credential: quote.credential,
            }),
        }
    }
}

/// What a device answers a challenge with, beside its token.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmAnswer {
    pub challenge: u128,
    pub quote: Option<QuoteAnswer>,
}

/// A quote as it was received: nothing of it is checked but its size.
#[derive(Clone, PartialEq, Eq)]
pub struct QuoteAnswer {
    pub attested: Vec<u8>,
    pub signature: Vec<u8>,
    pub values: BTreeMap<PcrIndex, PcrValue>,
    pub key_proof: [u8; 32],
}

impl std::fmt::Debug for TpmAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmAnswer({:032x}, {})", self.challenge, if self.quote.is_some() { "a quote" } else { "no quote" })
    }
}

impl std::fmt::Debug for QuoteAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuoteAnswer({} values)", self.values.len())
    }
}

impl TryFrom<&device::TpmEvidence> for TpmAnswer {
    type Error = WireFault;

    fn try_from(message: &device::TpmEvidence) -> Result<Self, WireFault> {
        Ok(Self {
            challenge: field::id("tpm.challenge_id", &message.challenge_id, challenge_id)?,
            quote: message.quote.as_ref().map(QuoteAnswer::try_from).transpose()?,
        })
    }
}

impl From<&TpmAnswer> for device::TpmEvidence {
    fn from(answer: &TpmAnswer) -> Self {
        let value = |(index, value): (&PcrIndex, &PcrValue)| device::PcrValue {
            index: index.number().into(),
            digest: value.0.to_vec(),
        };
        Self {
            challenge_id: format!("{:032x}", answer.challenge),
            quote: answer.quote.as_ref().map(|quote| device::TpmQuote {
                attested: quote.attested.clone(),
                signature: quote.signature.clone(),
                values: quote.values.iter().map(value).collect(),
                key_proof: quote.key_proof.to_vec(),
            }),
        }
    }
}

fn challenge_id(text: &str) -> Result<u128, IdFault> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex);
    number.ok_or(IdFault::Form { what: "challenge id", expected: "32 lower-case hexadecimal digits" })
}

impl TryFrom<&device::TpmQuote> for QuoteAnswer {
    type Error = WireFault;

    fn try_from(message: &device::TpmQuote) -> Result<Self, WireFault> {
        for (field, bytes) in [("tpm.quote.attested", &message.attested), ("tpm.quote.signature", &message.signature)] {
            if bytes.is_empty() || bytes.len() > limits::TPM_QUOTE_BYTES_MAX {
                let most = limits::TPM_QUOTE_BYTES_MAX;
                return Err(WireFault::new(field, format!("must have 1 to {most} bytes")));
            }
        }
        let mut values = BTreeMap::new();
        for value in &message.values {
            const FIELD: &str = "tpm.quote.values";
            let index = PcrIndex::new(value.index).map_err(|fault| WireFault::new(FIELD, fault))?;
            if values.insert(index, pcr_value(FIELD, &value.digest)?).is_some() {
                return Err(WireFault::new(FIELD, format!("name register {index} twice")));
            }
        }
        let key_proof = message.key_proof.as_slice().try_into();
        let key_proof = key_proof.map_err(|_| WireFault::new("tpm.quote.key_proof", "must have 32 bytes"))?;
        Ok(Self { attested: message.attested.clone(), signature: message.signature.clone(), values, key_proof })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> device::BeginTpmAttestationRequest {
        device::BeginTpmAttestationRequest {
            registration_id: "dev-1".to_owned(),
            endorsement_key: vec![0, 1, 7],
            storage_root_key: vec![0, 1, 8],
            endorsement_certificates: Vec::new(),
            attestation_key: Vec::new(),
        }
    }

    fn check_begin(change: impl FnOnce(&mut device::BeginTpmAttestationRequest), expected: Result<(), &str>) {
        let mut message = begin();
        change(&mut message);
        assert_eq!(BeginCall::try_from(message).map(drop).map_err(|fault| fault.field), expected);
    }

    #[test]
    fn every_field_of_a_begin_is_bounded() {
        check_begin(|_| {}, Ok(()));
        check_begin(|it| it.attestation_key = vec![0, 1, 9], Ok(()));
        check_begin(|it| it.registration_id.clear(), Err("registration_id"));
        check_begin(|it| it.endorsement_key.clear(), Err("endorsement_key"));
        check_begin(|it| it.endorsement_key = vec![0, 2, 7], Err("endorsement_key"));
        check_begin(
            |it| it.storage_root_key = vec![0x04, 0x01].into_iter().chain([7; 0x401]).collect(),
            Err("storage_root_key"),
        );
        check_begin(|it| it.storage_root_key.clear(), Err("storage_root_key"));
        check_begin(|it| it.attestation_key = vec![1], Err("attestation_key"));
        check_begin(|it| it.endorsement_certificates = vec![vec![1]; 6], Ok(()));
        check_begin(|it| it.endorsement_certificates = vec![vec![1]; 7], Err("endorsement_certificates"));
        let large = limits::CERTIFICATE_BYTES_MAX + 1;
        check_begin(|it| it.endorsement_certificates = vec![vec![1; large]], Err("endorsement_certificates"));
    }

    #[test]
    fn every_field_of_an_answer_is_bounded() {
        let value = |index, bytes: usize| device::PcrValue { index, digest: vec![1; bytes] };
        let quote = || device::TpmQuote {
            attested: vec![1],
            signature: vec![2],
            values: vec![value(7, 32)],
            key_proof: vec![3; 32],
        };
        let challenge = || "0123456789abcdef0123456789abcdef".to_owned();
        let read = |challenge_id, quote| TpmAnswer::try_from(&device::TpmEvidence { challenge_id, quote });
        assert!(read(challenge(), None).is_ok() && read(challenge(), Some(quote())).is_ok());
        for wrong in ["", "0123", "0123456789ABCDEF0123456789abcdef", "+123456789abcdef0123456789abcdef"] {
            assert_eq!(read(wrong.to_owned(), None).unwrap_err().field, "tpm.challenge_id");
        }
        for (quote, field) in [
            (device::TpmQuote { attested: Vec::new(), ..quote() }, "tpm.quote.attested"),
            (device::TpmQuote { signature: vec![1; 1025], ..quote() }, "tpm.quote.signature"),
            (device::TpmQuote { key_proof: vec![3; 31], ..quote() }, "tpm.quote.key_proof"),
            (device::TpmQuote { values: vec![value(24, 32)], ..quote() }, "tpm.quote.values"),
            (device::TpmQuote { values: vec![value(7, 31)], ..quote() }, "tpm.quote.values"),
            (device::TpmQuote { values: vec![value(7, 32), value(7, 32)], ..quote() }, "tpm.quote.values"),
        ] {
            assert_eq!(read(challenge(), Some(quote)).unwrap_err().field, field);
        }
    }

    fn check_rule(rule: admin::SrkRule, key: &[u8], name: &str, expected: Result<SrkDraft, &str>) {
        let message = admin::TpmAttestation {
            endorsement_key: vec![0, 1, 7],
            storage_root_key: key.to_vec(),
            srk_rule: rule.into(),
            storage_root_key_name: name.to_owned(),
            ..admin::TpmAttestation::default()
        };
        let draft = attestation(&message);
        if let Ok(draft) = &draft {
            assert_eq!(attestation(&wire_attestation(draft).unwrap()).as_ref(), Ok(draft), "there and back");
        }
        let rule = draft.map(|draft| match draft {
            AttestationDraft::Tpm { storage_root_key, .. } => storage_root_key,
            AttestationDraft::X509 { .. }
            | AttestationDraft::TpmFleet { .. }
            | AttestationDraft::SymmetricKey { .. } => {
                panic!("another kind")
            }
        });
        assert_eq!(rule.map_err(|fault| fault.field), expected);
    }

    #[test]
    fn a_pinned_key_is_given_in_one_way_and_with_its_rule() {
        let name = format!("000b{}", "ab".repeat(32));
        let (key, srk) = ([0, 1, 8], "tpm.storage_root_key");
        let parsed = TpmName::parse(&[&[0, 0x0b][..], &[0xab; 32]].concat()).unwrap();
        check_rule(admin::SrkRule::Unspecified, &[], "", Ok(SrkDraft::Any));
        check_rule(admin::SrkRule::PinFirst, &[], "", Ok(SrkDraft::PinFirst));
        check_rule(admin::SrkRule::Pinned, &key, "", Ok(SrkDraft::Key(TpmPublic::parse(&key).unwrap())));
        check_rule(admin::SrkRule::Pinned, &[], &name, Ok(SrkDraft::Name(parsed)));
        check_rule(admin::SrkRule::Pinned, &[], "", Err(srk));
        check_rule(admin::SrkRule::Pinned, &key, &name, Err(srk));
        check_rule(admin::SrkRule::Any, &key, "", Err(srk));
        check_rule(admin::SrkRule::PinFirst, &[], &name, Err(srk));
        check_rule(admin::SrkRule::Pinned, &[], "000b", Err("tpm.storage_root_key_name"));
    }

    #[test]
    fn a_group_s_attestation_comes_back() {
        let message = admin::EndorsementAttestation {
            primary: Some(admin::Certificate { der: vec![1], thumbprint: String::new() }),
            makes: vec![admin::TpmMake { manufacturer: "INTC".to_owned(), model: "x".to_owned() }],
            usage_may_be_absent: true,
            srk_rule: admin::SrkRule::PinFirst.into(),
            pcr_policy: Some(admin::PcrPolicy {
                mode: admin::PcrMode::Audit.into(),
                pcrs: vec![admin::PcrRule { index: 7, digests: vec![vec![1; 32], vec![2; 32]] }],
            }),
            ..admin::EndorsementAttestation::default()
        };
        let draft = fleet_attestation(&message).unwrap();
        assert_eq!(fleet_attestation(&wire_fleet_attestation(&draft).unwrap()), Ok(draft));
        let pinned = admin::EndorsementAttestation { srk_rule: admin::SrkRule::Pinned.into(), ..message.clone() };
        assert_eq!(fleet_attestation(&pinned).unwrap_err().field, "endorsement.srk_rule");
        let twice = admin::PcrRule { index: 7, digests: vec![vec![1; 32]] };
        let twice = admin::PcrPolicy { mode: 0, pcrs: vec![twice.clone(), twice] };
        let twice = admin::EndorsementAttestation { pcr_policy: Some(twice), ..message };
        assert_eq!(fleet_attestation(&twice).unwrap_err().field, "endorsement.pcr_policy");
    }
}
