//! What the demo claims, what was found, and whether the two are the same.

use std::fmt::Debug;
use std::io;

use serde::Serialize;

use crate::cli::output::{Listed, Output, Progress};

/// One claim, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    pub chapter: &'static str,
    pub claim: String,
    pub holds: bool,
    /// What was found where the claim does not hold.
    pub found: Option<String>,
}

impl Listed for Claim {
    const HEADINGS: &'static [&'static str] = &["chapter", "holds", "claim"];

    fn cells(&self) -> Vec<String> {
        let claim = match &self.found {
            None => self.claim.clone(),
            Some(found) => format!("{}\n  but found: {found}", self.claim),
        };
        vec![self.chapter.to_owned(), if self.holds { "yes" } else { "NO" }.to_owned(), claim]
    }
}

/// The claims so far.
#[derive(Debug)]
pub struct Claims {
    output: Output,
    progress: Progress,
    chapter: &'static str,
    all: Vec<Claim>,
}

impl Claims {
    pub fn new(output: Output) -> Self {
        let mut progress = output.progress();
        progress.update("starting the service …");
        Self { output, progress, chapter: "", all: Vec::new() }
    }

    pub fn chapter(&mut self, chapter: &'static str) {
        self.chapter = chapter;
        self.progress.update(&format!("{chapter} … ({} claims checked)", self.all.len()));
    }

    /// Whether the chapter was told.
    pub fn has_chapter(&self, chapter: &str) -> bool {
        self.all.iter().any(|claim| claim.chapter == chapter)
    }

    /// Claims that what was found is what was expected.
    pub fn same<T: PartialEq + Debug>(&mut self, claim: impl Into<String>, found: &T, expected: &T) {
        let holds = found == expected;
        let found = (!holds).then(|| format!("{found:?} in place of {expected:?}"));
        self.all.push(Claim { chapter: self.chapter, claim: claim.into(), holds, found });
    }

    /// Claims that something is so; `found` says what is, should it not be.
    pub fn so(&mut self, claim: impl Into<String>, holds: bool, found: impl Debug) {
        let found = (!holds).then(|| format!("{found:?}"));
        self.all.push(Claim { chapter: self.chapter, claim: claim.into(), holds, found });
    }

    /// Prints the table; how many claims there are, and how many of them do not hold.
    pub fn finish(self) -> io::Result<(usize, usize)> {
        let Self { output, progress, all, .. } = self;
        drop(progress);
        output.list(&all, false)?;
        Ok((all.len(), all.iter().filter(|claim| !claim.holds).count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn a_claim_that_does_not_hold_says_what_was_found() {
        let mut claims = Claims::new(Output { json: true });
        claims.chapter("sums");
        claims.same("two and two is four", &4, &4);
        claims.same("two and two is five", &4, &5);
        claims.so("there is nothing", false, ["something"]);
        assert_eq!(
            table(&claims.all),
            "CHAPTER  HOLDS  CLAIM\n\
             sums     yes    two and two is four\n\
             sums     NO     two and two is five\n\
             \u{20}                 but found: 4 in place of 5\n\
             sums     NO     there is nothing\n\
             \u{20}                 but found: [\"something\"]\n"
        );
    }
}
