//! Shared access policies: who may call the HTTPS services of existing SDKs by a key, and for what (reference/dps.md §7.2
//! and §8.2).
//!
//! A policy is for the provisioning service or for hubs. Its two keys are both good, so that one can be rolled. A hub's
//! own keys are made of the policy's and the hub's id: who has one hub's has no other's.

use std::fmt;
use std::str::FromStr;

use super::ids::IdFault;
use super::key::KeyPair;
use super::token::TokenKey;

/// What a policy may be used for. Each is a part of a role's rights and never more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// The configuration of the service. It is no call of this service: the right is known and opens nothing.
    ServiceConfig,
    /// Read enrollments and groups.
    EnrollmentRead,
    /// Write enrollments and groups, and see their keys.
    EnrollmentWrite,
    /// Read registrations.
    RegistrationStatusRead,
    /// Delete registrations.
    RegistrationStatusWrite,
    /// Read a hub's devices.
    RegistryRead,
    /// As above, and let devices in, keep them out and remove them.
    RegistryWrite,
    /// See the keys of a hub's devices. Not one of the field's, where writers see them: whoever has a device's key may act
    /// as the device, at its next hub too. No policy has it unless its operator gives it.
    DeviceKeys,
    /// Read and write twins at a hub.
    ServiceConnect,
}

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyArea {
    Service,
    Hub,
}

impl Permission {
    pub const ALL: &'static [Permission] = &[
        Permission::ServiceConfig,
        Permission::EnrollmentRead,
        Permission::EnrollmentWrite,
        Permission::RegistrationStatusRead,
        Permission::RegistrationStatusWrite,
        Permission::RegistryRead,
        Permission::RegistryWrite,
        Permission::DeviceKeys,
        Permission::ServiceConnect,
    ];

    /// The field's own name, where it has one.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::ServiceConfig => "ServiceConfig",
            Permission::EnrollmentRead => "EnrollmentRead",
            Permission::EnrollmentWrite => "EnrollmentWrite",
            Permission::RegistrationStatusRead => "RegistrationStatusRead",
            Permission::RegistrationStatusWrite => "RegistrationStatusWrite",
            Permission::RegistryRead => "RegistryRead",
            Permission::RegistryWrite => "RegistryWrite",
            Permission::DeviceKeys => "DeviceKeys",
            Permission::ServiceConnect => "ServiceConnect",
        }
    }

    /// Whose permission it is.
    pub fn area(self) -> PolicyArea {
        match self {
            Permission::ServiceConfig
            | Permission::EnrollmentRead
            | Permission::EnrollmentWrite
            | Permission::RegistrationStatusRead
            | Permission::RegistrationStatusWrite => PolicyArea::Service,
            Permission::RegistryRead
            | Permission::RegistryWrite
            | Permission::DeviceKeys
            | Permission::ServiceConnect => PolicyArea::Hub,
        }
    }

    /// Whether who has this one may do what asks for the other.
    pub fn covers(self, asked: Permission) -> bool {
        self == asked || (self, asked) == (Permission::RegistryWrite, Permission::RegistryRead)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = IdFault;

    fn from_str(text: &str) -> Result<Self, IdFault> {
        let expected = "a permission, as EnrollmentRead or ServiceConnect";
        let found = Permission::ALL.iter().copied().find(|permission| permission.as_str() == text);
        found.ok_or(IdFault::Form { what: "permission", expected })
    }
}

/// The name of a policy: 1–64 ASCII letters, digits and `-._`, compared as it is. Not a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(String);

impl PolicyName {
    const CHARS_MAX: usize = 64;

    pub fn parse(text: &str) -> Result<Self, IdFault> {
        let fits = (1..=Self::CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let fault = IdFault::Form { what: "policy name", expected: "1 to 64 ASCII letters, digits and -._" };
        fits.then(|| Self(text.to_owned())).ok_or(fault)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy. Its keys are shown by nothing but their own accessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedAccessPolicy {
    pub name: PolicyName,
    pub area: PolicyArea,
    pub permissions: Vec<Permission>,
    pub keys: KeyPair<TokenKey>,
}

impl SharedAccessPolicy {
    pub fn allows(&self, asked: Permission) -> bool {
        self.permissions.iter().any(|permission| permission.covers(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_spelled_one_way() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        for text in ["", "enrollmentread", "DeviceConnect", "EnrollmentRead "] {
            assert!(text.parse::<Permission>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn one_permission_covers_another_only_where_it_is_said() {
        for held in Permission::ALL {
            for asked in Permission::ALL {
                let expected =
                    held == asked || (*held == Permission::RegistryWrite && *asked == Permission::RegistryRead);
                assert_eq!(held.covers(*asked), expected, "{held} {asked}");
            }
        }
    }

    #[test]
    fn names_are_bounded() {
        for (text, fits) in [
            ("provisioningserviceowner", true),
            ("a-b.c_1", true),
            ("", false),
            ("a b", false),
            ("a;b", false),
            ("ä", false),
            (&"a".repeat(64), true),
            (&"a".repeat(65), false),
        ] {
            assert_eq!(PolicyName::parse(text).is_ok(), fits, "{text:?}");
        }
    }
}
