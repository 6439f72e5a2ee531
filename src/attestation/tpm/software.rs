//! A TPM without a chip: it holds keys, opens what is sealed to them, signs tokens and quotes registers. For tests and for
//! load, never for a device: its keys lie in ordinary memory, and its public areas claim what only a chip can keep.
//!
//! It refuses what a TPM refuses: every integrity is checked before anything is decrypted.

use std::collections::BTreeMap;
use std::fmt;

use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::data::{TpmAlgId, TpmtPublic};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::blob::{Blob, INNER_KEY_SIZE};
use super::challenge::QuoteWanted;
use super::crypto::{Curve, Hash, Point, Refused, RsaSecret, Scalar, Signer, cfb_decrypt};
use super::draw::Draw;
use super::duplicate;
use super::form::{Reader, sized};
use super::protect::{Purpose, agreed_seed, unprotect};
use super::public::PublicArea;
use super::quote::{NONCE_SIZE, Quote};
use crate::domain::{PcrIndex, PcrValue, TokenKey, TpmName, TpmPublic};

/// What a key is made of.
#[derive(Clone, Copy)]
pub enum Material<'a> {
    /// A PKCS #8 document of an RSA key of 2048 bits.
    Rsa(&'a [u8]),
    P256(&'a [u8; 32]),
    P384(&'a [u8; 48]),
}

/// Why the stand-in refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the key material is no private key")]
    Material,
    #[error("the activation blob does not consist of six fields")]
    BlobMalformed,
    #[error("the credential is not for this endorsement key and this object")]
    CredentialRefused,
    #[error("the key is not wrapped for this storage key, or not as its public area says")]
    ImportRefused,
    #[error("the quote could not be made")]
    QuoteRefused,
}

/// What an activation blob gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    pub key: TokenKey,
    pub user_data: Vec<u8>,
}

/// The stand-in.
pub struct SoftwareTpm {
    endorsement: Private,
    storage: Private,
    signer: Signer,
    attestation_key: TpmPublic,
    registers: BTreeMap<PcrIndex, PcrValue>,
}

struct Private {
    public: TpmPublic,
    name: TpmName,
    hash: Hash,
    symmetric_size: usize,
    secret: Secret,
}

enum Secret {
    Rsa(RsaSecret),
    Ecc(Scalar, Point),
}

/// `PolicySecret` of the endorsement hierarchy, which the TCG's templates of the low range have.
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7,
    0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const EK_ATTRIBUTES: u32 = 0x0003_00b2;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
const SRK_ATTRIBUTES: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
const AK_ATTRIBUTES: u32 = 0x0005_0072;

impl SoftwareTpm {
    /// A TPM with these keys. The attestation key signs by ECDSA on P-256.
    pub fn new(endorsement: Material<'_>, storage: Material<'_>, attestation: &[u8; 32]) -> Result<Self, Fault> {
        Self::make(endorsement, storage, attestation).map_err(|Refused| Fault::Material)
    }

    /// A TPM of the draw: all its keys are on P-256.
    pub fn of(draw: &Draw) -> Result<Self, Fault> {
        let number = |label| -> Result<Zeroizing<[u8; 32]>, Refused> {
            let mut number = Zeroizing::new([0; 32]);
            number.copy_from_slice(&draw.secret(label, 32)?);
            Ok(number)
        };
        let numbers = || Ok((number("endorsement key")?, number("storage root key")?, number("attestation key")?));
        let (endorsement, storage, attestation) = numbers().map_err(|Refused| Fault::Material)?;
        Self::new(Material::P256(&endorsement), Material::P256(&storage), &attestation)
    }

    fn make(endorsement: Material<'_>, storage: Material<'_>, attestation: &[u8; 32]) -> Result<Self, Refused> {
        let point = Scalar::new(Curve::P256, attestation)?.point()?;
        let signer = Signer::new(attestation, &point)?;
        Ok(Self {
            endorsement: Private::new(endorsement, EK_ATTRIBUTES, &EK_POLICY)?,
            storage: Private::new(storage, SRK_ATTRIBUTES, &[])?,
            signer,
            attestation_key: attestation_public(&point)?,
            registers: BTreeMap::new(),
        })
    }

    pub fn endorsement_key(&self) -> &TpmPublic {
        &self.endorsement.public
    }

    pub fn storage_root_key(&self) -> &TpmPublic {
        &self.storage.public
    }

    pub fn attestation_key(&self) -> &TpmPublic {
        &self.attestation_key
    }

    /// What a register holds from now on; the others hold zeros.
    pub fn set_register(&mut self, index: PcrIndex, value: PcrValue) {
        self.registers.insert(index, value);
    }

    /// Opens an activation blob, as `TPM2_ActivateCredential`, `TPM2_Import` and `TPM2_Load` do.
    pub fn activate(&self, blob: &[u8]) -> Result<Activated, Fault> {
        let blob = Blob::parse(blob).map_err(|_| Fault::BlobMalformed)?;
        let inner_key = self
            .activate_credential(&self.storage.name, blob.id_object, blob.credential_seed)
            .map_err(|Refused| Fault::CredentialRefused)?;
        let key = self.import(&blob, &inner_key).map_err(|Refused| Fault::ImportRefused)?;
        let mut user_data = blob.user_data.to_vec();
        if !user_data.is_empty() {
            cfb_decrypt(&inner_key, &mut user_data).map_err(|Refused| Fault::ImportRefused)?;
        }
        Ok(Activated { key, user_data })
    }

    /// Quotes the registers that a challenge asks for, and shows that the key of the quote is in this TPM.
    pub fn quote(&self, wanted: &QuoteWanted) -> Result<Quote, Fault> {
        let name = PublicArea::of(self.attestation_key.clone()).map_err(|_| Fault::QuoteRefused)?.name();
        let opened = || -> Result<Vec<u8>, Refused> {
            let mut reader = Reader::new(wanted.credential.as_ref().ok_or(Refused)?);
            let secret = self.activate_credential(&name, reader.sized()?, reader.sized()?)?;
            Ok(Hash::Sha256.hmac(&secret, &[&wanted.nonce]))
        };
        let proof = opened().map_err(|Refused| Fault::CredentialRefused)?;
        let mut key_proof = [0; NONCE_SIZE];
        key_proof.copy_from_slice(&proof);
        let value = |index: &PcrIndex| self.registers.get(index).copied().unwrap_or(PcrValue([0; 32]));
        let values: Vec<_> = wanted.indices.iter().map(|index| (*index, value(index))).collect();
        let made = || -> Result<(Vec<u8>, Vec<u8>), Refused> {
            let attest = attest(&name, &wanted.nonce, &values)?;
            let signature = self.signer.sign(&attest)?;
            let (r, s) = signature.split_at_checked(32).ok_or(Refused)?;
            let signature = [&[0x00, 0x18, 0x00, 0x0b][..], &sized(r)?, &sized(s)?].concat();
            Ok((attest, signature))
        };
        let (attest, signature) = made().map_err(|Refused| Fault::QuoteRefused)?;
        Ok(Quote { attest, signature, values, key_proof })
    }

    /// Gives the secret of a credential, if it is for this endorsement key and the named object. Without the sizes.
    pub(super) fn activate_credential(
        &self,
        object: &TpmName,
        id_object: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let seed = self.endorsement.seed(Purpose::Identity, encrypted_secret)?;
        let text = unprotect(self.endorsement.parameters(), &seed, object, id_object)?;
        let mut reader = Reader::new(&text);
        let secret = reader.sized()?.to_vec();
        reader.end()?;
        Ok(Zeroizing::new(secret))
    }

    pub(super) fn import(&self, blob: &Blob<'_>, inner_key: &[u8]) -> Result<TokenKey, Refused> {
        let public = PublicArea::parse(&sized(blob.public)?).map_err(|_| Refused)?;
        let seed = self.storage.seed(Purpose::Duplicate, blob.duplicate_seed)?;
        let mut inner = unprotect(self.storage.parameters(), &seed, &public.name(), blob.private)?;
        if inner_key.len() != INNER_KEY_SIZE {
            return Err(Refused);
        }
        cfb_decrypt(inner_key, &mut inner)?;
        let mut reader = Reader::new(&inner);
        let integrity = reader.sized()?;
        let sensitive = reader.rest();
        if duplicate::HASH.of(&[sensitive, public.name().as_bytes()]) != integrity {
            return Err(Refused);
        }
        unwrap_key(sensitive, public.public().area())
    }
}

impl fmt::Debug for Material<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material(****)")
    }
}

impl fmt::Debug for SoftwareTpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareTpm({})", self.endorsement.name)
    }
}

impl Private {
    fn new(material: Material<'_>, attributes: u32, policy: &[u8]) -> Result<Self, Refused> {
        let ecc = |curve, number: &[u8]| -> Result<(Numbers, Secret), Refused> {
            let scalar = Scalar::new(curve, number)?;
            let point = scalar.point()?;
            Ok((Numbers::Ecc(point.clone()), Secret::Ecc(scalar, point)))
        };
        let (hash, symmetric_size, (numbers, secret)) = match material {
            Material::Rsa(pkcs8) => {
                let (secret, spki) = RsaSecret::from_pkcs8(pkcs8)?;
                (Hash::Sha256, 16, (Numbers::Rsa(modulus(&spki)?), Secret::Rsa(secret)))
            }
            Material::P256(number) => (Hash::Sha256, 16, ecc(Curve::P256, number)?),
            Material::P384(number) => (Hash::Sha384, 32, ecc(Curve::P384, number)?),
        };
        let public = storage_public(hash, symmetric_size, &numbers, attributes, policy)?;
        let name = PublicArea::of(public.clone()).map_err(|_| Refused)?.name();
        Ok(Self { public, name, hash, symmetric_size, secret })
    }

    fn parameters(&self) -> (Hash, usize) {
        (self.hash, self.symmetric_size)
    }

    /// The seed that was shared with this key.
    fn seed(&self, purpose: Purpose, encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        match &self.secret {
            Secret::Rsa(key) => key.oaep_decrypt(self.hash, &purpose.oaep_label(), encrypted),
            Secret::Ecc(scalar, own) => {
                let mut reader = Reader::new(encrypted);
                let theirs = Point { curve: own.curve, x: reader.sized()?.to_vec(), y: reader.sized()?.to_vec() };
                reader.end()?;
                agreed_seed(self.hash, purpose, scalar, &theirs, (&theirs.x, &own.x))
            }
        }
    }
}

enum Numbers {
    Rsa(Vec<u8>),
    Ecc(Point),
}

/// The key of a sensitive area, if it is the one that the public area was made of.
fn unwrap_key(sensitive: &[u8], public: &[u8]) -> Result<TokenKey, Refused> {
    let mut reader = Reader::new(sensitive);
    let area = reader.sized()?;
    reader.end()?;
    let mut reader = Reader::new(area);
    if reader.number()? != TpmAlgId::KeyedHash.value() {
        return Err(Refused);
    }
    let _authorization = reader.sized()?;
    let (obfuscation, key) = (reader.sized()?, reader.sized()?);
    reader.end()?;
    let (parsed, _) = TpmtPublic::unmarshal(public).map_err(|_| Refused)?;
    let unique = sized(&duplicate::HASH.of(&[obfuscation, key]))?;
    if parsed.object_type != TpmAlgId::KeyedHash || !public.ends_with(&unique) {
        return Err(Refused);
    }
    TokenKey::new(key).map_err(|_| Refused)
}

fn modulus(spki: &[u8]) -> Result<Vec<u8>, Refused> {
    let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| Refused)?;
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => Ok(rsa.modulus.iter().copied().skip_while(|byte| *byte == 0).collect()),
        Ok(_) | Err(_) => Err(Refused),
    }
}

fn storage_public(
    hash: Hash,
    symmetric_size: usize,
    numbers: &Numbers,
    attributes: u32,
    policy: &[u8],
) -> Result<TpmPublic, Refused> {
    let name_algorithm: [u8; 2] = match hash {
        Hash::Sha256 => [0x00, 0x0b],
        Hash::Sha384 => [0x00, 0x0c],
    };
    let key_bits = u16::try_from(symmetric_size * 8).map_err(|_| Refused)?;
    // AES in CFB mode, then no scheme.
    let symmetric = [&[0x00, 0x06][..], &key_bits.to_be_bytes(), &[0x00, 0x43, 0x00, 0x10]].concat();
    let (kind, rest): ([u8; 2], Vec<u8>) = match numbers {
        Numbers::Rsa(modulus) => {
            let bits = u16::try_from(modulus.len() * 8).map_err(|_| Refused)?;
            ([0x00, 0x01], [&bits.to_be_bytes()[..], &[0; 4], &sized(modulus)?].concat())
        }
        Numbers::Ecc(point) => {
            let curve = match point.curve {
                Curve::P256 => 3,
                Curve::P384 => 4,
            };
            ([0x00, 0x23], [&[0x00, curve, 0x00, 0x10][..], &sized(&point.x)?, &sized(&point.y)?].concat())
        }
    };
    let attributes = attributes.to_be_bytes();
    public([&kind[..], &name_algorithm, &attributes, &sized(policy)?, &symmetric, &rest].concat())
}

fn attestation_public(point: &Point) -> Result<TpmPublic, Refused> {
    let attributes = AK_ATTRIBUTES.to_be_bytes();
    // No policy, no symmetric cipher, ECDSA over SHA-256, P-256, no derivation.
    let parameters = [0x00, 0x00, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10];
    let head: [&[u8]; 3] = [&[0x00, 0x23, 0x00, 0x0b], &attributes, &parameters];
    public([head.concat(), sized(&point.x)?, sized(&point.y)?].concat())
}

fn public(area: Vec<u8>) -> Result<TpmPublic, Refused> {
    TpmPublic::parse(&sized(&area)?).map_err(|_| Refused)
}

/// A `TPMS_ATTEST` of a quote. The clock stands still and the firmware has no version.
fn attest(signer: &TpmName, nonce: &[u8], values: &[(PcrIndex, PcrValue)]) -> Result<Vec<u8>, Refused> {
    let mut bitmap = [0u8; 3];
    for (index, _) in values {
        let number = usize::from(index.number());
        *bitmap.get_mut(number / 8).ok_or(Refused)? |= 1 << (number % 8);
    }
    let parts: Vec<&[u8]> = values.iter().map(|(_, value)| value.0.as_slice()).collect();
    let clock_and_firmware = [0; 8 + 4 + 4 + 1 + 8];
    Ok([
        &[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..],
        &sized(signer.as_bytes())?,
        &sized(nonce)?,
        &clock_and_firmware,
        &[0, 0, 0, 1, 0x00, 0x0b, 3],
        &bitmap,
        &sized(&Hash::Sha256.of(&parts))?,
    ]
    .concat())
}
