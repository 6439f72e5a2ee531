//! A back end with an existing service SDK: a policy's key, and requests signed with it.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use http::request::Builder;
use rehome::ambient::{Clock as _, SystemClock};
use rehome::attestation::sas;
use rehome::compose::PolicyKeys;
use rehome::domain::{Permission, PolicyArea, Timestamp, TokenKey, UnsignedToken};
use serde_json::Value;

use super::wire::{Answer, connect, send};
use crate::world::{HOUR, World, hub_id};

pub const OWNER: &str = "provisioningserviceowner";
pub const HUB_OWNER: &str = "iothubowner";
pub const VERSION: &str = "api-version=2021-10-01";
pub const HUB_VERSION: &str = "api-version=2021-04-12";

/// A world whose other edges are served.
pub async fn world() -> World {
    world_with(|_| ()).await
}

pub async fn world_with(change: impl FnOnce(&mut rehome::config::Config)) -> World {
    World::start_with(|config| {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.azure.https_listen, config.azure.mqtt_listen) = (Some(free), Some(free));
        change(config);
    })
    .await
}

/// A file of policies: area, name and permissions of each. All have the same key.
pub fn policies(folder: &tempfile::TempDir, policies: &[(&str, &str, &[&str])]) -> PathBuf {
    let path = folder.path().join("policies.toml");
    let key = data_encoding::BASE64.encode(&[7; 32]);
    let keys = format!("primary_key = \"{key}\"\nsecondary_key = \"{key}\"\n");
    let policy = |(area, name, permissions): &(&str, &str, &[&str])| {
        format!("[[{area}]]\nname = \"{name}\"\npermissions = {permissions:?}\n{keys}")
    };
    let text: String = policies.iter().map(policy).collect();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    path
}

/// A policy for each permission, named like it.
pub fn single_permissions(folder: &tempfile::TempDir) -> PathBuf {
    let area = |permission: &Permission| match permission.area() {
        PolicyArea::Service => "service",
        PolicyArea::Hub => "hub",
    };
    let names: Vec<[&str; 1]> = Permission::ALL.iter().map(|permission| [permission.as_str()]).collect();
    let each = Permission::ALL.iter().zip(&names).map(|(permission, name)| (area(permission), name[0], &name[..]));
    policies(folder, &each.collect::<Vec<_>>())
}

pub fn in_an_hour() -> Timestamp {
    SystemClock.now().plus(HOUR)
}

pub fn token(resource: &str, ends: Timestamp, key: &TokenKey, name: &str) -> String {
    sas::sign(&UnsignedToken::new(resource, ends), key, Some(name))
}

/// Who calls, and which host.
pub struct Backend<'w> {
    pub world: &'w World,
    pub host: String,
    pub token: Option<String>,
}

impl<'w> Backend<'w> {
    /// Whoever has everything that a back end of the service may have.
    pub fn owner(world: &'w World) -> Self {
        Self::of(world, OWNER)
    }

    pub fn of(world: &'w World, policy: &str) -> Self {
        let keys = world.policy_keys();
        let found = keys.of(PolicyArea::Service).find(|found| found.name.as_str() == policy).unwrap();
        let token = token("localhost", in_an_hour(), &found.keys.primary, policy);
        Self { world, host: "localhost".to_owned(), token: Some(token) }
    }

    /// The back end of a hub.
    pub fn of_hub(world: &'w World, hub: &str, policy: &str) -> Self {
        let keys = world.policy_keys();
        let found = keys.of(PolicyArea::Hub).find(|found| found.name.as_str() == policy).unwrap();
        let key = PolicyKeys::at_hub(&found.keys.secondary, &hub_id(hub));
        let host = format!("{hub}.localhost");
        let token = token(&host, in_an_hour(), &key, policy);
        Self { world, host, token: Some(token) }
    }

    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// One request; `headers` beside those that every request has.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, headers, &body).await
    }

    pub async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let stream = connect(&self.world.site, self.world.https_address(), None).await;
        let mut request = Builder::new().method(method).uri(path).header("content-type", "application/json");
        request = request.header("host", &self.host);
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        send(stream, request, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], &Value::Null).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &[], body).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], &Value::Null).await
    }
}

/// A moment that has passed.
pub fn a_minute_ago() -> Timestamp {
    Timestamp(SystemClock.now().0 - Duration::from_secs(60).as_millis() as i64)
}

pub fn key(byte: u8) -> TokenKey {
    TokenKey::new(&[byte; 32]).unwrap()
}
