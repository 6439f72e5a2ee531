//! What the service is told before it starts: defaults, then a TOML file, then `REHOME_…` variables, then flags.
//!
//! The only reader of the environment. Every setting has a default, an unknown key is an error, and a [`Config`] that
//! exists is valid: whoever takes one checks nothing again.

mod draft;
mod fault;
mod layers;
mod policies;
mod setting;
mod span;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use fault::ConfigFault;
pub use policies::{PoliciesFault, made_policies, read_policies};
pub use setting::{SETTINGS, Setting, SettingKind};

use crate::domain::{HubId, IdScope};
use draft::Draft;
use layers::Layer;

const VARIABLE_PREFIX: &str = "REHOME_";
/// Names the configuration file; so it is not a setting in it.
const FILE_VARIABLE: &str = "REHOME_CONFIG";
/// Taken when it exists and no other is named.
const FILE_DEFAULT: &str = "rehome.toml";
/// Read by the tests of this package and nothing else: a test that starts the service passes its environment on.
const VARIABLES_OF_TESTS: &[&str] = &[
    "REHOME_REQUIRE_SWTPM",
    "REHOME_KILLS",
    "REHOME_DISK_STRIDE",
    "REHOME_FUZZ_SECONDS",
    "REHOME_FUZZ_SEED",
    "REHOME_MODEL_DEEP",
];
const VARIABLES_OF_TESTS_PREFIX: &str = "REHOME_SIM_";

/// The whole configuration, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub certs_dir: PathBuf,
    pub listen: SocketAddr,
    /// `None` is off.
    pub metrics_listen: Option<SocketAddr>,
    pub shutdown_grace: Duration,
    pub tls: Tls,
    pub log: Log,
    pub limits: Limits,
    pub actors: Actors,
    pub store: Store,
    pub hubs: Hubs,
    pub webhook: Webhook,
    pub azure: Azure,
    pub client: Client,
    pub tpm: Tpm,
}

/// Where the server's certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Made on first start, in `certs_dir`. Serving it off loopback was allowed by the operator if it happens.
    DevelopmentPki,
    /// The operator's own.
    Own { cert: PathBuf, key: PathBuf, operator_ca: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

/// The bounds that an operator may move; the others are constants in `domain::limits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub connections_max: usize,
    pub address_connections_max: usize,
    pub handshake_timeout: Duration,
    pub keepalive_every: Duration,
    pub calls_per_connection_max: u32,
    pub registrations_max: usize,
    pub peer_refusals_per_minute: u32,
    pub peer_challenges_per_minute: u32,
    pub device_challenges_per_minute: u32,
    pub device_queue_max: usize,
    pub store_queue_max: usize,
    pub store_group_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actors {
    /// `None` is one for each core.
    pub arbiters: Option<NonZeroUsize>,
    pub passivate_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub cache_bytes: usize,
    /// Start although enrolled symmetric keys cannot be opened.
    pub accept_lost_keys: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hubs {
    /// At least one; ids differ.
    pub initial: Vec<InitialHub>,
    pub cache_bytes: usize,
    /// How often the change feed of each hub is read.
    pub sync_every: Duration,
    /// How long a hub may not answer before the rules `last_known` and `reset` pass it by.
    pub away_after: Duration,
}

/// An embedded hub that is linked when the store is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialHub {
    pub id: HubId,
    pub host_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub extra_ca: Option<PathBuf>,
    pub allow_loopback_http: bool,
}

/// The edges for existing Azure SDKs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Azure {
    pub id_scope: IdScope,
    /// What back ends call this service by.
    pub host_name: String,
    /// `None`: a file of the data folder.
    pub policies: Option<PathBuf>,
    /// What groups may refer to by name; names differ.
    pub authorities: Vec<NamedAuthority>,
    /// `None` is off.
    pub https_listen: Option<SocketAddr>,
    /// `None` is off.
    pub mqtt_listen: Option<SocketAddr>,
}

/// An authority that lies in a file and has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedAuthority {
    pub name: String,
    pub file: PathBuf,
}

/// What the commands that call a service use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// `https://host:port`.
    pub server: String,
    /// `None`: the development PKI's, in `certs_dir`.
    pub ca: Option<PathBuf>,
    pub identity: Option<ClientIdentity>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Where a device's keys are in its TPM, and the files with the passwords that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tpm {
    pub endorsement_handle: Option<u32>,
    pub storage_root_handle: u32,
    pub identity_handle: u32,
    pub exchange_handle: u32,
    pub owner_auth_file: Option<PathBuf>,
    pub endorsement_auth_file: Option<PathBuf>,
}

/// What the command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// The configuration file to take.
    pub file: Option<PathBuf>,
    values: Vec<(String, String)>,
}

impl Flags {
    /// Sets a setting by its key, as `limits.connections_max`; the text is read as in the environment.
    pub fn set(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.values.push((key.into(), text.into()));
        self
    }
}

impl Config {
    /// Reads file and environment and lays the flags on top.
    pub fn load(flags: &Flags) -> Result<Self, ConfigFault> {
        let mut variables = our_variables()?;
        let named = variables.remove(FILE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = match flags.file.clone().or(named) {
            Some(file) => Some(read(file)?),
            None if PathBuf::from(FILE_DEFAULT).exists() => Some(read(FILE_DEFAULT.into())?),
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        Self::from_layers(file, &variables, &flags.values)
    }

    /// The configuration of `rehome serve` without file, environment and flags.
    pub fn defaults() -> Result<Self, ConfigFault> {
        Self::from_layers(None, &BTreeMap::new(), &[])
    }

    /// A file's text alone.
    #[cfg(feature = "testing")]
    pub fn of_text(text: &str) -> Result<Self, ConfigFault> {
        Self::from_layers(Some(("a file", text)), &BTreeMap::new(), &[])
    }

    fn from_layers(
        file: Option<(&str, &str)>,
        variables: &BTreeMap<String, String>,
        flags: &[(String, String)],
    ) -> Result<Self, ConfigFault> {
        let mut all = vec![Layer::defaults()?];
        if let Some((name, text)) = file {
            all.push(Layer::file(name, text)?);
        }
        all.push(Layer::environment(variables)?);
        all.push(Layer::flags(flags)?);
        let draft: Draft = layers::merged(all).extract().map_err(|error| ConfigFault::Table(error.to_string()))?;
        draft.validated()
    }
}

/// The file of the running program, to start it once more.
pub fn executable() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Where the system keeps what nobody needs for long.
pub fn temporary_folder() -> PathBuf {
    std::env::temp_dir()
}

/// The variables that are ours; others may hold anything.
fn our_variables() -> Result<BTreeMap<String, String>, ConfigFault> {
    std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text)))
        .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX))
        .map(|(name, text)| match text.into_string() {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(ConfigFault::NotText { name }),
        })
        .collect()
}

fn read(file: PathBuf) -> Result<(String, String), ConfigFault> {
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(error) => Err(ConfigFault::Unreadable { file, error }),
    }
}

#[cfg(test)]
mod tests;
