//! The file system of the operating system, by positioned calls on ordinary file descriptors.
//!
//! A read or write of the kernel may be short at any time (signals, `RWF_NOWAIT` half way through the cached range), so every
//! one here is a loop. Errors name the path and keep the kind of the error below them.

use crate::disk::{Disk, DiskEntry, DiskFile, DiskSpace, OpenMode};
use cairn_common::buffer::{Buffer, PAGE_BYTES};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Most pieces that one `pwritev` takes (Linux UIO_MAXIOV).
const WRITE_PIECES_MAX: usize = 1024;
/// Unit of `Metadata::blocks`, whatever the block size of the file system (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;
/// How much is written at once where a hole has to be written as zeros.
const ZERO_BYTES: usize = 64 << 10;
/// Writes from this length on go around the page cache, if they are made of whole pages: fresh pages for the cache, and the copy into
/// them, cost several times the write itself (docs/decisions/2026-11-25-large-writes-are-direct.md).
const DIRECT_BYTES_MIN: usize = 256 << 10;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_options(mode).open(path).map_err(|error| about("open", path, error))?;
        Ok(Arc::new(RealFile { file, path: path.to_owned(), direct: OnceLock::new() }))
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::disk stands on")]
    fn list(&self, directory: &Path) -> io::Result<Vec<DiskEntry>> {
        let list = || {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                entries.push(DiskEntry { path: entry.path(), is_directory: entry.file_type()?.is_dir() });
            }
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(entries)
        };
        list().map_err(|error| about("list", directory, error))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(|error| about("look for", path, error))
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::disk stands on")]
    fn create_directory_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path).map_err(|error| about("create directory", path, error))
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::disk stands on")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(|error| about(format_args!("rename {} to", from.display()), to, error))
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::disk stands on")]
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).map_err(|error| about("remove", path, error))
    }

    #[expect(clippy::disallowed_methods, reason = "this is what Runtime::disk stands on")]
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        // The parent of a plain file name is the empty path, which means the working directory.
        let directory = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(|error| about("sync directory", directory, error))
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let found = rustix::fs::statvfs(path).map_err(|error| about("measure the disk of", path, error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(DiskSpace { total: bytes(found.f_blocks), available: bytes(found.f_bavail) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = open_options(OpenMode::CreateOrOpen).open(path).map_err(|error| about("open", path, error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| about("lock", path, error.into()))?;
        // The lock belongs to the open file: it goes when this is dropped or the process ends.
        Ok(Box::new(file))
    }
}

/// An open file with the path it had then, for messages.
#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
    /// The same file opened with O_DIRECT, made at the first large write; `None` where the file system or the mode has no such thing.
    direct: OnceLock<Option<File>>,
}

impl RealFile {
    fn about(&self, action: &str, error: io::Error) -> io::Error {
        about(action, &self.path, error)
    }

    /// The descriptor for a write of whole pages, if it is large enough to go around the page cache.
    fn direct(&self, pieces: &[&[u8]], offset: u64) -> Option<&File> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let is_whole_pages = offset.is_multiple_of(PAGE_BYTES as u64) && bytes.is_multiple_of(PAGE_BYTES);
        if bytes < DIRECT_BYTES_MIN || !is_whole_pages {
            return None;
        }
        let open = || OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(self.own_path()).ok();
        self.direct.get_or_init(open).as_ref()
    }

    /// Names the open file itself, whatever has become of its path.
    fn own_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Hands whole pages at page boundaries to the device as they are, and copies what lies otherwise.
    fn write_direct(&self, direct: &File, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        let aligned = Aligned::new(pieces);
        let mut slices: Vec<IoSlice<'_>> = aligned.runs().map(IoSlice::new).collect();
        write_all_at(direct, &mut slices, offset)
    }

    /// What `punch_hole` does on a file system without holes. The range beyond the end reads as zero anyway.
    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = [0; ZERO_BYTES];
        let end = offset.saturating_add(len).min(self.file.metadata()?.len());
        let mut at = offset;
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
            self.file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.about("read", error)),
            }
        }
        Ok(done)
    }

    fn read_at_if_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < buffer.len() {
            let mut rest = [IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.file, &mut rest, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                // EAGAIN: not in the page cache. The others: this kernel or file system cannot tell.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(self.about("read", error.into())),
            }
        }
        Ok(Some(done))
    }

    fn read_ahead(&self, offset: u64, len: u64) {
        // A hint: a file system that does not take it reads when it is asked to.
        _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(len), Advice::WillNeed);
    }

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct(pieces, offset) {
            match self.write_direct(direct, pieces, offset) {
                // Some file systems refuse only here, and some lengths only; the page cache takes everything.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                done => return done.map_err(|error| self.about("write", error)),
            }
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        write_all_at(&self.file, &mut slices, offset).map_err(|error| self.about("write", error))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| self.about("sync", error))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.about("measure", error))?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(|error| self.about("set the length of", error))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(()),
            // No reservation to be had on this file system; the length is promised all the same.
            Err(Errno::OPNOTSUPP) => {
                let end = offset.saturating_add(len);
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            Err(error) => Err(self.about("reserve space for", error.into())),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.write_zeros(offset, len).map_err(|error| self.about("clear a range of", error)),
            Err(error) => Err(self.about("punch a hole into", error.into())),
        }
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.about("measure", error))?.blocks() * STAT_BLOCK_BYTES)
    }
}

fn write_all_at(file: &File, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        let batch = &pieces[..pieces.len().min(WRITE_PIECES_MAX)];
        match rustix::io::pwritev(file, batch, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut pieces, written);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Pieces arranged for O_DIRECT: runs of whole pages at page boundaries of memory.
struct Aligned<'a> {
    runs: Vec<Run<'a>>,
}

enum Run<'a> {
    /// As it was given.
    Whole(&'a [u8]),
    /// Put together from pieces, or ends of pieces, that were not whole pages.
    Copied(Buffer),
}

impl<'a> Aligned<'a> {
    /// The pieces together are whole pages.
    fn new(pieces: &[&'a [u8]]) -> Self {
        let is_aligned = |piece: &[u8]| piece.as_ptr().addr().is_multiple_of(PAGE_BYTES);
        let mut runs = Vec::with_capacity(pieces.len());
        let mut odd: Vec<&[u8]> = Vec::new();
        let mut odd_bytes = 0;
        for piece in pieces {
            let (whole, rest) = match odd_bytes {
                0 if is_aligned(piece) => piece.split_at(piece.len() / PAGE_BYTES * PAGE_BYTES),
                _ => piece.split_at(0),
            };
            if !whole.is_empty() {
                runs.push(Run::Whole(whole));
            }
            odd.push(rest);
            odd_bytes += rest.len();
            if odd_bytes.is_multiple_of(PAGE_BYTES) {
                runs.extend(Run::copy(&odd, odd_bytes));
                odd.clear();
                odd_bytes = 0;
            }
        }
        debug_assert_eq!(odd_bytes, 0, "the caller has checked that these are whole pages");
        Self { runs }
    }

    fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().map(|run| match run {
            Run::Whole(bytes) => bytes,
            Run::Copied(buffer) => &buffer[..],
        })
    }
}

impl Run<'_> {
    fn copy(pieces: &[&[u8]], bytes: usize) -> Option<Self> {
        let mut buffer = (bytes > 0).then(|| Buffer::with_len(bytes))?;
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Some(Self::Copied(buffer))
    }
}

fn open_options(mode: OpenMode) -> OpenOptions {
    let mut options = OpenOptions::new();
    // Keys, names and content of other people's files: for the user who runs the role alone.
    options.read(true).mode(0o600);
    match mode {
        OpenMode::Read => {}
        OpenMode::ReadWrite => _ = options.write(true),
        OpenMode::CreateOrOpen => _ = options.write(true).create(true).truncate(false),
        OpenMode::CreateNew => _ = options.write(true).create_new(true),
    }
    options
}

/// The same error with a sentence that names the file.
fn about(action: impl Display, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{DIRECT_BYTES_MIN, RealDisk, WRITE_PIECES_MAX};
    use crate::disk::{Disk, OpenMode};
    use cairn_common::buffer::{Buffer, PAGE_BYTES};
    use std::io::ErrorKind;
    use std::path::Path;

    #[test]
    fn pieces_are_written_one_after_the_other_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("f"), OpenMode::CreateNew).unwrap();
        // More pieces than one system call takes, and empty ones among them.
        let pieces: Vec<Vec<u8>> = (0..WRITE_PIECES_MAX * 2 + 7).map(|i| vec![i as u8; i % 5]).collect();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        file.write_at(&slices, 10).unwrap();
        let expected = pieces.concat();
        let mut found = vec![1; expected.len() + 50];
        assert_eq!(file.read_at(&mut found, 10).unwrap(), expected.len(), "a read ends with the file");
        assert_eq!(&found[..expected.len()], &expected[..]);
        assert_eq!(file.len().unwrap(), 10 + expected.len() as u64);
        assert_eq!(file.read_at(&mut found[..10], 0).unwrap(), 10);
        assert_eq!(found[..10], [0; 10]);
        assert_eq!(file.read_exact_at(&mut [0; 20], file.len().unwrap() - 3).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn large_writes_are_whole_whatever_the_alignment_of_their_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("f"), OpenMode::CreateNew).unwrap();
        file.write_at(&[&[9; 3 * PAGE_BYTES]], 0).unwrap();
        // Read before, so that the page cache has what the write replaces.
        file.read_exact_at(&mut [0; 3 * PAGE_BYTES], 0).unwrap();
        let content: Vec<u8> = (0..2 * DIRECT_BYTES_MIN + PAGE_BYTES).map(|at| (at / 7) as u8).collect();
        let body = Buffer::copy_of(&content[100..100 + DIRECT_BYTES_MIN]);
        let pieces: [&[u8]; 5] = [&content[..90], &content[90..100], &body, &[], &content[100 + DIRECT_BYTES_MIN..]];
        file.write_at(&pieces, PAGE_BYTES as u64).unwrap();
        // One that begins with whole pages and ends with an odd tail.
        let whole = Buffer::copy_of(&content[..DIRECT_BYTES_MIN + 50]);
        let end = PAGE_BYTES + content.len();
        file.write_at(&[&whole, &content[DIRECT_BYTES_MIN + 50..DIRECT_BYTES_MIN + PAGE_BYTES]], end as u64).unwrap();
        file.sync_data().unwrap();
        let mut found = vec![0; end + DIRECT_BYTES_MIN + PAGE_BYTES];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found[..PAGE_BYTES].iter().all(|byte| *byte == 9));
        assert!(found[PAGE_BYTES..end] == content[..], "the first write");
        assert!(found[end..] == content[..DIRECT_BYTES_MIN + PAGE_BYTES], "the second");
        assert_eq!(file.len().unwrap(), found.len() as u64);
    }

    #[test]
    fn what_was_just_written_is_read_without_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("f"), OpenMode::CreateOrOpen).unwrap();
        file.write_at(&[b"hello"], 0).unwrap();
        let mut buffer = [0; 10];
        // `None` is allowed (tmpfs cannot tell), a wrong answer is not.
        if let Some(read) = file.read_at_if_cached(&mut buffer, 1).unwrap() {
            assert_eq!(&buffer[..read], b"ello");
        }
        assert_ne!(file.read_at_if_cached(&mut buffer, 5).unwrap(), Some(1));
    }

    #[test]
    fn open_modes_differ_in_what_they_need() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        assert_eq!(RealDisk.open(&path, OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
        let missing = RealDisk.open(&path, OpenMode::ReadWrite).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains(path.to_str().unwrap()), "{missing}");
        RealDisk.open(&path, OpenMode::CreateNew).unwrap().write_at(&[b"x"], 0).unwrap();
        assert_eq!(RealDisk.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(RealDisk.open(&path, OpenMode::CreateOrOpen).unwrap().len().unwrap(), 1, "opening must not empty the file");
        assert!(RealDisk.open(&path, OpenMode::Read).unwrap().write_at(&[b"y"], 0).is_err());
    }

    #[test]
    fn space_is_reserved_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("f"), OpenMode::CreateNew).unwrap();
        file.allocate(0, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.write_at(&[&[7; 1 << 20]], 0).unwrap();
        file.sync_data().unwrap();
        let before = file.allocated_bytes().unwrap();
        file.punch_hole(4096, 512 << 10).unwrap();
        file.punch_hole(0, 0).unwrap();
        assert_eq!(file.len().unwrap(), 1 << 20, "a hole must not change the length");
        let mut edge = [1; 8192];
        file.read_exact_at(&mut edge, 0).unwrap();
        assert!(edge[..4096].iter().all(|byte| *byte == 7) && edge[4096..].iter().all(|byte| *byte == 0));
        assert!(file.allocated_bytes().unwrap() <= before);
    }

    #[test]
    fn directories_list_in_order_of_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        RealDisk.create_directory_all(&root.join("b/deep")).unwrap();
        RealDisk.create_directory_all(&root.join("b/deep")).unwrap();
        for name in ["c", "a"] {
            RealDisk.open(&root.join(name), OpenMode::CreateNew).unwrap();
        }
        let entries = RealDisk.list(root).unwrap();
        let found: Vec<_> = entries.iter().map(|entry| (entry.path.strip_prefix(root).unwrap(), entry.is_directory)).collect();
        assert_eq!(found, [(Path::new("a"), false), (Path::new("b"), true), (Path::new("c"), false)]);
        RealDisk.rename(&root.join("a"), &root.join("c")).unwrap();
        assert!(!RealDisk.exists(&root.join("a")).unwrap());
        RealDisk.remove_file(&root.join("c")).unwrap();
        RealDisk.sync_directory(root).unwrap();
        assert_eq!(RealDisk.remove_file(&root.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
        let space = RealDisk.space(root).unwrap();
        assert!(0 < space.available && space.available <= space.total);
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        let Err(refused) = RealDisk.lock(&path) else { panic!("locked twice") };
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }

    #[test]
    fn a_small_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let disk: &dyn Disk = &RealDisk;
        disk.replace(&path, b"first, and longer").unwrap();
        disk.replace(&path, b"second").unwrap();
        assert_eq!(disk.read(&path, 6).unwrap(), b"second");
        assert_eq!(disk.read(&path, 5).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
