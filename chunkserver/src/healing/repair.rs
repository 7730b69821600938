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
//! | in a pass | something could not be restored, or the audit deletes shards of the group | unsettled, not again before `RETRY_PAUSE` |
//! | reported | the map still says unsettled after `RETRY_PAUSE` | unsettled |

use super::Healer;
use super::comparison::{CompareError, ComparedPage, MissingShard, compare};
use super::duty::{Duty, SlotName, duties};
use super::progress::Lack;
use super::pull::InPlace;
use cairn_common::ids::{ChunkId, TargetId};
use cairn_common::wire::master::CompleteSlot;
use cairn_runtime::clock::Moment;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Slots that one target works on at the same time: enough that small groups do not leave sources idle.
const SLOTS_AT_ONCE: usize = 4;
/// Shards of one slot that are pulled at the same time.
const PULLS_PER_SLOT: usize = 4;
/// How long a slot waits after a failure, or after it was reported as complete.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How soon one looks again at the earliest, if nothing happens.
const BREATH: Duration = Duration::from_millis(100);
/// How often one looks even if no new map has come.
const IDLE_PAUSE: Duration = Duration::from_secs(5);

/// Which slots are being worked on, and which wait after a pass. Pure.
#[derive(Default)]
struct Turns {
    running: BTreeSet<SlotName>,
    not_before: BTreeMap<SlotName, Moment>,
}

impl Turns {
    /// The next slots to work on, the first of the list first.
    fn begin(&mut self, unsettled: &[Duty], now: Moment) -> Vec<Duty> {
        self.not_before.retain(|name, _| unsettled.iter().any(|duty| duty.name == *name));
        let is_due =
            |duty: &&Duty| !self.running.contains(&duty.name) && self.not_before.get(&duty.name).is_none_or(|moment| *moment <= now);
        let room = SLOTS_AT_ONCE.saturating_sub(self.running.len());
        let due: Vec<Duty> = unsettled.iter().filter(is_due).take(room).copied().collect();
        self.running.extend(due.iter().map(|duty| duty.name));
        due
    }

    fn end(&mut self, name: SlotName, now: Moment) {
        self.running.remove(&name);
        self.not_before.insert(name, now.plus(RETRY_PAUSE));
    }

    /// When the first slot that waits may be tried again.
    fn next_try(&self, unsettled: &[Duty]) -> Option<Moment> {
        let waiting = unsettled.iter().filter(|duty| !self.running.contains(&duty.name));
        waiting.filter_map(|duty| self.not_before.get(&duty.name)).min().copied()
    }
}

impl Healer {
    /// The task of one target.
    pub(super) async fn repair(self: Arc<Self>, number: usize) {
        let mut maps = self.master.maps();
        let mut turns = Turns::default();
        let mut running = FuturesUnordered::new();
        loop {
            let map = maps.borrow_and_update().clone();
            self.peers.keep_those_of(&map);
            let id = self.id_on_map(number);
            let unsettled: Vec<Duty> =
                id.map(|id| duties(&map, id)).unwrap_or_default().into_iter().filter(|duty| !duty.is_settled).collect();
            self.patient(number).progress.set_slots(&unsettled.iter().map(|duty| duty.name).collect());
            let now = self.runtime.now();
            let next = turns.next_try(&unsettled).unwrap_or(now.plus(IDLE_PAUSE)).min(now.plus(IDLE_PAUSE));
            if let Some(id) = id {
                let due = turns.begin(&unsettled, now);
                running.extend(due.into_iter().map(|duty| self.fulfil(number, id, duty)));
            }
            tokio::select! {
                biased;
                Some(name) = running.next() => turns.end(name, self.runtime.now()),
                _ = maps.changed() => {}
                () = self.runtime.clock.sleep_until(next.max(now.plus(BREATH))) => {}
            }
        }
    }

    /// One pass over a slot, and the report if it is complete.
    async fn fulfil(&self, number: usize, id: TargetId, duty: Duty) -> SlotName {
        if let Some(complete) = self.fill(number, id, &duty).await {
            match self.master.complete(vec![complete]).await {
                Ok(()) => tracing::debug!(target = %id, ?duty, "a slot is complete"),
                Err(error) => tracing::info!("the master was not told that a slot is complete: {error}; trying again"),
            }
        }
        duty.name
    }

    /// One pass over a slot. `Some` if it is complete.
    async fn fill(&self, number: usize, id: TargetId, duty: &Duty) -> Option<CompleteSlot> {
        let patient = self.patient(number);
        // Before the map is looked at: until then the audit may delete what belongs elsewhere by an older one.
        let _claim = patient.claims.claim((duty.name.pool, duty.name.group))?;
        let epoch = self.master.map().epoch;
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
        let _turn = self.pacer.take(missing.bytes()).await;
        let patient = self.patient(number);
        // The turn may have been long in coming, and a writer has put it meanwhile.
        if patient.target.check(&[missing.key]).await.is_ok_and(|present| present == [true]) {
            patient.progress.found(name, missing.bytes());
            return true;
        }
        match self.pull(&page.map, number, id, &missing, InPlace::Nothing).await {
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

#[cfg(test)]
mod tests {
    use super::super::fixture::Server;
    use super::{Duty, RETRY_PAUSE, SLOTS_AT_ONCE, SlotName, Turns};
    use crate::target::tests::fixture::with_node;
    use cairn_common::ids::{PoolId, TargetId};
    use cairn_runtime::clock::Moment;
    use std::time::Duration;

    fn duty(group: u32) -> Duty {
        Duty { name: SlotName { pool: PoolId(1), group, slot: 0 }, is_settled: false, spare: 1, prefix_bits: 8 }
    }

    #[test]
    fn slots_take_turns_and_wait_after_a_pass() {
        let all: Vec<Duty> = (0..10).map(duty).collect();
        let now = Moment::from_nanos(0);
        let mut turns = Turns::default();
        assert_eq!(turns.begin(&all, now), all[..SLOTS_AT_ONCE]);
        assert_eq!(turns.begin(&all, now), []);
        turns.end(all[1].name, now);
        assert_eq!(turns.begin(&all, now), [duty(SLOTS_AT_ONCE as u32)], "not the same one again");
        assert_eq!(turns.next_try(&all), Some(now.plus(RETRY_PAUSE)));
        // The others are settled meanwhile; this one is not.
        let left = [all[1]];
        assert_eq!(turns.begin(&left, now), []);
        turns.end(all[0].name, now);
        assert_eq!(turns.begin(&left, now.plus(RETRY_PAUSE)), left);
        turns.end(all[1].name, now);
        assert_eq!(turns.begin(&[], now), []);
        assert_eq!(turns.next_try(&left), None, "a slot that is not ours any more is forgotten");
    }
    #[test]
    fn a_pass_keeps_the_audit_out_of_its_group_and_waits_for_it() {
        with_node(1, |_, node| async move {
            let server = Server::start(&node).await;
            server.find_silent_master().await;
            let (duty, claims) = (duty(0), &server.healer.patient(0).claims);
            let limit = Duration::from_secs(1);
            let runtime = &server.healer.runtime;
            let pass = || runtime.timeout(limit, server.healer.fill(0, TargetId(1), &duty));
            let look = async {
                runtime.sleep(limit / 2).await;
                claims.claim((PoolId(1), 0)).is_none()
            };
            let (passed, is_claimed) = futures_util::join!(pass(), look);
            assert!(passed.is_err() && is_claimed, "it asks the master, and keeps its claim meanwhile");
            let _audit = claims.claim((PoolId(1), 0)).expect("the pass is over");
            assert_eq!(pass().await.map(|complete| complete.is_some()), Ok(false), "it does not even begin");
        });
    }
}
