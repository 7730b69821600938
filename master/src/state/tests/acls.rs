//! Access lists: what they do to modes, what modes do to them, and who inherits them.

use super::world::{World, new_inode};
use crate::state::read;
use cairn_common::acl::{ACCESS, Acl, DEFAULT};
use cairn_common::attributes::{AttributeChange, FileKind, NewInode};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::{MasterError, Mutation, XattrMode};

/// Tag and permissions; the named user is 7.
fn list(entries: &[(u16, u16)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(tag, permissions)| {
        let id: u32 = if *tag == USER { 7 } else { u32::MAX };
        [tag.to_le_bytes(), permissions.to_le_bytes()].concat().into_iter().chain(id.to_le_bytes())
    });
    2u32.to_le_bytes().into_iter().chain(entries).collect()
}

const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP: u16 = 4;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn extended(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    list(&[(OWNER, owner), (USER, user), (GROUP, group), (MASK, mask), (OTHER, other)])
}

fn set(ino: Ino, name: &[u8], value: Vec<u8>) -> Mutation {
    Mutation::SetXattr { ino, name: name.to_vec(), value, mode: XattrMode::Set }
}

fn stored(world: &World, ino: Ino, name: &[u8]) -> Option<Vec<u8>> {
    read::get_xattr(&world.tables, ino, name).ok()
}

fn chmod(ino: Ino, mode: u16) -> Mutation {
    Mutation::SetAttributes { ino, change: AttributeChange { mode: Some(mode), ..AttributeChange::default() } }
}

fn make(world: &mut World, parent: Ino, name: &str, kind: FileKind, mode: u16, umask: u16) -> Ino {
    let inode = NewInode { mode, umask, ..new_inode(kind) };
    world.change(Mutation::Create { parent, name: name.into(), inode, open: false, or_existing: false }).ino
}

#[test]
fn the_mode_follows_the_list_and_the_list_the_mode() {
    let mut world = World::new();
    let file = world.file("file");
    world.mutate(chmod(file, 0o4640)).unwrap();
    world.mutate(set(file, ACCESS, extended(6, 6, 4, 6, 0))).unwrap();
    assert_eq!(world.attributes(file).mode, 0o4660, "the bits of the group are the mask");
    assert!(world.attributes(file).has_xattrs);
    world.mutate(chmod(file, 0o705)).unwrap();
    assert_eq!(stored(&world, file, ACCESS), Some(extended(7, 6, 4, 0, 5)));
    world.mutate(set(file, ACCESS, list(&[(OWNER, 6), (GROUP, 4), (OTHER, 4)]))).unwrap();
    assert_eq!((world.attributes(file).mode, world.attributes(file).has_xattrs), (0o644, false), "a mode says it all");
    assert_eq!(stored(&world, file, ACCESS), None);
    world.mutate(chmod(file, 0o600)).unwrap();
    world.assert_sound();
}

#[test]
fn the_default_list_of_a_directory_decides_instead_of_the_umask() {
    let mut world = World::new();
    let dir = world.directory("dir");
    let plain = make(&mut world, dir, "plain", FileKind::Regular, 0o666, 0o027);
    assert_eq!(world.attributes(plain).mode, 0o640);
    let default = extended(7, 7, 5, 7, 0);
    world.mutate(set(dir, DEFAULT, default.clone())).unwrap();
    let dir_mode = world.attributes(dir).mode;
    assert_eq!(dir_mode, 0o640, "a default list says nothing about the directory itself");

    let file = make(&mut world, dir, "file", FileKind::Regular, 0o666, 0o077);
    assert_eq!(world.attributes(file).mode, 0o660);
    assert_eq!(stored(&world, file, ACCESS), Some(extended(6, 7, 5, 6, 0)));
    assert_eq!(stored(&world, file, DEFAULT), None);
    let below = make(&mut world, dir, "below", FileKind::Directory, 0o755, 0o077);
    assert_eq!((stored(&world, below, DEFAULT), stored(&world, below, ACCESS)), (Some(default), Some(extended(7, 7, 5, 5, 0))));
    let symlink = make(&mut world, dir, "symlink", FileKind::Symlink, 0o777, 0o077);
    assert_eq!((world.attributes(symlink).mode, world.attributes(symlink).has_xattrs), (0o777, false));

    world.mutate(set(dir, DEFAULT, list(&[(OWNER, 7), (GROUP, 5), (OTHER, 0)]))).unwrap();
    let short = make(&mut world, dir, "short", FileKind::Regular, 0o666, 0o777);
    assert_eq!((world.attributes(short).mode, world.attributes(short).has_xattrs), (0o640, false));
    world.mutate(Mutation::RemoveXattr { ino: dir, name: DEFAULT.to_vec() }).unwrap();
    let masked = make(&mut world, dir, "masked", FileKind::Fifo, 0o666, 0o022);
    assert_eq!(world.attributes(masked).mode, 0o644);
    world.assert_sound();
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    let mut world = World::new();
    let file = world.file("file");
    let symlink = world.make(Ino::ROOT, "symlink", FileKind::Symlink);
    let good = extended(6, 6, 4, 6, 0);
    assert!(Acl::decode(&good).is_ok());
    let cases = [
        (set(file, ACCESS, good[..good.len() - 1].to_vec()), FsError::Invalid),
        (set(file, ACCESS, list(&[(OWNER, 6), (USER, 6), (GROUP, 4), (OTHER, 4)])), FsError::Invalid),
        (set(file, DEFAULT, good.clone()), FsError::AccessDenied),
        (set(symlink, ACCESS, good), FsError::NotSupported),
    ];
    for (mutation, error) in cases {
        assert_eq!(world.mutate(mutation.clone()), Err(MasterError::Fs(error)), "{mutation:?}");
    }
    world.assert_sound();
}
