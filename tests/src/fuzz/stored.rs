//! Whole data directories with spoiled bytes: opening one may fail, in a sentence, but must neither panic nor show what is not right.

use super::mutator::Mutator;
use crate::reference::content::stream;
use bytes::Bytes;
use cairn_chunkserver::target::ClusterKey;
use cairn_chunkserver::{Put, Target, TargetSettings};
use cairn_common::attributes::Owner;
use cairn_common::hash_tree;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};
use cairn_master::check::check;
use cairn_master::dump;
use cairn_master::service::Namespace;
use cairn_master::state::command::NewCluster;
use cairn_master::state::{Command, Stamped};
use cairn_master::store::{Store, StoreSettings};
use cairn_runtime::sim::{Crash, Node, World};
use std::path::{Path, PathBuf};

const SHARDS: u64 = 12;
const SPOILED_FILES: [&str; 2] = ["seg", "json"];

fn body(number: u64) -> Bytes {
    Bytes::from(stream(number, 0, 500 + number as usize * 900))
}

fn key(number: u64) -> ShardKey {
    ShardKey { chunk: hash_tree::chunk_id(&body(number)), scheme: Scheme::copies(2), index: 0 }
}

async fn open_target(node: &Node) -> Result<Target, String> {
    let settings =
        TargetSettings { segment_bytes: 24 << 10, index_cache_bytes: 1 << 20, reserve_bytes: Some(0), ..TargetSettings::default() };
    let runtime = node.runtime();
    let opened = Target::open(&runtime, PathBuf::from("/data"), ClusterKey([1; 16]), settings).await;
    opened.map_err(|error| error.to_string())
}

/// Spoils the segments of a target. What is wrong, if anything.
pub fn spoil_a_target(seed: u64) -> Option<String> {
    let world = World::new(seed);
    let node = world.node("chunkserver");
    world.run_until(async {
        let target = open_target(&node).await.ok()?;
        for number in 0..SHARDS {
            let body = body(number);
            let header =
                ShardHeader { key: key(number), chunk_bytes: body.len() as u32, data_hashes: Vec::new(), parity_hashes: Vec::new() };
            let put = Put { header, data_blocks: Vec::new(), ticket: Timestamp::EPOCH, sync: true };
            target.put(put, body).await.ok()?;
        }
        drop(target);
        node.crash(Crash::Kill);
        spoil_files(&node, seed, &SPOILED_FILES);
        // A target that can't be opened is one that is lost: others have its shards.
        let target = open_target(&node).await.ok()?;
        for number in 0..SHARDS {
            let expected = body(number);
            if let Ok((bytes, proof)) = target.get(key(number), 0, expected.len() as u32, true).await {
                let layout = key(number).scheme.layout(expected.len() as u32);
                let proof = proof?;
                let is_verified = hash_tree::verify_proof(layout, key(number).chunk, 0, &proof).is_ok()
                    && hash_tree::verify_blocks(layout, 0, &proof.blocks, 0, &bytes).is_ok();
                if is_verified && bytes != expected {
                    return Some(format!("seed {seed}: shard {number} reads wrong, and proves it"));
                }
            }
        }
        None
    })
}

async fn open_store(node: &Node) -> Result<Store<Namespace>, String> {
    let settings = StoreSettings { log_segment_bytes: 8 << 10, cache_bytes: 1 << 20, ..StoreSettings::new("/master") };
    Store::open(node.runtime(), settings).await.map_err(|error| error.to_string())
}

/// Makes a master with a log of a few dozen commands, and stops it.
async fn make_master(node: &Node) -> Option<()> {
    let store = open_store(node).await.ok()?;
    let new = NewCluster {
        cluster: [7; 16],
        pool_name: "main".to_owned(),
        scheme: Scheme::copies(2),
        prefix_bits: 1,
        root_owner: Owner { uid: 0, gid: 0 },
        placement_seed: 1,
    };
    let open = |number: u64| Command::OpenSession { previous: None, description: format!("session {number}"), open: Vec::new() };
    let mut last = None;
    for command in [Command::Initialise(new)].into_iter().chain((0..40).map(open)) {
        let stamped = Stamped { at: store.next_time(Timestamp::from_nanos(1)), command };
        last = Some(store.submit(&stamped).ok()?.1);
    }
    store.synced(last?).await.ok()?;
    drop(store);
    node.crash(Crash::Kill);
    Some(())
}

/// Spoils a dump of a master. What is wrong, if anything: it may be loaded only if it is whole, and a refused one leaves the way free for a good one.
pub fn spoil_a_dump(seed: u64) -> Option<String> {
    let world = World::new(seed);
    let node = world.node("master");
    world.run_until(async {
        make_master(&node).await?;
        let mut whole = Vec::new();
        dump::dump(&node.runtime(), Path::new("/master"), &mut whole).ok()?;
        let spoiled = Mutator::new(seed).input(std::slice::from_ref(&whole));
        let restored = Path::new("/restored");
        let load = |mut bytes: &[u8]| dump::load(&node.runtime(), restored, &mut bytes);
        match load(&spoiled) {
            Ok(_) if spoiled != whole => return Some(format!("seed {seed}: a damaged dump was loaded")),
            Ok(_) => return None,
            Err(_) => {}
        }
        load(&whole).err().map(|error| format!("seed {seed}: after a damaged dump the good one is refused: {error}"))
    })
}

/// Spoils the log of a master. What is wrong, if anything.
pub fn spoil_a_log(seed: u64) -> Option<String> {
    let world = World::new(seed);
    let node = world.node("master");
    world.run_until(async {
        make_master(&node).await?;
        spoil_files(&node, seed, &["log"]);
        let store = open_store(&node).await.ok()?;
        match store.read(check) {
            Ok(problems) if store.last().0 > 0 && !problems.is_empty() => Some(format!("seed {seed}: {problems:?}")),
            _ => None,
        }
    })
}

/// Flips some bits in the files with one of these extensions.
fn spoil_files(node: &Node, seed: u64, extensions: &[&str]) {
    let mut mutator = Mutator::new(seed);
    let disk = node.disk();
    let is_meant = |path: &PathBuf| path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension));
    let files: Vec<PathBuf> = disk.files().into_iter().filter(is_meant).collect();
    for _ in 0..1 + mutator.below(6) {
        let Some(path) = files.get(mutator.below(files.len())) else { return };
        let len = disk.read(path).map_or(0, |content| content.len());
        // Heads of files and of records matter most.
        let at = if mutator.below(2) == 0 { mutator.below(len) } else { mutator.below(len / 4096 + 1) * 4096 + mutator.below(170) };
        // Beyond the end there is nothing to spoil.
        let _ = disk.flip_bit(path, at as u64, mutator.below(8) as u8);
    }
}
