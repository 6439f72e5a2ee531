//! Answers over HTTP: JSON bodies, refusals with their codes, and when to come again.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::api::azure::fault::Refusal;
use crate::domain::Timestamp;

/// SDKs read a body only under a content type that holds `application/json`.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A JSON body.
pub fn json(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Says in how many seconds to ask again.
pub fn again_after(mut response: Response<Body>, seconds: Option<u64>) -> Response<Body> {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A refusal.
pub fn refused(refusal: &Refusal, now: Timestamp) -> Response<Body> {
    let mut response = json(refusal.code.status, &refusal.body(now));
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from(refusal.code.code));
    if let Some(Ok(id)) = refusal.tracking_id.as_deref().map(HeaderValue::from_str) {
        headers.insert(REQUEST_ID, id);
    }
    again_after(response, refusal.retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fault, Reason};

    #[test]
    fn a_refusal_says_its_code_and_when_to_come_again() {
        let fault = Fault::new(Reason::RateLimited, "too often").with("tracking_id", "t1");
        let refusal = Refusal::from(fault.retry_after(std::time::Duration::from_secs(7)));
        let response = refused(&refusal, Timestamp(0));
        assert_eq!(response.status(), 429);
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("retry-after"), Some("7"));
        assert_eq!(header("x-ms-error-code"), Some("429001"));
        assert_eq!(header("x-ms-request-id"), Some("t1"));
        assert_eq!(header("content-type"), Some("application/json; charset=utf-8"));
    }
}
