//! The server: accepts connections within bounds, learns who is at the other end, and holds every call against the
//! table before a service sees it.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::api::authorization::{self, Access};
use crate::api::listener::{self, ConnectionsMax, Counted, NotOpened};
use crate::api::peer;
use crate::domain::{Fault, Reason, limits};
use crate::service::{Peer, Service};
use crate::telemetry;

use super::routes::Routes;

/// The client's first bytes on HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue. A device that waits for news holds one.
    pub connections_max: ConnectionsMax,
    /// TLS and the first bytes of HTTP/2 must be there by then.
    pub handshake_timeout: Duration,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// How often a quiet connection is asked whether it is still there, and how long it may take to say so.
    pub keepalive_every: Duration,
    pub keepalive_timeout: Duration,
    /// Headers of one call, decoded.
    pub header_bytes_max: u32,
    /// How long calls may go on after the server was told to stop.
    pub drain_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: ConnectionsMax { all: 16_384, of_one: 8192 },
            handshake_timeout: Duration::from_secs(10),
            streams_max: 128,
            keepalive_every: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            header_bytes_max: 16 * 1024,
            drain_for: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` resolves, then lets calls that are under way finish for a while. When it returns, nothing of
/// it runs any more and no call holds the service.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: Service,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let routes = Routes::new(&service).map_err(std::io::Error::other)?;
    let (cut, cut_off) = watch::channel(false);
    let (alive, mut none_alive) = mpsc::channel(1);
    let (drain_for, tasks) = (limits.drain_for, Tasks { cut_off, _alive: alive });
    let edge = Edge { routes, service, limits: Arc::new(limits), stopping, tasks };
    let (acceptor, connections_max) = (TlsAcceptor::from(tls), edge.limits.connections_max);
    let serve = |stream, address| {
        let (edge, acceptor) = (edge.clone(), acceptor.clone());
        async move {
            if let Err(ended) = edge.connection(stream, address, acceptor).await {
                tracing::debug!(peer = %address, "a connection ended: {ended}");
            }
        }
    };
    listener::accept_until(listener, connections_max, drain_for, stop, shutdown, serve).await;
    cut.send_replace(true);
    drop(edge);
    // Nothing is ever sent: this resolves when the last task is gone.
    none_alive.recv().await;
    Ok(())
}

/// What every connection shares.
#[derive(Debug, Clone)]
struct Edge {
    routes: Routes,
    service: Service,
    limits: Arc<Limits>,
    stopping: watch::Receiver<bool>,
    tasks: Tasks,
}

/// Runs the calls of connections, which would otherwise outlive them.
#[derive(Debug, Clone)]
struct Tasks {
    cut_off: watch::Receiver<bool>,
    _alive: mpsc::Sender<Infallible>,
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        let mut this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = call => {}
                _ = this.cut_off.wait_for(|cut| *cut) => {}
            }
        });
    }
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    #[error("{0}")]
    Http(hyper::Error),
}

impl Edge {
    async fn connection(mut self, stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor) -> Result<(), Ended> {
        let preface = async |mut tls: TlsStream<TcpStream>| {
            let mut preface = [0; PREFACE.len()];
            tls.read_exact(&mut preface).await.map_err(NotOpened::Tls)?;
            if preface == PREFACE { Ok(tls) } else { Err(NotOpened::Protocol("HTTP/2")) }
        };
        let tls = listener::open(&acceptor, stream, self.limits.handshake_timeout, preface).await?;
        let peer = Arc::new(peer::of_connection(address, tls.get_ref().1.peer_certificates()));
        // HTTP/2 wants to see its preface, too.
        let io = TokioIo::new(Rewound { first: PREFACE, rest: tls });
        let _counted = Counted::new();
        self.http2(io, peer).await
    }

    async fn http2<I>(&mut self, io: TokioIo<I>, peer: Arc<Peer>) -> Result<(), Ended>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (routes, service) = (self.routes.clone(), self.service.clone());
        let answer = service_fn(move |request: http::Request<Incoming>| {
            answer(routes.clone(), service.clone(), peer.clone(), request)
        });
        let mut http = http2::Builder::new(self.tasks.clone());
        http.timer(TokioTimer::new())
            .keep_alive_interval(self.limits.keepalive_every)
            .keep_alive_timeout(self.limits.keepalive_timeout)
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(self.limits.header_bytes_max);
        let mut connection = std::pin::pin!(http.serve_connection(io, answer));
        let mut told = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended.map_err(Ended::Http),
                _ = self.stopping.wait_for(|stop| *stop), if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// A stream of which the first bytes were read already.
struct Rewound<S> {
    first: &'static [u8],
    rest: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, into);
        }
        let (now, later) = self.first.split_at(self.first.len().min(into.remaining()));
        into.put_slice(now);
        self.first = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }
}

/// Answers one call, or refuses it before any service has seen it.
async fn answer(
    routes: Routes,
    service: Service,
    peer: Arc<Peer>,
    mut request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    let Some((method, access)) = authorization::row(request.uri().path()) else {
        return Ok(Status::unimplemented("there is no such method").into_http());
    };
    let began = service.monotonic();
    let response = match authorize(&service, &peer, access, &mut request) {
        Ok(()) => {
            request.extensions_mut().insert(peer);
            with_reason(routes.answer(request).await?)
        }
        Err(refusal) => refusal.into_http(),
    };
    // How a stream ends stands in its trailers: it is counted by how it began.
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    telemetry::api_call_finished(method, word(code), service.monotonic().saturating_sub(began));
    Ok(response)
}

/// A label for each code.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

fn authorize(
    service: &Service,
    peer: &Peer,
    access: Access,
    request: &mut http::Request<Incoming>,
) -> Result<(), Status> {
    match access {
        Access::Open | Access::Proof => Ok(()),
        Access::Roles(_) | Access::AtHub(_) => {
            let allowed = authorization::judge(&service.operator(&peer.evidence)?, access)?;
            request.extensions_mut().insert(allowed);
            Ok(())
        }
    }
}

/// A request that is too large is refused below the services, without a reason of ours: it gets one here.
fn with_reason(response: http::Response<Body>) -> http::Response<Body> {
    let too_large = i32::from(Code::OutOfRange).to_string();
    match response.headers().get("grpc-status") {
        Some(code) if code.as_bytes() == too_large.as_bytes() => {
            let message = format!("the request is larger than {} bytes", limits::MESSAGE_BYTES_MAX);
            Status::from(Fault::new(Reason::MessageTooLarge, message)).into_http()
        }
        Some(_) | None => response,
    }
}
