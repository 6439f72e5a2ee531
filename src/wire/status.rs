//! Faults as gRPC statuses and back: the one place where a kind gets its code.
//!
//! Everything that goes into a status is bounded, since it travels in headers.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::domain::{Fault, Kind, Reason};

/// The domain of every reason of ours (`google.rpc.ErrorInfo`).
pub const ERROR_DOMAIN: &str = "rehome";

/// A message quotes what the caller sent (a key of a document is up to 1 KiB), travels twice and escaped, and some
/// clients take no more than 8 KiB of headers.
const MESSAGE_CHARS_MAX: usize = 400;
const METADATA_CHARS_MAX: usize = 256;

fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        // Not *aborted*, which some clients repeat as it is: here the caller has to look first.
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Internal => Code::Internal,
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = code_of(fault.kind());
        let mut details = ErrorDetails::new();
        let metadata: HashMap<String, String> = fault
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), shortened(value, METADATA_CHARS_MAX)))
            .collect();
        details.set_error_info(fault.reason.as_str(), ERROR_DOMAIN, metadata);
        if let Some(span) = fault.retry_after {
            details.set_retry_info(Some(span));
        }
        Status::with_error_details(code, shortened(&fault.message, MESSAGE_CHARS_MAX), details)
    }
}

fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A refusal as a client receives it. The reason stays text: a newer service may know more of them than this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFault {
    pub code: Code,
    /// Absent when what answered is not this service, or the call never got through it.
    pub reason: Option<String>,
    pub message: String,
    pub metadata: HashMap<String, String>,
    pub retry_after: Option<Duration>,
}

impl RemoteFault {
    /// The reason, when this build knows it.
    pub fn known_reason(&self) -> Option<Reason> {
        let text = self.reason.as_deref()?;
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl From<&Status> for RemoteFault {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()),
            message: status.message().to_owned(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for RemoteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.message)?,
            None if self.message.is_empty() => write!(f, "{}", self.code)?,
            None => write!(f, "{} ({:?})", self.message, self.code)?,
        }
        match self.metadata.get("tracking_id") {
            Some(id) => write!(f, ", tracking id {id}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RemoteFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_travels_and_comes_back() {
        for reason in Reason::ALL {
            let fault = Fault::new(*reason, "what is wrong").with("hub", "hub-a").retry_after(Duration::from_secs(3));
            let remote = RemoteFault::from(&Status::from(fault));
            assert_eq!(remote.known_reason(), Some(*reason));
            assert_eq!(remote.code, code_of(reason.kind()));
            assert_eq!(remote.metadata.get("hub").map(String::as_str), Some("hub-a"));
            assert_eq!(remote.retry_after, Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn codes_are_told_apart_by_kind() {
        for (reason, code) in [
            (Reason::RegistrationRefused, Code::Unauthenticated),
            (Reason::NotYours, Code::PermissionDenied),
            (Reason::InvalidArgument, Code::InvalidArgument),
            (Reason::HubNotFound, Code::NotFound),
            (Reason::EtagMismatch, Code::FailedPrecondition),
            (Reason::Overloaded, Code::ResourceExhausted),
            (Reason::DeviceMoving, Code::Unavailable),
            (Reason::Internal, Code::Internal),
        ] {
            assert_eq!(Status::from(Fault::new(reason, "x")).code(), code, "{reason}");
        }
    }

    #[test]
    fn a_stranger_s_status_has_no_reason_of_ours() {
        let plain = RemoteFault::from(&Status::unavailable("proxy is away"));
        assert_eq!((plain.reason.as_deref(), plain.retry_after), (None, None));
        assert_eq!(plain.to_string(), "proxy is away (Unavailable)");
        let foreign = ErrorDetails::with_error_info("X", "elsewhere.example", HashMap::new());
        let status = Status::with_error_details(Code::Aborted, "no", foreign);
        assert_eq!(RemoteFault::from(&status).reason, None);
        let newer = ErrorDetails::with_error_info("NOT_KNOWN_HERE", ERROR_DOMAIN, HashMap::new());
        let newer = RemoteFault::from(&Status::with_error_details(Code::Aborted, "no", newer));
        assert_eq!((newer.reason.as_deref(), newer.known_reason()), (Some("NOT_KNOWN_HERE"), None));
    }

    #[test]
    fn what_callers_send_does_not_blow_up_headers() {
        let long = "ä".repeat(10_000);
        let status = Status::from(Fault::new(Reason::TwinInvalid, long.clone()).with("field", long));
        assert_eq!(status.message().chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(status.details().len() < 2_000);
    }
}
