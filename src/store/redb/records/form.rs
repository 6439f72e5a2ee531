//! The shapes of records in the file; each says which version of its record it is when that is not the first.
//!
//! Append only: postcard writes fields and variants by position, so none is ever removed, moved or inserted; a new shape
//! is a new record under the next version byte.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub enum EnrollmentId {
    Individual(String),
    Group(String),
}

#[derive(Serialize, Deserialize)]
pub struct Certificate {
    pub der: Vec<u8>,
    pub thumbprint: [u8; 32],
    pub subject: [u8; 32],
}

#[derive(Serialize, Deserialize)]
pub enum Attestation {
    X509Leaf {
        primary: Certificate,
        secondary: Option<Certificate>,
    },
    X509Ca {
        primary: Certificate,
        secondary: Option<Certificate>,
    },
    Tpm {
        endorsement_key: Vec<u8>,
        ek_hash: [u8; 32],
        rules: TpmRules,
    },
    TpmFleet {
        primary: Certificate,
        secondary: Option<Certificate>,
        makes: Vec<TpmMake>,
        usage_may_be_absent: bool,
        rules: TpmRules,
    },
    SymmetricKey {
        primary: SealedKey,
        secondary: SealedKey,
    },
    MasterKey {
        primary: SealedKey,
        secondary: SealedKey,
    },
}

#[derive(Serialize, Deserialize)]
pub struct TpmMake {
    pub manufacturer: [u8; 4],
    pub model: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub enum SrkRule {
    Any,
    PinFirst,
    Pinned(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
pub enum PcrMode {
    Enforce,
    Audit,
}

#[derive(Serialize, Deserialize)]
pub struct PcrPolicy {
    pub mode: PcrMode,
    pub allowed: Vec<(u8, Vec<[u8; 32]>)>,
}

#[derive(Serialize, Deserialize)]
pub struct TpmRules {
    pub storage_root_key: SrkRule,
    pub pcrs: Option<PcrPolicy>,
}

#[derive(Serialize, Deserialize)]
pub enum ReprovisionPolicy {
    Migrate,
    Reset,
    Never,
}

#[derive(Serialize, Deserialize)]
pub enum AllocationPolicy {
    Static,
    Hashed,
    LowestLatency,
    Custom { url: String, api_version: String },
}

#[derive(Serialize, Deserialize)]
pub enum UnreachableRule {
    Wait { seconds: u64, nanoseconds: u32 },
    LastKnown,
    Reset,
}

#[derive(Serialize, Deserialize)]
pub enum ResetOnSameHub {
    Always,
    WhenEnrollmentChanged,
    Off,
}

#[derive(Serialize, Deserialize)]
pub struct Capabilities {
    pub iot_edge: bool,
}

#[derive(Serialize, Deserialize)]
pub struct InitialState {
    pub tags: String,
    pub desired: String,
    pub capabilities: Capabilities,
}

#[derive(Serialize, Deserialize)]
pub struct Enrollment {
    pub id: EnrollmentId,
    pub attestation: Attestation,
    pub enabled: bool,
    pub device_id: Option<String>,
    pub initial: InitialState,
    pub reprovision: Option<ReprovisionPolicy>,
    pub allocation: Option<AllocationPolicy>,
    pub hubs: Vec<String>,
    pub unreachable: UnreachableRule,
    pub allow_late_writes: bool,
    pub reset_on_same_hub: ResetOnSameHub,
    pub reassign_when_down: bool,
    pub adopt_existing: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
pub enum HubKind {
    Embedded,
}

#[derive(Serialize, Deserialize)]
pub enum HubState {
    Active,
    Draining,
    Retired,
}

#[derive(Serialize, Deserialize)]
pub struct LastKnown {
    pub hub: String,
    pub state: DeviceState,
    pub seen_at: i64,
}

#[derive(Serialize, Deserialize)]
pub struct Hub {
    pub id: String,
    pub host_name: String,
    pub endpoint: String,
    pub kind: HubKind,
    pub state: HubState,
    pub location: Option<(f64, f64)>,
    pub weight: u32,
    pub capacity: Option<u64>,
    pub calls_per_second: Option<u32>,
    pub incarnation: Option<u128>,
    pub taken_down: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
pub enum Credential {
    X509 {
        thumbprints: Vec<[u8; 32]>,
    },
    /// Newest first.
    Delivered {
        keys: Vec<SealedKey>,
    },
    Shared {
        primary: SealedKey,
        secondary: SealedKey,
    },
}

#[derive(Serialize, Deserialize)]
pub struct SealedKey {
    pub fingerprint: [u8; 32],
    pub sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub struct TpmDelivery {
    pub ek: [u8; 32],
    pub srk: Option<Vec<u8>>,
    pub blob: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub struct Assignment {
    pub hub: String,
    pub generation: u64,
    pub credential: Option<Credential>,
    pub assigned_at: i64,
}

#[derive(Serialize, Deserialize)]
pub enum SubStatus {
    InitialAssignment,
    DeviceDataMigrated,
    DeviceDataReset,
    ReprovisionedToInitialAssignment,
}

#[derive(Serialize, Deserialize)]
pub enum DataSource {
    Sealed,
    LastKnown { seen_at: i64 },
    Initial,
}

#[derive(Serialize, Deserialize)]
pub enum OperationStatus {
    Assigning,
    Assigned { sub_status: SubStatus, data_source: Option<DataSource> },
    Failed { reason: String, message: String },
    Disabled,
}

#[derive(Serialize, Deserialize)]
pub struct Operation {
    pub id: u128,
    pub status: OperationStatus,
    pub request_id: Option<String>,
    pub started_at: i64,
    pub updated_at: i64,
}

#[derive(Serialize, Deserialize)]
pub struct Pin {
    pub hub: String,
    pub by: String,
    pub reason: String,
    pub set_at: i64,
    pub expires_at: Option<i64>,
}

/// Version 1.
#[derive(Serialize, Deserialize)]
pub struct FirstRegistration {
    pub id: String,
    pub device_id: String,
    pub enrollment: EnrollmentId,
    pub enrollment_version: u64,
    pub policy: Option<ReprovisionPolicy>,
    pub assignment: Option<Assignment>,
    pub operation: Operation,
    pub pin: Option<Pin>,
    pub payload: Option<String>,
    pub past: Vec<u64>,
    pub created_at: i64,
    pub updated_at: i64,
    pub version: u64,
}

/// Version 2: the first with what is added to it, so that the first is read by the same code.
#[derive(Serialize, Deserialize)]
pub struct Registration {
    pub first: FirstRegistration,
    pub tpm: Option<TpmDelivery>,
    /// Those of `past` that are kept beyond the bound.
    pub late: Vec<u64>,
}

/// Version 2; the first was the list of `moves` alone.
#[derive(Serialize, Deserialize)]
pub struct Past {
    pub moves: Vec<u64>,
    pub late: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub registration: Option<String>,
    pub enrollment: Option<EnrollmentId>,
    pub hub: Option<String>,
    pub operation: Option<u128>,
    pub tracking: Option<u128>,
    pub detail: String,
}

/// One node of metadata. Nodes stand in preorder, so that reading them needs no recursion into the bytes.
#[derive(Serialize, Deserialize)]
pub struct MetadataNode {
    pub depth: u32,
    pub key: String,
    pub last_updated_at: i64,
    pub last_updated_version: u64,
}

#[derive(Serialize, Deserialize)]
pub struct Section {
    pub properties: String,
    pub version: u64,
    pub metadata: Vec<MetadataNode>,
}

#[derive(Serialize, Deserialize)]
pub struct Twin {
    pub desired: Section,
    pub reported: Section,
    pub tags: String,
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
pub enum HubStatus {
    Enabled,
    Disabled { reason: String },
}

#[derive(Serialize, Deserialize)]
pub struct DeviceState {
    pub twin: Twin,
    pub capabilities: Capabilities,
    pub status: HubStatus,
}

#[derive(Serialize, Deserialize)]
pub enum Plan {
    Assign { to: String },
    TakeOver { to: String, adopt: bool },
    Relocate { from: String, to: String, carry: Carry },
    Replant { from: String, to: String, source: u64 },
    Rehouse { from: String, to: String },
    ResetInPlace { at: String, credential: bool },
    Refresh { at: String },
    Release { from: Option<String> },
    Restore { from: String, to: String, seen_at: i64 },
    Collect { from: Option<String> },
}

#[derive(Serialize, Deserialize)]
pub enum Carry {
    State,
    Initial,
    Planted { seen_at: i64 },
}

#[derive(Serialize, Deserialize)]
pub struct KnownState {
    pub state: Box<DeviceState>,
    pub seen_at: i64,
}

#[derive(Serialize, Deserialize)]
pub enum Bypass {
    Away,
    Missing,
}

#[derive(Serialize, Deserialize)]
pub struct Intent {
    pub operation: u128,
    pub request_id: Option<String>,
    pub by: String,
    pub registration: String,
    pub device: String,
    pub plan: Plan,
    pub enrollment: EnrollmentId,
    pub enrollment_version: u64,
    pub policy: Option<ReprovisionPolicy>,
    pub sub_status: SubStatus,
    pub credential: Credential,
    pub initial: InitialState,
    pub planted: Option<Box<DeviceState>>,
    pub unreachable: UnreachableRule,
    pub allow_late_writes: bool,
    pub adopt_existing: bool,
    pub payload: Option<String>,
    pub pin: Option<Pin>,
    pub why: String,
}

#[derive(Serialize, Deserialize)]
pub enum Effect {
    Seal,
    Create,
    Withhold,
    UpdateCredential,
    Activate,
    Unseal,
    Delete,
    Collect,
    ReplaceTwin,
}

#[derive(Serialize, Deserialize)]
pub enum HubRefusal {
    Stale { highest: u64 },
    Occupied,
    NotStaged,
    NoSuchDevice,
    WrongIncarnation { current: u128 },
    Full,
    StateInvalid(String),
    OrderReused,
}

#[derive(Serialize, Deserialize)]
pub enum JournalRecord {
    Intent(Box<Intent>),
    StepDone {
        effect: Effect,
        state: Option<Box<DeviceState>>,
    },
    Pivoted {
        data_source: Option<DataSource>,
    },
    Aborted {
        reason: String,
        message: String,
        spare_current: bool,
    },
    Collected {
        hub: String,
        state: Option<Box<DeviceState>>,
    },
    Settled {
        effect: Effect,
        hub: String,
        state: Option<Box<DeviceState>>,
    },
    Stuck {
        effect: Effect,
        hub: String,
        refusal: HubRefusal,
    },
    Dropped {
        effect: Effect,
        hub: String,
        why: String,
    },
    /// An intent with what is delivered through a TPM.
    TpmIntent {
        intent: Box<Intent>,
        tpm: TpmDelivery,
    },
    Bypassed {
        cause: Bypass,
        known: Option<KnownState>,
        carry: Carry,
    },
    Regained {
        state: Box<DeviceState>,
        clear: bool,
    },
    Retried {
        effect: Effect,
        hub: String,
        as_effect: Effect,
        by: String,
        why: String,
    },
    Abandoned {
        effect: Effect,
        hub: String,
        by: String,
        why: String,
    },
    /// As `Abandoned`, of what the hub cannot have obeyed.
    AbandonedUnheard {
        effect: Effect,
        hub: String,
        by: String,
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
pub struct JournalLine {
    pub order: u64,
    pub at: i64,
    pub record: JournalRecord,
}
