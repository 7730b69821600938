//! A local file on its way: under another name until it is whole.

use super::names::rename;
use crate::failure::{At, Failure, Reason};
use cairn_common::buffer::Buffer;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Written and read back at a time: what fits the processor's cache with its copies.
const CHECKED_BYTES: usize = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Removed when dropped, unless it was finished or is to be kept.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    file: File,
    is_kept: AtomicBool,
    /// It was there already: an earlier copy did not come to its end.
    pub is_resumed: bool,
}

impl Unfinished {
    /// Makes the file; or takes one that is there, if that is as long as it should be.
    pub fn open(path: PathBuf, size: u64, resume: bool) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let file = if resume { options.create(true).truncate(false) } else { options.create_new(true) }.open(&path).at(path.display())?;
        let length = file.metadata().at(path.display())?.len();
        let unfinished = Self { path, file, is_kept: AtomicBool::new(false), is_resumed: length == size && size > 0 };
        if !unfinished.is_resumed {
            unfinished.file.set_len(0).and_then(|()| unfinished.file.set_len(size)).at(unfinished.path.display())?;
        }
        Ok(unfinished)
    }

    /// Takes the room of a range that will be written, where the file system can do that: whether there is enough is known before anything was sent, and
    /// the writes need not look for it piece by piece.
    pub fn reserve(&self, range: Range<u64>) -> Result<(), Failure> {
        match fallocate(&self.file, FallocateFlags::empty(), range.start, range.end - range.start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            outcome => outcome.map_err(io::Error::from).at(self.path.display()),
        }
    }

    /// Writes, and looks whether the file now holds it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut there = Buffer::with_len(CHECKED_BYTES.min(bytes.len()));
        for (piece, at) in bytes.chunks(CHECKED_BYTES).zip((offset..).step_by(CHECKED_BYTES)) {
            let there = &mut there[..piece.len()];
            self.file.write_all_at(piece, at).and_then(|()| self.file.read_exact_at(there, at)).at(self.path.display())?;
            if there != piece {
                let what = "this machine's disk gave back other bytes than were written".to_owned();
                return Err(Failure::new(self.path.display(), Reason::Mismatch(what)));
            }
        }
        Ok(())
    }

    /// Makes a range a hole, which an earlier try may have filled with something else.
    pub fn clear(&self, range: Range<u64>) -> Result<(), Failure> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, range.start, range.end - range.start) {
            Err(Errno::OPNOTSUPP) => {}
            outcome => return outcome.map_err(io::Error::from).at(self.path.display()),
        }
        for start in range.clone().step_by(ZEROS.len()) {
            self.write(start, &ZEROS[..ZEROS.len().min((range.end - start) as usize)])?;
        }
        Ok(())
    }

    pub fn read(&self, offset: u64, len: usize) -> Result<Buffer, Failure> {
        let mut bytes = Buffer::with_len(len);
        self.file.read_exact_at(&mut bytes, offset).at(self.path.display())?;
        Ok(bytes)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there stays, for another try.
    pub fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// On stable storage.
    pub fn sync(&self) -> Result<(), Failure> {
        self.file.sync_all().at(self.path.display())
    }

    /// Gives it its name. Whether that was free, or could be replaced.
    pub fn finish(&self, path: &Path, replace: bool) -> Result<bool, Failure> {
        if path.is_dir() && !path.is_symlink() {
            return Err(Failure::said(path.display(), "a directory is there: a file can't replace it"));
        }
        let is_named = rename(&self.path, path, replace).at(path.display())?;
        if is_named {
            self.keep();
        }
        Ok(is_named)
    }
}

impl Drop for Unfinished {
    #[expect(clippy::disallowed_methods, reason = "a file of the user's, outside any store of ours")]
    fn drop(&mut self) {
        if !self.is_kept.load(Ordering::Relaxed) {
            // What is left of it is only in the way, not wrong.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unfinished;
    use std::fs::OpenOptions;

    #[test]
    fn a_copy_is_there_whole_or_not_at_all_and_can_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let (part, path) = (directory.path().join(".part"), directory.path().join("f"));
        drop(Unfinished::open(part.clone(), 8, true).unwrap());
        assert!(!part.exists());

        let first = Unfinished::open(part.clone(), 8, true).unwrap();
        assert!(!first.is_resumed);
        first.write(4, b"5678").unwrap();
        first.keep();
        drop(first);
        let second = Unfinished::open(part.clone(), 8, true).unwrap();
        assert!(second.is_resumed);
        assert_eq!(second.read(0, 8).unwrap()[..], *b"\0\0\0\x005678");
        second.reserve(0..4).unwrap();
        assert_eq!(second.read(0, 8).unwrap()[..], *b"\0\0\0\x005678", "room is no content");
        second.write(0, b"1234").unwrap();
        second.clear(5..7).unwrap();
        assert_eq!(second.read(0, 8).unwrap()[..], *b"12345\0\08");
        second.write(5, b"67").unwrap();
        assert!(second.finish(&path, false).unwrap());
        drop(second);
        assert_eq!(std::io::read_to_string(OpenOptions::new().read(true).open(&path).unwrap()).unwrap(), "12345678");
        assert!(!part.exists());

        let other = Unfinished::open(part.clone(), 1, false).unwrap();
        assert!(!other.finish(&path, false).unwrap(), "the name is taken");
        assert!(other.finish(directory.path(), true).unwrap_err().to_string().contains("a directory is there"));
    }
}
