//! Where the shards of a chunk are, as the map says. Pure.

use cairn_common::extent::ChunkInfo;
use cairn_common::ids::TargetId;
use cairn_common::map::{ClusterMap, Slot, Target, TargetState};
use cairn_common::wire::chunkserver::ShardKey;

/// A shard and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub key: ShardKey,
    pub slot: Slot,
}

/// What is known of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    Good,
    Missing,
    Damaged,
    /// Its disk does not answer, and why.
    Away(String),
    /// Its disk has too much to do to tell.
    Busy,
    /// Nobody holds its slot.
    Vacant,
}

/// The stored shards of a chunk.
pub fn places(map: &ClusterMap, chunk: &ChunkInfo) -> Vec<Place> {
    let layout = chunk.scheme.layout(chunk.bytes.max(1));
    let group = map.pool(chunk.pool).map(|pool| pool.group_of(chunk.id));
    let place = |(index, slot): (u8, u8)| {
        let slot = group.and_then(|group| group.slots.get(usize::from(slot))).copied().unwrap_or_default();
        Place { key: ShardKey { chunk: chunk.id, scheme: chunk.scheme, index }, slot }
    };
    (0u8..).zip(chunk.slots.slots()).filter(|(index, _)| layout.is_stored(*index)).map(place).collect()
}

/// How many of its shards it takes to read a chunk.
pub fn needed(chunk: &ChunkInfo) -> usize {
    let layout = chunk.scheme.layout(chunk.bytes.max(1));
    if chunk.scheme.is_copies() { 1 } else { layout.occupied_data_shards().into() }
}

/// The target, if it may answer.
pub fn reachable(map: &ClusterMap, id: TargetId) -> Result<&Target, String> {
    let target = map.target(id).ok_or_else(|| "it is not on the map".to_owned())?;
    match target.state {
        TargetState::Dead => Err("it is dead".to_owned()),
        TargetState::Removed => Err("it was removed".to_owned()),
        TargetState::Joining | TargetState::Serving | TargetState::Suspect | TargetState::Draining => Ok(target),
    }
}

/// A disk, for people.
pub fn disk(map: &ClusterMap, id: Option<TargetId>) -> String {
    match id.map(|id| (id, map.target(id))) {
        None => "no disk".to_owned(),
        Some((id, None)) => format!("disk {id}"),
        Some((id, Some(target))) => format!("disk {id} of chunkserver {}", target.server),
    }
}

#[cfg(test)]
pub mod tests {
    use super::{disk, needed, places, reachable};
    use cairn_common::extent::{ChunkInfo, SlotMask};
    use cairn_common::ids::{ChunkId, MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    /// One group of 4+2 whose slot `n` is held by target `n + 1`; target 6 is dead.
    pub fn map() -> ClusterMap {
        let target = |id: u32| Target {
            id: TargetId(id),
            server: ServerId(id + 10),
            address: SocketAddr::from(([10, 0, 0, id as u8], 1)),
            state: if id == 6 { TargetState::Dead } else { TargetState::Serving },
            full: false,
            capacity_bytes: 1,
            labels: BTreeMap::new(),
        };
        let slots = (1..=6).map(|id| Slot { holder: Some(TargetId(id)), previous: None }).collect();
        let scheme = "4+2".parse().expect("a scheme");
        let pool =
            Pool { id: PoolId(1), name: String::new(), scheme, prefix_bits: 0, groups: vec![Group { slots }], labels: BTreeMap::new() };
        ClusterMap { epoch: MapEpoch(1), pools: vec![pool], targets: (1..=6).map(target).collect() }
    }

    pub fn chunk(bytes: u32, scheme: &str, slots: &[u8]) -> ChunkInfo {
        let scheme = scheme.parse().expect("a scheme");
        ChunkInfo { id: ChunkId([9; 32]), bytes, pool: PoolId(1), scheme, slots: SlotMask::from_slots(slots.iter().copied()) }
    }

    #[test]
    fn shards_are_where_the_mask_and_the_map_say() {
        let held = |chunk: &ChunkInfo| -> Vec<(u8, u32)> {
            places(&map(), chunk).iter().map(|place| (place.key.index, place.slot.holder.map_or(0, |id| id.0))).collect()
        };
        let whole = chunk(4 << 20, "4+2", &[0, 1, 2, 3, 4, 5]);
        assert_eq!((held(&whole), needed(&whole)), (vec![(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)], 4));
        let short = chunk(70_000, "4+2", &[0, 1, 2, 3, 4, 5]);
        assert_eq!(
            (held(&short), needed(&short)),
            (vec![(0, 1), (1, 2), (2, 3), (4, 5), (5, 6)], 3),
            "a shard beyond the end is not stored"
        );
        let copies = chunk(100, "1+2", &[1, 3, 5]);
        assert_eq!((held(&copies), needed(&copies)), (vec![(0, 2), (1, 4), (2, 6)], 1));
    }

    #[test]
    fn the_dead_are_not_asked() {
        assert!(reachable(&map(), TargetId(1)).is_ok());
        assert!(reachable(&map(), TargetId(6)).is_err() && reachable(&map(), TargetId(7)).is_err());
        assert_eq!(disk(&map(), Some(TargetId(2))), "disk t2 of chunkserver s12");
    }
}
