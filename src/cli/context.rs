//! What every command shares: where the service is, who calls it, and where results go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::ambient::{SystemClock, SystemEntropy};
use crate::client::{ClientFault, Device, Identity, Operator, Page, PageChoice, Target};
use crate::config::{Config, Flags};
use crate::domain::{RegistrationId, limits};

use super::advice::Advised;
use super::input;
use super::output::Output;

/// The options that every command takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Globals {
    /// The service to call [default: https://127.0.0.1:7443]
    #[arg(long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// The folder with server-ca.pem, operator.pem and operator.key, as `rehome serve` writes it [default: certs]
    #[arg(long, global = true, value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// The certificate to call with (PEM, leaf first), in place of the folder's operator.pem
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Whom to believe that it is the service (PEM), in place of the folder's server-ca.pem
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON for programs in place of tables for people
    #[arg(long, global = true)]
    pub json: bool,
}

impl Globals {
    /// The options as the configuration's last layer.
    fn flags(&self) -> Flags {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let named = [
            ("client.server", self.server.clone()),
            ("certs_dir", path(&self.certs)),
            ("client.cert", path(&self.cert)),
            ("client.key", path(&self.key)),
            ("client.ca", path(&self.ca)),
        ];
        named
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .fold(Flags::default(), |flags, (key, value)| flags.set(key, value))
    }
}

/// The files that a caller proves itself with, and by which it knows the service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credentials {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// What a running command has at hand.
#[derive(Debug)]
pub struct Context {
    pub globals: Globals,
    pub output: Output,
    pub clock: SystemClock,
    pub config: Config,
}

impl Context {
    /// Lays the options over file and environment.
    pub fn load(globals: Globals) -> anyhow::Result<Self> {
        let config = Config::load(&globals.flags())?;
        Ok(Self::of(globals, config))
    }

    fn of(globals: Globals, config: Config) -> Self {
        let output = Output { json: globals.json };
        Self { globals, output, clock: SystemClock, config }
    }

    fn ca(&self) -> PathBuf {
        self.config.client.ca.clone().unwrap_or_else(|| self.config.certs_dir.join("server-ca.pem"))
    }

    /// An operator's credentials: the folder's, or the ones named in their place.
    fn operator_credentials(&self) -> Credentials {
        match &self.config.client.identity {
            Some(identity) => Credentials { ca: self.ca(), cert: identity.cert.clone(), key: identity.key.clone() },
            None => Credentials {
                ca: self.ca(),
                cert: self.config.certs_dir.join("operator.pem"),
                key: self.config.certs_dir.join("operator.key"),
            },
        }
    }

    /// A device's credentials, which have no default: calling with the operator's would only confuse.
    fn device_credentials(&self) -> anyhow::Result<Credentials> {
        match (&self.globals.cert, &self.globals.key) {
            (Some(cert), Some(key)) => Ok(Credentials { ca: self.ca(), cert: cert.clone(), key: key.clone() }),
            (None, _) | (_, None) => Err(Advised::usage(
                "a device proves itself with its own certificate",
                "give --cert FILE and --key FILE; `rehome pki device` makes a pair",
            )
            .into()),
        }
    }

    /// Where the service is, and an operator's credentials.
    pub fn operator_target(&self) -> anyhow::Result<Target> {
        self.target(&self.operator_credentials())
    }

    /// A connection as an operator.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        Ok(Operator::connect(&self.operator_target()?).await?)
    }

    /// A connection as a device.
    pub async fn device(&self, id: RegistrationId) -> anyhow::Result<Device> {
        let target = self.target(&self.device_credentials()?)?;
        Ok(Device::connect(id, target, Arc::new(self.clock), Arc::new(SystemEntropy::new())).await?)
    }

    /// A connection as a device that proves itself otherwise than by a certificate.
    pub async fn anonymous_device(&self, id: RegistrationId) -> anyhow::Result<Device> {
        let target = self.anonymous_target(&self.ca())?;
        Ok(Device::connect(id, target, Arc::new(self.clock), Arc::new(SystemEntropy::new())).await?)
    }

    fn target(&self, credentials: &Credentials) -> anyhow::Result<Target> {
        let target = self.anonymous_target(&credentials.ca)?;
        let identity = Identity::from_pem(credential_bytes(&credentials.cert)?, credential_bytes(&credentials.key)?);
        Ok(Target { identity: Some(identity), ..target })
    }

    fn anonymous_target(&self, ca: &Path) -> anyhow::Result<Target> {
        let address = self.config.client.server.clone();
        Ok(Target { address, server_name: None, roots_pem: credential_bytes(ca)?, identity: None })
    }
}

fn credential_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    input::file_bytes(path).context(
        "a certificate is missing: name the folder that `rehome serve` wrote with --certs DIR, or the files themselves",
    )
}

/// How many rows a listing shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct Limit {
    /// Show at most so many [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// Fetches page after page until the listing or the limit ends; says whether more would follow.
pub async fn pages<T>(
    limit: Option<u32>,
    mut fetch: impl AsyncFnMut(PageChoice) -> Result<Page<T>, ClientFault>,
) -> anyhow::Result<(Vec<T>, bool)> {
    let wanted = limit.map_or(usize::MAX, |limit| limit as usize);
    let (mut rows, mut token) = (Vec::new(), None);
    loop {
        let left = u32::try_from(wanted - rows.len()).unwrap_or(u32::MAX);
        let page = fetch(PageChoice { size: left.min(limits::PAGE_SIZE_MAX), token: token.clone() }).await?;
        rows.extend(page.rows);
        let is_cut = rows.len() > wanted;
        rows.truncate(wanted);
        if page.next.is_none() {
            return Ok((rows, is_cut));
        }
        if rows.len() == wanted {
            return Ok((rows, true));
        }
        if page.next == token {
            bail!("the service repeats a page of the listing: its answer cannot be trusted");
        }
        token = page.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn credentials_come_from_the_folder_unless_named() {
        let context = |config: Config| Context::of(Globals::default(), config);
        let defaults = Config::defaults().unwrap();
        let credentials =
            |ca: &str, cert: &str, key: &str| Credentials { ca: ca.into(), cert: cert.into(), key: key.into() };
        let folder = Config { certs_dir: "pki".into(), ..defaults.clone() };
        assert_eq!(
            context(folder.clone()).operator_credentials(),
            credentials("pki/server-ca.pem", "pki/operator.pem", "pki/operator.key")
        );
        let identity = Some(config::ClientIdentity { cert: "me.pem".into(), key: "me.key".into() });
        let named = Config { client: config::Client { identity, ..defaults.client.clone() }, ..folder };
        assert_eq!(context(named).operator_credentials(), credentials("pki/server-ca.pem", "me.pem", "me.key"));
        assert_eq!(context(defaults.clone()).config.client.server, "https://127.0.0.1:7443");

        assert!(context(defaults.clone()).device_credentials().is_err(), "a device does not call as the operator");
        let globals = Globals { cert: Some("d.pem".into()), key: Some("d.key".into()), ..Globals::default() };
        let device = Context::of(globals, defaults).device_credentials().unwrap();
        assert_eq!(device, credentials("certs/server-ca.pem", "d.pem", "d.key"));
    }

    #[test]
    fn options_are_a_layer_of_the_configuration() {
        let globals = Globals {
            server: Some("https://x:1".to_owned()),
            certs: Some("pki".into()),
            ca: Some("ca.pem".into()),
            ..Globals::default()
        };
        let expected =
            Flags::default().set("client.server", "https://x:1").set("certs_dir", "pki").set("client.ca", "ca.pem");
        assert_eq!(globals.flags(), expected);
    }

    /// Serves the numbers 0 to 24 in pages of at most ten.
    async fn served(page: PageChoice) -> Result<Page<u32>, ClientFault> {
        let first: u32 = page.token.map_or(0, |token| token.parse().unwrap());
        let end = (first + page.size.min(10)).min(25);
        Ok(Page { rows: (first..end).collect(), next: (end < 25).then(|| end.to_string()) })
    }

    #[tokio::test]
    async fn pages_are_fetched_until_the_limit() {
        for (limit, count, more) in [
            (None, 25, false),
            (Some(25), 25, false),
            (Some(100), 25, false),
            (Some(10), 10, true),
            (Some(13), 13, true),
        ] {
            let (rows, cut) = pages(limit, served).await.unwrap();
            assert_eq!((rows.len(), cut), (count, more), "{limit:?}");
            assert!(rows.iter().zip(0..).all(|(row, index)| *row == index));
        }
    }

    #[tokio::test]
    async fn a_listing_that_goes_in_circles_ends() {
        let circling = async |_: PageChoice| Ok(Page { rows: vec![1], next: Some("same".to_owned()) });
        assert!(pages(None, circling).await.is_err());
    }
}
