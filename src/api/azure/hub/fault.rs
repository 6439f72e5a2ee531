//! Faults as SDKs of hubs read them: the word of the code and the text in one member, and the tracking id in another
//! (reference/azure-sdk-wire.md; the codes in reference/dps.md §3.6).

use serde_json::{Value, json};

use crate::api::azure::fault::{Code, Refusal};
use crate::domain::{Fault, Kind, Reason, Timestamp};

use crate::api::azure::time::seven_digits;

/// The number and the word of each code that is given.
const WORDS: &[(u32, &str)] = &[
    (400_001, "InvalidProtocolVersion"),
    (400_003, "InvalidOperation"),
    (400_004, "ArgumentInvalid"),
    (401_001, "IotHubNotFound"),
    (401_002, "IotHubUnauthorizedAccess"),
    (404_001, "DeviceNotFound"),
    (405_001, "InvalidOperation"),
    (408_001, "RequestTimedOut"),
    (409_001, "DeviceAlreadyExists"),
    (412_001, "PreconditionFailed"),
    (413_001, "MessageTooLarge"),
    (429_001, "ThrottlingException"),
    (500_001, "ServerError"),
    (503_001, "ServiceUnavailable"),
];

/// The code's word; that of a server's error where it has none.
pub fn word(code: Code) -> &'static str {
    WORDS.iter().find(|(number, _)| *number == code.code).map_or("ServerError", |(_, word)| word)
}

/// A fault in the codes of hubs.
pub fn of_fault(fault: Fault) -> Refusal {
    let number = match fault.reason {
        Reason::EtagMismatch => 412_001,
        Reason::MessageTooLarge => 413_001,
        Reason::AlreadyExists => 409_001,
        // A device that is not here any more is not here.
        Reason::DeviceMoved => 404_001,
        Reason::HubNotFound => 401_001,
        reason => match reason.kind() {
            Kind::Invalid => 400_004,
            Kind::Unauthenticated | Kind::Denied => 401_002,
            Kind::NotFound => 404_001,
            Kind::Conflict => 400_003,
            Kind::Exhausted => 429_001,
            Kind::Unavailable => 503_001,
            Kind::Internal => 500_001,
        },
    };
    let refusal = Refusal::from(fault);
    Refusal { code: Refusal::new(number, "").code, ..refusal }
}

/// The body. `now` is when the answer is made.
pub fn body(refusal: &Refusal, now: Timestamp) -> Value {
    let tracking = refusal.tracking_id.clone().unwrap_or_default();
    json!({
        "Message": format!("ErrorCode:{};{}", word(refusal.code), refusal.message),
        "ExceptionMessage": format!("Tracking ID:{tracking}-TimeStamp:{}", seven_digits(now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_with_a_word_of_its_own() {
        for reason in Reason::ALL {
            let refusal = of_fault(Fault::new(*reason, "no"));
            assert!(WORDS.iter().any(|(number, _)| *number == refusal.code.code), "{reason}");
            assert_eq!(u32::from(refusal.code.status), refusal.code.code / 1000, "{reason}");
        }
    }

    #[test]
    fn a_body_has_what_sdks_take_apart() {
        let refusal = of_fault(Fault::new(Reason::TwinNotFound, "hub hub-a has no device x"));
        assert_eq!(
            body(&refusal, Timestamp(0)),
            json!({
                "Message": "ErrorCode:DeviceNotFound;hub hub-a has no device x",
                "ExceptionMessage": "Tracking ID:-TimeStamp:1970-01-01T00:00:00.0000000Z",
            })
        );
    }
}
