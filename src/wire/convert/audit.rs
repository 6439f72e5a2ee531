//! The audit log.

use super::field::{self, PageQuery};
use crate::domain::{
    AuditAction, AuditEntry, EnrollmentId, HubId, OperationId, Order, RegistrationId, StoredAudit, TrackingId,
};
use crate::wire::WireFault;
use crate::wire::admin::v1;

/// Which entries an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    pub action: Option<AuditAction>,
    pub registration: Option<RegistrationId>,
    pub page: PageQuery,
}

impl TryFrom<&v1::ListAuditEntriesRequest> for AuditQuery {
    type Error = WireFault;

    fn try_from(request: &v1::ListAuditEntriesRequest) -> Result<Self, WireFault> {
        Ok(Self {
            action: if request.action.is_empty() { None } else { Some(action(&request.action)?) },
            registration: field::optional_id("registration_id", &request.registration_id, RegistrationId::parse)?,
            page: field::page(request.page_size, &request.page_token)?,
        })
    }
}

fn action(text: &str) -> Result<AuditAction, WireFault> {
    let known = AuditAction::ALL.iter().copied().find(|action| action.as_str() == text);
    known.ok_or_else(|| {
        let words: Vec<&str> = AuditAction::ALL.iter().map(|action| action.as_str()).collect();
        WireFault::new("action", format!("is not one of {}", words.join(", ")))
    })
}

impl From<&StoredAudit> for v1::AuditEntry {
    fn from(stored: &StoredAudit) -> Self {
        let AuditEntry { at, actor, action, registration, enrollment, hub, operation, tracking, detail } =
            &stored.entry;
        Self {
            at: Some(field::wire_time(*at)),
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            registration_id: registration.as_ref().map(RegistrationId::to_string).unwrap_or_default(),
            enrollment: enrollment.as_ref().map(v1::EnrollmentRef::from),
            hub_id: hub.as_ref().map(HubId::to_string).unwrap_or_default(),
            operation_id: operation.as_ref().map(OperationId::to_string).unwrap_or_default(),
            tracking_id: tracking.as_ref().map(TrackingId::to_string).unwrap_or_default(),
            detail: detail.clone(),
            order: stored.order.0,
            place: stored.place,
        }
    }
}

impl TryFrom<&v1::AuditEntry> for StoredAudit {
    type Error = WireFault;

    fn try_from(message: &v1::AuditEntry) -> Result<Self, WireFault> {
        let enrollment: Option<EnrollmentId> = message
            .enrollment
            .as_ref()
            .map(|reference| field::enrollment_id("enrollment", Some(reference)))
            .transpose()?;
        Ok(Self {
            order: Order(message.order),
            place: message.place,
            entry: AuditEntry {
                at: field::required_time("at", message.at.as_ref())?,
                actor: message.actor.clone(),
                action: action(&message.action)?,
                registration: field::optional_id("registration_id", &message.registration_id, RegistrationId::parse)?,
                enrollment,
                hub: field::optional_id("hub_id", &message.hub_id, HubId::parse)?,
                operation: field::optional_id("operation_id", &message.operation_id, str::parse::<OperationId>)?,
                tracking: field::optional_id("tracking_id", &message.tracking_id, str::parse::<TrackingId>)?,
                detail: message.detail.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{GroupId, Timestamp};

    #[test]
    fn entries_come_back() {
        for action in AuditAction::ALL {
            let bare = AuditEntry::new(Timestamp(5), "device", *action, "what and why");
            let full = AuditEntry {
                registration: Some(RegistrationId::parse("Dev-1").unwrap()),
                enrollment: Some(EnrollmentId::Group(GroupId::parse("g").unwrap())),
                hub: Some(HubId::parse("hub-a").unwrap()),
                operation: Some(OperationId(1)),
                tracking: Some(TrackingId(2)),
                ..bare.clone()
            };
            for entry in [bare, full] {
                let stored = StoredAudit { order: Order(9), place: 1, entry };
                assert_eq!(StoredAudit::try_from(&v1::AuditEntry::from(&stored)), Ok(stored));
            }
        }
    }

    #[test]
    fn queries_are_checked() {
        fn check(change: impl FnOnce(&mut v1::ListAuditEntriesRequest), expected: Result<(), &str>) {
            let mut request = v1::ListAuditEntriesRequest::default();
            change(&mut request);
            assert_eq!(AuditQuery::try_from(&request).map(|_| ()).map_err(|fault| fault.field), expected);
        }
        check(|_| {}, Ok(()));
        check(|r| r.action = "hub_linked".to_owned(), Ok(()));
        check(|r| r.action = "nothing".to_owned(), Err("action"));
        check(|r| r.registration_id = "a b".to_owned(), Err("registration_id"));
        check(|r| r.page_size = 1001, Err("page_size"));
    }
}
