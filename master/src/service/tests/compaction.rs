//! Who is given what to rewrite.

use super::support::{Asker, settings, start_with};
use crate::service::Settings;
use crate::state::record::Rules;
use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
use cairn_common::ids::{ChunkId, Incarnation, Ino, MapEpoch, PoolId};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{Healing, TargetHealth, TargetStatus};
use cairn_common::wire::master::{
    CompactionStatus, CompactionWork, FileCommit, FileCompaction, MasterReply, MasterRequest, Mutation, MutationReply, Role,
    TargetAnnouncement,
};
use cairn_runtime::sim::{Node, block_on_world};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK_BYTES: u32 = 64;

fn few_are_many(node: &Node) -> Settings {
    let rules = Rules { window_many: 8, window_too_many: 12, sparse_patience: PATIENCE, ..Rules::default() };
    Settings { rules, ..settings(node) }
}

async fn new_chunk(client: &Asker, number: u8) -> NewChunk {
    let Ok(MasterReply::Renewed { epoch, now, .. }) = client.renew(&[]).await else { panic!("not renewed") };
    let slots = SlotMask::from_slots([0, 1]);
    let info = ChunkInfo { id: ChunkId([number; 32]), bytes: CHUNK_BYTES, pool: PoolId(1), scheme: Scheme::copies(1), slots };
    NewChunk { info, epoch, ticket: now }
}

/// Commits extents of two bytes side by side, each from the chunk's end towards its beginning.
async fn scatter(client: &Asker, name: &str, chunk: u8, count: u32) -> Ino {
    let ino = client.create(name, false).await.ino;
    let extent =
        |at: u32| Extent { file_offset: u64::from(at) * 2, bytes: 2, chunk: ChunkId([chunk; 32]), chunk_offset: CHUNK_BYTES - 2 - at * 2 };
    let file = FileCommit { ino, extents: (0..count).map(extent).collect(), size_at_least: 0, mtime: Timestamp::EPOCH };
    let chunks = vec![new_chunk(client, chunk).await];
    client.mutate(false, Mutation::Commit { files: vec![file], chunks }).await.unwrap();
    ino
}

async fn work(client: &Asker, done: bool) -> Option<CompactionWork> {
    match client.ask(MasterRequest::CompactionWork { session: client.session, done }).await {
        Ok(MasterReply::CompactionWork(work)) => work,
        other => panic!("{other:?}"),
    }
}

async fn compaction(client: &Asker) -> CompactionStatus {
    match client.ask(MasterRequest::Status).await {
        Ok(MasterReply::Status(status)) => status.compaction,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_window_is_given_to_one_at_a_time() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let master = start_with(&node, few_are_many(&node)).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        assert_eq!(work(&one, false).await, None);
        let ino = scatter(&one, "file", 1, 20).await;
        let status = compaction(&one).await;
        assert_eq!((status.extents, status.extent_bytes, status.windows_waiting), (20, 40, 1));

        let given = work(&one, false).await.expect("there is work");
        assert_eq!((given.files[0].ino, given.files[0].extents.len(), given.chunks.len()), (ino, 20, 1));
        assert_eq!(work(&two, false).await, None, "the other one has it");
        assert_eq!(work(&one, false).await, None, "it did not work out: later");
        world.sleep(Duration::from_secs(40)).await;
        one.renew(&[]).await.unwrap();
        two.renew(&[]).await.unwrap();
        world.sleep(Duration::from_secs(25)).await;
        assert_eq!(work(&two, false).await, Some(given.clone()), "who had it is gone");

        let old = given.files[0].extents.clone();
        let new = vec![Extent { file_offset: 0, bytes: 40, chunk: ChunkId([9; 32]), chunk_offset: 0 }];
        let files = vec![FileCompaction { ino, old, new }];
        let compact = Mutation::Compact { files, chunks: vec![new_chunk(&two, 9).await] };
        assert_eq!(two.mutate(false, compact).await, Ok(MutationReply::Compacted { bytes: 40, stale_bytes: 0 }));
        assert_eq!(work(&two, true).await, None);
        let status = compaction(&one).await;
        assert_eq!((status.extents, status.windows_waiting, status.compactions, status.bytes_rewritten), (1, 0, 1, 40));
        // A busy window may be had again at once.
        scatter(&one, "other", 1, 20).await;
        assert!(work(&two, false).await.is_some());
        assert!(work(&two, true).await.is_some(), "done, and fragmented again");
    });
}

#[test]
fn what_is_left_of_a_chunk_is_found_in_all_its_files() {
    block_on_world(2, |world| async move {
        let node = world.node("master");
        let master = start_with(&node, few_are_many(&node)).await;
        let client = Asker::client(&world, "client", master.address).await;
        let mut files = Vec::new();
        for number in 0..6 {
            files.push(scatter(&client, &format!("file {number}"), 1, 4).await);
        }
        for number in 1..5 {
            client.unlink(&format!("file {number}")).await;
        }
        assert_eq!((compaction(&client).await.chunks_waiting, work(&client, false).await), (1, None), "it may die altogether");
        world.sleep(PATIENCE).await;
        let given = work(&client, false).await.expect("there is work");
        assert_eq!(given.files.iter().map(|file| file.ino).collect::<Vec<_>>(), [files[0], files[5]]);
        assert_eq!(work(&client, false).await, None, "not twice within a short time");
    });
}

#[test]
fn windows_wait_while_disks_are_nearly_full() {
    block_on_world(3, |world| async move {
        let node = world.node("master");
        let master = start_with(&node, few_are_many(&node)).await;
        let client = Asker::client(&world, "client", master.address).await;
        let server = Asker::connect(&world.node("server"), Some(Role::Chunkserver), master.address).await;
        let register = MasterRequest::RegisterServer {
            address: SocketAddr::from(([0, 0, 0, 0], 7450)),
            incarnation: Incarnation(1),
            labels: BTreeMap::new(),
            targets: vec![TargetAnnouncement { uuid: [1; 16], id: None, capacity_bytes: 1000 }],
        };
        let Ok(MasterReply::Registered { server: id, targets }) = server.ask(register).await else { panic!("not registered") };
        let used = async |used_bytes| {
            let (health, healing) = (TargetHealth::Good, Healing::default());
            let status = TargetStatus { target: targets[0], health, used_bytes, total_bytes: 1000, shards: 0, corrupt_shards: 0, healing };
            let beat = MasterRequest::Heartbeat {
                server: id,
                incarnation: Incarnation(1),
                known: MapEpoch(0),
                targets: vec![status],
                load: Box::default(),
            };
            server.ask(beat).await.unwrap();
        };
        used(950).await;
        scatter(&client, "file", 1, 20).await;
        assert_eq!(work(&client, false).await, None);
        used(500).await;
        assert!(work(&client, false).await.is_some());
    });
}
