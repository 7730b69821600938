//! What a start finds, and what it does about it: the table in `target::recovery`.

use super::fixture::{CLUSTER, DIRECTORY, Shard, content, index_path, open, segment_paths, settings, shards_of, small, with_node};
use crate::segment::header::FIRST_RECORD;
use crate::segment::record::{Record, Stand};
use crate::segment::{Position, SegmentNumber};
use crate::target::{OpenError, Target};
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::disk::OpenMode;
use cairn_runtime::sim::{Crash, Node, for_each_seed};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Opens a target and stores shards, all synced.
async fn filled(node: &Node, shards: &[Shard]) -> Target {
    let target = open(&node.runtime()).await;
    for shard in shards {
        shard.put_on(&target, 5, false).await.expect("stored");
    }
    target.sync().await.expect("synced");
    target
}

/// Shards that fill several segments.
fn many() -> Vec<Shard> {
    (0..30).flat_map(|number| shards_of("1+0", &content(number, 20_000))).collect()
}

async fn count_readable(target: &Target, shards: &[Shard]) -> usize {
    let mut readable = 0;
    for shard in shards {
        readable += usize::from(shard.check_on(target).await.is_ok());
    }
    readable
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    with_node(1, |_, node| async move {
        let target = open(&node.runtime()).await;
        for shard in many() {
            shard.put_on(&target, 1, false).await.expect("stored");
        }
        node.crash(Crash::Kill);
        let target = open(&node.runtime()).await;
        assert_eq!(count_readable(&target, &many()).await, 30);
        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        assert_eq!(count_readable(&target, &many()).await, 30, "what a start reports as present is stable");
    });
}

#[test]
fn a_lost_index_is_made_anew() {
    for_each_seed(5, |seed| {
        with_node(seed, |_, node| async move {
            let shards = many();
            let target = filled(&node, &shards).await;
            target.delete(shards[..10].iter().map(Shard::key).collect(), Timestamp::from_nanos(6)).await.expect("deleted");
            shards[20].put_on(&target, 50, true).await.expect("touched");
            node.crash(Crash::PowerLoss);
            let runtime = node.runtime();
            runtime.disk.remove_file(&index_path()).expect("removed");
            let target = open(&runtime).await;
            assert_eq!(count_readable(&target, &shards[..10]).await, 0);
            assert_eq!(count_readable(&target, &shards[10..]).await, 20);
            assert_eq!(target.status().shards, 20);
            let key = shards[20].key();
            assert_eq!(target.delete(vec![key], Timestamp::from_nanos(50)).await, Ok(0), "the touch was found, too");
        });
    });
}

#[test]
fn a_damaged_index_is_made_anew() {
    with_node(2, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await;
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let file = runtime.disk.open(&index_path(), OpenMode::ReadWrite).expect("there");
        file.write_at(&[&[0x5a; 8192]], 0).expect("written");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);

        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let file = runtime.disk.open(&index_path(), OpenMode::ReadWrite).expect("there");
        file.set_len(100).expect("cut");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn the_index_of_another_target_is_not_believed() {
    with_node(3, |_, node| async move {
        let shards = many();
        filled(&node, &shards[..15]).await.close().await.expect("closed");
        let foreign = node.disk().read(&index_path()).expect("there");

        let runtime = node.runtime();
        let other = Target::open(&runtime, PathBuf::from("/other"), CLUSTER, settings()).await.expect("opens");
        shards[20].put_on(&other, 1, true).await.expect("stored");
        other.close().await.expect("closed");
        drop(other);
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let file = runtime.disk.open(Path::new("/other/index.redb"), OpenMode::ReadWrite).expect("there");
        file.set_len(0).expect("emptied");
        file.write_at(&[&foreign], 0).expect("copied");
        let other = Target::open(&runtime, PathBuf::from("/other"), CLUSTER, settings()).await.expect("opens");
        assert_eq!(count_readable(&other, &shards[..15]).await, 0);
        assert_eq!(count_readable(&other, &shards[20..21]).await, 1);
    });
}

#[test]
fn a_missing_segment_takes_only_its_own_shards() {
    with_node(4, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let victim = segment_paths(&node)[1].clone();
        runtime.disk.remove_file(&victim).expect("removed");
        let target = open(&runtime).await;
        let left = count_readable(&target, &shards).await;
        assert!((20..30).contains(&left), "{left} are left");
        assert_eq!(target.status().shards, left as u64);
        // What is lost can be put again, and stays.
        for shard in &shards {
            shard.put_on(&target, 6, true).await.expect("stored");
        }
        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn a_segment_that_was_put_back_is_read() {
    with_node(5, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let victim = segment_paths(&node)[1].clone();
        let copy = node.disk().read(&victim).expect("there");
        let runtime = node.runtime();
        runtime.disk.remove_file(&victim).expect("removed");
        let target = open(&runtime).await;
        assert!(count_readable(&target, &shards).await < 30);
        target.close().await.expect("closed");
        drop(target);

        node.crash(Crash::Kill);
        let runtime = node.runtime();
        runtime.disk.open(&victim, OpenMode::CreateNew).and_then(|file| file.write_at(&[&copy], 0)).expect("put back");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn a_flipped_bit_in_a_head_costs_one_shard() {
    with_node(6, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        node.disk().flip_bit(&segment_paths(&node)[0], FIRST_RECORD + 50, 3).expect("flipped");

        // With the index: the first to need the head notices; a put replaces the shard.
        let target = open(&runtime).await;
        assert_eq!(shards[0].check_on(&target).await, Err(ChunkserverError::Corrupt(shards[0].key())));
        assert_eq!(target.check(&[shards[0].key(), shards[1].key()]).await, Ok(vec![false, true]));
        assert_eq!(target.status().corrupt_shards, 1);
        assert_eq!(count_readable(&target, &shards).await, 29);
        target.close().await.expect("closed");
        drop(target);

        // Without: the scan goes on behind the damage.
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        runtime.disk.remove_file(&index_path()).expect("removed");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 29);
        assert_eq!(shards[0].check_on(&target).await, Err(ChunkserverError::NoSuchShard(shards[0].key())));
        shards[0].put_on(&target, 1, true).await.expect("stored anew");
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn a_damaged_shard_is_replaced_by_a_put() {
    with_node(7, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        node.disk().flip_bit(&segment_paths(&node)[0], FIRST_RECORD + 50, 3).expect("flipped");
        let target = open(&runtime).await;
        shards[0].put_on(&target, 1, true).await.expect("stored anew");
        shards[0].check_on(&target).await.expect("readable");
        assert_eq!((target.status().shards, count_readable(&target, &shards).await), (30, 30));
        assert_eq!(target.delete(vec![shards[0].key()], Timestamp::from_nanos(5)).await, Ok(0), "it keeps its newer ticket");
        node.crash(Crash::PowerLoss);
        let runtime = node.runtime();
        runtime.disk.remove_file(&index_path()).expect("removed");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn a_flipped_bit_in_a_segment_header_costs_nothing() {
    with_node(8, |_, node| async move {
        let shards = many();
        filled(&node, &shards).await;
        node.crash(Crash::Kill);
        for path in segment_paths(&node) {
            node.disk().flip_bit(&path, 20, 0).expect("flipped");
        }
        let runtime = node.runtime();
        runtime.disk.remove_file(&index_path()).expect("removed");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn a_torn_tail_is_dropped_and_never_served() {
    for_each_seed(40, |seed| {
        with_node(seed, |_, node| async move {
            let shards = many();
            let target = filled(&node, &shards[..10]).await;
            for shard in &shards[10..] {
                shard.put_on(&target, 5, false).await.expect("stored");
            }
            node.crash(Crash::PowerLoss);
            let runtime = node.runtime();
            if seed % 2 == 0 {
                runtime.disk.remove_file(&index_path()).expect("removed");
            }
            let target = open(&runtime).await;
            assert_eq!(count_readable(&target, &shards[..10]).await, 10, "these were synced");
            for shard in &shards[10..] {
                // `check_on` asserts that what is served is right.
                let there = shard.check_on(&target).await;
                assert!(matches!(there, Ok(()) | Err(ChunkserverError::NoSuchShard(_))), "{there:?}");
            }
        });
    });
}

#[test]
fn the_remains_of_a_failed_write_are_ignored() {
    with_node(11, |_, node| async move {
        let shards = many();
        drop(filled(&node, &shards).await);
        node.crash(Crash::Kill);
        let target = open(&node.runtime()).await;
        small(1).put_on(&target, 1, true).await.expect("stored in a new segment");
        let uuid = target.identity().uuid;
        target.close().await.expect("closed");
        drop(target);
        node.crash(Crash::Kill);
        // Whole, good records behind the ends that the next segments tell: tombstones that were never acknowledged. One end comes from
        // the writer, the other from a recovery.
        let runtime = node.runtime();
        let newest = segment_paths(&node).len() as u64;
        for number in [1, newest - 1] {
            let path = Path::new(DIRECTORY).join(format!("segments/{number:010}.seg"));
            let file = runtime.disk.open(&path, OpenMode::ReadWrite).expect("there");
            let at = Position { segment: SegmentNumber(number), offset: file.len().expect("known") };
            let tombstones = Record::Tombstones(shards.iter().map(Shard::key).collect()).encode_head(Stand { uuid, at });
            file.write_at(&[&tombstones], at.offset).expect("written");
        }
        runtime.disk.remove_file(&index_path()).expect("removed");
        let target = open(&runtime).await;
        assert_eq!(count_readable(&target, &shards).await, 30);
    });
}

#[test]
fn the_holes_of_deleted_shards_survive_a_power_loss() {
    for_each_seed(10, |seed| {
        with_node(seed, |world, node| async move {
            let shards = many();
            let target = filled(&node, &shards).await;
            let full = node.disk().used();
            target.delete(shards.iter().map(Shard::key).step_by(2).collect(), Timestamp::from_nanos(6)).await.expect("deleted");
            world.sleep(Duration::from_secs(1)).await;
            node.crash(Crash::PowerLoss);
            let target = open(&node.runtime()).await;
            assert_eq!(count_readable(&target, &shards).await, 15);
            let freed = full.saturating_sub(node.disk().used());
            assert!(freed > 15 * 20_000 / 2, "{freed} bytes are free again");
        });
    });
}

#[test]
fn a_segment_of_another_target_is_refused() {
    with_node(9, |_, node| async move {
        filled(&node, &[small(1)]).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let other = Target::open(&runtime, PathBuf::from("/other"), CLUSTER, settings()).await.expect("opens");
        small(2).put_on(&other, 1, true).await.expect("stored");
        let foreign = node.disk().read(Path::new("/other/segments/0000000001.seg")).expect("there");
        let path = Path::new(DIRECTORY).join("segments/0000000009.seg");
        runtime.disk.open(&path, OpenMode::CreateNew).and_then(|file| file.write_at(&[&foreign], 0)).expect("copied");
        let result = Target::open(&runtime, PathBuf::from(DIRECTORY), CLUSTER, settings()).await;
        assert!(matches!(result, Err(OpenError::ForeignSegment { .. })), "{:?}", result.err());
    });
}

#[test]
fn a_lost_identity_is_not_invented_again() {
    with_node(10, |_, node| async move {
        filled(&node, &[small(1)]).await.close().await.expect("closed");
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        let path = Path::new(DIRECTORY).join("target.json");
        runtime.disk.replace(&path, b"{}").expect("damaged");
        let result = Target::open(&runtime, PathBuf::from(DIRECTORY), CLUSTER, settings()).await;
        assert!(matches!(result, Err(OpenError::IdentityDamaged { .. })), "{:?}", result.err());
        runtime.disk.remove_file(&path).expect("removed");
        let result = Target::open(&runtime, PathBuf::from(DIRECTORY), CLUSTER, settings()).await;
        assert!(matches!(result, Err(OpenError::IdentityMissing { .. })), "{:?}", result.err());
    });
}

#[test]
fn a_deleted_shard_does_not_come_back() {
    for_each_seed(20, |seed| {
        with_node(seed, |world, node| async move {
            let shards = many();
            let target = filled(&node, &shards).await;
            target.delete(shards.iter().map(Shard::key).collect(), Timestamp::from_nanos(6)).await.expect("deleted");
            world.sleep(Duration::from_millis(seed * 10)).await;
            node.crash(Crash::PowerLoss);
            let runtime = node.runtime();
            if seed % 2 == 0 {
                let _ = runtime.disk.remove_file(&index_path());
            }
            let target = open(&runtime).await;
            assert_eq!(count_readable(&target, &shards).await, 0);
            assert_eq!(target.status().used_bytes, 0);
        });
    });
}
