//! `rehome tpm`: looks at a device's TPM, to enroll it. And the flags by which a device names its TPM.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::client::tpm::{AuthValue, EkKind, Tpm, TpmAddress, TpmSettings};

use super::context::Context;
use super::input;
use super::view::tpm::TpmView;

/// The kernel's device that keeps programs apart.
const DEFAULT_TPM: &str = "/dev/tpmrm0";

const SHOW_HELP: &str = "Examples:
  rehome tpm show
  rehome tpm show --tpm unix:/run/swtpm.sock --tpm-key ecc-p256
  rehome tpm show --out enroll

Changes nothing in the TPM: an endorsement key that is not there yet is derived and forgotten. With --out the key and
its certificate are written as files that an enrollment takes.";

#[derive(Debug, PartialEq, Subcommand)]
pub enum TpmCommand {
    /// Show the endorsement key, its certificate and the registration id that follows from it
    #[command(after_help = SHOW_HELP)]
    Show(Show),
}

#[derive(Debug, PartialEq, Args)]
pub struct Show {
    #[command(flatten)]
    pub tpm: TpmFlags,
    /// Write REGISTRATION-ID.ek (the key, base64) and, where there is a certificate, REGISTRATION-ID.ek.pem to this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Which TPM, and which of its endorsement keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "TPM")]
pub struct TpmFlags {
    /// The TPM: /dev/tpmrm0, tcp:HOST:PORT or unix:PATH
    #[arg(long, value_name = "TPM")]
    pub tpm: Option<TpmAddress>,
    /// Which endorsement key: rsa-2048, ecc-p256 or ecc-p384 [default: the first that is there, else rsa-2048]
    #[arg(long, value_name = "KIND")]
    pub tpm_key: Option<EkKind>,
}

impl TpmFlags {
    /// The TPM at that address, used as the configuration says.
    pub fn open(&self, address: TpmAddress, context: &Context) -> anyhow::Result<Tpm> {
        let config = &context.config.tpm;
        Ok(Tpm::new(TpmSettings {
            endorsement: self.tpm_key,
            endorsement_handle: config.endorsement_handle,
            storage_root_handle: config.storage_root_handle,
            identity_handle: config.identity_handle,
            exchange_handle: config.exchange_handle,
            owner_auth: password(config.owner_auth_file.as_deref())?,
            endorsement_auth: password(config.endorsement_auth_file.as_deref())?,
            ..TpmSettings::at(address)
        }))
    }
}

/// A hierarchy's password, from a file of one line.
fn password(file: Option<&Path>) -> anyhow::Result<AuthValue> {
    match file {
        Some(file) => Ok(AuthValue::new(input::secret_line(file)?.into_bytes())),
        None => Ok(AuthValue::default()),
    }
}

impl TpmCommand {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            TpmCommand::Show(show) => show.run(context).await,
        }
    }
}

impl Show {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let address = match self.tpm.tpm.clone() {
            Some(address) => address,
            None => DEFAULT_TPM.parse()?,
        };
        let summary = self.tpm.open(address, context)?.summary().await?;
        let view = TpmView::from(&summary);
        if let Some(folder) = &self.out {
            export(&view, folder)?;
        }
        Ok(context.output.item(&view)?)
    }
}

/// Writes what an enrollment takes. None of it is secret.
fn export(view: &TpmView, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let write = |ending: &str, text: &str| {
        let path = folder.join(format!("{}.{ending}", view.registration_id));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("ek", &format!("{}\n", view.endorsement_key))?;
    if !view.certificates_pem.is_empty() {
        write("ek.pem", &view.certificates_pem.concat())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::context::Globals;

    #[test]
    fn passwords_come_from_files_of_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth");
        fs::write(&file, "secret\n").unwrap();
        let mut context = Context::load(Globals::default()).unwrap();
        context.config.tpm.owner_auth_file = Some(file.clone());
        let tpm = TpmFlags::default().open(DEFAULT_TPM.parse().unwrap(), &context).unwrap();
        assert!(!format!("{tpm:?}").contains("secret"));
        fs::write(&file, "").unwrap();
        assert!(TpmFlags::default().open(DEFAULT_TPM.parse().unwrap(), &context).is_err());
    }
}
