//! Removing files and trees. Many requests are under way at once; a directory goes when everything in it has gone.

use super::{Found, Store};
use crate::failure::{At, Failure};
use crate::filter::Filter;
use crate::place::RemotePath;
use cairn_common::attributes::{Attributes, DirectoryEntry, FileKind};
use cairn_common::error::FsError;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

/// Files of a directory being removed at the same time.
const REMOVALS_AT_ONCE: usize = 128;

/// What a removal came to, one thing at a time.
pub type Removed<'a> = &'a (dyn Fn(Result<&RemotePath, Failure>) + Sync);

/// What is to go.
struct Doomed<'a> {
    filter: &'a Filter,
    root_names: usize,
    told: Removed<'a>,
}

impl Store {
    pub async fn remove_file(&self, found: &Found) -> Result<(), Failure> {
        if !self.caller.may_remove(&found.parent, &found.attributes) {
            return Err(Failure::new(&found.path, FsError::AccessDenied));
        }
        self.fs.unlink(found.parent.ino, &found.name).await.at(&found.path)
    }

    pub async fn remove_empty_directory(&self, found: &Found) -> Result<(), Failure> {
        if !self.caller.may_remove(&found.parent, &found.attributes) {
            return Err(Failure::new(&found.path, FsError::AccessDenied));
        }
        self.fs.remove_directory(found.parent.ino, &found.name).await.at(&found.path)
    }

    /// Removes everything in and below a directory that the filter takes, and the directory itself if nothing is left in it.
    pub async fn remove_tree(&self, found: &Found, filter: &Filter, told: Removed<'_>) {
        let doomed = Doomed { filter, root_names: found.path.names().len(), told };
        if self.empty(&doomed, &found.path, &found.attributes).await {
            (told)(self.remove_empty_directory(found).await.map(|()| &found.path));
        }
    }

    /// Removes what is in a directory. Whether nothing that was to stay is left.
    fn empty<'a>(&'a self, doomed: &'a Doomed<'a>, path: &'a RemotePath, directory: &'a Attributes) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let mut entries = match self.entries_of(path, directory).await {
                Ok(entries) => entries,
                Err(failure) => {
                    (doomed.told)(Err(failure));
                    return false;
                }
            };
            let mut all_gone = true;
            loop {
                match entries.next_page().await {
                    Ok(page) if page.is_empty() => return all_gone,
                    Ok(page) => all_gone &= self.remove_page(doomed, path, directory, page).await,
                    Err(failure) => {
                        (doomed.told)(Err(failure));
                        return false;
                    }
                }
            }
        })
    }

    async fn remove_page(&self, doomed: &Doomed<'_>, path: &RemotePath, directory: &Attributes, page: Vec<DirectoryEntry>) -> bool {
        let (directories, files): (Vec<_>, Vec<_>) = page.into_iter().partition(|entry| entry.kind == FileKind::Directory);
        let removals = files.into_iter().filter_map(|entry| self.found(path, directory, entry));
        let gone = stream::iter(removals).map(|found| self.remove_one(doomed, found)).buffer_unordered(REMOVALS_AT_ONCE);
        let mut all_gone = gone.fold(true, |all, one| async move { all & one }).await;
        for found in directories.into_iter().filter_map(|entry| self.found(path, directory, entry)) {
            let is_empty = self.empty(doomed, &found.path, &found.attributes).await;
            all_gone &= is_empty;
            if is_empty {
                let removed = self.remove_empty_directory(&found).await;
                all_gone &= removed.is_ok();
                (doomed.told)(removed.map(|()| &found.path));
            }
        }
        all_gone
    }

    fn found(&self, path: &RemotePath, directory: &Attributes, entry: DirectoryEntry) -> Option<Found> {
        let attributes = entry.attributes?;
        Some(Found { path: path.child(&entry.name), attributes, parent: directory.clone(), name: entry.name })
    }

    async fn remove_one(&self, doomed: &Doomed<'_>, found: Found) -> bool {
        let relative = found.path.names()[doomed.root_names..].join(&b'/');
        if !doomed.filter.takes(&relative) {
            return false;
        }
        let removed = match self.remove_file(&found).await {
            // Somebody else was faster.
            Err(failure) if failure.reason.is_not_found() => Ok(()),
            removed => removed,
        };
        let is_gone = removed.is_ok();
        (doomed.told)(removed.map(|()| &found.path));
        is_gone
    }
}
