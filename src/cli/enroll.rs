//! `rehome enroll`: individual enrollments.

use clap::Subcommand;

use crate::client::EnrollmentKind;
use crate::domain::{DeviceId, EnrollmentId, RegistrationId};

use super::context::{Context, Limit};
use super::enrollment::{self, Changes, Exactly, New};
use super::import;
use super::keys;

const CREATE_HELP: &str = "Examples:
  rehome enroll create dev-1 --certificate dev-1.pem
  rehome enroll create dev-1 --certificate dev-1.pem --reprovision reset --hub hub-a
  rehome enroll create dev-1 --certificate old.pem --secondary new.pem --initial-twin twin.json
  rehome enroll create pump-1 --endorsement-key pump-1.ek
  rehome enroll create lamp-1 --symmetric-key

The certificate's common name must be the registration id; a TPM may have any. Writing an enrollment moves no device:
it counts from the device's next registration on.";

const DISABLE_HELP: &str = "A disabled individual enrollment also keeps its device out of an enabled group.
`rehome device revoke` disables it and removes the device from its hub in one step.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum EnrollCommand {
    /// Let one device register
    #[command(after_help = CREATE_HELP)]
    Create {
        /// The registration id: 1 to 128 letters, digits and -._:
        id: RegistrationId,
        #[command(flatten)]
        new: New,
        /// The name under which hubs know the device [default: the registration id]
        #[arg(long, value_name = "ID")]
        device_id: Option<DeviceId>,
    },
    /// Create many individual enrollments from a file
    #[command(after_help = import::IMPORT_HELP)]
    Import(Box<import::Import>),
    /// Print every individual enrollment as a line that `import` reads
    Export {
        /// With the symmetric keys, in the clear; without it enrollments that have some are left out
        #[arg(long)]
        with_keys: bool,
    },
    /// List the individual enrollments
    List(Limit),
    /// Show one individual enrollment
    Show { id: RegistrationId },
    /// Change an individual enrollment; what is not named stays
    #[command(after_help = "Example:\n  rehome enroll update dev-1 --reprovision never --no-secondary")]
    Update {
        id: RegistrationId,
        #[command(flatten)]
        changes: Changes,
        /// The name under which hubs know the device, from its next registration on
        #[arg(long, value_name = "ID")]
        device_id: Option<DeviceId>,
    },
    /// Show the symmetric keys of an individual enrollment; needs the role operator, and stands in the audit log
    Keys { id: RegistrationId },
    /// Let the device register again
    Enable {
        id: RegistrationId,
        #[command(flatten)]
        exactly: Exactly,
    },
    /// Stop registrations of the device; it stays at its hub
    #[command(after_help = DISABLE_HELP)]
    Disable {
        id: RegistrationId,
        #[command(flatten)]
        exactly: Exactly,
    },
    /// Remove an individual enrollment; the registration made by it stays
    Delete {
        id: RegistrationId,
        #[command(flatten)]
        exactly: Exactly,
    },
}

impl EnrollCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        use EnrollmentId::Individual;
        match self {
            EnrollCommand::Create { id, new, device_id } => {
                enrollment::create(new.draft(Individual(id), device_id)?, context).await
            }
            EnrollCommand::Import(import) => import.run(context).await,
            EnrollCommand::Export { with_keys } => import::export(with_keys, context).await,
            EnrollCommand::List(limit) => enrollment::list(EnrollmentKind::Individual, limit, context).await,
            EnrollCommand::Keys { id } => keys::show(Individual(id), context).await,
            EnrollCommand::Show { id } => enrollment::show(Individual(id), context).await,
            EnrollCommand::Update { id, changes, device_id } => {
                enrollment::update(Individual(id), &changes, device_id, context).await
            }
            EnrollCommand::Enable { id, exactly } => enrollment::enable(Individual(id), exactly, context).await,
            EnrollCommand::Disable { id, exactly } => enrollment::disable(Individual(id), exactly, context).await,
            EnrollCommand::Delete { id, exactly } => enrollment::delete(Individual(id), exactly, context).await,
        }
    }
}
