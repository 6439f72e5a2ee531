//! Sets of twin writes: each write of a device sets a key of its own, `w0` to `w255`, so that it can be told where it is.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use rehome::domain::{DeviceState, Document};

/// Writes of one device in one run at most.
pub const WRITES_MAX: usize = 256;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys([u64; WRITES_MAX / 64]);

impl Keys {
    pub fn one(write: usize) -> Self {
        let mut keys = Self::default();
        keys.0[write / 64] |= 1 << (write % 64);
        keys
    }

    /// The writes that a state shows.
    pub fn of(state: &DeviceState) -> Self {
        let twin = &state.twin;
        Self::in_document(&twin.tags)
            | Self::in_document(&twin.desired.properties)
            | Self::in_document(&twin.reported.properties)
    }

    fn in_document(document: &Document) -> Self {
        let writes = document.0.keys().filter_map(|key| key.strip_prefix('w')?.parse().ok());
        writes.filter(|write| *write < WRITES_MAX).fold(Self::default(), |keys, write| keys | Self::one(write))
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub fn holds(self, other: Self) -> bool {
        self & other == other
    }

    pub fn without(self, other: Self) -> Self {
        self & !other
    }

    pub fn count(self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

impl BitOr for Keys {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl BitAnd for Keys {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl Not for Keys {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

impl BitOrAssign for Keys {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = (0..WRITES_MAX).filter(|write| self.holds(Keys::one(*write)));
        f.debug_set().entries(writes.map(|write| format_args!("w{write}").to_string())).finish()
    }
}
