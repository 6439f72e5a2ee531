//! Who calls the service meanwhile: devices, a back end, and operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rehome::ambient::SeededEntropy;
use rehome::client::tpm::SoftwareModule;
use rehome::client::{
    ClientFault, Device, EnrollmentRecord, Home, MoveProgress, Operator, Patience, ReprovisionCall, Resolution,
    ResolveCall, UndoCall,
};
use rehome::domain::{ClientFacts, EnrollmentId, Reason, RegistrationId, TwinPatch};
use rehome::pki::Issued;

use super::ledger::Ledger;
use super::stage::{Life, Stage};
use super::{ABSENT, CALLS_BETWEEN_KILLS, DEVICES, HUBS, RESET, RESETS_MAX, at, below, is_passing, name, passes_until};
use crate::world::{document, hub_id, identity_of, registration_id};

/// A device that reports, and registers again whenever its hub does not take the report.
pub struct Reporter {
    pub number: usize,
    pub proof: Proof,
    pub ledger: Ledger,
    pub version: u64,
}

/// What a device proves itself with.
pub enum Proof {
    /// A certificate that its enrollment names.
    Enrolled(Issued),
    /// A new certificate in every life of the service.
    Fresh,
    Tpm(Arc<SoftwareModule>),
}

impl Reporter {
    fn who(&self) -> String {
        format!("reporter of {}", name(self.number))
    }

    pub async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
        self
    }

    /// One connection: until it breaks.
    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let entropy = Arc::new(rehome::ambient::SystemEntropy::new());
        let name = name(self.number);
        let identity = match &self.proof {
            Proof::Enrolled(issued) => Some(identity_of(issued)),
            Proof::Fresh => {
                stage.refreshes.fetch_add(1, Ordering::Relaxed);
                Some(identity_of(&life.site.issue(&name)))
            }
            Proof::Tpm(_) => None,
        };
        let target = life.site.target(identity);
        let clock = Arc::new(rehome::ambient::SystemClock);
        let who = self.who();
        stage.does(&who, "connects");
        let device = Device::connect(registration_id(&name), target, clock, entropy).await?;
        let device = match &self.proof {
            Proof::Tpm(module) => device.by_tpm(module.clone()),
            Proof::Enrolled(_) | Proof::Fresh => device,
        };
        while !stage.is_over() {
            stage.does(&who, "registers");
            let update = device.register(&ClientFacts::default(), Patience::Tries(1), |_| ()).await?;
            stage.note_call();
            stage.does(&who, "connects to its hub");
            let home = device.home(&update).await?;
            stage.does(&who, "reports");
            self.report_at(&home, stage).await?;
        }
        Ok(())
    }

    /// Reports until the hub says that the device is moving or has moved.
    async fn report_at(&mut self, home: &Home, stage: &Stage) -> Result<(), ClientFault> {
        while !stage.is_over() {
            let (key, value) = self.ledger.draw();
            match home.report(&document(&format!(r#"{{"{key}":{value}}}"#))).await {
                Ok(version) => {
                    assert!(version > self.version, "{}: version {version} after {}", self.who(), self.version);
                    self.version = version;
                    self.ledger.acknowledge(value, version);
                    stage.acknowledged[self.number].reported.store(version, Ordering::Relaxed);
                    stage.note_call();
                }
                Err(fault) if is_elsewhere(&fault) => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}

pub fn is_elsewhere(fault: &ClientFault) -> bool {
    let reason = fault.remote().and_then(|remote| remote.known_reason());
    matches!(reason, Some(Reason::DeviceMoving | Reason::DeviceMoved | Reason::TwinNotFound))
}

/// A back end that tags devices wherever they are.
pub struct Tagger {
    pub ledgers: Vec<Ledger>,
    pub entropy: SeededEntropy,
}

impl Tagger {
    fn who(&self) -> String {
        "tagger".to_owned()
    }

    pub async fn live(mut self, stage: Arc<Stage>) -> Self {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
        self
    }

    async fn visit(&mut self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        stage.does(&who, "tags");
        while !stage.is_over() {
            let number = below(&self.entropy, DEVICES as u64) as usize;
            let (key, value) = self.ledgers[number].draw();
            let patch = TwinPatch { tags: Some(document(&format!(r#"{{"{key}":{value}}}"#))), ..TwinPatch::default() };
            for hub in HUBS {
                match operator.update_twin(&at(hub, number), &patch, None).await {
                    Ok(record) => {
                        let version = record.state.twin.version;
                        self.ledgers[number].acknowledge(value, version);
                        stage.acknowledged[number].tags.fetch_max(version, Ordering::Relaxed);
                        stage.note_call();
                        break;
                    }
                    Err(fault) if is_elsewhere(&fault) => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }
}

/// An operator who sends devices back and forth, takes that back, sets some of them back where they are, and meddles with
/// moves that wait.
pub struct Mover {
    pub number: u64,
    pub entropy: SeededEntropy,
}

impl Mover {
    fn who(&self) -> String {
        format!("mover {}", self.number)
    }

    /// Tries again at once, or gives up what has not arrived. Clean-up alone is never given up: what a hub holds would stay.
    fn meddling(&self, registration: &RegistrationId, running: &MoveProgress) -> ResolveCall {
        let resolution = if below(&self.entropy, 2) == 0 { Resolution::Retry } else { Resolution::Abandon };
        ResolveCall {
            registration: registration.clone(),
            generation: running.generation,
            what: Some("activate".to_owned()),
            hub: running.to.clone(),
            resolution,
            reason: "a test".to_owned(),
        }
    }

    pub async fn live(self, stage: Arc<Stage>) {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
    }

    async fn visit(&self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        while !stage.is_over() {
            let number = below(&self.entropy, DEVICES as u64) as usize;
            let registration = registration_id(&name(number));
            let mut way = if below(&self.entropy, 6) == 0 { Way::Undo } else { Way::Go };
            if RESET.contains(&number) {
                // Spread over all lives.
                let due = 1 + life.number * (RESETS_MAX - 1) / stage.kills;
                if stage.resets[number].fetch_add(1, Ordering::Relaxed) >= due {
                    stage.resets[number].fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                way = [Way::Go, Way::Undo, Way::Reset][below(&self.entropy, 3) as usize];
            }
            stage.does(&who, "looks a device up");
            let record = operator.registration(&registration).await?;
            if let Some(running) = &record.running
                && below(&self.entropy, 4) == 0
            {
                stage.does(&who, "resolves a move");
                operator.resolve(&self.meddling(&registration, running)).await?;
                stage.resolved.fetch_add(1, Ordering::Relaxed);
                stage.note_call();
                continue;
            }
            let here = record.assignment.map(|assignment| assignment.hub);
            let there = if here == Some(hub_id(HUBS[0])) { HUBS[1] } else { HUBS[0] };
            if way == Way::Undo {
                stage.does(&who, "takes a move back");
                let call = UndoCall {
                    registration,
                    generation: None,
                    // What is carried then is older: for the others that would be a loss.
                    restore_twin: RESET.contains(&number),
                    reason: String::new(),
                    pin_expires_at: None,
                    request_id: None,
                };
                operator.undo(&call).await?;
                stage.undone.fetch_add(1, Ordering::Relaxed);
                stage.note_call();
                continue;
            }
            if way == Way::Reset {
                stage.does(&who, "changes an enrollment");
                // A reset in place follows a change of the enrollment.
                let id = EnrollmentId::Individual(registration.clone());
                let EnrollmentRecord { mut draft, version, .. } = operator.enrollment(&id).await?;
                let edition = below(&self.entropy, 1 << 32);
                draft.initial.desired = document(&format!(r#"{{"edition":{edition}}}"#));
                operator.update_enrollment(&draft, version).await?;
            }
            let call = ReprovisionCall {
                registration,
                to: (way == Way::Go).then(|| hub_id(there)),
                pin_expires_at: None,
                reason: String::new(),
                request_id: None,
            };
            stage.does(&who, "moves a device");
            operator.reprovision(&call).await?;
            stage.moves.fetch_add(1, Ordering::Relaxed);
            stage.note_call();
        }
        Ok(())
    }
}

/// What an operator does with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Go,
    Undo,
    /// In place.
    Reset,
}

/// An operator who takes a hub down, and brings it up after some time.
pub struct Outages {
    pub entropy: SeededEntropy,
}

impl Outages {
    fn who(&self) -> String {
        "outages".to_owned()
    }

    pub async fn live(self, stage: Arc<Stage>) {
        let mut life = stage.lives.borrow().clone();
        while let Err(fault) = self.visit(&life, &stage).await
            && let Some(next) = stage.after(&self.who(), &fault, &life).await
        {
            life = next;
        }
    }

    async fn visit(&self, life: &Life, stage: &Stage) -> Result<(), ClientFault> {
        let who = self.who();
        stage.does(&who, "connects");
        let operator = life.site.connect_operator().await?;
        if is_passing(life.number, stage.kills) && stage.pace.borrow().passed < passes_until(life.number, stage.kills) {
            self.pass_by(&operator, stage, &who).await?;
        }
        while !stage.is_over() {
            stage.does(&who, "brings the hubs up");
            for hub in HUBS {
                operator.bring_up_hub(&hub_id(hub)).await?;
            }
            stage.does(&who, "leaves both hubs up");
            self.pause(stage).await;
            stage.does(&who, "takes a hub down");
            let hub = HUBS[below(&self.entropy, 2) as usize];
            operator.take_down_hub(&hub_id(hub)).await?;
            stage.outages.fetch_add(1, Ordering::Relaxed);
            stage.does(&who, "leaves a hub down");
            self.pause(stage).await;
        }
        Ok(())
    }

    /// Takes the hub of a device down whose enrollment does not wait, and sends the device elsewhere.
    async fn pass_by(&self, operator: &Operator, stage: &Stage, who: &str) -> Result<(), ClientFault> {
        for hub in HUBS {
            operator.bring_up_hub(&hub_id(hub)).await?;
        }
        let number = ABSENT.start + below(&self.entropy, ABSENT.len() as u64) as usize;
        let registration = registration_id(&name(number));
        stage.does(who, "waits for a device to come to rest");
        let home = loop {
            let record = operator.registration(&registration).await?;
            if let Some(home) = record.assignment.filter(|_| record.operation.status.is_final()) {
                break home.hub;
            }
        };
        operator.sync_hub(&home).await?;
        operator.take_down_hub(&home).await?;
        stage.does(who, "waits for a device to pass its hub by");
        let there = if home == hub_id(HUBS[0]) { HUBS[1] } else { HUBS[0] };
        let call = ReprovisionCall {
            registration: registration.clone(),
            to: Some(hub_id(there)),
            pin_expires_at: None,
            reason: String::new(),
            request_id: None,
        };
        operator.reprovision(&call).await?;
        while !operator.registration(&registration).await?.operation.status.is_final() {}
        stage.pace.send_modify(|pace| pace.passed += 1);
        Ok(())
    }

    async fn pause(&self, stage: &Stage) {
        stage.calls_go_by(below(&self.entropy, CALLS_BETWEEN_KILLS)).await;
    }
}
