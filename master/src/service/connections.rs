//! Reading calls, checking who may ask what, and answering. Each call is a task of its own: none waits behind another.

use super::leases::Look;
use super::master::Master;
use super::namespace::{Greeting, MutateRequest};
use crate::locks::Ticket;
use crate::state::read;
use bytes::Bytes;
use cairn_common::codec;
use cairn_common::ids::SessionId;
use cairn_common::wire::lease::Grant;
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Mutation, Role};
use cairn_runtime::network::{Connection, Endpoint, IncomingCall, Message, Peer};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::Semaphore;

/// Calls of one connection that are carried out at once. What is beyond waits in the transport.
const CONNECTION_CALLS_MAX: usize = 256;

/// Who asks, and over which connection.
pub struct Caller {
    pub connection: Arc<dyn Connection>,
    /// The session that was opened over this connection: whatever comes over it keeps the session alive.
    session: Mutex<Option<SessionId>>,
    /// Calls that wait for other clients to give back leases.
    pub waiting: AtomicUsize,
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

    /// The session that was opened over this connection.
    pub fn session(&self) -> Option<SessionId> {
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
    let caller = Arc::new(Caller { connection: connection.clone(), session: Mutex::new(None), waiting: AtomicUsize::new(0) });
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
        let mut grants: Vec<Grant> = Vec::new();
        let answer: MasterAnswer = self.answer(&mut Look { caller, grants: &mut grants }, &call.request).await;
        if let Some(session) = caller.session().filter(|_| !grants.is_empty()) {
            self.bound_leases(session);
        }
        let body = if grants.is_empty() { Bytes::new() } else { codec::encode(&grants).into() };
        call.reply.send(Message { head: codec::encode(&answer).into(), body }).await;
    }

    async fn answer(&self, look: &mut Look<'_>, message: &Message) -> MasterAnswer {
        let request: MasterRequest =
            codec::decode("a request to the master", &message.head).map_err(|error| MasterError::Malformed(error.to_string()))?;
        if !message.body.is_empty() {
            return Err(MasterError::Malformed("requests to the master have no body".to_owned()));
        }
        check_role(look.caller.connection.peer(), &request)?;
        if let Some(failure) = self.store.failure() {
            return Err(MasterError::Unavailable(failure.to_string()));
        }
        // Whatever comes over a session's connection keeps the session alive. An answer proves that it was, so that the client may go on to
        // believe in its leases: there is none for a session that is not.
        if let Some(session) = look.caller.session()
            && !matches!(request, MasterRequest::OpenSession { .. })
        {
            self.hear(look.caller, session)?;
            if is_about_files(&request) {
                self.sessions.lock().count_request(session);
            }
        }
        let measured = self.metrics.begin(&request, self.runtime.now());
        let answer = self.carry_out(look, request).await;
        measured.end(&answer, self.runtime.now());
        answer
    }

    async fn carry_out(&self, look: &mut Look<'_>, request: MasterRequest) -> MasterAnswer {
        let caller = look.caller;
        match request {
            MasterRequest::Join { secret, role, public_key } => self.join(&secret, role, public_key).await,
            MasterRequest::OpenSession { previous, description, open, answered, writing } => {
                self.open_session(caller, Greeting { previous, description, open, answered, writing }).await
            }
            MasterRequest::Renew { session, closed } => self.renew(caller, session, closed).await,
            MasterRequest::CloseSession { session } => self.close_session(caller, session).await,
            MasterRequest::Lookup { parent, name } => self.lookup(look, parent, &name).await,
            MasterRequest::Attributes { ino } => self.attributes(look, ino).await,
            MasterRequest::Open { session, ino, wanted } => self.open(look, session, ino, wanted).await,
            MasterRequest::Lease { session, ino, wanted } => self.lease(look, session, ino, wanted).await,
            MasterRequest::ReadDirectory { ino, after, limit, with_attributes } => {
                self.read_directory(look, ino, after, limit, with_attributes).await
            }
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
                self.mutate(look, MutateRequest { session, sequence, acknowledged, durable, mutation }).await
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
            MasterRequest::CreatePool { name, scheme, labels, insist } => self.create_pool(name, scheme, labels, insist).await,
        }
    }
}

/// Whether a request is one that programs make, and not one that keeps a client going.
fn is_about_files(request: &MasterRequest) -> bool {
    // What was read is told every few seconds, whoever read it.
    let is_told_later = matches!(request, MasterRequest::Mutate { mutation: Mutation::NoteAccess { .. }, .. });
    !is_told_later
        && matches!(
            request,
            MasterRequest::Lookup { .. }
                | MasterRequest::Attributes { .. }
                | MasterRequest::Open { .. }
                | MasterRequest::Lease { .. }
                | MasterRequest::ReadDirectory { .. }
                | MasterRequest::ReadLink { .. }
                | MasterRequest::Extents { .. }
                | MasterRequest::GetXattr { .. }
                | MasterRequest::ListXattr { .. }
                | MasterRequest::Usage
                | MasterRequest::Mutate { .. }
        )
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
        | MasterRequest::Lease { .. }
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
        | MasterRequest::CreatePool { .. }
        | MasterRequest::CreateToken { .. } => (is_client, Role::Client),
    };
    if may { Ok(()) } else { Err(MasterError::Denied { needed }) }
}
