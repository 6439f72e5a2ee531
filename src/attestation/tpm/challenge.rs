//! The two steps of TPM attestation, as pure functions: make a challenge, judge what answers it.
//!
//! ```text
//! bytes ─ Presented::parse ─▶ Presented ─ begin ─▶ Challenge + Invitation ·····▶ device
//!         bounds, keys' rules             who?     kept         sent               │ activates, signs
//!                             Verified ◀─ judge ───────────────────────────────── Answer
//!                                         time, same enrollment, who?, token, quote
//! ```
//!
//! A challenge proves possession: anybody can answer one that is made for a key of his own. *Who* it is, is decided by the
//! enrollment before anything is encrypted, and decided again when the answer comes.
//!
//! What binds the keys together: the activation blob's credential is made for the storage key's name, so a token can be
//! signed only where both the endorsement key and that storage key are. Where the enrollment asks for a quote, a second
//! credential is made for the attestation key's name. Its secret never comes back; the device shows that it has it by
//! [`super::quote::Quote::key_proof`].

use std::fmt;

use zeroize::Zeroizing;

use super::blob::activation_blob;
use super::credential::make_credential;
use super::crypto::{Hash, Refused};
use super::draw::Draw;
use super::ek_certificate::{EkChain, EkFacts};
use super::keys::{AttestationKey, EndorsementKey, StorageKey};
use super::proof::TpmProof;
use super::public::PublicArea;
use super::quote::{self, NONCE_SIZE, Quote};
use super::refusal::{CertificateFault, KeyFault, Part, QuoteFault, Refusal};
use crate::attestation::sas::{self, Demand};
use crate::attestation::verified::{Matched, Verified};
use crate::domain::{
    Credential, EkHash, EnrollmentId, PcrIndex, PcrPolicy, RegistrationId, SasToken, Timestamp, TokenKey, TpmDevice,
    TpmFleet, TpmName, TpmRules, Version, limits,
};

/// Bytes of a token key that is made for a challenge.
const KEY_SIZE: usize = 32;

/// What a device presents: well-formed keys that are fit for their use. Unproven.
#[derive(Debug, Clone)]
pub struct Presented {
    endorsement_key: EndorsementKey,
    storage_key: StorageKey,
    attestation_key: Option<AttestationKey>,
    certificates: Option<EkChain>,
}

impl Presented {
    /// Reads public areas (`TPM2B_PUBLIC`) and an EK certificate with what vouches for it, leaf first; none is an empty
    /// chain.
    pub fn parse(
        endorsement_key: &[u8],
        storage_root_key: &[u8],
        attestation_key: Option<&[u8]>,
        ek_chain: &[Vec<u8>],
    ) -> Result<Self, Refusal> {
        let area = |bytes, part| PublicArea::parse(bytes).map_err(move |fault| fault.of(part));
        let endorsement_key = EndorsementKey::validate(area(endorsement_key, Part::EndorsementKey)?)
            .map_err(|fault| fault.of(Part::EndorsementKey))?;
        let storage_key = StorageKey::validate(area(storage_root_key, Part::StorageRootKey)?)
            .map_err(|fault| fault.of(Part::StorageRootKey))?;
        let validated = |bytes| {
            AttestationKey::validate(area(bytes, Part::AttestationKey)?).map_err(|fault| fault.of(Part::AttestationKey))
        };
        let attestation_key = attestation_key.map(validated).transpose()?;
        let certificates = match ek_chain {
            [] => None,
            chain => {
                Some(EkChain::parse(chain).map_err(|refusal| Refusal::Certificate(CertificateFault::Chain(refusal)))?)
            }
        };
        Ok(Self { endorsement_key, storage_key, attestation_key, certificates })
    }

    /// What individual enrollments are looked up by.
    pub fn ek_hash(&self) -> EkHash {
        self.endorsement_key.ek_hash()
    }

    /// The id of the device in a group, and its id where an operator gave it no other.
    pub fn registration_id(&self) -> RegistrationId {
        self.ek_hash().registration_id()
    }

    pub fn storage_key_name(&self) -> &TpmName {
        self.storage_key.name()
    }

    /// What groups are looked up by.
    pub fn certificates(&self) -> Option<&EkChain> {
        self.certificates.as_ref()
    }
}

/// The enrollment that a device is held against.
#[derive(Debug, Clone, Copy)]
pub struct Enrolled<'a> {
    pub id: &'a EnrollmentId,
    pub version: Version,
    pub rule: Rule<'a>,
}

/// What a TPM enrollment asks.
#[derive(Debug, Clone, Copy)]
pub enum Rule<'a> {
    Device(&'a TpmDevice),
    Fleet(&'a TpmFleet),
}

impl<'a> Rule<'a> {
    fn rules(self) -> &'a TpmRules {
        match self {
            Rule::Device(device) => &device.rules,
            Rule::Fleet(fleet) => &fleet.rules,
        }
    }
}

/// What goes to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The activation blob ([`super::Blob`]).
    pub blob: Vec<u8>,
    pub expires_at: Timestamp,
    /// Where the enrollment asks for one.
    pub quote: Option<QuoteWanted>,
}

/// What the device needs for a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteWanted {
    /// The qualifying data of the quote.
    pub nonce: [u8; NONCE_SIZE],
    /// Of the SHA-256 bank, ascending.
    pub indices: Vec<PcrIndex>,
    /// `TPM2B_ID_OBJECT` of the credential for the attestation key, then its `TPM2B_ENCRYPTED_SECRET`. `None` where no
    /// attestation key was presented: the challenge cannot be answered then, and the device begins again with one.
    pub credential: Option<Vec<u8>>,
}

/// What must be kept until the answer comes. Whoever keeps it gives it up with the first answer that verifies.
pub struct Challenge {
    registration_id: RegistrationId,
    presented: Presented,
    enrollment: (EnrollmentId, Version),
    key: TokenKey,
    quote: Option<QuotePending>,
    expires_at: Timestamp,
}

struct QuotePending {
    nonce: [u8; NONCE_SIZE],
    /// What the credential for the attestation key holds.
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({}, {:?}, until {})", self.registration_id, self.presented.ek_hash(), self.expires_at)
    }
}

/// What a device answers.
#[derive(Debug, Clone)]
pub struct Answer {
    pub token: SasToken,
    pub quote: Option<Quote>,
}

/// Makes a challenge for a device that the enrollment knows. `user_data` is told to the device with it.
pub fn begin(
    presented: Presented,
    enrolled: Enrolled<'_>,
    registration_id: &RegistrationId,
    user_data: &[u8],
    draw: &Draw,
    now: Timestamp,
) -> Result<(Challenge, Invitation), Refusal> {
    admit(&presented, enrolled, registration_id, now)?;
    let unusable = |Refused| Refusal::KeyUnusable;
    let key = draw.secret("token key", KEY_SIZE).map_err(unusable)?;
    let key = TokenKey::new(&key).map_err(|_| Refusal::KeyUnusable)?;
    let blob = activation_blob(&presented.endorsement_key, &presented.storage_key, &key, user_data, draw)?;
    let asked = match &enrolled.rule.rules().pcrs {
        Some(policy) => Some(ask_for_quote(&presented, policy, draw).map_err(unusable)?),
        None => None,
    };
    let (quote, wanted) = asked.unzip();
    let presented = match enrolled.rule {
        // What certificates say is not asked, and challenges are kept by the thousand.
        Rule::Device(_) => Presented { certificates: None, ..presented },
        Rule::Fleet(_) => presented,
    };
    let expires_at = now.plus(limits::CHALLENGE_TTL);
    let registration_id = registration_id.clone();
    let enrollment = (enrolled.id.clone(), enrolled.version);
    let challenge = Challenge { registration_id, presented, enrollment, key, quote, expires_at };
    Ok((challenge, Invitation { blob, expires_at, quote: wanted }))
}

fn ask_for_quote(
    presented: &Presented,
    policy: &PcrPolicy,
    draw: &Draw,
) -> Result<(QuotePending, QuoteWanted), Refused> {
    let secret = draw.secret("attestation key secret", KEY_SIZE)?;
    let mut nonce = [0; NONCE_SIZE];
    nonce.copy_from_slice(&draw.secret("quote nonce", NONCE_SIZE)?);
    let credential = match &presented.attestation_key {
        Some(key) => {
            let label = "attestation key credential seed";
            let made = make_credential(&presented.endorsement_key, key.name(), &secret, draw, label)?;
            Some([made.id_object, made.encrypted_secret].concat())
        }
        None => None,
    };
    let wanted = QuoteWanted { nonce, indices: policy.indices().collect(), credential };
    Ok((QuotePending { nonce, secret }, wanted))
}

impl Challenge {
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    pub fn ek_hash(&self) -> EkHash {
        self.presented.ek_hash()
    }

    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether the token was signed with the key that this challenge wrapped for the TPM. It proves nothing by itself: see
    /// [`Challenge::judge`].
    pub fn is_meant_by(&self, token: &SasToken) -> bool {
        sas::is_signed_by(token, &self.key)
    }

    /// Judges an answer against the enrollment as it stands now: who it is, and what its keys are. Which storage root key
    /// and which values of registers the enrollment lets in, `policy` decides of the [`TpmProof`]; but where it names
    /// registers, a quote of them is part of the proof.
    /// `resource` is what the token must be for, `credential`
    /// what the hub is to be told if this succeeds.
    ///
    /// Judging does not use the challenge up: a stranger who answers nonsense must not be able to take it from the device.
    pub fn judge(
        &self,
        answer: &Answer,
        enrolled: Enrolled<'_>,
        registration_id: &RegistrationId,
        resource: &str,
        credential: Credential,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        if now >= self.expires_at {
            return Err(Refusal::ChallengeExpired);
        }
        if *registration_id != self.registration_id {
            return Err(Refusal::ChallengeMismatch);
        }
        if (enrolled.id, enrolled.version) != (&self.enrollment.0, self.enrollment.1) {
            return Err(Refusal::EnrollmentChanged);
        }
        // An id and a version do not tell an enrollment from one that was deleted and made again.
        let (matched, certificate) = admit(&self.presented, enrolled, registration_id, now)?;
        sas::verify(&answer.token, [&self.key], Demand::of(resource), now).map_err(Refusal::Token)?;
        let pcr_mismatches = self.judge_quote(answer.quote.as_ref(), enrolled.rule.rules())?;
        let proof = TpmProof::new(
            self.presented.endorsement_key.clone(),
            self.presented.storage_key.clone(),
            certificate,
            pcr_mismatches,
        );
        Ok(Verified::of_tpm(registration_id.clone(), self.enrollment.clone(), credential, matched, proof))
    }

    /// The registers that hold other values than the enrollment names. What follows from that, `policy` decides.
    fn judge_quote(&self, quote: Option<&Quote>, rules: &TpmRules) -> Result<Vec<PcrIndex>, Refusal> {
        let Some(policy) = &rules.pcrs else { return Ok(Vec::new()) };
        let pending = self.quote.as_ref().ok_or(Refusal::EnrollmentChanged)?;
        let key = self.presented.attestation_key.as_ref().ok_or(Refusal::Quote(QuoteFault::KeyMissing))?;
        let quote = quote.ok_or(Refusal::Quote(QuoteFault::Missing))?;
        if !Hash::Sha256.has_hmac(&pending.secret, &[&pending.nonce], &quote.key_proof) {
            return Err(Refusal::Quote(QuoteFault::KeyNotBound));
        }
        quote::verify(quote, key, &pending.nonce, policy).map_err(Refusal::Quote)
    }
}

/// Is it a TPM that the enrollment lets in under this id?
fn admit(
    presented: &Presented,
    enrolled: Enrolled<'_>,
    registration_id: &RegistrationId,
    now: Timestamp,
) -> Result<(Matched, Option<EkFacts>), Refusal> {
    match enrolled.id {
        EnrollmentId::Individual(id) if id != registration_id => return Err(Refusal::EnrollmentMismatch),
        EnrollmentId::Individual(_) | EnrollmentId::Group(_) => {}
    }
    match enrolled.rule {
        Rule::Device(device) => {
            // Byte for byte; neither is a secret.
            if presented.endorsement_key.public() != &device.endorsement_key {
                return Err(Refusal::EndorsementKeyNotEnrolled);
            }
            Ok((Matched::EndorsementKey(presented.ek_hash()), None))
        }
        Rule::Fleet(fleet) => {
            if *registration_id != presented.registration_id() {
                return Err(Refusal::RegistrationIdMismatch);
            }
            // The certificate vouches for the key's numbers alone. Were another area taken for them, one TPM could come as many.
            if !presented.endorsement_key.is_by_template() {
                return Err(KeyFault::NotByTemplate.of(Part::EndorsementKey));
            }
            let chain = presented.certificates.as_ref().ok_or(Refusal::Certificate(CertificateFault::Missing))?;
            let (matched, facts) =
                chain.verify(&presented.endorsement_key, fleet, now).map_err(Refusal::Certificate)?;
            Ok((matched, Some(facts)))
        }
    }
}
