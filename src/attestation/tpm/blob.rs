//! The activation blob: a token key on its way into one TPM, in the layout that device code of the field understands.
//!
//! | field | what | opened by |
//! | --- | --- | --- |
//! | 1 | `TPM2B_ID_OBJECT`: the inner key, for the storage root key's name | endorsement key |
//! | 2 | `TPM2B_ENCRYPTED_SECRET`: the seed of field 1 | endorsement key |
//! | 3 | `TPM2B_PRIVATE`: the token key, wrapped by the inner key and by the seed of field 4 | both |
//! | 4 | `TPM2B_ENCRYPTED_SECRET`: the seed of field 3 | storage root key |
//! | 5 | `TPM2B_PUBLIC` of the token key | – |
//! | 6 | `TPM2B` of user data, encrypted by the inner key | who has the inner key |

use zeroize::Zeroizing;

use super::credential::make_credential;
use super::crypto::{Refused, cfb_encrypt};
use super::draw::Draw;
use super::duplicate::wrap;
use super::form::{Reader, sized};
use super::keys::{EndorsementKey, StorageKey};
use super::refusal::Refusal;
use crate::domain::{TokenKey, limits};

/// Bytes of the inner key: AES-128.
pub(super) const INNER_KEY_SIZE: usize = 16;

/// The six fields, each without its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    pub id_object: &'a [u8],
    pub credential_seed: &'a [u8],
    pub private: &'a [u8],
    pub duplicate_seed: &'a [u8],
    pub public: &'a [u8],
    pub user_data: &'a [u8],
}

impl<'a> Blob<'a> {
    /// Reads a blob; nothing may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes).map_err(|Refused| Malformed)
    }

    fn read(bytes: &'a [u8]) -> Result<Self, Refused> {
        let mut reader = Reader::new(bytes);
        let blob = Self {
            id_object: reader.sized()?,
            credential_seed: reader.sized()?,
            private: reader.sized()?,
            duplicate_seed: reader.sized()?,
            public: reader.sized()?,
            user_data: reader.sized()?,
        };
        reader.end()?;
        Ok(blob)
    }
}

/// The bytes are no activation blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the activation blob does not consist of six fields")]
pub struct Malformed;

/// Wraps a token key for the TPM that has both keys. `user_data` is for the device's eyes: at most
/// [`limits::TPM_USER_DATA_BYTES_MAX`] bytes.
pub fn activation_blob(
    endorsement_key: &EndorsementKey,
    storage_key: &StorageKey,
    key: &TokenKey,
    user_data: &[u8],
    draw: &Draw,
) -> Result<Vec<u8>, Refusal> {
    build(endorsement_key, storage_key, key, user_data, draw).map_err(|Refused| Refusal::KeyUnusable)
}

fn build(
    endorsement_key: &EndorsementKey,
    storage_key: &StorageKey,
    key: &TokenKey,
    user_data: &[u8],
    draw: &Draw,
) -> Result<Vec<u8>, Refused> {
    if user_data.len() > limits::TPM_USER_DATA_BYTES_MAX {
        return Err(Refused);
    }
    let inner_key = draw.secret("inner key", INNER_KEY_SIZE)?;
    let name = storage_key.name();
    let credential = make_credential(endorsement_key, name, &inner_key, draw, "endorsement key seed")?;
    let duplicate = wrap(storage_key, key, &inner_key, draw)?;
    let mut user_data = Zeroizing::new(user_data.to_vec());
    if !user_data.is_empty() {
        cfb_encrypt(&inner_key, &mut user_data)?;
    }
    Ok([
        credential.id_object,
        credential.encrypted_secret,
        duplicate.private,
        duplicate.encrypted_seed,
        duplicate.public,
        sized(&user_data)?,
    ]
    .concat())
}
