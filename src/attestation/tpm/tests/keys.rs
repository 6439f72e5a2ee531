//! The rules for each of the three keys, one broken at a time.

use super::super::software::{Material, SoftwareTpm};
use super::super::{
    AttestationKey, CertificateFault, EndorsementKey, Enrolled, KeyFault, Part, Presented, PublicArea, Refusal, Rule,
    StorageKey, begin,
};
use super::certificates::{fleet, issue, root};
use super::{NOW, draw, stand_in, vector};
use crate::domain::{EnrollmentId, GroupId, Version};

/// What is done to a public area; offsets do not count the size in front.
enum Edit {
    /// The bytes at the offset are these.
    Set(usize, &'static [u8]),
    /// Bits of the attributes are cleared.
    Clear(u32),
    /// Bits of the attributes are set.
    Add(u32),
    /// The bytes from the offset on are these.
    From(usize, Vec<u8>),
    Append(&'static [u8]),
    Cut(usize),
}

fn edited(file: &str, edits: &[Edit]) -> Vec<u8> {
    let mut area = vector(file).split_off(2);
    for edit in edits {
        match edit {
            Edit::Set(at, bytes) => area[*at..at + bytes.len()].copy_from_slice(bytes),
            Edit::Clear(bits) | Edit::Add(bits) => {
                let attributes = u32::from_be_bytes(area[4..8].try_into().unwrap());
                let changed = if matches!(edit, Edit::Clear(_)) { attributes & !bits } else { attributes | bits };
                area[4..8].copy_from_slice(&changed.to_be_bytes());
            }
            Edit::From(at, bytes) => {
                area.truncate(*at);
                area.extend(bytes);
            }
            Edit::Append(bytes) => area.extend(*bytes),
            Edit::Cut(count) => area.truncate(area.len() - count),
        }
    }
    [&u16::try_from(area.len()).unwrap().to_be_bytes()[..], &area].concat()
}

fn endorsement(bytes: &[u8]) -> Result<(), KeyFault> {
    EndorsementKey::validate(PublicArea::parse(bytes)?).map(|_| ())
}

fn storage(bytes: &[u8]) -> Result<(), KeyFault> {
    StorageKey::validate(PublicArea::parse(bytes)?).map(|_| ())
}

fn attestation(bytes: &[u8]) -> Result<(), KeyFault> {
    AttestationKey::validate(PublicArea::parse(bytes)?).map(|_| ())
}

fn check(judge: fn(&[u8]) -> Result<(), KeyFault>, file: &str, edits: &[Edit], expected: Result<(), KeyFault>) {
    let bytes = edited(file, edits);
    assert_eq!(judge(&bytes), expected, "{file} {}", data_encoding::HEXLOWER.encode(&bytes));
}

const FIXED_TPM: u32 = 0x2;
const FIXED_PARENT: u32 = 0x10;
const ORIGIN: u32 = 0x20;
const RESTRICTED: u32 = 0x1_0000;
const DECRYPT: u32 = 0x2_0000;
const SIGN: u32 = 0x4_0000;
/// An attribute of later revisions: taken, since it loosens nothing that is asked.
const FIRMWARE_LIMITED: u32 = 0x100;

// Where the fields of an endorsement key by the templates of the low range stand.
const KIND: usize = 0;
const NAME_ALGORITHM: usize = 2;
const CIPHER: usize = 42;
const CIPHER_BITS: usize = 44;
const CIPHER_MODE: usize = 46;
const SCHEME: usize = 48;
const RSA_BITS: usize = 50;
const RSA_EXPONENT: usize = 52;
const RSA_UNIQUE: usize = 56;
const CURVE: usize = 50;
const KDF: usize = 52;
const POINT: usize = 54;

fn rsa_unique(modulus: &[u8]) -> Vec<u8> {
    [&u16::try_from(modulus.len()).unwrap().to_be_bytes()[..], modulus].concat()
}

fn point(x: &[u8], y: &[u8]) -> Vec<u8> {
    [rsa_unique(x), rsa_unique(y)].concat()
}

#[test]
fn endorsement_keys() {
    use Edit::{Add, Append, Clear, Cut, Set};
    for file in ["ek-rsa.pub", "ek-p256.pub"] {
        check(endorsement, file, &[], Ok(()));
        check(endorsement, file, &[Add(FIRMWARE_LIMITED)], Ok(()));
        // A maker may have put it in from outside.
        check(endorsement, file, &[Clear(ORIGIN)], Ok(()));
        check(endorsement, file, &[Set(CIPHER_BITS, &[1, 0])], Ok(()));
        check(endorsement, file, &[Clear(FIXED_TPM)], Err(KeyFault::NotFixed));
        check(endorsement, file, &[Clear(FIXED_PARENT)], Err(KeyFault::NotFixed));
        check(endorsement, file, &[Clear(RESTRICTED)], Err(KeyFault::NotRestricted));
        check(endorsement, file, &[Clear(DECRYPT)], Err(KeyFault::NotForStorage));
        check(endorsement, file, &[Add(SIGN)], Err(KeyFault::NotForStorage));
        check(endorsement, file, &[Clear(DECRYPT), Add(SIGN)], Err(KeyFault::NotForStorage));
        for algorithm in [&[0, 0x04], &[0, 0x0d], &[0, 0x10], &[0, 0x12], &[0, 0x27]] {
            check(endorsement, file, &[Set(NAME_ALGORITHM, algorithm)], Err(KeyFault::NameAlgorithmNotAllowed));
        }
        check(endorsement, file, &[Set(NAME_ALGORITHM, &[0x7f, 0xff])], Err(KeyFault::Malformed));
        check(endorsement, file, &[Set(KIND, &[0x7f, 0xff])], Err(KeyFault::Malformed));
        check(endorsement, file, &[Set(CIPHER, &[0x7f, 0xff])], Err(KeyFault::Malformed));
        check(endorsement, file, &[Set(CIPHER, &[0, 0x26])], Err(KeyFault::SymmetricNotAllowed));
        check(endorsement, file, &[Set(CIPHER_BITS, &[0, 192])], Err(KeyFault::SymmetricNotAllowed));
        check(endorsement, file, &[Set(CIPHER_BITS, &[0, 0])], Err(KeyFault::SymmetricNotAllowed));
        check(endorsement, file, &[Set(CIPHER_MODE, &[0, 0x44])], Err(KeyFault::SymmetricNotAllowed));
        check(endorsement, file, &[Append(&[0])], Err(KeyFault::TrailingBytes));
        check(endorsement, file, &[Cut(1)], Err(KeyFault::Malformed));
        check(endorsement, file, &[Cut(60)], Err(KeyFault::Malformed));
    }
    // A bare RSA scheme has no details, so everything behind it stands where it was.
    check(endorsement, "ek-rsa.pub", &[Set(SCHEME, &[0, 0x15])], Err(KeyFault::SchemeNotAllowed));
    check(endorsement, "ek-p384.pub", &[], Ok(()));
}

#[test]
fn rsa_numbers() {
    use Edit::{From, Set};
    let modulus = vector("ek-rsa.pub").split_off(2 + RSA_UNIQUE + 2);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut changed = modulus.clone();
        change(&mut changed);
        From(RSA_UNIQUE, rsa_unique(&changed))
    };
    let file = "ek-rsa.pub";
    check(endorsement, file, &[with(|_| {})], Ok(()));
    check(endorsement, file, &[Set(RSA_EXPONENT, &[0, 1, 0, 1])], Ok(()));
    check(endorsement, file, &[Set(RSA_EXPONENT, &[0, 0, 0, 3])], Err(KeyFault::ExponentNotAllowed));
    check(endorsement, file, &[Set(RSA_EXPONENT, &[0, 0, 0, 1])], Err(KeyFault::ExponentNotAllowed));
    check(endorsement, file, &[Set(RSA_BITS, &[4, 0])], Err(KeyFault::SizeNotAllowed));
    check(endorsement, file, &[Set(RSA_BITS, &[8, 1])], Err(KeyFault::SizeNotAllowed));
    check(endorsement, file, &[Set(RSA_BITS, &[0x20, 0])], Err(KeyFault::SizeNotAllowed));
    check(endorsement, file, &[Set(RSA_BITS, &[12, 0])], Err(KeyFault::ModulusInvalid));
    // The template of a key, before a TPM has filled it.
    check(endorsement, file, &[with(|it| it.fill(0))], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it.clear())], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it.truncate(128))], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it[255] &= 0xfe)], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it[0] &= 0x7f)], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it.insert(0, 0))], Err(KeyFault::ModulusInvalid));
    check(endorsement, file, &[with(|it| it.resize(513, 1))], Err(KeyFault::Malformed));
}

#[test]
fn points() {
    use Edit::{From, Set};
    let bytes = vector("ek-p256.pub").split_off(2 + POINT);
    let (x, y) = (bytes[2..34].to_vec(), bytes[36..68].to_vec());
    let at = |x: &[u8], y: &[u8]| From(POINT, point(x, y));
    let file = "ek-p256.pub";
    check(endorsement, file, &[at(&x, &y)], Ok(()));
    check(endorsement, file, &[Set(KDF, &[0, 0x07, 0])], Err(KeyFault::Malformed));
    check(endorsement, file, &[at(&y, &x)], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[0; 32], &[0; 32])], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[], &[])], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[0xff; 32], &y)], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[vec![0], x.clone()].concat(), &y)], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[7; 48], &[7; 48])], Err(KeyFault::PointInvalid));
    check(endorsement, file, &[at(&[7; 67], &y)], Err(KeyFault::Malformed));
    // Of another curve than it says.
    check(endorsement, file, &[Set(CURVE, &[0, 4])], Err(KeyFault::PointInvalid));
    for curve in [&[0, 1], &[0, 2], &[0, 5], &[0, 0x10], &[0, 0x20], &[0, 0x40]] {
        check(endorsement, file, &[Set(CURVE, curve)], Err(KeyFault::CurveNotAllowed));
    }
    check(endorsement, file, &[Set(CURVE, &[0x7f, 0xff])], Err(KeyFault::Malformed));
}

/// Whether a group that trusts who made the certificates challenges a device with this endorsement key.
fn challenged(area: &[u8], anchor: &[u8], chain: &[Vec<u8>]) -> Result<(), Refusal> {
    let presented = Presented::parse(area, &vector("srk-p256.pub"), None, chain).unwrap();
    let (id, group) = (presented.registration_id(), EnrollmentId::Group(GroupId::parse("fleet").unwrap()));
    let fleet = fleet(&[anchor.to_vec()]);
    let enrolled = Enrolled { id: &group, version: Version(1), rule: Rule::Fleet(&fleet) };
    begin(presented, enrolled, &id, b"", &draw(1), NOW).map(|_| ())
}

/// A certificate and a TPM vouch for the numbers of an endorsement key alone. Whatever else its area says could be said by
/// one TPM in many ways, each with another hash, under which it would be another device.
#[test]
fn a_fleet_knows_a_key_in_one_form() {
    use Edit::{Add, Clear, From, Set};
    const POLICY: usize = 10;
    let (maker, intermediate) = (vector("root.der"), vector("intermediate.der"));
    let own = root(&|_| {});
    let refused = Err(KeyFault::NotByTemplate.of(Part::EndorsementKey));
    // The high range's policy over SHA-256: of the same numbers as the low range's template.
    let policy_b = b"\xca\x3d\x0a\x99\xa2\xb9\x39\x06\xf7\xa3\x34\x24\x14\xef\xcf\xb3\
        \xa3\x85\xd4\x4c\xd1\xfd\x45\x90\x89\xd1\x9b\x50\x71\xc0\xb7\xa0";
    for (file, anchor, chain) in [
        ("ek-rsa.pub", maker.as_slice(), vec![vector("ek-rsa-cert.der"), intermediate.clone()]),
        ("ek-p384.pub", &maker, vec![vector("ek-p384-cert.der"), intermediate.clone()]),
        ("software-ek-p256.pub", own.der(), vec![issue(&own, &|_| {})]),
    ] {
        assert_eq!(challenged(&edited(file, &[]), anchor, &chain), Ok(()), "{file}");
        let missing = Err(Refusal::Certificate(CertificateFault::Missing));
        assert_eq!(challenged(&edited(file, &[]), anchor, &[]), missing, "{file}");
        let area = vector(file).split_off(2);
        let policy_ends = POLICY + usize::from(area[POLICY - 1]);
        let no_policy = [&[0, 0], &area[policy_ends..]].concat();
        let longer_policy = [&[0, area[POLICY - 1] + 1][..], &area[POLICY..policy_ends], &[0], &area[policy_ends..]];
        let mut changed = vec![
            edited(file, &[Set(POLICY, &[0x55])]),
            edited(file, &[From(POLICY - 2, no_policy)]),
            edited(file, &[From(POLICY - 2, longer_policy.concat())]),
            edited(file, &[Clear(ORIGIN)]),
        ];
        // Each attribute that is not looked at by itself: stClear, userWithAuth, adminWithPolicy, firmware and SVN limited,
        // noDA, encryptedDuplication, and reserved ones as far as they parse.
        for bit in (0..32).map(|bit| 1_u32 << bit) {
            if ![FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED, DECRYPT, SIGN].contains(&bit) {
                changed.push(edited(file, &[Add(bit)]));
                changed.push(edited(file, &[Clear(bit)]));
            }
        }
        match file {
            "ek-p384.pub" => {
                changed.push(edited(file, &[Set(NAME_ALGORITHM, &[0, 0x0b])]));
                changed.push(edited(file, &[Set(CIPHER_BITS + 16, &[0, 128])]));
            }
            _ => {
                changed.push(edited(file, &[Set(NAME_ALGORITHM, &[0, 0x0c])]));
                changed.push(edited(file, &[Set(CIPHER_BITS, &[1, 0])]));
                changed.push(edited(file, &[Set(POLICY, policy_b), Add(0x40)]));
            }
        }
        if file == "ek-rsa.pub" {
            changed.push(edited(file, &[Set(RSA_EXPONENT, &[0, 1, 0, 1])]));
        }
        let mut refusals = 0;
        for bytes in changed.iter().filter(|bytes| **bytes != vector(file) && endorsement(bytes) == Ok(())) {
            refusals += 1;
            let shown = data_encoding::HEXLOWER.encode(bytes);
            assert_eq!(challenged(bytes, anchor, &chain), refused, "{file} {shown}");
        }
        assert!(refusals > 12, "{file}: {refusals}");
    }
}

/// A coordinate that begins with zeros can be written without them.
#[test]
fn a_fleet_knows_a_point_at_its_full_length() {
    let tpms = (1..=u16::MAX).map(|number| {
        let mut scalar = [0; 32];
        scalar[30..].copy_from_slice(&number.to_be_bytes());
        SoftwareTpm::new(Material::P256(&scalar), Material::P256(&[0x22; 32]), &[0x33; 32]).unwrap()
    });
    let area = |tpm: &SoftwareTpm| tpm.endorsement_key().as_bytes().split_at(2).1.to_vec();
    let bytes = tpms.map(|tpm| area(&tpm)).find(|area| area[POINT + 2] == 0).unwrap();
    let full = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    let coordinates = point(&bytes[POINT + 3..POINT + 34], &bytes[POINT + 36..]);
    let short = [&bytes[..POINT], &coordinates].concat();
    let short = [&u16::try_from(short.len()).unwrap().to_be_bytes()[..], &short].concat();
    let (own, chain) = (root(&|_| {}), [vector("ek-rsa-cert.der")]);
    let other = Err(Refusal::Certificate(CertificateFault::KeyMismatch));
    assert_eq!(challenged(&full, own.der(), &chain), other);
    assert_eq!(endorsement(&short), Ok(()), "an individual enrollment names it as it is");
    assert_eq!(challenged(&short, own.der(), &chain), Err(KeyFault::NotByTemplate.of(Part::EndorsementKey)));
}

/// A storage key that was made in software and imported has every attribute of the real one but these.
#[test]
fn storage_keys() {
    use Edit::{Add, Clear};
    for file in ["srk-rsa.pub", "srk-p256.pub", "software-srk-p384.pub"] {
        check(storage, file, &[], Ok(()));
        check(storage, file, &[Clear(FIXED_TPM | FIXED_PARENT | ORIGIN)], Err(KeyFault::NotFixed));
        check(storage, file, &[Clear(FIXED_TPM)], Err(KeyFault::NotFixed));
        check(storage, file, &[Clear(FIXED_PARENT)], Err(KeyFault::NotFixed));
        check(storage, file, &[Clear(ORIGIN)], Err(KeyFault::OriginNotTpm));
        check(storage, file, &[Clear(RESTRICTED)], Err(KeyFault::NotRestricted));
        check(storage, file, &[Clear(DECRYPT)], Err(KeyFault::NotForStorage));
        check(storage, file, &[Add(SIGN)], Err(KeyFault::NotForStorage));
    }
    // An attestation key is none, nor is the token key that came out of a blob.
    check(storage, "ak-ecdsa.pub", &[], Err(KeyFault::NotForStorage));
    check(storage, "duplicate.pub", &[], Err(KeyFault::KindNotAllowed));
}

#[test]
fn attestation_keys() {
    use Edit::{Add, Clear, Set};
    for file in ["ak-ecdsa.pub", "ak-rsassa.pub", "ak-rsapss.pub"] {
        check(attestation, file, &[], Ok(()));
        check(attestation, file, &[Clear(FIXED_TPM)], Err(KeyFault::NotFixed));
        check(attestation, file, &[Clear(FIXED_PARENT)], Err(KeyFault::NotFixed));
        check(attestation, file, &[Clear(ORIGIN)], Err(KeyFault::OriginNotTpm));
        // It would sign whatever its owner says that the TPM said.
        check(attestation, file, &[Clear(RESTRICTED)], Err(KeyFault::NotRestricted));
        check(attestation, file, &[Clear(SIGN)], Err(KeyFault::NotForSigning));
        check(attestation, file, &[Add(DECRYPT)], Err(KeyFault::NotForSigning));
        // The hash of the scheme: SHA-1, SHA-384.
        check(attestation, file, &[Set(14, &[0, 0x04])], Err(KeyFault::SchemeNotAllowed));
        check(attestation, file, &[Set(14, &[0, 0x0c])], Err(KeyFault::SchemeNotAllowed));
    }
    // ECDAA lacks a field here, OAEP does not sign, and an elliptic-curve key does not sign as RSA does.
    check(attestation, "ak-ecdsa.pub", &[Set(12, &[0, 0x1b])], Err(KeyFault::SchemeNotAllowed));
    check(attestation, "ak-rsassa.pub", &[Set(12, &[0, 0x17])], Err(KeyFault::SchemeNotAllowed));
    check(attestation, "ak-ecdsa.pub", &[Set(12, &[0, 0x14])], Err(KeyFault::SchemeNotAllowed));
    check(attestation, "srk-rsa.pub", &[], Err(KeyFault::NotForSigning));
    check(attestation, "duplicate.pub", &[], Err(KeyFault::KindNotAllowed));
}

#[test]
fn public_areas_are_bounded_and_end_where_they_say() {
    let whole = vector("ek-rsa.pub");
    let area = |bytes: &[u8]| PublicArea::parse(bytes).map(|_| ());
    assert_eq!(area(&whole), Ok(()));
    assert_eq!(area(&[]), Err(KeyFault::Malformed));
    assert_eq!(area(&[0]), Err(KeyFault::Malformed));
    assert_eq!(area(&[0, 0]), Err(KeyFault::Malformed));
    // Without the size in front, the kind of the key is read as one.
    assert_eq!(area(&whole[2..]), Err(KeyFault::TrailingBytes));
    assert_eq!(area(&[whole.as_slice(), &[0]].concat()), Err(KeyFault::TrailingBytes));
    assert_eq!(area(&vec![0; 1025]), Err(KeyFault::TooLarge));
    assert_eq!(area(&[&[0x04, 0x00][..], &[0; 1024]].concat()), Err(KeyFault::TooLarge));
    for end in 0..whole.len() {
        assert_eq!(area(&whole[..end]), Err(KeyFault::Malformed), "{end}");
    }
}

#[test]
fn a_stand_in_has_an_attestation_key() {
    let tpm = stand_in("p256");
    assert_eq!(attestation(tpm.attestation_key().as_bytes()), Ok(()));
}
