//! A TPM 2.0 in the words of the service: its keys as they were received, and what an enrollment asks of it.
//!
//! Bounded values only. Whether a public key is one that a TPM may use, `attestation::tpm` judges.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::enrollment::X509Anchors;
use super::ids::{IdFault, RegistrationId};
use super::limits;

/// Why bytes or a text are none of a TPM's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TpmFault {
    #[error("a public area has {length} bytes, the most is {}", limits::TPM_PUBLIC_BYTES_MAX)]
    PublicTooLarge { length: usize },
    #[error("a public area must be a TPM2B_PUBLIC: two bytes of size, then as many bytes as they say")]
    PublicForm,
    #[error("a name must be a hash algorithm (SHA-256, SHA-384 or SHA-512) and a digest of its size")]
    NameForm,
    #[error("a manufacturer must be written as id: and 8 hexadecimal digits, or as 1 to 4 printable characters")]
    ManufacturerForm,
    #[error("a model has {length} bytes, it may have 1 to {}", limits::TPM_MODEL_BYTES_MAX)]
    ModelLength { length: usize },
    #[error("register {index} is not one of the PCRs 0 to {}", limits::PCR_INDEX_MAX)]
    PcrIndex { index: u32 },
    #[error("a PCR policy must name at least one register")]
    PcrsNone,
    #[error("register {index} has {count} values, it may have 1 to {}", limits::PCR_VALUES_MAX)]
    PcrValues { index: PcrIndex, count: usize },
}

/// A `TPM2B_PUBLIC` as it was received, to the byte: hashes and names are made of these bytes and of no others. Not a
/// secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TpmPublic(Arc<[u8]>);

impl TpmPublic {
    /// Checks the size and that the size prefix tells it; the content is judged elsewhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFault> {
        if bytes.len() > limits::TPM_PUBLIC_BYTES_MAX {
            return Err(TpmFault::PublicTooLarge { length: bytes.len() });
        }
        match bytes {
            [high, low, area @ ..] if usize::from(u16::from_be_bytes([*high, *low])) == area.len() => {
                Ok(Self(bytes.into()))
            }
            _ => Err(TpmFault::PublicForm),
        }
    }

    /// With the size prefix: what travels.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The `TPMT_PUBLIC` behind the size prefix: what names are made of.
    pub fn area(&self) -> &[u8] {
        self.0.get(2..).unwrap_or_default()
    }
}

impl fmt::Debug for TpmPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmPublic({} bytes)", self.0.len())
    }
}

/// SHA-256 over an endorsement key's `TPM2B_PUBLIC` as sent: what identifies a TPM. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EkHash(pub [u8; 32]);

impl EkHash {
    /// The registration id of a TPM that was given no other: 52 characters of lower-case base32 without padding.
    pub fn registration_id(&self) -> RegistrationId {
        let text = data_encoding::BASE32_NOPAD.encode(&self.0).to_ascii_lowercase();
        RegistrationId::parse(&text).expect("52 letters and digits are a registration id")
    }
}

impl fmt::Display for EkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EkHash({self})")
    }
}

impl FromStr for EkHash {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(IdFault::Form { what: "endorsement key hash", expected: "64 hexadecimal digits" })
    }
}

/// The name of an object in a TPM: its hash algorithm and the digest of its public area. Not a secret.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TpmName(Arc<[u8]>);

impl TpmName {
    /// Two bytes of algorithm (SHA-256, SHA-384, SHA-512), then a digest of its size.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFault> {
        match bytes {
            [0x00, 0x0b, digest @ ..] if digest.len() == 32 => Ok(Self(bytes.into())),
            [0x00, 0x0c, digest @ ..] if digest.len() == 48 => Ok(Self(bytes.into())),
            [0x00, 0x0d, digest @ ..] if digest.len() == 64 => Ok(Self(bytes.into())),
            _ => Err(TpmFault::NameForm),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TpmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TpmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmName({self})")
    }
}

/// Who made a TPM: four bytes that the TCG registers, mostly ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TpmManufacturer(pub [u8; 4]);

impl fmt::Display for TpmManufacturer {
    /// As in EK certificates: `id:494E5443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("id:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for TpmManufacturer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmManufacturer({self})")
    }
}

impl FromStr for TpmManufacturer {
    type Err = TpmFault;

    /// `id:494E5443`, or its characters: `INTC`, `IFX`.
    fn from_str(text: &str) -> Result<Self, TpmFault> {
        if let Some(digits) = text.strip_prefix("id:") {
            let bytes = data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).ok();
            return bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(TpmFault::ManufacturerForm);
        }
        if !(1..=4).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TpmFault::ManufacturerForm);
        }
        let mut bytes = [0; 4];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

/// The model that an EK certificate states: free text of its manufacturer, compared as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TpmModel(Arc<str>);

impl TpmModel {
    pub fn parse(text: &str) -> Result<Self, TpmFault> {
        match text.len() {
            1..=limits::TPM_MODEL_BYTES_MAX => Ok(Self(text.into())),
            length => Err(TpmFault::ModelLength { length }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// TPMs that a group accepts: all of a manufacturer, or one of its models.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TpmMake {
    pub manufacturer: TpmManufacturer,
    pub model: Option<TpmModel>,
}

/// Which storage root key a device may come with. An owner who clears the TPM gets another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SrkRule {
    /// Every one that is a storage key of the TPM with the enrolled endorsement key.
    #[default]
    Any,
    /// The one it came with first, until an operator resets that.
    PinFirst,
    /// This one.
    Pinned(TpmName),
}

impl SrkRule {
    pub fn as_str(&self) -> &'static str {
        match self {
            SrkRule::Any => "any",
            SrkRule::PinFirst => "pin_first",
            SrkRule::Pinned(_) => "pinned",
        }
    }
}

/// A platform configuration register, 0 to 23.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PcrIndex(u8);

impl PcrIndex {
    pub fn new(index: u32) -> Result<Self, TpmFault> {
        match u8::try_from(index) {
            Ok(small) if small <= limits::PCR_INDEX_MAX => Ok(Self(small)),
            Ok(_) | Err(_) => Err(TpmFault::PcrIndex { index }),
        }
    }

    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The value of a register in the SHA-256 bank.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PcrValue(pub [u8; 32]);

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrValue({self})")
    }
}

impl FromStr for PcrValue {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(IdFault::Form { what: "PCR value", expected: "64 hexadecimal digits" })
    }
}

/// What follows from a register that holds another value than the policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PcrMode {
    /// The device is refused.
    Enforce,
    /// The device is let in and the mismatch recorded. Everything but the values is held as in `Enforce`.
    Audit,
}

impl PcrMode {
    pub fn as_str(self) -> &'static str {
        match self {
            PcrMode::Enforce => "enforce",
            PcrMode::Audit => "audit",
        }
    }
}

/// Which registers of the SHA-256 bank must be quoted, and which values each may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrPolicy {
    mode: PcrMode,
    allowed: BTreeMap<PcrIndex, Vec<PcrValue>>,
}

impl PcrPolicy {
    /// At least one register, each with 1 to [`limits::PCR_VALUES_MAX`] values.
    pub fn new(mode: PcrMode, allowed: BTreeMap<PcrIndex, Vec<PcrValue>>) -> Result<Self, TpmFault> {
        if allowed.is_empty() {
            return Err(TpmFault::PcrsNone);
        }
        for (index, values) in &allowed {
            if !(1..=limits::PCR_VALUES_MAX).contains(&values.len()) {
                return Err(TpmFault::PcrValues { index: *index, count: values.len() });
            }
        }
        Ok(Self { mode, allowed })
    }

    pub fn mode(&self) -> PcrMode {
        self.mode
    }

    /// Ascending, as a quote has them.
    pub fn indices(&self) -> impl Iterator<Item = PcrIndex> + '_ {
        self.allowed.keys().copied()
    }

    /// The allowed values of each register, ascending.
    pub fn allowed(&self) -> &BTreeMap<PcrIndex, Vec<PcrValue>> {
        &self.allowed
    }
}

/// What both kinds of TPM enrollment ask beyond the endorsement key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TpmRules {
    pub storage_root_key: SrkRule,
    pub pcrs: Option<PcrPolicy>,
}

/// An individual enrollment: the TPM with exactly this endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmDevice {
    pub endorsement_key: TpmPublic,
    /// Of the endorsement key, which it is looked up by. Each may stand in one enrollment only.
    pub ek_hash: EkHash,
    pub rules: TpmRules,
}

/// A group: every TPM whose endorsement key an EK certificate vouches for that chains to one of the authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmFleet {
    pub anchors: X509Anchors,
    /// Empty: of every make. At most [`limits::TPM_MAKES_MAX`].
    pub makes: Vec<TpmMake>,
    /// Whether certificates without any extended key usage are taken (some manufacturers leave it out). One that has the
    /// extension must name EK certificates in it, whatever stands here.
    pub usage_may_be_absent: bool,
    pub rules: TpmRules,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_areas_tell_their_size() {
        let largest = [&[0x03, 0xfe][..], &[7; 1022]].concat();
        let larger = [&[0x03, 0xff][..], &[7; 1023]].concat();
        for (bytes, expected) in [
            (&[0, 2, 8, 9][..], Ok(())),
            (&[0, 0], Ok(())),
            (&largest, Ok(())),
            (&larger, Err(TpmFault::PublicTooLarge { length: 1025 })),
            (&[], Err(TpmFault::PublicForm)),
            (&[0], Err(TpmFault::PublicForm)),
            (&[0, 2, 8], Err(TpmFault::PublicForm)),
            (&[0, 2, 8, 9, 10], Err(TpmFault::PublicForm)),
        ] {
            assert_eq!(TpmPublic::parse(bytes).map(|_| ()), expected, "{bytes:?}");
        }
        assert_eq!(TpmPublic::parse(&[0, 2, 8, 9]).unwrap().area(), [8, 9]);
    }

    #[test]
    fn an_ek_hash_is_a_registration_id() {
        let id = EkHash([0xff; 32]).registration_id();
        assert_eq!((id.as_str().len(), id.folded().as_str()), (52, id.as_str()));
        assert_eq!(EkHash([0; 32]).registration_id().as_str(), "a".repeat(52));
        assert_eq!(EkHash([0xab; 32]).to_string().parse(), Ok(EkHash([0xab; 32])));
    }

    #[test]
    fn names_have_the_size_of_their_algorithm() {
        for (algorithm, size, fits) in
            [(0x0b, 32, true), (0x0c, 48, true), (0x0d, 64, true), (0x0b, 31, false), (0x0b, 48, false), (4, 20, false)]
        {
            let bytes = [vec![0, algorithm], vec![1; size]].concat();
            assert_eq!(TpmName::parse(&bytes).is_ok(), fits, "{algorithm} {size}");
        }
        assert_eq!(TpmName::parse(&[]), Err(TpmFault::NameForm));
    }

    #[test]
    fn manufacturers_are_written_in_two_ways() {
        for (text, expected) in [
            ("INTC", Some(*b"INTC")),
            ("IFX", Some(*b"IFX\0")),
            ("id:49465800", Some(*b"IFX\0")),
            ("id:00001014", Some([0, 0, 0x10, 0x14])),
            ("id:4946580", None),
            ("id:", None),
            ("INTCX", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(text.parse::<TpmManufacturer>().ok().map(|it| it.0), expected, "{text}");
        }
        assert_eq!(TpmManufacturer(*b"INTC").to_string(), "id:494E5443");
    }

    #[test]
    fn pcr_policies_are_bounded() {
        let policy = |index: u32, values: usize| {
            let index = PcrIndex::new(index)?;
            PcrPolicy::new(PcrMode::Enforce, [(index, vec![PcrValue([1; 32]); values])].into())
        };
        assert!(policy(0, 1).is_ok() && policy(23, limits::PCR_VALUES_MAX).is_ok());
        assert_eq!(policy(24, 1), Err(TpmFault::PcrIndex { index: 24 }));
        assert_eq!(policy(256, 1), Err(TpmFault::PcrIndex { index: 256 }));
        assert_eq!(policy(7, 0), Err(TpmFault::PcrValues { index: PcrIndex(7), count: 0 }));
        let many = limits::PCR_VALUES_MAX + 1;
        assert_eq!(policy(7, many), Err(TpmFault::PcrValues { index: PcrIndex(7), count: many }));
        assert_eq!(PcrPolicy::new(PcrMode::Audit, BTreeMap::new()), Err(TpmFault::PcrsNone));
    }
}
