//! Known answers of a TPM (swtpm) and of the field's tools.

use super::super::blob::Blob;
use super::super::crypto::{Hash, cfb_decrypt};
use super::super::form::Reader;
use super::super::public::name;
use super::super::{AttestationKey, PublicArea};
use super::{KINDS, endorsement_key, stand_in, storage_key, vector};
use crate::attestation::sas;
use crate::domain::{TpmName, UnsignedToken};

#[test]
fn names_are_the_tpms() {
    for key in ["ek-rsa", "ek-p256", "ek-p384", "srk-rsa", "srk-p256", "ak-ecdsa", "ak-rsassa", "ak-rsapss"] {
        let area = PublicArea::parse(&vector(&format!("{key}.pub"))).unwrap();
        assert_eq!(area.name().as_bytes(), vector(&format!("{key}.name")), "{key}");
    }
}

#[test]
fn keys_of_a_tpm_are_fit_for_their_use() {
    for key in ["ek-rsa", "ek-p256", "ek-p384"] {
        endorsement_key(&vector(&format!("{key}.pub")));
    }
    for key in ["srk-rsa", "srk-p256"] {
        storage_key(&vector(&format!("{key}.pub")));
    }
    for key in ["ak-ecdsa", "ak-rsassa", "ak-rsapss"] {
        let area = PublicArea::parse(&vector(&format!("{key}.pub"))).unwrap();
        assert_eq!(AttestationKey::validate(area).map(|_| ()), Ok(()), "{key}");
    }
}

#[test]
fn an_ek_hash_is_over_the_bytes_as_sent() {
    let hash = PublicArea::parse(&vector("ek-rsa.pub")).unwrap().ek_hash();
    // sha256sum, and the base32 of it without padding in lower case.
    assert_eq!(hash.to_string(), EK_RSA_SHA256);
    assert_eq!(hash.registration_id().as_str(), EK_RSA_BASE32);
}

#[test]
fn the_stand_in_has_the_keys_that_others_made_secrets_for() {
    for kind in KINDS {
        let tpm = stand_in(kind);
        assert_eq!(tpm.endorsement_key().as_bytes(), vector(&format!("software-ek-{kind}.pub")), "{kind}");
        assert_eq!(tpm.storage_root_key().as_bytes(), vector(&format!("software-srk-{kind}.pub")), "{kind}");
    }
}

#[test]
fn credentials_of_the_fields_tools_open() {
    for kind in KINDS {
        let credential = vector(&format!("credential-{kind}.bin"));
        let mut reader = Reader::new(&credential);
        let (id_object, secret) = (reader.sized().unwrap(), reader.sized().unwrap());
        let object = TpmName::parse(&vector(&format!("software-srk-{kind}.name"))).unwrap();
        let opened = stand_in(kind).activate_credential(&object, id_object, secret).unwrap();
        assert_eq!(opened.as_slice(), (0x40..0x50).collect::<Vec<u8>>(), "{kind}");
        // Of another object, it does not.
        let other = name(Hash::Sha256, b"another");
        assert!(stand_in(kind).activate_credential(&other, id_object, secret).is_err(), "{kind}");
    }
}

/// A key that a TPM wrapped for a parent comes out as the one that the TPM signs with.
#[test]
fn duplicates_of_a_tpm_open() {
    for kind in KINDS {
        let file = |suffix: &str| vector(&format!("duplicate-{kind}.{suffix}"));
        let (private, seed, inner, public) = (file("private"), file("seed"), file("inner"), vector("duplicate.pub"));
        let blob = Blob {
            id_object: &[],
            credential_seed: &[],
            private: Reader::new(&private).sized().unwrap(),
            duplicate_seed: Reader::new(&seed).sized().unwrap(),
            public: Reader::new(&public).sized().unwrap(),
            user_data: &[],
        };
        let key = stand_in(kind).import(&blob, &inner).unwrap();
        let tag = Hash::Sha256.hmac(key.secret(), &[b"message to sign"]);
        assert_eq!(tag, vector("duplicate.hmac"), "{kind}");
    }
}

#[test]
fn a_token_is_signed_as_elsewhere() {
    // openssl dgst -sha256 -mac HMAC, key of 32 times 0x01.
    let key = crate::domain::TokenKey::new(&[1; 32]).unwrap();
    let unsigned = UnsignedToken::new("scope/registrations/dev-1", crate::domain::Timestamp::from_secs(1_700_000_030));
    assert_eq!(sas::sign(&unsigned, &key, Some("registration")), TOKEN);
}

#[test]
fn the_cipher_is_cfb_with_full_blocks() {
    // openssl enc -aes-128-cfb, key of 16 times 0x2b, an initialization vector of zeros.
    let mut text = data_encoding::HEXLOWER.decode(CFB_TEXT).unwrap();
    cfb_decrypt(&[0x2b; 16], &mut text).unwrap();
    assert_eq!(text, b"a text of more than one block");
}

const EK_RSA_SHA256: &str = "06174746e54c8aa39ccc7163d4be7cd3a41fc89701f96526d3f43c10312c6e77";
const EK_RSA_BASE32: &str = "ayluorxfjsfkhhgmofr5jpt42osb7sexah4wkjwt6q6bamjmnz3q";
const TOKEN: &str = "SharedAccessSignature sr=scope%2Fregistrations%2Fdev-1&sig=PH6ZUc01wmDbz%2BMAzcABevVOV04HCpJT4R2rcfRrPUc%3D&se=1700000030&skn=registration";
const CFB_TEXT: &[u8] = b"935db35c9444862c472be778d9c7b0a79ab1d64789a58de44f71dd6b51";
