//! Names, links and attributes, case by case: each error that a client may see, and the rules that the model can't show.

use super::world::{ALICE, BOB, World, create, new_inode, set_size};
use crate::state::command::Command;
use crate::state::outcome::{Failure, Outcome};
use crate::state::read;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::{ACCESSES_MAX, FILE_BYTES_MAX, LINKS_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use cairn_common::wire::master::{Access, MasterError, Mutation, MutationReply, RenameMode, XattrMode};
use std::time::Duration;

fn fs<T>(error: FsError) -> Result<T, MasterError> {
    Err(MasterError::Fs(error))
}

fn unlink(parent: Ino, name: &str) -> Mutation {
    Mutation::Unlink { parent, name: name.into() }
}

fn rmdir(parent: Ino, name: &str) -> Mutation {
    Mutation::RemoveDirectory { parent, name: name.into() }
}

fn link(ino: Ino, name: &str) -> Mutation {
    Mutation::Link { ino, parent: Ino::ROOT, name: name.into() }
}

fn rename_as(from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Mutation {
    Mutation::Rename { from_parent: from.0, from_name: from.1.into(), to_parent: to.0, to_name: to.1.into(), mode }
}

fn rename(from: (Ino, &str), to: (Ino, &str)) -> Mutation {
    rename_as(from, to, RenameMode::Replace)
}

fn set_xattr(ino: Ino, name: &[u8], bytes: usize, mode: XattrMode) -> Mutation {
    Mutation::SetXattr { ino, name: name.to_vec(), value: vec![1; bytes], mode }
}

fn symlink(name: &str, target: Vec<u8>) -> Mutation {
    let inode = NewInode { symlink_target: target, ..new_inode(FileKind::Symlink) };
    Mutation::Create { parent: Ino::ROOT, name: name.into(), inode, open: false, or_existing: false }
}

fn listing(world: &World, ino: Ino) -> Vec<String> {
    let (entries, is_end) = read::read_directory(&world.tables, ino, DirCookie(0), 100, false).unwrap();
    assert!(is_end);
    entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
}

/// `/file`, `/link` (the same file), `/dir/inner`, `/empty`, `/symlink`.
fn furnished() -> (World, [Ino; 5]) {
    let mut world = World::new();
    let file = world.file("file");
    world.change(link(file, "link"));
    let dir = world.directory("dir");
    let inner = world.make(dir, "inner", FileKind::Directory);
    let empty = world.directory("empty");
    let symlink = world.make(Ino::ROOT, "symlink", FileKind::Symlink);
    (world, [file, dir, inner, empty, symlink])
}

#[test]
fn each_error_of_the_namespace_and_nothing_changes() {
    const ROOT: Ino = Ino::ROOT;
    const GONE: Ino = Ino(999);
    let (mut world, [file, dir, inner, _, sym]) = furnished();
    let long = "x".repeat(256);
    let unnamed = |parent, kind| Mutation::CreateUnnamed { parent, inode: new_inode(kind) };
    let cases = [
        (create(ROOT, &long, FileKind::Regular), FsError::NameTooLong),
        (create(ROOT, "", FileKind::Regular), FsError::Invalid),
        (create(ROOT, ".", FileKind::Regular), FsError::Invalid),
        (create(ROOT, "..", FileKind::Directory), FsError::Invalid),
        (create(ROOT, "a/b", FileKind::Regular), FsError::Invalid),
        (create(ROOT, "a\0b", FileKind::Regular), FsError::Invalid),
        (create(ROOT, "file", FileKind::Directory), FsError::Exists),
        (create(file, "x", FileKind::Regular), FsError::NotDirectory),
        (create(GONE, "x", FileKind::Regular), FsError::NotFound),
        (unnamed(GONE, FileKind::Regular), FsError::NotFound),
        (unnamed(ROOT, FileKind::Fifo), FsError::Invalid),
        (symlink("s", Vec::new()), FsError::NotFound),
        (symlink("s", vec![b'x'; 4096]), FsError::NameTooLong),
        (symlink("s", vec![0]), FsError::Invalid),
        (link(file, "dir"), FsError::Exists),
        (link(dir, "new"), FsError::NotPermitted),
        (link(GONE, "new"), FsError::Stale),
        (unlink(ROOT, "nothing"), FsError::NotFound),
        (unlink(ROOT, "dir"), FsError::IsDirectory),
        (unlink(ROOT, "."), FsError::Invalid),
        (unlink(GONE, "x"), FsError::NotFound),
        (rmdir(ROOT, "dir"), FsError::NotEmpty),
        (rmdir(ROOT, "file"), FsError::NotDirectory),
        (rmdir(ROOT, "nothing"), FsError::NotFound),
        (rename((ROOT, "nothing"), (ROOT, "x")), FsError::NotFound),
        (rename((ROOT, "file"), (ROOT, &long)), FsError::NameTooLong),
        (rename((ROOT, "file"), (ROOT, "dir")), FsError::IsDirectory),
        (rename((ROOT, "dir"), (ROOT, "file")), FsError::NotDirectory),
        (rename((ROOT, "empty"), (ROOT, "dir")), FsError::NotEmpty),
        (rename((ROOT, "dir"), (dir, "below")), FsError::Invalid),
        (rename((ROOT, "dir"), (inner, "below")), FsError::Invalid),
        (rename((dir, "inner"), (ROOT, "dir")), FsError::NotEmpty),
        (rename((ROOT, "file"), (file, "x")), FsError::NotDirectory),
        (rename_as((ROOT, "file"), (ROOT, "link"), RenameMode::NoReplace), FsError::Exists),
        (rename_as((ROOT, "file"), (ROOT, "x"), RenameMode::Exchange), FsError::NotFound),
        (rename_as((ROOT, "dir"), (dir, "inner"), RenameMode::Exchange), FsError::Invalid),
        (rename_as((dir, "inner"), (ROOT, "dir"), RenameMode::Exchange), FsError::Invalid),
        (set_size(dir, 1), FsError::IsDirectory),
        (set_size(sym, 1), FsError::Invalid),
        (set_size(GONE, 1), FsError::Stale),
        (set_size(file, FILE_BYTES_MAX + 1), FsError::FileTooLarge),
        (set_xattr(GONE, b"user.x", 1, XattrMode::Set), FsError::Stale),
        (set_xattr(file, b"", 1, XattrMode::Set), FsError::OutOfRange),
        (set_xattr(file, &[b'x'; 256], 1, XattrMode::Set), FsError::OutOfRange),
        (set_xattr(file, b"a\0b", 1, XattrMode::Set), FsError::Invalid),
        (set_xattr(file, b"user.x", XATTR_VALUE_BYTES_MAX + 1, XattrMode::Set), FsError::AttributeTooLarge),
        (set_xattr(file, b"user.x", 1, XattrMode::Replace), FsError::NoAttribute),
        (Mutation::RemoveXattr { ino: file, name: b"user.x".to_vec() }, FsError::NoAttribute),
        (Mutation::PunchHole { ino: file, offset: 0, bytes: 0, extend: false }, FsError::Invalid),
        (Mutation::PunchHole { ino: file, offset: FILE_BYTES_MAX, bytes: 1, extend: true }, FsError::FileTooLarge),
        (Mutation::PunchHole { ino: file, offset: 1, bytes: u64::MAX, extend: true }, FsError::FileTooLarge),
        (Mutation::PunchHole { ino: dir, offset: 0, bytes: 1, extend: false }, FsError::IsDirectory),
        (Mutation::CopyRange { from: dir, from_offset: 0, to: file, to_offset: 0, bytes: 1 }, FsError::IsDirectory),
        (Mutation::CopyRange { from: file, from_offset: 0, to: GONE, to_offset: 0, bytes: 1 }, FsError::Stale),
    ];
    for (mutation, error) in cases {
        // `World::step` asserts that a refusal changes nothing.
        assert_eq!(world.mutate(mutation.clone()), fs(error), "{mutation:?}");
    }
    world.assert_sound();
}

#[test]
fn each_error_of_reading() {
    let (mut world, [file, dir, inner, ..]) = furnished();
    let answer = |result: Result<(), Failure>| match result {
        Err(Failure::Answer(MasterError::Fs(error))) => error,
        other => panic!("{other:?}"),
    };
    let lookup = |world: &World, parent, name: &str| answer(read::lookup(&world.tables, parent, name.as_bytes()).map(drop));
    assert_eq!(lookup(&world, file, "x"), FsError::NotDirectory);
    assert_eq!(lookup(&world, dir, "x"), FsError::NotFound);
    assert_eq!(lookup(&world, Ino(999), "x"), FsError::NotFound);
    assert_eq!(lookup(&world, dir, &"x".repeat(256)), FsError::NameTooLong);
    assert_eq!(read::lookup(&world.tables, inner, b"..").unwrap().ino, dir);
    assert_eq!(read::lookup(&world.tables, Ino::ROOT, b"..").unwrap().ino, Ino::ROOT);
    assert_eq!(answer(read::attributes(&world.tables, Ino(999)).map(drop)), FsError::Stale);
    assert_eq!(answer(read::read_link(&world.tables, file).map(drop)), FsError::Invalid);
    assert_eq!(answer(read::read_directory(&world.tables, file, DirCookie(0), 9, true).map(drop)), FsError::NotDirectory);
    assert_eq!(answer(read::extents(&world.tables, dir, 0, 9, 9).map(drop)), FsError::IsDirectory);
    assert_eq!(answer(read::get_xattr(&world.tables, file, b"user.x").map(drop)), FsError::NoAttribute);
    world.mutate(set_xattr(file, b"user.y", 1, XattrMode::Create)).unwrap();
    assert_eq!(answer(read::get_xattr(&world.tables, file, b"user.x").map(drop)), FsError::NoAttribute);
    assert_eq!(world.mutate(set_xattr(file, b"user.y", 1, XattrMode::Create)), fs(FsError::Exists));
}

#[test]
fn an_existing_regular_file_is_the_answer_to_open_with_creat() {
    let (mut world, [file, dir, ..]) = furnished();
    let or_existing = |name: &str| Mutation::Create {
        parent: Ino::ROOT,
        name: name.into(),
        inode: new_inode(FileKind::Regular),
        open: true,
        or_existing: true,
    };
    let before = world.tables.clone();
    assert_eq!(world.change(or_existing("link")).ino, file);
    assert_eq!(read::attributes(&before, file).unwrap(), world.attributes(file));
    assert_eq!(world.mutate(or_existing("dir")), fs(FsError::IsDirectory));
    assert_eq!(world.mutate(or_existing("symlink")), fs(FsError::Exists));
    assert!(world.change(or_existing("new")).ino > dir);
}

#[test]
fn links_of_files_and_subdirectories_are_bounded() {
    let mut world = World::new();
    let file = world.file("file");
    let parent = world.directory("parent");
    for number in 0..LINKS_MAX - 1 {
        world.change(Mutation::Link { ino: file, parent, name: format!("{number}").into_bytes() });
    }
    assert_eq!(world.attributes(file).nlink, LINKS_MAX);
    assert_eq!(world.mutate(link(file, "one more")), fs(FsError::TooManyLinks));
    let full = world.directory("full");
    for number in 0..LINKS_MAX - 2 {
        world.make(full, &number.to_string(), FileKind::Directory);
    }
    world.directory("other");
    world.make(full, "file", FileKind::Regular);
    assert_eq!(world.mutate(create(full, "one more", FileKind::Directory)), fs(FsError::TooManyLinks));
    assert_eq!(world.mutate(rename((Ino::ROOT, "other"), (full, "other"))), fs(FsError::TooManyLinks));
    let exchange = rename_as((Ino::ROOT, "other"), (full, "file"), RenameMode::Exchange);
    assert_eq!(world.mutate(exchange), fs(FsError::TooManyLinks));
    world.mutate(rename((Ino::ROOT, "other"), (full, "7"))).unwrap();
    world.mutate(rename((full, "8"), (full, "eight"))).unwrap();
}

#[test]
fn attribute_names_are_bounded_together() {
    let mut world = World::new();
    let file = world.file("file");
    let name = |number: usize| format!("user.{number:0>250}").into_bytes();
    let count = XATTR_LIST_BYTES_MAX / 256;
    for number in 0..count {
        world.mutate(set_xattr(file, &name(number), 1, XattrMode::Set)).unwrap();
    }
    assert_eq!(world.mutate(set_xattr(file, &name(count), 1, XattrMode::Set)), fs(FsError::NoSpace));
    world.mutate(set_xattr(file, &name(0), 2, XattrMode::Set)).unwrap();
    assert_eq!(read::list_xattr(&world.tables, file).unwrap().len(), count);
    world.mutate(unlink(Ino::ROOT, "file")).unwrap();
    world.assert_sound();
}

#[test]
fn what_is_open_lives_on_without_a_name() {
    let mut world = World::new();
    let file = world.file("file");
    world.write(file, 0, 10, 1, 0).unwrap();
    let doomed = read::doomed(&world.tables, &unlink(Ino::ROOT, "file")).unwrap();
    assert_eq!(doomed, Some(file));
    let reply = world.mutate_held(unlink(Ino::ROOT, "file"), &[ALICE, BOB]).unwrap();
    assert!(matches!(reply, MutationReply::Removed(attributes) if attributes.nlink == 0));
    assert_eq!(world.attributes(file).size, 10);
    assert_eq!(read::orphans(&world.tables, BOB, 10).unwrap(), [file]);
    assert_eq!(world.mutate(link(file, "again")), fs(FsError::NotFound));

    let close = |session| Command::DropHolders { session, inodes: vec![file] };
    assert_eq!(world.apply(close(ALICE)), Outcome::Gone { inodes: Vec::new() });
    assert_eq!(world.apply(close(ALICE)), Outcome::Gone { inodes: Vec::new() });
    world.assert_sound();
    assert_eq!(world.apply(close(BOB)), Outcome::Gone { inodes: vec![file] });
    world.assert_sound();
    assert_eq!(read::inodes(&world.tables).unwrap(), 1);
    assert_eq!(world.apply(Command::Hold { session: BOB, inodes: vec![file] }), Outcome::Gone { inodes: vec![file] });
}

#[test]
fn who_opens_an_orphan_holds_it_too() {
    let mut world = World::new();
    let file = world.file("file");
    world.mutate_held(unlink(Ino::ROOT, "file"), &[ALICE]).unwrap();
    assert_eq!(world.apply(Command::Hold { session: BOB, inodes: vec![file] }), Outcome::Gone { inodes: Vec::new() });
    assert_eq!(world.apply(Command::EndSession { session: ALICE }), Outcome::Done);
    assert_eq!(world.attributes(file).nlink, 0);
    assert_eq!(world.apply(Command::EndSession { session: BOB }), Outcome::Done);
    assert_eq!(read::inodes(&world.tables).unwrap(), 1);
    world.assert_sound();
}

#[test]
fn only_known_sessions_hold() {
    let mut world = World::new();
    let file = world.file("file");
    world.mutate_held(unlink(Ino::ROOT, "file"), &[cairn_common::ids::SessionId(77)]).unwrap();
    assert!(read::attributes(&world.tables, file).is_err());
    world.assert_sound();
}

#[test]
fn a_returning_session_lets_go_of_what_it_does_not_name() {
    let mut world = World::new();
    let kept = world.file("kept");
    world.mutate_held(unlink(Ino::ROOT, "kept"), &[ALICE]).unwrap();
    for number in 0..20 {
        let name = number.to_string();
        world.file(&name);
        world.mutate_held(unlink(Ino::ROOT, &name), &[ALICE]).unwrap();
    }
    let back = Command::OpenSession { previous: Some(ALICE), description: "back".to_owned(), open: vec![kept] };
    assert_eq!(world.step(back.clone()), Outcome::Again);
    assert!(matches!(world.apply(back), Outcome::Session { session: ALICE, resumed: true, .. }));
    assert_eq!(read::orphans(&world.tables, ALICE, 100).unwrap(), [kept]);
    world.assert_sound();
}

#[test]
fn an_unnamed_file_can_be_given_a_name_once() {
    let mut world = World::new();
    let unnamed = Mutation::CreateUnnamed { parent: Ino::ROOT, inode: new_inode(FileKind::Regular) };
    let file = world.change(unnamed.clone());
    assert_eq!((file.nlink, world.attributes(Ino::ROOT).size), (0, 0));
    assert_eq!(world.change(link(file.ino, "named")).nlink, 1);
    world.assert_sound();
    world.apply(Command::DropHolders { session: ALICE, inodes: vec![file.ino] });
    assert_eq!(world.attributes(file.ino).nlink, 1);
    world.mutate_held(unlink(Ino::ROOT, "named"), &[ALICE]).unwrap();
    assert_eq!(world.mutate(link(file.ino, "again")), fs(FsError::NotFound));

    let other = world.change(unnamed).ino;
    world.apply(Command::EndSession { session: ALICE });
    assert!(read::attributes(&world.tables, other).is_err());
    world.assert_sound();
}

#[test]
fn nothing_can_be_made_in_a_removed_directory() {
    let mut world = World::new();
    let dir = world.directory("dir");
    world.mutate_held(rmdir(Ino::ROOT, "dir"), &[BOB]).unwrap();
    assert_eq!(world.attributes(dir).nlink, 0);
    assert_eq!(world.mutate(create(dir, "x", FileKind::Regular)), fs(FsError::NotFound));
    assert_eq!(listing(&world, dir), Vec::<String>::new());
    world.assert_sound();
}

#[test]
fn a_listing_under_way_shows_each_lasting_name_once() {
    let mut world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.file(name);
    }
    let dir = world.directory("dir");
    world.make(dir, "inner", FileKind::Regular);
    let (first, is_end) = read::read_directory(&world.tables, Ino::ROOT, DirCookie(0), 2, false).unwrap();
    assert!(!is_end);
    world.mutate(rename((Ino::ROOT, "a"), (Ino::ROOT, "renamed"))).unwrap();
    world.mutate(rename((dir, "inner"), (Ino::ROOT, "c"))).unwrap();
    world.mutate(unlink(Ino::ROOT, "b")).unwrap();
    world.file("new");
    let (rest, is_end) = read::read_directory(&world.tables, Ino::ROOT, first[1].cookie, 100, false).unwrap();
    assert!(is_end);
    let names: Vec<_> = rest.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    assert_eq!(names, ["c", "d", "dir", "new"]);
}

#[test]
fn times_change_as_posix_says() {
    let mut world = World::new();
    let dir = world.directory("dir");
    let file = world.make(dir, "file", FileKind::Regular);
    let born = world.attributes(file);
    world.at = world.at.plus(Duration::from_secs(10));
    world.change(link(file, "link"));
    let linked = world.attributes(file);
    assert!(linked.ctime > born.ctime && linked.mtime == born.mtime && linked.version > born.version);
    let root = world.attributes(Ino::ROOT);
    assert_eq!((root.mtime, root.ctime), (linked.ctime, linked.ctime));

    let mode = AttributeChange { mode: Some(0o4755), ..AttributeChange::default() };
    let changed = world.change(Mutation::SetAttributes { ino: file, change: mode });
    assert!(changed.mode == 0o4755 && changed.ctime > linked.ctime && changed.mtime == born.mtime);
    let sized = world.change(set_size(file, 5));
    assert_eq!((sized.size, sized.mtime, sized.ctime), (5, world.at, world.at));
    world.mutate(rename((dir, "file"), (Ino::ROOT, "moved"))).unwrap();
    for ino in [file, dir, Ino::ROOT] {
        assert_eq!(world.attributes(ino).ctime, world.at);
    }
    assert_eq!(world.attributes(dir).mtime, world.at);
}

#[test]
fn numbers_that_a_power_failure_took_back_are_not_given_again() {
    let mut world = World::new();
    let before = (world.tables.clone(), world.index);
    let lost: Vec<Ino> = (0..100).map(|number| world.file(&format!("lost {number}"))).collect();
    (world.tables, world.index) = before;
    assert_eq!(world.apply(Command::SkipNumbers), Outcome::Done);
    assert!(world.file("new") > lost[99]);
    world.assert_sound();
}

#[test]
fn inode_numbers_are_never_used_twice() {
    let mut world = World::new();
    let first = world.file("file");
    world.mutate(unlink(Ino::ROOT, "file")).unwrap();
    assert!(world.file("file") > first);
}

#[test]
fn access_times_move_forward_and_change_nothing_else() {
    let mut world = World::new();
    let file = world.file("file");
    let before = world.attributes(file);
    let later = before.atime.plus(Duration::from_secs(5));
    let note = |at| Mutation::NoteAccess { accesses: vec![Access { ino: file, at }, Access { ino: Ino(999), at }] };
    world.mutate(note(later)).unwrap();
    assert_eq!(world.attributes(file), Attributes { atime: later, ..before.clone() });
    world.mutate(note(before.atime)).unwrap();
    assert_eq!(world.attributes(file).atime, later);
    let many = Mutation::NoteAccess { accesses: vec![Access { ino: file, at: later }; ACCESSES_MAX + 1] };
    assert_eq!(world.mutate(many), fs(FsError::Invalid));
}
