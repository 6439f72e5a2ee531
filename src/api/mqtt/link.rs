//! One MQTT connection: packets in and out, what is subscribed, and when its other end counts as gone.
//!
//! Sessions are always clean: nothing is kept for a connection that is gone, as with the service that SDKs are made for
//! (reference/dps.md §6). So an acknowledgement that never comes is nothing to wait for.

use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::v3::{Connack, Connect, ConnectReturnCode, Packet, Publish, Subscribe};
use mqtt_proto::{Pid, QoS, QosPid, TopicName};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::packet::{self, PacketFault};
use crate::domain::limits;

/// Before somebody said who it is: a user name and a token.
const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// A publication: a document and its topic.
const PACKET_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX;
/// A connection that asks for no keep-alive, or for a longer one, is held to this. The longest that SDKs ask for is 4
/// minutes.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(20 * 60);
/// A peer that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    #[error(transparent)]
    Packet(#[from] PacketFault),
    #[error("nothing came within its keep-alive time")]
    Silent,
    #[error("it did not take what was sent")]
    Stuck,
    #[error("it sent what a client may not send here: {0}")]
    Protocol(&'static str),
}

/// Both ends of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// The end that packets come from.
#[derive(Debug)]
pub struct Incoming<S> {
    from: ReadHalf<S>,
    silent_after: Duration,
}

impl<S: Stream> Incoming<S> {
    /// The next packet; `None` when the client has closed the connection. Not to be dropped half way.
    pub async fn next(&mut self) -> Result<Option<Packet>, LinkFault> {
        let next = packet::read(&mut self.from, PACKET_BYTES_MAX);
        match tokio::time::timeout(self.silent_after, next).await {
            Ok(packet) => Ok(packet?),
            Err(_) => Err(LinkFault::Silent),
        }
    }
}

/// The end that packets go to.
#[derive(Debug)]
pub struct Outgoing<S> {
    to: WriteHalf<S>,
    last: u16,
}

impl<S: Stream> Outgoing<S> {
    pub async fn send(&mut self, packet: &Packet) -> Result<(), LinkFault> {
        match tokio::time::timeout(WRITE_TIMEOUT, packet::write(&mut self.to, packet)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(LinkFault::Stuck),
        }
    }

    /// Publishes to the client at the level that it subscribed with.
    pub async fn publish(&mut self, topic: String, body: Vec<u8>, level: QoS) -> Result<(), LinkFault> {
        let topic = TopicName::try_from(topic.as_str()).map_err(PacketFault::from)?;
        let qos_pid = match level {
            QoS::Level0 => QosPid::Level0,
            QoS::Level1 | QoS::Level2 => QosPid::Level1(self.next_id()?),
        };
        self.send(&Publish::new(qos_pid, topic, Bytes::from(body)).into()).await
    }

    fn next_id(&mut self) -> Result<Pid, LinkFault> {
        self.last = self.last.checked_add(1).unwrap_or(1);
        Ok(Pid::try_from(self.last).map_err(PacketFault::from)?)
    }

    /// Answers a subscription: each filter that is served at no more than at-least-once, any other one not at all.
    /// Returns what was granted.
    pub async fn subscribed(
        &mut self,
        asked: &Subscribe,
        serves: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, QoS)>, LinkFault> {
        if asked.topics.len() > packet::FILTERS_MAX {
            return Err(LinkFault::Protocol("more filters than there is anything to subscribe"));
        }
        let levels: Vec<Option<QoS>> =
            asked.topics.iter().map(|(filter, level)| serves(filter).then(|| (*level).min(QoS::Level1))).collect();
        let written = packet::write_suback(&mut self.to, asked, &levels);
        tokio::time::timeout(WRITE_TIMEOUT, written).await.map_err(|_| LinkFault::Stuck)??;
        let granted = asked.topics.iter().zip(levels);
        Ok(granted.filter_map(|((filter, _), level)| Some((filter.to_string(), level?))).collect())
    }

    /// Acknowledges a publication, where its level asks for it.
    pub async fn taken(&mut self, publication: &Publish) -> Result<(), LinkFault> {
        match publication.qos_pid {
            QosPid::Level0 => Ok(()),
            QosPid::Level1(id) => self.send(&Packet::Puback(id)).await,
            QosPid::Level2(_) => Err(LinkFault::Protocol("a publication at exactly once")),
        }
    }

    pub async fn accept(&mut self) -> Result<(), LinkFault> {
        self.send(&Connack::new(false, ConnectReturnCode::Accepted).into()).await
    }

    pub async fn refuse(&mut self, code: ConnectReturnCode) -> Result<(), LinkFault> {
        self.send(&Connack::new(false, code).into()).await
    }
}

/// Reads the CONNECT packet that must come first, within a span of time.
pub async fn open<S: Stream>(stream: S, timeout: Duration) -> Result<(Connect, Incoming<S>, Outgoing<S>), LinkFault> {
    let (mut from, to) = tokio::io::split(stream);
    let first = tokio::time::timeout(timeout, packet::read(&mut from, CONNECT_BYTES_MAX)).await;
    match first.map_err(|_| LinkFault::Silent)?? {
        Some(Packet::Connect(connect)) => {
            let incoming = Incoming { from, silent_after: silent_after(connect.keep_alive) };
            Ok((connect, incoming, Outgoing { to, last: 0 }))
        }
        Some(_) | None => Err(LinkFault::Protocol("no CONNECT packet")),
    }
}

/// One and a half times what was agreed on (OASIS MQTT 3.1.1, section 3.1.2.10).
fn silent_after(keep_alive: u16) -> Duration {
    match keep_alive {
        0 => KEEP_ALIVE_MAX,
        seconds => Duration::from_secs(u64::from(seconds)).min(KEEP_ALIVE_MAX) * 3 / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_silent_for_long_is_gone() {
        assert_eq!(silent_after(60), Duration::from_secs(90));
        assert_eq!(silent_after(0), KEEP_ALIVE_MAX);
        assert_eq!(silent_after(u16::MAX), KEEP_ALIVE_MAX * 3 / 2);
    }
}
