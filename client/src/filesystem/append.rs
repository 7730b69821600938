//! Writes to the end of a file (O_APPEND). Those of one client take turns; while one finds out where the end is and takes its place there, its client
//! holds the write lease, so that nobody else moves the end.

use super::start::FileSystem;
use crate::cache::Writing;
use crate::data::FileData;
use cairn_common::error::FsError;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// Held while a write finds out where the end is and takes its place there. One per inode.
pub type AppendLock = tokio::sync::Mutex<()>;

/// A write that could not be finished without waiting. It keeps its place.
struct Begun {
    offset: u64,
    place: OwnedMutexGuard<()>,
    writing: Writing,
}

/// The appending side of one handle.
pub struct Append {
    lock: Arc<AppendLock>,
    begun: Mutex<Option<Begun>>,
}

impl Append {
    pub fn new(lock: Arc<AppendLock>) -> Self {
        Self { lock, begun: Mutex::new(None) }
    }

    /// `None` if it would have to wait; the next `write` of this handle must then be of the same data.
    pub fn try_write(&self, fs: &FileSystem, file: &Arc<FileData>, data: &[u8]) -> Option<Result<usize, FsError>> {
        let place = Arc::clone(&self.lock).try_lock_owned().ok()?;
        let writing = fs.try_writing(file)?;
        let offset = file.local_size();
        let written = file.try_write(offset, data);
        if written.is_none() {
            *self.begun.lock() = Some(Begun { offset, place, writing });
        }
        written
    }

    /// Gives up the place of a write that was begun.
    pub fn let_go(&self) {
        drop(self.begun.lock().take());
    }

    pub async fn write(&self, fs: &FileSystem, file: &Arc<FileData>, data: &[u8]) -> Result<usize, FsError> {
        let begun = self.begun.lock().take();
        let Begun { offset, place, writing } = match begun {
            Some(begun) => begun,
            None => {
                let place = Arc::clone(&self.lock).lock_owned().await;
                let writing = fs.writing(file).await?;
                Begun { offset: file.local_size(), place, writing }
            }
        };
        let written = file.write(offset, data).await;
        drop((writing, place));
        written
    }
}
