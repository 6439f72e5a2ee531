//! What a caller is told when something is refused: a kind, one stable reason, and a sentence.
//!
//! The reasons are a closed list. Edges map a kind to their own code in one place; the README's table of reasons is
//! checked against [`Reason::ALL`].

use std::fmt;
use std::time::Duration;

/// The kind of a fault, which each edge maps to its own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it is.
    Invalid,
    /// Nobody was proven.
    Unauthenticated,
    /// Somebody was proven, but may not.
    Denied,
    NotFound,
    /// The state of things forbids it now (etag, still in use, already there).
    Conflict,
    /// A bound is reached; try again after the hint.
    Exhausted,
    /// A part is away; try again after the hint.
    Unavailable,
    /// Ours to mend.
    Internal,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:ident;)+) => {
        /// A stable reason on the wire. Adding one is a compatible change; renaming one is not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of the README's table.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The text on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text),+ }
            }

            pub fn kind(self) -> Kind {
                match self { $(Reason::$name => Kind::$kind),+ }
            }

            /// What it means, for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+)),+ }
            }
        }
    };
}

reasons! {
    /// The caller proved nothing that an enrollment accepts; the exact reason is in the audit log under the tracking id.
    RegistrationRefused = "REGISTRATION_REFUSED", Unauthenticated;
    /// The call needs a client certificate (or token) that was not presented or not accepted.
    CallerUnauthenticated = "CALLER_UNAUTHENTICATED", Unauthenticated;
    /// The caller's role does not allow this call.
    RoleNotAllowed = "ROLE_NOT_ALLOWED", Denied;
    /// A device may see and change only its own record.
    NotYours = "NOT_YOURS", Denied;
    /// A field is missing, malformed or out of bounds; metadata `field` names it.
    InvalidArgument = "INVALID_ARGUMENT", Invalid;
    /// The message is larger than the service takes.
    MessageTooLarge = "MESSAGE_TOO_LARGE", Invalid;
    /// The page token was not made by this listing, or its filter changed.
    InvalidPageToken = "INVALID_PAGE_TOKEN", Invalid;
    /// The twin document breaks a limit: size, depth, a key or a value.
    TwinInvalid = "TWIN_INVALID", Invalid;
    /// The setting is known but this build does not do it yet.
    NotYetSupported = "NOT_YET_SUPPORTED", Invalid;
    /// No enrollment has that id.
    EnrollmentNotFound = "ENROLLMENT_NOT_FOUND", NotFound;
    /// No enrollment group has that id.
    GroupNotFound = "GROUP_NOT_FOUND", NotFound;
    /// No hub has that id.
    HubNotFound = "HUB_NOT_FOUND", NotFound;
    /// The device never registered, or its registration was deleted.
    RegistrationNotFound = "REGISTRATION_NOT_FOUND", NotFound;
    /// The operation is not the device's last one.
    OperationNotFound = "OPERATION_NOT_FOUND", NotFound;
    /// The hub has no such device.
    TwinNotFound = "TWIN_NOT_FOUND", NotFound;
    /// No audit entry has that tracking id.
    AuditEntryNotFound = "AUDIT_ENTRY_NOT_FOUND", NotFound;
    /// Something with that id exists.
    AlreadyExists = "ALREADY_EXISTS", Conflict;
    /// The record changed since it was read: read it again.
    EtagMismatch = "ETAG_MISMATCH", Conflict;
    /// The certificate belongs to another enrollment, or to the operators' authority.
    CertificateInUse = "CERTIFICATE_IN_USE", Conflict;
    /// The endorsement key belongs to another enrollment.
    EndorsementKeyInUse = "ENDORSEMENT_KEY_IN_USE", Conflict;
    /// The key belongs to another group.
    KeyInUse = "KEY_IN_USE", Conflict;
    /// The enrollment has no symmetric keys: its devices prove themselves otherwise.
    NoSymmetricKeys = "NO_SYMMETRIC_KEYS", Conflict;
    /// The device id belongs to another registration.
    DeviceIdInUse = "DEVICE_ID_IN_USE", Conflict;
    /// A registration, move or obligation names the hub: drain it first.
    HubInUse = "HUB_IN_USE", Conflict;
    /// The lifecycle of the hub does not allow this step.
    HubStateConflict = "HUB_STATE_CONFLICT", Conflict;
    /// The device is being moved; its twin accepts writes again at its hub in a moment: register again.
    DeviceMoving = "DEVICE_MOVING", Unavailable;
    /// The device no longer lives at this hub: register again.
    DeviceMoved = "DEVICE_MOVED", Denied;
    /// The enrollment is disabled.
    EnrollmentDisabled = "ENROLLMENT_DISABLED", Denied;
    /// The enrollment changed, or the challenge was given up, between the two calls of a proof by TPM: begin again.
    TpmChallengeOutdated = "TPM_CHALLENGE_OUTDATED", Conflict;
    /// The device came with another storage root key than its enrollment allows; an operator can have the known one forgotten.
    StorageRootKeyNotAllowed = "STORAGE_ROOT_KEY_NOT_ALLOWED", Denied;
    /// A platform configuration register holds a value that the enrollment does not allow; the message names it.
    PcrNotAllowed = "PCR_NOT_ALLOWED", Denied;
    /// No hub is left that could take the device; metadata names why each was not taken.
    NoHubAvailable = "NO_HUB_AVAILABLE", Conflict;
    /// The allocation webhook failed; the assignment is kept.
    AllocationFailed = "ALLOCATION_FAILED", Unavailable;
    /// The hub that holds the device is no longer linked.
    AssignedHubUnlinked = "ASSIGNED_HUB_UNLINKED", Conflict;
    /// The hub that holds the device is away or has lost it, and the service has seen no state of it that could be carried.
    NoLastKnownState = "NO_LAST_KNOWN_STATE", Conflict;
    /// The device's history has no such move, or nothing in it that could be undone or resolved so.
    MoveNotFound = "MOVE_NOT_FOUND", NotFound;
    /// What was asked cannot be done to this move now; the message says what can.
    MoveStateConflict = "MOVE_STATE_CONFLICT", Conflict;
    /// The hub cannot be reached now.
    HubUnavailable = "HUB_UNAVAILABLE", Unavailable;
    /// The hub refused; metadata names its reason.
    HubRefused = "HUB_REFUSED", Conflict;
    /// The move was given up; the device stays where it was.
    MoveAborted = "MOVE_ABORTED", Unavailable;
    /// A queue or a rate is at its bound: try again after the hint.
    Overloaded = "OVERLOADED", Exhausted;
    /// This peer asks too often: try again after the hint.
    RateLimited = "RATE_LIMITED", Exhausted;
    /// The service is stopping or not ready.
    ServiceUnavailable = "SERVICE_UNAVAILABLE", Unavailable;
    /// A defect or a broken disk; the log has the details.
    Internal = "INTERNAL", Internal;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal on its way to a caller. Carries nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    /// One sentence, lower case, without full stop: what is wrong and what to do.
    pub message: String,
    /// Machine-readable details (`field`, `hub`, `tracking_id` …).
    pub metadata: Vec<(&'static str, String)>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl Fault {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: Vec::new(), retry_after: None }
    }

    /// A field of the request that is wrong.
    pub fn invalid(field: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Reason::InvalidArgument, format!("{field}: {message}")).with("field", field)
    }

    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }

    pub fn kind(&self) -> Kind {
        self.reason.kind()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason)
    }
}

impl std::error::Error for Fault {}
