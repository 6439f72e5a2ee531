//! What happens in a run, as a list that is drawn before it starts: so that a run can be repeated, and cut down to the
//! events that matter.
//!
//! An event names its subject by a number that is taken modulo what there is when it happens; what else it needs it draws
//! from a seed of its own. Any part of a script is a script.

use std::time::Duration;

use super::dice::Dice;
use super::identity::DEVICES_MAX;
use super::store::Strike;

/// What the network does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    /// It is obeyed, and the answer is lost.
    AnswerLost,
    /// It is lost, and nobody can tell.
    CallLost,
    /// It is lost to the caller and arrives later all the same.
    Delayed,
    /// It is answered, and a copy arrives later.
    Duplicated,
    /// It does not get through, and the caller knows.
    Unreachable,
    /// The hub says that it has no room, or does not take the state.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Register {
        device: usize,
        seed: u64,
    },
    Reprovision {
        device: usize,
        seed: u64,
    },
    Release {
        device: usize,
    },
    Unpin {
        device: usize,
    },
    /// An operator takes the device's last move back.
    Undo {
        device: usize,
        seed: u64,
    },
    /// An operator resolves what a move of the device waits for.
    Resolve {
        device: usize,
        seed: u64,
    },
    /// An operator removes a late twin from the device's history.
    ForgetLateTwin {
        device: usize,
    },
    /// The operator changes the enrollment, deletes it, or makes it anew.
    Edit {
        device: usize,
        seed: u64,
    },
    /// The operator changes a hub's record, unlinks it, or links another.
    Hub {
        hub: usize,
        seed: u64,
    },
    /// The way between service and hub is cut, or open again. Devices still reach the hub.
    Cut {
        hub: usize,
        cut: bool,
    },
    /// The hub itself takes no more devices than it has, or as many as come.
    Fill {
        hub: usize,
        full: bool,
    },
    /// One call, whichever, comes to its end in the network, and perhaps its answer is heard at once.
    Carry {
        pick: usize,
        fate: Fate,
        heard: bool,
    },
    /// The hub that a device waits for is cut off, and the device is sent elsewhere.
    Corner {
        device: usize,
        seed: u64,
    },
    /// One answer, whichever, reaches the device's actor.
    Answer {
        pick: usize,
    },
    /// The allocation webhook answers.
    Webhook {
        pick: usize,
        seed: u64,
    },
    Advance {
        span: Duration,
    },
    SetBack {
        span: Duration,
    },
    /// A device or a back end writes to a twin at some hub.
    Write {
        device: usize,
        seed: u64,
    },
    /// Somebody makes a device at a hub behind the service's back.
    Stray {
        device: usize,
        hub: usize,
    },
    /// What some hub has of a device that lives elsewhere is ordered into the history, as for a hub that was restored.
    Tidy {
        device: usize,
    },
    /// The next commit of a device meets a fault.
    Strike(Strike),
    Crash,
    /// An idle device gives its memory back.
    Passivate {
        device: usize,
    },
    /// A second actor of the device starts beside the first, as when one is passivated while it is asked.
    Double {
        device: usize,
    },
    /// Devices with open moves are taken up.
    TakeUp,
    /// Somebody begins to read what is new at a hub; who reads goes on.
    ReadFeed {
        hub: usize,
    },
    ReadOn,
    /// The home of a device is away for long, its rule lets it be passed by, and the device is sent elsewhere.
    Strand {
        device: usize,
        seed: u64,
    },
    /// A copy of a hub is made.
    BackUp {
        hub: usize,
    },
    /// A hub comes back as one of its copies.
    Restore {
        hub: usize,
        seed: u64,
    },
    /// Hubs that were restored are gone through, some turns further.
    Reconcile {
        turns: usize,
    },
}

/// How a run is to be: drawn from its seed, so that runs differ in more than their order.
#[derive(Debug, Clone)]
pub struct Script {
    pub devices: usize,
    pub hubs: usize,
    pub seed: u64,
    pub events: Vec<Event>,
    /// What happens is written down, to be played to the real actors.
    pub recorded: bool,
}

const FATES: &[(u32, Fate)] = &[
    (60, Fate::Arrives),
    (8, Fate::AnswerLost),
    (6, Fate::CallLost),
    (6, Fate::Delayed),
    (14, Fate::Duplicated),
    (4, Fate::Unreachable),
    (3, Fate::Refused),
];

pub const STRIKES: &[Strike] = &[
    Strike::NotWritten,
    Strike::LostUnknown,
    Strike::WrittenUnknown,
    Strike::CrashBeforeWrite,
    Strike::CrashAfterWrite { kept: false },
    Strike::CrashAfterWrite { kept: true },
    Strike::CrashAfterSync,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Register,
    Reprovision,
    Release,
    Unpin,
    Undo,
    Resolve,
    ForgetLateTwin,
    Edit,
    Hub,
    Cut,
    Fill,
    Carry,
    Answer,
    Corner,
    Webhook,
    Advance,
    SetBack,
    Write,
    Stray,
    Tidy,
    Strike,
    Crash,
    Passivate,
    Double,
    TakeUp,
    ReadFeed,
    ReadOn,
    Strand,
    BackUp,
    Restore,
    Reconcile,
}

const KINDS: &[(u32, Kind)] = &[
    (120, Kind::Register),
    (40, Kind::Reprovision),
    (5, Kind::Release),
    (3, Kind::Unpin),
    (14, Kind::Undo),
    (14, Kind::Resolve),
    (3, Kind::ForgetLateTwin),
    (70, Kind::Edit),
    (14, Kind::Hub),
    (10, Kind::Cut),
    (4, Kind::Fill),
    (330, Kind::Carry),
    (200, Kind::Answer),
    (12, Kind::Corner),
    (20, Kind::Webhook),
    (90, Kind::Advance),
    (3, Kind::SetBack),
    (90, Kind::Write),
    (8, Kind::Stray),
    (6, Kind::Tidy),
    (24, Kind::Strike),
    (4, Kind::Crash),
    (8, Kind::Passivate),
    (6, Kind::Double),
    (20, Kind::TakeUp),
    (16, Kind::ReadFeed),
    (40, Kind::ReadOn),
    (5, Kind::Strand),
    (8, Kind::BackUp),
    (5, Kind::Restore),
    (40, Kind::Reconcile),
];

/// Kinds that a run may go without.
const OPTIONAL: &[Kind] = &[
    Kind::Release,
    Kind::Undo,
    Kind::Resolve,
    Kind::Edit,
    Kind::Hub,
    Kind::Cut,
    Kind::Fill,
    Kind::Corner,
    Kind::SetBack,
    Kind::Stray,
    Kind::Tidy,
    Kind::Strike,
    Kind::Crash,
    Kind::Double,
    Kind::Restore,
    Kind::ReadFeed,
    Kind::Strand,
];

impl Script {
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let devices = 1 + dice.below(DEVICES_MAX);
        let hubs = 2 + dice.below(3);
        let calm = dice.percent(20);
        let kinds: Vec<(u32, Kind)> =
            KINDS.iter().copied().filter(|(_, kind)| !OPTIONAL.contains(kind) || dice.percent(75)).collect();
        let fates: Vec<(u32, Fate)> =
            FATES.iter().copied().filter(|(_, fate)| *fate == Fate::Arrives || (!calm && dice.percent(80))).collect();
        let count = 100 + dice.below(400);
        let events = (0..count).map(|_| event(&mut dice, &kinds, &fates)).collect();
        Self { devices, hubs, seed, events, recorded: false }
    }
}

fn event(dice: &mut Dice, kinds: &[(u32, Kind)], fates: &[(u32, Fate)]) -> Event {
    let kind = dice.weighted(kinds);
    let (device, hub, pick, seed) = (dice.below(1 << 16), dice.below(1 << 16), dice.below(1 << 16), dice.draw());
    match kind {
        Kind::Register => Event::Register { device, seed },
        Kind::Reprovision => Event::Reprovision { device, seed },
        Kind::Release => Event::Release { device },
        Kind::Unpin => Event::Unpin { device },
        Kind::Undo => Event::Undo { device, seed },
        Kind::Resolve => Event::Resolve { device, seed },
        Kind::ForgetLateTwin => Event::ForgetLateTwin { device },
        Kind::Edit => Event::Edit { device, seed },
        Kind::Hub => Event::Hub { hub, seed },
        Kind::Cut => Event::Cut { hub, cut: dice.percent(45) },
        Kind::Fill => Event::Fill { hub, full: dice.percent(40) },
        Kind::Carry => Event::Carry { pick, fate: dice.weighted(fates), heard: dice.percent(60) },
        Kind::Answer => Event::Answer { pick },
        Kind::Corner => Event::Corner { device, seed },
        Kind::Webhook => Event::Webhook { pick, seed },
        Kind::Advance => {
            let leap = [50, 250, 1_000, 5_000, 15_000, 40_000, 1_000_000];
            let span = dice.weighted(&[(30, 0), (30, 1), (20, 2), (10, 3), (6, 4), (3, 5), (1, 6)]);
            Event::Advance { span: Duration::from_millis(leap[span]) }
        }
        Kind::SetBack => Event::SetBack { span: Duration::from_millis(1 + dice.draw() % 600_000) },
        Kind::Write => Event::Write { device, seed },
        Kind::Stray => Event::Stray { device, hub },
        Kind::Tidy => Event::Tidy { device },
        Kind::Strike => Event::Strike(*dice.pick(STRIKES)),
        Kind::Crash => Event::Crash,
        Kind::Passivate => Event::Passivate { device },
        Kind::Double => Event::Double { device },
        Kind::TakeUp => Event::TakeUp,
        Kind::ReadFeed => Event::ReadFeed { hub },
        Kind::ReadOn => Event::ReadOn,
        Kind::Strand => Event::Strand { device, seed },
        Kind::BackUp => Event::BackUp { hub },
        Kind::Restore => Event::Restore { hub, seed },
        Kind::Reconcile => Event::Reconcile { turns: 1 + dice.below(12) },
    }
}
