//! rename, with RENAME_NOREPLACE and RENAME_EXCHANGE.
//!
//! Programs replace a file by writing a new one and renaming it over the old. A crash between the two must leave the old or the
//! new content, not an empty file: so what was written to the file being moved goes to the master first.

use super::lookup::check_name;
use super::start::FileSystem;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{Mutation, RenameMode};

impl FileSystem {
    pub async fn rename(
        &self,
        from_parent: Ino,
        from_name: &[u8],
        to_parent: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), FsError> {
        check_name(from_name)?;
        check_name(to_name)?;
        let cache = &self.0.cache;
        let moved = self.named(from_parent, from_name).await;
        let met = cache.entry_hint(to_parent, to_name);
        self.flush_before_rename(moved).await;
        let changing = cache.changing_names(&[(from_parent, from_name), (to_parent, to_name)]);
        let mutation = Mutation::Rename { from_parent, from_name: from_name.to_vec(), to_parent, to_name: to_name.to_vec(), mode };
        let changed = self.change(changing, mutation, "rename").await;
        // Links, times and versions of both have changed.
        moved.into_iter().chain(met).for_each(|ino| drop(cache.changing(ino)));
        let known = changed?.known;
        // Two names of one inode: rename does nothing, and both stay. So may be a name of which nothing is known.
        if mode != RenameMode::Exchange && moved.is_some() && met.is_some() && moved != met {
            self.learn_name(&known, from_parent, from_name, None);
        }
        Ok(())
    }

    /// The inode of a name. While anything here is dirty the answer must be right, so the master is asked if the name is not remembered.
    async fn named(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        match self.0.cache.entry_hint(parent, name) {
            None if self.0.data.has_dirty() => self.lookup(parent, name).await.ok().map(|attributes| attributes.ino),
            hint => hint,
        }
    }

    /// An error is remembered by the file and told at its next fsync or close.
    async fn flush_before_rename(&self, moved: Option<Ino>) {
        if let Some(ino) = moved
            && self.0.data.has_dirty()
            && !is_planted(Bug::RenameBeforeContent)
        {
            let file = self.0.data.file(ino);
            if file.has_dirty() {
                let _ = file.flush().await;
            }
        }
    }
}
