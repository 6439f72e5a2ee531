//! `rehome reconcile`: go through hubs, or the whole service, after a restore from a backup.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::client::{ReconcileNews, ReconcileOutcome, ReconciledDevice};
use crate::domain::HubId;

use super::context::Context;
use super::output::Listed;
use super::view::cell;

/// Devices that are shown as rows when nobody asked for JSON; the others are counted.
const ROWS_MAX: usize = 200;

#[derive(Debug, PartialEq, Args)]
#[command(
    after_help = "A hub that was restored accepts nothing until it has been gone through. What was seen of a device and is\n\
                        newer than what its hub has is put there; what came after that is lost, and said to be.\n\
                        Ended early it can be run again. Everything that is set right is in the audit log."
)]
pub struct Reconcile {
    /// Only this hub [default: every one that waits]
    #[arg(long, value_name = "HUB")]
    pub hub: Option<HubId>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Reconcile {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let operator = context.operator().await?;
        let mut news = operator.reconcile(self.hub.as_ref(), self.dry_run).await?;
        let mut report = Report::default();
        let mut progress = context.output.progress();
        while let Some(news) = news.next().await? {
            report.take(news);
            progress.update(&report.status());
        }
        drop(progress);
        let rows: Vec<DeviceView> = report.rows(context.output.json);
        context.output.list(&rows, false)?;
        if !context.output.json {
            context.output.done(&report.summary(self.dry_run))?;
        }
        Ok(())
    }
}

/// What was told so far.
#[derive(Debug, Default)]
struct Report {
    hubs: Vec<HubId>,
    /// The store was put back, and all homes were looked at.
    store: bool,
    devices: Vec<ReconciledDevice>,
    at: Option<HubId>,
}

impl Report {
    fn take(&mut self, news: ReconcileNews) {
        match news {
            ReconcileNews::StoreBegun { .. } => self.store = true,
            ReconcileNews::HubBegun { hub, .. } => self.at = Some(hub),
            ReconcileNews::Device(device) => self.devices.push(device),
            ReconcileNews::HubDone { hub, .. } => self.hubs.push(hub),
            ReconcileNews::StoreDone => {}
        }
    }

    fn status(&self) -> String {
        let at = self.at.as_ref().map_or("the homes of all devices".to_owned(), ToString::to_string);
        format!("{at}: {} devices", self.devices.len())
    }

    /// What was not simply kept; everything for machines.
    fn rows(&self, all: bool) -> Vec<DeviceView> {
        let told = self.devices.iter().filter(|device| all || device.outcome != ReconcileOutcome::Kept);
        told.take(if all { usize::MAX } else { ROWS_MAX }).map(DeviceView::from).collect()
    }

    fn summary(&self, dry_run: bool) -> String {
        if !self.store && self.hubs.is_empty() {
            return "no hub waits, and the store is as it was left: there was nothing to do".to_owned();
        }
        let mut counts: BTreeMap<ReconcileOutcome, usize> = BTreeMap::new();
        for device in &self.devices {
            *counts.entry(device.outcome).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.into_iter().map(|(outcome, count)| format!("{count} {}", outcome.as_str())).collect();
        let hubs: Vec<&str> = self.hubs.iter().map(HubId::as_str).collect();
        let what = match (self.store, hubs.is_empty()) {
            (true, true) => "the store".to_owned(),
            (true, false) => format!("the store and {}", hubs.join(", ")),
            (false, _) => hubs.join(", "),
        };
        let devices = if counts.is_empty() { "no devices".to_owned() } else { counts.join(", ") };
        match dry_run {
            true => format!("{what} would be gone through: {devices}"),
            false => format!("{what} was gone through: {devices}"),
        }
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DeviceView {
    hub_id: String,
    device_id: String,
    registration_id: Option<String>,
    outcome: &'static str,
    /// Writes after this are lost, if there were any.
    seen_at: Option<String>,
    version: Option<u64>,
}

impl From<&ReconciledDevice> for DeviceView {
    fn from(device: &ReconciledDevice) -> Self {
        Self {
            hub_id: device.hub.to_string(),
            device_id: device.device.to_string(),
            registration_id: device.registration.as_ref().map(ToString::to_string),
            outcome: device.outcome.as_str(),
            seen_at: device.seen_at.map(|at| at.to_string()),
            version: device.version,
        }
    }
}

impl Listed for DeviceView {
    const HEADINGS: &'static [&'static str] = &["hub", "device", "became", "lost after", "version"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.hub_id.clone(),
            self.device_id.clone(),
            self.outcome.to_owned(),
            cell(self.seen_at.as_deref()),
            cell(self.version.map(|version| version.to_string()).as_deref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;
    use crate::domain::{DeviceId, Order, Timestamp};

    fn device(id: &str, outcome: ReconcileOutcome) -> ReconcileNews {
        ReconcileNews::Device(ReconciledDevice {
            hub: HubId::parse("hub-a").unwrap(),
            device: DeviceId::parse(id).unwrap(),
            registration: None,
            outcome,
            seen_at: Some(Timestamp(0)),
            version: Some(7),
        })
    }

    #[test]
    fn a_report_shows_what_was_not_kept_and_counts_all() {
        let mut report = Report::default();
        assert!(report.summary(false).contains("nothing to do"));
        let hub = HubId::parse("hub-a").unwrap();
        report.take(ReconcileNews::HubBegun { hub: hub.clone(), devices: 3 });
        for (id, outcome) in [("d-1", ReconcileOutcome::Kept), ("d-2", ReconcileOutcome::Recreated)] {
            report.take(device(id, outcome));
        }
        assert_eq!(report.status(), "hub-a: 2 devices");
        report.take(ReconcileNews::HubDone { hub, devices: 2 });
        assert_eq!(
            table(&report.rows(false)),
            "HUB    DEVICE  BECAME     LOST AFTER                VERSION\n\
             hub-a  d-2     recreated  1970-01-01T00:00:00.000Z  7\n"
        );
        assert_eq!(report.rows(true).len(), 2);
        assert_eq!(report.summary(false), "hub-a was gone through: 1 kept, 1 recreated");
        report.take(ReconcileNews::StoreBegun { orders_above: Order(1) });
        assert_eq!(report.summary(true), "the store and hub-a would be gone through: 1 kept, 1 recreated");
    }
}
