//! The README keeps its word: its tables and its device are those of the code, and the runner of its commands catches what it must.
//!
//! `cargo test --test it write_readme_tables -- --ignored` writes the tables anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use rehome::config::SETTINGS;
use rehome::domain::{Kind, Reason};
use rehome::telemetry::METRICS;

mod runner;

fn readme() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn code(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "INVALID_ARGUMENT",
        Kind::Unauthenticated => "UNAUTHENTICATED",
        Kind::Denied => "PERMISSION_DENIED",
        Kind::NotFound => "NOT_FOUND",
        Kind::Conflict => "FAILED_PRECONDITION",
        Kind::Exhausted => "RESOURCE_EXHAUSTED",
        Kind::Unavailable => "UNAVAILABLE",
        Kind::Internal => "INTERNAL",
    }
}

fn reasons() -> String {
    let mut table = "| reason | gRPC code | meaning |\n| --- | --- | --- |\n".to_owned();
    for reason in Reason::ALL {
        let meaning = reason.meaning().trim();
        writeln!(table, "| `{reason}` | `{}` | {meaning} |", code(reason.kind())).expect("a String takes all");
    }
    table
}

fn settings() -> String {
    let mut table = "| key | default | variable | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "–".to_owned() } else { format!("`{}`", setting.default) };
        let (key, variable, meaning) = (setting.key, setting.variable(), setting.meaning);
        writeln!(table, "| `{key}` | {default} | `{variable}` | {meaning} |").expect("a String takes all");
    }
    table
}

fn metrics() -> String {
    let mut table = "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, meaning) = (metric.name, metric.kind.as_str(), metric.meaning);
        writeln!(table, "| `{name}` | {kind} | {} | {meaning} |", labels.join(", ")).expect("a String takes all");
    }
    table
}

fn tables() -> [(&'static str, String); 3] {
    [("reasons", reasons()), ("settings", settings()), ("metrics", metrics())]
}

/// The text before, between and after the two marks of a table.
fn around<'a>(text: &'a str, name: &str) -> (&'a str, &'a str, &'a str) {
    let start = text.find(&format!("<!-- {name}:")).unwrap_or_else(|| panic!("README.md has no mark for {name}"));
    let start = start + text[start..].find("-->\n").expect("the mark ends") + "-->\n".len();
    let length = text[start..].find(&format!("<!-- /{name} -->")).expect("the table has an end mark");
    (&text[..start], &text[start..start + length], &text[start + length..])
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let text = std::fs::read_to_string(readme()).expect("README.md");
    for (name, table) in tables() {
        let (_, found, _) = around(&text, name);
        assert_eq!(
            found.trim(),
            table.trim(),
            "the {name} of README.md are not those of the code; to write them anew: \
             cargo test --test it write_readme_tables -- --ignored"
        );
    }
}

#[test]
#[ignore = "writes README.md"]
fn write_readme_tables() {
    let mut text = std::fs::read_to_string(readme()).expect("README.md");
    for (name, table) in tables() {
        let (before, _, after) = around(&text, name);
        text = format!("{before}\n{table}\n{after}");
    }
    std::fs::write(readme(), text).expect("README.md can be written");
}

#[test]
fn the_device_in_the_readme_is_the_example() {
    let text = std::fs::read_to_string(readme()).expect("README.md");
    let (_, from) = text.split_once("\n```rust\n").expect("a block of Rust");
    let (shown, _) = from.split_once("```\n").expect("the block ends");
    let example = std::fs::read_to_string(readme().with_file_name("examples").join("device.rs")).expect("the example");
    assert_eq!(shown, example, "README.md does not show examples/device.rs as it is");
}

/// Settings that `config` itself answers: it refuses to start without them.
const ANSWERED_IN_CONFIG: &[&str] = &["allow_development_pki_off_loopback"];

#[test]
fn every_setting_is_read_by_somebody() {
    let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    if !src.join("compose.rs").exists() {
        return;
    }
    let code: String = crate::fences::sources(&src)
        .into_iter()
        .filter(|(path, _)| !path.starts_with("config/"))
        .map(|(_, text)| text)
        .collect();
    let words: BTreeSet<&str> = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for setting in SETTINGS.iter().filter(|setting| !ANSWERED_IN_CONFIG.contains(&setting.key)) {
        let field = setting.key.rsplit('.').next().expect("a key has a last part");
        assert!(words.contains(field), "{} is a setting that nothing outside src/config reads", setting.key);
    }
}
