//! flock(2) and fcntl(2): locks that all clients see.
//!
//! What was written is with the master before a lock is let go of. That whoever gets one sees what others did before is the business of leases.

use super::handles::OpenFile;
use super::start::FileSystem;
use super::types::Handle;
use crate::link::{LockPlace, Locked};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner};
use cairn_common::wire::master::{LockPatience, LockSeen};
use std::sync::Arc;

impl FileSystem {
    /// Locks, or lets go. Whether others have changed the file, so that what is cached of its content must go.
    pub async fn lock(&self, handle: Handle, claim: LockClaim, patience: LockPatience) -> Result<bool, FsError> {
        let open = self.0.handles.file(handle)?;
        let (link, book, place) = (&self.0.link, self.0.link.lock_book(), LockPlace::of(&claim));
        if claim.mode.is_none() && !book.knows(place) {
            return Ok(false);
        }
        if open.victim.has_lost_locks() && claim.mode.is_some() {
            return Err(FsError::Io);
        }
        if claim.mode != Some(LockMode::Exclusive) && open.file.has_dirty() {
            // An error is told by the next write, fsync or close.
            let _ = open.file.flush().await;
        }
        book.begin(place, &open.victim);
        loop {
            let before = book.surrendered_count();
            match link.lock(claim, patience).await.map_err(|error| error.to_fs("a lock"))? {
                Locked::Done { version } if claim.mode.is_some() => {
                    book.begin(place, &open.victim);
                    if self.0.handles.file(handle).is_err() {
                        // Closed by another thread meanwhile.
                        link.surrender(place).await.map_err(|error| error.to_fs("a lock"))?;
                        return Err(FsError::BadHandle);
                    }
                    return self.catch_up(&open, version).await;
                }
                Locked::Done { .. } => return Ok(false),
                // It may be that of a descriptor that was closed before this call.
                Locked::Denied { by_us: true } if book.settled_since(before).await => {}
                Locked::Denied { .. } => return Err(FsError::WouldBlock),
            }
        }
    }

    /// What is in the way of a lock.
    pub async fn test_lock(&self, claim: LockClaim) -> Result<Option<LockSeen>, FsError> {
        self.0.link.test_lock(claim).await.map_err(|error| error.to_fs("a test of a lock"))
    }

    /// Whether an owner may have locks of a family.
    pub fn may_hold_locks(&self, ino: Ino, family: LockFamily, owner: LockOwner) -> bool {
        self.0.link.lock_book().knows(LockPlace { ino, family, owner })
    }

    /// For close(2) by a process that may have locks: what was written is flushed, and all locks of the process in the file are let go of, through whichever
    /// descriptor they were taken. Goes on to its end if the caller leaves.
    pub async fn flush_and_unlock(&self, handle: Handle, owner: LockOwner) -> Result<(), FsError> {
        let ino = self.0.handles.file(handle)?.ino();
        let this = self.clone();
        self.to_its_end("close", async move {
            let flushed = this.flush(handle).await;
            let place = LockPlace { ino, family: LockFamily::Posix, owner };
            this.0.link.surrender(place).await.map_err(|error| error.to_fs("close"))?;
            flushed
        })
        .await
    }

    /// The file is at `version`: takes over what others did.
    async fn catch_up(&self, open: &Arc<OpenFile>, version: u64) -> Result<bool, FsError> {
        let ino = open.ino();
        if self.0.versions.covers(ino, version) {
            return Ok(false);
        }
        // Nothing is left of what the lease of this client allowed it to believe, if others have changed the file.
        self.freshen(&open.file).await?;
        Ok(true)
    }
}
