//! A TPM as asynchronous code uses it: whole pieces of work, each on a thread of its own, one at a time.
//!
//! A piece of work that was begun runs to its end and cleans up, also when nobody waits for it any more.

use std::fmt;
use std::sync::Arc;
use std::thread;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, oneshot};

use super::chip::Chip;
use super::fault::ChipFault;
use super::link::Link;
use super::session::{Endorsement, Quote, QuoteOrder, Session};
use super::settings::TpmSettings;

/// The public keys that a device shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmKeys {
    /// TPM2B_PUBLIC.
    pub endorsement_key: Vec<u8>,
    /// TPM2B_PUBLIC.
    pub storage_root_key: Vec<u8>,
    /// Of the endorsement key and those above it, DER, leaf first; empty where the TPM has none.
    pub certificates: Vec<Vec<u8>>,
}

/// What can be said of a TPM without changing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmSummary {
    pub endorsement: Endorsement,
    /// As in [`TpmKeys`].
    pub certificates: Vec<Vec<u8>>,
    /// Whether a hub's credential came through it.
    pub has_identity: bool,
}

/// What registering and signing in need of a TPM.
pub trait SecurityModule: fmt::Debug + Send + Sync + 'static {
    /// The keys, made where they are missing.
    fn keys(&self) -> BoxFuture<'_, Result<TpmKeys, ChipFault>>;

    /// TPM2B_PUBLIC of the attestation key, the same every time.
    fn attestation_key(&self) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>>;

    /// Signs a message with the key that a blob holds, and forgets it.
    fn sign_with(&self, blob: Vec<u8>, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>>;

    /// A quote by the attestation key.
    fn quote(&self, order: QuoteOrder) -> BoxFuture<'_, Result<Quote, ChipFault>>;

    /// Makes the key that a blob holds the identity key. The one before is usable until then.
    fn keep(&self, blob: Vec<u8>) -> BoxFuture<'_, Result<(), ChipFault>>;

    /// Signs with the identity key.
    fn sign(&self, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>>;
}

/// A TPM at an address. Cheap to clone; clones take turns.
///
/// It is opened for a piece of work and closed after it, so that other programs have it in between.
#[derive(Debug, Clone)]
pub struct Tpm {
    settings: Arc<TpmSettings>,
    turn: Arc<Mutex<()>>,
}

impl Tpm {
    pub fn new(settings: TpmSettings) -> Self {
        Self { settings: Arc::new(settings), turn: Arc::default() }
    }

    pub fn settings(&self) -> &TpmSettings {
        &self.settings
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, ChipFault> + Send + 'static,
    ) -> Result<T, ChipFault> {
        let turn = self.turn.clone().lock_owned().await;
        let settings = self.settings.clone();
        let (report, reported) = oneshot::channel();
        let name = "tpm".to_owned();
        let spawned = thread::Builder::new().name(name).spawn(move || {
            let outcome = Link::open(&settings.address, settings.answer_within).and_then(|link| {
                let chip = Chip::new(link, settings.owner_auth.clone(), settings.endorsement_auth.clone());
                work(&mut Session::new(chip, &settings))
            });
            // The chip is closed: the next may have its turn, before it hears of it.
            drop(turn);
            // Nobody may be waiting any more.
            let _ = report.send(outcome);
        });
        spawned.map_err(|_| ChipFault::Stopped)?;
        reported.await.map_err(|_| ChipFault::Stopped)?
    }

    /// What can be said of the TPM without changing it.
    pub async fn summary(&self) -> Result<TpmSummary, ChipFault> {
        self.run(|session| {
            let endorsement = session.look_at_endorsement()?;
            let certificates = session.certificates(endorsement.kind)?;
            Ok(TpmSummary { endorsement, certificates, has_identity: session.has_identity()? })
        })
        .await
    }

    /// Values of registers of the SHA-256 bank.
    pub async fn pcrs(&self, wanted: Vec<u8>) -> Result<Vec<(u8, Vec<u8>)>, ChipFault> {
        self.run(move |session| session.pcrs(&wanted)).await
    }
}

impl SecurityModule for Tpm {
    fn keys(&self) -> BoxFuture<'_, Result<TpmKeys, ChipFault>> {
        Box::pin(self.run(|session| {
            let (kind, _, endorsement) = session.endorsement()?;
            let storage_root = session.storage_root(kind)?;
            let certificates = session.certificates(kind)?;
            Ok(TpmKeys { endorsement_key: endorsement.public, storage_root_key: storage_root.public, certificates })
        }))
    }

    fn attestation_key(&self) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        Box::pin(self.run(|session| Ok(session.attestation_key()?.1.public)))
    }

    fn sign_with(&self, blob: Vec<u8>, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        Box::pin(self.run(move |session| session.sign_with(&blob, &message)))
    }

    fn quote(&self, order: QuoteOrder) -> BoxFuture<'_, Result<Quote, ChipFault>> {
        Box::pin(self.run(move |session| session.quote(&order)))
    }

    fn keep(&self, blob: Vec<u8>) -> BoxFuture<'_, Result<(), ChipFault>> {
        Box::pin(self.run(move |session| session.keep(&blob)))
    }

    fn sign(&self, message: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, ChipFault>> {
        Box::pin(self.run(move |session| Ok(session.sign(&message)?.to_vec())))
    }
}
