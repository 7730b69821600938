//! Changes that the master has answered and that are not known to be on stable storage.
//!
//! The master syncs its log by itself within milliseconds, but a loss of power may take what it answered last. So whoever comes
//! back to it names the answered changes that it has no proof of, and hears which of them are gone. Their inodes are remembered
//! until an fsync of them can say so: an fsync that succeeds says that nothing was lost.
//!
//! Invariant: entries are in order of `tick`. Pure.

use cairn_common::ids::{Incarnation, Ino, Sequence, SessionId};
use cairn_common::wire::master::{Mutation, MutationReply, SequenceRange};
use std::collections::{BTreeSet, VecDeque};

/// Changes that are remembered. The oldest of more than this were answered long before the master last synced its log.
const REMEMBERED_MAX: usize = 65_536;

/// A change that was answered.
#[derive(Debug)]
pub struct Change {
    /// When the answer came, in the order of this client's requests (`Link::mark`).
    pub tick: u64,
    pub session: SessionId,
    pub sequence: Sequence,
    /// The life of the master that answered: it does not forget.
    pub master: Incarnation,
    pub inodes: Vec<Ino>,
}

/// The table of one link.
#[derive(Debug, Default)]
pub struct Unsynced {
    changes: VecDeque<Change>,
    lost: BTreeSet<Ino>,
}

impl Unsynced {
    /// The answer to a change has come.
    pub fn note(&mut self, change: Change) {
        if self.changes.len() >= REMEMBERED_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// Everything that was answered before `mark` is on stable storage.
    pub fn synced(&mut self, mark: u64) {
        while self.changes.front().is_some_and(|change| change.tick < mark) {
            self.changes.pop_front();
        }
    }

    /// What is to be named when the session is taken up again.
    pub fn claims(&self, session: SessionId) -> Vec<SequenceRange> {
        let ours = self.changes.iter().filter(|change| change.session == session);
        let mut sequences: Vec<u64> = ours.map(|change| change.sequence.0).collect();
        sequences.sort_unstable();
        let runs = sequences.chunk_by(|a, b| b - a == 1);
        runs.filter_map(|run| Some(SequenceRange { first: Sequence(*run.first()?), last: Sequence(*run.last()?) })).collect()
    }

    /// The master has taken the session up again and does not know these changes. Says how many they are.
    pub fn lose(&mut self, session: SessionId, unknown: &[SequenceRange]) -> usize {
        let is_unknown = |sequence: Sequence| unknown.iter().any(|range| range.first <= sequence && sequence <= range.last);
        self.lose_where(|change| change.session == session && is_unknown(change.sequence))
    }

    /// The session is gone: of its changes that another life of the master than `present` has answered nobody can tell what became.
    /// Says how many they are.
    pub fn lose_session(&mut self, session: SessionId, present: Incarnation) -> usize {
        self.lose_where(|change| change.session == session && change.master != present)
    }

    fn lose_where(&mut self, is_lost: impl Fn(&Change) -> bool) -> usize {
        let before = self.changes.len();
        let lost = &mut self.lost;
        self.changes.retain(|change| {
            let gone = is_lost(change);
            if gone {
                lost.extend(&change.inodes);
            }
            !gone
        });
        before - self.changes.len()
    }

    /// Whether a change of the inode was lost; told once.
    pub fn take_lost(&mut self, ino: Ino) -> bool {
        self.lost.remove(&ino)
    }
}

/// The inodes whose fsync would have made a change durable: what was changed, and the directories whose entries were.
pub fn touched(mutation: &Mutation, reply: &MutationReply) -> Vec<Ino> {
    let answered = match reply {
        MutationReply::Inode(attributes) | MutationReply::Removed(attributes) => Some(attributes.ino),
        MutationReply::Done | MutationReply::Committed(_) | MutationReply::Copied { .. } | MutationReply::Compacted { .. } => None,
    };
    match mutation {
        Mutation::Create { parent, .. }
        | Mutation::Link { parent, .. }
        | Mutation::Unlink { parent, .. }
        | Mutation::RemoveDirectory { parent, .. } => [Some(*parent), answered].into_iter().flatten().collect(),
        Mutation::CreateUnnamed { .. } => answered.into_iter().collect(),
        Mutation::Rename { from_parent, to_parent, .. } => vec![*from_parent, *to_parent],
        Mutation::SetAttributes { ino, .. }
        | Mutation::SetPolicy { ino, .. }
        | Mutation::SetXattr { ino, .. }
        | Mutation::RemoveXattr { ino, .. }
        | Mutation::PunchHole { ino, .. } => vec![*ino],
        Mutation::Commit { files, .. } | Mutation::CommitSynced { files, .. } => files.iter().map(|file| file.ino).collect(),
        Mutation::CopyRange { to, .. } => vec![*to],
        // Undone, it leaves the same bytes in their old place.
        Mutation::Compact { .. } => Vec::new(),
        // Nobody relies on it.
        Mutation::NoteAccess { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Unsynced};
    use cairn_common::ids::{Incarnation, Ino, Sequence, SessionId};
    use cairn_common::wire::master::SequenceRange;

    const SESSION: SessionId = SessionId(1);

    fn range(first: u64, last: u64) -> SequenceRange {
        SequenceRange { first: Sequence(first), last: Sequence(last) }
    }

    fn change(tick: u64, sequence: u64) -> Change {
        Change { tick, session: SESSION, sequence: Sequence(sequence), master: Incarnation(1), inodes: vec![Ino(100 + sequence)] }
    }

    fn with(sequences: &[u64]) -> Unsynced {
        let mut unsynced = Unsynced::default();
        for (tick, sequence) in sequences.iter().enumerate() {
            unsynced.note(change(tick as u64, *sequence));
        }
        unsynced
    }

    #[test]
    fn claims_are_runs_of_sequences_in_whatever_order_they_were_answered() {
        let mut unsynced = with(&[5, 3, 4, 9, 7]);
        assert_eq!(unsynced.claims(SESSION), [range(3, 5), range(7, 7), range(9, 9)]);
        assert_eq!(unsynced.claims(SessionId(2)), []);
        unsynced.synced(3);
        assert_eq!(unsynced.claims(SESSION), [range(7, 7), range(9, 9)]);
    }

    #[test]
    fn a_lost_change_is_told_once_for_each_inode() {
        let mut unsynced = with(&[1, 2, 3]);
        assert_eq!(unsynced.lose(SESSION, &[range(2, 2)]), 1);
        assert!(!unsynced.take_lost(Ino(101)));
        assert!(unsynced.take_lost(Ino(102)));
        assert!(!unsynced.take_lost(Ino(102)));
        assert_eq!(unsynced.claims(SESSION), [range(1, 1), range(3, 3)]);
        assert_eq!(unsynced.lose_session(SESSION, Incarnation(1)), 0, "the same master has forgotten nothing");
        assert_eq!(unsynced.lose_session(SESSION, Incarnation(2)), 2);
        assert!(unsynced.take_lost(Ino(101)) && unsynced.take_lost(Ino(103)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut unsynced = Unsynced::default();
        for sequence in 1..=super::REMEMBERED_MAX as u64 + 10 {
            unsynced.note(change(sequence, sequence));
        }
        assert_eq!(unsynced.claims(SESSION), [range(11, super::REMEMBERED_MAX as u64 + 10)]);
    }
}
