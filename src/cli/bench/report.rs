//! What was measured, as it is shown.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::output::Listed;

use super::load::Tally;
use super::meter::Reading;

/// The unit that the system writes in: redb's page, and the file system's block.
const PAGE_BYTES: f64 = 4096.0;

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub scenario: String,
    /// From 1.
    pub round: u32,
    pub devices: usize,
    pub in_flight: usize,
    /// Of an open load.
    pub offered_per_second: Option<f64>,
    pub seconds: f64,
    pub operations: u64,
    pub operations_per_second: f64,
    pub latency_ms: Latency,
    /// By reason.
    pub failed: BTreeMap<String, u64>,
    /// How soon a failed one was answered.
    pub failed_latency_ms: Option<Latency>,
    pub full_handshakes: u64,
    pub resumed_handshakes: u64,
    /// Per operation that succeeded, as the three below; of the server's process.
    pub server_cpu_us: Option<f64>,
    pub written_bytes: Option<f64>,
    /// Pages of 4 KiB.
    pub written_pages: Option<f64>,
    pub syncs: Option<f64>,
    /// While it was measured.
    pub server_memory_peak_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: micros.max() as f64 / 1000.0 }
    }
}

/// What was measured under which name.
#[derive(Debug, Clone)]
pub struct Heading {
    pub scenario: String,
    pub round: u32,
    pub devices: usize,
    pub in_flight: usize,
    pub offered_per_second: Option<f64>,
}

impl Row {
    pub fn of(heading: Heading, tally: &Tally, used: Reading, memory: Option<u64>) -> Self {
        let operations = tally.done.len();
        let each = |total: Option<f64>| total.filter(|_| operations > 0).map(|total| total / operations as f64);
        let written = used.written_bytes.map(|bytes| bytes as f64);
        Self {
            scenario: heading.scenario,
            round: heading.round,
            devices: heading.devices,
            in_flight: heading.in_flight,
            offered_per_second: heading.offered_per_second,
            seconds: tally.took.as_secs_f64(),
            operations,
            operations_per_second: tally.per_second(),
            latency_ms: Latency::of(&tally.done),
            failed: tally.reasons.clone(),
            failed_latency_ms: (!tally.failed.is_empty()).then(|| Latency::of(&tally.failed)),
            full_handshakes: tally.full_handshakes,
            resumed_handshakes: tally.resumed_handshakes,
            server_cpu_us: each(used.cpu.map(|cpu| cpu.as_secs_f64() * 1e6)),
            written_bytes: each(written),
            written_pages: each(written.map(|bytes| bytes / PAGE_BYTES)),
            syncs: each(used.syncs.map(|syncs| syncs as f64)),
            server_memory_peak_bytes: memory,
        }
    }
}

/// The rounds of one scenario: the middle one, with the spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    #[serde(flatten)]
    pub median: Row,
    pub rounds: Vec<Row>,
}

impl Summary {
    /// Of rows of several scenarios, in the order of their first round.
    pub fn all(rows: Vec<Row>) -> Vec<Self> {
        let mut names: Vec<String> = Vec::new();
        for row in &rows {
            if !names.contains(&row.scenario) {
                names.push(row.scenario.clone());
            }
        }
        let of = |name: &String| {
            let rounds: Vec<Row> = rows.iter().filter(|row| row.scenario == *name).cloned().collect();
            let mut by_rate = rounds.clone();
            by_rate.sort_by(|one, other| one.operations_per_second.total_cmp(&other.operations_per_second));
            let median = by_rate.get(by_rate.len() / 2)?.clone();
            Some(Self { median, rounds })
        };
        names.iter().filter_map(of).collect()
    }

    fn spread(&self) -> String {
        let rates = || self.rounds.iter().map(|row| row.operations_per_second);
        let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        if self.rounds.len() > 1 { format!("{least:.0}-{most:.0}") } else { "-".to_owned() }
    }
}

impl Listed for Summary {
    const HEADINGS: &'static [&'static str] = &[
        "scenario",
        "ops/s",
        "min-max",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "max",
        "failed",
        "full",
        "resumed",
        "cpu µs/op",
        "pages/op",
        "syncs/op",
        "peak MiB",
    ];

    fn cells(&self) -> Vec<String> {
        let row = &self.median;
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let failed: Vec<String> = row.failed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let Latency { p50, p90, p99, p999, max } = row.latency_ms;
        vec![
            row.scenario.clone(),
            format!("{:.0}", row.operations_per_second),
            self.spread(),
            format!("{p50:.2}"),
            format!("{p90:.2}"),
            format!("{p99:.2}"),
            format!("{p999:.2}"),
            format!("{max:.1}"),
            if failed.is_empty() { "-".to_owned() } else { failed.join(", ") },
            row.full_handshakes.to_string(),
            row.resumed_handshakes.to_string(),
            number(row.server_cpu_us, 0),
            number(row.written_pages, 2),
            number(row.syncs, 3),
            number(row.server_memory_peak_bytes.map(|bytes| bytes as f64 / 1_048_576.0), 0),
        ]
    }
}

/// One measurement as a line for people.
pub fn line(row: &Row) -> String {
    let failed: u64 = row.failed.values().sum();
    format!(
        "{} (round {}): {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {failed} failed",
        row.scenario, row.round, row.operations_per_second, row.latency_ms.p50, row.latency_ms.p99
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(scenario: &str, round: u32, per_second: u64) -> Row {
        let mut tally = Tally::new().unwrap();
        tally.took = Duration::from_secs(1);
        tally.done.record_n(2_000, per_second).unwrap();
        let heading =
            Heading { scenario: scenario.to_owned(), round, devices: 5, in_flight: 2, offered_per_second: None };
        let used =
            Reading { cpu: Some(Duration::from_secs(1)), written_bytes: Some(4096 * 30), syncs: Some(per_second / 10) };
        Row::of(heading, &tally, used, Some(1 << 20))
    }

    #[test]
    fn what_was_used_is_told_for_each_operation() {
        let row = row("warm", 1, 100);
        assert_eq!((row.operations, row.operations_per_second), (100, 100.0));
        assert_eq!((row.server_cpu_us, row.written_pages, row.syncs), (Some(10_000.0), Some(0.3), Some(0.1)));
        assert!((row.latency_ms.p50 - 2.0).abs() < 0.01, "{:?}", row.latency_ms);
        let none = Row::of(
            Heading { scenario: String::new(), round: 1, devices: 0, in_flight: 1, offered_per_second: None },
            &Tally::new().unwrap(),
            Reading { cpu: Some(Duration::from_secs(1)), ..Reading::default() },
            None,
        );
        assert_eq!((none.server_cpu_us, none.operations_per_second), (None, 0.0), "nothing is divided by nothing");
    }

    #[test]
    fn the_middle_round_stands_for_all() {
        let rows = vec![row("warm", 1, 300), row("cold", 1, 10), row("warm", 2, 100), row("warm", 3, 200)];
        let all = Summary::all(rows);
        let told: Vec<_> = all.iter().map(|it| (it.median.scenario.as_str(), it.median.round, it.spread())).collect();
        assert_eq!(told, [("warm", 3, "100-300".to_owned()), ("cold", 1, "-".to_owned())]);
        assert_eq!(all[0].cells().len(), Summary::HEADINGS.len());
    }
}
