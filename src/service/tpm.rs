//! Proof by TPM: opens a challenge for a device that an enrollment knows, and takes its answer.
//!
//! What is compared is which endorsement key and which storage root key the TPM has; that both are in one TPM, only the
//! answer shows. Until then the caller is a stranger and is told one thing, whatever the cause: refused. A challenge that
//! is not known (any more) is told apart from that, since nothing about an enrollment is said by it and a device whose
//! challenge was lost with a restart must begin again instead of giving up.
//!
//! Which storage root key and which values of registers are let in is judged after the proof, by `policy` in the device's
//! actor, where what is on record cannot change meanwhile.

use std::sync::Arc;

use crate::attestation::Verified;
use crate::attestation::sas;
use crate::attestation::tpm::{Answer, Challenge, Draw, Enrolled, Invitation, Presented, Quote, Refusal, Rule, begin};
use crate::domain::token::{SasToken, registration_resource};
use crate::domain::{
    Attestation, Claim, Credential, DeliveredKeys, EkHash, Enrollment, EnrollmentId, Evidence, Fault, OperationId,
    PcrIndex, PcrValue, Reason, RegistrationId, Timestamp, TokenKey, TpmPublic, Version,
};
use crate::policy::matching::{Match, Reference, choose_fleet};
use crate::store::StoreFault;
use crate::telemetry;

use super::challenges::{Delivery, TokenDigest, Used};
use super::keys::asked_for;
use super::proof::Unproven;
use super::registration::{JUDGEMENTS_MAX, Registering};
use super::{Peer, RegisterAsk, Service, fault};

/// What tokens for registrations are for, before the registration's own id.
pub const TOKEN_SCOPE: &str = "rehome";
/// What such tokens call their key.
pub const TOKEN_KEY_NAME: &str = "registration";

/// What a device opens its proof with. Read for size, not for sense.
#[derive(Debug, Clone)]
pub struct BeginAsk {
    pub registration_id: RegistrationId,
    pub endorsement_key: TpmPublic,
    pub storage_root_key: TpmPublic,
    /// DER, leaf first.
    pub endorsement_certificates: Vec<Vec<u8>>,
    pub attestation_key: Option<TpmPublic>,
}

/// A challenge that was made for a device which an enrollment knows. Where the enrollment asks for a quote and no key for it
/// was presented, it cannot be answered: begin again with one.
#[derive(Debug, Clone)]
pub struct Begun {
    pub id: u128,
    pub invitation: Invitation,
}

/// What a device answers, beside its token.
#[derive(Debug, Clone)]
pub struct TpmAnswer {
    pub challenge: u128,
    pub quote: Option<QuoteAsk>,
}

/// A quote as it was received, with the values it stands for.
#[derive(Clone)]
pub struct QuoteAsk {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    pub values: Vec<(PcrIndex, PcrValue)>,
    pub key_proof: [u8; 32],
}

impl std::fmt::Debug for QuoteAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuoteAsk({} values)", self.values.len())
    }
}

impl From<&QuoteAsk> for Quote {
    fn from(ask: &QuoteAsk) -> Self {
        Self {
            attest: ask.attest.clone(),
            signature: ask.signature.clone(),
            values: ask.values.clone(),
            key_proof: ask.key_proof,
        }
    }
}

/// What an enrollment asks of a TPM; `None` when it asks for another proof.
fn rule(enrollment: &Enrollment) -> Option<Rule<'_>> {
    match &enrollment.attestation {
        Attestation::Tpm(device) => Some(Rule::Device(device)),
        Attestation::TpmFleet(fleet) => Some(Rule::Fleet(fleet)),
        Attestation::X509Leaf(_)
        | Attestation::X509Ca(_)
        | Attestation::SymmetricKey(_)
        | Attestation::MasterKey(_) => None,
    }
}

fn enrolled(enrollment: &Enrollment, version: Version) -> Option<Enrolled<'_>> {
    Some(Enrolled { id: &enrollment.id, version, rule: rule(enrollment)? })
}

impl Service {
    /// Opens a proof by TPM.
    pub async fn begin_tpm(&self, peer: &Peer, ask: &BeginAsk) -> Result<Begun, Fault> {
        let (started, id) = (self.inner.clock.now(), &ask.registration_id);
        let address = peer.address.ip();
        let refusals = self.inner.throttle.wait(address, id, started);
        let wait = refusals.max(self.inner.challenge_throttle.wait(address, id, started));
        if !wait.is_zero() {
            telemetry::rate_limited("peer_challenges_per_minute");
            let message = "too many proofs by TPM were begun or refused from this address";
            return Err(Fault::new(Reason::RateLimited, message).retry_after(wait));
        }
        match self.challenge(peer, ask, started).await {
            Ok(begun) => {
                self.inner.challenge_throttle.note(address, id, started);
                Ok(begun)
            }
            Err(unproven) => Err(self.turn_away(peer, id, unproven, Reason::RegistrationRefused, started).await),
        }
    }

    async fn challenge(&self, peer: &Peer, ask: &BeginAsk, now: Timestamp) -> Result<Begun, Unproven> {
        let attestation_key = ask.attestation_key.as_ref().map(TpmPublic::as_bytes);
        let presented = Presented::parse(
            ask.endorsement_key.as_bytes(),
            ask.storage_root_key.as_bytes(),
            attestation_key,
            &ask.endorsement_certificates,
        );
        let presented = presented.map_err(|refusal| Unproven::refused(refusal, None))?;
        let candidates = self.tpm_candidates(&ask.registration_id, &presented).await?;
        let resource = registration_resource(TOKEN_SCOPE, &ask.registration_id);
        let mut last = Unproven::refused("no enrollment refers to the endorsement key", None);
        for (enrollment, by) in candidates {
            let Some(enrolled) = enrolled(&enrollment, enrollment.version) else { continue };
            let (id, user_data, draw) = (&ask.registration_id, resource.as_bytes(), self.draw());
            match begin(presented.clone(), enrolled, id, user_data, &draw, now) {
                Ok(_) if !enrollment.enabled => {
                    return Err(Unproven::refused("the enrollment is disabled", Some(&enrollment)));
                }
                Ok((challenge, invitation)) => {
                    let id = self.inner.entropy.draw_u128();
                    let of = (enrollment.id.clone(), enrollment.version);
                    self.inner.challenges.keep(id, peer.address.ip(), challenge, of, now);
                    return Ok(Begun { id, invitation });
                }
                Err(refusal) => {
                    let is_namesake = by == Reference::IssuerName && is_of_the_path(&refusal);
                    last = Unproven::refused(refusal, Some(&enrollment));
                    if !is_namesake {
                        return Err(last);
                    }
                }
            }
        }
        Err(last)
    }

    /// The individual enrollment of the id, whatever it asks for; else the groups whose authority may have certified the
    /// endorsement key, nearest first. A TPM that is enrolled for itself gets into no group, whatever its own enrollment says
    /// and by whatever id.
    async fn tpm_candidates(
        &self,
        id: &RegistrationId,
        presented: &Presented,
    ) -> Result<Vec<(Arc<Enrollment>, Reference)>, Unproven> {
        let read = |fault| Unproven::Fault(fault::of_store(fault));
        let individual = EnrollmentId::Individual(id.clone());
        if let Some(enrollment) = self.inner.store.load_enrollment(&individual).await.map_err(read)? {
            let other = Unproven::refused(asked_for(&enrollment.attestation), Some(&enrollment));
            return if rule(&enrollment).is_some() { Ok(vec![(enrollment, Reference::Presented)]) } else { Err(other) };
        }
        if let Some(owner) = self.owner_of(presented.ek_hash()).await.map_err(read)? {
            return Err(Unproven::refused(format!("the endorsement key is enrolled by {owner}"), None));
        }
        let Some(chain) = presented.certificates() else { return Ok(Vec::new()) };
        let groups = self.inner.store.find_groups(chain.references()).await.map_err(read)?;
        let candidates = match choose_fleet(chain.references(), &groups) {
            Match::Groups(candidates) => candidates,
            Match::Individual(_) | Match::Nothing => return Ok(Vec::new()),
        };
        let found = candidates.iter().filter_map(|candidate| {
            let group = groups.iter().find(|group| group.id == candidate.group.id)?;
            Some((group.clone(), candidate.by))
        });
        Ok(found.collect())
    }

    /// The individual enrollment of a TPM.
    async fn owner_of(&self, key: EkHash) -> Result<Option<EnrollmentId>, StoreFault> {
        self.inner.store.find_claim(&Claim::EndorsementKey(key)).await
    }

    /// Whether the caller's token answers a challenge of that device, in a protocol that does not name challenges.
    pub fn answers_a_challenge(&self, peer: &Peer, id: &RegistrationId) -> bool {
        self.challenge_meant(peer, id).is_some()
    }

    fn challenge_meant(&self, peer: &Peer, id: &RegistrationId) -> Option<u128> {
        let Evidence::Token(presented) = &peer.evidence else { return None };
        let token = SasToken::parse(presented.text().as_bytes()).ok()?;
        self.inner.challenges.meant_by(id, presented.text(), &token, self.inner.clock.now())
    }

    /// For protocols that do not name challenges: the request with the challenge that its token answers, if it answers one,
    /// and an id by which a repeat is known.
    pub fn naming_its_challenge(&self, peer: &Peer, ask: RegisterAsk) -> RegisterAsk {
        let (Some(challenge), Evidence::Token(presented)) =
            (self.challenge_meant(peer, &ask.registration_id), &peer.evidence)
        else {
            return ask;
        };
        let request_id = ask.request_id.or_else(|| TokenDigest::of(presented.text()).request_id());
        RegisterAsk { request_id, tpm: Some(TpmAnswer { challenge, quote: None }), ..ask }
    }

    /// A device answers its challenge with a registration, or repeats one.
    pub(super) async fn register_by_tpm(
        &self,
        peer: &Peer,
        ask: &RegisterAsk,
        answer: &TpmAnswer,
    ) -> Result<Registering, Fault> {
        let (started, id) = (self.inner.clock.now(), &ask.registration_id);
        self.check_throttle(peer, id, started)?;
        for _ in 0..JUDGEMENTS_MAX {
            let judged = match self.judge_answer(peer, ask, answer, started).await {
                Ok(judged) => judged,
                Err((unproven, reason)) => return Err(self.turn_away(peer, id, unproven, reason, started).await),
            };
            let (verified, enrollment, delivery) = match judged {
                Judged::Repeat(operation) => return self.registering_again(id, operation).await,
                Judged::Outdated(fault) => return Err(fault),
                Judged::Again => continue,
                Judged::Verified(it) => *it,
            };
            let directory = &self.inner.directory;
            let (facts, request_id) = (ask.facts.clone(), ask.request_id.clone());
            let answered = directory.register_by_tpm(verified, enrollment, facts, request_id, delivery.blob).await?;
            match answered {
                Ok(accepted) => {
                    if let Some(standing) = &accepted.standing {
                        self.inner.challenges.note(answer.challenge, standing.operation.id);
                    }
                    return self.registering(id, accepted);
                }
                Err(crate::actors::Refused::Rejudge) => {
                    tracing::debug!("the enrollment changed meanwhile, judging again");
                }
                Err(crate::actors::Refused::Fault(fault)) => return Err(fault),
            }
        }
        Err(fault::of_refused(crate::actors::Refused::Rejudge))
    }

    async fn judge_answer(
        &self,
        peer: &Peer,
        ask: &RegisterAsk,
        answer: &TpmAnswer,
        now: Timestamp,
    ) -> Result<Judged, (Unproven, Reason)> {
        let refused = |why: &dyn std::fmt::Display, enrollment: Option<&Enrollment>| {
            (Unproven::refused(why, enrollment), Reason::RegistrationRefused)
        };
        let outdated = |why: &str| (Unproven::refused(why, None), Reason::TpmChallengeOutdated);
        let text = match &peer.evidence {
            Evidence::Token(token) => token.text(),
            Evidence::None | Evidence::X509 { .. } => return Err(refused(&sas::Refusal::Missing, None)),
        };
        let token = SasToken::parse(text.as_bytes()).map_err(|fault| refused(&fault, None))?;
        let digest = TokenDigest::of(text);
        let found = self.inner.challenges.find(answer.challenge);
        let found = found.ok_or_else(|| outdated("the challenge is not known, or not any more"))?;
        let (prepared, is_fresh) = match &found.used {
            None => (self.prepare(), true),
            Some(used) if used.is_repeated_by(digest, ask.request_id.as_ref(), now) => {
                if *found.challenge.registration_id() != ask.registration_id {
                    return Err(refused(&Refusal::ChallengeMismatch, None));
                }
                if let Some(operation) = used.operation {
                    return Ok(Judged::Repeat(operation));
                }
                (Prepared::Given(used.delivery.clone()), false)
            }
            Some(_) => return Err(outdated("the challenge was used before")),
        };
        let (enrollment_id, version) = &found.enrollment;
        let read = |fault| (Unproven::Fault(fault::of_store(fault)), Reason::RegistrationRefused);
        let enrollment = self.inner.store.load_enrollment(enrollment_id).await.map_err(read)?;
        let Some(enrollment) = enrollment else {
            return Err(refused(&"the enrollment was deleted after the challenge was made", None));
        };
        let decided_by_another = match enrollment_id {
            EnrollmentId::Individual(_) => false,
            EnrollmentId::Group(_) => {
                let individual = EnrollmentId::Individual(ask.registration_id.clone());
                let of_its_id = self.inner.store.load_enrollment(&individual).await.map_err(read)?;
                of_its_id.is_some() || self.owner_of(found.challenge.ek_hash()).await.map_err(read)?.is_some()
            }
        };
        let Some(enrolled) = enrolled(&enrollment, *version) else {
            return Err(refused(&asked_for(&enrollment.attestation), Some(&enrollment)));
        };
        let verified = self
            .verify_answer(&found.challenge, answer, &token, enrolled, &ask.registration_id, prepared.credential(), now)
            .map_err(|refusal| match refusal {
                Refusal::ChallengeExpired => outdated("the challenge has expired"),
                refusal => refused(&refusal, Some(&enrollment)),
            })?;
        // From here on the caller is the device. It holds a challenge for one version of the enrollment; a later one that
        // keeps it out is told as to everybody who is proven, any other asks for a new proof.
        if decided_by_another || (enrollment.version != *version && enrollment.enabled) {
            let message = "the enrollment changed since the challenge was made: begin again";
            return Ok(Judged::Outdated(Fault::new(Reason::TpmChallengeOutdated, message)));
        }
        let delivery = match prepared {
            Prepared::Given(delivery) => delivery,
            Prepared::Made { key, credential } => Delivery { credential, blob: self.wrap(&verified, &key)? },
        };
        if is_fresh {
            let used = Used::new(digest, token.expires_at(), ask.request_id.clone(), delivery.clone());
            if !self.inner.challenges.use_up(answer.challenge, used) {
                // Perhaps by a repeat of this very registration: look again.
                return Ok(Judged::Again);
            }
        }
        Ok(Judged::Verified(Box::new((verified, enrollment, delivery))))
    }

    #[allow(clippy::too_many_arguments, reason = "everything that an answer is judged by")]
    fn verify_answer(
        &self,
        challenge: &Challenge,
        answer: &TpmAnswer,
        token: &SasToken,
        enrolled: Enrolled<'_>,
        id: &RegistrationId,
        credential: &Credential,
        now: Timestamp,
    ) -> Result<Verified, Refusal> {
        let named = token.resource();
        let resources = self.resources(id);
        let resource = resources.iter().find(|resource| resource.eq_ignore_ascii_case(&named)).or(resources.first());
        let resource = resource.map(String::as_str).unwrap_or_default();
        let answer = Answer { token: token.clone(), quote: answer.quote.as_ref().map(Quote::from) };
        challenge.judge(&answer, enrolled, id, resource, credential.clone(), now)
    }

    /// The key that the device will sign in at its hub with.
    fn prepare(&self) -> Prepared {
        let mut bytes = zeroize::Zeroizing::new([0; 32]);
        self.inner.entropy.fill(bytes.as_mut_slice());
        let key = TokenKey::new(bytes.as_slice()).expect("32 bytes are a key");
        let sealed = self.inner.vault.seal(&key, self.inner.entropy.as_ref());
        Prepared::Made { key, credential: Credential::Delivered(DeliveredKeys::one(sealed)) }
    }

    fn wrap(&self, verified: &Verified, key: &TokenKey) -> Result<Arc<[u8]>, (Unproven, Reason)> {
        let resource = registration_resource(TOKEN_SCOPE, verified.registration_id());
        let wrapped = verified.tpm().map(|proof| proof.deliver(key, resource.as_bytes(), &self.draw()));
        match wrapped {
            Some(Ok(blob)) => Ok(blob.into()),
            Some(Err(refusal)) => Err((Unproven::refused(refusal, None), Reason::RegistrationRefused)),
            None => Err((Unproven::refused("there is no TPM", None), Reason::RegistrationRefused)),
        }
    }

    fn draw(&self) -> Draw {
        let mut bytes = zeroize::Zeroizing::new([0; Draw::BYTES]);
        self.inner.entropy.fill(bytes.as_mut_slice());
        Draw::new(*bytes)
    }

    /// The same registration again: how its operation stands by now.
    async fn registering_again(&self, id: &RegistrationId, operation: OperationId) -> Result<Registering, Fault> {
        let report = self.inner.directory.describe(id).await?;
        let standing = report.standing.ok_or_else(|| fault::no_registration(id))?;
        if standing.operation.id != operation {
            let message = format!("{operation} is not the last operation of {id} any more");
            return Err(Fault::new(Reason::OperationNotFound, message));
        }
        let why = "the request was answered before".to_owned();
        Ok(Registering { view: self.device_view(standing), why, updates: report.updates })
    }

    /// Which operation a token may ask after that answered a challenge.
    pub(super) async fn read_by_token(&self, peer: &Peer, id: &RegistrationId) -> Result<Option<OperationId>, Fault> {
        let Evidence::Token(token) = &peer.evidence else { return Ok(None) };
        let started = self.inner.clock.now();
        self.check_throttle(peer, id, started)?;
        // Any other token must prove by itself who its bearer is.
        Ok(self.inner.challenges.operation_of(id, TokenDigest::of(token.text()), started))
    }

    /// Has the storage root key forgotten that a device is held to.
    pub async fn forget_storage_root_key(
        &self,
        id: &RegistrationId,
        version: Option<Version>,
        by: &str,
    ) -> Result<super::RegistrationView, Fault> {
        let record = self.record(id).await?;
        fault::check_etag(format!("registration {id}"), version, record.version)?;
        let answer = self.inner.directory.forget_storage_root_key(id, by).await;
        let standing = fault::flat(answer)?.standing.ok_or_else(|| fault::no_registration(id))?;
        Ok(super::RegistrationView { standing, tries: Vec::new() })
    }
}

/// What an answer comes to.
enum Judged {
    Verified(Box<(Verified, Arc<Enrollment>, Delivery)>),
    /// The same registration as before, which is this operation.
    Repeat(OperationId),
    /// Told to the device, which has proven itself.
    Outdated(Fault),
    /// Another call used the challenge up meanwhile.
    Again,
}

/// What the device is to be given.
enum Prepared {
    Made { key: TokenKey, credential: Credential },
    Given(Delivery),
}

impl Prepared {
    fn credential(&self) -> &Credential {
        match self {
            Prepared::Made { credential, .. } => credential,
            Prepared::Given(delivery) => &delivery.credential,
        }
    }
}

/// Whether it says that another authority of the same name may be meant.
fn is_of_the_path(refusal: &Refusal) -> bool {
    use crate::attestation::tpm::CertificateFault;
    use crate::attestation::x509::Refusal as Chain;
    matches!(
        refusal,
        Refusal::Certificate(CertificateFault::Chain(
            Chain::UntrustedIssuer | Chain::SignatureInvalid | Chain::SignatureAlgorithmNotAllowed
        ))
    )
}
