//! What a new enrollment proves its devices by: certificates, the endorsement keys of TPMs, or symmetric keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::domain::{
    AttestationDraft, PcrIndex, PcrMode, PcrPolicy, PcrValue, SrkDraft, TpmMake, TpmManufacturer, TpmModel, TpmPublic,
};

use super::advice::Advised;
use super::input;

/// What happens when a TPM comes with another storage root key, as after its owner cleared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StorageRootRule {
    /// It may; the audit log notes it
    Any,
    /// It must keep the first one, until `rehome device reset-storage-root-key`
    PinFirst,
}

/// What a register with another value than allowed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The registration fails
    Enforce,
    /// The audit log notes it
    Audit,
}

/// A value that a register may have: `7=` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    index: PcrIndex,
    value: PcrValue,
}

impl FromStr for Register {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not register=value: write the register, = and 64 hexadecimal digits");
        let (index, digits) = text.split_once('=').ok_or_else(wrong)?;
        let index = index.parse::<u32>().map_err(|_| wrong())?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| wrong())?;
        Ok(Self {
            index: PcrIndex::new(index).map_err(|fault| fault.to_string())?,
            value: PcrValue(bytes.try_into().map_err(|_| wrong())?),
        })
    }
}

/// A make of TPMs: `INTC`, or `id:494E5443`, perhaps with `/` and a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Make(TpmMake);

impl FromStr for Make {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (manufacturer, model) = text.split_once('/').map_or((text, None), |(maker, model)| (maker, Some(model)));
        Ok(Self(TpmMake {
            manufacturer: manufacturer.parse::<TpmManufacturer>().map_err(|fault| fault.to_string())?,
            model: model.map(TpmModel::parse).transpose().map_err(|fault| fault.to_string())?,
        }))
    }
}

/// How the devices of a new enrollment prove themselves: exactly one of the first four.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Proof")]
pub struct ProofFlags {
    /// The certificate that devices prove themselves with: PEM or DER
    #[arg(long, value_name = "FILE", required_unless_present_any = ["endorsement_key", "endorsement_ca", "symmetric_key"])]
    pub certificate: Option<PathBuf>,
    /// The TPM of one device: its endorsement key, as `rehome tpm show --out` writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate", "endorsement_ca"])]
    pub endorsement_key: Option<PathBuf>,
    /// For a group, every TPM whose endorsement key this authority certifies: PEM or DER
    #[arg(long, value_name = "FILE", conflicts_with = "certificate")]
    pub endorsement_ca: Option<PathBuf>,
    /// Symmetric keys: drawn by the service, unless files name them. `keys` shows them
    #[arg(long, conflicts_with_all = ["certificate", "endorsement_key", "endorsement_ca", "secondary", "storage_root_key",
        "registers", "makes"])]
    pub symmetric_key: bool,
    /// The primary symmetric key: base64 of 16 to 64 bytes on one line
    #[arg(long, value_name = "FILE", requires = "symmetric_key")]
    pub primary_key: Option<PathBuf>,
    /// The secondary symmetric key
    #[arg(long, value_name = "FILE", requires = "symmetric_key")]
    pub secondary_key: Option<PathBuf>,
    /// A second certificate or authority, so that they can be rolled
    #[arg(long, value_name = "FILE", conflicts_with = "endorsement_key")]
    pub secondary: Option<PathBuf>,
    /// What another storage root key of a TPM means [default: any]
    #[arg(long = "storage-root-key", value_enum, value_name = "RULE", conflicts_with = "certificate")]
    pub storage_root_key: Option<StorageRootRule>,
    /// A value that a PCR of the SHA-256 bank may have, as 7=HEX; repeat it for more
    #[arg(long = "pcr", value_name = "PCR=HEX", conflicts_with = "certificate")]
    pub registers: Vec<Register>,
    /// What another value means [default: enforce]
    #[arg(long, value_enum, value_name = "MODE", requires = "registers")]
    pub pcr_mode: Option<Mode>,
    /// A make of TPMs that a group accepts, as INTC or INTC/MODEL; repeat it for more [default: every make]
    #[arg(long = "make", value_name = "MAKER[/MODEL]", conflicts_with_all = ["certificate", "endorsement_key"])]
    pub makes: Vec<Make>,
}

impl ProofFlags {
    pub fn read(&self) -> anyhow::Result<AttestationDraft> {
        if self.symmetric_key {
            return Ok(AttestationDraft::SymmetricKey {
                primary: self.primary_key.as_deref().map(input::key_file).transpose()?,
                secondary: self.secondary_key.as_deref().map(input::key_file).transpose()?,
            });
        }
        let secondary = self.secondary.as_deref().map(input::certificate).transpose()?;
        match (&self.certificate, &self.endorsement_key, &self.endorsement_ca) {
            (Some(certificate), None, None) => {
                Ok(AttestationDraft::X509 { primary: input::certificate(certificate)?, secondary })
            }
            (None, Some(key), None) => Ok(AttestationDraft::Tpm {
                endorsement_key: endorsement_key(key)?,
                storage_root_key: if self.pins_first() { SrkDraft::PinFirst } else { SrkDraft::Any },
                pcrs: self.pcrs()?,
            }),
            (None, None, Some(authority)) => Ok(AttestationDraft::TpmFleet {
                primary: input::certificate(authority)?,
                secondary,
                makes: self.makes.iter().map(|make| make.0.clone()).collect(),
                usage_may_be_absent: false,
                pin_first: self.pins_first(),
                pcrs: self.pcrs()?,
            }),
            (_, _, _) => Err(Advised::usage(
                "an enrollment has one way of proof",
                "give one of --certificate FILE, --endorsement-key FILE, --endorsement-ca FILE and --symmetric-key",
            )
            .into()),
        }
    }

    fn pins_first(&self) -> bool {
        self.storage_root_key == Some(StorageRootRule::PinFirst)
    }

    fn pcrs(&self) -> anyhow::Result<Option<PcrPolicy>> {
        if self.registers.is_empty() {
            return Ok(None);
        }
        let mut allowed: BTreeMap<PcrIndex, Vec<PcrValue>> = BTreeMap::new();
        for register in &self.registers {
            allowed.entry(register.index).or_default().push(register.value);
        }
        let mode = match self.pcr_mode {
            Some(Mode::Audit) => PcrMode::Audit,
            Some(Mode::Enforce) | None => PcrMode::Enforce,
        };
        Ok(Some(PcrPolicy::new(mode, allowed)?))
    }
}

/// A TPM2B_PUBLIC: in base64 on one line, or as the bytes that other tools write.
fn endorsement_key(path: &Path) -> anyhow::Result<TpmPublic> {
    let bytes = input::file_bytes(path)?;
    let decoded = data_encoding::BASE64.decode(bytes.trim_ascii()).unwrap_or(bytes);
    TpmPublic::parse(&decoded).with_context(|| format!("{} holds no endorsement key", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn registers_and_makes_are_read() {
        let zeros = "0".repeat(64);
        let register: Register = format!("7={zeros}").parse().unwrap();
        assert_eq!((register.index.number(), register.value), (7, PcrValue([0; 32])));
        for wrong in
            ["7".to_owned(), format!("24={zeros}"), format!("x={zeros}"), "7=00".to_owned(), format!("={zeros}")]
        {
            assert!(wrong.parse::<Register>().is_err(), "{wrong}");
        }
        let make: Make = "INTC/SLB 9670".parse().unwrap();
        assert_eq!(make.0.model.unwrap().as_str(), "SLB 9670");
        assert!("id:49465800".parse::<Make>().is_ok() && "INTEL".parse::<Make>().is_err());
        assert!("INTC/".parse::<Make>().is_err());
    }

    #[test]
    fn an_endorsement_key_is_read_from_text_or_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ek");
        let flags = ProofFlags { endorsement_key: Some(file.clone()), ..ProofFlags::default() };
        for content in [&b"AAEH\n"[..], &[0, 1, 7]] {
            fs::write(&file, content).unwrap();
            let AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs } = flags.read().unwrap() else {
                panic!("not a TPM")
            };
            assert_eq!((endorsement_key.as_bytes(), storage_root_key, pcrs), (&[0, 1, 7][..], SrkDraft::Any, None));
        }
        fs::write(&file, "no key").unwrap();
        assert!(flags.read().is_err());
        assert!(ProofFlags::default().read().is_err());
    }

    #[test]
    fn registers_become_a_policy() {
        let zeros = "0".repeat(64);
        let registers = vec![format!("7={zeros}").parse().unwrap(), format!("7={}", "1".repeat(64)).parse().unwrap()];
        let flags = ProofFlags { registers, pcr_mode: Some(Mode::Audit), ..ProofFlags::default() };
        let policy = flags.pcrs().unwrap().unwrap();
        assert_eq!((policy.mode(), policy.allowed().values().map(Vec::len).sum::<usize>()), (PcrMode::Audit, 2));
    }

    #[test]
    fn symmetric_keys_are_drawn_or_read_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let drawn = ProofFlags { symmetric_key: true, ..ProofFlags::default() };
        let none = AttestationDraft::SymmetricKey { primary: None, secondary: None };
        assert_eq!(drawn.read().unwrap(), none);
        let flags = ProofFlags { primary_key: Some(file.clone()), ..drawn };
        fs::write(&file, "AAECAwQFBgcICQoLDA0ODw==\n").unwrap();
        let AttestationDraft::SymmetricKey { primary: Some(key), secondary: None } = flags.read().unwrap() else {
            panic!("not the primary key")
        };
        assert_eq!(key.secret(), (0..16).collect::<Vec<u8>>());
        for wrong in ["AAEC", "?", "", "AAECAwQFBgcICQoLDA0ODw==\nAAEC"] {
            fs::write(&file, wrong).unwrap();
            assert!(flags.read().is_err(), "{wrong}");
        }
    }
}
