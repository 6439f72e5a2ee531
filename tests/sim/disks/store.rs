//! The store on a recorded disk: at every moment, whatever of the unsynced writes arrived, the file opens, holds every
//! commit that was acknowledged by then and each other one whole or not at all.

use std::fs;

use rehome::domain::{AuditEntry, TrackingId, Version};
use rehome::store::redb::{Config, Hooks, RedbStore, check};
use rehome::store::samples::{assign_to, audit, changes, hub, open, put_hub, put_registration, reg_id, registration};
use rehome::store::{Commit, Store};

use super::disk::{Arrived, Disk};
use super::stride;

const COMMITS: u64 = 20;
const CACHE: usize = 1 << 20;
/// One image in so many is opened as a file too, and checked whole: a real disk is slow.
const FILES: usize = 8;

fn nth(number: u64) -> Commit {
    let id = format!("d-{number:03}");
    Commit {
        audit: vec![AuditEntry { tracking: Some(TrackingId(number.into())), ..audit(&id, Some(&id)) }],
        ..changes([put_registration(registration(&id, Some("a"))), open(&id, assign_to("a"))])
    }
}

/// How many of the commits the file holds, each of them whole.
async fn present(store: RedbStore) -> u64 {
    let mut count = 0;
    loop {
        let file = store.load_device(&reg_id(&format!("d-{count:03}"))).await.unwrap();
        let tracked = store.find_audit(TrackingId(count.into())).await.unwrap();
        let Some(registration) = file.registration else {
            assert!(tracked.is_none() && file.open.is_empty(), "half of commit {count}");
            break;
        };
        assert_eq!(registration.version, Version(1));
        assert_eq!((file.open.len(), file.open[0].generation), (1, tracked.unwrap().order));
        count += 1;
    }
    let used = store.hubs().await.unwrap()[0].1;
    assert_eq!((used.homes, used.arriving, store.unfinished().await.unwrap().len() as u64), (count, count, count));
    count
}

async fn every_moment(quick_repair: bool, usual_stride: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(Config::at(&path), Hooks::default()).unwrap();
    store.commit(changes([put_hub(hub("a"))])).await.unwrap();
    drop(store);
    let disk = Disk::holding(fs::read(&path).unwrap());
    let quick_repair_from = if quick_repair { 0 } else { u64::MAX };
    let config = Config { cache_bytes: CACHE, quick_repair_from, ..Config::at(&path) };
    let store = RedbStore::on(disk.clone(), config, Hooks::default()).unwrap();
    // The operations that had been done when each commit was acknowledged.
    let mut acknowledged = Vec::new();
    for number in 0..COMMITS {
        store.commit(nth(number)).await.unwrap();
        acknowledged.push(disk.done());
    }
    drop(store);
    let mut images = 0;
    for moment in (0..=disk.done()).step_by(stride(usual_stride)) {
        let promised = acknowledged.iter().filter(|done| **done <= moment).count() as u64;
        let seed = moment as u64 * 2;
        for arrived in [Arrived::All, Arrived::Nothing, Arrived::Some(seed), Arrived::Some(seed + 1)] {
            let image = disk.image(moment, arrived);
            let config = Config { cache_bytes: CACHE, ..Config::at(&path) };
            let left = RedbStore::on(Disk::holding(image.clone()), config.clone(), Hooks::default()).unwrap();
            let found = present(left).await;
            assert!(found >= promised, "after {moment} operations, {arrived:?}: {found} of {promised} commits");
            images += 1;
            if images % FILES == 0 {
                fs::write(&path, image).unwrap();
                assert_eq!(check(&path, CACHE, |_| {}).unwrap(), []);
                assert_eq!(present(RedbStore::open(config, Hooks::default()).unwrap()).await, found);
            }
        }
    }
    println!("store, quick repair {quick_repair}: {} operations, {images} images, nothing lost", disk.done());
    assert!(images > 50);
}

#[tokio::test]
async fn a_power_cut_at_any_moment_loses_no_commit() {
    every_moment(false, 5).await;
}

#[tokio::test]
async fn nor_with_quick_repair() {
    every_moment(true, 9).await;
}
