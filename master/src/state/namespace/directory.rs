//! The entries of a directory: for each, a row by name and a row by cookie, which say the same. Invariants:
//!
//! - `size` of the directory = number of its entries; `nlink` = 2 + number of its subdirectories;
//! - a cookie is used once; a name that is replaced or moved within its directory keeps its cookie, so that a listing under
//!   way shows every name that was there all the time exactly once.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::outcome::Attempt;
use crate::state::record::{Dentry, Detail, IndexEntry, Inode, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::NAME_BYTES_MAX;

/// Whether a name may be given to an entry.
pub fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

/// The entry of a name that `check_name` has passed.
pub fn find(reader: &dyn Reader, parent: Ino, name: &[u8]) -> Result<Option<Dentry>, StoreError> {
    fetch(reader, Table::Dentries, &keys::dentry(parent, name))
}

/// What an operation changes in a directory besides its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub entries: i64,
    pub subdirectories: i32,
}

impl Tally {
    /// One entry of this kind more.
    pub fn plus(kind: FileKind) -> Self {
        Self { entries: 1, subdirectories: i32::from(kind == FileKind::Directory) }
    }

    /// One entry of this kind less.
    pub fn minus(kind: FileKind) -> Self {
        Self { entries: -1, subdirectories: -i32::from(kind == FileKind::Directory) }
    }
}

/// Writes both rows of an entry.
pub fn write_entry(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], dentry: &Dentry) {
    edit.put(Table::Dentries, &keys::dentry(parent, name), dentry);
    let index = IndexEntry { name: name.to_vec(), ino: dentry.ino, kind: dentry.kind };
    edit.put(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie), &index);
}

/// Deletes both rows of an entry.
pub fn erase_entry(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], dentry: &Dentry) {
    edit.delete(Table::Dentries, &keys::dentry(parent, name));
    edit.delete(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie));
}

/// Stages a directory whose entries have changed: times and counts.
pub fn write_changed(edit: &mut Edit<'_, '_>, ino: Ino, directory: &mut Inode, tally: Tally) {
    directory.mtime = edit.at;
    directory.ctime = edit.at;
    directory.size = directory.size.saturating_add_signed(tally.entries);
    directory.nlink = directory.nlink.saturating_add_signed(tally.subdirectories);
    edit.put_inode(ino, directory);
}

/// Whether `ancestor` is `directory` or above it.
pub fn is_within(reader: &dyn Reader, directory: Ino, ancestor: Ino) -> Attempt<bool> {
    let mut at = directory;
    loop {
        if at == ancestor {
            return Ok(true);
        }
        if at == Ino::ROOT {
            return Ok(false);
        }
        at = parent_of(reader, at)?;
    }
}

fn parent_of(reader: &dyn Reader, directory: Ino) -> Result<Ino, StoreError> {
    match fetch::<Inode>(reader, Table::Inodes, &keys::inode(directory))?.map(|inode| inode.detail) {
        Some(Detail::Directory { parent }) => Ok(parent),
        _ => Err(StoreError::Corrupt(format!("inode {directory} should be a directory but is not"))),
    }
}
