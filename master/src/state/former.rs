//! Formats that are not written any more, and what became of them. Versions are in [`crate::keys`].

use crate::state::record::{Detail, Inode, PoolRecord, StoredResult};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{MasterError, MutationReply};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Before there were policies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InodeV1 {
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    size: u64,
    allocated: u64,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    btime: Timestamp,
    version: u64,
    xattr_list_bytes: u32,
    detail: Detail,
}

impl From<InodeV1> for Inode {
    fn from(old: InodeV1) -> Self {
        let InodeV1 { mode, uid, gid, nlink, size, allocated, atime, mtime, ctime, btime, version, xattr_list_bytes, detail } = old;
        Self { mode, uid, gid, nlink, size, allocated, atime, mtime, ctime, btime, version, xattr_list_bytes, detail, pool: None }
    }
}

/// When every pool was on all chunkservers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolRecordV1 {
    name: String,
    scheme: Scheme,
    prefix_bits: u8,
    placement_seed: u64,
}

impl From<PoolRecordV1> for PoolRecord {
    fn from(old: PoolRecordV1) -> Self {
        let PoolRecordV1 { name, scheme, prefix_bits, placement_seed } = old;
        Self { name, scheme, prefix_bits, placement_seed, labels: BTreeMap::new() }
    }
}

/// With attributes from before there were policies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredResultV1(Result<MutationReplyV1, MasterError>);

#[derive(Debug, Clone, Serialize, Deserialize)]
enum MutationReplyV1 {
    Inode(AttributesV1),
    Removed(AttributesV1),
    Done,
    Committed(Vec<Result<AttributesV1, FsError>>),
    Copied { bytes: u64, to: AttributesV1 },
    Compacted { bytes: u64, stale_bytes: u64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct AttributesV1 {
    ino: Ino,
    kind: FileKind,
    mode: u16,
    uid: u32,
    gid: u32,
    nlink: u32,
    rdev: u32,
    size: u64,
    allocated: u64,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    btime: Timestamp,
    version: u64,
    has_xattrs: bool,
}

impl From<StoredResultV1> for StoredResult {
    fn from(old: StoredResultV1) -> Self {
        Self(old.0.map(MutationReply::from))
    }
}

impl From<MutationReplyV1> for MutationReply {
    fn from(old: MutationReplyV1) -> Self {
        match old {
            MutationReplyV1::Inode(attributes) => Self::Inode(attributes.into()),
            MutationReplyV1::Removed(attributes) => Self::Removed(attributes.into()),
            MutationReplyV1::Done => Self::Done,
            MutationReplyV1::Committed(files) => Self::Committed(files.into_iter().map(|file| file.map(Attributes::from)).collect()),
            MutationReplyV1::Copied { bytes, to } => Self::Copied { bytes, to: to.into() },
            MutationReplyV1::Compacted { bytes, stale_bytes } => Self::Compacted { bytes, stale_bytes },
        }
    }
}

impl From<AttributesV1> for Attributes {
    fn from(old: AttributesV1) -> Self {
        let AttributesV1 { ino, kind, mode, uid, gid, nlink, rdev, size, allocated, atime, mtime, ctime, btime, version, has_xattrs } = old;
        Self { ino, kind, mode, uid, gid, nlink, rdev, size, allocated, atime, mtime, ctime, btime, version, has_xattrs, pool: None }
    }
}

#[cfg(test)]
mod tests {
    use crate::keys::Record;
    use crate::state::record::{Detail, Inode, PoolRecord, StoredResult};
    use cairn_common::ids::Ino;
    use cairn_common::wire::master::MutationReply;

    // Images as they were written then: they must never change.

    #[test]
    fn an_inode_of_format_1_has_no_policy() {
        let image = [1, 0xed, 3, 10, 20, 2, 0, 0, 2, 4, 6, 8, 9, 0, 1, 1];
        let inode = Inode::decode(&image).unwrap();
        assert_eq!((inode.mode, inode.uid, inode.nlink, inode.version, inode.pool), (0o755, 10, 2, 9, None));
        assert_eq!(inode.detail, Detail::Directory { parent: Ino(1) });
        assert_eq!(Inode::decode(&inode.encode()).unwrap(), inode);
        assert_ne!(inode.encode()[0], 1);
    }

    #[test]
    fn a_pool_of_format_1_is_on_all_chunkservers() {
        let image = [1, 4, b'm', b'a', b'i', b'n', 4, 2, 3, 42];
        let pool = PoolRecord::decode(&image).unwrap();
        assert_eq!((pool.name.as_str(), pool.scheme.shards(), pool.prefix_bits, pool.placement_seed), ("main", 6, 3, 42));
        assert!(pool.labels.is_empty());
        assert_eq!(PoolRecord::decode(&pool.encode()).unwrap(), pool);
    }

    #[test]
    fn a_result_of_format_1_is_still_the_answer() {
        let image = [1, 0, 0, 7, 0, 0xa0, 3, 10, 20, 1, 0, 0, 0, 2, 2, 2, 2, 9, 1];
        let StoredResult(result) = StoredResult::decode(&image).unwrap();
        let Ok(MutationReply::Inode(attributes)) = result.clone() else { panic!("{result:?}") };
        assert_eq!((attributes.ino, attributes.mode, attributes.version, attributes.has_xattrs), (Ino(7), 0o640, 9, true));
        assert_eq!(attributes.pool, None);
        let refused = StoredResult::decode(&[1, 1, 0, 0]).unwrap();
        assert_eq!(StoredResult::decode(&refused.encode()).unwrap(), refused);
    }
}
