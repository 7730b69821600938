//! Where a file or a tree is, on either side.

use super::traits::{Entry, Traits};
use crate::failure::{At, Failure};
use crate::local;
use crate::place::{RemotePath, local_below};
use crate::store::{Follow, Store};
use std::fmt;
use std::path::PathBuf;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    Local(PathBuf),
    Remote(RemotePath),
    /// Standard input.
    Stream,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spot::Local(path) => path.display().fmt(f),
            Spot::Remote(path) => path.fmt(f),
            Spot::Stream => f.write_str("standard input"),
        }
    }
}

/// A directory and what is below it, by relative paths with slashes; the empty path is the directory itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Local(PathBuf),
    Remote(RemotePath),
}

impl Tree {
    pub fn spot(&self, relative: &[u8]) -> Spot {
        match self {
            Tree::Local(directory) => Spot::Local(local_below(directory, relative)),
            Tree::Remote(directory) => Spot::Remote(directory.below(relative)),
        }
    }

    /// What is in a directory, in order of name; `None` if it is not there.
    pub async fn list(&self, store: &Store, relative: &[u8]) -> Result<Option<Vec<Entry>>, Failure> {
        let listed = match self.spot(relative) {
            Spot::Remote(path) => list_remote(store, &path).await,
            Spot::Local(path) => {
                let shown = path.display().to_string();
                store.runtime.blocking(move || local::entries(&path)).await.at(shown)
            }
            Spot::Stream => Ok(Vec::new()),
        };
        match listed {
            Err(failure) if failure.reason.is_not_found() => Ok(None),
            listed => listed.map(Some),
        }
    }

    /// What the directory itself is.
    pub async fn traits(&self, store: &Store) -> Result<Traits, Failure> {
        traits_of(store, &self.spot(b""), true).await
    }
}

async fn list_remote(store: &Store, path: &RemotePath) -> Result<Vec<Entry>, Failure> {
    let found = store.find_directory(path).await?;
    let entries = store.sorted_entries(path, &found.attributes).await?;
    Ok(entries.into_iter().filter_map(Entry::of).collect())
}

/// What is at a spot.
pub async fn traits_of(store: &Store, spot: &Spot, follow: bool) -> Result<Traits, Failure> {
    match spot {
        Spot::Remote(path) => {
            let follow = if follow { Follow::Last } else { Follow::AllButLast };
            Ok(Traits::from(&store.find(path, follow).await?.attributes))
        }
        Spot::Local(path) => {
            let (shown, path) = (path.display().to_string(), path.clone());
            store.runtime.blocking(move || local::inode_at(&path, follow)).await.at(shown)
        }
        Spot::Stream => Err(Failure::said(spot, "a stream has no attributes")),
    }
}
