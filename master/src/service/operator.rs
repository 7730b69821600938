//! What drain, undrain and remove come to. Pure.
//!
//! | wanted | a target that is | becomes |
//! |---|---|---|
//! | drain | joining, serving, suspect, dead | draining |
//! | undrain | draining | serving |
//! | remove | draining or dead, named by no slot | removed |
//! | remove, insisted | draining or dead | removed, and what only it had is given up |

use super::placing::spread_note;
use crate::state::command::TargetChange;
use crate::state::read::keeps_slots;
use cairn_common::ids::{ServerId, TargetId};
use cairn_common::map::{ClusterMap, Pool, Target, TargetState};
use cairn_common::wire::master::{MasterError, ServerChange};

/// The changes of a server's targets, or a sentence that says why not.
pub fn change_server(map: &ClusterMap, server: ServerId, change: ServerChange, insist: bool) -> Result<Vec<TargetChange>, MasterError> {
    let own: Vec<&Target> = map.targets.iter().filter(|target| target.server == server && target.state != TargetState::Removed).collect();
    if own.is_empty() {
        let problem = format!("there is no chunkserver {server}, or it was removed: `cairn chunkserver list` shows them all");
        return Err(MasterError::Malformed(problem));
    }
    let state = match change {
        ServerChange::Drain => {
            check_drain(map, server, insist)?;
            TargetState::Draining
        }
        ServerChange::Undrain => TargetState::Serving,
        ServerChange::Remove => {
            check_remove(map, server, &own, insist)?;
            TargetState::Removed
        }
    };
    let is_meant = |target: &&&Target| match change {
        ServerChange::Drain | ServerChange::Remove => true,
        ServerChange::Undrain => target.state == TargetState::Draining,
    };
    let change = |target: &&Target| TargetChange { target: target.id, state: Some(state), full: None, capacity_bytes: None };
    Ok(own.iter().filter(is_meant).map(change).collect())
}

/// Whether a new pool can be spread well, or a sentence that says what is wrong with it. `pool` needs no groups yet.
pub fn check_new_pool(map: &ClusterMap, pool: &Pool, insist: bool) -> Result<(), MasterError> {
    let targets: Vec<&Target> = map.targets.iter().filter(|target| keeps_slots(target.state)).collect();
    match spread_note(pool, &targets) {
        Some(note) if !insist => Err(MasterError::Unwise(note)),
        _ => Ok(()),
    }
}

/// Without insisting, a drain must not make anything worse than it is.
fn check_drain(map: &ClusterMap, server: ServerId, insist: bool) -> Result<(), MasterError> {
    let before: Vec<&Target> = map.targets.iter().filter(|target| keeps_slots(target.state)).collect();
    let after: Vec<&Target> = before.iter().copied().filter(|target| target.server != server).collect();
    let worse =
        map.pools.iter().find_map(|pool| spread_note(pool, &after).filter(|note| spread_note(pool, &before).as_ref() != Some(note)));
    match worse {
        Some(note) if !insist => Err(MasterError::Unwise(format!("without {server}: {note}"))),
        _ => Ok(()),
    }
}

fn check_remove(map: &ClusterMap, server: ServerId, own: &[&Target], insist: bool) -> Result<(), MasterError> {
    if let Some(target) = own.iter().find(|target| !matches!(target.state, TargetState::Draining | TargetState::Dead)) {
        let problem = format!("{server} still takes part ({} is {:?}): drain it first", target.id, target.state);
        return Err(MasterError::Malformed(problem));
    }
    let named: usize = own.iter().map(|target| slots_naming(map, target.id)).sum();
    if named > 0 && !insist {
        let problem = format!(
            "{server} may still have the only copy of shards of {named} slots: wait until it is drained (`cairn chunkserver list`), or give \
             them up"
        );
        return Err(MasterError::Unwise(problem));
    }
    Ok(())
}

/// How many slots name the target as a holder, present or previous.
fn slots_naming(map: &ClusterMap, id: TargetId) -> usize {
    let slots = map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
    slots.filter(|slot| slot.holder == Some(id) || slot.previous == Some(id)).count()
}

#[cfg(test)]
mod tests {
    use super::change_server;
    use cairn_common::ids::{MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
    use cairn_common::scheme::Scheme;
    use cairn_common::wire::master::{MasterError, ServerChange};
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    /// Targets 1 to 4 in these states on a server each; a group of three slots on the first three, the second slot on its way.
    fn map(states: [TargetState; 4]) -> ClusterMap {
        let targets = states.into_iter().zip(1..).map(|(state, id)| Target {
            id: TargetId(id),
            server: ServerId(id),
            address: SocketAddr::from(([10, 0, 0, 1], 1)),
            state,
            full: false,
            capacity_bytes: 1,
            labels: BTreeMap::new(),
        });
        let slot = |holder, previous: Option<u32>| Slot { holder: Some(TargetId(holder)), previous: previous.map(TargetId) };
        let group = Group { slots: vec![slot(1, None), slot(2, Some(4)), slot(3, None)] };
        let scheme = Scheme::new(2, 1).unwrap();
        let pool = Pool { id: PoolId(1), name: "default".to_owned(), scheme, prefix_bits: 0, groups: vec![group], labels: BTreeMap::new() };
        ClusterMap { epoch: MapEpoch(1), pools: vec![pool], targets: targets.collect() }
    }

    use ServerChange::{Drain, Remove, Undrain};
    use TargetState::{Dead, Draining, Removed, Serving};

    fn becomes(states: [TargetState; 4], server: u32, change: ServerChange, insist: bool) -> String {
        match change_server(&map(states), ServerId(server), change, insist) {
            Ok(changes) => changes.iter().map(|change| format!("{:?}", change.state.unwrap())).collect::<Vec<_>>().join(","),
            Err(MasterError::Unwise(_)) => "unwise".to_owned(),
            Err(MasterError::Malformed(_)) => "no".to_owned(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_server_leaves_in_order() {
        let all = [Serving; 4];
        assert_eq!(becomes(all, 1, Drain, false), "Draining", "three are left for three slots");
        assert_eq!(becomes([Serving, Serving, Serving, Dead], 1, Drain, false), "unwise");
        assert_eq!(becomes([Serving, Serving, Serving, Dead], 1, Drain, true), "Draining");
        assert_eq!(becomes([Draining, Serving, Serving, Serving], 1, Undrain, false), "Serving");
        assert_eq!(becomes(all, 1, Undrain, false), "", "it was not drained");
        assert_eq!(becomes(all, 9, Drain, false), "no");
        assert_eq!(becomes(all, 1, Remove, true), "no", "it takes part");
        assert_eq!(becomes([Serving, Serving, Serving, Removed], 4, Drain, true), "no");
    }

    #[test]
    fn nothing_is_given_up_without_insisting() {
        let leaving = |state| [Serving, Serving, Serving, state];
        for state in [Draining, Dead] {
            assert_eq!(becomes(leaving(state), 4, Remove, false), "unwise", "a slot names it as previous");
            assert_eq!(becomes(leaving(state), 4, Remove, true), "Removed");
        }
        let mut settled = map(leaving(Draining));
        settled.pools[0].groups[0].slots[1].previous = None;
        assert!(change_server(&settled, ServerId(4), Remove, false).is_ok());
    }
}
