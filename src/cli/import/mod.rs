//! `rehome enroll import` and `export`: individual enrollments by the file, in batches that are each one commit.

mod line;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::client::{EnrollmentKind, EnrollmentRecord, ImportOutcome, Operator, PageChoice};
use crate::domain::{EnrollmentDraft, limits};

use super::context::Context;
use super::output::Shown;
use super::settings::SettingsFlags;
use line::{Common, Line};

pub const IMPORT_HELP: &str = "A line of JSON has the keys of `rehome enroll show --json`:
  {\"registration_id\": \"dev-1\", \"certificate\": \"MIIB…\", \"hub_ids\": [\"hub-a\"]}
certificate is PEM or base64 of the DER; certificate_file names a file in its place, found from the
folder of FILE. A TPM has endorsement_key (and storage_root_key: any, pin_first or a key), base64 of
its TPM2B_PUBLIC, in place of a certificate. A CSV file has the same names as headings; hub_ids are separated by blanks, and
initial_twin is JSON. What a line leaves out is as the flags say.

Each batch is one commit. Run it again with --skip-existing to go on where it ended.

Examples:
  rehome enroll import devices.csv --reprovision reset
  rehome enroll export | rehome enroll import - --skip-existing --server https://other.example:7443";

/// Batches under way at once: one is checked while another one is written.
const BATCHES_AT_ONCE: usize = 2;
/// A line with a twin and two certificates stays far below; more is another file.
const LINE_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of certificates and twins in a batch: well below what a message may hold.
const BATCH_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX / 2;
/// What an enrollment takes beside its certificates and twin.
const SETTINGS_BYTES: usize = 256;

/// How the file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    JsonLines,
    Csv,
}

#[derive(Debug, PartialEq, Args)]
pub struct Import {
    /// JSON lines, or CSV with a first line of headings; - is standard input
    pub file: PathBuf,
    /// How the file is written [default: csv where its name ends so]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    #[command(flatten)]
    pub settings: SettingsFlags,
    /// Create them disabled
    #[arg(long)]
    pub disabled: bool,
    /// An enrollment that exists is no fault; it stays as it is
    #[arg(long)]
    pub skip_existing: bool,
    /// Show at most so many faults
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub faults: usize,
}

/// What came of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportView {
    pub lines: u64,
    pub created: u64,
    /// There before, and as the line says.
    pub existing: u64,
    /// There before, and not as the line says: left as they are.
    pub differing: u64,
    pub refused: u64,
    /// By reason.
    pub reasons: BTreeMap<String, u64>,
    /// The first ones.
    pub faults: Vec<LineFault>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineFault {
    pub line: u64,
    pub registration_id: Option<String>,
    pub reason: String,
    pub message: String,
}

impl Shown for ImportView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let some = |count: u64| if count == 0 { String::new() } else { count.to_string() };
        vec![
            ("lines", self.lines.to_string()),
            ("created", self.created.to_string()),
            ("existing", some(self.existing)),
            ("existing, but not as the line says", some(self.differing)),
            ("refused", some(self.refused)),
        ]
    }
}

/// Enrollments of some lines, on their way.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u64>,
    drafts: Vec<EnrollmentDraft>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, line: u64, draft: EnrollmentDraft) {
        self.bytes += size_of(&draft);
        self.lines.push(line);
        self.drafts.push(draft);
    }

    fn takes(&self, draft: &EnrollmentDraft) -> bool {
        self.drafts.is_empty()
            || self.drafts.len() < limits::IMPORT_MAX && self.bytes + size_of(draft) <= BATCH_BYTES_MAX
    }
}

fn size_of(draft: &EnrollmentDraft) -> usize {
    let twin = draft.initial.tags.to_text().len() + draft.initial.desired.to_text().len();
    // A document takes up to twice the room on the wire that its text takes.
    draft.attestation.bytes() + 2 * twin + SETTINGS_BYTES
}

impl Import {
    pub async fn run(self, context: &Context) -> anyhow::Result<()> {
        let operator = context.operator().await?;
        let is_stdin = self.file == Path::new("-");
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        let reader: Box<dyn Read + Send> = if is_stdin {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(&self.file).with_context(|| format!("cannot open {}", self.file.display()))?)
        };
        let is_csv = self.file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let format = self.format.unwrap_or(if is_csv { Format::Csv } else { Format::JsonLines });
        let mut run = Run { import: &self, operator, view: ImportView::default(), under_way: Vec::new() };
        let common = Common { flags: &self.settings, disabled: self.disabled, folder: &folder };
        let mut progress = context.output.progress();
        let mut batch = Batch::default();
        for line in lines(format, reader)? {
            let (number, line) = line.with_context(|| format!("cannot read {}", self.file.display()))?;
            run.view.lines += 1;
            let id = line.as_ref().ok().map(|line| line.registration_id.clone());
            match line.and_then(|line| line.draft(&common)) {
                Ok(draft) => {
                    if !batch.takes(&draft) {
                        run.send(std::mem::take(&mut batch)).await?;
                        progress.update(&run.view.status());
                    }
                    batch.add(number, draft);
                }
                Err(fault) => run.refuse(number, id, "LINE_INVALID".to_owned(), format!("{fault:#}")),
            }
        }
        run.send(batch).await?;
        run.finish().await?;
        drop(progress);
        let view = run.view;
        for LineFault { line, registration_id, reason, message } in &view.faults {
            let id = registration_id.as_deref().unwrap_or("-");
            context.output.note(&format!("line {line} ({id}): {message} ({reason})"))?;
        }
        context.output.item(&view)?;
        if view.refused > 0 {
            bail!("{} of {} lines were refused", view.refused, view.lines);
        }
        Ok(())
    }
}

impl ImportView {
    fn status(&self) -> String {
        format!("{} lines read, {} created, {} refused", self.lines, self.created, self.refused)
    }
}

type Sent = (Vec<(u64, String)>, Result<Vec<ImportOutcome>, crate::client::ClientFault>);

/// An import under way.
struct Run<'a> {
    import: &'a Import,
    operator: Operator,
    view: ImportView,
    under_way: Vec<tokio::task::JoinHandle<Sent>>,
}

impl Run<'_> {
    async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        if batch.drafts.is_empty() {
            return Ok(());
        }
        if self.under_way.len() >= BATCHES_AT_ONCE {
            let oldest = self.under_way.remove(0);
            self.note(oldest.await.context("a batch broke off")?)?;
        }
        let (operator, skip_existing) = (self.operator.clone(), self.import.skip_existing);
        self.under_way.push(tokio::spawn(async move {
            let outcomes = operator.import_enrollments(&batch.drafts, skip_existing).await;
            let named = |(line, draft): (u64, &EnrollmentDraft)| (line, draft.id.name().to_owned());
            (batch.lines.into_iter().zip(&batch.drafts).map(named).collect(), outcomes)
        }));
        Ok(())
    }

    async fn finish(&mut self) -> anyhow::Result<()> {
        for sent in std::mem::take(&mut self.under_way) {
            self.note(sent.await.context("a batch broke off")?)?;
        }
        Ok(())
    }

    fn note(&mut self, (lines, outcomes): Sent) -> anyhow::Result<()> {
        let first = lines.first().map_or(0, |(line, _)| *line);
        let outcomes = outcomes.with_context(|| {
            format!("the batch that begins at line {first} was not taken; --skip-existing goes on from here")
        })?;
        for ((line, id), outcome) in lines.into_iter().zip(outcomes) {
            match outcome {
                ImportOutcome::Created => self.view.created += 1,
                ImportOutcome::Exists { differs: false } => self.view.existing += 1,
                ImportOutcome::Exists { differs: true } => self.view.differing += 1,
                ImportOutcome::Refused { reason, message } => self.refuse(line, Some(id), reason, message),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, registration_id: Option<String>, reason: String, message: String) {
        self.view.refused += 1;
        *self.view.reasons.entry(reason.clone()).or_default() += 1;
        if self.view.faults.len() < self.import.faults {
            let registration_id = registration_id.filter(|id| !id.is_empty());
            self.view.faults.push(LineFault { line, registration_id, reason, message });
        }
    }
}

/// A line's number with what it says, or what is wrong with it. The outer fault ends the file.
type Numbered = anyhow::Result<(u64, anyhow::Result<Line>)>;

fn lines(format: Format, reader: Box<dyn Read + Send>) -> anyhow::Result<Box<dyn Iterator<Item = Numbered> + Send>> {
    match format {
        Format::JsonLines => Ok(Box::new(JsonLines { reader: BufReader::new(reader), number: 0 })),
        Format::Csv => Ok(Box::new(csv_lines(reader)?)),
    }
}

struct JsonLines<R> {
    reader: BufReader<R>,
    number: u64,
}

impl<R: Read> Iterator for JsonLines<R> {
    type Item = Numbered;

    fn next(&mut self) -> Option<Numbered> {
        loop {
            let mut text = String::new();
            match self.reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut text) {
                Ok(0) => return None,
                Err(error) => return Some(Err(error.into())),
                Ok(_) => {}
            }
            self.number += 1;
            if text.len() as u64 >= LINE_BYTES_MAX && !text.ends_with('\n') {
                let number = self.number;
                return Some(Err(anyhow::anyhow!("line {number} is longer than {LINE_BYTES_MAX} bytes")));
            }
            if !text.trim().is_empty() {
                return Some(Ok((self.number, Line::from_json(text.trim()))));
            }
        }
    }
}

fn csv_lines(reader: Box<dyn Read + Send>) -> anyhow::Result<impl Iterator<Item = Numbered> + Send> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(reader);
    let headings = reader.headers().context("the first line holds no headings")?.clone();
    Ok(reader.into_records().map(move |record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => match error.position().map(csv::Position::line) {
                // A row of another length: the next one may be well.
                Some(line) if matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                    return Ok((line, Err(anyhow::anyhow!("it has not as many cells as there are headings"))));
                }
                Some(_) | None => return Err(error.into()),
            },
        };
        let number = record.position().map_or(0, csv::Position::line);
        Ok((number, Line::from_cells(headings.iter().zip(record.iter()))))
    }))
}

async fn exported(operator: &Operator, record: EnrollmentRecord, with_keys: bool) -> anyhow::Result<Line> {
    let id = record.draft.id.clone();
    let line = Line::try_from(record)?;
    match (line.symmetric_key, with_keys) {
        (None, _) => Ok(line),
        (Some(_), true) => Ok(line.with_keys(&operator.enrollment_keys(&id).await?)),
        (Some(_), false) => bail!("{id} has symmetric keys, which are told with --with-keys only"),
    }
}

/// Prints every individual enrollment as a line that `import` reads; with its symmetric keys, or without those that have
/// some.
pub async fn export(with_keys: bool, context: &Context) -> anyhow::Result<()> {
    let operator = context.operator().await?;
    let mut token = None;
    let mut left_out = 0_u64;
    loop {
        let page = PageChoice { size: limits::PAGE_SIZE_MAX, token };
        let page = operator.list_enrollments(EnrollmentKind::Individual, page).await?;
        for record in page.rows {
            match exported(&operator, record, with_keys).await {
                Ok(line) => context.output.json_line(&line)?,
                Err(why) => {
                    left_out += 1;
                    context.output.note(&format!("left out: {why:#}"))?;
                }
            }
        }
        match page.next {
            Some(next) => token = Some(next),
            None if left_out > 0 => bail!("{left_out} enrollments were left out"),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &'static str) -> Vec<(u64, bool)> {
        let lines = lines(format, Box::new(text.as_bytes())).unwrap();
        lines.map(|line| line.unwrap()).map(|(number, line)| (number, line.is_ok())).collect()
    }

    #[test]
    fn lines_keep_their_numbers() {
        let json = "{\"registration_id\":\"a\"}\n\nnonsense\r\n{\"registration_id\":\"b\"}";
        assert_eq!(read(Format::JsonLines, json), [(1, true), (3, false), (4, true)]);
        let csv = "registration_id,certificate\na,MIIA\nb\n\"c\",\"one\ntwo\"\nd,x\n";
        assert_eq!(read(Format::Csv, csv), [(2, true), (3, false), (4, true), (6, true)]);
        assert_eq!(read(Format::JsonLines, ""), []);
        assert_eq!(read(Format::Csv, "registration_id\n"), []);
    }

    #[test]
    fn an_endless_line_ends_the_file() {
        let endless = Box::new(std::io::repeat(b'x'));
        let first = lines(Format::JsonLines, endless).unwrap().next().unwrap();
        assert!(first.is_err());
    }
}
