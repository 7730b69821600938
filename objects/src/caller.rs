//! Who asks. New files are theirs, and the modes of files decide what they may do, as the kernel decides it for a mount.
//!
//! This keeps users of one machine from each other's files by mistake, no more: whoever can read the client's certificate could as well write
//! a client of their own.

use cairn_common::attributes::{Attributes, FileKind, NewInode, Owner};

/// What one may want to do with an inode. A mode has these bits three times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read = 4,
    Write = 2,
    /// Go through a directory.
    Search = 1,
}

const STICKY: u16 = 0o1000;
const SET_ID: u16 = 0o6000;

/// The user on whose behalf a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u16,
}

impl Caller {
    /// The user that this process runs as. Not for while other threads make files: the umask can only be learned by setting it.
    pub fn of_this_process() -> Self {
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        let groups = rustix::process::getgroups().unwrap_or_default();
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
            umask: (umask.bits() & 0o777) as u16,
        }
    }

    pub fn may(&self, inode: &Attributes, access: Access) -> bool {
        let wanted = access as u16;
        let granted = if self.uid == inode.uid {
            inode.mode >> 6
        } else if self.gid == inode.gid || self.groups.contains(&inode.gid) {
            inode.mode >> 3
        } else {
            inode.mode
        };
        self.uid == 0 || granted & wanted != 0
    }

    /// Whether entries may be made in a directory, and removed from it as far as it is not sticky.
    pub fn may_change(&self, directory: &Attributes) -> bool {
        self.may(directory, Access::Write) && self.may(directory, Access::Search)
    }

    pub fn may_remove(&self, directory: &Attributes, entry: &Attributes) -> bool {
        let is_free = directory.mode & STICKY == 0 || [0, entry.uid, directory.uid].contains(&self.uid);
        self.may_change(directory) && is_free
    }

    /// Whether mode, times and extended attributes may be set.
    pub fn owns(&self, inode: &Attributes) -> bool {
        [0, inode.uid].contains(&self.uid)
    }

    /// A new inode of this user's; `mode` as it shall be in the end.
    pub fn new_inode(&self, kind: FileKind, mode: u16) -> NewInode {
        NewInode { kind, mode, owner: Owner { uid: self.uid, gid: self.gid }, rdev: 0, symlink_target: Vec::new(), umask: 0 }
    }

    /// The mode of a copy: that of the source exactly, or as far as the umask lets it. The bits that lend an owner's rights go when it gets
    /// another owner.
    pub fn mode_of_copy(&self, source: u16, source_uid: u32, exactly: bool) -> u16 {
        match (exactly, source_uid == self.uid) {
            (true, true) => source & 0o7777,
            (true, false) => source & 0o7777 & !SET_ID,
            (false, _) => source & 0o777 & !self.umask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Caller};
    use cairn_common::attributes::{Attributes, FileKind};
    use cairn_common::ids::Ino;
    use cairn_common::time::Timestamp;

    fn inode(mode: u16, uid: u32, gid: u32) -> Attributes {
        let time = Timestamp::EPOCH;
        Attributes {
            ino: Ino(7),
            kind: FileKind::Regular,
            mode,
            uid,
            gid,
            nlink: 1,
            rdev: 0,
            size: 0,
            allocated: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            has_xattrs: false,
            pool: None,
        }
    }

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: uid, groups: vec![50], umask: 0o022 }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let file = inode(0o046, 1, 50);
        assert!(!caller(1).may(&file, Access::Read), "the owner has fewer rights than the others");
        assert!(caller(2).may(&file, Access::Read) && !caller(2).may(&file, Access::Write), "a member of the group");
        let stranger = Caller { groups: vec![], ..caller(3) };
        assert!(stranger.may(&file, Access::Write));
        assert!(caller(0).may(&inode(0, 1, 1), Access::Write));
    }

    #[test]
    fn a_sticky_directory_protects_entries_of_others() {
        let (sticky, open) = (inode(0o1777, 1, 1), inode(0o777, 1, 1));
        let entry = inode(0o666, 2, 2);
        assert!(caller(2).may_remove(&sticky, &entry) && caller(1).may_remove(&sticky, &entry));
        assert!(!caller(3).may_remove(&sticky, &entry) && caller(3).may_remove(&open, &entry));
    }

    #[test]
    fn copies_do_not_lend_rights() {
        assert_eq!(caller(1).mode_of_copy(0o4777, 1, false), 0o755);
        assert_eq!(caller(1).mode_of_copy(0o6777, 1, true), 0o6777);
        assert_eq!(caller(1).mode_of_copy(0o6777, 2, true), 0o777);
    }
}
