//! Why something a client was asked for did not happen.

use tonic::Status;

use super::UpdateStatus;
use super::retry::{NextStep, next_step};
use super::tpm::ChipFault;
use crate::wire::{RemoteFault, WireFault};

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientFault {
    #[error("{given:?} is not an address: write https://host:port")]
    Address { given: String },
    #[error(
        "certificate, key or trusted roots cannot be used: {why}; they must be PEM, the certificate before its issuers"
    )]
    Credentials { why: String },
    #[error("cannot connect to {to}: {why}; is the service running, and is this the right address?")]
    Connect { to: String, why: String },
    /// The other side is not who it should be, or not on speaking terms.
    #[error("TLS with {to} failed: {why}")]
    Tls { to: String, why: String },
    /// The call was answered with an error, or broke on its way (then without a reason).
    #[error("{0}")]
    Refused(Box<RemoteFault>),
    #[error("the answer cannot be understood ({0}); is the service newer than this program?")]
    Answer(WireFault),
    /// The registration came to an end other than *assigned*.
    #[error("the registration ended as {}{}", .status.as_str(), told(.status))]
    NotAssigned { status: UpdateStatus, retry_after: Option<std::time::Duration> },
    #[error("the registration is assigned but names no hub")]
    NoHub,
    #[error("{0}")]
    Tpm(ChipFault),
    #[error("the backup is broken: {why}; take it again")]
    Backup { why: String },
}

fn told(status: &UpdateStatus) -> String {
    match status {
        UpdateStatus::Assigning | UpdateStatus::Assigned { .. } => String::new(),
        UpdateStatus::Failed { reason, message } => format!(": {message} ({reason})"),
        UpdateStatus::Disabled => ": an operator must enable its enrollment first".to_owned(),
    }
}

impl ClientFault {
    /// The refusal, when the service answered with one.
    pub fn remote(&self) -> Option<&RemoteFault> {
        match self {
            ClientFault::Refused(remote) => Some(remote),
            ClientFault::Address { .. }
            | ClientFault::Credentials { .. }
            | ClientFault::Connect { .. }
            | ClientFault::Tls { .. }
            | ClientFault::Answer(_)
            | ClientFault::NotAssigned { .. }
            | ClientFault::NoHub
            | ClientFault::Tpm(_)
            | ClientFault::Backup { .. } => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match next_step(self) {
            NextStep::Again { .. } | NextStep::RegisterAgain { .. } => true,
            NextStep::GiveUp => false,
        }
    }
}

impl From<Status> for ClientFault {
    fn from(status: Status) -> Self {
        ClientFault::Refused(Box::new(RemoteFault::from(&status)))
    }
}

impl From<WireFault> for ClientFault {
    fn from(fault: WireFault) -> Self {
        ClientFault::Answer(fault)
    }
}

impl From<ChipFault> for ClientFault {
    fn from(fault: ChipFault) -> Self {
        ClientFault::Tpm(fault)
    }
}
