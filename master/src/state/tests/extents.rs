//! Commits that make no sense, extents that join, and files too large for one command.

use super::world::{ALICE, CHUNK_BYTES, World, chunk_id, set_size};
use crate::state::command::Command;
use crate::state::edit::STEPS_PER_COMMAND;
use crate::state::outcome::Outcome;
use crate::state::read;
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::extent::{Extent, NewChunk, SlotMask};
use cairn_common::ids::{Ino, PoolId};
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::{FileCommit, MasterError, Mutation, MutationReply};

fn extent(file_offset: u64, bytes: u32, chunk: u8, chunk_offset: u32) -> Extent {
    Extent { file_offset, bytes, chunk: chunk_id(chunk), chunk_offset }
}

fn extents_of(world: &World, ino: Ino) -> Vec<Extent> {
    read::extents(&world.tables, ino, 0, u64::MAX, 1000).unwrap().extents
}

/// A file of `count` extents of one byte with one byte of hole before each.
fn scatter(world: &mut World, name: &str, count: u64) -> Ino {
    let ino = world.file(name);
    let extents = (0..count).map(|at| extent(at * 2 + 1, 1, 1, 0)).collect();
    let commit = world.commit(ino, extents);
    world.mutate(commit).unwrap();
    ino
}

#[test]
fn each_senseless_commit_is_refused() {
    let mut world = World::new();
    let ino = world.file("file");
    let good = world.new_chunk(chunk_id(1));
    let refused = |world: &mut World, extents: Vec<Extent>, chunks: Vec<NewChunk>, size_at_least: u64| {
        let files = vec![FileCommit { ino, extents, size_at_least, mtime: world.at }];
        let answer = world.mutate(Mutation::Commit { files, chunks: chunks.clone() });
        assert!(matches!(answer, Err(MasterError::Malformed(_))), "{chunks:?} -> {answer:?}");
    };
    for bad in [
        vec![extent(0, 0, 1, 0)],
        vec![extent(0, 10, 1, CHUNK_BYTES - 9)],
        vec![extent(0, u32::MAX, 1, u32::MAX)],
        vec![extent(0, 10, 1, 0), extent(9, 10, 1, 0)],
        vec![extent(FILE_BYTES_MAX, 1, 1, 0)],
        vec![extent(u64::MAX, 1, 1, 0)],
    ] {
        refused(&mut world, bad, vec![good], 0);
    }
    let fine = vec![extent(0, 10, 1, 0)];
    refused(&mut world, fine.clone(), vec![good], FILE_BYTES_MAX + 1);
    refused(&mut world, fine.clone(), vec![good, good], 0);
    refused(&mut world, fine.clone(), vec![good, world_chunk(2, &good)], 0);
    let spoil = |change: &dyn Fn(&mut NewChunk)| {
        let mut chunk = good;
        change(&mut chunk);
        chunk
    };
    for chunk in [
        spoil(&|chunk| chunk.info.bytes = 0),
        spoil(&|chunk| chunk.info.bytes = (16 << 20) + 1),
        spoil(&|chunk| chunk.info.bytes = 8 << 20),
        spoil(&|chunk| chunk.info.pool = PoolId(9)),
        spoil(&|chunk| chunk.info.scheme = Scheme::copies(1)),
        spoil(&|chunk| chunk.info.slots = SlotMask::from_slots([0, 1, 6])),
        spoil(&|chunk| chunk.info.slots = SlotMask(u32::MAX)),
    ] {
        refused(&mut world, fine.clone(), vec![chunk], 0);
    }
    let commit = world.commit(ino, fine.clone());
    world.mutate(commit).unwrap();
    refused(&mut world, fine, vec![spoil(&|chunk| chunk.info.bytes += 1)], 0);
    world.assert_sound();
}

fn world_chunk(number: u8, like: &NewChunk) -> NewChunk {
    let mut chunk = *like;
    chunk.info.id = chunk_id(number);
    chunk
}

#[test]
fn a_file_that_is_gone_does_not_hold_up_the_others() {
    let mut world = World::new();
    let (file, dir) = (world.file("file"), world.directory("dir"));
    let fifo = world.make(Ino::ROOT, "fifo", FileKind::Fifo);
    let commit_of =
        |ino| FileCommit { ino, extents: vec![extent(0, 5, 1, 0)], size_at_least: 9, mtime: cairn_common::time::Timestamp::EPOCH };
    let files = [Ino(999), dir, file, fifo].map(commit_of).to_vec();
    let chunks = vec![world.new_chunk(chunk_id(1))];
    let reply = world.mutate(Mutation::Commit { files, chunks }).unwrap();
    let expected = vec![Err(FsError::Stale), Err(FsError::IsDirectory), Ok(world.attributes(file)), Err(FsError::Invalid)];
    assert_eq!(reply, MutationReply::Committed(expected));
    assert_eq!(world.attributes(file).size, 9);
    world.assert_sound();
}

#[test]
fn extents_that_continue_each_other_become_one() {
    let mut world = World::new();
    let file = world.file("file");
    world.write(file, 0, 8, 1, 0).unwrap();
    world.write(file, 8, 8, 1, 8).unwrap();
    world.write(file, 24, 8, 1, 24).unwrap();
    world.write(file, 16, 8, 1, 16).unwrap();
    assert_eq!(extents_of(&world, file), [extent(0, 32, 1, 0)]);
    world.write(file, 10, 5, 2, 0).unwrap();
    assert_eq!(extents_of(&world, file), [extent(0, 10, 1, 0), extent(10, 5, 2, 0), extent(15, 17, 1, 15)]);
    world.write(file, 10, 5, 1, 10).unwrap();
    assert_eq!(extents_of(&world, file), [extent(0, 32, 1, 0)]);
    world.assert_sound();
}

#[test]
fn pages_of_extents_lead_on() {
    let mut world = World::new();
    let file = scatter(&mut world, "file", 5);
    let page = read::extents(&world.tables, file, 1, 8, 2).unwrap();
    assert_eq!((page.extents.len(), page.chunks.len(), page.more_from), (2, 1, Some(4)));
    let page = read::extents(&world.tables, file, 4, 8, 2).unwrap();
    assert_eq!((page.extents, page.more_from), (vec![extent(5, 1, 1, 0), extent(7, 1, 1, 0)], None));
}

#[test]
fn a_huge_file_goes_step_by_step() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 5;
    let file = scatter(&mut world, "file", count);
    world.mutate(Mutation::Unlink { parent: Ino::ROOT, name: b"file".to_vec() }).unwrap();
    assert!(read::attributes(&world.tables, file).is_err());
    assert_eq!(read::shrinking(&world.tables, 10).unwrap(), [file]);
    world.assert_sound();
    assert_eq!(world.step(Command::Shrink { ino: file }), Outcome::Again);
    world.assert_sound();
    world.shrink_all();
    assert!(read::shrinking(&world.tables, 10).unwrap().is_empty());
    assert_eq!(world.step(Command::Shrink { ino: file }), Outcome::Done);
    world.assert_sound();
}

#[test]
fn a_truncated_huge_file_never_shows_what_was_cut_off() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 5;
    let file = scatter(&mut world, "file", count);
    assert_eq!(world.change(set_size(file, 4)).size, 4);
    world.change(set_size(file, count * 2));
    assert_eq!(extents_of(&world, file), [extent(1, 1, 1, 0), extent(3, 1, 1, 0)]);
    world.assert_sound();
    // A write far above needs the way to it cleared first; it shows only itself.
    let far = count * 2 - 5;
    let commit = world.commit(file, vec![extent(far, 2, 2, 0)]);
    let command = world.command(commit, &[]);
    assert_eq!(world.step(command.clone()), Outcome::Again);
    assert!(matches!(world.apply(command), Outcome::Mutated(_)));
    assert_eq!(extents_of(&world, file), [extent(1, 1, 1, 0), extent(3, 1, 1, 0), extent(far, 2, 2, 0)]);
    world.assert_sound();
    world.shrink_all();
    assert_eq!(extents_of(&world, file).len(), 3);
    assert_eq!(world.attributes(file).allocated, 4);
    world.assert_sound();
}

#[test]
fn a_second_truncation_above_the_cut_keeps_the_cut() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 5;
    let file = scatter(&mut world, "file", count);
    world.change(set_size(file, 0));
    world.change(set_size(file, count * 4));
    world.change(set_size(file, count * 2 - 4));
    world.change(set_size(file, count * 2));
    assert_eq!(extents_of(&world, file), []);
    world.assert_sound();
    world.shrink_all();
    assert_eq!(world.attributes(file).allocated, 0);
    world.assert_sound();
}

#[test]
fn a_write_beside_the_garbage_does_not_join_it() {
    let mut world = World::new();
    let file = world.file("file");
    let extents = (0..STEPS_PER_COMMAND as u64 * 2).map(|at| extent(at * 4, 4, at as u8 % 2 + 1, 4)).collect();
    let commit = world.commit(file, extents);
    world.mutate(commit).unwrap();
    world.change(set_size(file, 0));
    let cut = STEPS_PER_COMMAND as u64 * 4;
    world.change(set_size(file, cut * 2));
    // What follows in the chunk lies as garbage just above.
    world.write(file, cut - 4, 4, 1, 0).unwrap();
    assert_eq!(extents_of(&world, file), [extent(cut - 4, 4, 1, 0)]);
    world.assert_sound();
}

#[test]
fn a_wide_hole_is_punched_in_steps() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 3;
    let file = scatter(&mut world, "file", count);
    let punch = Mutation::PunchHole { ino: file, offset: 2, bytes: count * 4, extend: true };
    let command = world.command(punch, &[]);
    assert_eq!(world.step(command.clone()), Outcome::Again);
    assert!(matches!(world.apply(command), Outcome::Mutated(_)));
    assert_eq!(extents_of(&world, file), [extent(1, 1, 1, 0)]);
    assert_eq!(world.attributes(file).size, count * 4 + 2);
    world.assert_sound();
}

#[test]
fn a_wide_copy_is_cut_short() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 3;
    let from = scatter(&mut world, "from", count);
    let to = world.file("to");
    let mut copied = 0;
    let mut rounds = 0;
    while copied < count * 2 {
        let copy = Mutation::CopyRange { from, from_offset: copied, to, to_offset: copied, bytes: u64::MAX };
        let MutationReply::Copied { bytes, .. } = world.mutate(copy).unwrap() else { panic!() };
        copied += bytes;
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    assert_eq!(extents_of(&world, from), extents_of(&world, to));
    assert_eq!(world.attributes(to).size, count * 2);
    world.assert_sound();
}

#[test]
fn a_chunk_lives_while_anything_refers_to_it() {
    let mut world = World::new();
    let file = world.file("file");
    let clone = world.file("clone");
    world.write(file, 0, CHUNK_BYTES, 1, 0).unwrap();
    world.mutate(Mutation::CopyRange { from: file, from_offset: 0, to: clone, to_offset: 0, bytes: 1000 }).unwrap();
    world.mutate_held(Mutation::Unlink { parent: Ino::ROOT, name: b"file".to_vec() }, &[ALICE]).unwrap();
    world.change(set_size(clone, 10));
    world.assert_sound();
    world.apply(Command::DropHolders { session: ALICE, inodes: vec![file] });
    world.assert_sound();
    assert_eq!(extents_of(&world, clone), [extent(0, 10, 1, 0)]);
    world.change(set_size(clone, 0));
    world.at = world.at.plus(cairn_common::limits::DELETION_GRACE * 2);
    assert_eq!(read::forgettable_chunks(&world.tables, world.at, 9).unwrap(), [chunk_id(1)]);
}
