//! `cairn du`

use super::list::sizes;
use super::output::Output;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::DiskUsage;
use anyhow::Result;
use cairn_common::attributes::Attributes;
use cairn_common::ids::Ino;
use cairn_objects::store::{Follow, Found};
use cairn_objects::walk::{Order, Walk};
use cairn_objects::{RemotePath, Store};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

pub fn du(options: DiskUsage) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        let mut output = Output::new(&store.runtime);
        for path in &options.paths {
            let Some(found) = tally.take(store.find(path, Follow::Last).await) else { continue };
            for (path, amount) in amounts(&store, &tally, &found, options.depth).await {
                output.text(&line(&path, &amount, &options)).await?;
            }
        }
        output.flush().await
    })
}

/// What is in and below a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Amount {
    size: u64,
    files: u64,
    directories: u64,
}

impl Amount {
    fn add(&mut self, attributes: &Attributes, is_directory: bool) {
        match is_directory {
            true => self.directories += 1,
            false => *self = Self { size: self.size + attributes.size, files: self.files + 1, ..*self },
        }
    }
}

/// For the place itself and each directory down to `depth`. A file of several names counts once.
async fn amounts(store: &Store, tally: &Tally, found: &Found, depth: usize) -> BTreeMap<RemotePath, Amount> {
    let start = found.path.clone().without_slash();
    let mut amounts = BTreeMap::from([(start.clone(), Amount::default())]);
    if !found.is_directory() {
        amounts.entry(start).or_default().add(&found.attributes, false);
        return amounts;
    }
    let mut seen: BTreeSet<Ino> = BTreeSet::new();
    let mut walk = Walk::below(store, found, Order::ByNameIfFew, usize::MAX);
    while let Some(next) = walk.next().await {
        let Some(visited) = tally.take(next) else { continue };
        let is_directory = visited.is_directory();
        if !is_directory && visited.attributes.nlink > 1 && !seen.insert(visited.attributes.ino) {
            continue;
        }
        if is_directory && visited.depth <= depth {
            amounts.entry(visited.path.clone()).or_default();
        }
        // Itself is not in itself.
        let mut above = visited.path.parent();
        while let Some(path) = above.filter(|path| path.is_within(&found.path)) {
            let path = path.without_slash();
            if let Some(amount) = amounts.get_mut(&path) {
                amount.add(&visited.attributes, is_directory);
            }
            above = path.parent();
        }
    }
    amounts
}

fn line(path: &RemotePath, amount: &Amount, options: &DiskUsage) -> String {
    if options.printing.json {
        #[derive(Serialize)]
        struct Line<'a> {
            path: String,
            #[serde(flatten)]
            amount: &'a Amount,
        }
        // Strings and numbers alone: it can't fail.
        return serde_json::to_string(&Line { path: path.to_string(), amount }).unwrap_or_default() + "\n";
    }
    let size = sizes(options.printing.human).write(amount.size);
    format!("{size:>14} {:>9} files {:>8} directories  {path}\n", amount.files, amount.directories)
}
