//! Random histories with crashes, against a reference that is a few lines long.
//!
//! Each key has a task of its own that puts, reads and deletes its shard, at the same time as all others; the power fails, or the
//! process is killed, at a random moment, also in the middle of a write. After each start the target is compared with what the
//! tasks were told.

use super::fixture::{Shard, content, index_path, open, shards_of, with_node};
use crate::target::Target;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Crash, for_each_seed};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// What must be true of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Absent,
    /// Acknowledged. `ticket`: the newest acknowledged one; `durable`: the newest one that a power loss must not take.
    Present {
        ticket: i64,
        durable: Option<i64>,
    },
    /// Something was under way when the process died, or was not synced when the power failed.
    Unknown,
}

struct Subject {
    shard: Shard,
    expected: Mutex<Expected>,
}

impl Subject {
    /// What is still certain after a crash.
    fn after_crash(&self, crash: Crash) {
        let mut expected = self.expected.lock();
        *expected = match (*expected, crash) {
            (Expected::Present { ticket, .. }, Crash::Kill) => Expected::Present { ticket, durable: Some(ticket) },
            (Expected::Present { durable: Some(durable), .. }, Crash::PowerLoss) => {
                Expected::Present { ticket: durable, durable: Some(durable) }
            }
            (Expected::Present { durable: None, .. }, Crash::PowerLoss) => Expected::Unknown,
            (other, _) => other,
        };
    }

    /// Compares the target with what is expected. Afterwards it is certain what is there, and that it is stable.
    async fn verify(&self, target: &Target) {
        let present = match self.shard.check_on(target).await {
            Ok(()) => true,
            Err(ChunkserverError::NoSuchShard(_)) => false,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(target.check(&[self.shard.key()]).await, Ok(vec![present]));
        let expected = *self.expected.lock();
        let ticket = match expected {
            Expected::Absent => {
                assert!(!present, "{:?} was deleted", self.shard.key());
                return;
            }
            Expected::Present { ticket, .. } => {
                assert!(present, "{:?} was acknowledged", self.shard.key());
                let deleted = target.delete(vec![self.shard.key()], Timestamp::from_nanos(ticket)).await;
                assert_eq!(deleted, Ok(0), "its ticket {ticket} was acknowledged");
                ticket
            }
            Expected::Unknown if !present => {
                *self.expected.lock() = Expected::Absent;
                return;
            }
            Expected::Unknown => 0,
        };
        *self.expected.lock() = Expected::Present { ticket, durable: Some(ticket) };
    }

    /// One random step of this key's task.
    async fn step(&self, target: &Target, clock: i64, dice: u64) {
        let before = *self.expected.lock();
        match dice % 8 {
            0..=3 => self.put(target, before, clock, dice.is_multiple_of(2)).await,
            4 => {
                *self.expected.lock() = Expected::Unknown;
                if target.delete(vec![self.shard.key()], Timestamp::from_nanos(clock + 1)).await.is_ok() {
                    *self.expected.lock() = Expected::Absent;
                }
            }
            5 => {
                if target.sync().await.is_ok()
                    && let Expected::Present { ticket, .. } = before
                {
                    *self.expected.lock() = Expected::Present { ticket, durable: Some(ticket) };
                }
            }
            _ => match (self.shard.check_on(target).await, before) {
                (Ok(()), Expected::Present { .. } | Expected::Unknown) => {}
                (Err(ChunkserverError::NoSuchShard(_)), Expected::Absent | Expected::Unknown) => {}
                // The power has failed: the node is about to die.
                (Err(ChunkserverError::Corrupt(_) | ChunkserverError::TargetFailed { .. } | ChunkserverError::Unavailable), _) => {}
                (result, expected) => panic!("{result:?} while {expected:?}"),
            },
        }
    }

    async fn put(&self, target: &Target, before: Expected, ticket: i64, sync: bool) {
        if !matches!(before, Expected::Present { .. }) {
            *self.expected.lock() = Expected::Unknown;
        }
        if self.shard.put_on(target, ticket, sync).await.is_ok() {
            let earlier = match before {
                Expected::Present { durable, .. } => durable,
                Expected::Absent | Expected::Unknown => None,
            };
            *self.expected.lock() = Expected::Present { ticket, durable: if sync { Some(ticket) } else { earlier } };
        }
    }
}

async fn live(runtime: Runtime, subject: Arc<Subject>, target: Target) {
    loop {
        let clock = runtime.now().nanos() as i64 + 1;
        subject.step(&target, clock, runtime.random_u64()).await;
        runtime.sleep(Duration::from_micros(runtime.random_u64() % 20_000)).await;
    }
}

fn subjects() -> Vec<Arc<Subject>> {
    let shards = (0..8).flat_map(|number| {
        let (scheme, len) = [("1+1", 900), ("1+0", 5000), ("2+1", 40_000), ("1+0", 70_000)][number % 4];
        shards_of(scheme, &content(number as u64, len))
    });
    let subject = |shard| Arc::new(Subject { shard, expected: Mutex::new(Expected::Absent) });
    shards.map(subject).collect()
}

#[test]
fn histories_with_crashes_lose_nothing_that_was_promised() {
    for_each_seed(60, |seed| {
        with_node(seed, |world, node| async move {
            let subjects = subjects();
            for round in 0..5 {
                let runtime = node.runtime();
                if round > 0 && runtime.random_u64().is_multiple_of(4) {
                    // Sometimes the index is lost as well.
                    let _ = runtime.disk.remove_file(&index_path());
                }
                let target = open(&runtime).await;
                for subject in &subjects {
                    subject.verify(&target).await;
                }
                for subject in &subjects {
                    runtime.spawn("subject", live(runtime.clone(), subject.clone(), target.clone()));
                }
                if runtime.random_u64().is_multiple_of(2) {
                    node.disk().power_off_after(runtime.random_u64() % 150);
                }
                world.sleep(Duration::from_millis(runtime.random_u64() % 400)).await;
                let crash = match node.is_running() && runtime.random_u64().is_multiple_of(2) {
                    true => Crash::Kill,
                    false => Crash::PowerLoss,
                };
                node.crash(crash);
                drop(target);
                subjects.iter().for_each(|subject| subject.after_crash(crash));
            }
        });
    });
}

#[test]
fn a_history_replays_from_its_seed() {
    let digest = |seed| {
        let digest = Arc::new(Mutex::new(0));
        let result = digest.clone();
        with_node(seed, |world, node| async move {
            let runtime = node.runtime();
            let target = open(&runtime).await;
            for subject in subjects() {
                runtime.spawn("subject", live(runtime.clone(), subject, target.clone()));
            }
            world.sleep(Duration::from_millis(500)).await;
            node.crash(Crash::PowerLoss);
            let _ = open(&node.runtime()).await;
            *digest.lock() = world.trace_digest();
        });
        *result.lock()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}
