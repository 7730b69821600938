//! `cairn fsck`, the master's part: checks of the tables, one at a time, of a snapshot and in small steps.
//!
//! - The snapshot is read away from the master's thread, some thousand rows at a time, with a rest after each step: as long as the step took, and
//!   longer if something was changed meanwhile. Clients are not waited for, and do not wait.
//! - A snapshot keeps what is replaced meanwhile in the file of the tables. It is given up if the file has grown by [`GROWTH_MAX`], and by its
//!   own size.
//! - A repair goes in rounds: check, mend what is certain, check again. What it found last and could not mend is left.
//! - A check about which nobody asks for [`ABANDONED_AFTER`] ends. Nothing of it outlives the master.

use super::master::{Master, unavailable, yield_now};
use crate::check::paths::{Paths, Users};
use crate::check::{Check, Problem, Verdict};
use crate::state::command::Mend;
use crate::state::mend::MENDS_PER_COMMAND;
use crate::state::{Command, Outcome, read};
use crate::store::Snapshot;
use crate::store::tables::StoreError;
use cairn_common::ids::{ChunkId, Ino, LogIndex};
use cairn_common::limits::GIB;
use cairn_common::wire::check::{CHUNKS_ASKED_MAX, CheckEnd, CheckReport, CheckWork, FINDINGS_PAGE_MAX, Fate, Finding};
use cairn_common::wire::master::{MasterError, MasterReply};
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Rows of one step: some milliseconds.
const STEP_ROWS: usize = 4096;
/// How much longer the rest is than the step while commands come in.
const BUSY_REST: u32 = 4;
/// Longest rest after a step.
const REST_MAX: Duration = Duration::from_millis(200);
/// By how much the tables may grow because of a snapshot, or by as much again as they had.
const GROWTH_MAX: u64 = GIB;
/// For how long a check goes on although nobody asks about it.
const ABANDONED_AFTER: Duration = Duration::from_secs(15);
/// Checks that one repair makes at most. Mends may bring new problems to light, but not for long.
const ROUNDS_MAX: usize = 8;
/// Findings that are kept for whoever asks; of more there is only the number.
const FINDINGS_MAX: usize = 16_384;

/// The check under way or done last, if there was one.
#[derive(Default)]
pub struct Checks {
    current: Mutex<Option<Arc<Job>>>,
    begun: Notify,
}

struct Job {
    id: u64,
    work: CheckWork,
    state: Mutex<JobState>,
}

struct JobState {
    stage: &'static str,
    rows_done: u64,
    rows: u64,
    findings: Vec<Finding>,
    found: u64,
    end: Option<CheckEnd>,
    asked: Moment,
}

/// Why a check stops before its end.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("nobody asked about it for {} s", ABANDONED_AFTER.as_secs())]
    Abandoned,
    #[error("the tables grew by {} MiB while they were read: check again when less is changed", .0 >> 20)]
    TooMuchGrowth(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Master(#[from] MasterError),
}

impl Job {
    fn new(id: u64, work: CheckWork, now: Moment) -> Self {
        let state = JobState { stage: "waiting", rows_done: 0, rows: 0, findings: Vec::new(), found: 0, end: None, asked: now };
        Self { id, work, state: Mutex::new(state) }
    }

    fn is_abandoned(&self, now: Moment) -> bool {
        now.since(self.state.lock().asked) > ABANDONED_AFTER
    }

    fn is_at_work(&self, now: Moment) -> bool {
        self.state.lock().end.is_none() && !self.is_abandoned(now)
    }

    fn note(&self, stage: &'static str, rows_done: u64) {
        let mut state = self.state.lock();
        state.stage = stage;
        state.rows_done = rows_done;
        state.rows = state.rows.max(rows_done);
    }

    fn publish(&self, findings: impl Iterator<Item = Finding>) {
        let mut state = self.state.lock();
        for finding in findings {
            state.found += 1;
            if state.findings.len() < FINDINGS_MAX {
                state.findings.push(finding);
            }
        }
    }

    fn report(&self, from: u64, now: Moment) -> CheckReport {
        let mut state = self.state.lock();
        state.asked = now;
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(state.findings.len());
        let until = (from + FINDINGS_PAGE_MAX).min(state.findings.len());
        // The end is told with the last findings.
        let end = state.end.clone().filter(|_| until == state.findings.len());
        CheckReport {
            stage: state.stage.to_owned(),
            rows_done: state.rows_done,
            rows: state.rows,
            findings: state.findings[from..until].to_vec(),
            found: state.found,
            end,
        }
    }
}

impl Master {
    pub(super) fn begin_check(&self, work: CheckWork) -> Result<MasterReply, MasterError> {
        if let CheckWork::Users { chunks } = &work
            && chunks.len() > CHUNKS_ASKED_MAX
        {
            return Err(MasterError::Malformed(format!("{} chunks are more than {CHUNKS_ASKED_MAX}", chunks.len())));
        }
        let now = self.runtime.now();
        let mut current = self.checks.current.lock();
        if current.as_ref().is_some_and(|job| job.is_at_work(now)) {
            return Err(MasterError::Unwise("another check is at work: wait until it is done".to_owned()));
        }
        let job = Arc::new(Job::new(self.runtime.random_u64(), work, now));
        let check = job.id;
        *current = Some(job);
        self.checks.begun.notify_one();
        Ok(MasterReply::CheckBegun { check })
    }

    pub(super) fn follow_check(&self, check: u64, from: u64) -> Result<MasterReply, MasterError> {
        let current = self.checks.current.lock();
        let Some(job) = current.as_ref().filter(|job| job.id == check) else {
            return Err(MasterError::Malformed(
                "the check is not known any more: the master was restarted, or another check begun".to_owned(),
            ));
        };
        Ok(MasterReply::Check(job.report(from, self.runtime.now())))
    }

    /// The task that does what was begun.
    pub(super) async fn run_checks(&self) {
        loop {
            self.checks.begun.notified().await;
            let Some(job) = self.checks.current.lock().clone() else { continue };
            let end = match &job.work {
                CheckWork::Tables { repair } => self.check_tables(&job, *repair).await,
                CheckWork::Users { chunks } => self.find_users(&job, chunks).await,
            };
            let end = end.unwrap_or_else(|stopped| {
                tracing::warn!("a check has ended early: {stopped}");
                CheckEnd::Failed(stopped.to_string())
            });
            job.state.lock().end = Some(end);
        }
    }

    async fn check_tables(&self, job: &Job, repair: bool) -> Result<CheckEnd, Stopped> {
        for round in 1.. {
            let snapshot = self.snapshot(job).await?;
            let verdict = self.check_snapshot(job, &snapshot).await?;
            let paths = self.paths(job, &snapshot, verdict.problems.iter().filter_map(Problem::inode)).await?;
            let finding = |problem: &Problem, fate| finding(problem, &paths, fate);
            let mends = if repair && round < ROUNDS_MAX { verdict.mends() } else { Vec::new() };
            if mends.is_empty() {
                let fate = if repair { Fate::Left } else { Fate::Found };
                job.publish(verdict.problems.iter().map(|problem| finding(problem, fate)));
                return Ok(if verdict.is_complete { CheckEnd::Complete } else { CheckEnd::TooMuch });
            }
            let seen = snapshot.position.applied;
            drop(snapshot);
            let done = self.mend(job, seen, &mends).await?;
            job.publish(done.into_iter().map(|at| finding(&verdict.problems[at], Fate::Mended)));
        }
        unreachable!("the last round returns")
    }

    async fn snapshot(&self, job: &Job) -> Result<Arc<Snapshot>, Stopped> {
        job.note("preparing", 0);
        let snapshot = self.store.snapshot().await?;
        // Directories are found among the inodes once more.
        job.state.lock().rows = snapshot.rows + self.look(read::inodes)?;
        Ok(Arc::new(snapshot))
    }

    async fn check_snapshot(&self, job: &Job, snapshot: &Arc<Snapshot>) -> Result<Verdict, Stopped> {
        let step = |check: &mut Check, snapshot: &Snapshot| check.step(snapshot, STEP_ROWS);
        let note = |check: &Check| job.note(check.stage(), check.rows());
        Ok(self.in_steps(job, snapshot, Check::new(), step, note).await?.finish())
    }

    /// Does work in steps, away from this thread, until a step says that there is no more.
    async fn in_steps<T: Send + 'static>(
        &self,
        job: &Job,
        snapshot: &Arc<Snapshot>,
        mut work: T,
        step: fn(&mut T, &Snapshot) -> Result<bool, StoreError>,
        note: impl Fn(&T),
    ) -> Result<T, Stopped> {
        loop {
            let (begun, last) = (self.runtime.now(), self.store.last());
            let tables = snapshot.clone();
            let (worked, has_more) = self
                .runtime
                .blocking(move || {
                    let has_more = step(&mut work, &tables);
                    (work, has_more)
                })
                .await;
            work = worked;
            note(&work);
            if !has_more? {
                return Ok(work);
            }
            let now = self.runtime.now();
            if job.is_abandoned(now) {
                return Err(Stopped::Abandoned);
            }
            let growth = self.store.growth_since(snapshot)?;
            if growth > GROWTH_MAX.max(snapshot.file_bytes) {
                return Err(Stopped::TooMuchGrowth(growth));
            }
            let rest = now.since(begun) * if self.store.last() == last { 1 } else { BUSY_REST };
            self.runtime.sleep(rest.min(REST_MAX)).await;
        }
    }

    async fn paths(
        &self,
        job: &Job,
        snapshot: &Arc<Snapshot>,
        inodes: impl Iterator<Item = Ino>,
    ) -> Result<BTreeMap<Ino, Vec<u8>>, Stopped> {
        let inodes: Vec<Ino> = inodes.collect();
        let step = |paths: &mut Paths, snapshot: &Snapshot| paths.step(snapshot, STEP_ROWS);
        let mut paths = self.in_steps(job, snapshot, Paths::new(inodes.iter().copied()), step, |_| {}).await?;
        let tables = snapshot.clone();
        let named = self.runtime.blocking(move || {
            let mut named = BTreeMap::new();
            for ino in inodes {
                if let Some(path) = paths.path(&*tables, ino)? {
                    named.insert(ino, path);
                }
            }
            Ok::<_, StoreError>(named)
        });
        Ok(named.await?)
    }

    /// Which of the mends were done, as the numbers that came with them; on stable storage.
    async fn mend(&self, job: &Job, seen: LogIndex, mends: &[(usize, Mend)]) -> Result<Vec<usize>, Stopped> {
        job.note("mending", 0);
        let mut mended = Vec::new();
        for (batch, mends) in (1..).zip(mends.chunks(MENDS_PER_COMMAND)) {
            let command = Command::Mend { seen, batch, mends: mends.iter().map(|(_, mend)| mend.clone()).collect() };
            let done = |_: &Self, outcome| match outcome {
                Outcome::Mended { done } => done,
                _ => Vec::new(),
            };
            let (done, _) = self.perform(|_| Ok(command.clone()), done).await?;
            for ((at, mend), _) in mends.iter().zip(done).filter(|(_, is_done)| *is_done) {
                tracing::warn!("the tables were mended: {mend:?}");
                mended.push(*at);
            }
            yield_now().await;
        }
        self.store.synced(self.store.last()).await.map_err(unavailable)?;
        Ok(mended)
    }

    async fn find_users(&self, job: &Job, chunks: &[ChunkId]) -> Result<CheckEnd, Stopped> {
        let snapshot = self.snapshot(job).await?;
        job.note("looking for files", 0);
        let step = |users: &mut Users, snapshot: &Snapshot| users.step(snapshot, STEP_ROWS);
        let users = self.in_steps(job, &snapshot, Users::new(chunks.iter().copied()), step, |_| {}).await?;
        let paths = self.paths(job, &snapshot, users.files.values().flatten().copied()).await?;
        let finding = |(chunk, ino): (ChunkId, Ino)| Finding {
            class: "chunk-user".to_owned(),
            sentence: format!("inode {ino} has bytes in chunk {chunk}"),
            path: paths.get(&ino).cloned(),
            inode: Some(ino),
            chunk: Some(chunk),
            fate: Fate::Found,
        };
        job.publish(users.files.iter().flat_map(|(chunk, files)| files.iter().map(|ino| (*chunk, *ino))).map(finding));
        Ok(CheckEnd::Complete)
    }
}

fn finding(problem: &Problem, paths: &BTreeMap<Ino, Vec<u8>>, fate: Fate) -> Finding {
    let inode = problem.inode();
    Finding {
        class: problem.class().to_owned(),
        sentence: problem.to_string(),
        path: inode.and_then(|ino| paths.get(&ino).cloned()),
        inode,
        chunk: problem.chunk(),
        fate,
    }
}
