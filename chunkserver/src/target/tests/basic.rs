//! What each call does.

use super::fixture::{CLUSTER, DIRECTORY, content, open, segment_paths, settings, shards_of, small, with_node};
use crate::target::{ClusterKey, OpenError, Target};
use bytes::Bytes;
use cairn_common::hash_tree;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, TargetHealth};
use cairn_runtime::sim::Crash;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn shards_of_all_kinds_are_stored_and_prove_themselves() {
    with_node(1, |_, node| async move {
        let target = open(&node.runtime()).await;
        let lens = [1, 1000, 4096, 5000, 70_000, 300_000, 1 << 20];
        let schemes = ["1+0", "1+2", "2+1", "4+2"];
        for (number, (scheme, len)) in schemes.iter().flat_map(|scheme| lens.map(|len| (scheme, len))).enumerate() {
            let chunk = content(number as u64, len);
            for shard in shards_of(scheme, &chunk) {
                shard.put_on(&target, 1, false).await.expect("stored");
                shard.check_on(&target).await.expect("readable");
            }
        }
        assert_eq!(target.status().health, TargetHealth::Good);
    });
}

#[test]
fn ranges_are_read_and_senseless_ones_refused() {
    with_node(2, |_, node| async move {
        let target = open(&node.runtime()).await;
        let shard = shards_of("2+1", &content(1, 50_000)).remove(1);
        let len = shard.body.len() as u32;
        shard.put_on(&target, 1, false).await.expect("stored");
        for (offset, bytes) in [(0, 4096), (4096, 8192), (4096, len - 4096)] {
            let (read, proof) = target.get(shard.key(), offset, bytes, false).await.expect("readable");
            assert_eq!(read, shard.body.slice(offset as usize..(offset + bytes) as usize));
            assert_eq!(proof, None);
        }
        for (offset, bytes) in
            [(1, 4096), (0, 4095), (0, 0), (0, len + 1), (8192, u32::MAX), (u32::MAX, 2), (len.next_multiple_of(4096), 4096)]
        {
            let result = target.get(shard.key(), offset, bytes, false).await;
            assert!(matches!(result, Err(ChunkserverError::Malformed(_))), "{offset}+{bytes} gave {result:?}");
        }
    });
}

#[test]
fn parity_shards_prove_the_data_of_their_chunk() {
    with_node(3, |_, node| async move {
        let target = open(&node.runtime()).await;
        let chunk = content(1, 200_000);
        let shards = shards_of("4+2", &chunk);
        let parity = shards.iter().find(|shard| shard.key().index == 4).expect("parity");
        parity.put_on(&target, 1, false).await.expect("stored");
        let layout = parity.key().scheme.layout(parity.header.chunk_bytes);
        for index in 0..layout.occupied_data_shards() {
            let proof = target.proof(parity.key(), index).await.expect("a proof");
            hash_tree::verify_proof(layout, parity.key().chunk, index, &proof).expect("a good one");
        }
        assert!(matches!(target.proof(parity.key(), 9).await, Err(ChunkserverError::Malformed(_))));
        let missing = shards[0].key();
        assert_eq!(target.proof(missing, 0).await, Err(ChunkserverError::NoSuchShard(missing)));
    });
}

#[test]
fn what_does_not_hash_is_refused() {
    with_node(4, |_, node| async move {
        let target = open(&node.runtime()).await;
        for scheme in ["1+2", "4+2"] {
            for shard in shards_of(scheme, &content(1, 100_000)) {
                let mut wrong = shard.body.to_vec();
                wrong[500] ^= 1;
                let result = target.put(shard.put(1, false), wrong.into()).await;
                assert!(matches!(result, Err(ChunkserverError::HashMismatch(_))), "{result:?}");
                let result = target.put(shard.put(1, false), shard.body.slice(1..)).await;
                assert!(matches!(result, Err(ChunkserverError::Malformed(_))), "{result:?}");
                let mut put = shard.put(1, false);
                put.header.chunk_bytes = 0;
                let result = target.put(put, shard.body.clone()).await;
                assert!(matches!(result, Err(ChunkserverError::Malformed(_))), "{result:?}");
                let mut put = shard.put(1, false);
                put.header.key.index = 77;
                assert!(matches!(target.put(put, shard.body.clone()).await, Err(ChunkserverError::Malformed(_))));
            }
        }
        let parity = shards_of("4+2", &content(1, 100_000)).pop().expect("parity");
        for forge in [|blocks: &mut Vec<_>| blocks.truncate(3), |blocks: &mut Vec<_>| blocks.swap(0, 1)] {
            let mut put = parity.put(1, false);
            forge(&mut put.data_blocks);
            assert!(matches!(target.put(put, parity.body.clone()).await, Err(ChunkserverError::HashMismatch(_))));
        }
        assert_eq!(target.status().shards, 0);
    });
}

#[test]
fn putting_again_stores_nothing_and_renews_the_ticket() {
    with_node(5, |_, node| async move {
        let target = open(&node.runtime()).await;
        let shard = small(1);
        shard.put_on(&target, 10, true).await.expect("stored");
        let used = target.status().used_bytes;
        for ticket in [5, 10, 30, 20] {
            shard.put_on(&target, ticket, true).await.expect("there already");
        }
        assert_eq!((target.status().shards, target.status().used_bytes), (1, used));
        let before = |ticket| target.delete(vec![shard.key()], Timestamp::from_nanos(ticket));
        assert_eq!(before(30).await, Ok(0), "its ticket is 30");
        assert_eq!(target.check(&[shard.key()]).await, Ok(vec![true]));
        assert_eq!(before(31).await, Ok(1));
        assert_eq!(before(31).await, Ok(0), "it is gone");
        assert_eq!(target.check(&[shard.key()]).await, Ok(vec![false]));
        assert_eq!(shard.check_on(&target).await, Err(ChunkserverError::NoSuchShard(shard.key())));
    });
}

#[test]
fn deleted_shards_give_their_space_back_and_empty_segments_go() {
    with_node(6, |_, node| async move {
        let runtime = node.runtime();
        let target = open(&runtime).await;
        let shards: Vec<_> = (0..40).flat_map(|number| shards_of("1+0", &content(number, 20_000))).collect();
        for shard in &shards {
            shard.put_on(&target, 1, false).await.expect("stored");
        }
        target.sync().await.expect("synced");
        let (full, segments) = (node.disk().used(), segment_paths(&node).len());
        assert!(segments > 5);
        let keys: Vec<_> = shards.iter().map(super::fixture::Shard::key).collect();
        assert_eq!(target.delete(keys.clone(), Timestamp::from_nanos(2)).await, Ok(40));
        assert!(node.disk().used() < full - 40 * 20_000, "holes were punched");
        assert_eq!((target.status().shards, target.status().used_bytes), (0, 0));
        runtime.sleep(Duration::from_secs(1)).await;
        assert_eq!(segment_paths(&node).len(), 1, "only the newest is left");

        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        assert_eq!(target.check(&keys).await, Ok(vec![false; 40]));
        assert_eq!(target.status().shards, 0);
    });
}

#[test]
fn writers_share_their_syncs() {
    with_node(7, |_, node| async move {
        let runtime = node.runtime();
        let target = open(&runtime).await;
        small(0).put_on(&target, 1, true).await.expect("stored");
        let before = node.disk().operations();
        let puts = (1..=64).map(|number| {
            let (target, shard) = (target.clone(), small(number));
            async move { shard.put_on(&target, 1, true).await }
        });
        let results = futures_util::future::join_all(puts).await;
        assert!(results.iter().all(Result::is_ok));
        // Each batch is one write and one sync; some more are the index's.
        let operations = node.disk().operations() - before;
        assert!(operations < 64, "{operations} writes and syncs for 64 synced puts");
        assert_eq!(target.status().shards, 65);
    });
}

#[test]
fn a_directory_has_one_user_and_one_cluster() {
    with_node(8, |_, node| async move {
        let runtime = node.runtime();
        let target = open(&runtime).await;
        let uuid = target.identity().uuid;
        let second = Target::open(&runtime, PathBuf::from(DIRECTORY), CLUSTER, settings()).await;
        assert!(matches!(second, Err(OpenError::Locked { .. })));
        target.set_id(cairn_common::ids::TargetId(7)).await.expect("remembered");

        node.crash(Crash::PowerLoss);
        let runtime = node.runtime();
        let stranger = Target::open(&runtime, PathBuf::from(DIRECTORY), ClusterKey([2; 16]), settings()).await;
        assert!(matches!(stranger, Err(OpenError::ForeignCluster { .. })));
        let target = open(&runtime).await;
        assert_eq!(target.identity().uuid, uuid);
        assert_eq!(target.identity().id, Some(cairn_common::ids::TargetId(7)));
    });
}

#[test]
fn after_close_nothing_is_acknowledged_and_the_next_start_replays_nothing() {
    with_node(9, |_, node| async move {
        let target = open(&node.runtime()).await;
        let shard = small(1);
        shard.put_on(&target, 1, false).await.expect("stored");
        target.close().await.expect("closed");
        assert_eq!(small(2).put_on(&target, 1, false).await, Err(ChunkserverError::Unavailable));
        drop(target);

        node.crash(Crash::PowerLoss);
        let target = open(&node.runtime()).await;
        shard.check_on(&target).await.expect("close made it durable");
    });
}

#[test]
fn an_empty_body_is_refused() {
    with_node(10, |_, node| async move {
        let target = open(&node.runtime()).await;
        let result = target.put(small(1).put(1, true), Bytes::new()).await;
        assert!(matches!(result, Err(ChunkserverError::Malformed(_))));
    });
}
