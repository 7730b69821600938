//! What a transfer tells while it goes on.

use crate::failure::Failure;
use parking_lot::Mutex;
use serde::Serialize;
use std::fmt;

/// What was done with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Copied,
    /// A further name of a file that was copied.
    Linked,
    /// Content was right; mode or time was not.
    Updated,
    Removed,
    /// It is there already, and was to be left alone.
    Kept,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deed::Copied => "copied",
            Deed::Linked => "linked",
            Deed::Updated => "updated",
            Deed::Removed => "removed",
            Deed::Kept => "kept",
        })
    }
}

/// Names a long file while it is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Whoever shows it.
pub trait Watch: Send + Sync {
    /// So much more is known to be ahead.
    fn planned(&self, files: u64, bytes: u64);
    /// A long file begins.
    fn begun(&self, ticket: Ticket, name: &str, bytes: u64);
    /// Bytes have arrived, of a long file or of small ones.
    fn moved(&self, ticket: Option<Ticket>, bytes: u64);
    /// A long file has ended, well or not.
    fn ended(&self, ticket: Ticket);
    /// A thing is done, or in a dry run would be. `source` is empty for what has none.
    fn done(&self, deed: Deed, source: &str, target: &str);
    fn failed(&self, failure: &Failure);
}

/// What a transfer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub copied: u64,
    pub linked: u64,
    pub updated: u64,
    pub removed: u64,
    pub kept: u64,
    pub unchanged: u64,
    pub failed: u64,
    /// Of the files copied: bytes that went over the network or were shared, and those that an earlier try had brought.
    pub bytes: u64,
    pub resumed_bytes: u64,
}

/// Counts that many tasks add to.
#[derive(Debug, Default)]
pub struct Sums(Mutex<Counts>);

impl Sums {
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock());
    }

    pub fn get(&self) -> Counts {
        *self.0.lock()
    }

    pub fn deed(&self, deed: Deed) {
        self.count(|counts| {
            *match deed {
                Deed::Copied => &mut counts.copied,
                Deed::Linked => &mut counts.linked,
                Deed::Updated => &mut counts.updated,
                Deed::Removed => &mut counts.removed,
                Deed::Kept => &mut counts.kept,
            } += 1;
        });
    }
}
