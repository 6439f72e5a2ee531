//! Enrollments in the file.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Decoded, RecordFault, Stored, device_id, document, fault, form, hub_id, text, tpm_name};
use crate::domain::{
    AllocationPolicy, Attestation, Capabilities, CertificateRef, EkHash, Enrollment, InitialState, KeyPair, PcrIndex,
    PcrPolicy, PcrValue, SrkRule, Thumbprint, Timestamp, TpmDevice, TpmFleet, TpmMake, TpmManufacturer, TpmModel,
    TpmPublic, TpmRules, UnreachableRule, Version, WebhookPolicy, X509Anchors, X509Leaves,
};

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
            Attestation::Tpm(TpmDevice { endorsement_key, ek_hash, rules }) => form::Attestation::Tpm {
                endorsement_key: endorsement_key.as_bytes().to_vec(),
                ek_hash: ek_hash.0,
                rules: rules.into(),
            },
            Attestation::TpmFleet(TpmFleet { anchors, makes, usage_may_be_absent, rules }) => {
                let (primary, secondary) = both(&anchors.primary, &anchors.secondary);
                let make = |make: &TpmMake| form::TpmMake {
                    manufacturer: make.manufacturer.0,
                    model: make.model.as_ref().map(|model| model.as_str().to_owned()),
                };
                form::Attestation::TpmFleet {
                    primary,
                    secondary,
                    makes: makes.iter().map(make).collect(),
                    usage_may_be_absent: *usage_may_be_absent,
                    rules: rules.into(),
                }
            }
            Attestation::SymmetricKey(KeyPair { primary, secondary }) => {
                form::Attestation::SymmetricKey { primary: primary.into(), secondary: secondary.into() }
            }
            Attestation::MasterKey(KeyPair { primary, secondary }) => {
                form::Attestation::MasterKey { primary: primary.into(), secondary: secondary.into() }
            }
        }
    }
}

impl TryFrom<form::Attestation> for Attestation {
    type Error = RecordFault;

    fn try_from(attestation: form::Attestation) -> Decoded<Self> {
        Ok(match attestation {
            form::Attestation::X509Leaf { primary, secondary } => {
                Attestation::X509Leaf(X509Leaves { primary: primary.into(), secondary: secondary.map(Into::into) })
            }
            form::Attestation::X509Ca { primary, secondary } => {
                Attestation::X509Ca(X509Anchors { primary: primary.into(), secondary: secondary.map(Into::into) })
            }
            form::Attestation::Tpm { endorsement_key, ek_hash, rules } => Attestation::Tpm(TpmDevice {
                endorsement_key: TpmPublic::parse(&endorsement_key).map_err(|why| fault("endorsement key", why))?,
                ek_hash: EkHash(ek_hash),
                rules: rules.try_into()?,
            }),
            form::Attestation::TpmFleet { primary, secondary, makes, usage_may_be_absent, rules } => {
                let make = |make: form::TpmMake| {
                    let model = make.model.as_deref().map(TpmModel::parse).transpose();
                    let model = model.map_err(|why| fault("model of a TPM", why))?;
                    Ok(TpmMake { manufacturer: TpmManufacturer(make.manufacturer), model })
                };
                Attestation::TpmFleet(TpmFleet {
                    anchors: X509Anchors { primary: primary.into(), secondary: secondary.map(Into::into) },
                    makes: makes.into_iter().map(make).collect::<Decoded<_>>()?,
                    usage_may_be_absent,
                    rules: rules.try_into()?,
                })
            }
            form::Attestation::SymmetricKey { primary, secondary } => {
                Attestation::SymmetricKey(KeyPair { primary: primary.try_into()?, secondary: secondary.try_into()? })
            }
            form::Attestation::MasterKey { primary, secondary } => {
                Attestation::MasterKey(KeyPair { primary: primary.try_into()?, secondary: secondary.try_into()? })
            }
        })
    }
}

impl From<&TpmRules> for form::TpmRules {
    fn from(TpmRules { storage_root_key, pcrs }: &TpmRules) -> Self {
        let digests = |values: &[PcrValue]| values.iter().map(|value| value.0).collect();
        Self {
            storage_root_key: match storage_root_key {
                SrkRule::Any => form::SrkRule::Any,
                SrkRule::PinFirst => form::SrkRule::PinFirst,
                SrkRule::Pinned(name) => form::SrkRule::Pinned(name.as_bytes().to_vec()),
            },
            pcrs: pcrs.as_ref().map(|policy| form::PcrPolicy {
                mode: (&policy.mode()).into(),
                allowed: policy.allowed().iter().map(|(index, values)| (index.number(), digests(values))).collect(),
            }),
        }
    }
}

impl TryFrom<form::TpmRules> for TpmRules {
    type Error = RecordFault;

    fn try_from(record: form::TpmRules) -> Decoded<Self> {
        let storage_root_key = match record.storage_root_key {
            form::SrkRule::Any => SrkRule::Any,
            form::SrkRule::PinFirst => SrkRule::PinFirst,
            form::SrkRule::Pinned(name) => SrkRule::Pinned(tpm_name(&name)?),
        };
        Ok(Self { storage_root_key, pcrs: record.pcrs.map(pcr_policy).transpose()? })
    }
}

fn pcr_policy(record: form::PcrPolicy) -> Decoded<PcrPolicy> {
    let wrong = |why| fault("PCR policy", why);
    let mut allowed = BTreeMap::new();
    for (index, values) in record.allowed {
        let index = PcrIndex::new(index.into()).map_err(wrong)?;
        allowed.insert(index, values.into_iter().map(PcrValue).collect());
    }
    PcrPolicy::new(record.mode.into(), allowed).map_err(wrong)
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
            attestation: record.attestation.try_into()?,
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
