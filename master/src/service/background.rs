//! What nobody asks for. Each task does a bounded piece of work, lets others have a turn, and goes on; a refusal is logged and tried
//! again at the next round.

use super::collector;
use super::leases;
use super::master::{Master, unavailable, yield_now};
use crate::state::record::Rules;
use crate::state::{Command, Outcome, Stamped, read};
use cairn_common::wire::master::MasterError;
use cairn_runtime::task::TaskGuard;
use std::sync::Arc;
use std::time::Duration;

/// How often silence is looked for.
const TARGETS_INTERVAL: Duration = Duration::from_millis(250);
const SESSIONS_INTERVAL: Duration = Duration::from_secs(1);
/// How often files with extents to remove are looked for.
const SHRINK_INTERVAL: Duration = Duration::from_millis(200);
/// How many of them are worked on in turn.
const SHRINKING_FILES_MAX: usize = 32;
/// Dead chunks are collected so many times within the grace period.
const COLLECTIONS_PER_GRACE: u32 = 15;

/// Starts all of it; it ends with the guards.
pub fn start(master: &Arc<Master>) -> Vec<TaskGuard> {
    let runtime = &master.runtime;
    let tasks = [
        runtime.spawn("master targets", watch_targets(master.clone())),
        runtime.spawn("master sessions", end_silent_sessions(master.clone())),
        runtime.spawn("master shrink", remove_extents(master.clone())),
        runtime.spawn("master collect", collect_chunks(master.clone())),
        runtime.spawn("master check", run_checks(master.clone())),
        runtime.spawn("master recalls", leases::recall_leases(master.clone())),
    ];
    tasks.into_iter().map(|task| task.abort_on_drop()).collect()
}

fn report(what: &str, result: Result<(), MasterError>) {
    if let Err(error) = result {
        tracing::warn!("{what}: {error}");
    }
}

async fn run_checks(master: Arc<Master>) {
    master.run_checks().await;
}

async fn watch_targets(master: Arc<Master>) {
    loop {
        let pause = master.runtime.sleep(TARGETS_INTERVAL);
        tokio::select! {
            biased;
            () = master.targets_changed.notified() => {}
            () = pause => {}
        }
        report("watching targets", master.watch_targets().await);
    }
}

async fn end_silent_sessions(master: Arc<Master>) {
    loop {
        master.runtime.sleep(SESSIONS_INTERVAL).await;
        let silent = master.sessions.lock().silent(master.runtime.now(), master.settings.session_silence_max);
        for session in silent {
            tracing::info!(%session, "a session was silent for too long and is ended");
            report("ending a session", master.end_session(session).await);
        }
        // Whoever holds what others want has less time: leases are recalled, locks can only be waited for.
        let silent = master.sessions.lock().silent(master.runtime.now(), master.settings.fencing_time);
        for session in silent.into_iter().filter(|session| master.locks.lock().is_wanted(*session)) {
            tracing::warn!(%session, "a client is silent that holds locks which others want, and is fenced");
            report("fencing a client", master.end_session(session).await);
        }
    }
}

async fn remove_extents(master: Arc<Master>) {
    loop {
        master.runtime.sleep(SHRINK_INTERVAL).await;
        report("removing extents", remove_extents_once(&master).await);
    }
}

/// One step for each file in turn, until none is left.
async fn remove_extents_once(master: &Master) -> Result<(), MasterError> {
    loop {
        let files = master.look(|reader| read::shrinking(reader, SHRINKING_FILES_MAX))?;
        if files.is_empty() {
            return Ok(());
        }
        for ino in files {
            master.step(Command::Shrink { ino }).await?;
            yield_now().await;
        }
    }
}

impl Master {
    /// Submits a command once, even if there is more to do.
    async fn step(&self, command: Command) -> Result<(), MasterError> {
        self.store.admit().await.map_err(unavailable)?;
        let at = self.store.next_time(self.runtime.wall());
        let (outcome, _) = self.store.submit(&Stamped { at, command }).map_err(unavailable)?;
        match outcome {
            Outcome::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }
}

async fn collect_chunks(master: Arc<Master>) {
    // Should the tables be broken, the master is about to stop.
    let grace = master.look(Rules::of).unwrap_or_default().deletion_grace;
    loop {
        master.runtime.sleep(grace / COLLECTIONS_PER_GRACE).await;
        report("collecting chunks", collector::collect(&master).await);
    }
}
