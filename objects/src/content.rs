//! The bytes of an object, from the beginning to the end; and what a mode allows for that.

use crate::caller::Access;
use crate::failure::{At, Failure};
use crate::place::RemotePath;
use crate::store::{Found, Store};
use bytes::Bytes;
use cairn_client::{Handle, OpenFlags};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use futures_util::stream::{self, Stream, StreamExt};

/// A range that is read at once.
pub const PART_BYTES: u64 = 4 << 20;
/// Parts under way ahead of a reader in order.
const PARTS_AHEAD: usize = 4;

/// An object that is open. Closed when dropped.
pub struct OpenObject {
    pub store: Store,
    pub path: RemotePath,
    pub handle: Handle,
    /// As they were when it was opened.
    pub attributes: Attributes,
}

impl Drop for OpenObject {
    fn drop(&mut self) {
        // It is there: it was opened by us.
        let _ = self.store.fs.release(self.handle);
    }
}

impl Store {
    /// Opens a file for reading.
    pub async fn open(&self, found: &Found) -> Result<OpenObject, Failure> {
        self.open_file(&found.path, &found.attributes).await
    }

    pub async fn open_file(&self, path: &RemotePath, inode: &Attributes) -> Result<OpenObject, Failure> {
        match inode.kind {
            FileKind::Regular => self.check(path, inode, Access::Read)?,
            FileKind::Directory => return Err(Failure::new(path, FsError::IsDirectory)),
            _ => return Err(Failure::said(path, "it is a device, socket or pipe, which has no content")),
        }
        let opened = self.fs.open(inode.ino, OpenFlags::READ).await.at(path)?;
        Ok(OpenObject { store: self.clone(), path: path.clone(), handle: opened.handle, attributes: opened.attributes })
    }
}

impl OpenObject {
    /// A range, verified; shorter only at the end of the file.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.store.fs.read(self.handle, offset, len as usize).await.at(&self.path)
    }

    /// The first `bytes` bytes in order, some parts of them under way ahead.
    pub fn parts(&self, bytes: u64) -> impl Stream<Item = Result<Bytes, Failure>> + '_ {
        let end = self.attributes.size.min(bytes);
        let starts = (0..end.div_ceil(PART_BYTES)).map(|part| part * PART_BYTES);
        stream::iter(starts).map(move |start| self.read(start, PART_BYTES.min(end - start))).buffered(PARTS_AHEAD)
    }
}
