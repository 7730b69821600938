//! A target's segments and index. After any loss of power every shard that was acknowledged as stable reads right, every deletion that was
//! acknowledged holds, and everything else is right or absent.

use super::{Report, Subject};
use bytes::Bytes;
use cairn_chunkserver::target::ClusterKey;
use cairn_chunkserver::{OpenError, Put, Target, TargetSettings};
use cairn_common::hash_tree;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardHeader, ShardKey};
use cairn_runtime::Runtime;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CLUSTER: ClusterKey = ClusterKey([1; 16]);
const STEPS: u64 = 60;

/// Runs the workload with a crash after every `stride`th operation.
pub fn enumerate(seeds: Range<u64>, stride: u64) -> Report {
    super::enumerate(seeds, stride, SegmentsAndIndex::default)
}

/// What is known of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// It may be there.
    Unknown,
    Stable,
    Deleted,
}

#[derive(Default)]
struct SegmentsAndIndex {
    shards: Mutex<BTreeMap<u64, Promise>>,
}

fn settings() -> TargetSettings {
    TargetSettings {
        segment_bytes: 48 << 10,
        flush_interval: Duration::from_millis(20),
        flush_entries: 8,
        index_cache_bytes: 1 << 20,
        reserve_bytes: Some(0),
        ..TargetSettings::default()
    }
}

async fn open(runtime: &Runtime) -> Result<Target, OpenError> {
    Target::open(runtime, PathBuf::from("/data"), CLUSTER, settings()).await
}

/// The bytes of a shard: one copy of a chunk of its own.
fn body(number: u64) -> Bytes {
    Bytes::from(crate::reference::content::stream(number, 0, 900 + (number as usize * 701) % 9_000))
}

fn key(number: u64) -> ShardKey {
    ShardKey { chunk: hash_tree::chunk_id(&body(number)), scheme: Scheme::copies(2), index: 0 }
}

impl SegmentsAndIndex {
    fn note(&self, number: u64, promise: Promise) {
        self.shards.lock().expect("nobody panics while holding it").insert(number, promise);
    }

    fn unstable(&self) -> Vec<u64> {
        let shards = self.shards.lock().expect("nobody panics while holding it");
        shards.iter().filter(|(_, promise)| **promise == Promise::Unknown).map(|(number, _)| *number).collect()
    }

    async fn put(&self, target: &Target, number: u64, ticket: i64, sync: bool) -> Option<()> {
        let body = body(number);
        let header = ShardHeader { key: key(number), chunk_bytes: body.len() as u32, data_hashes: Vec::new(), parity_hashes: Vec::new() };
        self.note(number, Promise::Unknown);
        let put = Put { header, data_blocks: Vec::new(), ticket: Timestamp::from_nanos(ticket), sync };
        target.put(put, body).await.ok()?;
        if sync {
            self.note(number, Promise::Stable);
        }
        Some(())
    }

    async fn work_through(&self, runtime: &Runtime) -> Option<()> {
        let target = open(runtime).await.ok()?;
        for step in 0..STEPS {
            match step % 10 {
                3 => {
                    let before = self.unstable();
                    target.sync().await.ok()?;
                    before.into_iter().for_each(|number| self.note(number, Promise::Stable));
                }
                5 | 9 => {
                    let number = step - 4;
                    self.note(number, Promise::Unknown);
                    target.delete(vec![key(number)], Timestamp::from_nanos(1_000_000)).await.ok()?;
                    self.note(number, Promise::Deleted);
                }
                7 => {
                    // Deleted before: it comes back.
                    self.put(&target, step - 6, step as i64, true).await?;
                    runtime.sleep(Duration::from_millis(15)).await;
                }
                _ => self.put(&target, step, step as i64, step % 2 == 0).await?,
            }
        }
        target.close().await.ok()
    }
}

impl Subject for SegmentsAndIndex {
    async fn work(self: Arc<Self>, runtime: Runtime) {
        // A failure of the disk ends the work; what was promised until then counts.
        let _ = self.work_through(&runtime).await;
    }

    async fn recover(self: Arc<Self>, runtime: Runtime) -> Vec<String> {
        let target = match open(&runtime).await {
            Ok(target) => target,
            Err(error) => return vec![format!("the target does not open: {error}")],
        };
        let shards = self.shards.lock().expect("nobody panics while holding it").clone();
        let mut violations = Vec::new();
        for (number, promise) in shards {
            let expected = body(number);
            let found = target.get(key(number), 0, expected.len() as u32, false).await;
            let is_right = match (&found, promise) {
                (Ok((bytes, _)), Promise::Stable | Promise::Unknown) => *bytes == expected,
                (Err(ChunkserverError::NoSuchShard(_)), Promise::Deleted | Promise::Unknown) => true,
                _ => false,
            };
            if !is_right {
                violations.push(format!("shard {number} is {promise:?}, and a get gives {:?}", found.map(|(bytes, _)| bytes.len())));
            }
        }
        violations
    }
}
