//! `rehome audit`: what was changed and what was refused.

use clap::{Args, Subcommand};

use crate::domain::{AuditAction, RegistrationId, TrackingId};

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
    #[arg(long, value_parser = action)]
    pub action: Option<AuditAction>,
    /// Only entries about this device
    #[arg(long, value_name = "ID")]
    pub registration: Option<RegistrationId>,
    /// Show at most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

fn action(text: &str) -> Result<AuditAction, String> {
    AuditAction::ALL.iter().copied().find(|action| action.as_str() == text).ok_or_else(|| {
        let words: Vec<&str> = AuditAction::ALL.iter().map(|action| action.as_str()).collect();
        format!("there is no such action; there are {}", words.join(", "))
    })
}

impl AuditCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let operator = context.operator().await?;
        match self {
            AuditCommand::List(Filters { action, registration, limit }) => {
                let fetch = async |page| operator.list_audit(action, registration.as_ref(), page).await;
                let (rows, more) = pages(Some(limit), fetch).await?;
                let rows: Vec<AuditView> = rows.into_iter().map(AuditView::from).collect();
                context.output.list(&rows, more)?;
            }
            AuditCommand::Show { tracking_id } => {
                context.output.item(&AuditView::from(operator.audit_entry(tracking_id).await?))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_the_audit_log_s_words() {
        for known in AuditAction::ALL {
            assert_eq!(action(known.as_str()), Ok(*known));
        }
        assert!(action("moved").unwrap_err().contains("hub_linked"));
    }
}
