//! What the data path (readers, writers) needs of the rest of the client. Implemented by the link to the master and the
//! pool of chunkserver connections; by fakes in tests.

use bytes::Bytes;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::{ExtentPage, NewChunk};
use cairn_common::ids::{ChunkId, Ino, MapEpoch, PoolId, SessionId, TargetId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest};
use cairn_common::wire::master::{CompactionWork, FileCommit, FileCompaction, Puts};
use cairn_runtime::task::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Why a commit was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The map moved, or the tickets are too old: put the chunks again under the present map, then commit again.
    #[error("the chunks must be put again")]
    PutAgain,
    /// The session under which the data was held back is gone. Whether the commit was done is unknown.
    #[error("the session is gone")]
    SessionGone,
    /// These chunks are content that another pool has already: put all again, stable, these in the pools named here; then commit them as
    /// [`Puts::Synced`].
    #[error("the chunks must be put elsewhere")]
    PutElsewhere(Vec<(ChunkId, PoolId)>),
    /// It can't succeed.
    #[error("{0}")]
    Fs(#[from] FsError),
}

/// The master, as the data path sees it. Calls wait while the master is away, up to the client's setting, then give `FsError::Io`.
pub trait Metadata: Send + Sync {
    /// The extents of `offset..end`, all pages gathered up to a sane bound (see `ExtentPage::more_from`).
    fn extents(&self, ino: Ino, offset: u64, end: u64) -> BoxFuture<'_, Result<ExtentPage, FsError>>;
    /// Publishes data that was held back in `session`, exactly once. With `durable`, it is in the master's synced log when this returns.
    fn commit(
        &self,
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
        puts: Puts,
        durable: bool,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Vec<Result<Attributes, FsError>>, CommitError>>;
    /// The present session.
    fn session(&self) -> BoxFuture<'_, Result<SessionId, FsError>>;
    /// Takes a write lease of a file; in which session, and the version in which the file was found then.
    fn reclaim(&self, ino: Ino) -> BoxFuture<'_, Result<(SessionId, u64), FsError>>;
    /// Something to rewrite, if there is anything. `done`: what was given before is published.
    fn compaction_work(&self, done: bool) -> BoxFuture<'_, Result<Option<CompactionWork>, FsError>>;
    /// Publishes a rewrite; how many bytes were still as they had been read, and are elsewhere now.
    fn compact(&self, files: Vec<FileCompaction>, chunks: Vec<NewChunk>) -> BoxFuture<'_, Result<u64, CommitError>>;
    /// Makes everything that the master has answered so far durable.
    fn sync_log(&self) -> BoxFuture<'_, Result<(), FsError>>;
    /// The ticket for puts: the newest time of the master that we know.
    fn ticket(&self) -> Timestamp;
}

/// What the kernel of this machine believes of files, if they are mounted.
pub trait KernelCache: Send + Sync {
    /// It forgets the attributes of an inode. Never waits for anybody. An answer to a question that is on its way is lost on it.
    fn forget_attributes(&self, ino: Ino);
    /// It forgets attributes and pages as soon as it asks nothing about that inode. A program that reads makes it look at its pages again by itself; this is for
    /// those who look at them through mappings.
    fn forget_when_quiet(&self, ino: Ino);
    /// It also forgets the pages of a file, and writes those back first that were changed there: by writes that take no lease. Waits for reads and writes
    /// that are under way.
    fn forget_pages(&self, ino: Ino) -> BoxFuture<'static, ()>;
}

/// Why a chunkserver did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetCallError {
    /// No connection, no answer in time, or the connection broke: try other shards.
    #[error("{0} does not answer: {1}")]
    Unreachable(TargetId, String),
    #[error("{0}")]
    Refused(#[from] ChunkserverError),
}

/// The chunkservers, as the data path sees them.
pub trait Targets: Send + Sync {
    /// The newest map known.
    fn map(&self) -> Arc<ClusterMap>;
    /// Asks the master for a map newer than `known`; returns at once with the present one if the master is away.
    fn refresh_map(&self, known: MapEpoch) -> BoxFuture<'_, Arc<ClusterMap>>;
    /// One request to one target, under a deadline. Connects when needed; remembers who did not answer.
    fn call(
        &self,
        target: TargetId,
        request: ChunkserverRequest,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(ChunkserverReply, Bytes), TargetCallError>>;
    /// Whether this client should avoid the target now: it failed a moment ago, or the map calls it suspect or dead.
    fn is_avoided(&self, target: TargetId) -> bool;
}
