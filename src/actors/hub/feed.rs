//! Reading a hub's change feed: what the service knows of its homes when a hub is away.
//!
//! Read page by page every so often, as far as there is something new; each page and the place after it are one commit, so
//! that a crash repeats a page at most. A feed in which nothing has changed costs the hub one look and the store nothing.

use std::time::Duration;

use crate::domain::{CallFault, FeedToken, Hub, HubId, Incarnation, Timestamp, limits};
use crate::hubs::HubConnector;
use crate::store::{Change, Commit, CommitFault, Store, StoreFault};

/// Pages in one go: an eighth of a million devices. A hub with more is read on in the next round.
const PAGES_MAX: usize = 1024;

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedRead {
    /// Devices whose states were read.
    pub devices: u64,
    /// Everything that the hub had was read at this time.
    pub up_to: Option<Timestamp>,
}

/// Why a round came to nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedFault {
    #[error("{0}")]
    Hub(#[from] CallFault),
    #[error("the hub was restored from an older copy and waits to be gone through")]
    Waits,
    #[error("the hub's data has another incarnation, {current}")]
    Restored { current: Incarnation },
    #[error("{0}")]
    Read(#[from] StoreFault),
    #[error("{0}")]
    Write(#[from] CommitFault),
}

/// What a round needs.
#[derive(Debug)]
pub struct FeedRound<'a> {
    pub hub: HubId,
    pub incarnation: Option<Incarnation>,
    pub connector: &'a dyn HubConnector,
    pub store: &'a dyn Store,
}

impl<'a> FeedRound<'a> {
    pub fn of(hub: &Hub, connector: &'a dyn HubConnector, store: &'a dyn Store) -> Self {
        Self { hub: hub.id.clone(), incarnation: hub.incarnation, connector, store }
    }

    /// Reads what is new. `now` is asked before each page: what the page shows is at least as new.
    pub async fn read(&self, now: impl Fn() -> Timestamp) -> Result<FeedRead, FeedFault> {
        let mut since: Option<FeedToken> = self.store.load_feed(&self.hub).await?;
        let mut read = FeedRead { devices: 0, up_to: None };
        for _ in 0..PAGES_MAX {
            let seen_at = now();
            let page = self.connector.changes(since, limits::FEED_ROWS_MAX).await?;
            if self.incarnation.is_some_and(|known| known != page.next.incarnation) {
                return Err(FeedFault::Restored { current: page.next.incarnation });
            }
            if since != Some(page.next) {
                read.devices += page.rows.len() as u64;
                let rows = page.rows.into_iter().map(|row| (row.device, row.state)).collect();
                let note = Change::NoteSeen { hub: self.hub.clone(), token: page.next, seen_at, rows };
                self.store.commit(Commit { changes: vec![note], ..Commit::default() }).await?;
            }
            since = Some(page.next);
            if !page.more {
                read.up_to = Some(seen_at);
                break;
            }
        }
        Ok(read)
    }
}

/// The pause before the next round: spread by a quarter either way, so that hubs are not read in step.
pub(super) fn pause(every: Duration, draw: u128) -> Duration {
    let spread = (draw % 1000) as f64 / 2000.0;
    every.mul_f64(0.75 + spread)
}
