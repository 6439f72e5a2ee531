//! Accepting connections: within a bound, each in a task of its own, drained at the end.
//!
//! What is spoken on a connection is the edge's; how many there may be, how long TLS may take and how a server comes to
//! its end is the same for all of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::service::subnet;
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

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionsMax {
    /// Further ones wait in the system's queue.
    pub all: usize,
    /// From one address (of IPv6 from one subscriber's network); further ones are closed, so that nobody alone can take every
    /// place there is.
    pub of_one: usize,
}

/// Serves every connection until `shutdown` resolves, then tells them to stop by `stop` and gives them a while. Of a
/// connection that is still there then, nothing runs on.
pub async fn accept_until<F>(
    listener: TcpListener,
    connections_max: ConnectionsMax,
    drain_for: Duration,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections_max.all));
    let shares = Shares::default();
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
                let Some(share) = shares.take(address.ip(), connections_max.of_one) else {
                    tracing::debug!(peer = %address, "a connection was closed: its address has as many as it may");
                    continue;
                };
                // Small answers must not wait for more; a socket that cannot do it works all the same.
                let _ = stream.set_nodelay(true);
                let served = serve(stream, address);
                connections.spawn(async move {
                    served.await;
                    drop((place, share));
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

/// Connections by the address that they come from.
#[derive(Debug, Clone, Default)]
struct Shares(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of an address's connections, for as long as it is open.
#[derive(Debug)]
struct Share {
    shares: Shares,
    address: IpAddr,
}

impl Shares {
    fn take(&self, address: IpAddr, max: usize) -> Option<Share> {
        let address = subnet(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), address })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.address);
            }
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_address_has_its_share_of_the_places_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, _stopping) = watch::channel(false);
        // Says that it is served, and stays until the other side goes.
        let serve = async |mut stream: TcpStream| {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"!").await.ok();
            stream.read_exact(&mut [0]).await.ok();
        };
        let max = ConnectionsMax { all: 8, of_one: 2 };
        let accepting =
            accept_until(listener, max, Duration::ZERO, stop, std::future::pending(), |stream, _| serve(stream));
        let callers = async {
            let call = async || {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let is_served = matches!(stream.read(&mut [0]).await, Ok(1));
                (stream, is_served)
            };
            let (first, second) = (call().await, call().await);
            assert!(first.1 && second.1);
            assert!(!call().await.1 && !call().await.1, "it has two");
            drop(first);
            // Its place is free as soon as the server has seen that it is gone.
            while !call().await.1 {}
        };
        tokio::select! {
            () = accepting => panic!("it serves for ever"),
            () = callers => {}
        }
    }

    #[test]
    fn addresses_of_one_subscriber_share_and_others_do_not() {
        let shares = Shares::default();
        let own = shares.take("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert!(shares.take("2001:db8::2".parse().unwrap(), 1).is_none());
        assert!(shares.take("2001:db9::1".parse().unwrap(), 1).is_some());
        drop(own);
        assert!(shares.take("2001:db8::2".parse().unwrap(), 1).is_some());
        assert!(shares.0.lock().unwrap().is_empty(), "nothing is kept of who is gone");
    }
}
