//! close(2), fsync(2), and fsync of a directory. What each promises is in docs/semantics.md.

use super::start::FileSystem;
use super::types::Handle;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::planted::{Bug, is_planted};
use std::sync::atomic::Ordering;

impl FileSystem {
    /// For close(2): what was written to the file is with the chunkservers and the master when this returns. An error is told
    /// once per handle.
    pub async fn flush(&self, handle: Handle) -> Result<(), FsError> {
        let open = self.0.handles.file(handle)?;
        let mut result = Ok(());
        if self.needs_flush(handle) {
            result = open.file.flush().await;
            if is_planted(Bug::FlushErrorSwallowed) {
                return Ok(());
            }
            open.has_written.store(open.file.has_dirty(), Ordering::Relaxed);
        }
        match open.file.take_error(&open.descriptor) {
            Some(error) => Err(error),
            None => result,
        }
    }

    /// For fsync(2): what was written to the file, and every change of the namespace that returned before, is on stable
    /// storage when this returns. Data alone (fdatasync) is no cheaper: one log holds everything that a reader needs.
    pub async fn fsync(&self, handle: Handle, _data_only: bool) -> Result<(), FsError> {
        let open = self.0.handles.file(handle)?;
        let mark = self.0.link.mark();
        let result = open.file.sync().await;
        open.has_written.store(open.file.has_dirty(), Ordering::Relaxed);
        if let Some(error) = open.file.take_error(&open.descriptor) {
            return Err(error);
        }
        result?;
        if is_planted(Bug::CommitNotDurable) {
            return Ok(());
        }
        self.0.link.sync_log_since(mark).await.map_err(|error| error.to_fs("fsync"))?;
        self.nothing_was_lost(open.file.ino())
    }

    /// EIO, once, if the master has lost power and with it something that it had answered.
    fn nothing_was_lost(&self, ino: Ino) -> Result<(), FsError> {
        if self.0.link.take_lost(ino) { Err(FsError::Io) } else { Ok(()) }
    }

    /// For fsync(2) of a directory: every change of its entries is on stable storage when this returns.
    pub async fn sync_directory(&self, ino: Ino) -> Result<(), FsError> {
        // One log holds all directories.
        let mark = self.0.link.mark();
        self.0.link.sync_log_since(mark).await.map_err(|error| error.to_fs("fsync of a directory"))?;
        self.nothing_was_lost(ino)
    }
}
