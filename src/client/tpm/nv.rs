//! What the manufacturer left in a TPM's non-volatile memory: certificates of endorsement keys, and sometimes a nonce and a
//! template that an endorsement key is made by (TCG EK Credential Profile 2.5, section 2.2).

use tpm2_protocol::data::{Tpm2bEccParameter, Tpm2bPublicKeyRsa, TpmaNv, TpmsEccPoint, TpmtPublic, TpmuPublicId};
use tpm2_protocol::{TpmMarshal as _, TpmUnmarshal as _, TpmWriter};

use super::chip::Chip;
use super::fault::ChipFault;
use super::frame::{Bytes, FRAME_BYTES_MAX};
use super::template::EkKind;
use crate::domain::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};

/// Every TPM hands out so much at once.
const PART_BYTES: u16 = 512;
/// Where the certificates of the authorities above stand, one after the other.
const ISSUERS_FIRST: u32 = 0x01c0_0100;
const ISSUERS_LAST: u32 = 0x01c0_01ff;

/// Everything in an index; `None` where there is none that can be read without a password of its own.
fn whole(chip: &mut Chip, index: u32, most: usize) -> Result<Option<Vec<u8>>, ChipFault> {
    let Some((size, attributes)) = chip.nv_public(index)? else {
        return Ok(None);
    };
    let has = |wanted: TpmaNv| attributes & wanted.bits() == wanted.bits();
    let by_owner = !has(TpmaNv::AUTHREAD);
    if !has(TpmaNv::WRITTEN) || usize::from(size) > most || (by_owner && !has(TpmaNv::OWNERREAD)) {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(usize::from(size));
    let mut from = 0;
    while from < size {
        let length = (size - from).min(PART_BYTES);
        let part = chip.nv_read(index, by_owner, from, length)?;
        if part.len() != usize::from(length) {
            return Err(ChipFault::Answer { why: "it holds less than was asked for" });
        }
        content.extend_from_slice(&part);
        from += length;
    }
    Ok(Some(content))
}

/// The certificate of an endorsement key and those above it, as far as the TPM has them: DER, leaf first.
pub fn certificates(chip: &mut Chip, kind: EkKind) -> Result<Vec<Vec<u8>>, ChipFault> {
    let mut chain = Vec::new();
    for index in kind.certificate_indices() {
        let content = whole(chip, *index, CERTIFICATE_BYTES_MAX)?.unwrap_or_default();
        if let Some((certificate, _)) = split_der(&content) {
            chain.push(certificate.to_vec());
            break;
        }
    }
    if chain.is_empty() {
        return Ok(chain);
    }
    let most = u32::try_from(CHAIN_CERTIFICATES_MAX).unwrap_or(u32::MAX);
    for index in chip.handles(ISSUERS_FIRST, most)? {
        if !(ISSUERS_FIRST..=ISSUERS_LAST).contains(&index) {
            break;
        }
        let content = whole(chip, index, CERTIFICATE_BYTES_MAX)?.unwrap_or_default();
        let mut rest = content.as_slice();
        while let Some((certificate, behind)) = split_der(rest) {
            if chain.len() < CHAIN_CERTIFICATES_MAX {
                chain.push(certificate.to_vec());
            }
            rest = behind;
        }
    }
    Ok(chain)
}

/// The DER sequence at the front, and what follows it: some manufacturers fill the index up with 0x00 or 0xff.
fn split_der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match bytes {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        [0x30, 0x81, length, ..] => 3 + usize::from(*length),
        _ => return None,
    };
    bytes.split_at_checked(length)
}

/// The template that the certificate's key was made by: the manufacturer's where it left one, with its nonce where it left
/// one.
pub fn endorsement_template(chip: &mut Chip, kind: EkKind) -> Result<Bytes, ChipFault> {
    let Some((nonce, template)) = kind.nonce_and_template_indices() else {
        return Ok(kind.template(&[]));
    };
    let nonce = whole(chip, nonce, FRAME_BYTES_MAX)?.unwrap_or_default();
    if nonce.len() > kind.nonce_bytes_max() {
        return Err(ChipFault::Answer { why: "the manufacturer's nonce of the endorsement key is too long" });
    }
    match whole(chip, template, FRAME_BYTES_MAX)? {
        Some(template) => with_nonce(&template, &nonce),
        None => Ok(kind.template(&nonce)),
    }
}

/// A manufacturer's template, its nonce at the front of `unique`.
fn with_nonce(template: &[u8], nonce: &[u8]) -> Result<Bytes, ChipFault> {
    const BROKEN: ChipFault =
        ChipFault::Answer { why: "the manufacturer's template of the endorsement key is malformed" };
    let (mut public, _) = TpmtPublic::unmarshal(template).map_err(|_| BROKEN)?;
    if !nonce.is_empty() {
        let filled = |length: usize| {
            let mut unique = nonce.to_vec();
            unique.resize(length, 0);
            unique
        };
        public.unique = match &public.unique {
            TpmuPublicId::Rsa(_) => {
                TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::try_from(filled(256).as_slice()).map_err(|_| BROKEN)?)
            }
            TpmuPublicId::Ecc(_) => TpmuPublicId::Ecc(TpmsEccPoint {
                x: Tpm2bEccParameter::try_from(filled(32).as_slice()).map_err(|_| BROKEN)?,
                y: Tpm2bEccParameter::try_from([0; 32].as_slice()).map_err(|_| BROKEN)?,
            }),
            TpmuPublicId::KeyedHash(_) | TpmuPublicId::SymCipher(_) | TpmuPublicId::Null => return Err(BROKEN),
        };
    }
    let mut buffer = [0; FRAME_BYTES_MAX];
    let mut writer = TpmWriter::new(&mut buffer);
    public.marshal(&mut writer).map_err(|_| BROKEN)?;
    let mut bytes = Bytes::new();
    bytes.raw(writer.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_end_where_their_der_does() {
        let short = [0x30, 0x81, 2, 1, 2, 0xff, 0xff];
        assert_eq!(split_der(&short), Some((&short[..5], &[0xff, 0xff][..])));
        let long = [[0x30, 0x82, 1, 0].as_slice(), &[7; 256], &[0]].concat();
        assert_eq!(split_der(&long), Some((&long[..260], &[0][..])));
        for none in [&[][..], &[0; 64], &[0xff; 64], &[0x30, 0x82, 1, 0, 7], &[0x30, 0x03, 1, 2, 3], &[0x31, 0x81, 0]] {
            assert_eq!(split_der(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_nonce_goes_into_the_manufacturers_template() {
        for kind in [EkKind::Rsa2048, EkKind::EccP256] {
            let plain = kind.template(&[]);
            let plain = plain.finished("").unwrap();
            for nonce in [&[][..], &[1, 2, 3]] {
                let filled = with_nonce(plain, nonce).unwrap();
                assert_eq!(filled.finished("").unwrap(), kind.template(nonce).finished("").unwrap(), "{kind}");
            }
            assert!(with_nonce(&plain[..40], &[]).is_err());
        }
    }
}
