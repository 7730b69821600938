//! Attributes of an inode, as every role sees them.

use crate::ids::{DirCookie, Ino, PoolId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// What `stat` tells, and a little more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub ino: Ino,
    pub kind: FileKind,
    /// Permission bits with set-uid, set-gid and sticky: `mode & 0o7777`.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Device number of a device node, as `makedev` packs it; 0 otherwise.
    pub rdev: u32,
    /// Length in bytes. Of a symlink: of its target. Of a directory: the number of its entries.
    pub size: u64,
    /// Bytes that extents cover, before redundancy.
    pub allocated: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// When the inode was made.
    pub btime: Timestamp,
    /// Grows with each change of the inode's attributes, data or (for a directory) entries.
    pub version: u64,
    /// Whether it has extended attributes: most have none, and then nobody need ask for them one by one.
    pub has_xattrs: bool,
    /// Of a regular file: the pool that its content goes to, settled when it was made. Of a directory: what its policy says for new files
    /// below it. `None`: a file that no policy spoke of, whose content goes to the default pool; a directory without a policy of its own.
    pub pool: Option<PoolId>,
}

/// Who asks: decides the owner of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// A change of attributes; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
    /// Set by the kernel's write-back only; otherwise the master stamps ctime.
    pub ctime: Option<Timestamp>,
}

/// A time as `utimensat` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeChange {
    /// UTIME_NOW: the time at the master.
    Now,
    At(Timestamp),
}

/// What a new inode shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewInode {
    pub kind: FileKind,
    pub mode: u16,
    pub owner: Owner,
    pub rdev: u32,
    /// The target, for a symlink; empty otherwise.
    pub symlink_target: Vec<u8>,
    /// Permissions that are taken from the mode, unless the directory has a default access list, which then decides.
    pub umask: u16,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: FileKind,
    /// Where to go on after this entry.
    pub cookie: DirCookie,
    /// Present if the listing asked for attributes.
    pub attributes: Option<Attributes>,
}
