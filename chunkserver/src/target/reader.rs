//! Reading shards. Everything is tried twice: first without waiting for a device, on the async thread, which answers most
//! reads of warm data without waking another thread; then, if that did not do, where blocking is allowed.
//!
//! What is read is not verified here: every client verifies, with a hash that does not come from us.

use super::core::Core;
use super::verify::is_sound;
use crate::index::{Entry, IndexError, Known};
use crate::segment::Place;
use crate::segment::record::{Record, RecordShape, ShardMeta, Stand};
use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::hash_tree;
use cairn_common::ids::Hash;
use cairn_common::limits::BLOCK_BYTES;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey, ShardProof};
use cairn_runtime::disk::DiskFile;
use std::io;
use std::sync::Arc;

/// How often a read is started again because its shard moved meanwhile. Each time means that a shard was replaced just then.
const ATTEMPTS_MAX: u32 = 4;

/// Whether a reader may wait for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Never,
    Allowed,
}

/// Why there is no result.
#[derive(Debug)]
pub enum ReadError {
    /// It can't be told without waiting for a device.
    WouldWait,
    /// The bytes or the head can't be read, and why.
    Damaged(String),
    Refused(ChunkserverError),
}

impl From<ChunkserverError> for ReadError {
    fn from(error: ChunkserverError) -> Self {
        Self::Refused(error)
    }
}

/// A range of a shard, as asked for.
#[derive(Debug, Clone, Copy)]
pub struct RangeRequest {
    pub key: ShardKey,
    pub offset: u32,
    pub bytes: u32,
    pub with_proof: bool,
}

/// Reads of one target.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub core: &'a Core,
    pub wait: Wait,
}

impl Reader<'_> {
    /// The bytes of a range and, if asked for, the proof. Parity shards have no proof of their own bytes.
    pub fn read_range(self, request: &RangeRequest) -> Result<(Bytes, Option<ShardProof>), ReadError> {
        self.with_entry(&request.key, |entry| {
            check_range(request, entry.place.payload_bytes)?;
            let bytes = self.payload(&entry.place, request.offset, request.bytes)?;
            let is_data = request.key.scheme.is_copies() || request.key.index < request.key.scheme.data_shards();
            let proof = match request.with_proof && is_data {
                true => Some(proof_of(&*self.head(&request.key, entry)?, request.key.index)?),
                false => None,
            };
            Ok((bytes, proof))
        })
    }

    /// Asks for the aligned `bytes` around the start of a range to be brought into memory, as far as they belong to the shard.
    pub fn read_around(self, request: &RangeRequest, bytes: u32) {
        // A hint: of what is wrong those hear who read.
        let Ok(Some(entry)) = self.find(&request.key) else { return };
        let Ok(file) = self.file(&entry.place) else { return };
        let start = request.offset / bytes * bytes;
        let end = start.saturating_add(bytes).min(entry.place.payload_bytes);
        file.read_ahead(entry.place.payload_offset() + u64::from(start), u64::from(end.saturating_sub(start)));
    }

    /// The proof of data shard `data_index`, from that shard or from a parity shard of its chunk.
    pub fn proof(self, key: &ShardKey, data_index: u8) -> Result<ShardProof, ReadError> {
        self.with_entry(key, |entry| Ok(proof_of(&*self.head(key, entry)?, data_index)?))
    }

    /// The whole shard, with what is kept with it. Not checked: whoever stores it checks it.
    pub fn whole(self, key: &ShardKey) -> Result<(Arc<ShardMeta>, Bytes), ReadError> {
        self.with_entry(key, |entry| Ok((self.head(key, entry)?, self.payload(&entry.place, 0, entry.place.payload_bytes)?)))
    }

    /// Reads and hashes the whole shard. If it is not what it should be, the damage is noted; the error then is `Corrupt`.
    pub fn examine(self, key: &ShardKey) -> Result<u32, ReadError> {
        self.with_entry(key, |entry| {
            let meta = self.fresh_head(key, entry)?;
            let payload = self.payload(&entry.place, 0, entry.place.payload_bytes)?;
            match is_sound(&meta, &payload) {
                true => Ok(entry.place.record_bytes),
                false => Err(ReadError::Damaged("its bytes do not hash to what they should".to_owned())),
            }
        })
    }

    /// Whether the shard is there and its head can be read.
    pub fn is_present(self, key: &ShardKey) -> Result<bool, ReadError> {
        match self.with_entry(key, |entry| self.head(key, entry).map(drop)) {
            Ok(()) => Ok(true),
            Err(ReadError::Refused(ChunkserverError::NoSuchShard(_) | ChunkserverError::Corrupt(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The head of the record of `key`, which the index says is at `entry`.
    pub fn head(self, key: &ShardKey, entry: &Entry) -> Result<Arc<ShardMeta>, ReadError> {
        let place = &entry.place;
        let cached = self.core.heads.lock().get(key);
        if let Some((cached_place, meta)) = cached
            && cached_place == *place
        {
            return Ok(meta);
        }
        let meta = self.fresh_head(key, entry)?;
        let weight = (meta.blocks.len() + 8) * size_of::<Hash>();
        self.core.heads.lock().insert(*key, (*place, meta.clone()), weight);
        Ok(meta)
    }

    /// The same as it is on the disk.
    fn fresh_head(self, key: &ShardKey, entry: &Entry) -> Result<Arc<ShardMeta>, ReadError> {
        let place = &entry.place;
        let mut head = vec![0; place.payload_at as usize];
        self.read_file(place, &mut head, place.offset)?;
        let stand = Stand { uuid: self.core.identity.lock().uuid, at: place.position() };
        let record = RecordShape::peek(&head, stand).and_then(|shape| Record::decode_head(&head, &shape));
        match record {
            Ok(Record::Shard(meta)) if meta.header.key == *key => Ok(Arc::new(meta)),
            Ok(_) => Err(ReadError::Damaged("its place holds another record".to_owned())),
            Err(error) => Err(ReadError::Damaged(error.to_string())),
        }
    }

    /// Looks a shard up, works on it, and does so again if it moved meanwhile: then what was read may have been a hole.
    fn with_entry<T>(self, key: &ShardKey, work: impl Fn(&Entry) -> Result<T, ReadError>) -> Result<T, ReadError> {
        for _ in 0..ATTEMPTS_MAX {
            let removals = self.core.removals();
            let entry = self.find(key)?.ok_or(ChunkserverError::NoSuchShard(*key))?;
            let result = work(&entry);
            if self.core.removals() == removals || self.find(key)?.is_some_and(|now| now.place == entry.place) {
                return result.map_err(|error| self.note_damage(key, error));
            }
        }
        Err(ChunkserverError::Unavailable.into())
    }

    fn find(self, key: &ShardKey) -> Result<Option<Entry>, ReadError> {
        match self.core.index.find_in_memory(key) {
            Known::Present(entry) => Ok(Some(entry)),
            Known::Absent => Ok(None),
            Known::Unknown if self.wait == Wait::Never => Err(ReadError::WouldWait),
            Known::Unknown => self.core.index.find(key).map_err(|error| ReadError::Refused(self.index_failed(&error))),
        }
    }

    /// The index can't be read: nothing can be looked up any more.
    fn index_failed(self, error: &IndexError) -> ChunkserverError {
        self.core.fail(error.to_string());
        self.core.failure().unwrap_or(ChunkserverError::Unavailable)
    }

    fn payload(self, place: &Place, offset: u32, bytes: u32) -> Result<Bytes, ReadError> {
        let mut buffer = Buffer::with_len(bytes as usize);
        self.read_file(place, &mut buffer, place.payload_offset() + u64::from(offset))?;
        Ok(buffer.freeze())
    }

    fn read_file(self, place: &Place, buffer: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let file = self.file(place)?;
        if self.wait == Wait::Never {
            return match file.read_at_if_cached(buffer, offset) {
                Ok(Some(read)) if read == buffer.len() => Ok(()),
                // Whatever is wrong shows again, and is reported, where waiting is allowed.
                _ => Err(ReadError::WouldWait),
            };
        }
        file.read_exact_at(buffer, offset).map_err(|error| ReadError::Damaged(error.to_string()))
    }

    fn file(self, place: &Place) -> Result<Arc<dyn DiskFile>, ReadError> {
        if self.wait == Wait::Never {
            return self.core.files.cached(place.segment).ok_or(ReadError::WouldWait);
        }
        self.core.files.open(place.segment).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Damaged(error.to_string()),
            _ => {
                tracing::warn!("cannot open {} of target {}: {error}", place.segment, self.core.id());
                ChunkserverError::Unavailable.into()
            }
        })
    }

    fn note_damage(self, key: &ShardKey, error: ReadError) -> ReadError {
        let ReadError::Damaged(reason) = error else { return error };
        self.core.note_damage(key, &reason);
        ChunkserverError::Corrupt(*key).into()
    }
}

fn check_range(request: &RangeRequest, shard_bytes: u32) -> Result<(), ChunkserverError> {
    let RangeRequest { offset, bytes, .. } = *request;
    let end = offset.checked_add(bytes).filter(|end| bytes > 0 && *end <= shard_bytes);
    let is_aligned = |at: u32| (at as usize).is_multiple_of(BLOCK_BYTES);
    match end {
        Some(end) if is_aligned(offset) && (is_aligned(end) || end == shard_bytes) => Ok(()),
        Some(_) => Err(ChunkserverError::Malformed(format!("{offset}+{bytes} does not lie on block boundaries"))),
        None => Err(ChunkserverError::Malformed(format!("{offset}+{bytes} is not a range of a shard of {shard_bytes} bytes"))),
    }
}

fn proof_of(meta: &ShardMeta, data_index: u8) -> Result<ShardProof, ChunkserverError> {
    let key = meta.header.key;
    let scheme = key.scheme;
    let blocks = if scheme.is_copies() || (key.index < scheme.data_shards() && key.index == data_index) {
        Some(&meta.blocks[..])
    } else if key.index >= scheme.data_shards() {
        hash_tree::data_blocks_of(scheme.layout(meta.header.chunk_bytes), data_index, &meta.blocks)
    } else {
        None
    };
    let no_proof = || ChunkserverError::Malformed(format!("shard {} ({scheme}) does not prove data shard {data_index}", key.index));
    let blocks = blocks.ok_or_else(no_proof)?.to_vec();
    Ok(ShardProof { chunk_bytes: meta.header.chunk_bytes, data_hashes: meta.header.data_hashes.clone(), blocks })
}
