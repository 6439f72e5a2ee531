//! The commands of a TPM that are used here, and the one owner of everything they load.
//!
//! A TPM has a handful of slots. What a command loads is written down before anything else can fail, and all of it is
//! flushed when the chip is dropped: after success, after an error, after a panic.

use std::thread;
use std::time::Duration;

use tpm2_protocol::data::{TpmAlgId, TpmCap, TpmCc, TpmPt, TpmRcBase, TpmRh, TpmSe};
use zeroize::Zeroizing;

use super::fault::ChipFault;
use super::frame::{Answer, Authorization, Bytes, Command, name};
use super::link::Link;
use super::settings::AuthValue;
use super::template::Traits;

/// How often a TPM that says "once more" is asked again, with pauses that double: three seconds in all.
const REPEATS_MAX: u32 = 8;
const REPEAT_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// What every TPM takes in one HMAC command, if it does not say.
const INPUT_BUFFER_MIN: u32 = 1024;
/// No authorization: an empty password.
const NO_PASSWORD: Authorization<'static> = Authorization::Password(&[]);

/// A public area as the TPM gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The whole TPM2B_PUBLIC.
    pub public: Vec<u8>,
    pub traits: Traits,
}

impl PublicKey {
    fn parse(public: &[u8]) -> Result<Self, ChipFault> {
        Ok(Self { public: public.to_vec(), traits: Traits::of(public)? })
    }
}

/// A hierarchy that primary keys are derived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    Owner,
    Endorsement,
}

/// An open TPM, and what is loaded in it.
pub struct Chip {
    link: Link,
    owner_auth: AuthValue,
    endorsement_auth: AuthValue,
    /// Objects, sequences and sessions, in the order they came.
    loaded: Vec<u32>,
}

impl Chip {
    pub fn new(link: Link, owner_auth: AuthValue, endorsement_auth: AuthValue) -> Self {
        Self { link, owner_auth, endorsement_auth, loaded: Vec::new() }
    }

    fn execute(&mut self, command: &Command) -> Result<Answer, ChipFault> {
        let label = name(command.code());
        let frame = command.frame()?;
        let mut pause = REPEAT_PAUSE_FIRST;
        for tries in 0.. {
            let answer = self.link.exchange(frame.finished(label)?)?;
            match Answer::parse(answer)? {
                Ok(answer) => return Ok(answer),
                Err(code) if code.asks_again() && tries < REPEATS_MAX => {
                    thread::sleep(pause);
                    pause *= 2;
                }
                Err(code) => return Err(ChipFault::Refused { command: label, code }),
            }
        }
        Err(ChipFault::Stopped)
    }

    /// Writes down what a command loaded.
    fn keep(&mut self, handle: u32) -> u32 {
        self.loaded.push(handle);
        handle
    }

    fn forget(&mut self, handle: u32) {
        self.loaded.retain(|loaded| *loaded != handle);
    }

    pub fn flush(&mut self, handle: u32) -> Result<(), ChipFault> {
        self.forget(handle);
        let flush = Command::new(TpmCc::FlushContext, &[], &[]).with(|parameters| {
            parameters.u32(handle);
        });
        self.execute(&flush).map(|_| ())
    }

    /// The key at a handle; `None` where there is none.
    pub fn read_public(&mut self, handle: u32) -> Result<Option<PublicKey>, ChipFault> {
        match self.execute(&Command::new(TpmCc::ReadPublic, &[handle], &[])) {
            Ok(answer) => Ok(Some(PublicKey::parse(answer.parameters()?.whole()?)?)),
            Err(fault) if fault.code() == Some(TpmRcBase::Handle) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Derives a key, loaded.
    pub fn create_primary(&mut self, hierarchy: Hierarchy, template: &[u8]) -> Result<(u32, PublicKey), ChipFault> {
        let (handle, auth) = match hierarchy {
            Hierarchy::Owner => (TpmRh::Owner, self.owner_auth.as_bytes()),
            Hierarchy::Endorsement => (TpmRh::Endorsement, self.endorsement_auth.as_bytes()),
        };
        let auths = [Authorization::Password(auth)];
        let create = Command::new(TpmCc::CreatePrimary, &[handle as u32], &auths).with(|parameters| {
            // An empty TPMS_SENSITIVE_CREATE, the template, no outside info, no creation PCRs.
            parameters.sized(&[0; 4]).sized(template).sized(&[]).u32(0);
        });
        let answer = self.execute(&create)?;
        let (handle, mut parameters) = answer.handle_and_parameters()?;
        let handle = self.keep(handle);
        Ok((handle, PublicKey::parse(parameters.whole()?)?))
    }

    /// Makes a loaded key stay at a persistent handle. It stays loaded, too.
    pub fn persist(&mut self, loaded: u32, persistent: u32) -> Result<(), ChipFault> {
        self.evict_control(loaded, persistent)
    }

    /// Removes a persistent key; whether there was one.
    pub fn evict(&mut self, persistent: u32) -> Result<bool, ChipFault> {
        match self.evict_control(persistent, persistent) {
            Ok(()) => Ok(true),
            Err(fault) if fault.code() == Some(TpmRcBase::Handle) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn evict_control(&mut self, object: u32, persistent: u32) -> Result<(), ChipFault> {
        let handles = [TpmRh::Owner as u32, object];
        let auths = [Authorization::Password(self.owner_auth.as_bytes())];
        let evict = Command::new(TpmCc::EvictControl, &handles, &auths).with(|parameters| {
            parameters.u32(persistent);
        });
        self.execute(&evict).map(|_| ())
    }

    /// A session that satisfies the policy of low-range endorsement keys: whoever holds it knows the endorsement password.
    fn endorsement_session(&mut self) -> Result<u32, ChipFault> {
        // It authorises by policy alone: no HMAC is ever made over the nonces, so nothing hangs on what ours is.
        let nonce = [0; 16];
        let none = TpmRh::Null as u32;
        let start = Command::new(TpmCc::StartAuthSession, &[none, none], &[]).with(|parameters| {
            parameters.sized(&nonce).sized(&[]).u8(TpmSe::Policy as u8);
            parameters.u16(TpmAlgId::Null as u16).u16(TpmAlgId::Sha256 as u16);
        });
        let (session, _) = self.execute(&start)?.handle_and_parameters()?;
        let session = self.keep(session);
        let handles = [TpmRh::Endorsement as u32, session];
        let auths = [Authorization::Password(self.endorsement_auth.as_bytes())];
        let secret = Command::new(TpmCc::PolicySecret, &handles, &auths).with(|parameters| {
            // No nonce, no command, no reference, no expiration.
            parameters.sized(&[]).sized(&[]).sized(&[]).u32(0);
        });
        self.execute(&secret)?;
        Ok(session)
    }

    /// What a credential for `object` holds, opened by the endorsement key. The object's use needs no password.
    pub fn activate(
        &mut self,
        object: u32,
        endorsement: u32,
        traits: Traits,
        id_object: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, ChipFault> {
        let session = if traits.takes_password() { None } else { Some(self.endorsement_session()?) };
        let endorsement_use = session.map_or(NO_PASSWORD, Authorization::Policy);
        let (handles, auths) = ([object, endorsement], [NO_PASSWORD, endorsement_use]);
        let activate = Command::new(TpmCc::ActivateCredential, &handles, &auths).with(|parameters| {
            parameters.raw(id_object).raw(secret);
        });
        let answer = self.execute(&activate)?;
        if let Some(session) = session {
            // The session was not to be continued: the TPM has closed it.
            self.forget(session);
        }
        Ok(Zeroizing::new(answer.parameters()?.sized()?.to_vec()))
    }

    /// Takes a wrapped key under a parent; the answer is what [`load`](Self::load) takes, bound to this TPM.
    ///
    /// `public`, `duplicate` and `seed` come with their sizes.
    pub fn import(
        &mut self,
        parent: u32,
        inner_key: &[u8],
        public: &[u8],
        duplicate: &[u8],
        seed: &[u8],
    ) -> Result<Vec<u8>, ChipFault> {
        let import = Command::new(TpmCc::Import, &[parent], &[NO_PASSWORD]).with(|parameters| {
            parameters.sized(inner_key).raw(public).raw(duplicate).raw(seed);
            parameters.u16(TpmAlgId::Aes as u16).u16(128).u16(TpmAlgId::Cfb as u16);
        });
        Ok(self.execute(&import)?.parameters()?.whole()?.to_vec())
    }

    pub fn load(&mut self, parent: u32, private: &[u8], public: &[u8]) -> Result<u32, ChipFault> {
        let load = Command::new(TpmCc::Load, &[parent], &[NO_PASSWORD]).with(|parameters| {
            parameters.raw(private).raw(public);
        });
        let (handle, _) = self.execute(&load)?.handle_and_parameters()?;
        Ok(self.keep(handle))
    }

    /// HMAC-SHA256 of a message of any length.
    pub fn hmac(&mut self, key: u32, message: &[u8]) -> Result<Vec<u8>, ChipFault> {
        let part =
            usize::try_from(self.property(TpmPt::InputBuffer)?.unwrap_or(INPUT_BUFFER_MIN)).unwrap_or(usize::MAX);
        // Whatever the TPM says, a part must fit a frame.
        let part = part.clamp(1, INPUT_BUFFER_MIN as usize);
        if message.len() <= part {
            let hmac = Command::new(TpmCc::Hmac, &[key], &[NO_PASSWORD]).with(|parameters| {
                parameters.sized(message).u16(TpmAlgId::Sha256 as u16);
            });
            return Ok(self.execute(&hmac)?.parameters()?.sized()?.to_vec());
        }
        let start = Command::new(TpmCc::HmacStart, &[key], &[NO_PASSWORD]).with(|parameters| {
            parameters.sized(&[]).u16(TpmAlgId::Sha256 as u16);
        });
        let (sequence, _) = self.execute(&start)?.handle_and_parameters()?;
        let sequence = self.keep(sequence);
        for part in message.chunks(part) {
            let update = Command::new(TpmCc::SequenceUpdate, &[sequence], &[NO_PASSWORD]).with(|parameters| {
                parameters.sized(part);
            });
            self.execute(&update)?;
        }
        let complete = Command::new(TpmCc::SequenceComplete, &[sequence], &[NO_PASSWORD]).with(|parameters| {
            parameters.sized(&[]).u32(TpmRh::Null as u32);
        });
        let answer = self.execute(&complete)?;
        // The TPM has closed the sequence.
        self.forget(sequence);
        Ok(answer.parameters()?.sized()?.to_vec())
    }

    /// What the TPM says of a set of PCRs: TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn quote(&mut self, key: u32, nonce: &[u8], selection: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ChipFault> {
        let quote = Command::new(TpmCc::Quote, &[key], &[NO_PASSWORD]).with(|parameters| {
            // The key's own scheme.
            parameters.sized(nonce).u16(TpmAlgId::Null as u16).raw(selection);
        });
        let answer = self.execute(&quote)?;
        let mut parameters = answer.parameters()?;
        Ok((parameters.sized()?.to_vec(), parameters.0.to_vec()))
    }

    /// Reads PCRs; the TPM answers as many as it likes of those that were asked for: which, and their values.
    pub fn read_pcrs(&mut self, selection: &[u8]) -> Result<(Vec<u8>, Vec<Vec<u8>>), ChipFault> {
        let read = Command::new(TpmCc::PcrRead, &[], &[]).with(|parameters| {
            parameters.raw(selection);
        });
        let answer = self.execute(&read)?;
        let mut parameters = answer.parameters()?;
        parameters.u32()?;
        let mut bitmap = Vec::new();
        for _ in 0..parameters.u32()? {
            parameters.u16()?;
            let length = parameters.u8()?;
            bitmap.extend_from_slice(parameters.cut(usize::from(length))?);
        }
        let mut values = Vec::new();
        for _ in 0..parameters.u32()? {
            values.push(parameters.sized()?.to_vec());
        }
        Ok((bitmap, values))
    }

    /// Size and attributes of a non-volatile index; `None` where there is none.
    pub fn nv_public(&mut self, index: u32) -> Result<Option<(u16, u32)>, ChipFault> {
        let answer = match self.execute(&Command::new(TpmCc::NvReadPublic, &[index], &[])) {
            Ok(answer) => answer,
            Err(fault) if fault.code() == Some(TpmRcBase::Handle) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let mut parameters = answer.parameters()?;
        let mut public = super::frame::Reader(parameters.sized()?);
        public.u32()?;
        public.u16()?;
        let attributes = public.u32()?;
        public.sized()?;
        Ok(Some((public.u16()?, attributes)))
    }

    /// A part of a non-volatile index, read by the owner or by the index's own empty password.
    pub fn nv_read(&mut self, index: u32, by_owner: bool, from: u16, length: u16) -> Result<Vec<u8>, ChipFault> {
        let (who, auth) = if by_owner {
            (TpmRh::Owner as u32, Authorization::Password(self.owner_auth.as_bytes()))
        } else {
            (index, NO_PASSWORD)
        };
        let read = Command::new(TpmCc::NvRead, &[who, index], &[auth]).with(|parameters| {
            parameters.u16(length).u16(from);
        });
        Ok(self.execute(&read)?.parameters()?.sized()?.to_vec())
    }

    /// The first of the handles that exist from this one on, at most `most`.
    pub fn handles(&mut self, from: u32, most: u32) -> Result<Vec<u32>, ChipFault> {
        let answer = self.capability(TpmCap::Handles, from, most)?;
        let mut list = answer.parameters()?;
        list.u8()?;
        list.u32()?;
        (0..list.u32()?).map(|_| list.u32()).collect()
    }

    /// A property of the TPM; `None` where it has none of that name.
    pub fn property(&mut self, property: TpmPt) -> Result<Option<u32>, ChipFault> {
        let answer = self.capability(TpmCap::TpmProperties, property as u32, 1)?;
        let mut list = answer.parameters()?;
        list.u8()?;
        list.u32()?;
        if list.u32()? == 0 {
            return Ok(None);
        }
        let (found, value) = (list.u32()?, list.u32()?);
        Ok((found == property as u32).then_some(value))
    }

    fn capability(&mut self, capability: TpmCap, from: u32, most: u32) -> Result<Answer, ChipFault> {
        self.execute(&Command::new(TpmCc::GetCapability, &[], &[]).with(|parameters| {
            parameters.u32(capability as u32).u32(from).u32(most);
        }))
    }

    /// A PCR selection of the SHA-256 bank.
    pub fn selection(pcrs: impl IntoIterator<Item = u8>) -> Result<Bytes, ChipFault> {
        let mut bitmap = [0_u8; 3];
        for index in pcrs {
            let byte = bitmap.get_mut(usize::from(index / 8)).ok_or(ChipFault::NoSuchPcr { index })?;
            *byte |= 1 << (index % 8);
        }
        let mut selection = Bytes::new();
        selection.u32(1).u16(TpmAlgId::Sha256 as u16).u8(3).raw(&bitmap);
        Ok(selection)
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        while let Some(handle) = self.loaded.pop() {
            if self.flush(handle).is_err_and(|fault| !matches!(fault, ChipFault::Refused { .. })) {
                // It does not answer any more; waiting once for every handle helps nobody.
                break;
            }
        }
    }
}
