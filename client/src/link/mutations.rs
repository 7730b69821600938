//! Changes of the namespace, each done exactly once.
//!
//! | what happens to a sent mutation | what the caller gets |
//! |---|---|
//! | an answer, to whichever of its tries | the answer |
//! | the caller leaves, or its patience ends | (EIO); the mutation goes on in the background until it is answered |
//! | the session is gone and no try went without an answer | it is done under the next session |
//! | the session is gone and a try went without an answer | EIO, but a compaction is done again |
//! | the session is gone, and the mutation belongs to it (a commit) | that the session is gone |

use super::backoff::Backoff;
use super::calls::{Answer, AskError, Link, TryError};
use super::driven::Driven;
use super::open_inodes::OpenGuard;
use super::session::{Line, LineFailure};
use super::unsynced::{Change, touched};
use crate::cache::Leased;
use crate::limits::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use cairn_common::ids::{Sequence, SessionId};
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, Mutation, MutationReply};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// How the driving of a mutation ended.
enum Driving {
    /// With a guard if the mutation opened an inode.
    Answered(Result<Mutated, AskError>),
    /// The session is gone; `unknown` if some try may have been done.
    SessionGone { mutation: Mutation, unknown: bool, permit: OwnedSemaphorePermit },
}

/// What came of a mutation.
pub struct Mutated {
    pub reply: MutationReply,
    pub leased: Leased,
    /// If it opened an inode.
    pub guard: Option<OpenGuard>,
}

/// A mutation with its sequence, from its first sending to its answer.
struct Sent {
    link: Arc<Link>,
    line: Arc<Line>,
    sequence: Sequence,
    durable: bool,
    permit: OwnedSemaphorePermit,
}

impl Link {
    /// Does `mutation` exactly once. With `durable`, it is on stable storage when the answer comes.
    ///
    /// What it opens counts as open from the very answer: should the caller have left by then, it is closed again.
    pub async fn mutate(self: &Arc<Self>, mutation: Mutation, durable: bool) -> Result<Mutated, AskError> {
        self.mutate_in(None, mutation, durable).await
    }

    /// The same in one session: `SessionGone` if that is not the present one, or was gone before there was an answer.
    pub async fn mutate_in(
        self: &Arc<Self>,
        session: Option<SessionId>,
        mut mutation: Mutation,
        durable: bool,
    ) -> Result<Mutated, AskError> {
        let mark = self.mark();
        let deadline = self.deadline();
        let permit = self.until(deadline, Arc::clone(&self.mutations).acquire_owned()).await?;
        let mut permit = permit.map_err(|_| AskError::Closed)?;
        loop {
            let line = self.line(deadline).await?;
            if session.is_some_and(|session| session != line.session.id) {
                return Err(AskError::SessionGone);
            }
            // No await between taking the sequence and handing it to what drives it.
            let sequence = line.session.begin();
            let sent = Sent { link: Arc::clone(self), line, sequence, durable, permit };
            let driven = Driven::new(self.runtime.clone(), sent.drive(mutation));
            match self.until(deadline, driven).await? {
                Driving::Answered(answer) => {
                    if durable && answer.is_ok() {
                        self.note_durable(mark);
                    }
                    return answer;
                }
                Driving::SessionGone { mutation: again, unknown, permit: kept } => {
                    if session.is_some() {
                        return Err(AskError::SessionGone);
                    }
                    if unknown && !matches!(again, Mutation::Compact { .. }) {
                        return Err(AskError::Unknown);
                    }
                    (mutation, permit) = (again, kept);
                }
            }
        }
    }
}

impl Sent {
    async fn drive(mut self, mutation: Mutation) -> Driving {
        let session = Arc::clone(&self.line.session);
        let mut request = MasterRequest::Mutate {
            session: session.id,
            sequence: self.sequence,
            acknowledged: Sequence(0),
            durable: self.durable,
            mutation,
        };
        let mut backoff = Backoff::new(RETRY_PAUSE_MIN, RETRY_PAUSE_MAX);
        let mut unknown = false;
        loop {
            if let MasterRequest::Mutate { acknowledged, .. } = &mut request {
                *acknowledged = session.acknowledged();
            }
            match self.link.try_once(&self.line, &request).await {
                Err(TryError::NoAnswer) => unknown = true,
                Err(TryError::Refused(MasterError::Unavailable(reason))) => tracing::debug!("the master asks to come again: {reason}"),
                Err(TryError::Refused(MasterError::NoSuchSession(_))) => {
                    self.line.fail(LineFailure::SessionGone);
                    return self.session_gone(request, unknown);
                }
                Ok(Answer { reply, leased }) => {
                    self.note_unsynced(&request, &reply);
                    let answer = mutated(reply);
                    let answer = answer.map(|reply| Mutated { guard: self.hold_what_is_open(&request, &reply), reply, leased });
                    return self.answered(answer);
                }
                Err(TryError::Refused(error)) => return self.answered(Err(AskError::Refused(error))),
                Err(TryError::Unsendable(reason)) => return self.answered(Err(AskError::Unsendable(reason))),
                Err(TryError::Garbled(reason)) => return self.answered(Err(AskError::Garbled(reason))),
            }
            self.link.counts.master_retries.add(1);
            self.link.runtime.sleep(backoff.pause()).await;
            match self.link.next_line().await {
                Ok(line) if line.session.id == session.id => self.line = line,
                Ok(_) => return self.session_gone(request, unknown),
                Err(error) => return self.answered(Err(error)),
            }
        }
    }

    fn hold_what_is_open(&self, request: &MasterRequest, reply: &MutationReply) -> Option<OpenGuard> {
        let MasterRequest::Mutate { mutation: Mutation::Create { open: true, .. } | Mutation::CreateUnnamed { .. }, .. } = request else {
            return None;
        };
        match reply {
            MutationReply::Inode(attributes) => Some(self.link.opens.begin(attributes.ino)),
            _ => None,
        }
    }

    /// A change that was answered and need not be on stable storage yet. Refusals change nothing.
    fn note_unsynced(&self, request: &MasterRequest, reply: &MasterReply) {
        let (MasterRequest::Mutate { mutation, .. }, MasterReply::Mutated(reply)) = (request, reply) else { return };
        let inodes = touched(mutation, reply);
        if !self.durable && !inodes.is_empty() {
            let tick = self.link.mark();
            self.link.unsynced.lock().note(Change {
                tick,
                session: self.line.session.id,
                sequence: self.sequence,
                master: self.line.master,
                inodes,
            });
        }
    }

    fn answered(self, answer: Result<Mutated, AskError>) -> Driving {
        self.line.session.answered(self.sequence);
        Driving::Answered(answer)
    }

    fn session_gone(self, request: MasterRequest, unknown: bool) -> Driving {
        let MasterRequest::Mutate { mutation, session, .. } = request else {
            return Driving::Answered(Err(AskError::Unknown));
        };
        if unknown {
            tracing::warn!("session {session} ended while mutation {} was under way; whether it was done is unknown", self.sequence);
        }
        Driving::SessionGone { mutation, unknown, permit: self.permit }
    }
}

fn mutated(reply: MasterReply) -> Result<MutationReply, AskError> {
    match reply {
        MasterReply::Mutated(reply) => Ok(reply),
        other => Err(AskError::unexpected(&other)),
    }
}
