//! The operators' rules: individual enrollments and groups. A change counts from the next registration on and moves no
//! device; disabling one stops registrations and nothing else.

use std::sync::Arc;

use crate::attestation::tpm::{self, EndorsementKey, KeyFault, PublicArea, StorageKey};
use crate::attestation::x509::{self, CertificateInfo, Refusal};
use crate::domain::{
    AllocationPolicy, Attestation, AttestationDraft, AuditAction, AuditEntry, CertificateRef, DeviceId, Enrollment,
    EnrollmentDraft, EnrollmentId, Fault, PcrPolicy, Reason, RegistrationId, SrkDraft, SrkRule, TpmDevice, TpmFleet,
    TpmPublic, TpmRules, Version, X509Anchors, X509Leaves,
};
use crate::store::{Change, Commit, CommitFault, EnrollmentListing, Page, PageRequest, Unexpected};

use super::{Service, fault};

/// How often a change without a precondition is tried again because another one came between.
const TRIES_MAX: u32 = 3;

impl Service {
    /// Makes a new enrollment.
    pub async fn create_enrollment(&self, draft: EnrollmentDraft, by: &str) -> Result<Arc<Enrollment>, Fault> {
        draft.check()?;
        let attestation = self.read_attestation(&draft, None)?;
        self.check_references(&draft).await?;
        self.check_keys(&attestation, &draft.id).await?;
        let now = self.inner.clock.now();
        let enrollment = draft.into_enrollment(attestation, now, now, Version::ABSENT);
        let detail = format!("{} was created", enrollment.id);
        self.put_enrollment(enrollment, AuditAction::EnrollmentCreated, by, detail).await
    }

    /// One enrollment.
    pub async fn enrollment(&self, id: &EnrollmentId) -> Result<Arc<Enrollment>, Fault> {
        let found = self.inner.store.load_enrollment(id).await.map_err(fault::of_store)?;
        found.ok_or_else(|| fault::no_enrollment(id))
    }

    /// Individuals or groups, by id.
    pub async fn enrollments(
        &self,
        listing: EnrollmentListing,
        page: &PageRequest,
    ) -> Result<Page<Arc<Enrollment>>, Fault> {
        self.inner.store.list_enrollments(listing, page).await.map_err(fault::of_store)
    }

    /// Replaces everything but the id. A webhook URL that is the stored one's masked text keeps the stored one, and so does a
    /// symmetric key that is not given.
    pub async fn update_enrollment(
        &self,
        mut draft: EnrollmentDraft,
        version: Version,
        by: &str,
    ) -> Result<Arc<Enrollment>, Fault> {
        let stored = self.enrollment(&draft.id).await?;
        fault::check_etag(&draft.id, Some(version), stored.version)?;
        if let (Some(AllocationPolicy::Custom(given)), Some(AllocationPolicy::Custom(kept))) =
            (&mut draft.allocation, &stored.allocation)
            && given.url == kept.masked_url()
        {
            given.url.clone_from(&kept.url);
        }
        draft.check()?;
        let attestation = self.read_attestation(&draft, Some(&stored.attestation))?;
        self.check_references(&draft).await?;
        self.check_keys(&attestation, &draft.id).await?;
        let rolled = Self::rolled(&stored.attestation, &attestation);
        let enrollment = draft.into_enrollment(attestation, stored.created_at, self.inner.clock.now(), stored.version);
        let detail = format!("{} was updated{rolled}", enrollment.id);
        self.put_enrollment(enrollment, AuditAction::EnrollmentUpdated, by, detail).await
    }

    /// Lets devices register by it, or no longer. What is so already is not changed.
    pub async fn set_enrollment_enabled(
        &self,
        id: &EnrollmentId,
        enabled: bool,
        version: Option<Version>,
        by: &str,
    ) -> Result<Arc<Enrollment>, Fault> {
        let mut tries = 0;
        loop {
            let stored = self.enrollment(id).await?;
            fault::check_etag(id, version, stored.version)?;
            if stored.enabled == enabled {
                return Ok(stored);
            }
            let enrollment = Enrollment { enabled, updated_at: self.inner.clock.now(), ..Enrollment::clone(&stored) };
            let detail = format!("{id} was {}", if enabled { "enabled" } else { "disabled" });
            tries += 1;
            match self.put_enrollment(enrollment, AuditAction::EnrollmentUpdated, by, detail).await {
                Err(fault) if fault.reason == Reason::EtagMismatch && version.is_none() && tries < TRIES_MAX => {}
                outcome => return outcome,
            }
        }
    }

    /// Removes it. Registrations made by it stay.
    pub async fn delete_enrollment(&self, id: &EnrollmentId, version: Option<Version>, by: &str) -> Result<(), Fault> {
        let mut tries = 0;
        loop {
            let stored = self.enrollment(id).await?;
            fault::check_etag(id, version, stored.version)?;
            let audit = AuditEntry {
                enrollment: Some(id.clone()),
                ..AuditEntry::new(
                    self.inner.clock.now(),
                    by,
                    AuditAction::EnrollmentDeleted,
                    format!("{id} was deleted"),
                )
            };
            let change = Change::DeleteEnrollment { id: id.clone(), version: stored.version };
            let commit = Commit { changes: vec![change], audit: vec![audit], ..Commit::default() };
            tries += 1;
            match self.inner.store.commit(commit).await {
                Ok(_) => return Ok(()),
                Err(CommitFault::Unexpected(Unexpected::Enrollment { .. }))
                    if version.is_none() && tries < TRIES_MAX => {}
                Err(fault) => return Err(fault::of_commit(fault)),
            }
        }
    }

    /// Commits an enrollment with its audit entry; answers it as it is stored.
    pub(super) async fn put_enrollment(
        &self,
        enrollment: Enrollment,
        action: AuditAction,
        by: &str,
        detail: String,
    ) -> Result<Arc<Enrollment>, Fault> {
        let audit = AuditEntry {
            enrollment: Some(enrollment.id.clone()),
            ..AuditEntry::new(self.inner.clock.now(), by, action, detail)
        };
        let change = Change::PutEnrollment(Box::new(enrollment.clone()));
        let commit = Commit { changes: vec![change], audit: vec![audit], ..Commit::default() };
        self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        let version = enrollment.version.next();
        Ok(Arc::new(Enrollment { version, ..enrollment }))
    }

    /// The draft's hubs are linked, and nobody else has its device id.
    pub(super) async fn check_references(&self, draft: &EnrollmentDraft) -> Result<(), Fault> {
        for hub in &draft.hubs {
            if self.inner.store.load_hub(hub).await.map_err(fault::of_store)?.is_none() {
                return Err(fault::no_hub(hub).with("field", "settings.hub_ids"));
            }
        }
        let EnrollmentId::Individual(id) = &draft.id else { return Ok(()) };
        let device = draft.device_id.clone().unwrap_or_else(|| DeviceId::from(id));
        match self.inner.store.find_owner(&device).await.map_err(fault::of_store)? {
            Some(owner) if owner != *id => {
                let message = format!("the device id {device} belongs to registration {owner}");
                Err(Fault::new(Reason::DeviceIdInUse, message).with("registration_id", owner.as_str()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the draft's way of proof comes to, in place of what is stored.
    pub(super) fn read_attestation(
        &self,
        draft: &EnrollmentDraft,
        stored: Option<&Attestation>,
    ) -> Result<Attestation, Fault> {
        let (primary, secondary) = match &draft.attestation {
            AttestationDraft::X509 { primary, secondary } => (primary, secondary),
            AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs } => {
                return read_tpm(endorsement_key, storage_root_key, pcrs.clone());
            }
            AttestationDraft::SymmetricKey { primary, secondary } => {
                return Ok(self.read_keys(&draft.id, [primary.as_ref(), secondary.as_ref()], stored));
            }
            AttestationDraft::TpmFleet { primary, secondary, makes, usage_may_be_absent, pin_first, pcrs } => {
                let read = |field: &'static str, bytes: &[u8]| self.read_ek_authority(field, bytes);
                let primary = read("endorsement.primary", primary)?;
                let secondary = secondary.as_deref().map(|bytes| read("endorsement.secondary", bytes)).transpose()?;
                if secondary.as_ref().is_some_and(|secondary| secondary.thumbprint == primary.thumbprint) {
                    let message = "is the same certificate as the primary one";
                    return Err(Fault::invalid("endorsement.secondary", message));
                }
                let storage_root_key = if *pin_first { SrkRule::PinFirst } else { SrkRule::Any };
                return Ok(Attestation::TpmFleet(TpmFleet {
                    anchors: X509Anchors { primary, secondary },
                    makes: makes.clone(),
                    usage_may_be_absent: *usage_may_be_absent,
                    rules: TpmRules { storage_root_key, pcrs: pcrs.clone() },
                }));
            }
        };
        let read = |field: &'static str, bytes: &[u8]| self.read_certificate(&draft.id, field, bytes);
        let primary = read("x509.primary", primary)?;
        let secondary = secondary.as_deref().map(|bytes| read("x509.secondary", bytes)).transpose()?;
        if secondary.as_ref().is_some_and(|secondary| secondary.thumbprint == primary.thumbprint) {
            return Err(Fault::invalid("x509.secondary", "is the same certificate as the primary one"));
        }
        Ok(match &draft.id {
            EnrollmentId::Individual(_) => Attestation::X509Leaf(X509Leaves { primary, secondary }),
            EnrollmentId::Group(_) => Attestation::X509Ca(X509Anchors { primary, secondary }),
        })
    }

    fn read_certificate(&self, id: &EnrollmentId, field: &'static str, bytes: &[u8]) -> Result<CertificateRef, Fault> {
        let invalid = |refusal: Refusal| Fault::invalid(field, refusal).with("refusal", refusal.as_str());
        let certificate = x509::certificate_ref(bytes).map_err(invalid)?;
        match id {
            EnrollmentId::Individual(id) => {
                x509::check_leaf(&certificate).map_err(invalid)?;
                check_common_name(id, field, &certificate)?;
            }
            EnrollmentId::Group(_) => x509::check_anchor(&certificate).map_err(invalid)?,
        }
        self.check_not_operators(field, &certificate)?;
        Ok(certificate)
    }

    fn read_ek_authority(&self, field: &'static str, bytes: &[u8]) -> Result<CertificateRef, Fault> {
        let invalid = |refusal: Refusal| Fault::invalid(field, refusal).with("refusal", refusal.as_str());
        let certificate = x509::certificate_ref(bytes).map_err(invalid)?;
        tpm::check_authority(&certificate).map_err(invalid)?;
        self.check_not_operators(field, &certificate)?;
        Ok(certificate)
    }

    fn check_not_operators(&self, field: &'static str, certificate: &CertificateRef) -> Result<(), Fault> {
        let invalid = |refusal: Refusal| Fault::invalid(field, refusal).with("refusal", refusal.as_str());
        for operators in &self.inner.operator_authorities {
            if x509::shares_authority(&certificate.der, &operators.der).map_err(invalid)? {
                let message = format!("{field}: the operators' authority cannot vouch for devices");
                return Err(Fault::new(Reason::CertificateInUse, message).with("field", field));
            }
        }
        Ok(())
    }
}

/// What is known of a certificate, given as DER or PEM; `None` when it cannot be read.
pub fn describe_certificate(der_or_pem: &[u8]) -> Option<CertificateInfo> {
    let certificate = x509::certificate_ref(der_or_pem).ok()?;
    x509::describe(&certificate.der).ok()
}

/// Keys that no TPM may use would never let the device in.
fn read_tpm(endorsement_key: &TpmPublic, srk: &SrkDraft, pcrs: Option<PcrPolicy>) -> Result<Attestation, Fault> {
    let invalid =
        |field: &'static str| move |fault: KeyFault| Fault::invalid(field, fault).with("refusal", fault.as_str());
    let wrong = invalid("tpm.endorsement_key");
    let key = PublicArea::of(endorsement_key.clone()).and_then(EndorsementKey::validate).map_err(wrong)?;
    let storage_root_key = match srk {
        SrkDraft::Any => SrkRule::Any,
        SrkDraft::PinFirst => SrkRule::PinFirst,
        SrkDraft::Name(name) => SrkRule::Pinned(name.clone()),
        SrkDraft::Key(public) => {
            let wrong = invalid("tpm.storage_root_key");
            let key = PublicArea::of(public.clone()).and_then(StorageKey::validate).map_err(wrong)?;
            SrkRule::Pinned(key.name().clone())
        }
    };
    Ok(Attestation::Tpm(TpmDevice {
        endorsement_key: endorsement_key.clone(),
        ek_hash: key.ek_hash(),
        rules: TpmRules { storage_root_key, pcrs },
    }))
}

/// A leaf of another name would never let the device in.
fn check_common_name(id: &RegistrationId, field: &'static str, certificate: &CertificateRef) -> Result<(), Fault> {
    let info = x509::describe(&certificate.der).map_err(|refusal| Fault::invalid(field, refusal))?;
    match info.common_name.as_deref().map(RegistrationId::parse) {
        Some(Ok(name)) if name == *id => Ok(()),
        Some(_) | None => Err(Fault::invalid(field, "the certificate's common name is not the registration id")),
    }
}
