//! Whatever comes in, nothing panics, and nothing that was changed passes as what it was.

use proptest::prelude::*;

use super::super::quote::{read_attest, read_signature};
use super::super::{AttestationKey, Blob, EkChain, EndorsementKey, PublicArea, StorageKey};
use super::vector;
use crate::domain::SasToken;

/// Every parser of what a stranger sends, as a fuzz target would call it.
fn read_as_everything(bytes: &[u8]) {
    if let Ok(area) = PublicArea::parse(bytes) {
        // Names are over what came, so what is accepted is exactly what came.
        assert_eq!(area.public().as_bytes(), bytes);
        let _ = (area.name(), area.ek_hash(), format!("{area:?}"));
        let _ = EndorsementKey::validate(area.clone());
        let _ = StorageKey::validate(area.clone());
        let _ = AttestationKey::validate(area);
    }
    let _ = Blob::parse(bytes);
    let _ = read_attest(bytes);
    let _ = read_signature(bytes);
    let _ = EkChain::parse(&[bytes.to_vec()]);
    let _ = SasToken::parse(bytes);
}

const SEEDS: [&str; 12] = [
    "ek-rsa.pub",
    "ek-p256.pub",
    "ek-p384.pub",
    "srk-p256.pub",
    "ak-ecdsa.pub",
    "ak-rsapss.pub",
    "duplicate.pub",
    "quote-ecdsa.attest",
    "certify.attest",
    "quote-rsassa.sig",
    "quote-ecdsa.sig",
    "ek-rsa-cert.der",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn something_near_the_real_thing(
        seed in 0..SEEDS.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = vector(SEEDS[seed]);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_as_everything(&bytes);
    }

    #[test]
    fn tokens(text in "(SharedAccessSignature )?((sr|sig|se|skn|x)=[a-zA-Z0-9%/+=]{0,20}&?){0,6}") {
        if let Ok(token) = SasToken::parse(text.as_bytes()) {
            prop_assert!(token.signed_text().contains('\n'));
            let _ = (token.resource(), token.expires_at());
        }
    }
}

/// Every single byte of a key in four ways: what is still a key has another name.
#[test]
fn every_changed_byte_changes_the_name() {
    for file in ["ek-p256.pub", "srk-rsa.pub", "ak-ecdsa.pub"] {
        let whole = vector(file);
        let name = PublicArea::parse(&whole).unwrap().name();
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff, 0x10] {
                let mut changed = whole.clone();
                changed[at] ^= mask;
                if let Ok(area) = PublicArea::parse(&changed) {
                    assert_ne!(area.name(), name, "{file} {at} {mask:02x}");
                }
            }
        }
    }
}
