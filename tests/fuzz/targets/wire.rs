//! Messages of the API, from both ends. The first byte says which message the rest is.
//!
//! What is taken in is written and read again as the same value, so that nothing is understood in two ways.

use std::fmt::Debug;

use prost::Message;
use rehome::domain::{EnrollmentDraft, StoredAudit};
use rehome::domain::{HubDraft, Pin, limits};
use rehome::wire::convert::audit::AuditQuery;
use rehome::wire::convert::enrollment::{EnrollmentMessage, EnrollmentRecord, Writing, draft, group_draft, wire_draft};
use rehome::wire::convert::hub::{self, HubRecord};
use rehome::wire::convert::registration::{RegisterCall, RegistrationUpdate, operation_of};
use rehome::wire::convert::registration_admin::{RegistrationQuery, ReprovisionCall};
use rehome::wire::convert::registration_record::{Explanation, HistoryRecord, HistoryTwin, RegistrationRecord};
use rehome::wire::convert::twin::{DesiredChange, DeviceRecord, Merge, Replacement, Report, StatusChange};
use rehome::wire::{admin, device, hub as hub_api};

/// Reads a message and takes it in; a message of another form is not for us.
fn taken<M: Message + Default, D, F>(bytes: &[u8], take: impl Fn(&M) -> Result<D, F>) -> bool {
    M::decode(bytes).is_ok_and(|message| take(&message).is_ok())
}

/// As [`taken`], there and back.
fn same<M: Message + Default, D: PartialEq + Debug, F: Debug>(
    bytes: &[u8],
    take: impl Fn(&M) -> Result<D, F>,
    give: impl Fn(&D) -> M,
) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    let Ok(value) = take(&message) else { return false };
    let again = M::decode(give(&value).encode_to_vec().as_slice()).expect("its own bytes");
    assert_eq!(take(&again).expect("what was taken is taken again"), value);
    true
}

/// What devices send.
pub fn wire_from_devices(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match kind {
        0 => same(bytes, |message: &device::v1::RegisterRequest| RegisterCall::try_from(message), |call| call.into()),
        1 => {
            let request = |message: &device::v1::StartRegistrationRequest| {
                RegisterCall::try_from(&device::v1::RegisterRequest::from(message.clone()))
            };
            taken(bytes, request)
        }
        2 => taken(bytes, |message: &device::v1::GetOperationRequest| operation_of(message)),
        3 => taken(bytes, |message: &hub_api::v1::UpdateReportedRequest| Report::try_from(message)),
        _ => false,
    }
}

/// What operators and back ends send.
pub fn wire_from_operators(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match kind {
        0 => same(bytes, |message: &admin::v1::Enrollment| draft(message, Writing::Create), individual),
        1 => same(bytes, |message: &admin::v1::EnrollmentGroup| group_draft(message, Writing::Update), group),
        2 => same(bytes, hub::draft, |draft: &HubDraft| hub::wire_draft(draft)),
        3 => same(bytes, |message: &admin::v1::ReprovisionRequest| ReprovisionCall::try_from(message), |it| it.into()),
        4 => taken(bytes, |message: &admin::v1::ListRegistrationsRequest| RegistrationQuery::try_from(message)),
        5 => taken(bytes, |message: &admin::v1::ListAuditEntriesRequest| AuditQuery::try_from(message)),
        6 => taken(bytes, |message: &hub_api::v1::UpdateTwinRequest| {
            Merge::try_from(message).inspect(|merge| {
                assert!(merge.patch.tags.is_some() || merge.patch.desired.is_some());
                assert!(merge.patch.reported.is_none(), "reported is the device's");
            })
        }),
        7 => taken(bytes, |message: &hub_api::v1::ReplaceTwinRequest| Replacement::try_from(message)),
        8 => taken(bytes, |message: &hub_api::v1::UpdateDeviceStatusRequest| {
            StatusChange::try_from(message).inspect(|change| match &change.status {
                rehome::domain::HubStatus::Enabled => {}
                rehome::domain::HubStatus::Disabled { reason } => {
                    assert!(reason.chars().count() <= limits::REASON_CHARS_MAX);
                }
            })
        }),
        _ => false,
    }
}

fn individual(draft: &EnrollmentDraft) -> admin::v1::Enrollment {
    judge(draft);
    match wire_draft(draft) {
        EnrollmentMessage::Individual(message) => message,
        EnrollmentMessage::Group(_) => panic!("an individual draft became a group"),
    }
}

fn group(draft: &EnrollmentDraft) -> admin::v1::EnrollmentGroup {
    judge(draft);
    match wire_draft(draft) {
        EnrollmentMessage::Group(message) => message,
        EnrollmentMessage::Individual(_) => panic!("a group's draft became an individual one"),
    }
}

/// A draft is judged without a panic, and one that passes keeps the bounds.
fn judge(draft: &EnrollmentDraft) {
    if draft.check().is_ok() {
        assert!(draft.hubs.len() <= limits::HUBS_MAX);
        assert!(draft.initial.desired.check(limits::DESIRED_BYTES_MAX).is_ok());
    }
}

/// What the service answers, as clients read it: a service may be newer, broken, or somebody else.
pub fn wire_to_clients(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match kind {
        0 => same(
            bytes,
            |message: &device::v1::RegistrationUpdate| RegistrationUpdate::try_from(message.clone()),
            |update| update.into(),
        ),
        1 => same(bytes, |message: &admin::v1::Registration| RegistrationRecord::try_from(message), |it| it.into()),
        2 => same(bytes, |message: &admin::v1::HistoryEntry| HistoryRecord::try_from(message), |it| it.into()),
        3 => same(bytes, |message: &admin::v1::HistoryTwin| HistoryTwin::try_from(message), |it| it.into()),
        4 => same(bytes, |message: &admin::v1::ExplainResponse| Explanation::try_from(message), |it| it.into()),
        5 => same(bytes, |message: &admin::v1::Pin| Pin::try_from(message), |pin| pin.into()),
        6 => same(bytes, |message: &admin::v1::AuditEntry| StoredAudit::try_from(message), |it| it.into()),
        7 => same(
            bytes,
            |message: &hub_api::v1::WatchDesiredResponse| DesiredChange::try_from(message),
            |change| change.into(),
        ),
        8 => taken(bytes, |message: &hub_api::v1::Device| DeviceRecord::try_from(message)),
        9 => taken(bytes, |message: &admin::v1::Hub| HubRecord::try_from(message)),
        10 => taken(bytes, |message: &admin::v1::Enrollment| {
            EnrollmentRecord::try_from(&EnrollmentMessage::Individual(message.clone()))
        }),
        11 => taken(bytes, |message: &admin::v1::EnrollmentGroup| {
            EnrollmentRecord::try_from(&EnrollmentMessage::Group(message.clone()))
        }),
        _ => false,
    }
}
