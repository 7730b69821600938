//! `cairn ls`, `cairn stat` and `cairn tree`.

use super::output::Output;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::{List, Printing, Stat, Tree};
use anyhow::Result;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_objects::failure::At;
use cairn_objects::row::{Record, Sizes, kind_word, list_line, long_line, mode_letters};
use cairn_objects::store::{Follow, Found};
use cairn_objects::walk::{Order, Visited, Walk};
use cairn_objects::{Failure, RemotePath, Store, size};
use std::fmt::Write;
use std::process::ExitCode;

pub fn ls(options: List) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move { list(&store, &tally, &options).await })
}

pub fn stat(options: Stat) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        let mut output = Output::new(&store.runtime);
        let follow = if options.dereference { Follow::Last } else { Follow::AllButLast };
        for path in &options.paths {
            if let Some(text) = tally.take(described(&store, path, follow, options.json).await) {
                output.text(&text).await?;
            }
        }
        output.flush().await
    })
}

pub fn tree(options: Tree) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move { draw(&store, &tally, &options).await })
}

pub fn sizes(human: bool) -> Sizes {
    if human { Sizes::Human } else { Sizes::Exact }
}

async fn list(store: &Store, tally: &Tally, options: &List) -> Result<()> {
    let path = options.path.clone().unwrap_or_default();
    let follow = if options.directory || options.long { Follow::AllButLast } else { Follow::Last };
    let Some(found) = tally.take(store.find(&path, follow).await) else { return Ok(()) };
    let mut output = Output::new(&store.runtime);
    if options.directory || !found.is_directory() {
        let row = row(store, options, &path, &String::from_utf8_lossy(&found.name), &found.attributes).await;
        output.text(&tally.take(row).unwrap_or_default()).await?;
        return output.flush().await;
    }
    let order = if options.sort { Order::ByName } else { Order::ByNameIfFew };
    let mut walk = Walk::below(store, &found, order, if options.recursive { usize::MAX } else { 1 });
    let mut is_first_page = true;
    let mut told = 0u32;
    while let Some(next) = walk.next().await {
        let Some(visited) = tally.take(next) else { continue };
        let name = relative(&visited.path, &path);
        let row = row(store, options, &visited.path, &name, &visited.attributes).await;
        output.text(&tally.take(row).unwrap_or_default()).await?;
        told += 1;
        // The beginning is shown at once.
        if is_first_page && told == 100 {
            is_first_page = false;
            output.flush().await?;
        }
    }
    output.flush().await
}

/// A path as seen from the one that is listed.
fn relative(path: &RemotePath, start: &RemotePath) -> String {
    String::from_utf8_lossy(&path.names()[start.names().len()..].join(&b'/')).into_owned()
}

async fn row(store: &Store, options: &List, path: &RemotePath, name: &str, attributes: &Attributes) -> Result<String, Failure> {
    let Printing { human, json } = options.printing;
    let is_link = attributes.kind == FileKind::Symlink && (options.long || json);
    let target = if is_link { Some(store.fs.read_link(attributes.ino).await.at(path)?) } else { None };
    let target = target.map(|target| String::from_utf8_lossy(&target).into_owned());
    if json {
        return Ok(Record { target, ..Record::new(path, attributes) }.line());
    }
    let shown = target.map_or_else(|| name.to_owned(), |target| format!("{name} -> {target}"));
    Ok(if options.long { long_line(&shown, attributes, sizes(human)) } else { list_line(&shown, attributes, sizes(human)) })
}

async fn described(store: &Store, path: &RemotePath, follow: Follow, json: bool) -> Result<String, Failure> {
    let found = store.find(path, follow).await?;
    let attributes = &found.attributes;
    let target = match attributes.kind {
        FileKind::Symlink => Some(String::from_utf8_lossy(&store.fs.read_link(attributes.ino).await.at(path)?).into_owned()),
        _ => None,
    };
    if json {
        return Ok(Record { target, ..Record::new(path, attributes) }.line());
    }
    let xattrs = if attributes.has_xattrs { store.fs.list_xattr(attributes.ino).await.at(path)? } else { Vec::new() };
    Ok(description(&found, target.as_deref(), &xattrs))
}

fn description(found: &Found, target: Option<&str>, xattrs: &[Vec<u8>]) -> String {
    let attributes = &found.attributes;
    let size = match attributes.kind {
        FileKind::Directory => format!("{} entries", attributes.size),
        _ => format!("{} ({} stored before redundancy)", attributes.size, size::human(attributes.allocated)),
    };
    let names: Vec<_> = xattrs.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let rows = [
        ("path", Some(found.path.to_string())),
        ("type", Some(kind_word(attributes.kind).to_owned())),
        ("target", target.map(ToOwned::to_owned)),
        ("size", Some(size)),
        ("mode", Some(format!("{:04o} ({})", attributes.mode, mode_letters(attributes)))),
        ("owner", Some(format!("{}:{}", attributes.uid, attributes.gid))),
        ("links", Some(attributes.nlink.to_string())),
        ("modified", Some(size::exact_time(attributes.mtime))),
        ("changed", Some(size::exact_time(attributes.ctime))),
        ("made", Some(size::exact_time(attributes.btime))),
        ("inode", Some(attributes.ino.0.to_string())),
        ("xattrs", (!names.is_empty()).then(|| names.join(" "))),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        if let Some(value) = value {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{name:>8}: {value}");
        }
    }
    text
}

async fn draw(store: &Store, tally: &Tally, options: &Tree) -> Result<()> {
    let path = options.path.clone().unwrap_or_default();
    let Some(found) = tally.take(store.find_directory(&path).await) else { return Ok(()) };
    let mut output = Output::new(&store.runtime);
    output.text(&format!("{path}\n")).await?;
    let mut walk = Walk::below(store, &found, Order::ByName, options.depth.unwrap_or(usize::MAX));
    let mut branches = Branches::default();
    let (mut directories, mut files, mut bytes) = (0u64, 0u64, 0u64);
    while let Some(next) = walk.next().await {
        let Some(visited) = tally.take(next) else { continue };
        let stem = branches.stem(&visited);
        match visited.is_directory() {
            true => directories += 1,
            false => (files, bytes) = (files + 1, bytes + visited.attributes.size),
        }
        if visited.is_directory() || !options.directories {
            output.text(&tree_line(&stem, &visited, options)).await?;
        }
    }
    let amount = sizes(options.human).write(bytes);
    output.text(&format!("\n{directories} directories, {files} files, {amount}{}\n", if options.human { "" } else { " bytes" })).await?;
    output.flush().await
}

fn tree_line(stem: &str, visited: &Visited, options: &Tree) -> String {
    let name = String::from_utf8_lossy(visited.path.name().unwrap_or_default());
    let slash = if visited.is_directory() { "/" } else { "" };
    let size = match options.sizes && !visited.is_directory() {
        true => format!("  [{}]", sizes(options.human).write(visited.attributes.size)),
        false => String::new(),
    };
    format!("{stem}{name}{slash}{size}\n")
}

/// The lines that connect a tree's names: for each level whether more follows on it.
#[derive(Default)]
struct Branches {
    more: Vec<bool>,
}

impl Branches {
    fn stem(&mut self, visited: &Visited) -> String {
        self.more.truncate(visited.depth - 1);
        let trunks: String = self.more.iter().map(|more| if *more { "│   " } else { "    " }).collect();
        self.more.push(!visited.is_last);
        format!("{trunks}{}", if visited.is_last { "└── " } else { "├── " })
    }
}
