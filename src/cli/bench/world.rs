//! The server under load: one of the bench's own, or one that runs already.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cli::context::Context;
use crate::client::{Identity, Operator, Server, Target};
use crate::domain::HubState;
use crate::pki::DevelopmentPaths;

use super::child::{OwnServer, Setting};
use super::devices::Hubs;
use super::meter::Meter;

/// See the module's documentation.
#[derive(Debug)]
pub struct World {
    pub operator: Operator,
    pub server: Server,
    pub hubs: Hubs,
    pub meter: Meter,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    setting: Setting,
    /// Absent while it is started again.
    running: Option<OwnServer>,
}

impl World {
    /// Starts a server in a folder, where one may have run before.
    pub async fn start(folder: PathBuf, settings: Vec<(String, String)>) -> anyhow::Result<(Self, Duration)> {
        let mut own = Own { setting: Setting { folder, settings, listen: None }, running: None };
        let took = own.start().await?;
        let running = own.running.as_ref().context("the server did not start")?;
        // When it is started again it is to be found where it was.
        own.setting.listen = Some(running.address);
        let meter = running.meter();
        let target = target(running.address, &OwnServer::certs(&own.setting.folder))?;
        Ok((Self::of(target, meter, Some(own)).await?, took))
    }

    /// A server that runs. What it uses up is known as far as its process and its metrics are named.
    pub async fn running(context: &Context, meter: Meter) -> anyhow::Result<Self> {
        Self::of(context.operator_target()?, meter, None).await
    }

    async fn of(target: Target, meter: Meter, own: Option<Own>) -> anyhow::Result<Self> {
        let operator = Operator::connect(&target).await?;
        let server = Server::find(&target.address, &target.roots_pem).await?;
        let linked = operator.list_hubs().await?;
        let mut open = linked
            .into_iter()
            .filter(|hub| hub.state == HubState::Active && hub.usage.reachable && !hub.taken_down)
            .map(|hub| hub.draft.id);
        let (Some(first), Some(second)) = (open.next(), open.next()) else {
            bail!("devices move between two hubs: the server needs two that are active and reachable");
        };
        Ok(Self { operator, server, hubs: Hubs { first, second }, meter, own })
    }

    /// Kills the bench's own server and starts it again on what it left; how long that took until it served.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        let Some(own) = &mut self.own else { bail!("only a server of the bench's own is killed") };
        own.running = None;
        let took = own.start().await?;
        if let Some(running) = &own.running {
            self.meter = running.meter();
        }
        Ok(took)
    }
}

impl Own {
    async fn start(&mut self) -> anyhow::Result<Duration> {
        let setting = self.setting.clone();
        let running = tokio::task::spawn_blocking(move || OwnServer::start(&setting)).await??;
        let took = running.start_took;
        self.running = Some(running);
        Ok(took)
    }
}

fn target(address: SocketAddr, certs: &Path) -> anyhow::Result<Target> {
    let paths = DevelopmentPaths::of(certs);
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok(Target {
        address: format!("https://{address}"),
        server_name: None,
        roots_pem: read(&paths.server_ca.certificate)?,
        identity: Some(Identity::from_pem(read(&paths.operator.certificate)?, read(&paths.operator.key)?)),
    })
}
