//! Comparing everything with the master, now and then: soon after each start, for a crash may have taken what was not synced,
//! and then at a set interval.
//!
//! | found | done |
//! |---|---|
//! | a shard is missing in a settled slot | restored |
//! | a shard that no known chunk consists of, older than the grace period | deleted |
//! | a shard whose slot moved elsewhere, first seen at least the grace period ago | deleted, if its new holder says that it has it |
//!
//! Missing shards of unsettled slots are the business of the repair.

use super::Healer;
use super::comparison::{ComparedPage, MissingShard, MovedShard};
use super::duty::{duties, ranges};
use super::progress::Lack;
use crate::target::ListedShard;
use cairn_common::ids::{ChunkId, PoolId, TargetId};
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
        let mut by_holder: BTreeMap<TargetId, Vec<ShardKey>> = BTreeMap::new();
        for MovedShard { key, ticket, group, holder } in &page.difference.moved {
            let since = *moved.entry(*group).or_insert(now);
            if now.since(since) >= self.settings.deletion_grace && *ticket < put_before {
                by_holder.entry(*holder).or_default().push(*key);
            }
        }
        for (holder, keys) in by_holder {
            let Some(holder) = page.map.target(holder).filter(|holder| holder.state.is_serving()) else { continue };
            for keys in keys.chunks(CHECK_KEYS_MAX) {
                let Some(present) = self.present_at(holder, keys).await else { continue };
                let keys = keys.iter().zip(present).filter(|(_, is_there)| *is_there).map(|(key, _)| *key).collect();
                self.delete(number, id, keys, put_before, "that lie elsewhere now").await;
            }
        }
    }

    /// Which shards a target has; `None` if it does not say.
    async fn present_at(&self, holder: &cairn_common::map::Target, keys: &[ShardKey]) -> Option<Vec<bool>> {
        let own = self.targets.iter().find(|target| target.identity().id == Some(holder.id));
        match own {
            Some(own) => own.check(keys).await.ok(),
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

fn before(now: Timestamp, grace: Duration) -> Timestamp {
    Timestamp::from_nanos(now.nanos().saturating_sub(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX)))
}
