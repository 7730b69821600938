//! An open directory: the page of entries that is being read, and the next one on its way.
//!
//! POSIX leaves open whether an entry made or removed after opendir is listed; going back to the beginning (rewinddir) must
//! list anew. So pages are kept per handle, and the beginning is always fetched, unless a whole listing is known to be still true.

use crate::cache::Reading;
use crate::limits::LISTED_ENTRIES_MAX;
use cairn_common::attributes::DirectoryEntry;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A part of a listing, as the master sent it.
#[derive(Debug)]
pub struct Page {
    pub after: DirCookie,
    /// In order of cookie.
    pub entries: Vec<DirectoryEntry>,
    /// Nothing comes after.
    pub end: bool,
    /// Attributes were asked for: the entries have them, as they were when they were asked for.
    pub with_attributes: bool,
    pub reading: Reading,
    /// Of the lease of the directory that came along.
    pub stamp: Option<u64>,
}

impl Page {
    /// The cookie after which the next page begins.
    pub fn last(&self) -> DirCookie {
        self.entries.last().map_or(self.after, |entry| entry.cookie)
    }

    /// What this page has after `cookie`; `None` if it does not know what comes directly after it.
    pub fn entries_after(&self, cookie: DirCookie) -> Option<&[DirectoryEntry]> {
        if cookie < self.after {
            return None;
        }
        let entries = &self.entries[self.entries.partition_point(|entry| entry.cookie <= cookie)..];
        (!entries.is_empty() || self.end).then_some(entries)
    }
}

/// How much of a listing the kernel was told from the beginning on, with attributes, and until when it believes all of that.
#[derive(Debug, Default)]
struct Told {
    up_to: DirCookie,
    until: Moment,
}

/// All pages of a directory, from its beginning to its end, under one lease.
#[derive(Debug)]
pub struct Listing {
    pages: Vec<Arc<Page>>,
    told: Mutex<Told>,
}

impl Listing {
    /// What a reader has met, if it is all there was under one lease.
    pub fn of(pages: Vec<Arc<Page>>) -> Option<Self> {
        let first = pages.first()?;
        let is_whole = first.after == DirCookie(0) && pages.last()?.end;
        let is_one = first.stamp.is_some() && pages.iter().all(|page| page.stamp == first.stamp);
        (is_whole && is_one).then(|| Self { pages, told: Mutex::default() })
    }

    /// The kernel was told what comes after one cookie, up to another one, and believes that until then.
    pub fn note_told(&self, after: DirCookie, up_to: DirCookie, until: Moment) {
        let mut told = self.told.lock();
        if after == DirCookie(0) {
            *told = Told { up_to, until };
        } else if after <= told.up_to {
            *told = Told { up_to: told.up_to.max(up_to), until: told.until.min(until) };
        }
    }

    /// The kernel believes every entry until then, if it was told all.
    pub fn believed_until(&self) -> Option<Moment> {
        let told = self.told.lock();
        let last = self.pages.last().map(|page| page.last())?;
        (told.up_to >= last).then_some(told.until)
    }

    pub fn stamp(&self) -> u64 {
        self.pages.first().and_then(|page| page.stamp).unwrap_or(0)
    }

    pub fn reading(&self) -> Reading {
        self.pages.first().map(|page| page.reading).unwrap_or_default()
    }

    pub fn entries(&self) -> usize {
        self.pages.iter().map(|page| page.entries.len()).sum()
    }

    /// The page that goes on after `cookie`.
    pub fn page_for(&self, cookie: DirCookie, with_attributes: bool) -> Option<&Arc<Page>> {
        let page = self.pages.iter().find(|page| page.entries_after(cookie).is_some())?;
        (page.with_attributes || !with_attributes).then_some(page)
    }
}

/// A page that is being fetched.
pub type Fetch = oneshot::Receiver<Result<Arc<Page>, FsError>>;

#[derive(Default)]
struct Pages {
    page: Option<Arc<Page>>,
    /// What comes after `page`.
    next: Option<Fetch>,
    /// What was read from the beginning on without a gap, if it is not too much to be remembered.
    met: Vec<Arc<Page>>,
}

/// An open directory.
pub struct DirectoryHandle {
    pub ino: Ino,
    pages: Mutex<Pages>,
}

impl DirectoryHandle {
    pub fn new(ino: Ino) -> Self {
        Self { ino, pages: Mutex::default() }
    }

    /// The page at hand, if it goes on after `cookie`. The beginning is never at hand.
    pub fn page_for(&self, cookie: DirCookie, with_attributes: bool) -> Option<Arc<Page>> {
        if cookie == DirCookie(0) {
            return None;
        }
        let pages = self.pages.lock();
        let page = pages.page.as_ref().filter(|page| page.entries_after(cookie).is_some())?;
        (page.with_attributes || !with_attributes).then(|| Arc::clone(page))
    }

    /// The fetch under way, if it is for what comes after `cookie`.
    pub fn take_fetch(&self, cookie: DirCookie) -> Option<Fetch> {
        let mut pages = self.pages.lock();
        if pages.page.as_ref().is_some_and(|page| page.last() == cookie) { pages.next.take() } else { None }
    }

    /// A page becomes the one that is read.
    ///
    /// With it the listing may be complete.
    pub fn turn_to(&self, page: &Arc<Page>) -> Option<Listing> {
        let mut pages = self.pages.lock();
        let mut met = std::mem::take(&mut pages.met);
        let goes_on = met.last().map_or(DirCookie(0), |last| last.last()) == page.after;
        if !goes_on {
            met.clear();
        }
        if goes_on || page.after == DirCookie(0) {
            met.push(Arc::clone(page));
        }
        if met.iter().map(|page| page.entries.len()).sum::<usize>() > LISTED_ENTRIES_MAX {
            met.clear();
        }
        *pages = Pages { page: Some(Arc::clone(page)), next: None, met };
        if page.end { Listing::of(std::mem::take(&mut pages.met)) } else { None }
    }

    /// Whether the page after this one should be fetched now; the caller then gives it with `expect`.
    pub fn wants_next(&self, page: &Arc<Page>) -> bool {
        let pages = self.pages.lock();
        !page.end && pages.next.is_none() && pages.page.as_ref().is_some_and(|present| Arc::ptr_eq(present, page))
    }

    pub fn expect(&self, page: &Arc<Page>, fetch: Fetch) {
        let mut pages = self.pages.lock();
        if pages.page.as_ref().is_some_and(|present| Arc::ptr_eq(present, page)) {
            pages.next = Some(fetch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectoryHandle, Listing, Page};
    use crate::cache::Reading;
    use crate::limits::LISTED_ENTRIES_MAX;
    use cairn_common::attributes::{DirectoryEntry, FileKind};
    use cairn_common::ids::{DirCookie, Ino};
    use cairn_runtime::clock::Moment;
    use std::sync::Arc;

    fn page(after: u64, cookies: &[u64], end: bool) -> Page {
        let entry = |cookie: &u64| DirectoryEntry {
            name: cookie.to_string().into_bytes(),
            ino: Ino(100 + cookie),
            kind: FileKind::Regular,
            cookie: DirCookie(*cookie),
            attributes: None,
        };
        Page {
            after: DirCookie(after),
            entries: cookies.iter().map(entry).collect(),
            end,
            with_attributes: false,
            reading: Reading::default(),
            stamp: None,
        }
    }

    #[test]
    fn the_kernel_believes_a_listing_until_the_first_entry_of_it_is_too_old_if_it_was_told_all() {
        let held = |after, cookies: &[u64], end| Arc::new(Page { stamp: Some(1), ..page(after, cookies, end) });
        let listing = Listing::of(vec![held(0, &[1, 4], false), held(4, &[6, 7], true)]).expect("whole");
        let told = |after, up_to, until| listing.note_told(DirCookie(after), DirCookie(up_to), Moment::from_nanos(until));
        assert_eq!(listing.believed_until(), None);
        told(0, 4, 30);
        told(4, 6, 20);
        assert_eq!(listing.believed_until(), None, "not the last one");
        told(6, 7, 40);
        assert_eq!(listing.believed_until(), Some(Moment::from_nanos(20)));
        told(0, 1, 90);
        assert_eq!(listing.believed_until(), None, "it is told anew");
        told(4, 7, 90);
        assert_eq!(listing.believed_until(), None, "with a gap");
        told(1, 7, 80);
        assert_eq!(listing.believed_until(), Some(Moment::from_nanos(80)));
    }

    #[test]
    fn the_pages_of_a_giant_are_not_kept_until_its_end() {
        let cookies: Vec<u64> = (1..=LISTED_ENTRIES_MAX as u64).collect();
        let (rest, last) = (cookies.len() as u64, cookies.len() as u64 + 1);
        let pages = [page(0, &cookies, false), page(rest, &[last], false), page(last, &[last + 1], true)];
        let pages = pages.map(|page| Arc::new(Page { stamp: Some(1), ..page }));
        let handle = DirectoryHandle::new(Ino(1));
        let found: Vec<bool> = pages.iter().map(|page| handle.turn_to(page).is_some()).collect();
        assert_eq!(found, [false; 3]);
        // The handle has the page at hand, and nobody has the first one.
        assert_eq!(pages.each_ref().map(Arc::strong_count), [1, 1, 2]);
    }

    fn cookies(page: &Page, after: u64) -> Option<Vec<u64>> {
        page.entries_after(DirCookie(after)).map(|entries| entries.iter().map(|entry| entry.cookie.0).collect())
    }

    #[test]
    fn a_page_answers_for_what_it_covers_and_no_more() {
        let middle = page(10, &[12, 15, 20], false);
        assert_eq!(cookies(&middle, 9), None);
        assert_eq!(cookies(&middle, 10), Some(vec![12, 15, 20]));
        assert_eq!(cookies(&middle, 13), Some(vec![15, 20]), "an entry that was removed since may be the place to go on");
        assert_eq!(cookies(&middle, 20), None);
        let last = page(20, &[21], true);
        assert_eq!(cookies(&last, 21), Some(vec![]));
        assert_eq!(page(0, &[], true).last(), DirCookie(0));
    }
}
