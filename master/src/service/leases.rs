//! Leases at work: what stands in the way of a request is recalled, and the request waits; clients that do not answer are fenced.
//!
//! | a request | waits for | and then |
//! |---|---|---|
//! | looks at a regular file | its writer to flush | is answered, with a read lease unless somebody waits to change the inode |
//! | looks at anything else | nobody | the same |
//! | changes inodes | all others to give up their leases of them | is done, in the very turn in which nothing stands in its way |
//! | wants a write lease | the same | gets it |
//!
//! Between the look at the table and the answer or command that rests on it there is no await.

use super::connections::Caller;
use super::master::Master;
use crate::lease::{LeaseTable, Obstacle, Use};
use cairn_common::attributes::FileKind;
use cairn_common::codec::{decode, encode};
use cairn_common::ids::{Ino, SessionId};
use cairn_common::limits::{RECALLED_LEASES_MAX, SESSION_LEASES_MAX, lease_end};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::lease::{ClientReply, ClientRequest, Grant, LeaseMode, RecalledLease};
use cairn_common::wire::master::{MasterError, MasterReply, Mutation, MutationReply};
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{Connection, Message};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

/// One try of a recall. A flush may take longer: then the client is asked again, which does no harm.
const RECALL_TRY_LIMIT: Duration = Duration::from_secs(3);
/// The part of the fencing time that even a client has which was silent for longer than all of it.
const CHANCE: u32 = 5;
/// So many fencing times a client may take that says it is at it: its chunkservers may be away, and it gives up what it can't store long before.
const BUSY_PATIENCE: u32 = 6;
/// Between two tries.
const RECALL_PAUSE: Duration = Duration::from_millis(50);
/// Requests of one connection that may wait for recalls. Others are asked to come again, so that there is always room for the commits that
/// others wait for.
const WAITING_CALLS_MAX: usize = 128;

/// The table, and the ways to those who hold leases.
pub struct Leases {
    pub table: Mutex<LeaseTable>,
    /// Rung when something was given back.
    changed: Notify,
    /// The connection over which each session was heard last.
    lines: Mutex<BTreeMap<SessionId, Arc<dyn Connection>>>,
    wanted: Mutex<BTreeMap<SessionId, Vec<Recall>>>,
    /// Rung when `wanted` is not empty.
    recalls: Notify,
}

/// One lease that is to be given back, and the number of its recall in the table.
#[derive(Debug, Clone, Copy)]
struct Recall {
    lease: RecalledLease,
    number: u64,
}

/// Who looks, and what it is granted.
pub struct Look<'a> {
    pub caller: &'a Caller,
    pub grants: &'a mut Vec<Grant>,
}

/// Counts a request that waits.
struct Waiting<'a>(&'a Caller);

impl<'a> Waiting<'a> {
    fn begin(caller: &'a Caller) -> Result<Self, MasterError> {
        let waiting = Self(caller);
        if caller.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_CALLS_MAX {
            return Err(MasterError::Unavailable("too many requests of this client wait for others".to_owned()));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps new readers away from inodes that are to be changed.
pub struct Wish<'a> {
    leases: &'a Leases,
    inodes: Vec<Ino>,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let mut table = self.leases.table.lock();
        self.inodes.iter().for_each(|ino| table.satisfied(*ino));
    }
}

impl Leases {
    /// At the start of the master: `known` are the sessions of the state.
    pub fn new(known: impl IntoIterator<Item = SessionId>) -> Self {
        let table = if is_planted(Bug::RecoveryNotAwaited) { LeaseTable::default() } else { LeaseTable::awaiting(known) };
        Self { table: Mutex::new(table), changed: Notify::new(), lines: Mutex::default(), wanted: Mutex::default(), recalls: Notify::new() }
    }

    /// A session was opened or has come back. `false` if what it claims to hold can't be.
    pub fn began(&self, session: SessionId, line: &Arc<dyn Connection>, writing: &[Ino]) -> bool {
        let is_possible = self.table.lock().came_back(session, writing);
        if is_possible {
            self.lines.lock().insert(session, Arc::clone(line));
            self.changed.notify_waiters();
        }
        is_possible
    }

    /// A session is gone, and so long ago that its client believes in no lease any more.
    pub fn ended(&self, session: SessionId) {
        self.table.lock().ended(session);
        self.lines.lock().remove(&session);
        self.wanted.lock().remove(&session);
        self.changed.notify_waiters();
    }

    fn given_back(&self, session: SessionId, recalls: &[Recall]) {
        let mut table = self.table.lock();
        recalls.iter().for_each(|recall| table.given_back(session, recall.lease, recall.number));
        drop(table);
        self.changed.notify_waiters();
    }

    /// Has everything recalled that is in the way and not being recalled yet.
    fn ask_for(&self, obstacles: &[Obstacle]) {
        let mut table = self.table.lock();
        let mut wanted = self.wanted.lock();
        for obstacle in obstacles {
            match *obstacle {
                Obstacle::Held { session, lease } => {
                    if let Some(number) = table.begin_recall(session, lease) {
                        wanted.entry(session).or_default().push(Recall { lease, number });
                    }
                }
                Obstacle::Awaited { session } => {
                    if table.begin_wait(session) {
                        wanted.entry(session).or_default();
                    }
                }
            }
        }
        if !wanted.is_empty() {
            self.recalls.notify_one();
        }
    }

    fn take_wanted(&self) -> BTreeMap<SessionId, Vec<Recall>> {
        std::mem::take(&mut *self.wanted.lock())
    }

    fn wish(&self, inodes: Vec<Ino>) -> Wish<'_> {
        let mut table = self.table.lock();
        inodes.iter().for_each(|ino| table.want(*ino));
        drop(table);
        Wish { leases: self, inodes }
    }
}

impl Master {
    /// Looks something up that is about `inodes`: once no other session holds back changes of the regular files among them.
    pub(super) async fn look_at<T>(
        &self,
        look: &mut Look<'_>,
        find: impl Fn(&dyn crate::store::tables::Reader) -> crate::state::Attempt<T> + Send,
        files: impl Fn(&T) -> Vec<Ino> + Send,
    ) -> Result<T, MasterError> {
        let session = look.caller.session().unwrap_or_default();
        loop {
            let found = self.read(&find)?;
            let uses: Vec<(Ino, Use)> = files(&found).into_iter().map(|ino| (ino, Use::Look)).collect();
            let obstacles = self.obstacles(session, &uses);
            if obstacles.is_empty() {
                return Ok(found);
            }
            self.clear_for_look(look, obstacles).await?;
        }
    }

    /// Has obstacles removed, and waits until some are. Look again then.
    pub(super) async fn clear_for_look(&self, look: &Look<'_>, obstacles: Vec<Obstacle>) -> Result<(), MasterError> {
        let _waiting = Waiting::begin(look.caller)?;
        self.clear(obstacles).await;
        // Who was fenced meanwhile gets no answer that it could take for a sign of life.
        match look.caller.session() {
            Some(session) => self.hear(look.caller, session),
            None => Ok(()),
        }
    }

    /// What stands in the way of uses of inodes.
    pub(super) fn obstacles(&self, session: SessionId, uses: &[(Ino, Use)]) -> Vec<Obstacle> {
        let table = self.leases.table.lock();
        let mut found = Vec::new();
        if !table.is_alone(session) {
            uses.iter().for_each(|(ino, intent)| table.obstacles(session, *ino, *intent, &mut found));
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    async fn clear(&self, obstacles: Vec<Obstacle>) {
        let mut rung = std::pin::pin!(self.leases.changed.notified());
        rung.as_mut().enable();
        self.leases.ask_for(&obstacles);
        rung.await;
    }

    /// `clear` for a change: keeps new readers away meanwhile.
    pub(super) async fn clear_for_change<'a>(
        &'a self,
        caller: &Caller,
        obstacles: Vec<Obstacle>,
        wish: &mut Option<Wish<'a>>,
    ) -> Result<(), MasterError> {
        let _waiting = Waiting::begin(caller)?;
        let inodes = obstacles.iter().filter_map(|obstacle| match obstacle {
            Obstacle::Held { lease, .. } => Some(lease.ino),
            Obstacle::Awaited { .. } => None,
        });
        let next = self.leases.wish(inodes.collect());
        // The new one first, so that nobody slips in between.
        drop(wish.replace(next));
        self.clear(obstacles).await;
        Ok(())
    }

    /// A read lease, if the caller has a session and nobody waits to change the inode.
    pub(super) fn grant(&self, look: &mut Look<'_>, ino: Ino) {
        if let Some(session) = look.caller.session()
            && let Some(mode) = self.leases.table.lock().grant(session, ino)
        {
            look.grants.push(Grant { ino, mode });
        }
    }

    /// The lease that is wanted, as far as it takes nothing from others.
    pub(super) fn grant_at_most(&self, look: &mut Look<'_>, ino: Ino, wanted: LeaseMode) {
        let Some(session) = look.caller.session() else { return };
        let mut table = self.leases.table.lock();
        let granted = match wanted {
            LeaseMode::Read => table.grant(session, ino),
            LeaseMode::Write => table.seize(session, ino),
        };
        look.grants.extend(granted.map(|mode| Grant { ino, mode }));
    }

    /// What comes with the answer to a mutation: leases of the directories that it has changed, and of the inode that it tells about.
    pub(super) fn grant_changed(&self, look: &mut Look<'_>, mutation: &Mutation, touched: &[(Ino, Use)], reply: &MutationReply) {
        let is_of_content = matches!(
            mutation,
            Mutation::Commit { .. } | Mutation::CommitSynced { .. } | Mutation::Compact { .. } | Mutation::CopyRange { .. }
        );
        if is_of_content {
            return;
        }
        let about = match reply {
            MutationReply::Inode(attributes) | MutationReply::Removed(attributes) => Some(attributes),
            _ => None,
        };
        for (ino, intent) in touched {
            if *intent == Use::Change && about.is_none_or(|attributes| attributes.ino != *ino) {
                self.grant(look, *ino);
            }
        }
        let Some(attributes) = about else { return };
        let is_made = matches!(mutation, Mutation::Create { open: true, .. } | Mutation::CreateUnnamed { .. });
        let mode = if is_made && attributes.kind == FileKind::Regular { LeaseMode::Write } else { LeaseMode::Read };
        self.grant_at_most(look, attributes.ino, mode);
    }

    /// `MasterRequest::Lease`.
    pub(super) async fn lease(
        &self,
        look: &mut Look<'_>,
        session: SessionId,
        ino: Ino,
        wanted: LeaseMode,
    ) -> Result<MasterReply, MasterError> {
        self.hear(look.caller, session)?;
        if wanted == LeaseMode::Read {
            let (attributes, extents) = self.look_at(look, |reader| super::namespace::opening(reader, ino), |_| vec![ino]).await?;
            self.grant(look, ino);
            return Ok(MasterReply::Opened { attributes, extents });
        }
        let mut wish = None;
        loop {
            let mut obstacles = Vec::new();
            self.leases.table.lock().obstacles_to_seizing(session, ino, &mut obstacles);
            if obstacles.is_empty() {
                let (attributes, extents) = self.read(|reader| super::namespace::opening(reader, ino))?;
                self.grant_at_most(look, ino, LeaseMode::Write);
                return Ok(MasterReply::Opened { attributes, extents });
            }
            self.clear_for_change(look.caller, obstacles, &mut wish).await?;
            self.hear(look.caller, session)?;
        }
    }

    /// Takes the oldest leases of a session back if it has too many.
    pub(super) fn bound_leases(&self, session: SessionId) {
        let oldest = self.leases.table.lock().excess(session, SESSION_LEASES_MAX, RECALLED_LEASES_MAX);
        let lease = |ino| Obstacle::Held { session, lease: RecalledLease { ino, keep: None } };
        let obstacles: Vec<Obstacle> = oldest.into_iter().map(lease).collect();
        if !obstacles.is_empty() {
            self.leases.ask_for(&obstacles);
        }
    }

    /// When a client that was heard then believes in no lease any more.
    pub(super) fn end_of_leases(&self, heard: Moment) -> Moment {
        heard.plus(lease_end(self.settings.fencing_time))
    }

    /// When a session was heard last; `None` if it is unknown or ending.
    pub(super) fn heard(&self, session: SessionId) -> Option<Moment> {
        let sessions = self.sessions.lock();
        match sessions.sight(session) {
            Some(sight) => Some(sight.heard),
            None => sessions.is_absent(session).then_some(self.started),
        }
    }

    /// Ends a session that does not give back what others need, and lets them go ahead once its client believes in its leases no more.
    async fn fence(&self, session: SessionId) -> Result<(), MasterError> {
        tracing::warn!(%session, "a client does not give back its leases, and is fenced");
        self.end_session(session).await
    }
}

/// Sends recalls for ever.
pub async fn recall_leases(master: Arc<Master>) {
    loop {
        master.leases.recalls.notified().await;
        for (session, mut recalls) in master.leases.take_wanted() {
            loop {
                let batch: Vec<Recall> = recalls.drain(..recalls.len().min(RECALLED_LEASES_MAX)).collect();
                master.runtime.spawn("recall", recall_from(master.clone(), session, batch));
                if recalls.is_empty() {
                    break;
                }
            }
        }
    }
}

/// Asks one client for leases until it has given them back, or has been fenced. Without leases: waits for a session from before the restart.
async fn recall_from(master: Arc<Master>, session: SessionId, recalls: Vec<Recall>) {
    let (asked, limit) = (master.runtime.now(), master.settings.fencing_time);
    // Each recall is in one batch only.
    let number = recalls.first().map_or(0, |recall| recall.number);
    let head = encode(&ClientRequest::Recall { number, leases: recalls.iter().map(|recall| recall.lease).collect() });
    // When it said last that it is at it.
    let mut was_busy = None;
    loop {
        if recalls.is_empty() && !master.leases.table.lock().is_awaited(session) {
            return;
        }
        // Whoever ends the session takes its leases back.
        let Some(heard) = master.heard(session) else { return };
        // One that was silent for long may be about to come back.
        let silent_at = heard.min(asked).plus(limit).max(asked.plus(limit / CHANCE));
        let spared_until = was_busy.map_or(silent_at, |said: Moment| said.plus(limit).min(asked.plus(limit * BUSY_PATIENCE)));
        let (now, due) = (master.runtime.now(), silent_at.max(spared_until));
        if now >= due {
            match master.fence(session).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%session, "fencing a client: {error}"),
            }
        }
        let line = master.leases.lines.lock().get(&session).cloned();
        if let Some(line) = line {
            let call = line.call(Message { head: head.clone().into(), body: bytes::Bytes::new() });
            let patience = RECALL_TRY_LIMIT.min(limit / 3).min(due.since(now));
            if let Ok(Ok(reply)) = master.runtime.timeout(patience, call).await
                && let Ok(answer) = decode("an answer to a recall", &reply.head)
            {
                match answer {
                    ClientReply::GivenBack => return master.leases.given_back(session, &recalls),
                    ClientReply::Busy => was_busy = Some(master.runtime.now()),
                }
            }
        }
        master.runtime.sleep(RECALL_PAUSE).await;
    }
}
