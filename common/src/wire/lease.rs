//! Leases: what a client may believe without asking, and how the master takes it back.
//!
//! Replies of the master carry what they grant in their body: a list of [`Grant`]s, or nothing at all. The master calls the client
//! ([`ClientRequest`]) over the connection of the session. docs/leases.md has the protocol.

use crate::ids::Ino;
use serde::{Deserialize, Serialize};

/// What a lease allows. The greater one includes the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LeaseMode {
    /// To believe what is known of the inode: attributes, content, and the names in it if it is a directory.
    Read,
    /// Nobody else believes anything of it: data may be written here and sent later.
    Write,
}

/// A lease that comes with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub ino: Ino,
    pub mode: LeaseMode,
}

/// A lease that is to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecalledLease {
    pub ino: Ino,
    /// What the client may keep; `None`: nothing.
    pub keep: Option<LeaseMode>,
}

/// What the master asks of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Answered when the client has flushed what these leases allowed it to hold back, and believes nothing any more that only they
    /// allowed it to believe. A lease that it does not have is given back already.
    ///
    /// Asked again with the same number until it is answered; no other recall of this master has that number.
    Recall { number: u64, leases: Vec<RecalledLease> },
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientReply {
    GivenBack,
    /// The client is at it, and can't say how long it will take: what it holds back must be stored first. It is to be asked again.
    Busy,
}
