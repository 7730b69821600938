//! Directories of this machine: local ones, which show that the model is right, or mounts of CairnFS, which are to agree with it.
//!
//! The calls are made as programs make them, by path, and not through `cairn_runtime`: it is the kernel with what it serves that is tested here.

use super::operation::{Operation, Path, Range, Step};
use super::outcome::{Bytes, Failure, Holds, Kind, Outcome, Record, Seen, Snapshot, Status};
use super::subject::Subject;
use cairn_common::wire::master::{RenameMode, XattrMode};
use rustix::fs::{CWD, Dir, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// More than any value or list of names here has.
const XATTR_BYTES_MAX: usize = 65_536;
/// Descriptors of a door.
const OPEN_MAX: usize = 6;
const READ_BYTES: usize = 1 << 20;

/// One directory, or the same one through several mounts.
pub struct Directories {
    doors: Vec<PathBuf>,
    cases: Cell<u64>,
}

impl Directories {
    /// Sets the umask of this process to nothing: modes are compared.
    pub fn new(doors: Vec<PathBuf>) -> Self {
        rustix::process::umask(Mode::empty());
        Self { doors, cases: Cell::new(0) }
    }
}

impl Subject for Directories {
    fn doors(&self) -> usize {
        self.doors.len()
    }

    /// In a directory of its own, which is removed afterwards.
    fn live(&self, steps: &[Step]) -> Result<Record, String> {
        let case = format!("case-{}", self.cases.replace(self.cases.get() + 1));
        let doors: Vec<Door> = self.doors.iter().map(|door| Door { directory: door.join(&case), open: RefCell::default() }).collect();
        let first = doors.first().ok_or("there is no directory to work in")?;
        rustix::fs::mkdir(&first.directory, mode(0o755)).map_err(|error| format!("can't make {}: {error}", first.directory.display()))?;
        let outcomes = steps.iter().map(|step| doors[step.door % doors.len()].perform(&step.operation)).collect();
        let snapshots = doors.iter().map(Door::snapshot).collect::<Result<_, String>>();
        let removed =
            std::fs::remove_dir_all(&first.directory).map_err(|error| format!("can't remove {}: {error}", first.directory.display()));
        let record = Record { outcomes, snapshots: snapshots? };
        removed.map(|()| record)
    }
}

/// The directory of a case, through one mount.
struct Door {
    directory: PathBuf,
    /// Descriptors that are closed some calls later: as long as a file is open, a mount knows more of it.
    open: RefCell<VecDeque<OwnedFd>>,
}

type Answer = Result<Outcome, Errno>;

impl Door {
    fn at(&self, path: &Path) -> PathBuf {
        self.directory.join(&path.0)
    }

    fn perform(&self, operation: &Operation) -> Outcome {
        self.answer(operation).map_err(failure).into()
    }

    fn answer(&self, operation: &Operation) -> Answer {
        match operation {
            Operation::MakeDirectory { path, mode: wanted } => done(rustix::fs::mkdir(self.at(path), mode(*wanted))),
            Operation::RemoveDirectory { path } => done(rustix::fs::rmdir(self.at(path))),
            Operation::Create { path, mode, exclusive } => self.create(path, *mode, *exclusive),
            Operation::Write { path, offset, data } => self.write(path, *offset, &data.bytes()),
            Operation::Append { path, data } => self.append(path, &data.bytes()),
            Operation::Read { path, range } => Ok(Outcome::Bytes(self.read(path, *range)?)),
            Operation::Truncate { path, size } => done(rustix::fs::ftruncate(self.open(path, OFlags::WRONLY)?, *size)),
            Operation::Punch { path, range } => self.allocate(path, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, *range),
            Operation::Reserve { path, range } => self.allocate(path, FallocateFlags::empty(), *range),
            Operation::Copy { from, range, to, offset } => self.copy(from, *range, to, *offset),
            Operation::Unlink { path } => done(rustix::fs::unlink(self.at(path))),
            Operation::Rename { from, to, mode } => self.rename(from, to, *mode),
            Operation::Link { from, to } => done(rustix::fs::link(self.at(from), self.at(to))),
            Operation::Symlink { target, path } => done(rustix::fs::symlink(target.0.as_str(), self.at(path))),
            Operation::ReadLink { path } => Ok(Outcome::Target(self.read_link(path)?)),
            Operation::ChangeMode { path, mode: wanted } => done(rustix::fs::chmod(self.at(path), mode(*wanted))),
            Operation::SetXattr { path, name, value, mode } => {
                done(rustix::fs::setxattr(self.at(path), *name, &value.bytes(), xattr_flags(*mode)))
            }
            Operation::GetXattr { path, name } => Ok(Outcome::Bytes(self.xattr(path, name)?)),
            Operation::RemoveXattr { path, name } => done(rustix::fs::removexattr(self.at(path), *name)),
            Operation::ListXattrs { path } => Ok(Outcome::Xattrs(self.xattrs(path)?)),
            Operation::Status { path } => Ok(Outcome::Status(self.status(path)?)),
            Operation::List { path } => Ok(Outcome::Entries(list(self.at(path))?)),
            Operation::Sync { path } => done(rustix::fs::fsync(self.open(path, OFlags::RDONLY)?)),
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let file = rustix::fs::open(self.at(path), flags | OFlags::CLOEXEC, Mode::empty())?;
        let mut open = self.open.borrow_mut();
        open.push_back(rustix::io::dup(&file)?);
        if open.len() > OPEN_MAX {
            open.pop_front();
        }
        Ok(file)
    }

    fn create(&self, path: &Path, wanted: u16, exclusive: bool) -> Answer {
        let exclusive = if exclusive { OFlags::EXCL } else { OFlags::empty() };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | exclusive;
        done(rustix::fs::open(self.at(path), flags, mode(wanted)))
    }

    fn write(&self, path: &Path, offset: u64, data: &[u8]) -> Answer {
        let file = self.open(path, OFlags::WRONLY)?;
        Ok(Outcome::Count(rustix::io::pwrite(file, data, offset)? as u64))
    }

    fn append(&self, path: &Path, data: &[u8]) -> Answer {
        let file = self.open(path, OFlags::WRONLY | OFlags::APPEND)?;
        Ok(Outcome::Count(rustix::io::write(file, data)? as u64))
    }

    fn read(&self, path: &Path, range: Range) -> Result<Bytes, Errno> {
        let file = self.open(path, OFlags::RDONLY)?;
        let (mut content, mut part) = (Vec::new(), vec![0; READ_BYTES.min(range.len as usize)]);
        loop {
            let wanted = part.len().min(range.len as usize - content.len());
            let read = rustix::io::pread(&file, &mut part[..wanted], range.offset + content.len() as u64)?;
            content.extend_from_slice(&part[..read]);
            if read == 0 || content.len() as u64 == range.len {
                return Ok(Bytes(content));
            }
        }
    }

    fn allocate(&self, path: &Path, flags: FallocateFlags, range: Range) -> Answer {
        done(rustix::fs::fallocate(self.open(path, OFlags::WRONLY)?, flags, range.offset, range.len))
    }

    /// A call may copy less than it was asked for; and a file that is copied to its own end gets longer meanwhile.
    fn copy(&self, from: &Path, range: Range, to: &Path, offset: u64) -> Answer {
        let (source, target) = (self.open(from, OFlags::RDONLY)?, self.open(to, OFlags::WRONLY)?);
        let end = range.end().min(rustix::fs::fstat(&source)?.st_size as u64);
        let (mut from, mut to) = (range.offset, offset);
        loop {
            let left = end.saturating_sub(from);
            let copied = rustix::fs::copy_file_range(&source, Some(&mut from), &target, Some(&mut to), left as usize)?;
            if copied == 0 {
                return Ok(Outcome::Count(to - offset));
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> Answer {
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => RenameFlags::NOREPLACE,
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        done(rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags))
    }

    fn read_link(&self, path: &Path) -> Result<Path, Errno> {
        let target = rustix::fs::readlink(self.at(path), Vec::new())?;
        Ok(Path(target.to_string_lossy().into_owned()))
    }

    fn xattr(&self, path: &Path, name: &str) -> Result<Bytes, Errno> {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let len = rustix::fs::getxattr(self.at(path), name, &mut value[..])?;
        value.truncate(len);
        Ok(Bytes(value))
    }

    /// Those that users may set; security modules add their own.
    fn xattrs(&self, path: &Path) -> Result<Vec<String>, Errno> {
        let mut list = vec![0_u8; XATTR_BYTES_MAX];
        let len = rustix::fs::listxattr(self.at(path), &mut list[..])?;
        let names = list[..len].split(|byte| *byte == 0).map(|name| String::from_utf8_lossy(name).into_owned());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("user.")).collect();
        names.sort();
        Ok(names)
    }

    fn status(&self, path: &Path) -> Result<Status, Errno> {
        let found = rustix::fs::lstat(self.at(path))?;
        let kind = kind(FileType::from_raw_mode(found.st_mode));
        let size = (kind != Kind::Directory).then_some(found.st_size as u64);
        Ok(Status { kind, mode: Mode::from_raw_mode(found.st_mode).bits() as u16, links: found.st_nlink as u64, size })
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        let (mut seen, mut ahead) = (Snapshot::new(), vec![None]);
        while let Some(path) = ahead.pop() {
            let here = path.as_ref().map_or_else(|| self.directory.clone(), |path| self.at(path));
            let entries = list(here.clone()).map_err(|error| format!("can't list {}: {error}", here.display()))?;
            for (name, kind) in entries {
                let path = Path::below(path.as_ref(), &name);
                let found = self.look(&path, kind).map_err(|error| format!("can't look at {path}, a {kind:?}: {error}"))?;
                if kind == Kind::Directory {
                    ahead.push(Some(path.clone()));
                }
                seen.insert(path, found);
            }
        }
        Ok(seen)
    }

    fn look(&self, path: &Path, kind: Kind) -> Result<Seen, Errno> {
        let status = self.status(path)?;
        let holds = match kind {
            Kind::File => Holds::Content(self.read(path, Range { offset: 0, len: status.size.unwrap_or(0) + 1 })?),
            Kind::Symlink => Holds::Target(self.read_link(path)?),
            Kind::Directory | Kind::Other => Holds::Entries,
        };
        let names = if kind == Kind::Symlink { Vec::new() } else { self.xattrs(path)? };
        let xattrs = names.into_iter().map(|name| self.xattr(path, &name).map(|value| (name, value))).collect::<Result<_, Errno>>()?;
        Ok(Seen { status, holds, xattrs })
    }
}

fn done<T>(result: Result<T, Errno>) -> Answer {
    result.map(|_| Outcome::Done)
}

fn list(directory: PathBuf) -> Result<Vec<(String, Kind)>, Errno> {
    let directory = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            entries.push((name, kind(entry.file_type())));
        }
    }
    entries.sort();
    Ok(entries)
}

fn mode(bits: u16) -> Mode {
    Mode::from_bits_truncate(bits.into())
}

fn kind(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    }
}

fn xattr_flags(mode: XattrMode) -> XattrFlags {
    match mode {
        XattrMode::Set => XattrFlags::empty(),
        XattrMode::Create => XattrFlags::CREATE,
        XattrMode::Replace => XattrFlags::REPLACE,
    }
}

fn failure(error: Errno) -> Failure {
    match error {
        Errno::NOENT => Failure::NotFound,
        Errno::EXIST => Failure::Exists,
        Errno::NOTDIR => Failure::NotDirectory,
        Errno::ISDIR => Failure::IsDirectory,
        Errno::NOTEMPTY => Failure::NotEmpty,
        Errno::INVAL => Failure::Invalid,
        Errno::PERM => Failure::NotPermitted,
        Errno::NODATA => Failure::NoAttribute,
        Errno::LOOP => Failure::TooManySymlinks,
        other => Failure::Other(other.to_string()),
    }
}
