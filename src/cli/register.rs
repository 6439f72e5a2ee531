//! `rehome register`: acts as a device, to try an enrollment out or to see what a device would be told.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::client::tpm::SecurityModule as _;
use crate::client::{ClientFault, Device, Patience, registration_id_of};
use crate::domain::{ApiVersion, ClientFacts, Geo, Latency, RegistrationId, SdkVersion};

use super::advice::Advised;
use super::context::Context;
use super::input;
use super::tpm::TpmFlags;
use super::view::update::UpdateView;

const HELP: &str = "Examples:
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key --latency hub-a=80 --latency hub-b=12
  rehome register --id dev-1 --cert dev-1.pem --key dev-1.key --api-version 2018-04-01
  rehome register --tpm /dev/tpmrm0
  rehome register --id lamp-1 --key-file lamp-1.key

Every update is a line, the last one final; with --json each is a JSON object on a line of its own.
The exit code is 0 when the device is assigned.";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct Register {
    /// The registration id: the common name of --cert [default with --tpm: made from the endorsement key]
    #[arg(long, required_unless_present = "tpm")]
    pub id: Option<RegistrationId>,
    #[command(flatten)]
    pub tpm: TpmFlags,
    /// A file with the device's symmetric key, in place of a certificate: base64 on one line
    #[arg(long, value_name = "FILE", conflicts_with = "tpm", requires = "id")]
    pub key_file: Option<PathBuf>,
    /// The protocol version that the device was written for, as in 2019-03-31
    #[arg(long, value_name = "DATE")]
    pub api_version: Option<ApiVersion>,
    /// The device's SDK, as name/version
    #[arg(long, value_name = "NAME/VERSION", value_parser = sdk)]
    pub sdk: Option<SdkVersion>,
    /// A JSON file that is handed to the allocation webhook
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// A latency that the device measured, as hub=milliseconds; repeat it for more
    #[arg(long = "latency", value_name = "HUB=MS", value_parser = input::latency)]
    pub latencies: Vec<Latency>,
    /// Where the device is, as in 52.52,13.40
    #[arg(long, value_name = "LAT,LON", allow_hyphen_values = true)]
    pub location: Option<Geo>,
    /// How often to try when it fails in a way that may pass
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
}

/// An SDK's name and version, as `python/1.4.2`.
fn sdk(text: &str) -> Result<SdkVersion, String> {
    match text.rsplit_once('/') {
        Some((name, version)) if !name.is_empty() && !version.is_empty() => {
            SdkVersion::parse(name, version).map_err(|fault| fault.to_string())
        }
        Some(_) | None => Err(format!("{text:?} is not name/version, as in python/1.4.2")),
    }
}

impl Register {
    fn facts(&self) -> anyhow::Result<ClientFacts> {
        Ok(ClientFacts {
            api_version: self.api_version,
            sdk: self.sdk.clone(),
            payload: self.payload.as_deref().map(input::json_file).transpose()?,
            latencies: self.latencies.clone(),
            location: self.location,
        })
    }

    /// The device, proven by its TPM, its symmetric key or its certificate.
    async fn device(&self, context: &Context) -> anyhow::Result<Device> {
        if let (Some(file), Some(id)) = (&self.key_file, &self.id) {
            let key = input::key_file(file)?;
            return Ok(context.anonymous_device(id.clone()).await?.by_key(key));
        }
        let Some(address) = self.tpm.tpm.clone() else {
            let id = self.id.clone().ok_or_else(|| Advised::usage("the device has no id", "give --id ID"))?;
            return context.device(id).await;
        };
        let tpm = self.tpm.open(address, context)?;
        let id = match self.id.clone() {
            Some(id) => id,
            None => registration_id_of(&tpm.keys().await?),
        };
        Ok(context.anonymous_device(id).await?.by_tpm(Arc::new(tpm)))
    }

    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let facts = self.facts()?;
        let device = self.device(context).await?;
        let mut printed = Ok(());
        let told = |update: &crate::client::RegistrationUpdate| {
            let view = UpdateView::from(update);
            let now = context.output.event(&view, &view.line());
            if printed.is_ok() {
                printed = now;
            }
        };
        let outcome: Result<_, ClientFault> = device.register(&facts, Patience::Tries(self.tries), told).await;
        outcome?;
        Ok(printed?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_facts() {
        let register = Register {
            id: Some(RegistrationId::parse("dev-1").unwrap()),
            tpm: TpmFlags::default(),
            key_file: None,
            api_version: Some("2018-04-01".parse().unwrap()),
            sdk: Some(sdk("python/1.4.2").unwrap()),
            payload: None,
            latencies: vec![input::latency("hub-a=25").unwrap()],
            location: Geo::new(1.0, 2.0),
            tries: 1,
        };
        let facts = register.facts().unwrap();
        assert_eq!(facts.sdk, Some(SdkVersion { name: "python".to_owned(), version: "1.4.2".to_owned() }));
        assert_eq!(facts.latencies.first().map(|latency| latency.milliseconds), Some(25));
        assert_eq!((facts.location, facts.payload), (Geo::new(1.0, 2.0), None));
        let missing = Register { payload: Some("/nowhere/x.json".into()), ..register };
        assert!(missing.facts().is_err());
    }

    #[test]
    fn sdks_have_a_name_and_a_version() {
        for (text, fits) in [("c/1.2.8", true), ("a/b/1", true), ("c", false), ("/1", false), ("c/", false)] {
            assert_eq!(sdk(text).is_ok(), fits, "{text}");
        }
    }
}
