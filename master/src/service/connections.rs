//! Reading calls, checking who may ask what, and answering. Each call is a task of its own: none waits behind another.

use super::master::Master;
use super::namespace::MutateRequest;
use crate::locks::Ticket;
use crate::state::read;
use bytes::Bytes;
use cairn_common::codec;
use cairn_common::ids::SessionId;
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::network::{Connection, Endpoint, IncomingCall, Message, Peer};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Calls of one connection that are carried out at once. What is beyond waits in the transport.
const CONNECTION_CALLS_MAX: usize = 256;

/// Who asks, and over which connection.
pub struct Caller {
    pub connection: Arc<dyn Connection>,
    /// The session that was opened over this connection: whatever comes over it keeps the session alive.
    session: Mutex<Option<SessionId>>,
}

impl Caller {
    /// The name in its certificate.
    pub fn name(&self) -> &str {
        match self.connection.peer() {
            Peer::Anonymous => "",
            Peer::Member { name, .. } => name,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    fn session(&self) -> Option<SessionId> {
        *self.session.lock()
    }

    pub fn note_session(&self, session: SessionId) {
        *self.session.lock() = Some(session);
    }
}

/// Serves everybody who connects, until the endpoint is closed.
pub async fn accept(master: Arc<Master>, endpoint: Arc<dyn Endpoint>) {
    while let Some(connection) = endpoint.accept().await {
        master.runtime.spawn("master connection", serve(master.clone(), connection));
    }
}

async fn serve(master: Arc<Master>, connection: Arc<dyn Connection>) {
    let calls = Arc::new(Semaphore::new(CONNECTION_CALLS_MAX));
    let caller = Arc::new(Caller { connection: connection.clone(), session: Mutex::new(None) });
    loop {
        let Ok(turn) = calls.clone().acquire_owned().await else { return };
        let Some(call) = connection.accept().await else { return };
        let (serving, caller) = (master.clone(), caller.clone());
        master.runtime.spawn("master call", async move {
            serving.call(&caller, call).await;
            drop(turn);
        });
    }
}

impl Master {
    async fn call(&self, caller: &Caller, call: IncomingCall) {
        if let Some(session) = caller.session() {
            self.sessions.lock().hear(session, caller.name(), self.runtime.now());
        }
        let answer: MasterAnswer = self.answer(caller, &call.request).await;
        call.reply.send(Message { head: codec::encode(&answer).into(), body: Bytes::new() }).await;
    }

    async fn answer(&self, caller: &Caller, message: &Message) -> MasterAnswer {
        let request: MasterRequest =
            codec::decode("a request to the master", &message.head).map_err(|error| MasterError::Malformed(error.to_string()))?;
        if !message.body.is_empty() {
            return Err(MasterError::Malformed("requests to the master have no body".to_owned()));
        }
        check_role(caller.connection.peer(), &request)?;
        if let Some(failure) = self.store.failure() {
            return Err(MasterError::Unavailable(failure.to_string()));
        }
        let measured = self.metrics.begin(&request, self.runtime.now());
        let answer = self.carry_out(caller, request).await;
        measured.end(&answer, self.runtime.now());
        answer
    }

    async fn carry_out(&self, caller: &Caller, request: MasterRequest) -> MasterAnswer {
        match request {
            MasterRequest::Join { secret, role, public_key } => self.join(&secret, role, public_key).await,
            MasterRequest::OpenSession { previous, description, open, answered } => {
                self.open_session(caller, previous, description, open, &answered).await
            }
            MasterRequest::Renew { session, closed } => self.renew(caller, session, closed).await,
            MasterRequest::CloseSession { session } => self.close_session(caller, session).await,
            MasterRequest::Lookup { parent, name } => self.read(|reader| read::lookup(reader, parent, &name)).map(MasterReply::Attributes),
            MasterRequest::Attributes { ino } => self.read(|reader| read::attributes(reader, ino)).map(MasterReply::Attributes),
            MasterRequest::Open { session, ino } => self.open(caller, session, ino).await,
            MasterRequest::ReadDirectory { ino, after, limit, with_attributes } => self.read_directory(ino, after, limit, with_attributes),
            MasterRequest::ReadLink { ino } => self.read(|reader| read::read_link(reader, ino)).map(|target| MasterReply::Link { target }),
            MasterRequest::Extents { ino, offset, end } => self.extents(ino, offset, end),
            MasterRequest::GetXattr { ino, name } => {
                self.read(|reader| read::get_xattr(reader, ino, &name)).map(|value| MasterReply::Xattr { value })
            }
            MasterRequest::ListXattr { ino } => {
                self.read(|reader| read::list_xattr(reader, ino)).map(|names| MasterReply::Xattrs { names })
            }
            MasterRequest::Usage => self.usage().map(MasterReply::Usage),
            MasterRequest::Mutate { session, sequence, acknowledged, durable, mutation } => {
                self.mutate(caller, MutateRequest { session, sequence, acknowledged, durable, mutation }).await
            }
            MasterRequest::SyncLog => self.synced(self.store.last()).await.map(|()| MasterReply::LogSynced),
            MasterRequest::Map { known } => self.newer_map(known).await,
            MasterRequest::RegisterServer { address, incarnation, labels, targets } => {
                self.register(caller, address, incarnation, labels, targets).await
            }
            MasterRequest::Heartbeat { server, incarnation, known: _, targets, load } => {
                self.heartbeat(caller, server, incarnation, targets, *load)
            }
            MasterRequest::CreateToken { role, lifetime_seconds } => self.create_token(role, lifetime_seconds).await,
            MasterRequest::Status => self.status().map(|status| MasterReply::Status(Box::new(status))),
            MasterRequest::Chunks { from, until, limit } => self.chunks(from, until, limit).await,
            MasterRequest::SlotsComplete { server, incarnation, slots } => self.settle(caller, server, incarnation, slots).await,
            MasterRequest::ChangeServer { server, change, insist } => self.change_server(server, change, insist).await,
            MasterRequest::CompactionWork { session, done } => self.compaction_work(caller, session, done).await,
            MasterRequest::BeginCheck { work } => self.begin_check(work),
            MasterRequest::FollowCheck { check, from } => self.follow_check(check, from),
            MasterRequest::Lock { session, order, acknowledged, call } => {
                self.lock(caller, Ticket { session, order }, acknowledged, call).await
            }
            MasterRequest::TestLock { session, claim } => self.test_lock(caller, session, &claim),
            MasterRequest::AssertLocks { session, claims, last } => self.assert_locks(caller, session, claims, last),
            MasterRequest::ReportLoad { load } => Ok(self.note_load(caller.session(), *load)),
            MasterRequest::Load => Ok(self.load_report()),
            MasterRequest::EndSession { session } => self.evict(session).await,
        }
    }
}

/// Strangers may only join. Chunkservers may do nothing to files; only they report disks. The master's own certificate counts
/// as a client's.
fn check_role(peer: &Peer, request: &MasterRequest) -> Result<(), MasterError> {
    let is_chunkserver = peer.has_role(Role::Chunkserver);
    let is_client = peer.has_role(Role::Client) || peer.has_role(Role::Master);
    let (may, needed) = match request {
        MasterRequest::Join { .. } => (true, Role::Client),
        MasterRequest::RegisterServer { .. } | MasterRequest::Heartbeat { .. } | MasterRequest::SlotsComplete { .. } => {
            (is_chunkserver, Role::Chunkserver)
        }
        MasterRequest::Map { .. } | MasterRequest::Usage | MasterRequest::Status | MasterRequest::Chunks { .. } => {
            (is_chunkserver || is_client, Role::Client)
        }
        MasterRequest::OpenSession { .. }
        | MasterRequest::Renew { .. }
        | MasterRequest::CloseSession { .. }
        | MasterRequest::Lookup { .. }
        | MasterRequest::Attributes { .. }
        | MasterRequest::Open { .. }
        | MasterRequest::ReadDirectory { .. }
        | MasterRequest::ReadLink { .. }
        | MasterRequest::Extents { .. }
        | MasterRequest::GetXattr { .. }
        | MasterRequest::ListXattr { .. }
        | MasterRequest::Mutate { .. }
        | MasterRequest::SyncLog
        | MasterRequest::CompactionWork { .. }
        | MasterRequest::ChangeServer { .. }
        | MasterRequest::BeginCheck { .. }
        | MasterRequest::FollowCheck { .. }
        | MasterRequest::Lock { .. }
        | MasterRequest::TestLock { .. }
        | MasterRequest::AssertLocks { .. }
        | MasterRequest::ReportLoad { .. }
        | MasterRequest::Load
        | MasterRequest::EndSession { .. }
        | MasterRequest::CreateToken { .. } => (is_client, Role::Client),
    };
    if may { Ok(()) } else { Err(MasterError::Denied { needed }) }
}
