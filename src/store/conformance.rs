//! The suite that every implementation of the port passes: what each expectation, change, index and page token means.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::samples::*;
use super::{
    AuditFilter, Change, Commit, CommitFault, DeviceFile, EnrollmentListing, Expect, HubUse, PageRequest,
    RegistrationFilter, StatusFilter, Store, StoreFault, Unexpected,
};
use crate::domain::*;
use crate::moves::{Carry, Effect, JournalRecord, Plan};

type Case = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

/// Every case, each to be run on an empty store.
pub const CASES: &[(&str, Case)] = &[
    ("enrollments are compared and set", |s| Box::pin(enrollments_are_compared_and_set(s))),
    ("hubs are compared and set", |s| Box::pin(hubs_are_compared_and_set(s))),
    ("registrations are compared and set", |s| Box::pin(registrations_are_compared_and_set(s))),
    ("every expectation that fails is named", |s| Box::pin(every_expectation_that_fails_is_named(s))),
    ("a commit happens whole or not at all", |s| Box::pin(a_commit_happens_whole_or_not_at_all(s))),
    ("neighbours of a failing commit are not affected", |s| Box::pin(neighbours_of_a_failure(s))),
    ("changes are judged one after the other", |s| Box::pin(changes_follow_each_other(s))),
    ("orders rise and are never reused", |s| Box::pin(orders_rise(s))),
    ("moves are opened, written, closed and forgotten", |s| Box::pin(the_life_of_a_move(s))),
    ("commits of a wrong shape are refused", |s| Box::pin(wrong_shapes(s))),
    ("a device id has one owner", |s| Box::pin(a_device_id_has_one_owner(s))),
    ("a certificate stands in one enrollment", |s| Box::pin(a_certificate_stands_in_one_enrollment(s))),
    ("groups are found by thumbprint and by issuer", |s| Box::pin(groups_are_found(s))),
    ("enrollments are listed by id", |s| Box::pin(enrollments_are_listed(s))),
    ("registrations are listed by every filter", |s| Box::pin(registrations_are_filtered(s))),
    ("a first assignment is listed while under way", |s| Box::pin(first_assignments_are_listed(s))),
    ("pages go on over changes", |s| Box::pin(pages_go_on_over_changes(s))),
    ("foreign page tokens are refused", |s| Box::pin(foreign_tokens(s))),
    ("audit entries are listed newest first", |s| Box::pin(audit_is_listed(s))),
    ("the use of a hub is counted", |s| Box::pin(hub_use_is_counted(s))),
    ("a hub is never filled beyond its capacity", |s| Box::pin(capacity_is_kept(s))),
    ("a used hub is not unlinked", |s| Box::pin(used_hubs_stay(s))),
    ("unfinished devices are those with an open move", |s| Box::pin(unfinished_devices(s))),
    ("deleted registrations leave their past", |s| Box::pin(the_past_outlives_a_registration(s))),
    ("records come back as they were written", |s| Box::pin(records_come_back(s))),
];

/// Runs every case on a store that `fresh` makes; what it returns beside the store is kept until the case has ended.
pub async fn check<K>(fresh: impl Fn() -> (Arc<dyn Store>, K)) {
    for (name, case) in CASES {
        let (store, keep) = fresh();
        if let Err(fault) = tokio::spawn(case(store)).await {
            panic!("{name}: {fault}");
        }
        drop(keep);
    }
}

async fn commit(store: &Arc<dyn Store>, all: impl IntoIterator<Item = Change>) -> Result<Order, CommitFault> {
    store.commit(changes(all)).await
}

async fn refused(store: &Arc<dyn Store>, all: impl IntoIterator<Item = Change>) -> Unexpected {
    match commit(store, all).await {
        Err(CommitFault::Unexpected(unexpected)) => unexpected,
        other => panic!("expected a failing expectation, found {other:?}"),
    }
}

async fn not_written(store: &Arc<dyn Store>, all: impl IntoIterator<Item = Change>) {
    let outcome = commit(store, all).await;
    assert!(matches!(outcome, Err(CommitFault::NotWritten(_))), "{outcome:?}");
}

async fn device(store: &Arc<dyn Store>, id: &str) -> DeviceFile {
    store.load_device(&reg_id(id)).await.unwrap()
}

async fn hub_use(store: &Arc<dyn Store>, id: &str) -> HubUse {
    store.hubs().await.unwrap().into_iter().find(|(hub, _)| hub.id.as_str() == id).unwrap().1
}

/// The ids of a listing, all pages of `size` after each other.
async fn ids(store: &Arc<dyn Store>, filter: &RegistrationFilter, size: u32) -> Vec<String> {
    let (mut ids, mut request) = (Vec::new(), page(size));
    loop {
        let page = store.list_registrations(filter, &request).await.unwrap();
        assert!(page.rows.len() <= size as usize);
        ids.extend(page.rows.iter().map(|file| super::listing::file_id(file).unwrap().as_str().to_owned()));
        match page.next {
            Some(token) => request.token = Some(token),
            None => return ids,
        }
    }
}

async fn enrollments_are_compared_and_set(store: Arc<dyn Store>) {
    let id = group_id("Site");
    let made = enrollment(id.clone(), 1);
    assert_eq!(store.load_enrollment(&id).await.unwrap(), None);
    commit(&store, [put_enrollment(made.clone())]).await.unwrap();
    let found = store.load_enrollment(&group_id("SITE")).await.unwrap().unwrap();
    assert_eq!(*found, Enrollment { version: Version(1), ..made.clone() });

    let twice = refused(&store, [put_enrollment(made.clone())]).await;
    assert_eq!(twice, Unexpected::Enrollment { id: id.clone(), expected: Version(0), found: Version(1) });
    commit(&store, [put_enrollment(Enrollment { enabled: false, ..(*found).clone() })]).await.unwrap();
    let found = store.load_enrollment(&id).await.unwrap().unwrap();
    assert_eq!((found.enabled, found.version), (false, Version(2)));

    let stale = refused(&store, [Change::DeleteEnrollment { id: id.clone(), version: Version(1) }]).await;
    assert_eq!(stale, Unexpected::Enrollment { id: id.clone(), expected: Version(1), found: Version(2) });
    not_written(&store, [Change::DeleteEnrollment { id: group_id("none"), version: Version::ABSENT }]).await;
    commit(&store, [Change::DeleteEnrollment { id: id.clone(), version: Version(2) }]).await.unwrap();
    assert_eq!(store.load_enrollment(&id).await.unwrap(), None);
    let gone = refused(&store, [put_enrollment((*found).clone())]).await;
    assert_eq!(gone, Unexpected::Enrollment { id, expected: Version(2), found: Version(0) });
}

async fn hubs_are_compared_and_set(store: Arc<dyn Store>) {
    commit(&store, [put_hub(hub("b")), put_hub(hub("a"))]).await.unwrap();
    let listed: Vec<String> = store.hubs().await.unwrap().iter().map(|(hub, _)| hub.id.as_str().to_owned()).collect();
    assert_eq!(listed, ["a", "b"]);
    let found = store.load_hub(&hub_id("a")).await.unwrap().unwrap();
    assert_eq!(found, Hub { version: Version(1), ..hub("a") });
    commit(&store, [put_hub(Hub { weight: 9, ..found })]).await.unwrap();
    let stale = refused(&store, [put_hub(Hub { version: Version(1), ..hub("a") })]).await;
    assert_eq!(stale, Unexpected::Hub { id: hub_id("a"), expected: Version(1), found: Version(2) });
    commit(&store, [Change::DeleteHub { id: hub_id("a"), version: Version(2) }]).await.unwrap();
    assert_eq!(store.load_hub(&hub_id("a")).await.unwrap(), None);
    let gone = refused(&store, [Change::DeleteHub { id: hub_id("a"), version: Version(2) }]).await;
    assert_eq!(gone, Unexpected::Hub { id: hub_id("a"), expected: Version(2), found: Version(0) });
    not_written(&store, [Change::DeleteHub { id: hub_id("a"), version: Version::ABSENT }]).await;
}

async fn registrations_are_compared_and_set(store: Arc<dyn Store>) {
    assert_eq!(device(&store, "d").await, DeviceFile::default());
    commit(&store, [put_registration(registration("Dev", Some("a")))]).await.unwrap();
    let found = device(&store, "dEV").await.registration.unwrap();
    assert_eq!(found, Registration { version: Version(1), ..registration("Dev", Some("a")) });
    assert_eq!(found.id.as_str(), "Dev");
    let twice = refused(&store, [put_registration(registration("DEV", None))]).await;
    assert_eq!(twice, Unexpected::Registration { id: reg_id("dev"), expected: Version(0), found: Version(1) });
    commit(&store, [put_registration(Registration { payload: None, ..found })]).await.unwrap();
    let past = Vec::new();
    let stale = Change::DeleteRegistration { id: reg_id("dev"), version: Version(1), past: past.clone() };
    assert!(matches!(refused(&store, [stale]).await, Unexpected::Registration { found: Version(2), .. }));
    let absent = Change::DeleteRegistration { id: reg_id("none"), version: Version::ABSENT, past: past.clone() };
    not_written(&store, [absent]).await;
    commit(&store, [Change::DeleteRegistration { id: reg_id("dev"), version: Version(2), past }]).await.unwrap();
    assert_eq!(device(&store, "dev").await, DeviceFile::default());
}

async fn every_expectation_that_fails_is_named(store: Arc<dyn Store>) {
    let individual = |text: &str| EnrollmentId::Individual(reg_id(text));
    let mut full = registration("lives-at-a", Some("a"));
    full.enrollment = group_id("g");
    commit(&store, [put_hub(hub("a")), put_enrollment(enrollment(individual("e"), 1)), put_registration(full)])
        .await
        .unwrap();
    let other = Registration { device_id: DeviceId::parse("lives-at-a").unwrap(), ..registration("other", None) };
    for (expect, change, fault) in [
        (
            Some(Expect::Enrollment { id: individual("e"), version: Version(2) }),
            None,
            Unexpected::Enrollment { id: individual("e"), expected: Version(2), found: Version(1) },
        ),
        (
            Some(Expect::Enrollment { id: individual("none"), version: Version(1) }),
            None,
            Unexpected::Enrollment { id: individual("none"), expected: Version(1), found: Version(0) },
        ),
        (
            Some(Expect::HubTakes { hub: hub_id("none"), capacity: None }),
            None,
            Unexpected::HubNotLinked { hub: hub_id("none") },
        ),
        (
            Some(Expect::HubTakes { hub: hub_id("a"), capacity: Some(1) }),
            None,
            Unexpected::HubFull { hub: hub_id("a") },
        ),
        (
            Some(Expect::HubUnused { hub: hub_id("a") }),
            None,
            Unexpected::HubInUse { hub: hub_id("a"), homes: 1, moves: 0 },
        ),
        (
            None,
            Some(put_registration(other.clone())),
            Unexpected::DeviceIdTaken { device: other.device_id.clone(), owner: reg_id("lives-at-a") },
        ),
        (
            None,
            Some(put_enrollment(enrollment(individual("thief"), 1))),
            Unexpected::CertificateTaken { owner: individual("e") },
        ),
        (None, Some(line("lives-at-a", Order(1), pivoted())), Unexpected::MoveNotOpen { generation: Order(1) }),
        (None, Some(Change::CloseMove { generation: Order(77) }), Unexpected::MoveNotOpen { generation: Order(77) }),
    ] {
        let outcome = store.commit(expecting(expect, changes(change))).await;
        assert_eq!(outcome, Err(CommitFault::Unexpected(fault)));
    }
    // The same expectations where they hold.
    let expect = [
        Expect::Enrollment { id: individual("e"), version: Version(1) },
        Expect::Enrollment { id: individual("none"), version: Version::ABSENT },
        Expect::HubTakes { hub: hub_id("a"), capacity: Some(2) },
        Expect::HubTakes { hub: hub_id("a"), capacity: None },
        Expect::HubUnused { hub: hub_id("b") },
    ];
    store.commit(expecting(expect, Commit::default())).await.unwrap();
}

async fn a_commit_happens_whole_or_not_at_all(store: Arc<dyn Store>) {
    let made = Commit {
        audit: vec![audit("one", None), audit("two", None)],
        ..changes([put_hub(hub("a")), put_registration(registration("d", Some("a"))), open("d", assign_to("a"))])
    };
    let order = store.commit(made.clone()).await.unwrap();
    let entries = store.list_audit(&AuditFilter::default(), &page(10)).await.unwrap().rows;
    let seen: Vec<_> = entries.iter().map(|row| (row.order, row.place, row.entry.detail.as_str())).collect();
    assert_eq!(seen, [(order, 1, "two"), (order, 0, "one")]);

    // Everything before the last change would hold.
    let failing = Commit {
        audit: vec![audit("never", None)],
        ..changes([
            put_hub(hub("b")),
            put_registration(registration("e", Some("b"))),
            open("e", assign_to("b")),
            Change::CloseMove { generation: order },
            put_enrollment(enrollment(group_id("g"), 1)),
            put_registration(registration("d", None)),
        ])
    };
    assert!(store.commit(failing).await.is_err());
    assert_eq!(device(&store, "e").await, DeviceFile::default());
    assert_eq!(device(&store, "d").await.open.len(), 1);
    assert_eq!(store.find_owner(&DeviceId::parse("e").unwrap()).await.unwrap(), None);
    assert_eq!(store.load_hub(&hub_id("b")).await.unwrap(), None);
    assert_eq!(store.load_enrollment(&group_id("g")).await.unwrap(), None);
    assert_eq!(store.load_move(Order(order.0 + 1)).await.unwrap(), None);
    assert_eq!(store.list_audit(&AuditFilter::default(), &page(10)).await.unwrap().rows.len(), 2);
    assert_eq!(hub_use(&store, "a").await, HubUse { homes: 1, arriving: 1, moves: 1 });
    assert_eq!(commit(&store, []).await, Ok(Order(order.0 + 1)));
}

async fn neighbours_of_a_failure(store: Arc<dyn Store>) {
    let commits = (0..60).map(|number| {
        let id = if number % 3 == 2 { "taken".to_owned() } else { format!("d-{number:02}") };
        store.commit(Commit {
            audit: vec![audit(&id, None)],
            ..changes([put_registration(registration(&id, Some("a")))])
        })
    });
    let outcomes = join_all(commits).await;
    let won: Vec<Order> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
    assert_eq!(won.len(), 41, "forty of their own, and one of the twenty that fight for a name");
    let mut distinct = won.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), won.len());
    assert_eq!(ids(&store, &RegistrationFilter::default(), 100).await.len(), 41);
    assert_eq!(store.list_audit(&AuditFilter::default(), &page(100)).await.unwrap().rows.len(), 41);
}

async fn changes_follow_each_other(store: Arc<dyn Store>) {
    commit(&store, [put_registration(registration("a", None)), put_enrollment(enrollment(group_id("a"), 1))])
        .await
        .unwrap();
    // The device id and the certificate are free once their owners are gone, in the same commit.
    let heir = Registration { device_id: DeviceId::parse("a").unwrap(), ..registration("b", None) };
    commit(
        &store,
        [
            Change::DeleteRegistration { id: reg_id("a"), version: Version(1), past: Vec::new() },
            put_registration(heir.clone()),
            Change::DeleteEnrollment { id: group_id("a"), version: Version(1) },
            put_enrollment(enrollment(group_id("b"), 1)),
            put_hub(hub("h")),
            put_hub(Hub { version: Version(1), weight: 3, ..hub("h") }),
        ],
    )
    .await
    .unwrap();
    assert_eq!(store.find_owner(&heir.device_id).await.unwrap(), Some(reg_id("b")));
    let found = store.load_hub(&hub_id("h")).await.unwrap().unwrap();
    assert_eq!((found.weight, found.version), (3, Version(2)));
    // Two that want the same in one commit are refused.
    let twins = [put_enrollment(enrollment(group_id("x"), 5)), put_enrollment(enrollment(group_id("y"), 5))];
    assert_eq!(refused(&store, twins).await, Unexpected::CertificateTaken { owner: group_id("x") });
    // The expectations look at what was before.
    let takes = [Expect::HubTakes { hub: hub_id("new"), capacity: None }];
    let outcome = store.commit(expecting(takes, changes([put_hub(hub("new"))]))).await;
    assert_eq!(outcome, Err(CommitFault::Unexpected(Unexpected::HubNotLinked { hub: hub_id("new") })));
    // A move can end and go in one commit.
    let generation = commit(&store, [open("b", assign_to("h"))]).await.unwrap();
    let end = [
        line("b", generation, aborted()),
        Change::CloseMove { generation },
        Change::ForgetMove { generation },
        Change::ForgetMove { generation },
    ];
    commit(&store, end).await.unwrap();
    assert_eq!(store.load_move(generation).await.unwrap(), None);
    assert_eq!(device(&store, "b").await.open, []);
}

async fn orders_rise(store: Arc<dyn Store>) {
    let first = commit(&store, []).await.unwrap();
    assert_eq!(first, Order(1));
    let made = commit(&store, [put_registration(registration("d", None)), open("d", assign_to("a"))]).await.unwrap();
    assert!(refused(&store, [put_registration(registration("d", None))]).await.to_string().contains("version"));
    let gone = commit(
        &store,
        [
            Change::DeleteRegistration { id: reg_id("d"), version: Version(1), past: Vec::new() },
            Change::CloseMove { generation: made },
            Change::ForgetMove { generation: made },
        ],
    )
    .await
    .unwrap();
    let again = commit(&store, [open("d", assign_to("a"))]).await.unwrap();
    assert!(first < made && made < gone && gone < again);
    assert_eq!(device(&store, "d").await.open[0].generation, again);
}

async fn the_life_of_a_move(store: Arc<dyn Store>) {
    let generation = commit(&store, [open("Dev", assign_to("a"))]).await.unwrap();
    let sealed = JournalRecord::StepDone { effect: Effect::Seal, state: Some(Box::new(device_state())) };
    let second = commit(&store, [line("dev", generation, sealed.clone())]).await.unwrap();
    let log = store.load_move(generation).await.unwrap().unwrap();
    assert_eq!((log.generation, log.registration.as_str()), (generation, "Dev"));
    assert_eq!(log.lines.iter().map(|line| line.order).collect::<Vec<_>>(), [generation, second]);
    assert_eq!(log.lines[1].record, sealed);
    assert_eq!(device(&store, "dev").await.open, std::slice::from_ref(&log));

    not_written(&store, [line("other", generation, pivoted())]).await;
    not_written(&store, [Change::ForgetMove { generation }]).await;
    commit(&store, [Change::CloseMove { generation }]).await.unwrap();
    let closed = Unexpected::MoveNotOpen { generation };
    assert_eq!(refused(&store, [Change::CloseMove { generation }]).await, closed);
    assert_eq!(refused(&store, [line("dev", generation, pivoted())]).await, closed);
    assert_eq!(device(&store, "dev").await.open, []);
    assert_eq!(store.load_move(generation).await.unwrap(), Some(log));

    // Two open moves come oldest first; another device's are not among them.
    let older = commit(&store, [open("dev", assign_to("a"))]).await.unwrap();
    commit(&store, [open("dev-2", assign_to("a"))]).await.unwrap();
    let newer = commit(&store, [open("dev", assign_to("b"))]).await.unwrap();
    let open: Vec<Order> = device(&store, "dev").await.open.iter().map(|log| log.generation).collect();
    assert_eq!(open, [older, newer]);

    commit(&store, [Change::ForgetMove { generation }]).await.unwrap();
    assert_eq!(store.load_move(generation).await.unwrap(), None);
    commit(&store, [Change::ForgetMove { generation }, Change::ForgetMove { generation: Order(999) }]).await.unwrap();
}

async fn wrong_shapes(store: Arc<dyn Store>) {
    let generation = commit(&store, [open("d", assign_to("a"))]).await.unwrap();
    let intent_line = JournalRecord::Intent(Box::new(intent(&reg_id("d"), assign_to("a"))));
    let without = Change::Journal { registration: reg_id("d"), generation: None, at: NOW, record: pivoted() };
    let foreign = Change::Journal { registration: reg_id("e"), generation: None, at: NOW, record: intent_line.clone() };
    not_written(&store, [open("x", assign_to("a")), open("y", assign_to("a"))]).await;
    not_written(&store, [line("d", generation, intent_line)]).await;
    not_written(&store, [without]).await;
    not_written(&store, [foreign]).await;
    assert_eq!(store.unfinished().await.unwrap(), [reg_id("d")]);
}

async fn a_device_id_has_one_owner(store: Arc<dyn Store>) {
    let device_id = |text: &str| DeviceId::parse(text).unwrap();
    let named = |id: &str, name: &str| Registration { device_id: device_id(name), ..registration(id, None) };
    commit(&store, [put_registration(named("a", "Name"))]).await.unwrap();
    // Device ids are compared with case.
    commit(&store, [put_registration(named("b", "name"))]).await.unwrap();
    assert_eq!(
        refused(&store, [put_registration(named("c", "Name"))]).await,
        Unexpected::DeviceIdTaken { device: device_id("Name"), owner: reg_id("a") }
    );
    commit(&store, [put_registration(Registration { version: Version(1), ..named("a", "Other") })]).await.unwrap();
    assert_eq!(store.find_owner(&device_id("Name")).await.unwrap(), None);
    commit(&store, [put_registration(named("c", "Name"))]).await.unwrap();
    let owner = store.find_owner(&device_id("Name")).await.unwrap().unwrap();
    assert_eq!(owner.as_str(), "c");
    assert_eq!(store.find_owner(&device_id("nobody")).await.unwrap(), None);
}

async fn a_certificate_stands_in_one_enrollment(store: Arc<dyn Store>) {
    let with = |id: EnrollmentId, first: u8, second: u8, version: u64| {
        let (primary, secondary) = (certificate(first, first), Some(certificate(second, second)));
        let attestation = Attestation::X509Leaf(X509Leaves { primary, secondary });
        put_enrollment(Enrollment { attestation, version: Version(version), ..enrollment(id, 0) })
    };
    let (one, two) = (EnrollmentId::Individual(reg_id("One")), EnrollmentId::Individual(reg_id("two")));
    commit(&store, [with(one.clone(), 1, 2, 0)]).await.unwrap();
    assert_eq!(
        refused(&store, [with(two.clone(), 3, 2, 0)]).await,
        Unexpected::CertificateTaken { owner: one.clone() }
    );
    // Rotation: a certificate that is given up is free again; one's own is no obstacle, even twice.
    commit(&store, [with(one.clone(), 2, 4, 1)]).await.unwrap();
    commit(&store, [with(two.clone(), 1, 1, 0)]).await.unwrap();
    commit(&store, [with(two.clone(), 1, 5, 1)]).await.unwrap();
    assert!(
        matches!(refused(&store, [with(one, 1, 4, 2)]).await, Unexpected::CertificateTaken { owner } if owner == two)
    );
}

async fn groups_are_found(store: Arc<dyn Store>) {
    let group = |id: &str, number: u8, subject: u8, second: Option<(u8, u8)>| {
        let secondary = second.map(|(number, subject)| certificate(number, subject));
        let attestation = Attestation::X509Ca(X509Anchors { primary: certificate(number, subject), secondary });
        put_enrollment(Enrollment { attestation, ..enrollment(group_id(id), 0) })
    };
    commit(&store, [group("b", 1, 100, Some((2, 101))), group("a", 3, 100, None), group("c", 4, 102, None)])
        .await
        .unwrap();
    commit(&store, [put_enrollment(enrollment(EnrollmentId::Individual(reg_id("i")), 9))]).await.unwrap();
    let link = |thumbprint: u8, issuer: u8| AnchorRef {
        thumbprint: Thumbprint([thumbprint; 32]),
        subject: Thumbprint([200; 32]),
        issuer: Thumbprint([issuer; 32]),
    };
    for (chain, expected) in [
        (vec![], vec![]),
        (vec![link(50, 50)], vec![]),
        (vec![link(4, 50)], vec!["c"]),
        (vec![link(50, 100)], vec!["a", "b"]),
        (vec![link(50, 101)], vec!["b"]),
        (vec![link(1, 100), link(2, 101)], vec!["a", "b"]),
        (vec![link(9, 9)], vec![]),
        (vec![link(50, 100), link(4, 50)], vec!["a", "b", "c"]),
    ] {
        let found = store.find_groups(&chain).await.unwrap();
        let mut found: Vec<String> = found.iter().map(|group| group.id.to_string()).collect();
        found.sort();
        let expected: Vec<String> = expected.iter().map(|id| format!("group {id}")).collect();
        assert_eq!(found, expected, "{chain:?}");
    }
    let c = Change::DeleteEnrollment { id: group_id("c"), version: Version(1) };
    let disabled = Enrollment { enabled: false, version: Version(1), ..enrollment(group_id("a"), 7) };
    commit(&store, [c, put_enrollment(disabled)]).await.unwrap();
    assert_eq!(store.find_groups(&[link(4, 102)]).await.unwrap().len(), 0);
    assert_eq!(store.find_groups(&[link(50, 100)]).await.unwrap().len(), 1);
    assert_eq!(store.find_groups(&[link(7, 50)]).await.unwrap().len(), 1);
}

async fn enrollments_are_listed(store: Arc<dyn Store>) {
    for (number, id) in ["d", "B", "c", "A", "e"].iter().enumerate() {
        let number = number as u8;
        let (group, individual) = (group_id(id), EnrollmentId::Individual(reg_id(&format!("i-{id}"))));
        commit(
            &store,
            [put_enrollment(enrollment(group, number)), put_enrollment(enrollment(individual, 100 + number))],
        )
        .await
        .unwrap();
    }
    for (listing, size, expected) in [
        (EnrollmentListing::Groups, 2, "group A,group B|group c,group d|group e"),
        (EnrollmentListing::Groups, 5, "group A,group B,group c,group d,group e"),
        (
            EnrollmentListing::Individuals,
            3,
            "individual i-A,individual i-B,individual i-c|individual i-d,individual i-e",
        ),
    ] {
        let (mut pages, mut request) = (Vec::new(), page(size));
        loop {
            let page = store.list_enrollments(listing, &request).await.unwrap();
            pages.push(page.rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>().join(","));
            match page.next {
                Some(token) => request.token = Some(token),
                None => break,
            }
        }
        assert_eq!(pages.join("|"), expected);
    }
}

async fn registrations_are_filtered(store: Arc<dyn Store>) {
    let group = |mut registration: Registration, id: &str| {
        registration.enrollment = group_id(id);
        registration
    };
    let with = |status: OperationStatus, mut registration: Registration| {
        registration.operation.status = status;
        registration
    };
    let all = [
        group(registration("a", Some("h")), "g"),
        group(Registration { policy: None, ..registration("B", Some("h")) }, "g"),
        Registration { pin: Some(pin("h")), ..registration("c", Some("h2")) },
        with(failed(), group(registration("d", None), "G")),
        with(OperationStatus::Disabled, registration("e", Some("h"))),
        Registration { policy: Some(ReprovisionPolicy::Never), ..group(registration("f", Some("h")), "gg") },
    ];
    commit(&store, all.map(put_registration)).await.unwrap();
    // f is on its way; a's move only owes clean-up.
    commit(&store, [open("f", Plan::Refresh { at: hub_id("h") })]).await.unwrap();
    let done = commit(&store, [open("a", Plan::Refresh { at: hub_id("h") })]).await.unwrap();
    commit(&store, [line("a", done, pivoted())]).await.unwrap();

    let none = RegistrationFilter::default();
    let hub = |id: &str| Some(hub_id(id));
    let site = |id: &str| GroupId::parse(id).ok();
    for (filter, expected) in [
        (none.clone(), "a B c d e f"),
        (RegistrationFilter { hub: hub("h"), ..none.clone() }, "a B e f"),
        (RegistrationFilter { hub: hub("h2"), ..none.clone() }, "c"),
        (RegistrationFilter { hub: hub("nowhere"), ..none.clone() }, ""),
        (RegistrationFilter { group: site("g"), ..none.clone() }, "a B d"),
        (RegistrationFilter { group: site("GG"), ..none.clone() }, "f"),
        (RegistrationFilter { status: Some(StatusFilter::Assigning), ..none.clone() }, "f"),
        (RegistrationFilter { status: Some(StatusFilter::Assigned), ..none.clone() }, "a B c"),
        (RegistrationFilter { status: Some(StatusFilter::Failed), ..none.clone() }, "d"),
        (RegistrationFilter { status: Some(StatusFilter::Disabled), ..none.clone() }, "e"),
        (RegistrationFilter { policy: Some(None), ..none.clone() }, "B"),
        (RegistrationFilter { policy: Some(Some(ReprovisionPolicy::Never)), ..none.clone() }, "f"),
        (RegistrationFilter { pinned: Some(true), ..none.clone() }, "c"),
        (RegistrationFilter { pinned: Some(false), ..none.clone() }, "a B d e f"),
        (RegistrationFilter { hub: hub("h"), status: Some(StatusFilter::Assigned), ..none.clone() }, "a B"),
        (RegistrationFilter { hub: hub("h"), group: site("g"), policy: Some(None), ..none.clone() }, "B"),
    ] {
        for size in [1, 2, 1000] {
            assert_eq!(ids(&store, &filter, size).await.join(" "), expected, "{filter:?} by {size}");
        }
    }
    // Records that change are found where they are now.
    let moved = device(&store, "a").await.registration.unwrap();
    let moved = with(failed(), Registration { assignment: registration("a", Some("h2")).assignment, ..moved });
    commit(
        &store,
        [
            put_registration(moved),
            Change::DeleteRegistration { id: reg_id("b"), version: Version(1), past: Vec::new() },
        ],
    )
    .await
    .unwrap();
    assert_eq!(ids(&store, &RegistrationFilter { hub: hub("h"), ..none.clone() }, 9).await.join(" "), "e f");
    assert_eq!(ids(&store, &RegistrationFilter { hub: hub("h2"), ..none.clone() }, 9).await.join(" "), "a c");
    assert_eq!(ids(&store, &RegistrationFilter { group: site("g"), ..none.clone() }, 9).await.join(" "), "a d");
    let status = |status| RegistrationFilter { status: Some(status), ..none.clone() };
    assert_eq!(ids(&store, &status(StatusFilter::Assigned), 9).await.join(" "), "c");
    assert_eq!(ids(&store, &status(StatusFilter::Failed), 9).await.join(" "), "a d");
    let rows = store.list_registrations(&status(StatusFilter::Assigning), &page(9)).await.unwrap().rows;
    assert_eq!(rows, [device(&store, "f").await]);
}

async fn first_assignments_are_listed(store: Arc<dyn Store>) {
    let mut first = intent(&reg_id("new"), assign_to("h"));
    first.enrollment = group_id("site");
    let record = JournalRecord::Intent(Box::new(first));
    let begin = Change::Journal { registration: reg_id("new"), generation: None, at: NOW, record };
    let generation = commit(&store, [begin, put_registration(registration("old", Some("h")))]).await.unwrap();
    let none = RegistrationFilter::default();
    let check = async |filter: RegistrationFilter, expected: &str| {
        assert_eq!(ids(&store, &filter, 1).await.join(" "), expected, "{filter:?}");
    };
    let assigning = RegistrationFilter { status: Some(StatusFilter::Assigning), ..none.clone() };
    check(none.clone(), "new old").await;
    check(assigning.clone(), "new").await;
    check(RegistrationFilter { group: GroupId::parse("Site").ok(), ..none.clone() }, "new").await;
    check(RegistrationFilter { hub: Some(hub_id("h")), ..none.clone() }, "old").await;
    check(RegistrationFilter { policy: Some(None), ..none.clone() }, "new").await;
    check(RegistrationFilter { pinned: Some(false), ..none.clone() }, "new old").await;
    check(RegistrationFilter { pinned: Some(true), ..none.clone() }, "").await;
    let row = store.list_registrations(&assigning, &page(1)).await.unwrap().rows.remove(0);
    assert_eq!((row.registration, row.open[0].generation), (None, generation));

    // Given up: it only owes clean-up, and there is no record to list.
    commit(&store, [line("new", generation, aborted())]).await.unwrap();
    check(none.clone(), "old").await;
    check(assigning, "").await;
    assert_eq!(store.unfinished().await.unwrap(), [reg_id("new")]);
}

async fn pages_go_on_over_changes(store: Arc<dyn Store>) {
    commit(&store, ["b", "d", "f", "h"].map(|id| put_registration(registration(id, Some("hub"))))).await.unwrap();
    let filter = RegistrationFilter { hub: Some(hub_id("hub")), ..RegistrationFilter::default() };
    let first = store.list_registrations(&filter, &page(2)).await.unwrap();
    assert_eq!(first.rows.len(), 2);
    // The row that the token stands at goes; rows come before and after it.
    let gone = Change::DeleteRegistration { id: reg_id("d"), version: Version(1), past: Vec::new() };
    let come = ["a", "e"].map(|id| put_registration(registration(id, Some("hub"))));
    commit(&store, [gone].into_iter().chain(come)).await.unwrap();
    let rest = store.list_registrations(&filter, &PageRequest { size: 9, token: first.next }).await.unwrap();
    let rest_ids: Vec<&str> = rest.rows.iter().map(|file| super::listing::file_id(file).unwrap().as_str()).collect();
    assert_eq!((rest_ids, rest.next), (vec!["e", "f", "h"], None));
    // A page that is exactly full has no next one.
    let full = store.list_registrations(&filter, &page(5)).await.unwrap();
    assert_eq!((full.rows.len(), full.next), (5, None));
}

async fn foreign_tokens(store: Arc<dyn Store>) {
    commit(&store, ["a", "b"].map(|id| put_registration(registration(id, None)))).await.unwrap();
    let noted = Commit { audit: vec![audit("1", None), audit("2", None)], ..Commit::default() };
    store.commit(noted).await.unwrap();
    let none = RegistrationFilter::default();
    let token = store.list_registrations(&none, &page(1)).await.unwrap().next;
    assert!(token.is_some());
    let request = PageRequest { size: 1, token };
    let other = RegistrationFilter { pinned: Some(false), ..none.clone() };
    assert_eq!(store.list_registrations(&other, &request).await.unwrap_err(), StoreFault::PageToken);
    assert_eq!(store.list_audit(&AuditFilter::default(), &request).await.unwrap_err(), StoreFault::PageToken);
    for listing in [EnrollmentListing::Individuals, EnrollmentListing::Groups] {
        assert_eq!(store.list_enrollments(listing, &request).await.unwrap_err(), StoreFault::PageToken);
    }
    let token = store.list_audit(&AuditFilter::default(), &page(1)).await.unwrap().next;
    let by_device = AuditFilter { registration: Some(reg_id("a")), ..AuditFilter::default() };
    let foreign = store.list_audit(&by_device, &PageRequest { size: 1, token }).await;
    assert_eq!(foreign.unwrap_err(), StoreFault::PageToken);
    let garbage = PageRequest { size: 1, token: Some("next please".to_owned()) };
    assert_eq!(store.list_registrations(&none, &garbage).await.unwrap_err(), StoreFault::PageToken);
    assert_eq!(store.list_audit(&AuditFilter::default(), &garbage).await.unwrap_err(), StoreFault::PageToken);
}

async fn audit_is_listed(store: Arc<dyn Store>) {
    let tracked = AuditEntry {
        tracking: Some(TrackingId(77)),
        action: AuditAction::RegistrationRefused,
        enrollment: Some(group_id("g")),
        hub: Some(hub_id("h")),
        operation: Some(OperationId(3)),
        ..audit("b", Some("Dev"))
    };
    let first = store
        .commit(Commit { audit: vec![audit("a", Some("dev")), tracked.clone()], ..Commit::default() })
        .await
        .unwrap();
    let second = store.commit(Commit { audit: vec![audit("c", None)], ..changes([put_hub(hub("h"))]) }).await.unwrap();
    let found = store.find_audit(TrackingId(77)).await.unwrap().unwrap();
    assert_eq!(found, StoredAudit { order: first, place: 1, entry: tracked });
    assert_eq!(store.find_audit(TrackingId(78)).await.unwrap(), None);
    let all = AuditFilter::default();
    for (filter, expected) in [
        (all.clone(), vec![(second, 0), (first, 1), (first, 0)]),
        (AuditFilter { action: Some(AuditAction::HubLinked), ..all.clone() }, vec![(second, 0), (first, 0)]),
        (AuditFilter { registration: Some(reg_id("DEV")), ..all.clone() }, vec![(first, 1), (first, 0)]),
        (AuditFilter { action: Some(AuditAction::StoreBackedUp), ..all.clone() }, vec![]),
        (
            AuditFilter { action: Some(AuditAction::RegistrationRefused), registration: Some(reg_id("dev")) },
            vec![(first, 1)],
        ),
    ] {
        for size in [1, 10] {
            let (mut seen, mut request) = (Vec::new(), page(size));
            loop {
                let page = store.list_audit(&filter, &request).await.unwrap();
                seen.extend(page.rows.iter().map(|row| (row.order, row.place)));
                match page.next {
                    Some(token) => request.token = Some(token),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "{filter:?} by {size}");
        }
    }
}

async fn hub_use_is_counted(store: Arc<dyn Store>) {
    commit(&store, [put_hub(hub("a")), put_hub(hub("b"))]).await.unwrap();
    let used = |homes, arriving, moves| HubUse { homes, arriving, moves };
    // A first assignment, step by step.
    let g = commit(&store, [open("d", assign_to("a"))]).await.unwrap();
    assert_eq!(hub_use(&store, "a").await, used(0, 1, 1));
    commit(&store, [line("d", g, pivoted()), put_registration(registration("d", Some("a")))]).await.unwrap();
    assert_eq!(hub_use(&store, "a").await, used(1, 0, 1));
    commit(&store, [line("d", g, settled(Effect::Activate, &hub_id("a"))), Change::CloseMove { generation: g }])
        .await
        .unwrap();
    assert_eq!(hub_use(&store, "a").await, used(1, 0, 0));
    // A move to b.
    let plan = Plan::Relocate { from: hub_id("a"), to: hub_id("b"), carry: Carry::State };
    let g = commit(&store, [open("d", plan.clone())]).await.unwrap();
    assert_eq!((hub_use(&store, "a").await, hub_use(&store, "b").await), (used(1, 0, 1), used(0, 1, 1)));
    let there = Registration { version: Version(1), ..registration("d", Some("b")) };
    commit(&store, [line("d", g, pivoted()), put_registration(there)]).await.unwrap();
    assert_eq!((hub_use(&store, "a").await, hub_use(&store, "b").await), (used(0, 0, 1), used(1, 0, 1)));
    commit(&store, [Change::CloseMove { generation: g }]).await.unwrap();
    assert_eq!((hub_use(&store, "a").await, hub_use(&store, "b").await), (used(0, 0, 0), used(1, 0, 0)));
    // A move that is given up arrives nowhere, and names both until its clean-up is done.
    let back = Plan::Relocate { from: hub_id("b"), to: hub_id("a"), carry: Carry::Initial };
    let g = commit(&store, [open("d", back)]).await.unwrap();
    commit(&store, [line("d", g, aborted())]).await.unwrap();
    assert_eq!((hub_use(&store, "a").await, hub_use(&store, "b").await), (used(0, 0, 1), used(1, 0, 1)));
    commit(&store, [Change::CloseMove { generation: g }]).await.unwrap();
    // A release.
    let g = commit(&store, [open("d", Plan::Release { from: Some(hub_id("b")) })]).await.unwrap();
    assert_eq!(hub_use(&store, "b").await, used(1, 0, 1));
    let gone = Change::DeleteRegistration { id: reg_id("d"), version: Version(2), past: vec![g] };
    commit(&store, [line("d", g, pivoted()), gone]).await.unwrap();
    assert_eq!(hub_use(&store, "b").await, used(0, 0, 1));
    commit(&store, [Change::CloseMove { generation: g }]).await.unwrap();
    assert_eq!(hub_use(&store, "b").await, used(0, 0, 0));
    // Homes at a hub that is not linked are counted when it is.
    commit(&store, [put_registration(registration("x", Some("later")))]).await.unwrap();
    commit(&store, [put_hub(hub("later"))]).await.unwrap();
    assert_eq!(hub_use(&store, "later").await, used(1, 0, 0));
}

async fn capacity_is_kept(store: Arc<dyn Store>) {
    const CAPACITY: u64 = 7;
    commit(&store, [put_hub(hub("a")), put_registration(registration("resident", Some("a")))]).await.unwrap();
    let takes = || [Expect::HubTakes { hub: hub_id("a"), capacity: Some(CAPACITY) }];
    let attempts = (0..50).map(|number| {
        let begin = changes([open(&format!("d-{number}"), assign_to("a"))]);
        store.commit(expecting(takes(), begin))
    });
    let outcomes = join_all(attempts).await;
    let full = Err(CommitFault::Unexpected(Unexpected::HubFull { hub: hub_id("a") }));
    let won: Vec<Order> = outcomes.iter().filter_map(|outcome| outcome.clone().ok()).collect();
    assert_eq!(won.len() as u64, CAPACITY - 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == full).count() as u64, 50 - CAPACITY + 1);
    // A place that is given up is free again, once.
    let log = store.load_move(won[0]).await.unwrap().unwrap();
    commit(&store, [line(log.registration.as_str(), won[0], aborted())]).await.unwrap();
    for number in 50..53 {
        let outcome = store.commit(expecting(takes(), changes([open(&format!("d-{number}"), assign_to("a"))]))).await;
        assert_eq!(outcome.is_ok(), number == 50, "{number}");
    }
}

async fn used_hubs_stay(store: Arc<dyn Store>) {
    commit(&store, [put_hub(hub("a"))]).await.unwrap();
    let unlink = || {
        let gone = changes([Change::DeleteHub { id: hub_id("a"), version: Version(1) }]);
        store.commit(expecting([Expect::HubUnused { hub: hub_id("a") }], gone))
    };
    let in_use = |homes, moves| Err(CommitFault::Unexpected(Unexpected::HubInUse { hub: hub_id("a"), homes, moves }));
    let g = commit(&store, [open("d", assign_to("a"))]).await.unwrap();
    assert_eq!(unlink().await, in_use(0, 1));
    commit(&store, [line("d", g, aborted())]).await.unwrap();
    assert_eq!(unlink().await, in_use(0, 1), "it still owes clean-up there");
    commit(&store, [Change::CloseMove { generation: g }, put_registration(registration("e", Some("a")))])
        .await
        .unwrap();
    assert_eq!(unlink().await, in_use(1, 0));
    let gone = Change::DeleteRegistration { id: reg_id("e"), version: Version(1), past: Vec::new() };
    commit(&store, [gone]).await.unwrap();
    unlink().await.unwrap();
    assert_eq!(store.hubs().await.unwrap(), []);
}

async fn unfinished_devices(store: Arc<dyn Store>) {
    assert_eq!(store.unfinished().await.unwrap(), []);
    let first = commit(&store, [open("B", assign_to("h"))]).await.unwrap();
    let second = commit(&store, [open("b", assign_to("h2"))]).await.unwrap();
    commit(&store, [open("a", assign_to("h")), put_registration(registration("c", None))]).await.unwrap();
    let mut found = store.unfinished().await.unwrap();
    found.sort();
    assert_eq!(found, [reg_id("a"), reg_id("b")]);
    commit(&store, [Change::CloseMove { generation: first }]).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap().len(), 2);
    commit(&store, [Change::CloseMove { generation: second }]).await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), [reg_id("a")]);
}

async fn the_past_outlives_a_registration(store: Arc<dyn Store>) {
    let delete = |version, past| Change::DeleteRegistration { id: reg_id("d"), version: Version(version), past };
    commit(&store, [put_registration(registration("D", None))]).await.unwrap();
    commit(&store, [delete(1, vec![Order(3), Order(9)])]).await.unwrap();
    let left = DeviceFile { earlier: vec![Order(3), Order(9)], ..DeviceFile::default() };
    assert_eq!(device(&store, "d").await, left);
    assert_eq!(ids(&store, &RegistrationFilter::default(), 9).await.len(), 0);
    commit(&store, [put_registration(registration("d", None))]).await.unwrap();
    assert_eq!(device(&store, "d").await.earlier, [Order(3), Order(9)]);
    commit(&store, [delete(1, Vec::new())]).await.unwrap();
    assert_eq!(device(&store, "d").await, DeviceFile::default());
}

/// Every shape of record, so that one that forgets a field is found.
async fn records_come_back(store: Arc<dyn Store>) {
    let (a, b) = (hub_id("a"), hub_id("b"));
    let webhook = WebhookPolicy { url: "https://x/?code=1".to_owned(), api_version: "1".to_owned() };
    let allocations = [
        AllocationPolicy::Static,
        AllocationPolicy::Hashed,
        AllocationPolicy::LowestLatency,
        AllocationPolicy::Custom(webhook),
    ];
    let resets = [ResetOnSameHub::Always, ResetOnSameHub::WhenEnrollmentChanged, ResetOnSameHub::Off];
    for (number, allocation) in (0..).zip(allocations) {
        let id = EnrollmentId::Individual(reg_id(&format!("E-{number}")));
        let made = Enrollment {
            device_id: DeviceId::parse("Dev$1").ok(),
            enabled: false,
            reprovision: [None, Some(ReprovisionPolicy::Reset), Some(ReprovisionPolicy::Never)]
                [usize::from(number) % 3],
            allocation: Some(allocation),
            hubs: vec![b.clone(), a.clone()],
            unreachable: [UnreachableRule::Reset, UnreachableRule::LastKnown][usize::from(number) % 2],
            allow_late_writes: true,
            reset_on_same_hub: resets[usize::from(number) % 3],
            reassign_when_down: true,
            adopt_existing: true,
            updated_at: Timestamp(-5),
            ..enrollment(id.clone(), number)
        };
        commit(&store, [put_enrollment(made.clone())]).await.unwrap();
        let found = store.load_enrollment(&id).await.unwrap().unwrap();
        assert_eq!(*found, Enrollment { version: Version(1), ..made });
    }
    for (id, state) in [("a", HubState::Draining), ("b", HubState::Retired)] {
        let made =
            Hub { state, location: None, capacity: None, calls_per_second: Some(5), taken_down: true, ..hub(id) };
        commit(&store, [put_hub(made.clone())]).await.unwrap();
        assert_eq!(store.load_hub(&made.id).await.unwrap(), Some(Hub { version: Version(1), ..made }));
    }
    let assigned = |sub_status, data_source| OperationStatus::Assigned { sub_status, data_source };
    for (number, status) in [
        OperationStatus::Assigning,
        OperationStatus::Disabled,
        failed(),
        assigned(SubStatus::DeviceDataMigrated, None),
        assigned(SubStatus::DeviceDataReset, Some(DataSource::Initial)),
        assigned(SubStatus::ReprovisionedToInitialAssignment, Some(DataSource::Sealed)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut made = registration(&format!("R-{number}"), Some("a"));
        made.operation = Operation { status, request_id: None, ..made.operation };
        made.assignment = made.assignment.map(|assignment| Assignment { credential: None, ..assignment });
        made.pin = Some(Pin { expires_at: None, ..pin("b") });
        made.payload = None;
        commit(&store, [put_registration(made.clone())]).await.unwrap();
        let found = store.load_device(&made.id).await.unwrap().registration;
        assert_eq!(found, Some(Registration { version: Version(1), ..made }));
    }
    let plans = [
        assign_to("a"),
        Plan::Relocate { from: a.clone(), to: b.clone(), carry: Carry::Initial },
        Plan::Replant { from: a.clone(), to: b.clone(), source: Order(3) },
        Plan::Rehouse { from: a.clone(), to: b.clone() },
        Plan::ResetInPlace { at: a.clone(), credential: true },
        Plan::Refresh { at: a.clone() },
        Plan::Release { from: None },
    ];
    let state = || Some(Box::new(device_state()));
    let refusal = |refusal| JournalRecord::Stuck { effect: Effect::Unseal, hub: a.clone(), refusal };
    for (number, plan) in plans.into_iter().enumerate() {
        let id = reg_id(&format!("M-{number}"));
        let made = crate::moves::Intent {
            request_id: RequestId::parse("q").ok(),
            payload: Some("{}".to_owned()),
            pin: Some(pin("a")),
            policy: Some(ReprovisionPolicy::Reset),
            unreachable: UnreachableRule::Wait { deadline: std::time::Duration::from_nanos(1_000_000_001) },
            ..intent(&id, plan)
        };
        let first = JournalRecord::Intent(Box::new(made));
        let begin =
            Change::Journal { registration: id.clone(), generation: None, at: Timestamp(-1), record: first.clone() };
        let generation = commit(&store, [begin]).await.unwrap();
        let mut written = vec![first];
        for record in [
            JournalRecord::StepDone { effect: Effect::Create, state: None },
            JournalRecord::StepDone { effect: Effect::Seal, state: state() },
            JournalRecord::StepDone { effect: Effect::Withhold, state: None },
            JournalRecord::StepDone { effect: Effect::UpdateCredential, state: None },
            JournalRecord::Pivoted { data_source: None },
            aborted(),
            JournalRecord::Collected { hub: b.clone(), state: state() },
            JournalRecord::Settled { effect: Effect::ReplaceTwin, hub: a.clone(), state: state() },
            settled(Effect::Activate, &b),
            settled(Effect::Collect, &a),
            refusal(HubRefusal::Stale { highest: Order(7) }),
            refusal(HubRefusal::Occupied),
            refusal(HubRefusal::NotStaged),
            refusal(HubRefusal::NoSuchDevice),
            refusal(HubRefusal::WrongIncarnation { current: Incarnation(u128::MAX) }),
            refusal(HubRefusal::Full),
            refusal(HubRefusal::StateInvalid("x".to_owned())),
            refusal(HubRefusal::OrderReused),
            dropped(Effect::Delete, &a),
        ] {
            commit(&store, [line(id.as_str(), generation, record.clone())]).await.unwrap();
            written.push(record);
        }
        let log = store.load_move(generation).await.unwrap().unwrap();
        assert_eq!(log.lines.into_iter().map(|line| line.record).collect::<Vec<_>>(), written);
    }
}

#[tokio::test]
async fn memory_conforms() {
    check(|| (Arc::new(super::MemoryStore::new()) as Arc<dyn Store>, ())).await;
}

/// Both stores keep the newest entries only; `fresh` makes a store that keeps four.
pub async fn check_audit_is_trimmed(store: Arc<dyn Store>) {
    let entry = |number: u128| AuditEntry { tracking: Some(TrackingId(number)), ..audit(&number.to_string(), None) };
    for number in 0..4 {
        let two = Commit { audit: vec![entry(2 * number), entry(2 * number + 1)], ..Commit::default() };
        store.commit(two).await.unwrap();
    }
    let rows = store.list_audit(&AuditFilter::default(), &page(100)).await.unwrap().rows;
    let seen: Vec<&str> = rows.iter().map(|row| row.entry.detail.as_str()).collect();
    assert_eq!(seen, ["7", "6", "5", "4"]);
    assert_eq!(store.find_audit(TrackingId(3)).await.unwrap(), None);
    assert!(store.find_audit(TrackingId(4)).await.unwrap().is_some());
}

#[tokio::test]
async fn memory_trims_its_audit_log() {
    check_audit_is_trimmed(Arc::new(super::MemoryStore::with_audit_max(4))).await;
}
