//! Reading, with shards lost, rotten and late.

use super::cluster::{Cluster, assert_same, pattern, with_cluster};
use super::fake_targets::Behaviour;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, TargetId};
use cairn_runtime::sim::block_on_world;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// A file of a full chunk, a cut tail and a tiny chunk.
async fn written(cluster: &Cluster, number: u64) -> Vec<u8> {
    let file = cluster.create(number);
    let mut content = pattern(number, 4 * MIB + 300_000);
    file.write(0, &content).await.expect("written");
    file.flush().await.expect("flushed");
    let tail = pattern(77, 5001);
    file.write(content.len() as u64, &tail).await.expect("written");
    file.flush().await.expect("flushed");
    content.extend(tail);
    content
}

async fn check_all(cluster: &Cluster, content: &[u8], note: &str) {
    let file = cluster.open_in(&cluster.stranger(), 10);
    assert_same(&file.read(0, 8 * MIB).await.expect(note), content, note);
    let file = cluster.open_in(&cluster.stranger(), 10);
    for offset in [0, 4097, MIB - 3, 4 * MIB - 100, 4 * MIB + 200_000, content.len() - 5000] {
        let expected = &content[offset..content.len().min(offset + 9000)];
        assert_same(&file.read(offset as u64, 9000).await.expect(note), expected, &format!("{note} at {offset}"));
    }
}

fn subsets(targets: &[TargetId], size: usize) -> Vec<Vec<TargetId>> {
    (0..1u32 << targets.len())
        .filter(|mask| mask.count_ones() as usize == size)
        .map(|mask| targets.iter().enumerate().filter(|(bit, _)| mask & 1 << bit != 0).map(|(_, target)| *target).collect())
        .collect()
}

#[test]
fn every_loss_of_up_to_m_targets_is_survived() {
    for (seed, scheme, losses) in [(1, "4+2", 2), (2, "2+1", 1), (3, "1+2", 2), (4, "3+2", 2)] {
        with_cluster(seed, scheme, |cluster| async move {
            let content = written(&cluster, 10).await;
            for lost in subsets(&cluster.targets.ids(), losses) {
                lost.iter().for_each(|target| cluster.targets.behave(*target, Behaviour::Unreachable));
                check_all(&cluster, &content, &format!("{scheme} without {lost:?}")).await;
                cluster.targets.behave_all(Behaviour::Good);
            }
        });
    }
}

#[test]
fn more_than_m_lost_targets_give_io_at_once() {
    with_cluster(5, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        for behaviour in [Behaviour::Unreachable, Behaviour::Hung] {
            for lost in subsets(&cluster.targets.ids(), 3).into_iter().step_by(3) {
                lost.iter().for_each(|target| cluster.targets.behave(*target, behaviour));
                let file = cluster.open_in(&cluster.stranger(), 10);
                let start = cluster.runtime.now();
                assert_eq!(file.read(0, 4 * MIB).await, Err(FsError::Io));
                let took = cluster.runtime.now().since(start);
                assert!(took < Duration::from_secs(10), "{took:?}");
                cluster.targets.behave_all(Behaviour::Good);
            }
        }
        check_all(&cluster, &content, "after all came back").await;
    });
}

#[test]
fn lying_targets_are_never_believed() {
    with_cluster(6, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        for liars in subsets(&cluster.targets.ids(), 2) {
            liars.iter().for_each(|target| cluster.targets.behave(*target, Behaviour::Corrupt));
            check_all(&cluster, &content, &format!("with liars {liars:?}")).await;
            cluster.targets.behave_all(Behaviour::Good);
        }
        assert!(cluster.targets.requests().doubts > 0, "who sent something wrong is told to look at it");
        // A liar and a dead one: parity can't be told good from bad but by trying.
        for pair in subsets(&cluster.targets.ids(), 2) {
            cluster.targets.behave(pair[0], Behaviour::Corrupt);
            cluster.targets.behave(pair[1], Behaviour::Unreachable);
            check_all(&cluster, &content, &format!("with {pair:?}")).await;
            cluster.targets.behave_all(Behaviour::Good);
        }
        cluster.targets.behave_all(Behaviour::Corrupt);
        assert_eq!(cluster.open_in(&cluster.stranger(), 10).read(0, 4 * MIB).await, Err(FsError::Io));
    });
}

#[test]
fn rot_anywhere_in_a_shard_is_noticed() {
    for position in [0, 1, 4095, 4096, 70_000, 524_288, MIB - 1] {
        with_cluster(7, "4+2", |cluster| async move {
            let content = written(&cluster, 10).await;
            cluster.targets.rot(TargetId(2), position);
            cluster.targets.rot(TargetId(5), position + 1);
            check_all(&cluster, &content, &format!("with rot at {position}")).await;
        });
    }
}

#[test]
fn a_wiped_target_is_rebuilt_from_the_others() {
    with_cluster(8, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        cluster.targets.wipe(TargetId(1));
        cluster.targets.wipe(TargetId(4));
        check_all(&cluster, &content, "two wiped").await;
    });
}

#[test]
fn hung_targets_cost_reads_less_than_a_second() {
    with_cluster(9, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        for lost in subsets(&cluster.targets.ids(), 2) {
            lost.iter().for_each(|target| cluster.targets.behave(*target, Behaviour::Hung));
            let file = cluster.open_in(&cluster.stranger(), 10);
            let start = cluster.runtime.now();
            assert_same(&file.read(0, 8 * MIB).await.expect("read"), &content, "content");
            let took = cluster.runtime.now().since(start);
            assert!(took < Duration::from_secs(1), "{took:?} without {lost:?}");
            cluster.targets.behave_all(Behaviour::Good);
        }
    });
}

#[test]
fn small_reads_move_small_ranges_and_one_proof() {
    block_on_world(10, |world| async move {
        let cluster = Cluster::new(world, "4+2", |_| ());
        written(&cluster, 10).await;
        let file = cluster.open_in(&cluster.stranger(), 10);
        let before = cluster.targets.requests();
        for number in [3u64, 77, 200, 150, 11] {
            file.read(number * 4096, 4096).await.expect("read");
        }
        let after = cluster.targets.requests();
        assert_eq!((after.gets - before.gets, after.get_bytes - before.get_bytes), (5, 5 * 4096));
        file.read(3 * 4096 + 5, 100).await.expect("read");
        assert_eq!(cluster.targets.requests(), after, "the block is in memory");
        assert!(file.try_read(77 * 4096, 4096).is_some());
        assert!(file.try_read(78 * 4096, 4096).is_none());
    });
}

#[test]
fn random_reads_run_side_by_side() {
    with_cluster(11, "4+2", |cluster| async move {
        written(&cluster, 10).await;
        let file = cluster.open_in(&cluster.stranger(), 10);
        let reads = (0..32u64).map(|number| file.read(number * 7919 % 1000 * 4096, 4096));
        join_all(reads).await.into_iter().for_each(|result| assert!(result.is_ok()));
        assert!(cluster.targets.requests().gets_at_once_max >= 20, "{:?}", cluster.targets.requests());
    });
}

#[test]
fn sequential_reads_are_fetched_ahead_in_whole_shards() {
    with_cluster(12, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(1, MIB);
        for number in 0..64u64 {
            file.write(number * MIB as u64, &content).await.expect("written");
        }
        file.flush().await.expect("flushed");
        let before = cluster.targets.requests();
        let file = cluster.open_in(&cluster.stranger(), 10);
        let step = 128 << 10;
        let mut from_memory = 0;
        for number in 0..512u64 {
            let offset = number * step;
            let bytes = match file.try_read(offset, step as usize) {
                Some(bytes) => {
                    from_memory += 1;
                    bytes
                }
                None => file.read(offset, step as usize).await,
            };
            let start = offset as usize % MIB;
            assert_eq!(bytes.expect("read"), content[start..start + step as usize]);
            cluster.runtime.sleep(Duration::from_micros(500)).await;
        }
        let gets = cluster.targets.requests().gets - before.gets;
        assert!(gets <= 70, "64 MiB took {gets} requests");
        assert!(from_memory > 450, "{from_memory} of 512 reads came from memory");
    });
}

#[test]
fn a_small_file_takes_one_request() {
    with_cluster(13, "4+2", |cluster| async move {
        let file = cluster.create(10);
        file.write(0, &pattern(1, 20_000)).await.expect("written");
        file.flush().await.expect("flushed");
        let before = cluster.targets.requests();
        let file = cluster.open_in(&cluster.stranger(), 10);
        assert_same(&file.read(0, MIB).await.expect("read"), &pattern(1, 20_000), "content");
        let after = cluster.targets.requests();
        assert_eq!((after.gets - before.gets, after.get_bytes - before.get_bytes), (1, 20_000));
    });
}

#[test]
fn a_moved_map_is_followed() {
    with_cluster(14, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        // The data stays where it was; the new map names it as the previous place.
        cluster.targets.move_groups();
        check_all(&cluster, &content, "before the move is known").await;
        crate::ports::Targets::refresh_map(&*cluster.targets, cairn_common::ids::MapEpoch(1)).await;
        check_all(&cluster, &content, "after").await;
    });
}

#[test]
fn seeking_sees_written_and_stored_data() {
    with_cluster(15, "4+2", |cluster| async move {
        let file = cluster.create(10);
        for number in 0..600u64 {
            file.write(number * 10_000, b"x").await.expect("written");
        }
        file.flush().await.expect("flushed");
        let reader = cluster.open_in(&cluster.store, 10);
        reader.write(15, b"dirty").await.expect("written");
        let ranges = reader.extents(0..u64::MAX).await.expect("known");
        assert_eq!(ranges.len(), 601);
        assert_eq!(ranges[..3], [0..1, 15..20, 10_000..10_001]);
        assert_eq!(reader.extents(20..10_000).await.expect("known"), []);
    });
}

#[test]
fn extents_that_another_client_replaced_are_looked_up_again() {
    with_cluster(16, "4+2", |cluster| async move {
        let content = written(&cluster, 10).await;
        let reader = cluster.open_in(&cluster.stranger(), 10);
        let writer = cluster.open_in(&cluster.store, 10);
        let fresh = pattern(99, content.len());
        // The old chunks are collected.
        cluster.targets.ids().into_iter().for_each(|target| cluster.targets.wipe(target));
        writer.write(0, &fresh).await.expect("written");
        writer.flush().await.expect("flushed");
        assert_same(&reader.read(0, 8 * MIB).await.expect("read"), &fresh, "content");
        assert_eq!(cluster.master.open(Ino(10)).0.size, content.len() as u64);
    });
}

#[test]
fn reads_end_at_the_size_known_here() {
    with_cluster(17, "4+2", |cluster| async move {
        let file: Arc<_> = cluster.create(10);
        assert_eq!(file.read(0, 100).await, Ok(bytes::Bytes::new()));
        file.write(10, b"abc").await.expect("written");
        assert_eq!(file.try_read(0, 100), Some(Ok(bytes::Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0abc"))));
        assert_eq!(file.try_read(13, 100), Some(Ok(bytes::Bytes::new())));
        assert_eq!(file.local_size(), 13);
    });
}

#[test]
fn a_sequential_reader_without_two_targets_fetches_nothing_twice() {
    with_cluster(21, "4+2", |cluster| async move {
        let content = pattern(21, 32 * MIB);
        let file = cluster.create(21);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        // Answers take their time, so that what is wanted by several is on its way when the second one asks.
        cluster.targets.behave_all(Behaviour::Slow(Duration::from_millis(3)));
        for lost in [1, 2] {
            cluster.targets.behave(TargetId(lost), Behaviour::Unreachable);
            let before = cluster.targets.requests().get_bytes;
            let reader = cluster.open_in(&cluster.stranger(), 21);
            for (number, expected) in content.chunks(128 << 10).enumerate() {
                let offset = (number * (128 << 10)) as u64;
                assert_same(&reader.read(offset, 128 << 10).await.expect("read"), expected, &format!("at {offset} without {lost}"));
            }
            let fetched = cluster.targets.requests().get_bytes - before;
            // Four of the shards of each chunk; the begin of the stream is read in small pieces.
            let limit = content.len() as u64 * 11 / 10;
            assert!(fetched <= limit, "{fetched} bytes were fetched for {} without {lost} targets", content.len());
        }
    });
}

#[test]
fn a_slow_target_is_gone_around() {
    with_cluster(22, "4+2", |cluster| async move {
        let content = pattern(10, 32 * MIB);
        let file = cluster.create(10);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        let store = cluster.stranger();
        let file = cluster.open_in(&store, 10);
        let read = |number: usize| {
            let (file, expected) = (Arc::clone(&file), content[number * 4096..(number + 1) * 4096].to_vec());
            let runtime = cluster.runtime.clone();
            async move {
                let start = runtime.now();
                assert_same(&file.read((number * 4096) as u64, 4096).await.expect("read"), &expected, "content");
                runtime.now().since(start)
            }
        };
        cluster.targets.behave_all(Behaviour::Slow(Duration::from_micros(200)));
        cluster.targets.behave(TargetId(2), Behaviour::Slow(Duration::from_millis(20)));
        let mut slow = 0;
        // Random places, none of them twice.
        for step in 0..1000usize {
            slow += usize::from(read(step * 3891 % 8192).await > Duration::from_millis(5));
        }
        assert!((1..10).contains(&slow), "{slow} of 1000 reads were slow");
    });
}
