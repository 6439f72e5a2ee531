//! `rehome register`: acts as a device, to try an enrollment out or to see what a device would be told.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;

use crate::domain::{ApiVersion, Geo, RegistrationId};

use super::api::device;
use super::context::Context;
use super::input::{self, Latency};
use super::value;
use super::view::device::UpdateView;

const HELP: &str = "Examples:
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key --latency hub-a=80 --latency hub-b=12
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key --api-version 2018-04-01

Every update is a line, the last one final; with --json each is a JSON object on a line of its own.
The exit code is 0 when the device is assigned.";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct Register {
    /// The registration id: the common name of --cert
    #[arg(long)]
    pub id: RegistrationId,
    /// The protocol version that the device was written for, as in 2019-03-31
    #[arg(long, value_name = "DATE")]
    pub api_version: Option<ApiVersion>,
    /// The device's SDK, as name/version
    #[arg(long, value_name = "NAME/VERSION")]
    pub sdk: Option<Sdk>,
    /// A JSON file that is handed to the allocation webhook
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// A latency that the device measured, as hub=milliseconds; repeat it for more
    #[arg(long = "latency", value_name = "HUB=MS")]
    pub latencies: Vec<Latency>,
    /// Where the device is, as in 52.52,13.40
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true)]
    pub location: Option<Geo>,
    /// The device's own id of this request: a factory reset runs once per id
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
}

/// An SDK's name and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdk {
    pub name: String,
    pub version: String,
}

impl std::str::FromStr for Sdk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('/') {
            Some((name, version)) if !name.is_empty() && !version.is_empty() => {
                Ok(Self { name: name.to_owned(), version: version.to_owned() })
            }
            Some(_) | None => Err(format!("{text:?} is not name/version, as in python/1.4.2")),
        }
    }
}

impl Register {
    fn request(&self) -> anyhow::Result<device::RegisterRequest> {
        let payload = self.payload.as_deref().map(input::json_file).transpose()?;
        let latency = |latency: &Latency| device::HubLatency {
            hub_id: latency.hub.to_string(),
            milliseconds: latency.milliseconds,
        };
        Ok(device::RegisterRequest {
            registration_id: self.id.to_string(),
            api_version: self.api_version.map(|version| version.to_string()).unwrap_or_default(),
            sdk: self.sdk.clone().map(|sdk| device::Sdk { name: sdk.name, version: sdk.version }),
            payload: payload.as_ref().map(value::wire_value),
            latencies: self.latencies.iter().map(latency).collect(),
            location: self.location.map(value::wire_place),
            request_id: self.request_id.clone(),
        })
    }

    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let request = self.request()?;
        let mut updates = context.device().await?.register(request).await?;
        let mut last = None;
        while let Some(answer) = updates.next().await {
            let update = answer?.update.unwrap_or_default();
            last = Some(update.status());
            let view = UpdateView::from(update);
            context.output.event(&view, &view.line())?;
        }
        match last {
            Some(device::RegistrationStatus::Assigned) => Ok(()),
            Some(device::RegistrationStatus::Failed) => bail!("the registration failed"),
            Some(device::RegistrationStatus::Disabled) => bail!("the enrollment is disabled"),
            Some(device::RegistrationStatus::Assigning | device::RegistrationStatus::Unspecified) | None => {
                bail!("the service ended the call before the registration did: register again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_request() {
        let register = Register {
            id: RegistrationId::parse("dev-1").unwrap(),
            api_version: Some("2018-04-01".parse().unwrap()),
            sdk: Some("python/1.4.2".parse().unwrap()),
            payload: None,
            latencies: vec!["hub-a=25".parse().unwrap()],
            location: Geo::new(1.0, 2.0),
            request_id: "r1".to_owned(),
        };
        let request = register.request().unwrap();
        assert_eq!((request.registration_id.as_str(), request.api_version.as_str()), ("dev-1", "2018-04-01"));
        assert_eq!(request.sdk, Some(device::Sdk { name: "python".to_owned(), version: "1.4.2".to_owned() }));
        assert_eq!(request.latencies, [device::HubLatency { hub_id: "hub-a".to_owned(), milliseconds: 25 }]);
        assert_eq!((request.request_id.as_str(), request.payload), ("r1", None));
        let missing = Register { payload: Some("/nowhere/x.json".into()), ..register };
        assert!(missing.request().is_err());
    }

    #[test]
    fn sdks_have_a_name_and_a_version() {
        for (text, fits) in [("c/1.2.8", true), ("a/b/1", true), ("c", false), ("/1", false), ("c/", false)] {
            assert_eq!(text.parse::<Sdk>().is_ok(), fits, "{text}");
        }
    }
}
