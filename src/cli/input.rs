//! What the command line reads: spans, moments, JSON and certificates, each with an error that says what was expected.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::domain::{Document, Latency, Timestamp, TokenKey, Version, limits};

/// Files that an operator hands in are small; more is a mistake that should not fill the memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A span: a number and a unit, as in `90s`, `15m`, `2h`, `7d`.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a span: write a number and s, m, h or d, as in 15m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wrong)
}

/// A moment: a span from now, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    In(Duration),
    At(Timestamp),
}

impl Moment {
    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::In(span) => now.plus(span),
            Moment::At(time) => time,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (span(text), text.parse()) {
            (Ok(span), _) => Ok(Moment::In(span)),
            (Err(_), Ok(time)) => Ok(Moment::At(time)),
            (Err(_), Err(_)) => {
                Err(format!("{text:?} is neither a span as in 24h nor a time as in 2030-01-31T12:00:00Z"))
            }
        }
    }
}

/// A latency that a device measured: `hub=milliseconds`.
pub fn latency(text: &str) -> Result<Latency, String> {
    let (hub, number) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not hub=milliseconds, as in hub-a=25"))?;
    let hub = hub.parse().map_err(|fault| format!("{fault}"))?;
    let digits = number.strip_suffix("ms").unwrap_or(number);
    let milliseconds = digits.parse().map_err(|_| format!("{number:?} is not a number of milliseconds"))?;
    Ok(Latency { hub, milliseconds })
}

/// An etag as the service gave it.
pub fn etag(text: &str) -> Result<Version, String> {
    Version::from_etag(text).ok_or_else(|| format!("{text:?} is not an etag: take it from `show`, as in v3"))
}

/// JSON given in place, from a file (`@path`) or from standard input (`@-`).
#[derive(Clone, PartialEq, Eq)]
pub enum JsonSource {
    InPlace(String),
    File(PathBuf),
    Stdin,
}

impl FromStr for JsonSource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix('@') {
            Some("-") => JsonSource::Stdin,
            Some(path) => JsonSource::File(path.into()),
            None => JsonSource::InPlace(text.to_owned()),
        })
    }
}

impl fmt::Debug for JsonSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonSource::InPlace(text) => write!(f, "InPlace({} bytes)", text.len()),
            JsonSource::File(path) => write!(f, "File({})", path.display()),
            JsonSource::Stdin => f.write_str("Stdin"),
        }
    }
}

impl JsonSource {
    /// Reads a JSON object.
    pub fn object(&self) -> anyhow::Result<Document> {
        match self {
            JsonSource::InPlace(text) => {
                object(text).context("write it as '{\"key\": value}', or @FILE to read it from a file")
            }
            JsonSource::File(path) => {
                object(&file_text(path)?).with_context(|| format!("cannot use {}", path.display()))
            }
            JsonSource::Stdin => {
                let mut text = String::new();
                std::io::stdin()
                    .take(FILE_BYTES_MAX)
                    .read_to_string(&mut text)
                    .context("cannot read standard input")?;
                object(&text).context("cannot use standard input")
            }
        }
    }
}

fn object(text: &str) -> anyhow::Result<Document> {
    let value = serde_json::from_str(text).context("this is not JSON")?;
    Document::from_value(value).context("this is JSON, but not an object")
}

/// Any JSON, from a file.
pub fn json_file(path: &Path) -> anyhow::Result<Value> {
    serde_json::from_str(&file_text(path)?).with_context(|| format!("{} is not JSON", path.display()))
}

/// What `--initial-twin` names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InitialTwin {
    pub tags: Document,
    pub desired: Document,
}

/// Reads `{"tags": {…}, "desired": {…}}`; either may be absent, nothing else may be present.
pub fn initial_twin(path: &Path) -> anyhow::Result<InitialTwin> {
    initial_twin_text(&file_text(path)?).with_context(|| format!("cannot use {} as an initial twin", path.display()))
}

fn initial_twin_text(text: &str) -> anyhow::Result<InitialTwin> {
    let mut whole = object(text)?.0;
    let mut part = |name: &str| match whole.remove(name) {
        None => Ok(Document::default()),
        Some(value) => Document::from_value(value).with_context(|| format!("its {name:?} is not an object")),
    };
    let (tags, desired) = (part("tags")?, part("desired")?);
    match whole.keys().next() {
        Some(key) => bail!("it may hold \"tags\" and \"desired\", not {key:?}"),
        None => Ok(InitialTwin { tags, desired }),
    }
}

/// A secret in a file of one line, so that it stands neither in the process list nor in the shell's history.
pub fn secret_line(path: &Path) -> anyhow::Result<String> {
    let text = file_text(path)?;
    let line = text.trim();
    if line.is_empty() || line.lines().count() > 1 {
        bail!("{} must hold exactly one line", path.display());
    }
    Ok(line.to_owned())
}

/// One certificate as DER, from a PEM file (its first certificate, which in a chain is the leaf) or a DER file.
pub fn certificate(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = file_bytes(path)?;
    let der = if bytes.windows(10).any(|window| window == b"-----BEGIN") {
        let first = CertificateDer::pem_slice_iter(&bytes).next();
        let Some(Ok(first)) = first else {
            bail!("{} is PEM, but holds no certificate (is it the key?)", path.display());
        };
        first.to_vec()
    } else {
        bytes
    };
    // Every X.509 certificate is a DER sequence with a length of two bytes or more.
    if !der.starts_with(&[0x30, 0x82]) && !der.starts_with(&[0x30, 0x81]) {
        bail!("{} is neither a PEM nor a DER certificate", path.display());
    }
    if der.len() > limits::CERTIFICATE_BYTES_MAX {
        bail!(
            "{}: the certificate is {} bytes, the most is {}",
            path.display(),
            der.len(),
            limits::CERTIFICATE_BYTES_MAX
        );
    }
    Ok(der)
}

/// Whether a person can answer a question.
pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Reads the answer to a question: only yes is yes.
pub fn confirmed() -> anyhow::Result<bool> {
    let mut line = String::new();
    std::io::stdin().lock().take(16).read_line(&mut line).context("cannot read the answer")?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A whole file of at most a mebibyte.
pub fn file_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is larger than a mebibyte: is it the right file?", path.display());
    }
    Ok(bytes)
}

/// A symmetric key: base64 on one line.
pub fn key_file(path: &Path) -> anyhow::Result<TokenKey> {
    let line = zeroize::Zeroizing::new(secret_line(path)?);
    let bytes = data_encoding::BASE64.decode(line.trim().as_bytes()).map(zeroize::Zeroizing::new);
    let bytes = bytes.map_err(|_| anyhow::anyhow!("{} holds no key: it is not base64", path.display()))?;
    TokenKey::new(&bytes).with_context(|| format!("{} holds no key", path.display()))
}

fn file_text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(file_bytes(path)?).with_context(|| format!("{} is not text (UTF-8)", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_have_a_unit() {
        for (text, seconds) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("2h", Some(7_200)),
            ("7d", Some(604_800)),
            ("15", None),
            ("m", None),
            ("", None),
            ("-1m", None),
            ("1.5h", None),
            ("1w", None),
            ("15 m", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
            ("5ä", None),
        ] {
            assert_eq!(span(text).ok().map(|span| span.as_secs()), seconds, "{text:?}");
        }
    }

    #[test]
    fn moments_are_spans_or_times() {
        let now = Timestamp(1_000);
        for (text, after) in [
            ("1s", Some(Timestamp(2_000))),
            ("1970-01-01T00:00:09Z", Some(Timestamp(9_000))),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Moment>().ok().map(|moment| moment.after(now)), after, "{text:?}");
        }
    }

    #[test]
    fn latencies_name_a_hub() {
        for (text, fits) in [
            ("hub-a=25", true),
            ("hub-a=25ms", true),
            ("hub-a", false),
            ("hub-a=", false),
            ("=25", false),
            ("Hub=25", false),
            ("hub-a=-1", false),
        ] {
            assert_eq!(latency(text).is_ok(), fits, "{text:?}");
        }
    }

    #[test]
    fn initial_twins_hold_tags_and_desired_and_nothing_else() {
        for (text, fits) in [
            ("{}", true),
            (r#"{"tags":{"site":"x"},"desired":{"rate":5}}"#, true),
            (r#"{"desired":null}"#, false),
            (r#"{"reported":{}}"#, false),
            (r#"{"tags":[]}"#, false),
            ("[]", false),
            ("{", false),
        ] {
            assert_eq!(initial_twin_text(text).is_ok(), fits, "{text}");
        }
        let twin = initial_twin_text(r#"{"desired":{"rate":5}}"#).unwrap();
        assert_eq!((twin.tags.to_value(), twin.desired.to_value()), (json!({}), json!({"rate": 5})));
    }

    #[test]
    fn json_comes_from_the_line_a_file_or_standard_input() {
        let source = |text: &str| text.parse::<JsonSource>().unwrap();
        assert_eq!(source("@-"), JsonSource::Stdin);
        assert_eq!(source("@a.json"), JsonSource::File("a.json".into()));
        assert_eq!(source(r#"{"a":1}"#).object().unwrap().to_value(), json!({"a": 1}));
        assert!(source("[1]").object().is_err());
        assert!(source("a=1").object().is_err());
        let message = format!("{:#}", source("@/nowhere/at/all.json").object().unwrap_err());
        assert!(message.contains("/nowhere/at/all.json"), "{message}");
    }

    #[test]
    fn files_are_checked_before_they_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let der = [&[0x30, 0x82, 0x00, 0x01][..], &[7; 60]].concat();
        let pem = "-----BEGIN CERTIFICATE-----\nMIIAAQ==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificate(&file("a.der", &der)).unwrap(), der);
        assert_eq!(certificate(&file("a.pem", pem.as_bytes())).unwrap(), [0x30, 0x82, 0, 1]);
        let key = "-----BEGIN PRIVATE KEY-----\nMIIAAQ==\n-----END PRIVATE KEY-----\n";
        assert!(certificate(&file("a.key", key.as_bytes())).is_err());
        assert!(certificate(&file("a.txt", b"hello")).is_err());
        assert!(certificate(&file("empty", b"")).is_err());
        let huge = [&[0x30, 0x82][..], &vec![0; limits::CERTIFICATE_BYTES_MAX]].concat();
        assert!(certificate(&file("huge", &huge)).is_err());
        assert_eq!(secret_line(&file("url", b"https://x.example/?code=1\n")).unwrap(), "https://x.example/?code=1");
        assert!(secret_line(&file("urls", b"a\nb\n")).is_err());
        assert!(secret_line(&file("blank", b"\n")).is_err());
    }
}
