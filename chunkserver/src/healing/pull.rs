//! Getting one shard: a copy from the holder before, or else decoded from others of its chunk. Whatever comes is verified by
//! the put, down to the chunk's id.

use super::Healer;
use super::comparison::MissingShard;
use super::duty::{may_answer, slot_of};
use super::peers::{FetchedShard, PeerError};
use super::rebuild::{RebuildError, RebuiltShard, rebuild, sources_needed};
use super::silence::{READ_LIMIT, WRITE_LIMIT};
use crate::target::Put;
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

/// What lies in the place of a shard that is to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InPlace {
    Nothing,
    Damaged,
}

/// Another shard of the chunk, and a target that should have it.
#[derive(Debug, Clone)]
struct Source {
    key: ShardKey,
    holder: MapTarget,
}

impl Healer {
    /// Restores a shard on a target, which is `id`. Not durable before the target is synced.
    pub(super) async fn pull(
        &self,
        map: &ClusterMap,
        number: usize,
        id: TargetId,
        missing: &MissingShard,
        in_place: InPlace,
    ) -> Result<(), PullError> {
        let patient = self.patient(number);
        let Ok(_turn) = patient.pulls.acquire().await else { return Err(ChunkserverError::Unavailable.into()) };
        // Before anything is sent over the network for it.
        patient.silence.check(id)?;
        let shard = match self.copied(map, id, missing).await {
            Some(shard) => shard,
            None => self.rebuilt(map, id, missing).await?,
        };
        let RebuiltShard { header, data_blocks, body } = shard;
        let put = Put { header, data_blocks, ticket: missing.ticket, sync: false };
        let stored = async {
            match in_place {
                InPlace::Nothing => patient.target.put(put, body).await,
                InPlace::Damaged => patient.target.replace(put, body).await,
            }
        };
        Ok(patient.silence.ask(id, WRITE_LIMIT, stored).await?)
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
        match self.own(source.holder.id) {
            Some(own) => {
                let (header, blocks, body) = own.silence.ask(source.holder.id, READ_LIMIT, own.target.fetch(source.key)).await?;
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
        for (rank, holder) in [slot.holder, slot.source()].into_iter().enumerate() {
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

#[cfg(test)]
mod tests {
    use super::super::duty::tests::map;
    use super::super::fixture::{CHUNKS, Server};
    use super::{InPlace, MissingShard};
    use crate::target::tests::fixture::{rot, with_node};
    use cairn_common::ids::TargetId;
    use cairn_common::time::Timestamp;
    use futures_util::future::join_all;
    use std::future::Future;
    use std::sync::Arc;
    use std::time::Duration;

    impl Server {
        /// Puts the shards of all chunks that belong on a target there.
        async fn give(&self, number: usize) {
            for shards in &self.chunks {
                shards[number].put_on(&self.targets[number], 1, true).await.expect("stored");
            }
        }

        /// Restores the shard of a chunk that belongs on a target.
        async fn pull(&self, number: usize, chunk: usize, in_place: InPlace) -> bool {
            let key = self.chunks[chunk][number].key();
            let missing = MissingShard { chunk: self.chunk(chunk), key, is_settled: true, ticket: Timestamp::from_nanos(2) };
            let map = map(&[[(1, 0), (2, 0), (3, 0)]]);
            self.healer.pull(&map, number, TargetId(number as u32 + 1), &missing, in_place).await.is_ok()
        }

        async fn pull_all(&self, number: usize) -> Vec<bool> {
            join_all((0..self.chunks.len()).map(|chunk| self.pull(number, chunk, InPlace::Nothing))).await
        }
    }

    /// What comes of `work`, which must not take longer.
    async fn within<T>(server: &Server, seconds: u64, work: impl Future<Output = T>) -> T {
        let done = server.healer.runtime.timeout(Duration::from_secs(seconds), work).await;
        done.unwrap_or_else(|elapsed| panic!("not done: {elapsed}"))
    }

    #[test]
    fn a_disk_that_hangs_does_not_stop_the_healing_of_others() {
        with_node(1, |world, node| async move {
            let server = Arc::new(Server::start(&node).await);
            server.give(2).await;
            server.second_disk.hang();
            let (hung, (ended, has_ended)) = (server.clone(), tokio::sync::oneshot::channel());
            server.healer.runtime.spawn("pulls to the hung disk", async move { drop(ended.send(hung.pull_all(1).await)) });
            world.sleep(Duration::from_secs(1)).await;
            assert_eq!(within(&server, 15, server.pull_all(0)).await, [true; CHUNKS as usize]);
            assert_eq!(within(&server, 120, has_ended).await, Ok(vec![false; CHUNKS as usize]), "nobody waits for ever");
            server.second_disk.go_on();
            world.sleep(Duration::from_secs(60)).await;
            assert_eq!(within(&server, 15, server.pull_all(1)).await, [true; CHUNKS as usize]);
        });
    }

    #[test]
    fn a_disk_that_hangs_is_no_source() {
        with_node(2, |_, node| async move {
            let server = Server::start(&node).await;
            server.give(1).await;
            server.give(2).await;
            server.second_disk.hang();
            assert_eq!(within(&server, 25, server.pull_all(0)).await, [true; CHUNKS as usize]);
            assert!(server.second_disk.held() > 0, "it was asked");
        });
    }

    #[test]
    fn a_damaged_shard_is_replaced_though_the_target_does_not_know_of_it() {
        with_node(3, |_, node| async move {
            let server = Server::start(&node).await;
            server.give(0).await;
            let shard = &server.chunks[0][0];
            rot(&node, shard);
            server.give(2).await;
            assert!(server.pull(0, 0, InPlace::Damaged).await);
            server.targets[0].examine(shard.key()).await.expect("sound");
        });
    }
}
