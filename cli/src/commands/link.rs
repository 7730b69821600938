//! Connections to the master and to chunkservers, kept from one question to the next.

use crate::identity::{Membership, any_address, unreachable_master};
use anyhow::{Context, Result, bail};
use cairn_common::codec;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{ChunkId, MapEpoch};
use cairn_common::limits::CHUNK_PAGE_MAX;
use cairn_common::map::ClusterMap;
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest};
use cairn_common::wire::master::{MasterAnswer, MasterReply, MasterRequest, Role};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{Connection, Endpoint, Message};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the master may take for an answer.
const MASTER_LIMIT: Duration = Duration::from_secs(20);
/// How long a chunkserver may take: it reads up to 64 shards, behind its clients and its repair.
const CHUNKSERVER_LIMIT: Duration = Duration::from_secs(60);
/// How long a chunkserver that did not answer is left alone.
const SILENCE: Duration = Duration::from_secs(10);

/// What is known of the way to a chunkserver.
enum Way {
    Open(Arc<dyn Connection>),
    /// It was tried in vain.
    Closed(Moment),
}

/// Why a chunkserver did not answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    Busy,
    /// It can't be reached, or can't tell; why.
    Away(String),
}

/// See the module.
pub struct Link {
    pub runtime: Runtime,
    endpoint: Arc<dyn Endpoint>,
    master: SocketAddr,
    connection: Option<Arc<dyn Connection>>,
    ways: RefCell<BTreeMap<SocketAddr, Way>>,
    pub map: ClusterMap,
}

fn message(request: &impl serde::Serialize) -> Message {
    Message { head: codec::encode(request).into(), body: Default::default() }
}

impl Link {
    pub fn new(runtime: &Runtime, member: Membership) -> Result<Self> {
        let endpoint = runtime.network.bind(any_address(member.master), member.credentials)?;
        let (runtime, master) = (runtime.clone(), member.master);
        Ok(Self { runtime, endpoint, master, connection: None, ways: RefCell::default(), map: ClusterMap::default() })
    }

    pub fn close(&self) {
        self.endpoint.close();
    }

    pub async fn ask(&mut self, request: &MasterRequest) -> Result<MasterReply> {
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.endpoint.connect(self.master, Role::Master).await.with_context(|| unreachable_master(self.master))?,
        };
        let reply = self.runtime.timeout(MASTER_LIMIT, connection.call(message(request))).await;
        let reply = reply.with_context(|| format!("the master at {} does not answer", self.master))??;
        let answer: MasterAnswer = codec::decode("the master's answer", &reply.head)?;
        self.connection = Some(connection);
        Ok(answer?)
    }

    /// Fetches the map, if there is a newer one.
    pub async fn renew_map(&mut self) -> Result<()> {
        match self.ask(&MasterRequest::Map { known: self.map.epoch }).await? {
            MasterReply::Map(Some(map)) => self.map = map,
            MasterReply::Map(None) => {}
            other => bail!("the master answered something else to a request for the map: {other:?}"),
        }
        Ok(())
    }

    /// A page of chunks from `from` on, whether they are the last, and the map under which they were listed.
    pub async fn chunks(&mut self, from: ChunkId, until: Option<ChunkId>, limit: u32) -> Result<(Vec<ChunkInfo>, bool, MapEpoch)> {
        let request = MasterRequest::Chunks { from, until, limit: limit.min(CHUNK_PAGE_MAX) };
        match self.ask(&request).await? {
            MasterReply::Chunks { chunks, end, epoch, .. } => Ok((chunks, end, epoch)),
            other => bail!("the master answered something else to a request for chunks: {other:?}"),
        }
    }

    pub async fn ask_chunkserver(&self, address: SocketAddr, request: &ChunkserverRequest) -> Result<ChunkserverReply, Unanswered> {
        let connection = self.way(address).await?;
        let reply = match self.runtime.timeout(CHUNKSERVER_LIMIT, connection.call(message(request))).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(self.give_up(address, error.to_string())),
            Err(error) => return Err(self.give_up(address, error.to_string())),
        };
        let answer: Result<ChunkserverAnswer, _> = codec::decode("a chunkserver's answer", &reply.head);
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(ChunkserverError::Unavailable)) => Err(Unanswered::Busy),
            Ok(Err(error)) => Err(Unanswered::Away(error.to_string())),
            Err(error) => Err(Unanswered::Away(error.to_string())),
        }
    }

    /// Leaves a chunkserver alone for a while.
    fn give_up(&self, address: SocketAddr, reason: String) -> Unanswered {
        self.ways.borrow_mut().insert(address, Way::Closed(self.runtime.now().plus(SILENCE)));
        Unanswered::Away(reason)
    }

    async fn way(&self, address: SocketAddr) -> Result<Arc<dyn Connection>, Unanswered> {
        match self.ways.borrow().get(&address) {
            Some(Way::Open(connection)) if !connection.is_closed() => return Ok(connection.clone()),
            Some(Way::Closed(until)) if *until > self.runtime.now() => {
                return Err(Unanswered::Away("it did not answer a moment ago".to_owned()));
            }
            _ => {}
        }
        match self.endpoint.connect(address, Role::Chunkserver).await {
            Ok(connection) => {
                self.ways.borrow_mut().insert(address, Way::Open(connection.clone()));
                Ok(connection)
            }
            Err(error) => Err(self.give_up(address, error.to_string())),
        }
    }
}
