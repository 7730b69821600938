//! A server with three disks, to test the parts of healing with.

use super::duty::tests::POOL;
use super::master::MasterHandle;
use super::{Healer, HealingSettings};
use crate::target::Target;
use crate::target::tests::fixture::{CLUSTER, HangingDisk, Shard, content, settings, shards_of};
use cairn_common::extent::{ChunkInfo, SlotMask};
use cairn_common::ids::{Incarnation, ServerId, TargetId};
use cairn_common::wire::master::Role;
use cairn_runtime::network::{Credentials, Endpoint, Identity, Trust};
use cairn_runtime::sim::Node;
use std::path::PathBuf;
use std::sync::Arc;

pub const CHUNKS: u64 = 20;

/// A server with the targets 1, 2 and 3, and chunks whose three shards may be put on them. The second disk can hang.
pub struct Server {
    pub healer: Arc<Healer>,
    pub targets: Vec<Target>,
    pub second_disk: Arc<HangingDisk>,
    /// The three copies of each chunk.
    pub chunks: Vec<Vec<Shard>>,
    endpoint: Arc<dyn Endpoint>,
    master: Arc<dyn Endpoint>,
}

impl Server {
    pub async fn start(node: &Node) -> Self {
        let runtime = node.runtime();
        let (second_disk, second) = HangingDisk::under(&runtime);
        let mut targets = Vec::new();
        for (runtime, id) in [(&runtime, 1), (&second, 2), (&runtime, 3)] {
            let target = Target::open(runtime, PathBuf::from(format!("/disk{id}")), CLUSTER, settings()).await.expect("opens");
            target.set_id(TargetId(id)).await.expect("noted");
            targets.push(target);
        }
        let bind = |port, role| {
            let identity = Identity { role, name: "somebody".to_owned(), certificate: Vec::new(), private_key: Vec::new() };
            let credentials = Credentials { identity: Some(identity), trust: Trust::Authority(b"the authority".to_vec()) };
            runtime.network.bind(node.address(port), credentials).expect("bound")
        };
        let (endpoint, master) = (bind(7000, Role::Chunkserver), bind(7001, Role::Master));
        let handle = Arc::new(MasterHandle::new(runtime.clone(), Incarnation(1)));
        let healer = Healer::new(runtime, HealingSettings::default(), &targets, handle, endpoint.clone());
        let chunks = (0..CHUNKS).map(|number| shards_of("1+2", &content(number, 5000))).collect();
        Self { healer, targets, second_disk, chunks, endpoint, master }
    }

    /// How a chunk is stored: its three copies in the three slots of its group.
    pub fn chunk(&self, number: usize) -> ChunkInfo {
        let header = &self.chunks[number][0].header;
        let slots = SlotMask::from_slots([0, 1, 2]);
        ChunkInfo { id: header.key.chunk, bytes: header.chunk_bytes, pool: POOL, scheme: header.key.scheme, slots }
    }

    /// Connects the healer to a master that never answers.
    pub async fn find_silent_master(&self) {
        let connection = self.endpoint.connect(self.master.local_address(), Role::Master).await.expect("a healthy network");
        self.healer.master.found(&connection, ServerId(1));
    }
}
