//! Requests that are sent until they are answered.

use super::backoff::Backoff;
use super::lock_book::LockBook;
use super::open_inodes::OpenInodes;
use super::session::{Contact, Line, LineFailure, Session};
use super::unsynced::Unsynced;
use crate::cache::{Leased, MetadataCache};
use crate::counters::Counts;
use crate::limits::{LOCK_WAITS_MAX, MUTATIONS_IN_FLIGHT_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, TRY_LIMIT};
use bytes::Bytes;
use cairn_common::codec::{decode, encode};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, MapEpoch, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::lease::RecalledLease;
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{CallError, Message};
use cairn_runtime::task::BoxFuture;
use parking_lot::Mutex;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};

/// The way to the master, for everybody in the client.
pub struct Link {
    pub(super) runtime: Runtime,
    /// Patience of a caller.
    master_wait: Duration,
    pub(super) contact: watch::Sender<Contact>,
    pub(super) opens: Arc<OpenInodes>,
    pub(super) counts: Arc<Counts>,
    /// Wall time of the master as it last told it.
    ticket: watch::Sender<Timestamp>,
    /// Newest map epoch that the master spoke of.
    epoch: watch::Sender<MapEpoch>,
    /// Counts requests that make something durable, and those who ask for it: which came first.
    ticks: AtomicU64,
    /// Everything answered before this tick is on stable storage.
    durable: AtomicU64,
    /// One permit per mutation that was sent and not answered.
    pub(super) mutations: Arc<Semaphore>,
    /// Rung to have the session renewed now.
    pub(super) renew_now: Notify,
    pub(super) unsynced: Mutex<Unsynced>,
    pub(super) locks: Arc<LockBook>,
    /// One permit per lock that waits at the master.
    pub(super) lock_waits: Semaphore,
    pub(super) cache: Arc<MetadataCache>,
    /// Those whose data and caches depend on the session.
    pub(super) stake: OnceLock<Arc<dyn Stake>>,
}

/// Whoever has something to lose with the session or its leases.
pub trait Stake: Send + Sync {
    /// Contact is lost: nothing is believed any more. The inodes whose data is held back here.
    fn contact_lost(&self) -> BoxFuture<'static, Vec<Ino>>;
    /// There is contact again. `has_restarted`: with a master that may have forgotten what it had answered last.
    fn came_back(&self, is_new_session: bool, has_restarted: bool);
    /// Ready when these leases are given back.
    fn recalled(&self, leases: Vec<RecalledLease>) -> BoxFuture<'static, ()>;
}

/// A reply, and the leases that came with it.
pub struct Answer {
    pub reply: MasterReply,
    pub leased: Leased,
}

/// Why a request has no answer that the caller can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Refused(MasterError),
    #[error("the master did not answer for {0:?}")]
    Away(Duration),
    #[error("the session ended while the request was under way; whether it was done is unknown")]
    Unknown,
    #[error("the session ended before the request was done")]
    SessionGone,
    #[error("the file system was shut down")]
    Closed,
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
    #[error("the master's answer makes no sense: {0}")]
    Garbled(String),
}

impl AskError {
    /// What the application is told. Everything but a plain answer is logged here, once, with its request.
    pub fn to_fs(&self, request: &str) -> FsError {
        match self {
            AskError::Refused(MasterError::Fs(error)) => return *error,
            AskError::Closed => {}
            other => tracing::error!("{request} fails: {other}"),
        }
        match self {
            AskError::Refused(MasterError::Denied { .. }) => FsError::AccessDenied,
            _ => FsError::Io,
        }
    }

    pub fn unexpected(reply: &MasterReply) -> Self {
        AskError::Garbled(format!("{reply:?}").chars().take(200).collect())
    }
}

/// Why one try brought no reply.
#[derive(Debug)]
pub(super) enum TryError {
    Refused(MasterError),
    /// Whether the master did it is unknown.
    NoAnswer,
    /// It was not sent and never can be.
    Unsendable(String),
    Garbled(String),
}

impl Link {
    pub(super) fn new(runtime: Runtime, master_wait: Duration, cache: Arc<MetadataCache>, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            master_wait,
            contact: watch::Sender::new(Contact::Away),
            opens: Arc::default(),
            counts,
            ticket: watch::Sender::new(Timestamp::EPOCH),
            epoch: watch::Sender::new(MapEpoch(0)),
            ticks: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            mutations: Arc::new(Semaphore::new(MUTATIONS_IN_FLIGHT_MAX)),
            renew_now: Notify::new(),
            unsynced: Mutex::default(),
            locks: Arc::default(),
            lock_waits: Semaphore::new(LOCK_WAITS_MAX),
            cache,
            stake: OnceLock::new(),
        })
    }

    pub fn opens(&self) -> &Arc<OpenInodes> {
        &self.opens
    }

    pub fn lock_book(&self) -> &Arc<LockBook> {
        &self.locks
    }

    /// The newest time of the master that we know.
    pub fn ticket(&self) -> Timestamp {
        *self.ticket.borrow()
    }

    /// Waits, at most for `limit`, for a newer time of the master.
    pub async fn ticket_after(&self, old: Timestamp, limit: Duration) -> Option<Timestamp> {
        let mut tickets = self.ticket.subscribe();
        let newer = self.runtime.timeout(limit, tickets.wait_for(|ticket| *ticket > old)).await;
        newer.ok()?.ok().map(|ticket| *ticket)
    }

    /// Follows the map epochs that the master speaks of.
    pub fn epochs(&self) -> watch::Receiver<MapEpoch> {
        self.epoch.subscribe()
    }

    /// Has the session renewed soon, which brings a fresh ticket and tells what was closed.
    pub fn renew_soon(&self) {
        self.renew_now.notify_one();
    }

    /// A point in the order of this client's requests.
    pub fn mark(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Something that makes everything before it durable was asked for at `mark`, and was done.
    pub(super) fn note_durable(&self, mark: u64) {
        self.durable.fetch_max(mark, Ordering::Relaxed);
        self.unsynced.lock().synced(mark);
    }

    /// Whether the master has lost an answered change of this inode, or of its entries. Told once, to an fsync.
    pub fn take_lost(&self, ino: Ino) -> bool {
        self.unsynced.lock().take_lost(ino)
    }

    /// Makes everything durable that the master answered before `mark`, unless that has happened since.
    pub async fn sync_log_since(&self, mark: u64) -> Result<(), AskError> {
        if self.durable.load(Ordering::Relaxed) > mark {
            return Ok(());
        }
        let begun = self.mark();
        match self.ask(MasterRequest::SyncLog).await? {
            MasterReply::LogSynced => {
                self.note_durable(begun);
                Ok(())
            }
            other => Err(AskError::unexpected(&other)),
        }
    }

    pub(super) fn note_time(&self, now: Timestamp) {
        self.ticket.send_if_modified(|known| {
            let newer = now > *known;
            *known = now.max(*known);
            newer
        });
    }

    pub(super) fn note_epoch(&self, epoch: MapEpoch) {
        self.epoch.send_if_modified(|known| {
            let newer = epoch > *known;
            *known = epoch.max(*known);
            newer
        });
    }

    /// A request without a session, sent until it is answered or the caller's patience ends.
    pub async fn ask(&self, request: MasterRequest) -> Result<MasterReply, AskError> {
        self.ask_for_leases(|_| request.clone()).await.map(|answer| answer.reply)
    }

    /// A request that names the session, whichever it is by then. It must do no harm when done twice.
    pub async fn ask_in_session(&self, make: impl Fn(SessionId) -> MasterRequest + Send) -> Result<MasterReply, AskError> {
        self.ask_for_leases(make).await.map(|answer| answer.reply)
    }

    /// Whose the leases shall be that are recalled. To be called once, before any are asked for.
    pub fn is_at_stake_for(&self, stake: Arc<dyn Stake>) {
        // There is one file system for each link.
        let _ = self.stake.set(stake);
    }

    /// The session that is open, if there is contact.
    pub fn session(&self) -> Option<SessionId> {
        self.present_line().map(|line| line.session.id)
    }

    /// The same, with the leases that come with the reply.
    pub async fn ask_for_leases(&self, make: impl Fn(SessionId) -> MasterRequest + Send) -> Result<Answer, AskError> {
        self.ask_while(move |session| Some(make(session))).await
    }

    /// A request that only one session can make, sent until it is answered; `Unknown` once that session is gone.
    pub(super) async fn ask_of_session(&self, session: &Session, make: impl Fn() -> MasterRequest + Send) -> Result<MasterReply, AskError> {
        let id = session.id;
        self.ask_while(move |present| (present == id).then(&make)).await.map(|answer| answer.reply)
    }

    /// Asks until there is an answer, or until `make` has nothing to ask in the present session.
    async fn ask_while(&self, make: impl Fn(SessionId) -> Option<MasterRequest> + Send) -> Result<Answer, AskError> {
        let deadline = self.deadline();
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        loop {
            let line = self.line(deadline).await?;
            let request = make(line.session.id).ok_or(AskError::Unknown)?;
            match self.try_once(&line, &request).await {
                Ok(answer) => return Ok(answer),
                Err(TryError::Refused(MasterError::NoSuchSession(_))) => line.fail(LineFailure::SessionGone),
                Err(TryError::Refused(MasterError::Unavailable(reason))) => tracing::debug!("the master asks to come again: {reason}"),
                Err(TryError::NoAnswer) => {}
                Err(TryError::Refused(error)) => return Err(AskError::Refused(error)),
                Err(TryError::Unsendable(reason)) => return Err(AskError::Unsendable(reason)),
                Err(TryError::Garbled(reason)) => return Err(AskError::Garbled(reason)),
            }
            self.counts.master_retries.add(1);
            let pause = self.runtime.sleep(backoff.pause());
            self.until(deadline, pause).await?;
        }
    }

    /// One try within `limit`, for what is not worth waiting for. `None` without an answer.
    pub async fn ask_quickly(&self, limit: Duration, request: &MasterRequest) -> Option<MasterReply> {
        let deadline = self.runtime.now().plus(limit);
        let line = self.present_line()?;
        self.until(deadline, self.try_once(&line, request)).await.ok()?.ok().map(|answer| answer.reply)
    }

    pub(super) fn deadline(&self) -> Moment {
        self.runtime.now().plus(self.master_wait)
    }

    /// Waits for work, at most until the deadline.
    pub(super) async fn until<T>(&self, deadline: Moment, work: impl Future<Output = T>) -> Result<T, AskError> {
        let limit = deadline.since(self.runtime.now());
        self.runtime.timeout(limit, work).await.map_err(|_| AskError::Away(self.master_wait))
    }

    /// A line that works as far as we know; waits for one until the deadline.
    pub(super) async fn line(&self, deadline: Moment) -> Result<Arc<Line>, AskError> {
        if let Some(line) = self.present_line() {
            return Ok(line);
        }
        self.until(deadline, self.next_line()).await?
    }

    /// Waits until the master can be asked, as far as we know.
    pub async fn reach(&self) -> Result<Arc<Line>, AskError> {
        self.line(self.deadline()).await
    }

    fn present_line(&self) -> Option<Arc<Line>> {
        match &*self.contact.borrow() {
            Contact::Here(line) if line.failure().is_none() => Some(Arc::clone(line)),
            _ => None,
        }
    }

    /// Waits for a line as long as it takes; fails only when the file system is shut down.
    pub(super) async fn next_line(&self) -> Result<Arc<Line>, AskError> {
        let mut contact = self.contact.subscribe();
        loop {
            match &*contact.borrow_and_update() {
                Contact::Here(line) if line.failure().is_none() => return Ok(Arc::clone(line)),
                Contact::Here(_) | Contact::Away => {}
                Contact::Closed => return Err(AskError::Closed),
            }
            if contact.changed().await.is_err() {
                return Err(AskError::Closed);
            }
        }
    }

    /// Sends a request once over a line. A line that stays silent is reported to the keeper.
    pub(super) async fn try_once(&self, line: &Line, request: &MasterRequest) -> Result<Answer, TryError> {
        self.counts.master_requests.add(1);
        let started = self.runtime.now();
        let message = Message { head: encode(request).into(), body: Bytes::new() };
        let message = match self.runtime.timeout(TRY_LIMIT, line.connection.call(message)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(CallError::ConnectionLost(_))) => {
                line.fail(LineFailure::Broken);
                return Err(TryError::NoAnswer);
            }
            Ok(Err(CallError::Dropped(_))) => return Err(TryError::NoAnswer),
            Ok(Err(CallError::TooLarge(reason))) => return Err(TryError::Unsendable(reason)),
            Err(_) => {
                // Others were answered meanwhile: the line is fine, only this answer takes long.
                if !line.heard_since(started) {
                    line.fail(LineFailure::Broken);
                }
                return Err(TryError::NoAnswer);
            }
        };
        let answered = self.runtime.now();
        line.note_answer(answered);
        self.counts.master_seconds.record(answered.since(started));
        match decode::<MasterAnswer>("an answer of the master", &message.head) {
            // Of a session that is gone nothing is good any more.
            Ok(Err(error @ MasterError::NoSuchSession(_))) => Err(TryError::Refused(error)),
            Ok(answer) => {
                self.cache.renewed(started.plus(line.session.lease_time()));
                let reply = answer.map_err(TryError::Refused)?;
                let grants = if message.body.is_empty() { Ok(Vec::new()) } else { decode("leases", &message.body) };
                match grants {
                    Ok(grants) => Ok(Answer { reply, leased: Leased::new(line.session.id, grants) }),
                    Err(error) => Err(TryError::Garbled(error.to_string())),
                }
            }
            Err(error) => Err(TryError::Garbled(error.to_string())),
        }
    }
}
