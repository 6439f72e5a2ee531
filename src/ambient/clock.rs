//! Clocks: the system's, and one that a test moves by hand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::domain::Timestamp;

/// What time it is, and waiting until it is later.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall-clock time, UTC. May jump: never measure spans that matter for safety with it.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment, which never goes back: for measuring how long something took.
    fn monotonic(&self) -> Duration;

    /// Resolves once the clock has reached `at`.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// Resolves after `span`.
    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now().plus(span))
    }
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(at.since(self.now())))
    }
}

/// A clock that stands still until it is advanced.
#[derive(Debug, Default)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug, Default)]
struct ManualState {
    now: Timestamp,
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    next: u64,
}

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self { state: Mutex::new(ManualState { now, ..ManualState::default() }) }
    }

    /// Moves time forward and wakes everyone whose time has come.
    pub fn advance(&self, span: Duration) {
        let mut state = self.lock();
        state.now = state.now.plus(span);
        let first_later = Timestamp(state.now.0.saturating_add(1));
        let later = state.sleepers.split_off(&(first_later, 0));
        let due = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        for (_, sleeper) in due {
            // A sleeper that was dropped needs no waking.
            let _ = sleeper.send(());
        }
    }

    /// How many wait for a later time: lets a test know that a timer was set before it advances.
    pub fn sleepers(&self) -> usize {
        let mut state = self.lock();
        state.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        state.sleepers.len()
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn monotonic(&self) -> Duration {
        self.now().since(Timestamp(0))
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut state = self.lock();
        if at <= state.now {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let key = (at, state.next);
        state.next += 1;
        state.sleepers.insert(key, wake);
        Box::pin(async move {
            // The sender is dropped only with the clock: nobody is left to care.
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_whose_time_has_come() {
        let clock = ManualClock::at(Timestamp(1_000));
        let (early, late) = (clock.sleep(Duration::from_secs(1)), clock.sleep(Duration::from_secs(2)));
        assert_eq!(clock.sleepers(), 2);
        clock.advance(Duration::from_secs(1));
        early.await;
        assert_eq!((clock.now(), clock.sleepers()), (Timestamp(2_000), 1));
        clock.advance(Duration::from_secs(1));
        late.await;
        clock.sleep_until(Timestamp(5)).await;
    }
}
