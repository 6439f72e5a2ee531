//! Topics of the two protocols (reference/dps.md §6 and §8.6): what a device asks by publishing, and where answers go.

use super::name::parameter;

/// Characters of a topic that is looked at: the longest names a request id and an operation id.
const CHARS_MAX: usize = 512;
/// A request id is echoed: SDKs use GUIDs and small numbers.
const RID_CHARS_MAX: usize = 128;

/// Where answers of registrations go.
pub const REGISTRATION_ANSWERS: &str = "$dps/registrations/res/#";
/// Where answers about a twin go.
pub const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
/// Where changes of desired properties go.
pub const DESIRED_CHANGES: &str = "$iothub/twin/PATCH/properties/desired/#";

/// What a publication asks for. `rid` names the request in its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<'a> {
    Register { rid: &'a str },
    Operation { rid: &'a str, operation: &'a str },
    Twin { rid: &'a str },
    Report { rid: &'a str },
}

/// Why a topic asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicFault {
    #[error("the topic is longer than {max} characters")]
    TooLong { max: usize },
    #[error("no such topic is served")]
    Unknown,
    #[error("the topic names no request id, or one that is no id")]
    Rid,
    #[error("the topic names no operation")]
    Operation,
}

impl<'a> Asked<'a> {
    pub fn parse(topic: &'a str) -> Result<Self, TopicFault> {
        if topic.len() > CHARS_MAX {
            return Err(TopicFault::TooLong { max: CHARS_MAX });
        }
        let (path, parameters) = topic.split_once("/?").ok_or(TopicFault::Unknown)?;
        let rid = || parameter(parameters, "$rid").filter(|rid| is_rid(rid)).ok_or(TopicFault::Rid);
        match path {
            "$dps/registrations/PUT/iotdps-register" => Ok(Asked::Register { rid: rid()? }),
            "$dps/registrations/GET/iotdps-get-operationstatus" => {
                let operation = parameter(parameters, "operationId").filter(|id| !id.is_empty());
                Ok(Asked::Operation { rid: rid()?, operation: operation.ok_or(TopicFault::Operation)? })
            }
            "$iothub/twin/GET" => Ok(Asked::Twin { rid: rid()? }),
            "$iothub/twin/PATCH/properties/reported" => Ok(Asked::Report { rid: rid()? }),
            _ => Err(TopicFault::Unknown),
        }
    }
}

/// It is put into a topic again, where `/`, `?`, `&`, `$`, `#` and `+` mean something.
fn is_rid(text: &str) -> bool {
    (1..=RID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?&$#+".contains(&byte))
}

/// The topic of an answer about a registration. SDKs need `$rid` first, and no other `$` behind the question mark.
pub fn registration_answer(status: u16, rid: &str, retry_after: Option<u64>) -> String {
    match retry_after {
        Some(seconds) => format!("$dps/registrations/res/{status}/?$rid={rid}&retry-after={seconds}"),
        None => format!("$dps/registrations/res/{status}/?$rid={rid}"),
    }
}

/// The topic of an answer about a twin; `version` is that of a report that was taken.
pub fn twin_answer(status: u16, rid: &str, version: Option<u64>) -> String {
    match version {
        Some(version) => format!("$iothub/twin/res/{status}/?$rid={rid}&$version={version}"),
        None => format!("$iothub/twin/res/{status}/?$rid={rid}"),
    }
}

/// The topic of a change of desired properties.
pub fn desired_change(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_as_sdks_build_them() {
        let check = |topic: &str, expected: Asked<'_>| assert_eq!(Asked::parse(topic), Ok(expected), "{topic}");
        check("$dps/registrations/PUT/iotdps-register/?$rid=1", Asked::Register { rid: "1" });
        let rid = "3f2c7f5e-58a5-4c55-9d4e-3f2b1a7d5c10";
        check(&format!("$dps/registrations/PUT/iotdps-register/?$rid={rid}"), Asked::Register { rid });
        check(
            "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.31.b1",
            Asked::Operation { rid: "2", operation: "5.31.b1" },
        );
        check("$iothub/twin/GET/?$rid=0", Asked::Twin { rid: "0" });
        check("$iothub/twin/PATCH/properties/reported/?$rid=a_b", Asked::Report { rid: "a_b" });
    }

    #[test]
    fn topics_that_ask_for_nothing() {
        let check = |topic: &str, expected: TopicFault| assert_eq!(Asked::parse(topic), Err(expected), "{topic}");
        check("", TopicFault::Unknown);
        check("$dps/registrations/PUT/iotdps-register", TopicFault::Unknown);
        check("$dps/registrations/POST/iotdps-register/?$rid=1", TopicFault::Unknown);
        check("devices/dev-1/messages/events/?$rid=1", TopicFault::Unknown);
        check("$dps/registrations/PUT/iotdps-register/?", TopicFault::Rid);
        check("$dps/registrations/PUT/iotdps-register/?$rid=", TopicFault::Rid);
        check("$dps/registrations/PUT/iotdps-register/?$rid=a/b", TopicFault::Rid);
        check("$dps/registrations/PUT/iotdps-register/?$rid=a b", TopicFault::Rid);
        check(&format!("$iothub/twin/GET/?$rid={}", "1".repeat(RID_CHARS_MAX + 1)), TopicFault::Rid);
        check("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1", TopicFault::Operation);
        check(&format!("$iothub/twin/GET/?$rid={}", "1".repeat(CHARS_MAX)), TopicFault::TooLong { max: CHARS_MAX });
    }

    #[test]
    fn answers_name_their_request_first() {
        assert_eq!(registration_answer(202, "1", Some(3)), "$dps/registrations/res/202/?$rid=1&retry-after=3");
        assert_eq!(registration_answer(401, "1", None), "$dps/registrations/res/401/?$rid=1");
        assert_eq!(twin_answer(204, "1", Some(7)), "$iothub/twin/res/204/?$rid=1&$version=7");
        assert_eq!(twin_answer(200, "1", None), "$iothub/twin/res/200/?$rid=1");
        assert_eq!(desired_change(4), "$iothub/twin/PATCH/properties/desired/?$version=4");
    }
}
