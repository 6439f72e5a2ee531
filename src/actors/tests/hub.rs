//! A hub's rate and circuit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::world::{World, hub_id};
use crate::actors::Config;
use crate::domain::{
    CallFault, CallOutcome, DeviceId, DeviceState, FeedToken, HubCall, Incarnation, OperationStatus, Order,
};
use crate::hubs::entry::EffectKind;
use crate::hubs::scripted::{ScriptedFault, ScriptedHub};
use crate::hubs::{Abilities, ChangePage, HubConnector, HubReport, LeaseRenewal, LeaseTicket, Reinstatement, TwinHost};

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

    fn read<'a>(&'a self, device: &'a DeviceId) -> BoxFuture<'a, Result<Option<DeviceState>, CallFault>> {
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
