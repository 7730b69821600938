//! The policies of directories: to which pool the content of new files goes.

use super::attributes::{Changed, unexpected};
use super::start::FileSystem;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, PoolId};
use cairn_common::wire::master::{Mutation, MutationReply};

impl FileSystem {
    /// Gives a directory a policy, or takes it away; on stable storage when this returns. Files that exist stay where they are.
    pub async fn set_policy(&self, ino: Ino, pool: Option<PoolId>) -> Result<Attributes, FsError> {
        let done = self.change(self.0.cache.changing(ino), Mutation::SetPolicy { ino, pool }, "setting a policy").await?;
        let Changed { reply: MutationReply::Inode(attributes), known } = done else { return Err(unexpected("setting a policy")) };
        let attributes = self.learn_changed(known, attributes);
        self.sync_directory(ino).await?;
        Ok(attributes)
    }
}
