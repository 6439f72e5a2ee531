//! Many enrollments at once: what can be made is made, what cannot is told, and a second run changes nothing.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use rehome::client::{EnrollmentKind, ImportOutcome, PageChoice};
use rehome::domain::{AllocationPolicy, EnrollmentDraft, EnrollmentId, Reason, RegistrationId, limits};
use serde_json::{Value, json};

use crate::world::{World, group, individual, reason};

fn refused(outcome: &ImportOutcome) -> Option<&str> {
    match outcome {
        ImportOutcome::Refused { reason, .. } => Some(reason),
        ImportOutcome::Created | ImportOutcome::Exists { .. } => None,
    }
}

#[tokio::test]
async fn what_can_be_made_is_made_whatever_becomes_of_the_others() {
    let world = World::start().await;
    let issued = |id: &str| world.site.issue(id);
    let (one, two, three, four) = (issued("dev-1"), issued("dev-2"), issued("dev-3"), issued("dev-4"));
    world.enroll(&individual("dev-1", &one)).await;
    let same_certificate = EnrollmentDraft {
        id: EnrollmentId::Individual(RegistrationId::parse("DEV-3").unwrap()),
        ..individual("dev-2", &two)
    };
    let no_such_hub = EnrollmentDraft {
        hubs: vec![crate::world::hub_id("nowhere")],
        allocation: Some(AllocationPolicy::Static),
        ..individual("dev-4", &four)
    };
    let drafts = [
        individual("dev-1", &one),
        individual("dev-2", &two),
        individual("dev-2", &two),
        same_certificate,
        no_such_hub,
        individual("dev-3", &three),
        individual("dev-4", &three),
    ];
    let outcomes = world.operator.import_enrollments(&drafts, false).await.unwrap();
    let told: Vec<_> = outcomes.iter().map(refused).collect();
    let expected = [
        Some("ALREADY_EXISTS"),
        None,
        Some("ALREADY_EXISTS"),
        Some("INVALID_ARGUMENT"),
        Some("HUB_NOT_FOUND"),
        None,
        Some("INVALID_ARGUMENT"),
    ];
    assert_eq!(told, expected, "{outcomes:?}");
    world.site.device("dev-3", &three).await.look_up().await.unwrap_err();

    // Again: what is there stays, and what is not as it was asked for is told.
    let before = world.files();
    let mut changed = individual("dev-3", &three);
    changed.adopt_existing = true;
    let again = [individual("dev-2", &two), changed];
    let outcomes = world.operator.import_enrollments(&again, true).await.unwrap();
    assert_eq!(outcomes, [ImportOutcome::Exists { differs: false }, ImportOutcome::Exists { differs: true }]);
    assert_eq!(world.files(), before, "nothing was written");
}

#[tokio::test]
async fn a_certificate_of_another_enrollment_keeps_out_one_line_only() {
    let world = World::start().await;
    let (one, two) = (world.site.issue("dev-1"), world.site.issue("dev-2"));
    let mut holder = individual("dev-1", &one);
    holder.attestation = rehome::domain::AttestationDraft::X509 {
        primary: one.chain()[0].to_vec(),
        secondary: Some(world.site.issue("dev-1").chain()[0].to_vec()),
    };
    world.enroll(&holder).await;
    world.operator.delete_enrollment(&holder.id, None).await.unwrap();
    world.enroll(&group("plant", &world.site.device_ca())).await;
    // The authority's own certificate is the group's, and its name is no registration id either.
    let ca = EnrollmentDraft {
        id: EnrollmentId::Individual(RegistrationId::parse("dev-9").unwrap()),
        attestation: rehome::domain::AttestationDraft::X509 {
            primary: world.site.device_ca().certificate().to_vec(),
            secondary: None,
        },
        ..individual("dev-2", &two)
    };
    let outcomes = world.operator.import_enrollments(&[ca, individual("dev-2", &two)], false).await.unwrap();
    assert!(refused(&outcomes[0]).is_some(), "{outcomes:?}");
    assert_eq!(outcomes[1], ImportOutcome::Created);
}

#[tokio::test]
async fn an_import_is_bounded_and_of_individuals() {
    let world = World::start().await;
    let one = world.site.issue("dev-1");
    let too_many = vec![individual("dev-1", &one); limits::IMPORT_MAX + 1];
    assert_eq!(reason(world.operator.import_enrollments(&[], false).await), Some(Reason::InvalidArgument));
    let refused = world.operator.import_enrollments(&too_many, false).await;
    assert!(refused.is_err(), "{refused:?}");
    let of_a_group = world.operator.import_enrollments(&[group("plant", &world.site.device_ca())], false).await;
    assert!(of_a_group.is_err());
    let page = world.operator.list_enrollments(EnrollmentKind::Individual, PageChoice::default()).await.unwrap();
    assert!(page.rows.is_empty());
}

/// The command, as people run it, with what it is to read.
async fn rehome(world: &World, words: &[&str], read: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
    command.env_clear().args(words).arg("--server").arg(format!("https://{}", world.site.address));
    command.arg("--certs").arg(world.site.paths.operator.certificate.parent().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let read = read.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(read.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    ran.await.unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn a_file_is_imported_exported_and_imported_elsewhere() {
    let (world, elsewhere) = (World::start().await, World::start().await);
    let line = |id: &str| {
        let der = world.site.issue(id).certificate_pem();
        json!({"registration_id": id, "certificate": der, "hub_ids": ["hub-b"]}).to_string()
    };
    let lines: Vec<String> = (0..600).map(|number| line(&format!("dev-{number}"))).collect();
    let file = format!("{}\n\nnonsense\n", lines.join("\n"));
    let words = ["enroll", "import", "-", "--reprovision", "reset", "--json"];
    let first = rehome(&world, &words, &file).await;
    assert!(!first.status.success(), "one line is nonsense");
    let told = json_of(&first);
    assert_eq!((&told["lines"], &told["created"], &told["refused"]), (&json!(601), &json!(600), &json!(1)), "{told}");
    assert_eq!(told["faults"][0]["line"], 602, "{told}");

    let again = rehome(
        &world,
        &["enroll", "import", "-", "--reprovision", "reset", "--skip-existing", "--json"],
        &lines.join("\n"),
    )
    .await;
    let told = json_of(&again);
    assert_eq!((&told["existing"], &told["created"], again.status.success()), (&json!(600), &json!(0), true), "{told}");

    let exported = rehome(&world, &["enroll", "export"], "").await;
    let exported = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(exported.lines().count(), 600);
    let moved = rehome(&elsewhere, &["enroll", "import", "-", "--json"], &exported).await;
    assert_eq!(json_of(&moved)["created"], 600, "{moved:?}");
    let exported_there = rehome(&elsewhere, &["enroll", "export"], "").await;
    assert_eq!(String::from_utf8(exported_there.stdout).unwrap(), exported);
}
