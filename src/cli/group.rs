//! `rehome group`: enrollment groups.

use clap::Subcommand;

use crate::client::EnrollmentKind;
use crate::domain::{EnrollmentId, GroupId};

use super::context::{Context, Limit};
use super::enrollment::{self, Changes, Exactly, New};
use super::keys;

const CREATE_HELP: &str = "Examples:
  rehome group create plant --certificate certs/device-ca.pem
  rehome group create plant --certificate ca.pem --allocation lowest-latency --hub hub-a --hub hub-b
  rehome group create lamps --symmetric-key

The certificate is an authority's: every device whose certificate comes from it may register, under
its common name. With --symmetric-key every device may register that has a key made of the group's (see
`rehome derive-key`). An individual enrollment of a device goes before its group. Writing a group moves
no device: it counts from each device's next registration on.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum GroupCommand {
    /// Let every device register whose certificate comes from an authority
    #[command(after_help = CREATE_HELP)]
    Create {
        /// The group id: 1 to 128 letters, digits and -._:
        id: GroupId,
        #[command(flatten)]
        new: New,
    },
    /// List the groups
    List(Limit),
    /// Show one group
    Show { id: GroupId },
    /// Change a group; what is not named stays
    #[command(after_help = "Example:\n  rehome group update plant --reprovision never --no-secondary")]
    Update {
        id: GroupId,
        #[command(flatten)]
        changes: Changes,
    },
    /// Show the symmetric keys of a group; needs the role operator, and stands in the audit log
    Keys { id: GroupId },
    /// Let its devices register again
    Enable {
        id: GroupId,
        #[command(flatten)]
        exactly: Exactly,
    },
    /// Stop registrations of its devices; they stay at their hubs
    Disable {
        id: GroupId,
        #[command(flatten)]
        exactly: Exactly,
    },
    /// Remove a group; registrations made by it stay
    Delete {
        id: GroupId,
        #[command(flatten)]
        exactly: Exactly,
    },
}

impl GroupCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        use EnrollmentId::Group;
        match self {
            GroupCommand::Create { id, new } => enrollment::create(new.draft(Group(id), None)?, context).await,
            GroupCommand::List(limit) => enrollment::list(EnrollmentKind::Group, limit, context).await,
            GroupCommand::Keys { id } => keys::show(Group(id), context).await,
            GroupCommand::Show { id } => enrollment::show(Group(id), context).await,
            GroupCommand::Update { id, changes } => enrollment::update(Group(id), &changes, None, context).await,
            GroupCommand::Enable { id, exactly } => enrollment::enable(Group(id), exactly, context).await,
            GroupCommand::Disable { id, exactly } => enrollment::disable(Group(id), exactly, context).await,
            GroupCommand::Delete { id, exactly } => enrollment::delete(Group(id), exactly, context).await,
        }
    }
}
