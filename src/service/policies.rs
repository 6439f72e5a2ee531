//! Callers by a shared access policy: existing SDKs of back ends sign a token with a policy's key, as operators show a
//! certificate.

use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::attestation::sas::{self, Demand};
use crate::domain::token::SasToken;
use crate::domain::{
    Fault, HubId, Permission, PolicyArea, PolicyName, PresentedToken, Reason, SharedAccessPolicy, TokenKey, limits,
};

use super::Service;

/// The policies, and what the service itself is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedAccess {
    /// Whom tokens for the service are for.
    pub host_name: String,
    pub policies: Arc<[SharedAccessPolicy]>,
}

impl SharedAccess {
    fn find(&self, area: PolicyArea, name: &str) -> Option<&SharedAccessPolicy> {
        self.policies.iter().find(|policy| policy.area == area && policy.name.as_str() == name)
    }
}

/// Where a caller wants to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door<'a> {
    Service,
    Hub(&'a HubId),
}

/// Somebody who has a policy's key: only [`Service::policy_holder`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyHolder {
    policy: PolicyName,
    permissions: Vec<Permission>,
}

impl PolicyHolder {
    /// For audit.
    pub fn name(&self) -> String {
        format!("policy {}", self.policy)
    }

    /// Refuses what the policy does not allow.
    pub fn allow(&self, asked: Permission) -> Result<(), Fault> {
        if self.permissions.iter().any(|permission| permission.covers(asked)) {
            return Ok(());
        }
        let message = format!("{} may not do this: it needs the permission {asked}", self.name());
        Err(Fault::new(Reason::RoleNotAllowed, message).with("permission", asked.as_str()))
    }
}

/// The key of a policy at one hub. Whoever has it can make no other hub's of it.
pub fn hub_policy_key(key: &TokenKey, hub: &HubId) -> TokenKey {
    let made_of = hmac::Key::new(hmac::HMAC_SHA256, key.secret());
    let tag = hmac::sign(&made_of, format!("hub/{hub}").as_bytes());
    TokenKey::new(tag.as_ref()).expect("a tag of HMAC-SHA256 is as long as a key may be")
}

impl Service {
    /// Who calls by this token. What it says counts only once one of its policy's keys has signed it.
    pub fn policy_holder(&self, presented: &PresentedToken, door: Door<'_>) -> Result<PolicyHolder, Fault> {
        let refused = |why: &str, message: &str| {
            tracing::info!("a token of a shared access policy was not accepted: {why}");
            Fault::new(Reason::CallerUnauthenticated, message)
        };
        let unknown = |why: &str| refused(why, "the token was not signed with a key of a policy that is known here");
        let token = SasToken::parse(presented.text().as_bytes()).map_err(|fault| unknown(fault.as_str()))?;
        let shared = &self.inner.config.shared_access;
        let (area, names) = match door {
            Door::Service => (PolicyArea::Service, vec![shared.host_name.clone()]),
            Door::Hub(hub) => (PolicyArea::Hub, self.hub_names(hub)),
        };
        let policy = token.key_name().and_then(|name| shared.find(area, name));
        let policy = policy.ok_or_else(|| unknown("policy_unknown"))?;
        let keys = policy.keys.map(|key| match door {
            Door::Service => key.clone(),
            Door::Hub(hub) => hub_policy_key(key, hub),
        });
        // With its port, where it names one: what is compared is the name.
        let resource = token.resource();
        let meant = names.iter().find(|name| without_port(&resource).eq_ignore_ascii_case(name));
        let expected = if meant.is_some() { Some(&resource) } else { names.first() };
        let expected = expected.ok_or_else(|| unknown("policy_without_a_door"))?;
        let demand = Demand { resource: expected, lifetime_max: limits::POLICY_TOKEN_LIFETIME_MAX };
        match sas::verify(&token, keys.both(), demand, self.inner.clock.now()) {
            Ok(_) => Ok(PolicyHolder { policy: policy.name.clone(), permissions: policy.permissions.clone() }),
            Err(refusal @ sas::Refusal::SignatureInvalid) => Err(unknown(refusal.as_str())),
            Err(refusal) => Err(refused(refusal.as_str(), &format!("the token is of no use here: {refusal}"))),
        }
    }

    fn hub_names(&self, hub: &HubId) -> Vec<String> {
        let linked = self.inner.directory.fleet().berth(hub).map(|berth| berth.hub.host_name);
        linked.into_iter().chain([hub.to_string()]).collect()
    }
}

/// A host name without the port that may stand behind it.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{KeyPair, Timestamp, UnsignedToken};
    use crate::service::Config;
    use crate::service::samples::{NOW, World, hub_id};

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&[byte; 32]).unwrap()
    }

    fn policy(name: &str, area: PolicyArea, permissions: &[Permission], byte: u8) -> SharedAccessPolicy {
        SharedAccessPolicy {
            name: PolicyName::parse(name).unwrap(),
            area,
            permissions: permissions.to_vec(),
            keys: KeyPair { primary: key(byte), secondary: key(byte + 1) },
        }
    }

    fn shared_access() -> SharedAccess {
        let policies = [
            policy("owner", PolicyArea::Service, &[Permission::EnrollmentRead, Permission::EnrollmentWrite], 1),
            policy("reader", PolicyArea::Service, &[Permission::EnrollmentRead], 3),
            policy("owner", PolicyArea::Hub, &[Permission::RegistryWrite], 5),
        ];
        SharedAccess { host_name: "dps.example".to_owned(), policies: policies.into() }
    }

    async fn world() -> World {
        let world = World::with(Config { shared_access: shared_access(), ..Config::default() });
        world.link("hub-a").await;
        world.link("hub-b").await;
        world
    }

    fn token(resource: &str, ends: Timestamp, key: &TokenKey, name: Option<&str>) -> PresentedToken {
        PresentedToken::new(&sas::sign(&UnsignedToken::new(resource, ends), key, name)).unwrap()
    }

    #[tokio::test]
    async fn a_token_opens_its_own_door_only() {
        let world = world().await;
        let soon = NOW.plus(HOUR);
        let (hub_a, hub_b) = (hub_id("hub-a"), hub_id("hub-b"));
        let (at_a, at_b) = (hub_policy_key(&key(5), &hub_a), hub_policy_key(&key(6), &hub_b));
        let host_a = world.service.inner.directory.fleet().berth(&hub_a).unwrap().hub.host_name;
        let (service, a, b) = (Door::Service, Door::Hub(&hub_a), Door::Hub(&hub_b));
        for (resource, key, name, door, fits) in [
            ("dps.example", key(1), Some("owner"), service, true),
            ("dps.example", key(2), Some("owner"), service, true),
            ("DPS.example:8443", key(1), Some("owner"), service, true),
            ("dps.example", key(3), Some("reader"), service, true),
            ("dps.example", key(3), Some("owner"), service, false),
            ("dps.example", key(5), Some("owner"), service, false),
            ("dps.example", key(1), Some("Owner"), service, false),
            ("dps.example", key(1), Some("nobody"), service, false),
            ("dps.example", key(1), None, service, false),
            ("dps.example:x", key(1), Some("owner"), service, false),
            ("dps.example.org", key(1), Some("owner"), service, false),
            ("dps.example/enrollments", key(1), Some("owner"), service, false),
            ("", key(1), Some("owner"), service, false),
            ("hub-a", at_a.clone(), Some("owner"), a, true),
            (host_a.as_str(), at_a.clone(), Some("owner"), a, true),
            ("hub-a", at_a.clone(), Some("owner"), b, false),
            ("hub-b", at_a.clone(), Some("owner"), b, false),
            ("hub-b", at_b.clone(), Some("owner"), b, true),
            ("hub-a", key(5), Some("owner"), a, false),
            ("dps.example", at_a, Some("owner"), service, false),
            ("hub-a", key(1), Some("owner"), a, false),
        ] {
            let holder = world.service.policy_holder(&token(resource, soon, &key, name), door);
            assert_eq!(holder.is_ok(), fits, "{resource} {name:?} {door:?}");
            if let Err(fault) = holder {
                assert_eq!(fault.reason, Reason::CallerUnauthenticated);
            }
        }
    }

    #[tokio::test]
    async fn a_token_ends_and_does_not_last_for_ever() {
        let world = world().await;
        let latest = NOW.plus(limits::POLICY_TOKEN_LIFETIME_MAX).plus(limits::CLOCK_SKEW);
        for (ends, fits) in [
            (NOW, false),
            (Timestamp(0), false),
            (NOW.plus(Duration::from_secs(1)), true),
            (latest, true),
            (latest.plus(HOUR), false),
        ] {
            let holder =
                world.service.policy_holder(&token("dps.example", ends, &key(1), Some("owner")), Door::Service);
            assert_eq!(holder.is_ok(), fits, "{ends}");
        }
        for text in ["", "SharedAccessSignature", "Bearer x"] {
            let presented = PresentedToken::new(text).unwrap();
            assert!(world.service.policy_holder(&presented, Door::Service).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_holder_may_what_its_policy_says() {
        let world = world().await;
        let presented = token("dps.example", NOW.plus(HOUR), &key(3), Some("reader"));
        let holder = world.service.policy_holder(&presented, Door::Service).unwrap();
        assert_eq!(holder.name(), "policy reader");
        assert!(holder.allow(Permission::EnrollmentRead).is_ok());
        for asked in Permission::ALL.iter().filter(|asked| **asked != Permission::EnrollmentRead) {
            assert_eq!(holder.allow(*asked).unwrap_err().reason, Reason::RoleNotAllowed, "{asked}");
        }
    }
}
