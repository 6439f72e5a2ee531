//! A backup on its way: files in parts, held against their announced sizes and digests while they pass.

use aws_lc_rs::digest::{Context, SHA256};
use tonic::Streaming;

use super::fault::ClientFault;
use crate::wire::admin::v1;
use crate::wire::admin::v1::backup_response::Part;
use crate::wire::convert::field::required;

/// One part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPart {
    /// A file begins. The name is a plain file name.
    File {
        name: String,
        bytes: u64,
    },
    Bytes(Vec<u8>),
    /// The file is complete and what it was announced to be.
    FileDone,
}

/// A backup as a stream of parts.
#[derive(Debug)]
pub struct Backup {
    parts: Streaming<v1::BackupResponse>,
    check: Check,
}

impl Backup {
    pub(super) fn new(parts: Streaming<v1::BackupResponse>) -> Self {
        Self { parts, check: Check::Between { files_left: None } }
    }

    /// The next part; `None` once every announced file is complete.
    pub async fn next(&mut self) -> Result<Option<BackupPart>, ClientFault> {
        match self.parts.message().await? {
            Some(message) => self.check.take(required("part", message.part)?).map(Some),
            None => self.check.end().map(|()| None),
        }
    }
}

/// Where in the sequence of parts a backup is.
enum Check {
    Between { files_left: Option<u32> },
    Inside { name: String, files_left: u32, bytes: u64, seen: u64, digest: Box<Context> },
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Check::Between { files_left } => write!(f, "Between({files_left:?} files left)"),
            Check::Inside { name, bytes, seen, .. } => write!(f, "Inside({name}, {seen} of {bytes} bytes)"),
        }
    }
}

fn broken(why: impl Into<String>) -> ClientFault {
    ClientFault::Backup { why: why.into() }
}

/// A name that stays inside the folder it is written to.
fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

impl Check {
    fn take(&mut self, part: Part) -> Result<BackupPart, ClientFault> {
        match (&mut *self, part) {
            (Check::Between { files_left }, Part::File(file)) => {
                let follows = files_left.is_none_or(|left| left.checked_sub(1) == Some(file.files_left));
                if !follows || !is_plain(&file.name) {
                    return Err(broken(format!("file {:?} was not announced or has no plain name", file.name)));
                }
                let digest = Box::new(Context::new(&SHA256));
                let (name, bytes, files_left) = (file.name, file.bytes, file.files_left);
                *self = Check::Inside { name: name.clone(), files_left, bytes, seen: 0, digest };
                Ok(BackupPart::File { name, bytes })
            }
            (Check::Inside { seen, digest, .. }, Part::Chunk(chunk)) => {
                *seen = seen.saturating_add(chunk.len() as u64);
                digest.update(&chunk);
                Ok(BackupPart::Bytes(chunk))
            }
            (Check::Inside { name, files_left, bytes, seen, digest }, Part::End(end)) => {
                if seen != bytes || digest.clone().finish().as_ref() != end.sha256.as_slice() {
                    return Err(broken(format!("{name} arrived with {seen} bytes, not the {bytes} that were sent")));
                }
                *self = Check::Between { files_left: Some(*files_left) };
                Ok(BackupPart::FileDone)
            }
            (Check::Between { .. }, Part::Chunk(_) | Part::End(_)) | (Check::Inside { .. }, Part::File(_)) => {
                Err(broken("its parts are out of order"))
            }
        }
    }

    fn end(&self) -> Result<(), ClientFault> {
        match self {
            Check::Between { files_left: Some(0) } => Ok(()),
            Check::Between { files_left: Some(_) | None } | Check::Inside { .. } => Err(broken("it ended early")),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;

    fn file(name: &str, bytes: u64, files_left: u32) -> Part {
        Part::File(v1::BackupFile { name: name.to_owned(), bytes, files_left })
    }

    fn end(content: &[u8]) -> Part {
        Part::End(v1::BackupFileEnd { sha256: digest(&SHA256, content).as_ref().to_vec() })
    }

    fn check(parts: Vec<Part>, whole: bool) {
        let mut check = Check::Between { files_left: None };
        let shown = format!("{parts:?}");
        let outcome = parts.into_iter().try_for_each(|part| check.take(part).map(|_| ())).and_then(|()| check.end());
        assert_eq!(outcome.is_ok(), whole, "{shown}");
    }

    #[test]
    fn a_backup_is_whole_or_refused() {
        let chunk = |bytes: &[u8]| Part::Chunk(bytes.to_vec());
        check(vec![file("a.redb", 3, 0), chunk(b"ab"), chunk(b"c"), end(b"abc")], true);
        check(vec![file("a", 1, 1), chunk(b"x"), end(b"x"), file("b", 0, 0), end(b"")], true);
        check(vec![], false);
        check(vec![file("a", 3, 0), chunk(b"abc")], false);
        check(vec![file("a", 3, 0), chunk(b"ab"), end(b"ab")], false);
        check(vec![file("a", 3, 0), chunk(b"abd"), end(b"abc")], false);
        check(vec![file("a", 1, 1), chunk(b"x"), end(b"x")], false);
        check(vec![file("a", 1, 2), chunk(b"x"), end(b"x"), file("b", 0, 0), end(b"")], false);
        check(vec![chunk(b"x")], false);
        check(vec![file("a", 1, 0), file("b", 1, 0)], false);
        for name in ["", "../a", "a/b", ".hidden", "a\\b", "a b"] {
            check(vec![file(name, 0, 0), end(b"")], false);
        }
    }
}
