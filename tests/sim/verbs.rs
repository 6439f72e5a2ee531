//! What operators order of a device that is in trouble: take a move back, resolve what it waits for, remove a late twin,
//! and give up a hub for good.

use futures_util::FutureExt;
use rehome::actors::UndoWish;
use rehome::domain::{Credential, HubId, InitialState, OperationId, Order, SubStatus, UnreachableRule};
use rehome::moves::{Intent, LeftOver, Machine, Move, OwedState, Plan, Preconditions, Resolve, Way, left_over, names};
use rehome::store::{DeviceFile, Store};

use super::dice::Dice;
use super::identity::identity;
use super::seat::Told;
use super::world::{Broken, Held, World};

impl World {
    fn file(&self, device: usize) -> Option<DeviceFile> {
        self.store.load_device(&identity(device).id).now_or_never()?.ok()
    }

    fn open_moves(&self, device: usize) -> Vec<Move> {
        let logs = self.file(device).map(|file| file.open).unwrap_or_default();
        logs.into_iter().filter_map(|log| Move::replay(log).ok()).collect()
    }

    fn count_act(&mut self, what: &'static str, told: &Told) {
        if matches!(told, Told::Answered(answer) if answer.is_ok()) {
            *self.tally.acts.entry(what).or_default() += 1;
        }
    }

    /// The device goes back to where it came from, often with the twin that it had there.
    pub fn undo(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let Some(enrollment) = self.devices[device].enrollment.clone() else { return Ok(()) };
        let home = self.file(device).and_then(|file| file.registration?.assignment);
        let wish = UndoWish {
            generation: home.filter(|_| dice.percent(30)).map(|home| home.generation),
            restore_twin: dice.percent(60),
            reason: "the script".to_owned(),
            expires_at: dice.percent(50).then(|| self.now().plus(std::time::Duration::from_secs(20))),
            by: "operator".to_owned(),
            request_id: self.request_id(device, &mut dice),
        };
        let what = if wish.restore_twin { "undo with the twin from before" } else { "undo" };
        let told = self.ask(device, |core, asker| core.undo(enrollment.clone(), wish.clone(), asker))?;
        self.count_act(what, &told);
        self.told(device, &format!("is sent back ({what})"), told)
    }

    /// Somebody looks at an open move, mostly one that is stuck, and does something about it.
    pub fn resolve(&mut self, device: usize, seed: u64) -> Held {
        let mut dice = Dice::new(seed);
        let moves = self.open_moves(device);
        let is_stuck = |this: &&Move| this.owed().iter().any(|owed| matches!(owed.state, OwedState::Stuck(_)));
        let stuck: Vec<&Move> = moves.iter().filter(is_stuck).collect();
        let all: Vec<&Move> = moves.iter().collect();
        let among = if stuck.is_empty() || dice.percent(20) { all } else { stuck };
        if among.is_empty() {
            return Ok(());
        }
        let this = *dice.pick(&among);
        let owed = this.owed();
        let meant = (!owed.is_empty() && dice.percent(60)).then(|| dice.pick(owed).clone());
        let (way, what) = *dice.pick(&[
            (Way::Retry, "resolve: retry"),
            (Way::Abandon, "resolve: abandon"),
            (Way::Force, "resolve: force"),
        ]);
        let wish = Resolve {
            generation: this.generation,
            effect: meant.as_ref().map(|owed| owed.effect),
            hub: meant.map(|owed| owed.hub),
            way,
            by: "operator".to_owned(),
            why: "the script".to_owned(),
        };
        let told = self.ask(device, |core, asker| core.resolve(wish.clone(), asker))?;
        self.count_act(what, &told);
        self.told(device, &format!("has move {} resolved ({})", wish.generation, way.as_str()), told)
    }

    /// What a hub has of a device that lives elsewhere goes to the history and is deleted there, beside whatever else is
    /// under way; whoever works on the device reads it again.
    pub fn tidy(&mut self, device: usize) -> Held {
        let id = &identity(device).id;
        let Some(DeviceFile { registration: Some(record), open, earlier }) = self.file(device) else { return Ok(()) };
        let Ok(machine) = Machine::load(id.clone(), Some(record.clone()), open, earlier) else { return Ok(()) };
        let loose = self.hubs.iter().find(|(hub, it)| {
            let found = it.scripted.entry(&record.device_id).and_then(|entry| entry.tenant);
            found.is_some_and(|found| {
                left_over(hub, Some(&record), machine.moves(), found.generation) == LeftOver::Loose
            })
        });
        let Some(hub) = loose.map(|(hub, _)| hub.clone()) else { return Ok(()) };
        let why = format!("{hub} had a twin of {id} left");
        let intent = Intent {
            operation: OperationId(u128::from(self.tally.events)),
            request_id: None,
            by: "operator".to_owned(),
            registration: record.id.clone(),
            device: record.device_id.clone(),
            plan: Plan::Collect { from: Some(hub) },
            enrollment: record.enrollment.clone(),
            enrollment_version: record.enrollment_version,
            policy: record.policy,
            sub_status: SubStatus::ReprovisionedToInitialAssignment,
            credential: Credential::x509([]),
            initial: InitialState::default(),
            planted: None,
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: false,
            adopt_existing: false,
            payload: None,
            tpm: None,
            pin: None,
            why: why.clone(),
        };
        let step = machine.begin(Box::new(intent), Preconditions::default(), self.now());
        let written = self.store.commit(step.into()).now_or_never();
        self.count_strike();
        match written {
            // The process dies with it.
            None => {
                self.store.take_crash();
                self.crash();
            }
            // Written or not: nobody else would tell who works on the device.
            Some(Ok(_) | Err(_)) => {
                self.note(|| why);
                self.seats[device].clear();
            }
        }
        Ok(())
    }

    /// An operator has read a late twin and removes it.
    pub fn forget_late_twin(&mut self, device: usize) -> Held {
        let record = self.file(device).and_then(|file| file.registration);
        let Some(generation) = record.and_then(|record| record.past.late.first().copied()) else { return Ok(()) };
        self.store.ledger(|ledger| ledger.pardoned.insert(generation));
        let told = self.ask(device, |core, asker| core.forget_late_twin(generation, "operator".to_owned(), asker))?;
        self.count_act("late twin removed", &told);
        self.told(device, "has a late twin removed", told)
    }

    /// Has every device give up what names the hub, as the service does. The order after which none may have begun to, or
    /// nothing when somebody could not: the operator tries again.
    ///
    /// Until the hub is gone, what its devices are told of it is untrue.
    pub fn force_out(&mut self, hub: &HubId) -> Result<Option<Order>, Broken> {
        let life = self.store.life().now_or_never().and_then(Result::ok);
        let Some(after) = life.map(|life| life.last) else { return Ok(None) };
        let why = format!("hub {hub} is unlinked by force: it accepts no writes");
        for device in 0..self.devices.len() {
            if !self.open_moves(device).iter().any(|this| names(this, hub)) {
                continue;
            }
            let told = self.ask_listed(device, |core, asker| {
                core.force_out(hub.clone(), "operator".to_owned(), why.clone(), asker)
            })?;
            let done = matches!(&told, Told::Answered(answer) if answer.is_ok());
            self.count_act("moves forced out with their hub", &told);
            if !done {
                return Ok(None);
            }
        }
        Ok(Some(after))
    }
}
