//! The link to the master: one connection, one session, and calls that outlive both.
//!
//! - [`Link`] is what the rest of the client calls. Requests are sent again until they are answered or the caller's patience
//!   (`Settings::master_wait`) ends; while the master is away they wait.
//! - `keeper` is the one task that connects, opens the session, renews it and comes back after a loss.
//! - `sequences` numbers the mutations of a session, so that the master does each exactly once however often it is sent.
//! - `open_inodes` knows what is open, so that the master keeps unlinked files that we still use.
//! - `unsynced` remembers the answered changes that a loss of power of the master may still take.
//! - `locks` asks for locks of files; `lock_book` remembers which are held.
//! - `driven` keeps a sent mutation going when its caller has left.
//!
//! Invariants:
//! - a mutation that was sent is sent again under the same session and sequence until it is answered or the session is gone;
//! - `acknowledged <= s` for no sequence `s` without an answer;
//! - a renewal that names an inode as closed never overtakes an opening of it (`open_inodes`).
//!
//! When the session is gone (the master forgot it, for it did not hear of us for a minute), nobody can tell whether a
//! mutation in flight was done. It fails with EIO, but for compactions, which change nothing when they are published twice. Commits belong to the
//! session whose leases allowed the data to be held back; what becomes of it is up to the data path.

mod backoff;
mod calls;
mod driven;
mod keeper;
mod lock_book;
mod locks;
mod metadata;
mod mutations;
mod open_inodes;
mod sequences;
mod session;
mod unsynced;

pub use backoff::Backoff;
pub use calls::{Answer, AskError, Link, Stake};
pub use driven::Driven;
pub use keeper::{Keeper, StartError, Welcome, any_port};
pub use lock_book::{LockPlace, LockVictim};
pub use locks::Locked;
pub use metadata::MasterMetadata;
pub use mutations::Mutated;
pub use open_inodes::{OpenGuard, OpenInodes};
