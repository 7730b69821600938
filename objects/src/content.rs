//! The bytes of an object, from the beginning to the end; and what a mode allows for that.

use crate::caller::Access;
use crate::failure::{At, Failure};
use crate::place::RemotePath;
use crate::store::{Found, Store};
use bytes::Bytes;
use cairn_client::{Handle, OpenFlags, SeekTarget};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use futures_util::stream::{self, Stream, StreamExt};
use std::ops::Range;

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
        match found.attributes.kind {
            FileKind::Regular => self.open_inode(&found.path, found.ino()).await,
            FileKind::Directory => Err(Failure::new(&found.path, FsError::IsDirectory)),
            _ => Err(Failure::said(&found.path, "it is a device, socket or pipe, which has no content")),
        }
    }

    /// Opens what is known to be a file.
    pub async fn open_inode(&self, path: &RemotePath, ino: Ino) -> Result<OpenObject, Failure> {
        let opened = self.fs.open(ino, OpenFlags::READ).await.at(path)?;
        let object = OpenObject { store: self.clone(), path: path.clone(), handle: opened.handle, attributes: opened.attributes };
        self.check(path, &object.attributes, Access::Read)?;
        Ok(object)
    }
}

impl OpenObject {
    /// A range, verified; shorter only at the end of the file.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.store.fs.read(self.handle, offset, len as usize).await.at(&self.path)
    }

    /// The first range at or after `from` that is no hole, if there is one before the end that the file had when it was opened.
    pub async fn next_data(&self, from: u64) -> Result<Option<Range<u64>>, Failure> {
        let (fs, size) = (&self.store.fs, self.attributes.size);
        let start = match fs.seek(self.handle, from, SeekTarget::Data).await {
            Ok(start) if start < size => start,
            Ok(_) | Err(FsError::NoDataThere) => return Ok(None),
            Err(error) => return Err(Failure::new(&self.path, error)),
        };
        let end = fs.seek(self.handle, start, SeekTarget::Hole).await.at(&self.path)?;
        Ok(Some(start..end.min(size)))
    }

    /// All ranges that are no holes.
    pub async fn data(&self) -> Result<Vec<Range<u64>>, Failure> {
        let Attributes { allocated, size, .. } = self.attributes;
        if allocated >= size {
            return Ok(std::iter::once(0..size).collect());
        }
        let mut found: Vec<Range<u64>> = Vec::new();
        while let Some(next) = self.next_data(found.last().map_or(0, |last| last.end)).await? {
            found.push(next);
        }
        Ok(found)
    }

    /// The first `bytes` bytes in order, some parts of them under way ahead.
    pub fn parts(&self, bytes: u64) -> impl Stream<Item = Result<Bytes, Failure>> + '_ {
        let end = self.attributes.size.min(bytes);
        let starts = (0..end.div_ceil(PART_BYTES)).map(|part| part * PART_BYTES);
        stream::iter(starts).map(move |start| self.read(start, PART_BYTES.min(end - start))).buffered(PARTS_AHEAD)
    }
}
