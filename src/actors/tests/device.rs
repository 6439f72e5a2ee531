//! One device at a time, whatever happens around it.

use std::sync::Arc;
use std::time::Duration;

use super::faulty::Strike;
use super::world::{PATIENCE, World, hub_id, leaf, prove, reason};
use crate::actors::Config;
use crate::actors::messages::{Refused, Seen, StepFinished};
use crate::allocators::{AllocationAnswer, AllocatorFault, ChosenHub};
use crate::domain::{
    AllocationPolicy, Attestation, CallFault, Credential, DeviceId, HubAnswer, OperationStatus, Reason,
    ReprovisionPolicy, SubStatus, WebhookPolicy, X509Leaves,
};
use crate::hubs::entry::{EffectKind, Phase};
use crate::moves::Standing;
use crate::store::Store;

fn sub_status(standing: &Standing) -> SubStatus {
    match &standing.operation.status {
        OperationStatus::Assigned { sub_status, .. } => *sub_status,
        other => panic!("not assigned: {other:?}"),
    }
}

#[tokio::test]
async fn a_device_is_assigned_once_and_then_nothing_is_written() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let first = world.settle(&device).await;
    assert_eq!(sub_status(&first), SubStatus::InitialAssignment);
    assert_eq!(first.assignment.as_ref().unwrap().hub, hub_id("a"));
    world.assert_home(&device, "a");
    world.quiet(&device).await;
    let commits = world.store.commits();
    let again = world.settle(&device).await;
    assert_eq!(sub_status(&again), SubStatus::ReprovisionedToInitialAssignment);
    assert_eq!(again.operation.id, first.operation.id, "the recorded operation");
    assert_eq!(world.store.commits(), commits, "nothing was written");
}

#[tokio::test]
async fn a_second_register_during_a_move_joins_it() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let hold = world.hub("a").hold(EffectKind::Seal);
    let first = world.register(&device).await;
    hold.reached().await;
    let second = world.register(&device).await;
    let operation = |accepted: &crate::actors::Accepted| accepted.standing.as_ref().unwrap().operation.id;
    assert_eq!(operation(&first), operation(&second));
    hold.release();
    let (first, second) = (world.over(first).await, world.over(second).await);
    assert_eq!(first.operation, second.operation);
    assert_eq!(sub_status(&first), SubStatus::DeviceDataMigrated);
    world.quiet(&device).await;
    world.assert_home(&device, "b");
}

#[tokio::test]
async fn a_status_read_during_a_move_says_assigning_and_waits_for_nobody() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let hold = world.hub("a").hold(EffectKind::Seal);
    let accepted = world.register(&device).await;
    hold.reached().await;
    let report = world.directory.describe(&device.id).await.unwrap();
    let file = world.store.load_device(&device.id).await.unwrap();
    let read = Standing::read(file.registration.as_ref(), file.open).unwrap();
    assert_eq!(report.standing, read, "the store's readers see what the actor sees");
    let standing = read.unwrap();
    assert_eq!(standing.operation.status, OperationStatus::Assigning);
    assert_eq!(standing.assignment.unwrap().hub, hub_id("a"), "until the pivot the last good assignment stands");
    hold.release();
    world.over(accepted).await;
}

#[tokio::test]
async fn a_joining_register_with_another_credential_gets_it_written_afterwards() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let rolled = leaf(&device.id);
    let device = world
        .edit(&device, |enrollment| {
            enrollment.hubs = vec![hub_id("b")];
            enrollment.allocation = Some(AllocationPolicy::Static);
        })
        .await;
    let hold = world.hub("a").hold(EffectKind::Seal);
    let first = world.register(&device).await;
    hold.reached().await;
    let both = world
        .edit(&device, |enrollment| {
            let Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
            leaves.secondary = Some(crate::attestation::x509::certificate_ref(&rolled).unwrap());
        })
        .await;
    let second = world.register(&both).await;
    assert_eq!(first.standing.as_ref().unwrap().operation.id, second.standing.as_ref().unwrap().operation.id);
    hold.release();
    world.over(first).await;
    let expected = both.verified.credential().clone();
    world
        .until(&both, |standing| {
            standing.is_some_and(|it| it.assignment.as_ref().unwrap().credential.as_ref() == Some(&expected))
        })
        .await;
    let entry = world.hub("b").entry(&DeviceId::from(&device.id)).unwrap();
    assert_eq!(entry.tenant.unwrap().credential, expected);
}

#[tokio::test]
async fn a_second_certificate_refreshes_the_credential_at_the_hub() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let first = world.settle(&device).await;
    world.quiet(&device).await;
    let rolled = leaf(&device.id);
    let device = world
        .edit(&device, |enrollment| {
            let Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
            *leaves = X509Leaves {
                primary: leaves.primary.clone(),
                secondary: Some(crate::attestation::x509::certificate_ref(&rolled).unwrap()),
            };
        })
        .await;
    let device = super::world::Device { verified: prove(&device.id, &rolled, &device.enrollment), ..device };
    let second = world.settle(&device).await;
    assert_ne!(first.operation.id, second.operation.id);
    let tenant = world.hub("a").entry(&DeviceId::from(&device.id)).unwrap().tenant.unwrap();
    assert_eq!(tenant.credential, *device.verified.credential());
    let Credential::X509 { thumbprints } = tenant.credential else { panic!("keys") };
    assert_eq!(thumbprints.len(), 2, "both enrolled certificates let the device in");
    assert_eq!(second.assignment.unwrap().generation, first.assignment.unwrap().generation);
}

#[tokio::test]
async fn duplicate_late_and_reordered_facts_change_nothing() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let hold = world.hub("b").hold(EffectKind::Create);
    let accepted = world.register(&device).await;
    hold.reached().await;
    let actor = world.directory.activate(&device.id);
    let tries = world.directory.describe(&device.id).await.unwrap().tries;
    let create = tries[0].0.clone();
    let state = world.hub("a").state(&DeviceId::from(&device.id)).unwrap();
    let seal = crate::moves::CallKey {
        effect: crate::moves::Effect::Seal,
        hub: hub_id("a"),
        order: create.generation,
        ..create.clone()
    };
    let activate = crate::moves::CallKey { effect: crate::moves::Effect::Activate, ..create.clone() };
    let before = world.store.commits();
    for (key, outcome) in [
        // A duplicate of what is done, with other content.
        (seal.clone(), Ok(HubAnswer::State(Box::new(state)))),
        (seal, Err(CallFault::Refused(crate::domain::HubRefusal::NoSuchDevice))),
        // An answer before its time.
        (activate, Ok(HubAnswer::Done)),
        // A call of another order.
        (crate::moves::CallKey { order: crate::domain::Order(1), ..create }, Ok(HubAnswer::Done)),
    ] {
        actor.send(StepFinished { key, outcome }).await.unwrap();
    }
    assert_eq!(world.store.commits(), before, "none of it is written");
    hold.release();
    let standing = world.over(accepted).await;
    assert_eq!(sub_status(&standing), SubStatus::DeviceDataMigrated);
    world.quiet(&device).await;
    world.assert_home(&device, "b");
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_stops_nothing() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let gate = world.store.hold();
    {
        let asking = world.ask(&device, None);
        tokio::pin!(asking);
        tokio::select! {
            biased;
            _ = &mut asking => panic!("answered before it was written"),
            () = gate.reached() => {}
        }
    }
    gate.release();
    let standing = world.quiet(&device).await.unwrap();
    assert_eq!(sub_status(&standing), SubStatus::InitialAssignment);
    world.assert_home(&device, "a");
}

#[tokio::test]
async fn after_an_unknown_outcome_the_actor_reads_the_store_again() {
    for strike in [Strike::WrittenUnknown, Strike::LostUnknown] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.store.strike([strike.clone()]);
        world.settle(&device).await;
        let standing = world.quiet(&device).await.unwrap();
        assert_eq!(sub_status(&standing), SubStatus::InitialAssignment, "{strike:?}");
        world.assert_home(&device, "a");
        let orders = world.hub("a").received().into_iter().filter(|call| call.effect.as_str() == "create");
        let orders: std::collections::BTreeSet<_> = orders.map(|call| call.order).collect();
        assert_eq!(orders.len(), 1, "one intent, not two: {strike:?}");
    }
}

#[tokio::test]
async fn a_step_of_unknown_outcome_is_taken_up_by_the_next_look() {
    for strike in [Strike::WrittenUnknown, Strike::LostUnknown, Strike::NotWritten, Strike::Panic] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        // The intent passes, the pivot does not.
        world.store.strike([Strike::Pass, strike.clone()]);
        world.register(&device).await;
        let standing = world.quiet(&device).await.unwrap();
        assert_eq!(sub_status(&standing), SubStatus::InitialAssignment, "{strike:?}");
        world.assert_home(&device, "a");
    }
}

#[tokio::test]
async fn after_a_panic_the_next_message_works_and_others_never_notice() {
    let world = World::with(Config { arbiters: 1, ..Config::default() }, &["a", "b"]).await;
    let (one, other) = (world.enroll("dev-1", |_| {}).await, world.enroll("dev-2", |_| {}).await);
    world.settle(&other).await;
    world.store.strike([Strike::Panic]);
    world.settle(&one).await;
    let standing = world.quiet(&one).await.unwrap();
    assert_eq!(sub_status(&standing), SubStatus::InitialAssignment, "asked again on a new actor");
    world.settle(&other).await;
    world.store.strike([Strike::Panic, Strike::Panic]);
    let moved = world.edit(&one, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    assert_eq!(reason(world.ask(&moved, None).await), Some(Reason::ServiceUnavailable), "two panics are no chance");
    world.settle(&moved).await;
    world.quiet(&moved).await;
    world.assert_home(&moved, "b");
}

#[tokio::test]
async fn a_write_that_did_not_happen_is_said_and_changes_nothing() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.store.strike([Strike::NotWritten]);
    assert_eq!(reason(world.ask(&device, None).await), Some(Reason::ServiceUnavailable));
    assert_eq!(world.phases(&device), []);
    world.settle(&device).await;
}

#[tokio::test]
async fn a_full_mailbox_is_said_with_a_hint() {
    let world = World::with(Config { mailbox_max: 4, ..Config::default() }, &["a"]).await;
    let device = world.enroll("dev-1", |_| {}).await;
    let gate = world.store.hold();
    let asking: Vec<_> = (0..32).map(|_| world.ask(&device, None)).collect();
    let mut asking = futures_util::future::join_all(asking);
    let mut asking = std::pin::Pin::new(&mut asking);
    tokio::select! {
        biased;
        _ = &mut asking => panic!("answered before it was written"),
        () = gate.reached() => {}
    }
    gate.release();
    let answers = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| matches!(answer, Ok(Ok(_))));
    assert!(!taken.is_empty() && !refused.is_empty(), "{} taken, {} refused", taken.len(), refused.len());
    for answer in refused {
        let fault = answer.unwrap_err();
        assert_eq!(fault.reason, Reason::Overloaded);
        assert!(fault.retry_after.is_some());
    }
}

#[tokio::test]
async fn an_idle_device_gives_its_memory_back_and_a_late_message_is_handled() {
    let config = Config { passivate_after: Duration::from_secs(60), ..Config::default() };
    let world = World::with(config, &["a", "b"]).await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    let late = world.directory.activate(&device.id);
    let asleep = async {
        while world.directory.awake() > 0 {
            world.clock.advance(Duration::from_secs(30));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asleep).await.expect("it is passivated");
    // Sent to the address that was looked up before: the old actor, which still drains, and the new one meet.
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let (reply, answer) = tokio::sync::oneshot::channel();
    late.try_send(crate::actors::messages::Register {
        verified: device.verified.clone(),
        enrollment: Arc::new(device.enrollment.clone()),
        facts: Default::default(),
        request_id: None,
        blob: None,
        reply,
    })
    .unwrap();
    let both = tokio::join!(answer, world.ask(&device, None));
    let operations = [both.0.ok().map(|answer| answer.unwrap()), both.1.ok().map(|answer| answer.unwrap())];
    let operations: Vec<_> = operations.into_iter().flatten().map(|it| it.standing.unwrap().operation.id).collect();
    assert!(!operations.is_empty(), "one of the two goes on");
    assert!(operations.iter().all(|id| *id == operations[0]), "and there is one operation");
    drop(late);
    world.quiet(&device).await;
    world.assert_home(&device, "b");
}

#[tokio::test]
async fn an_enrollment_that_changed_since_it_was_judged_is_judged_again() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let newer = world.edit(&device, |enrollment| enrollment.enabled = false).await;
    assert_eq!(world.ask(&device, None).await.unwrap().unwrap_err(), Refused::Rejudge);
    assert_eq!(world.phases(&device), []);
    let standing = world.settle(&newer).await;
    assert_eq!(standing.operation.status, OperationStatus::Disabled);
    assert_eq!(world.phases(&device), []);
}

#[tokio::test]
async fn the_same_request_is_carried_out_once() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |enrollment| enrollment.reprovision = Some(ReprovisionPolicy::Reset)).await;
    world.settle(&device).await;
    let mut operations = Vec::new();
    for request in ["r1", "r1", "r2"] {
        let accepted = world.ask(&device, Some(request)).await.unwrap().unwrap();
        operations.push(world.over(accepted).await.operation.id);
        world.quiet(&device).await;
    }
    assert_eq!(operations[0], operations[1]);
    assert_ne!(operations[1], operations[2]);
    let replaced = world.hub("a").received().iter().filter(|call| call.effect.as_str() == "replace_twin").count();
    assert_eq!(replaced, 2);
}

#[tokio::test]
async fn a_failure_is_recorded_once_and_the_assignment_stands() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a"), hub_id("b")]).await;
    let failed = world.settle(&device).await;
    assert!(matches!(failed.operation.status, OperationStatus::Failed { reason: Reason::AllocationFailed, .. }));
    assert_eq!(failed.assignment.unwrap().hub, hub_id("a"));
    world.quiet(&device).await;
    let commits = world.store.commits();
    let again = world.settle(&device).await;
    assert_eq!((again.operation.id, world.store.commits()), (failed.operation.id, commits));
    world.assert_home(&device, "a");
}

#[tokio::test]
async fn never_and_sticky_write_nothing() {
    for policy in [Some(ReprovisionPolicy::Never), None] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |enrollment| enrollment.reprovision = policy).await;
        let facts = crate::domain::ClientFacts {
            api_version: policy.is_none().then(|| "2018-04-01".parse().unwrap()),
            ..Default::default()
        };
        let ask = |device: super::world::Device| {
            let (directory, facts) = (world.directory.clone(), facts.clone());
            async move {
                let enrollment = Arc::new(device.enrollment.clone());
                directory.register(device.verified, enrollment, facts, None).await.unwrap().unwrap()
            }
        };
        let first = world.over(ask(device.clone()).await).await;
        world.quiet(&device).await;
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
        let commits = world.store.commits();
        let second = world.over(ask(device.clone()).await).await;
        assert_eq!(first.operation.id, second.operation.id);
        assert_eq!(world.store.commits(), commits, "{policy:?}");
        world.assert_home(&device, "a");
    }
}

fn webhook() -> Option<AllocationPolicy> {
    Some(AllocationPolicy::Custom(WebhookPolicy {
        url: "https://x.test/".to_owned(),
        api_version: "2021-10-01".to_owned(),
    }))
}

#[tokio::test]
async fn a_webhook_is_asked_outside_and_its_answer_decides() {
    let world = World::new().await;
    let device = world
        .enroll("dev-1", |enrollment| {
            enrollment.allocation = webhook();
            enrollment.hubs = vec![];
        })
        .await;
    let asking = (world.ask(&device, None), world.ask(&device, None));
    let answering = async {
        while world.allocator.asked() == 0 {
            tokio::task::yield_now().await;
        }
        // The device can be described while the question is out.
        world.directory.describe(&device.id).await.unwrap();
        world.allocator.answer(Ok(AllocationAnswer {
            hub: ChosenHub::Offered(hub_id("b")),
            initial_twin: None,
            payload: Some(serde_json::json!({"from": "webhook"})),
        }));
    };
    let (first, second, ()) = tokio::join!(asking.0, asking.1, answering);
    let standing = world.over(first.unwrap().unwrap()).await;
    let other = world.over(second.unwrap().unwrap()).await;
    assert_eq!(standing.operation.id, other.operation.id, "both asked one question");
    assert_eq!(world.allocator.asked(), 1);
    assert_eq!(standing.payload.as_deref(), Some(r#"{"from":"webhook"}"#));
    world.assert_home(&device, "b");
    world.allocator.answer(Err(AllocatorFault::Status { status: 500 }));
    let failed = world.settle(&device).await;
    assert!(matches!(failed.operation.status, OperationStatus::Failed { reason: Reason::AllocationFailed, .. }));
    assert_eq!(failed.assignment.unwrap().hub, hub_id("b"), "the assignment is kept");
}

#[tokio::test]
async fn an_operator_moves_a_device_and_its_pin_holds_until_it_is_lifted() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    assert_eq!(reason(world.move_to(&device, "b").await), Some(Reason::RegistrationNotFound));
    world.settle(&device).await;
    world.quiet(&device).await;
    let accepted = world.move_to(&device, "b").await.unwrap().unwrap();
    let standing = world.over(accepted).await;
    assert_eq!(standing.pin.as_ref().unwrap().by, "operator");
    world.quiet(&device).await;
    world.assert_home(&device, "b");
    world.settle(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, "b");
    world.directory.unpin(&device.id, "operator").await.unwrap().unwrap();
    world.settle(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, "a");
    assert_eq!(reason(world.move_to(&device, "nowhere").await), Some(Reason::HubNotFound));
}

#[tokio::test]
async fn a_release_takes_the_device_out_of_its_hub_and_keeps_its_twin_in_the_history() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    assert!(world.write(&device, "a", r#"{"late":1}"#));
    world.directory.release(&device.id, "operator", "sold").await.unwrap().unwrap();
    assert_eq!(world.quiet(&device).await, None);
    assert_eq!(world.phases(&device), []);
    let file = world.store.load_device(&device.id).await.unwrap();
    assert_eq!((file.registration, file.open.len(), file.earlier.moves.len()), (None, 0, 2));
    let log = world.store.load_move(file.earlier.moves[1]).await.unwrap().unwrap();
    assert!(format!("{log:?}").contains("late"), "the twin is in the history");
    let again = world.settle(&device).await;
    assert_eq!(sub_status(&again), SubStatus::InitialAssignment);
    world.assert_home(&device, "a");
}

#[tokio::test]
async fn a_release_of_what_was_seen_leaves_alone_what_changed_since() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let record = async || world.store.load_device(&device.id).await.unwrap().registration.unwrap();
    let seen = record().await;
    let generation = seen.assignment.as_ref().unwrap().generation;
    let moved = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    world.settle(&moved).await;
    let release = async |seen| reason(world.directory.release_as_seen(&device.id, "ann", "sold", Some(seen)).await);
    assert_eq!(release(Seen::Version(seen.version)).await, Some(Reason::EtagMismatch));
    assert_eq!(release(Seen::Home(generation)).await, Some(Reason::EtagMismatch));
    world.quiet(&device).await;
    world.assert_home(&device, "b");
    let home = record().await.assignment.unwrap().generation;
    assert_eq!(release(Seen::Home(home)).await, None);
    world.quiet(&device).await;
    assert_eq!(world.phases(&device), []);
}

#[tokio::test]
async fn a_release_during_a_move_gives_it_up_and_leaves_nothing_behind() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    let hold = world.hub("b").hold(EffectKind::Create);
    world.register(&device).await;
    hold.reached().await;
    world.directory.release(&device.id, "operator", "sold").await.unwrap().unwrap();
    hold.release();
    world.quiet(&device).await;
    assert_eq!(world.phases(&device), []);
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_given_up_soon_and_the_old_home_opens_again() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    world.hub("b").set_reachable(false);
    let accepted = world.register(&device).await;
    let standing = world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await.unwrap();
    assert!(matches!(standing.operation.status, OperationStatus::Failed { reason: Reason::HubUnavailable, .. }));
    drop(accepted);
    world.until(&device, |_| world.hub("a").phase(&DeviceId::from(&device.id)) == Some(Phase::Open)).await;
    assert!(!world.directory.describe(&device.id).await.unwrap().standing.unwrap().obligations.is_empty());
    world.hub("b").set_reachable(true);
    world.quiet(&device).await;
    world.assert_home(&device, "a");
}

#[tokio::test]
async fn a_full_hub_is_not_overfilled_by_devices_that_come_at_once() {
    let mut world = World::with(Config::default(), &[]).await;
    world.link("a", |hub| hub.capacity = Some(3)).await;
    let mut devices = Vec::new();
    for n in 0..8 {
        devices.push(
            world
                .enroll(&format!("dev-{n}"), |enrollment| {
                    enrollment.allocation = None;
                    enrollment.hubs = vec![];
                })
                .await,
        );
    }
    let asked = futures_util::future::join_all(devices.iter().map(|device| world.settle(device))).await;
    let assigned = asked.iter().filter(|it| matches!(it.operation.status, OperationStatus::Assigned { .. })).count();
    assert_eq!(assigned, 3);
    for standing in asked {
        match standing.operation.status {
            OperationStatus::Assigned { .. } => {}
            OperationStatus::Failed { reason, .. } => assert_eq!(reason, Reason::NoHubAvailable),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_under_way_is_taken_up_after_a_restart() {
    for kind in [EffectKind::Seal, EffectKind::Create, EffectKind::Activate, EffectKind::Delete] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        world.quiet(&device).await;
        assert!(world.write(&device, "a", r#"{"kept":true}"#));
        let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
        let hub = if matches!(kind, EffectKind::Seal | EffectKind::Delete) { "a" } else { "b" };
        let hold = world.hub(hub).hold(kind);
        world.register(&device).await;
        hold.reached().await;
        let world = world.restart().await;
        hold.release();
        world.quiet(&device).await;
        world.assert_home(&device, "b");
        assert_eq!(world.tags(&device, "b").as_deref(), Some(r#"{"kept":true}"#), "{kind:?}");
    }
}

/// A move was given up after its seal; the old home does not answer, so it is still sealed.
async fn sealed_and_given_up(policy: ReprovisionPolicy) -> (World, super::world::Device) {
    let world = World::new().await;
    let device = world.enroll("dev-1", |enrollment| enrollment.reprovision = Some(policy)).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    world.hub("b").set_reachable(false);
    world.register(&device).await;
    let name = DeviceId::from(&device.id);
    world.until(&device, |_| world.hub("a").phase(&name) == Some(Phase::Sealed)).await;
    world.hub("a").set_reachable(false);
    world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await;
    let device = world.edit(&device, |enrollment| enrollment.hubs = vec![hub_id("a")]).await;
    (world, device)
}

#[tokio::test]
async fn a_device_is_not_told_assigned_while_its_home_is_still_sealed() {
    for policy in [ReprovisionPolicy::Migrate, ReprovisionPolicy::Reset] {
        let (world, device) = sealed_and_given_up(policy).await;
        assert_eq!(reason(world.ask(&device, None).await), Some(Reason::DeviceMoving), "{policy:?}");
        let rolled = leaf(&device.id);
        let renewed = world
            .edit(&device, |enrollment| {
                let Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
                leaves.secondary = Some(crate::attestation::x509::certificate_ref(&rolled).unwrap());
            })
            .await;
        // A new credential or a reset must not push the owed unseal aside.
        assert_eq!(reason(world.ask(&renewed, None).await), Some(Reason::DeviceMoving), "{policy:?}");
        world.hub("a").set_reachable(true);
        world.hub("b").set_reachable(true);
        world.quiet(&renewed).await;
        world.assert_home(&renewed, "a");
        world.settle(&renewed).await;
        world.quiet(&renewed).await;
        world.assert_home(&renewed, "a");
    }
}

#[tokio::test]
async fn a_device_id_that_another_registration_has_is_refused_before_any_hub_is_called() {
    let world = World::new().await;
    let name = DeviceId::parse("foo").unwrap();
    let first = world.enroll("x", |enrollment| enrollment.device_id = Some(name.clone())).await;
    world.settle(&first).await;
    world.quiet(&first).await;
    let before = world.hub("a").entry(&name);
    let second = world.enroll("foo", |_| {}).await;
    assert_eq!(reason(world.ask(&second, None).await), Some(Reason::DeviceIdInUse));
    assert_eq!(world.hub("a").entry(&name), before);
    let file = world.store.load_device(&second.id).await.unwrap();
    assert_eq!((file.registration, file.open), (None, vec![]));
}

#[tokio::test]
async fn the_same_request_with_another_certificate_or_a_disabled_enrollment_is_judged() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let accepted = world.ask(&device, Some("boot")).await.unwrap().unwrap();
    world.over(accepted).await;
    world.quiet(&device).await;
    let rolled = leaf(&device.id);
    let renewed = world
        .edit(&device, |enrollment| {
            let Attestation::X509Leaf(leaves) = &mut enrollment.attestation else { panic!() };
            leaves.secondary = Some(crate::attestation::x509::certificate_ref(&rolled).unwrap());
        })
        .await;
    let accepted = world.ask(&renewed, Some("boot")).await.unwrap().unwrap();
    world.over(accepted).await;
    let tenant = world.hub("a").entry(&DeviceId::from(&device.id)).unwrap().tenant.unwrap();
    assert_eq!(tenant.credential, *renewed.verified.credential());
    let disabled = world.edit(&renewed, |enrollment| enrollment.enabled = false).await;
    let accepted = world.ask(&disabled, Some("boot")).await.unwrap().unwrap();
    assert_eq!(world.over(accepted).await.operation.status, OperationStatus::Disabled);
}

#[tokio::test]
async fn a_pin_outranks_the_capacity_of_its_hub() {
    let mut world = World::new().await;
    world.link("small", |hub| hub.capacity = Some(0)).await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.quiet(&device).await;
    let accepted = world.move_to(&device, "small").await.unwrap().unwrap();
    assert_eq!(sub_status(&world.over(accepted).await), SubStatus::DeviceDataMigrated);
    world.quiet(&device).await;
    world.assert_home(&device, "small");
    // Without a pin the hub is full for everybody else.
    let other = world.enroll("dev-2", |enrollment| enrollment.hubs = vec![hub_id("small")]).await;
    let failed = world.settle(&other).await;
    assert!(matches!(failed.operation.status, OperationStatus::Failed { reason: Reason::NoHubAvailable, .. }));
}
