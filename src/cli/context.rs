//! What every command shares: where the service is, who calls it, and where results go.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::ambient::{SystemClock, SystemEntropy};
use crate::client::{ClientFault, Device, Identity, Operator, Page, PageChoice, Target};
use crate::domain::{RegistrationId, limits};

use super::input;
use super::output::Output;

/// The address that `rehome serve` listens on by default.
const SERVER: &str = "https://127.0.0.1:7443";
/// The folder that `rehome serve` writes its development certificates to by default.
const CERTS: &str = "certs";

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

/// The folder's files, or the ones named in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Globals {
    pub fn server(&self) -> &str {
        self.server.as_deref().unwrap_or(SERVER)
    }

    pub fn certs(&self) -> PathBuf {
        self.certs.clone().unwrap_or_else(|| CERTS.into())
    }

    fn ca(&self) -> PathBuf {
        self.ca.clone().unwrap_or_else(|| self.certs().join("server-ca.pem"))
    }

    /// An operator's credentials.
    pub fn operator(&self) -> Credentials {
        let folder = self.certs();
        Credentials {
            ca: self.ca(),
            cert: self.cert.clone().unwrap_or_else(|| folder.join("operator.pem")),
            key: self.key.clone().unwrap_or_else(|| folder.join("operator.key")),
        }
    }

    /// A device's credentials, which have no default: calling with the operator's would only confuse.
    pub fn device(&self) -> anyhow::Result<Credentials> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Credentials { ca: self.ca(), cert: cert.clone(), key: key.clone() }),
            (None, _) | (_, None) => Err(super::advice::Advised::usage(
                "a device proves itself with its own certificate",
                "give --cert FILE and --key FILE; `rehome pki device` makes a pair",
            )
            .into()),
        }
    }
}

/// What a running command has at hand.
#[derive(Debug)]
pub struct Context {
    pub globals: Globals,
    pub output: Output,
    pub clock: SystemClock,
}

impl Context {
    pub fn new(globals: Globals) -> Self {
        Self { output: Output { json: globals.json }, globals, clock: SystemClock }
    }

    /// A connection as an operator.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        Ok(Operator::connect(&self.target(&self.globals.operator())?).await?)
    }

    /// A connection as a device.
    pub async fn device(&self, id: RegistrationId) -> anyhow::Result<Device> {
        let target = self.target(&self.globals.device()?)?;
        Ok(Device::connect(id, target, Arc::new(self.clock), Arc::new(SystemEntropy::new())).await?)
    }

    fn target(&self, credentials: &Credentials) -> anyhow::Result<Target> {
        let read = |path: &PathBuf| {
            input::file_bytes(path).context(
                "a certificate is missing: name the folder that `rehome serve` wrote with --certs DIR, or the files themselves",
            )
        };
        Ok(Target {
            address: self.globals.server().to_owned(),
            server_name: None,
            roots_pem: read(&credentials.ca)?,
            identity: Some(Identity::from_pem(read(&credentials.cert)?, read(&credentials.key)?)),
        })
    }
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

    #[test]
    fn credentials_come_from_the_folder_unless_named() {
        let folder = Globals { certs: Some("pki".into()), ..Globals::default() };
        let named = Globals { cert: Some("me.pem".into()), key: Some("me.key".into()), ..folder.clone() };
        assert_eq!(
            folder.operator(),
            Credentials {
                ca: "pki/server-ca.pem".into(),
                cert: "pki/operator.pem".into(),
                key: "pki/operator.key".into()
            }
        );
        assert_eq!(named.operator().cert, PathBuf::from("me.pem"));
        assert_eq!(named.device().unwrap(), named.operator());
        assert!(folder.device().is_err(), "a device does not call as the operator");
        assert_eq!(Globals::default().operator().ca, PathBuf::from("certs/server-ca.pem"));
        assert_eq!(Globals::default().server(), SERVER);
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
