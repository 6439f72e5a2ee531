//! A hub's rate and circuit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::world::{Device, World, hub_id, reason};
use crate::actors::Config;
use crate::actors::messages::EndLease;
use crate::ambient::Clock;
use crate::domain::{
    CallFault, CallOutcome, DeviceId, FeedToken, HubCall, Incarnation, MustSeal, OperationStatus, Order, Reason,
    Timestamp, UnreachableRule, limits,
};
use crate::hubs::entry::{EffectKind, Entry, Phase};
use crate::hubs::scripted::{ScriptedFault, ScriptedHub};
use crate::hubs::{
    Abilities, ChangePage, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, Sighting, TwinHost,
};
use crate::moves::late_twin;
use crate::store::Store;

#[tokio::test]
async fn calls_keep_to_the_hubs_rate() {
    let mut world = World::with(Config::default(), &[]).await;
    world.link("a", |hub| hub.calls_per_second = Some(2)).await;
    let mut devices = Vec::new();
    for n in 0..4 {
        devices.push(world.enroll(&format!("dev-{n}"), |_| {}).await);
    }
    for device in &devices {
        world.register(device).await;
    }
    // Two slots are free at once; the other calls wait for the clock, which stands still.
    let two = async {
        while world.hub("a").received().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, two).await.unwrap();
    for device in &devices {
        world.directory.describe(&device.id).await.unwrap();
    }
    assert_eq!(world.hub("a").received().len(), 2);
    world.clock.advance(Duration::from_secs(1));
    let four = async {
        while world.hub("a").received().len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, four).await.unwrap();
    for device in &devices {
        world.quiet(device).await;
        world.assert_home(device, "a");
    }
}

#[tokio::test]
async fn a_hub_that_fails_again_and_again_is_left_alone_and_probed() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.hub("a").set_reachable(false);
    let view = || world.directory.fleet().views().iter().find(|view| view.hub.id == hub_id("a")).unwrap().reachable;
    assert!(view());
    for _ in 0..8 {
        world.register(&device).await;
        world.until(&device, |it| it.is_some_and(|it| it.operation.status.is_final())).await;
    }
    assert!(!view(), "the circuit is open");
    let other = world
        .enroll("dev-2", |enrollment| {
            enrollment.allocation = None;
            enrollment.hubs = vec![];
        })
        .await;
    let standing = world.settle(&other).await;
    assert_eq!(standing.assignment.unwrap().hub, hub_id("b"), "allocation passes it over");
    let calls = world.hub("a").received().len();
    world.register(&device).await;
    assert_eq!(world.hub("a").received().len(), calls, "nothing is sent while it is open");
    world.hub("a").set_reachable(true);
    world
        .until(&device, |it| {
            it.is_some_and(|it| {
                matches!(it.operation.status, OperationStatus::Assigned { .. } | OperationStatus::Failed { .. })
            }) && view()
        })
        .await;
    world.register(&device).await;
    world.until(&device, |it| it.is_some_and(|it| it.running.is_none())).await;
    world.register(&device).await;
    let standing = world.quiet(&device).await.unwrap();
    assert_eq!(standing.assignment.unwrap().hub, hub_id("a"));
}

#[tokio::test]
async fn a_call_without_an_answer_counts_as_unknown_and_is_repeated_with_its_order() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.hub("a").script(EffectKind::Create, ScriptedFault::LoseAnswer);
    world.register(&device).await;
    world.quiet(&device).await;
    let creates: Vec<_> =
        world.hub("a").received().into_iter().filter(|call| call.effect.as_str() == "create").collect();
    assert_eq!(creates.len(), 2);
    assert_eq!(creates[0], creates[1], "the same call, the same order");
    world.assert_home(&device, "a");
}

/// A hub whose code panics once.
#[derive(Debug)]
struct Defective {
    hub: ScriptedHub,
    sound: AtomicBool,
}

impl HubConnector for Defective {
    fn abilities(&self) -> Abilities {
        self.hub.abilities()
    }

    fn describe(&self) -> BoxFuture<'_, Result<HubReport, CallFault>> {
        self.hub.describe()
    }

    fn obey<'a>(&'a self, incarnation: Option<Incarnation>, call: &'a HubCall) -> BoxFuture<'a, CallOutcome> {
        assert!(self.sound.swap(true, Ordering::SeqCst), "a defect, on purpose");
        self.hub.obey(incarnation, call)
    }

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<Sighting>, CallFault>> {
        HubConnector::read(&self.hub, device)
    }

    fn changes(&self, since: Option<FeedToken>, max: u32) -> BoxFuture<'_, Result<ChangePage, CallFault>> {
        self.hub.changes(since, max)
    }

    fn renew_lease<'a>(&'a self, renewal: &'a LeaseRenewal) -> BoxFuture<'a, Result<LeaseTicket, CallFault>> {
        self.hub.renew_lease(renewal)
    }

    fn reinstate<'a>(&'a self, device: &'a Reinstatement) -> BoxFuture<'a, Result<(), CallFault>> {
        self.hub.reinstate(device)
    }

    fn readmit(&self, incarnation: Incarnation, session: Order) -> BoxFuture<'_, Result<(), CallFault>> {
        self.hub.readmit(incarnation, session)
    }

    fn twins(&self) -> Option<Arc<dyn TwinHost>> {
        self.hub.twins()
    }
}

#[tokio::test]
async fn after_a_panic_of_a_hubs_actor_the_next_call_works() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let berth = world.directory.fleet().berth(&hub_id("a")).unwrap();
    let defective = Defective { hub: world.hub("a").clone(), sound: AtomicBool::new(false) };
    world.directory.attach_hub(berth.hub, Arc::new(defective));
    world.register(&device).await;
    world.quiet(&device).await;
    world.assert_home(&device, "a");
}

impl World {
    /// Reads a hub's feed now.
    async fn read_feed(&self, hub: &str) -> Result<u64, Reason> {
        let read = self.directory.read_feed(&hub_id(hub)).await;
        read.map(|read| read.devices).map_err(|fault| fault.reason)
    }

    async fn known_tags(&self, device: &Device) -> Option<(String, Timestamp)> {
        let known = self.store.load_last_known(&device.id).await.unwrap()?;
        Some((known.state.twin.tags.to_text(), known.seen_at))
    }
}

#[tokio::test]
async fn the_newest_states_of_homes_are_known() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    assert_eq!(world.read_feed("a").await, Ok(1));
    let commits = world.store.commits();
    assert_eq!(world.read_feed("a").await, Ok(0));
    assert_eq!(world.store.commits(), commits, "what has not changed costs nothing");
    world.clock.advance(Duration::from_secs(1));
    assert!(world.write(&device, "a", r#"{"n":1}"#));
    assert_eq!(world.read_feed("a").await, Ok(1));
    let known = world.known_tags(&device).await;
    assert_eq!(known, Some((r#"{"n":1}"#.to_owned(), world.clock.now())));
    assert_eq!(world.directory.fleet().berth(&hub_id("a")).unwrap().feed_at, Some(world.clock.now()));

    world.hub("a").set_reachable(false);
    assert_eq!(world.read_feed("a").await, Err(Reason::HubUnavailable));
    assert_eq!(world.known_tags(&device).await, known, "a hub that is away takes nothing from what is known");
    assert_eq!(world.read_feed("x").await, Err(Reason::HubNotFound));
    world.hub("a").set_reachable(true);
    world.over(world.move_to(&device, "b").await.unwrap().unwrap()).await;
    assert_eq!(world.known_tags(&device).await, None);
}

#[tokio::test]
async fn the_feed_is_read_by_itself() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let read = async {
        while world.known_tags(&device).await.is_none() {
            world.clock.advance(Duration::from_secs(15));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, read).await.unwrap();
}

/// A hub that was restored is as one that is away, and what is known of its devices is not overwritten by what it has.
#[tokio::test]
async fn a_restored_hub_is_not_called() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    let backup = world.hub("a").snapshot();
    assert!(world.write(&device, "a", r#"{"n":1}"#));
    assert_eq!(world.read_feed("a").await, Ok(1));
    world.hub("a").restore(Incarnation(9), backup);
    assert_eq!(world.read_feed("a").await, Err(Reason::HubUnavailable));
    assert!(world.directory.fleet().is_restored(&hub_id("a")));
    assert_eq!(world.known_tags(&device).await.unwrap().0, r#"{"n":1}"#);
    let before = world.hub("a").received().len();
    let accepted = world.move_to(&device, "b").await.unwrap().unwrap();
    assert_eq!(accepted.standing.unwrap().operation.status, OperationStatus::Assigning);
    world.directory.describe(&device.id).await.unwrap();
    assert_eq!(world.hub("a").received().len(), before, "the move waits");
}

/// Without having been told: the first call finds it out, and did not happen.
#[tokio::test]
async fn a_call_finds_out_that_a_hub_was_restored() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.hub("a").restore(Incarnation(9), world.hub("a").snapshot());
    world.move_to(&device, "b").await.unwrap().unwrap();
    let found = async {
        while !world.directory.fleet().is_restored(&hub_id("a")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, found).await.unwrap();
    let standing = world.directory.describe(&device.id).await.unwrap().standing.unwrap();
    assert_eq!(standing.operation.status, OperationStatus::Assigning, "neither aborted nor stuck");
}

/// Trace 13: orders that are above all of ours are of a life of the store that is forgotten.
#[tokio::test]
async fn an_order_from_the_future_stops_all_moves() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    let other = world.enroll("dev-2", |enrollment| enrollment.hubs = vec![hub_id("b")]).await;
    world.settle(&device).await;
    let name = DeviceId::from(&device.id);
    let entry = world.hub("a").entry(&name).unwrap();
    world.hub("a").place(&name, Some(Entry { highest: Order(1 << 40), ..entry }));
    world.move_to(&device, "b").await.unwrap().unwrap();
    let halted = async {
        while world.directory.fleet().halted().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, halted).await.unwrap();
    world.directory.describe(&device.id).await.unwrap();
    assert!(world.store.life().await.unwrap().restored, "a restart knows it, too");
    let before = (world.hub("a").received().len(), world.hub("b").received().len());
    assert_eq!(reason(world.ask(&other, None).await), Some(Reason::ServiceUnavailable));
    for _ in 0..20 {
        world.clock.advance(Duration::from_secs(10));
        world.directory.describe(&device.id).await.unwrap();
    }
    let standing = world.directory.describe(&device.id).await.unwrap().standing.unwrap();
    assert_eq!(standing.operation.status, OperationStatus::Assigning, "no deadline counts meanwhile");
    assert_eq!((world.hub("a").received().len(), world.hub("b").received().len()), before);
}

/// A hub that was away at the start is listened to before anything is said to it: what counts is what had been ordered by
/// then, however many orders were given out since.
#[tokio::test]
async fn a_hub_that_was_away_at_the_start_is_listened_to_first() {
    for (known_by_then, goes_on) in [(true, true), (false, false)] {
        let world = World::new().await;
        let device = world.enroll("dev-1", |_| {}).await;
        world.settle(&device).await;
        let fleet = world.directory.fleet();
        let last = if known_by_then { world.store.life().await.unwrap().last } else { Order(1) };
        fleet.set_unheard(&hub_id("a"), Some(last));
        let before = world.hub("a").received().len();
        world.move_to(&device, "b").await.unwrap().unwrap();
        let ended = async {
            while fleet.halted().is_none() && world.hub("a").received().len() == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::world::PATIENCE, ended).await.unwrap();
        assert_eq!((fleet.halted().is_none(), fleet.unheard(&hub_id("a")).is_none()), (goes_on, goes_on));
        world.directory.describe(&device.id).await.unwrap();
        assert_eq!(world.hub("a").received().len() > before, goes_on);
    }
}

async fn leased() -> World {
    let mut world = World::with(Config::default(), &[]).await;
    world.link_as("a", |_| {}, |hub| hub.set_abilities(Abilities { leases: true, ..hub.abilities() })).await;
    world
}

impl World {
    /// Whether back ends can write at a hub, once what is under way has come to rest.
    async fn comes_to_accept(&self, device: &Device, hub: &str, accepted: bool) {
        let so = async {
            while self.write(device, hub, "{}") != accepted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::world::PATIENCE, so).await.expect("the lease comes to be as expected");
    }

    fn end_lease(&self, device: &Device, generation: u64, order: u64) -> oneshot::Receiver<()> {
        let (reply, over) = oneshot::channel();
        let must_seal =
            MustSeal { device: DeviceId::from(&device.id), generation: Order(generation), order: Order(order) };
        let berth = self.directory.fleet().berth(&hub_id("a")).unwrap();
        berth.actor.unwrap().try_send(EndLease { must_seal, reply }).map_err(|_| "full").unwrap();
        over
    }
}

#[tokio::test]
async fn a_lease_is_renewed_for_ever() {
    let world = leased().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    for _ in 0..10 {
        let is_fresh = |at: Timestamp| at.plus(Duration::from_secs(1)) >= world.clock.now();
        let renewed = async {
            // Slow threads let the clock run away: then the first renewal comes with a ticket that has run out.
            while !world.directory.fleet().berth(&hub_id("a")).unwrap().lease_at.is_some_and(is_fresh)
                || !world.write(&device, "a", "{}")
            {
                world.read_feed("a").await.unwrap();
                // The clock may have gone on before the next renewal was set: that one comes a little later.
                world.clock.advance(Duration::from_millis(100));
            }
        };
        tokio::time::timeout(super::world::PATIENCE, renewed).await.expect("it is renewed in turn");
        world.clock.advance(limits::LEASE_RENEWED_EVERY);
    }
    world.hub("a").set_reachable(false);
    world.clock.advance(limits::LEASE_FOR);
    assert!(!world.write(&device, "a", "{}"), "cut off, it runs out by itself");
}

/// Trace 4a: what is bypassed accepts nothing any more before anything is opened elsewhere.
#[tokio::test]
async fn a_bypassed_hub_that_is_away_has_run_out_before_it_is_said() {
    let world = leased().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.comes_to_accept(&device, "a", true).await;
    world.hub("a").set_reachable(false);
    let mut over = world.end_lease(&device, 1_000, 2_000);
    assert!(world.read_feed("a").await.is_err(), "its messages are handled in turn");
    let moment = Duration::from_millis(1);
    world.clock.advance(limits::LEASE_FOR + limits::LEASE_MARGIN - moment);
    assert!(world.read_feed("a").await.is_err());
    assert!(over.try_recv().is_err(), "not a moment before");
    world.clock.advance(moment);
    tokio::time::timeout(super::world::PATIENCE, over).await.expect("then it is over").unwrap();
    assert!(!world.write(&device, "a", "{}"));
    // It comes back: first the list, then the lease.
    world.hub("a").set_reachable(true);
    let sealed = async {
        while world.phases(&device) != [("a".to_owned(), Phase::Sealed)] {
            world.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::world::PATIENCE, sealed).await.unwrap();
    assert!(!world.write(&device, "a", "{}"));
}

/// A device whose hub holds a lease and is cut off is moved by the rule: as long as that hub may accept writes, the new home
/// is not open.
#[tokio::test]
async fn a_device_leaves_a_leased_hub_that_is_away_once_its_lease_has_run_out() {
    let mut world = leased().await;
    world.link("b", |_| {}).await;
    let device = world
        .enroll("dev-1", |enrollment| {
            (enrollment.unreachable, enrollment.allow_late_writes) = (UnreachableRule::LastKnown, true);
        })
        .await;
    world.settle(&device).await;
    world.comes_to_accept(&device, "a", true).await;
    assert!(world.write(&device, "a", r#"{"seen":1}"#));
    world.read_feed("a").await.unwrap();
    let name = DeviceId::from(&device.id);
    world.hub("a").set_reachable(false);
    world.move_to(&device, "b").await.unwrap().unwrap();
    let mut accepted = 0;
    let moved = world
        .until(&device, |standing| {
            if world.write(&device, "a", r#"{"late":1}"#) {
                accepted += 1;
                assert_ne!(world.hub("b").phase(&name), Some(Phase::Open), "two hubs would accept writes");
            }
            standing.is_some_and(|it| it.operation.status.is_final())
        })
        .await
        .unwrap();
    assert!(accepted > 0, "the hub goes on for as long as its lease lasts");
    assert_eq!(moved.assignment.map(|home| home.hub), Some(hub_id("b")));
    assert!(!world.write(&device, "a", "{}"));
    assert_eq!(world.tags(&device, "b").as_deref(), Some(r#"{"seen":1}"#));
    // It comes back: nothing opens there, and what it had accepted is kept.
    world.hub("a").set_reachable(true);
    let standing = world.quiet(&device).await.unwrap();
    world.assert_home(&device, "b");
    let generation = standing.assignment.unwrap().generation;
    let late = late_twin(&world.store.load_move(generation).await.unwrap().unwrap()).unwrap();
    assert_eq!(late.state.twin.tags.to_text(), r#"{"late":1,"seen":1}"#);
}

#[tokio::test]
async fn a_hub_that_takes_the_list_ends_the_wait_at_once() {
    let world = leased().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.comes_to_accept(&device, "a", true).await;
    let over = world.end_lease(&device, 1_000, 2_000);
    tokio::time::timeout(super::world::PATIENCE, over).await.expect("no time has to pass").unwrap();
    assert_eq!(world.phases(&device), [("a".to_owned(), Phase::Sealed)]);
}

#[tokio::test]
async fn a_hub_without_a_lease_is_not_waited_for() {
    let world = World::new().await;
    let device = world.enroll("dev-1", |_| {}).await;
    world.settle(&device).await;
    world.end_lease(&device, 1_000, 2_000).await.unwrap();
    world.assert_home(&device, "a");
}
