//! TPM attestation against other implementations, against a stand-in, and against everything that must not pass.

mod answers;
mod blobs;
mod certificates;
mod keys;
mod mutations;
mod quotes;
mod vectors;

use std::path::Path;

use super::software::{Material, SoftwareTpm};
use super::{Draw, EndorsementKey, PublicArea, StorageKey};
use crate::domain::{
    EnrollmentId, PcrIndex, PcrMode, PcrPolicy, PcrValue, RegistrationId, Timestamp, TpmDevice, TpmRules,
};

/// The swtpm certificates were made a day before.
const NOW: Timestamp = Timestamp(1_795_640_400_000);

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

fn id(text: &str) -> RegistrationId {
    RegistrationId::parse(text).unwrap()
}

fn individual(text: &str) -> EnrollmentId {
    EnrollmentId::Individual(id(text))
}

fn enrolled_device(tpm: &SoftwareTpm, rules: TpmRules) -> TpmDevice {
    let endorsement_key = tpm.endorsement_key().clone();
    let ek_hash = PublicArea::of(endorsement_key.clone()).unwrap().ek_hash();
    TpmDevice { endorsement_key, ek_hash, rules }
}

fn index(number: u32) -> PcrIndex {
    PcrIndex::new(number).unwrap()
}

fn policy(mode: PcrMode, allowed: &[(u32, &[[u8; 32]])]) -> PcrPolicy {
    let values = |values: &[[u8; 32]]| values.iter().map(|value| PcrValue(*value)).collect();
    PcrPolicy::new(mode, allowed.iter().map(|(number, allowed)| (index(*number), values(allowed))).collect()).unwrap()
}

fn pcr_rules(pcrs: PcrPolicy) -> TpmRules {
    TpmRules { pcrs: Some(pcrs), ..TpmRules::default() }
}
