//! Shared access signature tokens as text: what is signed, how a token is written, and what one says.
//!
//! Text only. Keys and signatures are the matter of `attestation::sas`; a TPM signs by itself.
//!
//! ```text
//! SharedAccessSignature sr=<resource>&sig=<base64 of HMAC-SHA256>&se=<seconds since 1970>[&skn=<name of the key>]
//! ```
//!
//! Values are percent-encoded. What is signed is the resource *as it stands in the token*, a line feed, and the seconds:
//! encoders differ in which characters and which case of hex digits they use, and all of them are right.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::ids::{DeviceId, RegistrationId};
use super::limits;
use super::time::Timestamp;

/// Why a text is no token, or bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenFault {
    #[error("it has more than {} bytes", limits::TOKEN_BYTES_MAX)]
    TooLong,
    #[error("it does not start with SharedAccessSignature")]
    SchemeUnknown,
    #[error("a field is not a name, an equals sign and a value")]
    FieldMalformed,
    #[error("a field is not one of sr, sig, se and skn")]
    FieldUnknown,
    #[error("a field is repeated")]
    FieldRepeated,
    #[error("the field sr, sig or se is missing")]
    FieldMissing,
    #[error("a value is not percent-encoded text")]
    EncodingInvalid,
    #[error("the signature is not base64 of 32 bytes")]
    SignatureMalformed,
    #[error("the expiry is not a number of seconds")]
    ExpiryMalformed,
    #[error("a key has {} to {} bytes", limits::TOKEN_KEY_BYTES_MIN, limits::TOKEN_KEY_BYTES_MAX)]
    KeyLength,
}

impl TokenFault {
    /// The stable code in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenFault::TooLong => "token_too_long",
            TokenFault::SchemeUnknown => "token_scheme_unknown",
            TokenFault::FieldMalformed => "token_field_malformed",
            TokenFault::FieldUnknown => "token_field_unknown",
            TokenFault::FieldRepeated => "token_field_repeated",
            TokenFault::FieldMissing => "token_field_missing",
            TokenFault::EncodingInvalid => "token_encoding_invalid",
            TokenFault::SignatureMalformed => "token_signature_malformed",
            TokenFault::ExpiryMalformed => "token_expiry_malformed",
            TokenFault::KeyLength => "token_key_length",
        }
    }
}

/// A key that tokens are signed with. Secret: wiped when dropped, compared in constant time, never shown.
#[derive(Clone)]
pub struct TokenKey(Arc<Zeroizing<Vec<u8>>>);

impl TokenKey {
    /// [`limits::TOKEN_KEY_BYTES_MIN`] to [`limits::TOKEN_KEY_BYTES_MAX`] bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, TokenFault> {
        let fits = (limits::TOKEN_KEY_BYTES_MIN..=limits::TOKEN_KEY_BYTES_MAX).contains(&bytes.len());
        if fits { Ok(Self(Arc::new(Zeroizing::new(bytes.to_vec())))) } else { Err(TokenFault::KeyLength) }
    }

    /// For whoever signs, verifies, wraps or stores: nobody else.
    pub fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.secret().ct_eq(other.secret()).into()
    }
}

impl Eq for TokenKey {}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(****)")
    }
}

/// What a token says. Unproven until its signature was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    /// As it stands in the token: encoded.
    resource: String,
    signature: [u8; 32],
    /// As it stands in the token: digits.
    expiry: String,
    expires_at: Timestamp,
    key_name: Option<String>,
}

impl SasToken {
    /// Reads a token. Its fields may stand in any order; each stands once.
    pub fn parse(text: &[u8]) -> Result<Self, TokenFault> {
        if text.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|_| TokenFault::EncodingInvalid)?;
        let fields =
            text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(' ')).ok_or(TokenFault::SchemeUnknown)?;
        let (mut resource, mut signature, mut expiry, mut key_name) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').ok_or(TokenFault::FieldMalformed)?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut key_name,
                _ => return Err(TokenFault::FieldUnknown),
            };
            if slot.replace(value).is_some() {
                return Err(TokenFault::FieldRepeated);
            }
        }
        let (Some(resource), Some(signature), Some(expiry)) = (resource, signature, expiry) else {
            return Err(TokenFault::FieldMissing);
        };
        percent_decode(resource)?;
        Ok(Self {
            resource: resource.to_owned(),
            signature: read_signature(signature)?,
            expires_at: read_expiry(expiry)?,
            expiry: expiry.to_owned(),
            key_name: key_name.map(percent_decode).transpose()?,
        })
    }

    /// What the signature must be of.
    pub fn signed_text(&self) -> String {
        format!("{}\n{}", self.resource, self.expiry)
    }

    pub fn signature(&self) -> &[u8; 32] {
        &self.signature
    }

    /// What the token is for, decoded.
    pub fn resource(&self) -> String {
        percent_decode(&self.resource).unwrap_or_default()
    }

    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Which key the signer says that it used.
    pub fn key_name(&self) -> Option<&str> {
        self.key_name.as_deref()
    }
}

impl fmt::Debug for SasToken {
    /// Without the signature: whoever has it can use the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SasToken({}, until {})", self.resource, self.expires_at)
    }
}

/// A token before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedToken {
    resource: String,
    expires_at_s: i64,
}

impl UnsignedToken {
    /// For a resource in plain text.
    pub fn new(resource: &str, expires_at: Timestamp) -> Self {
        Self { resource: percent_encode(resource), expires_at_s: expires_at.as_secs() }
    }

    /// What is to be signed by HMAC-SHA256.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.resource, self.expires_at_s)
    }

    /// The token.
    pub fn signed(&self, signature: &[u8; 32], key_name: Option<&str>) -> String {
        let signature = percent_encode(&data_encoding::BASE64.encode(signature));
        let name = key_name.map(|name| format!("&skn={}", percent_encode(name))).unwrap_or_default();
        format!("{SCHEME} sr={}&sig={signature}&se={}{name}", self.resource, self.expires_at_s)
    }
}

/// The resource of a token that a device registers with.
pub fn registration_resource(scope: &str, id: &RegistrationId) -> String {
    format!("{scope}/registrations/{id}")
}

/// The resource of a token that a device signs in at a hub with.
pub fn hub_resource(hub: &str, device: &DeviceId) -> String {
    format!("{hub}/devices/{device}")
}

const SCHEME: &str = "SharedAccessSignature";
/// Up to the year 5138; more is not a time but an attempt.
const EXPIRY_DIGITS_MAX: usize = 11;

fn read_signature(value: &str) -> Result<[u8; 32], TokenFault> {
    let text = percent_decode(value)?;
    let bytes = data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| TokenFault::SignatureMalformed)?;
    bytes.try_into().map_err(|_| TokenFault::SignatureMalformed)
}

fn read_expiry(value: &str) -> Result<Timestamp, TokenFault> {
    let is_number = (1..=EXPIRY_DIGITS_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse().ok().filter(|_| is_number).ok_or(TokenFault::ExpiryMalformed)?;
    Ok(Timestamp::from_secs(seconds))
}

/// All but the unreserved characters of RFC 3986.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// A percent sign is followed by two hex digits, of either case; the result is UTF-8 without control characters.
fn percent_decode(text: &str) -> Result<String, TokenFault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(TokenFault::EncodingInvalid)?;
        let byte = data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| TokenFault::EncodingInvalid)?;
        bytes.extend(byte);
        rest = after;
    }
    let text = String::from_utf8(bytes).map_err(|_| TokenFault::EncodingInvalid)?;
    if text.chars().any(char::is_control) { Err(TokenFault::EncodingInvalid) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8%3D";

    fn check(fields: &str, expected: Result<(), TokenFault>) {
        let token = fields.replace("SIG", SIGNATURE);
        assert_eq!(SasToken::parse(token.as_bytes()).map(|_| ()), expected, "{token}");
    }

    #[test]
    fn tokens_are_read_strictly() {
        check("SharedAccessSignature sr=a%2Fb&sig=SIG&se=1700000000&skn=registration", Ok(()));
        check("SharedAccessSignature se=1700000000&skn=&sig=SIG&sr=a", Ok(()));
        check("SharedAccessSignature sr=a&sig=SIG&se=99999999999", Ok(()));
        check("", Err(TokenFault::SchemeUnknown));
        check("SharedAccessSignature", Err(TokenFault::SchemeUnknown));
        check("sharedaccesssignature sr=a&sig=SIG&se=1", Err(TokenFault::SchemeUnknown));
        check("SharedAccessSignature\tsr=a&sig=SIG&se=1", Err(TokenFault::SchemeUnknown));
        check("SharedAccessSignature  sr=a&sig=SIG&se=1", Err(TokenFault::FieldUnknown));
        check("SharedAccessSignature ", Err(TokenFault::FieldMalformed));
        check("SharedAccessSignature sr=a&sig=SIG&se=1&", Err(TokenFault::FieldMalformed));
        check("SharedAccessSignature sr=a&sig=SIG&se=1&x=1", Err(TokenFault::FieldUnknown));
        check("SharedAccessSignature sr=a&sig=SIG&se=1&SR=b", Err(TokenFault::FieldUnknown));
        check("SharedAccessSignature sr=a&sig=SIG&se=1&sr=a", Err(TokenFault::FieldRepeated));
        check("SharedAccessSignature sig=SIG&se=1", Err(TokenFault::FieldMissing));
        check("SharedAccessSignature sr=a&se=1", Err(TokenFault::FieldMissing));
        check("SharedAccessSignature sr=a&sig=SIG", Err(TokenFault::FieldMissing));
        check("SharedAccessSignature sr=a%2&sig=SIG&se=1", Err(TokenFault::EncodingInvalid));
        check("SharedAccessSignature sr=a%zz&sig=SIG&se=1", Err(TokenFault::EncodingInvalid));
        check("SharedAccessSignature sr=a%ff&sig=SIG&se=1", Err(TokenFault::EncodingInvalid));
        check("SharedAccessSignature sr=a%0a1&sig=SIG&se=1", Err(TokenFault::EncodingInvalid));
        check("SharedAccessSignature sr=a\n1&sig=SIG&se=1", Err(TokenFault::EncodingInvalid));
        check("SharedAccessSignature sr=a&sig=AAEC&se=1", Err(TokenFault::SignatureMalformed));
        check("SharedAccessSignature sr=a&sig=SIGAAAA&se=1", Err(TokenFault::SignatureMalformed));
        check("SharedAccessSignature sr=a&sig=%20SIG&se=1", Err(TokenFault::SignatureMalformed));
        for expiry in ["", "-1", "+1", "1.5", "1e9", " 1", "0x1", "999999999999", "18446744073709551616"] {
            check(&format!("SharedAccessSignature sr=a&sig=SIG&se={expiry}"), Err(TokenFault::ExpiryMalformed));
        }
        let padding = "a".repeat(limits::TOKEN_BYTES_MAX);
        check(&format!("SharedAccessSignature sr={padding}&sig=SIG&se=1"), Err(TokenFault::TooLong));
    }

    #[test]
    fn what_is_signed_is_the_text_as_it_came() {
        let parse = |text: String| SasToken::parse(text.as_bytes()).unwrap();
        let token = parse(format!("SharedAccessSignature sr=A%2fb%2Fc&sig={SIGNATURE}&se=0170"));
        assert_eq!((token.signed_text().as_str(), token.resource().as_str()), ("A%2fb%2Fc\n0170", "A/b/c"));
        assert_eq!((token.expires_at(), token.key_name()), (Timestamp::from_secs(170), None));
    }

    #[test]
    fn a_written_token_reads_back() {
        let unsigned = UnsignedToken::new("scope/registrations/dev ä:1", Timestamp(1_700_000_000_999));
        assert_eq!(unsigned.text(), "scope%2Fregistrations%2Fdev%20%C3%A4%3A1\n1700000000");
        let token = SasToken::parse(unsigned.signed(&[0xfb; 32], Some("registration")).as_bytes()).unwrap();
        assert_eq!((token.signed_text(), *token.signature()), (unsigned.text(), [0xfb; 32]));
        assert_eq!(
            (token.resource().as_str(), token.key_name()),
            ("scope/registrations/dev ä:1", Some("registration"))
        );
    }

    #[test]
    fn keys_are_bounded_and_never_shown() {
        for (length, fits) in [(15, false), (16, true), (32, true), (64, true), (65, false), (0, false)] {
            assert_eq!(TokenKey::new(&vec![7; length]).is_ok(), fits, "{length}");
        }
        let key = TokenKey::new(&[0x42; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "TokenKey(****)");
        assert!(key == TokenKey::new(&[0x42; 32]).unwrap() && key != TokenKey::new(&[0x43; 32]).unwrap());
        assert!(key != TokenKey::new(&[0x42; 33]).unwrap());
    }
}
