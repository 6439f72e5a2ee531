//! MQTT 3.1.1 packets off and onto a byte stream (OASIS MQTT 3.1.1, section 2), each bounded before it is read.
//!
//! The codec is a library's. The framing is ours: the library trusts the length that a packet claims, here memory grows
//! with what has arrived, and a packet whose parts end before or after its length is refused.

use bytes::Bytes;
use mqtt_proto::v3::{Header, Packet, Subscribe};
use mqtt_proto::{Error, PollHeader, QoS};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Type and flags of a SUBACK packet, and the code of a filter that is not served (section 3.9).
const SUBACK: u8 = 0x90;
const NOT_GRANTED: u8 = 0x80;
/// Filters in one subscription: SDKs ask for two. Keeps the length of a SUBACK packet in one byte.
pub const FILTERS_MAX: usize = 64;
/// The four bytes that a length takes at most hold this much.
const LENGTH_BYTES_MAX: usize = 4;

/// Why no packet could be read. The connection is of no use after it.
#[derive(Debug, thiserror::Error)]
pub enum PacketFault {
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("a packet of {length} bytes, at most {max} are taken")]
    TooLarge { length: usize, max: usize },
    #[error("the length of a packet takes more than four bytes")]
    Length,
    #[error("a packet is longer than what it holds")]
    Trailing,
    #[error("a packet that cannot be understood: {0}")]
    Malformed(String),
}

impl From<Error> for PacketFault {
    fn from(error: Error) -> Self {
        // The packet was read whole: an end of the input is its own.
        PacketFault::Malformed(error.to_string())
    }
}

/// The next packet; `None` when the other end closed the connection between packets.
pub async fn read(from: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> Result<Option<Packet>, PacketFault> {
    let mut first = [0; 1];
    if from.read(&mut first).await? == 0 {
        return Ok(None);
    }
    let (length, length_bytes) = read_length(from).await?;
    if length > bytes_max {
        return Err(PacketFault::TooLarge { length, max: bytes_max });
    }
    let mut body = Vec::new();
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    from.take(wanted).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(PacketFault::Broken(std::io::ErrorKind::UnexpectedEof.into()));
    }
    decode(first[0], length_bytes, &body).map(Some)
}

/// One whole packet from its bytes.
#[cfg(test)]
fn parse(bytes: &[u8]) -> Result<Packet, PacketFault> {
    let broken = || PacketFault::Broken(std::io::ErrorKind::UnexpectedEof.into());
    let (first, rest) = bytes.split_first().ok_or_else(broken)?;
    let mut length = Length::default();
    for byte in rest {
        if let Some(value) = length.push(*byte)? {
            let body = rest.get(length.bytes..).unwrap_or_default();
            return match body.len() {
                found if found < value => Err(broken()),
                found if found > value => Err(PacketFault::Trailing),
                _ => decode(*first, length.bytes, body),
            };
        }
    }
    Err(broken())
}

fn decode(first: u8, length_bytes: usize, body: &[u8]) -> Result<Packet, PacketFault> {
    let malformed = |_| PacketFault::Length;
    let length = u32::try_from(body.len()).map_err(malformed)?;
    let total = u32::try_from(1 + length_bytes + body.len()).map_err(malformed)?;
    let header = Header::new_with(first, length, total)?;
    let mut offset = 0;
    let packet = match header.build_empty_packet() {
        Some(packet) => packet,
        None => header.decode_buffer(body, &mut offset)?,
    };
    if offset == body.len() { Ok(packet) } else { Err(PacketFault::Trailing) }
}

async fn read_length(from: &mut (impl AsyncRead + Unpin)) -> Result<(usize, usize), PacketFault> {
    let mut length = Length::default();
    loop {
        if let Some(value) = length.push(from.read_u8().await?)? {
            return Ok((value, length.bytes));
        }
    }
}

/// A length as it comes in: seven bits a byte, the lowest first (section 2.2.3).
#[derive(Debug, Default)]
struct Length {
    value: usize,
    bytes: usize,
}

impl Length {
    fn push(&mut self, byte: u8) -> Result<Option<usize>, PacketFault> {
        if self.bytes == LENGTH_BYTES_MAX {
            return Err(PacketFault::Length);
        }
        self.value |= usize::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        match byte & 0x80 {
            0 => Ok(Some(self.value)),
            _ if self.bytes == LENGTH_BYTES_MAX => Err(PacketFault::Length),
            _ => Ok(None),
        }
    }
}

/// Writes one packet whole.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), packet: &Packet) -> Result<(), PacketFault> {
    to.write_all(&encode(packet)?).await?;
    to.flush().await?;
    Ok(())
}

/// Writes the answer to a subscription: what is granted for each filter, `None` for one that is not served.
///
/// Section 3.9. Not left to the codec, which writes a refusal (0x80) as a 3.
pub async fn write_suback(
    to: &mut (impl AsyncWrite + Unpin),
    asked: &Subscribe,
    granted: &[Option<QoS>],
) -> Result<(), PacketFault> {
    let codes = granted.iter().map(|level| level.map_or(NOT_GRANTED, |level| level as u8));
    let id = asked.pid.value().to_be_bytes();
    // With FILTERS_MAX filters still below 128: one byte.
    let length = (id.len() + granted.len().min(FILTERS_MAX)) as u8;
    let bytes: Vec<u8> = [SUBACK, length].into_iter().chain(id).chain(codes.take(FILTERS_MAX)).collect();
    to.write_all(&bytes).await?;
    to.flush().await?;
    Ok(())
}

/// A packet's bytes. Fails only for a part that is longer than its length field can say.
pub fn encode(packet: &Packet) -> Result<Bytes, PacketFault> {
    Ok(Bytes::copy_from_slice(packet.encode()?.as_ref()))
}

#[cfg(test)]
mod tests {
    use mqtt_proto::v3::{Connect, Publish};
    use mqtt_proto::{Pid, QosPid, TopicFilter, TopicName};

    use super::*;

    fn samples() -> Vec<Packet> {
        let mut connect = Connect::new("dev-1".into(), 60);
        connect.username = Some("0ne1/registrations/dev-1/api-version=2019-03-31".into());
        connect.password = Some(Bytes::from_static(b"SharedAccessSignature sr=x"));
        let topic = TopicName::try_from("$dps/registrations/PUT/iotdps-register/?$rid=1").unwrap();
        let filter = TopicFilter::try_from("$dps/registrations/res/#").unwrap();
        let pid = Pid::try_from(7).unwrap();
        vec![
            connect.into(),
            Publish::new(QosPid::Level1(pid), topic.clone(), Bytes::from_static(b"{}")).into(),
            Publish::new(QosPid::Level0, topic, Bytes::new()).into(),
            Subscribe::new(pid, vec![(filter, QoS::Level1)]).into(),
            Packet::Puback(pid),
            Packet::Pingreq,
            Packet::Disconnect,
        ]
    }

    #[tokio::test]
    async fn packets_come_off_the_stream_as_they_went_on() {
        let mut stream = Vec::new();
        for packet in samples() {
            write(&mut stream, &packet).await.unwrap();
            assert_eq!(parse(&encode(&packet).unwrap()).unwrap(), packet);
        }
        let mut stream = stream.as_slice();
        for packet in samples() {
            assert_eq!(read(&mut stream, 1024).await.unwrap(), Some(packet));
        }
        assert!(read(&mut stream, 1024).await.unwrap().is_none(), "the end between packets is no fault");
    }

    #[tokio::test]
    async fn a_filter_that_is_not_served_is_refused_by_its_code() {
        let filter = |text: &str| (TopicFilter::try_from(text).unwrap(), QoS::Level1);
        let asked = Subscribe::new(Pid::try_from(0x0102).unwrap(), vec![filter("a"), filter("b"), filter("c")]);
        let mut written = Vec::new();
        write_suback(&mut written, &asked, &[Some(QoS::Level1), None, Some(QoS::Level0)]).await.unwrap();
        assert_eq!(written, [0x90, 5, 1, 2, 1, 0x80, 0]);
        let Packet::Suback(read) = parse(&written).unwrap() else { panic!("a SUBACK") };
        assert_eq!(read.topics.len(), 3);
    }

    #[tokio::test]
    async fn what_is_no_packet_is_refused() {
        let check = async |bytes: &[u8], max: usize| {
            let mut stream = bytes;
            read(&mut stream, max).await.unwrap_err()
        };
        assert!(matches!(check(&[0x30, 0xff, 0xff, 0xff, 0x7f], 1024).await, PacketFault::TooLarge { .. }));
        assert!(matches!(check(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], 1 << 30).await, PacketFault::Length));
        assert!(matches!(check(&[0x30, 10, 0, 3, b'a'], 1024).await, PacketFault::Broken(_)), "it ends inside");
        assert!(matches!(check(&[0x30], 1024).await, PacketFault::Broken(_)), "no length");
        assert!(matches!(check(&[0x40, 3, 0, 1, 0], 1024).await, PacketFault::Trailing));
        assert!(matches!(check(&[0xc0, 1, 0], 1024).await, PacketFault::Trailing), "a ping with a body");
        for bytes in
            [&[0x00, 0][..], &[0xf0, 0], &[0x36, 0], &[0x80, 0], &[0x82, 2, 0, 1], &[0x40, 2, 0, 0], &[0x10, 0]]
        {
            assert!(matches!(check(bytes, 1024).await, PacketFault::Malformed(_)), "{bytes:02x?}");
        }
    }

    #[test]
    fn mutated_packets_do_no_harm() {
        let mut seed = 0x5eed_u64;
        let mut draw = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        let encoded: Vec<Vec<u8>> = samples().iter().map(|packet| encode(packet).unwrap().to_vec()).collect();
        let mut understood = 0;
        for _ in 0..200_000 {
            let mut bytes = encoded[draw(encoded.len())].clone();
            for _ in 0..=draw(4) {
                let at = draw(bytes.len());
                match draw(4) {
                    0 => bytes[at] ^= 1 << draw(8),
                    1 => bytes[at] = draw(256) as u8,
                    2 => bytes.insert(at, draw(256) as u8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if let Ok(packet) = parse(&bytes) {
                understood += 1;
                let again = encode(&packet).unwrap();
                assert_eq!(parse(&again).unwrap(), packet, "{bytes:02x?}");
            }
        }
        assert!(understood > 1000, "the mutations leave some packets whole");
    }
}
