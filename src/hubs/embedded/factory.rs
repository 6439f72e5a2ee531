//! Opens embedded hubs, each with a file of its own in one folder.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, ready};

use super::{Config, EmbeddedHub, SyncObserver};
use crate::ambient::{Clock, Entropy};
use crate::domain::{Hub, HubId, HubKind};
use crate::hubs::{HubConnector, HubFactory};

/// The embedded hubs of a service, by id.
pub struct EmbeddedHubs {
    folder: PathBuf,
    cache_bytes: usize,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    synced: SyncObserver,
    open: Mutex<HashMap<HubId, EmbeddedHub>>,
}

impl EmbeddedHubs {
    /// Files go to `folder`, which must be there; each hub keeps at most `cache_bytes` of its pages in memory.
    pub fn new(folder: PathBuf, cache_bytes: usize, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { folder, cache_bytes, clock, entropy, synced: Arc::new(|| {}), open: Mutex::default() }
    }

    /// Has somebody told of every group of any hub that was made durable.
    pub fn observed(self, synced: SyncObserver) -> Self {
        Self { synced, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HubId, EmbeddedHub>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, hub: &HubId) -> Option<EmbeddedHub> {
        self.lock().get(hub).cloned()
    }
}

impl fmt::Debug for EmbeddedHubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedHubs({}, {} open)", self.folder.display(), self.lock().len())
    }
}

impl HubFactory for EmbeddedHubs {
    fn open<'a>(&'a self, hub: &'a Hub) -> BoxFuture<'a, Result<Arc<dyn HubConnector>, String>> {
        Box::pin(async move {
            match hub.kind {
                HubKind::Embedded => {}
            }
            if self.find(&hub.id).is_some() {
                return Err("it is open already".to_owned());
            }
            // The service's capacity is a bound on choosing; what a hub holds meanwhile (staged, not yet collected) may
            // exceed it for a moment.
            let path = self.folder.join(format!("hub-{}.redb", hub.id));
            let config = Config { path, cache_bytes: self.cache_bytes, devices_max: None };
            let (clock, entropy, synced) = (self.clock.clone(), self.entropy.clone(), self.synced.clone());
            let opening = move || EmbeddedHub::open_observed(config, clock, entropy, synced);
            let opened = tokio::task::spawn_blocking(opening).await;
            let opened = opened.map_err(|error| error.to_string())?.map_err(|fault| fault.to_string())?;
            self.lock().insert(hub.id.clone(), opened.clone());
            Ok(Arc::new(opened) as Arc<dyn HubConnector>)
        })
    }

    fn close<'a>(&'a self, hub: &'a HubId) -> BoxFuture<'a, ()> {
        self.lock().remove(hub);
        Box::pin(ready(()))
    }

    fn take_down(&self, hub: &HubId) {
        if let Some(hub) = self.find(hub) {
            hub.take_down();
        }
    }

    fn bring_up(&self, hub: &HubId) {
        if let Some(hub) = self.find(hub) {
            hub.bring_up();
        }
    }

    fn back_up<'a>(&'a self, hub: &'a HubId, to: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let hub = self.find(hub).ok_or_else(|| "it is not open".to_owned())?;
            let to = to.to_owned();
            let copied = tokio::task::spawn_blocking(move || hub.back_up(&to)).await;
            copied.map_err(|error| error.to_string())?.map_err(|fault| fault.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::{ManualClock, SeededEntropy};
    use crate::domain::{HubState, Timestamp, Version};

    fn hub(id: &str) -> Hub {
        let now = Timestamp(1_000);
        Hub {
            id: HubId::parse(id).unwrap(),
            host_name: format!("{id}.test"),
            endpoint: "localhost:1".to_owned(),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
            incarnation: None,
            taken_down: false,
            created_at: now,
            updated_at: now,
            version: Version::ABSENT,
        }
    }

    #[tokio::test]
    async fn a_hub_is_opened_once_taken_down_copied_and_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let hubs = EmbeddedHubs::new(folder.path().to_owned(), 1 << 20, clock, Arc::new(SeededEntropy::new(1)));
        let hub = hub("hub-a");
        let connector = hubs.open(&hub).await.unwrap();
        let first = connector.describe().await.unwrap().incarnation;
        assert!(hubs.open(&hub).await.is_err());
        hubs.take_down(&hub.id);
        assert!(connector.describe().await.is_err());
        hubs.bring_up(&hub.id);
        assert_eq!(connector.describe().await.unwrap().incarnation, first);
        hubs.back_up(&hub.id, &folder.path().join("copy")).await.unwrap();
        drop(connector);
        hubs.close(&hub.id).await;
        assert!(hubs.back_up(&hub.id, &folder.path().join("other")).await.is_err());
        assert_eq!(hubs.open(&hub).await.unwrap().describe().await.unwrap().incarnation, first);
    }
}
