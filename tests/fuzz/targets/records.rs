//! What stands in the files of the store and of a hub. The first byte says which kind of record it is.

use rehome::hubs::embedded::reread_row;
use rehome::store::redb::reread_record;

/// A record of the store: what can be read is written and read again as the same.
pub fn store_record(input: &[u8]) -> bool {
    reread(input, reread_record)
}

/// A row of a hub's file.
pub fn hub_row(input: &[u8]) -> bool {
    reread(input, reread_row)
}

fn reread(input: &[u8], reread: fn(u8, &[u8]) -> Option<bool>) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match reread(*kind, bytes) {
        None => false,
        Some(same) => {
            assert!(same, "a record of kind {kind} is another one when it is written and read again");
            true
        }
    }
}
