//! Registrations as operators see them: their questions and orders.

use super::field::{self, PageQuery};
use crate::domain::{GroupId, HubId, Order, Pin, RegistrationId, ReprovisionPolicy, RequestId, Timestamp, limits};
use crate::wire::WireFault;
use crate::wire::admin::v1;
use crate::wire::device::v1::RegistrationStatus;

/// Which registrations an operator asks for; all given filters must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationQuery {
    pub hub: Option<HubId>,
    pub group: Option<GroupId>,
    pub status: Option<StatusQuery>,
    /// `Some(None)` is sticky.
    pub policy: Option<Option<ReprovisionPolicy>>,
    pub pinned: Option<bool>,
    pub page: PageQuery,
}

/// A status to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusQuery {
    Assigning,
    Assigned,
    Failed,
    Disabled,
}

impl TryFrom<&v1::ListRegistrationsRequest> for RegistrationQuery {
    type Error = WireFault;

    fn try_from(request: &v1::ListRegistrationsRequest) -> Result<Self, WireFault> {
        let not_known = |field: &'static str| {
            move |value: prost::UnknownEnumValue| WireFault::new(field, format!("{} is not a value of it", value.0))
        };
        let status = match RegistrationStatus::try_from(request.status).map_err(not_known("status"))? {
            RegistrationStatus::Unspecified => None,
            RegistrationStatus::Assigning => Some(StatusQuery::Assigning),
            RegistrationStatus::Assigned => Some(StatusQuery::Assigned),
            RegistrationStatus::Failed => Some(StatusQuery::Failed),
            RegistrationStatus::Disabled => Some(StatusQuery::Disabled),
        };
        let policy = v1::AppliedPolicy::try_from(request.policy).map_err(not_known("policy"))?;
        Ok(Self {
            hub: field::optional_id("hub_id", &request.hub_id, HubId::parse)?,
            group: field::optional_id("group_id", &request.group_id, GroupId::parse)?,
            status,
            policy: applied_policy(policy),
            pinned: request.pinned,
            page: field::page(request.page_size, &request.page_token)?,
        })
    }
}

/// A policy that applied; `Some(None)` is sticky, `None` is not said.
pub fn applied_policy(policy: v1::AppliedPolicy) -> Option<Option<ReprovisionPolicy>> {
    match policy {
        v1::AppliedPolicy::Unspecified => None,
        v1::AppliedPolicy::Migrate => Some(Some(ReprovisionPolicy::Migrate)),
        v1::AppliedPolicy::Reset => Some(Some(ReprovisionPolicy::Reset)),
        v1::AppliedPolicy::Never => Some(Some(ReprovisionPolicy::Never)),
        v1::AppliedPolicy::Sticky => Some(None),
    }
}

/// A policy that applied; `None` is sticky.
pub fn wire_applied_policy(policy: Option<ReprovisionPolicy>) -> v1::AppliedPolicy {
    match policy {
        None => v1::AppliedPolicy::Sticky,
        Some(ReprovisionPolicy::Migrate) => v1::AppliedPolicy::Migrate,
        Some(ReprovisionPolicy::Reset) => v1::AppliedPolicy::Reset,
        Some(ReprovisionPolicy::Never) => v1::AppliedPolicy::Never,
    }
}

/// An operator's order to decide again for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReprovisionCall {
    pub registration: RegistrationId,
    /// The hub to pin it to; absent lets policy and allocation decide.
    pub to: Option<HubId>,
    pub pin_expires_at: Option<Timestamp>,
    /// At most [`limits::REASON_CHARS_MAX`] characters.
    pub reason: String,
    pub request_id: Option<RequestId>,
}

impl TryFrom<&v1::ReprovisionRequest> for ReprovisionCall {
    type Error = WireFault;

    fn try_from(request: &v1::ReprovisionRequest) -> Result<Self, WireFault> {
        let to = field::optional_id("to_hub_id", &request.to_hub_id, HubId::parse)?;
        let pin_expires_at = field::optional_time("pin_expires_at", request.pin_expires_at.as_ref())?;
        if to.is_none() && pin_expires_at.is_some() {
            return Err(WireFault::new("pin_expires_at", "is for a named hub only: say to_hub_id as well"));
        }
        Ok(Self {
            registration: field::id("registration_id", &request.registration_id, RegistrationId::parse)?,
            to,
            pin_expires_at,
            reason: field::free_text("reason", &request.reason, limits::REASON_CHARS_MAX)?,
            request_id: field::optional_id("request_id", &request.request_id, RequestId::parse)?,
        })
    }
}

impl From<&ReprovisionCall> for v1::ReprovisionRequest {
    fn from(call: &ReprovisionCall) -> Self {
        Self {
            registration_id: call.registration.to_string(),
            to_hub_id: call.to.as_ref().map(HubId::to_string).unwrap_or_default(),
            pin_expires_at: call.pin_expires_at.map(field::wire_time),
            reason: call.reason.clone(),
            request_id: call.request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        }
    }
}

/// An operator's order to take a move back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoCall {
    pub registration: RegistrationId,
    /// Absent: the move that gave the device its home.
    pub generation: Option<Order>,
    pub restore_twin: bool,
    /// At most [`limits::REASON_CHARS_MAX`] characters.
    pub reason: String,
    pub pin_expires_at: Option<Timestamp>,
    pub request_id: Option<RequestId>,
}

impl TryFrom<&v1::UndoMoveRequest> for UndoCall {
    type Error = WireFault;

    fn try_from(request: &v1::UndoMoveRequest) -> Result<Self, WireFault> {
        Ok(Self {
            registration: field::id("registration_id", &request.registration_id, RegistrationId::parse)?,
            generation: (request.generation != 0).then_some(Order(request.generation)),
            restore_twin: request.restore_twin,
            reason: field::free_text("reason", &request.reason, limits::REASON_CHARS_MAX)?,
            pin_expires_at: field::optional_time("pin_expires_at", request.pin_expires_at.as_ref())?,
            request_id: field::optional_id("request_id", &request.request_id, RequestId::parse)?,
        })
    }
}

impl From<&UndoCall> for v1::UndoMoveRequest {
    fn from(call: &UndoCall) -> Self {
        Self {
            registration_id: call.registration.to_string(),
            generation: call.generation.unwrap_or_default().0,
            restore_twin: call.restore_twin,
            reason: call.reason.clone(),
            pin_expires_at: call.pin_expires_at.map(field::wire_time),
            request_id: call.request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        }
    }
}

/// What is done about something that a move waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    Retry,
    Abandon,
    Force,
}

/// An operator's order to resolve what a move waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveCall {
    pub registration: RegistrationId,
    pub generation: Order,
    /// A stable word; absent where the move owes one thing, or has one that is stuck.
    pub what: Option<String>,
    pub hub: Option<HubId>,
    pub resolution: Resolution,
    /// 1 to [`limits::REASON_CHARS_MAX`] characters.
    pub reason: String,
}

impl TryFrom<&v1::ResolveMoveRequest> for ResolveCall {
    type Error = WireFault;

    fn try_from(request: &v1::ResolveMoveRequest) -> Result<Self, WireFault> {
        let resolution = match v1::Resolution::try_from(request.resolution) {
            Ok(v1::Resolution::Retry) => Resolution::Retry,
            Ok(v1::Resolution::Abandon) => Resolution::Abandon,
            Ok(v1::Resolution::Force) => Resolution::Force,
            Ok(v1::Resolution::Unspecified) => {
                return Err(WireFault::new("resolution", "must say what is to be done: retry, abandon or force"));
            }
            Err(unknown) => return Err(WireFault::new("resolution", format!("{} is not a value of it", unknown.0))),
        };
        let reason = field::free_text("reason", &request.reason, limits::REASON_CHARS_MAX)?;
        if reason.is_empty() {
            return Err(WireFault::new("reason", "must say why: it is kept with the move and in the audit log"));
        }
        Ok(Self {
            registration: field::id("registration_id", &request.registration_id, RegistrationId::parse)?,
            generation: Order(request.generation),
            what: (!request.what.is_empty()).then(|| request.what.clone()),
            hub: field::optional_id("hub_id", &request.hub_id, HubId::parse)?,
            resolution,
            reason,
        })
    }
}

impl From<&ResolveCall> for v1::ResolveMoveRequest {
    fn from(call: &ResolveCall) -> Self {
        let resolution = match call.resolution {
            Resolution::Retry => v1::Resolution::Retry,
            Resolution::Abandon => v1::Resolution::Abandon,
            Resolution::Force => v1::Resolution::Force,
        };
        Self {
            registration_id: call.registration.to_string(),
            generation: call.generation.0,
            what: call.what.clone().unwrap_or_default(),
            hub_id: call.hub.as_ref().map(HubId::to_string).unwrap_or_default(),
            resolution: resolution.into(),
            reason: call.reason.clone(),
        }
    }
}

impl From<&Pin> for v1::Pin {
    fn from(pin: &Pin) -> Self {
        Self {
            hub_id: pin.hub.to_string(),
            set_by: pin.by.clone(),
            reason: pin.reason.clone(),
            set_at: Some(field::wire_time(pin.set_at)),
            expires_at: pin.expires_at.map(field::wire_time),
        }
    }
}

impl TryFrom<&v1::Pin> for Pin {
    type Error = WireFault;

    fn try_from(message: &v1::Pin) -> Result<Self, WireFault> {
        Ok(Self {
            hub: field::id("pin.hub_id", &message.hub_id, HubId::parse)?,
            by: message.set_by.clone(),
            reason: message.reason.clone(),
            set_at: field::required_time("pin.set_at", message.set_at.as_ref())?,
            expires_at: field::optional_time("pin.expires_at", message.expires_at.as_ref())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let query = RegistrationQuery::try_from(&v1::ListRegistrationsRequest {
            page_size: 7,
            hub_id: "hub-a".to_owned(),
            group_id: "g".to_owned(),
            status: RegistrationStatus::Failed.into(),
            policy: v1::AppliedPolicy::Sticky.into(),
            pinned: Some(false),
            ..v1::ListRegistrationsRequest::default()
        })
        .unwrap();
        assert_eq!((query.page.size, query.pinned), (7, Some(false)));
        assert_eq!((query.status, query.policy), (Some(StatusQuery::Failed), Some(None)));
        let all = RegistrationQuery::try_from(&v1::ListRegistrationsRequest::default()).unwrap();
        assert_eq!((all.hub, all.group, all.status, all.policy, all.pinned), (None, None, None, None, None));
    }

    #[test]
    fn filters_are_checked() {
        fn refused(change: impl FnOnce(&mut v1::ListRegistrationsRequest), field: &str) {
            let mut request = v1::ListRegistrationsRequest::default();
            change(&mut request);
            assert_eq!(RegistrationQuery::try_from(&request).map_err(|fault| fault.field), Err(field));
        }
        refused(|r| r.hub_id = "Hub".to_owned(), "hub_id");
        refused(|r| r.group_id = "a b".to_owned(), "group_id");
        refused(|r| r.status = 9, "status");
        refused(|r| r.policy = 9, "policy");
        refused(|r| r.page_size = 1001, "page_size");
        refused(|r| r.page_token = "x".repeat(1025), "page_token");
    }

    #[test]
    fn policies_that_applied_come_back() {
        let policies = [ReprovisionPolicy::Migrate, ReprovisionPolicy::Reset, ReprovisionPolicy::Never];
        for policy in policies.into_iter().map(Some).chain([None]) {
            assert_eq!(applied_policy(wire_applied_policy(policy)), Some(policy));
        }
    }

    fn call() -> ReprovisionCall {
        ReprovisionCall {
            registration: RegistrationId::parse("Dev-1").unwrap(),
            to: Some(HubId::parse("hub-b").unwrap()),
            pin_expires_at: Some(Timestamp(5_000)),
            reason: "quarantine".to_owned(),
            request_id: Some(RequestId::parse("r-1").unwrap()),
        }
    }

    #[test]
    fn an_order_comes_back() {
        let bare = ReprovisionCall { to: None, pin_expires_at: None, request_id: None, ..call() };
        for call in [call(), bare] {
            assert_eq!(ReprovisionCall::try_from(&v1::ReprovisionRequest::from(&call)), Ok(call));
        }
    }

    #[test]
    fn every_field_of_an_order_is_checked() {
        fn refused(change: impl FnOnce(&mut v1::ReprovisionRequest), field: &str) {
            let mut request = v1::ReprovisionRequest::from(&call());
            change(&mut request);
            assert_eq!(ReprovisionCall::try_from(&request).map_err(|fault| fault.field), Err(field));
        }
        refused(|r| r.registration_id.clear(), "registration_id");
        refused(|r| r.to_hub_id = "Hub".to_owned(), "to_hub_id");
        refused(|r| r.to_hub_id.clear(), "pin_expires_at");
        refused(|r| r.pin_expires_at.get_or_insert_default().nanos = -1, "pin_expires_at");
        refused(|r| r.reason = "x".repeat(129), "reason");
        refused(|r| r.request_id = "a b".to_owned(), "request_id");
    }

    #[test]
    fn pins_come_back() {
        let pin = Pin {
            hub: HubId::parse("hub-b").unwrap(),
            by: "ann".to_owned(),
            reason: "quarantine".to_owned(),
            set_at: Timestamp(1),
            expires_at: None,
        };
        assert_eq!(Pin::try_from(&v1::Pin::from(&pin)), Ok(pin.clone()));
        let expiring = Pin { expires_at: Some(Timestamp(9)), ..pin };
        assert_eq!(Pin::try_from(&v1::Pin::from(&expiring)), Ok(expiring));
    }
}
