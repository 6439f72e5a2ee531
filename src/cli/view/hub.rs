//! Hubs as they are shown.

use serde::Serialize;

use crate::cli::output::{Listed, Shown};
use crate::client::HubRecord;
use crate::domain::HubKind;

use super::{cell, fact, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HubView {
    pub hub_id: String,
    pub kind: &'static str,
    pub state: &'static str,
    pub taken_down: bool,
    pub reachable: bool,
    /// It waits for `rehome reconcile`.
    pub restored: bool,
    pub devices: u64,
    pub arriving: u64,
    pub moves: u64,
    pub host_name: Option<String>,
    pub endpoint: Option<String>,
    pub location: Option<LocationView>,
    pub weight: u32,
    pub capacity: Option<u64>,
    pub calls_per_second: Option<u32>,
    pub incarnation: Option<String>,
    pub synced_at: Option<String>,
    pub lease_renewed_at: Option<String>,
    /// Only where one hub is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debts: Option<DebtsView>,
    pub created_at: String,
    pub updated_at: String,
    pub etag: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DebtsView {
    pub owed: u64,
    pub stuck: u64,
    pub oldest_at: Option<String>,
    pub splits: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocationView {
    pub latitude: f64,
    pub longitude: f64,
}

impl From<HubRecord> for HubView {
    fn from(record: HubRecord) -> Self {
        let hub = record.draft;
        Self {
            hub_id: hub.id.to_string(),
            kind: match hub.kind {
                HubKind::Embedded => "embedded",
            },
            state: record.state.as_str(),
            taken_down: record.taken_down,
            reachable: record.usage.reachable,
            restored: record.usage.restored,
            devices: record.usage.devices,
            arriving: record.usage.arriving,
            moves: record.usage.moves,
            host_name: hub.host_name,
            endpoint: hub.endpoint,
            location: hub.location.map(|place| LocationView { latitude: place.latitude, longitude: place.longitude }),
            weight: hub.weight,
            capacity: hub.capacity,
            calls_per_second: hub.calls_per_second,
            incarnation: record.usage.incarnation.map(|it| format!("{:032x}", it.0)),
            synced_at: record.usage.synced_at.map(|at| at.to_string()),
            lease_renewed_at: record.usage.lease_renewed_at.map(|at| at.to_string()),
            debts: record.usage.debts.map(|debts| DebtsView {
                owed: debts.owed,
                stuck: debts.stuck,
                oldest_at: debts.oldest_at.map(|at| at.to_string()),
                splits: debts.splits,
            }),
            created_at: record.created_at.to_string(),
            updated_at: record.updated_at.to_string(),
            etag: record.version.etag(),
        }
    }
}

impl HubView {
    fn answers(&self) -> &'static str {
        match (self.restored, self.taken_down, self.reachable) {
            (true, _, _) => "restored, waits for reconcile",
            (false, true, _) => "taken down",
            (false, false, true) => "yes",
            (false, false, false) => "no",
        }
    }
}

impl Listed for HubView {
    const HEADINGS: &'static [&'static str] =
        &["hub", "state", "answers", "devices", "arriving", "moves", "weight", "capacity", "endpoint"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.hub_id.clone(),
            self.state.to_owned(),
            self.answers().to_owned(),
            self.devices.to_string(),
            self.arriving.to_string(),
            self.moves.to_string(),
            self.weight.to_string(),
            cell(self.capacity.map(|capacity| capacity.to_string()).as_deref()),
            cell(self.endpoint.as_deref()),
        ]
    }
}

impl Shown for HubView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let owed = self.debts.as_ref().map_or(String::new(), |debts| {
            let since = debts.oldest_at.as_ref().map_or(String::new(), |at| format!(", the oldest since {at}"));
            format!("{} ({} stuck{since})", debts.owed, debts.stuck)
        });
        let splits = self.debts.as_ref().map_or(String::new(), |debts| debts.splits.to_string());
        let place = self.location.as_ref().map(|place| format!("{},{}", place.latitude, place.longitude));
        vec![
            ("hub", self.hub_id.clone()),
            ("kind", self.kind.to_owned()),
            ("state", self.state.to_owned()),
            ("answers", self.answers().to_owned()),
            ("taken down", yes_no(self.taken_down)),
            ("devices", self.devices.to_string()),
            ("arriving", self.arriving.to_string()),
            ("moves", self.moves.to_string()),
            ("owed to it", owed),
            ("splits", splits),
            ("feed read", fact(self.synced_at.as_deref())),
            ("lease renewed", fact(self.lease_renewed_at.as_deref())),
            ("incarnation", fact(self.incarnation.as_deref())),
            ("host name", fact(self.host_name.as_deref())),
            ("endpoint", fact(self.endpoint.as_deref())),
            ("location", fact(place.as_deref())),
            ("weight", self.weight.to_string()),
            ("capacity", number(self.capacity)),
            ("calls per second", number(self.calls_per_second.map(u64::from))),
            ("created", self.created_at.clone()),
            ("updated", self.updated_at.clone()),
            ("etag", self.etag.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;
    use crate::client::HubUsage;
    use crate::domain::{HubDraft, HubId, HubState, Timestamp, Version};

    #[test]
    fn a_hub_is_a_row_and_stable_json() {
        let record = HubRecord {
            draft: HubDraft {
                id: HubId::parse("hub-a").unwrap(),
                kind: HubKind::Embedded,
                host_name: None,
                endpoint: Some("127.0.0.1:7443".to_owned()),
                location: None,
                weight: 1,
                capacity: None,
                calls_per_second: None,
            },
            state: HubState::Draining,
            taken_down: false,
            usage: HubUsage { reachable: true, devices: 3, ..HubUsage::default() },
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Version(2),
        };
        let view = HubView::from(record.clone());
        assert_eq!(
            table(std::slice::from_ref(&view)),
            "HUB    STATE     ANSWERS  DEVICES  ARRIVING  MOVES  WEIGHT  CAPACITY  ENDPOINT\n\
             hub-a  draining  yes      3        0         0      1       -         127.0.0.1:7443\n"
        );
        assert_eq!(
            serde_json::to_string(&view).unwrap(),
            "{\"hub_id\":\"hub-a\",\"kind\":\"embedded\",\"state\":\"draining\",\"taken_down\":false,\"reachable\":true,\
             \"restored\":false,\"devices\":3,\"arriving\":0,\"moves\":0,\"host_name\":null,\"endpoint\":\"127.0.0.1:7443\",\"location\":null,\
             \"weight\":1,\"capacity\":null,\"calls_per_second\":null,\"incarnation\":null,\"synced_at\":null,\"lease_renewed_at\":null,\"created_at\":\"1970-01-01T00:00:00.000Z\",\
             \"updated_at\":\"1970-01-01T00:00:00.000Z\",\"etag\":\"v2\"}"
        );
        assert_eq!(HubView::from(HubRecord { taken_down: true, ..record }).answers(), "taken down");
    }
}
