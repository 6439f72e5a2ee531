//! Who a CONNECT packet says is calling: its user name and client id, as existing SDKs build them
//! (reference/dps.md §6 and §8.6, reference/azure-sdk-wire.md).

use crate::domain::{ApiVersion, DeviceId, RegistrationId, limits};

/// Characters of a user name: an id scope or host name, an id, and what an SDK says of itself.
const CHARS_MAX: usize = limits::HOST_NAME_CHARS_MAX + limits::DEVICE_ID_CHARS_MAX + 1024;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// `{scope}/registrations/{id}/api-version={date}[&ClientVersion=…]`
    Provisioning { scope: String, registration_id: RegistrationId, api_version: Option<ApiVersion> },
    /// `{host}/{device}/?api-version={date}[&DeviceClientType=…]`
    Hub { host: String, device_id: DeviceId },
}

/// Why a connection is for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("there is no user name")]
    Missing,
    #[error("the user name is longer than {max} characters")]
    TooLong { max: usize },
    #[error("the user name is neither that of a registration nor that of a device at a hub")]
    Form,
    #[error("the id in the user name: {0}")]
    Id(String),
    #[error("the client id is not the id in the user name")]
    ClientId,
    #[error("the api version is not a date")]
    ApiVersion,
}

impl Name {
    pub fn parse(user_name: Option<&str>, client_id: &str) -> Result<Self, NameFault> {
        let text = user_name.ok_or(NameFault::Missing)?;
        if text.len() > CHARS_MAX {
            return Err(NameFault::TooLong { max: CHARS_MAX });
        }
        let (first, rest) = text.split_once('/').ok_or(NameFault::Form)?;
        if first.is_empty() {
            return Err(NameFault::Form);
        }
        match rest.strip_prefix("registrations/") {
            Some(rest) => Self::provisioning(first, rest, client_id),
            None => Self::hub(first, rest, client_id),
        }
    }

    fn provisioning(scope: &str, rest: &str, client_id: &str) -> Result<Self, NameFault> {
        let (id, stated) = rest.split_once('/').unwrap_or((rest, ""));
        let registration_id = RegistrationId::parse(id).map_err(|fault| NameFault::Id(fault.to_string()))?;
        if !client_id.eq_ignore_ascii_case(id) {
            return Err(NameFault::ClientId);
        }
        let api_version = parameter(stated.trim_start_matches('?'), "api-version");
        let api_version = api_version.map(str::parse).transpose().map_err(|_| NameFault::ApiVersion)?;
        Ok(Name::Provisioning { scope: scope.to_owned(), registration_id, api_version })
    }

    fn hub(host: &str, rest: &str, client_id: &str) -> Result<Self, NameFault> {
        let (id, _) = rest.split_once('/').ok_or(NameFault::Form)?;
        let device_id = DeviceId::parse(id).map_err(|fault| NameFault::Id(fault.to_string()))?;
        if client_id != id {
            return Err(NameFault::ClientId);
        }
        Ok(Name::Hub { host: host.to_owned(), device_id })
    }
}

/// The value of one of `a=b&c=d`, in any order and as it stands there.
pub fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provisioning(api_version: Option<&str>) -> Result<Name, NameFault> {
        Ok(Name::Provisioning {
            scope: "0ne1".to_owned(),
            registration_id: RegistrationId::parse("Dev-1").unwrap(),
            api_version: api_version.map(|text| text.parse().unwrap()),
        })
    }

    fn hub() -> Result<Name, NameFault> {
        Ok(Name::Hub { host: "hub-a.localhost".to_owned(), device_id: DeviceId::parse("Dev-1").unwrap() })
    }

    #[test]
    fn names_as_sdks_build_them() {
        let check = |user_name: &str, client_id: &str, expected: Result<Name, NameFault>| {
            assert_eq!(Name::parse(Some(user_name), client_id), expected, "{user_name}");
        };
        let node = "0ne1/registrations/Dev-1/api-version=2019-03-31&ClientVersion=azure-iot%2F1.9";
        check(node, "Dev-1", provisioning(Some("2019-03-31")));
        check(
            "0ne1/registrations/Dev-1/ClientVersion=x&api-version=2018-04-01",
            "dev-1",
            provisioning(Some("2018-04-01")),
        );
        check("0ne1/registrations/Dev-1/?api-version=2021-06-01", "Dev-1", provisioning(Some("2021-06-01")));
        check("0ne1/registrations/Dev-1", "Dev-1", provisioning(None));
        check("hub-a.localhost/Dev-1/?api-version=2019-10-01&DeviceClientType=py", "Dev-1", hub());
        check("hub-a.localhost/Dev-1/api-version=2016-11-14", "Dev-1", hub());
        check("hub-a.localhost/Dev-1/", "Dev-1", hub());
    }

    #[test]
    fn names_that_are_none() {
        let check = |user_name: Option<&str>, client_id: &str, expected: NameFault| {
            assert_eq!(Name::parse(user_name, client_id), Err(expected), "{user_name:?}");
        };
        check(None, "Dev-1", NameFault::Missing);
        check(Some(""), "Dev-1", NameFault::Form);
        check(Some("/registrations/Dev-1"), "Dev-1", NameFault::Form);
        check(Some("hub-a.localhost/Dev-1"), "Dev-1", NameFault::Form);
        check(Some("0ne1/registrations/Dev-1/api-version=now"), "Dev-1", NameFault::ApiVersion);
        check(Some("0ne1/registrations/Dev-1/api-version=2019-03-31"), "dev-2", NameFault::ClientId);
        check(Some("hub-a.localhost/Dev-1/"), "dev-1", NameFault::ClientId);
        check(Some(&"x/".repeat(CHARS_MAX)), "Dev-1", NameFault::TooLong { max: CHARS_MAX });
        assert!(matches!(Name::parse(Some("0ne1/registrations/a b/"), "a b"), Err(NameFault::Id(_))));
        assert!(matches!(Name::parse(Some("hub/a b/"), "a b"), Err(NameFault::Id(_))));
    }
}
