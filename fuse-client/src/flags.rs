//! The flags of open(2), fallocate(2) and others, which the kernel passes as plain numbers.

use cairn_client::{AllocateMode, OpenFlags, Opened};
use fuser::{FopenFlags, OpenAccMode};

pub fn open_flags(flags: fuser::OpenFlags) -> OpenFlags {
    let access = flags.acc_mode();
    OpenFlags {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        append: flags.0 & libc_flags::O_APPEND != 0,
        truncate: flags.0 & libc_flags::O_TRUNC != 0,
    }
}

/// The few flags of open(2) and fallocate(2) that the kernel passes as plain numbers.
pub mod libc_flags {
    use rustix::fs::{FallocateFlags, OFlags};
    pub const O_APPEND: i32 = OFlags::APPEND.bits() as i32;
    /// Part of O_SYNC, too.
    pub const O_DSYNC: i32 = OFlags::DSYNC.bits() as i32;
    pub const O_EXCL: i32 = OFlags::EXCL.bits() as i32;
    pub const O_TRUNC: i32 = OFlags::TRUNC.bits() as i32;
    pub const FALLOC_FL_KEEP_SIZE: i32 = FallocateFlags::KEEP_SIZE.bits() as i32;
    pub const FALLOC_FL_PUNCH_HOLE: i32 = FallocateFlags::PUNCH_HOLE.bits() as i32;
    pub const FALLOC_FL_ZERO_RANGE: i32 = FallocateFlags::ZERO_RANGE.bits() as i32;
    pub const SEEK_DATA: i32 = 3;
    pub const SEEK_HOLE: i32 = 4;
    pub const XATTR_CREATE: i32 = 1;
    pub const XATTR_REPLACE: i32 = 2;
}

/// Not FOPEN_NOFLUSH, not even if there is nothing to flush: a process that closes any descriptor of a file lets go of all its locks there.
pub fn fopen_flags(opened: &Opened, is_direct: bool) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, is_direct);
    flags
}

pub fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    use libc_flags::{FALLOC_FL_KEEP_SIZE as KEEP, FALLOC_FL_PUNCH_HOLE as PUNCH, FALLOC_FL_ZERO_RANGE as ZERO};
    match mode {
        0 => Some(AllocateMode::Extend),
        m if m == KEEP => Some(AllocateMode::KeepSize),
        m if m == PUNCH | KEEP => Some(AllocateMode::PunchHole),
        m if m == ZERO => Some(AllocateMode::ZeroRange { keep_size: false }),
        m if m == ZERO | KEEP => Some(AllocateMode::ZeroRange { keep_size: true }),
        _ => None,
    }
}
