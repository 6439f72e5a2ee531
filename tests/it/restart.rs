//! A service that is stopped and started again knows everything that it knew, and goes on where it was.

use rehome::domain::{EnrollmentId, GroupId, SubStatus};

use crate::world::{World, document, hub_id, in_time, outcome};

fn plant() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("plant").unwrap())
}

#[tokio::test]
async fn everything_is_still_there() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"on":true}"#)).await.unwrap();
    world.patch("hub-a", "dev-1", r#"{"site":"north"}"#, r#"{"rate":5}"#).await;
    world.registered("dev-2").await;
    world.send("dev-2", Some("hub-b"), "quarantine").await;
    world.settled("dev-2").await;
    assert_eq!(world.hubs_made(), ["hub-a", "hub-b"]);
    let (records, audit) = (world.records().await, world.audit().await);

    let world = world.restarted().await;

    assert!(world.hubs_made().is_empty(), "hubs are linked once");
    assert_eq!(world.taken_up(), 0);
    assert_eq!(world.records().await, records);
    let after = world.audit().await;
    assert_eq!(after[after.len() - audit.len()..], audit[..], "and only the hubs' new address was added");
    assert_eq!(after.len(), audit.len() + 2);

    // The device finds its home again, with the certificate that it has.
    let device = world.site.device("dev-1", &member.issued).await;
    let home = device.home(&device.look_up().await.unwrap()).await.unwrap();
    assert_eq!(home.twin().await.unwrap().reported.properties, document(r#"{"on":true}"#));
    world.stop().await;
}

#[tokio::test]
async fn a_move_that_waits_for_a_hub_goes_on() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"on":true}"#)).await.unwrap();
    world.patch("hub-a", "dev-1", r#"{"site":"north"}"#, r#"{"rate":5}"#).await;
    let before = world.twin("hub-a", "dev-1").await;
    world.operator.take_down_hub(&hub_id("hub-a")).await.unwrap();
    world.allot(&plant(), "hub-b").await;
    let record = world.send("dev-1", None, "moving closer").await;
    let operation = record.operation.id;
    assert!(record.running.is_some(), "{record:?}");

    let world = world.restarted().await;

    assert_eq!(world.taken_up(), 1);
    let record = world.operator.registration(&record.id).await.unwrap();
    assert!(record.running.is_some() && record.operation.id == operation, "{record:?}");
    assert!(world.operator.hub(&hub_id("hub-a")).await.unwrap().taken_down, "a hub that was taken down stays down");
    world.operator.bring_up_hub(&hub_id("hub-a")).await.unwrap();
    let record = world.settled("dev-1").await;
    assert_eq!(record.operation.id, operation);
    assert_eq!(record.assignment.unwrap().hub, hub_id("hub-b"));
    assert_eq!(world.twin("hub-b", "dev-1").await.state, before.state);
    assert!(!world.is_at("hub-a", "dev-1").await);
    let device = world.site.device("dev-1", &member.issued).await;
    let update = in_time(device.look_up()).await.unwrap();
    assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::DeviceDataMigrated));
    world.stop().await;
}
