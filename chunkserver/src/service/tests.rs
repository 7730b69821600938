//! The service on the simulated network, with a master of a few lines.

use super::{Serving, Settings, StartError, run};
use crate::healing::HealingSettings;
use crate::target::{OpenError, TargetSettings};
use bytes::Bytes;
use cairn_common::codec;
use cairn_common::hash_tree;
use cairn_common::ids::{Incarnation, MapEpoch, ServerId, TargetId};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{
    ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardHeader, ShardKey, ShardVerdict, TargetHealth,
};
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, Credentials, Identity, Message, Trust};
use cairn_runtime::sim::{Crash, DiskFaults, Node, World, block_on_world};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const PORT: u16 = 7000;
const DELETE_ALL: Timestamp = Timestamp::from_nanos(i64::MAX);

fn credentials(role: Role, name: &str) -> Credentials {
    let identity = Identity { role, name: name.to_owned(), certificate: Vec::new(), private_key: Vec::new() };
    Credentials { identity: Some(identity), trust: Trust::Authority(b"the cluster's authority".to_vec()) }
}

/// A master that gives ids in order and remembers what it was told.
#[derive(Default)]
struct MasterBook {
    ids: BTreeMap<[u8; 16], TargetId>,
    knows_server: bool,
    registrations: u32,
    heartbeats: u32,
    health: Vec<TargetHealth>,
}

impl MasterBook {
    fn answer(&mut self, request: MasterRequest) -> MasterAnswer {
        match request {
            MasterRequest::RegisterServer { targets, .. } => {
                self.registrations += 1;
                self.knows_server = true;
                let mut ids = Vec::new();
                for target in targets {
                    let next = TargetId(self.ids.len() as u32 + 1);
                    ids.push(*self.ids.entry(target.uuid).or_insert(target.id.unwrap_or(next)));
                }
                Ok(MasterReply::Registered { server: ServerId(1), targets: ids })
            }
            MasterRequest::Heartbeat { targets, .. } if self.knows_server => {
                self.heartbeats += 1;
                self.health = targets.iter().map(|target| target.health).collect();
                Ok(MasterReply::Heartbeat { epoch: MapEpoch(1) })
            }
            MasterRequest::Map { .. } => Ok(MasterReply::Map(None)),
            _ => Err(MasterError::Malformed("who is this?".to_owned())),
        }
    }
}

/// Starts the master's process on its node.
fn start_master(node: &Node, book: &Arc<Mutex<MasterBook>>) {
    let runtime = node.runtime();
    let endpoint = runtime.network.bind(node.address(PORT), credentials(Role::Master, "master")).expect("bound");
    let (book, tasks) = (book.clone(), runtime.clone());
    runtime.spawn("master", async move {
        while let Some(connection) = endpoint.accept().await {
            let book = book.clone();
            tasks.spawn("master connection", async move {
                while let Some(call) = connection.accept().await {
                    let request = codec::decode("a request", &call.request.head).expect("well-formed");
                    let answer = book.lock().answer(request);
                    call.reply.send(Message { head: codec::encode(&answer).into(), body: Bytes::new() }).await;
                }
            });
        }
    });
}

struct Cluster {
    world: World,
    master: Node,
    server: Node,
    client: Runtime,
    book: Arc<Mutex<MasterBook>>,
}

impl Cluster {
    fn new(world: World) -> Self {
        let (master, server, client) = (world.node("master"), world.node("server"), world.node("client").runtime());
        Self { world, master, server, client, book: Arc::default() }
    }

    fn settings(&self, data: &[&str]) -> Settings {
        Settings {
            master: self.master.address(PORT),
            listen: self.server.address(PORT),
            data: data.iter().map(PathBuf::from).collect(),
            labels: BTreeMap::new(),
            target: TargetSettings { index_cache_bytes: 1 << 20, ..TargetSettings::default() },
            healing: HealingSettings::default(),
            metrics: None,
        }
    }

    /// Starts the chunkserver in a new life of its node. The sender stops it; the receiver then tells that it has.
    async fn start(&self, data: &[&str]) -> (Serving, oneshot::Sender<()>, oneshot::Receiver<Result<(), StartError>>) {
        let runtime = self.server.runtime();
        let (ready, is_ready) = oneshot::channel();
        let (stop, shall_stop) = oneshot::channel::<()>();
        let (ended, has_ended) = oneshot::channel();
        let run = run(runtime.clone(), self.settings(data), credentials(Role::Chunkserver, "server"), ready, async {
            let _ = shall_stop.await;
        });
        runtime.spawn("chunkserver", async move {
            let _ = ended.send(run.await);
        });
        (is_ready.await.expect("started"), stop, has_ended)
    }

    async fn connect(&self, role: Role) -> Arc<dyn Connection> {
        let endpoint = self.client.network.bind("0.0.0.0:0".parse().expect("an address"), credentials(role, "somebody")).expect("bound");
        endpoint.connect(self.server.address(PORT), Role::Chunkserver).await.expect("connected")
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&MasterBook) -> bool) {
        for _ in 0..600 {
            if is_so(&self.book.lock()) {
                return;
            }
            self.world.sleep(Duration::from_millis(100)).await;
        }
        panic!("after a minute: {what}");
    }
}

fn in_cluster<F: Future<Output = ()>>(seed: u64, body: impl FnOnce(Cluster) -> F) {
    block_on_world(seed, |world| body(Cluster::new(world)));
}

async fn ask(connection: &Arc<dyn Connection>, request: &ChunkserverRequest, body: &[u8]) -> (ChunkserverAnswer, Bytes) {
    let message = Message { head: codec::encode(request).into(), body: Bytes::copy_from_slice(body) };
    let reply = connection.call(message).await.expect("an answer");
    (codec::decode("an answer", &reply.head).expect("well-formed"), reply.body)
}

fn key_of(content: &[u8]) -> ShardKey {
    ShardKey { chunk: hash_tree::chunk_id(content), scheme: Scheme::copies(1), index: 0 }
}

fn put(target: TargetId, content: &[u8]) -> ChunkserverRequest {
    let header =
        ShardHeader { key: key_of(content), chunk_bytes: content.len() as u32, data_hashes: Vec::new(), parity_hashes: Vec::new() };
    let ticket = Timestamp::from_nanos(1);
    ChunkserverRequest::Put { target, epoch: MapEpoch(1), ticket, header, data_blocks: Vec::new(), sync: true }
}

fn get(target: TargetId, content: &[u8]) -> ChunkserverRequest {
    ChunkserverRequest::Get { target, key: key_of(content), offset: 0, bytes: content.len() as u32, with_proof: true }
}

const T1: TargetId = TargetId(1);

#[test]
fn a_client_stores_and_reads_and_may_not_delete() {
    in_cluster(1, |cluster| async move {
        start_master(&cluster.master, &cluster.book);
        let (serving, _stop, _ended) = cluster.start(&["/a", "/b"]).await;
        cluster.until("registered", |book| book.heartbeats > 0).await;
        let client = cluster.connect(Role::Client).await;
        let content = b"some bytes";

        let stored = ask(&client, &put(T1, content), content).await.0;
        assert_eq!(stored, Ok(ChunkserverReply::Stored { incarnation: serving.incarnation }));
        let (answer, body) = ask(&client, &get(T1, content), b"").await;
        assert!(matches!(answer, Ok(ChunkserverReply::Data { proof: Some(_) })), "{answer:?}");
        assert_eq!(body, &content[..]);
        let sync = |incarnation| ChunkserverRequest::Sync { target: T1, incarnation };
        assert_eq!(ask(&client, &sync(serving.incarnation), b"").await.0, Ok(ChunkserverReply::Synced));
        let earlier = ask(&client, &sync(Incarnation(0)), b"").await.0;
        assert_eq!(earlier, Err(ChunkserverError::Restarted { now: serving.incarnation }));
        let (status, _) = ask(&client, &ChunkserverRequest::Status, b"").await;
        assert!(matches!(&status, Ok(ChunkserverReply::Status { targets }) if targets.len() == 2 && targets[0].shards == 1), "{status:?}");

        let elsewhere = ask(&client, &get(TargetId(9), content), b"").await.0;
        assert_eq!(elsewhere, Err(ChunkserverError::NoSuchTarget(TargetId(9))));
        assert_eq!(ask(&client, &get(TargetId(2), content), b"").await.0, Err(ChunkserverError::NoSuchShard(key_of(content))));
        let delete = ChunkserverRequest::Delete { target: T1, keys: vec![key_of(content)], put_before: DELETE_ALL };
        assert_eq!(ask(&client, &delete, b"").await.0, Err(ChunkserverError::Denied));
        let master = cluster.connect(Role::Master).await;
        assert_eq!(ask(&master, &delete, b"").await.0, Ok(ChunkserverReply::Deleted { shards: 1 }));
    });
}

#[test]
fn shards_are_examined_on_the_disk() {
    in_cluster(7, |cluster| async move {
        start_master(&cluster.master, &cluster.book);
        let _serving = cluster.start(&["/a"]).await;
        cluster.until("registered", |book| book.heartbeats > 0).await;
        let client = cluster.connect(Role::Client).await;
        let (sound, spoiled, missing) = (b"these stay as they are", b"these will be spoiled", b"these were never put");
        ask(&client, &put(T1, sound), sound).await.0.expect("stored");
        ask(&client, &put(T1, spoiled), spoiled).await.0.expect("stored");
        let disk = cluster.server.disk();
        let at = |path: &PathBuf| {
            let content = disk.read(path).ok()?;
            content.windows(spoiled.len()).position(|bytes| bytes == spoiled)
        };
        let (path, at) = disk.files().into_iter().find_map(|path| Some((path.clone(), at(&path)?))).expect("it is stored somewhere");
        disk.flip_bit(&path, at as u64 + 3, 1).expect("flipped");

        let keys = vec![key_of(sound), key_of(missing), key_of(spoiled)];
        let examine = |keys| ChunkserverRequest::Examine { target: T1, keys };
        let (answer, _) = ask(&client, &examine(keys.clone()), b"").await;
        let Ok(ChunkserverReply::Examined { verdicts, bytes }) = answer else { panic!("{answer:?}") };
        assert_eq!(verdicts, [ShardVerdict::Sound, ShardVerdict::Missing, ShardVerdict::Damaged]);
        assert!(bytes >= sound.len() as u64, "{bytes} bytes were read");
        let too_many = ask(&client, &examine(vec![key_of(sound); 65]), b"").await.0;
        assert!(matches!(too_many, Err(ChunkserverError::Malformed(_))), "{too_many:?}");
    });
}

#[test]
fn garbage_is_refused_and_strangers_are_denied() {
    in_cluster(2, |cluster| async move {
        start_master(&cluster.master, &cluster.book);
        let _serving = cluster.start(&["/a"]).await;
        cluster.until("registered", |book| book.heartbeats > 0).await;
        let client = cluster.connect(Role::Client).await;
        let too_long = get(T1, b"x");
        let ChunkserverRequest::Get { key, .. } = too_long else { unreachable!() };
        let too_long = ChunkserverRequest::Get { target: T1, key, offset: 0, bytes: u32::MAX, with_proof: false };
        let messages = [
            Message { head: Bytes::from_static(b"\xff\xff\xff"), body: Bytes::new() },
            Message::default(),
            Message { head: codec::encode(&too_long).into(), body: Bytes::new() },
            Message { head: codec::encode(&ChunkserverRequest::Status).into(), body: Bytes::from_static(b"x") },
        ];
        for message in messages {
            let reply = client.call(message).await.expect("an answer");
            let answer: ChunkserverAnswer = codec::decode("an answer", &reply.head).expect("well-formed");
            assert!(matches!(answer, Err(ChunkserverError::Malformed(_))), "{answer:?}");
        }
        let credentials = Credentials { identity: None, ..credentials(Role::Client, "") };
        let endpoint = cluster.client.network.bind("0.0.0.0:0".parse().expect("an address"), credentials).expect("bound");
        if let Ok(stranger) = endpoint.connect(cluster.server.address(PORT), Role::Chunkserver).await {
            assert_eq!(ask(&stranger, &ChunkserverRequest::Status, b"").await.0, Err(ChunkserverError::Denied));
        }
    });
}

#[test]
fn the_master_may_come_late_go_away_and_forget() {
    in_cluster(3, |cluster| async move {
        let _serving = cluster.start(&["/a"]).await;
        cluster.world.sleep(Duration::from_secs(30)).await;
        start_master(&cluster.master, &cluster.book);
        cluster.until("registered", |book| book.heartbeats > 3).await;

        cluster.book.lock().knows_server = false;
        cluster.until("registered again", |book| book.registrations == 2).await;

        cluster.master.crash(Crash::PowerLoss);
        cluster.world.sleep(Duration::from_secs(60)).await;
        let heartbeats = cluster.book.lock().heartbeats;
        start_master(&cluster.master, &cluster.book);
        cluster.until("reporting again", |book| book.heartbeats > heartbeats + 3).await;
        assert_eq!(cluster.book.lock().ids.len(), 1);
    });
}

#[test]
fn without_a_master_a_restarted_server_serves_what_it_has() {
    in_cluster(4, |cluster| async move {
        start_master(&cluster.master, &cluster.book);
        let (first, stop, ended) = cluster.start(&["/a"]).await;
        cluster.until("registered", |book| book.heartbeats > 0).await;
        let content = b"kept";
        let client = cluster.connect(Role::Client).await;
        ask(&client, &put(T1, content), content).await.0.expect("stored");
        stop.send(()).expect("running");
        ended.await.expect("ended").expect("in order");
        cluster.master.crash(Crash::Kill);

        cluster.server.crash(Crash::PowerLoss);
        let (second, _stop, _ended) = cluster.start(&["/a"]).await;
        assert_ne!(first.incarnation, second.incarnation);
        let client = cluster.connect(Role::Client).await;
        assert_eq!(ask(&client, &get(T1, content), b"").await.1, &content[..]);
    });
}

#[test]
fn a_failing_target_is_reported_and_does_not_stop_the_others() {
    in_cluster(5, |cluster| async move {
        start_master(&cluster.master, &cluster.book);
        let _serving = cluster.start(&["/a", "/b"]).await;
        cluster.until("registered", |book| book.heartbeats > 0).await;
        let client = cluster.connect(Role::Client).await;
        cluster.server.disk().set_faults(DiskFaults { sync_error: 1.0, ..DiskFaults::default() });
        let refused = ask(&client, &put(T1, b"lost"), b"lost").await.0;
        assert!(matches!(refused, Err(ChunkserverError::TargetFailed { .. })), "{refused:?}");
        cluster.server.disk().set_faults(DiskFaults::default());
        ask(&client, &put(TargetId(2), b"kept"), b"kept").await.0.expect("stored");
        cluster.until("reported", |book| book.health == [TargetHealth::Failed, TargetHealth::Good]).await;
    });
}

/// Runs a chunkserver that must not start.
async fn start_error(cluster: &Cluster, runtime: &Runtime, data: &[&str], credentials: Credentials) -> StartError {
    let (ready, _) = oneshot::channel();
    run(runtime.clone(), cluster.settings(data), credentials, ready, std::future::pending()).await.expect_err("must not start")
}

#[test]
fn what_an_operator_must_put_right_stops_the_start() {
    in_cluster(6, |cluster| async move {
        let ours = || credentials(Role::Chunkserver, "server");
        let (_, stop, ended) = cluster.start(&["/a"]).await;
        stop.send(()).expect("running");
        ended.await.expect("ended").expect("in order");
        let runtime = cluster.server.runtime();
        assert!(matches!(start_error(&cluster, &runtime, &[], ours()).await, StartError::NoData));
        assert!(matches!(start_error(&cluster, &runtime, &["/a", "/a"], ours()).await, StartError::Twice(_)));
        let foreign = Credentials { trust: Trust::Authority(b"another".to_vec()), ..ours() };
        let error = start_error(&cluster, &runtime, &["/a"], foreign).await;
        assert!(matches!(error, StartError::Target(OpenError::ForeignCluster { .. })), "{error}");
        let lock = runtime.disk.lock(&PathBuf::from("/a/lock")).expect("free");
        let error = start_error(&cluster, &runtime, &["/a"], ours()).await;
        assert!(matches!(error, StartError::Target(OpenError::Locked { .. })), "{error}");
        drop(lock);
        let _taken = runtime.network.bind(cluster.server.address(PORT), ours()).expect("free");
        assert!(matches!(start_error(&cluster, &runtime, &["/a"], ours()).await, StartError::Bind(_)));
    });
}
