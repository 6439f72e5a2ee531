//! Bad input of every kind: refused with one stable reason, told to whom it may be told, and nothing is changed by it.

use std::sync::Arc;
use std::time::Duration;

use rehome::ambient::{Clock as _, SystemClock, SystemEntropy};
use rehome::client::{
    ClientFault, Device, Identity, Operator, PageChoice, Patience, RegistrationChoice, RemoteFault, ReprovisionCall,
    UpdateStatus,
};
use rehome::domain::{
    AttestationDraft, AuditAction, ClientFacts, Document, EnrollmentDraft, EnrollmentId, HubStatus, InitialState,
    Reason, Role, RoleGrant, TrackingId, TwinPatch, Version,
};
use rehome::pki::{Authority, Issued, Purpose, Terms};
use rehome::wire::hub::v1 as hub;
use rehome::wire::hub::v1::twin_service_client::TwinServiceClient;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};

use crate::world::{
    HOUR, Site, World, document, group, hub_id, identity_of, in_time, individual, issue, outcome, reason, refusal,
    registration_id, twin_at,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A DER sequence that promises an integer and holds none.
const GARBAGE_PEM: &str = "-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n";
const GARBAGE: [u8; 5] = [0x30, 0x03, 0x01, 0x02, 0x03];

/// An authority that has been around for a while.
fn authority(name: &str) -> Authority {
    let now = SystemClock.now();
    let terms = Terms::starting(rehome::domain::Timestamp::from_secs(now.as_secs() - 40 * 24 * 3600), 400 * DAY);
    Authority::create(name, Purpose::Device, terms, &SystemEntropy::new()).unwrap()
}

/// A leaf valid from so many days after today.
fn issue_from(authority: &Authority, id: &str, days: i64, lifetime: Duration) -> Issued {
    let start = rehome::domain::Timestamp::from_secs(SystemClock.now().as_secs() + days * 24 * 3600);
    authority.issue_device(&registration_id(id), Terms::starting(start, lifetime), &SystemEntropy::new()).unwrap()
}

/// A leaf below so many intermediates.
fn issue_below(root: &Authority, id: &str, intermediates: usize) -> Issued {
    let terms = Terms::starting(SystemClock.now(), HOUR);
    let mut issuer = root.issue_intermediate("level 1", terms, &SystemEntropy::new()).unwrap();
    for level in 2..=intermediates {
        issuer = issuer.issue_intermediate(&format!("level {level}"), terms, &SystemEntropy::new()).unwrap();
    }
    issue(&issuer, id)
}

/// A leaf that vouches for itself.
fn self_signed(id: &str) -> Identity {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, id);
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    Identity::from_pem(params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

async fn attempt(device: &Device) -> Result<rehome::client::RegistrationUpdate, ClientFault> {
    in_time(device.register(&ClientFacts::default(), Patience::Tries(1), |_| ())).await
}

/// Callers who prove nothing: what they present, and what the audit log says of it.
fn unproven(plant: &Authority, solo: &Issued) -> Vec<(&'static str, Option<Identity>, &'static str)> {
    let with = |issued: &Issued| Some(identity_of(issued));
    let (stranger, namesake) = (authority("strangers"), authority("plant"));
    let good = issue(plant, "dev-1");
    let broken_chain = format!("{}{GARBAGE_PEM}", good.certificate_pem());
    vec![
        ("nothing", None, "no client certificate was presented"),
        ("expired", with(&issue_from(plant, "expired", -10, 5 * DAY)), "the leaf has expired"),
        ("early", with(&issue_from(plant, "early", 10, 5 * DAY)), "the leaf is not valid yet"),
        ("foreign", with(&issue(&stranger, "foreign")), "no enrollment refers to the presented certificates"),
        ("namesake", with(&issue(&namesake, "namesake")), "a signature was not made by the issuer's key"),
        ("other", with(&good), "the leaf's common name is not the registration id"),
        ("deep", with(&issue_below(plant, "deep", 5)), "more than 4 intermediates stand between leaf and anchor"),
        ("deeper", with(&issue_below(plant, "deeper", 6)), "more than 6 certificates were presented"),
        ("alone", Some(self_signed("alone")), "no enrollment refers to the presented certificates"),
        ("solo", Some(self_signed("solo")), "the leaf is neither the primary nor the secondary certificate"),
        ("solo", with(&issue(plant, "solo")), "the leaf is neither the primary nor the secondary certificate"),
        ("unknown", with(solo), "no enrollment refers to the presented certificates"),
        ("dev-1", Some(Identity::from_pem(broken_chain, good.key_pem())), "a certificate is not well-formed DER"),
    ]
}

#[tokio::test]
async fn who_proves_nothing_is_told_nothing_and_the_audit_log_everything() {
    let world = World::start().await;
    let plant = authority("plant");
    world.enroll(&group("plant", &plant)).await;
    let solo = issue(&authority("workshop"), "solo");
    world.enroll(&individual("solo", &solo)).await;
    let records = world.records().await;
    let mut told = Vec::new();

    for (id, identity, why) in unproven(&plant, &solo) {
        let audited = world.audit().await.len();
        let caller = world.site.caller_as(id, identity).await;
        let fault = refusal(attempt(&caller).await);

        assert_eq!(fault.code, Code::Unauthenticated, "{why}");
        assert_eq!(fault.known_reason(), Some(Reason::RegistrationRefused), "{why}");
        assert_eq!(fault.retry_after, None, "{why}");
        assert_eq!(fault.metadata.len(), 1, "{why}: {fault:?}");
        let tracking: TrackingId = fault.metadata["tracking_id"].parse().unwrap();
        let entry = world.operator.audit_entry(tracking).await.unwrap().entry;
        assert!(entry.detail.contains(why), "{id}: {}", entry.detail);
        assert_eq!(entry.action, AuditAction::RegistrationRefused);
        assert_eq!(entry.registration, Some(registration_id(id)));
        assert_eq!(world.audit().await.len(), audited + 1, "{why}");
        told.push(fault.message);
        // Asking is as little use as registering.
        assert_eq!(reason(caller.look_up().await), Some(Reason::RegistrationRefused), "{why}");
    }

    told.dedup();
    assert_eq!(told.len(), 1, "everybody is told the same: {told:?}");
    assert_eq!(world.records().await, records);
    // Those who are enrolled register all the same, from the address of those who were refused.
    let dev_1 = world.site.device("dev-1", &issue(&plant, "dev-1")).await;
    assert_eq!(outcome(&attempt(&dev_1).await.unwrap()).0, "hub-a");
    let deepest = world.site.device("dev-2", &issue_below(&plant, "dev-2", 4)).await;
    assert_eq!(outcome(&attempt(&deepest).await.unwrap()).0, "hub-a");
    assert_eq!(outcome(&attempt(&world.site.device("solo", &solo).await).await.unwrap()).0, "hub-a");
    world.stop().await;
}

#[tokio::test]
async fn who_is_proven_but_disabled_is_told_so() {
    let world = World::start().await;
    let enrollment = world.enroll(&world.site.group()).await.draft.id;
    let member = world.registered("dev-1").await;
    let blocked = world.site.issue("dev-2");
    world.enroll(&EnrollmentDraft { enabled: false, ..individual("dev-2", &blocked) }).await;

    // One device is kept out of an enabled group by its own, disabled enrollment.
    let outcome_of = |outcome: Result<_, ClientFault>| match outcome {
        Err(ClientFault::NotAssigned { status, .. }) => format!("{status:?}"),
        Err(fault) => format!("{:?}", fault.remote().and_then(RemoteFault::known_reason)),
        Ok(update) => format!("{update:?}"),
    };
    let disabled = [format!("{:?}", UpdateStatus::Disabled), format!("{:?}", Some(Reason::EnrollmentDisabled))];
    let told = outcome_of(attempt(&world.site.device("dev-2", &blocked).await).await);
    assert!(disabled.contains(&told), "{told}");
    assert!(!world.is_at("hub-a", "dev-2").await);
    attempt(&member.device).await.unwrap();

    // A whole group.
    world.operator.disable_enrollment(&enrollment, None).await.unwrap();
    let before = world.twin("hub-a", "dev-1").await;
    for id in ["dev-1", "dev-3"] {
        let issued = world.site.issue(id);
        let told = outcome_of(attempt(&world.site.device(id, &issued).await).await);
        assert!(disabled.contains(&told), "{id}: {told}");
        // Unproven, one is told nothing, disabled or not.
        let stranger = world.site.caller_as(id, None).await;
        assert_eq!(reason(attempt(&stranger).await), Some(Reason::RegistrationRefused), "{id}");
    }
    assert_eq!(world.twin("hub-a", "dev-1").await, before);
    assert!(!world.is_at("hub-a", "dev-3").await);
    world.operator.enable_enrollment(&enrollment, None).await.unwrap();
    attempt(&member.device).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let world = World::start().await;
    let stale = world.enroll(&world.site.group()).await;
    world.registered("dev-1").await;
    world.allot(&stale.draft.id, "hub-a").await;
    let records = world.records().await;
    let (hubs, twin) = (world.operator.list_hubs().await.unwrap(), twin_at("hub-a", "dev-1"));
    let operator = &world.operator;
    let wrong = Some(Version(99));
    let patch = TwinPatch { desired: Some(document(r#"{"rate":5}"#)), ..TwinPatch::default() };
    let disabled = HubStatus::Disabled { reason: String::new() };
    let some = document(r#"{"rate":5}"#);
    let id = registration_id("dev-1");
    let mismatch = Some(Reason::EtagMismatch);

    assert_eq!(reason(operator.update_enrollment(&stale.draft, stale.version).await), mismatch);
    assert_eq!(reason(operator.disable_enrollment(&stale.draft.id, Some(stale.version)).await), mismatch);
    assert_eq!(reason(operator.delete_enrollment(&stale.draft.id, Some(stale.version)).await), mismatch);
    assert_eq!(reason(operator.update_hub(&hubs[0].draft, Version(99)).await), mismatch);
    assert_eq!(reason(operator.drain_hub(&hubs[0].draft.id, wrong).await), mismatch);
    assert_eq!(reason(operator.unlink_hub(&hubs[0].draft.id, wrong, true).await), mismatch);
    assert_eq!(reason(operator.update_twin(&twin, &patch, wrong).await), mismatch);
    assert_eq!(reason(operator.replace_twin(&twin, Some(&some), Some(&some), wrong).await), mismatch);
    assert_eq!(reason(operator.update_device_status(&twin, &disabled, wrong).await), mismatch);
    assert_eq!(reason(operator.delete_registration(&id, wrong).await), mismatch);
    assert_eq!(reason(operator.unpin(&id, wrong).await), mismatch);

    assert_eq!(world.records().await, records);
    assert_eq!(world.operator.list_hubs().await.unwrap(), hubs);
    world.stop().await;
}

/// A document of about so many bytes, in strings that are each short enough.
fn large(bytes: usize) -> Document {
    let text = "x".repeat(1000);
    let parts = (0..bytes.div_ceil(1000)).map(|number| format!(r#""k{number}":"{text}""#)).collect::<Vec<_>>();
    document(&format!("{{{}}}", parts.join(",")))
}

/// A document of so many levels.
fn deep(levels: usize) -> Document {
    document(&format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)))
}

#[tokio::test]
async fn a_twin_keeps_within_its_limits() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    let home = member.home().await;
    let at = twin_at("hub-a", "dev-1");
    let tags = |tags: Document| TwinPatch { tags: Some(tags), ..TwinPatch::default() };
    let desired = |desired: Document| TwinPatch { desired: Some(desired), ..TwinPatch::default() };
    let before = world.twin("hub-a", "dev-1").await;
    let invalid = Some(Reason::TwinInvalid);
    let forbidden = [r#"{"a.b":1}"#, r#"{"$a":1}"#, r#"{"a b":1}"#, r#"{"a":{"b\u0007":1}}"#].map(document);
    let odd = [r#"{"a":[1,null]}"#, r#"{"a":4503599627370496}"#].map(document);
    let long = document(&format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)));

    for patch in [desired(large(33_000)), tags(large(9_000)), desired(deep(12)), tags(deep(12)), desired(long)] {
        assert_eq!(reason(world.operator.update_twin(&at, &patch, None).await), invalid);
    }
    for bad in forbidden.iter().chain(&odd) {
        assert_eq!(reason(world.operator.update_twin(&at, &desired(bad.clone()), None).await), invalid, "{bad:?}");
        assert_eq!(reason(world.operator.replace_twin(&at, Some(bad), None, None).await), invalid, "{bad:?}");
        assert_eq!(reason(home.report(bad).await), invalid, "{bad:?}");
        let initial = InitialState { desired: bad.clone(), ..InitialState::default() };
        let draft = EnrollmentDraft { initial, ..individual("dev-9", &world.site.issue("dev-9")) };
        assert_eq!(reason(world.operator.create_enrollment(&draft).await), invalid, "{bad:?}");
    }
    for report in [large(33_000), deep(12)] {
        assert_eq!(reason(home.report(&report).await), invalid);
    }
    assert_eq!(world.twin("hub-a", "dev-1").await, before);

    // As much as fits is taken.
    home.report(&large(30_000)).await.unwrap();
    world.operator.update_twin(&at, &desired(deep(9)), None).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    world.registered("dev-1").await;
    let records = world.records().await;
    let operator = &world.operator;
    let nowhere = twin_at("hub-x", "dev-1");
    let unlinked = Some(Reason::HubNotFound);

    assert_eq!(reason(operator.hub(&hub_id("hub-x")).await), unlinked);
    assert_eq!(reason(operator.take_down_hub(&hub_id("hub-x")).await), unlinked);
    assert_eq!(reason(operator.twin(&nowhere).await), unlinked);
    let patch = TwinPatch { tags: Some(document(r#"{"a":1}"#)), ..TwinPatch::default() };
    assert_eq!(reason(operator.update_twin(&nowhere, &patch, None).await), unlinked);
    assert_eq!(reason(operator.list_twins(&hub_id("hub-x"), PageChoice::default()).await), unlinked);
    let draft = individual("dev-9", &world.site.issue("dev-9"));
    let draft = EnrollmentDraft { hubs: vec![hub_id("hub-x")], ..draft };
    assert_eq!(reason(operator.create_enrollment(&draft).await), unlinked);
    let mut call = ReprovisionCall {
        registration: registration_id("dev-1"),
        to: Some(hub_id("hub-x")),
        pin_expires_at: None,
        reason: String::new(),
        request_id: None,
    };
    assert_eq!(reason(operator.reprovision(&call).await), unlinked);
    call.registration = registration_id("dev-9");
    assert_eq!(reason(operator.reprovision(&call).await), Some(Reason::RegistrationNotFound));
    assert_eq!(reason(operator.registration(&call.registration).await), Some(Reason::RegistrationNotFound));
    let individual = EnrollmentId::Individual(registration_id("dev-9"));
    assert_eq!(reason(operator.enrollment(&individual).await), Some(Reason::EnrollmentNotFound));
    let at = twin_at("hub-a", "dev-9");
    assert_eq!(reason(operator.twin(&at).await), Some(Reason::TwinNotFound));
    assert_eq!(reason(operator.audit_entry(TrackingId(1)).await), Some(Reason::AuditEntryNotFound));

    assert_eq!(world.records().await, records);
    world.stop().await;
}

#[tokio::test]
async fn a_page_token_opens_its_own_listing_only() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    for id in ["dev-1", "dev-2", "dev-3"] {
        world.registered(id).await;
    }
    let operator = &world.operator;
    let page = |token: &str| PageChoice { size: 1, token: Some(token.to_owned()) };
    let first = PageChoice { size: 1, token: None };
    let all = RegistrationChoice::default();
    let at_hub = RegistrationChoice { hub: Some(hub_id("hub-a")), ..RegistrationChoice::default() };
    let of_registrations = operator.list_registrations(&all, first.clone()).await.unwrap().next.unwrap();
    let of_audit = operator.list_audit(None, None, first.clone()).await.unwrap().next.unwrap();
    let of_twins = operator.list_twins(&hub_id("hub-a"), first).await.unwrap().next.unwrap();
    let groups = rehome::client::EnrollmentKind::Group;
    let invalid = Some(Reason::InvalidPageToken);

    for token in ["x", "!", &of_audit, &of_twins] {
        assert_eq!(reason(operator.list_registrations(&all, page(token)).await), invalid, "{token}");
        assert_eq!(reason(operator.list_enrollments(groups, page(token)).await), invalid, "{token}");
    }
    for token in ["x", "!", &of_registrations, &of_twins] {
        assert_eq!(reason(operator.list_audit(None, None, page(token)).await), invalid, "{token}");
    }
    for token in ["!", &of_registrations, &of_audit] {
        assert_eq!(reason(operator.list_twins(&hub_id("hub-a"), page(token)).await), invalid, "{token}");
    }
    let long = page(&"A".repeat(5000));
    assert_eq!(reason(operator.list_registrations(&all, long).await), Some(Reason::InvalidArgument));
    assert_eq!(reason(operator.list_registrations(&at_hub, page(&of_registrations)).await), invalid);
    operator.list_registrations(&all, page(&of_registrations)).await.unwrap();
    operator.list_twins(&hub_id("hub-a"), page(&of_twins)).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_message_of_five_mebibytes_is_refused_and_the_connection_goes_on() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    let home = member.home().await;
    let before = world.twin("hub-a", "dev-1").await;
    let huge = document(&format!(r#"{{"a":"{}"}}"#, "x".repeat(5 << 20)));

    assert_eq!(reason(home.report(&huge).await), Some(Reason::MessageTooLarge));
    let facts = ClientFacts { payload: Some(huge.to_value()), ..ClientFacts::default() };
    let outcome = in_time(member.device.register(&facts, Patience::Tries(1), |_| ())).await;
    assert_eq!(reason(outcome), Some(Reason::MessageTooLarge));
    let patch = TwinPatch { tags: Some(huge), ..TwinPatch::default() };
    let outcome = world.operator.update_twin(&twin_at("hub-a", "dev-1"), &patch, None).await;
    assert_eq!(reason(outcome), Some(Reason::MessageTooLarge));

    assert_eq!(world.twin("hub-a", "dev-1").await, before);
    home.report(&document(r#"{"on":true}"#)).await.unwrap();
    attempt(&member.device).await.unwrap();
    world.stop().await;
}

/// TLS as a client that this crate does not have speaks it.
async fn handshake(site: &Site, identity: Option<(Vec<CertificateDer<'static>>, &Issued)>) -> TlsStream<TcpStream> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&site.roots_pem()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, signer)) => {
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&signer.key()).unwrap();
            builder
                .with_client_cert_resolver(Arc::new(Presenting(Arc::new(rustls::sign::CertifiedKey::new(chain, key)))))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(site.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Presents whatever it was given.
#[derive(Debug)]
struct Presenting(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Presenting {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn garbage_for_a_certificate_ends_its_own_connection_only() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let issued = world.site.issue("dev-1");
    let other = world.site.issue("dev-1");
    // No certificate at all, and one whose key the caller does not have.
    for chain in
        [vec![CertificateDer::from(GARBAGE.to_vec())], vec![CertificateDer::from(vec![])], other.chain().to_vec()]
    {
        let mut tls = handshake(&world.site, Some((chain, &issued))).await;
        // With TLS 1.3 the client learns only when it reads.
        let mut byte = [0];
        let read = in_time(tls.read(&mut byte)).await;
        assert!(!matches!(read, Ok(1..)), "{read:?}");
    }
    attempt(&world.site.device("dev-1", &issued).await).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn connections_that_stay_half_open_are_cut_off_and_disturb_nobody() {
    let world = World::start_with(|config| {
        config.limits.connections_max = 8;
        config.limits.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    world.enroll(&world.site.group()).await;
    let mut silent = Vec::new();
    for number in 0..24 {
        let mut stream = TcpStream::connect(world.site.address).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a TLS record, and no more.
            stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        }
        silent.push(stream);
    }
    // More than there are places for: they are served once the silent ones are out.
    let member = world.registered("dev-1").await;
    member.home().await.report(&document(r#"{"on":true}"#)).await.unwrap();
    for mut stream in silent {
        let mut byte = [0; 64];
        // A TLS alert may come first.
        in_time(async { while !matches!(stream.read(&mut byte).await, Ok(0) | Err(_)) {} }).await;
    }
    // The same with TLS, and nothing after it.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(handshake(&world.site, None).await);
    }
    world.registered("dev-2").await;
    for mut tls in silent {
        let mut byte = [0; 64];
        in_time(async { while !matches!(tls.read(&mut byte).await, Ok(0) | Err(_)) {} }).await;
    }
    world.stop().await;
}

#[track_caller]
fn told<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Option<Reason> {
    RemoteFault::from(&outcome.unwrap_err()).known_reason()
}

#[tokio::test]
async fn a_device_reaches_its_own_twin_and_registration_only() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let member = world.registered("dev-1").await;
    world.registered("dev-2").await;
    let before = world.records().await;
    let (certificate, key) = (member.issued.certificate_pem(), member.issued.key_pem());
    let channel = world.site.channel(Some((certificate.as_bytes(), key.as_bytes()))).await;
    let mut twins = TwinServiceClient::new(channel);
    let refused = Some(Reason::CallerUnauthenticated);

    for (hub_id, device_id) in
        [("hub-a", "dev-2"), ("hub-b", "dev-1"), ("hub-b", "dev-2"), ("hub-a", "dev-9"), ("hub-x", "dev-1")]
    {
        let (hub_id, device_id) = (hub_id.to_owned(), device_id.to_owned());
        let request = hub::GetTwinRequest { hub_id: hub_id.clone(), device_id: device_id.clone() };
        let by_read = told(twins.get_twin(request).await);
        let request = hub::WatchDesiredRequest { hub_id: hub_id.clone(), device_id: device_id.clone() };
        let by_watch = told(twins.watch_desired(request).await);
        let patch = Some(prost_types::Struct::default());
        let request = hub::UpdateReportedRequest { hub_id: hub_id.clone(), device_id: device_id.clone(), patch };
        let by_report = told(twins.update_reported(request).await);
        assert_eq!([by_read, by_watch, by_report], [refused; 3], "{hub_id} {device_id}");
    }
    let posing = world.site.device("dev-2", &member.issued).await;
    assert_eq!(reason(posing.look_up().await), Some(Reason::RegistrationRefused));
    assert_eq!(reason(attempt(&posing).await), Some(Reason::RegistrationRefused));

    assert_eq!(world.records().await, before);
    member.home().await.twin().await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_role_at_one_hub_ends_at_that_hub() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    world.registered("dev-1").await;
    let operators = Authority::load(&world.site.paths.operator_ca).unwrap();
    let terms = Terms::starting(SystemClock.now(), HOUR);
    let connect = async |grants: &[RoleGrant]| {
        let issued = operators.issue_operator("back end", grants, terms, &SystemEntropy::new()).unwrap();
        Operator::connect(&world.site.target(Some(identity_of(&issued)))).await.unwrap()
    };
    let here = connect(&[RoleGrant { role: Role::Backend, hub: Some(hub_id("hub-a")) }]).await;
    let there = connect(&[RoleGrant { role: Role::Backend, hub: Some(hub_id("hub-b")) }]).await;
    let at = twin_at("hub-a", "dev-1");
    let patch = TwinPatch { tags: Some(document(r#"{"a":1}"#)), ..TwinPatch::default() };

    let before = world.twin("hub-a", "dev-1").await;
    assert_eq!(reason(there.twin(&at).await), Some(Reason::RoleNotAllowed));
    assert_eq!(reason(there.update_twin(&at, &patch, None).await), Some(Reason::RoleNotAllowed));
    assert_eq!(world.twin("hub-a", "dev-1").await, before);
    assert_eq!(reason(here.list_hubs().await), Some(Reason::RoleNotAllowed), "a back end is no operator");
    here.update_twin(&at, &patch, None).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn certificates_that_cannot_vouch_for_a_device_are_not_enrolled() {
    let world = World::start().await;
    let before = world.records().await;
    let operators = Authority::load(&world.site.paths.operator_ca).unwrap();
    let leaf = world.site.issue("dev-1");
    let with = |primary: Vec<u8>, draft: EnrollmentDraft| EnrollmentDraft {
        attestation: AttestationDraft::X509 { primary, secondary: None },
        ..draft
    };
    let invalid = Reason::InvalidArgument;
    let cases = [
        ("the operators' authority", group("plant", &operators), Reason::CertificateInUse),
        ("a leaf as an authority", with(leaf.chain()[0].to_vec(), world.site.group()), invalid),
        ("an authority as a leaf", with(operators.certificate().to_vec(), individual("dev-1", &leaf)), invalid),
        ("another device's leaf", individual("dev-2", &leaf), invalid),
        ("garbage", with(GARBAGE.to_vec(), world.site.group()), invalid),
        ("nothing", with(Vec::new(), world.site.group()), invalid),
    ];
    for (case, draft, expected) in cases {
        assert_eq!(reason(world.operator.create_enrollment(&draft).await), Some(expected), "{case}");
    }
    assert_eq!(world.records().await, before);
    world.enroll(&world.site.group()).await;
    assert_eq!(reason(world.operator.create_enrollment(&world.site.group()).await), Some(Reason::AlreadyExists));
    world.stop().await;
}
