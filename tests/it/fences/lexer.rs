//! Cuts Rust source into the tokens that paths are made of; comments, strings, characters and numbers fall away.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Word(String),
    /// `::`
    Separator,
    Mark(char),
    /// A string, character or number: something stood here.
    Literal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// Counted from 1.
    pub line: usize,
}

impl Token {
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            Kind::Separator | Kind::Mark(_) | Kind::Literal => None,
        }
    }

    pub fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    /// Skips past the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &str) {
        let length = self.rest.find(end).map_or(self.rest.len(), |at| at + end.len());
        self.skip(length);
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0usize;
        while !self.rest.is_empty() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.skip(self.first().len_utf8());
            }
        }
    }

    /// Skips past the closing quote; the opening one has been skipped.
    fn skip_quoted(&mut self, quote: char) {
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            if c == '\\' {
                let escaped = self.rest.chars().next().map_or(0, char::len_utf8);
                self.skip(escaped);
            } else if c == quote {
                return;
            }
        }
    }

    fn first(&self) -> char {
        self.rest.chars().next().unwrap_or('\0')
    }

    fn second(&self) -> char {
        self.rest.chars().nth(1).unwrap_or('\0')
    }

    fn word(&mut self) -> String {
        let length = self.rest.find(|c: char| !is_in_word(c)).unwrap_or(self.rest.len());
        let word = self.rest[..length].to_owned();
        self.skip(length);
        word
    }
}

fn starts_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a raw string's opening (`r"`, `br##"`, …) and its closing, if one starts here.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|after| after.trim_start_matches('#').starts_with('"')))?;
    let hashes = text[prefix.len()..].chars().take_while(|c| *c == '#').count();
    Some((prefix.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// The length of what stands before the quote of a string (`"`, `b"`, `c"`), if one starts here.
fn string_prefix(text: &str) -> Option<usize> {
    ["\"", "b\"", "c\""].into_iter().find(|opening| text.starts_with(opening)).map(str::len)
}

pub fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut tokens = Vec::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        let first = reader.first();
        let kind = if first.is_whitespace() {
            reader.skip(first.len_utf8());
            continue;
        } else if reader.rest.starts_with("//") {
            reader.skip_past("\n");
            continue;
        } else if reader.rest.starts_with("/*") {
            reader.skip_block_comment();
            continue;
        } else if let Some((opening, closing)) = raw_string(reader.rest) {
            reader.skip(opening);
            reader.skip_past(&closing);
            Kind::Literal
        } else if let Some(opening) = string_prefix(reader.rest) {
            reader.skip(opening);
            reader.skip_quoted('"');
            Kind::Literal
        } else if reader.rest.starts_with("b'") {
            reader.skip(2);
            reader.skip_quoted('\'');
            Kind::Literal
        } else if reader.rest.starts_with("r#") && reader.rest[2..].starts_with(starts_word) {
            reader.skip(2);
            Kind::Word(reader.word())
        } else if first == '\'' {
            reader.skip(1);
            let is_lifetime = starts_word(reader.first()) && reader.second() != '\'';
            if is_lifetime {
                reader.word();
            } else {
                reader.skip_quoted('\'');
            }
            Kind::Literal
        } else if starts_word(first) {
            Kind::Word(reader.word())
        } else if first.is_numeric() {
            reader.word();
            Kind::Literal
        } else if reader.rest.starts_with("::") {
            reader.skip(2);
            Kind::Separator
        } else {
            reader.skip(first.len_utf8());
            Kind::Mark(first)
        };
        tokens.push(Token { kind, line });
    }
    tokens
}

#[test]
fn only_code_is_left() {
    let words =
        |text: &str| -> Vec<String> { tokens(text).iter().filter_map(|t| t.word().map(str::to_owned)).collect() };
    for (text, expected) in [
        ("a::b // c::d\ne", vec!["a", "b", "e"]),
        ("a /* b /* c */ d */ e", vec!["a", "e"]),
        (r#"a "b \" c" d"#, vec!["a", "d"]),
        ("a r#\"b \" c\"# d", vec!["a", "d"]),
        ("a br##\"b \"# c\"## d", vec!["a", "d"]),
        ("a b\"c\" d c\"e\" f", vec!["a", "d", "f"]),
        (r"a '\'' b '\\' c 'd' e", vec!["a", "b", "c", "e"]),
        ("a<'b> c: &'static d 'e: loop", vec!["a", "c", "d", "loop"]),
        ("a '\"' b '\"' c", vec!["a", "b", "c"]),
        ("r#type r", vec!["type", "r"]),
        ("1u8 0x1f 1.0 a", vec!["a"]),
        ("//! a\n/// b\nc", vec!["c"]),
        ("a 'é' b \"", vec!["a", "b"]),
    ] {
        assert_eq!(words(text), expected, "{text}");
    }
    let lines: Vec<usize> = tokens("a\n\"\n\"\nb /*\n*/ c").iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 2, 4, 5]);
}
