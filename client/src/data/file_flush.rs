//! Flushing: getting written data to the chunkservers and the master.

use super::dirty::RunId;
use super::file::{FileData, FileState, Wanted};
use cairn_common::error::FsError;
use cairn_common::planted::{Bug, is_planted};
use std::sync::Arc;

/// What a flush has to wait for.
struct Goal {
    run: Option<RunId>,
    /// Errors and renewed puts counted before.
    errors: u64,
    renewals: u64,
}

impl Goal {
    /// What became of the goal, once it is decided.
    fn outcome(&self, state: &FileState, is_reached: impl Fn(&FileState, RunId) -> bool) -> Option<Result<(), FsError>> {
        if let Some(run) = self.run {
            if let Some(error) = state.written.failure(run) {
                return Some(Err(error));
            }
            if !is_reached(state, run) {
                return None;
            }
        }
        let new_error = state.error.filter(|_| state.errors > self.errors);
        Some(new_error.map_or(Ok(()), Err))
    }
}

impl FileData {
    /// For close(2): when this returns, everything written before is with the chunkservers and the master. What failed
    /// earlier is tried again. An error is also remembered for every open descriptor.
    pub async fn flush(self: &Arc<Self>) -> Result<(), FsError> {
        let goal = self.begin_flush(false);
        self.want_commit(&goal, false);
        let outcome = self.reach(|state| goal.outcome(state, |state, run| state.written.is_committed(run))).await;
        if is_planted(Bug::FlushErrorSwallowed) { Ok(()) } else { outcome }
    }

    /// For fsync(2): when this returns, everything written before is on stable storage on the chunkservers and in the
    /// master's synced log, together with all that the master has done for this client before.
    ///
    /// If nothing was committed here that may not be durable yet, it does nothing: other changes of the inode are up to the caller.
    pub async fn sync(self: &Arc<Self>) -> Result<(), FsError> {
        let goal = self.begin_flush(true);
        self.reach(|state| goal.outcome(state, |state, run| state.written.is_put(run))).await?;
        self.sync_targets().await;
        self.want_commit(&goal, true);
        self.reach(|state| goal.outcome(state, |state, run| state.written.is_committed(run))).await?;
        let was_put_again = self.state.lock().renewals > goal.renewals;
        if was_put_again {
            // Perhaps for a commit that was not meant to be durable.
            self.sync_targets().await;
            self.reach(|state| goal.outcome(state, |state, run| state.written.is_committed(run))).await?;
        }
        self.sync_log().await
    }

    /// Gets the open run on its way, and failed ones again.
    fn begin_flush(self: &Arc<Self>, sync: bool) -> Goal {
        let (goal, has_open_run) = {
            let state = self.state.lock();
            let goal = Goal { run: state.written.newest_run(), errors: state.errors, renewals: state.renewals };
            (goal, state.written.has_open_run())
        };
        self.retry_failed();
        if has_open_run {
            self.core().pack_queue.ask(self, sync);
        }
        goal
    }

    fn want_commit(self: &Arc<Self>, goal: &Goal, durable: bool) {
        let Some(run) = goal.run else { return };
        {
            let mut state = self.state.lock();
            if state.written.is_committed(run) {
                return;
            }
            let before = state.wanted;
            state.wanted = Some(Wanted {
                run: before.map_or(run, |wanted| wanted.run.max(run)),
                durable: durable || before.is_some_and(|wanted| wanted.durable),
            });
        }
        self.core().commit_queue.offer(self, self.core().runtime.now());
    }

    /// Waits until `check` has an answer; it is asked whenever a put or commit of the file has ended.
    async fn reach<T>(&self, check: impl Fn(&FileState) -> Option<T>) -> T {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // From here on nothing is missed.
            progress.as_mut().enable();
            if let Some(answer) = check(&self.state.lock()) {
                return answer;
            }
            progress.await;
        }
    }

    async fn sync_targets(&self) {
        if is_planted(Bug::TargetsNotSynced) {
            return;
        }
        let durability = &self.core().durability;
        let marks = durability.marks_of(self.ino());
        if !marks.is_empty() {
            durability.sync(&marks).await;
        }
    }

    /// Makes earlier commits durable that were not when they were made.
    async fn sync_log(&self) -> Result<(), FsError> {
        let core = self.core();
        let last_commit = self.state.lock().last_commit;
        if core.commit_count.is_durable(last_commit) {
            return Ok(());
        }
        let answered = core.commit_count.answered();
        let result = core.metadata.sync_log().await;
        match result {
            Ok(()) => core.commit_count.synced(answered),
            Err(error) => self.fail(error),
        }
        result
    }
}
