//! From a path to its inode. Symlinks are followed as a mount would, but never out of CairnFS.

use super::Store;
use crate::caller::Access;
use crate::failure::{At, Failure, Reason};
use crate::place::RemotePath;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use std::collections::VecDeque;

/// Symlinks on the way to one file, as Linux has it.
const SYMLINKS_MAX: usize = 40;

/// Whether the last name of a path may be a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The answer is what the symlink leads to.
    Last,
    /// The answer is the symlink.
    AllButLast,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub struct Found {
    pub path: RemotePath,
    pub attributes: Attributes,
    /// The directory in which it was found; the root is its own.
    pub parent: Attributes,
    /// Its name there: not that of the path if that is a symlink.
    pub name: Vec<u8>,
}

impl Found {
    pub fn is_directory(&self) -> bool {
        self.attributes.kind == FileKind::Directory
    }

    pub fn ino(&self) -> Ino {
        self.attributes.ino
    }
}

/// The state of a walk along a path.
struct Way {
    /// The directories from the root to where we are, and the last thing found, with their names.
    trail: Vec<(Attributes, Vec<u8>)>,
    ahead: VecDeque<Vec<u8>>,
    symlinks: usize,
}

impl Store {
    pub async fn find(&self, path: &RemotePath, follow: Follow) -> Result<Found, Failure> {
        let root = self.fs.attributes(Ino::ROOT).await.at(path)?;
        let mut way = Way { trail: vec![(root, Vec::new())], ahead: path.names().iter().cloned().collect(), symlinks: 0 };
        while let Some(name) = way.ahead.pop_front() {
            self.step(path, &mut way, name, follow).await?;
        }
        let (attributes, name) = way.trail.pop().ok_or_else(|| Failure::new(path, FsError::NotFound))?;
        let parent = way.trail.pop().map_or_else(|| attributes.clone(), |(parent, _)| parent);
        if path.is_folder && attributes.kind != FileKind::Directory && follow == Follow::Last {
            return Err(Failure::new(path, FsError::NotDirectory));
        }
        Ok(Found { path: path.clone(), attributes, parent, name })
    }

    /// What a path leads to, if anything is there.
    pub async fn find_if_any(&self, path: &RemotePath, follow: Follow) -> Result<Option<Found>, Failure> {
        match self.find(path, follow).await {
            Ok(found) => Ok(Some(found)),
            Err(Failure { reason: Reason::Fs(FsError::NotFound), .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A directory that must be there.
    pub async fn find_directory(&self, path: &RemotePath) -> Result<Found, Failure> {
        let found = self.find(path, Follow::Last).await?;
        if found.is_directory() { Ok(found) } else { Err(Failure::new(path, FsError::NotDirectory)) }
    }

    async fn step(&self, path: &RemotePath, way: &mut Way, name: Vec<u8>, follow: Follow) -> Result<(), Failure> {
        match name.as_slice() {
            b"" | b"." => return Ok(()),
            b".." => {
                if way.trail.len() > 1 {
                    way.trail.pop();
                }
                return Ok(());
            }
            _ => {}
        }
        let Some((directory, _)) = way.trail.last() else { return Err(Failure::new(path, FsError::NotFound)) };
        if directory.kind != FileKind::Directory {
            return Err(Failure::new(path, FsError::NotDirectory));
        }
        self.check(path, directory, Access::Search)?;
        let attributes = match self.fs.lookup(directory.ino, &name).await {
            Ok(attributes) => attributes,
            Err(FsError::NotFound) if way.trail.len() == 1 && way.symlinks == 0 => {
                return Err(Failure::new(path, Reason::NoBucket(path.bucket())));
            }
            Err(error) => return Err(Failure::new(path, error)),
        };
        let is_last = way.ahead.is_empty();
        if attributes.kind == FileKind::Symlink && (!is_last || follow == Follow::Last) {
            return self.turn_off(path, way, attributes.ino).await;
        }
        way.trail.push((attributes, name));
        Ok(())
    }

    /// Goes where a symlink points.
    async fn turn_off(&self, path: &RemotePath, way: &mut Way, symlink: Ino) -> Result<(), Failure> {
        let target = self.fs.read_link(symlink).await.at(path)?;
        if target.starts_with(b"/") {
            let target = String::from_utf8_lossy(&target).into_owned();
            return Err(Failure::said(path, format!("it is a symlink to {target}, outside of CairnFS")));
        }
        way.symlinks += 1;
        if way.symlinks > SYMLINKS_MAX {
            return Err(Failure::said(path, "too many symlinks lead to each other"));
        }
        for name in target.split(|byte| *byte == b'/').rev() {
            way.ahead.push_front(name.to_vec());
        }
        Ok(())
    }
}
