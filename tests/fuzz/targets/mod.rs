//! The targets: each takes any bytes, and says whether the parser behind it took them. What is taken must keep what is
//! promised of it; what breaks a promise panics.

mod records;
mod texts;
pub mod tpm;
mod twins;
mod wire;
mod x509;

pub use records::{hub_row, store_record};
pub use texts::{configuration, page_token, webhook_answer, words};
pub use tpm::{sas_token, tpm_answer, tpm_blob, tpm_keys};
pub use twins::twin_patch;
pub use wire::{wire_from_devices, wire_from_operators, wire_to_clients};
pub use x509::{x509_certificate, x509_chain};

/// Pieces of an input, each behind two bytes of its length.
fn split(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        pieces.push(rest[..length].to_vec());
        input = &rest[length..];
    }
    pieces
}

pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is also its folder of kept inputs and its wrapper.
#[allow(dead_code, reason = "a wrapper runs one target only")]
pub const ALL: &[(&str, Target)] = &[
    ("x509_certificate", x509_certificate),
    ("x509_chain", x509_chain),
    ("tpm_keys", tpm_keys),
    ("tpm_blob", tpm_blob),
    ("tpm_answer", tpm_answer),
    ("sas_token", sas_token),
    ("twin_patch", twin_patch),
    ("words", words),
    ("configuration", configuration),
    ("webhook_answer", webhook_answer),
    ("page_token", page_token),
    ("wire_from_devices", wire_from_devices),
    ("wire_from_operators", wire_from_operators),
    ("wire_to_clients", wire_to_clients),
    ("store_record", store_record),
    ("hub_row", hub_row),
];
