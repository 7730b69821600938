//! The task that keeps the link alive: connects, opens the session, renews it, and starts over after a loss.
//!
//! | state | event | next |
//! |---|---|---|
//! | away | connected and session opened | here |
//! | away | refused, no answer | away, after a pause |
//! | here | connection broken or silent | away |
//! | here | the master does not know the session | away (a new session follows; mutations in flight learn of it) |
//! | any | shut down | closed |

use super::backoff::Backoff;
use super::calls::{Link, TryError};
use super::lock_book::LockPlace;
use super::session::{Contact, Line, LineFailure, Session};
use crate::cache::MetadataCache;
use crate::counters::Counts;
use crate::limits::{
    CLOSED_PER_RENEWAL_MAX, QUICK_LIMIT, RECALL_ANSWER_LIMIT, RENEWALS_PER_LEASE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, TRY_LIMIT,
};
use crate::settings::Settings;
use bytes::Bytes;
use cairn_common::attributes::Attributes;
use cairn_common::codec::{decode, encode};
use cairn_common::ids::{Incarnation, SessionId};
use cairn_common::limits::{LOCKS_ASSERTED_MAX, SESSION_RENEW_INTERVAL};
use cairn_common::lock::LockClaim;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::lease::{ClientReply, ClientRequest, RecalledLease};
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::Runtime;
use cairn_runtime::network::{ConnectError, Connection, Endpoint, IncomingCall, Message};
use cairn_runtime::task::{BoxFuture, TaskGuard};
use futures_util::FutureExt;
use futures_util::future::Shared;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Why a file system did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("no master answers at {master} within {waited:?}: check that `cairn master` runs there and that UDP reaches it ({reason})")]
    NoMaster { master: SocketAddr, waited: Duration, reason: String },
    #[error("{0}: check that the address is that of the master of the cluster which this machine has joined")]
    Untrusted(ConnectError),
    #[error("cannot open a UDP port: {0}")]
    Local(ConnectError),
    #[error("the master at {master} refuses this client: {reason}")]
    Refused { master: SocketAddr, reason: String },
    #[error("the cluster has no pool {wanted:?}; it has {known}")]
    NoSuchPool { wanted: String, known: String },
    #[error("the settings make no sense: {0}")]
    Settings(String),
}

/// Why one try to come to a session failed.
enum EstablishError {
    Connect(ConnectError),
    Refused(MasterError),
    NoAnswer,
}

impl std::fmt::Display for EstablishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EstablishError::Connect(error) => error.fmt(f),
            EstablishError::Refused(error) => error.fmt(f),
            EstablishError::NoAnswer => f.write_str("connected, but no answer"),
        }
    }
}

/// Keeps the link alive until it is shut down or dropped.
pub struct Keeper {
    link: Arc<Link>,
    endpoint: Arc<dyn Endpoint>,
    _task: TaskGuard,
}

/// What the master says when a session begins.
pub struct Welcome {
    line: Arc<Line>,
    pub root: Attributes,
    pub cluster: [u8; 16],
}

struct Work {
    link: Arc<Link>,
    endpoint: Arc<dyn Endpoint>,
    master: SocketAddr,
    description: String,
}

impl Keeper {
    /// Connects and opens a session, or says within `settings.connect_limit` why that can't be.
    pub async fn start(
        runtime: &Runtime,
        settings: &Settings,
        cache: Arc<MetadataCache>,
        counts: Arc<Counts>,
    ) -> Result<(Keeper, Arc<Link>, Welcome), StartError> {
        let endpoint = runtime.network.bind(any_port(settings.master.ip()), settings.credentials.clone()).map_err(StartError::Local)?;
        let link = Link::new(runtime.clone(), settings.master_wait, cache, counts);
        let work = Work {
            link: Arc::clone(&link),
            endpoint: Arc::clone(&endpoint),
            master: settings.master,
            description: settings.description.clone(),
        };
        let welcome = match work.first_contact(settings.connect_limit).await {
            Ok(welcome) => welcome,
            Err(error) => {
                endpoint.close();
                return Err(error);
            }
        };
        link.contact.send_replace(Contact::Here(Arc::clone(&welcome.line)));
        let task = runtime.spawn("session keeper", work.run(Arc::clone(&welcome.line))).abort_on_drop();
        Ok((Keeper { link: Arc::clone(&link), endpoint, _task: task }, link, welcome))
    }

    /// Ends the session and the connection. Whatever still waits for the master fails.
    pub async fn shut_down(&self) {
        let before = self.link.contact.send_replace(Contact::Closed);
        if let Contact::Here(line) = before {
            let farewell = MasterRequest::CloseSession { session: line.session.id };
            // If it does not arrive, the master forgets the session by itself.
            let _ = self.link.runtime.timeout(QUICK_LIMIT, self.link.try_once(&line, &farewell)).await;
            line.connection.close("the file system was shut down");
        }
        self.endpoint.close();
    }
}

impl Work {
    async fn first_contact(&self, limit: Duration) -> Result<Welcome, StartError> {
        let deadline = self.link.runtime.now().plus(limit);
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        let mut last = None;
        loop {
            let left = deadline.since(self.link.runtime.now());
            match self.link.runtime.timeout(left, self.establish(None)).await {
                Ok(Ok(welcome)) => return Ok(welcome),
                Ok(Err(error)) => last = Some(self.worth_another_try(error)?),
                Err(_) => {
                    let reason = last.unwrap_or_else(|| "no answer".to_owned());
                    return Err(StartError::NoMaster { master: self.master, waited: limit, reason });
                }
            }
            self.link.runtime.sleep(backoff.pause()).await;
        }
    }

    /// The reason as text, or the error with which the start ends.
    fn worth_another_try(&self, error: EstablishError) -> Result<String, StartError> {
        match error {
            EstablishError::Connect(error @ ConnectError::Untrusted { .. }) => Err(StartError::Untrusted(error)),
            EstablishError::Connect(error @ ConnectError::Local { .. }) => Err(StartError::Local(error)),
            EstablishError::Refused(error) if !matches!(error, MasterError::Unavailable(_)) => {
                Err(StartError::Refused { master: self.master, reason: error.to_string() })
            }
            other => Ok(other.to_string()),
        }
    }

    async fn run(self, first: Arc<Line>) {
        let mut line = first;
        loop {
            let failure = self.attend(&line).await;
            if self.is_closed() {
                return;
            }
            tracing::warn!("lost contact to the master at {}: {}", self.master, describe(failure));
            self.publish(Contact::Away);
            line.connection.close("starting over");
            match self.come_back(&line).await {
                Some(back) => line = back,
                None => return,
            }
            tracing::info!("contact to the master at {} is back, session {}", self.master, line.session.id);
            self.publish(Contact::Here(Arc::clone(&line)));
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*self.link.contact.borrow(), Contact::Closed)
    }

    /// Once closed, always closed.
    fn publish(&self, contact: Contact) {
        self.link.contact.send_if_modified(|present| {
            let open = !matches!(present, Contact::Closed);
            if open {
                *present = contact;
            }
            open
        });
    }

    /// `None` once the file system is shut down.
    async fn come_back(&self, before: &Arc<Line>) -> Option<Arc<Line>> {
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        while !self.is_closed() {
            match self.establish(Some(before)).await {
                Ok(welcome) => return Some(welcome.line),
                Err(error) => tracing::debug!("the master at {} is still away: {error}", self.master),
            }
            self.link.runtime.sleep(backoff.pause()).await;
        }
        None
    }

    /// Connects and opens a session, which is `previous` again if the master still knows it.
    async fn establish(&self, previous: Option<&Arc<Line>>) -> Result<Welcome, EstablishError> {
        let connection = match self.link.runtime.timeout(TRY_LIMIT, self.endpoint.connect(self.master, Role::Master)).await {
            Ok(connected) => connected.map_err(EstablishError::Connect)?,
            Err(_) => return Err(EstablishError::NoAnswer),
        };
        self.link.counts.master_connects.add(1);
        self.open_session(&connection, previous).await.inspect_err(|_| connection.close("no session"))
    }

    async fn open_session(&self, connection: &Arc<dyn Connection>, previous: Option<&Arc<Line>>) -> Result<Welcome, EstablishError> {
        // A line of its own for the greeting, for nobody else must use the connection before.
        let unopened = Session::new(SessionId(0), Duration::ZERO);
        let greeting = Line::new(Arc::clone(connection), unopened, Incarnation(0), self.link.runtime.now());
        let writing = match self.link.stake.get() {
            Some(stake) => stake.contact_lost().await,
            None => Vec::new(),
        };
        let request = MasterRequest::OpenSession {
            previous: previous.map(|line| line.session.id),
            description: self.description.clone(),
            open: self.link.opens.for_session(),
            answered: previous.map_or_else(Vec::new, |line| self.link.unsynced.lock().claims(line.session.id)),
            writing,
        };
        let asked = self.link.runtime.now();
        let reply = self.link.try_once(&greeting, &request).await.map(|answer| answer.reply);
        let (id, cluster, root, now, incarnation, unknown, lease_ms) = match reply {
            Ok(MasterReply::Session { session, cluster, root, now, incarnation, unknown, lease_ms, is_alone }) => {
                self.link.cache.note_alone(is_alone);
                (session, cluster, root, now, incarnation, unknown, lease_ms)
            }
            Ok(_) | Err(TryError::NoAnswer | TryError::Unsendable(_) | TryError::Garbled(_)) => return Err(EstablishError::NoAnswer),
            Err(TryError::Refused(error)) => return Err(EstablishError::Refused(error)),
        };
        self.link.note_time(now);
        let lease_time = Duration::from_millis(lease_ms);
        let session = match previous {
            Some(previous) if previous.session.id == id => {
                self.assert_locks(&greeting, id).await?;
                self.tell_lost(self.link.unsynced.lock().lose(id, &unknown));
                Arc::clone(&previous.session)
            }
            Some(previous) => {
                tracing::warn!("the master has ended session {}; going on as {id}", previous.session.id);
                self.link.counts.sessions_lost.add(1);
                self.tell_lost(self.link.unsynced.lock().lose_session(previous.session.id, incarnation));
                let places = self.link.locks.lose_all();
                if places > 0 {
                    tracing::error!("the locks of {places} files went with it: whoever held one gets EIO until the file is closed");
                }
                Session::new(id, lease_time)
            }
            None => Session::new(id, lease_time),
        };
        if let (Some(previous), Some(stake)) = (previous, self.link.stake.get()) {
            stake.came_back(previous.session.id != id, previous.master != incarnation);
        }
        self.link.cache.renewed(asked.plus(lease_time));
        let line = Line::new(Arc::clone(connection), session, incarnation, self.link.runtime.now());
        Ok(Welcome { line, root, cluster })
    }

    /// Says what is locked, in case that this is another life of the master.
    async fn assert_locks(&self, greeting: &Line, session: SessionId) -> Result<(), EstablishError> {
        let claims = self.link.locks.all();
        let mut pages = claims.chunks(LOCKS_ASSERTED_MAX).peekable();
        let mut left = true;
        while left {
            let claims = pages.next().unwrap_or_default().to_vec();
            left = pages.peek().is_some();
            match self
                .link
                .try_once(greeting, &MasterRequest::AssertLocks { session, claims, last: !left })
                .await
                .map(|answer| answer.reply)
            {
                Ok(MasterReply::LocksAsserted { refused }) => self.lose_locks(&refused),
                Ok(_) | Err(TryError::NoAnswer | TryError::Unsendable(_) | TryError::Garbled(_)) => return Err(EstablishError::NoAnswer),
                Err(TryError::Refused(error)) => return Err(EstablishError::Refused(error)),
            }
        }
        Ok(())
    }

    fn lose_locks(&self, refused: &[LockClaim]) {
        for claim in refused {
            tracing::error!("a lock of inode {} was lost to somebody else: whoever held it gets EIO until the file is closed", claim.ino);
            self.link.locks.lose(LockPlace::of(claim));
        }
    }

    fn tell_lost(&self, changes: usize) {
        if changes > 0 {
            tracing::error!("the master does not know the last {changes} changes that were not synced: an fsync of their files gives EIO");
        }
    }

    /// Renews the session, and answers recalls, until the line fails.
    async fn attend(&self, line: &Arc<Line>) -> LineFailure {
        let recalls = serve_recalls(Arc::clone(&self.link), Arc::clone(&line.connection));
        let _recalls = self.link.runtime.spawn("recalls", recalls).abort_on_drop();
        loop {
            let pause = self.link.runtime.sleep(SESSION_RENEW_INTERVAL.min(line.session.lease_time() / RENEWALS_PER_LEASE));
            tokio::select! {
                biased;
                failure = line.wait_for_failure() => return failure,
                () = line.connection.closed() => return LineFailure::Broken,
                () = self.link.renew_now.notified() => {}
                () = pause => {}
            }
            self.renew(line).await;
        }
    }

    async fn renew(&self, line: &Arc<Line>) {
        let closed = self.link.opens.begin_telling(CLOSED_PER_RENEWAL_MAX);
        let request = MasterRequest::Renew { session: line.session.id, closed };
        let mut is_heard = false;
        let mark = self.link.mark();
        match self.link.try_once(line, &request).await.map(|answer| answer.reply) {
            Ok(MasterReply::Renewed { epoch, now, is_alone }) => {
                self.link.cache.note_alone(is_alone);
                is_heard = true;
                self.link.note_durable(mark);
                self.link.note_time(now);
                self.link.note_epoch(epoch);
            }
            Err(TryError::Refused(MasterError::NoSuchSession(_))) => line.fail(LineFailure::SessionGone),
            Err(TryError::NoAnswer) => {}
            Ok(_) | Err(TryError::Refused(_) | TryError::Unsendable(_) | TryError::Garbled(_)) => {
                tracing::warn!("the master did not renew session {}", line.session.id);
            }
        }
        self.link.opens.told(is_heard);
        if is_heard && self.link.opens.closed_count() > CLOSED_PER_RENEWAL_MAX {
            self.link.renew_soon();
        }
    }
}

/// Recalls that are being answered, of one connection, by number: whoever asks again waits for the same.
type Recalls = BTreeMap<u64, Shared<BoxFuture<'static, ()>>>;

/// Answers the master's recalls until the connection is gone.
async fn serve_recalls(link: Arc<Link>, connection: Arc<dyn Connection>) {
    let mut under_way = Recalls::new();
    while let Some(call) = connection.accept().await {
        match decode::<ClientRequest>("a request of the master", &call.request.head) {
            Ok(ClientRequest::Recall { number, leases }) => {
                under_way.retain(|_, done| done.peek().is_none());
                let done = under_way.entry(number).or_insert_with(|| give_back(&link, leases)).clone();
                link.runtime.spawn("recall", answer_recall(link.runtime.clone(), done, call));
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// Gives leases back, whether or not anybody waits for it. Ready when it is done.
fn give_back(link: &Arc<Link>, leases: Vec<RecalledLease>) -> Shared<BoxFuture<'static, ()>> {
    link.counts.recalls.add(leases.len() as u64);
    let giving_back = link.stake.get().map(|stake| stake.recalled(leases));
    let (sender, done) = oneshot::channel();
    link.runtime.spawn("give back", async move {
        if let Some(giving_back) = giving_back {
            giving_back.await;
        }
        // Whoever asked may have been told that it takes its time.
        let _ = sender.send(());
    });
    let wait: BoxFuture<'static, ()> = Box::pin(async move { done.await.unwrap_or_default() });
    wait.shared()
}

/// Says that leases are given back, or after a while that this takes its time.
async fn answer_recall(runtime: Runtime, done: Shared<BoxFuture<'static, ()>>, call: IncomingCall) {
    let is_done = is_planted(Bug::RecallAnsweredFirst) || runtime.timeout(RECALL_ANSWER_LIMIT, done).await.is_ok();
    let answer = if is_done { ClientReply::GivenBack } else { ClientReply::Busy };
    call.reply.send(Message { head: encode(&answer).into(), body: Bytes::new() }).await;
}

/// The wildcard address, port 0, of the family in which the peer is reached.
pub fn any_port(peer: IpAddr) -> SocketAddr {
    let address = match peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address, 0)
}

fn describe(failure: LineFailure) -> &'static str {
    match failure {
        LineFailure::Broken => "the connection broke or fell silent",
        LineFailure::SessionGone => "it does not know the session any more",
    }
}
