//! `rehome audit`: what was changed and what was refused.

use clap::{Args, Subcommand};

use crate::domain::{RegistrationId, TrackingId};

use super::api::admin;
use super::context::{Context, pages};
use super::view::audit::AuditView;

#[derive(Debug, PartialEq, Subcommand)]
pub enum AuditCommand {
    /// List entries, newest first
    #[command(
        after_help = "Examples:\n  rehome audit list --action registration_refused\n  rehome audit list --registration dev-1 --limit 20"
    )]
    List(Filters),
    /// Show why an unproven caller was refused, by the tracking id it was given
    Show { tracking_id: TrackingId },
}

#[derive(Debug, PartialEq, Args)]
pub struct Filters {
    /// Only this action, as in registration_refused, enrollment_created, hub_linked
    #[arg(long, default_value = "", hide_default_value = true)]
    pub action: String,
    /// Only entries about this device
    #[arg(long, value_name = "ID")]
    pub registration: Option<RegistrationId>,
    /// Show at most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

impl Filters {
    fn request(&self, page_size: u32, page_token: String) -> admin::ListAuditEntriesRequest {
        admin::ListAuditEntriesRequest {
            page_size,
            page_token,
            action: self.action.clone(),
            registration_id: self.registration.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl AuditCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let api = context.operator().await?;
        match self {
            AuditCommand::List(filters) => {
                let (rows, more) = pages(Some(filters.limit), async |size, token| {
                    let page = api.list_audit_entries(filters.request(size, token)).await?;
                    Ok((page.entries, page.next_page_token))
                })
                .await?;
                let rows: Vec<AuditView> = rows.into_iter().map(AuditView::from).collect();
                context.output.list(&rows, more)?;
            }
            AuditCommand::Show { tracking_id } => {
                let request = admin::GetAuditEntryRequest { tracking_id: tracking_id.to_string() };
                let entry = api.get_audit_entry(request).await?.entry.unwrap_or_default();
                context.output.item(&AuditView::from(entry))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_a_request() {
        let filters = Filters {
            action: "hub_linked".to_owned(),
            registration: Some(RegistrationId::parse("dev-1").unwrap()),
            limit: 5,
        };
        let request = filters.request(5, "t".to_owned());
        assert_eq!((request.action.as_str(), request.registration_id.as_str()), ("hub_linked", "dev-1"));
        assert_eq!((request.page_size, request.page_token.as_str()), (5, "t"));
    }
}
