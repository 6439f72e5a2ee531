//! A key for tokens, wrapped so that it can be imported below one storage key and nowhere else (part 1, 23.3).

use zeroize::Zeroizing;

use super::crypto::{Hash, Refused, cfb_encrypt};
use super::draw::Draw;
use super::form::sized;
use super::keys::StorageKey;
use super::protect::{Purpose, protect, share};
use super::public::name;
use crate::domain::TokenKey;

/// What `TPM2_Import` takes, each with its size in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Duplicate {
    pub(super) public: Vec<u8>,
    pub(super) private: Vec<u8>,
    pub(super) encrypted_seed: Vec<u8>,
}

/// Of the object and of the inner wrapping.
pub(super) const HASH: Hash = Hash::Sha256;
/// Type KEYEDHASH; named by SHA-256; signs, used with an (empty) authorization value, not locked out by others' guesses;
/// scheme HMAC over SHA-256. The policy between is empty: no policy session can stand in for the authorization that
/// duplication asks for, so that nobody gets the key out of the TPM again.
pub(super) const HEAD: &[u8] = &[0x00, 0x08, 0x00, 0x0b, 0x00, 0x04, 0x04, 0x40, 0x00, 0x00, 0x00, 0x05, 0x00, 0x0b];
/// KEYEDHASH and an empty authorization value.
pub(super) const SENSITIVE_HEAD: &[u8] = &[0x00, 0x08, 0x00, 0x00];

/// Wraps a key with both an inner key, which the device gets by a credential, and an outer one, which the storage key
/// opens.
pub(super) fn wrap(
    storage_key: &StorageKey,
    key: &TokenKey,
    inner_key: &[u8],
    draw: &Draw,
) -> Result<Duplicate, Refused> {
    let obfuscation = draw.secret("obfuscation", HASH.size())?;
    let unique = HASH.of(&[&obfuscation, key.secret()]);
    let area = [HEAD, &sized(&unique)?].concat();
    let name = name(HASH, &area);

    let sensitive = [SENSITIVE_HEAD, &Zeroizing::new(sized(&obfuscation)?), &Zeroizing::new(sized(key.secret())?)];
    let sensitive = Zeroizing::new(sized(&Zeroizing::new(sensitive.concat()))?);
    let integrity = HASH.of(&[&sensitive, name.as_bytes()]);
    let mut inner = Zeroizing::new([sized(&integrity)?.as_slice(), &sensitive].concat());
    cfb_encrypt(inner_key, &mut inner)?;

    let parent = storage_key.parent();
    let shared = share(parent, Purpose::Duplicate, draw, "storage root key seed")?;
    let outer = protect((parent.hash, parent.symmetric_size), &shared.seed, &name, inner)?;
    Ok(Duplicate { public: sized(&area)?, private: sized(&outer)?, encrypted_seed: sized(&shared.secret)? })
}
