//! Opening the file: made whole or not at all, refused with one readable error, brought up to the current format.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, CompactionError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableError,
    WriteTransaction,
};

use super::tables::{COPY_KEY, FORMAT, FORMAT_KEY, LAST_ORDER_KEY, RESTORED_KEY, Table, number};
use crate::store::ORDERS_OF_A_LIFE;

/// The first bytes of every redb file.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    #[error("there is no store at {}", .path.display())]
    Missing { path: PathBuf },
    #[error("the store {} is in use by another process", .path.display())]
    Locked { path: PathBuf },
    #[error("{} is not a rehome store: {why}", .path.display())]
    Foreign { path: PathBuf, why: String },
    #[error("the store {} is damaged ({why}): restore it from a backup", .path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the store {} has format {found}, this version knows up to {known}: use a newer version", .path.display())]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("the store {} has format {found}, from which no upgrade is known", .path.display())]
    Older { path: PathBuf, found: u64 },
    #[error("cannot open the store {}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// One step to a newer format, run in the transaction that also writes the new number. A step that fails changes nothing.
pub(super) struct Upgrade {
    pub from: u64,
    pub run: fn(&WriteTransaction) -> Result<(), TableError>,
}

/// The steps, each from one format to the next.
const UPGRADES: &[Upgrade] =
    &[Upgrade { from: 1, run: add_what_was_seen }, Upgrade { from: 2, run: add_symmetric_keys }];

/// To format 2: the states seen at hubs, and how far each feed was read. Both begin empty.
fn add_what_was_seen(transaction: &WriteTransaction) -> Result<(), TableError> {
    for table in [Table::LastKnown, Table::Feeds] {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}

/// To format 3: groups by symmetric keys, of which there are none yet.
fn add_symmetric_keys(transaction: &WriteTransaction) -> Result<(), TableError> {
    transaction.open_table(Table::KeyGroups.definition()).map(drop)
}

/// Opens the file, or makes it.
pub(super) fn open_or_create(
    path: &Path,
    cache_bytes: usize,
    repair: impl Fn(f64) + 'static,
) -> Result<Database, OpenFault> {
    let io = |source| OpenFault::Io { path: path.to_owned(), source };
    if !path.try_exists().map_err(io)? {
        create(path)?;
    }
    open_existing(path, cache_bytes, repair)
}

/// Opens a file that is there.
pub(super) fn open_existing(
    path: &Path,
    cache_bytes: usize,
    repair: impl Fn(f64) + 'static,
) -> Result<Database, OpenFault> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder.set_repair_callback(move |session| repair(session.progress()));
    // A file that was changed behind redb's back may make it panic: that is a damaged file, not a defect of ours.
    let opened = catch_unwind(AssertUnwindSafe(|| builder.open(path)));
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(fault)) => return Err(open_fault(path, fault)),
        Err(_) => return Err(damaged(path, "its pages make no sense")),
    };
    bring_up(path, &database, FORMAT, UPGRADES)?;
    Ok(database)
}

/// A copy that is served from becomes a store of its own: its orders go on where none of the life before can have been,
/// and it knows that it was restored.
pub(super) fn leave_the_copy_behind(path: &Path, database: &Database) -> Result<(), OpenFault> {
    let attempt = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(Table::Meta.definition())?;
            if meta.remove(COPY_KEY)?.is_none() {
                return Ok(());
            }
            let last = meta.get(LAST_ORDER_KEY)?.and_then(|row| number(row.value())).unwrap_or_default();
            let next_life = (last / ORDERS_OF_A_LIFE).saturating_add(1).saturating_mul(ORDERS_OF_A_LIFE);
            meta.insert(LAST_ORDER_KEY, next_life.to_be_bytes().as_slice())?;
            meta.insert(RESTORED_KEY, [].as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    };
    attempt().map_err(|why| damaged(path, why))
}

/// Checks the format, and upgrades step by step to `known`.
pub(super) fn bring_up(path: &Path, database: &Database, known: u64, steps: &[Upgrade]) -> Result<(), OpenFault> {
    loop {
        let found = format_of(path, database)?;
        if found == known {
            return Ok(());
        }
        if found > known {
            return Err(OpenFault::Newer { path: path.to_owned(), found, known });
        }
        let Some(step) = steps.iter().find(|step| step.from == found) else {
            return Err(OpenFault::Older { path: path.to_owned(), found });
        };
        let upgraded = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            (step.run)(&transaction)?;
            let next = (found + 1).to_be_bytes();
            transaction.open_table(Table::Meta.definition())?.insert(FORMAT_KEY, next.as_slice())?;
            transaction.commit()?;
            Ok(())
        };
        upgraded().map_err(|why| damaged(path, format!("the upgrade from format {found} failed: {why}")))?;
    }
}

fn format_of(path: &Path, database: &Database) -> Result<u64, OpenFault> {
    let foreign = |why: &str| OpenFault::Foreign { path: path.to_owned(), why: why.to_owned() };
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(Table::Meta.definition())?;
        Ok(meta.get(FORMAT_KEY)?.map(|guard| guard.value().to_vec()))
    };
    match read() {
        Ok(Some(bytes)) => number(&bytes).ok_or_else(|| damaged(path, "its format is not a number")),
        Ok(None) => Err(foreign("it is a database without a format")),
        Err(
            redb::Error::TableDoesNotExist(_) | redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_),
        ) => Err(foreign("it is a database of something else")),
        Err(why) => Err(damaged(path, why)),
    }
}

fn damaged(path: &Path, why: impl ToString) -> OpenFault {
    OpenFault::Damaged { path: path.to_owned(), why: why.to_string() }
}

fn open_fault(path: &Path, fault: DatabaseError) -> OpenFault {
    match fault {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenFault::Locked { path: path.to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == ErrorKind::NotFound => {
            OpenFault::Missing { path: path.to_owned() }
        }
        DatabaseError::UpgradeRequired(version) => OpenFault::Foreign {
            path: path.to_owned(),
            why: format!("its database engine has file format {version}, which is not read any more"),
        },
        other if !begins_like_a_database(path) => OpenFault::Foreign { path: path.to_owned(), why: other.to_string() },
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != ErrorKind::UnexpectedEof => {
            OpenFault::Io { path: path.to_owned(), source }
        }
        other => damaged(path, other),
    }
}

/// Whether a file that was not opened is a database at all. One that cannot be read gets the benefit of the doubt.
fn begins_like_a_database(path: &Path) -> bool {
    let mut first = [0; MAGIC.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut first)) {
        Ok(()) => first == *MAGIC,
        Err(fault) => fault.kind() != ErrorKind::UnexpectedEof,
    }
}

/// Makes an empty store beside its place and then links it there, so that nobody ever finds half of one, and two
/// processes that start together don't take each other's away.
fn create(path: &Path) -> Result<(), OpenFault> {
    let io = |source| OpenFault::Io { path: path.to_owned(), source };
    let new = beside(path, &format!(".new-{}", std::process::id()));
    remove_if_there(&new).map_err(io)?;
    make_private(&new).map_err(io)?;
    let made = || -> Result<(), redb::Error> {
        let database = Builder::new().create(&new)?;
        let transaction = database.begin_write()?;
        for table in Table::ALL {
            transaction.open_table(table.definition())?;
        }
        {
            let mut meta = transaction.open_table(Table::Meta.definition())?;
            meta.insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
            meta.insert(LAST_ORDER_KEY, 0_u64.to_be_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    };
    made().map_err(|why| io(std::io::Error::other(why)))?;
    match put_in_place(&new, path) {
        // Another process was faster; the lock tells who may use what it made.
        Err(fault) if fault.kind() == ErrorKind::AlreadyExists => remove_if_there(&new).map_err(io),
        placed => placed.map_err(io),
    }
}

/// Gives a finished file its name; refused when something has it already. Durable when it returns.
pub(super) fn put_in_place(new: &Path, path: &Path) -> std::io::Result<()> {
    match fs::hard_link(new, path) {
        Ok(()) => fs::remove_file(new)?,
        Err(fault) if fault.kind() == ErrorKind::AlreadyExists => return Err(fault),
        // Some file systems have no links.
        Err(_) => fs::rename(new, path)?,
    }
    sync_folder(path)
}

/// Makes the name of a file durable, where folders can be synced.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

pub(super) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != ErrorKind::NotFound => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An empty file that only its owner may read: a store holds webhook keys.
pub(super) fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Gives free space back to the file system. Nobody may have the store open. Says whether there was any.
pub fn compact(path: &Path, cache_bytes: usize, repair: impl Fn(f64) + 'static) -> Result<bool, OpenFault> {
    let mut database = open_existing(path, cache_bytes, repair)?;
    database.compact().map_err(|fault| match fault {
        CompactionError::Storage(StorageError::Io(source)) => OpenFault::Io { path: path.to_owned(), source },
        other => damaged(path, other),
    })
}
