//! What we tell the kernel without being asked.
//!
//! Names are no part of it: to forget one, the kernel waits for whoever works in the directory at the time, who may wait for another client that waits for
//! us. It is given names for a moment only (docs/leases.md).

use crate::questions::{QUIET, Question, Questions};
use cairn_client::ports::KernelCache;
use cairn_common::ids::Ino;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::task::BoxFuture;
use fuser::{INodeNo, Notifier};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Files of which the kernel forgets pages at a time. Each takes a thread until the reads and writes under way there are answered, perhaps for as long as
/// the master is away; a role has 16 threads for such work, and others need some, too.
const FORGETTING_MAX: usize = 8;

/// The kernel's side of a mount. Cheap to clone; before the session has begun, nobody listens.
#[derive(Clone)]
pub struct Kernel {
    runtime: Runtime,
    /// What the kernel calls inode 1.
    root: Ino,
    notifier: Arc<OnceLock<Notifier>>,
    forgetting: Arc<Semaphore>,
    questions: Arc<Questions>,
}

impl Kernel {
    pub fn new(runtime: Runtime, root: Ino) -> Self {
        Self { runtime, root, notifier: Arc::default(), forgetting: Arc::new(Semaphore::new(FORGETTING_MAX)), questions: Arc::default() }
    }

    pub fn listens_to(&self, notifier: Notifier) {
        // There is one session for each adapter.
        let _ = self.notifier.set(notifier);
    }

    /// The kernel asks for attributes, and is answered at once.
    pub fn note_question(&self, ino: Ino, now: Moment) {
        self.questions.note(ino, now);
    }

    /// The kernel asks for attributes. To be held until it has the answer.
    pub fn question(&self, ino: Ino) -> Question {
        self.questions.ask(&self.runtime, ino)
    }

    fn number(&self, ino: Ino) -> INodeNo {
        if ino == self.root { INodeNo::ROOT } else { INodeNo(ino.0) }
    }
}

/// Attributes go in any case; pages from `offset` on, if that is not negative.
fn forget(notifier: &Notifier, number: INodeNo, offset: i64) {
    // It may not know the inode (any more), which is as good.
    if let Err(error) = notifier.inval_inode(number, offset, 0) {
        tracing::trace!(?number, %error, "the kernel was told to forget an inode");
    }
}

impl KernelCache for Kernel {
    fn forget_attributes(&self, ino: Ino) {
        const NO_PAGES: i64 = -1;
        if let Some(notifier) = self.notifier.get() {
            forget(notifier, self.number(ino), NO_PAGES);
        }
    }

    fn forget_when_quiet(&self, ino: Ino) {
        if !self.questions.watch(ino, self.runtime.now()) {
            return;
        }
        let this = self.clone();
        self.runtime.spawn("forget when quiet", async move {
            loop {
                this.runtime.sleep(QUIET).await;
                if this.questions.is_quiet(ino, this.runtime.now()) {
                    return this.forget_pages(ino).await;
                }
            }
        });
    }

    fn forget_pages(&self, ino: Ino) -> BoxFuture<'static, ()> {
        let (this, number) = (self.clone(), self.number(ino));
        Box::pin(async move {
            let notifier = Arc::clone(&this.notifier);
            let Ok(_turn) = this.forgetting.acquire().await else { return };
            // It waits for pages that are being read or written: not on a thread that has to answer these.
            let work = move || {
                if let Some(notifier) = notifier.get() {
                    forget(notifier, number, 0);
                }
            };
            this.runtime.blocking(work).await;
        })
    }
}
