//! The first page of a segment file.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `CAIRNSEG` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 16 | uuid of the target |
//! | 32 | 8 | number of this segment |
//! | 40 | 8 | number of the segment before it; 0 if there was none |
//! | 48 | 8 | where the good records of that segment end |
//! | 56 | 32 | BLAKE3 of bytes 0..56 |
//!
//! Numbers are little-endian; the rest of the page is zero.

use super::{PAGE_BYTES, Position, SegmentNumber, TargetUuid};

const MAGIC: &[u8; 8] = b"CAIRNSEG";
/// Version of the segment format: of this header and of the records.
pub const FORMAT_VERSION: u32 = 1;
const CHECKED_BYTES: usize = 56;
const USED_BYTES: usize = CHECKED_BYTES + 32;
/// Where the first record starts.
pub const FIRST_RECORD: u64 = PAGE_BYTES as u64;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub uuid: TargetUuid,
    pub number: SegmentNumber,
    /// The segment before this one and the end of its good records. Everything before that end was synced before this
    /// segment was made; what lies behind it (the remains of a failed write) must be ignored.
    pub previous: Position,
}

/// Why a page is not the header of a segment that this program can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentHeaderError {
    /// Not a header, or a damaged one.
    Damaged,
    /// A good header of a later format.
    NewerFormat(u32),
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[0..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[16..32].copy_from_slice(&self.uuid.0);
        page[32..40].copy_from_slice(&self.number.0.to_le_bytes());
        page[40..48].copy_from_slice(&self.previous.segment.0.to_le_bytes());
        page[48..56].copy_from_slice(&self.previous.offset.to_le_bytes());
        let checksum = blake3::hash(&page[..CHECKED_BYTES]);
        page[CHECKED_BYTES..USED_BYTES].copy_from_slice(checksum.as_bytes());
        page
    }

    pub fn decode(page: &[u8]) -> Result<Self, SegmentHeaderError> {
        let head: &[u8; USED_BYTES] = page.first_chunk().ok_or(SegmentHeaderError::Damaged)?;
        let sum_fits = blake3::hash(&head[..CHECKED_BYTES]).as_bytes()[..] == head[CHECKED_BYTES..];
        if &head[0..8] != MAGIC || !sum_fits {
            return Err(SegmentHeaderError::Damaged);
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let version = u32::from_le_bytes(std::array::from_fn(|i| head[8 + i]));
        if version != FORMAT_VERSION {
            return Err(SegmentHeaderError::NewerFormat(version));
        }
        Ok(Self {
            uuid: TargetUuid(std::array::from_fn(|i| head[16 + i])),
            number: SegmentNumber(number(32)),
            previous: Position { segment: SegmentNumber(number(40)), offset: number(48) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let previous = Position { segment: SegmentNumber(6), offset: 12_288 };
        SegmentHeader { uuid: TargetUuid([7; 16]), number: SegmentNumber(9), previous }
    }

    #[test]
    fn a_header_reads_back() {
        let page = header().encode();
        assert_eq!(page.len(), PAGE_BYTES);
        assert_eq!(SegmentHeader::decode(&page), Ok(header()));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for bit in 0..USED_BYTES * 8 {
            let mut page = header().encode();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&page), Err(SegmentHeaderError::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_is_told_apart_from_damage() {
        let mut page = header().encode();
        page[8] = 2;
        let checksum = blake3::hash(&page[..CHECKED_BYTES]);
        page[CHECKED_BYTES..USED_BYTES].copy_from_slice(checksum.as_bytes());
        assert_eq!(SegmentHeader::decode(&page), Err(SegmentHeaderError::NewerFormat(2)));
    }
}
