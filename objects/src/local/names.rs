//! Names of local files: listing, making, moving and removing them.

use super::inode::inode_of;
use super::xattrs::has_xattrs;
use crate::transfer::{Entry, Traits};
use cairn_common::attributes::FileKind;
use cairn_common::time::Timestamp;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, UTIME_OMIT};
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// What is in a directory, in order of name.
#[expect(clippy::disallowed_methods, reason = "a directory of the user's, outside any store of ours")]
pub fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let traits = match entry.metadata() {
            Ok(metadata) => {
                let traits = inode_of(&metadata);
                let may_have_xattrs = traits.kind != FileKind::Symlink && has_xattrs(&entry.path());
                Traits { may_have_xattrs, ..traits }
            }
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        all.push(Entry { name: entry.file_name().into_vec(), traits });
    }
    all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// A directory and all that is missing above it.
pub fn make_directories(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    match std::fs::DirBuilder::new().recursive(true).mode(0o777).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(io::Error::from(rustix::io::Errno::NOTDIR)),
        made => made,
    }
}

/// Gives a file another name. Without `replace`, whether the name was free.
pub fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<bool> {
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    match rustix::fs::renameat_with(CWD, from, CWD, to, flags) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) if !replace => Ok(false),
        // Some file systems know no flags.
        Err(rustix::io::Errno::INVAL) if !replace => match to.symlink_metadata() {
            Ok(_) => Ok(false),
            Err(_) => Ok(rustix::fs::renameat(CWD, from, CWD, to).map(|()| true)?),
        },
        Err(error) => Err(error.into()),
    }
}

/// The name of a file is on stable storage afterwards.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OpenOptions::new().read(true).open(directory)?.sync_all()
}

/// Removes a file, or a directory with everything in it.
#[expect(clippy::disallowed_methods, reason = "a file of the user's, outside any store of ours")]
pub fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

pub fn remove_empty_directory(path: &Path) -> io::Result<()> {
    std::fs::remove_dir(path)
}

/// A symlink in place of whatever file is there.
pub fn symlink(target: &[u8], path: &Path, replace: bool) -> io::Result<bool> {
    match std::os::unix::fs::symlink(OsStr::from_bytes(target), path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !replace {
                return Ok(false);
            }
            let mut name = OsString::from(path);
            name.push(".cairn-link");
            std::os::unix::fs::symlink(OsStr::from_bytes(target), &name)?;
            rename(Path::new(&name), path, true)
        }
        made => made.map(|()| true),
    }
}

pub fn symlink_target(path: &Path) -> io::Result<Vec<u8>> {
    path.read_link().map(|target| target.into_os_string().into_vec())
}

/// Sets the modification time; of a symlink, not of what it leads to.
pub fn set_times(path: &Path, mtime: Timestamp) -> io::Result<()> {
    let (seconds, nanos) = mtime.parts();
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub fn set_mode(path: &Path, traits: &Traits, mode: u16) -> io::Result<()> {
    if traits.kind == FileKind::Symlink {
        return Ok(());
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode.into()))
}

#[cfg(test)]
mod tests {
    use super::{entries, rename, set_times, symlink, symlink_target};
    use cairn_common::attributes::FileKind;
    use cairn_common::time::Timestamp;
    use std::fs::OpenOptions;

    #[test]
    fn names_are_listed_in_order_and_kept_unless_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["b", "a"] {
            OpenOptions::new().write(true).create_new(true).open(path(name)).unwrap();
        }
        assert!(symlink(b"a", &path("c"), false).unwrap());
        assert!(!symlink(b"b", &path("c"), false).unwrap() && symlink(b"b", &path("c"), true).unwrap());
        assert_eq!(symlink_target(&path("c")).unwrap(), b"b");
        assert!(!rename(&path("a"), &path("b"), false).unwrap());
        let time = Timestamp::from_parts(1_000_000_000, 123_456_789);
        set_times(&path("a"), time).unwrap();
        let listed = entries(directory.path()).unwrap();
        let kinds: Vec<_> = listed.iter().map(|entry| (entry.name.as_slice(), entry.traits.kind)).collect();
        assert_eq!(kinds, [(&b"a"[..], FileKind::Regular), (b"b", FileKind::Regular), (b"c", FileKind::Symlink)]);
        assert_eq!(listed[0].traits.mtime, time);
    }
}
