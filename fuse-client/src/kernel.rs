//! What we tell the kernel without being asked.
//!
//! Recalls forget no names: for that, the kernel waits for whoever works in the directory at the time, who may wait for another client that waits for
//! us. It is given names for a moment only (docs/leases.md). Only the old name of a directory that another mount has moved is forgotten, and hardly waited for.

use crate::places::{Place, Places};
use crate::questions::{QUIET, Question, Questions};
use cairn_client::ports::KernelCache;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::ids::Ino;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::task::BoxFuture;
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot, watch};

/// Files of which the kernel forgets pages at a time. Each takes a thread until the reads and writes under way there are answered, perhaps for as long as
/// the master is away; a role has 16 threads for such work, and others need some, too.
const FORGETTING_MAX: usize = 8;

/// Names that are forgotten at a time.
const FORGETTING_NAMES_MAX: usize = 4;

/// How long the answer to a question waits for a name to be forgotten. It takes microseconds, unless somebody works in that directory: perhaps the one who asks.
const FORGETTING_NAME_LIMIT: Duration = Duration::from_millis(5);

/// How long answers wait for names that are being forgotten.
const FORGETTING_NAMES_AWAITED: Duration = Duration::from_millis(50);

/// How long a call waits for pages to be forgotten that others read or write at the time.
const FORGETTING_LIMIT: Duration = Duration::from_secs(3);

/// Somebody who asks about a file all the time does not hold up its changes for longer.
const SETTLE_LIMIT: Duration = Duration::from_millis(200);

/// Names that are being forgotten.
#[derive(Default)]
struct ForgettingNames {
    count: usize,
    /// When the last one was begun.
    begun: Option<Moment>,
}

impl ForgettingNames {
    /// Whether somebody who asks now may be the second try of what one of them is for. Whoever is in the way for longer waits for something himself, and must not
    /// hold up everybody.
    fn is_awaited(&self, now: Moment) -> bool {
        self.count > 0 && self.begun.is_some_and(|begun| now < begun.plus(FORGETTING_NAMES_AWAITED))
    }
}

/// The kernel's side of a mount. Cheap to clone; before the session has begun, nobody listens.
#[derive(Clone)]
pub struct Kernel {
    runtime: Runtime,
    /// What the kernel calls inode 1.
    root: Ino,
    notifier: Arc<OnceLock<Notifier>>,
    forgetting: Arc<Semaphore>,
    names: Arc<watch::Sender<ForgettingNames>>,
    questions: Arc<Questions>,
    places: Arc<Places>,
}

impl Kernel {
    pub fn new(runtime: Runtime, root: Ino) -> Self {
        Self {
            runtime,
            root,
            notifier: Arc::default(),
            forgetting: Arc::new(Semaphore::new(FORGETTING_MAX)),
            names: Arc::default(),
            questions: Arc::default(),
            places: Arc::default(),
        }
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

    /// Waits until the kernel has forgotten the pages that it is to forget when it is quiet. To be done before it is told attributes in answer to a change: with
    /// these it takes the time of another mount's write for that of its pages, and would not look at them again.
    pub async fn settle(&self, ino: Ino) {
        let end = self.runtime.now().plus(SETTLE_LIMIT);
        while self.questions.is_pending(ino) {
            if self.runtime.now() >= end {
                return self.forget_pages_for_a_while(ino).await;
            }
            self.runtime.sleep(QUIET / 4).await;
        }
    }

    /// Has it forget the pages of a file, and does not wait for that.
    pub fn forget_pages_soon(&self, ino: Ino) {
        self.runtime.spawn("forget pages", self.forget_pages(ino));
    }

    /// Has it forget the pages of a file, but waits no longer than a recall would for reads and writes that are under way.
    pub async fn forget_pages_for_a_while(&self, ino: Ino) {
        let pages = self.forget_pages(ino);
        let (sender, done) = oneshot::channel();
        self.runtime.spawn("forget pages", async move {
            pages.await;
            // Whoever waited may have gone on.
            let _ = sender.send(());
        });
        if self.runtime.timeout(FORGETTING_LIMIT, done).await.is_err() {
            tracing::debug!(%ino, "the kernel takes its time to forget pages");
        }
    }

    /// The kernel is told of an inode with this name.
    pub fn note_place(&self, attributes: &Attributes, parent: Ino, name: &[u8]) {
        if attributes.kind == FileKind::Directory {
            self.places.note(attributes.ino, parent, name);
        }
    }

    /// The kernel is told that its rename was done.
    pub fn note_rename(&self, from: Place, to: Place, is_exchange: bool) {
        self.places.renamed(from, to, is_exchange);
    }

    /// Whether an answer that tells of this inode in this directory may be given without `forget_former_name`.
    pub fn may_be_told(&self, attributes: &Attributes, parent: Ino) -> bool {
        let is_elsewhere = attributes.kind == FileKind::Directory && self.places.elsewhere(attributes.ino, parent).is_some();
        !is_elsewhere && !self.names.borrow().is_awaited(self.runtime.now())
    }

    /// To be done before the kernel is told that something is in `parent`: has it forget the name of a directory that it knows elsewhere. If the one who asks holds
    /// the locks of a rename, that can't be done before the answer; the kernel then does all of the rename once more, and asks for the directories on the way first: these
    /// answers wait until it is done.
    pub async fn forget_former_name(&self, attributes: &Attributes, parent: Ino) {
        if attributes.kind == FileKind::Directory
            && let Some(place) = self.places.elsewhere(attributes.ino, parent)
        {
            self.forget_name(attributes.ino, place);
        }
        let (mut names, now) = (self.names.subscribe(), self.runtime.now());
        if self.runtime.timeout(FORGETTING_NAME_LIMIT, names.wait_for(|names| !names.is_awaited(now))).await.is_err() {
            tracing::debug!(ino = %attributes.ino, "somebody works where another mount has moved a directory away");
        }
    }

    /// Begins to have it forget where a directory was, unless too much of that is under way.
    fn forget_name(&self, ino: Ino, place: Place) {
        let may = self.names.send_if_modified(|names| {
            let may = names.count < FORGETTING_NAMES_MAX;
            if may {
                (names.count, names.begun) = (names.count + 1, Some(self.runtime.now()));
            }
            may
        });
        if !may {
            return;
        }
        let (this, directory) = (self.clone(), self.number(place.directory));
        self.runtime.spawn("forget a name", async move {
            let (notifier, name) = (Arc::clone(&this.notifier), place.name.clone());
            let work = move || {
                // It may have forgotten it by itself.
                if let Some(Err(error)) = notifier.get().map(|notifier| notifier.inval_entry(directory, OsStr::from_bytes(&name))) {
                    tracing::trace!(?directory, %error, "the kernel was told to forget the name of a directory");
                }
            };
            this.runtime.blocking(work).await;
            this.places.forgotten(ino, &place);
            this.names.send_modify(|names| names.count -= 1);
        });
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
                    this.forget_pages(ino).await;
                    return this.questions.forgotten(ino);
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
