//! Between messages and domain types. From the wire everything is checked and nothing panics; to the wire is total.

pub mod audit;
pub mod enrollment;
pub mod field;
pub mod hub;
pub mod json;
pub mod reconcile;
pub mod registration;
pub mod registration_admin;
pub mod registration_record;
pub mod symmetric_key;
pub mod tpm;
pub mod twin;
