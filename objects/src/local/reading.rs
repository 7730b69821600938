//! A local file that is being copied, and whether it is still what it was.

use super::inode::inode_of;
use crate::failure::{At, Failure, Reason};
use crate::transfer::Traits;
use cairn_common::attributes::FileKind;
use cairn_common::buffer::Buffer;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

/// An open local file. Reads at any offset, from any thread.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    pub traits: Traits,
    /// Less is stored than it is long.
    may_have_holes: bool,
}

impl Source {
    /// Opens a regular file; never waits for the other end of a pipe.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at(path.display())?;
        let metadata = file.metadata().at(path.display())?;
        let (traits, may_have_holes) = (inode_of(&metadata), metadata.blocks().saturating_mul(BLOCK_BYTES) < metadata.size());
        match traits.kind {
            FileKind::Regular => Ok(Self { path: path.to_owned(), file, traits, may_have_holes }),
            FileKind::Directory => Err(Failure::said(path.display(), "it is a directory: pass -r to copy it with everything in it")),
            _ => Err(Failure::said(path.display(), "it is a device, socket or pipe, which is not copied")),
        }
    }

    /// Exactly `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: usize) -> Result<Buffer, Failure> {
        let mut bytes = Buffer::with_len(len);
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(error) => Err(Failure::new(self.path.display(), error)),
        }
    }

    /// The parts of a range that are no holes, in order.
    pub fn data(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, Failure> {
        let mut found = Vec::new();
        let mut from = range.start;
        while from < range.end {
            let Some(data) = self.next_data(from)?.filter(|data| data.start < range.end) else { break };
            from = data.end;
            found.push(data.start..data.end.min(range.end));
        }
        Ok(found)
    }

    fn next_data(&self, from: u64) -> Result<Option<Range<u64>>, Failure> {
        let size = self.traits.size;
        let everything = (from < size).then_some(from..size);
        if !self.may_have_holes {
            return Ok(everything);
        }
        let start = match seek(&self.file, SeekFrom::Data(from)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => return Ok(None),
            // A file system that knows of no holes.
            Err(Errno::INVAL) => return Ok(everything),
            Err(error) => return Err(Failure::new(self.path.display(), io::Error::from(error))),
        };
        let end = seek(&self.file, SeekFrom::Hole(start)).map_err(io::Error::from).at(self.path.display())?;
        Ok((start < size).then_some(start..end.min(size)))
    }

    /// Fails if the file is not what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Failure> {
        let now = inode_of(&self.file.metadata().at(self.path.display())?);
        if (now.size, now.mtime) == (self.traits.size, self.traits.mtime) { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Failure {
        Failure::new(self.path.display(), Reason::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::Source;
    use crate::failure::Reason;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_no_data() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        file.set_len(10 << 20).unwrap();
        assert_eq!(Source::open(&path).unwrap().data(0..10 << 20).unwrap(), [], "nothing was written");
        file.write_all_at(&[7; 4096], 1 << 20).unwrap();
        file.write_all_at(&[7; 8192], 5 << 20).unwrap();
        let source = Source::open(&path).unwrap();
        let (first, second) = ((1 << 20)..(1 << 20) + 4096, (5 << 20)..(5 << 20) + 8192);
        assert_eq!(source.data(0..10 << 20).unwrap(), [first.clone(), second.clone()]);
        assert_eq!(source.data(first.start + 1..second.start + 5).unwrap(), [first.start + 1..first.end, second.start..second.start + 5]);
        assert_eq!(source.data(6 << 20..10 << 20).unwrap(), []);
        let whole = directory.path().join("whole");
        OpenOptions::new().write(true).create_new(true).open(&whole).unwrap().write_all(&[1; 5000]).unwrap();
        let data = Source::open(&whole).unwrap().data(0..5000).unwrap();
        assert_eq!((data.len(), data[0].clone()), (1, 0..5000));
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!(source.read(3, 4).unwrap()[..], *b"3456");
        source.check_unchanged().unwrap();
        file.set_len(5).unwrap();
        assert_eq!(source.read(3, 4).unwrap_err().reason, Reason::Changed);
        assert_eq!(source.check_unchanged().unwrap_err().reason, Reason::Changed);
        assert!(Source::open(directory.path()).unwrap_err().to_string().contains("is a directory"));
    }
}
