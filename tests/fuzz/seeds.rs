//! Makes the kept inputs anew from values that are valid today: `cargo test --test fuzz write_the_seeds -- --ignored`.
//! Older ones stay: what was valid once must be taken for ever.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use prost::Message as _;
use rehome::ambient::SystemEntropy;
use rehome::attestation::tpm::Draw;
use rehome::attestation::tpm::software::SoftwareTpm;
use rehome::domain::{
    AuditEntry, ClientFacts, Document, EnrollmentId, GroupId, HubDraft, HubKind, Order, RegistrationId, RequestId,
    StoredAudit, Timestamp,
};
use rehome::hubs::embedded::row_samples;
use rehome::pki::{Authority, Purpose, Terms};
use rehome::store::redb::record_samples;
use rehome::store::{EnrollmentListing, MemoryStore, Store as _, samples};
use rehome::wire::convert::enrollment::{EnrollmentMessage, wire_enrollment};
use rehome::wire::convert::registration::RegisterCall;
use rehome::wire::convert::registration_admin::ReprovisionCall;
use rehome::wire::convert::twin::{DesiredChange, wire_device};
use rehome::wire::convert::{hub, json};
use rehome::wire::{admin, device, hub as hub_api};

use crate::targets::tpm::SCENE;

struct Corpus(&'static str);

impl Corpus {
    fn put(&self, name: &str, bytes: &[u8]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(self.0);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
}

fn of_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

fn fixed(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fixed").join(name)
}

/// An authority and a leaf, once: their keys are not kept.
#[test]
#[ignore = "makes new certificates, with which every kept chain must be made again"]
fn write_the_certificates() {
    let entropy = SystemEntropy::new();
    // From 2020 to 2100.
    let terms = Terms::starting(Timestamp(1_577_836_800_000), Duration::from_secs(80 * 365 * 86_400));
    let authority = Authority::create("fuzz authority", Purpose::Device, terms, &entropy).unwrap();
    let between = authority.issue_intermediate("fuzz intermediate", terms, &entropy).unwrap();
    let id = RegistrationId::parse("dev-1").unwrap();
    let leaf = authority.issue_device(&id, terms, &entropy).unwrap();
    fs::write(fixed("authority.der"), authority.certificate()).unwrap();
    fs::write(fixed("intermediate.der"), between.certificate()).unwrap();
    fs::write(fixed("leaf.der"), &leaf.chain()[0]).unwrap();
}

#[test]
#[ignore = "writes files"]
fn write_the_seeds() {
    certificates();
    tpm();
    texts();
    messages_in();
    messages_out();
    for (place, (kind, bytes)) in record_samples().into_iter().enumerate() {
        Corpus("store_record").put(&format!("valid-{kind}-{place}-v{}", bytes[0]), &of_kind(kind, &bytes));
    }
    for (place, (kind, bytes)) in row_samples().into_iter().enumerate() {
        Corpus("hub_row").put(&format!("valid-{kind}-{place}-v{}", bytes[0]), &of_kind(kind, &bytes));
    }
}

fn certificates() {
    let [authority, between, leaf] =
        ["authority.der", "intermediate.der", "leaf.der"].map(|name| fs::read(fixed(name)).unwrap());
    let chain = |chain: &[&[u8]]| -> Vec<u8> {
        let with_length = |der: &&[u8]| [&(der.len() as u16).to_be_bytes(), *der].concat();
        chain.iter().flat_map(with_length).collect()
    };
    for (name, der) in [("authority", &authority), ("intermediate", &between), ("leaf", &leaf)] {
        Corpus("x509_certificate").put(&format!("valid-{name}"), der);
    }
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(&leaf));
    Corpus("x509_certificate").put("valid-pem", pem.as_bytes());
    let corpus = Corpus("x509_chain");
    corpus.put("valid-leaf", &chain(&[&leaf]));
    corpus.put("valid-with-authority", &chain(&[&leaf, &authority]));
    corpus.put("unused-intermediate", &chain(&[&leaf, &between, &authority]));
    corpus.put("authority-as-leaf", &chain(&[&authority]));
}

fn pieces(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| [&(piece.len() as u16).to_be_bytes(), *piece].concat()).collect()
}

fn tpm() {
    let scene = &*SCENE;
    let (endorsement, storage) = (scene.tpm.endorsement_key().as_bytes(), scene.tpm.storage_root_key().as_bytes());
    let corpus = Corpus("tpm_keys");
    corpus.put("valid-without-attestation-key", &pieces(&[endorsement, storage, &[]]));
    corpus.put("valid-all", &pieces(&[endorsement, storage, scene.tpm.attestation_key().as_bytes()]));
    corpus.put("certificate", &pieces(&[endorsement, storage, &[], &fs::read(fixed("leaf.der")).unwrap()]));
    let other = SoftwareTpm::of(&Draw::new([8; Draw::BYTES])).unwrap();
    corpus.put("stranger", &pieces(&[other.endorsement_key().as_bytes(), storage, &[]]));
    Corpus("tpm_blob").put("valid-blob", &scene.invitation.blob);
    let quote = &scene.quote;
    let values: Vec<Vec<u8>> =
        quote.values.iter().map(|(index, value)| [&[index.number()], value.0.as_slice()].concat()).collect();
    let fixed = [scene.token.as_bytes(), &quote.attest, &quote.signature, &quote.key_proof];
    let answer: Vec<&[u8]> = fixed.into_iter().chain(values.iter().map(Vec::as_slice)).collect();
    Corpus("tpm_answer").put("valid-answer", &pieces(&answer));
    let corpus = Corpus("sas_token");
    corpus.put("valid-token", scene.token.as_bytes());
    corpus.put(
        "another-order",
        b"SharedAccessSignature se=1900000060&sr=a%2fb&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3d",
    );
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

fn texts() {
    let corpus = Corpus("twin_patch");
    corpus.put("valid-merge", b"{\"rate\":5,\"net\":{\"apn\":\"a\",\"mtu\":1}}\n{\"net\":{\"mtu\":null},\"on\":true}");
    corpus.put(
        "valid-all",
        b"{\"a\":[1,{\"b\":2.5}]}\n{\"a\":{\"b\":{\"c\":1}}}\n{\"n\":4503599627370495}\n{\"site\":\"x\"}",
    );
    corpus.put("valid-object-over-value", b"{\"a\":1}\n{\"a\":{\"b\":null}}\n{\"a\":null}\n{\"a\":{\"b\":{}}}");
    corpus.put("deep", format!("{{}}\n{}1{}", "{\"a\":".repeat(12), "}".repeat(12)).as_bytes());
    corpus.put("numbers", b"{}\n{\"a\":1e400,\"b\":-0.0,\"c\":18446744073709551615}");
    let corpus = Corpus("words");
    for (name, word) in [
        ("registration", "dev-1_a.b:c"),
        ("device", "pump#7"),
        ("etag", "\"7\""),
        ("operation", "0000000000000000000000000000000a"),
        ("role", "rehome:role:operator:hub-a"),
        ("time", "2026-01-31T12:00:00.123Z"),
    ] {
        corpus.put(&format!("valid-{name}"), word.as_bytes());
    }
    corpus.put("long", "x".repeat(129).as_bytes());
    let corpus = Corpus("configuration");
    corpus.put("valid-empty", b"");
    corpus.put("valid-some", b"data_dir = \"d\"\nlisten = \"127.0.0.1:7443\"\n[log]\nfilter = \"warn\"\n[actors]\npassivate_after = \"1s\"\n");
    corpus.put("unknown", b"[log]\nfiltr = \"warn\"\n");
    let corpus = Corpus("webhook_answer");
    corpus.put("valid-hub", br#"{"iotHubHostName":"hub-a.test"}"#);
    corpus.put(
        "valid-all",
        br#"{"iotHubHostName":"HUB-B.test","initialTwin":{"tags":{"a":1},"properties":{"desired":{"b":[1,2]}}},"payload":{"x":null}}"#,
    );
    corpus.put("not-json", b"<html>");
    let corpus = Corpus("page_token");
    corpus.put("empty", b"");
    corpus.put("other", b"AAAAAAAAAAAAAAAA");
    let store = MemoryStore::new();
    let groups = [(1, "g-1"), (2, "g-2")];
    let put = groups.map(|(number, id)| samples::put_enrollment(samples::enrollment(samples::group_id(id), number)));
    store.commit(samples::changes(put)).now_or_never().unwrap().unwrap();
    let page = store.list_enrollments(EnrollmentListing::Groups, &samples::page(1)).now_or_never().unwrap().unwrap();
    corpus.put("valid-groups", page.next.unwrap().as_bytes());
}

fn doc(text: &str) -> Document {
    Document::from_text(text).unwrap()
}

fn messages_in() {
    let corpus = Corpus("wire_from_devices");
    let call = RegisterCall {
        registration_id: samples::reg_id("dev-1"),
        facts: ClientFacts::default(),
        request_id: Some(RequestId::parse("r-1").unwrap()),
        tpm: None,
    };
    let request = device::v1::RegisterRequest::from(&call);
    let start = device::v1::StartRegistrationRequest::from(request.clone());
    corpus.put("valid-register", &of_kind(0, &request.encode_to_vec()));
    corpus.put("valid-start", &of_kind(1, &start.encode_to_vec()));
    let operation = device::v1::GetOperationRequest {
        registration_id: "dev-1".to_owned(),
        operation_id: rehome::domain::OperationId(10).to_string(),
    };
    corpus.put("valid-operation", &of_kind(2, &operation.encode_to_vec()));
    let patch = Some(json::wire_document(&doc(r#"{"seen":{"at":[1,2.5,"x",true]}}"#)));
    let report = hub_api::v1::UpdateReportedRequest {
        hub_id: "a".to_owned(),
        device_id: "dev-1".to_owned(),
        patch: patch.clone(),
    };
    corpus.put("valid-report", &of_kind(3, &report.encode_to_vec()));

    let corpus = Corpus("wire_from_operators");
    let individual = samples::enrollment(EnrollmentId::Individual(samples::reg_id("dev-1")), 1);
    let group = samples::enrollment(EnrollmentId::Group(GroupId::parse("plant").unwrap()), 2);
    for (kind, enrollment) in [(0, individual), (1, group)] {
        let bytes = match wire_enrollment(&enrollment) {
            EnrollmentMessage::Individual(message) => message.encode_to_vec(),
            EnrollmentMessage::Group(message) => message.encode_to_vec(),
        };
        corpus.put(&format!("valid-enrollment-{kind}"), &of_kind(kind, &bytes));
        Corpus("wire_to_clients").put(&format!("valid-enrollment-{kind}"), &of_kind(10 + kind, &bytes));
    }
    let draft = HubDraft {
        id: samples::hub_id("a"),
        kind: HubKind::Embedded,
        host_name: Some("a.test".to_owned()),
        endpoint: Some("a.test:443".to_owned()),
        location: None,
        weight: 3,
        capacity: Some(10),
        calls_per_second: None,
    };
    corpus.put("valid-hub", &of_kind(2, &hub::wire_draft(&draft).encode_to_vec()));
    let reprovision = ReprovisionCall {
        registration: samples::reg_id("dev-1"),
        to: Some(samples::hub_id("b")),
        pin_expires_at: Some(samples::NOW),
        reason: "closer".to_owned(),
        request_id: None,
    };
    corpus.put("valid-reprovision", &of_kind(3, &admin::v1::ReprovisionRequest::from(&reprovision).encode_to_vec()));
    let list = admin::v1::ListRegistrationsRequest { page_size: 7, hub_id: "a".to_owned(), ..Default::default() };
    corpus.put("valid-list", &of_kind(4, &list.encode_to_vec()));
    let audit = admin::v1::ListAuditEntriesRequest { action: "hub_linked".to_owned(), ..Default::default() };
    corpus.put("audit", &of_kind(5, &audit.encode_to_vec()));
    let merge = hub_api::v1::UpdateTwinRequest {
        hub_id: "a".to_owned(),
        device_id: "dev-1".to_owned(),
        tags: patch.clone(),
        desired: patch.clone(),
        ..Default::default()
    };
    corpus.put("valid-merge", &of_kind(6, &merge.encode_to_vec()));
    let replace = hub_api::v1::ReplaceTwinRequest {
        hub_id: "a".to_owned(),
        device_id: "dev-1".to_owned(),
        desired: patch,
        ..Default::default()
    };
    corpus.put("valid-replace", &of_kind(7, &replace.encode_to_vec()));
    let status = hub_api::v1::UpdateDeviceStatusRequest {
        hub_id: "a".to_owned(),
        device_id: "dev-1".to_owned(),
        status: hub_api::v1::DeviceStatus::Disabled.into(),
        reason: "lost".to_owned(),
        ..Default::default()
    };
    corpus.put("valid-status", &of_kind(8, &status.encode_to_vec()));
}

fn messages_out() {
    let corpus = Corpus("wire_to_clients");
    corpus.put("valid-pin", &of_kind(5, &admin::v1::Pin::from(&samples::pin("a")).encode_to_vec()));
    let entry = AuditEntry { hub: Some(samples::hub_id("a")), ..samples::audit("linked", Some("dev-1")) };
    let stored = StoredAudit { order: Order(7), place: 1, entry };
    corpus.put("valid-audit", &of_kind(6, &admin::v1::AuditEntry::from(&stored).encode_to_vec()));
    for (name, change) in [
        ("whole", DesiredChange::Whole { desired: doc(r#"{"a":1}"#), version: 3 }),
        ("patch", DesiredChange::Patch { patch: doc(r#"{"a":null}"#), version: 4 }),
        ("moved", DesiredChange::Moved),
    ] {
        let message = hub_api::v1::WatchDesiredResponse::from(&change);
        corpus.put(&format!("valid-{name}"), &of_kind(7, &message.encode_to_vec()));
    }
    let id = rehome::domain::DeviceId::parse("dev-1").unwrap();
    let device = wire_device(&id, &samples::device_state(), true);
    corpus.put("valid-device", &of_kind(8, &device.encode_to_vec()));
    let twin = admin::v1::HistoryTwin {
        hub_id: "a".to_owned(),
        device: Some(device),
        at: Some(rehome::wire::convert::field::wire_time(samples::NOW)),
        ..Default::default()
    };
    corpus.put("twin", &of_kind(3, &twin.encode_to_vec()));
    let record = admin::v1::Registration {
        registration_id: "dev-1".to_owned(),
        device_id: "dev-1".to_owned(),
        etag: rehome::domain::Version(3).etag(),
        ..Default::default()
    };
    corpus.put("registration", &of_kind(1, &record.encode_to_vec()));
    let update = device::v1::RegistrationUpdate { registration_id: "dev-1".to_owned(), ..Default::default() };
    corpus.put("update", &of_kind(0, &update.encode_to_vec()));
}
