//! Answers that need no waiting, for a thread of the kernel adapter: a hop to another thread costs more than all of these.

use super::start::FileSystem;
use super::types::Handle;
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

    /// How long the attributes of an inode, as handed out last, may still be believed: what the kernel may keep them for.
    /// Never longer than `attribute_ttl`, so that the two caches together are not staler than one.
    pub fn validity(&self, ino: Ino) -> Duration {
        self.0.cache.validity(ino)
    }

    /// `None` unless everything asked for is in memory.
    pub fn try_read(&self, handle: Handle, offset: u64, len: usize) -> Option<Result<Bytes, FsError>> {
        match self.readable(handle) {
            Ok(open) => {
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
        let open = match self.writable(handle) {
            Ok(open) => open,
            Err(error) => return Some(Err(error)),
        };
        open.has_written.store(true, Ordering::Relaxed);
        match &open.append {
            None => open.file.try_write(offset, data),
            Some(append) => append.try_write(&open.file, data),
        }
    }

    /// Whether `flush` has anything to do for this handle. The adapter may answer close(2) at once if not.
    pub fn needs_flush(&self, handle: Handle) -> bool {
        self.0
            .handles
            .file(handle)
            .is_ok_and(|open| open.flags.write && (open.has_written.load(Ordering::Relaxed) || open.file.has_dirty()))
    }
}
