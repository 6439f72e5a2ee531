//! A door for tests from outside: any bytes as a row of any kind, read, written and read again.

use super::{DepartedRow, ResidentRow, decode, decode_resident, decode_state, encode, encode_resident, encode_state};
use crate::domain::{
    Capabilities, Credential, DeviceState, Document, HubRefusal, HubStatus, InitialState, Order, Thumbprint, Timestamp,
    Twin, TwinPatch,
};
use crate::hubs::entry::{EffectKind, LastCall, Outcome, Phase, Tenant};

/// Whether what the row means is the same once it was written; `None` when the bytes are no row of that kind.
pub fn reread_row(kind: u8, bytes: &[u8]) -> Option<bool> {
    match kind {
        0 => {
            let row = decode_resident(bytes).ok()?;
            // A replaced state has a row of its own.
            let replaced = row.has_replaced().then(state);
            let (changed, entry) = (row.changed(), row.entry(replaced.clone()).ok()?);
            let written = ResidentRow::new(entry.highest, &entry.last, entry.tenant.as_ref()?).at(changed);
            let again = encode_resident(&written).and_then(|bytes| decode_resident(&bytes));
            Some(again.is_ok_and(|again| again.changed() == changed && again.entry(replaced) == Ok(entry)))
        }
        1 => {
            let entry = decode::<DepartedRow>(bytes).ok()?.entry().ok()?;
            let written = DepartedRow::new(entry.highest, &entry.last, entry.departed.as_ref());
            let again = encode(&written).and_then(|bytes| decode::<DepartedRow>(&bytes)?.entry());
            Some(again == Ok(entry))
        }
        2 => {
            let state = decode_state(bytes).ok()?;
            Some(encode_state(&state).and_then(|bytes| decode_state(&bytes)) == Ok(state))
        }
        _ => None,
    }
}

/// Rows of every kind, as this build writes them.
pub fn row_samples() -> Vec<(u8, Vec<u8>)> {
    let credential = Credential::x509([Thumbprint([1; 32]), Thumbprint([2; 32])]);
    let last = |effect, outcome| LastCall { effect, outcome };
    let tenant = |phase| Tenant { generation: Order(7), phase, credential: credential.clone(), state: state() };
    let residents = [
        (Phase::Staged, last(EffectKind::Create, Outcome::Done)),
        (Phase::Open, last(EffectKind::ReplaceTwin, Outcome::Replaced(Box::new(state())))),
        (Phase::Sealed, last(EffectKind::Seal, Outcome::Sealed)),
        (Phase::Open, last(EffectKind::Create, Outcome::Refused(HubRefusal::Occupied))),
    ];
    let residents = residents.map(|(phase, last)| {
        let row = ResidentRow::new(Order(9), &last, &tenant(phase)).at(3);
        (0, encode_resident(&row))
    });
    let left = last(EffectKind::Delete, Outcome::Done);
    let departed =
        [None, Some(&credential)].map(|left_with| (1, encode(&DepartedRow::new(Order(9), &left, left_with))));
    let rows = residents.into_iter().chain(departed).chain([(2, encode_state(&state()))]);
    rows.filter_map(|(kind, bytes)| Some((kind, bytes.ok()?))).collect()
}

fn state() -> DeviceState {
    let document = |text: &str| Document::from_text(text).unwrap_or_default();
    let desired = document(r#"{"net":{"apn":"a","list":[1,{"b":2.5}]},"rate":5}"#);
    let twin = Twin::initial(&InitialState { desired, ..InitialState::default() }, Timestamp(1_000));
    let patch = TwinPatch {
        desired: Some(document(r#"{"net":{"mtu":9}}"#)),
        reported: Some(document(r#"{"seen":"ü"}"#)),
        tags: Some(document(r#"{"site":"x"}"#)),
    };
    DeviceState {
        twin: twin.patched(&patch, Timestamp(2_000)).unwrap_or(twin),
        capabilities: Capabilities { iot_edge: true },
        status: HubStatus::Disabled { reason: "lost".to_owned() },
    }
}
