//! What to do about a refusal: a hint for every reason of the service, and for what goes wrong before it is reached.

use std::collections::BTreeMap;
use std::fmt;

use crate::client::{ClientFault, RemoteFault};
use crate::domain::Reason;

/// A refusal with its reason as the service gave it, and what the operator can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advised {
    pub message: String,
    pub reason: Option<String>,
    pub hint: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

impl Advised {
    /// A mistake in the command itself.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), reason: None, hint: Some(hint.into()), metadata: BTreeMap::new() }
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advised {}

impl From<&ClientFault> for Advised {
    fn from(fault: &ClientFault) -> Self {
        let hint = match fault {
            ClientFault::Refused(remote) => return Self::from(&**remote),
            ClientFault::Connect { .. } => "start it with `rehome serve`, or name another one with --server URL",
            ClientFault::Tls { .. } => {
                "check that --ca (or server-ca.pem in --certs) is that server's authority, and that your certificate is in date"
            }
            ClientFault::Address { .. } => "write it as --server https://127.0.0.1:7443",
            ClientFault::Credentials { .. } => "check the files of --cert, --key and --ca",
            ClientFault::Answer(_) => "use the `rehome` command of the service's version",
            ClientFault::NotAssigned { .. } => {
                "see why with `rehome device explain` and `rehome audit list --registration …`"
            }
            ClientFault::NoHub => "register again",
            ClientFault::Tpm(_) => "see what the TPM holds with `rehome tpm show`",
            ClientFault::Backup { .. } => "take it again, into a new folder",
        };
        Self::usage(fault.to_string(), hint)
    }
}

impl From<&RemoteFault> for Advised {
    fn from(remote: &RemoteFault) -> Self {
        let mut hint = remote.known_reason().map(|reason| hint(reason).to_owned());
        if let Some(span) = remote.retry_after {
            let retry = format!("it may work in {} s", span.as_secs().max(1));
            hint = Some(hint.map_or(retry.clone(), |hint| format!("{hint} ({retry})")));
        }
        Self {
            message: remote.to_string(),
            hint,
            metadata: remote.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            reason: remote.reason.clone(),
        }
    }
}

/// The advice for whatever failed, when there is some.
pub fn of(error: &anyhow::Error) -> Option<Advised> {
    error.chain().find_map(|cause| {
        let advised = cause.downcast_ref::<Advised>().cloned();
        advised.or_else(|| cause.downcast_ref::<ClientFault>().map(Advised::from))
    })
}

/// What an operator can do about a reason.
pub fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::RegistrationRefused => {
            "the device is not told why; an operator finds it with `rehome audit show` and the tracking id"
        }
        Reason::CallerUnauthenticated => {
            "present a certificate of the operators' authority: --certs DIR, or --cert FILE and --key FILE"
        }
        Reason::RoleNotAllowed => {
            "use a certificate with the role this needs; `rehome pki operator --role …` makes one"
        }
        Reason::NotYours => "a device's certificate opens its own record only; use an operator's for others",
        Reason::InvalidArgument => "correct the field that is named and try again",
        Reason::MessageTooLarge => "send less in one request: a message holds at most 256 KiB",
        Reason::InvalidPageToken => "start the listing again from its first page",
        Reason::TwinInvalid => "see `rehome twin patch --help` for the limits of a twin",
        Reason::NotYetSupported => "this build stores the setting but does not do it: choose another one",
        Reason::EnrollmentNotFound => "see which there are with `rehome enroll list`",
        Reason::GroupNotFound => "see which there are with `rehome group list`",
        Reason::HubNotFound => "see which there are with `rehome hub list`",
        Reason::RegistrationNotFound => {
            "a device appears with its first registration; see which there are with `rehome device list`"
        }
        Reason::OperationNotFound => "ask for the device's last operation: `rehome device show` names it",
        Reason::TwinNotFound => {
            "see where the device lives with `rehome device show`, and which moves kept a twin with `rehome device history`"
        }
        Reason::AuditEntryNotFound => "see what there is with `rehome audit list`",
        Reason::AlreadyExists => "choose another id, or change the one there is with `update`",
        Reason::EtagMismatch => {
            "somebody else changed it meanwhile: read it again, then repeat the change without --etag"
        }
        Reason::CertificateInUse => {
            "each certificate may stand in one enrollment only; find it with `rehome enroll list`"
        }
        Reason::EndorsementKeyInUse => {
            "each endorsement key may stand in one enrollment only; find it with `rehome enroll list`"
        }
        Reason::KeyInUse => "each key may stand in one group only; find it with `rehome group list`",
        Reason::NoSymmetricKeys => {
            "see what it is proven by with `show`: certificates and TPMs have no key that could be shown"
        }
        Reason::DeviceIdInUse => "choose another --device-id",
        Reason::HubInUse => "drain it, reprovision its devices (`rehome device list --hub …`), then unlink it",
        Reason::HubStateConflict => "the way is active → draining → retired; see `rehome hub show`",
        Reason::DeviceMoving => "the device is being moved: try again in a moment, at the hub it has then",
        Reason::DeviceMoved => "the device lives at another hub now: register again",
        Reason::EnrollmentDisabled => "let it register again with `rehome enroll enable` or `rehome group enable`",
        Reason::TpmChallengeOutdated => "register again: the proof by TPM starts anew",
        Reason::StorageRootKeyNotAllowed => {
            "if its TPM was cleared on purpose, have the known key forgotten: `rehome device reset-storage-root-key`"
        }
        Reason::PcrNotAllowed => "if the device was updated on purpose, name its new value in the enrollment's --pcr",
        Reason::NoHubAvailable => {
            "link or activate a hub, or widen the enrollment's --hub list; `rehome device explain` says more"
        }
        Reason::AllocationFailed => "see what the allocation webhook answers; the device keeps its hub until it works",
        Reason::AssignedHubUnlinked => {
            "link the hub again, or let the device move with another policy or unreachable rule"
        }
        Reason::NoLastKnownState => {
            "bring the hub back, or let the device start anew with the unreachable rule reset (`--unreachable reset`)"
        }
        Reason::MoveNotFound => {
            "see the device's moves with `rehome device history`, and what is owed with `rehome device show`"
        }
        Reason::MoveStateConflict => "see what the device's moves are waiting for with `rehome device show`",
        Reason::HubUnavailable => "see whether the hub is up with `rehome hub show`; the service goes on trying",
        Reason::HubRefused => "see what is owed to the hub with `rehome device show`",
        Reason::MoveAborted => {
            "the device stays where it was; `rehome device history` says why, then reprovision it again"
        }
        Reason::Overloaded | Reason::RateLimited => "wait a moment and try again",
        Reason::ServiceUnavailable => "the service is starting or stopping: try again in a moment",
        Reason::Internal => "look at the service's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_hint_of_one_sentence() {
        for reason in Reason::ALL {
            let hint = hint(*reason);
            assert!(!hint.is_empty() && !hint.ends_with('.'), "{reason}");
        }
    }
}
