//! Leases of files: taking them for reads and writes, and giving them back.
//!
//! What is known of a file's content rests on the lease of a certain stamp, which the file remembers. A read under that lease asks nobody. Without it,
//! a read asks for the lease, and goes on with what comes along, even if the lease itself does not come: it was true after the read began.
//!
//! The order in which a lease is given back (docs/leases.md has the reasons):
//! 1. nobody begins to use it, and no answer to an earlier question is believed;
//! 2. the kernel forgets pages, having written back what was changed there: such writes need no lease. If it may be asking about the inode, it forgets them later;
//! 3. those who use it at this moment come to their end; names that the kernel was told are forgotten;
//! 4. what was written is flushed;
//! 5. it is struck off, and the kernel forgets attributes, if it believes any;
//! 6. the master is answered.

use super::start::{FileSystem, Inner};
use crate::cache::{Leased, Writing};
use crate::data::FileData;
use crate::limits::{
    KERNEL_FORGETS_AGAIN, KERNEL_PAGES_LIMIT, KERNEL_PAGES_PATIENCE, LEASE_PAUSE_MAX, LEASE_PAUSE_MIN, UNPROMISED_FLUSH_LIMIT,
};
use crate::link::{Answer, AskError, Backoff, Stake};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::Ino;
use cairn_common::wire::lease::{LeaseMode, RecalledLease};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use cairn_runtime::task::BoxFuture;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use tokio::sync::oneshot;

impl FileSystem {
    /// Whether what is known of the file's content may be believed.
    pub(super) fn is_fresh(&self, file: &FileData) -> bool {
        self.0.cache.is_held(file.ino(), file.stamp())
    }

    /// Makes what is known of a file's content as fresh as this moment.
    pub(super) async fn freshen(&self, file: &Arc<FileData>) -> Result<(), FsError> {
        if self.is_fresh(file) { Ok(()) } else { self.take_lease(file, LeaseMode::Read).await }
    }

    /// The right to write to a file without asking, if it is there.
    pub(super) fn try_writing(&self, file: &FileData) -> Option<Writing> {
        self.0.cache.writing(file.ino(), file.stamp())
    }

    /// Takes the right to write to a file.
    pub(super) async fn writing(&self, file: &Arc<FileData>) -> Result<Writing, FsError> {
        let mut backoff = Backoff::new(LEASE_PAUSE_MIN, LEASE_PAUSE_MAX);
        loop {
            if let Some(writing) = self.try_writing(file) {
                return Ok(writing);
            }
            if file.has_dirty() && self.0.link.session().is_some_and(|session| session != file.owner()) {
                // Whether it may still be stored must be settled first.
                file.flush().await?;
            }
            self.take_lease(file, LeaseMode::Write).await?;
            if let Some(writing) = self.try_writing(file) {
                return Ok(writing);
            }
            // A recall has overtaken the answer.
            self.0.runtime.sleep(backoff.pause()).await;
        }
    }

    async fn take_lease(&self, file: &Arc<FileData>, wanted: LeaseMode) -> Result<(), FsError> {
        let ino = file.ino();
        let _waiting = file.wait_for_lease();
        let reading = self.0.cache.reading();
        let reply = self.0.link.ask_for_leases(|session| MasterRequest::Lease { session, ino, wanted }).await;
        let (attributes, extents, leased) = match reply {
            Ok(Answer { reply: MasterReply::Opened { attributes, extents }, leased }) => (attributes, extents, leased),
            Ok(other) => return Err(AskError::unexpected(&other.reply).to_fs("a lease")),
            Err(error) => return Err(error.to_fs("a lease")),
        };
        self.see(file, &attributes, &extents);
        self.0.cache.accept(reading, &leased);
        self.rest(file, reading, &leased);
        self.0.cache.learn(reading, &leased, attributes);
        Ok(())
    }

    /// Takes over what the master says of a file. Whether somebody else has changed it since it was last seen. Leases are to be accepted after this.
    pub(super) fn see(&self, file: &Arc<FileData>, attributes: &Attributes, extents: &ExtentPage) -> bool {
        // The two go together: else another one could take for unchanged what is about to be dropped.
        let _seeing = self.0.seeing.lock();
        let changed = self.0.versions.opened(attributes.ino, attributes.version);
        file.opened(attributes, extents, changed);
        changed
    }

    /// What is known of the file rests on the lease that came along, if it did.
    pub(super) fn rest(&self, file: &FileData, reading: crate::cache::Reading, leased: &Leased) {
        if let Some(stamp) = self.0.cache.stamp_for(reading, leased, file.ino())
            && file.adopt(leased.session)
        {
            file.rest_on(stamp);
        }
    }

    async fn give_back(&self, lease: RecalledLease) {
        let RecalledLease { ino, keep } = lease;
        let inner = &self.0;
        let held = inner.cache.begin_recall(ino, keep);
        // Else a question may be on its way whose answer the kernel must not lose. Whoever stores through mappings can't be spared for that.
        let is_at_once = held.is_some() && !inner.cache.is_being_asked(ino)
            || inner.data.known_file(ino).is_some_and(|file| file.is_stored_through_mappings());
        if is_at_once && (keep.is_none() || inner.data.known_file(ino).is_some()) {
            self.forget_pages(ino).await;
        }
        let is_new_to_kernel = inner.cache.unused(ino).await;
        if let Some(file) = inner.data.known_file(ino)
            && file.has_dirty()
        {
            let is_stored = match held {
                // Nobody was promised anything of what is held back without a write lease: stores through mappings, and data of a lost session. It must
                // not be waited for, for to be committed it waits for other readers, who may have such data, too, and for this very answer.
                Some(LeaseMode::Read) => inner.runtime.timeout(UNPROMISED_FLUSH_LIMIT, file.flush()).await.unwrap_or(Ok(())),
                Some(LeaseMode::Write) | None => file.flush().await,
            };
            if is_stored.is_err() {
                // Its writers are told. It can't be kept to be sent later, over what others have written by then.
                file.abandon_failed();
            }
        }
        let is_believed = inner.cache.is_believed_by_kernel(ino);
        inner.cache.end_recall(ino);
        let Some(kernel) = inner.kernel.get() else { return };
        if is_believed {
            kernel.forget_attributes(ino);
        }
        if !is_at_once && keep.is_none() {
            kernel.forget_when_quiet(ino);
        }
        if is_new_to_kernel {
            let (kernel, pause) = (Arc::clone(kernel), inner.runtime.sleep(KERNEL_FORGETS_AGAIN));
            inner.runtime.spawn("forget again", async move {
                pause.await;
                kernel.forget_when_quiet(ino);
            });
        }
    }

    /// Waits until the kernel has forgotten the pages of a file, unless it may be waiting for us.
    async fn forget_pages(&self, ino: Ino) {
        let inner = &self.0;
        let Some(kernel) = inner.kernel.get() else { return };
        kernel.forget_attributes(ino);
        let pages = kernel.forget_pages(ino);
        let (sender, mut done) = oneshot::channel();
        inner.runtime.spawn("forget pages", async move {
            pages.await;
            // Whoever waited may have gone on.
            let _ = sender.send(());
        });
        let end = inner.runtime.now().plus(KERNEL_PAGES_PATIENCE);
        while inner.runtime.timeout(KERNEL_PAGES_LIMIT, &mut done).await.is_err() {
            // A call that waits for this very lease may be what holds up the kernel.
            let may_be_a_circle = inner.data.known_file(ino).is_some_and(|file| file.is_lease_waited_for());
            if may_be_a_circle || inner.runtime.now() >= end {
                tracing::debug!(%ino, "the kernel takes its time to forget pages");
                return;
            }
        }
    }

    /// Nothing is believed any more. The inodes whose data is held back.
    async fn give_up(&self) -> Vec<Ino> {
        let inner = &self.0;
        let (held, writers) = inner.cache.give_up();
        if let Some(kernel) = inner.kernel.get().cloned().filter(|_| !held.is_empty()) {
            let files: Vec<Ino> = inner.data.known_files().iter().map(|file| file.ino()).collect();
            for ino in files {
                let pages = kernel.forget_pages(ino);
                inner.runtime.spawn("forget pages", pages);
            }
            inner.runtime.blocking(move || held.into_iter().for_each(|ino| kernel.forget_attributes(ino))).await;
            inner.cache.names_forgotten().await;
        }
        // It may take several tries to come back: what was held back at the first one still is.
        for file in writers.iter().filter_map(|(ino, _)| inner.data.known_file(*ino)) {
            file.claim();
        }
        let in_use = writers.into_iter().filter(|(_, in_use)| *in_use).map(|(ino, _)| ino);
        let claimed = inner.data.known_files().into_iter().filter(|file| file.is_claimed()).map(|file| file.ino());
        let held_back: BTreeSet<Ino> = claimed.chain(in_use).collect();
        held_back.into_iter().collect()
    }

    fn come_back(&self, is_new_session: bool, has_restarted: bool) {
        let inner = &self.0;
        if !is_new_session && !has_restarted {
            return;
        }
        for file in inner.data.known_files() {
            if is_new_session && file.has_dirty() {
                file.session_lost(inner.cache.newest_version(file.ino()));
            }
            file.doubt();
        }
        inner.versions.forget_all();
        inner.cache.forget_all();
    }
}

/// The file system, as the link knows it.
pub(super) struct AtStake(pub Weak<Inner>);

impl Stake for AtStake {
    fn contact_lost(&self) -> BoxFuture<'static, Vec<Ino>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            match inner {
                Some(inner) => FileSystem(inner).give_up().await,
                None => Vec::new(),
            }
        })
    }

    fn came_back(&self, is_new_session: bool, has_restarted: bool) {
        if let Some(inner) = self.0.upgrade() {
            FileSystem(inner).come_back(is_new_session, has_restarted);
        }
    }

    fn recalled(&self, leases: Vec<RecalledLease>) -> BoxFuture<'static, ()> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let Some(inner) = inner else { return };
            let fs = FileSystem(inner);
            join_all(leases.into_iter().map(|lease| fs.give_back(lease))).await;
        })
    }
}
