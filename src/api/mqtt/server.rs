//! The server: MQTT on TLS within bounds. Who calls is on its connection and in its first packet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mqtt_proto::v3::{Connect, ConnectReturnCode};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::azure::registration::api_version;
use crate::api::listener::{self, ConnectionsMax, Counted};
use crate::api::peer::{self, with_token};
use crate::domain::{Evidence, IdScope, SasToken};
use crate::service::{Peer, Service};

use super::hub::AtHub;
use super::link::{self, LinkFault, Stream};
use super::name::Name;
use super::provisioning::Provisioning;

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue.
    pub connections_max: ConnectionsMax,
    /// TLS, and then the CONNECT packet, must each be there by then.
    pub handshake_timeout: Duration,
    /// How long connections may go on after the server was told to stop.
    pub drain_for: Duration,
}

/// What the edge is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What devices name this service by.
    pub id_scope: IdScope,
}

/// Serves until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: Service,
    settings: Settings,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let (connections_max, drain_for) = (limits.connections_max, limits.drain_for);
    let endpoint = Endpoint::new(service, settings, limits, stopping);
    let acceptor = TlsAcceptor::from(tls);
    let serve = |stream, address| {
        let (endpoint, acceptor) = (endpoint.clone(), acceptor.clone());
        async move { endpoint.connection(stream, address, acceptor).await }
    };
    listener::accept_until(listener, connections_max, drain_for, stop, shutdown, serve).await;
}

/// What every connection shares.
#[derive(Debug, Clone)]
pub struct Endpoint {
    service: Service,
    settings: Arc<Settings>,
    limits: Arc<Limits>,
    stopping: watch::Receiver<bool>,
}

impl Endpoint {
    /// For connections that come another way than by [`serve`]; it says nothing to them once `stopping` is true.
    pub fn new(service: Service, settings: Settings, limits: Limits, stopping: watch::Receiver<bool>) -> Self {
        Self { service, settings: Arc::new(settings), limits: Arc::new(limits), stopping }
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor) {
        let timeout = self.limits.handshake_timeout;
        let tls = match listener::open(&acceptor, stream, timeout, async |tls| Ok(tls)).await {
            Ok(tls) => tls,
            Err(ended) => return tracing::debug!(peer = %address, "a connection ended: {ended}"),
        };
        let peer = peer::of_connection(address, tls.get_ref().1.peer_certificates());
        let _counted = Counted::new();
        self.serve(tls, peer).await;
    }

    /// Serves one connection, whatever carries it, until it ends or the server stops.
    pub async fn serve<S: Stream>(mut self, stream: S, peer: Peer) {
        let address = peer.address;
        let mut stopping = self.stopping.clone();
        let ended = tokio::select! {
            ended = self.talk(stream, peer) => ended,
            _ = stopping.wait_for(|stop| *stop) => Ok(()),
        };
        if let Err(fault) = ended {
            tracing::debug!(peer = %address, "a connection ended: {fault}");
        }
    }

    async fn talk<S: Stream>(&mut self, stream: S, peer: Peer) -> Result<(), LinkFault> {
        let (connect, from, mut to) = link::open(stream, self.limits.handshake_timeout).await?;
        let name = match Name::parse(connect.username.as_deref(), &connect.client_id) {
            Ok(name) => name,
            Err(fault) => {
                tracing::debug!(peer = %peer.address, "a connection was refused: {fault}");
                return to.refuse(ConnectReturnCode::BadUserNameOrPassword).await;
            }
        };
        if connect.last_will.is_some() {
            return to.refuse(ConnectReturnCode::NotAuthorized).await;
        }
        let Some(peer) = presented(&peer, &connect) else {
            return to.refuse(ConnectReturnCode::BadUserNameOrPassword).await;
        };
        match name {
            Name::Provisioning { scope, registration_id, api_version: stated } => {
                let stated = stated.map(|version| version.to_string());
                let version = api_version(stated.as_deref()).ok().filter(|_| self.settings.id_scope.is(&scope));
                let Some(version) = version else {
                    return to.refuse(ConnectReturnCode::NotAuthorized).await;
                };
                // What the evidence is worth is judged at every question, where the answer can say what is wrong.
                if peer.evidence == Evidence::None {
                    return to.refuse(ConnectReturnCode::NotAuthorized).await;
                }
                to.accept().await?;
                let service = self.service.clone();
                Provisioning { service, peer: Arc::new(peer), id: registration_id, version }.serve(from, to).await
            }
            Name::Hub { host, device_id: device } => match self.service.hub_named(&host) {
                Some(hub) => {
                    let service = self.service.clone();
                    let resumes = !connect.clean_session;
                    AtHub { service, peer: Arc::new(peer), hub, device, resumes }.serve(from, to).await
                }
                None => to.refuse(ConnectReturnCode::NotAuthorized).await,
            },
        }
    }
}

/// The caller with the token that is its password, where it sends one. What cannot be a token is none, and whoever sends
/// that is not let in.
fn presented(peer: &Peer, connect: &Connect) -> Option<Peer> {
    let text = std::str::from_utf8(connect.password.as_deref().unwrap_or_default()).ok()?;
    let is_token = text.is_empty() || SasToken::parse(text.as_bytes()).is_ok();
    with_token(peer, text).ok().filter(|_| is_token)
}
