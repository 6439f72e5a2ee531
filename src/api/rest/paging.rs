//! Pages over HTTP: the headers that ask for one and say where the next begins (reference/dps.md §7).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::Value;

use crate::api::azure::fault::Refusal;
use crate::api::azure::members::wrong;
use crate::api::azure::query::Query;
use crate::domain::{Fault, limits};
use crate::service::PageRequest;

use super::answer::json;

const COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");

/// Rows that one request looks through for what a query asks for; the rest is for the next.
const LOOKED_AT_MAX: usize = 10_000;

/// Which page is asked for. More rows than a page may have is as many as it may have.
pub fn asked(headers: &HeaderMap) -> Result<PageRequest, Refusal> {
    let text = |name: &HeaderName| match headers.get(name) {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| wrong(name.as_str(), "is not printable ASCII")),
    };
    let size = match text(&COUNT)?.map(str::trim) {
        None | Some("" | "-1") => limits::PAGE_SIZE_DEFAULT,
        Some(count) => match count.parse::<u32>() {
            Ok(count) if count > 0 => count.min(limits::PAGE_SIZE_MAX),
            Ok(_) | Err(_) => return Err(wrong(COUNT.as_str(), "is no count of rows")),
        },
    };
    let token = text(&CONTINUATION)?.filter(|token| !token.is_empty()).map(str::to_owned);
    Ok(PageRequest { size, token })
}

/// Rows as they are shown, and where the next page begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    pub rows: Vec<Value>,
    pub next: Option<String>,
}

/// Reads a page of what a query asks for: with fewer rows than asked for where they would not fit an answer, and over as
/// many pages as it takes to find one row, within a bound.
pub async fn found<F>(asked: PageRequest, query: &Query, read: impl Fn(PageRequest) -> F) -> Result<Shown, Fault>
where
    F: Future<Output = Result<Shown, Fault>>,
{
    let (mut page, mut looked_at) = (asked, 0);
    loop {
        let mut shown = read(page.clone()).await?;
        looked_at += shown.rows.len();
        shown.rows.retain(|row| query.admits(row));
        let bytes: usize = shown.rows.iter().map(|row| row.to_string().len()).sum();
        if bytes > limits::ANSWER_BYTES_MAX && page.size > 1 {
            page.size /= 2;
            continue;
        }
        if !shown.rows.is_empty() || shown.next.is_none() || looked_at >= LOOKED_AT_MAX {
            return Ok(shown);
        }
        page.token = shown.next;
    }
}

/// The answer: a bare array, and what stands in headers.
pub fn answer(shown: Shown, item_type: &'static str) -> Response<Body> {
    let count = shown.rows.len();
    let mut response = json(200, &Value::Array(shown.rows));
    let headers = response.headers_mut();
    headers.insert(ITEM_TYPE, HeaderValue::from_static(item_type));
    headers.insert(COUNT, HeaderValue::from(count));
    // A token of ours is letters, digits, - and _.
    if let Some(Ok(next)) = shown.next.as_deref().map(HeaderValue::from_str) {
        headers.insert(CONTINUATION, next);
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(count: Option<&str>, continuation: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        count.iter().for_each(|count| drop(headers.insert(COUNT, count.parse().unwrap())));
        continuation.iter().for_each(|token| drop(headers.insert(CONTINUATION, token.parse().unwrap())));
        headers
    }

    #[test]
    fn sizes_and_tokens() {
        let page = |size: u32, token: Option<&str>| Ok(PageRequest { size, token: token.map(str::to_owned) });
        for (count, token, expected) in [
            (None, None, page(limits::PAGE_SIZE_DEFAULT, None)),
            (Some("-1"), None, page(limits::PAGE_SIZE_DEFAULT, None)),
            (Some("7"), Some("abc"), page(7, Some("abc"))),
            (Some("1000000"), Some(""), page(limits::PAGE_SIZE_MAX, None)),
            (Some("0"), None, Err(400_004)),
            (Some("-2"), None, Err(400_004)),
            (Some("ten"), None, Err(400_004)),
            (Some("4294967296"), None, Err(400_004)),
        ] {
            let asked = asked(&headers(count, token)).map_err(|refusal| refusal.code.code);
            assert_eq!(asked, expected, "{count:?} {token:?}");
        }
    }

    /// Serves the numbers 0 to 99 with a text of that many bytes beside each.
    async fn served(page: PageRequest, bytes: usize) -> Result<Shown, Fault> {
        let first: usize = page.token.map_or(0, |token| token.parse().unwrap());
        let end = (first + page.size as usize).min(100);
        let rows = (first..end).map(|n| json!({ "n": n, "text": "x".repeat(bytes) })).collect();
        Ok(Shown { rows, next: (end < 100).then(|| end.to_string()) })
    }

    #[tokio::test]
    async fn pages_fit_and_are_not_empty_while_there_is_more() {
        let query = |text: &str| Query::of_body(json!({ "query": text }).to_string().as_bytes(), "n").unwrap();
        let asked = |size| PageRequest { size, token: None };
        let all = query("SELECT *");
        let shown = found(asked(10), &all, |page| served(page, 1)).await.unwrap();
        assert_eq!((shown.rows.len(), shown.next.as_deref()), (10, Some("10")));
        let shown = found(asked(100), &all, |page| served(page, limits::ANSWER_BYTES_MAX / 10)).await.unwrap();
        assert!((1..10).contains(&shown.rows.len()) && shown.next.is_some());
        let shown = found(asked(4), &all, |page| served(page, limits::ANSWER_BYTES_MAX * 2)).await.unwrap();
        assert_eq!(shown.rows.len(), 1, "one row is answered whatever its size");
        let shown = found(asked(10), &query("SELECT * WHERE n = 57"), |page| served(page, 1)).await.unwrap();
        assert_eq!((shown.rows.len(), shown.next.as_deref()), (1, Some("60")));
        let shown = found(asked(10), &query("SELECT * WHERE n = 700"), |page| served(page, 1)).await.unwrap();
        assert_eq!(shown, Shown::default());
    }

    #[test]
    fn the_next_page_is_named_only_where_there_is_one() {
        let header = |next: Option<&str>| {
            let response = answer(Shown { rows: vec![json!(1)], next: next.map(str::to_owned) }, "Enrollment");
            assert_eq!(response.headers()[&ITEM_TYPE], "Enrollment");
            response.headers().get(CONTINUATION).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(None), None);
        assert_eq!(header(Some("abc")), Some("abc".to_owned()));
    }
}
