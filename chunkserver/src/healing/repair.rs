//! Filling the slots that a target was given.
//!
//! A slot is complete when, after its map was known, every chunk that the master listed for its group was found on the target,
//! durably. Chunks that come later were put under that map or a newer one (the master refuses the others), so their writers put
//! them here themselves: one pass without a failure is enough. The master checks once more that the group has not changed since.
//!
//! | a slot | event | next |
//! |---|---|---|
//! | unsettled | its turn: the riskiest groups first | a pass: compare, pull what is missing, sync |
//! | in a pass | nothing is missing any more | reported; the next map should say that it is settled |
//! | in a pass | something could not be restored | unsettled, not again before `RETRY_PAUSE` |
//! | reported | the map still says unsettled after `RETRY_PAUSE` | unsettled |

use super::Healer;
use super::comparison::{CompareError, ComparedPage, MissingShard, compare};
use super::duty::{Duty, SlotName, duties};
use super::progress::Lack;
use cairn_common::ids::{ChunkId, TargetId};
use cairn_common::wire::master::CompleteSlot;
use cairn_runtime::clock::Moment;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Slots that one target works on at the same time: enough that small groups do not leave sources idle.
const SLOTS_AT_ONCE: usize = 4;
/// Shards of one slot that are pulled at the same time.
const PULLS_PER_SLOT: usize = 4;
/// How long a slot waits after a failure, or after it was reported as complete.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How often one looks even if no new map has come.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

impl Healer {
    /// The task of one target.
    pub(super) async fn repair(self: Arc<Self>, number: usize) {
        let mut maps = self.master.maps();
        let mut not_before: BTreeMap<SlotName, Moment> = BTreeMap::new();
        loop {
            let map = maps.borrow_and_update().clone();
            self.peers.keep_those_of(&map);
            let id = self.id_on_map(number);
            let unsettled: Vec<Duty> = id.map(|id| duties(&map, id)).unwrap_or_default().into_iter().filter(|duty| !duty.is_settled).collect();
            let names: BTreeSet<SlotName> = unsettled.iter().map(|duty| duty.name).collect();
            self.patient(number).progress.set_slots(&names);
            not_before.retain(|name, _| names.contains(name));
            let now = self.runtime.now();
            let due = unsettled.into_iter().filter(|duty| not_before.get(&duty.name).is_none_or(|moment| *moment <= now));
            let due: Vec<Duty> = due.take(SLOTS_AT_ONCE).collect();
            let Some(id) = id.filter(|_| !due.is_empty()) else {
                let next = not_before.values().min().copied().unwrap_or(now.plus(IDLE_PAUSE));
                tokio::select! {
                    biased;
                    _ = maps.changed() => {}
                    () = self.runtime.clock.sleep_until(next) => {}
                }
                continue;
            };
            let done = join_all(due.iter().map(|duty| self.fulfil(number, id, duty))).await;
            self.report(done.into_iter().flatten().collect()).await;
            let again = self.runtime.now().plus(RETRY_PAUSE);
            not_before.extend(due.iter().map(|duty| (duty.name, again)));
        }
    }

    async fn report(&self, complete: Vec<CompleteSlot>) {
        if complete.is_empty() {
            return;
        }
        let slots = complete.len();
        match self.master.complete(complete).await {
            Ok(()) => tracing::debug!(slots, "slots are complete"),
            Err(error) => tracing::info!("the master was not told that {slots} slots are complete: {error}; trying again"),
        }
    }

    /// One pass over a slot. `Some` if it is complete.
    async fn fulfil(&self, number: usize, id: TargetId, duty: &Duty) -> Option<CompleteSlot> {
        let epoch = self.master.map().epoch;
        let patient = self.patient(number);
        let (mut from, until) = duty.range();
        let (mut stuck, mut pulled) = (0, 0);
        loop {
            let page = match self.page(number, id, from, until).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(?duty, "a slot can't be compared: {error}");
                    return None;
                }
            };
            let failed = self.restore(number, id, &page, Some(duty.name)).await;
            pulled += page.difference.missing.len() - failed;
            stuck += failed;
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        patient.progress.set_stuck(duty.name, stuck as u64);
        if stuck > 0 {
            tracing::warn!(target = %id, group = duty.name.group, slot = duty.name.slot, "{stuck} shards can't be restored at present");
            return None;
        }
        // Also for what was there: it may have been put a moment before we were killed.
        if let Err(error) = patient.target.sync().await {
            tracing::warn!(target = %id, "{error}");
            return None;
        }
        tracing::debug!(target = %id, group = duty.name.group, slot = duty.name.slot, pulled, "a slot has all its shards");
        let SlotName { pool, group, slot } = duty.name;
        Some(CompleteSlot { pool, group, slot, epoch })
    }

    pub(super) async fn page(
        &self,
        number: usize,
        id: TargetId,
        from: ChunkId,
        until: Option<ChunkId>,
    ) -> Result<ComparedPage, CompareError> {
        compare(&self.patient(number).target, id, &self.master, from, until).await
    }

    /// Pulls what is missing on a page; how many shards were not restored. `name`: the slot in question, if it is unsettled.
    pub(super) async fn restore(&self, number: usize, id: TargetId, page: &ComparedPage, name: Option<SlotName>) -> usize {
        let missing = page.difference.missing.clone().into_iter();
        let pulls = missing.map(|missing: MissingShard| self.restore_one(number, id, page, missing, name));
        stream::iter(pulls).buffer_unordered(PULLS_PER_SLOT).filter(|restored| std::future::ready(!restored)).count().await
    }

    async fn restore_one(&self, number: usize, id: TargetId, page: &ComparedPage, missing: MissingShard, name: Option<SlotName>) -> bool {
        self.pacer.take(missing.bytes()).await;
        let patient = self.patient(number);
        match self.pull(&page.map, &patient.target, id, &missing).await {
            Ok(()) => {
                patient.progress.repaired(name, missing.bytes(), false, self.runtime.now());
                true
            }
            Err(error) => {
                tracing::info!(target = %id, key = ?missing.key, "a shard can't be restored yet: {error}");
                false
            }
        }
    }

    /// Counts what is missing in slots that have not had their turn, so that one can say how long it will take.
    pub(super) async fn count(self: Arc<Self>, number: usize) {
        let mut maps = self.master.maps();
        loop {
            let uncounted: BTreeSet<SlotName> = self.patient(number).progress.uncounted().into_iter().collect();
            let map = maps.borrow_and_update().clone();
            if let Some(id) = self.id_on_map(number).filter(|_| !uncounted.is_empty()) {
                for duty in duties(&map, id).into_iter().filter(|duty| uncounted.contains(&duty.name)) {
                    self.count_slot(number, id, &duty).await;
                }
            }
            tokio::select! {
                biased;
                _ = maps.changed() => {}
                () = self.runtime.sleep(IDLE_PAUSE) => {}
            }
            // The task that repairs is told of the map first.
            self.runtime.sleep(Duration::from_millis(10)).await;
        }
    }

    async fn count_slot(&self, number: usize, id: TargetId, duty: &Duty) {
        let (mut from, until) = duty.range();
        let mut lack = Lack::default();
        loop {
            let Ok(page) = self.page(number, id, from, until).await else { return };
            lack.shards += page.difference.missing.len() as u64;
            lack.bytes += page.difference.missing.iter().map(MissingShard::bytes).sum::<u64>();
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        self.patient(number).progress.set_lack(duty.name, lack);
    }
}
