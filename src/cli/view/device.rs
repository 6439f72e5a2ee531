//! What a device is told, as it is shown.

use serde::Serialize;
use serde_json::Value;

use crate::cli::api::device;
use crate::cli::value;

/// One update of a registration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpdateView {
    pub registration_id: String,
    pub operation_id: Option<String>,
    pub status: Option<String>,
    pub sub_status: Option<String>,
    pub data_source: Option<String>,
    pub data_seen_at: Option<String>,
    pub device_id: Option<String>,
    pub hub_id: Option<String>,
    pub host_name: Option<String>,
    pub endpoint: Option<String>,
    pub assigned_at: Option<String>,
    pub generation: u64,
    pub payload: Value,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub retry_after_seconds: Option<u64>,
}

pub fn status_word(status: i32) -> Option<String> {
    let status = device::RegistrationStatus::try_from(status).ok();
    value::word(status.map(|status| status.as_str_name()), "REGISTRATION_STATUS_")
}

pub fn sub_status_word(sub_status: i32) -> Option<String> {
    let sub_status = device::RegistrationSubStatus::try_from(sub_status).ok();
    value::word(sub_status.map(|sub_status| sub_status.as_str_name()), "REGISTRATION_SUB_STATUS_")
}

pub fn data_source_word(source: i32) -> Option<String> {
    let source = device::DataSource::try_from(source).ok();
    value::word(source.map(|source| source.as_str_name()), "DATA_SOURCE_")
}

impl From<device::RegistrationUpdate> for UpdateView {
    fn from(update: device::RegistrationUpdate) -> Self {
        let hub = update.hub.as_ref();
        let hub_text = |field: fn(&device::AssignedHub) -> &String| hub.and_then(|hub| value::text(field(hub)));
        Self {
            operation_id: value::text(&update.operation_id),
            status: status_word(update.status),
            sub_status: sub_status_word(update.sub_status),
            data_source: data_source_word(update.data_source),
            data_seen_at: value::time(update.data_seen_at.as_ref()),
            device_id: value::text(&update.device_id),
            hub_id: hub_text(|hub| &hub.hub_id),
            host_name: hub_text(|hub| &hub.host_name),
            endpoint: hub_text(|hub| &hub.endpoint),
            assigned_at: hub.and_then(|hub| value::time(hub.assigned_at.as_ref())),
            generation: update.generation,
            payload: update.payload.as_ref().map_or(Value::Null, value::json),
            reason: value::text(&update.reason),
            message: value::text(&update.message),
            retry_after_seconds: value::seconds(update.retry_after.as_ref()),
            registration_id: update.registration_id,
        }
    }
}

impl UpdateView {
    /// The update in one line.
    pub fn line(&self) -> String {
        let hub = self.hub_id.as_deref().unwrap_or("no hub");
        let mut line = format!("{}: {}", self.registration_id, self.status.as_deref().unwrap_or("unknown"));
        match self.status.as_deref() {
            Some("assigned") => {
                let endpoint = self.endpoint.as_deref().unwrap_or("no endpoint");
                line.push_str(&format!(" to {hub} at {endpoint}"));
                if let Some(sub_status) = &self.sub_status {
                    line.push_str(&format!(" ({sub_status})"));
                }
                match (self.data_source.as_deref(), &self.data_seen_at) {
                    (Some("last_known"), Some(seen)) => line.push_str(&format!(", with its state of {seen}")),
                    (Some(_) | None, _) => {}
                }
            }
            Some(_) | None => {
                if self.hub_id.is_some() {
                    line.push_str(&format!(", at {hub} until now"));
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

    fn check(change: impl FnOnce(&mut device::RegistrationUpdate), expected: &str) {
        let mut update = device::RegistrationUpdate { registration_id: "dev-1".to_owned(), ..Default::default() };
        change(&mut update);
        assert_eq!(UpdateView::from(update).line(), expected);
    }

    #[test]
    fn an_update_is_one_line() {
        let hub = || {
            Some(device::AssignedHub {
                hub_id: "hub-a".to_owned(),
                endpoint: "127.0.0.1:7443".to_owned(),
                ..Default::default()
            })
        };
        check(|update| update.set_status(device::RegistrationStatus::Assigning), "dev-1: assigning");
        check(
            |update| {
                update.set_status(device::RegistrationStatus::Assigning);
                update.hub = hub();
            },
            "dev-1: assigning, at hub-a until now",
        );
        check(
            |update| {
                update.set_status(device::RegistrationStatus::Assigned);
                update.set_sub_status(device::RegistrationSubStatus::DeviceDataMigrated);
                update.hub = hub();
            },
            "dev-1: assigned to hub-a at 127.0.0.1:7443 (device_data_migrated)",
        );
        check(
            |update| {
                update.set_status(device::RegistrationStatus::Failed);
                update.message = "no hub is left".to_owned();
                update.reason = "NO_HUB_AVAILABLE".to_owned();
            },
            "dev-1: failed: no hub is left (NO_HUB_AVAILABLE)",
        );
    }

    #[test]
    fn the_json_of_an_update_has_every_key() {
        let json = serde_json::to_value(UpdateView::from(device::RegistrationUpdate::default())).unwrap();
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
