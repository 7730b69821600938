//! What a local file is.

use crate::transfer::Traits;
use cairn_common::attributes::FileKind;
use cairn_common::time::Timestamp;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What is at a path; a symlink is followed if asked.
pub fn inode_at(path: &Path, follow: bool) -> io::Result<Traits> {
    let metadata = if follow { path.metadata() } else { path.symlink_metadata() };
    metadata.map(|metadata| inode_of(&metadata))
}

pub fn inode_of(metadata: &Metadata) -> Traits {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_symlink() => FileKind::Symlink,
        () if kind.is_fifo() => FileKind::Fifo,
        () if kind.is_socket() => FileKind::Socket,
        () if kind.is_char_device() => FileKind::CharDevice,
        () if kind.is_block_device() => FileKind::BlockDevice,
        () => FileKind::Regular,
    };
    Traits {
        kind,
        size: metadata.size(),
        mode: (metadata.mode() & 0o7777) as u16,
        uid: metadata.uid(),
        mtime: Timestamp::from_parts(metadata.mtime(), metadata.mtime_nsec() as u32),
        links: metadata.nlink(),
        identity: (metadata.dev(), metadata.ino()),
        // Nobody knows without asking.
        may_have_xattrs: true,
    }
}
