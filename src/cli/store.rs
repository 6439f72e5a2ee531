//! `rehome store`: back the running service up; check and compact a store that nobody has open.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use serde::Serialize;

use crate::client::BackupPart;
use crate::compose;

use super::context::Context;
use super::output::{Listed, Output, Shown};

#[derive(Debug, PartialEq, Subcommand)]
pub enum StoreCommand {
    /// Copy the store of the running service to a new folder
    #[command(after_help = "Example:\n  rehome store backup backup-2030-01-31\n\n\
                            Every file is written under a temporary name, checked against its SHA-256, and then named.")]
    Backup {
        /// The folder to write to: new or empty
        out: PathBuf,
    },
    /// Look a store over that no service has open
    #[command(
        after_help = "Examples:\n  rehome store check rehome-data\n  rehome store check backup-2030-01-31/service.redb"
    )]
    Check {
        /// The store's file, or the data folder
        path: PathBuf,
    },
    /// Give free space of a store that no service has open back to the file system
    Compact {
        /// The store's file, or the data folder
        path: PathBuf,
    },
}

impl StoreCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            StoreCommand::Backup { out } => backup(&out, context).await,
            StoreCommand::Check { path } => check(&path, context),
            StoreCommand::Compact { path } => compact(&path, context),
        }
    }
}

async fn backup(out: &Path, context: &Context) -> anyhow::Result<()> {
    let incomplete = || format!("the backup in {} is not complete", out.display());
    let operator = context.operator().await?;
    let mut receiver = Receiver::new(out)?;
    let mut backup = operator.backup().await?;
    let mut progress = context.output.progress();
    // The client holds the parts against sizes and digests as they pass.
    while let Some(part) = backup.next().await.with_context(incomplete)? {
        receiver.take(part).with_context(incomplete)?;
        progress.update(&receiver.status());
    }
    drop(progress);
    Ok(context.output.list(&receiver.finish().with_context(incomplete)?, false)?)
}

/// Tells how far a repair is, which a store needs that was not closed.
fn repair_told(output: Output) -> impl Fn(f64) + 'static {
    let progress = RefCell::new(output.progress());
    move |part| progress.borrow_mut().update(&format!("repairing: {:.0} %", part * 100.0))
}

fn check(path: &Path, context: &Context) -> anyhow::Result<()> {
    let findings = compose::check_store(path, &context.config, repair_told(context.output))
        .with_context(|| format!("cannot check {}", path.display()))?;
    let rows: Vec<FindingView> = findings.into_iter().map(|finding| FindingView { finding }).collect();
    if rows.is_empty() {
        context.output.done(&format!("{} is well", path.display()))?;
        return if context.output.json { Ok(context.output.list(&rows, false)?) } else { Ok(()) };
    }
    context.output.list(&rows, false)?;
    bail!("{} has {} faults: go back to a backup", path.display(), rows.len())
}

fn compact(path: &Path, context: &Context) -> anyhow::Result<()> {
    let compacted = compose::compact_store(path, &context.config, repair_told(context.output))
        .with_context(|| format!("cannot compact {}", path.display()))?;
    Ok(context.output.item(&CompactedView { path: path.display().to_string(), compacted })?)
}

/// Something that is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FindingView {
    finding: String,
}

impl Listed for FindingView {
    const HEADINGS: &'static [&'static str] = &["finding"];

    fn cells(&self) -> Vec<String> {
        vec![self.finding.clone()]
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CompactedView {
    path: String,
    /// Whether there was space to give back.
    compacted: bool,
}

impl Shown for CompactedView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let done = if self.compacted { "yes" } else { "there was nothing to give back" };
        vec![("store", self.path.clone()), ("compacted", done.to_owned())]
    }
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FileView {
    path: String,
    bytes: u64,
}

impl Listed for FileView {
    const HEADINGS: &'static [&'static str] = &["file", "bytes"];

    fn cells(&self) -> Vec<String> {
        vec![self.path.clone(), self.bytes.to_string()]
    }
}

/// Writes the parts of a backup as files. A file has its name only once it is whole and on disk.
struct Receiver {
    folder: PathBuf,
    open: Option<OpenFile>,
    done: Vec<FileView>,
}

struct OpenFile {
    name: String,
    bytes: u64,
    received: u64,
    part: PathBuf,
    file: File,
}

impl Receiver {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        ensure!(entries.next().is_none(), "{} is not empty: name a new folder", folder.display());
        Ok(Self { folder: folder.to_owned(), open: None, done: Vec::new() })
    }

    fn take(&mut self, part: BackupPart) -> anyhow::Result<()> {
        match part {
            BackupPart::File { name, bytes } => self.begin(name, bytes),
            BackupPart::Bytes(chunk) => self.append(&chunk),
            BackupPart::FileDone => self.end(),
        }
    }

    fn begin(&mut self, name: String, bytes: u64) -> anyhow::Result<()> {
        let part = self.folder.join(format!("{name}.part"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&part)
            .with_context(|| format!("cannot write {}", part.display()))?;
        self.open = Some(OpenFile { name, bytes, received: 0, part, file });
        Ok(())
    }

    fn append(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        let open = self.open.as_mut().context("there are bytes of no file in the stream")?;
        open.received += chunk.len() as u64;
        open.file.write_all(chunk).with_context(|| format!("cannot write {}", open.part.display()))
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let open = self.open.take().context("a file ends that never began")?;
        open.file.sync_all().with_context(|| format!("cannot write {}", open.part.display()))?;
        let path = self.folder.join(&open.name);
        fs::rename(&open.part, &path).with_context(|| format!("cannot name {}", path.display()))?;
        self.done.push(FileView { path: path.display().to_string(), bytes: open.bytes });
        Ok(())
    }

    fn status(&self) -> String {
        match &self.open {
            Some(open) => format!("{}: {} of {} bytes", open.name, open.received, open.bytes),
            None => format!("{} files done", self.done.len()),
        }
    }

    fn finish(self) -> anyhow::Result<Vec<FileView>> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot write {}", self.folder.display()))?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> BackupPart {
        BackupPart::File { name: name.to_owned(), bytes }
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut receiver = Receiver::new(&out).unwrap();
        receiver.take(file("service.redb", 4)).unwrap();
        receiver.take(BackupPart::Bytes(b"ab".to_vec())).unwrap();
        receiver.take(BackupPart::Bytes(b"cd".to_vec())).unwrap();
        assert_eq!(receiver.status(), "service.redb: 4 of 4 bytes");
        assert!(!out.join("service.redb").exists());
        receiver.take(BackupPart::FileDone).unwrap();
        assert_eq!(fs::read(out.join("service.redb")).unwrap(), b"abcd");
        let files = receiver.finish().unwrap();
        assert_eq!(files.iter().map(|file| file.bytes).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn parts_of_no_file_are_refused() {
        for part in [BackupPart::Bytes(vec![1]), BackupPart::FileDone] {
            let folder = tempfile::tempdir().unwrap();
            assert!(Receiver::new(folder.path()).unwrap().take(part).is_err());
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        assert!(Receiver::new(folder.path()).is_err());
    }
}
