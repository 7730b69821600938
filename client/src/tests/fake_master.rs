//! A master without a log: one flat directory, files without content, and faults on demand. What it knows outlives its
//! process, as the real one's log does; it checks what it is told.

use cairn_common::attributes::{Attributes, DirectoryEntry, FileKind};
use cairn_common::codec::{decode, encode};
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::{DirCookie, Incarnation, Ino, MapEpoch, Sequence, SessionId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::lease::{ClientReply, ClientRequest, Grant, LeaseMode, RecalledLease};
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Mutation, MutationReply, Usage};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, IncomingCall, Message};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub struct FakeSession {
    pub acknowledged: Sequence,
    results: BTreeMap<u64, Result<MutationReply, FsError>>,
    pub open: BTreeSet<Ino>,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeFaults {
    /// Out of 100 requests, whose replies are dropped after the work was done ...
    pub dropped: u64,
    /// ... and whose replies come only after so long.
    pub late: u64,
    pub lateness: Duration,
    /// Requests are read, and nothing ever follows.
    pub silent: bool,
    pub unavailable: bool,
}

pub struct FakeState {
    pub sessions: BTreeMap<SessionId, FakeSession>,
    last_session: u64,
    /// Names in order of their making.
    pub entries: BTreeMap<DirCookie, (Vec<u8>, Ino)>,
    pub inodes: BTreeMap<Ino, Attributes>,
    pub map: ClusterMap,
    pub faults: FakeFaults,
    /// How often each name was made, and commits were done.
    pub made: BTreeMap<Vec<u8>, u32>,
    pub commits: u32,
    /// Every inode that a renewal has closed.
    pub closed: Vec<Ino>,
    /// Requests by kind.
    pub asked: BTreeMap<&'static str, u32>,
    /// How a commit is refused next.
    pub refuse_commit: Option<MasterError>,
    /// Whether replies come with leases.
    pub grants: bool,
    /// Leases that were recalled.
    recalls: u64,
    /// The connection that was made last.
    line: Option<Arc<dyn Connection>>,
}

/// The master of a test.
#[derive(Clone)]
pub struct FakeMaster(Arc<Mutex<FakeState>>);

pub fn attributes_of(ino: Ino, kind: FileKind) -> Attributes {
    let zero = Timestamp::EPOCH;
    Attributes {
        ino,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        size: 0,
        allocated: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: zero,
        version: 1,
        has_xattrs: false,
        pool: None,
    }
}

impl Default for FakeMaster {
    fn default() -> Self {
        let root = attributes_of(Ino::ROOT, FileKind::Directory);
        Self(Arc::new(Mutex::new(FakeState {
            sessions: BTreeMap::new(),
            last_session: 0,
            entries: BTreeMap::new(),
            inodes: [(Ino::ROOT, root)].into(),
            map: ClusterMap { epoch: MapEpoch(1), ..ClusterMap::default() },
            faults: FakeFaults::default(),
            made: BTreeMap::new(),
            commits: 0,
            closed: Vec::new(),
            asked: BTreeMap::new(),
            refuse_commit: None,
            grants: true,
            recalls: 0,
            line: None,
        })))
    }
}

impl FakeMaster {
    pub fn with<T>(&self, look: impl FnOnce(&mut FakeState) -> T) -> T {
        look(&mut self.0.lock())
    }

    pub fn asked(&self, kind: &str) -> u32 {
        self.with(|state| state.asked.get(kind).copied().unwrap_or(0))
    }

    /// Makes a file behind the client's back.
    pub fn make(&self, name: &str) -> Ino {
        self.with(|state| state.make(name.as_bytes())).expect("a new name").ino
    }

    /// Serves until the life of the node ends.
    pub fn serve(&self, runtime: &Runtime, port: u16) {
        let credentials = super::world::credentials(cairn_common::wire::master::Role::Master, "master");
        let endpoint = runtime.network.bind(super::world::any(port), credentials).expect("the port is free");
        let (this, spawner) = (self.clone(), runtime.clone());
        runtime.spawn("listen", async move {
            while let Some(connection) = endpoint.accept().await {
                spawner.spawn("serve", this.clone().answer_all(spawner.clone(), connection));
            }
        });
    }

    async fn answer_all(self, runtime: Runtime, connection: Arc<dyn Connection>) {
        self.with(|state| state.line = Some(Arc::clone(&connection)));
        while let Some(call) = connection.accept().await {
            runtime.spawn("answer", self.clone().answer(runtime.clone(), call));
        }
    }

    async fn answer(self, runtime: Runtime, call: IncomingCall) {
        let request: MasterRequest = decode("a request", &call.request.head).expect("a request that decodes");
        let faults = self.with(|state| state.faults);
        if faults.silent {
            return std::future::pending().await;
        }
        let asked = request.clone();
        let answer = self.with(|state| {
            *state.asked.entry(kind_of(&request)).or_default() += 1;
            if faults.unavailable { Err(MasterError::Unavailable("a test".to_owned())) } else { state.handle(request, runtime.wall()) }
        });
        let dice = runtime.random_u64() % 100;
        if dice < faults.dropped {
            return drop(call);
        }
        if dice < faults.dropped + faults.late {
            runtime.sleep(faults.lateness).await;
        }
        let grants = if self.with(|state| state.grants) { grants_of(&asked, &answer) } else { Vec::new() };
        call.reply.send(Message { head: encode(&answer).into(), body: encode(&grants).into() }).await;
    }

    /// Takes a lease back from the client.
    pub async fn recall(&self, ino: Ino, keep: Option<LeaseMode>) {
        assert_eq!(self.ask_back(ino, keep).await, ClientReply::GivenBack);
    }

    /// Asks for a lease once.
    pub async fn ask_back(&self, ino: Ino, keep: Option<LeaseMode>) -> ClientReply {
        let line = self.with(|state| state.line.clone()).expect("a client");
        let number = self.with(|state| {
            state.recalls += 1;
            state.recalls
        });
        let request = ClientRequest::Recall { number, leases: vec![RecalledLease { ino, keep }] };
        let reply = line.call(Message { head: encode(&request).into(), body: Default::default() }).await.expect("an answer");
        decode("an answer", &reply.head).expect("an answer that decodes")
    }
}

fn grants_of(request: &MasterRequest, answer: &MasterAnswer) -> Vec<Grant> {
    let read = |ino| Grant { ino, mode: LeaseMode::Read };
    let root = read(Ino::ROOT);
    match (request, answer) {
        (MasterRequest::Open { ino, wanted, .. } | MasterRequest::Lease { ino, wanted, .. }, Ok(_)) => {
            vec![Grant { ino: *ino, mode: *wanted }]
        }
        (
            MasterRequest::Mutate { mutation: Mutation::Create { open: true, .. }, .. },
            Ok(MasterReply::Mutated(MutationReply::Inode(made))),
        ) => {
            vec![root, Grant { ino: made.ino, mode: LeaseMode::Write }]
        }
        (_, Ok(MasterReply::Mutated(MutationReply::Inode(made) | MutationReply::Removed(made)))) => vec![root, read(made.ino)],
        (_, Ok(MasterReply::Attributes(found))) => vec![root, read(found.ino)],
        (_, Ok(MasterReply::NoSuchName)) => vec![root],
        (_, Ok(MasterReply::Directory { entries, .. })) => {
            let listed = entries.iter().filter(|entry| entry.attributes.is_some()).map(|entry| read(entry.ino));
            [root].into_iter().chain(listed).collect()
        }
        _ => Vec::new(),
    }
}

/// How long leases are good.
pub const LEASE: Duration = Duration::from_secs(6);

fn kind_of(request: &MasterRequest) -> &'static str {
    match request {
        MasterRequest::OpenSession { .. } => "session",
        MasterRequest::Renew { .. } => "renew",
        MasterRequest::Lookup { .. } => "lookup",
        MasterRequest::Attributes { .. } => "attributes",
        MasterRequest::Open { .. } => "open",
        MasterRequest::Lease { .. } => "lease",
        MasterRequest::ReadDirectory { .. } => "readdir",
        MasterRequest::Mutate { .. } => "mutate",
        MasterRequest::SyncLog => "sync",
        _ => "other",
    }
}

impl FakeState {
    fn handle(&mut self, request: MasterRequest, now: Timestamp) -> MasterAnswer {
        match request {
            MasterRequest::OpenSession { previous, open, .. } => Ok(self.open_session(previous, open, now)),
            MasterRequest::Renew { session, closed } => {
                let epoch = self.map.epoch;
                let known = self.session(session)?;
                known.open.retain(|ino| !closed.contains(ino));
                self.closed.extend(closed);
                Ok(MasterReply::Renewed { epoch, now, is_alone: false })
            }
            MasterRequest::CloseSession { session } => {
                self.sessions.remove(&session);
                Ok(MasterReply::Closed)
            }
            MasterRequest::Lookup { name, .. } => {
                let Some(ino) = self.find(&name) else { return Ok(MasterReply::NoSuchName) };
                Ok(MasterReply::Attributes(self.inode(ino)?.clone()))
            }
            MasterRequest::Attributes { ino } => Ok(MasterReply::Attributes(self.inode(ino)?.clone())),
            MasterRequest::Open { session, ino, .. } | MasterRequest::Lease { session, ino, .. } => {
                let attributes = self.inode(ino)?.clone();
                self.session(session)?.open.insert(ino);
                Ok(MasterReply::Opened { attributes, extents: ExtentPage::default() })
            }
            MasterRequest::ReadDirectory { after, limit, with_attributes, .. } => Ok(self.list(after, limit, with_attributes)),
            MasterRequest::Usage => Ok(MasterReply::Usage(Usage::default())),
            MasterRequest::SyncLog => Ok(MasterReply::LogSynced),
            MasterRequest::Map { known } => Ok(MasterReply::Map((known < self.map.epoch).then(|| self.map.clone()))),
            MasterRequest::Mutate { session, sequence, acknowledged, mutation, .. } => {
                self.mutate_once(session, sequence, acknowledged, mutation)
            }
            MasterRequest::AssertLocks { .. } => Ok(MasterReply::LocksAsserted { refused: Vec::new() }),
            other => Err(MasterError::Malformed(format!("{other:?} is not for this fake"))),
        }
    }

    fn session(&mut self, id: SessionId) -> Result<&mut FakeSession, MasterError> {
        self.sessions.get_mut(&id).ok_or(MasterError::NoSuchSession(id))
    }

    fn open_session(&mut self, previous: Option<SessionId>, open: Vec<Ino>, now: Timestamp) -> MasterReply {
        let known = previous.filter(|id| self.sessions.contains_key(id));
        let session = known.unwrap_or_else(|| {
            self.last_session += 1;
            SessionId(self.last_session)
        });
        self.sessions.entry(session).or_default().open = open.into_iter().collect();
        MasterReply::Session {
            session,
            cluster: [7; 16],
            root: self.inodes[&Ino::ROOT].clone(),
            now,
            incarnation: Incarnation(1),
            unknown: Vec::new(),
            lease_ms: LEASE.as_millis() as u64,
            is_alone: false,
        }
    }

    fn mutate_once(&mut self, session: SessionId, sequence: Sequence, acknowledged: Sequence, mutation: Mutation) -> MasterAnswer {
        assert!(acknowledged < sequence, "{sequence} acknowledges {acknowledged}");
        let known = self.session(session)?;
        if sequence <= known.acknowledged {
            return Err(MasterError::Forgotten(sequence));
        }
        known.acknowledged = known.acknowledged.max(acknowledged);
        let until = known.acknowledged;
        known.results.retain(|done, _| *done > until.0);
        if let Some(first) = known.results.get(&sequence.0) {
            return Ok(MasterReply::Mutated(first.clone()?));
        }
        if matches!(mutation, Mutation::Commit { .. })
            && let Some(refusal) = self.refuse_commit.take()
        {
            return Err(refusal);
        }
        let result = self.mutate(session, mutation);
        self.session(session)?.results.insert(sequence.0, result.clone());
        Ok(MasterReply::Mutated(result?))
    }

    fn mutate(&mut self, session: SessionId, mutation: Mutation) -> Result<MutationReply, FsError> {
        match mutation {
            Mutation::Create { name, open, or_existing, .. } => {
                let attributes = match self.find(&name) {
                    Some(ino) if or_existing => self.inode(ino)?.clone(),
                    _ => self.make(&name)?,
                };
                if open && let Ok(known) = self.session(session) {
                    known.open.insert(attributes.ino);
                }
                Ok(MutationReply::Inode(attributes))
            }
            Mutation::Unlink { name, .. } => {
                let cookie = self.cookie_of(&name).ok_or(FsError::NotFound)?;
                let (_, ino) = self.entries.remove(&cookie).ok_or(FsError::NotFound)?;
                let attributes = self.change(ino, |attributes| attributes.nlink = 0)?;
                if !self.sessions.values().any(|session| session.open.contains(&ino)) {
                    self.inodes.remove(&ino);
                }
                Ok(MutationReply::Removed(attributes))
            }
            Mutation::SetAttributes { ino, change } => {
                let attributes = self.change(ino, |attributes| {
                    attributes.mode = change.mode.unwrap_or(attributes.mode);
                    attributes.size = change.size.unwrap_or(attributes.size);
                })?;
                Ok(MutationReply::Inode(attributes))
            }
            Mutation::Commit { files, .. } => {
                self.commits += 1;
                let commit = |file: &cairn_common::wire::master::FileCommit| {
                    self.change(file.ino, |attributes| attributes.size = attributes.size.max(file.size_at_least))
                };
                Ok(MutationReply::Committed(files.iter().map(commit).collect()))
            }
            _ => Err(FsError::NotSupported),
        }
    }

    fn make(&mut self, name: &[u8]) -> Result<Attributes, FsError> {
        if self.find(name).is_some() {
            return Err(FsError::Exists);
        }
        *self.made.entry(name.to_vec()).or_default() += 1;
        let ino = Ino(self.inodes.keys().last().map_or(2, |last| last.0 + 1));
        let attributes = attributes_of(ino, FileKind::Regular);
        self.inodes.insert(ino, attributes.clone());
        self.entries.insert(DirCookie(ino.0), (name.to_vec(), ino));
        self.change(Ino::ROOT, |root| root.size += 1)?;
        Ok(attributes)
    }

    fn cookie_of(&self, name: &[u8]) -> Option<DirCookie> {
        self.entries.iter().find(|(_, entry)| entry.0 == name).map(|(cookie, _)| *cookie)
    }

    fn find(&self, name: &[u8]) -> Option<Ino> {
        self.entries.values().find(|entry| entry.0 == name).map(|entry| entry.1)
    }

    fn inode(&self, ino: Ino) -> Result<&Attributes, FsError> {
        self.inodes.get(&ino).ok_or(FsError::NotFound)
    }

    pub fn change(&mut self, ino: Ino, change: impl FnOnce(&mut Attributes)) -> Result<Attributes, FsError> {
        let attributes = self.inodes.get_mut(&ino).ok_or(FsError::NotFound)?;
        change(attributes);
        attributes.version += 1;
        Ok(attributes.clone())
    }

    fn list(&self, after: DirCookie, limit: u32, with_attributes: bool) -> MasterReply {
        let later = self.entries.range(DirCookie(after.0 + 1)..);
        let entry = |(cookie, (name, ino)): (&DirCookie, &(Vec<u8>, Ino))| DirectoryEntry {
            name: name.clone(),
            ino: *ino,
            kind: FileKind::Regular,
            cookie: *cookie,
            attributes: if with_attributes { self.inodes.get(ino).cloned() } else { None },
        };
        let entries: Vec<DirectoryEntry> = later.clone().take(limit as usize).map(entry).collect();
        MasterReply::Directory { end: later.count() <= entries.len(), entries }
    }
}
