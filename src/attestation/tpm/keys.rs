//! The three keys that a device presents, each a type of its own: who holds one knows that it passed its checks.
//!
//! A check of attributes means something only together with an activated credential: a TPM activates for objects that it
//! holds, and it holds none whose attributes lie (TPM 2.0 part 1, 27.3). So a storage key of software either shows that
//! it is one, and fails here, or claims to be the TPM's, and is never activated.

use std::fmt;

use tpm2_protocol::data::{
    TpmAlgId, TpmEccCurve, TpmaObject, TpmtPublic, TpmtSymDef, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
    TpmuSymKeyBits, TpmuSymMode,
};

use super::crypto::{Curve, Hash, Point, RsaScheme, is_modulus};
use super::form::sized;
use super::public::PublicArea;
use super::refusal::KeyFault;
use crate::domain::{EkHash, TpmName, TpmPublic};

/// The numbers of a public key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Numbers {
    /// The exponent is 65537.
    Rsa {
        modulus: Vec<u8>,
    },
    Ecc(Point),
}

/// A key that protects others: what secrets can be sent to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) numbers: Numbers,
    pub(super) hash: Hash,
    /// Bytes of the AES key that it protects its children with.
    pub(super) symmetric_size: usize,
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $inner:ident: $type:ty) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name {
            area: PublicArea,
            name: TpmName,
            $inner: $type,
        }

        impl $name {
            pub fn public(&self) -> &TpmPublic {
                self.area.public()
            }

            pub fn name(&self) -> &TpmName {
                &self.name
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.name)
            }
        }
    };
}

key!(
    /// A key of the TPM's maker that never leaves it, and whose owner can open what is sealed to it: the TPM's identity.
    EndorsementKey, parent: Parent
);
key!(
    /// A storage key that was made inside a TPM and never leaves it: what credentials are wrapped for.
    StorageKey, parent: Parent
);
key!(
    /// A key that signs what the TPM itself states, and nothing else.
    AttestationKey, signs: Signs
);

/// How an attestation key signs, always over SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Signs {
    Rsa {
        scheme: RsaScheme,
        modulus: Vec<u8>,
    },
    /// On P-256.
    Ecdsa(Point),
}

impl EndorsementKey {
    /// RSA of 2048 to 4096 bits, P-256 or P-384: fixed, restricted, for decryption alone.
    pub fn validate(area: PublicArea) -> Result<Self, KeyFault> {
        let parent = Parent::of(&area)?;
        Ok(Self { name: area.name(), parent, area })
    }

    /// What identifies the TPM.
    pub fn ek_hash(&self) -> EkHash {
        self.area.ek_hash()
    }

    /// Is the area, to the byte, the one that the TCG's template makes of these numbers?
    ///
    /// Nobody but the template vouches for the rest: an EK certificate names the numbers, and a TPM activates credentials
    /// whatever else the area says. There is one template for each kind and size, so that numbers have one area and one
    /// hash.
    pub(super) fn is_by_template(&self) -> bool {
        template(&self.parent.numbers).is_some_and(|area| area == self.public().area())
    }

    pub(super) fn parent(&self) -> &Parent {
        &self.parent
    }

    pub(super) fn numbers(&self) -> &Numbers {
        &self.parent.numbers
    }
}

impl StorageKey {
    /// As an endorsement key, and made inside the TPM.
    pub fn validate(area: PublicArea) -> Result<Self, KeyFault> {
        let parent = Parent::of(&area)?;
        require(has(area.parsed(), TpmaObject::SENSITIVE_DATA_ORIGIN), KeyFault::OriginNotTpm)?;
        Ok(Self { name: area.name(), parent, area })
    }

    pub(super) fn parent(&self) -> &Parent {
        &self.parent
    }
}

impl AttestationKey {
    /// Fixed, made inside the TPM, restricted, for signing alone: RSASSA or RSAPSS of 2048 to 4096 bits, or ECDSA on P-256,
    /// each with SHA-256.
    pub fn validate(area: PublicArea) -> Result<Self, KeyFault> {
        let parsed = area.parsed();
        check_fixed_and_restricted(parsed)?;
        require(has(parsed, TpmaObject::SENSITIVE_DATA_ORIGIN), KeyFault::OriginNotTpm)?;
        let signs_only = has(parsed, TpmaObject::SIGN_ENCRYPT) && !has(parsed, TpmaObject::DECRYPT);
        require(signs_only, KeyFault::NotForSigning)?;
        let (symmetric, scheme, details) = match &parsed.parameters {
            TpmuPublicParms::Rsa(rsa) => (&rsa.symmetric, rsa.scheme.scheme, rsa.scheme.details),
            TpmuPublicParms::Ecc(ecc) => (&ecc.symmetric, ecc.scheme.scheme, ecc.scheme.details),
            TpmuPublicParms::KeyedHash(_) | TpmuPublicParms::SymCipher(_) | TpmuPublicParms::Null => {
                return Err(KeyFault::KindNotAllowed);
            }
        };
        require(symmetric.algorithm == TpmAlgId::Null, KeyFault::SymmetricNotAllowed)?;
        let over_sha256 = matches!(details, TpmuAsymScheme::Hash(hash) if hash.hash_alg == TpmAlgId::Sha256);
        require(over_sha256, KeyFault::SchemeNotAllowed)?;
        let signs = match (Numbers::of(parsed)?, scheme) {
            (Numbers::Rsa { modulus }, TpmAlgId::Rsassa) => Signs::Rsa { scheme: RsaScheme::Pkcs1, modulus },
            (Numbers::Rsa { modulus }, TpmAlgId::Rsapss) => Signs::Rsa { scheme: RsaScheme::Pss, modulus },
            (Numbers::Ecc(point), TpmAlgId::Ecdsa) => {
                require(point.curve == Curve::P256, KeyFault::CurveNotAllowed)?;
                Signs::Ecdsa(point)
            }
            (Numbers::Rsa { .. } | Numbers::Ecc(_), _) => return Err(KeyFault::SchemeNotAllowed),
        };
        Ok(Self { name: area.name(), signs, area })
    }

    pub(super) fn signs(&self) -> &Signs {
        &self.signs
    }
}

impl Parent {
    fn of(area: &PublicArea) -> Result<Self, KeyFault> {
        let parsed = area.parsed();
        check_fixed_and_restricted(parsed)?;
        let decrypts_only = has(parsed, TpmaObject::DECRYPT) && !has(parsed, TpmaObject::SIGN_ENCRYPT);
        require(decrypts_only, KeyFault::NotForStorage)?;
        let (symmetric, no_scheme) = match &parsed.parameters {
            TpmuPublicParms::Rsa(rsa) => (&rsa.symmetric, rsa.scheme.scheme == TpmAlgId::Null),
            TpmuPublicParms::Ecc(ecc) => {
                (&ecc.symmetric, ecc.scheme.scheme == TpmAlgId::Null && ecc.kdf.scheme == TpmAlgId::Null)
            }
            TpmuPublicParms::KeyedHash(_) | TpmuPublicParms::SymCipher(_) | TpmuPublicParms::Null => {
                return Err(KeyFault::KindNotAllowed);
            }
        };
        require(no_scheme, KeyFault::SchemeNotAllowed)?;
        let symmetric_size = aes_size(symmetric).ok_or(KeyFault::SymmetricNotAllowed)?;
        Ok(Self { numbers: Numbers::of(parsed)?, hash: area.hash(), symmetric_size })
    }
}

impl Numbers {
    fn of(parsed: &TpmtPublic) -> Result<Self, KeyFault> {
        match (&parsed.parameters, &parsed.unique) {
            (TpmuPublicParms::Rsa(rsa), TpmuPublicId::Rsa(unique)) => {
                let bits = rsa.key_bits.value();
                require(matches!(bits, 2048 | 3072 | 4096), KeyFault::SizeNotAllowed)?;
                // Zero stands for the usual exponent (part 2, 12.2.3.5).
                require(matches!(rsa.exponent.value(), 0 | 65537), KeyFault::ExponentNotAllowed)?;
                let modulus = unique.as_ref();
                let is_full =
                    modulus.len() == usize::from(bits) / 8 && modulus.first().is_some_and(|top| top >> 7 == 1);
                let is_odd = modulus.last().is_some_and(|last| last & 1 == 1);
                require(is_full && is_odd && is_modulus(modulus), KeyFault::ModulusInvalid)?;
                Ok(Numbers::Rsa { modulus: modulus.to_vec() })
            }
            (TpmuPublicParms::Ecc(ecc), TpmuPublicId::Ecc(unique)) => {
                let curve = match ecc.curve_id {
                    TpmEccCurve::NistP256 => Curve::P256,
                    TpmEccCurve::NistP384 => Curve::P384,
                    _ => return Err(KeyFault::CurveNotAllowed),
                };
                let coordinate = |bytes: &[u8]| left_padded(bytes, curve.size()).ok_or(KeyFault::PointInvalid);
                let point = Point { curve, x: coordinate(unique.x.as_ref())?, y: coordinate(unique.y.as_ref())? };
                require(point.is_on_curve(), KeyFault::PointInvalid)?;
                Ok(Numbers::Ecc(point))
            }
            _ => Err(KeyFault::KindNotAllowed),
        }
    }
}

/// `PolicySecret` of the endorsement hierarchy: what the templates of the low range are authorized by (TCG EK Credential
/// Profile, annex B).
const LOW_RANGE_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// `PolicyB` over SHA-384: the same or what the owner of the hierarchy put in its place, for the high range.
const HIGH_RANGE_POLICY: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07, 0x41, 0x48,
    0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47, 0xba, 0x09, 0x69, 0x96,
    0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// The area of an endorsement key of these numbers, without its size: RSA of 2048 bits and P-256 by the low range (L-1,
/// L-2), the larger ones, which only the high range has, by that. Of the two ranges' templates for the same numbers one
/// must do: certificates do not tell them apart.
fn template(numbers: &Numbers) -> Option<Vec<u8>> {
    let is_low = match numbers {
        Numbers::Rsa { modulus } => modulus.len() == 256,
        Numbers::Ecc(point) => point.curve == Curve::P256,
    };
    // Name algorithm; attributes (the high range adds userWithAuth); policy; AES in CFB mode; no scheme.
    let (name_algorithm, attributes, policy, key_bits): (u8, u8, &[u8], u16) =
        if is_low { (0x0b, 0xb2, &LOW_RANGE_POLICY, 128) } else { (0x0c, 0xf2, &HIGH_RANGE_POLICY, 256) };
    let middle = [
        &[0x00, name_algorithm, 0x00, 0x03, 0x00, attributes][..],
        &sized(policy).ok()?,
        &[0x00, 0x06],
        &key_bits.to_be_bytes(),
        &[0x00, 0x43, 0x00, 0x10],
    ]
    .concat();
    Some(match numbers {
        Numbers::Rsa { modulus } => {
            let bits = u16::try_from(modulus.len() * 8).ok()?;
            // The exponent is written as zero.
            [&[0x00, 0x01][..], &middle, &bits.to_be_bytes(), &[0; 4], &sized(modulus).ok()?].concat()
        }
        Numbers::Ecc(Point { curve, x, y }) => {
            let curve = match curve {
                Curve::P256 => 0x03,
                Curve::P384 => 0x04,
            };
            // Behind the curve, no derivation.
            [&[0x00, 0x23][..], &middle, &[0x00, curve, 0x00, 0x10], &sized(x).ok()?, &sized(y).ok()?].concat()
        }
    })
}

fn check_fixed_and_restricted(parsed: &TpmtPublic) -> Result<(), KeyFault> {
    let is_asymmetric = matches!(parsed.object_type, TpmAlgId::Rsa | TpmAlgId::Ecc);
    require(is_asymmetric, KeyFault::KindNotAllowed)?;
    let is_fixed = has(parsed, TpmaObject::FIXED_TPM) && has(parsed, TpmaObject::FIXED_PARENT);
    require(is_fixed, KeyFault::NotFixed)?;
    require(has(parsed, TpmaObject::RESTRICTED), KeyFault::NotRestricted)
}

fn has(parsed: &TpmtPublic, attribute: TpmaObject) -> bool {
    parsed.object_attributes.contains(attribute)
}

fn require(holds: bool, otherwise: KeyFault) -> Result<(), KeyFault> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn aes_size(symmetric: &TpmtSymDef) -> Option<usize> {
    match (symmetric.algorithm, symmetric.key_bits, symmetric.mode) {
        (TpmAlgId::Aes, TpmuSymKeyBits::Aes(bits), TpmuSymMode::Aes(TpmAlgId::Cfb)) => match bits.value() {
            128 => Some(16),
            256 => Some(32),
            _ => None,
        },
        (_, _, _) => None,
    }
}

/// A big-endian number at the length of the field: some TPMs leave leading zeros out. Never empty, never longer.
fn left_padded(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let missing = size.checked_sub(number.len()).filter(|_| !number.is_empty())?;
    Some([&vec![0; missing], number].concat())
}
