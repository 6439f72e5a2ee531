//! Who is at the other end of a connection: its address, and the certificates that it presented.
//!
//! Read once for a connection; what the certificates are worth is judged at every call.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;

use crate::domain::{Evidence, IdFault, PresentedToken, limits};
use crate::service::Peer;

/// The caller as the service knows it. Of a chain that is longer than any that is accepted, as much is kept as shows that
/// it is too long.
pub fn of_connection(address: SocketAddr, certificates: Option<&[CertificateDer<'_>]>) -> Peer {
    let evidence = match certificates {
        None | Some([]) => Evidence::None,
        Some(certificates) => Evidence::X509 {
            chain: certificates.iter().take(limits::CHAIN_CERTIFICATES_MAX + 1).map(|der| der.to_vec()).collect(),
        },
    };
    Peer::new(address, evidence)
}

/// The same caller with the token that it presents beside its connection: that goes before the certificates, since whoever
/// presents one means it. No text is no token.
pub fn with_token(peer: &Peer, text: &str) -> Result<Peer, IdFault> {
    let evidence = match text {
        "" => peer.evidence.clone(),
        text => Evidence::Token(PresentedToken::new(text)?),
    };
    Ok(Peer::new(peer.address, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_before_certificates() {
        let certificates = [CertificateDer::from(vec![1])];
        let peer = of_connection("192.0.2.1:5".parse().unwrap(), Some(&certificates));
        assert!(matches!(with_token(&peer, "x").unwrap().evidence, Evidence::Token(_)));
        assert_eq!(with_token(&peer, "").unwrap().evidence, peer.evidence);
        assert!(with_token(&peer, &"x".repeat(limits::TOKEN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_chain_is_kept_leaf_first_and_bounded() {
        let address: SocketAddr = "192.0.2.1:5".parse().unwrap();
        let certificates: Vec<CertificateDer<'_>> = (0..100_u8).map(|n| CertificateDer::from(vec![n])).collect();
        for (presented, expected) in [(None, 0), (Some(0), 0), (Some(1), 1), (Some(6), 6), (Some(7), 7), (Some(100), 7)]
        {
            let peer = of_connection(address, presented.map(|count| &certificates[..count]));
            assert_eq!(peer.address, address);
            match peer.evidence {
                Evidence::None => assert_eq!(expected, 0, "{presented:?}"),
                Evidence::Token(_) => panic!("a connection presents no token"),
                Evidence::X509 { chain } => {
                    assert_eq!(chain.len(), expected, "{presented:?}");
                    assert_eq!(chain[0], [0]);
                }
            }
        }
    }
}
