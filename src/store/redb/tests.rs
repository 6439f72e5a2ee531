//! What only a file can do: survive, be refused, be copied, be checked; and the same answers as the store in memory,
//! whatever is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::redb::{Builder, Database, ReadableDatabase, TableDefinition};
use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::open::{Upgrade, bring_up};
use super::tables::{FORMAT, FORMAT_KEY, Table};
use super::*;
use crate::domain::{
    AuditEntry, FeedToken, HubState, Incarnation, Order, Registration, ReprovisionPolicy, TrackingId, Version,
};
use crate::moves::{Carry, Effect, Plan};
use crate::store::samples::*;
use crate::store::{Change, Expect, MemoryStore, ORDERS_OF_A_LIFE, StatusFilter, conformance};

const CACHE: usize = 1024 * 1024;

fn config(path: &Path) -> Config {
    Config { cache_bytes: CACHE, ..Config::at(path) }
}

fn opened(path: &Path) -> RedbStore {
    RedbStore::open(config(path), Hooks::default()).unwrap()
}

fn fresh() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(&folder.path().join("store.redb"));
    (Arc::new(store), folder)
}

/// A store with something of everything, and the folder it is in.
async fn filled() -> (RedbStore, TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = opened(&path);
    let here = |id: &str| Registration { enrollment: group_id("g"), ..registration(id, Some("a")) };
    let tracked = AuditEntry { tracking: Some(TrackingId(5)), ..audit("seen", Some("d-1")) };
    let first = changes([
        put_hub(hub("a")),
        put_hub(hub("b")),
        put_enrollment(enrollment(group_id("g"), 1)),
        put_registration(here("d-1")),
        put_registration(here("d-2")),
        put_registration(registration("gone", None)),
    ]);
    store.commit(Commit { audit: vec![tracked], ..first }).await.unwrap();
    let plan = Plan::Relocate { from: hub_id("a"), to: hub_id("b"), carry: Carry::State };
    store.commit(changes([open("d-1", plan)])).await.unwrap();
    let gone = Change::DeleteRegistration { id: reg_id("gone"), version: Version(1), past: vec![Order(1)].into() };
    store.commit(changes([open("new", assign_to("b")), gone])).await.unwrap();
    (store, folder, path)
}

/// Everything that a store says about a few ids.
async fn picture(store: &dyn Store) -> String {
    let mut lines = vec![format!("{:?}", store.hubs().await), format!("{:?}", store.unfinished().await)];
    for id in ["d-1", "d-2", "gone", "new"] {
        lines.push(format!("{:?}", store.load_device(&reg_id(id)).await));
    }
    for listing in [EnrollmentListing::Individuals, EnrollmentListing::Groups] {
        lines.push(format!("{:?}", store.list_enrollments(listing, &page(2)).await));
    }
    lines.push(format!("{:?}", store.list_registrations(&RegistrationFilter::default(), &page(3)).await));
    lines.push(format!("{:?}", store.list_audit(&AuditFilter::default(), &page(3)).await));
    lines.push(format!("{:?}", store.find_audit(TrackingId(5)).await));
    lines.join("\n")
}

fn fault(path: &Path) -> String {
    RedbStore::open(config(path), Hooks::default()).unwrap_err().to_string()
}

fn findings(path: &Path) -> Vec<String> {
    check(path, CACHE, |_| {}).unwrap().iter().map(Finding::to_string).collect()
}

#[tokio::test]
async fn redb_conforms() {
    conformance::check(fresh).await;
}

#[tokio::test]
async fn redb_trims_its_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(Config { audit_max: 4, ..config(&path) }, Hooks::default()).unwrap();
    conformance::check_audit_is_trimmed(Arc::new(store)).await;
    assert_eq!(findings(&path), Vec::<String>::new());
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let (store, _folder, path) = filled().await;
    let before = picture(&store).await;
    drop(store);
    let store = opened(&path);
    assert_eq!(picture(&store).await, before);
    assert_eq!(store.commit(Commit::default()).await, Ok(Order(4)), "orders go on");
    drop(store);
    assert_eq!(findings(&path), Vec::<String>::new());
}

#[tokio::test]
async fn orders_are_not_reused_after_the_newest_was_deleted() {
    let (store, _folder, path) = filled().await;
    let last = store.commit(changes([open("x", assign_to("a"))])).await.unwrap();
    let end = [Change::CloseMove { generation: last }, Change::ForgetMove { generation: last }];
    let end = store.commit(changes(end)).await.unwrap();
    drop(store);
    assert_eq!(opened(&path).commit(Commit::default()).await, Ok(Order(end.0 + 1)));
}

#[tokio::test]
async fn a_store_that_was_not_closed_is_repaired_and_tells_how_far_it_is() {
    let (store, folder, path) = filled().await;
    let before = picture(&store).await;
    let left = folder.path().join("left.redb");
    fs::copy(&path, &left).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let hooks = Hooks { repair: Box::new(move |done| log.lock().unwrap().push(done)), ..Hooks::default() };
    let repaired = RedbStore::open(config(&left), hooks).unwrap();
    assert_eq!(picture(&repaired).await, before);
    let told = told.lock().unwrap();
    assert!(!told.is_empty() && told.iter().all(|done| (0.0..=1.0).contains(done)), "{told:?}");
}

#[tokio::test]
async fn files_that_are_no_store_are_refused_with_one_error() {
    let (store, folder, path) = filled().await;
    assert!(fault(&path).ends_with("is in use by another process"), "{}", fault(&path));
    drop(store);
    let whole = fs::read(&path).unwrap();
    let other = folder.path().join("other");
    let database = Database::create(&other).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("things")).unwrap().insert(1, 1).unwrap();
    write.commit().unwrap();
    drop(database);
    let other = fs::read(other).unwrap();
    for (name, bytes, words) in [
        ("empty", Vec::new(), "is not a rehome store"),
        ("text", b"hello, this is a text file".to_vec(), "is not a rehome store"),
        ("short", whole[..5].to_vec(), "is not a rehome store"),
        ("other", other, "is a database of something else"),
        ("header", whole[..100].to_vec(), "is damaged"),
        ("page", whole[..4096].to_vec(), "is damaged"),
        ("half", whole[..whole.len() / 2].to_vec(), "is damaged"),
        ("tail", whole[..whole.len() - 4096].to_vec(), "is damaged"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let said = fault(&path);
        assert!(said.contains(words) && !said.contains('\n'), "{name}: {said}");
    }
    let nowhere = folder.path().join("no/such/folder");
    assert!(fault(&nowhere).starts_with("cannot open the store"), "{}", fault(&nowhere));
    assert!(matches!(check(&nowhere, CACHE, |_| {}), Err(OpenFault::Missing { .. })));
    assert!(matches!(compact(&nowhere, CACHE, |_| {}), Err(OpenFault::Missing { .. })));
}

fn set_format(path: &Path, format: u64) {
    let database = Builder::new().open(path).unwrap();
    put_row(&database, Table::Meta, FORMAT_KEY, &format.to_be_bytes());
}

fn put_row(database: &Database, table: Table, key: &[u8], value: &[u8]) {
    let write = database.begin_write().unwrap();
    write.open_table(table.definition()).unwrap().insert(key, value).unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn another_format_is_refused_with_its_number() {
    let (store, _folder, path) = filled().await;
    drop(store);
    set_format(&path, FORMAT + 1);
    let newer = format!("has format {}, this version knows up to {FORMAT}: use a newer version", FORMAT + 1);
    assert!(fault(&path).ends_with(&newer), "{}", fault(&path));
    set_format(&path, 0);
    assert!(fault(&path).ends_with("has format 0, from which no upgrade is known"), "{}", fault(&path));
}

#[tokio::test]
async fn an_older_format_is_brought_up_step_by_step() {
    const NOTES: TableDefinition<u64, u64> = TableDefinition::new("notes");
    fn note(number: u64, write: &::redb::WriteTransaction) -> Result<(), ::redb::TableError> {
        write.open_table(NOTES)?.insert(number, 0)?;
        Ok(())
    }
    let (store, _folder, path) = filled().await;
    drop(store);
    let database = Builder::new().open(&path).unwrap();
    let steps = [
        Upgrade { from: FORMAT + 1, run: |write| note(2, write) },
        Upgrade { from: FORMAT, run: |write| note(1, write) },
    ];
    bring_up(&path, &database, FORMAT + 2, &steps).unwrap();
    let noted = |number| database.begin_read().unwrap().open_table(NOTES).unwrap().get(number).unwrap().is_some();
    assert!(noted(1) && noted(2));
    let newer = bring_up(&path, &database, FORMAT, &[]).unwrap_err();
    assert!(matches!(newer, OpenFault::Newer { found, known: FORMAT, .. } if found == FORMAT + 2), "{newer}");
    // A step that fails leaves the format as it was.
    let failing = [Upgrade { from: FORMAT + 2, run: |_| Err(::redb::TableError::TableDoesNotExist("x".to_owned())) }];
    let failed = format!("format {} failed", FORMAT + 2);
    assert!(bring_up(&path, &database, FORMAT + 3, &failing).unwrap_err().to_string().contains(&failed));
    bring_up(&path, &database, FORMAT + 2, &[]).unwrap();
}

#[tokio::test]
async fn records_that_cannot_be_read_are_a_fault_and_not_a_panic() {
    let (store, _folder, path) = filled().await;
    drop(store);
    let database = Builder::new().open(&path).unwrap();
    put_row(&database, Table::Registrations, b"d-2", &[9, 1, 2, 3]);
    put_row(&database, Table::Hubs, b"b", b"");
    drop(database);
    let store = opened(&path);
    let corrupt = |fault: StoreFault, words: &str| {
        assert!(matches!(&fault, StoreFault::Corrupt(why) if why.contains(words)), "{fault}");
    };
    corrupt(store.load_device(&reg_id("d-2")).await.unwrap_err(), "record version 9 is not known");
    corrupt(store.hubs().await.unwrap_err(), "hub: no bytes");
    corrupt(store.list_registrations(&RegistrationFilter::default(), &page(9)).await.unwrap_err(), "version 9");
    assert!(store.load_device(&reg_id("d-1")).await.unwrap().registration.is_some());
    // A commit that has to read it changes nothing; the others in its group do.
    let (bad, good) = tokio::join!(
        store.commit(changes([put_registration(registration("d-2", None)), put_hub(hub("c"))])),
        store.commit(changes([put_hub(hub("d"))])),
    );
    assert!(matches!(bad, Err(CommitFault::NotWritten(_))), "{bad:?}");
    assert!(good.is_ok());
    assert_eq!(store.load_hub(&hub_id("c")).await, Ok(None));
    drop(store);
    assert_eq!(findings(&path).len(), 2, "{:?}", findings(&path));
}

#[tokio::test]
async fn a_check_finds_indexes_that_lie() {
    for (table, key, words) in [
        (Table::ByHub, b"a\0nobody".as_slice(), "registrations_by_hub: 3 rows where the records call for 2"),
        (Table::DeviceIds, b"d-1", "device_ids: the row of registration d-1 leads elsewhere"),
        (Table::OpenMoves, &[0, 0, 0, 0, 0, 0, 0, 99], "open_moves: an open move has no lines"),
        (Table::Tracking, &[7; 16], "tracking: 2 rows where the records call for 1"),
        (Table::Audit, &[1; 12], "audit: audit entry: record version 120 is not known"),
    ] {
        let (store, _folder, path) = filled().await;
        drop(store);
        put_row(&Builder::new().open(&path).unwrap(), table, key, b"x");
        assert_eq!(findings(&path), [words]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_serving_is_the_store_at_one_moment() {
    let (store, folder, path) = filled().await;
    let (before, copy) = (picture(&store).await, folder.path().join("copy.redb"));
    let told = Mutex::new(Vec::new());
    let progress = |done, total| told.lock().unwrap().push((done, total));
    let (copied, written) = tokio::join!(
        store.back_up(&copy, &progress),
        store.commit(changes([put_registration(registration("late", Some("a")))])),
    );
    copied.unwrap();
    written.unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.last().is_some_and(|(done, total)| done == total && *done > 0), "{told:?}");
    assert_eq!(picture(&opened(&copy)).await, before);
    assert_eq!(findings(&copy), Vec::<String>::new());

    let again = store.back_up(&copy, &|_, _| {}).await.unwrap_err().to_string();
    assert!(again.ends_with("copy.redb exists already"), "{again}");
    assert!(store.back_up(&path, &|_, _| {}).await.is_err());
    assert!(store.back_up(&folder.path().join("no/folder"), &|_, _| {}).await.is_err());
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["copy.redb", "store.redb"], "nothing is left lying about");
    drop(store);
    compact(&path, CACHE, |_| {}).unwrap();
    assert_eq!(findings(&path), Vec::<String>::new());
}

#[cfg(unix)]
/// Trace 13: a store that was put back from a copy must not give out orders again that hubs have obeyed.
#[tokio::test]
async fn a_copy_that_is_served_from_goes_on_beyond_every_order_of_its_life_before() {
    let (store, folder, _) = filled().await;
    let copy = folder.path().join("copy");
    store.back_up(&copy, &|_, _| {}).await.unwrap();
    let given_out = store.commit(Commit::default()).await.unwrap();
    assert!(!store.life().await.unwrap().restored);
    assert_eq!(findings(&copy), Vec::<String>::new(), "looking at a copy does not make it a store");
    let restored = opened(&copy);
    let life = restored.life().await.unwrap();
    assert!(life.restored && life.last > given_out);
    assert_eq!(life.last.0 % ORDERS_OF_A_LIFE, 0);
    assert_eq!(restored.commit(Commit::default()).await, Ok(Order(life.last.0 + 1)));
    drop(restored);
    let again = opened(&copy);
    assert_eq!(again.life().await.unwrap(), StoreLife { last: Order(life.last.0 + 1), restored: true }, "once");
    again.commit(Commit { changes: vec![Change::SetRestored(false)], ..Commit::default() }).await.unwrap();
    drop(again);
    assert!(!opened(&copy).life().await.unwrap().restored);
}

#[tokio::test]
async fn a_store_of_the_first_format_is_brought_up() {
    let (store, _folder, path) = filled().await;
    let before = picture(&store).await;
    drop(store);
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    for table in [Table::LastKnown, Table::Feeds, Table::KeyGroups] {
        transaction.delete_table(table.definition()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    set_format(&path, 1);
    let store = opened(&path);
    assert_eq!(picture(&store).await, before);
    assert_eq!(store.load_last_known(&reg_id("d")).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_from_before_symmetric_keys_is_brought_up() {
    let (store, _folder, path) = filled().await;
    let before = picture(&store).await;
    drop(store);
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(Table::KeyGroups.definition()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    set_format(&path, 2);
    let store = opened(&path);
    assert_eq!((picture(&store).await, store.key_groups().await), (before, Ok(Vec::new())));
    let group = key_group(group_id("lamps"), [101, 102], 0);
    store.commit(changes([put_enrollment(group.clone())])).await.unwrap();
    assert_eq!(store.key_groups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (store, folder, path) = filled().await;
    let copy = folder.path().join("copy");
    store.back_up(&copy, &|_, _| {}).await.unwrap();
    for path in [path, copy] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn the_observer_is_told_of_each_group() {
    let folder = tempfile::tempdir().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let hooks = Hooks { group: Box::new(move |event| log.lock().unwrap().push(event)), ..Hooks::default() };
    let store = RedbStore::open(config(&folder.path().join("s")), hooks).unwrap();
    let all = ["a", "a", "b"].map(|id| store.commit(changes([put_hub(hub(id))])));
    join_all(all).await;
    drop(store);
    let (mut begun, mut ended) = (0, (0, 0, 0));
    for event in events.lock().unwrap().iter() {
        match *event {
            GroupEvent::Began { commits } => begun += commits,
            GroupEvent::Ended { written, refused, failed } => {
                ended = (ended.0 + written, ended.1 + refused, ended.2 + failed);
            }
        }
    }
    assert_eq!((begun, ended), (3, (2, 1, 0)));
}

#[tokio::test]
async fn a_writer_that_panics_leaves_its_group_unknown_and_takes_nothing_more() {
    let (store, _folder, path) = filled().await;
    drop(store);
    let group: GroupObserver = Box::new(|_| panic!("the observer of the test panics"));
    let store = RedbStore::open(config(&path), Hooks { group, ..Hooks::default() }).unwrap();
    let lost = store.commit(changes([put_hub(hub("c"))])).await;
    assert!(matches!(lost, Err(CommitFault::Unknown(_))), "{lost:?}");
    let after = loop {
        // The queue closes a moment after the group is lost.
        match store.commit(changes([put_hub(hub("c"))])).await {
            Err(CommitFault::Unknown(_)) => tokio::task::yield_now().await,
            after => break after,
        }
    };
    assert!(matches!(after, Err(CommitFault::NotWritten(_))), "{after:?}");
    assert_eq!(store.load_hub(&hub_id("c")).await, Ok(None));
}

#[test]
fn snapshots_can_be_shared() {
    fn check<T: Send + Sync>() {}
    check::<RedbStore>();
}

const IDS: [&str; 4] = ["d-1", "d-2", "d-3", "d-4"];
const HUBS: [&str; 3] = ["a", "b", "c"];

/// A step of the model test; numbers choose among what there is.
fn step() -> impl Strategy<Value = Commit> {
    let id = || prop::sample::select(IDS.to_vec());
    let hub_name = || prop::sample::select(HUBS.to_vec());
    let version = || (0_u64..4).prop_map(Version);
    let order = || (1_u64..30).prop_map(Order);
    let plan = (hub_name(), hub_name(), 0..4).prop_map(|(from, to, which)| match which {
        0 => assign_to(to),
        1 => Plan::Relocate { from: hub_id(from), to: hub_id(to), carry: Carry::State },
        2 => Plan::Refresh { at: hub_id(from) },
        _ => Plan::Release { from: Some(hub_id(from)) },
    });
    let record = (hub_name(), 0..5).prop_map(|(hub, which)| match which {
        0 => pivoted(),
        1 => aborted(),
        4 => stuck(Effect::Activate, &hub_id(hub)),
        2 => settled(Effect::Activate, &hub_id(hub)),
        _ => dropped(Effect::Activate, &hub_id(hub)),
    });
    let registration = (id(), prop::option::of(hub_name()), id(), version(), any::<bool>(), any::<bool>()).prop_map(
        |(id, home, device, version, grouped, failing)| {
            let past = vec![Order(1), crate::moves::machine::OWN_ORDER].into();
            let mut made = Registration { version, past, device_id: device.parse().unwrap(), ..registration(id, home) };
            if grouped {
                made.enrollment = group_id("g");
                made.policy = Some(ReprovisionPolicy::Never);
            }
            if failing {
                made.operation.status = failed();
            }
            made
        },
    );
    let change = prop_oneof![
        3 => registration.prop_map(put_registration),
        2 => (id(), version(), prop::collection::vec(order(), 0..2))
            .prop_map(|(id, version, past)| Change::DeleteRegistration { id: reg_id(id), version, past: past.into() }),
        2 => (hub_name(), version(), prop::option::of(0_u64..4)).prop_map(|(id, version, capacity)| {
            let state = if version.0 == 2 { HubState::Draining } else { HubState::Active };
            put_hub(crate::domain::Hub { version, capacity, state, ..hub(id) })
        }),
        2 => (hub_name(), id(), 1_u64..5).prop_map(|(hub, device, number)| {
            let mut state = device_state();
            state.twin.version = number;
            let token = FeedToken { incarnation: Incarnation(1), position: number };
            let rows = vec![(device.parse().unwrap(), state)];
            Change::NoteSeen { hub: hub_id(hub), token, seen_at: NOW, rows }
        }),
        1 => (0_u64..40).prop_map(|above| Change::RaiseOrders { above: Order(above) }),
        1 => any::<bool>().prop_map(Change::SetRestored),
        1 => (hub_name(), version()).prop_map(|(id, version)| Change::DeleteHub { id: hub_id(id), version }),
        2 => (id(), 1_u8..4, version()).prop_map(|(id, number, version)| {
            put_enrollment(Enrollment { version, ..enrollment(group_id(id), number) })
        }),
        1 => (id(), version()).prop_map(|(id, version)| Change::DeleteEnrollment { id: group_id(id), version }),
        3 => (id(), plan).prop_map(|(id, plan)| open(id, plan)),
        4 => (id(), order(), record).prop_map(|(id, generation, record)| line(id, generation, record)),
        2 => order().prop_map(|generation| Change::CloseMove { generation }),
        1 => order().prop_map(|generation| Change::ForgetMove { generation }),
    ];
    let expect = prop_oneof![
        (hub_name(), any::<bool>()).prop_map(|(hub, pinned)| Expect::HubTakes { hub: hub_id(hub), pinned }),
        hub_name().prop_map(|hub| Expect::HubUnused { hub: hub_id(hub) }),
        (id(), version()).prop_map(|(id, version)| Expect::Enrollment { id: group_id(id), version }),
        (id(), prop::collection::vec((order(), order()), 0..2))
            .prop_map(|(id, seen)| Expect::Journal { registration: reg_id(id), seen }),
    ];
    let entry = (id(), 0_u128..6).prop_map(|(id, tracking)| AuditEntry {
        tracking: Some(TrackingId(tracking)).filter(|_| tracking < 3),
        ..audit("x", Some(id))
    });
    (prop::collection::vec(expect, 0..2), prop::collection::vec(change, 0..4), prop::collection::vec(entry, 0..3))
        .prop_map(|(expect, changes, audit)| Commit { expect, changes, audit })
}

/// Everything that can be asked, in small pages.
async fn everything(store: &dyn Store) -> Vec<String> {
    let mut said = vec![format!("{:?}", store.hubs().await), format!("{:?}", store.unfinished().await)];
    for id in IDS {
        said.push(format!("{:?}", store.load_device(&reg_id(id)).await));
        said.push(format!("{:?}", store.load_enrollment(&group_id(id)).await));
        said.push(format!("{:?}", store.find_owner(&id.parse().unwrap()).await));
        said.push(format!("{:?}", store.load_last_known(&reg_id(id)).await));
    }
    for hub in ["a", "b"] {
        said.push(format!("{:?}", store.load_feed(&hub_id(hub)).await));
    }
    said.push(format!("{:?}", store.life().await));
    for generation in 1..30 {
        said.push(format!("{:?}", store.load_move(Order(generation)).await));
    }
    for tracking in 0..3 {
        said.push(format!("{:?}", store.find_audit(TrackingId(tracking)).await));
    }
    let none = RegistrationFilter::default();
    let statuses = [StatusFilter::Assigning, StatusFilter::Assigned, StatusFilter::Failed, StatusFilter::Disabled];
    let group = crate::domain::GroupId::parse("g").ok();
    let mut filters = vec![none.clone(), RegistrationFilter { group, ..none.clone() }];
    filters.extend(statuses.map(|status| RegistrationFilter { status: Some(status), ..none.clone() }));
    filters.extend(HUBS.map(|hub| RegistrationFilter { hub: Some(hub_id(hub)), ..none.clone() }));
    for filter in filters {
        let mut request = page(2);
        loop {
            let page = store.list_registrations(&filter, &request).await.unwrap();
            said.push(format!("{:?} {:?}", page.rows, page.next));
            match page.next {
                Some(token) => request.token = Some(token),
                None => break,
            }
        }
    }
    said.push(format!("{:?}", store.list_audit(&AuditFilter::default(), &page(5)).await));
    said.push(format!("{:?}", store.list_enrollments(EnrollmentListing::Groups, &page(2)).await));
    said
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redb_and_memory_answer_alike(steps in prop::collection::vec(step(), 1..40), reopen_after in 0_usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.redb");
            let settings = || Config { audit_max: 7, ..config(&path) };
            let memory = MemoryStore::with_audit_max(7);
            let mut redb = RedbStore::open(settings(), Hooks::default()).unwrap();
            for (number, commit) in steps.into_iter().enumerate() {
                let expected = memory.commit(commit.clone()).await;
                let found = redb.commit(commit.clone()).await;
                assert_eq!(found, expected, "{commit:?}");
                if number == reopen_after {
                    drop(redb);
                    redb = RedbStore::open(settings(), Hooks::default()).unwrap();
                }
            }
            assert_eq!(everything(&redb).await, everything(&memory).await);
            drop(redb);
            assert_eq!(findings(&path), Vec::<String>::new());
        });
    }
}
