//! Clients that say exactly what a test wants: HTTPS with one request a connection, and MQTT packet by packet.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mqtt_proto::v3::{Connack, Connect, ConnectReturnCode, Header, Packet, Publish, Subscribe};
use mqtt_proto::{Pid, PollHeader, QoS, QosPid, TopicFilter, TopicName};
use rehome::pki::Issued;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::world::{Site, in_time};

/// TLS to an edge, with a client certificate or without.
pub async fn connect(site: &Site, address: SocketAddr, issued: Option<&Issued>) -> TlsStream<TcpStream> {
    connect_with(site, address, issued.map(|issued| (issued.chain().to_vec(), issued.key()))).await
}

/// As above, with a certificate and a key in PEM.
pub async fn connect_as(site: &Site, address: SocketAddr, chain: &[u8], key: &[u8]) -> TlsStream<TcpStream> {
    let chain = CertificateDer::pem_slice_iter(chain).map(Result::unwrap).collect();
    connect_with(site, address, Some((chain, PrivateKeyDer::from_pem_slice(key).unwrap()))).await
}

async fn connect_with(
    site: &Site,
    address: SocketAddr,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&site.roots_pem()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("localhost").unwrap();
    in_time(async {
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    })
    .await
}

/// An answer over HTTPS.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// One request on a connection of its own.
pub async fn send(stream: TlsStream<TcpStream>, request: http::request::Builder, body: &str) -> Answer {
    let has_host = request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
    let request = if has_host { request } else { request.header("host", "localhost") };
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    in_time(async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        drop(sender);
        connection.abort();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status, headers, body }
    })
    .await
}

/// Something that MQTT is spoken on.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Carrier for S {}

/// A WebSocket that carries MQTT, as a stream of bytes; the status of the answer where it is refused.
pub async fn websocket(stream: TlsStream<TcpStream>, path: &str, protocol: &str) -> Result<DuplexStream, u16> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (socket, _) = match in_time(tokio_tungstenite::client_async(request, stream)).await {
        Ok(opened) => opened,
        Err(tungstenite::Error::Http(answer)) => return Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    };
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    tokio::spawn(async move {
        let (mut to, mut from) = socket.split();
        let (mut read, mut write) = tokio::io::split(theirs);
        let out = async {
            let mut bytes = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = read.read(&mut bytes).await {
                if to.send(tungstenite::Message::Binary(Bytes::copy_from_slice(&bytes[..length]))).await.is_err() {
                    break;
                }
            }
            let _ = to.close().await;
        };
        let back = async {
            while let Some(Ok(message)) = from.next().await {
                match message {
                    tungstenite::Message::Binary(bytes) => write.write_all(&bytes).await.unwrap(),
                    tungstenite::Message::Close(_) => break,
                    _ => {}
                }
            }
            let _ = write.shutdown().await;
        };
        tokio::select! {
            () = out => {}
            () = back => {}
        }
    });
    Ok(ours)
}

/// A device's MQTT connection.
pub struct Mqtt {
    stream: Box<dyn Carrier>,
    last: u16,
}

impl Mqtt {
    /// Sends CONNECT and says what came back.
    pub async fn open(
        stream: impl Carrier + 'static,
        client_id: &str,
        user_name: &str,
        password: Option<&str>,
    ) -> Result<Self, ConnectReturnCode> {
        let mut connect = Connect::new(client_id.into(), 60);
        connect.username = Some(user_name.into());
        connect.password = password.map(|text| Bytes::from(text.to_owned()));
        Self::open_with(stream, connect).await
    }

    /// Sends this CONNECT and says what came back.
    pub async fn open_with(stream: impl Carrier + 'static, connect: Connect) -> Result<Self, ConnectReturnCode> {
        let mut this = Self::over(stream);
        this.write(&connect.into()).await;
        match this.next().await {
            Some(Packet::Connack(Connack { code: ConnectReturnCode::Accepted, .. })) => Ok(this),
            Some(Packet::Connack(Connack { code, .. })) => Err(code),
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// A connection on which nothing was said yet.
    pub fn over(stream: impl Carrier + 'static) -> Self {
        Self { stream: Box::new(stream), last: 0 }
    }

    pub async fn write(&mut self, packet: &Packet) {
        in_time(self.stream.write_all(packet.encode().unwrap().as_ref())).await.unwrap();
    }

    /// The next packet; `None` when the other end has closed the connection.
    pub async fn next(&mut self) -> Option<Packet> {
        in_time(async {
            let first = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            let header = Header::new_with(first, length as u32, 0).unwrap();
            Some(match header.build_empty_packet() {
                Some(packet) => packet,
                None => header.decode_buffer(&body, &mut 0).unwrap(),
            })
        })
        .await
    }

    fn id(&mut self) -> Pid {
        self.last += 1;
        Pid::try_from(self.last).unwrap()
    }

    /// Subscribes at level 1 and says which filters were granted.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<bool> {
        let topics = filters.iter().map(|filter| (TopicFilter::try_from(*filter).unwrap(), QoS::Level1)).collect();
        let asked = Subscribe::new(self.id(), topics);
        self.write(&asked.into()).await;
        let Some(Packet::Suback(suback)) = self.next().await else { panic!("no SUBACK") };
        suback.topics.iter().map(|code| *code != mqtt_proto::v3::SubscribeReturnCode::Failure).collect()
    }

    /// Subscribes to what it has subscribed to already, and waits for the next publication, before or after the answer.
    pub async fn subscribe_again(&mut self, filter: &str) -> Option<(String, Value)> {
        let asked = Subscribe::new(self.id(), vec![(TopicFilter::try_from(filter).unwrap(), QoS::Level1)]);
        self.write(&asked.into()).await;
        let (mut told, mut is_granted) = (None, false);
        while told.is_none() || !is_granted {
            match self.next().await? {
                Packet::Publish(Publish { topic_name, payload, .. }) => {
                    told = Some((topic_name.to_string(), serde_json::from_slice(&payload).unwrap()));
                }
                Packet::Suback(_) => is_granted = true,
                other => panic!("an unexpected packet: {other:?}"),
            }
        }
        told
    }

    /// Publishes at level 1.
    pub async fn publish(&mut self, topic: &str, body: &str) {
        let topic = TopicName::try_from(topic).unwrap();
        let packet = Publish::new(QosPid::Level1(self.id()), topic, Bytes::from(body.to_owned()));
        self.write(&packet.into()).await;
    }

    /// The next publication's topic and body; `None` when the connection was closed. Acknowledgements are passed over.
    pub async fn published(&mut self) -> Option<(String, Value)> {
        loop {
            match self.next().await? {
                Packet::Publish(Publish { topic_name, payload, .. }) => {
                    assert!(payload.is_ascii(), "some SDKs decode answers as ASCII");
                    let body = if payload.is_empty() { Value::Null } else { serde_json::from_slice(&payload).unwrap() };
                    return Some((topic_name.to_string(), body));
                }
                Packet::Puback(_) => {}
                other => panic!("an unexpected packet: {other:?}"),
            }
        }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&mut self, topic: &str, body: &str) -> Option<(String, Value)> {
        self.publish(topic, body).await;
        self.published().await
    }
}
