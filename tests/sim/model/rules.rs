//! The rules of a move that can be taken away, to see that each is needed.
//!
//! Nothing in the service knows of them: the model stands between the step function, the store and the hubs, and there
//! does what a service without the rule would do.

use rehome::domain::{HubAnswer, HubCall, HubEffect, HubRefusal, MustSeal, Order, Timestamp};
use rehome::hubs::entry::{Entry, Phase, obey, take};

/// What can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A hub refuses a call of a lower order, and answers a repeat as before.
    Orders,
    /// A hub remembers the highest order of a device that has left.
    OrdersOutliveDevice,
    /// `activate` opens what is staged, and nothing else.
    ActivateOpensStaged,
    /// The undo of a create removes what that create made, and nothing else.
    DiscardOwn,
    /// Giving up is committed before the first call that takes something back.
    AbortBeforeUndo,
    /// A step whose outcome is not known is taken back as well.
    UndoTheUnknown,
    /// What is left at a hub is read into the history before it is deleted.
    Collect,
    /// Clean-up that the target still owes comes first.
    SettleFirst,
    /// A hub that a registration, move or obligation names is not unlinked.
    UnlinkRefused,
    /// A reset that was done is not done again.
    ResetOnce,
    /// A move whose new home dies before it opened is planned again from the journal.
    Replant,
    /// A move uses the inputs it started with.
    IntentHoldsInputs,
    /// An operator's move outranks the enrollment.
    Pin,
    /// A hub that is passed by is left its lease to run out before anybody else opens.
    Leases,
    /// A list of homes to be sealed leaves those alone that came later.
    ListGeneration,
    /// A list of homes to be sealed is fenced as a call is.
    ListOrder,
    /// A list of homes to be sealed raises the fence of each.
    ListRaisesFence,
    /// A hub that goes on from an older copy has a new name for this life, refuses calls that name another, and takes no
    /// writes until its devices were gone through.
    Incarnations,
    /// A store that goes on from a copy gives out orders above all that were given out after the copy was made.
    OrdersOfALife,
    /// A service whose store went back in time moves no device before its homes were held against what the hubs have.
    HaltedUntilReconciled,
}

/// A home on the list that comes before a lease runs again, taken as the service's own hubs do.
pub fn taken(entry: Option<&Entry>, must: &MustSeal, without: &[Rule], now: Timestamp) -> Option<Entry> {
    let off = |rule| without.contains(&rule);
    let before = entry.cloned().map(|entry| {
        if off(Rule::ListOrder) {
            Entry { highest: entry.highest.min(Order(must.order.0 - 1)), ..entry }
        } else {
            entry
        }
    });
    let generation = if off(Rule::ListGeneration) { Order(u64::MAX) } else { must.generation };
    match take(before.as_ref(), &MustSeal { generation, ..must.clone() }, now) {
        Some(after) if off(Rule::ListRaisesFence) => {
            let highest = entry.map_or(Order::default(), |entry| entry.highest);
            Some(Entry { highest, ..after })
        }
        Some(after) => Some(after),
        None => entry.cloned(),
    }
}

/// One device at one hub, obeying as the service's own hubs do, less what is taken away.
pub fn obeyed(
    entry: Option<&Entry>,
    call: &HubCall,
    without: &[Rule],
    now: Timestamp,
) -> (Option<Entry>, Result<HubAnswer, HubRefusal>) {
    let off = |rule| without.contains(&rule);
    let mut call = call.clone();
    if off(Rule::DiscardOwn) && matches!(call.effect, HubEffect::Discard(_)) {
        call.effect = HubEffect::Delete;
    }
    let mut before = entry.cloned();
    if let Some(entry) = &mut before {
        let repeats_reset = matches!(call.effect, HubEffect::ReplaceTwin(_)) && entry.highest == call.order;
        if off(Rule::Orders) || (off(Rule::ResetOnce) && repeats_reset) {
            entry.highest = Order(call.order.0 - 1);
        }
        let is_sealed = entry.tenant.as_ref().is_some_and(|tenant| tenant.phase == Phase::Sealed);
        if off(Rule::ActivateOpensStaged) && is_sealed && call.effect == HubEffect::Activate {
            call.effect = HubEffect::Unseal;
        }
    }
    let verdict = obey(before.as_ref(), &call, now);
    let after = match verdict.entry {
        Some(after) if off(Rule::OrdersOutliveDevice) && after.tenant.is_none() => None,
        Some(after) => Some(after),
        None => entry.cloned(),
    };
    (after, verdict.answer)
}
