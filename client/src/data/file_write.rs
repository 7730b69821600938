//! Writing: bytes are copied to the file's open run; a run that is full goes its way at once.

use super::budget::Charge;
use super::file::{FileData, FileState};
use super::prepare::HashedChunk;
use super::put_job::PutContent;
use super::written::Placed;
use cairn_common::error::FsError;
use cairn_common::limits::FILE_BYTES_MAX;
use parking_lot::MutexGuard;
use std::sync::Arc;

impl FileData {
    /// Writes without waiting. `None` if there is no memory at the moment: call [`write`](Self::write) with the same data (some of it may
    /// have been taken already, which is harmless). Answers with the number of bytes, which is always all.
    pub fn try_write(self: &Arc<Self>, offset: u64, data: &[u8]) -> Option<Result<usize, FsError>> {
        match self.write_some(offset, data, &mut Charge::default()) {
            Ok(Placed { need_bytes: 0, .. }) => Some(Ok(data.len())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Writes, waiting for memory if need be. Answers with the number of bytes, which is always all.
    ///
    /// Fails with `FileTooLarge`, or, while earlier data of the file can't be stored, with the reason for that.
    pub async fn write(self: &Arc<Self>, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let mut memory = Charge::default();
        let mut done = 0;
        let errors = self.state.lock().errors;
        loop {
            let placed = self.write_some(offset + done as u64, &data[done..], &mut memory)?;
            done += placed.bytes;
            if placed.need_bytes == 0 {
                return Ok(done);
            }
            // Who waits must not hold what others wait for.
            drop(std::mem::take(&mut memory));
            memory = self.core().budget.take(placed.need_bytes).await;
            // Room may have come from data of this very file that was given up.
            let state = self.state.lock();
            if let Some(error) = state.error.filter(|_| state.errors > errors) {
                return Err(error);
            }
        }
    }

    /// The same of a chunk that was hashed already: one that is as long as chunks of the file's pool get is taken over as it is, without a copy.
    pub async fn write_chunk(self: &Arc<Self>, offset: u64, chunk: HashedChunk) -> Result<usize, FsError> {
        let (core, len) = (self.core(), chunk.bytes.len());
        if len != core.chunk_bytes_max(self.pool()) {
            return self.write(offset, &chunk.bytes).await;
        }
        let charge = core.budget.take(len).await;
        let adopted = {
            let mut state = self.begin_write(offset, len)?;
            let adopted = state.written.adopt(offset, chunk.bytes.clone(), charge);
            if adopted.is_some() {
                self.end_write(&mut state, offset, len);
            }
            adopted
        };
        match adopted {
            Some(run) => {
                core.put_run(self, run, PutContent::Hashed(chunk));
                Ok(len)
            }
            None => self.write(offset, &chunk.bytes).await,
        }
    }

    /// Writes as much as there is memory for: `memory` first, then what is free.
    fn write_some(self: &Arc<Self>, offset: u64, data: &[u8], memory: &mut Charge) -> Result<Placed, FsError> {
        let core = self.core();
        let chunk_bytes_max = core.chunk_bytes_max(self.pool());
        let mut take_memory = |bytes: usize| memory.split(bytes).or_else(|| core.budget.try_take(bytes));
        let mut state = self.begin_write(offset, data.len())?;
        let mut placed = state.written.write(offset, data, core.runtime.now(), chunk_bytes_max, &mut take_memory);
        if placed.bytes > 0 {
            self.end_write(&mut state, offset, placed.bytes);
        }
        drop(state);
        for run in std::mem::take(&mut placed.full) {
            core.put_run(self, run.run, PutContent::Parts(run.parts));
        }
        Ok(placed)
    }

    fn begin_write(&self, offset: u64, len: usize) -> Result<MutexGuard<'_, FileState>, FsError> {
        if offset.checked_add(len as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let state = self.state.lock();
        match state.written.newest_run().and_then(|newest| state.written.failure(newest)) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    fn end_write(self: &Arc<Self>, state: &mut FileState, offset: u64, len: usize) {
        let core = self.core();
        state.size = state.size.max(offset + len as u64);
        state.mtime = core.runtime.wall();
        self.list(state);
        core.counts.written_bytes.add(len as u64);
    }
}
