//! Answers that need no waiting, for a thread of the kernel adapter: a hop to another thread costs more than all of these.

use super::start::FileSystem;
use super::types::{Handle, WriteAt, Written};
use crate::cache::Telling;
use crate::limits::KERNEL_MOVING_TTL;
use bytes::Bytes;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl FileSystem {
    /// The attributes, if they are known and fresh.
    pub fn try_attributes(&self, ino: Ino) -> Option<Attributes> {
        self.0.cache.attributes(ino).map(|known| self.with_own_writes(known))
    }

    /// What a name leads to, or that it leads nowhere, if that is known and fresh.
    pub fn try_lookup(&self, parent: Ino, name: &[u8]) -> Option<Result<Attributes, FsError>> {
        match self.0.cache.entry(parent, name)? {
            Some(ino) => self.try_attributes(ino).map(Ok),
            None => Some(Err(FsError::NotFound)),
        }
    }

    /// To be held while names of a directory are told to the kernel: how long it may believe them.
    pub fn telling_names(&self, directory: Ino) -> Telling<'_> {
        self.0.cache.telling_names(directory)
    }

    /// Whether a name may still be told to the kernel. To be asked while `telling_names` is held.
    pub fn is_name_of(&self, directory: Ino, name: &[u8], ino: Ino) -> bool {
        self.0.cache.is_name_of(directory, name, ino)
    }

    /// To be held while the kernel is told that a name has moved to another directory.
    pub fn telling_moved(&self, from: Ino, to: Ino) -> Telling<'_> {
        self.0.cache.telling_moved(from, to)
    }

    /// To be held while these attributes are told to the kernel: how long it may believe them.
    pub fn telling_attributes(&self, attributes: &Attributes) -> Telling<'_> {
        self.0.cache.telling_attributes(attributes.ino, attributes.version, self.most_time(attributes.ino))
    }

    /// The same with a name of the inode.
    pub fn telling_inode(&self, attributes: &Attributes) -> Telling<'_> {
        self.0.cache.telling_inode(attributes.ino, attributes.version, self.most_time(attributes.ino))
    }

    /// What is written here changes attributes, and the kernel knows not all of it.
    fn most_time(&self, ino: Ino) -> Duration {
        let is_moving = self.0.link.opens().is_open(ino) || self.0.data.has_dirty();
        if is_moving { KERNEL_MOVING_TTL } else { Duration::MAX }
    }

    /// Whether what the kernel is told of a file's content is forgotten when others change it.
    pub fn is_leased(&self, ino: Ino) -> bool {
        self.0.cache.is_leased(ino)
    }

    /// `None` unless everything asked for is in memory.
    pub fn try_read(&self, handle: Handle, offset: u64, len: usize) -> Option<Result<Bytes, FsError>> {
        match self.readable(handle) {
            Ok(open) => {
                if !self.is_fresh(&open.file) {
                    return None;
                }
                let data = open.file.try_read(offset, len);
                if matches!(data, Some(Ok(_))) {
                    self.note_read(&open);
                }
                data
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// `None` if it would have to wait: then call `write` with the same data.
    pub fn try_write(&self, handle: Handle, offset: u64, data: &[u8]) -> Option<Result<usize, FsError>> {
        match self.usual_place(handle, offset) {
            Ok(at) => self.try_write_at(handle, at, data).map(|result| result.map(|written| written.len)),
            Err(error) => Some(Err(error)),
        }
    }

    /// `None` if it would have to wait: then call `write_at` with the same data.
    pub fn try_write_at(&self, handle: Handle, at: WriteAt, data: &[u8]) -> Option<Result<Written, FsError>> {
        let open = match self.writable(handle) {
            Ok(open) => open,
            Err(error) => return Some(Err(error)),
        };
        open.has_written.store(true, Ordering::Relaxed);
        match at {
            WriteAt::Offset(offset) => {
                let _writing = self.try_writing(&open.file)?;
                let result = open.file.try_write(offset, data)?;
                Some(result.map(|len| Written { offset, len }))
            }
            WriteAt::End | WriteAt::EndAndMore => self.0.handles.append(&open).try_write(self, &open.file, data, at == WriteAt::EndAndMore),
        }
    }

    /// Whether a handle was opened to append.
    pub fn appends(&self, handle: Handle) -> bool {
        self.0.handles.file(handle).is_ok_and(|open| open.flags.append)
    }

    /// Whether `flush` has anything to do for this handle. The adapter may answer close(2) at once if not.
    pub fn needs_flush(&self, handle: Handle) -> bool {
        self.0
            .handles
            .file(handle)
            .is_ok_and(|open| open.flags.write && (open.has_written.load(Ordering::Relaxed) || open.file.has_dirty()))
    }
}
