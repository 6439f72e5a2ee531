//! What is sent to a parent key so that only its TPM can open it: a seed, and what the seed protects (TPM 2.0 part 1, 22–24).

use zeroize::Zeroizing;

use super::crypto::{Hash, Refused, Scalar, cfb_decrypt, cfb_encrypt, kdfa, kdfe, oaep_encrypt};
use super::draw::Draw;
use super::form::{Reader, sized};
use super::keys::{Numbers, Parent};
use crate::domain::TpmName;

/// What a seed is for; a seed for one is useless for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A credential for an object in the TPM.
    Identity,
    /// An object that is imported.
    Duplicate,
}

impl Purpose {
    pub(super) fn label(self) -> &'static str {
        match self {
            Purpose::Identity => "IDENTITY",
            Purpose::Duplicate => "DUPLICATE",
        }
    }

    /// With the NUL that OAEP takes in.
    pub(super) fn oaep_label(self) -> Vec<u8> {
        [self.label().as_bytes(), &[0]].concat()
    }
}

/// A seed, and what its recipient finds it from.
pub(super) struct Shared {
    pub(super) seed: Zeroizing<Vec<u8>>,
    /// The content of a `TPM2B_ENCRYPTED_SECRET`.
    pub(super) secret: Vec<u8>,
}

/// Shares a seed with a parent key. `label` names the secrets of the draw that are used up.
pub(super) fn share(parent: &Parent, purpose: Purpose, draw: &Draw, label: &str) -> Result<Shared, Refused> {
    match &parent.numbers {
        Numbers::Rsa { modulus } => {
            let seed = draw.secret(label, parent.hash.size())?;
            let secret = oaep_encrypt(parent.hash, modulus, &purpose.oaep_label(), &seed)?;
            Ok(Shared { seed, secret })
        }
        Numbers::Ecc(theirs) => {
            let ephemeral = draw.scalar(label, theirs.curve)?;
            let ours = ephemeral.point()?;
            let seed = agreed_seed(parent.hash, purpose, &ephemeral, theirs, (&ours.x, &theirs.x))?;
            Ok(Shared { seed, secret: [sized(&ours.x)?, sized(&ours.y)?].concat() })
        }
    }
}

/// The seed of a Diffie-Hellman agreement: of the ephemeral point's x and the recipient's.
pub(super) fn agreed_seed(
    hash: Hash,
    purpose: Purpose,
    own: &Scalar,
    other: &super::crypto::Point,
    (ephemeral_x, recipient_x): (&[u8], &[u8]),
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut seed = Zeroizing::new(vec![0; hash.size()]);
    kdfe(hash, &own.agree(other)?, purpose.label(), (ephemeral_x, recipient_x), &mut seed)?;
    Ok(seed)
}

/// Encrypts a text under a seed and binds it to a name: a `TPM2B_DIGEST` of integrity, then the encrypted text.
pub(super) fn protect(
    (hash, symmetric_size): (Hash, usize),
    seed: &[u8],
    name: &TpmName,
    mut text: Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, Refused> {
    cfb_encrypt(&storage_key(hash, symmetric_size, seed, name)?, &mut text)?;
    let integrity = hash.hmac(&integrity_key(hash, seed)?, &[&text, name.as_bytes()]);
    Ok([sized(&integrity)?.as_slice(), &text].concat())
}

/// The other way round, as a TPM does it: the integrity first.
pub(super) fn unprotect(
    (hash, symmetric_size): (Hash, usize),
    seed: &[u8],
    name: &TpmName,
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut reader = Reader::new(bytes);
    let integrity = reader.sized()?;
    let mut text = Zeroizing::new(reader.rest().to_vec());
    if !hash.has_hmac(&integrity_key(hash, seed)?, &[&text, name.as_bytes()], integrity) {
        return Err(Refused);
    }
    cfb_decrypt(&storage_key(hash, symmetric_size, seed, name)?, &mut text)?;
    Ok(text)
}

fn storage_key(hash: Hash, size: usize, seed: &[u8], name: &TpmName) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut key = Zeroizing::new(vec![0; size]);
    kdfa(hash, seed, "STORAGE", (name.as_bytes(), &[]), &mut key)?;
    Ok(key)
}

fn integrity_key(hash: Hash, seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut key = Zeroizing::new(vec![0; hash.size()]);
    kdfa(hash, seed, "INTEGRITY", (&[], &[]), &mut key)?;
    Ok(key)
}
