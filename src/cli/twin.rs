//! `rehome twin`: read, change and watch twins, as a back end or as the device itself.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::client::{DesiredChange, Device, Home, Operator, TwinTarget, UpdateStatus};
use crate::domain::{DeviceId, HubId, HubStatus, RegistrationId, TwinPatch};

use super::advice::Advised;
use super::context::{Context, Limit, pages};
use super::enrollment::Exactly;
use super::input::JsonSource;
use super::view::twin::{DesiredView, DeviceView, TwinView};

const PATCH_HELP: &str = "Examples:
  rehome twin patch dev-1 --desired '{\"rate\": 5, \"old\": null}' --tags '{\"site\": \"berlin\"}'
  rehome twin patch dev-1 --desired @desired.json --replace
  rehome twin patch dev-1 --as-device --cert dev-1.pem --key dev-1.key --reported '{\"firmware\": \"2.1\"}'

A patch is merged; null deletes a key. Limits: desired and reported 32 KiB each, tags 8 KiB, ten levels deep, no '.', '$' or
blank in a key, integers within ±2^52. Back ends write tags and desired, devices write reported.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum TwinCommand {
    /// Show a twin
    #[command(
        after_help = "Examples:\n  rehome twin get dev-1\n  rehome twin get dev-1 --as-device --cert dev-1.pem --key dev-1.key"
    )]
    Get(Which),
    /// List the devices of a hub
    List {
        #[arg(long)]
        hub: HubId,
        #[command(flatten)]
        limit: Limit,
    },
    /// Change a twin
    #[command(after_help = PATCH_HELP)]
    Patch(Patch),
    /// Show the desired properties as the device sees them change, until it is moved
    #[command(after_help = "Example:\n  rehome twin watch dev-1 --cert dev-1.pem --key dev-1.key\n\n\
                            With --json each event is a JSON object on a line of its own.")]
    Watch {
        /// The registration id
        id: RegistrationId,
    },
    /// Let a device in, at its hub and at every hub it moves to
    Enable(Place),
    /// Keep a device out of its hub, and of every hub it moves to; its twin stays
    Disable {
        #[command(flatten)]
        place: Place,
        /// Why, at most 128 characters
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Which device, and where.
#[derive(Debug, PartialEq, Args)]
pub struct Place {
    /// The registration id; with --hub the device id there
    pub id: String,
    /// The hub to ask [default: the one that the device lives at]
    #[arg(long)]
    pub hub: Option<HubId>,
}

/// Which device, where, and as whom.
#[derive(Debug, PartialEq, Args)]
pub struct Which {
    #[command(flatten)]
    pub place: Place,
    /// Act as the device, with its --cert and --key
    #[arg(long, conflicts_with = "hub")]
    pub as_device: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct Patch {
    #[command(flatten)]
    pub which: Which,
    /// Desired properties: JSON, @FILE or @- for standard input
    #[arg(long, value_name = "JSON", conflicts_with = "as_device")]
    pub desired: Option<JsonSource>,
    /// Tags: JSON, @FILE or @-
    #[arg(long, value_name = "JSON", conflicts_with = "as_device")]
    pub tags: Option<JsonSource>,
    /// Reported properties, as the device: JSON, @FILE or @-
    #[arg(long, value_name = "JSON", requires = "as_device")]
    pub reported: Option<JsonSource>,
    /// Replace the parts that are given instead of merging them
    #[arg(long, conflicts_with = "as_device")]
    pub replace: bool,
    #[command(flatten)]
    pub exactly: Exactly,
}

impl Place {
    /// Finds where the device lives, unless the hub was named.
    async fn target(self, operator: &Operator) -> anyhow::Result<TwinTarget> {
        if let Some(hub) = self.hub {
            return Ok(TwinTarget { hub, device: DeviceId::parse(&self.id)? });
        }
        let registration = operator
            .registration(&RegistrationId::parse(&self.id)?)
            .await
            .with_context(|| format!("cannot look up where {} lives; name its hub with --hub", self.id))?;
        match registration.assignment {
            Some(home) => Ok(TwinTarget { hub: home.hub, device: registration.device_id }),
            None => Err(homeless(&registration.id)),
        }
    }

    /// Goes home as the device.
    async fn home(&self, context: &Context) -> anyhow::Result<Home> {
        home(RegistrationId::parse(&self.id)?, context).await
    }
}

async fn home(id: RegistrationId, context: &Context) -> anyhow::Result<Home> {
    let device: Device = context.device(id.clone()).await?;
    let update = device.look_up().await?;
    match update.status {
        UpdateStatus::Assigned { .. } => Ok(device.home(&update).await?),
        UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled => Err(homeless(&id)),
    }
}

fn homeless(id: &RegistrationId) -> anyhow::Error {
    let hint = "let it register (`rehome register`), or see why with `rehome device explain`";
    Advised::usage(format!("{id} is not assigned to a hub now"), hint).into()
}

impl Patch {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let read = |source: &Option<JsonSource>| source.as_ref().map(JsonSource::object).transpose();
        let (desired, tags, reported) = (read(&self.desired)?, read(&self.tags)?, read(&self.reported)?);
        if self.which.as_device {
            let Some(reported) = reported else {
                return Err(Advised::usage("there is nothing to report", "give --reported JSON").into());
            };
            let home = self.which.place.home(context).await?;
            home.report(&reported).await?;
            return Ok(context.output.item(&TwinView::from(home.twin().await?))?);
        }
        if desired.is_none() && tags.is_none() {
            let hint = "give --desired or --tags, or with --as-device --reported";
            return Err(Advised::usage("there is nothing to change", hint).into());
        }
        let operator = context.operator().await?;
        let target = self.which.place.target(&operator).await?;
        let version = self.exactly.etag;
        let device = if self.replace {
            operator.replace_twin(&target, tags.as_ref(), desired.as_ref(), version).await?
        } else {
            operator.update_twin(&target, &TwinPatch { tags, desired, reported: None }, version).await?
        };
        Ok(context.output.item(&DeviceView::from(device))?)
    }
}

impl TwinCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        match self {
            TwinCommand::Get(Which { place, as_device: true }) => {
                let twin = place.home(context).await?.twin().await?;
                output.item(&TwinView::from(twin))?;
            }
            TwinCommand::Get(Which { place, as_device: false }) => {
                let operator = context.operator().await?;
                let target = place.target(&operator).await?;
                output.item(&DeviceView::from(operator.twin(&target).await?))?;
            }
            TwinCommand::List { hub, limit } => {
                let operator = context.operator().await?;
                let (rows, more) = pages(limit.limit, async |page| operator.list_twins(&hub, page).await).await?;
                let rows: Vec<DeviceView> = rows.into_iter().map(DeviceView::from).collect();
                output.list(&rows, more)?;
            }
            TwinCommand::Patch(patch) => patch.run(context).await?,
            TwinCommand::Watch { id } => watch(id, context).await?,
            TwinCommand::Enable(place) => set_status(place, &HubStatus::Enabled, context).await?,
            TwinCommand::Disable { place, reason } => {
                set_status(place, &HubStatus::Disabled { reason }, context).await?;
            }
        }
        Ok(())
    }
}

async fn watch(id: RegistrationId, context: &Context) -> anyhow::Result<()> {
    let mut watch = home(id, context).await?.watch().await?;
    while let Some(change) = watch.next().await? {
        let is_last = match change {
            DesiredChange::Moved => true,
            DesiredChange::Whole { .. } | DesiredChange::Patch { .. } => false,
        };
        let view = DesiredView::from(change);
        context.output.event(&view, &view.line())?;
        if is_last {
            return Ok(());
        }
    }
    bail!("the hub ended the stream: watch again")
}

async fn set_status(place: Place, status: &HubStatus, context: &Context) -> anyhow::Result<()> {
    let operator = context.operator().await?;
    let target = place.target(&operator).await?;
    let device = operator.update_device_status(&target, status, None).await?;
    Ok(context.output.item(&DeviceView::from(device))?)
}
