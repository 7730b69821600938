//! The way of a dead chunk, and commits that meet it on the way.

use super::world::{World, chunk_id};
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::read::{self, Deletion};
use cairn_common::extent::Extent;
use cairn_common::ids::{Ino, TargetId};
use cairn_common::limits::DELETION_GRACE;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, MasterError, Mutation};
use std::time::Duration;

fn remove(name: &str) -> Mutation {
    Mutation::Unlink { parent: Ino::ROOT, name: name.into() }
}

/// A world in which chunk 1 was written to a file that is gone.
fn with_dead_chunk() -> World {
    let mut world = World::new();
    let file = world.file("file");
    world.write(file, 0, 10, 1, 0).unwrap();
    world.mutate(remove("file")).unwrap();
    world
}

fn wait(world: &mut World, duration: Duration) {
    world.at = world.at.plus(duration);
}

fn forget_one(world: &mut World) {
    let chunks = read::forgettable_chunks(&world.tables, world.at, 10).unwrap();
    assert_eq!(chunks, [chunk_id(1)]);
    assert_eq!(world.apply(Command::ForgetChunks { chunks }), Outcome::Done);
}

#[test]
fn a_chunk_is_deleted_after_the_grace_period_and_not_before() {
    let mut world = with_dead_chunk();
    let early = DELETION_GRACE - Duration::from_secs(1);
    wait(&mut world, early);
    assert!(read::forgettable_chunks(&world.tables, world.at, 10).unwrap().is_empty());
    world.apply(Command::ForgetChunks { chunks: vec![chunk_id(1)] });
    assert!(read::chunk(&world.tables, chunk_id(1)).unwrap().is_some());
    wait(&mut world, Duration::from_secs(2));
    let stored = read::chunk(&world.tables, chunk_id(1)).unwrap().unwrap();
    forget_one(&mut world);
    assert_eq!(read::chunk(&world.tables, chunk_id(1)).unwrap(), None);
    assert_eq!(read::usage(&world.tables).unwrap()[&read::DEFAULT_POOL].chunks, 0);
    let put_before = Timestamp::from_nanos(world.at.nanos() - DELETION_GRACE.as_nanos() as i64 / 2);
    assert_eq!(read::deletions(&world.tables, 10).unwrap(), [Deletion { put_before, chunk: stored }]);
    world.apply(Command::DeletionsDone { deletions: vec![(put_before, chunk_id(1))] });
    assert!(read::deletions(&world.tables, 10).unwrap().is_empty());
    world.assert_sound();
}

#[test]
fn a_commit_brings_a_dead_chunk_back_as_it_is_stored() {
    let mut world = with_dead_chunk();
    wait(&mut world, DELETION_GRACE * 2);
    let stored = read::chunk(&world.tables, chunk_id(1)).unwrap();
    let file = world.file("other");
    let Mutation::Commit { files, mut chunks } = world.commit(file, vec![extent(10, 1)]) else { panic!() };
    chunks[0].info.scheme = Scheme::copies(1);
    chunks[0].info.slots = cairn_common::extent::SlotMask::from_slots([3, 4]);
    world.mutate(Mutation::Commit { files, chunks }).unwrap();
    assert_eq!(read::chunk(&world.tables, chunk_id(1)).unwrap(), stored);
    assert!(read::forgettable_chunks(&world.tables, world.at, 10).unwrap().is_empty());
    world.assert_sound();
    // Forgetting what has come back does nothing.
    world.apply(Command::ForgetChunks { chunks: vec![chunk_id(1)] });
    assert_eq!(read::chunk(&world.tables, chunk_id(1)).unwrap(), stored);
}

fn extent(bytes: u32, chunk: u8) -> Extent {
    Extent { file_offset: 0, bytes, chunk: chunk_id(chunk), chunk_offset: 0 }
}

#[test]
fn a_forgotten_chunk_must_be_put_again() {
    let mut world = with_dead_chunk();
    wait(&mut world, DELETION_GRACE * 2);
    forget_one(&mut world);
    let file = world.file("other");
    let files = vec![FileCommit { ino: file, extents: vec![extent(10, 1)], size_at_least: 0, mtime: world.at }];
    let bare = Mutation::Commit { files, chunks: Vec::new() };
    assert_eq!(world.mutate(bare), Err(MasterError::TicketExpired));
    world.write(file, 0, 10, 1, 0).unwrap();
    // The deletion in the queue is of the old shards: it spares the new ones by their ticket.
    assert!(read::deletions(&world.tables, 10).unwrap()[0].put_before < world.at);
    world.assert_sound();
}

#[test]
fn an_old_ticket_is_refused_unless_the_chunk_is_in_use() {
    let mut world = World::new();
    let file = world.file("file");
    let old = world.commit(file, vec![extent(10, 1)]);
    wait(&mut world, DELETION_GRACE / 2 + Duration::from_secs(1));
    assert_eq!(world.mutate(old.clone()), Err(MasterError::TicketExpired));
    world.write(file, 100, 10, 1, 0).unwrap();
    world.mutate(old).unwrap();
    world.assert_sound();
}

#[test]
fn chunks_of_a_file_that_is_gone_are_collected() {
    let mut world = World::new();
    let file = world.file("file");
    let commit = world.commit(file, vec![extent(10, 1)]);
    world.mutate(remove("file")).unwrap();
    world.mutate(commit).unwrap();
    wait(&mut world, DELETION_GRACE * 2);
    forget_one(&mut world);
    world.assert_sound();
}

#[test]
fn a_chunk_put_before_its_group_moved_is_refused() {
    let mut world = World::new();
    let file = world.file("file");
    let old = world.commit(file, vec![extent(10, 1)]);
    super::cluster::add_servers(&mut world, 0..6);
    let now = world.epoch();
    assert_eq!(world.mutate(old.clone()), Err(MasterError::MapMoved { now }));
    world.write(file, 0, 10, 1, 0).unwrap();
    world.mutate(old).unwrap();
    // A change of the map that moves nobody is no reason to refuse.
    let newer = world.commit(file, vec![extent(10, 2)]);
    let full = crate::state::command::TargetChange { target: TargetId(1), state: None, full: Some(true), capacity_bytes: None };
    world.apply(Command::ChangeTargets { changes: vec![full] });
    assert!(world.epoch() > now);
    world.mutate(newer).unwrap();
    world.assert_sound();
}
