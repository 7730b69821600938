//! Open files and directories.

use super::append::{Append, Appenders};
use super::listing::DirectoryHandle;
use super::types::{Handle, OpenFlags};
use crate::data::{Descriptor, FileData};
use crate::link::{LockVictim, OpenGuard};
use cairn_common::collections::FastMap;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// An open file.
pub struct OpenFile {
    pub file: Arc<FileData>,
    pub descriptor: Descriptor,
    pub flags: OpenFlags,
    append: OnceLock<Append>,
    /// Written through this handle since its last flush without an error.
    pub has_written: AtomicBool,
    /// Reading is to be noted: it was not since the file was opened, and its access time is due.
    pub atime_is_due: AtomicBool,
    /// Whether locks that were taken through this handle are gone.
    pub victim: LockVictim,
    /// Dropped last: the inode is closed when the data path has let go of it.
    pub guard: OpenGuard,
}

impl OpenFile {
    pub fn ino(&self) -> Ino {
        self.guard.ino()
    }

    /// What `try_write` has begun is not gone on with.
    pub fn let_go_of_append(&self) {
        if let Some(append) = self.append.get() {
            append.let_go();
        }
    }
}

/// All handles.
#[derive(Default)]
pub struct Handles {
    last: AtomicU64,
    files: RwLock<FastMap<Handle, Arc<OpenFile>>>,
    directories: RwLock<FastMap<Handle, Arc<DirectoryHandle>>>,
    appenders: Mutex<BTreeMap<Ino, Weak<Appenders>>>,
}

impl Handles {
    fn next(&self) -> Handle {
        Handle(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub fn insert_file(&self, file: Arc<FileData>, flags: OpenFlags, guard: OpenGuard, atime_is_due: bool) -> Handle {
        let handle = self.next();
        let descriptor = file.descriptor();
        let open = OpenFile {
            file,
            descriptor,
            flags,
            append: OnceLock::new(),
            has_written: AtomicBool::new(false),
            atime_is_due: AtomicBool::new(atime_is_due),
            victim: LockVictim::default(),
            guard,
        };
        self.files.write().insert(handle, Arc::new(open));
        handle
    }

    pub fn insert_directory(&self, directory: DirectoryHandle) -> Handle {
        let handle = self.next();
        self.directories.write().insert(handle, Arc::new(directory));
        handle
    }

    pub fn file(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        self.files.read().get(&handle).cloned().ok_or(FsError::BadHandle)
    }

    pub fn directory(&self, handle: Handle) -> Result<Arc<DirectoryHandle>, FsError> {
        self.directories.read().get(&handle).cloned().ok_or(FsError::BadHandle)
    }

    pub fn remove_file(&self, handle: Handle) -> Result<Arc<OpenFile>, FsError> {
        self.files.write().remove(&handle).ok_or(FsError::BadHandle)
    }

    pub fn remove_directory(&self, handle: Handle) -> Result<(), FsError> {
        self.directories.write().remove(&handle).map(|_| ()).ok_or(FsError::BadHandle)
    }

    /// All files, taken out, for the shutdown.
    pub fn clear(&self) {
        let files = std::mem::take(&mut *self.files.write());
        drop(files);
        self.directories.write().clear();
    }

    /// The appending side of an open file.
    pub fn append<'open>(&self, open: &'open OpenFile) -> &'open Append {
        open.append.get_or_init(|| Append::new(self.appenders(open.ino())))
    }

    /// Shared by all that append to an inode.
    fn appenders(&self, ino: Ino) -> Arc<Appenders> {
        let mut all = self.appenders.lock();
        all.retain(|_, appenders| appenders.strong_count() > 0);
        if let Some(appenders) = all.get(&ino).and_then(Weak::upgrade) {
            return appenders;
        }
        let appenders = Arc::new(Appenders::default());
        all.insert(ino, Arc::downgrade(&appenders));
        appenders
    }
}
