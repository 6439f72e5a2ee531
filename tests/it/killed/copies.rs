//! A hub is put back to a backup while everybody writes: what it accepted since then is lost, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rehome::client::{Operator, ReconcileNews, ReconcileOutcome, ReconciledDevice};
use rehome::domain::limits::VERSIONS_SKIPPED;

use super::ledger::Gap;
use super::stage::Stage;
use super::{DEVICES, HUBS, RESET, below, name, places, started};
use crate::serving::Serving;
use crate::world::{back_up, hub_id, settled, tell_hubs_where_they_are};
use rehome::ambient::SeededEntropy;

/// A backup, and the highest versions that had been acknowledged before it was begun.
pub struct Copy {
    folder: PathBuf,
    reported: Vec<u64>,
    tags: Vec<u64>,
}

/// What one device may have lost of both sides.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    pub number: usize,
    pub reported: Gap,
    pub tags: Gap,
}

impl Copy {
    pub async fn make(operator: &Operator, folder: &Path, stage: &Stage) -> Self {
        let all = || stage.acknowledged.iter();
        let reported = all().map(|it| it.reported.load(Ordering::Relaxed)).collect();
        let tags = all().map(|it| it.tags.load(Ordering::Relaxed)).collect();
        back_up(operator, folder).await;
        Self { folder: folder.to_owned(), reported, tags }
    }

    /// Puts one hub of a stopped service back.
    pub fn put_back(&self, hub: &str, data: &Path) {
        let name = format!("hub-{hub}.redb");
        std::fs::copy(self.folder.join(&name), data.join(&name)).unwrap();
    }
}

/// What a reconcile tells of devices, until it is over or so many have been told.
async fn told(operator: &Operator, dry_run: bool, at_most: usize) -> Vec<ReconciledDevice> {
    let mut news = operator.reconcile(None, dry_run).await.unwrap();
    let mut devices = Vec::new();
    while devices.len() < at_most
        && let Some(one) = news.next().await.unwrap()
    {
        match one {
            ReconcileNews::Device(device) => devices.push(device),
            ReconcileNews::HubBegun { .. } | ReconcileNews::HubDone { .. } => {}
            ReconcileNews::StoreBegun { .. } | ReconcileNews::StoreDone => panic!("the store was not put back"),
        }
    }
    devices
}

/// Goes through the hub that was put back, and is killed on the way there; then to the end. Nobody else calls meanwhile.
pub async fn gone_through(
    serving: Serving,
    folder: &Path,
    hub: &str,
    copy: &Copy,
    stage: &Stage,
    random: &SeededEntropy,
) -> (Serving, Vec<Lost>) {
    let operator = serving.site.operator().await;
    tell_hubs_where_they_are(&operator, serving.site.address).await;
    for hub in HUBS {
        operator.bring_up_hub(&hub_id(hub)).await.unwrap();
    }
    assert!(operator.hub(&hub_id(hub)).await.unwrap().usage.restored, "{hub} was put back");
    let foreseen = told(&operator, true, usize::MAX).await;
    told(&operator, false, below(random, 1 + foreseen.len() as u64) as usize).await;
    drop(operator);
    serving.kill();
    let serving = started(folder).await;
    let operator = serving.site.operator().await;
    tell_hubs_where_they_are(&operator, serving.site.address).await;
    let again = told(&operator, false, usize::MAX).await;
    assert!(!operator.hub(&hub_id(hub)).await.unwrap().usage.restored, "{hub} is in again: {again:?}");
    let mut lost = Vec::new();
    for number in 0..DEVICES {
        settled(&operator, &name(number)).await;
        for device in foreseen.iter().filter(|it| it.device.as_str() == name(number)) {
            assert_eq!(device.hub, hub_id(hub));
            match device.outcome {
                ReconcileOutcome::Kept
                | ReconcileOutcome::Replaced
                | ReconcileOutcome::Recreated
                | ReconcileOutcome::StartedAnew => lost.extend(gap(&operator, device, number, copy, stage).await),
                ReconcileOutcome::AsJournaled | ReconcileOutcome::Collected => {}
                ReconcileOutcome::Unknown | ReconcileOutcome::HomeCorrected | ReconcileOutcome::Missing => {
                    panic!("{device:?}")
                }
            }
        }
    }
    (serving, lost)
}

/// The versions that the device's state lacks, by what was said of it and what it has now.
async fn gap(
    operator: &Operator,
    device: &ReconciledDevice,
    number: usize,
    copy: &Copy,
    stage: &Stage,
) -> Option<Lost> {
    let places = places(operator, number).await;
    let [(_, here)] = places.as_slice() else { panic!("{} is at {places:?}", name(number)) };
    let twin = &here.state.twin;
    // Of the state that it goes on from, before its versions skipped ahead.
    let base = device.version.expect("it was looked at") - VERSIONS_SKIPPED;
    let (reported, tags) = (copy.reported[number], copy.tags[number]);
    assert!(base >= tags, "{device:?}: {base} is older than the backup, {tags}");
    // Both go ahead by the same; a reset that was under way counts the versions up on the way.
    let of_reported = (twin.reported.version + base).checked_sub(twin.version);
    let reported_base = match RESET.contains(&number) {
        true => reported,
        false => of_reported.unwrap_or_else(|| panic!("{device:?}: {twin:?}")),
    };
    assert!(reported_base >= reported, "{device:?}: {reported_base} is older than the backup, {reported}");
    let now = &stage.acknowledged[number];
    let gap = |after, up_to| Gap { after, up_to };
    Some(Lost {
        number,
        reported: gap(reported_base, now.reported.load(Ordering::Relaxed)),
        tags: gap(base, now.tags.load(Ordering::Relaxed)),
    })
}
