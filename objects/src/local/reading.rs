//! A local file that is being copied, and whether it is still what it was.

use super::inode::inode_of;
use crate::failure::{At, Failure, Reason};
use crate::transfer::Traits;
use cairn_common::attributes::FileKind;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open local file. Reads at any offset, from any thread.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    pub traits: Traits,
}

impl Source {
    /// Opens a regular file; never waits for the other end of a pipe.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).at(path.display())?;
        let traits = inode_of(&file.metadata().at(path.display())?);
        match traits.kind {
            FileKind::Regular => Ok(Self { path: path.to_owned(), file, traits }),
            FileKind::Directory => Err(Failure::said(path.display(), "it is a directory: pass -r to copy it with everything in it")),
            _ => Err(Failure::said(path.display(), "it is a device, socket or pipe, which is not copied")),
        }
    }

    /// Exactly `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(error) => Err(Failure::new(self.path.display(), error)),
        }
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

    #[test]
    fn a_file_that_changes_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"0123456789").unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!(source.read(3, 4).unwrap(), b"3456");
        source.check_unchanged().unwrap();
        file.set_len(5).unwrap();
        assert_eq!(source.read(3, 4).unwrap_err().reason, Reason::Changed);
        assert_eq!(source.check_unchanged().unwrap_err().reason, Reason::Changed);
        assert!(Source::open(directory.path()).unwrap_err().to_string().contains("is a directory"));
    }
}
