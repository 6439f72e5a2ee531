//! A service with everything around it: its folder, its operators, its devices. Given in one line, so that a test is
//! when and then.
//!
//! Every world has a folder and a port of its own; worlds share nothing and run side by side.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rehome::ambient::{Clock as _, SystemClock, SystemEntropy};
use rehome::client::{
    BackupPart, ClientFault, Device, DeviceRecord, EnrollmentKind, EnrollmentRecord, Home, Identity, Operator,
    PageChoice, ReconcileNews, ReconciledDevice, RegistrationChoice, RegistrationRecord, RegistrationUpdate,
    RemoteFault, ReprovisionCall, Target, TwinTarget, UpdateStatus, every_row,
};
use rehome::compose::{PolicyKeys, Running};
use rehome::config::Config;
use rehome::domain::{
    AllocationPolicy, AttestationDraft, ClientFacts, DeviceId, Document, EnrollmentDraft, EnrollmentId, GroupId, HubId,
    InitialState, Reason, RegistrationId, ReprovisionPolicy, ResetOnSameHub, StoredAudit, SubStatus, TokenKey,
    TwinPatch, UnreachableRule,
};
use rehome::pki::{Authority, DevelopmentPaths, Issued, Pair, Terms};
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Anything that a test waits for is there by then, or never.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn document(text: &str) -> Document {
    Document::from_text(text).unwrap()
}

pub fn hub_id(text: &str) -> HubId {
    HubId::parse(text).unwrap()
}

pub fn registration_id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

pub fn twin_at(hub: &str, device: &str) -> TwinTarget {
    TwinTarget { hub: hub_id(hub), device: DeviceId::parse(device).unwrap() }
}

pub fn identity_of(issued: &Issued) -> Identity {
    Identity::from_pem(issued.certificate_pem(), issued.key_pem())
}

/// What the service answered a call that had to be refused with.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientFault>) -> RemoteFault {
    outcome.unwrap_err().remote().expect("a refusal by the service").clone()
}

#[track_caller]
pub fn reason<T: std::fmt::Debug>(outcome: Result<T, ClientFault>) -> Option<Reason> {
    refusal(outcome).known_reason()
}

/// Waits for something that a test cannot go on without.
pub async fn in_time<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, awaited).await.expect("it happens in time")
}

/// A running service as its callers see it: an address and the certificates to call it with.
#[derive(Debug, Clone)]
pub struct Site {
    pub address: SocketAddr,
    pub paths: DevelopmentPaths,
}

impl Site {
    pub fn new(address: SocketAddr, certs: &Path) -> Self {
        Self { address, paths: DevelopmentPaths::of(certs) }
    }

    pub fn roots_pem(&self) -> Vec<u8> {
        std::fs::read(&self.paths.server_ca.certificate).unwrap()
    }

    pub fn target(&self, identity: Option<Identity>) -> Target {
        Target {
            address: format!("https://{}", self.address),
            server_name: None,
            roots_pem: self.roots_pem(),
            identity,
        }
    }

    fn identity_in(pair: &Pair) -> Identity {
        Identity::from_pem(std::fs::read(&pair.certificate).unwrap(), std::fs::read(&pair.key).unwrap())
    }

    pub async fn operator(&self) -> Operator {
        self.connect_operator().await.unwrap()
    }

    /// As an operator, at a service that may be gone.
    pub async fn connect_operator(&self) -> Result<Operator, ClientFault> {
        Operator::connect(&self.target(Some(Self::identity_in(&self.paths.operator)))).await
    }

    pub fn device_ca(&self) -> Authority {
        Authority::load(&self.paths.device_ca).unwrap()
    }

    /// A device of the development authority.
    pub fn issue(&self, id: &str) -> Issued {
        issue(&self.device_ca(), id)
    }

    pub async fn device(&self, id: &str, issued: &Issued) -> Device {
        self.caller_as(id, Some(identity_of(issued))).await
    }

    /// Whoever presents that identity and says that it is this device.
    pub async fn caller_as(&self, id: &str, identity: Option<Identity>) -> Device {
        let entropy = Arc::new(SystemEntropy::new());
        Device::connect(registration_id(id), self.target(identity), Arc::new(SystemClock), entropy).await.unwrap()
    }

    /// A bare connection, for calls that no client makes.
    pub async fn channel(&self, pair: Option<(&[u8], &[u8])>) -> Channel {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.roots_pem()));
        if let Some((certificate, key)) = pair {
            tls = tls.identity(tonic::transport::Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// As above, with a certificate of the development PKI.
    pub async fn channel_as(&self, pair: &Pair) -> Channel {
        let (certificate, key) = (std::fs::read(&pair.certificate).unwrap(), std::fs::read(&pair.key).unwrap());
        self.channel(Some((&certificate, &key))).await
    }

    /// The group of the development authority, whose devices go to hub-a.
    pub fn group(&self) -> EnrollmentDraft {
        group("plant", &self.device_ca())
    }
}

pub fn issue(authority: &Authority, id: &str) -> Issued {
    let terms = Terms::starting(SystemClock.now(), HOUR);
    authority.issue_device(&registration_id(id), terms, &SystemEntropy::new()).unwrap()
}

fn draft(id: EnrollmentId, certificate: Vec<u8>) -> EnrollmentDraft {
    EnrollmentDraft {
        id,
        attestation: AttestationDraft::X509 { primary: certificate, secondary: None },
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: Some(ReprovisionPolicy::Migrate),
        allocation: Some(AllocationPolicy::Static),
        hubs: vec![hub_id("hub-a")],
        unreachable: UnreachableRule::Wait { deadline: HOUR },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
    }
}

/// A group whose devices go to hub-a and migrate.
pub fn group(id: &str, authority: &Authority) -> EnrollmentDraft {
    draft(EnrollmentId::Group(GroupId::parse(id).unwrap()), authority.certificate().to_vec())
}

/// An individual enrollment whose device goes to hub-a and migrates.
pub fn individual(id: &str, issued: &Issued) -> EnrollmentDraft {
    draft(EnrollmentId::Individual(registration_id(id)), issued.chain()[0].to_vec())
}

/// A key as devices hold it.
pub fn token_key(byte: u8) -> TokenKey {
    TokenKey::new(&[byte; 32]).unwrap()
}

/// An enrollment by these keys, whose devices go to hub-a and migrate.
pub fn keyed(id: EnrollmentId, primary: u8, secondary: u8) -> EnrollmentDraft {
    let attestation =
        AttestationDraft::SymmetricKey { primary: Some(token_key(primary)), secondary: Some(token_key(secondary)) };
    EnrollmentDraft { attestation, ..draft(id, Vec::new()) }
}

/// A service in this process with hub-a and hub-b, and an operator who is connected.
pub struct World {
    pub site: Site,
    pub operator: Operator,
    config: Config,
    running: Running,
    folder: TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults().unwrap();
        config.data_dir = folder.path().join("data");
        config.certs_dir = folder.path().join("certs");
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.metrics_listen = None;
        config.shutdown_grace = Duration::from_secs(1);
        change(&mut config);
        Self::run(config, folder).await
    }

    async fn run(config: Config, folder: TempDir) -> Self {
        let running = Running::start(&config).await.unwrap();
        let site = Site::new(running.address(), &config.certs_dir);
        let operator = site.operator().await;
        Self { site, operator, config, running, folder }
    }

    /// Stops the service; its folder, and what it was started with.
    pub async fn stopped(self) -> (TempDir, Config) {
        let Self { operator, config, running, folder, .. } = self;
        drop(operator);
        running.stop().await.unwrap();
        (folder, config)
    }

    /// Stops the service and starts it again on the same folders, at another port, which the hubs are told.
    pub async fn restarted(self) -> Self {
        let Self { operator, config, running, folder, .. } = self;
        drop(operator);
        running.stop().await.unwrap();
        let world = Self::run(config, folder).await;
        tell_hubs_where_they_are(&world.operator, world.site.address).await;
        world
    }

    /// As above, with files of the data folder exchanged meanwhile.
    pub async fn restarted_over(self, exchange: impl FnOnce(&Path)) -> Self {
        let Self { operator, config, running, folder, .. } = self;
        drop(operator);
        running.stop().await.unwrap();
        exchange(&config.data_dir);
        let world = Self::run(config, folder).await;
        tell_hubs_where_they_are(&world.operator, world.site.address).await;
        world
    }

    /// A backup of the running service, as `rehome store backup` makes it.
    pub async fn backed_up(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        back_up(&self.operator, &to).await;
        to
    }

    /// Everything that a reconcile tells of devices: hub, device, what it became.
    pub async fn reconciled(&self, hub: Option<&str>, dry_run: bool) -> Vec<ReconciledDevice> {
        let hub = hub.map(hub_id);
        let mut news = self.operator.reconcile(hub.as_ref(), dry_run).await.unwrap();
        let mut devices = Vec::new();
        while let Some(news) = in_time(news.next()).await.unwrap() {
            if let ReconcileNews::Device(device) = news {
                devices.push(device);
            }
        }
        devices.sort_by_key(|device| (device.hub.to_string(), device.device.to_string()));
        devices
    }

    /// The folder of everything, for commands to be run in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> &Path {
        &self.config.data_dir
    }

    pub fn certs(&self) -> &Path {
        &self.config.certs_dir
    }

    /// The keys of the shared access policies, as `rehome connection-string` reads them.
    pub fn policy_keys(&self) -> PolicyKeys {
        PolicyKeys::read(&self.config).unwrap()
    }

    pub fn https_address(&self) -> SocketAddr {
        self.running.https_address().expect("the HTTPS edge is served")
    }

    pub fn mqtt_address(&self) -> SocketAddr {
        self.running.mqtt_address().expect("the MQTT edge is served")
    }

    /// How many devices the last start took up with work left.
    pub fn taken_up(&self) -> usize {
        self.running.taken_up()
    }

    pub fn hubs_made(&self) -> &[String] {
        self.running.hubs_made()
    }

    /// The bytes of the store and of every hub: equal before and after when nothing was written.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn gather(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    gather(&path, files);
                } else {
                    files.insert(path.clone(), std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        gather(&self.config.data_dir, &mut files);
        files
    }

    pub async fn enroll(&self, draft: &EnrollmentDraft) -> EnrollmentRecord {
        self.operator.create_enrollment(draft).await.unwrap()
    }

    /// Changes an enrollment.
    pub async fn change(&self, id: &EnrollmentId, change: impl FnOnce(&mut EnrollmentDraft)) {
        let mut record = self.operator.enrollment(id).await.unwrap();
        change(&mut record.draft);
        self.operator.update_enrollment(&record.draft, record.version).await.unwrap();
    }

    /// From now on the enrollment's devices belong to another hub.
    pub async fn allot(&self, id: &EnrollmentId, hub: &str) {
        self.change(id, |draft| draft.hubs = vec![hub_id(hub)]).await;
    }

    /// A device of the development authority that has registered.
    pub async fn registered(&self, id: &str) -> Member {
        let issued = self.site.issue(id);
        let member = Member { device: self.site.device(id, &issued).await, issued };
        member.register().await;
        member
    }

    pub async fn send(&self, device: &str, hub: Option<&str>, why: &str) -> RegistrationRecord {
        let call = ReprovisionCall {
            registration: registration_id(device),
            to: hub.map(hub_id),
            pin_expires_at: None,
            reason: why.to_owned(),
            request_id: None,
        };
        self.operator.reprovision(&call).await.unwrap()
    }

    /// The registration once nothing runs and nothing is owed.
    pub async fn settled(&self, device: &str) -> RegistrationRecord {
        settled(&self.operator, device).await
    }

    pub async fn twin(&self, hub: &str, device: &str) -> DeviceRecord {
        self.operator.twin(&twin_at(hub, device)).await.unwrap()
    }

    pub async fn is_at(&self, hub: &str, device: &str) -> bool {
        match self.operator.twin(&twin_at(hub, device)).await {
            Ok(_) => true,
            Err(fault) => {
                assert_eq!(reason(Err::<(), _>(fault)), Some(Reason::TwinNotFound));
                false
            }
        }
    }

    /// A device registers again with the certificate that it has.
    pub async fn registered_as(&self, id: &str, issued: &Issued) -> RegistrationUpdate {
        let device = self.site.device(id, issued).await;
        in_time(device.register(&ClientFacts::default(), rehome::client::Patience::Tries(1), |_| ())).await.unwrap()
    }

    pub async fn patch(&self, hub: &str, device: &str, tags: &str, desired: &str) -> DeviceRecord {
        let patch = TwinPatch { tags: Some(document(tags)), desired: Some(document(desired)), reported: None };
        self.operator.update_twin(&twin_at(hub, device), &patch, None).await.unwrap()
    }

    /// The whole audit log, newest first.
    pub async fn audit(&self) -> Vec<StoredAudit> {
        let mut entries = Vec::new();
        let fetch = async |token| self.operator.list_audit(None, None, PageChoice { size: 0, token }).await;
        every_row(fetch, |entry| entries.push(entry)).await.unwrap();
        entries
    }

    /// Everything that an operator can see of enrollments, registrations and hubs.
    pub async fn records(&self) -> (Vec<EnrollmentRecord>, Vec<RegistrationRecord>, Vec<DeviceRecord>) {
        let (mut enrollments, mut registrations, mut devices) = (Vec::new(), Vec::new(), Vec::new());
        let page = |token| PageChoice { size: 0, token };
        for kind in [EnrollmentKind::Individual, EnrollmentKind::Group] {
            let fetch = async |token| self.operator.list_enrollments(kind, page(token)).await;
            every_row(fetch, |row| enrollments.push(row)).await.unwrap();
        }
        let all = RegistrationChoice::default();
        let fetch = async |token| self.operator.list_registrations(&all, page(token)).await;
        every_row(fetch, |row| registrations.push(row)).await.unwrap();
        for hub in ["hub-a", "hub-b"] {
            let fetch = async |token| self.operator.list_twins(&hub_id(hub), page(token)).await;
            every_row(fetch, |row| devices.push(row)).await.unwrap();
        }
        (enrollments, registrations, devices)
    }

    pub async fn stop(self) {
        drop(self.operator);
        self.running.stop().await.unwrap();
    }
}

/// A hub keeps the address that it was linked with; who moves the service says so.
pub async fn tell_hubs_where_they_are(operator: &Operator, address: SocketAddr) {
    for mut hub in operator.list_hubs().await.unwrap() {
        hub.draft.endpoint = Some(address.to_string());
        operator.update_hub(&hub.draft, hub.version).await.unwrap();
    }
}

/// Backs a running service up into a folder.
pub async fn back_up(operator: &Operator, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut backup = operator.backup().await.unwrap();
    let mut open = None;
    while let Some(part) = backup.next().await.unwrap() {
        match part {
            BackupPart::File { name, .. } => open = Some((to.join(name), Vec::new())),
            BackupPart::Bytes(bytes) => open.as_mut().unwrap().1.extend(bytes),
            BackupPart::FileDone => {
                let (path, bytes) = open.take().unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

pub async fn settled(operator: &Operator, device: &str) -> RegistrationRecord {
    let id = registration_id(device);
    let mut last = None;
    let settled = async {
        loop {
            let record = operator.registration(&id).await.unwrap();
            if record.running.is_none() && record.obligations.is_empty() && record.operation.status.is_final() {
                return record;
            }
            last = Some(record);
        }
    };
    match tokio::time::timeout(DEADLINE, settled).await {
        Ok(record) => record,
        Err(_) => panic!("{device} did not settle within {DEADLINE:?}: {last:?}"),
    }
}

/// A device with its certificate.
pub struct Member {
    pub device: Device,
    pub issued: Issued,
}

impl Member {
    pub async fn register(&self) -> RegistrationUpdate {
        self.register_with(&ClientFacts::default()).await
    }

    pub async fn register_with(&self, facts: &ClientFacts) -> RegistrationUpdate {
        in_time(self.device.register(facts, rehome::client::Patience::Tries(1), |_| ())).await.unwrap()
    }

    /// Where it lives now.
    pub async fn home(&self) -> Home {
        let update = self.device.look_up().await.unwrap();
        self.device.home(&update).await.unwrap()
    }
}

/// The hub and the way that an update names.
#[track_caller]
pub fn outcome(update: &RegistrationUpdate) -> (String, SubStatus) {
    let UpdateStatus::Assigned { sub_status, .. } = update.status else { panic!("not assigned: {update:?}") };
    (update.hub.as_ref().expect("a hub").id.to_string(), sub_status)
}
