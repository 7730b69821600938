//! stat, chmod, chown, utimens, truncate, statfs.

use super::start::FileSystem;
use super::types::Handle;
use crate::cache::{Change, Leased, Reading};
use crate::limits::USAGE_TTL;
use crate::link::{Answer, AskError, Driven, Mutated};
use cairn_common::attributes::{AttributeChange, Attributes};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_common::wire::master::{MasterReply, MasterRequest, Mutation, MutationReply, Usage};
use std::future::Future;

impl FileSystem {
    /// What `stat` tells, with what was written here and is not yet with the master.
    pub async fn attributes(&self, ino: Ino) -> Result<Attributes, FsError> {
        if let Some(known) = self.try_attributes(ino) {
            return Ok(known);
        }
        let reading = self.0.cache.reading();
        match self.0.link.ask_for_leases(|_| MasterRequest::Attributes { ino }).await {
            Ok(Answer { reply: MasterReply::Attributes(attributes), leased }) => {
                self.0.cache.accept(reading, &leased);
                Ok(self.with_own_writes(self.0.cache.learn(reading, &leased, attributes)))
            }
            Ok(other) => Err(AskError::unexpected(&other.reply).to_fs("stat")),
            Err(error) => Err(error.to_fs("stat")),
        }
    }

    /// Changes attributes. A change of size needs a handle that may write, if it comes with one.
    pub async fn set_attributes(&self, ino: Ino, change: AttributeChange, handle: Option<Handle>) -> Result<Attributes, FsError> {
        if let (Some(_), Some(handle)) = (change.size, handle)
            && !self.0.handles.file(handle)?.flags.write
        {
            return Err(FsError::Invalid);
        }
        match change.size {
            Some(size) if size > FILE_BYTES_MAX => Err(FsError::FileTooLarge),
            Some(size) => self.truncate(ino, size, change).await,
            None if change.mtime.is_some() => self.set_times(ino, change).await,
            None => Ok(self.with_own_writes(self.change_attributes(ino, change).await?)),
        }
    }

    /// While the master cuts the file, nothing written here is committed: what lies beyond the new end is void afterwards,
    /// what lies before it stays as it is.
    async fn truncate(&self, ino: Ino, size: u64, change: AttributeChange) -> Result<Attributes, FsError> {
        let file = self.0.data.file(ino);
        let (hold, this) = (file.hold().await, self.clone());
        self.to_its_end("truncate", async move {
            let attributes = this.change_attributes(ino, change).await?;
            file.truncate(size, &attributes);
            drop(hold);
            Ok(this.with_own_writes(attributes))
        })
        .await
    }

    /// A commit of what was written before must not overwrite the time.
    async fn set_times(&self, ino: Ino, change: AttributeChange) -> Result<Attributes, FsError> {
        if !self.0.link.opens().is_open(ino) && !self.0.data.has_dirty() {
            return self.change_attributes(ino, change).await;
        }
        let file = self.0.data.file(ino);
        let (hold, this) = (file.hold().await, self.clone());
        self.to_its_end("setattr", async move {
            let attributes = this.change_attributes(ino, change).await?;
            file.set_mtime(attributes.mtime);
            drop(hold);
            Ok(this.with_own_writes(attributes))
        })
        .await
    }

    async fn change_attributes(&self, ino: Ino, change: AttributeChange) -> Result<Attributes, FsError> {
        if change.atime.is_some() {
            self.0.access.forget(ino);
        }
        match self.change(self.0.cache.changing(ino), Mutation::SetAttributes { ino, change }, "setattr").await? {
            Changed { reply: MutationReply::Inode(attributes), known } => Ok(self.learn_changed(known, attributes)),
            _ => Err(unexpected("setattr")),
        }
    }

    /// Waits for the master, then does `work`, to its end even if the caller leaves: what the master is asked for then happens, and must be
    /// known here, too. Who leaves before has asked for nothing.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        request: &str,
        work: impl Future<Output = Result<T, FsError>> + Send + 'static,
    ) -> Result<T, FsError> {
        self.0.link.reach().await.map_err(|error| error.to_fs(request))?;
        Driven::new(self.0.runtime.clone(), work).await
    }

    /// Has the master change something; what it answers may then be remembered.
    pub(super) async fn change(&self, changing: Change<'_>, mutation: Mutation, request: &str) -> Result<Changed, FsError> {
        let reading = changing.reading();
        let done = self.0.link.mutate(mutation, false).await;
        drop(changing);
        let Mutated { reply, leased, .. } = done.map_err(|error| error.to_fs(request))?;
        self.0.cache.accept(reading, &leased);
        Ok(Changed { reply, known: Known { reading, leased } })
    }

    /// Remembers an inode as our own change has left it.
    pub(super) fn learn_changed(&self, known: Known, attributes: Attributes) -> Attributes {
        self.0.versions.changed_by_us(attributes.ino, attributes.version);
        self.0.cache.learn_own(known.reading, &known.leased, attributes)
    }

    /// Remembers a name as our own change has left it.
    pub(super) fn learn_name(&self, known: &Known, parent: Ino, name: &[u8], ino: Option<Ino>) {
        self.0.cache.set_entry(known.reading, &known.leased, parent, name, ino);
    }

    /// Space and inodes of the whole cluster; at most a second old.
    pub async fn usage(&self) -> Result<Usage, FsError> {
        let now = self.0.runtime.now();
        if let Some((usage, asked)) = *self.0.usage.lock()
            && now.since(asked) < USAGE_TTL
        {
            return Ok(usage);
        }
        match self.0.link.ask(MasterRequest::Usage).await {
            Ok(MasterReply::Usage(usage)) => {
                *self.0.usage.lock() = Some((usage, now));
                Ok(usage)
            }
            Ok(other) => Err(AskError::unexpected(&other).to_fs("statfs")),
            Err(error) => Err(error.to_fs("statfs")),
        }
    }
}

/// What came of a change of our own.
pub(super) struct Changed {
    pub reply: MutationReply,
    pub known: Known,
}

/// What an answer rests on.
pub(super) struct Known {
    pub reading: Reading,
    pub leased: Leased,
}

/// The master answered a mutation with the answer to another.
pub(super) fn unexpected(request: &str) -> FsError {
    AskError::Garbled("not the answer to that mutation".to_owned()).to_fs(request)
}
