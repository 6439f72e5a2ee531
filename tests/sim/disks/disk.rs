//! A disk in memory that remembers what was done to it, and stops obeying when it is told to.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use rehome::ambient::{Entropy, SeededEntropy};

/// One thing done to a file.
#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
    Sync,
}

#[derive(Debug, Default)]
struct Platters {
    /// Before the first operation.
    start: Vec<u8>,
    /// As whoever uses the file sees it.
    now: Vec<u8>,
    ops: Vec<Op>,
    /// Operations that still work; `None` is all.
    left: Option<u64>,
    failed: bool,
}

impl Platters {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            None => Ok(()),
            Some(0) => {
                self.failed = true;
                Err(io::Error::other("the disk is gone"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

/// See the module's documentation. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platters>>);

/// What of the writes since the last sync arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// All: the process died, the machine did not.
    All,
    Nothing,
    /// Those that this seed draws, each as likely as not.
    Some(u64),
}

impl Disk {
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platters { start: bytes.clone(), now: bytes, ..Platters::default() })))
    }

    /// Operations so far.
    pub fn done(&self) -> usize {
        self.0.lock().unwrap().ops.len()
    }

    /// From now on only so many operations work.
    pub fn fail_after(&self, operations: u64) {
        self.0.lock().unwrap().left = Some(operations);
    }

    /// Whether an operation was refused.
    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    /// What is on the disk when the power goes after the first `ops` operations.
    pub fn image(&self, ops: usize, arrived: Arrived) -> Vec<u8> {
        let platters = self.0.lock().unwrap();
        let draws = match arrived {
            Arrived::All | Arrived::Nothing => None,
            Arrived::Some(seed) => Some(SeededEntropy::new(seed)),
        };
        let synced = platters.ops[..ops].iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |place| place + 1);
        let mut image = platters.start.clone();
        for (place, op) in platters.ops[..ops].iter().enumerate() {
            let arrives = place < synced
                || match (arrived, &draws) {
                    (Arrived::All, _) => true,
                    (Arrived::Nothing, _) | (Arrived::Some(_), None) => false,
                    (Arrived::Some(_), Some(draws)) => draws.draw_u128() % 2 == 0,
                };
            match op {
                Op::Write(offset, bytes) if arrives => {
                    let end = (offset + bytes.len()).min(image.len());
                    if *offset < end {
                        image[*offset..end].copy_from_slice(&bytes[..end - offset]);
                    }
                }
                // A length is not among what may be lost: the file system keeps it in its own journal.
                Op::SetLen(len) => image.resize(*len, 0),
                Op::Write(..) | Op::Sync => {}
            }
        }
        image
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.0.lock().unwrap();
        let offset = offset as usize;
        let found = platters.now.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::other("beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.now.resize(len as usize, 0);
        platters.ops.push(Op::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.ops.push(Op::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        let (offset, end) = (offset as usize, offset as usize + data.len());
        platters.now.get_mut(offset..end).ok_or_else(|| io::Error::other("beyond the end"))?.copy_from_slice(data);
        platters.ops.push(Op::Write(offset, data.to_vec()));
        Ok(())
    }
}

#[test]
fn an_image_is_what_was_synced_and_what_else_arrived() {
    let disk = Disk::holding(vec![0; 4]);
    disk.write(0, &[1]).unwrap();
    disk.sync_data().unwrap();
    disk.write(1, &[2]).unwrap();
    disk.write(2, &[3]).unwrap();
    assert_eq!(disk.image(4, Arrived::All), [1, 2, 3, 0]);
    assert_eq!(disk.image(4, Arrived::Nothing), [1, 0, 0, 0]);
    assert_eq!(disk.image(1, Arrived::Nothing), [0; 4]);
    let torn: Vec<_> = (0..64).map(|seed| disk.image(4, Arrived::Some(seed))).collect();
    for wanted in [[1, 0, 0, 0], [1, 2, 0, 0], [1, 0, 3, 0], [1, 2, 3, 0]] {
        assert!(torn.iter().any(|image| *image == wanted), "{wanted:?}");
    }
    disk.fail_after(1);
    disk.sync_data().unwrap();
    assert!(disk.sync_data().is_err() && disk.has_failed());
}
