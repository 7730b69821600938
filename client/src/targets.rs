//! The chunkservers: the cluster map, and one connection per server that all its targets share.
//!
//! A server that does not answer is *failed*: calls to it fail at once, and a prober asks for its state until it answers
//! again, so that no caller has to spend its time on finding out. A target that is slow on a living server is only avoided.

mod peer;

use crate::counters::Counts;
use crate::limits::{QUICK_LIMIT, RETRY_PAUSE_MAX, SLOW_TARGET_PAUSE};
use crate::link::{AskError, Link, any_port};
use crate::operations::Fetch;
use crate::ports::{TargetCallError, Targets};
use bytes::Bytes;
use cairn_common::codec::{decode, encode};
use cairn_common::ids::{MapEpoch, TargetId};
use cairn_common::map::ClusterMap;
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{CallError, ConnectError, Credentials, Endpoint, Message};
use cairn_runtime::task::{BoxFuture, TaskGuard};
use parking_lot::Mutex;
use peer::Peer;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A call that took less than this and was given up says nothing about the server.
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// All chunkservers of the cluster.
pub struct TargetPool {
    me: Weak<TargetPool>,
    runtime: Runtime,
    link: Arc<Link>,
    credentials: Credentials,
    counts: Arc<Counts>,
    map: Mutex<Arc<ClusterMap>>,
    /// One fetch of the map at a time.
    fetching: tokio::sync::Mutex<()>,
    peers: Mutex<BTreeMap<SocketAddr, Arc<Peer>>>,
    /// Until when slow targets are avoided.
    slow: Mutex<BTreeMap<TargetId, Moment>>,
    /// One per address family, bound when first needed: IPv4, IPv6.
    endpoints: Mutex<[Option<Arc<dyn Endpoint>>; 2]>,
}

impl TargetPool {
    /// Fetches the map. The guard keeps it fresh.
    pub async fn start(
        runtime: &Runtime,
        link: &Arc<Link>,
        credentials: Credentials,
        counts: Arc<Counts>,
    ) -> Result<(Arc<TargetPool>, TaskGuard), AskError> {
        let map = match link.ask(MasterRequest::Map { known: MapEpoch(0) }).await? {
            MasterReply::Map(map) => map.unwrap_or_default(),
            other => return Err(AskError::unexpected(&other)),
        };
        let pool = Arc::new_cyclic(|me| TargetPool {
            me: Weak::clone(me),
            runtime: runtime.clone(),
            link: Arc::clone(link),
            credentials,
            counts,
            map: Mutex::new(Arc::new(map)),
            fetching: tokio::sync::Mutex::default(),
            peers: Mutex::default(),
            slow: Mutex::default(),
            endpoints: Mutex::default(),
        });
        let follower = runtime.spawn("map follower", follow_map(Arc::downgrade(&pool), Arc::clone(link))).abort_on_drop();
        Ok((pool, follower))
    }

    /// Closes all connections.
    pub fn shut_down(&self) {
        let peers = std::mem::take(&mut *self.peers.lock());
        for peer in peers.values() {
            peer.close();
        }
        for endpoint in self.endpoints.lock().iter_mut().filter_map(Option::take) {
            endpoint.close();
        }
    }

    fn adopt(&self, map: ClusterMap) {
        let addresses: BTreeSet<SocketAddr> = map.targets.iter().map(|target| target.address).collect();
        {
            let mut present = self.map.lock();
            if map.epoch <= present.epoch {
                return;
            }
            tracing::debug!("the cluster map is now {}", map.epoch);
            *present = Arc::new(map);
        }
        let mut gone = Vec::new();
        self.peers.lock().retain(|address, peer| {
            let stays = addresses.contains(address);
            if !stays {
                gone.push(Arc::clone(peer));
            }
            stays
        });
        gone.iter().for_each(|peer| peer.close());
    }

    /// The peer at an address; made if there is none.
    fn peer(&self, address: SocketAddr) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(address).or_insert_with(|| Peer::new(address, self.runtime.clone(), Weak::clone(&self.me)));
        Arc::clone(peer)
    }

    /// Whether the prober of a peer should go on.
    fn is_wanted(&self, peer: &Arc<Peer>) -> bool {
        self.peers.lock().get(&peer.address()).is_some_and(|known| Arc::ptr_eq(known, peer))
    }

    fn endpoint_for(&self, peer: SocketAddr) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let family = match peer.ip() {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => 1,
        };
        let mut endpoints = self.endpoints.lock();
        if let Some(endpoint) = &endpoints[family] {
            return Ok(Arc::clone(endpoint));
        }
        let endpoint = self.runtime.network.bind(any_port(peer.ip()), self.credentials.clone())?;
        endpoints[family] = Some(Arc::clone(&endpoint));
        Ok(endpoint)
    }

    fn note_slow(&self, target: TargetId) {
        self.slow.lock().insert(target, self.runtime.now().plus(SLOW_TARGET_PAUSE));
    }

    async fn call_target(
        &self,
        target: TargetId,
        request: ChunkserverRequest,
        body: Bytes,
        limit: Duration,
    ) -> Result<(ChunkserverReply, Bytes), TargetCallError> {
        let unreachable = |reason: String| {
            self.counts.chunkserver_failures.add(1);
            TargetCallError::Unreachable(target, reason)
        };
        let begun = self.runtime.now();
        let address = self.map().target(target).map(|target| target.address);
        let peer = self.peer(address.ok_or_else(|| unreachable("the cluster map does not name it".to_owned()))?);
        let connected = self.runtime.timeout(limit, peer.connection()).await;
        let connection = connected.map_err(|elapsed| unreachable(elapsed.to_string()))?.map_err(unreachable)?;
        self.counts.chunkserver_requests.add(1);
        let fetch = Fetch::of(&request);
        let message = Message { head: encode(&request).into(), body };
        let sent = self.runtime.now();
        let left = limit.saturating_sub(sent.since(begun));
        match self.runtime.timeout(left, connection.call(message)).await {
            Ok(Ok(reply)) => {
                let answered = self.runtime.now();
                peer.note_answer(answered);
                self.counts.fetch_seconds.of(fetch).record(answered.since(sent));
                decode_answer(&reply.head).map(|head| (head, reply.body)).map_err(TargetCallError::Refused)
            }
            Ok(Err(CallError::TooLarge(reason))) => Err(ChunkserverError::Malformed(reason).into()),
            Ok(Err(error @ CallError::ConnectionLost(_))) => {
                peer.lost(&connection);
                Err(unreachable(error.to_string()))
            }
            Ok(Err(error @ CallError::Dropped(_))) => Err(unreachable(error.to_string())),
            Err(elapsed) => {
                if peer.heard_since(sent) {
                    self.note_slow(target);
                } else if elapsed.0 >= SILENCE_MIN {
                    peer.fail(&connection, format!("no answer within {:?}", elapsed.0));
                }
                Err(unreachable(elapsed.to_string()))
            }
        }
    }

    async fn fetch_map(&self, known: MapEpoch) -> Arc<ClusterMap> {
        if self.map().epoch > known {
            return self.map();
        }
        let _turn = self.fetching.lock().await;
        let present = self.map();
        if present.epoch > known {
            return present;
        }
        if let Some(MasterReply::Map(Some(map))) = self.link.ask_quickly(QUICK_LIMIT, &MasterRequest::Map { known: present.epoch }).await {
            self.adopt(map);
        }
        self.map()
    }
}

fn decode_answer(head: &[u8]) -> Result<ChunkserverReply, ChunkserverError> {
    let answer: ChunkserverAnswer =
        decode("an answer of a chunkserver", head).map_err(|error| ChunkserverError::Malformed(error.to_string()))?;
    answer
}

/// Fetches the map whenever the master speaks of a newer one.
async fn follow_map(pool: Weak<TargetPool>, link: Arc<Link>) {
    let mut epochs = link.epochs();
    while epochs.changed().await.is_ok() {
        loop {
            let Some(pool) = pool.upgrade() else { return };
            let (heard, known) = (*epochs.borrow_and_update(), pool.map().epoch);
            if heard <= known || pool.fetch_map(known).await.epoch >= heard {
                break;
            }
            // The master has gone just then, and will not speak of that map a second time.
            let pause = pool.runtime.sleep(RETRY_PAUSE_MAX);
            drop(pool);
            pause.await;
        }
    }
}

impl Targets for TargetPool {
    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.lock())
    }

    fn refresh_map(&self, known: MapEpoch) -> BoxFuture<'_, Arc<ClusterMap>> {
        Box::pin(self.fetch_map(known))
    }

    fn call(
        &self,
        target: TargetId,
        request: ChunkserverRequest,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<(ChunkserverReply, Bytes), TargetCallError>> {
        Box::pin(self.call_target(target, request, body, limit))
    }

    fn is_avoided(&self, target: TargetId) -> bool {
        let map = self.map();
        let Some(known) = map.target(target) else { return true };
        if !known.state.is_serving() {
            return true;
        }
        let now = self.runtime.now();
        let is_slow = {
            let mut slow = self.slow.lock();
            slow.retain(|_, until| *until > now);
            slow.contains_key(&target)
        };
        is_slow || self.peers.lock().get(&known.address).is_some_and(|peer| peer.is_troubled())
    }
}
