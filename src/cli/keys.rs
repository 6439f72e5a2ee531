//! Symmetric keys: shown to operators, and made for the devices of a group.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::client::device_key;
use crate::domain::{EnrollmentId, GroupId, RegistrationId, TokenKey};

use super::context::Context;
use super::input;
use super::output::Shown;

const DERIVE_HELP: &str = "Examples:
  rehome derive-key dev-1 --key-file plant.key
  rehome derive-key dev-1 --group plant > dev-1.key

The key is HMAC-SHA256 of the registration id, in the casing given, under the group's key. Give it to
the device and keep the group's key from it: whoever has that can be any device of the group. With
--group the service is asked for the group's primary key, which needs the role operator.";

/// The keys of an enrollment, base64. Without `Debug`: they are shown where they are asked for.
#[derive(Clone, PartialEq, Eq, Serialize)]
struct KeysView {
    primary_key: String,
    secondary_key: String,
}

impl Shown for KeysView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![("primary key", self.primary_key.clone()), ("secondary key", self.secondary_key.clone())]
    }
}

/// Shows the keys of an enrollment, which stands in the audit log then.
pub async fn show(id: EnrollmentId, context: &Context) -> anyhow::Result<()> {
    let keys = context.operator().await?.enrollment_keys(&id).await?;
    let view = KeysView { primary_key: text(&keys.primary), secondary_key: text(&keys.secondary) };
    Ok(context.output.item(&view)?)
}

/// A key as files hold it.
pub fn text(key: &TokenKey) -> String {
    data_encoding::BASE64.encode(key.secret())
}

#[derive(Debug, PartialEq, Args)]
#[command(after_help = DERIVE_HELP)]
pub struct DeriveKey {
    /// The device's registration id
    pub id: RegistrationId,
    /// A file with the group's key: base64 on one line
    #[arg(long, value_name = "FILE", required_unless_present = "group", conflicts_with = "group")]
    pub key_file: Option<PathBuf>,
    /// The group, in place of its key
    #[arg(long, value_name = "ID")]
    pub group: Option<GroupId>,
}

/// A device's key. As above.
#[derive(Clone, PartialEq, Eq, Serialize)]
struct DeviceKeyView {
    registration_id: String,
    device_key: String,
}

impl DeriveKey {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let master = match (&self.key_file, self.group.clone()) {
            (Some(file), _) => input::key_file(file)?,
            (None, Some(group)) => {
                let group = EnrollmentId::Group(group);
                context.operator().await?.enrollment_keys(&group).await?.primary
            }
            (None, None) => anyhow::bail!("there is no key to derive from: give --key-file or --group"),
        };
        let view = DeviceKeyView {
            registration_id: self.id.to_string(),
            device_key: text(&device_key(&master, self.id.as_str())),
        };
        Ok(context.output.event(&view, &view.device_key)?)
    }
}
