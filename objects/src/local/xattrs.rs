//! Extended attributes of local files: those of users, the only ones that mean the same elsewhere.

use crate::failure::{At, Failure};
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, llistxattr_query, lremovexattr, lsetxattr};
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

/// Whether there are any at all; it costs one call.
pub fn has_xattrs(path: &Path) -> bool {
    // Whoever can't tell is asked again, and then told why.
    !matches!(llistxattr_query(path), Ok(0) | Err(Errno::OPNOTSUPP))
}

/// Removes those that are not `wanted`.
pub fn drop_xattrs(path: &Path, wanted: &Xattrs) -> Result<(), Failure> {
    for (name, _) in read_xattrs(path)?.iter().filter(|(name, _)| !wanted.iter().any(|(wanted, _)| wanted == name)) {
        lremovexattr(path, name.as_slice()).at(path.display())?;
    }
    Ok(())
}

pub fn write_xattrs(path: &Path, xattrs: &Xattrs) -> Result<(), Failure> {
    for (name, value) in xattrs {
        lsetxattr(path, name.as_slice(), value, XattrFlags::empty()).at(path.display())?;
    }
    Ok(())
}
