//! The queries of existing service SDKs, as far as they are answered: everything, or what has certain values
//! (reference/dps.md §7 and §8.2).
//!
//! ```text
//! SELECT * [FROM collection] [WHERE path = literal [AND path = literal …]]
//! ```

use serde_json::{Number, Value};

use super::fault::Refusal;
use super::members::{Members, json, wrong};
use crate::domain::limits;

/// A query that can be answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    conditions: Vec<Equals>,
}

#[derive(Debug, Clone, PartialEq)]
struct Equals {
    path: Vec<String>,
    value: Value,
}

/// Conditions of one query: more than any program writes by hand.
const CONDITIONS_MAX: usize = 16;

impl Query {
    /// Reads a body `{"query": "…"}`; none, or one without a query, asks for everything. `collection` is what is listed
    /// here.
    pub fn of_body(body: &[u8], collection: &str) -> Result<Self, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let body = json(body)?;
        match Members::of(&body)?.text("query")? {
            None => Ok(Self::default()),
            Some(text) => Self::parse(text, collection),
        }
    }

    fn parse(text: &str, collection: &str) -> Result<Self, Refusal> {
        if text.len() > limits::QUERY_CHARS_MAX {
            return Err(wrong("query", format_args!("is longer than {} bytes", limits::QUERY_CHARS_MAX)));
        }
        let mut words = Words { rest: text };
        let unclear = || {
            wrong(
                "query",
                "is not one that is answered: SELECT * FROM collection WHERE path = literal AND path = literal",
            )
        };
        if !words.keyword("select") || !words.symbol('*') {
            return Err(unclear());
        }
        if words.keyword("from") {
            let named = words.name().ok_or_else(unclear)?;
            if !named.eq_ignore_ascii_case(collection) {
                return Err(wrong("query", format_args!("is of {named}, and this address lists {collection}")));
            }
        }
        let mut conditions = Vec::new();
        if words.keyword("where") {
            loop {
                let path = words.path().ok_or_else(unclear)?;
                let value = if words.symbol('=') { words.literal() } else { None };
                conditions.push(Equals { path, value: value.ok_or_else(unclear)? });
                if conditions.len() > CONDITIONS_MAX {
                    return Err(wrong("query", format_args!("has more than {CONDITIONS_MAX} conditions")));
                }
                if !words.keyword("and") {
                    break;
                }
            }
        }
        if words.rest.trim().is_empty() { Ok(Self { conditions }) } else { Err(unclear()) }
    }

    /// Whether something that is listed, as it would be shown, is asked for.
    pub fn admits(&self, shown: &Value) -> bool {
        self.conditions.iter().all(|condition| condition.holds(shown))
    }
}

impl Equals {
    fn holds(&self, shown: &Value) -> bool {
        let found = self.path.iter().try_fold(shown, |value, name| value.get(name)).unwrap_or(&Value::Null);
        match (found, &self.value) {
            // 5 and 5.0 are one number.
            (Value::Number(found), Value::Number(value)) => found.as_f64() == value.as_f64(),
            (found, value) => found == value,
        }
    }
}

/// What is left of the text.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn name(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        (!name.is_empty()).then(|| self.rest = rest)?;
        Some(name)
    }

    fn keyword(&mut self, word: &str) -> bool {
        let before = self.rest;
        let is_it = self.name().is_some_and(|name| name.eq_ignore_ascii_case(word));
        if !is_it {
            self.rest = before;
        }
        is_it
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let after = self.rest.trim_start().strip_prefix(symbol);
        after.inspect(|after| self.rest = after).is_some()
    }

    fn path(&mut self) -> Option<Vec<String>> {
        let mut path = vec![self.name()?.to_owned()];
        while self.symbol('.') {
            path.push(self.name()?.to_owned());
        }
        Some(path)
    }

    fn literal(&mut self) -> Option<Value> {
        let text = self.rest.trim_start();
        if let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"' | '`')) {
            let (value, rest) = text[1..].split_once(quote)?;
            self.rest = rest;
            return Some(Value::from(value));
        }
        let end = text.find(|c: char| c.is_whitespace()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        match word.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            number => number.parse::<Number>().ok().map(Value::Number),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn queries_find_what_they_say() {
        let shown = json!({ "deviceId": "dev-1", "tags": { "site": "x", "row": 5 }, "status": "enabled", "n": null });
        for (text, expected) in [
            ("SELECT *", true),
            ("select * from devices", true),
            ("SELECT*FROM devices", true),
            ("SELECT * FROM devices WHERE deviceId = 'dev-1'", true),
            ("SELECT * FROM devices WHERE deviceId='dev-2'", false),
            ("SELECT * FROM devices WHERE deviceId = \"dev-1\" AND tags.site = `x`", true),
            ("SELECT * FROM devices WHERE tags.row = 5", true),
            ("SELECT * FROM devices WHERE tags.row = 5.0", true),
            ("SELECT * FROM devices WHERE tags.row = '5'", false),
            ("SELECT * FROM devices WHERE tags.nothing = null", true),
            ("SELECT * FROM devices WHERE tags.site.deeper = 'x'", false),
            ("SELECT * FROM devices WHERE status = 'enabled' and n = null", true),
            ("SELECT * FROM devices WHERE status = true", false),
        ] {
            let query = Query::parse(text, "devices").unwrap();
            assert_eq!(query.admits(&shown), expected, "{text}");
        }
        for body in ["", "  ", "{}", r#"{"query":null}"#, r#"{"query":"SELECT *"}"#] {
            assert_eq!(Query::of_body(body.as_bytes(), "devices"), Ok(Query::default()), "{body}");
        }
    }

    #[test]
    fn queries_that_are_not_answered() {
        let many = format!("SELECT * WHERE {} = 1", vec!["a"; 17].join(" = 1 AND "));
        let long = format!("SELECT * WHERE a = '{}'", "x".repeat(limits::QUERY_CHARS_MAX));
        for text in [
            "",
            "SELECT",
            "SELECT deviceId FROM devices",
            "SELECT * FROM",
            "SELECT * FROM enrollments",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE a",
            "SELECT * FROM devices WHERE a = ",
            "SELECT * FROM devices WHERE a = x",
            "SELECT * FROM devices WHERE a = 'x",
            "SELECT * FROM devices WHERE a > 1",
            "SELECT * FROM devices WHERE a = 1 OR b = 2",
            "SELECT * FROM devices WHERE a. = 1",
            "SELECT * FROM devices GROUP BY a",
            "SELECT * FROM devices; DROP",
            &many,
            &long,
        ] {
            assert_eq!(Query::parse(text, "devices").unwrap_err().code.code, 400_004, "{text:.80}");
        }
        for body in ["[]", "{", r#"{"query":7}"#] {
            assert!(Query::of_body(body.as_bytes(), "devices").is_err(), "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_is_answered_or_refused(text in "(SELECT \\* (FROM devices )?WHERE )?\\PC*") {
            let _ = Query::parse(&text, "devices").map(|query| query.admits(&json!({ "a": 1 })));
        }
    }
}
