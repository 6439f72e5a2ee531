//! Puts the service together: the only file that names every concrete type.
//!
//! Order matters at both ends. At the start the store opens before hubs, hubs before devices are taken up, and only then
//! is the listener served, so that nobody meets a half-started service. At the stop the edge drains first, then the
//! actors end (what they had under way is journaled), and the files are closed last.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::actors::{self, Directory, Fleet, Surroundings};
use crate::allocators::{self, TrustFault, Webhook};
use crate::ambient::{
    Clock, Entropy, SecretFault, SystemClock, SystemEntropy, make_secret_text, own_secret, secret_text,
};
use crate::api::tls::{self, Spoken};
use crate::api::{ConnectionsMax, grpc, mqtt, rest};
use crate::attestation::x509;
use crate::config::{self, Config, PoliciesFault};
use crate::domain::{
    ClientFacts, EnrollmentDraft, EnrollmentId, Evidence, Fault, HubDraft, HubId, HubKind, OperationStatus, PolicyArea,
    Reason, RegistrationId, SharedAccessPolicy, TokenKey, limits,
};
use crate::hubs::embedded::EmbeddedHubs;
use crate::pki::{Development, PkiFault};
use crate::service::{self, Parts, Peer, RegisterAsk, Service, SharedAccess, Vault};
use crate::store::Store;
use crate::store::redb::{self, GroupEvent, Hooks, OpenFault, RedbStore};
use crate::telemetry::{self, DiskFile, EndpointLimits, LoggingFault, Metrics, MetricsFault, Queue};

/// How often unfinished devices are looked after, and the gauges written.
const LOOK_AFTER_EVERY: Duration = Duration::from_secs(15);
/// How often it is said what a slow start waits for.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// The store's name in the data folder.
const STORE_FILE: &str = "service.redb";
/// The key of stored secrets in the data folder.
const VAULT_FILE: &str = "secrets.key";
/// The shared access policies in the data folder, where the configuration names no other file.
const POLICIES_FILE: &str = "policies.toml";
/// Who links the hubs of the configuration.
const OURSELVES: &str = "service";

/// Why the service did not start: one readable line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    #[error("the logs cannot be started")]
    Logging(#[source] LoggingFault),
    #[error("the metrics cannot be started")]
    Metrics(#[source] MetricsFault),
    #[error("{what} {path} cannot be used")]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} {path} does not hold what it should: {why}")]
    Pem { what: &'static str, path: PathBuf, why: String },
    #[error("the development certificates cannot be made")]
    Pki(#[source] PkiFault),
    #[error("the server's certificate cannot be used")]
    Tls(#[source] tls::TlsFault),
    #[error("the store does not open")]
    Store(#[source] OpenFault),
    #[error("the store cannot be read: {0}")]
    StoreRead(String),
    #[error("the key of the stored secrets cannot be had")]
    Vault(#[source] SecretFault),
    #[error(
        "the keys of {enrollment} cannot be opened with {}: put the key file of that store there, or let every device \
         with a symmetric key be enrolled anew and start with --set store.accept_lost_keys=true", .path.display()
    )]
    KeysLost { path: PathBuf, enrollment: EnrollmentId },
    #[error("the shared access policies cannot be had")]
    PoliciesFile(#[source] SecretFault),
    #[error("the shared access policies in {path} cannot be used")]
    Policies {
        path: PathBuf,
        #[source]
        fault: PoliciesFault,
    },
    #[error("there are no shared access policies in {path}: a service with azure.https_listen makes them")]
    NoPolicies { path: PathBuf },
    #[error("the actors' threads cannot be started")]
    Threads(#[source] io::Error),
    #[error("the trust anchors for webhooks cannot be read")]
    Trust(#[source] TrustFault),
    #[error("{address} cannot be listened on (is another rehome running there?)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the linked hubs cannot be started")]
    Hubs(#[source] Fault),
}

/// Starts the logs of this process.
pub fn start_logging(log: &config::Log) -> Result<(), StartFault> {
    let format = match log.format {
        config::LogFormat::Human => telemetry::LogFormat::Human,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::start_logging(format, &log.filter).map_err(StartFault::Logging)
}

/// A service that runs.
pub struct Running {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    https_address: Option<SocketAddr>,
    mqtt_address: Option<SocketAddr>,
    /// Hubs that were linked just now, because the store was new.
    hubs_made: Vec<String>,
    /// Devices that had work left from an earlier life.
    taken_up: usize,
    service: Service,
    directory: Directory,
    stop: watch::Sender<bool>,
    edge: JoinHandle<io::Result<()>>,
    others: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.address)
    }
}

impl Running {
    /// Starts everything. When it returns, callers are served.
    pub async fn start(config: &Config) -> Result<Self, StartFault> {
        // A second service in one process finds the same provider installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        // The same names as in a backup: a copy of the folder is a data folder.
        let folder = config.data_dir.clone();
        make_folder(&folder)?;
        let store = open_store(config, clock.as_ref()).await?;
        let linked = store.hubs().await.map_err(|fault| StartFault::StoreRead(fault.to_string()))?;
        let linked: Vec<String> = linked.into_iter().map(|(hub, _)| hub.host_name).collect();
        let credentials = Credentials::load(config, &linked, clock.as_ref(), entropy.as_ref())?;
        let tls = credentials.tls(Spoken::Http2)?;
        let hubs = EmbeddedHubs::new(folder, config.hubs.cache_bytes, clock.clone(), entropy.clone())
            .observed(Arc::new(|| telemetry::disk_synced(DiskFile::Hub)));
        let allocator = Webhook::new(&webhook_config(config), clock.clone()).map_err(StartFault::Trust)?;
        let surroundings = Surroundings {
            store: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            allocator: Arc::new(allocator),
            fleet: Arc::new(Fleet::new(config.hubs.sync_every, config.hubs.away_after)),
        };
        let directory = Directory::start(actors_config(config), surroundings).map_err(StartFault::Threads)?;
        let listener = listen(config.listen).await?;
        let address = local_address(&listener, config.listen)?;
        let (vault, vault_is_new) = open_vault(config, entropy.as_ref())?;
        let shared_access = open_shared_access(config, entropy.as_ref())?;
        let service = Service::new(Parts {
            vault,
            store: store.clone(),
            directory: directory.clone(),
            clock: clock.clone(),
            entropy,
            hubs: Arc::new(hubs),
            operator_authorities: credentials.operator_authorities.clone(),
            config: service::Config { shared_access, ..service_config(config, address) },
        });
        check_vault(config, &service, vault_is_new).await?;
        let started = telling(clock.as_ref(), || "the hubs are being opened".to_owned(), service.start()).await;
        let taken_up = started.map_err(StartFault::Hubs)?;
        let hubs_made = link_initial_hubs(config, &service, store.as_ref(), address).await?;
        let (stop, stopping) = watch::channel(false);
        let mut others = Vec::new();
        let metrics_address = match config.metrics_listen {
            Some(wanted) => {
                let metrics = Metrics::install().map_err(StartFault::Metrics)?;
                let listener = listen(wanted).await?;
                let bound = local_address(&listener, wanted)?;
                let stopped = stopped(stopping.clone());
                others.push(tokio::spawn(telemetry::serve_metrics(
                    listener,
                    metrics,
                    EndpointLimits::default(),
                    stopped,
                )));
                Some(bound)
            }
            None => None,
        };
        let looked_after = directory.clone();
        let until = stopping.clone();
        others.push(tokio::spawn(async move {
            tokio::select! {
                () = looked_after.look_after(LOOK_AFTER_EVERY) => {}
                () = stopped(until) => {}
            }
        }));
        let mut https_address = None;
        if let Some(wanted) = config.azure.https_listen {
            let listener = listen(wanted).await?;
            https_address = Some(local_address(&listener, wanted)?);
            let (tls, settings) = (credentials.tls(Spoken::Http1)?, rest_settings(config)?);
            let until = stopped(stopping.clone());
            others.push(tokio::spawn(rest::serve(
                listener,
                tls,
                service.clone(),
                settings,
                rest_limits(config),
                until,
            )));
        }
        let mut mqtt_address = None;
        if let Some(wanted) = config.azure.mqtt_listen {
            let listener = listen(wanted).await?;
            mqtt_address = Some(local_address(&listener, wanted)?);
            let (tls, settings) = (credentials.tls(Spoken::Mqtt)?, mqtt_settings(config));
            let until = stopped(stopping.clone());
            others.push(tokio::spawn(mqtt::serve(
                listener,
                tls,
                service.clone(),
                settings,
                mqtt_limits(config),
                until,
            )));
        }
        let edge = tokio::spawn(grpc::serve(listener, tls, service.clone(), edge_limits(config), stopped(stopping)));
        Ok(Self {
            address,
            metrics_address,
            https_address,
            mqtt_address,
            hubs_made,
            taken_up,
            service,
            directory,
            stop,
            edge,
            others,
        })
    }

    /// Where callers are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where existing SDKs are served over HTTPS.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https_address
    }

    /// Where existing SDKs are served over MQTT.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt_address
    }

    /// The hubs that this start linked: none unless the store was new.
    pub fn hubs_made(&self) -> &[String] {
        &self.hubs_made
    }

    /// Devices that were taken up with work left from an earlier life.
    pub fn taken_up(&self) -> usize {
        self.taken_up
    }

    /// Enrolls devices, as an operator of this process.
    pub async fn enroll(&self, draft: EnrollmentDraft) -> Result<(), Fault> {
        self.service.create_enrollment(draft, OURSELVES).await.map(drop)
    }

    /// Registers a device whose chain (leaf first) nobody has shown on a connection, and waits until it is assigned: for
    /// whoever holds the keys of all of them and wants a large store.
    pub async fn register(&self, id: RegistrationId, chain: Vec<Vec<u8>>, facts: ClientFacts) -> Result<(), Fault> {
        let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 0)), Evidence::X509 { chain });
        let ask = RegisterAsk { registration_id: id, facts, request_id: None, tpm: None };
        let registering = self.service.register(&peer, &ask).await?;
        let last = self.service.follow(registering).fold(None, async |_, view| Some(view)).await;
        match last.transpose()?.map(|view| view.standing.operation.status) {
            Some(OperationStatus::Assigned { .. }) => Ok(()),
            Some(OperationStatus::Failed { reason, message }) => Err(Fault::new(reason, message)),
            Some(OperationStatus::Assigning | OperationStatus::Disabled) | None => {
                Err(Fault::new(Reason::ServiceUnavailable, "the device was not assigned"))
            }
        }
    }

    /// Stops: calls under way may finish for a while, moves under way are journaled and go on after the next start.
    pub async fn stop(self) -> io::Result<()> {
        let Self { service, directory, stop, edge, others, .. } = self;
        stop.send_replace(true);
        let served = edge.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        for other in others {
            // One that panicked has said so.
            let _ = other.await;
        }
        directory.close();
        drop(service);
        // The last handle joins the actors' threads and then the store's, which must not hold up the runtime.
        let ended = tokio::task::spawn_blocking(move || drop(directory)).await;
        served.and(ended.map_err(io::Error::other))
    }

    /// Resolves when the edge ends by itself, which it does only on a fault.
    pub async fn failed(&mut self) -> io::Result<()> {
        (&mut self.edge).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// What is wrong with a store that no service has open, a sentence each: none when all is well. Takes its file, or the
/// data folder.
pub fn check_store(path: &Path, config: &Config, repair: impl Fn(f64) + 'static) -> Result<Vec<String>, StartFault> {
    let findings = redb::check(&store_file(path), config.store.cache_bytes, repair).map_err(StartFault::Store)?;
    Ok(findings.iter().map(ToString::to_string).collect())
}

/// Gives the free space of a store that no service has open back to the file system; says whether there was any.
pub fn compact_store(path: &Path, config: &Config, repair: impl Fn(f64) + 'static) -> Result<bool, StartFault> {
    redb::compact(&store_file(path), config.store.cache_bytes, repair).map_err(StartFault::Store)
}

fn store_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(STORE_FILE) } else { path.to_owned() }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A dropped sender is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// What the server shows and whom it takes for operators.
struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    operator_authorities: Vec<crate::domain::CertificateRef>,
}

impl Credentials {
    /// The development certificate names the hubs that are `linked`, too.
    fn load(config: &Config, linked: &[String], clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Self, StartFault> {
        match &config.tls {
            config::Tls::DevelopmentPki => {
                make_folder(&config.certs_dir)?;
                let names = host_names(config, linked);
                let made = Development::ensure(&config.certs_dir, clock, entropy, &names).map_err(StartFault::Pki)?;
                for path in &made.written {
                    tracing::info!("made {}", path.display());
                }
                let paths = made.paths;
                Self::read(&paths.server.certificate, &paths.server.key, &paths.operator_ca.certificate)
            }
            config::Tls::Own { cert, key, operator_ca } => Self::read(cert, key, operator_ca),
        }
    }

    fn tls(&self, spoken: Spoken) -> Result<Arc<rustls::ServerConfig>, StartFault> {
        tls::tls_config(self.chain.clone(), self.key.clone_key(), spoken).map_err(StartFault::Tls)
    }

    fn read(cert: &Path, key: &Path, operator_ca: &Path) -> Result<Self, StartFault> {
        let chain = read_chain("the server's certificate", cert)?;
        let key_text = read_file("the server's key", key)?;
        let fault = |why: String| StartFault::Pem { what: "the server's key", path: key.to_owned(), why };
        let key = PrivateKeyDer::from_pem_slice(&key_text).map_err(|error| fault(error.to_string()))?;
        let authorities = read_chain("the operators' authority", operator_ca)?;
        let operator_authorities = authorities
            .iter()
            .map(|der| {
                x509::certificate_ref(der).map_err(|refusal| StartFault::Pem {
                    what: "the operators' authority",
                    path: operator_ca.to_owned(),
                    why: refusal.to_string(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, key, operator_authorities })
    }
}

fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, StartFault> {
    std::fs::read(path).map_err(|source| StartFault::File { what, path: path.to_owned(), source })
}

fn read_chain(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StartFault> {
    let text = read_file(what, path)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(StartFault::Pem { what, path: path.to_owned(), why: "there is no certificate in it".to_owned() }),
        Err(error) => Err(StartFault::Pem { what, path: path.to_owned(), why: error.to_string() }),
    }
}

fn make_folder(path: &Path) -> Result<(), StartFault> {
    let fault = |source| StartFault::File { what: "the folder", path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(fault)
}

/// Every name that a device, a back end or an operator may call the server by.
fn host_names(config: &Config, linked: &[String]) -> Vec<String> {
    let hubs = config.hubs.initial.iter().map(|hub| hub.host_name.clone()).chain(linked.iter().cloned());
    let ours = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), config.azure.host_name.clone()];
    let listen = Some(config.listen.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    ours.into_iter().chain(listen.map(|ip| ip.to_string())).chain(hubs).collect()
}

/// Waits, and says what for when that takes long.
async fn telling<T>(clock: &dyn Clock, what: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let began = clock.monotonic();
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = clock.sleep(TOLD_EVERY) => {
                let seconds = clock.monotonic().saturating_sub(began).as_secs();
                tracing::info!("{}: {seconds} s so far", what());
            }
        }
    }
}

async fn open_store(config: &Config, clock: &dyn Clock) -> Result<Arc<RedbStore>, StartFault> {
    let mut settings = crate::store::redb::Config::at(config.data_dir.join(STORE_FILE));
    settings.cache_bytes = config.store.cache_bytes;
    settings.queue_max = config.limits.store_queue_max;
    settings.group_max = config.limits.store_group_max;
    let repaired = Arc::new(AtomicU32::new(0));
    let told = repaired.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let hooks = Hooks {
            repair: Box::new(move |part| told.store((part * 100.0) as u32, Ordering::Relaxed)),
            group: Box::new(|event| match event {
                GroupEvent::Began { commits } => telemetry::queue_depth(Queue::StoreWriter, commits),
                GroupEvent::Ended { written, .. } => {
                    telemetry::queue_depth(Queue::StoreWriter, 0);
                    if written > 0 {
                        telemetry::disk_synced(DiskFile::Service);
                    }
                }
            }),
        };
        RedbStore::open(settings, hooks)
    });
    let what = || match repaired.load(Ordering::Relaxed) {
        0 => "the store is being opened".to_owned(),
        percent => format!("the store is being opened, and repaired to {percent} %"),
    };
    match telling(clock, what, opening).await {
        Ok(opened) => opened.map(Arc::new).map_err(StartFault::Store),
        Err(error) => Err(StartFault::StoreRead(error.to_string())),
    }
}

/// The key that closes the secrets in the store and in the hubs' files. It lies beside them and in no backup.
/// The vault, and whether its key was made just now.
fn open_vault(config: &Config, entropy: &dyn Entropy) -> Result<(Vault, bool), StartFault> {
    let path = config.data_dir.join(VAULT_FILE);
    let key = own_secret(&path, entropy).map_err(StartFault::Vault)?;
    if key.is_new {
        tracing::info!(
            "made {}, the key of stored secrets: keep a copy; where it is lost, devices with a TPM must register again, and \
             those with a symmetric key be enrolled again",
            path.display()
        );
    }
    Ok((Vault::new(&key.bytes), key.is_new))
}

/// Whether the vault opens what is enrolled. With another one's key devices would be refused one by one; better nobody
/// starts so without wanting it. A key that was made for nothing is not left behind.
async fn check_vault(config: &Config, service: &Service, is_new: bool) -> Result<(), StartFault> {
    let lost = service.find_lost_key(is_new).await.map_err(|fault| StartFault::StoreRead(fault.to_string()))?;
    let Some(enrollment) = lost else { return Ok(()) };
    let path = config.data_dir.join(VAULT_FILE);
    if config.store.accept_lost_keys {
        tracing::error!("the keys of {enrollment}, and perhaps others, cannot be opened: enroll their devices again");
        return Ok(());
    }
    if is_new && let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!("{} was made for nothing and stays: {error}", path.display());
    }
    Err(StartFault::KeysLost { path, enrollment })
}

fn policies_file(config: &Config) -> PathBuf {
    config.azure.policies.clone().unwrap_or_else(|| config.data_dir.join(POLICIES_FILE))
}

fn read_shared_access(config: &Config) -> Result<Option<SharedAccess>, StartFault> {
    let path = policies_file(config);
    let text = secret_text(&path, limits::POLICIES_BYTES_MAX).map_err(StartFault::PoliciesFile)?;
    let policies = text.map(|text| config::read_policies(&text)).transpose();
    let policies = policies.map_err(|fault| StartFault::Policies { path, fault })?;
    let host_name = config.azure.host_name.clone();
    Ok(policies.map(|policies| SharedAccess { host_name, policies: policies.into() }))
}

/// The policies of back ends. The file of the data folder is made when it is missing; nobody calls by a key where the
/// edge for it is off.
fn open_shared_access(config: &Config, entropy: &dyn Entropy) -> Result<SharedAccess, StartFault> {
    if config.azure.https_listen.is_none() {
        return Ok(SharedAccess::default());
    }
    if let Some(shared_access) = read_shared_access(config)? {
        return Ok(shared_access);
    }
    let path = policies_file(config);
    if config.azure.policies.is_some() {
        return Err(StartFault::NoPolicies { path });
    }
    let text = config::made_policies(|| {
        let mut key = Zeroizing::new([0; limits::TOKEN_KEY_BYTES_MAX]);
        entropy.fill(key.as_mut_slice());
        key
    });
    make_secret_text(&path, &text).map_err(StartFault::PoliciesFile)?;
    tracing::info!("made {}, the shared access policies of back ends", path.display());
    read_shared_access(config)?.ok_or(StartFault::NoPolicies { path })
}

/// The shared access policies of a service, from its files: for who may read them.
#[derive(Debug)]
pub struct PolicyKeys {
    policies: Arc<[SharedAccessPolicy]>,
}

impl PolicyKeys {
    /// Reads what a service has made.
    pub fn read(config: &Config) -> Result<Self, StartFault> {
        let missing = || StartFault::NoPolicies { path: policies_file(config) };
        Ok(Self { policies: read_shared_access(config)?.ok_or_else(missing)?.policies })
    }

    /// The policies of the service, or those of hubs.
    pub fn of(&self, area: PolicyArea) -> impl Iterator<Item = &SharedAccessPolicy> {
        self.policies.iter().filter(move |policy| policy.area == area)
    }

    /// What a key of a policy is at one hub.
    pub fn at_hub(key: &TokenKey, hub: &HubId) -> TokenKey {
        service::hub_policy_key(key, hub)
    }
}

/// A new store gets the hubs of the configuration; later on hubs are what the operator has linked.
async fn link_initial_hubs(
    config: &Config,
    service: &Service,
    store: &dyn Store,
    address: SocketAddr,
) -> Result<Vec<String>, StartFault> {
    let linked = store.hubs().await.map_err(|fault| StartFault::StoreRead(fault.to_string()))?;
    let page = crate::store::PageRequest { size: 1, token: None };
    let audit = store.list_audit(&Default::default(), &page).await;
    let is_new = audit.map_err(|fault| StartFault::StoreRead(fault.to_string()))?.rows.is_empty();
    if !linked.is_empty() || !is_new {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for hub in &config.hubs.initial {
        let draft = HubDraft {
            id: hub.id.clone(),
            host_name: Some(hub.host_name.clone()),
            endpoint: Some(address.to_string()),
            kind: HubKind::Embedded,
            location: None,
            weight: 1,
            capacity: None,
            calls_per_second: None,
        };
        service.link_hub(draft, OURSELVES).await.map_err(StartFault::Hubs)?;
        made.push(hub.id.to_string());
    }
    Ok(made)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartFault> {
    TcpListener::bind(address).await.map_err(|source| StartFault::Listen { address, source })
}

fn local_address(listener: &TcpListener, wanted: SocketAddr) -> Result<SocketAddr, StartFault> {
    listener.local_addr().map_err(|source| StartFault::Listen { address: wanted, source })
}

fn actors_config(config: &Config) -> actors::Config {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    actors::Config {
        arbiters: config.actors.arbiters.map_or(cores, usize::from),
        passivate_after: config.actors.passivate_after,
        mailbox_max: config.limits.device_queue_max,
    }
}

fn webhook_config(config: &Config) -> allocators::Config {
    allocators::Config {
        extra_ca_file: config.webhook.extra_ca.clone(),
        allow_plain_http_on_loopback: config.webhook.allow_loopback_http,
    }
}

fn service_config(config: &Config, address: SocketAddr) -> service::Config {
    let refusals = config.limits.peer_refusals_per_minute.max(1);
    let peer_challenges = config.limits.peer_challenges_per_minute.max(1);
    let device_challenges = config.limits.device_challenges_per_minute.max(1);
    service::Config {
        registrations_max: config.limits.registrations_max,
        refusals_per_peer: refusals,
        refusal_regained_after: Duration::from_secs(60) / refusals,
        challenges_per_peer: peer_challenges,
        challenge_regained_after: Duration::from_secs(60) / peer_challenges,
        challenges_per_id: device_challenges,
        id_challenge_regained_after: Duration::from_secs(60) / device_challenges,
        embedded_endpoint: address.to_string(),
        id_scope: Some(config.azure.id_scope.clone()),
        scratch_folder: config.data_dir.join("tmp"),
        ..service::Config::default()
    }
}

fn rest_settings(config: &Config) -> Result<rest::Settings, StartFault> {
    let authority = |named: &config::NamedAuthority| {
        const WHAT: &str = "an authority that groups may refer to";
        let text = read_file(WHAT, &named.file)?;
        let certificate = x509::certificate_ref(&text).map_err(|refusal| StartFault::Pem {
            what: WHAT,
            path: named.file.clone(),
            why: refusal.to_string(),
        })?;
        Ok(rest::NamedAuthority { name: named.name.clone(), der: certificate.der, thumbprint: certificate.thumbprint })
    };
    let authorities = config.azure.authorities.iter().map(authority).collect::<Result<Vec<_>, StartFault>>()?;
    Ok(rest::Settings { id_scope: config.azure.id_scope.clone(), authorities: authorities.into() })
}

fn connections_max(config: &Config) -> ConnectionsMax {
    ConnectionsMax { all: config.limits.connections_max, of_one: config.limits.address_connections_max }
}

fn rest_limits(config: &Config) -> rest::Limits {
    rest::Limits {
        connections_max: connections_max(config),
        handshake_timeout: config.limits.handshake_timeout,
        drain_for: config.shutdown_grace,
        ..rest::Limits::default()
    }
}

fn mqtt_settings(config: &Config) -> mqtt::Settings {
    mqtt::Settings { id_scope: config.azure.id_scope.clone() }
}

fn mqtt_limits(config: &Config) -> mqtt::Limits {
    mqtt::Limits {
        connections_max: connections_max(config),
        handshake_timeout: config.limits.handshake_timeout,
        drain_for: config.shutdown_grace,
    }
}

fn edge_limits(config: &Config) -> grpc::Limits {
    grpc::Limits {
        connections_max: connections_max(config),
        handshake_timeout: config.limits.handshake_timeout,
        streams_max: config.limits.calls_per_connection_max,
        keepalive_every: config.limits.keepalive_every,
        drain_for: config.shutdown_grace,
        ..grpc::Limits::default()
    }
}
