//! Faults as existing SDKs read them: a status, a six-digit code and a JSON body (reference/dps.md §3.5 and §3.6).

use serde_json::{Value, json};

use crate::domain::{Fault, IdScope, Kind, Reason, Timestamp};

use super::time::seven_digits;

/// The status and the code of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// As in HTTP; MQTT puts it into the topic.
    pub status: u16,
    /// Status × 1000 and a detail.
    pub code: u32,
}

const fn code(code: u32) -> Code {
    Code { status: (code / 1000) as u16, code }
}

/// Codes without a documented detail end in this.
const GENERIC: u32 = 1;

impl Code {
    /// The code of each reason. Documented ones where a source names one; else the status and a generic detail.
    pub fn of(reason: Reason) -> Code {
        match reason {
            // Who is let in but lacks a right is told the same as who is not: so the field knows it.
            Reason::RegistrationRefused | Reason::CallerUnauthenticated | Reason::RoleNotAllowed => code(401_002),
            Reason::InvalidArgument | Reason::TwinInvalid | Reason::InvalidPageToken => code(400_004),
            Reason::EnrollmentNotFound => code(404_201),
            Reason::GroupNotFound => code(404_202),
            Reason::AlreadyExists => code(409_201),
            Reason::AllocationFailed => code(400_207),
            Reason::NoHubAvailable => code(400_208),
            Reason::HubRefused | Reason::AssignedHubUnlinked => code(400_209),
            Reason::EtagMismatch => code(412_001),
            Reason::MessageTooLarge => code(413_001),
            other => code(u32::from(status_of(other.kind())) * 1000 + GENERIC),
        }
    }
}

fn status_of(kind: Kind) -> u16 {
    match kind {
        Kind::Invalid => 400,
        Kind::Unauthenticated => 401,
        Kind::Denied => 403,
        Kind::NotFound => 404,
        Kind::Conflict => 409,
        Kind::Exhausted => 429,
        Kind::Internal => 500,
        Kind::Unavailable => 503,
    }
}

/// A refusal on its way out of an edge for existing SDKs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// Names the refusal in the audit log, where it stands there.
    pub tracking_id: Option<String>,
    /// Whole seconds, rounded up.
    pub retry_after: Option<u64>,
}

impl Refusal {
    pub fn new(numbers: u32, message: impl Into<String>) -> Self {
        Self { code: code(numbers), message: message.into(), tracking_id: None, retry_after: None }
    }

    /// What a device names that is not this service's scope. It is no secret, so a wrong one is said to be wrong.
    pub fn of_scope(scope: &IdScope, named: &str) -> Result<(), Self> {
        let foreign = || Self::new(404_001, "no provisioning service has that id scope");
        if scope.is(named) { Ok(()) } else { Err(foreign()) }
    }

    /// The body. `now` is when the answer is made.
    pub fn body(&self, now: Timestamp) -> Value {
        json!({
            "errorCode": self.code.code,
            "trackingId": self.tracking_id.clone().unwrap_or_default(),
            "message": self.message,
            "timestampUtc": seven_digits(now),
        })
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let tracking_id = fault.metadata.iter().find(|(key, _)| *key == "tracking_id").map(|(_, id)| id.clone());
        let retry_after = fault.retry_after.map(|span| span.as_millis().div_ceil(1000));
        Self {
            code: Code::of(fault.reason),
            message: fault.message,
            tracking_id,
            retry_after: retry_after.map(|seconds| u64::try_from(seconds).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_reason_has_a_code_that_fits_its_status() {
        for reason in Reason::ALL {
            let Code { status, code } = Code::of(*reason);
            assert!((400..600).contains(&status), "{reason}");
            assert_eq!(code / 1000, u32::from(status), "{reason}");
        }
        let retried = |reason: &&Reason| matches!(reason.kind(), Kind::Exhausted | Kind::Unavailable);
        for reason in Reason::ALL.iter().filter(retried).filter(|reason| **reason != Reason::AllocationFailed) {
            assert!(Code::of(*reason).status >= 429, "SDKs try {reason} again only from 429 on");
        }
    }

    #[test]
    fn a_body_has_what_sdks_read() {
        let fault = Fault::new(Reason::RegistrationRefused, "no").with("tracking_id", "t1");
        let refusal = Refusal::from(fault.retry_after(Duration::from_millis(1200)));
        assert_eq!(refusal.retry_after, Some(2));
        let expected = json!({
            "errorCode": 401_002, "trackingId": "t1", "message": "no", "timestampUtc": "2023-11-14T22:13:20.1230000Z",
        });
        assert_eq!(refusal.body(Timestamp(1_700_000_000_123)), expected);
    }
}
