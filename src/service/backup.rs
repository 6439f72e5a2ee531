//! A consistent copy of the store and of every hub's file, made while the service goes on, and read out in parts.
//!
//! The copies are made first and read afterwards: a slow reader holds up a folder on disk and nothing else.
//!
//! **Every hub is copied before the store, so that no device is in none of the copies.** Moves go on meanwhile. A device that
//! leaves a hub before that hub is copied, for one that was copied already, is in no hub's copy; but what it left with was
//! committed before it was deleted there, so the store's copy, which is made last, has its journal and its home, and going
//! through the copies makes it again of that. The other way round the store's copy would know nothing of such a move. What
//! a hub accepted after its own copy was made is not in the backup, whatever the order. No hub is linked meanwhile: the
//! store's copy names no hub that was not copied.

use std::collections::VecDeque;
use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::Stream;
use futures_util::stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedMutexGuard;

use crate::domain::{AuditAction, AuditEntry, Fault, Reason};
use crate::store::Commit;

use super::{Service, fault};

const CHUNK_BYTES: usize = 64 * 1024;

/// One part of a backup, in order: for each file its head, its bytes, its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPart {
    File { name: String, bytes: u64, files_left: u32 },
    Chunk(Vec<u8>),
    End { sha256: Vec<u8> },
}

impl Service {
    /// Copies everything, and answers the copy as a stream. One at a time.
    pub async fn back_up(
        &self,
        by: &str,
    ) -> Result<impl Stream<Item = Result<BackupPart, Fault>> + Send + use<>, Fault> {
        let Ok(turn) = self.inner.backup_gate.clone().try_lock_owned() else {
            return Err(Fault::new(Reason::Overloaded, "another backup is under way"));
        };
        let folder = self.inner.config.scratch_folder.join(format!("backup-{:016x}", self.inner.entropy.draw_u128()));
        tokio::fs::create_dir_all(&folder).await.map_err(|error| failed(&error))?;
        let copies = Copies { folder: folder.clone(), _turn: turn };
        let mut files = VecDeque::new();
        let gate = self.inner.fleet_gate.lock().await;
        for berth in self.inner.directory.fleet().berths() {
            let name = format!("hub-{}.redb", berth.hub.id);
            let path = folder.join(&name);
            self.inner.hubs.back_up(&berth.hub.id, &path).await.map_err(|why| {
                Fault::new(Reason::HubUnavailable, format!("hub {} was not copied: {why}", berth.hub.id))
            })?;
            files.push_back((name, path));
        }
        let store = folder.join("service.redb");
        self.inner.store.back_up(&store, &|_, _| {}).await.map_err(fault::of_store)?;
        files.push_front(("service.redb".to_owned(), store));
        drop(gate);
        let now = self.inner.clock.now();
        let detail = format!("{} files were copied", files.len());
        let audit = AuditEntry::new(now, by, AuditAction::StoreBackedUp, detail);
        let commit = Commit { audit: vec![audit], ..Commit::default() };
        self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        let reading = Reading { files, current: None, _copies: copies };
        Ok(stream::try_unfold(reading, |mut reading| async move {
            let part = reading.next().await.map_err(|error| failed(&error))?;
            Ok(part.map(|part| (part, reading)))
        }))
    }
}

fn failed(error: &std::io::Error) -> Fault {
    tracing::error!("a backup failed: {error}");
    Fault::new(Reason::Internal, "the backup cannot be written or read, the log has the details")
}

/// The copies on disk, and the right to have them. They go when nobody reads them any more.
#[derive(Debug)]
struct Copies {
    folder: PathBuf,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!("{} could not be removed: {error}", self.folder.display());
        }
    }
}

struct Reading {
    files: VecDeque<(String, PathBuf)>,
    current: Option<(File, Context)>,
    _copies: Copies,
}

impl Reading {
    async fn next(&mut self) -> std::io::Result<Option<BackupPart>> {
        if let Some((mut file, mut digest)) = self.current.take() {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = file.read(&mut chunk).await?;
            if read == 0 {
                return Ok(Some(BackupPart::End { sha256: digest.finish().as_ref().to_vec() }));
            }
            chunk.truncate(read);
            digest.update(&chunk);
            self.current = Some((file, digest));
            return Ok(Some(BackupPart::Chunk(chunk)));
        }
        let Some((name, path)) = self.files.pop_front() else { return Ok(None) };
        let file = File::open(&path).await?;
        let bytes = file.metadata().await?.len();
        self.current = Some((file, Context::new(&SHA256)));
        let files_left = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        Ok(Some(BackupPart::File { name, bytes, files_left }))
    }
}
