//! What a device does with its TPM, step by step, while it holds it.
//!
//! # The identity key outlives a crash
//!
//! Two persistent handles hold the identity key: *home* and *exchange*. A new key takes the old one's place in four steps:
//! write it to *exchange*, remove the one at *home*, write it to *home*, remove it from *exchange*. A key gets a handle only
//! after the TPM has imported and loaded it whole, so what stands at a handle is always a working key. Who looks for the
//! identity takes *exchange* before *home*. So wherever the power fails:
//!
//! - before the first step the old key stands at *home*, and is taken;
//! - after it the new key stands at *exchange*, and is taken, whatever *home* holds;
//! - after the last one it stands at *home* alone, and is taken.
//!
//! If *exchange* is taken when a key is to be exchanged, an exchange was cut off after its first step, and what stands at
//! *home* is the same or older: it goes, the new key is written to *home*, then *exchange* is freed. Until that last step
//! the key at *exchange*, the newest before, is taken. At no instant is there no key once there was one, and none of this
//! needs more than the endorsement key and the storage root key, which are derived again if they are gone: so registering
//! again always works.

use std::fmt;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::blob::{Blob, parse_credential};
use super::chip::{Chip, Hierarchy, PublicKey};
use super::fault::ChipFault;
use super::nv;
use super::settings::TpmSettings;
use super::template::{EkKind, SrkKind, attestation_key};
use crate::domain::EkHash;

/// Quotes of registers that change while they are read: a machine that is still starting measures many things in a row.
const QUOTE_TRIES_MAX: u32 = 4;

/// The endorsement key of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    pub kind: EkKind,
    /// Where it is kept, or would be.
    pub handle: u32,
    /// Whether it was there.
    pub is_persistent: bool,
    /// The whole TPM2B_PUBLIC.
    pub public: Vec<u8>,
}

impl Endorsement {
    /// What identifies the TPM.
    pub fn hash(&self) -> EkHash {
        endorsement_hash(&self.public)
    }
}

/// Over a TPM2B_PUBLIC.
pub fn endorsement_hash(public: &[u8]) -> EkHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, public).as_ref());
    EkHash(hash)
}

/// A device's quote, and what stands behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub attested: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// By register.
    pub values: Vec<(u8, Vec<u8>)>,
    /// What the credential for the attestation key held: a secret, which is shown to nobody.
    pub answer: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quote({} registers)", self.values.len())
    }
}

/// What a quote is to cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteOrder {
    pub nonce: Vec<u8>,
    pub pcrs: Vec<u8>,
    /// TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET for the attestation key.
    pub credential: Vec<u8>,
}

/// One piece of work with the TPM. What it loads is gone when it is dropped.
pub struct Session<'a> {
    chip: Chip,
    settings: &'a TpmSettings,
}

impl<'a> Session<'a> {
    pub fn new(chip: Chip, settings: &'a TpmSettings) -> Self {
        Self { chip, settings }
    }

    /// Which endorsement key, and what is at its handle.
    fn find_endorsement(&mut self) -> Result<(EkKind, u32, Option<PublicKey>), ChipFault> {
        if let Some(kind) = self.settings.endorsement {
            let handle = self.settings.endorsement_handle.unwrap_or(kind.default_handle());
            let found = self.chip.read_public(handle)?;
            return match found {
                Some(key) if key.traits.kind() != Some(kind) || !key.traits.is_storage_key() => {
                    let expected = match kind {
                        EkKind::Rsa2048 => "an RSA-2048 endorsement key",
                        EkKind::EccP256 => "a P-256 endorsement key",
                        EkKind::EccP384 => "a P-384 endorsement key",
                    };
                    Err(ChipFault::Occupied { handle, expected, found: key.traits.words() })
                }
                Some(_) | None => Ok((kind, handle, found)),
            };
        }
        let places = match self.settings.endorsement_handle {
            Some(handle) => vec![handle],
            None => EkKind::ALL.map(EkKind::default_handle).to_vec(),
        };
        for handle in &places {
            if let Some(key) = self.chip.read_public(*handle)? {
                return match key.traits.kind() {
                    Some(kind) if key.traits.is_storage_key() => Ok((kind, *handle, Some(key))),
                    Some(_) | None => Err(ChipFault::Occupied {
                        handle: *handle,
                        expected: "an endorsement key",
                        found: key.traits.words(),
                    }),
                };
            }
        }
        let handle = places.first().copied().unwrap_or(EkKind::Rsa2048.default_handle());
        Ok((EkKind::Rsa2048, handle, None))
    }

    /// The endorsement key as it is, or as it would be made. Changes nothing in the TPM.
    pub fn look_at_endorsement(&mut self) -> Result<Endorsement, ChipFault> {
        let (kind, handle, found) = self.find_endorsement()?;
        let is_persistent = found.is_some();
        let key = match found {
            Some(key) => key,
            None => self.derive_endorsement(kind)?.1,
        };
        Ok(Endorsement { kind, handle, is_persistent, public: key.public })
    }

    fn derive_endorsement(&mut self, kind: EkKind) -> Result<(u32, PublicKey), ChipFault> {
        let template = nv::endorsement_template(&mut self.chip, kind)?;
        self.chip.create_primary(Hierarchy::Endorsement, template.finished("an endorsement key's template")?)
    }

    /// The endorsement key at its handle, made where there is none.
    pub fn endorsement(&mut self) -> Result<(EkKind, u32, PublicKey), ChipFault> {
        let (kind, handle, found) = self.find_endorsement()?;
        if let Some(key) = found {
            return Ok((kind, handle, key));
        }
        let (loaded, key) = self.derive_endorsement(kind)?;
        self.chip.persist(loaded, handle)?;
        self.chip.flush(loaded)?;
        Ok((kind, handle, key))
    }

    pub fn certificates(&mut self, kind: EkKind) -> Result<Vec<Vec<u8>>, ChipFault> {
        nv::certificates(&mut self.chip, kind)
    }

    /// The storage root key at its handle, made where there is none.
    pub fn storage_root(&mut self, endorsement: EkKind) -> Result<PublicKey, ChipFault> {
        let handle = self.settings.storage_root_handle;
        match self.chip.read_public(handle)? {
            Some(key) if key.traits.is_storage_key() => Ok(key),
            Some(key) => Err(ChipFault::Occupied { handle, expected: "a storage root key", found: key.traits.words() }),
            None => {
                let fitting = match endorsement {
                    EkKind::Rsa2048 => SrkKind::Rsa2048,
                    EkKind::EccP256 | EkKind::EccP384 => SrkKind::EccP256,
                };
                let template = self.settings.storage_root.unwrap_or(fitting).template();
                let template = template.finished("a storage root key's template")?;
                let (loaded, key) = self.chip.create_primary(Hierarchy::Owner, template)?;
                self.chip.persist(loaded, handle)?;
                self.chip.flush(loaded)?;
                Ok(key)
            }
        }
    }

    /// The attestation key, loaded; it is derived anew every time, and is always the same.
    pub fn attestation_key(&mut self) -> Result<(u32, PublicKey), ChipFault> {
        let template = attestation_key();
        self.chip.create_primary(Hierarchy::Endorsement, template.finished("an attestation key's template")?)
    }

    /// The key in a blob, loaded.
    fn open(&mut self, blob: &[u8]) -> Result<u32, ChipFault> {
        let blob = Blob::parse(blob)?;
        let (kind, endorsement, key) = self.endorsement()?;
        self.storage_root(kind)?;
        let storage_root = self.settings.storage_root_handle;
        let inner_key =
            self.chip.activate(storage_root, endorsement, key.traits, blob.id_object, blob.credential_seed)?;
        let private = self.chip.import(storage_root, &inner_key, blob.public, blob.duplicate, blob.import_seed)?;
        self.chip.load(storage_root, &private, blob.public)
    }

    /// Signs with the key in a blob, which is gone afterwards.
    pub fn sign_with(&mut self, blob: &[u8], message: &[u8]) -> Result<Vec<u8>, ChipFault> {
        let key = self.open(blob)?;
        let signature = self.chip.hmac(key, message)?;
        self.chip.flush(key)?;
        Ok(signature)
    }

    /// Proves that the attestation key lives beside the endorsement key, and quotes with it.
    pub fn quote(&mut self, order: &QuoteOrder) -> Result<Quote, ChipFault> {
        let (id_object, secret) = parse_credential(&order.credential)?;
        let (_, endorsement, endorsement_key) = self.endorsement()?;
        let (key, _) = self.attestation_key()?;
        let answer = self.chip.activate(key, endorsement, endorsement_key.traits, id_object, secret)?;
        let answer = Zeroizing::new(answer.to_vec());
        let mut values = self.pcrs(&order.pcrs)?;
        let mut tries = 0;
        let (attested, signature) = loop {
            let selection = Chip::selection(order.pcrs.iter().copied())?;
            let quoted = self.chip.quote(key, &order.nonce, selection.finished("a PCR selection")?)?;
            // Registers never go back to what they held: equal before and after is equal in between.
            let after = self.pcrs(&order.pcrs)?;
            tries += 1;
            if after == values || tries == QUOTE_TRIES_MAX {
                values = after;
                break quoted;
            }
            values = after;
        };
        self.chip.flush(key)?;
        Ok(Quote { attested, signature, values, answer })
    }

    /// The values of registers of the SHA-256 bank, in rising order.
    pub fn pcrs(&mut self, wanted: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, ChipFault> {
        let mut left = wanted.to_vec();
        left.sort_unstable();
        left.dedup();
        let mut values = Vec::new();
        while let Some(first) = left.first().copied() {
            let selection = Chip::selection(left.iter().copied())?;
            let (bitmap, digests) = self.chip.read_pcrs(selection.finished("a PCR selection")?)?;
            let has = |index: u8| bitmap.get(usize::from(index / 8)).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
            let read: Vec<u8> = left.iter().copied().filter(|index| has(*index)).collect();
            if read.is_empty() || read.len() != digests.len() {
                return Err(ChipFault::PcrNotInBank { bank: "sha256", index: first });
            }
            left.retain(|index| !read.contains(index));
            values.extend(read.into_iter().zip(digests));
        }
        values.sort_unstable();
        Ok(values)
    }

    /// Where the identity key stands, the newest first.
    fn identity(&mut self) -> Result<Option<u32>, ChipFault> {
        let expected = "an identity key";
        for handle in [self.settings.exchange_handle, self.settings.identity_handle] {
            match self.chip.read_public(handle)? {
                Some(key) if key.traits.is_hmac_key() => return Ok(Some(handle)),
                Some(key) => return Err(ChipFault::Occupied { handle, expected, found: key.traits.words() }),
                None => {}
            }
        }
        Ok(None)
    }

    pub fn has_identity(&mut self) -> Result<bool, ChipFault> {
        Ok(self.identity()?.is_some())
    }

    /// Makes the key in a blob the identity key. The old one stays until the new one is whole (see above).
    pub fn keep(&mut self, blob: &[u8]) -> Result<(), ChipFault> {
        let (home, exchange) = (self.settings.identity_handle, self.settings.exchange_handle);
        // Also sees to it that neither handle holds something that is not ours to remove.
        let current = self.identity()?;
        if current == Some(exchange) {
            self.check_is_ours(home)?;
        }
        let key = self.open(blob)?;
        if current == Some(exchange) {
            self.chip.evict(home)?;
            self.chip.persist(key, home)?;
        } else {
            self.chip.persist(key, exchange)?;
            self.chip.evict(home)?;
            self.chip.persist(key, home)?;
        }
        self.chip.evict(exchange)?;
        self.chip.flush(key)
    }

    fn check_is_ours(&mut self, handle: u32) -> Result<(), ChipFault> {
        match self.chip.read_public(handle)? {
            Some(key) if !key.traits.is_hmac_key() => {
                Err(ChipFault::Occupied { handle, expected: "an identity key", found: key.traits.words() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// HMAC-SHA256 by the identity key.
    pub fn sign(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChipFault> {
        match self.identity()? {
            Some(handle) => Ok(Zeroizing::new(self.chip.hmac(handle, message)?)),
            None => Err(ChipFault::NoIdentity { handle: self.settings.identity_handle }),
        }
    }
}
