//! Writes to the end of a file (O_APPEND). Those of one client take turns; while one finds out where the end is and takes its place there, its client
//! holds the write lease, so that nobody else moves the end.
//!
//! The kernel hands over a long write in pieces, one after the other. Between these the lease is kept, so that no other client's record comes between. Those of
//! other processes on the same mount can't: the kernel holds a lock on the file during the whole call. So whatever append comes next is taken to be the next piece, but
//! only for a while if others wait for the lease.

use super::start::FileSystem;
use super::types::Written;
use crate::cache::Writing;
use crate::data::FileData;
use crate::limits::{APPEND_KEEPS_LEASE, APPEND_KEEPS_RECALLED};
use cairn_common::error::FsError;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

/// What those who append to an inode share.
#[derive(Default)]
pub struct Appenders {
    /// Held while a write finds out where the end is and takes its place there.
    turn: Arc<tokio::sync::Mutex<()>>,
    kept: Mutex<Kept>,
}

/// The lease between two pieces of a write.
#[derive(Default)]
struct Kept {
    /// Counts how often it was kept.
    number: u64,
    right: Option<Right>,
}

/// The right to write.
struct Right {
    _writing: Writing,
    /// Since when others wait for it, if it is recalled.
    recalled: Option<Moment>,
}

impl Appenders {
    /// The right to write, if it need not be waited for.
    fn right(&self, fs: &FileSystem, file: &FileData) -> Option<Right> {
        let kept = self.kept.lock().right.take();
        if let Some(writing) = fs.try_writing(file) {
            return Some(Right { _writing: writing, recalled: None });
        }
        let (kept, now) = (kept?, fs.0.runtime.now());
        let since = kept.recalled.unwrap_or(now);
        (now < since.plus(APPEND_KEEPS_RECALLED)).then_some(Right { recalled: Some(since), ..kept })
    }

    /// A writer may never come back (it was killed), and others wait.
    fn keep(self: &Arc<Self>, fs: &FileSystem, right: Right) {
        let number = {
            let mut kept = self.kept.lock();
            kept.number += 1;
            kept.right = Some(right);
            kept.number
        };
        let (this, pause) = (Arc::clone(self), fs.0.runtime.sleep(APPEND_KEEPS_LEASE));
        fs.0.runtime.spawn("keep a lease", async move {
            pause.await;
            let mut kept = this.kept.lock();
            if kept.number == number {
                kept.right = None;
            }
        });
    }
}

/// A write that could not be finished without waiting. It keeps its place.
struct Begun {
    offset: u64,
    place: OwnedMutexGuard<()>,
    right: Right,
}

/// The appending side of one handle.
pub struct Append {
    appenders: Arc<Appenders>,
    begun: Mutex<Option<Begun>>,
}

impl Append {
    pub fn new(appenders: Arc<Appenders>) -> Self {
        Self { appenders, begun: Mutex::new(None) }
    }

    /// `None` if it would have to wait; the next `write` of this handle must then be of the same data.
    pub fn try_write(&self, fs: &FileSystem, file: &Arc<FileData>, data: &[u8], has_more: bool) -> Option<Result<Written, FsError>> {
        let place = Arc::clone(&self.appenders.turn).try_lock_owned().ok()?;
        let right = self.appenders.right(fs, file)?;
        let offset = file.local_size();
        let Some(written) = file.try_write(offset, data) else {
            *self.begun.lock() = Some(Begun { offset, place, right });
            return None;
        };
        Some(self.end(fs, Begun { offset, place, right }, written, has_more))
    }

    /// Gives up the place of a write that was begun.
    pub fn let_go(&self) {
        drop(self.begun.lock().take());
    }

    pub async fn write(&self, fs: &FileSystem, file: &Arc<FileData>, data: &[u8], has_more: bool) -> Result<Written, FsError> {
        let begun = self.begun.lock().take();
        let begun = match begun {
            Some(begun) => begun,
            None => {
                let place = Arc::clone(&self.appenders.turn).lock_owned().await;
                let right = match self.appenders.right(fs, file) {
                    Some(right) => right,
                    None => Right { _writing: fs.writing(file).await?, recalled: None },
                };
                Begun { offset: file.local_size(), place, right }
            }
        };
        let written = file.write(begun.offset, data).await;
        self.end(fs, begun, written, has_more)
    }

    fn end(&self, fs: &FileSystem, begun: Begun, written: Result<usize, FsError>, has_more: bool) -> Result<Written, FsError> {
        let Begun { offset, place, right } = begun;
        if has_more && written.is_ok() {
            self.appenders.keep(fs, right);
        } else {
            drop(right);
        }
        drop(place);
        written.map(|len| Written { offset, len })
    }
}
