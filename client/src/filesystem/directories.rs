//! opendir, readdir (with and without attributes), closedir.

use super::listing::{DirectoryHandle, Fetch, Page};
use super::start::FileSystem;
use super::types::Handle;
use crate::link::AskError;
use cairn_common::attributes::DirectoryEntry;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::DIRECTORY_PAGE_ENTRIES_MAX;
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest};
use std::sync::Arc;
use tokio::sync::oneshot;

impl FileSystem {
    /// Opens a directory for listing.
    pub async fn open_directory(&self, ino: Ino) -> Result<Handle, FsError> {
        Ok(self.0.handles.insert_directory(DirectoryHandle::new(ino)))
    }

    /// Closes what `open_directory` opened.
    pub fn release_directory(&self, handle: Handle) -> Result<(), FsError> {
        self.0.handles.remove_directory(handle)
    }

    /// Up to `max` entries after a cookie (0 is the beginning), without `.` and `..`; none at the end. With attributes, most
    /// entries carry them; those that changed since the page was fetched may come without.
    pub async fn read_directory(
        &self,
        handle: Handle,
        after: DirCookie,
        max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, FsError> {
        let directory = self.0.handles.directory(handle)?;
        loop {
            let page = match directory.page_for(after, with_attributes) {
                Some(page) => page,
                None => {
                    let page = self.next_page(&directory, after, with_attributes).await?;
                    directory.turn_to(&page);
                    self.0.lookahead.note_page(directory.ino, &page);
                    page
                }
            };
            match page.entries_after(after) {
                Some(entries) => {
                    let listed = self.list(entries, max, with_attributes);
                    self.fetch_ahead(&directory, &page);
                    return Ok(listed);
                }
                // An empty page that is not the last one: the master stopped early.
                None if page.last() > after => {}
                None => return Err(FsError::Io),
            }
        }
    }

    /// The same without waiting, if the page is at hand.
    pub fn try_read_directory(
        &self,
        handle: Handle,
        after: DirCookie,
        max: usize,
        with_attributes: bool,
    ) -> Option<Result<Vec<DirectoryEntry>, FsError>> {
        let directory = match self.0.handles.directory(handle) {
            Ok(directory) => directory,
            Err(error) => return Some(Err(error)),
        };
        let page = directory.page_for(after, with_attributes)?;
        let listed = self.list(page.entries_after(after)?, max, with_attributes);
        self.fetch_ahead(&directory, &page);
        Some(Ok(listed))
    }

    /// Attributes come from the cache, where our own changes since the fetch show.
    fn list(&self, entries: &[DirectoryEntry], max: usize, with_attributes: bool) -> Vec<DirectoryEntry> {
        let listed = entries.iter().take(max.max(1));
        listed
            .map(|entry| {
                let attributes = if with_attributes { self.try_attributes(entry.ino) } else { None };
                DirectoryEntry { attributes, ..entry.clone() }
            })
            .collect()
    }

    async fn next_page(&self, directory: &DirectoryHandle, after: DirCookie, with_attributes: bool) -> Result<Arc<Page>, FsError> {
        if let Some(fetch) = directory.take_fetch(after)
            && let Ok(Ok(page)) = fetch.await
            && (page.with_attributes || !with_attributes)
        {
            return Ok(page);
        }
        self.fetch_page(directory.ino, after, DIRECTORY_PAGE_ENTRIES_MAX, with_attributes).await
    }

    /// Asks the master, and remembers names and attributes.
    pub(super) async fn fetch_page(&self, ino: Ino, after: DirCookie, limit: u32, with_attributes: bool) -> Result<Arc<Page>, FsError> {
        let reading = self.0.cache.reading();
        let request = MasterRequest::ReadDirectory { ino, after, limit, with_attributes };
        let (mut entries, end) = match self.0.link.ask(request).await {
            Ok(MasterReply::Directory { entries, end }) => (entries, end),
            Ok(other) => return Err(AskError::unexpected(&other).to_fs("readdir")),
            // Removed while it was open: it lists as empty.
            Err(AskError::Refused(MasterError::Fs(FsError::NotFound | FsError::Stale))) => (Vec::new(), true),
            Err(error) => return Err(error.to_fs("readdir")),
        };
        for entry in &mut entries {
            if let Some(attributes) = entry.attributes.take() {
                self.0.cache.learn_entry(reading, ino, &entry.name, Some(entry.ino));
                self.0.cache.learn(reading, attributes);
            }
        }
        Ok(Arc::new(Page { after, entries, end, with_attributes }))
    }

    /// Fetches the page after this one while this one is being read.
    fn fetch_ahead(&self, directory: &DirectoryHandle, page: &Arc<Page>) {
        if !directory.wants_next(page) {
            return;
        }
        let (sender, fetch): (_, Fetch) = oneshot::channel();
        directory.expect(page, fetch);
        let (this, ino, after, with_attributes) = (self.clone(), directory.ino, page.last(), page.with_attributes);
        self.0.runtime.spawn("read a directory ahead", async move {
            let page = this.fetch_page(ino, after, DIRECTORY_PAGE_ENTRIES_MAX, with_attributes).await;
            // The reader may have gone.
            let _ = sender.send(page);
        });
    }
}
