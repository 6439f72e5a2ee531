//! `rehome twin`: read, change and watch twins, as a back end or as the device itself.

use anyhow::bail;
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;

use crate::client::Api;
use crate::domain::HubId;

use super::advice::Advised;
use super::api::{admin, device, hub};
use super::context::{Context, Limit, pages};
use super::input::JsonSource;
use super::value;
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
    Watch(Place),
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

#[derive(Debug, PartialEq, Args)]
pub struct Which {
    #[command(flatten)]
    pub place: Place,
    /// Act as the device, with its --cert and --key
    #[arg(long)]
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
    /// Change exactly this version, or nothing
    #[arg(long, conflicts_with = "as_device")]
    pub etag: Option<String>,
}

/// A device at a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    hub_id: String,
    device_id: String,
}

impl Place {
    /// Finds where the device lives, unless the hub was named.
    async fn found_by_operator(self, api: &Api) -> anyhow::Result<Found> {
        if let Some(hub) = self.hub {
            return Ok(Found { hub_id: hub.to_string(), device_id: self.id });
        }
        let request = admin::GetRegistrationRequest { registration_id: self.id.clone() };
        let registration = api.get_registration(request).await?.registration.unwrap_or_default();
        match registration.assignment {
            Some(home) => Ok(Found { hub_id: home.hub_id, device_id: registration.device_id }),
            None => Err(homeless(&self.id)),
        }
    }

    async fn found_by_device(self, api: &Api) -> anyhow::Result<Found> {
        if let Some(hub) = self.hub {
            return Ok(Found { hub_id: hub.to_string(), device_id: self.id });
        }
        let request = device::LookUpRegistrationRequest { registration_id: self.id.clone() };
        let update = api.look_up_registration(request).await?.update.unwrap_or_default();
        match update.hub {
            Some(home) => Ok(Found { hub_id: home.hub_id, device_id: update.device_id }),
            None => Err(homeless(&self.id)),
        }
    }
}

fn homeless(id: &str) -> anyhow::Error {
    Advised::usage(format!("{id} lives at no hub yet"), "let it register first, or see `rehome device explain`").into()
}

impl Patch {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let read = |source: &Option<JsonSource>| -> anyhow::Result<_> {
            Ok(source.as_ref().map(JsonSource::object).transpose()?.as_ref().map(value::wire_object))
        };
        let (desired, tags, reported) = (read(&self.desired)?, read(&self.tags)?, read(&self.reported)?);
        if desired.is_none() && tags.is_none() && reported.is_none() {
            let hint = "give --desired or --tags, or with --as-device --reported";
            return Err(Advised::usage("there is nothing to change", hint).into());
        }
        if self.which.as_device {
            let api = context.device().await?;
            let Found { hub_id, device_id } = self.which.place.found_by_device(&api).await?;
            let (hub_id_again, device_id_again) = (hub_id.clone(), device_id.clone());
            api.update_reported(hub::UpdateReportedRequest { hub_id, device_id, patch: reported }).await?;
            let request = hub::GetTwinRequest { hub_id: hub_id_again, device_id: device_id_again };
            let twin = api.get_twin(request).await?.twin.unwrap_or_default();
            return Ok(context.output.item(&TwinView::from(twin))?);
        }
        let api = context.operator().await?;
        let Found { hub_id, device_id } = self.which.place.found_by_operator(&api).await?;
        let etag = self.etag.unwrap_or_default();
        let device = if self.replace {
            let request = hub::ReplaceTwinRequest { hub_id, device_id, tags, desired, etag };
            api.replace_twin(request).await?.device
        } else {
            let request = hub::UpdateTwinRequest { hub_id, device_id, tags, desired, etag };
            api.update_twin(request).await?.device
        };
        Ok(context.output.item(&DeviceView::from(device.unwrap_or_default()))?)
    }
}

impl TwinCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let output = context.output;
        match self {
            TwinCommand::Get(Which { place, as_device: true }) => {
                let api = context.device().await?;
                let Found { hub_id, device_id } = place.found_by_device(&api).await?;
                let twin = api.get_twin(hub::GetTwinRequest { hub_id, device_id }).await?.twin;
                output.item(&TwinView::from(twin.unwrap_or_default()))?;
            }
            TwinCommand::Get(Which { place, as_device: false }) => {
                let api = context.operator().await?;
                let Found { hub_id, device_id } = place.found_by_operator(&api).await?;
                let request = hub::TwinAdminServiceGetTwinRequest { hub_id, device_id };
                output.item(&DeviceView::from(api.get_device(request).await?.device.unwrap_or_default()))?;
            }
            TwinCommand::List { hub, limit } => {
                let api = context.operator().await?;
                let (rows, more) = pages(limit.limit, async |page_size, page_token| {
                    let request = hub::ListTwinsRequest { hub_id: hub.to_string(), page_size, page_token };
                    let page = api.list_twins(request).await?;
                    Ok((page.devices, page.next_page_token))
                })
                .await?;
                let rows: Vec<DeviceView> = rows.into_iter().map(DeviceView::from).collect();
                output.list(&rows, more)?;
            }
            TwinCommand::Patch(patch) => patch.run(context).await?,
            TwinCommand::Watch(place) => watch(place, context).await?,
            TwinCommand::Enable(place) => set_status(place, hub::DeviceStatus::Enabled, String::new(), context).await?,
            TwinCommand::Disable { place, reason } => {
                set_status(place, hub::DeviceStatus::Disabled, reason, context).await?;
            }
        }
        Ok(())
    }
}

async fn watch(place: Place, context: &Context) -> anyhow::Result<()> {
    let api = context.device().await?;
    let Found { hub_id, device_id } = place.found_by_device(&api).await?;
    let mut events = api.watch_desired(hub::WatchDesiredRequest { hub_id, device_id }).await?;
    while let Some(answer) = events.next().await {
        let Some(view) = DesiredView::of(answer?.event) else { continue };
        context.output.event(&view, &view.line())?;
        if view.event == "moved" {
            return Ok(());
        }
    }
    bail!("the service ended the stream: watch again")
}

async fn set_status(place: Place, status: hub::DeviceStatus, reason: String, context: &Context) -> anyhow::Result<()> {
    let api = context.operator().await?;
    let Found { hub_id, device_id } = place.found_by_operator(&api).await?;
    let mut request = hub::UpdateDeviceStatusRequest { hub_id, device_id, reason, ..Default::default() };
    request.set_status(status);
    let device = api.update_device_status(request).await?.device;
    Ok(context.output.item(&DeviceView::from(device.unwrap_or_default()))?)
}
