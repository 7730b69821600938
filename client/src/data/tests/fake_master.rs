//! A master in memory. It refuses commits that the real one would refuse, and fails the test where the data path breaks a
//! promise: chunks must be stored before they are committed.

use super::fake_targets::{FakeTargets, POOL};
use crate::data::extent_map::{ExtentMap, Part, PlacedExtent};
use crate::ports::{CommitError, Metadata, Targets};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, Extent, ExtentPage, NewChunk};
use cairn_common::ids::{ChunkId, Ino, MapEpoch, PoolId, SessionId};
use cairn_common::limits::{COMMIT_EXTENTS_MAX, FILE_BYTES_MAX};
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ShardKey;
use cairn_common::wire::master::{CompactionWork, FileCommit, FileCompaction, FileExtents, Puts};
use cairn_runtime::Runtime;
use cairn_runtime::task::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Small, so that tests see several pages.
const PAGE_EXTENTS: usize = 200;

#[derive(Clone, Default)]
struct File {
    size: u64,
    mtime: Timestamp,
    version: u64,
    extents: ExtentMap,
    pool: PoolId,
}

/// Counts of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MasterRequests {
    pub commits: u64,
    pub durable_commits: u64,
    pub committed_extents: u64,
    pub log_syncs: u64,
    pub pages: u64,
}

#[derive(Clone, Default)]
struct State {
    files: BTreeMap<Ino, File>,
    chunks: BTreeMap<ChunkId, ChunkInfo>,
}

/// Work that was given, one after the other, and whether it was said to be done.
#[derive(Default)]
struct Compaction {
    work: VecDeque<CompactionWork>,
    asked: Vec<bool>,
    published: Vec<FileCompaction>,
}

#[derive(Default)]
struct Faults {
    put_again: u32,
    fail_commits: Option<FsError>,
    refused_below: MapEpoch,
    session_ends_after_commit: bool,
    /// Where all content is already.
    elsewhere: Option<PoolId>,
}

/// The master.
pub struct FakeMaster {
    runtime: Runtime,
    targets: Arc<FakeTargets>,
    state: Mutex<State>,
    /// What would be left after a loss of power.
    durable: Mutex<State>,
    faults: Mutex<Faults>,
    compaction: Mutex<Compaction>,
    requests: Mutex<MasterRequests>,
    session: Mutex<SessionId>,
}

impl FakeMaster {
    pub fn new(runtime: Runtime, targets: Arc<FakeTargets>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            targets,
            state: Mutex::default(),
            durable: Mutex::default(),
            faults: Mutex::default(),
            compaction: Mutex::default(),
            requests: Mutex::default(),
            session: Mutex::default(),
        })
    }

    pub fn create(&self, ino: Ino) -> Attributes {
        let mut extents = ExtentMap::default();
        extents.learn(0..u64::MAX, &ExtentPage::default());
        let file = File { version: 1, extents, pool: POOL, ..File::default() };
        self.state.lock().files.insert(ino, file.clone());
        attributes(ino, &file)
    }

    pub fn remove(&self, ino: Ino) {
        self.state.lock().files.remove(&ino);
    }

    pub fn open(&self, ino: Ino) -> (Attributes, ExtentPage) {
        let state = self.state.lock();
        let file = &state.files[&ino];
        (attributes(ino, file), file.page(0..FILE_BYTES_MAX))
    }

    pub async fn truncate(&self, ino: Ino, size: u64) -> Attributes {
        self.delay().await;
        let mut state = self.state.lock();
        let file = state.files.get_mut(&ino).expect("a file");
        file.extents.remove(size..u64::MAX);
        file.size = size;
        file.version += 1;
        attributes(ino, file)
    }

    pub async fn punch(&self, ino: Ino, range: Range<u64>) -> Attributes {
        self.delay().await;
        let mut state = self.state.lock();
        let file = state.files.get_mut(&ino).expect("a file");
        file.extents.remove(range);
        file.version += 1;
        attributes(ino, file)
    }

    /// From now on there is another session.
    pub fn end_session(&self) {
        self.session.lock().0 += 1;
    }

    /// The next commit is done, and its session ends before the answer.
    pub fn lose_session_after_commit(&self) {
        self.faults.lock().session_ends_after_commit = true;
    }

    /// Somebody else changes a file.
    pub fn touch(&self, ino: Ino) {
        self.state.lock().files.get_mut(&ino).expect("a file").version += 1;
    }

    /// The next so many commits are refused: put again.
    pub fn demand_puts_again(&self, times: u32) {
        self.faults.lock().put_again = times;
    }

    /// All content that comes is in this pool already.
    pub fn have_all_in(&self, pool: PoolId) {
        self.faults.lock().elsewhere = Some(pool);
    }

    /// Of new files.
    pub fn create_in(&self, ino: Ino, pool: PoolId) -> Attributes {
        let attributes = self.create(ino);
        self.state.lock().files.get_mut(&ino).expect("just made").pool = pool;
        Attributes { pool: Some(pool), ..attributes }
    }

    pub fn fail_commits(&self, error: Option<FsError>) {
        self.faults.lock().fail_commits = error;
    }

    /// Chunks put under an older map are refused from now on.
    pub fn refuse_chunks_below(&self, epoch: MapEpoch) {
        self.faults.lock().refused_below = epoch;
    }

    pub fn requests(&self) -> MasterRequests {
        *self.requests.lock()
    }

    pub fn extents_of(&self, ino: Ino) -> usize {
        self.open(ino).1.extents.len()
    }

    /// Wants a range of a file to be rewritten.
    pub fn want_compaction(&self, ino: Ino, range: Range<u64>) {
        let page = self.state.lock().files[&ino].page(range);
        let work = CompactionWork { pool: POOL, files: vec![FileExtents { ino, extents: page.extents }], chunks: page.chunks };
        self.compaction.lock().work.push_back(work);
    }

    /// How often somebody asked for work, having done the work before.
    pub fn compactions_done(&self) -> usize {
        self.compaction.lock().asked.iter().filter(|done| **done).count()
    }

    pub fn compactions_published(&self) -> usize {
        self.compaction.lock().published.len()
    }

    /// Loses what is not in the synced log.
    pub fn lose_power(&self) {
        let durable = self.durable.lock().clone();
        *self.state.lock() = durable;
    }

    async fn delay(&self) {
        self.runtime.sleep(Duration::from_micros(100 + self.runtime.random_u64() % 300)).await;
    }

    fn sync_now(&self) {
        let state = self.state.lock().clone();
        *self.durable.lock() = state;
    }

    /// A chunk must be stored before it is committed: enough of it to read it where the map says. (All of it, but a target may have
    /// been restarted since.)
    fn check_stored(&self, chunk: &ChunkInfo) {
        let map = self.targets.map();
        let group = map.pool(chunk.pool).expect("a pool").group_of(chunk.id);
        let layout = chunk.scheme.layout(chunk.bytes);
        let is_held = |(slot, index): &(u8, u8)| {
            let key = ShardKey { chunk: chunk.id, scheme: chunk.scheme, index: *index };
            let slot = group.slots[usize::from(*slot)];
            slot.holder.into_iter().chain(slot.previous).any(|target| self.targets.holds(target, &key))
        };
        let held = chunk.slots.slots().zip(0..).filter(|(_, index)| layout.is_stored(*index)).filter(is_held).count();
        let needed = if chunk.scheme.is_copies() { 1 } else { usize::from(layout.occupied_data_shards()) };
        assert!(held >= needed, "{chunk:?} is committed with {held} stored shards");
    }

    async fn take(
        &self,
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
        durable: bool,
    ) -> Result<Vec<Result<Attributes, FsError>>, CommitError> {
        self.delay().await;
        {
            let mut faults = self.faults.lock();
            if let Some(error) = faults.fail_commits {
                return Err(CommitError::Fs(error));
            }
            if faults.put_again > 0 || chunks.iter().any(|chunk| chunk.epoch < faults.refused_below) {
                faults.put_again = faults.put_again.saturating_sub(1);
                return Err(CommitError::PutAgain);
            }
        }
        let results = self.apply(&files, &chunks);
        {
            let mut requests = self.requests.lock();
            requests.commits += 1;
            requests.durable_commits += u64::from(durable);
            requests.committed_extents += files.iter().map(|file| file.extents.len() as u64).sum::<u64>();
        }
        if durable {
            self.sync_now();
        }
        self.delay().await;
        if std::mem::take(&mut self.faults.lock().session_ends_after_commit) {
            self.end_session();
            return Err(CommitError::SessionGone);
        }
        Ok(results)
    }

    /// What is said to be stable is.
    fn check_stable(&self, info: &ChunkInfo) {
        let map = self.targets.map();
        let group = map.pool(info.pool).expect("a pool").group_of(info.id);
        for (slot, index) in info.slots.slots().zip(0..) {
            let key = ShardKey { chunk: info.id, scheme: info.scheme, index };
            let is_stable = group.slots[usize::from(slot)].holder.is_some_and(|target| self.targets.is_stable(target, &key));
            assert!(is_stable || !info.scheme.layout(info.bytes).is_stored(index), "{key:?} is not stable");
        }
    }

    fn apply(&self, files: &[FileCommit], chunks: &[NewChunk]) -> Vec<Result<Attributes, FsError>> {
        chunks.iter().for_each(|chunk| self.check_stored(&chunk.info));
        let mut state = self.state.lock();
        let mut pools = files.iter().filter_map(|commit| state.files.get(&commit.ino)).map(|file| file.pool);
        let first = pools.next();
        assert!(pools.all(|pool| Some(pool) == first), "a commit says of each chunk one place: it holds files of one pool");
        for chunk in chunks {
            state.chunks.entry(chunk.info.id).or_insert(chunk.info);
        }
        let State { files: known, chunks } = &mut *state;
        let total: usize = files.iter().map(|file| file.extents.len()).sum();
        assert!(total <= COMMIT_EXTENTS_MAX, "{total} extents in one commit");
        let commit = |commit: &FileCommit| {
            let file = known.get_mut(&commit.ino).ok_or(FsError::Stale)?;
            let mut end = 0;
            for extent in &commit.extents {
                assert!(extent.bytes > 0 && extent.file_offset >= end, "extents are ordered and do not overlap");
                end = extent.file_end();
                let chunk = *chunks.get(&extent.chunk).expect("the chunk is known");
                assert!(extent.chunk_offset + extent.bytes <= chunk.bytes, "{extent:?} lies within {chunk:?}");
                file.extents.overlay(PlacedExtent { extent: *extent, chunk });
            }
            file.size = file.size.max(commit.size_at_least);
            file.mtime = commit.mtime;
            file.version += 1;
            Ok(attributes(commit.ino, file))
        };
        files.iter().map(commit).collect()
    }
}

impl File {
    fn page(&self, range: Range<u64>) -> ExtentPage {
        let mut page = ExtentPage::default();
        for (part_range, part) in self.extents.parts(range) {
            let Part::Stored(placed) = part else { continue };
            if page.extents.len() == PAGE_EXTENTS {
                page.more_from = Some(part_range.start);
                break;
            }
            page.extents.push(placed.extent);
            if !page.chunks.iter().any(|chunk| chunk.id == placed.chunk.id) {
                page.chunks.push(placed.chunk);
            }
        }
        page
    }
}

fn attributes(ino: Ino, file: &File) -> Attributes {
    Attributes {
        ino,
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        size: file.size,
        allocated: 0,
        atime: Timestamp::EPOCH,
        mtime: file.mtime,
        ctime: Timestamp::EPOCH,
        btime: Timestamp::EPOCH,
        version: file.version,
        has_xattrs: false,
        pool: None,
    }
}

impl Metadata for FakeMaster {
    fn extents(&self, ino: Ino, offset: u64, end: u64) -> BoxFuture<'_, Result<ExtentPage, FsError>> {
        Box::pin(async move {
            self.delay().await;
            self.requests.lock().pages += 1;
            let page = self.state.lock().files.get(&ino).map(|file| file.page(offset..end)).ok_or(FsError::Stale);
            self.delay().await;
            page
        })
    }

    fn session(&self) -> BoxFuture<'_, Result<SessionId, FsError>> {
        Box::pin(async { Ok(*self.session.lock()) })
    }

    fn reclaim(&self, ino: Ino) -> BoxFuture<'_, Result<(SessionId, u64), FsError>> {
        Box::pin(async move {
            self.delay().await;
            let version = self.state.lock().files.get(&ino).map(|file| file.version).ok_or(FsError::Stale)?;
            Ok((*self.session.lock(), version))
        })
    }

    fn commit(
        &self,
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
        puts: Puts,
        durable: bool,
        _: SessionId,
    ) -> BoxFuture<'_, Result<Vec<Result<Attributes, FsError>>, CommitError>> {
        Box::pin(async move {
            let elsewhere = self.faults.lock().elsewhere.filter(|_| !chunks.is_empty() && puts == Puts::Unsynced);
            if let Some(pool) = elsewhere {
                return Err(CommitError::PutElsewhere(chunks.iter().map(|chunk| (chunk.info.id, pool)).collect()));
            }
            if puts == Puts::Synced {
                chunks.iter().for_each(|chunk| self.check_stable(&chunk.info));
            }
            self.take(files, chunks, durable).await
        })
    }

    fn compaction_work(&self, done: bool) -> BoxFuture<'_, Result<Option<CompactionWork>, FsError>> {
        Box::pin(async move {
            self.delay().await;
            let mut compaction = self.compaction.lock();
            compaction.asked.push(done);
            Ok(compaction.work.pop_front())
        })
    }

    fn compact(&self, files: Vec<FileCompaction>, chunks: Vec<NewChunk>) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            self.delay().await;
            {
                let mut faults = self.faults.lock();
                if faults.put_again > 0 {
                    faults.put_again -= 1;
                    return Err(CommitError::PutAgain);
                }
            }
            chunks.iter().for_each(|chunk| self.check_stored(&chunk.info));
            let mut state = self.state.lock();
            let mut bytes = 0;
            for compaction in &files {
                let info = |extent: &Extent| chunks.iter().find(|chunk| chunk.info.id == extent.chunk).expect("the chunk is named").info;
                let new: Vec<_> = compaction.new.iter().map(|extent| PlacedExtent { extent: *extent, chunk: info(extent) }).collect();
                let file = state.files.get_mut(&compaction.ino).expect("a file");
                file.extents.compact(&compaction.old, &new);
                bytes += compaction.new.iter().map(|extent| u64::from(extent.bytes)).sum::<u64>();
            }
            self.compaction.lock().published.extend(files);
            Ok(bytes)
        })
    }

    fn sync_log(&self) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async move {
            self.delay().await;
            self.requests.lock().log_syncs += 1;
            self.sync_now();
            Ok(())
        })
    }

    fn ticket(&self) -> Timestamp {
        self.runtime.wall()
    }
}
