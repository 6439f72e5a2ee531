//! `rehome device`: where devices live and why, moving them, and keeping them out.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};

use crate::ambient::Clock as _;
use crate::client::Api;
use crate::domain::{GroupId, HubId, RegistrationId};

use super::advice::Advised;
use super::api::{admin, device};
use super::context::{Context, Limit, pages};
use super::input::{self, Moment};
use super::value;
use super::view::registration::{ExplainView, HistoryTwinView, HistoryView, RegistrationView};

/// How often a watched move is looked at: a move takes some hundred milliseconds when both hubs answer.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, PartialEq, Subcommand)]
pub enum DeviceCommand {
    /// List devices, as far as they pass every filter
    #[command(
        after_help = "Example:\n  rehome device list --hub hub-a --status assigned --json | jq -r '.[].registration_id'"
    )]
    List(Filters),
    /// Show one device: where it lives, what is under way, and what is owed to hubs
    Show { id: RegistrationId },
    /// Show the device's past moves, newest first; or the twins that one of them kept
    #[command(after_help = "Example:\n  rehome device history dev-1 --generation 42")]
    History(History),
    /// Say where the device would go now, and why, without moving it
    Explain { id: RegistrationId },
    /// Decide now, without waiting for the device, and move it
    #[command(after_help = "Examples:\n  \
        rehome device reprovision dev-1                                    where policy and allocation say\n  \
        rehome device reprovision dev-1 --to quarantine --reason 'floods'  there, and pinned\n  \
        rehome device reprovision dev-1 --to hub-b --expires 7d --wait\n\n\
        With --to the device is pinned, so that its next registration does not send it back; `rehome device unpin` lifts it.")]
    Reprovision(Reprovision),
    /// Lift a device's pin; it stays until it registers again or is reprovisioned
    Unpin {
        id: RegistrationId,
        /// Change exactly this version, or nothing
        #[arg(long)]
        etag: Option<String>,
    },
    /// Keep a device out: disable its individual enrollment and remove it from its hub
    Revoke {
        id: RegistrationId,
        /// Why; kept in the audit log
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Remove a registration and the device's identity at its hub; its history stays
    #[command(after_help = "The enrollment stays: while it is enabled the device may register again.\n\
                            To keep it out, use `rehome device revoke`.")]
    Delete(Delete),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Status {
    Assigning,
    Assigned,
    Failed,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    Migrate,
    Reset,
    Never,
    /// A device from before native reprovisioning, and no policy stored
    Sticky,
}

#[derive(Debug, Default, PartialEq, Args)]
pub struct Filters {
    /// Only devices that live at this hub
    #[arg(long)]
    pub hub: Option<HubId>,
    /// Only devices of this enrollment group
    #[arg(long)]
    pub group: Option<GroupId>,
    /// Only devices with this status
    #[arg(long, value_enum)]
    pub status: Option<Status>,
    /// Only devices to which this policy applied last
    #[arg(long, value_enum)]
    pub policy: Option<Policy>,
    /// Only devices with a pin; with =false only those without
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub pinned: Option<bool>,
    #[command(flatten)]
    pub limit: Limit,
}

#[derive(Debug, PartialEq, Args)]
pub struct History {
    pub id: RegistrationId,
    /// Show the device states that this move kept
    #[arg(long, value_name = "NUMBER")]
    pub generation: Option<u64>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Reprovision {
    pub id: RegistrationId,
    /// Move it there and pin it there
    #[arg(long, value_name = "HUB")]
    pub to: Option<HubId>,
    /// When the pin ends: a span from now, as in 7d, or a time, as in 2030-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "WHEN", requires = "to")]
    pub expires: Option<Moment>,
    /// Why, at most 128 characters; kept with the pin and in the history
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Your own id of this request: repeating it gets the same operation again
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
    /// Wait until the move has ended
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct Delete {
    pub id: RegistrationId,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Remove exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

impl Filters {
    fn request(&self, page_size: u32, page_token: String) -> admin::ListRegistrationsRequest {
        let mut request = admin::ListRegistrationsRequest {
            page_size,
            page_token,
            hub_id: self.hub.as_ref().map(ToString::to_string).unwrap_or_default(),
            group_id: self.group.as_ref().map(ToString::to_string).unwrap_or_default(),
            pinned: self.pinned,
            ..Default::default()
        };
        if let Some(status) = self.status {
            request.set_status(match status {
                Status::Assigning => device::RegistrationStatus::Assigning,
                Status::Assigned => device::RegistrationStatus::Assigned,
                Status::Failed => device::RegistrationStatus::Failed,
                Status::Disabled => device::RegistrationStatus::Disabled,
            });
        }
        if let Some(policy) = self.policy {
            request.set_policy(match policy {
                Policy::Migrate => admin::AppliedPolicy::Migrate,
                Policy::Reset => admin::AppliedPolicy::Reset,
                Policy::Never => admin::AppliedPolicy::Never,
                Policy::Sticky => admin::AppliedPolicy::Sticky,
            });
        }
        request
    }
}

impl DeviceCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let api = context.operator().await?;
        let output = context.output;
        match self {
            DeviceCommand::List(filters) => {
                let (rows, more) = pages(filters.limit.limit, async |size, token| {
                    let page = api.list_registrations(filters.request(size, token)).await?;
                    Ok((page.registrations, page.next_page_token))
                })
                .await?;
                let rows: Vec<RegistrationView> = rows.into_iter().map(RegistrationView::from).collect();
                output.list(&rows, more)?;
            }
            DeviceCommand::Show { id } => output.item(&RegistrationView::from(read(&api, &id).await?))?,
            DeviceCommand::History(history) => history.run(&api, context).await?,
            DeviceCommand::Explain { id } => {
                let explained = api.explain(admin::ExplainRequest { registration_id: id.to_string() }).await?;
                output.item(&ExplainView::from(explained))?;
            }
            DeviceCommand::Reprovision(reprovision) => reprovision.run(&api, context).await?,
            DeviceCommand::Unpin { id, etag } => {
                let (registration_id, etag) = (id.to_string(), etag.unwrap_or_default());
                let answer = api.unpin(admin::UnpinRequest { registration_id, etag }).await?;
                output.item(&RegistrationView::from(answer.registration.unwrap_or_default()))?;
            }
            DeviceCommand::Revoke { id, reason } => {
                let answer = api.revoke(admin::RevokeRequest { registration_id: id.to_string(), reason }).await?;
                output.done(&format!("{id} is kept out: its individual enrollment is disabled"))?;
                if let Some(registration) = answer.registration {
                    output.note("its identity is still being removed from its hub:")?;
                    output.item(&RegistrationView::from(registration))?;
                }
            }
            DeviceCommand::Delete(delete) => delete.run(&api, context).await?,
        }
        Ok(())
    }
}

impl History {
    async fn run(self, api: &Api, context: &Context) -> anyhow::Result<()> {
        let registration_id = self.id.to_string();
        match self.generation {
            None => {
                let past = api.list_history(admin::ListHistoryRequest { registration_id }).await?.entries;
                let rows: Vec<HistoryView> = past.into_iter().map(HistoryView::from).collect();
                context.output.list(&rows, false)?;
            }
            Some(generation) => {
                let request = admin::GetHistoryTwinsRequest { registration_id, generation };
                let twins = api.get_history_twins(request).await?.twins;
                let rows: Vec<HistoryTwinView> = twins.into_iter().map(HistoryTwinView::from).collect();
                context.output.list(&rows, false)?;
            }
        }
        Ok(())
    }
}

impl Reprovision {
    async fn run(self, api: &Api, context: &Context) -> anyhow::Result<()> {
        let expires = self.expires.map(|moment| value::wire_time(moment.after(context.clock.now())));
        let request = admin::ReprovisionRequest {
            registration_id: self.id.to_string(),
            to_hub_id: self.to.as_ref().map(ToString::to_string).unwrap_or_default(),
            pin_expires_at: expires,
            reason: self.reason,
            request_id: self.request_id,
        };
        let mut registration = api.reprovision(request).await?.registration.unwrap_or_default();
        if self.wait {
            registration = ended(api, context, &self.id, registration).await?;
        }
        let failure = registration.operation.as_ref().filter(|_| {
            matches!(registration.status(), device::RegistrationStatus::Failed | device::RegistrationStatus::Disabled)
        });
        let failure = failure.map(|operation| format!("{} ({})", operation.message, operation.reason));
        context.output.item(&RegistrationView::from(registration))?;
        match failure {
            Some(why) => bail!("{} was not reprovisioned: {why}", self.id),
            None => Ok(()),
        }
    }
}

/// Looks at a move until it has ended, saying how far it is.
async fn ended(
    api: &Api,
    context: &Context,
    id: &RegistrationId,
    mut registration: admin::Registration,
) -> anyhow::Result<admin::Registration> {
    let mut progress = context.output.progress();
    while registration.status() == device::RegistrationStatus::Assigning {
        let view = RegistrationView::from(registration);
        progress.update(&view.running.map_or_else(|| format!("{id}: assigning"), |running| running.line()));
        context.clock.sleep(LOOK_EVERY).await;
        registration = read(api, id).await?;
    }
    Ok(registration)
}

impl Delete {
    async fn run(self, api: &Api, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        let registration = read(api, &self.id).await?;
        let consequence = consequence(&registration);
        if !self.yes {
            if output.json || !input::is_terminal() {
                return Err(Advised::usage(consequence, "add --yes to do it").into());
            }
            output.note(&consequence)?;
            output.ask("Delete it?")?;
            if !input::confirmed()? {
                return Ok(output.note("nothing was deleted")?);
            }
        }
        let (registration_id, etag) = (self.id.to_string(), self.etag.unwrap_or_default());
        let answer = api.delete_registration(admin::DeleteRegistrationRequest { registration_id, etag }).await?;
        match answer.registration {
            None => output.done(&format!("{} is deleted", self.id))?,
            Some(registration) => {
                output.note(&format!("{} is being deleted; its hub has not answered yet:", self.id))?;
                output.item(&RegistrationView::from(registration))?;
            }
        }
        Ok(())
    }
}

/// What deleting a registration also removes, said before it is done.
fn consequence(registration: &admin::Registration) -> String {
    let id = &registration.registration_id;
    match &registration.assignment {
        Some(home) => format!(
            "deleting the registration {id} also removes the device {} from {}, with its twin; the enrollment and the history stay",
            registration.device_id, home.hub_id
        ),
        None => {
            format!("deleting the registration {id} removes nothing from a hub; the enrollment and the history stay")
        }
    }
}

async fn read(api: &Api, id: &RegistrationId) -> anyhow::Result<admin::Registration> {
    let request = admin::GetRegistrationRequest { registration_id: id.to_string() };
    Ok(api.get_registration(request).await?.registration.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_a_request() {
        let none = Filters::default().request(7, "t".to_owned());
        assert_eq!(
            none,
            admin::ListRegistrationsRequest { page_size: 7, page_token: "t".to_owned(), ..Default::default() }
        );
        let all = Filters {
            hub: Some(HubId::parse("hub-a").unwrap()),
            group: Some(GroupId::parse("plant").unwrap()),
            status: Some(Status::Failed),
            policy: Some(Policy::Sticky),
            pinned: Some(false),
            limit: Limit::default(),
        };
        let request = all.request(1, String::new());
        assert_eq!((request.hub_id.as_str(), request.group_id.as_str()), ("hub-a", "plant"));
        assert_eq!(request.status(), device::RegistrationStatus::Failed);
        assert_eq!((request.policy(), request.pinned), (admin::AppliedPolicy::Sticky, Some(false)));
    }

    #[test]
    fn deleting_says_what_goes_with_it() {
        let mut registration = admin::Registration {
            registration_id: "dev-1".to_owned(),
            device_id: "pump".to_owned(),
            ..Default::default()
        };
        assert!(consequence(&registration).contains("nothing from a hub"));
        registration.assignment = Some(admin::Assignment { hub_id: "hub-a".to_owned(), ..Default::default() });
        assert!(consequence(&registration).contains("removes the device pump from hub-a, with its twin"));
    }
}
