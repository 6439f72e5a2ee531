//! What was restored from a backup is found out, accepts nothing, and is gone through: a hub, the service's own store, and
//! both at once.

use rehome::client::{ReconcileOutcome, ReconciledDevice, Resolution, ResolveCall};
use rehome::domain::{Reason, SubStatus};

use crate::world::{World, document, hub_id, in_time, outcome, reason, registration_id};

/// What became of each device, in a line.
fn told(devices: &[ReconciledDevice]) -> Vec<String> {
    let line = |it: &ReconciledDevice| format!("{} {} {}", it.hub, it.device, it.outcome.as_str());
    devices.iter().map(line).collect()
}

async fn started() -> World {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    world
}

/// Traces 8a and 8b over real files: nothing opens by itself, and exactly what came after the last look is lost.
#[tokio::test]
async fn a_restored_hub_is_gone_through() {
    let world = started().await;
    let [kept, older, moved] =
        [world.registered("dev-1").await, world.registered("dev-2").await, world.registered("dev-3").await];
    for member in [&kept, &older, &moved] {
        member.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    }
    let backup = world.backed_up("backup").await;

    older.home().await.report(&document(r#"{"n":2}"#)).await.unwrap();
    let later = world.registered("dev-4").await;
    later.home().await.report(&document(r#"{"n":2}"#)).await.unwrap();
    world.send("dev-3", Some("hub-b"), "moving closer").await;
    world.settled("dev-3").await;
    assert!(world.operator.sync_hub(&hub_id("hub-a")).await.unwrap() > 0);
    let seen = world.twin("hub-a", "dev-2").await.state.twin;
    for member in [&older, &later] {
        member.home().await.report(&document(r#"{"n":3}"#)).await.unwrap();
    }
    let lost = world.twin("hub-a", "dev-2").await.state.twin;

    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("hub-hub-a.redb"), data.join("hub-hub-a.redb")).unwrap();
        })
        .await;
    let shown = world.operator.hub(&hub_id("hub-a")).await.unwrap();
    assert!(shown.usage.restored, "{shown:?}");
    let device = world.site.device("dev-2", &older.issued).await;
    let home = device.home(&device.look_up().await.unwrap()).await.unwrap();
    assert_eq!(reason(home.report(&document(r#"{"n":4}"#)).await), Some(Reason::DeviceMoving));

    let expected = ["hub-a dev-1 kept", "hub-a dev-2 replaced", "hub-a dev-3 collected", "hub-a dev-4 recreated"];
    assert_eq!(told(&world.reconciled(None, true).await), expected);
    assert!(world.operator.hub(&hub_id("hub-a")).await.unwrap().usage.restored, "a dry run changes nothing");
    let devices = world.reconciled(None, false).await;
    assert_eq!(told(&devices), expected);
    let replaced = devices.iter().find(|it| it.outcome == ReconcileOutcome::Replaced).unwrap();
    assert!(replaced.seen_at.is_some());
    let shown = world.operator.hub(&hub_id("hub-a")).await.unwrap();
    assert!(!shown.usage.restored && shown.usage.reachable, "{shown:?}");

    let twin = world.twin("hub-a", "dev-2").await.state.twin;
    assert_eq!(twin.reported.properties, seen.reported.properties);
    assert!(twin.reported.version > lost.reported.version && twin.version > lost.version, "versions never go down");
    for (id, issued) in [("dev-1", &kept.issued), ("dev-2", &older.issued), ("dev-4", &later.issued)] {
        let device = world.site.device(id, issued).await;
        let home = device.home(&device.look_up().await.unwrap()).await.unwrap();
        in_time(home.report(&document(r#"{"n":5}"#))).await.unwrap();
    }
    world.settled("dev-3").await;
    assert!(!world.is_at("hub-a", "dev-3").await);
    assert!(world.is_at("hub-b", "dev-3").await);
    let history = world.operator.history(&registration_id("dev-3")).await.unwrap();
    assert!(history.iter().any(|it| it.has_twins && it.why.contains("had a twin of dev-3 left")), "{history:?}");
    assert_eq!(told(&world.reconciled(None, false).await), Vec::<String>::new(), "there is nothing left to do");
    assert_eq!(outcome(&world.registered_as("dev-3", &moved.issued).await).0, "hub-b");
    world.stop().await;
}

/// Trace 13 over real files: the store goes back, the hubs do not.
#[tokio::test]
async fn a_restored_store_is_held_against_the_hubs() {
    let world = started().await;
    let [moved, stayed] = [world.registered("dev-1").await, world.registered("dev-2").await];
    let backup = world.backed_up("backup").await;
    moved.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    world.settled("dev-1").await;
    let later = world.registered("dev-3").await;
    later.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();

    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("service.redb"), data.join("service.redb")).unwrap();
        })
        .await;
    let device = world.site.device("dev-1", &moved.issued).await;
    let refused = device.register(&Default::default(), rehome::client::Patience::Tries(1), |_| ()).await;
    assert_eq!(reason(refused), Some(Reason::ServiceUnavailable));
    let alone = world.operator.reconcile(Some(&hub_id("hub-a")), false).await.unwrap().next().await;
    assert_eq!(reason(alone), Some(Reason::HubStateConflict), "all hubs must be asked");

    let expected = ["hub-a dev-2 kept", "hub-a dev-3 unknown", "hub-b dev-1 home_corrected"];
    assert_eq!(told(&world.reconciled(None, true).await), expected);
    assert_eq!(told(&world.reconciled(None, false).await), expected);
    assert_eq!(told(&world.reconciled(None, false).await), Vec::<String>::new());

    let record = world.operator.registration(&registration_id("dev-1")).await.unwrap();
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-b"));
    assert_eq!(world.twin("hub-b", "dev-1").await.state.twin.reported.properties, document(r#"{"n":1}"#));
    assert_eq!(outcome(&world.registered_as("dev-2", &stayed.issued).await).0, "hub-a");
    // The pin of the operator is not remembered: a register decides anew, and carries the twin.
    assert_eq!(
        outcome(&world.registered_as("dev-1", &moved.issued).await),
        ("hub-a".to_owned(), SubStatus::DeviceDataMigrated)
    );
    world.settled("dev-1").await;
    assert_eq!(world.twin("hub-a", "dev-1").await.state.twin.reported.properties, document(r#"{"n":1}"#));
    // A registration that nobody remembers: what its hub has goes to the history.
    assert_eq!(outcome(&world.registered_as("dev-3", &later.issued).await).0, "hub-a");
    let history = world.operator.history(&registration_id("dev-3")).await.unwrap();
    assert!(history.iter().any(|it| it.has_twins), "{history:?}");
    world.stop().await;
}

/// The whole backup is put back: store and hubs agree, and go on together.
#[tokio::test]
async fn a_whole_backup_is_put_back() {
    let world = started().await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    let backup = world.backed_up("backup").await;
    member.home().await.report(&document(r#"{"n":2}"#)).await.unwrap();
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    world.settled("dev-1").await;
    let before = world.twin("hub-b", "dev-1").await.state.twin;
    let world = world
        .restarted_over(|data| {
            for name in ["service.redb", "hub-hub-a.redb", "hub-hub-b.redb"] {
                std::fs::copy(backup.join(name), data.join(name)).unwrap();
            }
        })
        .await;
    let devices = world.reconciled(None, false).await;
    assert_eq!(told(&devices), ["hub-a dev-1 kept", "hub-a dev-1 kept"], "by the store, and by the hub");
    let device = world.site.device("dev-1", &member.issued).await;
    assert_eq!(outcome(&world.registered_as("dev-1", &member.issued).await).0, "hub-a");
    let home = device.home(&device.look_up().await.unwrap()).await.unwrap();
    let twin = in_time(home.report(&document(r#"{"n":3}"#))).await;
    assert!(twin.is_ok());
    let twin = world.twin("hub-a", "dev-1").await.state.twin;
    assert!(twin.reported.version > before.reported.version, "versions never go down");
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    world.settled("dev-1").await;
    assert_eq!(world.twin("hub-b", "dev-1").await.state.twin.reported.properties, document(r#"{"n":3}"#));
    world.stop().await;
}

/// A backup whose files are of different times, as those of a backup that is made while a device moves: hubs first, the
/// store last. The device is in no copy of a hub, and comes back of what the journal has.
#[tokio::test]
async fn a_device_that_moved_during_the_backup_comes_back() {
    let world = started().await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    let target = world.backed_up("target").await;
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    world.settled("dev-1").await;
    let rest = world.backed_up("rest").await;
    let world = world
        .restarted_over(|data| {
            std::fs::copy(target.join("hub-hub-b.redb"), data.join("hub-hub-b.redb")).unwrap();
            for name in ["service.redb", "hub-hub-a.redb"] {
                std::fs::copy(rest.join(name), data.join(name)).unwrap();
            }
        })
        .await;
    let devices = world.reconciled(None, false).await;
    assert_eq!(told(&devices), ["hub-b dev-1 kept", "hub-b dev-1 recreated"], "by the store, and by the hub");
    assert_eq!(world.twin("hub-b", "dev-1").await.state.twin.reported.properties, document(r#"{"n":1}"#));
    in_time(member_home(&world, &member).await.report(&document(r#"{"n":2}"#))).await.unwrap();
    world.stop().await;
}

async fn member_home(world: &World, member: &crate::world::Member) -> rehome::client::Home {
    let device = world.site.device("dev-1", &member.issued).await;
    device.home(&device.look_up().await.unwrap()).await.unwrap()
}

/// What a hub had of a life of the device that was ended is for the history, however high its versions are. Every device is
/// in the audit log, also one that is kept, since later writes to it may be lost.
#[tokio::test]
async fn an_earlier_life_does_not_come_back() {
    let world = started().await;
    let first = world.registered("dev-1").await;
    for n in 0..9 {
        first.home().await.report(&document(&format!(r#"{{"old":{n}}}"#))).await.unwrap();
    }
    let dev_2 = world.registered("dev-2").await;
    let backup = world.backed_up("backup").await;
    let record = world.operator.registration(&registration_id("dev-1")).await.unwrap();
    world.operator.delete_registration(&registration_id("dev-1"), Some(record.version)).await.unwrap();
    let gone = async { while world.is_at("hub-a", "dev-1").await {} };
    in_time(gone).await;
    world.registered_as("dev-1", &first.issued).await;
    member_home(&world, &first).await.report(&document(r#"{"new":1}"#)).await.unwrap();
    world.operator.sync_hub(&hub_id("hub-a")).await.unwrap();
    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("hub-hub-a.redb"), data.join("hub-hub-a.redb")).unwrap();
        })
        .await;
    assert_eq!(told(&world.reconciled(None, false).await), ["hub-a dev-1 recreated", "hub-a dev-2 kept"]);
    assert_eq!(world.twin("hub-a", "dev-1").await.state.twin.reported.properties, document(r#"{"new":1}"#));
    let history = world.operator.history(&registration_id("dev-1")).await.unwrap();
    let kept = history.iter().find(|it| it.has_twins && it.why.contains("of an earlier time")).expect("it is kept");
    let states = world.operator.history_twins(&registration_id("dev-1"), kept.generation).await.unwrap();
    let [earlier] = states.as_slice() else { panic!("{states:?}") };
    assert_eq!(earlier.device.state.twin.reported.properties, document(r#"{"old":8}"#));
    let audit = world.audit().await;
    let said = |word: &str| audit.iter().any(|row| row.entry.detail.contains(word));
    assert!(said("dev-1 recreated, as it was at") && said("dev-2 kept"), "{audit:?}");
    world.settled("dev-1").await;
    drop(dev_2);
    world.stop().await;
}

/// The device is on its way to a hub whose copy still has it from an earlier time: that move is given up, what is there is
/// collected, and then the device can go there.
#[tokio::test]
async fn what_is_in_the_way_of_a_move_is_collected() {
    let world = started().await;
    let member = world.registered("dev-1").await;
    let backup = world.backed_up("backup").await;
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    world.settled("dev-1").await;
    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("hub-hub-a.redb"), data.join("hub-hub-a.redb")).unwrap();
        })
        .await;
    let record = world.send("dev-1", Some("hub-a"), "back again").await;
    assert!(record.running.is_some(), "{record:?}");
    assert_eq!(told(&world.reconciled(None, false).await), ["hub-a dev-1 collected"]);
    let record = world.settled("dev-1").await;
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-b"));
    assert!(!world.is_at("hub-a", "dev-1").await);
    world.send("dev-1", Some("hub-a"), "back again").await;
    let record = world.settled("dev-1").await;
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-a"));
    in_time(member_home(&world, &member).await.report(&document(r#"{"n":2}"#))).await.unwrap();
    world.stop().await;
}

/// The store's copy has a move between its seal and its pivot, which is over for long: what was sealed stays in the
/// history, since it may be nowhere else.
#[tokio::test]
async fn what_a_forgotten_move_sealed_stays_in_the_history() {
    let world = started().await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    world.operator.take_down_hub(&hub_id("hub-b")).await.unwrap();
    world.send("dev-1", Some("hub-b"), "moving closer").await;
    let sealed = async {
        loop {
            let record = world.operator.registration(&registration_id("dev-1")).await.unwrap();
            if record.running.is_some_and(|running| running.step == "create") {
                return;
            }
        }
    };
    in_time(sealed).await;
    let backup = world.backed_up("backup").await;
    world.operator.bring_up_hub(&hub_id("hub-b")).await.unwrap();
    world.settled("dev-1").await;
    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("service.redb"), data.join("service.redb")).unwrap();
        })
        .await;
    // As the store remembers it, the hub is still down.
    world.operator.bring_up_hub(&hub_id("hub-b")).await.unwrap();
    assert_eq!(told(&world.reconciled(None, false).await), ["hub-b dev-1 home_corrected"]);
    let history = world.operator.history(&registration_id("dev-1")).await.unwrap();
    let closed = history.iter().find(|it| it.plan == "relocate" && it.has_twins).expect("it is kept");
    assert_eq!(closed.ended, "unknown", "nobody knows, but it does not run");
    let record = world.operator.registration(&registration_id("dev-1")).await.unwrap();
    assert!(record.running.is_none(), "{record:?}");
    world.stop().await;
}

/// The home of a device is still to be opened after a move that was given up before anything was sealed: what it has is of the
/// backup, and later writes are lost. Versions go on above those all the same.
#[tokio::test]
async fn versions_skip_ahead_also_where_the_home_is_still_closed() {
    let world = started().await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"n":1}"#)).await.unwrap();
    let backup = world.backed_up("backup").await;
    member.home().await.report(&document(r#"{"n":2}"#)).await.unwrap();
    let before = world.twin("hub-a", "dev-1").await.state.twin;
    world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
    let record = world.send("dev-1", Some("hub-b"), "an outage").await;
    let give_up = ResolveCall {
        registration: registration_id("dev-1"),
        generation: record.running.expect("it waits for its hub").generation,
        what: None,
        hub: None,
        resolution: Resolution::Abandon,
        reason: "it stays".to_owned(),
    };
    let record = world.operator.resolve(&give_up).await.unwrap();
    assert!(record.obligations.iter().any(|owed| owed.what == "unseal"), "{record:?}");
    let world = world
        .restarted_over(|data| {
            std::fs::copy(backup.join("hub-hub-a.redb"), data.join("hub-hub-a.redb")).unwrap();
        })
        .await;
    world.operator.bring_up_hub(&hub_id("hub-a")).await.unwrap();
    assert_eq!(told(&world.reconciled(None, false).await), ["hub-a dev-1 kept"]);
    world.settled("dev-1").await;
    let twin = world.twin("hub-a", "dev-1").await.state.twin;
    assert_eq!(twin.reported.properties, document(r#"{"n":1}"#));
    assert!(twin.version > before.version && twin.reported.version > before.reported.version, "{twin:?}");
    world.stop().await;
}

/// Traces 7a and 7b: unlinked only when nothing names the hub, or on an operator's word that it accepts no writes.
#[tokio::test]
async fn a_hub_is_unlinked_by_force_with_moves_under_way() {
    let world = started().await;
    let [leaving, arriving] = [world.registered("dev-1").await, world.registered("dev-2").await];
    world.send("dev-2", Some("hub-b"), "moving closer").await;
    world.settled("dev-2").await;
    let home = arriving.home().await;
    home.report(&document(r#"{"n":1}"#)).await.unwrap();
    world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
    for (id, to) in [("dev-1", "hub-b"), ("dev-2", "hub-a")] {
        let record = world.send(id, Some(to), "an outage").await;
        assert!(record.running.is_some(), "{record:?}");
    }
    let in_use = world.operator.unlink_hub(&hub_id("hub-a"), None, false).await;
    assert_eq!(reason(in_use), Some(Reason::HubInUse));
    in_time(world.operator.unlink_hub(&hub_id("hub-a"), None, true)).await.unwrap();
    assert_eq!(reason(world.operator.hub(&hub_id("hub-a")).await), Some(Reason::HubNotFound));

    let record = world.settled("dev-2").await;
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-b"), "a move to it is given up");
    in_time(home.report(&document(r#"{"n":2}"#))).await.unwrap();
    let record = world.settled("dev-1").await;
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-a"), "kept on record");
    assert!(record.obligations.is_empty());
    let audit = world.audit().await;
    let said = |word: &str| audit.iter().any(|row| row.entry.action.as_str() == word);
    assert!(said("hub_unlinked") && said("obligation_abandoned") && said("move_aborted"));
    drop(leaving);
    world.stop().await;
}
