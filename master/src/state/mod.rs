//! The master's state machine: `apply(command) -> outcome` over tables. No clock, no randomness, no I/O but the tables:
//! the same commands give the same tables and the same outcomes on every machine.
//!
//! - [`command`]: what may be asked, as the log keeps it; [`outcome`]: what comes of it.
//! - [`record`]: what is stored; keys and versions are in [`crate::keys`].
//! - [`namespace`]: inodes, names and extents; one file per family of operations.
//! - [`session`]: exactly once; [`orphan`]: files without a name that are still open.
//! - [`chunk`]: reference counts; [`collect`]: the way of a dead chunk.
//! - [`window`]: how many extents parts of files have; [`compaction`]: what should be rewritten.
//! - [`cluster`]: chunkservers, targets, placement; [`pool`]: new pools; [`token`]: who may join.
//! - [`read`]: everything that is asked without changing anything; [`mend`]: what [`crate::check`] has found is set right.
//!
//! A refused command changes nothing. One that is too large does a part and says [`Outcome::Again`].

mod chunk;
mod cluster;
mod collect;
pub mod command;
pub mod compaction;
mod edit;
pub mod former;
pub mod mend;
mod namespace;
pub mod orphan;
pub mod outcome;
mod pool;
pub mod read;
pub mod record;
mod session;
mod token;
pub mod window;

#[cfg(test)]
pub(crate) mod tests;

pub use command::{Command, Stamped};
pub use outcome::{Attempt, Failure, Outcome};

use crate::state::edit::Edit;
use crate::store::tables::{Batch, StoreError};
use cairn_common::ids::LogIndex;

/// Applies one command. Its changes are staged in `batch`, also if the outcome is `Refused` (nothing then) or `Again` (a
/// part, which must be kept). An error means that the tables are broken: drop the batch and stop.
pub fn apply(batch: &mut Batch<'_>, index: LogIndex, stamped: &Stamped) -> Result<Outcome, StoreError> {
    let mut edit = Edit::new(batch, index, stamped.at);
    match perform(&mut edit, &stamped.command) {
        Ok(outcome) => Ok(outcome),
        Err(Failure::Answer(error)) => Ok(Outcome::Refused(error)),
        Err(Failure::Again) => Ok(Outcome::Again),
        Err(Failure::Store(error)) => Err(error),
    }
}

fn perform(edit: &mut Edit<'_, '_>, command: &Command) -> Attempt<Outcome> {
    match command {
        Command::Initialise(new) => cluster::initialise(edit, new),
        Command::OpenSession { previous, description, open } => session::open(edit, *previous, description, open),
        Command::EndSession { session } => session::end(edit, *session),
        Command::Hold { session, inodes } => orphan::hold(edit, *session, inodes),
        Command::DropHolders { session, inodes } => orphan::drop_holders(edit, *session, inodes),
        Command::Mutate { session, sequence, acknowledged, holders, mutation } => {
            session::mutate(edit, *session, *sequence, *acknowledged, holders, mutation)
        }
        Command::Shrink { ino } => namespace::shrink::shrink(edit, *ino),
        Command::ForgetChunks { chunks } => collect::forget(edit, chunks),
        Command::DeletionsDone { deletions } => collect::deletions_done(edit, deletions),
        Command::CreateToken { secret, role, expires } => token::create(edit, secret, *role, *expires),
        Command::UseToken { secret, role, public_key } => token::redeem(edit, secret, *role, *public_key),
        Command::RegisterServer { name, address, incarnation, labels, targets } => {
            cluster::register(edit, name, *address, *incarnation, labels, targets)
        }
        Command::ChangeTargets { changes } => cluster::change_targets(edit, changes),
        Command::Place { scope } => cluster::place(edit, *scope),
        Command::SettleSlots { slots } => cluster::settle(edit, slots),
        Command::SkipNumbers => cluster::skip_numbers(edit),
        Command::SetRules(rules) => cluster::set_rules(edit, rules),
        Command::PassOver { windows, chunks } => compaction::pass_over(edit, windows, chunks),
        Command::Mend { seen, batch, mends } => mend::mend(edit, *seen, *batch, mends),
        Command::CreatePool(new) => pool::create(edit, new),
    }
}
