//! Extended attributes.

use super::start::FileSystem;
use crate::link::AskError;
use cairn_common::acl;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use cairn_common::wire::master::{MasterReply, MasterRequest, Mutation, XattrMode};

impl FileSystem {
    /// The answer, if it is known without asking: most inodes have no extended attributes, and `ls -l` asks for two of each.
    pub fn try_get_xattr(&self, ino: Ino, name: &[u8]) -> Option<Result<Vec<u8>, FsError>> {
        match check_xattr_name(name) {
            Ok(()) => self.has_no_xattrs(ino).then_some(Err(FsError::NoAttribute)),
            Err(error) => Some(Err(error)),
        }
    }

    /// The same for a listing.
    pub fn try_list_xattr(&self, ino: Ino) -> Option<Vec<Vec<u8>>> {
        self.has_no_xattrs(ino).then(Vec::new)
    }

    fn has_no_xattrs(&self, ino: Ino) -> bool {
        self.0.cache.attributes(ino).is_some_and(|known| !known.has_xattrs)
    }

    pub async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        check_xattr_name(name)?;
        match self.0.link.ask(MasterRequest::GetXattr { ino, name: name.to_vec() }).await {
            Ok(MasterReply::Xattr { value }) => Ok(value),
            Ok(other) => Err(AskError::unexpected(&other).to_fs("getxattr")),
            Err(error) => Err(error.to_fs("getxattr")),
        }
    }

    pub async fn list_xattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        match self.0.link.ask(MasterRequest::ListXattr { ino }).await {
            Ok(MasterReply::Xattrs { names }) => Ok(names),
            Ok(other) => Err(AskError::unexpected(&other).to_fs("listxattr")),
            Err(error) => Err(error.to_fs("listxattr")),
        }
    }

    pub async fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), FsError> {
        check_xattr_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::AttributeTooLarge);
        }
        let mutation = Mutation::SetXattr { ino, name: name.to_vec(), value: value.to_vec(), mode };
        self.change_xattr(ino, mutation, "setxattr").await
    }

    pub async fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        check_xattr_name(name)?;
        self.change_xattr(ino, Mutation::RemoveXattr { ino, name: name.to_vec() }, "removexattr").await
    }

    async fn change_xattr(&self, ino: Ino, mutation: Mutation, what: &str) -> Result<(), FsError> {
        self.change(self.0.cache.changing(ino), mutation, what).await.map(drop)
    }
}

/// The namespaces that local file systems have. `system` is the kernel's own; of it, file systems serve access lists.
fn check_xattr_name(name: &[u8]) -> Result<(), FsError> {
    const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let is_list = name == acl::ACCESS || name == acl::DEFAULT;
    match name.len() {
        0 => Err(FsError::Invalid),
        _ if !is_list && !NAMESPACES.iter().any(|namespace| name.starts_with(namespace)) => Err(FsError::NotSupported),
        len if len > XATTR_NAME_BYTES_MAX => Err(FsError::OutOfRange),
        _ => Ok(()),
    }
}
