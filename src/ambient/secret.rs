//! Secrets in files that only their owner may read; made the first time they are needed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Entropy;

/// Bits of a file's mode by which others than its owner could use it.
const OTHERS: u32 = 0o077;

/// Why there is no secret. Nothing of one is in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    #[error("{path} cannot be used")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not hold {expected} bytes")]
    Size { path: PathBuf, expected: usize },
    #[error("{path} may be read by others than its owner: chmod 600 {path}")]
    Open { path: PathBuf },
    #[error("{path} is not UTF-8 text of at most {max} bytes")]
    Text { path: PathBuf, max: usize },
}

/// A secret, and whether it was made just now.
pub struct OwnSecret<const SIZE: usize> {
    pub bytes: Zeroizing<[u8; SIZE]>,
    pub is_new: bool,
}

impl<const SIZE: usize> std::fmt::Debug for OwnSecret<SIZE> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnSecret(****)")
    }
}

/// The secret in a file, which is made when it is not there. A file that is made is whole or not there, and durable.
pub fn own_secret<const SIZE: usize>(path: &Path, entropy: &dyn Entropy) -> Result<OwnSecret<SIZE>, SecretFault> {
    let io = |source| SecretFault::Io { path: path.to_owned(), source };
    match OpenOptions::new().read(true).open(path) {
        Ok(mut file) => {
            if file.metadata().map_err(io)?.permissions().mode() & OTHERS != 0 {
                return Err(SecretFault::Open { path: path.to_owned() });
            }
            let mut bytes = Zeroizing::new([0; SIZE]);
            let size = SecretFault::Size { path: path.to_owned(), expected: SIZE };
            match file.read_exact(bytes.as_mut_slice()) {
                Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return Err(size),
                Err(fault) => return Err(io(fault)),
                Ok(()) => {}
            }
            match file.read(&mut [0; 1]).map_err(io)? {
                0 => Ok(OwnSecret { bytes, is_new: false }),
                _ => Err(size),
            }
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; SIZE]);
            entropy.fill(bytes.as_mut_slice());
            make(path, bytes.as_slice()).map_err(io)?;
            Ok(OwnSecret { bytes, is_new: true })
        }
        Err(fault) => Err(io(fault)),
    }
}

/// The text in a secret file; `None` when it is not there.
pub fn secret_text(path: &Path, max: usize) -> Result<Option<Zeroizing<String>>, SecretFault> {
    let io = |source| SecretFault::Io { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(fault) => return Err(io(fault)),
    };
    if file.metadata().map_err(io)?.permissions().mode() & OTHERS != 0 {
        return Err(SecretFault::Open { path: path.to_owned() });
    }
    // As large as it may get, so that no part of it is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max + 1));
    (&file).take(max as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.len() <= max => Ok(Some(Zeroizing::new(text.to_owned()))),
        Ok(_) | Err(_) => Err(SecretFault::Text { path: path.to_owned(), max }),
    }
}

/// Writes a secret file that is not there: whole or not at all, and durable.
pub fn make_secret_text(path: &Path, text: &str) -> Result<(), SecretFault> {
    make(path, text.as_bytes()).map_err(|source| SecretFault::Io { path: path.to_owned(), source })
}

fn make(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    match fs::remove_file(&beside) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::File::open(folder)?.sync_all(),
        Some(_) | None => fs::File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::SeededEntropy;

    #[test]
    fn a_secret_is_made_once_and_read_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let (path, entropy) = (folder.path().join("secrets.key"), SeededEntropy::new(1));
        let made = own_secret::<32>(&path, &entropy).unwrap();
        assert!(made.is_new);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = own_secret::<32>(&path, &entropy).unwrap();
        assert_eq!((read.is_new, *read.bytes), (false, *made.bytes));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(own_secret::<32>(&path, &entropy), Err(SecretFault::Open { .. })));
    }

    #[test]
    fn a_text_is_bounded_and_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        assert!(secret_text(&path, 5).unwrap().is_none());
        make_secret_text(&path, "12345").unwrap();
        assert_eq!(secret_text(&path, 5).unwrap().as_deref().map(String::as_str), Some("12345"));
        assert!(matches!(secret_text(&path, 4), Err(SecretFault::Text { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(secret_text(&path, 5), Err(SecretFault::Open { .. })));
    }

    #[test]
    fn a_file_of_another_size_is_not_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 31, 33] {
            let path = folder.path().join(size.to_string());
            fs::write(&path, vec![7; size]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let fault = own_secret::<32>(&path, &SeededEntropy::new(1)).unwrap_err();
            assert!(matches!(fault, SecretFault::Size { .. }), "{fault}");
        }
    }
}
