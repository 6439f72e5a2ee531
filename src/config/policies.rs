//! The file of the shared access policies: TOML that its operator may edit, with the keys in it. It is a secret as a whole.
//!
//! Faults name lines and policies, never what stands there.

use zeroize::Zeroizing;

use crate::domain::{KeyPair, Permission, PolicyArea, PolicyName, SharedAccessPolicy, TokenKey, limits};

/// Why the file's text is not a file of policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoliciesFault {
    #[error("it is larger than {} bytes", limits::POLICIES_BYTES_MAX)]
    TooLarge,
    #[error(
        "line {line} is not what it should be: tables [[service]] and [[hub]] with name, permissions, primary_key and secondary_key"
    )]
    Form { line: usize },
    #[error("it holds more than {} policies", limits::POLICIES_MAX)]
    TooMany,
    #[error("a policy's name is not one: {0}")]
    Name(String),
    #[error("policy {name}: {permission:?} is not a permission of {area}")]
    Permission { name: String, area: &'static str, permission: String },
    #[error(
        "policy {name}: {field} is not base64 of {} to {} bytes",
        limits::TOKEN_KEY_BYTES_MIN,
        limits::TOKEN_KEY_BYTES_MAX
    )]
    Key { name: String, field: &'static str },
    #[error("policy {name} of {area} is there twice")]
    Twice { name: String, area: &'static str },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    service: Vec<PolicyText>,
    #[serde(default)]
    hub: Vec<PolicyText>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    name: String,
    permissions: Vec<String>,
    #[serde(deserialize_with = "secret")]
    primary_key: Zeroizing<String>,
    #[serde(deserialize_with = "secret")]
    secondary_key: Zeroizing<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    serde::Deserialize::deserialize(deserializer).map(Zeroizing::new)
}

/// Reads the file's text.
pub fn read_policies(text: &str) -> Result<Vec<SharedAccessPolicy>, PoliciesFault> {
    if text.len() > limits::POLICIES_BYTES_MAX {
        return Err(PoliciesFault::TooLarge);
    }
    let form = |error: toml::de::Error| PoliciesFault::Form {
        line: error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()),
    };
    let FileText { service, hub } = toml::from_str(text).map_err(form)?;
    if service.len() + hub.len() > limits::POLICIES_MAX {
        return Err(PoliciesFault::TooMany);
    }
    let areas = [(PolicyArea::Service, service), (PolicyArea::Hub, hub)];
    let mut policies: Vec<SharedAccessPolicy> = Vec::new();
    for (area, given) in areas.into_iter().flat_map(|(area, given)| given.into_iter().map(move |one| (area, one))) {
        let policy = given.read(area)?;
        if policies.iter().any(|known| known.area == area && known.name == policy.name) {
            return Err(PoliciesFault::Twice { name: policy.name.to_string(), area: area_word(area) });
        }
        policies.push(policy);
    }
    Ok(policies)
}

impl PolicyText {
    fn read(self, area: PolicyArea) -> Result<SharedAccessPolicy, PoliciesFault> {
        let name = PolicyName::parse(&self.name).map_err(|fault| PoliciesFault::Name(fault.to_string()))?;
        let permission = |text: &String| {
            let known = text.parse::<Permission>().ok().filter(|permission| permission.area() == area);
            known.ok_or_else(|| PoliciesFault::Permission {
                name: name.to_string(),
                area: area_word(area),
                permission: text.clone(),
            })
        };
        let permissions = self.permissions.iter().map(permission).collect::<Result<_, _>>()?;
        let key = |field: &'static str, text: &str| {
            let bytes = data_encoding::BASE64.decode(text.trim().as_bytes()).map(Zeroizing::new).ok();
            let key = bytes.and_then(|bytes| TokenKey::new(&bytes).ok());
            key.ok_or_else(|| PoliciesFault::Key { name: name.to_string(), field })
        };
        let primary = key("primary_key", &self.primary_key)?;
        let secondary = key("secondary_key", &self.secondary_key)?;
        Ok(SharedAccessPolicy { keys: KeyPair { primary, secondary }, name, area, permissions })
    }
}

fn area_word(area: PolicyArea) -> &'static str {
    match area {
        PolicyArea::Service => "the service",
        PolicyArea::Hub => "hubs",
    }
}

const HEAD: &str = "\
# The shared access policies: who may call the HTTPS services of existing Azure SDKs by a key, and for what.
# This file is a secret. Change it and start the service again; `rehome connection-string` prints what SDKs are given.
# A hub's policy shows the keys of devices only where it has the permission DeviceKeys, too.
# A policy has two keys, so that one can be rolled: base64 of 16 to 64 bytes. Each hub has keys of its own, made of those
# of [[hub]] and the hub's id.
";

/// What a service has when nobody says otherwise: the names that such services are known to have.
const USUAL: &[(&str, &str, &[Permission])] = &[
    (
        "service",
        "provisioningserviceowner",
        &[
            Permission::ServiceConfig,
            Permission::EnrollmentRead,
            Permission::EnrollmentWrite,
            Permission::RegistrationStatusRead,
            Permission::RegistrationStatusWrite,
        ],
    ),
    ("hub", "iothubowner", &[Permission::RegistryRead, Permission::RegistryWrite, Permission::ServiceConnect]),
    ("hub", "service", &[Permission::ServiceConnect]),
    ("hub", "registryRead", &[Permission::RegistryRead]),
    ("hub", "registryReadWrite", &[Permission::RegistryRead, Permission::RegistryWrite]),
];

/// The text of a new file, with keys as they are drawn.
pub fn made_policies(mut draw: impl FnMut() -> Zeroizing<[u8; limits::TOKEN_KEY_BYTES_MAX]>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(HEAD.to_owned());
    for (area, name, permissions) in USUAL {
        let permissions: Vec<String> = permissions.iter().map(|permission| format!("\"{permission}\"")).collect();
        let permissions = permissions.join(", ");
        text.push_str(&format!("\n[[{area}]]\nname = \"{name}\"\npermissions = [{permissions}]\n"));
        for field in ["primary_key", "secondary_key"] {
            let key = Zeroizing::new(data_encoding::BASE64.encode(draw().as_slice()));
            text.push_str(&Zeroizing::new(format!("{field} = \"{}\"\n", key.as_str())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(area: &str, name: &str, permissions: &str, key: &str) -> String {
        format!(
            "[[{area}]]\nname = \"{name}\"\npermissions = [{permissions}]\nprimary_key = \"{key}\"\nsecondary_key = \"{key}\"\n"
        )
    }

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

    #[test]
    fn a_new_file_reads_back() {
        let mut number = 0_u8;
        let text = made_policies(|| {
            number += 1;
            Zeroizing::new([number; 64])
        });
        let policies = read_policies(&text).unwrap();
        assert_eq!(policies.len(), 5);
        assert_eq!(policies[0].name.as_str(), "provisioningserviceowner");
        assert_eq!(policies[0].keys.primary.secret(), [1; 64]);
        assert_eq!(policies[4].keys.secondary.secret(), [10; 64]);
        let of = |area| policies.iter().filter(move |policy| policy.area == area);
        for permission in Permission::ALL.iter().filter(|permission| **permission != Permission::DeviceKeys) {
            assert!(of(permission.area()).any(|policy| policy.allows(*permission)), "{permission}");
        }
    }

    #[test]
    fn files_that_are_refused_and_say_nothing_secret() {
        let good = policy("service", "a", "\"EnrollmentRead\"", KEY);
        let many: String = (0..=limits::POLICIES_MAX).map(|n| policy("hub", &format!("p{n}"), "", KEY)).collect();
        for (text, fault) in [
            (format!("{good}{good}"), "policy a of the service is there twice"),
            (policy("service", "a b", "", KEY), "a policy's name is not one"),
            (policy("service", "a", "\"RegistryRead\"", KEY), "\"RegistryRead\" is not a permission of the service"),
            (policy("hub", "a", "\"EnrollmentRead\"", KEY), "\"EnrollmentRead\" is not a permission of hubs"),
            (policy("hub", "a", "\"DeviceConnect\"", KEY), "\"DeviceConnect\" is not a permission of hubs"),
            (policy("hub", "a", "", "c2VjcmV0"), "primary_key is not base64 of 16 to 64 bytes"),
            (policy("hub", "a", "", "secret?"), "primary_key is not base64"),
            (policy("device", "a", "", KEY), "line 1 is not what it should be"),
            (good.replace("primary_key", "key"), "is not what it should be"),
            (format!("{good}x = secret"), "line 6 is not what it should be"),
            ("# ".repeat(limits::POLICIES_BYTES_MAX), "it is larger than"),
            (many, "it holds more than 64 policies"),
        ] {
            let said = read_policies(&text).unwrap_err().to_string();
            assert!(said.contains(fault), "{said}");
            assert!(!said.contains("secret?") && !said.contains("c2Vj"), "{said}");
        }
        assert_eq!(read_policies("").unwrap(), Vec::new(), "nobody calls by a key then");
        assert!(read_policies(&good).is_ok());
    }
}
