//! What a TPM is asked to derive: the templates of endorsement keys, storage root keys and attestation keys.
//!
//! The same template in the same TPM always gives the same key, until its owner clears it (storage) or its manufacturer's
//! seed is replaced (endorsement). Sources: TCG EK Credential Profile 2.5 (L-1, L-2 and H-3), TCG TPM 2.0 Provisioning
//! Guidance (SRK); the bytes of L-1 and H-3 were compared with a manufactured TPM's (reference/tpm-attestation.md §1.5).

use std::fmt;
use std::str::FromStr;

use tpm2_protocol::TpmUnmarshal as _;
use tpm2_protocol::data::{Tpm2bPublic, TpmAlgId, TpmEccCurve, TpmaObject, TpmuPublicParms};

use super::fault::ChipFault;
use super::frame::Bytes;

/// PolicySecret of the endorsement hierarchy, SHA-256: the policy A of the low range.
const POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// Policy B of the high range, SHA-384: policy A or what the manufacturer's index says.
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07, 0x41, 0x48,
    0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47, 0xba, 0x09, 0x69, 0x96,
    0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

/// What kind of endorsement key a device proves itself by. Its certificate, if it has one, is for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EkKind {
    Rsa2048,
    EccP256,
    EccP384,
}

impl EkKind {
    pub const ALL: [EkKind; 3] = [EkKind::Rsa2048, EkKind::EccP256, EkKind::EccP384];

    pub fn as_str(self) -> &'static str {
        match self {
            EkKind::Rsa2048 => "rsa-2048",
            EkKind::EccP256 => "ecc-p256",
            EkKind::EccP384 => "ecc-p384",
        }
    }

    /// Where it is kept (TCG Provisioning Guidance 7.8; the P-384 one where swtpm_setup puts it).
    pub fn default_handle(self) -> u32 {
        match self {
            EkKind::Rsa2048 => 0x8101_0001,
            EkKind::EccP256 => 0x8101_0002,
            EkKind::EccP384 => 0x8101_0016,
        }
    }

    /// Where the manufacturer may have left its certificate, the first choice first.
    pub(super) fn certificate_indices(self) -> &'static [u32] {
        match self {
            EkKind::Rsa2048 => &[0x01c0_0002, 0x01c0_0012],
            EkKind::EccP256 => &[0x01c0_000a, 0x01c0_0014],
            EkKind::EccP384 => &[0x01c0_0016],
        }
    }

    /// Where the manufacturer may have left a nonce and a template of its own, which its certificate is then for. Only the
    /// low range has them.
    pub(super) fn nonce_and_template_indices(self) -> Option<(u32, u32)> {
        match self {
            EkKind::Rsa2048 => Some((0x01c0_0003, 0x01c0_0004)),
            EkKind::EccP256 => Some((0x01c0_000b, 0x01c0_000c)),
            EkKind::EccP384 => None,
        }
    }

    /// The part of `unique` that a nonce may fill.
    pub(super) fn nonce_bytes_max(self) -> usize {
        match self {
            EkKind::Rsa2048 => 256,
            EkKind::EccP256 => 32,
            EkKind::EccP384 => 0,
        }
    }

    /// The template, with the manufacturer's nonce if it left one.
    pub(super) fn template(self, nonce: &[u8]) -> Bytes {
        let low = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::ADMIN_WITH_POLICY
            | TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT;
        let mut template = Bytes::new();
        match self {
            EkKind::Rsa2048 => {
                head(&mut template, TpmAlgId::Rsa, TpmAlgId::Sha256, low, &POLICY_A);
                aes_cfb(&mut template, 128);
                rsa_2048(&mut template, TpmAlgId::Null);
                template.sized(&padded::<256>(nonce));
            }
            EkKind::EccP256 => {
                head(&mut template, TpmAlgId::Ecc, TpmAlgId::Sha256, low, &POLICY_A);
                aes_cfb(&mut template, 128);
                curve(&mut template, TpmEccCurve::NistP256);
                template.sized(&padded::<32>(nonce)).sized(&[0; 32]);
            }
            EkKind::EccP384 => {
                let high = low | TpmaObject::USER_WITH_AUTH;
                head(&mut template, TpmAlgId::Ecc, TpmAlgId::Sha384, high, &POLICY_B_SHA384);
                aes_cfb(&mut template, 256);
                curve(&mut template, TpmEccCurve::NistP384);
                template.sized(&[]).sized(&[]);
            }
        }
        template
    }
}

impl fmt::Display for EkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = EkKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no kind of key: write rsa-2048, ecc-p256 or ecc-p384"))
    }
}

/// What kind of storage root key is made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrkKind {
    Rsa2048,
    EccP256,
}

impl SrkKind {
    pub(super) fn template(self) -> Bytes {
        let attributes = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT;
        let mut template = Bytes::new();
        match self {
            SrkKind::Rsa2048 => {
                head(&mut template, TpmAlgId::Rsa, TpmAlgId::Sha256, attributes, &[]);
                aes_cfb(&mut template, 128);
                rsa_2048(&mut template, TpmAlgId::Null);
                template.sized(&[0; 256]);
            }
            SrkKind::EccP256 => {
                head(&mut template, TpmAlgId::Ecc, TpmAlgId::Sha256, attributes, &[]);
                aes_cfb(&mut template, 128);
                curve(&mut template, TpmEccCurve::NistP256);
                template.sized(&[0; 32]).sized(&[0; 32]);
            }
        }
        template
    }
}

/// An attestation key: signs what the TPM itself says, ECDSA with SHA-256, and nothing else. Under the endorsement
/// hierarchy, so that it survives a clear and that quotes tell the true reset count.
pub fn attestation_key() -> Bytes {
    let attributes = TpmaObject::FIXED_TPM
        | TpmaObject::FIXED_PARENT
        | TpmaObject::SENSITIVE_DATA_ORIGIN
        | TpmaObject::USER_WITH_AUTH
        | TpmaObject::NO_DA
        | TpmaObject::RESTRICTED
        | TpmaObject::SIGN_ENCRYPT;
    let mut template = Bytes::new();
    head(&mut template, TpmAlgId::Ecc, TpmAlgId::Sha256, attributes, &[]);
    template.u16(TpmAlgId::Null as u16).u16(TpmAlgId::Ecdsa as u16).u16(TpmAlgId::Sha256 as u16);
    template.u16(TpmEccCurve::NistP256 as u16).u16(TpmAlgId::Null as u16);
    template.sized(&[]).sized(&[]);
    template
}

fn head(template: &mut Bytes, key: TpmAlgId, name: TpmAlgId, attributes: TpmaObject, policy: &[u8]) {
    template.u16(key as u16).u16(name as u16).u32(attributes.bits()).sized(policy);
}

fn aes_cfb(template: &mut Bytes, bits: u16) {
    template.u16(TpmAlgId::Aes as u16).u16(bits).u16(TpmAlgId::Cfb as u16);
}

/// Scheme, size and exponent (0 is the usual 65537).
fn rsa_2048(template: &mut Bytes, scheme: TpmAlgId) {
    template.u16(scheme as u16).u16(2048).u32(0);
}

/// Scheme, curve and key derivation, the outer two absent.
fn curve(template: &mut Bytes, curve: TpmEccCurve) {
    template.u16(TpmAlgId::Null as u16).u16(curve as u16).u16(TpmAlgId::Null as u16);
}

/// A nonce at the front of zeros.
fn padded<const N: usize>(nonce: &[u8]) -> [u8; N] {
    let mut unique = [0; N];
    for (to, from) in unique.iter_mut().zip(nonce) {
        *to = *from;
    }
    unique
}

/// What a public area says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    kind: Option<EkKind>,
    key_type: TpmAlgId,
    attributes: TpmaObject,
}

impl Traits {
    /// Of a TPM2B_PUBLIC.
    pub fn of(public: &[u8]) -> Result<Self, ChipFault> {
        let broken = |_| ChipFault::Answer { why: "a public area is malformed" };
        let (parsed, _) = Tpm2bPublic::unmarshal(public).map_err(broken)?;
        let area = &parsed.inner;
        let kind = match &area.parameters {
            TpmuPublicParms::Rsa(rsa) if rsa.key_bits.value() == 2048 => Some(EkKind::Rsa2048),
            TpmuPublicParms::Ecc(ecc) if ecc.curve_id == TpmEccCurve::NistP256 => Some(EkKind::EccP256),
            TpmuPublicParms::Ecc(ecc) if ecc.curve_id == TpmEccCurve::NistP384 => Some(EkKind::EccP384),
            TpmuPublicParms::Rsa(_)
            | TpmuPublicParms::Ecc(_)
            | TpmuPublicParms::KeyedHash(_)
            | TpmuPublicParms::SymCipher(_)
            | TpmuPublicParms::Null => None,
        };
        Ok(Self { kind, key_type: area.object_type, attributes: area.object_attributes })
    }

    pub fn kind(self) -> Option<EkKind> {
        self.kind
    }

    /// Whether a password authorises its use; otherwise its policy does.
    pub fn takes_password(self) -> bool {
        self.attributes.contains(TpmaObject::USER_WITH_AUTH)
    }

    /// Whether it can be a parent, as storage root keys and endorsement keys can.
    pub fn is_storage_key(self) -> bool {
        self.attributes.contains(TpmaObject::RESTRICTED | TpmaObject::DECRYPT)
            && !self.attributes.contains(TpmaObject::SIGN_ENCRYPT)
            && self.key_type != TpmAlgId::KeyedHash
    }

    pub fn is_hmac_key(self) -> bool {
        self.key_type == TpmAlgId::KeyedHash && self.attributes.contains(TpmaObject::SIGN_ENCRYPT)
    }

    /// What it is called in messages.
    pub fn words(self) -> &'static str {
        match (self.kind, self.key_type) {
            (Some(EkKind::Rsa2048), _) => "an RSA-2048 key",
            (Some(EkKind::EccP256), _) => "a P-256 key",
            (Some(EkKind::EccP384), _) => "a P-384 key",
            (None, TpmAlgId::KeyedHash) => "a keyed hash",
            // Whatever else there may be, it is none that is looked for.
            (None, _) => "a key of another kind",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(template: &Bytes) -> Vec<u8> {
        let mut sized = Bytes::new();
        sized.sized(template.finished("").unwrap());
        sized.finished("").unwrap().to_vec()
    }

    #[track_caller]
    fn check(template: &Bytes, length: usize, head: &str, kind: EkKind, takes_password: bool, stores: bool) {
        let bytes = whole(template);
        assert_eq!(bytes.len(), length);
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes[2..10]), head);
        let traits = Traits::of(&bytes).unwrap();
        assert_eq!(
            (traits.kind(), traits.takes_password(), traits.is_storage_key(), traits.is_hmac_key()),
            (Some(kind), takes_password, stores, false)
        );
    }

    #[test]
    fn templates_have_the_sizes_and_attributes_of_the_profiles() {
        check(&EkKind::Rsa2048.template(&[]), 316, "0001000b000300b2", EkKind::Rsa2048, false, true);
        check(&EkKind::EccP256.template(&[]), 124, "0023000b000300b2", EkKind::EccP256, false, true);
        check(&EkKind::EccP384.template(&[]), 76, "0023000c000300f2", EkKind::EccP384, true, true);
        check(&SrkKind::Rsa2048.template(), 284, "0001000b00030472", EkKind::Rsa2048, true, true);
        check(&SrkKind::EccP256.template(), 92, "0023000b00030472", EkKind::EccP256, true, true);
        check(&attestation_key(), 26, "0023000b00050472", EkKind::EccP256, true, false);
    }

    #[test]
    fn a_nonce_stands_at_the_front_of_unique() {
        let bytes = whole(&EkKind::Rsa2048.template(&[7, 8]));
        assert_eq!(&bytes[bytes.len() - 258..bytes.len() - 252], [1, 0, 7, 8, 0, 0]);
        let bytes = whole(&EkKind::EccP256.template(&[9; 40]));
        assert_eq!(&bytes[bytes.len() - 68..], [&[0, 32][..], &[9; 32], &[0, 32], &[0; 32]].concat());
    }

    #[test]
    fn kinds_are_read_by_their_names() {
        for kind in EkKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for text in ["", "rsa", "RSA-2048", "ecc-p521"] {
            assert!(text.parse::<EkKind>().is_err(), "{text}");
        }
    }
}
