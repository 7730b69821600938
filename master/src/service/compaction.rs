//! Who rewrites what. Clients ask for work, one piece at a time; what was given away is not given to others for a while. None of it is
//! remembered over a restart: two who rewrite the same do no harm.
//!
//! | the first that is due | what is given |
//! |---|---|
//! | a window with many extents | its extents |
//! | a mostly dead chunk | what is left of it, and of others in the same files, as much as fits a chunk |
//!
//! When disks are nearly full, windows wait: their rewrite takes room until the old chunks are deleted. That of a mostly dead chunk
//! takes less than it frees.

use super::connections::Caller;
use super::master::{Master, yield_now};
use crate::state::Command;
use crate::state::compaction::{self, Gathered};
use crate::state::record::{Span, WindowName};
use cairn_common::collections::FastSet;
use cairn_common::ids::{ChunkId, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{CompactionStatus, CompactionWork, MasterError, MasterReply, MutationReply, Usage};
use cairn_runtime::clock::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// For how long work is left to whom it was given.
const LEASE: Duration = Duration::from_secs(60);
/// Pieces of either kind that may be given away at the same time.
const WINDOWS_LEASED_MAX: usize = 256;
const CHUNKS_LEASED_MAX: usize = 8192;
/// Windows that are looked at for one request: some are not worth a rewrite.
const WINDOWS_PER_CALL: usize = 16;
/// Mostly dead chunks that are looked for at the same time.
const CHUNKS_PER_SWEEP: usize = 1024;
/// Extents that are looked at in one turn, and for one request; the next request goes on from there.
const ROWS_PER_TURN: usize = 512;
const ROWS_PER_CALL: usize = 128 << 10;
/// Counted no further than this.
const WAITING_COUNTED_MAX: usize = 10_000;
/// Windows wait while less than this part of the space is free.
const FREE_PART_MIN: u64 = 10;

/// A look through a span of extents for all that is left of some chunks.
struct Sweep {
    wanted: FastSet<ChunkId>,
    found: FastSet<ChunkId>,
    rest: Span,
}

/// What was given away, and what came of it.
#[derive(Default)]
pub struct Desk {
    windows: BTreeMap<WindowName, (SessionId, Moment)>,
    chunks: BTreeMap<ChunkId, Moment>,
    /// Not at their end yet.
    sweeps: Vec<Sweep>,
    done: CompactionStatus,
}

impl Desk {
    /// The session wants more.
    fn begin(&mut self, session: SessionId, done: bool, now: Moment) {
        self.windows.retain(|_, (holder, until)| *until > now && !(done && *holder == session));
        self.chunks.retain(|_, until| *until > now);
    }

    /// A rewrite was published.
    pub fn note(&mut self, reply: &MutationReply) {
        if let MutationReply::Compacted { bytes, stale_bytes } = reply {
            self.done.compactions += 1;
            self.done.bytes_rewritten += bytes;
            self.done.bytes_stale += stale_bytes;
        }
    }
}

impl Master {
    pub(super) async fn compaction_work(&self, caller: &Caller, session: SessionId, done: bool) -> Result<MasterReply, MasterError> {
        self.hear(caller, session)?;
        self.desk.lock().begin(session, done, self.runtime.now());
        let first_due = |due: Option<Timestamp>| due.map_or(i64::MAX, |due| due.nanos());
        let window_due = self.look(|reader| compaction::waiting_windows(reader, 1))?.first().map(|(due, _)| *due);
        let chunk_due = self.look(|reader| compaction::waiting_chunks(reader, 1))?.first().map(|(due, _)| *due);
        let chunks_first = first_due(chunk_due) < first_due(window_due);
        for is_chunks in [chunks_first, !chunks_first] {
            let work = if is_chunks { self.what_is_left_of_chunks().await? } else { self.fragmented_window(session).await? };
            if work.is_some() {
                return Ok(MasterReply::CompactionWork(work));
            }
        }
        Ok(MasterReply::CompactionWork(None))
    }

    /// The window that has been due for the longest time.
    async fn fragmented_window(&self, session: SessionId) -> Result<Option<CompactionWork>, MasterError> {
        if self.is_nearly_full()? {
            return Ok(None);
        }
        let mut idle: Vec<WindowName> = Vec::new();
        let mut given = None;
        while idle.len() < WINDOWS_PER_CALL && given.is_none() {
            let Some(name) = self.due_window(&idle)? else { break };
            match self.look(|reader| compaction::window_work(reader, name))? {
                Some(work) => {
                    let until = self.runtime.now().plus(LEASE);
                    self.desk.lock().windows.insert(name, (session, until));
                    given = Some(work);
                }
                None => idle.push(name),
            }
        }
        if !idle.is_empty() {
            self.submit(Command::PassOver { windows: idle, chunks: Vec::new() }).await?;
        }
        Ok(given)
    }

    fn due_window(&self, idle: &[WindowName]) -> Result<Option<WindowName>, MasterError> {
        let now = self.time();
        let desk = self.desk.lock();
        if desk.windows.len() >= WINDOWS_LEASED_MAX {
            return Ok(None);
        }
        let waiting = self.look(|reader| compaction::waiting_windows(reader, desk.windows.len() + idle.len() + 1))?;
        let is_free = |name: &WindowName| !desk.windows.contains_key(name) && !idle.contains(name);
        Ok(waiting.into_iter().filter(|(due, _)| *due <= now).map(|(_, name)| name).find(is_free))
    }

    /// What is left of mostly dead chunks: as much as fits a chunk, or is found within one request.
    async fn what_is_left_of_chunks(&self) -> Result<Option<CompactionWork>, MasterError> {
        let (mut gathered, mut rows) = (Gathered::default(), 0);
        while !gathered.is_full && rows < ROWS_PER_CALL {
            let Some(mut sweep) = self.next_sweep()? else { break };
            let mut is_over = false;
            while !is_over && !gathered.is_full && rows < ROWS_PER_CALL {
                rows += ROWS_PER_TURN;
                is_over = self.sweep_on(&mut sweep, &mut gathered)?;
                yield_now().await;
            }
            if is_over {
                self.end_sweep(sweep).await?;
            } else {
                self.desk.lock().sweeps.push(sweep);
            }
        }
        let work = |reader: &dyn crate::store::tables::Reader| compaction::work(reader, gathered.files);
        if gathered.extents == 0 { Ok(None) } else { self.look(work).map(Some) }
    }

    /// One turn of a sweep. Whether it is at its end.
    fn sweep_on(&self, sweep: &mut Sweep, gathered: &mut Gathered) -> Result<bool, MasterError> {
        let next = self.look(|reader| compaction::gather(reader, &sweep.wanted, sweep.rest, ROWS_PER_TURN, gathered))?;
        sweep.found.extend(gathered.files.iter().flat_map(|file| &file.extents).map(|extent| extent.chunk));
        next.into_iter().for_each(|next| sweep.rest.first = next);
        Ok(next.is_none())
    }

    /// Chunks of which nothing was found are not looked for again soon.
    async fn end_sweep(&self, sweep: Sweep) -> Result<(), MasterError> {
        let chunks: Vec<ChunkId> = sweep.wanted.difference(&sweep.found).copied().collect();
        if !chunks.is_empty() {
            self.submit(Command::PassOver { windows: Vec::new(), chunks }).await?;
        }
        Ok(())
    }

    /// A sweep to go on with: one that was begun, or a new one for the chunk that has been due for the longest time, and for all others
    /// whose files are among those that may name it.
    fn next_sweep(&self) -> Result<Option<Sweep>, MasterError> {
        let (now, time) = (self.runtime.now(), self.time());
        let mut desk = self.desk.lock();
        if let Some(sweep) = desk.sweeps.pop() {
            return Ok(Some(sweep));
        }
        let room = CHUNKS_LEASED_MAX.saturating_sub(desk.chunks.len()).min(CHUNKS_PER_SWEEP);
        let due = self.look(|reader| {
            let waiting = compaction::waiting_chunks(reader, desk.chunks.len() + room)?;
            let due = waiting.into_iter().filter(|(due, id)| *due <= time && !desk.chunks.contains_key(id)).take(room);
            let spans = due.map(|(_, id)| Ok(compaction::span_of(reader, id)?.map(|span| (id, span))));
            spans.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
        })?;
        let Some((_, first)) = due.first().copied() else { return Ok(None) };
        let inodes = first.first.ino..=first.last.ino;
        let (mut wanted, mut rest) = (FastSet::default(), first);
        for (id, span) in due.into_iter().filter(|(_, span)| inodes.contains(&span.first.ino) && inodes.contains(&span.last.ino)) {
            wanted.insert(id);
            rest = rest.and(span);
            desk.chunks.insert(id, now.plus(LEASE));
        }
        Ok(Some(Sweep { wanted, found: FastSet::default(), rest }))
    }

    fn is_nearly_full(&self) -> Result<bool, MasterError> {
        let Usage { total_bytes, free_bytes, .. } = self.usage()?;
        Ok(free_bytes < total_bytes / FREE_PART_MIN)
    }

    pub(super) fn compaction_status(&self) -> Result<CompactionStatus, MasterError> {
        let usage = self.look(compaction::extent_usage)?;
        let windows_waiting = self.look(|reader| compaction::waiting_windows(reader, WAITING_COUNTED_MAX))?.len() as u64;
        let chunks_waiting = self.look(|reader| compaction::waiting_chunks(reader, WAITING_COUNTED_MAX))?.len() as u64;
        let done = self.desk.lock().done;
        Ok(CompactionStatus { extents: usage.extents, extent_bytes: usage.bytes, windows_waiting, chunks_waiting, ..done })
    }
}
