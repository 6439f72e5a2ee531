//! What to do after a failure, and how long to wait before: pure decisions.

use std::time::Duration;

use tonic::Code;

use super::fault::ClientFault;
use crate::domain::{Kind, Reason};
use crate::wire::RemoteFault;

/// The first pause, which doubles with every further try.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause of our own: a service that comes back finds its devices within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause that a hint may ask for; nobody is sent away for a day by mistake.
const HINT_MAX: Duration = Duration::from_secs(3600);

/// Reasons that mean: this hub is not (or not now) the device's home.
const NOT_HOME: [Reason; 3] = [Reason::DeviceMoving, Reason::DeviceMoved, Reason::TwinNotFound];

/// How long to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until it succeeds or can never succeed.
    Forever,
    /// At most so many tries, at least one.
    Tries(u32),
}

impl Patience {
    /// Whether another try may follow so many.
    pub(super) fn allows_more(self, tries: u32) -> bool {
        match self {
            Patience::Forever => true,
            Patience::Tries(most) => tries < most,
        }
    }
}

/// What a failure asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The same again, no earlier than the hint.
    Again { hint: Option<Duration> },
    /// Ask the service for the device's home again, no earlier than the hint.
    RegisterAgain { hint: Option<Duration> },
    /// It can never succeed as it is.
    GiveUp,
}

pub(super) fn next_step(fault: &ClientFault) -> NextStep {
    match fault {
        ClientFault::Connect { .. } => NextStep::Again { hint: None },
        ClientFault::Refused(remote) => after_refusal(remote),
        ClientFault::Tpm(fault) if fault.may_pass() => NextStep::Again { hint: None },
        ClientFault::NotAssigned { retry_after: Some(span), .. } => NextStep::Again { hint: Some(*span) },
        ClientFault::NotAssigned { retry_after: None, .. }
        | ClientFault::Address { .. }
        | ClientFault::Credentials { .. }
        | ClientFault::Tls { .. }
        | ClientFault::Answer(_)
        | ClientFault::NoHub
        | ClientFault::Tpm(_)
        | ClientFault::Backup { .. } => NextStep::GiveUp,
    }
}

fn after_refusal(remote: &RemoteFault) -> NextStep {
    let hint = remote.retry_after;
    match remote.known_reason() {
        Some(reason) if NOT_HOME.contains(&reason) => NextStep::RegisterAgain { hint },
        Some(reason) => match reason.kind() {
            Kind::Unavailable | Kind::Exhausted => NextStep::Again { hint },
            Kind::Invalid | Kind::Unauthenticated | Kind::Denied | Kind::NotFound | Kind::Conflict | Kind::Internal => {
                NextStep::GiveUp
            }
        },
        None if may_be_transport(remote) => NextStep::Again { hint },
        None => NextStep::GiveUp,
    }
}

/// Without a reason of the service's it may be the connection that failed; a broken stream shows as any of these.
fn may_be_transport(remote: &RemoteFault) -> bool {
    match remote.code {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => true,
        Code::Unknown | Code::Cancelled | Code::Internal => remote.reason.is_none(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The pause before try number `tries + 1`, after `tries` that failed. Spread by `draw`, so that devices which were cut
/// off together do not come back together; never shorter than the hint.
pub(super) fn pause(tries: u32, hint: Option<Duration>, draw: u32) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    let own = doubled.min(PAUSE_MAX);
    let share = f64::from(draw) / f64::from(u32::MAX);
    match hint {
        Some(hint) => hint.min(HINT_MAX).saturating_add((own / 2).mul_f64(share)),
        None => own / 2 + (own / 2).mul_f64(share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::UpdateStatus;
    use crate::domain::Fault;
    use tonic::Status;

    const AGAIN: NextStep = NextStep::Again { hint: None };
    const REGISTER: NextStep = NextStep::RegisterAgain { hint: None };

    #[test]
    fn what_the_service_says_decides() {
        for (reason, expected) in [
            (Reason::DeviceMoving, REGISTER),
            (Reason::DeviceMoved, REGISTER),
            (Reason::TwinNotFound, REGISTER),
            (Reason::Overloaded, AGAIN),
            (Reason::RateLimited, AGAIN),
            (Reason::HubUnavailable, AGAIN),
            (Reason::ServiceUnavailable, AGAIN),
            (Reason::RegistrationRefused, NextStep::GiveUp),
            (Reason::NotYours, NextStep::GiveUp),
            (Reason::EnrollmentDisabled, NextStep::GiveUp),
            (Reason::TwinInvalid, NextStep::GiveUp),
            (Reason::EtagMismatch, NextStep::GiveUp),
            (Reason::Internal, NextStep::GiveUp),
        ] {
            let fault = ClientFault::from(Status::from(Fault::new(reason, "x")));
            assert_eq!(next_step(&fault), expected, "{reason}");
            assert_eq!(fault.may_pass(), expected != NextStep::GiveUp, "{reason}");
        }
        let hint = Some(Duration::from_secs(3));
        let hinted = Fault::new(Reason::RateLimited, "x").retry_after(Duration::from_secs(3));
        assert_eq!(next_step(&Status::from(hinted).into()), NextStep::Again { hint });
    }

    #[test]
    fn a_broken_connection_is_tried_again() {
        for (status, expected) in [
            (Status::unavailable("x"), AGAIN),
            (Status::unknown("h2"), AGAIN),
            (Status::internal("h2"), AGAIN),
            (Status::cancelled("x"), AGAIN),
            (Status::unimplemented("x"), NextStep::GiveUp),
            (Status::unauthenticated("x"), NextStep::GiveUp),
            (Status::permission_denied("x"), NextStep::GiveUp),
        ] {
            assert_eq!(next_step(&status.clone().into()), expected, "{status:?}");
        }
        let (to, why) = (String::new(), String::new());
        assert_eq!(next_step(&ClientFault::Connect { to: to.clone(), why: why.clone() }), AGAIN);
        assert_eq!(next_step(&ClientFault::Tls { to, why }), NextStep::GiveUp);
    }

    #[test]
    fn a_failed_registration_is_tried_again_when_it_may_pass() {
        let status = UpdateStatus::Failed { reason: "ALLOCATION_FAILED".to_owned(), message: "x".to_owned() };
        let hint = Some(Duration::from_secs(5));
        let passing = ClientFault::NotAssigned { status: status.clone(), retry_after: hint };
        assert_eq!(next_step(&passing), NextStep::Again { hint });
        assert_eq!(next_step(&ClientFault::NotAssigned { status, retry_after: None }), NextStep::GiveUp);
    }

    #[test]
    fn pauses_grow_stay_bounded_and_honour_the_hint() {
        for (tries, hint, draw, expected_ms) in [
            (1, None, 0, 250),
            (1, None, u32::MAX, 500),
            (2, None, u32::MAX, 1_000),
            (5, None, 0, 4_000),
            (20, None, u32::MAX, 60_000),
            (u32::MAX, None, 0, 30_000),
            (0, None, 0, 250),
            (1, Some(7), 0, 7_000),
            (1, Some(7), u32::MAX, 7_250),
            (30, Some(1_000_000), 0, 3_600_000),
        ] {
            let hint = hint.map(Duration::from_secs);
            assert_eq!(pause(tries, hint, draw), Duration::from_millis(expected_ms), "{tries} {hint:?} {draw}");
        }
    }

    #[test]
    fn patience_ends() {
        assert!(Patience::Forever.allows_more(u32::MAX));
        assert!(Patience::Tries(2).allows_more(1));
        assert!(!Patience::Tries(2).allows_more(2));
        assert!(!Patience::Tries(0).allows_more(1));
    }
}
