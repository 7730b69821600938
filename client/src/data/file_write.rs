//! Writing: bytes are copied to the file's open run; a run that is full goes its way at once.

use super::budget::Charge;
use super::file::FileData;
use super::written::{Placed, WrittenData};
use cairn_common::buffer::Buffer;
use cairn_common::error::FsError;
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_runtime::clock::Moment;
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

    /// The same without a copy, for a buffer that fills a chunk of its own. Gives it back if that is not possible: then it is to be written as all else.
    pub fn try_adopt(self: &Arc<Self>, offset: u64, data: Buffer) -> Result<Result<usize, FsError>, Buffer> {
        let mut rejected = None;
        let written = self.place(offset, data.len(), &mut Charge::default(), |written, now, chunk_bytes_max, take_memory| {
            written.adopt(offset, data, now, chunk_bytes_max, take_memory).unwrap_or_else(|data| {
                rejected = Some(data);
                Placed::default()
            })
        });
        match rejected {
            Some(data) => Err(data),
            None => Ok(written.map(|placed| placed.bytes)),
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

    /// Writes as much as there is memory for: `memory` first, then what is free.
    fn write_some(self: &Arc<Self>, offset: u64, data: &[u8], memory: &mut Charge) -> Result<Placed, FsError> {
        self.place(offset, data.len(), memory, |written, now, chunk_bytes_max, take_memory| {
            written.write(offset, data, now, chunk_bytes_max, take_memory)
        })
    }

    /// Has `put` place up to `len` bytes, and sends what is full on its way.
    fn place(
        self: &Arc<Self>,
        offset: u64,
        len: usize,
        memory: &mut Charge,
        put: impl FnOnce(&mut WrittenData, Moment, usize, &mut dyn FnMut(usize) -> Option<Charge>) -> Placed,
    ) -> Result<Placed, FsError> {
        if offset.checked_add(len as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(FsError::FileTooLarge);
        }
        let core = self.core();
        let chunk_bytes_max = core.chunk_bytes_max(self.pool());
        let mut take_memory = |bytes: usize| memory.split(bytes).or_else(|| core.budget.try_take(bytes));
        let mut state = self.state.lock();
        if let Some(error) = state.written.newest_run().and_then(|newest| state.written.failure(newest)) {
            return Err(error);
        }
        let mut placed = put(&mut state.written, core.runtime.now(), chunk_bytes_max, &mut take_memory);
        if placed.bytes > 0 {
            state.size = state.size.max(offset + placed.bytes as u64);
            state.mtime = core.runtime.wall();
            self.list(&mut state);
        }
        drop(state);
        core.counts.written_bytes.add(placed.bytes as u64);
        for run in std::mem::take(&mut placed.full) {
            core.put_full_run(self, run);
        }
        Ok(placed)
    }
}
