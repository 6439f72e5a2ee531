//! Why something that a TPM was asked for did not happen, and what to do about it.

use std::fmt;
use std::time::Duration;

use tpm2_protocol::data::{TpmRc, TpmRcBase};

/// What is wrong with a TPM, its answers, or what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChipFault {
    #[error("cannot open the TPM at {address}: {why}")]
    Open { address: String, why: String },
    /// The command may have been executed.
    #[error("the TPM at {address} went away in the middle of a command: {why}")]
    Broken { address: String, why: String },
    /// The command may be executed still.
    #[error(
        "the TPM at {address} did not answer within {} s; does another program hold it?", .within.as_secs()
    )]
    Silent { address: String, within: Duration },
    #[error("the TPM's answer cannot be understood: {why}")]
    Answer { why: &'static str },
    #[error("what the TPM was to be sent does not fit a command: {what}")]
    TooLong { what: &'static str },
    #[error("the TPM refused {command}: {code}{}", .code.hint())]
    Refused { command: &'static str, code: ResponseCode },
    #[error("handle 0x{handle:08x} of the TPM holds {found}, not {expected}; name another handle or free this one")]
    Occupied { handle: u32, expected: &'static str, found: &'static str },
    #[error("the TPM has no identity key at handle 0x{handle:08x}: register first")]
    NoIdentity { handle: u32 },
    #[error("what the service sent for the TPM is broken: {why}")]
    Blob { why: &'static str },
    #[error("PCR {index} does not exist: a TPM has the PCRs 0 to 23")]
    NoSuchPcr { index: u8 },
    #[error("the TPM's bank {bank} has no PCR {index}")]
    PcrNotInBank { bank: &'static str, index: u8 },
    #[error("the thread that speaks to the TPM ended early")]
    Stopped,
}

impl ChipFault {
    /// Whether the same may succeed later: the TPM was busy or away.
    pub fn may_pass(&self) -> bool {
        match self {
            ChipFault::Open { .. } | ChipFault::Broken { .. } | ChipFault::Silent { .. } | ChipFault::Stopped => true,
            ChipFault::Refused { code, .. } => code.may_pass(),
            ChipFault::Answer { .. }
            | ChipFault::TooLong { .. }
            | ChipFault::Occupied { .. }
            | ChipFault::NoIdentity { .. }
            | ChipFault::Blob { .. }
            | ChipFault::NoSuchPcr { .. }
            | ChipFault::PcrNotInBank { .. } => false,
        }
    }

    /// The response code that a refusal came with, without the number of the parameter, handle or session.
    pub(super) fn code(&self) -> Option<TpmRcBase> {
        match self {
            ChipFault::Refused { code, .. } => code.base(),
            ChipFault::Open { .. }
            | ChipFault::Broken { .. }
            | ChipFault::Silent { .. }
            | ChipFault::Answer { .. }
            | ChipFault::TooLong { .. }
            | ChipFault::Occupied { .. }
            | ChipFault::NoIdentity { .. }
            | ChipFault::Blob { .. }
            | ChipFault::NoSuchPcr { .. }
            | ChipFault::PcrNotInBank { .. }
            | ChipFault::Stopped => None,
        }
    }
}

/// A response code as it came (TPM 2.0 part 2, section 6.6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    fn decoded(self) -> Option<TpmRc> {
        TpmRc::try_from(self.0).ok()
    }

    pub(super) fn base(self) -> Option<TpmRcBase> {
        self.decoded().map(|code| code.base())
    }

    /// Warnings that ask for the same command once more.
    pub(super) fn asks_again(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing | TpmRcBase::NvRate))
    }

    fn may_pass(self) -> bool {
        self.asks_again() || matches!(self.decoded(), Some(TpmRc::Warn(_)))
    }

    /// What to do, for the codes that people meet.
    fn hint(self) -> &'static str {
        // The library's list of codes grows; those without advice speak for themselves.
        match self.base() {
            Some(TpmRcBase::BadAuth | TpmRcBase::AuthFail) => {
                "; the owner or endorsement hierarchy has a password: give it with REHOME_TPM_OWNER_AUTH_FILE or \
                 REHOME_TPM_ENDORSEMENT_AUTH_FILE"
            }
            Some(TpmRcBase::Lockout) => "; too many wrong passwords were tried: wait, or reset its lockout",
            Some(TpmRcBase::ObjectMemory | TpmRcBase::SessionMemory | TpmRcBase::SessionHandles) => {
                "; it is full of other programs' objects: use /dev/tpmrm0, or flush them (tpm2_flushcontext -t)"
            }
            Some(TpmRcBase::NvSpace) => "; its non-volatile memory is full: remove an unused persistent key",
            Some(TpmRcBase::Initialize) => "; it was not started: its firmware or simulator must send TPM2_Startup",
            Some(TpmRcBase::Failure) => "; it is in failure mode: restart it",
            Some(TpmRcBase::Integrity) => {
                "; what the service sent was made for another TPM or another storage root key: register again"
            }
            Some(TpmRcBase::Hierarchy) => "; that hierarchy is switched off in the firmware's settings",
            Some(_) | None => "",
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decoded() {
            Some(code) => write!(f, "{code} (0x{:03x})", self.0),
            None => write!(f, "code 0x{:x}", self.0),
        }
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: u32, shown: &str, advised: &str, passes: bool) {
        let fault = ChipFault::Refused { command: "TPM_CC_Load", code: ResponseCode(code) };
        let text = fault.to_string();
        assert!(text.contains(shown), "{text}");
        assert!(if advised.is_empty() { !text.contains(';') } else { text.contains(advised) }, "{text}");
        assert_eq!(fault.may_pass(), passes, "{text}");
    }

    #[test]
    fn codes_are_named_and_come_with_advice() {
        check(0x9a2, "[TPM_RC_BAD_AUTH, session[1]] (0x9a2)", "REHOME_TPM_OWNER_AUTH_FILE", false);
        check(0x1df, "TPM_RC_INTEGRITY", "register again", false);
        check(0x902, "TPM_RC_OBJECT_MEMORY (0x902)", "/dev/tpmrm0", true);
        check(0x922, "TPM_RC_RETRY", "", true);
        check(0x101, "TPM_RC_FAILURE", "restart", false);
        check(0x2d5, "[TPM_RC_SIZE, parameter[2]]", "", false);
        check(0x0fff_ffff, "code 0xfffffff", "", false);
    }
}
