//! New inodes and names: create, mkdir, mknod, symlink, O_TMPFILE, link.

use super::attributes::{Changed, Known, unexpected};
use super::lookup::check_name;
use super::start::FileSystem;
use super::types::{OpenFlags, Opened};
use crate::cache::{Leased, Reading};
use crate::link::Mutated;
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
        match self.change(changing, mutation, "create").await? {
            Changed { reply: MutationReply::Inode(attributes), known } => {
                self.learn_name(&known, parent, name, Some(attributes.ino));
                Ok(self.with_own_writes(self.0.cache.learn_own(known.reading, &known.leased, attributes)))
            }
            _ => Err(unexpected("create")),
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
        let reading = changing.reading();
        let made = self.open_made(reading, mutation, flags).await;
        drop(changing);
        let (opened, leased) = made?;
        self.learn_name(&Known { reading, leased }, parent, name, Some(opened.attributes.ino));
        Ok((opened.attributes.clone(), opened))
    }

    /// O_TMPFILE: a regular file without a name; `link` may give it one later.
    pub async fn create_unnamed(&self, parent: Ino, inode: NewInode, flags: OpenFlags) -> Result<(Attributes, Opened), FsError> {
        let reading = self.0.cache.reading();
        let (opened, _) = self.open_made(reading, Mutation::CreateUnnamed { parent, inode }, flags).await?;
        Ok((opened.attributes.clone(), opened))
    }

    async fn open_made(&self, reading: Reading, mutation: Mutation, flags: OpenFlags) -> Result<(Opened, Leased), FsError> {
        let opens = self.0.link.opens();
        let generation = opens.generation();
        let done = self.0.link.mutate(mutation, false).await;
        let (attributes, leased, guard) = match done.map_err(|error| error.to_fs("create"))? {
            Mutated { reply: MutationReply::Inode(attributes), leased, guard: Some(guard) } => (attributes, leased, guard),
            _ => return Err(unexpected("create")),
        };
        // An existing file may have content. And the master may not hold it open: see `open_inodes`.
        let may_be_closed = opens.generation() != generation || opens.is_being_told(attributes.ino);
        if attributes.size > 0 || attributes.allocated > 0 || may_be_closed {
            self.0.cache.accept(reading, &leased);
            return Ok((self.open_held(guard, flags).await?, leased));
        }
        let file = self.0.data.file(attributes.ino);
        let changed = self.see(&file, &attributes, &ExtentPage::default());
        self.0.cache.accept(reading, &leased);
        self.rest(&file, reading, &leased);
        let attributes = self.0.cache.learn_own(reading, &leased, attributes);
        Ok((self.enter(attributes, file, changed, guard, flags), leased))
    }

    /// A further name for an inode.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attributes, FsError> {
        check_name(name)?;
        let changing = (self.0.cache.changing(ino), self.0.cache.changing_names(&[(parent, name)]));
        let changed = self.change(changing.1, Mutation::Link { ino, parent, name: name.to_vec() }, "link").await;
        drop(changing.0);
        match changed? {
            Changed { reply: MutationReply::Inode(attributes), known } => {
                self.learn_name(&known, parent, name, Some(attributes.ino));
                Ok(self.with_own_writes(self.learn_changed(known, attributes)))
            }
            _ => Err(unexpected("link")),
        }
    }
}
