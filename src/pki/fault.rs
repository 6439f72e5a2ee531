//! Why a certificate or a key could not be made, read or written.

use std::path::PathBuf;

use super::authority::Purpose;

#[derive(Debug, thiserror::Error)]
pub enum PkiFault {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Nothing was overwritten.
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("{} is there, but {} is not: bring it back, or remove both to have them made anew", present.display(), missing.display())]
    HalfPair { present: PathBuf, missing: PathBuf },
    #[error("{} cannot be used: {flaw}", path.display())]
    Unusable { path: PathBuf, flaw: Flaw },
    #[error("a {found} authority does not issue {needed} certificates")]
    WrongPurpose { needed: Purpose, found: Purpose },
    #[error("{name:?} cannot be a name: it has 1 to {max} characters, none of them a control character")]
    Name { name: String, max: usize },
    #[error("{name:?} is neither a host name nor an address")]
    HostName { name: String },
    #[error("a server certificate needs a host name or an address")]
    NoHostName,
    #[error("an operator certificate needs a role")]
    NoRole,
    #[error("the validity is empty, or reaches beyond the years 1970 to 9999, or lies outside that of the authority")]
    Validity,
    #[error("the certificate could not be made")]
    Making(#[source] rcgen::Error),
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it holds no readable certificate")]
    NotACertificate,
    #[error("it holds no readable private key")]
    NotAKey,
    #[error("the private key beside it belongs to another certificate")]
    KeyOfAnother,
    #[error("the certificate is not an authority's")]
    NotAnAuthority,
    #[error("its subject does not say what the authority is for; only authorities made here can be used")]
    NoPurpose,
    #[error("the authority is for another purpose")]
    OtherPurpose,
    #[error("the authority is not valid now; move its files away to have a new one made, and enroll that one")]
    OutOfDate,
    #[error("it was not issued by the authority beside it; move it away to have a new one made")]
    NotIssuedHere,
    #[error("the authority that issued it is missing; bring it back, or move this file away too")]
    AuthorityMissing,
}
