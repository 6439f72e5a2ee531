//! A device registers, lives, and is re-homed under each policy: what arrives with it, what stays behind, what it is told.

use rehome::client::{DesiredChange, DeviceEvent, Follow, Resolution, ResolveCall, TwinTarget, UndoCall};
use rehome::domain::{
    ApiVersion, Capabilities, ClientFacts, DeviceState, Document, EnrollmentDraft, EnrollmentId, HubStatus,
    InitialState, Order, Reason, ReprovisionPolicy, ResetOnSameHub, SubStatus, Timestamp, Twin,
};

use crate::world::{
    Member, World, document, hub_id, in_time, individual, outcome, reason, refusal, registration_id, twin_at,
};

const INITIAL_TAGS: &str = r#"{"site":"factory"}"#;
const INITIAL_DESIRED: &str = r#"{"rate":1,"alarm":{"on":true}}"#;

fn initial() -> InitialState {
    InitialState {
        tags: document(INITIAL_TAGS),
        desired: document(INITIAL_DESIRED),
        capabilities: Capabilities { iot_edge: true },
    }
}

/// dev-1 lives at hub-a, both sides have written into its twin, and the hub's back end keeps it out.
struct Lived {
    world: World,
    member: Member,
    enrollment: EnrollmentId,
    state: DeviceState,
}

impl Lived {
    async fn under(policy: Option<ReprovisionPolicy>) -> Self {
        Self::enrolled(|draft| draft.reprovision = policy).await
    }

    async fn enrolled(change: impl FnOnce(&mut EnrollmentDraft)) -> Self {
        let world = World::start().await;
        let mut group = EnrollmentDraft { initial: initial(), ..world.site.group() };
        change(&mut group);
        let enrollment = world.enroll(&group).await.draft.id;
        let member = world.registered("dev-1").await;
        let home = member.home().await;
        home.report(&document(r#"{"battery":{"level":80,"cell":"old"},"on":true}"#)).await.unwrap();
        home.report(&document(r#"{"battery":{"level":79,"cell":null}}"#)).await.unwrap();
        world.patch("hub-a", "dev-1", r#"{"site":"north","floor":2}"#, r#"{"rate":5,"alarm":{"tone":"low"}}"#).await;
        let out = HubStatus::Disabled { reason: "under repair".to_owned() };
        let record = world.operator.update_device_status(&twin_at("hub-a", "dev-1"), &out, None).await.unwrap();
        assert!(record.accepts_writes);
        Self { world, member, enrollment, state: record.state }
    }

    fn twin(&self) -> &Twin {
        &self.state.twin
    }

    /// The device is at that hub, lets writes in, and is nowhere else.
    async fn check_is_only_at(&self, hub: &str) -> DeviceState {
        self.world.settled("dev-1").await;
        let record = self.world.twin(hub, "dev-1").await;
        assert!(record.accepts_writes);
        let other = if hub == "hub-a" { "hub-b" } else { "hub-a" };
        let asked = self.world.operator.twin(&twin_at(other, "dev-1")).await;
        assert_eq!(reason(asked), Some(Reason::TwinNotFound), "{other}");
        record.state
    }
}

/// A twin that was set back: the initial one, with versions above the ones before.
#[track_caller]
fn check_is_reset(state: &DeviceState, before: &Twin) {
    assert_eq!(state.twin.tags, document(INITIAL_TAGS));
    assert_eq!(state.twin.desired.properties, document(INITIAL_DESIRED));
    assert_eq!(state.twin.reported.properties, Document::default());
    assert!(state.twin.desired.version > before.desired.version, "{:?}", state.twin);
    assert!(state.twin.reported.version > before.reported.version, "{:?}", state.twin);
    assert!(state.twin.version > before.version, "{:?}", state.twin);
    assert_eq!(state.capabilities, Capabilities { iot_edge: true });
    assert!(matches!(state.status, HubStatus::Disabled { .. }), "disabled survives a reset: {:?}", state.status);
}

#[tokio::test]
async fn migrate_carries_the_whole_device_state() {
    let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;
    // What the enrollment would give a new device now is no business of one that moves.
    let changed = InitialState { tags: document("{}"), desired: document("{}"), capabilities: Capabilities::default() };
    lived.world.change(&lived.enrollment, |draft| draft.initial = changed).await;
    lived.world.allot(&lived.enrollment, "hub-b").await;

    let update = lived.member.register().await;

    assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::DeviceDataMigrated));
    let state = lived.check_is_only_at("hub-b").await;
    // Properties, versions, the time of each property, capabilities, and that it is kept out and why.
    assert_eq!(state, lived.state);
    assert_eq!(state.twin.reported.metadata.properties["battery"].properties["level"].last_updated_version, 3);
    assert_eq!(state.twin.desired.metadata.properties["alarm"].properties["on"].last_updated_version, 1);
    lived.world.stop().await;
}

#[tokio::test]
async fn reset_gives_the_initial_twin_as_it_stands_now() {
    let lived = Lived::enrolled(|draft| {
        draft.reprovision = Some(ReprovisionPolicy::Reset);
        draft.initial = InitialState { desired: document(r#"{"rate":99}"#), ..InitialState::default() };
    })
    .await;
    lived.world.change(&lived.enrollment, |draft| draft.initial = initial()).await;
    lived.world.allot(&lived.enrollment, "hub-b").await;

    let update = lived.member.register().await;

    assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::DeviceDataReset));
    check_is_reset(&lived.check_is_only_at("hub-b").await, lived.twin());
    // What was left behind can still be read.
    let record = lived.world.settled("dev-1").await;
    let kept = lived.world.operator.history_twins(&record.id, record.assignment.unwrap().generation).await.unwrap();
    assert!(kept.iter().any(|kept| kept.device.state == lived.state), "{kept:?}");
    lived.world.stop().await;
}

#[tokio::test]
async fn reset_at_the_same_hub_is_a_factory_reset_in_place() {
    let lived = Lived::under(Some(ReprovisionPolicy::Reset)).await;

    let update = lived.member.register().await;

    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::DeviceDataReset));
    check_is_reset(&lived.check_is_only_at("hub-a").await, lived.twin());
    lived.world.stop().await;
}

#[tokio::test]
async fn reset_at_the_same_hub_can_be_off() {
    let lived = Lived::enrolled(|draft| {
        draft.reprovision = Some(ReprovisionPolicy::Reset);
        draft.reset_on_same_hub = ResetOnSameHub::Off;
    })
    .await;
    let update = lived.member.register().await;
    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::ReprovisionedToInitialAssignment));
    assert_eq!(lived.check_is_only_at("hub-a").await, lived.state);
    lived.world.stop().await;
}

/// The device stays, whatever allocation says; once it has been told so, saying it again writes nothing anywhere.
async fn check_stays(policy: Option<ReprovisionPolicy>, facts: ClientFacts) {
    let lived = Lived::under(policy).await;
    lived.world.allot(&lived.enrollment, "hub-b").await;
    let stays = ("hub-a".to_owned(), SubStatus::ReprovisionedToInitialAssignment);
    assert_eq!(outcome(&lived.member.register_with(&facts).await), stays);
    assert_eq!(lived.check_is_only_at("hub-a").await, lived.state);
    let before = (lived.world.files(), lived.world.audit().await, lived.world.records().await);

    let update = lived.member.register_with(&facts).await;

    assert_eq!(outcome(&update), stays);
    assert_eq!(lived.world.records().await, before.2);
    assert_eq!(lived.world.audit().await, before.1);
    let after = lived.world.files();
    for (path, bytes) in &before.0 {
        assert!(after.get(path) == Some(bytes), "{} was written", path.display());
    }
    lived.world.stop().await;
}

#[tokio::test]
async fn never_moves_nothing_and_writes_nothing() {
    check_stays(Some(ReprovisionPolicy::Never), ClientFacts::default()).await;
}

#[tokio::test]
async fn devices_from_before_native_support_are_sticky_where_no_policy_is_stored() {
    let old = ClientFacts { api_version: Some("2017-11-15".parse().unwrap()), ..ClientFacts::default() };
    check_stays(None, old).await;
}

#[tokio::test]
async fn newer_devices_migrate_where_no_policy_is_stored_and_older_ones_where_one_is() {
    let old: ApiVersion = "2017-11-15".parse().unwrap();
    let new: ApiVersion = "2019-03-31".parse().unwrap();
    for (policy, api_version) in [(None, new), (Some(ReprovisionPolicy::Migrate), old)] {
        let lived = Lived::under(policy).await;
        lived.world.allot(&lived.enrollment, "hub-b").await;
        let facts = ClientFacts { api_version: Some(api_version), ..ClientFacts::default() };
        let update = lived.member.register_with(&facts).await;
        assert_eq!(outcome(&update), ("hub-b".to_owned(), SubStatus::DeviceDataMigrated), "{api_version}");
        assert_eq!(lived.check_is_only_at("hub-b").await, lived.state);
        lived.world.stop().await;
    }
}

#[tokio::test]
async fn a_registration_that_changes_nothing_writes_nothing() {
    let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;
    let first = lived.member.register().await;
    lived.world.settled("dev-1").await;
    let (files, audit) = (lived.world.files(), lived.world.audit().await);
    for _ in 0..3 {
        assert_eq!(lived.member.register().await, first, "the recorded operation is answered");
    }
    assert_eq!(lived.world.audit().await, audit);
    assert!(lived.world.files() == files, "a file was written");
    lived.world.stop().await;
}

#[tokio::test]
async fn quarantine_pins_and_unpinning_brings_home() {
    let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;

    lived.world.send("dev-1", Some("hub-b"), "it floods its hub").await;

    assert_eq!(lived.check_is_only_at("hub-b").await, lived.state);
    let record = lived.world.settled("dev-1").await;
    let pin = record.pin.expect("a pin");
    assert_eq!((pin.hub, pin.reason.as_str()), (hub_id("hub-b"), "it floods its hub"));
    // Allocation says hub-a, the pin says hub-b: registering does not bring the device out of quarantine.
    assert_eq!(outcome(&lived.member.register().await).0, "hub-b");
    let mended = lived.world.patch("hub-b", "dev-1", r#"{"mended":true}"#, r#"{"rate":1}"#).await;

    lived.world.operator.unpin(&record.id, None).await.unwrap();
    let update = lived.member.register().await;

    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::DeviceDataMigrated));
    assert_eq!(lived.check_is_only_at("hub-a").await, mended.state);
    assert_eq!(lived.world.settled("dev-1").await.pin, None);
    let history = lived.world.operator.history(&record.id).await.unwrap();
    let ways: Vec<_> = history.iter().map(|entry| (entry.from.clone(), entry.to.clone())).collect();
    let (a, b) = (Some(hub_id("hub-a")), Some(hub_id("hub-b")));
    assert_eq!(ways, [(b.clone(), a.clone()), (a.clone(), b), (None, a)], "newest first");
    lived.world.stop().await;
}

fn undo(restore_twin: bool) -> UndoCall {
    UndoCall {
        registration: registration_id("dev-1"),
        generation: None,
        restore_twin,
        reason: "the new back end fails".to_owned(),
        pin_expires_at: None,
        request_id: None,
    }
}

#[tokio::test]
async fn a_move_is_undone_with_either_twin_and_the_other_is_in_the_history() {
    for restore_twin in [false, true] {
        let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;
        lived.world.send("dev-1", Some("hub-b"), "").await;
        lived.check_is_only_at("hub-b").await;
        let changed = lived.world.patch("hub-b", "dev-1", r#"{"changed":true}"#, r#"{"rate":9}"#).await.state;

        lived.world.operator.undo(&undo(restore_twin)).await.unwrap();

        let state = lived.check_is_only_at("hub-a").await;
        let record = lived.world.settled("dev-1").await;
        assert_eq!(record.pin.as_ref().map(|pin| pin.reason.as_str()), Some("the new back end fails"));
        let generation = record.assignment.unwrap().generation;
        let kept = lived.world.operator.history_twins(&record.id, generation).await.unwrap();
        assert_eq!(kept.iter().map(|kept| &kept.device.state.twin).collect::<Vec<_>>(), [&changed.twin]);
        if restore_twin {
            assert_eq!(state.twin.desired.properties, lived.state.twin.desired.properties);
            assert_eq!(state.twin.tags, lived.state.twin.tags);
            assert!(state.twin.desired.version > changed.twin.desired.version, "versions never go down");
        } else {
            assert_eq!(state, changed);
        }
        // Registering again does not send it to where it was sent.
        assert_eq!(outcome(&lived.member.register().await).0, "hub-a");
        lived.world.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_undone_or_resolved_says_why_and_changes_nothing() {
    let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;
    let operator = &lived.world.operator;
    let (files, audit) = (lived.world.files(), lived.world.audit().await);
    assert_eq!(reason(operator.undo(&undo(false)).await), Some(Reason::MoveNotFound), "its first home");
    let other = UndoCall { generation: Some(Order(1)), ..undo(false) };
    assert_eq!(reason(operator.undo(&other).await), Some(Reason::MoveStateConflict));
    let past = UndoCall { pin_expires_at: Some(Timestamp(1)), ..undo(false) };
    assert_eq!(reason(operator.undo(&past).await), Some(Reason::InvalidArgument));
    let resolve = ResolveCall {
        registration: registration_id("dev-1"),
        generation: Order(1),
        what: None,
        hub: None,
        resolution: Resolution::Retry,
        reason: "mended".to_owned(),
    };
    for (call, expected) in [
        (resolve.clone(), Reason::MoveNotFound),
        (ResolveCall { reason: String::new(), ..resolve.clone() }, Reason::InvalidArgument),
        (ResolveCall { what: Some("everything".to_owned()), ..resolve.clone() }, Reason::InvalidArgument),
        (ResolveCall { registration: registration_id("nobody"), ..resolve }, Reason::RegistrationNotFound),
    ] {
        assert_eq!(reason(operator.resolve(&call).await), Some(expected), "{call:?}");
    }
    let id = registration_id("dev-1");
    assert_eq!(reason(operator.forget_late_twin(&id, Order(1)).await), Some(Reason::MoveNotFound));
    assert!(lived.world.files() == files && lived.world.audit().await == audit, "something was written");
    lived.world.stop().await;
}

#[tokio::test]
async fn versions_never_go_down_on_a_long_journey() {
    let lived = Lived::under(Some(ReprovisionPolicy::Migrate)).await;
    let mut last = lived.state.clone();
    for (round, hub) in ["hub-b", "hub-a", "hub-b", "hub-a"].into_iter().enumerate() {
        lived.world.send("dev-1", Some(hub), "").await;
        let state = lived.check_is_only_at(hub).await;
        assert_eq!(state, last);
        last = lived.world.patch(hub, "dev-1", &format!(r#"{{"round":{round}}}"#), r#"{"rate":7}"#).await.state;
        assert_eq!(last.twin.desired.version, state.twin.desired.version + 1);
    }
    lived.world.stop().await;
}

async fn next(follow: &mut Follow) -> DeviceEvent {
    in_time(follow.next()).await.unwrap()
}

#[tokio::test]
async fn a_device_that_follows_is_told_that_it_moved_and_finds_its_new_home() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let issued = world.site.issue("dev-1");
    let device = world.site.device("dev-1", &issued).await;
    let mut follow = device.follow(ClientFacts::default());
    let DeviceEvent::Home(update) = next(&mut follow).await else { panic!("no home") };
    assert_eq!(outcome(&update), ("hub-a".to_owned(), SubStatus::InitialAssignment));
    assert!(matches!(next(&mut follow).await, DeviceEvent::Desired(DesiredChange::Whole { version: 1, .. })));
    let old_home = follow.home().unwrap().clone();
    follow.report(&document(r#"{"on":true}"#)).await.unwrap();
    world.patch("hub-a", "dev-1", "{}", r#"{"rate":5}"#).await;
    let patch = DesiredChange::Patch { patch: document(r#"{"rate":5}"#), version: 2 };
    assert_eq!(next(&mut follow).await, DeviceEvent::Desired(patch));

    world.send("dev-1", Some("hub-b"), "moving closer").await;

    assert!(matches!(next(&mut follow).await, DeviceEvent::Away { .. }));
    let DeviceEvent::Home(update) = next(&mut follow).await else { panic!("no home") };
    assert_eq!(outcome(&update).0, "hub-b");
    let whole = DesiredChange::Whole { desired: document(r#"{"rate":5}"#), version: 2 };
    assert_eq!(next(&mut follow).await, DeviceEvent::Desired(whole));
    world.settled("dev-1").await;
    let version = follow.report(&document(r#"{"on":false}"#)).await.unwrap();
    assert_eq!(version, 3, "one for the fresh twin, one before the move, one after it");
    // The old hub says that the device has moved; nothing is written there any more.
    let told = refusal(old_home.report(&document(r#"{"on":true}"#)).await);
    assert_eq!(told.known_reason(), Some(Reason::DeviceMoved));
    assert!(!world.is_at("hub-a", "dev-1").await);
    let reported = world.twin("hub-b", "dev-1").await.state.twin.reported;
    assert_eq!(reported.properties, document(r#"{"on":false}"#));
    drop((follow, old_home));
    world.stop().await;
}

#[tokio::test]
async fn two_devices_of_one_group_do_not_move_each_other() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let first = world.registered("dev-1").await;
    let second = world.registered("dev-2").await;
    let before = world.twin("hub-a", "dev-2").await;
    world.send("dev-1", Some("hub-b"), "").await;
    world.settled("dev-1").await;
    assert_eq!(world.twin("hub-a", "dev-2").await, before);
    assert_eq!(outcome(&first.register().await).0, "hub-b");
    assert_eq!(outcome(&second.register().await).0, "hub-a");
    world.stop().await;
}

#[tokio::test]
async fn a_device_that_rolls_its_certificate_is_let_in_with_the_new_one() {
    let world = World::start().await;
    let (old, new) = (world.site.issue("dev-1"), world.site.issue("dev-1"));
    let mut draft = individual("dev-1", &old);
    let rehome::domain::AttestationDraft::X509 { secondary, .. } = &mut draft.attestation else { panic!("{draft:?}") };
    *secondary = Some(new.chain()[0].to_vec());
    world.enroll(&draft).await;
    let before = Member { device: world.site.device("dev-1", &old).await, issued: old };
    let after = Member { device: world.site.device("dev-1", &new).await, issued: new };
    assert_eq!(outcome(&before.register().await), ("hub-a".to_owned(), SubStatus::InitialAssignment));
    assert_eq!(outcome(&after.register().await).0, "hub-a");
    world.settled("dev-1").await;
    for member in [&after, &before] {
        member.home().await.twin().await.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn a_group_device_that_comes_with_another_certificate_leaves_the_first_behind() {
    let world = World::start().await;
    world.enroll(&world.site.group()).await;
    let before = world.registered("dev-1").await;
    let home = before.home().await;
    home.twin().await.unwrap();
    let after = world.registered("dev-1").await;
    world.settled("dev-1").await;
    after.home().await.twin().await.unwrap();
    assert_eq!(reason(home.twin().await), Some(Reason::CallerUnauthenticated));
    world.stop().await;
}

#[tokio::test]
async fn many_devices_move_at_once_and_each_arrives_whole() {
    let world = World::start().await;
    let enrollment = world.enroll(&world.site.group()).await.draft.id;
    let names: Vec<String> = (0..16).map(|number| format!("dev-{number}")).collect();
    let members = futures_util::future::join_all(names.iter().map(|name| world.registered(name))).await;
    for (name, member) in names.iter().zip(&members) {
        let report = format!(r#"{{"name":"{name}"}}"#);
        member.home().await.report(&document(&report)).await.unwrap();
    }
    world.allot(&enrollment, "hub-b").await;
    let updates = futures_util::future::join_all(members.iter().map(Member::register)).await;
    for (name, update) in names.iter().zip(&updates) {
        assert_eq!(outcome(update), ("hub-b".to_owned(), SubStatus::DeviceDataMigrated));
        world.settled(name).await;
        let TwinTarget { device, .. } = twin_at("hub-b", name);
        let record = world.twin("hub-b", name).await;
        assert_eq!(record.device, device);
        assert_eq!(record.state.twin.reported.properties, document(&format!(r#"{{"name":"{name}"}}"#)));
        assert!(!world.is_at("hub-a", name).await);
    }
    world.stop().await;
}
