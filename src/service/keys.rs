//! Enrollments by symmetric keys: which of them a token leads to, and their keys as they are kept and shown.
//!
//! Keys lie closed in the store ([`super::Vault`]). They are opened to verify a token, and where an operator asks for
//! them; they leave the service no other way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use crate::attestation::symmetric_key::{self, Enrolled};
use crate::domain::token::{SasToken, TokenKey, registration_resource};
use crate::domain::{
    Attestation, AuditAction, AuditEntry, Claim, Credential, Enrollment, EnrollmentId, Fault, KeyPair, PresentedToken,
    Reason, Registration, RegistrationId, SealedKey, limits,
};
use crate::store::{Commit, EnrollmentListing, PageRequest};

use super::proof::{Proven, Unproven};
use super::tpm::TOKEN_SCOPE;
use super::{Service, fault};

/// Told to the audit log of a token that leads nowhere.
const NOT_SIGNED: &str =
    "no enrollment has a key that signed the token, and it is of no registration that was made lately";
/// A drawn key: as long as keys may be.
const DRAWN_KEY_BYTES: usize = limits::TOKEN_KEY_BYTES_MAX;

impl Service {
    /// Finds out whether the caller, by its token, is the device that it says.
    ///
    /// The individual enrollment of the id decides, whatever it asks for; else the group whose key verifies, enabled or
    /// not. What a token is of shows by its signature alone.
    pub(super) async fn prove_by_key(&self, token: &PresentedToken, id: &RegistrationId) -> Result<Proven, Unproven> {
        let read = |fault| Unproven::Fault(fault::of_store(fault));
        let text = token.text();
        let token = SasToken::parse(text.as_bytes()).map_err(|fault| Unproven::refused(fault, None))?;
        let individual = EnrollmentId::Individual(id.clone());
        if let Some(enrollment) = self.inner.store.load_enrollment(&individual).await.map_err(read)? {
            return match &enrollment.attestation {
                Attestation::SymmetricKey(keys) => {
                    let proven = self.judge_key(&token, &enrollment, keys, id).map_err(Unjudged::told)?;
                    self.inner.tokens.keep(text, individual);
                    Ok(proven)
                }
                other => Err(Unproven::refused(asked_for(other), Some(&enrollment))),
            };
        }
        // A token is shown several times: at first it is held against every group, then against its own before all others.
        let known = match self.inner.tokens.group_of(text) {
            Some(group) => self.inner.store.load_enrollment(&group).await.map_err(read)?,
            None => None,
        };
        if let Some(Ok(proven)) = known.as_ref().map(|group| self.judge_group(&token, group, id)) {
            self.check_taken_over(id, &proven.enrollment).await?;
            return Ok(proven);
        }
        let groups = self.inner.store.key_groups().await.map_err(read)?;
        for group in &groups {
            match self.judge_group(&token, group, id) {
                Err(Unjudged::Another) => {}
                Err(refused @ Unjudged::Refused(_)) => return Err(refused.told()),
                Ok(proven) => {
                    self.check_taken_over(id, group).await?;
                    self.inner.tokens.keep(text, group.id.clone());
                    return Ok(proven);
                }
            }
        }
        Err(Unproven::refused(NOT_SIGNED, None))
    }

    /// Whoever has a group's key can be any device of the group, but none that another proof made what it is: a
    /// registration that stands under an enrollment by certificate or TPM is not replaced for as long as that is there.
    /// An operator can want it: by an individual enrollment, or by deleting the registration.
    async fn check_taken_over(&self, id: &RegistrationId, group: &Enrollment) -> Result<(), Unproven> {
        let read = |fault| Unproven::Fault(fault::of_store(fault));
        let standing = self.standing(id).await.map_err(Unproven::Fault)?;
        let Some(other) = standing.map(|standing| standing.enrollment).filter(|other| *other != group.id) else {
            return Ok(());
        };
        let stands = self.inner.store.load_enrollment(&other).await.map_err(read)?;
        match stands.as_ref().map(|stands| &stands.attestation) {
            None | Some(Attestation::MasterKey(_) | Attestation::SymmetricKey(_)) => Ok(()),
            Some(
                Attestation::X509Leaf(_) | Attestation::X509Ca(_) | Attestation::Tpm(_) | Attestation::TpmFleet(_),
            ) => {
                let why = format!("the registration stands under {other}, which a group's key does not replace");
                Err(Unproven::refused(why, Some(group)))
            }
        }
    }

    fn judge_group(&self, token: &SasToken, group: &Arc<Enrollment>, id: &RegistrationId) -> Result<Proven, Unjudged> {
        match &group.attestation {
            Attestation::MasterKey(keys) => self.judge_key(token, group, keys, id),
            Attestation::X509Leaf(_)
            | Attestation::X509Ca(_)
            | Attestation::Tpm(_)
            | Attestation::TpmFleet(_)
            | Attestation::SymmetricKey(_) => Err(Unjudged::Another),
        }
    }

    fn judge_key(
        &self,
        token: &SasToken,
        enrollment: &Arc<Enrollment>,
        keys: &KeyPair<SealedKey>,
        id: &RegistrationId,
    ) -> Result<Proven, Unjudged> {
        let refused = |why: &dyn std::fmt::Display| Unjudged::Refused(Unproven::refused(why, Some(enrollment)));
        let Some(keys) = self.open_either(keys) else {
            tracing::error!("the keys of {} cannot be opened: was the vault's key replaced?", enrollment.id);
            return Err(match &enrollment.id {
                EnrollmentId::Individual(_) => refused(&"its keys cannot be opened"),
                // It must not keep out the devices of others.
                EnrollmentId::Group(_) => Unjudged::Another,
            });
        };
        let enrolled = Enrolled { id: &enrollment.id, version: enrollment.version, keys: &keys };
        let seal = |key: &TokenKey| self.seal(key);
        let verified = symmetric_key::verify(token, enrolled, id, &self.resources(id), seal, self.inner.clock.now());
        match (verified, &enrollment.id) {
            (Ok(verified), _) => Ok(Proven { verified, enrollment: enrollment.clone() }),
            (Err(refusal), EnrollmentId::Group(_)) if refusal.is_of_another() => Err(Unjudged::Another),
            (Err(refusal), EnrollmentId::Individual(_) | EnrollmentId::Group(_)) => Err(refused(&refusal)),
        }
    }

    /// What a token for this registration may be for: the service by either of its names.
    pub(super) fn resources(&self, id: &RegistrationId) -> Vec<String> {
        let scopes = [Some(TOKEN_SCOPE), self.inner.config.id_scope.as_ref().map(|scope| scope.as_str())];
        scopes.into_iter().flatten().map(|scope| registration_resource(scope, id)).collect()
    }

    /// The keys of an enrollment, in the clear; absent where it has none, or they cannot be opened. Whoever shows them
    /// must have a right to: see [`Service::enrollment_keys`].
    pub fn keys_of(&self, enrollment: &Enrollment) -> Option<KeyPair<TokenKey>> {
        self.open_keys(enrollment.attestation.keys()?)
    }

    /// The keys that a device has signed in with at its hub since before it was assigned; never those that came through a
    /// TPM. As above: whoever shows them must have a right to.
    pub fn keys_of_credential(&self, credential: &Credential) -> Option<KeyPair<TokenKey>> {
        match credential {
            Credential::Shared(keys) => self.open_keys(keys),
            Credential::X509 { .. } | Credential::Delivered(_) => None,
        }
    }

    /// The keys of an enrollment for an operator. That they were shown stands in the audit log.
    pub async fn enrollment_keys(&self, id: &EnrollmentId, by: &str) -> Result<KeyPair<TokenKey>, Fault> {
        let enrollment = self.enrollment(id).await?;
        let Some(keys) = enrollment.attestation.keys() else {
            return Err(Fault::new(Reason::NoSymmetricKeys, format!("{id} has no symmetric keys")));
        };
        let keys = self.open_keys(keys).ok_or_else(|| {
            tracing::error!("the keys of {id} cannot be opened: was the vault's key replaced?");
            Fault::new(Reason::Internal, "the keys cannot be opened, the log has the details")
        })?;
        let detail = format!("the keys of {id} were shown");
        let audit = AuditEntry {
            enrollment: Some(enrollment.id.clone()),
            ..AuditEntry::new(self.inner.clock.now(), by, AuditAction::EnrollmentKeysShown, detail)
        };
        // First written down, then shown.
        let commit = Commit { audit: vec![audit], ..Commit::default() };
        self.inner.store.commit(commit).await.map_err(fault::of_commit)?;
        Ok(keys)
    }

    /// The keys of a draft as they are kept: the given ones, else the stored ones, else new ones.
    pub(super) fn read_keys(
        &self,
        id: &EnrollmentId,
        given: [Option<&TokenKey>; 2],
        stored: Option<&Attestation>,
    ) -> Attestation {
        let [primary, secondary] = given;
        let stored = stored.and_then(Attestation::keys);
        let kept = |given: Option<&TokenKey>, stored: Option<&SealedKey>| match (given, stored) {
            (None, Some(stored)) => stored.clone(),
            (Some(key), _) => self.seal(key),
            (None, None) => self.seal(&self.draw_key()),
        };
        let keys = KeyPair {
            primary: kept(primary, stored.map(|keys| &keys.primary)),
            secondary: kept(secondary, stored.map(|keys| &keys.secondary)),
        };
        match id {
            EnrollmentId::Individual(_) => Attestation::SymmetricKey(keys),
            EnrollmentId::Group(_) => Attestation::MasterKey(keys),
        }
    }

    /// There is room for one more group by keys, and no device is given a group's key.
    pub(super) async fn check_keys(&self, attestation: &Attestation, id: &EnrollmentId) -> Result<(), Fault> {
        match attestation {
            Attestation::MasterKey(_) => {}
            Attestation::SymmetricKey(keys) => {
                for key in keys.both() {
                    let claim = Claim::MasterKey(key.fingerprint());
                    if let Some(owner) = self.inner.store.find_claim(&claim).await.map_err(fault::of_store)? {
                        let message = format!("a key of it belongs to {owner}, and no device may hold a group's");
                        return Err(Fault::new(Reason::KeyInUse, message).with("enrollment", owner.to_string()));
                    }
                }
                return Ok(());
            }
            Attestation::X509Leaf(_) | Attestation::X509Ca(_) | Attestation::Tpm(_) | Attestation::TpmFleet(_) => {
                return Ok(());
            }
        }
        let groups = self.inner.store.key_groups().await.map_err(fault::of_store)?;
        if groups.iter().filter(|group| group.id != *id).count() < limits::KEY_GROUPS_MAX {
            return Ok(());
        }
        let most = limits::KEY_GROUPS_MAX;
        Err(Fault::invalid("symmetric_key", format!("there are {most} groups by symmetric keys already")))
    }

    pub(super) fn seal(&self, key: &TokenKey) -> SealedKey {
        self.inner.vault.seal(key, self.inner.entropy.as_ref())
    }

    pub(super) fn open_keys(&self, keys: &KeyPair<SealedKey>) -> Option<KeyPair<TokenKey>> {
        let open = |key| self.inner.vault.open(key);
        Some(KeyPair { primary: open(&keys.primary)?, secondary: open(&keys.secondary)? })
    }

    /// What of two keys can be opened: a key that was lost must not keep out who has the other.
    fn open_either(&self, keys: &KeyPair<SealedKey>) -> Option<KeyPair<TokenKey>> {
        let [primary, secondary] = keys.both().map(|key| self.inner.vault.open(key));
        let one = primary.clone().or_else(|| secondary.clone())?;
        Some(KeyPair { primary: primary.unwrap_or_else(|| one.clone()), secondary: secondary.unwrap_or(one) })
    }

    /// An enrollment with a key that this vault cannot open. Looks at all groups by keys and at the first page of individual
    /// enrollments, or at every one.
    pub async fn find_lost_key(&self, in_all: bool) -> Result<Option<EnrollmentId>, Fault> {
        let is_lost = |enrollment: &Arc<Enrollment>| {
            let keys = enrollment.attestation.keys();
            keys.is_some_and(|keys| keys.both().iter().any(|key| self.inner.vault.open(key).is_none()))
        };
        let groups = self.inner.store.key_groups().await.map_err(fault::of_store)?;
        if let Some(group) = groups.iter().find(|group| is_lost(group)) {
            return Ok(Some(group.id.clone()));
        }
        let mut token = None;
        loop {
            let page = PageRequest { size: limits::PAGE_SIZE_MAX, token };
            let page = self.enrollments(EnrollmentListing::Individuals, &page).await?;
            if let Some(enrollment) = page.rows.iter().find(|enrollment| is_lost(enrollment)) {
                return Ok(Some(enrollment.id.clone()));
            }
            match page.next.filter(|_| in_all) {
                Some(next) => token = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// The enrollment as this device is held to it: the keys of a group made into the device's. So what an operator moves
    /// goes to its hub with the keys that are enrolled now, not with those that it once registered with.
    pub(super) fn as_of_device(&self, enrollment: Arc<Enrollment>, record: &Registration) -> Arc<Enrollment> {
        let recorded = record.assignment.as_ref().and_then(|assignment| assignment.credential.as_ref());
        let (Attestation::MasterKey(masters), Some(Credential::Shared(recorded))) = (&enrollment.attestation, recorded)
        else {
            return enrollment;
        };
        let Some(masters) = self.open_either(masters) else { return enrollment };
        // The casing that the device makes its key of shows in the keys that were not rolled; else it is the recorded one.
        let made = [record.id.as_str().to_owned(), record.id.folded()]
            .map(|id| masters.map(|master| self.seal(&symmetric_key::device_key(master, &id))));
        let is_of_it = |keys: &&KeyPair<SealedKey>| keys.both().iter().any(|key| recorded.both().contains(key));
        let keys = made.iter().find(is_of_it).unwrap_or(&made[0]).clone();
        Arc::new(Enrollment { attestation: Attestation::SymmetricKey(keys), ..Enrollment::clone(&enrollment) })
    }

    /// What became of the keys of an enrollment, for the audit log.
    pub(super) fn rolled(before: &Attestation, after: &Attestation) -> String {
        let (Some(before), Some(after)) = (before.keys(), after.keys()) else { return String::new() };
        let slots = [("primary", &before.primary, &after.primary), ("secondary", &before.secondary, &after.secondary)];
        let changed = slots.into_iter().filter(|(_, before, after)| before != after);
        let told = changed.map(|(slot, before, after)| {
            format!("; its {slot} key {} became {}", before.fingerprint(), after.fingerprint())
        });
        told.collect()
    }

    fn draw_key(&self) -> TokenKey {
        let mut bytes = Zeroizing::new([0; DRAWN_KEY_BYTES]);
        self.inner.entropy.fill(bytes.as_mut_slice());
        TokenKey::new(bytes.as_slice()).expect("it has as many bytes as a key may have")
    }
}

/// Tokens that verified lately, and by which enrollment. A memory only: each is judged anew at every call. Two generations,
/// as of the checked chains.
#[derive(Debug)]
pub struct Tokens {
    kept: Mutex<Kept>,
    generation_max: usize,
}

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<[u8; 32], EnrollmentId>,
    old: HashMap<[u8; 32], EnrollmentId>,
}

impl Tokens {
    pub fn new(tokens_max: usize) -> Self {
        Self { kept: Mutex::default(), generation_max: (tokens_max / 2).max(1) }
    }

    /// Whether it verified before: then its bearer is no stranger.
    pub fn knows(&self, text: &str) -> bool {
        self.enrollment_of(text).is_some()
    }

    fn group_of(&self, text: &str) -> Option<EnrollmentId> {
        self.enrollment_of(text).filter(|id| matches!(id, EnrollmentId::Group(_)))
    }

    fn enrollment_of(&self, text: &str) -> Option<EnrollmentId> {
        let (digest, mut kept) = (digest_of(text), self.lock());
        if let Some(id) = kept.young.get(&digest) {
            return Some(id.clone());
        }
        let id = kept.old.remove(&digest)?;
        self.put(&mut kept, digest, id.clone());
        Some(id)
    }

    fn keep(&self, text: &str, id: EnrollmentId) {
        let mut kept = self.lock();
        self.put(&mut kept, digest_of(text), id);
    }

    fn put(&self, kept: &mut Kept, digest: [u8; 32], id: EnrollmentId) {
        if kept.young.len() >= self.generation_max {
            kept.old = std::mem::take(&mut kept.young);
        }
        kept.young.insert(digest, id);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest_of(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    bytes
}

/// Why one enrollment does not let a token's bearer in.
enum Unjudged {
    /// None of its keys signed the token.
    Another,
    Refused(Unproven),
}

impl Unjudged {
    fn told(self) -> Unproven {
        match self {
            Unjudged::Another => Unproven::refused(NOT_SIGNED, None),
            Unjudged::Refused(unproven) => unproven,
        }
    }
}

/// What an enrollment asks for, in place of what was presented.
pub(super) fn asked_for(attestation: &Attestation) -> &'static str {
    match attestation {
        Attestation::X509Leaf(_) | Attestation::X509Ca(_) => "the enrollment asks for a certificate",
        Attestation::Tpm(_) | Attestation::TpmFleet(_) => {
            "the enrollment asks for a proof by TPM, and the token is of no registration that was made lately"
        }
        Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => "the enrollment asks for a token of its keys",
    }
}

#[cfg(test)]
mod tests;
