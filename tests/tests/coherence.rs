//! What one client's finished call did, every other client's next call sees: see `simulate --coherence`.

use cairn_runtime::sim::for_each_seed;
use cairn_tests::coherence::live_through;

/// A few for every change; `scripts/test` runs many more.
#[test]
fn what_one_client_did_all_others_see() {
    for_each_seed(30, |seed| {
        let outcome = live_through(seed, false);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
    });
}
