//! The actor of a device without actix: the same core, handed the same messages one at a time, its effects performed by
//! the script's network, clock and webhook.

use std::sync::Arc;

use futures_util::FutureExt;
use rehome::actors::{After, Answer, Asker, Core, PinTo, Refused, Reply, Request};
use rehome::allocators::{AllocationAnswer, AllocationQuestion, AllocatorFault, AnsweredTwin, ChosenHub};
use rehome::attestation::Verified;
use rehome::domain::{
    ClientFacts, Document, Enrollment, Geo, Latency, OperationStatus, RequestId, SdkVersion, Timestamp,
};
use rehome::hubs::entry::Phase;
use rehome::moves::Standing;
use rehome::store::Store;
use tokio::sync::{oneshot, watch};

use super::dice::Dice;
use super::identity::{LEAVES, identity, prove};
use super::world::{Broken, Held, World, broken};

/// One actor.
pub struct Seat {
    pub number: u64,
    /// The directory would find it. One that it has forgotten works off what it has.
    pub listed: bool,
    /// Absent while a message is worked on.
    pub core: Option<Core>,
    pub updates: watch::Sender<Option<Standing>>,
    pub wakes_at: Option<Timestamp>,
}

/// Somebody waits for what an actor says.
pub struct Ask {
    pub device: usize,
    pub answer: oneshot::Receiver<Answer>,
}

/// A question to the allocation webhook.
pub struct Question {
    pub device: usize,
    pub seat: u64,
    pub asked: Box<AllocationQuestion>,
}

/// What became of one message.
pub enum Told {
    Answered(Box<Answer>),
    /// The answer comes later.
    Later(oneshot::Receiver<Answer>),
    /// The actor stopped without an answer.
    Gone,
}

impl World {
    /// Runs one message through an actor. `false` when that actor is no more.
    fn handle<F>(&mut self, device: usize, number: u64, work: impl FnOnce(Core, &mut Seat) -> F) -> Result<bool, Broken>
    where
        F: Future<Output = (Core, After)>,
    {
        let Some(seat) = self.seats[device].iter_mut().find(|seat| seat.number == number) else { return Ok(false) };
        let Some(core) = seat.core.take() else { return Ok(false) };
        let done = work(core, seat).now_or_never();
        self.finish(device, number, done)
    }

    fn finish(&mut self, device: usize, number: u64, done: Option<(Core, After)>) -> Result<bool, Broken> {
        self.count_strike();
        let Some((core, after)) = done else {
            if !self.store.take_crash() {
                return Err(Broken("a device's actor waits for what never comes".to_owned()));
            }
            self.crash();
            return Ok(false);
        };
        if after.stop {
            self.note(|| format!("the actor of {} stops, to be read again", identity(device).id));
            self.seats[device].retain(|seat| seat.number != number);
            return Ok(false);
        }
        core.publish();
        let Some(seat) = self.seats[device].iter_mut().find(|seat| seat.number == number) else { return Ok(false) };
        seat.core = Some(core);
        // No hub of the simulation holds a lease: none is asked to end one.
        let After { calls, question, end_lease: _, wake_at, stop: _ } = after;
        seat.wakes_at = seat.wakes_at.into_iter().chain(wake_at).min();
        for (key, call, _) in calls {
            self.send(device, number, key, call)?;
        }
        if let Some(asked) = question {
            self.questions.push(Question { device, seat: number, asked });
        }
        Ok(true)
    }

    /// Starts an actor of the device from the store.
    fn start(&mut self, device: usize) -> Result<Option<u64>, Broken> {
        self.seats_made += 1;
        let number = self.seats_made;
        let updates = watch::Sender::new(None);
        let load = Core::load(identity(device).id.clone(), self.surroundings.clone(), updates.clone());
        self.seats[device].insert(0, Seat { number, listed: true, core: None, updates, wakes_at: None });
        match load.now_or_never() {
            Some(Ok((core, after))) => Ok(self.finish(device, number, Some((core, after)))?.then_some(number)),
            None => {
                self.finish(device, number, None)?;
                Ok(None)
            }
            Some(Err(why)) => {
                self.count_strike();
                self.note(|| format!("{} cannot be taken up: {why}", identity(device).id));
                self.seats[device].retain(|seat| seat.number != number);
                if why.contains("cannot follow") { Err(Broken(why)) } else { Ok(None) }
            }
        }
    }

    /// The actor that the directory would find; sometimes the one that it found a moment ago.
    fn seat(&mut self, device: usize) -> Result<Option<u64>, Broken> {
        if self.tally.events.is_multiple_of(4)
            && let Some(old) = self.seats[device].iter().find(|seat| !seat.listed)
        {
            return Ok(Some(old.number));
        }
        self.listed_seat(device)
    }

    fn listed_seat(&mut self, device: usize) -> Result<Option<u64>, Broken> {
        match self.seats[device].iter().find(|seat| seat.listed) {
            Some(seat) => Ok(Some(seat.number)),
            None => self.start(device),
        }
    }

    /// As the directory asks: once, and once more when the actor stopped without an answer.
    pub fn ask<F>(&mut self, device: usize, work: impl FnMut(Core, Asker) -> F) -> Result<Told, Broken>
    where
        F: Future<Output = (Core, After)>,
    {
        self.ask_at(device, Self::seat, work)
    }

    /// As above, of what somebody read in the store: the actor that wrote it is the one that the directory has, or was.
    pub fn ask_listed<F>(&mut self, device: usize, work: impl FnMut(Core, Asker) -> F) -> Result<Told, Broken>
    where
        F: Future<Output = (Core, After)>,
    {
        self.ask_at(device, Self::listed_seat, work)
    }

    fn ask_at<F>(
        &mut self,
        device: usize,
        seat: impl Fn(&mut Self, usize) -> Result<Option<u64>, Broken>,
        mut work: impl FnMut(Core, Asker) -> F,
    ) -> Result<Told, Broken>
    where
        F: Future<Output = (Core, After)>,
    {
        for _ in 0..2 {
            let Some(number) = seat(self, device)? else { continue };
            let (reply, mut answer): (Reply<Answer>, _) = oneshot::channel();
            self.handle(device, number, |core, seat| work(core, Asker { reply, updates: seat.updates.subscribe() }))?;
            match answer.try_recv() {
                Ok(answer) => return Ok(Told::Answered(Box::new(answer))),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(Told::Later(answer)),
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        Ok(Told::Gone)
    }

    pub fn told(&mut self, device: usize, what: &str, told: Told) -> Held {
        match told {
            Told::Answered(answer) => self.answered(device, what, &answer),
            Told::Later(answer) => {
                self.note(|| format!("{} {what}: the answer comes later", identity(device).id));
                self.asks.push(Ask { device, answer });
                Ok(())
            }
            Told::Gone => {
                self.note(|| format!("{} {what}: no answer", identity(device).id));
                Ok(())
            }
        }
    }

    /// Whoever is told that the device has its hub must find it open there.
    fn answered(&mut self, device: usize, what: &str, answer: &Answer) -> Held {
        self.note(|| match answer {
            Ok(accepted) => {
                let status = accepted.standing.as_ref().map(|standing| standing.operation.status.as_str());
                format!("{} {what}: {} ({})", identity(device).id, status.unwrap_or("gone"), accepted.why)
            }
            Err(Refused::Rejudge) => format!("{} {what}: to be judged again", identity(device).id),
            Err(Refused::Fault(fault)) => format!("{} {what}: refused, {fault}", identity(device).id),
        });
        // Of two actors one may answer from a memory that the other has outrun, also when that other one is gone again. The
        // directory's do not: one that is forgotten decides nothing more.
        let Some(accepted) = answer.as_ref().ok().filter(|_| !self.devices[device].doubled) else { return Ok(()) };
        let Some(standing) = &accepted.standing else { return Ok(()) };
        let (OperationStatus::Assigned { .. }, Some(home)) = (&standing.operation.status, &standing.assignment) else {
            return Ok(());
        };
        // One that waits to be gone through lets nobody in.
        let Some(hub) = self.hubs.get(&home.hub).filter(|hub| !hub.scripted.is_restored()) else { return Ok(()) };
        match hub.scripted.phase(&standing.device_id) {
            Some(Phase::Open) => Ok(()),
            phase => broken(format!("{} is told assigned to {}, where it is {phase:?}", standing.id, home.hub)),
        }
    }

    fn said(told: Result<Told, Broken>) -> String {
        match told {
            Ok(Told::Answered(answer)) => super::actors::told(Some(&answer)),
            Ok(Told::Later(_)) => "later".to_owned(),
            Ok(Told::Gone) => super::actors::told(None),
            Err(broken) => broken.0,
        }
    }

    /// Requests whose answers are written down.
    pub fn ask_register(
        &mut self,
        device: usize,
        verified: Verified,
        enrollment: Arc<Enrollment>,
        facts: ClientFacts,
        request_id: Option<RequestId>,
    ) -> String {
        let request = Request::of_device(verified, enrollment, facts, request_id);
        Self::said(self.ask(device, |core, asker| core.register(request.clone(), asker)))
    }

    pub fn ask_reprovision(&mut self, device: usize, enrollment: Arc<Enrollment>, to: Option<PinTo>) -> String {
        Self::said(self.ask(device, |core, asker| {
            core.reprovision(enrollment.clone(), to.clone(), "operator".to_owned(), None, asker)
        }))
    }

    pub fn ask_release(&mut self, device: usize) -> String {
        let why = "the script".to_owned();
        Self::said(self.ask(device, |core, asker| core.release("operator".to_owned(), why.clone(), asker)))
    }

    pub fn ask_unpin(&mut self, device: usize) -> String {
        Self::said(self.ask(device, |core, asker| core.unpin("operator".to_owned(), asker)))
    }

    pub fn settle_asks(&mut self) -> Held {
        for mut ask in std::mem::take(&mut self.asks) {
            match ask.answer.try_recv() {
                Ok(answer) => self.answered(ask.device, "is answered", &answer)?,
                Err(oneshot::error::TryRecvError::Empty) => self.asks.push(ask),
                // The device asks again when it likes.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
        }
        Ok(())
    }

    pub fn register(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let stale = dice.percent(5);
        let leaf = dice.below(LEAVES);
        let facts = self.facts(&mut dice);
        let request_id = self.request_id(device, &mut dice);
        let enrolled = if stale { &self.devices[device].before } else { &self.devices[device].enrollment };
        let Some(enrollment) = enrolled.clone() else { return Ok(()) };
        let now = self.now();
        // A leaf that is not enrolled (any more) is refused at the door; a device knows which ones it has.
        let verified = (0..LEAVES).find_map(|turn| prove(device, (leaf + turn) % LEAVES, &enrollment, now));
        let Some(verified) = verified else { return Ok(()) };
        let request = Request::of_device(verified, enrollment, facts, request_id);
        let told = self.ask(device, |core, asker| core.register(request.clone(), asker))?;
        let what = if stale { "registers by an older proof" } else { "registers" };
        self.told(device, what, told)
    }

    fn facts(&self, dice: &mut Dice) -> ClientFacts {
        let mut facts = ClientFacts::default();
        if dice.percent(25) {
            let versions = ["2017-11-15", "2018-04-01", "2018-09-01-preview", "2019-03-31", "2021-06-01"];
            facts.api_version = dice.pick(&versions).parse().ok();
        } else if dice.percent(15) {
            let sdks = [("c", "1.2.8"), ("python", "1.4.2"), ("node", "1.7.4"), (".net", "1.1.0"), ("zig", "0.1")];
            let (name, version) = *dice.pick(&sdks);
            facts.sdk = SdkVersion::parse(name, version).ok();
        }
        if dice.percent(40) {
            let latencies =
                self.hubs.keys().map(|hub| Latency { hub: hub.clone(), milliseconds: dice.below(4) as u32 });
            facts.latencies = latencies.collect();
        }
        if dice.percent(30) {
            facts.location = Geo::new(dice.below(180) as f64 - 90.0, dice.below(360) as f64 - 180.0);
        }
        facts
    }

    pub fn request_id(&mut self, device: usize, dice: &mut Dice) -> Option<RequestId> {
        if dice.percent(50) {
            return None;
        }
        // Often a new one, sometimes the last one again.
        let requests = &mut self.devices[device].requests;
        *requests += u64::from(dice.percent(60));
        RequestId::parse(&format!("r-{requests}")).ok()
    }

    pub fn reprovision(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let Some(enrollment) = self.devices[device].enrollment.clone() else { return Ok(()) };
        let request_id = self.request_id(device, &mut dice);
        let to = dice.percent(70).then(|| self.hub_of(dice.below(1 << 16))).flatten().map(|hub| PinTo {
            hub,
            reason: "the script".to_owned(),
            expires_at: dice.percent(50).then(|| self.now().plus(std::time::Duration::from_secs(20))),
        });
        let what = match &to {
            Some(to) => format!("is ordered to {}", to.hub),
            None => "is decided about anew".to_owned(),
        };
        let told = self.ask(device, |core, asker| {
            core.reprovision(enrollment.clone(), to.clone(), "operator".to_owned(), request_id.clone(), asker)
        })?;
        self.told(device, &what, told)
    }

    pub fn release(&mut self, device: usize) -> Held {
        let told =
            self.ask(device, |core, asker| core.release("operator".to_owned(), "the script".to_owned(), asker))?;
        self.told(device, "is deleted", told)
    }

    pub fn unpin(&mut self, device: usize) -> Held {
        let told = self.ask(device, |core, asker| core.unpin("operator".to_owned(), asker))?;
        self.told(device, "is unpinned", told)
    }

    pub fn webhook(&mut self, pick: usize, seed: u64) -> Held {
        if self.questions.is_empty() {
            return Ok(());
        }
        let Question { device, seat, asked } = self.questions.remove(pick % self.questions.len());
        let mut dice = Dice::new(seed);
        let outcome = if dice.percent(10) {
            self.fault("webhook failed");
            Err(AllocatorFault::Status { status: 500 })
        } else {
            let hub = match asked.offered.len() {
                0 => ChosenHub::NotOffered { host_name: "nowhere.test".to_owned() },
                _ if dice.percent(5) => ChosenHub::NotOffered { host_name: "nowhere.test".to_owned() },
                _ => ChosenHub::Offered(dice.pick(&asked.offered).hub.clone()),
            };
            let initial_twin = dice.percent(30).then(|| AnsweredTwin {
                tags: Document::default(),
                desired: Document::from_text(r#"{"from":"the webhook"}"#).unwrap_or_default(),
            });
            Ok(AllocationAnswer { hub, initial_twin, payload: dice.percent(30).then(|| dice.below(3).into()) })
        };
        self.note(|| format!("the webhook answers about {}: {outcome:?}", identity(device).id));
        self.handle(device, seat, |core, _| core.allocated(outcome))?;
        Ok(())
    }

    pub fn wake_seats(&mut self) -> Held {
        let now = self.now();
        for device in 0..self.devices.len() {
            let due: Vec<u64> = self.seats[device]
                .iter()
                .filter(|seat| seat.wakes_at.is_some_and(|at| at <= now))
                .map(|seat| seat.number)
                .collect();
            for number in due {
                self.handle(device, number, |core, seat| {
                    seat.wakes_at = None;
                    core.woken()
                })?;
            }
        }
        Ok(())
    }

    /// What an actor is told by the network.
    pub fn step_finished(
        &mut self,
        device: usize,
        seat: u64,
        key: rehome::moves::CallKey,
        outcome: rehome::domain::CallOutcome,
    ) -> Held {
        self.handle(device, seat, |core, _| core.finished(key, outcome))?;
        Ok(())
    }

    pub fn passivate(&mut self, device: usize) {
        self.seats[device].retain(|seat| !seat.core.as_ref().is_some_and(Core::is_idle));
    }

    /// Another actor starts while the first still runs; messages find the new one, answers the one that called.
    pub fn double(&mut self, device: usize) -> Held {
        if self.seats[device].len() < 2
            && self.seats[device].iter().all(|seat| seat.core.as_ref().is_some_and(Core::is_idle))
        {
            self.note(|| format!("a second actor of {} starts", identity(device).id));
            self.fault("two actors of one device");
            self.seats[device].iter_mut().for_each(|seat| seat.listed = false);
            self.devices[device].doubled = true;
            self.start(device)?;
        }
        Ok(())
    }

    /// Somebody else has written lines of the device: its actor stops, at once or after one thing more, and another reads them.
    pub fn read_again(&mut self, device: usize) -> Held {
        if self.tally.events.is_multiple_of(3) {
            self.seats[device].iter_mut().for_each(|seat| seat.listed = false);
            self.devices[device].doubled |= !self.seats[device].is_empty();
        } else {
            self.seats[device].clear();
        }
        self.start(device)?;
        Ok(())
    }

    /// As the reconciler does: every device with an open move has an actor.
    pub fn take_up(&mut self) -> Held {
        let unfinished = self.store.unfinished().now_or_never().and_then(Result::ok).unwrap_or_default();
        for device in 0..self.devices.len() {
            if !self.seats[device].iter().any(|seat| seat.listed) && unfinished.contains(&identity(device).id) {
                self.start(device)?;
            }
        }
        Ok(())
    }
}
