//! Activation blobs: what goes in comes out in one TPM, and in no other and in no other form.

use super::super::software::{Activated, Fault, SoftwareTpm};
use super::super::{Blob, Refusal, activation_blob};
use super::{KINDS, draw, endorsement_key, stand_in, storage_key};
use crate::domain::{TokenKey, limits};

fn token_key() -> TokenKey {
    TokenKey::new(&(0..32).collect::<Vec<u8>>()).unwrap()
}

fn blob_for(endorsement: &SoftwareTpm, storage: &SoftwareTpm, user_data: &[u8]) -> Result<Vec<u8>, Refusal> {
    activation_blob(
        &endorsement_key(endorsement.endorsement_key().as_bytes()),
        &storage_key(storage.storage_root_key().as_bytes()),
        &token_key(),
        user_data,
        &draw(1),
    )
}

#[test]
fn a_blob_opens_in_its_tpm() {
    for kind in KINDS {
        let tpm = stand_in(kind);
        for user_data in [&b""[..], b"hub-a", &[b'h'; limits::TPM_USER_DATA_BYTES_MAX]] {
            let blob = blob_for(&tpm, &tpm, user_data).unwrap();
            let expected = Activated { key: token_key(), user_data: user_data.to_vec() };
            assert_eq!(tpm.activate(&blob), Ok(expected), "{kind}");
        }
    }
}

/// The sizes that existing device code was seen to take.
#[test]
fn the_layout_is_the_fields() {
    for (kind, sizes) in
        [("rsa", [52, 256, 142, 256, 48, 5]), ("p256", [52, 68, 142, 68, 48, 5]), ("p384", [68, 100, 158, 100, 48, 5])]
    {
        let tpm = stand_in(kind);
        let blob = blob_for(&tpm, &tpm, b"hub-a").unwrap();
        let Blob { id_object, credential_seed, private, duplicate_seed, public, user_data } =
            Blob::parse(&blob).unwrap();
        let fields = [id_object, credential_seed, private, duplicate_seed, public, user_data];
        assert_eq!(fields.map(<[u8]>::len), sizes, "{kind}");
        assert_ne!(user_data, b"hub-a");
    }
}

/// With a policy for duplication, whoever can talk to the TPM could take the key out again.
#[test]
fn the_key_has_no_policy_and_cannot_be_duplicated() {
    let tpm = stand_in("p256");
    let blob = blob_for(&tpm, &tpm, b"").unwrap();
    let public = Blob::parse(&blob).unwrap().public;
    // KEYEDHASH, SHA-256, sign | noDA | userWithAuth, no policy, HMAC over SHA-256, 32 bytes of unique.
    assert_eq!(public[..16], [0, 8, 0, 0x0b, 0, 4, 4, 0x40, 0, 0, 0, 5, 0, 0x0b, 0, 32]);
}

#[test]
fn a_blob_opens_nowhere_else() {
    for kind in KINDS {
        let tpm = stand_in(kind);
        for other_kind in KINDS.into_iter().filter(|other| *other != kind) {
            let other = stand_in(other_kind);
            // Another endorsement key; this one's, but another storage key; and the reverse.
            assert_eq!(other.activate(&blob_for(&tpm, &tpm, b"").unwrap()), Err(Fault::CredentialRefused));
            assert_eq!(tpm.activate(&blob_for(&tpm, &other, b"").unwrap()), Err(Fault::CredentialRefused));
            assert_eq!(other.activate(&blob_for(&tpm, &other, b"").unwrap()), Err(Fault::CredentialRefused));
        }
    }
}

/// Every bit of every field that a TPM checks. The user data has no integrity of its own: it is told, not trusted.
#[test]
fn a_flipped_bit_is_refused_in_every_field() {
    let tpm = stand_in("p256");
    let blob = blob_for(&tpm, &tpm, b"hub-a").unwrap();
    let checked = blob.len() - b"hub-a".len();
    for bit in 0..checked * 8 {
        let mut flipped = blob.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(tpm.activate(&flipped).is_err(), "bit {bit}");
    }
    // RSA and P-384: a bit of every byte, since their private operations take long.
    for (kind, step) in [("rsa", 3), ("p384", 7)] {
        let tpm = stand_in(kind);
        let blob = blob_for(&tpm, &tpm, b"").unwrap();
        for byte in (0..blob.len()).step_by(step) {
            let mut flipped = blob.clone();
            flipped[byte] ^= 0x10;
            assert!(tpm.activate(&flipped).is_err(), "{kind} byte {byte}");
        }
    }
    let mut flipped = blob;
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(tpm.activate(&flipped).unwrap(), Activated { key: token_key(), user_data: b"hub-`".to_vec() });
}

/// The fields of two good blobs do not mix.
#[test]
fn swapped_fields_are_refused() {
    let tpm = stand_in("p256");
    let make = |byte| {
        let (endorsement, storage) = (tpm.endorsement_key(), tpm.storage_root_key());
        let key = TokenKey::new(&[byte; 32]).unwrap();
        let (endorsement, storage) = (endorsement_key(endorsement.as_bytes()), storage_key(storage.as_bytes()));
        activation_blob(&endorsement, &storage, &key, b"", &draw(byte)).unwrap()
    };
    let (one, two) = (make(1), make(2));
    let fields = |blob: &[u8]| {
        let it = Blob::parse(blob).unwrap();
        [it.id_object, it.credential_seed, it.private, it.duplicate_seed, it.public, it.user_data].map(<[u8]>::to_vec)
    };
    let write = |fields: &[Vec<u8>; 6]| -> Vec<u8> {
        let sized = |field: &Vec<u8>| [&u16::try_from(field.len()).unwrap().to_be_bytes()[..], field].concat();
        fields.iter().flat_map(sized).collect()
    };
    assert!(tpm.activate(&write(&fields(&one))).is_ok());
    for swapped in 0..5 {
        let mut mixed = fields(&one);
        mixed[swapped] = fields(&two)[swapped].clone();
        assert!(tpm.activate(&write(&mixed)).is_err(), "field {}", swapped + 1);
    }
}

#[test]
fn truncated_and_extended_blobs_are_refused() {
    let tpm = stand_in("p256");
    let blob = blob_for(&tpm, &tpm, b"hub-a").unwrap();
    for end in 0..blob.len() {
        assert_eq!(tpm.activate(&blob[..end]), Err(Fault::BlobMalformed), "{end}");
    }
    assert_eq!(tpm.activate(&[blob.as_slice(), &[0]].concat()), Err(Fault::BlobMalformed));
}

#[test]
fn user_data_is_bounded() {
    let tpm = stand_in("p256");
    let longer = [b'h'; limits::TPM_USER_DATA_BYTES_MAX + 1];
    assert_eq!(blob_for(&tpm, &tpm, &longer), Err(Refusal::KeyUnusable));
}

/// Every key length that a token key may have is one that a TPM imports.
#[test]
fn keys_of_every_length_travel() {
    let tpm = stand_in("p256");
    let (endorsement, storage) = (tpm.endorsement_key(), tpm.storage_root_key());
    let (endorsement, storage) = (endorsement_key(endorsement.as_bytes()), storage_key(storage.as_bytes()));
    for length in [limits::TOKEN_KEY_BYTES_MIN, 32, limits::TOKEN_KEY_BYTES_MAX] {
        let key = TokenKey::new(&vec![9; length]).unwrap();
        let blob = activation_blob(&endorsement, &storage, &key, b"", &draw(3)).unwrap();
        assert_eq!(tpm.activate(&blob).unwrap().key, key, "{length}");
    }
}

/// Two draws share nothing, and of one draw no two secrets are alike.
#[test]
fn draws_are_expanded_apart() {
    let labels = ["token key", "inner key", "obfuscation", "endorsement key seed", "storage root key seed"];
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for byte in [1, 2] {
        secrets.extend(labels.map(|label| draw(byte).secret(label, 32).unwrap().to_vec()));
    }
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), 2 * labels.len());
    assert_eq!(format!("{:?}", draw(1)), "Draw(****)");
}
