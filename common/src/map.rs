//! The cluster map: which target holds which slot of which placement group, under a version that every data request carries.

use crate::ids::{ChunkId, MapEpoch, PoolId, ServerId, TargetId};
use crate::scheme::Scheme;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Life of a target (docs/decisions explains the transitions):
/// joining -> serving -> suspect -> dead, and back to serving when it reports again; draining -> removed by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Known, not yet given any slot.
    Joining,
    Serving,
    /// Silent for `SUSPECT_AFTER`: new writes avoid it, reads try it last.
    Suspect,
    /// Silent for `DEAD_AFTER`: its slots are to be rebuilt elsewhere.
    Dead,
    /// Serves what it has; takes nothing new.
    Draining,
    Removed,
}

impl TargetState {
    /// Whether the target answers requests, as far as the master knows.
    pub fn is_serving(self) -> bool {
        matches!(self, TargetState::Joining | TargetState::Serving | TargetState::Draining)
    }

    /// Whether new shards may be put on it.
    pub fn takes_writes(self) -> bool {
        matches!(self, TargetState::Joining | TargetState::Serving)
    }
}

/// A target as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub id: TargetId,
    pub server: ServerId,
    pub address: SocketAddr,
    pub state: TargetState,
    /// No room for new shards; deletes and reads still work.
    pub full: bool,
    /// Size of the disk in bytes: the weight in placement.
    pub capacity_bytes: u64,
    /// Failure domains and whatever else an operator says: `rack=a`, `host=b`.
    pub labels: BTreeMap<String, String>,
}

/// Who holds a slot of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Who is responsible now; `None` is a vacant slot.
    pub holder: Option<TargetId>,
    /// Who held it before, as long as the holder may lack something; the holder itself if nobody else is known to have it.
    pub previous: Option<TargetId>,
}

impl Slot {
    /// Who held it before and may have what the holder lacks.
    pub fn source(&self) -> Option<TargetId> {
        self.previous.filter(|previous| Some(*previous) != self.holder)
    }

    /// Who may have what belongs there: the holder first.
    pub fn targets(&self) -> impl Iterator<Item = TargetId> {
        self.holder.into_iter().chain(self.source())
    }

    /// Whether all that belongs there is to be had from one of these.
    fn is_whole(&self, serves: impl Fn(TargetId) -> bool) -> bool {
        // A slot on its way counts as there while the holder before serves.
        let has_all = self.previous.is_none() || self.source().is_some_and(&serves);
        has_all && self.holder.is_some_and(serves)
    }

    /// The slot with another holder. It names as the previous one who most likely has what belongs there: of the two known so far
    /// the earlier one, for the holder since then never had everything, unless only the later one can still answer.
    pub fn handed_to(self, holder: Option<TargetId>, can_answer: impl Fn(&TargetId) -> bool) -> Self {
        if holder == self.holder {
            return self;
        }
        // The new holder is no source for itself. If it takes the slot back, the one in between has what was written meanwhile.
        let known = || [self.previous, self.holder].into_iter().flatten().filter(|known| Some(*known) != holder);
        let named = known().find(can_answer).or_else(|| known().next());
        // Who comes back to a slot that was vacant meanwhile may lack what was written then.
        Self { holder, previous: named.or(self.previous) }
    }
}

/// The slots of one placement group, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    pub slots: Vec<Slot>,
}

/// A pool and its groups. The group of a chunk is the first `prefix_bits` bits of its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub id: PoolId,
    pub name: String,
    pub scheme: Scheme,
    pub prefix_bits: u8,
    /// `1 << prefix_bits` of them.
    pub groups: Vec<Group>,
    /// What a chunkserver must be labelled with for its targets to hold slots; nothing admits all.
    pub labels: BTreeMap<String, String>,
}

/// How much of a placement group is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupHealth {
    /// All slots are on serving targets that have all their shards, or whose source still has.
    Healthy,
    /// Some slots are missing or not rebuilt yet, but no more than the scheme can lose.
    Degraded,
    /// More slots are missing than the scheme can lose: what is stored there with the pool's full scheme can't be read now.
    Lost,
}

/// Whether something with these labels has all that are wanted.
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Labels for people: `media=ssd,rack=a`.
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

impl Pool {
    /// Whether a target may hold slots of the pool, as far as its labels go.
    pub fn admits(&self, target: &Target) -> bool {
        has_labels(&target.labels, &self.labels)
    }

    /// How much of one of its groups is there, when only these targets serve.
    pub fn health(&self, group: &Group, serves: impl Fn(TargetId) -> bool) -> GroupHealth {
        let missing = group.slots.iter().filter(|slot| !slot.is_whole(&serves)).count();
        match missing {
            0 => GroupHealth::Healthy,
            _ if missing <= usize::from(self.scheme.parity_shards()) => GroupHealth::Degraded,
            _ => GroupHealth::Lost,
        }
    }

    pub fn group_of(&self, chunk: ChunkId) -> &Group {
        &self.groups[chunk.prefix(self.prefix_bits) as usize]
    }
}

/// One version of the whole map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterMap {
    pub epoch: MapEpoch,
    pub pools: Vec<Pool>,
    /// In order of id.
    pub targets: Vec<Target>,
}

impl ClusterMap {
    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.id == id)
    }

    pub fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.binary_search_by_key(&id, |target| target.id).ok().map(|at| &self.targets[at])
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;
    use crate::ids::TargetId;

    #[test]
    fn a_slot_names_who_most_likely_has_what_belongs_there() {
        let id = |number: u32| (number > 0).then_some(TargetId(number));
        // Holder and previous one before, the next holder, who can answer, and whom the slot names then; 0 is nobody.
        type Row = ((u32, u32), u32, &'static [u32], u32);
        let table: [Row; 17] = [
            ((1, 0), 1, &[1], 0),
            ((1, 2), 1, &[1, 2], 2),
            ((1, 0), 3, &[1], 1),
            ((1, 0), 3, &[], 1),
            ((0, 0), 3, &[], 0),
            // Never complete, so the one before it is the better source, as long as it answers.
            ((2, 1), 3, &[1, 2], 1),
            ((2, 1), 3, &[1], 1),
            ((2, 1), 3, &[2], 2),
            ((2, 1), 3, &[], 1),
            // Taken back: only the one in between has what was written meanwhile.
            ((2, 1), 1, &[1, 2], 2),
            ((2, 1), 1, &[1], 2),
            ((2, 1), 0, &[2], 2),
            ((0, 1), 3, &[], 1),
            // Nobody knows what was written while it was vacant: it must look at the others.
            ((0, 1), 1, &[1], 1),
            ((1, 1), 1, &[1], 1),
            ((1, 1), 3, &[1], 1),
            ((1, 1), 0, &[1], 1),
        ];
        for ((holder, previous), next, answer, named) in table {
            let slot = Slot { holder: id(holder), previous: id(previous) };
            let found = slot.handed_to(id(next), |target| answer.contains(&target.0));
            assert_eq!(found, Slot { holder: id(next), previous: id(named) }, "{slot:?} to {next}, {answer:?} answer");
        }
    }

    #[test]
    fn a_slot_is_whole_if_its_holder_has_all_or_a_source_that_serves() {
        let slot = |holder: Option<u32>, previous: Option<u32>| Slot { holder: holder.map(TargetId), previous: previous.map(TargetId) };
        let all = |_| true;
        let whole = |slot: Slot| (slot.is_whole(all), slot.is_whole(|target| target == TargetId(1)), slot.targets().count());
        assert_eq!(whole(slot(Some(1), None)), (true, true, 1));
        assert_eq!(whole(slot(Some(1), Some(2))), (true, false, 2));
        assert_eq!(whole(slot(Some(1), Some(1))), (false, false, 1), "it may lack something, and nobody is known to have it");
        assert_eq!(whole(slot(None, Some(1))), (false, false, 1));
        assert_eq!(whole(slot(None, None)), (false, false, 0));
    }
}
