//! How an inode is told: a line for people, an object for machines.

use crate::place::RemotePath;
use crate::size;
use cairn_common::attributes::{Attributes, FileKind};
use serde::Serialize;

/// How sizes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Exact,
    Human,
}

impl Sizes {
    pub fn write(self, bytes: u64) -> String {
        match self {
            Sizes::Exact => bytes.to_string(),
            Sizes::Human => size::human(bytes),
        }
    }
}

/// What `--json` says of an inode, on one line. Names that are not UTF-8 have the replacement character where they are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub size: u64,
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub mtime: String,
    pub inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Record {
    pub fn new(path: &RemotePath, attributes: &Attributes) -> Self {
        Self {
            path: path.to_string(),
            kind: kind_word(attributes.kind),
            size: attributes.size,
            mode: format!("{:04o}", attributes.mode),
            uid: attributes.uid,
            gid: attributes.gid,
            links: attributes.nlink,
            mtime: size::exact_time(attributes.mtime),
            inode: attributes.ino.0,
            target: None,
        }
    }

    pub fn line(&self) -> String {
        // Strings and numbers alone: it can't fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

pub fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

/// `drwxr-xr-x`, as `ls -l` has it.
pub fn mode_letters(attributes: &Attributes) -> String {
    let kind = match attributes.kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    };
    let mode = attributes.mode;
    let mut letters = String::from(kind);
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        letters.push(if bits & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits & 2 != 0 { 'w' } else { '-' });
        letters.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => mark,
            (true, false) => mark.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    letters
}

/// A line of `cairn ls`: time, size (`-` for a directory) and name, which ends in a slash if it is a directory.
pub fn list_line(name: &str, attributes: &Attributes, sizes: Sizes) -> String {
    let is_directory = attributes.kind == FileKind::Directory;
    let size = if is_directory { "-".to_owned() } else { sizes.write(attributes.size) };
    format!("{} {size:>14} {name}{}\n", size::time(attributes.mtime), if is_directory { "/" } else { "" })
}

/// The same with mode, links and owner in front.
pub fn long_line(name: &str, attributes: &Attributes, sizes: Sizes) -> String {
    let (mode, links, uid, gid) = (mode_letters(attributes), attributes.nlink, attributes.uid, attributes.gid);
    format!("{mode} {links:>3} {uid:>5} {gid:>5} {}", list_line(name, attributes, sizes))
}
