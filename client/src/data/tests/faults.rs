//! Writing while targets are away, full, slow or restarted, and while the map moves.

use super::cluster::{Cluster, assert_same, pattern, with_cluster};
use super::fake_targets::Behaviour;
use cairn_common::error::FsError;
use cairn_common::ids::TargetId;
use cairn_runtime::sim::block_on_world;
use std::time::Duration;

const MIB: usize = 1 << 20;

async fn write_and_check(cluster: &Cluster, number: u64, bytes: usize) -> Duration {
    let start = cluster.runtime.now();
    let file = cluster.create(number);
    file.write(0, &pattern(number, bytes)).await.expect("written");
    file.flush().await.expect("flushed");
    let took = cluster.runtime.now().since(start);
    let reader = cluster.open_in(&cluster.stranger(), number);
    assert_same(&reader.read(0, bytes).await.expect("read"), &pattern(number, bytes), "content");
    took
}

#[test]
fn writes_keep_their_tolerance_without_some_targets() {
    with_cluster(1, "4+2", |cluster| async move {
        for away in 1..=4u32 {
            cluster.targets.behave(TargetId(away), Behaviour::Unreachable);
            for bytes in [1000, 200_000, 4 * MIB] {
                write_and_check(&cluster, u64::from(away) * 100 + bytes as u64, bytes).await;
            }
        }
        assert!(cluster.store.counters().chunks_narrowed >= 8);
    });
}

#[test]
fn a_hung_target_delays_a_write_by_little() {
    with_cluster(2, "4+2", |cluster| async move {
        cluster.targets.behave(TargetId(3), Behaviour::Hung);
        let took = write_and_check(&cluster, 10, 4 * MIB).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        cluster.targets.behave(TargetId(4), Behaviour::Hung);
        let took = write_and_check(&cluster, 11, 4 * MIB).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}

#[test]
fn writes_wait_for_targets_that_come_back() {
    with_cluster(3, "4+2", |cluster| async move {
        cluster.targets.behave_all(Behaviour::Unreachable);
        let targets = std::sync::Arc::clone(&cluster.targets);
        let runtime = cluster.runtime.clone();
        cluster.runtime.spawn("healer", async move {
            runtime.sleep(Duration::from_secs(8)).await;
            targets.behave_all(Behaviour::Good);
        });
        let took = write_and_check(&cluster, 10, MIB).await;
        assert!(took >= Duration::from_secs(8) && took < Duration::from_secs(12), "{took:?}");
    });
}

#[test]
fn full_disks_give_no_space_soon_and_once_per_descriptor() {
    with_cluster(4, "4+2", |cluster| async move {
        cluster.targets.behave_all(Behaviour::Full);
        let file = cluster.create(10);
        let (first, second) = (file.descriptor(), file.descriptor());
        file.write(0, b"hello").await.expect("written");
        let start = cluster.runtime.now();
        assert_eq!(file.flush().await, Err(FsError::NoSpace));
        assert!(cluster.runtime.now().since(start) < Duration::from_secs(2));
        assert_eq!(file.take_error(&first), Some(FsError::NoSpace));
        assert_eq!(file.take_error(&first), None);
        assert_eq!(file.write(0, b"more").await, Err(FsError::NoSpace));
        assert_same(&file.read(0, 10).await.expect("still here"), b"hello".as_slice(), "content");
        let third = file.descriptor();
        // Somebody deletes things: the data is not lost.
        cluster.targets.behave_all(Behaviour::Good);
        assert_eq!(file.sync().await, Ok(()));
        assert_eq!(file.take_error(&second), Some(FsError::NoSpace));
        assert_eq!(file.take_error(&second), None);
        assert_eq!(file.take_error(&third), None);
        assert_same(&cluster.open_in(&cluster.stranger(), 10).read(0, 10).await.expect("read"), b"hello".as_slice(), "content");
    });
}

#[test]
fn data_that_failed_does_not_outlive_its_last_descriptor() {
    with_cluster(5, "4+2", |cluster| async move {
        cluster.targets.behave_all(Behaviour::Full);
        let file = cluster.create(10);
        let descriptor = file.descriptor();
        file.write(0, &pattern(1, 100_000)).await.expect("written");
        assert_eq!(file.flush().await, Err(FsError::NoSpace));
        assert!(file.has_dirty());
        drop(descriptor);
        assert!(!file.has_dirty());
        assert_eq!(cluster.store.write_buffer_used_bytes(), 0);
    });
}

#[test]
fn full_disks_do_not_hang_writers() {
    block_on_world(6, |world| async move {
        let cluster = Cluster::new(world, "4+2", |settings| settings.write_buffer_bytes = 16 * MIB);
        cluster.targets.behave_all(Behaviour::Full);
        let file = cluster.create(10);
        let _descriptor = file.descriptor();
        let start = cluster.runtime.now();
        let mut result = Ok(0);
        for number in 0..100u64 {
            result = file.write(number * MIB as u64, &pattern(1, MIB)).await;
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(FsError::NoSpace));
        assert!(cluster.runtime.now().since(start) < Duration::from_secs(30));
    });
}

#[test]
fn chunks_are_put_again_when_the_map_has_moved() {
    with_cluster(7, "4+2", |cluster| async move {
        let epoch = cluster.targets.move_groups();
        cluster.master.refuse_chunks_below(epoch);
        for bytes in [500, 5 * MIB] {
            write_and_check(&cluster, bytes as u64, bytes).await;
        }
        assert!(cluster.store.counters().chunks_put_again >= 1);
        cluster.master.demand_puts_again(3);
        write_and_check(&cluster, 12, 100_000).await;
        cluster.master.demand_puts_again(u32::MAX);
        let file = cluster.create(13);
        file.write(0, b"never").await.expect("written");
        assert_eq!(file.flush().await, Err(FsError::Io));
    });
}

#[test]
fn a_master_that_refuses_commits_is_an_error_and_then_forgotten() {
    with_cluster(8, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let descriptor = file.descriptor();
        file.write(0, b"data").await.expect("written");
        cluster.master.fail_commits(Some(FsError::Io));
        assert_eq!(file.flush().await, Err(FsError::Io));
        assert_eq!(file.take_error(&descriptor), Some(FsError::Io));
        cluster.master.fail_commits(None);
        assert_eq!(file.flush().await, Ok(()));
        assert_same(&cluster.open_in(&cluster.stranger(), 10).read(0, 10).await.expect("read"), b"data".as_slice(), "content");
    });
}

#[test]
fn a_file_that_is_gone_lets_others_pass() {
    with_cluster(9, "4+2", |cluster| async move {
        let (gone, other) = (cluster.create(10), cluster.create(11));
        gone.write(0, b"gone").await.expect("written");
        other.write(0, b"other").await.expect("written");
        cluster.master.remove(gone.ino());
        let (gone_result, other_result) = futures_util::future::join(gone.flush(), other.flush()).await;
        assert_eq!((gone_result, other_result), (Err(FsError::Stale), Ok(())));
        assert!(!cluster.store.has_dirty());
    });
}

#[test]
fn slow_targets_are_not_mistaken_for_dead_ones() {
    with_cluster(10, "4+2", |cluster| async move {
        cluster.targets.behave_all(Behaviour::Slow(Duration::from_millis(900)));
        write_and_check(&cluster, 10, MIB).await;
        assert_eq!(cluster.store.counters().chunks_narrowed, 0);
    });
}
