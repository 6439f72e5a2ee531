//! Plays scenarios on a server: makes the devices that each needs, once, and measures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::ambient::{Entropy as _, SystemClock, SystemEntropy};
use crate::cli::output::Output;
use crate::client::tpm::SoftwareModule;
use crate::client::{
    ClientFault, DesiredChange, ImportOutcome, Operator, Patience, Session, Tickets, TwinTarget, Watch,
};
use crate::domain::{
    AttestationDraft, Document, EnrollmentDraft, EnrollmentId, GroupId, HubId, RegistrationId, ReprovisionPolicy,
    SrkDraft, TwinPatch, limits,
};

use super::devices::{self, BenchDevice, Hubs};
use super::filled::Filled;
use super::load::{self, Done, Operation, Pace, Plan, Tally, Turn};
use super::meter::Reading;
use super::report::{Heading, Row};
use super::scenario::Scenario;
use super::world::World;

/// Connections opened at once before a measurement: as many as keep two cores busy.
const OPENING_AT_ONCE: usize = 32;
/// First registrations measured in one go: as many connections as any server lets be open.
const FIRST_BATCH: usize = 2_000;
/// Devices that come back with tickets of their earlier connections.
const RESUMING: usize = 1_000;
/// The most connections of a storm that wait at once.
const STORM_IN_FLIGHT: usize = 8_192;
/// A storm ends when all devices have had their turn; a day is never reached.
const UNTIL_ALL: Duration = Duration::from_secs(24 * 3600);
/// Of ten operations of the mix: one move, one report, two cold registrations, six warm ones.
const MIX: u64 = 10;

/// How much load, as the command line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount {
    pub devices: usize,
    pub in_flight: usize,
    /// Of scenarios that change nothing; absent: as many as operations in flight.
    pub connections: Option<usize>,
    pub lasts: Duration,
    /// Absent: as fast as it goes.
    pub rate: Option<f64>,
    /// Measured again at this share of what went.
    pub share: Option<f64>,
    pub twin_bytes: usize,
}

/// A device with its open connection.
#[derive(Debug, Clone)]
struct Seat {
    device: Arc<BenchDevice>,
    session: Session,
}

type Devices = Arc<Vec<Arc<BenchDevice>>>;

/// A server, and the devices that were made for it.
pub struct Stage {
    pub world: World,
    amount: Amount,
    output: Output,
    /// Tells the runs against one server apart.
    run: String,
    made: BTreeMap<Kind, Devices>,
    enrolled: Vec<EnrollmentId>,
    first_rounds: usize,
    tpm_rounds: usize,
    /// Devices that were there before the bench began.
    filled: Option<Filled>,
}

/// Devices of one kind live under one enrollment, or each under its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Grouped,
    Individual,
    Migrating,
    Resetting,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Grouped => "grouped",
            Kind::Individual => "individual",
            Kind::Migrating => "migrating",
            Kind::Resetting => "resetting",
        }
    }

    fn policy(self) -> ReprovisionPolicy {
        match self {
            Kind::Grouped | Kind::Individual | Kind::Migrating => ReprovisionPolicy::Migrate,
            Kind::Resetting => ReprovisionPolicy::Reset,
        }
    }

    /// Whether its devices carry the twin whose size was asked for, or next to nothing.
    fn has_twin(self) -> bool {
        match self {
            Kind::Migrating | Kind::Resetting => true,
            Kind::Grouped | Kind::Individual => false,
        }
    }
}

/// A measurement under way.
struct Measured {
    tally: Tally,
    used: Option<Reading>,
    memory: Option<u64>,
}

impl Stage {
    pub fn new(world: World, amount: Amount, output: Output) -> Self {
        let run = format!("bench-{:08x}", SystemEntropy::new().draw_u128() >> 96);
        let (made, enrolled) = (BTreeMap::new(), Vec::new());
        Self { world, amount, output, run, made, enrolled, first_rounds: 0, tpm_rounds: 0, filled: None }
    }

    /// With devices that the server has already.
    pub fn filled(self, filled: Option<Filled>) -> Self {
        Self { filled, ..self }
    }

    /// Makes what a scenario needs and is not there yet.
    pub async fn prepare(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            // Each round makes devices of its own, which nobody has seen.
            Scenario::First | Scenario::Tpm | Scenario::Restart => {}
            Scenario::ColdGroup
            | Scenario::Warm
            | Scenario::LookUp
            | Scenario::Resumed
            | Scenario::TwinReport
            | Scenario::TwinPush
            | Scenario::StormStay
            | Scenario::StormMove
            | Scenario::StormReturn => drop(self.devices(Kind::Grouped).await?),
            Scenario::ColdIndividual => drop(self.devices(Kind::Individual).await?),
            Scenario::MoveMigrate => drop(self.devices(Kind::Migrating).await?),
            Scenario::MoveReset => drop(self.devices(Kind::Resetting).await?),
            Scenario::Mix => {
                self.devices(Kind::Grouped).await?;
                self.devices(Kind::Migrating).await?;
            }
        }
        Ok(())
    }

    /// Measures once; twice where a share of what went is asked for.
    pub async fn measure(&mut self, scenario: Scenario, round: u32) -> anyhow::Result<Vec<Row>> {
        let pace = self.amount.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second });
        let row = self.measure_at(scenario, round, pace, scenario.to_string()).await?;
        let capacity = row.operations_per_second;
        let mut rows = vec![row];
        if let (Some(share), Pace::Closed, true) = (self.amount.share, pace, has_capacity(scenario))
            && capacity > 0.0
        {
            let name = format!("{scenario}@{:.0}%", share * 100.0);
            let pace = Pace::Open { per_second: capacity * share };
            rows.push(self.measure_at(scenario, round, pace, name).await?);
        }
        Ok(rows)
    }

    async fn measure_at(&mut self, scenario: Scenario, round: u32, pace: Pace, name: String) -> anyhow::Result<Row> {
        let plan = Plan { in_flight: self.amount.in_flight, pace, lasts: self.amount.lasts, operations_max: u64::MAX };
        let hubs = Arc::new(self.world.hubs.clone());
        let (measured, devices, plan) = match scenario {
            Scenario::First => {
                let measured = self.first(&name, plan).await?;
                (measured, self.amount.devices, plan)
            }
            Scenario::ColdGroup => {
                let devices = self.devices(Kind::Grouped).await?;
                (self.run(&name, plan, cold(&devices, &hubs)).await?, devices.len(), plan)
            }
            Scenario::ColdIndividual => {
                let devices = self.devices(Kind::Individual).await?;
                (self.run(&name, plan, cold(&devices, &hubs)).await?, devices.len(), plan)
            }
            Scenario::Resumed => {
                let devices = self.devices(Kind::Grouped).await?;
                let some: Vec<_> = devices.iter().take(RESUMING).cloned().collect();
                let operation = resumed(&Arc::new(some), &hubs);
                // The first time around each device gets its tickets.
                let first = Plan { lasts: UNTIL_ALL, operations_max: RESUMING as u64, pace: Pace::Closed, ..plan };
                self.flawlessly("handing out tickets", first, operation.clone()).await?;
                (self.run(&name, plan, operation).await?, devices.len(), plan)
            }
            Scenario::Warm => {
                let devices = self.devices(Kind::Grouped).await?;
                let seats = self.seats(&devices, self.connections(plan)).await?;
                (self.run(&name, plan, warm(seats, &hubs)).await?, devices.len(), plan)
            }
            Scenario::LookUp => {
                let devices = self.devices(Kind::Grouped).await?;
                let seats = self.seats(&devices, self.connections(plan)).await?;
                (self.run(&name, plan, looking_up(seats)).await?, devices.len(), plan)
            }
            Scenario::TwinReport => {
                let devices = self.devices(Kind::Grouped).await?;
                let seats = self.seats(&devices, plan.in_flight).await?;
                (self.run(&name, plan, reporting(seats, &hubs)).await?, devices.len(), plan)
            }
            Scenario::MoveMigrate => (self.moves(&name, plan, Kind::Migrating, &hubs).await?, plan.in_flight, plan),
            Scenario::MoveReset => (self.moves(&name, plan, Kind::Resetting, &hubs).await?, plan.in_flight, plan),
            Scenario::Tpm => {
                let operation = self.by_tpm(plan.in_flight, &hubs).await?;
                (self.run(&name, plan, operation).await?, plan.in_flight, plan)
            }
            Scenario::TwinPush => {
                let devices = self.devices(Kind::Grouped).await?;
                let operation = self.pushing(&devices, plan.in_flight, &hubs).await?;
                (self.run(&name, plan, operation).await?, devices.len(), plan)
            }
            Scenario::Mix => {
                let (devices, movers) = (self.devices(Kind::Grouped).await?, self.devices(Kind::Migrating).await?);
                let seats = self.seats(&devices, plan.in_flight).await?;
                let moving_seats = self.seats(&movers, plan.in_flight).await?;
                let parts = [
                    moving(moving_seats, &hubs),
                    reporting(seats.clone(), &hubs),
                    cold(&devices, &hubs),
                    warm(seats, &hubs),
                ];
                (self.run(&name, plan, mixed(parts)).await?, devices.len(), plan)
            }
            Scenario::StormStay => {
                let devices = self.devices(Kind::Grouped).await?;
                let plan = storm(plan, devices.len());
                (self.run(&name, plan, cold(&devices, &hubs)).await?, devices.len(), plan)
            }
            Scenario::StormMove => {
                let devices = self.devices(Kind::Grouped).await?;
                let plan = storm(plan, devices.len());
                (self.run(&name, plan, storm_moving(&devices, &hubs, false)).await?, devices.len(), plan)
            }
            Scenario::StormReturn => {
                let devices = self.devices(Kind::Grouped).await?;
                // The connections that the devices had before the storm.
                let before = Plan {
                    lasts: UNTIL_ALL,
                    operations_max: devices.len() as u64,
                    in_flight: self.amount.in_flight,
                    pace: Pace::Closed,
                };
                self.flawlessly("handing out tickets", before, resumed(&devices, &hubs)).await?;
                let plan = storm(plan, devices.len());
                (self.run(&name, plan, storm_moving(&devices, &hubs, true)).await?, devices.len(), plan)
            }
            Scenario::Restart => {
                let took = self.world.restart().await?;
                let mut tally = Tally::new()?;
                load::count(&mut tally.done, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                tally.took = took;
                (Measured { tally, used: None, memory: self.world.meter.memory() }, self.amount.devices, plan)
            }
        };
        let heading = Heading {
            scenario: name,
            round,
            devices,
            in_flight: plan.in_flight,
            offered_per_second: match plan.pace {
                Pace::Closed => None,
                Pace::Open { per_second } => Some(per_second),
            },
        };
        let Measured { tally, used, memory } = measured;
        Ok(Row::of(heading, &tally, used.unwrap_or_default(), memory))
    }

    async fn moves(&mut self, name: &str, plan: Plan, kind: Kind, hubs: &Arc<Hubs>) -> anyhow::Result<Measured> {
        let devices = self.devices(kind).await?;
        let seats = self.seats(&devices, plan.in_flight).await?;
        self.run(name, plan, moving(seats, hubs)).await
    }

    /// Runs a load and reads what the server used up meanwhile.
    async fn run(&self, name: &str, plan: Plan, operation: Operation) -> anyhow::Result<Measured> {
        let meter = self.world.meter;
        let memory = meter.watch_memory();
        let before = meter.read().await;
        let tally = load::run(name, plan, operation, Arc::new(SystemClock), self.output).await?;
        let used = meter.read().await.since(before);
        Ok(Measured { tally, used: Some(used), memory: memory.peak() })
    }

    /// Runs what is not measured and must not fail.
    async fn flawlessly(&self, name: &str, plan: Plan, operation: Operation) -> anyhow::Result<()> {
        let tally = load::run(name, plan, operation, Arc::new(SystemClock), self.output).await?;
        if tally.reasons.is_empty() {
            return Ok(());
        }
        bail!("{name}: {} of {} failed: {:?}", tally.failed.len(), plan.operations_max, tally.reasons)
    }

    /// Registers devices that nobody has seen, so many at a time as connections can be open.
    async fn first(&mut self, name: &str, plan: Plan) -> anyhow::Result<Measured> {
        self.first_rounds += 1;
        let label = format!("first{}", self.first_rounds);
        let devices = self.make(&label, Kind::Grouped).await?;
        let hubs = Arc::new(self.world.hubs.clone());
        let mut all = Measured { tally: Tally::new()?, used: None, memory: None };
        for batch in devices.chunks(FIRST_BATCH) {
            let seats = self.seats(&Arc::new(batch.to_vec()), batch.len()).await?;
            let plan = Plan { lasts: UNTIL_ALL, operations_max: batch.len() as u64, ..plan };
            let operation: Operation = {
                let hubs = hubs.clone();
                Arc::new(move |turn| {
                    let (seat, hubs) = (of(&seats, turn.index).clone(), hubs.clone());
                    Box::pin(async move { register(&seat, &hubs).await })
                })
            };
            let Measured { tally, used, memory } = self.run(name, plan, operation).await?;
            all.tally.follow(&tally)?;
            all.used = Some(match (all.used, used) {
                (Some(before), Some(used)) => before.plus(used),
                (before, used) => used.or(before).unwrap_or_default(),
            });
            all.memory = all.memory.max(memory);
        }
        Ok(all)
    }

    /// Devices of a kind, registered and with their twin, made when they are asked for first.
    async fn devices(&mut self, kind: Kind) -> anyhow::Result<Devices> {
        if let Some(devices) = self.made.get(&kind) {
            return Ok(devices.clone());
        }
        if let (Kind::Grouped, Some(filled)) = (kind, self.filled.clone()) {
            let (server, count, output) = (self.world.server.clone(), self.amount.devices, self.output);
            let reading = move || filled.some(count, &server, output);
            let devices = tokio::task::spawn_blocking(reading).await.context("reading the devices broke off")??;
            let devices = Arc::new(devices);
            self.made.insert(kind, devices.clone());
            return Ok(devices);
        }
        let devices = Arc::new(self.make(kind.as_str(), kind).await?);
        let hubs = Arc::new(self.world.hubs.clone());
        let in_flight = self.amount.in_flight;
        let plan = Plan { in_flight, pace: Pace::Closed, lasts: UNTIL_ALL, operations_max: devices.len() as u64 };
        let reported = kind.has_twin().then(|| Arc::new(document(self.amount.twin_bytes / 2)));
        let operation: Operation = {
            let devices = devices.clone();
            Arc::new(move |turn| {
                let (device, hubs, reported) = (of(&devices, turn.index).clone(), hubs.clone(), reported.clone());
                Box::pin(async move {
                    let session = device.caller.connect().await?;
                    let seat = Seat { device, session };
                    register(&seat, &hubs).await?;
                    if let Some(reported) = reported {
                        report(&seat, &hubs, &reported).await?;
                    }
                    Ok(Done::default())
                })
            })
        };
        self.flawlessly(&format!("registering {} devices", kind.as_str()), plan, operation).await?;
        self.made.insert(kind, devices.clone());
        Ok(devices)
    }

    /// Makes devices and enrolls them.
    async fn make(&mut self, label: &str, kind: Kind) -> anyhow::Result<Vec<Arc<BenchDevice>>> {
        let name = format!("{}-{label}", self.run);
        let authority = devices::authority(&name)?;
        let certificate = authority.certificate().to_vec();
        let (server, output, prefix) = (self.world.server.clone(), self.output, name.clone());
        let count = match kind {
            // More could not be at work at once.
            Kind::Migrating | Kind::Resetting => self.amount.in_flight,
            Kind::Grouped | Kind::Individual => self.amount.devices,
        };
        let making = move || devices::make(count, &prefix, &authority, &server, output);
        let made = tokio::task::spawn_blocking(making).await.context("making the devices broke off")??;
        let made: Vec<_> = made.into_iter().map(Arc::new).collect();
        match kind {
            Kind::Grouped | Kind::Migrating | Kind::Resetting => {
                let id = EnrollmentId::Group(GroupId::parse(&name).with_context(|| format!("{name} is no group id"))?);
                let draft = self.draft(id.clone(), kind, certificate);
                self.world.operator.create_enrollment(&draft).await?;
                self.enrolled.push(id);
            }
            Kind::Individual => self.enroll_each(&made, kind).await?,
        }
        Ok(made)
    }

    async fn enroll_each(&mut self, made: &[Arc<BenchDevice>], kind: Kind) -> anyhow::Result<()> {
        let drafts = made.iter().map(|device| {
            let leaf = device.chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
            self.draft(EnrollmentId::Individual(device.id.clone()), kind, leaf)
        });
        let drafts: Vec<EnrollmentDraft> = drafts.collect();
        self.enroll_drafts(&drafts).await
    }

    async fn enroll_drafts(&mut self, drafts: &[EnrollmentDraft]) -> anyhow::Result<()> {
        self.enrolled.extend(drafts.iter().map(|draft| draft.id.clone()));
        let mut progress = self.output.progress();
        for (number, batch) in drafts.chunks(limits::IMPORT_MAX).enumerate() {
            let outcomes = self.world.operator.import_enrollments(batch, false).await?;
            if let Some(refused) = outcomes.iter().find(|outcome| **outcome != ImportOutcome::Created) {
                bail!("a device was not enrolled: {refused:?}");
            }
            progress.update(&format!("enrolling devices: {} of {}", number * limits::IMPORT_MAX, drafts.len()));
        }
        Ok(())
    }

    fn draft(&self, id: EnrollmentId, kind: Kind, certificate: Vec<u8>) -> EnrollmentDraft {
        let desired = if kind.has_twin() { document(self.amount.twin_bytes / 2) } else { document(0) };
        devices::draft(id, certificate, kind.policy(), desired, &self.world.hubs)
    }

    fn connections(&self, plan: Plan) -> usize {
        self.amount.connections.unwrap_or(plan.in_flight)
    }

    /// Opens connections of the first so many devices.
    async fn seats(&self, devices: &Devices, count: usize) -> anyhow::Result<Arc<Vec<Seat>>> {
        let mut progress = self.output.progress();
        let opening = devices.iter().take(count).cloned().map(|device| {
            tokio::spawn(async move { device.caller.connect().await.map(|session| Seat { device, session }) })
        });
        let mut opened = stream::iter(opening).buffered(OPENING_AT_ONCE);
        let mut seats = Vec::with_capacity(count);
        while let Some(seat) = opened.next().await {
            seats.push(seat.context("opening a connection broke off")??);
            if seats.len().is_multiple_of(OPENING_AT_ONCE) {
                progress.update(&format!("opening connections: {} of {count}", seats.len()));
            }
        }
        if seats.is_empty() {
            bail!("there are no devices");
        }
        Ok(Arc::new(seats))
    }

    /// Devices with a TPM, registered, each on a connection of its own.
    async fn by_tpm(&mut self, count: usize, hubs: &Arc<Hubs>) -> anyhow::Result<Operation> {
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
        self.tpm_rounds += 1;
        let (mut devices, mut drafts) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count {
            let name = format!("{}-tpm{}-{number:07}", self.run, self.tpm_rounds);
            let id = RegistrationId::parse(&name).with_context(|| format!("{name} is no registration id"))?;
            let mut random = [0; 64];
            entropy.fill(&mut random);
            let module = Arc::new(SoftwareModule::of(random).context("a TPM cannot be made")?);
            let attestation = AttestationDraft::Tpm {
                endorsement_key: module.endorsement_key().clone(),
                storage_root_key: SrkDraft::Any,
                pcrs: None,
            };
            let draft = self.draft(EnrollmentId::Individual(id.clone()), Kind::Individual, Vec::new());
            drafts.push(EnrollmentDraft { attestation, ..draft });
            let session = self.world.server.anonymous(Tickets::Refused)?.connect().await?;
            devices.push(session.device(id, clock.clone(), entropy.clone()).by_tpm(module));
        }
        self.enroll_drafts(&drafts).await?;
        let (devices, facts) = (Arc::new(devices), Arc::new(hubs.facts(false)));
        let operation: Operation = Arc::new(move |turn| {
            let (device, facts) = (of(&devices, turn.worker as u64).clone(), facts.clone());
            Box::pin(async move {
                device.register(&facts, Patience::Tries(1), |_| ()).await?;
                Ok(Done::default())
            })
        });
        // The first time around each is assigned.
        let first = Plan { in_flight: count, pace: Pace::Closed, lasts: UNTIL_ALL, operations_max: count as u64 };
        self.flawlessly("registering by TPM", first, operation.clone()).await?;
        Ok(operation)
    }

    /// Watchers on the first devices, each with the back end's writes to it.
    async fn pushing(&self, devices: &Devices, count: usize, hubs: &Arc<Hubs>) -> anyhow::Result<Operation> {
        let seats = self.seats(devices, count).await?;
        let mut watched = Vec::with_capacity(seats.len());
        for seat in seats.iter() {
            let hub = hubs.of(seat.device.is_at_second()).clone();
            let mut watch = seat.session.watch(&hub, &seat.device.device).await?;
            watch.next().await?;
            let target = TwinTarget { hub, device: seat.device.device.clone() };
            watched.push(Arc::new(Mutex::new(Watched { target, watch, _seat: seat.clone() })));
        }
        let (operator, pushed) = (self.world.operator.clone(), Arc::new(AtomicU64::new(0)));
        let watched = Arc::new(watched);
        Ok(Arc::new(move |turn: Turn| {
            let watched = of(&watched, turn.worker as u64).clone();
            let (operator, pushed) = (operator.clone(), pushed.clone());
            Box::pin(async move {
                let number = pushed.fetch_add(1, Ordering::Relaxed);
                watched.lock().await.push(&operator, number).await
            })
        }))
    }

    /// Takes the enrollments and registrations out of a server that goes on without us.
    pub async fn clean_up(&mut self) -> anyhow::Result<()> {
        let ids: Vec<_> =
            self.made.values().flat_map(|devices| devices.iter().map(|device| device.id.clone())).collect();
        let mut progress = self.output.progress();
        for (count, id) in ids.iter().enumerate() {
            self.world.operator.delete_registration(id, None).await?;
            progress.update(&format!("deleting registrations: {count} of {}", ids.len()));
        }
        for (count, id) in self.enrolled.iter().enumerate() {
            self.world.operator.delete_enrollment(id, None).await?;
            progress.update(&format!("deleting enrollments: {count} of {}", self.enrolled.len()));
        }
        Ok(())
    }
}

/// Every device once, however long that takes.
fn storm(plan: Plan, devices: usize) -> Plan {
    let in_flight = devices.min(STORM_IN_FLIGHT);
    Plan { in_flight, lasts: UNTIL_ALL, operations_max: devices as u64, ..plan }
}

/// Whether it makes sense to speak of what the server can do at most.
fn has_capacity(scenario: Scenario) -> bool {
    match scenario {
        Scenario::ColdGroup
        | Scenario::ColdIndividual
        | Scenario::Resumed
        | Scenario::Warm
        | Scenario::LookUp
        | Scenario::MoveMigrate
        | Scenario::MoveReset
        | Scenario::Tpm
        | Scenario::TwinReport
        | Scenario::TwinPush
        | Scenario::Mix => true,
        Scenario::First | Scenario::StormStay | Scenario::StormMove | Scenario::StormReturn | Scenario::Restart => {
            false
        }
    }
}

/// One of several, around and around. There is at least one.
fn of<T>(all: &[T], index: u64) -> &T {
    let place = index % all.len().max(1) as u64;
    &all[usize::try_from(place).unwrap_or(0)]
}

/// A document of about so many bytes of JSON, in properties of a common size.
fn document(bytes: usize) -> Document {
    const VALUE: &str = "0123456789abcdef0123456789abcdef";
    let mut properties = Map::new();
    let each = VALUE.len() + r#""property-000":"","#.len();
    for number in 0..bytes.div_ceil(each).max(1) {
        properties.insert(format!("property-{number:03}"), Value::from(VALUE));
    }
    properties.into()
}

async fn register(seat: &Seat, hubs: &Hubs) -> Result<Done, ClientFault> {
    let facts = hubs.facts(seat.device.is_at_second());
    seat.session.register(&seat.device.id, &facts).await?;
    Ok(Done { handshake: None })
}

/// Registers from the other side, so that the device moves; it lives there when that succeeded.
async fn move_over(seat: &Seat, hubs: &Hubs) -> Result<Done, ClientFault> {
    let second = !seat.device.is_at_second();
    let update = seat.session.register(&seat.device.id, &hubs.facts(second)).await?;
    let home = update.hub.map(|hub| hub.id).ok_or(ClientFault::NoHub)?;
    seat.device.lives_at_second(home == hubs.second);
    if home == *hubs.of(second) { Ok(Done { handshake: None }) } else { Err(ClientFault::NoHub) }
}

async fn report(seat: &Seat, hubs: &Hubs, patch: &Document) -> Result<Done, ClientFault> {
    let hub: &HubId = hubs.of(seat.device.is_at_second());
    seat.session.report(hub, &seat.device.device, patch).await?;
    Ok(Done { handshake: None })
}

fn on_new_connection(
    device: Arc<BenchDevice>,
    hubs: Arc<Hubs>,
    resuming: bool,
) -> BoxFuture<'static, Result<Done, ClientFault>> {
    Box::pin(async move {
        let caller = if resuming { &device.resuming } else { &device.caller };
        let session = caller.connect().await?;
        let handshake = Some(session.handshake());
        register(&Seat { device, session }, &hubs).await?;
        Ok(Done { handshake })
    })
}

fn cold(devices: &Devices, hubs: &Arc<Hubs>) -> Operation {
    let (devices, hubs) = (devices.clone(), hubs.clone());
    Arc::new(move |turn| on_new_connection(of(&devices, turn.index).clone(), hubs.clone(), false))
}

fn resumed(devices: &Devices, hubs: &Arc<Hubs>) -> Operation {
    let (devices, hubs) = (devices.clone(), hubs.clone());
    Arc::new(move |turn| on_new_connection(of(&devices, turn.index).clone(), hubs.clone(), true))
}

fn storm_moving(devices: &Devices, hubs: &Arc<Hubs>, resuming: bool) -> Operation {
    let (devices, hubs) = (devices.clone(), hubs.clone());
    Arc::new(move |turn| {
        let (device, hubs) = (of(&devices, turn.index).clone(), hubs.clone());
        Box::pin(async move {
            let caller = if resuming { &device.resuming } else { &device.caller };
            let session = caller.connect().await?;
            let handshake = Some(session.handshake());
            move_over(&Seat { device, session }, &hubs).await?;
            Ok(Done { handshake })
        })
    })
}

/// An operation on each worker's own connection.
fn on_seats<F>(seats: Arc<Vec<Seat>>, operation: impl Fn(Seat, Turn) -> F + Send + Sync + 'static) -> Operation
where
    F: Future<Output = Result<Done, ClientFault>> + Send + 'static,
{
    Arc::new(move |turn| Box::pin(operation(of(&seats, turn.worker as u64).clone(), turn)))
}

fn warm(seats: Arc<Vec<Seat>>, hubs: &Arc<Hubs>) -> Operation {
    let hubs = hubs.clone();
    Arc::new(move |turn| {
        let (seat, hubs) = (of(&seats, turn.index).clone(), hubs.clone());
        Box::pin(async move { register(&seat, &hubs).await })
    })
}

fn looking_up(seats: Arc<Vec<Seat>>) -> Operation {
    Arc::new(move |turn| {
        let seat = of(&seats, turn.index).clone();
        Box::pin(async move {
            seat.session.look_up(&seat.device.id).await?;
            Ok(Done::default())
        })
    })
}

fn moving(seats: Arc<Vec<Seat>>, hubs: &Arc<Hubs>) -> Operation {
    let hubs = hubs.clone();
    on_seats(seats, move |seat, _| {
        let hubs = hubs.clone();
        async move { move_over(&seat, &hubs).await }
    })
}

fn reporting(seats: Arc<Vec<Seat>>, hubs: &Arc<Hubs>) -> Operation {
    let hubs = hubs.clone();
    on_seats(seats, move |seat, turn| {
        let hubs = hubs.clone();
        async move {
            let patch = Document::from(Map::from_iter([("count".to_owned(), json!(turn.index))]));
            report(&seat, &hubs, &patch).await
        }
    })
}

/// Moves, reports, cold and warm registrations.
fn mixed([moving, reporting, cold, warm]: [Operation; 4]) -> Operation {
    Arc::new(move |turn| match turn.index % MIX {
        0 => moving(turn),
        1 => reporting(turn),
        2 | 3 => cold(turn),
        _ => warm(turn),
    })
}

/// A device that watches, and what a back end writes to it.
struct Watched {
    target: TwinTarget,
    watch: Watch,
    /// Keeps the connection open.
    _seat: Seat,
}

impl Watched {
    /// Writes a desired property, and waits until the device has it.
    async fn push(&mut self, operator: &Operator, number: u64) -> Result<Done, ClientFault> {
        let desired = Document::from(Map::from_iter([("pushed".to_owned(), json!(number))]));
        let patch = TwinPatch { tags: None, desired: Some(desired), reported: None };
        operator.update_twin(&self.target, &patch, None).await?;
        loop {
            let change = self.watch.next().await?;
            let seen = match change {
                Some(DesiredChange::Patch { patch, .. }) => patch,
                Some(DesiredChange::Whole { desired, .. }) => desired,
                Some(DesiredChange::Moved) | None => return Err(ClientFault::NoHub),
            };
            if seen.0.get("pushed") == Some(&json!(number)) {
                return Ok(Done::default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_about_the_size_that_was_asked_for() {
        for bytes in [0, 1, 100, 1_024, 10_000] {
            let length = document(bytes).to_text().len();
            assert!((bytes..bytes + 110).contains(&length), "{bytes}: {length}");
        }
    }

    #[test]
    fn turns_go_around() {
        let all = ["a", "b", "c"];
        let told: Vec<_> = (0..5).map(|index| *of(&all, index)).collect();
        assert_eq!(told, ["a", "b", "c", "a", "b"]);
    }
}
