//! What `rehome enroll` and `rehome group` have in common: the same verbs on the same record.

use clap::Args;

use crate::ambient::SystemEntropy;
use crate::client::{EnrollmentKind, EnrollmentRecord};
use crate::domain::{DeviceId, EnrollmentDraft, EnrollmentId, Version};

use super::advice::Advised;
use super::context::{Context, Limit, pages};
use super::input;
use super::proof::ProofFlags;
use super::settings::{CertificateChanges, KeyChanges, SettingsFlags};
use super::view::enrollment::EnrollmentView;

/// What a new enrollment is made of, beside its id.
#[derive(Debug, PartialEq, Args)]
pub struct New {
    #[command(flatten)]
    pub proof: ProofFlags,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// Create it disabled
    #[arg(long)]
    pub disabled: bool,
}

/// What is to be different about an enrollment.
#[derive(Debug, Default, PartialEq, Args)]
pub struct Changes {
    #[command(flatten)]
    pub certificates: CertificateChanges,
    #[command(flatten)]
    pub keys: KeyChanges,
    #[command(flatten)]
    pub settings: SettingsFlags,
    #[command(flatten)]
    pub exactly: Exactly,
}

/// A precondition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct Exactly {
    /// Act on exactly this version, or not at all
    #[arg(long, value_name = "ETAG", value_parser = input::etag)]
    pub etag: Option<Version>,
}

impl New {
    pub fn draft(&self, id: EnrollmentId, device_id: Option<DeviceId>) -> anyhow::Result<EnrollmentDraft> {
        let draft = self.settings.create(id, self.proof.read()?, !self.disabled)?;
        Ok(EnrollmentDraft { device_id, ..draft })
    }
}

impl Changes {
    /// Changes a record that was read; the version that must still hold when it is written back.
    fn apply(&self, record: &mut EnrollmentRecord, device_id: Option<DeviceId>) -> anyhow::Result<Version> {
        let proof_stays = self.certificates.is_empty() && self.keys.is_empty();
        if proof_stays && self.settings.is_empty() && device_id.is_none() {
            return Err(Advised::usage("there is nothing to change", "--help lists what can be").into());
        }
        self.certificates.apply(&mut record.draft.attestation)?;
        self.keys.apply(&mut record.draft.attestation, &SystemEntropy::new())?;
        self.settings.apply(&mut record.draft)?;
        record.draft.device_id = device_id.or(record.draft.device_id.take());
        Ok(self.exactly.etag.unwrap_or(record.version))
    }
}

pub async fn create(draft: EnrollmentDraft, context: &Context) -> anyhow::Result<()> {
    show_record(context.operator().await?.create_enrollment(&draft).await?, context)
}

pub async fn show(id: EnrollmentId, context: &Context) -> anyhow::Result<()> {
    show_record(context.operator().await?.enrollment(&id).await?, context)
}

pub async fn list(kind: EnrollmentKind, limit: Limit, context: &Context) -> anyhow::Result<()> {
    let operator = context.operator().await?;
    let (rows, more) = pages(limit.limit, async |page| operator.list_enrollments(kind, page).await).await?;
    let rows: Vec<EnrollmentView> = rows.into_iter().map(EnrollmentView::from).collect();
    Ok(context.output.list(&rows, more)?)
}

/// Reads the enrollment, changes it, and writes it back if nobody else did meanwhile.
pub async fn update(
    id: EnrollmentId,
    changes: &Changes,
    device_id: Option<DeviceId>,
    context: &Context,
) -> anyhow::Result<()> {
    let operator = context.operator().await?;
    let mut record = operator.enrollment(&id).await?;
    let version = changes.apply(&mut record, device_id)?;
    show_record(operator.update_enrollment(&record.draft, version).await?, context)
}

pub async fn enable(id: EnrollmentId, exactly: Exactly, context: &Context) -> anyhow::Result<()> {
    show_record(context.operator().await?.enable_enrollment(&id, exactly.etag).await?, context)
}

pub async fn disable(id: EnrollmentId, exactly: Exactly, context: &Context) -> anyhow::Result<()> {
    show_record(context.operator().await?.disable_enrollment(&id, exactly.etag).await?, context)
}

pub async fn delete(id: EnrollmentId, exactly: Exactly, context: &Context) -> anyhow::Result<()> {
    context.operator().await?.delete_enrollment(&id, exactly.etag).await?;
    Ok(context.output.done(&format!("the enrollment ({id}) is deleted; registrations made by it stay"))?)
}

fn show_record(record: EnrollmentRecord, context: &Context) -> anyhow::Result<()> {
    Ok(context.output.item(&EnrollmentView::from(record))?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::{AttestationDraft, RegistrationId, ReprovisionPolicy, Timestamp};

    fn new_dev_1(disabled: bool) -> EnrollmentDraft {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("dev-1.der");
        fs::write(&certificate, [0x30, 0x82, 0, 0]).unwrap();
        let new = New {
            proof: ProofFlags { certificate: Some(certificate), ..ProofFlags::default() },
            settings: SettingsFlags::default(),
            disabled,
        };
        new.draft(EnrollmentId::Individual(RegistrationId::parse("dev-1").unwrap()), None).unwrap()
    }

    #[test]
    fn a_new_enrollment_is_enabled_and_migrates() {
        let draft = new_dev_1(false);
        assert_eq!((draft.enabled, draft.reprovision), (true, Some(ReprovisionPolicy::Migrate)));
        assert_eq!(draft.attestation, AttestationDraft::X509 { primary: vec![0x30, 0x82, 0, 0], secondary: None });
        draft.check().unwrap();
        assert!(!new_dev_1(true).enabled);
    }

    #[test]
    fn an_update_writes_over_the_version_it_read_unless_told_which() {
        let stored = || EnrollmentRecord {
            draft: new_dev_1(false),
            endorsement_key_hash: None,
            key_fingerprints: Vec::new(),
            thumbprints: Vec::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(3),
        };
        let pump = DeviceId::parse("pump").unwrap();
        let mut record = stored();
        assert_eq!(Changes::default().apply(&mut record, Some(pump.clone())).unwrap(), Version(3));
        assert_eq!(record.draft.device_id, Some(pump.clone()));

        let forced = Changes { exactly: Exactly { etag: Some(Version(1)) }, ..Changes::default() };
        assert_eq!(forced.apply(&mut stored(), Some(pump)).unwrap(), Version(1));
        assert!(forced.apply(&mut stored(), None).is_err(), "there is nothing to change");

        let settings = SettingsFlags { adopt_existing: Some(true), ..SettingsFlags::default() };
        Changes { settings, ..Changes::default() }.apply(&mut record, None).unwrap();
        assert!(record.draft.adopt_existing && record.draft.device_id.is_some(), "what is not named stays");
    }
}
