//! Every bound that both ends of a message must agree on, in one place, with the relations between them asserted.

use std::time::Duration;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// Unit of verification inside a shard (design section 3).
pub const BLOCK_BYTES: usize = 4096;
/// The largest chunk of a single-shard scheme, and of schemes of up to four data shards.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;
/// The largest shard. Only narrow schemes (two copies of 4 MiB, `2+2`) have shards above 1 MiB.
pub const SHARD_BYTES_MAX: usize = 4 << 20;
/// Chunks shorter than this are stored as `1+m` copies: same tolerance, fewer round trips.
pub const COPIES_BELOW_BYTES: usize = 64 << 10;
/// Data shards a scheme may have.
pub const DATA_SHARDS_MAX: u8 = 16;
/// Parity shards a scheme may have.
pub const PARITY_SHARDS_MAX: u8 = 4;

/// Longest file name, in bytes (POSIX NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest symlink target, in bytes (Linux PATH_MAX less its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Largest extended attribute value (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest extended attribute name (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// All extended attribute names of an inode together (Linux XATTR_LIST_MAX).
pub const XATTR_LIST_BYTES_MAX: usize = 64 << 10;
/// Hard links to one inode; `link` gives EMLINK above it.
pub const LINKS_MAX: u32 = 65_000;
/// Largest file size: 2^63 - 1, the largest `off_t`.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Largest head of a message: a page of directory entries or extents, a cluster map.
pub const MESSAGE_HEAD_BYTES_MAX: usize = 4 << 20;
/// Largest body of a message: one shard.
pub const MESSAGE_BODY_BYTES_MAX: usize = SHARD_BYTES_MAX;
/// Directory entries in one page of a listing.
pub const DIRECTORY_PAGE_ENTRIES_MAX: u32 = 1024;
/// Extents in one page of a file's map.
pub const EXTENT_PAGE_MAX: u32 = 4096;
/// Chunks in one page of a listing for chunkservers.
pub const CHUNK_PAGE_MAX: u32 = 4096;
/// Shards that one message may doubt.
pub const DOUBTED_KEYS_MAX: usize = 256;
/// Shards that one message may ask to be examined.
pub const EXAMINED_KEYS_MAX: usize = 64;
/// Shards that one message may ask for.
pub const CHECKED_KEYS_MAX: usize = 1024;
/// Extents in one commit.
pub const COMMIT_EXTENTS_MAX: usize = 16_384;
/// Extents that one compaction replaces.
pub const COMPACTION_EXTENTS_MAX: usize = 2048;
/// Bytes that one compaction rewrites.
pub const COMPACTION_BYTES_MAX: u64 = 4 * MIB;

/// Pools of a cluster: all of them are in the map, which must fit a message.
pub const POOLS_MAX: usize = 32;
/// Slots of all pools together: the map must fit a message, and each takes a few bytes.
pub const SLOTS_MAX: usize = 500_000;
/// Longest name of a pool, and longest key or value of a label.
pub const POOL_NAME_BYTES_MAX: usize = 64;
/// Labels that a pool may want.
pub const POOL_LABELS_MAX: usize = 16;

/// Inodes in one message that says when they were read.
pub const ACCESSES_MAX: usize = 1024;
/// Ranges that one session may have locked; beyond that `fcntl` gives ENOLCK.
pub const LOCKS_PER_SESSION_MAX: usize = 1 << 20;
/// Locks that a client names in one message when it comes back.
pub const LOCKS_ASSERTED_MAX: usize = 16_384;
/// How long the master lets a lock wait before it has the client ask again. Shorter than one try of a request.
pub const LOCK_TURN: Duration = Duration::from_secs(2);

/// A client whose session stays silent for this long may be forgotten by the master.
pub const SESSION_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a client renews its session when nothing else is sent.
pub const SESSION_RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// A client that gives back no lease for so long, when asked to, is fenced: its session ends. A setting of the master.
pub const FENCING_TIME: Duration = Duration::from_secs(10);
/// Leases of one session. The master takes the oldest back when there are more.
pub const SESSION_LEASES_MAX: usize = 131_072;
/// Leases named in one recall.
pub const RECALLED_LEASES_MAX: usize = 1024;
/// How often a chunkserver reports to the master.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// A chunkserver silent for this long is suspect: new writes avoid it.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// A chunkserver silent for this long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// An unreferenced chunk is deleted this long after its last reference went. Commits refuse tickets older than half of it.
/// A cluster may be made with a shorter one, down to `DELETION_GRACE_MIN`, and not with a longer one: chunkservers rely on this bound when they
/// compare what they have with the master.
pub const DELETION_GRACE: Duration = Duration::from_secs(15 * 60);
/// The shortest grace period. Half of it must hold the age of a ticket (a renewal of the session, and one that is lost), a put that takes as long as
/// it may (30 s), and the commit; else writers would put their chunks again and again.
pub const DELETION_GRACE_MIN: Duration = Duration::from_secs(120);
/// What the master answers without waiting for a stable disk is on one within this time.
pub const LOG_SYNC_INTERVAL: Duration = Duration::from_millis(10);

/// How long a client may believe in its leases without an answer of the master: the rest of the fencing time is for clocks that run
/// at different speeds, and for answers under way.
pub const fn lease_time(fencing: Duration) -> Duration {
    Duration::from_millis(fencing.as_millis() as u64 * 6 / 10)
}

/// How long after it last heard a client the master must wait before it lets others do what a lease of that client forbids.
pub const fn lease_end(fencing: Duration) -> Duration {
    Duration::from_millis(fencing.as_millis() as u64 * 8 / 10)
}

const _: () = {
    assert!(SHARD_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
    assert!(CHUNK_BYTES_MAX <= (DATA_SHARDS_MAX as usize) << 20);
    assert!(COPIES_BELOW_BYTES <= SHARD_BYTES_MAX);
    assert!(SUSPECT_AFTER.as_millis() > 2 * HEARTBEAT_INTERVAL.as_millis());
    assert!(DEAD_AFTER.as_millis() > SUSPECT_AFTER.as_millis());
    assert!(SESSION_SILENCE_MAX.as_secs() > 3 * SESSION_RENEW_INTERVAL.as_secs());
    assert!(COMPACTION_EXTENTS_MAX <= COMMIT_EXTENTS_MAX && COMPACTION_EXTENTS_MAX <= EXTENT_PAGE_MAX as usize);
    assert!(DELETION_GRACE_MIN.as_secs() / 2 >= 30 + 3 * SESSION_RENEW_INTERVAL.as_secs());
    assert!(DELETION_GRACE_MIN.as_secs() <= DELETION_GRACE.as_secs());
};
