//! What a TPM and whoever pretends to be one sends: keys, blobs, quotes, tokens.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use rehome::attestation::sas::{self, Demand};
use rehome::attestation::tpm::software::SoftwareTpm;
use rehome::attestation::tpm::{
    Answer, Blob, Challenge, Draw, Enrolled, Invitation, Presented, PublicArea, Quote, Rule, begin,
};
use rehome::domain::{
    Credential, EnrollmentId, PcrIndex, PcrMode, PcrPolicy, PcrValue, RegistrationId, SasToken, Timestamp, TokenKey,
    TpmDevice, TpmRules, UnsignedToken, Version, limits,
};

pub const NOW: Timestamp = Timestamp(1_900_000_000_000);
pub const RESOURCE: &str = "rehome/registrations/dev-1";

/// One TPM, enrolled, in the middle of its attestation; the same in every process.
pub struct Scene {
    pub tpm: SoftwareTpm,
    pub invitation: Invitation,
    pub token: String,
    pub quote: Quote,
    id: EnrollmentId,
    registration: RegistrationId,
    enrolled: TpmDevice,
    challenge: Challenge,
    key: TokenKey,
}

pub static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let tpm = SoftwareTpm::of(&Draw::new([7; Draw::BYTES])).expect("keys");
    let index = |index| PcrIndex::new(index).expect("a register");
    let allowed = BTreeMap::from([(index(0), vec![PcrValue([0; 32])]), (index(7), vec![PcrValue([0; 32])])]);
    let rules =
        TpmRules { pcrs: Some(PcrPolicy::new(PcrMode::Enforce, allowed).expect("a policy")), ..Default::default() };
    let attestation_key = Some(tpm.attestation_key().as_bytes());
    let presented =
        Presented::parse(tpm.endorsement_key().as_bytes(), tpm.storage_root_key().as_bytes(), attestation_key, &[]);
    let presented = presented.expect("its keys");
    let enrolled = TpmDevice { endorsement_key: tpm.endorsement_key().clone(), ek_hash: presented.ek_hash(), rules };
    let registration = RegistrationId::parse("dev-1").expect("an id");
    let id = EnrollmentId::Individual(registration.clone());
    let rule = Enrolled { id: &id, version: Version(1), rule: Rule::Device(&enrolled) };
    let draw = Draw::new([9; Draw::BYTES]);
    let (challenge, invitation) = begin(presented, rule, &registration, b"user", &draw, NOW).expect("a challenge");
    let key = tpm.activate(&invitation.blob).expect("it is for this TPM").key;
    let token = sas::sign(&UnsignedToken::new(RESOURCE, NOW.plus(Duration::from_secs(60))), &key, Some("registration"));
    let quote = tpm.quote(invitation.quote.as_ref().expect("it is asked for")).expect("a quote");
    Scene { tpm, invitation, token, quote, id, registration, enrolled, challenge, key }
});

impl Scene {
    fn enrolled(&self) -> Enrolled<'_> {
        Enrolled { id: &self.id, version: Version(1), rule: Rule::Device(&self.enrolled) }
    }
}

/// Endorsement key, storage root key, attestation key (or nothing) and the certificates behind the first, each behind two
/// bytes of its length. A challenge is made for the enrolled endorsement key and no other.
pub fn tpm_keys(input: &[u8]) -> bool {
    let pieces = super::split(input);
    for piece in &pieces {
        if let Ok(area) = PublicArea::parse(piece) {
            assert_eq!(PublicArea::parse(area.public().as_bytes()).expect("its own bytes").name(), area.name());
        }
    }
    let [endorsement_key, storage_key, attestation_key, chain @ ..] = pieces.as_slice() else { return false };
    let attestation_key = Some(attestation_key.as_slice()).filter(|key| !key.is_empty());
    let Ok(presented) = Presented::parse(endorsement_key, storage_key, attestation_key, chain) else { return false };
    let draw = Draw::new([3; Draw::BYTES]);
    match begin(presented, SCENE.enrolled(), &SCENE.registration, b"", &draw, NOW) {
        Ok((_, invitation)) => {
            assert_eq!(endorsement_key, SCENE.tpm.endorsement_key().as_bytes(), "a stranger's key");
            assert!(Blob::parse(&invitation.blob).is_ok());
            true
        }
        Err(_) => false,
    }
}

/// An activation blob as a device is sent it. What it opens is the key that was put in.
pub fn tpm_blob(input: &[u8]) -> bool {
    if Blob::parse(input).is_err() {
        assert!(SCENE.tpm.activate(input).is_err());
        return false;
    }
    if let Ok(activated) = SCENE.tpm.activate(input) {
        assert!(activated.key == SCENE.key, "another key than the one that was wrapped");
    }
    true
}

/// A token, a quote (what was signed, its signature) and a proof of the key, each behind two bytes of its length, then
/// registers of 33 bytes each. Who is let in has said what the TPM said.
pub fn tpm_answer(input: &[u8]) -> bool {
    let pieces = super::split(input);
    let [token, attest, signature, key_proof, values @ ..] = pieces.as_slice() else { return false };
    let (Ok(token), Ok(key_proof)) = (SasToken::parse(token), key_proof.as_slice().try_into()) else { return false };
    let mut registers = Vec::new();
    for value in values {
        let Some((index, value)) = value.split_first() else { return false };
        let (Ok(index), Ok(value)) = (PcrIndex::new(u32::from(*index)), value.try_into()) else { return false };
        registers.push((index, PcrValue(value)));
    }
    let quote = Quote { attest: attest.clone(), signature: signature.clone(), values: registers.clone(), key_proof };
    let signed = token.signed_text();
    let answer = Answer { token, quote: Some(quote) };
    let (scene, credential) = (&*SCENE, Credential::x509([]));
    let judged = scene.challenge.judge(&answer, scene.enrolled(), &scene.registration, RESOURCE, credential, NOW);
    if judged.is_err() {
        return false;
    }
    assert_eq!(signed, SasToken::parse(scene.token.as_bytes()).expect("a token").signed_text());
    registers.sort();
    assert_eq!((attest, key_proof), (&scene.quote.attest, scene.quote.key_proof));
    assert_eq!(registers, scene.quote.values);
    true
}

/// A token: who has no key cannot make one that holds, and what was read is written as the same.
pub fn sas_token(input: &[u8]) -> bool {
    let Ok(token) = SasToken::parse(input) else { return false };
    let holds = sas::verify(&token, [&SCENE.key], Demand::of(RESOURCE), NOW).is_ok();
    let real = SasToken::parse(SCENE.token.as_bytes()).expect("a token");
    assert!(!holds || token.signed_text() == real.signed_text(), "a token that nobody signed");
    let rebuilt = UnsignedToken::new(&token.resource(), token.expires_at());
    let rebuilt = rebuilt.signed(token.signature(), token.key_name());
    // Written out in full it may have become too long.
    let Some(rebuilt) = (rebuilt.len() <= limits::TOKEN_BYTES_MAX).then_some(rebuilt) else { return true };
    let rebuilt = SasToken::parse(rebuilt.as_bytes()).expect("a token that was built");
    assert_eq!(
        (rebuilt.resource(), rebuilt.expires_at(), rebuilt.key_name(), rebuilt.signature()),
        (token.resource(), token.expires_at(), token.key_name(), token.signature())
    );
    true
}
