//! Chunkservers in memory, with the checks that the real ones make and the faults that they have.

use crate::ports::{TargetCallError, Targets};
use bytes::Bytes;
use cairn_common::hash_tree;
use cairn_common::ids::{Hash, Incarnation, MapEpoch, PoolId, ServerId, TargetId};
use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
use cairn_common::scheme::Scheme;
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardHeader, ShardKey, ShardProof};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::task::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const POOL: PoolId = PoolId(1);
/// Copies, as many as the other pool may lose of a chunk and one more, on the same targets.
pub const COPIES: PoolId = PoolId(2);
const AVOID_FOR: Duration = Duration::from_secs(2);

/// How a target behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    #[default]
    Good,
    /// Fails at once.
    Unreachable,
    /// Never answers.
    Hung,
    Full,
    Slow(Duration),
    /// Flips a byte of everything it is asked for.
    Corrupt,
}

#[derive(Clone)]
struct Shard {
    header: ShardHeader,
    bytes: Bytes,
    data_blocks: Vec<Hash>,
    is_synced: bool,
}

#[derive(Default)]
struct TargetStore {
    shards: BTreeMap<ShardKey, Shard>,
    incarnation: Incarnation,
    behaviour: Behaviour,
    avoided_until: Option<Moment>,
}

/// Counts of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    pub puts: u64,
    pub synced_puts: u64,
    pub gets: u64,
    pub get_bytes: u64,
    pub proofs: u64,
    pub syncs: u64,
    pub doubts: u64,
    pub gets_at_once_max: u64,
}

struct State {
    map: Arc<ClusterMap>,
    /// What `refresh_map` will find.
    next_map: Option<Arc<ClusterMap>>,
    stores: BTreeMap<TargetId, TargetStore>,
    requests: Requests,
    gets_now: u64,
}

/// All chunkservers of a cluster.
pub struct FakeTargets {
    runtime: Runtime,
    state: Mutex<State>,
}

impl FakeTargets {
    /// One target for each slot, in 16 groups over which the slots are rotated.
    pub fn new(runtime: Runtime, scheme: Scheme) -> Arc<Self> {
        let count = u32::from(scheme.shards());
        let address: SocketAddr = "10.0.0.1:1".parse().expect("an address");
        let target = |number: u32| Target {
            id: TargetId(number + 1),
            server: ServerId(number + 1),
            address,
            state: TargetState::Serving,
            full: false,
            capacity_bytes: 1 << 40,
            labels: BTreeMap::new(),
        };
        let slot = |group: u32, slot: u32| Slot { holder: Some(TargetId((group + slot) % count + 1)), previous: None };
        let groups = (0..16).map(|group| Group { slots: (0..count).map(|number| slot(group, number)).collect() }).collect();
        let pool = Pool { id: POOL, name: "test".to_owned(), scheme, prefix_bits: 4, groups, labels: BTreeMap::new() };
        let copies = Scheme::copies(scheme.parity_shards());
        let group = Group { slots: (0..copies.shards().into()).map(|number| slot(0, number)).collect() };
        let copies =
            Pool { id: COPIES, name: "copies".to_owned(), scheme: copies, prefix_bits: 0, groups: vec![group], labels: BTreeMap::new() };
        let map = Arc::new(ClusterMap { epoch: MapEpoch(1), pools: vec![pool, copies], targets: (0..count).map(target).collect() });
        let stores = (1..=count).map(|number| (TargetId(number), TargetStore::default())).collect();
        let state = State { map, next_map: None, stores, requests: Requests::default(), gets_now: 0 };
        Arc::new(Self { runtime, state: Mutex::new(state) })
    }

    pub fn ids(&self) -> Vec<TargetId> {
        self.state.lock().stores.keys().copied().collect()
    }

    pub fn behave(&self, target: TargetId, behaviour: Behaviour) {
        let mut state = self.state.lock();
        let store = state.stores.get_mut(&target).expect("a target");
        store.behaviour = behaviour;
        store.avoided_until = None;
    }

    pub fn behave_all(&self, behaviour: Behaviour) {
        self.ids().into_iter().for_each(|target| self.behave(target, behaviour));
    }

    pub fn requests(&self) -> Requests {
        self.state.lock().requests
    }

    /// Whether it would still have the shard after a loss of power.
    pub fn is_stable(&self, target: TargetId, key: &ShardKey) -> bool {
        self.state.lock().stores[&target].shards.get(key).is_some_and(|shard| shard.is_synced)
    }

    pub fn shards_of(&self, target: TargetId) -> usize {
        self.state.lock().stores[&target].shards.len()
    }

    /// The process starts again; with a loss of power it has only what was synced.
    pub fn restart(&self, target: TargetId, power_loss: bool) {
        let mut state = self.state.lock();
        let store = state.stores.get_mut(&target).expect("a target");
        store.incarnation.0 += 1;
        if power_loss {
            store.shards.retain(|_, shard| shard.is_synced);
        }
    }

    /// Flips a byte of every stored shard of a target.
    pub fn rot(&self, target: TargetId, position: usize) {
        let mut state = self.state.lock();
        for shard in state.stores.get_mut(&target).expect("a target").shards.values_mut() {
            let mut bytes = shard.bytes.to_vec();
            let at = position % bytes.len();
            bytes[at] ^= 0x10;
            shard.bytes = bytes.into();
        }
    }

    /// Loses all shards of a target.
    pub fn wipe(&self, target: TargetId) {
        self.state.lock().stores.get_mut(&target).expect("a target").shards.clear();
    }

    /// As if every move that a new map may ask for were done already.
    pub fn copy_everything_everywhere(&self) {
        let mut state = self.state.lock();
        let all: Vec<(ShardKey, Shard)> =
            state.stores.values().flat_map(|store| store.shards.iter().map(|(key, shard)| (*key, shard.clone()))).collect();
        for store in state.stores.values_mut() {
            for (key, shard) in &all {
                store.shards.entry(*key).or_insert_with(|| shard.clone());
            }
        }
    }

    /// Announces a map in which all groups have moved by one target; known here only after a refresh.
    pub fn move_groups(&self) -> MapEpoch {
        let mut state = self.state.lock();
        let mut map = ClusterMap::clone(state.next_map.as_ref().unwrap_or(&state.map));
        map.epoch.0 += 1;
        for group in &mut map.pools[0].groups {
            let holders: Vec<Option<TargetId>> = group.slots.iter().map(|slot| slot.holder).collect();
            for (number, slot) in group.slots.iter_mut().enumerate() {
                slot.previous = slot.holder;
                slot.holder = holders[(number + 1) % holders.len()];
            }
        }
        let epoch = map.epoch;
        state.next_map = Some(Arc::new(map));
        epoch
    }

    /// Whether a shard is on a target.
    pub fn holds(&self, target: TargetId, key: &ShardKey) -> bool {
        self.state.lock().stores.get(&target).is_some_and(|store| store.shards.contains_key(key))
    }

    async fn answer(&self, target: TargetId, request: ChunkserverRequest, body: Bytes, limit: Duration) -> Answer {
        let unreachable = |why: &str| TargetCallError::Unreachable(target, why.to_owned());
        let delay = Duration::from_micros(100 + self.runtime.random_u64() % 400);
        let behaviour = self.state.lock().stores.get(&target).map_or(Behaviour::Unreachable, |store| store.behaviour);
        match behaviour {
            Behaviour::Unreachable => return Err(unreachable("refused")),
            Behaviour::Hung => {
                self.runtime.sleep(limit).await;
                return Err(unreachable("time-out"));
            }
            Behaviour::Slow(by) if by > limit => {
                self.runtime.sleep(limit).await;
                return Err(unreachable("time-out"));
            }
            Behaviour::Slow(by) => self.runtime.sleep(by).await,
            Behaviour::Good | Behaviour::Full | Behaviour::Corrupt => self.runtime.sleep(delay).await,
        }
        let is_get = matches!(request, ChunkserverRequest::Get { .. });
        if is_get {
            let mut state = self.state.lock();
            state.gets_now += 1;
            state.requests.gets_at_once_max = state.requests.gets_at_once_max.max(state.gets_now);
        }
        self.runtime.sleep(delay).await;
        let mut state = self.state.lock();
        if is_get {
            state.gets_now -= 1;
        }
        let State { stores, requests, .. } = &mut *state;
        let store = stores.get_mut(&target).expect("a target");
        store.serve(requests, target, behaviour, request, body).map_err(TargetCallError::Refused)
    }
}

type Answer = Result<(ChunkserverReply, Bytes), TargetCallError>;

impl TargetStore {
    fn serve(
        &mut self,
        requests: &mut Requests,
        target: TargetId,
        behaviour: Behaviour,
        request: ChunkserverRequest,
        body: Bytes,
    ) -> Result<(ChunkserverReply, Bytes), ChunkserverError> {
        let reply = |reply| Ok((reply, Bytes::new()));
        match request {
            ChunkserverRequest::Put { header, data_blocks, sync, .. } => {
                if behaviour == Behaviour::Full {
                    return Err(ChunkserverError::Full { target, free_bytes: 0 });
                }
                requests.puts += 1;
                requests.synced_puts += u64::from(sync);
                check_put(&header, &data_blocks, &body)?;
                let key = header.key;
                let is_synced = sync || self.shards.get(&key).is_some_and(|shard| shard.is_synced);
                self.shards.insert(key, Shard { header, bytes: body, data_blocks, is_synced });
                reply(ChunkserverReply::Stored { incarnation: self.incarnation })
            }
            ChunkserverRequest::Get { key, offset, bytes, with_proof, .. } => {
                requests.gets += 1;
                requests.get_bytes += u64::from(bytes);
                let shard = self.shards.get(&key).ok_or(ChunkserverError::NoSuchShard(key))?;
                let end = offset + bytes;
                let whole = offset % 4096 == 0 && (end % 4096 == 0 || end as usize == shard.bytes.len());
                if !whole || end as usize > shard.bytes.len() || bytes == 0 {
                    return Err(ChunkserverError::Malformed(format!("{offset}..{end} of {}", shard.bytes.len())));
                }
                let mut content = shard.bytes.slice(offset as usize..end as usize);
                if behaviour == Behaviour::Corrupt {
                    let mut bad = content.to_vec();
                    let at = bad.len() / 2;
                    bad[at] ^= 1;
                    content = bad.into();
                }
                let is_data = key.scheme.is_copies() || key.index < key.scheme.data_shards();
                let proof = (with_proof && is_data).then(|| shard.own_proof());
                Ok((ChunkserverReply::Data { proof }, content))
            }
            ChunkserverRequest::Proof { key, data_index, .. } => {
                requests.proofs += 1;
                let shard = self.shards.get(&key).ok_or(ChunkserverError::NoSuchShard(key))?;
                let mut proof = shard.proof_of(data_index)?;
                if behaviour == Behaviour::Corrupt {
                    proof.blocks[0].0[0] ^= 1;
                }
                reply(ChunkserverReply::Proof { proof })
            }
            ChunkserverRequest::Sync { incarnation, .. } => {
                requests.syncs += 1;
                if incarnation != self.incarnation {
                    return Err(ChunkserverError::Restarted { now: self.incarnation });
                }
                self.shards.values_mut().for_each(|shard| shard.is_synced = true);
                reply(ChunkserverReply::Synced)
            }
            ChunkserverRequest::Check { keys, .. } => {
                reply(ChunkserverReply::Checked { present: keys.iter().map(|key| self.shards.contains_key(key)).collect() })
            }
            ChunkserverRequest::Doubt { .. } => {
                requests.doubts += 1;
                reply(ChunkserverReply::Doubted)
            }
            ChunkserverRequest::Delete { .. }
            | ChunkserverRequest::Fetch { .. }
            | ChunkserverRequest::Examine { .. }
            | ChunkserverRequest::Status => Err(ChunkserverError::Denied),
        }
    }
}

/// What a chunkserver checks before it acknowledges a shard.
fn check_put(header: &ShardHeader, data_blocks: &[Hash], body: &Bytes) -> Result<(), ChunkserverError> {
    let wrong = |what: &str| ChunkserverError::HashMismatch(what.to_owned());
    hash_tree::verify_header(header).map_err(|error| wrong(&error.to_string()))?;
    let key = header.key;
    let layout = key.scheme.layout(header.chunk_bytes);
    if body.len() != layout.stored_bytes(key.index) as usize {
        return Err(wrong("length"));
    }
    if key.scheme.is_copies() {
        return if hash_tree::chunk_id(body) == key.chunk { Ok(()) } else { Err(wrong("copy")) };
    }
    if key.index < key.scheme.data_shards() {
        let tree = hash_tree::data_shard_tree(layout, key.index, body);
        return if tree.hash == header.data_hashes[usize::from(key.index)] { Ok(()) } else { Err(wrong("data")) };
    }
    let parity = usize::from(key.index - key.scheme.data_shards());
    if hash_tree::parity_hash(body) != header.parity_hashes[parity] {
        return Err(wrong("parity"));
    }
    for index in 0..layout.occupied_data_shards() {
        let blocks = hash_tree::data_blocks_of(layout, index, data_blocks).ok_or_else(|| wrong("block list"))?;
        if hash_tree::merge_blocks(layout, index, blocks) != Some(header.data_hashes[usize::from(index)]) {
            return Err(wrong("block list"));
        }
    }
    Ok(())
}

impl Shard {
    fn own_proof(&self) -> ShardProof {
        let layout = self.header.key.scheme.layout(self.header.chunk_bytes);
        let index = if layout.scheme().is_copies() { 0 } else { self.header.key.index };
        let blocks = hash_tree::data_shard_tree(layout, index, &self.bytes).blocks;
        ShardProof { chunk_bytes: self.header.chunk_bytes, data_hashes: self.header.data_hashes.clone(), blocks }
    }

    fn proof_of(&self, data_index: u8) -> Result<ShardProof, ChunkserverError> {
        if self.header.key.index == data_index {
            return Ok(self.own_proof());
        }
        let layout = self.header.key.scheme.layout(self.header.chunk_bytes);
        let blocks = hash_tree::data_blocks_of(layout, data_index, &self.data_blocks);
        let blocks = blocks.ok_or_else(|| ChunkserverError::Malformed("no such block list".to_owned()))?;
        Ok(ShardProof { chunk_bytes: self.header.chunk_bytes, data_hashes: self.header.data_hashes.clone(), blocks: blocks.to_vec() })
    }
}

impl Targets for FakeTargets {
    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.state.lock().map)
    }

    fn refresh_map(&self, known: MapEpoch) -> BoxFuture<'_, Arc<ClusterMap>> {
        Box::pin(async move {
            self.runtime.sleep(Duration::from_micros(300)).await;
            let mut state = self.state.lock();
            if let Some(map) = state.next_map.take().filter(|map| map.epoch > known) {
                state.map = map;
            }
            Arc::clone(&state.map)
        })
    }

    fn call(
        &self,
        target: TargetId,
        request: ChunkserverRequest,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(ChunkserverReply, Bytes), TargetCallError>> {
        Box::pin(async move {
            let answer = self.answer(target, request, body, limit).await;
            if let Err(TargetCallError::Unreachable(..)) = answer {
                let until = self.runtime.now().plus(AVOID_FOR);
                if let Some(store) = self.state.lock().stores.get_mut(&target) {
                    store.avoided_until = Some(until);
                }
            }
            answer
        })
    }

    fn is_avoided(&self, target: TargetId) -> bool {
        let state = self.state.lock();
        let until = state.stores.get(&target).and_then(|store| store.avoided_until);
        until.is_some_and(|until| self.runtime.now() < until)
    }
}
