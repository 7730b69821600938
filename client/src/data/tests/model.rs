//! Random operations against an array of bytes.

use super::cluster::{Cluster, assert_same, pattern};
use super::fake_targets::Behaviour;
use crate::data::{FileData, HashedChunk};
use cairn_common::ids::TargetId;
use cairn_runtime::sim::block_on_world;
use futures_util::future::join_all;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::sync::Arc;
use std::time::Duration;

const FILE_BYTES: usize = 400_000;
/// As long as a chunk of 4+2 gets.
const CHUNK_BYTES: usize = 4 << 20;
/// All of a file.
const WHOLE: usize = FILE_BYTES + CHUNK_BYTES;

#[derive(Debug, Clone)]
enum Step {
    Write {
        offset: usize,
        bytes: usize,
    },
    /// Hashed already; only one that is as long as a chunk gets is taken over as it is.
    WriteChunk {
        offset: usize,
        is_whole: bool,
    },
    Read {
        offset: usize,
        bytes: usize,
    },
    Truncate {
        size: usize,
    },
    Punch {
        offset: usize,
        bytes: usize,
    },
    Flush,
    Sync,
    Reopen,
    Forget,
    Wait {
        micros: u64,
    },
    Seek,
    /// One target misbehaves from here on, and no other.
    Trouble {
        target: u32,
        kind: u8,
    },
    MapMoves,
    PutAgain,
    /// After a sync, everything loses power and all clients start anew.
    PowerLoss,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..FILE_BYTES, prop_oneof![3 => 1..5000usize, 1 => 1..150_000usize]);
    prop_oneof![
        10 => place().prop_map(|(offset, bytes)| Step::Write { offset, bytes }),
        1 => (0..FILE_BYTES, any::<bool>()).prop_map(|(offset, is_whole)| Step::WriteChunk { offset, is_whole }),
        8 => place().prop_map(|(offset, bytes)| Step::Read { offset, bytes }),
        2 => (0..FILE_BYTES).prop_map(|size| Step::Truncate { size }),
        2 => place().prop_map(|(offset, bytes)| Step::Punch { offset, bytes }),
        2 => Just(Step::Flush),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => Just(Step::Forget),
        2 => (0..3000u64).prop_map(|micros| Step::Wait { micros }),
        1 => Just(Step::Seek),
        1 => (1..=6u32, any::<u8>()).prop_map(|(target, kind)| Step::Trouble { target, kind }),
        1 => Just(Step::MapMoves),
        1 => Just(Step::PutAgain),
        1 => Just(Step::PowerLoss),
    ]
}

/// The file as it should be.
#[derive(Default)]
struct Model(Vec<u8>);

impl Model {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[offset..end].copy_from_slice(data);
    }

    fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        let end = self.0.len().min(offset + bytes);
        &self.0[offset.min(end)..end]
    }

    fn punch(&mut self, offset: usize, bytes: usize) {
        let end = self.0.len().min(offset + bytes);
        self.0[offset.min(end)..end].fill(0);
    }
}

async fn truncate(cluster: &Cluster, file: &FileData, size: u64) {
    let hold = file.hold().await;
    let attributes = cluster.master.truncate(file.ino(), size).await;
    file.truncate(size, &attributes);
    drop(hold);
}

async fn punch(cluster: &Cluster, file: &FileData, range: std::ops::Range<u64>) {
    let hold = file.hold().await;
    let attributes = cluster.master.punch(file.ino(), range.clone()).await;
    file.punched(range, &attributes);
    drop(hold);
}

async fn read(file: &FileData, offset: usize, bytes: usize) -> bytes::Bytes {
    match file.try_read(offset as u64, bytes) {
        Some(result) => result.expect("read"),
        None => file.read(offset as u64, bytes).await.expect("read"),
    }
}

async fn run(cluster: &Cluster, steps: Vec<Step>) {
    let mut store = Arc::clone(&cluster.store);
    let mut file = cluster.create(10);
    let mut model = Model::default();
    for (time, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write { offset, bytes } => {
                let data = pattern(time as u64, bytes);
                if file.try_write(offset as u64, &data).is_none() {
                    file.write(offset as u64, &data).await.expect("written");
                }
                model.write(offset, &data);
            }
            Step::WriteChunk { offset, is_whole } => {
                let data = pattern(time as u64, if is_whole { CHUNK_BYTES } else { CHUNK_BYTES / 40 });
                let chunk = HashedChunk::new(data.clone().into(), "4+2".parse().expect("a scheme"));
                file.write_chunk(offset as u64, chunk).await.expect("written");
                model.write(offset, &data);
            }
            Step::Read { offset, bytes } => {
                assert_same(&read(&file, offset, bytes).await, model.read(offset, bytes), &format!("step {time}"));
            }
            Step::Truncate { size } => {
                truncate(cluster, &file, size as u64).await;
                model.0.resize(size, 0);
            }
            Step::Punch { offset, bytes } => {
                punch(cluster, &file, offset as u64..(offset + bytes) as u64).await;
                model.punch(offset, bytes);
            }
            Step::Flush => {
                file.flush().await.expect("flushed");
                let other = cluster.open_in(&cluster.stranger(), 10);
                assert_same(&read(&other, 0, WHOLE).await, &model.0, &format!("another client, step {time}"));
            }
            Step::Sync => file.sync().await.expect("synced"),
            Step::Reopen => {
                drop(file);
                file = cluster.open_in(&store, 10);
            }
            Step::Forget => file.forget_extents(),
            Step::Wait { micros } => cluster.runtime.sleep(Duration::from_micros(micros * micros / 100)).await,
            Step::Seek => {
                let mut position = 0;
                for range in file.extents(0..u64::MAX).await.expect("known") {
                    assert!(model.0[position..range.start as usize].iter().all(|byte| *byte == 0), "a hole has data");
                    position = range.end as usize;
                }
                assert!(model.0[position..].iter().all(|byte| *byte == 0), "a hole has data");
            }
            Step::Trouble { target, kind } => {
                cluster.targets.behave_all(Behaviour::Good);
                let behaviours = [
                    Behaviour::Unreachable,
                    Behaviour::Hung,
                    Behaviour::Corrupt,
                    Behaviour::Full,
                    Behaviour::Slow(Duration::from_millis(80)),
                ];
                cluster.targets.behave(TargetId(target), behaviours[usize::from(kind) % behaviours.len()]);
            }
            Step::MapMoves => {
                // What is on its way at this moment is refused.
                cluster.targets.copy_everything_everywhere();
                cluster.master.refuse_chunks_below(cluster.targets.move_groups());
            }
            Step::PutAgain => cluster.master.demand_puts_again(1),
            Step::PowerLoss => {
                file.sync().await.expect("synced");
                crate::ports::Metadata::sync_log(&*cluster.master).await.expect("the truncations, too");
                cluster.targets.ids().into_iter().for_each(|target| cluster.targets.restart(target, true));
                cluster.master.lose_power();
                store = cluster.stranger();
                file = cluster.open_in(&store, 10);
                assert_same(&read(&file, 0, WHOLE).await, &model.0, &format!("after the loss of power, step {time}"));
            }
        }
        assert_eq!(file.local_size(), model.0.len() as u64, "step {time}");
    }
    assert_same(&read(&file, 0, WHOLE).await, &model.0, "at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_file_behaves_like_an_array_of_bytes(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..60)) {
        block_on_world(seed, |world| async move {
            let cluster = Cluster::new(world, "4+2", |_| ());
            run(&cluster, steps).await;
        });
    }

    /// Several tasks, each in its own part of one file, while others flush, sync and reopen it.
    #[test]
    fn tasks_that_share_a_file_do_not_disturb_each_other(seed in any::<u64>()) {
        block_on_world(seed, |world| async move {
            let cluster = Arc::new(Cluster::new(world, "4+2", |settings| settings.write_buffer_bytes = 16 << 20));
            let file = cluster.create(10);
            let writers = (0..4u64).map(|task| {
                let (cluster, file) = (Arc::clone(&cluster), Arc::clone(&file));
                async move {
                    let base = task * 3_000_000;
                    let mut model = Model::default();
                    for round in 0..25u64 {
                        let random = cluster.runtime.random_u64();
                        let offset = (random % 100_000) as usize * (1 + (random >> 60) as usize);
                        let data = pattern(round * 4 + task, 1 + (random >> 32) as usize % 60_000);
                        file.write(base + offset as u64, &data).await.expect("written");
                        model.write(offset, &data);
                        match random >> 20 & 7 {
                            0 => file.flush().await.expect("flushed"),
                            1 => file.sync().await.expect("synced"),
                            2 => file.forget_extents(),
                            3 => {
                                punch(&cluster, &file, base + 5000..base + 9000).await;
                                model.punch(5000, 4000);
                            }
                            4 => cluster.runtime.sleep(Duration::from_millis(3)).await,
                            _ => {}
                        }
                        let size = model.0.len();
                        assert_same(&read(&file, base as usize, size).await, &model.0, &format!("task {task}, round {round}"));
                    }
                }
            });
            join_all(writers).await;
            file.flush().await.expect("flushed");
            let all = read(&cluster.open_in(&cluster.stranger(), 10), 0, 20_000_000).await;
            assert_same(&all, &read(&file, 0, 20_000_000).await, "another client");
        });
    }
}

#[test]
fn one_seed_is_one_world() {
    let trace = |seed: u64| {
        block_on_world(seed, |world| async move {
            let cluster = Cluster::new(world, "4+2", |_| ());
            let steps = (0..40).map(|number| match number % 4 {
                0 | 1 => Step::Write { offset: number * 6000, bytes: 20_000 },
                2 => Step::Read { offset: number * 3000, bytes: 50_000 },
                _ => Step::Sync,
            });
            run(&cluster, steps.collect()).await;
            (cluster.runtime.now(), cluster.store.counters(), cluster.targets.requests())
        })
    };
    assert_eq!(trace(7), trace(7));
}
