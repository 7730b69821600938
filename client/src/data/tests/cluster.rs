//! What every test starts with.

use super::fake_master::FakeMaster;
use super::fake_targets::{FakeTargets, POOL};
use crate::data::{DataSettings, DataStore, FileData};
use cairn_common::ids::Ino;
use cairn_common::scheme::Scheme;
use cairn_runtime::Runtime;
use cairn_runtime::sim::{World, block_on_world};
use std::future::Future;
use std::sync::Arc;

/// A client with its cluster.
pub struct Cluster {
    pub runtime: Runtime,
    pub targets: Arc<FakeTargets>,
    pub master: Arc<FakeMaster>,
    pub store: Arc<DataStore>,
}

impl Cluster {
    pub fn new(world: World, scheme: &str, settings: impl FnOnce(&mut DataSettings)) -> Self {
        let runtime = world.node("client").runtime();
        let scheme: Scheme = scheme.parse().expect("a scheme");
        let targets = FakeTargets::new(runtime.clone(), scheme);
        let master = FakeMaster::new(runtime.clone(), Arc::clone(&targets));
        let mut chosen = DataSettings { write_buffer_bytes: 32 << 20, block_cache_bytes: 32 << 20, ..DataSettings::for_pool(POOL) };
        settings(&mut chosen);
        let store = DataStore::new(runtime.clone(), Arc::clone(&master) as _, Arc::clone(&targets) as _, chosen, Arc::default());
        Self { runtime, targets, master, store }
    }

    /// Another client of the same cluster, with empty caches.
    pub fn stranger(&self) -> Arc<DataStore> {
        DataStore::new(
            self.runtime.clone(),
            Arc::clone(&self.master) as _,
            Arc::clone(&self.targets) as _,
            DataSettings::for_pool(POOL),
            Arc::default(),
        )
    }

    pub fn create(&self, number: u64) -> Arc<FileData> {
        let attributes = self.master.create(Ino(number));
        let file = self.store.file(Ino(number));
        file.opened(&attributes, &Default::default(), true);
        file
    }

    pub fn open_in(&self, store: &Arc<DataStore>, number: u64) -> Arc<FileData> {
        let file = store.file(Ino(number));
        let (attributes, page) = self.master.open(Ino(number));
        file.opened(&attributes, &page, true);
        file
    }
}

/// Runs a test in the world of a seed, with a pool of `scheme`.
pub fn with_cluster<T, F: Future<Output = T>>(seed: u64, scheme: &str, body: impl FnOnce(Arc<Cluster>) -> F) -> T {
    block_on_world(seed, |world| body(Arc::new(Cluster::new(world, scheme, |_| ()))))
}

/// Bytes that tell their place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Fails with the place of the first difference rather than with megabytes.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8], note: &str) {
    let different = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert!(found.len() == expected.len(), "{note}: {} bytes instead of {}; they differ from {different:?}", found.len(), expected.len());
    assert!(different.is_none(), "{note}: byte {different:?} of {} differs", found.len());
}
