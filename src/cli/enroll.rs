//! `rehome enroll`: individual enrollments.

use clap::{Args, Subcommand};

use crate::client::Api;
use crate::domain::{DeviceId, RegistrationId};

use super::advice::Advised;
use super::api::admin;
use super::context::{Context, Limit, pages};
use super::settings::{CertificateChanges, CertificateFlags, SettingsFlags};
use super::view::enrollment::EnrollmentView;

const CREATE_HELP: &str = "Examples:
  rehome enroll create dev-1 --certificate dev-1.pem
  rehome enroll create dev-1 --certificate dev-1.pem --allocation static --hub hub-a --reprovision reset
  rehome enroll create dev-1 --certificate old.pem --secondary new.pem --initial-twin twin.json

The certificate's common name must be the registration id. Writing an enrollment moves no device: it counts from the
device's next registration on.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum EnrollCommand {
    /// Let one device register
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List the individual enrollments
    List(Limit),
    /// Show one individual enrollment
    Show { id: RegistrationId },
    /// Change an individual enrollment; what is not named stays
    #[command(after_help = "Example:\n  rehome enroll update dev-1 --reprovision never --no-secondary")]
    Update(Update),
    /// Let the device register again
    Enable(Change),
    /// Stop registrations of the device; it stays at its hub
    #[command(after_help = "A disabled individual enrollment also keeps its device out of an enabled group.\n\
                            `rehome device revoke` disables it and removes the device from its hub in one step.")]
    Disable(Change),
    /// Remove an individual enrollment; the registration made by it stays
    Delete(Change),
}

#[derive(Debug, PartialEq, Args)]
pub struct Create {
    /// The registration id: 1 to 128 letters, digits and -._:
    pub id: RegistrationId,
    #[command(flatten)]
    pub certificates: CertificateFlags,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// The name under which hubs know the device [default: the registration id]
    #[arg(long, value_name = "ID")]
    pub device_id: Option<DeviceId>,
    /// Create it disabled
    #[arg(long)]
    pub disabled: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct Update {
    pub id: RegistrationId,
    #[command(flatten)]
    pub certificates: CertificateChanges,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// The name under which hubs know the device, from its next registration on
    #[arg(long, value_name = "ID")]
    pub device_id: Option<DeviceId>,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Change {
    pub id: RegistrationId,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

impl Create {
    fn enrollment(&self) -> anyhow::Result<admin::Enrollment> {
        Ok(admin::Enrollment {
            registration_id: self.id.to_string(),
            x509: Some(self.certificates.read()?),
            device_id: self.device_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            settings: Some(self.settings.create(!self.disabled)?),
            ..Default::default()
        })
    }
}

impl Update {
    fn apply(&self, enrollment: &mut admin::Enrollment) -> anyhow::Result<()> {
        if self.certificates.is_empty() && self.settings.is_empty() && self.device_id.is_none() {
            let hint = "see `rehome enroll update --help` for what can be";
            return Err(Advised::usage("there is nothing to change", hint).into());
        }
        self.certificates.apply(&mut enrollment.x509)?;
        self.settings.apply(enrollment.settings.get_or_insert_default())?;
        if let Some(device_id) = &self.device_id {
            enrollment.device_id = device_id.to_string();
        }
        if let Some(etag) = &self.etag {
            enrollment.etag.clone_from(etag);
        }
        Ok(())
    }
}

impl EnrollCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        let enrollment = match self {
            EnrollCommand::List(Limit { limit }) => {
                let api = context.operator().await?;
                let (rows, more) = pages(limit, async |page_size, page_token| {
                    let request = admin::ListEnrollmentsRequest { page_size, page_token };
                    let page = api.list_enrollments(request).await?;
                    Ok((page.enrollments, page.next_page_token))
                })
                .await?;
                let rows: Vec<EnrollmentView> = rows.into_iter().map(EnrollmentView::from).collect();
                return Ok(output.list(&rows, more)?);
            }
            EnrollCommand::Delete(Change { id, etag }) => {
                let (registration_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::DeleteEnrollmentRequest { registration_id, etag };
                context.operator().await?.delete_enrollment(request).await?;
                return Ok(output.done(&format!("the enrollment {id} is deleted; a registration made by it stays"))?);
            }
            EnrollCommand::Create(create) => {
                // The files are read first: a mistake in them needs no service.
                let enrollment = Some(create.enrollment()?);
                let request = admin::CreateEnrollmentRequest { enrollment };
                context.operator().await?.create_enrollment(request).await?.enrollment
            }
            EnrollCommand::Show { id } => Some(read(&context.operator().await?, &id).await?),
            EnrollCommand::Update(update) => {
                let api = context.operator().await?;
                let mut enrollment = read(&api, &update.id).await?;
                update.apply(&mut enrollment)?;
                let request = admin::UpdateEnrollmentRequest { enrollment: Some(enrollment) };
                api.update_enrollment(request).await?.enrollment
            }
            EnrollCommand::Enable(Change { id, etag }) => {
                let (registration_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::EnableEnrollmentRequest { registration_id, etag };
                context.operator().await?.enable_enrollment(request).await?.enrollment
            }
            EnrollCommand::Disable(Change { id, etag }) => {
                let (registration_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::DisableEnrollmentRequest { registration_id, etag };
                context.operator().await?.disable_enrollment(request).await?.enrollment
            }
        };
        Ok(output.item(&EnrollmentView::from(enrollment.unwrap_or_default()))?)
    }
}

async fn read(api: &Api, id: &RegistrationId) -> anyhow::Result<admin::Enrollment> {
    let request = admin::GetEnrollmentRequest { registration_id: id.to_string() };
    Ok(api.get_enrollment(request).await?.enrollment.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn id() -> RegistrationId {
        RegistrationId::parse("dev-1").unwrap()
    }

    #[test]
    fn a_new_enrollment_is_enabled_and_migrates() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("dev-1.der");
        fs::write(&certificate, [0x30, 0x82, 0, 0]).unwrap();
        let create = Create {
            id: id(),
            certificates: CertificateFlags { certificate, secondary: None },
            settings: SettingsFlags::default(),
            device_id: None,
            disabled: false,
        };
        let enrollment = create.enrollment().unwrap();
        let settings = enrollment.settings.unwrap();
        assert_eq!((enrollment.registration_id.as_str(), enrollment.etag.as_str()), ("dev-1", ""));
        assert_eq!((settings.enabled, settings.reprovision_policy()), (Some(true), admin::ReprovisionPolicy::Migrate));
        assert_eq!(enrollment.x509.unwrap().primary.unwrap().der, [0x30, 0x82, 0, 0]);
        let disabled = Create { disabled: true, ..create }.enrollment().unwrap();
        assert_eq!(disabled.settings.unwrap().enabled, Some(false));
    }

    #[test]
    fn an_update_writes_the_version_it_read_unless_told_which() {
        let stored =
            admin::Enrollment { registration_id: "dev-1".to_owned(), etag: "v3".to_owned(), ..Default::default() };
        let update = |etag: Option<&str>, device_id: Option<&str>| Update {
            id: id(),
            certificates: CertificateChanges::default(),
            settings: SettingsFlags::default(),
            device_id: device_id.map(|id| DeviceId::parse(id).unwrap()),
            etag: etag.map(str::to_owned),
        };
        let mut read = stored.clone();
        update(None, Some("pump")).apply(&mut read).unwrap();
        assert_eq!((read.etag.as_str(), read.device_id.as_str()), ("v3", "pump"));
        let mut forced = stored.clone();
        update(Some("v1"), Some("pump")).apply(&mut forced).unwrap();
        assert_eq!(forced.etag, "v1");
        assert!(update(Some("v1"), None).apply(&mut stored.clone()).is_err());
    }
}
