//! Giving complete content its name in CairnFS, at once.

use super::part::passing_name;
use crate::failure::{At, Failure};
use crate::place::RemotePath;
use crate::store::Store;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::RenameMode;

/// Where content shall stand.
#[derive(Debug, Clone)]
pub struct Seat {
    pub path: RemotePath,
    pub directory: Attributes,
    pub name: Vec<u8>,
    /// What is there is replaced.
    pub replace: bool,
}

impl Seat {
    /// Names an inode that has no name yet. Whether it has it now: not if something is there that is to stay.
    pub async fn name_unnamed(&self, store: &Store, ino: Ino) -> Result<bool, Failure> {
        match store.fs.link(ino, self.directory.ino, &self.name).await {
            Ok(_) => return Ok(true),
            Err(FsError::Exists) if !self.replace => return Ok(false),
            Err(FsError::Exists) => {}
            Err(error) => return Err(Failure::new(&self.path, error)),
        }
        let part = passing_name(&self.name, store.runtime.random_u64());
        store.fs.link(ino, self.directory.ino, &part).await.at(&self.path)?;
        self.name_part(store, &part).await
    }

    /// Gives the final name to a file that has another in the same directory; if that can't be, the file goes.
    pub async fn name_part(&self, store: &Store, part: &[u8]) -> Result<bool, Failure> {
        let named = self.rename(store, part).await;
        if !matches!(named, Ok(true)) {
            // It may be gone already; and nothing depends on it.
            let _ = store.fs.unlink(self.directory.ino, part).await;
        }
        named
    }

    /// Whether it makes sense to bring content here: not if something is there that is to stay. Fails if it could never get the name.
    pub async fn is_open(&self, store: &Store) -> Result<bool, Failure> {
        match self.replace {
            true => self.check_replaceable(store).await.map(|()| true),
            false => match store.fs.lookup(self.directory.ino, &self.name).await {
                Ok(_) => Ok(false),
                Err(FsError::NotFound) => Ok(true),
                Err(error) => Err(Failure::new(&self.path, error)),
            },
        }
    }

    async fn rename(&self, store: &Store, part: &[u8]) -> Result<bool, Failure> {
        let directory = self.directory.ino;
        if self.replace {
            self.check_replaceable(store).await?;
        }
        let mode = if self.replace { RenameMode::Replace } else { RenameMode::NoReplace };
        match store.fs.rename(directory, part, directory, &self.name, mode).await {
            Ok(()) => Ok(true),
            Err(FsError::Exists) if !self.replace => Ok(false),
            Err(error) => Err(Failure::new(&self.path, error)),
        }
    }

    /// Fails if what has the name is a directory, or another user's in a sticky directory.
    async fn check_replaceable(&self, store: &Store) -> Result<(), Failure> {
        match store.fs.lookup(self.directory.ino, &self.name).await {
            Ok(old) if old.kind == FileKind::Directory => Err(Failure::said(&self.path, "a directory is there: a file can't replace it")),
            Ok(old) if !store.caller.may_remove(&self.directory, &old) => Err(Failure::new(&self.path, FsError::AccessDenied)),
            Ok(_) | Err(FsError::NotFound) => Ok(()),
            Err(error) => Err(Failure::new(&self.path, error)),
        }
    }
}
