//! What is asked of a file system, for metrics. Whoever hands requests on to the library (the mount, a gateway) records how long each took, from
//! its arrival to its answer.

use cairn_common::labels;
use cairn_common::metrics::Label;
use cairn_common::wire::chunkserver::ChunkserverRequest;

labels! {
    /// The operations, as FUSE names them.
    Operation {
        Read = "read",
        Write = "write",
        Lookup = "lookup",
        Getattr = "getattr",
        Setattr = "setattr",
        Open = "open",
        Create = "create",
        Flush = "flush",
        Fsync = "fsync",
        Opendir = "opendir",
        Readdir = "readdir",
        Readdirplus = "readdirplus",
        Fsyncdir = "fsyncdir",
        Mkdir = "mkdir",
        Mknod = "mknod",
        Unlink = "unlink",
        Rmdir = "rmdir",
        Rename = "rename",
        Link = "link",
        Symlink = "symlink",
        Readlink = "readlink",
        Getxattr = "getxattr",
        Setxattr = "setxattr",
        Listxattr = "listxattr",
        Removexattr = "removexattr",
        Fallocate = "fallocate",
        Lseek = "lseek",
        CopyFileRange = "copy_file_range",
        Statfs = "statfs",
        Getlk = "getlk",
        Setlk = "setlk",
        Other = "other",
    }
}

impl Operation {
    /// The operation of that name; `Other` if there is none.
    pub fn named(name: &str) -> Self {
        Self::ALL.iter().copied().find(|operation| operation.name() == name).unwrap_or(Operation::Other)
    }
}

labels! {
    /// What this client asks of chunkservers.
    Fetch {
        Get = "get",
        Put = "put",
        PutSync = "put_sync",
        Proof = "proof",
        Sync = "sync",
        Check = "check",
        Other = "other",
    }
}

impl Fetch {
    pub fn of(request: &ChunkserverRequest) -> Self {
        match request {
            ChunkserverRequest::Get { .. } => Self::Get,
            ChunkserverRequest::Put { sync: false, .. } => Self::Put,
            ChunkserverRequest::Put { sync: true, .. } => Self::PutSync,
            ChunkserverRequest::Proof { .. } => Self::Proof,
            ChunkserverRequest::Sync { .. } => Self::Sync,
            ChunkserverRequest::Check { .. } => Self::Check,
            ChunkserverRequest::Delete { .. }
            | ChunkserverRequest::Status
            | ChunkserverRequest::Fetch { .. }
            | ChunkserverRequest::Doubt { .. }
            | ChunkserverRequest::Examine { .. } => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Operation;

    #[test]
    fn operations_are_found_by_their_names() {
        assert_eq!([Operation::named("fsync"), Operation::named("ioctl")], [Operation::Fsync, Operation::Other]);
    }
}
