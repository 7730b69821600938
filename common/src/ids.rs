//! Identifiers. Each is a type of its own, so that two of them can't be swapped by a tired hand.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

id!(/// An inode number. Never used twice, so it needs no generation. The root directory is 1.
    Ino(u64), "i");
id!(/// A chunkserver.
    ServerId(u32), "s");
id!(/// A data directory of a chunkserver: the unit of placement and of failure.
    TargetId(u32), "t");
id!(/// A pool: a scheme with placement rules.
    PoolId(u32), "p");
id!(/// A client's registration with the master.
    SessionId(u64), "c");
id!(/// Position of a mutation in its session; grows by one with each.
    Sequence(u64), "#");
id!(/// Version of the cluster map.
    MapEpoch(u64), "e");
id!(/// Position of a command in the master's log. The first is 1.
    LogIndex(u64), "l");
id!(/// Position of an entry within its directory, as readdir hands it out. Grows with each entry made; 0 is before the first.
    DirCookie(u64), "d");
id!(/// One life of a process: drawn at random at each start, so that a peer notices a restart.
    Incarnation(u64), "n");

impl Ino {
    pub const ROOT: Ino = Ino(1);
}

impl LogIndex {
    pub const ZERO: LogIndex = LogIndex(0);

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// 32 bytes that BLAKE3 made: a chunk's id, or the chaining value of one of its subtrees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

/// The id of a chunk: the BLAKE3 hash of its bytes, just as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The first `bits` bits (at most 32) of the id, which name its placement group.
    pub fn prefix(self, bits: u8) -> u32 {
        debug_assert!(bits <= 32);
        let word = u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        if bits == 0 { 0 } else { word >> (32 - u32::from(bits)) }
    }

    /// The first id of a placement group (`group` is below `1 << bits`).
    pub fn first_of_group(group: u32, bits: u8) -> Self {
        debug_assert!(bits <= 32);
        let word = if bits == 0 { 0 } else { group << (32 - u32::from(bits)) };
        let mut id = [0; 32];
        id[..4].copy_from_slice(&word.to_be_bytes());
        Self(id)
    }

    /// Where a placement group ends: the first id of the next; `None` for the last.
    pub fn end_of_group(group: u32, bits: u8) -> Option<Self> {
        (u64::from(group) + 1 < 1 << bits).then(|| Self::first_of_group(group + 1, bits))
    }

    /// The id behind this one; `None` after the last.
    pub fn next(self) -> Option<Self> {
        let mut id = self.0;
        for byte in id.iter_mut().rev() {
            let (sum, overflows) = byte.overflowing_add(1);
            *byte = sum;
            if !overflows {
                return Some(Self(id));
            }
        }
        None
    }
}

fn write_short_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_short_hex(&self.0, f)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_short_hex(&self.0, f)
    }
}

impl fmt::Display for ChunkId {
    /// All 64 hexadecimal digits, as `b3sum` prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkId;

    #[test]
    fn groups_are_ranges_of_ids() {
        assert_eq!(ChunkId::first_of_group(0, 0), ChunkId([0; 32]));
        for bits in [1, 4, 8, 12] {
            for group in [0, 1, (1 << bits) - 1] {
                let first = ChunkId::first_of_group(group, bits);
                assert_eq!(first.prefix(bits), group);
                assert_eq!(ChunkId::end_of_group(group, bits).is_none(), group + 1 == 1 << bits);
                assert!(group == 0 || ChunkId::first_of_group(group - 1, bits) < first);
            }
        }
    }

    #[test]
    fn an_id_has_a_successor_but_the_last() {
        let mut id = [7; 32];
        id[31] = 255;
        let next = ChunkId(id).next().expect("not the last");
        assert_eq!((next.0[30], next.0[31]), (8, 0));
        assert_eq!(ChunkId([255; 32]).next(), None);
    }
}
