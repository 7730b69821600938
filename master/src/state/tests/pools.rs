//! Pools, policies, and content that files of several pools have.

use super::world::{World, chunk_id};
use crate::keys::{self, Record};
use crate::state::command::{Command, NewPool, PREFIX_BITS_MAX, PlacementScope};
use crate::state::compaction;
use crate::state::outcome::Outcome;
use crate::state::read;
use crate::state::record::{ChunkRecord, Detail, Inode, fetch};
use crate::store::tables::{Batch, Table};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::extent::{Extent, SlotMask};
use cairn_common::ids::{Ino, PoolId};
use cairn_common::limits::{POOLS_MAX, SLOTS_MAX};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::{FileExtents, MasterError, Mutation, RenameMode};
use std::collections::{BTreeMap, BTreeSet};

/// Three chunkservers with two solid disks each, three with two others.
fn world() -> World {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.register(name, 2, &[("media", "ssd"), ("host", name)]);
    }
    for name in ["d", "e", "f"] {
        world.register(name, 2, &[("media", "hdd"), ("host", name)]);
    }
    world.apply(Command::Place { scope: PlacementScope::Vacant });
    world
}

fn holders(world: &World, pool: PoolId) -> BTreeSet<u32> {
    let groups = read::groups(&world.tables, pool).unwrap();
    groups.iter().flat_map(|group| &group.slots).map(|slot| slot.holder.expect("every slot has a holder").0).collect()
}

fn policy(ino: Ino, pool: u32) -> Mutation {
    Mutation::SetPolicy { ino, pool: (pool > 0).then_some(PoolId(pool)) }
}

fn stored(world: &World, chunk: u8) -> ChunkRecord {
    fetch(&world.tables, Table::Chunks, &keys::chunk(chunk_id(chunk))).unwrap().expect("it is known")
}

/// A commit of a whole chunk that was put in a pool.
fn commit(world: &World, ino: Ino, chunk: u8, pool: u32, synced: bool) -> Mutation {
    let extent = Extent { file_offset: 0, bytes: 64, chunk: chunk_id(chunk), chunk_offset: 0 };
    let Mutation::Commit { files, .. } = world.commit(ino, vec![extent]) else { panic!() };
    let chunks = vec![world.new_chunk_in(chunk_id(chunk), PoolId(pool))];
    if synced { Mutation::CommitSynced { files, chunks } } else { Mutation::Commit { files, chunks } }
}

#[test]
fn a_pool_is_where_its_labels_are() {
    let mut world = world();
    assert_eq!(world.create_pool("fast", "1+2", &[("media", "ssd")]), Ok(PoolId(2)));
    assert_eq!(holders(&world, PoolId(2)), (1..=6).collect(), "it has holders at once");
    assert_eq!(holders(&world, read::DEFAULT_POOL), (1..=12).collect());
    let map = read::map(&world.tables).unwrap();
    assert_eq!(map.pool(PoolId(2)).unwrap().labels.get("media").map(String::as_str), Some("ssd"));
    world.assert_sound();
}

#[test]
fn pools_that_can_not_be_are_refused() {
    let mut world = world();
    let problem = |answer: Result<PoolId, MasterError>| match answer {
        Err(MasterError::Malformed(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let wide = problem(world.create_pool("wide", "8+2", &[("media", "ssd")]));
    assert!(wide.contains("8+2 needs 10 disks, and there are 6 on chunkservers labelled media=ssd"), "{wide}");
    assert!(problem(world.create_pool("none", "1+0", &[("media", "tape")])).contains("there are 0"));
    assert!(problem(world.create_pool("main", "1+1", &[])).contains("there is a pool main already"));
    for name in ["", "-x", "a b", "a/b", &"x".repeat(65)] {
        assert!(problem(world.create_pool(name, "1+1", &[])).contains("can't be the name"), "{name}");
    }
    assert!(problem(world.create_pool("a", "1+1", &[("", "x")])).contains("labels"));
    for number in 1..POOLS_MAX {
        world.create_pool(&format!("p{number}"), "1+1", &[]).unwrap();
    }
    assert!(problem(world.create_pool("more", "1+1", &[])).contains("at most"));
    world.assert_sound();
}

#[test]
fn all_pools_together_fit_the_map() {
    let mut world = world();
    let new = |number| NewPool {
        name: format!("p{number}"),
        scheme: Scheme::new(8, 4).unwrap(),
        labels: BTreeMap::new(),
        prefix_bits: PREFIX_BITS_MAX,
        placement_seed: number,
    };
    let slots = 12 << PREFIX_BITS_MAX;
    for number in 0..(SLOTS_MAX / slots) as u64 {
        assert!(matches!(world.apply(Command::CreatePool(new(number))), Outcome::PoolCreated { .. }));
    }
    let refused = world.apply(Command::CreatePool(new(99)));
    assert!(matches!(&refused, Outcome::Refused(MasterError::Malformed(problem)) if problem.contains("500000 slots")), "{refused:?}");
}

#[test]
fn a_creation_below_damaged_parents_has_no_policy_and_stops_nothing() {
    let mut world = world();
    world.create_pool("fast", "1+2", &[]).unwrap();
    let above = world.directory("above");
    let below = world.make(above, "below", FileKind::Directory);
    for (name, parent) in [("lost", Ino(999)), ("circle", below)] {
        let mut inode: Inode = fetch(&world.tables, Table::Inodes, &keys::inode(above)).unwrap().expect("just made");
        inode.detail = Detail::Directory { parent };
        let mut damage = Batch::new(&world.tables);
        damage.put(Table::Inodes, &keys::inode(above), inode.encode());
        let damage = damage.into_changes();
        world.tables.commit(damage);
        let file = world.make(below, name, FileKind::Regular);
        assert_eq!(world.attributes(file).pool, None);
    }
}

#[test]
fn slots_leave_a_server_that_has_lost_its_label() {
    let mut world = world();
    world.create_pool("fast", "1+1", &[("media", "ssd")]).unwrap();
    world.register("a", 2, &[("media", "hdd"), ("host", "a")]);
    world.apply(Command::Place { scope: PlacementScope::Vacant });
    assert_eq!(holders(&world, PoolId(2)), (3..=6).collect());
    // Where nobody can take them over, they stay.
    for name in ["b", "c"] {
        world.register(name, 2, &[("media", "hdd"), ("host", name)]);
    }
    world.apply(Command::Place { scope: PlacementScope::All });
    assert_eq!(holders(&world, PoolId(2)), (3..=6).collect());
    world.assert_sound();
}

#[test]
fn new_files_follow_the_nearest_policy() {
    let mut world = world();
    world.create_pool("fast", "1+2", &[]).unwrap();
    world.create_pool("thin", "2+1", &[]).unwrap();
    let above = world.directory("above");
    let below = world.make(above, "below", FileKind::Directory);
    let old = world.make(below, "old", FileKind::Regular);
    assert_eq!(world.change(policy(above, 2)).pool, Some(PoolId(2)));
    let file = |world: &mut World, parent, name| {
        let ino = world.make(parent, name, FileKind::Regular);
        world.attributes(ino).pool.map_or(0, |pool| pool.0)
    };
    assert_eq!(file(&mut world, below, "a"), 2, "though the directory was there before");
    assert_eq!(world.attributes(below).pool, None, "directories have only what they were given");
    world.change(policy(below, 3));
    assert_eq!((file(&mut world, below, "b"), file(&mut world, above, "b")), (3, 2));
    world.change(policy(below, 0));
    assert_eq!(file(&mut world, below, "c"), 2);
    assert_eq!(file(&mut world, Ino::ROOT, "d"), 0);
    world.change(policy(Ino::ROOT, 3));
    assert_eq!(file(&mut world, Ino::ROOT, "e"), 3);
    assert_eq!(world.attributes(old).pool, None, "what is there keeps its pool");
    let moved = Mutation::Rename {
        from_parent: above,
        from_name: b"below".to_vec(),
        to_parent: Ino::ROOT,
        to_name: b"below".to_vec(),
        mode: RenameMode::Replace,
    };
    world.mutate(moved).unwrap();
    assert_eq!(file(&mut world, below, "f"), 3, "it is below another directory now");
    let fifo = world.make(below, "fifo", FileKind::Fifo);
    assert_eq!(world.attributes(fifo).pool, None);
    world.assert_sound();
}

#[test]
fn policies_name_pools_and_belong_to_directories() {
    let mut world = world();
    let file = world.file("file");
    assert_eq!(world.mutate(policy(file, 1)), Err(FsError::NotDirectory.into()));
    assert_eq!(world.mutate(policy(Ino(99), 1)), Err(FsError::NotFound.into()));
    assert!(matches!(world.mutate(policy(Ino::ROOT, 9)), Err(MasterError::Malformed(_))));
}

#[test]
fn content_of_two_pools_is_in_the_one_that_protects_better() {
    let mut world = world();
    world.create_pool("thin", "2+1", &[]).unwrap();
    world.create_pool("fast", "1+2", &[]).unwrap();
    let elsewhere = |pool| Err(MasterError::PutElsewhere { chunks: vec![(chunk_id(5), PoolId(pool))] });
    let (one, two, three) = (world.file("one"), world.file("two"), world.file("three"));
    let first = commit(&world, one, 5, 2, false);
    world.mutate(first).unwrap();
    // As good and better pools take it over, but only what is stable.
    let second = commit(&world, two, 5, 3, false);
    assert_eq!(world.mutate(second), elsewhere(3));
    assert_eq!(stored(&world, 5).stored.pool, PoolId(2));
    let second = commit(&world, two, 5, 3, true);
    world.mutate(second).unwrap();
    assert_eq!((stored(&world, 5).stored.pool, stored(&world, 5).references), (PoolId(3), 2));
    let usage = read::usage(&world.tables).unwrap();
    assert_eq!((usage[&PoolId(2)].chunks, usage[&PoolId(3)].chunks, usage[&PoolId(3)].chunk_bytes), (0, 1, 64));
    // A worse one does not, stable or not; the writer is sent where it is.
    for synced in [false, true] {
        let third = commit(&world, three, 5, 2, synced);
        assert_eq!(world.mutate(third), elsewhere(3));
    }
    let third = commit(&world, three, 5, 3, true);
    world.mutate(third).unwrap();
    assert_eq!((stored(&world, 5).stored.pool, stored(&world, 5).references), (PoolId(3), 3));
    world.assert_sound();
}

#[test]
fn content_that_nobody_uses_any_more_moves_at_once() {
    let mut world = world();
    world.create_pool("thin", "2+1", &[]).unwrap();
    world.create_pool("fast", "1+2", &[]).unwrap();
    let (one, two) = (world.file("one"), world.file("two"));
    for chunk in [5, 6] {
        let written = commit(&world, one, chunk, 3, false);
        world.mutate(written).unwrap();
    }
    assert_eq!((stored(&world, 5).references, stored(&world, 5).stored.pool), (0, PoolId(3)));
    let again = commit(&world, two, 5, 2, false);
    world.mutate(again).unwrap();
    assert_eq!((stored(&world, 5).references, stored(&world, 5).stored.pool), (1, PoolId(2)), "the better pool need not be there any more");
    world.assert_sound();
}

#[test]
fn what_was_put_narrow_does_not_replace_what_is_whole() {
    let mut world = world();
    world.create_pool("fast", "1+2", &[]).unwrap();
    world.create_pool("beside", "1+2", &[]).unwrap();
    let (one, two) = (world.file("one"), world.file("two"));
    let first = commit(&world, one, 5, 2, false);
    world.mutate(first).unwrap();
    let Mutation::CommitSynced { files, mut chunks } = commit(&world, two, 5, 3, true) else { panic!() };
    chunks[0].info.scheme = Scheme::copies(1);
    chunks[0].info.slots = SlotMask::from_slots([0, 1]);
    assert_eq!(
        world.mutate(Mutation::CommitSynced { files, chunks }),
        Err(MasterError::PutElsewhere { chunks: vec![(chunk_id(5), PoolId(2))] }),
        "two of the pool's three servers were there"
    );
    world.assert_sound();
}

#[test]
fn files_of_two_pools_share_nothing() {
    let mut world = world();
    world.create_pool("fast", "1+2", &[]).unwrap();
    let directory = world.directory("fast");
    world.change(policy(directory, 2));
    let (from, to) = (world.file("from"), world.make(directory, "to", FileKind::Regular));
    world.write(from, 0, 20, 1, 0).unwrap();
    let copy = |from, to| Mutation::CopyRange { from, from_offset: 0, to, to_offset: 0, bytes: 20 };
    assert_eq!(world.mutate(copy(from, to)), Err(FsError::NotSupported.into()));
    let beside = world.make(directory, "beside", FileKind::Regular);
    world.mutate(copy(to, beside)).unwrap();
    world.change(policy(directory, 1));
    let again = world.make(directory, "again", FileKind::Regular);
    assert!(world.mutate(copy(from, again)).is_ok(), "the default pool by another name");
}

#[test]
fn a_rewrite_goes_where_the_file_belongs() {
    let mut world = world();
    world.create_pool("fast", "1+2", &[]).unwrap();
    let directory = world.directory("fast");
    world.change(policy(directory, 2));
    let (here, there) = (world.file("here"), world.make(directory, "there", FileKind::Regular));
    let extents = |ino| read::extents(&world.tables, ino, 0, u64::MAX, 10).unwrap().extents;
    let files = [there, here].map(|ino| FileExtents { ino, extents: extents(ino) }).to_vec();
    let work = compaction::work(&world.tables, files).unwrap();
    assert_eq!((work.pool, work.files.len(), work.files[0].ino), (PoolId(2), 1, there));
    // Mounts of different pools, and no policy: nobody is protected less than before.
    let (thin, whole) = (world.file("thin"), world.file("whole"));
    world.create_pool("bare", "1+0", &[]).unwrap();
    for (ino, chunk, pool) in [(thin, 7, 3), (whole, 8, 1)] {
        let written = commit(&world, ino, chunk, pool, false);
        world.mutate(written).unwrap();
    }
    let extents = |ino| read::extents(&world.tables, ino, 0, u64::MAX, 10).unwrap().extents;
    let files = [thin, whole].map(|ino| FileExtents { ino, extents: extents(ino) }).to_vec();
    let work = compaction::work(&world.tables, files).unwrap();
    assert_eq!((work.pool, work.files.len()), (read::DEFAULT_POOL, 2));
}
