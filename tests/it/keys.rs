//! Devices that prove themselves by symmetric keys, over gRPC: their own, and keys made of their group's.

use rehome::client::{Device, Home, Patience, RegistrationUpdate, device_key};
use rehome::domain::{
    AttestationDraft, AuditAction, ClientFacts, EnrollmentDraft, EnrollmentId, GroupId, Reason, TokenKey,
};

use crate::world::{World, document, group, keyed, reason, registration_id, token_key};

fn own(id: &str) -> EnrollmentId {
    EnrollmentId::Individual(registration_id(id))
}

fn lamps() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("lamps").unwrap())
}

async fn device(world: &World, id: &str, key: TokenKey) -> Device {
    world.site.caller_as(id, None).await.by_key(key)
}

async fn register(device: &Device) -> Result<RegistrationUpdate, rehome::client::ClientFault> {
    device.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await
}

async fn home(device: &Device) -> Home {
    device.home(&register(device).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_key_lets_its_device_register_look_itself_up_and_use_its_twin() {
    let world = World::start().await;
    world.enroll(&keyed(own("dev-1"), 1, 2)).await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    for (id, key) in [
        ("dev-1", token_key(1)),
        ("dev-1", token_key(2)),
        ("lamp-1", device_key(&token_key(11), "lamp-1")),
        ("lamp-2", device_key(&token_key(12), "lamp-2")),
    ] {
        let device = device(&world, id, key).await;
        let home = home(&device).await;
        home.report(&document(r#"{"seen":true}"#)).await.unwrap();
        assert_eq!(home.twin().await.unwrap().reported.properties.0["seen"], true);
        assert_eq!(device.look_up().await.unwrap().hub.unwrap().id.as_str(), "hub-a", "{id}");
    }
    let shown = world.operator.registration(&registration_id("lamp-1")).await.unwrap();
    assert!(shown.assignment.is_some());
    world.stop().await;
}

#[tokio::test]
async fn a_device_keeps_its_key_and_its_twin_when_it_moves() {
    let world = World::start().await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    let lamp = device(&world, "lamp-1", device_key(&token_key(11), "lamp-1")).await;
    let before = home(&lamp).await;
    before.report(&document(r#"{"lit":true}"#)).await.unwrap();
    world.allot(&lamps(), "hub-b").await;
    let after = home(&lamp).await;
    assert_eq!(after.twin().await.unwrap().reported.properties.0["lit"], true);
    world.settled("lamp-1").await;
    assert_eq!(reason(before.twin().await), Some(Reason::DeviceMoved));
    world.stop().await;
}

#[tokio::test]
async fn who_has_no_key_or_anothers_is_refused() {
    let world = World::start().await;
    world.enroll(&keyed(own("dev-1"), 1, 2)).await;
    world.enroll(&keyed(lamps(), 11, 12)).await;
    world.enroll(&group("plant", &world.site.device_ca())).await;
    for (id, key) in [
        ("dev-1", token_key(3)),
        ("dev-2", token_key(1)),
        ("lamp-1", token_key(11)),
        ("lamp-1", device_key(&token_key(11), "lamp-2")),
        // Its own enrollment stands before its group.
        ("dev-1", device_key(&token_key(11), "dev-1")),
    ] {
        let outcome = register(&device(&world, id, key).await).await;
        assert_eq!(reason(outcome), Some(Reason::RegistrationRefused), "{id}");
    }
    world.operator.disable_enrollment(&own("dev-1"), None).await.unwrap();
    let disabled = register(&device(&world, "dev-1", token_key(1)).await).await.unwrap_err();
    assert!(disabled.to_string().contains("disabled"), "{disabled}");
    // A certificate of a group does not get past it either.
    let certified = world.site.device("dev-1", &world.site.issue("dev-1")).await;
    assert_eq!(reason(register(&certified).await), Some(Reason::RegistrationRefused));
    world.stop().await;
}

#[tokio::test]
async fn keys_are_shown_when_they_are_asked_for_and_never_else() {
    let world = World::start().await;
    let drawn = EnrollmentDraft {
        attestation: AttestationDraft::SymmetricKey { primary: None, secondary: None },
        ..keyed(own("dev-1"), 1, 1)
    };
    let record = world.enroll(&drawn).await;
    assert_eq!(record.draft.attestation, drawn.attestation, "an answer holds no key");
    assert_eq!(record.key_fingerprints.iter().map(String::len).collect::<Vec<_>>(), [64, 64]);
    let keys = world.operator.enrollment_keys(&own("dev-1")).await.unwrap();
    assert_eq!((keys.primary.secret().len(), keys.primary == keys.secondary), (64, false));
    assert!(register(&device(&world, "dev-1", keys.secondary.clone()).await).await.is_ok());

    // What was read is written back, and changes no key.
    world.change(&own("dev-1"), |draft| draft.adopt_existing = true).await;
    assert_eq!(world.operator.enrollment_keys(&own("dev-1")).await.unwrap(), keys);
    world.enroll(&group("plant", &world.site.device_ca())).await;
    let plant = EnrollmentId::Group(GroupId::parse("plant").unwrap());
    assert_eq!(reason(world.operator.enrollment_keys(&plant).await), Some(Reason::NoSymmetricKeys));
    let twice = keyed(EnrollmentId::Group(GroupId::parse("g1").unwrap()), 5, 6);
    world.enroll(&twice).await;
    let again = keyed(lamps(), 6, 7);
    assert_eq!(reason(world.operator.create_enrollment(&again).await), Some(Reason::KeyInUse));

    let page = rehome::client::PageChoice::default();
    let entries = world.operator.list_audit(Some(AuditAction::EnrollmentKeysShown), None, page).await.unwrap();
    assert_eq!(entries.rows.len(), 2);
    // No file holds a key in the clear.
    for (path, bytes) in world.files() {
        for key in keys.both() {
            assert!(!bytes.windows(16).any(|window| window == &key.secret()[..16]), "{}", path.display());
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_service_without_the_key_of_its_keys_does_not_start_unless_told_to() {
    let world = World::start().await;
    world.enroll(&keyed(own("dev-1"), 1, 2)).await;
    let lamp = device(&world, "dev-1", token_key(1)).await;
    register(&lamp).await.unwrap();
    let (folder, config) = world.stopped().await;
    let secrets = config.data_dir.join("secrets.key");
    let kept = folder.path().join("kept.key");
    std::fs::rename(&secrets, &kept).unwrap();
    for _ in 0..2 {
        let fault = rehome::compose::Running::start(&config).await.map(drop).unwrap_err();
        assert!(fault.to_string().contains("the keys of individual dev-1 cannot be opened"), "{fault}");
        assert!(!secrets.exists(), "no other key is left behind");
    }
    std::fs::rename(&kept, &secrets).unwrap();
    let running = rehome::compose::Running::start(&config).await.unwrap();
    running.stop().await.unwrap();
    std::fs::remove_file(&secrets).unwrap();
    let mut config = config;
    config.store.accept_lost_keys = true;
    let running = rehome::compose::Running::start(&config).await.unwrap();
    running.stop().await.unwrap();
}
