//! Names that existing SDKs use for what has ids here: hubs by their host names, authorities by names of the configuration.

use std::sync::Arc;

use crate::domain::{HubId, Thumbprint};

/// An authority that groups may refer to by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedAuthority {
    pub name: String,
    pub der: Vec<u8>,
    /// SHA-256 of the DER.
    pub thumbprint: Thumbprint,
}

/// The names as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Linked hubs and their host names.
    pub hubs: Vec<(HubId, String)>,
    pub authorities: Arc<[NamedAuthority]>,
}

impl Names {
    /// The hub that is called so: by its host name (a port behind it is passed over), or by its id.
    pub fn hub(&self, called: &str) -> Option<&HubId> {
        let host = called.rsplit_once(':').map_or(called, |(host, _)| host);
        let named = |(id, name): &&(HubId, String)| name.eq_ignore_ascii_case(host) || id.as_str() == called;
        self.hubs.iter().find(named).map(|(id, _)| id)
    }

    /// What a hub is called; its id where it is not linked any more.
    pub fn host<'a>(&'a self, hub: &'a HubId) -> &'a str {
        self.hubs.iter().find(|(id, _)| id == hub).map_or(hub.as_str(), |(_, host)| host)
    }

    pub fn authority(&self, name: &str) -> Option<&NamedAuthority> {
        self.authorities.iter().find(|authority| authority.name == name)
    }

    /// The name of an authority, where it has one.
    pub fn authority_name(&self, thumbprint: &Thumbprint) -> Option<&str> {
        self.authorities.iter().find(|authority| authority.thumbprint == *thumbprint).map(|found| found.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs_are_called_by_host_name_or_id() {
        let hub = |id: &str| HubId::parse(id).unwrap();
        let hubs = vec![(hub("hub-a"), "hub-a.localhost".to_owned()), (hub("hub-b"), "B.example".to_owned())];
        let names = Names { hubs, ..Names::default() };
        for (called, expected) in [
            ("hub-a.localhost", Some("hub-a")),
            ("HUB-A.localhost:443", Some("hub-a")),
            ("hub-a", Some("hub-a")),
            ("b.example", Some("hub-b")),
            ("hub-c", None),
            ("", None),
        ] {
            assert_eq!(names.hub(called), expected.map(hub).as_ref(), "{called}");
        }
        assert_eq!(names.host(&hub("hub-b")), "B.example");
        assert_eq!(names.host(&hub("hub-c")), "hub-c");
    }
}
