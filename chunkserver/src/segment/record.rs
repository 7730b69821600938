//! Records: what segments consist of. A record is a head (a fixed part and metadata) and, for a shard, its bytes.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `CAIRNREC` |
//! | 8 | 1 | kind: 1 shard, 2 touches, 3 tombstones |
//! | 9 | 1 | k of the scheme (shard) |
//! | 10 | 1 | m of the scheme (shard) |
//! | 11 | 1 | index of the shard |
//! | 12 | 4 | length of the chunk (shard) |
//! | 16 | 16 | uuid of the target |
//! | 32 | 8 | number of the segment |
//! | 40 | 8 | offset of the record in the segment |
//! | 48 | 32 | id of the chunk (shard) |
//! | 80 | 8 | ticket (shard): nanoseconds since 1970 |
//! | 88 | 4 | length of the payload (shard) |
//! | 92 | 2 | number of data hashes (shard) |
//! | 94 | 2 | number of parity hashes (shard) |
//! | 96 | 4 | number of block hashes (shard) or of entries (touches, tombstones) |
//! | 100 | 28 | zero |
//! | 128 | 32 | BLAKE3 of bytes 0..128 followed by the metadata |
//! | 160 | .. | metadata |
//!
//! Metadata of a shard: data hashes, parity hashes, block hashes (of the shard itself; of a parity shard: of all data
//! shards of its chunk, in order), 32 bytes each. Metadata of the others: entries of 48 bytes: chunk id (32), k, m, index
//! (1 each), zero (5), ticket (8; zero for tombstones).
//!
//! The payload follows the metadata directly if the whole record then fits into one page, and otherwise starts on the next
//! page. The record is padded with zeros to whole pages. Unused fields are zero. Numbers are little-endian.
//!
//! The payload needs no checksum of its own: its hash is in the metadata, or is the chunk id.

use super::{PAGE_BYTES, Place, Position, SegmentNumber, TargetUuid, pages_up};
use cairn_common::ids::{ChunkId, Hash};
use cairn_common::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, DATA_SHARDS_MAX, PARITY_SHARDS_MAX, SHARD_BYTES_MAX};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};

pub const MAGIC: &[u8; 8] = b"CAIRNREC";
const CHECKED_BYTES: usize = 128;
/// Length of the fixed part.
pub const FIXED_BYTES: usize = 160;
const HASH_BYTES: usize = 32;
const ENTRY_BYTES: usize = 48;
/// Entries that one record of touches or tombstones may hold.
pub const ENTRIES_MAX: usize = 4096;
const BLOCKS_MAX: usize = CHUNK_BYTES_MAX / BLOCK_BYTES;
/// Longest head there is.
pub const HEAD_BYTES_MAX: usize = pages_up_const(
    FIXED_BYTES + max_const(ENTRIES_MAX * ENTRY_BYTES, (BLOCKS_MAX + DATA_SHARDS_MAX as usize + PARITY_SHARDS_MAX as usize) * HASH_BYTES),
);

const fn pages_up_const(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_BYTES)
}

const fn max_const(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A shard without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMeta {
    pub header: ShardHeader,
    /// Chaining values of the 4 KiB blocks: of the shard; of a parity shard: of all data shards of its chunk.
    pub blocks: Vec<Hash>,
    pub ticket: Timestamp,
    pub payload_bytes: u32,
}

/// A key with a ticket, as touches carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTicket {
    pub key: ShardKey,
    pub ticket: Timestamp,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Shard(ShardMeta),
    /// These shards were put again: their tickets are at least these.
    Touches(Vec<KeyTicket>),
    /// These shards are deleted.
    Tombstones(Vec<ShardKey>),
}

/// Where a record stands; part of what its checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    pub uuid: TargetUuid,
    pub at: Position,
}

/// How long the parts of a record are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordShape {
    /// Fixed part and metadata, without padding.
    pub head_bytes: usize,
    pub payload_at: usize,
    pub payload_bytes: usize,
}

impl RecordShape {
    fn new(metadata_bytes: usize, payload_bytes: usize) -> Self {
        let head_bytes = FIXED_BYTES + metadata_bytes;
        let fits_one_page = head_bytes + payload_bytes <= PAGE_BYTES;
        let payload_at = if fits_one_page { head_bytes } else { pages_up(head_bytes) };
        Self { head_bytes, payload_at, payload_bytes }
    }

    /// Length of the whole record.
    pub fn record_bytes(&self) -> usize {
        pages_up(self.payload_at + self.payload_bytes)
    }

    /// Zeros between payload and end.
    pub fn padding(&self) -> usize {
        self.record_bytes() - self.payload_at - self.payload_bytes
    }

    pub fn place(&self, at: Position) -> Place {
        Place {
            segment: at.segment,
            offset: at.offset,
            record_bytes: self.record_bytes() as u32,
            payload_at: self.payload_at as u32,
            payload_bytes: self.payload_bytes as u32,
        }
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("there is no record")]
    NoRecord,
    #[error("the record belongs to another place")]
    Misplaced,
    #[error("the record's numbers make no sense")]
    Implausible,
    #[error("the record's checksum is wrong")]
    Checksum,
}

const KIND_SHARD: u8 = 1;
const KIND_TOUCHES: u8 = 2;
const KIND_TOMBSTONES: u8 = 3;

impl Record {
    pub fn shape(&self) -> RecordShape {
        match self {
            Record::Shard(meta) => {
                let hashes = meta.header.data_hashes.len() + meta.header.parity_hashes.len() + meta.blocks.len();
                RecordShape::new(hashes * HASH_BYTES, meta.payload_bytes as usize)
            }
            Record::Touches(entries) => RecordShape::new(entries.len() * ENTRY_BYTES, 0),
            Record::Tombstones(keys) => RecordShape::new(keys.len() * ENTRY_BYTES, 0),
        }
    }

    /// The head, padded up to where the payload starts (or the record ends).
    pub fn encode_head(&self, stand: Stand) -> Vec<u8> {
        let shape = self.shape();
        debug_assert!(shape.head_bytes <= HEAD_BYTES_MAX);
        let padded = if shape.payload_bytes == 0 { shape.record_bytes() } else { shape.payload_at };
        let mut head = Vec::with_capacity(padded);
        head.resize(FIXED_BYTES, 0);
        head[0..8].copy_from_slice(MAGIC);
        head[16..32].copy_from_slice(&stand.uuid.0);
        head[32..40].copy_from_slice(&stand.at.segment.0.to_le_bytes());
        head[40..48].copy_from_slice(&stand.at.offset.to_le_bytes());
        match self {
            Record::Shard(meta) => encode_shard(&mut head, meta),
            Record::Touches(entries) => encode_entries(&mut head, KIND_TOUCHES, entries.iter().copied()),
            Record::Tombstones(keys) => {
                let entries = keys.iter().map(|key| KeyTicket { key: *key, ticket: Timestamp::EPOCH });
                encode_entries(&mut head, KIND_TOMBSTONES, entries);
            }
        }
        let checksum = head_checksum(&head);
        head[CHECKED_BYTES..FIXED_BYTES].copy_from_slice(&checksum);
        head.resize(padded, 0);
        head
    }

    /// Reads a head that [`RecordShape::peek`] has measured: `head` holds at least `shape.head_bytes`.
    pub fn decode_head(head: &[u8], shape: &RecordShape) -> Result<Self, RecordError> {
        let head = head.get(..shape.head_bytes).ok_or(RecordError::NoRecord)?;
        if head_checksum(head) != head[CHECKED_BYTES..FIXED_BYTES] {
            return Err(RecordError::Checksum);
        }
        match head[8] {
            KIND_SHARD => decode_shard(head).map(Record::Shard).ok_or(RecordError::Implausible),
            KIND_TOUCHES => decode_entries(head).map(Record::Touches).ok_or(RecordError::Implausible),
            KIND_TOMBSTONES => {
                let entries = decode_entries(head).ok_or(RecordError::Implausible)?;
                Ok(Record::Tombstones(entries.iter().map(|entry| entry.key).collect()))
            }
            _ => Err(RecordError::Implausible),
        }
    }
}

impl RecordShape {
    /// How long the record is that starts with `page` (at least the fixed part), if there is one that belongs here. The
    /// numbers are bounded but not yet covered by the checksum.
    pub fn peek(page: &[u8], stand: Stand) -> Result<Self, RecordError> {
        let fixed: &[u8; FIXED_BYTES] = page.first_chunk().ok_or(RecordError::NoRecord)?;
        if &fixed[0..8] != MAGIC {
            return Err(RecordError::NoRecord);
        }
        let found = Stand {
            uuid: TargetUuid(std::array::from_fn(|i| fixed[16 + i])),
            at: Position { segment: SegmentNumber(read_u64(fixed, 32)), offset: read_u64(fixed, 40) },
        };
        if found != stand {
            return Err(RecordError::Misplaced);
        }
        let entries = read_u32(fixed, 96) as usize;
        match fixed[8] {
            KIND_SHARD => {
                let (data, parity) = (read_u16(fixed, 92) as usize, read_u16(fixed, 94) as usize);
                let payload = read_u32(fixed, 88) as usize;
                let fits = data <= usize::from(DATA_SHARDS_MAX)
                    && parity <= usize::from(PARITY_SHARDS_MAX)
                    && entries <= BLOCKS_MAX
                    && (1..=SHARD_BYTES_MAX).contains(&payload);
                fits.then(|| Self::new((data + parity + entries) * HASH_BYTES, payload)).ok_or(RecordError::Implausible)
            }
            KIND_TOUCHES | KIND_TOMBSTONES if entries <= ENTRIES_MAX => Ok(Self::new(entries * ENTRY_BYTES, 0)),
            _ => Err(RecordError::Implausible),
        }
    }
}

fn head_checksum(head: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..CHECKED_BYTES]).update(&head[FIXED_BYTES..]);
    hasher.finalize().into()
}

fn encode_shard(head: &mut Vec<u8>, meta: &ShardMeta) {
    let ShardHeader { key, chunk_bytes, data_hashes, parity_hashes } = &meta.header;
    head[8] = KIND_SHARD;
    head[9] = key.scheme.data_shards();
    head[10] = key.scheme.parity_shards();
    head[11] = key.index;
    head[12..16].copy_from_slice(&chunk_bytes.to_le_bytes());
    head[48..80].copy_from_slice(&key.chunk.0);
    head[80..88].copy_from_slice(&meta.ticket.nanos().to_le_bytes());
    head[88..92].copy_from_slice(&meta.payload_bytes.to_le_bytes());
    head[92..94].copy_from_slice(&(data_hashes.len() as u16).to_le_bytes());
    head[94..96].copy_from_slice(&(parity_hashes.len() as u16).to_le_bytes());
    head[96..100].copy_from_slice(&(meta.blocks.len() as u32).to_le_bytes());
    for hash in data_hashes.iter().chain(parity_hashes).chain(&meta.blocks) {
        head.extend_from_slice(&hash.0);
    }
}

fn decode_shard(head: &[u8]) -> Option<ShardMeta> {
    let scheme = Scheme::new(head[9], head[10]).ok()?;
    let chunk = ChunkId(std::array::from_fn(|i| head[48 + i]));
    let key = ShardKey { chunk, scheme, index: head[11] };
    let chunk_bytes = read_u32(head, 12);
    let payload_bytes = read_u32(head, 88);
    let sensible = key.index < scheme.shards()
        && (1..=CHUNK_BYTES_MAX).contains(&(chunk_bytes as usize))
        && scheme.layout(chunk_bytes).stored_bytes(key.index) == payload_bytes;
    if !sensible {
        return None;
    }
    let (data, parity) = (read_u16(head, 92) as usize, read_u16(head, 94) as usize);
    let mut hashes = head[FIXED_BYTES..].as_chunks::<HASH_BYTES>().0.iter().map(|bytes| Hash(*bytes));
    let data_hashes = hashes.by_ref().take(data).collect();
    let parity_hashes = hashes.by_ref().take(parity).collect();
    Some(ShardMeta {
        header: ShardHeader { key, chunk_bytes, data_hashes, parity_hashes },
        blocks: hashes.collect(),
        ticket: Timestamp::from_nanos(read_u64(head, 80) as i64),
        payload_bytes,
    })
}

fn encode_entries(head: &mut Vec<u8>, kind: u8, entries: impl ExactSizeIterator<Item = KeyTicket>) {
    head[8] = kind;
    head[96..100].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    for KeyTicket { key, ticket } in entries {
        head.extend_from_slice(&key.chunk.0);
        head.extend_from_slice(&[key.scheme.data_shards(), key.scheme.parity_shards(), key.index, 0, 0, 0, 0, 0]);
        head.extend_from_slice(&ticket.nanos().to_le_bytes());
    }
}

fn decode_entries(head: &[u8]) -> Option<Vec<KeyTicket>> {
    let entry = |bytes: &[u8; ENTRY_BYTES]| {
        let scheme = Scheme::new(bytes[32], bytes[33]).ok()?;
        let key = ShardKey { chunk: ChunkId(std::array::from_fn(|i| bytes[i])), scheme, index: bytes[34] };
        Some(KeyTicket { key, ticket: Timestamp::from_nanos(read_u64(bytes, 40) as i64) })
    };
    head[FIXED_BYTES..].as_chunks::<ENTRY_BYTES>().0.iter().map(entry).collect()
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::{collection, prop_assert, prop_assert_eq, proptest};

    const STAND: Stand = Stand { uuid: TargetUuid([9; 16]), at: Position { segment: SegmentNumber(3), offset: 8192 } };

    fn keys() -> impl Strategy<Value = ShardKey> {
        (any::<[u8; 32]>(), 1..=16u8, 0..=4u8).prop_flat_map(|(chunk, data, parity)| {
            let scheme = Scheme::new(data, parity).expect("in range");
            (0..scheme.shards()).prop_map(move |index| ShardKey { chunk: ChunkId(chunk), scheme, index })
        })
    }

    fn hashes(max: usize) -> impl Strategy<Value = Vec<Hash>> {
        collection::vec(any::<[u8; 32]>().prop_map(Hash), 0..=max)
    }

    fn shards() -> impl Strategy<Value = Record> {
        let stored = (keys(), 1..=CHUNK_BYTES_MAX as u32).prop_filter("stored and not too long", |(key, chunk_bytes)| {
            (1..=SHARD_BYTES_MAX as u32).contains(&key.scheme.layout(*chunk_bytes).stored_bytes(key.index))
        });
        (stored, hashes(16), hashes(4), hashes(300), any::<i64>()).prop_map(|((key, chunk_bytes), data, parity, blocks, ticket)| {
            let payload_bytes = key.scheme.layout(chunk_bytes).stored_bytes(key.index);
            let header = ShardHeader { key, chunk_bytes, data_hashes: data, parity_hashes: parity };
            Record::Shard(ShardMeta { header, blocks, ticket: Timestamp::from_nanos(ticket), payload_bytes })
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        let touch = (keys(), any::<i64>()).prop_map(|(key, ticket)| KeyTicket { key, ticket: Timestamp::from_nanos(ticket) });
        prop_oneof![
            shards(),
            collection::vec(touch, 1..200).prop_map(Record::Touches),
            collection::vec(keys(), 1..200).prop_map(Record::Tombstones),
            Just(Record::Tombstones(Vec::new())),
        ]
    }

    proptest! {
        #[test]
        fn heads_read_back(record in records()) {
            let head = record.encode_head(STAND);
            let shape = RecordShape::peek(&head, STAND).expect("a record");
            prop_assert_eq!(shape, record.shape());
            prop_assert_eq!(Record::decode_head(&head, &shape), Ok(record));
            prop_assert!(shape.head_bytes <= HEAD_BYTES_MAX);
            prop_assert!(shape.record_bytes().is_multiple_of(PAGE_BYTES));
        }

        #[test]
        fn a_flipped_bit_is_noticed(record in records(), bit in any::<proptest::sample::Index>()) {
            let mut head = record.encode_head(STAND);
            let bit = bit.index(record.shape().head_bytes * 8);
            head[bit / 8] ^= 1 << (bit % 8);
            let result = RecordShape::peek(&head, STAND).and_then(|shape| {
                head.resize(HEAD_BYTES_MAX, 0);
                Record::decode_head(&head, &shape)
            });
            prop_assert!(result.is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in collection::vec(any::<u8>(), 0..600)) {
            let mut page = STAND_PREFIX.with(Clone::clone);
            let keep = 48.min(bytes.len());
            page.extend_from_slice(&bytes[keep..]);
            page.resize(HEAD_BYTES_MAX, 0);
            page[8] = 1 + bytes.first().copied().unwrap_or(0) % 4;
            if let Ok(shape) = RecordShape::peek(&page, STAND) {
                // With the checksum made to fit, only the numbers decide.
                let sum = head_checksum(&page[..shape.head_bytes]);
                page[CHECKED_BYTES..FIXED_BYTES].copy_from_slice(&sum);
                let _ = Record::decode_head(&page, &shape);
            }
        }
    }

    thread_local! {
        static STAND_PREFIX: Vec<u8> = Record::Tombstones(Vec::new()).encode_head(STAND)[..48].to_vec();
    }

    #[test]
    fn a_record_elsewhere_is_not_taken_for_one() {
        let head = Record::Tombstones(Vec::new()).encode_head(STAND);
        let other_offset = Stand { at: Position { offset: 4096, ..STAND.at }, ..STAND };
        let other_target = Stand { uuid: TargetUuid([8; 16]), ..STAND };
        assert_eq!(RecordShape::peek(&head, other_offset), Err(RecordError::Misplaced));
        assert_eq!(RecordShape::peek(&head, other_target), Err(RecordError::Misplaced));
    }

    #[test]
    fn small_shards_cost_little() {
        let shard = |bytes: u32| {
            let key = ShardKey { chunk: ChunkId([1; 32]), scheme: Scheme::copies(2), index: 0 };
            let header = ShardHeader { key, chunk_bytes: bytes, data_hashes: Vec::new(), parity_hashes: Vec::new() };
            let blocks = vec![Hash([0; 32]); (bytes as usize).div_ceil(BLOCK_BYTES)];
            Record::Shard(ShardMeta { header, blocks, ticket: Timestamp::EPOCH, payload_bytes: bytes }).shape()
        };
        assert_eq!(shard(1).record_bytes(), 4096);
        assert_eq!(shard(3904).record_bytes(), 4096, "head and payload share the page");
        assert_eq!(shard(3905).record_bytes(), 8192);
        assert_eq!(shard(4096).record_bytes(), 8192);
        assert_eq!(shard(1 << 20).record_bytes(), (1 << 20) + 3 * 4096);
    }
}
