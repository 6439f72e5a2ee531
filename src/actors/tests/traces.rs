//! The traces that broke earlier drafts of the move protocol (reference/move-traces.md), each by its number, through real
//! actors. What a trace does to a hub alone (1d, 2b, 9a, 9b) stands in the hubs' conformance suite too.

use super::world::{Device, World, hub_id, leaf, prove};
use crate::domain::{Attestation, DeviceId, Hub, OperationStatus, Reason, ReprovisionPolicy};
use crate::hubs::entry::{EffectKind, Phase};
use crate::hubs::scripted::ScriptedFault;
use crate::store::{Change, Commit, CommitFault, Expect, Store, Unexpected};

/// A device at home at `a`, whose enrollment now says `b`.
async fn about_to_move(edit: impl FnOnce(&mut crate::domain::Enrollment)) -> (World, Device) {
    let world = World::new().await;
    let device = world.enroll("dev-1", edit).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    (world, device)
}

async fn send_to(world: &World, device: &Device, hub: &str) -> Device {
    let device = world.edit(device, |enrollment| enrollment.hubs = vec![hub_id(hub)]).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    device
}

fn at(world: &World, device: &Device, hub: &str) -> Option<Phase> {
    world.hub(hub).phase(&DeviceId::from(&device.id))
}

/// Delivers every late copy and checks that the device still has its one home.
fn late_copies_change_nothing(world: &World, device: &Device, home: &str) {
    for hub in world.hubs.values() {
        hub.deliver_late();
    }
    world.assert_home(device, home);
}

#[tokio::test]
async fn trace_1a_a_late_activate_does_not_open_a_home_that_was_left() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("b").script(EffectKind::Activate, ScriptedFault::Duplicate);
    world.settle(&device).await;
    world.quiet(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a")]).await;
    let hold = world.hub("a").hold(EffectKind::Create);
    let accepted = world.register(&device).await;
    hold.reached().await;
    world.hub("b").deliver_late();
    assert_eq!(at(&world, &device, "b"), Some(Phase::Sealed), "the seal outranks it");
    hold.release();
    world.over(accepted).await;
    world.quiet(&device).await;
    late_copies_change_nothing(&world, &device, "a");
}

#[tokio::test]
async fn trace_1b_a_late_unseal_does_not_open_a_home_that_is_being_left() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("b").script(EffectKind::Create, ScriptedFault::Refuse(crate::domain::HubRefusal::Full));
    world.hub("a").script(EffectKind::Unseal, ScriptedFault::Duplicate);
    let failed = world.settle(&device).await;
    assert!(matches!(failed.operation.status, OperationStatus::Failed { reason: Reason::HubRefused, .. }));
    world.quiet(&device).await;
    world.assert_home(&device, "a");
    let hold = world.hub("b").hold(EffectKind::Create);
    let accepted = world.register(&device).await;
    hold.reached().await;
    world.hub("a").deliver_late();
    assert_eq!(at(&world, &device, "a"), Some(Phase::Sealed));
    assert!(!world.write(&device, "a", r#"{"x":1}"#), "a sealed hub takes no write");
    hold.release();
    world.over(accepted).await;
    world.quiet(&device).await;
    world.assert_home(&device, "b");
}

#[tokio::test]
async fn trace_1c_a_late_seal_does_not_close_the_home_after_the_move_was_given_up() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("a").script(EffectKind::Seal, ScriptedFault::Delay);
    world.register(&device).await;
    world.directory.describe(&device.id).await.unwrap();
    // The seal's deadline passes; the move is given up.
    world.hub("a").set_reachable(false);
    world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await;
    world.hub("a").set_reachable(true);
    world.quiet(&device).await;
    late_copies_change_nothing(&world, &device, "a");
}

#[tokio::test]
async fn trace_1d_a_late_create_leaves_no_orphan() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("b").script(EffectKind::Create, ScriptedFault::Delay);
    world.register(&device).await;
    world.until(&device, |it| it.is_some_and(|it| it.running.as_ref().is_some_and(|run| run.hub == hub_id("b")))).await;
    world.hub("b").set_reachable(false);
    world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await;
    world.hub("b").set_reachable(true);
    world.quiet(&device).await;
    late_copies_change_nothing(&world, &device, "a");
}

#[tokio::test]
async fn trace_2a_an_abort_never_goes_forward_after_a_restart() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("b").script(EffectKind::Create, ScriptedFault::Refuse(crate::domain::HubRefusal::Full));
    world.hub("a").script(EffectKind::Unseal, ScriptedFault::LoseAnswer);
    let accepted = world.register(&device).await;
    world.over(accepted).await;
    let world = world.restart().await;
    world.quiet(&device).await;
    world.assert_home(&device, "a");
    assert!(world.write(&device, "a", r#"{"x":1}"#));
    let creates = world.hub("b").received().iter().filter(|call| call.effect.as_str() == "create").count();
    assert_eq!(creates, 1, "nothing went forward");
}

#[tokio::test]
async fn trace_2b_a_late_undo_does_not_delete_the_new_home() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("b").script(EffectKind::Create, ScriptedFault::Refuse(crate::domain::HubRefusal::Full));
    world.hub("b").script(EffectKind::Delete, ScriptedFault::Duplicate);
    world.settle(&device).await;
    world.quiet(&device).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    late_copies_change_nothing(&world, &device, "b");
}

#[tokio::test]
async fn trace_3_a_seal_of_unknown_outcome_is_taken_back_at_the_deadline() {
    let (world, device) = about_to_move(|_| {}).await;
    world.hub("a").script(EffectKind::Seal, ScriptedFault::LoseAnswer);
    world.register(&device).await;
    world.until(&device, |_| at(&world, &device, "a") == Some(Phase::Sealed)).await;
    world.hub("a").set_reachable(false);
    let failed = world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await.unwrap();
    assert!(matches!(failed.operation.status, OperationStatus::Failed { reason: Reason::HubUnavailable, .. }));
    assert!(failed.is_unsealing(), "and it shows");
    world.hub("a").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "a");
    assert!(world.write(&device, "a", r#"{"x":1}"#));
}

#[tokio::test]
async fn trace_5_what_a_left_hub_still_holds_is_collected_before_it_is_deleted() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    world.hub("a").set_reachable(false);
    world.directory.release(&device.id, "operator", "sold").await.unwrap().unwrap();
    assert!(world.write(&device, "a", r#"{"late":true}"#), "cut off, it still takes writes");
    world.hub("a").set_reachable(true);
    world.quiet(&device).await;
    assert_eq!(world.phases(&device), []);
    let file = world.store.load_device(&device.id).await.unwrap();
    let log = world.store.load_move(*file.earlier.moves.last().unwrap()).await.unwrap().unwrap();
    assert!(format!("{log:?}").contains("late"), "the late write is in the history");
}

#[tokio::test]
async fn trace_6a_clean_up_at_the_target_is_settled_before_the_way_back() {
    let (world, device) = about_to_move(|_| {}).await;
    let hold = world.hub("a").hold(EffectKind::Delete);
    world.settle(&device).await;
    hold.reached().await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a")]).await;
    let accepted = world.register(&device).await;
    world.directory.describe(&device.id).await.unwrap();
    assert_eq!(at(&world, &device, "b"), Some(Phase::Open), "the way back has not begun");
    hold.release();
    world.over(accepted).await;
    world.quiet(&device).await;
    world.assert_home(&device, "a");
}

async fn unlink(world: &World, hub: &str) -> Result<(), Unexpected> {
    let Hub { id, version, .. } = world.store.load_hub(&hub_id(hub)).await.unwrap().unwrap();
    let commit = Commit {
        expect: vec![Expect::HubUnused { hub: id.clone() }],
        changes: vec![Change::DeleteHub { id, version }],
        audit: vec![],
    };
    match world.store.memory.commit(commit).await {
        Ok(_) => Ok(()),
        Err(CommitFault::Unexpected(unexpected)) => Err(unexpected),
        Err(fault) => panic!("{fault}"),
    }
}

#[tokio::test]
async fn trace_7a_and_7b_a_hub_that_a_move_names_is_not_unlinked() {
    for (hub, kind) in
        [("a", EffectKind::Seal), ("b", EffectKind::Create), ("b", EffectKind::Activate), ("a", EffectKind::Delete)]
    {
        let (world, device) = about_to_move(|_| {}).await;
        let hold = world.hub(hub).hold(kind);
        let accepted = world.register(&device).await;
        hold.reached().await;
        for hub in ["a", "b"] {
            assert!(matches!(unlink(&world, hub).await, Err(Unexpected::HubInUse { .. })), "{hub} at {kind:?}");
        }
        hold.release();
        world.over(accepted).await;
        world.quiet(&device).await;
        assert!(unlink(&world, "b").await.is_err(), "somebody lives there");
        assert_eq!(unlink(&world, "a").await, Ok(()), "nobody is left");
    }
}

#[tokio::test]
async fn trace_9a_a_late_reset_does_not_undo_a_write() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |enrollment| enrollment.reprovision = Some(ReprovisionPolicy::Reset)).await;
    world.settle(&device).await;
    world.hub("a").script(EffectKind::ReplaceTwin, ScriptedFault::Duplicate);
    world.settle(&device).await;
    world.quiet(&device).await;
    assert!(world.write(&device, "a", r#"{"after":1}"#));
    world.hub("a").deliver_late();
    assert_eq!(world.tags(&device, "a").as_deref(), Some(r#"{"after":1}"#));
}

#[tokio::test]
async fn trace_9b_the_older_of_two_resets_does_not_win() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |enrollment| enrollment.reprovision = Some(ReprovisionPolicy::Reset)).await;
    world.settle(&device).await;
    world.hub("a").script(EffectKind::ReplaceTwin, ScriptedFault::Duplicate);
    world.settle(&device).await;
    world.quiet(&device).await;
    let device = world
        .edit(&device, |enrollment| enrollment.initial.tags = crate::domain::Document::from_text(r#"{"v":2}"#).unwrap())
        .await;
    world.settle(&device).await;
    world.quiet(&device).await;
    world.hub("a").deliver_late();
    assert_eq!(world.tags(&device, "a").as_deref(), Some(r#"{"v":2}"#));
}

#[tokio::test]
async fn trace_10_a_new_home_that_dies_before_it_opens_is_replaced_from_the_journal() {
    let mut world = World::new().await;
    world.link("c", |_| {}).await;
    let device = world.enroll("dev-1", |enrollment| enrollment.reassign_when_down = true).await;
    world.settle(&device).await;
    assert!(world.write(&device, "a", r#"{"kept":1}"#));
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let hold = world.hub("b").hold(EffectKind::Create);
    world.register(&device).await;
    hold.reached().await;
    world.hub("b").set_reachable(false);
    hold.release();
    world
        .until(&device, |it| {
            it.is_some_and(|it| it.running.as_ref().is_some_and(|run| run.effect.as_str() == "activate"))
        })
        .await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("c")]).await;
    let mut still = 0;
    let moved = async {
        loop {
            world.register(&device).await;
            if at(&world, &device, "c") == Some(Phase::Open) {
                return;
            }
            world.tick(&device, &mut still).await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, moved).await.expect("it moves on from the journal");
    world.hub("b").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "c");
    assert_eq!(world.tags(&device, "c").as_deref(), Some(r#"{"kept":1}"#));
}

#[tokio::test]
async fn trace_11_an_enrollment_edited_or_deleted_in_the_middle_changes_nothing() {
    for delete in [false, true] {
        let (world, device) = about_to_move(|enrollment| enrollment.reprovision = Some(ReprovisionPolicy::Reset)).await;
        let hold = world.hub("a").hold(EffectKind::Seal);
        let accepted = world.register(&device).await;
        hold.reached().await;
        if delete {
            let (id, version) = (device.enrollment.id.clone(), device.enrollment.version);
            world.put([Change::DeleteEnrollment { id, version }]).await;
        } else {
            world
                .edit(&device, |enrollment| {
                    enrollment.initial.tags = crate::domain::Document::from_text(r#"{"wrong":1}"#).unwrap();
                    enrollment.hubs = vec![hub_id("a")];
                })
                .await;
        }
        hold.release();
        world.over(accepted).await;
        world.quiet(&device).await;
        world.assert_home(&device, "b");
        assert_eq!(world.tags(&device, "b").as_deref(), Some("{}"), "the twin the intent was made with");
    }
}

#[tokio::test]
async fn trace_11_a_late_old_key_after_a_refresh_does_not_lock_the_device_out() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let mut last = device;
    for _ in 0..2 {
        world.hub("a").script(EffectKind::UpdateCredential, ScriptedFault::Duplicate);
        let rolled = leaf(&last.id);
        let edited = world
            .edit(&last, |enrollment| {
                let Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
                leaves.primary = crate::attestation::x509::certificate_ref(&rolled).unwrap();
            })
            .await;
        last = Device { verified: prove(&edited.id, &rolled, &edited.enrollment), ..edited };
        world.settle(&last).await;
        world.quiet(&last).await;
    }
    world.hub("a").deliver_late();
    let tenant = world.hub("a").entry(&DeviceId::from(&last.id)).unwrap().tenant.unwrap();
    assert_eq!(tenant.credential, *last.verified.credential());
}

#[tokio::test]
async fn trace_12_a_device_that_an_operator_moved_is_not_sent_straight_back() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    let accepted = world.move_to(&device, "b").await.unwrap().unwrap();
    world.over(accepted).await;
    world.quiet(&device).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, "b");
}

#[tokio::test]
async fn there_and_back_again_keeps_every_write() {
    let world = World::new().await;
    let mut device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let mut home = "a";
    for n in 0..6 {
        assert!(world.write(&device, home, &format!(r#"{{"n{n}":{n}}}"#)));
        home = if home == "a" { "b" } else { "a" };
        device = send_to(&world, &device, home).await;
        world.assert_home(&device, home);
    }
    assert_eq!(world.tags(&device, home).as_deref(), Some(r#"{"n0":0,"n1":1,"n2":2,"n3":3,"n4":4,"n5":5}"#));
}
