//! The secrets of one challenge or one delivery, expanded from bytes that the caller drew.

use std::fmt;

use zeroize::Zeroizing;

use super::crypto::{Curve, Hash, Refused, Scalar, kdfa};

/// 64 random bytes: this room has no randomness of its own. Used for one blob and never again.
///
/// Every secret of the blob is expanded from them under a label of its own (KDFa over SHA-384), so that who learns one,
/// as a device learns the inner key, learns nothing of the others.
pub struct Draw(Zeroizing<[u8; Draw::BYTES]>);

impl Draw {
    pub const BYTES: usize = 64;

    pub fn new(bytes: [u8; Draw::BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret of that name.
    pub(super) fn secret(&self, label: &str, size: usize) -> Result<Zeroizing<Vec<u8>>, Refused> {
        self.nth_secret(label, 0, size)
    }

    fn nth_secret(&self, label: &str, number: u8, size: usize) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let mut secret = Zeroizing::new(vec![0; size]);
        kdfa(Hash::Sha384, self.0.as_slice(), label, (&[number], &[]), &mut secret)?;
        Ok(secret)
    }

    /// A private key of that name. One number of 2³² is none on P-256: then it is the next one.
    pub(super) fn scalar(&self, label: &str, curve: Curve) -> Result<Scalar, Refused> {
        let candidates = 0..4;
        let scalar = |number| self.nth_secret(label, number, curve.size()).and_then(|it| Scalar::new(curve, &it));
        candidates.map(scalar).find(Result::is_ok).unwrap_or(Err(Refused))
    }
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draw(****)")
    }
}
