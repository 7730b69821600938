//! What clients and chunkservers ask of the master.

use crate::attributes::{AttributeChange, Attributes, DirectoryEntry, NewInode};
use crate::error::FsError;
use crate::extent::{ChunkInfo, Extent, ExtentPage, NewChunk};
use crate::ids::{ChunkId, DirCookie, Incarnation, Ino, MapEpoch, PoolId, Sequence, ServerId, SessionId, TargetId};
use crate::lock::{LockClaim, LockMode, LockRange};
use crate::map::{ClusterMap, Pool, Target, TargetState};
use crate::scheme::Scheme;
use crate::time::Timestamp;
use crate::wire::check::{CheckReport, CheckWork};
use crate::wire::chunkserver::TargetStatus;
use crate::wire::lease::LeaseMode;
use crate::wire::load::{Load, LoadReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a certificate allows its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Chunkserver,
    Client,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Chunkserver => "chunkserver",
            Role::Client => "client",
        })
    }
}

/// A request to the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasterRequest {
    // ---- anybody, without a certificate
    /// Trades a join token for a certificate of its role over `public_key` (a DER SubjectPublicKeyInfo).
    Join {
        secret: Vec<u8>,
        role: Role,
        public_key: Vec<u8>,
    },

    // ---- clients: sessions
    /// Registers, or comes back after a loss of contact or a restart of the master. `open` is everything the client has
    /// open, so that the master knows which unlinked inodes must live on. `answered`: changes of the previous session that were
    /// answered and are not known to be on stable storage. `writing`: inodes of which it holds back data under write leases of the previous
    /// session; it has given up all other leases.
    OpenSession {
        previous: Option<SessionId>,
        description: String,
        open: Vec<Ino>,
        answered: Vec<SequenceRange>,
        writing: Vec<Ino>,
    },
    /// Keeps the session alive when nothing else is sent. `closed`: inodes of which the client has closed the last descriptor.
    Renew {
        session: SessionId,
        closed: Vec<Ino>,
    },
    CloseSession {
        session: SessionId,
    },

    // ---- clients: the namespace, reading
    Lookup {
        parent: Ino,
        name: Vec<u8>,
    },
    Attributes {
        ino: Ino,
    },
    /// For open(2): fresh attributes and the first page of extents; the session now holds the inode open. The lease `wanted` is given if that
    /// takes nothing from others, else a lesser one, or none.
    Open {
        session: SessionId,
        ino: Ino,
        wanted: LeaseMode,
    },
    ReadDirectory {
        ino: Ino,
        after: DirCookie,
        limit: u32,
        with_attributes: bool,
    },
    ReadLink {
        ino: Ino,
    },
    Extents {
        ino: Ino,
        offset: u64,
        end: u64,
    },
    GetXattr {
        ino: Ino,
        name: Vec<u8>,
    },
    ListXattr {
        ino: Ino,
    },
    /// Space and inodes of the whole cluster, for statfs.
    Usage,

    // ---- clients: the namespace, writing
    /// Does `mutation` exactly once. `acknowledged`: every answer up to here has arrived and may be forgotten.
    /// With `durable` the answer waits until the command is on stable storage.
    Mutate {
        session: SessionId,
        sequence: Sequence,
        acknowledged: Sequence,
        durable: bool,
        mutation: Mutation,
    },
    /// Answers when everything this session was told of is on stable storage.
    SyncLog,

    // ---- everybody
    /// The cluster map, if it is newer than `known`.
    Map {
        known: MapEpoch,
    },

    // ---- chunkservers
    /// Announces a chunkserver and its targets. The port of `address` counts; an unspecified IP is replaced by the one
    /// the connection comes from.
    RegisterServer {
        address: SocketAddr,
        incarnation: Incarnation,
        labels: BTreeMap<String, String>,
        targets: Vec<TargetAnnouncement>,
    },
    Heartbeat {
        server: ServerId,
        incarnation: Incarnation,
        known: MapEpoch,
        targets: Vec<TargetStatus>,
        load: Box<Load>,
    },

    // ---- operators (any client certificate)
    CreateToken {
        role: Role,
        lifetime_seconds: u64,
    },
    Status,

    // ---- chunkservers: healing
    /// The chunks that the master knows, of all pools, in order of id, from `from` on and before `until`.
    Chunks {
        from: ChunkId,
        until: Option<ChunkId>,
        limit: u32,
    },
    /// These slots of targets of this server have all that belongs there.
    SlotsComplete {
        server: ServerId,
        incarnation: Incarnation,
        slots: Vec<CompleteSlot>,
    },

    // ---- operators
    /// Puts a chunkserver out of service, or back. Without `insist` only what leaves all redundancy as it is.
    ChangeServer {
        server: ServerId,
        change: ServerChange,
        insist: bool,
    },

    // ---- clients: compaction
    /// Something to rewrite. `done`: what the session was given before has been published.
    CompactionWork {
        session: SessionId,
        done: bool,
    },

    // ---- operators: checks
    /// Starts a check; there is one at a time.
    BeginCheck {
        work: CheckWork,
    },
    /// How far the check is, and what it found from finding number `from` on. A check that nobody asks about ends.
    FollowCheck {
        check: u64,
        from: u64,
    },

    // ---- load
    /// What the client does. It belongs to the session that was opened over the same connection.
    ReportLoad {
        load: Box<Load>,
    },
    /// What everybody does.
    Load,

    // ---- operators
    /// Ends the session of another client, as if it had been silent for too long.
    EndSession {
        session: SessionId,
    },

    // ---- clients: locks
    /// Locks and unlocks, each done exactly once: `order` numbers these calls of a session; every answer up to `acknowledged` has arrived.
    Lock {
        session: SessionId,
        order: Sequence,
        acknowledged: Sequence,
        call: LockCall,
    },
    /// What is in the way of a lock, if anything is.
    TestLock {
        session: SessionId,
        claim: LockClaim,
    },
    /// What the client holds, before it asks this life of the master for anything; `last`: this was all of it.
    AssertLocks {
        session: SessionId,
        claims: Vec<LockClaim>,
        last: bool,
    },

    // ---- clients: leases
    /// The lease `wanted` of an inode, which others give back for it, with fresh attributes and the first page of extents. A read lease may be
    /// missing from the answer: then somebody is about to change the inode.
    Lease {
        session: SessionId,
        ino: Ino,
        wanted: LeaseMode,
    },

    // ---- operators
    /// Makes a pool on the chunkservers that have these labels. Without `insist` only if its scheme can be spread well over them.
    CreatePool {
        name: String,
        scheme: Scheme,
        labels: BTreeMap<String, String>,
        insist: bool,
    },
}

/// What is wanted of the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockCall {
    Set {
        claim: LockClaim,
        patience: LockPatience,
    },
    /// The call of that order is not wanted any more, if it has not been granted yet.
    Cancel {
        order: Sequence,
    },
}

/// What shall happen if somebody is in the way of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockPatience {
    /// `Denied`.
    None,
    /// It waits.
    Waits,
    /// It waits, but for a wait that could never end: process locks.
    WaitsIfItEnds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockAnswer {
    /// Locked, or let go. `version`: of the inode, so that the holder notices what others did before.
    Done {
        version: u64,
    },
    /// Somebody has it; `by_us`: the session that asked.
    Denied {
        by_us: bool,
    },
    Deadlock,
    TooMany,
    /// Not yet: to be asked for again, with a new order.
    Pending,
    Cancelled,
}

/// A lock in the way of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSeen {
    pub range: LockRange,
    pub mode: LockMode,
    /// On the machine that asked; 0 for a holder elsewhere.
    pub pid: u32,
}

/// Extents of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileExtents {
    pub ino: Ino,
    /// In order of offset, without overlaps.
    pub extents: Vec<Extent>,
}

/// What a client shall put into fresh chunks: the content of these extents, in this order, in one chunk if they fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionWork {
    pub pool: PoolId,
    pub files: Vec<FileExtents>,
    /// Each chunk that the extents name, once.
    pub chunks: Vec<ChunkInfo>,
}

/// Mutations of one session, by their sequences; both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRange {
    pub first: Sequence,
    pub last: Sequence,
}

/// A slot that is complete: every chunk of its group was compared after the map `epoch` was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CompleteSlot {
    pub pool: PoolId,
    pub group: u32,
    pub slot: u8,
    pub epoch: MapEpoch,
}

/// What an operator wants of a chunkserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerChange {
    /// Its shards move elsewhere; meanwhile it serves what it has.
    Drain,
    /// It was drained, and shall serve again.
    Undrain,
    /// For good. It must be drained, or dead.
    Remove,
}

/// A data directory that a chunkserver offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetAnnouncement {
    /// Random, written into the directory when it was first used: tells a moved disk from a new one.
    pub uuid: [u8; 16],
    /// The id given earlier, if any.
    pub id: Option<TargetId>,
    pub capacity_bytes: u64,
}

/// A change of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// Makes an inode and its entry. With `open`, the session holds it open. With `or_existing`, an existing regular file
    /// of that name is the answer (open(2) with O_CREAT but without O_EXCL).
    Create {
        parent: Ino,
        name: Vec<u8>,
        inode: NewInode,
        open: bool,
        or_existing: bool,
    },
    /// O_TMPFILE: a regular file without a name, open in this session.
    CreateUnnamed {
        parent: Ino,
        inode: NewInode,
    },
    Link {
        ino: Ino,
        parent: Ino,
        name: Vec<u8>,
    },
    Unlink {
        parent: Ino,
        name: Vec<u8>,
    },
    RemoveDirectory {
        parent: Ino,
        name: Vec<u8>,
    },
    Rename {
        from_parent: Ino,
        from_name: Vec<u8>,
        to_parent: Ino,
        to_name: Vec<u8>,
        mode: RenameMode,
    },
    /// With `size`: truncates or extends.
    SetAttributes {
        ino: Ino,
        change: AttributeChange,
    },
    SetXattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    RemoveXattr {
        ino: Ino,
        name: Vec<u8>,
    },
    /// Publishes written data of one or many files at once. Newest wins over what the extents cover.
    Commit {
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
    },
    /// Turns a range into a hole. With `extend`, the file reaches at least the range's end afterwards (zero range).
    PunchHole {
        ino: Ino,
        offset: u64,
        bytes: u64,
        extend: bool,
    },
    /// Shares the extents of a range with another place (copy_file_range, clone). Copies up to the source's end.
    CopyRange {
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        bytes: u64,
    },
    /// Compaction: where a file still has what `old` says, it has from now on the same bytes in the place that `new` says. What has
    /// changed since stays as it is; so do sizes, times and versions.
    Compact {
        files: Vec<FileCompaction>,
        chunks: Vec<NewChunk>,
    },
    /// These were read. Their access times move forward; nothing else changes, not even their versions.
    NoteAccess {
        accesses: Vec<Access>,
    },
    /// The policy of a directory: the pool for the content of files that are made in it or below it from now on, unless a directory in
    /// between has a policy of its own. `None`: it has none of its own (any more).
    SetPolicy {
        ino: Ino,
        pool: Option<PoolId>,
    },
    /// `Commit` of chunks that are all on stable storage, after [`MasterError::PutElsewhere`].
    CommitSynced {
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
    },
}

/// When an inode was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    pub ino: Ino,
    pub at: Timestamp,
}

/// The extents of one file that a compaction replaces, and their replacement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCompaction {
    pub ino: Ino,
    /// In order of offset, without overlaps.
    pub old: Vec<Extent>,
    /// The same bytes elsewhere: in order of offset, without overlaps.
    pub new: Vec<Extent>,
}

/// Whether the chunks of a commit are on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Puts {
    Unsynced,
    Synced,
}

/// Data of one file in a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCommit {
    pub ino: Ino,
    /// Without overlaps. Their chunks are known to the master or in the same commit's `chunks`.
    pub extents: Vec<Extent>,
    /// The file reaches at least this far afterwards (max-merge).
    pub size_at_least: u64,
    pub mtime: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    Replace,
    /// RENAME_NOREPLACE
    NoReplace,
    /// RENAME_EXCHANGE
    Exchange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    Set,
    /// XATTR_CREATE
    Create,
    /// XATTR_REPLACE
    Replace,
}

/// The result of a mutation; also what is kept for a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutationReply {
    /// The entry made, linked or found; for `SetAttributes`, `SetPolicy`, `PunchHole`: the inode afterwards.
    Inode(Attributes),
    /// `Unlink` and `RemoveDirectory`: the inode afterwards, with the links it has left.
    Removed(Attributes),
    Done,
    /// `Commit`: the attributes of each file afterwards, in order; an error for a file that is gone.
    Committed(Vec<Result<Attributes, FsError>>),
    /// `CopyRange`: how many bytes, and the destination afterwards.
    Copied {
        bytes: u64,
        to: Attributes,
    },
    /// `Compact`: how many bytes are in their new place, and of how many the extents had changed meanwhile.
    Compacted {
        bytes: u64,
        stale_bytes: u64,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasterReply {
    /// DER: the new certificate, and the cluster's authority.
    Joined {
        certificate: Vec<u8>,
        authority: Vec<u8>,
        name: String,
    },
    /// `now` is the master's wall time: the ticket of the client's next puts. `unknown`: those of the answered changes of the session that the
    /// master does not know, because it has lost power before they were on stable storage. In the same `incarnation` (life of the
    /// process) nothing is lost. Leases are good for `lease_ms` after the sending of the last request that was answered.
    Session {
        session: SessionId,
        cluster: [u8; 16],
        root: Attributes,
        now: Timestamp,
        incarnation: Incarnation,
        unknown: Vec<SequenceRange>,
        lease_ms: u64,
        /// As in `Renewed`.
        is_alone: bool,
    },
    /// Everything that was answered before is on stable storage.
    Renewed {
        epoch: MapEpoch,
        now: Timestamp,
        /// Nobody else holds a lease.
        is_alone: bool,
    },
    Closed,
    Attributes(Attributes),
    Opened {
        attributes: Attributes,
        extents: ExtentPage,
    },
    Directory {
        entries: Vec<DirectoryEntry>,
        end: bool,
    },
    Link {
        target: Vec<u8>,
    },
    Extents(ExtentPage),
    Xattr {
        value: Vec<u8>,
    },
    Xattrs {
        names: Vec<Vec<u8>>,
    },
    Usage(Usage),
    Mutated(MutationReply),
    LogSynced,
    Map(Option<ClusterMap>),
    Registered {
        server: ServerId,
        targets: Vec<TargetId>,
    },
    Heartbeat {
        epoch: MapEpoch,
    },
    Token {
        token: String,
    },
    Status(Box<Status>),
    /// At `now`, under the map `epoch`, these were all chunks from the one asked for on; with `end` there are none behind them
    /// in the range. Durable: whatever is not here will not come back by a power loss.
    Chunks {
        chunks: Vec<ChunkInfo>,
        end: bool,
        now: Timestamp,
        epoch: MapEpoch,
    },
    SlotsNoted,
    ServerChanged {
        epoch: MapEpoch,
    },
    /// `None`: nothing at present.
    CompactionWork(Option<CompactionWork>),
    CheckBegun {
        check: u64,
    },
    Check(CheckReport),
    Lock(LockAnswer),
    LockTest(Option<LockSeen>),
    /// These were not taken over, for somebody else has them now.
    LocksAsserted {
        refused: Vec<LockClaim>,
    },
    LoadNoted,
    Load(Box<LoadReport>),
    /// `Lookup`: there is no such name. (Not an error, for the reply may come with a lease of the directory.)
    NoSuchName,
    PoolCreated {
        pool: PoolId,
    },
}

/// Space and inodes of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// What can be stored in all, in bytes of file content (raw space over the default pool's overhead).
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub inodes: u64,
}

/// Why the master did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MasterError {
    /// The answer to the question.
    #[error("{0}")]
    Fs(#[from] FsError),
    /// The session is unknown or was ended; open a new one.
    #[error("session {0} is not known")]
    NoSuchSession(SessionId),
    /// The answer to this mutation was already acknowledged and forgotten: the client's bookkeeping is broken.
    #[error("the answer to mutation {0} has been forgotten")]
    Forgotten(Sequence),
    /// The commit's chunks were put so long ago that they may have been collected; put them again.
    #[error("the chunks were put too long ago")]
    TicketExpired,
    /// The commit's chunks were put under a map that is out of date; fetch the map and put them again.
    #[error("the map is now {now}")]
    MapMoved { now: MapEpoch },
    #[error("{0}")]
    TokenRefused(TokenRefusal),
    #[error("the certificate is not one of a {needed}")]
    Denied { needed: Role },
    #[error("the request makes no sense: {0}")]
    Malformed(String),
    /// The master can't persist any more, or is shutting down; ask again later.
    #[error("the master is not available: {0}")]
    Unavailable(String),
    /// It can be done, but would cost redundancy.
    #[error("{0}")]
    Unwise(String),
    /// Content of the commit is stored in another pool already. Equal content is stored once, in the pool that protects it better, or else was
    /// asked for last: put these chunks in the pools named here, stable, and commit them as such.
    #[error("content is stored in another pool already")]
    PutElsewhere { chunks: Vec<(ChunkId, PoolId)> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the join token is not known to this cluster: create one with `cairn token create`")]
    Unknown,
    #[error("the join token has expired: create one with `cairn token create`")]
    Expired,
    #[error("the join token has been used already: create one with `cairn token create`")]
    Used,
    #[error("the join token is for another role")]
    WrongRole,
}

/// What the head of a reply holds.
pub type MasterAnswer = Result<MasterReply, MasterError>;

/// What `cairn status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub cluster: [u8; 16],
    pub epoch: MapEpoch,
    pub master_address: SocketAddr,
    pub pools: Vec<Pool>,
    pub servers: Vec<ServerStatus>,
    pub sessions: Vec<SessionStatus>,
    pub inodes: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    /// What an operator should know: plain sentences.
    pub notes: Vec<String>,
    pub compaction: CompactionStatus,
}

/// How fragmented files are, and what is done about it. Counts of work done are since the master started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompactionStatus {
    /// Of all files.
    pub extents: u64,
    pub extent_bytes: u64,
    /// Windows with too many extents, and chunks that are mostly dead, which wait to be rewritten. Not counted beyond 10,000.
    pub windows_waiting: u64,
    pub chunks_waiting: u64,
    /// Rewrites that were published, and their bytes.
    pub compactions: u64,
    pub bytes_rewritten: u64,
    /// Bytes that had changed before their rewrite was published.
    pub bytes_stale: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub id: ServerId,
    pub address: SocketAddr,
    /// The worst of its targets'.
    pub state: TargetState,
    /// Since the last heartbeat; `None` if there was none since the master started.
    pub silent_ms: Option<u64>,
    pub labels: BTreeMap<String, String>,
    pub targets: Vec<(Target, Option<TargetStatus>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub id: SessionId,
    pub description: String,
    pub address: Option<SocketAddr>,
    pub silent_ms: Option<u64>,
    pub open_inodes: u64,
    /// Ranges that are locked.
    pub locks: u64,
    pub leases: u64,
    /// What it has asked and told of files and names since the master started.
    pub requests: u64,
}
