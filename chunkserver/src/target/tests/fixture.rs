//! Chunks and targets to test with.

use crate::target::{ClusterKey, Put, Target, TargetSettings};
use bytes::Bytes;
use cairn_common::ids::Hash;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardHeader, ShardKey};
use cairn_common::{erasure, hash_tree};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Node, World, block_on_world};
use cairn_runtime::task::{BoxFuture, Executor, TaskHandle};
use parking_lot::Mutex;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const CLUSTER: ClusterKey = ClusterKey([1; 16]);
pub const DIRECTORY: &str = "/data";

/// Small segments and frequent flushes, so that short tests meet many of both.
pub fn settings() -> TargetSettings {
    TargetSettings {
        segment_bytes: 128 << 10,
        flush_interval: Duration::from_millis(50),
        flush_entries: 16,
        index_cache_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ..TargetSettings::default()
    }
}

pub async fn open(runtime: &Runtime) -> Target {
    Target::open(runtime, PathBuf::from(DIRECTORY), CLUSTER, settings()).await.expect("opens")
}

type Work = Box<dyn FnOnce() + Send>;

/// Blocking work of a target whose disk can hang: then it is held, as threads in the kernel would be, and nothing ends.
pub struct HangingDisk {
    inner: Arc<dyn Executor>,
    /// `None` while the disk is well.
    held: Mutex<Option<Vec<Work>>>,
}

impl HangingDisk {
    /// The same machine, with blocking work on such a disk.
    pub fn under(runtime: &Runtime) -> (Arc<Self>, Runtime) {
        let disk = Arc::new(Self { inner: runtime.executor.clone(), held: Mutex::new(None) });
        let runtime = Runtime { executor: disk.clone(), ..runtime.clone() };
        (disk, runtime)
    }

    pub fn hang(&self) {
        *self.held.lock() = Some(Vec::new());
    }

    /// Threads that are stuck.
    pub fn held(&self) -> usize {
        self.held.lock().as_ref().map_or(0, Vec::len)
    }

    pub fn go_on(&self) {
        let held = self.held.lock().take();
        held.into_iter().flatten().for_each(|work| self.inner.blocking(work));
    }
}

impl Executor for HangingDisk {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.inner.spawn(name, future)
    }

    fn blocking(&self, work: Work) {
        match &mut *self.held.lock() {
            Some(held) => held.push(work),
            None => self.inner.blocking(work),
        }
    }
}

/// Runs a test in the world of a seed, with one node.
pub fn with_node<F: Future<Output = ()>>(seed: u64, body: impl FnOnce(World, Node) -> F) {
    block_on_world(seed, |world| {
        let node = world.node("chunkserver");
        body(world, node)
    });
}

pub fn index_path() -> PathBuf {
    Path::new(DIRECTORY).join("index.redb")
}

pub fn segment_paths(node: &Node) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "seg");
    node.disk().files().into_iter().filter(is_segment).collect()
}

/// Bytes that depend on a number only.
pub fn content(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A shard as a writer has it.
#[derive(Debug, Clone)]
pub struct Shard {
    pub header: ShardHeader,
    pub data_blocks: Vec<Hash>,
    pub body: Bytes,
}

impl Shard {
    pub fn key(&self) -> ShardKey {
        self.header.key
    }

    pub fn put(&self, ticket: i64, sync: bool) -> Put {
        let ticket = Timestamp::from_nanos(ticket);
        Put { header: self.header.clone(), data_blocks: self.data_blocks.clone(), ticket, sync }
    }

    pub async fn put_on(&self, target: &Target, ticket: i64, sync: bool) -> Result<(), ChunkserverError> {
        target.put(self.put(ticket, sync), self.body.clone()).await
    }

    /// Reads the shard as a whole and checks that it is right.
    pub async fn check_on(&self, target: &Target) -> Result<(), ChunkserverError> {
        let (bytes, proof) = target.get(self.key(), 0, self.body.len() as u32, true).await?;
        assert!(bytes == self.body, "{:?} reads wrong", self.key());
        if let Some(proof) = proof {
            let layout = self.key().scheme.layout(self.header.chunk_bytes);
            let index = if self.key().scheme.is_copies() { 0 } else { self.key().index };
            hash_tree::verify_proof(layout, self.key().chunk, index, &proof).expect("a good proof");
            hash_tree::verify_blocks(layout, index, &proof.blocks, 0, &bytes).expect("good bytes");
        }
        Ok(())
    }
}

/// All shards of a chunk that are stored.
pub fn shards_of(scheme: &str, chunk: &[u8]) -> Vec<Shard> {
    let scheme: Scheme = scheme.parse().expect("a scheme");
    let layout = scheme.layout(chunk.len() as u32);
    let id = hash_tree::chunk_id(chunk);
    let trees = hash_tree::all_blocks(layout, chunk);
    let parity = erasure::encode(layout, chunk);
    let (data_hashes, parity_hashes) = match scheme.is_copies() {
        true => (Vec::new(), Vec::new()),
        false => (trees.iter().map(|tree| tree.hash).collect(), parity.iter().map(|shard| hash_tree::parity_hash(shard)).collect()),
    };
    let all_blocks: Vec<Hash> = trees.iter().flat_map(|tree| tree.blocks.iter().copied()).collect();
    let mut shards = Vec::new();
    for index in (0..scheme.shards()).filter(|index| layout.is_stored(*index)) {
        let key = ShardKey { chunk: id, scheme, index };
        let header = ShardHeader {
            key,
            chunk_bytes: chunk.len() as u32,
            data_hashes: Vec::clone(&data_hashes),
            parity_hashes: Vec::clone(&parity_hashes),
        };
        let is_parity = !scheme.is_copies() && index >= scheme.data_shards();
        let body = match (scheme.is_copies(), is_parity) {
            (true, _) => Bytes::copy_from_slice(chunk),
            (false, true) => Bytes::copy_from_slice(&parity[usize::from(index - scheme.data_shards())]),
            (false, false) => {
                let range = layout.data_range(index);
                Bytes::copy_from_slice(&chunk[range.start as usize..range.end as usize])
            }
        };
        let data_blocks = if is_parity { all_blocks.clone() } else { Vec::new() };
        shards.push(Shard { header, data_blocks, body });
    }
    shards
}

/// One shard of one short chunk.
pub fn small(number: u64) -> Shard {
    shards_of("1+2", &content(number, 1000)).remove(0)
}

/// Inverts a bit in the body of a shard, wherever it lies on the node's disk.
pub fn rot(node: &Node, shard: &Shard) {
    let begin = &shard.body[..32];
    for path in segment_paths(node) {
        let stored = node.disk().read(&path).expect("a file");
        if let Some(at) = stored.windows(begin.len()).position(|window| window == begin) {
            return node.disk().flip_bit(&path, at as u64 + 100, 3).expect("within the file");
        }
    }
    panic!("{:?} is not stored", shard.key());
}
