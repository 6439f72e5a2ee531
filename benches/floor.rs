//! The floor under the service: the least that the same stack can do for the same guarantee, measured in turns with it.
//!
//! The floor is tonic over the service's own TLS configuration: *echo* answers at once; *put* hands one message to the
//! actix actor of its key, which has one row written by a group commit, and answers when that is durable. It is filled
//! with as many keys as the service has devices. The service runs as `rehome bench` runs it. Load generator, floor and
//! service share the machine, but never measure at once: within a round each scenario and its floor follow each other,
//! and what counts is their ratio.
//!
//! `cargo bench --bench floor -- --rounds 5 --for 3 --devices 1000 --in-flight 64`

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mimalloc::MiMalloc;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use rehome::ambient::{Clock as _, GroupWriter, SystemClock, SystemEntropy};
use rehome::api::tls::{Spoken, tls_config};
use rehome::client::{Caller, Server, Tickets};
use rehome::domain::RegistrationId;
use rehome::pki::{Authority, Purpose, Terms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// As the service's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Of an echo, and of a row that stands for a registration's first write; a move carries a twin of 2 KiB.
const SMALL: usize = 256;
const TWIN: usize = 2048;
/// As the service's store.
const QUEUE_MAX: usize = 1024;
const GROUP_MAX: usize = 256;
const CACHE_BYTES: usize = 256 * 1024 * 1024;
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");
const PAGE_BYTES: f64 = 4096.0;

#[derive(Debug, Clone)]
struct Options {
    rounds: usize,
    lasts: Duration,
    devices: usize,
    in_flight: usize,
    json: bool,
}

/// What the floor does to stand under a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Floor {
    /// On open connections.
    Echo,
    /// On a new connection each, with a full handshake.
    Connect,
    /// On open connections, so many bytes made durable.
    Put(usize),
}

impl Floor {
    fn name(self) -> String {
        match self {
            Floor::Echo => "echo".to_owned(),
            Floor::Connect => "connect + echo".to_owned(),
            Floor::Put(bytes) => format!("put {bytes} B"),
        }
    }
}

/// Each scenario of `rehome bench`, and its floor.
const PAIRS: [(&str, Floor); 7] = [
    ("warm", Floor::Echo),
    ("look-up", Floor::Echo),
    ("cold-group", Floor::Connect),
    ("cold-individual", Floor::Connect),
    ("first", Floor::Put(SMALL)),
    ("move-migrate", Floor::Put(TWIN)),
    ("twin-report", Floor::Put(SMALL)),
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).cloned();
    let number = |name: &str, default: usize| value(name).map_or(Ok(default), |text| text.parse().context(text));
    if let Some(folder) = value("--serve") {
        return serve(Path::new(&folder), number("--devices", 1000)?);
    }
    let options = Options {
        rounds: number("--rounds", 3)?.max(1),
        lasts: Duration::from_secs(number("--for", 3)?.max(1) as u64),
        devices: number("--devices", 1000)?.max(1),
        in_flight: number("--in-flight", 64)?.max(1),
        json: words.iter().any(|word| word == "--json"),
    };
    let folder = tempfile::tempdir()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(compare(&options, folder.path()))
}

/// What one measurement came to.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    pages: f64,
    cpu_us: f64,
}

async fn compare(options: &Options, folder: &Path) -> Result<()> {
    let mut floor = FloorProcess::start(options, folder).await?;
    let mut service = ServiceProcess::start(options)?;
    let mut rounds: Vec<Vec<(Measured, Measured)>> = vec![Vec::new(); PAIRS.len()];
    for round in 1..=options.rounds {
        for (place, (scenario, under)) in PAIRS.into_iter().enumerate() {
            let below = floor.measure(under, options).await?;
            let above = service.measure(scenario)?;
            eprintln!(
                "round {round}: {scenario} {:.0}/s, {} {:.0}/s, ratio {:.2}",
                above.per_second,
                under.name(),
                below.per_second,
                above.per_second / below.per_second
            );
            rounds[place].push((above, below));
        }
    }
    report(options, &rounds);
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    let at = |place: usize| numbers.get(place).copied().unwrap_or(0.0);
    (at(numbers.len() / 2), at(0), at(numbers.len().saturating_sub(1)))
}

fn report(options: &Options, rounds: &[Vec<(Measured, Measured)>]) {
    println!(
        "{} devices, {} in flight, {} rounds of {} s",
        options.devices,
        options.in_flight,
        options.rounds,
        options.lasts.as_secs()
    );
    println!(
        "{:<16} {:>8} {:>8} {:>8} | {:<15} {:>8} {:>8} {:>8} | {:>6} {:>11} | {:>9} {:>9} {:>9}",
        "scenario",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "floor",
        "ops/s",
        "p50 ms",
        "p99 ms",
        "ratio",
        "min-max",
        "pages/op",
        "floor's",
        "by pages"
    );
    for ((scenario, under), measured) in PAIRS.iter().zip(rounds) {
        let of = |get: &dyn Fn(&(Measured, Measured)) -> f64| median(measured.iter().map(get).collect());
        let (ratio, least, most) = of(&|(above, below)| above.per_second / below.per_second);
        let (pages, floor_pages) = (of(&|(above, _)| above.pages).0, of(&|(_, below)| below.pages).0);
        // What the pages that the floor wrote in a second would be enough for.
        let (by_pages, ..) = of(&|(above, below)| {
            let possible = below.per_second * below.pages / above.pages;
            if above.pages > 0.0 && below.pages > 0.0 { above.per_second / possible } else { f64::NAN }
        });
        let by_pages = if by_pages.is_nan() { "-".to_owned() } else { format!("{by_pages:.2}") };
        if options.json {
            let line = serde_json::json!({
                "scenario": scenario, "floor": under.name(), "ratio": ratio, "ratio_min": least, "ratio_max": most,
                "operations_per_second": of(&|(above, _)| above.per_second).0,
                "floor_operations_per_second": of(&|(_, below)| below.per_second).0,
                "pages": pages, "floor_pages": floor_pages,
                "server_cpu_us": of(&|(above, _)| above.cpu_us).0, "floor_cpu_us": of(&|(_, below)| below.cpu_us).0,
            });
            println!("{line}");
            continue;
        }
        println!(
            "{scenario:<16} {:>8.0} {:>8.2} {:>8.2} | {:<15} {:>8.0} {:>8.2} {:>8.2} | {ratio:>6.2} {:>11} | {pages:>9.2} {floor_pages:>9.2} {by_pages:>9}",
            of(&|(above, _)| above.per_second).0,
            of(&|(above, _)| above.p50_ms).0,
            of(&|(above, _)| above.p99_ms).0,
            under.name(),
            of(&|(_, below)| below.per_second).0,
            of(&|(_, below)| below.p50_ms).0,
            of(&|(_, below)| below.p99_ms).0,
            format!("{least:.2}-{most:.2}"),
        );
    }
}

/// `rehome bench`, which measures when it is told to.
struct ServiceProcess {
    child: Child,
    tell: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl ServiceProcess {
    fn start(options: &Options) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rehome"));
        command.args(["bench", "--json", "--paced"]).args(PAIRS.map(|(scenario, _)| scenario));
        command.arg("--devices").arg(options.devices.to_string());
        command.arg("--in-flight").arg(options.in_flight.to_string());
        command.arg("--rounds").arg(options.rounds.to_string());
        command.arg("--for").arg(format!("{}s", options.lasts.as_secs()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let tell = child.stdin.take().context("no standard input")?;
        let told = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, tell, told })
    }

    fn measure(&mut self, scenario: &str) -> Result<Measured> {
        self.tell.write_all(b"\n")?;
        self.tell.flush()?;
        let mut line = String::new();
        ensure!(self.told.read_line(&mut line)? > 0, "rehome bench ended early");
        let row: Value = serde_json::from_str(&line)?;
        ensure!(row["scenario"] == scenario, "{line}");
        ensure!(row["failed"].as_object().is_some_and(serde_json::Map::is_empty), "{scenario} had failures: {line}");
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        Ok(Measured {
            per_second: number(&row["operations_per_second"]),
            p50_ms: number(&row["latency_ms"]["p50"]),
            p99_ms: number(&row["latency_ms"]["p99"]),
            pages: number(&row["written_pages"]),
            cpu_us: number(&row["server_cpu_us"]),
        })
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        // The end of its standard input ends it; it kills its own server.
        let _ = self.tell.flush();
        std::thread::sleep(Duration::from_millis(10));
        let _ = self.child.try_wait();
    }
}

/// The floor's server: this program in a process of its own.
struct FloorProcess {
    child: Child,
    callers: Arc<Vec<Caller>>,
    channels: Arc<Vec<Channel>>,
    keys: u64,
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl FloorProcess {
    async fn start(options: &Options, folder: &Path) -> Result<Self> {
        let terms = Terms::starting(SystemClock.now(), DAY);
        let entropy = SystemEntropy::new();
        let authority = Authority::create("floor", Purpose::Server, terms, &entropy)?;
        let server = authority.issue_server(&["127.0.0.1".to_owned()], terms, &entropy)?;
        std::fs::write(folder.join("server.pem"), server.certificate_pem())?;
        std::fs::write(folder.join("server.key"), server.key_pem())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(folder).arg("--devices").arg(options.devices.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let address: SocketAddr = line.trim().parse().with_context(|| format!("the floor said {line:?}"))?;
        let server = Server::find(&format!("https://{address}"), authority.certificate_pem().as_bytes()).await?;
        let devices = Authority::create("devices", Purpose::Device, terms, &entropy)?;
        let caller = |number: usize| -> Result<Caller> {
            let id = RegistrationId::parse(&format!("floor-{number:07}"))?;
            let issued = devices.issue_device(&id, terms, &entropy)?;
            Ok(server.caller(issued.chain().to_vec(), issued.key(), Tickets::Refused)?)
        };
        // As many different devices as can be at work at once.
        let callers = (0..options.in_flight).map(caller).collect::<Result<Vec<_>>>()?;
        let mut channels = Vec::new();
        for caller in &callers {
            channels.push(caller.connect().await?.channel());
        }
        let (callers, channels) = (Arc::new(callers), Arc::new(channels));
        Ok(Self { child, callers, channels, keys: options.devices as u64 })
    }

    async fn measure(&mut self, floor: Floor, options: &Options) -> Result<Measured> {
        let (pages, cpu) = (self.written()?, self.cpu()?);
        let began = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let workers = (0..options.in_flight).map(|worker| {
            let (next, lasts, keys) = (next.clone(), options.lasts, self.keys);
            let (caller, channel) = (self.callers[worker].clone(), self.channels[worker].clone());
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3)?;
                while began.elapsed() < lasts {
                    let from = Instant::now();
                    // A walk over all keys that does not follow their order.
                    let key = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
                    match floor {
                        Floor::Echo => call(&channel, "/floor/Echo", key, SMALL).await?,
                        Floor::Put(bytes) => call(&channel, "/floor/Put", key, bytes).await?,
                        Floor::Connect => {
                            let session = caller.connect().await?;
                            call(&session.channel(), "/floor/Echo", key, SMALL).await?;
                        }
                    }
                    latencies.record(u64::try_from(from.elapsed().as_micros())?.max(1))?;
                }
                Ok::<_, anyhow::Error>(latencies)
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut latencies = Histogram::<u64>::new(3)?;
        for worker in workers {
            latencies.add(worker.await??)?;
        }
        let took = began.elapsed();
        let operations = latencies.len() as f64;
        Ok(Measured {
            per_second: operations / took.as_secs_f64(),
            p50_ms: latencies.value_at_quantile(0.5) as f64 / 1000.0,
            p99_ms: latencies.value_at_quantile(0.99) as f64 / 1000.0,
            pages: (self.written()? - pages) / PAGE_BYTES / operations,
            cpu_us: (self.cpu()? - cpu) * 1e6 / operations,
        })
    }

    fn written(&self) -> Result<f64> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id()))?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(bytes.context("no write_bytes")?.trim().parse()?)
    }

    /// Seconds of processor time.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

async fn call(channel: &Channel, path: &'static str, key: u64, bytes: usize) -> Result<()> {
    let mut message = vec![0x5a; bytes.max(8)];
    message[..8].copy_from_slice(&key.to_be_bytes());
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(message), path, ProstCodec::<Vec<u8>, Vec<u8>>::default()).await?;
    ensure!(answer.get_ref().len() >= 8, "the floor answered nothing");
    Ok(())
}

/// A row to be written, and who waits for it.
struct Job {
    key: u64,
    row: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// The actor of one key.
struct Keeper {
    writer: Arc<GroupWriter<Job>>,
}

impl Actor for Keeper {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "bool")]
struct Put {
    key: u64,
    row: Vec<u8>,
}

impl Handler<Put> for Keeper {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, Put { key, row }: Put, _: &mut Context<Self>) -> Self::Result {
        let writer = self.writer.clone();
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            writer.hand_in(Job { key, row, done }).await.is_ok() && is_done.await.is_ok()
        })
    }
}

/// Finds the actor of a key, started when it is asked for first.
#[derive(Clone)]
struct Keepers {
    arbiters: Arc<Vec<ArbiterHandle>>,
    writer: Arc<GroupWriter<Job>>,
    awake: Arc<Mutex<HashMap<u64, Addr<Keeper>>>>,
}

impl Keepers {
    fn of(&self, key: u64) -> Addr<Keeper> {
        let mut awake = self.awake.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = || {
            let writer = self.writer.clone();
            let arbiter = &self.arbiters[key as usize % self.arbiters.len()];
            Keeper::start_in_arbiter(arbiter, move |_: &mut Context<Keeper>| Keeper { writer })
        };
        awake.entry(key).or_insert_with(start).clone()
    }
}

/// The floor's server. Says its address in one line and serves until it is killed.
fn serve(folder: &Path, keys: usize) -> Result<()> {
    let database = Arc::new(filled(&folder.join("floor.redb"), keys)?);
    let write = move |jobs: Vec<Job>| {
        if let Err(error) = write_group(&database, &jobs) {
            // Nobody is answered: their calls fail.
            eprintln!("the floor cannot write: {error}");
            return;
        }
        for job in jobs {
            let _ = job.done.send(());
        }
    };
    let writer = Arc::new(GroupWriter::start("floor-writer", QUEUE_MAX, GROUP_MAX, write)?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let system = System::new();
        let arbiters: Vec<Arbiter> = system.block_on(async { (0..cores).map(|_| Arbiter::new()).collect() });
        let _ = ready.send(arbiters.iter().map(Arbiter::handle).collect::<Vec<_>>());
        let _ = system.run();
        drop(arbiters);
    });
    let keepers = Keepers { arbiters: Arc::new(is_ready.recv()?), writer, awake: Arc::default() };
    let chain: Vec<_> = CertificateDer::pem_file_iter(folder.join("server.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let tls = TlsAcceptor::from(tls_config(chain, key, Spoken::Http2)?);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let (tls, keepers) = (tls.clone(), keepers.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(stream) = tls.accept(stream).await else { return };
                let answer = service_fn(move |request| answer(keepers.clone(), request));
                let http = http2::Builder::new(TokioExecutor::new());
                // A connection that breaks is its caller's to report.
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}

fn filled(path: &PathBuf, keys: usize) -> Result<Database> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = builder.create(path)?;
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ROWS)?;
        for key in 0..keys as u64 {
            table.insert(key, vec![0x5a; SMALL].as_slice())?;
        }
    }
    transaction.commit()?;
    ensure!(database.begin_read()?.open_table(ROWS)?.len()? == keys as u64, "not filled");
    Ok(database)
}

fn write_group(database: &Database, jobs: &[Job]) -> Result<()> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(ROWS)?;
        for job in jobs {
            table.insert(job.key, job.row.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

async fn answer(keepers: Keepers, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Vec<u8>, Vec<u8>>::default());
    Ok(match path.as_str() {
        "/floor/Echo" => grpc.unary(tower::service_fn(echo), request).await,
        "/floor/Put" => {
            let put = tower::service_fn(move |request| put(keepers.clone(), request));
            grpc.unary(put, request).await
        }
        _ => Status::unimplemented("there is no such method").into_http(),
    })
}

async fn echo(request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    Ok(Response::new(request.into_inner()))
}

async fn put(keepers: Keepers, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Status> {
    let row = request.into_inner();
    let key = row.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let key = key.ok_or_else(|| Status::invalid_argument("no key"))?;
    match keepers.of(key).send(Put { key, row }).await {
        Ok(true) => Ok(Response::new(key.to_be_bytes().to_vec())),
        Ok(false) | Err(_) => Err(Status::unavailable("not written")),
    }
}
