//! Hubs and a store that go on from an older copy of themselves, and what going through the devices then does.
//!
//! A hub of a new incarnation refuses everything until every device there is set as record and journal say; a store that
//! went back in time gives out orders above all that were given out before, and moves no device until its homes are held
//! against what the hubs have. Each of the two is one step: until it is over the hub, or the whole service, stands still.

use std::sync::Arc;

use rehome::domain::{
    Assignment, Credential, DeviceState, HubCall, HubEffect, HubId, Operation, OperationStatus, Order, Past, Reason,
    Registration, SubStatus,
};
use rehome::hubs::entry::{Entry, Phase, Reinstated, reinstate};
use rehome::moves::{LeftOver, Move, Plan, Preconditions, Stand, Tenancy, left_over, stand_at};

use super::rules::{Rule, obeyed};
use super::world::{Log, NOW, Scenario, State, device, first_state, print_of};

/// Orders of one life of the store.
const ORDERS_OF_A_LIFE: u64 = 1 << 10;

/// The store as it was when a copy was made.
#[derive(Debug, Clone)]
pub struct StoreCopy {
    order: u64,
    record: Option<Arc<Registration>>,
    earlier: Past,
    open: Vec<Log>,
    history: Vec<Log>,
}

impl StoreCopy {
    pub fn print(&self) -> u64 {
        let prints: Vec<u64> = self.open.iter().chain(&self.history).map(|log| log.print).collect();
        print_of(&(self.order, &self.record, &self.earlier, prints, self.open.len()))
    }
}

/// A hub's copy of itself, and in which life it is.
#[derive(Debug, Clone, Default)]
pub struct Life {
    pub copy: Option<Option<Arc<Entry>>>,
    pub incarnation: u8,
    /// As the service has it.
    pub known: u8,
    /// It goes on from its copy, and nobody has gone through its devices since.
    pub waits: bool,
}

impl Life {
    pub fn print(&self) -> u64 {
        print_of(&(&self.copy, self.incarnation, self.known, self.waits))
    }
}

impl State {
    pub fn copy_hub(&mut self, place: usize) {
        self.left.copied -= 1;
        self.hubs[place].life.copy = Some(self.hubs[place].entry.clone());
    }

    /// The hub goes on from its copy, under a new name for this life.
    pub fn restore_hub(&mut self, place: usize, scenario: &Scenario) {
        self.left.restored -= 1;
        let hub = &mut self.hubs[place];
        let Some(copy) = hub.life.copy.take() else { return };
        hub.keep(copy.as_deref().cloned());
        if !scenario.without.contains(&Rule::Incarnations) {
            hub.life.incarnation += 1;
            hub.life.waits = true;
        }
        // What was written after the copy was made, and stands nowhere else, is lost, and said to be.
        self.reported_lost |= self.all_writes() & !self.kept_writes();
    }

    fn kept_writes(&self) -> u8 {
        let kept = self.hubs.iter().map(|hub| hub.holds).chain(self.logs().map(|log| log.holds));
        kept.fold(0, |all, one| all | one)
    }

    fn open_moves(&self) -> Vec<Move> {
        self.open.iter().map(|log| Move::replay((*log.lines).clone()).unwrap()).collect()
    }

    /// Every device of the hub is set as it should be, then the hub is let in again.
    pub fn reconcile_hub(&mut self, place: usize, scenario: &Scenario) {
        self.order += 1;
        let session = Order(self.order);
        let (at, moves) = (self.hubs[place].id.clone(), self.open_moves());
        let becomes = |tenancy: Tenancy, phase, state| Reinstated::As {
            generation: tenancy.generation,
            phase,
            fence: tenancy.fence(session),
            credential: tenancy.credential,
            state,
        };
        let set = match stand_at(&at, self.record.as_deref(), moves.iter()) {
            Stand::Open(tenancy) => {
                let state = self.newest_at(place, &tenancy, None);
                becomes(tenancy, Phase::Open, state)
            }
            Stand::Held(tenancy, state) => becomes(tenancy, Phase::Sealed, state),
            Stand::Sealed(tenancy, state) => {
                let state = self.newest_at(place, &tenancy, state);
                becomes(tenancy, Phase::Sealed, state)
            }
            Stand::Staged(tenancy, state) => {
                let state = self.newest_at(place, &tenancy, Some(state));
                becomes(tenancy, Phase::Staged, state)
            }
            Stand::Leaving | Stand::Elsewhere => Reinstated::Sealed,
        };
        let is_home = matches!(set, Reinstated::As { .. });
        let found = self.hubs[place].tenant().map(|tenant| tenant.generation);
        if let Some(entry) = reinstate(self.hubs[place].entry.as_deref(), &set).unwrap() {
            self.hubs[place].keep(Some(entry));
        }
        if let Some(found) = found.filter(|_| !is_home) {
            self.collect(&at, found, scenario);
        }
        let life = &mut self.hubs[place].life;
        (life.known, life.waits) = (life.incarnation, false);
        self.pump(self.now(), scenario);
    }

    /// The newest that is known of a home: what the copy has of it, what a move brought, what moves that came to nothing had
    /// sealed, and what a move under way has of it. Above the versions of whatever is lost.
    fn newest_at(&self, place: usize, tenancy: &Tenancy, under_way: Option<Box<DeviceState>>) -> Box<DeviceState> {
        let own = self.hubs[place].tenant().filter(|tenant| tenant.generation == tenancy.generation);
        let own = own.map(|tenant| tenant.state.clone());
        let replayed = self.logs().map(|log| Move::replay((*log.lines).clone()).unwrap());
        let journaled = replayed.filter_map(|this| {
            if this.generation == tenancy.generation {
                return this.arriving_state();
            }
            let leaves = this.intent.plan.hub(rehome::moves::plan::Side::From) == Some(&self.hubs[place].id);
            let later = this.generation > tenancy.generation && leaves;
            this.left_state().filter(|_| later).map(|known| *known.state)
        });
        let first = (tenancy.generation == Order(1)).then(first_state);
        let all = first.into_iter().chain(journaled).chain(own).chain(under_way.map(|state| *state));
        let newest = all.max_by_key(|state| state.twin.progress()).unwrap_or_else(first_state);
        Box::new(DeviceState { twin: newest.twin.ahead_of_lost_writes(), ..newest })
    }

    /// What a hub has of a device that lives elsewhere goes to the history, and is deleted there.
    fn collect(&mut self, at: &HubId, found: Order, scenario: &Scenario) {
        let moves = self.open_moves();
        match left_over(at, self.record.as_deref(), moves.iter(), found) {
            LeftOver::Home | LeftOver::Owed => {}
            LeftOver::InTheWay => {
                let message = "its hub was restored".to_owned();
                if let Some(commit) = self.machine.give_up(Reason::HubStateConflict, message, self.now()) {
                    self.commit(&commit, scenario);
                    self.collect(at, found, scenario);
                }
            }
            LeftOver::Loose => {
                let plan = Plan::Collect { from: Some(at.clone()) };
                let intent = self.intent(plan, SubStatus::InitialAssignment, Credential::x509([]), None);
                let commit = self.machine.begin(intent, Preconditions::default(), self.now());
                self.commit(&commit, scenario);
            }
        }
    }

    pub fn copy_store(&mut self) {
        self.left.copied -= 1;
        self.store_copy = Some(Arc::new(StoreCopy {
            order: self.order,
            record: self.record.clone(),
            earlier: self.earlier.clone(),
            open: self.open.clone(),
            history: self.history.clone(),
        }));
    }

    /// The service is started on its copy. That takes longer than any call is under way.
    pub fn restore_store(&mut self, scenario: &Scenario) {
        self.left.restored -= 1;
        let Some(copy) = self.store_copy.take() else { return };
        let StoreCopy { order, record, earlier, open, history } = (*copy).clone();
        (self.order, self.record, self.earlier, self.open, self.history) = (order, record, earlier, open, history);
        self.record_print = print_of(&self.record);
        if !scenario.without.contains(&Rule::OrdersOfALife) {
            self.order = (order / ORDERS_OF_A_LIFE + 1) * ORDERS_OF_A_LIFE;
        }
        self.halted = !scenario.without.contains(&Rule::HaltedUntilReconciled);
        self.net.clear();
        self.restart(scenario);
    }

    /// The device lives where it is found; what the store took for under way is closed.
    pub fn reconcile_store(&mut self, scenario: &Scenario) {
        if !scenario.without.contains(&Rule::OrdersOfALife) {
            let highest = self.hubs.iter().filter_map(|hub| hub.entry.as_ref()).map(|entry| entry.highest.0).max();
            self.order = self.order.max(highest.unwrap_or_default()) + 1;
        }
        let seen: Vec<(HubId, Phase, Order)> = self
            .hubs
            .iter()
            .filter_map(|hub| hub.tenant().map(|tenant| (hub.id.clone(), tenant.phase, tenant.generation)))
            .collect();
        let known = self.record.as_ref().and_then(|record| record.assignment.clone());
        let latest = |of: &dyn Fn(&&(HubId, Phase, Order)) -> bool| {
            seen.iter().filter(|it| of(it)).max_by_key(|(_, _, generation)| *generation).cloned()
        };
        let home = latest(&|(_, phase, _)| *phase == Phase::Open)
            .or_else(|| latest(&|(hub, _, _)| known.as_ref().is_some_and(|known| known.hub == *hub)))
            .or_else(|| latest(&|_| true));
        let (closed, past) = self.closed();
        self.history.extend(closed);
        if let Some(record) = self.record.take() {
            let mut record = (*record).clone();
            record.past = past;
            if record.operation.status == OperationStatus::Assigning {
                let status = OperationStatus::Failed { reason: Reason::MoveAborted, message: String::new() };
                record.operation = Operation { status, ..record.operation };
            }
            if let Some((hub, _, generation)) = &home {
                let same = known.filter(|known| known.hub == *hub && *generation <= known.generation);
                record.assignment = Some(same.unwrap_or_else(|| Assignment {
                    hub: hub.clone(),
                    generation: *generation,
                    credential: None,
                    assigned_at: NOW,
                }));
            }
            record.version = record.version.next();
            self.record = Some(Arc::new(record));
        }
        self.record_print = print_of(&self.record);
        self.order += 1;
        if let Some((at, phase, _)) = &home
            && *phase != Phase::Open
        {
            let call =
                HubCall { hub: at.clone(), device: device(), order: Order(self.order), effect: HubEffect::Unseal };
            let hub = self.hubs.iter_mut().find(|hub| hub.id == *at).unwrap();
            let (entry, _) = obeyed(hub.entry.as_deref(), &call, &scenario.without, NOW);
            hub.keep(entry);
        }
        self.machine = Arc::new(self.loaded());
        let elsewhere = seen.into_iter().filter(|(hub, ..)| home.as_ref().is_some_and(|(at, ..)| at != hub));
        for (hub, _, generation) in elsewhere {
            self.collect(&hub, generation, scenario);
        }
        self.halted = false;
        self.pump(self.now(), scenario);
    }

    /// The open moves that hold a state, as history.
    fn closed(&mut self) -> (Vec<Log>, Past) {
        let mut past = self.record.as_ref().map_or(&self.earlier, |record| &record.past).clone();
        let open = std::mem::take(&mut self.open);
        let kept: Vec<Log> = open.into_iter().filter(|log| log.holds_a_state()).collect();
        for log in &kept {
            if !past.contains(log.lines.generation) {
                past.push(log.lines.generation);
            }
        }
        (kept, past)
    }
}
