//! Registration over MQTT (reference/dps.md §6): a device publishes what it asks, and is published the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::QoS;
use mqtt_proto::v3::{Packet, Publish};
use serde_json::Value;

use crate::api::azure::ascii::ascii_json;
use crate::api::azure::fault::Refusal;
use crate::api::azure::registration::{self, Asked as Body};
use crate::domain::{ApiVersion, OperationId, RegistrationId};
use crate::service::{DeviceView, Peer, RegisterAsk, Service};

use super::link::{Incoming, LinkFault, Outgoing, Stream};
use super::topic::{Asked, REGISTRATION_ANSWERS, registration_answer};

/// Nobody has proved anything before the first question, and a ping asks nothing: who has nothing to ask for so long makes
/// place for others. SDKs ask at once, and every few seconds until they have their answer.
const ASKS_WITHIN: Duration = Duration::from_secs(120);
/// Questions of one connection that may be refused: somebody who was never let in does not keep a place by asking on. SDKs ask a
/// few times, and connect anew by themselves.
const REFUSALS_MAX: u32 = 16;
/// When to ask again where the service does not say: what SDKs do by themselves.
const POLL_SECONDS: u64 = 2;

/// A device on a connection for registrations.
#[derive(Debug)]
pub struct Provisioning {
    pub service: Service,
    pub peer: Arc<Peer>,
    pub id: RegistrationId,
    pub version: ApiVersion,
}

/// What is published to the device.
struct Answer {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

impl Provisioning {
    /// Serves the connection to its end.
    pub async fn serve<S: Stream>(self, mut from: Incoming<S>, mut to: Outgoing<S>) -> Result<(), LinkFault> {
        let mut answers_at = None;
        let mut refused = 0;
        while let Some((publication, level)) = question(&mut from, &mut to, &mut answers_at, ASKS_WITHIN).await? {
            to.taken(&publication).await?;
            refused += u32::from(self.answer(&publication, level, &mut to).await?);
            if refused >= REFUSALS_MAX {
                return Err(LinkFault::Protocol("nothing but refusals"));
            }
        }
        Ok(())
    }

    /// Says whether it was refused.
    async fn answer<S: Stream>(
        &self,
        publication: &Publish,
        level: QoS,
        to: &mut Outgoing<S>,
    ) -> Result<bool, LinkFault> {
        // Without a request id there is no topic to answer on.
        let asked = Asked::parse(&publication.topic_name).map_err(|_| LinkFault::Protocol("an unknown topic"))?;
        let (rid, answer) = match asked {
            Asked::Register { rid } => (rid, self.register(&publication.payload).await),
            Asked::Operation { rid, operation } => (rid, self.operation(operation).await),
            Asked::Twin { .. } | Asked::Report { .. } => {
                return Err(LinkFault::Protocol("a question about a twin, on a connection for registrations"));
            }
        };
        let is_refused = answer.is_err();
        let answer = answer.unwrap_or_else(|refusal| Answer {
            status: refusal.code.status,
            retry_after: refusal.retry_after,
            body: refusal.body(self.service.now()),
        });
        let topic = registration_answer(answer.status, rid, answer.retry_after);
        to.publish(topic, ascii_json(&answer.body), level).await?;
        Ok(is_refused)
    }

    async fn register(&self, body: &Bytes) -> Result<Answer, Refusal> {
        let asked = Body::parse(&self.id, body)?;
        if asked.tpm.is_some() {
            return Err(Refusal::new(400_004, "a TPM is attested over HTTPS, not over MQTT"));
        }
        let ask = RegisterAsk {
            registration_id: self.id.clone(),
            facts: asked.facts(self.version),
            request_id: None,
            tpm: None,
        };
        let registering = self.service.register(&self.peer, &ask).await?;
        Ok(self.told(&registering.view))
    }

    async fn operation(&self, operation: &str) -> Result<Answer, Refusal> {
        let operation: OperationId =
            operation.parse().map_err(|_| Refusal::new(404_001, "there is no such operation"))?;
        Ok(self.told(&self.service.operation(&self.peer, &self.id, operation).await?))
    }

    fn told(&self, view: &DeviceView) -> Answer {
        let (status, body) = registration::operation(view, self.version);
        let seconds = view.retry_after.map_or(POLL_SECONDS, |span| span.as_secs().max(1));
        Answer { status, retry_after: (status == 202).then_some(seconds), body }
    }
}

/// The next question, and the level at which its answer is wanted; `None` when the device is done.
async fn question<S: Stream>(
    from: &mut Incoming<S>,
    to: &mut Outgoing<S>,
    answers_at: &mut Option<QoS>,
    within: Duration,
) -> Result<Option<(Publish, QoS)>, LinkFault> {
    let asked = async {
        while let Some(packet) = from.next().await? {
            match packet {
                Packet::Subscribe(asked) => {
                    let granted = to.subscribed(&asked, |filter| filter == REGISTRATION_ANSWERS).await?;
                    *answers_at = granted.last().map(|(_, level)| *level).or(*answers_at);
                }
                Packet::Unsubscribe(asked) => {
                    if asked.topics.iter().any(|filter| &**filter == REGISTRATION_ANSWERS) {
                        *answers_at = None;
                    }
                    to.send(&Packet::Unsuback(asked.pid)).await?;
                }
                Packet::Publish(publication) => {
                    let level =
                        answers_at.ok_or(LinkFault::Protocol("a question, with no subscription to its answer"))?;
                    return Ok(Some((publication, level)));
                }
                Packet::Pingreq => to.send(&Packet::Pingresp).await?,
                Packet::Puback(_) => {}
                Packet::Disconnect => return Ok(None),
                Packet::Connect(_)
                | Packet::Connack(_)
                | Packet::Pubrec(_)
                | Packet::Pubrel(_)
                | Packet::Pubcomp(_)
                | Packet::Suback(_)
                | Packet::Unsuback(_)
                | Packet::Pingresp => return Err(LinkFault::Protocol("a packet that does not belong here")),
            }
        }
        Ok(None)
    };
    tokio::time::timeout(within, asked).await.unwrap_or(Err(LinkFault::Silent))
}

#[cfg(test)]
mod tests {
    use mqtt_proto::v3::Connect;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::link;
    use super::*;

    #[tokio::test]
    async fn a_device_that_asks_nothing_is_not_kept_by_its_pings() {
        let (mut device, ours) = tokio::io::duplex(4096);
        let connect = Packet::from(Connect::new("dev-1".into(), 0)).encode().unwrap();
        device.write_all(connect.as_ref()).await.unwrap();
        let (_, mut from, mut to) = link::open(ours, Duration::from_secs(10)).await.unwrap();
        let (mut hears, mut says) = tokio::io::split(device);
        let pings = async {
            let (ping, mut pong) = (Packet::Pingreq.encode().unwrap(), [0; 2]);
            loop {
                says.write_all(ping.as_ref()).await.unwrap();
                hears.read_exact(&mut pong).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut answers_at = None;
        let asked = tokio::select! {
            asked = question(&mut from, &mut to, &mut answers_at, Duration::from_millis(50)) => asked,
            () = pings => unreachable!("it never ends"),
        };
        assert!(matches!(asked, Err(LinkFault::Silent)), "{asked:?}");
    }
}
