//! The program is killed again and again while devices write and move: what was acknowledged is never lost, and every
//! device ends at exactly one hub.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rehome::ambient::{Entropy, SeededEntropy};
use rehome::client::{ClientFault, Device, Home, Operator, Patience, ReprovisionCall, TwinTarget};
use rehome::domain::{ClientFacts, DeviceId, Document, Reason, TwinPatch};
use rehome::pki::Issued;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::serving::Serving;
use crate::world::{Site, document, hub_id, identity_of, in_time, registration_id, settled, tell_hubs_where_they_are};

const DEVICES: usize = 12;
const MOVERS: u64 = 3;
/// Each key of a twin is written over and over, so that a twin stays small however long the test runs.
const KEYS: u64 = 16;
const KILLS: u64 = 12;
/// Writes and moves between two kills, at most.
const CALLS_BETWEEN_KILLS: u64 = 150;
const HUBS: [&str; 2] = ["hub-a", "hub-b"];
const SETTINGS: [&str; 2] = ["log.filter=warn", "actors.passivate_after=1s"];

/// What may stand under a key: the last value that was acknowledged, or one that was tried since.
#[derive(Debug, Default)]
struct Expected {
    acknowledged: Option<u64>,
    tried_since: Vec<u64>,
}

/// One side's writes, key by key.
#[derive(Debug, Default)]
struct Ledger {
    keys: BTreeMap<String, Expected>,
    count: u64,
    acknowledged: u64,
}

impl Ledger {
    /// The next write: it overwrites one key.
    fn draw(&mut self) -> (String, u64) {
        self.count += 1;
        let key = format!("k{}", self.count % KEYS);
        self.keys.entry(key.clone()).or_default().tried_since.push(self.count);
        (key, self.count)
    }

    fn acknowledge(&mut self, key: &str, value: u64) {
        let expected = self.keys.entry(key.to_owned()).or_default();
        *expected = Expected { acknowledged: Some(value), tried_since: Vec::new() };
        self.acknowledged += 1;
    }

    #[track_caller]
    fn check(&self, whose: &str, held: &Document) {
        for (key, expected) in &self.keys {
            let found = held.0.get(key).and_then(Value::as_u64);
            let fits =
                found == expected.acknowledged || found.is_some_and(|found| expected.tried_since.contains(&found));
            assert!(fits, "{whose}, {key}: found {found:?}, expected {expected:?}");
        }
    }
}

/// What everybody shares.
struct Stage {
    /// Where the service listens in its current life, and which life that is.
    lives: watch::Receiver<Life>,
    over: AtomicBool,
    /// Calls that were answered.
    calls: AtomicU64,
    called: Notify,
    moves: AtomicU64,
}

#[derive(Clone)]
struct Life {
    number: u64,
    site: Site,
}

impl Stage {
    fn note_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.called.notify_one();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Where to go on after a failure: a service that answered is there, one that did not comes again. `None` at the end.
    async fn after(&self, fault: &ClientFault, life: &Life) -> Option<Life> {
        if answered(fault) {
            return Some(life.clone());
        }
        let mut lives = self.lives.clone();
        lives.wait_for(|next| next.number > life.number).await.ok().map(|next| next.clone())
    }
}

/// Whether it was the service that said no, and not the connection.
fn answered(fault: &ClientFault) -> bool {
    if matches!(fault, ClientFault::NotAssigned { .. }) {
        return true;
    }
    let reason = fault.remote().and_then(|remote| remote.known_reason());
    assert_ne!(reason, Some(Reason::Internal), "{fault}");
    reason.is_some()
}

/// A device that reports, and registers again whenever its hub does not take the report.
struct Reporter {
    issued: Issued,
    name: String,
    ledger: Ledger,
    version: u64,
}

impl Reporter {
    async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&fault, &life).await
        {
            life = next;
        }
        self
    }

    /// One connection: until it breaks.
    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let entropy = Arc::new(rehome::ambient::SystemEntropy::new());
        let target = life.site.target(Some(identity_of(&self.issued)));
        let clock = Arc::new(rehome::ambient::SystemClock);
        let device = Device::connect(registration_id(&self.name), target, clock, entropy).await?;
        while !stage.is_over() {
            let update = device.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await?;
            stage.note_call();
            let home = device.home(&update).await?;
            self.report_at(&home, stage).await?;
        }
        Ok(())
    }

    /// Reports until the hub says that the device is moving or has moved.
    async fn report_at(&mut self, home: &Home, stage: &Stage) -> Result<(), ClientFault> {
        while !stage.is_over() {
            let (key, value) = self.ledger.draw();
            match home.report(&document(&format!(r#"{{"{key}":{value}}}"#))).await {
                Ok(version) => {
                    assert!(version > self.version, "{}: version {version} after {}", self.name, self.version);
                    self.version = version;
                    self.ledger.acknowledge(&key, value);
                    stage.note_call();
                }
                Err(fault) if is_elsewhere(&fault) => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}

fn is_elsewhere(fault: &ClientFault) -> bool {
    let reason = fault.remote().and_then(|remote| remote.known_reason());
    matches!(reason, Some(Reason::DeviceMoving | Reason::DeviceMoved | Reason::TwinNotFound))
}

/// A back end that tags devices wherever they are.
struct Tagger {
    ledgers: Vec<Ledger>,
    entropy: SeededEntropy,
}

impl Tagger {
    async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&fault, &life).await
        {
            life = next;
        }
        self
    }

    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let operator = life.site.connect_operator().await?;
        while !stage.is_over() {
            let number = below(&self.entropy, DEVICES as u64) as usize;
            let (key, value) = self.ledgers[number].draw();
            let patch = TwinPatch { tags: Some(document(&format!(r#"{{"{key}":{value}}}"#))), ..TwinPatch::default() };
            for hub in HUBS {
                match operator.update_twin(&at(hub, number), &patch, None).await {
                    Ok(_) => {
                        self.ledgers[number].acknowledge(&key, value);
                        stage.note_call();
                        break;
                    }
                    Err(fault) if is_elsewhere(&fault) => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }
}

/// An operator who sends devices back and forth.
struct Mover {
    entropy: SeededEntropy,
}

impl Mover {
    async fn live(self, stage: Arc<Stage>) {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&fault, &life).await
        {
            life = next;
        }
    }

    async fn visit(&self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let operator = life.site.connect_operator().await?;
        while !stage.is_over() {
            let registration = registration_id(&name(below(&self.entropy, DEVICES as u64) as usize));
            let here = operator.registration(&registration).await?.assignment.map(|assignment| assignment.hub);
            let to = if here == Some(hub_id(HUBS[0])) { HUBS[1] } else { HUBS[0] };
            let call = ReprovisionCall {
                registration,
                to: Some(hub_id(to)),
                pin_expires_at: None,
                reason: String::new(),
                request_id: None,
            };
            operator.reprovision(&call).await?;
            stage.moves.fetch_add(1, Ordering::Relaxed);
            stage.note_call();
        }
        Ok(())
    }
}

fn below(entropy: &dyn Entropy, bound: u64) -> u64 {
    (entropy.draw_u128() % u128::from(bound)) as u64
}

fn name(number: usize) -> String {
    format!("dev-{number}")
}

fn at(hub: &str, number: usize) -> TwinTarget {
    TwinTarget { hub: hub_id(hub), device: DeviceId::parse(&name(number)).unwrap() }
}

/// Where a device is: the hubs that know it, and whether they let it write.
async fn places(operator: &Operator, number: usize) -> Vec<(&'static str, bool, Document, Document, u64)> {
    let mut places = Vec::new();
    for hub in HUBS {
        match operator.twin(&at(hub, number)).await {
            Ok(record) => {
                let twin = record.state.twin;
                let reported = twin.reported.properties;
                places.push((hub, record.accepts_writes, reported, twin.tags, twin.reported.version));
            }
            Err(fault) => assert!(is_elsewhere(&fault), "{fault}"),
        }
    }
    places
}

/// Counted in calls, so that a kill comes in the midst of them and not after some time.
async fn calls_go_by(stage: &Stage, count: u64) {
    let until = stage.calls.load(Ordering::Relaxed) + count;
    while stage.calls.load(Ordering::Relaxed) < until {
        stage.called.notified().await;
    }
}

/// Devices go on calling while it starts.
async fn started(folder: &Path) -> Serving {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || Serving::start(&folder, &SETTINGS)).await.unwrap()
}

/// How often to kill: `REHOME_KILLS`, for those who have the time.
fn kills() -> u64 {
    std::env::var("REHOME_KILLS").ok().map_or(KILLS, |text| text.parse().expect("REHOME_KILLS is a number"))
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nobody_is_homeless() {
    let folder = tempfile::tempdir().unwrap();
    let kills = kills();
    let random = SeededEntropy::new(1);

    // Given: a fleet at hub-a.
    let mut serving = started(folder.path()).await;
    let site = serving.site.clone();
    site.operator().await.create_enrollment(&site.group()).await.unwrap();
    let (lives, seen) = watch::channel(Life { number: 0, site: site.clone() });
    let stage = Arc::new(Stage {
        lives: seen,
        over: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        called: Notify::new(),
        moves: AtomicU64::new(0),
    });
    let reporters: Vec<_> = (0..DEVICES)
        .map(|number| {
            let name = name(number);
            let reporter = Reporter { issued: site.issue(&name), name, ledger: Ledger::default(), version: 0 };
            tokio::spawn(reporter.live(stage.clone()))
        })
        .collect();
    let ledgers = (0..DEVICES).map(|_| Ledger::default()).collect();
    let tagger = tokio::spawn(Tagger { ledgers, entropy: SeededEntropy::new(2) }.live(stage.clone()));
    let movers: Vec<_> = (0..MOVERS)
        .map(|number| tokio::spawn(Mover { entropy: SeededEntropy::new(3 + number) }.live(stage.clone())))
        .collect();

    // When: it is killed while they write and move.
    for number in 1..=kills {
        let calls = 1 + below(&random, CALLS_BETWEEN_KILLS);
        in_time(calls_go_by(&stage, calls)).await;
        serving.kill();
        serving = started(folder.path()).await;
        let site = serving.site.clone();
        tell_hubs_where_they_are(&site.operator().await, site.address).await;
        lives.send_replace(Life { number, site });
    }
    in_time(calls_go_by(&stage, CALLS_BETWEEN_KILLS)).await;
    stage.over.store(true, Ordering::Relaxed);
    drop(lives);
    let tagger = in_time(tagger).await.unwrap();
    for mover in movers {
        in_time(mover).await.unwrap();
    }

    // Then: every device is at one hub, with everything that was acknowledged.
    let operator = serving.site.operator().await;
    let mut writes = 0;
    for (number, reporter) in reporters.into_iter().enumerate() {
        let reporter = in_time(reporter).await.unwrap();
        let record = settled(&operator, &reporter.name).await;
        let home = record.assignment.expect("a home").hub;
        let places = places(&operator, number).await;
        let [(hub, accepts_writes, reported, tags, version)] = places.as_slice() else {
            panic!("{} is at {places:?}", reporter.name)
        };
        assert!(*accepts_writes && hub_id(hub) == home, "{}: {places:?}, {home}", reporter.name);
        reporter.ledger.check(&format!("{} reported", reporter.name), reported);
        tagger.ledgers[number].check(&format!("{} tags", reporter.name), tags);
        assert!(*version >= reporter.version, "{}: {version} < {}", reporter.name, reporter.version);
        writes += reporter.ledger.acknowledged + tagger.ledgers[number].acknowledged;
    }
    let moves = stage.moves.load(Ordering::Relaxed);
    println!("{writes} acknowledged writes, {moves} moves, {kills} kills");
    assert!(writes > 0 && moves > 0);
    let (said, ended) = tokio::task::spawn_blocking(|| serving.stop()).await.unwrap();
    assert!(ended.success(), "{said}");
}

#[test]
fn the_ledger_notices_what_was_lost() {
    let mut ledger = Ledger::default();
    let (key, first) = ledger.draw();
    ledger.acknowledge(&key, first);
    for _ in 1..KEYS {
        ledger.draw();
    }
    let (again, second) = ledger.draw();
    assert_eq!(again, key);
    let held = |value: Option<u64>| match value {
        Some(value) => document(&format!(r#"{{"{key}":{value}}}"#)),
        None => Document::default(),
    };
    let fits = |ledger: &Ledger, value| std::panic::catch_unwind(|| ledger.check("x", &held(value))).is_ok();
    // The second write may have happened or not; the first must not be gone.
    let before = [Some(first), Some(second), None, Some(second + 1)].map(|value| fits(&ledger, value));
    ledger.acknowledge(&key, second);
    let after = [Some(first), Some(second), None].map(|value| fits(&ledger, value));
    assert_eq!((before, after), ([true, true, false, false], [false, true, false]));
}
