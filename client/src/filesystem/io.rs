//! read(2) and write(2).

use super::handles::OpenFile;
use super::start::FileSystem;
use super::types::Handle;
use bytes::Bytes;
use cairn_common::error::FsError;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl FileSystem {
    /// Verified bytes from `offset` on; fewer than `len` only at the end of the file.
    pub async fn read(&self, handle: Handle, offset: u64, len: usize) -> Result<Bytes, FsError> {
        self.readable(handle)?.file.read(offset, len).await
    }

    /// Takes all of `data`, or fails. Waits while the write buffer is full. A handle opened to append ignores `offset`.
    pub async fn write(&self, handle: Handle, offset: u64, data: &[u8]) -> Result<usize, FsError> {
        let open = self.writable(handle)?;
        open.has_written.store(true, Ordering::Relaxed);
        match &open.append {
            None => open.file.write(offset, data).await,
            Some(append) => append.write(&open.file, data).await,
        }
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
