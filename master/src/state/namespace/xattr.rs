//! setxattr, removexattr. Linux: XATTR_CREATE of one that is there is EEXIST; XATTR_REPLACE or removal of one that is not is
//! ENODATA; an empty or overlong name is ERANGE, an overlong value E2BIG. All names together are bounded, so that they can
//! always be listed. ctime changes. Access lists ([`super::acl`]) change the mode as well.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::namespace::acl;
use crate::state::outcome::Attempt;
use crate::state::record::Inode;
use crate::store::tables::Table;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::{XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use cairn_common::wire::master::{MutationReply, XattrMode};

/// Whether an extended attribute can have this name.
pub fn check_name(name: &[u8]) -> Result<(), FsError> {
    match name.len() {
        1..=XATTR_NAME_BYTES_MAX if name.contains(&0) => Err(FsError::Invalid),
        1..=XATTR_NAME_BYTES_MAX => Ok(()),
        _ => Err(FsError::OutOfRange),
    }
}

pub fn set(edit: &mut Edit<'_, '_>, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Attempt<MutationReply> {
    check_name(name)?;
    if value.len() > XATTR_VALUE_BYTES_MAX {
        return Err(FsError::AttributeTooLarge.into());
    }
    let mut inode = edit.inode(ino)?;
    let exists = edit.reader().get(Table::Xattrs, &keys::xattr(ino, name))?.is_some();
    match (mode, exists) {
        (XattrMode::Create, true) => return Err(FsError::Exists.into()),
        (XattrMode::Replace, false) => return Err(FsError::NoAttribute.into()),
        _ => {}
    }
    if acl::is_list(name) && !acl::says_more_than_mode(&mut inode, name, value)? {
        if exists {
            forget(edit, ino, &mut inode, name);
        }
    } else {
        if !exists {
            inode.xattr_list_bytes += name.len() as u32 + 1;
            if inode.xattr_list_bytes as usize > XATTR_LIST_BYTES_MAX {
                return Err(FsError::NoSpace.into());
            }
        }
        edit.put_raw(Table::Xattrs, &keys::xattr(ino, name), value.to_vec());
    }
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    Ok(MutationReply::Done)
}

pub fn remove(edit: &mut Edit<'_, '_>, ino: Ino, name: &[u8]) -> Attempt<MutationReply> {
    check_name(name)?;
    let mut inode = edit.inode(ino)?;
    if edit.reader().get(Table::Xattrs, &keys::xattr(ino, name))?.is_none() {
        return Err(FsError::NoAttribute.into());
    }
    forget(edit, ino, &mut inode, name);
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    Ok(MutationReply::Done)
}

fn forget(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, name: &[u8]) {
    edit.delete(Table::Xattrs, &keys::xattr(ino, name));
    inode.xattr_list_bytes = inode.xattr_list_bytes.saturating_sub(name.len() as u32 + 1);
}
