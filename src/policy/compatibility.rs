//! Which reprovision policy applies to a device, given how old its client is (DESIGN 6a, reference/dps.md §4.5).

use std::fmt;

use crate::domain::{ApiVersion, ClientFacts, ReprovisionPolicy, SdkVersion};

/// The last API version from before devices could be reprovisioned.
const LAST_WITHOUT_SUPPORT: u32 = 20180401;

/// What governs a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applies {
    /// The device always goes back to its recorded hub: no re-evaluation, no data movement.
    Sticky,
    Policy(ReprovisionPolicy),
}

impl Applies {
    pub fn as_str(self) -> &'static str {
        match self {
            Applies::Sticky => "sticky",
            Applies::Policy(policy) => policy.as_str(),
        }
    }

    /// As a registration keeps it for listings: `None` is sticky.
    pub fn policy(self) -> Option<ReprovisionPolicy> {
        match self {
            Applies::Sticky => None,
            Applies::Policy(policy) => Some(policy),
        }
    }
}

/// Why that governs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The enrollment stores this policy; how old the client is does not matter.
    Stored(ReprovisionPolicy),
    /// Nothing stored, and the device states an API version from before native support.
    OldApi(ApiVersion),
    /// Nothing stored, and the device states an SDK from before native support.
    OldSdk,
    /// Nothing stored, and the client is new or does not say.
    Default,
}

impl Basis {
    pub fn applies(self) -> Applies {
        match self {
            Basis::Stored(policy) => Applies::Policy(policy),
            Basis::OldApi(_) | Basis::OldSdk => Applies::Sticky,
            Basis::Default => Applies::Policy(ReprovisionPolicy::Migrate),
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Basis::Stored(policy) => write!(f, "the enrollment stores {}", policy.as_str()),
            Basis::OldApi(version) => {
                write!(f, "the enrollment stores no policy and API version {version} is from before reprovisioning")
            }
            Basis::OldSdk => {
                f.write_str("the enrollment stores no policy and the device's SDK is from before reprovisioning")
            }
            Basis::Default => f.write_str("the enrollment stores no policy, and migrate is the default"),
        }
    }
}

/// What applies to a device that states this API version or SDK. A stored policy wins over both, so that operators can
/// change a fleet without re-imaging it; an API version wins over an SDK version; saying nothing counts as new.
pub fn applies(
    api_version: Option<ApiVersion>,
    sdk: Option<&SdkVersion>,
    stored: Option<ReprovisionPolicy>,
) -> Applies {
    basis(api_version, sdk, stored).applies()
}

/// As [`applies`], with the reason.
pub fn basis(api_version: Option<ApiVersion>, sdk: Option<&SdkVersion>, stored: Option<ReprovisionPolicy>) -> Basis {
    match (stored, api_version, sdk) {
        (Some(policy), _, _) => Basis::Stored(policy),
        (None, Some(version), _) if version.date <= LAST_WITHOUT_SUPPORT => Basis::OldApi(version),
        (None, None, Some(sdk)) if is_old(sdk) => Basis::OldSdk,
        (None, Some(_), _) | (None, None, Some(_) | None) => Basis::Default,
    }
}

/// What may be supposed of a device that is not there to say how old its client is: one that was kept sticky by its old
/// protocol stays so, as long as nothing is stored.
pub fn remembered_facts(recorded: Option<ReprovisionPolicy>, stored: Option<ReprovisionPolicy>) -> ClientFacts {
    let sticky = recorded.is_none() && stored.is_none();
    let api_version = sticky.then_some(ApiVersion { date: LAST_WITHOUT_SUPPORT, preview: false });
    ClientFacts { api_version, ..ClientFacts::default() }
}

/// Whether an SDK is from before native support. Unknown names and versions that are not dotted numbers count as new:
/// sticky is the exception, and a device must not fall into it by a typing error.
fn is_old(sdk: &SdkVersion) -> bool {
    let last_without_support: &[u64] = match sdk.name.trim().to_ascii_lowercase().as_str() {
        "c" => &[1, 2, 8],
        "python" => &[1, 4, 2],
        "node" | "nodejs" | "node.js" => &[1, 7, 3],
        "java" => &[1, 13, 0],
        ".net" | "dotnet" | "csharp" | "c#" => &[1, 1, 0],
        _ => return false,
    };
    dotted_numbers(sdk.version.trim()).is_some_and(|mut version| {
        // 1.2 and 1.2.0 are the same version.
        version.resize(version.len().max(last_without_support.len()), 0);
        version.as_slice() <= last_without_support || is_padded(&version, last_without_support)
    })
}

/// Whether `version` is `other` followed by zeros only (1.2.8.0 is 1.2.8).
fn is_padded(version: &[u64], other: &[u64]) -> bool {
    version.strip_prefix(other).is_some_and(|rest| rest.iter().all(|part| *part == 0))
}

fn dotted_numbers(text: &str) -> Option<Vec<u64>> {
    text.split('.')
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReprovisionPolicy::{Migrate, Never, Reset};

    fn check(api: &str, sdk: (&str, &str), stored: Option<ReprovisionPolicy>, expected: Applies) {
        let api_version = (!api.is_empty()).then(|| api.parse().unwrap());
        let stated = (!sdk.0.is_empty()).then(|| SdkVersion::parse(sdk.0, sdk.1).unwrap());
        assert_eq!(applies(api_version, stated.as_ref(), stored), expected, "{api} {sdk:?} {stored:?}");
    }

    #[test]
    fn the_four_rows_of_6a() {
        const NO_SDK: (&str, &str) = ("", "");
        let migrate = Applies::Policy(Migrate);
        check("2018-04-01", NO_SDK, None, Applies::Sticky);
        check("2018-04-01", NO_SDK, Some(Migrate), migrate);
        check("2018-04-01", NO_SDK, Some(Reset), Applies::Policy(Reset));
        check("2018-04-01", NO_SDK, Some(Never), Applies::Policy(Never));
        check("2019-03-31", NO_SDK, None, migrate);
        check("", NO_SDK, None, migrate);
        check("2019-03-31", NO_SDK, Some(Reset), Applies::Policy(Reset));
        check("", NO_SDK, Some(Never), Applies::Policy(Never));
    }

    #[test]
    fn the_border_between_old_and_new() {
        let migrate = Applies::Policy(Migrate);
        for (api, sdk, expected) in [
            ("2017-11-15", ("", ""), Applies::Sticky),
            ("2018-04-01-preview", ("", ""), Applies::Sticky),
            ("2018-04-02", ("", ""), migrate),
            ("2018-09-01-preview", ("", ""), migrate),
            ("", ("c", "1.2.8"), Applies::Sticky),
            ("", ("C", "1.2.9"), migrate),
            ("", ("c", "1.2.10"), migrate),
            ("", ("c", "1.2"), Applies::Sticky),
            ("", ("c", "1.3"), migrate),
            ("", ("c", "1.2.8.0"), Applies::Sticky),
            ("", ("c", "1.2.8.1"), migrate),
            ("", ("python", "1.4.2"), Applies::Sticky),
            ("", ("Python", "1.4.3"), migrate),
            ("", ("node", "1.7.3"), Applies::Sticky),
            ("", ("NodeJS", "1.7.3"), Applies::Sticky),
            ("", ("nodejs", "1.7.4"), migrate),
            ("", ("java", "1.13.0"), Applies::Sticky),
            ("", ("java", "1.13.1"), migrate),
            ("", (".NET", "1.1.0"), Applies::Sticky),
            ("", ("dotnet", "1.0.9"), Applies::Sticky),
            ("", ("csharp", "1.1"), Applies::Sticky),
            ("", ("dotnet", "1.1.1"), migrate),
            // Not understood is new.
            ("", ("rust", "0.1.0"), migrate),
            ("", ("c", "one"), migrate),
            ("", ("c", ""), migrate),
            ("", ("c", "1..2"), migrate),
            ("", ("c", "1.2.8-beta"), migrate),
            ("", ("c", "+1.2.8"), migrate),
            ("", ("c", "99999999999999999999999.0"), migrate),
            // An API version wins over an SDK version, both ways.
            ("2019-03-31", ("c", "1.2.8"), migrate),
            ("2018-04-01", ("c", "9.9.9"), Applies::Sticky),
        ] {
            check(api, sdk, None, expected);
        }
    }

    #[test]
    fn the_reason_says_which_input_decided() {
        let old = "2018-04-01".parse().ok();
        for (api, stored, part) in [
            (old, None, "2018-04-01 is from before"),
            (old, Some(Never), "stores never"),
            (None, None, "migrate is the default"),
        ] {
            assert!(basis(api, None, stored).to_string().contains(part), "{part}");
        }
    }
}
