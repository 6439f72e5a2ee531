//! `rehome demo`: plays the whole story against the real service, and checks every claim it prints by reading it back.

mod claims;
mod story;
mod tpm;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::ambient::{Entropy as _, SystemEntropy};

use super::context::Context;
use claims::Claims;
use world::World;

const HELP: &str = "The service runs inside this command, on a free port of 127.0.0.1, with real TLS, certificates and
files, in a new folder that is removed at the end. The exit code is 0 if every claim holds.";

#[derive(Debug, PartialEq, Args)]
#[command(after_help = HELP)]
pub struct Demo {
    /// The folder for certificates, store and hubs: it must not exist [default: a new one here]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the folder behind, to look at it or to serve it
    #[arg(long)]
    pub keep: bool,
}

impl Demo {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        let named = format!("rehome-demo-{:08x}", SystemEntropy::new().draw_u128() >> 96);
        let folder = self.dir.unwrap_or_else(|| named.into());
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        std::fs::create_dir(&folder).with_context(|| format!("cannot make the new folder {}", folder.display()))?;
        let played = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?
            .block_on(play(folder.clone(), context));
        if self.keep {
            context.output.note(&format!("everything is in {}", folder.display()))?;
        } else {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        played
    }
}

async fn play(folder: PathBuf, context: &Context) -> anyhow::Result<()> {
    let mut claims = Claims::new(context.output);
    let mut world = World::start(folder).await.context("the service did not start")?;
    let told = story::tell(&mut world, &mut claims).await;
    let with_tpm = story::TPMS.iter().all(|(chapter, _, _)| claims.has_chapter(chapter));
    let stopped = world.stop().await;
    let (all, failed) = claims.finish()?;
    told.context("the story broke off")?;
    stopped.context("the service did not stop cleanly")?;
    if !with_tpm {
        context.output.note("no device with a TPM took part: swtpm is not installed (apt-get install swtpm)")?;
    }
    if failed > 0 {
        bail!("{failed} of {all} claims do not hold");
    }
    Ok(context.output.done(&format!("\nall {all} claims hold"))?)
}
