//! Records as they stand in the file: private mirrors of domain values, each behind a version byte.
//!
//! The shapes are in [`form`]; here is how domain values become them and are made of them again. Documents are kept
//! as JSON text. Bytes that cannot be understood are a fault, never a panic.

mod audit;
mod enrollment;
#[allow(missing_debug_implementations, reason = "shapes are never shown, and some hold webhook keys")]
mod form;
mod hub;
mod journal;
mod registration;
mod state;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::{
    DeviceId, Document, EnrollmentId, GroupId, HubId, HubKind, HubState, Order, Past, PcrMode, Reason, RegistrationId,
    ReprovisionPolicy, RequestId, ResetOnSameHub, SubStatus, TpmName,
};
use crate::moves::{Bypass, Effect};

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct RecordFault {
    what: &'static str,
    why: String,
}

type Decoded<T> = Result<T, RecordFault>;

fn fault(what: &'static str, why: impl ToString) -> RecordFault {
    RecordFault { what, why: why.to_string() }
}

/// A domain value that has a place in the file.
pub(super) trait Stored: Sized {
    /// What it is called in faults.
    const WHAT: &'static str;
    /// The version that is written now.
    const VERSION: u8 = 1;
    type Record: Serialize + DeserializeOwned;

    fn to_record(&self) -> Self::Record;
    fn from_record(record: Self::Record) -> Decoded<Self>;

    /// Reads a version that was written before.
    fn from_older(version: u8, _body: &[u8]) -> Decoded<Self> {
        Err(fault(Self::WHAT, format!("record version {version} is not known")))
    }

    fn encode(&self) -> Decoded<Vec<u8>> {
        postcard::to_extend(&self.to_record(), vec![Self::VERSION]).map_err(|why| fault(Self::WHAT, why))
    }

    fn decode(bytes: &[u8]) -> Decoded<Self> {
        match bytes.split_first() {
            Some((version, body)) if *version == Self::VERSION => Self::from_record(whole(Self::WHAT, body)?),
            Some((version, body)) => Self::from_older(*version, body),
            None => Err(fault(Self::WHAT, "no bytes")),
        }
    }
}

/// A record that takes up all bytes.
fn whole<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Decoded<T> {
    match postcard::take_from_bytes(body) {
        Ok((record, [])) => Ok(record),
        Ok((_, rest)) => Err(fault(what, format!("{} bytes too many", rest.len()))),
        Err(why) => Err(fault(what, why)),
    }
}

/// Enums without data, written by name on both sides so that a new variant fails to compile until it has its place.
macro_rules! words {
    ($($name:ident { $($variant:ident),+ $(,)? })+) => {
        $(impl From<&$name> for form::$name {
            fn from(value: &$name) -> Self {
                match value { $($name::$variant => form::$name::$variant),+ }
            }
        }

        impl From<form::$name> for $name {
            fn from(value: form::$name) -> Self {
                match value { $(form::$name::$variant => $name::$variant),+ }
            }
        })+
    };
}

words! {
    ReprovisionPolicy { Migrate, Reset, Never }
    ResetOnSameHub { Always, WhenEnrollmentChanged, Off }
    HubKind { Embedded }
    HubState { Active, Draining, Retired }
    SubStatus { InitialAssignment, DeviceDataMigrated, DeviceDataReset, ReprovisionedToInitialAssignment }
    Bypass { Away, Missing }
    PcrMode { Enforce, Audit }
    Effect { Seal, Create, Withhold, UpdateCredential, Activate, Unseal, Delete, Collect, ReplaceTwin }
}

fn registration_id(text: &str) -> Decoded<RegistrationId> {
    RegistrationId::parse(text).map_err(|why| fault("registration id", why))
}

fn device_id(text: &str) -> Decoded<DeviceId> {
    DeviceId::parse(text).map_err(|why| fault("device id", why))
}

fn hub_id(text: &str) -> Decoded<HubId> {
    HubId::parse(text).map_err(|why| fault("hub id", why))
}

fn request_id(text: &str) -> Decoded<RequestId> {
    RequestId::parse(text).map_err(|why| fault("request id", why))
}

fn tpm_name(bytes: &[u8]) -> Decoded<TpmName> {
    TpmName::parse(bytes).map_err(|why| fault("name of a TPM's object", why))
}

fn document(text: &str) -> Decoded<Document> {
    Document::from_text(text).map_err(|why| fault("document", why))
}

fn reason(text: &str) -> Decoded<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or_else(|| fault("reason", text))
}

fn text(id: &HubId) -> String {
    id.as_str().to_owned()
}

impl From<&EnrollmentId> for form::EnrollmentId {
    fn from(id: &EnrollmentId) -> Self {
        match id {
            EnrollmentId::Individual(id) => form::EnrollmentId::Individual(id.as_str().to_owned()),
            EnrollmentId::Group(id) => form::EnrollmentId::Group(id.as_str().to_owned()),
        }
    }
}

impl TryFrom<form::EnrollmentId> for EnrollmentId {
    type Error = RecordFault;

    fn try_from(id: form::EnrollmentId) -> Decoded<Self> {
        match id {
            form::EnrollmentId::Individual(id) => registration_id(&id).map(EnrollmentId::Individual),
            form::EnrollmentId::Group(id) => {
                GroupId::parse(&id).map(EnrollmentId::Group).map_err(|why| fault("group id", why))
            }
        }
    }
}

/// What a deleted registration left behind.
impl Stored for Past {
    const WHAT: &'static str = "list of generations";
    /// Version 1 had no late twins.
    const VERSION: u8 = 2;
    type Record = form::Past;

    fn to_record(&self) -> form::Past {
        self.into()
    }

    fn from_record(record: form::Past) -> Decoded<Self> {
        Ok(record.into())
    }

    fn from_older(version: u8, body: &[u8]) -> Decoded<Self> {
        match version {
            1 => Ok(whole::<Vec<u64>>(Self::WHAT, body)?.into_iter().map(Order).collect::<Vec<_>>().into()),
            _ => Err(fault(Self::WHAT, format!("record version {version} is not known"))),
        }
    }
}

impl From<&Past> for form::Past {
    fn from(past: &Past) -> Self {
        let all = |orders: &[Order]| orders.iter().map(|order| order.0).collect();
        Self { moves: all(&past.moves), late: all(&past.late) }
    }
}

impl From<form::Past> for Past {
    fn from(record: form::Past) -> Self {
        let all = |orders: Vec<u64>| orders.into_iter().map(Order).collect();
        Self { moves: all(record.moves), late: all(record.late) }
    }
}

#[cfg(feature = "testing")]
mod reread;
#[cfg(feature = "testing")]
pub use reread::{record_samples, reread_record};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEntry, Enrollment, Hub, Registration};
    use crate::moves::{JournalLine, JournalRecord};
    use crate::store::samples;

    fn check(bytes: &[u8]) -> Result<Registration, String> {
        Registration::decode(bytes).map_err(|fault| fault.to_string())
    }

    #[test]
    fn bytes_that_are_no_record_are_a_fault() {
        let good = samples::registration("d", Some("a")).encode().unwrap();
        assert!(check(&good).is_ok());
        let with = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            bytes
        };
        for (bytes, why) in [
            (vec![], "registration: no bytes"),
            (with(0, 3), "registration: record version 3 is not known"),
            (with(0, 0), "registration: record version 0 is not known"),
            ([good.clone(), vec![0]].concat(), "registration: 1 bytes too many"),
            (with(2, b'/'), "registration id: registration id may hold ASCII letters, digits and -._:, not '/'"),
        ] {
            assert_eq!(check(&bytes), Err(why.to_owned()));
        }
        for length in 1..good.len() {
            assert!(check(&good[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let state = Some(Box::new(samples::device_state()));
        let record = JournalRecord::StepDone { effect: Effect::Seal, state };
        let good = JournalLine { order: Order(7), at: samples::NOW, record }.encode().unwrap();
        for place in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, good[place] ^ 1] {
                let mut bytes = good.clone();
                bytes[place] = byte;
                let _ = JournalLine::decode(&bytes);
                let _ = Enrollment::decode(&bytes);
                let _ = AuditEntry::decode(&bytes);
                let _ = Hub::decode(&bytes);
            }
        }
    }
}
