//! Answering requests. A connection's calls are read one by one and carried out side by side.

use super::Shared;
use super::admission::Admission;
use super::metrics::Operation;
use crate::target::{Put, Target, check_key};
use bytes::Bytes;
use cairn_common::codec;
use cairn_common::ids::{Incarnation, TargetId};
use cairn_common::limits::{DOUBTED_KEYS_MAX, EXAMINED_KEYS_MAX, MESSAGE_BODY_BYTES_MAX, MIB};
use cairn_common::wire::chunkserver::{
    ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardKey, ShardVerdict, TargetStatus,
};
use cairn_common::wire::master::Role;
use cairn_runtime::network::{Connection, Endpoint, IncomingCall, Message, Peer};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Calls of one connection that are carried out at once. What is beyond waits in the transport.
const CONNECTION_CALLS_MAX: usize = 256;

/// Serves connections. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
}

impl Server {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, admission: Arc::default() }
    }

    /// Serves everybody who connects, until the endpoint is closed.
    pub async fn accept(self, endpoint: Arc<dyn Endpoint>) {
        while let Some(connection) = endpoint.accept().await {
            self.shared.runtime.spawn("chunkserver connection", self.clone().serve(connection));
        }
    }

    /// Serves one connection until it is gone.
    pub async fn serve(self, connection: Arc<dyn Connection>) {
        let calls = Arc::new(Semaphore::new(CONNECTION_CALLS_MAX));
        let peer = connection.peer().clone();
        loop {
            let Ok(turn) = calls.clone().acquire_owned().await else { return };
            let Some(call) = connection.accept().await else { return };
            let (server, peer) = (self.clone(), peer.clone());
            self.shared.runtime.spawn("chunkserver call", async move {
                server.call(&peer, call).await;
                drop(turn);
            });
        }
    }

    async fn call(&self, peer: &Peer, call: IncomingCall) {
        let (answer, body) = match self.answer(peer, call.request).await {
            Ok((reply, body)) => (Ok(reply), body),
            Err(error) => (Err(error), Bytes::new()),
        };
        let answer: ChunkserverAnswer = answer;
        call.reply.send(Message { head: codec::encode(&answer).into(), body }).await;
    }

    /// Carries out a request. The second part of the result is the body of the reply.
    pub async fn answer(&self, peer: &Peer, message: Message) -> Result<(ChunkserverReply, Bytes), ChunkserverError> {
        let request =
            codec::decode("a request to a chunkserver", &message.head).map_err(|error| ChunkserverError::Malformed(error.to_string()))?;
        if !may_ask(peer, &request) {
            return Err(ChunkserverError::Denied);
        }
        let known = target_of(&request).filter(|id| self.shared.target(*id).is_some());
        let body_bytes = body_bytes(&request, &message.body)?;
        if peer.has_role(Role::Client) && is_foreground(&request) {
            self.shared.healer.pacer.note_foreground();
        }
        let (metrics, runtime) = (&self.shared.metrics, &self.shared.runtime);
        let (measured, received) = (metrics.begin(Operation::of(&request), runtime.now()), message.body.len());
        let result = self.in_turn(known, body_bytes, request, message.body).await;
        measured.end(&result, received, result.as_ref().map_or(0, |(_, body)| body.len()), runtime.now());
        result
    }

    async fn in_turn(
        &self,
        known: Option<TargetId>,
        body_bytes: usize,
        request: ChunkserverRequest,
        body: Bytes,
    ) -> Result<(ChunkserverReply, Bytes), ChunkserverError> {
        let _turn = self.admission.turn(&self.shared.runtime, known, body_bytes).await?;
        self.carry_out(request, body).await
    }

    async fn carry_out(&self, request: ChunkserverRequest, body: Bytes) -> Result<(ChunkserverReply, Bytes), ChunkserverError> {
        let reply = match request {
            // Any epoch will do: the commit at the master refuses chunks that were put under an old map.
            ChunkserverRequest::Put { target, epoch: _, ticket, header, data_blocks, sync } => {
                self.target(target)?.put(Put { header, data_blocks, ticket, sync }, body).await?;
                ChunkserverReply::Stored { incarnation: self.shared.incarnation }
            }
            ChunkserverRequest::Get { target, key, offset, bytes, with_proof } => {
                let (body, proof) = self.target(target)?.get(key, offset, bytes, with_proof).await?;
                return Ok((ChunkserverReply::Data { proof }, body));
            }
            ChunkserverRequest::Proof { target, key, data_index } => {
                ChunkserverReply::Proof { proof: self.target(target)?.proof(key, data_index).await? }
            }
            ChunkserverRequest::Sync { target, incarnation } => self.sync(target, incarnation).await?,
            ChunkserverRequest::Check { target, keys } => ChunkserverReply::Checked { present: self.target(target)?.check(&keys).await? },
            ChunkserverRequest::Delete { target, keys, put_before } => {
                ChunkserverReply::Deleted { shards: self.target(target)?.delete(keys, put_before).await? }
            }
            ChunkserverRequest::Status => {
                let identified = |status: &TargetStatus| self.shared.target(status.target).is_some();
                ChunkserverReply::Status { targets: self.shared.healer.status().into_iter().filter(identified).collect() }
            }
            ChunkserverRequest::Fetch { target, key } => {
                let (header, blocks, body) = self.target(target)?.fetch(key).await?;
                return Ok((ChunkserverReply::Fetched { header, blocks }, body));
            }
            ChunkserverRequest::Doubt { target, keys } => {
                keys.iter().take(DOUBTED_KEYS_MAX).try_for_each(check_key)?;
                match self.shared.healer.note_doubts(target, &keys[..keys.len().min(DOUBTED_KEYS_MAX)]) {
                    true => ChunkserverReply::Doubted,
                    false => return Err(ChunkserverError::NoSuchTarget(target)),
                }
            }
            ChunkserverRequest::Examine { target, keys } => self.examine(target, &keys).await?,
        };
        Ok((reply, Bytes::new()))
    }

    /// Paced like repair: an operator who wants everything read over must not slow down those who work.
    async fn examine(&self, target: TargetId, keys: &[ShardKey]) -> Result<ChunkserverReply, ChunkserverError> {
        if keys.len() > EXAMINED_KEYS_MAX {
            return Err(ChunkserverError::Malformed(format!("{} shards are more than {EXAMINED_KEYS_MAX}", keys.len())));
        }
        let target = self.target(target)?;
        let (mut verdicts, mut read) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            verdicts.push(match target.examine(*key).await {
                Ok(bytes) => {
                    read += u64::from(bytes);
                    self.shared.healer.pacer.take(bytes.into()).await;
                    ShardVerdict::Sound
                }
                Err(ChunkserverError::NoSuchShard(_)) => ShardVerdict::Missing,
                Err(ChunkserverError::Corrupt(_)) => ShardVerdict::Damaged,
                Err(ChunkserverError::Unavailable) => ShardVerdict::Unknown,
                Err(error) => return Err(error),
            });
        }
        Ok(ChunkserverReply::Examined { verdicts, bytes: read })
    }

    async fn sync(&self, target: TargetId, incarnation: Incarnation) -> Result<ChunkserverReply, ChunkserverError> {
        let target = self.target(target)?;
        if incarnation != self.shared.incarnation {
            return Err(ChunkserverError::Restarted { now: self.shared.incarnation });
        }
        target.sync().await.map(|()| ChunkserverReply::Synced)
    }

    fn target(&self, id: TargetId) -> Result<&Target, ChunkserverError> {
        self.shared.target(id).ok_or(ChunkserverError::NoSuchTarget(id))
    }
}

/// Clients and chunkservers store and read. Only the master, who knows what is referenced, and chunkservers delete.
fn may_ask(peer: &Peer, request: &ChunkserverRequest) -> bool {
    let is_server = peer.has_role(Role::Master) || peer.has_role(Role::Chunkserver);
    match request {
        ChunkserverRequest::Delete { .. } | ChunkserverRequest::Fetch { .. } => is_server,
        ChunkserverRequest::Put { .. }
        | ChunkserverRequest::Get { .. }
        | ChunkserverRequest::Proof { .. }
        | ChunkserverRequest::Sync { .. }
        | ChunkserverRequest::Check { .. }
        | ChunkserverRequest::Doubt { .. }
        | ChunkserverRequest::Examine { .. }
        | ChunkserverRequest::Status => is_server || peer.has_role(Role::Client),
    }
}

/// Whether somebody waits for bytes. The questions of an operator's check are none of these.
fn is_foreground(request: &ChunkserverRequest) -> bool {
    match request {
        ChunkserverRequest::Put { .. }
        | ChunkserverRequest::Get { .. }
        | ChunkserverRequest::Proof { .. }
        | ChunkserverRequest::Fetch { .. }
        | ChunkserverRequest::Sync { .. }
        | ChunkserverRequest::Delete { .. } => true,
        ChunkserverRequest::Check { .. }
        | ChunkserverRequest::Doubt { .. }
        | ChunkserverRequest::Examine { .. }
        | ChunkserverRequest::Status => false,
    }
}

fn target_of(request: &ChunkserverRequest) -> Option<TargetId> {
    match request {
        ChunkserverRequest::Put { target, .. }
        | ChunkserverRequest::Get { target, .. }
        | ChunkserverRequest::Proof { target, .. }
        | ChunkserverRequest::Sync { target, .. }
        | ChunkserverRequest::Check { target, .. }
        | ChunkserverRequest::Fetch { target, .. }
        | ChunkserverRequest::Doubt { target, .. }
        | ChunkserverRequest::Examine { target, .. }
        | ChunkserverRequest::Delete { target, .. } => Some(*target),
        ChunkserverRequest::Status => None,
    }
}

/// How much memory the bodies of a request and its reply take.
fn body_bytes(request: &ChunkserverRequest, body: &Bytes) -> Result<usize, ChunkserverError> {
    match request {
        ChunkserverRequest::Put { .. } => Ok(body.len()),
        _ if !body.is_empty() => Err(ChunkserverError::Malformed("only a put has a body".to_owned())),
        ChunkserverRequest::Get { bytes, .. } if *bytes as usize > MESSAGE_BODY_BYTES_MAX => {
            Err(ChunkserverError::Malformed(format!("{bytes} bytes are more than a shard")))
        }
        ChunkserverRequest::Get { bytes, .. } => Ok(*bytes as usize),
        ChunkserverRequest::Fetch { .. } | ChunkserverRequest::Examine { .. } => Ok(MIB as usize),
        _ => Ok(0),
    }
}
