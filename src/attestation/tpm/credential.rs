//! Credentials: a secret that a TPM gives out only if it has both the endorsement key and the named object.

use zeroize::Zeroizing;

use super::crypto::Refused;
use super::draw::Draw;
use super::form::sized;
use super::keys::EndorsementKey;
use super::protect::{Purpose, protect, share};
use crate::domain::TpmName;

/// A `TPM2B_ID_OBJECT` and the `TPM2B_ENCRYPTED_SECRET` that goes with it: what `TPM2_ActivateCredential` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) id_object: Vec<u8>,
    pub(super) encrypted_secret: Vec<u8>,
}

/// Makes a credential for an object (part 1, 24). The secret is at most as long as the endorsement key's digest.
pub(super) fn make_credential(
    endorsement_key: &EndorsementKey,
    object: &TpmName,
    secret: &[u8],
    draw: &Draw,
    label: &str,
) -> Result<Credential, Refused> {
    let parent = endorsement_key.parent();
    if secret.len() > parent.hash.size() {
        return Err(Refused);
    }
    let shared = share(parent, Purpose::Identity, draw, label)?;
    let text = Zeroizing::new(sized(secret)?);
    let id_object = protect((parent.hash, parent.symmetric_size), &shared.seed, object, text)?;
    Ok(Credential { id_object: sized(&id_object)?, encrypted_secret: sized(&shared.secret)? })
}
