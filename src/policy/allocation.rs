//! Which hub a device should have (DESIGN 6c), and why not each other one.
//!
//! The answer depends on the values of the request only, never on the order in which hubs are listed.

use std::fmt;

use crate::domain::{AllocationPolicy, ClientFacts, Enrollment, Hub, HubId, HubState, Pin, RegistrationId};

use super::latency::{self, Nearest, Nearness};
use super::rendezvous::Bid;

/// A linked hub as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct HubView {
    pub hub: Hub,
    /// Devices that live there or have a place reserved.
    pub occupied: u64,
    /// Its circuit is closed and it is not taken down.
    pub reachable: bool,
}

impl HubView {
    pub fn is_down(&self) -> bool {
        self.hub.taken_down || !self.reachable
    }
}

/// What the allocation webhook said, asked beforehand so that this stays pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// It named one of the hubs it was offered.
    Answered { hub: HubId },
    /// It named a host that it was not offered.
    AnsweredOther { host_name: String },
    /// No usable answer; the text says why and carries no secret.
    Failed(String),
    /// It was not asked.
    NotAsked,
}

/// Everything an allocation depends on.
#[derive(Debug, Clone, Copy)]
pub struct AllocationRequest<'a> {
    pub registration_id: &'a RegistrationId,
    pub enrollment: &'a Enrollment,
    pub facts: &'a ClientFacts,
    /// The hub of the recorded assignment.
    pub current: Option<&'a HubId>,
    /// A pin **in force**: the caller has held it against the clock.
    pub pin: Option<&'a Pin>,
    /// Every linked hub.
    pub hubs: &'a [HubView],
    pub webhook: &'a WebhookOutcome,
}

/// What allocation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allocated {
    Hub(HubId),
    /// An operator's pin decided.
    Pinned(HubId),
    /// No hub can take the device; [`Allocation::not_taken`] says why for each.
    NoHub,
    /// There is no answer.
    Failed(AllocationFault),
    /// The policy that applies needs no answer.
    NotAsked,
}

/// An answer with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub allocated: Allocated,
    /// Every other hub that is linked or that the enrollment names, by id.
    pub not_taken: Vec<(HubId, NotTaken)>,
    /// One sentence.
    pub why: String,
}

impl Allocation {
    /// For a device whose policy keeps it where it is.
    pub fn not_asked() -> Self {
        Self {
            allocated: Allocated::NotAsked,
            not_taken: Vec::new(),
            why: "the policy keeps the device at its hub, so no hub was looked for".to_owned(),
        }
    }

    /// For a device whose policy keeps it where it is, when the webhook was asked for a payload and failed.
    pub fn webhook_failed(reason: &str) -> Self {
        Self::failed(AllocationFault::Webhook(reason.to_owned()), Vec::new())
    }

    fn no_hub(why: impl Into<String>, not_taken: Vec<(HubId, NotTaken)>) -> Self {
        Self { allocated: Allocated::NoHub, not_taken, why: why.into() }
    }

    fn failed(fault: AllocationFault, not_taken: Vec<(HubId, NotTaken)>) -> Self {
        Self { why: fault.to_string(), allocated: Allocated::Failed(fault), not_taken }
    }

    /// Why each hub was not taken, as one text: `hub-a is draining; hub-b is full (10 of 10)`.
    pub fn reasons(&self) -> String {
        let reasons: Vec<String> = self.not_taken.iter().map(|(hub, why)| format!("{hub} {why}")).collect();
        reasons.join("; ")
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationFault {
    #[error("static allocation needs exactly one hub, the enrollment names {named}")]
    StaticNeedsOneHub { named: usize },
    #[error("{0}")]
    Webhook(String),
    #[error("the allocation webhook was not asked")]
    WebhookNotAsked,
    #[error("the allocation webhook chose {host_name:?}, which it was not offered")]
    HostNotOffered { host_name: String },
    #[error("the allocation webhook chose {hub}, which {why}")]
    HubNotCandidate { hub: HubId, why: NotTaken },
}

/// Why a hub was not taken. Reads as the end of a sentence that starts with the hub's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The enrollment names it, but there is no such hub.
    NotLinked,
    /// The enrollment names other hubs.
    NotNamed,
    Draining,
    Retired,
    TakenDown,
    Unreachable,
    Full {
        occupied: u64,
        capacity: u64,
    },
    PinnedElsewhere,
    /// Its share of the hash does not hold this device.
    OutsideShare,
    Slower {
        milliseconds: u32,
        best: u32,
    },
    Farther {
        kilometres: u32,
        best: u32,
    },
    /// As near as the one taken, but lighter, or later by id.
    LostTie,
    /// Another hub has a latency that the device measured.
    LatencyNotReported,
    NearnessUnknown,
    /// The webhook chose another one.
    NotChosen,
    /// A candidate, but the allocation failed.
    NoAnswer,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTaken::NotLinked => f.write_str("is not linked"),
            NotTaken::NotNamed => f.write_str("is not among the enrollment's hubs"),
            NotTaken::Draining => f.write_str("is draining"),
            NotTaken::Retired => f.write_str("is retired"),
            NotTaken::TakenDown => f.write_str("is taken down"),
            NotTaken::Unreachable => f.write_str("does not answer"),
            NotTaken::Full { occupied, capacity } => write!(f, "is full ({occupied} of {capacity})"),
            NotTaken::PinnedElsewhere => f.write_str("is not the hub that the device is pinned to"),
            NotTaken::OutsideShare => f.write_str("is not where the hash puts the device"),
            NotTaken::Slower { milliseconds, best } => write!(f, "is slower ({milliseconds} ms, the best {best} ms)"),
            NotTaken::Farther { kilometres, best } => write!(f, "is farther ({kilometres} km, the nearest {best} km)"),
            NotTaken::LostTie => f.write_str("is as near, but has less weight or a later id"),
            NotTaken::LatencyNotReported => f.write_str("has no latency reported by the device"),
            NotTaken::NearnessUnknown => f.write_str("has neither a latency nor a known distance"),
            NotTaken::NotChosen => f.write_str("is not what the allocation webhook chose"),
            NotTaken::NoAnswer => f.write_str("could take the device, but allocation failed"),
        }
    }
}

/// The hubs that may take the device, by id, and why not each other one. The device's current hub is held against its
/// lifecycle only: capacity and health filter arrivals, unless it is down and the enrollment says `reassign_when_down`.
pub fn candidates<'a>(request: &AllocationRequest<'a>) -> (Vec<&'a HubView>, Vec<(HubId, NotTaken)>) {
    let (mut fitting, mut not_taken) = (Vec::new(), unlinked(request));
    for view in request.hubs {
        match unfit(request, view) {
            None => fitting.push(view),
            Some(why) => not_taken.push((view.hub.id.clone(), why)),
        }
    }
    fitting.sort_by(|a, b| a.hub.id.cmp(&b.hub.id));
    not_taken.sort_by(|a, b| a.0.cmp(&b.0));
    (fitting, not_taken)
}

fn unlinked(request: &AllocationRequest<'_>) -> Vec<(HubId, NotTaken)> {
    let mut named: Vec<&HubId> = request.enrollment.hubs.iter().collect();
    named.sort();
    named.dedup();
    named.retain(|id| request.hubs.iter().all(|view| view.hub.id != **id));
    named.into_iter().map(|id| (id.clone(), NotTaken::NotLinked)).collect()
}

fn unfit(request: &AllocationRequest<'_>, view: &HubView) -> Option<NotTaken> {
    let named = &request.enrollment.hubs;
    if !named.is_empty() && !named.contains(&view.hub.id) {
        return Some(NotTaken::NotNamed);
    }
    match view.hub.state {
        HubState::Active => {}
        HubState::Draining => return Some(NotTaken::Draining),
        HubState::Retired => return Some(NotTaken::Retired),
    }
    let at_home = request.current == Some(&view.hub.id);
    let health_counts = !at_home || request.enrollment.reassign_when_down;
    if health_counts && view.is_down() {
        return Some(if view.hub.taken_down { NotTaken::TakenDown } else { NotTaken::Unreachable });
    }
    match view.hub.capacity {
        Some(capacity) if !at_home && view.occupied >= capacity => {
            Some(NotTaken::Full { occupied: view.occupied, capacity })
        }
        Some(_) | None => None,
    }
}

/// Chooses a hub.
///
/// A pin outranks everything an operator may want it to: the enrollment's hubs, capacity, health, draining. It cannot
/// outrank that a hub is not linked: then no hub is taken at all, since a pin that isolates a device must not fall back
/// to allocation.
pub fn choose_hub(request: &AllocationRequest<'_>) -> Allocation {
    if let Some(pin) = request.pin {
        return pinned(request, pin);
    }
    let policy = request.enrollment.allocation.as_ref().unwrap_or(&AllocationPolicy::Hashed);
    let (fitting, not_taken) = candidates(request);
    let named = request.enrollment.hubs.len();
    match policy {
        AllocationPolicy::Static if named > 1 || (named == 0 && request.hubs.len() > 1) => {
            Allocation::failed(AllocationFault::StaticNeedsOneHub { named }, unanswered(&fitting, not_taken))
        }
        AllocationPolicy::Static
        | AllocationPolicy::Hashed
        | AllocationPolicy::LowestLatency
        | AllocationPolicy::Custom(_)
            if fitting.is_empty() =>
        {
            Allocation::no_hub("no hub can take the device", not_taken)
        }
        AllocationPolicy::Static | AllocationPolicy::Hashed => hashed(request, policy.as_str(), &fitting, not_taken),
        AllocationPolicy::LowestLatency => lowest_latency(request, &fitting, not_taken),
        AllocationPolicy::Custom(_) => custom(request, &fitting, not_taken),
    }
}

fn pinned(request: &AllocationRequest<'_>, pin: &Pin) -> Allocation {
    let mut not_taken = unlinked(request);
    let others = request.hubs.iter().map(|view| &view.hub.id).filter(|id| **id != pin.hub);
    not_taken.extend(others.map(|id| (id.clone(), NotTaken::PinnedElsewhere)));
    let linked = request.hubs.iter().any(|view| view.hub.id == pin.hub);
    if !linked && !not_taken.iter().any(|(id, _)| *id == pin.hub) {
        not_taken.push((pin.hub.clone(), NotTaken::NotLinked));
    }
    not_taken.sort_by(|a, b| a.0.cmp(&b.0));
    if linked {
        let why = format!("{} pinned the device to {}", pin.by, pin.hub);
        Allocation { allocated: Allocated::Pinned(pin.hub.clone()), not_taken, why }
    } else {
        Allocation::no_hub(format!("the device is pinned to {}, which is not linked", pin.hub), not_taken)
    }
}

/// Among one candidate this is static allocation: the one takes every device.
fn hashed(
    request: &AllocationRequest<'_>,
    policy: &str,
    fitting: &[&HubView],
    not_taken: Vec<(HubId, NotTaken)>,
) -> Allocation {
    let bids = fitting.iter().map(|view| (Bid::of(request.registration_id, &view.hub.id, view.hub.weight), *view));
    // Candidates are sorted by id and the first of equal bids is kept: the id breaks a tie.
    match bids.min_by_key(|(bid, _)| *bid) {
        Some((_, taken)) => {
            let why = format!("{policy} allocation over {} chose {}", counted(fitting.len()), taken.hub.id);
            let others = fitting.iter().filter(|view| view.hub.id != taken.hub.id);
            chosen(taken, others.map(|view| (view.hub.id.clone(), NotTaken::OutsideShare)), not_taken, why)
        }
        None => Allocation::no_hub("no hub can take the device", not_taken),
    }
}

fn lowest_latency(
    request: &AllocationRequest<'_>,
    fitting: &[&HubView],
    not_taken: Vec<(HubId, NotTaken)>,
) -> Allocation {
    let Some(Nearest { taken, nearness, others }) = latency::nearest(fitting, request.facts) else {
        // A device that says nothing this time (or an operator, who cannot say it for the device) is no reason to move it.
        if let Some(home) = fitting.iter().find(|view| request.current == Some(&view.hub.id)) {
            let why = format!("neither latencies nor distances are known, so {} is kept", home.hub.id);
            let others = fitting.iter().filter(|view| view.hub.id != home.hub.id);
            return chosen(home, others.map(|view| (view.hub.id.clone(), NotTaken::NotChosen)), not_taken, why);
        }
        let fallback = hashed(request, AllocationPolicy::Hashed.as_str(), fitting, not_taken);
        let why = format!("neither latencies nor distances are known, so {} instead", fallback.why);
        return Allocation { why, ..fallback };
    };
    let id = &taken.hub.id;
    let why = match nearness {
        Nearness::Milliseconds(milliseconds) => format!("{id} has the lowest latency reported ({milliseconds} ms)"),
        Nearness::Kilometres(kilometres) => format!("{id} is the nearest ({kilometres} km)"),
        Nearness::Unknown => format!("{id} is the only one"),
    };
    chosen(taken, others.into_iter(), not_taken, why)
}

fn custom(request: &AllocationRequest<'_>, fitting: &[&HubView], not_taken: Vec<(HubId, NotTaken)>) -> Allocation {
    let fault = match request.webhook {
        WebhookOutcome::Answered { hub } => match fitting.iter().find(|view| view.hub.id == *hub) {
            Some(taken) => {
                let others = fitting.iter().filter(|view| view.hub.id != *hub);
                let why = format!("the allocation webhook chose {hub}");
                return chosen(taken, others.map(|view| (view.hub.id.clone(), NotTaken::NotChosen)), not_taken, why);
            }
            None => {
                let why = not_taken.iter().find(|(id, _)| id == hub).map_or(NotTaken::NotLinked, |(_, why)| *why);
                AllocationFault::HubNotCandidate { hub: hub.clone(), why }
            }
        },
        WebhookOutcome::AnsweredOther { host_name } => AllocationFault::HostNotOffered { host_name: host_name.clone() },
        WebhookOutcome::Failed(reason) => AllocationFault::Webhook(reason.clone()),
        WebhookOutcome::NotAsked => AllocationFault::WebhookNotAsked,
    };
    Allocation::failed(fault, unanswered(fitting, not_taken))
}

fn chosen(
    taken: &HubView,
    others: impl Iterator<Item = (HubId, NotTaken)>,
    mut not_taken: Vec<(HubId, NotTaken)>,
    why: String,
) -> Allocation {
    not_taken.extend(others);
    not_taken.sort_by(|a, b| a.0.cmp(&b.0));
    Allocation { allocated: Allocated::Hub(taken.hub.id.clone()), not_taken, why }
}

fn unanswered(fitting: &[&HubView], mut not_taken: Vec<(HubId, NotTaken)>) -> Vec<(HubId, NotTaken)> {
    not_taken.extend(fitting.iter().map(|view| (view.hub.id.clone(), NotTaken::NoAnswer)));
    not_taken.sort_by(|a, b| a.0.cmp(&b.0));
    not_taken
}

fn counted(hubs: usize) -> String {
    if hubs == 1 { "1 hub".to_owned() } else { format!("{hubs} hubs") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Geo, Latency, Timestamp, WebhookPolicy};
    use crate::policy::samples::{self, hub, hub_id};
    use proptest::prelude::*;

    /// One allocation, changed by a test before it asks.
    struct Case {
        enrollment: Enrollment,
        facts: ClientFacts,
        current: Option<HubId>,
        pin: Option<Pin>,
        hubs: Vec<HubView>,
        webhook: WebhookOutcome,
    }

    fn case(policy: Option<AllocationPolicy>, hubs: &[&str]) -> Case {
        let mut enrollment = samples::group("g", &[]);
        enrollment.allocation = policy;
        Case {
            enrollment,
            facts: ClientFacts::default(),
            current: None,
            pin: None,
            hubs: hubs.iter().map(|id| hub(id)).collect(),
            webhook: WebhookOutcome::NotAsked,
        }
    }

    impl Case {
        fn naming(mut self, hubs: &[&str]) -> Self {
            self.enrollment.hubs = hubs.iter().map(|id| hub_id(id)).collect();
            self
        }

        fn at(mut self, hub: &str) -> Self {
            self.current = Some(hub_id(hub));
            self
        }

        fn pinned_to(mut self, hub: &str) -> Self {
            let (by, reason) = ("ann".to_owned(), String::new());
            self.pin = Some(Pin { hub: hub_id(hub), by, reason, set_at: Timestamp(0), expires_at: None });
            self
        }

        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        fn hub(&mut self, id: &str) -> &mut HubView {
            self.hubs.iter_mut().find(|view| view.hub.id.as_str() == id).unwrap()
        }

        fn choose(&self, id: &str) -> Allocation {
            choose_hub(&AllocationRequest {
                registration_id: &samples::registration_id(id),
                enrollment: &self.enrollment,
                facts: &self.facts,
                current: self.current.as_ref(),
                pin: self.pin.as_ref(),
                hubs: &self.hubs,
                webhook: &self.webhook,
            })
        }
    }

    fn check(name: &str, case: &Case, expected: &str, reasons: &str) {
        let allocation = case.choose("dev-1");
        let allocated = match &allocation.allocated {
            Allocated::Hub(hub) => hub.to_string(),
            Allocated::Pinned(hub) => format!("pin {hub}"),
            Allocated::NoHub => "none".to_owned(),
            Allocated::Failed(fault) => fault.to_string(),
            Allocated::NotAsked => "not asked".to_owned(),
        };
        assert_eq!((allocated.as_str(), allocation.reasons().as_str()), (expected, reasons), "{name}");
        assert!(!allocation.why.is_empty(), "{name}");
    }

    fn fixed() -> Option<AllocationPolicy> {
        Some(AllocationPolicy::Static)
    }

    #[test]
    fn who_is_a_candidate() {
        let full = |case: &mut Case| {
            case.hub("a").hub.capacity = Some(10);
            case.hub("a").occupied = 10;
        };
        let away = |case: &mut Case| case.hub("a").reachable = false;
        let state = |state| move |case: &mut Case| case.hub("a").hub.state = state;
        let one = || case(fixed(), &["a"]).naming(&["a"]);
        check("active", &one(), "a", "");
        check("draining", &one().with(state(HubState::Draining)), "none", "a is draining");
        check("retired", &one().with(state(HubState::Retired)), "none", "a is retired");
        check("full", &one().with(full), "none", "a is full (10 of 10)");
        check("room for one", &one().with(full).with(|case| case.hub("a").occupied = 9), "a", "");
        check("unreachable", &one().with(away), "none", "a does not answer");
        check("taken down", &one().with(|case| case.hub("a").hub.taken_down = true), "none", "a is taken down");
        check(
            "not linked",
            &case(fixed(), &["b"]).naming(&["a"]),
            "none",
            "a is not linked; b is not among the enrollment's hubs",
        );
        check("nothing linked", &case(None, &[]), "none", "");
    }

    #[test]
    fn the_current_hub_is_held_against_its_lifecycle_only() {
        let full = |case: &mut Case| {
            case.hub("a").hub.capacity = Some(1);
            case.hub("a").occupied = 5;
        };
        let away = |case: &mut Case| case.hub("a").reachable = false;
        let reassign = |case: &mut Case| case.enrollment.reassign_when_down = true;
        let home = || case(fixed(), &["a"]).naming(&["a"]).at("a");
        check("full", &home().with(full), "a", "");
        check("down", &home().with(away), "a", "");
        check("down, reassign", &home().with(away).with(reassign), "none", "a does not answer");
        check("up, reassign", &home().with(reassign), "a", "");
        check("draining", &home().with(|case| case.hub("a").hub.state = HubState::Draining), "none", "a is draining");
        check("another's home", &home().at("b").with(away), "none", "a does not answer");
    }

    #[test]
    fn static_needs_exactly_one_hub() {
        let two = case(fixed(), &["a", "b"]);
        let reasons = "a could take the device, but allocation failed; b could take the device, but allocation failed";
        check("none", &two, "static allocation needs exactly one hub, the enrollment names 0", reasons);
        let two = two.naming(&["a", "b"]);
        check("two", &two, "static allocation needs exactly one hub, the enrollment names 2", reasons);
        check("one", &case(fixed(), &["a", "b"]).naming(&["b"]), "b", "a is not among the enrollment's hubs");
        check("the only one", &case(fixed(), &["a"]), "a", "");
    }

    #[test]
    fn a_pin_outranks_everything_but_that_a_hub_is_not_linked() {
        let others = "a is not the hub that the device is pinned to";
        let pinned = || case(fixed(), &["a", "b"]).naming(&["a"]).pinned_to("b");
        check("not named", &pinned(), "pin b", others);
        check("draining", &pinned().with(|case| case.hub("b").hub.state = HubState::Draining), "pin b", others);
        check("full", &pinned().with(|case| case.hub("b").hub.capacity = Some(0)), "pin b", others);
        check("away", &pinned().with(|case| case.hub("b").reachable = false), "pin b", others);
        let unknown = case(None, &["a"]).pinned_to("x");
        check("unknown", &unknown, "none", "a is not the hub that the device is pinned to; x is not linked");
        assert_eq!(unknown.choose("dev").why, "the device is pinned to x, which is not linked");
        check("named, not linked", &case(None, &[]).naming(&["x"]).pinned_to("x"), "none", "x is not linked");
    }

    #[test]
    fn hashed_is_the_default_and_gives_every_hub_its_devices() {
        for policy in [None, Some(AllocationPolicy::Hashed)] {
            let case = case(policy, &["a", "b", "c"]);
            let mut taken: Vec<Allocated> =
                (0..60).map(|number| case.choose(&format!("dev-{number}")).allocated).collect();
            taken.sort_by_key(|allocated| format!("{allocated:?}"));
            taken.dedup();
            assert_eq!(taken.len(), 3);
        }
        let allocation = case(None, &["a", "b"]).choose("dev-1");
        assert_eq!(allocation.not_taken.len(), 1);
        assert_eq!(allocation.not_taken[0].1, NotTaken::OutsideShare);
    }

    #[test]
    fn lowest_latency_takes_the_nearest() {
        let policy = || Some(AllocationPolicy::LowestLatency);
        let latency = |hub: &str, milliseconds| Latency { hub: hub_id(hub), milliseconds };
        let place = |case: &mut Case, id: &str, longitude| case.hub(id).hub.location = Geo::new(0.0, longitude);
        let three = || case(policy(), &["a", "b", "c"]);
        check(
            "latencies",
            &three().with(|case| case.facts.latencies = vec![latency("a", 30), latency("b", 20), latency("c", 20)]),
            "b",
            "a is slower (30 ms, the best 20 ms); c is as near, but has less weight or a later id",
        );
        check(
            "weight breaks a tie before the id",
            &three().with(|case| {
                case.facts.latencies = vec![latency("a", 30), latency("b", 20), latency("c", 20)];
                case.hub("c").hub.weight = 2;
            }),
            "c",
            "a is slower (30 ms, the best 20 ms); b is as near, but has less weight or a later id",
        );
        check(
            "distance",
            &three().with(|case| {
                case.facts.location = Geo::new(0.0, 9.0);
                place(case, "a", 0.0);
                place(case, "b", 10.0);
            }),
            "b",
            "a is farther (1001 km, the nearest 111 km); c has neither a latency nor a known distance",
        );
        check(
            "a latency counts more than a distance",
            &three().with(|case| {
                case.facts.location = Geo::new(0.0, 9.0);
                case.facts.latencies = vec![latency("a", 900)];
                place(case, "b", 9.0);
            }),
            "a",
            "b has no latency reported by the device; c has neither a latency nor a known distance",
        );
        check(
            "a latency to a hub that cannot take the device",
            &three().naming(&["b"]).with(|case| case.facts.latencies = vec![latency("a", 1), latency("b", 99)]),
            "b",
            "a is not among the enrollment's hubs; c is not among the enrollment's hubs",
        );
        let unknown = three().choose("dev-1");
        assert_eq!(unknown.allocated, case(None, &["a", "b", "c"]).choose("dev-1").allocated);
        assert!(unknown.why.starts_with("neither latencies nor distances are known, so hashed"), "{}", unknown.why);
        for home in ["a", "b", "c"] {
            let kept = three().with(|case| case.current = Some(hub_id(home))).choose("dev-1");
            assert_eq!(kept.allocated, Allocated::Hub(hub_id(home)), "a device that says nothing stays");
        }
    }

    #[test]
    fn custom_takes_what_the_webhook_chose_among_the_candidates() {
        let ask = |webhook| {
            let policy = WebhookPolicy { url: "https://w.example/".to_owned(), api_version: String::new() };
            let mut case = case(Some(AllocationPolicy::Custom(policy)), &["a", "b", "c"]).naming(&["a", "b"]);
            case.hub("a").hub.state = HubState::Draining;
            case.webhook = webhook;
            case
        };
        let answered = |hub: &str| ask(WebhookOutcome::Answered { hub: hub_id(hub) });
        let rest =
            "a is draining; b could take the device, but allocation failed; c is not among the enrollment's hubs";
        check("chosen", &answered("b"), "b", "a is draining; c is not among the enrollment's hubs");
        check("draining", &answered("a"), "the allocation webhook chose a, which is draining", rest);
        check(
            "not named",
            &answered("c"),
            "the allocation webhook chose c, which is not among the enrollment's hubs",
            rest,
        );
        check("no such hub", &answered("x"), "the allocation webhook chose x, which is not linked", rest);
        let other = WebhookOutcome::AnsweredOther { host_name: "evil.example".to_owned() };
        check(
            "not offered",
            &ask(other),
            "the allocation webhook chose \"evil.example\", which it was not offered",
            rest,
        );
        check("failed", &ask(WebhookOutcome::Failed("it broke".to_owned())), "it broke", rest);
        check("not asked", &ask(WebhookOutcome::NotAsked), "the allocation webhook was not asked", rest);
        let nobody = ask(WebhookOutcome::NotAsked).naming(&["a"]);
        check(
            "nobody to choose",
            &nobody,
            "none",
            "a is draining; b is not among the enrollment's hubs; c is not among the enrollment's hubs",
        );
    }

    proptest! {
        #[test]
        fn every_hub_is_answered_for_once_whatever_the_order(
            turn in 0_usize..5,
            policy in 0_usize..3,
            states in prop::collection::vec((0_usize..3, any::<bool>(), any::<bool>()), 5),
            current in prop::option::of(0_usize..5),
        ) {
            let ids = ["a", "b", "c", "d", "e"];
            let policy = [None, Some(AllocationPolicy::LowestLatency), Some(AllocationPolicy::Static)][policy].clone();
            let mut case = case(policy, &ids);
            case.current = current.map(|number| hub_id(ids[number]));
            for (view, (state, reachable, full)) in case.hubs.iter_mut().zip(states) {
                view.hub.state = [HubState::Active, HubState::Draining, HubState::Retired][state];
                view.reachable = reachable;
                view.hub.capacity = full.then_some(0);
            }
            let allocation = case.choose("dev-1");
            let mut answered: Vec<HubId> = allocation.not_taken.iter().map(|(id, _)| id.clone()).collect();
            if let Allocated::Hub(hub) = &allocation.allocated {
                answered.push(hub.clone());
            }
            answered.sort();
            prop_assert_eq!(answered, ids.map(hub_id).to_vec());
            case.hubs.rotate_left(turn);
            case.hubs.reverse();
            prop_assert_eq!(case.choose("dev-1"), allocation);
        }
    }
}
