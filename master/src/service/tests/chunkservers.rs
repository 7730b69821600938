//! Life of chunkservers, and the way of a dead chunk.

use super::support::{Asker, PORT, start};
use bytes::Bytes;
use cairn_common::codec::{decode, encode};
use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
use cairn_common::ids::{ChunkId, Incarnation, MapEpoch, PoolId, ServerId, TargetId};
use cairn_common::limits::{DELETION_GRACE, HEARTBEAT_INTERVAL};
use cairn_common::map::{ClusterMap, TargetState};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverReply, ChunkserverRequest, Healing, TargetHealth, TargetStatus};
use cairn_common::wire::master::{
    CompleteSlot, FileCommit, MasterAnswer, MasterError, MasterReply, MasterRequest, Mutation, Role, ServerChange, TargetAnnouncement,
    Usage,
};
use cairn_runtime::network::Message;
use cairn_runtime::sim::{Crash, World, block_on_world};
use cairn_runtime::task::TaskGuard;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 30;

/// A chunkserver with one target that reports, and deletes whatever it is told to.
struct FakeServer {
    asker: Arc<Asker>,
    server: ServerId,
    target: TargetId,
    deletions: Arc<Mutex<Vec<ChunkserverRequest>>>,
    reporting: Option<TaskGuard>,
}

fn status(target: TargetId, health: TargetHealth) -> TargetStatus {
    TargetStatus { target, health, used_bytes: GIB, total_bytes: 4 * GIB, shards: 0, corrupt_shards: 0, healing: Healing::default() }
}

impl FakeServer {
    async fn start(world: &World, number: u8, master: SocketAddr) -> Self {
        let asker = Asker::connect(&world.node(&format!("server {number}")), Some(Role::Chunkserver), master).await;
        let request = MasterRequest::RegisterServer {
            address: SocketAddr::from(([0, 0, 0, 0], PORT)),
            incarnation: Incarnation(number.into()),
            labels: BTreeMap::new(),
            targets: vec![TargetAnnouncement { uuid: [number; 16], id: None, capacity_bytes: 4 * GIB }],
        };
        let Ok(MasterReply::Registered { server, targets }) = asker.ask(request).await else { panic!("not registered") };
        let mut fake = Self { asker: Arc::new(asker), server, target: targets[0], deletions: Arc::default(), reporting: None };
        fake.report(TargetHealth::Good);
        fake.serve();
        fake
    }

    fn heartbeat(&self, health: TargetHealth) -> MasterRequest {
        MasterRequest::Heartbeat {
            server: self.server,
            incarnation: Incarnation(u64::from(self.server.0)),
            known: MapEpoch(0),
            targets: vec![status(self.target, health)],
            load: Box::default(),
        }
    }

    /// Sends heartbeats from now on.
    fn report(&mut self, health: TargetHealth) {
        let (asker, request) = (self.asker.clone(), self.heartbeat(health));
        let task = self.asker.runtime.spawn("heartbeats", async move {
            loop {
                // A master that is gone is no reason to stop in this test.
                let message = Message { head: encode(&request).into(), body: Bytes::new() };
                let _ = asker.connection.call(message).await;
                asker.runtime.sleep(HEARTBEAT_INTERVAL).await;
            }
        });
        self.reporting = Some(task.abort_on_drop());
    }

    fn serve(&self) {
        let (connection, deletions) = (self.asker.connection.clone(), self.deletions.clone());
        self.asker.runtime.spawn("deletions", async move {
            while let Some(call) = connection.accept().await {
                deletions.lock().push(decode("a request", &call.request.head).unwrap());
                let answer: ChunkserverAnswer = Ok(ChunkserverReply::Deleted { shards: 1 });
                call.reply.send(Message { head: encode(&answer).into(), body: Bytes::new() }).await;
            }
        });
    }
}

async fn map(asker: &Asker) -> ClusterMap {
    match asker.ask(MasterRequest::Map { known: MapEpoch(0) }).await {
        Ok(MasterReply::Map(Some(map))) => map,
        other => panic!("{other:?}"),
    }
}

async fn state(asker: &Asker, target: TargetId) -> TargetState {
    map(asker).await.target(target).unwrap().state
}

async fn three_servers(world: &World, master: SocketAddr) -> Vec<FakeServer> {
    let mut servers = Vec::new();
    for number in 1..=3 {
        servers.push(FakeServer::start(world, number, master).await);
    }
    world.sleep(Duration::from_millis(600)).await;
    servers
}

#[test]
fn targets_that_join_get_slots_and_silence_makes_them_suspect_and_dead() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        let first = map(&client).await;
        assert!(first.pools[0].groups.iter().all(|group| group.slots.iter().all(|slot| slot.holder.is_none())));
        assert_eq!(client.ask(MasterRequest::Map { known: first.epoch }).await, Ok(MasterReply::Map(None)));

        let mut servers = three_servers(&world, master.address).await;
        let full = map(&client).await;
        assert!(full.pools[0].groups.iter().all(|group| group.slots.iter().all(|slot| slot.holder.is_some())));
        assert!(full.targets.iter().all(|target| target.state == TargetState::Serving));
        assert_eq!(full.targets[0].address, world.node("server 1").address(PORT), "the address is the one the connection comes from");
        let usage = Usage { total_bytes: 8 * GIB, free_bytes: 6 * GIB, inodes: 1 };
        assert_eq!(client.ask(MasterRequest::Usage).await, Ok(MasterReply::Usage(usage)));

        let quiet = servers[0].target;
        servers[0].reporting = None;
        world.sleep(Duration::from_millis(3500)).await;
        assert_eq!(state(&client, quiet).await, TargetState::Suspect);
        servers[0].report(TargetHealth::Good);
        world.sleep(Duration::from_millis(500)).await;
        assert_eq!(state(&client, quiet).await, TargetState::Serving);
        servers[0].reporting = None;
        world.sleep(Duration::from_secs(31)).await;
        assert_eq!(state(&client, quiet).await, TargetState::Dead);
        servers[0].report(TargetHealth::Full);
        world.sleep(Duration::from_millis(1000)).await;
        let back = map(&client).await;
        assert!(back.target(quiet).is_some_and(|target| target.state == TargetState::Serving && target.full));
        servers[1].report(TargetHealth::Failed);
        world.sleep(Duration::from_millis(3600)).await;
        assert_eq!(state(&client, servers[1].target).await, TargetState::Suspect, "a failed disk counts as silent");
    });
}

#[test]
fn after_a_restart_of_the_master_servers_register_again_and_keep_their_slots() {
    block_on_world(2, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let servers = three_servers(&world, master.address).await;
        let before = map(&servers[0].asker).await;
        node.crash(Crash::PowerLoss);
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        assert_eq!(map(&client).await, before);
        let server = Asker::connect(&world.node("server 1"), Some(Role::Chunkserver), master.address).await;
        let stale: MasterAnswer = server.ask(servers[0].heartbeat(TargetHealth::Good)).await;
        assert!(stale.is_err(), "it has to register first");
        let again = FakeServer::start(&world, 1, master.address).await;
        assert_eq!((again.server, again.target), (servers[0].server, servers[0].target));
        assert_eq!(map(&client).await, before, "nothing that others see has changed");
        let foreign = Asker::connect(&world.node("mallory"), Some(Role::Chunkserver), master.address).await;
        assert!(foreign.ask(again.heartbeat(TargetHealth::Failed)).await.is_err(), "nobody reports for another");
    });
}

#[test]
fn a_chunk_that_nothing_refers_to_is_deleted_after_the_grace_period() {
    block_on_world(3, |world| async move {
        let master = start(&world.node("master")).await;
        let servers = three_servers(&world, master.address).await;
        let client = Asker::client(&world, "client", master.address).await;
        let epoch = map(&client).await.epoch;
        let ino = client.create("a", false).await.ino;
        let Ok(MasterReply::Renewed { now: ticket, .. }) = client.renew(&[]).await else { panic!("not renewed") };
        let id = ChunkId([0x5a; 32]);
        let scheme = Scheme::new(2, 1).unwrap();
        let info = ChunkInfo { id, bytes: 100_000, pool: PoolId(1), scheme, slots: SlotMask::from_slots(0..3) };
        let extent = Extent { file_offset: 0, bytes: 100_000, chunk: id, chunk_offset: 0 };
        let commit = Mutation::Commit {
            files: vec![FileCommit { ino, extents: vec![extent], size_at_least: 100_000, mtime: Timestamp::EPOCH }],
            chunks: vec![NewChunk { info, epoch, ticket }],
        };
        client.mutate(false, commit).await.unwrap();
        let Ok(MasterReply::Status(status)) = client.ask(MasterRequest::Status).await else { panic!("no status") };
        assert_eq!((status.chunks, status.chunk_bytes, status.servers.len()), (1, 100_000, 3));
        for (from, expected) in [(ChunkId([0; 32]), vec![info]), (id, vec![info]), (id.next().unwrap(), vec![])] {
            let listed = servers[0].asker.ask(MasterRequest::Chunks { from, until: None, limit: 10 }).await;
            assert!(matches!(&listed, Ok(MasterReply::Chunks { chunks, end: true, .. }) if *chunks == expected), "{listed:?}");
        }

        client.unlink("a").await;
        world.sleep(DELETION_GRACE - Duration::from_secs(5)).await;
        assert!(servers.iter().all(|server| server.deletions.lock().is_empty()), "too early");
        world.sleep(Duration::from_secs(70)).await;
        let group = map(&servers[0].asker).await.pools[0].group_of(id).clone();
        for server in &servers {
            let asked = server.deletions.lock().clone();
            let [ChunkserverRequest::Delete { target, keys, put_before }] = &asked[..] else { panic!("{asked:?}") };
            assert_eq!(*target, server.target);
            assert_eq!(group.slots[usize::from(keys[0].index)].holder, Some(server.target), "shard i is in the i-th slot");
            assert!(*put_before > ticket, "the shard was put before");
        }
        let client = Asker::client(&world, "later client", master.address).await;
        let Ok(MasterReply::Status(status)) = client.ask(MasterRequest::Status).await else { panic!("no status") };
        assert_eq!(status.chunks, 0);
    });
}

/// Slots that are on their way: pool, group, slot, holder.
fn unsettled(map: &ClusterMap) -> Vec<(PoolId, u32, u8, TargetId)> {
    let mut found = Vec::new();
    for (group, number) in map.pools[0].groups.iter().zip(0..) {
        let moving = group.slots.iter().zip(0..).filter(|(slot, _)| slot.previous.is_some());
        found.extend(moving.map(|(slot, at)| (map.pools[0].id, number, at, slot.holder.unwrap())));
    }
    found
}

#[test]
fn a_slot_is_settled_by_its_holder_and_under_its_map_alone() {
    block_on_world(4, |world| async move {
        let master = start(&world.node("master")).await;
        let servers = three_servers(&world, master.address).await;
        let client = Asker::client(&world, "client", master.address).await;
        let before = map(&client).await;
        let ino = client.create("a", false).await.ino;
        let Ok(MasterReply::Renewed { now: ticket, .. }) = client.renew(&[]).await else { panic!("not renewed") };
        let id = ChunkId([0x5a; 32]);
        let info = ChunkInfo { id, bytes: 100_000, pool: PoolId(1), scheme: Scheme::new(2, 1).unwrap(), slots: SlotMask::from_slots(0..3) };
        let extent = Extent { file_offset: 0, bytes: 100_000, chunk: id, chunk_offset: 0 };
        let file = FileCommit { ino, extents: vec![extent], size_at_least: 100_000, mtime: Timestamp::EPOCH };
        let commit = Mutation::Commit { files: vec![file], chunks: vec![NewChunk { info, epoch: before.epoch, ticket }] };
        client.mutate(false, commit).await.unwrap();

        let newcomer = FakeServer::start(&world, 4, master.address).await;
        world.sleep(Duration::from_millis(600)).await;
        let moving = map(&client).await;
        let slots = unsettled(&moving);
        assert!(!slots.is_empty() && slots.iter().all(|(.., holder)| *holder == newcomer.target), "it fills up by itself");
        let complete = |epoch: MapEpoch| -> Vec<CompleteSlot> {
            slots.iter().map(|(pool, group, slot, _)| CompleteSlot { pool: *pool, group: *group, slot: *slot, epoch }).collect()
        };
        let tell = |teller: &FakeServer, slots| {
            let incarnation = Incarnation(u64::from(teller.server.0));
            let (asker, request) = (teller.asker.clone(), MasterRequest::SlotsComplete { server: teller.server, incarnation, slots });
            async move { assert_eq!(asker.ask(request).await, Ok(MasterReply::SlotsNoted)) }
        };
        tell(&servers[0], complete(moving.epoch)).await;
        assert_eq!(unsettled(&map(&client).await), slots, "they are not its slots");
        tell(&newcomer, complete(before.epoch)).await;
        assert_eq!(unsettled(&map(&client).await), slots, "it has not looked under the present map");
        tell(&newcomer, complete(moving.epoch)).await;
        assert_eq!(unsettled(&map(&client).await), []);
        assert!(
            client.ask(MasterRequest::SlotsComplete { server: newcomer.server, incarnation: Incarnation(4), slots: vec![] }).await.is_err()
        );

        // An operator sends it away again.
        let change = |change| MasterRequest::ChangeServer { server: newcomer.server, change, insist: false };
        let drained = client.ask(change(ServerChange::Drain)).await;
        assert!(matches!(drained, Ok(MasterReply::ServerChanged { .. })), "{drained:?}");
        world.sleep(Duration::from_millis(600)).await;
        let moving = map(&client).await;
        assert_eq!(moving.target(newcomer.target).unwrap().state, TargetState::Draining);
        assert!(moving.pools[0].groups.iter().flat_map(|group| &group.slots).all(|slot| slot.holder != Some(newcomer.target)));
        assert!(matches!(client.ask(change(ServerChange::Remove)).await, Err(MasterError::Unwise(_))));
        for server in &servers {
            let own = unsettled(&moving).into_iter().filter(|(.., holder)| *holder == server.target);
            tell(server, own.map(|(pool, group, slot, _)| CompleteSlot { pool, group, slot, epoch: moving.epoch }).collect()).await;
        }
        assert!(client.ask(change(ServerChange::Remove)).await.is_ok());
        assert_eq!(state(&client, newcomer.target).await, TargetState::Removed);
        assert!(servers[0].asker.ask(change(ServerChange::Drain)).await.is_err(), "chunkservers do not decide who stays");
    });
}

#[test]
fn half_of_the_servers_do_not_die_at_once() {
    block_on_world(5, |world| async move {
        let master = start(&world.node("master")).await;
        let mut servers = three_servers(&world, master.address).await;
        let client = Asker::client(&world, "client", master.address).await;
        let ino = client.create("a", false).await.ino;
        let Ok(MasterReply::Renewed { now: ticket, .. }) = client.renew(&[]).await else { panic!("not renewed") };
        let before = map(&client).await;
        let id = ChunkId([0x5a; 32]);
        let info = ChunkInfo { id, bytes: 9, pool: PoolId(1), scheme: Scheme::copies(1), slots: SlotMask::from_slots(0..2) };
        let extent = Extent { file_offset: 0, bytes: 9, chunk: id, chunk_offset: 0 };
        let file = FileCommit { ino, extents: vec![extent], size_at_least: 9, mtime: Timestamp::EPOCH };
        let commit = Mutation::Commit { files: vec![file], chunks: vec![NewChunk { info, epoch: before.epoch, ticket }] };
        client.mutate(false, commit).await.unwrap();
        (servers[0].reporting, servers[1].reporting) = (None, None);
        world.sleep(Duration::from_secs(40)).await;
        let spare = FakeServer::start(&world, 4, master.address).await;
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(map(&client).await.pools, before.pools, "nothing moves");
        let Ok(MasterReply::Status(status)) = client.ask(MasterRequest::Status).await else { panic!("no status") };
        assert!(status.notes[0].contains("2 of 3 chunkservers"), "{:?}", status.notes);
        servers[0].report(TargetHealth::Good);
        world.sleep(Duration::from_secs(1)).await;
        let after = map(&client).await;
        let holds = |target| after.pools[0].groups.iter().flat_map(|group| &group.slots).any(|slot| slot.holder == Some(target));
        assert!(holds(spare.target) && holds(servers[0].target) && !holds(servers[1].target));
    });
}
