//! Whether a hub answers at all: up, taken down by an operator, or broken by a failed write.

use std::sync::{PoisonError, RwLock};

/// The gate of one hub.
#[derive(Debug)]
pub struct Gate(RwLock<Position>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    Up,
    Down,
    /// A write failed in a way that leaves open what is on the disk. Only opening the file again mends it.
    Broken(String),
}

impl Gate {
    pub fn new() -> Self {
        Self(RwLock::new(Position::Up))
    }

    /// Why the hub does not answer, when it does not.
    pub fn check(&self) -> Result<(), String> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Position::Up => Ok(()),
            Position::Down => Err("it was taken down".to_owned()),
            Position::Broken(why) => Err(format!("it must be opened again after a failed write: {why}")),
        }
    }

    pub fn take_down(&self) {
        self.turn(Position::Up, Position::Down);
    }

    pub fn bring_up(&self) {
        self.turn(Position::Down, Position::Up);
    }

    pub fn break_down(&self, why: String) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Position::Broken(why);
    }

    fn turn(&self, from: Position, to: Position) {
        let mut position = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *position == from {
            *position = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_not_mended_by_bringing_it_up() {
        let gate = Gate::new();
        gate.take_down();
        assert!(gate.check().is_err());
        gate.bring_up();
        assert_eq!(gate.check(), Ok(()));
        gate.break_down("disk".to_owned());
        gate.take_down();
        gate.bring_up();
        assert!(gate.check().unwrap_err().contains("disk"));
    }
}
