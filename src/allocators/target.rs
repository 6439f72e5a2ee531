//! Where a webhook is: its URL taken apart and held against what may be called.

use std::fmt;

use http::Uri;
use rustls_pki_types::ServerName;

use crate::domain::limits;

use super::UrlFault;

/// A URL that may be called. Its path and query may be secret: `Debug` shows neither.
#[derive(Clone)]
pub struct Target {
    /// Brackets of an IPv6 address removed.
    pub host: String,
    pub port: u16,
    /// What goes into the `host` header.
    pub authority: String,
    pub path_and_query: String,
    pub protection: Protection,
}

/// What the connection is protected by.
#[derive(Debug, Clone)]
pub enum Protection {
    Tls(ServerName<'static>),
    /// Only ever on the loopback, which is checked again on the address that is connected to.
    LoopbackOnly,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.authority)
    }
}

impl Target {
    pub fn parse(url: &str, allow_plain_http: bool) -> Result<Self, UrlFault> {
        if url.chars().count() > limits::WEBHOOK_URL_CHARS_MAX {
            return Err(UrlFault::TooLong { max: limits::WEBHOOK_URL_CHARS_MAX });
        }
        let uri: Uri = url.parse().map_err(|_| UrlFault::Form)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(UrlFault::Form) };
        if authority.as_str().contains('@') {
            return Err(UrlFault::UserInfo);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(UrlFault::Form);
        }
        let (protection, default_port) = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| UrlFault::HostName)?;
                (Protection::Tls(name), 443)
            }
            "http" if allow_plain_http => (Protection::LoopbackOnly, 80),
            _ => return Err(UrlFault::Scheme),
        };
        // A port that is written but is no number (`host:`, `host:99999`) would otherwise turn into the default.
        if authority.port().is_none() && authority.as_str().len() > authority.host().len() {
            return Err(UrlFault::Form);
        }
        Ok(Self {
            host,
            port: authority.port_u16().unwrap_or(default_port),
            authority: authority.as_str().to_owned(),
            path_and_query: uri.path_and_query().map_or("/", |text| text.as_str()).to_owned(),
            protection,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, allow_plain_http: bool, expected: Result<(&str, u16, &str), UrlFault>) {
        let target = Target::parse(url, allow_plain_http);
        let parts = target.as_ref().map(|t| (t.host.as_str(), t.port, t.path_and_query.as_str())).map_err(|e| *e);
        assert_eq!(parts, expected, "{url}");
    }

    #[test]
    fn what_may_be_called() {
        check("https://w.example/api?code=k", false, Ok(("w.example", 443, "/api?code=k")));
        check("https://w.example", false, Ok(("w.example", 443, "/")));
        check("https://w.example:8443/", false, Ok(("w.example", 8443, "/")));
        check("HTTPS://w.example/", false, Ok(("w.example", 443, "/")));
        check("https://192.0.2.1/", false, Ok(("192.0.2.1", 443, "/")));
        check("https://[2001:db8::1]:444/", false, Ok(("2001:db8::1", 444, "/")));
        check("http://127.0.0.1:80/x", true, Ok(("127.0.0.1", 80, "/x")));
    }

    #[test]
    fn what_may_not() {
        let long = format!("https://w.example/{}", "x".repeat(2048));
        check(&long, true, Err(UrlFault::TooLong { max: 2048 }));
        check("http://w.example/", false, Err(UrlFault::Scheme));
        check("ftp://w.example/", true, Err(UrlFault::Scheme));
        check("file:///etc/passwd", true, Err(UrlFault::Form));
        check("w.example/api", true, Err(UrlFault::Form));
        check("/api", true, Err(UrlFault::Form));
        check("", true, Err(UrlFault::Form));
        check("https://", true, Err(UrlFault::Form));
        check("https://user:secret@w.example/", true, Err(UrlFault::UserInfo));
        check("https://w.example:99999/", true, Err(UrlFault::Form));
        check("https://w.example:/", true, Err(UrlFault::Form));
        check("https://a b/", true, Err(UrlFault::Form));
        check("https://_-_.-/", true, Err(UrlFault::HostName));
    }

    #[test]
    fn debug_shows_no_key() {
        let target = Target::parse("https://w.example/secret?code=secret", false).unwrap();
        assert!(!format!("{target:?}").contains("secret"));
    }
}
