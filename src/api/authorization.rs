//! What each role may call: one table, method × role, and nothing outside of it.
//!
//! A method without a row is refused to everybody. Calls that devices make need no role: the service asks for proof of
//! the device itself.

use crate::domain::{Fault, HubId, Permission, Reason, Role, RoleGrant};
use crate::service::Operator;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Open,
    /// A device; the service judges its evidence.
    Proof,
    /// Holders of one of the roles, granted everywhere.
    Roles(&'static [Role]),
    /// As above, and holders of one of the roles at the hub that the call names: the handler must ask [`Allowed::at`].
    AtHub(&'static [Role]),
}

const READERS: &[Role] = &[Role::Reader, Role::Enroller, Role::Operator];
const ENROLLERS: &[Role] = &[Role::Enroller, Role::Operator];
const OPERATORS: &[Role] = &[Role::Operator];
const AUDITORS: &[Role] = &[Role::Reader, Role::Operator];
const TWIN_READERS: &[Role] = &[Role::Reader, Role::Backend, Role::Operator];
const TWIN_WRITERS: &[Role] = &[Role::Backend, Role::Operator];

/// The table.
pub const TABLE: &[(&str, Access)] = &[
    ("/rehome.device.v1.RegistrationService/Register", Access::Proof),
    ("/rehome.device.v1.RegistrationService/StartRegistration", Access::Proof),
    ("/rehome.device.v1.RegistrationService/GetOperation", Access::Proof),
    ("/rehome.device.v1.RegistrationService/LookUpRegistration", Access::Proof),
    ("/rehome.device.v1.RegistrationService/BeginTpmAttestation", Access::Proof),
    ("/rehome.hub.v1.TwinService/GetTwin", Access::Proof),
    ("/rehome.hub.v1.TwinService/UpdateReported", Access::Proof),
    ("/rehome.hub.v1.TwinService/WatchDesired", Access::Proof),
    ("/rehome.hub.v1.TwinAdminService/GetTwin", Access::AtHub(TWIN_READERS)),
    ("/rehome.hub.v1.TwinAdminService/UpdateTwin", Access::AtHub(TWIN_WRITERS)),
    ("/rehome.hub.v1.TwinAdminService/ReplaceTwin", Access::AtHub(TWIN_WRITERS)),
    ("/rehome.hub.v1.TwinAdminService/ListTwins", Access::AtHub(TWIN_READERS)),
    ("/rehome.hub.v1.TwinAdminService/UpdateDeviceStatus", Access::AtHub(TWIN_WRITERS)),
    ("/rehome.admin.v1.EnrollmentService/CreateEnrollment", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentService/ImportEnrollments", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentService/GetEnrollment", Access::Roles(READERS)),
    ("/rehome.admin.v1.EnrollmentService/GetEnrollmentKeys", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.EnrollmentService/ListEnrollments", Access::Roles(READERS)),
    ("/rehome.admin.v1.EnrollmentService/UpdateEnrollment", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentService/EnableEnrollment", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentService/DisableEnrollment", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentService/DeleteEnrollment", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/CreateEnrollmentGroup", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/GetEnrollmentGroup", Access::Roles(READERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/GetEnrollmentGroupKeys", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.EnrollmentGroupService/ListEnrollmentGroups", Access::Roles(READERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/UpdateEnrollmentGroup", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/EnableEnrollmentGroup", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/DisableEnrollmentGroup", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.EnrollmentGroupService/DeleteEnrollmentGroup", Access::Roles(ENROLLERS)),
    ("/rehome.admin.v1.HubService/LinkHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/GetHub", Access::Roles(READERS)),
    ("/rehome.admin.v1.HubService/ListHubs", Access::Roles(READERS)),
    ("/rehome.admin.v1.HubService/UpdateHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/DrainHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/ActivateHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/RetireHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/UnlinkHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/TakeDownHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/BringUpHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/SyncHub", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.HubService/Reconcile", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/ListRegistrations", Access::Roles(READERS)),
    ("/rehome.admin.v1.RegistrationService/GetRegistration", Access::Roles(READERS)),
    ("/rehome.admin.v1.RegistrationService/ListHistory", Access::Roles(READERS)),
    ("/rehome.admin.v1.RegistrationService/GetHistoryTwins", Access::Roles(READERS)),
    ("/rehome.admin.v1.RegistrationService/Explain", Access::Roles(READERS)),
    ("/rehome.admin.v1.RegistrationService/Reprovision", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/UndoMove", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/ResolveMove", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/ForgetLateTwin", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/Unpin", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/Revoke", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/ResetStorageRootKey", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.RegistrationService/DeleteRegistration", Access::Roles(OPERATORS)),
    ("/rehome.admin.v1.AuditService/ListAuditEntries", Access::Roles(AUDITORS)),
    ("/rehome.admin.v1.AuditService/GetAuditEntry", Access::Roles(AUDITORS)),
    ("/rehome.admin.v1.StoreService/Backup", Access::Roles(OPERATORS)),
    ("/grpc.health.v1.Health/Check", Access::Open),
    ("/grpc.health.v1.Health/Watch", Access::Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Roles(Role::ALL)),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::Roles(Role::ALL)),
];

/// Which roles hold a permission of the field's shared access policies: the calls that it opens, made over gRPC, ask for
/// the same.
pub fn of_permission(permission: Permission) -> Access {
    match permission {
        // What removes a device from its hub ends its registration, and keys are the device's wherever it goes: a role at
        // one hub is not enough.
        Permission::ServiceConfig
        | Permission::RegistrationStatusWrite
        | Permission::RegistryWrite
        | Permission::DeviceKeys => Access::Roles(OPERATORS),
        Permission::EnrollmentRead | Permission::RegistrationStatusRead => Access::Roles(READERS),
        Permission::EnrollmentWrite => Access::Roles(ENROLLERS),
        Permission::RegistryRead => Access::AtHub(TWIN_READERS),
        Permission::ServiceConnect => Access::AtHub(TWIN_WRITERS),
    }
}

/// As [`of_permission`], of seeing keys: over gRPC only operators do.
pub const SEEING_KEYS: Access = Access::Roles(OPERATORS);

/// The row of a method, by its path.
pub fn row(path: &str) -> Option<(&'static str, Access)> {
    TABLE.iter().find(|(method, _)| *method == path).copied()
}

/// An operator or back end that may make this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// For the audit log.
    pub by: String,
    /// What allows it.
    grants: Vec<RoleGrant>,
}

impl Allowed {
    /// Whether the call may be made at that hub, too.
    pub fn at(&self, hub: &HubId) -> Result<(), Fault> {
        if self.grants.iter().any(|grant| grant.reaches(hub)) {
            Ok(())
        } else {
            let message = format!("{} has no role that reaches hub {hub}", self.by);
            Err(Fault::new(Reason::RoleNotAllowed, message).with("hub", hub.as_str()))
        }
    }
}

/// Holds a caller against a row that asks for roles.
pub fn judge(operator: &Operator, access: Access) -> Result<Allowed, Fault> {
    let (roles, at_a_hub): (&[Role], bool) = match access {
        Access::Open | Access::Proof => (&[], false),
        Access::Roles(roles) => (roles, false),
        Access::AtHub(roles) => (roles, true),
    };
    let fits = |grant: &&RoleGrant| roles.contains(&grant.role) && (at_a_hub || grant.hub.is_none());
    let grants: Vec<RoleGrant> = operator.grants().iter().filter(fits).cloned().collect();
    if grants.is_empty() {
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message = format!("{} may not do this: it needs the role {}", operator.name(), needed.join(" or "));
        return Err(Fault::new(Reason::RoleNotAllowed, message).with("roles", needed.join(",")));
    }
    Ok(Allowed { by: operator.name().to_owned(), grants })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;

    use super::*;
    use crate::service::samples::{World, evidence};
    use crate::wire::FILE_DESCRIPTOR_SET;

    /// Every method of a descriptor set, as a path.
    fn methods(descriptors: &[u8]) -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(descriptors).unwrap();
        let mut methods = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_has_one_row_and_every_row_a_method() {
        let known = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let methods: BTreeSet<String> = known.into_iter().flat_map(methods).collect();
        let rows: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(methods.difference(&rows).collect::<Vec<_>>(), Vec::<&String>::new(), "methods without a row");
        assert_eq!(rows.difference(&methods).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a method");
        assert_eq!(rows.len(), TABLE.len(), "a method has two rows");
        assert_eq!(row("/rehome.admin.v1.HubService/Nothing"), None);
    }

    /// Who may, in the order reader, enroller, operator, backend.
    fn who(path: &str) -> String {
        let world = World::empty();
        let (_, access) = row(path).unwrap();
        Role::ALL
            .iter()
            .filter(|role| {
                let issued = world.operator(&[&format!("rehome:role:{role}")]);
                let operator = world.service.operator(&evidence(Some(&issued))).unwrap();
                judge(&operator, access).is_ok()
            })
            .map(|role| role.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_table_says_who_may() {
        for (path, expected) in [
            ("/rehome.admin.v1.EnrollmentService/GetEnrollment", "reader enroller operator"),
            ("/rehome.admin.v1.EnrollmentService/CreateEnrollment", "enroller operator"),
            ("/rehome.admin.v1.EnrollmentService/GetEnrollmentKeys", "operator"),
            ("/rehome.admin.v1.EnrollmentGroupService/GetEnrollmentGroupKeys", "operator"),
            ("/rehome.admin.v1.EnrollmentGroupService/DeleteEnrollmentGroup", "enroller operator"),
            ("/rehome.admin.v1.HubService/ListHubs", "reader enroller operator"),
            ("/rehome.admin.v1.HubService/UnlinkHub", "operator"),
            ("/rehome.admin.v1.RegistrationService/Explain", "reader enroller operator"),
            ("/rehome.admin.v1.RegistrationService/Revoke", "operator"),
            ("/rehome.admin.v1.AuditService/GetAuditEntry", "reader operator"),
            ("/rehome.admin.v1.StoreService/Backup", "operator"),
            ("/rehome.hub.v1.TwinAdminService/GetTwin", "reader operator backend"),
            ("/rehome.hub.v1.TwinAdminService/UpdateTwin", "operator backend"),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "reader enroller operator backend"),
        ] {
            assert_eq!(who(path), expected, "{path}");
        }
    }

    #[test]
    fn a_role_at_a_hub_reaches_that_hub_only() {
        let world = World::empty();
        let judged = |grants: &[&str], access| {
            let issued = world.operator(grants);
            judge(&world.service.operator(&evidence(Some(&issued))).unwrap(), access)
        };
        let [here, there] = ["hub-a", "hub-b"].map(|text| HubId::parse(text).unwrap());
        let scoped = judged(&["rehome:role:backend:hub-a"], Access::AtHub(TWIN_WRITERS)).unwrap();
        assert!(scoped.at(&here).is_ok());
        assert_eq!(scoped.at(&there).unwrap_err().reason, Reason::RoleNotAllowed);
        // A right that is not enough for the call does not lend its reach.
        let mixed = ["rehome:role:reader", "rehome:role:backend:hub-a"];
        assert!(judged(&mixed, Access::AtHub(TWIN_WRITERS)).unwrap().at(&there).is_err());
        assert!(judged(&mixed, Access::AtHub(TWIN_READERS)).unwrap().at(&there).is_ok());
        assert!(judged(&["rehome:role:operator:hub-a"], Access::Roles(OPERATORS)).is_err());
    }
}
