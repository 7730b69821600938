//! The other chunkservers, as sources of shards.
//!
//! One connection per server, made when first needed. A server that can't be reached or does not answer is left alone for a
//! while, so that a pull spends no time on finding out what the one before knew.

use bytes::Bytes;
use cairn_common::codec;
use cairn_common::ids::Hash;
use cairn_common::map::{ClusterMap, Target as MapTarget};
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardHeader, ShardKey};
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{CallError, Connection, Endpoint, Message};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a source may take to send a shard: its disk may be slow, and it serves others first.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server that did not answer is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(3);

/// A shard as its holder sent it. Not checked.
#[derive(Debug, Clone)]
pub struct FetchedShard {
    pub header: ShardHeader,
    pub blocks: Vec<Hash>,
    pub body: Bytes,
}

/// Why a source did not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("chunkserver {0} cannot be reached: {1}")]
    Away(SocketAddr, String),
    #[error("{0}")]
    Refused(#[from] ChunkserverError),
}

#[derive(Default)]
struct Peer {
    /// Whoever makes the connection; the others wait for it.
    connecting: tokio::sync::Mutex<()>,
    state: Mutex<PeerState>,
}

#[derive(Default, Clone)]
enum PeerState {
    #[default]
    Idle,
    Connected(Arc<dyn Connection>),
    Failed {
        until: Moment,
        reason: String,
    },
}

/// All other chunkservers.
pub struct Peers {
    runtime: Runtime,
    endpoint: Arc<dyn Endpoint>,
    peers: Mutex<BTreeMap<SocketAddr, Arc<Peer>>>,
}

impl Peers {
    pub fn new(runtime: Runtime, endpoint: Arc<dyn Endpoint>) -> Self {
        Self { runtime, endpoint, peers: Mutex::default() }
    }

    /// Lets go of servers that the map does not name.
    pub fn keep_those_of(&self, map: &ClusterMap) {
        let addresses: BTreeSet<SocketAddr> = map.targets.iter().map(|target| target.address).collect();
        self.peers.lock().retain(|address, _| addresses.contains(address));
    }

    pub async fn fetch(&self, from: &MapTarget, key: ShardKey) -> Result<FetchedShard, PeerError> {
        match self.call(from.address, ChunkserverRequest::Fetch { target: from.id, key }).await? {
            (ChunkserverReply::Fetched { header, blocks }, body) => Ok(FetchedShard { header, blocks, body }),
            _ => Err(nonsense()),
        }
    }

    /// Which of the shards are there.
    pub async fn check(&self, on: &MapTarget, keys: Vec<ShardKey>) -> Result<Vec<bool>, PeerError> {
        let asked = keys.len();
        match self.call(on.address, ChunkserverRequest::Check { target: on.id, keys }).await? {
            (ChunkserverReply::Checked { present }, _) if present.len() == asked => Ok(present),
            _ => Err(nonsense()),
        }
    }

    /// Tells a holder that its shard is not what it should be.
    pub async fn doubt(&self, on: &MapTarget, keys: Vec<ShardKey>) -> Result<(), PeerError> {
        self.call(on.address, ChunkserverRequest::Doubt { target: on.id, keys }).await.map(drop)
    }

    async fn call(&self, address: SocketAddr, request: ChunkserverRequest) -> Result<(ChunkserverReply, Bytes), PeerError> {
        let peer = self.peers.lock().entry(address).or_default().clone();
        let connection = self.connection(address, &peer).await?;
        let message = Message { head: codec::encode(&request).into(), body: Bytes::new() };
        let reply = match self.runtime.timeout(CALL_TIMEOUT, connection.call(message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(CallError::ConnectionLost(_))) => {
                *peer.state.lock() = PeerState::Idle;
                return Err(PeerError::Away(address, "the connection was lost".to_owned()));
            }
            Ok(Err(error)) => return Err(PeerError::Away(address, error.to_string())),
            Err(elapsed) => {
                connection.close("no answer");
                return Err(self.failed(address, &peer, elapsed.to_string()));
            }
        };
        let answer: ChunkserverAnswer = codec::decode("an answer of a chunkserver", &reply.head)
            .map_err(|error| PeerError::Refused(ChunkserverError::Malformed(error.to_string())))?;
        Ok((answer?, reply.body))
    }

    async fn connection(&self, address: SocketAddr, peer: &Peer) -> Result<Arc<dyn Connection>, PeerError> {
        let _turn = peer.connecting.lock().await;
        let state = peer.state.lock().clone();
        match state {
            PeerState::Connected(connection) if !connection.is_closed() => return Ok(connection),
            PeerState::Failed { until, reason } if self.runtime.now() < until => return Err(PeerError::Away(address, reason)),
            PeerState::Idle | PeerState::Connected(_) | PeerState::Failed { .. } => {}
        }
        let connected = self.runtime.timeout(CONNECT_TIMEOUT, self.endpoint.connect(address, Role::Chunkserver)).await;
        match connected.map_err(|elapsed| elapsed.to_string()).and_then(|result| result.map_err(|error| error.to_string())) {
            Ok(connection) => {
                *peer.state.lock() = PeerState::Connected(connection.clone());
                Ok(connection)
            }
            Err(reason) => Err(self.failed(address, peer, reason)),
        }
    }

    fn failed(&self, address: SocketAddr, peer: &Peer, reason: String) -> PeerError {
        let until = self.runtime.now().plus(FAILED_PAUSE);
        *peer.state.lock() = PeerState::Failed { until, reason: reason.clone() };
        PeerError::Away(address, reason)
    }
}

fn nonsense() -> PeerError {
    PeerError::Refused(ChunkserverError::Malformed("the answer is of another kind".to_owned()))
}
