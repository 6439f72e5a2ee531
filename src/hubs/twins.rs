//! Who may read and write a twin at a hub, and what a write makes of it; pure, shared by every hub of ours.
//!
//! Back ends may read in any phase; devices are turned away as soon as their twin cannot be written, so that they
//! register again instead of acting on a twin that is about to be somewhere else.

use data_encoding::BASE64URL_NOPAD;

use super::entry::{Change, Entry, Phase, Tenant, matches};
use super::watch::{Notice, WholeDesired};
use super::{Resident, ResidentPage, Sighting, TwinCaller, TwinRefusal, TwinWrite};
use crate::domain::{
    Credential, DeviceId, DeviceState, Document, DocumentFault, HubStatus, Timestamp, TwinFault, TwinPatch, limits,
};

/// Tells the tokens of this listing from those of others.
const TOKEN_MARK: &str = "residents/";

/// What a hub has of a device, as far as twins are concerned.
#[derive(Debug, Clone, Copy)]
pub enum Presence<'e> {
    Here(&'e Tenant),
    /// It has left; what it signed in with when it was here.
    Departed(Option<&'e Credential>),
    Unknown,
}

impl<'e> From<Option<&'e Entry>> for Presence<'e> {
    fn from(entry: Option<&'e Entry>) -> Self {
        match entry {
            None => Presence::Unknown,
            Some(entry) => match &entry.tenant {
                Some(tenant) => Presence::Here(tenant),
                None => Presence::Departed(entry.departed.as_ref()),
            },
        }
    }
}

/// A write that is accepted: what to keep, and what watchers are told.
#[derive(Debug)]
pub struct Written {
    pub state: DeviceState,
    pub notice: Option<Notice>,
}

impl Written {
    /// The twin stays as it is.
    pub fn nothing(tenant: &Tenant) -> Self {
        Self { state: tenant.state.clone(), notice: None }
    }
}

/// Lets a caller read, or says why not. A stranger cannot tell an unknown device from one that is not his.
pub fn admit<'e>(presence: Presence<'e>, caller: &TwinCaller) -> Result<&'e Tenant, TwinRefusal> {
    match (caller, presence) {
        (TwinCaller::BackEnd, Presence::Here(tenant)) => Ok(tenant),
        (TwinCaller::BackEnd, Presence::Departed(_) | Presence::Unknown) => Err(TwinRefusal::NotFound),
        (TwinCaller::Device(_) | TwinCaller::Token(_), Presence::Here(tenant)) => {
            let known = is_known(&tenant.credential, caller);
            match (&tenant.state.status, tenant.phase) {
                (HubStatus::Enabled, Phase::Open) if known => Ok(tenant),
                (HubStatus::Enabled, Phase::Staged | Phase::Sealed) if known => Err(TwinRefusal::Moving),
                (HubStatus::Enabled | HubStatus::Disabled { .. }, Phase::Staged | Phase::Open | Phase::Sealed) => {
                    Err(TwinRefusal::NotLetIn)
                }
            }
        }
        (TwinCaller::Device(_) | TwinCaller::Token(_), Presence::Departed(Some(credential)))
            if is_known(credential, caller) =>
        {
            Err(TwinRefusal::Moved)
        }
        (TwinCaller::Device(_) | TwinCaller::Token(_), Presence::Departed(_) | Presence::Unknown) => {
            Err(TwinRefusal::NotLetIn)
        }
    }
}

fn is_known(credential: &Credential, caller: &TwinCaller) -> bool {
    match caller {
        TwinCaller::BackEnd => false,
        TwinCaller::Device(presented) => matches(credential, presented),
        TwinCaller::Token(token) => token.signer(credential).is_some(),
    }
}

/// The credential that is left once the caller has used what it signed in with: keys that were delivered before the one it
/// used are not good any more. `None` when that changes nothing.
pub fn used_up(credential: &Credential, caller: &TwinCaller) -> Option<Credential> {
    match (credential, caller) {
        (Credential::Delivered(keys), TwinCaller::Token(token)) => {
            let signer = token.signer(credential)?;
            keys.used(signer.fingerprint()).map(Credential::Delivered)
        }
        (Credential::X509 { .. } | Credential::Delivered(_) | Credential::Shared(_), _) => None,
    }
}

/// Lets a caller write, or says why not.
pub fn admit_write<'e>(presence: Presence<'e>, caller: &TwinCaller) -> Result<&'e Tenant, TwinRefusal> {
    let tenant = admit(presence, caller)?;
    match tenant.phase {
        Phase::Open => Ok(tenant),
        Phase::Staged | Phase::Sealed => Err(TwinRefusal::Moving),
    }
}

/// The device's report.
pub fn report(tenant: &Tenant, patch: Document, now: Timestamp) -> Result<Written, TwinRefusal> {
    let patch = TwinPatch { reported: Some(patch), ..TwinPatch::default() };
    let twin = tenant.state.twin.patched(&patch, now)?;
    Ok(Written { state: DeviceState { twin, ..tenant.state.clone() }, notice: None })
}

/// A back end's change. A change of the status is not a write of the twin: its version stays.
pub fn write(tenant: &Tenant, version: Option<u64>, write: TwinWrite, now: Timestamp) -> Result<Written, TwinRefusal> {
    let twin = &tenant.state.twin;
    if version.is_some_and(|version| version != twin.version) {
        return Err(TwinRefusal::VersionMismatch);
    }
    let (state, notice) = match write {
        TwinWrite::StatusFrom(seen, _) if seen != tenant.state.status => return Err(TwinRefusal::VersionMismatch),
        TwinWrite::Patch(patch) => {
            let twin = twin.patched(&patch, now)?;
            let version = twin.desired.version;
            let state = DeviceState { twin, ..tenant.state.clone() };
            let notice = patch.desired.map(|patch| Notice::Patched { patch, version, whole: whole(&state) });
            (state, notice)
        }
        TwinWrite::Replace { tags, desired } => {
            let replaced = desired.is_some();
            let state = DeviceState { twin: twin.replaced(tags, desired, now)?, ..tenant.state.clone() };
            let notice = replaced.then(|| Notice::Replaced(whole(&state)));
            (state, notice)
        }
        TwinWrite::Status(status) | TwinWrite::StatusFrom(_, status) => {
            check_status(&status)?;
            let notice = match &status {
                HubStatus::Enabled => None,
                // Who is no longer let in is not told anything more either.
                HubStatus::Disabled { .. } => Some(Notice::Ended),
            };
            (DeviceState { status, ..tenant.state.clone() }, notice)
        }
    };
    Ok(Written { state, notice })
}

/// The desired properties as a whole.
pub fn whole(state: &DeviceState) -> WholeDesired {
    let desired = &state.twin.desired;
    WholeDesired { desired: desired.properties.clone(), version: desired.version }
}

/// What watchers of a device are told when a call was obeyed.
pub fn notice_of(change: Change, entry: Option<&Entry>) -> Option<Notice> {
    match change {
        Change::Unseen => None,
        Change::Closed => Some(Notice::Closed),
        Change::Credential => Some(Notice::Ended),
        Change::Replaced => {
            let tenant = entry.and_then(|entry| entry.tenant.as_ref())?;
            Some(Notice::Replaced(whole(&tenant.state)))
        }
    }
}

/// A tenant as the change feed shows it.
pub fn sighting(device: &DeviceId, tenant: &Tenant) -> Sighting {
    let Tenant { generation, phase, credential: _, state } = tenant;
    Sighting { device: device.clone(), generation: *generation, phase: *phase, state: state.clone() }
}

/// A tenant as callers see it.
pub fn resident(device: &DeviceId, tenant: &Tenant) -> Resident {
    Resident { device: device.clone(), state: tenant.state.clone(), open: tenant.phase == Phase::Open }
}

/// A page, and the token of the next when there is more.
pub fn page(rows: Vec<Resident>, more: bool) -> ResidentPage {
    let last = rows.last().filter(|_| more);
    let next = last.map(|last| BASE64URL_NOPAD.encode(format!("{TOKEN_MARK}{}", last.device).as_bytes()));
    ResidentPage { rows, next }
}

/// The device after which a page begins.
pub fn read_token(token: &str) -> Result<DeviceId, TwinRefusal> {
    let text = BASE64URL_NOPAD.decode(token.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let device = text.as_deref().and_then(|text| text.strip_prefix(TOKEN_MARK));
    device.and_then(|device| DeviceId::parse(device).ok()).ok_or(TwinRefusal::PageToken)
}

fn check_status(status: &HubStatus) -> Result<(), TwinFault> {
    match status {
        HubStatus::Disabled { reason } if reason.chars().count() > limits::REASON_CHARS_MAX => Err(TwinFault {
            section: "status",
            fault: DocumentFault::StringTooLong { path: "/reason".to_owned(), max: limits::REASON_CHARS_MAX },
        }),
        HubStatus::Disabled { .. } | HubStatus::Enabled => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Capabilities, InitialState, Order, Thumbprint, Twin};

    const NOW: Timestamp = Timestamp(5);

    fn credential(number: u8) -> Credential {
        Credential::x509([Thumbprint([number; 32])])
    }

    fn tenant(phase: Phase, status: HubStatus) -> Tenant {
        let twin = Twin::initial(&InitialState::default(), NOW);
        Tenant {
            generation: Order(1),
            phase,
            credential: credential(1),
            state: DeviceState { twin, capabilities: Capabilities::default(), status },
        }
    }

    #[test]
    fn who_may_read_and_who_may_write() {
        use TwinRefusal::{Moved, Moving, NotFound, NotLetIn};
        let disabled = || HubStatus::Disabled { reason: "lost".to_owned() };
        let (open, staged, sealed) = (
            tenant(Phase::Open, HubStatus::Enabled),
            tenant(Phase::Staged, HubStatus::Enabled),
            tenant(Phase::Sealed, HubStatus::Enabled),
        );
        let (shut, shut_and_sealed) = (tenant(Phase::Open, disabled()), tenant(Phase::Sealed, disabled()));
        let was_here = credential(1);
        let (own, strange) = (TwinCaller::Device(credential(1)), TwinCaller::Device(credential(2)));
        let back_end = TwinCaller::BackEnd;
        for (name, presence, caller, read, write) in [
            ("open, own", Presence::Here(&open), &own, None, None),
            ("open, strange", Presence::Here(&open), &strange, Some(NotLetIn), Some(NotLetIn)),
            ("open, back end", Presence::Here(&open), &back_end, None, None),
            ("staged, own", Presence::Here(&staged), &own, Some(Moving), Some(Moving)),
            ("staged, strange", Presence::Here(&staged), &strange, Some(NotLetIn), Some(NotLetIn)),
            ("staged, back end", Presence::Here(&staged), &back_end, None, Some(Moving)),
            ("sealed, own", Presence::Here(&sealed), &own, Some(Moving), Some(Moving)),
            ("sealed, back end", Presence::Here(&sealed), &back_end, None, Some(Moving)),
            ("disabled, own", Presence::Here(&shut), &own, Some(NotLetIn), Some(NotLetIn)),
            ("disabled, back end", Presence::Here(&shut), &back_end, None, None),
            ("disabled and sealed, own", Presence::Here(&shut_and_sealed), &own, Some(NotLetIn), Some(NotLetIn)),
            ("left, own", Presence::Departed(Some(&was_here)), &own, Some(Moved), Some(Moved)),
            ("left, strange", Presence::Departed(Some(&was_here)), &strange, Some(NotLetIn), Some(NotLetIn)),
            ("left, nothing known", Presence::Departed(None), &own, Some(NotLetIn), Some(NotLetIn)),
            ("left, back end", Presence::Departed(Some(&was_here)), &back_end, Some(NotFound), Some(NotFound)),
            ("unknown, own", Presence::Unknown, &own, Some(NotLetIn), Some(NotLetIn)),
            ("unknown, back end", Presence::Unknown, &back_end, Some(NotFound), Some(NotFound)),
        ] {
            assert_eq!(admit(presence, caller).err(), read, "read, {name}");
            assert_eq!(admit_write(presence, caller).err(), write, "write, {name}");
        }
    }

    #[test]
    fn what_a_back_end_may_write() {
        let tenant = tenant(Phase::Open, HubStatus::Enabled);
        let document = |text: &str| Document::from_text(text).unwrap();
        let patch = |text: &str| TwinWrite::Patch(TwinPatch { desired: Some(document(text)), ..TwinPatch::default() });
        let disable = |length| TwinWrite::Status(HubStatus::Disabled { reason: "x".repeat(length) });
        let tags = || TwinWrite::Replace { tags: Some(document("{}")), desired: None };
        for (name, version, change, outcome) in [
            ("patch", None, patch("{}"), Ok(2)),
            ("patch at its version", Some(1), patch("{}"), Ok(2)),
            ("patch at another version", Some(2), patch("{}"), Err("the twin changed since it was read")),
            (
                "a bad key",
                None,
                patch(r#"{"$x":1}"#),
                Err(
                    "desired the key \"$x\" holds a character that is not allowed (control characters, '.', '$' and blank)",
                ),
            ),
            ("replace the tags", Some(1), tags(), Ok(2)),
            ("disable", Some(1), disable(limits::REASON_CHARS_MAX), Ok(1)),
            (
                "disable with a novel",
                None,
                disable(limits::REASON_CHARS_MAX + 1),
                Err("status the text at /reason is longer than 128 bytes"),
            ),
        ] {
            let outcome_now = write(&tenant, version, change, NOW);
            let shown = outcome_now.map(|written| written.state.twin.version).map_err(|refusal| refusal.to_string());
            assert_eq!(shown, outcome.map_err(str::to_owned), "{name}");
        }
    }
}
