//! Trees in CairnFS, from the top down. Of each directory on the way one page is in memory, so a walk takes no more for millions of files;
//! sorted, it takes a directory's names.

use crate::failure::Failure;
use crate::place::RemotePath;
use crate::store::{Entries, Found, Store};
use cairn_common::attributes::{Attributes, DirectoryEntry, FileKind};
use std::vec::IntoIter;

/// So many entries are sorted without being asked for it.
const FEW_ENTRIES_MAX: u64 = 10_000;

/// In which order the entries of a directory come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By name, but as they were made where there are very many: that starts at once, at any length, in constant memory.
    ByNameIfFew,
    ByName,
}

/// Something met on the way.
#[derive(Debug, Clone)]
pub struct Visited {
    pub path: RemotePath,
    /// 1 for what is in the directory where the walk began.
    pub depth: usize,
    pub attributes: Attributes,
    /// Nothing comes after it in its directory. Known only when sorted.
    pub is_last: bool,
}

impl Visited {
    pub fn is_directory(&self) -> bool {
        self.attributes.kind == FileKind::Directory
    }
}

/// One directory that is being read.
struct Level {
    path: RemotePath,
    page: IntoIter<DirectoryEntry>,
    /// What more there is; `None` if the page is all of it.
    rest: Option<Entries>,
}

/// A walk. Directories are entered right after they were told, as far as `max_depth` lets it.
pub struct Walk {
    store: Store,
    order: Order,
    max_depth: usize,
    levels: Vec<Level>,
    /// To be entered next.
    next: Option<(RemotePath, Attributes)>,
}

impl Walk {
    /// Everything in and below a directory, not the directory itself.
    pub fn below(store: &Store, start: &Found, order: Order, max_depth: usize) -> Self {
        let next = Some((start.path.clone(), start.attributes.clone()));
        Self { store: store.clone(), order, max_depth, levels: Vec::new(), next }
    }

    /// The next one. After a failure (a directory that can't be read) the walk goes on behind it.
    pub async fn next(&mut self) -> Option<Result<Visited, Failure>> {
        if let Some((path, directory)) = self.next.take()
            && let Err(failure) = self.enter(path, &directory).await
        {
            return Some(Err(failure));
        }
        loop {
            let depth = self.levels.len();
            let level = self.levels.last_mut()?;
            if let Some(entry) = level.page.next() {
                let Some(attributes) = entry.attributes else { continue };
                let is_last = level.rest.is_none() && level.page.len() == 0;
                let visited = Visited { path: level.path.child(&entry.name), depth, attributes, is_last };
                if visited.is_directory() && depth < self.max_depth {
                    self.next = Some((visited.path.clone(), visited.attributes.clone()));
                }
                return Some(Ok(visited));
            }
            match level.next_page().await {
                Ok(true) => {}
                Ok(false) => drop(self.levels.pop()),
                Err(failure) => {
                    self.levels.pop();
                    return Some(Err(failure));
                }
            }
        }
    }

    async fn enter(&mut self, path: RemotePath, directory: &Attributes) -> Result<(), Failure> {
        let is_sorted = self.order == Order::ByName || directory.size <= FEW_ENTRIES_MAX;
        let level = match is_sorted {
            true => {
                let all = self.store.sorted_entries(&path, directory).await?;
                Level { path, page: all.into_iter(), rest: None }
            }
            false => {
                let rest = self.store.entries_of(&path, directory).await?;
                Level { path, page: Vec::new().into_iter(), rest: Some(rest) }
            }
        };
        self.levels.push(level);
        Ok(())
    }
}

impl Level {
    /// Whether there is more.
    async fn next_page(&mut self) -> Result<bool, Failure> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        let page = rest.next_page().await?;
        let is_end = page.is_empty();
        self.page = page.into_iter();
        Ok(!is_end)
    }
}
