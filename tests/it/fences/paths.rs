//! Finds every path in a file and says where it leads: to a module of the crate, or to another crate.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Kind, Token, tokens};

/// A path as it is meant: renames undone, `self` and `super` resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub line: usize,
    pub leads: Leads,
    pub in_test: bool,
    /// Made visible to others by `pub use`.
    pub republished: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// Into the crate: the segments below its root. Empty is the root itself, or everything in it.
    Inside(Vec<String>),
    /// To another crate, or to a name of this file: the segments as they are.
    Outside(Vec<String>),
    /// A macro that is called.
    Macro(String),
    /// An attribute, with the words in it.
    Attribute(String, Vec<String>),
}

/// The names under which a crate's own root can be written.
const ROOTS: &[&str] = &["crate", "rehome"];

/// `actors/device/mod.rs` → `actors`, `device`; `lib.rs` and `main.rs` → nothing.
pub fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut segments: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| last == "mod") {
        segments.pop();
    }
    if segments.len() == 1 && (segments[0] == "lib" || segments[0] == "main") {
        segments.clear();
    }
    segments
}

/// What was found in one file.
#[derive(Debug, Default)]
pub struct Survey {
    pub found: Vec<Found>,
    /// Modules declared `#[cfg(test)] mod x;`, as paths from the crate's root.
    pub test_modules: Vec<Vec<String>>,
}

/// A `{ … }` that is open.
struct Scope {
    /// The inline module that it is, if it is one.
    module: bool,
    in_test: bool,
}

struct Surveyor<'a> {
    tokens: &'a [Token],
    at: usize,
    module: Vec<String>,
    scopes: Vec<Scope>,
    /// `#[cfg(test)]` stands before the item that comes now.
    test_item: bool,
    whole_file_in_test: bool,
    /// Local names of what was imported, undone in code.
    names: BTreeMap<String, Vec<String>>,
    /// Modules declared here: a path that starts with one stays here.
    own: BTreeSet<String>,
    survey: Survey,
}

pub fn survey(file: &str, text: &str, whole_file_in_test: bool) -> Survey {
    let tokens = tokens(text);
    let mut surveyor = Surveyor {
        own: declared_modules(&tokens),
        tokens: &tokens,
        at: 0,
        module: module_of(file),
        scopes: Vec::new(),
        test_item: false,
        whole_file_in_test,
        names: BTreeMap::new(),
        survey: Survey::default(),
    };
    surveyor.collect_names();
    surveyor.walk();
    surveyor.survey
}

fn declared_modules(tokens: &[Token]) -> BTreeSet<String> {
    tokens
        .windows(3)
        .filter(|three| three[0].word() == Some("mod") && (three[2].is(';') || three[2].is('{')))
        .filter_map(|three| three[1].word().map(str::to_owned))
        .collect()
}

impl Surveyor<'_> {
    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        self.peek(ahead).and_then(Token::word)
    }

    fn mark(&self, ahead: usize, mark: char) -> bool {
        self.peek(ahead).is_some_and(|token| token.is(mark))
    }

    fn separator(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(|token| token.kind == Kind::Separator)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |token| token.line)
    }

    fn in_test(&self) -> bool {
        self.whole_file_in_test || self.test_item || self.scopes.iter().any(|scope| scope.in_test)
    }

    /// A first pass over the `use` declarations: a name may be used above the line that imports it.
    fn collect_names(&mut self) {
        while self.at < self.tokens.len() {
            let is_use = self.word(0) == Some("use") && !self.mark(1, '<');
            self.at += 1;
            if is_use {
                for branch in self.use_tree() {
                    let Some(name) = branch.name.clone() else { continue };
                    let renamed_or_longer = branch.segments.len() > 1 || branch.segments.last() != Some(&name);
                    if renamed_or_longer && !self.own.contains(&name) {
                        self.names.insert(name, branch.segments);
                    }
                }
            }
        }
        self.at = 0;
    }

    fn walk(&mut self) {
        while let Some(token) = self.peek(0) {
            match &token.kind {
                Kind::Mark('#') => self.attribute(),
                Kind::Mark('{') => {
                    let in_test = std::mem::take(&mut self.test_item);
                    self.scopes.push(Scope { module: false, in_test });
                    self.at += 1;
                }
                Kind::Mark('}') => {
                    if self.scopes.pop().is_some_and(|scope| scope.module) {
                        self.module.pop();
                    }
                    self.at += 1;
                }
                Kind::Mark(';') => {
                    self.test_item = false;
                    self.at += 1;
                }
                Kind::Word(word) => match word.as_str() {
                    "use" if !self.mark(1, '<') => self.use_declaration(),
                    "mod" => self.module_declaration(),
                    "extern" if self.word(1) == Some("crate") => self.extern_crate(),
                    _ => self.path(),
                },
                Kind::Separator if self.word(1).is_some() => self.path(),
                Kind::Separator | Kind::Mark(_) | Kind::Literal => self.at += 1,
            }
        }
    }

    fn attribute(&mut self) {
        let line = self.line();
        self.at += 1;
        let inner = self.mark(0, '!');
        if inner {
            self.at += 1;
        }
        if !self.mark(0, '[') {
            return;
        }
        let mut depth = 0usize;
        let mut words = Vec::new();
        while let Some(token) = self.peek(0) {
            match &token.kind {
                Kind::Mark('[') => depth += 1,
                Kind::Mark(']') => depth -= 1,
                Kind::Word(word) => words.push(word.clone()),
                Kind::Mark(_) | Kind::Separator | Kind::Literal => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        // What the one feature `testing` adds is for tests in other targets, and no part of what is shipped.
        if words == ["cfg", "test"] || words == ["cfg", "any", "test", "feature"] {
            if inner && self.scopes.is_empty() {
                self.whole_file_in_test = true;
            } else {
                self.test_item = true;
            }
        }
        if let Some(name) = words.first().cloned() {
            self.report(line, Leads::Attribute(name, words), false);
        }
    }

    fn module_declaration(&mut self) {
        let Some(name) = self.word(1).map(str::to_owned) else {
            self.at += 1;
            return;
        };
        self.at += 2;
        if self.mark(0, '{') {
            let in_test = std::mem::take(&mut self.test_item);
            self.scopes.push(Scope { module: true, in_test });
            self.module.push(name);
            self.at += 1;
        } else if self.mark(0, ';') && self.test_item {
            let mut module = self.module.clone();
            module.push(name);
            self.survey.test_modules.push(module);
        }
    }

    fn extern_crate(&mut self) {
        let line = self.line();
        if let Some(name) = self.word(2).map(str::to_owned) {
            let leads = if name == "self" { Leads::Inside(Vec::new()) } else { Leads::Outside(vec![name]) };
            self.report(line, leads, false);
        }
        self.at += 3;
    }

    fn use_declaration(&mut self) {
        let republished = self.is_public();
        self.at += 1;
        for branch in self.use_tree() {
            let leads = self.resolve(&branch.segments, branch.rooted);
            self.report(branch.line, leads, republished);
        }
    }

    /// Whether `pub` or `pub(…)` stands right before this token.
    fn is_public(&self) -> bool {
        let before = &self.tokens[..self.at];
        let before = match before.last() {
            Some(token) if token.is(')') => {
                let opening = before.iter().rposition(|token| token.is('(')).unwrap_or(0);
                &before[..opening]
            }
            _ => before,
        };
        before.last().and_then(Token::word) == Some("pub")
    }

    /// Reads `a::{b as c, d::*}` up to the `;`. Stands behind `use`.
    fn use_tree(&mut self) -> Vec<Branch> {
        let mut branches = Vec::new();
        self.use_branch(&Branch::default(), &mut branches);
        branches
    }

    fn use_branch(&mut self, stem: &Branch, branches: &mut Vec<Branch>) {
        let mut branch = stem.clone();
        branch.line = self.line();
        if self.separator(0) {
            branch.rooted = branch.segments.is_empty();
            self.at += 1;
        }
        loop {
            if self.mark(0, '$') {
                self.at += 1;
            }
            if let Some(word) = self.word(0).map(str::to_owned) {
                self.at += 1;
                // `self` at the end of a group names the group's own stem.
                if word != "self" || branch.segments.is_empty() {
                    branch.segments.push(word);
                }
            } else if self.mark(0, '*') {
                self.at += 1;
                branch.name = None;
                branches.push(branch);
                return;
            } else if self.mark(0, '{') {
                self.at += 1;
                while !self.mark(0, '}') && self.at < self.tokens.len() {
                    let before = self.at;
                    self.use_branch(&branch, branches);
                    if self.mark(0, ',') || self.at == before {
                        self.at += 1;
                    }
                }
                self.at += 1;
                return;
            } else {
                return;
            }
            if self.separator(0) {
                self.at += 1;
                continue;
            }
            branch.name = branch.segments.last().cloned();
            if self.word(0) == Some("as") {
                branch.name = self.word(1).map(str::to_owned);
                self.at += 2;
            }
            branches.push(branch);
            return;
        }
    }

    /// A path in code, or a single word.
    fn path(&mut self) {
        let line = self.line();
        let rooted = self.separator(0);
        if rooted {
            self.at += 1;
        }
        let mut segments = Vec::new();
        while let Some(word) = self.word(0).map(str::to_owned) {
            segments.push(word);
            self.at += 1;
            if self.separator(0) && self.mark(1, '<') {
                // A turbofish: what it holds is read on its own, what follows it is an item of what was named.
                self.at += 1;
                break;
            }
            if !self.separator(0) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        if self.mark(0, '!')
            && !self.mark(1, '=')
            && let Some(name) = segments.last().cloned()
        {
            self.report(line, Leads::Macro(name), false);
        }
        let is_lone_root = segments.len() == 1 && !rooted && is_keyword(&segments[0]);
        // A single word is a local name, except where it stands for what was imported: that was judged at its `use`.
        if segments.len() > 1 || rooted {
            let undone = self.undo_names(&segments, rooted);
            let leads = self.resolve(&undone, rooted);
            self.report(line, leads, false);
        } else if !is_lone_root && self.names.contains_key(&segments[0]) && self.mark(0, '(') {
            // An imported function that is called: `now()` after `use std::time::SystemTime::now`.
            let undone = self.names[&segments[0]].clone();
            let leads = self.resolve(&undone, false);
            self.report(line, leads, false);
        }
    }

    /// Replaces the first segment by what it was imported as; imports may build on each other.
    fn undo_names(&self, segments: &[String], rooted: bool) -> Vec<String> {
        let mut segments = segments.to_vec();
        let mut undone = BTreeSet::new();
        while !rooted && undone.insert(segments[0].clone()) {
            let Some(meant) = self.names.get(&segments[0]) else { break };
            segments.splice(..1, meant.iter().cloned());
        }
        segments
    }

    fn resolve(&self, segments: &[String], rooted: bool) -> Leads {
        let first = segments[0].as_str();
        if rooted {
            return if ROOTS.contains(&first) {
                Leads::Inside(segments[1..].to_vec())
            } else {
                Leads::Outside(segments.to_vec())
            };
        }
        if ROOTS.contains(&first) {
            return Leads::Inside(segments[1..].to_vec());
        }
        if first != "self" && first != "super" {
            return if self.own.contains(first) {
                Leads::Inside([self.module.as_slice(), segments].concat())
            } else {
                Leads::Outside(segments.to_vec())
            };
        }
        let mut module = self.module.clone();
        let mut rest = segments;
        while let Some(step) = rest.first() {
            match step.as_str() {
                "self" => {}
                "super" => {
                    module.pop();
                }
                _ => break,
            }
            rest = &rest[1..];
        }
        module.extend(rest.iter().cloned());
        Leads::Inside(module)
    }

    fn report(&mut self, line: usize, leads: Leads, republished: bool) {
        let in_test = self.in_test();
        self.survey.found.push(Found { line, leads, in_test, republished });
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "crate" | "self" | "super")
}

#[derive(Debug, Clone, Default)]
struct Branch {
    segments: Vec<String>,
    /// Written with a leading `::`.
    rooted: bool,
    /// The local name; `None` for a glob.
    name: Option<String>,
    line: usize,
}
