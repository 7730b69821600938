//! Garbage collection: forget chunks that nothing has referred to for the grace period, then have their shards deleted.
//!
//! The order is forget, sync, delete: were a chunk's record to come back after a power loss, a commit could name it although
//! its shards are gone. Shards on a chunkserver that can't be reached are given up; they take space until that one compares what
//! it has with the master.

use super::master::{Master, yield_now};
use crate::state::Command;
use crate::state::read::{self, Deletion};
use cairn_common::codec;
use cairn_common::ids::{ServerId, TargetId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverReply, ChunkserverRequest, ShardKey};
use cairn_common::wire::master::MasterError;
use cairn_runtime::network::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Chunks per command, and per round of deletions.
const CHUNKS_PER_ROUND: usize = 512;
/// How long a chunkserver may take to delete one round.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);

/// The shards of one target that were put before a time.
type Work = BTreeMap<(ServerId, TargetId, Timestamp), Vec<ShardKey>>;

/// Collects everything that is due.
pub async fn collect(master: &Master) -> Result<(), MasterError> {
    forget(master).await?;
    loop {
        let deletions = master.look(|reader| read::deletions(reader, CHUNKS_PER_ROUND))?;
        if deletions.is_empty() {
            return Ok(());
        }
        master.synced(master.store.last()).await?;
        delete(master, &deletions).await?;
        let deletions = deletions.iter().map(|deletion| (deletion.put_before, deletion.chunk.id)).collect();
        master.submit(Command::DeletionsDone { deletions }).await?;
        yield_now().await;
    }
}

async fn forget(master: &Master) -> Result<(), MasterError> {
    loop {
        let now = master.time();
        let chunks = master.look(|reader| read::forgettable_chunks(reader, now, CHUNKS_PER_ROUND))?;
        if chunks.is_empty() {
            return Ok(());
        }
        master.submit(Command::ForgetChunks { chunks }).await?;
        yield_now().await;
    }
}

async fn delete(master: &Master, deletions: &[Deletion]) -> Result<(), MasterError> {
    let map = master.map()?;
    for ((server, target, put_before), keys) in shards(&map, deletions) {
        let shards = keys.len();
        match ask(master, server, ChunkserverRequest::Delete { target, keys, put_before }).await {
            Ok(deleted) => tracing::debug!(%target, shards, deleted, "shards of forgotten chunks were deleted"),
            Err(reason) => tracing::warn!(%target, shards, "shards of forgotten chunks stay where they are: {reason}"),
        }
    }
    Ok(())
}

/// Which shards lie where: with the present holders of their slots, and with previous ones while a move is under way.
fn shards(map: &ClusterMap, deletions: &[Deletion]) -> Work {
    let mut work = Work::new();
    for Deletion { put_before, chunk } in deletions {
        let Some(pool) = map.pool(chunk.pool) else { continue };
        let layout = chunk.scheme.layout(chunk.bytes);
        for (index, slot) in (0u8..).zip(chunk.slots.slots()) {
            let Some(slot) = pool.group_of(chunk.id).slots.get(usize::from(slot)).filter(|_| layout.is_stored(index)) else { continue };
            for target in slot.targets().filter_map(|id| map.target(id)) {
                let key = ShardKey { chunk: chunk.id, scheme: chunk.scheme, index };
                work.entry((target.server, target.id, *put_before)).or_default().push(key);
            }
        }
    }
    work
}

/// How many shards the server says it deleted.
async fn ask(master: &Master, server: ServerId, request: ChunkserverRequest) -> Result<u32, String> {
    let connection = master.servers.lock().connection(server).ok_or_else(|| format!("there is no connection to {server}"))?;
    let message = Message { head: codec::encode(&request).into(), body: bytes::Bytes::new() };
    let reply = master.runtime.timeout(DELETE_TIMEOUT, connection.call(message)).await;
    let reply = reply.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let answer: ChunkserverAnswer = codec::decode("an answer of a chunkserver", &reply.head).map_err(|error| error.to_string())?;
    match answer.map_err(|error| error.to_string())? {
        ChunkserverReply::Deleted { shards } => Ok(shards),
        other => Err(format!("{other:?} is no answer to a deletion")),
    }
}

#[cfg(test)]
mod tests {
    use super::shards;
    use crate::state::read::Deletion;
    use cairn_common::extent::{ChunkInfo, SlotMask};
    use cairn_common::ids::{ChunkId, MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
    use cairn_common::scheme::Scheme;
    use cairn_common::time::Timestamp;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    fn target(id: u32) -> Target {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let labels = BTreeMap::new();
        Target { id: TargetId(id), server: ServerId(id), address, state: TargetState::Serving, full: false, capacity_bytes: 1, labels }
    }

    #[test]
    fn each_shard_is_asked_of_the_holder_of_its_slot() {
        let slot = |holder| Slot { holder: Some(TargetId(holder)), previous: None };
        let slots = vec![slot(1), slot(2), Slot { previous: Some(TargetId(6)), ..slot(3) }, Slot::default(), slot(5)];
        let scheme = Scheme::new(2, 1).unwrap();
        let pool =
            Pool { id: PoolId(1), name: String::new(), scheme, prefix_bits: 0, groups: vec![Group { slots }], labels: BTreeMap::new() };
        let map = ClusterMap { epoch: MapEpoch(1), pools: vec![pool], targets: (1..=6).map(target).collect() };
        let chunk = |bytes, slots| ChunkInfo { id: ChunkId([9; 32]), bytes, pool: PoolId(1), scheme, slots: SlotMask::from_slots(slots) };
        let asked = |chunk| {
            let work = shards(&map, &[Deletion { put_before: Timestamp::EPOCH, chunk }]);
            work.iter()
                .map(|((_, target, _), keys)| (target.0, keys.iter().map(|key| key.index).collect()))
                .collect::<Vec<(u32, Vec<u8>)>>()
        };
        assert_eq!(asked(chunk(100_000, [0, 2, 4])), [(1, vec![0]), (3, vec![1]), (5, vec![2]), (6, vec![1])]);
        assert_eq!(asked(chunk(100, [0, 1, 4])), [(1, vec![0]), (5, vec![2])], "the second data shard lies beyond the chunk's end");
        assert_eq!(asked(chunk(100_000, [1, 3, 4])), [(2, vec![0]), (5, vec![2])], "a vacant slot holds nothing");
    }
}
