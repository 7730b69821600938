//! Notices programs that stat the entries of a directory one after the other, and fetches the attributes of the next ones
//! before they are asked for.
//!
//! Each lookup that had to ask the master counts. `LOOKUP_STREAK` of them in one directory within `LOOKUP_STREAK_WINDOW` start a
//! fetch after the last of the names, if a listing has told us where in the directory that name is. What is fetched is believed
//! as long as anything in the cache.

use super::listing::Page;
use super::start::FileSystem;
use crate::limits::{LOOKUP_AHEAD_ENTRIES, LOOKUP_STREAK, LOOKUP_STREAK_WINDOW, LOOKUP_STREAKS_MAX};
use cairn_common::bounded::Bounded;
use cairn_common::ids::{DirCookie, Ino};
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Pages of a listing remembered per directory: the one whose names are being looked up may be some behind the last.
const PAGES_MAX: usize = 4;

#[derive(Default)]
struct Watched {
    lookups: u32,
    since: Moment,
    is_fetching: bool,
    pages: Vec<Arc<Page>>,
}

impl Watched {
    fn cookie_of(&self, name: &[u8]) -> Option<DirCookie> {
        let mut entries = self.pages.iter().rev().flat_map(|page| &page.entries);
        entries.find(|entry| entry.name == name).map(|entry| entry.cookie)
    }
}

/// The directories in which names were looked up or listed lately.
pub struct Lookahead(Mutex<Bounded<Ino, Watched>>);

impl Default for Lookahead {
    fn default() -> Self {
        Self(Mutex::new(Bounded::new(LOOKUP_STREAKS_MAX)))
    }
}

impl Lookahead {
    /// A listing tells where names are.
    pub fn note_page(&self, directory: Ino, page: &Arc<Page>) {
        let mut directories = self.0.lock();
        let mut watched = directories.remove(&directory).unwrap_or_default();
        if watched.pages.len() >= PAGES_MAX {
            watched.pages.remove(0);
        }
        watched.pages.push(Arc::clone(page));
        directories.insert(directory, watched);
    }

    /// A lookup had to ask the master. Answers with the place after which to fetch now, if that seems worth it; `ended` must follow.
    fn begin(&self, directory: Ino, name: &[u8], now: Moment) -> Option<DirCookie> {
        let mut directories = self.0.lock();
        // Only what was listed can be fetched ahead.
        let watched = directories.get_mut(&directory)?;
        if now.since(watched.since) > LOOKUP_STREAK_WINDOW {
            (watched.since, watched.lookups) = (now, 0);
        }
        watched.lookups += 1;
        if watched.lookups < LOOKUP_STREAK || watched.is_fetching {
            return None;
        }
        watched.lookups = 0;
        let place = watched.cookie_of(name)?;
        watched.is_fetching = true;
        Some(place)
    }

    fn ended(&self, directory: Ino) {
        if let Some(watched) = self.0.lock().get_mut(&directory) {
            watched.is_fetching = false;
        }
    }
}

impl FileSystem {
    /// A lookup had to ask the master.
    pub(super) fn note_lookup(&self, parent: Ino, name: &[u8]) {
        let Some(after) = self.0.lookahead.begin(parent, name, self.0.runtime.now()) else { return };
        let inner: Weak<_> = Arc::downgrade(&self.0);
        self.0.runtime.spawn("look up ahead", async move {
            let Some(inner) = inner.upgrade() else { return };
            let this = FileSystem(inner);
            if let Ok(page) = this.fetch_page(parent, after, LOOKUP_AHEAD_ENTRIES, true).await {
                this.0.counts.entries_read_ahead.add(page.entries.len() as u64);
            }
            this.0.lookahead.ended(parent);
        });
    }
}
