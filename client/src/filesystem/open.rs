//! open(2) and the end of an open file. An opening always asks the master, which has to know what is open.

use super::start::FileSystem;
use super::types::{Handle, OpenFlags, Opened};
use crate::data::FileData;
use crate::limits::CLOSED_EAGER;
use crate::link::{Answer, AskError, OpenGuard};
use cairn_common::attributes::{AttributeChange, Attributes};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::lease::LeaseMode;
use cairn_common::wire::master::{MasterReply, MasterRequest};
use std::sync::Arc;

/// A handle that nobody will learn of, unless it is kept: the opening may fail, or its caller leave.
struct Unwanted<'a> {
    fs: &'a FileSystem,
    handle: Option<Handle>,
}

impl Unwanted<'_> {
    fn keep(mut self) {
        self.handle = None;
    }
}

impl Drop for Unwanted<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            // It is there: it was made just now.
            let _ = self.fs.release(handle);
        }
    }
}

impl FileSystem {
    /// Opens a regular file: fresh attributes, and its content as of now.
    pub async fn open(&self, ino: Ino, flags: OpenFlags) -> Result<Opened, FsError> {
        self.open_held(self.0.link.opens().begin(ino), flags).await
    }

    /// Opens an inode that already counts as open.
    pub(super) async fn open_held(&self, guard: OpenGuard, flags: OpenFlags) -> Result<Opened, FsError> {
        let ino = guard.ino();
        self.0.link.opens().settled(ino).await;
        // Keeps what is known of the file alive, so that an answer which our own changes overtake is noticed.
        let file = self.0.data.file(ino);
        let reading = self.0.cache.reading();
        let wanted = if flags.write { LeaseMode::Write } else { LeaseMode::Read };
        let reply = self.0.link.ask_for_leases(|session| MasterRequest::Open { session, ino, wanted }).await;
        let (attributes, extents, leased) = match reply {
            Ok(Answer { reply: MasterReply::Opened { attributes, extents }, leased }) => (attributes, extents, leased),
            Ok(other) => return Err(AskError::unexpected(&other.reply).to_fs("open")),
            Err(error) => return Err(error.to_fs("open")),
        };
        let changed = self.see(&file, &attributes, &extents);
        self.0.cache.accept(reading, &leased);
        self.rest(&file, reading, &leased);
        let attributes = self.0.cache.learn(reading, &leased, attributes);
        let mut opened = self.enter(attributes, file, changed, guard, flags);
        if flags.truncate {
            let unwanted = Unwanted { fs: self, handle: Some(opened.handle) };
            let change = AttributeChange { size: Some(0), ..AttributeChange::default() };
            opened.attributes = self.set_attributes(ino, change, None).await?;
            unwanted.keep();
        }
        Ok(opened)
    }

    /// Makes the handle.
    pub(super) fn enter(&self, attributes: Attributes, file: Arc<FileData>, changed: bool, guard: OpenGuard, flags: OpenFlags) -> Opened {
        let atime_is_due = self.0.access.is_due(&attributes, self.0.runtime.wall());
        let handle = self.0.handles.insert_file(file, flags, guard, atime_is_due);
        Opened { handle, attributes: self.with_own_writes(attributes), keep_cache: !changed }
    }

    /// The descriptor is gone. What was written through it and not flushed is flushed in the background.
    pub fn release(&self, handle: Handle) -> Result<(), FsError> {
        let open = self.0.handles.remove_file(handle)?;
        let ino = open.ino();
        for place in self.0.link.lock_book().closed(ino, &open.victim) {
            // Goes on in the background.
            drop(self.0.link.surrender(place));
        }
        drop(open);
        let opens = self.0.link.opens();
        // Somebody may wait for the space of a file without a name.
        let is_garbage = !opens.is_open(ino) && self.0.cache.is_unlinked(ino);
        if is_garbage || opens.closed_count() >= CLOSED_EAGER {
            self.0.link.renew_soon();
        }
        Ok(())
    }
}
