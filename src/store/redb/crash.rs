//! What is left after a crash: the store on a disk that stops obeying at the Nth operation, for many N.
//!
//! Three pictures of the file are opened again: every write arrived (a killed process), none since the last sync arrived,
//! and only some did (a power cut). In each, what was acknowledged is there, and what was not is there whole or not at all.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ::redb::{Builder, StorageBackend};

use super::*;
use crate::domain::{AuditEntry, Version};
use crate::store::samples::*;

#[derive(Debug, Default)]
struct Platters {
    synced: Vec<u8>,
    /// Written since the last sync.
    pending: Vec<(usize, Vec<u8>)>,
    /// Operations that still work; `None` is all.
    left: Option<u64>,
}

impl Platters {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the disk is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// The file as it is when those pending writes arrive that `arrives` picks by their place.
    fn image(&self, arrives: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut image = self.synced.clone();
        for (_, (offset, bytes)) in self.pending.iter().enumerate().filter(|(place, _)| arrives(*place)) {
            let end = (offset + bytes.len()).min(image.len());
            if *offset < end {
                image[*offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
        image
    }
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Platters>>);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().synced.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        let image = self.0.lock().unwrap().image(|_| true);
        let found = image.get(offset..offset + out.len()).ok_or_else(|| io::Error::other("beyond the end"))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.synced.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.synced = platters.image(|_| true);
        platters.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.pending.push((offset as usize, data.to_vec()));
        Ok(())
    }
}

fn nth(number: u64) -> Commit {
    let id = format!("d-{number:03}");
    Commit {
        audit: vec![AuditEntry { tracking: Some(TrackingId(number.into())), ..audit(&id, Some(&id)) }],
        ..changes([put_registration(registration(&id, Some("a"))), open(&id, assign_to("a"))])
    }
}

/// The commits of `nth` that are in the file, each of which must be there whole.
async fn present(path: &Path) -> u64 {
    let store = RedbStore::open(Config { cache_bytes: 1 << 20, ..Config::at(path) }, Hooks::default()).unwrap();
    let mut count = 0;
    while store.load_device(&reg_id(&format!("d-{count:03}"))).await.unwrap().registration.is_some() {
        let tracked = store.find_audit(TrackingId(count.into())).await.unwrap().unwrap();
        let file = store.load_device(&reg_id(&format!("d-{count:03}"))).await.unwrap();
        assert_eq!((file.open.len(), file.open[0].generation), (1, tracked.order));
        assert_eq!(file.registration.unwrap().version, Version(1));
        count += 1;
    }
    let used = store.hubs().await.unwrap()[0].1;
    assert_eq!((used.homes, used.arriving, store.unfinished().await.unwrap().len() as u64), (count, count, count));
    // One order was taken by the hub.
    assert_eq!(store.commit(Commit::default()).await, Ok(Order(count + 2)));
    drop(store);
    assert_eq!(check(path, 1 << 20, |_| {}).unwrap(), []);
    count
}

async fn crash_after(operations: u64, whole: &[u8], folder: &Path, quick_repair: bool) -> bool {
    let disk = Disk::default();
    disk.0.lock().unwrap().synced = whole.to_vec();
    let database = Builder::new().set_cache_size(1 << 20).create_with_backend(disk.clone()).unwrap();
    let quick_repair_from = if quick_repair { 0 } else { u64::MAX };
    let config = Config { quick_repair_from, ..Config::at("on the disk of the test") };
    let store = RedbStore::serve(database, config, Hooks::default().group).unwrap();
    disk.0.lock().unwrap().left = Some(operations);
    let (mut acknowledged, mut unknown) = (0, 0);
    while acknowledged < 12 {
        match store.commit(nth(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(CommitFault::NotWritten(_)) => break,
            Err(CommitFault::Unknown(_)) => {
                unknown = 1;
                break;
            }
            Err(CommitFault::Unexpected(unexpected)) => panic!("{unexpected}"),
        }
    }
    if acknowledged < 12 {
        let after = store.commit(nth(acknowledged)).await;
        assert!(matches!(after, Err(CommitFault::NotWritten(_))), "{after:?}");
        // What was acknowledged can still be read.
        assert_eq!(store.unfinished().await.unwrap().len() as u64, acknowledged);
    }
    // Nothing that happens while it is dropped reaches the disk.
    disk.0.lock().unwrap().left = Some(0);
    drop(store);
    let images = {
        let platters = disk.0.lock().unwrap();
        [platters.image(|_| true), platters.image(|_| false), platters.image(|place| place % 2 == 0)]
    };
    for (kind, image) in ["killed", "cut", "torn"].into_iter().zip(images) {
        let path = folder.join(kind);
        fs::write(&path, image).unwrap();
        let found = present(&path).await;
        let fits = (acknowledged..=acknowledged + unknown).contains(&found);
        assert!(fits, "{kind} after {operations}: {found} of {acknowledged} acknowledged, {unknown} unknown");
        fs::remove_file(&path).unwrap();
    }
    acknowledged < 12
}

async fn crash_at_every_step(quick_repair: bool, stride: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(Config::at(&path), Hooks::default()).unwrap();
    store.commit(changes([put_hub(hub("a"))])).await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut crashes = 0;
    for operations in (0..).step_by(stride) {
        if !crash_after(operations, &whole, folder.path(), quick_repair).await {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 5, "only {crashes} crashes");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_at_any_operation() {
    crash_at_every_step(false, 3).await;
}

#[tokio::test]
async fn quick_repair_keeps_the_same_promise() {
    crash_at_every_step(true, 11).await;
}
