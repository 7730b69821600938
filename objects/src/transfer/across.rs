//! Copies within CairnFS: the new file shares the chunks of the old one, so nothing moves at any length; unless its content belongs in another
//! pool.

use super::engine::Engine;
use super::plan::Job;
use super::preserve::{set_remote_xattrs, xattrs_of};
use super::spot::Spot;
use super::watch::Deed;
use crate::content::{OpenObject, PART_BYTES};
use crate::failure::{At, Failure, Reason};
use cairn_client::{AllocateMode, Handle, OpenFlags};
use cairn_common::attributes::{AttributeChange, FileKind, TimeChange};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;

/// A file without a name. Closed when dropped, and then gone unless it got one.
struct Unnamed<'a>(&'a Engine, Handle);

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        // It is there: it was opened by us.
        let _ = self.0.store.fs.release(self.1);
    }
}

impl Engine {
    pub(super) async fn copy_across(&self, job: &Job) -> Result<Deed, Failure> {
        let Spot::Remote(path) = &job.source else { return Err(Failure::said(&job.source, "it is not in CairnFS")) };
        let store = &self.store;
        let object = store.open_inode(path, Ino(job.traits.identity.1)).await?;
        let source = &object.attributes;
        let seat = self.seat(&job.target).await?;
        if store.fs.lookup(seat.directory.ino, &seat.name).await.is_ok_and(|present| present.ino == source.ino) {
            return Err(Failure::said(path, format!("it is the same file as {}", job.target)));
        }
        let preserve = self.options.preserve;
        let mode = store.caller.mode_of_copy(source.mode, source.uid, preserve);
        let inode = store.caller.new_inode(FileKind::Regular, mode);
        let (_, opened) = store.fs.create_unnamed(seat.directory.ino, inode, OpenFlags::READ_WRITE).await.at(&job.target)?;
        let unnamed = Unnamed(self, opened.handle);
        let copied = match store.fs.copy_range(object.handle, 0, unnamed.1, 0, source.size).await {
            Err(FsError::NotSupported) => self.copy_content(job, &object, unnamed.1).await?,
            shared => shared.at(&job.target)?,
        };
        if copied != source.size {
            return Err(Failure::new(path, Reason::Changed));
        }
        if preserve {
            let xattrs = xattrs_of(store, &job.source, &job.traits).await?;
            set_remote_xattrs(store, &job.target, opened.attributes.ino, &xattrs).await?;
            let change = AttributeChange { mtime: Some(TimeChange::At(source.mtime)), ..AttributeChange::default() };
            store.fs.set_attributes(opened.attributes.ino, change, None).await.at(&job.target)?;
        }
        let is_named = seat.name_unnamed(store, opened.attributes.ino).await?;
        self.watch.moved(None, source.size);
        Ok(if is_named { Deed::Copied } else { Deed::Kept })
    }

    /// The bytes themselves; holes stay holes. How many there are now.
    async fn copy_content(&self, job: &Job, object: &OpenObject, to: Handle) -> Result<u64, Failure> {
        let (fs, size) = (&self.store.fs, object.attributes.size);
        let mut next = object.next_data(0).await?;
        while let Some(range) = next {
            let mut at = range.start;
            while at < range.end {
                self.stop.check(&job.target)?;
                let bytes = object.read(at, PART_BYTES.min(range.end - at)).await?;
                if bytes.is_empty() {
                    return Ok(at);
                }
                self.pace.take(bytes.len() as u64).await;
                fs.write(to, at, &bytes).await.at(&job.target)?;
                at += bytes.len() as u64;
            }
            next = object.next_data(at).await?;
        }
        if size > 0 {
            fs.allocate(to, AllocateMode::Extend, 0, size).await.at(&job.target)?;
        }
        // It gets its name when it is whole.
        fs.flush(to).await.at(&job.target)?;
        Ok(size)
    }
}
