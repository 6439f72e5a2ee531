//! Challenges and their answers: the device that an enrollment knows, and everybody else.

use std::time::Duration;

use super::super::software::SoftwareTpm;
use super::super::{
    Answer, CertificateFault, Challenge, Draw, Enrolled, Invitation, KeyFault, Part, Presented, Quote, QuoteFault,
    Refusal, Rule, begin,
};
use super::{KINDS, NOW, draw, enrolled_device, id, index, individual, pcr_rules, policy, stand_in, vector};
use crate::attestation::sas::{self, sign};
use crate::attestation::{Matched, Verified};
use crate::domain::token::registration_resource;
use crate::domain::{
    Credential, EnrollmentId, PcrMode, PcrValue, RegistrationId, SasToken, Thumbprint, Timestamp, TokenKey, TpmDevice,
    TpmRules, UnsignedToken, Version, limits,
};

const DEVICE: &str = "dev-1";

/// What a hub is told is the caller's matter; anything that can be told from another does here.
fn credential() -> Credential {
    Credential::x509([Thumbprint([7; 32])])
}

fn resource(id: &RegistrationId) -> String {
    registration_resource("rehome", id)
}

fn presented(tpm: &SoftwareTpm) -> Presented {
    let (endorsement, storage) = (tpm.endorsement_key().as_bytes(), tpm.storage_root_key().as_bytes());
    Presented::parse(endorsement, storage, Some(tpm.attestation_key().as_bytes()), &[]).unwrap()
}

/// One device, its enrollment, and how the two stand when the answer is judged.
struct Story {
    tpm: SoftwareTpm,
    enrolled: TpmDevice,
    enrollment_id: EnrollmentId,
    draw: u8,
}

impl Story {
    fn of(tpm: SoftwareTpm, rules: TpmRules) -> Self {
        Self { enrolled: enrolled_device(&tpm, rules), enrollment_id: individual(DEVICE), draw: 1, tpm }
    }

    fn of_kind(kind: &str) -> Self {
        Self::of(stand_in(kind), TpmRules::default())
    }

    fn enrolled(&self) -> Enrolled<'_> {
        Enrolled { id: &self.enrollment_id, version: Version(3), rule: Rule::Device(&self.enrolled) }
    }

    fn begin(&self) -> Result<(Challenge, Invitation), Refusal> {
        let resource = resource(&id(DEVICE));
        begin(presented(&self.tpm), self.enrolled(), &id(DEVICE), resource.as_bytes(), &draw(self.draw), NOW)
    }

    fn judge(&self, challenge: &Challenge, answer: &Answer, now: Timestamp) -> Result<Verified, Refusal> {
        let device = id(DEVICE);
        challenge.judge(answer, self.enrolled(), &device, &resource(&device), credential(), now)
    }
}

fn token(key: &TokenKey, resource: &str, ends: Timestamp) -> SasToken {
    let text = sign(&UnsignedToken::new(resource, ends), key, Some("registration"));
    SasToken::parse(text.as_bytes()).unwrap()
}

fn soon() -> Timestamp {
    NOW.plus(Duration::from_secs(30))
}

/// What the device makes of an invitation.
fn answer(tpm: &SoftwareTpm, invitation: &Invitation) -> Answer {
    let activated = tpm.activate(&invitation.blob).unwrap();
    let resource = String::from_utf8(activated.user_data).unwrap();
    let quote = invitation.quote.as_ref().map(|wanted| tpm.quote(wanted).unwrap());
    Answer { token: token(&activated.key, &resource, soon()), quote }
}

#[test]
fn the_enrolled_tpm_proves_itself() {
    for kind in KINDS {
        let story = Story::of_kind(kind);
        let (challenge, invitation) = story.begin().unwrap();
        assert_eq!((invitation.expires_at, &invitation.quote), (NOW.plus(limits::CHALLENGE_TTL), &None));
        let verified = story.judge(&challenge, &answer(&story.tpm, &invitation), NOW).unwrap();
        assert_eq!(*verified.registration_id(), id(DEVICE));
        assert_eq!((verified.enrollment_id(), verified.enrollment_version()), (&individual(DEVICE), Version(3)));
        assert_eq!(verified.credential(), &credential());
        assert_eq!(verified.matched(), Matched::EndorsementKey(story.enrolled.ek_hash));
        assert_eq!((verified.leaf(), verified.leaf_not_after()), (None, None));
        let tpm = verified.tpm().unwrap();
        assert_eq!(tpm.ek_hash(), story.enrolled.ek_hash);
        assert_eq!(tpm.storage_key_name().as_bytes(), vector(&format!("software-srk-{kind}.name")));
        assert_eq!((tpm.certificate(), tpm.pcr_mismatches()), (None, &[][..]));

        // The hub's key travels the same way, and in a blob of its own.
        let key = TokenKey::new(&[5; 32]).unwrap();
        let second = tpm.deliver(&key, b"hub-a/devices/dev-1", &draw(2)).unwrap();
        let opened = story.tpm.activate(&second).unwrap();
        assert_eq!((opened.key, opened.user_data.as_slice()), (key, &b"hub-a/devices/dev-1"[..]));
    }
}

#[test]
fn ids_are_compared_without_case() {
    let story = Story::of_kind("p256");
    let (challenge, invitation) = story.begin().unwrap();
    let answer = answer(&story.tpm, &invitation);
    let shouted = id("DEV-1");
    let verified =
        challenge.judge(&answer, story.enrolled(), &shouted, &resource(&shouted), credential(), NOW).unwrap();
    assert_eq!(verified.registration_id().as_str(), "DEV-1");
}

/// Whoever has a key can answer a challenge that is made for it: so none is made for a key that is not enrolled.
#[test]
fn a_software_key_gets_no_challenge() {
    let mut story = Story::of_kind("p256");
    story.tpm = SoftwareTpm::of(&draw(9)).unwrap();
    assert_eq!(story.begin().map(|_| ()), Err(Refusal::EndorsementKeyNotEnrolled));
    // Not even with everything but one attribute bit that of the enrolled one.
    let mut story = Story::of_kind("p256");
    let mut bytes = story.enrolled.endorsement_key.as_bytes().to_vec();
    bytes[8] ^= 0x01;
    story.enrolled.endorsement_key = crate::domain::TpmPublic::parse(&bytes).unwrap();
    assert_eq!(story.begin().map(|_| ()), Err(Refusal::EndorsementKeyNotEnrolled));
}

#[test]
fn an_enrollment_is_for_its_own_id() {
    let mut story = Story::of_kind("p256");
    story.enrollment_id = individual("dev-2");
    assert_eq!(story.begin().map(|_| ()), Err(Refusal::EnrollmentMismatch));
}

/// The attack: a storage key of software, imported below the real one, activates as the real one does, and gives the
/// token key away. It can be told by what it says of itself; one that lies about that is never activated.
#[test]
fn a_storage_key_of_software_is_not_taken() {
    let tpm = stand_in("p256");
    for (cleared, fault) in [(0x32, KeyFault::NotFixed), (0x12, KeyFault::NotFixed), (0x20, KeyFault::OriginNotTpm)] {
        let mut storage = tpm.storage_root_key().as_bytes().to_vec();
        storage[9] &= !cleared;
        let refusal = Presented::parse(tpm.endorsement_key().as_bytes(), &storage, None, &[]).map(|_| ());
        assert_eq!(refusal, Err(Refusal::Key { part: Part::StorageRootKey, fault }));
    }
    // One that lies: the endorsement key's TPM has no object of that name, so the credential does not open.
    let liar = SoftwareTpm::of(&draw(9)).unwrap();
    let forged = Presented::parse(tpm.endorsement_key().as_bytes(), liar.storage_root_key().as_bytes(), None, &[]);
    let story = Story::of_kind("p256");
    let (_, invitation) = begin(forged.unwrap(), story.enrolled(), &id(DEVICE), b"", &draw(1), NOW).unwrap();
    assert!(tpm.activate(&invitation.blob).is_err());
    assert!(liar.activate(&invitation.blob).is_err());
}

#[test]
fn each_key_is_judged_and_named() {
    let tpm = stand_in("p256");
    let (ek, srk, ak) = (tpm.endorsement_key().as_bytes(), tpm.storage_root_key().as_bytes(), tpm.attestation_key());
    let parse = |ek: &[u8], srk: &[u8], ak: Option<&[u8]>| Presented::parse(ek, srk, ak, &[]).map(|_| ());
    let key = |part, fault| Err(Refusal::Key { part, fault });
    assert_eq!(parse(ek, srk, None), Ok(()));
    assert_eq!(parse(ek, srk, Some(ak.as_bytes())), Ok(()));
    assert_eq!(parse(&[], srk, None), key(Part::EndorsementKey, KeyFault::Malformed));
    assert_eq!(parse(ek, &[], None), key(Part::StorageRootKey, KeyFault::Malformed));
    assert_eq!(parse(ek, srk, Some(&[])), key(Part::AttestationKey, KeyFault::Malformed));
    assert_eq!(parse(&vec![0; 2000], srk, None), key(Part::EndorsementKey, KeyFault::TooLarge));
    assert_eq!(parse(ek, ak.as_bytes(), None), key(Part::StorageRootKey, KeyFault::NotForStorage));
    assert_eq!(parse(ek, srk, Some(srk)), key(Part::AttestationKey, KeyFault::NotForSigning));
    let chain_too_long = Presented::parse(ek, srk, None, &vec![vec![0x30]; limits::CHAIN_CERTIFICATES_MAX + 1]);
    let expected = CertificateFault::Chain(crate::attestation::x509::Refusal::ChainTooLong);
    assert_eq!(chain_too_long.map(|_| ()), Err(Refusal::Certificate(expected)));
}

#[test]
fn an_answer_must_be_the_challenges_own() {
    let story = Story::of_kind("p256");
    let (challenge, invitation) = story.begin().unwrap();
    let key = story.tpm.activate(&invitation.blob).unwrap().key;
    let own = resource(&id(DEVICE));
    let check = |token: SasToken, expected: Result<(), Refusal>| {
        let verdict = story.judge(&challenge, &Answer { token, quote: None }, NOW).map(|_| ());
        assert_eq!(verdict, expected);
    };
    let wrong = |refusal| Err(Refusal::Token(refusal));
    check(token(&key, &own, soon()), Ok(()));
    // As often as it is judged: whoever keeps the challenge gives it up.
    check(token(&key, &own, soon()), Ok(()));
    check(token(&TokenKey::new(&[1; 32]).unwrap(), &own, soon()), wrong(sas::Refusal::SignatureInvalid));
    check(token(&key, &resource(&id("dev-2")), soon()), wrong(sas::Refusal::ResourceMismatch));
    check(token(&key, "hub-a/devices/dev-1", soon()), wrong(sas::Refusal::ResourceMismatch));
    check(token(&key, &own, NOW), wrong(sas::Refusal::Expired));
    let too_late = NOW.plus(limits::TOKEN_LIFETIME_MAX + limits::CLOCK_SKEW + Duration::from_secs(1));
    check(token(&key, &own, too_late), wrong(sas::Refusal::ExpiresTooLate));

    // A token of an earlier challenge, or of another TPM's, is none of this one.
    let mut later = Story::of_kind("p256");
    later.draw = 2;
    let (_, invitation) = later.begin().unwrap();
    check(answer(&later.tpm, &invitation).token, wrong(sas::Refusal::SignatureInvalid));
}

#[test]
fn a_challenge_ends() {
    let story = Story::of_kind("p256");
    let (challenge, invitation) = story.begin().unwrap();
    let key = story.tpm.activate(&invitation.blob).unwrap().key;
    let at = |now: Timestamp| {
        let token = token(&key, &resource(&id(DEVICE)), now.plus(Duration::from_secs(30)));
        story.judge(&challenge, &Answer { token, quote: None }, now).map(|_| ())
    };
    let last = NOW.plus(limits::CHALLENGE_TTL);
    assert_eq!(at(Timestamp(last.0 - 1)), Ok(()));
    assert_eq!(at(last), Err(Refusal::ChallengeExpired));
    assert_eq!(at(last.plus(Duration::from_secs(3600))), Err(Refusal::ChallengeExpired));
}

#[test]
fn the_enrollment_is_held_again_when_the_answer_comes() {
    let story = Story::of_kind("p256");
    let (challenge, invitation) = story.begin().unwrap();
    let answer = answer(&story.tpm, &invitation);
    let device = id(DEVICE);
    let judge = |enrolled: Enrolled<'_>, device: &RegistrationId| {
        challenge.judge(&answer, enrolled, device, &resource(device), credential(), NOW).map(|_| ())
    };
    assert_eq!(judge(story.enrolled(), &device), Ok(()));
    // Changed between the two calls: disabled, for one.
    let newer = Enrolled { version: Version(4), ..story.enrolled() };
    assert_eq!(judge(newer, &device), Err(Refusal::EnrollmentChanged));
    let other = individual("dev-2");
    assert_eq!(judge(Enrolled { id: &other, ..story.enrolled() }, &device), Err(Refusal::EnrollmentChanged));
    assert_eq!(judge(story.enrolled(), &id("dev-2")), Err(Refusal::ChallengeMismatch));
    // Deleted and made again for another TPM, which counts its versions anew.
    let other = enrolled_device(&stand_in("p384"), TpmRules::default());
    let again = Enrolled { rule: Rule::Device(&other), ..story.enrolled() };
    assert_eq!(judge(again, &device), Err(Refusal::EndorsementKeyNotEnrolled));
    // Made again with registers that nobody was asked for.
    let rules = pcr_rules(policy(PcrMode::Audit, &[(7, &[[0; 32]])]));
    let other = enrolled_device(&stand_in("p256"), rules);
    let again = Enrolled { rule: Rule::Device(&other), ..story.enrolled() };
    assert_eq!(judge(again, &device), Err(Refusal::EnrollmentChanged));
}

/// Registers 0 and 7, of which 7 may hold one of two values.
fn measured(mode: PcrMode) -> Story {
    let rules = pcr_rules(policy(mode, &[(0, &[[0; 32]]), (7, &[[7; 32], [8; 32]])]));
    let mut story = Story::of(stand_in("p256"), rules);
    story.tpm.set_register(index(7), PcrValue([8; 32]));
    story
}

#[test]
fn registers_are_quoted_and_mismatches_reported() {
    // Whether a mismatch keeps the device out is not judged here, so both modes give the same proof.
    for mode in [PcrMode::Enforce, PcrMode::Audit] {
        let mut story = measured(mode);
        for (seven, expected) in [([8; 32], vec![]), ([7; 32], vec![]), ([9; 32], vec![index(7)])] {
            story.tpm.set_register(index(7), PcrValue(seven));
            let (challenge, invitation) = story.begin().unwrap();
            let wanted = invitation.quote.as_ref().unwrap();
            assert_eq!(wanted.indices, [index(0), index(7)]);
            let verified = story.judge(&challenge, &answer(&story.tpm, &invitation), NOW).unwrap();
            assert_eq!(verified.tpm().unwrap().pcr_mismatches(), expected);
        }
        story.tpm.set_register(index(0), PcrValue([1; 32]));
        let (challenge, invitation) = story.begin().unwrap();
        let verified = story.judge(&challenge, &answer(&story.tpm, &invitation), NOW).unwrap();
        assert_eq!(verified.tpm().unwrap().pcr_mismatches(), [index(0), index(7)]);
    }
}

#[test]
fn a_quote_that_is_asked_for_must_come_from_the_same_tpm() {
    let story = measured(PcrMode::Audit);
    let (challenge, invitation) = story.begin().unwrap();
    let good = answer(&story.tpm, &invitation);
    let check = |quote: Option<Quote>, expected: Result<(), QuoteFault>| {
        let verdict = story.judge(&challenge, &Answer { quote, ..good.clone() }, NOW).map(|_| ());
        assert_eq!(verdict, expected.map_err(Refusal::Quote));
    };
    let with = |change: &dyn Fn(&mut Quote)| {
        let mut quote = good.quote.clone().unwrap();
        change(&mut quote);
        Some(quote)
    };
    check(good.quote.clone(), Ok(()));
    check(None, Err(QuoteFault::Missing));
    // The attestation key's credential was never opened: the key is on another machine.
    check(with(&|quote| quote.key_proof = [0; 32]), Err(QuoteFault::KeyNotBound));
    check(with(&|quote| quote.key_proof[31] ^= 1), Err(QuoteFault::KeyNotBound));
    check(with(&|quote| *quote.attest.last_mut().unwrap() ^= 1), Err(QuoteFault::SignatureInvalid));
    // Of an earlier challenge.
    let mut earlier = measured(PcrMode::Audit);
    earlier.draw = 9;
    let (_, old) = earlier.begin().unwrap();
    check(answer(&earlier.tpm, &old).quote, Err(QuoteFault::KeyNotBound));
    let replayed = answer(&earlier.tpm, &old).quote.unwrap();
    check(with(&|quote| quote.attest.clone_from(&replayed.attest)), Err(QuoteFault::SignatureInvalid));
    let both = with(&|quote| {
        quote.attest.clone_from(&replayed.attest);
        quote.signature.clone_from(&replayed.signature);
    });
    check(both, Err(QuoteFault::NonceWrong));

    // A stranger's attestation key beside the enrolled keys: its credential opens nowhere.
    let stranger = SoftwareTpm::of(&draw(9)).unwrap();
    let (ek, srk) = (story.tpm.endorsement_key().as_bytes(), story.tpm.storage_root_key().as_bytes());
    let mixed = Presented::parse(ek, srk, Some(stranger.attestation_key().as_bytes()), &[]).unwrap();
    let (_, invitation) = begin(mixed, story.enrolled(), &id(DEVICE), b"", &draw(1), NOW).unwrap();
    let wanted = invitation.quote.unwrap();
    assert!(stranger.quote(&wanted).is_err() && story.tpm.quote(&wanted).is_err());
}

#[test]
fn without_an_attestation_key_the_device_learns_that_it_needs_one() {
    let story = measured(PcrMode::Enforce);
    let (ek, srk) = (story.tpm.endorsement_key().as_bytes(), story.tpm.storage_root_key().as_bytes());
    let bare = Presented::parse(ek, srk, None, &[]).unwrap();
    let resource = resource(&id(DEVICE));
    let begun = begin(bare, story.enrolled(), &id(DEVICE), resource.as_bytes(), &draw(1), NOW).unwrap();
    let (challenge, invitation) = begun;
    let wanted = invitation.quote.clone().unwrap();
    assert_eq!((wanted.indices, wanted.credential), (vec![index(0), index(7)], None));
    let invitation = Invitation { quote: None, ..invitation };
    let verdict = story.judge(&challenge, &answer(&story.tpm, &invitation), NOW).map(|_| ());
    assert_eq!(verdict, Err(Refusal::Quote(QuoteFault::KeyMissing)));
}

/// An operator reads what was kept, a log may print it: neither tells the key.
#[test]
fn challenges_show_no_secret() {
    let story = measured(PcrMode::Enforce);
    let (challenge, invitation) = story.begin().unwrap();
    let key = story.tpm.activate(&invitation.blob).unwrap().key;
    let shown = format!("{challenge:?} {:?}", answer(&story.tpm, &invitation));
    assert!(!shown.contains(&format!("{:?}", key.secret())), "{shown}");
    assert!(shown.contains(DEVICE) && !shown.contains("sig"), "{shown}");
}

#[test]
fn two_challenges_share_nothing() {
    let make = |byte| {
        let mut story = measured(PcrMode::Enforce);
        story.draw = byte;
        let (_, invitation) = story.begin().unwrap();
        let key = story.tpm.activate(&invitation.blob).unwrap().key;
        (key, invitation.quote.unwrap().nonce)
    };
    let (one, two, again) = (make(1), make(2), make(1));
    assert!(one.0 != two.0 && one.1 != two.1);
    assert!(one == again);
    assert_eq!(Draw::BYTES, 64);
}
