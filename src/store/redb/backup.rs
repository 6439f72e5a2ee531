//! A consistent copy of the store while it serves.
//!
//! The copy is of one snapshot, row by row into a fresh file: compact, and never half there, since it gets its name last.
//! Until it is done the store keeps the pages that the snapshot needs, so its file may grow meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Durability, ReadTransaction, ReadableTable, ReadableTableMetadata};
use tokio::sync::mpsc;

use super::open::{beside, make_private, put_in_place, remove_if_there};
use super::reader::View;
use super::tables::{COPY_KEY, Table};
use crate::store::StoreFault;

/// Rows between two commits of the copy, which bounds the memory it takes; only the last is synced.
const ROWS_PER_COMMIT: u64 = 20_000;
/// Memory for pages of the copy.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
enum CopyFault {
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    #[error("nobody waits for it any more")]
    Abandoned,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Redb(#[from] redb::Error),
}

/// Copies a snapshot to `to`. Dropping the future ends the copy and leaves nothing behind.
pub(super) async fn back_up(
    snapshot: Arc<View>,
    to: PathBuf,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<(), StoreFault> {
    let (told, mut news) = mpsc::channel(1);
    let copy = tokio::task::spawn_blocking(move || {
        let part = beside(&to, ".part");
        let outcome = copy_to(snapshot.transaction(), &to, &part, &told);
        if let Err(CopyFault::Exists(_)) = outcome {
            return outcome;
        }
        // What is left of a copy that failed is in nobody's way, but does no good either.
        outcome.inspect_err(|_| drop(remove_if_there(&part)))
    });
    while let Some((done, total)) = news.recv().await {
        progress(done, total);
    }
    match copy.await {
        Ok(outcome) => outcome.map_err(|why| StoreFault::BackUp(why.to_string())),
        Err(why) => Err(StoreFault::BackUp(why.to_string())),
    }
}

fn copy_to(
    snapshot: &ReadTransaction,
    to: &Path,
    part: &Path,
    told: &mpsc::Sender<(u64, u64)>,
) -> Result<(), CopyFault> {
    if to.try_exists()? {
        return Err(CopyFault::Exists(to.to_owned()));
    }
    if part.try_exists()? {
        return Err(CopyFault::Exists(part.to_owned()));
    }
    make_private(part)?;
    copy_rows(snapshot, part, told)?;
    put_in_place(part, to)?;
    Ok(())
}

fn copy_rows(snapshot: &ReadTransaction, part: &Path, told: &mpsc::Sender<(u64, u64)>) -> Result<(), CopyFault> {
    let mut total = 0;
    for table in Table::ALL {
        total +=
            snapshot.open_table(table.definition()).map_err(redb::Error::from)?.len().map_err(redb::Error::from)?;
    }
    let copy = Builder::new().set_cache_size(CACHE_BYTES).create(part).map_err(redb::Error::from)?;
    let mut done = 0;
    for table in Table::ALL {
        let source = snapshot.open_table(table.definition()).map_err(redb::Error::from)?;
        let mut rows = source.iter().map_err(redb::Error::from)?;
        loop {
            let taken = copy_some(&copy, table, &mut rows)?;
            done += taken;
            told.blocking_send((done, total)).map_err(|_| CopyFault::Abandoned)?;
            if taken < ROWS_PER_COMMIT {
                break;
            }
        }
    }
    // A commit of its own, so that the sync covers all that came before.
    let last = copy.begin_write().map_err(redb::Error::from)?;
    last.open_table(Table::Meta.definition())
        .map_err(redb::Error::from)?
        .insert(COPY_KEY, [].as_slice())
        .map_err(redb::Error::from)?;
    last.commit().map_err(redb::Error::from)?;
    Ok(())
}

fn copy_some(
    copy: &redb::Database,
    table: Table,
    rows: &mut redb::Range<'_, &'static [u8], &'static [u8]>,
) -> Result<u64, redb::Error> {
    let mut transaction = copy.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut taken = 0;
    {
        let mut target = transaction.open_table(table.definition())?;
        while taken < ROWS_PER_COMMIT
            && let Some(row) = rows.next()
        {
            let (key, value) = row?;
            target.insert(key.value(), value.value())?;
            taken += 1;
        }
    }
    transaction.commit()?;
    Ok(taken)
}
