//! The configuration as it was read, before its parts are held against each other.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use super::fault::ConfigFault;
use super::span::read_span;
use super::{
    Actors, Azure, Client, ClientIdentity, Config, Hubs, InitialHub, Limits, Log, LogFormat, NamedAuthority, Store,
    Tls, Tpm, Webhook,
};
use crate::domain::{HubId, limits};

const OFF: &str = "off";

/// Mirrors the table of settings; every value has passed its setting's own check.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    data_dir: PathBuf,
    certs_dir: PathBuf,
    listen: String,
    metrics_listen: String,
    allow_development_pki_off_loopback: bool,
    shutdown_grace: Span,
    #[serde(default)]
    tls: TlsDraft,
    log: LogDraft,
    limits: LimitsDraft,
    actors: ActorsDraft,
    store: StoreDraft,
    hubs: HubsDraft,
    webhook: WebhookDraft,
    azure: AzureDraft,
    #[serde(default)]
    client: ClientDraft,
    tpm: TpmDraft,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsDraft {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    operator_ca: Option<PathBuf>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LogDraft {
    format: String,
    filter: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsDraft {
    connections_max: usize,
    address_connections_max: usize,
    handshake_timeout: Span,
    keepalive_every: Span,
    calls_per_connection_max: u32,
    registrations_max: usize,
    peer_refusals_per_minute: u32,
    peer_challenges_per_minute: u32,
    device_challenges_per_minute: u32,
    device_queue_max: usize,
    store_queue_max: usize,
    store_group_max: usize,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ActorsDraft {
    arbiters: usize,
    passivate_after: Span,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreDraft {
    cache_bytes: usize,
    accept_lost_keys: bool,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HubsDraft {
    initial: Vec<String>,
    cache_bytes: usize,
    sync_every: Span,
    away_after: Span,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookDraft {
    extra_ca: Option<PathBuf>,
    allow_loopback_http: bool,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AzureDraft {
    id_scope: String,
    host_name: String,
    policies: Option<PathBuf>,
    #[serde(default)]
    authorities: Vec<String>,
    https_listen: String,
    mqtt_listen: String,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientDraft {
    server: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TpmDraft {
    endorsement_handle: Option<String>,
    storage_root_handle: String,
    identity_handle: String,
    exchange_handle: String,
    owner_auth_file: Option<PathBuf>,
    endorsement_auth_file: Option<PathBuf>,
}

#[derive(Debug)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        read_span(&text).map(Span).ok_or_else(|| de::Error::custom(format!("{text:?} is not a span")))
    }
}

impl Draft {
    /// Turns texts into what they name and holds settings against each other.
    pub(super) fn validated(self) -> Result<Config, ConfigFault> {
        let listen = address("listen", &self.listen)?;
        let tls = self.tls.validated()?;
        let azure = self.azure.validated()?;
        let reachable = [
            ("listen", Some(listen)),
            ("azure.https_listen", azure.https_listen),
            ("azure.mqtt_listen", azure.mqtt_listen),
        ];
        let reachable =
            reachable.into_iter().find_map(|(key, at)| Some((key, at.filter(|at| !at.ip().is_loopback())?)));
        if let Some((key, address)) = reachable
            && tls == Tls::DevelopmentPki
            && !self.allow_development_pki_off_loopback
        {
            return Err(ConfigFault::Together(format!(
                "{key} is {address}, which others can reach, and the development PKI is for loopback: set tls.cert, \
                 tls.key and tls.operator_ca, or allow_development_pki_off_loopback = true"
            )));
        }
        Ok(Config {
            data_dir: folder("data_dir", self.data_dir)?,
            certs_dir: folder("certs_dir", self.certs_dir)?,
            listen,
            metrics_listen: metrics_address(&self.metrics_listen)?,
            shutdown_grace: self.shutdown_grace.0,
            tls,
            log: self.log.validated()?,
            limits: self.limits.into(),
            actors: Actors {
                arbiters: NonZeroUsize::new(self.actors.arbiters),
                passivate_after: self.actors.passivate_after.0,
            },
            store: Store { cache_bytes: self.store.cache_bytes, accept_lost_keys: self.store.accept_lost_keys },
            hubs: Hubs {
                initial: initial_hubs(&self.hubs.initial)?,
                cache_bytes: self.hubs.cache_bytes,
                sync_every: self.hubs.sync_every.0,
                away_after: self.hubs.away_after.0,
            },
            webhook: Webhook { extra_ca: self.webhook.extra_ca, allow_loopback_http: self.webhook.allow_loopback_http },
            azure,
            client: self.client.validated(listen)?,
            tpm: self.tpm.validated()?,
        })
    }
}

impl TlsDraft {
    fn validated(self) -> Result<Tls, ConfigFault> {
        match (self.cert, self.key, self.operator_ca) {
            (None, None, None) => Ok(Tls::DevelopmentPki),
            (Some(cert), Some(key), Some(operator_ca)) => Ok(Tls::Own { cert, key, operator_ca }),
            (_, _, _) => Err(ConfigFault::Together(
                "tls.cert, tls.key and tls.operator_ca go together: set all three or none".to_owned(),
            )),
        }
    }
}

impl LogDraft {
    fn validated(self) -> Result<Log, ConfigFault> {
        let format = match self.format.as_str() {
            "human" => LogFormat::Human,
            "json" => LogFormat::Json,
            other => {
                return Err(ConfigFault::Together(format!("log.format is neither human nor json: {other:?}")));
            }
        };
        Ok(Log { format, filter: self.filter })
    }
}

impl From<LimitsDraft> for Limits {
    fn from(draft: LimitsDraft) -> Self {
        Limits {
            connections_max: draft.connections_max,
            address_connections_max: draft.address_connections_max,
            handshake_timeout: draft.handshake_timeout.0,
            keepalive_every: draft.keepalive_every.0,
            calls_per_connection_max: draft.calls_per_connection_max,
            registrations_max: draft.registrations_max,
            peer_refusals_per_minute: draft.peer_refusals_per_minute,
            peer_challenges_per_minute: draft.peer_challenges_per_minute,
            device_challenges_per_minute: draft.device_challenges_per_minute,
            device_queue_max: draft.device_queue_max,
            store_queue_max: draft.store_queue_max,
            store_group_max: draft.store_group_max,
        }
    }
}

impl AzureDraft {
    fn validated(self) -> Result<Azure, ConfigFault> {
        let id_scope =
            self.id_scope.parse().map_err(|fault| ConfigFault::Together(format!("azure.id_scope: {fault}")))?;
        if !is_host_name(&self.host_name) {
            return Err(ConfigFault::Together(format!("azure.host_name is not a host name: {:?}", self.host_name)));
        }
        Ok(Azure {
            id_scope,
            host_name: self.host_name,
            policies: self.policies,
            authorities: authorities(&self.authorities)?,
            https_listen: optional_address("azure.https_listen", &self.https_listen)?,
            mqtt_listen: optional_address("azure.mqtt_listen", &self.mqtt_listen)?,
        })
    }
}

impl ClientDraft {
    fn validated(self, listen: SocketAddr) -> Result<Client, ConfigFault> {
        let identity = match (self.cert, self.key) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(ClientIdentity { cert, key }),
            (Some(_), None) | (None, Some(_)) => {
                return Err(ConfigFault::Together(
                    "client.cert and client.key go together: set both or none".to_owned(),
                ));
            }
        };
        let server = match self.server {
            Some(server) if server.len() > "https://".len() && server.starts_with("https://") => server,
            Some(other) => {
                return Err(ConfigFault::Together(format!("client.server is not https://host:port: {other:?}")));
            }
            None => format!("https://{}", reachable(listen)),
        };
        Ok(Client { server, ca: self.ca, identity })
    }
}

impl TpmDraft {
    fn validated(self) -> Result<Tpm, ConfigFault> {
        let endorsement = self.endorsement_handle.as_deref();
        let tpm = Tpm {
            endorsement_handle: endorsement.map(|text| handle("tpm.endorsement_handle", text)).transpose()?,
            storage_root_handle: handle("tpm.storage_root_handle", &self.storage_root_handle)?,
            identity_handle: handle("tpm.identity_handle", &self.identity_handle)?,
            exchange_handle: handle("tpm.exchange_handle", &self.exchange_handle)?,
            owner_auth_file: self.owner_auth_file,
            endorsement_auth_file: self.endorsement_auth_file,
        };
        let handles = [tpm.storage_root_handle, tpm.identity_handle, tpm.exchange_handle];
        let handles: Vec<u32> = handles.into_iter().chain(tpm.endorsement_handle).collect();
        if (1..handles.len()).any(|index| handles[..index].contains(&handles[index])) {
            return Err(ConfigFault::Together("the handles of tpm must differ from each other".to_owned()));
        }
        Ok(tpm)
    }
}

/// A persistent handle (TPM 2.0 part 2, section 7.4).
fn handle(key: &str, text: &str) -> Result<u32, ConfigFault> {
    text.strip_prefix("0x")
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .filter(|handle| handle >> 24 == 0x81)
        .ok_or_else(|| ConfigFault::Together(format!("{key} is not a persistent handle, as 0x81000100: {text:?}")))
}

/// Where a command on this machine finds a service that listens on `listen`.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(match listen {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigFault> {
    text.parse()
        .map_err(|_| ConfigFault::Together(format!("{key} is not an address with a port, as 127.0.0.1:7443: {text:?}")))
}

fn optional_address(key: &str, text: &str) -> Result<Option<SocketAddr>, ConfigFault> {
    if text == OFF { Ok(None) } else { address(key, text).map(Some) }
}

fn metrics_address(text: &str) -> Result<Option<SocketAddr>, ConfigFault> {
    let Some(address) = optional_address("metrics_listen", text)? else { return Ok(None) };
    if !address.ip().is_loopback() {
        return Err(ConfigFault::Together(format!(
            "metrics_listen is {address}: metrics are served without TLS and so on loopback only, or off"
        )));
    }
    Ok(Some(address))
}

fn folder(key: &str, path: PathBuf) -> Result<PathBuf, ConfigFault> {
    if path.as_os_str().is_empty() { Err(ConfigFault::Together(format!("{key} is empty"))) } else { Ok(path) }
}

fn initial_hubs(entries: &[String]) -> Result<Vec<InitialHub>, ConfigFault> {
    let refused = |problem: String| ConfigFault::Together(format!("hubs.initial {problem}"));
    let mut hubs: Vec<InitialHub> = Vec::new();
    for entry in entries {
        let Some((id, host_name)) = entry.split_once('=') else {
            return Err(refused(format!("holds {entry:?}, which is not id=host name")));
        };
        let id = HubId::parse(id.trim()).map_err(|fault| refused(format!("holds {entry:?}: {fault}")))?;
        let host_name = host_name.trim();
        if !is_host_name(host_name) {
            return Err(refused(format!("holds {entry:?}: {host_name:?} is not a host name")));
        }
        if hubs.iter().any(|hub| hub.id == id) {
            return Err(refused(format!("names {id} twice")));
        }
        hubs.push(InitialHub { id, host_name: host_name.to_owned() });
    }
    match hubs.len() {
        0 => Err(refused("is empty: at least one hub is needed".to_owned())),
        count if count > limits::HUBS_MAX => {
            Err(refused(format!("holds {count} hubs, the most is {}", limits::HUBS_MAX)))
        }
        _ => Ok(hubs),
    }
}

fn authorities(entries: &[String]) -> Result<Vec<NamedAuthority>, ConfigFault> {
    let refused = |problem: String| ConfigFault::Together(format!("azure.authorities {problem}"));
    let mut authorities: Vec<NamedAuthority> = Vec::new();
    for entry in entries {
        let parts = entry.split_once('=').map(|(name, file)| (name.trim(), file.trim()));
        let Some((name, file)) = parts.filter(|(name, file)| !name.is_empty() && !file.is_empty()) else {
            return Err(refused(format!("holds {entry:?}, which is not name=file")));
        };
        if authorities.iter().any(|known| known.name == name) {
            return Err(refused(format!("names {name} twice")));
        }
        authorities.push(NamedAuthority { name: name.to_owned(), file: file.into() });
    }
    Ok(authorities)
}

/// Labels of 1–63 letters, digits and inner hyphens, joined by dots (RFC 1123, section 2.1).
fn is_host_name(text: &str) -> bool {
    text.len() <= limits::HOST_NAME_CHARS_MAX
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
