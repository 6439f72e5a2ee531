//! A service of real parts for tests: a store in memory, scripted hubs, a clock that stands still, certificates of its
//! own authorities.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};

use super::{Config, DeviceView, Parts, Peer, RegisterAsk, Service, Vault};
use crate::actors::{self, Directory, Fleet, Surroundings};
use crate::allocators::{AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault};
use crate::ambient::{ManualClock, SeededEntropy};
use crate::attestation::x509::certificate_ref;
use crate::domain::*;
use crate::hubs::scripted::ScriptedHub;
use crate::hubs::{HubConnector, HubFactory};
use crate::pki::{Authority, Issued, Purpose, Terms};
use crate::store::{MemoryStore, Store};

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub const BY: &str = "ann";

/// Scripted hubs that stay what they are when they are opened again.
#[derive(Debug)]
pub struct ScriptedHubs {
    clock: Arc<ManualClock>,
    made: Mutex<BTreeMap<HubId, ScriptedHub>>,
}

impl ScriptedHubs {
    pub fn hub(&self, id: &HubId) -> ScriptedHub {
        let mut made = self.made.lock().unwrap();
        let incarnation = Incarnation(made.len() as u128 + 1);
        made.entry(id.clone()).or_insert_with(|| ScriptedHub::new(incarnation, self.clock.clone())).clone()
    }
}

impl HubFactory for ScriptedHubs {
    fn open<'a>(&'a self, hub: &'a Hub) -> BoxFuture<'a, Result<Arc<dyn HubConnector>, String>> {
        Box::pin(ready(Ok(Arc::new(self.hub(&hub.id)) as Arc<dyn HubConnector>)))
    }

    fn close<'a>(&'a self, _: &'a HubId) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn take_down(&self, hub: &HubId) {
        self.hub(hub).set_reachable(false);
    }

    fn bring_up(&self, hub: &HubId) {
        self.hub(hub).set_reachable(true);
    }

    fn back_up<'a>(&'a self, _: &'a HubId, to: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        // The store is copied last.
        let is_first = !to.with_file_name("service.redb").exists();
        let copied = if is_first { std::fs::write(to, b"scripted") } else { Err(std::io::ErrorKind::Other.into()) };
        Box::pin(ready(copied.map_err(|error| error.to_string())))
    }
}

/// Nobody is asked outside.
#[derive(Debug)]
struct NoAllocator;

impl Allocator for NoAllocator {
    fn ask(&self, _: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        Box::pin(std::future::pending())
    }
}

pub struct World {
    pub service: Service,
    pub clock: Arc<ManualClock>,
    pub hubs: Arc<ScriptedHubs>,
    pub entropy: Arc<SeededEntropy>,
    scratch: tempfile::TempDir,
    /// The devices' authority, enrolled by [`World::enroll_group`].
    pub devices: Authority,
    pub operators: Authority,
}

pub fn hub_id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

pub fn reg_id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

pub fn group_id() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("meters").unwrap())
}

pub fn individual_id(text: &str) -> EnrollmentId {
    EnrollmentId::Individual(reg_id(text))
}

pub fn terms() -> Terms {
    Terms::starting(NOW, Duration::from_secs(86_400))
}

impl World {
    /// Without hubs and enrollments.
    pub fn empty() -> Self {
        Self::with(Config { refuse_after: Duration::ZERO, ..Config::default() })
    }

    pub fn with(config: Config) -> Self {
        Self::on(Arc::new(MemoryStore::new()), config)
    }

    pub fn on(store: Arc<dyn Store>, config: Config) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let config = Config { scratch_folder: scratch.path().join("copies"), ..config };
        let (clock, entropy) = (Arc::new(ManualClock::at(NOW)), Arc::new(SeededEntropy::new(7)));
        let hubs = Arc::new(ScriptedHubs { clock: clock.clone(), made: Mutex::default() });
        let surroundings = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            allocator: Arc::new(NoAllocator),
            fleet: Arc::new(Fleet::default()),
        };
        let directory = Directory::start(actors::Config::default(), surroundings).unwrap();
        let authority = |name, purpose| Authority::create(name, purpose, terms(), entropy.as_ref()).unwrap();
        let (devices, operators) = (authority("devices", Purpose::Device), authority("operators", Purpose::Operator));
        let service = Service::new(Parts {
            vault: Vault::new(&[9; 32]),
            store: store.clone(),
            directory,
            clock: clock.clone(),
            entropy: entropy.clone(),
            hubs: hubs.clone(),
            operator_authorities: vec![certificate_ref(operators.certificate()).unwrap()],
            config,
        });
        Self { service, clock, hubs, entropy, scratch, devices, operators }
    }

    /// Hubs `a` and `b`, and a group of the devices' authority at hub `a`.
    pub async fn new() -> Self {
        let this = Self::empty();
        this.link("a").await;
        this.link("b").await;
        this.enroll_group(&["a"]).await;
        this
    }

    /// The folder of copies.
    pub fn scratch(&self) -> std::path::PathBuf {
        self.scratch.path().join("copies")
    }

    pub async fn link(&self, id: &str) {
        self.service.link_hub(hub_draft(id), BY).await.unwrap();
    }

    pub async fn enroll_group(&self, hubs: &[&str]) -> Arc<Enrollment> {
        let draft = self.group_draft(hubs);
        self.service.create_enrollment(draft, BY).await.unwrap()
    }

    pub fn group_draft(&self, hubs: &[&str]) -> EnrollmentDraft {
        draft(group_id(), self.devices.certificate().to_vec(), hubs)
    }

    pub fn device(&self, id: &str) -> Issued {
        self.devices.issue_device(&reg_id(id), terms(), self.entropy.as_ref()).unwrap()
    }

    pub fn operator(&self, grants: &[&str]) -> Issued {
        let grants: Vec<RoleGrant> = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        self.operators.issue_operator(BY, &grants, terms(), self.entropy.as_ref()).unwrap()
    }

    pub fn authority(&self, name: &str) -> Authority {
        Authority::create(name, Purpose::Device, terms(), self.entropy.as_ref()).unwrap()
    }

    /// Registers, and waits for the end of the operation.
    pub async fn register(&self, issued: &Issued, id: &str) -> Result<DeviceView, Fault> {
        let registering = self.service.register(&peer(Some(issued)), &ask(id)).await?;
        let mut views: Vec<_> = self.service.follow(registering).collect().await;
        views.pop().unwrap()
    }

    /// Why a refused caller was refused.
    pub async fn reason_of(&self, fault: &Fault) -> String {
        let (_, tracking) = fault.metadata.iter().find(|(key, _)| *key == "tracking_id").unwrap();
        self.service.audit_entry(tracking.parse().unwrap()).await.unwrap().entry.detail
    }
}

pub fn peer(issued: Option<&Issued>) -> Peer {
    let address: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    Peer { address, evidence: evidence(issued) }
}

pub fn evidence(issued: Option<&Issued>) -> Evidence {
    match issued {
        None => Evidence::None,
        Some(issued) => Evidence::X509 { chain: issued.chain().iter().map(|der| der.to_vec()).collect() },
    }
}

pub fn ask(id: &str) -> RegisterAsk {
    RegisterAsk { registration_id: reg_id(id), facts: ClientFacts::default(), request_id: None, tpm: None }
}

pub fn hub_draft(id: &str) -> HubDraft {
    HubDraft {
        id: hub_id(id),
        kind: HubKind::Embedded,
        host_name: None,
        endpoint: None,
        location: None,
        weight: 1,
        capacity: None,
        calls_per_second: None,
    }
}

pub fn draft(id: EnrollmentId, certificate: Vec<u8>, hubs: &[&str]) -> EnrollmentDraft {
    EnrollmentDraft {
        id,
        attestation: AttestationDraft::X509 { primary: certificate, secondary: None },
        enabled: true,
        device_id: None,
        initial: InitialState { desired: Document::from_text(r#"{"rate":5}"#).unwrap(), ..InitialState::default() },
        reprovision: Some(ReprovisionPolicy::Migrate),
        allocation: None,
        hubs: hubs.iter().map(|hub| hub_id(hub)).collect(),
        unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(60) },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
    }
}
