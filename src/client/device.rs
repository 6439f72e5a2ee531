//! The device SDK's door: a device that can register, and go to the hub it was given.

use std::sync::Arc;

use tonic::Request;
use tonic::transport::Channel;

use super::fault::ClientFault;
use super::follow::Follow;
use super::home::Home;
use super::proof::Prover;
use super::register::register;
use super::retry::Patience;
use super::target::Target;
use super::tpm::SecurityModule;
use super::{RegistrationUpdate, UpdateStatus};
use crate::ambient::{Clock, Entropy};
use crate::domain::{ClientFacts, RegistrationId, TokenKey};
use crate::wire::device::v1::LookUpRegistrationRequest;
use crate::wire::device::v1::registration_service_client::RegistrationServiceClient;

/// A device: who it is, whom it asks for its hub, and how it waits.
#[derive(Debug, Clone)]
pub struct Device {
    pub(super) id: RegistrationId,
    pub(super) target: Target,
    pub(super) service: RegistrationServiceClient<Channel>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    /// Absent: the certificate of the connection proves the device.
    pub(super) prover: Option<Prover>,
}

impl Device {
    /// Connects to the service as the device that the target's identity names.
    pub async fn connect(
        id: RegistrationId,
        target: Target,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ClientFault> {
        let service = RegistrationServiceClient::new(target.connect().await?);
        Ok(Self { id, target, service, clock, entropy, prover: None })
    }

    /// The same device, proven by its TPM: each registration answers a challenge, and the hub's credential comes to stay in
    /// the TPM.
    pub fn by_tpm(self, module: Arc<dyn SecurityModule>) -> Self {
        Self { prover: Some(Prover::by_tpm(module)), ..self }
    }

    /// The same device, proven by a symmetric key: its own one, or the one made of its group's ([`super::device_key`]). It
    /// signs in at its hub with the same key. Tokens are made by the device's clock, which must not be far off.
    pub fn by_key(self, key: TokenKey) -> Self {
        Self { prover: Some(Prover::by_key(key)), ..self }
    }

    /// Registers until the device is assigned: follows the stream of updates, asks again where that breaks, and tries
    /// again after failures that may pass, as long as `patience` lasts. `told` is called with every update.
    ///
    /// Safe to drop at any point: the service goes on, and the next call joins what runs.
    pub async fn register(
        &self,
        facts: &ClientFacts,
        patience: Patience,
        told: impl FnMut(&RegistrationUpdate) + Send,
    ) -> Result<RegistrationUpdate, ClientFault> {
        register(self, facts, patience, told).await
    }

    /// The device's own record, without registering. A device that is proven by its TPM can read it once it has registered,
    /// for as long as that proof lasts.
    pub async fn look_up(&self) -> Result<RegistrationUpdate, ClientFault> {
        let request = LookUpRegistrationRequest { registration_id: self.id.to_string() };
        let answer = self.service.clone().look_up_registration(self.reading(request)?).await?.into_inner();
        let update = crate::wire::convert::field::required("update", answer.update)?;
        Ok(RegistrationUpdate::try_from(update)?)
    }

    /// Goes to the hub that an update names, with the same identity and trust.
    pub async fn home(&self, update: &RegistrationUpdate) -> Result<Home, ClientFault> {
        match (&update.status, &update.hub) {
            (UpdateStatus::Assigned { .. }, Some(hub)) => {
                let prover = self.prover.as_ref();
                let pass = prover.map(|prover| prover.pass(&hub.host_name, &update.device_id, self.clock.clone()));
                Home::open(&self.target, hub, &update.device_id, pass).await
            }
            (UpdateStatus::Assigned { .. }, None) => Err(ClientFault::NoHub),
            (UpdateStatus::Assigning | UpdateStatus::Failed { .. } | UpdateStatus::Disabled, _) => {
                Err(ClientFault::NotAssigned { status: update.status.clone(), retry_after: update.retry_after })
            }
        }
    }

    /// Lives: registers, watches the desired properties, and registers again whenever the hub says that the device moved.
    pub fn follow(&self, facts: ClientFacts) -> Follow {
        Follow::new(self.clone(), facts)
    }

    /// A call that reads, with what proves the device.
    pub(super) fn reading<T>(&self, message: T) -> Result<Request<T>, ClientFault> {
        match &self.prover {
            Some(prover) => prover.read(message, self),
            None => Ok(Request::new(message)),
        }
    }

    pub(super) fn draw(&self) -> u32 {
        let mut bytes = [0; 4];
        self.entropy.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }
}
