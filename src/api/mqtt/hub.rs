//! A device at its hub over MQTT (reference/dps.md §8.6): its twin, its reports, and changes of desired properties.
//!
//! Whoever is not let in, or has moved away, is refused or disconnected: that is what makes existing SDKs register again.
//!
//! No session outlives its connection, and yet SDKs count on one: they ask for it (a clean session is not wanted), and after
//! a connection was cut they ask for their twin at once and never subscribe again. So such a device is taken for subscribed
//! from the start, to all that there is to subscribe. Nothing has to be kept for that, across a restart neither.

use std::sync::Arc;

use mqtt_proto::QoS;
use mqtt_proto::v3::{ConnectReturnCode, Packet, Publish};

use crate::api::azure::ascii::ascii_json;
use crate::api::azure::fault::{Code, Refusal};
use crate::api::azure::twin::{desired_patch, of_device, patch_between, patched};
use crate::domain::{DeviceId, Document, Fault, HubId, Kind, Reason};
use crate::service::{DesiredEvent, DesiredWatch, Peer, Service};

use super::link::{Incoming, LinkFault, Outgoing, Stream};
use super::topic::{Asked, DESIRED_CHANGES, TWIN_ANSWERS, desired_change, twin_answer};

/// A device that says it lives at this hub.
#[derive(Debug)]
pub struct AtHub {
    pub service: Service,
    pub peer: Arc<Peer>,
    pub hub: HubId,
    pub device: DeviceId,
    /// It did not ask for a clean session.
    pub resumes: bool,
}

/// What is subscribed, and what of the desired properties the device was told.
#[derive(Debug, Default)]
struct Subscribed {
    answers_at: Option<QoS>,
    changes: Option<Changes>,
}

#[derive(Debug)]
struct Changes {
    level: QoS,
    events: DesiredWatch,
    /// The document as the device has it: absent until the first event, which is not told (a device asks for its twin).
    told: Option<Document>,
}

impl AtHub {
    /// Lets the device in, or not, and serves the connection to its end.
    pub async fn serve<S: Stream>(self, mut from: Incoming<S>, mut to: Outgoing<S>) -> Result<(), LinkFault> {
        if let Err(fault) = self.service.own_twin(&self.peer.evidence, &self.hub, &self.device).await {
            tracing::debug!(peer = %self.peer.address, "a device was not let in: {fault}");
            return to.refuse(refusal_of(&fault)).await;
        }
        to.accept().await?;
        let mut subscribed = Subscribed::default();
        if self.resumes {
            subscribed.answers_at = Some(QoS::Level1);
            match self.changes(QoS::Level1).await {
                Ok(changes) => subscribed.changes = Some(changes),
                Err(_) => return Ok(()),
            }
        }
        loop {
            let mut next = std::pin::pin!(from.next());
            let packet = loop {
                tokio::select! {
                    packet = &mut next => break packet?,
                    event = next_event(&mut subscribed.changes) => match event {
                        Some(event) => tell(&mut subscribed.changes, event, &mut to).await?,
                        // It has moved, or its hub is gone.
                        None => return Ok(()),
                    },
                }
            };
            match packet {
                Some(Packet::Disconnect) | None => return Ok(()),
                Some(packet) => match self.handle(packet, &mut subscribed, &mut to).await {
                    Ok(()) => {}
                    Err(Ended::Link(fault)) => return Err(fault),
                    Err(Ended::Left) => return Ok(()),
                },
            }
        }
    }

    async fn changes(&self, level: QoS) -> Result<Changes, Fault> {
        let events = self.service.watch_desired(&self.peer.evidence, &self.hub, &self.device).await?;
        Ok(Changes { level, events, told: None })
    }

    async fn handle<S: Stream>(
        &self,
        packet: Packet,
        subscribed: &mut Subscribed,
        to: &mut Outgoing<S>,
    ) -> Result<(), Ended> {
        match packet {
            Packet::Subscribe(asked) => {
                let serves = |filter: &str| filter == TWIN_ANSWERS || filter == DESIRED_CHANGES;
                for (filter, level) in to.subscribed(&asked, serves).await? {
                    if filter == TWIN_ANSWERS {
                        subscribed.answers_at = Some(level);
                    } else if let Some(changes) = &mut subscribed.changes {
                        // What waits there is owed to the device still (MQTT 3.1.1, 3.8.4-3).
                        changes.level = level;
                    } else {
                        subscribed.changes = Some(self.changes(level).await.map_err(|_| Ended::Left)?);
                    }
                }
                Ok(())
            }
            Packet::Unsubscribe(asked) => {
                for filter in &asked.topics {
                    match &**filter {
                        TWIN_ANSWERS => subscribed.answers_at = None,
                        DESIRED_CHANGES => subscribed.changes = None,
                        _ => {}
                    }
                }
                Ok(to.send(&Packet::Unsuback(asked.pid)).await?)
            }
            Packet::Publish(publication) => {
                let level = subscribed.answers_at;
                let level = level.ok_or(LinkFault::Protocol("a question, with no subscription to its answer"))?;
                to.taken(&publication).await?;
                self.answer(&publication, level, to).await
            }
            Packet::Pingreq => Ok(to.send(&Packet::Pingresp).await?),
            Packet::Puback(_) => Ok(()),
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Disconnect
            | Packet::Pingresp => Err(LinkFault::Protocol("a packet that does not belong here").into()),
        }
    }

    async fn answer<S: Stream>(&self, asked: &Publish, level: QoS, to: &mut Outgoing<S>) -> Result<(), Ended> {
        let question = Asked::parse(&asked.topic_name).map_err(|_| LinkFault::Protocol("an unknown topic"))?;
        let (evidence, hub, device) = (&self.peer.evidence, &self.hub, &self.device);
        let (rid, answered) = match question {
            Asked::Twin { rid } => {
                let twin = self.service.own_twin(evidence, hub, device).await;
                (rid, twin.map(|twin| (twin_answer(200, rid, None), ascii_json(&of_device(&twin.state)))))
            }
            Asked::Report { rid } => {
                let reported = match report_of(&asked.payload) {
                    Ok(patch) => self.service.report(evidence, hub, device, patch).await,
                    Err(fault) => Err(fault),
                };
                let version = reported.map(|twin| twin.state.twin.reported.version);
                (rid, version.map(|version| (twin_answer(204, rid, Some(version)), Vec::new())))
            }
            Asked::Register { .. } | Asked::Operation { .. } => {
                return Err(LinkFault::Protocol("a registration, on a connection to a hub").into());
            }
        };
        let (topic, body) = match answered {
            Ok(answer) => answer,
            Err(fault) if ends_the_connection(fault.reason) => return Err(Ended::Left),
            Err(fault) => {
                let status = Code::of(fault.reason).status;
                let body = Refusal::from(fault).body(self.service.now());
                (twin_answer(status, rid, None), ascii_json(&body))
            }
        };
        Ok(to.publish(topic, body, level).await?)
    }
}

/// Why a connection is not served any longer.
enum Ended {
    Link(LinkFault),
    /// The device does not live here any more, or is not let in: it is hung up on, and registers again.
    Left,
}

impl From<LinkFault> for Ended {
    fn from(fault: LinkFault) -> Self {
        Ended::Link(fault)
    }
}

/// The next change; never, when nothing is subscribed.
async fn next_event(changes: &mut Option<Changes>) -> Option<DesiredEvent> {
    match changes {
        Some(changes) => changes.events.recv().await.filter(|event| *event != DesiredEvent::Moved),
        None => std::future::pending().await,
    }
}

/// Tells the device a change. One that fell behind is told the difference to what it has.
async fn tell<S: Stream>(
    changes: &mut Option<Changes>,
    event: DesiredEvent,
    to: &mut Outgoing<S>,
) -> Result<(), LinkFault> {
    let Some(changes) = changes else { return Ok(()) };
    let (patch, version) = match event {
        DesiredEvent::Whole { desired, version } => {
            let patch = changes.told.as_ref().map(|told| patch_between(told, &desired));
            changes.told = Some(desired);
            match patch {
                Some(patch) => (patch, version),
                None => return Ok(()),
            }
        }
        DesiredEvent::Patch { patch, version } => {
            if let Some(told) = &mut changes.told {
                patched(told, &patch);
            }
            (patch, version)
        }
        DesiredEvent::Moved => return Ok(()),
    };
    to.publish(desired_change(version), ascii_json(&desired_patch(&patch, version)), changes.level).await
}

fn report_of(payload: &[u8]) -> Result<Document, Fault> {
    let text = std::str::from_utf8(payload).map_err(|_| Fault::invalid("reported", "is not UTF-8"))?;
    Document::from_text(text).map_err(|fault| Fault::invalid("reported", fault))
}

fn ends_the_connection(reason: Reason) -> bool {
    matches!(reason, Reason::DeviceMoved | Reason::DeviceMoving | Reason::CallerUnauthenticated | Reason::TwinNotFound)
}

fn refusal_of(fault: &Fault) -> ConnectReturnCode {
    match fault.kind() {
        Kind::Unavailable | Kind::Exhausted | Kind::Internal => ConnectReturnCode::ServerUnavailable,
        Kind::Invalid | Kind::Unauthenticated | Kind::Denied | Kind::NotFound | Kind::Conflict => {
            ConnectReturnCode::NotAuthorized
        }
    }
}
