//! Enrollments by symmetric keys: which of them a token leads to, and their keys as they are kept and shown.
//!
//! Keys lie closed in the store ([`super::Vault`]). They are opened to verify a token, and where an operator asks for
//! them; they leave the service no other way.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::attestation::symmetric_key::{self, Enrolled};
use crate::domain::token::{SasToken, TokenKey, registration_resource};
use crate::domain::{
    Attestation, AuditAction, AuditEntry, Credential, Enrollment, EnrollmentId, Fault, KeyPair, PresentedToken, Reason,
    RegistrationId, SealedKey, limits,
};
use crate::store::Commit;

use super::proof::{Proven, Unproven};
use super::tpm::TOKEN_SCOPE;
use super::{Service, fault};

/// A drawn key: as long as keys may be.
const DRAWN_KEY_BYTES: usize = limits::TOKEN_KEY_BYTES_MAX;

impl Service {
    /// Finds out whether the caller, by its token, is the device that it says.
    ///
    /// The individual enrollment of the id decides, whatever it asks for; else the group whose key verifies, enabled or
    /// not. What a token is of shows by its signature alone.
    pub(super) async fn prove_by_key(&self, token: &PresentedToken, id: &RegistrationId) -> Result<Proven, Unproven> {
        let read = |fault| Unproven::Fault(fault::of_store(fault));
        let token = SasToken::parse(token.text().as_bytes()).map_err(|fault| Unproven::refused(fault, None))?;
        let individual = EnrollmentId::Individual(id.clone());
        if let Some(enrollment) = self.inner.store.load_enrollment(&individual).await.map_err(read)? {
            return match &enrollment.attestation {
                Attestation::SymmetricKey(keys) => {
                    self.judge_key(&token, &enrollment, keys, id).map_err(Unjudged::told)
                }
                other => Err(Unproven::refused(asked_for(other), Some(&enrollment))),
            };
        }
        let groups = self.inner.store.key_groups().await.map_err(read)?;
        for group in &groups {
            let Attestation::MasterKey(keys) = &group.attestation else { continue };
            match self.judge_key(&token, group, keys, id) {
                Err(Unjudged::Another) => {}
                Err(refused @ Unjudged::Refused(_)) => return Err(refused.told()),
                Ok(proven) => return Ok(proven),
            }
        }
        Err(Unproven::refused("no enrollment has a key that signed the token", None))
    }

    fn judge_key(
        &self,
        token: &SasToken,
        enrollment: &Arc<Enrollment>,
        keys: &KeyPair<SealedKey>,
        id: &RegistrationId,
    ) -> Result<Proven, Unjudged> {
        let refused = |why: &dyn std::fmt::Display| Unjudged::Refused(Unproven::refused(why, Some(enrollment)));
        let Some(keys) = self.open_keys(keys) else {
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

    /// There is room for one more group by keys.
    pub(super) async fn check_key_groups(&self, attestation: &Attestation, id: &EnrollmentId) -> Result<(), Fault> {
        let Attestation::MasterKey(_) = attestation else { return Ok(()) };
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

    fn draw_key(&self) -> TokenKey {
        let mut bytes = Zeroizing::new([0; DRAWN_KEY_BYTES]);
        self.inner.entropy.fill(bytes.as_mut_slice());
        TokenKey::new(bytes.as_slice()).expect("it has as many bytes as a key may have")
    }
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
            Unjudged::Another => Unproven::refused("no enrollment has a key that signed the token", None),
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
