//! Sessions, and everything that clients ask about files.
//!
//! The orphan rule: an inode whose last name goes lives on for those who have it open. So a mutation that may take a last name
//! carries the holders as the session table knows them in that very turn, and an opening is noted in the turn that grants it.

use super::connections::Caller;
use super::master::Master;
use crate::state::{Command, Outcome, read};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::extent::ExtentPage;
use cairn_common::ids::{DirCookie, Ino, Sequence, SessionId};
use cairn_common::limits::{DIRECTORY_PAGE_ENTRIES_MAX, EXTENT_PAGE_MAX};
use cairn_common::wire::master::{MasterError, MasterReply, Mutation, MutationReply, SequenceRange};

/// Extents that come with an open; a reader asks for more of a larger file as it needs them.
const OPEN_EXTENTS_MAX: u32 = 512;

impl Master {
    pub(super) async fn open_session(
        &self,
        caller: &Caller,
        previous: Option<SessionId>,
        description: String,
        open: Vec<Ino>,
        answered: &[SequenceRange],
    ) -> Result<MasterReply, MasterError> {
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
            master.sessions.lock().begin(session, caller.name(), caller.address(), now, open);
            Ok((session, resumed, cluster, root))
        };
        let (begun, index) = self.perform(make, begin).await?;
        let (session, resumed, cluster, root) = begun?;
        caller.note_session(session);
        if !resumed && !open.is_empty() {
            // What it has open may have lost its name; those files that others hold as well are still there.
            self.submit(Command::Hold { session, inodes: open }).await?;
        }
        // A session that a power loss takes back could be given to another client.
        self.synced(index).await?;
        Ok(MasterReply::Session { session, cluster, root, now: self.time(), incarnation: self.incarnation, unknown })
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
        Ok(MasterReply::Renewed { epoch: self.epoch()?, now: self.time() })
    }

    pub(super) async fn close_session(&self, caller: &Caller, session: SessionId) -> Result<MasterReply, MasterError> {
        self.hear(caller, session)?;
        self.end_session(session).await?;
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

    /// Forgets a session and lets go of what it holds.
    pub(super) async fn end_session(&self, session: SessionId) -> Result<(), MasterError> {
        {
            let mut sessions = self.sessions.lock();
            if !sessions.end(session) {
                return Ok(());
            }
            self.locks.lock().end_session(session);
        }
        self.loads.lock().sessions.remove(&session);
        let ended = self.submit(Command::EndSession { session }).await;
        match ended {
            Ok(_) | Err(MasterError::NoSuchSession(_)) => {
                self.sessions.lock().ended(session);
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

    pub(super) async fn open(&self, caller: &Caller, session: SessionId, ino: Ino) -> Result<MasterReply, MasterError> {
        self.hear(caller, session)?;
        let (attributes, extents) = self.read(|reader| {
            let attributes = read::attributes(reader, ino)?;
            let extents = match attributes.kind {
                FileKind::Regular => read::extents(reader, ino, 0, u64::MAX, OPEN_EXTENTS_MAX)?,
                _ => ExtentPage::default(),
            };
            Ok((attributes, extents))
        })?;
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

    pub(super) fn read_directory(&self, ino: Ino, after: DirCookie, limit: u32, with_attributes: bool) -> Result<MasterReply, MasterError> {
        let limit = limit.min(DIRECTORY_PAGE_ENTRIES_MAX);
        let (entries, end) = self.read(|reader| read::read_directory(reader, ino, after, limit, with_attributes))?;
        Ok(MasterReply::Directory { entries, end })
    }

    pub(super) fn extents(&self, ino: Ino, offset: u64, end: u64) -> Result<MasterReply, MasterError> {
        self.read(|reader| read::extents(reader, ino, offset, end, EXTENT_PAGE_MAX)).map(MasterReply::Extents)
    }

    pub(super) async fn mutate(&self, caller: &Caller, request: MutateRequest) -> Result<MasterReply, MasterError> {
        let MutateRequest { session, sequence, acknowledged, durable, mutation } = request;
        self.hear(caller, session)?;
        if let Some(first) = self.look(|reader| read::result(reader, session, sequence))? {
            // A retry. What the first answer promised to be durable may not be so yet.
            self.note_opening(session, &mutation, first.as_ref().ok());
            if durable {
                self.synced(self.store.last()).await?;
            }
            return first.map(MasterReply::Mutated);
        }
        let make = |master: &Self| {
            let doomed = master.look(|reader| read::doomed(reader, &mutation))?;
            let holders = doomed.map_or_else(Vec::new, |ino| master.sessions.lock().holders(ino));
            Ok(Command::Mutate { session, sequence, acknowledged, holders, mutation: mutation.clone() })
        };
        let then = |master: &Self, outcome| {
            let Outcome::Mutated(reply) = outcome else { return Err(unexpected()) };
            master.note_opening(session, &mutation, Some(&reply));
            master.desk.lock().note(&reply);
            Ok(reply)
        };
        let (reply, index) = self.perform(make, then).await?;
        if durable {
            self.synced(index).await?;
        }
        reply.map(MasterReply::Mutated)
    }

    /// A creation may open what it makes.
    fn note_opening(&self, session: SessionId, mutation: &Mutation, reply: Option<&MutationReply>) {
        let opens = matches!(mutation, Mutation::Create { open: true, .. } | Mutation::CreateUnnamed { .. });
        if let Some(MutationReply::Inode(attributes)) = reply.filter(|_| opens) {
            self.sessions.lock().open(session, attributes.ino);
        }
    }
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
