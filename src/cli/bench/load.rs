//! Puts load on a server and measures: so many operations in flight, or so many a second whatever the server does.
//!
//! At a given rate an operation that is held up by the ones before it counts from the moment it was *due*, not from when
//! its turn came: else a server that stands still for a second would show one slow call in place of a second's worth.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;

use crate::ambient::Clock;
use crate::cli::output::Output;
use crate::client::{ClientFault, Handshake};

/// Quantiles are right to three digits.
const DIGITS: u8 = 3;
/// Tallies that workers share: a storm has thousands of workers, and a tally takes some hundred KiB.
const TALLIES: usize = 8;
/// How often the status line is drawn.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// When operations begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each worker begins the next one when the last one has ended.
    Closed,
    /// At an even pace.
    Open { per_second: f64 },
}

/// How much load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Workers: the most operations under way at once.
    pub in_flight: usize,
    pub pace: Pace,
    /// No operation begins later.
    pub lasts: Duration,
    /// No more than so many begin.
    pub operations_max: u64,
}

/// One operation's place in the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub worker: usize,
    /// Counts all operations from 0.
    pub index: u64,
}

/// What is told of an operation that succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub handshake: Option<Handshake>,
}

pub type Operation = Arc<dyn Fn(Turn) -> BoxFuture<'static, Result<Done, ClientFault>> + Send + Sync>;

/// What came of some load.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Microseconds of those that succeeded, and of those that did not.
    pub done: Histogram<u64>,
    pub failed: Histogram<u64>,
    pub reasons: BTreeMap<String, u64>,
    pub full_handshakes: u64,
    pub resumed_handshakes: u64,
    pub took: Duration,
}

impl Tally {
    pub fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new(DIGITS).context("a histogram cannot be made");
        Ok(Self {
            done: histogram()?,
            failed: histogram()?,
            reasons: BTreeMap::new(),
            full_handshakes: 0,
            resumed_handshakes: 0,
            took: Duration::ZERO,
        })
    }

    fn note(&mut self, outcome: Result<Done, ClientFault>, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        match outcome {
            Ok(Done { handshake }) => {
                count(&mut self.done, micros);
                match handshake {
                    Some(Handshake::Full) => self.full_handshakes += 1,
                    Some(Handshake::Resumed) => self.resumed_handshakes += 1,
                    None => {}
                }
            }
            Err(fault) => {
                count(&mut self.failed, micros);
                *self.reasons.entry(reason(&fault)).or_default() += 1;
            }
        }
    }

    /// Adds what other workers did meanwhile.
    fn join(&mut self, other: &Tally) -> anyhow::Result<()> {
        self.done.add(&other.done).context("a latency is out of range")?;
        self.failed.add(&other.failed).context("a latency is out of range")?;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        self.full_handshakes += other.full_handshakes;
        self.resumed_handshakes += other.resumed_handshakes;
        Ok(())
    }

    /// Adds what was done afterwards.
    pub fn follow(&mut self, next: &Tally) -> anyhow::Result<()> {
        self.took += next.took;
        self.join(next)
    }

    pub fn per_second(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.done.len() as f64 / self.took.as_secs_f64() }
    }
}

/// Counts a latency. The histogram grows with its values; one that it cannot grow to would be a month long.
pub fn count(histogram: &mut Histogram<u64>, micros: u64) {
    if histogram.record(micros).is_err() {
        histogram.saturating_record(micros);
    }
}

/// A word for a failure, few enough to be counted.
fn reason(fault: &ClientFault) -> String {
    match fault {
        ClientFault::Refused(remote) => remote.reason.clone().unwrap_or_else(|| format!("{:?}", remote.code)),
        ClientFault::Connect { .. } => "not connected".to_owned(),
        ClientFault::Tls { .. } => "no TLS".to_owned(),
        ClientFault::Answer(_) => "not understood".to_owned(),
        ClientFault::NotAssigned { status, .. } => match status {
            crate::client::UpdateStatus::Failed { reason, .. } => reason.clone(),
            crate::client::UpdateStatus::Assigning
            | crate::client::UpdateStatus::Assigned { .. }
            | crate::client::UpdateStatus::Disabled => status.as_str().to_owned(),
        },
        ClientFault::Address { .. }
        | ClientFault::Credentials { .. }
        | ClientFault::NoHub
        | ClientFault::Tpm(_)
        | ClientFault::Backup { .. } => "not called".to_owned(),
    }
}

/// When an operation of an open load is due, counted from the load's begin.
fn due(index: u64, per_second: f64) -> Duration {
    Duration::try_from_secs_f64(index as f64 / per_second).unwrap_or(Duration::MAX)
}

/// Runs the load and waits for the last operation to end.
pub async fn run(
    name: &str,
    plan: Plan,
    operation: Operation,
    clock: Arc<dyn Clock>,
    output: Output,
) -> anyhow::Result<Tally> {
    let next = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicU64::new(0));
    let began = clock.monotonic();
    let tallies = (0..TALLIES).map(|_| Ok(Arc::new(Mutex::new(Tally::new()?)))).collect::<anyhow::Result<Vec<_>>>()?;
    let workers = (0..plan.in_flight).map(|worker| {
        let (next, ended, clock) = (next.clone(), ended.clone(), clock.clone());
        let tally = tallies[worker % TALLIES].clone();
        tokio::spawn(work(Worker { worker, plan, began, next, ended, clock, tally }, operation.clone()))
    });
    let workers: Vec<_> = workers.collect();
    let shown = {
        let (name, ended) = (name.to_owned(), ended.clone());
        tokio::spawn(show(name, plan, began, ended, clock.clone(), output))
    };
    let mut all = Tally::new()?;
    for worker in workers {
        worker.await.context("a worker of the load broke off")?;
    }
    all.took = clock.monotonic().saturating_sub(began);
    for tally in &tallies {
        all.join(&tally.lock().unwrap_or_else(PoisonError::into_inner))?;
    }
    shown.abort();
    // Its last line is wiped by then.
    let _ = shown.await;
    Ok(all)
}

struct Worker {
    worker: usize,
    plan: Plan,
    began: Duration,
    next: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    tally: Arc<Mutex<Tally>>,
}

async fn work(this: Worker, operation: Operation) {
    let Worker { worker, plan, began, next, ended, clock, tally } = this;
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= plan.operations_max {
            return;
        }
        let now = clock.monotonic();
        let from = match plan.pace {
            Pace::Closed => now,
            Pace::Open { per_second } => began + due(index, per_second),
        };
        if from.saturating_sub(began) >= plan.lasts {
            return;
        }
        let from = match from.checked_sub(now) {
            Some(early) if !early.is_zero() => {
                clock.sleep(early).await;
                // What the timer is late is not the server's doing.
                clock.monotonic()
            }
            Some(_) | None => from,
        };
        let outcome = operation(Turn { worker, index }).await;
        let took = clock.monotonic().saturating_sub(from);
        tally.lock().unwrap_or_else(PoisonError::into_inner).note(outcome, took);
        ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Draws how far it is until it is aborted.
async fn show(name: String, plan: Plan, began: Duration, ended: Arc<AtomicU64>, clock: Arc<dyn Clock>, output: Output) {
    let mut progress = output.progress();
    let (mut last, mut last_at) = (0, began);
    loop {
        clock.sleep(SHOWN_EVERY).await;
        let (now, count) = (clock.monotonic(), ended.load(Ordering::Relaxed));
        let rate = (count - last) as f64 / now.saturating_sub(last_at).as_secs_f64().max(0.001);
        let left = plan.lasts.saturating_sub(now.saturating_sub(began)).as_secs();
        let left = if plan.operations_max == u64::MAX {
            format!("{left} s left")
        } else {
            format!("{} left", plan.operations_max.saturating_sub(count))
        };
        progress.update(&format!("{name}: {count} done, {rate:.0}/s, {left}"));
        (last, last_at) = (count, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::{ManualClock, SystemClock};

    const QUIET: Output = Output { json: true };

    fn counting(fail_every: u64) -> Operation {
        Arc::new(move |turn: Turn| {
            Box::pin(async move {
                if turn.index.is_multiple_of(fail_every) {
                    Err(ClientFault::NoHub)
                } else {
                    Ok(Done { handshake: Some(Handshake::Full) })
                }
            })
        })
    }

    #[tokio::test]
    async fn every_operation_is_counted_once_by_how_it_ended() {
        let plan = Plan { in_flight: 7, pace: Pace::Closed, lasts: Duration::from_secs(3600), operations_max: 1_000 };
        let tally = run("x", plan, counting(10), Arc::new(SystemClock), QUIET).await.unwrap();
        assert_eq!((tally.done.len(), tally.failed.len(), tally.full_handshakes), (900, 100, 900));
        assert_eq!(tally.reasons, BTreeMap::from([("not called".to_owned(), 100)]));

        let mut both = tally.clone();
        both.follow(&tally).unwrap();
        assert_eq!((both.done.len(), both.took), (1_800, tally.took * 2));
    }

    #[tokio::test]
    async fn a_load_that_may_not_last_does_nothing() {
        for pace in [Pace::Closed, Pace::Open { per_second: 5.0 }] {
            let plan = Plan { in_flight: 2, pace, lasts: Duration::ZERO, operations_max: u64::MAX };
            let tally = run("x", plan, counting(2), Arc::new(SystemClock), QUIET).await.unwrap();
            assert_eq!(tally.done.len() + tally.failed.len(), 0);
        }
    }

    #[test]
    fn an_open_load_is_even() {
        for (index, per_second, expected_us) in [(0, 10.0, 0), (1, 10.0, 100_000), (5, 2.0, 2_500_000)] {
            assert_eq!(due(index, per_second), Duration::from_micros(expected_us), "{index} {per_second}");
        }
        assert_eq!(due(1, 0.0), Duration::MAX);
    }

    /// One worker, one operation that takes long: the ones that were due meanwhile have waited, and it shows.
    #[tokio::test]
    async fn who_is_held_up_counts_from_when_it_was_due() {
        let clock = Arc::new(ManualClock::default());
        let passing = clock.clone();
        let operation: Operation = Arc::new(move |turn: Turn| {
            if turn.index == 0 {
                passing.advance(Duration::from_millis(60));
            }
            Box::pin(async { Ok(Done::default()) })
        });
        let plan = Plan {
            in_flight: 1,
            pace: Pace::Open { per_second: 100.0 },
            lasts: Duration::from_secs(3600),
            operations_max: 3,
        };
        let tally = run("x", plan, operation, clock, QUIET).await.unwrap();
        // They were due at 0, 10 and 20 ms, and all ended at 60.
        for micros in [60_000, 50_000, 40_000] {
            assert_eq!(tally.done.count_at(micros), 1, "{micros}");
        }
    }
}
