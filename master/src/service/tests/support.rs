//! A master on a node, and somebody who asks it.

use crate::service::{Serving, Settings, run};
use bytes::Bytes;
use cairn_common::attributes::{Attributes, FileKind, NewInode, Owner};
use cairn_common::codec::{decode, encode};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, Sequence, SessionId};
use cairn_common::scheme::Scheme;
use cairn_common::wire::lease::{ClientReply, ClientRequest, Grant, LeaseMode, RecalledLease};
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Mutation, MutationReply, Role};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, Credentials, Identity, Message, Trust};
use cairn_runtime::sim::{Node, World};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

pub const PORT: u16 = 7440;
const PATIENCE: Duration = Duration::from_secs(100);

pub fn credentials(role: Option<Role>, name: &str) -> Credentials {
    let identity = role.map(|role| Identity { role, name: name.to_owned(), certificate: Vec::new(), private_key: Vec::new() });
    Credentials { identity, trust: Trust::Authority(Vec::new()) }
}

pub fn settings(node: &Node) -> Settings {
    Settings {
        identity: Some(credentials(Some(Role::Master), "master")),
        scheme: Scheme::new(2, 1).unwrap(),
        prefix_bits: 2,
        cache_bytes: 1 << 20,
        log_segment_bytes: 64 << 10,
        ..Settings::new("/master", node.address(PORT))
    }
}

/// A running master.
pub struct Started {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    /// What `run` returned, as text.
    pub end: Arc<Mutex<Option<Result<(), String>>>>,
}

impl Started {
    pub async fn stop(mut self, world: &World) {
        self.stop.take().unwrap().send(()).unwrap();
        while self.end.lock().is_none() {
            world.sleep(Duration::from_millis(1)).await;
        }
        self.end.lock().take().unwrap().unwrap();
    }
}

/// Starts a new life of the node, with a master.
pub async fn start(node: &Node) -> Started {
    start_with(node, settings(node)).await
}

pub async fn start_with(node: &Node, settings: Settings) -> Started {
    let runtime = node.runtime();
    let (ready, served) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let end = Arc::new(Mutex::new(None));
    let (machine, result) = (runtime.clone(), end.clone());
    runtime.spawn("master", async move {
        let outcome = run(machine, settings, ready, async { drop(stopped.await) }).await;
        *result.lock() = Some(outcome.map_err(|error| error.to_string()));
    });
    let Ok(Serving { address, .. }) = served.await else { panic!("the master did not start: {:?}", end.lock()) };
    Started { address, stop: Some(stop), end }
}

/// What a client does when a lease is recalled.
#[derive(Debug, Clone, Copy, Default)]
pub enum Manner {
    #[default]
    GivesBack,
    IsBusy,
    IsSilent,
}

/// Notes what is recalled, and gives it back unless it is told not to.
async fn give_back(connection: Arc<dyn Connection>, recalled: Arc<Mutex<Vec<RecalledLease>>>, manner: Arc<Mutex<Manner>>) {
    // Who asks waits for an answer until it loses its patience.
    let mut kept = Vec::new();
    while let Some(call) = connection.accept().await {
        let ClientRequest::Recall { leases, .. } = decode("a recall", &call.request.head).unwrap();
        recalled.lock().extend(leases);
        let manner = *manner.lock();
        let answer = match manner {
            Manner::GivesBack => ClientReply::GivenBack,
            Manner::IsBusy => ClientReply::Busy,
            Manner::IsSilent => {
                kept.push(call);
                continue;
            }
        };
        call.reply.send(Message { head: encode(&answer).into(), body: Bytes::new() }).await;
    }
}

/// One connection to the master, with a session if it is a client's.
pub struct Asker {
    node: Node,
    pub runtime: Runtime,
    pub connection: Arc<dyn Connection>,
    pub session: SessionId,
    sequence: AtomicU64,
    /// What the master has taken back.
    pub recalled: Arc<Mutex<Vec<RecalledLease>>>,
    pub manner: Arc<Mutex<Manner>>,
}

impl Asker {
    pub async fn connect(node: &Node, role: Option<Role>, address: SocketAddr) -> Self {
        let runtime = node.runtime();
        let endpoint = runtime.network.bind(node.address(0), credentials(role, node.name())).unwrap();
        let connection = endpoint.connect(address, Role::Master).await.unwrap();
        // Kept for as long as the node lives.
        runtime.spawn("endpoint", async move { while endpoint.accept().await.is_some() {} });
        let (recalled, manner) = (Arc::default(), Arc::default());
        if role == Some(Role::Client) {
            runtime.spawn("recalls", give_back(connection.clone(), Arc::clone(&recalled), Arc::clone(&manner)));
        }
        Self { node: node.clone(), runtime, connection, session: SessionId(0), sequence: AtomicU64::new(0), recalled, manner }
    }

    /// A client with a session.
    pub async fn client(world: &World, name: &str, address: SocketAddr) -> Self {
        let mut asker = Self::connect(&world.node(name), Some(Role::Client), address).await;
        asker.session = asker.open_session(None, &[]).await;
        asker
    }

    /// The same client after the connection was lost.
    pub async fn come_back(self, address: SocketAddr, open: &[Ino]) -> Self {
        let mut asker = Self::connect(&self.node, Some(Role::Client), address).await;
        asker.sequence = self.sequence;
        asker.session = asker.open_session(Some(self.session), open).await;
        asker
    }

    pub async fn open_session(&self, previous: Option<SessionId>, open: &[Ino]) -> SessionId {
        let request = MasterRequest::OpenSession {
            previous,
            description: "a test".to_owned(),
            open: open.to_vec(),
            answered: Vec::new(),
            writing: Vec::new(),
        };
        match self.ask(request).await {
            Ok(MasterReply::Session { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    pub async fn ask(&self, request: MasterRequest) -> MasterAnswer {
        self.ask_raw(encode(&request)).await
    }

    /// An answer, and the leases that came with it.
    pub async fn ask_for_leases(&self, request: MasterRequest) -> (MasterAnswer, Vec<Grant>) {
        let call = self.connection.call(Message { head: encode(&request).into(), body: Bytes::new() });
        let reply = self.runtime.timeout(PATIENCE, call).await.expect("the master answers in time").expect("the master answers");
        let grants = if reply.body.is_empty() { Vec::new() } else { decode("leases", &reply.body).unwrap() };
        (decode("an answer", &reply.head).unwrap(), grants)
    }

    /// Takes a lease; what was granted.
    pub async fn lease(&self, ino: Ino, wanted: LeaseMode) -> Result<Option<LeaseMode>, MasterError> {
        let (answer, grants) = self.ask_for_leases(MasterRequest::Lease { session: self.session, ino, wanted }).await;
        answer.map(|_| grants.iter().find(|grant| grant.ino == ino).map(|grant| grant.mode))
    }

    pub async fn ask_raw(&self, head: Vec<u8>) -> MasterAnswer {
        let call = self.connection.call(Message { head: head.into(), body: Bytes::new() });
        let reply = self.runtime.timeout(PATIENCE, call).await.expect("the master answers in time").expect("the master answers");
        decode("an answer", &reply.head).unwrap()
    }

    pub fn next_sequence(&self) -> Sequence {
        Sequence(self.sequence.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub async fn mutate(&self, durable: bool, mutation: Mutation) -> Result<MutationReply, MasterError> {
        self.mutate_as(self.next_sequence(), durable, mutation).await
    }

    pub async fn mutate_as(&self, sequence: Sequence, durable: bool, mutation: Mutation) -> Result<MutationReply, MasterError> {
        let acknowledged = Sequence(0);
        match self.ask(MasterRequest::Mutate { session: self.session, sequence, acknowledged, durable, mutation }).await? {
            MasterReply::Mutated(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    /// Makes a file in the root directory.
    pub async fn create(&self, name: &str, open: bool) -> Attributes {
        match self.mutate(false, creation(name, open)).await {
            Ok(MutationReply::Inode(attributes)) => attributes,
            other => panic!("{other:?}"),
        }
    }

    pub async fn unlink(&self, name: &str) {
        self.mutate(false, Mutation::Unlink { parent: Ino::ROOT, name: name.into() }).await.unwrap();
    }

    pub async fn attributes(&self, ino: Ino) -> Result<Attributes, FsError> {
        fs_result(self.ask(MasterRequest::Attributes { ino }).await)
    }

    pub async fn lookup(&self, name: &str) -> Result<Attributes, FsError> {
        fs_result(self.ask(MasterRequest::Lookup { parent: Ino::ROOT, name: name.into() }).await)
    }

    pub async fn open(&self, ino: Ino) -> MasterAnswer {
        self.ask(MasterRequest::Open { session: self.session, ino, wanted: LeaseMode::Read }).await
    }

    pub async fn renew(&self, closed: &[Ino]) -> MasterAnswer {
        self.ask(MasterRequest::Renew { session: self.session, closed: closed.to_vec() }).await
    }
}

fn fs_result(answer: MasterAnswer) -> Result<Attributes, FsError> {
    match answer {
        Ok(MasterReply::Attributes(attributes)) => Ok(attributes),
        Ok(MasterReply::NoSuchName) => Err(FsError::NotFound),
        Err(MasterError::Fs(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

pub fn creation(name: &str, open: bool) -> Mutation {
    let owner = Owner { uid: 1000, gid: 1000 };
    let inode = NewInode { kind: FileKind::Regular, mode: 0o644, owner, rdev: 0, symlink_target: Vec::new(), umask: 0 };
    Mutation::Create { parent: Ino::ROOT, name: name.into(), inode, open, or_existing: false }
}
