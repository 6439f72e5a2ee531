//! A symmetric key as the service and its hubs keep it: encrypted, and told apart by a fingerprint.
//!
//! Whoever may use the key opens it (`service::vault`); everybody else hands it on as it is. So a key is in no record, no
//! journal, no hub's file and no backup in the clear, whoever wrote that.

use std::fmt;
use std::sync::Arc;

use super::ids::IdFault;
use super::limits;

/// What tells keys apart: made of the key, gives nothing of it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFingerprint(pub [u8; 32]);

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for KeyFingerprint {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let expected = "64 hexadecimal digits";
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(IdFault::Form { what: "key fingerprint", expected })
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({self})")
    }
}

/// An encrypted key. Equal keys have equal fingerprints; their bytes differ with every encryption.
#[derive(Clone)]
pub struct SealedKey {
    fingerprint: KeyFingerprint,
    sealed: Arc<[u8]>,
}

impl SealedKey {
    /// `None` when it is longer than any key that is kept.
    pub fn new(fingerprint: KeyFingerprint, sealed: impl Into<Arc<[u8]>>) -> Option<Self> {
        let sealed = sealed.into();
        (sealed.len() <= limits::SEALED_KEY_BYTES_MAX).then_some(Self { fingerprint, sealed })
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

impl PartialEq for SealedKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for SealedKey {}

impl std::hash::Hash for SealedKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey({})", self.fingerprint)
    }
}

/// Two keys of one owner, both good, so that one can be rolled while the other stays in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPair<K> {
    pub primary: K,
    pub secondary: K,
}

impl<K> KeyPair<K> {
    /// The primary one first.
    pub fn both(&self) -> [&K; 2] {
        [&self.primary, &self.secondary]
    }

    pub fn map<T>(&self, mut map: impl FnMut(&K) -> T) -> KeyPair<T> {
        KeyPair { primary: map(&self.primary), secondary: map(&self.secondary) }
    }
}

/// Keys that were delivered one after the other, newest first. Each stays good until a newer one is used: a device that
/// never got the newest still has the one before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveredKeys(Vec<SealedKey>);

impl DeliveredKeys {
    pub fn one(key: SealedKey) -> Self {
        Self(vec![key])
    }

    /// As they were kept; surplus ones go as in [`DeliveredKeys::after`].
    pub fn kept(keys: Vec<SealedKey>) -> Self {
        let mut this = Self(keys);
        this.bound();
        this
    }

    pub fn newest_first(&self) -> &[SealedKey] {
        &self.0
    }

    /// These keys, delivered after the earlier ones.
    pub fn after(&self, earlier: &DeliveredKeys) -> DeliveredKeys {
        let before = earlier.0.iter().filter(|key| !self.0.contains(key));
        Self::kept(self.0.iter().chain(before).cloned().collect())
    }

    /// What is left once this key was used: older ones are not good any more. `None` when that changes nothing.
    pub fn used(&self, fingerprint: KeyFingerprint) -> Option<DeliveredKeys> {
        let place = self.0.iter().position(|key| key.fingerprint == fingerprint)?;
        (place + 1 < self.0.len()).then(|| Self(self.0.iter().take(place + 1).cloned().collect()))
    }

    /// The oldest is the last one that was used, so it stays: of many that were delivered since and never used, those in
    /// the middle go first.
    fn bound(&mut self) {
        while self.0.len() > limits::DELIVERED_KEYS_MAX {
            let before_last = self.0.len() - 2;
            self.0.remove(before_last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> SealedKey {
        SealedKey::new(KeyFingerprint([number; 32]), vec![number]).unwrap()
    }

    fn keys(numbers: &[u8]) -> DeliveredKeys {
        DeliveredKeys(numbers.iter().copied().map(key).collect())
    }

    #[test]
    fn the_newest_comes_first_and_the_one_in_use_stays() {
        for (new, earlier, expected) in [
            (&[2_u8][..], &[1_u8][..], &[2_u8, 1][..]),
            (&[2], &[], &[2]),
            (&[2], &[2, 1], &[2, 1]),
            (&[9], &[8, 7, 6, 5, 4, 3, 2, 1], &[9, 8, 7, 6, 5, 4, 3, 1]),
        ] {
            assert_eq!(keys(new).after(&keys(earlier)), keys(expected), "{new:?} {earlier:?}");
        }
    }

    #[test]
    fn using_a_key_ends_the_older_ones() {
        let fingerprint = |number: u8| KeyFingerprint([number; 32]);
        for (held, used, left) in [
            (&[3_u8, 2, 1][..], 3, Some(&[3_u8][..])),
            (&[3, 2, 1], 2, Some(&[3, 2])),
            (&[3, 2, 1], 1, None),
            (&[3, 2, 1], 4, None),
            (&[1], 1, None),
        ] {
            assert_eq!(keys(held).used(fingerprint(used)), left.map(keys), "{held:?} {used}");
        }
    }

    #[test]
    fn a_key_shows_its_fingerprint_only() {
        let shown = format!("{:?}", SealedKey::new(KeyFingerprint([0xab; 32]), vec![0x77; 60]).unwrap());
        assert!(shown.contains("abab") && !shown.contains("119") && !shown.contains("77"), "{shown}");
        assert!(SealedKey::new(KeyFingerprint([0; 32]), vec![0; limits::SEALED_KEY_BYTES_MAX + 1]).is_none());
    }
}
