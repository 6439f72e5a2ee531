//! The lease of a hub, as the service keeps it: when the last renewal was sent, and what the hub must seal first.
//!
//! ```text
//! the hub accepts writes until: the moment it gave out the ticket of the last renewal + LEASE_FOR
//! a ticket is older than the renewal that carries it, so: over at the latest LEASE_FOR after that renewal was sent
//! ```
//!
//! A bypass does not stop renewals as such: from its commit on every renewal carries it on the list, and a hub takes the
//! list before its lease is extended. So the bypassed home is closed as soon as the hub has answered such a renewal, or
//! when the last renewal *without* it has run out. After a start nobody knows what was sent before: everything counts
//! from the start, and nothing is renewed before the bypasses that still stand have been read from the store.

use std::time::Duration;

use crate::domain::{MustSeal, limits};
use crate::hubs::LeaseTicket;

use super::super::messages::Reply;

/// Lines of the list in one renewal: some 100 KiB.
pub(super) const LIST_MAX: usize = 1000;

/// See the module's documentation. Times are the service's own monotonic clock.
#[derive(Debug)]
pub struct Lease {
    pub ticket: Option<LeaseTicket>,
    /// When the last renewal was sent that extended something, or the start.
    sent_at: Duration,
    list: Vec<Bypass>,
    /// What stands in the store is on the list.
    loaded: bool,
}

/// A bypass that the hub has not taken yet.
#[derive(Debug)]
struct Bypass {
    must: MustSeal,
    /// When the last renewal that did not carry it has surely run out.
    over_at: Duration,
    waiting: Vec<Reply<()>>,
}

impl Lease {
    pub fn new(now: Duration) -> Self {
        Self { ticket: None, sent_at: now, list: Vec::new(), loaded: false }
    }

    /// When what was sent until now has run out for sure.
    fn over_at(&self) -> Duration {
        self.sent_at + limits::LEASE_FOR + limits::LEASE_MARGIN
    }

    /// The bypasses that stand in the store: what was asked meanwhile stays.
    pub fn load(&mut self, stored: Vec<MustSeal>) {
        let over_at = self.over_at();
        for must in stored {
            if !self.list.iter().any(|bypass| bypass.must == must) {
                self.list.push(Bypass { must, over_at, waiting: Vec::new() });
            }
        }
        self.loaded = true;
    }

    /// A bypass was committed. Answers how long whoever asks has to wait; the reply is kept till then.
    pub fn bypass(&mut self, must: MustSeal, reply: Reply<()>, now: Duration) -> Duration {
        let over_at = self.over_at();
        match self.list.iter_mut().find(|bypass| bypass.must == must) {
            Some(bypass) => {
                bypass.waiting.push(reply);
                bypass.over_at.saturating_sub(now)
            }
            None => {
                self.list.push(Bypass { must, over_at, waiting: vec![reply] });
                over_at.saturating_sub(now)
            }
        }
    }

    /// What the next renewals carry. `None`: nothing may be sent yet.
    pub fn list(&self) -> Option<Vec<MustSeal>> {
        self.loaded.then(|| self.list.iter().map(|bypass| bypass.must.clone()).collect())
    }

    /// A renewal that extends something is about to be sent.
    pub fn sending(&mut self, now: Duration) {
        self.sent_at = now;
    }

    /// The hub has taken these: their homes are closed.
    pub fn take(&mut self, taken: &[MustSeal]) {
        let list = std::mem::take(&mut self.list);
        let (done, left): (Vec<_>, Vec<_>) = list.into_iter().partition(|bypass| taken.contains(&bypass.must));
        self.list = left;
        tell(done.into_iter().flat_map(|bypass| bypass.waiting));
    }

    /// Time has passed: tells those for whom the lease is over. The hub takes them all the same before it writes on.
    pub fn look(&mut self, now: Duration) {
        for bypass in self.list.iter_mut().filter(|bypass| bypass.over_at <= now) {
            tell(bypass.waiting.drain(..));
        }
    }
}

fn tell(waiting: impl IntoIterator<Item = Reply<()>>) {
    for reply in waiting {
        // Whoever asked may have stopped: it asks again.
        let _ = reply.send(());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::domain::{DeviceId, Order};

    const SPAN: Duration = Duration::from_secs(32);

    fn must(order: u64) -> MustSeal {
        MustSeal { device: DeviceId::parse("d").unwrap(), generation: Order(1), order: Order(order) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn nothing_is_sent_before_the_store_was_read() {
        let mut lease = Lease::new(at(0));
        let (reply, _answer) = oneshot::channel();
        lease.bypass(must(5), reply, at(1));
        assert_eq!(lease.list(), None);
        lease.load(vec![must(4), must(5)]);
        assert_eq!(lease.list().unwrap().len(), 2);
    }

    #[test]
    fn a_bypass_waits_for_what_was_sent_without_it() {
        let mut lease = Lease::new(at(0));
        lease.load(Vec::new());
        lease.sending(at(100));
        let (reply, mut answer) = oneshot::channel();
        assert_eq!(lease.bypass(must(5), reply, at(110)), SPAN - at(10));
        // Renewals go on with it on the list, and put nothing off.
        lease.sending(at(111));
        lease.look(at(131));
        assert!(answer.try_recv().is_err());
        lease.look(at(132));
        assert!(answer.try_recv().is_ok());
        assert_eq!(lease.list().unwrap(), [must(5)], "the hub must take it all the same");
    }

    #[test]
    fn what_the_hub_has_taken_is_over_at_once() {
        let mut lease = Lease::new(at(0));
        lease.load(Vec::new());
        let (reply, mut answer) = oneshot::channel();
        lease.bypass(must(5), reply, at(1));
        lease.take(&[must(4)]);
        assert!(answer.try_recv().is_err());
        lease.take(&[must(5)]);
        assert!(answer.try_recv().is_ok());
        assert_eq!(lease.list(), Some(Vec::new()));
    }

    #[test]
    fn after_a_start_everything_counts_from_there() {
        let mut lease = Lease::new(at(50));
        let (reply, _answer) = oneshot::channel();
        assert_eq!(lease.bypass(must(5), reply, at(50)), SPAN);
    }
}
