//! Publishes put chunks: what is ready of many files at one moment goes to the master in one commit.
//!
//! A file's commits follow each other (its turn); commits of different files may overlap. What somebody waits for is committed
//! at once; the rest after a second, or when there is much of it, or when memory is short.

use super::chunk_writer::Elsewhere;
use super::core::Core;
use super::dirty::RunId;
use super::file::FileData;
use super::limits::{COMMIT_AGE_MAX, COMMIT_RUNS_MAX, PUT_AGAIN_MAX};
use super::put_job::PutJob;
use super::written::FileUpdate;
use crate::ports::CommitError;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::NewChunk;
use cairn_common::ids::{ChunkId, Ino, SessionId};
use cairn_common::limits::COMMIT_EXTENTS_MAX;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{FileCommit, Puts};
use cairn_runtime::clock::Moment;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, OwnedMutexGuard};

/// Files with runs that are put and not committed.
#[derive(Default)]
pub struct CommitQueue {
    state: Mutex<QueueState>,
    wake: Notify,
}

#[derive(Default)]
struct QueueState {
    ready: BTreeMap<Ino, Arc<FileData>>,
    /// When the first of them came.
    since: Option<Moment>,
}

impl CommitQueue {
    /// The file may have something to commit.
    pub fn offer(&self, file: &Arc<FileData>, now: Moment) {
        let mut state = self.state.lock();
        state.ready.insert(file.ino(), Arc::clone(file));
        state.since.get_or_insert(now);
        drop(state);
        self.wake.notify_one();
    }

    /// Look again: a turn has become free.
    pub fn ring(&self) {
        self.wake.notify_one();
    }

    fn waiting(&self) -> (Vec<Arc<FileData>>, Option<Moment>) {
        let state = self.state.lock();
        (state.ready.values().cloned().collect(), state.since)
    }

    /// Forgets files with nothing to commit.
    fn remove(&self, files: &[Ino]) {
        let mut state = self.state.lock();
        let removed: Vec<_> = files.iter().filter_map(|ino| state.ready.remove(ino)).collect();
        if state.ready.is_empty() {
            state.since = None;
        }
        drop(state);
        drop(removed);
    }

    fn restart_clock(&self, now: Moment) {
        let mut state = self.state.lock();
        state.since = state.since.map(|_| now);
    }
}

/// Which commits are in the master's synced log.
#[derive(Default)]
pub struct CommitCount {
    answered: AtomicU64,
    /// The first so many of them are durable for sure.
    durable: AtomicU64,
}

impl CommitCount {
    /// Commits that the master has answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Counts an answer; its number.
    fn count(&self) -> u64 {
        self.answered.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub fn is_durable(&self, number: u64) -> bool {
        self.durable.load(Ordering::Acquire) >= number
    }

    /// The log has been synced by a request that was sent when `answered` commits had been answered.
    pub fn synced(&self, answered: u64) {
        self.durable.fetch_max(answered, Ordering::AcqRel);
    }
}

/// Right to commit a file; there is one.
pub type Turn = OwnedMutexGuard<()>;

/// One file's part of a commit.
struct FileBatch {
    file: Arc<FileData>,
    update: FileUpdate,
    turn: Turn,
}

/// Serves the queue for ever.
pub async fn run(core: Arc<Core>) {
    loop {
        let (_, since) = core.commit_queue.waiting();
        match since {
            None => core.commit_queue.wake.notified().await,
            Some(since) => {
                tokio::select! {
                    biased;
                    () = core.commit_queue.wake.notified() => {}
                    () = core.runtime.clock.sleep_until(since.plus(COMMIT_AGE_MAX)) => {}
                }
            }
        }
        loop {
            let Ok(slot) = Arc::clone(&core.commit_slots).acquire_owned().await else { return };
            let (batch, durable) = gather(&core);
            if batch.is_empty() {
                break;
            }
            let task = Arc::clone(&core);
            core.runtime.spawn("commit", async move {
                commit(&task, batch, durable).await;
                drop(slot);
                task.commit_queue.ring();
            });
        }
    }
}

/// What is to be committed now, and whether somebody wants it durable.
fn gather(core: &Core) -> (Vec<FileBatch>, bool) {
    let (files, since) = core.commit_queue.waiting();
    let now = core.runtime.now();
    let force = is_due(core, &files, since, now);
    let mut batch = Vec::new();
    let mut done = Vec::new();
    let mut durable = false;
    let mut room = COMMIT_EXTENTS_MAX;
    let mut is_everything = true;
    for file in files {
        // A commit says of each chunk where it is: equal content that was put in two pools takes two commits, so that the master can tell which of them keeps it.
        if batch.first().is_some_and(|first: &FileBatch| first.file.pool() != file.pool()) {
            is_everything = false;
            continue;
        }
        // A commit of the file is under way, or somebody holds it; we are rung up when that ends.
        let Some(turn) = file.try_turn() else { continue };
        match file.commit_candidate(force, room) {
            Candidate::Nothing => done.push(file.ino()),
            Candidate::NotYet => {}
            Candidate::Now { update, wants_durable } => {
                if !batch.is_empty() && update.extents.len() > room {
                    break;
                }
                room = room.saturating_sub(update.extents.len());
                durable |= wants_durable;
                batch.push(FileBatch { file, update, turn });
            }
        }
    }
    core.commit_queue.remove(&done);
    if force && is_everything {
        core.commit_queue.restart_clock(now);
    }
    (batch, durable)
}

/// Whether everything ready shall be committed, not only what somebody waits for.
fn is_due(core: &Core, files: &[Arc<FileData>], since: Option<Moment>, now: Moment) -> bool {
    if core.budget.is_wanted() || since.is_some_and(|since| now.since(since) >= COMMIT_AGE_MAX) {
        return true;
    }
    let (runs, bytes) = files.iter().map(|file| file.ready_runs()).fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    runs >= COMMIT_RUNS_MAX || bytes >= core.budget.total_bytes() / 4
}

/// What a file has to say to the committer.
pub enum Candidate {
    Nothing,
    /// There is something, but nobody waits for it, or not all that they wait for is put.
    NotYet,
    Now {
        update: FileUpdate,
        wants_durable: bool,
    },
}

async fn commit(core: &Arc<Core>, mut batch: Vec<FileBatch>, durable: bool) {
    let mut puts = 0;
    let mut is_in_doubt = false;
    // Once the master has said that content is elsewhere, all that is put again is stable.
    let mut elsewhere: Option<Elsewhere> = None;
    while puts < PUT_AGAIN_MAX {
        let session = match claim(core, &mut batch, is_in_doubt).await {
            Ok(session) => session,
            Err(error) => return fail(batch, error),
        };
        let (files, chunks) = to_say(&batch);
        if files.is_empty() {
            return finish(core, batch, Vec::new(), durable);
        }
        let answered = core.commit_count.answered();
        let wants_durable = durable && !is_planted(Bug::CommitNotDurable);
        let puts_are = if elsewhere.is_some() { Puts::Synced } else { Puts::Unsynced };
        match core.metadata.commit(files, chunks, puts_are, wants_durable, session).await {
            Ok(results) => {
                core.counts.commits.add(1);
                if durable {
                    core.commit_count.synced(answered);
                }
                return finish(core, batch, results, durable);
            }
            Err(CommitError::SessionGone) => {
                is_in_doubt = true;
                continue;
            }
            Err(CommitError::PutAgain) => {}
            Err(CommitError::PutElsewhere(chunks)) => elsewhere.get_or_insert_default().extend(chunks),
            Err(CommitError::Fs(error)) => return fail(batch, error),
        }
        puts += 1;
        let sync = durable || elsewhere.is_some();
        if let Err(error) = put_again(core, &mut batch, sync, elsewhere.as_ref().unwrap_or(&Elsewhere::new())).await {
            return fail(batch, error);
        }
    }
    tracing::error!(files = batch.len(), "the map moves too often for a commit");
    fail(batch, FsError::Io);
}

/// The session in which all files of a commit may be committed. Data that was held back in another one may be stored only if nobody has changed the file
/// since; files of which that is not so leave the batch. `is_in_doubt`: perhaps this very commit was done in the session that is lost.
async fn claim(core: &Arc<Core>, batch: &mut Vec<FileBatch>, is_in_doubt: bool) -> Result<SessionId, FsError> {
    loop {
        let session = core.metadata.session().await?;
        let Some(place) = batch.iter().position(|part| part.file.owner() != session) else { return Ok(session) };
        let file = Arc::clone(&batch[place].file);
        let is_ours = match core.metadata.reclaim(file.ino()).await {
            Ok((session, version)) => {
                if is_in_doubt && is_published(core, &batch[place]).await? {
                    file.was_committed(version);
                }
                file.reclaimed(session, version)
            }
            Err(error @ (FsError::NotFound | FsError::Stale)) => {
                file.gone(error);
                false
            }
            Err(error) => return Err(error),
        };
        if !is_ours {
            drop(batch.remove(place).turn);
            core.commit_queue.offer(&file, core.runtime.now());
        }
    }
}

/// Whether the master has all extents of a commit.
async fn is_published(core: &Core, part: &FileBatch) -> Result<bool, FsError> {
    for extent in &part.update.extents {
        let page = core.metadata.extents(part.file.ino(), extent.file_offset, extent.file_end()).await?;
        let mut reached = extent.file_offset;
        for found in page.extents.iter().filter(|found| found.file_end() > extent.file_offset && found.file_offset < extent.file_end()) {
            // Chunks are named by their content.
            let is_same = found.chunk == extent.chunk
                && i128::from(found.chunk_offset) - i128::from(found.file_offset)
                    == i128::from(extent.chunk_offset) - i128::from(extent.file_offset);
            if !is_same || found.file_offset > reached {
                return Ok(false);
            }
            reached = found.file_end();
        }
        if reached < extent.file_end() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The commit in the words of the master. Files of which nothing is left (truncated meanwhile) are not named.
fn to_say(batch: &[FileBatch]) -> (Vec<FileCommit>, Vec<NewChunk>) {
    let named = batch.iter().filter(|part| !part.file.is_void(&part.update));
    let commit = |part: &FileBatch| FileCommit {
        ino: part.file.ino(),
        extents: part.update.extents.clone(),
        size_at_least: part.update.end,
        mtime: part.file.written_at(),
    };
    let chunks: BTreeMap<ChunkId, NewChunk> = batch.iter().flat_map(|part| &part.update.chunks).map(|(id, chunk)| (*id, *chunk)).collect();
    (named.map(commit).collect(), chunks.into_values().collect())
}

/// Puts all chunks of a commit again, under the present map.
async fn put_again(core: &Arc<Core>, batch: &mut [FileBatch], sync: bool, elsewhere: &Elsewhere) -> Result<(), FsError> {
    let map = core.targets.map();
    core.targets.refresh_map(map.epoch).await;
    let mut jobs: Vec<Arc<PutJob>> = Vec::new();
    for job in batch.iter().flat_map(|part| part.file.jobs(&part.update.runs)) {
        if !jobs.iter().any(|known| Arc::ptr_eq(known, &job)) {
            jobs.push(job);
        }
    }
    core.counts.chunks_put_again.add(jobs.len() as u64);
    let results = join_all(jobs.iter().map(|job| core.put(job, job.sync || sync, elsewhere))).await;
    for (job, result) in jobs.iter().zip(results) {
        let chunks = result?;
        for member in &job.members {
            member.file.put_renewed(member.run, Arc::clone(&chunks));
        }
    }
    for part in batch {
        part.update = part.file.update_of(&part.update.runs);
    }
    Ok(())
}

fn finish(core: &Arc<Core>, batch: Vec<FileBatch>, results: Vec<Result<Attributes, FsError>>, durable: bool) {
    // A durable commit of a file makes its earlier ones durable, for they were answered before it was sent.
    let number = if durable { 0 } else { core.commit_count.count() };
    let mut results = results.into_iter();
    core.scatter.note(batch.iter().map(|part| part.update.extents.len()).sum());
    for FileBatch { file, update, turn } in batch {
        if file.is_void(&update) {
            file.committed(&update, None, number);
        } else {
            match results.next() {
                Some(Ok(attributes)) => file.committed(&update, Some(&attributes), number),
                // The file is gone for good: nobody can have its data any more.
                Some(Err(error)) => file.gone(error),
                None => file.commit_failed(&update.runs, FsError::Io),
            }
        }
        drop(turn);
        core.commit_queue.offer(&file, core.runtime.now());
    }
}

fn fail(batch: Vec<FileBatch>, error: FsError) {
    for FileBatch { file, update, turn } in batch {
        let runs: &[RunId] = &update.runs;
        file.commit_failed(runs, error);
        drop(turn);
    }
}
