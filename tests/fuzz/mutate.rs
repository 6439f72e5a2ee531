//! Makes new inputs of old ones, in an order that a seed decides.

use rehome::ambient::{Entropy, SeededEntropy};

/// Bytes and numbers at which parsers are wrong most often.
const EDGES: [u8; 10] = [0x00, 0x01, 0x0f, 0x10, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff];
/// Pieces that mean something to one of the parsers.
const PIECES: [&[u8]; 20] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"-0.0",
    b"1e308",
    b"4503599627370496",
    b"$version",
    b".",
    b"\\u0000",
    b"\xc3\x28",
    b"\xf0\x9f\x98\x80",
    b"\x30\x82\xff\xff",
    b"\x30\x80",
    b"\x02\x01\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\n",
    b"=",
    b"&se=",
    b"%00",
];
/// Inputs that were taken and are built upon; the oldest of them make room.
const LEARNT_MAX: usize = 200;
/// Mutations on top of each other, at most.
const DEPTH_MAX: u64 = 6;

/// See the module's documentation.
pub struct Mutator {
    draws: SeededEntropy,
    kept: Vec<Vec<u8>>,
    learnt: Vec<Vec<u8>>,
}

impl Mutator {
    pub fn new(seed: u64, kept: Vec<Vec<u8>>) -> Self {
        Self { draws: SeededEntropy::new(seed), kept, learnt: Vec::new() }
    }

    /// Takes in what a target took, so that the next inputs go further from there.
    pub fn learn(&mut self, input: Vec<u8>) {
        if self.learnt.len() == LEARNT_MAX {
            self.learnt.remove(0);
        }
        self.learnt.push(input);
    }

    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick().to_vec();
        for _ in 0..=self.below(DEPTH_MAX) {
            self.mutate(&mut input);
        }
        input
    }

    fn below(&self, bound: u64) -> u64 {
        (self.draws.draw_u128() % u128::from(bound)) as u64
    }

    /// A place in `length`, the end included.
    fn place(&self, length: usize) -> usize {
        self.below(length as u64 + 1) as usize
    }

    fn pick(&self) -> &[u8] {
        let from = if self.learnt.is_empty() || self.below(2) == 0 { &self.kept } else { &self.learnt };
        &from[self.below(from.len() as u64) as usize]
    }

    fn mutate(&self, input: &mut Vec<u8>) {
        let (at, end) = (self.place(input.len()), self.place(input.len()));
        let (from, to) = (at.min(end), at.max(end));
        match self.below(10) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = EDGES[self.below(EDGES.len() as u64) as usize],
            2 if at < input.len() => input[at] = self.below(256) as u8,
            3 => {
                input.drain(from..to.min(from + 16));
            }
            4 => {
                let piece = PIECES[self.below(PIECES.len() as u64) as usize];
                input.splice(at..at, piece.iter().copied());
            }
            5 => {
                let piece = input[from..to.min(from + 64)].to_vec();
                input.splice(to..to, piece);
            }
            6 => input.truncate(at),
            7 => {
                let other = self.pick();
                let tail = &other[self.place(other.len())..];
                input.truncate(at);
                input.extend_from_slice(tail);
            }
            8 if from + 1 < to => input[from..to].reverse(),
            // A number in text, or in a length, one up or down.
            _ if at < input.len() => {
                input[at] = if self.below(2) == 0 { input[at].wrapping_add(1) } else { input[at].wrapping_sub(1) };
            }
            _ => input.push(self.below(256) as u8),
        }
    }
}

#[test]
fn a_seed_gives_one_sequence() {
    let sequence = |seed| {
        let mut mutator = Mutator::new(seed, vec![b"one".to_vec(), b"another".to_vec()]);
        (0..50).map(|_| mutator.next_input()).collect::<Vec<_>>()
    };
    assert_eq!(sequence(1), sequence(1));
    assert_ne!(sequence(1), sequence(2));
    assert!(sequence(1).iter().any(|input| input != b"one" && input != b"another"));
}
