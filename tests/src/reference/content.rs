//! What files are filled with: bytes that follow from the number of a write, so that each byte tells who wrote it.

/// What one byte of a file may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The file ends before.
    End,
    /// Never written, or punched out.
    Zero,
    /// Byte `offset + shift` of the stream of a write.
    Written { write: u64, shift: i64 },
}

impl Value {
    /// The same value as a clone finds it, `distance` further on in its file.
    pub fn moved_by(self, distance: i64) -> Self {
        match self {
            Value::Written { write, shift } => Value::Written { write, shift: shift - distance },
            other => other,
        }
    }

    /// What the bytes from `offset` on are; `None` if there are none.
    pub fn bytes(self, offset: u64, len: usize) -> Option<Vec<u8>> {
        match self {
            Value::End => None,
            Value::Zero => Some(vec![0; len]),
            Value::Written { write, shift } => Some(stream(write, offset.wrapping_add_signed(shift), len)),
        }
    }
}

/// Bytes `from .. from + len` of the stream of a write.
pub fn stream(write: u64, from: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    let skipped = (from % 8) as usize;
    let mut word = from / 8;
    while bytes.len() < len + skipped {
        bytes.extend_from_slice(&mix(write, word).to_le_bytes());
        word += 1;
    }
    bytes.drain(..skipped);
    bytes.truncate(len);
    bytes
}

/// A well mixed word (splitmix64).
fn mix(write: u64, word: u64) -> u64 {
    let mut mixed = write.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word.wrapping_add(0x632B_E59B_D9B4_E019);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
