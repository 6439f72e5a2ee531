//! The directory: finds a device's actor, starts it when there is none, and asks again when it died.
//!
//! **Why no message is lost when a device is passivated.** An idle actor takes its own address out of the directory and
//! keeps running until the last address is dropped; a message that was sent to it meanwhile is in its mailbox and is
//! handled. Whoever looks the device up afterwards starts a new actor. The two may overlap for a moment; the store then
//! lets only one of them go on, since every commit names the journal lines its author has seen. The other finds its
//! commit refused, drops its replies and stops, and the directory asks the living one.
//!
//! **Why a panic does not lose a request.** The reply channel is dropped with the actor; the directory takes the dead
//! address out, starts the device again from the store, and asks once more. What had been committed is found.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::prelude::SendError;
use actix::{Actor, Addr, Context};
use tokio::sync::oneshot;

use crate::attestation::Verified;
use crate::domain::{ClientFacts, Enrollment, Fault, Hub, HubId, Order, Reason, RegistrationId, RequestId};
use crate::hubs::HubConnector;
use crate::moves::Resolve;
use crate::telemetry::{self, Queue};

use super::arbiters::Arbiters;
use super::device::{DeviceActor, Surroundings};
use super::fleet::{Berth, Fleet};
use super::hub::HubActor;
use super::messages::{
    Answer, Describe, FeedRead, ForceOut, ForgetLateTwin, ForgetStorageRootKey, HubChanged, PinTo, ReadAgain, ReadFeed,
    Register, Release, Reply, Report, Reprovision, Seen, Settle, TakeBack, UndoWish, Unpin, Wake,
};

/// How actors are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Threads that actors run on.
    pub arbiters: usize,
    /// A device that nobody asked for this long gives its memory back.
    pub passivate_after: Duration,
    /// Messages that may wait for one device: a device that calls faster than it is answered is told to slow down.
    pub mailbox_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { arbiters: 2, passivate_after: Duration::from_secs(60), mailbox_max: 16 }
    }
}

/// The device has as many messages waiting as it may have.
struct Full;

/// One lock for sixteen parts of the map: enough that two cores seldom meet.
const SHARDS: usize = 16;

/// A handle on all actors; cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    devices: Arc<Devices>,
    surroundings: Arc<Surroundings>,
    arbiters: Arbiters,
    config: Config,
    closing: AtomicBool,
}

/// The addresses of the devices that are awake.
#[derive(Debug)]
pub(super) struct Devices {
    shards: Vec<Mutex<HashMap<RegistrationId, Addr<DeviceActor>>>>,
}

impl Devices {
    fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, id: &RegistrationId) -> MutexGuard<'_, HashMap<RegistrationId, Addr<DeviceActor>>> {
        let index = usize::try_from(hash_of(id) % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an address out, unless another actor has taken the device over.
    pub(super) fn forget(&self, id: &RegistrationId, actor: &Addr<DeviceActor>) {
        let mut shard = self.shard(id);
        if shard.get(id) == Some(actor) {
            shard.remove(id);
        }
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

fn hash_of(id: &RegistrationId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Directory {
    /// Starts the threads. Hubs are attached and unfinished devices taken up by the caller.
    pub fn start(config: Config, surroundings: Surroundings) -> io::Result<Self> {
        let arbiters = Arbiters::start(config.arbiters)?;
        let devices = Arc::new(Devices::new());
        let inner =
            Inner { devices, surroundings: Arc::new(surroundings), arbiters, config, closing: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The linked hubs.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.inner.surroundings.fleet
    }

    pub(super) fn surroundings(&self) -> &Arc<Surroundings> {
        &self.inner.surroundings
    }

    /// Devices that have an actor now.
    pub fn awake(&self) -> usize {
        self.inner.devices.len()
    }

    /// Puts a linked hub to work.
    pub fn attach_hub(&self, hub: Hub, connector: Arc<dyn HubConnector>) {
        let fleet = self.fleet().clone();
        let arbiter = self.inner.arbiters.of(fleet.berths().len() as u64);
        let (record, kept, surroundings) = (hub.clone(), connector.clone(), self.inner.surroundings.clone());
        let actor = HubActor::start_in_arbiter(arbiter, move |_: &mut Context<HubActor>| {
            HubActor::new(record, kept, surroundings)
        });
        fleet.put(Berth::new(hub, Some(actor), connector));
    }

    /// Reads what is new in a hub's change feed.
    pub async fn read_feed(&self, hub: &HubId) -> Result<FeedRead, Fault> {
        let away =
            |why: String| Fault::new(Reason::HubUnavailable, format!("the feed of hub {hub} cannot be read: {why}"));
        let actor = self.fleet().living_actor(hub, self.surroundings());
        let actor = actor.ok_or_else(|| Fault::new(Reason::HubNotFound, format!("hub {hub} is not linked")))?;
        let (reply, answer) = oneshot::channel();
        actor.try_send(ReadFeed { reply: Some(reply) }).map_err(|full| away(full.to_string()))?;
        match answer.await {
            Ok(read) => read.map_err(|fault| away(fault.to_string())),
            Err(_) => Err(away("its actor ended".to_owned())),
        }
    }

    /// Tells a hub's actor of its new record.
    pub async fn hub_changed(&self, hub: Hub) {
        self.fleet().set_record(hub.clone());
        if let Some(actor) = self.fleet().actor(&hub.id) {
            // A hub that was unlinked meanwhile needs no news.
            let _ = actor.send(HubChanged { hub }).await;
        }
    }

    /// Takes an unlinked hub off the board. Its actor ends when its last call has.
    pub fn detach_hub(&self, hub: &HubId) -> Option<Arc<dyn HubConnector>> {
        self.fleet().remove(hub).map(|berth| berth.connector)
    }

    /// A device that has proven itself registers.
    pub async fn register(
        &self,
        verified: Verified,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
    ) -> Result<Answer, Fault> {
        self.register_with(verified, enrollment, facts, request_id, None).await
    }

    /// As [`Directory::register`], of a device whose TPM proved itself. `blob` brings it the key of its credential.
    pub async fn register_by_tpm(
        &self,
        verified: Verified,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
        blob: Arc<[u8]>,
    ) -> Result<Answer, Fault> {
        self.register_with(verified, enrollment, facts, request_id, Some(blob)).await
    }

    async fn register_with(
        &self,
        verified: Verified,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
        blob: Option<Arc<[u8]>>,
    ) -> Result<Answer, Fault> {
        let id = verified.registration_id().clone();
        self.ask(&id, |reply| Register {
            verified: verified.clone(),
            enrollment: enrollment.clone(),
            facts: facts.clone(),
            request_id: request_id.clone(),
            blob: blob.clone(),
            reply,
        })
        .await
    }

    /// Runs the decision now, on an operator's word.
    pub async fn reprovision(
        &self,
        id: &RegistrationId,
        enrollment: Arc<Enrollment>,
        to: Option<PinTo>,
        by: &str,
        request_id: Option<RequestId>,
    ) -> Result<Answer, Fault> {
        self.ask(id, |reply| Reprovision {
            enrollment: enrollment.clone(),
            to: to.clone(),
            by: by.to_owned(),
            request_id: request_id.clone(),
            reply,
        })
        .await
    }

    /// Ends a registration and takes the device out of its hubs.
    pub async fn release(&self, id: &RegistrationId, by: &str, why: &str) -> Result<Answer, Fault> {
        self.release_as_seen(id, by, why, None).await
    }

    /// As above, if it is still as it was seen.
    pub async fn release_as_seen(
        &self,
        id: &RegistrationId,
        by: &str,
        why: &str,
        seen: Option<Seen>,
    ) -> Result<Answer, Fault> {
        self.ask(id, |reply| Release { by: by.to_owned(), why: why.to_owned(), seen, reply }).await
    }

    /// Lifts a pin.
    pub async fn unpin(&self, id: &RegistrationId, by: &str) -> Result<Answer, Fault> {
        self.ask(id, |reply| Unpin { by: by.to_owned(), reply }).await
    }

    /// Has the storage root key forgotten that the device is held to.
    pub async fn forget_storage_root_key(&self, id: &RegistrationId, by: &str) -> Result<Answer, Fault> {
        self.ask(id, |reply| ForgetStorageRootKey { by: by.to_owned(), reply }).await
    }

    /// Takes the last move back.
    pub async fn undo(
        &self,
        id: &RegistrationId,
        enrollment: Arc<Enrollment>,
        wish: UndoWish,
    ) -> Result<Answer, Fault> {
        self.ask(id, |reply| TakeBack { enrollment: enrollment.clone(), wish: wish.clone(), reply }).await
    }

    /// Resolves what a move waits for.
    pub async fn resolve(&self, id: &RegistrationId, wish: Resolve) -> Result<Answer, Fault> {
        self.ask(id, |reply| Settle { wish: wish.clone(), reply }).await
    }

    /// Gives up whatever of the device names a hub that is unlinked by force.
    pub async fn force_out(&self, id: &RegistrationId, hub: &HubId, by: &str, why: &str) -> Result<Answer, Fault> {
        self.ask(id, |reply| ForceOut { hub: hub.clone(), by: by.to_owned(), why: why.to_owned(), reply }).await
    }

    /// Takes a late twin out of the history.
    pub async fn forget_late_twin(&self, id: &RegistrationId, generation: Order, by: &str) -> Result<Answer, Fault> {
        self.ask(id, |reply| ForgetLateTwin { generation, by: by.to_owned(), reply }).await
    }

    /// How a device stands, with the tries of its calls and news as it changes. Wakes the device.
    pub async fn describe(&self, id: &RegistrationId) -> Result<Report, Fault> {
        self.ask(id, |reply| Describe { reply }).await
    }

    /// Takes up every device that has work left from an earlier life. Returns how many.
    pub async fn resume(&self) -> Result<usize, Fault> {
        let unfinished = self.inner.surroundings.store.unfinished().await.map_err(|fault| {
            Fault::new(Reason::ServiceUnavailable, format!("the unfinished moves cannot be read: {fault}"))
        })?;
        for id in &unfinished {
            self.activate(id);
        }
        Ok(unfinished.len())
    }

    /// From now on nothing new is taken; what is under way is journaled and goes on after the next start.
    pub fn close(&self) {
        self.inner.closing.store(true, Ordering::Release);
    }

    async fn ask<M, R>(&self, id: &RegistrationId, message: impl Fn(Reply<R>) -> M) -> Result<R, Fault>
    where
        M: actix::Message<Result = ()> + Send + 'static,
        DeviceActor: actix::Handler<M>,
    {
        // The second try finds an actor that starts from the store; a third would meet the same store.
        for _ in 0..2 {
            if self.inner.closing.load(Ordering::Acquire) {
                break;
            }
            let (reply, answer) = oneshot::channel();
            let actor = match self.send(id, message(reply)) {
                Ok(actor) => actor,
                Err(Full) => {
                    telemetry::overloaded(Queue::DeviceMailbox);
                    let fault = Fault::new(Reason::Overloaded, "the device has too many requests waiting");
                    return Err(fault.retry_after(self.retry_hint()));
                }
            };
            match answer.await {
                Ok(answer) => return Ok(answer),
                Err(_) => self.inner.devices.forget(id, &actor),
            }
        }
        let fault = Fault::new(Reason::ServiceUnavailable, "the device's record cannot be worked on now");
        Err(fault.retry_after(self.retry_hint()))
    }

    /// One to four seconds, spread so that devices do not come back together.
    fn retry_hint(&self) -> Duration {
        let draw = self.inner.surroundings.entropy.draw_u128() % 3000;
        Duration::from_millis(1000 + u64::try_from(draw).unwrap_or(0))
    }

    /// Hands a message to a device's actor, started when there is none. Sent through the directory's own address: actix
    /// grants every *clone* of an address a place beyond the mailbox's bound, so a clone would never find it full.
    fn send<M>(&self, id: &RegistrationId, message: M) -> Result<Addr<DeviceActor>, Full>
    where
        M: actix::Message<Result = ()> + Send + 'static,
        DeviceActor: actix::Handler<M>,
    {
        let mut shard = self.inner.devices.shard(id);
        if shard.get(id).is_some_and(|actor| !actor.connected()) {
            shard.remove(id);
        }
        let actor = shard.entry(id.clone()).or_insert_with(|| self.start_device(id));
        match actor.try_send(message) {
            Ok(()) => Ok(actor.clone()),
            // It stopped this moment: its reply channel is dropped with the message, and the caller asks again.
            Err(SendError::Closed(_)) => Ok(actor.clone()),
            Err(SendError::Full(_)) => Err(Full),
        }
    }

    /// A device's actor, started when there is none.
    pub(super) fn activate(&self, id: &RegistrationId) -> Addr<DeviceActor> {
        let mut shard = self.inner.devices.shard(id);
        shard.entry(id.clone()).or_insert_with(|| self.start_device(id)).clone()
    }

    fn start_device(&self, id: &RegistrationId) -> Addr<DeviceActor> {
        let inner = &self.inner;
        let device = DeviceActor::new(
            id.clone(),
            inner.surroundings.clone(),
            inner.devices.clone(),
            inner.config.passivate_after,
            inner.config.mailbox_max,
        );
        DeviceActor::start_in_arbiter(inner.arbiters.of(hash_of(id)), move |_: &mut Context<DeviceActor>| device)
    }

    /// Has a device taken up from the store, since somebody else wrote lines of it. One that is full finds them when its next
    /// commit is refused.
    pub fn read_again(&self, id: &RegistrationId) {
        if let Ok(before) = self.send(id, ReadAgain) {
            self.inner.devices.forget(id, &before);
        }
        self.activate(id);
    }

    /// Asks a device that is awake to look after itself: for tests and after a hub has come back.
    pub fn wake(&self, id: &RegistrationId) {
        // A device that is full is awake anyway.
        let _ = self.send(id, Wake);
    }
}
