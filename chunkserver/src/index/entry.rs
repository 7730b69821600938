//! What the index keeps of a shard and of a segment, and how redb stores it.
//!
//! Key of a shard, 35 bytes: chunk id (32), k, m, index. Entry, 48 bytes: segment (8), offset (8), record bytes (4), payload
//! at (4), payload bytes (4), chunk bytes (4), ticket (8), segment of the ticket (8). Use of a segment, 24 bytes: shards,
//! their record bytes, tickets (8 each). Little-endian.

use crate::segment::{Place, SegmentNumber};
use cairn_common::ids::ChunkId;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ShardKey;

pub const KEY_BYTES: usize = 35;
pub const ENTRY_BYTES: usize = 48;
pub const USE_BYTES: usize = 24;

/// A shard that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub chunk_bytes: u32,
    /// The newest ticket of its puts.
    pub ticket: Timestamp,
    /// The segment that holds the record of that ticket: the shard's own, or one with a touch.
    pub ticket_segment: SegmentNumber,
}

/// Why a segment is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentUse {
    pub shards: u64,
    /// Length of their records.
    pub record_bytes: u64,
    /// Shards of other segments whose newest ticket is here.
    pub tickets: u64,
}

impl SegmentUse {
    pub fn is_spent(&self) -> bool {
        self.shards == 0 && self.tickets == 0
    }

    pub fn encode(&self) -> [u8; USE_BYTES] {
        let mut bytes = [0; USE_BYTES];
        put(&mut bytes, 0, &self.shards.to_le_bytes());
        put(&mut bytes, 8, &self.record_bytes.to_le_bytes());
        put(&mut bytes, 16, &self.tickets.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; USE_BYTES]) -> Self {
        Self { shards: u64_at(bytes, 0), record_bytes: u64_at(bytes, 8), tickets: u64_at(bytes, 16) }
    }
}

impl Entry {
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        put(&mut bytes, 0, &self.place.segment.0.to_le_bytes());
        put(&mut bytes, 8, &self.place.offset.to_le_bytes());
        put(&mut bytes, 16, &self.place.record_bytes.to_le_bytes());
        put(&mut bytes, 20, &self.place.payload_at.to_le_bytes());
        put(&mut bytes, 24, &self.place.payload_bytes.to_le_bytes());
        put(&mut bytes, 28, &self.chunk_bytes.to_le_bytes());
        put(&mut bytes, 32, &self.ticket.nanos().to_le_bytes());
        put(&mut bytes, 40, &self.ticket_segment.0.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let place = Place {
            segment: SegmentNumber(u64_at(bytes, 0)),
            offset: u64_at(bytes, 8),
            record_bytes: u32_at(bytes, 16),
            payload_at: u32_at(bytes, 20),
            payload_bytes: u32_at(bytes, 24),
        };
        let ticket = Timestamp::from_nanos(u64_at(bytes, 32) as i64);
        Self { place, chunk_bytes: u32_at(bytes, 28), ticket, ticket_segment: SegmentNumber(u64_at(bytes, 40)) }
    }
}

pub fn encode_key(key: &ShardKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    put(&mut bytes, 0, &key.chunk.0);
    bytes[32] = key.scheme.data_shards();
    bytes[33] = key.scheme.parity_shards();
    bytes[34] = key.index;
    bytes
}

/// `None` if the scheme is none: then the index is damaged.
pub fn decode_key(bytes: &[u8; KEY_BYTES]) -> Option<ShardKey> {
    let scheme = Scheme::new(bytes[32], bytes[33]).ok()?;
    Some(ShardKey { chunk: ChunkId(std::array::from_fn(|i| bytes[i])), scheme, index: bytes[34] })
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reads_back() {
        let place = Place { segment: SegmentNumber(1 << 40), offset: 1 << 33, record_bytes: 3, payload_at: 4, payload_bytes: 5 };
        let entry = Entry { place, chunk_bytes: 6, ticket: Timestamp::from_nanos(-7), ticket_segment: SegmentNumber(8) };
        assert_eq!(Entry::decode(&entry.encode()), entry);
        let usage = SegmentUse { shards: 1, record_bytes: 2, tickets: 3 };
        assert_eq!(SegmentUse::decode(&usage.encode()), usage);
        let key = ShardKey { chunk: ChunkId([9; 32]), scheme: Scheme::new(4, 2).expect("valid"), index: 5 };
        assert_eq!(decode_key(&encode_key(&key)), Some(key));
        assert_eq!(decode_key(&[0; KEY_BYTES]), None);
    }
}
