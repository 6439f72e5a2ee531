//! Counts refusals: so many for each address, and fewer for each address and registration id together.
//!
//! Only refusals cost something, and each is counted for the address it came from: nobody can lock out a stranger's
//! device. The tables are bounded; when one is full the older half is forgotten, which only ever lets someone try again.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{RegistrationId, Timestamp};

use super::Config;

/// See the module's documentation.
#[derive(Debug)]
pub struct Throttle {
    peers: Mutex<Table<IpAddr>>,
    ids: Mutex<Table<(IpAddr, RegistrationId)>>,
}

impl Throttle {
    pub fn new(config: &Config) -> Self {
        let peer = Rate { burst: config.refusals_per_peer, regained_after: config.refusal_regained_after };
        let id = Rate { burst: config.refusals_per_id, regained_after: config.id_refusal_regained_after };
        Self {
            peers: Mutex::new(Table::new(peer, config.throttled_max)),
            ids: Mutex::new(Table::new(id, config.throttled_max)),
        }
    }

    /// Counts challenges that were made, with bounds of their own: each costs some hundred microseconds of work.
    pub fn of_challenges(config: &Config) -> Self {
        Self::new(&Config {
            refusals_per_peer: config.challenges_per_peer,
            refusal_regained_after: config.challenge_regained_after,
            refusals_per_id: config.challenges_per_id,
            id_refusal_regained_after: config.id_challenge_regained_after,
            ..config.clone()
        })
    }

    /// How long the peer must wait before it may be refused once more; zero when it need not.
    pub fn wait(&self, peer: IpAddr, id: &RegistrationId, now: Timestamp) -> Duration {
        let by_peer = lock(&self.peers).wait(&subnet(peer), now);
        by_peer.max(lock(&self.ids).wait(&(subnet(peer), id.clone()), now))
    }

    /// Counts a refusal.
    pub fn note(&self, peer: IpAddr, id: &RegistrationId, now: Timestamp) {
        lock(&self.peers).note(subnet(peer), now);
        lock(&self.ids).note((subnet(peer), id.clone()), now);
    }
}

/// One subscriber of IPv6 is given up to 2^72 addresses (a network of 56 bits, by which several sites of one are told
/// apart): they count as one.
pub fn subnet(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !(u128::MAX >> 56)).into()),
    }
}

fn lock<K>(table: &Mutex<Table<K>>) -> MutexGuard<'_, Table<K>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    regained_after: Duration,
}

/// For each key the time at which its bucket is full again: an absent key has a full one.
#[derive(Debug)]
struct Table<K> {
    rate: Rate,
    keys_max: usize,
    full_at: HashMap<K, Timestamp>,
}

impl<K: Eq + Hash + Clone> Table<K> {
    fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, full_at: HashMap::new() }
    }

    fn wait(&self, key: &K, now: Timestamp) -> Duration {
        let Some(full_at) = self.full_at.get(key) else { return Duration::ZERO };
        let missing = full_at.since(now);
        // One more fits as soon as at most `burst - 1` are missing.
        missing.saturating_sub(self.rate.regained_after * self.rate.burst.saturating_sub(1))
    }

    fn note(&mut self, key: K, now: Timestamp) {
        if self.full_at.len() >= self.keys_max && !self.full_at.contains_key(&key) {
            self.make_room(now);
        }
        // A clock that went back must not leave a key waiting for longer than its bucket takes to fill.
        let longest = now.plus(self.rate.regained_after * self.rate.burst);
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = (*full_at).max(now).plus(self.rate.regained_after).min(longest);
    }

    fn make_room(&mut self, now: Timestamp) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() < self.keys_max {
            return;
        }
        let mut times: Vec<Timestamp> = self.full_at.values().copied().collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        self.full_at.retain(|_, full_at| *full_at > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_000_000);

    fn throttle() -> Throttle {
        Throttle::new(&Config {
            refusals_per_peer: 3,
            refusal_regained_after: Duration::from_secs(1),
            refusals_per_id: 2,
            id_refusal_regained_after: Duration::from_secs(10),
            throttled_max: 4,
            ..Config::default()
        })
    }

    fn id(text: &str) -> RegistrationId {
        RegistrationId::parse(text).unwrap()
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_waits_after_its_burst_and_others_do_not() {
        let (throttle, one, other) = (throttle(), peer("10.0.0.1"), peer("10.0.0.2"));
        for n in 0..3 {
            assert_eq!(throttle.wait(one, &id(&format!("d{n}")), START), Duration::ZERO, "{n}");
            throttle.note(one, &id(&format!("d{n}")), START);
        }
        assert_eq!(throttle.wait(one, &id("d9"), START), Duration::from_secs(1));
        assert_eq!(throttle.wait(other, &id("d0"), START), Duration::ZERO);
        assert_eq!(throttle.wait(one, &id("d9"), START.plus(Duration::from_secs(1))), Duration::ZERO);
    }

    #[test]
    fn an_id_waits_longer_at_the_address_that_failed_with_it_only() {
        let (throttle, one) = (throttle(), peer("10.0.0.1"));
        throttle.note(one, &id("dev"), START);
        throttle.note(one, &id("DEV"), START);
        assert_eq!(throttle.wait(one, &id("dev"), START), Duration::from_secs(10));
        assert_eq!(throttle.wait(one, &id("else"), START), Duration::ZERO);
        assert_eq!(throttle.wait(peer("10.0.0.2"), &id("dev"), START), Duration::ZERO);
    }

    #[test]
    fn the_tables_are_bounded_and_one_network_of_ipv6_is_one_peer() {
        let throttle = throttle();
        for n in 0..100_u8 {
            throttle.note(peer(&format!("10.0.0.{n}")), &id("dev"), START.plus(Duration::from_millis(n.into())));
        }
        assert!(lock(&throttle.peers).full_at.len() <= 4);
        assert_eq!(subnet(peer("2001:db8::1")), subnet(peer("2001:db8::ffff:1")));
        assert_eq!(subnet(peer("::ffff:10.0.0.1")), peer("10.0.0.1"));
        assert_eq!(subnet(peer("2001:db8::1")), subnet(peer("2001:db8:0:ff::1")));
        assert_ne!(subnet(peer("2001:db8::1")), subnet(peer("2001:db8:0:100::1")));
    }
}
