//! Which files there are, and which of them hold data that the master has not yet.

use super::durability::LossListener;
use super::file::FileData;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// All files of a store. Its locks are taken while a file's is held, never the other way round.
#[derive(Default)]
pub struct FileRegistry {
    known: Mutex<BTreeMap<Ino, Weak<FileData>>>,
    /// Kept alive until they are clean.
    dirty: Mutex<BTreeMap<Ino, Arc<FileData>>>,
    /// Rung when the first file becomes dirty.
    pub dirtied: Notify,
}

impl FileRegistry {
    /// The file of an inode, made by `make` if there is none.
    pub fn get_or_insert(&self, ino: Ino, make: impl FnOnce() -> Arc<FileData>) -> Arc<FileData> {
        let mut known = self.known.lock();
        if let Some(file) = known.get(&ino).and_then(Weak::upgrade) {
            return file;
        }
        let file = make();
        known.insert(ino, Arc::downgrade(&file));
        file
    }

    pub fn get(&self, ino: Ino) -> Option<Arc<FileData>> {
        self.known.lock().get(&ino).and_then(Weak::upgrade)
    }

    /// All files, in order of inode.
    pub fn known(&self) -> Vec<Arc<FileData>> {
        self.known.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// A file has been dropped.
    pub fn forget(&self, ino: Ino) {
        let mut known = self.known.lock();
        // Another may have taken its place meanwhile.
        if known.get(&ino).is_some_and(|file| file.strong_count() == 0) {
            known.remove(&ino);
        }
    }

    pub fn set_dirty(&self, file: &Arc<FileData>) {
        let mut dirty = self.dirty.lock();
        if dirty.is_empty() {
            self.dirtied.notify_one();
        }
        dirty.insert(file.ino(), Arc::clone(file));
    }

    pub fn set_clean(&self, ino: Ino) {
        let removed = self.dirty.lock().remove(&ino);
        drop(removed);
    }

    pub fn has_dirty(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    /// The dirty files, in order of inode.
    pub fn dirty(&self) -> Vec<Arc<FileData>> {
        self.dirty.lock().values().cloned().collect()
    }
}

impl LossListener for FileRegistry {
    fn data_lost(&self, ino: Ino) {
        if let Some(file) = self.get(ino) {
            file.fail(FsError::Io);
        }
    }
}
