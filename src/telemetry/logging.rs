//! The subscriber: what is written, in which format, where to.
//!
//! Nothing else in the service writes to standard error.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use super::span::REGISTRATION;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingFault {
    #[error("the log filter {filter:?} cannot be read")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("another logger is installed in this process")]
    Foreign,
}

/// Sends the log of this process to standard error. `filter` is a level or a list as `info,rehome=debug`.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), LoggingFault> {
    let subscriber = logger(format, filter, std::io::stderr().is_terminal(), std::io::stderr)?;
    set_global_default(subscriber).map_err(|_| LoggingFault::Foreign)
}

/// A subscriber that writes to `writer`.
pub fn logger<W>(
    format: LogFormat,
    filter: &str,
    colours: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, LoggingFault>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Spans of a registration are errors by their level: so no other part of the program is asked for more than it is to
    // write.
    let registrations = filter_fn(|metadata| metadata.is_span() && metadata.name() == REGISTRATION)
        .with_max_level_hint(LevelFilter::ERROR);
    let filter = filter
        .parse::<Targets>()
        .map_err(|source| LoggingFault::Filter { filter: filter.to_owned(), source })?
        .or(registrations);
    let lines = match format {
        LogFormat::Human => fmt::layer().with_ansi(colours).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .with_writer(writer)
            .boxed(),
    };
    Ok(Registry::default().with(lines.with_filter(filter)))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::{Instrument, debug, info, warn};

    use super::super::span::{operation_started, registration_span};
    use super::*;
    use crate::domain::{OperationId, RegistrationId};

    /// Keeps what was written.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn all(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Lines;

        fn make_writer(&'a self) -> Lines {
            self.clone()
        }
    }

    fn ids() -> (RegistrationId, OperationId) {
        (RegistrationId::parse("meter-17").unwrap(), OperationId(0x0abc))
    }

    /// The lines that `write` leaves under a filter.
    fn captured(format: LogFormat, filter: &str, write: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        tracing::subscriber::with_default(logger(format, filter, false, lines.clone()).unwrap(), write);
        lines.all()
    }

    /// One registration as the service runs it: the call, a task of the actor, a thread of a hub.
    fn registration() {
        let (registration_id, operation_id) = ids();
        let span = registration_span(&registration_id, None);
        operation_started(&span, &operation_id);
        span.in_scope(|| info!("decided"));
        let hub_call = async { warn!(hub = "hub-a", "hub did not answer") }.instrument(span.clone());
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(hub_call);
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let other = span.clone();
        std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || other.in_scope(|| warn!("sealed")));
        })
        .join()
        .unwrap();
        drop(span);
        warn!("outside");
    }

    #[test]
    fn every_json_line_of_a_registration_carries_its_ids() {
        let lines = captured(LogFormat::Json, "info", registration);
        let messages: Vec<(String, Option<(String, String)>)> = lines
            .iter()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                let ids = value["spans"]
                    .as_array()
                    .and_then(|spans| spans.iter().find(|span| span["name"] == "registration"))
                    .map(|span| (text(&span["registration_id"]), text(&span["operation_id"])));
                (text(&value["message"]), ids)
            })
            .collect();
        let (registration_id, operation_id) = ids();
        let carried = Some((registration_id.to_string(), operation_id.to_string()));
        assert_eq!(
            messages,
            [
                ("decided".to_owned(), carried.clone()),
                ("hub did not answer".to_owned(), carried.clone()),
                ("sealed".to_owned(), carried),
                ("outside".to_owned(), None),
            ]
        );
    }

    #[test]
    fn every_human_line_of_a_registration_carries_its_ids() {
        let lines = captured(LogFormat::Human, "info", registration);
        let (_, operation_id) = ids();
        let expected = format!("registration_id=meter-17 operation_id={operation_id}");
        let carrying: Vec<bool> = lines.iter().map(|line| line.contains(&expected)).collect();
        assert_eq!(carrying, [true, true, true, false], "{lines:#?}");
    }

    #[test]
    fn a_filter_hides_lines_and_never_ids() {
        for (filter, expected) in [
            ("warn", 3),
            ("error,rehome::telemetry=warn", 3),
            ("off,rehome::telemetry=info", 4),
            ("error", 0),
            ("off", 0),
        ] {
            let lines = captured(LogFormat::Json, filter, registration);
            assert_eq!(lines.len(), expected, "{filter}: {lines:#?}");
            let with_ids = lines.iter().filter(|line| line.contains("meter-17")).count();
            assert_eq!(with_ids, expected.saturating_sub(1), "{filter}: {lines:#?}");
        }
        assert!(captured(LogFormat::Human, "info", || debug!("detail")).is_empty());
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let fault = logger(LogFormat::Human, "rehome=loudly", false, Lines::default()).err().unwrap();
        assert_eq!(fault.to_string(), "the log filter \"rehome=loudly\" cannot be read");
    }
}
