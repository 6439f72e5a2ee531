//! Accepting connections: within a bound, each in a task of its own, drained at the end.
//!
//! What is spoken on a connection is the edge's; how many there may be, how long TLS may take and how a server comes to
//! its end is the same for all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::telemetry::{self, HandshakeOutcome};

/// A pause after a failed accept: a process that has run out of file descriptors must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection never came to be of use.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("it was not ready to talk in time")]
    Slow,
    #[error("no TLS: {0}")]
    Tls(std::io::Error),
    #[error("it does not speak {0}")]
    Protocol(&'static str),
}

/// Serves every connection until `shutdown` resolves, then tells them to stop by `stop` and gives them a while. Of a
/// connection that is still there then, nothing runs on.
pub async fn accept_until<F>(
    listener: TcpListener,
    connections_max: usize,
    drain_for: Duration,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, address, place)) => {
                // Small answers must not wait for more; a socket that cannot do it works all the same.
                let _ = stream.set_nodelay(true);
                let served = serve(stream, address);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain_for, drained).await.is_err() {
        tracing::info!("{} connections were cut off", connections.len());
        connections.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, place))
}

/// TLS and whatever must come first, both within one span of time.
pub async fn open<T, F>(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    timeout: Duration,
    first: impl FnOnce(TlsStream<TcpStream>) -> F,
) -> Result<T, NotOpened>
where
    F: Future<Output = Result<T, NotOpened>>,
{
    let opened = async { first(acceptor.accept(stream).await.map_err(NotOpened::Tls)?).await };
    let opened = tokio::time::timeout(timeout, opened).await.unwrap_or(Err(NotOpened::Slow));
    telemetry::handshake_finished(match &opened {
        Ok(_) => HandshakeOutcome::Done,
        Err(NotOpened::Slow) => HandshakeOutcome::TimedOut,
        Err(NotOpened::Tls(_) | NotOpened::Protocol(_)) => HandshakeOutcome::Failed,
    });
    opened
}

/// A connection in the count of those that are open.
#[derive(Debug)]
pub struct Counted(());

impl Counted {
    pub fn new() -> Self {
        telemetry::connection_opened();
        Self(())
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        telemetry::connection_closed();
    }
}
