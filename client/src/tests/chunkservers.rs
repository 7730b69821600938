//! Connections to chunkservers: shared, quick to fail, and taken up again.

use super::fake_master::FakeMaster;
use super::world::{Pair, any, credentials};
use crate::ports::{TargetCallError, Targets};
use crate::targets::TargetPool;
use bytes::Bytes;
use cairn_common::codec::encode;
use cairn_common::ids::{MapEpoch, ServerId, TargetId};
use cairn_common::map::{Target, TargetState};
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverReply, ChunkserverRequest};
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::network::Message;
use cairn_runtime::sim::{Crash, Node, World, block_on_world};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SERVER_PORT: u16 = 7100;
const LIMIT: Duration = Duration::from_secs(3);
const TARGET: TargetId = TargetId(1);

/// Answers everything with an empty status.
fn serve(runtime: &Runtime, connections: &Arc<AtomicU32>) {
    let endpoint = runtime.network.bind(any(SERVER_PORT), credentials(Role::Chunkserver, "s")).expect("a free port");
    let (spawner, connections) = (runtime.clone(), Arc::clone(connections));
    runtime.spawn("listen", async move {
        while let Some(connection) = endpoint.accept().await {
            connections.fetch_add(1, Ordering::Relaxed);
            spawner.spawn("serve", async move {
                while let Some(call) = connection.accept().await {
                    let answer: ChunkserverAnswer = Ok(ChunkserverReply::Status { targets: Vec::new() });
                    call.reply.send(Message { head: encode(&answer).into(), body: Bytes::new() }).await;
                }
            });
        }
    });
}

struct Servers {
    pair: Pair,
    server: Node,
    connections: Arc<AtomicU32>,
}

fn target(id: TargetId, server: &Node, state: TargetState) -> Target {
    let address = server.address(SERVER_PORT);
    Target { id, server: ServerId(1), address, state, full: false, capacity_bytes: 1 << 40, labels: BTreeMap::new() }
}

impl Servers {
    async fn new(world: World) -> Self {
        let server = world.node("server");
        let connections = Arc::new(AtomicU32::new(0));
        serve(&server.runtime(), &connections);
        let master = FakeMaster::default();
        let targets = [TARGET, TargetId(2)].map(|id| target(id, &server, TargetState::Serving));
        master.with(|state| state.map.targets = targets.to_vec());
        Self { pair: Pair::with(world, master, |_| ()).await, server, connections }
    }

    fn targets(&self) -> &Arc<TargetPool> {
        &self.pair.fs.0.targets
    }

    async fn ask(&self, target: TargetId) -> Result<(ChunkserverReply, Bytes), TargetCallError> {
        self.targets().call(target, ChunkserverRequest::Status, Bytes::new(), LIMIT).await
    }
}

#[test]
fn targets_of_a_server_and_calls_at_the_same_time_share_a_connection() {
    block_on_world(1, |world| async move {
        let servers = Servers::new(world).await;
        let answers = join_all((0..20).map(|number| servers.ask(TargetId(1 + number % 2)))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(servers.connections.load(Ordering::Relaxed), 1);
        assert!(matches!(servers.ask(TargetId(9)).await, Err(TargetCallError::Unreachable(TargetId(9), _))));
    });
}

#[test]
fn a_dead_server_costs_one_wait_then_fails_at_once_and_is_taken_up_again() {
    block_on_world(1, |world| async move {
        let servers = Servers::new(world.clone()).await;
        servers.ask(TARGET).await.expect("it serves");
        servers.server.crash(Crash::Kill);
        let begun = servers.pair.runtime.now();
        assert!(servers.ask(TARGET).await.is_err());
        assert!(servers.pair.elapsed(begun) <= LIMIT);
        world.sleep(LIMIT).await;
        let begun = servers.pair.runtime.now();
        for _ in 0..100 {
            assert!(servers.ask(TARGET).await.is_err());
        }
        assert!(servers.pair.elapsed(begun) < Duration::from_millis(1), "{:?}", servers.pair.elapsed(begun));
        assert!(servers.targets().is_avoided(TARGET) && servers.targets().is_avoided(TargetId(2)));
        serve(&servers.server.runtime(), &servers.connections);
        world.sleep(Duration::from_secs(8)).await;
        assert!(!servers.targets().is_avoided(TARGET));
        servers.ask(TARGET).await.expect("it serves again");
    });
}

#[test]
fn a_partition_is_noticed_and_forgotten_when_it_heals() {
    block_on_world(1, |world| async move {
        let servers = Servers::new(world.clone()).await;
        servers.ask(TARGET).await.expect("it serves");
        world.network().partition(&servers.server, &servers.pair.client_node);
        assert!(servers.ask(TARGET).await.is_err());
        assert!(servers.targets().is_avoided(TARGET));
        world.network().heal();
        world.sleep(Duration::from_secs(8)).await;
        assert!(!servers.targets().is_avoided(TARGET));
        servers.ask(TARGET).await.expect("it serves");
    });
}

#[test]
fn the_map_is_followed() {
    block_on_world(1, |world| async move {
        let servers = Servers::new(world.clone()).await;
        assert_eq!(servers.targets().map().epoch, MapEpoch(1));
        servers.pair.master.with(|state| {
            state.map.epoch = MapEpoch(2);
            state.map.targets[0].state = TargetState::Suspect;
        });
        world.sleep(Duration::from_secs(6)).await;
        assert_eq!(servers.targets().map().epoch, MapEpoch(2), "a renewal told of it");
        assert!(servers.targets().is_avoided(TARGET) && !servers.targets().is_avoided(TargetId(2)));
        servers.pair.master.with(|state| state.map.epoch = MapEpoch(3));
        assert_eq!(servers.targets().refresh_map(MapEpoch(2)).await.epoch, MapEpoch(3), "on demand");
        servers.pair.master_node.crash(Crash::Kill);
        let begun = servers.pair.runtime.now();
        assert_eq!(servers.targets().refresh_map(MapEpoch(3)).await.epoch, MapEpoch(3));
        assert!(servers.pair.elapsed(begun) <= Duration::from_secs(2), "without waiting for a master that is away");
    });
}
