//! Bugs on purpose, to show that the tests would notice them: each has a name here and one place in the code that asks for it.
//!
//! Without the feature `planted-bugs`, which only `scripts/planted-bugs` switches on, the answer is always no and the compiler removes the place. With it
//! the environment variable `CAIRN_PLANTED_BUG` names the bug that is in.

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident, $name:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)*
        }

        impl Bug {
            pub const ALL: &'static [Bug] = &[$(Bug::$bug),*];

            /// What `CAIRN_PLANTED_BUG` calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)*
                }
            }

            /// What is wrong with it in.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => concat!($($what),+),)*
                }
            }
        }
    };
}

bugs! {
    /// the master's log is not synced, but believed to be
    LogSyncSkipped, "log-sync-skipped";
    /// the master answers durable requests before the sync
    AnsweredBeforeLogSync, "answered-before-log-sync";
    /// a torn record of the log is taken for a good one
    TornTailReplayed, "torn-tail-replayed";
    /// the replay begins one command too early
    ReplayedTwice, "replayed-twice";
    /// after a failed sync the log is synced, but not written again
    LogNotWrittenAgain, "log-not-written-again";
    /// a retry does not find the result of the first try
    RetryForgotten, "retry-forgotten";
    /// dead chunks are forgotten at once
    DeletedWithoutGrace, "deleted-without-grace";
    /// a commit is not asked when its chunks were put
    TicketNotChecked, "ticket-not-checked";
    /// a commit is not asked under which map its chunks were put
    EpochNotChecked, "epoch-not-checked";
    /// the size is that of the last writer
    SizeOfLastWriter, "size-of-last-writer";
    /// what a new extent covers stays
    OverwrittenExtentKept, "overwritten-extent-kept";
    /// removing an extent gives up two references
    ReferenceFreedTwice, "reference-freed-twice";
    /// a clone takes no reference
    CloneWithoutReference, "clone-without-reference";
    /// a compaction replaces what was written meanwhile
    CompactedBlindly, "compacted-blindly";
    /// numbers that a loss of power has swallowed are given out again
    NumbersNotSkipped, "numbers-not-skipped";

    /// segments are not synced, but believed to be
    SegmentSyncSkipped, "segment-sync-skipped";
    /// a put that asks for a sync gets none
    PutSyncIgnored, "put-sync-ignored";
    /// a deletion is acknowledged before it is stable
    TombstoneNotSynced, "tombstone-not-synced";
    /// the replay of segments passes over deletions
    TombstoneNotReplayed, "tombstone-not-replayed";
    /// the index is flushed before what it covers
    IndexAheadOfSegments, "index-ahead-of-segments";
    /// a shard torn by a loss of power is taken for a good one
    TornShardKept, "torn-shard-kept";
    /// a put stores bytes that do not match their hash
    PutNotVerified, "put-not-verified";
    /// a deletion takes shards that were put since
    TicketIgnoredByDelete, "ticket-ignored-by-delete";
    /// putting a damaged shard again keeps the damaged one
    DamagedShardKept, "damaged-shard-kept";

    /// a reader does not check what it was sent
    ReadNotVerified, "read-not-verified";
    /// a rebuild takes its sources for other shards than they are
    WrongSurvivors, "wrong-survivors";
    /// a chunk says that it is in the first slots of its group
    SlotMaskLost, "slot-mask-lost";
    /// a chunk counts as put when enough shards to read it are
    PutWithoutSpares, "put-without-spares";
    /// fsync does not sync what close has put
    TargetsNotSynced, "targets-not-synced";
    /// a compaction replaces what is stable by what is not
    CompactedUnsynced, "compacted-unsynced";
    /// fsync does not wait for the master's log
    CommitNotDurable, "commit-not-durable";
    /// rename does not wait for the content
    RenameBeforeContent, "rename-before-content";
    /// a clone leaves the old extents in the cache
    StaleExtents, "stale-extents";
    /// an error of a flush is not told
    FlushErrorSwallowed, "flush-error-swallowed";

    /// a lease is given back before what it allowed to believe is forgotten
    RecallAnsweredFirst, "recall-answered-first";
    /// a lease is believed although its recall has overtaken it
    OvertakenGrantBelieved, "overtaken-grant-believed";
    /// after a restart of the master nobody is waited for
    RecoveryNotAwaited, "recovery-not-awaited";
}

/// Whether a bug is in.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}

/// Whether a bug is in.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("CAIRN_PLANTED_BUG").ok().filter(|name| !name.is_empty())?;
        let found = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
        Some(found.unwrap_or_else(|| panic!("CAIRN_PLANTED_BUG: there is no bug {name:?}")))
    });
    *planted == Some(bug)
}
