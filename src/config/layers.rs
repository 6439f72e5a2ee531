//! Defaults, file, environment and flags: each a layer of known settings, the later one wins.

use std::collections::BTreeMap;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::fault::ConfigFault;
use super::setting::{SETTINGS, Setting};
use super::{VARIABLE_PREFIX, VARIABLES_OF_TESTS, VARIABLES_OF_TESTS_PREFIX};

/// Values from one source. Everything in it is a known setting that holds what it may.
#[derive(Debug)]
pub(super) struct Layer {
    source: String,
    values: Dict,
}

impl Layer {
    pub(super) fn defaults() -> Result<Self, ConfigFault> {
        let mut layer = Layer::empty("the defaults");
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            layer.take_text(setting.key, setting, setting.default)?;
        }
        Ok(layer)
    }

    /// Reads TOML. `name` is the file's name for messages.
    pub(super) fn file(name: &str, text: &str) -> Result<Self, ConfigFault> {
        let table: Dict = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            ConfigFault::Syntax { file: name.to_owned(), line, message }
        })?;
        let mut layer = Layer::empty(name);
        for (key, value) in flattened(&table) {
            let Some(setting) = Setting::find(&key) else {
                return Err(unknown(name, &key));
            };
            setting.check(&value).map_err(|problem| layer.refused(&key, problem))?;
            layer.put(setting, value);
        }
        Ok(layer)
    }

    /// Takes every variable that starts with `REHOME_`. An empty one counts as not set.
    pub(super) fn environment(variables: &BTreeMap<String, String>) -> Result<Self, ConfigFault> {
        let mut layer = Layer::empty("the environment");
        let ours = variables.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX));
        for (name, text) in ours {
            if VARIABLES_OF_TESTS.contains(&name.as_str()) || name.starts_with(VARIABLES_OF_TESTS_PREFIX) {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) else {
                return Err(unknown(&layer.source, name));
            };
            if !text.is_empty() {
                layer.take_text(name, setting, text)?;
            }
        }
        Ok(layer)
    }

    /// Takes flags, as key and text.
    pub(super) fn flags(values: &[(String, String)]) -> Result<Self, ConfigFault> {
        let mut layer = Layer::empty("the command line");
        for (key, text) in values {
            let Some(setting) = Setting::find(key) else {
                return Err(unknown(&layer.source, key));
            };
            layer.take_text(key, setting, text)?;
        }
        Ok(layer)
    }

    fn empty(source: &str) -> Self {
        Self { source: source.to_owned(), values: Dict::new() }
    }

    fn take_text(&mut self, name: &str, setting: &Setting, text: &str) -> Result<(), ConfigFault> {
        let value = setting.read_text(text).map_err(|problem| self.refused(name, problem))?;
        self.put(setting, value);
        Ok(())
    }

    fn refused(&self, name: &str, problem: String) -> ConfigFault {
        ConfigFault::Value { place: self.source.clone(), key: name.to_owned(), problem }
    }

    fn put(&mut self, setting: &Setting, value: Value) {
        match setting.key.split_once('.') {
            None => {
                self.values.insert(setting.key.to_owned(), value);
            }
            Some((section, key)) => {
                let below = self.values.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                if let Value::Dict(_, below) = below {
                    below.insert(key.to_owned(), value);
                }
            }
        }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// Lays the layers on each other, the last one on top.
pub(super) fn merged(layers: impl IntoIterator<Item = Layer>) -> Figment {
    layers.into_iter().fold(Figment::new(), |below, layer| below.merge(layer))
}

/// The values of a table under dotted keys. A table that is a known section is entered; one that is not, is a value.
fn flattened(table: &Dict) -> Vec<(String, Value)> {
    let mut values = Vec::new();
    for (key, value) in table {
        let prefix = format!("{key}.");
        let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&prefix));
        match value {
            Value::Dict(_, below) if is_section => {
                values.extend(below.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())));
            }
            other => values.push((key.clone(), other.clone())),
        }
    }
    values
}

fn unknown(source: &str, key: &str) -> ConfigFault {
    ConfigFault::UnknownKey { place: source.to_owned(), key: key.to_owned(), hint: nearest(key) }
}

/// The setting whose key (or variable) is at most three edits away.
fn nearest(key: &str) -> Option<String> {
    let is_variable = key.starts_with(VARIABLE_PREFIX);
    SETTINGS
        .iter()
        .map(|setting| if is_variable { setting.variable() } else { setting.key.to_owned() })
        .map(|known| (edits(key, &known), known))
        .min()
        .filter(|(edits, _)| *edits <= 3)
        .map(|(_, known)| known)
}

/// Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
