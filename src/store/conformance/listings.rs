//! Looking up and listing: filters, pages, tokens, audit.

use super::*;

pub async fn groups_are_found(store: Arc<dyn Store>) {
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
    // What was read before is not told again: each change is found by the first look after it, however often the same
    // chain was looked up, and a change that was refused is never found.
    for version in 2..5 {
        let found = store.find_groups(&[link(7, 50)]).await.unwrap();
        assert_eq!((found[0].version, found[0].enabled), (Version(version), version % 2 == 1));
        let stale = Enrollment { version: Version(1), ..enrollment(group_id("a"), 7) };
        refused(&store, [put_enrollment(stale)]).await;
        let next = Enrollment { enabled: version % 2 == 0, version: Version(version), ..enrollment(group_id("a"), 7) };
        commit(&store, [put_enrollment(next)]).await.unwrap();
    }
    // A subject that nobody had is found once a group has it.
    assert_eq!(store.find_groups(&[link(60, 77)]).await.unwrap().len(), 0);
    commit(&store, [put_enrollment(enrollment(group_id("d"), 77))]).await.unwrap();
    assert_eq!(store.find_groups(&[link(60, 77)]).await.unwrap().len(), 1);
    commit(&store, [put_enrollment(enrollment(group_id("e"), 77))]).await.unwrap_err();
}

pub async fn enrollments_are_listed(store: Arc<dyn Store>) {
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

pub async fn registrations_are_filtered(store: Arc<dyn Store>) {
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
        group(registration("f", Some("h")), "gg"),
        Registration { policy: Some(ReprovisionPolicy::Never), ..registration("g", None) },
    ];
    commit(&store, all.map(put_registration)).await.unwrap();
    // f is on its way, under the policy of its intent; a's move only owes clean-up; what g waits for was refused.
    commit(&store, [open("f", Plan::Refresh { at: hub_id("h") })]).await.unwrap();
    let done = commit(&store, [open("a", Plan::Refresh { at: hub_id("h") })]).await.unwrap();
    commit(&store, [line("a", done, pivoted())]).await.unwrap();
    let refused = commit(&store, [open("g", assign_to("h"))]).await.unwrap();
    commit(&store, [line("g", refused, pivoted())]).await.unwrap();
    commit(&store, [line("g", refused, stuck(Effect::Activate, &hub_id("h")))]).await.unwrap();

    let none = RegistrationFilter::default();
    let hub = |id: &str| Some(hub_id(id));
    let site = |id: &str| GroupId::parse(id).ok();
    for (filter, expected) in [
        (none.clone(), "a B c d e f g"),
        (RegistrationFilter { hub: hub("h"), ..none.clone() }, "a B e f"),
        (RegistrationFilter { hub: hub("h2"), ..none.clone() }, "c"),
        (RegistrationFilter { hub: hub("nowhere"), ..none.clone() }, ""),
        (RegistrationFilter { group: site("g"), ..none.clone() }, "a B d"),
        (RegistrationFilter { group: site("GG"), ..none.clone() }, "f"),
        (RegistrationFilter { status: Some(StatusFilter::Assigning), ..none.clone() }, "f"),
        (RegistrationFilter { status: Some(StatusFilter::Assigned), ..none.clone() }, "a B c"),
        (RegistrationFilter { status: Some(StatusFilter::Failed), ..none.clone() }, "d g"),
        (RegistrationFilter { status: Some(StatusFilter::Disabled), ..none.clone() }, "e"),
        (RegistrationFilter { policy: Some(None), ..none.clone() }, "B f"),
        (RegistrationFilter { policy: Some(Some(ReprovisionPolicy::Never)), ..none.clone() }, "g"),
        (RegistrationFilter { pinned: Some(true), ..none.clone() }, "c"),
        (RegistrationFilter { pinned: Some(false), ..none.clone() }, "a B d e f g"),
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
            Change::DeleteRegistration { id: reg_id("b"), version: Version(1), past: Past::default() },
        ],
    )
    .await
    .unwrap();
    assert_eq!(ids(&store, &RegistrationFilter { hub: hub("h"), ..none.clone() }, 9).await.join(" "), "e f");
    assert_eq!(ids(&store, &RegistrationFilter { hub: hub("h2"), ..none.clone() }, 9).await.join(" "), "a c");
    assert_eq!(ids(&store, &RegistrationFilter { group: site("g"), ..none.clone() }, 9).await.join(" "), "a d");
    let status = |status| RegistrationFilter { status: Some(status), ..none.clone() };
    assert_eq!(ids(&store, &status(StatusFilter::Assigned), 9).await.join(" "), "c");
    assert_eq!(ids(&store, &status(StatusFilter::Failed), 9).await.join(" "), "a d g");
    let rows = store.list_registrations(&status(StatusFilter::Assigning), &page(9)).await.unwrap().rows;
    assert_eq!(rows, [device(&store, "f").await]);
}

pub async fn first_assignments_are_listed(store: Arc<dyn Store>) {
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

pub async fn pages_go_on_over_changes(store: Arc<dyn Store>) {
    commit(&store, ["b", "d", "f", "h"].map(|id| put_registration(registration(id, Some("hub"))))).await.unwrap();
    let filter = RegistrationFilter { hub: Some(hub_id("hub")), ..RegistrationFilter::default() };
    let first = store.list_registrations(&filter, &page(2)).await.unwrap();
    assert_eq!(first.rows.len(), 2);
    // The row that the token stands at goes; rows come before and after it.
    let gone = Change::DeleteRegistration { id: reg_id("d"), version: Version(1), past: Past::default() };
    let come = ["a", "e"].map(|id| put_registration(registration(id, Some("hub"))));
    commit(&store, [gone].into_iter().chain(come)).await.unwrap();
    let rest = store.list_registrations(&filter, &PageRequest { size: 9, token: first.next }).await.unwrap();
    let rest_ids: Vec<&str> =
        rest.rows.iter().map(|file| crate::store::listing::file_id(file).unwrap().as_str()).collect();
    assert_eq!((rest_ids, rest.next), (vec!["e", "f", "h"], None));
    // A page that is exactly full has no next one.
    let full = store.list_registrations(&filter, &page(5)).await.unwrap();
    assert_eq!((full.rows.len(), full.next), (5, None));
}

pub async fn foreign_tokens(store: Arc<dyn Store>) {
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

pub async fn audit_is_listed(store: Arc<dyn Store>) {
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

pub async fn groups_by_keys_are_found(store: Arc<dyn Store>) {
    let found = async || -> Vec<String> {
        let groups = store.key_groups().await.unwrap();
        groups.iter().map(|group| format!("{} {}", group.id.name(), group.version.0)).collect()
    };
    assert_eq!(found().await, Vec::<String>::new());
    commit(&store, [put_enrollment(enrollment(group_id("certified"), 9))]).await.unwrap();
    let keys = KeyPair { primary: sealed_key(8), secondary: sealed_key(9) };
    let own = Enrollment {
        attestation: Attestation::SymmetricKey(keys),
        ..enrollment(EnrollmentId::Individual(reg_id("own")), 0)
    };
    commit(&store, [put_enrollment(own)]).await.unwrap();
    for (id, keys) in [("b", [3, 4]), ("A", [1, 2])] {
        commit(&store, [put_enrollment(key_group(group_id(id), keys, 0))]).await.unwrap();
    }
    assert_eq!(found().await, ["A 1", "b 1"]);
    commit(&store, [put_enrollment(key_group(group_id("b"), [3, 5], 1))]).await.unwrap();
    assert_eq!(found().await, ["A 1", "b 2"]);
    // One that asks for certificates from now on is none of them.
    let certified = Enrollment { version: Version(1), ..enrollment(group_id("A"), 7) };
    commit(&store, [put_enrollment(certified)]).await.unwrap();
    assert_eq!(found().await, ["b 2"]);
    commit(&store, [Change::DeleteEnrollment { id: group_id("b"), version: Version(2) }]).await.unwrap();
    assert_eq!(found().await, Vec::<String>::new());
}
