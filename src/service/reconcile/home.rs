//! The newest state known of a device at its home: of the hub's own copy, what was seen in its feed, and what the journal
//! brought there.

use crate::domain::{DeviceState, Fault, HubStatus, Order, Registration, Timestamp, Twin};
use crate::hubs::{HubConnector, Sighting};
use crate::moves::Move;
use crate::moves::plan::Side;
use crate::service::fault;

use super::{Reinstatement, Run, away};

/// A state, where it is from and when it was so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Newest {
    pub state: Box<DeviceState>,
    pub became: Reinstatement,
    pub seen_at: Option<Timestamp>,
    /// What the hub had of an earlier time that the device lived there, or of an earlier life of it: for the history.
    pub older: Option<Box<DeviceState>>,
}

impl Run {
    /// What the home of `record` is to have, from all that is known of it.
    pub(super) async fn newest(
        &self,
        record: &Registration,
        open: &[Move],
        connector: &dyn HubConnector,
    ) -> Result<Newest, Fault> {
        let inner = &self.ground;
        let Some(home) = &record.assignment else {
            return Err(Fault::new(crate::domain::Reason::Internal, format!("{} has no home", record.id)));
        };
        let own = connector.read(&record.device_id).await.map_err(|why| away(&home.hub, why))?;
        let (own, older) = of_this_time(own, home.generation);
        let seen = inner.store.load_last_known(&record.id).await.map_err(fault::of_store)?;
        let seen = seen.filter(|seen| seen.hub == home.hub).map(|seen| (*seen.state, seen.seen_at));
        // A journal that cannot be replayed says nothing here, and its device's actor says that.
        let brought = inner.store.load_move(home.generation).await.map_err(fault::of_store)?;
        let brought = brought.and_then(|log| Move::replay(log).ok());
        let of_here = |this: &Move| this.intent.plan.hub(Side::From) == Some(&home.hub);
        let mut journaled: Vec<_> =
            brought.and_then(|this| Some((this.arriving_state()?, this.at))).into_iter().collect();
        // Moves away from here that came to nothing, or may: what they sealed was this home's.
        let leaving = open.iter().filter(|this| this.generation > home.generation && of_here(this));
        journaled.extend(leaving.filter_map(Move::left_state).map(|known| (*known.state, known.seen_at)));
        for later in record.past.moves.iter().filter(|it| **it > home.generation) {
            let log = inner.store.load_move(*later).await.map_err(fault::of_store)?;
            let left = log.and_then(|log| Move::replay(log).ok());
            let left = left.filter(of_here);
            let known = left.and_then(|this| this.left_state());
            journaled.extend(known.map(|known| (*known.state, known.seen_at)));
        }
        let journaled = journaled.into_iter().max_by_key(|(state, _)| state.twin.progress());
        if let Some(newest) = choose(own, seen, journaled) {
            return Ok(Newest { older, ..newest });
        }
        let enrollment = inner.store.load_enrollment(&record.enrollment).await.map_err(fault::of_store)?;
        let initial = enrollment.map(|enrollment| enrollment.initial.clone()).unwrap_or_default();
        let twin = Twin::initial(&initial, inner.clock.now());
        let state = DeviceState { twin, capabilities: initial.capabilities, status: HubStatus::Enabled };
        Ok(Newest { state: Box::new(state), became: Reinstatement::StartedAnew, seen_at: None, older })
    }
}

/// What a hub has, when it is of the time that the device lives there now; else what is for the history: versions of
/// another time say nothing of this one.
fn of_this_time(own: Option<Sighting>, generation: Order) -> (Option<DeviceState>, Option<Box<DeviceState>>) {
    match own {
        Some(own) if own.generation == generation => (Some(own.state), None),
        Some(own) => (None, Some(Box::new(own.state))),
        None => (None, None),
    }
}

/// The state that is furthest; of several, the hub's own, then what was seen. Whoever was kept out by the newest
/// of what is known stays out: a status has no version.
fn choose(
    own: Option<DeviceState>,
    seen: Option<(DeviceState, Timestamp)>,
    brought: Option<(DeviceState, Timestamp)>,
) -> Option<Newest> {
    let elsewhere = if own.is_some() { Reinstatement::Replaced } else { Reinstatement::Recreated };
    let last_seen = seen.as_ref().or(brought.as_ref()).map(|(_, at)| *at);
    let all = [
        brought.map(|(state, at)| (state, elsewhere, Some(at))),
        seen.map(|(state, at)| (state, elsewhere, Some(at))),
        own.map(|state| (state, Reinstatement::Kept, last_seen)),
    ];
    let kept_out = |state: &DeviceState| match &state.status {
        HubStatus::Disabled { .. } => Some(state.status.clone()),
        HubStatus::Enabled => None,
    };
    let newest = all.iter().flatten().map(|(state, ..)| state.twin.progress()).max()?;
    let of_newest = || all.iter().flatten().filter(|(state, ..)| state.twin.progress() == newest);
    let status = of_newest().find_map(|(state, ..)| kept_out(state));
    let (state, became, seen_at) = of_newest().next_back()?.clone();
    let state = DeviceState { status: status.unwrap_or(state.status), ..state };
    Some(Newest { state: Box::new(state), became, seen_at, older: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples::device_state;

    fn state(version: u64, disabled: bool) -> DeviceState {
        let mut state = device_state();
        state.twin.version = version;
        state.status = match disabled {
            true => HubStatus::Disabled { reason: "lost".to_owned() },
            false => HubStatus::Enabled,
        };
        state
    }

    #[test]
    fn the_newest_of_what_is_known() {
        use Reinstatement::{Kept, Recreated, Replaced};
        let at = |version, at| Some((state(version, false), Timestamp(at)));
        for (own, seen, brought, expected) in [
            (None, None, None, None),
            (Some(5), None, None, Some((5, Kept, None))),
            (Some(5), at(5, 10), at(1, 3), Some((5, Kept, Some(10)))),
            (Some(7), at(5, 10), None, Some((7, Kept, Some(10)))),
            (Some(4), at(5, 10), at(1, 3), Some((5, Replaced, Some(10)))),
            (Some(4), None, at(9, 3), Some((9, Replaced, Some(3)))),
            (None, at(5, 10), at(1, 3), Some((5, Recreated, Some(10)))),
            (None, at(2, 10), at(6, 20), Some((6, Recreated, Some(20)))),
            (None, None, at(1, 3), Some((1, Recreated, Some(3)))),
        ] {
            let found = choose(own.map(|version| state(version, false)), seen, brought);
            let found = found.map(|newest| (newest.state.twin.version, newest.became, newest.seen_at.map(|at| at.0)));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_of_another_time_is_for_the_history() {
        use crate::hubs::entry::Phase;
        let at = |generation| Sighting {
            device: "d".parse().unwrap(),
            generation: Order(generation),
            phase: Phase::Open,
            state: state(100, false),
        };
        assert_eq!(of_this_time(Some(at(7)), Order(7)), (Some(state(100, false)), None));
        assert_eq!(of_this_time(Some(at(3)), Order(7)), (None, Some(Box::new(state(100, false)))));
        assert_eq!(of_this_time(None, Order(7)), (None, None));
    }

    #[test]
    fn who_was_kept_out_stays_out() {
        let disabled = |own, seen| {
            let seen = Some((seen, Timestamp(1)));
            choose(Some(own), seen, None).unwrap().state.status != HubStatus::Enabled
        };
        assert!(disabled(state(5, false), state(5, true)));
        assert!(disabled(state(5, true), state(5, false)));
        assert!(!disabled(state(6, false), state(5, true)), "what is newer decides");
    }
}
