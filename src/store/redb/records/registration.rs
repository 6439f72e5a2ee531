//! Registrations in the file.

use super::{
    Decoded, RecordFault, Stored, device_id, fault, form, hub_id, reason, registration_id, request_id, text, tpm_name,
    whole,
};
use crate::domain::{
    Assignment, Credential, DataSource, DeliveredKeys, EkHash, KeyFingerprint, KeyPair, Operation, OperationId,
    OperationStatus, Order, Pin, Registration, SealedKey, Thumbprint, Timestamp, TpmDelivery, Version, limits,
};

impl From<&SealedKey> for form::SealedKey {
    fn from(key: &SealedKey) -> Self {
        Self { fingerprint: key.fingerprint().0, sealed: key.sealed().to_vec() }
    }
}

impl TryFrom<form::SealedKey> for SealedKey {
    type Error = RecordFault;

    fn try_from(record: form::SealedKey) -> Decoded<Self> {
        let fingerprint = KeyFingerprint(record.fingerprint);
        SealedKey::new(fingerprint, record.sealed).ok_or_else(|| fault("key", "it is too long"))
    }
}

impl From<&Credential> for form::Credential {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::X509 { thumbprints } => {
                form::Credential::X509 { thumbprints: thumbprints.iter().map(|thumbprint| thumbprint.0).collect() }
            }
            Credential::Delivered(keys) => {
                form::Credential::Delivered { keys: keys.newest_first().iter().map(Into::into).collect() }
            }
            Credential::Shared(keys) => {
                form::Credential::Shared { primary: (&keys.primary).into(), secondary: (&keys.secondary).into() }
            }
        }
    }
}

impl TryFrom<form::Credential> for Credential {
    type Error = RecordFault;

    fn try_from(credential: form::Credential) -> Decoded<Self> {
        Ok(match credential {
            form::Credential::X509 { thumbprints } => Credential::x509(thumbprints.into_iter().map(Thumbprint)),
            form::Credential::Delivered { keys } => {
                let keys = keys.into_iter().map(TryInto::try_into).collect::<Decoded<_>>()?;
                Credential::Delivered(DeliveredKeys::kept(keys))
            }
            form::Credential::Shared { primary, secondary } => {
                Credential::Shared(KeyPair { primary: primary.try_into()?, secondary: secondary.try_into()? })
            }
        })
    }
}

impl From<&TpmDelivery> for form::TpmDelivery {
    fn from(TpmDelivery { ek, srk, blob }: &TpmDelivery) -> Self {
        Self { ek: ek.0, srk: srk.as_ref().map(|name| name.as_bytes().to_vec()), blob: blob.to_vec() }
    }
}

impl TryFrom<form::TpmDelivery> for TpmDelivery {
    type Error = RecordFault;

    fn try_from(record: form::TpmDelivery) -> Decoded<Self> {
        if record.blob.len() > limits::TPM_BLOB_BYTES_MAX {
            return Err(fault("activation blob", "it is too long"));
        }
        let srk = record.srk.as_deref().map(tpm_name).transpose()?;
        Ok(Self { ek: EkHash(record.ek), srk, blob: record.blob.into() })
    }
}

impl From<DataSource> for form::DataSource {
    fn from(source: DataSource) -> Self {
        match source {
            DataSource::Sealed => form::DataSource::Sealed,
            DataSource::LastKnown { seen_at } => form::DataSource::LastKnown { seen_at: seen_at.0 },
            DataSource::Initial => form::DataSource::Initial,
        }
    }
}

impl From<form::DataSource> for DataSource {
    fn from(source: form::DataSource) -> Self {
        match source {
            form::DataSource::Sealed => DataSource::Sealed,
            form::DataSource::LastKnown { seen_at } => DataSource::LastKnown { seen_at: Timestamp(seen_at) },
            form::DataSource::Initial => DataSource::Initial,
        }
    }
}

impl From<&OperationStatus> for form::OperationStatus {
    fn from(status: &OperationStatus) -> Self {
        match status {
            OperationStatus::Assigning => form::OperationStatus::Assigning,
            OperationStatus::Assigned { sub_status, data_source } => form::OperationStatus::Assigned {
                sub_status: sub_status.into(),
                data_source: data_source.map(Into::into),
            },
            OperationStatus::Failed { reason, message } => {
                form::OperationStatus::Failed { reason: reason.as_str().to_owned(), message: message.clone() }
            }
            OperationStatus::Disabled => form::OperationStatus::Disabled,
        }
    }
}

impl TryFrom<form::OperationStatus> for OperationStatus {
    type Error = RecordFault;

    fn try_from(status: form::OperationStatus) -> Decoded<Self> {
        Ok(match status {
            form::OperationStatus::Assigning => OperationStatus::Assigning,
            form::OperationStatus::Assigned { sub_status, data_source } => {
                OperationStatus::Assigned { sub_status: sub_status.into(), data_source: data_source.map(Into::into) }
            }
            form::OperationStatus::Failed { reason: word, message } => {
                OperationStatus::Failed { reason: reason(&word)?, message }
            }
            form::OperationStatus::Disabled => OperationStatus::Disabled,
        })
    }
}

impl From<&Pin> for form::Pin {
    fn from(Pin { hub, by, reason, set_at, expires_at }: &Pin) -> Self {
        Self {
            hub: text(hub),
            by: by.clone(),
            reason: reason.clone(),
            set_at: set_at.0,
            expires_at: expires_at.map(|at| at.0),
        }
    }
}

impl TryFrom<form::Pin> for Pin {
    type Error = RecordFault;

    fn try_from(record: form::Pin) -> Decoded<Self> {
        Ok(Self {
            hub: hub_id(&record.hub)?,
            by: record.by,
            reason: record.reason,
            set_at: Timestamp(record.set_at),
            expires_at: record.expires_at.map(Timestamp),
        })
    }
}

impl Stored for Registration {
    const WHAT: &'static str = "registration";
    const VERSION: u8 = 2;
    type Record = form::Registration;

    fn to_record(&self) -> form::Registration {
        let assignment = |assignment: &Assignment| form::Assignment {
            hub: text(&assignment.hub),
            generation: assignment.generation.0,
            credential: assignment.credential.as_ref().map(Into::into),
            assigned_at: assignment.assigned_at.0,
        };
        let first = form::FirstRegistration {
            id: self.id.as_str().to_owned(),
            device_id: self.device_id.as_str().to_owned(),
            enrollment: (&self.enrollment).into(),
            enrollment_version: self.enrollment_version.0,
            policy: self.policy.as_ref().map(Into::into),
            assignment: self.assignment.as_ref().map(assignment),
            operation: form::Operation {
                id: self.operation.id.0,
                status: (&self.operation.status).into(),
                request_id: self.operation.request_id.as_ref().map(|id| id.as_str().to_owned()),
                started_at: self.operation.started_at.0,
                updated_at: self.operation.updated_at.0,
            },
            pin: self.pin.as_ref().map(Into::into),
            payload: self.payload.clone(),
            past: self.past.moves.iter().map(|order| order.0).collect(),
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
            version: self.version.0,
        };
        let late = self.past.late.iter().map(|order| order.0).collect();
        form::Registration { first, tpm: self.tpm.as_ref().map(Into::into), late }
    }

    fn from_older(version: u8, body: &[u8]) -> Decoded<Self> {
        match version {
            1 => {
                let first = whole(Self::WHAT, body)?;
                Self::from_record(form::Registration { first, tpm: None, late: Vec::new() })
            }
            _ => Err(fault(Self::WHAT, format!("record version {version} is not known"))),
        }
    }

    fn from_record(form::Registration { first: record, tpm, late }: form::Registration) -> Decoded<Self> {
        let assignment = |assignment: form::Assignment| {
            Ok(Assignment {
                hub: hub_id(&assignment.hub)?,
                generation: Order(assignment.generation),
                credential: assignment.credential.map(TryInto::try_into).transpose()?,
                assigned_at: Timestamp(assignment.assigned_at),
            })
        };
        Ok(Self {
            id: registration_id(&record.id)?,
            device_id: device_id(&record.device_id)?,
            enrollment: record.enrollment.try_into()?,
            enrollment_version: Version(record.enrollment_version),
            policy: record.policy.map(Into::into),
            assignment: record.assignment.map(assignment).transpose()?,
            operation: Operation {
                id: OperationId(record.operation.id),
                status: record.operation.status.try_into()?,
                request_id: record.operation.request_id.as_deref().map(request_id).transpose()?,
                started_at: Timestamp(record.operation.started_at),
                updated_at: Timestamp(record.operation.updated_at),
            },
            pin: record.pin.map(TryInto::try_into).transpose()?,
            payload: record.payload,
            tpm: tpm.map(TryInto::try_into).transpose()?,
            past: form::Past { moves: record.past, late }.into(),
            created_at: Timestamp(record.created_at),
            updated_at: Timestamp(record.updated_at),
            version: Version(record.version),
        })
    }
}
