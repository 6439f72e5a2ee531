//! Looks after what nobody asks for: devices whose actor stopped in the middle are taken up again, and the gauges of
//! moves and obligations are written.
//!
//! It takes no input and keeps no state: it looks at the store and brings things forward. Taking up a device that is
//! awake already changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::Timestamp;
use crate::moves::{Effect, Standing};
use crate::telemetry::{self, ActorKind};

use super::directory::Directory;

/// Devices whose standing is read for the gauges in one round: beyond that the gauges say what the first ones say, since
/// reading a hundred thousand journals every few seconds would slow the moves that they are about.
const SAMPLE_MAX: usize = 2_000;

/// Every kind of step and obligation, so that a gauge that falls to nothing is written too.
const EFFECTS: [Effect; 9] = [
    Effect::Seal,
    Effect::Create,
    Effect::Withhold,
    Effect::UpdateCredential,
    Effect::Activate,
    Effect::Unseal,
    Effect::Delete,
    Effect::Collect,
    Effect::ReplaceTwin,
];

impl Directory {
    /// Goes round for ever; dropped to stop.
    pub async fn look_after(&self, every: Duration) {
        let surroundings = self.surroundings();
        loop {
            surroundings.clock.sleep(every).await;
            if let Err(fault) = self.look_once(surroundings.clock.now()).await {
                tracing::warn!("unfinished moves could not be looked after: {fault}");
            }
        }
    }

    async fn look_once(&self, now: Timestamp) -> Result<(), crate::store::StoreFault> {
        let store = &self.surroundings().store;
        let unfinished = store.unfinished().await?;
        let mut steps: BTreeMap<Effect, (usize, Duration)> = BTreeMap::new();
        let mut owed: BTreeMap<Effect, (usize, usize)> = BTreeMap::new();
        for (place, id) in unfinished.iter().enumerate() {
            self.activate(id);
            if place >= SAMPLE_MAX {
                continue;
            }
            let file = store.load_device(id).await?;
            // What cannot be read is said by the device's own actor.
            let Ok(Some(standing)) = Standing::read(file.registration.as_ref(), file.open) else { continue };
            if let Some(running) = &standing.running {
                let (count, oldest) = steps.entry(running.effect).or_default();
                *count += 1;
                *oldest = (*oldest).max(now.since(running.since));
            }
            for obligation in &standing.obligations {
                let (open, stuck) = owed.entry(obligation.effect).or_default();
                *open += 1;
                *stuck += usize::from(obligation.stuck.is_some());
            }
        }
        for effect in EFFECTS {
            let (count, oldest) = steps.get(&effect).copied().unwrap_or_default();
            telemetry::moves_in_step(effect.as_str(), count, oldest);
            let (open, stuck) = owed.get(&effect).copied().unwrap_or_default();
            telemetry::obligations_owed(effect.as_str(), open, stuck);
        }
        telemetry::actors_active(ActorKind::Device, self.awake());
        telemetry::actors_active(ActorKind::Hub, self.fleet().berths().len());
        Ok(())
    }
}
