//! The stored records. Their keys and versions are in [`crate::keys`].

use crate::keys::{self, Record};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::extent::{ChunkInfo, Extent, SlotMask};
use cairn_common::ids::{ChunkId, DirCookie, Incarnation, Ino, LogIndex, MapEpoch, PoolId, Sequence, ServerId};
use cairn_common::limits::DELETION_GRACE;
use cairn_common::map::{Slot, TargetState};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{MasterError, MutationReply, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Reads one record.
pub fn fetch<R: Record>(reader: &dyn Reader, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
    reader.get(table, key)?.map(|bytes| R::decode(&bytes)).transpose()
}

/// Reads the rows of a range in order until `row` returns `None` or `limit` of them are collected.
pub fn collect<T>(
    reader: &dyn Reader,
    table: Table,
    from: &[u8],
    until: Option<&[u8]>,
    limit: usize,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    let mut failure = None;
    if limit == 0 {
        return Ok(rows);
    }
    reader.scan(table, from, until, false, &mut |key, value| {
        match row(key, value) {
            Ok(Some(found)) => rows.push(found),
            Ok(None) => return ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failure.map_or(Ok(rows), Err)
}

// ---- the namespace

/// An inode. `size` of a directory is the number of its entries, of a symlink the length of its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    /// Bytes of all extents, also of those that still wait for their removal.
    pub allocated: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Index of the last command that changed the inode.
    pub version: u64,
    /// What a listing of the extended attributes needs: each name and a NUL. 0 if there is none.
    pub xattr_list_bytes: u32,
    pub detail: Detail,
    /// Of a regular file: where its content goes. Of a directory: its policy. See [`Attributes::pool`].
    pub pool: Option<PoolId>,
}

/// What only one kind of inode has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    Regular {
        /// If present, every extent above this offset is garbage that is being removed in steps: it counts as absent.
        /// No extent reaches across.
        cut: Option<u64>,
        /// Made without a name and never linked since: may still be given one.
        unnamed: bool,
    },
    Directory {
        /// For `..`; the root is its own parent. A removed directory keeps its last one.
        parent: Ino,
    },
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    CharDevice {
        rdev: u32,
    },
    BlockDevice {
        rdev: u32,
    },
}

impl Inode {
    pub fn kind(&self) -> FileKind {
        match self.detail {
            Detail::Regular { .. } => FileKind::Regular,
            Detail::Directory { .. } => FileKind::Directory,
            Detail::Symlink { .. } => FileKind::Symlink,
            Detail::Fifo => FileKind::Fifo,
            Detail::Socket => FileKind::Socket,
            Detail::CharDevice { .. } => FileKind::CharDevice,
            Detail::BlockDevice { .. } => FileKind::BlockDevice,
        }
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.detail, Detail::Directory { .. })
    }

    /// Above this offset there is nothing; see [`Detail::Regular`].
    pub fn cut(&self) -> Option<u64> {
        match self.detail {
            Detail::Regular { cut, .. } => cut,
            _ => None,
        }
    }

    pub fn attributes(&self, ino: Ino) -> Attributes {
        let rdev = match self.detail {
            Detail::CharDevice { rdev } | Detail::BlockDevice { rdev } => rdev,
            _ => 0,
        };
        Attributes {
            ino,
            kind: self.kind(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            rdev,
            size: self.size,
            allocated: self.allocated,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            has_xattrs: self.xattr_list_bytes > 0,
            pool: self.pool,
        }
    }
}

/// A name of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dentry {
    pub ino: Ino,
    pub kind: FileKind,
    /// Its place in the listing.
    pub cookie: DirCookie,
}

/// A place in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: FileKind,
}

/// An extent; its end is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentRecord {
    pub bytes: u32,
    pub chunk: ChunkId,
    pub chunk_offset: u32,
}

impl ExtentRecord {
    pub fn of(extent: &Extent) -> Self {
        Self { bytes: extent.bytes, chunk: extent.chunk, chunk_offset: extent.chunk_offset }
    }

    pub fn ending_at(self, end: u64) -> Extent {
        let file_offset = end.saturating_sub(u64::from(self.bytes));
        Extent { file_offset, bytes: self.bytes, chunk: self.chunk, chunk_offset: self.chunk_offset }
    }
}

/// A file whose extents above `from` are being removed. Its inode may be gone already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrinking {
    pub from: u64,
}

// ---- chunks

/// How a chunk is stored: `ChunkInfo` without the id, which is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChunk {
    pub bytes: u32,
    pub pool: PoolId,
    pub scheme: Scheme,
    pub slots: SlotMask,
}

impl StoredChunk {
    pub fn of(info: &ChunkInfo) -> Self {
        Self { bytes: info.bytes, pool: info.pool, scheme: info.scheme, slots: info.slots }
    }

    pub fn info(&self, id: ChunkId) -> ChunkInfo {
        ChunkInfo { id, bytes: self.bytes, pool: self.pool, scheme: self.scheme, slots: self.slots }
    }
}

/// A chunk and who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRecord {
    pub stored: StoredChunk,
    /// Extents that name it.
    pub references: u64,
    /// Sum of their lengths; more than the chunk has if they share.
    pub live_bytes: u64,
    /// Since when nothing refers to it: present exactly if `references` is 0.
    pub died: Option<Timestamp>,
    /// Every extent that names it has its key in here.
    pub named: Span,
    /// When the chunk is to be rewritten: present exactly if it is mostly dead, and not altogether.
    pub sparse: Option<Timestamp>,
}

impl ChunkRecord {
    /// Less than half of it is in use.
    pub fn is_sparse(&self) -> bool {
        self.references > 0 && self.live_bytes.saturating_mul(2) < u64::from(self.stored.bytes)
    }
}

/// How it was stored before.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ChunkRecordV1 {
    stored: StoredChunk,
    references: u64,
    live_bytes: u64,
    died: Option<Timestamp>,
}

impl From<ChunkRecordV1> for ChunkRecord {
    fn from(old: ChunkRecordV1) -> Self {
        let ChunkRecordV1 { stored, references, live_bytes, died } = old;
        Self { stored, references, live_bytes, died, named: Span::EVERYTHING, sparse: None }
    }
}

/// The key of an extent: of which file, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub ino: Ino,
    pub end: u64,
}

/// Keys of extents from one to another, both included. Files that are written together have neighbouring inodes, so the span of a pack is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub first: Place,
    pub last: Place,
}

impl Span {
    pub const EVERYTHING: Self = Self { first: Place { ino: Ino(0), end: 0 }, last: Place { ino: Ino(u64::MAX), end: u64::MAX } };

    pub fn of(place: Place) -> Self {
        Self { first: place, last: place }
    }

    pub fn covers(self, place: Place) -> bool {
        self.first <= place && place <= self.last
    }

    /// The shortest span around both.
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

// ---- compaction

/// A window of a file: the extents that end in an aligned range of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowName {
    pub ino: Ino,
    pub number: u64,
}

/// A window that has so many extents that they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub extents: u32,
    /// So many can't be joined: looked at when it was to be rewritten. 0 if nobody has looked.
    pub floor: u32,
    /// When it is to be rewritten.
    pub due: Option<Timestamp>,
}

/// Extents of all files, garbage of shrinking ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExtentUsage {
    pub extents: u64,
    pub bytes: u64,
}

/// Numbers that the state machine goes by; they are chosen when a cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// For how long a dead chunk is kept; [`cairn_common::limits::DELETION_GRACE`] says more.
    pub deletion_grace: Duration,
    /// A window of 4 MiB with so many extents is rewritten, but only after `window_patience`: meanwhile more may come.
    pub window_many: u32,
    /// With so many it is rewritten as soon as possible.
    pub window_too_many: u32,
    pub window_patience: Duration,
    /// A chunk that is mostly dead is rewritten after this time, unless it has died altogether by then.
    pub sparse_patience: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            deletion_grace: DELETION_GRACE,
            window_many: 128,
            window_too_many: 512,
            window_patience: Duration::from_secs(120),
            sparse_patience: Duration::from_secs(300),
        }
    }
}

impl Rules {
    /// The rules of this cluster.
    pub fn of(reader: &dyn Reader) -> Result<Self, StoreError> {
        Ok(fetch(reader, Table::Meta, &keys::rules())?.unwrap_or_default())
    }

    /// Windows with fewer extents are not counted.
    pub fn window_counted(&self) -> u32 {
        (self.window_many / 4).max(1)
    }
}

// ---- sessions

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub description: String,
    pub opened: Timestamp,
}

/// How far a session's results have been acknowledged, hence forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub acknowledged: Sequence,
}

/// The answer to a mutation, kept for a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResult(pub Result<MutationReply, MasterError>);

// ---- repairs

/// The last repair of the tables: see `Command::Mend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MendProgress {
    /// What it rested on.
    pub seen: LogIndex,
    pub batch: u64,
    /// When it was done itself.
    pub done: LogIndex,
}

// ---- the cluster

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub role: Role,
    pub expires: Timestamp,
    pub used: Option<TokenUse>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    pub public_key: [u8; 32],
    pub number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// As in its certificate.
    pub name: String,
    pub address: SocketAddr,
    pub incarnation: Incarnation,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub uuid: [u8; 16],
    pub server: ServerId,
    pub state: TargetState,
    pub full: bool,
    pub capacity_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    pub name: String,
    pub scheme: Scheme,
    pub prefix_bits: u8,
    pub placement_seed: u64,
    /// What a chunkserver must be labelled with to hold slots.
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    pub slots: Vec<Slot>,
    /// The map that brought the present holders: chunks put under an older one may be in the wrong place.
    pub changed: MapEpoch,
}

/// Identity of the cluster, and numbers that change seldom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub uuid: [u8; 16],
    pub epoch: MapEpoch,
    pub next_server: u32,
    pub next_target: u32,
    /// How many have joined with a token.
    pub joined: u64,
}

/// Numbers that change often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub next_ino: u64,
    pub next_session: u64,
    pub inodes: u64,
}

/// Chunks of a pool that have a record, whether referred to or not yet forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolUsage {
    pub chunks: u64,
    pub chunk_bytes: u64,
}
