//! The activation blob: six structures one after the other (reference/tpm-attestation.md §1.3).

use super::fault::ChipFault;
use super::frame::{FRAME_BYTES_MAX, Reader};

/// Its parts as they came, each with its size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// TPM2B_ID_OBJECT: the inner key, for the storage root key's name.
    pub id_object: &'a [u8],
    /// TPM2B_ENCRYPTED_SECRET: the seed of the first, to the endorsement key.
    pub credential_seed: &'a [u8],
    /// TPM2B_PRIVATE: the wrapped key.
    pub duplicate: &'a [u8],
    /// TPM2B_ENCRYPTED_SECRET: the seed of the third, to the storage root key.
    pub import_seed: &'a [u8],
    /// TPM2B_PUBLIC of the wrapped key.
    pub public: &'a [u8],
}

impl<'a> Blob<'a> {
    /// What follows is user data, and bytes that later versions may add.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ChipFault> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(ChipFault::Blob { why: "it is larger than anything a TPM takes" });
        }
        let mut reader = Reader(bytes);
        let mut part = || reader.whole().map_err(|_| ChipFault::Blob { why: "it ends in the middle of a part" });
        Ok(Self {
            id_object: part()?,
            credential_seed: part()?,
            duplicate: part()?,
            import_seed: part()?,
            public: part()?,
        })
    }
}

/// A credential for an object other than a storage root key: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
pub fn parse_credential(bytes: &[u8]) -> Result<(&[u8], &[u8]), ChipFault> {
    let broken = |_| ChipFault::Blob { why: "the credential of the attestation key is malformed" };
    let mut reader = Reader(bytes);
    let parts = (reader.whole().map_err(broken)?, reader.whole().map_err(broken)?);
    reader.end().map_err(broken)?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stand_one_after_the_other() {
        let bytes = [0, 1, 1, 0, 1, 2, 0, 1, 3, 0, 1, 4, 0, 1, 5, 0, 2, 9, 9, 0xff];
        let blob = Blob::parse(&bytes).unwrap();
        let parts = [blob.id_object, blob.credential_seed, blob.duplicate, blob.import_seed, blob.public];
        assert_eq!(parts, [[0, 1, 1], [0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 1, 5]]);
        assert!(Blob::parse(&bytes[..15]).is_ok(), "user data is not needed");
        for length in 0..15 {
            assert!(matches!(Blob::parse(&bytes[..length]), Err(ChipFault::Blob { .. })), "{length}");
        }
        assert!(matches!(Blob::parse(&vec![0; 5000]), Err(ChipFault::Blob { .. })));
    }

    #[test]
    fn a_credential_has_two_parts_and_no_more() {
        assert_eq!(parse_credential(&[0, 1, 7, 0, 0]), Ok((&[0, 1, 7][..], &[0, 0][..])));
        for broken in [&[][..], &[0, 1, 7], &[0, 1, 7, 0, 1], &[0, 0, 0, 0, 0]] {
            assert!(parse_credential(broken).is_err(), "{broken:?}");
        }
    }
}
