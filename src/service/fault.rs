//! What failed reads, refused commits and the actors' answers mean to a caller.

use std::time::Duration;

use crate::actors::{Accepted, Refused};
use crate::domain::{EnrollmentId, Fault, HubId, Reason, RegistrationId, Version};
use crate::store::{CommitFault, StoreFault, Unexpected};

/// When a store that could not write may be asked again.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// A read that failed. What exactly is broken is for the log.
pub fn of_store(fault: StoreFault) -> Fault {
    match fault {
        StoreFault::PageToken => Fault::new(Reason::InvalidPageToken, fault.to_string()),
        StoreFault::Closed => {
            Fault::new(Reason::ServiceUnavailable, "the service is stopping").retry_after(STORE_RETRY)
        }
        StoreFault::BackUp(why) => {
            tracing::error!("a backup failed: {why}");
            Fault::new(Reason::Internal, "the store was not backed up, the log has the details")
        }
        StoreFault::Broken(_) | StoreFault::Corrupt(_) => {
            tracing::error!("a read failed: {fault}");
            Fault::new(Reason::Internal, "the store cannot be read, the log has the details")
        }
    }
}

/// A commit that did not happen, or may not have.
pub fn of_commit(fault: CommitFault) -> Fault {
    match fault {
        CommitFault::Unexpected(unexpected) => of_unexpected(&unexpected),
        CommitFault::NotWritten(why) => {
            tracing::error!("nothing was written: {why}");
            Fault::new(Reason::ServiceUnavailable, "nothing was written, try again").retry_after(STORE_RETRY)
        }
        CommitFault::Unknown(why) => {
            tracing::error!("it is not known whether it was written: {why}");
            let message = "it is not known whether the change was written: read it again";
            Fault::new(Reason::ServiceUnavailable, message).retry_after(STORE_RETRY)
        }
    }
}

fn of_unexpected(unexpected: &Unexpected) -> Fault {
    let message = unexpected.to_string();
    match unexpected {
        Unexpected::Enrollment { id, expected, found } => match (*expected, *found) {
            (Version::ABSENT, _) => Fault::new(Reason::AlreadyExists, format!("{id} exists already")),
            (_, Version::ABSENT) => no_enrollment(id),
            (_, _) => etag_mismatch(id),
        },
        Unexpected::Hub { id, expected, found } => match (*expected, *found) {
            (Version::ABSENT, _) => Fault::new(Reason::AlreadyExists, format!("hub {id} is linked already")),
            (_, Version::ABSENT) => no_hub(id),
            (_, _) => etag_mismatch(format!("hub {id}")),
        },
        Unexpected::Registration { id, .. } => etag_mismatch(format!("registration {id}")),
        Unexpected::HubNotLinked { hub } => no_hub(hub),
        Unexpected::HubFull { .. } | Unexpected::HubClosed { .. } => Fault::new(Reason::NoHubAvailable, message),
        Unexpected::HubInUse { hub, homes, moves } => hub_in_use(hub, *homes, *moves),
        Unexpected::DeviceIdTaken { .. } => Fault::new(Reason::DeviceIdInUse, message),
        Unexpected::CertificateTaken { owner } => {
            Fault::new(Reason::CertificateInUse, message).with("enrollment", owner.to_string())
        }
        Unexpected::EndorsementKeyTaken { owner } => {
            Fault::new(Reason::EndorsementKeyInUse, message).with("enrollment", owner.to_string())
        }
        Unexpected::MasterKeyTaken { owner } => {
            Fault::new(Reason::KeyInUse, message).with("enrollment", owner.to_string())
        }
        Unexpected::MoveNotOpen { .. } | Unexpected::Journal { .. } => {
            Fault::new(Reason::ServiceUnavailable, "the device is being worked on, try again").retry_after(STORE_RETRY)
        }
    }
}

/// The answer of a device's actor. `Rejudge` is for those who hold evidence; to others the enrollment changed too often.
pub fn of_refused(refused: Refused) -> Fault {
    match refused {
        Refused::Fault(fault) => fault,
        Refused::Rejudge => {
            Fault::new(Reason::ServiceUnavailable, "the enrollment keeps changing, try again").retry_after(STORE_RETRY)
        }
    }
}

/// Both layers of an actor's answer as one.
pub fn flat(answer: Result<Result<Accepted, Refused>, Fault>) -> Result<Accepted, Fault> {
    answer?.map_err(of_refused)
}

pub fn no_enrollment(id: &EnrollmentId) -> Fault {
    match id {
        EnrollmentId::Individual(_) => Fault::new(Reason::EnrollmentNotFound, format!("there is no enrollment {id}")),
        EnrollmentId::Group(_) => Fault::new(Reason::GroupNotFound, format!("there is no enrollment {id}")),
    }
}

pub fn no_hub(id: &HubId) -> Fault {
    Fault::new(Reason::HubNotFound, format!("no hub {id} is linked")).with("hub", id.as_str())
}

pub fn no_registration(id: &RegistrationId) -> Fault {
    Fault::new(Reason::RegistrationNotFound, format!("{id} is not registered"))
}

pub fn hub_in_use(hub: &HubId, homes: u64, moves: u64) -> Fault {
    let message = format!("hub {hub} has {homes} devices and {moves} moves name it: drain it first");
    Fault::new(Reason::HubInUse, message)
        .with("hub", hub.as_str())
        .with("devices", homes.to_string())
        .with("moves", moves.to_string())
}

pub fn etag_mismatch(what: impl std::fmt::Display) -> Fault {
    Fault::new(Reason::EtagMismatch, format!("{what} changed since it was read: read it again"))
}

/// Holds a version that a caller read against the one that is stored.
pub fn check_etag(what: impl std::fmt::Display, expected: Option<Version>, found: Version) -> Result<(), Fault> {
    match expected {
        Some(expected) if expected != found => Err(etag_mismatch(what)),
        Some(_) | None => Ok(()),
    }
}
