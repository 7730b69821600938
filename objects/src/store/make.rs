//! New buckets, directories, files, links; and names for what is there.

use super::{Follow, Found, Store};
use crate::failure::{At, Failure, Reason};
use crate::place::RemotePath;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, TimeChange};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::RenameMode;

impl Store {
    /// Makes a bucket. Whether it is new; `or_existing` takes one that is there.
    pub async fn make_bucket(&self, path: &RemotePath, or_existing: bool) -> Result<bool, Failure> {
        let [name] = path.names() else { return Err(Failure::said(path, "a bucket is named by cairn://BUCKET, without a key")) };
        let root = self.fs.attributes(Ino::ROOT).await.at(path)?;
        match self.make_directory(path, &root, name).await {
            Ok(_) => Ok(true),
            Err(Failure { reason: Reason::Fs(FsError::Exists), .. }) => match or_existing {
                true => self.find_directory(path).await.map(|_| false),
                false => Err(Failure::said(path, "the bucket exists already")),
            },
            Err(failure) => Err(failure),
        }
    }

    async fn make_directory(&self, path: &RemotePath, parent: &Attributes, name: &[u8]) -> Result<Attributes, Failure> {
        self.check_change(path, parent)?;
        let inode = self.caller.new_inode(FileKind::Directory, 0o777 & !self.caller.umask);
        self.fs.create(parent.ino, name, inode, false).await.at(path)
    }

    /// The directory of a path, made with all that is missing above it: keys need no directories beforehand. The bucket must be there.
    pub async fn directory_made(&self, path: &RemotePath) -> Result<Found, Failure> {
        let mut missing: Vec<Vec<u8>> = Vec::new();
        let mut present = path.clone();
        let mut found = loop {
            match self.find_if_any(&present, Follow::Last).await? {
                Some(found) if found.is_directory() => break found,
                Some(_) => return Err(Failure::said(path, format!("{present} is a file, not a directory"))),
                None => {
                    missing.extend(present.name().map(<[u8]>::to_vec));
                    present = present.parent().ok_or_else(|| Failure::new(path, FsError::NotFound))?;
                }
            }
        };
        for name in missing.into_iter().rev() {
            let path = found.path.child(&name);
            let attributes = match self.make_directory(&path, &found.attributes, &name).await {
                // Somebody was faster.
                Err(Failure { reason: Reason::Fs(FsError::Exists), .. }) => self.find_directory(&path).await?.attributes,
                made => made?,
            };
            found = Found { path, attributes, parent: found.attributes, name };
        }
        Ok(found)
    }

    /// Where a path's last name stands or shall stand: its directory (made if need be) and the name.
    pub async fn seat(&self, path: &RemotePath) -> Result<(Found, Vec<u8>), Failure> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Err(Failure::said(path, "it names no file: write cairn://BUCKET/KEY"));
        };
        if parent.is_root() {
            return Err(Failure::said(path, "only buckets stand at the top: write cairn://BUCKET/KEY, or make one with `cairn mb`"));
        }
        let directory = self.directory_made(&parent).await.map_err(|failure| Failure { object: path.to_string(), ..failure })?;
        Ok((directory, name.to_vec()))
    }

    /// An empty file; or, if something is there, its times set to now.
    pub async fn touch(&self, path: &RemotePath, create: bool) -> Result<(), Failure> {
        if let Some(found) = self.find_if_any(path, Follow::Last).await? {
            self.check_owner(path, &found.attributes)?;
            let now = Some(TimeChange::Now);
            let change = AttributeChange { atime: now, mtime: now, ..AttributeChange::default() };
            return self.fs.set_attributes(found.ino(), change, None).await.map(|_| ()).at(path);
        }
        if !create {
            return Ok(());
        }
        let (directory, name) = self.seat(path).await?;
        self.check_change(path, &directory.attributes)?;
        let inode = self.caller.new_inode(FileKind::Regular, 0o666 & !self.caller.umask);
        self.fs.create(directory.ino(), &name, inode, true).await.map(|_| ()).at(path)
    }

    pub async fn make_symlink(&self, target: &[u8], path: &RemotePath, replace: bool) -> Result<(), Failure> {
        let (directory, name) = self.seat(path).await?;
        self.check_change(path, &directory.attributes)?;
        if replace {
            self.remove_file_if_any(path).await?;
        }
        let inode = NewInode { symlink_target: target.to_vec(), ..self.caller.new_inode(FileKind::Symlink, 0o777) };
        self.fs.create(directory.ino(), &name, inode, false).await.map(|_| ()).at(path)
    }

    /// A further name of a file.
    pub async fn make_hard_link(&self, existing: &RemotePath, path: &RemotePath, replace: bool) -> Result<(), Failure> {
        let found = self.find(existing, Follow::AllButLast).await?;
        if found.is_directory() {
            return Err(Failure::said(existing, "directories can't have a second name: make a symlink with `cairn ln -s`"));
        }
        let (directory, name) = self.seat(path).await?;
        self.check_change(path, &directory.attributes)?;
        if replace {
            self.remove_file_if_any(path).await?;
        }
        self.fs.link(found.ino(), directory.ino(), &name).await.map(|_| ()).at(path)
    }

    async fn remove_file_if_any(&self, path: &RemotePath) -> Result<(), Failure> {
        match self.find_if_any(path, Follow::AllButLast).await? {
            Some(found) if found.is_directory() => Err(Failure::new(path, FsError::IsDirectory)),
            Some(found) => self.remove_file(&found).await,
            None => Ok(()),
        }
    }

    /// Renames a file or a directory with all that is in it, at once. `target` is the new name itself.
    pub async fn rename(&self, source: &Found, target: &RemotePath, replace: bool) -> Result<(), Failure> {
        if target.is_within(&source.path) && source.is_directory() {
            return Err(Failure::said(&source.path, format!("it can't be moved into itself ({target})")));
        }
        if !self.caller.may_remove(&source.parent, &source.attributes) {
            return Err(Failure::new(&source.path, FsError::AccessDenied));
        }
        let (directory, name) = self.seat(target).await?;
        self.check_change(target, &directory.attributes)?;
        if let Some(old) = self.find_if_any(target, Follow::AllButLast).await?
            && replace
            && !self.caller.may_remove(&directory.attributes, &old.attributes)
        {
            return Err(Failure::new(target, FsError::AccessDenied));
        }
        let mode = if replace { RenameMode::Replace } else { RenameMode::NoReplace };
        self.fs.rename(source.parent.ino, &source.name, directory.ino(), &name, mode).await.at(target)
    }
}
