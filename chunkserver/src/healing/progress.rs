//! How far the healing of one target is, for heartbeats.

use super::duty::SlotName;
use cairn_common::wire::chunkserver::Healing;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Over how long the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(4);

/// What is missing somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lack {
    pub shards: u64,
    pub bytes: u64,
}

#[derive(Default)]
struct Counts {
    /// Unsettled slots, and what is known to be missing in each.
    slots: BTreeMap<SlotName, Option<Lack>>,
    /// Missing in settled slots, as the last comparison found.
    settled: Lack,
    stuck: BTreeMap<SlotName, u64>,
    /// Known to be damaged or lost, looked at, and not restored yet.
    damaged: u64,
    healing: Healing,
    window_start: Moment,
    window_bytes: u64,
}

/// Of one target. Cheap to read.
#[derive(Default)]
pub struct Progress {
    counts: Mutex<Counts>,
}

impl Progress {
    /// Sets which slots are unsettled now.
    pub fn set_slots(&self, unsettled: &BTreeSet<SlotName>) {
        let mut counts = self.counts.lock();
        counts.slots.retain(|name, _| unsettled.contains(name));
        counts.stuck.retain(|name, _| unsettled.contains(name));
        for name in unsettled {
            counts.slots.entry(*name).or_default();
        }
    }

    /// The unsettled slots of which nobody knows yet what is missing.
    pub fn uncounted(&self) -> Vec<SlotName> {
        let counts = self.counts.lock();
        counts.slots.iter().filter(|(_, lack)| lack.is_none()).map(|(name, _)| *name).collect()
    }

    pub fn set_lack(&self, name: SlotName, lack: Lack) {
        if let Some(known) = self.counts.lock().slots.get_mut(&name) {
            *known = Some(lack);
        }
    }

    pub fn set_settled_lack(&self, lack: Lack) {
        self.counts.lock().settled = lack;
    }

    pub fn set_damaged(&self, shards: u64) {
        self.counts.lock().damaged = shards;
    }

    /// How many shards of a slot can't be rebuilt at present.
    pub fn set_stuck(&self, name: SlotName, shards: u64) {
        self.counts.lock().stuck.insert(name, shards);
    }

    /// A shard was restored, of an unsettled slot if `name` says so.
    pub fn repaired(&self, name: Option<SlotName>, bytes: u64, was_damaged: bool, now: Moment) {
        let mut counts = self.counts.lock();
        counts.lacks_less(name, bytes);
        counts.healing.shards_repaired += 1;
        counts.healing.bytes_repaired += bytes;
        counts.healing.damaged_repaired += u64::from(was_damaged);
        counts.roll(now);
        counts.window_bytes += bytes;
    }

    /// A shard that was missing is there, and others have put it.
    pub fn found(&self, name: Option<SlotName>, bytes: u64) {
        self.counts.lock().lacks_less(name, bytes);
    }

    pub fn deleted(&self, shards: u64) {
        self.counts.lock().healing.orphans_deleted += shards;
    }

    /// The scrub has looked at a shard, and read so many bytes of it.
    pub fn scrubbed(&self, bytes: u64) {
        let healing = &mut self.counts.lock().healing;
        healing.bytes_scrubbed += bytes;
        healing.shards_scrubbed += 1;
    }

    pub fn set_scrub(&self, passes: u64, permille: u16) {
        let mut counts = self.counts.lock();
        (counts.healing.scrub_passes, counts.healing.scrub_permille) = (passes, permille);
    }

    /// What the master is told.
    pub fn status(&self, now: Moment) -> Healing {
        let mut counts = self.counts.lock();
        counts.roll(now);
        let damaged = counts.damaged;
        let lacks = || counts.slots.values().flatten();
        Healing {
            slots_left: counts.slots.len() as u64,
            slots_uncounted: counts.slots.values().filter(|lack| lack.is_none()).count() as u64,
            shards_left: damaged + counts.settled.shards + lacks().map(|lack| lack.shards).sum::<u64>(),
            bytes_left: counts.settled.bytes + lacks().map(|lack| lack.bytes).sum::<u64>(),
            shards_missing: damaged + counts.settled.shards,
            shards_stuck: counts.stuck.values().sum(),
            ..counts.healing
        }
    }
}

impl Counts {
    /// A shard less is missing, of an unsettled slot if `name` says so.
    fn lacks_less(&mut self, name: Option<SlotName>, bytes: u64) {
        let lack = match name {
            Some(name) => self.slots.get_mut(&name).and_then(Option::as_mut),
            None => Some(&mut self.settled),
        };
        if let Some(lack) = lack {
            lack.shards = lack.shards.saturating_sub(1);
            lack.bytes = lack.bytes.saturating_sub(bytes);
        }
    }

    /// Ends the window of the rate if it is over.
    fn roll(&mut self, now: Moment) {
        let elapsed = now.since(self.window_start);
        if elapsed >= RATE_WINDOW {
            self.healing.bytes_per_second = (u128::from(self.window_bytes) * 1_000_000_000 / elapsed.as_nanos().max(1)) as u64;
            (self.window_start, self.window_bytes) = (now, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lack, Progress, SlotName};
    use cairn_common::ids::PoolId;
    use cairn_runtime::clock::Moment;
    use std::collections::BTreeSet;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_left_goes_down_with_each_shard() {
        let (a, b) = (SlotName { pool: PoolId(1), group: 1, slot: 2 }, SlotName { pool: PoolId(1), group: 2, slot: 0 });
        let progress = Progress::default();
        progress.set_slots(&BTreeSet::from([a, b]));
        assert_eq!(progress.uncounted(), [a, b]);
        progress.set_lack(a, Lack { shards: 3, bytes: 3000 });
        progress.repaired(Some(a), 1000, false, at(100));
        progress.repaired(Some(b), 1000, false, at(100));
        progress.set_damaged(1);
        let status = progress.status(at(100));
        assert_eq!((status.slots_left, status.slots_uncounted, status.shards_left, status.bytes_left), (2, 1, 3, 2000));
        assert_eq!(status.shards_missing, 1);
        progress.set_damaged(0);
        assert_eq!((status.shards_repaired, status.bytes_repaired, status.damaged_repaired), (2, 2000, 0));
        progress.found(Some(a), 500);
        let status = progress.status(at(100));
        assert_eq!((status.shards_left, status.bytes_left, status.shards_repaired), (1, 1500, 2), "others have put it");
        progress.set_stuck(a, 2);
        progress.set_slots(&BTreeSet::from([b]));
        let status = progress.status(at(100));
        assert_eq!((status.slots_left, status.shards_left, status.shards_stuck), (1, 0, 0));
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let progress = Progress::default();
        progress.status(at(10));
        progress.repaired(None, 8000, true, at(11));
        assert_eq!(progress.status(at(14)).bytes_per_second, 2000);
        assert_eq!(progress.status(at(20)).bytes_per_second, 0);
    }
}
