//! What a file is made of, and when it says it was written: for those who move whole files.

use super::start::FileSystem;
use super::types::Handle;
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::Ino;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use std::ops::Range;

impl FileSystem {
    /// Which ranges of which chunks make up a range of a file, as the master has it now. What was written here and not flushed is not in it.
    /// A long list may end early: see `ExtentPage::more_from`.
    pub async fn content(&self, ino: Ino, range: Range<u64>) -> Result<ExtentPage, FsError> {
        self.0.metadata.extents(ino, range.start, range.end).await
    }

    /// Length of the chunks that a long stream into the file is cut into.
    pub fn chunk_bytes_max(&self, ino: Ino) -> usize {
        self.0.data.chunk_bytes_max(ino)
    }

    /// The scheme by which the file's chunks are cut; `None` before the first map has come.
    pub fn scheme(&self, ino: Ino) -> Option<Scheme> {
        self.0.data.scheme(ino)
    }

    /// What was written through the handle and is not flushed yet goes to the master with this modification time instead of the time of the
    /// write. It costs no request; a later write sets the time again.
    pub fn stamp(&self, handle: Handle, mtime: Timestamp) -> Result<(), FsError> {
        self.writable(handle)?.file.set_mtime(mtime);
        Ok(())
    }

    /// What is known of where the content is; the next read asks the master. Flush before.
    pub fn forget_content(&self, handle: Handle) -> Result<(), FsError> {
        self.readable(handle)?.file.forget_extents();
        Ok(())
    }

    /// Everything that was written, and every change of the namespace that returned before, is on stable storage when this returns. An
    /// error if that can't be, or if anything that was flushed before has been lost on the way to it.
    pub async fn sync_all(&self) -> Result<(), FsError> {
        let synced = self.0.data.sync_all().await;
        self.sync_directory(Ino::ROOT).await?;
        synced
    }
}
