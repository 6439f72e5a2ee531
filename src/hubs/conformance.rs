//! What every hub of ours must do, as cases that run against each: one suite, several hubs.
//!
//! The traces are those of `reference/move-traces.md` as far as one hub can show them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::entry::Phase;
use super::scripted::ScriptedHub;
use super::{
    Abilities, ChangePage, DesiredEvent, HubConnector, LeaseRenewal, LeaseTicket, Reinstated, Reinstatement, Resident,
    SignedToken, TwinCaller, TwinHost, TwinRefusal, TwinWrite,
};
use crate::ambient::{Clock, ManualClock};
use crate::domain::{
    CallFault, CallOutcome, Capabilities, Credential, DeliveredKeys, DeviceId, DeviceState, Document, FeedToken,
    HubAnswer, HubCall, HubEffect, HubId, HubRefusal, HubStatus, Incarnation, InitialState, KeyFingerprint, KeyPair,
    MustSeal, NewDevice, Order, SealedKey, Thumbprint, Timestamp, Twin, TwinPatch, limits,
};

/// A hub that goes on from a copy.
pub type Restore = Box<dyn FnOnce() -> Arc<dyn HubConnector> + Send>;

/// What is tested: a hub that holds nothing yet and serves its twins itself.
pub struct Fresh {
    pub hub: Arc<dyn HubConnector>,
    /// Copies what the hub holds now; the hub itself is not used any more once a copy goes on.
    pub copy: Box<dyn Fn() -> Restore + Send + Sync>,
    /// Kept until the case has ended.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fresh").field(&self.hub).finish()
    }
}

struct Subject {
    hub: Arc<dyn HubConnector>,
    twins: Arc<dyn TwinHost>,
    clock: Arc<ManualClock>,
    fresh: Fresh,
}

type Case = (&'static str, fn(Subject) -> BoxFuture<'static, ()>);

const CASES: &[Case] = &[
    ("staged_accepts_nothing", |hub| staged_accepts_nothing(hub).boxed()),
    ("a_seal_stops_writes_and_answers_them_all", |hub| a_seal_stops_writes_and_answers_them_all(hub).boxed()),
    ("a_repeat_gets_the_same_answer", |hub| a_repeat_gets_the_same_answer(hub).boxed()),
    ("a_lower_order_is_stale", |hub| a_lower_order_is_stale(hub).boxed()),
    ("an_order_has_one_kind_of_call", |hub| an_order_has_one_kind_of_call(hub).boxed()),
    ("another_incarnation_is_refused", |hub| another_incarnation_is_refused(hub).boxed()),
    ("an_occupied_place_is_refused", |hub| an_occupied_place_is_refused(hub).boxed()),
    ("a_carried_state_arrives_unchanged", |hub| a_carried_state_arrives_unchanged(hub).boxed()),
    ("a_state_beyond_the_limits_is_refused", |hub| a_state_beyond_the_limits_is_refused(hub).boxed()),
    ("versions_never_go_down", |hub| versions_never_go_down(hub).boxed()),
    ("a_credential_is_replaced_in_order", |hub| a_credential_is_replaced_in_order(hub).boxed()),
    ("a_delivered_key_is_good_until_a_newer_one_is_used", |hub| {
        a_delivered_key_is_good_until_a_newer_one_is_used(hub).boxed()
    }),
    ("both_shared_keys_are_good_until_others_are_told", |hub| {
        both_shared_keys_are_good_until_others_are_told(hub).boxed()
    }),
    ("keys_of_another_tpm_end_at_once", |hub| keys_of_another_tpm_end_at_once(hub).boxed()),
    ("a_key_of_the_old_home_opens_nothing_but_the_way_on", |hub| {
        a_key_of_the_old_home_opens_nothing_but_the_way_on(hub).boxed()
    }),
    ("strangers_learn_nothing", |hub| strangers_learn_nothing(hub).boxed()),
    ("a_disabled_device_is_not_let_in", |hub| a_disabled_device_is_not_let_in(hub).boxed()),
    ("a_refused_write_changes_nothing", |hub| a_refused_write_changes_nothing(hub).boxed()),
    ("devices_are_listed_page_by_page", |hub| devices_are_listed_page_by_page(hub).boxed()),
    ("a_watcher_sees_every_change", |hub| a_watcher_sees_every_change(hub).boxed()),
    ("a_slow_watcher_gets_a_whole_document", |hub| a_slow_watcher_gets_a_whole_document(hub).boxed()),
    ("who_may_watch", |hub| who_may_watch(hub).boxed()),
    ("every_acknowledged_write_is_in_the_sealed_state", |hub| {
        every_acknowledged_write_is_in_the_sealed_state(hub).boxed()
    }),
    ("a_collect_seals_and_deletes_under_one_order", |hub| a_collect_seals_and_deletes_under_one_order(hub).boxed()),
    ("trace_1a", |hub| trace_1a(hub).boxed()),
    ("trace_1b", |hub| trace_1b(hub).boxed()),
    ("trace_1c", |hub| trace_1c(hub).boxed()),
    ("trace_1d", |hub| trace_1d(hub).boxed()),
    ("trace_2b", |hub| trace_2b(hub).boxed()),
    ("trace_9a", |hub| trace_9a(hub).boxed()),
    ("trace_9b", |hub| trace_9b(hub).boxed()),
    ("the_feed_tells_each_device_once_in_the_order_of_its_last_change", |hub| {
        the_feed_tells_each_device_once_in_the_order_of_its_last_change(hub).boxed()
    }),
    ("a_feed_that_cannot_go_on_begins_again", |hub| a_feed_that_cannot_go_on_begins_again(hub).boxed()),
    ("the_highest_order_is_told", |hub| the_highest_order_is_told(hub).boxed()),
    ("a_restored_hub_accepts_nothing_until_it_is_readmitted", |hub| {
        a_restored_hub_accepts_nothing_until_it_is_readmitted(hub).boxed()
    }),
    ("what_a_restored_hub_is_set_to", |hub| what_a_restored_hub_is_set_to(hub).boxed()),
    ("a_hub_that_was_not_restored_is_not_set_right", |hub| a_hub_that_was_not_restored_is_not_set_right(hub).boxed()),
    ("a_lease_lets_writes_in_while_it_runs", |hub| a_lease_lets_writes_in_while_it_runs(hub).boxed()),
    ("a_list_seals_what_was_bypassed", |hub| a_list_seals_what_was_bypassed(hub).boxed()),
    ("trace_4b", |hub| trace_4b(hub).boxed()),
    ("trace_4c", |hub| trace_4c(hub).boxed()),
];

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Runs every case against a hub of its own that `fresh` makes on a clock, and names those that fail.
pub async fn check(fresh: impl Fn(Arc<ManualClock>) -> Fresh) {
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let clock = Arc::new(ManualClock::at(NOW));
        let fresh = fresh(clock.clone());
        let hub = fresh.hub.clone();
        let subject = Subject { twins: hub.twins().unwrap(), hub, clock, fresh };
        subject.renew(Vec::new()).await;
        if let Err(fault) = tokio::spawn(case(subject)).await {
            failed.push(format!("{name}: {fault}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

impl Subject {
    /// A copy of what it holds goes on in its place.
    fn restored(self, restore: Restore) -> Self {
        let hub = restore();
        Self { twins: hub.twins().unwrap(), hub, ..self }
    }

    /// Lets a hub that needs it accept writes from now on, once it has taken the list.
    async fn renew(&self, must_seal: Vec<MustSeal>) {
        if !self.hub.abilities().leases {
            return;
        }
        let ask = LeaseRenewal { incarnation: None, ticket: None, must_seal };
        let ticket = self.hub.renew_lease(&ask).await.unwrap();
        let renewal = LeaseRenewal { ticket: Some(ticket), must_seal: Vec::new(), ..ask };
        self.hub.renew_lease(&renewal).await.unwrap();
    }

    async fn reinstate(&self, session: u64, device: &str, becomes: Reinstated) -> Result<(), CallFault> {
        let incarnation = self.hub.describe().await.unwrap().incarnation;
        let device = Reinstatement { incarnation, session: Order(session), device: id(device), becomes };
        self.hub.reinstate(&device).await
    }

    async fn readmit(&self, session: u64) -> Result<(), CallFault> {
        let incarnation = self.hub.describe().await.unwrap().incarnation;
        self.hub.readmit(incarnation, Order(session)).await?;
        self.renew(Vec::new()).await;
        Ok(())
    }

    async fn page(&self, since: Option<FeedToken>, max: u32) -> (Vec<String>, ChangePage) {
        let page = self.hub.changes(since, max).await.unwrap();
        (page.rows.iter().map(|row| row.device.to_string()).collect(), page)
    }

    async fn call(&self, order: u64, effect: HubEffect) -> CallOutcome {
        self.call_for("d", order, effect).await
    }

    async fn call_for(&self, device: &str, order: u64, effect: HubEffect) -> CallOutcome {
        let call = HubCall { hub: HubId::parse("h").unwrap(), device: id(device), order: Order(order), effect };
        self.hub.obey(None, &call).await
    }

    /// The answer as a word.
    async fn told(&self, order: u64, effect: HubEffect) -> &'static str {
        match self.call(order, effect).await {
            Ok(HubAnswer::Done) => "done",
            Ok(HubAnswer::State(_)) => "state",
            Err(CallFault::Refused(refusal)) => refusal.as_str(),
            Err(CallFault::Unavailable(_)) => "unavailable",
            Err(CallFault::Unknown(_)) => "unknown",
        }
    }

    async fn answered_state(&self, order: u64, effect: HubEffect) -> DeviceState {
        match self.call(order, effect).await {
            Ok(HubAnswer::State(state)) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// The device `d`, open since order 2.
    async fn open_device(&self) {
        assert_eq!(self.told(1, create(state())).await, "done");
        assert_eq!(self.told(2, HubEffect::Activate).await, "done");
    }

    async fn report(&self, patch: &str) -> Result<Resident, TwinRefusal> {
        self.twins.report(&id("d"), &device(1), document(patch)).await
    }

    async fn desire(&self, patch: &str) -> Result<Resident, TwinRefusal> {
        let patch = TwinPatch { desired: Some(document(patch)), ..TwinPatch::default() };
        self.twins.write(&id("d"), None, TwinWrite::Patch(patch)).await
    }

    /// As a back end sees it; `None` when it is not here.
    async fn seen(&self) -> Option<Resident> {
        match self.twins.read(&id("d"), &TwinCaller::BackEnd).await {
            Ok(resident) => Some(resident),
            Err(TwinRefusal::NotFound) => None,
            Err(other) => panic!("{other}"),
        }
    }

    async fn is_open(&self) -> bool {
        self.seen().await.is_some_and(|resident| resident.open)
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn document(text: &str) -> Document {
    Document::from_text(text).unwrap()
}

fn credential(number: u8) -> Credential {
    Credential::x509([Thumbprint([number; 32])])
}

fn device(number: u8) -> TwinCaller {
    TwinCaller::Device(credential(number))
}

fn initial(desired: &str) -> InitialState {
    InitialState {
        tags: document(r#"{"site":"x"}"#),
        desired: document(desired),
        capabilities: Capabilities { iot_edge: true },
    }
}

fn state() -> DeviceState {
    let initial = initial(r#"{"rate":5}"#);
    DeviceState {
        twin: Twin::initial(&initial, NOW),
        capabilities: Capabilities::default(),
        status: HubStatus::Enabled,
    }
}

fn create(state: DeviceState) -> HubEffect {
    HubEffect::Create(Box::new(NewDevice { generation: Order(1), credential: credential(1), state }))
}

fn replace(desired: &str) -> HubEffect {
    HubEffect::ReplaceTwin(Box::new(initial(desired)))
}

async fn staged_accepts_nothing(hub: Subject) {
    assert_eq!(hub.told(1, create(state())).await, "done");
    let resident = hub.seen().await.unwrap();
    assert_eq!((resident.open, resident.state), (false, state()));
    let read = hub.hub.read(&id("d")).await.unwrap().unwrap();
    assert_eq!((read.device, read.generation, read.phase, read.state), (id("d"), Order(1), Phase::Staged, state()));
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.desire("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.twins.read(&id("d"), &device(1)).await, Err(TwinRefusal::Moving));
    assert_eq!(hub.told(2, HubEffect::Activate).await, "done");
    assert!(hub.report("{}").await.unwrap().open);
    assert_eq!(hub.hub.describe().await.unwrap().devices, 1);
}

async fn a_seal_stops_writes_and_answers_them_all(hub: Subject) {
    hub.open_device().await;
    hub.clock.advance(Duration::from_secs(1));
    let reported = hub.report(r#"{"b":1}"#).await.unwrap().state;
    assert_eq!(reported.twin.reported.metadata.last_updated_at, hub.clock.now());
    let written = hub.desire(r#"{"rate":6}"#).await.unwrap().state;
    assert_eq!(hub.answered_state(3, HubEffect::Seal).await, written);
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.desire("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.twins.read(&id("d"), &device(1)).await, Err(TwinRefusal::Moving));
    assert_eq!(hub.seen().await.unwrap().state, written);
    assert_eq!(hub.answered_state(3, HubEffect::Seal).await, written);
    assert_eq!(hub.told(4, HubEffect::Unseal).await, "done");
    assert_eq!(hub.report(r#"{"b":2}"#).await.unwrap().state.twin.reported.version, 3);
    assert_eq!(hub.told(5, HubEffect::Unseal).await, "done", "an open one stays open");
    assert!(hub.is_open().await);
    assert_eq!(hub.told(6, HubEffect::Activate).await, "not_staged");
    assert!(hub.is_open().await);
}

async fn a_repeat_gets_the_same_answer(hub: Subject) {
    for (order, effect) in [
        (1, create(state())),
        (2, HubEffect::Activate),
        (3, HubEffect::Seal),
        (4, HubEffect::Unseal),
        (5, replace("{}")),
        (6, HubEffect::UpdateCredential(credential(1))),
        (7, HubEffect::Activate),
        (8, create(state())),
        (9, HubEffect::Delete),
        (10, HubEffect::Seal),
    ] {
        let first = hub.call(order, effect.clone()).await;
        let before = hub.seen().await;
        for _ in 0..2 {
            assert_eq!(hub.call(order, effect.clone()).await, first, "{}", effect.as_str());
        }
        assert_eq!(hub.seen().await, before, "{}", effect.as_str());
    }
}

async fn a_lower_order_is_stale(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(10, HubEffect::Unseal).await, "done");
    let before = hub.seen().await;
    for effect in [
        create(state()),
        HubEffect::Activate,
        HubEffect::Seal,
        HubEffect::Unseal,
        HubEffect::Delete,
        replace("{}"),
        HubEffect::UpdateCredential(credential(2)),
    ] {
        let stale = Err(CallFault::Refused(HubRefusal::Stale { highest: Order(10) }));
        assert_eq!(hub.call(9, effect).await, stale);
    }
    assert_eq!(hub.seen().await, before);
}

async fn an_order_has_one_kind_of_call(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(2, HubEffect::Delete).await, "order_reused");
    assert_eq!(hub.told(2, HubEffect::Seal).await, "order_reused");
    assert!(hub.is_open().await);
}

async fn another_incarnation_is_refused(hub: Subject) {
    let current = hub.hub.describe().await.unwrap().incarnation;
    let call = HubCall { hub: HubId::parse("h").unwrap(), device: id("d"), order: Order(1), effect: create(state()) };
    let wrong = hub.hub.obey(Some(Incarnation(current.0 ^ 1)), &call).await;
    assert_eq!(wrong, Err(CallFault::Refused(HubRefusal::WrongIncarnation { current })));
    assert_eq!(hub.seen().await, None);
    assert_eq!(hub.hub.obey(Some(current), &call).await, Ok(HubAnswer::Done));
}

async fn an_occupied_place_is_refused(hub: Subject) {
    hub.open_device().await;
    let before = hub.seen().await;
    assert_eq!(hub.told(3, create(state())).await, "occupied");
    assert_eq!(hub.seen().await, before);
    assert_eq!(hub.told(4, HubEffect::Delete).await, "done");
    assert_eq!(hub.seen().await, None);
    assert_eq!(hub.told(5, create(state())).await, "done");
}

async fn a_carried_state_arrives_unchanged(hub: Subject) {
    hub.open_device().await;
    hub.clock.advance(Duration::from_secs(1));
    hub.desire(r#"{"rate":6.25,"net":{"apn":"ä","list":[1,{"x":true}]}}"#).await.unwrap();
    hub.report(r#"{"b":{"c":1}}"#).await.unwrap();
    let sealed = hub.answered_state(3, HubEffect::Seal).await;
    hub.clock.advance(Duration::from_secs(60));
    assert_eq!(hub.call_for("e", 4, create(sealed.clone())).await, Ok(HubAnswer::Done));
    assert_eq!(hub.call_for("e", 5, HubEffect::Activate).await, Ok(HubAnswer::Done));
    assert_eq!(hub.hub.read(&id("e")).await.unwrap().map(|read| read.state), Some(sealed));
}

async fn a_state_beyond_the_limits_is_refused(hub: Subject) {
    let mut bad = state();
    bad.twin.desired.properties = document(r#"{"a.b":1}"#);
    assert_eq!(hub.told(1, create(bad)).await, "state_invalid");
    assert_eq!(hub.seen().await, None);
    assert_eq!(hub.told(2, create(state())).await, "done");
    assert_eq!(hub.told(3, replace(r#"{"a b":1}"#)).await, "state_invalid");
    assert_eq!(hub.seen().await.unwrap().state, state());
}

async fn versions_never_go_down(hub: Subject) {
    hub.open_device().await;
    let versions = |resident: Resident| {
        let twin = resident.state.twin;
        (twin.desired.version, twin.reported.version, twin.version)
    };
    assert_eq!(versions(hub.desire(r#"{"rate":null}"#).await.unwrap()), (2, 1, 2));
    assert_eq!(versions(hub.report(r#"{"b":1}"#).await.unwrap()), (2, 2, 2));
    let replaced = TwinWrite::Replace { tags: Some(document("{}")), desired: Some(document("{}")) };
    assert_eq!(versions(hub.twins.write(&id("d"), Some(2), replaced).await.unwrap()), (3, 2, 3));
    assert_eq!(hub.told(3, replace("{}")).await, "state");
    let reset = hub.seen().await.unwrap();
    assert_eq!(reset.state.capabilities, Capabilities { iot_edge: true });
    assert_eq!(versions(reset), (4, 3, 4));
}

async fn a_credential_is_replaced_in_order(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(4, HubEffect::UpdateCredential(credential(2))).await, "done");
    assert_eq!(hub.told(3, HubEffect::UpdateCredential(credential(1))).await, "stale");
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::NotLetIn));
    assert!(hub.twins.report(&id("d"), &device(2), document("{}")).await.is_ok());
    assert_eq!(hub.told(5, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(6, HubEffect::UpdateCredential(credential(1))).await, "done", "in any phase");
    assert!(!hub.is_open().await);
}

/// A hub is told of a key that was delivered.
fn deliver(number: u8) -> HubEffect {
    HubEffect::UpdateCredential(delivered(number))
}

fn delivered(number: u8) -> Credential {
    let key = SealedKey::new(KeyFingerprint([number; 32]), vec![number]).unwrap();
    Credential::Delivered(DeliveredKeys::one(key))
}

/// The device with a token that this key has signed.
fn token(number: u8) -> TwinCaller {
    TwinCaller::Token(SignedToken::new(move |key| key.sealed() == [number]))
}

async fn a_delivered_key_is_good_until_a_newer_one_is_used(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(3, deliver(1)).await, "done");
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::NotLetIn), "the certificate is not good any more");
    let report = |number| {
        let twins = hub.twins.clone();
        async move { twins.report(&id("d"), &token(number), document("{}")).await.map(drop) }
    };
    let read = |number| {
        let twins = hub.twins.clone();
        async move { twins.read(&id("d"), &token(number)).await.map(drop) }
    };
    assert_eq!((report(1).await, report(2).await), (Ok(()), Err(TwinRefusal::NotLetIn)));
    // Answers that were lost: the keys before stay good.
    assert_eq!((hub.told(4, deliver(2)).await, hub.told(5, deliver(3)).await), ("done", "done"));
    assert_eq!((read(1).await, report(1).await), (Ok(()), Ok(())));
    // The one that arrived ends those before it, whichever way it is used first.
    assert_eq!(read(2).await, Ok(()));
    assert_eq!((read(1).await, report(1).await), (Err(TwinRefusal::NotLetIn), Err(TwinRefusal::NotLetIn)));
    assert_eq!(hub.told(6, deliver(4)).await, "done");
    assert!(hub.twins.watch(&id("d"), &token(3)).await.is_ok());
    assert_eq!((read(2).await, read(3).await), (Err(TwinRefusal::NotLetIn), Ok(())));
    assert_eq!(report(4).await, Ok(()));
    assert_eq!((read(3).await, read(4).await), (Err(TwinRefusal::NotLetIn), Ok(())));
    // A key that was told before and comes again brings nothing back.
    assert_eq!((hub.told(6, deliver(4)).await, read(3).await), ("done", Err(TwinRefusal::NotLetIn)));
}

async fn both_shared_keys_are_good_until_others_are_told(hub: Subject) {
    let key = |number: u8| SealedKey::new(KeyFingerprint([number; 32]), vec![number]).unwrap();
    let shared = |primary, secondary| Credential::Shared(KeyPair { primary: key(primary), secondary: key(secondary) });
    let device = NewDevice { generation: Order(1), credential: shared(1, 2), state: state() };
    assert_eq!(hub.told(1, HubEffect::Create(Box::new(device))).await, "done");
    assert_eq!(hub.told(2, HubEffect::Activate).await, "done");
    let read = |number| {
        let twins = hub.twins.clone();
        async move { twins.read(&id("d"), &token(number)).await.map(drop) }
    };
    // Neither ends the other, whichever is used.
    for number in [1, 2, 1] {
        assert_eq!(read(number).await, Ok(()), "{number}");
    }
    assert_eq!((read(3).await, hub.report("{}").await), (Err(TwinRefusal::NotLetIn), Err(TwinRefusal::NotLetIn)));
    let mut events = hub.twins.watch(&id("d"), &token(2)).await.unwrap();
    assert!(matches!(events.recv().await, Some(DesiredEvent::Whole { .. })));
    assert_eq!(hub.told(3, HubEffect::UpdateCredential(shared(1, 2))).await, "done");
    assert_eq!(hub.told(4, HubEffect::UpdateCredential(shared(1, 3))).await, "done");
    assert!(events.recv().await.is_none(), "whoever watches must come in anew");
    assert_eq!((read(1).await, read(2).await, read(3).await), (Ok(()), Err(TwinRefusal::NotLetIn), Ok(())));
    assert_eq!(hub.told(5, HubEffect::Delete).await, "done");
    assert_eq!((read(3).await, read(2).await), (Err(TwinRefusal::Moved), Err(TwinRefusal::NotLetIn)));
}

async fn keys_of_another_tpm_end_at_once(hub: Subject) {
    hub.open_device().await;
    assert_eq!((hub.told(3, deliver(1)).await, hub.told(4, deliver(2)).await), ("done", "done"));
    let read = |number| {
        let twins = hub.twins.clone();
        async move { twins.read(&id("d"), &token(number)).await.map(drop) }
    };
    assert_eq!(read(1).await, Ok(()));
    assert_eq!(hub.told(5, HubEffect::ReplaceCredential(delivered(3))).await, "done");
    assert_eq!((read(1).await, read(2).await), (Err(TwinRefusal::NotLetIn), Err(TwinRefusal::NotLetIn)));
    // Nor does a repeat of the call before bring them back.
    assert_eq!(hub.told(4, deliver(2)).await, "stale");
    assert_eq!((read(2).await, read(3).await), (Err(TwinRefusal::NotLetIn), Ok(())));
}

async fn a_key_of_the_old_home_opens_nothing_but_the_way_on(hub: Subject) {
    let device = NewDevice { generation: Order(1), credential: delivered(1), state: state() };
    assert_eq!(hub.told(1, HubEffect::Create(Box::new(device))).await, "done");
    assert_eq!(hub.twins.read(&id("d"), &token(1)).await, Err(TwinRefusal::Moving), "it is not open yet");
    assert_eq!(hub.told(2, HubEffect::Activate).await, "done");
    assert!(hub.twins.read(&id("d"), &token(1)).await.is_ok());
    assert_eq!(hub.told(3, HubEffect::Seal).await, "state");
    assert_eq!(hub.twins.report(&id("d"), &token(1), document("{}")).await, Err(TwinRefusal::Moving));
    assert_eq!(hub.told(4, HubEffect::Delete).await, "done");
    assert_eq!(hub.twins.read(&id("d"), &token(1)).await, Err(TwinRefusal::Moved));
    assert_eq!(hub.twins.read(&id("d"), &token(2)).await, Err(TwinRefusal::NotLetIn), "a stranger is told nothing");
}

async fn strangers_learn_nothing(hub: Subject) {
    assert_eq!(hub.twins.read(&id("d"), &device(1)).await, Err(TwinRefusal::NotLetIn));
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::NotLetIn));
    assert_eq!(hub.desire("{}").await, Err(TwinRefusal::NotFound));
    hub.open_device().await;
    assert_eq!(hub.twins.read(&id("d"), &device(2)).await, Err(TwinRefusal::NotLetIn));
    assert!(hub.twins.read(&id("d"), &device(1)).await.is_ok());
    assert_eq!(hub.twins.read(&id("D"), &device(1)).await, Err(TwinRefusal::NotLetIn), "device ids have a case");
    assert_eq!(hub.told(3, HubEffect::Delete).await, "done");
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moved));
    assert_eq!(hub.twins.read(&id("d"), &device(1)).await, Err(TwinRefusal::Moved));
    assert_eq!(hub.twins.read(&id("d"), &device(2)).await, Err(TwinRefusal::NotLetIn));
    assert_eq!(hub.twins.read(&id("d"), &TwinCaller::BackEnd).await, Err(TwinRefusal::NotFound));
}

async fn a_disabled_device_is_not_let_in(hub: Subject) {
    hub.open_device().await;
    let mut events = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    assert!(matches!(events.recv().await, Some(DesiredEvent::Whole { .. })));
    let disabled = HubStatus::Disabled { reason: "lost".to_owned() };
    let shut = hub.twins.write(&id("d"), Some(1), TwinWrite::Status(disabled.clone())).await.unwrap();
    assert_eq!((shut.state.status, shut.state.twin.version), (disabled.clone(), 1));
    assert_eq!(events.recv().await, None, "the watch ends");
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::NotLetIn));
    assert!(hub.desire(r#"{"rate":7}"#).await.is_ok(), "back ends go on");
    assert_eq!(hub.told(3, replace("{}")).await, "state");
    assert_eq!(hub.answered_state(4, HubEffect::Seal).await.status, disabled, "it survives a reset and travels");
    assert_eq!(hub.told(5, HubEffect::Unseal).await, "done");
    hub.twins.write(&id("d"), None, TwinWrite::Status(HubStatus::Enabled)).await.unwrap();
    assert!(hub.report("{}").await.is_ok());
}

async fn a_refused_write_changes_nothing(hub: Subject) {
    hub.open_device().await;
    let before = hub.seen().await;
    let large = format!(r#"{{"k":[{}]}}"#, vec!["1"; 5_000].join(","));
    for patch in [r#"{"$a":1}"#, r#"{"a":[null]}"#, large.as_str()] {
        assert!(matches!(hub.report(patch).await, Err(TwinRefusal::Invalid(_))));
        assert!(matches!(hub.desire(patch).await, Err(TwinRefusal::Invalid(_))));
    }
    let patch = TwinWrite::Patch(TwinPatch { tags: Some(document("{}")), ..TwinPatch::default() });
    assert_eq!(hub.twins.write(&id("d"), Some(2), patch).await, Err(TwinRefusal::VersionMismatch));
    assert_eq!(hub.seen().await, before);
}

async fn devices_are_listed_page_by_page(hub: Subject) {
    for (order, name) in [(1, "b"), (2, "a"), (3, "e"), (4, "c"), (5, "f")] {
        assert_eq!(hub.call_for(name, order, create(state())).await, Ok(HubAnswer::Done));
    }
    assert_eq!(hub.call_for("e", 6, HubEffect::Delete).await, Ok(HubAnswer::Done));
    assert_eq!(hub.call_for("c", 7, HubEffect::Activate).await, Ok(HubAnswer::Done));
    for (size, pages) in [(1, 4), (2, 2), (3, 2), (4, 1), (0, 4), (u32::MAX, 1)] {
        let (mut token, mut names, mut count) = (None, String::new(), 0);
        loop {
            let page = hub.twins.list(size, token.as_deref()).await.unwrap();
            count += 1;
            for row in &page.rows {
                names += row.device.as_str();
                assert_eq!(row.open, row.device.as_str() == "c");
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!((names.as_str(), count), ("abcf", pages), "pages of {size}");
    }
    for token in ["", "x", "YQ", "b"] {
        assert_eq!(hub.twins.list(1, Some(token)).await, Err(TwinRefusal::PageToken), "{token:?}");
    }
    assert_eq!(hub.hub.describe().await.unwrap().devices, 4);
}

/// `W5` is a whole document, `P6` a patch, `M` the farewell, `.` the end.
async fn events(from: &mut mpsc::Receiver<DesiredEvent>, count: usize) -> String {
    let mut words = Vec::new();
    for _ in 0..count {
        words.push(match from.recv().await {
            Some(DesiredEvent::Whole { version, .. }) => format!("W{version}"),
            Some(DesiredEvent::Patch { version, .. }) => format!("P{version}"),
            Some(DesiredEvent::Moved) => "M".to_owned(),
            None => ".".to_owned(),
        });
    }
    words.join(" ")
}

async fn a_watcher_sees_every_change(hub: Subject) {
    hub.open_device().await;
    hub.desire(r#"{"rate":6}"#).await.unwrap();
    let mut first = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    let mut second = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    hub.desire(r#"{"rate":7}"#).await.unwrap();
    assert_eq!(events(&mut first, 2).await, "W2 P3");
    drop(first);
    hub.report(r#"{"b":1}"#).await.unwrap();
    hub.desire(r#"{"rate":8}"#).await.unwrap();
    assert_eq!(events(&mut second, 3).await, "W2 P3 P4");
    assert_eq!(hub.told(3, replace("{}")).await, "state");
    assert_eq!(hub.told(3, replace("{}")).await, "state");
    hub.desire(r#"{"rate":9}"#).await.unwrap();
    assert_eq!(events(&mut second, 2).await, "W5 P6");
    assert_eq!(hub.told(4, HubEffect::Seal).await, "state");
    assert_eq!(events(&mut second, 2).await, "M .");
    assert_eq!(hub.told(5, HubEffect::Unseal).await, "done");
    let mut third = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    assert_eq!(events(&mut third, 1).await, "W6");
    assert_eq!(hub.told(6, HubEffect::Delete).await, "done");
    assert_eq!(events(&mut third, 2).await, "M .");
}

async fn a_slow_watcher_gets_a_whole_document(hub: Subject) {
    hub.open_device().await;
    let mut slow = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    for rate in 0..100 {
        hub.desire(&format!(r#"{{"rate":{rate}}}"#)).await.unwrap();
    }
    let newest = hub.seen().await.unwrap().state.twin.desired;
    let (mut version, mut properties, mut read) = (0, Document::default(), 0);
    while version < newest.version {
        read += 1;
        match slow.recv().await.unwrap() {
            DesiredEvent::Whole { desired, version: at } => {
                assert!(at > version);
                (version, properties) = (at, desired);
            }
            DesiredEvent::Patch { patch, version: at } => {
                assert_eq!(at, version + 1, "patches have no gaps");
                version = at;
                properties.0.extend(patch.0.into_inner());
            }
            DesiredEvent::Moved => panic!("nobody moved it"),
        }
    }
    assert_eq!((properties, version), (newest.properties, newest.version));
    assert!(read < 50, "what waits is folded, yet {read} events came");
}

async fn who_may_watch(hub: Subject) {
    let refused = |outcome: Result<mpsc::Receiver<DesiredEvent>, TwinRefusal>| outcome.unwrap_err();
    assert_eq!(refused(hub.twins.watch(&id("d"), &device(1)).await), TwinRefusal::NotLetIn);
    assert_eq!(hub.told(1, create(state())).await, "done");
    assert_eq!(refused(hub.twins.watch(&id("d"), &device(1)).await), TwinRefusal::Moving);
    assert_eq!(hub.told(2, HubEffect::Activate).await, "done");
    assert_eq!(refused(hub.twins.watch(&id("d"), &device(2)).await), TwinRefusal::NotLetIn);
    let mut watch = hub.twins.watch(&id("d"), &device(1)).await.unwrap();
    assert_eq!(hub.told(3, HubEffect::UpdateCredential(credential(1))).await, "done");
    hub.desire(r#"{"rate":6}"#).await.unwrap();
    assert_eq!(events(&mut watch, 2).await, "W1 P2", "the same credential changes nothing");
    assert_eq!(hub.told(4, HubEffect::UpdateCredential(credential(2))).await, "done");
    assert_eq!(events(&mut watch, 1).await, ".", "who signed in with the old one is judged anew");
}

async fn every_acknowledged_write_is_in_the_sealed_state(hub: Subject) {
    hub.open_device().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let twins = hub.twins.clone();
            tokio::spawn(async move {
                let mut accepted = Vec::new();
                for number in 0.. {
                    let key = format!("w{writer}n{number}");
                    let patch = document(&format!(r#"{{"{key}":1}}"#));
                    match twins.report(&id("d"), &device(1), patch).await {
                        Ok(_) => accepted.push(key),
                        Err(TwinRefusal::Moving) => break,
                        Err(other) => panic!("{other}"),
                    }
                    tokio::task::yield_now().await;
                }
                accepted
            })
        })
        .collect();
    while hub.seen().await.unwrap().state.twin.reported.version < 20 {
        tokio::task::yield_now().await;
    }
    let sealed = hub.answered_state(3, HubEffect::Seal).await;
    let mut accepted = Vec::new();
    for writer in writers {
        accepted.extend(writer.await.unwrap());
    }
    accepted.sort();
    let held: Vec<String> = sealed.twin.reported.properties.0.keys().cloned().collect();
    assert_eq!(accepted, held);
    assert_eq!(hub.seen().await.unwrap().state, sealed);
}

async fn a_collect_seals_and_deletes_under_one_order(hub: Subject) {
    hub.open_device().await;
    let left_over = hub.report(r#"{"late":1}"#).await.unwrap().state;
    assert_eq!(hub.answered_state(3, HubEffect::Seal).await, left_over);
    assert_eq!(hub.answered_state(3, HubEffect::Seal).await, left_over);
    assert_eq!(hub.told(3, HubEffect::Delete).await, "done");
    assert_eq!(hub.told(3, HubEffect::Delete).await, "done");
    assert_eq!(hub.told(3, HubEffect::Seal).await, "no_such_device");
    assert_eq!(hub.seen().await, None);
}

/// A→B, B→A, and B's activation arrives once more.
async fn trace_1a(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(3, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(2, HubEffect::Activate).await, "stale");
    assert!(!hub.is_open().await);
}

/// A move was given up, another one sealed again, and the first one's unseal arrives.
async fn trace_1b(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(3, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(4, HubEffect::Unseal).await, "done");
    assert_eq!(hub.told(5, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(4, HubEffect::Unseal).await, "stale");
    assert!(!hub.is_open().await);
}

/// The seal is overtaken by the unseal that takes it back.
async fn trace_1c(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(4, HubEffect::Unseal).await, "done");
    assert_eq!(hub.told(3, HubEffect::Seal).await, "stale");
    assert!(hub.is_open().await);
}

/// A create arrives after the delete that takes it back, the device never having been there.
async fn trace_1d(hub: Subject) {
    assert_eq!(hub.told(2, HubEffect::Delete).await, "done");
    assert_eq!(hub.told(1, create(state())).await, "stale");
    assert_eq!(hub.seen().await, None);
    assert_eq!(hub.told(4, HubEffect::Seal).await, "no_such_device");
    assert_eq!(hub.told(3, create(state())).await, "stale", "a refusal stays true");
}

/// An undone move's delete arrives when the device lives here after all.
async fn trace_2b(hub: Subject) {
    assert_eq!(hub.told(5, create(state())).await, "done");
    assert_eq!(hub.told(6, HubEffect::Activate).await, "done");
    assert_eq!(hub.told(4, HubEffect::Delete).await, "stale");
    assert!(hub.is_open().await);
}

/// A reset in place arrives twice, with a write in between.
async fn trace_9a(hub: Subject) {
    hub.open_device().await;
    let before = hub.seen().await.unwrap().state;
    assert_eq!(hub.answered_state(3, replace(r#"{"rate":1}"#)).await, before);
    let written = hub.report(r#"{"b":1}"#).await.unwrap().state;
    assert_eq!(hub.answered_state(3, replace(r#"{"rate":1}"#)).await, before);
    assert_eq!(hub.seen().await.unwrap().state, written);
}

/// Two resets in place, and the older one arrives last.
async fn trace_9b(hub: Subject) {
    hub.open_device().await;
    assert_eq!(hub.told(4, replace(r#"{"rate":2}"#)).await, "state");
    assert_eq!(hub.told(3, replace(r#"{"rate":1}"#)).await, "stale");
    assert_eq!(hub.seen().await.unwrap().state.twin.desired.properties, document(r#"{"rate":2}"#));
}

async fn the_feed_tells_each_device_once_in_the_order_of_its_last_change(hub: Subject) {
    let (none, start) = hub.page(None, 8).await;
    assert_eq!((none.len(), start.more, start.whole), (0, false, true));
    for (order, device) in [(1, "a"), (2, "b"), (3, "d")] {
        hub.call_for(device, order, create(state())).await.unwrap();
    }
    hub.call_for("d", 4, HubEffect::Activate).await.unwrap();
    let (all, page) = hub.page(Some(start.next), 8).await;
    assert_eq!((all, page.more, page.whole), (vec!["a".into(), "b".into(), "d".into()], false, false));
    assert_eq!(page.rows[0].phase, Phase::Staged);
    assert_eq!((page.rows[2].phase, page.rows[2].generation), (Phase::Open, Order(1)));
    let (none, unchanged) = hub.page(Some(page.next), 8).await;
    assert_eq!((none.len(), unchanged.next), (0, page.next), "what does not change is not told");

    let written = hub.report(r#"{"b":1}"#).await.unwrap().state;
    hub.call_for("a", 5, HubEffect::Activate).await.unwrap();
    hub.desire(r#"{"rate":5}"#).await.unwrap();
    let (first, page) = hub.page(Some(page.next), 1).await;
    assert_eq!((first, page.more), (vec!["a".into()], true));
    let (second, page) = hub.page(Some(page.next), 1).await;
    assert_eq!((second, page.more), (vec!["d".into()], false), "twice changed, once told");
    assert!(page.rows[0].state.twin.version > written.twin.version);

    hub.call_for("d", 6, HubEffect::Delete).await.unwrap();
    hub.call_for("b", 7, HubEffect::Delete).await.unwrap();
    let (none, page) = hub.page(Some(page.next), 8).await;
    assert_eq!(none.len(), 0, "who has left is not told of");
    let (left, _) = hub.page(None, 8).await;
    assert_eq!(left, ["a"]);
    hub.call_for("b", 8, create(state())).await.unwrap();
    let (back, _) = hub.page(Some(page.next), 8).await;
    assert_eq!(back, ["b"], "a place is not given out twice");
    let refused = hub.call_for("b", 9, HubEffect::Activate).await;
    assert_eq!(refused, Ok(HubAnswer::Done));
}

async fn a_feed_that_cannot_go_on_begins_again(hub: Subject) {
    hub.open_device().await;
    let (_, page) = hub.page(None, 8).await;
    let elsewhere = FeedToken { incarnation: Incarnation(99), ..page.next };
    let (all, again) = hub.page(Some(elsewhere), 8).await;
    assert_eq!((all, again.whole, again.next), (vec!["d".into()], true, page.next));

    // A token of its own from beyond its end: its data went back in time.
    let beyond = FeedToken { position: page.next.position + 1, ..page.next };
    let (all, again) = hub.page(Some(beyond), 8).await;
    assert_eq!((all, again.whole), (vec!["d".into()], true));
    assert_ne!(again.next.incarnation, page.next.incarnation);
    let report = hub.hub.describe().await.unwrap();
    assert_eq!((report.restored, report.incarnation), (true, again.next.incarnation));
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moving));
}

async fn the_highest_order_is_told(hub: Subject) {
    assert_eq!(hub.hub.describe().await.unwrap().highest, Order(0));
    hub.open_device().await;
    hub.call_for("other", 40, HubEffect::Delete).await.unwrap();
    assert_eq!(hub.told(30, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(3, HubEffect::Unseal).await, "stale");
    let report = hub.hub.describe().await.unwrap();
    assert_eq!((report.highest, report.restored, report.devices), (Order(40), false, 1));
}

/// Traces 8a and 8b: a hub whose data went back in time opens nothing by itself.
async fn a_restored_hub_accepts_nothing_until_it_is_readmitted(hub: Subject) {
    hub.open_device().await;
    let old = hub.hub.describe().await.unwrap().incarnation;
    let restore = (hub.fresh.copy)();
    hub.report(r#"{"lost":1}"#).await.unwrap();
    let hub = hub.restored(restore);
    let report = hub.hub.describe().await.unwrap();
    assert!(report.restored && report.incarnation != old);
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.desire("{}").await, Err(TwinRefusal::Moving));
    assert!(hub.twins.watch(&id("d"), &device(1)).await.is_err());
    for incarnation in [None, Some(old), Some(report.incarnation)] {
        let call =
            HubCall { hub: HubId::parse("h").unwrap(), device: id("d"), order: Order(9), effect: HubEffect::Seal };
        let refused = Err(CallFault::Refused(HubRefusal::WrongIncarnation { current: report.incarnation }));
        assert_eq!(hub.hub.obey(incarnation, &call).await, refused);
    }
    let (devices, _) = hub.page(None, 8).await;
    assert_eq!(devices, ["d"], "it can be gone through");
    let wrong = hub.hub.readmit(old, Order(5)).await;
    assert_eq!(wrong, Err(CallFault::Refused(HubRefusal::WrongIncarnation { current: report.incarnation })));
    assert_eq!(hub.readmit(5).await, Ok(()));
    assert_eq!(hub.readmit(5).await, Ok(()), "once more changes nothing");
    let reported = hub.report(r#"{"b":1}"#).await.unwrap().state.twin.reported.properties;
    assert_eq!(reported, document(r#"{"b":1}"#), "what came after the copy is gone");
    assert_eq!(hub.told(9, HubEffect::Seal).await, "state");
}

async fn what_a_restored_hub_is_set_to(hub: Subject) {
    hub.open_device().await;
    hub.call_for("left", 3, create(state())).await.unwrap();
    hub.call_for("left", 4, HubEffect::Activate).await.unwrap();
    let restore = (hub.fresh.copy)();
    let newer = hub.report(r#"{"b":1}"#).await.unwrap().state;
    let hub = hub.restored(restore);
    let becomes = |phase, fence| Reinstated::As {
        generation: Order(20),
        phase,
        credential: None,
        state: Box::new(newer.clone()),
        fence: Order(fence),
    };
    assert_eq!(hub.reinstate(30, "d", becomes(Phase::Open, 21)).await, Ok(()));
    assert_eq!(hub.reinstate(30, "d", becomes(Phase::Open, 21)).await, Ok(()), "a repeat changes nothing");
    assert_eq!(hub.reinstate(30, "gone", becomes(Phase::Staged, 22)).await, Ok(()));
    assert_eq!(hub.reinstate(30, "left", Reinstated::Sealed).await, Ok(()));
    assert_eq!(hub.reinstate(30, "never", Reinstated::Sealed).await, Ok(()));
    let stale = Err(CallFault::Refused(HubRefusal::Stale { highest: Order(30) }));
    assert_eq!(hub.reinstate(29, "d", Reinstated::Sealed).await, stale, "whoever began earlier has been overtaken");
    assert_eq!(hub.readmit(29).await, stale);
    let (mut devices, page) = hub.page(None, 8).await;
    devices.sort();
    assert_eq!(devices, ["d", "gone", "left"]);
    let phases: Vec<Phase> = page.rows.iter().map(|row| row.phase).collect();
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Open).count(), 1);
    assert_eq!(hub.readmit(30).await, Ok(()));

    assert_eq!(hub.seen().await.unwrap().state, newer);
    assert!(hub.report("{}").await.is_ok(), "what it signed in with is still known");
    assert_eq!(hub.told(21, HubEffect::Seal).await, "order_reused", "the fence is where it was set");
    assert_eq!(hub.told(20, HubEffect::Seal).await, "stale");
    assert_eq!(hub.call_for("gone", 23, HubEffect::Activate).await, Ok(HubAnswer::Done));
    let collected = hub.call_for("left", 24, HubEffect::Seal).await;
    assert!(matches!(collected, Ok(HubAnswer::State(_))));
    let large = "x".repeat(5_000);
    let state = DeviceState { status: HubStatus::Disabled { reason: large }, ..newer };
    let late = Reinstated::As {
        generation: Order(40),
        phase: Phase::Open,
        credential: Some(credential(2)),
        state: Box::new(state),
        fence: Order(40),
    };
    assert!(hub.reinstate(41, "d", late).await.is_err(), "it does not wait any more");
}

async fn a_hub_that_was_not_restored_is_not_set_right(hub: Subject) {
    hub.open_device().await;
    let refused = hub.reinstate(30, "d", Reinstated::Sealed).await;
    assert!(matches!(refused, Err(CallFault::Refused(HubRefusal::WrongIncarnation { .. }))), "{refused:?}");
    assert!(hub.is_open().await);
}

fn must(generation: u64, order: u64) -> MustSeal {
    MustSeal { device: id("d"), generation: Order(generation), order: Order(order) }
}

async fn a_lease_lets_writes_in_while_it_runs(hub: Subject) {
    hub.open_device().await;
    let ask = LeaseRenewal { incarnation: None, ticket: None, must_seal: Vec::new() };
    if !hub.hub.abilities().leases {
        assert!(matches!(hub.hub.renew_lease(&ask).await, Err(CallFault::Unavailable(_))));
        hub.clock.advance(limits::LEASE_FOR * 2);
        assert!(hub.report("{}").await.is_ok(), "it needs none");
        return;
    }
    let early = hub.hub.renew_lease(&ask).await.unwrap();
    hub.clock.advance(limits::LEASE_FOR - Duration::from_millis(1));
    assert!(hub.report("{}").await.is_ok());
    hub.clock.advance(Duration::from_millis(1));
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Unavailable));
    assert_eq!(hub.desire("{}").await, Err(TwinRefusal::Unavailable));
    let late = LeaseRenewal { ticket: Some(early), ..ask.clone() };
    let next = hub.hub.renew_lease(&late).await.unwrap();
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Unavailable), "it counts from when the ticket was given out");
    let elsewhere = LeaseRenewal { incarnation: Some(Incarnation(99)), ticket: Some(next), ..ask.clone() };
    assert!(hub.hub.renew_lease(&elsewhere).await.is_err());
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Unavailable));
    let unknown = LeaseRenewal { ticket: Some(LeaseTicket(u64::MAX)), ..ask.clone() };
    hub.hub.renew_lease(&unknown).await.unwrap();
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Unavailable));
    hub.renew(Vec::new()).await;
    assert!(hub.report("{}").await.is_ok());
}

async fn a_list_seals_what_was_bypassed(hub: Subject) {
    if !hub.hub.abilities().leases {
        return;
    }
    hub.open_device().await;
    hub.renew(vec![must(1, 10), MustSeal { device: id("never"), ..must(1, 10) }]).await;
    assert!(!hub.is_open().await);
    assert_eq!(hub.report("{}").await, Err(TwinRefusal::Moving));
    assert_eq!(hub.told(10, HubEffect::Seal).await, "state", "as a seal under that order");
    assert_eq!(
        hub.call_for("never", 9, create(state())).await,
        Err(CallFault::Refused(HubRefusal::Stale { highest: Order(10) }))
    );
    assert_eq!(hub.told(11, HubEffect::Seal).await, "state");
    assert_eq!(hub.told(11, HubEffect::Delete).await, "done");
}

/// A line of the list that is out of date must not seal the home of today.
async fn trace_4b(hub: Subject) {
    if !hub.hub.abilities().leases {
        return;
    }
    let HubEffect::Create(newer) = create(state()) else { unreachable!() };
    let newer = HubEffect::Create(Box::new(NewDevice { generation: Order(20), ..*newer }));
    assert_eq!(hub.told(21, newer).await, "done");
    assert_eq!(hub.told(22, HubEffect::Activate).await, "done");
    for order in [10, 30] {
        hub.renew(vec![must(19, order)]).await;
        assert!(hub.is_open().await, "{order}");
        assert!(hub.report("{}").await.is_ok());
    }
    assert_eq!(hub.told(29, HubEffect::Seal).await, "stale", "the fence is raised all the same");
    hub.renew(vec![must(20, 31)]).await;
    assert!(!hub.is_open().await);
}

/// A late unseal arrives after the list was taken.
async fn trace_4c(hub: Subject) {
    if !hub.hub.abilities().leases {
        return;
    }
    hub.open_device().await;
    assert_eq!(hub.told(3, HubEffect::Seal).await, "state");
    hub.renew(vec![must(1, 10)]).await;
    assert_eq!(hub.told(4, HubEffect::Unseal).await, "stale");
    assert!(!hub.is_open().await);
}

/// A scripted hub, as both this suite and the tests of others take it.
pub fn scripted(clock: Arc<ManualClock>, leases: bool) -> Fresh {
    let hub = ScriptedHub::new(Incarnation(7), clock);
    hub.set_abilities(Abilities { leases, ..hub.abilities() });
    let source = hub.clone();
    let copy = move || {
        let (entries, hub) = (source.snapshot(), source.clone());
        Box::new(move || {
            hub.restore(Incarnation(8), entries);
            Arc::new(hub) as Arc<dyn HubConnector>
        }) as Restore
    };
    Fresh { hub: Arc::new(hub), copy: Box::new(copy), keep: Box::new(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::SeededEntropy;
    use crate::hubs::embedded::{Config, EmbeddedHub};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_embedded_hub_conforms() {
        check(|clock| {
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let place = folder.clone();
            let open = move |name: &str, seed| {
                let config = Config { path: place.path().join(name), cache_bytes: 1 << 20, devices_max: None };
                EmbeddedHub::open(config, clock.clone(), Arc::new(SeededEntropy::new(seed))).unwrap()
            };
            let hub = open("hub.redb", 1);
            let (place, source) = (folder.clone(), hub.clone());
            let copy = move || {
                source.back_up(&place.path().join("copy.redb")).unwrap();
                let open = open.clone();
                Box::new(move || Arc::new(open("copy.redb", 2)) as Arc<dyn HubConnector>) as Restore
            };
            Fresh { hub: Arc::new(hub), copy: Box::new(copy), keep: Box::new(folder) }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_scripted_hub_conforms() {
        check(|clock| scripted(clock, false)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_scripted_hub_with_a_lease_conforms() {
        check(|clock| scripted(clock, true)).await;
    }
}
