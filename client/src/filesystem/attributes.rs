//! stat, chmod, chown, utimens, truncate, statfs.

use super::start::FileSystem;
use super::types::Handle;
use crate::limits::USAGE_TTL;
use crate::link::{AskError, Driven};
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
        match self.0.link.ask(MasterRequest::Attributes { ino }).await {
            Ok(MasterReply::Attributes(attributes)) => Ok(self.with_own_writes(self.0.cache.learn(reading, attributes))),
            Ok(other) => Err(AskError::unexpected(&other).to_fs("stat")),
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
        let changing = self.0.cache.changing(ino);
        let reply = self.0.link.mutate(Mutation::SetAttributes { ino, change }, false).await;
        drop(changing);
        match reply {
            Ok(MutationReply::Inode(attributes)) => Ok(self.learn_changed(attributes)),
            Ok(_) => Err(unexpected("setattr")),
            Err(error) => Err(error.to_fs("setattr")),
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

    /// Remembers an inode as our own change has left it.
    pub(super) fn learn_changed(&self, attributes: Attributes) -> Attributes {
        self.0.versions.changed_by_us(attributes.ino, attributes.version);
        self.0.cache.learn_own(attributes)
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

/// The master answered a mutation with the answer to another.
pub(super) fn unexpected(request: &str) -> FsError {
    AskError::Garbled("not the answer to that mutation".to_owned()).to_fs(request)
}
