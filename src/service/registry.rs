//! A hub's devices as a registry sees them: who they are, how they sign in, and how they leave.
//!
//! A hub's own record says what the device is; the device's registration says how it signs in, and only its actor may take
//! it away: its twin goes into the history first.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::actors::Seen;
use crate::domain::{
    AuditAction, AuditEntry, Credential, DeviceId, Fault, HubId, HubStatus, KeyFingerprint, KeyPair, Order, Reason,
    TokenKey,
};
use crate::hubs::{Resident, TwinWrite};
use crate::store::{Commit, Page, PageRequest};

use super::{Service, fault};

/// How often it is looked whether a device has left, and how many times: most releases are over at once. One that takes
/// longer goes on by itself.
const LEFT_EVERY: Duration = Duration::from_millis(50);
const LEFT_LOOKS: u32 = 100;

/// Showings that are remembered: one more than that is written down again.
const SHOWINGS_MAX: usize = 10_000;

/// Who was shown which keys of which device.
#[derive(Debug, Default)]
pub struct ShownKeys(Mutex<HashSet<Showing>>);

type Showing = (String, DeviceId, [KeyFingerprint; 2]);

impl ShownKeys {
    fn lock(&self) -> MutexGuard<'_, HashSet<Showing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, showing: &Showing) -> bool {
        self.lock().contains(showing)
    }

    fn keep(&self, showing: Showing) {
        let mut kept = self.lock();
        if kept.len() >= SHOWINGS_MAX {
            kept.clear();
        }
        kept.insert(showing);
    }
}

/// A device of a hub.
#[derive(Debug, Clone, PartialEq)]
pub struct HubDevice {
    pub resident: Resident,
    /// The generation that brought it; absent where the hub is not (or not yet) its home.
    pub generation: Option<Order>,
    /// What it signs in with, where that is known for sure.
    pub credential: Option<Credential>,
}

impl Service {
    /// One device of a hub.
    pub async fn hub_device(&self, hub: &HubId, device: &DeviceId) -> Result<HubDevice, Fault> {
        let resident = self.twin(hub, device).await?;
        self.with_home(hub, resident).await
    }

    /// Devices of a hub by id.
    pub async fn hub_devices(&self, hub: &HubId, page: &PageRequest) -> Result<Page<HubDevice>, Fault> {
        let listed = self.list_twins(hub, page.size, page.token.as_deref()).await?;
        let mut rows = Vec::with_capacity(listed.rows.len());
        for resident in listed.rows {
            rows.push(self.with_home(hub, resident).await?);
        }
        Ok(Page { rows, next: listed.next })
    }

    /// Ends the registration of a device whose home the hub is, as it was seen there: one that has moved on meanwhile is left
    /// alone. A copy that is only left over at the hub is not removed: the move that left it collects it into the history.
    pub async fn remove_hub_device(&self, hub: &HubId, seen: &HubDevice, by: &str) -> Result<(), Fault> {
        let device = &seen.resident.device;
        let not_at_home = || {
            let message = format!("hub {hub} is not the home of {device}: its move takes it away");
            Fault::new(Reason::MoveStateConflict, message).with("hub", hub.as_str())
        };
        let generation = seen.generation.ok_or_else(not_at_home)?;
        let owner = self.inner.store.find_owner(device).await.map_err(fault::of_store)?.ok_or_else(not_at_home)?;
        self.delete_as_seen(&owner, Some(Seen::Home(generation)), by).await.map(drop)
    }

    /// Waits a while for devices to leave that were removed. That they leave is decided and committed by then.
    pub async fn until_left(&self, hub: &HubId, devices: &[DeviceId]) {
        let mut looks = 0..LEFT_LOOKS;
        for device in devices {
            // A hub that does not answer is told later.
            while self.twin(hub, device).await.is_ok() && looks.next().is_some() {
                self.inner.clock.sleep_until(self.inner.clock.now().plus(LEFT_EVERY)).await;
            }
        }
    }

    /// Lets a device in, or keeps it out, if it is as it was seen.
    pub async fn set_hub_status(&self, hub: &HubId, seen: &HubDevice, status: HubStatus) -> Result<HubDevice, Fault> {
        let write = TwinWrite::StatusFrom(seen.resident.state.status.clone(), status);
        let resident = self.write_twin(hub, &seen.resident.device, None, write).await?;
        Ok(HubDevice { resident, ..seen.clone() })
    }

    /// The keys that a device signs in with, in the clear, for comparison with what somebody writes: they are shown to nobody.
    pub fn keys_at_hub(&self, device: &HubDevice) -> Option<KeyPair<TokenKey>> {
        match &device.credential {
            Some(Credential::Shared(keys)) => self.open_keys(keys),
            Some(Credential::X509 { .. } | Credential::Delivered(_)) | None => None,
        }
    }

    /// As above, for who may act as the device. That somebody was shown them stands in the audit log; once, however often
    /// the same caller asks for the same keys, since the log is bounded.
    pub async fn show_keys_at_hub(
        &self,
        hub: &HubId,
        device: &HubDevice,
        by: &str,
    ) -> Result<Option<KeyPair<TokenKey>>, Fault> {
        let (Some(keys), Some(Credential::Shared(sealed))) = (self.keys_at_hub(device), &device.credential) else {
            return Ok(None);
        };
        let id = &device.resident.device;
        let showing = (by.to_owned(), id.clone(), sealed.both().map(|key| key.fingerprint()));
        if !self.inner.shown_keys.has(&showing) {
            let detail = format!("the keys of device {id} at hub {hub} were shown");
            let audit = AuditEntry {
                registration: self.inner.store.find_owner(id).await.map_err(fault::of_store)?,
                hub: Some(hub.clone()),
                ..AuditEntry::new(self.inner.clock.now(), by, AuditAction::EnrollmentKeysShown, detail)
            };
            let commit = Commit { audit: vec![audit], ..Commit::default() };
            self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
            self.inner.shown_keys.keep(showing);
        }
        Ok(Some(keys))
    }

    async fn with_home(&self, hub: &HubId, resident: Resident) -> Result<HubDevice, Fault> {
        let owner = self.inner.store.find_owner(&resident.device).await.map_err(fault::of_store)?;
        let record = match owner {
            Some(owner) => self.inner.store.load_device(&owner).await.map_err(fault::of_store)?.registration,
            None => None,
        };
        let home = record.and_then(|record| record.assignment).filter(|home| home.hub == *hub);
        let (generation, credential) = home.map(|home| (home.generation, home.credential)).unzip();
        Ok(HubDevice { resident, generation, credential: credential.flatten() })
    }
}
