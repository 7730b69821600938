//! The written and not yet committed bytes of one file: an open run that writes fill, and sealed runs on their way to the
//! master. No I/O, no clock.
//!
//! Life of a run: open -> (sealed) putting -> put -> committed and forgotten; putting -> failed -> putting again, or abandoned.
//! Invariants: run ids grow; the open run's id is above all sealed ones; each dirty piece lies in a run that is here; runs
//! are committed in order, so that of two writes to the same bytes the later one is the last to reach the master.

use super::budget::Charge;
use super::chunk_writer::{PutChunk, PutChunks};
use super::dirty::{DirtyMap, Piece, RunId};
use super::limits::{RUN_BYTES_FIRST, RUN_EXTENTS_MAX, RUN_GROWTH};
use super::pack::RunShape;
use super::put_job::PutJob;
use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::error::FsError;
use cairn_common::extent::{Extent, NewChunk};
use cairn_common::ids::ChunkId;
use cairn_runtime::clock::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// The run that writes go to.
struct OpenRun {
    id: RunId,
    buffer: Buffer,
    used: usize,
    charge: Charge,
    /// When its first byte was written.
    since: Moment,
    /// Upper bound of the pieces in it.
    appends: usize,
    /// How far the file reached by these writes; kept when they are punched out, for a hole does not shorten the file.
    end: u64,
}

/// A range of a file that a sealed run brings, and where it is in the run's part of the pack.
#[derive(Debug, Clone, Copy)]
struct RunExtent {
    file_offset: u64,
    bytes: u32,
    pack_offset: u32,
}

/// How far a sealed run has come.
enum RunState {
    Putting,
    Put(Arc<PutChunks>),
    Failed(FsError),
}

/// A run that takes no more writes.
struct SealedRun {
    id: RunId,
    bytes: Bytes,
    extents: Vec<RunExtent>,
    /// See `OpenRun::end`.
    end: u64,
    /// Where this run's part of the pack begins.
    pack_base: u32,
    job: Option<Arc<PutJob>>,
    state: RunState,
    /// Given back when the run is forgotten.
    _charge: Charge,
}

/// What the packer needs of a run that was just sealed.
pub struct RunParts {
    pub run: RunId,
    pub shape: RunShape,
    /// Its live bytes, in the order of the file.
    pub parts: Vec<Bytes>,
}

/// How far a write came.
#[derive(Default)]
pub struct Placed {
    pub bytes: usize,
    /// Runs that it filled.
    pub full: Vec<RunParts>,
    /// Memory that is missing for the rest; 0 if nothing is left.
    pub need_bytes: usize,
}

/// What a commit says of one file.
pub struct FileUpdate {
    pub runs: Vec<RunId>,
    pub extents: Vec<Extent>,
    pub chunks: BTreeMap<ChunkId, NewChunk>,
    /// How far the file reaches by these writes.
    pub end: u64,
}

/// The written data of one file.
#[derive(Default)]
pub struct WrittenData {
    dirty: DirtyMap,
    open: Option<OpenRun>,
    sealed: VecDeque<SealedRun>,
    last_run: u64,
    /// Whether the last run was filled to the end: then the next one is likely to be, too.
    streams: bool,
}

impl WrittenData {
    /// Nothing is here that the master has not.
    pub fn is_clean(&self) -> bool {
        self.sealed.is_empty() && self.open.is_none()
    }

    /// How far the file reaches by what is here.
    pub fn end(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |run| run.end);
        self.sealed.iter().map(|run| run.end).fold(open, u64::max)
    }

    /// The newest run that holds anything; what a flush must wait for.
    pub fn newest_run(&self) -> Option<RunId> {
        self.open.as_ref().map(|run| run.id).or(self.sealed.back().map(|run| run.id))
    }

    pub fn has_open_run(&self) -> bool {
        self.open.is_some()
    }

    /// When the oldest byte of the open run was written.
    pub fn open_since(&self) -> Option<Moment> {
        self.open.as_ref().map(|run| run.since)
    }

    /// Memory that the open run has taken.
    pub fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |run| run.charge.bytes())
    }

    /// Why a run up to `last` failed.
    pub fn failure(&self, last: RunId) -> Option<FsError> {
        self.sealed.iter().take_while(|run| run.id <= last).find_map(|run| match run.state {
            RunState::Failed(error) => Some(error),
            RunState::Putting | RunState::Put(_) => None,
        })
    }

    /// Whether all runs up to `last` are committed (or abandoned).
    pub fn is_committed(&self, last: RunId) -> bool {
        self.sealed.front().is_none_or(|run| run.id > last) && self.open.as_ref().is_none_or(|run| run.id > last)
    }

    /// Whether all runs up to `last` are with the chunkservers.
    pub fn is_put(&self, last: RunId) -> bool {
        let sealed = self.sealed.iter().take_while(|run| run.id <= last).all(|run| matches!(run.state, RunState::Put(_)));
        sealed && self.open.as_ref().is_none_or(|run| run.id > last)
    }

    /// Takes as much of `data` as memory allows. Writing the same again is harmless.
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        now: Moment,
        chunk_bytes_max: usize,
        take_memory: &mut dyn FnMut(usize) -> Option<Charge>,
    ) -> Placed {
        let mut placed = Placed::default();
        while placed.bytes < data.len() {
            let position = offset + placed.bytes as u64;
            let rest = &data[placed.bytes..];
            placed.bytes += match self.in_open_run(position..position + rest.len() as u64) {
                Some(piece) if piece.file_offset == position => self.overwrite(piece, rest),
                next => {
                    let gap = next.map_or(rest.len(), |piece| (piece.file_offset - position) as usize);
                    match self.append(position, &rest[..gap], now, chunk_bytes_max, take_memory) {
                        Ok(bytes) => bytes,
                        Err(need_bytes) => return Placed { need_bytes, ..placed },
                    }
                }
            };
            if let Some(open) = self.open.as_ref().filter(|run| run.is_full(chunk_bytes_max)) {
                let streams = open.used >= chunk_bytes_max;
                placed.full.extend(self.seal_open());
                self.streams = streams;
            }
        }
        placed
    }

    /// Takes over the bytes of a whole chunk as a sealed run of their own, without a copy. `None` if a run is open, which comes first.
    pub fn adopt(&mut self, offset: u64, bytes: Bytes, charge: Charge) -> Option<RunId> {
        if self.open.is_some() {
            return None;
        }
        self.last_run += 1;
        let run = RunId(self.last_run);
        let piece = Piece { file_offset: offset, bytes: bytes.len() as u32, run, run_offset: 0 };
        let extent = RunExtent { file_offset: offset, bytes: piece.bytes, pack_offset: 0 };
        let empty = SealedRun::empty(run, piece.file_end());
        self.sealed.push_back(SealedRun { bytes, extents: vec![extent], state: RunState::Putting, _charge: charge, ..empty });
        self.dirty.insert(piece);
        Some(run)
    }

    /// The first part of a range that the open run holds.
    fn in_open_run(&self, range: Range<u64>) -> Option<Piece> {
        let open = self.open.as_ref()?.id;
        self.dirty.within(range).find(|piece| piece.run == open)
    }

    fn overwrite(&mut self, piece: Piece, data: &[u8]) -> usize {
        let len = data.len().min(piece.bytes as usize);
        if let Some(open) = &mut self.open {
            let start = piece.run_offset as usize;
            open.buffer[start..start + len].copy_from_slice(&data[..len]);
        }
        len
    }

    /// Appends some of `data` to the open run; `Err` is the memory it takes to go on.
    fn append(
        &mut self,
        offset: u64,
        data: &[u8],
        now: Moment,
        chunk_bytes_max: usize,
        take_memory: &mut dyn FnMut(usize) -> Option<Charge>,
    ) -> Result<usize, usize> {
        let used = self.open.as_ref().map_or(0, |run| run.used);
        let capacity = self.open.as_ref().map_or(0, |run| run.buffer.len());
        if used == capacity {
            let wanted = if self.streams { chunk_bytes_max } else { capacity_for(used + data.len(), chunk_bytes_max) };
            let charge = take_memory(wanted - capacity).ok_or(wanted - capacity)?;
            self.enlarge(wanted, charge, now);
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        let len = data.len().min(open.buffer.len() - open.used);
        open.buffer[open.used..open.used + len].copy_from_slice(&data[..len]);
        let piece = Piece { file_offset: offset, bytes: len as u32, run: open.id, run_offset: open.used as u32 };
        open.used += len;
        open.appends += 1;
        open.end = open.end.max(piece.file_end());
        self.dirty.insert(piece);
        Ok(len)
    }

    fn enlarge(&mut self, capacity: usize, charge: Charge, now: Moment) {
        let mut buffer = Buffer::with_len(capacity);
        match &mut self.open {
            Some(open) => {
                buffer[..open.used].copy_from_slice(&open.buffer[..open.used]);
                open.buffer = buffer;
                open.charge.merge(charge);
            }
            None => {
                self.last_run += 1;
                self.open = Some(OpenRun { id: RunId(self.last_run), buffer, used: 0, charge, since: now, appends: 0, end: 0 });
            }
        }
    }

    /// Seals the open run. `None` if nothing of it needs to be put; it may still have to be committed, for the size.
    pub fn seal_open(&mut self) -> Option<RunParts> {
        let mut open = self.open.take()?;
        self.streams = false;
        let pieces: Vec<Piece> = self.dirty.iter().filter(|piece| piece.run == open.id).copied().collect();
        let live_bytes = pieces.iter().map(|piece| piece.bytes as usize).sum();
        if live_bytes == 0 {
            self.sealed.push_back(SealedRun::empty(open.id, open.end));
            return None;
        }
        let shape = RunShape { live_bytes, run_bytes: open.used, extents: pieces.len() };
        open.buffer.truncate(open.used);
        let bytes = open.buffer.freeze();
        let (extents, parts) = if shape.is_own_chunk() {
            let extent = |piece: &Piece| RunExtent { file_offset: piece.file_offset, bytes: piece.bytes, pack_offset: piece.run_offset };
            (pieces.iter().map(extent).collect(), vec![bytes.clone()])
        } else {
            gather(&pieces, &bytes)
        };
        let shape = RunShape { extents: extents.len(), ..shape };
        let empty = SealedRun::empty(open.id, open.end);
        self.sealed.push_back(SealedRun { bytes, extents, state: RunState::Putting, _charge: open.charge, ..empty });
        Some(RunParts { run: open.id, shape, parts })
    }

    /// The dirty parts of a range, in order.
    pub fn read(&self, range: Range<u64>) -> Vec<(Range<u64>, Bytes)> {
        let bytes_of = |piece: Piece| {
            let place = piece.run_offset as usize..piece.run_offset as usize + piece.bytes as usize;
            let bytes = match &self.open {
                Some(open) if open.id == piece.run => Some(Buffer::copy_of(&open.buffer[place]).freeze()),
                _ => self.sealed_run(piece.run).map(|run| run.bytes.slice(place)),
            };
            bytes.map(|bytes| (piece.file_offset..piece.file_end(), bytes))
        };
        self.dirty.within(range).filter_map(bytes_of).collect()
    }

    /// The dirty ranges within a range, in order.
    pub fn ranges(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.dirty.within(range).map(|piece| piece.file_offset..piece.file_end())
    }

    /// The range has become a hole: what was written there before must not reach the master any more.
    pub fn punch(&mut self, range: Range<u64>) {
        self.dirty.remove(range.clone());
        for run in &mut self.sealed {
            run.extents = run.extents.iter().flat_map(|extent| extent.without(&range)).collect();
        }
    }

    /// The file was cut: what was written beyond `size` before must not reach the master any more.
    pub fn truncate(&mut self, size: u64) {
        self.punch(size..u64::MAX);
        self.sealed.iter_mut().for_each(|run| run.end = run.end.min(size));
        if let Some(open) = &mut self.open {
            open.end = open.end.min(size);
            let id = open.id;
            if !self.dirty.iter().any(|piece| piece.run == id) {
                self.open = None;
            }
        }
    }

    fn sealed_run(&self, id: RunId) -> Option<&SealedRun> {
        self.sealed.binary_search_by_key(&id, |run| run.id).ok().map(|at| &self.sealed[at])
    }

    fn sealed_run_mut(&mut self, id: RunId) -> Option<&mut SealedRun> {
        self.sealed.binary_search_by_key(&id, |run| run.id).ok().map(|at| &mut self.sealed[at])
    }

    /// The run is part of a job, from `pack_base` on.
    pub fn assign(&mut self, id: RunId, job: Arc<PutJob>, pack_base: u32) {
        if let Some(run) = self.sealed_run_mut(id) {
            run.job = Some(job);
            run.pack_base = pack_base;
        }
    }

    /// The run's job is under way (again).
    pub fn put_started(&mut self, id: RunId) {
        if let Some(run) = self.sealed_run_mut(id) {
            run.state = RunState::Putting;
        }
    }

    /// The run's job has ended. Whether the run still exists.
    pub fn put_ended(&mut self, id: RunId, result: Result<Arc<PutChunks>, FsError>) -> bool {
        let Some(run) = self.sealed_run_mut(id) else { return false };
        run.state = match result {
            Ok(chunks) => RunState::Put(chunks),
            Err(error) => RunState::Failed(error),
        };
        true
    }

    /// Commits of these runs failed.
    pub fn commit_failed(&mut self, runs: &[RunId], error: FsError) {
        for id in runs {
            self.put_ended(*id, Err(error));
        }
    }

    /// The jobs of failed runs.
    pub fn failed_jobs(&self) -> Vec<Arc<PutJob>> {
        let failed = self.sealed.iter().filter(|run| matches!(run.state, RunState::Failed(_)));
        failed.filter_map(|run| run.job.clone()).collect()
    }

    /// The jobs of these runs.
    pub fn jobs(&self, runs: &[RunId]) -> Vec<Arc<PutJob>> {
        runs.iter().filter_map(|id| self.sealed_run(*id)?.job.clone()).collect()
    }

    /// Gives failed runs up: their bytes are gone. How many bytes.
    pub fn abandon_failed(&mut self) -> u64 {
        let (failed, kept): (VecDeque<_>, _) =
            std::mem::take(&mut self.sealed).into_iter().partition(|run| matches!(run.state, RunState::Failed(_)));
        self.sealed = kept;
        self.forget(failed)
    }

    /// Gives everything up: the file is gone.
    pub fn abandon_all(&mut self) {
        *self = Self { last_run: self.last_run, ..Self::default() };
    }

    /// Whether no run is sealed: the next one to be put is the only one.
    pub fn has_sealed_runs(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// How many runs are put and next to be committed, and their bytes.
    pub fn ready_runs(&self) -> (usize, usize) {
        let ready = self.sealed.iter().take_while(|run| matches!(run.state, RunState::Put(_)));
        ready.fold((0, 0), |(runs, bytes), run| (runs + 1, bytes + run.bytes.len()))
    }

    /// The oldest runs, if they are put: as many as have at most `extents_max` extents together, but at least one.
    pub fn ready_for_commit(&self, extents_max: usize) -> Vec<RunId> {
        let mut extents = 0;
        let mut ready = Vec::new();
        for run in &self.sealed {
            let RunState::Put(chunks) = &run.state else { break };
            // A cut between two chunks may split an extent.
            extents += run.extents.len() + chunks.0.len();
            if !ready.is_empty() && extents > extents_max {
                break;
            }
            ready.push(run.id);
        }
        ready
    }

    /// What a commit of these runs, all of them put, says. Where they overlap, the newest counts.
    pub fn update(&self, runs: &[RunId]) -> FileUpdate {
        let mut update = FileUpdate { runs: runs.to_vec(), extents: Vec::new(), chunks: BTreeMap::new(), end: 0 };
        let mut newest = DirtyMap::default();
        let mut chunks_of = BTreeMap::new();
        for run in runs.iter().filter_map(|id| self.sealed_run(*id)) {
            let RunState::Put(chunks) = &run.state else { continue };
            chunks_of.insert(run.id, chunks);
            update.end = update.end.max(run.end);
            for extent in &run.extents {
                let run_offset = run.pack_base + extent.pack_offset;
                newest.insert(Piece { file_offset: extent.file_offset, bytes: extent.bytes, run: run.id, run_offset });
            }
        }
        for piece in newest.iter() {
            for (extent, put) in chunks_of[&piece.run].extents(piece.file_offset, piece.run_offset, piece.bytes) {
                update.extents.push(extent);
                update.chunks.insert(put.chunk.info.id, put.chunk);
            }
        }
        update
    }

    /// The master has these runs, the oldest of all. Answers with the chunks they were put in.
    pub fn committed(&mut self, runs: &[RunId]) -> Vec<PutChunk> {
        let (done, rest) = std::mem::take(&mut self.sealed).into_iter().partition(|run| runs.contains(&run.id));
        self.sealed = rest;
        let done: VecDeque<SealedRun> = done;
        let chunks = done.iter().flat_map(|run| match &run.state {
            RunState::Put(chunks) => chunks.0.clone(),
            RunState::Putting | RunState::Failed(_) => Vec::new(),
        });
        let chunks = chunks.collect();
        self.forget(done);
        chunks
    }

    fn forget(&mut self, runs: VecDeque<SealedRun>) -> u64 {
        let mut bytes = 0;
        for run in runs {
            for extent in &run.extents {
                bytes += u64::from(extent.bytes);
                self.dirty.remove_run(extent.file_offset..extent.file_offset + u64::from(extent.bytes), run.id);
            }
        }
        bytes
    }
}

impl OpenRun {
    fn is_full(&self, chunk_bytes_max: usize) -> bool {
        self.used >= chunk_bytes_max || self.appends >= RUN_EXTENTS_MAX
    }
}

impl SealedRun {
    /// Without bytes: there is nothing to put.
    fn empty(id: RunId, end: u64) -> Self {
        let state = RunState::Put(Arc::default());
        Self { id, bytes: Bytes::new(), extents: Vec::new(), end, pack_base: 0, job: None, state, _charge: Charge::default() }
    }
}

impl RunExtent {
    /// What is left of this extent without a range.
    fn without(&self, range: &Range<u64>) -> impl Iterator<Item = RunExtent> + use<> {
        let extent = *self;
        let end = extent.file_offset + u64::from(extent.bytes);
        let rests = [extent.file_offset..range.start.min(end), range.end.max(extent.file_offset)..end];
        rests.into_iter().filter(|rest| rest.start < rest.end).map(move |rest| RunExtent {
            file_offset: rest.start,
            bytes: (rest.end - rest.start) as u32,
            pack_offset: extent.pack_offset + (rest.start - extent.file_offset) as u32,
        })
    }
}

/// Sorts live pieces of a run one after the other; neighbours in the file become one extent.
fn gather(pieces: &[Piece], bytes: &Bytes) -> (Vec<RunExtent>, Vec<Bytes>) {
    let mut extents: Vec<RunExtent> = Vec::new();
    let mut parts = Vec::with_capacity(pieces.len());
    let mut pack_offset = 0;
    for piece in pieces {
        let start = piece.run_offset as usize;
        parts.push(bytes.slice(start..start + piece.bytes as usize));
        match extents.last_mut() {
            Some(last) if last.file_offset + u64::from(last.bytes) == piece.file_offset => last.bytes += piece.bytes,
            _ => extents.push(RunExtent { file_offset: piece.file_offset, bytes: piece.bytes, pack_offset }),
        }
        pack_offset += piece.bytes;
    }
    (extents, parts)
}

/// The smallest buffer of the ladder that holds `bytes`.
fn capacity_for(bytes: usize, chunk_bytes_max: usize) -> usize {
    let mut capacity = RUN_BYTES_FIRST;
    while capacity < bytes && capacity < chunk_bytes_max {
        capacity *= RUN_GROWTH;
    }
    capacity.min(chunk_bytes_max)
}
