//! POSIX access lists. They are kept as extended attributes; the kernels of the clients enforce them. What a kernel relies on is done here, with the change that
//! makes it necessary: a new access list sets the mode, chmod changes the list, and what is made in a directory inherits its default
//! list. A list that says no more than the mode is not kept, as on local file systems.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::outcome::Attempt;
use crate::state::record::Inode;
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::acl::{ACCESS, Acl, DEFAULT};
use cairn_common::attributes::{FileKind, NewInode};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;

const PERMISSIONS: u16 = 0o777;

/// Whether an extended attribute is an access list.
pub fn is_list(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// Checks a list that an inode is given, and takes its permissions into the mode. Whether it says more than that, so that it must be kept.
pub fn says_more_than_mode(inode: &mut Inode, name: &[u8], value: &[u8]) -> Result<bool, FsError> {
    let acl = Acl::decode(value)?;
    if inode.kind() == FileKind::Symlink {
        return Err(FsError::NotSupported);
    }
    if name == DEFAULT {
        return if inode.is_directory() { Ok(true) } else { Err(FsError::AccessDenied) };
    }
    inode.mode = inode.mode & !PERMISSIONS | acl.mode();
    Ok(acl.is_extended())
}

fn stored(reader: &dyn Reader, ino: Ino, inode: &Inode, name: &[u8]) -> Result<Option<Acl>, StoreError> {
    if inode.xattr_list_bytes == 0 {
        return Ok(None);
    }
    let Some(value) = reader.get(Table::Xattrs, &keys::xattr(ino, name))? else { return Ok(None) };
    let corrupt = |_| StoreError::Corrupt(format!("the access list of inode {ino} makes no sense"));
    Acl::decode(&value).map(Some).map_err(corrupt)
}

/// After chmod: the access list says what the mode says.
pub fn follow_mode(edit: &mut Edit<'_, '_>, ino: Ino, inode: &Inode) -> Result<(), StoreError> {
    if let Some(acl) = stored(edit.reader(), ino, inode, ACCESS)? {
        edit.put_raw(Table::Xattrs, &keys::xattr(ino, ACCESS), acl.with_mode(inode.mode).encode());
    }
    Ok(())
}

/// What a new inode has of its directory's default list.
pub enum Inheritance {
    /// There is none, and the umask counts; not for symlinks.
    Umask(u16),
    Lists {
        permissions: u16,
        access: Acl,
        /// For directories: what is made in them in turn.
        default: Option<Acl>,
    },
}

impl Inheritance {
    pub fn of(reader: &dyn Reader, parent: Ino, directory: &Inode, new: &NewInode) -> Attempt<Self> {
        if new.kind == FileKind::Symlink {
            return Ok(Inheritance::Umask(0));
        }
        let Some(default) = stored(reader, parent, directory, DEFAULT)? else {
            return Ok(Inheritance::Umask(new.umask));
        };
        let (access, mode) = default.inherited(new.mode);
        let default = (new.kind == FileKind::Directory).then_some(default);
        Ok(Inheritance::Lists { permissions: mode & PERMISSIONS, access, default })
    }

    pub fn give(self, edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode) {
        let (permissions, lists) = match self {
            Inheritance::Umask(umask) => (inode.mode & PERMISSIONS & !umask, [None, None]),
            Inheritance::Lists { permissions, access, default } => {
                (permissions, [access.is_extended().then_some((ACCESS, access)), default.map(|default| (DEFAULT, default))])
            }
        };
        inode.mode = inode.mode & !PERMISSIONS | permissions;
        for (name, acl) in lists.into_iter().flatten() {
            inode.xattr_list_bytes += name.len() as u32 + 1;
            edit.put_raw(Table::Xattrs, &keys::xattr(ino, name), acl.encode());
        }
    }
}
