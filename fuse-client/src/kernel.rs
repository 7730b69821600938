//! What we tell the kernel without being asked.

use fuser::{INodeNo, Notifier};
use std::sync::{Arc, OnceLock};

/// The kernel's side of a mount. Cheap to clone; before the session has begun, nobody listens.
#[derive(Clone, Default)]
pub struct Kernel(Arc<OnceLock<Notifier>>);

impl Kernel {
    pub fn listens_to(&self, notifier: Notifier) {
        // There is one session for each adapter.
        let _ = self.0.set(notifier);
    }

    /// What the kernel has of the content of an inode is out of date. Waits for requests of ours that work on it: not for a thread that answers them.
    pub fn forget_content(&self, number: INodeNo) {
        const EVERYTHING: i64 = 0;
        let Some(notifier) = self.0.get() else { return };
        if let Err(error) = notifier.inval_inode(number, 0, EVERYTHING) {
            tracing::debug!(?number, %error, "the kernel was told to forget content");
        }
    }

    /// The attributes of an inode are not what the kernel was told; its pages are.
    pub fn forget_attributes(&self, number: INodeNo) {
        const NO_PAGES: i64 = -1;
        let Some(notifier) = self.0.get() else { return };
        // It may not know the inode (any more), which is as good.
        if let Err(error) = notifier.inval_inode(number, NO_PAGES, 0) {
            tracing::debug!(?number, %error, "the kernel was told to forget attributes");
        }
    }
}
