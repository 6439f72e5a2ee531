//! Hubs in the file.

use super::{Decoded, Stored, fault, form, hub_id, text};
use crate::domain::{FeedToken, Geo, Hub, Incarnation, Timestamp, Version};
use crate::store::LastKnown;

impl Stored for LastKnown {
    const WHAT: &'static str = "state seen";
    type Record = form::LastKnown;

    fn to_record(&self) -> form::LastKnown {
        form::LastKnown { hub: text(&self.hub), state: (&*self.state).into(), seen_at: self.seen_at.0 }
    }

    fn from_record(record: form::LastKnown) -> Decoded<Self> {
        Ok(Self {
            hub: hub_id(&record.hub)?,
            state: Box::new(record.state.try_into()?),
            seen_at: Timestamp(record.seen_at),
        })
    }
}

impl Stored for FeedToken {
    const WHAT: &'static str = "place in a feed";
    type Record = (u128, u64);

    fn to_record(&self) -> (u128, u64) {
        (self.incarnation.0, self.position)
    }

    fn from_record((incarnation, position): (u128, u64)) -> Decoded<Self> {
        Ok(Self { incarnation: Incarnation(incarnation), position })
    }
}

impl Stored for Hub {
    const WHAT: &'static str = "hub";
    type Record = form::Hub;

    fn to_record(&self) -> form::Hub {
        form::Hub {
            id: text(&self.id),
            host_name: self.host_name.clone(),
            endpoint: self.endpoint.clone(),
            kind: (&self.kind).into(),
            state: (&self.state).into(),
            location: self.location.map(|at| (at.latitude, at.longitude)),
            weight: self.weight,
            capacity: self.capacity,
            calls_per_second: self.calls_per_second,
            incarnation: self.incarnation.map(|it| it.0),
            taken_down: self.taken_down,
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
            version: self.version.0,
        }
    }

    fn from_record(record: form::Hub) -> Decoded<Self> {
        let location = |(latitude, longitude)| {
            Geo::new(latitude, longitude).ok_or_else(|| fault("location", "is not a point on Earth"))
        };
        Ok(Self {
            id: hub_id(&record.id)?,
            host_name: record.host_name,
            endpoint: record.endpoint,
            kind: record.kind.into(),
            state: record.state.into(),
            location: record.location.map(location).transpose()?,
            weight: record.weight,
            capacity: record.capacity,
            calls_per_second: record.calls_per_second,
            incarnation: record.incarnation.map(Incarnation),
            taken_down: record.taken_down,
            created_at: Timestamp(record.created_at),
            updated_at: Timestamp(record.updated_at),
            version: Version(record.version),
        })
    }
}
