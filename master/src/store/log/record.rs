//! One record of the command log, byte by byte (docs/on-disk-format-master.md).
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic |
//! | 4..8 | length of the payload |
//! | 8..16 | index of the command |
//! | 16..24 | `durable`: the last index that was known to be on stable storage when this record was written |
//! | 24..40 | first 16 bytes of keyed BLAKE3 over bytes 0..24 and the payload; the key is the segment's |
//! | 40.. | payload |
//!
//! Integers are little-endian. Records begin at multiples of 8. Nobody who can choose payloads knows the key, so no payload
//! can be mistaken for a record.

use cairn_common::ids::LogIndex;
use cairn_common::planted::{Bug, is_planted};

pub const RECORD_HEADER_BYTES: usize = 40;
const MAGIC: [u8; 4] = *b"cmd1";
const CHECKED_BYTES: usize = 24;
/// Records begin at multiples of this.
pub const RECORD_ALIGNMENT: usize = 8;

/// Secret of a segment: a record is valid only in the segment for which it was written.
pub type SegmentKey = [u8; 32];

/// A record that was found intact.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'b> {
    pub index: LogIndex,
    pub durable: LogIndex,
    pub payload: &'b [u8],
}

/// The space that a record with such a payload takes, with its padding.
pub fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(RECORD_ALIGNMENT)
}

/// The header that stands before `payload`.
pub fn encode_header(key: &SegmentKey, index: LogIndex, durable: LogIndex, payload: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    let bytes = u32::try_from(payload.len()).expect("a command is far below 4 GiB");
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&bytes.to_le_bytes());
    header[8..16].copy_from_slice(&index.0.to_le_bytes());
    header[16..24].copy_from_slice(&durable.0.to_le_bytes());
    let checksum = checksum(key, &header[..CHECKED_BYTES], payload);
    header[CHECKED_BYTES..].copy_from_slice(&checksum);
    header
}

/// The record that begins at `offset` of a segment, if there is an intact one.
pub fn decode_at<'b>(key: &SegmentKey, segment: &'b [u8], offset: usize) -> Option<Record<'b>> {
    let (header, rest) = segment.get(offset..)?.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    if header[..4] != MAGIC {
        return None;
    }
    let bytes = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let payload = rest.get(..bytes)?;
    let number = |range: std::ops::Range<usize>| Some(LogIndex(u64::from_le_bytes(header[range].try_into().ok()?)));
    let intact = checksum(key, &header[..CHECKED_BYTES], payload) == header[CHECKED_BYTES..];
    (intact || is_planted(Bug::TornTailReplayed)).then_some(Record { index: number(8..16)?, durable: number(16..24)?, payload })
}

fn checksum(key: &SegmentKey, header: &[u8], payload: &[u8]) -> [u8; RECORD_HEADER_BYTES - CHECKED_BYTES] {
    let hash = blake3::Hasher::new_keyed(key).update(header).update(payload).finalize();
    std::array::from_fn(|at| hash.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use super::{Record, decode_at, encode_header};
    use cairn_common::ids::LogIndex;

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let key = [7; 32];
        let mut bytes = encode_header(&key, LogIndex(5), LogIndex(3), b"payload").to_vec();
        bytes.extend_from_slice(b"payload");
        let whole = Some(Record { index: LogIndex(5), durable: LogIndex(3), payload: &b"payload"[..] });
        assert_eq!(decode_at(&key, &bytes, 0), whole);
        assert_eq!(decode_at(&[8; 32], &bytes, 0), None);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_at(&key, &bytes, 0), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for end in 0..bytes.len() {
            assert_eq!(decode_at(&key, &bytes[..end], 0), None, "cut to {end} bytes");
        }
    }
}
