//! The suite that every implementation of the port passes: what each expectation, change, index and page token means.

mod commits;
mod listings;
mod moves;
mod records;

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::samples::*;
use super::{
    AuditFilter, Change, Commit, CommitFault, DeviceFile, EnrollmentListing, Expect, HubUse, LastKnown,
    ORDER_RAISED_MAX, PageRequest, RegistrationFilter, StatusFilter, Store, StoreFault, StoreLife, Unexpected,
};
use crate::domain::*;
use crate::moves::{Carry, Effect, JournalRecord, Plan};

type Case = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

/// Every case, each to be run on an empty store.
pub const CASES: &[(&str, Case)] = &[
    ("enrollments are compared and set", |s| Box::pin(commits::enrollments_are_compared_and_set(s))),
    ("hubs are compared and set", |s| Box::pin(commits::hubs_are_compared_and_set(s))),
    ("registrations are compared and set", |s| Box::pin(commits::registrations_are_compared_and_set(s))),
    ("every expectation that fails is named", |s| Box::pin(commits::every_expectation_that_fails_is_named(s))),
    ("a commit happens whole or not at all", |s| Box::pin(commits::a_commit_happens_whole_or_not_at_all(s))),
    ("neighbours of a failing commit are not affected", |s| Box::pin(commits::neighbours_of_a_failure(s))),
    ("changes are judged one after the other", |s| Box::pin(commits::changes_follow_each_other(s))),
    ("orders rise and are never reused", |s| Box::pin(commits::orders_rise(s))),
    ("moves are opened, written, closed and forgotten", |s| Box::pin(moves::the_life_of_a_move(s))),
    ("commits of a wrong shape are refused", |s| Box::pin(commits::wrong_shapes(s))),
    ("a device id has one owner", |s| Box::pin(commits::a_device_id_has_one_owner(s))),
    ("a certificate stands in one enrollment", |s| Box::pin(commits::a_certificate_stands_in_one_enrollment(s))),
    ("an endorsement key stands in one enrollment", |s| {
        Box::pin(commits::an_endorsement_key_stands_in_one_enrollment(s))
    }),
    ("a group's key stands in one group", |s| Box::pin(commits::a_groups_key_stands_in_one_group(s))),
    ("groups by keys are found", |s| Box::pin(listings::groups_by_keys_are_found(s))),
    ("groups are found by thumbprint and by issuer", |s| Box::pin(listings::groups_are_found(s))),
    ("enrollments are listed by id", |s| Box::pin(listings::enrollments_are_listed(s))),
    ("registrations are listed by every filter", |s| Box::pin(listings::registrations_are_filtered(s))),
    ("what TPMs prove comes back", |s| Box::pin(records::what_tpms_prove_comes_back(s))),
    ("symmetric keys come back", |s| Box::pin(records::symmetric_keys_come_back(s))),
    ("a first assignment is listed while under way", |s| Box::pin(listings::first_assignments_are_listed(s))),
    ("pages go on over changes", |s| Box::pin(listings::pages_go_on_over_changes(s))),
    ("foreign page tokens are refused", |s| Box::pin(listings::foreign_tokens(s))),
    ("audit entries are listed newest first", |s| Box::pin(listings::audit_is_listed(s))),
    ("the use of a hub is counted", |s| Box::pin(moves::hub_use_is_counted(s))),
    ("a hub is never filled beyond its capacity", |s| Box::pin(moves::capacity_is_kept(s))),
    ("a hub takes by its record of this moment", |s| Box::pin(moves::a_hub_takes_by_its_record_of_this_moment(s))),
    ("what was seen is kept for homes", |s| Box::pin(moves::what_was_seen_is_kept_for_homes(s))),
    ("orders can be raised", |s| Box::pin(commits::orders_can_be_raised(s))),
    ("a used hub is not unlinked", |s| Box::pin(moves::used_hubs_stay(s))),
    ("what a move names is held for it", |s| Box::pin(moves::what_a_move_names_is_held(s))),
    ("unfinished devices are those with an open move", |s| Box::pin(moves::unfinished_devices(s))),
    ("deleted registrations leave their past", |s| Box::pin(moves::the_past_outlives_a_registration(s))),
    ("a journal that has gone on is noticed", |s| Box::pin(moves::a_journal_that_has_gone_on_is_noticed(s))),
    ("a record can name its own commit", |s| Box::pin(moves::a_record_can_name_the_order_of_its_own_commit(s))),
    ("records come back as they were written", |s| Box::pin(records::records_come_back(s))),
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
