//! When slots get other holders. Pure: of the map alone.
//!
//! | what the map shows | what follows |
//! |---|---|
//! | a target that holds no slot of a pool that admits it has joined, or is back | all slots are placed, which moves the fewest |
//! | a slot is vacant, or its holder is dead, draining or removed, or has lost a label that the pool wants | such slots alone are placed |
//! | a target holds far less than its share, and no slot of the pool is on its way | all slots are placed |
//! | a holder is dead, and the master has just started | wait: nobody may have had the time to report |
//! | half or more of the servers that hold slots are dead | wait: rather the network or the power has failed than they |
//! | none of it | nothing |
//!
//! Slots on their way stay out of balancing, so a server that joins while they are may get too little at first. Placing all where
//! failure domains allow no better changes nothing.
//!
//! A server counts as dead when all of its targets that hold slots are: a lost disk of a living server is no reason to wait.

use crate::state::command::PlacementScope;
use crate::state::read::{domains, keeps_slots};
use cairn_common::ids::{PoolId, ServerId, TargetId};
use cairn_common::map::{ClusterMap, Pool, Target, TargetState, labels_text};
use std::collections::{BTreeMap, BTreeSet};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    Place(PlacementScope),
    /// Slots should move, but not now: why.
    Wait(String),
}

/// What the map asks for. `is_empty` tells pools without chunks, where nothing is lost by moving; `is_new` whether the master
/// has been there for less than it takes to find out who is dead.
pub fn decide(map: &ClusterMap, is_empty: impl Fn(PoolId) -> bool, is_new: bool) -> Decision {
    if let Some(reason) = reason_to_wait(map, &is_empty, is_new) {
        return Decision::Wait(reason);
    }
    if map.pools.iter().any(|pool| has_newcomer(map, pool)) {
        return Decision::Place(PlacementScope::All);
    }
    if map.pools.iter().any(|pool| has_bad_slot(map, pool)) {
        return Decision::Place(PlacementScope::Vacant);
    }
    match map.pools.iter().any(|pool| is_settled(pool) && is_uneven(map, pool)) {
        true => Decision::Place(PlacementScope::All),
        false => Decision::Nothing,
    }
}

fn holders(pool: &Pool) -> BTreeSet<TargetId> {
    pool.groups.iter().flat_map(|group| &group.slots).filter_map(|slot| slot.holder).collect()
}

/// Whether a slot of the pool is vacant, or its holder should not keep it.
fn has_bad_slot(map: &ClusterMap, pool: &Pool) -> bool {
    let is_good = |holder: TargetId| map.target(holder).is_some_and(|target| keeps_slots(target.state) && pool.admits(target));
    pool.groups.iter().flat_map(|group| &group.slots).any(|slot| !slot.holder.is_some_and(is_good))
}

/// Whether a target that could hold slots of the pool holds none.
fn has_newcomer(map: &ClusterMap, pool: &Pool) -> bool {
    let holders = holders(pool);
    let could = |target: &&Target| matches!(target.state, TargetState::Joining | TargetState::Serving);
    map.targets.iter().filter(could).any(|target| pool.admits(target) && !holders.contains(&target.id))
}

fn is_settled(pool: &Pool) -> bool {
    pool.groups.iter().flat_map(|group| &group.slots).all(|slot| slot.previous.is_none())
}

/// Whether a target holds less than its share by weight, by more than a tenth and two slots.
fn is_uneven(map: &ClusterMap, pool: &Pool) -> bool {
    let mut held: BTreeMap<TargetId, u128> = BTreeMap::new();
    pool.groups.iter().flat_map(|group| &group.slots).filter_map(|slot| slot.holder).for_each(|id| *held.entry(id).or_default() += 1);
    let keepers = || map.targets.iter().filter(|target| keeps_slots(target.state) && pool.admits(target));
    let weight = |target: &Target| u128::from(target.capacity_bytes.max(1));
    let all = keepers().map(weight).sum::<u128>().max(1);
    let slots: u128 = held.values().sum();
    keepers().any(|target| {
        let share = (slots * weight(target) / all).min(pool.groups.len() as u128);
        held.get(&target.id).copied().unwrap_or(0) + share / 10 + 2 < share
    })
}

fn reason_to_wait(map: &ClusterMap, is_empty: impl Fn(PoolId) -> bool, is_new: bool) -> Option<String> {
    let used = map.pools.iter().filter(|pool| !is_empty(pool.id));
    let holders: BTreeSet<TargetId> = used.flat_map(holders).collect();
    let mut servers: BTreeMap<ServerId, bool> = BTreeMap::new();
    for target in holders.iter().filter_map(|id| map.target(*id)) {
        let is_dead = servers.entry(target.server).or_insert(true);
        *is_dead &= target.state == TargetState::Dead;
    }
    let dead = servers.values().filter(|is_dead| **is_dead).count();
    if dead > 0 && is_new {
        return Some("the master has just started: servers that are away get their time to report".to_owned());
    }
    (dead > 0 && 2 * dead >= servers.len()).then(|| {
        format!(
            "{dead} of {} chunkservers that hold data are dead at once: nothing is rebuilt until more of them are back, for rather the \
             network or the power has failed. Bring them back, or give up those that are lost: cairn chunkserver remove ID --yes",
            servers.len()
        )
    })
}

/// What an operator should know of how far the slots of each pool can be spread.
pub fn spread_notes(map: &ClusterMap) -> Vec<String> {
    let targets: Vec<&Target> = map.targets.iter().filter(|target| keeps_slots(target.state)).collect();
    map.pools.iter().filter_map(|pool| spread_note(pool, &targets)).collect()
}

/// A sentence if the scheme of a pool can't be spread well enough over `targets`.
pub fn spread_note(pool: &Pool, targets: &[&Target]) -> Option<String> {
    let (slots, parity) = (usize::from(pool.scheme.shards()), usize::from(pool.scheme.parity_shards()));
    let (name, scheme) = (&pool.name, pool.scheme);
    let targets: Vec<&Target> = targets.iter().copied().filter(|target| pool.admits(target)).collect();
    let labelled = if pool.labels.is_empty() { String::new() } else { format!(" on chunkservers labelled {}", labels_text(&pool.labels)) };
    if targets.len() < slots {
        return Some(format!(
            "pool {name}: {scheme} needs {slots} disks{labelled}, and there are {}: chunks are written with narrower schemes",
            targets.len()
        ));
    }
    let mut disks: BTreeMap<[String; 2], usize> = BTreeMap::new();
    for target in targets {
        *disks.entry(domains(target.server, &target.labels)).or_default() += 1;
    }
    // As placement does: the fewest slots per host with which all slots find a place.
    let room = |limit: usize| disks.values().map(|count| limit.min(*count)).sum::<usize>();
    let share = (1..=slots).find(|limit| room(*limit) >= slots).unwrap_or(slots);
    (share > parity && parity > 0).then(|| {
        format!(
            "pool {name}: {scheme} on {} hosts{labelled} puts {share} shards of a chunk on one host: data on it can't be read while that host is \
             away, and is lost with it. Add hosts, or label servers that are apart with different `host=`",
            disks.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Decision, decide, spread_notes};
    use crate::state::command::PlacementScope;
    use cairn_common::ids::{MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
    use cairn_common::scheme::Scheme;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    /// A group of three slots, held by the targets 1, 2 and 3; the letters are the states of all targets, of which each server
    /// has `disks`.
    fn map(states: &str, disks: u32) -> ClusterMap {
        let state = |letter| match letter {
            'j' => TargetState::Joining,
            's' => TargetState::Serving,
            '?' => TargetState::Suspect,
            'd' => TargetState::Dead,
            'r' => TargetState::Draining,
            _ => TargetState::Removed,
        };
        let targets = states.chars().zip(1..).map(|(letter, id)| Target {
            id: TargetId(id),
            server: ServerId(id.div_ceil(disks)),
            address: SocketAddr::from(([10, 0, 0, 1], 1)),
            state: state(letter),
            full: false,
            capacity_bytes: 1,
            labels: BTreeMap::new(),
        });
        let slots = (1..=3).map(|holder| Slot { holder: Some(TargetId(holder)), previous: None }).collect();
        let scheme = Scheme::new(2, 1).unwrap();
        let pool = Pool {
            id: PoolId(1),
            name: "default".to_owned(),
            scheme,
            prefix_bits: 0,
            groups: vec![Group { slots }],
            labels: BTreeMap::new(),
        };
        ClusterMap { epoch: MapEpoch(1), pools: vec![pool], targets: targets.collect() }
    }

    fn decision(states: &str) -> String {
        match decide(&map(states, 1), |_| false, false) {
            Decision::Nothing => "nothing".to_owned(),
            Decision::Place(scope) => format!("{scope:?}"),
            Decision::Wait(_) => "wait".to_owned(),
        }
    }

    #[test]
    fn slots_move_when_they_should() {
        let table = [
            ("sss", "nothing"),
            ("s?s", "nothing"),
            ("sds", "Vacant"),
            ("srs", "Vacant"),
            ("sxs", "Vacant"),
            ("ssss", "All"),
            ("sssj", "All"),
            ("sss?", "nothing"),
            ("sssd", "nothing"),
            ("sdd", "wait"),
            ("ddd", "wait"),
            ("sddj", "wait"),
            ("srr", "Vacant"),
        ];
        for (states, expected) in table {
            assert_eq!(decision(states), expected, "{states}");
        }
    }

    /// 64 groups of the targets 1, 2 and 3, and a target 4 that was given a slot in `taken` of them, from each of the others alike.
    fn joined(taken: usize) -> ClusterMap {
        let mut map = map("ssss", 1);
        map.pools[0].groups = vec![map.pools[0].groups[0].clone(); 64];
        for (number, group) in map.pools[0].groups.iter_mut().take(taken).enumerate() {
            group.slots[number % 3].holder = Some(TargetId(4));
        }
        map
    }

    #[test]
    fn a_target_that_got_too_little_gets_the_rest_once_all_is_settled() {
        let decide = |map: &ClusterMap| decide(map, |_| false, false);
        let mut short = joined(20);
        assert_eq!(decide(&short), Decision::Place(PlacementScope::All));
        short.pools[0].groups[0].slots[0].previous = Some(TargetId(1));
        assert_eq!(decide(&short), Decision::Nothing, "a slot is on its way");
        assert_eq!(decide(&joined(42)), Decision::Nothing, "within a tenth and two slots of its 48");
    }

    #[test]
    fn a_new_master_waits_for_those_it_has_not_heard() {
        assert!(matches!(decide(&map("sds", 1), |_| false, true), Decision::Wait(_)));
        assert_eq!(decide(&map("sss", 1), |_| false, true), Decision::Nothing);
        assert_eq!(decide(&map("sds", 1), |_| true, true), Decision::Place(PlacementScope::Vacant), "there is nothing to lose");
    }

    #[test]
    fn lost_disks_of_living_servers_are_no_reason_to_wait() {
        assert_eq!(decide(&map("sds", 3), |_| false, false), Decision::Place(PlacementScope::Vacant));
        assert_eq!(decide(&map("dds", 3), |_| false, false), Decision::Place(PlacementScope::Vacant));
    }

    #[test]
    fn a_scheme_that_can_not_be_spread_is_told() {
        assert!(spread_notes(&map("sss", 1)).is_empty());
        assert!(spread_notes(&map("ss", 1))[0].contains("needs 3 disks"));
        assert!(spread_notes(&map("ssss", 2))[0].contains("2 shards of a chunk on one host"));
        assert!(spread_notes(&map("sssd", 1)).is_empty());
    }
}
