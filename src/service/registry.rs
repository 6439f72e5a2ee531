//! A hub's devices as a registry sees them: who they are, how they sign in, and how they leave.
//!
//! A hub's own record says what the device is; the device's registration says how it signs in, and only its actor may take
//! it away: its twin goes into the history first.

use std::time::Duration;

use crate::domain::{
    AuditAction, AuditEntry, Credential, DeviceId, Fault, HubId, KeyPair, Order, Reason, RegistrationId, TokenKey,
};
use crate::hubs::Resident;
use crate::store::{Commit, Page, PageRequest};

use super::{Service, fault};

/// How often it is looked whether a device has left, and how many times: most releases are over at once. One that takes
/// longer goes on by itself.
const LEFT_EVERY: Duration = Duration::from_millis(50);
const LEFT_LOOKS: u32 = 100;

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

    /// Ends the registration of a device whose home the hub is, and waits a while for it to leave. A copy that is only left
    /// over at the hub is not removed: it is collected into the history by the move that left it.
    pub async fn remove_hub_device(&self, hub: &HubId, device: &DeviceId, by: &str) -> Result<(), Fault> {
        self.twin(hub, device).await?;
        let owner = self.owner_at(hub, device).await?.ok_or_else(|| {
            let message = format!("hub {hub} is not the home of {device}: its move takes it away");
            Fault::new(Reason::MoveStateConflict, message).with("hub", hub.as_str())
        })?;
        self.delete_registration(&owner, None, by).await?;
        for _ in 0..LEFT_LOOKS {
            match self.twin(hub, device).await {
                Err(fault) if fault.reason == Reason::TwinNotFound => break,
                Ok(_) => self.inner.clock.sleep_until(self.inner.clock.now().plus(LEFT_EVERY)).await,
                // That it leaves is decided and committed; a hub that does not answer is told later.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The keys that a device signs in with, in the clear: for who may act as the device. That they were shown stands in the
    /// audit log. Absent where it has none that could be shown; what came through a TPM cannot.
    pub async fn device_keys(
        &self,
        hub: &HubId,
        device: &HubDevice,
        by: &str,
    ) -> Result<Option<KeyPair<TokenKey>>, Fault> {
        let keys = match &device.credential {
            Some(Credential::Shared(keys)) => self.open_keys(keys),
            Some(Credential::X509 { .. } | Credential::Delivered(_)) | None => None,
        };
        if keys.is_some() {
            let id = &device.resident.device;
            let detail = format!("the keys of device {id} at hub {hub} were shown");
            let audit = AuditEntry {
                registration: self.inner.store.find_owner(id).await.map_err(fault::of_store)?,
                hub: Some(hub.clone()),
                ..AuditEntry::new(self.inner.clock.now(), by, AuditAction::EnrollmentKeysShown, detail)
            };
            let commit = Commit { audit: vec![audit], ..Commit::default() };
            self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        }
        Ok(keys)
    }

    /// The registration of a device whose home the hub is.
    async fn owner_at(&self, hub: &HubId, device: &DeviceId) -> Result<Option<RegistrationId>, Fault> {
        let Some(owner) = self.inner.store.find_owner(device).await.map_err(fault::of_store)? else {
            return Ok(None);
        };
        let assignment = self.record(&owner).await?.assignment;
        Ok(assignment.is_some_and(|home| home.hub == *hub).then_some(owner))
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
