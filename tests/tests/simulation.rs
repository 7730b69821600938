//! Worlds in which everything breaks that may: see docs/simulation.md and `simulate`.

use cairn_runtime::sim::for_each_seed;
use cairn_tests::simulation::live_through;

/// A few for every change; `scripts/test` and `scripts/soak` run many more.
#[test]
fn promises_hold_whatever_breaks() {
    for_each_seed(12, |seed| {
        let outcome = live_through(seed, false);
        assert!(outcome.violations.is_empty(), "seed {seed} ({:?}): {:#?}", outcome.plan, outcome.violations);
    });
}

#[test]
fn the_same_seed_is_the_same_world_again() {
    let (once, again) = (live_through(3, true), live_through(3, true));
    if let Some(at) = (0..once.trace.len()).find(|at| once.trace.get(*at) != again.trace.get(*at)) {
        let before = once.trace[at.saturating_sub(5)..at].join("\n");
        panic!("after\n{before}\nonce came\n{}\nand again\n{:?}", once.trace[at], again.trace.get(at));
    }
    assert_eq!((once.digest, once.lasted), (again.digest, again.lasted));
}
