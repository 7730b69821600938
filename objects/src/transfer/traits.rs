//! What is known of a file before it is copied, on either side.

use cairn_common::attributes::{Attributes, DirectoryEntry, FileKind};
use cairn_common::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traits {
    pub kind: FileKind,
    pub size: u64,
    pub mode: u16,
    pub uid: u32,
    pub mtime: Timestamp,
    pub links: u64,
    /// Names the inode: two paths of which this is the same are hard links of one file.
    pub identity: (u64, u64),
    pub may_have_xattrs: bool,
}

impl Traits {
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether the modification times are the same, as far as both sides can tell: some file systems know whole seconds alone.
    pub fn is_as_old_as(&self, other: &Self) -> bool {
        let ((seconds, nanos), (other_seconds, other_nanos)) = (self.mtime.parts(), other.mtime.parts());
        seconds == other_seconds && (nanos == other_nanos || nanos == 0 || other_nanos == 0)
    }
}

impl From<&Attributes> for Traits {
    fn from(attributes: &Attributes) -> Self {
        Self {
            kind: attributes.kind,
            size: attributes.size,
            mode: attributes.mode,
            uid: attributes.uid,
            mtime: attributes.mtime,
            links: attributes.nlink.into(),
            identity: (0, attributes.ino.0),
            may_have_xattrs: attributes.has_xattrs,
        }
    }
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub traits: Traits,
}

impl Entry {
    /// An entry of a listing with attributes.
    pub fn of(entry: DirectoryEntry) -> Option<Self> {
        let traits = Traits::from(entry.attributes.as_ref()?);
        Some(Self { name: entry.name, traits })
    }
}
