//! What operators do to enrollments, and what the enrollments of a run may look like.

use std::sync::Arc;
use std::time::Duration;

use rehome::domain::{
    AllocationPolicy, Attestation, DeviceId, Document, Enrollment, EnrollmentId, HubId, InitialState,
    ReprovisionPolicy, ResetOnSameHub, UnreachableRule, Version, WebhookPolicy, X509Leaves,
};
use rehome::store::{Change, Commit};

use super::dice::Dice;
use super::identity::{LEAVES, identity};
use super::world::World;

impl World {
    pub fn enroll(&mut self, device: usize, dice: &mut Dice) {
        let now = self.now();
        let identity = identity(device);
        let blank = Enrollment {
            id: EnrollmentId::Individual(identity.id.clone()),
            attestation: Attestation::X509Leaf(X509Leaves {
                primary: identity.leaves[0].reference.clone(),
                secondary: None,
            }),
            enabled: true,
            device_id: None,
            initial: InitialState::default(),
            reprovision: None,
            allocation: None,
            hubs: Vec::new(),
            unreachable: UnreachableRule::LastKnown,
            allow_late_writes: false,
            reset_on_same_hub: ResetOnSameHub::Always,
            reassign_when_down: false,
            adopt_existing: false,
            created_at: now,
            updated_at: now,
            version: Version::ABSENT,
        };
        let mut enrollment = blank;
        for part in 0..PARTS {
            self.draw_part(device, part, &mut enrollment, dice);
        }
        enrollment.enabled = true;
        self.put_enrollment(device, enrollment);
    }

    /// One hub, any policy, nothing out of the ordinary.
    pub fn enroll_simply(&mut self, device: usize, dice: &mut Dice) {
        let Some(current) = self.devices[device].enrollment.clone() else { return };
        let mut enrollment = Enrollment::clone(&current);
        enrollment.device_id = None;
        enrollment.enabled = true;
        enrollment.unreachable = UnreachableRule::Wait { deadline: Duration::from_secs(120) };
        enrollment.reassign_when_down = false;
        self.draw_part(device, 0, &mut enrollment, dice);
        self.draw_part(device, 3, &mut enrollment, dice);
        self.draw_part(device, 4, &mut enrollment, dice);
        enrollment.hubs = self.hub_of(dice.below(1 << 16)).into_iter().collect();
        enrollment.allocation = Some(AllocationPolicy::Static);
        self.put_enrollment(device, enrollment);
    }

    fn put_enrollment(&mut self, device: usize, enrollment: Enrollment) {
        let commit = Commit { changes: vec![Change::PutEnrollment(Box::new(enrollment.clone()))], ..Commit::default() };
        if self.operate(commit) {
            let stored = Enrollment { version: enrollment.version.next(), ..enrollment };
            self.note(|| {
                let policy = stored.reprovision.map_or("none", ReprovisionPolicy::as_str);
                let allocation = stored.allocation.as_ref().map_or("default", AllocationPolicy::as_str);
                let hubs: Vec<&str> = stored.hubs.iter().map(HubId::as_str).collect();
                let id = &stored.id;
                format!(
                    "{id} is enrolled (version {}): policy {policy}, {allocation} over [{}], {:?}, enabled {}",
                    stored.version.0,
                    hubs.join(" "),
                    stored.unreachable,
                    stored.enabled
                )
            });
            let before = self.devices[device].enrollment.replace(Arc::new(stored));
            self.devices[device].before = before;
        }
    }

    pub fn edit(&mut self, device: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        let Some(current) = self.devices[device].enrollment.clone() else { return self.enroll(device, &mut dice) };
        if dice.percent(4) {
            let change = Change::DeleteEnrollment { id: current.id.clone(), version: current.version };
            if self.operate(Commit { changes: vec![change], ..Commit::default() }) {
                self.note(|| format!("{} is deleted", current.id));
                self.devices[device].before = self.devices[device].enrollment.take();
            }
            return;
        }
        if dice.percent(40) {
            let Some(not) = self.hub_of(dice.below(1 << 16)) else { return };
            return self.send_elsewhere(device, &not);
        }
        let mut enrollment = Enrollment::clone(&current);
        for _ in 0..=dice.below(3) {
            let part = dice.below(PARTS);
            self.draw_part(device, part, &mut enrollment, &mut dice);
        }
        enrollment.updated_at = self.now();
        self.put_enrollment(device, enrollment);
    }

    /// The operator names one hub, another than this.
    pub fn send_elsewhere(&mut self, device: usize, not: &HubId) {
        let Some(current) = self.devices[device].enrollment.clone() else { return };
        let Some(to) = self.hubs.keys().find(|hub| *hub != not).cloned() else { return };
        let mut enrollment = Enrollment::clone(&current);
        (enrollment.allocation, enrollment.hubs) = (Some(AllocationPolicy::Static), vec![to]);
        self.put_enrollment(device, enrollment);
    }

    /// The device's rule passes by a hub that is away.
    pub fn let_late_writes_in(&mut self, device: usize, dice: &mut Dice) {
        let Some(current) = self.devices[device].enrollment.clone() else { return };
        let unreachable = *dice.pick(&[UnreachableRule::LastKnown, UnreachableRule::Reset]);
        let enrollment = Enrollment { unreachable, allow_late_writes: true, ..Enrollment::clone(&current) };
        self.put_enrollment(device, enrollment);
    }

    fn draw_part(&self, device: usize, part: usize, enrollment: &mut Enrollment, dice: &mut Dice) {
        let linked: Vec<HubId> = self.hubs.keys().cloned().collect();
        match part {
            0 => {
                let first = dice.below(LEAVES);
                let second = dice.percent(40).then_some((first + 1) % LEAVES);
                let leaf = |leaf: usize| identity(device).leaves[leaf].reference.clone();
                let leaves = X509Leaves { primary: leaf(first), secondary: second.map(leaf) };
                enrollment.attestation = Attestation::X509Leaf(leaves);
            }
            1 => enrollment.enabled = dice.percent(85),
            2 => {
                enrollment.device_id = match dice.below(10) {
                    0 => DeviceId::parse(&format!("named-{device}")).ok(),
                    // Somebody else's name: must not get it.
                    1 => DeviceId::parse(&format!("dev-{}", (device + 1) % self.devices.len())).ok(),
                    _ => None,
                };
            }
            3 => {
                let desired = format!(r#"{{"rate":{},"net":{{"apn":"x"}}}}"#, dice.below(10));
                enrollment.initial = InitialState {
                    tags: Document::from_text(r#"{"site":"x"}"#).unwrap_or_default(),
                    desired: Document::from_text(&desired).unwrap_or_default(),
                    ..InitialState::default()
                };
                enrollment.initial.capabilities.iot_edge = dice.percent(50);
            }
            4 => {
                enrollment.reprovision = *dice.pick(&[
                    Some(ReprovisionPolicy::Migrate),
                    Some(ReprovisionPolicy::Migrate),
                    Some(ReprovisionPolicy::Reset),
                    Some(ReprovisionPolicy::Reset),
                    Some(ReprovisionPolicy::Never),
                    None,
                ]);
            }
            5..=7 => {
                let webhook = WebhookPolicy { url: "https://w.test/".to_owned(), api_version: "2019-03-31".to_owned() };
                let one = linked.get(dice.below(linked.len())).cloned();
                (enrollment.allocation, enrollment.hubs) = match dice.below(8) {
                    0..4 => (Some(AllocationPolicy::Static), one.into_iter().collect()),
                    4 => (None, Vec::new()),
                    5 => {
                        let some = linked.iter().filter(|_| dice.percent(60)).cloned().collect();
                        (Some(AllocationPolicy::Hashed), some)
                    }
                    6 => (Some(AllocationPolicy::LowestLatency), Vec::new()),
                    _ => (Some(AllocationPolicy::Custom(webhook)), Vec::new()),
                };
            }
            8 => {
                enrollment.unreachable = match dice.below(4) {
                    0 => UnreachableRule::LastKnown,
                    1 => UnreachableRule::Reset,
                    _ => UnreachableRule::Wait { deadline: Duration::from_secs(1 + dice.draw() % 120) },
                };
                enrollment.allow_late_writes = dice.percent(40);
            }
            9 => {
                let all = [ResetOnSameHub::Always, ResetOnSameHub::WhenEnrollmentChanged, ResetOnSameHub::Off];
                enrollment.reset_on_same_hub = *dice.pick(&all);
            }
            10 => enrollment.reassign_when_down = dice.percent(50),
            _ => enrollment.adopt_existing = dice.percent(50),
        }
    }
}

const PARTS: usize = 12;
