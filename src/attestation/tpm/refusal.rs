//! Why a TPM, its keys or its answer were refused: the closed list. It goes to the audit log, never to an unproven caller.

use crate::attestation::sas;
use crate::attestation::x509;
use crate::domain::limits;

/// Which of the keys that a device presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    EndorsementKey,
    StorageRootKey,
    AttestationKey,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Part::EndorsementKey => "endorsement key",
            Part::StorageRootKey => "storage root key",
            Part::AttestationKey => "attestation key",
        }
    }
}

/// What is wrong with one public area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyFault {
    #[error("has more than {} bytes", limits::TPM_PUBLIC_BYTES_MAX)]
    TooLarge,
    #[error("is not a well-formed TPM2B_PUBLIC")]
    Malformed,
    #[error("has bytes behind its end")]
    TrailingBytes,
    #[error("is neither an RSA nor an elliptic-curve key")]
    KindNotAllowed,
    #[error("has a name algorithm other than SHA-256 and SHA-384")]
    NameAlgorithmNotAllowed,
    #[error("is not fixed to its TPM and its parent")]
    NotFixed,
    #[error("was not made by the TPM that holds it")]
    OriginNotTpm,
    #[error("is not restricted to what the TPM itself made")]
    NotRestricted,
    #[error("may not decrypt, or may also sign")]
    NotForStorage,
    #[error("may not sign, or may also decrypt")]
    NotForSigning,
    #[error("has a symmetric cipher other than AES-128 and AES-256 in CFB mode")]
    SymmetricNotAllowed,
    #[error("has a scheme that is not allowed for its use")]
    SchemeNotAllowed,
    #[error("is not of 2048, 3072 or 4096 bits")]
    SizeNotAllowed,
    #[error("has an exponent other than 65537")]
    ExponentNotAllowed,
    #[error("has a modulus that is not one of its size")]
    ModulusInvalid,
    #[error("is on a curve that is not allowed")]
    CurveNotAllowed,
    #[error("is not a point of its curve")]
    PointInvalid,
    #[error("is not, to the byte, what the TCG's template for its kind and size makes")]
    NotByTemplate,
}

impl KeyFault {
    pub fn as_str(self) -> &'static str {
        match self {
            KeyFault::TooLarge => "key_too_large",
            KeyFault::Malformed => "key_malformed",
            KeyFault::TrailingBytes => "key_trailing_bytes",
            KeyFault::KindNotAllowed => "key_kind_not_allowed",
            KeyFault::NameAlgorithmNotAllowed => "key_name_algorithm_not_allowed",
            KeyFault::NotFixed => "key_not_fixed",
            KeyFault::OriginNotTpm => "key_origin_not_tpm",
            KeyFault::NotRestricted => "key_not_restricted",
            KeyFault::NotForStorage => "key_not_for_storage",
            KeyFault::NotForSigning => "key_not_for_signing",
            KeyFault::SymmetricNotAllowed => "key_symmetric_not_allowed",
            KeyFault::SchemeNotAllowed => "key_scheme_not_allowed",
            KeyFault::SizeNotAllowed => "key_size_not_allowed",
            KeyFault::ExponentNotAllowed => "key_exponent_not_allowed",
            KeyFault::ModulusInvalid => "key_modulus_invalid",
            KeyFault::CurveNotAllowed => "key_curve_not_allowed",
            KeyFault::PointInvalid => "key_point_invalid",
            KeyFault::NotByTemplate => "key_not_by_template",
        }
    }

    /// Says whose fault it is.
    pub fn of(self, part: Part) -> Refusal {
        Refusal::Key { part, fault: self }
    }
}

/// What is wrong with an EK certificate or its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertificateFault {
    #[error("there is none, and the group knows its devices by it")]
    Missing,
    #[error("its subject key is not the endorsement key")]
    KeyMismatch,
    #[error("it is not made out for an endorsement key")]
    UsageNotAllowed,
    #[error("it does not say who made the TPM")]
    MakeMissing,
    #[error("what it says of the TPM's make is malformed")]
    MakeMalformed,
    #[error("the group takes no TPM of this make")]
    MakeNotAllowed,
    #[error("{0}")]
    Chain(x509::Refusal),
}

impl CertificateFault {
    pub fn as_str(self) -> &'static str {
        match self {
            CertificateFault::Missing => "ek_certificate_missing",
            CertificateFault::KeyMismatch => "ek_certificate_key_mismatch",
            CertificateFault::UsageNotAllowed => "ek_certificate_usage_not_allowed",
            CertificateFault::MakeMissing => "ek_certificate_make_missing",
            CertificateFault::MakeMalformed => "ek_certificate_make_malformed",
            CertificateFault::MakeNotAllowed => "ek_certificate_make_not_allowed",
            CertificateFault::Chain(refusal) => refusal.as_str(),
        }
    }
}

/// What is wrong with a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum QuoteFault {
    #[error("there is none, and the enrollment asks for one")]
    Missing,
    #[error("no attestation key was presented when the challenge was made")]
    KeyMissing,
    #[error("the attestation key was not shown to be in the TPM of the endorsement key")]
    KeyNotBound,
    #[error("it is larger than a TPM makes them")]
    TooLarge,
    #[error("it is not a well-formed TPMS_ATTEST")]
    Malformed,
    #[error("it was not made by a TPM")]
    MagicWrong,
    #[error("it attests something else than registers")]
    KindWrong,
    #[error("its signature is not well-formed, or of another scheme than its key")]
    SignatureMalformed,
    #[error("it was not signed by the attestation key")]
    SignatureInvalid,
    #[error("it is not about the challenge's nonce")]
    NonceWrong,
    #[error("it is not of exactly the registers that the enrollment names")]
    SelectionWrong,
    #[error("the values sent with it are not of exactly the registers that the enrollment names")]
    ValuesIncomplete,
    #[error("the values sent with it are not the ones that were quoted")]
    DigestWrong,
}

impl QuoteFault {
    pub fn as_str(self) -> &'static str {
        match self {
            QuoteFault::Missing => "quote_missing",
            QuoteFault::KeyMissing => "quote_key_missing",
            QuoteFault::KeyNotBound => "quote_key_not_bound",
            QuoteFault::TooLarge => "quote_too_large",
            QuoteFault::Malformed => "quote_malformed",
            QuoteFault::MagicWrong => "quote_magic_wrong",
            QuoteFault::KindWrong => "quote_kind_wrong",
            QuoteFault::SignatureMalformed => "quote_signature_malformed",
            QuoteFault::SignatureInvalid => "quote_signature_invalid",
            QuoteFault::NonceWrong => "quote_nonce_wrong",
            QuoteFault::SelectionWrong => "quote_selection_wrong",
            QuoteFault::ValuesIncomplete => "quote_values_incomplete",
            QuoteFault::DigestWrong => "quote_digest_wrong",
        }
    }
}

/// The rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    // What was presented.
    #[error("the {} {fault}", part.as_str())]
    Key { part: Part, fault: KeyFault },
    #[error("the EK certificate: {0}")]
    Certificate(CertificateFault),
    // Who it is.
    #[error("the endorsement key is not the enrolled one")]
    EndorsementKeyNotEnrolled,
    #[error("the individual enrollment is for another registration id")]
    EnrollmentMismatch,
    #[error("the registration id is not the one of the endorsement key")]
    RegistrationIdMismatch,
    // What was answered.
    #[error("the challenge has expired")]
    ChallengeExpired,
    #[error("the challenge was made for another registration id")]
    ChallengeMismatch,
    #[error("the enrollment changed after the challenge was made")]
    EnrollmentChanged,
    #[error("the token: {0}")]
    Token(sas::Refusal),
    #[error("the quote: {0}")]
    Quote(QuoteFault),
    // What the provider says of keys that passed every check above.
    #[error("the keys could not be used")]
    KeyUnusable,
}

impl Refusal {
    /// The stable code in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Key { part: _, fault } => fault.as_str(),
            Refusal::Certificate(fault) => fault.as_str(),
            Refusal::EndorsementKeyNotEnrolled => "endorsement_key_not_enrolled",
            Refusal::EnrollmentMismatch => "enrollment_mismatch",
            Refusal::RegistrationIdMismatch => "registration_id_mismatch",
            Refusal::ChallengeExpired => "challenge_expired",
            Refusal::ChallengeMismatch => "challenge_mismatch",
            Refusal::EnrollmentChanged => "enrollment_changed",
            Refusal::Token(refusal) => refusal.as_str(),
            Refusal::Quote(fault) => fault.as_str(),
            Refusal::KeyUnusable => "key_unusable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenFault;

    fn of_keys() -> impl Iterator<Item = Refusal> {
        use KeyFault::{
            CurveNotAllowed, ExponentNotAllowed, KindNotAllowed, Malformed, ModulusInvalid, NameAlgorithmNotAllowed,
            NotByTemplate, NotFixed, NotForSigning, NotForStorage, NotRestricted, OriginNotTpm, PointInvalid,
            SchemeNotAllowed, SizeNotAllowed, SymmetricNotAllowed, TooLarge, TrailingBytes,
        };
        let faults = [
            TooLarge,
            Malformed,
            TrailingBytes,
            KindNotAllowed,
            NameAlgorithmNotAllowed,
            NotFixed,
            OriginNotTpm,
            NotRestricted,
            NotForStorage,
            NotForSigning,
            SymmetricNotAllowed,
            SchemeNotAllowed,
            SizeNotAllowed,
            ExponentNotAllowed,
            ModulusInvalid,
            CurveNotAllowed,
            PointInvalid,
            NotByTemplate,
        ];
        faults.into_iter().map(|fault| fault.of(Part::StorageRootKey))
    }

    fn of_certificates() -> impl Iterator<Item = Refusal> {
        use CertificateFault::{KeyMismatch, MakeMalformed, MakeMissing, MakeNotAllowed, Missing, UsageNotAllowed};
        let own = [Missing, KeyMismatch, UsageNotAllowed, MakeMissing, MakeMalformed, MakeNotAllowed];
        let chains = x509::Refusal::ALL.iter().map(|refusal| CertificateFault::Chain(*refusal));
        own.into_iter().chain(chains).map(Refusal::Certificate)
    }

    fn of_quotes() -> impl Iterator<Item = Refusal> {
        use QuoteFault::{
            DigestWrong, KeyMissing, KeyNotBound, KindWrong, MagicWrong, Malformed, Missing, NonceWrong,
            SelectionWrong, SignatureInvalid, SignatureMalformed, TooLarge, ValuesIncomplete,
        };
        let faults = [
            Missing,
            KeyMissing,
            KeyNotBound,
            TooLarge,
            Malformed,
            MagicWrong,
            KindWrong,
            SignatureMalformed,
            SignatureInvalid,
            NonceWrong,
            SelectionWrong,
            ValuesIncomplete,
            DigestWrong,
        ];
        faults.into_iter().map(Refusal::Quote)
    }

    fn others() -> impl Iterator<Item = Refusal> {
        use sas::Refusal::{Expired, ExpiresTooLate, Malformed, Missing, ResourceMismatch, SignatureInvalid};
        let tokens =
            [Missing, SignatureInvalid, ResourceMismatch, Expired, ExpiresTooLate, Malformed(TokenFault::TooLong)];
        let own = [
            Refusal::EndorsementKeyNotEnrolled,
            Refusal::RegistrationIdMismatch,
            Refusal::ChallengeExpired,
            Refusal::ChallengeMismatch,
            Refusal::EnrollmentChanged,
            Refusal::KeyUnusable,
        ];
        tokens.into_iter().map(Refusal::Token).chain(own)
    }

    #[test]
    fn codes_are_distinct_and_spelled_alike() {
        let refusals: Vec<Refusal> = of_keys().chain(of_certificates()).chain(of_quotes()).chain(others()).collect();
        let codes: std::collections::HashSet<_> = refusals.iter().map(|refusal| refusal.as_str()).collect();
        assert_eq!(codes.len(), refusals.len());
        // One rule, one code: an individual enrollment is for one id, however the device proves itself.
        assert_eq!(Refusal::EnrollmentMismatch.as_str(), x509::Refusal::EnrollmentMismatch.as_str());
        for refusal in refusals {
            assert!(refusal.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{refusal:?}");
            let message = refusal.to_string();
            assert!(!message.ends_with('.') && message.starts_with(char::is_lowercase), "{message}");
        }
    }
}
