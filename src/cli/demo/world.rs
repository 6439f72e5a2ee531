//! The service that the demo starts, and who speaks to it: an operator, devices, and a clock to wait by.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::ambient::{Clock as _, SystemClock, SystemEntropy};
use crate::client::tpm::Tpm;
use crate::client::{Device, Identity, Operator, RegistrationRecord, Target};
use crate::compose::Running;
use crate::config::{Config, InitialHub};
use crate::domain::{HubId, RegistrationId};
use crate::pki::{Authority, DevelopmentPaths, Issued, Purpose, Terms};

use super::tpm::SoftwareTpm;

pub const HUBS: [&str; 3] = ["hub-a", "hub-b", "quarantine"];

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A move takes some hundred milliseconds; a minute is a machine that is in trouble.
const PATIENCE: Duration = Duration::from_secs(60);
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Nobody calls while the demo restarts the service.
const GRACE: Duration = Duration::from_secs(1);

pub struct World {
    config: Config,
    running: Option<Running>,
    pub operator: Operator,
    pub clock: SystemClock,
    pub entropy: Arc<SystemEntropy>,
}

impl World {
    pub async fn start(folder: PathBuf) -> anyhow::Result<Self> {
        let hub = |id: &str| Ok(InitialHub { id: HubId::parse(id)?, host_name: format!("{id}.localhost") });
        let mut config = Config::defaults()?;
        config.data_dir = folder.join("data");
        config.certs_dir = folder.join("certs");
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.metrics_listen = None;
        config.shutdown_grace = GRACE;
        config.hubs.initial = HUBS.into_iter().map(hub).collect::<anyhow::Result<_>>()?;
        let running = Running::start(&config).await?;
        // After a restart devices and hubs are to be found where they were.
        config.listen = running.address();
        let operator = Operator::connect(&operator_target(&config)?).await?;
        let entropy = Arc::new(SystemEntropy::new());
        Ok(Self { config, running: Some(running), operator, clock: SystemClock, entropy })
    }

    /// Stops the service and starts it again on the same files.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop_service().await?;
        self.running = Some(Running::start(&self.config).await?);
        self.operator = Operator::connect(&operator_target(&self.config)?).await?;
        Ok(())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_service().await
    }

    async fn stop_service(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => Ok(running.stop().await?),
            None => Ok(()),
        }
    }

    fn terms(&self) -> Terms {
        Terms::starting(self.clock.now(), CERTIFICATE_LIFETIME)
    }

    /// A new authority for devices.
    pub fn authority(&self, name: &str) -> anyhow::Result<Authority> {
        Ok(Authority::create(name, Purpose::Device, self.terms(), self.entropy.as_ref())?)
    }

    /// A new certificate for a device.
    pub fn issue(&self, authority: &Authority, id: &RegistrationId) -> anyhow::Result<Issued> {
        Ok(authority.issue_device(id, self.terms(), self.entropy.as_ref())?)
    }

    /// A device that calls with a certificate.
    pub async fn device(&self, id: &RegistrationId, issued: &Issued) -> anyhow::Result<Device> {
        let identity = Identity::from_pem(issued.certificate_pem(), issued.key_pem());
        let target = Target { identity: Some(identity), ..operator_target(&self.config)? };
        Ok(Device::connect(id.clone(), target, Arc::new(self.clock), self.entropy.clone()).await?)
    }

    /// A device that its TPM proves.
    pub async fn device_by_tpm(&self, id: &RegistrationId, tpm: Tpm) -> anyhow::Result<Device> {
        let target = Target { identity: None, ..operator_target(&self.config)? };
        let device = Device::connect(id.clone(), target, Arc::new(self.clock), self.entropy.clone()).await?;
        Ok(device.by_tpm(Arc::new(tpm)))
    }

    /// A software TPM of the demo's own, for one device; `None` where `swtpm` is not installed.
    pub fn software_tpm(&self, name: &str) -> anyhow::Result<Option<SoftwareTpm>> {
        SoftwareTpm::start(&self.config.data_dir.join("tpm").join(name))
    }

    /// Looks until something is so, or for too long.
    pub async fn until<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut(&Operator) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = self.clock.now().plus(PATIENCE);
        while self.clock.now() < deadline {
            if let Some(found) = look(&self.operator).await? {
                return Ok(found);
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
        bail!("waited {} s until {what}", PATIENCE.as_secs())
    }

    /// The registration once its operation has ended and nothing is owed to a hub any more.
    pub async fn settled(&self, id: &RegistrationId) -> anyhow::Result<RegistrationRecord> {
        self.until(&format!("{id} is settled"), async |operator| {
            let registration = operator.registration(id).await?;
            let idle = registration.running.is_none() && registration.obligations.is_empty();
            Ok((idle && registration.operation.status.is_final()).then_some(registration))
        })
        .await
    }
}

fn operator_target(config: &Config) -> anyhow::Result<Target> {
    let paths = DevelopmentPaths::of(&config.certs_dir);
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Target {
        address: format!("https://{}", config.listen),
        server_name: None,
        roots_pem: read(&paths.server_ca.certificate)?,
        identity: Some(Identity::from_pem(read(&paths.operator.certificate)?, read(&paths.operator.key)?)),
    })
}
