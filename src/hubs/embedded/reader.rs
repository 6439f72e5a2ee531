//! Reads of a hub's file: each sees everything that was acknowledged before it began.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::records::{DepartedRow, RowFault, decode, decode_resident};
use super::tables;
use crate::domain::{Credential, DeviceId, IdFault};
use crate::hubs::entry::Tenant;
use crate::hubs::twins::{self, Presence};
use crate::hubs::{ResidentPage, Sighting};

/// Why a read came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    #[error("the file cannot be read: {0}")]
    Database(Box<redb::Error>),
    #[error("the row of {device} is not understood: {fault}")]
    Row { device: String, fault: RowFault },
    #[error("the key of a row is no device id: {0}")]
    Key(IdFault),
}

/// What was found of a device.
pub enum Found {
    Here(Box<Tenant>),
    Departed(Option<Credential>),
    Unknown,
}

/// Reads the file of one hub.
pub struct Reader {
    database: Arc<Database>,
}

impl Reader {
    pub fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Devices that are here.
    pub fn count(&self) -> Result<u64, ReadFault> {
        Ok(self.database.begin_read()?.open_table(tables::RESIDENTS)?.len()?)
    }

    pub fn tenant(&self, device: &DeviceId) -> Result<Option<Tenant>, ReadFault> {
        match self.find(device)? {
            Found::Here(tenant) => Ok(Some(*tenant)),
            Found::Departed(_) | Found::Unknown => Ok(None),
        }
    }

    pub fn find(&self, device: &DeviceId) -> Result<Found, ReadFault> {
        let unread = |fault| ReadFault::Row { device: device.to_string(), fault };
        let transaction = self.database.begin_read()?;
        if let Some(row) = transaction.open_table(tables::RESIDENTS)?.get(device.as_str())? {
            let tenant = decode_resident(row.value()).and_then(|row| row.tenant()).map_err(unread)?;
            return Ok(Found::Here(Box::new(tenant)));
        }
        match transaction.open_table(tables::DEPARTED)?.get(device.as_str())? {
            Some(row) => {
                let row = decode::<DepartedRow>(row.value()).map_err(unread)?;
                Ok(Found::Departed(row.credential()))
            }
            None => Ok(Found::Unknown),
        }
    }

    /// At most `max` devices whose last change is after `position`, the place of the last one, and whether there are more.
    pub fn changes(&self, position: u64, max: u32) -> Result<(Vec<Sighting>, u64, bool), ReadFault> {
        let transaction = self.database.begin_read()?;
        let residents = transaction.open_table(tables::RESIDENTS)?;
        let changes = transaction.open_table(tables::CHANGES)?;
        let mut range = changes.range((Bound::Excluded(position), Bound::Unbounded))?;
        let (mut rows, mut position) = (Vec::new(), position);
        for row in range.by_ref().take(usize::try_from(max).unwrap_or(usize::MAX)) {
            let (place, device) = row?;
            position = place.value();
            let device = DeviceId::parse(device.value()).map_err(ReadFault::Key)?;
            let Some(row) = residents.get(device.as_str())? else { continue };
            match decode_resident(row.value()).and_then(|row| row.tenant()) {
                Ok(tenant) => rows.push(twins::sighting(&device, &tenant)),
                // One device's trouble: the others behind it must not wait for it.
                Err(fault) => tracing::error!(%device, %fault, "a device's row is not understood and is left out"),
            }
        }
        let more = range.next().transpose()?.is_some();
        Ok((rows, position, more))
    }

    /// At most `size` devices by id, after `after`.
    pub fn page(&self, size: u32, after: Option<&DeviceId>) -> Result<ResidentPage, ReadFault> {
        let transaction = self.database.begin_read()?;
        let residents = transaction.open_table(tables::RESIDENTS)?;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let mut range = residents.range::<&str>((start, Bound::Unbounded))?;
        let mut rows = Vec::new();
        for row in range.by_ref().take(usize::try_from(size).unwrap_or(usize::MAX)) {
            let (key, row) = row?;
            let device = DeviceId::parse(key.value()).map_err(ReadFault::Key)?;
            let tenant = decode_resident(row.value())
                .and_then(|row| row.tenant())
                .map_err(|fault| ReadFault::Row { device: device.to_string(), fault })?;
            rows.push(twins::resident(&device, &tenant));
        }
        let more = range.next().transpose()?.is_some();
        Ok(twins::page(rows, more))
    }
}

impl<'f> From<&'f Found> for Presence<'f> {
    fn from(found: &'f Found) -> Self {
        match found {
            Found::Here(tenant) => Presence::Here(tenant),
            Found::Departed(credential) => Presence::Departed(credential.as_ref()),
            Found::Unknown => Presence::Unknown,
        }
    }
}

impl<E: Into<redb::Error>> From<E> for ReadFault {
    fn from(fault: E) -> Self {
        ReadFault::Database(Box::new(fault.into()))
    }
}
