//! Every bound of the client outside the data path, in one place.

use cairn_common::limits::{SESSION_RENEW_INTERVAL, SESSION_SILENCE_MAX};
use std::time::Duration;

/// One try of a request to the master. A request without an answer is sent again, on a new connection if the old one is silent.
pub const TRY_LIMIT: Duration = Duration::from_secs(5);
/// First pause before connecting or asking again; doubles up to `RETRY_PAUSE_MAX`.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Mutations sent and not answered, over all callers, also those that gave up waiting. Others wait their turn.
pub const MUTATIONS_IN_FLIGHT_MAX: usize = 1024;
/// Closed inodes named in one renewal.
pub const CLOSED_PER_RENEWAL_MAX: usize = 16_384;
/// So many closed inodes are told at once instead of with the next renewal.
pub const CLOSED_EAGER: usize = 1024;
/// A request that does not wait for a master that is away: fetching the map, the farewell.
pub const QUICK_LIMIT: Duration = Duration::from_secs(2);

/// Pages of extents gathered for one request of the data path.
pub const EXTENT_PAGES_MAX: usize = 16;

/// Connecting to a chunkserver. Callers wait no longer than their own limit.
pub const TARGET_CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A chunkserver that did not answer is asked for its state after this time; doubles up to `PROBE_PAUSE_MAX`.
pub const PROBE_PAUSE_MIN: Duration = Duration::from_millis(500);
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long such a probe may take.
pub const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A target of a server that is alive, but that did not answer in time, is avoided for so long.
pub const SLOW_TARGET_PAUSE: Duration = Duration::from_secs(1);

/// Inodes whose attributes are remembered.
pub const ATTRIBUTES_CACHED_MAX: usize = 65_536;
/// Names (of files that are there or not) that are remembered.
pub const ENTRIES_CACHED_MAX: usize = 65_536;
/// Entries of whole listings that are remembered.
pub const LISTED_ENTRIES_MAX: usize = 65_536;
/// Closed files of which is known that what is cached of them was right when they were closed.
pub const KNOWN_VERSIONS_MAX: usize = 65_536;
/// Locks that wait at the master at a time: it carries out a few hundred calls of a client at once, and others must have their turn. What is beyond
/// waits here, and moves up every `LOCK_TURN`.
pub const LOCK_WAITS_MAX: usize = 64;
/// How often the master is told what was read.
pub const ACCESSES_TOLD_INTERVAL: Duration = Duration::from_secs(5);
/// Inodes of which is known that they were read and the master has not been told; what is read beyond that keeps its old time.
pub const ACCESSES_NOTED_MAX: usize = 65_536;
/// How long the kernel may believe names without asking us. A recall of the directory waits for so long: it can't be told to forget them, for
/// that would wait for whoever changes the directory at the time, and so perhaps for another client that waits for us.
pub const KERNEL_NAMES_TTL: Duration = Duration::from_millis(100);
/// The same while no other client holds any lease, so that hardly anybody will ever wait.
pub const KERNEL_NAMES_TTL_ALONE: Duration = Duration::from_secs(1);
/// A listing that the kernel believes for less than that is told anew: else it would ask for each of its names while it is looked at.
pub const KERNEL_LISTS: Duration = Duration::from_millis(250);
/// The kernel counts in ticks of up to 10 ms, from when the process that asked runs again: it may believe names for so much longer.
pub const KERNEL_SLACK: Duration = Duration::from_millis(20);
/// How long the kernel may believe attributes of a file that is being written here, which commits change behind its back.
pub const KERNEL_MOVING_TTL: Duration = Duration::from_secs(1);
/// A directory that was recalled while the kernel believed names of it: so long it is told none. So who works in it with others waits once.
pub const CONTENDED_PAUSE: Duration = Duration::from_secs(10);
/// Directories of which this is remembered.
pub const CONTENDED_MAX: usize = 4096;
/// How long a recall waits for the kernel to let go of the pages of a file while a call here waits for that lease, and so may be what holds up the kernel.
/// The attributes, which it has forgotten at once, make it look at its pages again before it uses them.
pub const KERNEL_PAGES_LIMIT: Duration = Duration::from_millis(5);
/// The same while nobody here waits for the lease, so that there is no circle: what was stored through mappings shall come before what others write.
pub const KERNEL_PAGES_PATIENCE: Duration = Duration::from_secs(3);
/// So long after its first question for an inode that was leased the kernel has the answer.
pub const KERNEL_SETTLES: Duration = Duration::from_millis(10);
/// A process may be slow to take what the kernel was told: after so long the kernel is told once more to forget attributes.
pub const KERNEL_FORGETS_AGAIN: Duration = Duration::from_secs(1);
/// A recall that takes longer is answered by saying so.
pub const RECALL_ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long a recall waits for data to be stored that no write lease protects.
pub const UNPROMISED_FLUSH_LIMIT: Duration = Duration::from_millis(250);
/// How long the write lease is kept for the next piece of a write to the end of a file: longer than a process that writes is likely to be held up. Whoever writes
/// records of just one whole piece makes others wait for so long.
pub const APPEND_KEEPS_LEASE: Duration = Duration::from_millis(50);
/// Others who wait for that lease wait no longer than this for one piece after the other.
pub const APPEND_KEEPS_RECALLED: Duration = Duration::from_millis(500);
/// A lease that recalls overtake again and again: pauses between tries.
pub const LEASE_PAUSE_MIN: Duration = Duration::from_millis(1);
pub const LEASE_PAUSE_MAX: Duration = Duration::from_millis(50);
/// The session is renewed so many times within the time for which leases are good.
pub const RENEWALS_PER_LEASE: u32 = 3;
/// How old the answer to statfs may be.
pub const USAGE_TTL: Duration = Duration::from_secs(1);

/// Lookups of neighbours in a directory within `LOOKUP_STREAK_WINDOW` that make the client read ahead in it.
pub const LOOKUP_STREAK: u32 = 3;
pub const LOOKUP_STREAK_WINDOW: Duration = Duration::from_millis(100);
/// Directories watched for such lookups; for each some pages of its listing are kept.
pub const LOOKUP_STREAKS_MAX: usize = 32;
/// Entries fetched ahead at once.
pub const LOOKUP_AHEAD_ENTRIES: u32 = 256;

const _: () = {
    // A renewal may need a second try and still come in time.
    assert!(SESSION_RENEW_INTERVAL.as_secs() + 2 * TRY_LIMIT.as_secs() < SESSION_SILENCE_MAX.as_secs());
    assert!(CLOSED_EAGER <= CLOSED_PER_RENEWAL_MAX);
};
