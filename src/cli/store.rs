//! `rehome store`: a backup of the running service.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::digest;
use clap::Subcommand;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::api::admin;
use super::api::admin::backup_response::Part;
use super::context::Context;
use super::output::Listed;

#[derive(Debug, PartialEq, Subcommand)]
pub enum StoreCommand {
    /// Copy the store of the running service to a new folder
    #[command(after_help = "Example:\n  rehome store backup backup-2030-01-31\n\n\
                            Every file is written under a temporary name, checked against its SHA-256, and then named.")]
    Backup {
        /// The folder to write to: new or empty
        out: PathBuf,
    },
}

impl StoreCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let StoreCommand::Backup { out } = self;
        let mut receiver = Receiver::new(&out)?;
        let mut parts = context.operator().await?.backup().await?;
        let mut progress = context.output.progress();
        while let Some(answer) = parts.next().await {
            let Some(part) = answer?.part else { continue };
            receiver.take(part).with_context(|| format!("the backup in {} is not complete", out.display()))?;
            progress.update(&receiver.status());
        }
        drop(progress);
        let files = receiver.finish().with_context(|| format!("the backup in {} is not complete", out.display()))?;
        Ok(context.output.list(&files, false)?)
    }
}

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FileView {
    path: String,
    bytes: u64,
    sha256: String,
}

impl Listed for FileView {
    const HEADINGS: &'static [&'static str] = &["file", "bytes", "sha-256"];

    fn cells(&self) -> Vec<String> {
        vec![self.path.clone(), self.bytes.to_string(), self.sha256.clone()]
    }
}

/// Takes the stream of a backup apart into files. A file has its name only once it is whole and on disk.
struct Receiver {
    folder: PathBuf,
    open: Option<OpenFile>,
    /// What the last header promised; `None` before the first one.
    files_left: Option<u32>,
    done: Vec<FileView>,
}

struct OpenFile {
    name: String,
    bytes: u64,
    received: u64,
    part: PathBuf,
    file: File,
    sha256: digest::Context,
}

impl Receiver {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let mut entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        ensure!(entries.next().is_none(), "{} is not empty: name a new folder", folder.display());
        Ok(Self { folder: folder.to_owned(), open: None, files_left: None, done: Vec::new() })
    }

    fn take(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::File(header) => self.begin(header),
            Part::Chunk(chunk) => self.append(&chunk),
            Part::End(end) => self.end(&end.sha256),
        }
    }

    fn begin(&mut self, header: admin::BackupFile) -> anyhow::Result<()> {
        ensure!(self.open.is_none(), "a file begins before the one before it ended");
        ensure!(is_plain_name(&header.name), "the service named a file {:?}", header.name);
        ensure!(
            self.files_left.is_none_or(|left| left.checked_sub(1) == Some(header.files_left)),
            "a file is missing from the stream"
        );
        let part = self.folder.join(format!("{}.part", header.name));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&part)
            .with_context(|| format!("cannot write {}", part.display()))?;
        self.files_left = Some(header.files_left);
        let sha256 = digest::Context::new(&digest::SHA256);
        self.open = Some(OpenFile { name: header.name, bytes: header.bytes, received: 0, part, file, sha256 });
        Ok(())
    }

    fn append(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        let Some(open) = &mut self.open else { bail!("there are bytes of no file in the stream") };
        open.received += chunk.len() as u64;
        ensure!(open.received <= open.bytes, "{} is longer than it was said to be", open.name);
        open.sha256.update(chunk);
        open.file.write_all(chunk).with_context(|| format!("cannot write {}", open.part.display()))
    }

    fn end(&mut self, sha256: &[u8]) -> anyhow::Result<()> {
        let Some(open) = self.open.take() else { bail!("a file ends that never began") };
        ensure!(open.received == open.bytes, "{} is shorter than it was said to be", open.name);
        let found = open.sha256.finish();
        ensure!(found.as_ref() == sha256, "{} did not arrive as it was sent: its SHA-256 differs", open.name);
        open.file.sync_all().with_context(|| format!("cannot write {}", open.part.display()))?;
        let path = self.folder.join(&open.name);
        fs::rename(&open.part, &path).with_context(|| format!("cannot name {}", path.display()))?;
        self.done.push(FileView {
            path: path.display().to_string(),
            bytes: open.bytes,
            sha256: data_encoding::HEXLOWER.encode(found.as_ref()),
        });
        Ok(())
    }

    fn status(&self) -> String {
        let files_left = self.files_left.unwrap_or_default();
        match &self.open {
            Some(open) => {
                format!("{}: {} of {} bytes, {files_left} files to come", open.name, open.received, open.bytes)
            }
            None => format!("{} files done, {files_left} to come", self.done.len()),
        }
    }

    fn finish(self) -> anyhow::Result<Vec<FileView>> {
        ensure!(
            self.open.is_none() && self.files_left == Some(0),
            "the stream ended early: try again, in a new folder"
        );
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot write {}", self.folder.display()))?;
        Ok(self.done)
    }
}

/// A name that stays in the folder, whatever the service says.
fn is_plain_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    plain && !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && !name.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64, files_left: u32) -> Part {
        Part::File(admin::BackupFile { name: name.to_owned(), bytes, files_left })
    }

    fn chunk(text: &str) -> Part {
        Part::Chunk(text.as_bytes().to_vec())
    }

    fn end(text: &str) -> Part {
        let sha256 = digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec();
        Part::End(admin::BackupFileEnd { sha256 })
    }

    /// Feeds a stream; answers the names of the files that are whole, or none when the backup was refused.
    fn check(parts: Vec<Part>, expected: Option<&[&str]>) {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut receiver = Receiver::new(&out).unwrap();
        let taken = parts.into_iter().try_for_each(|part| receiver.take(part)).and_then(|()| receiver.finish());
        match (taken, expected) {
            (Ok(files), Some(names)) => {
                assert_eq!(files.len(), names.len());
                assert!(names.iter().all(|name| out.join(name).exists()));
            }
            (Err(_), None) => assert!(!folder.path().join("x").exists(), "nothing is written outside"),
            (Ok(files), None) => panic!("accepted {files:?}"),
            (Err(error), Some(_)) => panic!("{error:#}"),
        }
    }

    #[test]
    fn a_backup_is_whole_or_refused() {
        let whole = || vec![file("store.redb", 4, 0), chunk("ab"), chunk("cd"), end("abcd")];
        check(whole(), Some(&["store.redb"]));
        check(vec![file("a", 2, 1), chunk("ab"), end("ab"), file("b", 0, 0), end("")], Some(&["a", "b"]));
        check(vec![], None);
        check(whole()[..3].to_vec(), None);
        check(vec![file("a", 2, 1), chunk("ab"), end("ab")], None);
        check(vec![file("a", 0, 2), end(""), file("b", 0, 0), end("")], None);
        check(vec![file("a", 2, 0), chunk("abc"), end("abc")], None);
        check(vec![file("a", 2, 0), chunk("a"), end("a")], None);
        check(vec![file("a", 2, 0), chunk("ab"), end("ba")], None);
        check(vec![file("a", 0, 1), file("b", 0, 0)], None);
        check(vec![chunk("a")], None);
        check(vec![end("")], None);
        for name in ["../x", "/x", "", ".x", "a/b", "a.part"] {
            check(vec![file(name, 0, 0), end("")], None);
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "x").unwrap();
        assert!(Receiver::new(folder.path()).is_err());
    }
}
