//! Every mutation is done once, whatever happens to its requests and replies.

use super::fake_master::{FakeFaults, FakeMaster};
use super::world::{Pair, new_file};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, Sequence};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, MasterError, Mutation, Puts};
use cairn_runtime::sim::{NetworkFaults, block_on_world, for_each_seed};
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::time::Duration;

const TASKS: usize = 6;
const FILES_PER_TASK: usize = 12;

#[test]
fn creations_happen_once_though_replies_are_lost_and_the_master_restarts() {
    for_each_seed(12, |seed| {
        block_on_world(seed, |world| async move {
            let pair = Pair::new(world.clone()).await;
            world.network().set_faults(NetworkFaults::lossy());
            let faults = FakeFaults { dropped: 10, late: 10, lateness: Duration::from_secs(6), ..FakeFaults::default() };
            pair.master.with(|state| state.faults = faults);
            let create_all = join_all((0..TASKS).map(|task| {
                let fs = pair.fs.clone();
                async move {
                    for number in 0..FILES_PER_TASK {
                        let name = format!("{task}-{number}");
                        fs.create(Ino::ROOT, name.as_bytes(), new_file(), false).await.expect("no creation fails");
                    }
                }
            }));
            let chaos = async {
                for _ in 0..4 {
                    world.sleep(Duration::from_millis(500 + pair.runtime.random_u64() % 6000)).await;
                    pair.restart_master(Duration::from_millis(pair.runtime.random_u64() % 3000)).await;
                }
            };
            futures_util::join!(create_all, chaos);
            assert!(pair.fs.counters().master_retries > 0, "the faults had no effect");
            pair.master.with(|state| {
                assert_eq!(state.made.len(), TASKS * FILES_PER_TASK);
                assert!(state.made.values().all(|times| *times == 1), "{:?}", state.made);
                assert_eq!(state.sessions.len(), 1, "the session survives");
                state.faults = FakeFaults::default();
            });
            // The next mutation acknowledges all that went before.
            pair.fs.create(Ino::ROOT, b"last", new_file(), false).await.expect("it is calm now");
            let acknowledged = pair.master.with(|state| state.sessions.values().next().map(|session| session.acknowledged));
            assert_eq!(acknowledged, Some(Sequence((TASKS * FILES_PER_TASK) as u64)));
        });
    });
}

#[test]
fn a_mutation_whose_caller_left_is_driven_to_its_answer() {
    block_on_world(3, |world| async move {
        let pair = Pair::new(world.clone()).await;
        pair.master.with(|state| state.faults.dropped = 100);
        let mut creation = Box::pin(pair.fs.create(Ino::ROOT, b"a", new_file(), false));
        assert!(creation.as_mut().now_or_never().is_none());
        world.sleep(Duration::from_millis(5)).await;
        drop(creation);
        pair.master.with(|state| state.faults.dropped = 0);
        world.sleep(Duration::from_secs(3)).await;
        assert_eq!(pair.master.with(|state| state.made.get(b"a".as_slice()).copied()), Some(1));
        pair.fs.create(Ino::ROOT, b"b", new_file(), false).await.expect("a creation");
        let acknowledged = pair.master.with(|state| state.sessions.values().next().map(|session| session.acknowledged));
        assert_eq!(acknowledged, Some(Sequence(1)), "the abandoned one was answered");
    });
}

#[test]
fn a_mutation_that_was_never_sent_is_given_up_with_its_caller() {
    block_on_world(3, |world| async move {
        let pair = Pair::new(world.clone()).await;
        pair.master_node.crash(cairn_runtime::sim::Crash::Kill);
        world.sleep(Duration::from_secs(30)).await;
        let mut creation = Box::pin(pair.fs.create(Ino::ROOT, b"a", new_file(), false));
        assert!(creation.as_mut().now_or_never().is_none());
        world.sleep(Duration::from_secs(1)).await;
        drop(creation);
        pair.restart_master(Duration::ZERO).await;
        world.sleep(Duration::from_secs(10)).await;
        assert!(pair.master.with(|state| state.made.is_empty()), "nobody wants it any more");
    });
}

#[test]
fn when_the_session_is_gone_the_unknown_is_reported_and_commits_are_up_to_the_data_path() {
    block_on_world(3, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        pair.master.with(|state| state.faults.dropped = 100);
        let creation = pair.fs.create(Ino::ROOT, b"a", new_file(), false);
        let files = vec![FileCommit { ino, extents: Vec::new(), size_at_least: 9, mtime: Timestamp::EPOCH }];
        let session = pair.fs.0.link.session();
        let commit = pair.fs.0.link.mutate_in(session, Mutation::Commit { files, chunks: Vec::new() }, false);
        let forget = async {
            world.sleep(Duration::from_millis(3)).await;
            pair.master.with(|state| {
                state.sessions.clear();
                state.faults.dropped = 0;
            });
        };
        let (created, committed, ()) = futures_util::join!(creation, commit, forget);
        assert_eq!(created.err(), Some(FsError::Io), "nobody can know whether it was done");
        assert_eq!(committed.err(), Some(crate::link::AskError::SessionGone), "others may have changed the file since");
        assert_eq!(pair.master.with(|state| state.commits), 1);
        pair.fs.create(Ino::ROOT, b"b", new_file(), false).await.expect("a new session");
    });
}

#[test]
fn what_the_old_session_never_answered_with_silence_is_done_under_the_new_one() {
    block_on_world(3, |world| async move {
        let pair = Pair::new(world).await;
        pair.master.with(|state| state.sessions.clear());
        pair.fs.create(Ino::ROOT, b"a", new_file(), false).await.expect("refused by the old session, done under the new");
        assert_eq!(pair.master.with(|state| state.made.get(b"a".as_slice()).copied()), Some(1));
    });
}

#[test]
fn a_refused_commit_is_no_error_but_a_request_to_put_again() {
    use crate::ports::CommitError;
    block_on_world(3, |world| async move {
        let pair = Pair::with(world.clone(), FakeMaster::default(), |_| ()).await;
        let metadata = std::sync::Arc::clone(&pair.fs.0.metadata);
        for refusal in [MasterError::TicketExpired, MasterError::MapMoved { now: cairn_common::ids::MapEpoch(2) }] {
            pair.master.with(|state| {
                state.map.epoch = cairn_common::ids::MapEpoch(2);
                state.refuse_commit = Some(refusal.clone());
            });
            let session = metadata.session().await.expect("the master is there");
            assert_eq!(
                metadata.commit(Vec::new(), Vec::new(), Puts::Unsynced, false, session).await,
                Err(CommitError::PutAgain),
                "{refusal}"
            );
        }
        assert_eq!(pair.fs.map().epoch, cairn_common::ids::MapEpoch(2), "the new map was fetched");
    });
}
