//! What the operations take and give besides the vocabulary of `common`.

use cairn_common::attributes::Attributes;

/// An open file or directory of this client. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags {
    pub read: bool,
    pub write: bool,
    /// Writes go to the end of the file, wherever that is.
    pub append: bool,
    /// The file is emptied.
    pub truncate: bool,
}

impl OpenFlags {
    pub const READ: OpenFlags = OpenFlags { read: true, write: false, append: false, truncate: false };
    pub const READ_WRITE: OpenFlags = OpenFlags { read: true, write: true, append: false, truncate: false };
}

/// Where the bytes of a write go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteAt {
    Offset(u64),
    /// The end of the file as it is then.
    End,
    /// The same, and this may be but a piece of what is written in one call: for a moment, nobody else moves the end.
    EndAndMore,
}

/// Where they have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub offset: u64,
    pub len: usize,
}

/// A file that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub handle: Handle,
    pub attributes: Attributes,
    /// The file is as it was when this client last had it open: what the kernel has cached of it may stay.
    pub keep_cache: bool,
}

/// What `fallocate` shall do with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocateMode {
    /// The file reaches at least the range's end. No space is reserved.
    Extend,
    /// FALLOC_FL_KEEP_SIZE: nothing to do, for no space is reserved.
    KeepSize,
    /// FALLOC_FL_PUNCH_HOLE
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE; with `keep_size` the file does not grow.
    ZeroRange { keep_size: bool },
}

/// What `lseek` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTarget {
    Data,
    Hole,
}
