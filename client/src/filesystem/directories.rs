//! opendir, readdir (with and without attributes), closedir.

use super::listing::{DirectoryHandle, Fetch, Listing, Page};
use super::start::FileSystem;
use super::types::Handle;
use crate::cache::Leased;
use crate::limits::KERNEL_LISTS;
use crate::link::{Answer, AskError};
use cairn_common::attributes::DirectoryEntry;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::DIRECTORY_PAGE_ENTRIES_MAX;
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Attributes of entries that are asked for side by side.
const ASKED_AT_ONCE: usize = 64;

impl FileSystem {
    /// Opens a directory for listing.
    pub async fn open_directory(&self, ino: Ino) -> Result<Handle, FsError> {
        Ok(self.0.handles.insert_directory(DirectoryHandle::new(ino)))
    }

    /// Closes what `open_directory` opened.
    pub fn release_directory(&self, handle: Handle) -> Result<(), FsError> {
        self.0.handles.remove_directory(handle)
    }

    /// Up to `max` entries after a cookie (0 is the beginning), without `.` and `..`; none at the end.
    pub async fn read_directory(
        &self,
        handle: Handle,
        after: DirCookie,
        max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, FsError> {
        let directory = self.0.handles.directory(handle)?;
        let mut after = after;
        if after == DirCookie(0)
            && let Some(attributes) = self.0.cache.attributes(directory.ino)
            && self.0.access.is_due(&attributes, self.0.runtime.wall())
        {
            self.0.access.note(directory.ino, self.0.runtime.wall());
        }
        loop {
            let (page, is_new) = match self.page_at_hand(&directory, after, with_attributes) {
                Some(page) => (page, false),
                None => {
                    let page = self.next_page(&directory, after, with_attributes).await?;
                    if let Some(listing) = directory.turn_to(&page) {
                        self.0.listings.lock().insert(directory.ino, listing.entries(), listing);
                    }
                    self.0.lookahead.note_page(directory.ino, &page);
                    (page, true)
                }
            };
            let entries = match page.entries_after(after) {
                Some(entries) => &entries[..entries.len().min(max.max(1))],
                // An empty page that is not the last one: the master stopped early.
                None if page.last() > after => continue,
                None => return Err(FsError::Io),
            };
            self.fetch_ahead(&directory, &page);
            let listed = if with_attributes { self.list_with_attributes(&page, is_new, entries).await? } else { list_names(entries) };
            match entries.last() {
                // All of them were removed since the page was fetched.
                Some(last) if listed.is_empty() => after = last.cookie,
                _ => return Ok(listed),
            }
        }
    }

    /// The page at hand, if it knows what comes next; or that of a whole listing that is still true.
    fn page_at_hand(&self, directory: &DirectoryHandle, after: DirCookie, with_attributes: bool) -> Option<Arc<Page>> {
        let whole = || self.with_whole_listing(directory.ino, |listing| listing.page_for(after, with_attributes).map(Arc::clone)).flatten();
        directory.page_for(after, with_attributes).or_else(whole)
    }

    /// Looks at the whole listing of a directory, if there is one that is still true.
    fn with_whole_listing<T>(&self, ino: Ino, look: impl FnOnce(&Listing) -> T) -> Option<T> {
        let listings = self.0.listings.lock();
        let listing = listings.get(ino)?;
        let is_true = self.0.cache.is_held(ino, listing.stamp()) && self.0.cache.is_current(listing.reading(), ino);
        is_true.then(|| look(listing))
    }

    /// The kernel was told all entries of a directory after one cookie, up to another one, with their attributes. It believes each for `ttl`.
    pub fn note_listed(&self, ino: Ino, after: DirCookie, up_to: DirCookie, ttl: Duration) {
        let until = self.0.runtime.now().plus(ttl);
        self.with_whole_listing(ino, |listing| listing.note_told(after, up_to, until));
    }

    /// Whether the kernel knows the whole listing of a directory, and believes each entry of it for a while, so that it can list it without us.
    pub fn is_listing_known_to_kernel(&self, ino: Ino) -> bool {
        let until = self.with_whole_listing(ino, Listing::believed_until).flatten();
        until.is_some_and(|until| until.since(self.0.runtime.now()) >= KERNEL_LISTS)
    }

    /// Attributes are those that may be believed, or that a new page has brought. Others are asked for.
    async fn list_with_attributes(&self, page: &Page, is_new: bool, entries: &[DirectoryEntry]) -> Result<Vec<DirectoryEntry>, FsError> {
        let list = |entry: &DirectoryEntry| {
            let bare = bare(entry);
            let known = self.try_attributes(entry.ino).or_else(|| {
                let fetched = entry.attributes.clone().filter(|_| is_new && self.0.cache.is_current(page.reading, entry.ino));
                fetched.map(|attributes| self.with_own_writes(attributes))
            });
            async move {
                match known {
                    Some(attributes) => Ok(Some(DirectoryEntry { attributes: Some(attributes), ..bare })),
                    None => match self.attributes(bare.ino).await {
                        Ok(attributes) => Ok(Some(DirectoryEntry { attributes: Some(attributes), ..bare })),
                        Err(FsError::NotFound | FsError::Stale) => Ok(None),
                        Err(error) => Err(error),
                    },
                }
            }
        };
        let mut listed = Vec::with_capacity(entries.len());
        for some in entries.chunks(ASKED_AT_ONCE) {
            for entry in join_all(some.iter().map(list)).await {
                listed.extend(entry?);
            }
        }
        Ok(listed)
    }

    async fn next_page(&self, directory: &DirectoryHandle, after: DirCookie, with_attributes: bool) -> Result<Arc<Page>, FsError> {
        if let Some(fetch) = directory.take_fetch(after)
            && let Ok(Ok(page)) = fetch.await
            && (!with_attributes || page.with_attributes)
        {
            return Ok(page);
        }
        self.fetch_page(directory.ino, after, DIRECTORY_PAGE_ENTRIES_MAX, with_attributes).await
    }

    /// Asks the master, and remembers names and attributes.
    pub(super) async fn fetch_page(&self, ino: Ino, after: DirCookie, limit: u32, with_attributes: bool) -> Result<Arc<Page>, FsError> {
        let reading = self.0.cache.reading();
        let ask = |_| MasterRequest::ReadDirectory { ino, after, limit, with_attributes };
        let (entries, end, leased) = match self.0.link.ask_for_leases(ask).await {
            Ok(Answer { reply: MasterReply::Directory { entries, end }, leased }) => (entries, end, leased),
            Ok(other) => return Err(AskError::unexpected(&other.reply).to_fs("readdir")),
            // Removed while it was open: it lists as empty.
            Err(AskError::Refused(MasterError::Fs(FsError::NotFound | FsError::Stale))) => (Vec::new(), true, Leased::default()),
            Err(error) => return Err(error.to_fs("readdir")),
        };
        let cache = &self.0.cache;
        cache.accept(reading, &leased);
        for entry in &entries {
            if let Some(attributes) = &entry.attributes {
                cache.learn_entry(reading, &leased, ino, &entry.name, Some(entry.ino));
                cache.learn(reading, &leased, attributes.clone());
            }
        }
        let stamp = cache.stamp_for(reading, &leased, ino);
        Ok(Arc::new(Page { after, entries, end, with_attributes, reading, stamp }))
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

/// An entry without its attributes.
fn bare(entry: &DirectoryEntry) -> DirectoryEntry {
    DirectoryEntry { name: entry.name.clone(), ino: entry.ino, kind: entry.kind, cookie: entry.cookie, attributes: None }
}

fn list_names(entries: &[DirectoryEntry]) -> Vec<DirectoryEntry> {
    entries.iter().map(bare).collect()
}
