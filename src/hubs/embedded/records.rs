//! Rows of a hub's file: private structs behind a version byte, and the way to and from what they mean.
//!
//! Documents are JSON text. Metadata mirrors its document key by key, so only the stamps are kept: the distinct ones once,
//! and for each node, in the document's order, which one it has; nothing at all when the whole section has one stamp.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::twin::Metadata;
use crate::domain::{
    Capabilities, Credential, DeliveredKeys, DeviceState, Document, HubRefusal, HubStatus, Incarnation, KeyFingerprint,
    KeyPair, Order, SealedKey, Section, Thumbprint, Timestamp, Twin,
};
use crate::hubs::entry::{EffectKind, Entry, LastCall, Outcome, Phase, Tenant};

/// The first byte of every row.
const ROW_VERSION: u8 = 1;
/// The first byte of a device's row since it says where the device stands in the change feed.
const RESIDENT_VERSION: u8 = 2;

/// A row that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    #[error("a row is empty")]
    Empty,
    #[error("a row has version {0}")]
    Version(u8),
    #[error("a row cannot be read: {0}")]
    Form(String),
    #[error("a row cannot be written: {0}")]
    NotWritable(String),
}

/// A device that is here. A replaced state that the last call answered has a row of its own, since it is written once
/// while this row is written with every write of the twin.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResidentRow {
    body: ResidentBody,
    /// Its place in the change feed; zero in a row from before there was one.
    changed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResidentBody {
    highest: u64,
    last: LastRow,
    generation: u64,
    phase: PhaseRow,
    credential: CredentialRow,
    state: StateRow,
}

/// The fence that a device leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub struct DepartedRow {
    highest: u64,
    last: LastRow,
    credential: Option<CredentialRow>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum PhaseRow {
    Staged,
    Open,
    Sealed,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum EffectRow {
    Create,
    Activate,
    Seal,
    Unseal,
    Delete,
    ReplaceTwin,
    UpdateCredential,
}

#[derive(Debug, Serialize, Deserialize)]
struct LastRow {
    effect: EffectRow,
    outcome: OutcomeRow,
}

#[derive(Debug, Serialize, Deserialize)]
enum OutcomeRow {
    Done,
    Sealed,
    /// The state is in the row of replaced states.
    Replaced,
    Refused(RefusalRow),
}

#[derive(Debug, Serialize, Deserialize)]
enum RefusalRow {
    Stale(u64),
    Occupied,
    NotStaged,
    NoSuchDevice,
    WrongIncarnation(u128),
    Full,
    StateInvalid(String),
    OrderReused,
}

#[derive(Debug, Serialize, Deserialize)]
enum CredentialRow {
    X509(Vec<[u8; 32]>),
    /// Fingerprints and encrypted keys, newest first.
    Delivered(Vec<([u8; 32], Vec<u8>)>),
    /// Fingerprint and encrypted key of the primary and of the secondary one.
    Shared([([u8; 32], Vec<u8>); 2]),
}

#[derive(Debug, Serialize, Deserialize)]
struct StateRow {
    desired: SectionRow,
    reported: SectionRow,
    tags: String,
    version: u64,
    iot_edge: bool,
    /// The reason, when disabled.
    disabled: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SectionRow {
    properties: String,
    version: u64,
    metadata: MetadataRow,
}

#[derive(Debug, Serialize, Deserialize)]
enum MetadataRow {
    /// It mirrors the document. `nodes` is empty when every node has the first stamp.
    Mirror { stamps: Vec<(i64, u64)>, nodes: Vec<u32> },
    /// It does not (it came from elsewhere).
    Tree(TreeRow),
}

#[derive(Debug, Serialize, Deserialize)]
struct TreeRow {
    at: i64,
    version: u64,
    below: Vec<(String, TreeRow)>,
}

/// The bytes of a row.
pub fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, RowFault> {
    postcard::to_extend(row, vec![ROW_VERSION]).map_err(|fault| RowFault::NotWritable(fault.to_string()))
}

/// Reads a row back.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RowFault> {
    match bytes.split_first() {
        None => Err(RowFault::Empty),
        Some((&ROW_VERSION, rest)) => postcard::from_bytes(rest).map_err(|fault| RowFault::Form(fault.to_string())),
        Some((version, _)) => Err(RowFault::Version(*version)),
    }
}

/// The bytes of a device's row.
pub fn encode_resident(row: &ResidentRow) -> Result<Vec<u8>, RowFault> {
    postcard::to_extend(row, vec![RESIDENT_VERSION]).map_err(|fault| RowFault::NotWritable(fault.to_string()))
}

/// Reads a device's row back, of whichever version.
pub fn decode_resident(bytes: &[u8]) -> Result<ResidentRow, RowFault> {
    match bytes.split_first() {
        Some((&RESIDENT_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|fault| RowFault::Form(fault.to_string()))
        }
        Some(_) | None => Ok(ResidentRow { body: decode(bytes)?, changed: 0 }),
    }
}

/// A device's row as the first version wrote it.
#[cfg(test)]
pub fn encode_first(row: &[u8]) -> Vec<u8> {
    encode(&decode_resident(row).unwrap().body).unwrap()
}

/// The row of a replaced state.
pub fn encode_state(state: &DeviceState) -> Result<Vec<u8>, RowFault> {
    encode(&StateRow::from(state))
}

/// Reads the row of a replaced state.
pub fn decode_state(bytes: &[u8]) -> Result<DeviceState, RowFault> {
    decode::<StateRow>(bytes)?.state()
}

impl ResidentRow {
    pub fn new(highest: Order, last: &LastCall, tenant: &Tenant) -> Self {
        let body = ResidentBody {
            highest: highest.0,
            last: LastRow::from(last),
            generation: tenant.generation.0,
            phase: PhaseRow::from(tenant.phase),
            credential: CredentialRow::from(&tenant.credential),
            state: StateRow::from(&tenant.state),
        };
        Self { body, changed: 0 }
    }

    /// As [`ResidentRow::new`], of a device whose state is still the one of this row.
    pub fn next(self, highest: Order, last: &LastCall, tenant: &Tenant) -> Self {
        let body = ResidentBody {
            highest: highest.0,
            last: LastRow::from(last),
            generation: tenant.generation.0,
            phase: PhaseRow::from(tenant.phase),
            credential: CredentialRow::from(&tenant.credential),
            state: self.body.state,
        };
        Self { body, changed: 0 }
    }

    /// Its place in the change feed.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    pub fn at(self, changed: u64) -> Self {
        Self { changed, ..self }
    }

    /// The highest order that was answered.
    pub fn highest(&self) -> Order {
        Order(self.body.highest)
    }

    /// Whether the answer of the last call is in the row of replaced states.
    pub fn has_replaced(&self) -> bool {
        self.body.last.has_replaced()
    }

    /// The same row with another credential.
    pub fn with_credential(self, credential: &Credential) -> Self {
        Self { body: ResidentBody { credential: CredentialRow::from(credential), ..self.body }, ..self }
    }

    /// The same row with another state.
    pub fn with_state(self, state: &DeviceState) -> Self {
        Self { body: ResidentBody { state: StateRow::from(state), ..self.body }, ..self }
    }

    pub fn tenant(&self) -> Result<Tenant, RowFault> {
        Ok(Tenant {
            generation: Order(self.body.generation),
            phase: match self.body.phase {
                PhaseRow::Staged => Phase::Staged,
                PhaseRow::Open => Phase::Open,
                PhaseRow::Sealed => Phase::Sealed,
            },
            credential: self.body.credential.credential(),
            state: self.body.state.state()?,
        })
    }

    pub fn entry(&self, replaced: Option<DeviceState>) -> Result<Entry, RowFault> {
        let last = self.body.last.call(replaced)?;
        Ok(Entry { highest: Order(self.body.highest), last, tenant: Some(self.tenant()?), departed: None })
    }
}

impl DepartedRow {
    pub fn new(highest: Order, last: &LastCall, credential: Option<&Credential>) -> Self {
        Self { highest: highest.0, last: LastRow::from(last), credential: credential.map(CredentialRow::from) }
    }

    /// The highest order that was answered.
    pub fn highest(&self) -> Order {
        Order(self.highest)
    }

    pub fn credential(&self) -> Option<Credential> {
        self.credential.as_ref().map(CredentialRow::credential)
    }

    pub fn entry(&self) -> Result<Entry, RowFault> {
        let last = self.last.call(None)?;
        Ok(Entry { highest: Order(self.highest), last, tenant: None, departed: self.credential() })
    }
}

impl From<Phase> for PhaseRow {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Staged => PhaseRow::Staged,
            Phase::Open => PhaseRow::Open,
            Phase::Sealed => PhaseRow::Sealed,
        }
    }
}

impl LastRow {
    fn has_replaced(&self) -> bool {
        match self.outcome {
            OutcomeRow::Replaced => true,
            OutcomeRow::Done | OutcomeRow::Sealed | OutcomeRow::Refused(_) => false,
        }
    }

    fn call(&self, replaced: Option<DeviceState>) -> Result<LastCall, RowFault> {
        let effect = match self.effect {
            EffectRow::Create => EffectKind::Create,
            EffectRow::Activate => EffectKind::Activate,
            EffectRow::Seal => EffectKind::Seal,
            EffectRow::Unseal => EffectKind::Unseal,
            EffectRow::Delete => EffectKind::Delete,
            EffectRow::ReplaceTwin => EffectKind::ReplaceTwin,
            EffectRow::UpdateCredential => EffectKind::UpdateCredential,
        };
        let outcome = match &self.outcome {
            OutcomeRow::Done => Outcome::Done,
            OutcomeRow::Sealed => Outcome::Sealed,
            OutcomeRow::Replaced => match replaced {
                Some(state) => Outcome::Replaced(Box::new(state)),
                None => return Err(RowFault::Form("a replaced state is missing".to_owned())),
            },
            OutcomeRow::Refused(refusal) => Outcome::Refused(refusal.refusal()),
        };
        Ok(LastCall { effect, outcome })
    }
}

impl From<&LastCall> for LastRow {
    fn from(last: &LastCall) -> Self {
        let effect = match last.effect {
            EffectKind::Create => EffectRow::Create,
            EffectKind::Activate => EffectRow::Activate,
            EffectKind::Seal => EffectRow::Seal,
            EffectKind::Unseal => EffectRow::Unseal,
            EffectKind::Delete => EffectRow::Delete,
            EffectKind::ReplaceTwin => EffectRow::ReplaceTwin,
            EffectKind::UpdateCredential => EffectRow::UpdateCredential,
        };
        let outcome = match &last.outcome {
            Outcome::Done => OutcomeRow::Done,
            Outcome::Sealed => OutcomeRow::Sealed,
            Outcome::Replaced(_) => OutcomeRow::Replaced,
            Outcome::Refused(refusal) => OutcomeRow::Refused(RefusalRow::from(refusal)),
        };
        Self { effect, outcome }
    }
}

impl RefusalRow {
    fn refusal(&self) -> HubRefusal {
        match self {
            RefusalRow::Stale(highest) => HubRefusal::Stale { highest: Order(*highest) },
            RefusalRow::Occupied => HubRefusal::Occupied,
            RefusalRow::NotStaged => HubRefusal::NotStaged,
            RefusalRow::NoSuchDevice => HubRefusal::NoSuchDevice,
            RefusalRow::WrongIncarnation(current) => HubRefusal::WrongIncarnation { current: Incarnation(*current) },
            RefusalRow::Full => HubRefusal::Full,
            RefusalRow::StateInvalid(why) => HubRefusal::StateInvalid(why.clone()),
            RefusalRow::OrderReused => HubRefusal::OrderReused,
        }
    }
}

impl From<&HubRefusal> for RefusalRow {
    fn from(refusal: &HubRefusal) -> Self {
        match refusal {
            HubRefusal::Stale { highest } => RefusalRow::Stale(highest.0),
            HubRefusal::Occupied => RefusalRow::Occupied,
            HubRefusal::NotStaged => RefusalRow::NotStaged,
            HubRefusal::NoSuchDevice => RefusalRow::NoSuchDevice,
            HubRefusal::WrongIncarnation { current } => RefusalRow::WrongIncarnation(current.0),
            HubRefusal::Full => RefusalRow::Full,
            HubRefusal::StateInvalid(why) => RefusalRow::StateInvalid(why.clone()),
            HubRefusal::OrderReused => RefusalRow::OrderReused,
        }
    }
}

impl CredentialRow {
    fn credential(&self) -> Credential {
        match self {
            CredentialRow::X509(thumbprints) => Credential::x509(thumbprints.iter().copied().map(Thumbprint)),
            CredentialRow::Delivered(keys) => {
                // One that is too long was not written by us: it opens nothing, as if it were not there.
                let key = |(fingerprint, sealed): &([u8; 32], Vec<u8>)| {
                    SealedKey::new(KeyFingerprint(*fingerprint), sealed.as_slice())
                };
                Credential::Delivered(DeliveredKeys::kept(keys.iter().filter_map(key).collect()))
            }
            CredentialRow::Shared(keys) => {
                let key = |(fingerprint, sealed): &([u8; 32], Vec<u8>)| {
                    SealedKey::new(KeyFingerprint(*fingerprint), sealed.as_slice())
                };
                match keys.each_ref().map(key) {
                    [Some(primary), Some(secondary)] => Credential::Shared(KeyPair { primary, secondary }),
                    // As above: it opens nothing.
                    [_, _] => Credential::x509([]),
                }
            }
        }
    }
}

impl From<&Credential> for CredentialRow {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::X509 { thumbprints } => {
                CredentialRow::X509(thumbprints.iter().map(|thumbprint| thumbprint.0).collect())
            }
            Credential::Delivered(keys) => {
                let row = |key: &SealedKey| (key.fingerprint().0, key.sealed().to_vec());
                CredentialRow::Delivered(keys.newest_first().iter().map(row).collect())
            }
            Credential::Shared(keys) => {
                CredentialRow::Shared(keys.both().map(|key| (key.fingerprint().0, key.sealed().to_vec())))
            }
        }
    }
}

impl StateRow {
    fn state(&self) -> Result<DeviceState, RowFault> {
        Ok(DeviceState {
            twin: Twin {
                desired: self.desired.section()?,
                reported: self.reported.section()?,
                tags: document(&self.tags)?,
                version: self.version,
            },
            capabilities: Capabilities { iot_edge: self.iot_edge },
            status: match &self.disabled {
                None => HubStatus::Enabled,
                Some(reason) => HubStatus::Disabled { reason: reason.clone() },
            },
        })
    }
}

impl From<&DeviceState> for StateRow {
    fn from(state: &DeviceState) -> Self {
        let twin = &state.twin;
        Self {
            desired: SectionRow::from(&twin.desired),
            reported: SectionRow::from(&twin.reported),
            tags: twin.tags.to_text(),
            version: twin.version,
            iot_edge: state.capabilities.iot_edge,
            disabled: match &state.status {
                HubStatus::Enabled => None,
                HubStatus::Disabled { reason } => Some(reason.clone()),
            },
        }
    }
}

impl SectionRow {
    fn section(&self) -> Result<Section, RowFault> {
        let properties = document(&self.properties)?;
        let metadata = self.metadata.metadata(&properties.0)?.into();
        Ok(Section { properties, version: self.version, metadata })
    }
}

impl From<&Section> for SectionRow {
    fn from(section: &Section) -> Self {
        let mut mirror = Mirror::default();
        let metadata = match mirror.add(&section.properties.0, &section.metadata) {
            true => mirror.row(),
            false => MetadataRow::Tree(TreeRow::from(&*section.metadata)),
        };
        Self { properties: section.properties.to_text(), version: section.version, metadata }
    }
}

/// Gathers the stamps of metadata in the order of its document.
#[derive(Default)]
struct Mirror {
    known: BTreeMap<(i64, u64), u32>,
    stamps: Vec<(i64, u64)>,
    nodes: Vec<u32>,
}

impl Mirror {
    /// False when the metadata does not mirror the document.
    fn add(&mut self, map: &Map<String, Value>, metadata: &Metadata) -> bool {
        self.stamp(metadata);
        metadata.properties.len() == map.len()
            && map.iter().all(|(key, value)| match (metadata.properties.get(key), value) {
                (Some(below), Value::Object(inner)) => self.add(inner, below),
                (Some(leaf), Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                    self.stamp(leaf);
                    leaf.properties.is_empty()
                }
                (None, _) => false,
            })
    }

    fn stamp(&mut self, metadata: &Metadata) {
        let stamp = (metadata.last_updated_at.0, metadata.last_updated_version);
        let next = u32::try_from(self.stamps.len()).unwrap_or(u32::MAX);
        let index = *self.known.entry(stamp).or_insert(next);
        if index == next {
            self.stamps.push(stamp);
        }
        self.nodes.push(index);
    }

    fn row(self) -> MetadataRow {
        let nodes = if self.stamps.len() == 1 { Vec::new() } else { self.nodes };
        MetadataRow::Mirror { stamps: self.stamps, nodes }
    }
}

impl MetadataRow {
    fn metadata(&self, map: &Map<String, Value>) -> Result<Metadata, RowFault> {
        match self {
            MetadataRow::Mirror { stamps, nodes } => unfold(map, stamps, &mut nodes.iter()),
            MetadataRow::Tree(tree) => Ok(tree.metadata()),
        }
    }
}

fn unfold(
    map: &Map<String, Value>,
    stamps: &[(i64, u64)],
    nodes: &mut std::slice::Iter<'_, u32>,
) -> Result<Metadata, RowFault> {
    let mut metadata = leaf(stamps, nodes)?;
    for (key, value) in map {
        let below = match value {
            Value::Object(inner) => unfold(inner, stamps, nodes)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                leaf(stamps, nodes)?
            }
        };
        metadata.properties.insert(key.clone(), below);
    }
    Ok(metadata)
}

fn leaf(stamps: &[(i64, u64)], nodes: &mut std::slice::Iter<'_, u32>) -> Result<Metadata, RowFault> {
    let index = if stamps.len() == 1 { Some(&0) } else { nodes.next() };
    let stamp = index.and_then(|index| stamps.get(usize::try_from(*index).ok()?));
    let (at, version) = stamp.ok_or_else(|| RowFault::Form("metadata is shorter than its document".to_owned()))?;
    Ok(Metadata { last_updated_at: Timestamp(*at), last_updated_version: *version, properties: BTreeMap::new() })
}

impl TreeRow {
    fn metadata(&self) -> Metadata {
        Metadata {
            last_updated_at: Timestamp(self.at),
            last_updated_version: self.version,
            properties: self.below.iter().map(|(key, below)| (key.clone(), below.metadata())).collect(),
        }
    }
}

impl From<&Metadata> for TreeRow {
    fn from(metadata: &Metadata) -> Self {
        Self {
            at: metadata.last_updated_at.0,
            version: metadata.last_updated_version,
            below: metadata.properties.iter().map(|(key, below)| (key.clone(), TreeRow::from(below))).collect(),
        }
    }
}

fn document(text: &str) -> Result<Document, RowFault> {
    Document::from_text(text).map_err(|fault| RowFault::Form(format!("a document {fault}")))
}

#[cfg(feature = "testing")]
mod reread;
#[cfg(feature = "testing")]
pub use reread::{reread_row, row_samples};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InitialState, TwinPatch};

    fn twin(desired: &str, patch: &str) -> Twin {
        let initial = InitialState { desired: Document::from_text(desired).unwrap(), ..InitialState::default() };
        let patch = TwinPatch { desired: Some(Document::from_text(patch).unwrap()), ..TwinPatch::default() };
        Twin::initial(&initial, Timestamp(1_700_000_000_000)).patched(&patch, Timestamp(1_700_000_001_000)).unwrap()
    }

    fn entry(twin: Twin, status: HubStatus, outcome: Outcome) -> Entry {
        Entry {
            highest: Order(u64::MAX),
            last: LastCall { effect: EffectKind::ReplaceTwin, outcome },
            tenant: Some(Tenant {
                generation: Order(7),
                phase: Phase::Open,
                credential: Credential::x509([Thumbprint([1; 32]), Thumbprint([2; 32])]),
                state: DeviceState { twin, capabilities: Capabilities { iot_edge: true }, status },
            }),
            departed: None,
        }
    }

    fn row(entry: &Entry) -> Vec<u8> {
        encode(&ResidentRow::new(entry.highest, &entry.last, entry.tenant.as_ref().unwrap())).unwrap()
    }

    #[test]
    fn what_is_kept_reads_back_the_same() {
        let disabled = HubStatus::Disabled { reason: "löst".to_owned() };
        let mut foreign = twin(r#"{"a":{"b":1}}"#, r#"{"c":2}"#);
        foreign.desired.metadata.properties.remove("a");
        let replaced = Outcome::Replaced(Box::new(DeviceState {
            twin: twin("{}", "{}"),
            capabilities: Capabilities::default(),
            status: HubStatus::Enabled,
        }));
        let refused = |refusal| Outcome::Refused(refusal);
        for entry in [
            entry(twin("{}", "{}"), HubStatus::Enabled, Outcome::Done),
            entry(
                twin(r#"{"a":{"b":[1,{"c":0.1}],"d":{}},"e":"ü"}"#, r#"{"a":{"d":{"x":1}}}"#),
                disabled,
                Outcome::Sealed,
            ),
            entry(foreign, HubStatus::Enabled, replaced),
            entry(twin("{}", "{}"), HubStatus::Enabled, refused(HubRefusal::StateInvalid("because".to_owned()))),
            entry(twin("{}", "{}"), HubStatus::Enabled, refused(HubRefusal::Occupied)),
        ] {
            let row: ResidentRow = decode(&row(&entry)).unwrap();
            let replaced = match &entry.last.outcome {
                Outcome::Replaced(state) => Some(decode_state(&encode_state(state).unwrap()).unwrap()),
                Outcome::Done | Outcome::Sealed | Outcome::Refused(_) => None,
            };
            assert_eq!(row.has_replaced(), replaced.is_some());
            assert_eq!(row.entry(replaced).unwrap(), entry);
        }
    }

    #[test]
    fn a_departed_device_is_its_fence_and_its_credential() {
        let credential = Credential::x509([Thumbprint([9; 32])]);
        let last = LastCall { effect: EffectKind::Delete, outcome: Outcome::Done };
        for departed in [None, Some(credential)] {
            let bytes = encode(&DepartedRow::new(Order(5), &last, departed.as_ref())).unwrap();
            let entry = decode::<DepartedRow>(&bytes).unwrap().entry().unwrap();
            assert_eq!(entry, Entry { highest: Order(5), last: last.clone(), tenant: None, departed });
        }
    }

    #[test]
    fn a_common_twin_takes_under_two_thousand_bytes() {
        let keys: Vec<String> = (0..40).map(|n| format!(r#""setting-{n:02}":{{"value":{n},"unit":"ms"}}"#)).collect();
        let entry = entry(
            twin(&format!("{{{}}}", keys.join(",")), r#"{"setting-07":{"value":1}}"#),
            HubStatus::Enabled,
            Outcome::Done,
        );
        let bytes = row(&entry).len();
        assert!(bytes < 2_000, "{bytes}");
    }

    #[test]
    fn rows_that_cannot_be_understood_are_refused() {
        let whole = row(&entry(twin(r#"{"a":1}"#, r#"{"b":1}"#), HubStatus::Enabled, Outcome::Done));
        let mut newer = whole.clone();
        newer[0] = 2;
        assert_eq!(decode::<ResidentRow>(&newer).unwrap_err(), RowFault::Version(2));
        assert_eq!(decode::<ResidentRow>(&[]).unwrap_err(), RowFault::Empty);
        for length in 1..whole.len() {
            assert!(decode::<ResidentRow>(&whole[..length]).is_err(), "{length}");
        }
        let short = MetadataRow::Mirror { stamps: vec![(1, 1), (2, 2)], nodes: vec![0] };
        assert!(short.metadata(&Document::from_text(r#"{"a":1}"#).unwrap().0).is_err());
    }
}
