//! unlink and rmdir.
//!
//! POSIX: the content of a file lives until its last name and its last descriptor are gone. The master keeps it for as long as
//! this session holds it open (`link::open_inodes`).

use super::attributes::{Changed, unexpected};
use super::lookup::check_name;
use super::start::FileSystem;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::{Mutation, MutationReply};

impl FileSystem {
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        check_name(name)?;
        self.remove(parent, name, Mutation::Unlink { parent, name: name.to_vec() }, "unlink").await
    }

    pub async fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        check_name(name)?;
        self.remove(parent, name, Mutation::RemoveDirectory { parent, name: name.to_vec() }, "rmdir").await
    }

    async fn remove(&self, parent: Ino, name: &[u8], mutation: Mutation, what: &str) -> Result<(), FsError> {
        let changing = self.0.cache.changing_names(&[(parent, name)]);
        match self.change(changing, mutation, what).await? {
            Changed { reply: MutationReply::Removed(attributes), known } => {
                self.learn_name(&known, parent, name, None);
                self.learn_changed(known, attributes);
                Ok(())
            }
            _ => Err(unexpected(what)),
        }
    }
}
