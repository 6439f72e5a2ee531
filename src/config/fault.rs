//! Why a configuration is refused: one readable line that names the source, the key and what would be right.

use std::path::PathBuf;

/// A configuration that the service will not start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    #[error("cannot read the configuration file {}", .file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        error: std::io::Error,
    },
    #[error("{file}, line {line}: {message}")]
    Syntax { file: String, line: usize, message: String },
    #[error("unknown key {key} in {place}{}", .hint.as_ref().map_or_else(String::new, |known| format!(", did you mean {known}?")))]
    UnknownKey { place: String, key: String, hint: Option<String> },
    #[error("{key} in {place} {problem}")]
    Value { place: String, key: String, problem: String },
    #[error("the environment variable {name} is not UTF-8")]
    NotText { name: String },
    #[error("{0}")]
    Together(String),
    #[error("the table of settings does not fit the configuration: {0}")]
    Table(String),
}
