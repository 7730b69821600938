//! What survives a power loss, against a reference that is simple enough to be believed.

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::sim::{Crash, World};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const FILE_BYTES_MAX: u64 = 20_000;

#[derive(Debug, Clone)]
enum Action {
    Write { offset: u64, len: u64, byte: u8 },
    SetLen(u64),
    Allocate { offset: u64, len: u64 },
    Punch { offset: u64, len: u64 },
    Sync,
    PowerLoss,
    Kill,
}

fn action() -> impl Strategy<Value = Action> {
    let range = || (0..FILE_BYTES_MAX, 1..6000u64);
    prop_oneof![
        6 => (range(), 1..=255u8).prop_map(|((offset, len), byte)| Action::Write { offset, len, byte }),
        1 => (0..FILE_BYTES_MAX).prop_map(Action::SetLen),
        1 => range().prop_map(|(offset, len)| Action::Allocate { offset, len }),
        1 => range().prop_map(|(offset, len)| Action::Punch { offset, len }),
        3 => Just(Action::Sync),
        2 => Just(Action::PowerLoss),
        1 => Just(Action::Kill),
    ]
}

/// For every byte of the file: the values that it may have after a power loss. The last is what reads show now.
/// Bytes beyond the end are zero, so that only the values matter here.
struct Reference {
    bytes: Vec<Vec<u8>>,
    lengths: Vec<u64>,
}

impl Reference {
    fn new() -> Self {
        Self { bytes: vec![vec![0]; (FILE_BYTES_MAX + 6000) as usize], lengths: vec![0] }
    }

    fn len(&self) -> u64 {
        *self.lengths.last().unwrap()
    }

    fn fill(&mut self, offset: u64, end: u64, byte: u8) {
        for values in &mut self.bytes[offset as usize..end as usize] {
            // A lost or kept cut of the length in between may leave a zero.
            values.extend([0, byte]);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len() {
            self.fill(len, FILE_BYTES_MAX + 6000, 0);
        }
        self.lengths.push(len);
    }

    fn extend_to(&mut self, end: u64) {
        // A write may survive where an earlier change of the length does not.
        self.lengths.extend(self.lengths.clone().into_iter().map(|len| len.max(end)));
        self.lengths.push(self.len().max(end));
    }

    fn current(&self) -> Vec<u8> {
        self.bytes[..self.len() as usize].iter().map(|values| *values.last().unwrap()).collect()
    }

    fn sync(&mut self) {
        let content = self.current();
        self.settle(&content);
    }

    fn settle(&mut self, content: &[u8]) {
        self.lengths = vec![content.len() as u64];
        for (index, values) in self.bytes.iter_mut().enumerate() {
            *values = vec![content.get(index).copied().unwrap_or(0)];
        }
    }

    fn assert_possible(&self, content: &[u8]) {
        let longest = *self.lengths.iter().max().unwrap();
        let shortest = *self.lengths.iter().min().unwrap();
        assert!((shortest..=longest).contains(&(content.len() as u64)), "{} bytes, expected {shortest} to {longest}", content.len());
        for (index, byte) in content.iter().enumerate() {
            assert!(self.bytes[index].contains(byte), "byte {index} is {byte}, expected one of {:?}", self.bytes[index]);
        }
    }
}

fn apply(file: &Arc<dyn DiskFile>, reference: &mut Reference, action: &Action) {
    match *action {
        Action::Write { offset, len, byte } => {
            file.write_at(&[&vec![byte; len as usize]], offset).unwrap();
            reference.fill(offset, offset + len, byte);
            reference.extend_to(offset + len);
        }
        Action::SetLen(len) => {
            file.set_len(len).unwrap();
            reference.set_len(len);
        }
        Action::Allocate { offset, len } => {
            file.allocate(offset, len).unwrap();
            reference.extend_to(offset + len);
        }
        Action::Punch { offset, len } => {
            file.punch_hole(offset, len).unwrap();
            reference.fill(offset, offset + len, 0);
        }
        Action::Sync => {
            file.sync_data().unwrap();
            reference.sync();
        }
        Action::PowerLoss | Action::Kill => unreachable!("these end the life of the file"),
    }
}

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn synced_bytes_are_kept_and_nothing_is_invented(seed in any::<u64>(), actions in vec(action(), 1..40)) {
        let world = World::new(seed);
        let node = world.node("a");
        let path = Path::new("/file");
        let disk = node.runtime().disk;
        let mut file = disk.open(path, OpenMode::CreateNew).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        let mut reference = Reference::new();
        for action in &actions {
            match action {
                Action::PowerLoss | Action::Kill => {
                    let crash = if matches!(action, Action::Kill) { Crash::Kill } else { Crash::PowerLoss };
                    node.crash(crash);
                    file = node.runtime().disk.open(path, OpenMode::ReadWrite).unwrap();
                    if crash == Crash::PowerLoss {
                        let found = content(&file);
                        reference.assert_possible(&found);
                        reference.settle(&found);
                    }
                }
                other => apply(&file, &mut reference, other),
            }
            let expected = reference.current();
            assert!(content(&file) == expected, "reads must show every write of this machine at once");
            assert_eq!(node.disk().used(), file.allocated_bytes().unwrap());
        }
    }
}

/// The contents of `/file` that power losses leave, over many seeds.
fn outcomes(prepare: impl Fn(&Arc<dyn Disk>)) -> BTreeSet<Option<Vec<u8>>> {
    let after_loss = |seed| {
        let world = World::new(seed);
        let node = world.node("a");
        prepare(&node.runtime().disk);
        node.crash(Crash::PowerLoss);
        node.disk().read(Path::new("/file")).ok()
    };
    (0..1000).map(after_loss).collect()
}

fn write_new(disk: &Arc<dyn Disk>, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new(path), OpenMode::CreateOrOpen).unwrap();
    file.write_at(&[bytes], 0).unwrap();
    file
}

#[test]
fn unsynced_writes_are_kept_lost_or_torn_at_sectors() {
    let found = outcomes(|disk| {
        let file = write_new(disk, "/file", &[1; 2048]);
        file.sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        file.write_at(&[&[2; 2048]], 0).unwrap();
    });
    let contents: Vec<&Vec<u8>> = found.iter().map(|content| content.as_ref().expect("the name was synced")).collect();
    assert!(contents.contains(&&vec![1; 2048]) && contents.contains(&&vec![2; 2048]));
    assert_eq!(contents.len(), 16, "four sectors, each old or new");
    for content in contents {
        assert!(content.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
    }
}

#[test]
fn a_new_name_needs_a_sync_of_its_directory() {
    let found = outcomes(|disk| {
        write_new(disk, "/file", b"data").sync_data().unwrap();
    });
    assert_eq!(found, BTreeSet::from([None, Some(b"data".to_vec())]));
    let found = outcomes(|disk| {
        write_new(disk, "/file", b"data").sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
    });
    assert_eq!(found, BTreeSet::from([Some(b"data".to_vec())]));
}

#[test]
fn a_removed_name_may_come_back_until_the_directory_is_synced() {
    let found = outcomes(|disk| {
        write_new(disk, "/file", b"data").sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.remove_file(Path::new("/file")).unwrap();
    });
    assert_eq!(found, BTreeSet::from([None, Some(b"data".to_vec())]));
    let found = outcomes(|disk| {
        write_new(disk, "/file", b"data").sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.remove_file(Path::new("/file")).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
    });
    assert_eq!(found, BTreeSet::from([None]));
}

#[test]
fn a_rename_leaves_the_old_or_the_new_file_whole() {
    let prepare = |disk: &Arc<dyn Disk>| {
        write_new(disk, "/file", b"old").sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        write_new(disk, "/file.new", b"newer").sync_data().unwrap();
        disk.rename(Path::new("/file.new"), Path::new("/file")).unwrap();
    };
    assert_eq!(outcomes(prepare), BTreeSet::from([Some(b"old".to_vec()), Some(b"newer".to_vec())]));
    let replaced = outcomes(|disk| {
        disk.replace(Path::new("/file"), b"old").unwrap();
        disk.replace(Path::new("/file"), b"newer").unwrap();
    });
    assert_eq!(replaced, BTreeSet::from([Some(b"newer".to_vec())]));
}

#[test]
fn a_rename_without_syncing_the_data_may_leave_an_empty_file() {
    let found = outcomes(|disk| {
        write_new(disk, "/file", b"old").sync_data().unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        write_new(disk, "/file.new", b"newer");
        disk.rename(Path::new("/file.new"), Path::new("/file")).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
    });
    assert!(found.contains(&Some(Vec::new())), "the famous trap must be there: {found:?}");
    assert!(!found.contains(&None));
}

#[test]
fn a_rename_between_directories_never_shows_both_or_neither() {
    for seed in 0..100 {
        let world = World::new(seed);
        let node = world.node("a");
        let disk = node.runtime().disk;
        for directory in ["/x", "/y"] {
            disk.create_directory_all(Path::new(directory)).unwrap();
        }
        write_new(&disk, "/x/file", b"data").sync_data().unwrap();
        for directory in ["/", "/x", "/y"] {
            disk.sync_directory(Path::new(directory)).unwrap();
        }
        disk.rename(Path::new("/x/file"), Path::new("/y/file")).unwrap();
        if seed % 2 == 0 {
            disk.sync_directory(Path::new("/x")).unwrap();
        }
        node.crash(Crash::PowerLoss);
        let files = node.disk().files();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(seed % 2 == 1 || files[0] == Path::new("/y/file"), "half of a synced rename is lost");
        assert_eq!(node.disk().read(&files[0]).unwrap(), b"data");
    }
}

#[test]
fn syncing_where_a_new_file_was_moved_to_settles_where_it_came_from() {
    for seed in 0..100 {
        let world = World::new(seed);
        let node = world.node("a");
        let disk = node.runtime().disk;
        for directory in ["/x", "/y"] {
            disk.create_directory_all(Path::new(directory)).unwrap();
        }
        disk.sync_directory(Path::new("/")).unwrap();
        write_new(&disk, "/x/file", b"data");
        disk.rename(Path::new("/x/file"), Path::new("/y/file")).unwrap();
        disk.sync_directory(Path::new("/y")).unwrap();
        node.crash(Crash::PowerLoss);
        assert_eq!(node.disk().files(), [Path::new("/y/file")], "the old name must not come back");
    }
}

#[test]
fn unsynced_names_of_a_directory_survive_in_the_order_in_which_they_were_made() {
    let names = ["/1", "/2", "/3", "/4"];
    let survivors: BTreeSet<usize> = (0..200)
        .map(|seed| {
            let world = World::new(seed);
            let node = world.node("a");
            let disk = node.runtime().disk;
            for name in names {
                write_new(&disk, name, b"data");
            }
            node.crash(Crash::PowerLoss);
            let files = node.disk().files();
            assert!(files.iter().zip(names).all(|(file, name)| file == Path::new(name)), "{files:?}");
            files.len()
        })
        .collect();
    assert_eq!(survivors, (0..=4).collect());
}

#[test]
fn syncing_one_directory_does_not_sync_another() {
    let lost = (0..100).filter(|seed| {
        let world = World::new(*seed);
        let node = world.node("a");
        let disk = node.runtime().disk;
        disk.create_directory_all(Path::new("/d")).unwrap();
        write_new(&disk, "/d/file", b"data").sync_data().unwrap();
        disk.sync_directory(Path::new("/d")).unwrap();
        node.crash(Crash::PowerLoss);
        node.disk().files().is_empty()
    });
    assert!(lost.count() > 10, "the name of the directory itself was not synced");
}
