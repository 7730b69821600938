//! What a client (or another chunkserver) asks of a chunkserver.

use crate::ids::{ChunkId, Hash, Incarnation, MapEpoch, TargetId};
use crate::scheme::Scheme;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one shard. The same chunk may be stored under several schemes, so the scheme is part of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    pub chunk: ChunkId,
    pub scheme: Scheme,
    /// 0..k are data shards, k..k+m are parity.
    pub index: u8,
}

/// What a shard says of itself: enough to check it against its chunk's id with nothing else at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHeader {
    pub key: ShardKey,
    pub chunk_bytes: u32,
    /// Chaining values of the occupied data shards, in order; they merge to the chunk id. Empty for copies, whose
    /// only data shard is the chunk.
    pub data_hashes: Vec<Hash>,
    /// BLAKE3 hashes of the m parity shards, in order. Empty for copies.
    pub parity_hashes: Vec<Hash>,
}

/// A request to a chunkserver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkserverRequest {
    /// Stores a shard; the body is its bytes. Idempotent. With `sync` it is on stable storage when the answer comes.
    /// A parity shard comes with the block chaining values of all the chunk's data (`data_blocks`), so that a reader
    /// who lost a data shard can check what it decoded; it is empty for data shards and copies, which yield their own.
    /// `ticket` is the newest time of the master that the writer knows; putting a shard that is there renews its ticket.
    Put { target: TargetId, epoch: MapEpoch, ticket: Timestamp, header: ShardHeader, data_blocks: Vec<Hash>, sync: bool },
    /// Reads bytes `offset .. offset + bytes` of a shard into the body of the reply. `offset` and the end must lie on
    /// block boundaries (the end may be the shard's).
    Get { target: TargetId, key: ShardKey, offset: u32, bytes: u32, with_proof: bool },
    /// The proof of a chunk alone: of data shard `data_index`, from the shard named by `key` (itself, or a parity shard).
    Proof { target: TargetId, key: ShardKey, data_index: u8 },
    /// Makes everything put so far on this target stable. Fails with `Restarted` if the target is not in that life any
    /// more; the caller then asks with `Check` whether what it put is still there.
    Sync { target: TargetId, incarnation: Incarnation },
    /// Which of these shards are there?
    Check { target: TargetId, keys: Vec<ShardKey> },
    /// Deletes shards; those whose ticket is not before `put_before` stay, for a commit may still name them.
    Delete { target: TargetId, keys: Vec<ShardKey>, put_before: Timestamp },
    /// State of every target of the server.
    Status,
    /// A whole shard with all that is kept with it, for another chunkserver to store: its bytes are the body of the reply.
    Fetch { target: TargetId, key: ShardKey },
    /// The asker found these shards missing, unreadable or wrong: look at them, and repair what is not as it should be.
    Doubt { target: TargetId, keys: Vec<ShardKey> },
    /// Reads these shards from the disk and checks them against their hashes, as the scrub does.
    Examine { target: TargetId, keys: Vec<ShardKey> },
}

/// What a chunkserver says of one of its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardVerdict {
    Sound,
    Missing,
    /// It can't be read, or is not what it should be. It will be repaired.
    Damaged,
    /// It could not be told just now.
    Unknown,
}

/// The block chaining values of one data shard and the way from it to the chunk id (design section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardProof {
    pub chunk_bytes: u32,
    pub data_hashes: Vec<Hash>,
    /// Chaining values of the 4 KiB blocks of the shard, in order.
    pub blocks: Vec<Hash>,
}

/// The answer to a request; the bytes of a `Get` are the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkserverReply {
    Stored {
        incarnation: Incarnation,
    },
    Data {
        proof: Option<ShardProof>,
    },
    Proof {
        proof: ShardProof,
    },
    Synced,
    /// One answer per key asked for.
    Checked {
        present: Vec<bool>,
    },
    Deleted {
        shards: u32,
    },
    Status {
        targets: Vec<TargetStatus>,
    },
    /// `blocks`: what a put of the shard must bring along as `data_blocks`; empty for data shards and copies.
    Fetched {
        header: ShardHeader,
        blocks: Vec<Hash>,
    },
    /// They will be looked at, as far as there is room in the queue.
    Doubted,
    /// One verdict per key asked for; `bytes` were read.
    Examined {
        verdicts: Vec<ShardVerdict>,
        bytes: u64,
    },
}

/// A target as its chunkserver reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub target: TargetId,
    pub health: TargetHealth,
    /// Bytes that shards and their records occupy.
    pub used_bytes: u64,
    /// `used_bytes` plus what the disk still has free.
    pub total_bytes: u64,
    pub shards: u64,
    /// Shards found corrupt or unreadable since the start.
    pub corrupt_shards: u64,
    pub healing: Healing,
}

/// What a target does so that everything that belongs on it is there and sound. Counts are since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Healing {
    /// Slots that the target was given and does not have all shards of yet.
    pub slots_left: u64,
    /// Those of them whose missing shards are not counted yet: there is more left than the next two say.
    pub slots_uncounted: u64,
    /// Shards known to be missing or damaged.
    pub shards_left: u64,
    pub bytes_left: u64,
    /// Those of them in slots that count as complete.
    pub shards_missing: u64,
    /// Shards that can't be rebuilt at present: too few others can be read.
    pub shards_stuck: u64,
    pub shards_repaired: u64,
    pub bytes_repaired: u64,
    /// Of those repaired: shards that were there, but damaged.
    pub damaged_repaired: u64,
    /// Over the last seconds.
    pub bytes_per_second: u64,
    /// Shards that nobody needs (any more) and that were deleted.
    pub orphans_deleted: u64,
    /// Complete passes of the scrub, over all starts.
    pub scrub_passes: u64,
    /// How far the present pass is, in thousandths of all chunk ids.
    pub scrub_permille: u16,
    pub bytes_scrubbed: u64,
    pub shards_scrubbed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetHealth {
    Good,
    /// No room for new shards.
    Full,
    /// The disk failed to persist or to read; the target acknowledges nothing any more.
    Failed,
}

/// Why a chunkserver did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ChunkserverError {
    #[error("chunkserver holds no target {0}")]
    NoSuchTarget(TargetId),
    #[error("{target} has no room: {free_bytes} bytes are free")]
    Full { target: TargetId, free_bytes: u64 },
    #[error("{target} has failed: {reason}")]
    TargetFailed { target: TargetId, reason: String },
    #[error("shard {index} ({scheme}) of chunk {chunk:?} is not on this target", index = .0.index, scheme = .0.scheme, chunk = .0.chunk)]
    NoSuchShard(ShardKey),
    #[error("shard {index} ({scheme}) of chunk {chunk:?} is corrupt on this target", index = .0.index, scheme = .0.scheme, chunk = .0.chunk)]
    Corrupt(ShardKey),
    #[error("the bytes do not hash to what leads to the chunk id: {0}")]
    HashMismatch(String),
    #[error("the target was restarted and is now {now}")]
    Restarted { now: Incarnation },
    #[error("the request makes no sense: {0}")]
    Malformed(String),
    #[error("the certificate does not allow this")]
    Denied,
    #[error("the chunkserver is overloaded or shutting down")]
    Unavailable,
}

/// What the head of a reply holds.
pub type ChunkserverAnswer = Result<ChunkserverReply, ChunkserverError>;
