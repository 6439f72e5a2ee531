//! Hubs that are away, gone or have lost a device, and what people do about it, through real actors.

use std::sync::Arc;

use super::world::{Device, World, hub_id, reason};
use crate::actors::UndoWish;
use crate::domain::{
    DataSource, DeviceId, Enrollment, Hub, HubRefusal, HubState, OperationStatus, Order, Reason, SubStatus,
    UnreachableRule,
};
use crate::hubs::entry::{EffectKind, Phase};
use crate::hubs::scripted::ScriptedFault;
use crate::moves::{Effect, Episode, Resolve, Standing, Way, late_twin};
use crate::store::{Change, Store};

/// A device whose home is `b` and whose state was carried there, with hubs `a`, `b` and `c`; its enrollment says `c` now.
async fn carried(rule: UnreachableRule, edit: impl FnOnce(&mut Enrollment)) -> (World, Device) {
    let world = World::with(crate::actors::Config::default(), &["a", "b", "c"]).await;
    let device = world
        .enroll("dev-1", |enrollment| {
            (enrollment.unreachable, enrollment.allow_late_writes) = (rule, true);
            edit(enrollment);
        })
        .await;
    world.settle(&device).await;
    assert!(world.write(&device, "a", r#"{"carried":1}"#));
    let device = sent_to(&world, &device, "b").await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("c")]).await;
    (world, device)
}

async fn sent_to(world: &World, device: &Device, hub: &str) -> Device {
    let device = world.edit(device, |enrollment| enrollment.hubs = vec![hub_id(hub)]).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, hub);
    device
}

fn source(standing: &Standing) -> (SubStatus, DataSource) {
    match &standing.operation.status {
        OperationStatus::Assigned { sub_status, data_source: Some(source) } => (*sub_status, *source),
        other => panic!("nothing was carried: {other:?}"),
    }
}

fn failed(standing: &Standing) -> Option<Reason> {
    match &standing.operation.status {
        OperationStatus::Failed { reason, .. } => Some(*reason),
        OperationStatus::Assigning | OperationStatus::Assigned { .. } | OperationStatus::Disabled => None,
    }
}

/// Registers, and lets time pass until the operation is over.
async fn registered(world: &World, device: &Device) -> Standing {
    world.register(device).await;
    world.until(device, |standing| standing.is_some_and(|it| it.operation.status.is_final())).await.unwrap()
}

async fn episode(world: &World, generation: Order) -> Episode {
    Episode::read(world.store.load_move(generation).await.unwrap().unwrap()).unwrap()
}

fn name(device: &Device) -> DeviceId {
    DeviceId::from(&device.id)
}

#[tokio::test]
async fn trace_4a_and_5_a_hub_that_is_cut_off_is_passed_by_shown_as_split_and_its_late_writes_are_kept() {
    for (rule, expected, tags) in [
        (UnreachableRule::LastKnown, SubStatus::DeviceDataMigrated, r#"{"carried":1}"#),
        (UnreachableRule::Reset, SubStatus::DeviceDataReset, "{}"),
    ] {
        let (world, device) = carried(rule, |_| {}).await;
        world.hub("b").set_reachable(false);
        let standing = registered(&world, &device).await;
        let (sub_status, source) = source(&standing);
        assert_eq!(sub_status, expected);
        assert_eq!(matches!(source, DataSource::LastKnown { .. }), rule == UnreachableRule::LastKnown, "{source:?}");
        assert_eq!(standing.split, [hub_id("b")], "said as long as the old hub may accept writes");
        assert_eq!(world.tags(&device, "c").as_deref(), Some(tags));
        // Cut off from the service, the old hub still takes what back ends write.
        assert!(world.write(&device, "b", r#"{"late":1}"#));
        world.hub("b").set_reachable(true);
        let standing = world.quiet(&device).await.unwrap();
        assert_eq!((standing.split, standing.obligations), (vec![], vec![]));
        world.assert_home(&device, "c");
        let generation = standing.assignment.unwrap().generation;
        let late = late_twin(&world.store.load_move(generation).await.unwrap().unwrap()).unwrap();
        assert_eq!(late.state.twin.tags.to_text(), r#"{"carried":1,"late":1}"#);
        let record = world.store.load_device(&device.id).await.unwrap().registration.unwrap();
        assert_eq!(record.past.late, [generation]);
        // Only a person removes it.
        world.directory.forget_late_twin(&device.id, generation, "olga").await.unwrap().unwrap();
        assert_eq!(world.store.load_move(generation).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_bypass_goes_on_where_it_was_after_a_restart() {
    let (world, device) = carried(UnreachableRule::LastKnown, |_| {}).await;
    world.hub("b").set_reachable(false);
    let hold = world.hub("c").hold(EffectKind::Create);
    world.register(&device).await;
    world
        .until(&device, |it| it.is_some_and(|it| it.running.as_ref().is_some_and(|at| at.effect == Effect::Create)))
        .await;
    hold.reached().await;
    let world = world.restart().await;
    hold.release();
    world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await;
    world.hub("b").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "c");
    assert_eq!(world.tags(&device, "c").as_deref(), Some(r#"{"carried":1}"#));
}

#[tokio::test]
async fn without_leave_for_late_writes_every_rule_waits_and_then_gives_up() {
    let (world, device) = carried(UnreachableRule::LastKnown, |_| {}).await;
    let device = world.edit(&device, |enrollment| enrollment.allow_late_writes = false).await;
    world.hub("b").set_reachable(false);
    world.register(&device).await;
    for _ in 0..180 {
        world.clock.advance(std::time::Duration::from_millis(500));
        let standing = world.directory.describe(&device.id).await.unwrap().standing.unwrap();
        assert!(!standing.operation.status.is_final() && standing.split.is_empty());
    }
    world.hub("b").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "c");
}

#[tokio::test]
async fn nothing_seen_yet_is_a_reason_of_its_own() {
    let world = World::new().await;
    let device = world
        .enroll("dev-1", |enrollment| {
            (enrollment.unreachable, enrollment.allow_late_writes) = (UnreachableRule::LastKnown, true);
        })
        .await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    world.hub("a").set_reachable(false);
    assert_eq!(failed(&registered(&world, &device).await), Some(Reason::NoLastKnownState));
    world.hub("a").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "a");
}

#[tokio::test]
async fn a_twin_that_its_hub_has_lost_is_restored_from_what_was_seen_last() {
    for (to, expected) in [("c", SubStatus::DeviceDataMigrated), ("b", SubStatus::ReprovisionedToInitialAssignment)] {
        let (world, device) =
            carried(UnreachableRule::Wait { deadline: std::time::Duration::from_secs(60) }, |_| {}).await;
        world.hub("b").place(&name(&device), None);
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id(to)]).await;
        // One that stays is missed as soon as its hub is told what it signs in with now.
        let device = if to == "b" { rolled(&world, &device).await } else { device };
        let standing = registered(&world, &device).await;
        world.quiet(&device).await;
        let (sub_status, source) = source(&standing);
        assert_eq!((sub_status, source.as_str()), (expected, "last_known"), "{to}");
        world.assert_home(&device, to);
        assert_eq!(world.tags(&device, to).as_deref(), Some(r#"{"carried":1}"#));
    }
}

/// The device signs in with a new certificate.
async fn rolled(world: &World, device: &Device) -> Device {
    use super::world::{leaf, prove};
    let der = leaf(&device.id);
    let edited = world
        .edit(device, |enrollment| {
            let crate::domain::Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
            leaves.primary = crate::attestation::x509::certificate_ref(&der).unwrap();
        })
        .await;
    Device { verified: prove(&edited.id, &der, &edited.enrollment), ..edited }
}

async fn unlinked_by_force(world: &mut World, device: &Device, hub: &str) {
    let id = hub_id(hub);
    let (record, _): (Hub, _) = world.store.hubs().await.unwrap().into_iter().find(|(hub, _)| hub.id == id).unwrap();
    world.directory.force_out(&device.id, &id, "olga", "it burnt down").await.unwrap().unwrap();
    world.put([Change::DeleteHub { id: id.clone(), version: record.version }]).await;
    world.directory.detach_hub(&id);
    world.hubs.remove(&id);
}

#[tokio::test]
async fn a_device_whose_hub_is_gone_is_moved_by_the_rule() {
    let wait = UnreachableRule::Wait { deadline: std::time::Duration::from_secs(60) };
    for (rule, expected) in [
        (wait, None),
        (UnreachableRule::LastKnown, Some((SubStatus::DeviceDataMigrated, r#"{"carried":1}"#))),
        (UnreachableRule::Reset, Some((SubStatus::DeviceDataReset, "{}"))),
    ] {
        let (mut world, device) = carried(rule, |_| {}).await;
        unlinked_by_force(&mut world, &device, "b").await;
        let standing = registered(&world, &device).await;
        let Some((expected, tags)) = expected else {
            assert_eq!(failed(&standing), Some(Reason::AssignedHubUnlinked));
            continue;
        };
        world.quiet(&device).await;
        assert_eq!(source(&standing).0, expected);
        world.assert_home(&device, "c");
        assert_eq!(world.tags(&device, "c").as_deref(), Some(tags));
        // What was known stays readable, whatever was carried.
        assert!(episode(&world, standing.assignment.unwrap().generation).await.has_state);
    }
}

/// The device's home has sealed what was written there last, and is then gone for good before it was opened again.
#[tokio::test]
async fn what_was_sealed_for_a_move_that_was_given_up_outlives_the_hub() {
    for forced in [true, false] {
        let (mut world, device) = carried(UnreachableRule::LastKnown, |_| {}).await;
        assert!(world.write(&device, "b", r#"{"last_minute":1}"#));
        world.hub("c").set_reachable(false);
        world.register(&device).await;
        let creating = |it: &Standing| it.running.as_ref().is_some_and(|at| at.effect == Effect::Create);
        world.until(&device, |it| it.is_some_and(creating)).await;
        world.hub("b").set_reachable(false);
        world.until(&device, |it| it.is_some_and(|it| failed(it) == Some(Reason::HubUnavailable))).await;
        if forced {
            unlinked_by_force(&mut world, &device, "b").await;
        }
        world.hub("c").set_reachable(true);
        let mut still = 0;
        let moved = async {
            loop {
                if let Ok(Ok(accepted)) = world.ask(&device, None).await {
                    let standing = accepted.standing.unwrap();
                    let home = standing.assignment.as_ref().map(|home| home.hub.clone());
                    if standing.operation.status.is_final() && home == Some(hub_id("c")) {
                        return;
                    }
                }
                world.tick(&device, &mut still).await;
            }
        };
        tokio::time::timeout(super::world::PATIENCE, moved).await.expect("it moves on by its rule");
        assert_eq!(world.tags(&device, "c").as_deref(), Some(r#"{"carried":1,"last_minute":1}"#), "{forced}");
        // What back ends saw at `b` is older than what they see now.
        assert!(world.hub("c").state(&name(&device)).unwrap().twin.version > 3);
    }
}

/// The home was opened again after the move that sealed it, and was written to: what is sealed then is newer.
#[tokio::test]
async fn what_was_sealed_for_a_move_that_was_given_up_gives_way_to_what_came_after() {
    let (world, device) = carried(UnreachableRule::LastKnown, |_| {}).await;
    world.hub("c").script(EffectKind::Create, ScriptedFault::Refuse(HubRefusal::Full));
    let hold = world.hub("b").hold(EffectKind::Unseal);
    assert_eq!(failed(&registered(&world, &device).await), Some(Reason::HubRefused));
    hold.release();
    world.quiet(&device).await;
    assert!(world.write(&device, "b", r#"{"after":1}"#));
    world.settle(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, "c");
    assert_eq!(world.tags(&device, "c").as_deref(), Some(r#"{"after":1,"carried":1}"#));
}

/// The device's new home is gone for good before it was opened, or perhaps after.
#[tokio::test]
async fn a_home_that_never_opened_is_left_with_the_state_of_the_journal_whatever_the_rule() {
    let wait = UnreachableRule::Wait { deadline: std::time::Duration::from_secs(60) };
    for (fault, opened) in [
        (ScriptedFault::Unavailable, false),
        (ScriptedFault::Refuse(HubRefusal::NotStaged), false),
        (ScriptedFault::LoseAnswer, true),
        (ScriptedFault::LoseCall, true),
    ] {
        let (mut world, device) = carried(wait, |_| {}).await;
        assert!(world.write(&device, "b", r#"{"last_minute":1}"#));
        for _ in 0..100 {
            world.hub("c").script(EffectKind::Activate, fault.clone());
        }
        world.register(&device).await;
        let tried = |it: &Standing| {
            let home = it.assignment.as_ref().is_some_and(|home| home.hub == hub_id("c"));
            let activating = it.running.as_ref().is_some_and(|at| at.effect == Effect::Activate);
            home && (activating || failed(it).is_some())
        };
        world.until(&device, |it| it.is_some_and(tried)).await;
        let faults = |report: &crate::actors::Report| report.tries.iter().any(|(_, tries)| tries.attempts > 0);
        let mut still = 0;
        while !faults(&world.directory.describe(&device.id).await.unwrap())
            && failed(&world.directory.describe(&device.id).await.unwrap().standing.unwrap()).is_none()
        {
            world.tick(&device, &mut still).await;
        }
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a")]).await;
        unlinked_by_force(&mut world, &device, "c").await;
        let standing = registered(&world, &device).await;
        if opened {
            assert_eq!(
                failed(&standing),
                Some(Reason::AssignedHubUnlinked),
                "{fault:?}: something may be written there"
            );
            continue;
        }
        world.quiet(&device).await;
        assert_eq!(source(&standing).0, SubStatus::DeviceDataMigrated, "{fault:?}");
        world.assert_home(&device, "a");
        assert_eq!(world.tags(&device, "a").as_deref(), Some(r#"{"carried":1,"last_minute":1}"#), "{fault:?}");
    }
}

#[tokio::test]
async fn a_hub_forced_out_in_the_middle_of_a_move_leaves_nothing_owed_and_the_history_says_who_did_it() {
    for gone in ["a", "b"] {
        let mut world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
        // Moved, and the clean-up cannot get through; or sealed, and the new hub does not answer.
        world
            .hub(gone)
            .script(if gone == "a" { EffectKind::Delete } else { EffectKind::Create }, ScriptedFault::Unavailable);
        world.hub("a").script(EffectKind::Delete, ScriptedFault::Refuse(HubRefusal::OrderReused));
        world.register(&device).await;
        if gone == "a" {
            world.until(&device, |it| it.is_some_and(|it| !it.obligations.is_empty())).await;
        }
        unlinked_by_force(&mut world, &device, gone).await;
        let standing = world.quiet(&device).await.unwrap();
        assert_eq!(standing.obligations, []);
        let home = if gone == "a" { "b" } else { "a" };
        world.assert_home(&device, home);
        if gone == "a" {
            let told = episode(&world, standing.assignment.unwrap().generation).await.abandoned;
            assert_eq!(told.iter().map(|it| it.by.as_str()).collect::<Vec<_>>(), ["olga"]);
        }
    }
}

#[tokio::test]
async fn trace_10_a_new_home_that_may_have_opened_is_a_hub_that_is_away() {
    let (world, device) = carried(UnreachableRule::LastKnown, |_| {}).await;
    // The activation reaches `c`, and its answer does not come back, ever.
    let hold = world.hub("c").hold(EffectKind::Create);
    world.register(&device).await;
    hold.reached().await;
    world.hub("c").script(EffectKind::Activate, ScriptedFault::LoseAnswer);
    hold.release();
    world
        .until(&device, |it| {
            let activating = it.is_some_and(|it| it.running.as_ref().is_some_and(|at| at.effect == Effect::Activate));
            activating && world.phases(&device).contains(&("c".to_owned(), Phase::Open))
        })
        .await;
    world.hub("c").set_reachable(false);
    assert!(world.write(&device, "c", r#"{"late":1}"#));
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a")]).await;
    let mut still = 0;
    let moved = async {
        loop {
            let standing = world.register(&device).await.standing.unwrap();
            let home = standing.assignment.as_ref().map(|home| home.hub.clone());
            if standing.operation.status.is_final() && home == Some(hub_id("a")) {
                return standing;
            }
            world.tick(&device, &mut still).await;
        }
    };
    let standing = tokio::time::timeout(super::world::PATIENCE, moved).await.expect("it moves on by its rule");
    assert_eq!(standing.split, [hub_id("c")], "it may have opened, so it may accept late writes");
    let generation = standing.assignment.unwrap().generation;
    world.hub("c").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "a");
    assert_eq!(world.tags(&device, "a").as_deref(), Some(r#"{"carried":1}"#));
    let late = late_twin(&world.store.load_move(generation).await.unwrap().unwrap()).unwrap();
    assert_eq!(late.state.twin.tags.to_text(), r#"{"carried":1,"late":1}"#);
}

fn wish(generation: Order, way: Way) -> Resolve {
    Resolve { generation, effect: None, hub: None, way, by: "olga".to_owned(), why: "a test".to_owned() }
}

#[tokio::test]
async fn trace_6a_a_stuck_clean_up_keeps_a_device_from_a_hub_until_a_person_resolves_it() {
    for way in [Way::Retry, Way::Abandon] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        world.hub("a").script(EffectKind::Delete, ScriptedFault::Refuse(HubRefusal::OrderReused));
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
        world.settle(&device).await;
        let stuck = |it: Option<&Standing>| it.is_some_and(|it| it.obligations.iter().any(|owed| owed.stuck.is_some()));
        let standing = world.until(&device, stuck).await.unwrap();
        let generation = standing.obligations[0].generation;
        let forced = world.directory.resolve(&device.id, wish(generation, Way::Force)).await;
        assert_eq!(reason(forced), Some(Reason::MoveStateConflict));
        assert_eq!(reason(world.directory.resolve(&device.id, wish(Order(1), way)).await), Some(Reason::MoveNotFound));
        world.directory.resolve(&device.id, wish(generation, way)).await.unwrap().unwrap();
        world.quiet(&device).await;
        let held: Vec<String> = world.phases(&device).into_iter().map(|(hub, _)| hub).collect();
        let expected: &[&str] = if way == Way::Retry { &["b"] } else { &["a", "b"] };
        assert_eq!(held, expected, "{way:?}");
        assert_eq!(
            reason(world.directory.resolve(&device.id, wish(generation, way)).await),
            Some(Reason::MoveNotFound)
        );
    }
}

#[tokio::test]
async fn a_home_that_its_hub_refused_to_open_is_forced_open_once() {
    for (refusal, lost) in [(HubRefusal::NotStaged, false), (HubRefusal::NoSuchDevice, true)] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        assert!(world.write(&device, "a", r#"{"kept":1}"#));
        world.hub("b").script(EffectKind::Activate, ScriptedFault::Refuse(refusal));
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
        let standing = world.settle(&device).await;
        assert_eq!(failed(&standing), Some(Reason::HubRefused));
        let generation = standing.obligations.iter().find(|owed| owed.stuck.is_some()).unwrap().generation;
        if lost {
            world.hub("b").place(&name(&device), None);
        }
        let abandoned = world.directory.resolve(&device.id, wish(generation, Way::Abandon)).await;
        assert_eq!(reason(abandoned), Some(Reason::MoveStateConflict));
        world.directory.resolve(&device.id, wish(generation, Way::Force)).await.unwrap().unwrap();
        world.quiet(&device).await;
        world.assert_home(&device, "b");
        assert_eq!(world.tags(&device, "b").as_deref(), Some(r#"{"kept":1}"#));
        world.settle(&device).await;
        world.assert_home(&device, "b");
    }
}

fn undo(restore_twin: bool) -> UndoWish {
    UndoWish {
        generation: None,
        restore_twin,
        reason: "the new firmware failed".to_owned(),
        expires_at: None,
        by: "olga".to_owned(),
        request_id: None,
    }
}

async fn undone(world: &World, device: &Device, wish: UndoWish) -> Result<Standing, Option<Reason>> {
    let answer = world.directory.undo(&device.id, Arc::new(device.enrollment.clone()), wish).await;
    match answer {
        Ok(Ok(accepted)) => Ok(world.over(accepted).await),
        refused => Err(reason(refused)),
    }
}

#[tokio::test]
async fn trace_12_an_undone_move_goes_back_with_either_twin_and_stays_there() {
    for (restore, policy) in [
        (false, crate::domain::ReprovisionPolicy::Migrate),
        (true, crate::domain::ReprovisionPolicy::Migrate),
        (false, crate::domain::ReprovisionPolicy::Reset),
        (true, crate::domain::ReprovisionPolicy::Never),
    ] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        assert!(world.write(&device, "a", r#"{"before":1}"#));
        let device = sent_to(&world, &device, "b").await;
        let device = world.edit(&device, |enrollment| enrollment.reprovision = Some(policy)).await;
        assert!(world.write(&device, "b", r#"{"after":1}"#));
        let versions = world.hub("b").state(&name(&device)).unwrap().twin.version;
        let standing = undone(&world, &device, undo(restore)).await.unwrap();
        world.quiet(&device).await;
        world.assert_home(&device, "a");
        let expected = if restore { r#"{"before":1}"# } else { r#"{"after":1,"before":1}"# };
        assert_eq!(world.tags(&device, "a").as_deref(), Some(expected), "{restore} {policy:?}");
        assert!(world.hub("a").state(&name(&device)).unwrap().twin.version >= versions, "versions never go down");
        let source = source(&standing).1;
        assert_eq!(matches!(source, DataSource::LastKnown { .. }), restore, "{source:?}");
        // The current twin is in the history, and the device is pinned.
        let generation = standing.assignment.clone().unwrap().generation;
        assert!(episode(&world, generation).await.has_state);
        assert_eq!(standing.pin.unwrap().hub, hub_id("a"));
        world.settle(&device).await;
        assert_eq!(world.phases(&device), [("a".to_owned(), Phase::Open)]);
    }
}

#[tokio::test]
async fn an_undo_that_cannot_be_says_why_and_changes_nothing() {
    let moved = async || {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        let first = world.settle(&device).await.assignment.unwrap().generation;
        (first, sent_to(&world, &device, "b").await, world)
    };
    let (first, device, world) = moved().await;
    let older = UndoWish { generation: Some(first), ..undo(false) };
    assert_eq!(undone(&world, &device, older).await.unwrap_err(), Some(Reason::MoveStateConflict));
    for (edit, expected) in [
        ((|hub: &mut Hub| hub.state = HubState::Draining) as fn(&mut Hub), Reason::HubStateConflict),
        (|hub: &mut Hub| hub.state = HubState::Retired, Reason::HubStateConflict),
        (|hub: &mut Hub| hub.capacity = Some(0), Reason::NoHubAvailable),
    ] {
        let (_, device, world) = moved().await;
        let mut hub = world.store.load_hub(&hub_id("a")).await.unwrap().unwrap();
        edit(&mut hub);
        world.put([Change::PutHub(Box::new(hub.clone()))]).await;
        hub.version = hub.version.next();
        world.directory.hub_changed(hub).await;
        assert_eq!(undone(&world, &device, undo(false)).await.unwrap_err(), Some(expected));
        world.assert_home(&device, "b");
    }
    let (_, device, mut world) = moved().await;
    unlinked_by_force(&mut world, &device, "a").await;
    assert_eq!(undone(&world, &device, undo(false)).await.unwrap_err(), Some(Reason::HubNotFound));
    let world = World::new().await;
    let fresh = world.enroll("dev-2", |_| {}).await;
    assert_eq!(undone(&world, &fresh, undo(false)).await.unwrap_err(), Some(Reason::RegistrationNotFound));
    world.settle(&fresh).await;
    assert_eq!(undone(&world, &fresh, undo(false)).await.unwrap_err(), Some(Reason::MoveNotFound), "its first home");
}
