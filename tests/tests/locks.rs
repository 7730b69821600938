//! Locks between clients, with a real master: what one holds no other gets, through crashes of the master, lost messages and callers who leave.

use cairn_client::{FileSystem, Handle, OpenFlags};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner, LockRange};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::LockPatience;
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Crash, NetworkFaults, World};
use cairn_tests::cluster::{SimCluster, live};
use std::cell::Cell;
use std::time::Duration;

const EXCLUSIVE: Option<LockMode> = Some(LockMode::Exclusive);
const SHARED: Option<LockMode> = Some(LockMode::Shared);

struct User {
    runtime: Runtime,
    fs: FileSystem,
    ino: Ino,
    handle: Handle,
}

impl User {
    async fn new(cluster: &SimCluster, name: &str) -> Self {
        let (runtime, fs) = cluster.client(name).await;
        cluster.wait_until_whole(&fs).await;
        let inode = NewInode {
            kind: FileKind::Regular,
            mode: 0o644,
            owner: Owner { uid: 0, gid: 0 },
            rdev: 0,
            symlink_target: Vec::new(),
            umask: 0,
        };
        let (attributes, opened) = fs.create_open(Ino::ROOT, b"file", inode, true, OpenFlags::READ_WRITE).await.expect("made or opened");
        Self { runtime, fs, ino: attributes.ino, handle: opened.handle }
    }

    fn claim(&self, owner: u64, mode: Option<LockMode>) -> LockClaim {
        let range = LockRange { first: 0, last: u64::MAX };
        LockClaim { ino: self.ino, family: LockFamily::Posix, owner: LockOwner(owner), pid: 1, range, mode }
    }

    async fn lock(&self, owner: u64, mode: Option<LockMode>, patience: LockPatience) -> Result<(), FsError> {
        self.fs.lock(self.handle, self.claim(owner, mode), patience).await.map(drop)
    }

    async fn try_lock(&self, owner: u64, mode: Option<LockMode>) -> Result<(), FsError> {
        self.lock(owner, mode, LockPatience::None).await
    }
}

async fn cluster(world: &World) -> SimCluster {
    SimCluster::start(world.clone(), Scheme::new(2, 1).expect("a scheme"), 3).await
}

#[test]
fn a_lock_outlives_the_master_and_ends_with_its_descriptor() {
    live(5, |world| async move {
        let cluster = cluster(&world).await;
        let (one, two) = (User::new(&cluster, "one").await, User::new(&cluster, "two").await);
        one.try_lock(1, EXCLUSIVE).await.expect("nobody has it");
        assert_eq!(two.try_lock(1, SHARED).await, Err(FsError::WouldBlock));
        assert_eq!(one.try_lock(2, SHARED).await, Err(FsError::WouldBlock), "another process of the same machine");
        cluster.crash_master(if world.seed().is_multiple_of(2) { Crash::Kill } else { Crash::PowerLoss });
        world.sleep(Duration::from_secs(1)).await;
        cluster.start_master().await;
        assert_eq!(two.try_lock(1, SHARED).await, Err(FsError::WouldBlock), "the first one comes back with its lock");
        let seen = two.fs.test_lock(two.claim(1, SHARED)).await.expect("answered").expect("it is in the way");
        assert_eq!((seen.mode, seen.pid), (LockMode::Exclusive, 0));
        one.fs.release(one.handle).expect("open");
        two.lock(1, SHARED, LockPatience::Waits).await.expect("let go of with the descriptor");
    });
}

#[test]
fn a_closed_descriptor_is_not_in_the_way_of_the_next_one() {
    live(5, |world| async move {
        let cluster = cluster(&world).await;
        let one = User::new(&cluster, "one").await;
        for owner in 1..20 {
            let opened = one.fs.open(one.ino, OpenFlags::READ_WRITE).await.expect("opened");
            let claim = LockClaim { family: LockFamily::Flock, ..one.claim(owner, EXCLUSIVE) };
            one.fs.lock(opened.handle, claim, LockPatience::None).await.expect("the one before was closed");
            one.fs.release(opened.handle).expect("open");
        }
    });
}

#[test]
fn close_lets_go_of_the_locks_of_the_process_through_whichever_descriptor() {
    live(1, |world| async move {
        let cluster = cluster(&world).await;
        let (one, two) = (User::new(&cluster, "one").await, User::new(&cluster, "two").await);
        let second = one.fs.open(one.ino, OpenFlags::READ).await.expect("opened");
        one.try_lock(1, EXCLUSIVE).await.expect("nobody has it");
        one.fs.flush_and_unlock(second.handle, LockOwner(2)).await.expect("another process");
        assert_eq!(two.try_lock(1, SHARED).await, Err(FsError::WouldBlock));
        one.fs.flush_and_unlock(second.handle, LockOwner(1)).await.expect("closed");
        two.try_lock(1, SHARED).await.expect("free");
    });
}

#[test]
fn a_caller_who_leaves_has_no_more_than_before() {
    live(20, |world| async move {
        let cluster = cluster(&world).await;
        let (one, two) = (User::new(&cluster, "one").await, User::new(&cluster, "two").await);
        two.try_lock(1, SHARED).await.expect("nobody has it");
        one.try_lock(1, SHARED).await.expect("they share");
        // It leaves at any moment: before the call arrives, while it waits, or just when it is granted.
        let patience = Duration::from_micros(world.seed() * 150);
        let waiting = two.runtime.timeout(patience, two.lock(1, EXCLUSIVE, LockPatience::Waits));
        let (left, released) = futures_util::join!(waiting, async {
            world.sleep(Duration::from_millis(1)).await;
            one.try_lock(1, None).await
        });
        released.expect("let go");
        world.sleep(Duration::from_secs(10)).await;
        match left {
            Ok(granted) => granted.expect("granted"),
            Err(_) => {
                one.try_lock(1, SHARED).await.expect("the other one has but a shared lock");
                assert_eq!(one.try_lock(1, EXCLUSIVE).await, Err(FsError::WouldBlock), "and still that");
            }
        }
    });
}

#[test]
fn a_circle_of_waits_across_clients_is_a_deadlock() {
    live(1, |world| async move {
        let cluster = cluster(&world).await;
        let (one, two) = (User::new(&cluster, "one").await, User::new(&cluster, "two").await);
        let part = |user: &User, byte, mode| LockClaim { range: LockRange { first: byte, last: byte }, ..user.claim(1, mode) };
        one.fs.lock(one.handle, part(&one, 1, EXCLUSIVE), LockPatience::None).await.expect("free");
        two.fs.lock(two.handle, part(&two, 2, EXCLUSIVE), LockPatience::None).await.expect("free");
        let first = one.fs.lock(one.handle, part(&one, 2, EXCLUSIVE), LockPatience::WaitsIfItEnds);
        let second = async {
            world.sleep(Duration::from_secs(5)).await;
            let refused = two.fs.lock(two.handle, part(&two, 1, EXCLUSIVE), LockPatience::WaitsIfItEnds).await;
            assert_eq!(refused, Err(FsError::Deadlock));
            two.fs.lock(two.handle, part(&two, 2, None), LockPatience::None).await.expect("let go");
        };
        let (first, ()) = futures_util::join!(first, second);
        first.expect("the other one gave way");
    });
}

#[test]
fn whoever_was_cut_off_for_too_long_learns_that_its_locks_are_gone() {
    live(2, |world| async move {
        let cluster = cluster(&world).await;
        let (one, two) = (User::new(&cluster, "one").await, User::new(&cluster, "two").await);
        one.try_lock(1, EXCLUSIVE).await.expect("nobody has it");
        world.network().partition(&world.node("one"), &cluster.master);
        two.lock(1, EXCLUSIVE, LockPatience::Waits).await.expect("the dead hold nothing for long");
        world.network().heal();
        world.sleep(Duration::from_secs(30)).await;
        assert_eq!(one.fs.read(one.handle, 0, 1).await, Err(FsError::Io));
        assert_eq!(one.fs.write(one.handle, 0, b"x").await, Err(FsError::Io));
        assert_eq!(one.try_lock(1, SHARED).await, Err(FsError::Io));
        one.fs.release(one.handle).expect("open");
        let again = one.fs.open(one.ino, OpenFlags::READ_WRITE).await.expect("opened");
        two.try_lock(1, None).await.expect("let go");
        one.fs.lock(again.handle, one.claim(1, EXCLUSIVE), LockPatience::Waits).await.expect("a new descriptor is as good as any");
    });
}

/// A counter in a file, which each user reads, increments and writes under a lock: none gets lost, and never are two in the critical section.
#[test]
fn a_counter_under_a_lock_loses_no_increment() {
    const ROUNDS: u64 = 12;
    live(12, |world| async move {
        let cluster = cluster(&world).await;
        let users = [User::new(&cluster, "one").await, User::new(&cluster, "two").await, User::new(&cluster, "three").await];
        users[0].fs.write(users[0].handle, 0, &0u64.to_le_bytes()).await.expect("written");
        users[0].fs.flush(users[0].handle).await.expect("closed");
        if !world.seed().is_multiple_of(3) {
            world.network().set_faults(NetworkFaults::lossy());
        }
        let inside = Cell::new(0);
        let count = |user: usize| {
            let (user, inside, world) = (&users[user], &inside, &world);
            async move {
                for _ in 0..ROUNDS {
                    user.lock(7, EXCLUSIVE, LockPatience::Waits).await.expect("granted");
                    inside.set(inside.get() + 1);
                    assert_eq!(inside.get(), 1, "somebody else is in there");
                    let value = user.fs.read(user.handle, 0, 8).await.expect("read");
                    let value = u64::from_le_bytes(value[..].try_into().expect("8 bytes"));
                    world.sleep(Duration::from_millis(20)).await;
                    user.fs.write(user.handle, 0, &(value + 1).to_le_bytes()).await.expect("written");
                    inside.set(inside.get() - 1);
                    user.lock(7, None, LockPatience::None).await.expect("let go");
                }
            }
        };
        let trouble = async {
            for _ in 0..2 {
                world.sleep(Duration::from_millis(400)).await;
                cluster.crash_master(Crash::Kill);
                world.sleep(Duration::from_millis(300)).await;
                cluster.start_master().await;
            }
        };
        futures_util::join!(count(0), count(1), count(2), trouble);
        world.network().set_faults(NetworkFaults::default());
        let (_, observer) = cluster.client("observer").await;
        let opened = observer.open(users[0].ino, OpenFlags::READ).await.expect("opened");
        let value = observer.read(opened.handle, 0, 8).await.expect("read");
        assert_eq!(u64::from_le_bytes(value[..].try_into().expect("8 bytes")), 3 * ROUNDS);
    });
}
