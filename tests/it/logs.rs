//! What the program writes while a device is moved: every line can be traced to its registration, none holds a secret.

use std::collections::BTreeSet;

use rehome::client::Patience;
use rehome::domain::ClientFacts;
use serde_json::Value;

use crate::serving::Serving;
use crate::world::{document, hub_id, in_time, outcome, registration_id, settled};

const DEVICE: &str = "traced-device-1";

/// A field of a line: its own, or of one of the spans that it stands in.
fn field(line: &Value, name: &str) -> Option<String> {
    let spans = line["spans"].as_array().into_iter().flatten();
    let found = std::iter::once(line).chain(spans).filter_map(|part| part[name].as_str()).next_back();
    found.map(str::to_owned)
}

#[tokio::test]
async fn every_line_of_a_registration_names_it() {
    // Given: a device at hub-a, whose group now belongs to hub-b, and a service that says all it can about itself.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let settings = ["log.format=json", "log.filter=info,rehome=trace"];
    let serving = tokio::task::spawn_blocking(move || Serving::start(&path, &settings)).await.unwrap();
    let site = serving.site.clone();
    let operator = site.operator().await;
    let group = operator.create_enrollment(&site.group()).await.unwrap();
    let issued = site.issue(DEVICE);
    let device = site.device(DEVICE, &issued).await;
    let register =
        async || in_time(device.register(&ClientFacts::default(), Patience::Tries(1), |_| ())).await.unwrap();
    let first = register().await;
    device.home(&first).await.unwrap().report(&document(r#"{"on":true}"#)).await.unwrap();
    let mut draft = group.draft;
    draft.hubs = vec![hub_id("hub-b")];
    operator.update_enrollment(&draft, group.version).await.unwrap();

    // When: it registers, is moved, and an unknown caller is refused.
    let moved = register().await;
    assert_eq!(outcome(&moved).0, "hub-b");
    settled(&operator, DEVICE).await;
    let record = operator.registration(&registration_id(DEVICE)).await.unwrap();
    let stranger = site.caller_as("stranger-1", None).await;
    stranger.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await.unwrap_err();
    drop((operator, device, stranger));
    let (said, ended) = tokio::task::spawn_blocking(|| serving.stop()).await.unwrap();
    assert!(ended.success(), "{said}");

    // Then: the lines about it say so, and those after the decision say of which operation.
    let operations = BTreeSet::from([first.operation_id.to_string(), moved.operation_id.to_string()]);
    assert_eq!(record.operation.id, moved.operation_id);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with('{')).collect();
    let mut told = BTreeSet::new();
    for text in &lines {
        let line: Value = serde_json::from_str(text).unwrap();
        if text.contains(DEVICE) || operations.iter().any(|operation| text.contains(operation)) {
            assert_eq!(field(&line, "registration_id").as_deref(), Some(DEVICE), "{text}");
        }
        if line["target"].as_str().is_some_and(|target| target.starts_with("rehome::actors")) {
            let operation = field(&line, "operation_id").unwrap_or_else(|| panic!("{text}"));
            assert!(operations.contains(&operation), "{text}");
            told.insert((operation, line["message"].as_str().unwrap_or_default().to_owned()));
        }
    }
    // The move with every call that it made to a hub.
    let operation = moved.operation_id.to_string();
    for step in ["seal is done", "create is done", "activate is done", "delete is done", "the move is done"] {
        assert!(told.contains(&(operation.clone(), step.to_owned())), "{step}: {told:#?}");
    }
    let refused: Vec<_> = lines.iter().filter(|line| line.contains("stranger-1")).collect();
    assert!(refused.iter().any(|line| line.contains("tracking_id")), "{refused:?}");

    // Nor does anything that was said hold a part of a private key.
    let mut keys = vec![issued.key_pem().to_owned()];
    for entry in std::fs::read_dir(folder.path().join("certs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            keys.push(std::fs::read_to_string(path).unwrap());
        }
    }
    assert_eq!(keys.len(), 9, "the device's, and those of the development PKI");
    assert!(!said.contains("PRIVATE KEY"));
    for part in keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with('-')) {
        assert!(!said.contains(part), "a private key is in the log");
    }
}
