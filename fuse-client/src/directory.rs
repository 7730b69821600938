//! Listings: pages of the library into the kernel's buffer, with "." and ".." in front.

use crate::adapter::{GENERATION, cookie_of_offset, offset_of_cookie};
use crate::convert::{file_attr, file_type};
use cairn_client::{FileSystem, Handle};
use cairn_common::attributes::DirectoryEntry;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use fuser::{FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

/// Entries asked of the library at a time; it prefetches larger pages from the master.
const PAGE_ENTRIES: usize = 256;

/// Fills a plain listing from `offset` on.
pub async fn fill(fs: &FileSystem, handle: Handle, ino: Ino, offset: u64, reply: &mut ReplyDirectory) -> Result<(), FsError> {
    // The kernel ignores the inode numbers of the dots; programs get them from stat.
    for (at, dots) in [(1, "."), (2, "..")] {
        if offset < at && reply.add(INodeNo(ino.0), at, FileType::Directory, dots) {
            return Ok(());
        }
    }
    let add = |entry: &DirectoryEntry| {
        reply.add(
            INodeNo(entry.ino.0),
            offset_of_cookie(entry.cookie),
            file_type(entry.kind),
            std::os::unix::ffi::OsStrExt::from_bytes(&entry.name[..]) as &std::ffi::OsStr,
        )
    };
    pages(fs, handle, cookie_of_offset(offset), false, add).await
}

/// Fills a listing with attributes from `offset` on.
pub async fn fill_plus(fs: &FileSystem, handle: Handle, ino: Ino, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), FsError> {
    if offset < 2 {
        let own = file_attr(&fs.attributes(ino).await?);
        for (at, dots) in [(1, "."), (2, "..")] {
            if offset < at && reply.add(own.ino, at, dots, &fs.validity(ino), &own, GENERATION) {
                return Ok(());
            }
        }
    }
    let add = |entry: &DirectoryEntry| {
        // An entry of inode 0 would be no entry to programs.
        let Some(attributes) = &entry.attributes else { return false };
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&entry.name[..]);
        reply.add(INodeNo(entry.ino.0), offset_of_cookie(entry.cookie), name, &fs.validity(entry.ino), &file_attr(attributes), GENERATION)
    };
    pages(fs, handle, cookie_of_offset(offset), true, add).await
}

/// Hands entries after `after` to `add` until that says it is full or the directory ends. An error after the first
/// entries is not lost: the kernel comes back for more and meets it again.
async fn pages(
    fs: &FileSystem,
    handle: Handle,
    mut after: DirCookie,
    with_attributes: bool,
    mut add: impl FnMut(&DirectoryEntry) -> bool,
) -> Result<(), FsError> {
    let mut first = true;
    loop {
        let page = match fs.read_directory(handle, after, PAGE_ENTRIES, with_attributes).await {
            Ok(page) => page,
            Err(_) if !first => return Ok(()),
            Err(error) => return Err(error),
        };
        first = false;
        if page.is_empty() {
            return Ok(());
        }
        for entry in &page {
            if add(entry) {
                return Ok(());
            }
            after = entry.cookie;
        }
    }
}
