//! Sessions, and everything that clients ask about files.
//!
//! The orphan rule: an inode whose last name goes lives on for those who have it open. So a mutation that may take a last name
//! carries the holders as the session table knows them in that very turn, and an opening is noted in the turn that grants it.

use super::connections::Caller;
use super::leases::Look;
use super::master::Master;
use crate::lease::Use;
use crate::state::{Attempt, Command, Failure, Outcome, read};
use crate::store::tables::Reader;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::{DirCookie, Ino, Sequence, SessionId};
use cairn_common::limits::{DIRECTORY_PAGE_ENTRIES_MAX, EXTENT_PAGE_MAX, lease_time};
use cairn_common::wire::lease::LeaseMode;
use cairn_common::wire::master::{MasterError, MasterReply, Mutation, MutationReply, SequenceRange};
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Extents that come with an open; a reader asks for more of a larger file as it needs them.
const OPEN_EXTENTS_MAX: u32 = 512;

/// What a client is told of an inode that it opens.
pub(super) fn opening(reader: &dyn Reader, ino: Ino) -> Attempt<(Attributes, ExtentPage)> {
    let attributes = read::attributes(reader, ino)?;
    let extents = match attributes.kind {
        FileKind::Regular => read::extents(reader, ino, 0, u64::MAX, OPEN_EXTENTS_MAX)?,
        _ => ExtentPage::default(),
    };
    Ok((attributes, extents))
}

impl Master {
    pub(super) async fn open_session(&self, caller: &Caller, greeting: Greeting) -> Result<MasterReply, MasterError> {
        let Greeting { previous, description, open, answered, writing } = greeting;
        let answered: &[SequenceRange] = &answered;
        // Before the session can change anything again.
        let unknown = match previous {
            Some(previous) => self.look(|reader| read::unknown_changes(reader, previous, answered))?,
            None => Vec::new(),
        };
        let make = |master: &Self| {
            let previous = previous.filter(|session| master.sessions.lock().may_resume(*session, caller.name()));
            Ok(Command::OpenSession { previous, description: description.clone(), open: open.clone() })
        };
        let begin = |master: &Self, outcome| {
            let Outcome::Session { session, resumed, cluster, root } = outcome else { return Err(unexpected()) };
            let (now, open) = (master.runtime.now(), open.iter().copied());
            // What a new session has written before belongs to one that is gone: its client has to ask for the lease anew.
            let writing: &[Ino] = if resumed { &writing } else { &[] };
            let is_possible = master.leases.began(session, &caller.connection, writing);
            master.sessions.lock().begin(session, caller.name(), caller.address(), now, open);
            Ok((session, resumed, is_possible, cluster, root))
        };
        let (begun, index) = self.perform(make, begin).await?;
        let (session, resumed, is_possible, cluster, root) = begun?;
        if !is_possible {
            tracing::error!(%session, "a client claims leases that it can't have held; its session ends");
            self.end_session(session).await?;
            return Err(MasterError::Unavailable("the session had to be ended".to_owned()));
        }
        caller.note_session(session);
        if !resumed && !open.is_empty() {
            // What it has open may have lost its name; those files that others hold as well are still there.
            self.submit(Command::Hold { session, inodes: open }).await?;
        }
        // A session that a power loss takes back could be given to another client.
        self.synced(index).await?;
        let lease_ms = lease_time(self.settings.fencing_time).as_millis() as u64;
        let (now, incarnation, is_alone) = (self.time(), self.incarnation, self.leases.table.lock().is_alone(session));
        Ok(MasterReply::Session { session, cluster, root, now, incarnation, unknown, lease_ms, is_alone })
    }

    pub(super) async fn renew(&self, caller: &Caller, session: SessionId, closed: Vec<Ino>) -> Result<MasterReply, MasterError> {
        self.hear(caller, session)?;
        {
            let mut sessions = self.sessions.lock();
            closed.iter().for_each(|ino| sessions.close(session, *ino));
        }
        let orphans = self.look(|reader| read::orphans_among(reader, session, &closed))?;
        if !orphans.is_empty() {
            self.submit(Command::DropHolders { session, inodes: orphans }).await?;
        }
        self.synced(self.store.last()).await?;
        let is_alone = self.leases.table.lock().is_alone(session);
        Ok(MasterReply::Renewed { epoch: self.epoch()?, now: self.time(), is_alone })
    }

    pub(super) async fn close_session(&self, caller: &Caller, session: SessionId) -> Result<MasterReply, MasterError> {
        self.hear(caller, session)?;
        // Its client has given everything up.
        self.end_session_after(session, self.runtime.now()).await?;
        Ok(MasterReply::Closed)
    }

    /// An operator wants a client gone.
    pub(super) async fn evict(&self, session: SessionId) -> Result<MasterReply, MasterError> {
        if self.look(|reader| read::session(reader, session))?.is_none() {
            return Err(MasterError::NoSuchSession(session));
        }
        tracing::warn!(%session, "the session is ended by an operator");
        self.end_session(session).await?;
        Ok(MasterReply::Closed)
    }

    /// Forgets a session and lets go of what it holds, once its client believes in no lease of it any more.
    pub(super) async fn end_session(&self, session: SessionId) -> Result<(), MasterError> {
        let heard = self.heard(session).unwrap_or(self.started);
        self.end_session_after(session, self.end_of_leases(heard)).await
    }

    /// The same for a session whose client may believe in its leases until `moment`: from now on it is not heard, and then it is gone.
    pub(super) async fn end_session_after(&self, session: SessionId, moment: Moment) -> Result<(), MasterError> {
        if !self.sessions.lock().end(session) {
            return Ok(());
        }
        self.runtime.clock.sleep_until(moment).await;
        {
            let _sessions = self.sessions.lock();
            self.locks.lock().end_session(session);
        }
        self.loads.lock().sessions.remove(&session);
        let ended = self.submit(Command::EndSession { session }).await;
        match ended {
            Ok(_) | Err(MasterError::NoSuchSession(_)) => {
                self.sessions.lock().ended(session);
                self.leases.ended(session);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that the session is alive, or refuses.
    pub(super) fn hear(&self, caller: &Caller, session: SessionId) -> Result<(), MasterError> {
        let is_here = self.sessions.lock().hear(session, caller.name(), self.runtime.now());
        if is_here { Ok(()) } else { Err(MasterError::NoSuchSession(session)) }
    }

    pub(super) async fn lookup(&self, look: &mut Look<'_>, parent: Ino, name: &[u8]) -> Result<MasterReply, MasterError> {
        let find = |reader: &dyn Reader| match read::lookup(reader, parent, name) {
            Ok(attributes) => Ok(Some(attributes)),
            Err(Failure::Answer(MasterError::Fs(FsError::NotFound))) => Ok(None),
            Err(other) => Err(other),
        };
        let found = self.look_at(look, find, |found| found.iter().flat_map(regular).collect()).await?;
        self.grant(look, parent);
        match found {
            Some(attributes) => {
                self.grant(look, attributes.ino);
                Ok(MasterReply::Attributes(attributes))
            }
            None => Ok(MasterReply::NoSuchName),
        }
    }

    pub(super) async fn attributes(&self, look: &mut Look<'_>, ino: Ino) -> Result<MasterReply, MasterError> {
        let attributes = self.look_at(look, |reader| read::attributes(reader, ino), |found| regular(found).into_iter().collect()).await?;
        self.grant(look, ino);
        Ok(MasterReply::Attributes(attributes))
    }

    pub(super) async fn open(
        &self,
        look: &mut Look<'_>,
        session: SessionId,
        ino: Ino,
        wanted: LeaseMode,
    ) -> Result<MasterReply, MasterError> {
        self.hear(look.caller, session)?;
        let (attributes, extents) =
            self.look_at(look, |reader| opening(reader, ino), |found| regular(&found.0).into_iter().collect()).await?;
        self.hear(look.caller, session)?;
        self.grant_at_most(look, ino, wanted);
        self.sessions.lock().open(session, ino);
        if attributes.nlink == 0 {
            // Without a name it lives only for its holders, of whom this session becomes one.
            let hold = Command::Hold { session, inodes: vec![ino] };
            let is_gone = |_: &Self, outcome| matches!(outcome, Outcome::Gone { inodes } if !inodes.is_empty());
            let (gone, _) = self.perform(|_| Ok(hold.clone()), is_gone).await?;
            if gone {
                self.sessions.lock().close(session, ino);
                return Err(FsError::Stale.into());
            }
        }
        Ok(MasterReply::Opened { attributes, extents })
    }

    /// The attributes of files that others write come once these have flushed; those of files that are written again by then are left out.
    pub(super) async fn read_directory(
        &self,
        look: &mut Look<'_>,
        ino: Ino,
        after: DirCookie,
        limit: u32,
        with_attributes: bool,
    ) -> Result<MasterReply, MasterError> {
        let limit = limit.min(DIRECTORY_PAGE_ENTRIES_MAX);
        let session = look.caller.session().unwrap_or_default();
        // Files that have yet to be flushed; each is waited for once.
        let mut unflushed: Option<BTreeSet<Ino>> = None;
        let (mut entries, end) = loop {
            let found = self.read(|reader| read::read_directory(reader, ino, after, limit, with_attributes))?;
            let files = found.0.iter().filter_map(|entry| entry.attributes.as_ref()).flat_map(regular);
            let is_waited_for = |ino: &Ino| unflushed.as_ref().is_none_or(|unflushed| unflushed.contains(ino));
            let uses: Vec<(Ino, Use)> = files.filter(is_waited_for).map(|ino| (ino, Use::Look)).collect();
            let held: Vec<(Ino, Use)> = uses.into_iter().filter(|used| !self.obstacles(session, &[*used]).is_empty()).collect();
            if held.is_empty() {
                break found;
            }
            unflushed = Some(held.iter().map(|(ino, _)| *ino).collect());
            self.clear_for_look(look, self.obstacles(session, &held)).await?;
        };
        self.grant(look, ino);
        for entry in entries.iter_mut().filter(|entry| entry.attributes.is_some()) {
            if entry.kind == FileKind::Regular && !self.obstacles(session, &[(entry.ino, Use::Look)]).is_empty() {
                entry.attributes = None;
            } else {
                self.grant(look, entry.ino);
            }
        }
        Ok(MasterReply::Directory { entries, end })
    }

    pub(super) fn extents(&self, ino: Ino, offset: u64, end: u64) -> Result<MasterReply, MasterError> {
        self.read(|reader| read::extents(reader, ino, offset, end, EXTENT_PAGE_MAX)).map(MasterReply::Extents)
    }

    /// Does a mutation in the turn in which no other session holds a lease of what it touches.
    pub(super) async fn mutate(&self, look: &mut Look<'_>, request: MutateRequest) -> Result<MasterReply, MasterError> {
        let MutateRequest { session, sequence, acknowledged, durable, mutation } = request;
        let mut wish = None;
        loop {
            self.hear(look.caller, session)?;
            if let Some(first) = self.look(|reader| read::result(reader, session, sequence))? {
                // A retry. What the first answer promised to be durable may not be so yet.
                self.note_opening(session, &mutation, first.as_ref().ok());
                if durable {
                    self.synced(self.store.last()).await?;
                }
                return first.map(MasterReply::Mutated);
            }
            let (touched, obstacles) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
            let make = |master: &Self| {
                let uses = master.look(|reader| read::touched(reader, &mutation))?;
                let in_the_way = master.obstacles(session, &uses);
                (*touched.lock(), *obstacles.lock()) = (uses, in_the_way);
                if !obstacles.lock().is_empty() {
                    return Err(MasterError::Unavailable("others hold leases".to_owned()));
                }
                let doomed = master.look(|reader| read::doomed(reader, &mutation))?;
                let holders = doomed.map_or_else(Vec::new, |ino| master.sessions.lock().holders(ino));
                Ok(Command::Mutate { session, sequence, acknowledged, holders, mutation: mutation.clone() })
            };
            let then = |master: &Self, outcome| {
                let Outcome::Mutated(reply) = outcome else { return Err(unexpected()) };
                master.note_opening(session, &mutation, Some(&reply));
                master.desk.lock().note(&reply);
                drop(wish.take());
                master.grant_changed(look, &mutation, &touched.lock(), &reply);
                Ok(reply)
            };
            let done = self.perform(make, then).await;
            let obstacles = obstacles.into_inner();
            if !obstacles.is_empty() {
                self.clear_for_change(look.caller, obstacles, &mut wish).await?;
                continue;
            }
            let (reply, index) = done?;
            if durable {
                self.synced(index).await?;
            }
            return reply.map(MasterReply::Mutated);
        }
    }

    /// A creation may open what it makes.
    fn note_opening(&self, session: SessionId, mutation: &Mutation, reply: Option<&MutationReply>) {
        let opens = matches!(mutation, Mutation::Create { open: true, .. } | Mutation::CreateUnnamed { .. });
        if let Some(MutationReply::Inode(attributes)) = reply.filter(|_| opens) {
            self.sessions.lock().open(session, attributes.ino);
        }
    }
}

/// The inode, if it is one of a regular file: only of these do clients hold back changes.
fn regular(attributes: &Attributes) -> Option<Ino> {
    (attributes.kind == FileKind::Regular).then_some(attributes.ino)
}

/// What a client says when it opens a session.
pub struct Greeting {
    pub previous: Option<SessionId>,
    pub description: String,
    pub open: Vec<Ino>,
    pub answered: Vec<SequenceRange>,
    pub writing: Vec<Ino>,
}

/// A mutation with its name.
pub struct MutateRequest {
    pub session: SessionId,
    pub sequence: Sequence,
    pub acknowledged: Sequence,
    pub durable: bool,
    pub mutation: Mutation,
}

/// The state machine answered a command with what belongs to another: a bug, which must not pass for an answer.
pub fn unexpected() -> MasterError {
    MasterError::Unavailable("the state machine gave an outcome that does not belong to the command".to_owned())
}
