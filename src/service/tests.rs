//! The service as edges see it.

use std::time::Duration;

use futures_util::StreamExt;

use super::samples::*;
use super::*;
use crate::domain::hub::HubEvent;
use crate::domain::*;
use crate::hubs::entry::EffectKind;
use crate::store::redb::{self, Hooks, RedbStore};

fn reason<T: fmt::Debug>(outcome: Result<T, Fault>) -> Reason {
    outcome.unwrap_err().reason
}

fn home(view: &DeviceView) -> &str {
    view.standing.assignment.as_ref().unwrap().hub.as_str()
}

#[tokio::test]
async fn a_device_is_assigned_and_can_look_itself_up() {
    let world = World::new().await;
    let device = world.device("dev-1");
    let view = world.register(&device, "dev-1").await.unwrap();
    assert_eq!(view.standing.operation.status.as_str(), "assigned");
    assert_eq!((home(&view), view.home.as_ref().unwrap().host_name.as_str()), ("a", "a.rehome.local"));

    let again = world.register(&device, "DEV-1").await.unwrap();
    assert_eq!(again.standing.operation.id, view.standing.operation.id);

    let (peer, id) = (peer(Some(&device)), reg_id("dev-1"));
    assert_eq!(home(&world.service.look_up(&peer, &id).await.unwrap()), "a");
    let operation = view.standing.operation.id;
    assert!(world.service.operation(&peer, &id, operation).await.is_ok());
    let other = world.service.operation(&peer, &id, OperationId(1)).await;
    assert_eq!(reason(other), Reason::OperationNotFound);
}

#[tokio::test]
async fn a_stream_tells_assigning_then_assigned_and_ends() {
    let world = World::new().await;
    let hold = world.hubs.hub(&hub_id("a")).hold(EffectKind::Create);
    let device = world.device("dev-1");
    let registering = world.service.register(&peer(Some(&device)), &ask("dev-1")).await.unwrap();
    let mut views = Box::pin(world.service.follow(registering));
    let first = views.next().await.unwrap().unwrap();
    assert_eq!(first.standing.operation.status, OperationStatus::Assigning);
    assert!(first.retry_after.is_some());
    hold.reached().await;
    let joined = world.service.register(&peer(Some(&device)), &ask("dev-1")).await.unwrap();
    assert_eq!(joined.view.standing.operation.id, first.standing.operation.id);
    hold.release();
    let mut last = first;
    while let Some(view) = views.next().await {
        last = view.unwrap();
    }
    assert_eq!(last.standing.operation.status.as_str(), "assigned");
}

#[tokio::test]
async fn an_unproven_caller_is_told_one_thing_and_the_audit_log_the_truth() {
    let world = World::new().await;
    let (own, stranger) = (world.device("dev-1"), world.authority("strangers"));
    let namesake = world.authority("devices");
    let issue = |authority: &crate::pki::Authority, id: &str| {
        authority.issue_device(&reg_id(id), terms(), world.entropy.as_ref()).unwrap()
    };
    let (foreign, forged) = (issue(&stranger, "dev-1"), issue(&namesake, "dev-1"));
    let garbage = Peer { evidence: Evidence::X509 { chain: vec![vec![1, 2, 3]] }, ..peer(None) };
    let too_long = Peer { evidence: Evidence::X509 { chain: vec![own.chain()[0].to_vec(); 7] }, ..peer(None) };
    let mut told = Vec::new();
    for (peer, id, why) in [
        (peer(None), "dev-1", "no client certificate was presented"),
        (peer(Some(&foreign)), "dev-1", "no enrollment refers to the presented certificates"),
        (peer(Some(&forged)), "dev-1", "a signature was not made by the issuer's key"),
        (peer(Some(&own)), "dev-2", "the leaf's common name is not the registration id"),
        (garbage, "dev-1", "a certificate is not well-formed DER"),
        (too_long, "dev-1", "more than 6 certificates were presented"),
    ] {
        let mut fault = world.service.register(&peer, &ask(id)).await.unwrap_err();
        assert_eq!(world.reason_of(&fault).await, why);
        fault.metadata.clear();
        told.push(fault);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert_eq!(told[0].reason, Reason::RegistrationRefused);
    assert_eq!(reason(world.service.look_up(&peer(None), &reg_id("dev-1")).await), Reason::RegistrationRefused);
}

#[tokio::test]
async fn certificates_out_of_date_are_refused() {
    let world = World::new().await;
    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    world.clock.advance(Duration::from_secs(2 * 86_400));
    let fault = world.register(&device, "dev-1").await.unwrap_err();
    assert_eq!(world.reason_of(&fault).await, "the leaf has expired");
    let twin = world.service.own_twin(&evidence(Some(&device)), &hub_id("a"), &DeviceId::parse("dev-1").unwrap()).await;
    assert_eq!(reason(twin), Reason::CallerUnauthenticated);
}

#[tokio::test]
async fn a_namesake_of_the_authority_does_not_stand_in_its_way() {
    let world = World::new().await;
    let namesake = world.authority("devices");
    let id = EnrollmentId::Group(GroupId::parse("a-namesake").unwrap());
    world.service.create_enrollment(draft(id, namesake.certificate().to_vec(), &["b"]), BY).await.unwrap();
    assert_eq!(home(&world.register(&world.device("dev-1"), "dev-1").await.unwrap()), "a");
    let other = namesake.issue_device(&reg_id("dev-2"), terms(), world.entropy.as_ref()).unwrap();
    assert_eq!(home(&world.register(&other, "dev-2").await.unwrap()), "b");
}

#[tokio::test]
async fn a_disabled_individual_blocks_its_device_inside_an_enabled_group() {
    let world = World::new().await;
    let (device, other) = (world.device("dev-1"), world.device("dev-2"));
    let mut blocking = draft(individual_id("dev-1"), device.chain()[0].to_vec(), &[]);
    blocking.enabled = false;
    world.service.create_enrollment(blocking, BY).await.unwrap();
    let view = world.register(&device, "dev-1").await.unwrap();
    assert_eq!(view.standing.operation.status, OperationStatus::Disabled);
    assert_eq!(home(&world.register(&other, "dev-2").await.unwrap()), "a");
}

#[tokio::test]
async fn refusals_are_limited_and_a_known_device_is_not() {
    let config = Config { refuse_after: Duration::ZERO, refusals_per_peer: 3, ..Config::default() };
    let world = World::with(config);
    world.link("a").await;
    world.enroll_group(&[]).await;
    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    for n in 0..3 {
        let refused = world.service.register(&peer(None), &ask(&format!("x{n}"))).await;
        assert_eq!(reason(refused), Reason::RegistrationRefused);
    }
    let limited = world.service.register(&peer(None), &ask("x9")).await.unwrap_err();
    assert_eq!((limited.reason, limited.retry_after.is_some()), (Reason::RateLimited, true));
    assert!(world.register(&device, "dev-1").await.is_ok());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(reason(world.service.register(&peer(None), &ask("x9")).await), Reason::RegistrationRefused);
}

#[tokio::test]
async fn enrollments_are_held_against_what_else_is_there() {
    let world = World::new().await;
    let device = world.device("dev-1");
    let leaf = || device.chain()[0].to_vec();
    let refused = async |draft: EnrollmentDraft| reason(world.service.create_enrollment(draft, BY).await);
    let other_group = || EnrollmentId::Group(GroupId::parse("other").unwrap());

    assert_eq!(refused(world.group_draft(&[])).await, Reason::AlreadyExists);
    let same_anchor = draft(other_group(), world.devices.certificate().to_vec(), &[]);
    assert_eq!(refused(same_anchor).await, Reason::CertificateInUse);
    let operators = draft(other_group(), world.operators.certificate().to_vec(), &[]);
    assert_eq!(refused(operators).await, Reason::CertificateInUse);
    assert_eq!(refused(draft(other_group(), leaf(), &[])).await, Reason::InvalidArgument);
    assert_eq!(refused(draft(individual_id("dev-2"), leaf(), &[])).await, Reason::InvalidArgument);
    assert_eq!(refused(draft(individual_id("dev-1"), vec![1, 2], &[])).await, Reason::InvalidArgument);
    assert_eq!(refused(draft(individual_id("dev-1"), leaf(), &["nowhere"])).await, Reason::HubNotFound);

    world.register(&device, "dev-1").await.unwrap();
    let second = world.device("dev-2");
    let mut claims = draft(individual_id("dev-2"), second.chain()[0].to_vec(), &[]);
    claims.device_id = Some(DeviceId::parse("dev-1").unwrap());
    assert_eq!(refused(claims).await, Reason::DeviceIdInUse);
}

#[tokio::test]
async fn enrollments_change_under_their_version() {
    let world = World::new().await;
    let service = &world.service;
    let webhook = |url: &str| {
        let (url, api_version) = (url.to_owned(), "2024-01-01".to_owned());
        Some(AllocationPolicy::Custom(WebhookPolicy { url, api_version }))
    };
    let stored = service.enrollment(&group_id()).await.unwrap();
    let changed = EnrollmentDraft {
        allocation: webhook("https://w.example/?code=secret"),
        reprovision: None,
        ..world.group_draft(&[])
    };
    let stored = service.update_enrollment(changed.clone(), stored.version, BY).await.unwrap();
    assert_eq!(stored.reprovision, None);
    let stale = service.update_enrollment(changed.clone(), Version(1), BY).await;
    assert_eq!(reason(stale), Reason::EtagMismatch);
    let masked = EnrollmentDraft { allocation: webhook("https://w.example/?****"), ..changed };
    let stored = service.update_enrollment(masked, stored.version, BY).await.unwrap();
    assert_eq!(stored.allocation, webhook("https://w.example/?code=secret"));

    let disabled = service.set_enrollment_enabled(&group_id(), false, Some(stored.version), BY).await.unwrap();
    assert_eq!((disabled.enabled, &disabled.allocation), (false, &stored.allocation));
    let unchanged = service.set_enrollment_enabled(&group_id(), false, None, BY).await.unwrap();
    assert_eq!(unchanged.version, disabled.version);
    assert_eq!(reason(service.delete_enrollment(&group_id(), Some(stored.version), BY).await), Reason::EtagMismatch);
    service.delete_enrollment(&group_id(), None, BY).await.unwrap();
    assert_eq!(reason(service.enrollment(&group_id()).await), Reason::GroupNotFound);
    assert_eq!(reason(service.enrollment(&individual_id("x")).await), Reason::EnrollmentNotFound);

    let page = PageRequest { size: 10, token: None };
    let entries = service.audit_entries(&AuditFilter::default(), &page).await.unwrap().rows;
    let actions: Vec<&str> = entries.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions[..3], ["enrollment_deleted", "enrollment_updated", "enrollment_updated"]);
    assert!(entries.iter().all(|row| row.entry.actor == BY && !row.entry.detail.contains("secret")));
}

#[tokio::test]
async fn hubs_follow_their_lifecycle() {
    let world = World::new().await;
    let (service, a, b) = (&world.service, hub_id("a"), hub_id("b"));
    assert_eq!(reason(service.link_hub(hub_draft("a"), BY).await), Reason::AlreadyExists);
    assert_eq!(reason(service.hub(&hub_id("c")).await), Reason::HubNotFound);
    assert_eq!(reason(service.step_hub(&a, HubEvent::Retire, None, BY).await), Reason::HubStateConflict);
    assert_eq!(reason(service.step_hub(&a, HubEvent::Drain, Some(Version(9)), BY).await), Reason::EtagMismatch);

    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    let in_use = service.unlink_hub(&a, None, false, BY).await.unwrap_err();
    assert_eq!(in_use.reason, Reason::HubInUse);
    assert!(in_use.metadata.contains(&("devices", "1".to_owned())), "{in_use:?}");

    let drained = service.step_hub(&a, HubEvent::Drain, None, BY).await.unwrap();
    assert_eq!((drained.hub.state, drained.used.homes), (HubState::Draining, 1));
    let group = service.enrollment(&group_id()).await.unwrap();
    service.update_enrollment(world.group_draft(&[]), group.version, BY).await.unwrap();
    let moved = world.register(&device, "dev-1").await.unwrap();
    assert_eq!(home(&moved), "b");

    let settings = HubDraft { weight: 7, ..hub_draft("b") };
    let kept = service.update_hub(settings, service.hub(&b).await.unwrap().hub.version, BY).await.unwrap();
    assert_eq!((kept.hub.weight, kept.hub.incarnation.is_some()), (7, true));
}

#[tokio::test]
async fn a_hub_that_was_forced_out_is_not_linked_again_over_the_devices_it_still_holds() {
    let world = World::new().await;
    let (service, a) = (&world.service, hub_id("a"));
    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    // Clean-up is over when nothing names the hub any more.
    while service.hub(&a).await.unwrap().used.moves > 0 {
        tokio::task::yield_now().await;
    }
    service.unlink_hub(&a, None, true, BY).await.unwrap();
    let refused = service.link_hub(hub_draft("a"), BY).await.unwrap_err();
    assert_eq!(refused.reason, Reason::HubStateConflict);
    assert!(refused.metadata.contains(&("devices", "1".to_owned())), "{refused:?}");
    assert_eq!(reason(service.hub(&a).await), Reason::HubNotFound);
}

#[tokio::test]
async fn a_hub_that_is_taken_down_is_away_until_it_is_brought_up() {
    let world = World::new().await;
    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    let (a, name) = (hub_id("a"), DeviceId::parse("dev-1").unwrap());
    let down = world.service.take_down_hub(&a, BY).await.unwrap();
    assert!(down.hub.taken_down && !down.reachable);
    assert_eq!(reason(world.service.twin(&a, &name).await), Reason::HubUnavailable);
    let up = world.service.bring_up_hub(&a, BY).await.unwrap();
    assert!(!up.hub.taken_down && up.reachable);
    assert!(world.service.twin(&a, &name).await.is_ok());
}

#[tokio::test]
async fn twins_are_for_their_device_and_for_back_ends() {
    let world = World::new().await;
    let (device, other) = (world.device("dev-1"), world.device("dev-2"));
    world.register(&device, "dev-1").await.unwrap();
    let (service, a, name) = (&world.service, hub_id("a"), DeviceId::parse("dev-1").unwrap());
    let own = service.own_twin(&evidence(Some(&device)), &a, &name).await.unwrap();
    assert_eq!(own.state.twin.desired.properties.to_text(), r#"{"rate":5}"#);
    for (who, hub) in
        [(evidence(Some(&other)), &a), (Evidence::None, &a), (evidence(Some(&device)), &hub_id("nowhere"))]
    {
        assert_eq!(reason(service.own_twin(&who, hub, &name).await), Reason::CallerUnauthenticated);
    }
    let patch = Document::from_text(r#"{"on":true}"#).unwrap();
    let reported = service.report(&evidence(Some(&device)), &a, &name, patch).await.unwrap();
    assert_eq!(reported.state.twin.reported.version, 2);

    let desired = || Some(Document::from_text(r#"{"rate":9}"#).unwrap());
    let write = || TwinWrite::Patch(TwinPatch { desired: desired(), ..TwinPatch::default() });
    let mut events = service.watch_desired(&evidence(Some(&device)), &a, &name).await.unwrap();
    assert!(matches!(events.recv().await, Some(DesiredEvent::Whole { version: 1, .. })));
    service.write_twin(&a, &name, Some(1), write()).await.unwrap();
    assert!(matches!(events.recv().await, Some(DesiredEvent::Patch { version: 2, .. })));
    assert_eq!(reason(service.write_twin(&a, &name, Some(1), write()).await), Reason::EtagMismatch);
    let bad = TwinPatch { desired: Document::from_text(r#"{"$x":1}"#).ok(), ..TwinPatch::default() };
    assert_eq!(reason(service.write_twin(&a, &name, None, TwinWrite::Patch(bad)).await), Reason::TwinInvalid);
    assert_eq!(reason(service.twin(&hub_id("nowhere"), &name).await), Reason::HubNotFound);
    assert_eq!(reason(service.list_twins(&a, 10, Some("bogus")).await), Reason::InvalidPageToken);
    assert_eq!(service.list_twins(&a, 10, None).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn an_operator_moves_pins_explains_and_looks_back() {
    let world = World::new().await;
    let (service, id) = (&world.service, reg_id("dev-1"));
    let device = world.device("dev-1");
    assert_eq!(reason(service.registration(&id).await), Reason::RegistrationNotFound);
    assert_eq!(reason(service.history(&id).await), Reason::RegistrationNotFound);
    world.register(&device, "dev-1").await.unwrap();

    let to = |hub: &str| Some(PinRequest { hub: hub_id(hub), reason: "quarantine".to_owned(), expires_at: None });
    assert_eq!(reason(service.reprovision(&id, to("nowhere"), None, BY).await), Reason::HubNotFound);
    service.reprovision(&id, to("b"), None, BY).await.unwrap();
    let moved = world.register(&device, "dev-1").await.unwrap();
    assert_eq!(home(&moved), "b");
    let own = service.own_twin(&evidence(Some(&device)), &hub_id("a"), &DeviceId::parse("dev-1").unwrap()).await;
    assert!(matches!(reason(own), Reason::DeviceMoved | Reason::DeviceMoving));

    let explained = service.explain(&id).await.unwrap();
    assert!(matches!(explained.explanation.decision.outcome, Outcome::Stay { .. }));
    assert_eq!(explained.pin.unwrap().by, BY);
    service.unpin(&id, None, BY).await.unwrap();
    let explained = service.explain(&id).await.unwrap();
    assert!(matches!(explained.explanation.decision.outcome, Outcome::Relocate { .. }));

    let history = service.history(&id).await.unwrap();
    let plans: Vec<&str> = history.iter().map(|episode| episode.plan).collect();
    assert_eq!(plans, ["relocate", "assign"]);
    let (device_id, states) = service.history_states(&id, history[0].generation).await.unwrap();
    assert_eq!((device_id.as_str(), states[0].hub.clone(), states[0].late), ("dev-1", Some(hub_id("a")), false));
    assert_eq!(reason(service.history_states(&id, Order(999)).await), Reason::TwinNotFound);

    let filter = RegistrationFilter { hub: Some(hub_id("b")), ..RegistrationFilter::default() };
    let page = PageRequest { size: 10, token: None };
    assert_eq!(service.registrations(&filter, &page).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_revoked_device_is_kept_out_and_a_deleted_one_may_come_back() {
    let world = World::new().await;
    let (service, id) = (&world.service, reg_id("dev-1"));
    let (device, other) = (world.device("dev-1"), world.device("dev-2"));
    world.register(&device, "dev-1").await.unwrap();
    world.register(&other, "dev-2").await.unwrap();

    let revoked = service.revoke(&id, "stolen", BY).await.unwrap();
    assert_eq!(revoked.enrollment, individual_id("dev-1"));
    let blocking = service.enrollment(&revoked.enrollment).await.unwrap();
    assert!(!blocking.enabled);
    let view = world.register(&device, "dev-1").await.unwrap();
    assert_eq!(view.standing.operation.status, OperationStatus::Disabled);
    assert_eq!(reason(service.revoke(&reg_id("nobody"), "", BY).await), Reason::RegistrationNotFound);

    let stale = service.delete_registration(&reg_id("dev-2"), Some(Version(99)), BY).await;
    assert_eq!(reason(stale), Reason::EtagMismatch);
    service.delete_registration(&reg_id("dev-2"), None, BY).await.unwrap();
    assert_eq!(home(&world.register(&other, "dev-2").await.unwrap()), "a");
}

#[tokio::test]
async fn operators_are_known_by_their_authority() {
    let world = World::empty();
    let operator = world.operator(&["rehome:role:operator"]);
    assert_eq!(world.service.operator(&evidence(Some(&operator))).unwrap().name(), BY);
    let device = world.device("dev-1");
    for who in [evidence(Some(&device)), Evidence::None, Evidence::X509 { chain: vec![vec![0]] }] {
        assert_eq!(reason(world.service.operator(&who)), Reason::CallerUnauthenticated);
    }
    world.clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(reason(world.service.operator(&evidence(Some(&operator)))), Reason::CallerUnauthenticated);
}

#[tokio::test]
async fn a_backup_is_read_in_parts_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(redb::Config::at(folder.path().join("store")), Hooks::default()).unwrap();
    let world = World::on(Arc::new(store), Config::default());
    world.link("a").await;
    // A hub that is copied after the store answers an error, so this also holds the order of the copies.
    let mut parts = Box::pin(world.service.back_up(BY).await.unwrap());
    assert_eq!(reason(world.service.back_up(BY).await.map(drop)), Reason::Overloaded);
    let (mut names, mut read, mut announced) = (Vec::new(), 0, 0);
    while let Some(part) = parts.next().await {
        match part.unwrap() {
            BackupPart::File { name, bytes, files_left } => {
                announced += bytes;
                names.push((name, files_left));
            }
            BackupPart::Chunk(bytes) => read += bytes.len() as u64,
            BackupPart::End { sha256 } => assert_eq!(sha256.len(), 32),
        }
    }
    assert_eq!(names, [("service.redb".to_owned(), 1), ("hub-a.redb".to_owned(), 0)]);
    assert_eq!(read, announced);
    drop(parts);
    assert_eq!(std::fs::read_dir(world.scratch()).unwrap().count(), 0);
    drop(world.service.back_up(BY).await.unwrap());
    assert_eq!(std::fs::read_dir(world.scratch()).unwrap().count(), 0);
}

/// What a reconcile of hub `a` tells of each device, and how it ended.
async fn reconciled(world: &World) -> (Vec<(String, Reinstatement)>, Option<Reason>) {
    let mut news = Box::pin(world.service.reconcile(None, false, BY).await.unwrap());
    let mut told = Vec::new();
    while let Some(one) = news.next().await {
        match one {
            Ok(ReconcileNews::Device(device)) => {
                assert!(device.seen_at.is_some(), "{device:?}");
                told.push((device.device.to_string(), device.became));
            }
            Ok(ReconcileNews::HubBegan { .. } | ReconcileNews::HubDone { .. }) => {}
            Ok(other @ (ReconcileNews::StoreBegan { .. } | ReconcileNews::StoreDone)) => panic!("{other:?}"),
            Err(fault) => return (told, Some(fault.reason)),
        }
    }
    told.sort();
    (told, None)
}

#[tokio::test]
async fn a_reconcile_that_ended_in_the_middle_is_run_again_and_the_audit_has_what_both_did() {
    let world = World::new().await;
    let (service, a) = (&world.service, hub_id("a"));
    let names = ["dev-1", "dev-2", "dev-3"];
    for name in names {
        world.register(&world.device(name), name).await.unwrap();
    }
    let hub = world.hubs.hub(&a);
    let mut copy = hub.snapshot();
    copy.remove(&DeviceId::parse("dev-3").unwrap());
    let write =
        |text: &str| TwinWrite::Patch(TwinPatch { tags: Document::from_text(text).ok(), ..TwinPatch::default() });
    for name in names {
        service.write_twin(&a, &DeviceId::parse(name).unwrap(), None, write(r#"{"seen":1}"#)).await.unwrap();
    }
    service.sync_hub(&a).await.unwrap();
    hub.restore(Incarnation(99), copy);
    hub.set_reinstates(Some(2));
    let (_, ended) = reconciled(&world).await;
    assert_eq!(ended, Some(Reason::HubUnavailable));
    hub.set_reinstates(None);
    let (told, ended) = reconciled(&world).await;
    assert_eq!(ended, None);
    assert_eq!(told.len(), 3, "all are told again, those that were set as they are now: {told:?}");
    for name in names {
        let twin = service.twin(&a, &DeviceId::parse(name).unwrap()).await.unwrap().state.twin;
        assert_eq!(twin.tags.to_text(), r#"{"seen":1}"#);
        assert!(twin.version > limits::VERSIONS_SKIPPED, "{name}");
    }
    let audit = service.audit_entries(&AuditFilter::default(), &PageRequest { size: 100, token: None }).await.unwrap();
    let said = |word: &str| audit.rows.iter().filter(|row| row.entry.detail.contains(word)).count();
    assert!(said("dev-1 replaced") > 0 && said("dev-2 replaced") > 0 && said("dev-3 recreated") > 0, "{audit:?}");
    assert_eq!(reconciled(&world).await, (Vec::new(), None));
}

/// A move was given up and its home opened again, while the other hub still owes a deletion: what the move had sealed is the
/// newest that is known.
#[tokio::test]
async fn what_an_open_move_has_sealed_counts_for_a_restored_hub() {
    let world = World::new().await;
    let (service, a, id) = (&world.service, hub_id("a"), reg_id("dev-1"));
    let name = DeviceId::parse("dev-1").unwrap();
    let device = world.device("dev-1");
    world.register(&device, "dev-1").await.unwrap();
    let copy = world.hubs.hub(&a).snapshot();
    let tags = Document::from_text(r#"{"sealed":1}"#).ok();
    service.write_twin(&a, &name, None, TwinWrite::Patch(TwinPatch { tags, ..TwinPatch::default() })).await.unwrap();
    let refuse = crate::hubs::scripted::ScriptedFault::Refuse(HubRefusal::Full);
    world.hubs.hub(&hub_id("b")).script(EffectKind::Create, refuse);
    let door = world.hubs.hub(&hub_id("b")).hold(EffectKind::Delete);
    let to = Some(PinRequest { hub: hub_id("b"), reason: "x".to_owned(), expires_at: None });
    service.reprovision(&id, to, None, BY).await.unwrap();
    door.reached().await;
    let opened = async {
        while world.hubs.hub(&a).phase(&name) != Some(crate::hubs::entry::Phase::Open) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
    world.hubs.hub(&a).restore(Incarnation(99), copy);
    let (told, ended) = reconciled(&world).await;
    assert_eq!((told, ended), (vec![("dev-1".to_owned(), Reinstatement::Replaced)], None));
    assert_eq!(service.twin(&a, &name).await.unwrap().state.twin.tags.to_text(), r#"{"sealed":1}"#);
    door.release();
}

#[tokio::test]
async fn a_twin_that_was_found_and_taken_over_is_read_from_the_history() {
    let world = World::new().await;
    world.register(&world.device("dev-1"), "dev-1").await.unwrap();
    let hub = world.hubs.hub(&hub_id("a"));
    let found = hub.entry(&DeviceId::parse("dev-1").unwrap()).unwrap();
    let state = found.tenant.as_ref().unwrap().state.clone();
    let name = DeviceId::parse("dev-2").unwrap();
    hub.place(&name, Some(found));

    world.register(&world.device("dev-2"), "dev-2").await.unwrap();
    let id = reg_id("dev-2");
    let history = world.service.history(&id).await.unwrap();
    let taken_over = history.iter().find(|episode| episode.plan == "take_over").unwrap();
    assert!(taken_over.has_state);
    let (device_id, states) = world.service.history_states(&id, taken_over.generation).await.unwrap();
    assert_eq!(device_id, name);
    let [kept] = &states[..] else { panic!("one state is kept: {states:?}") };
    assert_eq!((&kept.hub, kept.late, &kept.state.twin.desired), (&Some(hub_id("a")), false, &state.twin.desired));
}

#[tokio::test]
async fn a_certificate_of_an_enrollment_that_was_made_again_without_it_is_refused() {
    let world = World::new().await;
    let id = individual_id("dev-9");
    let issue = |authority: &str| {
        world.authority(authority).issue_device(&reg_id("dev-9"), terms(), world.entropy.as_ref()).unwrap()
    };
    let (old, new) = (issue("x"), issue("y"));
    let enroll = |device: &crate::pki::Issued| draft(id.clone(), device.chain()[0].to_vec(), &["a"]);
    let before = world.service.create_enrollment(enroll(&old), BY).await.unwrap();
    world.register(&old, "dev-9").await.unwrap();
    world.service.delete_enrollment(&id, None, BY).await.unwrap();
    let after = world.service.create_enrollment(enroll(&new), BY).await.unwrap();
    assert_eq!(before.version, after.version, "versions are counted anew");

    let fault = world.register(&old, "dev-9").await.unwrap_err();
    assert_eq!(fault.reason, Reason::RegistrationRefused);
    assert_eq!(
        world.reason_of(&fault).await,
        "the leaf is neither the primary nor the secondary certificate of the enrollment"
    );
    world.service.delete_registration(&reg_id("dev-9"), None, BY).await.unwrap();
    assert_eq!(reason(world.register(&old, "dev-9").await), Reason::RegistrationRefused);
    assert!(world.register(&new, "dev-9").await.is_ok());
}

#[tokio::test]
async fn a_device_of_an_authority_that_a_namesake_replaced_is_refused() {
    let world = World::empty();
    world.link("a").await;
    let (old, new) = (world.authority("fleet"), world.authority("fleet"));
    let enroll = |authority: &crate::pki::Authority| draft(group_id(), authority.certificate().to_vec(), &["a"]);
    let issue = |authority: &crate::pki::Authority, id: &str| {
        authority.issue_device(&reg_id(id), terms(), world.entropy.as_ref()).unwrap()
    };
    let before = world.service.create_enrollment(enroll(&old), BY).await.unwrap();
    let known = issue(&old, "dev-7");
    world.register(&known, "dev-7").await.unwrap();
    world.service.delete_enrollment(&group_id(), None, BY).await.unwrap();
    let after = world.service.create_enrollment(enroll(&new), BY).await.unwrap();
    assert_eq!(before.version, after.version, "versions are counted anew");

    for (device, id) in [(&known, "dev-7"), (&issue(&old, "dev-8"), "dev-8")] {
        let fault = world.register(device, id).await.unwrap_err();
        assert_eq!(fault.reason, Reason::RegistrationRefused, "{id}");
        assert_eq!(world.reason_of(&fault).await, "a signature was not made by the issuer's key", "{id}");
    }
    assert!(world.register(&issue(&new, "dev-7"), "dev-7").await.is_ok());
}
