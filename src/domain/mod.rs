//! The words of the service as types: ids, limits, times, enrollments, hubs, registrations, twins and evidence.
//!
//! No clock, no randomness, no IO, no async: everything here is a value or a pure function on values.

pub mod audit;
pub mod call;
pub mod document;
pub mod draft;
pub mod enrollment;
pub mod evidence;
pub mod fault;
pub mod hub;
pub mod ids;
pub mod key;
pub mod limits;
pub mod registration;
pub mod role;
pub mod scope;
pub mod shared;
pub mod shared_access;
pub mod time;
pub mod token;
pub mod tpm;
pub mod twin;

pub use audit::{AuditAction, AuditEntry, StoredAudit};
pub use call::{CallFault, CallOutcome, FeedToken, HubAnswer, HubCall, HubEffect, HubRefusal, MustSeal, NewDevice};
pub use document::{Document, DocumentFault};
pub use draft::{AttestationDraft, EnrollmentDraft, HubDraft, SrkDraft};
pub use enrollment::{
    AllocationPolicy, AnchorRef, Attestation, CertificateRef, Claim, Enrollment, EnrollmentId, InitialState,
    ReprovisionPolicy, ResetOnSameHub, UnreachableRule, WebhookPolicy, X509Anchors, X509Leaves,
};
pub use evidence::{ApiVersion, ClientFacts, Evidence, Geo, Latency, PresentedToken, SdkVersion};
pub use fault::{Fault, Kind, Reason};
pub use hub::{Hub, HubKind, HubState};
pub use ids::{
    DeviceId, GroupId, HubId, IdFault, Incarnation, OperationId, Order, RegistrationId, RequestId, Thumbprint,
    TrackingId, Version,
};
pub use key::{DeliveredKeys, KeyFingerprint, KeyPair, SealedKey};
pub use registration::{
    Assignment, Credential, DataSource, Operation, OperationStatus, Past, Pin, Registration, SubStatus, TpmDelivery,
};
pub use role::{Role, RoleGrant};
pub use scope::IdScope;
pub use shared::Shared;
pub use shared_access::{Permission, PolicyArea, PolicyName, SharedAccessPolicy};
pub use time::Timestamp;
pub use token::{SasToken, TokenFault, TokenKey, UnsignedToken};
pub use tpm::{
    EkHash, PcrIndex, PcrMode, PcrPolicy, PcrValue, SrkRule, TpmDevice, TpmFault, TpmFleet, TpmMake, TpmManufacturer,
    TpmModel, TpmName, TpmPublic, TpmRules,
};
pub use twin::{Capabilities, DeviceState, HubStatus, Section, Twin, TwinFault, TwinPatch};
