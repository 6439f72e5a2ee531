//! Hubs as they are shown.

use serde::Serialize;

use crate::cli::api::admin;
use crate::cli::output::{Listed, Shown};
use crate::cli::value;

use super::{cell, fact, yes_no};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HubView {
    pub hub_id: String,
    pub kind: String,
    pub state: Option<String>,
    pub taken_down: bool,
    pub reachable: bool,
    pub devices: u64,
    pub arriving: u64,
    pub moves: u64,
    pub host_name: String,
    pub endpoint: String,
    pub location: Option<LocationView>,
    pub weight: u32,
    pub capacity: Option<u64>,
    pub calls_per_second: Option<u32>,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub etag: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocationView {
    pub latitude: f64,
    pub longitude: f64,
}

impl From<admin::Hub> for HubView {
    fn from(hub: admin::Hub) -> Self {
        let state = admin::HubState::try_from(hub.state).ok();
        Self {
            kind: match hub.kind() {
                admin::HubKind::Unspecified | admin::HubKind::Embedded => "embedded".to_owned(),
            },
            state: value::word(state.map(|state| state.as_str_name()), "HUB_STATE_"),
            taken_down: hub.taken_down,
            reachable: hub.reachable,
            devices: hub.devices,
            arriving: hub.arriving,
            moves: hub.moves,
            location: hub.location.map(|place| LocationView { latitude: place.latitude, longitude: place.longitude }),
            weight: hub.weight,
            capacity: hub.capacity,
            calls_per_second: hub.calls_per_second,
            created_at: value::time(hub.created_at.as_ref()),
            updated_at: value::time(hub.updated_at.as_ref()),
            hub_id: hub.hub_id,
            host_name: hub.host_name,
            endpoint: hub.endpoint,
            etag: hub.etag,
        }
    }
}

impl HubView {
    fn answers(&self) -> &'static str {
        match (self.taken_down, self.reachable) {
            (true, _) => "taken down",
            (false, true) => "yes",
            (false, false) => "no",
        }
    }
}

impl Listed for HubView {
    const HEADINGS: &'static [&'static str] =
        &["hub", "state", "answers", "devices", "arriving", "moves", "weight", "capacity", "endpoint"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.hub_id.clone(),
            cell(self.state.as_deref()),
            self.answers().to_owned(),
            self.devices.to_string(),
            self.arriving.to_string(),
            self.moves.to_string(),
            self.weight.to_string(),
            cell(self.capacity.map(|capacity| capacity.to_string()).as_deref()),
            self.endpoint.clone(),
        ]
    }
}

impl Shown for HubView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let place = self.location.as_ref().map(|place| format!("{},{}", place.latitude, place.longitude));
        vec![
            ("hub", self.hub_id.clone()),
            ("kind", self.kind.clone()),
            ("state", fact(self.state.as_deref())),
            ("answers", self.answers().to_owned()),
            ("taken down", yes_no(self.taken_down)),
            ("devices", self.devices.to_string()),
            ("arriving", self.arriving.to_string()),
            ("moves", self.moves.to_string()),
            ("host name", self.host_name.clone()),
            ("endpoint", self.endpoint.clone()),
            ("location", fact(place.as_deref())),
            ("weight", self.weight.to_string()),
            ("capacity", number(self.capacity)),
            ("calls per second", number(self.calls_per_second.map(u64::from))),
            ("created", fact(self.created_at.as_deref())),
            ("updated", fact(self.updated_at.as_deref())),
            ("etag", self.etag.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn a_hub_is_a_row_and_stable_json() {
        let mut hub =
            admin::Hub { hub_id: "hub-a".to_owned(), reachable: true, devices: 3, weight: 1, ..Default::default() };
        hub.set_state(admin::HubState::Draining);
        hub.etag = "v2".to_owned();
        hub.endpoint = "127.0.0.1:7443".to_owned();
        let view = HubView::from(hub.clone());
        assert_eq!(
            table(&[view.clone()]),
            "HUB    STATE     ANSWERS  DEVICES  ARRIVING  MOVES  WEIGHT  CAPACITY  ENDPOINT\n\
             hub-a  draining  yes      3        0         0      1       -         127.0.0.1:7443\n"
        );
        assert_eq!(
            serde_json::to_string(&view).unwrap(),
            "{\"hub_id\":\"hub-a\",\"kind\":\"embedded\",\"state\":\"draining\",\"taken_down\":false,\"reachable\":true,\
             \"devices\":3,\"arriving\":0,\"moves\":0,\"host_name\":\"\",\"endpoint\":\"127.0.0.1:7443\",\"location\":null,\
             \"weight\":1,\"capacity\":null,\"calls_per_second\":null,\"created_at\":null,\"updated_at\":null,\"etag\":\"v2\"}"
        );
        hub.taken_down = true;
        assert_eq!(HubView::from(hub).answers(), "taken down");
    }
}
