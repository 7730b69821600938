//! What the servers' reports say of healing: how much is left, how fast it goes, and when all will be whole again.

use cairn_common::wire::chunkserver::{Healing, TargetStatus};
use cairn_common::wire::master::Status;
use cairn_objects::size::human;
use serde::Serialize;

/// Over all chunkservers. Counts of work done are since the servers started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Slots that have a new holder which does not have all shards yet.
    pub slots_left: u64,
    /// Slots whose missing shards are still being counted: then the next two are too low.
    pub slots_uncounted: u64,
    pub shards_left: u64,
    pub bytes_left: u64,
    /// Of these, in slots that should be complete: rot, or losses in a crash.
    pub shards_missing: u64,
    /// Shards that can't be rebuilt now, because too few others can be read.
    pub shards_stuck: u64,
    pub bytes_per_second: u64,
    /// When nothing will be left, at the present rate.
    pub eta_seconds: Option<u64>,
    pub shards_repaired: u64,
    pub bytes_repaired: u64,
    pub orphans_deleted: u64,
}

/// Of the disk that is furthest behind, and over all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Scrub {
    pub passes: u64,
    pub bytes_scrubbed: u64,
    pub shards_scrubbed: u64,
    pub corrupt_found: u64,
    pub damaged_repaired: u64,
}

fn reports(status: &Status) -> impl Iterator<Item = &TargetStatus> {
    // What a silent server said last is out of date.
    let heard = status.servers.iter().filter(|server| server.state.is_serving());
    heard.flat_map(|server| &server.targets).filter_map(|(_, report)| report.as_ref())
}

impl Repair {
    pub fn new(status: &Status) -> Self {
        let sum = |field: fn(&Healing) -> u64| reports(status).map(|report| field(&report.healing)).sum::<u64>();
        let slots = status.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
        let mut repair = Self {
            slots_left: slots.filter(|slot| slot.previous.is_some()).count() as u64,
            slots_uncounted: sum(|healing| healing.slots_uncounted),
            shards_left: sum(|healing| healing.shards_left),
            bytes_left: sum(|healing| healing.bytes_left),
            shards_missing: sum(|healing| healing.shards_missing),
            shards_stuck: sum(|healing| healing.shards_stuck),
            bytes_per_second: sum(|healing| healing.bytes_per_second),
            eta_seconds: None,
            shards_repaired: sum(|healing| healing.shards_repaired),
            bytes_repaired: sum(|healing| healing.bytes_repaired),
            orphans_deleted: sum(|healing| healing.orphans_deleted),
        };
        repair.eta_seconds = (repair.bytes_per_second > 0).then(|| repair.bytes_left.div_ceil(repair.bytes_per_second));
        repair
    }

    /// What is going on, if anything is.
    pub fn sentence(&self) -> Option<String> {
        if self.slots_left == 0 && self.shards_left == 0 {
            return None;
        }
        let at_least = if self.slots_uncounted > 0 { "at least " } else { "" };
        let left = format!("{at_least}{} shards, {}, in {} slots", self.shards_left, human(self.bytes_left), self.slots_left);
        let mut sentence = match self.eta_seconds {
            Some(seconds) => {
                format!("rebuilding or moving: {left} are left, at {}/s: done in about {}", human(self.bytes_per_second), duration(seconds))
            }
            None => format!("to be rebuilt or moved: {left} are left; nothing is moving right now"),
        };
        if self.shards_stuck > 0 {
            sentence += &format!("; {} shards can't be rebuilt until more servers are back", self.shards_stuck);
        }
        Some(sentence)
    }
}

impl Scrub {
    pub fn new(status: &Status) -> Self {
        Self {
            passes: reports(status).map(|report| report.healing.scrub_passes).min().unwrap_or(0),
            bytes_scrubbed: reports(status).map(|report| report.healing.bytes_scrubbed).sum(),
            shards_scrubbed: reports(status).map(|report| report.healing.shards_scrubbed).sum(),
            corrupt_found: reports(status).map(|report| report.corrupt_shards).sum(),
            damaged_repaired: reports(status).map(|report| report.healing.damaged_repaired).sum(),
        }
    }
}

/// Time for people, in one unit.
fn duration(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds.div_ceil(60)),
        6000..=172_799 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Repair, duration};

    #[test]
    fn what_is_left_is_told_in_a_sentence() {
        assert_eq!(Repair::default().sentence(), None);
        let going = Repair {
            slots_left: 3,
            shards_left: 12,
            bytes_left: 12 << 20,
            bytes_per_second: 1 << 20,
            eta_seconds: Some(12),
            ..Repair::default()
        };
        let expected = "rebuilding or moving: 12 shards, 12.0 MiB, in 3 slots are left, at 1.0 MiB/s: done in about 12 s";
        assert_eq!(going.sentence().as_deref(), Some(expected));
        let stuck = Repair { slots_uncounted: 1, shards_stuck: 2, eta_seconds: None, ..going };
        let expected = "to be rebuilt or moved: at least 12 shards, 12.0 MiB, in 3 slots are left; nothing is moving right now; 2 shards can't \
                        be rebuilt until more servers are back";
        assert_eq!(stuck.sentence().as_deref(), Some(expected));
    }

    #[test]
    fn times_have_one_unit() {
        assert_eq!([5, 600, 7200, 400_000].map(duration), ["5 s", "10 min", "2 h", "5 days"]);
    }
}
