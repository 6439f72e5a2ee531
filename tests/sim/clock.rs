//! A clock that the script moves: forward by steps and leaps, and back. What measures spans never goes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rehome::ambient::Clock;
use rehome::domain::Timestamp;
use tokio::sync::oneshot;

#[derive(Debug)]
pub struct SimClock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    passed: Duration,
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    next: u64,
}

impl SimClock {
    pub fn at(now: Timestamp) -> Self {
        let state = State { now, passed: Duration::ZERO, sleepers: BTreeMap::new(), next: 0 };
        Self { state: Mutex::new(state) }
    }

    pub fn advance(&self, span: Duration) {
        let mut state = self.lock();
        state.now = state.now.plus(span);
        state.passed += span;
    }

    /// The wall clock is set back.
    pub fn set_back(&self, span: Duration) {
        let mut state = self.lock();
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        state.now = Timestamp(state.now.0.saturating_sub(span));
    }

    /// Wakes everyone whose time has come.
    pub fn wake(&self) {
        let mut state = self.lock();
        let first_later = Timestamp(state.now.0.saturating_add(1));
        let later = state.sleepers.split_off(&(first_later, 0));
        let due = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        // One that was dropped needs no waking.
        for sleeper in due.into_values() {
            let _ = sleeper.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn monotonic(&self) -> Duration {
        self.lock().passed
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
            // The sender is dropped only with the clock.
            let _ = woken.await;
        })
    }
}
