//! One errno for each error of the library, in one exhaustive match.

use cairn_common::error::FsError;
use fuser::Errno;

pub fn errno(error: FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::Invalid => Errno::EINVAL,
        FsError::NotPermitted => Errno::EPERM,
        FsError::AccessDenied => Errno::EACCES,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::NoAttribute => Errno::NO_XATTR,
        FsError::AttributeTooLarge => Errno::E2BIG,
        FsError::OutOfRange => Errno::ERANGE,
        FsError::NoDataThere => Errno::ENXIO,
        FsError::ReadOnly => Errno::EROFS,
        FsError::NotSupported => Errno::EOPNOTSUPP,
        FsError::Stale => Errno::ESTALE,
        FsError::Interrupted => Errno::EINTR,
        FsError::BadHandle => Errno::EBADF,
        FsError::Busy => Errno::EBUSY,
        FsError::Io => Errno::EIO,
        FsError::WouldBlock => Errno::EAGAIN,
        FsError::Deadlock => Errno::EDEADLK,
        FsError::NoLocks => Errno::ENOLCK,
    }
}
