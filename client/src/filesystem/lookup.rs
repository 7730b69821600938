//! Names to inodes: lookup, paths, symlinks.

use super::start::FileSystem;
use crate::link::{Answer, AskError};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::NAME_BYTES_MAX;
use cairn_common::wire::master::{MasterReply, MasterRequest};

/// A name as an entry can have it.
pub(super) fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(FsError::Invalid);
    }
    Ok(())
}

impl FileSystem {
    /// The inode that `name` leads to in a directory; a symlink is not followed.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attributes, FsError> {
        check_name(name)?;
        if let Some(known) = self.try_lookup(parent, name) {
            return known;
        }
        let cache = &self.0.cache;
        let reading = cache.reading();
        let asked = self.0.link.ask_for_leases(|_| MasterRequest::Lookup { parent, name: name.to_vec() }).await;
        let Answer { reply, leased } = asked.map_err(|error| error.to_fs("lookup"))?;
        cache.accept(reading, &leased);
        match reply {
            MasterReply::Attributes(attributes) => {
                cache.learn_entry(reading, &leased, parent, name, Some(attributes.ino));
                let attributes = cache.learn(reading, &leased, attributes);
                self.note_lookup(parent, name);
                Ok(self.with_own_writes(attributes))
            }
            MasterReply::NoSuchName => {
                cache.learn_entry(reading, &leased, parent, name, None);
                Err(FsError::NotFound)
            }
            other => Err(AskError::unexpected(&other).to_fs("lookup")),
        }
    }

    /// Walks a path from the root. `.` and `..` are taken as they are written; symlinks are not followed.
    pub async fn resolve(&self, path: &[u8]) -> Result<Attributes, FsError> {
        let mut trail = vec![self.attributes(Ino::ROOT).await?];
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." if trail.len() > 1 => drop(trail.pop()),
                b".." => {}
                _ => {
                    let parent = trail.last().map_or(Ino::ROOT, |attributes| attributes.ino);
                    trail.push(self.lookup(parent, name).await?);
                }
            }
        }
        trail.pop().ok_or(FsError::NotFound)
    }

    /// The target of a symlink.
    pub async fn read_link(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        match self.0.link.ask(MasterRequest::ReadLink { ino }).await {
            Ok(MasterReply::Link { target }) => Ok(target),
            Ok(other) => Err(AskError::unexpected(&other).to_fs("readlink")),
            Err(error) => Err(error.to_fs("readlink")),
        }
    }
}
