//! What only a hub with a file can show: that the file keeps what was answered, and what is refused as such a file.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tempfile::TempDir;

use super::*;
use crate::ambient::{ManualClock, SeededEntropy};
use crate::domain::{
    Capabilities, Credential, DeviceState, HubAnswer, HubEffect, HubId, HubRefusal, HubStatus, InitialState, NewDevice,
    Order, Thumbprint, Timestamp, Twin,
};
use crate::hubs::entry::Phase;

const CACHE: usize = 1 << 20;

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn credential() -> Credential {
    Credential::x509([Thumbprint([1; 32])])
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp(1_000)))
}

fn call(device: &str, order: u64, effect: HubEffect) -> HubCall {
    HubCall { hub: HubId::parse("h").unwrap(), device: id(device), order: Order(order), effect }
}

fn create() -> HubEffect {
    let state = DeviceState {
        twin: Twin::initial(&InitialState::default(), Timestamp(1_000)),
        capabilities: Capabilities::default(),
        status: HubStatus::Enabled,
    };
    HubEffect::Create(Box::new(NewDevice { generation: Order(1), credential: credential(), state }))
}

fn replace() -> HubEffect {
    HubEffect::ReplaceTwin(Box::default())
}

/// A hub in a folder of its own, opened as often as a test likes.
struct Place {
    folder: TempDir,
    seed: u64,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), seed: 1 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("hub.redb")
    }

    fn open_at(&self, path: PathBuf) -> Result<EmbeddedHub, OpenFault> {
        let config = Config { path, cache_bytes: CACHE, devices_max: Some(4) };
        EmbeddedHub::open(config, clock(), Arc::new(SeededEntropy::new(self.seed)))
    }

    fn open(&self) -> EmbeddedHub {
        self.open_at(self.path()).unwrap()
    }
}

async fn told(hub: &EmbeddedHub, device: &str, order: u64, effect: HubEffect) -> CallOutcome {
    hub.obey(None, &call(device, order, effect)).await
}

async fn report(hub: &EmbeddedHub, device: &str, patch: &str) -> Result<Resident, TwinRefusal> {
    let patch = Document::from_text(patch).unwrap();
    hub.twins().unwrap().report(&id(device), &TwinCaller::Device(credential()), patch).await
}

#[tokio::test]
async fn what_was_answered_is_there_after_opening_again() {
    let place = Place::new();
    let hub = place.open();
    for (device, calls) in [
        ("staged", vec![create()]),
        ("open", vec![create(), HubEffect::Activate]),
        ("sealed", vec![create(), HubEffect::Activate, HubEffect::Seal]),
        ("gone", vec![create(), HubEffect::Delete]),
        ("never", vec![HubEffect::Delete]),
        ("refused", vec![HubEffect::Activate]),
        ("reset", vec![create(), HubEffect::Activate, replace()]),
    ] {
        for (order, effect) in (1..).zip(calls) {
            // What is refused is kept as well.
            let _ = told(&hub, device, order, effect).await;
        }
    }
    for device in ["open", "reset"] {
        report(&hub, device, r#"{"b":1}"#).await.unwrap();
    }
    let names = ["staged", "open", "sealed", "gone", "never", "refused", "reset"];
    let seen = |hub: &EmbeddedHub| {
        names.map(|name| {
            let tenant = hub.core.reader.tenant(&id(name)).unwrap();
            tenant.map(|tenant| (tenant.phase, tenant.state))
        })
    };
    let (before, incarnation) = (seen(&hub), hub.incarnation());
    assert_eq!(before[1].as_ref().map(|seen| seen.0), Some(Phase::Open));
    let replaced = told(&hub, "reset", 3, replace()).await;
    drop(hub);

    let hub = Place { seed: 2, ..place }.open();
    assert_eq!((seen(&hub), hub.incarnation()), (before, incarnation));
    assert_eq!(hub.describe().await.unwrap().devices, 4);
    assert_eq!(told(&hub, "reset", 3, replace()).await, replaced);
    for (device, order, effect, answer) in [
        ("gone", 1, create(), Err(HubRefusal::Stale { highest: Order(2) })),
        ("gone", 2, HubEffect::Delete, Ok(HubAnswer::Done)),
        ("refused", 1, HubEffect::Activate, Err(HubRefusal::NoSuchDevice)),
        ("never", 1, create(), Err(HubRefusal::OrderReused)),
        ("never", 2, create(), Err(HubRefusal::Full)),
        ("staged", 1, create(), Ok(HubAnswer::Done)),
        ("sealed", 2, HubEffect::Activate, Err(HubRefusal::Stale { highest: Order(3) })),
    ] {
        let told = told(&hub, device, order, effect).await;
        assert_eq!(told, answer.map_err(CallFault::Refused), "{device} {order}");
    }
    let left = hub.twins().unwrap().read(&id("gone"), &TwinCaller::Device(credential())).await;
    assert_eq!(left, Err(TwinRefusal::Moved));
}

#[tokio::test]
async fn a_full_hub_takes_the_same_call_once_there_is_room() {
    let place = Place::new();
    let hub = place.open();
    for device in ["a", "b", "c", "d"] {
        told(&hub, device, 1, create()).await.unwrap();
    }
    assert_eq!(told(&hub, "e", 2, create()).await, Err(CallFault::Refused(HubRefusal::Full)));
    assert_eq!(told(&hub, "a", 1, create()).await, Ok(HubAnswer::Done), "a repeat needs no room");
    assert_eq!(told(&hub, "a", 3, create()).await, Err(CallFault::Refused(HubRefusal::Occupied)));
    told(&hub, "a", 4, HubEffect::Delete).await.unwrap();
    assert_eq!(told(&hub, "e", 2, create()).await, Ok(HubAnswer::Done));
}

#[tokio::test]
async fn a_hub_that_is_taken_down_does_not_answer_until_it_is_brought_up() {
    let place = Place::new();
    let hub = place.open();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    let twins = hub.twins().unwrap();
    let caller = TwinCaller::Device(credential());
    let mut watch = twins.watch(&id("d"), &caller).await.unwrap();
    assert!(matches!(watch.recv().await, Some(DesiredEvent::Whole { .. })));

    hub.take_down();
    assert_eq!(watch.recv().await, None, "without a farewell: it has not moved");
    assert!(matches!(told(&hub, "d", 3, HubEffect::Seal).await, Err(CallFault::Unavailable(_))));
    assert!(matches!(hub.describe().await, Err(CallFault::Unavailable(_))));
    assert!(matches!(HubConnector::read(&hub, &id("d")).await, Err(CallFault::Unavailable(_))));
    assert_eq!(report(&hub, "d", "{}").await, Err(TwinRefusal::Unavailable));
    assert_eq!(twins.read(&id("d"), &caller).await, Err(TwinRefusal::Unavailable));
    assert_eq!(twins.watch(&id("d"), &caller).await.unwrap_err(), TwinRefusal::Unavailable);
    assert_eq!(twins.list(1, None).await, Err(TwinRefusal::Unavailable));

    hub.bring_up();
    assert!(report(&hub, "d", "{}").await.unwrap().open);
}

#[tokio::test]
async fn a_copy_is_whole_and_is_known_to_be_one() {
    let place = Place::new();
    let hub = place.open();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    told(&hub, "gone", 3, HubEffect::Delete).await.unwrap();
    report(&hub, "d", r#"{"before":1}"#).await.unwrap();
    let to = place.folder.path().join("copy.redb");
    hub.back_up(&to).unwrap();
    assert!(matches!(hub.back_up(&to), Err(BackUpFault::Exists { .. })));
    report(&hub, "d", r#"{"after":1}"#).await.unwrap();

    let place = Place { seed: 9, ..place };
    let copy = place.open_at(to.clone()).unwrap();
    let incarnation = copy.incarnation();
    assert_ne!(incarnation, hub.incarnation());
    let known = copy.obey(Some(hub.incarnation()), &call("d", 5, HubEffect::Seal)).await;
    assert_eq!(known, Err(CallFault::Refused(HubRefusal::WrongIncarnation { current: incarnation })));
    assert_eq!(report(&copy, "d", "{}").await, Err(TwinRefusal::Moving), "two open (trace 8a)");
    assert!(copy.describe().await.unwrap().restored);
    drop(copy);

    let copy = Place { seed: 10, ..place }.open_at(to).unwrap();
    assert_eq!(copy.incarnation(), incarnation, "one restore, one incarnation");
    assert_eq!(report(&copy, "d", "{}").await, Err(TwinRefusal::Moving), "it still waits");
    assert_eq!(copy.readmit(incarnation, Order(9)).await, Ok(()));
    assert_eq!(
        told(&copy, "gone", 2, create()).await,
        Err(CallFault::Refused(HubRefusal::Stale { highest: Order(3) }))
    );
    let reported = report(&copy, "d", "{}").await.unwrap().state.twin.reported.properties;
    assert_eq!(reported.to_text(), r#"{"before":1}"#);
}

#[tokio::test]
async fn a_file_copied_while_in_use_opens_with_all_that_was_answered() {
    let place = Place::new();
    let hub = place.open();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    report(&hub, "d", r#"{"b":1}"#).await.unwrap();
    let to = place.folder.path().join("copy.redb");
    fs::copy(place.path(), &to).unwrap();
    let copy = place.open_at(to).unwrap();
    assert_eq!(copy.incarnation(), hub.incarnation());
    assert_eq!(report(&copy, "d", "{}").await.unwrap().state.twin.reported.version, 3);
}

fn check_refused(prepare: impl FnOnce(&Path), expected: &str) {
    let place = Place::new();
    let path = place.path();
    prepare(&path);
    let before = fs::read(&path).ok();
    let fault = place.open_at(path.clone()).unwrap_err();
    let shown = fault.to_string().replace(&path.display().to_string(), "FILE");
    assert!(shown.contains(expected), "{shown:?} does not say {expected:?}");
    assert_eq!(fs::read(&path).ok().map(|bytes| bytes.len()), before.map(|bytes| bytes.len()), "left as it was");
}

fn a_hub_at(path: &Path) {
    let config = Config { path: path.to_owned(), cache_bytes: CACHE, devices_max: None };
    drop(EmbeddedHub::open(config, clock(), Arc::new(SeededEntropy::new(1))).unwrap());
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn another_application_at(path: &Path, table: &'static str, key: &'static str, value: &[u8]) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let rows: tables::Rows = redb::TableDefinition::new(table);
    transaction.open_table(rows).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn files_that_are_not_opened() {
    check_refused(|path| fs::write(path, "").unwrap(), "FILE is damaged: it is empty");
    check_refused(|path| fs::write(path, "hello, world").unwrap(), "FILE is not a hub's file");
    check_refused(|path| fs::write(path, b"redb").unwrap(), "FILE");
    check_refused(|path| fs::create_dir(path).unwrap(), "FILE cannot be opened");
    check_refused(|path| another_application_at(path, "registrations", "k", b"v"), "FILE is not a hub's file");
    check_refused(|path| another_application_at(path, "hub", "k", b"v"), "FILE is not a hub's file");
    check_refused(|path| another_application_at(path, "hub", "format", &[0, 0, 0, 3]), "FILE has format 3, this build");
    check_refused(|path| another_application_at(path, "hub", "format", &[1]), "its format cannot be read");
    for length in [10, 100, 4096, 40_000] {
        check_refused(
            |path| {
                a_hub_at(path);
                cut(path, length);
            },
            "FILE is damaged",
        );
    }
    let missing = Place::new();
    assert!(matches!(missing.open_at(missing.folder.path().join("no/hub.redb")), Err(OpenFault::Io { .. })));
}

#[test]
fn a_file_is_opened_once() {
    let place = Place::new();
    let hub = place.open();
    assert!(matches!(place.open_at(place.path()), Err(OpenFault::InUse { .. })));
    drop(hub);
    place.open();
}

/// A disk that fails from a certain sync on.
#[derive(Debug)]
struct FailingDisk {
    disk: InMemoryBackend,
    syncs_left: Arc<AtomicU32>,
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let left = self.syncs_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| std::io::Error::other("the disk is gone"))?;
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.disk.write(offset, data)
    }
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_known_and_nothing_is_taken() {
    let syncs_left = Arc::new(AtomicU32::new(u32::MAX));
    let disk = FailingDisk { disk: InMemoryBackend::new(), syncs_left: syncs_left.clone() };
    let database = Database::builder().create_with_backend(disk).unwrap();
    let identity = tables::Identity { incarnation: Incarnation(5), restored: false };
    tables::initialise(&database, identity).unwrap();
    let config = Config { path: PathBuf::from("memory"), cache_bytes: CACHE, devices_max: None };
    let hub =
        EmbeddedHub::over(database, identity, config, (clock(), Arc::new(SeededEntropy::new(1))), Arc::new(|| {}))
            .unwrap();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    let mut watch = hub.twins().unwrap().watch(&id("d"), &TwinCaller::BackEnd).await.unwrap();
    assert!(watch.recv().await.is_some());

    syncs_left.store(0, Ordering::SeqCst);
    assert!(matches!(told(&hub, "d", 3, HubEffect::Seal).await, Err(CallFault::Unknown(_))));
    assert_eq!(watch.recv().await, None);
    syncs_left.store(u32::MAX, Ordering::SeqCst);
    assert!(matches!(told(&hub, "d", 3, HubEffect::Seal).await, Err(CallFault::Unavailable(_))));
    assert_eq!(report(&hub, "d", "{}").await, Err(TwinRefusal::Unavailable));
    hub.take_down();
    hub.bring_up();
    assert!(matches!(hub.describe().await, Err(CallFault::Unavailable(_))), "only opening it again mends it");
}

#[tokio::test]
async fn twin_times_come_from_the_clock() {
    let place = Place::new();
    let clock = clock();
    let config = Config { path: place.path(), cache_bytes: CACHE, devices_max: None };
    let hub = EmbeddedHub::open(config, clock.clone(), Arc::new(SeededEntropy::new(1))).unwrap();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    clock.advance(Duration::from_secs(5));
    let reported = report(&hub, "d", r#"{"b":1}"#).await.unwrap().state.twin.reported;
    assert_eq!(reported.metadata.properties["b"].last_updated_at, Timestamp(6_000));
}

#[tokio::test]
async fn a_row_that_is_not_understood_troubles_its_own_device_only() {
    let place = Place::new();
    let hub = place.open();
    for (order, device) in [(1, "bad"), (2, "good")] {
        told(&hub, device, order, create()).await.unwrap();
        told(&hub, device, order + 10, HubEffect::Activate).await.unwrap();
    }
    let transaction = hub.core.database.begin_write().unwrap();
    transaction.open_table(tables::RESIDENTS).unwrap().insert("bad", [9, 9].as_slice()).unwrap();
    transaction.commit().unwrap();
    let (bad, seal, good) = tokio::join!(
        report(&hub, "bad", "{}"),
        told(&hub, "bad", 20, HubEffect::Seal),
        report(&hub, "good", r#"{"b":1}"#)
    );
    assert_eq!(bad, Err(TwinRefusal::Unavailable));
    assert!(matches!(seal, Err(CallFault::Unavailable(why)) if why.contains("version 9")));
    assert!(good.is_ok());
}

#[tokio::test]
async fn an_older_copy_of_the_file_under_its_old_name_is_found_out() {
    let place = Place::new();
    let hub = place.open();
    told(&hub, "d", 1, create()).await.unwrap();
    told(&hub, "d", 2, HubEffect::Activate).await.unwrap();
    let to = place.folder.path().join("older.redb");
    fs::copy(place.path(), &to).unwrap();
    report(&hub, "d", r#"{"b":1}"#).await.unwrap();
    let seen = hub.changes(None, 8).await.unwrap();
    assert!(!hub.changes(Some(seen.next), 8).await.unwrap().whole);
    let incarnation = hub.incarnation();
    drop(hub);

    let place = Place { seed: 9, ..place };
    let older = place.open_at(to.clone()).unwrap();
    assert_eq!(older.incarnation(), incarnation);
    let again = older.changes(Some(seen.next), 8).await.unwrap();
    assert!(again.whole && again.next.incarnation != incarnation);
    assert!(older.describe().await.unwrap().restored);
    assert_eq!(report(&older, "d", "{}").await, Err(TwinRefusal::Moving));
    let seal = older.obey(Some(incarnation), &call("d", 3, HubEffect::Seal)).await;
    assert!(matches!(seal, Err(CallFault::Refused(HubRefusal::WrongIncarnation { .. }))));
    let risen = older.incarnation();
    drop(older);
    assert_eq!(place.open_at(to).unwrap().incarnation(), risen, "once found out, always");
}

#[tokio::test]
async fn a_file_of_the_first_format_gets_a_feed() {
    let place = Place::new();
    let hub = place.open();
    for (order, device) in [(1, "a"), (2, "b")] {
        told(&hub, device, order, create()).await.unwrap();
        told(&hub, device, order + 10, HubEffect::Activate).await.unwrap();
    }
    told(&hub, "gone", 20, HubEffect::Delete).await.unwrap();
    let told_then = hub.changes(None, 8).await.unwrap().rows;
    drop(hub);
    tables::tests::make_first_format(&place.path());
    let hub = place.open();
    assert_eq!(hub.describe().await.unwrap().highest, Order(20));
    let page = hub.changes(None, 8).await.unwrap();
    assert_eq!(page.rows, told_then);
    report(&hub, "a", r#"{"b":1}"#).await.unwrap();
    let changed = hub.changes(Some(page.next), 8).await.unwrap().rows;
    assert_eq!(changed.iter().map(|row| row.device.as_str()).collect::<Vec<_>>(), ["a"]);
}
