//! The program is killed again and again while devices write, move, are set back and change their certificates, and hubs
//! go away: what was acknowledged is never lost, and every device ends at exactly one hub.
//!
//! Every write that was acknowledged is compared in the end. The answer to a write names the version that it made, and
//! versions never go down: so the write must stand in the first state of that version or a later one, be it in the
//! history or at the hub. A reset empties a twin, so what was written before it can only be found in the history.
//!
//! Now and then a hub is put back to a backup, and gone through by a reconcile that is killed as well: then the writes that the
//! hub accepted after the state which it goes on from are lost, and no others; that state is none from before the backup. And
//! now and then a hub is away for so long that a device passes it by: what that hub had accepted is found in the history.

mod copies;
mod ledger;
mod people;
mod stage;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rehome::ambient::{Entropy, SeededEntropy};
use rehome::attestation::tpm::Draw;
use rehome::client::tpm::SoftwareModule;
use rehome::client::{DeviceRecord, Operator, TwinTarget};
use rehome::domain::{
    AttestationDraft, DeviceId, EnrollmentDraft, ReprovisionPolicy, ResetOnSameHub, SrkDraft, Twin, UnreachableRule,
};
use tokio::sync::watch;

use self::copies::{Copy, Lost, gone_through};
use self::ledger::{Found, Gap, Held, Ledger};
use self::people::{Mover, Outages, Proof, Reporter, Tagger, is_elsewhere};
use self::stage::{Life, Stage};
use crate::serving::Serving;
use crate::world::{Site, hub_id, individual, registration_id, settled, tell_hubs_where_they_are};

const DEVICES: usize = 16;
/// They are set back whenever they move; the others take everything along.
const RESET: Range<usize> = 9..12;
/// They do not wait for a hub that is away.
const ABSENT: Range<usize> = 12..14;
/// They prove themselves by a TPM.
const TPMS: Range<usize> = 14..16;
/// Resets of one device. With what is collected after a hub was put back, fewer than a history keeps, so that all that was
/// ever written can be found.
const RESETS_MAX: u64 = 18;
/// Times that a hub is put back, and times that one is passed by.
const SPECIAL: u64 = 6;
const MOVERS: u64 = 3;
const KILLS: u64 = 12;
/// Writes and moves between two kills, at most.
const CALLS_BETWEEN_KILLS: u64 = 150;
const HUBS: [&str; 2] = ["hub-a", "hub-b"];
const SETTINGS: [&str; 7] = [
    "log.filter=warn",
    "actors.passivate_after=1s",
    "hubs.sync_every=1s",
    "hubs.away_after=1s",
    "limits.peer_refusals_per_minute=1000000",
    "limits.peer_challenges_per_minute=1000000",
    "limits.device_challenges_per_minute=1000000",
];

/// Lives between two that end with a hub put back.
fn period(kills: u64) -> u64 {
    (kills / SPECIAL).max(4)
}

/// Whether the kill that ends this life is followed by a restore.
fn is_put_back(number: u64, kills: u64) -> bool {
    number.is_multiple_of(period(kills))
}

/// Whether a device passes its hub by in this life.
fn is_passing(number: u64, kills: u64) -> bool {
    number % period(kills) == period(kills) / 2
}

/// How many devices have passed their hubs by once this life is over.
fn passes_until(number: u64, kills: u64) -> u64 {
    (number + period(kills) - period(kills) / 2) / period(kills)
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

/// How a device proves itself, and its own enrollment where it has one.
fn enrolled(site: &Site, number: usize, random: &SeededEntropy) -> (Proof, Option<EnrollmentDraft>) {
    let issued = site.issue(&name(number));
    let draft = individual(&name(number), &issued);
    if RESET.contains(&number) {
        let (reprovision, reset_on_same_hub) = (Some(ReprovisionPolicy::Reset), ResetOnSameHub::WhenEnrollmentChanged);
        (Proof::Enrolled(issued), Some(EnrollmentDraft { reprovision, reset_on_same_hub, ..draft }))
    } else if ABSENT.contains(&number) {
        let unreachable = UnreachableRule::LastKnown;
        (Proof::Enrolled(issued), Some(EnrollmentDraft { unreachable, allow_late_writes: true, ..draft }))
    } else if TPMS.contains(&number) {
        let mut drawn = [0; Draw::BYTES];
        random.fill(&mut drawn);
        let module = SoftwareModule::of(drawn).unwrap();
        let endorsement_key = module.endorsement_key().clone();
        let attestation = AttestationDraft::Tpm { endorsement_key, storage_root_key: SrkDraft::Any, pcrs: None };
        (Proof::Tpm(Arc::new(module)), Some(EnrollmentDraft { attestation, ..draft }))
    } else {
        (Proof::Fresh, None)
    }
}

/// How often to kill: `REHOME_KILLS`, for those who have the time.
fn kills() -> u64 {
    std::env::var("REHOME_KILLS").ok().map_or(KILLS, |text| text.parse().expect("REHOME_KILLS is a number"))
}

/// Whose writes, and the part of a twin where they stand.
type Side<'a> = (&'static str, &'a Ledger, fn(&Twin) -> Held, fn(&Lost) -> Gap);

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
    let mut proofs = Vec::new();
    for number in 0..DEVICES {
        let (proof, draft) = enrolled(&site, number, &random);
        if let Some(draft) = draft {
            operator.create_enrollment(&draft).await.unwrap();
        }
        proofs.push(proof);
    }
    drop(operator);
    let (lives, seen) = watch::channel(Life { number: 0, site: site.clone() });
    let stage = Arc::new(Stage {
        lives: seen,
        pace: watch::Sender::default(),
        doing: Mutex::default(),
        kills,
        moves: AtomicU64::new(0),
        undone: AtomicU64::new(0),
        resolved: AtomicU64::new(0),
        acknowledged: Default::default(),
        resets: Default::default(),
        refreshes: AtomicU64::new(0),
        outages: AtomicU64::new(0),
    });
    let reporters: Vec<_> = (0..)
        .zip(proofs)
        .map(|(number, proof)| {
            let reporter = Reporter { number, proof, ledger: Ledger::default(), version: 0 };
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
    let mut lost: Vec<Lost> = Vec::new();
    for number in 1..=kills {
        if is_passing(number - 1, kills) {
            let mut pace = stage.pace.subscribe();
            let passed = pace.wait_for(|pace| pace.passed >= passes_until(number - 1, kills));
            stage.in_time("hub that is passed by", passed).await.expect("the stage has the sender");
        }
        let copy = match is_put_back(number, kills) {
            true => {
                let to = folder.path().join(format!("copy-{number}"));
                Some(Copy::make(&serving.site.operator().await, &to, &stage).await)
            }
            false => None,
        };
        let calls = 1 + below(&random, CALLS_BETWEEN_KILLS);
        stage.in_time("calls before a kill", stage.calls_go_by(calls)).await;
        serving.kill();
        let hub = HUBS[below(&random, 2) as usize];
        if let Some(copy) = &copy {
            copy.put_back(hub, &folder.path().join("data"));
        }
        serving = started(folder.path()).await;
        if let Some(copy) = &copy {
            let gone_through = gone_through(serving, folder.path(), hub, copy, &stage, &random);
            let gaps;
            (serving, gaps) = stage.in_time("end of a reconcile", gone_through).await;
            lost.extend(gaps);
        }
        let site = serving.site.clone();
        tell_hubs_where_they_are(&site.operator().await, site.address).await;
        lives.send_replace(Life { number, site });
    }
    stage.in_time("calls after the last kill", stage.calls_go_by(CALLS_BETWEEN_KILLS)).await;
    stage.pace.send_modify(|pace| pace.over = true);
    drop(lives);
    stage.in_time("end of the outages", outages).await.unwrap();
    let operator = serving.site.operator().await;
    for hub in HUBS {
        operator.bring_up_hub(&hub_id(hub)).await.unwrap();
    }
    let tagger = stage.in_time("end of the tagger", tagger).await.unwrap();
    for mover in movers {
        stage.in_time("end of a mover", mover).await.unwrap();
    }

    // Then: every device is at one hub, and everything that was acknowledged is there or in the history.
    let (mut writes, mut all, mut bypasses) = (0, Found::default(), 0);
    for (number, reporter) in reporters.into_iter().enumerate() {
        let reporter = stage.in_time(&format!("end of the reporter of {}", name(number)), reporter).await.unwrap();
        let (name, record) = (name(number), settled(&operator, &name(number)).await);
        let home = record.assignment.expect("a home").hub;
        let places = places(&operator, number).await;
        let [(hub, here)] = places.as_slice() else { panic!("{} is at {places:?}", name) };
        assert!(here.accepts_writes && hub_id(hub) == home, "{name}: {places:?}, {home}");
        let twin = &here.state.twin;
        assert!(twin.reported.version >= reporter.version, "{}: {twin:?} < {}", name, reporter.version);
        let history = operator.history(&registration_id(&name)).await.unwrap();
        bypasses += history.iter().filter(|it| it.bypassed.is_some()).count();
        let mut twins = past(&operator, number).await;
        twins.push(twin.clone());
        let sides: [Side; 2] = [
            (
                "reported",
                &reporter.ledger,
                |twin| Held { version: twin.reported.version, document: twin.reported.properties.clone() },
                |lost| lost.reported,
            ),
            (
                "tags",
                &tagger.ledgers[number],
                |twin| Held { version: twin.version, document: twin.tags.clone() },
                |lost| lost.tags,
            ),
        ];
        for (whose, ledger, part, gaps) in sides {
            let mut held: Vec<Held> = twins.iter().map(part).collect();
            let gaps: Vec<_> = lost.iter().filter(|it| it.number == number).map(gaps).collect();
            let Found { in_history, lost } = ledger.check(&format!("{name} {whose}"), &mut held, &gaps);
            all = Found { in_history: all.in_history + in_history, lost: all.lost + lost };
            writes += ledger.acknowledged.len();
        }
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let resets: u64 = stage.resets.iter().map(count).sum();
    let (moves, refreshes, outages) = (count(&stage.moves), count(&stage.refreshes), count(&stage.outages));
    let (undone, resolved, put_back) = (count(&stage.undone), count(&stage.resolved), kills / period(kills));
    let Found { in_history, lost } = all;
    println!(
        "{kills} kills: {writes} acknowledged writes checked ({in_history} of them in the history), 0 lost but {lost} that a \
         hub had accepted after the copy that it was put back to ({put_back} times, each with a reconcile killed on its way); \
         {moves} moves ({resets} of them resets), {undone} undone, {resolved} resolved by hand, {refreshes} new certificates, \
         {outages} outages of a hub, {bypasses} passed by; {DEVICES} devices, each at one hub"
    );
    assert!(writes > 0 && moves > 0 && resets > 0);
    let (said, ended) = tokio::task::spawn_blocking(|| serving.stop()).await.unwrap();
    assert!(ended.success(), "{said}");
}
