use crate::disk::{Disk, DiskFile, OpenMode};
use crate::sim::{Crash, DiskFaults, Node, World};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const EIO: i32 = 5;
const MIB: u64 = 1 << 20;

fn node_and_disk(world: &World) -> (Node, Arc<dyn Disk>) {
    let node = world.node("a");
    let disk = node.runtime().disk;
    (node, disk)
}

fn open(disk: &Arc<dyn Disk>, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::CreateOrOpen).unwrap()
}

fn content(disk: &Arc<dyn Disk>, path: &str) -> Vec<u8> {
    disk.read(Path::new(path), 1 << 24).unwrap()
}

#[test]
fn open_modes_mean_what_they_say() {
    let world = World::new(1);
    let (_, disk) = node_and_disk(&world);
    let path = Path::new("/file");
    let kind = |mode| disk.open(path, mode).err().map(|error| error.kind());
    assert_eq!(kind(OpenMode::Read), Some(ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::ReadWrite), Some(ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::CreateNew), None);
    assert_eq!(kind(OpenMode::CreateNew), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(OpenMode::CreateOrOpen), None);
    assert!(disk.open(path, OpenMode::Read).unwrap().write_at(&[b"x"], 0).is_err());
    assert_eq!(disk.open(Path::new("/no/file"), OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open(Path::new("/file/below"), OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(disk.open(Path::new("/"), OpenMode::Read).unwrap_err().kind(), ErrorKind::IsADirectory);
}

#[test]
fn directories_list_their_names_in_order() {
    let world = World::new(1);
    let (_, disk) = node_and_disk(&world);
    disk.create_directory_all(Path::new("/d/e")).unwrap();
    disk.create_directory_all(Path::new("/d/e")).unwrap();
    open(&disk, "/d/z");
    open(&disk, "/d/b");
    let entries = disk.list(Path::new("/d")).unwrap();
    let names: Vec<(&str, bool)> = entries.iter().map(|entry| (entry.path.to_str().unwrap(), entry.is_directory)).collect();
    assert_eq!(names, [("/d/b", false), ("/d/e", true), ("/d/z", false)]);
    assert!(disk.exists(Path::new("/d/e")).unwrap() && !disk.exists(Path::new("/x/y")).unwrap());
    disk.rename(Path::new("/d/e"), Path::new("/moved")).unwrap();
    assert!(disk.exists(Path::new("/moved")).unwrap());
    assert_eq!(disk.remove_file(Path::new("/moved")).unwrap_err().kind(), ErrorKind::IsADirectory);
}

#[test]
fn an_open_file_outlives_its_name() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    file.write_at(&[b"one", b"two"], 0).unwrap();
    disk.remove_file(Path::new("/file")).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    let mut buffer = [0; 10];
    assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 5);
    assert_eq!(&buffer[..5], b"netwo");
    assert_eq!(node.disk().used(), 4096);
    drop(file);
    assert_eq!(node.disk().used(), 0);
}

#[test]
fn reserved_space_and_holes_are_accounted() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/segment");
    file.allocate(0, 1 << 33).unwrap();
    assert_eq!((file.len().unwrap(), node.disk().used()), (1 << 33, 1 << 33));
    file.write_at(&[&[7; 10_000]], 100).unwrap();
    assert_eq!(file.allocated_bytes().unwrap(), 1 << 33);
    file.punch_hole(0, 1 << 33).unwrap();
    assert_eq!((file.len().unwrap(), file.allocated_bytes().unwrap()), (1 << 33, 0));
    let mut buffer = [1; 200];
    assert_eq!(file.read_at(&mut buffer, 50).unwrap(), 200);
    assert_eq!(buffer, [0; 200]);
    file.set_len(5).unwrap();
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 5);
}

#[test]
fn a_full_disk_refuses_writes_and_deletion_helps() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    node.disk().set_capacity(MIB);
    let file = open(&disk, "/big");
    let result = file.write_at(&[&vec![1; 2 * MIB as usize]], 0);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!((file.len().unwrap(), node.disk().used()), (MIB, MIB));
    assert_eq!(disk.space(Path::new("/")).unwrap().available, 0);
    file.write_at(&[&[2; 4096]], 0).expect("overwriting takes no space");
    assert_eq!(open(&disk, "/other").allocate(0, 1).unwrap_err().kind(), ErrorKind::StorageFull);
    drop(file);
    disk.remove_file(Path::new("/big")).unwrap();
    open(&disk, "/other").allocate(0, MIB).unwrap();
}

#[test]
fn injected_errors_are_eio() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    let faults = |read_error, write_error, sync_error| DiskFaults { read_error, write_error, sync_error, ..DiskFaults::default() };
    node.disk().set_faults(faults(1.0, 0.0, 0.0));
    assert_eq!(file.read_at(&mut [0; 4], 0).unwrap_err().raw_os_error(), Some(EIO));
    assert!(file.write_at(&[b"x"], 0).is_ok() && file.sync_data().is_ok());
    node.disk().set_faults(faults(0.0, 1.0, 0.0));
    assert_eq!(file.write_at(&[b"y"], 0).unwrap_err().raw_os_error(), Some(EIO));
    assert!(file.sync_data().is_ok());
    node.disk().set_faults(faults(0.0, 0.0, 1.0));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(disk.sync_directory(Path::new("/")).unwrap_err().raw_os_error(), Some(EIO));
    node.disk().set_faults(DiskFaults { write_error: 0.5, ..DiskFaults::default() });
    let failures = (0..1000).filter(|_| file.write_at(&[b"z"], 0).is_err()).count();
    assert!((400..600).contains(&failures), "{failures} of 1000 failed");
}

#[test]
fn a_failed_sync_loses_data_even_if_a_later_one_succeeds() {
    let lost = (0..20).filter(|seed| {
        let world = World::new(*seed);
        let (node, disk) = node_and_disk(&world);
        let file = open(&disk, "/file");
        disk.sync_directory(Path::new("/")).unwrap();
        file.write_at(&[b"data"], 0).unwrap();
        node.disk().set_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
        assert!(file.sync_data().is_err());
        node.disk().set_faults(DiskFaults::default());
        file.sync_data().unwrap();
        assert_eq!(content(&disk, "/file"), b"data", "the page cache still has it");
        node.crash(Crash::PowerLoss);
        node.disk().read(Path::new("/file")).unwrap().is_empty()
    });
    let lost = lost.count();
    assert!(lost > 2 && lost < 18, "{lost} of 20 lost");
}

#[test]
fn a_killed_process_loses_nothing_and_its_handles_are_dead() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    file.write_at(&[b"kept"], 0).unwrap();
    let next = node.runtime().disk;
    assert!(file.write_at(&[b"zombie"], 0).is_err());
    assert!(file.read_at(&mut [0; 4], 0).is_err());
    assert!(disk.exists(Path::new("/file")).is_err());
    assert_eq!(content(&next, "/file"), b"kept");
    let reopened = open(&next, "/file");
    drop(file);
    next.remove_file(Path::new("/file")).unwrap();
    next.sync_directory(Path::new("/")).unwrap();
    assert_eq!(reopened.len().unwrap(), 4, "dropping a zombie handle must not close the file of the next life");
}

#[test]
fn a_lock_is_exclusive_until_dropped_or_its_life_ends() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let path = Path::new("/LOCK");
    let held = disk.lock(path).unwrap();
    assert_eq!(disk.lock(path).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    drop(held);
    let zombie = disk.lock(path).unwrap();
    let next = node.runtime().disk;
    let _held = next.lock(path).expect("the life that held it is over");
    drop(zombie);
    assert_eq!(next.lock(path).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
}

#[test]
fn a_flipped_bit_is_on_the_device() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    disk.sync_directory(Path::new("/")).unwrap();
    file.write_at(&[&[0; 5000]], 0).unwrap();
    file.sync_data().unwrap();
    node.disk().flip_bit(Path::new("/file"), 4500, 3).unwrap();
    assert!(node.disk().flip_bit(Path::new("/file"), 5000, 3).is_err());
    node.crash(Crash::PowerLoss);
    let after = node.disk().read(Path::new("/file")).unwrap();
    let changed: Vec<(usize, u8)> = after.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    assert_eq!(changed, [(4500, 8)]);
}

#[test]
fn the_power_fails_at_the_chosen_operation() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    disk.sync_directory(Path::new("/")).unwrap();
    node.disk().crash_after(2);
    file.write_at(&[b"one"], 0).unwrap();
    file.sync_data().unwrap();
    assert!(!node.disk().has_crashed());
    assert!(file.write_at(&[b"two"], 3).is_err());
    assert!(node.disk().has_crashed() && node.is_running());
    assert!(file.sync_data().is_err() && file.read_at(&mut [0; 3], 0).is_err());
    let disk = node.runtime().disk;
    assert_eq!(&content(&disk, "/file")[..3], b"one");
}

#[test]
fn the_node_can_go_with_its_power() {
    let world = World::new(1);
    let (node, disk) = node_and_disk(&world);
    node.disk().power_off_after(0);
    let runtime = node.runtime();
    assert!(disk.exists(Path::new("/")).is_err(), "that was the life before");
    node.disk().power_off_after(0);
    let disk = runtime.disk.clone();
    runtime.clone().spawn("writes", async move {
        let result = runtime.blocking(move || disk.open(Path::new("/file"), OpenMode::CreateNew)).await;
        unreachable!("the node is off, but its task goes on with {result:?}");
    });
    world.run_for(Duration::from_secs(1));
    assert!(!node.is_running());
    node.runtime();
    assert!(!node.disk().has_crashed());
}

#[test]
fn a_slow_disk_delays_blocking_work() {
    let world = World::new(1);
    let node = world.node("a");
    let runtime = node.runtime();
    node.disk().set_faults(DiskFaults { slowness: 10_000, ..DiskFaults::default() });
    world.run_until(runtime.blocking(|| ()));
    assert!(world.now().nanos() > 10_000_000);
}

#[test]
fn reads_find_their_pages_in_memory_sometimes() {
    let world = World::new(1);
    let (_, disk) = node_and_disk(&world);
    let file = open(&disk, "/file");
    file.write_at(&[b"data"], 0).unwrap();
    let results: Vec<Option<usize>> = (0..100).map(|_| file.read_at_if_cached(&mut [0; 10], 0).unwrap()).collect();
    assert!(results.contains(&None) && results.contains(&Some(4)));
}
