//! The cryptography of TPM 2.0 keys: the only file of this room that knows the provider.
//!
//! Everything is a function of its arguments with one exception that the provider leaves no choice about: the padding of
//! OAEP is drawn inside it. It hides a seed that is an argument, so no secret of ours comes from there. ECDSA's nonces
//! are the provider's too; only the software stand-in signs.

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, ParsedPublicKey, UnparsedPublicKey, agree};
use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::kdf::{
    KbkdfCtrHmacAlgorithm, KbkdfCtrHmacAlgorithmId, SskdfDigestAlgorithm, SskdfDigestAlgorithmId,
    get_kbkdf_ctr_hmac_algorithm, get_sskdf_digest_algorithm, kbkdf_ctr_hmac, sskdf_digest,
};
use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey as UnparsedSigner,
};
use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

/// The provider refused: a key that is none, a text that does not fit. It says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

impl From<aws_lc_rs::error::Unspecified> for Refused {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Refused
    }
}

impl From<aws_lc_rs::error::KeyRejected> for Refused {
    fn from(_: aws_lc_rs::error::KeyRejected) -> Self {
        Refused
    }
}

/// The hash of an object: names, seeds and integrity are made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    pub(super) fn size(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
        }
    }

    fn digest_algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
        }
    }

    fn hmac_algorithm(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
        }
    }

    fn oaep(self) -> &'static OaepAlgorithm {
        match self {
            Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        }
    }

    fn kdfa_algorithm(self) -> Option<&'static KbkdfCtrHmacAlgorithm> {
        get_kbkdf_ctr_hmac_algorithm(match self {
            Hash::Sha256 => KbkdfCtrHmacAlgorithmId::Sha256,
            Hash::Sha384 => KbkdfCtrHmacAlgorithmId::Sha384,
        })
    }

    fn kdfe_algorithm(self) -> Option<&'static SskdfDigestAlgorithm> {
        get_sskdf_digest_algorithm(match self {
            Hash::Sha256 => SskdfDigestAlgorithmId::Sha256,
            Hash::Sha384 => SskdfDigestAlgorithmId::Sha384,
        })
    }

    /// The digest of the parts in a row.
    pub(super) fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = digest::Context::new(self.digest_algorithm());
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }

    /// The HMAC of the parts in a row.
    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.hmac_algorithm(), key));
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }

    /// Whether `tag` is the HMAC of the parts in a row, in constant time.
    pub(super) fn has_hmac(self, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.hmac(key, parts).as_slice(), tag).into()
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    array
}

/// `KDFa` (TPM 2.0 part 1, 11.4.10.2) of as many bytes as fit the output. The label comes without its NUL.
pub(super) fn kdfa(
    hash: Hash,
    key: &[u8],
    label: &str,
    (context_u, context_v): (&[u8], &[u8]),
    output: &mut [u8],
) -> Result<(), Refused> {
    let info = [label.as_bytes(), &[0], context_u, context_v, &bits(output)?].concat();
    Ok(kbkdf_ctr_hmac(hash.kdfa_algorithm().ok_or(Refused)?, key, &info, output)?)
}

/// `KDFe` (part 1, 11.4.10.3): a seed from a point shared by Diffie-Hellman.
pub(super) fn kdfe(
    hash: Hash,
    shared_x: &[u8],
    label: &str,
    (party_u_x, party_v_x): (&[u8], &[u8]),
    output: &mut [u8],
) -> Result<(), Refused> {
    let info = [label.as_bytes(), &[0], party_u_x, party_v_x].concat();
    Ok(sskdf_digest(hash.kdfe_algorithm().ok_or(Refused)?, shared_x, &info, output)?)
}

fn bits(output: &[u8]) -> Result<[u8; 4], Refused> {
    let bits = u32::try_from(output.len()).ok().and_then(|bytes| bytes.checked_mul(8)).ok_or(Refused)?;
    Ok(bits.to_be_bytes())
}

fn aes(key: &[u8]) -> Result<UnboundCipherKey, Refused> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return Err(Refused),
    };
    Ok(UnboundCipherKey::new(algorithm, key)?)
}

/// AES-CFB with an initialization vector of zeros, in place. Every key here encrypts once, as the specification has it.
pub(super) fn cfb_encrypt(key: &[u8], text: &mut [u8]) -> Result<(), Refused> {
    let zeros = EncryptionContext::Iv128(FixedLength::from(&[0; 16]));
    EncryptingKey::cfb128(aes(key)?)?.less_safe_encrypt(text, zeros)?;
    Ok(())
}

pub(super) fn cfb_decrypt(key: &[u8], text: &mut [u8]) -> Result<(), Refused> {
    let zeros = DecryptionContext::Iv128(FixedLength::from(&[0; 16]));
    DecryptingKey::cfb128(aes(key)?)?.decrypt(text, zeros)?;
    Ok(())
}

/// 65537, the only exponent that is taken.
const EXPONENT: &[u8] = &[1, 0, 1];

fn rsa_key(modulus: &[u8]) -> Result<PublicEncryptingKey, Refused> {
    Ok(PublicKeyComponents { n: modulus, e: EXPONENT }.try_into()?)
}

/// Whether the provider takes the modulus for one (odd, not tiny, of a size it knows).
pub(super) fn is_modulus(modulus: &[u8]) -> bool {
    rsa_key(modulus).is_ok()
}

/// Encrypts a seed by OAEP. The label comes with its NUL.
pub(super) fn oaep_encrypt(hash: Hash, modulus: &[u8], label: &[u8], seed: &[u8]) -> Result<Vec<u8>, Refused> {
    let key = OaepPublicEncryptingKey::new(rsa_key(modulus)?)?;
    let mut output = vec![0; key.ciphertext_size()];
    let written = key.encrypt(hash.oaep(), seed, &mut output, Some(label))?.len();
    output.truncate(written);
    Ok(output)
}

/// A curve that keys may be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Bytes of a coordinate.
    pub(super) fn size(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }

    fn agreement(self) -> &'static agreement::Algorithm {
        match self {
            Curve::P256 => &ECDH_P256,
            Curve::P384 => &ECDH_P384,
        }
    }
}

/// A point, its coordinates as long as the field.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) curve: Curve,
    pub(super) x: Vec<u8>,
    pub(super) y: Vec<u8>,
}

impl Point {
    /// SEC 1, uncompressed.
    fn bytes(&self) -> Vec<u8> {
        [&[4], self.x.as_slice(), self.y.as_slice()].concat()
    }

    fn parsed(&self) -> Result<ParsedPublicKey, Refused> {
        Ok(UnparsedPublicKey::new(self.curve.agreement(), self.bytes()).try_into()?)
    }

    pub(super) fn is_on_curve(&self) -> bool {
        self.parsed().is_ok()
    }
}

/// A private key for Diffie-Hellman.
pub(super) struct Scalar {
    curve: Curve,
    key: agreement::PrivateKey,
}

impl Scalar {
    /// From a big-endian number as long as the field; it must be one of the group's exponents.
    pub(super) fn new(curve: Curve, number: &[u8]) -> Result<Self, Refused> {
        Ok(Self { curve, key: agreement::PrivateKey::from_private_key(curve.agreement(), number)? })
    }

    pub(super) fn point(&self) -> Result<Point, Refused> {
        let public = self.key.compute_public_key()?;
        let (x, y) = match public.as_ref() {
            [4, coordinates @ ..] => coordinates.split_at_checked(self.curve.size()).ok_or(Refused)?,
            _ => return Err(Refused),
        };
        Ok(Point { curve: self.curve, x: x.to_vec(), y: y.to_vec() })
    }

    /// The x-coordinate shared with the owner of `other`.
    pub(super) fn agree(&self, other: &Point) -> Result<Zeroizing<Vec<u8>>, Refused> {
        agree(&self.key, other.parsed()?, Refused, |shared| Ok(Zeroizing::new(shared.to_vec())))
    }
}

/// How a quote is signed; always over SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RsaScheme {
    Pkcs1,
    Pss,
}

/// Whether the signature of the message is by the owner of the modulus.
pub(super) fn has_rsa_signature(scheme: RsaScheme, modulus: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let parameters: &RsaParameters = match scheme {
        RsaScheme::Pkcs1 => &RSA_PKCS1_2048_8192_SHA256,
        RsaScheme::Pss => &RSA_PSS_2048_8192_SHA256,
    };
    PublicKeyComponents { n: modulus, e: EXPONENT }.verify(parameters, message, signature).is_ok()
}

/// Whether the signature (`r` and `s`, 32 bytes each) of the message is by the owner of a point on P-256.
pub(super) fn has_ecdsa_signature(point: &Point, message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedSigner::new(&ECDSA_P256_SHA256_FIXED, point.bytes()).verify(message, signature).is_ok()
}

/// An RSA private key of the software stand-in.
pub(super) struct RsaSecret(OaepPrivateDecryptingKey);

impl RsaSecret {
    /// The key of a PKCS #8 document, and its public half as a SubjectPublicKeyInfo.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<(Self, Vec<u8>), Refused> {
        let key = PrivateDecryptingKey::from_pkcs8(der)?;
        let public: PublicKeyX509Der<'_> = key.public_key().as_der()?;
        Ok((Self(OaepPrivateDecryptingKey::new(key)?), public.as_ref().to_vec()))
    }

    pub(super) fn oaep_decrypt(&self, hash: Hash, label: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let mut output = Zeroizing::new(vec![0; self.0.min_output_size()]);
        let written = self.0.decrypt(hash.oaep(), text, &mut output, Some(label))?.len();
        output.truncate(written);
        Ok(output)
    }
}

/// An ECDSA private key of the software stand-in, on P-256.
pub(super) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(super) fn new(number: &[u8], point: &Point) -> Result<Self, Refused> {
        let key =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, number, &point.bytes())?;
        Ok(Self(key))
    }

    /// `r` and `s`, 32 bytes each.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        let signature = self.0.sign_digest(&digest::digest(&digest::SHA256, message))?;
        Ok(signature.as_ref().to_vec())
    }
}
