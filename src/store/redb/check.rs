//! Looks a closed store over: pages, records, and whether the indexes say what the records do.
//!
//! No set of rows is held in memory. The index rows that records call for are looked up one by one and counted; when all
//! are there and the table has no more than were counted, it has exactly those.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::open::{OpenFault, open_existing};
use super::reader::{Live, Snapshot, corrupt};
use super::records::Stored;
use super::tables::{
    IndexRow, LAST_ORDER_KEY, Rows, Table, enrollment_key, enrollment_rows, hub_key, number, registration_rows,
    storage_fault, table_fault, tracking_key,
};
use crate::domain::{AuditEntry, Enrollment, FeedToken, Hub, Order, Past, Registration};
use crate::moves::JournalLine;
use crate::store::{LastKnown, StoreFault, listing};

/// Findings that are told before the rest are only counted: a broken table has one for every row.
const FINDINGS_MAX: usize = 100;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table it is in.
    pub table: &'static str,
    /// One sentence.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.what)
    }
}

/// Checks a store that nobody has open. No findings: all is well.
pub fn check(path: &Path, cache_bytes: usize, repair: impl Fn(f64) + 'static) -> Result<Vec<Finding>, OpenFault> {
    let mut database = open_existing(path, cache_bytes, repair)?;
    let mut findings = Findings::default();
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => findings.add(Table::Meta, "pages had to be repaired"),
        Err(why) => findings.add(Table::Meta, format!("pages are damaged: {why}")),
    }
    if let Err(fault) = look_over(&database, &mut findings) {
        findings.add(Table::Meta, format!("the check could not go on: {fault}"));
    }
    Ok(findings.told())
}

#[derive(Default)]
struct Findings {
    found: Vec<Finding>,
    more: usize,
    /// Index rows that records call for.
    expected: BTreeMap<Table, u64>,
}

impl Findings {
    fn add(&mut self, table: Table, what: impl Into<String>) {
        if self.found.len() < FINDINGS_MAX {
            self.found.push(Finding { table: table.name(), what: what.into() });
        } else {
            self.more += 1;
        }
    }

    fn told(mut self) -> Vec<Finding> {
        if self.more > 0 {
            let what = format!("{} more findings", self.more);
            self.found.push(Finding { table: Table::Meta.name(), what });
        }
        self.found
    }

    /// Looks for rows that must be there.
    fn expect(&mut self, snapshot: &ReadTransaction, of: &str, rows: Vec<IndexRow>) -> Result<(), StoreFault> {
        for (table, key, value) in rows {
            *self.expected.entry(table).or_default() += 1;
            match snapshot.get(table, &key)? {
                Some(found) if found == value => {}
                Some(_) => self.add(table, format!("the row of {of} leads elsewhere")),
                None => self.add(table, format!("the row of {of} is missing")),
            }
        }
        Ok(())
    }

    /// Decodes a record and holds it against its key; what cannot be read is a finding.
    fn record<T: Stored>(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
        key_of: impl Fn(&T) -> Vec<u8>,
    ) -> Option<T> {
        match T::decode(value) {
            Ok(record) if key_of(&record) == key => Some(record),
            Ok(_) => {
                self.add(table, "a record stands under a key that is not its own");
                None
            }
            Err(fault) => {
                self.add(table, fault.to_string());
                None
            }
        }
    }
}

fn look_over(database: &Database, findings: &mut Findings) -> Result<(), StoreFault> {
    let snapshot = database.begin_read().map_err(|why| StoreFault::Broken(why.to_string()))?;
    let last = snapshot.get(Table::Meta, LAST_ORDER_KEY)?.as_deref().and_then(number);
    let last = Order(last.ok_or_else(|| corrupt("the last order is missing"))?);
    snapshot.scan(Table::Enrollments, &[], None, |key, value| {
        let record = findings.record(Table::Enrollments, key, value, |record: &Enrollment| enrollment_key(&record.id));
        if let Some(record) = record {
            findings.expect(&snapshot, &record.id.to_string(), enrollment_rows(&record))?;
        }
        Ok(true)
    })?;
    snapshot.scan(Table::Hubs, &[], None, |key, value| {
        findings.record(Table::Hubs, key, value, |record: &Hub| hub_key(&record.id));
        Ok(true)
    })?;
    snapshot.scan(Table::Registrations, &[], None, |key, value| {
        let own = |record: &Registration| record.id.folded().into_bytes();
        if let Some(record) = findings.record(Table::Registrations, key, value, own) {
            findings.expect(&snapshot, &format!("registration {}", record.id), registration_rows(&record))?;
        }
        Ok(true)
    })?;
    snapshot.scan(Table::Earlier, &[], None, |_, value| {
        if let Err(fault) = Past::decode(value) {
            findings.add(Table::Earlier, fault.to_string());
        }
        Ok(true)
    })?;
    snapshot.scan(Table::LastKnown, &[], None, |_, value| {
        if let Err(fault) = LastKnown::decode(value) {
            findings.add(Table::LastKnown, fault.to_string());
        }
        Ok(true)
    })?;
    snapshot.scan(Table::Feeds, &[], None, |_, value| {
        if let Err(fault) = FeedToken::decode(value) {
            findings.add(Table::Feeds, fault.to_string());
        }
        Ok(true)
    })?;
    look_over_journal(&snapshot, last, findings)?;
    look_over_audit(&snapshot, last, findings)?;
    // Without trust in the records there is nothing to hold the counts against.
    if findings.found.is_empty() {
        let indexes = [
            Table::Certificates,
            Table::Subjects,
            Table::KeyGroups,
            Table::ByHub,
            Table::ByGroup,
            Table::ByStatus,
            Table::DeviceIds,
            Table::Tracking,
        ];
        for table in indexes {
            let expected = findings.expected.get(&table).copied().unwrap_or_default();
            let open = snapshot.open_table(table.definition()).map_err(table_fault)?;
            let found = open.len().map_err(storage_fault)?;
            if found != expected {
                findings.add(table, format!("{found} rows where the records call for {expected}"));
            }
        }
        // The counters and the open moves are made of the tables at every open: making them tells whether they can be.
        if let Err(fault) = Live::of(database) {
            findings.add(Table::OpenMoves, fault.to_string());
        }
    }
    Ok(())
}

fn look_over_journal(snapshot: &ReadTransaction, last: Order, findings: &mut Findings) -> Result<(), StoreFault> {
    snapshot.scan(Table::Journal, &[], None, |key, value| {
        match (JournalLine::decode(value), key.split_at_checked(8)) {
            (Ok(line), Some((_, order))) if number(order) == Some(line.order.0) && line.order <= last => {}
            (Ok(line), _) => findings.add(Table::Journal, format!("line {} stands where it cannot", line.order)),
            (Err(fault), _) => findings.add(Table::Journal, fault.to_string()),
        }
        Ok(true)
    })?;
    snapshot.scan(Table::OpenMoves, &[], None, |key, _| {
        match number(key).map(|generation| snapshot.move_log(Order(generation))) {
            Some(Ok(Some(_))) => {}
            Some(Ok(None)) | None => findings.add(Table::OpenMoves, "an open move has no lines"),
            Some(Err(fault)) => findings.add(Table::OpenMoves, fault.to_string()),
        }
        Ok(true)
    })
}

fn look_over_audit(snapshot: &ReadTransaction, last: Order, findings: &mut Findings) -> Result<(), StoreFault> {
    snapshot.scan(Table::Audit, &[], None, |key, value| {
        match (AuditEntry::decode(value), listing::audit_position(key)) {
            (Ok(entry), Ok((order, place))) if order <= last => {
                if let Some(tracking) = entry.tracking {
                    // An id that was used twice leads to its newest entry, which expects the row.
                    let row = snapshot.get(Table::Tracking, &tracking_key(tracking))?;
                    if row.is_none_or(|leads_to| leads_to.as_slice() <= key) {
                        let of = format!("audit entry {order}/{place}");
                        findings.expect(
                            snapshot,
                            &of,
                            vec![(Table::Tracking, tracking_key(tracking), key.to_vec())],
                        )?;
                    }
                }
            }
            (Ok(_), _) => findings.add(Table::Audit, "an entry stands under a key that cannot be"),
            (Err(fault), _) => findings.add(Table::Audit, fault.to_string()),
        }
        Ok(true)
    })
}
