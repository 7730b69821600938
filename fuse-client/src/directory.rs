//! Listings: pages of the library into the kernel's buffer, with "." and ".." in front.

use crate::adapter::{cookie_of_offset, offset_of_cookie};
use crate::answer::GENERATION;
use crate::convert::{file_attr, file_type};
use crate::kernel::Kernel;
use cairn_client::{FileSystem, Handle, Telling};
use cairn_common::attributes::DirectoryEntry;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use fuser::{FileType, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::time::Duration;

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
    pages(fs, handle, cookie_of_offset(offset), add).await
}

/// Fills a listing with attributes from `offset` on. What it returns is to be held until the kernel has the listing.
///
/// It stops after one page, for while something is on its way to the kernel its lease is not given back: nothing may be waited for then.
pub async fn fill_plus<'fs>(
    fs: &'fs FileSystem,
    kernel: &Kernel,
    handle: Handle,
    ino: Ino,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<Vec<Telling<'fs>>, FsError> {
    if offset < 2 {
        let own = file_attr(&fs.attributes(ino).await?);
        for (at, dots) in [(1, "."), (2, "..")] {
            // The kernel takes nothing from the dots.
            if offset < at && reply.add(own.ino, at, dots, &Duration::ZERO, &own, GENERATION) {
                return Ok(Vec::new());
            }
        }
    }
    let after = cookie_of_offset(offset);
    let page = fs.read_directory(handle, after, PAGE_ENTRIES, true).await?;
    let mut told = vec![fs.telling_names(ino)];
    let names_ttl = told[0].ttl;
    let (mut up_to, mut believed) = (after, names_ttl);
    for entry in &page {
        // An entry of inode 0 would be no entry to programs.
        let Some(attributes) = &entry.attributes else { continue };
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&entry.name[..]);
        let inode = fs.telling_inode(attributes);
        // What was listed a while ago may be renamed by now.
        let is_true = !names_ttl.is_zero() && fs.is_name_of(ino, &entry.name, entry.ino);
        let ttl = if is_true { inode.ttl.min(names_ttl) } else { Duration::ZERO };
        told.push(inode);
        if reply.add(INodeNo(entry.ino.0), offset_of_cookie(entry.cookie), name, &ttl, &file_attr(attributes), GENERATION) {
            break;
        }
        kernel.note_place(attributes, ino, &entry.name);
        (up_to, believed) = (entry.cookie, believed.min(ttl));
    }
    if !believed.is_zero() {
        fs.note_listed(ino, after, up_to, believed);
    }
    Ok(told)
}

/// Hands entries after `after` to `add` until that says it is full or the directory ends. An error after the first
/// entries is not lost: the kernel comes back for more and meets it again.
async fn pages(fs: &FileSystem, handle: Handle, mut after: DirCookie, mut add: impl FnMut(&DirectoryEntry) -> bool) -> Result<(), FsError> {
    let mut first = true;
    loop {
        let page = match fs.read_directory(handle, after, PAGE_ENTRIES, false).await {
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
