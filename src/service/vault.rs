//! Opens and closes keys that the service hands to hubs: AES-256-GCM under a key of the service's own.
//!
//! What is closed may be written anywhere (store, journal, hubs' files, backups): it opens only here. The key of the vault
//! lies in a file of its own beside the store and is in no backup. Without it nothing that was closed opens again: devices
//! that sign in with such keys must register once more, and get new ones.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::ambient::Entropy;
use crate::domain::{KeyFingerprint, SealedKey, TokenKey};

/// Bytes of the vault's key.
pub const VAULT_KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// See the module's documentation.
pub struct Vault {
    sealing: LessSafeKey,
    naming: hmac::Key,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    pub fn new(key: &[u8; VAULT_KEY_BYTES]) -> Self {
        // One key for each use, so that what names a key says nothing of what closes it.
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derive = |label: &str| hmac::sign(&root, label.as_bytes());
        let sealing =
            UnboundKey::new(&AES_256_GCM, derive("seal").as_ref()).expect("a tag of HMAC-SHA256 has 32 bytes");
        let naming = hmac::Key::new(hmac::HMAC_SHA256, derive("fingerprint").as_ref());
        Self { sealing: LessSafeKey::new(sealing), naming }
    }

    /// Closes a key. Nonces are random: at a registration a millisecond the first repetition is thousands of years away.
    pub fn seal(&self, key: &TokenKey, entropy: &dyn Entropy) -> SealedKey {
        let fingerprint = self.fingerprint(key);
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let mut closed = Zeroizing::new(key.secret().to_vec());
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(fingerprint.0), &mut *closed)
            .expect("a key is far shorter than what one nonce may close");
        let sealed = [&nonce[..], &closed].concat();
        SealedKey::new(fingerprint, sealed).expect("a key of at most 64 bytes stays within the bound when closed")
    }

    /// `None` when it was closed by another vault, or changed since.
    pub fn open(&self, key: &SealedKey) -> Option<TokenKey> {
        let (nonce, closed) = key.sealed().split_first_chunk::<NONCE_BYTES>()?;
        let mut closed = Zeroizing::new(closed.to_vec());
        let aad = Aad::from(key.fingerprint().0);
        let opened = self.sealing.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut closed).ok()?;
        TokenKey::new(opened).ok()
    }

    fn fingerprint(&self, key: &TokenKey) -> KeyFingerprint {
        let tag = hmac::sign(&self.naming, key.secret());
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(tag.as_ref());
        KeyFingerprint(fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::SeededEntropy;

    fn key(number: u8) -> TokenKey {
        TokenKey::new(&[number; 32]).unwrap()
    }

    #[test]
    fn what_is_closed_opens_here_only_and_only_unchanged() {
        let (vault, entropy) = (Vault::new(&[1; 32]), SeededEntropy::new(1));
        let sealed = vault.seal(&key(7), &entropy);
        assert_eq!(vault.open(&sealed), Some(key(7)));
        assert_eq!(Vault::new(&[2; 32]).open(&sealed), None);
        for place in 0..sealed.sealed().len() {
            let mut bytes = sealed.sealed().to_vec();
            bytes[place] ^= 1;
            assert_eq!(vault.open(&SealedKey::new(sealed.fingerprint(), bytes).unwrap()), None, "{place}");
        }
        for length in 0..sealed.sealed().len() {
            let short = SealedKey::new(sealed.fingerprint(), &sealed.sealed()[..length]).unwrap();
            assert_eq!(vault.open(&short), None, "{length}");
        }
        let other = vault.seal(&key(8), &entropy);
        assert_eq!(vault.open(&SealedKey::new(other.fingerprint(), sealed.sealed()).unwrap()), None, "another's name");
    }

    #[test]
    fn the_same_key_has_the_same_name_and_other_bytes() {
        let (vault, entropy) = (Vault::new(&[1; 32]), SeededEntropy::new(1));
        let (one, again) = (vault.seal(&key(7), &entropy), vault.seal(&key(7), &entropy));
        assert_eq!(one, again);
        assert_ne!(one.sealed(), again.sealed());
        assert_ne!(one, vault.seal(&key(8), &entropy));
        assert_ne!(one, Vault::new(&[2; 32]).seal(&key(7), &entropy));
        let shown = one.sealed().windows(4).any(|window| window == [7; 4]);
        assert!(!shown, "a key in the clear");
    }
}
