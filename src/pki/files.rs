//! Certificates and keys as files: whole or not at all, and a private key is never readable for others, not for a moment.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::fault::PkiFault;
use crate::ambient::Entropy;

/// What to do with files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    Replace,
}

/// Where a certificate and its private key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the certificate, then the intermediates that lead to its authority.
    pub certificate: PathBuf,
    /// PEM, readable for its owner only.
    pub key: PathBuf,
}

impl Pair {
    /// `NAME.pem` and `NAME.key` in a folder.
    pub fn named(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }

    /// Writes both, the key first: a certificate is never there without its key.
    pub(super) fn write(
        &self,
        certificate_pem: &str,
        key_pem: &str,
        existing: Existing,
        entropy: &dyn Entropy,
    ) -> Result<(), PkiFault> {
        if existing == Existing::Refuse {
            for path in [&self.certificate, &self.key] {
                if exists(path)? {
                    return Err(PkiFault::Exists { path: path.clone() });
                }
            }
        }
        write(&self.key, key_pem.as_bytes(), 0o600, existing, entropy)?;
        write(&self.certificate, certificate_pem.as_bytes(), 0o644, existing, entropy)
    }
}

pub(super) fn exists(path: &Path) -> Result<bool, PkiFault> {
    path.try_exists().map_err(at("look for", path))
}

pub(super) fn read(path: &Path) -> Result<String, PkiFault> {
    fs::read_to_string(path).map_err(at("read", path))
}

pub(super) fn read_secret(path: &Path) -> Result<Zeroizing<String>, PkiFault> {
    read(path).map(Zeroizing::new)
}

/// Holds the folder for one process until the answer is dropped; creates it when it is not there.
pub(super) fn lock_folder(folder: &Path) -> Result<fs::File, PkiFault> {
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    let path = folder.join(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(at("open", &path))?;
    file.lock().map_err(at("lock", &path))?;
    Ok(file)
}

/// Writes a file beside its place and puts it there in one step.
fn write(path: &Path, content: &[u8], mode: u32, existing: Existing, entropy: &dyn Entropy) -> Result<(), PkiFault> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{:032x}", entropy.draw_u128()));
    let result = fill(&beside, content, mode).map_err(at("write", path)).and_then(|()| match existing {
        Existing::Replace => fs::rename(&beside, path).map_err(at("write", path)),
        // Unlike a rename, a link never takes the place of a file that has appeared meanwhile.
        Existing::Refuse => fs::hard_link(&beside, path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => PkiFault::Exists { path: path.to_owned() },
            _ => at("write", path)(source),
        }),
    });
    // After a rename there is nothing left to remove; after anything else there is.
    let _ = fs::remove_file(&beside);
    result
}

fn fill(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiFault {
    move |source| PkiFault::Io { action, path: path.to_owned(), source }
}
