//! What a device is told, as it is shown.

use serde::Serialize;
use serde_json::Value;

use crate::client::{RegistrationUpdate, UpdateStatus};
use crate::domain::DataSource;

/// One update of a registration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpdateView {
    pub registration_id: String,
    pub operation_id: String,
    pub status: &'static str,
    pub sub_status: Option<&'static str>,
    pub data_source: Option<&'static str>,
    pub data_seen_at: Option<String>,
    pub device_id: String,
    pub hub_id: Option<String>,
    pub host_name: Option<String>,
    pub endpoint: Option<String>,
    pub assigned_at: Option<String>,
    pub generation: u64,
    pub payload: Value,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub retry_after_seconds: Option<f64>,
}

/// What a status says, in columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusColumns {
    pub status: &'static str,
    pub sub_status: Option<&'static str>,
    pub data_source: Option<&'static str>,
    pub data_seen_at: Option<String>,
    pub reason: Option<String>,
    pub message: Option<String>,
}

impl From<UpdateStatus> for StatusColumns {
    fn from(status: UpdateStatus) -> Self {
        let columns = Self { status: status.as_str(), ..Self::default() };
        match status {
            UpdateStatus::Assigning => columns,
            UpdateStatus::Disabled => Self { message: Some("the enrollment is disabled".to_owned()), ..columns },
            UpdateStatus::Assigned { sub_status, data_source } => Self {
                sub_status: Some(sub_status.as_str()),
                data_source: data_source.map(DataSource::as_str),
                data_seen_at: seen_at(data_source),
                ..columns
            },
            UpdateStatus::Failed { reason, message } => {
                Self { reason: Some(reason), message: Some(message), ..columns }
            }
        }
    }
}

/// How old a last known state is.
pub fn seen_at(source: Option<DataSource>) -> Option<String> {
    match source {
        Some(DataSource::LastKnown { seen_at }) => Some(seen_at.to_string()),
        Some(DataSource::Sealed | DataSource::Initial) | None => None,
    }
}

impl From<&RegistrationUpdate> for UpdateView {
    fn from(update: &RegistrationUpdate) -> Self {
        let hub = update.hub.as_ref();
        let status = StatusColumns::from(update.status.clone());
        Self {
            registration_id: update.registration_id.to_string(),
            operation_id: update.operation_id.to_string(),
            status: status.status,
            sub_status: status.sub_status,
            data_source: status.data_source,
            data_seen_at: status.data_seen_at,
            device_id: update.device_id.to_string(),
            hub_id: hub.map(|hub| hub.id.to_string()),
            host_name: hub.map(|hub| hub.host_name.clone()),
            endpoint: hub.map(|hub| hub.endpoint.clone()),
            assigned_at: hub.map(|hub| hub.assigned_at.to_string()),
            generation: update.generation,
            payload: update.payload.clone().unwrap_or_default(),
            reason: status.reason,
            message: status.message,
            retry_after_seconds: update.retry_after.map(|span| span.as_secs_f64()),
        }
    }
}

impl UpdateView {
    /// The update in one line.
    pub fn line(&self) -> String {
        let hub = self.hub_id.as_deref().unwrap_or("no hub");
        let mut line = format!("{}: {}", self.registration_id, self.status);
        match self.sub_status {
            Some(sub_status) => {
                let endpoint = self.endpoint.as_deref().unwrap_or("no endpoint");
                line.push_str(&format!(" to {hub} at {endpoint} ({sub_status})"));
                if let Some(seen) = &self.data_seen_at {
                    line.push_str(&format!(", with its state of {seen}"));
                }
            }
            None => {
                if self.hub_id.is_some() {
                    line.push_str(&format!(", home is {hub}"));
                }
                if let Some(message) = &self.message {
                    line.push_str(&format!(": {message}"));
                }
                if let Some(reason) = &self.reason {
                    line.push_str(&format!(" ({reason})"));
                }
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::AssignedHub;
    use crate::domain::{DeviceId, HubId, OperationId, RegistrationId, SubStatus, Timestamp};

    fn update(status: UpdateStatus, hub: Option<AssignedHub>) -> RegistrationUpdate {
        RegistrationUpdate {
            registration_id: RegistrationId::parse("dev-1").unwrap(),
            operation_id: OperationId(1),
            status,
            device_id: DeviceId::parse("dev-1").unwrap(),
            hub,
            generation: 0,
            payload: None,
            retry_after: None,
            tpm: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    fn check(status: UpdateStatus, hub: Option<AssignedHub>, expected: &str) {
        assert_eq!(UpdateView::from(&update(status, hub)).line(), expected);
    }

    #[test]
    fn an_update_is_one_line() {
        let hub = || {
            Some(AssignedHub {
                id: HubId::parse("hub-a").unwrap(),
                host_name: "hub-a.localhost".to_owned(),
                endpoint: "127.0.0.1:7443".to_owned(),
                assigned_at: Timestamp(0),
            })
        };
        check(UpdateStatus::Assigning, None, "dev-1: assigning");
        check(UpdateStatus::Assigning, hub(), "dev-1: assigning, home is hub-a");
        let moved = |data_source| UpdateStatus::Assigned { sub_status: SubStatus::DeviceDataMigrated, data_source };
        let line = "dev-1: assigned to hub-a at 127.0.0.1:7443 (device_data_migrated)";
        check(moved(Some(DataSource::Sealed)), hub(), line);
        let stale = moved(Some(DataSource::LastKnown { seen_at: Timestamp(0) }));
        check(stale, hub(), &format!("{line}, with its state of 1970-01-01T00:00:00.000Z"));
        let failed =
            UpdateStatus::Failed { reason: "NO_HUB_AVAILABLE".to_owned(), message: "no hub is left".to_owned() };
        check(failed, None, "dev-1: failed: no hub is left (NO_HUB_AVAILABLE)");
        check(UpdateStatus::Disabled, None, "dev-1: disabled: the enrollment is disabled");
    }

    #[test]
    fn the_json_of_an_update_has_every_key() {
        let json = serde_json::to_value(UpdateView::from(&update(UpdateStatus::Assigning, None))).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "assigned_at",
                "data_seen_at",
                "data_source",
                "device_id",
                "endpoint",
                "generation",
                "host_name",
                "hub_id",
                "message",
                "operation_id",
                "payload",
                "reason",
                "registration_id",
                "retry_after_seconds",
                "status",
                "sub_status"
            ]
        );
    }
}
