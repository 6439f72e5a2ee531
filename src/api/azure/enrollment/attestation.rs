//! How an enrollment's devices prove themselves, as existing service SDKs write and read it (reference/dps.md §1.3).
//!
//! An answer shows no certificate, only what is known of it, and keys only where they are asked for. So what comes back
//! in a later write lacks them: what is missing there is kept as it is stored.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXUPPER};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::api::azure::fault::Refusal;
use crate::api::azure::members::{Members, wrong};
use crate::api::azure::names::Names;
use crate::api::azure::time::seven_digits;
use crate::domain::{
    Attestation, AttestationDraft, CertificateRef, KeyPair, SrkDraft, SrkRule, TokenKey, TpmPublic, X509Anchors,
    X509Leaves, limits,
};
use crate::service::describe_certificate;

use super::EnrollmentKind;

/// Base64 makes four characters of three bytes, and of PEM again as many; line ends and markers are the rest.
const CERTIFICATE_CHARS_MAX: usize = 4 * limits::CERTIFICATE_BYTES_MAX;

/// Reads the member `attestation` of an enrollment, of which `stored` may be there already.
pub fn draft(
    kind: EnrollmentKind,
    given: &Members<'_>,
    stored: Option<&Attestation>,
    names: &Names,
) -> Result<AttestationDraft, Refusal> {
    let path = given.path("type");
    let word = given.text("type")?.ok_or_else(|| wrong(&path, "is missing"))?;
    match (word.to_ascii_lowercase().as_str(), kind) {
        ("x509", EnrollmentKind::Individual) => leaves(given, stored),
        ("x509", EnrollmentKind::Group) => authorities(given, stored, names),
        ("tpm", EnrollmentKind::Individual) => tpm(given, stored),
        ("tpm", EnrollmentKind::Group) => fleet(&path, stored),
        ("symmetrickey", EnrollmentKind::Individual | EnrollmentKind::Group) => keys(given),
        ("none", EnrollmentKind::Individual | EnrollmentKind::Group) => {
            Err(wrong(&path, "is none: nobody gets in without proof"))
        }
        (_, EnrollmentKind::Individual | EnrollmentKind::Group) => {
            Err(wrong(&path, "is not one of x509, tpm and symmetricKey"))
        }
    }
}

/// Both certificates of a pair, as given: nothing where only what is known of one came back.
struct Pair {
    primary: Option<Vec<u8>>,
    secondary: Option<Vec<u8>>,
}

impl Pair {
    fn read(given: &Members<'_>) -> Result<Self, Refusal> {
        let one = |name: &str| match given.value(name) {
            Some(Value::String(text)) => certificate(&given.path(name), text).map(Some),
            _ => match given.object(name)? {
                None => Ok(None),
                Some(one) => {
                    let text = one.text("certificate")?;
                    text.map(|text| certificate(&one.path("certificate"), text)).transpose()
                }
            },
        };
        Ok(Self { primary: one("primary")?, secondary: one("secondary")? })
    }

    /// What is missing is kept; one that moves up to be the primary one is not kept twice.
    fn over(
        self,
        path: &str,
        kept: Option<(&CertificateRef, Option<&CertificateRef>)>,
    ) -> Result<AttestationDraft, Refusal> {
        let (kept_primary, kept_secondary) = kept.unzip();
        let kept_secondary = kept_secondary.flatten();
        let secondary = match (&self.primary, self.secondary) {
            (_, Some(given)) => Some(given),
            (Some(primary), None) => kept_secondary.filter(|kept| !is_same(primary, kept)).map(|kept| kept.der.clone()),
            (None, None) => kept_secondary.map(|kept| kept.der.clone()),
        };
        let primary = self.primary.or_else(|| kept_primary.map(|kept| kept.der.clone()));
        let primary = primary.ok_or_else(|| wrong(path, "has no primary certificate"))?;
        Ok(AttestationDraft::X509 { primary, secondary })
    }
}

/// Whether what was given (DER, or PEM of it) is that certificate.
fn is_same(given: &[u8], kept: &CertificateRef) -> bool {
    describe_certificate(given).is_some_and(|info| info.thumbprint == kept.thumbprint)
}

/// PEM, or base64 of DER or of PEM: what a certificate arrives as.
fn certificate(path: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    if text.len() > CERTIFICATE_CHARS_MAX {
        return Err(wrong(path, format_args!("is longer than {CERTIFICATE_CHARS_MAX} characters")));
    }
    if text.trim_start().starts_with("-----BEGIN") {
        return Ok(text.as_bytes().to_vec());
    }
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(&compact).map_err(|_| wrong(path, "is neither PEM nor base64 of a certificate"))
}

fn leaves(given: &Members<'_>, stored: Option<&Attestation>) -> Result<AttestationDraft, Refusal> {
    let kept = match stored {
        Some(Attestation::X509Leaf(X509Leaves { primary, secondary })) => Some((primary, secondary.as_ref())),
        Some(_) | None => None,
    };
    let x509 = given.object("x509")?;
    let Some(x509) = x509 else { return Pair { primary: None, secondary: None }.over(&given.path("x509"), kept) };
    for other in ["signingCertificates", "caReferences"] {
        if x509.value(other).is_some() {
            return Err(wrong(&x509.path(other), "is for groups: an individual enrollment has clientCertificates"));
        }
    }
    let pair = x509.object("clientCertificates")?;
    let pair = pair.map(|pair| Pair::read(&pair)).transpose()?;
    pair.unwrap_or(Pair { primary: None, secondary: None }).over(&x509.path("clientCertificates"), kept)
}

fn authorities(given: &Members<'_>, stored: Option<&Attestation>, names: &Names) -> Result<AttestationDraft, Refusal> {
    let kept = match stored {
        Some(Attestation::X509Ca(X509Anchors { primary, secondary })) => Some((primary, secondary.as_ref())),
        Some(_) | None => None,
    };
    let x509 = given.object("x509")?;
    let Some(x509) = x509 else { return Pair { primary: None, secondary: None }.over(&given.path("x509"), kept) };
    if x509.value("clientCertificates").is_some() {
        let path = x509.path("clientCertificates");
        return Err(wrong(&path, "is for individual enrollments: a group has signingCertificates or caReferences"));
    }
    match (x509.object("signingCertificates")?, x509.object("caReferences")?) {
        (Some(_), Some(_)) => Err(wrong(&x509.path("caReferences"), "is given together with signingCertificates")),
        (Some(pair), None) => Pair::read(&pair)?.over(&x509.path("signingCertificates"), kept),
        (None, Some(references)) => {
            let one = |name: &str| {
                let found = references.text(name)?.map(|text| names.authority(text).map(|found| found.der.clone()));
                match found {
                    None => Ok(None),
                    Some(Some(der)) => Ok(Some(der)),
                    Some(None) => Err(wrong(&references.path(name), "is no authority of the configuration's")),
                }
            };
            // A reference is whole as it is: what it does not name is not meant.
            let pair = Pair { primary: one("primary")?, secondary: one("secondary")? };
            pair.over(&x509.path("caReferences"), None)
        }
        (None, None) => Pair { primary: None, secondary: None }.over(&x509.path("signingCertificates"), kept),
    }
}

fn tpm(given: &Members<'_>, stored: Option<&Attestation>) -> Result<AttestationDraft, Refusal> {
    let kept = match stored {
        Some(Attestation::Tpm(device)) => Some(device),
        Some(_) | None => None,
    };
    let tpm = given.object("tpm")?;
    let key = |name: &str| match &tpm {
        None => Ok(None),
        Some(tpm) => tpm.text(name)?.map(|text| public(&tpm.path(name), text)).transpose(),
    };
    let (endorsement_key, storage_root_key) = (key("endorsementKey")?, key("storageRootKey")?);
    let endorsement_key = endorsement_key.or_else(|| kept.map(|kept| kept.endorsement_key.clone()));
    let endorsement_key = endorsement_key.ok_or_else(|| wrong(&given.path("tpm"), "has no endorsementKey"))?;
    // Another TPM has another storage root key, and another state.
    let kept = kept.filter(|kept| kept.endorsement_key == endorsement_key);
    let storage_root_key = match (storage_root_key, kept.map(|kept| &kept.rules.storage_root_key)) {
        (Some(key), _) => SrkDraft::Key(key),
        (None, None | Some(SrkRule::Any)) => SrkDraft::Any,
        (None, Some(SrkRule::PinFirst)) => SrkDraft::PinFirst,
        (None, Some(SrkRule::Pinned(name))) => SrkDraft::Name(name.clone()),
    };
    let pcrs = kept.and_then(|kept| kept.rules.pcrs.clone());
    Ok(AttestationDraft::Tpm { endorsement_key, storage_root_key, pcrs })
}

/// A key that is not there is drawn by the service when the enrollment is made, and kept afterwards.
fn keys(given: &Members<'_>) -> Result<AttestationDraft, Refusal> {
    let Some(keys) = given.object("symmetricKey")? else {
        return Ok(AttestationDraft::SymmetricKey { primary: None, secondary: None });
    };
    let one = |name: &str| {
        let text = keys.text(name)?.filter(|text| !text.is_empty());
        text.map(|text| token_key(&keys.path(name), text)).transpose()
    };
    Ok(AttestationDraft::SymmetricKey { primary: one("primaryKey")?, secondary: one("secondaryKey")? })
}

/// A key in base64. What is wrong with one says nothing of it.
pub fn token_key(path: &str, text: &str) -> Result<TokenKey, Refusal> {
    let bytes = BASE64.decode(text.as_bytes()).map(Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| TokenKey::new(&bytes).ok());
    let (least, most) = (limits::TOKEN_KEY_BYTES_MIN, limits::TOKEN_KEY_BYTES_MAX);
    key.ok_or_else(|| wrong(path, format_args!("is not base64 of {least} to {most} bytes")))
}

/// Both keys in base64.
pub fn shown_keys(keys: &KeyPair<TokenKey>) -> Value {
    let text = |key: &TokenKey| BASE64.encode(key.secret());
    json!({ "primaryKey": text(&keys.primary), "secondaryKey": text(&keys.secondary) })
}

fn public(path: &str, text: &str) -> Result<TpmPublic, Refusal> {
    if text.len() > limits::TPM_PUBLIC_BYTES_MAX * 2 {
        return Err(wrong(path, "is longer than any key"));
    }
    let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| wrong(path, "is not base64"))?;
    TpmPublic::parse(&bytes).map_err(|fault| wrong(path, format_args!("is refused: {fault}")))
}

/// There are no words for a group of TPMs: it is made elsewhere, and written back as it is.
fn fleet(path: &str, stored: Option<&Attestation>) -> Result<AttestationDraft, Refusal> {
    match stored {
        Some(Attestation::TpmFleet(fleet)) => Ok(AttestationDraft::TpmFleet {
            primary: fleet.anchors.primary.der.clone(),
            secondary: fleet.anchors.secondary.as_ref().map(|secondary| secondary.der.clone()),
            makes: fleet.makes.clone(),
            usage_may_be_absent: fleet.usage_may_be_absent,
            pin_first: matches!(fleet.rules.storage_root_key, SrkRule::PinFirst),
            pcrs: fleet.rules.pcrs.clone(),
        }),
        Some(_) | None => Err(wrong(path, "is for individual enrollments")),
    }
}

/// The member `attestation` of an answer, with keys where they are handed.
pub fn shown(attestation: &Attestation, names: &Names, keys: Option<&KeyPair<TokenKey>>) -> Value {
    match attestation {
        Attestation::X509Leaf(leaves) => {
            let pair = certificates(&leaves.primary, leaves.secondary.as_ref());
            json!({ "type": "x509", "x509": { "clientCertificates": pair } })
        }
        Attestation::X509Ca(anchors) => json!({ "type": "x509", "x509": anchored(anchors, names) }),
        Attestation::Tpm(device) => {
            let key = BASE64.encode(device.endorsement_key.as_bytes());
            json!({ "type": "tpm", "tpm": { "endorsementKey": key } })
        }
        Attestation::TpmFleet(_) => json!({ "type": "tpm" }),
        Attestation::SymmetricKey(_) | Attestation::MasterKey(_) => match keys {
            None => json!({ "type": "symmetricKey" }),
            Some(keys) => json!({ "type": "symmetricKey", "symmetricKey": shown_keys(keys) }),
        },
    }
}

/// By name when all of them have one.
fn anchored(anchors: &X509Anchors, names: &Names) -> Value {
    let name = |certificate: &CertificateRef| names.authority_name(&certificate.thumbprint).map(str::to_owned);
    let secondary = anchors.secondary.as_ref();
    match (name(&anchors.primary), secondary.map(name)) {
        (Some(primary), None) => json!({ "caReferences": { "primary": primary } }),
        (Some(primary), Some(Some(secondary))) => {
            json!({ "caReferences": { "primary": primary, "secondary": secondary } })
        }
        (None, _) | (Some(_), Some(None)) => {
            json!({ "signingCertificates": certificates(&anchors.primary, secondary) })
        }
    }
}

fn certificates(primary: &CertificateRef, secondary: Option<&CertificateRef>) -> Value {
    let mut pair = Map::new();
    pair.insert("primary".to_owned(), json!({ "info": info(primary) }));
    if let Some(secondary) = secondary {
        pair.insert("secondary".to_owned(), json!({ "info": info(secondary) }));
    }
    Value::Object(pair)
}

/// What is known of a certificate. Of one that only its thumbprint is left of, the rest is empty: SDKs ask for the members.
fn info(certificate: &CertificateRef) -> Value {
    let hex = |bytes: &[u8]| Cow::from(HEXUPPER.encode(bytes));
    let sha256 = hex(&certificate.thumbprint.0);
    match describe_certificate(&certificate.der) {
        Some(info) => json!({
            "subjectName": info.subject,
            "sha1Thumbprint": hex(&info.sha1),
            "sha256Thumbprint": sha256,
            "issuerName": info.issuer,
            "notBeforeUtc": seven_digits(info.not_before),
            "notAfterUtc": seven_digits(info.not_after),
            "serialNumber": info.serial_hex.to_ascii_uppercase(),
            "version": 3,
        }),
        None => json!({
            "subjectName": "", "sha1Thumbprint": "", "sha256Thumbprint": sha256, "issuerName": "",
            "notBeforeUtc": seven_digits(Default::default()), "notAfterUtc": seven_digits(Default::default()),
            "serialNumber": "", "version": 3,
        }),
    }
}
