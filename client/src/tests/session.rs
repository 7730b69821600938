//! The session: waiting for the master, coming back, what is open and what was closed.

use super::fake_master::FakeMaster;
use super::world::{PORT, Pair, credentials, new_file, settings_for};
use crate::{FileSystem, OpenFlags, StartError};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::wire::master::Role;
use cairn_runtime::sim::{Crash, World, block_on_world};
use futures_util::FutureExt;
use std::time::Duration;

fn open_at_master(pair: &Pair) -> Vec<Ino> {
    pair.master.with(|state| state.sessions.values().flat_map(|session| session.open.iter().copied()).collect())
}

#[test]
fn operations_wait_while_the_master_is_away_and_go_on_when_it_is_back() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        let begun = pair.runtime.now();
        let (found, ()) = futures_util::join!(pair.fs.attributes(ino), pair.restart_master(Duration::from_secs(90)));
        assert!(found.is_ok(), "{found:?}");
        assert!((90..100).contains(&pair.elapsed(begun).as_secs()), "{:?}", pair.elapsed(begun));
        assert_eq!(pair.master.with(|state| state.sessions.len()), 1, "it is the same session");
    });
}

#[test]
fn patience_ends_at_the_limit() {
    block_on_world(1, |world| async move {
        let pair = Pair::with(world, FakeMaster::default(), |settings| settings.master_wait = Duration::from_secs(30)).await;
        let ino = pair.master.make("f");
        pair.master_node.crash(Crash::Kill);
        let begun = pair.runtime.now();
        assert_eq!(pair.fs.attributes(ino).await, Err(FsError::Io));
        assert_eq!(pair.fs.create(Ino::ROOT, b"a", new_file(), false).await, Err(FsError::Io));
        assert_eq!(pair.elapsed(begun).as_secs(), 60);
    });
}

#[test]
fn a_hung_master_is_noticed_and_waited_for() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        pair.master.with(|state| state.faults.silent = true);
        let wake = async {
            world.sleep(Duration::from_secs(20)).await;
            pair.master.with(|state| state.faults.silent = false);
        };
        let begun = pair.runtime.now();
        let (found, ()) = futures_util::join!(pair.fs.attributes(ino), wake);
        assert!(found.is_ok());
        assert!(pair.elapsed(begun) < Duration::from_secs(30), "{:?}", pair.elapsed(begun));
    });
}

#[test]
fn a_master_that_asks_to_come_again_is_asked_again() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        pair.master.with(|state| state.faults.unavailable = true);
        let relent = async {
            world.sleep(Duration::from_secs(3)).await;
            pair.master.with(|state| state.faults.unavailable = false);
        };
        let (made, ()) = futures_util::join!(pair.fs.create(Ino::ROOT, b"a", new_file(), false), relent);
        assert!(made.is_ok());
        assert_eq!(pair.master.with(|state| state.made[b"a".as_slice()]), 1);
    });
}

#[test]
fn the_start_says_why_it_failed() {
    block_on_world(1, |world: World| async move {
        let (master, client) = (world.node("master"), world.node("client"));
        let runtime = client.runtime();
        let begun = runtime.now();
        let nobody = FileSystem::connect(runtime.clone(), settings_for(&master)).await.err();
        assert!(matches!(nobody, Some(StartError::NoMaster { .. })), "{nobody:?}");
        assert_eq!(runtime.now().since(begun).as_secs(), 10);
        let stranger = master.runtime();
        let endpoint = stranger.network.bind(super::world::any(PORT), credentials(Role::Chunkserver, "s")).expect("a free port");
        let untrusted = FileSystem::connect(runtime.clone(), settings_for(&master)).await.err();
        assert!(matches!(untrusted, Some(StartError::Untrusted(_))), "{untrusted:?}");
        endpoint.close();
        let fake = FakeMaster::default();
        fake.serve(&master.runtime(), PORT);
        let mut settings = settings_for(&master);
        settings.pool = Some("fast".to_owned());
        let no_pool = FileSystem::connect(runtime, settings).await.err();
        assert!(matches!(no_pool, Some(StartError::NoSuchPool { .. })), "{no_pool:?}");
    });
}

#[test]
fn the_master_learns_what_is_open_and_what_was_closed() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        let first = pair.fs.open(ino, OpenFlags::READ).await.expect("it is there");
        let second = pair.fs.open(ino, OpenFlags::READ).await.expect("it is there");
        pair.fs.release(first.handle).expect("open");
        world.sleep(Duration::from_secs(12)).await;
        assert_eq!(open_at_master(&pair), [ino], "one handle is left");
        pair.restart_master(Duration::from_secs(1)).await;
        world.sleep(Duration::from_secs(12)).await;
        assert_eq!(open_at_master(&pair), [ino]);
        pair.fs.release(second.handle).expect("open");
        assert_eq!(pair.fs.release(second.handle), Err(FsError::BadHandle));
        world.sleep(Duration::from_secs(6)).await;
        assert_eq!(open_at_master(&pair), []);
    });
}

#[test]
fn an_unlinked_file_is_let_go_of_at_once() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let flags = OpenFlags::READ_WRITE;
        let (attributes, opened) = pair.fs.create_open(Ino::ROOT, b"t", new_file(), false, flags).await.expect("a new file");
        pair.fs.unlink(Ino::ROOT, b"t").await.expect("it is there");
        assert_eq!(pair.fs.attributes(attributes.ino).await.map(|attributes| attributes.nlink), Ok(0));
        assert_eq!(open_at_master(&pair), [attributes.ino]);
        pair.fs.release(opened.handle).expect("open");
        world.sleep(Duration::from_millis(100)).await;
        assert_eq!(open_at_master(&pair), [], "without waiting for the next renewal");
    });
}

#[test]
fn an_opening_whose_caller_left_is_closed_again() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let flags = OpenFlags::READ_WRITE;
        let mut creation = Box::pin(pair.fs.create_open(Ino::ROOT, b"t", new_file(), false, flags));
        assert!(creation.as_mut().now_or_never().is_none());
        drop(creation);
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(open_at_master(&pair).len(), 1);
        world.sleep(Duration::from_secs(6)).await;
        assert_eq!(open_at_master(&pair), []);
    });
}

#[test]
fn an_inode_opened_while_it_is_told_as_closed_stays_open() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        for round in 0..40 {
            let opened = pair.fs.open(ino, OpenFlags::READ).await.expect("it is there");
            pair.fs.release(opened.handle).expect("open");
            pair.fs.0.link.renew_soon();
            world.sleep(Duration::from_micros(round * 20)).await;
            let (_, again) = pair.fs.create_open(Ino::ROOT, b"f", new_file(), true, OpenFlags::READ).await.expect("an existing file");
            world.sleep(Duration::from_secs(6)).await;
            assert_eq!(open_at_master(&pair), [ino], "round {round}");
            pair.fs.release(again.handle).expect("open");
        }
    });
}

#[test]
fn the_shutdown_ends_the_session_and_whatever_waits() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        pair.fs.shutdown().await.expect("nothing is dirty");
        assert_eq!(pair.master.with(|state| state.sessions.len()), 0);
        assert_eq!(pair.fs.attributes(ino).await, Err(FsError::Io));
    });
}
