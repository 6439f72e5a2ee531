//! Certificates made here, judged by the verifier.
