//! Extended attributes of local files: those of users, the only ones that mean the same elsewhere.

use crate::failure::{At, Failure};
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;
use std::path::Path;

/// As long as any may be in CairnFS.
const LIST_BYTES_MAX: usize = cairn_common::limits::XATTR_LIST_BYTES_MAX;
const VALUE_BYTES_MAX: usize = cairn_common::limits::XATTR_VALUE_BYTES_MAX;

/// Names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

pub fn read_xattrs(path: &Path) -> Result<Xattrs, Failure> {
    let mut names = vec![0; 1024];
    let len = match llistxattr(path, &mut names[..]) {
        Err(Errno::RANGE) => {
            names.resize(LIST_BYTES_MAX, 0);
            llistxattr(path, &mut names[..])
        }
        listed => listed,
    };
    let names = match len {
        Ok(len) => &names[..len],
        // Nothing can be there where there can be none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(path.display(), error)),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; VALUE_BYTES_MAX];
        let len = lgetxattr(path, name, &mut value[..]).at(path.display())?;
        value.truncate(len);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

pub fn write_xattrs(path: &Path, xattrs: &Xattrs) -> Result<(), Failure> {
    for (name, value) in xattrs {
        lsetxattr(path, name.as_slice(), value, XattrFlags::empty()).at(path.display())?;
    }
    Ok(())
}
