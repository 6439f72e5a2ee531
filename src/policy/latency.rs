//! How near a hub is to a device, by what the device says of itself.

use std::cmp::Reverse;

use crate::domain::{ClientFacts, HubId};

use super::allocation::{HubView, NotTaken};

/// Less is nearer. A latency the device measured tells more than a distance, and a distance more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    Milliseconds(u32),
    /// Whole kilometres: the last digits of a distance differ between platforms and must not decide.
    Kilometres(u32),
    Unknown,
}

impl Nearness {
    pub fn of(view: &HubView, facts: &ClientFacts) -> Self {
        let reported = facts.latencies.iter().filter(|latency| latency.hub == view.hub.id);
        if let Some(milliseconds) = reported.map(|latency| latency.milliseconds).min() {
            return Nearness::Milliseconds(milliseconds);
        }
        match (facts.location, view.hub.location) {
            // Half the circumference of the Earth is 20,015 km: the cast cannot truncate.
            (Some(device), Some(hub)) => Nearness::Kilometres(device.kilometres_to(hub).round() as u32),
            (Some(_), None) | (None, Some(_) | None) => Nearness::Unknown,
        }
    }

    /// Why a hub this near was not taken when `best` was.
    fn behind(self, best: Nearness) -> NotTaken {
        match (self, best) {
            (Nearness::Milliseconds(milliseconds), Nearness::Milliseconds(best)) if milliseconds > best => {
                NotTaken::Slower { milliseconds, best }
            }
            (Nearness::Kilometres(kilometres), Nearness::Kilometres(best)) if kilometres > best => {
                NotTaken::Farther { kilometres, best }
            }
            (Nearness::Milliseconds(_), _)
            | (Nearness::Kilometres(_), Nearness::Kilometres(_) | Nearness::Unknown)
            | (Nearness::Unknown, Nearness::Unknown) => NotTaken::LostTie,
            (Nearness::Kilometres(_), Nearness::Milliseconds(_)) => NotTaken::LatencyNotReported,
            (Nearness::Unknown, Nearness::Milliseconds(_) | Nearness::Kilometres(_)) => NotTaken::NearnessUnknown,
        }
    }
}

/// The nearest of some hubs.
#[derive(Debug)]
pub struct Nearest<'a> {
    pub taken: &'a HubView,
    pub nearness: Nearness,
    /// Why not each other one.
    pub others: Vec<(HubId, NotTaken)>,
}

/// The nearest of the candidates; of equally near ones the heaviest, then the first by id. `None` when nothing is known
/// of any.
pub fn nearest<'a>(candidates: &[&'a HubView], facts: &ClientFacts) -> Option<Nearest<'a>> {
    let mut ranked: Vec<(Nearness, &'a HubView)> =
        candidates.iter().map(|view| (Nearness::of(view, facts), *view)).collect();
    ranked.sort_by_key(|(nearness, view)| (*nearness, Reverse(view.hub.weight), view.hub.id.clone()));
    let ((nearness, taken), others) = ranked.split_first()?;
    if *nearness == Nearness::Unknown {
        return None;
    }
    let others = others.iter().map(|(other, view)| (view.hub.id.clone(), other.behind(*nearness))).collect();
    Some(Nearest { taken, nearness: *nearness, others })
}
