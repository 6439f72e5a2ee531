//! Moves and their journals, and how hubs are used by them.

use super::*;
use crate::moves::machine::OWN_ORDER;

pub async fn the_life_of_a_move(store: Arc<dyn Store>) {
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

pub async fn hub_use_is_counted(store: Arc<dyn Store>) {
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
    let gone = Change::DeleteRegistration { id: reg_id("d"), version: Version(2), past: vec![g].into() };
    commit(&store, [line("d", g, pivoted()), gone]).await.unwrap();
    assert_eq!(hub_use(&store, "b").await, used(0, 0, 1));
    commit(&store, [Change::CloseMove { generation: g }]).await.unwrap();
    assert_eq!(hub_use(&store, "b").await, used(0, 0, 0));
    // Homes at a hub that is not linked are counted when it is.
    commit(&store, [put_registration(registration("x", Some("later")))]).await.unwrap();
    commit(&store, [put_hub(hub("later"))]).await.unwrap();
    assert_eq!(hub_use(&store, "later").await, used(1, 0, 0));
}

pub async fn capacity_is_kept(store: Arc<dyn Store>) {
    const CAPACITY: u64 = 7;
    let small = Hub { capacity: Some(CAPACITY), ..hub("a") };
    commit(&store, [put_hub(small), put_registration(registration("resident", Some("a")))]).await.unwrap();
    let takes = || [Expect::HubTakes { hub: hub_id("a"), pinned: false }];
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

/// What the record says at the commit counts, whatever whoever chose the hub saw before.
pub async fn a_hub_takes_by_its_record_of_this_moment(store: Arc<dyn Store>) {
    let mut record = Hub { capacity: None, ..hub("a") };
    let takes = |pinned| [Expect::HubTakes { hub: hub_id("a"), pinned }];
    commit(&store, [put_hub(record.clone()), put_registration(registration("resident", Some("a")))]).await.unwrap();
    let closed = |state| Err(Unexpected::HubClosed { hub: hub_id("a"), state });
    let full = || Err(Unexpected::HubFull { hub: hub_id("a") });
    for (state, capacity, unpinned) in [
        (HubState::Active, None, Ok(())),
        (HubState::Active, Some(2), Ok(())),
        (HubState::Active, Some(1), full()),
        (HubState::Active, Some(0), full()),
        (HubState::Draining, None, closed(HubState::Draining)),
        (HubState::Retired, Some(9), closed(HubState::Retired)),
    ] {
        record = Hub { state, capacity, version: record.version.next(), ..record };
        commit(&store, [put_hub(record.clone())]).await.unwrap();
        for (pinned, expected) in [(false, unpinned.clone()), (true, Ok(()))] {
            let outcome = store.commit(expecting(takes(pinned), Commit::default())).await;
            assert_eq!(outcome.map(drop), expected.map_err(CommitFault::Unexpected), "{state:?} {capacity:?}");
        }
    }
}

pub async fn what_was_seen_is_kept_for_homes(store: Arc<dyn Store>) {
    let token = |position| FeedToken { incarnation: Incarnation(1), position };
    let note = |hub: &str, position, at, rows: Vec<(&str, DeviceState)>| Change::NoteSeen {
        hub: hub_id(hub),
        token: token(position),
        seen_at: Timestamp(at),
        rows: rows.into_iter().map(|(id, state)| (DeviceId::parse(id).unwrap(), state)).collect(),
    };
    let state = |version| {
        let mut state = device_state();
        state.twin.version = version;
        state
    };
    let known = async |id: &str| store.load_last_known(&reg_id(id)).await.unwrap();
    let (mine, other) = (registration("d", Some("a")), registration("e", Some("b")));
    let names = (mine.device_id.to_string(), other.device_id.to_string());
    commit(&store, [put_hub(hub("a")), put_hub(hub("b")), put_registration(mine.clone()), put_registration(other)])
        .await
        .unwrap();
    assert_eq!((known("d").await, store.load_feed(&hub_id("a")).await.unwrap()), (None, None));
    let rows = vec![(names.0.as_str(), state(5)), (names.1.as_str(), state(9)), ("nobody", state(1))];
    commit(&store, [note("a", 3, 100, rows)]).await.unwrap();
    let seen =
        |version, at| Some(LastKnown { hub: hub_id("a"), state: Box::new(state(version)), seen_at: Timestamp(at) });
    assert_eq!((known("d").await, known("e").await), (seen(5, 100), None), "its home is elsewhere");
    assert_eq!(store.load_feed(&hub_id("a")).await.unwrap(), Some(token(3)));
    for (version, at, expected) in [(4, 110, seen(5, 100)), (5, 120, seen(5, 120)), (8, 130, seen(8, 130))] {
        commit(&store, [note("a", 4, at, vec![(names.0.as_str(), state(version))])]).await.unwrap();
        assert_eq!(known("d").await, expected, "{version}");
    }
    // A change of the record alone leaves it; another home, or none, takes it away.
    let same = Registration { version: Version(1), updated_at: Timestamp(9), ..mine.clone() };
    commit(&store, [put_registration(same)]).await.unwrap();
    assert_eq!(known("d").await, seen(8, 130));
    let moved = Registration { version: Version(2), ..registration("d", Some("b")) };
    commit(&store, [put_registration(moved)]).await.unwrap();
    assert_eq!(known("d").await, None);
    commit(&store, [note("a", 5, 140, vec![(names.0.as_str(), state(20))])]).await.unwrap();
    assert_eq!(known("d").await, None, "what the old home still has is not news");
    let back = Registration { version: Version(3), ..mine };
    commit(&store, [put_registration(back), note("a", 6, 150, vec![(names.0.as_str(), state(9))])]).await.unwrap();
    assert_eq!(known("d").await, seen(9, 150));
    // An unlinked hub leaves what was seen there, and loses its place in the feed.
    commit(&store, [Change::DeleteHub { id: hub_id("a"), version: Version(1) }]).await.unwrap();
    assert_eq!((known("d").await, store.load_feed(&hub_id("a")).await.unwrap()), (seen(9, 150), None));
    commit(&store, [Change::DeleteRegistration { id: reg_id("d"), version: Version(4), past: Past::default() }])
        .await
        .unwrap();
    assert_eq!(known("d").await, None);
}

pub async fn used_hubs_stay(store: Arc<dyn Store>) {
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
    let gone = Change::DeleteRegistration { id: reg_id("e"), version: Version(1), past: Past::default() };
    commit(&store, [gone]).await.unwrap();
    unlink().await.unwrap();
    assert_eq!(store.hubs().await.unwrap(), []);
}

pub async fn unfinished_devices(store: Arc<dyn Store>) {
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

pub async fn the_past_outlives_a_registration(store: Arc<dyn Store>) {
    let delete = |version, past| Change::DeleteRegistration { id: reg_id("d"), version: Version(version), past };
    commit(&store, [put_registration(registration("D", None))]).await.unwrap();
    commit(&store, [delete(1, vec![Order(3), Order(9)].into())]).await.unwrap();
    let left = DeviceFile { earlier: vec![Order(3), Order(9)].into(), ..DeviceFile::default() };
    assert_eq!(device(&store, "d").await, left);
    assert_eq!(ids(&store, &RegistrationFilter::default(), 9).await.len(), 0);
    commit(&store, [put_registration(registration("d", None))]).await.unwrap();
    assert_eq!(device(&store, "d").await.earlier.moves, [Order(3), Order(9)]);
    commit(&store, [delete(1, Past::default())]).await.unwrap();
    assert_eq!(device(&store, "d").await, DeviceFile::default());
}

pub async fn a_journal_that_has_gone_on_is_noticed(store: Arc<dyn Store>) {
    let expect = async |seen: &[(Order, Order)]| {
        let expect = Expect::Journal { registration: reg_id("DEV"), seen: seen.to_vec() };
        store.commit(expecting([expect], Commit::default())).await
    };
    let gone_on = Err(CommitFault::Unexpected(Unexpected::Journal { id: reg_id("dev") }));
    assert_eq!(expect(&[]).await, Ok(Order(1)));
    let first = commit(&store, [open("dev", assign_to("a"))]).await.unwrap();
    let second = commit(&store, [open("dev", assign_to("b")), line("dev", first, aborted())]).await.unwrap();
    commit(&store, [open("other", assign_to("b"))]).await.unwrap();
    for (seen, holds) in [
        (vec![(first, second), (second, second)], true),
        (vec![(second, second), (first, second)], false),
        (vec![(first, first), (second, second)], false),
        (vec![(first, second)], false),
        (vec![], false),
    ] {
        let outcome = expect(&seen).await;
        assert!(if holds { outcome.is_ok() } else { outcome == gone_on }, "{seen:?}: {outcome:?}");
    }
    commit(&store, [Change::CloseMove { generation: first }]).await.unwrap();
    expect(&[(second, second)]).await.unwrap();
}

pub async fn a_record_can_name_the_order_of_its_own_commit(store: Arc<dyn Store>) {
    let past = || Past { moves: vec![Order(7), OWN_ORDER], late: vec![OWN_ORDER] };
    let made =
        commit(&store, [put_registration(Registration { past: past(), ..registration("d", None) })]).await.unwrap();
    assert_eq!(
        device(&store, "d").await.registration.unwrap().past,
        Past { moves: vec![Order(7), made], late: vec![made] }
    );
    let delete = Change::DeleteRegistration { id: reg_id("d"), version: Version(1), past: past() };
    let gone = commit(&store, [delete]).await.unwrap();
    assert_eq!(device(&store, "d").await.earlier, Past { moves: vec![Order(7), gone], late: vec![gone] });
}

pub async fn what_a_move_names_is_held(store: Arc<dyn Store>) {
    let holds = |expect: Expect| {
        let store = store.clone();
        async move { store.commit(expecting([expect], Commit::default())).await.map(drop) }
    };
    let refused = |unexpected| Err(CommitFault::Unexpected(unexpected));
    let linked = || Expect::HubLinked { hub: hub_id("a") };
    let unnamed = || Expect::HubUnnamed { hub: hub_id("a"), after: Order(0) };
    assert_eq!(holds(linked()).await, refused(Unexpected::HubNotLinked { hub: hub_id("a") }));
    commit(&store, [put_hub(hub("a")), put_registration(registration("lives", Some("a")))]).await.unwrap();
    assert_eq!(holds(linked()).await, Ok(()));
    assert_eq!(holds(unnamed()).await, Ok(()), "a home is not a move");

    // A device id is its registration's, whatever else stands there.
    let lives = registration("lives", None).device_id;
    let name = |device: &DeviceId, id: &str| Expect::DeviceId { device: device.clone(), registration: reg_id(id) };
    let taken =
        |device: &DeviceId, id: &str| refused(Unexpected::DeviceIdTaken { device: device.clone(), owner: reg_id(id) });
    assert_eq!(holds(name(&lives, "lives")).await, Ok(()));
    assert_eq!(holds(name(&lives, "other")).await, taken(&lives, "lives"));

    // A move without a record holds its device id until it is closed, clean-up included.
    let new = intent(&reg_id("new"), assign_to("a")).device;
    let g = commit(&store, [open("new", assign_to("a"))]).await.unwrap();
    assert_eq!(holds(name(&new, "new")).await, Ok(()));
    assert_eq!(holds(name(&new, "other")).await, taken(&new, "new"));
    assert_eq!(holds(unnamed()).await, refused(Unexpected::HubInUse { hub: hub_id("a"), homes: 1, moves: 1 }));
    assert_eq!(holds(Expect::HubUnnamed { hub: hub_id("a"), after: g }).await, Ok(()), "it began before");
    commit(&store, [line("new", g, aborted())]).await.unwrap();
    assert_eq!(holds(name(&new, "other")).await, taken(&new, "new"));
    commit(&store, [Change::CloseMove { generation: g }, Change::ForgetMove { generation: g }]).await.unwrap();
    assert_eq!(holds(name(&new, "other")).await, Ok(()));
    assert_eq!(holds(unnamed()).await, Ok(()));
}
