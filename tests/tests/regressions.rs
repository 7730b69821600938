//! What simulated worlds have found, each as small as it gets.

use cairn_client::{FileSystem, Handle, OpenFlags};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::RenameMode;
use cairn_runtime::sim::{Crash, DiskFaults, block_on_world};
use cairn_tests::cluster::SimCluster;
use cairn_tests::simulation::live_through;
use std::cell::Cell;
use std::time::Duration;

fn new_inode(kind: FileKind, symlink_target: &[u8]) -> NewInode {
    NewInode { kind, mode: 0o644, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target: symlink_target.to_vec(), umask: 0 }
}

async fn create(fs: &FileSystem, name: &[u8]) -> (Ino, Handle) {
    let made = fs.create_open(Ino::ROOT, name, new_inode(FileKind::Regular, b""), true, OpenFlags::READ_WRITE).await;
    let (attributes, opened) = made.expect("made");
    (attributes.ino, opened.handle)
}

async fn rename(fs: &FileSystem, from: &[u8], to: &[u8]) {
    fs.rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).await.expect("renamed");
}

/// Runs a test with a small cluster and a client.
fn with_cluster<F: Future<Output = ()>>(seed: u64, body: impl FnOnce(SimCluster, FileSystem) -> F) {
    block_on_world(seed, |world| async move {
        let cluster = SimCluster::start(world, Scheme::new(2, 1).expect("a scheme"), 3).await;
        let (_, fs) = cluster.client("client").await;
        cluster.wait_until_whole(&fs).await;
        body(cluster, fs).await;
    });
}

/// Seed 265: a name about which nothing was remembered was renamed without the content that was written under it.
#[test]
fn a_rename_takes_the_content_along_even_if_the_name_was_forgotten() {
    with_cluster(1, |cluster, fs| async move {
        let (_, handle) = create(&fs, b"old").await;
        fs.write(handle, 0, b"content").await.expect("written");
        // What fails on a name makes the client forget it.
        let refused = fs.create(Ino::ROOT, b"old", new_inode(FileKind::Symlink, b"elsewhere"), false).await;
        assert_eq!(refused.map(|_| ()), Err(FsError::Exists));
        rename(&fs, b"old", b"new").await;
        cluster.world.node("client").crash(Crash::Kill);
        let (_, other) = cluster.client("other").await;
        let ino = other.lookup(Ino::ROOT, b"new").await.expect("there").ino;
        let opened = other.open(ino, OpenFlags::READ).await.expect("opened");
        assert_eq!(other.read(opened.handle, 0, 100).await.expect("read"), &b"content"[..]);
    });
}

/// By reading the code of the above: the old name counted as gone if nothing was known of the new one, though both named one file.
#[test]
fn renaming_one_name_of_a_file_over_another_keeps_both() {
    with_cluster(2, |_, fs| async move {
        let (ino, _) = create(&fs, b"one").await;
        fs.link(ino, Ino::ROOT, b"two").await.expect("linked");
        let refused = fs.create(Ino::ROOT, b"two", new_inode(FileKind::Symlink, b"elsewhere"), false).await;
        assert_eq!(refused.map(|_| ()), Err(FsError::Exists));
        rename(&fs, b"one", b"two").await;
        assert_eq!(fs.lookup(Ino::ROOT, b"one").await.map(|found| found.ino), Ok(ino));
        assert_eq!(fs.lookup(Ino::ROOT, b"two").await.map(|found| found.ino), Ok(ino));
    });
}

/// Seed 42 of the first cut: after a failed sync the log held what the page cache showed and the disk had never got.
#[test]
fn a_master_that_failed_to_sync_loses_nothing_when_it_loses_power_later() {
    for seed in 0..20 {
        block_on_world(seed, |world| async move {
            let cluster = SimCluster::off(world.clone(), Scheme::new(2, 1).expect("a scheme"), 3);
            cluster.launch_master(drop);
            let (_, fs) = cluster.client("client").await;
            for number in 0..5 {
                create(&fs, format!("before-{number}").as_bytes()).await;
            }
            cluster.master.disk().set_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
            let lost = fs.create(Ino::ROOT, b"between", new_inode(FileKind::Regular, b""), false);
            // The master answers, or it is gone before it does.
            futures_util::future::select(Box::pin(lost), Box::pin(world.sleep(Duration::from_secs(1)))).await;
            cluster.master.disk().set_faults(DiskFaults::default());
            cluster.launch_master(drop);
            create(&fs, b"after").await;
            fs.sync_directory(Ino::ROOT).await.expect("synced");
            cluster.master.crash(Crash::PowerLoss);
            cluster.launch_master(|reason| panic!("the master stopped: {reason}"));
            for name in ["before-0", "before-4", "after"] {
                world.sleep(Duration::from_secs(2)).await;
                fs.lookup(Ino::ROOT, name.as_bytes()).await.unwrap_or_else(|error| panic!("seed {seed}: {name}: {error}"));
            }
        });
    }
}

/// Known from the start: a master that loses power forgets what it answered last, which is all that close(2) and create promise. An fsync afterwards
/// must not say that it is on stable storage.
#[test]
fn an_fsync_tells_what_a_loss_of_power_of_the_master_has_taken() {
    let taken = [const { Cell::new(0) }; 2];
    for seed in 0..20 {
        with_cluster(seed, |cluster, fs| {
            let taken = &taken;
            async move {
                let (old, handle) = create(&fs, b"old").await;
                fs.write(handle, 0, b"synced").await.expect("written");
                fs.fsync(handle, false).await.expect("synced");
                fs.sync_directory(Ino::ROOT).await.expect("synced");
                fs.write(handle, 0, b"closed").await.expect("written");
                fs.flush(handle).await.expect("closed");
                fs.create(Ino::ROOT, b"new", new_inode(FileKind::Regular, b""), false).await.expect("made");
                cluster.master.crash(Crash::PowerLoss);
                cluster.launch_master(|reason| panic!("the master stopped: {reason}"));
                let (file, directory) = (fs.fsync(handle, false).await, fs.sync_directory(Ino::ROOT).await);
                let (_, other) = cluster.client("other").await;
                let opened = other.open(old, OpenFlags::READ).await.expect("opened");
                let found = other.read(opened.handle, 0, 100).await.expect("read");
                let is_there = other.lookup(Ino::ROOT, b"new").await.is_ok();
                assert_eq!(file, if found == b"closed"[..] { Ok(()) } else { Err(FsError::Io) }, "{found:?}");
                assert_eq!(directory, if is_there { Ok(()) } else { Err(FsError::Io) });
                // It is told once, and then all goes on.
                fs.sync_directory(Ino::ROOT).await.expect("told before");
                fs.write(handle, 0, b"again!").await.expect("written");
                fs.fsync(handle, false).await.expect("told before");
                let again = other.open(old, OpenFlags::READ).await.expect("opened");
                assert_eq!(other.read(again.handle, 0, 100).await.expect("read"), &b"again!"[..]);
                taken[0].update(|count| count + usize::from(file.is_err()));
                taken[1].update(|count| count + usize::from(directory.is_err()));
            }
        });
    }
    assert!(taken.iter().all(|count| (1..20).contains(&count.get())), "both ends of the coin: {taken:?}");
}

/// Seeds that once failed. They stand for what they found only as long as the code takes the same steps.
#[test]
fn seeds_that_failed_once() {
    for seed in [42, 214, 265, 363, 380, 609, 679] {
        let outcome = live_through(seed, false);
        assert!(outcome.violations.is_empty(), "seed {seed} ({:?}): {:#?}", outcome.plan, outcome.violations);
    }
}
