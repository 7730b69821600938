//! What is in a directory, a page at a time, so that its length does not matter.

use super::{Found, Store};
use crate::caller::Access;
use crate::failure::{At, Failure};
use crate::place::RemotePath;
use cairn_client::Handle;
use cairn_common::attributes::{Attributes, DirectoryEntry};
use cairn_common::ids::DirCookie;
use cairn_common::limits::DIRECTORY_PAGE_ENTRIES_MAX;

/// An open directory. Entries come in the order in which they were made.
pub struct Entries {
    store: Store,
    path: RemotePath,
    handle: Handle,
    after: DirCookie,
}

impl Store {
    pub async fn entries(&self, directory: &Found) -> Result<Entries, Failure> {
        self.entries_of(&directory.path, &directory.attributes).await
    }

    pub async fn entries_of(&self, path: &RemotePath, directory: &Attributes) -> Result<Entries, Failure> {
        self.check(path, directory, Access::Read)?;
        self.check(path, directory, Access::Search)?;
        let handle = self.fs.open_directory(directory.ino).await.at(path)?;
        Ok(Entries { store: self.clone(), path: path.clone(), handle, after: DirCookie(0) })
    }

    /// All entries of a directory, in order of name. They are all in memory, so this is for directories that are known to be small, or where it
    /// can't be helped.
    pub async fn sorted_entries(&self, path: &RemotePath, directory: &Attributes) -> Result<Vec<DirectoryEntry>, Failure> {
        let mut entries = self.entries_of(path, directory).await?;
        let mut all = Vec::new();
        loop {
            let page = entries.next_page().await?;
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }
}

impl Entries {
    /// The next entries, with attributes; none at the end.
    pub async fn next_page(&mut self) -> Result<Vec<DirectoryEntry>, Failure> {
        let page = self.store.fs.read_directory(self.handle, self.after, DIRECTORY_PAGE_ENTRIES_MAX as usize, true).await.at(&self.path)?;
        if let Some(last) = page.last() {
            self.after = last.cookie;
        }
        Ok(page)
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        // It is there: it was opened by us.
        let _ = self.store.fs.release_directory(self.handle);
    }
}
