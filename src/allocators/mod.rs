//! Allocation that is asked outside: the port, and its webhook adapter, the only HTTP client of the service.
//!
//! An answer is advice. Which hub it leads to, if any, is decided in `policy`.

mod contract;
mod target;
mod trust;
mod webhook;

#[cfg(test)]
mod samples;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::{
    DeviceId, Document, Enrollment, HubId, RegistrationId, Thumbprint, Timestamp, TwinFault, WebhookPolicy,
};

#[cfg(feature = "testing")]
pub use contract::read as read_answer;
pub use trust::TrustFault;
pub use webhook::Webhook;

/// Somebody outside who says which hub a device should have.
///
/// One call is one try: the caller decides whether a failed registration is tried again. A call never takes longer than
/// the adapter's own limit, and it may be dropped at any time.
pub trait Allocator: fmt::Debug + Send + Sync {
    fn ask(&self, question: AllocationQuestion) -> BoxFuture<'_, Result<AllocationAnswer, AllocatorFault>>;
}

/// The settings of this room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// PEM file of authorities that are trusted beside the system's.
    pub extra_ca_file: Option<PathBuf>,
    /// Allows `http://` to a webhook on this machine, for trying things out.
    pub allow_plain_http_on_loopback: bool,
}

/// What is asked. It holds everything the outside may know and nothing more.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocationQuestion {
    pub webhook: WebhookPolicy,
    pub enrollment: Enrollment,
    /// Host names of the hubs that the enrollment names, as far as they are linked.
    pub enrollment_host_names: Vec<String>,
    pub registration_id: RegistrationId,
    /// Where the device lives, when it was assigned before.
    pub current: Option<CurrentHome>,
    /// What the device signed in with, when that was a certificate.
    pub certificate: Option<CertificateFacts>,
    /// What the device sent along.
    pub payload: Option<Value>,
    /// The hubs to choose from.
    pub offered: Vec<HubHost>,
}

/// A device's hub and its name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentHome {
    pub host_name: String,
    pub device_id: DeviceId,
}

/// A hub under both its names: ours, and the one the outside knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubHost {
    pub hub: HubId,
    pub host_name: String,
}

/// A verified leaf certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    pub thumbprint: Thumbprint,
    pub subject_name: String,
    pub issuer_name: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Hexadecimal.
    pub serial_number: String,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct AllocationAnswer {
    pub hub: ChosenHub,
    /// Replaces the enrollment's initial twin where one is used; within the limits of a twin.
    pub initial_twin: Option<AnsweredTwin>,
    /// JSON that is handed to the device.
    pub payload: Option<Value>,
}

/// The hub of an answer. A host that was not offered is no fault of the call: under *never* the hub is not taken anyway,
/// and the payload counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenHub {
    Offered(HubId),
    NotOffered {
        /// At most [`crate::domain::limits::HOST_NAME_CHARS_MAX`] characters.
        host_name: String,
    },
}

/// An initial twin from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnsweredTwin {
    pub tags: Document,
    pub desired: Document,
}

/// Why there is no answer. Never holds the URL, which may carry a key, nor the answer. `Display` is the whole story: it
/// goes to the device and the operator as it stands.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorFault {
    #[error("the allocation webhook's URL {0}")]
    Url(UrlFault),
    #[error("the allocation webhook's host name could not be resolved")]
    Unresolved(#[source] std::io::Error),
    #[error("plain http is for this machine only, and the allocation webhook is at {address}")]
    NotLoopback { address: IpAddr },
    #[error("the allocation webhook could not be reached ({kind})", kind = .0.kind())]
    Unreachable(#[source] std::io::Error),
    #[error("no secure connection to the allocation webhook: {0}")]
    Tls(std::io::Error),
    #[error("the connection to the allocation webhook broke: {0}")]
    Connection(hyper::Error),
    #[error("the allocation webhook did not answer within {} s", .limit.as_secs())]
    Timeout { limit: Duration },
    #[error("the allocation webhook answered with status {status}, and redirects are not followed")]
    Redirect { status: u16 },
    #[error("the allocation webhook answered with status {status} instead of 200")]
    Status { status: u16 },
    #[error("the allocation webhook answered with more than {max} bytes")]
    TooLarge { max: usize },
    /// Where, but not what: an answer may hold what is meant for the device only.
    #[error("the allocation webhook's answer {what} (line {line}, column {column})")]
    Malformed { what: &'static str, line: usize, column: usize },
    #[error("the allocation webhook's answer names a host of more than {max} characters")]
    HostNameTooLong { max: usize },
    #[error("the allocation webhook's initial twin is refused: {0}")]
    InitialTwin(TwinFault),
    #[error("the question could not be written as JSON")]
    Question(#[source] serde_json::Error),
}

/// Why a URL is not one to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    #[error("is longer than {max} characters")]
    TooLong { max: usize },
    #[error("is not an absolute URL")]
    Form,
    #[error("must start with https://")]
    Scheme,
    #[error("must not hold a user name or password")]
    UserInfo,
    #[error("names a host that cannot have a certificate")]
    HostName,
}
