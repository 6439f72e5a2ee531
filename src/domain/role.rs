//! What a caller with an operator certificate may be: its roles, and how a certificate spells them.

use std::fmt;
use std::str::FromStr;

use super::ids::{HubId, IdFault};

const PREFIX: &str = "rehome:role:";

/// What somebody may do. A certificate without a role has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything, changes nothing.
    Reader,
    /// A reader who may also enroll devices.
    Enroller,
    /// May do everything that can be done to the fleet.
    Operator,
    /// A hub's back end: reads and writes twins.
    Backend,
}

impl Role {
    pub const ALL: &'static [Role] = &[Role::Reader, Role::Enroller, Role::Operator, Role::Backend];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Enroller => "enroller",
            Role::Operator => "operator",
            Role::Backend => "backend",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        Role::ALL
            .iter()
            .copied()
            .find(|role| role.as_str() == text)
            .ok_or(IdFault::Form { what: "role", expected: "reader, enroller, operator or backend" })
    }
}

/// A role as a certificate grants it: everywhere, or at one hub only.
///
/// Its text is the URI in the certificate's subject alternative name: `rehome:role:operator`, `rehome:role:backend:hub-a`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleGrant {
    pub role: Role,
    pub hub: Option<HubId>,
}

impl RoleGrant {
    /// A role at every hub.
    pub fn everywhere(role: Role) -> Self {
        Self { role, hub: None }
    }

    /// Whether the grant reaches that hub.
    pub fn reaches(&self, hub: &HubId) -> bool {
        self.hub.as_ref().is_none_or(|only| only == hub)
    }
}

impl fmt::Display for RoleGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.role)?;
        self.hub.iter().try_for_each(|hub| write!(f, ":{hub}"))
    }
}

impl FromStr for RoleGrant {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        const FORM: IdFault =
            IdFault::Form { what: "role grant", expected: "rehome:role:ROLE or rehome:role:ROLE:HUB" };
        let grant = text.strip_prefix(PREFIX).ok_or(FORM)?;
        let (role, hub) = match grant.split_once(':') {
            Some((role, hub)) => (role, Some(HubId::parse(hub)?)),
            None => (grant, None),
        };
        Ok(Self { role: role.parse()?, hub })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_spelled_one_way() {
        for role in Role::ALL {
            for hub in [None, Some(HubId::parse("hub-a").unwrap())] {
                let grant = RoleGrant { role: *role, hub };
                assert_eq!(grant.to_string().parse(), Ok(grant));
            }
        }
        for text in [
            "",
            "operator",
            "rehome:role:",
            "rehome:role:root",
            "rehome:role:Operator",
            "Rehome:role:operator",
            "rehome:role:operator:",
            "rehome:role:operator:hub-a:",
            "rehome:role:operator:Hub",
            "rehome:role: operator",
            "xrehome:role:operator",
        ] {
            assert!(text.parse::<RoleGrant>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_scoped_grant_reaches_its_hub_only() {
        let [here, there] = ["hub-a", "hub-b"].map(|text| HubId::parse(text).unwrap());
        let scoped = RoleGrant { role: Role::Backend, hub: Some(here.clone()) };
        assert_eq!((scoped.reaches(&here), scoped.reaches(&there)), (true, false));
        assert!(RoleGrant::everywhere(Role::Backend).reaches(&there));
    }
}
