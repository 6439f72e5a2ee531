//! The webhook adapter: one POST over one fresh connection, bounded in time and size, without redirects.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ambient::Clock;
use crate::domain::limits;

use super::target::{Protection, Target};
use super::{
    AllocationAnswer, AllocationQuestion, Allocator, AllocatorFault, Config, TrustFault, UrlFault, contract, trust,
};

/// Asks webhooks. Each call names its own URL, so one value serves every enrollment.
#[derive(Debug)]
pub struct Webhook {
    allow_plain_http_on_loopback: bool,
    clock: Arc<dyn Clock>,
    tls: Arc<rustls::ClientConfig>,
}

impl Webhook {
    /// Reads the authorities to trust, once.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, TrustFault> {
        let tls = trust::client_config(config, Arc::clone(&clock))?;
        Ok(Self { allow_plain_http_on_loopback: config.allow_plain_http_on_loopback, clock, tls })
    }

    async fn ask_in_time(&self, question: AllocationQuestion) -> Result<AllocationAnswer, AllocatorFault> {
        let limit = limits::WEBHOOK_TIMEOUT;
        // The limit covers everything, name resolution included: an adversary could be slow anywhere.
        match select(pin!(self.exchange(&question)), self.clock.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(AllocatorFault::Timeout { limit }),
        }
    }

    async fn exchange(&self, question: &AllocationQuestion) -> Result<AllocationAnswer, AllocatorFault> {
        let target =
            Target::parse(&question.webhook.url, self.allow_plain_http_on_loopback).map_err(AllocatorFault::Url)?;
        let body = contract::write(question)?;
        let stream = connect(&target).await?;
        let answer = match &target.protection {
            Protection::LoopbackOnly => post(stream, &target, body).await?,
            Protection::Tls(name) => {
                let connector = TlsConnector::from(Arc::clone(&self.tls));
                let stream = connector.connect(name.clone(), stream).await.map_err(AllocatorFault::Tls)?;
                post(stream, &target, body).await?
            }
        };
        contract::read(&answer, &question.offered)
    }
}

impl Allocator for Webhook {
    fn ask(&self, question: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>> {
        Box::pin(self.ask_in_time(question))
    }
}

/// Connects to the first address that answers.
async fn connect(target: &Target) -> Result<TcpStream, AllocatorFault> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(AllocatorFault::Unresolved)?
        .collect();
    match &target.protection {
        Protection::Tls(_) => {}
        Protection::LoopbackOnly => {
            if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address| !address.is_loopback()) {
                return Err(AllocatorFault::NotLoopback { address });
            }
        }
    }
    TcpStream::connect(addresses.as_slice()).await.map_err(AllocatorFault::Unreachable)
}

/// Sends one request and returns the body of a 200, read up to the limit.
async fn post(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    target: &Target,
    body: Vec<u8>,
) -> Result<Vec<u8>, AllocatorFault> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(&target.path_and_query)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        // Every part was taken from a URL that was parsed.
        .map_err(|_| AllocatorFault::Url(UrlFault::Form))?;
    let (mut sender, connection) = http1::Builder::new()
        // Status line and headers; without it a server could have us hold far more.
        .max_buf_size(limits::WEBHOOK_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(AllocatorFault::Connection)?;
    let exchange = pin!(async {
        let response = sender.send_request(request).await.map_err(AllocatorFault::Connection)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(AllocatorFault::Redirect { status: status.as_u16() });
        }
        if status != StatusCode::OK {
            return Err(AllocatorFault::Status { status: status.as_u16() });
        }
        read_bounded(response.into_body()).await
    });
    // Whoever ends first, the exchange has the answer: what the connection read before it ended is still there to take.
    match select(exchange, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}

/// Reads a body and stops at the limit, whatever length was announced.
async fn read_bounded(mut body: Incoming) -> Result<Vec<u8>, AllocatorFault> {
    const MAX: usize = limits::WEBHOOK_BYTES_MAX;
    let too_large = || AllocatorFault::TooLarge { max: MAX };
    if body.size_hint().lower() > MAX as u64 {
        return Err(too_large());
    }
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(AllocatorFault::Connection)?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > MAX {
                return Err(too_large());
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write;
    use std::time::Duration;

    use futures_util::future::pending;
    use futures_util::{StreamExt, stream};
    use http::Response;
    use http_body_util::StreamBody;
    use http_body_util::combinators::UnsyncBoxBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use serde_json::Value;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::allocators::{ChosenHub, samples};
    use crate::ambient::ManualClock;
    use crate::domain::{HubId, Timestamp};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

    /// What the server does with a request.
    #[derive(Clone)]
    enum Behaviour {
        Answer(u16, &'static str),
        Redirect(String),
        /// This many bytes in one announced piece.
        Announced(usize),
        /// This many pieces of 1 KiB, unannounced.
        Chunks(usize),
        /// Neither status nor body.
        Silence,
        /// Status and half a body, then nothing.
        HalfAnAnswer,
    }

    impl Behaviour {
        async fn answer(self) -> Answer {
            let full = |text: Vec<u8>| Full::new(Bytes::from(text)).boxed_unsync();
            let stream = |pieces: stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>| {
                StreamBody::new(pieces).boxed_unsync()
            };
            let piece = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
            let (status, body) = match self {
                Behaviour::Answer(status, text) => (status, full(text.as_bytes().to_vec())),
                Behaviour::Redirect(location) => {
                    let body = full(Vec::new());
                    return Response::builder().status(302).header("location", location).body(body).unwrap();
                }
                Behaviour::Announced(bytes) => (200, full(vec![b' '; bytes])),
                Behaviour::Chunks(pieces) => {
                    (200, stream(stream::iter((0..pieces).map(move |_| piece(vec![b' '; 1024]))).boxed()))
                }
                Behaviour::Silence => pending().await,
                Behaviour::HalfAnAnswer => {
                    let first = stream::iter([piece(b"{\"iotHub".to_vec())]);
                    (200, stream(first.chain(stream::pending()).boxed()))
                }
            };
            Response::builder().status(status).body(body).unwrap()
        }
    }

    struct Server {
        port: u16,
        /// The bodies of the requests that came in.
        requests: mpsc::UnboundedReceiver<(String, Value)>,
    }

    /// A server on this machine, with TLS when it is given settings.
    async fn serve(behaviour: Behaviour, tls: Option<rustls::ServerConfig>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, requests) = mpsc::unbounded_channel();
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (behaviour, seen, acceptor) = (behaviour.clone(), seen.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let (behaviour, seen) = (behaviour.clone(), seen.clone());
                        async move {
                            let line = format!("{} {}", request.method(), request.uri());
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            seen.send((line, serde_json::from_slice(&body).unwrap())).unwrap();
                            Ok::<_, Infallible>(behaviour.answer().await)
                        }
                    });
                    // How the connection ends is the client's business here.
                    let http = hyper::server::conn::http1::Builder::new();
                    match acceptor {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Server { port, requests }
    }

    fn webhook(clock: &Arc<ManualClock>) -> Webhook {
        let config = Config { allow_plain_http_on_loopback: true, ..Config::default() };
        Webhook::new(&config, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
    }

    async fn asked(behaviour: Behaviour) -> (Result<AllocationAnswer, AllocatorFault>, Server) {
        let server = serve(behaviour, None).await;
        let url = format!("http://127.0.0.1:{}/api/allocate?code=secret", server.port);
        let clock = Arc::new(ManualClock::at(NOW));
        (webhook(&clock).ask(samples::question(&url)).await, server)
    }

    const GOOD: &str = r#"{"iotHubHostName":"hub-b.example.net","payload":{"key":1}}"#;

    #[tokio::test]
    async fn a_good_answer() {
        let (answer, mut server) = asked(Behaviour::Answer(200, GOOD)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.hub, ChosenHub::Offered(HubId::parse("hub-b").unwrap()));
        assert_eq!(answer.payload, Some(serde_json::json!({"key": 1})));
        let (line, body) = server.requests.recv().await.unwrap();
        assert_eq!(line, "POST /api/allocate?code=secret");
        assert_eq!(body["deviceRuntimeContext"]["registrationId"], "dev-1");
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_host_that_was_not_offered_is_told_as_such() {
        let (answer, _) = asked(Behaviour::Answer(200, r#"{"iotHubHostName":"other.example"}"#)).await;
        assert_eq!(answer.unwrap().hub, ChosenHub::NotOffered { host_name: "other.example".to_owned() });
    }

    #[tokio::test]
    async fn answers_that_are_no_use() {
        for (behaviour, expected) in [
            (Behaviour::Answer(500, GOOD), "the allocation webhook answered with status 500 instead of 200"),
            (Behaviour::Answer(404, ""), "the allocation webhook answered with status 404 instead of 200"),
            (Behaviour::Answer(201, GOOD), "the allocation webhook answered with status 201 instead of 200"),
            (Behaviour::Announced(65_537), "the allocation webhook answered with more than 65536 bytes"),
            (Behaviour::Chunks(65), "the allocation webhook answered with more than 65536 bytes"),
        ] {
            let (answer, _) = asked(behaviour).await;
            assert_eq!(answer.unwrap_err().to_string(), expected);
        }
        for behaviour in [Behaviour::Answer(200, "<html>"), Behaviour::Announced(65_536), Behaviour::Chunks(64)] {
            let (answer, _) = asked(behaviour).await;
            assert!(matches!(answer, Err(AllocatorFault::Malformed { .. })), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let mut elsewhere = serve(Behaviour::Answer(200, GOOD), None).await;
        let (answer, _) = asked(Behaviour::Redirect(format!("http://127.0.0.1:{}/", elsewhere.port))).await;
        assert!(matches!(answer, Err(AllocatorFault::Redirect { status: 302 })), "{answer:?}");
        assert!(elsewhere.requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_slow_webhook_is_given_up_at_the_limit() {
        for behaviour in [Behaviour::Silence, Behaviour::HalfAnAnswer] {
            let mut server = serve(behaviour, None).await;
            let clock = Arc::new(ManualClock::at(NOW));
            let webhook = webhook(&clock);
            let url = format!("http://127.0.0.1:{}/?code=secret", server.port);
            let call = tokio::spawn(async move { webhook.ask(samples::question(&url)).await });
            server.requests.recv().await.unwrap();
            clock.advance(Duration::from_millis(9_999));
            assert_eq!(clock.sleepers(), 1);
            clock.advance(Duration::from_millis(1));
            let fault = call.await.unwrap().unwrap_err();
            assert_eq!(fault.to_string(), "the allocation webhook did not answer within 10 s");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let clock = Arc::new(ManualClock::at(NOW));
        let url = format!("http://127.0.0.1:{port}/?code=secret");
        let fault = webhook(&clock).ask(samples::question(&url)).await.unwrap_err();
        assert!(matches!(fault, AllocatorFault::Unreachable(_)), "{fault:?}");
        assert!(!format!("{fault} {fault:?}").contains("secret"));
    }

    #[tokio::test]
    async fn plain_http_is_for_this_machine_and_only_when_allowed() {
        let clock = Arc::new(ManualClock::at(NOW));
        let allowed = webhook(&clock);
        // 192.0.2.0/24 is set aside for documentation; the call is refused before anything is sent.
        let fault = allowed.ask(samples::question("http://192.0.2.1/?code=secret")).await.unwrap_err();
        assert!(matches!(fault, AllocatorFault::NotLoopback { .. }), "{fault:?}");
        let strict = Webhook::new(&Config::default(), clock as Arc<dyn Clock>).unwrap();
        let fault = strict.ask(samples::question("http://127.0.0.1:1/?code=secret")).await.unwrap_err();
        assert_eq!(fault.to_string(), "the allocation webhook's URL must start with https://");
        assert!(!format!("{fault:?}").contains("secret"));
    }

    /// A server certificate for `name`: the server's settings, and a PEM file that trusts it.
    fn server_certificate(name: &str) -> (rustls::ServerConfig, tempfile::NamedTempFile) {
        let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2023, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2024, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.pem().as_bytes()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        (config, file)
    }

    #[tokio::test]
    async fn over_tls_the_server_must_be_who_it_says() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for (certified, trusted, now, fits) in [
            ("127.0.0.1", true, NOW, true),
            ("127.0.0.1", false, NOW, false),
            ("localhost", true, NOW, false),
            ("127.0.0.1", true, NOW.plus(year), false),
        ] {
            let (tls, file) = server_certificate(certified);
            let server = serve(Behaviour::Answer(200, GOOD), Some(tls)).await;
            let config = Config { extra_ca_file: trusted.then(|| file.path().to_owned()), ..Config::default() };
            let webhook = Webhook::new(&config, Arc::new(ManualClock::at(now))).unwrap();
            let url = format!("https://127.0.0.1:{}/?code=secret", server.port);
            match webhook.ask(samples::question(&url)).await {
                Ok(_) => assert!(fits, "{certified} {trusted} {now}"),
                Err(fault) => {
                    assert!(!fits && matches!(fault, AllocatorFault::Tls(_)), "{certified} {trusted} {now}: {fault}");
                }
            }
        }
    }

    #[test]
    fn a_trust_file_that_cannot_be_used_is_refused() {
        let clock = || Arc::new(ManualClock::at(NOW)) as Arc<dyn Clock>;
        let with = |path: &std::path::Path| Config { extra_ca_file: Some(path.to_owned()), ..Config::default() };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let fault = Webhook::new(&with(file.path()), clock()).unwrap_err();
        assert!(matches!(fault, TrustFault::Empty { .. }), "{fault}");
        file.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let fault = Webhook::new(&with(file.path()), clock()).unwrap_err();
        assert!(matches!(fault, TrustFault::File { .. }), "{fault}");
        let fault = Webhook::new(&with(std::path::Path::new("/nowhere/at/all.pem")), clock()).unwrap_err();
        assert!(matches!(fault, TrustFault::File { .. }), "{fault}");
    }
}
