//! The whole table of phase, effect and order, and what must hold for any sequence of calls.

use proptest::prelude::*;

use super::*;
use crate::domain::{Capabilities, DeviceId, HubId, Thumbprint, Twin};

const NOW: Timestamp = Timestamp(1_000);
const LATER: Timestamp = Timestamp(2_000);

fn document(text: &str) -> Document {
    Document::from_text(text).unwrap()
}

fn initial(desired: &str) -> InitialState {
    InitialState { tags: Document::default(), desired: document(desired), capabilities: Capabilities::default() }
}

fn state(desired: &str) -> DeviceState {
    DeviceState {
        twin: Twin::initial(&initial(desired), NOW),
        capabilities: Capabilities::default(),
        status: HubStatus::Enabled,
    }
}

fn credential(number: u8) -> Credential {
    Credential::x509([Thumbprint([number; 32])])
}

fn effect(kind: EffectKind) -> HubEffect {
    match kind {
        EffectKind::Create => HubEffect::Create(Box::new(NewDevice {
            generation: Order(1),
            credential: credential(1),
            state: state(r#"{"made":1}"#),
        })),
        EffectKind::Activate => HubEffect::Activate,
        EffectKind::Seal => HubEffect::Seal,
        EffectKind::Unseal => HubEffect::Unseal,
        EffectKind::Delete => HubEffect::Delete,
        EffectKind::ReplaceTwin => HubEffect::ReplaceTwin(Box::new(initial(r#"{"reset":1}"#))),
        EffectKind::UpdateCredential => HubEffect::UpdateCredential(credential(2)),
    }
}

const KINDS: [EffectKind; 7] = [
    EffectKind::Create,
    EffectKind::Activate,
    EffectKind::Seal,
    EffectKind::Unseal,
    EffectKind::Delete,
    EffectKind::ReplaceTwin,
    EffectKind::UpdateCredential,
];

fn call(order: u64, effect: HubEffect) -> HubCall {
    HubCall { hub: HubId::parse("h").unwrap(), device: DeviceId::parse("d").unwrap(), order: Order(order), effect }
}

/// What is kept after these calls, whatever was answered.
fn after(calls: &[(u64, EffectKind)]) -> Option<Entry> {
    calls.iter().fold(None, |entry, (order, kind)| {
        let verdict = obey(entry.as_ref(), &call(*order, effect(*kind)), NOW);
        verdict.entry.or(entry)
    })
}

fn phase_word(entry: Option<&Entry>) -> &'static str {
    match entry {
        None => "unknown",
        Some(entry) => match entry.tenant.as_ref().map(|tenant| tenant.phase) {
            None => "gone",
            Some(Phase::Staged) => "staged",
            Some(Phase::Open) => "open",
            Some(Phase::Sealed) => "sealed",
        },
    }
}

fn answer_word(answer: &Result<HubAnswer, HubRefusal>) -> &'static str {
    match answer {
        Ok(HubAnswer::Done) => "done",
        Ok(HubAnswer::State(_)) => "state",
        Err(refusal) => refusal.as_str(),
    }
}

const TABLE: &str = "\
from     effect             lower            equal            higher
unknown  create             -                -                done, staged
unknown  activate           -                -                no_such_device, gone
unknown  seal               -                -                no_such_device, gone
unknown  unseal             -                -                no_such_device, gone
unknown  delete             -                -                done, gone
unknown  replace_twin       -                -                no_such_device, gone
unknown  update_credential  -                -                no_such_device, gone
gone     create             stale            order_reused     done, staged
gone     activate           stale            order_reused     no_such_device, gone
gone     seal               stale            no_such_device   no_such_device, gone
gone     unseal             stale            order_reused     no_such_device, gone
gone     delete             stale            done             done, gone
gone     replace_twin       stale            order_reused     no_such_device, gone
gone     update_credential  stale            order_reused     no_such_device, gone
staged   create             stale            done             occupied, staged
staged   activate           stale            order_reused     done, open
staged   seal               stale            order_reused     state, sealed
staged   unseal             stale            order_reused     done, open
staged   delete             stale            order_reused     done, gone
staged   replace_twin       stale            order_reused     state, staged
staged   update_credential  stale            order_reused     done, staged
open     create             stale            order_reused     occupied, open
open     activate           stale            done             not_staged, open
open     seal               stale            order_reused     state, sealed
open     unseal             stale            order_reused     done, open
open     delete             stale            order_reused     done, gone
open     replace_twin       stale            order_reused     state, open
open     update_credential  stale            order_reused     done, open
sealed   create             stale            order_reused     occupied, sealed
sealed   activate           stale            order_reused     not_staged, sealed
sealed   seal               stale            state            state, sealed
sealed   unseal             stale            order_reused     done, open
sealed   delete             stale            done, gone       done, gone
sealed   replace_twin       stale            order_reused     state, sealed
sealed   update_credential  stale            order_reused     done, sealed
";

#[test]
fn the_table_of_phases_effects_and_orders() {
    use EffectKind::*;
    let mut table = format!("{:<8} {:<18} {:<16} {:<16} {}\n", "from", "effect", "lower", "equal", "higher");
    for calls in [
        &[][..],
        &[(4, Create), (10, Delete)],
        &[(10, Create)],
        &[(4, Create), (10, Activate)],
        &[(4, Create), (5, Activate), (10, Seal)],
    ] {
        let entry = after(calls);
        for kind in KINDS {
            let cell = |order: u64| {
                let verdict = obey(entry.as_ref(), &call(order, effect(kind)), LATER);
                match &verdict.entry {
                    Some(next) => {
                        assert_eq!(next.highest, Order(order), "whatever is kept anew carries the call's order");
                        format!("{}, {}", answer_word(&verdict.answer), phase_word(verdict.entry.as_ref()))
                    }
                    None => answer_word(&verdict.answer).to_owned(),
                }
            };
            let (lower, equal) = match &entry {
                None => ("-".to_owned(), "-".to_owned()),
                Some(_) => (cell(3), cell(10)),
            };
            let from = phase_word(entry.as_ref());
            let effect = effect(kind);
            table += &format!("{from:<8} {:<18} {lower:<16} {equal:<16} {}\n", effect.as_str(), cell(15));
        }
    }
    assert_eq!(table, TABLE, "\n{table}");
}

#[test]
fn a_discard_removes_what_its_generation_brought_and_nothing_else() {
    use EffectKind::{Activate, Create};
    for (generation, calls, phase) in [
        (1, &[][..], "nothing"),
        (1, &[(4, Create)], "gone"),
        (1, &[(4, Create), (5, Activate)], "gone"),
        (2, &[(4, Create)], "staged"),
        (2, &[(4, Create), (5, Activate)], "open"),
    ] {
        let entry = after(calls);
        let verdict = obey(entry.as_ref(), &call(9, HubEffect::Discard(Order(generation))), LATER);
        assert_eq!(verdict.answer, Ok(HubAnswer::Done));
        let kept = verdict.entry.unwrap();
        assert_eq!(kept.highest, Order(9), "a late create is stale in any case");
        let expected = if phase == "nothing" { "gone" } else { phase };
        assert_eq!(phase_word(Some(&kept)), expected, "{calls:?} by {generation}");
    }
}

/// A move may be under way that has made what is staged: it makes it again, is answered as before, and opens it.
#[test]
fn what_a_restored_hub_closes_is_what_is_open() {
    use EffectKind::{Activate, Create, Delete, Seal};
    for (calls, before, after_it) in [
        (vec![], "unknown", "unknown"),
        (vec![(2, Create), (3, Delete)], "gone", "gone"),
        (vec![(2, Create)], "staged", "staged"),
        (vec![(2, Create), (3, Activate)], "open", "sealed"),
        (vec![(2, Create), (3, Activate), (4, Seal)], "sealed", "sealed"),
    ] {
        let entry = after(&calls);
        assert_eq!(phase_word(entry.as_ref()), before);
        let closed = reinstate(entry.as_ref(), &Reinstated::Sealed).unwrap().or(entry);
        assert_eq!(phase_word(closed.as_ref()), after_it, "{calls:?}");
    }
    let staged = after(&[(2, Create)]);
    let kept = reinstate(staged.as_ref(), &Reinstated::Sealed).unwrap().or(staged);
    assert_eq!(obey(kept.as_ref(), &call(2, effect(Create)), NOW).answer, Ok(HubAnswer::Done));
    assert_eq!(obey(kept.as_ref(), &call(3, effect(Activate)), NOW).answer, Ok(HubAnswer::Done));
}

#[test]
fn order_zero_is_before_every_order() {
    let verdict = obey(None, &call(0, effect(EffectKind::Create)), NOW);
    assert_eq!(verdict, unchanged(Err(HubRefusal::Stale { highest: Order(0) })));
}

#[test]
fn a_refusal_is_repeated_and_stays_true() {
    let seal = call(8, HubEffect::Seal);
    let refused = obey(None, &seal, NOW);
    let entry = refused.entry.unwrap();
    let late_create = obey(Some(&entry), &call(5, effect(EffectKind::Create)), NOW);
    assert_eq!(late_create.answer, Err(HubRefusal::Stale { highest: Order(8) }));
    assert_eq!(obey(Some(&entry), &seal, NOW).answer, refused.answer);
    assert_eq!(obey(Some(&entry), &call(8, HubEffect::Delete), NOW).answer, Ok(HubAnswer::Done));
}

#[test]
fn a_replaced_state_is_answered_again_though_writes_came_in_between() {
    use EffectKind::*;
    let entry = after(&[(1, Create), (2, Activate)]).unwrap();
    let replace = call(3, effect(ReplaceTwin));
    let first = obey(Some(&entry), &replace, LATER);
    let mut entry = first.entry.unwrap();
    assert_eq!(first.answer, Ok(HubAnswer::State(Box::new(state(r#"{"made":1}"#)))));
    let tenant = entry.tenant.as_mut().unwrap();
    assert_eq!(tenant.state.twin.desired.version, 2, "versions continue");
    tenant.state.status = HubStatus::Disabled { reason: "written in between".to_owned() };
    let again = obey(Some(&entry), &replace, LATER);
    assert_eq!((again.answer, again.entry), (first.answer, None));
    let next = obey(Some(&entry), &call(4, effect(ReplaceTwin)), LATER).entry.unwrap().tenant.unwrap();
    assert!(matches!(next.state.status, HubStatus::Disabled { .. }), "disabled survives");
}

#[test]
fn states_that_cannot_be_kept_are_refused() {
    let long = "x".repeat(limits::REASON_CHARS_MAX + 1);
    let deep = (0..limits::TWIN_DEPTH_MAX + 1).fold(Metadata::default(), |below, _| Metadata {
        properties: [("a".to_owned(), below)].into(),
        ..Metadata::default()
    });
    let mut bad_metadata = state("{}");
    bad_metadata.twin.reported.metadata = deep.into();
    for (state, fits) in [
        (state(r#"{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{"j":1}}}}}}}}}}"#), true),
        (state(r#"{"a.b":1}"#), false),
        (DeviceState { status: HubStatus::Disabled { reason: long.clone() }, ..state("{}") }, false),
        (DeviceState { status: HubStatus::Disabled { reason: long[1..].to_owned() }, ..state("{}") }, true),
        (bad_metadata, false),
    ] {
        let device = NewDevice { generation: Order(1), credential: credential(1), state };
        let verdict = obey(None, &call(1, HubEffect::Create(Box::new(device))), NOW);
        assert_eq!(verdict.answer.is_ok(), fits, "{:?}", verdict.answer);
        assert_eq!(verdict.entry.unwrap().tenant.is_some(), fits);
    }
    let bad = call(1, HubEffect::ReplaceTwin(Box::new(initial(r#"{"$a":1}"#))));
    let entry = after(&[(1, EffectKind::Create)]);
    let verdict = obey(entry.as_ref(), &HubCall { order: Order(2), ..bad }, NOW);
    assert!(matches!(verdict.answer, Err(HubRefusal::StateInvalid(_))));
    assert_eq!(verdict.entry.unwrap().tenant, entry.unwrap().tenant);
}

#[test]
fn who_is_let_in_by_a_credential() {
    let print = |number: u8| Thumbprint([number; 32]);
    for (kept, presented, fits) in [
        (vec![1], vec![1], true),
        (vec![1, 2], vec![2], true),
        (vec![1, 2], vec![1, 2], true),
        (vec![1], vec![2], false),
        (vec![1], vec![1, 2], false),
        (vec![1], vec![], false),
        (vec![], vec![], false),
        (vec![], vec![1], false),
    ] {
        let (kept_credential, presented_credential) =
            (Credential::x509(kept.iter().copied().map(print)), Credential::x509(presented.iter().copied().map(print)));
        assert_eq!(matches(&kept_credential, &presented_credential), fits, "{kept:?} {presented:?}");
    }
}

#[test]
fn a_device_that_left_is_remembered_by_what_it_signed_in_with_last() {
    use EffectKind::*;
    let left = after(&[(1, Create), (2, UpdateCredential), (3, Delete)]).unwrap();
    assert_eq!(left.departed, Some(credential(2)));
    assert_eq!(after(&[(1, Create), (2, Delete), (3, Seal), (4, Delete)]).unwrap().departed, Some(credential(1)));
    assert_eq!(after(&[(1, Create), (2, Delete), (3, Create)]).unwrap().departed, None);
    assert_eq!(after(&[(1, Delete)]).unwrap().departed, None);
}

proptest! {
    /// Calls arrive late, twice and in any sequence; each order has one kind of call, or is a collect.
    #[test]
    fn no_delivery_opens_a_sealed_device_without_an_order_above(
        kinds in proptest::collection::vec(0..KINDS.len(), 1..12),
        deliveries in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let mut entry: Option<Entry> = None;
        let mut sealed_at = Order(0);
        let mut opened_at = Order(0);
        let mut answers = std::collections::BTreeMap::new();
        for (index, deletes) in deliveries {
            let position = index.index(kinds.len());
            let order = u64::try_from(position).unwrap() + 1;
            let kind = KINDS[kinds[position]];
            let kind = if kind == EffectKind::Seal && deletes { EffectKind::Delete } else { kind };
            let before = entry.clone();
            let verdict = obey(entry.as_ref(), &call(order, effect(kind)), LATER);
            if let Some(next) = &verdict.entry {
                prop_assert!(next.highest >= before.as_ref().map_or(Order(0), |entry| entry.highest));
                prop_assert_eq!(next.highest, Order(order));
                if verdict.answer.is_ok() {
                    match kind {
                        EffectKind::Seal => sealed_at = Order(order),
                        EffectKind::Activate | EffectKind::Unseal => opened_at = Order(order),
                        EffectKind::Create | EffectKind::Delete => (sealed_at, opened_at) = (Order(0), Order(0)),
                        EffectKind::ReplaceTwin | EffectKind::UpdateCredential => {}
                    }
                }
            }
            match &verdict.answer {
                Err(HubRefusal::Stale { highest }) => prop_assert!(*highest > Order(order)),
                answer => {
                    // A collect's seal that comes again after the delete is the one answer that changes.
                    let seal_of_a_collect = kind == EffectKind::Seal;
                    let first = answers.entry((order, kind)).or_insert_with(|| answer.clone());
                    prop_assert!(seal_of_a_collect || *first == *answer, "{:?} then {:?}", first, answer);
                }
            }
            if let (Some(Tenant { state: old, .. }), Some(Tenant { state: new, .. })) = (
                before.as_ref().and_then(|entry| entry.tenant.as_ref()),
                verdict.entry.as_ref().and_then(|entry| entry.tenant.as_ref()),
            ) {
                prop_assert!(new.twin.desired.version >= old.twin.desired.version);
                prop_assert!(new.twin.reported.version >= old.twin.reported.version);
            }
            entry = verdict.entry.or(before);
            if entry.as_ref().is_some_and(Entry::is_open) {
                prop_assert!(opened_at > sealed_at, "open though sealed at {sealed_at} and opened at {opened_at}");
            }
        }
    }
}
