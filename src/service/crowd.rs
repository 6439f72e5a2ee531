//! How many registrations may be worked on at once, and when whoever is turned away should come back.
//!
//! A storm brings more devices than can be served. Whoever is taken is served; the others are turned away before anything
//! is looked up for them, with a time to come back that is spread over as long as it takes to serve all that were turned
//! away: they do not come back together, and the more there are, the later. Only the work up to the decision counts, never
//! the wait for a move.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is served in one of these tells how fast the service is.
const WINDOW: Duration = Duration::from_secs(1);
/// Nobody comes back sooner.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// And nobody waits longer than a storm of a million devices lasts at a thousand a second, less those that give up.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// See the module's documentation.
#[derive(Debug)]
pub struct Crowd {
    places: usize,
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    inside: usize,
    /// Turned away, and not served since as far as the pace tells.
    away: u64,
    /// When this window began, and who was served in it.
    window_at: Duration,
    served: u64,
    /// Served in the last whole window.
    pace: u64,
}

/// A place among those that are worked on; free again when it is dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a Crowd);

impl Crowd {
    pub fn new(places: usize) -> Self {
        Self { places, count: Mutex::default() }
    }

    /// A place, or how long to stay away. `now` is time since some fixed moment, `draw` a random number.
    pub fn enter(&self, now: Duration, draw: u128) -> Result<Place<'_>, Duration> {
        let mut count = self.lock();
        count.look_at_the_clock(now);
        if count.inside < self.places {
            count.inside += 1;
            return Ok(Place(self));
        }
        count.away += 1;
        // Not less than the places: they are all served in well under a second.
        let pace = count.pace.max(self.places as u64).max(1);
        let all_served_after = Duration::from_secs_f64(count.away as f64 / pace as f64);
        let spread = (2 * WAIT_MIN).max(all_served_after).min(WAIT_MAX) - WAIT_MIN;
        let part = (draw % 1_000_000) as f64 / 1e6;
        Err(WAIT_MIN + spread.mul_f64(part))
    }

    /// Who is worked on now.
    pub fn inside(&self) -> usize {
        self.lock().inside
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        // Whoever holds it counts and does nothing else.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut count = self.0.lock();
        count.inside = count.inside.saturating_sub(1);
        count.served += 1;
    }
}

impl Count {
    fn look_at_the_clock(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.window_at);
        if passed < WINDOW {
            return;
        }
        self.pace = (self.served as f64 / passed.as_secs_f64()) as u64;
        // Those that were turned away are among those that were served since.
        self.away = self.away.saturating_sub(self.served);
        (self.window_at, self.served) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: u128 = 999_999;

    #[test]
    fn as_many_are_let_in_as_there_are_places() {
        let crowd = Crowd::new(2);
        let first = crowd.enter(Duration::ZERO, 0).unwrap();
        let second = crowd.enter(Duration::ZERO, 0).unwrap();
        assert_eq!(crowd.inside(), 2);
        assert_eq!(crowd.enter(Duration::ZERO, 0).unwrap_err(), WAIT_MIN);
        drop(first);
        let third = crowd.enter(Duration::ZERO, 0).unwrap();
        assert!(crowd.enter(Duration::ZERO, 0).is_err());
        drop((second, third));
        assert_eq!(crowd.inside(), 0);
    }

    #[test]
    fn the_more_are_turned_away_the_later_they_come_back_and_never_together() {
        let crowd = Crowd::new(10);
        let taken: Vec<_> = (0..10).map(|_| crowd.enter(Duration::ZERO, 0).unwrap()).collect();
        let mut latest = Vec::new();
        for turned_away in 1..=10_000_u32 {
            let wait = crowd.enter(Duration::ZERO, LATE).unwrap_err();
            if [1, 10, 100, 1_000, 10_000].contains(&turned_away) {
                latest.push(wait.as_secs_f64().round());
            }
        }
        assert_eq!(latest, [2.0, 2.0, 10.0, 100.0, 600.0], "at ten a second, and within the bound");
        let spread: Vec<_> = [0, 250_000, 500_000].map(|draw| crowd.enter(Duration::ZERO, draw).unwrap_err()).into();
        assert!(spread.windows(2).all(|pair| pair[1] - pair[0] > Duration::from_secs(100)), "{spread:?}");
        drop(taken);
    }

    #[test]
    fn a_storm_that_is_served_is_forgotten() {
        let crowd = Crowd::new(1);
        let at = |seconds| Duration::from_secs(seconds);
        let place = crowd.enter(at(0), 0).unwrap();
        for _ in 0..100 {
            crowd.enter(at(0), 0).unwrap_err();
        }
        let before = crowd.enter(at(0), LATE).unwrap_err();
        drop(place);
        for _ in 0..99 {
            drop(crowd.enter(at(0), 0).unwrap());
        }
        let place = crowd.enter(at(1), 0).unwrap();
        let after = crowd.enter(at(1), LATE).unwrap_err();
        assert!(before > at(99) && after < at(3), "{before:?} {after:?}");
        drop(place);
    }
}
