//! How a device proves who it is where no certificate does it: by tokens that its TPM or its symmetric key signs.
//!
//! Of a device with a TPM, a token to the service answers a challenge: what signs it is a key that only this TPM could
//! unwrap, and that is gone afterwards. To a hub it is signed by the identity key, which came wrapped with the assignment.
//! A symmetric key signs both.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::device::Device;
use super::fault::ClientFault;
use super::tpm::{ChipFault, QuoteOrder, SecurityModule, TpmKeys};
use crate::ambient::Clock;
use crate::domain::token::{hub_resource, registration_resource};
use crate::domain::{DeviceId, RegistrationId, Timestamp, TokenKey, UnsignedToken, limits};
use crate::wire::convert::field::required_time;
use crate::wire::device::v1;

/// The metadata that carries a token.
const AUTHORIZATION: &str = "authorization";
/// What tokens for registrations call their key.
const KEY_NAME: &str = "registration";
/// The scope that the service's registrations stand below.
const SCOPE: &str = "rehome";
/// How long a token to the service lasts from then on: half as long as it may, so that a clock may be wrong by as much either way.
const TOKEN_GOOD_FOR: Duration = Duration::from_secs(limits::TOKEN_LIFETIME_MAX.as_secs() / 2);
/// A hub's token lasts half as long as it may, and is replaced when half of that is over: a stream that ends with its token
/// ends seldom, and no token runs out on its way.
const HUB_TOKEN_GOOD_FOR: Duration = Duration::from_secs(limits::HUB_TOKEN_LIFETIME_MAX.as_secs() / 2);
const RENEW_WITHIN: Duration = Duration::from_secs(HUB_TOKEN_GOOD_FOR.as_secs() / 2);

/// What proves a device, and what is remembered of its last proof. Clones share it.
#[derive(Clone)]
pub(super) struct Prover {
    signer: Signer,
    memory: Arc<Memory>,
}

#[derive(Debug, Clone)]
enum Signer {
    Tpm(Arc<dyn SecurityModule>),
    Key(TokenKey),
}

#[derive(Default)]
struct Memory {
    /// Reads of the last operation are good with it until it ends.
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// How far the service's clock is ahead of ours.
    ahead_ms: AtomicI64,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prover({:?})", self.signer)
    }
}

/// A token, and with it the answer to a challenge where there was one: then it is good for one registration, its repeats,
/// and reads of it.
#[derive(Clone)]
pub(super) struct Proof {
    token: MetadataValue<Ascii>,
    evidence: Option<v1::TpmEvidence>,
}

impl Proof {
    /// The call with the proof in it.
    pub fn register(&self, mut message: v1::RegisterRequest) -> Request<v1::RegisterRequest> {
        message.tpm.clone_from(&self.evidence);
        with_token(message, &self.token)
    }

    pub fn start(&self, mut message: v1::StartRegistrationRequest) -> Request<v1::StartRegistrationRequest> {
        message.tpm.clone_from(&self.evidence);
        with_token(message, &self.token)
    }
}

fn with_token<T>(message: T, token: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(AUTHORIZATION, token.clone());
    request
}

fn token_value(text: &str) -> Result<MetadataValue<Ascii>, ChipFault> {
    let mut value: MetadataValue<Ascii> =
        text.parse().map_err(|_| ChipFault::Answer { why: "its signature makes no token" })?;
    value.set_sensitive(true);
    Ok(value)
}

fn signature(bytes: &[u8]) -> Result<[u8; 32], ChipFault> {
    bytes.try_into().map_err(|_| ChipFault::Answer { why: "a signature is not one of HMAC-SHA256" })
}

impl Prover {
    pub fn by_tpm(module: Arc<dyn SecurityModule>) -> Self {
        Self { signer: Signer::Tpm(module), memory: Arc::default() }
    }

    pub fn by_key(key: TokenKey) -> Self {
        Self { signer: Signer::Key(key), memory: Arc::default() }
    }

    /// A new proof.
    pub async fn prove(&self, device: &Device) -> Result<Proof, ClientFault> {
        match &self.signer {
            Signer::Tpm(module) => self.answer(module.as_ref(), device).await,
            Signer::Key(key) => Ok(Proof { token: registration_token(key, device)?, evidence: None }),
        }
    }

    /// Keeps what came with an assignment.
    pub async fn keep(&self, credential: v1::TpmCredential) -> Result<(), ClientFault> {
        match &self.signer {
            Signer::Tpm(module) => Ok(module.keep(credential.authentication_key).await?),
            // It is not for a device with a key.
            Signer::Key(_) => Ok(()),
        }
    }

    /// Asks for a challenge and answers it.
    async fn answer(&self, module: &dyn SecurityModule, device: &Device) -> Result<Proof, ClientFault> {
        let keys = module.keys().await?;
        let mut challenge = begin(device, &keys, Vec::new()).await?;
        if challenge.quote.as_ref().is_some_and(|quote| quote.credential.is_empty()) {
            // It is only now that the device knows of the enrollment's wish.
            challenge = begin(device, &keys, module.attestation_key().await?).await?;
        }
        // A challenge is open for a fixed time: its end tells what time it is at the service, whatever our clock says.
        let expires_at = required_time("expires_at", challenge.expires_at.as_ref())?;
        let service_now = Timestamp(expires_at.0.saturating_sub(millis(limits::CHALLENGE_TTL)));
        let ahead_ms = service_now.0.saturating_sub(device.clock.now().0);
        self.memory.ahead_ms.store(ahead_ms, Ordering::Relaxed);

        let quote = match challenge.quote {
            Some(quote) => Some(quote_for(module, quote).await?),
            None => None,
        };
        let unsigned = UnsignedToken::new(&registration_resource(SCOPE, &device.id), service_now.plus(TOKEN_GOOD_FOR));
        let message = unsigned.text().into_bytes();
        let signed = module.sign_with(challenge.authentication_key, message).await?;
        let token = token_value(&unsigned.signed(&signature(&signed)?, Some(&challenge.key_name)))?;
        *self.memory.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        let evidence = v1::TpmEvidence { challenge_id: challenge.challenge_id, quote };
        Ok(Proof { token, evidence: Some(evidence) })
    }

    /// A read of the device's own record.
    pub fn read<T>(&self, message: T, device: &Device) -> Result<Request<T>, ClientFault> {
        match &self.signer {
            Signer::Key(key) => Ok(with_token(message, &registration_token(key, device)?)),
            Signer::Tpm(_) => Ok(match &*self.memory.token.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(token) => with_token(message, token),
                None => Request::new(message),
            }),
        }
    }

    /// Signs with what the hub knows the device by.
    async fn sign(&self, text: &str) -> Result<[u8; 32], ClientFault> {
        match &self.signer {
            Signer::Tpm(module) => Ok(signature(&module.sign(text.as_bytes().to_vec()).await?)?),
            Signer::Key(key) => Ok(hmac_sha256(key, text)),
        }
    }

    /// What lets the device in at a hub.
    pub fn pass(&self, host_name: &str, device: &DeviceId, clock: Arc<dyn Clock>) -> Pass {
        Pass { prover: self.clone(), resource: hub_resource(host_name, device), clock, last: Arc::default() }
    }
}

async fn quote_for(module: &dyn SecurityModule, wanted: v1::TpmQuoteChallenge) -> Result<v1::TpmQuote, ClientFault> {
    let pcr = |index: u32| u8::try_from(index).map_err(|_| ChipFault::NoSuchPcr { index: u8::MAX });
    let pcrs = wanted.pcrs.into_iter().map(pcr).collect::<Result<_, _>>()?;
    let order = QuoteOrder { nonce: wanted.nonce.clone(), pcrs, credential: wanted.credential };
    let quote = module.quote(order).await?;
    // Who found the secret proves it for this challenge, and shows it to nobody.
    let key_proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &quote.answer), &wanted.nonce);
    let value = |(index, digest): (u8, Vec<u8>)| v1::PcrValue { index: index.into(), digest };
    Ok(v1::TpmQuote {
        attested: quote.attested,
        signature: quote.signature,
        values: quote.values.into_iter().map(value).collect(),
        key_proof: key_proof.as_ref().to_vec(),
    })
}

async fn begin(
    device: &Device,
    keys: &TpmKeys,
    attestation_key: Vec<u8>,
) -> Result<v1::BeginTpmAttestationResponse, ClientFault> {
    let request = v1::BeginTpmAttestationRequest {
        registration_id: device.id.to_string(),
        endorsement_key: keys.endorsement_key.clone(),
        storage_root_key: keys.storage_root_key.clone(),
        endorsement_certificates: keys.certificates.clone(),
        attestation_key,
    };
    Ok(device.service.clone().begin_tpm_attestation(request).await?.into_inner())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Tokens for one hub, signed as they are needed. Clones share them.
#[derive(Clone)]
pub(super) struct Pass {
    prover: Prover,
    resource: String,
    clock: Arc<dyn Clock>,
    last: Arc<tokio::sync::Mutex<Option<Signed>>>,
}

/// A token, and when it ends by our clock.
struct Signed {
    token: MetadataValue<Ascii>,
    ends_at: Timestamp,
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pass({})", self.resource)
    }
}

impl Pass {
    /// A call with a token that is good for a while.
    pub async fn show<T>(&self, message: T) -> Result<Request<T>, ClientFault> {
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        if let Some(signed) = &*last
            && signed.ends_at > now.plus(RENEW_WITHIN)
        {
            return Ok(with_token(message, &signed.token));
        }
        let ahead_ms = self.prover.memory.ahead_ms.load(Ordering::Relaxed);
        let ends_at = now.plus(HUB_TOKEN_GOOD_FOR);
        let unsigned = UnsignedToken::new(&self.resource, Timestamp(ends_at.0.saturating_add(ahead_ms)));
        let token = token_value(&unsigned.signed(&self.prover.sign(&unsigned.text()).await?, None))?;
        *last = Some(Signed { token: token.clone(), ends_at });
        Ok(with_token(message, &token))
    }
}

/// A token for the service, by our clock: nobody has told us its time.
fn registration_token(key: &TokenKey, device: &Device) -> Result<MetadataValue<Ascii>, ClientFault> {
    let resource = registration_resource(SCOPE, &device.id);
    let unsigned = UnsignedToken::new(&resource, device.clock.now().plus(TOKEN_GOOD_FOR));
    Ok(token_value(&unsigned.signed(&hmac_sha256(key, &unsigned.text()), Some(KEY_NAME)))?)
}

fn hmac_sha256(key: &TokenKey, text: &str) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret()), text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// The key of a group's device: HMAC-SHA256 of its registration id, as it is written, under the group's key.
pub fn device_key(master: &TokenKey, id: &str) -> TokenKey {
    TokenKey::new(&hmac_sha256(master, id)).expect("a key may have 32 bytes")
}

/// The registration id of a device whose enrollment names no other: it follows from the endorsement key.
pub fn registration_id_of(keys: &TpmKeys) -> RegistrationId {
    super::tpm::endorsement_hash(&keys.endorsement_key).registration_id()
}
