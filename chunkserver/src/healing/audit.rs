//! Comparing everything with the master, now and then: soon after each start, for a crash may have taken what was not synced,
//! and then at a set interval.
//!
//! | found | done |
//! |---|---|
//! | a shard is missing in a settled slot | restored |
//! | a shard that no known chunk consists of, older than the grace period | deleted |
//! | a shard whose slot moved elsewhere, first seen at least the grace period ago | deleted, if its new holder says that it has it, and the slot is still there |
//!
//! Missing shards of unsettled slots are the business of the repair.

use super::Healer;
use super::comparison::{ComparedPage, MissingShard, MovedShard};
use super::duty::{Belonging, belonging, duties, ranges};
use super::progress::Lack;
use super::silence::READ_LIMIT;
use crate::target::ListedShard;
use cairn_common::ids::{ChunkId, PoolId, TargetId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ShardKey;
use cairn_runtime::clock::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long after the start, and after a failure, everything is compared.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// A rest between pages, so that the master and the disk have time for others.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Shards that are asked of a new holder in one message.
const CHECK_KEYS_MAX: usize = 1024;

/// Since when shards of a group lie here though its slot is elsewhere.
type Moved = BTreeMap<(PoolId, u32), Moment>;

impl Healer {
    /// The task of one target.
    pub(super) async fn audit(self: Arc<Self>, number: usize) {
        let mut moved = Moved::new();
        let mut pause = FIRST_PAUSE;
        loop {
            self.runtime.sleep(pause).await;
            pause = match self.audit_once(number, &mut moved).await {
                true => self.settings.audit_interval,
                false => FIRST_PAUSE.min(self.settings.audit_interval),
            };
        }
    }

    /// Whether everything was compared.
    async fn audit_once(&self, number: usize, moved: &mut Moved) -> bool {
        let Some(id) = self.id_on_map(number) else { return false };
        let map = self.master.map();
        let held: BTreeSet<(PoolId, u32)> = duties(&map, id).iter().map(|duty| (duty.name.pool, duty.name.group)).collect();
        let mut still_moved = BTreeSet::new();
        let mut lack = Lack::default();
        let mut all = true;
        for (start, until) in ranges(&map) {
            let holds = map.pools.iter().any(|pool| held.contains(&(pool.id, start.prefix(pool.prefix_bits))));
            if !holds && !self.has_any(number, start, until).await {
                continue;
            }
            let mut from = Some(start);
            while let Some(at) = from {
                let page = match self.page(number, id, at, until).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::debug!(target = %id, "the audit is interrupted: {error}");
                        return false;
                    }
                };
                from = page.next;
                still_moved.extend(page.difference.moved.iter().map(|shard| shard.group));
                all &= self.settle_difference(number, id, page, moved, &mut lack).await;
                self.runtime.sleep(PAGE_PAUSE).await;
            }
        }
        moved.retain(|group, _| still_moved.contains(group));
        self.patient(number).progress.set_settled_lack(lack);
        all
    }

    async fn has_any(&self, number: usize, from: ChunkId, until: Option<ChunkId>) -> bool {
        let listing = self.patient(number).target.list(from, until, 1).await;
        listing.is_ok_and(|listing| !listing.shards.is_empty() || listing.next.is_some())
    }

    async fn settle_difference(&self, number: usize, id: TargetId, mut page: ComparedPage, moved: &mut Moved, lack: &mut Lack) -> bool {
        page.difference.missing.retain(|missing| missing.is_settled);
        let failed = self.restore(number, id, &page, None).await;
        let restored = page.difference.missing.len() - failed;
        lack.shards += failed as u64;
        lack.bytes += page.difference.missing.iter().take(failed).map(MissingShard::bytes).sum::<u64>();
        if restored > 0 {
            tracing::warn!(target = %id, "{restored} shards were missing and have been restored");
            if let Err(error) = self.patient(number).target.sync().await {
                tracing::warn!(target = %id, "{error}");
                return false;
            }
        }
        let put_before = before(page.now, self.settings.deletion_grace);
        self.delete_orphans(number, id, &page.difference.orphans, put_before).await;
        self.delete_moved(number, id, &page, moved, put_before).await;
        failed == 0
    }

    async fn delete_orphans(&self, number: usize, id: TargetId, orphans: &[ListedShard], put_before: Timestamp) {
        let keys: Vec<ShardKey> = orphans.iter().filter(|shard| shard.ticket < put_before).map(|shard| shard.key).collect();
        self.delete(number, id, keys, put_before, "that no chunk needs").await;
    }

    async fn delete_moved(&self, number: usize, id: TargetId, page: &ComparedPage, moved: &mut Moved, put_before: Timestamp) {
        let now = self.runtime.now();
        let mut by_slot: BTreeMap<((PoolId, u32), TargetId), Vec<MovedShard>> = BTreeMap::new();
        for shard in &page.difference.moved {
            let since = *moved.entry(shard.group).or_insert(now);
            if now.since(since) >= self.settings.deletion_grace && shard.ticket < put_before {
                by_slot.entry((shard.group, shard.holder)).or_default().push(*shard);
            }
        }
        for ((group, holder), shards) in by_slot {
            let Some(holder) = page.map.target(holder).filter(|holder| holder.state.is_serving()) else { continue };
            for shards in shards.chunks(CHECK_KEYS_MAX) {
                let keys: Vec<ShardKey> = shards.iter().map(|shard| shard.key).collect();
                let Some(present) = self.present_at(holder, &keys).await else { continue };
                // From here on nobody fills the group: under a newer map that brings it back, these shards are found gone, not going.
                let Some(_claim) = self.patient(number).claims.claim(group) else { continue };
                let map = self.master.map();
                let there = shards.iter().zip(present).filter(|(_, is_there)| *is_there).map(|(shard, _)| shard);
                let keys = there.filter(|shard| is_elsewhere_still(&map, shard, id)).map(|shard| shard.key).collect();
                self.delete(number, id, keys, put_before, "that lie elsewhere now").await;
            }
        }
    }

    /// Which shards a target has; `None` if it does not say.
    async fn present_at(&self, holder: &cairn_common::map::Target, keys: &[ShardKey]) -> Option<Vec<bool>> {
        match self.own(holder.id) {
            Some(own) => own.silence.ask(holder.id, READ_LIMIT, own.target.check(keys)).await.ok(),
            None => self.peers.check(holder, keys.to_vec()).await.ok(),
        }
    }

    async fn delete(&self, number: usize, id: TargetId, keys: Vec<ShardKey>, put_before: Timestamp, which: &str) {
        if keys.is_empty() {
            return;
        }
        let patient = self.patient(number);
        match patient.target.delete(keys, put_before).await {
            Ok(deleted) => {
                tracing::info!(target = %id, "deleted {deleted} shards {which}");
                patient.progress.deleted(deleted.into());
            }
            Err(error) => tracing::warn!(target = %id, "shards {which} could not be deleted: {error}"),
        }
    }
}

/// Whether the slot of a shard is where it was when the shard was found to have moved.
fn is_elsewhere_still(map: &ClusterMap, shard: &MovedShard, id: TargetId) -> bool {
    belonging(map, &shard.chunk, &shard.key, id) == Belonging::Elsewhere(shard.holder)
}

fn before(now: Timestamp, grace: Duration) -> Timestamp {
    Timestamp::from_nanos(now.nanos().saturating_sub(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::super::comparison::{ComparedPage, Difference, MovedShard};
    use super::super::duty::tests::{POOL, map};
    use super::super::fixture::Server;
    use super::Moved;
    use crate::target::tests::fixture::with_node;
    use cairn_common::ids::TargetId;
    use cairn_common::limits::DELETION_GRACE;
    use cairn_common::time::Timestamp;
    use cairn_runtime::clock::Moment;
    use std::sync::Arc;

    #[test]
    fn a_moved_shard_is_spared_if_its_slot_came_back_or_is_being_filled() {
        with_node(1, |world, node| async move {
            let server = Server::start(&node).await;
            let shard = &server.chunks[0][0];
            for target in &server.targets[..2] {
                shard.put_on(target, 1, true).await.expect("stored");
            }
            let group = (POOL, 0);
            let (key, ticket) = (shard.key(), Timestamp::from_nanos(1));
            let moved = vec![MovedShard { chunk: server.chunk(0), key, ticket, group, holder: TargetId(2) }];
            let elsewhere = Arc::new(map(&[[(2, 0), (3, 0), (4, 0)]]));
            let difference = Difference { moved, ..Difference::default() };
            let page = ComparedPage { difference, map: elsewhere.clone(), now: Timestamp::from_nanos(2), next: None };
            world.sleep(DELETION_GRACE).await;
            let is_there_after_audit = async || {
                let mut seen = Moved::from([(group, Moment::from_nanos(0))]);
                server.healer.delete_moved(0, TargetId(1), &page, &mut seen, Timestamp::from_nanos(2)).await;
                server.targets[0].check(&[key]).await == Ok(vec![true])
            };
            server.healer.master.take_map(map(&[[(1, 2), (3, 0), (4, 0)]]));
            assert!(is_there_after_audit().await, "its slot came back");
            server.healer.master.take_map((*elsewhere).clone());
            let filling = server.healer.patient(0).claims.claim(group);
            assert!(is_there_after_audit().await, "the group is being filled");
            drop(filling);
            assert!(!is_there_after_audit().await, "nobody needs it");
        });
    }
}
