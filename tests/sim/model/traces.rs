//! Every trace that broke an earlier draft of the move protocol, by its number: with the rules no promise is broken, and
//! without the rule that closes the trace it is.

use rehome::domain::ReprovisionPolicy::{Migrate, Reset};

use super::explore::{Search, Violation, explore};
use super::rules::Rule;
use super::world::Breach::*;
use super::world::{Ask, Breach, Copies, Left, Scenario};

const fn register(to: &'static str) -> Ask {
    Ask::Register { to, policy: Migrate, key: 0 }
}

const fn reset(to: &'static str) -> Ask {
    Ask::Register { to, policy: Reset, key: 0 }
}

/// `trace` names steps of the violation, in their order; the last one is the step that breaks the promise.
#[track_caller]
fn check(scenario: Scenario, without: &[Rule], breach: Breach, trace: &[&str]) {
    let whole = explore(&scenario, Search::Depth, |_| true);
    if let Some(violation) = whole.violation {
        panic!("with every rule: {violation}");
    }
    let lacking = Scenario { without: without.to_vec(), ..scenario };
    let found = explore(&lacking, Search::Breadth, |violation| violation.breach == breach && follows(violation, trace));
    let Some(violation) = found.violation else {
        if let Some(other) = explore(&lacking, Search::Breadth, |_| true).violation {
            panic!("without {without:?} only: {other}");
        }
        panic!("nothing like {trace:?} is found without {without:?} in {} states", found.states)
    };
    println!("{} states, {} ends; without {without:?}: {violation}", whole.states, whole.ends);
}

fn follows(violation: &Violation, trace: &[&str]) -> bool {
    let mut steps = violation.path.iter();
    trace.iter().all(|wanted| steps.any(|step| step.contains(wanted)))
}

fn there_and_back(left: Left) -> Scenario {
    Scenario { at_home: true, asks: vec![register("b"), register("a")], left, ..Scenario::default() }
}

fn away(left: Left) -> Scenario {
    Scenario { at_home: true, asks: vec![register("b")], left, ..Scenario::default() }
}

#[test]
fn every_interleaving_of_two_registers_a_write_and_what_can_go_wrong() {
    let left = Left { crashes: 1, lost: 1, doubled: 1, given_up: 1, writes: 1, ..Left::default() };
    let mut scenarios = vec![
        ("there and back", there_and_back(left)),
        ("a first home, and on", Scenario { at_home: false, ..there_and_back(left) }),
        ("reset, and back", Scenario { asks: vec![reset("b"), register("a")], ..there_and_back(left) }),
        ("reset in place, and away", Scenario { asks: vec![reset("a"), register("b")], ..there_and_back(left) }),
        ("away, and deleted", Scenario { asks: vec![register("b"), Ask::Release], ..there_and_back(left) }),
        ("twice the same way", Scenario { asks: vec![register("b"), register("b")], ..there_and_back(left) }),
    ];
    if std::env::var_os("REHOME_MODEL_DEEP").is_some() {
        let deep = Left { delayed: 1, cut: 1, given_up: 2, ..left };
        scenarios.push(("there and back, deep", there_and_back(deep)));
        let asks = vec![register("b"), register("a"), register("b")];
        scenarios.push(("there, back and there again, deep", Scenario { asks, ..there_and_back(left) }));
    }
    let mut states = 0;
    for (name, scenario) in scenarios {
        let whole = explore(&scenario, Search::Depth, |_| true);
        println!("{name}: {} states, {} ends, at most {} steps", whole.states, whole.ends, whole.depth);
        assert!(whole.violation.is_none(), "{name}: {}", whole.violation.unwrap());
        assert!(whole.ends > 0);
        states += whole.states;
    }
    println!("{states} states");
}

/// With orders a late `activate` is refused as stale anyway: this rule is a second lock on the same door, and alone it is
/// not missed.
#[test]
fn what_activate_opens_is_a_second_lock() {
    let left = Left { crashes: 1, doubled: 1, delayed: 1, given_up: 1, ..Left::default() };
    for (without, is_found) in
        [(vec![Rule::ActivateOpensStaged], false), (vec![Rule::ActivateOpensStaged, Rule::Orders], true)]
    {
        let found = explore(&Scenario { without, ..there_and_back(left) }, Search::Breadth, |_| true);
        assert_eq!(found.violation.is_some(), is_found);
    }
}

/// An intent voids the debt of an older move to open the home that it leaves. Given up while it still waits for clean-up at
/// its target, it must open that home itself.
#[test]
fn a_move_given_up_while_it_waits_opens_the_home_that_an_older_one_closed() {
    let left = Left { given_up: 2, writes: 1, ..Left::default() };
    let scenario = Scenario { asks: vec![register("b"), register("b")], ..there_and_back(left) };
    let whole = explore(&scenario, Search::Breadth, |_| true);
    assert!(whole.violation.is_none(), "{}", whole.violation.unwrap());
}

#[test]
fn trace_1a_a_late_activate_does_not_open_a_home_that_was_left() {
    let scenario = there_and_back(Left { doubled: 1, ..Left::default() });
    check(
        scenario,
        &[Rule::Orders, Rule::ActivateOpensStaged],
        TwoOpen,
        &["activate(b)", "seal(b)", "late activate(b)"],
    );
}

#[test]
fn trace_1b_a_late_unseal_does_not_open_a_home_that_is_being_left() {
    let left = Left { doubled: 1, given_up: 1, writes: 1, ..Left::default() };
    let scenario = Scenario { asks: vec![register("b"), register("b")], ..there_and_back(left) };
    check(scenario, &[Rule::Orders], TwoOpen, &["deadline", "unseal(a)", "seal(a)", "late unseal(a)"]);
}

#[test]
fn trace_1c_a_late_seal_does_not_close_the_home_after_the_move_was_given_up() {
    let scenario = away(Left { delayed: 1, given_up: 1, ..Left::default() });
    check(scenario, &[Rule::Orders], NoHome, &["seal(a)", "deadline", "unseal(a)", "late seal(a)"]);
}

#[test]
fn trace_1d_a_late_create_leaves_no_orphan() {
    let scenario = away(Left { delayed: 1, given_up: 1, ..Left::default() });
    check(scenario, &[Rule::OrdersOutliveDevice], Orphan, &["deadline", "discard(b)", "late create(b)"]);
}

#[test]
fn trace_2a_an_abort_never_goes_forward_after_a_restart() {
    let scenario = away(Left { crashes: 1, given_up: 1, writes: 1, ..Left::default() });
    check(scenario, &[Rule::AbortBeforeUndo], TwoOpen, &["seal(a)", "deadline", "unseal(a)", "activate(b)"]);
}

#[test]
fn trace_2b_a_late_undo_does_not_delete_the_new_home() {
    let left = Left { doubled: 1, given_up: 1, ..Left::default() };
    let scenario = Scenario { asks: vec![register("b"), register("b")], ..there_and_back(left) };
    check(
        scenario,
        &[Rule::Orders, Rule::DiscardOwn],
        NoHome,
        &["deadline", "discard(b)", "create(b)", "late discard(b)"],
    );
}

#[test]
fn trace_3_a_seal_of_unknown_outcome_is_taken_back_at_the_deadline() {
    let scenario = away(Left { lost: 1, given_up: 1, ..Left::default() });
    check(scenario, &[Rule::UndoTheUnknown], NoHome, &["seal(a) #10, its answer is lost", "deadline"]);
}

/// `a` may be cut off and is then passed by.
fn passing_by(left: Left) -> Scenario {
    Scenario { passes_by: true, ..there_and_back(Left { cut_off: 1, ..left }) }
}

#[test]
fn trace_4a_nobody_else_opens_before_a_lease_has_run_out() {
    let scenario =
        Scenario { asks: vec![register("b")], leases: true, ..passing_by(Left { writes: 1, ..Left::default() }) };
    check(scenario, &[Rule::Leases], TwoOpen, &["a is cut off", "create(b)", "activate(b)"]);
}

#[test]
fn trace_4b_an_old_list_does_not_seal_a_home_that_came_later() {
    let scenario = Scenario { leases: true, ..passing_by(Left::default()) };
    check(scenario, &[Rule::ListGeneration, Rule::ListOrder], ToldTooEarly, &["a renewal to a", "a renewal at a"]);
}

#[test]
fn trace_4c_a_late_unseal_does_not_open_a_home_that_was_passed_by() {
    let left = Left { delayed: 1, given_up: 1, ..Left::default() };
    let scenario = Scenario { asks: vec![register("b"), register("b")], leases: true, ..passing_by(left) };
    check(scenario, &[Rule::ListRaisesFence], TwoOpen, &["unseal(a)", "a renewal at a", "late unseal(a)"]);
}

#[test]
fn trace_5_a_late_write_is_collected_before_the_old_home_is_deleted() {
    let scenario = Scenario { asks: vec![register("b")], ..passing_by(Left { writes: 1, ..Left::default() }) };
    check(scenario, &[Rule::Collect], WriteLost, &["a is cut off"]);
}

#[test]
fn trace_5_what_a_left_hub_still_holds_is_collected_before_it_is_deleted() {
    let left = Left { writes: 1, cut: 1, crashes: 1, ..Left::default() };
    let scenario = Scenario { asks: vec![Ask::Release], ..there_and_back(left) };
    check(scenario, &[Rule::Collect], WriteLost, &["write at a"]);
}

#[test]
fn trace_6a_clean_up_at_the_target_is_settled_before_the_way_back() {
    let scenario = there_and_back(Left { given_up: 1, writes: 1, ..Left::default() });
    check(scenario, &[Rule::SettleFirst], Orphan, &["activate(b)", "ask 1", "seal(b)", "create(a)"]);
}

#[test]
fn trace_7a_a_hub_that_is_being_left_is_not_unlinked() {
    let scenario = away(Left { lost: 1, given_up: 1, unlinked: 1, ..Left::default() });
    check(scenario, &[Rule::UnlinkRefused], NoHome, &["seal(a) #10, its answer is lost", "unlink a"]);
}

#[test]
fn trace_7b_a_new_home_is_not_unlinked_before_it_is_open() {
    let scenario = away(Left { unlinked: 1, ..Left::default() });
    check(scenario, &[Rule::UnlinkRefused], NoHome, &["create(b)", "unlink b"]);
}

/// A hub, or the store, may be copied at any moment and go on from its copy at any later one.
fn going_back(copies: Copies, asks: Vec<Ask>, left: Left) -> Scenario {
    let left = Left { copied: 1, restored: 1, ..left };
    Scenario { at_home: true, asks, left, copies, ..Scenario::default() }
}

#[test]
fn trace_8a_an_old_home_that_goes_on_from_a_copy_opens_nothing() {
    let left = Left { writes: 1, crashes: 1, ..Left::default() };
    let scenario = going_back(Copies::OfHubs, vec![register("b")], left);
    check(scenario, &[Rule::Incarnations], TwoOpen, &["a is copied", "activate(b)", "a goes on from its copy"]);
}

#[test]
fn trace_8b_a_new_home_that_goes_on_from_a_copy_is_opened_again() {
    let left = Left { writes: 1, lost: 1, ..Left::default() };
    let scenario = going_back(Copies::OfHubs, vec![register("b")], left);
    let trace = ["create(b)", "b is copied", "activate(b)", "b goes on from its copy"];
    check(scenario, &[Rule::Incarnations], ToldTooEarly, &trace);
}

#[test]
fn trace_13_a_store_that_goes_on_from_a_copy_moves_nothing_before_it_has_looked() {
    let left = Left { writes: 1, lost: 1, ..Left::default() };
    let scenario = going_back(Copies::OfTheStore, vec![register("b"), register("b")], left);
    let trace = ["the store is copied", "activate(b)", "goes on from the copy", "ask 1"];
    check(scenario, &[Rule::HaltedUntilReconciled], NoHome, &trace);
}

#[test]
fn trace_13_a_store_that_goes_on_from_a_copy_reuses_no_order() {
    let left = Left { writes: 1, lost: 1, ..Left::default() };
    let scenario = going_back(Copies::OfTheStore, vec![register("b"), register("a")], left);
    let trace = ["the store is copied", "seal(a) #10", "goes on from the copy", "the hubs are gone through"];
    check(scenario, &[Rule::OrdersOfALife], ToldTooEarly, &trace);
}

#[test]
fn trace_9a_a_late_reset_does_not_undo_a_write() {
    let left = Left { doubled: 1, writes: 1, ..Left::default() };
    let scenario = Scenario { at_home: true, asks: vec![reset("a")], left, ..Scenario::default() };
    check(scenario, &[Rule::ResetOnce], WriteLost, &["replace_twin(a)", "write at a", "late replace_twin(a)"]);
}

#[test]
fn trace_9b_the_older_of_two_resets_does_not_win() {
    let left = Left { doubled: 1, edits: 1, ..Left::default() };
    let scenario = Scenario { at_home: true, asks: vec![reset("a"), reset("a")], left, ..Scenario::default() };
    check(
        scenario,
        &[Rule::Orders],
        WrongTwin,
        &["replace_twin(a)", "edited", "replace_twin(a)", "late replace_twin(a)"],
    );
}

#[test]
fn trace_10_a_new_home_that_dies_before_it_opens_is_replaced_from_the_journal() {
    let left = Left { dead: 1, writes: 1, ..Left::default() };
    let scenario = Scenario { at_home: true, asks: vec![register("b"), register("c")], left, ..Scenario::default() };
    check(scenario, &[Rule::Replant], NoHome, &["create(b)", "b dies"]);
}

#[test]
fn trace_11_an_enrollment_edited_in_the_middle_changes_nothing() {
    let left = Left { edits: 1, crashes: 1, ..Left::default() };
    let scenario = Scenario { at_home: true, asks: vec![reset("b")], left, ..Scenario::default() };
    check(scenario, &[Rule::IntentHoldsInputs], WrongTwin, &["ask 0", "edited"]);
}

#[test]
fn trace_11_a_late_old_key_after_a_refresh_does_not_lock_the_device_out() {
    let asks =
        vec![Ask::Register { to: "a", policy: Migrate, key: 1 }, Ask::Register { to: "a", policy: Migrate, key: 2 }];
    let scenario =
        Scenario { at_home: true, asks, left: Left { doubled: 1, ..Left::default() }, ..Scenario::default() };
    check(scenario, &[Rule::Orders], WrongCredential, &["update_credential(a)", "late update_credential(a)"]);
}

#[test]
fn trace_12_a_device_that_an_operator_moved_is_not_sent_straight_back() {
    let scenario = Scenario {
        asks: vec![Ask::Send { to: "b" }, register("a")],
        wanted_at: Some("b"),
        ..there_and_back(Left::default())
    };
    check(scenario, &[Rule::Pin], SentBack, &["ask 1"]);
}
