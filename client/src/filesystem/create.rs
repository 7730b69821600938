//! New inodes and names: create, mkdir, mknod, symlink, O_TMPFILE, link.

use super::attributes::unexpected;
use super::lookup::check_name;
use super::start::FileSystem;
use super::types::{OpenFlags, Opened};
use cairn_common::attributes::{Attributes, NewInode};
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::Ino;
use cairn_common::wire::master::{Mutation, MutationReply};

impl FileSystem {
    /// Makes an inode of any kind, without opening it. With `or_existing`, an existing regular file of that name is the answer.
    pub async fn create(&self, parent: Ino, name: &[u8], inode: NewInode, or_existing: bool) -> Result<Attributes, FsError> {
        check_name(name)?;
        let changing = self.0.cache.changing_names(&[(parent, name)]);
        let mutation = Mutation::Create { parent, name: name.to_vec(), inode, open: false, or_existing };
        let reply = self.0.link.mutate(mutation, false).await;
        drop(changing);
        match reply {
            Ok(MutationReply::Inode(attributes)) => {
                self.0.cache.set_entry(parent, name, Some(attributes.ino));
                Ok(self.with_own_writes(self.0.cache.learn_own(attributes)))
            }
            Ok(_) => Err(unexpected("create")),
            Err(error) => Err(error.to_fs("create")),
        }
    }

    /// open(2) with O_CREAT: makes a regular file and opens it.
    pub async fn create_open(
        &self,
        parent: Ino,
        name: &[u8],
        inode: NewInode,
        or_existing: bool,
        flags: OpenFlags,
    ) -> Result<(Attributes, Opened), FsError> {
        check_name(name)?;
        let changing = self.0.cache.changing_names(&[(parent, name)]);
        let mutation = Mutation::Create { parent, name: name.to_vec(), inode, open: true, or_existing };
        let made = self.open_made(mutation, flags).await;
        drop(changing);
        let opened = made?;
        self.0.cache.set_entry(parent, name, Some(opened.attributes.ino));
        Ok((opened.attributes.clone(), opened))
    }

    /// O_TMPFILE: a regular file without a name; `link` may give it one later.
    pub async fn create_unnamed(&self, parent: Ino, inode: NewInode, flags: OpenFlags) -> Result<(Attributes, Opened), FsError> {
        let opened = self.open_made(Mutation::CreateUnnamed { parent, inode }, flags).await?;
        Ok((opened.attributes.clone(), opened))
    }

    async fn open_made(&self, mutation: Mutation, flags: OpenFlags) -> Result<Opened, FsError> {
        let opens = self.0.link.opens();
        let generation = opens.generation();
        let reply = self.0.link.mutate_and_hold(mutation, false).await;
        let (attributes, guard) = match reply.map_err(|error| error.to_fs("create"))? {
            (MutationReply::Inode(attributes), Some(guard)) => (attributes, guard),
            _ => return Err(unexpected("create")),
        };
        // An existing file may have content. And the master may not hold it open: see `open_inodes`.
        let may_be_closed = opens.generation() != generation || opens.is_being_told(attributes.ino);
        if attributes.size > 0 || attributes.allocated > 0 || may_be_closed {
            return self.open_held(guard, flags).await;
        }
        let attributes = self.0.cache.learn_own(attributes);
        Ok(self.enter(attributes, &ExtentPage::default(), guard, flags))
    }

    /// A further name for an inode.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attributes, FsError> {
        check_name(name)?;
        let changing = (self.0.cache.changing(ino), self.0.cache.changing_names(&[(parent, name)]));
        let reply = self.0.link.mutate(Mutation::Link { ino, parent, name: name.to_vec() }, false).await;
        drop(changing);
        match reply {
            Ok(MutationReply::Inode(attributes)) => {
                self.0.cache.set_entry(parent, name, Some(attributes.ino));
                Ok(self.with_own_writes(self.learn_changed(attributes)))
            }
            Ok(_) => Err(unexpected("link")),
            Err(error) => Err(error.to_fs("link")),
        }
    }
}
