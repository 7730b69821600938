//! What a check finds. Each kind of problem says what is wrong in a sentence and, if it is certain what is right, what mends it.

use crate::state::command::Mend;
use crate::state::record::{ExtentUsage, PoolUsage, Span, WindowName};
use cairn_common::attributes::FileKind;
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, Sequence, SessionId};
use cairn_common::time::Timestamp;
use std::fmt;

/// Extents that name a chunk, and the sum of their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uses {
    pub references: u64,
    pub live_bytes: u64,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A row can't be decoded.
    Row {
        table: &'static str,
        key: Vec<u8>,
        reason: String,
    },

    // ---- names
    NoRoot,
    /// The entry names an inode that does not exist.
    EntryOfNothing {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
    },
    EntryKind {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
        said: FileKind,
        is: FileKind,
    },
    /// The entry is in something that is no directory.
    EntryNowhere {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
    },
    /// The entry is not in the listing of its directory, or wrongly.
    EntryUnlisted {
        parent: Ino,
        name: Vec<u8>,
    },
    /// A listing shows a name that can't be looked up.
    ListedOnly {
        parent: Ino,
        cookie: DirCookie,
        name: Vec<u8>,
    },
    /// A directory's `..` is another than the directory that names it. `is_extra`: the other one names it, too.
    EntryParent {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
        believed: Ino,
        is_extra: bool,
    },
    /// A directory has another name in the same directory.
    SecondName {
        parent: Ino,
        name: Vec<u8>,
        ino: Ino,
    },
    /// Directories are inside each other.
    Loop {
        ino: Ino,
        entry: Option<(Ino, Vec<u8>)>,
    },
    Links {
        ino: Ino,
        counted: u64,
        stored: u64,
    },
    Entries {
        ino: Ino,
        counted: u64,
        stored: u64,
    },
    /// No name leads to it, though nobody has removed it. `adopted`: its link count when it has a name again.
    Unreachable {
        ino: Ino,
        adopted: u64,
        stored: u64,
    },
    /// It was removed, and nobody has it open.
    Leftover {
        ino: Ino,
    },
    /// The rows that say that a session has a removed inode open do not fit.
    Holder {
        ino: Ino,
        session: SessionId,
    },

    // ---- attributes and content
    XattrBytes {
        ino: Ino,
        counted: u64,
        stored: u64,
    },
    /// Extended attributes of an inode that does not exist.
    StrayXattrs {
        ino: Ino,
    },
    /// Content of an inode that does not exist.
    StrayExtents {
        ino: Ino,
        bytes: u64,
        end: u64,
        xattr_bytes: u64,
        names: u32,
    },
    Allocated {
        ino: Ino,
        counted: u64,
        stored: u64,
    },
    Overlap {
        ino: Ino,
        offset: u64,
    },
    EmptyExtent {
        ino: Ino,
        end: u64,
    },
    BeyondSize {
        ino: Ino,
        end: u64,
        size: u64,
    },
    AcrossCut {
        ino: Ino,
        offset: u64,
        cut: u64,
    },
    /// Where the inode and the queue of those that shrink say that content ends.
    Cut {
        ino: Ino,
        inode: Option<u64>,
        queue: Option<u64>,
    },
    /// The extent's chunk has no record: its bytes can't be found.
    NoChunk {
        ino: Ino,
        offset: u64,
        chunk: ChunkId,
    },
    BeyondChunk {
        ino: Ino,
        offset: u64,
        chunk: ChunkId,
        reach: u64,
        bytes: u64,
    },

    /// A file's pool, or a directory's policy, names a pool that does not exist.
    NoPool {
        ino: Ino,
        pool: PoolId,
    },

    // ---- chunks
    ChunkUses {
        chunk: ChunkId,
        counted: Uses,
        stored: Uses,
    },
    /// References and the time of death contradict each other, or the queue of dead chunks does.
    HalfDead {
        chunk: ChunkId,
    },
    ChunkLayout {
        chunk: ChunkId,
        reason: String,
    },
    /// The queue of dead chunks has a chunk that is not dead since then.
    DeadRow {
        died: Timestamp,
        chunk: ChunkId,
    },
    Usage {
        pool: PoolId,
        counted: PoolUsage,
        stored: PoolUsage,
    },

    // ---- compaction
    /// A chunk does not know that it is mostly dead, or that it is not, or its queue does not.
    HalfSparse {
        chunk: ChunkId,
    },
    /// The queue of mostly dead chunks has a chunk that is not due then.
    SparseRow {
        due: Timestamp,
        chunk: ChunkId,
    },
    /// Extents name a chunk outside of where the chunk says it is named.
    Unnamed {
        chunk: ChunkId,
        /// Around them.
        span: Span,
    },
    Window {
        name: WindowName,
        counted: u32,
        stored: Option<u32>,
    },
    /// A window is due, but not in the queue.
    WindowUnqueued {
        name: WindowName,
    },
    /// The queue of windows has one that is not due then.
    DueWindowRow {
        due: Timestamp,
        name: WindowName,
    },
    ExtentUsage {
        counted: ExtentUsage,
        stored: Option<ExtentUsage>,
    },

    // ---- the cluster
    Inodes {
        counted: u64,
        stored: u64,
    },
    NextIno {
        highest: Ino,
        next: u64,
    },
    /// A result of a session that is gone, or that was acknowledged.
    StrayResult {
        session: SessionId,
        sequence: Sequence,
    },
    NoProgress {
        session: SessionId,
    },
    Group {
        pool: PoolId,
        group: u32,
        reason: String,
    },
    Cluster {
        reason: String,
    },
}

fn by(counted: u64, stored: u64) -> i64 {
    counted.wrapping_sub(stored) as i64
}

impl Problem {
    /// A word for machines. Part of the output of `cairn fsck --json`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Row { .. } => "unreadable-row",
            Self::NoRoot => "no-root",
            Self::EntryOfNothing { .. } => "entry-of-nothing",
            Self::EntryKind { .. } => "entry-kind",
            Self::EntryNowhere { .. } => "entry-nowhere",
            Self::EntryUnlisted { .. } => "entry-unlisted",
            Self::ListedOnly { .. } => "listed-only",
            Self::EntryParent { .. } => "directory-parent",
            Self::SecondName { .. } => "directory-names",
            Self::Loop { .. } => "directory-loop",
            Self::Links { .. } => "link-count",
            Self::Entries { .. } => "entry-count",
            Self::Unreachable { .. } => "unreachable",
            Self::Leftover { .. } => "leftover",
            Self::Holder { .. } => "orphan-holder",
            Self::XattrBytes { .. } => "xattr-bytes",
            Self::StrayXattrs { .. } => "stray-xattrs",
            Self::StrayExtents { .. } => "stray-content",
            Self::Allocated { .. } => "allocated",
            Self::Overlap { .. } => "extent-overlap",
            Self::EmptyExtent { .. } => "extent-empty",
            Self::BeyondSize { .. } => "extent-beyond-size",
            Self::AcrossCut { .. } => "extent-across-cut",
            Self::Cut { .. } => "cut",
            Self::NoChunk { .. } => "chunk-unknown",
            Self::BeyondChunk { .. } => "extent-beyond-chunk",
            Self::NoPool { .. } => "policy",
            Self::ChunkUses { .. } => "chunk-references",
            Self::HalfDead { .. } => "chunk-half-dead",
            Self::ChunkLayout { .. } => "chunk-layout",
            Self::DeadRow { .. } => "dead-queue",
            Self::Usage { .. } => "pool-usage",
            Self::HalfSparse { .. } => "chunk-half-sparse",
            Self::SparseRow { .. } => "sparse-queue",
            Self::Unnamed { .. } => "chunk-span",
            Self::Window { .. } => "window-count",
            Self::WindowUnqueued { .. } | Self::DueWindowRow { .. } => "window-queue",
            Self::ExtentUsage { .. } => "extent-count",
            Self::Inodes { .. } => "inode-count",
            Self::NextIno { .. } => "next-inode",
            Self::StrayResult { .. } => "stray-result",
            Self::NoProgress { .. } => "session-progress",
            Self::Group { .. } => "group",
            Self::Cluster { .. } => "cluster",
        }
    }

    /// The inode in question, if there is one whose name would tell more: of an entry, its directory.
    pub fn inode(&self) -> Option<Ino> {
        match self {
            Self::EntryOfNothing { parent, .. }
            | Self::EntryKind { parent, .. }
            | Self::EntryUnlisted { parent, .. }
            | Self::ListedOnly { parent, .. }
            | Self::EntryParent { parent, .. }
            | Self::SecondName { parent, .. } => Some(*parent),
            Self::Loop { ino, .. }
            | Self::Links { ino, .. }
            | Self::Entries { ino, .. }
            | Self::XattrBytes { ino, .. }
            | Self::Allocated { ino, .. }
            | Self::Overlap { ino, .. }
            | Self::EmptyExtent { ino, .. }
            | Self::BeyondSize { ino, .. }
            | Self::AcrossCut { ino, .. }
            | Self::Cut { ino, .. }
            | Self::NoChunk { ino, .. }
            | Self::BeyondChunk { ino, .. }
            | Self::NoPool { ino, .. } => Some(*ino),
            Self::Window { name, .. } | Self::WindowUnqueued { name } | Self::DueWindowRow { name, .. } => Some(name.ino),
            _ => None,
        }
    }

    /// The file whose content is not what it should be, so that it can't even be removed.
    pub fn breaks_content_of(&self) -> Option<Ino> {
        match self {
            Self::NoChunk { ino, .. } | Self::Overlap { ino, .. } | Self::EmptyExtent { ino, .. } => Some(*ino),
            _ => None,
        }
    }

    pub fn chunk(&self) -> Option<ChunkId> {
        match self {
            Self::NoChunk { chunk, .. }
            | Self::BeyondChunk { chunk, .. }
            | Self::ChunkUses { chunk, .. }
            | Self::HalfDead { chunk }
            | Self::ChunkLayout { chunk, .. }
            | Self::DeadRow { chunk, .. }
            | Self::HalfSparse { chunk }
            | Self::SparseRow { chunk, .. }
            | Self::Unnamed { chunk, .. } => Some(*chunk),
            _ => None,
        }
    }

    /// What sets it right, where that is certain and loses nothing that could be read.
    pub fn mend(&self) -> Option<Mend> {
        Some(match self {
            Self::EntryOfNothing { parent, name, .. } | Self::SecondName { parent, name, .. } => {
                Mend::DropEntry { parent: *parent, name: name.clone() }
            }
            Self::EntryParent { parent, name, is_extra: true, .. } => Mend::DropEntry { parent: *parent, name: name.clone() },
            Self::EntryParent { parent, ino, believed, is_extra: false, .. } => Mend::SetParent { ino: *ino, from: *believed, to: *parent },
            Self::EntryKind { parent, name, .. } => Mend::SetKind { parent: *parent, name: name.clone() },
            Self::EntryNowhere { parent, name, .. } => Mend::Rehome { parent: *parent, name: name.clone() },
            Self::Loop { entry: Some((parent, name)), .. } => Mend::Rehome { parent: *parent, name: name.clone() },
            Self::EntryUnlisted { parent, name } => Mend::List { parent: *parent, name: name.clone() },
            Self::ListedOnly { parent, cookie, .. } => Mend::Unlist { parent: *parent, cookie: *cookie },
            Self::Links { ino, counted, stored } => Mend::Links { ino: *ino, by: by(*counted, *stored) },
            Self::Entries { ino, counted, stored } => Mend::Entries { ino: *ino, by: by(*counted, *stored) },
            Self::Unreachable { ino, adopted, stored } => Mend::Adopt { ino: *ino, by: by(*adopted, *stored) },
            Self::Leftover { ino } => Mend::Free { ino: *ino },
            Self::Holder { ino, session } => Mend::Holder { ino: *ino, session: *session },
            Self::XattrBytes { ino, counted, stored } => Mend::XattrBytes { ino: *ino, by: by(*counted, *stored) },
            Self::StrayXattrs { ino } => Mend::DropXattrs { ino: *ino },
            Self::StrayExtents { ino, bytes, end, xattr_bytes, names } => {
                Mend::Revive { ino: *ino, size: *end, allocated: *bytes, xattr_list_bytes: *xattr_bytes as u32, names: *names }
            }
            Self::Allocated { ino, counted, stored } => Mend::Allocated { ino: *ino, by: by(*counted, *stored) },
            Self::BeyondSize { ino, .. } => Mend::GrowToContent { ino: *ino },
            Self::Cut { ino, .. } => Mend::Cut { ino: *ino },
            Self::NoPool { ino, pool } => Mend::DropPolicy { ino: *ino, pool: *pool },
            Self::ChunkUses { chunk, counted, stored } => Mend::ChunkUses {
                chunk: *chunk,
                references: by(counted.references, stored.references),
                live_bytes: by(counted.live_bytes, stored.live_bytes),
            },
            Self::HalfDead { chunk } | Self::HalfSparse { chunk } => Mend::ChunkUses { chunk: *chunk, references: 0, live_bytes: 0 },
            Self::DeadRow { died, chunk } => Mend::DeadRow { died: *died, chunk: *chunk },
            Self::Usage { pool, counted, stored } => Mend::Usage {
                pool: *pool,
                chunks: by(counted.chunks, stored.chunks),
                chunk_bytes: by(counted.chunk_bytes, stored.chunk_bytes),
            },
            Self::SparseRow { due, chunk } => Mend::SparseRow { due: *due, chunk: *chunk },
            Self::Unnamed { chunk, span } => Mend::Widen { chunk: *chunk, span: *span },
            Self::Window { name, .. } | Self::WindowUnqueued { name } => Mend::Window { name: *name },
            Self::DueWindowRow { due, name } => Mend::DueWindowRow { due: *due, name: *name },
            Self::ExtentUsage { counted, stored: Some(stored) } => {
                Mend::Extents { extents: by(counted.extents, stored.extents), bytes: by(counted.bytes, stored.bytes) }
            }
            Self::Inodes { counted, stored } => Mend::Inodes { by: by(*counted, *stored) },
            Self::NextIno { highest, .. } => Mend::NextIno { above: *highest },
            Self::StrayResult { session, sequence } => Mend::DropResult { session: *session, sequence: *sequence },
            Self::Row { .. }
            | Self::NoRoot
            | Self::Loop { entry: None, .. }
            | Self::Overlap { .. }
            | Self::EmptyExtent { .. }
            | Self::AcrossCut { .. }
            | Self::NoChunk { .. }
            | Self::BeyondChunk { .. }
            | Self::ChunkLayout { .. }
            | Self::ExtentUsage { stored: None, .. }
            | Self::NoProgress { .. }
            | Self::Group { .. }
            | Self::Cluster { .. } => return None,
        })
    }
}

/// A name as people can read it.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// The part of a file that a window is.
struct Part<'a>(&'a WindowName);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.0.range();
        write!(f, "bytes {} to {}", range.start, range.end)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { table, key, reason } => {
                write!(f, "a row of table {table} can't be read ({reason}); its key is {}", data_encoding::HEXLOWER.encode(key))
            }
            Self::NoRoot => write!(f, "there is no root directory"),
            Self::EntryOfNothing { name, ino, .. } => write!(f, "the entry {} names inode {ino}, which does not exist", Name(name)),
            Self::EntryKind { name, ino, said, is, .. } => {
                write!(f, "the entry {} calls inode {ino} a {said:?}, it is a {is:?}", Name(name))
            }
            Self::EntryNowhere { parent, name, ino } => {
                write!(f, "the entry {} of inode {ino} is in {parent}, which is no directory that exists", Name(name))
            }
            Self::EntryUnlisted { name, .. } => {
                write!(f, "the entry {} is missing from the listing of its directory, or wrong there", Name(name))
            }
            Self::ListedOnly { name, .. } => write!(f, "the listing shows {}, which can't be looked up", Name(name)),
            Self::EntryParent { parent, name, ino, believed, is_extra } => {
                let other = if *is_extra { "has a name there, too" } else { "has no name there" };
                write!(f, "the entry {} of {parent} names directory {ino}, whose parent is {believed}; it {other}", Name(name))
            }
            Self::SecondName { name, ino, .. } => write!(f, "directory {ino} has a second name in the same directory, {}", Name(name)),
            Self::Loop { ino, .. } => write!(f, "no way leads from directory {ino} to the root: it is inside itself"),
            Self::Links { ino, counted, stored } => write!(f, "inode {ino} has a link count of {stored}, it should be {counted}"),
            Self::Entries { ino, counted, stored } => write!(f, "directory {ino} has {counted} entries but says {stored}"),
            Self::Unreachable { ino, .. } => write!(f, "inode {ino} was not removed, but has no name"),
            Self::Leftover { ino } => write!(f, "inode {ino} was removed and nobody has it open, but it is still there"),
            Self::Holder { ino, session } => write!(f, "whether session {session} has the removed inode {ino} open is not clear"),
            Self::XattrBytes { ino, counted, stored } => {
                write!(f, "the extended attributes of inode {ino} have names of {counted} bytes, it says {stored}")
            }
            Self::StrayXattrs { ino } => write!(f, "there are extended attributes of inode {ino}, which does not exist"),
            Self::StrayExtents { ino, bytes, .. } => write!(f, "there are {bytes} bytes of content of inode {ino}, which does not exist"),
            Self::Allocated { ino, counted, stored } => write!(f, "inode {ino} has {counted} bytes of content but says {stored}"),
            Self::Overlap { ino, offset } => write!(f, "two extents of inode {ino} overlap at offset {offset}"),
            Self::EmptyExtent { ino, end } => write!(f, "an extent of inode {ino} that ends at {end} is empty or begins before the file"),
            Self::BeyondSize { ino, end, size } => write!(f, "inode {ino} has content up to {end}, but a size of {size}"),
            Self::AcrossCut { ino, offset, cut } => {
                write!(f, "the extent of inode {ino} at {offset} reaches across {cut}, from where on content is being removed")
            }
            Self::Cut { ino, inode, queue } => {
                let from = |at: &Option<u64>| at.map_or_else(|| "nothing".to_owned(), |at| format!("all from {at} on"));
                write!(f, "of inode {ino} {} is to be removed, but {} is in the queue", from(inode), from(queue))
            }
            Self::NoChunk { ino, offset, chunk } => {
                write!(f, "the bytes of inode {ino} from {offset} on are in chunk {chunk}, of which nothing is known: they can't be read")
            }
            Self::BeyondChunk { ino, offset, chunk, reach, bytes } => {
                write!(f, "the extent of inode {ino} at {offset} reaches up to {reach} of chunk {chunk}, which has {bytes} bytes")
            }
            Self::NoPool { ino, pool } => {
                write!(f, "content of inode {ino} or of files below it is to go to pool {pool}, which does not exist")
            }
            Self::ChunkUses { chunk, counted, stored } => write!(
                f,
                "chunk {chunk} counts {} references of {} bytes, there are {} of {}",
                stored.references, stored.live_bytes, counted.references, counted.live_bytes
            ),
            Self::HalfDead { chunk } => {
                write!(f, "chunk {chunk} is half dead: its references and the queue of dead chunks contradict each other")
            }
            Self::ChunkLayout { chunk, reason } => write!(f, "chunk {chunk} is stored in a way that can't be: {reason}"),
            Self::DeadRow { chunk, .. } => write!(f, "chunk {chunk} is in the queue of dead chunks but did not die then"),
            Self::Usage { pool, counted, stored } => write!(
                f,
                "pool {pool} says that it has {} chunks of {} bytes, it has {} of {}",
                stored.chunks, stored.chunk_bytes, counted.chunks, counted.chunk_bytes
            ),
            Self::HalfSparse { chunk } => {
                write!(f, "chunk {chunk} does not know whether it is mostly dead, or the queue of such chunks does not")
            }
            Self::SparseRow { chunk, .. } => write!(f, "chunk {chunk} is in the queue of mostly dead chunks but is not due then"),
            Self::Unnamed { chunk, span: Span { first, last } } => write!(
                f,
                "extents from {} up to {} to {} up to {} name chunk {chunk}, outside of where it says that it is named",
                first.ino, first.end, last.ino, last.end
            ),
            Self::Window { name, counted, stored } => {
                let stored = stored.unwrap_or(0);
                write!(f, "{counted} extents of inode {} end in {}, {stored} are counted", name.ino, Part(name))
            }
            Self::WindowUnqueued { name } => {
                write!(f, "{} of inode {} is to be rewritten, but missing from the queue", Part(name), name.ino)
            }
            Self::DueWindowRow { name, .. } => {
                write!(f, "{} of inode {} is in the queue of what is to be rewritten but is not due then", Part(name), name.ino)
            }
            Self::ExtentUsage { counted, stored: Some(stored) } => write!(
                f,
                "there are {} extents of {} bytes, the count says {} of {}",
                counted.extents, counted.bytes, stored.extents, stored.bytes
            ),
            Self::ExtentUsage { counted, stored: None } => {
                write!(f, "the count of extents is missing, there are {}; a restart of the master counts them", counted.extents)
            }
            Self::Inodes { counted, stored } => write!(f, "there are {counted} inodes, the counter says {stored}"),
            Self::NextIno { highest, next } => write!(f, "the next inode would be i{next}, but there is {highest} already"),
            Self::StrayResult { session, sequence } => write!(f, "result {sequence} of session {session} should have been forgotten"),
            Self::NoProgress { session } => write!(f, "nothing is known of what session {session} has acknowledged"),
            Self::Group { pool, group, reason } => write!(f, "group {group} of pool {pool}: {reason}"),
            Self::Cluster { reason } => f.write_str(reason),
        }
    }
}
