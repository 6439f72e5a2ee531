//! What a server uses up: processor time, memory, what it wrote and how often it synced.
//!
//! Processor and memory come from the system's `/proc`, when the process is known and the system has one; syncs from the
//! server's metrics. What is not known is left out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ambient::{Clock as _, SystemClock};

/// The unit of processor time in `/proc`: the same on every Linux that a program can meet.
const TICKS_PER_SECOND: u64 = 100;
/// How often the memory is looked at.
const SAMPLED_EVERY: Duration = Duration::from_millis(100);
/// An answer of the metrics endpoint; ours is some 100 KiB.
const METRICS_BYTES_MAX: u64 = 8 * 1024 * 1024;
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// Which server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    pub process: Option<u32>,
    pub metrics: Option<SocketAddr>,
}

/// What a server had used up by a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    pub cpu: Option<Duration>,
    pub written_bytes: Option<u64>,
    pub syncs: Option<u64>,
}

impl Reading {
    /// What was used up since an earlier reading.
    pub fn since(self, earlier: Reading) -> Reading {
        Reading {
            cpu: self.cpu.zip(earlier.cpu).map(|(now, then)| now.saturating_sub(then)),
            written_bytes: self.written_bytes.zip(earlier.written_bytes).map(|(now, then)| now.saturating_sub(then)),
            syncs: self.syncs.zip(earlier.syncs).map(|(now, then)| now.saturating_sub(then)),
        }
    }

    pub fn plus(self, other: Reading) -> Reading {
        Reading {
            cpu: self.cpu.zip(other.cpu).map(|(one, other)| one + other),
            written_bytes: self.written_bytes.zip(other.written_bytes).map(|(one, other)| one + other),
            syncs: self.syncs.zip(other.syncs).map(|(one, other)| one + other),
        }
    }
}

impl Meter {
    pub async fn read(&self) -> Reading {
        let syncs = match self.metrics {
            Some(address) => {
                let text = tokio::time::timeout(METRICS_TIMEOUT, scrape(address)).await;
                text.ok().and_then(Result::ok).map(|text| sum_of(&text, "rehome_disk_syncs_total"))
            }
            None => None,
        };
        Reading {
            cpu: self.proc_file("stat").as_deref().and_then(cpu_of),
            written_bytes: self.proc_file("io").as_deref().and_then(|text| field(text, "write_bytes:")),
            syncs,
        }
    }

    /// Bytes of memory in use now.
    pub fn memory(&self) -> Option<u64> {
        field(&self.proc_file("status")?, "VmRSS:").map(|kib| kib * 1024)
    }

    fn proc_file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(PathBuf::from(format!("/proc/{}/{name}", self.process?))).ok()
    }

    /// Watches the memory until the watch is ended.
    pub fn watch_memory(self) -> MemoryWatch {
        let (peak, stop) = (Arc::new(AtomicU64::new(self.memory().unwrap_or(0))), Arc::new(AtomicBool::new(false)));
        let watch = MemoryWatch { peak: peak.clone(), stop: stop.clone() };
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(self.memory().unwrap_or(0), Ordering::Relaxed);
                SystemClock.sleep(SAMPLED_EVERY).await;
            }
        });
        watch
    }
}

/// Knows the most memory that was in use since it began; ends when it is dropped.
#[derive(Debug)]
pub struct MemoryWatch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl MemoryWatch {
    pub fn peak(&self) -> Option<u64> {
        Some(self.peak.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// User and system time. The second field is a name that may hold blanks and parentheses: count from its end.
fn cpu_of(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// The number after a name at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// A metric's values under all its labels, added up.
fn sum_of(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        value.trim().parse::<u64>().ok()
    });
    values.sum()
}

/// One answer of the metrics endpoint. HTTP/1.0, so that the answer ends with the connection.
async fn scrape(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(METRICS_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 7 0";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        for broken in ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 a b"] {
            assert_eq!(cpu_of(broken), None, "{broken}");
        }
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let text = "VmPeak:\t 9 kB\nVmRSS:\t  123 kB\nwrite_bytes: 4096\n";
        assert_eq!(field(text, "VmRSS:"), Some(123));
        assert_eq!(field(text, "write_bytes:"), Some(4096));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    #[test]
    fn a_metric_is_the_sum_of_its_labels() {
        let text = "# HELP x_total x\n# TYPE x_total counter\nx_total{file=\"a\"} 3\nx_total{file=\"b}\"} 4\n\
                    x_total_more 9\nx_total 5\n";
        assert_eq!(sum_of(text, "x_total"), 12);
        assert_eq!(sum_of(text, "y_total"), 0);
    }

    #[test]
    fn what_is_not_known_stays_unknown() {
        let known = Reading { cpu: Some(Duration::from_secs(5)), written_bytes: Some(10), syncs: None };
        let earlier = Reading { cpu: Some(Duration::from_secs(2)), written_bytes: None, syncs: Some(1) };
        let expected = Reading { cpu: Some(Duration::from_secs(3)), written_bytes: None, syncs: None };
        assert_eq!(known.since(earlier), expected);
        assert_eq!(known.plus(earlier).cpu, Some(Duration::from_secs(7)));
    }
}
