//! Every bound of the data path, in one place.

use std::time::Duration;

/// One shard of a put: after this the target counts as gone for this chunk.
pub const SHARD_PUT_LIMIT: Duration = Duration::from_secs(3);
/// A put that lacks no more shards than may be lost waits this much longer than the others took, not more.
pub const STRAGGLER_PATIENCE: Duration = Duration::from_secs(1);
/// A chunk that can't be put anywhere for this long has failed.
pub const CHUNK_PUT_LIMIT: Duration = Duration::from_secs(30);
/// Pause before trying again when too few targets can be reached.
pub const PUT_RETRY_PAUSE: Duration = Duration::from_millis(300);
/// How often the chunks of one commit are put again because the map moved meanwhile.
pub const PUT_AGAIN_MAX: u32 = 6;

/// One request for a range of a shard.
pub const GET_LIMIT: Duration = Duration::from_secs(3);
/// A read that found no way to its bytes within this time has failed.
pub const READ_LIMIT: Duration = Duration::from_secs(8);
/// A holder that takes longer than this and than three times the recent 95th percentile gets company.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(50);
/// Upper end of the same.
pub const HEDGE_DELAY_MAX: Duration = Duration::from_millis(800);
/// An answer that takes longer than this and than ten times the median is slow ...
pub const SLOW_ANSWER_MIN: Duration = Duration::from_millis(5);
/// ... and a target with so many slow ones that were not made up for is gone around ...
pub const SLOW_ANSWERS_MAX: u32 = 3;
/// ... for so long. Then it is tried again.
pub const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Readers who want the same range of a shard share one request from this length on; below, sharing costs more than it saves.
pub const SHARED_BYTES_MIN: usize = 64 << 10;
/// Ways of combining sources that a rebuild tries before it gives up.
pub const REBUILD_COMBINATIONS_MAX: usize = 64;

/// Shards whose loss is being told to their targets at the same time; more are not told now.
pub const DOUBTS_AT_ONCE: usize = 8;
/// The same doubt is told again after this time.
pub const DOUBT_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Doubts that are remembered for that.
pub const DOUBTS_REMEMBERED_MAX: usize = 1024;

/// Making a target's puts stable.
pub const SYNC_LIMIT: Duration = Duration::from_secs(5);
/// Shards that were put but not synced; above it the targets are synced in the background.
pub const UNSYNCED_SHARDS_MAX: usize = 4096;
/// ... or when they belong to more files than this.
pub const UNSYNCED_FILES_MAX: usize = 16_384;
/// Shard names in one `Check`.
pub const CHECK_KEYS_MAX: usize = 1024;
/// How often a sync follows a target through restarts.
pub const SYNC_ROUNDS_MAX: u32 = 4;

/// Written data is put after this time even if nobody asks.
pub const DIRTY_AGE_MAX: Duration = Duration::from_secs(5);
/// How often the age of dirty data is looked at.
pub const DIRTY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Put chunks are committed after this time even if nobody asks.
pub const COMMIT_AGE_MAX: Duration = Duration::from_secs(1);
/// ... or when there are this many of them.
pub const COMMIT_RUNS_MAX: usize = 32;
/// Rounds of packing whose puts may be under way at the same time; what is asked for meanwhile gathers for the next one.
pub const PACK_ROUNDS_IN_FLIGHT: usize = 4;
/// Commits under way at the same time.
pub const COMMITS_IN_FLIGHT: usize = 2;
/// Extents that one run of written data may have, so that a commit can always hold it.
pub const RUN_EXTENTS_MAX: usize = cairn_common::limits::COMMIT_EXTENTS_MAX / 2;
/// A run at least this long, and without dead bytes, becomes a chunk as it is instead of being copied into a pack.
pub const OWN_CHUNK_BYTES_MIN: usize = 1 << 20;
/// ... unless it has more extents than this: sorted into a pack, many of them become one.
pub const OWN_CHUNK_EXTENTS_MAX: usize = 64;

/// How soon the master is asked again for something to compact, after it had nothing or it did not work out.
pub const COMPACTION_IDLE_PAUSE: Duration = Duration::from_secs(5);
/// ... but not sooner than this, even if the client itself has committed `COMPACTION_EXTENTS_MANY` extents meanwhile.
pub const COMPACTION_BREATH: Duration = Duration::from_millis(500);
pub const COMPACTION_EXTENTS_MANY: usize = 256;
/// Ranges of chunks that a compaction reads at the same time.
pub const COMPACTION_READS_AT_ONCE: usize = 8;
/// Ranges of a chunk that are no further apart than this are read as one: a request costs as much as so many bytes.
pub const COMPACTION_READ_GAP: u32 = 16 << 10;
/// How often a compaction puts its chunk because the map moves.
pub const COMPACTION_TRIES: u32 = 3;

/// Sizes through which the buffer of a run grows, up to the chunk size.
pub const RUN_BYTES_FIRST: usize = 16 << 10;
/// Factor between them.
pub const RUN_GROWTH: usize = 4;
/// The smallest bound on written data in memory that works.
pub const WRITE_BUFFER_BYTES_MIN: usize = 16 << 20;

/// Hashing or decoding more than this happens away from the task's thread.
pub const COMPUTE_INLINE_BYTES_MAX: usize = 64 << 10;
/// Extents kept in memory for one file; above it all are dropped and fetched again as needed.
pub const CACHED_EXTENTS_MAX: usize = 65_536;
/// Extents are fetched from a multiple of this on.
pub const EXTENT_FETCH_ALIGN: u64 = 1 << 20;
/// Tries to fetch extents of a file whose map changes all the time.
pub const EXTENT_FETCHES_MAX: u32 = 32;
/// Bytes of verified block lists kept: 1 for each 128 bytes of file content.
pub const PROOF_CACHE_BYTES: usize = 64 << 20;
/// Shard ranges being read ahead at the same time, over all files.
pub const PREFETCHES_MAX: usize = 64;
/// Places in one file that are watched for sequential reading.
pub const STREAMS_PER_FILE_MAX: usize = 4;

const _: () = {
    assert!(STRAGGLER_PATIENCE.as_millis() < SHARD_PUT_LIMIT.as_millis());
    assert!(SHARD_PUT_LIMIT.as_millis() < CHUNK_PUT_LIMIT.as_millis());
    assert!(2 * GET_LIMIT.as_millis() < READ_LIMIT.as_millis());
    assert!(READ_LIMIT.as_secs() < 10);
    assert!(HEDGE_DELAY_MAX.as_millis() < GET_LIMIT.as_millis());
};
