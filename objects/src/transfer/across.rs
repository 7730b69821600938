//! Copies within CairnFS: the new file shares the chunks of the old one, so nothing moves at any length.

use super::engine::Engine;
use super::plan::Job;
use super::preserve::{set_remote_xattrs, xattrs_of};
use super::spot::Spot;
use super::watch::Deed;
use crate::failure::{At, Failure, Reason};
use cairn_client::{Handle, OpenFlags};
use cairn_common::attributes::{AttributeChange, FileKind, TimeChange};
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
        let shared = store.fs.copy_range(object.handle, 0, unnamed.1, 0, source.size).await.at(&job.target)?;
        if shared != source.size {
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
}
