//! A device that lives: it registers, watches, and follows itself to another hub when it is moved.

use std::collections::VecDeque;

use super::device::Device;
use super::fault::ClientFault;
use super::home::{Home, Watch};
use super::retry::{NextStep, Patience, next_step, pause};
use super::tpm::ChipFault;
use super::{DesiredChange, RegistrationUpdate};
use crate::domain::{ClientFacts, Document, Reason, Timestamp};

/// What happens to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// It has a hub, perhaps another one. The desired properties follow, whole.
    Home(Box<RegistrationUpdate>),
    /// Its desired properties as they are now, or a change of them.
    Desired(DesiredChange),
    /// It has no hub for the moment and will register again.
    Away { why: String },
}

/// A device's life as a sequence of events; see [`Device::follow`].
#[derive(Debug)]
pub struct Follow {
    device: Device,
    facts: ClientFacts,
    place: Place,
    /// Failures since the last sign of life of a hub.
    stumbles: u32,
    /// Not before then.
    resume_at: Timestamp,
    /// Events that arose while something else was waited for.
    pending: VecDeque<DeviceEvent>,
}

#[derive(Debug)]
enum Place {
    Away,
    Home { home: Box<Home>, watch: Box<Watch> },
}

/// What a failure means for a device that lives.
#[derive(Debug, PartialEq, Eq)]
enum Stumble {
    /// Register again after this pause.
    Rise(std::time::Duration),
    /// It can never succeed as it is.
    Fall,
}

/// What a hub's failure asks for. One that does not let the device in knows another credential than the device has (it was
/// restored, say): registering gives both the same one.
fn next_at_hub(fault: &ClientFault) -> NextStep {
    match fault {
        ClientFault::Tpm(ChipFault::NoIdentity { .. }) => NextStep::RegisterAgain { hint: None },
        ClientFault::Refused(remote) if remote.known_reason() == Some(Reason::CallerUnauthenticated) => {
            NextStep::RegisterAgain { hint: remote.retry_after }
        }
        fault => next_step(fault),
    }
}

/// A hub that does not answer is no different from one that the device has left: the service knows where home is. A hub
/// that says *moved* is believed at once, the first time.
fn stumble(fault: &ClientFault, stumbles: u32, draw: u32) -> Stumble {
    match next_at_hub(fault) {
        NextStep::RegisterAgain { hint: None } if stumbles <= 1 => Stumble::Rise(std::time::Duration::ZERO),
        NextStep::RegisterAgain { hint } | NextStep::Again { hint } => Stumble::Rise(pause(stumbles, hint, draw)),
        NextStep::GiveUp => Stumble::Fall,
    }
}

impl Follow {
    pub(super) fn new(device: Device, facts: ClientFacts) -> Self {
        let place = Place::Away;
        Self { device, facts, place, stumbles: 0, resume_at: Timestamp::default(), pending: VecDeque::new() }
    }

    /// Waits for the next event. An error is one that waiting will not mend; the next call tries all the same.
    ///
    /// Safe to drop while it waits: no event is lost, at most a registration is asked for again.
    pub async fn next(&mut self) -> Result<DeviceEvent, ClientFault> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let told = match &mut self.place {
                Place::Home { watch, .. } => Some(watch.next().await),
                Place::Away => None,
            };
            match told {
                None => self.settle().await?,
                Some(Ok(Some(DesiredChange::Moved))) => self.leave("the hub says that the device is moving"),
                Some(Ok(Some(change))) => {
                    self.stumbles = 0;
                    return Ok(DeviceEvent::Desired(change));
                }
                Some(Ok(None)) => self.watch_again().await?,
                Some(Err(fault)) => self.rise(&fault)?,
            }
        }
    }

    /// Reports at whatever hub is home, registering first where there is none. `Ok` is the new version of the reported
    /// properties. A report that was answered is durable and moves with the device; one that broke on the way may be
    /// merged twice, which changes nothing but the version.
    pub async fn report(&mut self, patch: &Document) -> Result<u64, ClientFault> {
        loop {
            let Place::Home { home, .. } = &self.place else {
                self.settle().await?;
                continue;
            };
            match home.report(patch).await {
                Ok(version) => {
                    self.stumbles = 0;
                    return Ok(version);
                }
                // A report that no hub would take is no reason to leave this one.
                Err(fault) if next_at_hub(&fault) == NextStep::GiveUp => return Err(fault),
                Err(fault) => self.rise(&fault)?,
            }
        }
    }

    /// The hub where the device is, if it is at one.
    pub fn home(&self) -> Option<&Home> {
        match &self.place {
            Place::Home { home, .. } => Some(home),
            Place::Away => None,
        }
    }

    /// One try to get from *away* to a hub; a failure that may pass only sets the time of the next.
    async fn settle(&mut self) -> Result<(), ClientFault> {
        self.device.clock.sleep_until(self.resume_at).await;
        let update = self.device.register(&self.facts, Patience::Forever, |_| ()).await?;
        let opened = match self.device.home(&update).await {
            Ok(home) => home.watch().await.map(|watch| (Box::new(home), Box::new(watch))),
            Err(fault) => Err(fault),
        };
        match opened {
            Ok((home, watch)) => {
                self.place = Place::Home { home, watch };
                self.pending.push_back(DeviceEvent::Home(Box::new(update)));
                Ok(())
            }
            Err(fault) => self.rise(&fault),
        }
    }

    /// A hub ends the streams of a device that came in with a token when that token ends: it comes in with the next one.
    /// Whoever came in otherwise was sent away.
    async fn watch_again(&mut self) -> Result<(), ClientFault> {
        let ended = || tonic::Status::unavailable("the hub ended the stream").into();
        let again = match &self.place {
            Place::Home { home, .. } if home.comes_by_token() && self.stumbles == 0 => home.watch().await,
            Place::Home { .. } | Place::Away => Err(ended()),
        };
        match (again, &mut self.place) {
            (Ok(next), Place::Home { watch, .. }) => {
                // Counted until the hub shows life, so that one which always ends streams at once is given up.
                self.stumbles = 1;
                **watch = next;
                Ok(())
            }
            (Ok(_), Place::Away) => self.rise(&ended()),
            (Err(fault), _) => self.rise(&fault),
        }
    }

    fn rise(&mut self, fault: &ClientFault) -> Result<(), ClientFault> {
        self.stumbles = self.stumbles.saturating_add(1);
        match stumble(fault, self.stumbles, self.device.draw()) {
            Stumble::Rise(pause) => {
                self.leave(&fault.to_string());
                self.resume_at = self.device.clock.now().plus(pause);
                Ok(())
            }
            Stumble::Fall => {
                self.place = Place::Away;
                Err(fault.clone())
            }
        }
    }

    fn leave(&mut self, why: &str) {
        self.place = Place::Away;
        // Who only reports takes no events: those of one kind must not gather without end.
        self.pending.retain(|event| matches!(event, DeviceEvent::Desired(_)));
        self.pending.push_back(DeviceEvent::Away { why: why.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::*;
    use crate::domain::Fault;

    fn refused(reason: Reason) -> ClientFault {
        Status::from(Fault::new(reason, "x")).into()
    }

    #[test]
    fn a_moved_device_registers_at_once_and_then_with_pauses() {
        for reason in [Reason::DeviceMoving, Reason::DeviceMoved, Reason::TwinNotFound] {
            assert_eq!(stumble(&refused(reason), 1, 0), Stumble::Rise(Duration::ZERO), "{reason}");
            assert_eq!(stumble(&refused(reason), 2, 0), Stumble::Rise(Duration::from_millis(500)), "{reason}");
        }
        let hinted = Fault::new(Reason::DeviceMoving, "x").retry_after(Duration::from_secs(1));
        assert_eq!(stumble(&Status::from(hinted).into(), 1, 0), Stumble::Rise(Duration::from_secs(1)));
    }

    #[test]
    fn a_hub_that_is_away_is_asked_for_at_the_service() {
        let gone = ClientFault::Connect { to: "hub".to_owned(), why: "refused".to_owned() };
        assert_eq!(stumble(&gone, 1, 0), Stumble::Rise(Duration::from_millis(250)));
        assert_eq!(stumble(&refused(Reason::HubUnavailable), 3, u32::MAX), Stumble::Rise(Duration::from_secs(2)));
    }

    #[test]
    fn a_hub_that_knows_another_credential_is_no_end() {
        let locked_out = refused(Reason::CallerUnauthenticated);
        assert_eq!(next_at_hub(&locked_out), NextStep::RegisterAgain { hint: None });
        assert_eq!(stumble(&locked_out, 1, 0), Stumble::Rise(Duration::ZERO));
        assert_eq!(stumble(&locked_out, 2, 0), Stumble::Rise(Duration::from_millis(500)), "not without a pause");
        assert_eq!(
            next_at_hub(&ClientFault::Tpm(ChipFault::NoIdentity { handle: 0x8100_0100 })),
            NextStep::RegisterAgain { hint: None }
        );
    }

    #[test]
    fn what_waiting_does_not_mend_is_told() {
        for reason in [Reason::NotYours, Reason::RegistrationRefused, Reason::TwinInvalid] {
            assert_eq!(stumble(&refused(reason), 1, 0), Stumble::Fall, "{reason}");
        }
    }
}
