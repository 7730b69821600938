//! read(2) and write(2).

use super::handles::OpenFile;
use super::start::FileSystem;
use super::types::{Handle, WriteAt, Written};
use crate::data::HashedChunk;
use bytes::Bytes;
use cairn_common::error::FsError;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl FileSystem {
    /// Verified bytes from `offset` on; fewer than `len` only at the end of the file.
    pub async fn read(&self, handle: Handle, offset: u64, len: usize) -> Result<Bytes, FsError> {
        let open = self.readable(handle)?;
        self.freshen(&open.file).await?;
        let data = open.file.read(offset, len).await?;
        self.note_read(&open);
        Ok(data)
    }

    /// Takes all of `data`, or fails. Waits while the write buffer is full. A handle opened to append ignores `offset`.
    pub async fn write(&self, handle: Handle, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let at = self.usual_place(handle, offset)?;
        self.write_at(handle, at, data).await.map(|written| written.len)
    }

    /// The same, wherever the handle was opened to write to.
    pub async fn write_at(&self, handle: Handle, at: WriteAt, data: &[u8]) -> Result<Written, FsError> {
        let open = self.writable(handle).inspect_err(|_| self.let_go(handle))?;
        open.has_written.store(true, Ordering::Relaxed);
        match at {
            WriteAt::Offset(offset) => {
                let _writing = self.writing(&open.file).await?;
                open.file.write(offset, data).await.map(|len| Written { offset, len })
            }
            WriteAt::End | WriteAt::EndAndMore => {
                self.0.handles.append(&open).write(self, &open.file, data, at == WriteAt::EndAndMore).await
            }
        }
    }

    /// Writes a chunk that was hashed already; a whole one is not copied. Not for handles that append.
    pub async fn write_chunk(&self, handle: Handle, offset: u64, chunk: HashedChunk) -> Result<usize, FsError> {
        let open = self.writable(handle)?;
        open.has_written.store(true, Ordering::Relaxed);
        let _writing = self.writing(&open.file).await?;
        open.file.write_chunk(offset, chunk).await
    }

    /// Where a handle writes by the flags with which it was opened.
    pub(super) fn usual_place(&self, handle: Handle, offset: u64) -> Result<WriteAt, FsError> {
        let open = self.0.handles.file(handle)?;
        Ok(if open.flags.append { WriteAt::End } else { WriteAt::Offset(offset) })
    }

    /// What `try_write` has begun through a handle is not gone on with.
    fn let_go(&self, handle: Handle) {
        if let Ok(open) = self.0.handles.file(handle) {
            open.let_go_of_append();
        }
    }

    /// Something was read through a handle.
    pub(super) fn note_read(&self, open: &OpenFile) {
        if open.atime_is_due.load(Ordering::Relaxed) && open.atime_is_due.swap(false, Ordering::Relaxed) {
            self.0.access.note(open.ino(), self.0.runtime.wall());
        }
    }

    /// Takes what the kernel has kept for a while (pages of a shared mapping). It needs no lease, and must not wait for one: the kernel may hand it in because
    /// the lease is recalled. Whoever writes so has called nothing, and so has nothing that others must see.
    pub async fn write_back(&self, handle: Handle, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let open = self.writable(handle)?;
        open.has_written.store(true, Ordering::Relaxed);
        open.file.note_mapping();
        if let Some(session) = self.0.link.session() {
            open.file.adopt(session);
        }
        open.file.write(offset, data).await
    }

    pub(super) fn readable(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        usable(self.0.handles.file(handle)?, |open| open.flags.read)
    }

    pub(super) fn writable(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        usable(self.0.handles.file(handle)?, |open| open.flags.write)
    }
}

/// Whoever has lost a lock must not go on as if it had it.
fn usable(open: Arc<OpenFile>, may: impl Fn(&OpenFile) -> bool) -> Result<Arc<OpenFile>, FsError> {
    match () {
        () if !may(&open) => Err(FsError::BadHandle),
        () if open.victim.has_lost_locks() => Err(FsError::Io),
        () => Ok(open),
    }
}
