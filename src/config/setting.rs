//! Every setting in one table: its key, what it may hold, its default and what it does.
//!
//! The README's table, the defaults, the names of environment variables and the list of known keys all come from here.

use std::time::Duration;

use figment::value::Value;

use super::span::{read_span, span_text};

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    Text,
    /// A whole number within bounds, both included.
    Number {
        min: u64,
        max: u64,
    },
    Switch,
    /// A span as `30s`, `5m` or `1h 30m`, within bounds.
    Span {
        min: Duration,
        max: Duration,
    },
    /// Texts: an array in TOML, separated by commas elsewhere.
    List,
}

/// A setting as the README lists it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// As in the file, with dots: `limits.connections_max`.
    pub key: &'static str,
    pub kind: SettingKind,
    /// As it would be written in the environment; empty is "not set".
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const HOUR: Duration = seconds(3600);

macro_rules! setting_table {
    ($($key:literal: $kind:expr, $default:literal, $meaning:literal;)+) => {
        /// Every setting, in the order of the README's table.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: $key, kind: $kind, default: $default, meaning: $meaning },)+
        ];
    };
}

use SettingKind::{List, Number, Span, Switch, Text};

setting_table! {
    "data_dir": Text, "rehome-data",
        "folder of the store and of the embedded hubs";
    "certs_dir": Text, "certs",
        "folder of the development PKI, written on first start unless `tls` names certificates";
    "listen": Text, "127.0.0.1:7443",
        "address and port of the gRPC endpoint";
    "metrics_listen": Text, "127.0.0.1:9464",
        "loopback address and port of `/metrics`, or `off`";
    "allow_development_pki_off_loopback": Switch, "false",
        "serve the development PKI on an address that others can reach";
    "shutdown_grace": Span { min: seconds(1), max: HOUR }, "20s",
        "how long calls in flight may take to end after SIGTERM";
    "tls.cert": Text, "",
        "PEM chain of the server, leaf first";
    "tls.key": Text, "",
        "PEM private key of the server";
    "tls.operator_ca": Text, "",
        "PEM authority whose certificates give operators their roles";
    "log.format": Text, "human",
        "`human` or `json`";
    "log.filter": Text, "info",
        "a level, or a list as `info,rehome::actors=debug`";
    "limits.connections_max": Number { min: 1, max: 1_000_000 }, "10000",
        "open TLS connections";
    "limits.address_connections_max": Number { min: 1, max: 1_000_000 }, "5000",
        "open TLS connections from one address";
    "limits.handshake_timeout": Span { min: Duration::from_millis(100), max: seconds(300) }, "10s",
        "one TLS handshake";
    "limits.keepalive_every": Span { min: seconds(1), max: seconds(24 * 3600) }, "5m",
        "how often a quiet connection is asked whether it is still there";
    "limits.calls_per_connection_max": Number { min: 1, max: 10_000 }, "100",
        "calls under way on one connection";
    "limits.registrations_max": Number { min: 1, max: 1_000_000 }, "4096",
        "registrations worked on at once; beyond it devices are told when to come back";
    "limits.peer_refusals_per_minute": Number { min: 1, max: 1_000_000 }, "300",
        "refused registrations of one address; more are turned away unread";
    "limits.peer_challenges_per_minute": Number { min: 1, max: 1_000_000 }, "1200",
        "TPM challenges for one address; more are turned away unread";
    "limits.device_challenges_per_minute": Number { min: 1, max: 1_000_000 }, "20",
        "TPM challenges for one device at one address";
    "limits.device_queue_max": Number { min: 1, max: 10_000 }, "16",
        "messages waiting for one device's actor";
    "limits.store_queue_max": Number { min: 1, max: 1_000_000 }, "1024",
        "commits waiting for the store";
    "limits.store_group_max": Number { min: 1, max: 10_000 }, "256",
        "commits that share one fsync";
    "actors.arbiters": Number { min: 0, max: 256 }, "0",
        "threads for actors; 0 is one for each core";
    "actors.passivate_after": Span { min: seconds(1), max: seconds(7 * 24 * 3600) }, "1m",
        "a device's actor leaves memory when idle for this long";
    "store.cache_bytes": Number { min: 1 << 20, max: 1 << 40 }, "268435456",
        "page cache of the service's store";
    "store.accept_lost_keys": Switch, "false",
        "start although `secrets.key` does not open the enrolled symmetric keys";
    "hubs.initial": List, "hub-a=hub-a.localhost, hub-b=hub-b.localhost",
        "embedded hubs linked on first start, as `id=host name`";
    "hubs.cache_bytes": Number { min: 1 << 20, max: 1 << 40 }, "67108864",
        "page cache of each embedded hub";
    "hubs.sync_every": Span { min: seconds(1), max: seconds(24 * 3600) }, "1m",
        "how often the newest twins of each hub are read, for when it is away or restored";
    "hubs.away_after": Span { min: seconds(1), max: seconds(24 * 3600) }, "30s",
        "how long a hub may not answer a move before the rules `last_known` and `reset` pass it by";
    "webhook.extra_ca": Text, "",
        "PEM authority trusted for allocation webhooks beside the system's";
    "webhook.allow_loopback_http": Switch, "false",
        "let webhooks on loopback be plain http, for trying them out";
    "azure.id_scope": Text, "0ne00REHOME",
        "id scope by which devices with existing Azure SDKs name this service";
    "azure.host_name": Text, "localhost",
        "host name by which existing Azure SDKs call this service; tokens of back ends are for it";
    "azure.https_listen": Text, "off",
        "address and port of the HTTPS edge for existing Azure SDKs, which call port 443; or `off`";
    "azure.mqtt_listen": Text, "off",
        "address and port of the MQTT edge for existing Azure SDKs, which call port 8883; or `off`";
    "azure.policies": Text, "",
        "TOML file of the shared access policies of back ends with existing Azure SDKs; absent: `policies.toml` in the data folder, made when it is not there";
    "azure.authorities": List, "",
        "PEM authorities that enrollment groups may refer to by a name, as `name=file`";
    "client.server": Text, "",
        "address that the commands call; absent: the one of `listen`";
    "client.ca": Text, "",
        "PEM authority of the server; absent: the development PKI's";
    "client.cert": Text, "",
        "PEM certificate that the commands present; absent: the development operator's";
    "client.key": Text, "",
        "PEM private key of `client.cert`";
    "tpm.endorsement_handle": Text, "",
        "persistent handle of a device's endorsement key; absent: the usual one of its kind";
    "tpm.storage_root_handle": Text, "0x81000001",
        "persistent handle of a device's storage root key";
    "tpm.identity_handle": Text, "0x81000100",
        "persistent handle of the key that a hub gave a device";
    "tpm.exchange_handle": Text, "0x81000101",
        "persistent handle that is free but for the moment in which the identity key is replaced";
    "tpm.owner_auth_file": Text, "",
        "file with the password of the TPM's owner hierarchy, where it has one";
    "tpm.endorsement_auth_file": Text, "",
        "file with the password of the TPM's endorsement hierarchy, where it has one";
}

impl Setting {
    pub fn find(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The environment variable of the setting: `REHOME_LIMITS_CONNECTIONS_MAX`.
    pub fn variable(&self) -> String {
        format!("{}{}", super::VARIABLE_PREFIX, self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Reads the text of a variable or a flag. The error is the rest of a sentence: "is not …".
    pub(super) fn read_text(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            SettingKind::Text | SettingKind::Span { .. } => Value::from(text),
            SettingKind::Number { .. } => {
                let number = text.trim().replace('_', "").parse::<u64>();
                Value::from(number.map_err(|_| format!("is not {}: {text:?}", self.expected()))?)
            }
            SettingKind::Switch => {
                let switch = text.trim().parse::<bool>();
                Value::from(switch.map_err(|_| format!("is not {}: {text:?}", self.expected()))?)
            }
            SettingKind::List => {
                let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                Value::from(items)
            }
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Holds a value against the setting's kind and bounds. The error is the rest of a sentence.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let refused = |shown: String| Err(format!("is not {}: {shown}", self.expected()));
        match self.kind {
            SettingKind::Text => match value.as_str() {
                Some(_) => Ok(()),
                None => refused(shown(value)),
            },
            SettingKind::Number { min, max } => {
                match value.to_i128().or_else(|| value.to_u128().and_then(|n| i128::try_from(n).ok())) {
                    Some(number) if (i128::from(min)..=i128::from(max)).contains(&number) => Ok(()),
                    Some(_) | None => refused(shown(value)),
                }
            }
            SettingKind::Switch => match value.to_bool() {
                Some(_) => Ok(()),
                None => refused(shown(value)),
            },
            SettingKind::Span { min, max } => match value.as_str().and_then(read_span) {
                Some(span) if (min..=max).contains(&span) => Ok(()),
                Some(_) | None => refused(shown(value)),
            },
            SettingKind::List => match value.as_array() {
                Some(items) if items.iter().all(|item| item.as_str().is_some()) => Ok(()),
                Some(_) | None => refused(shown(value)),
            },
        }
    }

    fn expected(&self) -> String {
        match self.kind {
            SettingKind::Text => "a text".to_owned(),
            SettingKind::Number { min, max } => format!("a whole number from {min} to {max}"),
            SettingKind::Switch => "true or false".to_owned(),
            SettingKind::Span { min, max } => {
                format!("a span as \"30s\" or \"1h 30m\", from {} to {}", span_text(min), span_text(max))
            }
            SettingKind::List => "a list of texts".to_owned(),
        }
    }
}

/// A value as a person would write it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, character) => format!("{character:?}"),
        Value::Bool(_, switch) => switch.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(fraction)) => fraction.to_string(),
            (None, None) => number.to_u128().map_or_else(|| "a number".to_owned(), |whole| whole.to_string()),
        },
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "an array".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_fits_its_own_setting() {
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            assert!(setting.read_text(setting.default).is_ok(), "{}", setting.key);
        }
    }

    #[test]
    fn keys_and_variables_are_unique() {
        let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        let variables: BTreeSet<String> = SETTINGS.iter().map(Setting::variable).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
        assert!(variables.contains("REHOME_LIMITS_CONNECTIONS_MAX"));
    }
}
