//! The part of the index that is on disk: `index.redb`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `about` | `format`, `uuid`, `covered` | version (4); uuid of the target (16); segment, offset, next segment number (8 each) |
//! | `shards` | shard key (35) | entry (48) |
//! | `segments` | number | use (24) |
//!
//! One transaction a flush, in two phases: keys and tickets are chosen by strangers. With quick repair, so that a start after
//! a crash need not walk the whole tree.

use super::entry::{ENTRY_BYTES, Entry, KEY_BYTES, SegmentUse, USE_BYTES, decode_key, encode_key};
use crate::segment::{Position, SegmentNumber, TargetUuid};
use cairn_common::ids::ChunkId;
use cairn_common::wire::chunkserver::ShardKey;
use cairn_runtime::disk::{Disk, OpenMode};
use cairn_runtime::redb_file::RedbFile;
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
const SHARDS: TableDefinition<[u8; KEY_BYTES], [u8; ENTRY_BYTES]> = TableDefinition::new("shards");
const SEGMENTS: TableDefinition<u64, [u8; USE_BYTES]> = TableDefinition::new("segments");
/// Version of the tables; another one means that the index is rebuilt.
const FORMAT_VERSION: u32 = 1;

/// Why the index did not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the disk is too full for the index: {0}")]
    NoSpace(String),
    /// What the file holds is not an index.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    #[error("the index cannot be used: {0}")]
    Failed(String),
}

impl<E: Into<redb::Error>> From<E> for IndexError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(error.to_string()),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
                _ => Self::Failed(error.to_string()),
            },
            error @ (redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::TableTypeMismatch { .. }) => {
                Self::Damaged(error.to_string())
            }
            error => Self::Failed(error.to_string()),
        }
    }
}

/// How far the index goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Covered {
    /// All records before are in the index, none behind.
    pub position: Position,
    /// Numbers from here on were never used.
    pub next_segment: SegmentNumber,
}

/// What opening the index found.
pub enum StoreOpening {
    /// An index that covers all records before a position.
    Ready { store: IndexStore, covered: Covered, segments: BTreeMap<SegmentNumber, SegmentUse> },
    /// An empty one; the segments must be read from the start. `reason` says what became of the old one, if there was one.
    Empty { store: IndexStore, reason: Option<String> },
}

/// An open `index.redb`.
pub struct IndexStore {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    uuid: TargetUuid,
    cache_bytes: usize,
    /// Taken for writing only to replace a database that has latched an error; `None` if that failed as well.
    database: RwLock<Option<Database>>,
}

impl IndexStore {
    /// Opens the index of a target, or makes an empty one if there is none that can be used. Blocks.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, uuid: TargetUuid, cache_bytes: usize) -> Result<StoreOpening, IndexError> {
        let existed = disk.exists(path).map_err(redb::Error::Io)?;
        let store = Self { disk, path: path.to_owned(), uuid, cache_bytes, database: RwLock::new(None) };
        let reason = match store.load() {
            Ok(Ok((covered, segments))) => return Ok(StoreOpening::Ready { store, covered, segments }),
            Ok(Err(reason)) => reason,
            Err(IndexError::Damaged(reason)) => reason,
            Err(error) => return Err(error),
        };
        store.start_over()?;
        Ok(StoreOpening::Empty { store, reason: existed.then_some(reason) })
    }

    /// Throws the content away. Blocks.
    pub fn start_over(&self) -> Result<(), IndexError> {
        let mut slot = self.database.write();
        *slot = None;
        match self.disk.remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(redb::Error::Io)?,
        }
        *slot = Some(self.open_database()?);
        let directory = self.path.parent().unwrap_or(Path::new("."));
        Ok(self.disk.sync_directory(directory).map_err(redb::Error::Io)?)
    }

    /// Reads what the index says of itself; the inner error tells why it is of no use.
    #[expect(clippy::type_complexity, reason = "the two levels are what open tells apart")]
    fn load(&self) -> Result<Result<(Covered, BTreeMap<SegmentNumber, SegmentUse>), String>, IndexError> {
        *self.database.write() = Some(self.open_database()?);
        self.read(|transaction| {
            let about = match transaction.open_table(ABOUT) {
                Ok(about) => about,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Err("it is empty".to_owned())),
                Err(error) => return Err(error.into()),
            };
            let field = |name: &str| Ok::<_, IndexError>(about.get(name)?.map(|value| value.value().to_vec()));
            if field("format")?.as_deref() != Some(&FORMAT_VERSION.to_le_bytes()) {
                return Ok(Err("its format is another one".to_owned()));
            }
            if field("uuid")?.as_deref() != Some(&self.uuid.0) {
                return Ok(Err("it belongs to another target".to_owned()));
            }
            let covered = field("covered")?.as_deref().and_then(decode_covered);
            let Some(covered) = covered else { return Ok(Err("it does not say how far it goes".to_owned())) };
            let mut segments = BTreeMap::new();
            for row in transaction.open_table(SEGMENTS)?.iter()? {
                let (number, usage) = row?;
                segments.insert(SegmentNumber(number.value()), SegmentUse::decode(&usage.value()));
            }
            Ok(Ok((covered, segments)))
        })
    }

    /// The entry of a key. Blocks.
    pub fn find(&self, key: &ShardKey) -> Result<Option<Entry>, IndexError> {
        self.read(|transaction| match transaction.open_table(SHARDS) {
            Ok(table) => Ok(table.get(encode_key(key))?.map(|value| Entry::decode(&value.value()))),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Up to `limit` entries behind the key `after`, in order. Blocks.
    pub fn page(&self, after: Option<ShardKey>, limit: usize) -> Result<Vec<(ShardKey, Entry)>, IndexError> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(encode_key(&key)));
        self.rows((start, Bound::Unbounded), limit)
    }

    /// Up to `limit` entries of chunks from `from` on and before `until`, in order. Blocks.
    pub fn chunks(&self, from: ChunkId, until: Option<ChunkId>, limit: usize) -> Result<Vec<(ShardKey, Entry)>, IndexError> {
        let end = until.map_or(Bound::Unbounded, |until| Bound::Excluded(before_chunk(until)));
        self.rows((Bound::Included(before_chunk(from)), end), limit)
    }

    fn rows(&self, range: (Bound<[u8; KEY_BYTES]>, Bound<[u8; KEY_BYTES]>), limit: usize) -> Result<Vec<(ShardKey, Entry)>, IndexError> {
        self.read(|transaction| {
            let table = match transaction.open_table(SHARDS) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in table.range(range)?.take(limit) {
                let (key, entry) = row?;
                let key = decode_key(&key.value()).ok_or_else(|| IndexError::Damaged("a key has no valid scheme".to_owned()))?;
                rows.push((key, Entry::decode(&entry.value())));
            }
            Ok(rows)
        })
    }

    /// Writes changes and how far they go, in one durable transaction. Blocks.
    pub fn write(
        &self,
        entries: &BTreeMap<ShardKey, Option<Entry>>,
        segments: &BTreeMap<SegmentNumber, Option<SegmentUse>>,
        covered: Covered,
    ) -> Result<(), IndexError> {
        let result = self.write_once(entries, segments, covered);
        if result.is_err() {
            // redb takes nothing more after an I/O error. The next attempt shall find a database that does.
            let mut slot = self.database.write();
            *slot = None;
            match self.open_database() {
                Ok(database) => *slot = Some(database),
                Err(error) => tracing::warn!("cannot reopen {}: {error}", self.path.display()),
            }
        }
        result
    }

    fn write_once(
        &self,
        entries: &BTreeMap<ShardKey, Option<Entry>>,
        segments: &BTreeMap<SegmentNumber, Option<SegmentUse>>,
        covered: Covered,
    ) -> Result<(), IndexError> {
        let slot = self.database.read();
        let mut transaction = slot.as_ref().ok_or_else(not_open)?.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut about = transaction.open_table(ABOUT)?;
            about.insert("format", &FORMAT_VERSION.to_le_bytes()[..])?;
            about.insert("uuid", &self.uuid.0[..])?;
            about.insert("covered", &encode_covered(covered)[..])?;
            let mut shards = transaction.open_table(SHARDS)?;
            for (key, entry) in entries {
                match entry {
                    Some(entry) => shards.insert(encode_key(key), entry.encode())?,
                    None => shards.remove(encode_key(key))?,
                };
            }
            let mut rows = transaction.open_table(SEGMENTS)?;
            for (number, usage) in segments {
                match usage {
                    Some(usage) => rows.insert(number.0, usage.encode())?,
                    None => rows.remove(number.0)?,
                };
            }
        }
        Ok(transaction.commit()?)
    }

    fn read<T>(&self, work: impl FnOnce(&redb::ReadTransaction) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let slot = self.database.read();
        work(&slot.as_ref().ok_or_else(not_open)?.begin_read()?)
    }

    fn open_database(&self) -> Result<Database, IndexError> {
        let file = self.disk.open(&self.path, OpenMode::CreateOrOpen).map_err(redb::Error::Io)?;
        Ok(Database::builder().set_cache_size(self.cache_bytes).create_with_backend(RedbFile(file))?)
    }
}

/// Before the keys of all shards of the chunk.
fn before_chunk(chunk: ChunkId) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..chunk.0.len()].copy_from_slice(&chunk.0);
    bytes
}

fn not_open() -> IndexError {
    IndexError::Failed("it could not be reopened after an error".to_owned())
}

fn encode_covered(covered: Covered) -> [u8; 24] {
    let words = [covered.position.segment.0, covered.position.offset, covered.next_segment.0];
    let mut bytes = [0; 24];
    for (slot, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *slot = word.to_le_bytes();
    }
    bytes
}

fn decode_covered(bytes: &[u8]) -> Option<Covered> {
    let bytes: &[u8; 24] = bytes.try_into().ok()?;
    let [segment, offset, next] = std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| bytes[i * 8 + j])));
    Some(Covered { position: Position { segment: SegmentNumber(segment), offset }, next_segment: SegmentNumber(next) })
}
