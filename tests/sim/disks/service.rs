//! A whole service, with actors, store and hubs, each file on a disk of its own. One disk stops obeying at its Nth
//! operation; what was told to callers until the end is there after a start on what is left.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, ready};
use futures_util::{StreamExt as _, stream};
use rehome::actors::{self, Directory, Fleet, Surroundings};
use rehome::allocators::{AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault};
use rehome::ambient::{Clock, Entropy, SystemClock, SystemEntropy};
use rehome::domain::{
    AttestationDraft, ClientFacts, DeviceId, Document, EnrollmentDraft, EnrollmentId, Evidence, GroupId, Hub, HubDraft,
    HubId, HubKind, InitialState, OperationStatus, RegistrationId, ReprovisionPolicy, ResetOnSameHub, TwinPatch,
    UnreachableRule,
};
use rehome::hubs::embedded::{self, EmbeddedHub, EmbeddedHubs};
use rehome::hubs::{HubConnector, HubFactory};
use rehome::pki::{Authority, Issued, Purpose, Terms};
use rehome::service::{Config, Parts, Peer, PinRequest, RegisterAsk, Service, TwinWrite};
use rehome::store::Store;
use rehome::store::redb::{self, Hooks, RedbStore};
use serde_json::Value;

use super::disk::{Arrived, Disk};
use super::stride;

const HUBS: [&str; 2] = ["a", "b"];
const DEVICES: usize = 3;
const ROUNDS: u64 = 3;
const BY: &str = "ann";
const CACHE: usize = 1 << 20;
/// On a failing disk a call that is not answered by then is taken for one that will not be: a device of a broken hub waits
/// for long.
const PATIENCE: Duration = Duration::from_millis(150);
/// Lives at a time: most of their time they wait for what will not come.
const AT_ONCE: usize = 6;
/// Within this a service that was started again has done all that was left.
const DEADLINE: Duration = Duration::from_secs(60);

/// Nobody is asked outside.
#[derive(Debug)]
struct NoAllocator;

impl Allocator for NoAllocator {
    fn ask(&self, _: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        Box::pin(std::future::pending())
    }
}

/// Embedded hubs on disks of the test.
#[derive(Debug)]
struct HubsOnDisks(BTreeMap<HubId, Disk>);

impl HubFactory for HubsOnDisks {
    fn open<'a>(&'a self, hub: &'a Hub) -> BoxFuture<'a, Result<Arc<dyn HubConnector>, String>> {
        let config = embedded::Config { path: "on a disk".into(), cache_bytes: CACHE, devices_max: None };
        let disk = self.0[&hub.id].clone();
        let opened = EmbeddedHub::on(disk, config, Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
        let opened = opened.map(|hub| Arc::new(hub) as Arc<dyn HubConnector>).map_err(|fault| fault.to_string());
        Box::pin(ready(opened))
    }

    fn close<'a>(&'a self, _: &'a HubId) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn take_down(&self, _: &HubId) {}

    fn bring_up(&self, _: &HubId) {}

    fn back_up<'a>(&'a self, _: &'a HubId, _: &'a Path) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(ready(Err("there is no file".to_owned())))
    }
}

/// What stays while services come and go.
struct Stage {
    authority: Authority,
    devices: Vec<Issued>,
    /// The files as they are before anything is asked: two linked hubs and a group.
    store: Vec<u8>,
    hubs: BTreeMap<HubId, Vec<u8>>,
}

fn hub_id(id: &str) -> HubId {
    HubId::parse(id).unwrap()
}

fn name(number: usize) -> RegistrationId {
    RegistrationId::parse(&format!("d-{number}")).unwrap()
}

fn extra(number: u64) -> EnrollmentId {
    EnrollmentId::Individual(RegistrationId::parse(&format!("extra-{number}")).unwrap())
}

fn store_file(folder: &Path) -> std::path::PathBuf {
    folder.join("service.redb")
}

fn hub_file(folder: &Path, hub: &HubId) -> std::path::PathBuf {
    folder.join(format!("hub-{hub}.redb"))
}

fn draft(id: EnrollmentId, certificate: Vec<u8>) -> EnrollmentDraft {
    EnrollmentDraft {
        id,
        attestation: AttestationDraft::X509 { primary: certificate, secondary: None },
        enabled: true,
        device_id: None,
        initial: InitialState::default(),
        reprovision: Some(ReprovisionPolicy::Migrate),
        allocation: None,
        hubs: vec![hub_id("a")],
        unreachable: UnreachableRule::Wait { deadline: DEADLINE },
        allow_late_writes: false,
        reset_on_same_hub: ResetOnSameHub::Always,
        reassign_when_down: false,
        adopt_existing: false,
    }
}

/// A service on a store and hubs. Its threads end when it is dropped.
struct Life {
    service: Service,
    directory: Directory,
}

impl Life {
    async fn start(store: Arc<dyn Store>, hubs: Arc<dyn HubFactory>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let surroundings = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            allocator: Arc::new(NoAllocator),
            fleet: Arc::new(Fleet::default()),
        };
        let directory = Directory::start(actors::Config::default(), surroundings).unwrap();
        let service = Service::new(Parts {
            vault: rehome::service::Vault::new(&[9; 32]),
            store,
            directory: directory.clone(),
            clock,
            entropy,
            hubs,
            operator_authorities: vec![],
            config: Config { refuse_after: Duration::ZERO, ..Config::default() },
        });
        service.start().await.unwrap();
        Self { service, directory }
    }

    /// On the files of a folder, as the real service does.
    async fn start_in(folder: &Path) -> Self {
        let config = redb::Config { cache_bytes: CACHE, ..redb::Config::at(store_file(folder)) };
        let store = Arc::new(RedbStore::open(config, Hooks::default()).unwrap());
        let entropy = Arc::new(SystemEntropy::new());
        let hubs = EmbeddedHubs::new(folder.to_owned(), CACHE, Arc::new(SystemClock), entropy);
        Self::start(store, Arc::new(hubs)).await
    }

    async fn stop(self) {
        let Self { service, directory } = self;
        directory.close();
        drop(service);
        tokio::task::spawn_blocking(move || drop(directory)).await.unwrap();
    }
}

/// What one device and the operator were told of it.
#[derive(Debug, Default)]
struct Told {
    /// The home it was told last, and whether anything was asked since that could change it.
    home: Option<HubId>,
    home_may_change: bool,
    reported: u64,
    tagged: u64,
    version: u64,
    enrollments: Vec<EnrollmentId>,
    writes: u64,
}

/// `None` when there was no good answer.
async fn answered<T, F>(patience: Duration, call: impl Future<Output = Result<T, F>>) -> Option<T> {
    tokio::time::timeout(patience, call).await.ok()?.ok()
}

/// Registers until the device is told its home.
async fn register(service: &Service, device: &Issued, number: usize, patience: Duration, told: &mut Told) {
    let evidence = Evidence::X509 { chain: device.chain().iter().map(|der| der.to_vec()).collect() };
    let peer = Peer::new(SocketAddr::from(([192, 0, 2, 7], 1)), evidence);
    let ask = RegisterAsk { registration_id: name(number), facts: ClientFacts::default(), request_id: None, tpm: None };
    let last = answered(patience, async {
        let registering = service.register(&peer, &ask).await?;
        let views: Vec<_> = service.follow(registering).collect().await;
        views.into_iter().next_back().expect("a view")
    });
    let Some(view) = last.await else { return };
    if let (OperationStatus::Assigned { .. }, Some(home)) = (view.standing.operation.status, view.standing.assignment) {
        told.home = Some(home.hub);
        told.home_may_change = false;
    }
}

/// The device's life until the end of the script, whatever is answered.
async fn live(service: &Service, stage: &Stage, number: usize, patience: Duration) -> Told {
    let mut told = Told::default();
    let device = DeviceId::from(&name(number));
    let issued = &stage.devices[number];
    let evidence = Evidence::X509 { chain: issued.chain().iter().map(|der| der.to_vec()).collect() };
    for round in 0..ROUNDS {
        register(service, issued, number, patience, &mut told).await;
        for value in 1 + 2 * round..=2 + 2 * round {
            let Some(home) = told.home.clone() else { continue };
            let patch = Document::from_text(&format!(r#"{{"n":{value}}}"#)).unwrap();
            if let Some(resident) = answered(patience, service.report(&evidence, &home, &device, patch.clone())).await {
                told.reported = value;
                told.version = resident.state.twin.reported.version;
                told.writes += 1;
            }
            let write = TwinWrite::Patch(TwinPatch { tags: Some(patch), ..TwinPatch::default() });
            if answered(patience, service.write_twin(&home, &device, None, write)).await.is_some() {
                told.tagged = value;
                told.writes += 1;
            }
        }
        let id = extra(round * DEVICES as u64 + number as u64);
        let certificate = stage.authority.issue_device(&name(90 + number), terms(), &SystemEntropy::new()).unwrap();
        let made = service.create_enrollment(draft(id.clone(), certificate.chain()[0].to_vec()), BY);
        told.enrollments.extend(answered(patience, made).await.map(|_| id));
        let to = if told.home == Some(hub_id("a")) { "b" } else { "a" };
        let pin = PinRequest { hub: hub_id(to), reason: String::new(), expires_at: None };
        told.home_may_change = true;
        let _ = answered(patience, service.reprovision(&name(number), Some(pin), None, BY)).await;
        register(service, issued, number, patience, &mut told).await;
    }
    told
}

fn terms() -> Terms {
    Terms::starting(SystemClock.now(), Duration::from_secs(3600))
}

impl Stage {
    async fn set() -> Self {
        let entropy = SystemEntropy::new();
        let authority = Authority::create("devices", Purpose::Device, terms(), &entropy).unwrap();
        let devices =
            (0..DEVICES).map(|number| authority.issue_device(&name(number), terms(), &entropy).unwrap()).collect();
        let folder = tempfile::tempdir().unwrap();
        let life = Life::start_in(folder.path()).await;
        for id in HUBS {
            let draft = HubDraft {
                id: hub_id(id),
                kind: HubKind::Embedded,
                host_name: None,
                endpoint: None,
                location: None,
                weight: 1,
                capacity: None,
                calls_per_second: None,
            };
            life.service.link_hub(draft, BY).await.unwrap();
        }
        let group = EnrollmentId::Group(GroupId::parse("plant").unwrap());
        life.service.create_enrollment(draft(group, authority.certificate().to_vec()), BY).await.unwrap();
        life.stop().await;
        let hubs = HUBS.map(|id| (hub_id(id), fs::read(hub_file(folder.path(), &hub_id(id))).unwrap()));
        let store = fs::read(store_file(folder.path())).unwrap();
        Self { authority, devices, store, hubs: hubs.into() }
    }

    /// The store's disk first, then the hubs'.
    async fn start_on(&self, disks: &[Disk]) -> Life {
        let hubs = self.hubs.keys().cloned().zip(disks[1..].iter().cloned()).collect();
        let config = redb::Config { cache_bytes: CACHE, ..redb::Config::at("on a disk") };
        let store = RedbStore::on(disks[0].clone(), config, Hooks::default()).unwrap();
        Life::start(Arc::new(store), Arc::new(HubsOnDisks(hubs))).await
    }

    /// One life in which a disk fails after so many operations, and a new one on each picture of what is left. The
    /// operations of each disk in that life, and the writes that were checked.
    async fn fail(&self, which: usize, after: u64) -> (Vec<usize>, u64) {
        let disks: Vec<Disk> =
            [&self.store].into_iter().chain(self.hubs.values()).map(|bytes| Disk::holding(bytes.clone())).collect();
        let life = self.start_on(&disks).await;
        disks[which].fail_after(after);
        let patience = if after == u64::MAX { DEADLINE } else { PATIENCE };
        let told = join_all((0..DEVICES).map(|number| live(&life.service, self, number, patience))).await;
        // The process dies: nothing that happens while it is taken apart reaches a disk.
        disks.iter().for_each(|disk| disk.fail_after(0));
        let done: Vec<usize> = disks.iter().map(Disk::done).collect();
        life.stop().await;
        for arrived in [Arrived::All, Arrived::Nothing, Arrived::Some(after)] {
            let what = format!("disk {which} failed after {after} operations, {arrived:?}");
            let left = disks.iter().zip(&done).map(|(disk, done)| Disk::holding(disk.image(*done, arrived)));
            let life = self.start_on(&left.collect::<Vec<_>>()).await;
            for (number, told) in told.iter().enumerate() {
                check_device(&life.service, number, told, &what).await;
            }
            life.stop().await;
        }
        (done, told.iter().map(|told| told.writes).sum())
    }
}

/// Everything that was told of a device holds, once what was left is done.
async fn check_device(service: &Service, number: usize, told: &Told, what: &str) {
    for id in &told.enrollments {
        assert!(service.enrollment(id).await.is_ok(), "{what}: {id} is gone");
    }
    let Some(told_home) = &told.home else { return };
    let settled = async {
        loop {
            let standing = service.registration(&name(number)).await.unwrap().standing;
            if standing.running.is_none() && standing.obligations.is_empty() {
                return standing;
            }
            tokio::task::yield_now().await;
        }
    };
    let standing = tokio::time::timeout(DEADLINE, settled).await;
    let standing = standing.unwrap_or_else(|_| panic!("{what}: {} is never done", name(number)));
    let home = standing.assignment.expect("a home").hub;
    assert!(home == *told_home || told.home_may_change, "{what}: told {told_home}, at home at {home}");
    let mut places = Vec::new();
    for hub in HUBS.map(hub_id) {
        if let Ok(resident) = service.twin(&hub, &DeviceId::from(&name(number))).await {
            places.push((hub, resident));
        }
    }
    let [(hub, resident)] = places.as_slice() else { panic!("{what}: {} is at {places:?}", name(number)) };
    assert!(*hub == home && resident.open, "{what}: {home}, {places:?}");
    let twin = &resident.state.twin;
    let kept = |document: &Document| document.0.get("n").and_then(Value::as_u64).unwrap_or(0);
    let (reported, tagged) = (kept(&twin.reported.properties), kept(&twin.tags));
    assert!(reported >= told.reported && tagged >= told.tagged, "{what}: {told:?}, {twin:?}");
    assert!(twin.reported.version >= told.version, "{what}: {told:?}, {twin:?}");
}

#[tokio::test]
async fn what_callers_were_told_survives_a_disk_that_fails_at_any_operation() {
    let stage = Stage::set().await;
    let (whole, writes) = stage.fail(0, u64::MAX).await;
    assert_eq!(writes, DEVICES as u64 * ROUNDS * 4, "without a fault everything is answered");
    let cases = whole
        .iter()
        .enumerate()
        .flat_map(|(which, operations)| (0..*operations as u64).step_by(stride(23)).map(move |after| (which, after)));
    let lives = stream::iter(cases).map(|(which, after)| stage.fail(which, after)).buffer_unordered(AT_ONCE);
    let (lives, checked) = lives.fold((1, writes), async |(lives, all), (_, writes)| (lives + 1, all + writes)).await;
    println!(
        "service: {lives} lives on failing disks ({whole:?} operations each), {} starts on what was left, \
         {checked} acknowledged writes, nothing lost",
        lives * 3
    );
}
