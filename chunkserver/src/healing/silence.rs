//! A disk that hangs gives no answer, not even an error. Whoever asks one on behalf of another target must not wait for ever.

use cairn_common::ids::TargetId;
use cairn_common::limits::DEAD_AFTER;
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;

/// How long a disk may take to read a shard: as long as one of another server.
pub const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to write one, behind all that clients have queued: then it is taken for dead.
pub const WRITE_LIMIT: Duration = DEAD_AFTER;
/// How long one that did not answer is left alone. Longer than `READ_LIMIT`, so that those who wait are few.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether the disk of a target answers. What was asked may be stuck for as long as the disk hangs, but only so much of it: reads
/// wait for their turn before they block, puts for room in the queue.
pub struct Silence {
    runtime: Runtime,
    until: Mutex<Option<Moment>>,
}

impl Silence {
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, until: Mutex::new(None) }
    }

    /// Refuses if the disk of `target` did not answer a moment ago.
    pub fn check(&self, target: TargetId) -> Result<(), ChunkserverError> {
        let until = *self.until.lock();
        match until.is_some_and(|until| self.runtime.now() < until) {
            true => Err(ChunkserverError::TargetFailed { target, reason: "its disk did not answer a moment ago".to_owned() }),
            false => Ok(()),
        }
    }

    /// What `asked` answers, if it does within `limit`.
    pub async fn ask<T>(
        &self,
        target: TargetId,
        limit: Duration,
        asked: impl Future<Output = Result<T, ChunkserverError>>,
    ) -> Result<T, ChunkserverError> {
        self.check(target)?;
        match self.runtime.timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(elapsed) => {
                tracing::warn!(%target, "a disk of this server hangs ({elapsed}): healing leaves it alone for {PAUSE:?}");
                *self.until.lock() = Some(self.runtime.now().plus(PAUSE));
                Err(ChunkserverError::TargetFailed { target, reason: format!("its disk hangs: {elapsed}") })
            }
        }
    }
}
