//! Quotes: the TPM's own signed word on what its registers hold.

use std::fmt;

use tpm2_protocol::data::{TpmAlgId, TpmSt, TpmlPcrSelection, TpmsAttest, TpmtSignature, TpmuAttest, TpmuSignature};
use tpm2_protocol::{TpmError, TpmUnmarshal};

use super::crypto::{Hash, RsaScheme, has_ecdsa_signature, has_rsa_signature};
use super::keys::{AttestationKey, Signs};
use super::refusal::QuoteFault;
use crate::domain::{PcrIndex, PcrPolicy, PcrValue, limits};

/// Bytes of a nonce, and of the proof that the attestation key is in the TPM.
pub const NONCE_SIZE: usize = 32;

/// A quote as it was sent. Unproven.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote {
    /// `TPMS_ATTEST`, the bytes that were signed.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// The registers' values: a quote holds only their digest.
    pub values: Vec<(PcrIndex, PcrValue)>,
    /// HMAC-SHA256 of the nonce, by the secret of the attestation key's credential.
    pub key_proof: [u8; NONCE_SIZE],
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quote({} registers)", self.values.len())
    }
}

/// Verifies a quote and answers which registers hold a value that the policy does not allow, ascending.
///
/// That the key is in the TPM of the endorsement key is not asked here: see [`super::Challenge`].
pub(super) fn verify(
    quote: &Quote,
    key: &AttestationKey,
    nonce: &[u8],
    policy: &PcrPolicy,
) -> Result<Vec<PcrIndex>, QuoteFault> {
    let within = |bytes: &[u8]| bytes.len() <= limits::TPM_QUOTE_BYTES_MAX;
    require(within(&quote.attest) && within(&quote.signature), QuoteFault::TooLarge)?;
    let attest = read_attest(&quote.attest)?;
    let info = match &attest.attested {
        TpmuAttest::Quote(info) if attest.attest_type == TpmSt::AttestQuote => info,
        _ => return Err(QuoteFault::KindWrong),
    };
    let signature = read_signature(&quote.signature)?;
    require(is_signed(key.signs(), &quote.attest, &signature)?, QuoteFault::SignatureInvalid)?;
    require(attest.extra_data.as_ref() == nonce, QuoteFault::NonceWrong)?;
    require(selects(&info.pcr_select, policy), QuoteFault::SelectionWrong)?;

    let mut values = quote.values.clone();
    values.sort();
    let are_complete = values.iter().map(|(index, _)| *index).eq(policy.indices());
    require(are_complete, QuoteFault::ValuesIncomplete)?;
    let parts: Vec<&[u8]> = values.iter().map(|(_, value)| value.0.as_slice()).collect();
    // The digest is made with the hash of the signing scheme: SHA-256, as the key was checked to have.
    require(Hash::Sha256.of(&parts) == info.pcr_digest.as_ref(), QuoteFault::DigestWrong)?;

    let is_allowed = |(index, value): &&(PcrIndex, PcrValue)| {
        policy.allowed().get(index).is_some_and(|allowed| allowed.contains(value))
    };
    Ok(values.iter().filter(|entry| !is_allowed(entry)).map(|(index, _)| *index).collect())
}

/// Reads a `TPMS_ATTEST` to its last byte.
pub(super) fn read_attest(bytes: &[u8]) -> Result<Box<TpmsAttest>, QuoteFault> {
    match TpmsAttest::unmarshal(bytes) {
        Ok((attest, [])) => Ok(Box::new(attest)),
        Err(TpmError::InvalidMagicNumber { .. }) => Err(QuoteFault::MagicWrong),
        Ok(_) | Err(_) => Err(QuoteFault::Malformed),
    }
}

/// Reads a `TPMT_SIGNATURE` to its last byte.
pub(super) fn read_signature(bytes: &[u8]) -> Result<Box<TpmuSignature>, QuoteFault> {
    match TpmtSignature::unmarshal(bytes) {
        Ok((signature, [])) => Ok(Box::new(signature.signature)),
        Ok(_) | Err(_) => Err(QuoteFault::SignatureMalformed),
    }
}

fn is_signed(key: &Signs, message: &[u8], signature: &TpmuSignature) -> Result<bool, QuoteFault> {
    match (key, signature) {
        (Signs::Rsa { scheme: RsaScheme::Pkcs1, modulus }, TpmuSignature::Rsassa(rsa)) if is_sha256(rsa.hash) => {
            Ok(has_rsa_signature(RsaScheme::Pkcs1, modulus, message, rsa.sig.as_ref()))
        }
        (Signs::Rsa { scheme: RsaScheme::Pss, modulus }, TpmuSignature::Rsapss(rsa)) if is_sha256(rsa.hash) => {
            Ok(has_rsa_signature(RsaScheme::Pss, modulus, message, rsa.sig.as_ref()))
        }
        (Signs::Ecdsa(point), TpmuSignature::Ecdsa(ecc)) if is_sha256(ecc.hash) => {
            let mut fixed = [0; 64];
            let (left, right) = fixed.split_at_mut(32);
            for (number, half) in [(ecc.signature_r.as_ref(), left), (ecc.signature_s.as_ref(), right)] {
                let start = half.len().checked_sub(number.len()).ok_or(QuoteFault::SignatureMalformed)?;
                half[start..].copy_from_slice(number);
            }
            Ok(has_ecdsa_signature(point, message, &fixed))
        }
        (Signs::Rsa { .. } | Signs::Ecdsa(_), _) => Err(QuoteFault::SignatureMalformed),
    }
}

fn is_sha256(hash: TpmAlgId) -> bool {
    hash == TpmAlgId::Sha256
}

/// Whether exactly the policy's registers of the SHA-256 bank were selected, and none of another bank.
fn selects(selection: &TpmlPcrSelection, policy: &PcrPolicy) -> bool {
    let [bank] = &**selection else { return false };
    let bitmap: &[u8] = &bank.pcr_select;
    let selected = (0u32..).zip(bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)));
    let selected = selected.filter(|(_, is_selected)| *is_selected).map(|(index, _)| index);
    is_sha256(bank.hash) && selected.eq(policy.indices().map(|index| u32::from(index.number())))
}

fn require(holds: bool, otherwise: QuoteFault) -> Result<(), QuoteFault> {
    if holds { Ok(()) } else { Err(otherwise) }
}
