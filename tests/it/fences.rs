//! The fences between rooms: who may import whom, and what may be used in one place only (DESIGN.md section 4).
//!
//! The compiler does not hold these in one package, so this does: it reads every file of `src` and judges each path
//! that leaves its room, however it is written. `benches/` is exempt. Code under `#[cfg(test)]` may import any room and
//! build what it needs, but takes time and randomness from `ambient` like the rest.

mod judge;
mod lexer;
mod paths;
mod planted;
mod tables;

use std::path::{Path, PathBuf};

use judge::{Violation, judge, test_modules};

/// Every `.rs` file below a folder, as (path below it with `/`, text), sorted.
pub fn sources(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                found.push((below, std::fs::read_to_string(&path).expect("a readable source")));
            }
        }
    }
    found.sort();
    found
}

/// Judges a whole tree. What stands in a file that only tests load is judged as test code.
fn judge_tree(files: &[(String, String)]) -> Vec<Violation> {
    let of_tests: Vec<String> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let is_test = |path: &str| {
        let module = paths::module_of(path).join("/");
        of_tests.iter().any(|test| module == *test || module.starts_with(&format!("{test}/")))
    };
    files.iter().flat_map(|(path, text)| judge(path, text, is_test(path))).collect()
}

#[test]
fn every_room_keeps_its_fences() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.iter().any(|(path, _)| path == "lib.rs"), "nothing was read");
    let violations: Vec<String> = judge_tree(&files).iter().map(|violation| format!("src/{violation}")).collect();
    assert!(violations.is_empty(), "{} violations:\n\n{}\n", violations.len(), violations.join("\n\n"));
}
