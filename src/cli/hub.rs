//! `rehome hub`: link hubs, see how they are used, and take them through their lifecycle.

use clap::{Args, Subcommand};

use crate::client::Api;
use crate::domain::{Geo, HubId};

use super::advice::Advised;
use super::api::admin;
use super::context::Context;
use super::value;
use super::view::hub::HubView;

#[derive(Debug, PartialEq, Subcommand)]
pub enum HubCommand {
    /// Link an embedded hub; devices can be assigned to it at once
    #[command(
        after_help = "Example:\n  rehome hub link plant-berlin --location 52.52,13.40 --weight 3 --capacity 10000"
    )]
    Link(Link),
    /// List the linked hubs
    List,
    /// Show one hub and how it is used
    Show { hub: HubId },
    /// Change a hub's settings; what is not named stays
    Update(Update),
    /// Take no new devices; those it has leave when they register again or are reprovisioned
    Drain(Step),
    /// Take devices again
    Activate(Step),
    /// Mark a drained hub as meant to be unlinked
    Retire(Step),
    /// Forget a hub; its data stays where it is
    #[command(after_help = "A hub that devices live at is not unlinked: drain it and reprovision them first.\n\
                            With --force you state that the hub accepts no writes any more: what is owed to it is abandoned,\n\
                            and its devices are without a hub until they register again.")]
    Unlink(Unlink),
    /// Make an embedded hub unreachable, as in an outage
    TakeDown { hub: HubId },
    /// End an outage made by take-down
    BringUp { hub: HubId },
}

#[derive(Debug, PartialEq, Args)]
pub struct Link {
    /// 1 to 64 lower-case letters, digits and -
    pub hub: HubId,
    #[command(flatten)]
    pub settings: HubSettings,
}

#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct HubSettings {
    /// The host name that devices are told [default: the service's choice]
    #[arg(long, value_name = "NAME")]
    pub host_name: Option<String>,
    /// The address that devices connect to, as host:port [default: the service's choice]
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: Option<String>,
    /// Where it is, for the policy lowest-latency, as in 52.52,13.40
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true)]
    pub location: Option<Geo>,
    /// Its share under the policy hashed, 1 to 1000 [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: Option<u32>,
    /// How many devices it may hold [default: no bound]
    #[arg(long, value_name = "NUMBER")]
    pub capacity: Option<u64>,
    /// How many calls a second the service may make to it [default: no bound]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_per_second: Option<u32>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Update {
    pub hub: HubId,
    #[command(flatten)]
    pub settings: HubSettings,
    /// Forget the location
    #[arg(long, conflicts_with = "location")]
    pub no_location: bool,
    /// Lift the bound on devices
    #[arg(long, conflicts_with = "capacity")]
    pub no_capacity: bool,
    /// Lift the bound on calls
    #[arg(long, conflicts_with = "calls_per_second")]
    pub no_calls_per_second: bool,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Step {
    pub hub: HubId,
    /// Change exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

#[derive(Debug, PartialEq, Args)]
pub struct Unlink {
    pub hub: HubId,
    /// State that the hub accepts no writes, and unlink it although it is in use
    #[arg(long)]
    pub force: bool,
    /// Unlink exactly this version, or nothing
    #[arg(long)]
    pub etag: Option<String>,
}

impl HubSettings {
    fn apply(&self, hub: &mut admin::Hub) {
        if let Some(host_name) = &self.host_name {
            hub.host_name.clone_from(host_name);
        }
        if let Some(endpoint) = &self.endpoint {
            hub.endpoint.clone_from(endpoint);
        }
        if let Some(place) = self.location {
            hub.location = Some(value::wire_place(place));
        }
        hub.weight = self.weight.unwrap_or(hub.weight);
        hub.capacity = self.capacity.or(hub.capacity);
        hub.calls_per_second = self.calls_per_second.or(hub.calls_per_second);
    }
}

impl Link {
    fn hub(&self) -> admin::Hub {
        let mut hub = admin::Hub { hub_id: self.hub.to_string(), weight: 1, ..Default::default() };
        hub.set_kind(admin::HubKind::Embedded);
        self.settings.apply(&mut hub);
        hub
    }
}

impl Update {
    fn apply(&self, hub: &mut admin::Hub) -> Result<(), Advised> {
        let lifts = self.no_location || self.no_capacity || self.no_calls_per_second;
        if self.settings == HubSettings::default() && !lifts {
            return Err(Advised::usage("there is nothing to change", "see `rehome hub update --help` for what can be"));
        }
        self.settings.apply(hub);
        if self.no_location {
            hub.location = None;
        }
        if self.no_capacity {
            hub.capacity = None;
        }
        if self.no_calls_per_second {
            hub.calls_per_second = None;
        }
        if let Some(etag) = &self.etag {
            hub.etag.clone_from(etag);
        }
        Ok(())
    }
}

impl HubCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let api = context.operator().await?;
        let output = context.output;
        let changed = match self {
            HubCommand::List => {
                let hubs = api.list_hubs(admin::ListHubsRequest {}).await?.hubs;
                let rows: Vec<HubView> = hubs.into_iter().map(HubView::from).collect();
                return Ok(output.list(&rows, false)?);
            }
            HubCommand::Unlink(unlink) => {
                let hub_id = unlink.hub.to_string();
                let etag = unlink.etag.unwrap_or_default();
                api.unlink_hub(admin::UnlinkHubRequest { hub_id, etag, force: unlink.force }).await?;
                return Ok(output.done(&format!("{} is unlinked; its data stays where it is", unlink.hub))?);
            }
            HubCommand::Link(link) => api.link_hub(admin::LinkHubRequest { hub: Some(link.hub()) }).await?.hub,
            HubCommand::Show { hub } => Some(read(&api, &hub).await?),
            HubCommand::Update(update) => {
                let mut hub = read(&api, &update.hub).await?;
                update.apply(&mut hub)?;
                api.update_hub(admin::UpdateHubRequest { hub: Some(hub) }).await?.hub
            }
            HubCommand::Drain(step) => api.drain_hub(step.into()).await?.hub,
            HubCommand::Activate(step) => api.activate_hub(step.into()).await?.hub,
            HubCommand::Retire(step) => api.retire_hub(step.into()).await?.hub,
            HubCommand::TakeDown { hub } => {
                api.take_down_hub(admin::TakeDownHubRequest { hub_id: hub.to_string() }).await?.hub
            }
            HubCommand::BringUp { hub } => {
                api.bring_up_hub(admin::BringUpHubRequest { hub_id: hub.to_string() }).await?.hub
            }
        };
        Ok(output.item(&HubView::from(changed.unwrap_or_default()))?)
    }
}

async fn read(api: &Api, hub: &HubId) -> anyhow::Result<admin::Hub> {
    Ok(api.get_hub(admin::GetHubRequest { hub_id: hub.to_string() }).await?.hub.unwrap_or_default())
}

impl From<Step> for admin::DrainHubRequest {
    fn from(step: Step) -> Self {
        Self { hub_id: step.hub.to_string(), etag: step.etag.unwrap_or_default() }
    }
}

impl From<Step> for admin::ActivateHubRequest {
    fn from(step: Step) -> Self {
        Self { hub_id: step.hub.to_string(), etag: step.etag.unwrap_or_default() }
    }
}

impl From<Step> for admin::RetireHubRequest {
    fn from(step: Step) -> Self {
        Self { hub_id: step.hub.to_string(), etag: step.etag.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> admin::Hub {
        admin::Hub {
            hub_id: "hub-a".to_owned(),
            endpoint: "127.0.0.1:7443".to_owned(),
            weight: 3,
            capacity: Some(10),
            etag: "v4".to_owned(),
            ..Default::default()
        }
    }

    fn update(settings: HubSettings) -> Update {
        let hub = HubId::parse("hub-a").unwrap();
        Update { hub, settings, no_location: false, no_capacity: false, no_calls_per_second: false, etag: None }
    }

    #[test]
    fn an_update_changes_what_it_names_under_the_etag_that_was_read() {
        let mut changed = hub();
        update(HubSettings { weight: Some(7), ..Default::default() }).apply(&mut changed).unwrap();
        assert_eq!(changed, admin::Hub { weight: 7, ..hub() });

        let mut lifted = hub();
        Update { no_capacity: true, etag: Some("v1".to_owned()), ..update(HubSettings::default()) }
            .apply(&mut lifted)
            .unwrap();
        assert_eq!(lifted, admin::Hub { capacity: None, etag: "v1".to_owned(), ..hub() });

        assert!(update(HubSettings::default()).apply(&mut hub()).is_err());
    }

    #[test]
    fn a_new_hub_is_embedded_with_the_weight_one() {
        let link = Link {
            hub: HubId::parse("hub-a").unwrap(),
            settings: HubSettings { location: Geo::new(-1.5, 2.0), ..Default::default() },
        };
        let hub = link.hub();
        assert_eq!((hub.kind(), hub.weight, hub.capacity), (admin::HubKind::Embedded, 1, None));
        assert_eq!(hub.location.map(|place| (place.latitude, place.longitude)), Some((-1.5, 2.0)));
    }
}
