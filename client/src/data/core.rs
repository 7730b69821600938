//! What all files of a store share.

use super::block_cache::BlockCache;
use super::budget::Budget;
use super::chunk_reader::ChunkReader;
use super::chunk_source::ChunkSource;
use super::chunk_writer::{ChunkWriter, Elsewhere, PutChunks};
use super::committer::{CommitCount, CommitQueue};
use super::compactor::Scatter;
use super::dirty::RunId;
use super::doubts::Doubts;
use super::durability::Durability;
use super::file::FileData;
use super::flights::Flights;
use super::latency::Latency;
use super::limits::{COMMITS_IN_FLIGHT, PACK_ROUNDS_IN_FLIGHT};
use super::packer::PackQueue;
use super::proofs::ProofCache;
use super::put_job::{Member, PutContent, PutJob};
use super::registry::FileRegistry;
use super::settings::DataSettings;
use super::shard_fetch::ShardFetch;
use crate::counters::Counts;
use crate::ports::{Metadata, Targets};
use cairn_common::error::FsError;
use cairn_common::ids::PoolId;
use cairn_common::limits::MIB;
use cairn_runtime::Runtime;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The parts of the data path.
pub struct Core {
    pub runtime: Runtime,
    pub metadata: Arc<dyn Metadata>,
    pub targets: Arc<dyn Targets>,
    pub settings: DataSettings,
    pub counts: Arc<Counts>,
    pub budget: Budget,
    pub files: Arc<FileRegistry>,
    pub source: Arc<ChunkSource>,
    pub writer: Arc<ChunkWriter>,
    pub durability: Arc<Durability>,
    pub pack_queue: PackQueue,
    pub commit_queue: CommitQueue,
    pub commit_count: CommitCount,
    pub scatter: Scatter,
    puts: Semaphore,
    pub pack_slots: Arc<Semaphore>,
    pub commit_slots: Arc<Semaphore>,
}

impl Core {
    pub fn new(
        runtime: Runtime,
        metadata: Arc<dyn Metadata>,
        targets: Arc<dyn Targets>,
        settings: DataSettings,
        counts: Arc<Counts>,
    ) -> Self {
        let settings = settings.within_bounds();
        let fetch = Arc::new(ShardFetch {
            runtime: runtime.clone(),
            targets: Arc::clone(&targets),
            proofs: ProofCache::default(),
            latency: Latency::default(),
            counts: Arc::clone(&counts),
            doubts: Doubts::default(),
        });
        let cache = Arc::new(BlockCache::new(settings.block_cache_bytes));
        let reader = Arc::new(ChunkReader { fetch, cache: Arc::clone(&cache), flights: Flights::default() });
        let (metadata_port, counts_port) = (Arc::clone(&metadata), Arc::clone(&counts));
        let writer =
            Arc::new(ChunkWriter { runtime: runtime.clone(), targets: Arc::clone(&targets), metadata: metadata_port, counts: counts_port });
        let files = Arc::new(FileRegistry::default());
        let durability = Arc::new(Durability::new(Arc::clone(&writer), Arc::clone(&reader), Arc::clone(&files) as _));
        Self {
            source: Arc::new(ChunkSource::new(runtime.clone(), reader, cache, Arc::clone(&counts))),
            budget: Budget::new(settings.write_buffer_bytes),
            puts: Semaphore::new(settings.puts_in_flight),
            pack_slots: Arc::new(Semaphore::new(PACK_ROUNDS_IN_FLIGHT)),
            commit_slots: Arc::new(Semaphore::new(COMMITS_IN_FLIGHT)),
            pack_queue: PackQueue::default(),
            commit_queue: CommitQueue::default(),
            commit_count: CommitCount::default(),
            scatter: Scatter::default(),
            runtime,
            metadata,
            targets,
            settings,
            counts,
            files,
            writer,
            durability,
        }
    }

    /// The longest chunk that is put in a pool.
    pub fn chunk_bytes_max(&self, pool: PoolId) -> usize {
        let longest = self.targets.map().pool(pool).map_or(4 * MIB as usize, |pool| pool.scheme.chunk_bytes_max());
        // Several must fit in memory, or writing would stand still while one is put.
        longest.min(self.budget.total_bytes() / 4)
    }

    /// Puts a run that fills a chunk of its own.
    pub fn put_run(self: &Arc<Self>, file: &Arc<FileData>, run: RunId, content: PutContent) {
        let member = Member { file: Arc::clone(file), run };
        let job = PutJob::new(content, file.pool(), false, vec![member]);
        file.assign_run(run, &job, 0);
        self.start(job, None);
    }

    /// Starts a job, unless it is under way already. `slot` is held until it has ended.
    pub fn start(self: &Arc<Self>, job: Arc<PutJob>, slot: Option<Arc<OwnedSemaphorePermit>>) {
        if !job.begin() {
            return;
        }
        for member in &job.members {
            member.file.put_started(member.run);
        }
        let core = Arc::clone(self);
        self.runtime.spawn("put chunk", async move {
            let result = core.put(&job, job.sync, &Elsewhere::new()).await;
            job.end();
            for member in &job.members {
                member.file.put_ended(member.run, result.clone());
            }
            drop(slot);
        });
    }

    /// Puts the chunk of a job, one of a bounded number at a time.
    pub async fn put(self: &Arc<Self>, job: &PutJob, sync: bool, elsewhere: &Elsewhere) -> Result<Arc<PutChunks>, FsError> {
        let permit = self.puts.acquire().await;
        let result = self.writer.put(job.content.clone(), job.pool, sync, elsewhere).await;
        drop(permit);
        let chunks = Arc::new(result?);
        if !sync {
            self.durability.record(&chunks, job.files());
            self.bound_unsynced();
        }
        Ok(chunks)
    }

    /// Syncs everything in the background when very much is unsynced.
    fn bound_unsynced(&self) {
        if self.durability.is_overdue() {
            let durability = Arc::clone(&self.durability);
            self.runtime.spawn("sync targets", async move { durability.sync_all().await });
        }
    }
}
