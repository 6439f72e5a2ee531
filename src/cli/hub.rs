//! `rehome hub`: link hubs, see how they are used, and take them through their lifecycle.

use clap::{Args, Subcommand};

use crate::client::HubRecord;
use crate::domain::{Geo, HubDraft, HubId, HubKind, Version};

use super::advice::Advised;
use super::context::Context;
use super::enrollment::Exactly;
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
                            With --force you state that the hub accepts no writes any more: its devices are without a hub\n\
                            until they register again, moves to it are given up, and what is owed to it is abandoned.")]
    Unlink(Unlink),
    /// Make an embedded hub unreachable, as in an outage
    TakeDown { hub: HubId },
    /// End an outage made by take-down
    BringUp { hub: HubId },
    /// Read what is new in a hub's change feed now
    Sync { hub: HubId },
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
    #[command(flatten)]
    pub exactly: Exactly,
}

#[derive(Debug, PartialEq, Args)]
pub struct Step {
    pub hub: HubId,
    #[command(flatten)]
    pub exactly: Exactly,
}

#[derive(Debug, PartialEq, Args)]
pub struct Unlink {
    pub hub: HubId,
    /// State that the hub accepts no writes, and unlink it although it is in use
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub exactly: Exactly,
}

impl HubSettings {
    fn apply(&self, hub: &mut HubDraft) {
        hub.host_name = self.host_name.clone().or(hub.host_name.take());
        hub.endpoint = self.endpoint.clone().or(hub.endpoint.take());
        hub.location = self.location.or(hub.location);
        hub.weight = self.weight.unwrap_or(hub.weight);
        hub.capacity = self.capacity.or(hub.capacity);
        hub.calls_per_second = self.calls_per_second.or(hub.calls_per_second);
    }
}

impl Link {
    fn draft(self) -> HubDraft {
        let mut draft = HubDraft {
            id: self.hub,
            kind: HubKind::Embedded,
            host_name: None,
            endpoint: None,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
        };
        self.settings.apply(&mut draft);
        draft
    }
}

impl Update {
    /// Changes a record that was read; the version that must still hold when it is written back.
    fn apply(&self, record: &mut HubRecord) -> Result<Version, Advised> {
        let lifts = self.no_location || self.no_capacity || self.no_calls_per_second;
        if self.settings == HubSettings::default() && !lifts {
            return Err(Advised::usage("there is nothing to change", "see `rehome hub update --help` for what can be"));
        }
        let hub = &mut record.draft;
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
        Ok(self.exactly.etag.unwrap_or(record.version))
    }
}

impl HubCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let operator = context.operator().await?;
        let output = context.output;
        let hub = match self {
            HubCommand::List => {
                let rows: Vec<HubView> = operator.list_hubs().await?.into_iter().map(HubView::from).collect();
                return Ok(output.list(&rows, false)?);
            }
            HubCommand::Unlink(Unlink { hub, force, exactly }) => {
                operator.unlink_hub(&hub, exactly.etag, force).await?;
                return Ok(output.done(&format!("{hub} is unlinked; its data stays where it is"))?);
            }
            HubCommand::Link(link) => operator.link_hub(&link.draft()).await?,
            HubCommand::Show { hub } => operator.hub(&hub).await?,
            HubCommand::Update(update) => {
                let mut record = operator.hub(&update.hub).await?;
                let version = update.apply(&mut record)?;
                operator.update_hub(&record.draft, version).await?
            }
            HubCommand::Drain(Step { hub, exactly }) => operator.drain_hub(&hub, exactly.etag).await?,
            HubCommand::Activate(Step { hub, exactly }) => operator.activate_hub(&hub, exactly.etag).await?,
            HubCommand::Retire(Step { hub, exactly }) => operator.retire_hub(&hub, exactly.etag).await?,
            HubCommand::TakeDown { hub } => operator.take_down_hub(&hub).await?,
            HubCommand::BringUp { hub } => operator.bring_up_hub(&hub).await?,
            HubCommand::Sync { hub } => {
                let devices = operator.sync_hub(&hub).await?;
                return Ok(output.done(&format!("{hub}: {devices} devices had changed"))?);
            }
        };
        Ok(output.item(&HubView::from(hub))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::HubUsage;
    use crate::domain::{HubState, Timestamp};

    fn linked(settings: HubSettings) -> HubDraft {
        Link { hub: HubId::parse("hub-a").unwrap(), settings }.draft()
    }

    fn stored() -> HubRecord {
        HubRecord {
            draft: linked(HubSettings { weight: Some(3), capacity: Some(10), ..HubSettings::default() }),
            state: HubState::Active,
            taken_down: false,
            usage: HubUsage { reachable: true, ..HubUsage::default() },
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(4),
        }
    }

    fn update(settings: HubSettings) -> Update {
        let exactly = Exactly::default();
        let hub = HubId::parse("hub-a").unwrap();
        Update { hub, settings, no_location: false, no_capacity: false, no_calls_per_second: false, exactly }
    }

    #[test]
    fn an_update_changes_what_it_names_over_the_version_that_was_read() {
        let mut record = stored();
        let heavier = update(HubSettings { weight: Some(7), ..HubSettings::default() });
        assert_eq!(heavier.apply(&mut record), Ok(Version(4)));
        assert_eq!(record.draft, HubDraft { weight: 7, ..stored().draft });

        let mut record = stored();
        let exactly = Exactly { etag: Some(Version(1)) };
        let lifting = Update { no_capacity: true, exactly, ..update(HubSettings::default()) };
        assert_eq!(lifting.apply(&mut record), Ok(Version(1)));
        assert_eq!(record.draft, HubDraft { capacity: None, ..stored().draft });

        assert!(update(HubSettings::default()).apply(&mut stored()).is_err());
    }

    #[test]
    fn a_new_hub_is_embedded_with_the_weight_one() {
        let hub = linked(HubSettings { location: Geo::new(-1.5, 2.0), ..HubSettings::default() });
        assert_eq!((hub.kind, hub.weight, hub.capacity), (HubKind::Embedded, 1, None));
        assert_eq!(hub.location, Geo::new(-1.5, 2.0));
        hub.check().unwrap();
    }
}
