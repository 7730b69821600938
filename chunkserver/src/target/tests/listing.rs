//! What healing asks of a target: lists, whole shards, and a good look at one.

use super::fixture::{content, open, segment_paths, shards_of, small, with_node};
use crate::target::{Target, verify_put};
use cairn_common::ids::ChunkId;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey};
use std::collections::BTreeSet;
use std::time::Duration;

const EVERYTHING: (ChunkId, Option<ChunkId>) = (ChunkId([0; 32]), None);

/// All keys of a range, in pages of about `limit`.
async fn list(target: &Target, (from, until): (ChunkId, Option<ChunkId>), limit: usize) -> Vec<ShardKey> {
    let mut keys = Vec::new();
    let mut next = Some(from);
    while let Some(at) = next {
        let page = target.list(at, until, limit).await.expect("listed");
        assert!(page.shards.iter().all(|shard| shard.key.chunk >= at && page.next.is_none_or(|next| shard.key.chunk < next)));
        keys.extend(page.shards.iter().map(|shard| shard.key));
        next = page.next;
    }
    keys
}

#[test]
fn a_list_is_complete_whatever_is_flushed() {
    for seed in 0..6 {
        with_node(seed, |world, node| async move {
            let target = open(&node.runtime()).await;
            let mut expected = BTreeSet::new();
            for round in 0..12u64 {
                for number in round * 9..(round + 1) * 9 {
                    let shards = shards_of("1+2", &content(number, 600));
                    for shard in &shards[..1 + (number % 3) as usize] {
                        shard.put_on(&target, 1, false).await.expect("stored");
                        expected.insert(shard.key());
                    }
                }
                let victims: Vec<ShardKey> = expected.iter().copied().step_by(7).collect();
                target.delete(victims.clone(), Timestamp::from_nanos(2)).await.expect("deleted");
                victims.iter().for_each(|victim| assert!(expected.remove(victim)));
                // Sometimes before, sometimes during, sometimes after a flush.
                world.sleep(Duration::from_millis(seed * round % 60)).await;
                for limit in [4, 64, 1000] {
                    assert!(list(&target, EVERYTHING, limit).await.into_iter().eq(expected.iter().copied()), "limit {limit}");
                }
                let middle = ChunkId::first_of_group(1, 1);
                let upper = list(&target, (middle, None), 5).await;
                let lower = list(&target, (ChunkId([0; 32]), Some(middle)), 5).await;
                assert!(lower.into_iter().chain(upper).eq(expected.iter().copied()));
            }
        });
    }
}

#[test]
fn a_whole_shard_can_be_put_elsewhere() {
    with_node(1, |_, node| async move {
        let target = open(&node.runtime()).await;
        for scheme in ["4+2", "1+2"] {
            for shard in shards_of(scheme, &content(1, 300_000)) {
                shard.put_on(&target, 1, false).await.expect("stored");
                let (header, blocks, body) = target.fetch(shard.key()).await.expect("there");
                assert_eq!((&header, &blocks, &body), (&shard.header, &shard.data_blocks, &shard.body));
                verify_put(&header, blocks, &body).expect("as good as new");
            }
        }
        let missing = small(9).key();
        assert_eq!(target.fetch(missing).await, Err(ChunkserverError::NoSuchShard(missing)));
    });
}

#[test]
fn a_good_look_finds_any_flipped_bit_and_a_put_replaces_the_shard() {
    with_node(1, |_, node| async move {
        let target = open(&node.runtime()).await;
        let shard = shards_of("4+2", &content(1, 300_000)).pop().expect("a parity shard");
        shard.put_on(&target, 1, true).await.expect("stored");
        assert!(target.examine(shard.key()).await.expect("sound") as usize > shard.body.len());
        let segment = segment_paths(&node).remove(0);
        let stored = node.disk().read(&segment).expect("there");
        let start = stored.windows(64).position(|bytes| bytes == &shard.body[..64]).expect("the body is stored as it came");
        node.disk().flip_bit(&segment, (start + shard.body.len() / 2) as u64, 0).expect("flipped");
        assert_eq!(target.examine(shard.key()).await, Err(ChunkserverError::Corrupt(shard.key())));
        assert_eq!((target.damaged(), target.status().corrupt_shards), (vec![shard.key()], 1));
        shard.put_on(&target, 1, false).await.expect("stored again");
        target.examine(shard.key()).await.expect("sound again");
        assert_eq!(target.damaged(), []);
        let missing = small(9).key();
        assert_eq!(target.examine(missing).await, Err(ChunkserverError::NoSuchShard(missing)));
    });
}
