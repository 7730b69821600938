//! Whoever runs the cluster, and asks the master what clients do not.

use crate::cluster::{SimCluster, credentials};
use cairn_common::codec;
use cairn_common::ids::{MapEpoch, ServerId, TargetId};
use cairn_common::map::{ClusterMap, TargetState};
use cairn_common::wire::master::{MasterAnswer, MasterReply, MasterRequest, Role, ServerChange, Status};
use cairn_runtime::network::{Connection, Message};
use cairn_runtime::sim::{Node, World};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// By then everything must have been rebuilt.
const HEALED_WITHIN: Duration = Duration::from_secs(180);

/// See the module.
pub struct Operator {
    world: World,
    node: Node,
    master: SocketAddr,
}

impl Operator {
    pub fn new(cluster: &SimCluster) -> Self {
        Self { world: cluster.world.clone(), node: cluster.world.node("operator"), master: cluster.master_address() }
    }

    /// Asks until there is an answer: the master may be away.
    pub async fn ask(&self, request: MasterRequest) -> MasterReply {
        loop {
            if let Some(reply) = self.ask_once(&request).await {
                return reply;
            }
            self.world.sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ask_once(&self, request: &MasterRequest) -> Option<MasterReply> {
        let runtime = self.node.runtime();
        let endpoint = runtime.network.bind(self.node.address(0), credentials(Role::Client, "operator")).ok()?;
        let asked = async {
            let connection: Arc<dyn Connection> = endpoint.connect(self.master, Role::Master).await.ok()?;
            let message = Message { head: codec::encode(request).into(), body: Default::default() };
            let reply = connection.call(message).await.ok()?;
            codec::decode::<MasterAnswer>("an answer", &reply.head).ok()?.ok()
        };
        let reply = runtime.timeout(Duration::from_secs(2), asked).await.ok().flatten();
        endpoint.close();
        reply
    }

    pub async fn map(&self) -> ClusterMap {
        match self.ask(MasterRequest::Map { known: MapEpoch(0) }).await {
            MasterReply::Map(Some(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    pub async fn status(&self) -> Status {
        match self.ask(MasterRequest::Status).await {
            MasterReply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub async fn change(&self, server: ServerId, change: ServerChange) {
        let reply = self.ask(MasterRequest::ChangeServer { server, change, insist: false }).await;
        assert!(matches!(reply, MasterReply::ServerChanged { .. }), "{reply:?}");
    }

    /// Waits until every slot is held by a serving target that has all its shards.
    pub async fn wait_until_whole(&self) -> ClusterMap {
        let begun = self.world.now();
        loop {
            let map = self.map().await;
            let serves = |id: TargetId| map.target(id).is_some_and(|target| target.state == TargetState::Serving);
            let mut slots = map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
            if slots.all(|slot| slot.previous.is_none() && slot.holder.is_some_and(serves)) {
                return map;
            }
            let waited = self.world.now().since(begun);
            assert!(waited < HEALED_WITHIN, "not whole after {waited:?}: {map:#?}");
            self.world.sleep(Duration::from_millis(300)).await;
        }
    }
}
