//! `rehome device`: where devices live and why, moving them, and keeping them out.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};

use crate::ambient::Clock as _;
use crate::client::{
    Operator, RegistrationChoice, RegistrationRecord, ReprovisionCall, Resolution, ResolveCall, StatusQuery, UndoCall,
    UpdateStatus,
};
use crate::domain::{GroupId, HubId, Order, RegistrationId, ReprovisionPolicy, RequestId, Timestamp};

use super::advice::Advised;
use super::context::{Context, Limit, pages};
use super::enrollment::Exactly;
use super::input::{self, Moment};
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
    #[command(after_help = "Example:\n  rehome device history dev-1 --state 42")]
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
    /// Take the last move back: the device returns to the hub before, and is pinned there
    #[command(after_help = "Examples:\n  \
        rehome device undo dev-1 --reason 'the new back end fails'  with the twin it has now\n  \
        rehome device undo dev-1 --restore-twin --wait              with the twin from before the move\n\n\
        With --restore-twin the current twin goes to the history: `rehome device history dev-1 --state MOVE` shows it.")]
    Undo(Undo),
    /// Resolve what a move waits for: retry it, abandon it, or force the device's home open
    #[command(after_help = "Examples:\n  \
        rehome device show dev-1                                                says what is owed, to whom, and by which move\n  \
        rehome device resolve dev-1 --move 42 retry --reason 'the hub is mended'\n  \
        rehome device resolve dev-1 --move 42 --effect delete --hub hub-a abandon --reason 'hub-a is gone'\n\n\
        retry    orders anew what a hub refused, and tries at once what waits for its next try\n\
        abandon  drops clean-up: what the hub holds of the device stays there; gives a move up that has not arrived yet\n\
        force    opens a home that its hub refused to open, or makes it there anew from the journal\n\n\
        Each is written to the audit log.")]
    Resolve(Resolve),
    /// Remove what a hub accepted after its device had left from the history; nothing else removes it
    ForgetLateTwin {
        id: RegistrationId,
        /// The move that left it behind, as `rehome device history` names it
        #[arg(long = "move", value_name = "MOVE")]
        generation: u64,
    },
    /// Lift a device's pin; it stays until it registers again or is reprovisioned
    Unpin {
        id: RegistrationId,
        #[command(flatten)]
        exactly: Exactly,
    },
    /// Forget which storage root key a TPM was first seen with: its next registration sets a new one
    #[command(after_help = "For the rule pin-first, after the owner of the device cleared its TPM.")]
    ResetStorageRootKey {
        id: RegistrationId,
        #[command(flatten)]
        exactly: Exactly,
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
    #[arg(long, alias = "generation", value_name = "MOVE")]
    pub state: Option<u64>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Undo {
    pub id: RegistrationId,
    /// The move to take back; it must be the one that gave the device its home [default: that one]
    #[arg(long = "move", value_name = "MOVE")]
    pub generation: Option<u64>,
    /// Put back the twin from before the move; the current one goes to the history
    #[arg(long)]
    pub restore_twin: bool,
    /// When the pin ends: a span from now, as in 7d, or a time, as in 2030-01-31T12:00:00Z [default: never]
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<Moment>,
    /// Why, at most 128 characters; kept with the pin
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Your own id of this request: repeating it gets the same operation again
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    pub request_id: Option<RequestId>,
    /// Wait until the move has ended
    #[arg(long)]
    pub wait: bool,
}

/// What is done about what a move waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Order it anew, or try it at once
    Retry,
    /// Drop it
    Abandon,
    /// Open the device's home, or make it anew
    Force,
}

#[derive(Debug, PartialEq, Args)]
pub struct Resolve {
    pub id: RegistrationId,
    /// The move, as `rehome device show` names it
    #[arg(long = "move", value_name = "MOVE")]
    pub generation: u64,
    /// What is owed, as `rehome device show` names it, where the move owes more than one thing
    #[arg(long, value_name = "WHAT")]
    pub effect: Option<String>,
    /// The hub it is owed to
    #[arg(long)]
    pub hub: Option<HubId>,
    #[arg(value_enum)]
    pub way: Way,
    /// Why, 1 to 128 characters; kept with the move and in the audit log
    #[arg(long)]
    pub reason: String,
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
    #[arg(long, value_name = "ID", value_parser = RequestId::parse)]
    pub request_id: Option<RequestId>,
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
    #[command(flatten)]
    pub exactly: Exactly,
}

impl Filters {
    fn choice(&self) -> RegistrationChoice {
        RegistrationChoice {
            hub: self.hub.clone(),
            group: self.group.clone(),
            status: self.status.map(|status| match status {
                Status::Assigning => StatusQuery::Assigning,
                Status::Assigned => StatusQuery::Assigned,
                Status::Failed => StatusQuery::Failed,
                Status::Disabled => StatusQuery::Disabled,
            }),
            policy: self.policy.map(|policy| match policy {
                Policy::Migrate => Some(ReprovisionPolicy::Migrate),
                Policy::Reset => Some(ReprovisionPolicy::Reset),
                Policy::Never => Some(ReprovisionPolicy::Never),
                Policy::Sticky => None,
            }),
            pinned: self.pinned,
        }
    }
}

impl DeviceCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let operator = context.operator().await?;
        let output = context.output;
        match self {
            DeviceCommand::List(filters) => {
                let choice = filters.choice();
                let fetch = async |page| operator.list_registrations(&choice, page).await;
                let (rows, more) = pages(filters.limit.limit, fetch).await?;
                let rows: Vec<RegistrationView> = rows.into_iter().map(RegistrationView::from).collect();
                output.list(&rows, more)?;
            }
            DeviceCommand::Show { id } => output.item(&RegistrationView::from(operator.registration(&id).await?))?,
            DeviceCommand::History(History { id, state: None }) => {
                let past = operator.history(&id).await?;
                let rows: Vec<HistoryView> = past.into_iter().map(HistoryView::from).collect();
                output.list(&rows, false)?;
            }
            DeviceCommand::History(History { id, state: Some(generation) }) => {
                let twins = operator.history_twins(&id, Order(generation)).await?;
                let rows: Vec<HistoryTwinView> = twins.into_iter().map(HistoryTwinView::from).collect();
                output.list(&rows, false)?;
            }
            DeviceCommand::Explain { id } => output.item(&ExplainView::from(operator.explain(&id).await?))?,
            DeviceCommand::Reprovision(reprovision) => reprovision.run(&operator, context).await?,
            DeviceCommand::Undo(undo) => undo.run(&operator, context).await?,
            DeviceCommand::Resolve(resolve) => {
                output.item(&RegistrationView::from(operator.resolve(&resolve.call()).await?))?;
            }
            DeviceCommand::ForgetLateTwin { id, generation } => {
                operator.forget_late_twin(&id, Order(generation)).await?;
                output.done(&format!("the late twin of move {generation} of {id} is removed from the history"))?;
            }
            DeviceCommand::Unpin { id, exactly } => {
                output.item(&RegistrationView::from(operator.unpin(&id, exactly.etag).await?))?;
            }
            DeviceCommand::ResetStorageRootKey { id, exactly } => {
                let registration = operator.reset_storage_root_key(&id, exactly.etag).await?;
                output.item(&RegistrationView::from(registration))?;
            }
            DeviceCommand::Revoke { id, reason } => {
                let revoked = operator.revoke(&id, &reason).await?;
                output.done(&format!("{id} is kept out: its enrollment ({}) is disabled", revoked.enrollment))?;
                left(revoked.registration, "its identity is still being removed from its hub:", context)?;
            }
            DeviceCommand::Delete(delete) => delete.run(&operator, context).await?,
        }
        Ok(())
    }
}

/// Shows what is left of a registration, if something is.
fn left(registration: Option<RegistrationRecord>, why: &str, context: &Context) -> anyhow::Result<()> {
    if let Some(registration) = registration {
        context.output.note(why)?;
        context.output.item(&RegistrationView::from(registration))?;
    }
    Ok(())
}

impl Reprovision {
    fn call(&self, now: Timestamp) -> ReprovisionCall {
        ReprovisionCall {
            registration: self.id.clone(),
            to: self.to.clone(),
            pin_expires_at: self.expires.map(|moment| moment.after(now)),
            reason: self.reason.clone(),
            request_id: self.request_id.clone(),
        }
    }

    async fn run(self, operator: &Operator, context: &Context) -> anyhow::Result<()> {
        let registration = operator.reprovision(&self.call(context.clock.now())).await?;
        shown(operator, context, registration, self.wait, "reprovisioned").await
    }
}

impl Undo {
    fn call(&self, now: Timestamp) -> UndoCall {
        UndoCall {
            registration: self.id.clone(),
            generation: self.generation.map(Order),
            restore_twin: self.restore_twin,
            reason: self.reason.clone(),
            pin_expires_at: self.expires.map(|moment| moment.after(now)),
            request_id: self.request_id.clone(),
        }
    }

    async fn run(self, operator: &Operator, context: &Context) -> anyhow::Result<()> {
        let registration = operator.undo(&self.call(context.clock.now())).await?;
        shown(operator, context, registration, self.wait, "moved back").await
    }
}

impl Resolve {
    fn call(self) -> ResolveCall {
        ResolveCall {
            registration: self.id,
            generation: Order(self.generation),
            what: self.effect,
            hub: self.hub,
            resolution: match self.way {
                Way::Retry => Resolution::Retry,
                Way::Abandon => Resolution::Abandon,
                Way::Force => Resolution::Force,
            },
            reason: self.reason,
        }
    }
}

/// Shows a move that was started, when it has ended if that is waited for.
async fn shown(
    operator: &Operator,
    context: &Context,
    mut registration: RegistrationRecord,
    wait: bool,
    what: &str,
) -> anyhow::Result<()> {
    if wait {
        registration = ended(operator, context, registration).await?;
    }
    let (id, status) = (registration.id.clone(), registration.operation.status.clone());
    context.output.item(&RegistrationView::from(registration))?;
    match status {
        UpdateStatus::Assigning | UpdateStatus::Assigned { .. } => Ok(()),
        UpdateStatus::Failed { reason, message } => bail!("{id} was not {what}: {message} ({reason})"),
        UpdateStatus::Disabled => bail!("{id} was not {what}: its enrollment is disabled"),
    }
}

/// Looks at a move until it has ended, saying how far it is.
async fn ended(
    operator: &Operator,
    context: &Context,
    mut registration: RegistrationRecord,
) -> anyhow::Result<RegistrationRecord> {
    let mut progress = context.output.progress();
    while !registration.operation.status.is_final() {
        let id = registration.id.clone();
        let view = RegistrationView::from(registration);
        progress.update(&view.running.map_or_else(|| format!("{id}: assigning"), |running| running.line()));
        context.clock.sleep(LOOK_EVERY).await;
        registration = operator.registration(&id).await?;
    }
    Ok(registration)
}

impl Delete {
    async fn run(self, operator: &Operator, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        let consequence = consequence(&operator.registration(&self.id).await?);
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
        match operator.delete_registration(&self.id, self.exactly.etag).await? {
            None => Ok(output.done(&format!("{} is deleted", self.id))?),
            leaving => left(leaving, "it is being deleted; its hub has not answered yet:", context),
        }
    }
}

/// What deleting a registration also removes, said before it is done.
fn consequence(registration: &RegistrationRecord) -> String {
    let (id, device) = (&registration.id, &registration.device_id);
    match &registration.assignment {
        Some(home) => format!(
            "deleting the registration {id} also removes the device {device} from {}, with its twin; the enrollment and \
             the history stay",
            home.hub
        ),
        None => {
            format!("deleting the registration {id} removes nothing from a hub; the enrollment and the history stay")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::registration::samples;
    use crate::domain::Assignment;

    #[test]
    fn filters_become_a_choice() {
        assert_eq!(Filters::default().choice(), RegistrationChoice::default());
        let (hub, group) = (HubId::parse("hub-a").unwrap(), GroupId::parse("plant").unwrap());
        let all = Filters {
            hub: Some(hub.clone()),
            group: Some(group.clone()),
            status: Some(Status::Failed),
            policy: Some(Policy::Sticky),
            pinned: Some(false),
            limit: Limit::default(),
        };
        let expected = RegistrationChoice {
            hub: Some(hub),
            group: Some(group),
            status: Some(StatusQuery::Failed),
            policy: Some(None),
            pinned: Some(false),
        };
        assert_eq!(all.choice(), expected);
    }

    #[test]
    fn a_pin_expires_a_span_from_now() {
        let reprovision = Reprovision {
            id: RegistrationId::parse("dev-1").unwrap(),
            to: HubId::parse("hub-b").ok(),
            expires: Some("1s".parse().unwrap()),
            reason: "floods".to_owned(),
            request_id: None,
            wait: false,
        };
        let call = reprovision.call(Timestamp(500));
        assert_eq!((call.pin_expires_at, call.reason.as_str()), (Some(Timestamp(1_500)), "floods"));
        assert_eq!((call.to, call.request_id), (HubId::parse("hub-b").ok(), None));
    }

    #[test]
    fn deleting_says_what_goes_with_it() {
        let homeless = RegistrationRecord { assignment: None, ..samples::record() };
        assert!(consequence(&homeless).contains("nothing from a hub"));
        let hub = HubId::parse("hub-a").unwrap();
        let home = Assignment { hub, generation: Order(1), credential: None, assigned_at: Timestamp(0) };
        let housed = RegistrationRecord { assignment: Some(home), ..homeless };
        assert!(consequence(&housed).contains("removes the device dev-1 from hub-a, with its twin"));
    }
}
