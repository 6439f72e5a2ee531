//! Those who watch desired properties: each has a short queue that never makes the writer wait.
//!
//! Invariant: a watcher sees the whole document first, then every patch in turn; one that falls behind sees the whole
//! document of that moment in place of the patches it missed. It holds because a watcher is entered and its snapshot is
//! read under the lock under which notices are published, and every notice carries its version.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, mpsc};

use super::DesiredEvent;
use crate::domain::{DeviceId, Document};

/// Patches that wait for a slow reader before they are folded into one whole document: at 32 KiB each half a MiB.
const QUEUE_MAX: usize = 16;
/// Events in the channel itself. One is enough: what waits, waits in the queue, where it can still be folded.
const CHANNEL_MAX: usize = 1;
/// Watchers of one device. A device has one; the others are connections that it has lost and nobody has noticed yet.
const WATCHERS_PER_DEVICE_MAX: usize = 8;

/// The desired properties at a version.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeDesired {
    pub desired: Document,
    pub version: u64,
}

/// What has happened to a device that may be watched.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// `whole` is the outcome, for readers that fell behind.
    Patched {
        patch: Document,
        version: u64,
        whole: WholeDesired,
    },
    Replaced(WholeDesired),
    /// It is sealed or has left.
    Closed,
    /// Watching ends without a word: come back and be judged anew.
    Ended,
}

/// The watchers of one hub. Dropping it ends them all.
#[derive(Debug, Default)]
pub struct Watchers {
    registry: Arc<Mutex<Registry>>,
}

#[derive(Debug, Default)]
struct Registry {
    next: u64,
    by_device: HashMap<DeviceId, Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<DesiredEvent>,
    /// The version that the last event in the queue leads to.
    version: u64,
    ended: bool,
}

impl Watchers {
    /// Enters a watcher of `device`. `snapshot` is called while nothing is published; its refusal is returned.
    /// Must be called within a tokio runtime.
    pub fn enter<E>(
        &self,
        device: &DeviceId,
        snapshot: impl FnOnce() -> Result<WholeDesired, E>,
    ) -> Result<mpsc::Receiver<DesiredEvent>, E> {
        let mut registry = lock(&self.registry);
        let queue = Arc::new(Queue::default());
        queue.push_whole(snapshot()?);
        let id = registry.next;
        registry.next += 1;
        let watchers = registry.by_device.entry(device.clone()).or_default();
        if watchers.len() >= WATCHERS_PER_DEVICE_MAX {
            watchers.remove(0).queue.end();
        }
        watchers.push(Watcher { id, queue: queue.clone() });
        drop(registry);
        let (out, events) = mpsc::channel(CHANNEL_MAX);
        let place = Place { registry: Arc::downgrade(&self.registry), device: device.clone(), id };
        tokio::spawn(forward(queue, out, place));
        Ok(events)
    }

    /// Tells the watchers of `device`, in the order in which the changes became durable.
    pub fn publish(&self, device: &DeviceId, notice: &Notice) {
        let mut registry = lock(&self.registry);
        let last = match notice {
            Notice::Patched { .. } | Notice::Replaced(_) => false,
            Notice::Closed | Notice::Ended => true,
        };
        if let Some(watchers) = registry.by_device.get(device) {
            watchers.iter().for_each(|watcher| watcher.queue.push(notice));
        }
        if last {
            registry.by_device.remove(device);
        }
    }

    /// Ends every watch without a word.
    pub fn end_all(&self) {
        lock(&self.registry).end_all();
    }

    /// How many watch now.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        lock(&self.registry).by_device.values().map(Vec::len).sum()
    }
}

impl Registry {
    fn end_all(&mut self) {
        for (_, watchers) in self.by_device.drain() {
            watchers.iter().for_each(|watcher| watcher.queue.end());
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl Queue {
    fn push(&self, notice: &Notice) {
        match notice {
            Notice::Patched { patch, version, whole } => {
                let mut waiting = lock(&self.waiting);
                if *version <= waiting.version {
                    return;
                }
                if *version == waiting.version + 1 && waiting.events.len() < QUEUE_MAX {
                    waiting.version = *version;
                    waiting.events.push_back(DesiredEvent::Patch { patch: patch.clone(), version: *version });
                } else {
                    drop(waiting);
                    self.push_whole(whole.clone());
                }
            }
            Notice::Replaced(whole) => self.push_whole(whole.clone()),
            Notice::Closed => {
                let mut waiting = lock(&self.waiting);
                waiting.events.push_back(DesiredEvent::Moved);
                waiting.ended = true;
            }
            Notice::Ended => self.end(),
        }
        self.arrived.notify_one();
    }

    /// A whole document takes the place of everything that waits.
    fn push_whole(&self, whole: WholeDesired) {
        let mut waiting = lock(&self.waiting);
        if whole.version > waiting.version || waiting.events.is_empty() && waiting.version == 0 {
            waiting.version = whole.version;
            waiting.events.clear();
            waiting.events.push_back(DesiredEvent::Whole { desired: whole.desired, version: whole.version });
        }
    }

    fn end(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.events.clear();
        waiting.ended = true;
        drop(waiting);
        self.arrived.notify_one();
    }

    async fn next(&self) -> Option<DesiredEvent> {
        loop {
            {
                let mut waiting = lock(&self.waiting);
                if let Some(event) = waiting.events.pop_front() {
                    return Some(event);
                }
                if waiting.ended {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }
}

/// A watcher's place in the registry, given up when its task ends, however it ends.
struct Place {
    registry: Weak<Mutex<Registry>>,
    device: DeviceId,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let mut registry = lock(&registry);
        if let Some(watchers) = registry.by_device.get_mut(&self.device) {
            watchers.retain(|watcher| watcher.id != self.id);
            if watchers.is_empty() {
                registry.by_device.remove(&self.device);
            }
        }
    }
}

async fn forward(queue: Arc<Queue>, out: mpsc::Sender<DesiredEvent>, place: Place) {
    let pass_on = async {
        // A place in the channel first: what waits for it can still be folded.
        while let Ok(room) = out.reserve().await {
            match queue.next().await {
                Some(event) => room.send(event),
                None => break,
            }
        }
    };
    tokio::select! {
        () = out.closed() => {}
        () = pass_on => {}
    }
    drop(place);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks: a panic elsewhere does not spoil what they guard.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        DeviceId::parse("d").unwrap()
    }

    fn whole(version: u64) -> WholeDesired {
        let desired = Document::from_text(&format!(r#"{{"n":{version}}}"#)).unwrap();
        WholeDesired { desired, version }
    }

    fn patched(version: u64) -> Notice {
        Notice::Patched { patch: whole(version).desired, version, whole: whole(version) }
    }

    fn enter(watchers: &Watchers, version: u64) -> mpsc::Receiver<DesiredEvent> {
        watchers.enter::<()>(&device(), || Ok(whole(version))).unwrap()
    }

    /// `W5` is a whole document, `P6` a patch, `M` the farewell, `.` the end.
    async fn seen(events: &mut mpsc::Receiver<DesiredEvent>, count: usize) -> String {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(match events.recv().await {
                Some(DesiredEvent::Whole { version, desired }) => {
                    assert_eq!(desired, whole(version).desired);
                    format!("W{version}")
                }
                Some(DesiredEvent::Patch { version, .. }) => format!("P{version}"),
                Some(DesiredEvent::Moved) => "M".to_owned(),
                None => ".".to_owned(),
            });
        }
        words.join(" ")
    }

    async fn check(first: u64, notices: &[Notice], expected: &str) {
        let watchers = Watchers::default();
        let mut events = enter(&watchers, first);
        for notice in notices {
            watchers.publish(&device(), notice);
        }
        drop(watchers);
        assert_eq!(seen(&mut events, expected.split(' ').count()).await, expected);
    }

    #[tokio::test]
    async fn a_whole_document_then_patches_without_gaps() {
        let watchers = Watchers::default();
        let mut events = enter(&watchers, 5);
        assert_eq!(seen(&mut events, 1).await, "W5");
        for version in 5..=8 {
            // Version 5 is in the snapshot already.
            watchers.publish(&device(), &patched(version));
        }
        assert_eq!(seen(&mut events, 3).await, "P6 P7 P8");
        watchers.publish(&device(), &patched(11));
        assert_eq!(seen(&mut events, 1).await, "W11", "a gap is closed by a whole document");
        watchers.publish(&device(), &Notice::Replaced(whole(12)));
        watchers.publish(&device(), &Notice::Replaced(whole(12)));
        watchers.publish(&device(), &Notice::Closed);
        assert_eq!(seen(&mut events, 3).await, "W12 M .");
        assert_eq!(watchers.len(), 0);
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_gets_the_newest_whole_document() {
        let many: Vec<Notice> = (2..=40).map(patched).chain([Notice::Closed]).collect();
        // 16 events fit beside the first: 17 is folded with all before, and again 33.
        check(1, &many, "W33 P34 P35 P36 P37 P38 P39 P40 M .").await;
        check(1, &[patched(2), Notice::Replaced(whole(3)), patched(4), Notice::Closed], "W3 P4 M .").await;
    }

    #[tokio::test]
    async fn ending_drops_what_waits() {
        check(1, &[patched(2), Notice::Ended], ".").await;
        check(1, &[patched(2)], ".").await;
    }

    #[tokio::test]
    async fn watchers_that_leave_are_forgotten_and_the_oldest_yields() {
        let watchers = Watchers::default();
        let mut all: Vec<_> = (0..=WATCHERS_PER_DEVICE_MAX).map(|_| enter(&watchers, 1)).collect();
        assert_eq!(watchers.len(), WATCHERS_PER_DEVICE_MAX);
        assert_eq!(seen(&mut all[0], 1).await, ".");
        drop(all);
        while watchers.len() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_refused_snapshot_enters_nobody() {
        let watchers = Watchers::default();
        assert_eq!(watchers.enter(&device(), || Err("no")).unwrap_err(), "no");
        assert_eq!(watchers.len(), 0);
    }
}
