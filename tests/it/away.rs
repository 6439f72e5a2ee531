//! A hub that does not answer is passed by where the enrollment says so: what the service has seen of the device goes on at
//! another hub, and what it has not seen is kept for people to look at.

use std::time::Duration;

use rehome::client::{HistoryRecord, RegistrationRecord, UpdateStatus};
use rehome::domain::{EnrollmentDraft, Reason, UnreachableRule};

use crate::world::{HOUR, Member, World, document, hub_id, in_time, outcome, reason, registration_id};

/// dev-1 at hub-a, under a rule; a hub counts as away at once after its third try.
async fn living(rule: UnreachableRule) -> (World, Member) {
    let world = World::start_with(|config| config.hubs.away_after = Duration::from_secs(1)).await;
    world.enroll(&EnrollmentDraft { unreachable: rule, allow_late_writes: true, ..world.site.group() }).await;
    let member = world.registered("dev-1").await;
    (world, member)
}

async fn report(member: &Member, text: &str) {
    member.home().await.report(&document(text)).await.unwrap();
}

/// The registration once it is as it is waited for.
async fn comes_to(world: &World, is_so: impl Fn(&RegistrationRecord) -> bool) -> RegistrationRecord {
    in_time(async {
        loop {
            let record = world.operator.registration(&registration_id("dev-1")).await.unwrap();
            if is_so(&record) {
                return record;
            }
        }
    })
    .await
}

fn is_over(record: &RegistrationRecord) -> bool {
    record.operation.status.is_final()
}

async fn history(world: &World) -> Vec<HistoryRecord> {
    world.operator.history(&registration_id("dev-1")).await.unwrap()
}

#[tokio::test]
async fn a_device_goes_on_with_what_was_seen_of_it_and_what_was_not_seen_is_kept() {
    // Given: a write that the service has seen, and one that it has not.
    let (world, member) = living(UnreachableRule::LastKnown).await;
    report(&member, r#"{"seen":1}"#).await;
    world.operator.sync_hub(&hub_id("hub-a")).await.unwrap();
    report(&member, r#"{"unseen":1}"#).await;
    let before = world.twin("hub-a", "dev-1").await.state.twin;

    // When: its hub goes away, and the device is sent elsewhere.
    world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
    world.send("dev-1", Some("hub-b"), "an outage").await;
    let record = comes_to(&world, is_over).await;

    // Then: it lives there with what was seen, and versions go on above what it may have been told.
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-b"));
    assert_eq!(record.split, [hub_id("hub-a")], "as long as nobody knows what that hub accepts");
    let twin = world.twin("hub-b", "dev-1").await.state.twin;
    assert_eq!(twin.reported.properties, document(r#"{"seen":1}"#));
    assert!(twin.version > before.version && twin.reported.version > before.reported.version);
    report(&member, r#"{"after":1}"#).await;

    // When: its old hub comes back.
    world.operator.bring_up_hub(&hub_id("hub-a")).await.unwrap();
    let record = world.settled("dev-1").await;
    assert_eq!((record.split.len(), record.assignment.unwrap().hub), (0, hub_id("hub-b")));
    assert!(!world.is_at("hub-a", "dev-1").await);
    assert_eq!(
        world.twin("hub-b", "dev-1").await.state.twin.reported.properties,
        document(r#"{"seen":1,"after":1}"#),
        "a late write never enters the live twin"
    );
    // Then: what it held is in the history, until somebody has looked at it.
    let passed = history(&world).await.into_iter().find(|it| it.bypassed.is_some()).expect("the move is remembered");
    assert_eq!((passed.bypassed.as_deref(), passed.split), (Some("away"), false));
    let states = world.operator.history_twins(&registration_id("dev-1"), passed.generation).await.unwrap();
    let late = states.iter().find(|it| it.late).expect("the late twin");
    assert_eq!(late.device.state.twin, before);
    world.operator.forget_late_twin(&registration_id("dev-1"), passed.generation).await.unwrap();
    let again = world.operator.forget_late_twin(&registration_id("dev-1"), passed.generation).await;
    assert_eq!(reason(again), Some(Reason::MoveNotFound));
    assert_eq!(outcome(&member.register().await).0, "hub-b");
    world.stop().await;
}

#[tokio::test]
async fn nobody_is_passed_by_under_another_rule_or_with_nothing_seen() {
    for (rule, was_seen) in [(UnreachableRule::LastKnown, false), (UnreachableRule::Wait { deadline: HOUR }, true)] {
        let (world, member) = living(rule).await;
        report(&member, r#"{"n":1}"#).await;
        if was_seen {
            world.operator.sync_hub(&hub_id("hub-a")).await.unwrap();
        }
        world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
        world.send("dev-1", Some("hub-b"), "an outage").await;
        let record = match was_seen {
            // As many tries as would be enough, and the time that comes with their pauses.
            true => comes_to(&world, |it| it.running.as_ref().is_some_and(|running| running.attempts > 4)).await,
            false => comes_to(&world, is_over).await,
        };
        let failed = match &record.operation.status {
            UpdateStatus::Failed { reason, .. } => Some(reason.as_str()),
            UpdateStatus::Assigning | UpdateStatus::Assigned { .. } | UpdateStatus::Disabled => None,
        };
        assert_eq!(failed, (!was_seen).then_some("NO_LAST_KNOWN_STATE"), "{rule:?}");
        assert_eq!(record.assignment.unwrap().hub, hub_id("hub-a"));
        assert!(record.split.is_empty() && !world.is_at("hub-b", "dev-1").await, "{rule:?}");
        world.operator.bring_up_hub(&hub_id("hub-a")).await.unwrap();
        let record = world.settled("dev-1").await;
        let home = if was_seen { "hub-b" } else { "hub-a" };
        assert_eq!(record.assignment.unwrap().hub, hub_id(home), "{rule:?}");
        assert_eq!(world.twin(home, "dev-1").await.state.twin.reported.properties, document(r#"{"n":1}"#));
        world.stop().await;
    }
}

#[tokio::test]
async fn a_rule_that_passes_hubs_by_needs_leave_for_late_writes() {
    let world = World::start().await;
    for rule in [UnreachableRule::LastKnown, UnreachableRule::Reset] {
        let draft = EnrollmentDraft { unreachable: rule, allow_late_writes: false, ..world.site.group() };
        assert_eq!(reason(world.operator.create_enrollment(&draft).await), Some(Reason::InvalidArgument), "{rule:?}");
    }
    world.stop().await;
}

/// The rule `reset` passes a hub by as well, and says what the device starts with.
#[tokio::test]
async fn under_reset_a_device_starts_anew() {
    let (world, member) = living(UnreachableRule::Reset).await;
    report(&member, r#"{"n":1}"#).await;
    world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
    world.send("dev-1", Some("hub-b"), "an outage").await;
    comes_to(&world, is_over).await;
    assert_eq!(world.twin("hub-b", "dev-1").await.state.twin.reported.properties, document("{}"));
    world.operator.bring_up_hub(&hub_id("hub-a")).await.unwrap();
    world.settled("dev-1").await;
    let passed = history(&world).await.into_iter().find(|it| it.bypassed.is_some()).unwrap();
    let states = world.operator.history_twins(&registration_id("dev-1"), passed.generation).await.unwrap();
    let late = states.iter().find(|it| it.late).expect("the late twin");
    assert_eq!(late.device.state.twin.reported.properties, document(r#"{"n":1}"#));
    world.stop().await;
}
