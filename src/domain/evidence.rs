//! What a caller presents: evidence (unproven) and the facts that it states about itself.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::ids::{HubId, IdFault};
use super::limits;

/// What a device presents to prove itself. Unproven until `attestation` has made a `Verified` of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing was presented.
    None,
    /// The client certificates of the TLS connection, leaf first, DER. The handshake proved possession of the leaf's key.
    X509 { chain: Vec<Vec<u8>> },
    /// A token in the metadata of the call.
    Token(PresentedToken),
}

/// A token as it was presented: at most [`limits::TOKEN_BYTES_MAX`] bytes that nobody has read yet. Whoever has it can
/// use it until it expires, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken(Zeroizing<String>);

impl PresentedToken {
    pub fn new(text: &str) -> Result<Self, IdFault> {
        let length = text.len();
        if length > limits::TOKEN_BYTES_MAX {
            return Err(IdFault::TooLong { what: "token", length, max: limits::TOKEN_BYTES_MAX });
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedToken(****)")
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::None => f.write_str("Evidence::None"),
            Evidence::X509 { chain } => write!(f, "Evidence::X509({} certificates)", chain.len()),
            Evidence::Token(_) => f.write_str("Evidence::Token"),
        }
    }
}

/// A point on Earth, degrees (WGS 84).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geo {
    /// −90 to 90.
    pub latitude: f64,
    /// −180 to 180.
    pub longitude: f64,
}

impl Geo {
    /// A point, when both numbers are finite and in range.
    pub fn new(latitude: f64, longitude: f64) -> Option<Geo> {
        let fits = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        fits.then_some(Geo { latitude, longitude })
    }

    /// Great-circle distance in kilometres (haversine on a sphere of 6371 km).
    pub fn kilometres_to(self, other: Geo) -> f64 {
        let (lat1, lat2) = (self.latitude.to_radians(), other.latitude.to_radians());
        let (dlat, dlon) = ((lat2 - lat1) / 2.0, (other.longitude - self.longitude).to_radians() / 2.0);
        let a = dlat.sin().powi(2) + lat1.cos() * lat2.cos() * dlon.sin().powi(2);
        2.0 * 6371.0 * a.sqrt().min(1.0).asin()
    }
}

impl FromStr for Geo {
    type Err = IdFault;

    /// `latitude,longitude` in degrees, as in `52.52,13.40`.
    fn from_str(text: &str) -> Result<Self, IdFault> {
        let fault = IdFault::Form { what: "location", expected: "latitude,longitude in degrees, as in 52.52,13.40" };
        let (latitude, longitude) = text.split_once(',').ok_or_else(|| fault.clone())?;
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match (number(latitude), number(longitude)) {
            (Some(latitude), Some(longitude)) => Geo::new(latitude, longitude).ok_or(fault),
            (None, _) | (_, None) => Err(fault),
        }
    }
}

/// A latency that a device measured to a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    pub hub: HubId,
    pub milliseconds: u32,
}

/// The protocol version a device states: a date, perhaps with `-preview`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// `yyyymmdd` as a number.
    pub date: u32,
    pub preview: bool,
}

impl FromStr for ApiVersion {
    type Err = IdFault;

    /// `yyyy-mm-dd` or `yyyy-mm-dd-preview`.
    fn from_str(text: &str) -> Result<Self, IdFault> {
        let fault = IdFault::Form { what: "api version", expected: "a date as in 2019-03-31 or 2018-09-01-preview" };
        let (date, preview) = match text.strip_suffix("-preview") {
            Some(date) => (date, true),
            None => (text, false),
        };
        let civil: jiff::civil::Date = match date.len() {
            10 => date.parse().map_err(|_| fault.clone())?,
            _ => return Err(fault),
        };
        let number = |n: i32| u32::try_from(n).ok();
        let date = number(i32::from(civil.year()) * 10_000 + i32::from(civil.month()) * 100 + i32::from(civil.day()));
        date.map(|date| Self { date, preview }).ok_or(fault)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = (self.date / 10_000, self.date / 100 % 100, self.date % 100);
        write!(f, "{year:04}-{month:02}-{day:02}{}", if self.preview { "-preview" } else { "" })
    }
}

/// The SDK a device states. Texts are bounded and otherwise free; unknown ones count as new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdkVersion {
    /// At most [`limits::SDK_NAME_CHARS_MAX`] characters.
    pub name: String,
    /// At most [`limits::SDK_VERSION_CHARS_MAX`] characters.
    pub version: String,
}

impl SdkVersion {
    pub fn parse(name: &str, version: &str) -> Result<Self, IdFault> {
        for (what, text, max) in
            [("sdk name", name, limits::SDK_NAME_CHARS_MAX), ("sdk version", version, limits::SDK_VERSION_CHARS_MAX)]
        {
            let length = text.chars().count();
            if length > max {
                return Err(IdFault::TooLong { what, length, max });
            }
        }
        Ok(Self { name: name.to_owned(), version: version.to_owned() })
    }
}

/// What a device says of itself with a registration; it steers allocation and compatibility, it proves nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientFacts {
    pub api_version: Option<ApiVersion>,
    pub sdk: Option<SdkVersion>,
    /// JSON of at most [`limits::PAYLOAD_BYTES_MAX`] bytes, handed to the allocation webhook.
    pub payload: Option<serde_json::Value>,
    /// At most [`limits::LATENCIES_MAX`].
    pub latencies: Vec<Latency>,
    pub location: Option<Geo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_are_dates() {
        for (text, date) in [
            ("2018-04-01", Some((20180401, false))),
            ("2018-09-01-preview", Some((20180901, true))),
            ("2018-13-01", None),
            ("2018-4-1", None),
            ("2018-04-01-beta", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<ApiVersion>().ok().map(|v| (v.date, v.preview)), date, "{text}");
        }
        assert_eq!(ApiVersion { date: 20180901, preview: true }.to_string(), "2018-09-01-preview");
    }

    #[test]
    fn distance_is_right_to_a_kilometre() {
        let (berlin, paris) = (Geo::new(52.52, 13.405).unwrap(), Geo::new(48.8566, 2.3522).unwrap());
        assert!((berlin.kilometres_to(paris) - 877.5).abs() < 1.0);
        assert_eq!(Geo::new(91.0, 0.0), None);
        assert_eq!(Geo::new(f64::NAN, 0.0), None);
    }
}
