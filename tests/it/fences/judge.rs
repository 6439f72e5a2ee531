//! Holds what a file says against the tables.

use std::fmt;

use super::paths::{Found, Leads, module_of, survey};
use super::tables::{CONFINED, Confinement, Import, May, PASSED_ON, Part, ROOMS, Row, Use};

/// A broken rule, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub file: String,
    pub line: usize,
    pub rule: String,
    pub advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    {}", self.file, self.line, self.rule, self.advice)
    }
}

/// The modules that a file loads for tests only, as `room/module`.
pub fn test_modules(file: &str, text: &str) -> Vec<String> {
    survey(file, text, false).test_modules.iter().map(|module| module.join("/")).collect()
}

/// Judges one file; `file` is its path below `src`.
pub fn judge(file: &str, text: &str, whole_file_in_test: bool) -> Vec<Violation> {
    let module = module_of(file);
    let room = match (file, module.first()) {
        ("lib.rs", _) => "lib",
        ("main.rs", _) => "main",
        (_, Some(room)) => room.as_str(),
        (_, None) => file,
    };
    let Some(row) = ROOMS.iter().find(|row| row.room == room) else {
        return vec![Violation {
            file: file.to_owned(),
            line: 1,
            rule: format!("`{room}` is not a room of the import table"),
            advice: "add a row to ROOMS in tests/it/fences/tables.rs and to DESIGN's table, or move the file into a \
                     room"
                .to_owned(),
        }];
    };
    let place = Place { file, module: &module, row };
    let mut violations: Vec<Violation> = survey(file, text, whole_file_in_test)
        .found
        .iter()
        .flat_map(|found| place.import_violation(found).into_iter().chain(place.confinement_violations(found)))
        .collect();
    violations.sort();
    violations.dedup();
    violations
}

struct Place<'a> {
    file: &'a str,
    module: &'a [String],
    row: &'a Row,
}

impl Place<'_> {
    fn violation(&self, found: &Found, rule: String, advice: String) -> Violation {
        Violation { file: self.file.to_owned(), line: found.line, rule, advice }
    }

    fn import_violation(&self, found: &Found) -> Option<Violation> {
        let Leads::Inside(target) = &found.leads else { return None };
        let own = self.row.room;
        if found.in_test || own == "lib" {
            return None;
        }
        let Some(room) = target.first() else {
            return Some(self.violation(
                found,
                format!("`{own}` names the whole crate"),
                "name the room: a path through the root hides which one is used".to_owned(),
            ));
        };
        if room == own {
            return None;
        }
        if !ROOMS.iter().any(|row| row.room == room) {
            return Some(self.violation(
                found,
                format!("`{own}` uses `crate::{room}`, which is not a room of the import table"),
                "add a row to ROOMS in tests/it/fences/tables.rs and to DESIGN's table".to_owned(),
            ));
        }
        if !self.may_import(target) {
            return Some(self.violation(
                found,
                format!("`{own}` may not use `{}`", target.join("::")),
                format!("`{own}` may import {}; pass the value in, or move the code", shown(self.row)),
            ));
        }
        let is_passed_on = room == "domain" || PASSED_ON.contains(&(own, room.as_str()));
        if found.republished && !is_passed_on {
            return Some(self.violation(
                found,
                format!("`{own}` re-exports `{}` of another room", target.join("::")),
                "let users import it from where it lives, so that the import table sees them".to_owned(),
            ));
        }
        None
    }

    fn may_import(&self, target: &[String]) -> bool {
        let room = target[0].as_str();
        match self.row.may {
            May::AllBut(rooms) => !rooms.contains(&room) && room != "main" && room != "lib",
            May::OnlyItem { item, whole } => whole.contains(&room) || target[1..].iter().any(|segment| segment == item),
            May::These(imports) => imports.iter().any(|import| self.admits(import, target)),
        }
    }

    fn admits(&self, import: &Import, target: &[String]) -> bool {
        let part_fits = match import.part {
            Part::All => true,
            Part::Item(item) => target[1..].iter().any(|segment| segment == item),
            Part::Module(module) => target.get(1).is_some_and(|segment| segment == module),
        };
        import.room == target[0] && part_fits && starts_with(self.module, import.from)
    }

    fn confinement_violations(&self, found: &Found) -> Vec<Violation> {
        CONFINED
            .iter()
            .filter(|confined| confined.in_tests || !found.in_test)
            .filter(|confined| confined.uses.iter().any(|one| is_used(one, &found.leads)))
            .filter(|confined| !confined.places.iter().any(|place| starts_with(self.module, place)))
            .map(|confined| {
                let rule = format!("{} outside {}", confined.what, places(confined));
                self.violation(found, rule, confined.instead.to_owned())
            })
            .collect()
    }
}

fn is_used(one: &Use, leads: &Leads) -> bool {
    match (one, leads) {
        (Use::Starts(start), Leads::Outside(path)) => starts_with(path, start),
        (Use::Holds(part), Leads::Outside(path)) => path.windows(part.len()).any(|window| starts_with(window, part)),
        (Use::Macro(name), Leads::Macro(called)) => name == called,
        (Use::Attribute { names, word }, Leads::Attribute(name, words)) => {
            names.contains(&name.as_str()) && words.iter().any(|found| found == word)
        }
        (Use::Starts(_) | Use::Holds(_), Leads::Inside(_) | Leads::Macro(_) | Leads::Attribute(..))
        | (Use::Macro(_), Leads::Inside(_) | Leads::Outside(_) | Leads::Attribute(..))
        | (Use::Attribute { .. }, Leads::Inside(_) | Leads::Outside(_) | Leads::Macro(_)) => false,
    }
}

fn starts_with(path: &[String], start: &[&str]) -> bool {
    path.len() >= start.len() && path.iter().zip(start).all(|(segment, expected)| segment == expected)
}

fn places(confined: &Confinement) -> String {
    if confined.places.is_empty() {
        return "anything".to_owned();
    }
    confined.places.iter().map(|place| format!("`{}`", place.join("::"))).collect::<Vec<_>>().join(", ")
}

fn shown(row: &Row) -> String {
    match row.may {
        May::AllBut(rooms) => format!("every room but {}", rooms.join(", ")),
        May::OnlyItem { item, whole } => format!("{} and `{item}` of any room", whole.join(", ")),
        May::These([]) => "nothing of ours".to_owned(),
        May::These(imports) => imports
            .iter()
            .map(|import| match import.part {
                Part::All if import.from.is_empty() => import.room.to_owned(),
                Part::All => format!("{} (in {} only)", import.room, import.from.join("::")),
                Part::Item(part) | Part::Module(part) => format!("{}::{part}", import.room),
            })
            .collect::<Vec<_>>()
            .join(", "),
    }
}
