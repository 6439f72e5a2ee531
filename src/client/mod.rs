//! The clients: the SDK a device registers with and reads its twin by, and the operator's.
//!
//! They know the wire and nothing of the service behind it. Errors say what is wrong and what to do about it.

mod backup;
mod device;
mod fault;
mod follow;
mod home;
mod operator;
mod proof;
mod register;
mod retry;
mod session;
mod target;
pub mod tpm;

pub use crate::wire::RemoteFault;
pub use crate::wire::convert::enrollment::EnrollmentRecord;
pub use crate::wire::convert::hub::{HubDebts, HubRecord, HubUsage};
pub use crate::wire::convert::reconcile::{Outcome as ReconcileOutcome, ReconcileNews, ReconciledDevice};
pub use crate::wire::convert::registration::{AssignedHub, RegistrationUpdate, UpdateStatus};
pub use crate::wire::convert::registration_admin::{ReprovisionCall, Resolution, ResolveCall, StatusQuery, UndoCall};
pub use crate::wire::convert::registration_record::{
    AllocationKind, Explanation, HistoryRecord, HistoryTwin, MoveProgress, Obligation, OperationRecord,
    RegistrationRecord,
};
pub use crate::wire::convert::twin::{DesiredChange, DeviceRecord, TwinTarget};
pub use backup::{Backup, BackupPart};
pub use device::Device;
pub use fault::ClientFault;
pub use follow::{DeviceEvent, Follow};
pub use home::{Home, OwnTwin, Watch};
pub use operator::{
    EnrollmentKind, ImportOutcome, Operator, Page, PageChoice, Reconcile, RegistrationChoice, Revoked, every_row,
};
pub use proof::{device_key, registration_id_of};
pub use retry::Patience;
pub use session::{Caller, Handshake, Server, Session, Tickets};
pub use target::{Identity, Target};
