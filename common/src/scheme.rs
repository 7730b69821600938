//! Redundancy schemes and how a chunk's bytes are laid out in shards.

use crate::limits::{CHUNK_BYTES_MAX, DATA_SHARDS_MAX, KIB, MIB, PARITY_SHARDS_MAX};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, str::FromStr};

/// `k+m`: k data shards and m parity shards. `1+2` is three copies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u8, u8)", into = "(u8, u8)")]
pub struct Scheme {
    data: u8,
    parity: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scheme: write K+M with K from 1 to 16 and M from 0 to 4, for example 4+2")]
pub struct SchemeError(pub String);

impl Scheme {
    pub fn new(data: u8, parity: u8) -> Result<Self, SchemeError> {
        let fits = (1..=DATA_SHARDS_MAX).contains(&data) && parity <= PARITY_SHARDS_MAX;
        if fits { Ok(Self { data, parity }) } else { Err(SchemeError(format!("{data}+{parity}"))) }
    }

    /// `1+parity`: the chunk itself, on 1 + parity targets.
    pub fn copies(parity: u8) -> Self {
        Self { data: 1, parity: parity.min(PARITY_SHARDS_MAX) }
    }

    /// k
    pub fn data_shards(self) -> u8 {
        self.data
    }

    /// m: how many shards may be lost.
    pub fn parity_shards(self) -> u8 {
        self.parity
    }

    /// k + m
    pub fn shards(self) -> u8 {
        self.data + self.parity
    }

    /// With one data shard every shard is the chunk itself.
    pub fn is_copies(self) -> bool {
        self.data == 1
    }

    /// The largest chunk that writers make for this scheme: k MiB, and 4 MiB below that (design section 2).
    pub fn chunk_bytes_max(self) -> usize {
        let mib = MIB as usize;
        (usize::from(self.data) * mib).clamp(4 * mib, CHUNK_BYTES_MAX)
    }

    /// How a chunk of `chunk_bytes` (1 or more) is cut.
    pub fn layout(self, chunk_bytes: u32) -> ChunkLayout {
        ChunkLayout::new(self, chunk_bytes)
    }
}

/// What comes from a disk or a socket is a scheme only if it could have been made by `new`.
impl TryFrom<(u8, u8)> for Scheme {
    type Error = SchemeError;

    fn try_from((data, parity): (u8, u8)) -> Result<Self, Self::Error> {
        Self::new(data, parity)
    }
}

impl From<Scheme> for (u8, u8) {
    fn from(scheme: Scheme) -> Self {
        (scheme.data, scheme.parity)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Scheme {
    type Err = SchemeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || SchemeError(text.to_owned());
        let (data, parity) = text.split_once('+').ok_or_else(wrong)?;
        let number = |part: &str| part.parse::<u8>().map_err(|_| wrong());
        Scheme::new(number(data)?, number(parity)?).map_err(|_| wrong())
    }
}

/// How the bytes of one chunk lie in its shards: data shard `i` holds the range `[i * shard_bytes, (i + 1) * shard_bytes)`
/// of the chunk, cut off at the chunk's end. Beyond the end everything counts as zero and is never stored nor sent, so the
/// last data shards may be short or empty. Parity shards are `shard_bytes` long, but for copies, which are the chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLayout {
    scheme: Scheme,
    chunk_bytes: u32,
    shard_bytes: u32,
}

impl ChunkLayout {
    fn new(scheme: Scheme, chunk_bytes: u32) -> Self {
        debug_assert!(chunk_bytes > 0);
        let share = chunk_bytes.div_ceil(u32::from(scheme.data));
        // A power of two of KiB, so that each data shard is a complete subtree of BLAKE3 over 1 KiB leaves.
        let shard_bytes = share.max(KIB as u32).next_power_of_two();
        Self { scheme, chunk_bytes, shard_bytes }
    }

    pub fn scheme(self) -> Scheme {
        self.scheme
    }

    pub fn chunk_bytes(self) -> u32 {
        self.chunk_bytes
    }

    /// Nominal length of a shard: a power of two of KiB.
    pub fn shard_bytes(self) -> u32 {
        self.shard_bytes
    }

    /// How many data shards hold any byte of the chunk; the others are all zero and are not stored.
    pub fn occupied_data_shards(self) -> u8 {
        self.chunk_bytes.div_ceil(self.shard_bytes) as u8
    }

    /// The range of the chunk that data shard `index` holds; empty for the shards beyond the chunk's end.
    pub fn data_range(self, index: u8) -> Range<u32> {
        let start = (u32::from(index) * self.shard_bytes).min(self.chunk_bytes);
        start..(start + self.shard_bytes).min(self.chunk_bytes)
    }

    /// Stored length of shard `index` (data or parity); 0 if it is not stored.
    pub fn stored_bytes(self, index: u8) -> u32 {
        if self.scheme.is_copies() {
            self.chunk_bytes
        } else if index < self.scheme.data {
            self.data_range(index).len() as u32
        } else {
            self.shard_bytes
        }
    }

    /// Whether shard `index` exists on a disk at all.
    pub fn is_stored(self, index: u8) -> bool {
        self.stored_bytes(index) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::Scheme;
    use crate::codec::{decode, encode};

    #[test]
    fn impossible_schemes_do_not_decode() {
        let scheme = Scheme::new(4, 2).unwrap();
        assert_eq!(encode(&scheme), [4, 2]);
        assert_eq!(decode::<Scheme>("a scheme", &[4, 2]), Ok(scheme));
        for wrong in [[0, 2], [17, 2], [4, 5]] {
            assert!(decode::<Scheme>("a scheme", &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn schemes_are_written_as_they_are_read() {
        for text in ["4+2", "1+2", "16+4", "2+0"] {
            assert_eq!(text.parse::<Scheme>().unwrap().to_string(), text);
        }
        for wrong in ["", "4", "4+", "+2", "0+1", "4+5", "4+2+1", "-1+2"] {
            assert!(wrong.parse::<Scheme>().is_err(), "{wrong}");
        }
    }
}
