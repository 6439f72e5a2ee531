//! `rehome connection-string`: what the users of existing Azure SDKs paste.
//!
//! The keys of policies are read from the service's own files, so this runs where they are; where a hub or a device is, the
//! service is asked. A key is printed only when it is asked for.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::client::{HubRecord, Operator, RegistrationRecord, device_key};
use crate::compose::PolicyKeys;
use crate::config::{Config, Flags};
use crate::domain::{Credential, EnrollmentId, HubId, PolicyArea, RegistrationId, SharedAccessPolicy, TokenKey};

use super::advice::Advised;
use super::context::Context;
use super::keys;
use super::output::Shown;

const HELP: &str = "Examples:
  rehome connection-string service --reveal            for a provisioning service client
  rehome connection-string hub hub-a --reveal          for a registry or twin client of that hub
  rehome connection-string device dev-1                what the device's program is given

Keys are shown as **** unless --reveal is given. The policies and their keys are in policies.toml of the
service's data folder, which it makes on its first start with azure.https_listen.";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct ConnectionString {
    #[command(subcommand)]
    of: Of,
    /// Print the key itself
    #[arg(long, global = true)]
    reveal: bool,
    /// The configuration file of the service [default: rehome.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder of the service
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Subcommand)]
enum Of {
    /// The provisioning service, for its back ends
    Service(Policy),
    /// A hub, for its back ends
    Hub {
        id: HubId,
        #[command(flatten)]
        policy: Policy,
    },
    /// A device: where it registers, and the hub it lives at
    Device { id: RegistrationId },
}

#[derive(Debug, PartialEq, Args)]
struct Policy {
    /// The policy [default: the first that the file has]
    #[arg(long = "policy", value_name = "NAME")]
    name: Option<String>,
    /// Its secondary key
    #[arg(long)]
    secondary: bool,
}

/// What stands for a key that was not asked for.
const HIDDEN: &str = "****";

/// A back end's line.
#[derive(Debug, PartialEq, Serialize)]
struct PolicyView {
    host_name: String,
    policy: String,
    permissions: Vec<&'static str>,
    connection_string: String,
}

impl Shown for PolicyView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("host name", self.host_name.clone()),
            ("policy", self.policy.clone()),
            ("permissions", self.permissions.join(", ")),
            ("connection string", self.connection_string.clone()),
        ]
    }
}

/// What a device's program is given.
#[derive(Debug, PartialEq, Serialize)]
struct DeviceView {
    provisioning_host: String,
    id_scope: String,
    registration_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<String>,
    /// For a device that signs in with a certificate or a symmetric key.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_string: Option<String>,
}

impl Shown for DeviceView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            ("provisioning host", self.provisioning_host.clone()),
            ("id scope", self.id_scope.clone()),
            ("registration id", self.registration_id.clone()),
            ("device id", or_empty(&self.device_id)),
            ("hub", or_empty(&self.hub)),
            ("connection string", or_empty(&self.connection_string)),
        ]
    }
}

impl ConnectionString {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = self.settings(context)?;
        match &self.of {
            Of::Service(policy) => {
                let policies = PolicyKeys::read(&config)?;
                let (found, key) = policy.find(&policies, PolicyArea::Service)?;
                context.output.item(&self.view(&config.azure.host_name, found, &key))?;
            }
            Of::Hub { id, policy } => {
                let policies = PolicyKeys::read(&config)?;
                let (found, key) = policy.find(&policies, PolicyArea::Hub)?;
                let host_name = host_name(context, id).await?;
                context.output.item(&self.view(&host_name, found, &PolicyKeys::at_hub(&key, id)))?;
            }
            Of::Device { id } => {
                let operator = context.operator().await?;
                let record = operator.registration(id).await?;
                let hubs = operator.list_hubs().await?;
                let key = match record.assignment.as_ref().and_then(|home| home.credential.as_ref()) {
                    Some(Credential::Shared(_)) if self.reveal => Some(own_key(&operator, &record).await?),
                    Some(Credential::Shared(_) | Credential::X509 { .. } | Credential::Delivered(_)) | None => None,
                };
                context.output.item(&device(&config, &record, &hubs, key.as_ref()))?;
            }
        }
        Ok(())
    }

    /// The service's settings, where they are not those of the command.
    fn settings(&self, context: &Context) -> anyhow::Result<Config> {
        if self.config.is_none() && self.data_dir.is_none() {
            return Ok(context.config.clone());
        }
        let mut flags = Flags::default();
        flags.file.clone_from(&self.config);
        if let Some(folder) = &self.data_dir {
            flags = flags.set("data_dir", folder.display().to_string());
        }
        Config::load(&flags).context("the service's configuration cannot be read")
    }

    fn view(&self, host_name: &str, policy: &SharedAccessPolicy, key: &TokenKey) -> PolicyView {
        let key = if self.reveal { keys::text(key) } else { HIDDEN.to_owned() };
        PolicyView {
            host_name: host_name.to_owned(),
            policy: policy.name.to_string(),
            permissions: policy.permissions.iter().map(|permission| permission.as_str()).collect(),
            connection_string: format!(
                "HostName={host_name};SharedAccessKeyName={};SharedAccessKey={key}",
                policy.name
            ),
        }
    }
}

impl Policy {
    fn find<'k>(
        &self,
        policies: &'k PolicyKeys,
        area: PolicyArea,
    ) -> anyhow::Result<(&'k SharedAccessPolicy, TokenKey)> {
        let mut of_area = policies.of(area);
        let found = match &self.name {
            None => of_area.next(),
            Some(name) => of_area.find(|policy| policy.name.as_str() == name),
        };
        let found = found.ok_or_else(|| {
            let names: Vec<&str> = policies.of(area).map(|policy| policy.name.as_str()).collect();
            Advised::usage("there is no such policy", format!("there are: {}", names.join(", ")))
        })?;
        Ok((found, if self.secondary { found.keys.secondary.clone() } else { found.keys.primary.clone() }))
    }
}

async fn host_name(context: &Context, id: &HubId) -> anyhow::Result<String> {
    let hubs = context.operator().await?.list_hubs().await?;
    let found = hubs.into_iter().find(|hub| hub.draft.id == *id).and_then(|hub| hub.draft.host_name);
    Ok(found.ok_or_else(|| {
        Advised::usage(format!("no hub {id} is linked"), "see which there are with `rehome hub list`")
    })?)
}

/// The key that the device's group makes for it, or its own.
async fn own_key(operator: &Operator, record: &RegistrationRecord) -> anyhow::Result<TokenKey> {
    let primary = operator.enrollment_keys(&record.enrollment).await?.primary;
    Ok(match &record.enrollment {
        EnrollmentId::Individual(_) => primary,
        EnrollmentId::Group(_) => device_key(&primary, record.id.as_str()),
    })
}

fn device(config: &Config, record: &RegistrationRecord, hubs: &[HubRecord], key: Option<&TokenKey>) -> DeviceView {
    let home = record.assignment.as_ref().map(|home| &home.hub);
    let home = home.and_then(|home| hubs.iter().find(|hub| hub.draft.id == *home));
    let hub = home.and_then(|hub| hub.draft.host_name.clone());
    let device_id = record.device_id.to_string();
    let proof = match record.assignment.as_ref().and_then(|home| home.credential.as_ref()) {
        Some(Credential::X509 { .. }) => Some("x509=true".to_owned()),
        Some(Credential::Shared(_)) => Some(format!("SharedAccessKey={}", key.map_or(HIDDEN.to_owned(), keys::text))),
        // A key that came through a TPM cannot be pasted.
        Some(Credential::Delivered(_)) | None => None,
    };
    let connection_string =
        hub.as_ref().zip(proof).map(|(hub, proof)| format!("HostName={hub};DeviceId={device_id};{proof}"));
    DeviceView {
        provisioning_host: config.azure.host_name.clone(),
        id_scope: config.azure.id_scope.to_string(),
        registration_id: record.id.to_string(),
        device_id: Some(device_id),
        hub,
        connection_string,
    }
}
