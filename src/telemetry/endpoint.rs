//! The HTTP endpoint that Prometheus scrapes: `GET /metrics`, nothing else.
//!
//! Bounded in number and time: a new connection evicts the oldest one, so slow clients cannot keep a scraper out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use super::metric::Metrics;

/// How often histograms are folded when nobody scrapes: what gathers in between is a few megabytes at full load.
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failed accept (no file descriptors left, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A scraper's request head is a few hundred bytes; hyper's smallest buffer is 8 KiB.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The bounds of the endpoint.
#[derive(Debug, Clone, Copy)]
pub struct EndpointLimits {
    /// Connections open at once. A scraper needs one.
    pub connections_max: usize,
    /// One connection from accept to the last byte. Scrapers give up after 10 s by default.
    pub connection_for_max: Duration,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self { connections_max: 16, connection_for_max: Duration::from_secs(10) }
    }
}

/// Answers until `stop` resolves, then cuts what is open: a scrape is repeated anyway.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    limits: EndpointLimits,
    stop: impl Future<Output = ()>,
) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut fold = interval(FOLD_EVERY);
    fold.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = fold.tick() => metrics.fold(),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.retain(|connection| !connection.is_finished());
                    if open.len() >= limits.connections_max.max(1)
                        && let Some(oldest) = open.pop_front()
                    {
                        oldest.abort();
                    }
                    let connection = answer(stream, metrics.clone(), limits.connection_for_max);
                    open.push_back(tokio::spawn(connection).abort_handle());
                }
                Err(error) => {
                    warn!(%error, "metrics endpoint cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    for connection in open {
        connection.abort();
    }
}

async fn answer(stream: TcpStream, metrics: Metrics, connection_for_max: Duration) {
    let service = service_fn(move |request| {
        let response = respond(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(connection_for_max)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(connection_for_max, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "metrics connection broke"),
        Err(_) => debug!("metrics connection took too long"),
    }
}

fn respond<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics.render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        (_, _) => (StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    /// Far above what an answer on loopback takes; only a failing test waits for it.
    const DEADLINE: Duration = Duration::from_secs(20);

    struct Endpoint {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        ended: tokio::task::JoinHandle<()>,
    }

    async fn endpoint(limits: EndpointLimits) -> Endpoint {
        let (recorder, metrics) = Metrics::recorder().unwrap();
        metrics::with_local_recorder(&recorder, || metrics::counter!("rehome_moves_total").increment(2));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve_metrics(listener, metrics, limits, async {
            let _ = stopped.await;
        }));
        Endpoint { address, stop, ended }
    }

    /// Sends `request` and reads until the end of the connection.
    async fn exchange(stream: &mut TcpStream, request: &str) -> String {
        // The other side may have hung up already: then the read says so.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
        String::from_utf8(answer).unwrap()
    }

    async fn ask(address: SocketAddr, request_line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        exchange(&mut stream, &format!("{request_line} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await
    }

    #[tokio::test]
    async fn only_get_metrics_is_answered() {
        let endpoint = endpoint(EndpointLimits::default()).await;
        for (request_line, status, content) in [
            ("GET /metrics", "200 OK", "rehome_moves_total 2"),
            ("GET /metrics?format=text", "200 OK", "rehome_moves_total 2"),
            ("HEAD /metrics", "200 OK", "content-length: "),
            ("POST /metrics", "405 Method Not Allowed", "allow: GET, HEAD"),
            ("GET /", "404 Not Found", "/metrics"),
            ("GET /metrics/", "404 Not Found", "/metrics"),
            ("nonsense", "400 Bad Request", ""),
        ] {
            let answer = ask(endpoint.address, request_line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request_line}: {answer}");
            assert!(answer.contains(content), "{request_line}: {answer}");
        }
    }

    #[tokio::test]
    async fn slow_clients_cannot_keep_a_scraper_out() {
        let limits = EndpointLimits { connections_max: 2, ..EndpointLimits::default() };
        let endpoint = endpoint(limits).await;
        let mut slow = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
            stream.write_all(b"GET /met").await.unwrap();
            slow.push(stream);
        }
        assert!(ask(endpoint.address, "GET /metrics").await.contains("rehome_moves_total 2"));
        // The oldest was cut long before its time was over.
        assert_eq!(exchange(&mut slow[0], "").await, "");
    }

    #[tokio::test]
    async fn a_connection_has_its_time() {
        let limits = EndpointLimits { connection_for_max: Duration::from_millis(20), ..EndpointLimits::default() };
        let endpoint = endpoint(limits).await;
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        let answer = exchange(&mut stream, "GET /met").await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn it_stops_when_told() {
        let endpoint = endpoint(EndpointLimits::default()).await;
        endpoint.stop.send(()).unwrap();
        timeout(DEADLINE, endpoint.ended).await.expect("stops in time").unwrap();
        assert!(TcpStream::connect(endpoint.address).await.is_err());
    }
}
