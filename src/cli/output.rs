//! The only place that prints: tables and JSON on standard output, progress, notes and errors on standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::advice;

/// One row of a listing. Its JSON keys are stable.
pub trait Listed: Serialize {
    const HEADINGS: &'static [&'static str];

    fn cells(&self) -> Vec<String>;
}

/// One thing shown whole. Its JSON keys are stable.
pub trait Shown: Serialize {
    /// Label and value; empty values are left out.
    fn facts(&self) -> Vec<(&'static str, String)>;
}

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// A listing: a table, or one JSON array. `more` says that the limit cut it off.
    pub fn list<V: Listed>(self, rows: &[V], more: bool) -> io::Result<()> {
        if self.json {
            print(&json_text(&rows))?;
        } else if rows.is_empty() {
            self.note("nothing to list")?;
        } else {
            print(&table(rows))?;
        }
        if more {
            self.note(&format!("only the first {} are shown: raise --limit to see more", rows.len()))
        } else {
            Ok(())
        }
    }

    /// One thing: its facts, or one JSON object.
    pub fn item<V: Shown>(self, view: &V) -> io::Result<()> {
        print(&if self.json { json_text(view) } else { facts(view) })
    }

    /// One event of a stream: a line for people, or one line of JSON.
    pub fn event(self, view: &impl Serialize, line: &str) -> io::Result<()> {
        if self.json { print(&json_line(view)) } else { print(&format!("{}\n", plain(line))) }
    }

    /// One line of JSON, for programs and people alike.
    pub fn json_line(self, value: &impl Serialize) -> io::Result<()> {
        print(&json_line(value))
    }

    /// What was done, in one sentence. Nothing with `--json`, where the result itself is printed.
    pub fn done(self, sentence: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { print(&format!("{}\n", plain(sentence))) }
    }

    /// What a person should know beside the result, on standard error.
    pub fn note(self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { writeln!(io::stderr(), "{}", plain(text)) }
    }

    /// A question for the person at the terminal, on standard error; without a newline.
    pub fn ask(self, question: &str) -> io::Result<()> {
        let mut stderr = io::stderr();
        write!(stderr, "{} [y/N] ", plain(question))?;
        stderr.flush()
    }

    /// A line that says how far long work is. Shows nothing with `--json` or where nobody watches.
    pub fn progress(self) -> Progress {
        Progress { shown: !self.json && io::stderr().is_terminal(), drawn: false }
    }

    /// Why the command failed: on standard error, also as JSON. A reader that went away is no failure to report.
    pub fn failure(self, error: &anyhow::Error) {
        let reader_left = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
        if reader_left {
            return;
        }
        let text = if self.json { json_line(&failure_json(error)) } else { failure_text(error) };
        // There is nowhere left to say that standard error is closed.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// A status line that is drawn over itself, and wiped when it is dropped.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    drawn: bool,
}

impl Progress {
    pub fn update(&mut self, line: &str) {
        if self.shown {
            self.drawn = true;
            // Progress is a courtesy: a closed terminal must not stop the work.
            let _ = write!(io::stderr(), "\r\x1b[K{}", plain(line)).and_then(|()| io::stderr().flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The text without control characters, so that what a device sent cannot drive the terminal.
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if c.is_control() && c != '\n' {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
        plain
    })
}

/// A table without borders: columns of equal width, so that it can be read and cut.
pub fn table<V: Listed>(rows: &[V]) -> String {
    let headings = V::HEADINGS.iter().map(|heading| heading.to_uppercase()).collect();
    columns(std::iter::once(headings).chain(rows.iter().map(Listed::cells)))
}

/// Label and value, one below the other.
pub fn facts<V: Shown>(view: &V) -> String {
    let shown = view.facts().into_iter().filter(|(_, value)| !value.is_empty());
    columns(shown.map(|(label, value)| vec![label.to_owned(), value]))
}

fn columns(rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |mut text, line| {
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

fn json_text(value: &impl Serialize) -> String {
    // The views hold strings, numbers and JSON values only, which always serialise.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn json_line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

fn failure_text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}\n", plain(&error.to_string()));
    for cause in error.chain().skip(1) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  because {}", plain(&cause.to_string()));
    }
    if let Some(advised) = advice::of(error) {
        for (key, value) in &advised.metadata {
            let _ = writeln!(text, "  {}: {}", plain(key), plain(value));
        }
        if let Some(hint) = &advised.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
    }
    text
}

fn failure_json(error: &anyhow::Error) -> Value {
    let advised = advice::of(error);
    let advised = advised.as_ref();
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    json!({
        "error": {
            "message": error.to_string(),
            "causes": causes,
            "reason": advised.and_then(|advised| advised.reason.clone()),
            "hint": advised.and_then(|advised| advised.hint.clone()),
            "metadata": advised.map(|advised| advised.metadata.clone()).unwrap_or_default(),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use anyhow::Context as _;

    use crate::cli::advice::Advised;

    use super::*;

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        count: u32,
    }

    impl Listed for Row {
        const HEADINGS: &'static [&'static str] = &["name", "count"];

        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), self.count.to_string()]
        }
    }

    impl Shown for Row {
        fn facts(&self) -> Vec<(&'static str, String)> {
            vec![("name", self.name.to_owned()), ("empty", String::new()), ("count", self.count.to_string())]
        }
    }

    #[test]
    fn tables_are_columns_and_nothing_else() {
        let rows = [Row { name: "a-long-name", count: 1 }, Row { name: "b", count: 22 }];
        assert_eq!(table(&rows), "NAME         COUNT\na-long-name  1\nb            22\n");
        assert_eq!(facts(&rows[1]), "name   b\ncount  22\n");
        assert_eq!(json_line(&rows[1]), "{\"name\":\"b\",\"count\":22}\n");
    }

    #[test]
    fn a_device_cannot_drive_the_terminal() {
        let rows = [Row { name: "\u{1b}[2Jx\r", count: 1 }];
        assert_eq!(table(&rows), "NAME          COUNT\n\\u{1b}[2Jx\\r  1\n");
    }

    fn refused() -> anyhow::Error {
        let advised = Advised {
            message: "the hub changed (ETAG_MISMATCH)".to_owned(),
            reason: Some("ETAG_MISMATCH".to_owned()),
            hint: Some("read it again".to_owned()),
            metadata: BTreeMap::from([("hub".to_owned(), "hub-a".to_owned())]),
        };
        Err::<(), _>(advised).context("cannot update hub-a").unwrap_err()
    }

    #[test]
    fn a_failure_says_what_is_wrong_and_what_to_do() {
        assert_eq!(
            failure_text(&refused()),
            "error: cannot update hub-a\n  because the hub changed (ETAG_MISMATCH)\n  hub: hub-a\nhint: read it again\n"
        );
        let json = failure_json(&refused());
        assert_eq!(json["error"]["reason"], "ETAG_MISMATCH");
        assert_eq!(json["error"]["metadata"]["hub"], "hub-a");
        assert_eq!(json["error"]["causes"][0], "the hub changed (ETAG_MISMATCH)");
        let bare = failure_json(&anyhow::anyhow!("x"));
        assert_eq!((&bare["error"]["reason"], &bare["error"]["hint"]), (&Value::Null, &Value::Null));
    }
}
