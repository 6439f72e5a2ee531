//! The program is killed again and again while devices write, move, are set back and change their certificates, and hubs
//! go away: what was acknowledged is never lost, and every device ends at exactly one hub.
//!
//! Every write that was acknowledged is compared in the end. The answer to a write names the version that it made, and
//! versions never go down: so the write must stand in the first state of that version or a later one, be it in the
//! history or at the hub. A reset empties a twin, so what was written before it can only be found in the history.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rehome::ambient::{Entropy, SeededEntropy};
use rehome::client::{
    ClientFault, Device, DeviceRecord, EnrollmentRecord, Home, Operator, Patience, ReprovisionCall, TwinTarget,
};
use rehome::domain::{
    ClientFacts, DeviceId, Document, EnrollmentDraft, EnrollmentId, Reason, ReprovisionPolicy, ResetOnSameHub, Twin,
    TwinPatch,
};
use rehome::pki::Issued;
use serde_json::Value;
use tokio::sync::watch;

use crate::serving::Serving;
use crate::world::{
    DEADLINE, Site, document, hub_id, identity_of, individual, registration_id, settled, tell_hubs_where_they_are,
};

const DEVICES: usize = 12;
/// The last of them are set back whenever they move; the others take everything along.
const RESET_FROM: usize = 9;
/// Resets of one device: fewer than a history keeps, so that all that was ever written can be found.
const RESETS_MAX: u64 = 30;
const MOVERS: u64 = 3;
/// Each key of a twin is written over and over, so that a twin stays small however long the test runs.
const KEYS: u64 = 16;
const KILLS: u64 = 12;
/// Writes and moves between two kills, at most.
const CALLS_BETWEEN_KILLS: u64 = 150;
const HUBS: [&str; 2] = ["hub-a", "hub-b"];
const SETTINGS: [&str; 2] = ["log.filter=warn", "actors.passivate_after=1s"];

/// A write that was acknowledged.
#[derive(Debug)]
struct Written {
    value: u64,
    /// Of what was written to, as the answer says.
    version: u64,
}

/// One side's writes. Each overwrites the one before under its key, and has a higher value.
#[derive(Debug, Default)]
struct Ledger {
    tried: u64,
    acknowledged: Vec<Written>,
}

/// A part of a twin as it was at some time.
#[derive(Debug)]
struct Held {
    version: u64,
    document: Document,
}

impl Ledger {
    /// The next write: it overwrites one key.
    fn draw(&mut self) -> (String, u64) {
        self.tried += 1;
        (key_of(self.tried), self.tried)
    }

    fn acknowledge(&mut self, value: u64, version: u64) {
        self.acknowledged.push(Written { value, version });
    }

    /// Finds every write in `held`, the states of all times; answers how many of them were found in the past.
    #[track_caller]
    fn check(&self, whose: &str, held: &mut [Held]) -> u64 {
        held.sort_by_key(|held| held.version);
        let last = held.len().saturating_sub(1);
        let mut in_history = 0;
        for written in &self.acknowledged {
            let Written { value, version } = *written;
            let place = held.partition_point(|held| held.version < version);
            let state = held.get(place).unwrap_or_else(|| panic!("{whose}: nothing is as new as {written:?}"));
            let key = key_of(value);
            let found = state.document.0.get(&key).and_then(Value::as_u64);
            // Or one that overwrote it since, acknowledged or not.
            let fits = found.is_some_and(|found| found >= value && found <= self.tried && key_of(found) == key);
            assert!(fits, "{whose}, {key}: found {found:?} at version {}, and {written:?}", state.version);
            in_history += u64::from(place < last);
        }
        in_history
    }
}

fn key_of(value: u64) -> String {
    format!("k{}", value % KEYS)
}

/// What everybody shares.
struct Stage {
    /// Where the service listens in its current life, and which life that is.
    lives: watch::Receiver<Life>,
    pace: watch::Sender<Pace>,
    /// Who is at what, for the case that nothing goes on.
    doing: Mutex<BTreeMap<String, &'static str>>,
    kills: u64,
    moves: AtomicU64,
    resets: [AtomicU64; DEVICES],
    refreshes: AtomicU64,
    outages: AtomicU64,
}

/// What everybody waits by.
#[derive(Debug, Default)]
struct Pace {
    /// Calls that the service answered, be it with a refusal. While a hub is down every device may be in a move that waits for
    /// it, and then nothing but refusals is left to be counted.
    calls: u64,
    over: bool,
}

#[derive(Clone)]
struct Life {
    number: u64,
    site: Site,
}

impl Stage {
    fn note_call(&self) {
        self.pace.send_modify(|pace| pace.calls += 1);
    }

    fn is_over(&self) -> bool {
        self.pace.borrow().over
    }

    /// Counted in calls, so that what waits comes in the midst of them and not after some time. Sooner when all is over.
    async fn calls_go_by(&self, count: u64) {
        let mut pace = self.pace.subscribe();
        let until = pace.borrow().calls + count;
        pace.wait_for(|pace| pace.calls >= until || pace.over).await.expect("the stage has the sender");
    }

    fn does(&self, who: &str, what: &'static str) {
        self.doing.lock().unwrap().insert(who.to_owned(), what);
    }

    /// Waits for something that the test cannot go on without; where it does not come, everything that is known is said.
    async fn in_time<T>(&self, what: &str, awaited: impl Future<Output = T>) -> T {
        if let Ok(came) = tokio::time::timeout(DEADLINE, awaited).await {
            return came;
        }
        let Life { number, site } = self.lives.borrow().clone();
        let fleet = match tokio::time::timeout(DEADLINE, fleet(&site)).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(fault)) => format!("the service: {fault}"),
            Err(_) => "the service does not answer".to_owned(),
        };
        let (calls, doing) = (self.pace.borrow().calls, self.doing.lock().unwrap());
        panic!("no {what} within {DEADLINE:?}, in life {number}, after {calls} calls:\n{doing:#?}\n{fleet}");
    }

    /// Where to go on after a failure: a service that answered is there, one that did not comes again. `None` at the end.
    async fn after(&self, who: &str, fault: &ClientFault, life: &Life) -> Option<Life> {
        if answered(fault) {
            self.note_call();
            return Some(life.clone());
        }
        self.does(who, "waits for the next life");
        let mut lives = self.lives.clone();
        lives.wait_for(|next| next.number > life.number).await.ok().map(|next| next.clone())
    }
}

/// Hubs and devices as an operator sees them, a line each.
async fn fleet(site: &Site) -> Result<String, ClientFault> {
    let operator = site.connect_operator().await?;
    let mut lines = Vec::new();
    for hub in operator.list_hubs().await? {
        lines.push(format!("{}: {hub:?}", hub.draft.id));
    }
    for number in 0..DEVICES {
        let record = operator.registration(&registration_id(&name(number))).await?;
        let home = record.assignment.map(|assignment| assignment.hub);
        let (status, running, owed) = (record.operation.status, record.running, record.obligations);
        lines.push(format!("{}: at {home:?}, {status:?}, {running:?}, owes {owed:?}", name(number)));
    }
    Ok(lines.join("\n"))
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

/// A device that reports, and registers again whenever its hub does not take the report. With a certificate that its own
/// enrollment names it keeps that one; otherwise it comes with a new one in every life of the service.
struct Reporter {
    enrolled: Option<Issued>,
    name: String,
    ledger: Ledger,
    version: u64,
}

impl Reporter {
    fn who(&self) -> String {
        format!("reporter of {}", self.name)
    }

    async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
        self
    }

    /// One connection: until it breaks.
    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let entropy = Arc::new(rehome::ambient::SystemEntropy::new());
        let identity = match &self.enrolled {
            Some(issued) => identity_of(issued),
            None => {
                stage.refreshes.fetch_add(1, Ordering::Relaxed);
                identity_of(&life.site.issue(&self.name))
            }
        };
        let target = life.site.target(Some(identity));
        let clock = Arc::new(rehome::ambient::SystemClock);
        let who = self.who();
        stage.does(&who, "connects");
        let device = Device::connect(registration_id(&self.name), target, clock, entropy).await?;
        while !stage.is_over() {
            stage.does(&who, "registers");
            let update = device.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await?;
            stage.note_call();
            stage.does(&who, "connects to its hub");
            let home = device.home(&update).await?;
            stage.does(&who, "reports");
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
                    self.ledger.acknowledge(value, version);
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
    fn who(&self) -> String {
        "tagger".to_owned()
    }

    async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
        self
    }

    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        stage.does(&who, "tags");
        while !stage.is_over() {
            let number = below(&self.entropy, DEVICES as u64) as usize;
            let (key, value) = self.ledgers[number].draw();
            let patch = TwinPatch { tags: Some(document(&format!(r#"{{"{key}":{value}}}"#))), ..TwinPatch::default() };
            for hub in HUBS {
                match operator.update_twin(&at(hub, number), &patch, None).await {
                    Ok(record) => {
                        self.ledgers[number].acknowledge(value, record.state.twin.version);
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

/// An operator who sends devices back and forth, and sets some of them back where they are.
struct Mover {
    number: u64,
    entropy: SeededEntropy,
}

impl Mover {
    fn who(&self) -> String {
        format!("mover {}", self.number)
    }

    async fn live(self, stage: Arc<Stage>) {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
    }

    async fn visit(&self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        while !stage.is_over() {
            let number = below(&self.entropy, DEVICES as u64) as usize;
            let registration = registration_id(&name(number));
            let mut goes = true;
            if number >= RESET_FROM {
                // Spread over all lives.
                let due = 1 + life.number * (RESETS_MAX - 1) / stage.kills;
                if stage.resets[number].fetch_add(1, Ordering::Relaxed) >= due {
                    stage.resets[number].fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                goes = below(&self.entropy, 2) == 0;
            }
            stage.does(&who, "looks a device up");
            let here = operator.registration(&registration).await?.assignment.map(|assignment| assignment.hub);
            let there = if here == Some(hub_id(HUBS[0])) { HUBS[1] } else { HUBS[0] };
            if !goes {
                stage.does(&who, "changes an enrollment");
                // A reset in place follows a change of the enrollment.
                let id = EnrollmentId::Individual(registration.clone());
                let EnrollmentRecord { mut draft, version, .. } = operator.enrollment(&id).await?;
                let edition = below(&self.entropy, 1 << 32);
                draft.initial.desired = document(&format!(r#"{{"edition":{edition}}}"#));
                operator.update_enrollment(&draft, version).await?;
            }
            let call = ReprovisionCall {
                registration,
                to: goes.then(|| hub_id(there)),
                pin_expires_at: None,
                reason: String::new(),
                request_id: None,
            };
            stage.does(&who, "moves a device");
            operator.reprovision(&call).await?;
            stage.moves.fetch_add(1, Ordering::Relaxed);
            stage.note_call();
        }
        Ok(())
    }
}

/// An operator who takes a hub down, and brings it up after some time.
struct Outages {
    entropy: SeededEntropy,
}

impl Outages {
    fn who(&self) -> String {
        "outages".to_owned()
    }

    async fn live(self, stage: Arc<Stage>) {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
    }

    async fn visit(&self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        while !stage.is_over() {
            stage.does(&who, "brings the hubs up");
            for hub in HUBS {
                operator.bring_up_hub(&hub_id(hub)).await?;
            }
            stage.does(&who, "leaves both hubs up");
            self.pause(stage).await;
            stage.does(&who, "takes a hub down");
            let hub = HUBS[below(&self.entropy, 2) as usize];
            operator.take_down_hub(&hub_id(hub)).await?;
            stage.outages.fetch_add(1, Ordering::Relaxed);
            stage.does(&who, "leaves a hub down");
            self.pause(stage).await;
        }
        Ok(())
    }

    async fn pause(&self, stage: &Stage) {
        stage.calls_go_by(below(&self.entropy, CALLS_BETWEEN_KILLS)).await;
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

/// Where a device is: the hubs that know it, and what they hold of it.
async fn places(operator: &Operator, number: usize) -> Vec<(&'static str, DeviceRecord)> {
    let mut places = Vec::new();
    for hub in HUBS {
        match operator.twin(&at(hub, number)).await {
            Ok(record) => places.push((hub, record)),
            Err(fault) => assert!(is_elsewhere(&fault), "{fault}"),
        }
    }
    places
}

/// Every state of the device that the history has.
async fn past(operator: &Operator, number: usize) -> Vec<Twin> {
    let id = registration_id(&name(number));
    let mut twins = Vec::new();
    for entry in operator.history(&id).await.unwrap().into_iter().filter(|entry| entry.has_twins) {
        let states = operator.history_twins(&id, entry.generation).await.unwrap();
        twins.extend(states.into_iter().map(|state| state.device.state.twin));
    }
    twins
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

/// Whose writes, and the part of a twin where they stand.
type Side<'a> = (&'static str, &'a Ledger, fn(&Twin) -> Held);

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nobody_is_homeless() {
    let folder = tempfile::tempdir().unwrap();
    let kills = kills();
    let random = SeededEntropy::new(1);

    // Given: a fleet at hub-a.
    let mut serving = started(folder.path()).await;
    let site = serving.site.clone();
    let operator = site.operator().await;
    operator.create_enrollment(&site.group()).await.unwrap();
    let mut enrolled: Vec<Option<Issued>> = (0..DEVICES).map(|_| None).collect();
    for (number, enrolled) in enrolled.iter_mut().enumerate().skip(RESET_FROM) {
        let issued = site.issue(&name(number));
        let draft = EnrollmentDraft {
            reprovision: Some(ReprovisionPolicy::Reset),
            reset_on_same_hub: ResetOnSameHub::WhenEnrollmentChanged,
            ..individual(&name(number), &issued)
        };
        operator.create_enrollment(&draft).await.unwrap();
        *enrolled = Some(issued);
    }
    drop(operator);
    let (lives, seen) = watch::channel(Life { number: 0, site: site.clone() });
    let stage = Arc::new(Stage {
        lives: seen,
        pace: watch::Sender::default(),
        doing: Mutex::default(),
        kills,
        moves: AtomicU64::new(0),
        resets: Default::default(),
        refreshes: AtomicU64::new(0),
        outages: AtomicU64::new(0),
    });
    let reporters: Vec<_> = (0..DEVICES)
        .map(|number| {
            let enrolled = enrolled[number].take();
            let reporter = Reporter { enrolled, name: name(number), ledger: Ledger::default(), version: 0 };
            tokio::spawn(reporter.live(stage.clone()))
        })
        .collect();
    let ledgers = (0..DEVICES).map(|_| Ledger::default()).collect();
    let tagger = tokio::spawn(Tagger { ledgers, entropy: SeededEntropy::new(2) }.live(stage.clone()));
    let movers: Vec<_> = (0..MOVERS)
        .map(|number| tokio::spawn(Mover { number, entropy: SeededEntropy::new(3 + number) }.live(stage.clone())))
        .collect();
    let outages = tokio::spawn(Outages { entropy: SeededEntropy::new(3 + MOVERS) }.live(stage.clone()));

    // When: it is killed while they write and move.
    for number in 1..=kills {
        let calls = 1 + below(&random, CALLS_BETWEEN_KILLS);
        stage.in_time("calls before a kill", stage.calls_go_by(calls)).await;
        serving.kill();
        serving = started(folder.path()).await;
        let site = serving.site.clone();
        tell_hubs_where_they_are(&site.operator().await, site.address).await;
        lives.send_replace(Life { number, site });
    }
    stage.in_time("calls after the last kill", stage.calls_go_by(CALLS_BETWEEN_KILLS)).await;
    stage.pace.send_modify(|pace| pace.over = true);
    drop(lives);
    stage.in_time("the end of the outages", outages).await.unwrap();
    let operator = serving.site.operator().await;
    for hub in HUBS {
        operator.bring_up_hub(&hub_id(hub)).await.unwrap();
    }
    let tagger = stage.in_time("the end of the tagger", tagger).await.unwrap();
    for mover in movers {
        stage.in_time("the end of a mover", mover).await.unwrap();
    }

    // Then: every device is at one hub, and everything that was acknowledged is there or in the history.
    let (mut writes, mut in_history) = (0, 0);
    for (number, reporter) in reporters.into_iter().enumerate() {
        let reporter = stage.in_time(&format!("the end of the reporter of {}", name(number)), reporter).await.unwrap();
        let record = settled(&operator, &reporter.name).await;
        let home = record.assignment.expect("a home").hub;
        let places = places(&operator, number).await;
        let [(hub, here)] = places.as_slice() else { panic!("{} is at {places:?}", reporter.name) };
        assert!(here.accepts_writes && hub_id(hub) == home, "{}: {places:?}, {home}", reporter.name);
        let twin = &here.state.twin;
        assert!(twin.reported.version >= reporter.version, "{}: {twin:?} < {}", reporter.name, reporter.version);
        let mut twins = past(&operator, number).await;
        twins.push(twin.clone());
        let sides: [Side; 2] = [
            ("reported", &reporter.ledger, |twin| Held {
                version: twin.reported.version,
                document: twin.reported.properties.clone(),
            }),
            ("tags", &tagger.ledgers[number], |twin| Held { version: twin.version, document: twin.tags.clone() }),
        ];
        for (whose, ledger, part) in sides {
            let mut held: Vec<Held> = twins.iter().map(part).collect();
            in_history += ledger.check(&format!("{} {whose}", reporter.name), &mut held);
            writes += ledger.acknowledged.len();
        }
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let resets: u64 = stage.resets.iter().map(count).sum();
    let (moves, refreshes, outages) = (count(&stage.moves), count(&stage.refreshes), count(&stage.outages));
    println!(
        "{kills} kills: {writes} acknowledged writes checked ({in_history} of them in the history), 0 lost; \
         {moves} moves ({resets} of them resets), {refreshes} new certificates, {outages} outages of a hub; \
         {DEVICES} devices, each at one hub"
    );
    assert!(writes > 0 && moves > 0 && resets > 0);
    let (said, ended) = tokio::task::spawn_blocking(|| serving.stop()).await.unwrap();
    assert!(ended.success(), "{said}");
}

#[test]
fn the_ledger_notices_what_was_lost() {
    let mut ledger = Ledger::default();
    let (key, first) = ledger.draw();
    ledger.acknowledge(first, 2);
    for _ in 1..KEYS {
        ledger.draw();
    }
    let (again, second) = ledger.draw();
    assert_eq!(again, key);
    let held = |states: &[(u64, Option<u64>)]| {
        let state = |(version, value): &(u64, Option<u64>)| {
            let text = value.map_or("{}".to_owned(), |value| format!(r#"{{"{key}":{value}}}"#));
            Held { version: *version, document: document(&text) }
        };
        states.iter().map(state).collect::<Vec<_>>()
    };
    let fits = |ledger: &Ledger, states: &[(u64, Option<u64>)]| {
        std::panic::catch_unwind(|| ledger.check("x", &mut held(states))).ok()
    };
    // The second write may have happened or not; the first must not be gone.
    let before = [Some(first), Some(second), None, Some(second + 1)].map(|value| fits(&ledger, &[(3, value)]));
    assert_eq!(before, [Some(0), Some(0), None, None], "at the hub");
    ledger.acknowledge(second, 3);
    let after = [Some(first), Some(second), None].map(|value| fits(&ledger, &[(3, value)]));
    assert_eq!(after, [None, Some(0), None]);
    // A reset after the first write leaves it to the history, and nowhere else.
    assert_eq!(fits(&ledger, &[(2, Some(first)), (9, None)]), None);
    assert_eq!(fits(&ledger, &[(2, Some(first)), (3, Some(second)), (9, None)]), Some(2));
    assert_eq!(fits(&ledger, &[(2, None), (9, Some(second))]), None);
    assert_eq!(fits(&ledger, &[(2, Some(first))]), None, "nothing is as new as the second");
}
