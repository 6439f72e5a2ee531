//! Bytes with their size in front (`TPM2B`), written and read. For what holds secrets or is not a structure of its own;
//! everything else is parsed by `tpm2_protocol`.

use super::crypto::Refused;

/// A big-endian size of two bytes, then the bytes.
pub(super) fn sized(bytes: &[u8]) -> Result<Vec<u8>, Refused> {
    let size = u16::try_from(bytes.len()).map_err(|_| Refused)?;
    Ok([&size.to_be_bytes(), bytes].concat())
}

/// Reads from the front; everything that is not there is refused.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn number(&mut self) -> Result<u16, Refused> {
        match self.take(2)? {
            [high, low] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(Refused),
        }
    }

    /// The content of what has its size in front.
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Refused> {
        let size = self.number()?;
        self.take(usize::from(size))
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn end(self) -> Result<(), Refused> {
        if self.0.is_empty() { Ok(()) } else { Err(Refused) }
    }
}
