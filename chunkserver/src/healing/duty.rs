//! What the cluster map asks of a target. Pure.
//!
//! A target is responsible for the slots that it holds. A slot that names a previous holder is *unsettled*: the target has not
//! told the master yet that everything is there. Which shard of a chunk lies in which slot says the chunk's slot mask.

use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{ChunkId, PoolId, TargetId};
use cairn_common::map::{ClusterMap, Group, Slot, TargetState};
use cairn_common::wire::chunkserver::ShardKey;

/// Names a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotName {
    pub pool: PoolId,
    pub group: u32,
    pub slot: u8,
}

/// A slot that a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    pub name: SlotName,
    pub is_settled: bool,
    /// How many more slots of the group may be lost before data is; negative if it may be lost already.
    pub spare: i32,
    pub prefix_bits: u8,
}

impl Duty {
    /// The ids of the group's chunks: the first, and the first behind.
    pub fn range(&self) -> (ChunkId, Option<ChunkId>) {
        (ChunkId::first_of_group(self.name.group, self.prefix_bits), ChunkId::end_of_group(self.name.group, self.prefix_bits))
    }
}

/// The slots of a target: riskiest groups first; among equals in an order of its own, so that servers do not all ask the same
/// sources at the same time.
pub fn duties(map: &ClusterMap, target: TargetId) -> Vec<Duty> {
    let mut duties = Vec::new();
    for pool in &map.pools {
        for (group, number) in pool.groups.iter().zip(0u32..) {
            let held = group.slots.iter().zip(0u8..).filter(|(slot, _)| slot.holder == Some(target));
            duties.extend(held.map(|(slot, at)| Duty {
                name: SlotName { pool: pool.id, group: number, slot: at },
                is_settled: slot.previous.is_none(),
                spare: spare(map, group, pool.scheme.parity_shards()),
                prefix_bits: pool.prefix_bits,
            }));
        }
    }
    let draw = |group: u32| (group ^ target.0.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b).rotate_left(13);
    duties.sort_by_key(|duty| (duty.spare, draw(duty.name.group), duty.name));
    duties
}

/// What a group may still lose.
fn spare(map: &ClusterMap, group: &Group, parity: u8) -> i32 {
    let serves = |target: Option<TargetId>| target.and_then(|id| map.target(id)).is_some_and(|target| target.state.is_serving());
    let is_whole = |slot: &&Slot| if slot.previous.is_none() { serves(slot.holder) } else { serves(slot.source()) };
    i32::from(parity) - (group.slots.len() - group.slots.iter().filter(is_whole).count()) as i32
}

/// What a shard is to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Belonging {
    /// The target holds its slot.
    Here { is_settled: bool },
    /// The target held its slot before, and the new holder is not settled.
    StillHere,
    /// Another target holds its slot, and has told that it is complete.
    Elsewhere(TargetId),
    /// Its slot is vacant, on its way to another target, or not on the map: keep what there is.
    Nowhere,
    /// The chunk is not stored like this.
    Unwanted,
}

/// Where a shard belongs, for `target`.
pub fn belonging(map: &ClusterMap, chunk: &ChunkInfo, key: &ShardKey, target: TargetId) -> Belonging {
    if chunk.scheme != key.scheme || !chunk.scheme.layout(chunk.bytes).is_stored(key.index) {
        return Belonging::Unwanted;
    }
    let Some(slot) = slot_of(map, chunk, key.index) else { return Belonging::Nowhere };
    match (slot.holder, slot.previous) {
        (Some(holder), previous) if holder == target => Belonging::Here { is_settled: previous.is_none() },
        (_, Some(previous)) if previous == target => Belonging::StillHere,
        (Some(holder), None) => Belonging::Elsewhere(holder),
        _ => Belonging::Nowhere,
    }
}

/// The slot in which shard `index` of a chunk lies.
pub fn slot_of(map: &ClusterMap, chunk: &ChunkInfo, index: u8) -> Option<Slot> {
    let slot = chunk.slots.slots().nth(index.into())?;
    map.pool(chunk.pool)?.group_of(chunk.id).slots.get(usize::from(slot)).copied()
}

/// The shard of a chunk that lies in a slot held by `target`, if it is stored at all.
pub fn shard_held(map: &ClusterMap, chunk: &ChunkInfo, target: TargetId) -> Option<(ShardKey, bool)> {
    let group = map.pool(chunk.pool)?.group_of(chunk.id);
    let (slot, at) = group.slots.iter().zip(0u8..).find(|(slot, _)| slot.holder == Some(target))?;
    let index = chunk.slots.shard_in(at).filter(|index| chunk.scheme.layout(chunk.bytes).is_stored(*index))?;
    Some((ShardKey { chunk: chunk.id, scheme: chunk.scheme, index }, slot.previous.is_none()))
}

/// The space of chunk ids in parts, each a group of the finest pool: its first id, and the first behind.
pub fn ranges(map: &ClusterMap) -> Vec<(ChunkId, Option<ChunkId>)> {
    let bits = map.pools.iter().map(|pool| pool.prefix_bits).max().unwrap_or(0);
    (0..1u32 << bits).map(|group| (ChunkId::first_of_group(group, bits), ChunkId::end_of_group(group, bits))).collect()
}

/// Whether a target answers, as far as the master knows, or may at least be tried.
pub fn may_answer(state: TargetState) -> bool {
    matches!(state, TargetState::Joining | TargetState::Serving | TargetState::Draining | TargetState::Suspect)
}

#[cfg(test)]
pub mod tests {
    use super::{Belonging, belonging, duties, ranges, shard_held};
    use cairn_common::extent::{ChunkInfo, SlotMask};
    use cairn_common::ids::{ChunkId, MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
    use cairn_common::scheme::Scheme;
    use cairn_common::wire::chunkserver::ShardKey;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    pub const POOL: PoolId = PoolId(1);

    fn target(id: u32, state: TargetState) -> Target {
        let address = SocketAddr::from(([10, 0, 0, id as u8], 1));
        Target { id: TargetId(id), server: ServerId(id), address, state, full: false, capacity_bytes: 1, labels: BTreeMap::new() }
    }

    /// A pool of 2+1 with a group for each list of slots (holder, previous; 0 is nobody). Target 9 is dead.
    pub fn map(groups: &[[(u32, u32); 3]]) -> ClusterMap {
        let id = |number: u32| (number > 0).then_some(TargetId(number));
        let group = |slots: &[(u32, u32); 3]| Group {
            slots: slots.iter().map(|(holder, previous)| Slot { holder: id(*holder), previous: id(*previous) }).collect(),
        };
        let prefix_bits = groups.len().ilog2() as u8;
        let pool = Pool {
            id: POOL,
            name: "default".to_owned(),
            scheme: Scheme::new(2, 1).expect("in range"),
            prefix_bits,
            groups: groups.iter().map(group).collect(),
            labels: BTreeMap::new(),
        };
        let mut targets: Vec<Target> = (1..=8).map(|id| target(id, TargetState::Serving)).collect();
        targets.push(target(9, TargetState::Dead));
        ClusterMap { epoch: MapEpoch(5), pools: vec![pool], targets }
    }

    /// A chunk whose id begins with this byte.
    pub fn chunk(first: u8, bytes: u32, scheme: &str, slots: &[u8]) -> ChunkInfo {
        let mut id = [0x11; 32];
        id[0] = first;
        let scheme = scheme.parse().expect("a scheme");
        ChunkInfo { id: ChunkId(id), bytes, pool: POOL, scheme, slots: SlotMask::from_slots(slots.iter().copied()) }
    }

    pub fn key(chunk: &ChunkInfo, index: u8) -> ShardKey {
        ShardKey { chunk: chunk.id, scheme: chunk.scheme, index }
    }

    #[test]
    fn riskiest_groups_come_first() {
        let map = map(&[[(1, 0), (2, 0), (3, 0)], [(1, 9), (2, 0), (3, 0)], [(1, 9), (9, 0), (3, 0)], [(1, 4), (2, 0), (3, 0)]]);
        let found: Vec<_> = duties(&map, TargetId(1)).iter().map(|duty| (duty.name.group, duty.spare, duty.is_settled)).collect();
        assert_eq!(found[..2], [(2, -1, false), (1, 0, false)]);
        assert_eq!(found[2..].iter().map(|(_, spare, _)| *spare).collect::<Vec<_>>(), [1, 1], "a living source is as good as a copy");
        assert!(found.contains(&(3, 1, false)) && found.contains(&(0, 1, true)));
        assert!(duties(&map, TargetId(8)).is_empty());
    }

    #[test]
    fn a_shard_belongs_where_its_slot_is() {
        let map = map(&[[(1, 0), (2, 4), (0, 5)]]);
        let whole = chunk(0, 200_000, "2+1", &[0, 1, 2]);
        let here = |target, index| belonging(&map, &whole, &key(&whole, index), TargetId(target));
        assert_eq!(here(1, 0), Belonging::Here { is_settled: true });
        assert_eq!(here(2, 1), Belonging::Here { is_settled: false });
        assert_eq!(here(4, 1), Belonging::StillHere);
        assert_eq!(here(7, 0), Belonging::Elsewhere(TargetId(1)));
        assert_eq!(here(7, 1), Belonging::Nowhere, "its holder is not settled");
        assert_eq!(here(7, 2), Belonging::Nowhere, "its slot is vacant");
        let narrow = chunk(0, 200_000, "1+1", &[1, 2]);
        assert_eq!(belonging(&map, &narrow, &key(&whole, 0), TargetId(1)), Belonging::Unwanted, "it is stored with another scheme");
        assert_eq!(belonging(&map, &narrow, &key(&narrow, 0), TargetId(2)), Belonging::Here { is_settled: false });
    }

    #[test]
    fn only_stored_shards_are_missed() {
        let map = map(&[[(1, 0), (2, 0), (3, 9)]]);
        let held = |chunk: &ChunkInfo, target| shard_held(&map, chunk, TargetId(target)).map(|(key, is_settled)| (key.index, is_settled));
        let whole = chunk(0, 200_000, "2+1", &[0, 1, 2]);
        assert_eq!([1, 2, 3, 4].map(|target| held(&whole, target)), [Some((0, true)), Some((1, true)), Some((2, false)), None]);
        let short = chunk(0, 100, "2+1", &[0, 1, 2]);
        assert_eq!(held(&short, 2), None, "the second data shard lies beyond the chunk's end");
        let narrow = chunk(0, 200_000, "1+1", &[0, 2]);
        assert_eq!([1, 2, 3].map(|target| held(&narrow, target)), [Some((0, true)), None, Some((1, false))]);
    }

    #[test]
    fn ranges_cover_all_ids() {
        let ranges = ranges(&map(&[[(1, 0), (2, 0), (3, 0)]; 4]));
        assert_eq!(ranges.len(), 4);
        assert_eq!((ranges[0].0, ranges[3].1), (ChunkId([0; 32]), None));
        assert!(ranges.windows(2).all(|pair| pair[0].1 == Some(pair[1].0)));
    }
}
