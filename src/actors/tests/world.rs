//! The world of an actor test: given hubs and enrollments, when devices register, then hubs and store hold this.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::faulty::FaultyStore;
use crate::actors::messages::{Accepted, Answer, Refused};
use crate::actors::{Config, Directory, Fleet, PinTo, Surroundings};
use crate::allocators::{AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault};
use crate::ambient::{Clock, ManualClock, SeededEntropy};
use crate::attestation::{Verified, x509};
use crate::domain::{
    AllocationPolicy, Attestation, ClientFacts, DeviceId, Document, Enrollment, EnrollmentId, Evidence, Fault, Hub,
    HubId, HubKind, HubState, Incarnation, InitialState, Reason, RegistrationId, RequestId, ResetOnSameHub, Timestamp,
    TwinPatch, UnreachableRule, Version, X509Leaves,
};
use crate::hubs::entry::Phase;
use crate::hubs::scripted::ScriptedHub;
use crate::moves::Standing;
use crate::store::{Change, Commit, Store};

/// No test waits longer for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How far the clock is moved at a time.
const TICK: Duration = Duration::from_millis(500);
pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub fn hub_id(id: &str) -> HubId {
    HubId::parse(id).unwrap()
}

/// An allocator that answers what a test has put in, and waits when there is nothing.
#[derive(Debug, Default)]
pub struct ScriptedAllocator {
    answers: Mutex<Vec<Result<AllocationAnswer, AllocatorFault>>>,
    asked: Mutex<Vec<AllocationQuestion>>,
    news: tokio::sync::Notify,
}

impl ScriptedAllocator {
    pub fn answer(&self, answer: Result<AllocationAnswer, AllocatorFault>) {
        self.answers.lock().unwrap().push(answer);
        self.news.notify_one();
    }

    pub fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Allocator for ScriptedAllocator {
    fn ask(&self, question: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        self.asked.lock().unwrap().push(question);
        Box::pin(async move {
            loop {
                if let Some(answer) = self.answers.lock().unwrap().pop() {
                    return answer;
                }
                self.news.notified().await;
            }
        })
    }
}

pub struct World {
    pub store: Arc<FaultyStore>,
    pub clock: Arc<ManualClock>,
    pub hubs: BTreeMap<HubId, ScriptedHub>,
    pub allocator: Arc<ScriptedAllocator>,
    pub directory: Directory,
}

/// A device that can prove itself.
#[derive(Clone)]
pub struct Device {
    pub id: RegistrationId,
    pub enrollment: Enrollment,
    pub verified: Verified,
}

impl World {
    /// Hubs `a` and `b`.
    pub async fn new() -> Self {
        Self::with(Config::default(), &["a", "b"]).await
    }

    pub async fn with(config: Config, hubs: &[&str]) -> Self {
        let store = Arc::new(FaultyStore::new());
        let clock = Arc::new(ManualClock::at(NOW));
        let mut this = Self::start(store, clock, config, BTreeMap::new());
        for id in hubs {
            this.link(id, |_| {}).await;
        }
        this
    }

    fn start(
        store: Arc<FaultyStore>,
        clock: Arc<ManualClock>,
        config: Config,
        hubs: BTreeMap<HubId, ScriptedHub>,
    ) -> Self {
        let allocator = Arc::new(ScriptedAllocator::default());
        let surroundings = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(1)),
            allocator: allocator.clone(),
            fleet: Arc::new(Fleet::default()),
        };
        let directory = Directory::start(config, surroundings).unwrap();
        Self { store, clock, hubs, allocator, directory }
    }

    /// The service dies and is started again on the same store and hubs.
    pub async fn restart(self) -> Self {
        let Self { store, clock, hubs, directory, .. } = self;
        drop(directory);
        let this = Self::start(store, clock, Config::default(), hubs);
        for (hub, _) in this.store.hubs().await.unwrap() {
            let connector = Arc::new(this.hubs[&hub.id].clone());
            this.directory.attach_hub(hub, connector);
        }
        this.directory.resume().await.unwrap();
        this
    }

    pub async fn link(&mut self, id: &str, edit: impl FnOnce(&mut Hub)) {
        self.link_as(id, edit, |_| {}).await;
    }

    /// Links a hub that is made ready first.
    pub async fn link_as(&mut self, id: &str, edit: impl FnOnce(&mut Hub), prepare: impl FnOnce(&ScriptedHub)) {
        let id = hub_id(id);
        let incarnation = Incarnation(self.hubs.len() as u128 + 1);
        let mut hub = Hub {
            id: id.clone(),
            host_name: format!("{id}.test"),
            endpoint: "127.0.0.1:1".to_owned(),
            kind: HubKind::Embedded,
            state: HubState::Active,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
            incarnation: Some(incarnation),
            taken_down: false,
            created_at: NOW,
            updated_at: NOW,
            version: Version::ABSENT,
        };
        edit(&mut hub);
        self.put([Change::PutHub(Box::new(hub.clone()))]).await;
        hub.version = hub.version.next();
        let connector = ScriptedHub::new(incarnation, self.clock.clone());
        prepare(&connector);
        self.hubs.insert(id, connector.clone());
        self.directory.attach_hub(hub, Arc::new(connector));
    }

    pub async fn put(&self, changes: impl IntoIterator<Item = Change>) {
        let commit = Commit { changes: changes.into_iter().collect(), ..Commit::default() };
        self.store.memory.commit(commit).await.unwrap();
    }

    /// Enrolls a device of its own certificate, statically at hub `a` under migrate unless edited.
    pub async fn enroll(&self, id: &str, edit: impl FnOnce(&mut Enrollment)) -> Device {
        let id = RegistrationId::parse(id).unwrap();
        let leaf = leaf(&id);
        let mut enrollment = Enrollment {
            id: EnrollmentId::Individual(id.clone()),
            attestation: Attestation::X509Leaf(X509Leaves {
                primary: x509::certificate_ref(&leaf).unwrap(),
                secondary: None,
            }),
            enabled: true,
            device_id: None,
            initial: InitialState {
                desired: Document::from_text(r#"{"mode":"initial"}"#).unwrap(),
                ..InitialState::default()
            },
            reprovision: Some(crate::domain::ReprovisionPolicy::Migrate),
            allocation: Some(AllocationPolicy::Static),
            hubs: vec![hub_id("a")],
            unreachable: UnreachableRule::Wait { deadline: Duration::from_secs(600) },
            allow_late_writes: false,
            reset_on_same_hub: ResetOnSameHub::Always,
            reassign_when_down: false,
            adopt_existing: false,
            created_at: NOW,
            updated_at: NOW,
            version: Version::ABSENT,
        };
        edit(&mut enrollment);
        self.put([Change::PutEnrollment(Box::new(enrollment.clone()))]).await;
        enrollment.version = enrollment.version.next();
        let verified = prove(&id, &leaf, &enrollment);
        Device { id, enrollment, verified }
    }

    /// The operator edits the device's enrollment; the device proves itself against the new one.
    pub async fn edit(&self, device: &Device, edit: impl FnOnce(&mut Enrollment)) -> Device {
        let mut enrollment = device.enrollment.clone();
        edit(&mut enrollment);
        self.put([Change::PutEnrollment(Box::new(enrollment.clone()))]).await;
        enrollment.version = enrollment.version.next();
        let leaf = enrollment.attestation.certificates().next().unwrap().der.clone();
        let verified = prove(&device.id, &leaf, &enrollment);
        Device { id: device.id.clone(), enrollment, verified }
    }

    pub async fn ask(&self, device: &Device, request_id: Option<&str>) -> Result<Answer, Fault> {
        let request_id = request_id.map(|id| RequestId::parse(id).unwrap());
        let enrollment = Arc::new(device.enrollment.clone());
        self.directory.register(device.verified.clone(), enrollment, ClientFacts::default(), request_id).await
    }

    /// Registers and expects to be taken.
    pub async fn register(&self, device: &Device) -> Accepted {
        self.ask(device, None).await.unwrap().unwrap()
    }

    /// Registers and waits until the operation is over.
    pub async fn settle(&self, device: &Device) -> Standing {
        let accepted = self.register(device).await;
        self.over(accepted).await
    }

    /// Waits until the operation that was accepted is over.
    pub async fn over(&self, mut accepted: Accepted) -> Standing {
        if let Some(standing) = accepted.standing.clone().filter(|it| it.operation.status.is_final()) {
            return standing;
        }
        let over = accepted
            .updates
            .wait_for(|standing| standing.as_ref().is_none_or(|standing| standing.operation.status.is_final()));
        tokio::time::timeout(PATIENCE, over).await.expect("the operation ends").unwrap().clone().unwrap()
    }

    /// Waits until nothing runs and nothing is owed, moving the clock when only time is missing.
    pub async fn quiet(&self, device: &Device) -> Option<Standing> {
        let mut still = 0;
        let waiting = async {
            loop {
                self.directory.describe(&device.id).await.unwrap();
                if self.store.load_device(&device.id).await.unwrap().open.is_empty() {
                    return self.directory.describe(&device.id).await.unwrap().standing;
                }
                self.tick(device, &mut still).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("everything is done at last")
    }

    /// Waits for a standing, moving the clock a second at a time.
    pub async fn until(&self, device: &Device, mut is_so: impl FnMut(Option<&Standing>) -> bool) -> Option<Standing> {
        let mut still = 0;
        let waiting = async {
            loop {
                let report = self.directory.describe(&device.id).await.unwrap();
                if is_so(report.standing.as_ref()) {
                    return report.standing;
                }
                self.tick(device, &mut still).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("what was waited for happens")
    }

    /// Lets a little time pass, unless a call is under way that an answer may still come for: a clock that runs ahead of
    /// the threads would make it overdue. A call that is held for long is given up on after `STILL_MAX` looks.
    pub async fn tick(&self, device: &Device, still: &mut u32) {
        const STILL_MAX: u32 = 500;
        tokio::task::yield_now().await;
        let now = self.clock.now();
        let tries = self.directory.describe(&device.id).await.unwrap().tries;
        let under_way = tries.iter().any(|(_, tries)| tries.next_at <= now);
        if under_way && *still < STILL_MAX {
            *still += 1;
        } else {
            *still = 0;
            self.clock.advance(TICK);
        }
    }

    pub async fn move_to(&self, device: &Device, hub: &str) -> Result<Answer, Fault> {
        let to = PinTo { hub: hub_id(hub), reason: "a test".to_owned(), expires_at: None };
        let enrollment = Arc::new(device.enrollment.clone());
        self.directory.reprovision(&device.id, enrollment, Some(to), "operator", None).await
    }

    pub fn hub(&self, id: &str) -> &ScriptedHub {
        &self.hubs[&hub_id(id)]
    }

    /// Where the device is and in which phase.
    pub fn phases(&self, device: &Device) -> Vec<(String, Phase)> {
        let name = DeviceId::from(&device.id);
        let phases = self.hubs.iter().filter_map(|(id, hub)| Some((id.to_string(), hub.phase(&name)?)));
        phases.collect()
    }

    /// The device's only home, open.
    pub fn assert_home(&self, device: &Device, hub: &str) {
        assert_eq!(self.phases(device), [(hub.to_owned(), Phase::Open)]);
    }

    /// A back end writes a tag at a hub.
    pub fn write(&self, device: &Device, hub: &str, tags: &str) -> bool {
        let patch = TwinPatch { tags: Some(Document::from_text(tags).unwrap()), ..TwinPatch::default() };
        self.hub(hub).write_directly(&DeviceId::from(&device.id), patch).is_ok()
    }

    pub fn tags(&self, device: &Device, hub: &str) -> Option<String> {
        self.hub(hub).state(&DeviceId::from(&device.id)).map(|state| state.twin.tags.to_text())
    }
}

/// The reason of a request that was not taken.
pub fn reason(answer: Result<Answer, Fault>) -> Option<Reason> {
    match answer {
        Ok(Ok(_)) => None,
        Ok(Err(Refused::Fault(fault))) | Err(fault) => Some(fault.reason),
        Ok(Err(Refused::Rejudge)) => panic!("asked to judge again"),
    }
}

/// A self-signed certificate of a device, valid for long.
pub fn leaf(id: &RegistrationId) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id.as_str());
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

pub fn prove(id: &RegistrationId, leaf: &[u8], enrollment: &Enrollment) -> Verified {
    let Evidence::X509 { chain } = (Evidence::X509 { chain: vec![leaf.to_vec()] }) else { unreachable!() };
    let presented = x509::Presented::parse(&chain).unwrap();
    x509::verify(&presented, enrollment, id, NOW).unwrap()
}
