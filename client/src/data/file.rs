//! One file's data, shared by all its descriptors: what was written, what is known of its extents, and what went wrong.
//!
//! Nothing waits while the state is locked. Reads see every write that returned before they began. Sizes: the local size is
//! the master's, enlarged by what was written here since; only a truncation makes it smaller.

use super::chunk_writer::PutChunks;
use super::committer::{Candidate, Turn};
use super::core::Core;
use super::dirty::RunId;
use super::extent_map::{ExtentMap, PlacedExtent};
use super::put_job::PutJob;
use super::readahead::Readahead;
use super::store::DataStore;
use super::written::{FileUpdate, RunParts, WrittenData};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::{Extent, ExtentPage};
use cairn_common::ids::{Ino, PoolId, SessionId};
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_common::time::Timestamp;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A commit that somebody waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub run: RunId,
    pub durable: bool,
}

/// What the lock protects.
#[derive(Default)]
pub(super) struct FileState {
    pub size: u64,
    pub mtime: Timestamp,
    /// Of the newest attributes seen.
    pub version: u64,
    /// Likewise: the size at the master.
    pub master_size: u64,
    pub written: WrittenData,
    pub extents: ExtentMap,
    /// Grows with each change of the extents, so that an answer that was under way meanwhile is not believed.
    pub extent_changes: u64,
    pub readahead: Readahead,
    pub wanted: Option<Wanted>,
    /// How often a chunk was put again for a commit.
    pub renewals: u64,
    /// Number of the last commit of this file that was not durable by itself.
    pub last_commit: u64,
    /// The session in which what is written is held back.
    owner: SessionId,
    /// The version that the file had when that session was lost.
    base: Option<u64>,
    /// What is written was held back under a write lease when contact was lost.
    is_claimed: bool,
    /// The last error, and how many there were.
    pub error: Option<FsError>,
    pub errors: u64,
    descriptors: usize,
    /// Whether the registry keeps the file alive.
    is_listed: bool,
}

/// The data of one file.
pub struct FileData {
    ino: Ino,
    /// Where its content goes, as the master has said; 0 if it has not, or has no opinion.
    pool: AtomicU32,
    store: Arc<DataStore>,
    pub(super) state: Mutex<FileState>,
    /// Held by whoever commits the file, or keeps it from being committed.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Rung whenever a put or commit of the file ends.
    pub(super) progress: Notify,
    /// The stamp of the lease on which what is known of the content rests; 0 for none.
    stamp: AtomicU64,
    /// Calls that wait for a lease of the file.
    lease_waits: AtomicU32,
    /// The kernel has handed in pages that were changed through a mapping.
    is_stored_through_mappings: AtomicBool,
}

/// Counts a call that waits for a lease.
pub struct LeaseWait<'a>(&'a FileData);

impl Drop for LeaseWait<'_> {
    fn drop(&mut self) {
        self.0.lease_waits.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While this is held, no commit of the file is under way and none begins. Take it around a truncation or punch at the
/// master, so that data written before can't come back after it. Don't flush or sync the file while holding it.
pub struct CommitHold {
    core: Arc<Core>,
    turn: Option<Turn>,
}

impl Drop for CommitHold {
    fn drop(&mut self) {
        drop(self.turn.take());
        self.core.commit_queue.ring();
    }
}

/// An open descriptor's memory of the errors it was told.
pub struct Descriptor {
    file: Arc<FileData>,
    seen: AtomicU64,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let is_last = {
            let mut state = self.file.state.lock();
            state.descriptors -= 1;
            state.descriptors == 0
        };
        if is_last {
            // Whoever could ask to try again has gone; they were told at close.
            self.file.abandon_failed();
        }
    }
}

impl FileData {
    pub(super) fn new(ino: Ino, store: Arc<DataStore>) -> Arc<Self> {
        // Nobody remembers which of the commits so far concerned this file.
        let state = FileState { last_commit: store.core().commit_count.answered(), ..FileState::default() };
        Arc::new(Self {
            ino,
            pool: AtomicU32::new(0),
            store,
            state: Mutex::new(state),
            turn: Arc::default(),
            progress: Notify::new(),
            stamp: AtomicU64::new(0),
            lease_waits: AtomicU32::new(0),
            is_stored_through_mappings: AtomicBool::new(false),
        })
    }

    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Where its content goes: as the directory's policy said when the file was made, else as this client is set.
    pub fn pool(&self) -> PoolId {
        match self.pool.load(Ordering::Relaxed) {
            0 => self.core().settings.pool.pool_of(self.ino),
            pool => PoolId(pool),
        }
    }

    fn learn_pool(&self, attributes: &Attributes) {
        if let Some(pool) = attributes.pool {
            self.pool.store(pool.0, Ordering::Relaxed);
        }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        self.store.core()
    }

    // ---- what the master says

    /// For open(2): a fresh view of the file. With `changed` (somebody else may have written), cached extents are dropped. `page`
    /// begins at offset 0. For a file just created: its attributes and an empty page.
    pub fn opened(&self, attributes: &Attributes, page: &ExtentPage, changed: bool) {
        self.learn_pool(attributes);
        let mut state = self.state.lock();
        if attributes.version < state.version {
            // Older than the answer to one of our own commits, which says nothing of what others wrote.
            if changed {
                state.extent_changes += 1;
                state.extents.forget();
            }
            return;
        }
        state.refresh(attributes);
        if changed || state.extents.is_empty() {
            state.extent_changes += 1;
            state.extents.forget();
            state.extents.learn(0..FILE_BYTES_MAX, page);
        }
    }

    /// Newer attributes that are not the result of a truncation: size and time are taken over, as far as nothing newer was
    /// written here.
    pub fn refreshed(&self, attributes: &Attributes) {
        self.learn_pool(attributes);
        let mut state = self.state.lock();
        if attributes.version >= state.version {
            state.refresh(attributes);
        }
    }

    /// The master has set the size. What was written at or beyond it before is void. Call it with a [`CommitHold`].
    pub fn truncate(&self, new_size: u64, attributes: &Attributes) {
        let mut state = self.state.lock();
        state.extent_changes += 1;
        state.written.truncate(new_size);
        if attributes.version < state.version {
            // Others have changed the file since, as we know already.
            state.extents.forget();
            state.size = state.master_size.max(state.written.end());
        } else {
            state.extents.remove(new_size..u64::MAX);
            state.size = new_size;
            state.master_size = new_size;
            state.mtime = attributes.mtime;
            state.version = attributes.version;
        }
        self.settle(&mut state);
        drop(state);
        self.progress.notify_waiters();
    }

    /// The master has made `range` a hole. What was written there before is void. Call it with a [`CommitHold`].
    pub fn punched(&self, range: Range<u64>, attributes: &Attributes) {
        let mut state = self.state.lock();
        state.extent_changes += 1;
        state.written.punch(range.clone());
        if attributes.version < state.version {
            // Others have changed the file since, as we know already.
            state.extents.forget();
        } else {
            state.extents.remove(range);
            state.refresh(attributes);
        }
    }

    /// The extents have changed at the master in a way not told here (copied ranges, another writer): fetch them anew.
    pub fn forget_extents(&self) {
        let mut state = self.state.lock();
        state.extent_changes += 1;
        state.extents.forget();
    }

    /// Committed content was rewritten elsewhere. An answer about extents that is under way may still name the old chunks, which are kept for
    /// a while.
    pub(super) fn compacted(&self, old: &[Extent], new: &[PlacedExtent]) {
        self.state.lock().extents.compact(old, new);
    }

    /// The modification time was set: a later commit of data written before must not overwrite it.
    pub fn set_mtime(&self, mtime: Timestamp) {
        self.state.lock().mtime = mtime;
    }

    /// Keeps commits of this file away; waits for the one that is under way.
    pub async fn hold(&self) -> CommitHold {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        CommitHold { core: Arc::clone(self.core()), turn: Some(turn) }
    }

    // ---- sessions and leases

    /// To be held while a call waits for a lease of the file.
    pub fn wait_for_lease(&self) -> LeaseWait<'_> {
        self.lease_waits.fetch_add(1, Ordering::Relaxed);
        LeaseWait(self)
    }

    pub fn is_lease_waited_for(&self) -> bool {
        self.lease_waits.load(Ordering::Relaxed) > 0
    }

    /// A page comes that was changed through a mapping.
    pub fn note_mapping(&self) {
        self.is_stored_through_mappings.store(true, Ordering::Relaxed);
    }

    pub fn is_stored_through_mappings(&self) -> bool {
        self.is_stored_through_mappings.load(Ordering::Relaxed)
    }

    pub fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Acquire)
    }

    /// What is known of the content is as fresh as the lease of that stamp.
    pub fn rest_on(&self, stamp: u64) {
        self.stamp.fetch_max(stamp, Ordering::AcqRel);
    }

    /// The session whose lease allows written data to be held back.
    pub fn owner(&self) -> SessionId {
        self.state.lock().owner
    }

    /// What is written from now on is held back in this session. `false` if data is that was held back in another one: see `reclaimed`.
    pub fn adopt(&self, session: SessionId) -> bool {
        let mut state = self.state.lock();
        if state.written.is_clean() {
            (state.owner, state.base, state.is_claimed) = (session, None, false);
        }
        state.owner == session
    }

    /// The change that led to `version` was a commit of our own, of which we have had no answer, if it was the only one.
    pub fn was_committed(&self, version: u64) {
        let mut state = self.state.lock();
        if state.base.is_some_and(|base| base + 1 == version) {
            state.base = Some(version);
        }
    }

    /// Contact is lost while a write lease is held.
    pub fn claim(&self) {
        self.state.lock().is_claimed = true;
    }

    /// Whether data is held back that was when contact was lost.
    pub fn is_claimed(&self) -> bool {
        let state = self.state.lock();
        state.is_claimed && !state.written.is_clean()
    }

    /// The session is lost: what is written here may be stored only if nobody changes the file. `version`: what else is known of it.
    pub fn session_lost(&self, version: u64) {
        let mut state = self.state.lock();
        let known = state.version.max(version);
        state.base.get_or_insert(known);
    }

    /// The master may have lost what it answered last: what it says next counts, whatever its version.
    pub fn doubt(&self) {
        let mut state = self.state.lock();
        state.version = 0;
        state.extent_changes += 1;
        state.extents.forget();
    }

    /// A lease of `session` was taken, and the file found at `version`. What was held back in another session is dropped, and its descriptors told so, unless
    /// the file is as it was when that one was lost. Whether it is.
    pub fn reclaimed(&self, session: SessionId, version: u64) -> bool {
        let mut state = self.state.lock();
        let (owner, base) = (std::mem::replace(&mut state.owner, session), state.base.take());
        if owner == session || state.written.is_clean() || base.unwrap_or(state.version) == version {
            return true;
        }
        tracing::error!(ino = %self.ino, "the session was lost, and others have changed a file: what was written to it here is dropped");
        self.core().counts.files_fenced.add(1);
        state.written.abandon_all();
        state.fail(FsError::Io);
        state.extent_changes += 1;
        state.extents.forget();
        state.size = state.master_size;
        self.settle(&mut state);
        drop(state);
        self.progress.notify_waiters();
        false
    }

    // ---- what is known here

    /// Size of the file as this client sees it.
    pub fn local_size(&self) -> u64 {
        self.state.lock().size
    }

    /// Modification time of the file as this client sees it.
    pub fn local_mtime(&self) -> Timestamp {
        self.state.lock().mtime
    }

    /// Whether anything was written that the master does not have yet.
    pub fn has_dirty(&self) -> bool {
        !self.state.lock().written.is_clean()
    }

    /// The version of the newest attributes seen here, be it from open or from our own commits.
    pub fn version(&self) -> u64 {
        self.state.lock().version
    }

    // ---- errors

    /// To be kept with each open descriptor.
    pub fn descriptor(self: &Arc<Self>) -> Descriptor {
        let mut state = self.state.lock();
        state.descriptors += 1;
        Descriptor { file: Arc::clone(self), seen: AtomicU64::new(state.errors) }
    }

    /// The last error that this descriptor was not told yet; asked again, `None`. Ask after each flush and sync: errors they
    /// return are among these.
    pub fn take_error(&self, descriptor: &Descriptor) -> Option<FsError> {
        let state = self.state.lock();
        let seen = descriptor.seen.swap(state.errors, Ordering::Relaxed);
        state.error.filter(|_| seen < state.errors)
    }

    /// Data of the file was lost, or could not be stored.
    pub(super) fn fail(&self, error: FsError) {
        self.state.lock().fail(error);
        self.progress.notify_waiters();
    }

    /// The file does not exist any more; nor does its data.
    pub(super) fn gone(&self, error: FsError) {
        tracing::warn!(ino = %self.ino, %error, "a file is gone; what was written to it is dropped");
        let mut state = self.state.lock();
        state.written.abandon_all();
        state.fail(error);
        self.settle(&mut state);
        drop(state);
        self.progress.notify_waiters();
    }

    /// The file was removed, and nobody has it open: what was written to it need not be stored any more.
    pub fn discard(&self) {
        let mut state = self.state.lock();
        state.written.abandon_all();
        self.settle(&mut state);
        drop(state);
        self.progress.notify_waiters();
    }

    /// Gives up what could not be stored; its writers were told.
    pub fn abandon_failed(&self) {
        let mut state = self.state.lock();
        let bytes = state.written.abandon_failed();
        if bytes > 0 {
            tracing::error!(ino = %self.ino, bytes, "written data that could not be stored is dropped");
            self.settle(&mut state);
        }
        drop(state);
        if bytes > 0 {
            self.progress.notify_waiters();
        }
    }

    // ---- runs on their way

    /// Seals the open run. With it: whether it is the only data of this file that is not known to be stable.
    pub(super) fn seal(self: &Arc<Self>) -> Option<(RunParts, bool)> {
        let mut state = self.state.lock();
        let is_alone = !state.written.has_sealed_runs() && self.core().durability.marks_of(self.ino).is_empty();
        let run = state.written.seal_open();
        drop(state);
        if run.is_none() {
            // Nothing to put, but perhaps a size to tell.
            self.core().commit_queue.offer(self, self.core().runtime.now());
            self.progress.notify_waiters();
        }
        run.map(|run| (run, is_alone))
    }

    pub(super) fn assign_run(&self, run: RunId, job: &Arc<PutJob>, pack_base: u32) {
        self.state.lock().written.assign(run, Arc::clone(job), pack_base);
    }

    pub(super) fn put_started(&self, run: RunId) {
        self.state.lock().written.put_started(run);
    }

    pub(super) fn put_ended(self: &Arc<Self>, run: RunId, result: Result<Arc<PutChunks>, FsError>) {
        let error = result.as_ref().err().copied();
        let mut state = self.state.lock();
        let exists = state.written.put_ended(run, result);
        let mut give_up = false;
        if let Some(error) = error.filter(|_| exists) {
            state.fail(error);
            give_up = state.descriptors == 0;
        }
        drop(state);
        if give_up {
            self.abandon_failed();
        }
        if exists && error.is_none() {
            self.core().commit_queue.offer(self, self.core().runtime.now());
        }
        if error.is_some() && self.core().budget.is_wanted() {
            self.core().budget.pressure.notify_one();
        }
        self.progress.notify_waiters();
    }

    /// A run that waits for its commit has been put elsewhere.
    pub(super) fn put_renewed(&self, run: RunId, chunks: Arc<PutChunks>) {
        let mut state = self.state.lock();
        state.written.put_ended(run, Ok(chunks));
        state.renewals += 1;
    }

    pub(super) fn retry_failed(&self) {
        let jobs = self.state.lock().written.failed_jobs();
        for job in jobs {
            self.core().start(job, None);
        }
    }

    // ---- for the committer

    pub(super) fn try_turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    pub(super) fn ready_runs(&self) -> (usize, usize) {
        self.state.lock().written.ready_runs()
    }

    pub(super) fn commit_candidate(&self, force: bool, extents_max: usize) -> Candidate {
        let state = self.state.lock();
        let runs = state.written.ready_for_commit(extents_max);
        let urgent = state.wanted.filter(|wanted| state.written.is_put(wanted.run));
        if runs.is_empty() {
            Candidate::Nothing
        } else if force || urgent.is_some() {
            let wants_durable = urgent.is_some_and(|wanted| wanted.durable);
            Candidate::Now { update: state.written.update(&runs), wants_durable }
        } else {
            Candidate::NotYet
        }
    }

    /// Whether an update tells the master nothing new: what it was about is truncated.
    pub(super) fn is_void(&self, update: &FileUpdate) -> bool {
        update.extents.is_empty() && update.end <= self.state.lock().master_size
    }

    pub(super) fn update_of(&self, runs: &[RunId]) -> FileUpdate {
        self.state.lock().written.update(runs)
    }

    pub(super) fn jobs(&self, runs: &[RunId]) -> Vec<Arc<PutJob>> {
        self.state.lock().written.jobs(runs)
    }

    /// The modification time that a commit carries.
    pub(super) fn written_at(&self) -> Timestamp {
        self.state.lock().mtime
    }

    /// The master has taken an update; without attributes if nothing was left to say. `number` is the commit's, 0 if it is durable.
    pub(super) fn committed(&self, update: &FileUpdate, attributes: Option<&Attributes>, number: u64) {
        let mut state = self.state.lock();
        let chunks = state.written.committed(&update.runs);
        for extent in &update.extents {
            if let Some(chunk) = update.chunks.get(&extent.chunk) {
                state.extents.overlay(PlacedExtent { extent: *extent, chunk: chunk.info });
            }
        }
        state.extent_changes += 1;
        if let Some(attributes) = attributes {
            state.last_commit = number;
            if attributes.version >= state.version {
                state.refresh(attributes);
            } else {
                // What is known is newer, and perhaps another's.
                state.extents.forget();
            }
        }
        if state.wanted.is_some_and(|wanted| state.written.is_committed(wanted.run)) {
            state.wanted = None;
        }
        self.settle(&mut state);
        drop(state);
        self.keep_for_readers(chunks);
        self.progress.notify_waiters();
    }

    pub(super) fn commit_failed(&self, runs: &[RunId], error: FsError) {
        tracing::error!(ino = %self.ino, %error, "written data could not be committed");
        let mut state = self.state.lock();
        state.written.commit_failed(runs, error);
        state.fail(error);
        let give_up = state.descriptors == 0;
        drop(state);
        if give_up {
            self.abandon_failed();
        }
        self.progress.notify_waiters();
    }

    /// Small chunks just written are often read soon; full ones belong to streams and would only push others out.
    fn keep_for_readers(&self, chunks: Vec<super::chunk_writer::PutChunk>) {
        let full = self.core().chunk_bytes_max(self.pool());
        for put in chunks.into_iter().filter(|put| put.bytes.len() < full) {
            self.core().source.cache.insert(put.chunk.info.id, 0, put.bytes);
        }
    }

    // ---- for the caretaker

    pub(super) fn open_since(&self) -> Option<Moment> {
        self.state.lock().written.open_since()
    }

    pub(super) fn open_bytes(&self) -> usize {
        self.state.lock().written.open_bytes()
    }

    /// Tells the registry whether the file must be kept alive.
    pub(super) fn list(self: &Arc<Self>, state: &mut FileState) {
        if !state.is_listed && !state.written.is_clean() {
            state.is_listed = true;
            self.core().files.set_dirty(self);
        }
    }

    fn settle(&self, state: &mut FileState) {
        if state.is_listed && state.written.is_clean() {
            state.is_listed = false;
            self.core().files.set_clean(self.ino);
        }
    }
}

impl Drop for FileData {
    fn drop(&mut self) {
        self.store.core().files.forget(self.ino);
    }
}

impl FileState {
    fn refresh(&mut self, attributes: &Attributes) {
        self.version = attributes.version;
        self.master_size = attributes.size;
        self.size = attributes.size.max(self.written.end());
        if self.written.is_clean() {
            self.mtime = attributes.mtime;
        }
    }

    fn fail(&mut self, error: FsError) {
        self.error = Some(error);
        self.errors += 1;
    }
}
