//! Full and failing disks.

use super::fixture::{DIRECTORY, HangingDisk, Shard, content, index_path, open, rot, segment_paths, settings, shards_of, small, with_node};
use crate::target::{BLOCKED_THREADS_MAX, Target, TargetSettings};
use cairn_common::ids::ChunkId;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey, TargetHealth};
use cairn_runtime::sim::{Crash, DiskFaults, for_each_seed};
use std::path::PathBuf;
use std::time::Duration;

fn shards(count: u64) -> Vec<Shard> {
    (0..count).flat_map(|number| shards_of("1+0", &content(number, 100_000))).collect()
}

#[test]
fn a_full_disk_refuses_puts_and_lets_delete() {
    with_node(1, |_, node| async move {
        node.disk().set_capacity(8 << 20);
        let settings = TargetSettings { reserve_bytes: Some(2 << 20), ..settings() };
        let runtime = node.runtime();
        let target = Target::open(&runtime, PathBuf::from(DIRECTORY), super::fixture::CLUSTER, settings).await.expect("opens");
        let shards = shards(100);
        let mut stored = Vec::new();
        let mut refusal = None;
        for shard in &shards {
            match shard.put_on(&target, 1, true).await {
                Ok(()) => stored.push(shard.clone()),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        assert!(stored.len() > 10, "{} fit", stored.len());
        assert!(matches!(refusal, Some(ChunkserverError::Full { free_bytes, .. }) if free_bytes < 3 << 20), "{refusal:?}");
        assert_eq!(target.status().health, TargetHealth::Full);
        for shard in &stored {
            shard.check_on(&target).await.expect("readable");
        }
        let keys: Vec<_> = stored.iter().map(Shard::key).collect();
        assert_eq!(target.delete(keys, Timestamp::from_nanos(2)).await, Ok(stored.len() as u32));
        target.refresh().await;
        assert_eq!(target.status().health, TargetHealth::Good);
        shards[0].put_on(&target, 3, true).await.expect("there is room again");
    });
}

#[test]
fn a_write_that_finds_no_room_half_way_loses_nothing() {
    for_each_seed(20, |seed| {
        with_node(seed, |_, node| async move {
            let target = open(&node.runtime()).await;
            // One of them fills half a segment, and is verified in place.
            let shards: Vec<_> = (0..30).flat_map(|number| shards_of("1+0", &content(number, 60_000))).collect();
            let mut acknowledged = Vec::new();
            // Synced afterwards: a sync of its own would have room prepared for the next record.
            for shard in &shards[..10] {
                shard.put_on(&target, 1, false).await.expect("stored");
                acknowledged.push(shard.clone());
            }
            target.sync().await.expect("synced");
            // Room for the record, but not for the segment that it needs, too.
            let segments = segment_paths(&node).len();
            node.disk().set_capacity(node.disk().used() + 65_536 + seed % 40 * 200);
            let delete = target.delete(vec![shards[0].key()], Timestamp::from_nanos(2));
            // While the writer is busy with the sync, the other two gather in one batch.
            let (_, deleted, stored) = futures_util::join!(target.sync(), delete, shards[10].put_on(&target, 1, true));
            assert!(matches!(stored, Err(ChunkserverError::Full { .. })), "{stored:?}");
            assert_eq!(shards[10].check_on(&target).await, Err(ChunkserverError::NoSuchShard(shards[10].key())));
            assert!(matches!(deleted, Ok(1) | Err(ChunkserverError::Full { .. })), "{deleted:?}");
            node.disk().set_capacity(1 << 30);
            for shard in std::iter::once(&shards[0]).chain(&shards[20..]) {
                shard.put_on(&target, 1, true).await.expect("stored");
                acknowledged.push(shard.clone());
            }
            assert!(segment_paths(&node).len() >= segments + 2, "nothing is written behind a torn record");
            assert_eq!(target.status().health, TargetHealth::Good);
            for wipe_index in [false, true] {
                node.crash(Crash::PowerLoss);
                let runtime = node.runtime();
                if wipe_index {
                    runtime.disk.remove_file(&index_path()).expect("removed");
                }
                let target = open(&runtime).await;
                for shard in &acknowledged {
                    shard.check_on(&target).await.expect("acknowledged");
                }
                let there = shards[10].check_on(&target).await;
                assert!(matches!(there, Ok(()) | Err(ChunkserverError::NoSuchShard(_))), "{there:?}");
            }
        });
    });
}

#[test]
fn a_failed_sync_ends_all_acknowledging_until_the_next_start() {
    with_node(2, |_, node| async move {
        let target = open(&node.runtime()).await;
        small(1).put_on(&target, 1, true).await.expect("stored");
        node.disk().set_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
        let refused = small(2).put_on(&target, 1, true).await;
        assert!(matches!(refused, Err(ChunkserverError::TargetFailed { .. })), "{refused:?}");
        node.disk().set_faults(DiskFaults::default());
        for answer in [
            small(3).put_on(&target, 1, false).await,
            small(1).put_on(&target, 9, false).await,
            target.sync().await,
            target.delete(vec![small(1).key()], Timestamp::from_nanos(9)).await.map(drop),
        ] {
            assert!(matches!(answer, Err(ChunkserverError::TargetFailed { .. })), "{answer:?}");
        }
        assert_eq!(target.status().health, TargetHealth::Failed);
        small(1).check_on(&target).await.expect("still served");

        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        small(1).check_on(&target).await.expect("kept");
        assert_eq!(target.status().health, TargetHealth::Good);
        small(3).put_on(&target, 1, true).await.expect("stored");
    });
}

#[test]
fn a_failed_write_ends_all_acknowledging() {
    with_node(3, |_, node| async move {
        let target = open(&node.runtime()).await;
        small(1).put_on(&target, 1, true).await.expect("stored");
        node.disk().set_faults(DiskFaults { write_error: 1.0, ..DiskFaults::default() });
        let refused = small(2).put_on(&target, 1, false).await;
        assert!(matches!(refused, Err(ChunkserverError::TargetFailed { .. })), "{refused:?}");
        assert_eq!(target.status().health, TargetHealth::Failed);
    });
}

#[test]
fn a_disk_that_hangs_is_reported_until_it_goes_on() {
    with_node(5, |world, node| async move {
        let runtime = node.runtime();
        let target = open(&runtime).await;
        node.disk().set_faults(DiskFaults { slowness: 1_000_000, ..DiskFaults::default() });
        let slow = target.clone();
        runtime.spawn("slow put", async move {
            small(1).put_on(&slow, 1, true).await.expect("stored at last");
        });
        world.sleep(Duration::from_secs(29)).await;
        assert_eq!(target.status().health, TargetHealth::Good);
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!(target.status().health, TargetHealth::Failed);
        node.disk().set_faults(DiskFaults::default());
        world.sleep(Duration::from_secs(3600)).await;
        assert_eq!(target.status().health, TargetHealth::Good);
        small(1).check_on(&target).await.expect("there");
    });
}

#[test]
fn a_disk_that_hangs_holds_few_threads() {
    with_node(6, |world, node| async move {
        let (disk, runtime) = HangingDisk::under(&node.runtime());
        let target = open(&runtime).await;
        small(1).put_on(&target, 1, true).await.expect("stored");
        disk.hang();
        for number in 0..30 {
            let asked = target.clone();
            runtime.spawn("examine", async move { drop(asked.examine(small(1).key()).await) });
            let asked = target.clone();
            runtime.spawn("list", async move { drop(asked.list(ChunkId([0; 32]), None, 10).await) });
            let asked = target.clone();
            runtime.spawn("put", async move { drop(small(number).put_on(&asked, 1, true).await) });
        }
        let asked = target.clone();
        runtime.spawn("refresh", async move { asked.refresh().await });
        world.sleep(Duration::from_secs(60)).await;
        assert!((5..=BLOCKED_THREADS_MAX).contains(&disk.held()), "{}", disk.held());
        disk.go_on();
        assert_eq!(target.sync().await, Ok(()));
        small(29).check_on(&target).await.expect("stored at last");
    });
}

#[test]
fn a_shard_that_is_known_to_be_damaged_is_replaced_though_the_target_forgot() {
    with_node(7, |_, node| async move {
        let target = open(&node.runtime()).await;
        // More damage than is remembered.
        let other = small(1).key();
        for number in 0..5000u32 {
            let mut id = [0xff; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            target.core.note_damage(&ShardKey { chunk: ChunkId(id), ..other }, &"a test");
        }
        let shard = small(2);
        shard.put_on(&target, 1, true).await.expect("stored");
        rot(&node, &shard);
        assert_eq!(target.examine(shard.key()).await, Err(ChunkserverError::Corrupt(shard.key())));
        target.replace(shard.put(2, true), shard.body.clone()).await.expect("stored");
        target.examine(shard.key()).await.expect("sound");
        shard.check_on(&target).await.expect("right");
        // Also twice in one batch, and again after a restart.
        let (put, replace) = (shard.put(3, true), shard.put(4, true));
        let stored =
            futures_util::join!(target.sync(), target.replace(put, shard.body.clone()), target.replace(replace, shard.body.clone()));
        assert_eq!(stored, (Ok(()), Ok(()), Ok(())));
        shard.check_on(&target).await.expect("right");
        drop(target);
        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        target.examine(shard.key()).await.expect("kept");
        assert_eq!(target.status().shards, 1);
    });
}

#[test]
fn an_unreadable_shard_is_told_and_counted_once() {
    with_node(4, |_, node| async move {
        let target = open(&node.runtime()).await;
        let shard = shards_of("1+0", &content(1, 50_000)).remove(0);
        shard.put_on(&target, 1, true).await.expect("stored");
        target.close().await.expect("closed");
        drop(target);
        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        assert_eq!(target.check(&[shard.key()]).await, Ok(vec![true]));
        let path = segment_paths(&node)[0].clone();
        let file = node_file(&target, &path);
        file.set_len(8192).expect("cut short");
        for _ in 0..3 {
            let result = target.get(shard.key(), 0, 50_000, false).await;
            assert_eq!(result, Err(ChunkserverError::Corrupt(shard.key())));
        }
        assert_eq!(target.status().corrupt_shards, 1);
        shard.put_on(&target, 2, true).await.expect("stored anew");
        shard.check_on(&target).await.expect("readable again");
    });
}

fn node_file(target: &Target, path: &std::path::Path) -> std::sync::Arc<dyn cairn_runtime::disk::DiskFile> {
    target.core.runtime.disk.open(path, cairn_runtime::disk::OpenMode::ReadWrite).expect("there")
}
