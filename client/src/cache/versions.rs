//! Whether a file is still as it was when this client last had it open, so that what is cached of its content (here and in
//! the kernel) may stay.
//!
//! A file's version grows by one with each change. A change of our own that continues the version we know leaves the caches
//! right; a gap means that somebody else changed the file, too. When in doubt the answer is "changed".

use crate::limits::KNOWN_VERSIONS_MAX;
use cairn_common::bounded::Bounded;
use cairn_common::ids::Ino;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Versions of our own that arrived before their predecessors; a file with more of them counts as changed.
const EARLY_MAX: usize = 64;

#[derive(Debug)]
struct Known {
    /// The caches are right for this version.
    version: u64,
    /// Later versions that we made ourselves, after a gap that may yet be filled.
    early: BTreeSet<u64>,
}

/// The versions for which caches are right.
pub struct KnownVersions(Mutex<Bounded<Ino, Known>>);

impl Default for KnownVersions {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(KNOWN_VERSIONS_MAX)))
    }
}

impl KnownVersions {
    /// The file is opened and found at `version`. Whether it changed behind our back, so that the caches must go.
    pub fn opened(&self, ino: Ino, version: u64) -> bool {
        let mut known = self.0.lock();
        // A lower version is an answer that one of our own changes has overtaken.
        if known.get(&ino).is_some_and(|known| version <= known.version) {
            return false;
        }
        known.insert(ino, Known { version, early: BTreeSet::new() });
        true
    }

    /// Whether the caches are right for a file of this version.
    pub fn covers(&self, ino: Ino, version: u64) -> bool {
        self.0.lock().get(&ino).is_some_and(|known| version <= known.version)
    }

    /// Nothing that was heard of versions counts any more.
    pub fn forget_all(&self) {
        *self.0.lock() = Bounded::new(KNOWN_VERSIONS_MAX);
    }

    /// Our own change led to `version`.
    pub fn changed_by_us(&self, ino: Ino, version: u64) {
        let mut files = self.0.lock();
        let Some(known) = files.get_mut(&ino) else { return };
        if version <= known.version || known.early.len() >= EARLY_MAX {
            return;
        }
        known.early.insert(version);
        while known.early.remove(&(known.version + 1)) {
            known.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KnownVersions;
    use cairn_common::ids::Ino;

    #[test]
    fn our_own_changes_keep_the_caches_in_any_order_of_arrival() {
        let versions = KnownVersions::default();
        assert!(versions.opened(Ino(5), 10), "never seen before");
        for version in [12, 11, 13] {
            versions.changed_by_us(Ino(5), version);
        }
        assert!(!versions.opened(Ino(5), 13));
    }

    #[test]
    fn a_gap_is_somebody_elses_change() {
        let versions = KnownVersions::default();
        versions.opened(Ino(5), 10);
        versions.changed_by_us(Ino(5), 12);
        assert!(versions.opened(Ino(5), 12));
        assert!(!versions.opened(Ino(5), 12), "now it is known");
    }
}
