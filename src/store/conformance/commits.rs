//! What a commit means: versions, expectations, atomicity, orders, uniqueness.

use super::*;

pub async fn enrollments_are_compared_and_set(store: Arc<dyn Store>) {
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

pub async fn hubs_are_compared_and_set(store: Arc<dyn Store>) {
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

pub async fn registrations_are_compared_and_set(store: Arc<dyn Store>) {
    assert_eq!(device(&store, "d").await, DeviceFile::default());
    commit(&store, [put_registration(registration("Dev", Some("a")))]).await.unwrap();
    let found = device(&store, "dEV").await.registration.unwrap();
    assert_eq!(found, Registration { version: Version(1), ..registration("Dev", Some("a")) });
    assert_eq!(found.id.as_str(), "Dev");
    let twice = refused(&store, [put_registration(registration("DEV", None))]).await;
    assert_eq!(twice, Unexpected::Registration { id: reg_id("dev"), expected: Version(0), found: Version(1) });
    commit(&store, [put_registration(Registration { payload: None, ..found })]).await.unwrap();
    let past = Past::default();
    let stale = Change::DeleteRegistration { id: reg_id("dev"), version: Version(1), past: past.clone() };
    assert!(matches!(refused(&store, [stale]).await, Unexpected::Registration { found: Version(2), .. }));
    let absent = Change::DeleteRegistration { id: reg_id("none"), version: Version::ABSENT, past: past.clone() };
    not_written(&store, [absent]).await;
    commit(&store, [Change::DeleteRegistration { id: reg_id("dev"), version: Version(2), past }]).await.unwrap();
    assert_eq!(device(&store, "dev").await, DeviceFile::default());
}

pub async fn every_expectation_that_fails_is_named(store: Arc<dyn Store>) {
    let individual = |text: &str| EnrollmentId::Individual(reg_id(text));
    let mut full = registration("lives-at-a", Some("a"));
    full.enrollment = group_id("g");
    let pump = Enrollment { attestation: Attestation::Tpm(tpm_device(101)), ..enrollment(individual("pump"), 9) };
    let enrollments = [put_enrollment(enrollment(individual("e"), 1)), put_enrollment(pump)];
    commit(&store, [put_hub(hub("a")), put_registration(full)].into_iter().chain(enrollments)).await.unwrap();
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
            Some(Expect::Record { registration: reg_id("lives-at-a"), version: Version(2), home: Some(Order(1)) }),
            None,
            Unexpected::Registration { id: reg_id("lives-at-a"), expected: Version(2), found: Version(1) },
        ),
        (
            Some(Expect::Record { registration: reg_id("lives-at-a"), version: Version(1), home: Some(Order(2)) }),
            None,
            Unexpected::Journal { id: reg_id("lives-at-a") },
        ),
        (
            Some(Expect::Record { registration: reg_id("lives-at-a"), version: Version::ABSENT, home: None }),
            None,
            Unexpected::Registration { id: reg_id("lives-at-a"), expected: Version(0), found: Version(1) },
        ),
        (
            Some(Expect::HubTakes { hub: hub_id("none"), pinned: true }),
            None,
            Unexpected::HubNotLinked { hub: hub_id("none") },
        ),
        (
            Some(Expect::HubUnused { hub: hub_id("a") }),
            None,
            Unexpected::HubInUse { hub: hub_id("a"), homes: 1, moves: 0 },
        ),
        (
            Some(Expect::EndorsementKeyUnclaimed { key: tpm_device(101).ek_hash }),
            None,
            Unexpected::EndorsementKeyTaken { owner: individual("pump") },
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
    // Who claims what, and whether a key may be a group's.
    let claims = [
        (Claim::EndorsementKey(tpm_device(101).ek_hash), Some(individual("pump"))),
        (Claim::EndorsementKey(tpm_device(102).ek_hash), None),
        (Claim::Certificate(certificate(1, 1).thumbprint), Some(individual("e"))),
    ];
    for (claim, owner) in claims {
        assert_eq!(store.find_claim(&claim).await.unwrap(), owner, "{claim:?}");
    }
    // The same expectations where they hold.
    let expect = [
        Expect::Enrollment { id: individual("e"), version: Version(1) },
        Expect::Enrollment { id: individual("none"), version: Version::ABSENT },
        Expect::HubTakes { hub: hub_id("a"), pinned: false },
        Expect::HubUnused { hub: hub_id("b") },
        Expect::EndorsementKeyUnclaimed { key: tpm_device(102).ek_hash },
    ];
    store.commit(expecting(expect, Commit::default())).await.unwrap();
    // Free again with its enrollment.
    commit(&store, [Change::DeleteEnrollment { id: individual("pump"), version: Version(1) }]).await.unwrap();
    let free = Expect::EndorsementKeyUnclaimed { key: tpm_device(101).ek_hash };
    store.commit(expecting([free], Commit::default())).await.unwrap();
}

pub async fn a_commit_happens_whole_or_not_at_all(store: Arc<dyn Store>) {
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

pub async fn neighbours_of_a_failure(store: Arc<dyn Store>) {
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

pub async fn changes_follow_each_other(store: Arc<dyn Store>) {
    commit(&store, [put_registration(registration("a", None)), put_enrollment(enrollment(group_id("a"), 1))])
        .await
        .unwrap();
    // The device id and the certificate are free once their owners are gone, in the same commit.
    let heir = Registration { device_id: DeviceId::parse("a").unwrap(), ..registration("b", None) };
    commit(
        &store,
        [
            Change::DeleteRegistration { id: reg_id("a"), version: Version(1), past: Past::default() },
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
    let takes = [Expect::HubTakes { hub: hub_id("new"), pinned: false }];
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

pub async fn orders_rise(store: Arc<dyn Store>) {
    let first = commit(&store, []).await.unwrap();
    assert_eq!(first, Order(1));
    let made = commit(&store, [put_registration(registration("d", None)), open("d", assign_to("a"))]).await.unwrap();
    assert!(refused(&store, [put_registration(registration("d", None))]).await.to_string().contains("version"));
    let gone = commit(
        &store,
        [
            Change::DeleteRegistration { id: reg_id("d"), version: Version(1), past: Past::default() },
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

pub async fn wrong_shapes(store: Arc<dyn Store>) {
    let generation = commit(&store, [open("d", assign_to("a"))]).await.unwrap();
    let intent_line = JournalRecord::Intent(Box::new(intent(&reg_id("d"), assign_to("a"))));
    let without = Change::Journal { registration: reg_id("d"), generation: None, at: NOW, record: pivoted() };
    let foreign = Change::Journal { registration: reg_id("e"), generation: None, at: NOW, record: intent_line.clone() };
    not_written(&store, [open("x", assign_to("a")), open("y", assign_to("a"))]).await;
    not_written(&store, [line("d", generation, intent_line)]).await;
    not_written(&store, [without]).await;
    not_written(&store, [foreign]).await;
    not_written(&store, [line("d", generation, aborted()), line("d", generation, aborted())]).await;
    // A commit does not know its own order; one that guesses it is not let write two lines of one move.
    let own = Order(generation.0 + 1);
    let guessed = [open("x", assign_to("a")), line("x", own, aborted())];
    assert_eq!(refused(&store, guessed).await, Unexpected::MoveNotOpen { generation: own });
    assert_eq!(store.unfinished().await.unwrap(), [reg_id("d")]);
}

pub async fn a_device_id_has_one_owner(store: Arc<dyn Store>) {
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

pub async fn a_certificate_stands_in_one_enrollment(store: Arc<dyn Store>) {
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

pub async fn orders_can_be_raised(store: Arc<dyn Store>) {
    let life = async || store.life().await.unwrap();
    assert_eq!(life().await, StoreLife { last: Order(0), restored: false });
    let first = commit(&store, []).await.unwrap();
    assert_eq!(life().await.last, first);
    for (above, next) in [(1_000, 1_001), (5, 1_002), (1_002, 1_003), (1 << 50, (1 << 50) + 1)] {
        let raised = commit(&store, [Change::RaiseOrders { above: Order(above) }]).await.unwrap();
        assert_eq!((raised, life().await.last), (Order(next), Order(next)));
    }
    not_written(&store, [Change::RaiseOrders { above: Order(ORDER_RAISED_MAX.0 + 1) }]).await;
    assert_eq!(commit(&store, []).await, Ok(Order((1 << 50) + 2)));
    for restored in [true, true, false] {
        commit(&store, [Change::SetRestored(restored)]).await.unwrap();
        assert_eq!(life().await.restored, restored);
    }
    let taken_back = [Change::SetRestored(true), Change::CloseMove { generation: Order(77) }];
    refused(&store, taken_back).await;
    assert!(!life().await.restored);
}

pub async fn an_endorsement_key_stands_in_one_enrollment(store: Arc<dyn Store>) {
    let with = |id: EnrollmentId, key: u8, version: u64| {
        let attestation = Attestation::Tpm(tpm_device(key));
        put_enrollment(Enrollment { attestation, version: Version(version), ..enrollment(id, 0) })
    };
    let (one, two) = (EnrollmentId::Individual(reg_id("One")), EnrollmentId::Individual(reg_id("two")));
    commit(&store, [with(one.clone(), 1, 0)]).await.unwrap();
    let taken = Unexpected::EndorsementKeyTaken { owner: one.clone() };
    assert_eq!(refused(&store, [with(two.clone(), 1, 0)]).await, taken);
    let both = [with(two.clone(), 5, 0), with(EnrollmentId::Individual(reg_id("three")), 5, 0)];
    assert_eq!(refused(&store, both).await, Unexpected::EndorsementKeyTaken { owner: two.clone() });
    // One's own is no obstacle; one that is given up, or whose enrollment is deleted, is free again.
    commit(&store, [with(one.clone(), 1, 1)]).await.unwrap();
    commit(&store, [with(one.clone(), 2, 2)]).await.unwrap();
    commit(&store, [with(two.clone(), 1, 0)]).await.unwrap();
    commit(&store, [Change::DeleteEnrollment { id: two, version: Version(1) }]).await.unwrap();
    commit(&store, [with(one, 1, 3)]).await.unwrap();
}

pub async fn a_groups_key_stands_in_one_group(store: Arc<dyn Store>) {
    let with = |id: EnrollmentId, keys: [u8; 2], version: u64| put_enrollment(key_group(id, keys, version));
    let (one, two) = (group_id("One"), group_id("two"));
    commit(&store, [with(one.clone(), [1, 2], 0)]).await.unwrap();
    for keys in [[1, 3], [3, 2], [2, 1]] {
        let taken = Unexpected::MasterKeyTaken { owner: one.clone() };
        assert_eq!(refused(&store, [with(two.clone(), keys, 0)]).await, taken, "{keys:?}");
    }
    let claim = |number| Claim::MasterKey(sealed_key(number).fingerprint());
    assert_eq!(store.find_claim(&claim(2)).await.unwrap(), Some(one.clone()));
    // One's own is no obstacle, in either place or in both; one that is given up is free again.
    commit(&store, [with(one.clone(), [2, 1], 1)]).await.unwrap();
    commit(&store, [with(one.clone(), [2, 2], 2)]).await.unwrap();
    commit(&store, [with(two.clone(), [1, 3], 0)]).await.unwrap();
    commit(&store, [Change::DeleteEnrollment { id: two, version: Version(1) }]).await.unwrap();
    commit(&store, [with(one, [1, 3], 3)]).await.unwrap();
    // What individual devices sign with may be one another's.
    for id in ["a", "b"] {
        let keys = KeyPair { primary: sealed_key(1), secondary: sealed_key(1) };
        let attestation = Attestation::SymmetricKey(keys);
        let made = Enrollment { attestation, ..enrollment(EnrollmentId::Individual(reg_id(id)), 0) };
        commit(&store, [put_enrollment(made)]).await.unwrap();
    }
}
