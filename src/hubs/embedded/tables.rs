//! A hub's file: its tables, how it is made and opened, and how it is copied while in use.
//!
//! A file is made beside its name and moved there when it is whole, so a file of that name is never half made. A copy
//! carries no incarnation: the hub that is opened from it is known to have been restored.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle};

use super::records::{DepartedRow, decode, decode_resident, encode_resident};
use crate::ambient::Entropy;
use crate::domain::{Incarnation, Order};

pub type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

/// Devices that are here, by id.
pub const RESIDENTS: Rows = TableDefinition::new("residents");
/// The fences of devices that are not, by id.
pub const DEPARTED: Rows = TableDefinition::new("departed");
/// States that the last call of a device replaced, by id.
pub const REPLACED: Rows = TableDefinition::new("replaced");
/// The change feed: the device that changed last at each place. A device has one row, and its own row says which.
pub const CHANGES: TableDefinition<'static, u64, &'static str> = TableDefinition::new("changes");
const META: Rows = TableDefinition::new("hub");

const FORMAT_KEY: &str = "format";
const INCARNATION_KEY: &str = "incarnation";
/// Present while a restored hub waits to be readmitted.
const RESTORED_KEY: &str = "restored";

/// How far the feed and the orders have come: two numbers, big-endian. Never goes back, whoever leaves.
const MARKS_KEY: &str = "marks";

/// The format this build reads and writes. Format 1 had no change feed.
const FORMAT: u32 = 2;
/// The first bytes of every file of redb.
const MAGIC: &[u8] = b"redb";
/// Rows that a copy holds in memory at once: at most 145 KiB each, so some 70 MiB at the very worst.
const COPY_ROWS_MAX: usize = 512;

/// Why a hub's file was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    #[error("{path} is not a hub's file")]
    NotAHub { path: PathBuf },
    #[error("{path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("{path} has format {found}, this build knows formats up to {known}")]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("{path} is in use by another process or hub")]
    InUse { path: PathBuf },
    #[error("{path} cannot be opened")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be opened: {source}")]
    Database { path: PathBuf, source: Box<redb::Error> },
    #[error("the writer cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Why a copy was not made. An unfinished one has been removed, as far as that was possible.
#[derive(Debug, thiserror::Error)]
pub enum BackUpFault {
    #[error("{path} exists already")]
    Exists { path: PathBuf },
    #[error("{path} cannot be written")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the copy failed: {0}")]
    Database(Box<redb::Error>),
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub incarnation: Incarnation,
    /// It was restored and the service has not gone through its devices yet.
    pub restored: bool,
}

/// How far a hub has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// The last place of the change feed.
    pub position: u64,
    /// The highest order that was answered.
    pub highest: Order,
}

/// Opens the file at `path`, or makes it.
pub fn open(path: &Path, cache_bytes: usize, entropy: &dyn Entropy) -> Result<(Database, Identity), OpenFault> {
    let io = |source| OpenFault::Io { path: path.to_owned(), source };
    if !fs::exists(path).map_err(io)? {
        make(path, entropy)?;
    }
    check_magic(path)?;
    let mut builder = Database::builder();
    let database = builder.set_cache_size(cache_bytes).open(path).map_err(|fault| refused(path, fault))?;
    let identity = identify(path, &database, entropy)?;
    Ok((database, identity))
}

/// As [`open`], of what a test has made.
#[cfg(feature = "testing")]
pub fn open_on(
    backend: impl redb::StorageBackend,
    path: &Path,
    cache_bytes: usize,
    entropy: &dyn Entropy,
) -> Result<(Database, Identity), OpenFault> {
    let opened = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend);
    let database = opened.map_err(|fault| refused(path, fault))?;
    let identity = identify(path, &database, entropy)?;
    Ok((database, identity))
}

fn check_magic(path: &Path) -> Result<(), OpenFault> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.map_err(|source| OpenFault::Io { path: path.to_owned(), source })?;
    if start.is_empty() {
        return Err(OpenFault::Damaged { path: path.to_owned(), why: "it is empty".to_owned() });
    }
    if start.starts_with(MAGIC) { Ok(()) } else { Err(OpenFault::NotAHub { path: path.to_owned() }) }
}

/// A new, empty hub.
fn make(path: &Path, entropy: &dyn Entropy) -> Result<(), OpenFault> {
    let beside = beside(path, "new");
    let io = |source| OpenFault::Io { path: path.to_owned(), source };
    remove_if_there(&beside).map_err(io)?;
    let database = Database::create(&beside).map_err(|fault| refused(&beside, fault))?;
    let identity = Identity { incarnation: Incarnation(entropy.draw_u128()), restored: false };
    initialise(&database, identity).map_err(|source| OpenFault::Database { path: path.to_owned(), source })?;
    drop(database);
    put_in_place(&beside, path).map_err(io)
}

/// Gives an empty database the tables and the identity of a hub.
pub fn initialise(database: &Database, identity: Identity) -> Result<(), Box<redb::Error>> {
    let attempt = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        for rows in [RESIDENTS, DEPARTED, REPLACED] {
            transaction.open_table(rows)?;
        }
        transaction.open_table(CHANGES)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
            meta.insert(INCARNATION_KEY, identity.incarnation.0.to_be_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    };
    attempt().map_err(Box::new)
}

fn identify(path: &Path, database: &Database, entropy: &dyn Entropy) -> Result<Identity, OpenFault> {
    let damaged = |why: &str| OpenFault::Damaged { path: path.to_owned(), why: why.to_owned() };
    let format = read_format(database).map_err(|source| OpenFault::Database { path: path.to_owned(), source })?;
    match format {
        None => return Err(OpenFault::NotAHub { path: path.to_owned() }),
        Some(found) if found > FORMAT => {
            return Err(OpenFault::Newer { path: path.to_owned(), found, known: FORMAT });
        }
        Some(0) => return Err(damaged("its format cannot be read")),
        Some(1) => upgrade(database).map_err(|source| OpenFault::Database { path: path.to_owned(), source })?,
        Some(_) => {}
    }
    let identity = read_identity(database).map_err(|source| OpenFault::Database { path: path.to_owned(), source })?;
    match identity {
        Some(identity) => Ok(identity),
        None => {
            let identity = Identity { incarnation: Incarnation(entropy.draw_u128()), restored: true };
            mark_restored(database, identity)
                .map_err(|source| OpenFault::Database { path: path.to_owned(), source })?;
            Ok(identity)
        }
    }
}

/// From format 1: every device takes its place in the feed. A row that is not understood keeps out of it.
fn upgrade(database: &Database) -> Result<(), Box<redb::Error>> {
    let attempt = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let mut marks = Marks::default();
        {
            let mut residents = transaction.open_table(RESIDENTS)?;
            let mut changes = transaction.open_table(CHANGES)?;
            let mut after = String::new();
            loop {
                let mut rows = Vec::new();
                for row in residents.range::<&str>((Bound::Excluded(after.as_str()), Bound::Unbounded))? {
                    let (key, row) = row?;
                    rows.push((key.value().to_owned(), row.value().to_vec()));
                    if rows.len() == COPY_ROWS_MAX {
                        break;
                    }
                }
                let Some((last, _)) = rows.last() else { break };
                after.clone_from(last);
                for (device, row) in rows {
                    let Ok(row) = decode_resident(&row) else { continue };
                    marks.highest = marks.highest.max(row.highest());
                    marks.position += 1;
                    let Ok(row) = encode_resident(&row.at(marks.position)) else { continue };
                    residents.insert(device.as_str(), row.as_slice())?;
                    changes.insert(marks.position, device.as_str())?;
                }
            }
            for row in transaction.open_table(DEPARTED)?.iter()? {
                if let Ok(row) = decode::<DepartedRow>(row?.1.value()) {
                    marks.highest = marks.highest.max(row.highest());
                }
            }
        }
        write_marks(&transaction, marks)?;
        transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
        transaction.commit()?;
        Ok(())
    };
    attempt().map_err(Box::new)
}

/// How far the hub has come, as far as is durable.
pub fn read_marks(database: &Database) -> Result<Marks, Box<redb::Error>> {
    let attempt = || -> Result<Marks, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let row: Option<[u8; 16]> = meta.get(MARKS_KEY)?.and_then(|row| row.value().try_into().ok());
        Ok(row.map(u128::from_be_bytes).map_or(Marks::default(), |both| {
            let low = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(u64::MAX);
            Marks { position: low(both >> 64), highest: Order(low(both)) }
        }))
    };
    attempt().map_err(Box::new)
}

/// Keeps how far the hub has come, within a transaction.
pub fn write_marks(transaction: &redb::WriteTransaction, marks: Marks) -> Result<(), redb::Error> {
    let both = (u128::from(marks.position) << 64) | u128::from(marks.highest.0);
    transaction.open_table(META)?.insert(MARKS_KEY, both.to_be_bytes().as_slice())?;
    Ok(())
}

/// `None` when the file belongs to something else; zero when its row has another form.
fn read_format(database: &Database) -> Result<Option<u32>, Box<redb::Error>> {
    let attempt = || -> Result<Option<u32>, redb::Error> {
        let transaction = database.begin_read()?;
        if !transaction.list_tables()?.any(|table| table.name() == META.name()) {
            return Ok(None);
        }
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::Storage(fault)) => return Err(fault.into()),
            // A table of that name that is not ours.
            Err(_) => return Ok(None),
        };
        let row = meta.get(FORMAT_KEY)?;
        Ok(row.map(|row| row.value().try_into().map_or(0, u32::from_be_bytes)))
    };
    attempt().map_err(Box::new)
}

fn read_identity(database: &Database) -> Result<Option<Identity>, Box<redb::Error>> {
    let attempt = || -> Result<Option<Identity>, redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let restored = meta.get(RESTORED_KEY)?.is_some();
        let incarnation = meta.get(INCARNATION_KEY)?.and_then(|row| row.value().try_into().ok());
        Ok(incarnation.map(|bytes| Identity { incarnation: Incarnation(u128::from_be_bytes(bytes)), restored }))
    };
    attempt().map_err(Box::new)
}

/// Gives the hub a new incarnation, in which it waits to be gone through.
pub fn mark_restored(database: &Database, identity: Identity) -> Result<(), Box<redb::Error>> {
    let attempt = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(INCARNATION_KEY, identity.incarnation.0.to_be_bytes().as_slice())?;
            meta.insert(RESTORED_KEY, [].as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    };
    attempt().map_err(Box::new)
}

/// Ends the wait of a restored hub, within a transaction.
pub fn unmark_restored(transaction: &redb::WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(META)?.remove(RESTORED_KEY)?;
    Ok(())
}

/// Copies what is durable now to a new file at `to`, while the hub goes on. Blocks for as long as that takes.
pub fn back_up(database: &Database, to: &Path) -> Result<(), BackUpFault> {
    let io = |source| BackUpFault::Io { path: to.to_owned(), source };
    if fs::exists(to).map_err(io)? {
        return Err(BackUpFault::Exists { path: to.to_owned() });
    }
    let beside = beside(to, "part");
    remove_if_there(&beside).map_err(io)?;
    let copied = copy(database, &beside).map_err(|fault| BackUpFault::Database(Box::new(fault)));
    let placed = copied.and_then(|()| put_in_place(&beside, to).map_err(io));
    if placed.is_err() {
        // What was wrong first is what is told.
        let _ = remove_if_there(&beside);
    }
    placed
}

fn copy(database: &Database, to: &Path) -> Result<(), redb::Error> {
    let from = database.begin_read()?;
    let copy = Database::create(to)?;
    for rows in [RESIDENTS, DEPARTED, REPLACED] {
        let source = from.open_table(rows)?;
        let mut left = source.iter()?.peekable();
        loop {
            let transaction = copy.begin_write()?;
            {
                let mut target = transaction.open_table(rows)?;
                for row in left.by_ref().take(COPY_ROWS_MAX) {
                    let (key, value) = row?;
                    target.insert(key.value(), value.value())?;
                }
            }
            transaction.commit()?;
            if left.peek().is_none() {
                break;
            }
        }
    }
    let transaction = copy.begin_write()?;
    {
        // A row each time, all in one transaction: 30 bytes a device.
        let mut target = transaction.open_table(CHANGES)?;
        for row in from.open_table(CHANGES)?.iter()? {
            let (position, device) = row?;
            target.insert(position.value(), device.value())?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
        if let Some(marks) = from.open_table(META)?.get(MARKS_KEY)? {
            meta.insert(MARKS_KEY, marks.value())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn put_in_place(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        // The name is as durable as the file only when the folder is.
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

fn refused(path: &Path, fault: DatabaseError) -> OpenFault {
    let path = path.to_owned();
    match fault {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenFault::InUse { path },
        DatabaseError::Storage(StorageError::Corrupted(why)) => OpenFault::Damaged { path, why },
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                OpenFault::Damaged { path, why: source.to_string() }
            }
            _ => OpenFault::Io { path, source },
        },
        other => OpenFault::Database { path, source: Box::new(other.into()) },
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::records::encode_first;
    use super::*;

    /// Makes a hub's file what the first format would have made of it.
    pub fn make_first_format(path: &Path) {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut residents = transaction.open_table(RESIDENTS).unwrap();
            let rows: Vec<(String, Vec<u8>)> = residents
                .iter()
                .unwrap()
                .map(|row| row.unwrap())
                .map(|(key, row)| (key.value().to_owned(), encode_first(row.value())))
                .collect();
            for (device, row) in rows {
                residents.insert(device.as_str(), row.as_slice()).unwrap();
            }
            let mut meta = transaction.open_table(META).unwrap();
            meta.remove(MARKS_KEY).unwrap();
            meta.insert(FORMAT_KEY, 1u32.to_be_bytes().as_slice()).unwrap();
        }
        transaction.delete_table(CHANGES).unwrap();
        transaction.commit().unwrap();
    }
}
