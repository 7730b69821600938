//! What a command comes to, and how its parts fail.

use crate::state::command::Registration;
use crate::store::tables::StoreError;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, MapEpoch, PoolId, SessionId};
use cairn_common::wire::master::{MasterError, MutationReply};

/// The result of applying a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The command did a bounded part of its work (which stays done) and must be submitted again, with a fresh time, to
    /// go on. Nobody has been answered yet.
    Again,
    /// It was not done; nothing has changed.
    Refused(MasterError),
    Mutated(MutationReply),
    Session {
        session: SessionId,
        /// Whether the previous session goes on.
        resumed: bool,
        cluster: [u8; 16],
        root: Attributes,
    },
    /// `DropHolders`, `Hold`: which of the inodes exist no more.
    Gone {
        inodes: Vec<Ino>,
    },
    /// The token was good; `number` has never been given to another joiner.
    Joined {
        number: u64,
    },
    Registered(Registration),
    /// The map afterwards; the same as before if nothing had to change.
    Placed {
        epoch: MapEpoch,
    },
    /// `Mend`: which were done; the others do not fit any more, or are not needed.
    Mended {
        done: Vec<bool>,
    },
    PoolCreated {
        pool: PoolId,
    },
}

/// Why something was not read or not done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An answer for the caller.
    #[error("{0}")]
    Answer(#[from] MasterError),
    /// The bounded part of the work is done; submit the command again.
    #[error("there is more to do")]
    Again,
    /// The tables can't be read: the master must stop.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        Failure::Answer(MasterError::Fs(error))
    }
}

/// The result of most functions of the state machine.
pub type Attempt<T> = Result<T, Failure>;
