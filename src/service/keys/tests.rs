//! Enrollments by symmetric keys, as edges see them.

use std::time::Duration;

use futures_util::StreamExt;

use crate::attestation::sas;
use crate::attestation::symmetric_key::{KEY_NAME, device_key};
use crate::domain::token::{UnsignedToken, hub_resource, registration_resource};
use crate::domain::*;
use crate::service::samples::*;
use crate::service::{AuditFilter, Config, DeviceView, PageRequest, Peer};

const MINUTE: Duration = Duration::from_secs(60);

fn key(byte: u8) -> TokenKey {
    TokenKey::new(&[byte; 32]).unwrap()
}

fn keys(id: EnrollmentId, primary: Option<TokenKey>, secondary: Option<TokenKey>) -> EnrollmentDraft {
    let attestation = AttestationDraft::SymmetricKey { primary, secondary };
    EnrollmentDraft { attestation, ..draft(id, Vec::new(), &["a"]) }
}

fn lamps() -> EnrollmentId {
    EnrollmentId::Group(GroupId::parse("lamps").unwrap())
}

/// Hubs `a` and `b`, a device `dev-1` with keys 1 and 2, and a group with keys 11 and 12.
async fn world() -> World {
    let world = World::with(Config {
        refuse_after: Duration::ZERO,
        id_scope: Some("0ne00AB".parse().unwrap()),
        ..Config::default()
    });
    world.link("a").await;
    world.link("b").await;
    for draft in [keys(individual_id("dev-1"), Some(key(1)), Some(key(2))), keys(lamps(), Some(key(11)), Some(key(12)))]
    {
        world.service.create_enrollment(draft, BY).await.unwrap();
    }
    world
}

fn token(signer: &TokenKey, scope: &str, id: &str) -> String {
    let unsigned = UnsignedToken::new(&registration_resource(scope, &reg_id(id)), NOW.plus(MINUTE));
    sas::sign(&unsigned, signer, Some(KEY_NAME))
}

fn bearer(token: &str) -> Peer {
    Peer::new(peer(None).address, Evidence::Token(PresentedToken::new(token).unwrap()))
}

async fn register(world: &World, token: &str, id: &str) -> Result<DeviceView, Fault> {
    let registering = world.service.register(&bearer(token), &ask(id)).await?;
    let mut views: Vec<_> = world.service.follow(registering).collect().await;
    views.pop().unwrap()
}

async fn check(world: &World, signer: &TokenKey, id: &str, expected: Result<&str, &str>) {
    match (register(world, &token(signer, "rehome", id), id).await, expected) {
        (Ok(view), Ok(status)) => assert_eq!(view.standing.operation.status.as_str(), status, "{id}"),
        (Err(fault), Err(why)) => {
            assert_eq!(fault.reason, Reason::RegistrationRefused, "{id}: {fault}");
            assert_eq!(world.reason_of(&fault).await, why, "{id}");
        }
        (found, expected) => panic!("{id}: {found:?} in place of {expected:?}"),
    }
}

const NOBODY: &str = "no enrollment has a key that signed the token, and it is of no registration that was made lately";
const UNSIGNED: &str = "it was not signed with the device's key";

#[tokio::test]
async fn devices_register_with_their_own_keys_and_with_keys_of_their_group() {
    let world = world().await;
    check(&world, &key(1), "dev-1", Ok("assigned")).await;
    check(&world, &key(2), "DEV-1", Ok("assigned")).await;
    check(&world, &device_key(&key(11), "lamp-1"), "lamp-1", Ok("assigned")).await;
    check(&world, &device_key(&key(12), "lamp-1"), "lamp-1", Ok("assigned")).await;
    check(&world, &device_key(&key(11), "lamp-2"), "Lamp-2", Ok("assigned")).await;
    let own = world.service.look_up(&bearer(&token(&key(1), "0ne00ab", "dev-1")), &reg_id("dev-1")).await.unwrap();
    assert_eq!(own.standing.assignment.unwrap().hub, hub_id("a"));
}

#[tokio::test]
async fn strangers_and_strange_tokens_are_refused() {
    let world = world().await;
    check(&world, &key(3), "dev-1", Err(UNSIGNED)).await;
    check(&world, &key(1), "dev-2", Err(NOBODY)).await;
    check(&world, &key(11), "lamp-1", Err(NOBODY)).await;
    check(&world, &device_key(&key(11), "lamp-1"), "lamp-2", Err(NOBODY)).await;
    // Its own enrollment stands before the group.
    check(&world, &device_key(&key(11), "dev-1"), "dev-1", Err(UNSIGNED)).await;
    let signed = |resource: &str, ends: Timestamp, name: Option<&str>| {
        sas::sign(&UnsignedToken::new(resource, ends), &key(1), name)
    };
    let (soon, own) = (NOW.plus(MINUTE), "rehome/registrations/dev-1");
    for (token, why) in [
        ("nonsense".to_owned(), "it does not start with SharedAccessSignature"),
        (signed("other/registrations/dev-1", soon, None), "it is for something else"),
        (signed("a.rehome.local/devices/dev-1", soon, None), "it is for something else"),
        (signed(own, NOW, None), "it has expired"),
        (signed(own, NOW.plus(Duration::from_secs(2 * 86_400)), None), "it expires later than tokens may"),
        (signed(own, soon, Some("owner")), "it names another key than registration"),
    ] {
        let fault = register(&world, &token, "dev-1").await.unwrap_err();
        assert_eq!(
            (fault.reason, world.reason_of(&fault).await.as_str()),
            (Reason::RegistrationRefused, why),
            "{token}"
        );
    }
    let certified = world.device("dev-1");
    let fault = world.register(&certified, "dev-1").await.unwrap_err();
    assert_eq!(fault.reason, Reason::RegistrationRefused, "a certificate is no key");
}

#[tokio::test]
async fn a_token_opens_no_enrollment_by_certificate() {
    let world = world().await;
    let device = world.device("dev-9");
    let enrolled = draft(individual_id("dev-9"), device.chain()[0].to_vec(), &[]);
    world.service.create_enrollment(enrolled, BY).await.unwrap();
    let refused = "the enrollment asks for a certificate";
    check(&world, &device_key(&key(11), "dev-9"), "dev-9", Err(refused)).await;
}

#[tokio::test]
async fn who_is_disabled_is_told_so_and_stands_before_its_group() {
    let world = world().await;
    let disable = async |id: EnrollmentId| world.service.set_enrollment_enabled(&id, false, None, BY).await.unwrap();
    let lamp = device_key(&key(11), "lamp-1");
    check(&world, &lamp, "lamp-1", Ok("assigned")).await;
    disable(individual_id("dev-1")).await;
    check(&world, &key(1), "dev-1", Ok("disabled")).await;
    check(&world, &device_key(&key(11), "dev-1"), "dev-1", Err(UNSIGNED)).await;
    // A device of the group is blocked by an enrollment of its own, whatever that asks for.
    let mut blocking = keys(individual_id("lamp-2"), None, None);
    blocking.enabled = false;
    world.service.create_enrollment(blocking, BY).await.unwrap();
    check(&world, &device_key(&key(11), "lamp-2"), "lamp-2", Err(UNSIGNED)).await;
    disable(lamps()).await;
    check(&world, &lamp, "lamp-1", Ok("disabled")).await;
    check(&world, &device_key(&key(12), "lamp-3"), "lamp-3", Ok("disabled")).await;
}

#[tokio::test]
async fn a_revoked_device_of_a_group_is_told_that_it_is_disabled() {
    let world = world().await;
    let lamp = device_key(&key(11), "lamp-1");
    check(&world, &lamp, "lamp-1", Ok("assigned")).await;
    world.service.revoke(&reg_id("lamp-1"), "stolen", BY).await.unwrap();
    check(&world, &lamp, "lamp-1", Ok("disabled")).await;
    check(&world, &device_key(&key(11), "lamp-2"), "lamp-2", Ok("assigned")).await;
}

#[tokio::test]
async fn a_device_signs_in_at_its_hub_with_the_same_keys() {
    let world = world().await;
    check(&world, &key(1), "dev-1", Ok("assigned")).await;
    let device = DeviceId::parse("dev-1").unwrap();
    let read = async |signer: &TokenKey, host: &str| {
        let token = sas::sign(&UnsignedToken::new(&hub_resource(host, &device), NOW.plus(MINUTE)), signer, None);
        world.service.own_twin(&bearer(&token).evidence, &hub_id("a"), &device).await.map(drop).map_err(|it| it.reason)
    };
    for (signer, host, expected) in [
        (1, "a.rehome.local", Ok(())),
        (2, "A.Rehome.Local", Ok(())),
        (2, "a", Ok(())),
        (3, "a.rehome.local", Err(Reason::CallerUnauthenticated)),
        (1, "b.rehome.local", Err(Reason::CallerUnauthenticated)),
    ] {
        assert_eq!(read(&key(signer), host).await, expected, "{signer} {host}");
    }
    // The operator rolls one key: its hub takes the new one from the next registration on, and the old one no more.
    let stored = world.service.enrollment(&individual_id("dev-1")).await.unwrap();
    let rolled = keys(individual_id("dev-1"), Some(key(3)), None);
    world.service.update_enrollment(rolled, stored.version, BY).await.unwrap();
    check(&world, &key(1), "dev-1", Err(UNSIGNED)).await;
    assert_eq!(read(&key(1), "a").await, Ok(()), "until it registers again");
    check(&world, &key(2), "dev-1", Ok("assigned")).await;
    assert_eq!(read(&key(1), "a").await, Err(Reason::CallerUnauthenticated));
    assert_eq!((read(&key(2), "a").await, read(&key(3), "a").await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn keys_are_drawn_where_none_are_given_and_stay_where_none_are_named() {
    let world = world().await;
    let shown = async |id: &EnrollmentId| world.service.enrollment_keys(id, BY).await.unwrap();
    let id = individual_id("dev-2");
    let made = world.service.create_enrollment(keys(id.clone(), None, Some(key(4))), BY).await.unwrap();
    let first = shown(&id).await;
    assert_eq!((first.primary.secret().len(), &first.secondary), (64, &key(4)));
    assert_eq!(world.service.keys_of(&made), Some(first.clone()));
    let mut changed = keys(id.clone(), None, None);
    changed.enabled = false;
    let updated = world.service.update_enrollment(changed, made.version, BY).await.unwrap();
    assert_eq!((shown(&id).await, updated.enabled), (first.clone(), false));
    let rolled = keys(id.clone(), Some(key(5)), None);
    world.service.update_enrollment(rolled, updated.version, BY).await.unwrap();
    assert_eq!(shown(&id).await, KeyPair { primary: key(5), secondary: key(4) });

    let certified = world.device("dev-3");
    let other = draft(individual_id("dev-3"), certified.chain()[0].to_vec(), &[]);
    world.service.create_enrollment(other, BY).await.unwrap();
    let none = world.service.enrollment_keys(&individual_id("dev-3"), BY).await.unwrap_err();
    assert_eq!(none.reason, Reason::NoSymmetricKeys);
    let filter = AuditFilter { action: Some(AuditAction::EnrollmentKeysShown), ..AuditFilter::default() };
    let entries = world.service.audit_entries(&filter, &PageRequest { size: 10, token: None }).await.unwrap();
    assert_eq!(entries.rows.len(), 3, "each time they were shown, and never else");
}

#[tokio::test]
async fn a_groups_key_is_its_alone_and_groups_by_keys_are_bounded() {
    let world = world().await;
    let group = |number: usize| EnrollmentId::Group(GroupId::parse(&format!("g{number}")).unwrap());
    let create = async |draft| world.service.create_enrollment(draft, BY).await.map(drop).map_err(|fault| fault.reason);
    assert_eq!(create(keys(group(0), Some(key(12)), None)).await, Err(Reason::KeyInUse));
    assert_eq!(create(keys(individual_id("dev-4"), Some(key(4)), Some(key(12)))).await, Err(Reason::KeyInUse));
    assert_eq!(create(keys(individual_id("dev-4"), Some(key(4)), Some(key(4)))).await, Ok(()));
    for number in 1..limits::KEY_GROUPS_MAX {
        assert_eq!(create(keys(group(number), None, None)).await, Ok(()), "{number}");
    }
    assert_eq!(create(keys(group(0), None, None)).await, Err(Reason::InvalidArgument));
    let stored = world.service.enrollment(&lamps()).await.unwrap();
    let same = keys(lamps(), None, None);
    assert!(world.service.update_enrollment(same, stored.version, BY).await.is_ok(), "one that is there may change");
    check(&world, &device_key(&key(12), "lamp-1"), "lamp-1", Ok("assigned")).await;
}

#[tokio::test]
async fn an_import_takes_keys_and_knows_them_again() {
    use crate::service::Imported;
    let world = world().await;
    let import = async |drafts: Vec<EnrollmentDraft>| {
        world.service.import_enrollments(drafts.into_iter().map(Ok).collect(), true, BY).await.unwrap()
    };
    let both =
        || vec![keys(individual_id("dev-5"), Some(key(5)), Some(key(6))), keys(individual_id("dev-6"), None, None)];
    assert_eq!(import(both()).await, [Imported::Created, Imported::Created]);
    assert_eq!(import(both()).await, [Imported::Exists { differs: false }, Imported::Exists { differs: false }]);
    let other = keys(individual_id("dev-5"), Some(key(7)), None);
    assert_eq!(import(vec![other]).await, [Imported::Exists { differs: true }]);
    check(&world, &key(6), "dev-5", Ok("assigned")).await;
}

#[tokio::test]
async fn a_device_behind_the_address_of_a_stranger_is_heard_with_the_token_it_showed_before() {
    let world = World::with(Config { refuse_after: Duration::ZERO, refusals_per_peer: 3, ..Config::default() });
    world.link("a").await;
    world.service.create_enrollment(keys(lamps(), Some(key(11)), Some(key(12))), BY).await.unwrap();
    let lamp = token(&device_key(&key(11), "lamp-1"), "rehome", "lamp-1");
    register(&world, &lamp, "lamp-1").await.unwrap();
    let mut last = None;
    for number in 0..9 {
        let id = format!("x{number}");
        last = register(&world, &token(&key(3), "rehome", &id), &id).await.err().map(|fault| fault.reason);
    }
    assert_eq!(last, Some(Reason::RateLimited));
    assert!(register(&world, &lamp, "lamp-1").await.is_ok());
    let other = token(&device_key(&key(11), "lamp-2"), "rehome", "lamp-2");
    assert_eq!(register(&world, &other, "lamp-2").await.unwrap_err().reason, Reason::RateLimited);
    // What was shown before is judged as anything else.
    let stored = world.service.enrollment(&lamps()).await.unwrap();
    world.service.update_enrollment(keys(lamps(), Some(key(13)), Some(key(14))), stored.version, BY).await.unwrap();
    assert_eq!(register(&world, &lamp, "lamp-1").await.unwrap_err().reason, Reason::RegistrationRefused);
}

#[tokio::test]
async fn a_groups_key_takes_over_nothing_that_another_proof_made() {
    let world = world().await;
    world.enroll_group(&["a"]).await;
    let meter = world.device("meter-1");
    let before = world.register(&meter, "meter-1").await.unwrap().standing;
    let stolen = device_key(&key(11), "meter-1");
    let why = "the registration stands under group meters, which a group's key does not replace";
    check(&world, &stolen, "meter-1", Err(why)).await;
    let peeked = world.service.look_up(&bearer(&token(&stolen, "rehome", "meter-1")), &reg_id("meter-1")).await;
    assert_eq!(peeked.unwrap_err().reason, Reason::RegistrationRefused);
    // A disabled group writes nothing on it either.
    world.service.set_enrollment_enabled(&lamps(), false, None, BY).await.unwrap();
    check(&world, &stolen, "meter-1", Err(why)).await;
    let after = world.service.look_up(&peer(Some(&meter)), &reg_id("meter-1")).await.unwrap().standing;
    assert_eq!(after, before);
    // Once the other enrollment is gone, the device may come by its key.
    world.service.set_enrollment_enabled(&lamps(), true, None, BY).await.unwrap();
    world.service.delete_enrollment(&group_id(), None, BY).await.unwrap();
    check(&world, &stolen, "meter-1", Ok("assigned")).await;
}

#[tokio::test]
async fn a_disabled_group_writes_nothing_on_what_another_group_decided() {
    let world = world().await;
    let other = EnrollmentId::Group(GroupId::parse("other").unwrap());
    world.service.create_enrollment(keys(other.clone(), Some(key(21)), Some(key(22))), BY).await.unwrap();
    let own = device_key(&key(11), "lamp-1");
    check(&world, &own, "lamp-1", Ok("assigned")).await;
    let look = async || world.service.look_up(&bearer(&token(&own, "rehome", "lamp-1")), &reg_id("lamp-1")).await;
    let before = look().await.unwrap().standing;
    world.service.set_enrollment_enabled(&other, false, None, BY).await.unwrap();
    check(&world, &device_key(&key(21), "lamp-1"), "lamp-1", Ok("disabled")).await;
    assert_eq!(look().await.unwrap().standing, before);
}

#[tokio::test]
async fn an_operators_move_takes_the_keys_along_that_are_enrolled_by_then() {
    let world = world().await;
    let lamp = |master: u8| device_key(&key(master), "lamp-1");
    check(&world, &key(1), "dev-1", Ok("assigned")).await;
    check(&world, &lamp(11), "lamp-1", Ok("assigned")).await;
    for (id, new) in [(individual_id("dev-1"), [3, 4]), (lamps(), [13, 14])] {
        let stored = world.service.enrollment(&id).await.unwrap();
        let rolled = keys(id, Some(key(new[0])), Some(key(new[1])));
        world.service.update_enrollment(rolled, stored.version, BY).await.unwrap();
    }
    for (id, old, new) in [("dev-1", key(1), key(3)), ("lamp-1", lamp(11), lamp(14))] {
        let to = crate::service::PinRequest { hub: hub_id("b"), reason: String::new(), expires_at: None };
        world.service.reprovision(&reg_id(id), Some(to), None, BY).await.unwrap();
        let device = DeviceId::parse(id).unwrap();
        let read = async |signer: &TokenKey| {
            let unsigned = UnsignedToken::new(&hub_resource("b", &device), NOW.plus(MINUTE));
            let evidence = bearer(&sas::sign(&unsigned, signer, None)).evidence;
            world.service.own_twin(&evidence, &hub_id("b"), &device).await.map(drop).map_err(|it| it.reason)
        };
        while read(&new).await == Err(Reason::DeviceMoving)
            || world.service.record(&reg_id(id)).await.unwrap().assignment.is_none_or(|home| home.hub != hub_id("b"))
        {
            tokio::task::yield_now().await;
        }
        assert_eq!((read(&new).await, read(&old).await), (Ok(()), Err(Reason::CallerUnauthenticated)), "{id}");
    }
    let filter = AuditFilter { action: Some(AuditAction::EnrollmentUpdated), ..AuditFilter::default() };
    let entries = world.service.audit_entries(&filter, &PageRequest { size: 10, token: None }).await.unwrap();
    assert!(
        entries
            .rows
            .iter()
            .all(|row| row.entry.detail.contains("its primary key") && row.entry.detail.contains("its secondary key"))
    );
}

#[tokio::test]
async fn a_registration_by_key_that_changes_nothing_writes_nothing() {
    let world = world().await;
    let own = device_key(&key(11), "lamp-1");
    check(&world, &own, "lamp-1", Ok("assigned")).await;
    let version = async || world.service.record(&reg_id("lamp-1")).await.unwrap().version;
    let before = version().await;
    check(&world, &own, "lamp-1", Ok("assigned")).await;
    check(&world, &device_key(&key(12), "lamp-1"), "lamp-1", Ok("assigned")).await;
    assert_eq!(version().await, before);
}
