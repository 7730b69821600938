//! `cairn find`

use super::output::Output;
use super::with_store;
use crate::object_arguments::{Find, FindKind};
use anyhow::Result;
use cairn_common::attributes::FileKind;
use cairn_common::time::Timestamp;
use cairn_objects::filter::Glob;
use cairn_objects::row::Record;
use cairn_objects::walk::{Order, Visited, Walk};
use std::ffi::OsString;
use std::process::ExitCode;

pub fn find(options: Find) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        let Some(start) = tally.take(store.find_directory(&options.path).await) else { return Ok(()) };
        let wanted = Wanted::new(&options, store.runtime.wall());
        let mut output = Output::new(&store.runtime);
        let mut walk = Walk::below(&store, &start, Order::ByNameIfFew, options.max_depth.unwrap_or(usize::MAX));
        while let Some(next) = walk.next().await {
            let Some(visited) = tally.take(next) else { continue };
            if wanted.takes(&visited) {
                let line = match (options.json, options.print0) {
                    (true, _) => Record::new(&visited.path, &visited.attributes).line(),
                    (false, true) => format!("{}\0", visited.path),
                    (false, false) => format!("{}\n", visited.path),
                };
                output.text(&line).await?;
            }
        }
        output.flush().await
    })
}

/// What is looked for.
struct Wanted<'a> {
    options: &'a Find,
    name: Option<Glob>,
    path: Option<Glob>,
    start_names: usize,
    now: Timestamp,
}

impl<'a> Wanted<'a> {
    fn new(options: &'a Find, now: Timestamp) -> Self {
        let glob = |text: &Option<OsString>| text.as_ref().map(|text| Glob::new(text.as_encoded_bytes()));
        Self { options, name: glob(&options.name), path: glob(&options.path_glob), start_names: options.path.names().len(), now }
    }

    fn takes(&self, visited: &Visited) -> bool {
        let attributes = &visited.attributes;
        let is_file = attributes.kind == FileKind::Regular;
        let age = self.now.since(attributes.mtime);
        let kind = self.options.kind.is_none_or(|kind| match kind {
            FindKind::F => is_file,
            FindKind::D => visited.is_directory(),
            FindKind::L => attributes.kind == FileKind::Symlink,
        });
        kind && self.name.as_ref().is_none_or(|glob| glob.matches(visited.path.name().unwrap_or_default()))
            && self.path.as_ref().is_none_or(|glob| glob.matches(&visited.path.names()[self.start_names..].join(&b'/')))
            && self.options.larger.is_none_or(|size| is_file && attributes.size >= size)
            && self.options.smaller.is_none_or(|size| is_file && attributes.size <= size)
            && self.options.newer.is_none_or(|limit| age <= limit)
            && self.options.older.is_none_or(|limit| age >= limit)
    }
}
