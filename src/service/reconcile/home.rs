//! The newest state known of a device at its home: of the hub's own copy, what was seen in its feed, and what the journal
//! brought there.

use crate::domain::{DeviceState, Fault, HubStatus, Registration, Timestamp, Twin};
use crate::hubs::HubConnector;
use crate::moves::Move;
use crate::service::fault;

use super::{Reinstatement, Run, away};

/// A state, where it is from and when it was so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Newest {
    pub state: Box<DeviceState>,
    pub became: Reinstatement,
    pub seen_at: Option<Timestamp>,
}

impl Run {
    /// What the home of `record` is to have, from all that is known of it.
    pub(super) async fn newest(&self, record: &Registration, connector: &dyn HubConnector) -> Result<Newest, Fault> {
        let inner = &self.service.inner;
        let Some(home) = &record.assignment else {
            return Err(Fault::new(crate::domain::Reason::Internal, format!("{} has no home", record.id)));
        };
        let own = connector.read(&record.device_id).await.map_err(|why| away(&home.hub, why))?;
        let seen = inner.store.load_last_known(&record.id).await.map_err(fault::of_store)?;
        let seen = seen.filter(|seen| seen.hub == home.hub).map(|seen| (*seen.state, seen.seen_at));
        let brought = inner.store.load_move(home.generation).await.map_err(fault::of_store)?;
        // A journal that cannot be replayed says nothing here, and its device's actor says that.
        let brought = brought.and_then(|log| Move::replay(log).ok());
        let brought = brought.and_then(|this| Some((this.arriving_state()?, this.at)));
        if let Some(newest) = choose(own, seen, brought) {
            return Ok(newest);
        }
        let enrollment = inner.store.load_enrollment(&record.enrollment).await.map_err(fault::of_store)?;
        let initial = enrollment.map(|enrollment| enrollment.initial.clone()).unwrap_or_default();
        let twin = Twin::initial(&initial, inner.clock.now());
        let state = DeviceState { twin, capabilities: initial.capabilities, status: HubStatus::Enabled };
        Ok(Newest { state: Box::new(state), became: Reinstatement::StartedAnew, seen_at: None })
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
    Some(Newest { state: Box::new(state), became, seen_at })
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
