//! The data path as a whole.

use super::core::Core;
use super::file::FileData;
use super::settings::DataSettings;
use super::{caretaker, committer, compactor, packer};
use crate::counters::{Counters, Counts};
use crate::ports::{Metadata, Targets};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, PoolId};
use cairn_common::scheme::Scheme;
use cairn_runtime::Runtime;
use cairn_runtime::task::TaskGuard;
use futures_util::future::join_all;
use std::sync::Arc;

/// The data of all files of one client. Its background tasks end when it and all its files are dropped.
pub struct DataStore {
    core: Arc<Core>,
    _tasks: Vec<TaskGuard>,
}

impl DataStore {
    pub fn new(
        runtime: Runtime,
        metadata: Arc<dyn Metadata>,
        targets: Arc<dyn Targets>,
        settings: DataSettings,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let core = Arc::new(Core::new(runtime, metadata, targets, settings, counts));
        let mut tasks = vec![
            core.runtime.spawn("packer", packer::run(Arc::clone(&core))).abort_on_drop(),
            core.runtime.spawn("committer", committer::run(Arc::clone(&core))).abort_on_drop(),
            core.runtime.spawn("data caretaker", caretaker::run(Arc::clone(&core))).abort_on_drop(),
        ];
        let rate = core.settings.compaction_bytes_per_second;
        if rate > 0 {
            tasks.push(core.runtime.spawn("compactor", compactor::run(Arc::clone(&core), rate)).abort_on_drop());
        }
        Arc::new(Self { core, _tasks: tasks })
    }

    /// The data of a file; one and the same for all its descriptors.
    pub fn file(self: &Arc<Self>, ino: Ino) -> Arc<FileData> {
        self.core.files.get_or_insert(ino, || FileData::new(ino, Arc::clone(self)))
    }

    /// Flushes all files, packed together. The first error, if any; every file remembers its own.
    pub async fn flush_all(&self) -> Result<(), FsError> {
        let files = self.core.files.dirty();
        join_all(files.iter().map(|file| file.flush())).await.into_iter().collect()
    }

    /// Flushes all files and makes everything stable that was ever written here. `Io` if any of it is lost, also of files that were closed
    /// long ago.
    pub async fn sync_all(&self) -> Result<(), FsError> {
        self.flush_all().await?;
        self.core.durability.sync_everything().await;
        if self.core.counts.chunks_lost.get() > 0 { Err(FsError::Io) } else { Ok(()) }
    }

    /// Length of the chunks that a long stream into the file is cut into.
    pub fn chunk_bytes_max(&self, ino: Ino) -> usize {
        self.core.chunk_bytes_max(self.pool(ino))
    }

    /// The scheme of the pool that a file's data goes to, if the map is known.
    pub fn scheme(&self, ino: Ino) -> Option<Scheme> {
        self.core.targets.map().pool(self.pool(ino)).map(|pool| pool.scheme)
    }

    fn pool(&self, ino: Ino) -> PoolId {
        self.core.files.get(ino).map_or_else(|| self.core.settings.pool.pool_of(ino), |file| file.pool())
    }

    /// The data of a file that is known here.
    pub fn known_file(&self, ino: Ino) -> Option<Arc<FileData>> {
        self.core.files.get(ino)
    }

    /// The files that are known here.
    pub fn known_files(&self) -> Vec<Arc<FileData>> {
        self.core.files.known()
    }

    /// Whether any file has data that the master does not have yet.
    pub fn has_dirty(&self) -> bool {
        self.core.files.has_dirty()
    }

    /// Memory that written data takes at the moment, in bytes.
    pub fn write_buffer_used_bytes(&self) -> usize {
        self.core.budget.used_bytes()
    }

    pub fn counters(&self) -> Counters {
        self.core.counts.snapshot()
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
