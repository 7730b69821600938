//! CairnFS by paths instead of inodes, for one user: what the kernel does for a mount (walking paths, following symlinks, judging modes) is done
//! here.

mod entries;
mod find;
mod make;
mod remove;

pub use entries::Entries;
pub use find::{Follow, Found};
pub use remove::Removed;

use crate::caller::{Access, Caller};
use crate::failure::{At, Failure, Reason};
use cairn_client::FileSystem;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_runtime::Runtime;
use std::fmt::Display;
use std::sync::Arc;

/// A connected file system, as one user sees it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub fs: FileSystem,
    pub runtime: Runtime,
    pub caller: Arc<Caller>,
}

impl Store {
    pub fn new(fs: FileSystem, runtime: Runtime, caller: Caller) -> Self {
        Self { fs, runtime, caller: Arc::new(caller) }
    }

    /// Fails unless the caller may do this with the inode.
    pub fn check(&self, object: impl Display, inode: &Attributes, access: Access) -> Result<(), Failure> {
        if self.caller.may(inode, access) { Ok(()) } else { Err(Failure::new(object, Reason::Fs(FsError::AccessDenied))) }
    }

    /// Fails unless the caller may make entries in the directory.
    pub fn check_change(&self, object: impl Display, directory: &Attributes) -> Result<(), Failure> {
        if self.caller.may_change(directory) { Ok(()) } else { Err(Failure::new(object, Reason::Fs(FsError::AccessDenied))) }
    }

    /// Fails unless the caller may set mode, times and extended attributes.
    pub fn check_owner(&self, object: impl Display, inode: &Attributes) -> Result<(), Failure> {
        if self.caller.owns(inode) { Ok(()) } else { Err(Failure::new(object, Reason::Fs(FsError::NotPermitted))) }
    }

    /// Everything done so far survives the loss of power everywhere when this returns.
    pub async fn make_stable(&self) -> Result<(), Failure> {
        self.fs.sync_all().await.at("what was written")
    }
}
