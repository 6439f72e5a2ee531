//! Whether a file has grown large, for what is worth its cost only then.

use std::path::PathBuf;

/// Looks in between which a file cannot grow by much.
const LOOKS_EVERY: u32 = 32;

/// Looks at a file's size now and then; one that was large once stays so.
#[derive(Debug)]
pub struct FileSize {
    path: PathBuf,
    large_from: u64,
    is_large: bool,
    asked: u32,
}

impl FileSize {
    /// A file is large from so many bytes on.
    pub fn of(path: impl Into<PathBuf>, large_from: u64) -> Self {
        Self { path: path.into(), large_from, is_large: large_from == 0, asked: 0 }
    }

    /// Whether it is. One that cannot be looked at is not.
    pub fn is_large(&mut self) -> bool {
        if !self.is_large && self.asked.is_multiple_of(LOOKS_EVERY) {
            self.is_large = std::fs::metadata(&self.path).is_ok_and(|found| found.len() >= self.large_from);
        }
        self.asked = self.asked.wrapping_add(1);
        self.is_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_large_from_its_bound_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        for (large_from, expected) in [(0, true), (99, true), (100, true), (101, false), (u64::MAX, false)] {
            assert_eq!(FileSize::of(&path, large_from).is_large(), expected, "{large_from}");
        }
        assert!(!FileSize::of(folder.path().join("none"), 1).is_large());
        let mut growing = FileSize::of(&path, 200);
        assert!(!growing.is_large());
        std::fs::write(&path, [7; 200]).unwrap();
        let looked: Vec<bool> = (0..LOOKS_EVERY).map(|_| growing.is_large()).collect();
        assert_eq!(looked.iter().filter(|large| **large).count(), 1, "it is looked at now and then");
        std::fs::write(&path, []).unwrap();
        assert!((0..2 * LOOKS_EVERY).all(|_| growing.is_large()));
    }
}
