//! The calls.

use cairn_common::wire::master::{RenameMode, XattrMode};
use std::fmt;

/// A path below the directory of a case, of at least one name. There is no `..` in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub String);

impl Path {
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// A name below this path; below nothing at the top.
    pub fn below(parent: Option<&Path>, name: &str) -> Self {
        Self(parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}/{name}")))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes to be written. None of them is zero, so that they differ from a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data {
    pub seed: u8,
    pub len: usize,
}

impl Data {
    pub fn bytes(self) -> Vec<u8> {
        (0..self.len).map(|at| (at * 31 + at / 251 + usize::from(self.seed) * 2) as u8 | 1).collect()
    }
}

/// Part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub len: u64,
}

impl Range {
    pub fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// A system call, or the few that a program makes together: open, the call, close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    MakeDirectory {
        path: Path,
        mode: u16,
    },
    RemoveDirectory {
        path: Path,
    },
    /// open(2) with O_CREAT, and with O_EXCL if `exclusive`
    Create {
        path: Path,
        mode: u16,
        exclusive: bool,
    },
    Write {
        path: Path,
        offset: u64,
        data: Data,
    },
    /// write(2) with O_APPEND
    Append {
        path: Path,
        data: Data,
    },
    Read {
        path: Path,
        range: Range,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE
    Punch {
        path: Path,
        range: Range,
    },
    /// fallocate(2) that makes a file longer
    Reserve {
        path: Path,
        range: Range,
    },
    /// copy_file_range(2)
    Copy {
        from: Path,
        range: Range,
        to: Path,
        offset: u64,
    },
    Unlink {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        mode: RenameMode,
    },
    Link {
        from: Path,
        to: Path,
    },
    Symlink {
        target: Path,
        path: Path,
    },
    ReadLink {
        path: Path,
    },
    ChangeMode {
        path: Path,
        mode: u16,
    },
    SetXattr {
        path: Path,
        name: &'static str,
        value: Data,
        mode: XattrMode,
    },
    GetXattr {
        path: Path,
        name: &'static str,
    },
    RemoveXattr {
        path: Path,
        name: &'static str,
    },
    ListXattrs {
        path: Path,
    },
    /// lstat(2)
    Status {
        path: Path,
    },
    /// readdir(3)
    List {
        path: Path,
    },
    /// fsync(2), of a file or a directory
    Sync {
        path: Path,
    },
}

/// An operation, and through which of the doors to the same tree it is done (the first, if there are fewer): mounts, or clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub door: usize,
    pub operation: Operation,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.offset, self.end())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeDirectory { path, mode } => write!(f, "mkdir {path}, mode {mode:o}"),
            Self::RemoveDirectory { path } => write!(f, "rmdir {path}"),
            Self::Create { path, mode, exclusive: true } => write!(f, "create {path}, mode {mode:o}, O_EXCL"),
            Self::Create { path, mode, exclusive: false } => write!(f, "create {path}, mode {mode:o}"),
            Self::Write { path, offset, data } => write!(f, "write {path}, {} bytes (seed {}) at {offset}", data.len, data.seed),
            Self::Append { path, data } => write!(f, "append {path}, {} bytes (seed {})", data.len, data.seed),
            Self::Read { path, range } => write!(f, "read {path}, {range}"),
            Self::Truncate { path, size } => write!(f, "truncate {path} to {size}"),
            Self::Punch { path, range } => write!(f, "punch a hole into {path}, {range}"),
            Self::Reserve { path, range } => write!(f, "fallocate {path}, {range}"),
            Self::Copy { from, range, to, offset } => write!(f, "copy_file_range from {from}, {range}, to {to} at {offset}"),
            Self::Unlink { path } => write!(f, "unlink {path}"),
            Self::Rename { from, to, mode: RenameMode::Replace } => write!(f, "rename {from} to {to}"),
            Self::Rename { from, to, mode: RenameMode::NoReplace } => write!(f, "rename {from} to {to}, RENAME_NOREPLACE"),
            Self::Rename { from, to, mode: RenameMode::Exchange } => write!(f, "rename {from} to {to}, RENAME_EXCHANGE"),
            Self::Link { from, to } => write!(f, "link {from} as {to}"),
            Self::Symlink { target, path } => write!(f, "symlink {path} -> {target}"),
            Self::ReadLink { path } => write!(f, "readlink {path}"),
            Self::ChangeMode { path, mode } => write!(f, "chmod {path} to {mode:o}"),
            Self::SetXattr { path, name, value, mode } => {
                write!(f, "setxattr {path}, {name}, {} bytes (seed {}), {mode:?}", value.len, value.seed)
            }
            Self::GetXattr { path, name } => write!(f, "getxattr {path}, {name}"),
            Self::RemoveXattr { path, name } => write!(f, "removexattr {path}, {name}"),
            Self::ListXattrs { path } => write!(f, "listxattr {path}"),
            Self::Status { path } => write!(f, "lstat {path}"),
            Self::List { path } => write!(f, "readdir {path}"),
            Self::Sync { path } => write!(f, "fsync {path}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.door {
            0 => fmt::Display::fmt(&self.operation, f),
            door => write!(f, "{} (through door {door})", self.operation),
        }
    }
}
