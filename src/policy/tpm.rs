//! Whether a TPM that proved itself is in a state that its enrollment allows: which storage root key it came with, and
//! what its registers hold.
//!
//! Who the device is was proven before. It may be told what is wrong, and an operator reads it in the operation.

use std::fmt;

use crate::domain::{PcrIndex, PcrMode, Reason, SrkRule, TpmName, TpmRules};

/// What a TPM showed beside its endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmState {
    pub storage_root_key: TpmName,
    /// Registers that hold a value which the enrollment does not name. Ascending.
    pub mismatches: Vec<PcrIndex>,
}

/// Why it is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmObjection {
    StorageRootKey { rule: &'static str },
    Pcr(PcrIndex),
}

impl TpmObjection {
    pub fn reason(&self) -> Reason {
        match self {
            TpmObjection::StorageRootKey { .. } => Reason::StorageRootKeyNotAllowed,
            TpmObjection::Pcr(_) => Reason::PcrNotAllowed,
        }
    }
}

impl fmt::Display for TpmObjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TpmObjection::StorageRootKey { rule } => {
                write!(f, "the storage root key is not the one that the rule {rule} asks for")
            }
            TpmObjection::Pcr(index) => write!(f, "PCR {index} holds a value that the enrollment does not allow"),
        }
    }
}

/// Holds a TPM against the rules. `known` is the storage root key on record: of the last assignment, `None` when there was
/// none or an operator had it forgotten.
pub fn examine(rules: &TpmRules, known: Option<&TpmName>, state: &TpmState) -> Result<(), TpmObjection> {
    let key = &state.storage_root_key;
    let is_expected = match &rules.storage_root_key {
        SrkRule::Any => true,
        SrkRule::PinFirst => known.is_none_or(|known| known == key),
        SrkRule::Pinned(name) => name == key,
    };
    if !is_expected {
        return Err(TpmObjection::StorageRootKey { rule: rules.storage_root_key.as_str() });
    }
    let enforced = rules.pcrs.as_ref().is_some_and(|policy| match policy.mode() {
        PcrMode::Enforce => true,
        PcrMode::Audit => false,
    });
    match state.mismatches.first() {
        Some(index) if enforced => Err(TpmObjection::Pcr(*index)),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PcrPolicy, PcrValue};

    fn name(number: u8) -> TpmName {
        TpmName::parse(&[&[0, 0x0b][..], &[number; 32]].concat()).unwrap()
    }

    fn check(rule: SrkRule, known: Option<u8>, presented: u8, expected: Result<(), &str>) {
        let rules = TpmRules { storage_root_key: rule, pcrs: None };
        let state = TpmState { storage_root_key: name(presented), mismatches: Vec::new() };
        let verdict = examine(&rules, known.map(name).as_ref(), &state);
        assert_eq!(verdict.map_err(|objection| objection.reason().as_str()), expected, "{rules:?} {known:?}");
    }

    #[test]
    fn storage_root_keys_are_held_by_their_rule() {
        let wrong = Err("STORAGE_ROOT_KEY_NOT_ALLOWED");
        check(SrkRule::Any, None, 1, Ok(()));
        check(SrkRule::Any, Some(2), 1, Ok(()));
        check(SrkRule::PinFirst, None, 1, Ok(()));
        check(SrkRule::PinFirst, Some(1), 1, Ok(()));
        check(SrkRule::PinFirst, Some(2), 1, wrong);
        check(SrkRule::Pinned(name(1)), None, 1, Ok(()));
        check(SrkRule::Pinned(name(1)), Some(2), 1, Ok(()));
        check(SrkRule::Pinned(name(2)), None, 1, wrong);
        check(SrkRule::Pinned(name(2)), Some(1), 1, wrong);
    }

    #[test]
    fn a_register_keeps_a_device_out_only_where_that_is_enforced() {
        let seven = PcrIndex::new(7).unwrap();
        let policy = |mode| PcrPolicy::new(mode, [(seven, vec![PcrValue([1; 32])])].into()).unwrap();
        let state = |mismatches: &[PcrIndex]| TpmState { storage_root_key: name(1), mismatches: mismatches.to_vec() };
        for (pcrs, mismatches, expected) in [
            (None, &[][..], Ok(())),
            (Some(policy(PcrMode::Enforce)), &[], Ok(())),
            (Some(policy(PcrMode::Enforce)), &[seven], Err(TpmObjection::Pcr(seven))),
            (Some(policy(PcrMode::Audit)), &[seven], Ok(())),
        ] {
            let rules = TpmRules { storage_root_key: SrkRule::Any, pcrs };
            assert_eq!(examine(&rules, None, &state(mismatches)), expected);
        }
        assert!(TpmObjection::Pcr(seven).to_string().starts_with("PCR 7 "));
    }
}
