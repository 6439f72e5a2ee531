//! The server: HTTP/1.1 on TLS within bounds, and who is at the other end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use crate::api::azure::fault::Refusal;
use crate::api::listener::{self, ConnectionsMax, Counted};
use crate::api::{mqtt, peer};
use crate::domain::limits;
use crate::service::{Peer, Service};
use crate::telemetry;

use super::answer::refused;
use super::path::canonical;
use super::websocket::Alive;
use super::{Edge, Settings, hub, routes};

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue.
    pub connections_max: ConnectionsMax,
    pub handshake_timeout: Duration,
    /// From the first byte of a request, or from the answer before it, until its headers are there. Ends idle ones, too.
    pub headers_timeout: Duration,
    /// One request, from its headers to its answer, its body included.
    pub request_timeout: Duration,
    /// Headers of one request.
    pub header_bytes_max: usize,
    /// How long requests may go on after the server was told to stop.
    pub drain_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: ConnectionsMax { all: 4096, of_one: 2048 },
            handshake_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(30),
            header_bytes_max: 16 * 1024,
            drain_for: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` resolves, then lets requests that are under way finish for a while.
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
    let mqtt = mqtt::Endpoint::new(
        service.clone(),
        mqtt::Settings { id_scope: settings.id_scope.clone() },
        mqtt::Limits { connections_max, handshake_timeout: limits.handshake_timeout, drain_for },
        stopping.clone(),
    );
    let edge = Edge { service, settings: Arc::new(settings), mqtt };
    let server = Server { routes: routes(edge.clone()), edge, limits: Arc::new(limits), stopping };
    let acceptor = TlsAcceptor::from(tls);
    let serve = |stream, address| {
        let (server, acceptor) = (server.clone(), acceptor.clone());
        async move { server.connection(stream, address, acceptor).await }
    };
    listener::accept_until(listener, connections_max, drain_for, stop, shutdown, serve).await;
}

/// What every connection shares.
#[derive(Debug, Clone)]
struct Server {
    routes: Router,
    edge: Edge,
    limits: Arc<Limits>,
    stopping: watch::Receiver<bool>,
}

impl Server {
    async fn connection(mut self, stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor) {
        let tls = match listener::open(&acceptor, stream, self.limits.handshake_timeout, async |tls| Ok(tls)).await {
            Ok(tls) => tls,
            Err(ended) => return tracing::debug!(peer = %address, "a connection ended: {ended}"),
        };
        let peer = Arc::new(peer::of_connection(address, tls.get_ref().1.peer_certificates()));
        let _counted = Counted::new();
        // A WebSocket goes on when HTTP has come to its end; until then the connection keeps its place.
        let (alive, mut goes_on) = Alive::new();
        self.http(tls, address, peer, alive).await;
        let _ = goes_on.recv().await;
    }

    async fn http(&mut self, tls: TlsStream<TcpStream>, address: SocketAddr, peer: Arc<Peer>, alive: Alive) {
        let this = self.clone();
        let answer = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(alive.clone());
            this.clone().answer(peer.clone(), request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers_timeout)
            .max_buf_size(self.limits.header_bytes_max.max(MIN_BUFFER));
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(tls), answer).with_upgrades());
        let mut told = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %address, "a connection ended: {error}");
                    }
                    return;
                }
                _ = self.stopping.wait_for(|stop| *stop), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn answer(self, peer: Arc<Peer>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let began = self.edge.service.monotonic();
        let (mut parts, body) = request.into_parts();
        // Faults from before a handler are told as its SDKs read them.
        let told = if is_of_a_hub(&canonical(parts.uri.path())) { hub::refused } else { told };
        parts.extensions.insert(peer);
        parts.uri = with_path(&parts.uri, canonical);
        let request = Request::from_parts(parts, Body::new(body.map_err(axum::Error::new)));
        let answered = tokio::time::timeout(self.limits.request_timeout, self.routes.clone().oneshot(request));
        let response = match answered.await {
            Ok(Ok(response)) if is_ours(&response) => response,
            Ok(Ok(response)) => told(&self.edge, &refusal_of(response.status())),
            Ok(Err(never)) => match never {},
            Err(_) => told(&self.edge, &Refusal::new(408_001, "the request took too long to arrive")),
        };
        let took = self.edge.service.monotonic().saturating_sub(began);
        telemetry::api_call_finished("https", status_word(response.status()), took);
        Ok(response)
    }
}

fn told(edge: &Edge, refusal: &Refusal) -> Response<Body> {
    refused(refusal, edge.service.now())
}

fn is_of_a_hub(path: &str) -> bool {
    ["/devices", "/twins"]
        .iter()
        .any(|collection| path.strip_prefix(collection).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Whether one of the handlers made the answer: what is refused before one of them sees it comes as plain text.
fn is_ours(response: &Response<Body>) -> bool {
    response.status().is_success() || response.status().is_informational() || is_json(response)
}

fn is_json(response: &Response<Body>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn refusal_of(status: StatusCode) -> Refusal {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(413_001, format!("the body is larger than {} bytes", limits::MESSAGE_BYTES_MAX))
        }
        _ => Refusal::new(400_004, "the request cannot be understood"),
    }
}

/// hyper's least.
const MIN_BUFFER: usize = 8 * 1024;

fn status_word(status: StatusCode) -> &'static str {
    match status {
        status if status.is_success() || status.is_informational() => "ok",
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "permission_denied",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => "failed_precondition",
        StatusCode::TOO_MANY_REQUESTS => "resource_exhausted",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "invalid_argument",
    }
}

/// The address with another path; as it was where that would be none.
fn with_path(uri: &Uri, change: impl FnOnce(&str) -> String) -> Uri {
    let mut path = change(uri.path());
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    path.parse().unwrap_or_else(|_| uri.clone())
}

pub(super) async fn no_such_address(State(edge): State<Edge>, uri: Uri) -> Response<Body> {
    let message = "there is nothing at this address";
    if is_of_a_hub(uri.path()) {
        hub::refused(&edge, &Refusal::new(400_003, message))
    } else {
        told(&edge, &Refusal::new(404_001, message))
    }
}

pub(super) async fn no_such_method(State(edge): State<Edge>, uri: Uri) -> Response<Body> {
    let refusal = Refusal::new(405_001, "this address does not know that method");
    if is_of_a_hub(uri.path()) { hub::refused(&edge, &refusal) } else { told(&edge, &refusal) }
}
