//! `rehome group`: enrollment groups.

use clap::{Args, Subcommand};

use crate::client::Api;
use crate::domain::GroupId;

use super::advice::Advised;
use super::api::admin;
use super::context::{Context, Limit, pages};
use super::settings::{CertificateChanges, CertificateFlags, SettingsFlags};
use super::view::enrollment::GroupView;

const CREATE_HELP: &str = "Examples:
  rehome group create plant --certificate certs/device-ca.pem
  rehome group create plant --certificate device-ca.pem --allocation lowest-latency --hub hub-a --hub hub-b

The certificate is an authority's: every device whose certificate comes from it may register, under its common name.
An individual enrollment of a device goes before its group. Writing a group moves no device: it counts from each
device's next registration on.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum GroupCommand {
    /// Let every device register whose certificate comes from an authority
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List the groups
    List(Limit),
    /// Show one group
    Show { id: GroupId },
    /// Change a group; what is not named stays
    #[command(after_help = "Example:\n  rehome group update plant --reprovision never --no-secondary")]
    Update(Update),
    /// Let its devices register again
    Enable(Change),
    /// Stop registrations of its devices; they stay at their hubs
    Disable(Change),
    /// Remove a group; registrations made by it stay
    Delete(Change),
}

#[derive(Debug, PartialEq, Args)]
pub struct Create {
    /// The group id: 1 to 128 letters, digits and -._:
    pub id: GroupId,
    #[command(flatten)]
    pub certificates: CertificateFlags,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// Create it disabled
    #[arg(long)]
    pub disabled: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct Update {
    pub id: GroupId,
    #[command(flatten)]
    pub certificates: CertificateChanges,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Change {
    pub id: GroupId,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

impl Create {
    fn group(&self) -> anyhow::Result<admin::EnrollmentGroup> {
        Ok(admin::EnrollmentGroup {
            group_id: self.id.to_string(),
            x509: Some(self.certificates.read()?),
            settings: Some(self.settings.create(!self.disabled)?),
            ..Default::default()
        })
    }
}

impl Update {
    fn apply(&self, group: &mut admin::EnrollmentGroup) -> anyhow::Result<()> {
        if self.certificates.is_empty() && self.settings.is_empty() {
            let hint = "see `rehome group update --help` for what can be";
            return Err(Advised::usage("there is nothing to change", hint).into());
        }
        self.certificates.apply(&mut group.x509)?;
        self.settings.apply(group.settings.get_or_insert_default())?;
        if let Some(etag) = &self.etag {
            group.etag.clone_from(etag);
        }
        Ok(())
    }
}

impl GroupCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        let group = match self {
            GroupCommand::List(Limit { limit }) => {
                let api = context.operator().await?;
                let (rows, more) = pages(limit, async |page_size, page_token| {
                    let request = admin::ListEnrollmentGroupsRequest { page_size, page_token };
                    let page = api.list_enrollment_groups(request).await?;
                    Ok((page.enrollment_groups, page.next_page_token))
                })
                .await?;
                let rows: Vec<GroupView> = rows.into_iter().map(GroupView::from).collect();
                return Ok(output.list(&rows, more)?);
            }
            GroupCommand::Delete(Change { id, etag }) => {
                let (group_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::DeleteEnrollmentGroupRequest { group_id, etag };
                context.operator().await?.delete_enrollment_group(request).await?;
                return Ok(output.done(&format!("the group {id} is deleted; registrations made by it stay"))?);
            }
            GroupCommand::Create(create) => {
                // The files are read first: a mistake in them needs no service.
                let enrollment_group = Some(create.group()?);
                let request = admin::CreateEnrollmentGroupRequest { enrollment_group };
                context.operator().await?.create_enrollment_group(request).await?.enrollment_group
            }
            GroupCommand::Show { id } => Some(read(&context.operator().await?, &id).await?),
            GroupCommand::Update(update) => {
                let api = context.operator().await?;
                let mut group = read(&api, &update.id).await?;
                update.apply(&mut group)?;
                let request = admin::UpdateEnrollmentGroupRequest { enrollment_group: Some(group) };
                api.update_enrollment_group(request).await?.enrollment_group
            }
            GroupCommand::Enable(Change { id, etag }) => {
                let (group_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::EnableEnrollmentGroupRequest { group_id, etag };
                context.operator().await?.enable_enrollment_group(request).await?.enrollment_group
            }
            GroupCommand::Disable(Change { id, etag }) => {
                let (group_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let request = admin::DisableEnrollmentGroupRequest { group_id, etag };
                context.operator().await?.disable_enrollment_group(request).await?.enrollment_group
            }
        };
        Ok(output.item(&GroupView::from(group.unwrap_or_default()))?)
    }
}

async fn read(api: &Api, id: &GroupId) -> anyhow::Result<admin::EnrollmentGroup> {
    let request = admin::GetEnrollmentGroupRequest { group_id: id.to_string() };
    Ok(api.get_enrollment_group(request).await?.enrollment_group.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_writes_the_version_it_read_unless_told_which() {
        let stored =
            admin::EnrollmentGroup { group_id: "plant".to_owned(), etag: "v3".to_owned(), ..Default::default() };
        let check = |settings: SettingsFlags, etag: Option<&str>, expected: Option<&str>| {
            let update = Update {
                id: GroupId::parse("plant").unwrap(),
                certificates: CertificateChanges::default(),
                settings,
                etag: etag.map(str::to_owned),
            };
            let mut group = stored.clone();
            let found = update.apply(&mut group).ok().map(|()| group.etag);
            assert_eq!(found.as_deref(), expected);
        };
        let adopting = || SettingsFlags { adopt_existing: Some(true), ..SettingsFlags::default() };
        check(adopting(), None, Some("v3"));
        check(adopting(), Some("v1"), Some("v1"));
        check(SettingsFlags::default(), Some("v1"), None);
    }
}
