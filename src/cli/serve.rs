//! `rehome serve`: flags laid over the configuration, then the service until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::compose::{self, Running};
use crate::config::{Config, Flags, Tls};

use super::context::Context;

const HELP: &str =
    "Without any option it makes its data folder, a development PKI in certs/, and two embedded hubs, and
listens on 127.0.0.1:7443. Everything else is set in rehome.toml, in REHOME_… variables, or with
--set KEY=VALUE; the README lists every key.

Examples:
  rehome serve
  rehome serve --listen 127.0.0.1:9443 --data-dir /var/lib/rehome --set log.format=json";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct Serve {
    /// The configuration file [default: rehome.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The folder of the store and of the embedded hubs
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The loopback address and port of /metrics, or off
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// Any setting; repeat it for more
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub settings: Vec<(String, String)>,
}

/// One setting as a flag gives it.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is not KEY=VALUE, as in log.format=json")),
    }
}

impl Serve {
    /// What the command line says, as the configuration's last layer.
    fn flags(&self, certs_dir: Option<&PathBuf>) -> Flags {
        let named = [
            ("listen", self.listen.clone()),
            ("data_dir", self.data_dir.clone()),
            ("metrics_listen", self.metrics_listen.clone()),
            ("certs_dir", certs_dir.map(|folder| folder.display().to_string())),
        ];
        let mut flags = Flags::default();
        flags.file.clone_from(&self.config);
        let flags = self.settings.iter().fold(flags, |flags, (key, value)| flags.set(key, value));
        named.into_iter().fold(flags, |flags, (key, value)| match value {
            Some(value) => flags.set(key, value),
            None => flags,
        })
    }

    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = Config::load(&self.flags(context.globals.certs.as_ref()))?;
        compose::start_logging(&config.log)?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?
            .block_on(serve(&config, context))
    }
}

async fn serve(config: &Config, context: &Context) -> anyhow::Result<()> {
    // Before anybody is told that it runs: who reads so may ask it to stop at once.
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let mut running = Running::start(config).await?;
    context.output.note(&welcome(&running, config))?;
    tokio::select! {
        () = signals.told_to_stop() => {}
        failed = running.failed() => return failed.context("the service stopped by itself"),
    }
    context.output.note("stopping: calls under way may finish, moves under way are journaled")?;
    running.stop().await.context("the service did not stop cleanly")
}

/// What a person does next.
fn welcome(running: &Running, config: &Config) -> String {
    let address = running.address();
    let mut lines = vec![format!("rehome listens on https://{address}")];
    if let Some(metrics) = running.metrics_address() {
        lines.push(format!("metrics are at http://{metrics}/metrics"));
    }
    if let Some(https) = running.https_address() {
        lines.push(format!("existing Azure SDKs are served at https://{https}"));
    }
    if let Some(mqtt) = running.mqtt_address() {
        lines.push(format!("their devices are served over MQTT at {mqtt}"));
    }
    if !running.hubs_made().is_empty() {
        lines.push(format!("linked, since the store is new: {}", running.hubs_made().join(", ")));
    }
    if running.taken_up() > 0 {
        lines.push(format!("{} devices had work left and go on", running.taken_up()));
    }
    match &config.tls {
        Tls::DevelopmentPki => {
            let certs = config.certs_dir.display();
            let at = options(config, address);
            lines.push(format!("its development certificates are in {certs}; try, in a second terminal:"));
            lines.extend([
                format!("  rehome hub list{at}"),
                format!("  rehome group create plant --certificate {certs}/device-ca.pem{at}"),
                format!("  rehome pki device dev-1{at}"),
                format!("  rehome register --id dev-1 --cert {certs}/dev-1.pem --key {certs}/dev-1.key{at}"),
                format!("  rehome device show dev-1{at}"),
            ]);
            if running.https_address().is_some() {
                lines.push(format!("  rehome connection-string service --data-dir {}", config.data_dir.display()));
            }
        }
        Tls::Own { .. } => lines.push("call it with a certificate of the operators' authority".to_owned()),
    }
    lines.join("\n")
}

/// What a command must be told to find this service: nothing where it is the default.
fn options(config: &Config, address: SocketAddr) -> String {
    let mut options = String::new();
    if Config::defaults().is_ok_and(|defaults| defaults.listen != address) {
        options.push_str(&format!(" --server https://{address}"));
    }
    if Config::defaults().is_ok_and(|defaults| defaults.certs_dir != config.certs_dir) {
        options.push_str(&format!(" --certs {}", config.certs_dir.display()));
    }
    options
}

/// SIGTERM and SIGINT, caught from the moment this exists.
struct Signals {
    terminated: Signal,
    interrupted: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminated: signal(SignalKind::terminate())?, interrupted: signal(SignalKind::interrupt())? })
    }

    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_the_last_layer_and_named_ones_win() {
        let serve = Serve {
            config: Some("a.toml".into()),
            listen: Some("127.0.0.1:1".to_owned()),
            data_dir: None,
            metrics_listen: Some("off".to_owned()),
            settings: vec![("log.format".to_owned(), "json".to_owned())],
        };
        let mut expected = Flags::default();
        expected.file = Some("a.toml".into());
        let expected = expected
            .set("log.format", "json")
            .set("listen", "127.0.0.1:1")
            .set("metrics_listen", "off")
            .set("certs_dir", "pki");
        assert_eq!(serve.flags(Some(&"pki".into())), expected);
    }

    #[test]
    fn settings_are_keys_and_values() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }
}
