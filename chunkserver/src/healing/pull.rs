//! Getting one shard: a copy from the holder before, or else decoded from others of its chunk. Whatever comes is verified by
//! the put, down to the chunk's id.

use super::Healer;
use super::comparison::MissingShard;
use super::duty::{may_answer, slot_of};
use super::peers::{FetchedShard, PeerError};
use super::rebuild::{RebuildError, RebuiltShard, rebuild, sources_needed};
use crate::target::{Put, Target};
use cairn_common::ids::TargetId;
use cairn_common::map::{ClusterMap, Target as MapTarget, TargetState};
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// Why a shard was not restored.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("too few other shards can be read: {found} of {needed}")]
    TooFew { found: usize, needed: usize },
    #[error("{0}")]
    Rebuild(#[from] RebuildError),
    #[error("{0}")]
    Put(#[from] ChunkserverError),
}

/// Another shard of the chunk, and a target that should have it.
#[derive(Debug, Clone)]
struct Source {
    key: ShardKey,
    holder: MapTarget,
}

impl Healer {
    /// Restores a shard on `target`, which is `id`. Not durable before the target is synced.
    pub(super) async fn pull(&self, map: &ClusterMap, target: &Target, id: TargetId, missing: &MissingShard) -> Result<(), PullError> {
        let Ok(_turn) = self.pulls.acquire().await else { return Err(ChunkserverError::Unavailable.into()) };
        let shard = match self.copied(map, id, missing).await {
            Some(shard) => shard,
            None => self.rebuilt(map, id, missing).await?,
        };
        let RebuiltShard { header, data_blocks, body } = shard;
        let put = Put { header, data_blocks, ticket: missing.ticket, sync: false };
        Ok(target.put(put, body).await?)
    }

    /// The shard itself, from the previous holder of its slot.
    async fn copied(&self, map: &ClusterMap, id: TargetId, missing: &MissingShard) -> Option<RebuiltShard> {
        let slot = slot_of(map, &missing.chunk, missing.key.index)?;
        let candidates = [slot.previous, slot.holder].into_iter().flatten().filter(|holder| *holder != id);
        for holder in candidates.filter_map(|holder| map.target(holder)).filter(|holder| may_answer(holder.state)) {
            let source = Source { key: missing.key, holder: holder.clone() };
            let Ok(FetchedShard { header, blocks, body }) = self.fetch(&source).await else { continue };
            let shard = RebuiltShard { header, data_blocks: blocks, body };
            if shard.header.key == missing.key && self.is_sound(&shard).await {
                return Some(shard);
            }
            self.doubt(&source).await;
        }
        None
    }

    /// The shard decoded from others.
    async fn rebuilt(&self, map: &ClusterMap, id: TargetId, missing: &MissingShard) -> Result<RebuiltShard, PullError> {
        let layout = missing.chunk.scheme.layout(missing.chunk.bytes);
        let needed = sources_needed(layout);
        let mut waiting = sources(map, id, missing).into_iter();
        let mut running = FuturesUnordered::new();
        let mut arrived: Vec<(Source, FetchedShard)> = Vec::new();
        loop {
            while running.len() + arrived.len() < needed {
                let Some(source) = waiting.next() else { break };
                running.push(async move { (self.fetch(&source).await, source) });
            }
            match running.next().await {
                Some((Ok(shard), source)) if shard.header.key != source.key => self.doubt(&source).await,
                Some((Ok(_), source)) if has(&arrived, source.key) => {}
                Some((Ok(shard), source)) => arrived.push((source, shard)),
                Some((Err(_), _)) => {}
                None if arrived.len() < needed => return Err(PullError::TooFew { found: arrived.len(), needed }),
                None => match self.decode(missing, &arrived).await {
                    Ok(shard) => return Ok(shard),
                    Err(RebuildError::Corrupt(wrong)) => {
                        let (bad, good): (Vec<_>, Vec<_>) = arrived.into_iter().partition(|(source, _)| wrong.contains(&source.key.index));
                        arrived = good;
                        for (source, _) in &bad {
                            self.doubt(source).await;
                        }
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    async fn decode(&self, missing: &MissingShard, arrived: &[(Source, FetchedShard)]) -> Result<RebuiltShard, RebuildError> {
        let shards: Vec<FetchedShard> = arrived.iter().map(|(_, shard)| shard.clone()).collect();
        let (key, layout) = (missing.key, missing.chunk.scheme.layout(missing.chunk.bytes));
        self.runtime.blocking(move || rebuild(&key, layout, &shards)).await
    }

    async fn is_sound(&self, shard: &RebuiltShard) -> bool {
        let shard = shard.clone();
        self.runtime.blocking(move || crate::target::verify_put(&shard.header, shard.data_blocks, &shard.body).is_ok()).await
    }

    /// From another disk of this machine, or over the network.
    async fn fetch(&self, source: &Source) -> Result<FetchedShard, PeerError> {
        let own = self.targets.iter().find(|target| target.identity().id == Some(source.holder.id));
        match own {
            Some(own) => {
                let (header, blocks, body) = own.fetch(source.key).await?;
                Ok(FetchedShard { header, blocks, body })
            }
            None => self.peers.fetch(&source.holder, source.key).await,
        }
    }

    /// Tells the holder of a source that it sent something wrong.
    async fn doubt(&self, source: &Source) {
        tracing::warn!(target = %source.holder.id, key = ?source.key, "a shard that was to be a source of a repair is not sound");
        if !self.note_doubts(source.holder.id, &[source.key])
            && let Err(error) = self.peers.doubt(&source.holder, vec![source.key]).await
        {
            tracing::debug!("{} was not told: {error}", source.holder.id);
        }
    }
}

fn has(arrived: &[(Source, FetchedShard)], key: ShardKey) -> bool {
    arrived.iter().any(|(source, _)| source.key == key)
}

/// Where other shards of the chunk may be found: with those who answer first, and present holders before previous ones.
fn sources(map: &ClusterMap, id: TargetId, missing: &MissingShard) -> Vec<Source> {
    let MissingShard { chunk, key: wanted, .. } = missing;
    let layout = chunk.scheme.layout(chunk.bytes);
    let mut sources = Vec::new();
    for index in (0..chunk.scheme.shards()).filter(|index| *index != wanted.index && layout.is_stored(*index)) {
        let Some(slot) = slot_of(map, chunk, index) else { continue };
        let key = ShardKey { index, ..*wanted };
        for (rank, holder) in [slot.holder, slot.previous].into_iter().enumerate() {
            let holder = holder.filter(|holder| *holder != id).and_then(|holder| map.target(holder));
            let Some(holder) = holder.filter(|holder| may_answer(holder.state)) else { continue };
            let is_last_resort = holder.state == TargetState::Suspect;
            // An unsettled holder may not have it yet; the one before most likely does.
            let is_second = (rank == 0) == slot.previous.is_some();
            sources.push(((is_last_resort, is_second, index >= chunk.scheme.data_shards()), Source { key, holder: holder.clone() }));
        }
    }
    sources.sort_by_key(|(order, _)| *order);
    sources.into_iter().map(|(_, source)| source).collect()
}
