//! Every kind of inconsistency, put into the rows: it is found and named; where it is certain what is right, it is mended.

use super::{Check, Problem, Verdict};
use crate::keys::{self, Record};
use crate::state::command::Command;
use crate::state::mend::MENDS_PER_COMMAND;
use crate::state::outcome::Outcome;
use crate::state::read;
use crate::state::record::{
    ChunkRecord, Counters, Dentry, Detail, ExtentRecord, ExtentUsage, GroupRecord, IndexEntry, Inode, Place, PoolUsage, Shrinking, Span,
    Window, WindowName, fetch,
};
use crate::state::tests::world::{ALICE, BOB, World, chunk_id, set_size};
use crate::store::tables::{Batch, Reader, Table};
use cairn_common::attributes::FileKind;
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, Sequence, SessionId, TargetId};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{Mutation, XattrMode};
use std::collections::BTreeSet;

/// The inodes of the example.
#[derive(Clone, Copy)]
struct Example {
    above: Ino,
    below: Ino,
    file: Ino,
    twice: Ino,
    held: Ino,
    /// Its first window has 9 extents, which is many.
    pieces: Ino,
}

/// Directories in each other, files with and without content, one with two names, one removed but open, and many others.
fn example() -> (World, Example) {
    let mut world = World::new();
    let above = world.directory("above");
    let below = world.make(above, "below", FileKind::Directory);
    let file = world.make(below, "file", FileKind::Regular);
    world.write(file, 0, 40, 1, 0).unwrap();
    world.write(file, 100, 10, 2, 5).unwrap();
    let twice = world.file("twice");
    world.write(twice, 0, 24, 1, 40).unwrap();
    world.change(Mutation::Link { ino: twice, parent: above, name: b"again".to_vec() });
    world.mutate(Mutation::SetXattr { ino: twice, name: b"user.a".to_vec(), value: b"x".to_vec(), mode: XattrMode::Set }).unwrap();
    let held = world.file("held");
    world.write(held, 0, 8, 3, 0).unwrap();
    world.mutate_held(Mutation::Unlink { parent: Ino::ROOT, name: b"held".to_vec() }, &[BOB]).unwrap();
    for number in 0..20 {
        let parent = world.directory(&format!("d{number}"));
        let other = world.make(parent, "f", FileKind::Regular);
        world.write(other, 0, 5, 100 + number, 0).unwrap();
    }
    let pieces = world.file("pieces");
    for number in 0..9 {
        world.write(pieces, 5 * u64::from(number), 5, 200 + number, 0).unwrap();
    }
    world.assert_sound();
    (world, Example { above, below, file, twice, held, pieces })
}

/// Changes rows behind the back of the state machine.
struct Rows<'a>(Batch<'a>);

impl Rows<'_> {
    fn change<R: Record>(&mut self, table: Table, key: &[u8], change: impl FnOnce(&mut R)) {
        let mut record: R = fetch(&self.0, table, key).unwrap().expect("there is such a row");
        change(&mut record);
        self.0.put(table, key, record.encode());
    }

    fn inode(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        self.change(Table::Inodes, &keys::inode(ino), change);
    }

    /// Another one in the first window of a file, which has one.
    fn count_extent(&mut self, ino: Ino, bytes: u64) {
        self.change(Table::Meta, &keys::extent_usage(), |usage: &mut ExtentUsage| {
            (usage.extents, usage.bytes) = (usage.extents + 1, usage.bytes + bytes);
        });
        let window = Window { extents: 2, floor: 0, due: None };
        self.0.put(Table::Meta, &keys::window(WindowName { ino, number: 0 }), window.encode());
    }

    fn window(&self, ino: Ino) -> (WindowName, Timestamp) {
        let name = WindowName { ino, number: 0 };
        let window: Window = fetch(&self.0, Table::Meta, &keys::window(name)).unwrap().expect("it has many extents");
        (name, window.due.expect("it is to be rewritten"))
    }

    fn sparse(&self, id: ChunkId) -> Timestamp {
        let chunk: ChunkRecord = fetch(&self.0, Table::Chunks, &keys::chunk(id)).unwrap().expect("there is such a chunk");
        chunk.sparse.expect("it is mostly dead")
    }

    fn dentry(&self, parent: Ino, name: &str) -> Dentry {
        fetch(&self.0, Table::Dentries, &keys::dentry(parent, name.as_bytes())).unwrap().expect("there is such an entry")
    }

    fn entry(&mut self, parent: Ino, name: &str, dentry: Dentry) {
        self.0.put(Table::Dentries, &keys::dentry(parent, name.as_bytes()), dentry.encode());
        let place = IndexEntry { name: name.into(), ino: dentry.ino, kind: dentry.kind };
        self.0.put(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie), place.encode());
    }

    fn drop_entry(&mut self, parent: Ino, name: &str) {
        let dentry = self.dentry(parent, name);
        self.0.delete(Table::Dentries, &keys::dentry(parent, name.as_bytes()));
        self.0.delete(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie));
    }
}

fn plant(world: &mut World, change: impl FnOnce(&mut Rows<'_>)) {
    let mut rows = Rows(Batch::new(&world.tables));
    change(&mut rows);
    let changes = rows.0.into_changes();
    world.tables.commit(changes);
}

fn judge(world: &World) -> Verdict {
    let mut check = Check::new();
    // A few rows at a time: every seam is crossed.
    while check.step(&world.tables, 3).unwrap() {}
    check.finish()
}

/// Mends what can be mended, as `cairn fsck --repair` does; what is left.
fn repair(world: &mut World) -> Vec<Problem> {
    for _ in 0..6 {
        let verdict = judge(world);
        let mends = verdict.mends();
        if mends.is_empty() {
            return verdict.problems;
        }
        let seen = world.index;
        for (batch, mends) in (1..).zip(mends.chunks(MENDS_PER_COMMAND)) {
            let mends = mends.iter().map(|(_, mend)| mend.clone()).collect();
            let outcome = world.step(Command::Mend { seen, batch, mends });
            assert!(matches!(outcome, Outcome::Mended { .. }), "{outcome:?}");
        }
        world.shrink_all();
    }
    panic!("the repair does not end: {:?}", judge(world).problems);
}

fn classes(problems: &[Problem]) -> BTreeSet<&'static str> {
    problems.iter().map(Problem::class).collect()
}

/// What is planted, the classes that must be found, words of the sentences, and whether it can be mended.
struct Case {
    plant: fn(&mut Rows<'_>, Example),
    classes: &'static [&'static str],
    words: &'static str,
    is_mended: bool,
}

fn mended(classes: &'static [&'static str], words: &'static str, plant: fn(&mut Rows<'_>, Example)) -> Case {
    Case { plant, classes, words, is_mended: true }
}

fn left(classes: &'static [&'static str], words: &'static str, plant: fn(&mut Rows<'_>, Example)) -> Case {
    Case { plant, classes, words, is_mended: false }
}

/// A time at which nothing was due.
const NEVER: Timestamp = Timestamp::from_nanos(5_000_000_000);
const NOBODY: Ino = Ino(7_000);

fn names_and_counts() -> Vec<Case> {
    vec![
        mended(&["link-count"], "has a link count of 5, it should be 2", |rows, at| rows.inode(at.twice, |inode| inode.nlink = 5)),
        mended(&["link-count"], "has a link count of 0, it should be 1", |rows, at| rows.inode(at.file, |inode| inode.nlink = 0)),
        mended(&["link-count"], "has a link count of 9, it should be 3", |rows, at| rows.inode(at.above, |inode| inode.nlink = 9)),
        mended(&["link-count", "orphan-holder"], "has a link count of 1, it should be 0", |rows, at| {
            rows.inode(at.held, |inode| inode.nlink = 1)
        }),
        mended(&["entry-count"], "has 2 entries but says 7", |rows, at| rows.inode(at.above, |inode| inode.size = 7)),
        mended(&["xattr-bytes"], "names of 7 bytes, it says 3", |rows, at| rows.inode(at.twice, |inode| inode.xattr_list_bytes = 3)),
        mended(&["allocated"], "has 50 bytes of content but says 51", |rows, at| rows.inode(at.file, |inode| inode.allocated += 1)),
        mended(&["entry-of-nothing"], "\"ghost\" names inode i7000", |rows, at| {
            rows.entry(at.above, "ghost", Dentry { ino: NOBODY, kind: FileKind::Regular, cookie: DirCookie(90_000) });
            rows.inode(at.above, |inode| inode.size += 1);
        }),
        mended(&["entry-kind"], "calls inode i4 a Fifo, it is a Regular", |rows, at| {
            let dentry = Dentry { kind: FileKind::Fifo, ..rows.dentry(at.below, "file") };
            rows.entry(at.below, "file", dentry);
        }),
        mended(&["entry-nowhere", "link-count"], "which is no directory that exists", |rows, at| {
            rows.entry(NOBODY, "astray", Dentry { ino: at.file, kind: FileKind::Regular, cookie: DirCookie(90_000) });
        }),
        mended(&["entry-unlisted"], "missing from the listing", |rows, at| {
            let cookie = rows.dentry(at.above, "again").cookie;
            rows.0.delete(Table::DirectoryIndex, &keys::directory_index(at.above, cookie));
        }),
        mended(&["entry-unlisted"], "missing from the listing", |rows, at| {
            // Two entries with one place.
            let (again, below) = (rows.dentry(at.above, "again"), rows.dentry(at.above, "below"));
            rows.0.delete(Table::DirectoryIndex, &keys::directory_index(at.above, again.cookie));
            let moved = Dentry { cookie: below.cookie, ..again };
            rows.0.put(Table::Dentries, &keys::dentry(at.above, b"again"), moved.encode());
        }),
        mended(&["listed-only"], "the listing shows \"phantom\"", |rows, at| {
            let place = IndexEntry { name: b"phantom".to_vec(), ino: at.file, kind: FileKind::Regular };
            rows.0.put(Table::DirectoryIndex, &keys::directory_index(at.above, DirCookie(90_000)), place.encode());
        }),
        mended(&["directory-parent"], "it has no name there", |rows, at| {
            rows.inode(at.below, |inode| inode.detail = Detail::Directory { parent: Ino::ROOT });
        }),
        mended(&["directory-parent", "link-count", "entry-count"], "it has a name there, too", |rows, at| {
            rows.entry(Ino::ROOT, "below2", Dentry { ino: at.below, kind: FileKind::Directory, cookie: DirCookie(90_000) });
        }),
        mended(&["directory-names", "link-count", "entry-count"], "has a second name in the same directory", |rows, at| {
            rows.entry(at.above, "below2", Dentry { ino: at.below, kind: FileKind::Directory, cookie: DirCookie(90_000) });
        }),
        mended(&["directory-loop", "link-count", "entry-count"], "it is inside itself", |rows, at| {
            // above/below becomes below/above: no name of either is outside.
            let dentry = rows.dentry(Ino::ROOT, "above");
            rows.drop_entry(Ino::ROOT, "above");
            rows.entry(at.below, "above", dentry);
            rows.inode(at.above, |inode| inode.detail = Detail::Directory { parent: at.below });
        }),
        mended(&["unreachable"], "was not removed, but has no name", |rows, at| {
            rows.drop_entry(at.below, "file");
            rows.inode(at.below, |inode| inode.size -= 1);
        }),
        mended(&["unreachable"], "was not removed, but has no name", |rows, at| {
            // A directory with all that is in it.
            rows.drop_entry(Ino::ROOT, "above");
            rows.inode(Ino::ROOT, |inode| (inode.size, inode.nlink) = (inode.size - 1, inode.nlink - 1));
            rows.inode(at.above, |inode| inode.nlink = 0);
        }),
        mended(&["leftover"], "was removed and nobody has it open", |rows, at| {
            rows.0.delete(Table::Orphans, &keys::orphan(at.held, BOB));
            rows.0.delete(Table::Orphans, &keys::held(BOB, at.held));
        }),
        mended(&["orphan-holder"], "has the removed inode", |rows, at| rows.0.delete(Table::Orphans, &keys::held(BOB, at.held))),
        mended(&["orphan-holder"], "has the removed inode", |rows, at| {
            rows.0.put(Table::Orphans, &keys::orphan(at.file, ALICE), Vec::new());
            rows.0.put(Table::Orphans, &keys::held(ALICE, at.file), Vec::new());
        }),
        mended(&["orphan-holder"], "has the removed inode", |rows, at| {
            rows.0.put(Table::Orphans, &keys::orphan(at.held, SessionId(77)), Vec::new());
            rows.0.put(Table::Orphans, &keys::held(SessionId(77), at.held), Vec::new());
        }),
        left(&["no-root", "entry-nowhere", "inode-count"], "there is no root directory", |rows, _| {
            rows.0.delete(Table::Inodes, &keys::inode(Ino::ROOT));
        }),
    ]
}

fn content_and_chunks() -> Vec<Case> {
    vec![
        mended(&["extent-beyond-size"], "has content up to 110, but a size of 105", |rows, at| {
            rows.inode(at.file, |inode| inode.size = 105)
        }),
        left(&["extent-overlap"], "overlap at offset 30", |rows, at| {
            let longer = ExtentRecord { bytes: 10, chunk: chunk_id(1), chunk_offset: 0 };
            rows.0.put(Table::Extents, &keys::extent(at.file, 50), ExtentRecord { bytes: 20, ..longer }.encode());
            rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| {
                (chunk.references, chunk.live_bytes) = (chunk.references + 1, chunk.live_bytes + 20);
            });
            rows.inode(at.file, |inode| inode.allocated += 20);
            rows.count_extent(at.file, 20);
        }),
        left(&["extent-empty"], "is empty or begins before the file", |rows, at| {
            let empty = ExtentRecord { bytes: 0, chunk: chunk_id(1), chunk_offset: 0 };
            rows.0.put(Table::Extents, &keys::extent(at.file, 60), empty.encode());
            rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| chunk.references += 1);
            rows.count_extent(at.file, 0);
        }),
        left(&["extent-beyond-chunk"], "which has 64 bytes", |rows, at| {
            rows.change(Table::Extents, &keys::extent(at.file, 110), |extent: &mut ExtentRecord| extent.chunk_offset = 60);
        }),
        left(&["chunk-unknown"], "of which nothing is known", |rows, _| {
            rows.0.delete(Table::Meta, &keys::sparse_chunk(rows.sparse(chunk_id(2)), chunk_id(2)));
            rows.0.delete(Table::Chunks, &keys::chunk(chunk_id(2)));
            rows.change(Table::Meta, &keys::pool_usage(read::DEFAULT_POOL), |usage: &mut PoolUsage| {
                (usage.chunks, usage.chunk_bytes) = (usage.chunks - 1, usage.chunk_bytes - 64);
            });
        }),
        mended(&["extent-across-cut", "cut"], "reaches across 20", |rows, at| {
            rows.inode(at.file, |inode| inode.detail = Detail::Regular { cut: Some(20), unnamed: false });
        }),
        mended(&["cut"], "all from 50 on", |rows, at| {
            rows.inode(at.file, |inode| {
                (inode.detail, inode.size) = (Detail::Regular { cut: Some(50), unnamed: false }, 50);
            });
        }),
        mended(&["cut"], "of inode i4 nothing is to be removed, but all from 50 on", |rows, at| {
            rows.0.put(Table::Meta, &keys::shrinking(at.file), Shrinking { from: 50 }.encode());
        }),
        mended(&["stray-content", "inode-count"], "50 bytes of content of inode i4", |rows, at| {
            // Its name is still there.
            rows.0.delete(Table::Inodes, &keys::inode(at.file));
        }),
        mended(&["stray-content", "inode-count", "entry-count"], "24 bytes of content of inode i5", |rows, at| {
            rows.0.delete(Table::Inodes, &keys::inode(at.twice));
            rows.drop_entry(at.above, "again");
            rows.drop_entry(Ino::ROOT, "twice");
        }),
        mended(&["stray-xattrs"], "extended attributes of inode i7000", |rows, _| {
            rows.0.put(Table::Xattrs, &keys::xattr(NOBODY, b"user.b"), b"x".to_vec());
        }),
        mended(&["chunk-references"], "counts 1 references of 64 bytes, there are 2 of 64", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| chunk.references = 1);
        }),
        mended(&["chunk-references"], "counts 9 references of 10 bytes, there are 1 of 10", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| chunk.references = 9);
        }),
        mended(&["chunk-references"], "counts 0 references of 0 bytes, there are 1 of 10", |rows, _| {
            let died = Timestamp::from_parts(5, 0);
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| {
                (chunk.references, chunk.live_bytes, chunk.died) = (0, 0, Some(died));
            });
            rows.0.put(Table::DeadChunks, &keys::dead_chunk(died, chunk_id(2)), Vec::new());
        }),
        mended(&["chunk-half-dead"], "is half dead", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| chunk.died = Some(Timestamp::from_parts(5, 0)));
        }),
        mended(&["dead-queue"], "did not die then", |rows, _| {
            rows.0.put(Table::DeadChunks, &keys::dead_chunk(Timestamp::from_parts(5, 0), chunk_id(2)), Vec::new());
        }),
        mended(&["dead-queue"], "did not die then", |rows, _| {
            rows.0.put(Table::DeadChunks, &keys::dead_chunk(Timestamp::from_parts(5, 0), chunk_id(99)), Vec::new());
        }),
        left(&["chunk-layout"], "3 shards in 2 slots", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| {
                chunk.stored.slots = cairn_common::extent::SlotMask::from_slots([1, 2]);
            });
        }),
        mended(&["policy", "policy"], "is to go to pool p7, which does not exist", |rows, example| {
            rows.inode(example.file, |inode| inode.pool = Some(PoolId(7)));
            rows.inode(example.above, |inode| inode.pool = Some(PoolId(7)));
        }),
        left(&["chunk-layout"], "slot 9 of a pool that has 6", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| {
                chunk.stored.slots = cairn_common::extent::SlotMask::from_slots([1, 2, 9]);
            });
        }),
        mended(&["pool-usage"], "says that it has 2 chunks of 9 bytes", |rows, _| {
            rows.change(Table::Meta, &keys::pool_usage(read::DEFAULT_POOL), |usage: &mut PoolUsage| {
                *usage = PoolUsage { chunks: 2, chunk_bytes: 9 };
            });
        }),
        mended(&["inode-count", "next-inode"], "the counter says 3", |rows, _| {
            rows.change(Table::Meta, &keys::counters(), |counters: &mut Counters| (counters.inodes, counters.next_ino) = (3, 4));
        }),
        mended(&["stray-result"], "should have been forgotten", |rows, _| {
            let result = rows.0.get(Table::Results, &keys::progress(ALICE)).unwrap().unwrap();
            rows.0.put(Table::Results, &keys::result(SessionId(77), Sequence(0)), result);
        }),
        left(&["session-progress"], "has acknowledged", |rows, _| rows.0.delete(Table::Results, &keys::progress(BOB))),
        left(&["group"], "a slot names t9, which is not known", |rows, _| {
            rows.change(Table::Pools, &keys::group(read::DEFAULT_POOL, 3), |group: &mut GroupRecord| {
                group.slots[2].holder = Some(TargetId(9));
            });
        }),
        left(&["group"], "it has 1 slots", |rows, _| {
            rows.change(Table::Pools, &keys::group(read::DEFAULT_POOL, 3), |group: &mut GroupRecord| group.slots.truncate(1));
        }),
        left(&["cluster"], "has 7 groups, not 8", |rows, _| rows.0.delete(Table::Pools, &keys::group(read::DEFAULT_POOL, 3))),
    ]
}

fn compaction() -> Vec<Case> {
    vec![
        mended(&["extent-count"], "the count says 1 of 2", |rows, _| {
            rows.0.put(Table::Meta, &keys::extent_usage(), ExtentUsage { extents: 1, bytes: 2 }.encode());
        }),
        left(&["extent-count"], "a restart of the master counts them", |rows, _| rows.0.delete(Table::Meta, &keys::extent_usage())),
        mended(&["window-count"], "end in bytes 0 to 64, 7 are counted", |rows, at| {
            let (name, _) = rows.window(at.pieces);
            rows.change(Table::Meta, &keys::window(name), |window: &mut Window| window.extents = 7);
        }),
        mended(&["window-count", "window-queue"], "end in bytes 0 to 64, 0 are counted", |rows, at| {
            let (name, _) = rows.window(at.pieces);
            rows.0.delete(Table::Meta, &keys::window(name));
        }),
        mended(&["window-count"], "0 extents of inode i7000 end in bytes 64 to 128, 9 are counted", |rows, _| {
            let name = WindowName { ino: NOBODY, number: 1 };
            rows.0.put(Table::Meta, &keys::window(name), Window { extents: 9, floor: 0, due: None }.encode());
        }),
        mended(&["window-queue"], "is to be rewritten, but missing from the queue", |rows, at| {
            let (name, due) = rows.window(at.pieces);
            rows.0.delete(Table::Meta, &keys::due_window(due, name));
        }),
        mended(&["window-queue"], "in the queue of what is to be rewritten but is not due then", |rows, at| {
            let (name, _) = rows.window(at.pieces);
            rows.0.put(Table::Meta, &keys::due_window(NEVER, name), Vec::new());
        }),
        mended(&["chunk-half-sparse"], "does not know whether it is mostly dead", |rows, _| {
            rows.0.delete(Table::Meta, &keys::sparse_chunk(rows.sparse(chunk_id(2)), chunk_id(2)));
        }),
        mended(&["chunk-half-sparse", "sparse-queue"], "does not know whether it is mostly dead", |rows, _| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| chunk.sparse = None);
        }),
        mended(&["chunk-half-sparse"], "does not know whether it is mostly dead", |rows, _| {
            // Of its 64 bytes all are live.
            rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| chunk.sparse = Some(NEVER));
            rows.0.put(Table::Meta, &keys::sparse_chunk(NEVER, chunk_id(1)), Vec::new());
        }),
        mended(&["sparse-queue"], "in the queue of mostly dead chunks but is not due then", |rows, _| {
            rows.0.put(Table::Meta, &keys::sparse_chunk(NEVER, chunk_id(99)), Vec::new());
        }),
        mended(&["chunk-span"], "outside of where it says that it is named", |rows, at| {
            rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| {
                chunk.named = Span::of(Place { ino: at.twice, end: 24 });
            });
        }),
        mended(&["chunk-references"], "counts 1 references of 60 bytes, there are 1 of 10", |rows, _| {
            // Taken for full, it is in no queue.
            rows.0.delete(Table::Meta, &keys::sparse_chunk(rows.sparse(chunk_id(2)), chunk_id(2)));
            rows.change(Table::Chunks, &keys::chunk(chunk_id(2)), |chunk: &mut ChunkRecord| {
                (chunk.live_bytes, chunk.sparse) = (60, None);
            });
        }),
    ]
}

/// What is wrong with how a case is dealt with, if anything is.
fn complaint(case: &Case) -> Option<String> {
    let (mut world, at) = example();
    plant(&mut world, |rows| (case.plant)(rows, at));
    let found = judge(&world).problems;
    let sentences: Vec<String> = found.iter().map(ToString::to_string).collect();
    let is_told = sentences.iter().any(|sentence| sentence.contains(case.words));
    if !is_told || classes(&found) != case.classes.iter().copied().collect() {
        return Some(format!("{:?}: found {sentences:#?}, {:?}", case.words, classes(&found)));
    }
    let left = repair(&mut world);
    let is_right = if case.is_mended { left.is_empty() } else { classes(&left).contains(case.classes[0]) };
    (!is_right).then(|| format!("{:?}: left {left:?}", case.words))
}

#[test]
fn each_kind_of_damage_is_found_named_and_mended() {
    let cases: Vec<Case> = [names_and_counts(), content_and_chunks(), compaction()].into_iter().flatten().collect();
    let complaints: Vec<String> = cases.iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// What can be read through names before and after: repairs lose nothing.
fn content_of(world: &World, ino: Ino) -> Vec<cairn_common::extent::Extent> {
    read::extents(&world.tables, ino, 0, u64::MAX, 100).unwrap().extents
}

#[test]
fn what_has_lost_its_name_is_found_again_with_all_its_bytes() {
    let (mut world, at) = example();
    let content = content_of(&world, at.file);
    plant(&mut world, |rows| {
        rows.drop_entry(Ino::ROOT, "above");
        rows.drop_entry(at.below, "file");
    });
    assert_eq!(repair(&mut world), Vec::new());
    let shelter = read::lookup(&world.tables, Ino::ROOT, b"lost+found").unwrap().ino;
    assert_eq!(read::lookup(&world.tables, shelter, format!("#{}", at.file.0).as_bytes()).unwrap().ino, at.file);
    let above = read::lookup(&world.tables, shelter, format!("#{}", at.above.0).as_bytes()).unwrap().ino;
    assert_eq!(read::lookup(&world.tables, above, b"below").unwrap().ino, at.below);
    assert_eq!(read::lookup(&world.tables, above, b"..").unwrap().ino, shelter);
    assert_eq!(content_of(&world, at.file), content);
}

#[test]
fn content_without_an_inode_comes_back_under_its_name() {
    let (mut world, at) = example();
    let content = content_of(&world, at.file);
    plant(&mut world, |rows| rows.0.delete(Table::Inodes, &keys::inode(at.file)));
    assert_eq!(repair(&mut world), Vec::new());
    let found = read::lookup(&world.tables, at.below, b"file").unwrap();
    assert_eq!((found.ino, found.size, found.nlink, found.mode), (at.file, 110, 1, 0o600));
    assert_eq!(content_of(&world, at.file), content);
}

#[test]
fn nothing_is_changed_if_a_row_cannot_be_read() {
    let (mut world, at) = example();
    plant(&mut world, |rows| {
        rows.0.put(Table::Dentries, &keys::dentry(at.below, b"file"), vec![200, 1, 2]);
        rows.0.put(Table::Inodes, &keys::inode(at.twice), vec![200]);
    });
    let verdict = judge(&world);
    assert!(!verdict.is_whole && classes(&verdict.problems).contains("unreadable-row"), "{verdict:?}");
    assert!(classes(&verdict.problems).contains("unreachable"), "the file whose entry is gone has no name that can be read");
    assert_eq!(verdict.mends(), Vec::new());
}

#[test]
fn mends_hold_though_clients_go_on() {
    let (mut world, at) = example();
    plant(&mut world, |rows| {
        rows.inode(at.twice, |inode| inode.nlink = 9);
        rows.inode(at.above, |inode| (inode.size, inode.nlink) = (0, 40));
        rows.change(Table::Chunks, &keys::chunk(chunk_id(1)), |chunk: &mut ChunkRecord| chunk.references = 70);
        rows.inode(at.file, |inode| inode.allocated = 7000);
    });
    let mends = judge(&world).mends();
    let seen = world.index;
    // Meanwhile names and content come and go.
    world.change(Mutation::Link { ino: at.twice, parent: at.below, name: b"third".to_vec() });
    world.make(at.above, "new", FileKind::Directory);
    world.change(Mutation::Unlink { parent: at.above, name: b"again".to_vec() });
    world.write(at.file, 200, 30, 1, 0).unwrap();
    world.change(set_size(at.file, 20));
    for (batch, mends) in (1..).zip(mends.chunks(MENDS_PER_COMMAND)) {
        let mends = mends.iter().map(|(_, mend)| mend.clone()).collect::<Vec<_>>();
        let wanted = vec![true; mends.len()];
        assert_eq!(world.step(Command::Mend { seen, batch, mends }), Outcome::Mended { done: wanted });
    }
    world.assert_sound();
}

#[test]
fn a_difference_is_mended_once() {
    let (mut world, at) = example();
    plant(&mut world, |rows| rows.inode(at.twice, |inode| inode.nlink = 9));
    let mends: Vec<_> = judge(&world).mends().into_iter().map(|(_, mend)| mend).collect();
    let seen = world.index;
    let command = |batch| Command::Mend { seen, batch, mends: mends.clone() };
    assert!(matches!(world.step(command(2)), Outcome::Refused(_)), "the first batch is missing");
    assert_eq!(world.step(command(1)), Outcome::Mended { done: vec![true] });
    assert!(matches!(world.step(command(1)), Outcome::Refused(_)), "twice");
    let later = Command::Mend { seen: world.index, batch: 1, mends: Vec::new() };
    assert!(matches!(world.step(later), Outcome::Mended { .. }), "a check that saw the mend may go on");
    let earlier = Command::Mend { seen, batch: 1, mends: Vec::new() };
    assert!(matches!(world.step(earlier), Outcome::Refused(_)));
    world.assert_sound();
}

#[test]
fn paths_are_told() {
    let (world, at) = example();
    let mut paths = super::paths::Paths::new([at.file, at.below, Ino::ROOT, at.held]);
    while paths.step(&world.tables, 2).unwrap() {}
    let mut path = |ino| paths.path(&world.tables, ino).unwrap().map(|path| String::from_utf8(path).unwrap());
    assert_eq!(path(at.file).as_deref(), Some("/above/below/file"));
    assert_eq!((path(at.below).as_deref(), path(Ino::ROOT).as_deref(), path(at.held)), (Some("/above/below"), Some("/"), None));
    let mut users = super::paths::Users::new([chunk_id(1), chunk_id(99)]);
    while users.step(&world.tables, 2).unwrap() {}
    assert_eq!(users.files[&chunk_id(1)], BTreeSet::from([at.file, at.twice]));
    assert!(users.files[&chunk_id(99)].is_empty());
}
