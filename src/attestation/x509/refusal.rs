//! Why a chain or a certificate was refused: the closed list. It goes to the audit log, never to an unproven caller.

use crate::domain::limits;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $($message:expr),+;)+) => {
        /// The rule that was broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Refusal { $($(#[doc = $doc])* #[error($($message),+)] $name,)+ }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name),+];

            /// The stable code in the audit log.
            pub fn as_str(self) -> &'static str {
                match self { $(Refusal::$name => $code),+ }
            }
        }
    };
}

refusals! {
    // What was presented.
    NothingPresented = "nothing_presented", "no client certificate was presented";
    ChainTooLong = "chain_too_long", "more than {} certificates were presented", limits::CHAIN_CERTIFICATES_MAX;
    CertificateTooLarge = "certificate_too_large", "a certificate has more than {} bytes", limits::CERTIFICATE_BYTES_MAX;
    Malformed = "malformed", "a certificate is not well-formed DER";
    TrailingBytes = "trailing_bytes", "bytes follow the end of a certificate";
    NotOneCertificate = "not_one_certificate", "the PEM text does not hold exactly one section, a certificate";
    // The name of the device.
    CommonNameMissing = "common_name_missing", "the leaf's subject has no common name";
    CommonNameRepeated = "common_name_repeated", "the leaf's subject has more than one common name";
    CommonNameInvalid = "common_name_invalid", "the leaf's common name is not a registration id";
    CommonNameMismatch = "common_name_mismatch", "the leaf's common name is not the registration id";
    EnrollmentMismatch = "enrollment_mismatch", "the individual enrollment is for another registration id";
    // Who vouches for it.
    NotEnrolledByCertificate = "not_enrolled_by_certificate", "the enrollment asks for a proof by TPM";
    LeafNotEnrolled = "leaf_not_enrolled", "the leaf is neither the primary nor the secondary certificate of the enrollment";
    UntrustedIssuer = "untrusted_issuer", "no path leads from the leaf to a certificate of the group";
    SignatureInvalid = "signature_invalid", "a signature was not made by the issuer's key";
    TooManyIntermediates = "too_many_intermediates", "more than {} intermediates stand between leaf and anchor", limits::CHAIN_INTERMEDIATES_MAX;
    PathLengthExceeded = "path_length_exceeded", "the path is longer than an authority's path length allows";
    PathTooComplex = "path_too_complex", "the search for a path was given up";
    NameNotPermitted = "name_not_permitted", "a name is outside an authority's name constraints";
    // What the certificates may be used for.
    KeyNotAllowed = "key_not_allowed", "a key is not RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519";
    SignatureAlgorithmNotAllowed = "signature_algorithm_not_allowed", "a signature algorithm is not allowed or does not fit the issuer's key";
    LeafIsCa = "leaf_is_ca", "the leaf is an authority's certificate";
    /// Of an enrolled anchor or of an intermediate.
    NotACa = "not_a_ca", "a certificate that vouches for another is not an authority's";
    KeyUsageNotAllowed = "key_usage_not_allowed", "a certificate's key usage does not allow what it is used for";
    ExtendedKeyUsageNotAllowed = "extended_key_usage_not_allowed", "a certificate's extended key usage does not include client authentication";
    CriticalExtensionUnknown = "critical_extension_unknown", "a certificate has a critical extension that is not understood";
    // When.
    LeafExpired = "leaf_expired", "the leaf has expired";
    LeafNotYetValid = "leaf_not_yet_valid", "the leaf is not valid yet";
    IntermediateExpired = "intermediate_expired", "an intermediate has expired";
    IntermediateNotYetValid = "intermediate_not_yet_valid", "an intermediate is not valid yet";
    AnchorExpired = "anchor_expired", "the enrolled anchor has expired";
    AnchorNotYetValid = "anchor_not_yet_valid", "the enrolled anchor is not valid yet";
    // What an operator may do.
    RoleInvalid = "role_invalid", "the certificate grants a role that does not exist";
    /// A caller's cache is behind: verify the chain anew.
    ProofOutdated = "proof_outdated", "the kept proof is of another chain or of the enrollment as it no longer stands";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_spelled_alike() {
        let codes: std::collections::HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
        assert_eq!(codes.len(), Refusal::ALL.len());
        for refusal in Refusal::ALL {
            assert!(refusal.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{refusal:?}");
            let message = refusal.to_string();
            assert!(!message.ends_with('.') && message.starts_with(char::is_lowercase), "{message}");
        }
    }
}
