//! The local file system. Synchronous on purpose: callers run it under [`Runtime::blocking`](crate::Runtime::blocking), and redb can stand on it.
//!
//! What a caller may assume: a write is seen by every later read of this machine at once, and survives the death of the
//! process. It survives a power loss only after `sync_data` of the file and, for a new, renamed or removed name,
//! `sync_directory` of its directory. Unsynced writes may be lost in any subset and torn at any 512-byte boundary.
//! After a failed `sync_data` nothing may be assumed of what was written since the last good one: the caller must stop using the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; no writing.
    Read,
    /// Must exist.
    ReadWrite,
    /// Made if missing.
    CreateOrOpen,
    /// Must not exist.
    CreateNew,
}

/// Bytes of the disk that a path lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskSpace {
    pub total: u64,
    /// What an unprivileged process may still use.
    pub available: u64,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEntry {
    pub path: PathBuf,
    pub is_directory: bool,
}

/// A file system.
pub trait Disk: Send + Sync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Entries of a directory, in order of name.
    fn list(&self, directory: &Path) -> io::Result<Vec<DiskEntry>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    fn create_directory_all(&self, path: &Path) -> io::Result<()>;
    /// Replaces `to` atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
    /// Takes an exclusive lock on a file (made if missing) for as long as the result lives or the process does; an error
    /// of kind `WouldBlock` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. All methods take positions, so one handle serves many threads.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Reads as much as there is, up to the buffer's length; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The same, but only if it needs no waiting for a device; `None` otherwise. Safe on an async thread.
    fn read_at_if_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Asks for a range to be brought into memory, without waiting for it. Only a hint: nothing tells whether it was heard.
    fn read_ahead(&self, offset: u64, len: u64);
    /// Writes everything, one piece after the other. May leave a part written when it fails.
    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable.
    fn sync_data(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves disk space for a range and extends the file over it, reading as zero.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the space of a range back; it reads as zero afterwards.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Bytes of disk that the file really occupies.
    fn allocated_bytes(&self) -> io::Result<u64>;
}

impl dyn DiskFile {
    /// Reads exactly the buffer's length, or fails with `UnexpectedEof`.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.read_at(buffer, offset)?;
        if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl dyn Disk {
    /// The whole content of a small file; an error if it is longer than `limit` bytes.
    pub fn read(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).ok().filter(|len| *len <= limit);
        let len =
            len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{} is longer than {limit} bytes", path.display())))?;
        let mut content = vec![0; len];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// Replaces a small file so that after a crash there is the old or the new content, whole; durable on return.
    pub fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::CreateOrOpen)?;
        file.set_len(0)?;
        file.write_at(&[content], 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        self.sync_directory(directory)
    }
}
