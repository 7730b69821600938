//! Every key of every table, and the versions of their values. Keys order as their parts do, so that what is read
//! together lies together; integers are big-endian for that reason.
//!
//! | table | key | value | why so |
//! |---|---|---|---|
//! | Inodes | ino | `Inode` | |
//! | Dentries | parent, name | `Dentry` | one directory's names are neighbours |
//! | DirectoryIndex | parent, cookie | `IndexEntry` | a listing is one scan, stable while names come and go |
//! | Extents | ino, **end** offset | `ExtentRecord` | the first key above an offset is the extent that covers or follows it: one seek |
//! | Chunks | chunk | `ChunkRecord` | |
//! | DeadChunks | 0, died at, chunk | nothing | oldest first |
//! | DeadChunks | 1, put before, chunk | `ChunkInfo` of shards to delete | a queue that outlives a crash |
//! | Xattrs | ino, name | value, raw | |
//! | Sessions | session | `SessionRecord` | |
//! | Results | session, sequence | `StoredResult` | |
//! | Results | session, 0 | `Progress` | sequences begin with 1 |
//! | Orphans | 0, ino, session | nothing | who holds an inode without a name |
//! | Orphans | 1, session, ino | nothing | what a session holds |
//! | Tokens | hash of the secret | `TokenRecord` | |
//! | Servers | server | `ServerRecord` | |
//! | Targets | target | `TargetRecord` | |
//! | Pools | 0, pool | `PoolRecord` | |
//! | Pools | 1, pool, group | `GroupRecord` | a commit reads one group, not all |
//! | Meta | 0 | `ClusterRecord` | |
//! | Meta | 1 | `Counters` | |
//! | Meta | 2, pool | `PoolUsage` | |
//! | Meta | 3, ino | `Shrinking` | files whose extents are being removed in steps |
//! | Meta | 4, ino, window | `Window` | windows of files with many extents |
//! | Meta | 5, due at, ino, window | nothing | windows to be rewritten, the first due first |
//! | Meta | 6, due at, chunk | nothing | mostly dead chunks to be rewritten, the first due first |
//! | Meta | 7 | `ExtentUsage` | |
//! | Meta | 8 | `Rules` | |
//! | Meta | 9 | `MendProgress` | |
//!
//! Every value but a raw one begins with one byte: the version of its format ([`Record::VERSION`]). Keys of Meta from 0x80
//! on are the store's own.

use crate::state::former::{InodeV1, PoolRecordV1, StoredResultV1};
use crate::state::record::{
    ChunkRecord, ChunkRecordV1, ClusterRecord, Counters, Dentry, ExtentRecord, ExtentUsage, GroupRecord, IndexEntry, Inode, MendProgress,
    PoolRecord, PoolUsage, Progress, Rules, ServerRecord, SessionRecord, Shrinking, StoredChunk, StoredResult, TargetRecord, TokenRecord,
    Window, WindowName,
};
use crate::store::tables::StoreError;
use cairn_common::codec;
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, Sequence, ServerId, SessionId, TargetId};
use cairn_common::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value of a table.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is, for error messages.
    const WHAT: &'static str;
    /// The format that is written. Older ones are migrated by `decode` of the record.
    const VERSION: u8;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.push(Self::VERSION);
        postcard::to_extend(self, bytes).expect("plain data always encodes")
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode_present(bytes)
    }
}

/// Decodes the format that is written today.
fn decode_present<R: Record>(bytes: &[u8]) -> Result<R, StoreError> {
    match bytes.split_first() {
        Some((&version, rest)) if version == R::VERSION => {
            codec::decode(R::WHAT, rest).map_err(|error| StoreError::Corrupt(error.to_string()))
        }
        Some((version, _)) => {
            let problem = format!("{} has format {version}; this version of CairnFS knows only {}", R::WHAT, R::VERSION);
            Err(StoreError::Corrupt(problem))
        }
        None => Err(StoreError::Corrupt(format!("{} is empty", R::WHAT))),
    }
}

/// Records that were written otherwise before.
macro_rules! changed_records {
    ($($record:ident, $version:literal, $what:literal, once $former:ident;)*) => {
        $(impl Record for $record {
            const WHAT: &'static str = $what;
            const VERSION: u8 = $version;

            fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
                if bytes.first() == Some(&$former::VERSION) {
                    return decode_present::<$former>(bytes).map(Self::from);
                }
                decode_present(bytes)
            }
        })*
    };
}

changed_records! {
    // Format 1 does not say where the chunk is named, nor whether it is mostly dead.
    ChunkRecord, 2, "a chunk", once ChunkRecordV1;
    // These are from before there were policies, and pools with labels.
    Inode, 2, "an inode", once InodeV1;
    StoredResult, 2, "the result of a mutation", once StoredResultV1;
    PoolRecord, 2, "a pool", once PoolRecordV1;
}

macro_rules! records {
    ($($record:ident, $version:literal, $what:literal;)*) => {
        $(impl Record for $record {
            const WHAT: &'static str = $what;
            const VERSION: u8 = $version;
        })*
    };
}

records! {
    InodeV1, 1, "an inode";
    Dentry, 1, "a directory entry";
    IndexEntry, 1, "a place in a listing";
    ExtentRecord, 1, "an extent";
    Shrinking, 1, "a file that shrinks";
    MendProgress, 1, "the last repair";
    StoredChunk, 1, "a queued deletion";
    ChunkRecordV1, 1, "a chunk";
    SessionRecord, 1, "a session";
    Progress, 1, "the progress of a session";
    StoredResultV1, 1, "the result of a mutation";
    TokenRecord, 1, "a join token";
    ServerRecord, 1, "a chunkserver";
    TargetRecord, 1, "a target";
    PoolRecordV1, 1, "a pool";
    GroupRecord, 1, "a placement group";
    ClusterRecord, 1, "the cluster";
    Counters, 1, "the counters";
    PoolUsage, 1, "the usage of a pool";
    Window, 1, "a window of a file";
    ExtentUsage, 1, "the count of extents";
    Rules, 1, "the rules of the cluster";
}

/// A key of a table, on the stack: the longest is an inode and a name of 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; Key::BYTES_MAX],
    len: u16,
}

impl Key {
    const BYTES_MAX: usize = 8 + 255;

    const fn new() -> Self {
        Self { bytes: [0; Self::BYTES_MAX], len: 0 }
    }

    fn with(mut self, part: &[u8]) -> Self {
        let start = usize::from(self.len);
        // Names are checked before they become keys; a longer one is a bug here.
        self.bytes[start..start + part.len()].copy_from_slice(part);
        self.len += part.len() as u16;
        self
    }

    fn byte(self, byte: u8) -> Self {
        self.with(&[byte])
    }

    fn u32(self, number: u32) -> Self {
        self.with(&number.to_be_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.with(&number.to_be_bytes())
    }

    /// Negative times come first: the sign bit is flipped.
    fn time(self, time: Timestamp) -> Self {
        self.u64((time.nanos() as u64) ^ (1 << 63))
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn number_u64(bytes: Option<&[u8]>) -> Result<u64, StoreError> {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| StoreError::Corrupt("a key is too short".to_owned()))
}

fn number_u32(bytes: Option<&[u8]>) -> Result<u32, StoreError> {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| StoreError::Corrupt("a key is too short".to_owned()))
}

/// The first key that does not begin with `prefix` and comes after all that do; `None` if there is no such key.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

// ---- Inodes

pub fn inode(ino: Ino) -> Key {
    Key::new().u64(ino.0)
}

pub fn parse_inode(key: &[u8]) -> Result<Ino, StoreError> {
    number_u64(Some(key)).map(Ino)
}

// ---- Dentries

/// The prefix of all names of a directory.
pub fn dentries(parent: Ino) -> Key {
    Key::new().u64(parent.0)
}

/// `name` is at most `NAME_BYTES_MAX` long.
pub fn dentry(parent: Ino, name: &[u8]) -> Key {
    dentries(parent).with(name)
}

pub fn parse_dentry(key: &[u8]) -> Result<(Ino, &[u8]), StoreError> {
    Ok((Ino(number_u64(key.get(..8))?), &key[8..]))
}

// ---- DirectoryIndex

pub fn directory_index(parent: Ino, cookie: DirCookie) -> Key {
    Key::new().u64(parent.0).u64(cookie.0)
}

pub fn parse_directory_index(key: &[u8]) -> Result<(Ino, DirCookie), StoreError> {
    Ok((Ino(number_u64(key.get(..8))?), DirCookie(number_u64(key.get(8..))?)))
}

// ---- Extents

/// The key of the extent that ends at `end`; also the place to begin looking for those that end there or later.
pub fn extent(ino: Ino, end: u64) -> Key {
    Key::new().u64(ino.0).u64(end)
}

/// Above every extent of the inode: no file reaches that far.
pub fn extents_end(ino: Ino) -> Key {
    extent(ino, u64::MAX)
}

pub fn parse_extent(key: &[u8]) -> Result<(Ino, u64), StoreError> {
    Ok((Ino(number_u64(key.get(..8))?), number_u64(key.get(8..))?))
}

// ---- Chunks and DeadChunks

pub fn chunk(chunk: ChunkId) -> Key {
    Key::new().with(&chunk.0)
}

pub fn parse_chunk(key: &[u8]) -> Result<ChunkId, StoreError> {
    key.try_into().map(ChunkId).map_err(|_| StoreError::Corrupt("a chunk's key is not 32 bytes long".to_owned()))
}

const DEAD: u8 = 0;
const DELETION: u8 = 1;

pub fn dead_chunk(died: Timestamp, chunk: ChunkId) -> Key {
    Key::new().byte(DEAD).time(died).with(&chunk.0)
}

/// Before every chunk that died at `died` or later.
pub fn dead_chunks_from(died: Timestamp) -> Key {
    Key::new().byte(DEAD).time(died)
}

pub fn dead_chunks_start() -> Key {
    Key::new().byte(DEAD)
}

pub fn deletion(put_before: Timestamp, chunk: ChunkId) -> Key {
    Key::new().byte(DELETION).time(put_before).with(&chunk.0)
}

pub fn deletions_start() -> Key {
    Key::new().byte(DELETION)
}

/// The time and the chunk of either kind of row.
pub fn parse_dead_chunk(key: &[u8]) -> Result<(Timestamp, ChunkId), StoreError> {
    Ok((time_at(key)?, parse_chunk(&key[9..])?))
}

/// The time behind the first byte of a key.
fn time_at(key: &[u8]) -> Result<Timestamp, StoreError> {
    let nanos = number_u64(key.get(1..9))? ^ (1 << 63);
    Ok(Timestamp::from_nanos(nanos as i64))
}

// ---- Xattrs

pub fn xattrs(ino: Ino) -> Key {
    Key::new().u64(ino.0)
}

/// `name` is at most `XATTR_NAME_BYTES_MAX` long.
pub fn xattr(ino: Ino, name: &[u8]) -> Key {
    xattrs(ino).with(name)
}

pub fn parse_xattr(key: &[u8]) -> Result<(Ino, &[u8]), StoreError> {
    parse_dentry(key)
}

// ---- Sessions and Results

pub fn session(session: SessionId) -> Key {
    Key::new().u64(session.0)
}

pub fn parse_session(key: &[u8]) -> Result<SessionId, StoreError> {
    number_u64(Some(key)).map(SessionId)
}

pub fn progress(session: SessionId) -> Key {
    result(session, Sequence(0))
}

pub fn result(session: SessionId, sequence: Sequence) -> Key {
    Key::new().u64(session.0).u64(sequence.0)
}

pub fn parse_result(key: &[u8]) -> Result<(SessionId, Sequence), StoreError> {
    Ok((SessionId(number_u64(key.get(..8))?), Sequence(number_u64(key.get(8..))?)))
}

// ---- Orphans

const BY_INODE: u8 = 0;
const BY_SESSION: u8 = 1;

pub fn orphan(ino: Ino, session: SessionId) -> Key {
    orphan_holders(ino).u64(session.0)
}

pub fn orphan_holders(ino: Ino) -> Key {
    Key::new().byte(BY_INODE).u64(ino.0)
}

pub fn orphans_start() -> Key {
    Key::new().byte(BY_INODE)
}

pub fn parse_orphan(key: &[u8]) -> Result<(Ino, SessionId), StoreError> {
    Ok((Ino(number_u64(key.get(1..9))?), SessionId(number_u64(key.get(9..))?)))
}

pub fn held(session: SessionId, ino: Ino) -> Key {
    held_by(session).u64(ino.0)
}

pub fn held_by(session: SessionId) -> Key {
    Key::new().byte(BY_SESSION).u64(session.0)
}

pub fn held_start() -> Key {
    Key::new().byte(BY_SESSION)
}

pub fn parse_held(key: &[u8]) -> Result<(SessionId, Ino), StoreError> {
    Ok((SessionId(number_u64(key.get(1..9))?), Ino(number_u64(key.get(9..))?)))
}

// ---- Tokens, Servers, Targets, Pools

pub fn token(secret: &[u8; 32]) -> Key {
    Key::new().with(secret)
}

pub fn server(server: ServerId) -> Key {
    Key::new().u32(server.0)
}

pub fn parse_server(key: &[u8]) -> Result<ServerId, StoreError> {
    number_u32(Some(key)).map(ServerId)
}

pub fn target(target: TargetId) -> Key {
    Key::new().u32(target.0)
}

pub fn parse_target(key: &[u8]) -> Result<TargetId, StoreError> {
    number_u32(Some(key)).map(TargetId)
}

const POOL: u8 = 0;
const GROUP: u8 = 1;

pub fn pools_start() -> Key {
    Key::new().byte(POOL)
}

pub fn pool(pool: PoolId) -> Key {
    pools_start().u32(pool.0)
}

pub fn parse_pool(key: &[u8]) -> Result<PoolId, StoreError> {
    number_u32(key.get(1..)).map(PoolId)
}

pub fn groups(pool: PoolId) -> Key {
    Key::new().byte(GROUP).u32(pool.0)
}

pub fn group(pool: PoolId, group: u32) -> Key {
    groups(pool).u32(group)
}

// ---- Meta

pub fn cluster() -> Key {
    Key::new().byte(0)
}

pub fn counters() -> Key {
    Key::new().byte(1)
}

pub fn pool_usage(pool: PoolId) -> Key {
    pool_usages().u32(pool.0)
}

pub fn pool_usages() -> Key {
    Key::new().byte(2)
}

pub fn parse_pool_usage(key: &[u8]) -> Result<PoolId, StoreError> {
    number_u32(key.get(1..)).map(PoolId)
}

pub fn shrinking(ino: Ino) -> Key {
    shrinking_start().u64(ino.0)
}

pub fn shrinking_start() -> Key {
    Key::new().byte(3)
}

pub fn mend_progress() -> Key {
    Key::new().byte(9)
}

pub fn parse_shrinking(key: &[u8]) -> Result<Ino, StoreError> {
    number_u64(key.get(1..)).map(Ino)
}

pub fn window(name: WindowName) -> Key {
    windows_start().u64(name.ino.0).u64(name.number)
}

pub fn windows_start() -> Key {
    Key::new().byte(4)
}

pub fn parse_window(key: &[u8]) -> Result<WindowName, StoreError> {
    Ok(WindowName { ino: Ino(number_u64(key.get(1..9))?), number: number_u64(key.get(9..))? })
}

pub fn due_window(due: Timestamp, name: WindowName) -> Key {
    due_windows_start().time(due).u64(name.ino.0).u64(name.number)
}

pub fn due_windows_start() -> Key {
    Key::new().byte(5)
}

pub fn parse_due_window(key: &[u8]) -> Result<(Timestamp, WindowName), StoreError> {
    let name = WindowName { ino: Ino(number_u64(key.get(9..17))?), number: number_u64(key.get(17..))? };
    Ok((time_at(key)?, name))
}

pub fn sparse_chunk(due: Timestamp, chunk: ChunkId) -> Key {
    sparse_chunks_start().time(due).with(&chunk.0)
}

pub fn sparse_chunks_start() -> Key {
    Key::new().byte(6)
}

pub fn parse_sparse_chunk(key: &[u8]) -> Result<(Timestamp, ChunkId), StoreError> {
    Ok((time_at(key)?, parse_chunk(&key[9..])?))
}

pub fn extent_usage() -> Key {
    Key::new().byte(7)
}

pub fn rules() -> Key {
    Key::new().byte(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::{Dentry, Shrinking};
    use cairn_common::attributes::FileKind;

    #[test]
    fn keys_order_as_their_parts() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX].map(|nanos| dead_chunk(Timestamp::from_nanos(nanos), ChunkId([9; 32])));
        assert!(times.windows(2).all(|pair| *pair[0] < *pair[1]));
        assert!(*times[4] < *deletions_start());
        assert!(*extent(Ino(1), 255) < *extent(Ino(1), 256) && *extent(Ino(1), u64::MAX) < *extent(Ino(2), 0));
        assert!(*dentry(Ino(1), &[255; 255]) < *dentries(Ino(2)));
    }

    #[test]
    fn keys_come_back_apart() {
        let time = Timestamp::from_nanos(-5);
        assert_eq!(parse_dead_chunk(&dead_chunk(time, ChunkId([3; 32]))).unwrap(), (time, ChunkId([3; 32])));
        assert_eq!(parse_dentry(&dentry(Ino(7), b"name")).unwrap(), (Ino(7), b"name".as_slice()));
        assert_eq!(parse_extent(&extent(Ino(7), 9)).unwrap(), (Ino(7), 9));
        assert_eq!(parse_orphan(&orphan(Ino(7), SessionId(8))).unwrap(), (Ino(7), SessionId(8)));
        assert_eq!(parse_held(&held(SessionId(8), Ino(7))).unwrap(), (SessionId(8), Ino(7)));
        let name = WindowName { ino: Ino(7), number: 8 };
        assert_eq!(parse_window(&window(name)).unwrap(), name);
        assert_eq!(parse_due_window(&due_window(time, name)).unwrap(), (time, name));
        assert_eq!(parse_sparse_chunk(&sparse_chunk(time, ChunkId([3; 32]))).unwrap(), (time, ChunkId([3; 32])));
        assert!(parse_extent(&inode(Ino(7))).is_err() && parse_dentry(&[1]).is_err() && parse_dead_chunk(&[0; 9]).is_err());
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255]), None);
        assert_eq!(after_prefix(&[]), None);
    }

    #[test]
    fn a_record_of_another_format_is_refused() {
        let bytes = Dentry { ino: Ino(5), kind: FileKind::Fifo, cookie: DirCookie(6) }.encode();
        // The image of format 1: this must never change.
        assert_eq!(bytes, [1, 5, 3, 6]);
        assert!(Dentry::decode(&bytes).is_ok());
        assert!(Dentry::decode(&[2, 5, 3, 6]).unwrap_err().to_string().contains("format 2"));
        assert!(Dentry::decode(&[1, 5, 3, 6, 0]).is_err() && Dentry::decode(&[1, 5]).is_err() && Dentry::decode(&[]).is_err());
        assert!(Shrinking::decode(&Shrinking { from: 3 }.encode()).is_ok());
    }

    #[test]
    fn a_chunk_of_format_1_may_be_named_anywhere() {
        // 10 bytes in pool 1 as three copies in slots 0 to 2; two references to 7 bytes.
        let image = [1, 10, 1, 1, 2, 7, 2, 7, 0];
        let record = ChunkRecord::decode(&image).unwrap();
        assert_eq!((record.stored.bytes, record.references, record.live_bytes, record.died, record.sparse), (10, 2, 7, None, None));
        assert_eq!(record.named, crate::state::record::Span::EVERYTHING);
        assert_eq!(ChunkRecord::decode(&record.encode()).unwrap(), record);
    }
}
