//! The master as the data path sees it.

use super::calls::{Answer, AskError, Link};
use crate::cache::{KnownVersions, MetadataCache};
use crate::limits::{EXTENT_PAGES_MAX, QUICK_LIMIT};
use crate::ports::{CommitError, Metadata, Targets};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::{ExtentPage, NewChunk};
use cairn_common::ids::{ChunkId, Ino, MapEpoch, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::lease::LeaseMode;
use cairn_common::wire::master::{
    CompactionWork, FileCommit, FileCompaction, MasterError, MasterReply, MasterRequest, Mutation, MutationReply, Puts,
};
use cairn_runtime::task::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The link, and what commits teach the caches.
pub struct MasterMetadata {
    pub link: Arc<Link>,
    pub targets: Arc<dyn Targets>,
    pub cache: Arc<MetadataCache>,
    pub versions: Arc<KnownVersions>,
}

impl MasterMetadata {
    async fn gather_extents(&self, ino: Ino, offset: u64, end: u64) -> Result<ExtentPage, FsError> {
        let mut gathered = ExtentPage::default();
        let mut chunks: BTreeSet<ChunkId> = BTreeSet::new();
        let mut from = offset;
        for _ in 0..EXTENT_PAGES_MAX {
            let reply = self.link.ask(MasterRequest::Extents { ino, offset: from, end }).await;
            let page = match reply.map_err(|error| error.to_fs("reading the extents of a file"))? {
                MasterReply::Extents(page) => page,
                other => return Err(AskError::unexpected(&other).to_fs("reading the extents of a file")),
            };
            gathered.extents.extend(page.extents);
            gathered.chunks.extend(page.chunks.into_iter().filter(|chunk| chunks.insert(chunk.id)));
            gathered.more_from = page.more_from;
            match page.more_from {
                Some(next) if next > from && next < end => from = next,
                _ => break,
            }
        }
        Ok(gathered)
    }

    async fn publish(
        &self,
        commit: Mutation,
        inodes: Vec<Ino>,
        tickets: Option<Timestamp>,
        durable: bool,
        session: SessionId,
    ) -> Result<Vec<Result<Attributes, FsError>>, CommitError> {
        let stamps = self.cache.stamps(&inodes);
        match self.link.mutate_in(Some(session), commit, durable).await.map(|done| done.reply) {
            Ok(MutationReply::Committed(results)) if results.len() == inodes.len() => {
                let learn = |(result, stamp): (Result<Attributes, FsError>, Option<u64>)| {
                    let attributes = result?;
                    self.versions.changed_by_us(attributes.ino, attributes.version);
                    Ok(self.cache.learn_committed(stamp, attributes))
                };
                Ok(results.into_iter().zip(stamps).map(learn).collect())
            }
            Ok(_) => Err(CommitError::Fs(AskError::Garbled("not the answer to a commit".to_owned()).to_fs("a commit"))),
            Err(error) => Err(self.refused(error, tickets, "a commit").await),
        }
    }

    /// What became of chunks that were put with these tickets, if the master did not take them.
    async fn refused(&self, error: AskError, tickets: Option<Timestamp>, request: &str) -> CommitError {
        match error {
            AskError::Refused(MasterError::MapMoved { now }) => {
                self.targets.refresh_map(MapEpoch(now.0.saturating_sub(1))).await;
                CommitError::PutAgain
            }
            AskError::Refused(MasterError::TicketExpired) => {
                self.await_ticket_after(tickets).await;
                CommitError::PutAgain
            }
            AskError::SessionGone => CommitError::SessionGone,
            AskError::Refused(MasterError::PutElsewhere { chunks }) => CommitError::PutElsewhere(chunks),
            error => CommitError::Fs(error.to_fs(request)),
        }
    }

    async fn ask_for_work(&self, done: bool) -> Result<Option<CompactionWork>, FsError> {
        match self.link.ask_in_session(|session| MasterRequest::CompactionWork { session, done }).await {
            Ok(MasterReply::CompactionWork(work)) => Ok(work),
            Ok(other) => Err(AskError::unexpected(&other).to_fs("asking for something to compact")),
            Err(error) => Err(error.to_fs("asking for something to compact")),
        }
    }

    async fn publish_rewrite(&self, files: Vec<FileCompaction>, chunks: Vec<NewChunk>) -> Result<u64, CommitError> {
        let tickets = newest_ticket(&chunks);
        match self.link.mutate(Mutation::Compact { files, chunks }, false).await.map(|done| done.reply) {
            Ok(MutationReply::Compacted { bytes, .. }) => Ok(bytes),
            Ok(_) => Err(CommitError::Fs(AskError::Garbled("not the answer to a compaction".to_owned()).to_fs("a compaction"))),
            Err(error) => Err(self.refused(error, tickets, "a compaction").await),
        }
    }

    /// Has the session renewed, which brings the master's time; puts under the old ticket would be refused again.
    async fn await_ticket_after(&self, refused: Option<Timestamp>) {
        let Some(refused) = refused else { return };
        self.link.renew_soon();
        // Whoever gets no newer ticket in time puts again all the same, and is refused again.
        let _ = self.link.ticket_after(refused, QUICK_LIMIT).await;
    }
}

fn newest_ticket(chunks: &[NewChunk]) -> Option<Timestamp> {
    chunks.iter().map(|chunk| chunk.ticket).max()
}

impl Metadata for MasterMetadata {
    fn extents(&self, ino: Ino, offset: u64, end: u64) -> BoxFuture<'_, Result<ExtentPage, FsError>> {
        Box::pin(self.gather_extents(ino, offset, end))
    }

    fn commit(
        &self,
        files: Vec<FileCommit>,
        chunks: Vec<NewChunk>,
        puts: Puts,
        durable: bool,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Vec<Result<Attributes, FsError>>, CommitError>> {
        let (inodes, tickets) = (files.iter().map(|file| file.ino).collect(), newest_ticket(&chunks));
        let mutation = match puts {
            Puts::Unsynced => Mutation::Commit { files, chunks },
            Puts::Synced => Mutation::CommitSynced { files, chunks },
        };
        Box::pin(self.publish(mutation, inodes, tickets, durable, session))
    }

    fn session(&self) -> BoxFuture<'_, Result<SessionId, FsError>> {
        Box::pin(async { self.link.reach().await.map(|line| line.session.id).map_err(|error| error.to_fs("a commit")) })
    }

    fn reclaim(&self, ino: Ino) -> BoxFuture<'_, Result<(SessionId, u64), FsError>> {
        Box::pin(async move {
            let make = |session| MasterRequest::Lease { session, ino, wanted: LeaseMode::Write };
            match self.link.ask_for_leases(make).await {
                Ok(Answer { reply: MasterReply::Opened { attributes, .. }, leased }) => Ok((leased.session, attributes.version)),
                Ok(other) => Err(AskError::unexpected(&other.reply).to_fs("a lease")),
                Err(error) => Err(error.to_fs("a lease")),
            }
        })
    }

    fn compaction_work(&self, done: bool) -> BoxFuture<'_, Result<Option<CompactionWork>, FsError>> {
        Box::pin(self.ask_for_work(done))
    }

    fn compact(&self, files: Vec<FileCompaction>, chunks: Vec<NewChunk>) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(self.publish_rewrite(files, chunks))
    }

    fn sync_log(&self) -> BoxFuture<'_, Result<(), FsError>> {
        Box::pin(async {
            let mark = self.link.mark();
            self.link.sync_log_since(mark).await.map_err(|error| error.to_fs("a sync of the master's log"))
        })
    }

    fn ticket(&self) -> Timestamp {
        self.link.ticket()
    }
}
