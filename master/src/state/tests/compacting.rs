//! What is to be rewritten, and how a rewrite is published.

use super::world::{ALICE, CHUNK_BYTES, RULES, World, chunk_id, set_size};
use crate::keys;
use crate::state::command::Command;
use crate::state::compaction::{self, Gathered};
use crate::state::edit::STEPS_PER_COMMAND;
use crate::state::outcome::Outcome;
use crate::state::read;
use crate::state::record::{Span, WindowName};
use crate::store::tables::{Batch, Reader, Table};
use cairn_common::collections::FastSet;
use cairn_common::extent::Extent;
use cairn_common::ids::Ino;
use cairn_common::limits::DELETION_GRACE;
use cairn_common::wire::master::{CompactionWork, FileCompaction, MasterError, Mutation, MutationReply};

fn extent(file_offset: u64, bytes: u32, chunk: u8, chunk_offset: u32) -> Extent {
    Extent { file_offset, bytes, chunk: chunk_id(chunk), chunk_offset }
}

fn extents_of(world: &World, ino: Ino) -> Vec<Extent> {
    read::extents(&world.tables, ino, 0, u64::MAX, 1000).unwrap().extents
}

/// A file of `count` extents of two bytes, side by side, each in another place of the chunks 1 and 2.
fn fragmented(world: &mut World, name: &str, count: u64) -> Ino {
    let ino = world.file(name);
    let extents = (0..count).map(|at| extent(at * 2, 2, 1 + (at % 2) as u8, at as u32 * 2 % (CHUNK_BYTES - 1))).collect();
    let commit = world.commit(ino, extents);
    world.mutate(commit).unwrap();
    ino
}

/// What a compactor makes of its work: everything, one after the other, in `chunk`.
fn rewritten(world: &World, work: &CompactionWork, chunk: u8) -> Mutation {
    let mut position = 0;
    let files = work.files.iter().map(|file| {
        let mut moved = |extent: &Extent| {
            let new = Extent { chunk: chunk_id(chunk), chunk_offset: position, ..*extent };
            position += extent.bytes;
            new
        };
        FileCompaction { ino: file.ino, old: file.extents.clone(), new: file.extents.iter().map(&mut moved).collect() }
    });
    Mutation::Compact { files: files.collect(), chunks: vec![world.new_chunk(chunk_id(chunk))] }
}

fn compact(world: &mut World, mutation: Mutation) -> (u64, u64) {
    match world.mutate(mutation).unwrap() {
        MutationReply::Compacted { bytes, stale_bytes } => (bytes, stale_bytes),
        other => panic!("a compaction came to {other:?}"),
    }
}

fn window(ino: Ino, number: u64) -> WindowName {
    WindowName { ino, number }
}

fn waiting(world: &World) -> Vec<WindowName> {
    compaction::waiting_windows(&world.tables, 10).unwrap().into_iter().map(|(_, name)| name).collect()
}

fn work(world: &World, name: WindowName) -> CompactionWork {
    compaction::window_work(&world.tables, name).unwrap().expect("worth it")
}

#[test]
fn a_window_is_rewritten_and_nothing_else_changes() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", 30);
    assert_eq!(waiting(&world), [window(file, 0)]);
    let before = world.attributes(file);
    let rewrite = rewritten(&world, &work(&world, window(file, 0)), 9);
    assert_eq!(compact(&mut world, rewrite), (60, 0));
    assert_eq!(world.attributes(file), before, "the version, too");
    assert_eq!(extents_of(&world, file), [extent(0, 60, 9, 0)]);
    assert_eq!(waiting(&world), []);
    assert_eq!(compaction::extent_usage(&world.tables).unwrap().extents, 1);
    world.assert_sound();
    // What was replaced is deleted after the grace period, as if it had been overwritten.
    assert!(read::forgettable_chunks(&world.tables, world.at, 9).unwrap().is_empty());
    world.at = world.at.plus(DELETION_GRACE);
    assert_eq!(read::forgettable_chunks(&world.tables, world.at, 9).unwrap(), [chunk_id(1), chunk_id(2)]);
}

#[test]
fn what_was_written_meanwhile_stays() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", 20);
    let rewrite = rewritten(&world, &work(&world, window(file, 0)), 9);
    world.write(file, 5, 4, 3, 0).unwrap();
    world.change(set_size(file, 35));
    world.change(set_size(file, 100));
    assert_eq!(compact(&mut world, rewrite.clone()), (31, 9));
    assert_eq!(extents_of(&world, file), [extent(0, 5, 9, 0), extent(5, 4, 3, 0), extent(9, 26, 9, 9)]);
    world.assert_sound();
    // The same again finds nothing more to do, and is no harm.
    assert_eq!(compact(&mut world, rewrite), (0, 40));
    world.assert_sound();
}

#[test]
fn a_rewrite_that_comes_too_late_is_garbage() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", 20);
    let rewrite = rewritten(&world, &work(&world, window(file, 0)), 9);
    world.write(file, 0, 40, 3, 0).unwrap();
    assert_eq!(compact(&mut world, rewrite), (0, 40));
    assert_eq!(extents_of(&world, file), [extent(0, 40, 3, 0)]);
    world.assert_sound();
    world.at = world.at.plus(DELETION_GRACE);
    assert!(read::forgettable_chunks(&world.tables, world.at, 9).unwrap().contains(&chunk_id(9)));
}

#[test]
fn clones_keep_what_they_have() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", 20);
    let clone = world.file("clone");
    // A copy goes on until it is done.
    for offset in [0, 16, 32] {
        world.mutate(Mutation::CopyRange { from: file, from_offset: offset, to: clone, to_offset: offset, bytes: 16 }).unwrap();
    }
    let before = extents_of(&world, clone);
    let rewrite = rewritten(&world, &work(&world, window(file, 0)), 9);
    compact(&mut world, rewrite);
    assert_eq!(extents_of(&world, clone), before);
    world.assert_sound();
    // The clone is rewritten by itself, into the same chunk.
    let again = rewritten(&world, &work(&world, window(clone, 0)), 9);
    assert_eq!(compact(&mut world, again), (40, 0));
    assert_eq!(extents_of(&world, clone), extents_of(&world, file));
    world.assert_sound();
}

#[test]
fn a_file_that_is_gone_does_not_hold_up_the_others() {
    let mut world = World::new();
    let files = ["gone", "open", "here"].map(|name| fragmented(&mut world, name, 9));
    let found = files.map(|ino| work(&world, window(ino, 0)).files.remove(0));
    let rewrite = rewritten(&world, &compaction::work(&world.tables, found.to_vec()).unwrap(), 9);
    world.mutate(Mutation::Unlink { parent: Ino::ROOT, name: b"gone".to_vec() }).unwrap();
    world.mutate_held(Mutation::Unlink { parent: Ino::ROOT, name: b"open".to_vec() }, &[ALICE]).unwrap();
    assert_eq!(compact(&mut world, rewrite), (36, 18));
    assert_eq!(extents_of(&world, files[1]), [extent(0, 18, 9, 18)]);
    assert_eq!(extents_of(&world, files[2]), [extent(0, 18, 9, 36)]);
    world.assert_sound();
}

#[test]
fn what_was_cut_off_is_not_rewritten() {
    let mut world = World::new();
    let count = STEPS_PER_COMMAND as u64 * 3;
    let file = fragmented(&mut world, "file", count);
    let rewrite = rewritten(&world, &work(&world, window(file, 0)), 9);
    world.change(set_size(file, 20));
    world.change(set_size(file, count * 2));
    assert_eq!(compact(&mut world, rewrite), (20, count * 2 - 20));
    world.assert_sound();
    world.shrink_all();
    assert_eq!(extents_of(&world, file), [extent(0, 20, 9, 0)]);
    world.assert_sound();
}

#[test]
fn islands_are_passed_over() {
    let mut world = World::new();
    let file = world.file("file");
    let islands = |count: u64| (0..count).map(|at| extent(at * 4, 1, 1, 0)).collect();
    let commit = world.commit(file, islands(16));
    world.mutate(commit).unwrap();
    assert_eq!(waiting(&world), [window(file, 0)]);
    assert_eq!(compaction::window_work(&world.tables, window(file, 0)).unwrap(), None, "there is nothing to join");
    world.apply(Command::PassOver { windows: vec![window(file, 0), window(Ino(99), 0)], chunks: vec![chunk_id(77)] });
    assert_eq!(waiting(&world), []);
    world.assert_sound();
    // Twice as many are another matter.
    let more = (0..16).map(|at| extent(at * 4 + 1, 1, 2, 0)).collect();
    let commit = world.commit(file, more);
    world.mutate(commit).unwrap();
    assert_eq!(waiting(&world), [window(file, 0)]);
    world.assert_sound();
}

#[test]
fn a_window_with_many_extents_waits_for_more() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", u64::from(RULES.window_many));
    let due = compaction::waiting_windows(&world.tables, 10).unwrap();
    assert_eq!(due, [(world.at.plus(RULES.window_patience), window(file, 0))]);
    let commit = world.commit(file, (0..8).map(|at| extent(40 + at * 2, 2, 1, at as u32 * 4)).collect());
    world.mutate(commit).unwrap();
    assert_eq!(compaction::waiting_windows(&world.tables, 10).unwrap(), [(world.at, window(file, 0))]);
    world.change(set_size(file, 2));
    world.shrink_all();
    assert_eq!(waiting(&world), []);
    world.assert_sound();
}

/// A pack of four small files, of which `gone` are removed.
fn pack(world: &mut World, gone: usize) -> Vec<Ino> {
    let files: Vec<Ino> = (0..4).map(|number| world.file(&format!("file {number}"))).collect();
    for (number, ino) in files.iter().enumerate() {
        world.write(*ino, 0, 16, 1, number as u32 * 16).unwrap();
    }
    for number in 0..gone {
        world.mutate(Mutation::Unlink { parent: Ino::ROOT, name: format!("file {number}").into_bytes() }).unwrap();
    }
    files
}

#[test]
fn a_mostly_dead_chunk_waits_to_be_rewritten() {
    let mut world = World::new();
    let files = pack(&mut world, 2);
    assert_eq!(compaction::waiting_chunks(&world.tables, 10).unwrap(), [], "half of it is live");
    world.change(set_size(files[2], 15));
    let due = world.at.plus(RULES.sparse_patience);
    assert_eq!(compaction::waiting_chunks(&world.tables, 10).unwrap(), [(due, chunk_id(1))]);
    world.assert_sound();
    let span = compaction::span_of(&world.tables, chunk_id(1)).unwrap().unwrap();
    let wanted: FastSet<_> = [chunk_id(1)].into_iter().collect();
    let mut gathered = Gathered::default();
    let next = compaction::gather(&world.tables, &wanted, span, 100, &mut gathered).unwrap();
    assert_eq!((next, gathered.extents, gathered.bytes), (None, 2, 31));
    let rewrite = rewritten(&world, &compaction::work(&world.tables, gathered.files).unwrap(), 9);
    assert_eq!(compact(&mut world, rewrite), (31, 0));
    assert_eq!(extents_of(&world, files[3]), [extent(0, 16, 9, 15)]);
    assert_eq!(compaction::waiting_chunks(&world.tables, 10).unwrap(), [(world.at.plus(RULES.sparse_patience), chunk_id(9))]);
    world.assert_sound();
}

#[test]
fn a_long_way_is_gone_in_steps() {
    let mut world = World::new();
    pack(&mut world, 1);
    let wanted: FastSet<_> = [chunk_id(1)].into_iter().collect();
    let (mut span, mut gathered) = (Span::EVERYTHING, Gathered::default());
    let mut steps = 0;
    while let Some(next) = compaction::gather(&world.tables, &wanted, span, 1, &mut gathered).unwrap() {
        span.first = next;
        steps += 1;
    }
    assert_eq!((steps, gathered.extents), (2, 3));
}

#[test]
fn a_chunk_that_is_not_found_is_looked_for_later() {
    let mut world = World::new();
    pack(&mut world, 3);
    let (due, _) = compaction::waiting_chunks(&world.tables, 10).unwrap()[0];
    world.apply(Command::PassOver { windows: Vec::new(), chunks: vec![chunk_id(1)] });
    assert!(compaction::waiting_chunks(&world.tables, 10).unwrap()[0].0 > due);
    world.assert_sound();
}

#[test]
fn senseless_compactions_are_refused() {
    let mut world = World::new();
    let file = fragmented(&mut world, "file", 20);
    let Mutation::Compact { files, mut chunks } = rewritten(&world, &work(&world, window(file, 0)), 9) else { panic!() };
    let spoilt = |spoil: &dyn Fn(&mut FileCompaction)| {
        let mut files = files.clone();
        spoil(&mut files[0]);
        files
    };
    for files in [
        spoilt(&|file| file.old.swap(0, 1)),
        spoilt(&|file| file.new[1].file_offset -= 1),
        spoilt(&|file| file.new[0].bytes = 0),
        spoilt(&|file| file.new[0].chunk_offset = CHUNK_BYTES),
        spoilt(&|file| file.old = vec![extent(0, 1, 1, 0); 3000]),
    ] {
        let answer = world.mutate(Mutation::Compact { files, chunks: chunks.clone() });
        assert!(matches!(answer, Err(MasterError::Malformed(_))), "{answer:?}");
    }
    let before = extents_of(&world, file);
    world.at = world.at.plus(DELETION_GRACE);
    assert_eq!(world.mutate(Mutation::Compact { files: files.clone(), chunks: chunks.clone() }), Err(MasterError::TicketExpired));
    chunks.clear();
    assert_eq!(world.mutate(Mutation::Compact { files, chunks }), Err(MasterError::TicketExpired), "the chunk is not known");
    assert_eq!(extents_of(&world, file), before);
    world.assert_sound();
}

#[test]
fn a_cluster_from_before_is_counted_once() {
    let mut world = World::new();
    fragmented(&mut world, "file", 70);
    pack(&mut world, 3);
    let counted = world.tables.clone();
    let mut batch = Batch::new(&world.tables);
    let mut stale = Vec::new();
    for prefix in [keys::windows_start(), keys::due_windows_start(), keys::extent_usage()] {
        let until = keys::after_prefix(&prefix);
        let note = &mut |key: &[u8], _: &[u8]| {
            stale.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        world.tables.scan(Table::Meta, &prefix, until.as_deref(), false, note).unwrap();
    }
    stale.iter().for_each(|key| batch.delete(Table::Meta, key));
    let changes = batch.into_changes();
    world.tables.commit(changes);
    // Commands of a log that was written before do without.
    world.write(Ino(2), 0, 2, 1, 0).unwrap();
    assert_eq!(world.apply(Command::SkipNumbers), Outcome::Done);
    world.assert_sound();
    assert_eq!(waiting(&world).len(), compaction::waiting_windows(&counted, 10).unwrap().len());
}

#[test]
fn rules_are_for_new_clusters() {
    let mut world = World::new();
    let refused = world.apply(Command::SetRules(RULES));
    assert!(matches!(refused, Outcome::Refused(MasterError::Malformed(_))));
}
