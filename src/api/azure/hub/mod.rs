//! A hub's devices and twins as existing service SDKs read and write them (reference/dps.md §8).

pub mod bulk;
pub mod device;
pub mod fault;
pub mod twin;

use super::fault::Refusal;

/// The versions that hubs are asked with (reference/azure-sdk-wire.md), and those between.
const SPOKEN: &[&str] = &[
    "2018-04-01",
    "2018-06-30",
    "2019-03-30",
    "2019-07-01-preview",
    "2019-10-01",
    "2020-03-13",
    "2020-05-31-preview",
    "2020-09-30",
    "2021-04-12",
];

/// Refuses a version that hubs do not speak. All of them say the same.
pub fn api_version(text: Option<&str>) -> Result<(), Refusal> {
    match text {
        Some(text) if SPOKEN.contains(&text) => Ok(()),
        Some(_) => Err(Refusal::new(400_001, format!("this api-version is not spoken; one of {}", SPOKEN.join(", ")))),
        None => Err(Refusal::new(400_001, format!("api-version is missing; one of {}", SPOKEN.join(", ")))),
    }
}

/// What a hub does not keep, and so has never seen.
const NEVER: &str = "0001-01-01T00:00:00Z";
