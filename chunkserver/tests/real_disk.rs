//! A target on the real file system: the same promises as in the simulated world, as far as they show without pulling the plug.

use bytes::Bytes;
use cairn_chunkserver::target::ClusterKey;
use cairn_chunkserver::{Put, Target, TargetSettings};
use cairn_common::hash_tree;
use cairn_common::limits::MIB;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};
use cairn_runtime::Runtime;
use cairn_runtime::real::run_role_here;
use std::path::{Path, PathBuf};

const CLUSTER: ClusterKey = ClusterKey([1; 16]);
const SHARDS: u32 = 200;

fn content(number: u32) -> Bytes {
    let len = if number.is_multiple_of(10) { MIB as usize } else { 100 + number as usize * 37 };
    let pattern = number.to_le_bytes();
    (0..len).map(|at| pattern[at % 4].wrapping_add((at / 5) as u8)).collect::<Vec<u8>>().into()
}

fn key(number: u32) -> ShardKey {
    ShardKey { chunk: hash_tree::chunk_id(&content(number)), scheme: Scheme::copies(2), index: 1 }
}

async fn open(runtime: &Runtime, directory: &Path) -> Target {
    let settings = TargetSettings { segment_bytes: 4 * MIB, reserve_bytes: Some(0), ..TargetSettings::default() };
    Target::open(runtime, directory.to_owned(), CLUSTER, settings).await.expect("opens")
}

async fn put_all(target: &Target) {
    let puts = (0..SHARDS).map(|number| {
        let body = content(number);
        let header = ShardHeader { key: key(number), chunk_bytes: body.len() as u32, data_hashes: Vec::new(), parity_hashes: Vec::new() };
        target.put(Put { header, data_blocks: Vec::new(), ticket: Timestamp::from_nanos(1), sync: true }, body)
    });
    for result in futures_util::future::join_all(puts).await {
        result.expect("stored");
    }
}

async fn check_all(target: &Target) {
    for number in 0..SHARDS {
        let expected = content(number);
        let (bytes, proof) = target.get(key(number), 0, expected.len() as u32, true).await.expect("readable");
        assert!(bytes == expected, "shard {number} reads wrong");
        let layout = Scheme::copies(2).layout(expected.len() as u32);
        hash_tree::verify_proof(layout, key(number).chunk, 0, &proof.expect("asked for")).expect("a good proof");
    }
}

fn used_blocks(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let segments = PathBuf::from(directory).join("segments");
    let entries = segments.read_dir().expect("there");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |metadata| metadata.blocks() * 512)).sum()
}

#[test]
fn shards_survive_restarts_and_give_their_space_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data");
    // A life that is not ended in order: its process just goes.
    run_role_here("first", |runtime| {
        let path = path.clone();
        async move {
            let target = open(&runtime, &path).await;
            put_all(&target).await;
            check_all(&target).await;
        }
    })
    .expect("runs");
    run_role_here("second", |runtime| {
        let path = path.clone();
        async move {
            let target = open(&runtime, &path).await;
            check_all(&target).await;
            let full = used_blocks(&path);
            let deleted = target.delete((0..SHARDS).map(key).collect(), Timestamp::from_nanos(2)).await;
            assert_eq!(deleted, Ok(SHARDS));
            assert!(used_blocks(&path) < full / 10, "holes were punched");
            target.close().await.expect("closed");
        }
    })
    .expect("runs");
    run_role_here("third", |runtime| {
        let path = path.clone();
        async move {
            let target = open(&runtime, &path).await;
            assert_eq!(target.status().shards, 0);
            put_all(&target).await;
            check_all(&target).await;
        }
    })
    .expect("runs");
}
