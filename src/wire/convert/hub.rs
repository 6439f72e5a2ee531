//! Linked hubs: drafts from operators, records to them.

use super::field;
use crate::domain::{Hub, HubDraft, HubId, HubKind, HubState, Incarnation, Timestamp, Version};
use crate::wire::WireFault;
use crate::wire::admin::v1;

/// How a hub is doing, beside its record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubUsage {
    pub reachable: bool,
    /// Devices that live there.
    pub devices: u64,
    /// Devices on their way there.
    pub arriving: u64,
    /// Unfinished moves that name it.
    pub moves: u64,
    /// It was restored from an older copy and waits to be gone through.
    pub restored: bool,
    /// The life of its data that the service knows.
    pub incarnation: Option<Incarnation>,
    /// When everything in its change feed was read last.
    pub synced_at: Option<Timestamp>,
    /// When it last answered a renewal of its lease.
    pub lease_renewed_at: Option<Timestamp>,
    /// Only where one hub was asked for.
    pub debts: Option<HubDebts>,
}

/// What is owed to a hub after moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubDebts {
    pub owed: u64,
    /// Refused by the hub: they wait for a person.
    pub stuck: u64,
    pub oldest_at: Option<Timestamp>,
    /// Devices that were moved away while it could not be reached.
    pub splits: u64,
}

/// A hub as an operator reads it: a draft that can be changed and written back under its version.
#[derive(Debug, Clone, PartialEq)]
pub struct HubRecord {
    pub draft: HubDraft,
    pub state: HubState,
    pub taken_down: bool,
    pub usage: HubUsage,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: Version,
}

/// A hub as an operator asks for it. Its bounds are judged by [`HubDraft::check`].
pub fn draft(message: &v1::Hub) -> Result<HubDraft, WireFault> {
    let kind = match v1::HubKind::try_from(message.kind) {
        Ok(v1::HubKind::Unspecified | v1::HubKind::Embedded) => HubKind::Embedded,
        Err(value) => return Err(WireFault::new("hub.kind", format!("{} is not a value of it", value.0))),
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(HubDraft {
        id: field::id("hub.hub_id", &message.hub_id, HubId::parse)?,
        kind,
        host_name: text(&message.host_name),
        endpoint: text(&message.endpoint),
        location: field::place("hub.location", message.location.as_ref())?,
        weight: message.weight.max(1),
        capacity: message.capacity,
        calls_per_second: message.calls_per_second,
    })
}

/// A draft on its way to the service, without etag.
pub fn wire_draft(draft: &HubDraft) -> v1::Hub {
    let kind = match draft.kind {
        HubKind::Embedded => v1::HubKind::Embedded,
    };
    v1::Hub {
        hub_id: draft.id.to_string(),
        kind: kind.into(),
        host_name: draft.host_name.clone().unwrap_or_default(),
        endpoint: draft.endpoint.clone().unwrap_or_default(),
        location: draft.location.map(field::wire_place),
        weight: draft.weight,
        capacity: draft.capacity,
        calls_per_second: draft.calls_per_second,
        ..v1::Hub::default()
    }
}

/// The record as operators see it.
pub fn wire_hub(hub: &Hub, usage: HubUsage) -> v1::Hub {
    let draft = HubDraft {
        id: hub.id.clone(),
        kind: hub.kind,
        host_name: Some(hub.host_name.clone()),
        endpoint: Some(hub.endpoint.clone()),
        location: hub.location,
        weight: hub.weight,
        capacity: hub.capacity,
        calls_per_second: hub.calls_per_second,
    };
    v1::Hub {
        state: wire_state(hub.state).into(),
        taken_down: hub.taken_down,
        reachable: usage.reachable,
        devices: usage.devices,
        arriving: usage.arriving,
        moves: usage.moves,
        restored: usage.restored,
        incarnation: usage.incarnation.map(|it| format!("{:032x}", it.0)).unwrap_or_default(),
        synced_at: usage.synced_at.map(field::wire_time),
        lease_renewed_at: usage.lease_renewed_at.map(field::wire_time),
        debts: usage.debts.map(wire_debts),
        created_at: Some(field::wire_time(hub.created_at)),
        updated_at: Some(field::wire_time(hub.updated_at)),
        etag: hub.version.etag(),
        ..wire_draft(&draft)
    }
}

fn wire_debts(debts: HubDebts) -> v1::HubDebts {
    let HubDebts { owed, stuck, oldest_at, splits } = debts;
    v1::HubDebts { owed, stuck, oldest_at: oldest_at.map(field::wire_time), splits }
}

fn debts(message: &v1::HubDebts) -> Result<HubDebts, WireFault> {
    let oldest_at = field::optional_time("hub.debts.oldest_at", message.oldest_at.as_ref())?;
    Ok(HubDebts { owed: message.owed, stuck: message.stuck, oldest_at, splits: message.splits })
}

fn incarnation(text: &str) -> Result<Option<Incarnation>, WireFault> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = u128::from_str_radix(text, 16);
    number.map(|number| Some(Incarnation(number))).map_err(|why| WireFault::new("hub.incarnation", why.to_string()))
}

fn wire_state(state: HubState) -> v1::HubState {
    match state {
        HubState::Active => v1::HubState::Active,
        HubState::Draining => v1::HubState::Draining,
        HubState::Retired => v1::HubState::Retired,
    }
}

impl TryFrom<&v1::Hub> for HubRecord {
    type Error = WireFault;

    fn try_from(message: &v1::Hub) -> Result<Self, WireFault> {
        let state = match message.state() {
            v1::HubState::Unspecified => return Err(WireFault::new("hub.state", "is missing or not known here")),
            v1::HubState::Active => HubState::Active,
            v1::HubState::Draining => HubState::Draining,
            v1::HubState::Retired => HubState::Retired,
        };
        Ok(Self {
            draft: draft(message)?,
            state,
            taken_down: message.taken_down,
            usage: HubUsage {
                reachable: message.reachable,
                devices: message.devices,
                arriving: message.arriving,
                moves: message.moves,
                restored: message.restored,
                incarnation: incarnation(&message.incarnation)?,
                synced_at: field::optional_time("hub.synced_at", message.synced_at.as_ref())?,
                lease_renewed_at: field::optional_time("hub.lease_renewed_at", message.lease_renewed_at.as_ref())?,
                debts: message.debts.as_ref().map(debts).transpose()?,
            },
            created_at: field::required_time("hub.created_at", message.created_at.as_ref())?,
            updated_at: field::required_time("hub.updated_at", message.updated_at.as_ref())?,
            version: field::etag("hub.etag", &message.etag)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Geo;

    fn hub() -> Hub {
        Hub {
            id: HubId::parse("hub-a").unwrap(),
            host_name: "hub-a.example".to_owned(),
            endpoint: "hub-a.example:8443".to_owned(),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: Geo::new(52.5, 13.4),
            weight: 7,
            capacity: Some(0),
            calls_per_second: None,
            incarnation: None,
            taken_down: true,
            created_at: Timestamp(1),
            updated_at: Timestamp(2),
            version: Version(3),
        }
    }

    #[test]
    fn hubs_come_back() {
        for state in [HubState::Active, HubState::Draining, HubState::Retired] {
            let hub = Hub { state, ..hub() };
            let debts = HubDebts { owed: 3, stuck: 1, oldest_at: Some(Timestamp(4)), splits: 2 };
            let usage = HubUsage {
                reachable: true,
                devices: 5,
                arriving: 1,
                moves: 2,
                restored: true,
                incarnation: Some(Incarnation(u128::MAX - 1)),
                synced_at: Some(Timestamp(9)),
                lease_renewed_at: None,
                debts: Some(debts),
            };
            let record = HubRecord::try_from(&wire_hub(&hub, usage)).unwrap();
            assert_eq!((record.state, record.usage, record.version), (state, usage, hub.version));
            assert_eq!((record.draft.location, record.draft.weight, record.draft.capacity), (hub.location, 7, Some(0)));
            assert_eq!(record.draft.endpoint, Some(hub.endpoint));
            assert_eq!(draft(&wire_draft(&record.draft)), Ok(record.draft));
        }
    }

    #[test]
    fn what_is_absent_is_the_service_s_choice() {
        let bare = draft(&v1::Hub { hub_id: "hub-a".to_owned(), ..v1::Hub::default() }).unwrap();
        assert_eq!((bare.host_name, bare.endpoint, bare.weight, bare.capacity), (None, None, 1, None));
    }

    #[test]
    fn every_field_is_checked() {
        fn refused(change: impl FnOnce(&mut v1::Hub), field: &str) {
            let mut message = wire_hub(&hub(), HubUsage::default());
            change(&mut message);
            assert_eq!(HubRecord::try_from(&message).map_err(|fault| fault.field), Err(field));
        }
        refused(|h| h.hub_id = "Hub".to_owned(), "hub.hub_id");
        refused(|h| h.kind = 9, "hub.kind");
        refused(|h| h.state = 0, "hub.state");
        refused(|h| h.location.get_or_insert_default().longitude = f64::INFINITY, "hub.location");
        refused(|h| h.created_at = None, "hub.created_at");
        refused(|h| h.etag = "7".to_owned(), "hub.etag");
        refused(|h| h.incarnation = "x".to_owned(), "hub.incarnation");
    }
}
