//! TPM attestation against other implementations, against a stand-in, and against everything that must not pass.

mod blobs;
mod keys;
mod vectors;

use std::path::Path;

use super::software::{Material, SoftwareTpm};
use super::{Draw, EndorsementKey, PublicArea, StorageKey};
fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tpm").join(name);
    std::fs::read(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

fn draw(byte: u8) -> Draw {
    Draw::new([byte; Draw::BYTES])
}

/// The stand-ins whose keys the vectors know, by the name of their kind.
const KINDS: [&str; 3] = ["rsa", "p256", "p384"];

fn stand_in(kind: &str) -> SoftwareTpm {
    let made = match kind {
        "rsa" => {
            let (endorsement, storage) = (vector("software-ek-rsa.pk8"), vector("software-srk-rsa.pk8"));
            SoftwareTpm::new(Material::Rsa(&endorsement), Material::Rsa(&storage), &[0x33; 32])
        }
        "p256" => SoftwareTpm::new(Material::P256(&[0x11; 32]), Material::P256(&[0x22; 32]), &[0x33; 32]),
        "p384" => SoftwareTpm::new(Material::P384(&[0x44; 48]), Material::P384(&[0x55; 48]), &[0x33; 32]),
        _ => panic!("{kind}"),
    };
    made.unwrap()
}

fn endorsement_key(bytes: &[u8]) -> EndorsementKey {
    EndorsementKey::validate(PublicArea::parse(bytes).unwrap()).unwrap()
}

fn storage_key(bytes: &[u8]) -> StorageKey {
    StorageKey::validate(PublicArea::parse(bytes).unwrap()).unwrap()
}
