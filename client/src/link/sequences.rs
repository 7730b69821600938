//! Numbers for the mutations of one session. Pure.
//!
//! Invariant: every sequence up to `acknowledged()` has been answered, and the next one has not.

use cairn_common::ids::Sequence;
use std::collections::BTreeSet;

/// Which sequences were handed out and which of them wait for their answers.
#[derive(Debug, Default)]
pub struct Sequences {
    last: u64,
    unanswered: BTreeSet<u64>,
}

impl Sequences {
    /// The next sequence. It counts as unanswered until `answered`.
    pub fn begin(&mut self) -> Sequence {
        self.last += 1;
        self.unanswered.insert(self.last);
        Sequence(self.last)
    }

    /// The answer has arrived; the master may forget it.
    pub fn answered(&mut self, sequence: Sequence) {
        self.unanswered.remove(&sequence.0);
    }

    /// Everything up to here has been answered.
    pub fn acknowledged(&self) -> Sequence {
        Sequence(self.unanswered.first().map_or(self.last, |first| first - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Sequences;
    use cairn_common::ids::Sequence;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeMap;

    proptest! {
        /// Against the definition: the largest n so that all of 1..=n are answered.
        #[test]
        fn acknowledges_exactly_what_is_answered_without_a_gap(steps in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut sequences = Sequences::default();
            let mut answered: BTreeMap<u64, bool> = BTreeMap::new();
            for step in steps {
                match step {
                    None => {
                        let sequence = sequences.begin();
                        assert_eq!(sequence.0, answered.len() as u64 + 1, "sequences grow by one");
                        assert!(sequences.acknowledged() < sequence);
                        answered.insert(sequence.0, false);
                    }
                    Some(which) if !answered.is_empty() => {
                        let sequence = u64::from(which) % answered.len() as u64 + 1;
                        sequences.answered(Sequence(sequence));
                        answered.insert(sequence, true);
                    }
                    Some(_) => {}
                }
                let expected = answered.iter().take_while(|(_, done)| **done).count() as u64;
                assert_eq!(sequences.acknowledged(), Sequence(expected));
            }
        }
    }
}
