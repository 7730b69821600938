//! What a file-system operation can answer instead of its result. Closed, so that each variant has one errno.

use serde::{Deserialize, Serialize};

/// Why an operation on the file system did not happen. The errno of each is in fuse-client's `errno` module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("the file exists already")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("the name is too long")]
    NameTooLong,
    #[error("invalid argument")]
    Invalid,
    #[error("the operation is not permitted")]
    NotPermitted,
    #[error("permission denied")]
    AccessDenied,
    #[error("too many links")]
    TooManyLinks,
    #[error("the file is too large")]
    FileTooLarge,
    #[error("no space is left")]
    NoSpace,
    #[error("no such attribute")]
    NoAttribute,
    #[error("the attribute is too large")]
    AttributeTooLarge,
    #[error("the result does not fit")]
    OutOfRange,
    #[error("no data at or after that offset")]
    NoDataThere,
    #[error("the file system is read-only")]
    ReadOnly,
    #[error("the operation is not supported")]
    NotSupported,
    #[error("the inode is gone")]
    Stale,
    #[error("the operation was interrupted")]
    Interrupted,
    #[error("bad file descriptor")]
    BadHandle,
    #[error("resource busy")]
    Busy,
    #[error("input or output error")]
    Io,
    #[error("the lock is held by somebody else")]
    WouldBlock,
    #[error("waiting for the lock would never end")]
    Deadlock,
    #[error("too many locks")]
    NoLocks,
}
