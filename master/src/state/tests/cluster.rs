//! Chunkservers come, go and come back; slots follow; tokens are used once.

use super::world::World;
use crate::state::command::{Command, NewCluster, PlacementScope, Registration, TargetChange};
use crate::state::outcome::Outcome;
use crate::state::read;
use cairn_common::attributes::Owner;
use cairn_common::ids::{Incarnation, ServerId, TargetId};
use cairn_common::map::{ClusterMap, TargetState};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::{MasterError, Role, TargetAnnouncement, TokenRefusal};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

fn announcement(number: u8, id: Option<TargetId>) -> TargetAnnouncement {
    TargetAnnouncement { uuid: [number; 16], id, capacity_bytes: 1 << 40 }
}

fn register(name: &str, targets: Vec<TargetAnnouncement>) -> Command {
    Command::RegisterServer {
        name: name.to_owned(),
        address: "10.0.0.1:7000".parse().unwrap(),
        incarnation: Incarnation(1),
        labels: BTreeMap::from([("host".to_owned(), name.to_owned())]),
        targets,
    }
}

/// Registers servers of one target each and places.
pub fn add_servers(world: &mut World, numbers: Range<u8>) {
    for number in numbers {
        let outcome = world.apply(register(&format!("server {number}"), vec![announcement(number, None)]));
        assert!(matches!(outcome, Outcome::Registered(_)));
    }
    place(world, PlacementScope::Vacant);
    world.assert_sound();
}

fn place(world: &mut World, scope: PlacementScope) {
    assert!(matches!(world.apply(Command::Place { scope }), Outcome::Placed { .. }));
}

fn map(world: &World) -> ClusterMap {
    read::map(&world.tables).unwrap()
}

fn change(world: &mut World, target: u32, state: TargetState) -> Outcome {
    let change = TargetChange { target: TargetId(target), state: Some(state), full: None, capacity_bytes: None };
    world.apply(Command::ChangeTargets { changes: vec![change] })
}

/// How many slots each target holds, by group position.
fn holdings(map: &ClusterMap) -> BTreeMap<Option<TargetId>, usize> {
    let mut counts = BTreeMap::new();
    for slot in map.pools[0].groups.iter().flat_map(|group| &group.slots) {
        *counts.entry(slot.holder).or_default() += 1;
    }
    counts
}

fn write_something(world: &mut World) {
    let file = world.file("file");
    world.write(file, 0, 10, 1, 0).unwrap();
}

#[test]
fn a_cluster_is_initialised_once() {
    let mut world = World::new();
    let again = NewCluster {
        cluster: [8; 16],
        pool_name: "x".to_owned(),
        scheme: Scheme::copies(1),
        prefix_bits: 1,
        root_owner: Owner { uid: 1, gid: 1 },
        placement_seed: 0,
    };
    assert!(matches!(world.apply(Command::Initialise(again)), Outcome::Refused(MasterError::Malformed(_))));
    assert_eq!(read::cluster(&world.tables).unwrap().unwrap().uuid, [7; 16]);
    let map = map(&world);
    assert_eq!((map.pools.len(), map.pools[0].groups.len(), map.epoch), (1, 8, world.epoch()));
    assert_eq!(holdings(&map), BTreeMap::from([(None, 48)]));
}

#[test]
fn servers_fill_the_slots_and_serve() {
    let mut world = World::new();
    add_servers(&mut world, 0..3);
    assert_eq!(holdings(&map(&world))[&None], 24);
    add_servers(&mut world, 3..6);
    let full = map(&world);
    assert!(full.targets.iter().all(|target| target.state == TargetState::Serving && target.labels.contains_key("host")));
    assert_eq!(holdings(&full).values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([8]));
    let before = world.epoch();
    place(&mut world, PlacementScope::All);
    assert_eq!(world.epoch(), before, "nothing to do must not make a new map");
}

#[test]
fn the_same_server_and_targets_keep_their_ids() {
    let mut world = World::new();
    let both = vec![announcement(1, None), announcement(2, None)];
    let first = world.apply(register("a", both.clone()));
    let ids = Registration { server: ServerId(1), targets: vec![TargetId(1), TargetId(2)] };
    assert_eq!(first, Outcome::Registered(ids));
    let epoch = world.epoch();
    assert_eq!(world.apply(register("a", both)), first);
    assert_eq!(world.epoch(), epoch, "the map is the same");
    // A disk moves to another machine.
    let moved = world.apply(register("b", vec![announcement(2, Some(TargetId(2))), announcement(3, None)]));
    assert_eq!(moved, Outcome::Registered(Registration { server: ServerId(2), targets: vec![TargetId(2), TargetId(3)] }));
    assert_eq!(map(&world).target(TargetId(2)).unwrap().server, ServerId(2));
    for wrong in [
        vec![announcement(1, Some(TargetId(3)))],
        vec![announcement(9, Some(TargetId(1)))],
        vec![announcement(9, Some(TargetId(99)))],
        vec![announcement(9, None), announcement(9, None)],
    ] {
        assert!(matches!(world.apply(register("c", wrong)), Outcome::Refused(MasterError::Malformed(_))));
    }
    world.assert_sound();
}

#[test]
fn the_slots_of_the_dead_go_to_others_and_nothing_else_moves() {
    let mut world = World::new();
    add_servers(&mut world, 0..7);
    write_something(&mut world);
    let before = map(&world);
    change(&mut world, 1, TargetState::Suspect);
    place(&mut world, PlacementScope::Vacant);
    assert_eq!(map(&world).pools, before.pools, "a suspect keeps its slots");
    change(&mut world, 1, TargetState::Dead);
    place(&mut world, PlacementScope::Vacant);
    let after = map(&world);
    let pairs = before.pools[0].groups.iter().zip(&after.pools[0].groups).flat_map(|(old, new)| old.slots.iter().zip(&new.slots));
    for (old, new) in pairs {
        if old.holder == Some(TargetId(1)) {
            assert!(new.holder.is_some() && new.holder != old.holder);
            assert_eq!(new.previous, Some(TargetId(1)));
        } else {
            assert_eq!(old, new);
        }
    }
    // It comes back: serving, without slots until an operator evens out.
    world.apply(register("server 0", vec![announcement(0, Some(TargetId(1)))]));
    assert_eq!(map(&world).target(TargetId(1)).unwrap().state, TargetState::Serving);
    place(&mut world, PlacementScope::Vacant);
    assert!(!holdings(&map(&world)).contains_key(&Some(TargetId(1))));
    place(&mut world, PlacementScope::All);
    assert!(holdings(&map(&world)).contains_key(&Some(TargetId(1))));
    world.assert_sound();
}

#[test]
fn a_settled_slot_forgets_its_previous_holder() {
    let mut world = World::new();
    add_servers(&mut world, 0..7);
    write_something(&mut world);
    change(&mut world, 1, TargetState::Draining);
    place(&mut world, PlacementScope::Vacant);
    let moved = |map: &ClusterMap| -> Vec<(usize, usize)> {
        let groups = map.pools[0].groups.iter().enumerate();
        let slots = groups.flat_map(|(group, slots)| slots.slots.iter().enumerate().map(move |(at, slot)| (group, at, slot.previous)));
        slots.filter(|(_, _, previous)| previous.is_some()).map(|(group, at, _)| (group, at)).collect()
    };
    let (group, slot) = moved(&map(&world))[0];
    let epoch = world.epoch();
    let settle = Command::SettleSlots { slots: vec![(read::DEFAULT_POOL, group as u32, slot as u8), (read::DEFAULT_POOL, 99, 0)] };
    assert_eq!(world.apply(settle.clone()), Outcome::Placed { epoch: cairn_common::ids::MapEpoch(epoch.0 + 1) });
    assert!(!moved(&map(&world)).contains(&(group, slot)));
    assert_eq!(world.apply(settle), Outcome::Placed { epoch: world.epoch() });
    assert!(matches!(change(&mut world, 1, TargetState::Removed), Outcome::Placed { .. }));
    for state in [TargetState::Serving, TargetState::Draining, TargetState::Joining] {
        assert!(matches!(change(&mut world, 1, state), Outcome::Refused(MasterError::Malformed(_))));
    }
    assert!(matches!(change(&mut world, 99, TargetState::Dead), Outcome::Refused(MasterError::Malformed(_))));
}

#[test]
fn a_slot_is_not_taken_from_its_only_data() {
    let mut world = World::new();
    add_servers(&mut world, 0..8);
    write_something(&mut world);
    let first = map(&world).pools[0].groups[0].slots[0].holder.unwrap();
    change(&mut world, first.0, TargetState::Dead);
    place(&mut world, PlacementScope::Vacant);
    let second = map(&world).pools[0].groups[0].slots[0].holder.unwrap();
    assert_ne!(second, first);
    // The heir dies before it has everything: the first still is the one who had.
    change(&mut world, second.0, TargetState::Dead);
    place(&mut world, PlacementScope::Vacant);
    let slot = map(&world).pools[0].groups[0].slots[0];
    assert!(slot.holder != Some(first) && slot.holder != Some(second));
    assert_eq!(slot.previous, Some(first));
    // Six are left for six slots. The next one that dies keeps its slots, for nobody could take them.
    let before = map(&world);
    let third = slot.holder.unwrap();
    change(&mut world, third.0, TargetState::Dead);
    place(&mut world, PlacementScope::Vacant);
    assert_eq!(map(&world).pools, before.pools);
    change(&mut world, third.0, TargetState::Removed);
    place(&mut world, PlacementScope::Vacant);
    let slot = map(&world).pools[0].groups[0].slots[0];
    assert_eq!((slot.holder, slot.previous), (None, Some(first)), "who was removed never comes back");
    world.assert_sound();
}

#[test]
fn a_slot_that_is_taken_back_names_who_held_it_meanwhile() {
    for end in [TargetState::Draining, TargetState::Dead] {
        let mut world = World::new();
        add_servers(&mut world, 0..7);
        write_something(&mut world);
        let slot = |world: &World| map(world).pools[0].groups[0].slots[0];
        let first = slot(&world).holder.unwrap();
        change(&mut world, first.0, TargetState::Draining);
        place(&mut world, PlacementScope::Vacant);
        let between = slot(&world).holder.unwrap();
        assert_eq!(slot(&world).previous, Some(first));
        // What is written now has its shard on the one in between alone; then that one has to go before it is complete.
        change(&mut world, first.0, TargetState::Serving);
        change(&mut world, between.0, end);
        place(&mut world, PlacementScope::Vacant);
        assert_eq!((slot(&world).holder, slot(&world).previous), (Some(first), Some(between)), "{end:?}");
        world.assert_sound();
    }
}

#[test]
fn a_pool_without_chunks_is_placed_anew() {
    let mut world = World::new();
    add_servers(&mut world, 0..6);
    add_servers(&mut world, 6..8);
    let spread = holdings(&map(&world));
    assert_eq!(spread.len(), 8);
    assert!(spread.values().all(|count| (5..=7).contains(count)), "{spread:?}");
}

#[test]
fn a_token_lets_one_node_join_once() {
    let mut world = World::new();
    let hour = world.at.plus(Duration::from_secs(3600));
    let token = |secret: u8, role| Command::CreateToken { secret: [secret; 32], role, expires: hour };
    let join = |secret: u8, role, key: u8| Command::UseToken { secret: [secret; 32], role, public_key: [key; 32] };
    let refused = |refusal| Outcome::Refused(MasterError::TokenRefused(refusal));
    assert_eq!(world.apply(token(1, Role::Client)), Outcome::Done);
    assert_eq!(world.apply(token(2, Role::Chunkserver)), Outcome::Done);
    assert_eq!(world.apply(token(3, Role::Client)), Outcome::Done);
    assert!(matches!(world.apply(token(1, Role::Client)), Outcome::Refused(MasterError::Malformed(_))));
    assert_eq!(world.apply(join(9, Role::Client, 1)), refused(TokenRefusal::Unknown));
    assert_eq!(world.apply(join(1, Role::Chunkserver, 1)), refused(TokenRefusal::WrongRole));
    assert_eq!(world.apply(join(1, Role::Client, 1)), Outcome::Joined { number: 1 });
    assert_eq!(world.apply(join(1, Role::Client, 1)), Outcome::Joined { number: 1 }, "the answer may have been lost");
    assert_eq!(world.apply(join(1, Role::Client, 2)), refused(TokenRefusal::Used));
    assert_eq!(world.apply(join(2, Role::Chunkserver, 2)), Outcome::Joined { number: 2 });
    world.at = hour;
    assert_eq!(world.apply(join(3, Role::Client, 3)), refused(TokenRefusal::Expired));
    // Long after, making another token sweeps the old ones away.
    world.at = hour.plus(Duration::from_secs(2 * 24 * 3600));
    assert_eq!(world.apply(token(4, Role::Client)), Outcome::Done);
    assert_eq!(world.apply(join(3, Role::Client, 3)), refused(TokenRefusal::Unknown));
}
