//! The commands of the state machine: everything that may change the tables, as the log keeps it.
//!
//! A command holds all that its outcome depends on besides the tables. Time comes with it ([`Stamped::at`], which the
//! service must never let run backwards), fresh numbers come from its place in the log and from counters in the tables.
//! Commands are stored in the log, so variants and fields are only ever added at the end.

use crate::state::record::{Rules, Span, WindowName};
use cairn_common::attributes::Owner;
use cairn_common::ids::{ChunkId, DirCookie, Incarnation, Ino, LogIndex, PoolId, Sequence, ServerId, SessionId, TargetId};
use cairn_common::map::TargetState;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{Mutation, Role, TargetAnnouncement};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A command and the time at which the master took it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    pub at: Timestamp,
    pub command: Command,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster: its identity, its default pool and the root directory.
    Initialise(NewCluster),

    /// A client registers or comes back. If `previous` is known it goes on, with its results; what it has open no longer
    /// (all its orphans that `open` does not name) is let go.
    OpenSession {
        previous: Option<SessionId>,
        description: String,
        open: Vec<Ino>,
    },
    /// The session is over: its results and the orphans that only it held are removed. Answers `Again` while there is more.
    EndSession {
        session: SessionId,
    },
    /// The session has opened inodes that have no name any more: they live until it lets go of them.
    Hold {
        session: SessionId,
        inodes: Vec<Ino>,
    },
    /// The session has closed its last descriptor of these inodes. Only those that have no name matter.
    DropHolders {
        session: SessionId,
        inodes: Vec<Ino>,
    },
    /// A client's change of the namespace, done exactly once. `holders` are the sessions that have the inode open that
    /// the mutation may remove (`read::doomed` names it); after a restart of the master also all known sessions that have
    /// not come back yet, for nobody knows what they have open.
    Mutate {
        session: SessionId,
        sequence: Sequence,
        acknowledged: Sequence,
        holders: Vec<SessionId>,
        mutation: Mutation,
    },

    /// Removes the next part of the extents of a file that was truncated or removed. Answers `Again` while there is more.
    Shrink {
        ino: Ino,
    },
    /// Forgets chunks that nothing has referred to for the grace period, and queues the deletion of their shards.
    ForgetChunks {
        chunks: Vec<ChunkId>,
    },
    /// The shards of these queued deletions are gone.
    DeletionsDone {
        deletions: Vec<(Timestamp, ChunkId)>,
    },

    CreateToken {
        /// BLAKE3 of the secret.
        secret: [u8; 32],
        role: Role,
        expires: Timestamp,
    },
    /// `public_key` is the BLAKE3 of the joiner's key: the same key may come again, for the answer may have been lost.
    UseToken {
        secret: [u8; 32],
        role: Role,
        public_key: [u8; 32],
    },

    /// A chunkserver announces itself. `name` is the one in its certificate, which tells it from all others.
    RegisterServer {
        name: String,
        address: SocketAddr,
        incarnation: Incarnation,
        labels: BTreeMap<String, String>,
        targets: Vec<TargetAnnouncement>,
    },
    ChangeTargets {
        changes: Vec<TargetChange>,
    },
    /// Recomputes who holds the slots of every pool.
    Place {
        scope: PlacementScope,
    },
    /// The holders of these slots (pool, group, slot) have all that belongs there: the previous holders are forgotten.
    SettleSlots {
        slots: Vec<(PoolId, u32, u8)>,
    },
    /// The master has started: to be submitted before it serves anybody. A power failure may have swallowed the last
    /// commands, whose answers clients have seen: the numbers these may have given out are skipped, so that a client that
    /// still uses one of them can't meet somebody else's inode.
    SkipNumbers,

    /// The rules of a cluster that is about to be initialised; refused later, for what was promised under the old ones still holds.
    SetRules(Rules),
    /// These windows and chunks were looked at, and rewriting them would gain nothing at present.
    PassOver {
        windows: Vec<WindowName>,
        chunks: Vec<ChunkId>,
    },
    /// Sets right what a check of the tables has found. `seen` is the last command that the check saw, `batch` counts the commands
    /// that rest on it from 1 on: differences that were mended already can't be mended twice.
    Mend {
        seen: LogIndex,
        batch: u64,
        mends: Vec<Mend>,
    },
    CreatePool(NewPool),
}

/// One repair of the tables. Each does what it says and leaves all other differences as they are, so that several may rest on
/// the same check. Counts come as differences, which no command changes: what is done between the check and the repair keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mend {
    /// To the link count.
    Links {
        ino: Ino,
        by: i64,
    },
    /// To the size of a directory.
    Entries {
        ino: Ino,
        by: i64,
    },
    Allocated {
        ino: Ino,
        by: i64,
    },
    XattrBytes {
        ino: Ino,
        by: i64,
    },
    /// To a chunk; when it died or is to be rewritten, and both queues, follow.
    ChunkUses {
        chunk: ChunkId,
        references: i64,
        live_bytes: i64,
    },
    Usage {
        pool: PoolId,
        chunks: i64,
        chunk_bytes: i64,
    },
    /// To the number of inodes.
    Inodes {
        by: i64,
    },
    /// The next inode number is above this one.
    NextIno {
        above: Ino,
    },
    /// Content of an inode that is missing gets an inode: under the names that it has, or else in `lost+found`.
    Revive {
        ino: Ino,
        size: u64,
        allocated: u64,
        xattr_list_bytes: u32,
        names: u32,
    },
    /// The size reaches to the end of the content.
    GrowToContent {
        ino: Ino,
    },
    /// The queue of files that shrink says what the inode says.
    Cut {
        ino: Ino,
    },
    /// The entry calls the inode what it is.
    SetKind {
        parent: Ino,
        name: Vec<u8>,
    },
    SetParent {
        ino: Ino,
        from: Ino,
        to: Ino,
    },
    /// The entry gets its place in the listing.
    List {
        parent: Ino,
        name: Vec<u8>,
    },
    /// The place in the listing goes, if no entry has it.
    Unlist {
        parent: Ino,
        cookie: DirCookie,
    },
    /// An entry goes: of an inode that does not exist, or of a directory that has another name.
    DropEntry {
        parent: Ino,
        name: Vec<u8>,
    },
    /// An entry moves to `lost+found`.
    Rehome {
        parent: Ino,
        name: Vec<u8>,
    },
    /// An inode without a name gets one in `lost+found`; `by`, to the link count, makes it right with that name.
    Adopt {
        ino: Ino,
        by: i64,
    },
    /// A removed inode that nobody holds goes.
    Free {
        ino: Ino,
    },
    /// Both rows of a holder are there, if there is such a session and such an inode; else neither.
    Holder {
        ino: Ino,
        session: SessionId,
    },
    /// Extended attributes of an inode that does not exist go.
    DropXattrs {
        ino: Ino,
    },
    /// A row of the queue of dead chunks goes, if the chunk did not die then.
    DeadRow {
        died: Timestamp,
        chunk: ChunkId,
    },
    /// A result goes: of a session that does not exist, or that was acknowledged.
    DropResult {
        session: SessionId,
        sequence: Sequence,
    },
    /// To the number of extents and their bytes.
    Extents {
        extents: i64,
        bytes: i64,
    },
    /// The window is counted again; its place in the queue follows.
    Window {
        name: WindowName,
    },
    /// A row of the queue of windows goes, if the window is not due then.
    DueWindowRow {
        due: Timestamp,
        name: WindowName,
    },
    /// A row of the queue of mostly dead chunks goes, if the chunk is not due then.
    SparseRow {
        due: Timestamp,
        chunk: ChunkId,
    },
    /// The chunk may be named in here, too.
    Widen {
        chunk: ChunkId,
        span: Span,
    },
    /// The inode names no pool any more, if it names this one, which does not exist.
    DropPolicy {
        ino: Ino,
        pool: PoolId,
    },
}

impl Mend {
    /// In which order they are done: counts first, so that what changes names and removes inodes finds them right.
    pub fn rank(&self) -> u8 {
        match self {
            Mend::ChunkUses { .. } | Mend::Usage { .. } | Mend::Inodes { .. } | Mend::NextIno { .. } => 0,
            Mend::Extents { .. } | Mend::Window { .. } | Mend::DueWindowRow { .. } | Mend::SparseRow { .. } | Mend::Widen { .. } => 0,
            Mend::Links { .. } | Mend::Entries { .. } | Mend::Allocated { .. } | Mend::XattrBytes { .. } => 1,
            Mend::DropPolicy { .. } => 1,
            Mend::Revive { .. } | Mend::GrowToContent { .. } | Mend::Cut { .. } | Mend::SetKind { .. } | Mend::SetParent { .. } => 2,
            Mend::List { .. } | Mend::Unlist { .. } | Mend::DropEntry { .. } | Mend::Rehome { .. } | Mend::Adopt { .. } => 3,
            Mend::Free { .. } | Mend::Holder { .. } | Mend::DropXattrs { .. } | Mend::DeadRow { .. } | Mend::DropResult { .. } => 4,
        }
    }
}

/// What `Initialise` needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCluster {
    pub cluster: [u8; 16],
    pub pool_name: String,
    pub scheme: Scheme,
    /// The pool has `1 << prefix_bits` placement groups; at most [`PREFIX_BITS_MAX`].
    pub prefix_bits: u8,
    pub root_owner: Owner,
    /// Decides ties in placement.
    pub placement_seed: u64,
}

/// What `CreatePool` needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPool {
    pub name: String,
    pub scheme: Scheme,
    /// What a chunkserver must be labelled with to hold slots.
    pub labels: BTreeMap<String, String>,
    pub prefix_bits: u8,
    pub placement_seed: u64,
}

/// Most placement groups of a pool, as a power of two: 4096 groups of 20 slots are a map that fits a message.
pub const PREFIX_BITS_MAX: u8 = 12;

/// What has become of a target; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetChange {
    pub target: TargetId,
    pub state: Option<TargetState>,
    pub full: Option<bool>,
    pub capacity_bytes: Option<u64>,
}

/// Which slots `Place` may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementScope {
    /// Slots that are vacant or whose holder is dead, draining or removed. Pools without any chunk are placed anew.
    Vacant,
    /// All, to even out the load. Moves data.
    All,
}

/// What the service must do after a server registered, or who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub server: ServerId,
    /// One per announcement, in order.
    pub targets: Vec<TargetId>,
}
