//! Locks: the waiting and answering around [`crate::locks`].

use super::connections::Caller;
use super::master::Master;
use crate::locks::{Ruling, Ticket, Turn};
use crate::state::read;
use cairn_common::ids::{Ino, Sequence, SessionId};
use cairn_common::limits::LOCK_TURN;
use cairn_common::lock::LockClaim;
use cairn_common::wire::master::{LockAnswer, LockCall, MasterError, MasterReply};
use std::pin::pin;

impl Master {
    pub(super) async fn lock(
        &self,
        caller: &Caller,
        ticket: Ticket,
        acknowledged: Sequence,
        call: LockCall,
    ) -> Result<MasterReply, MasterError> {
        if let LockCall::Set { claim, .. } = &call {
            check(claim)?;
        }
        let first = self.for_session(caller, ticket.session, |master| master.locks.lock().call(ticket, acknowledged, call))?;
        match self.ruling(ticket, first).await {
            Some(ruling) => Ok(MasterReply::Lock(self.lock_answer(ruling, &call))),
            None => Err(MasterError::Forgotten(ticket.order)),
        }
    }

    /// Waits for the ruling on a call, for a turn at most. `None` if nobody is there for it any more.
    async fn ruling(&self, ticket: Ticket, first: Turn) -> Option<Ruling> {
        if let Turn::UnderWay(rung) = &first {
            let mut rung = pin!(rung.notified());
            rung.as_mut().enable();
            // It may have been rung before anybody listened.
            if matches!(self.locks.lock().turn(ticket), Turn::UnderWay(_)) && self.runtime.timeout(LOCK_TURN, rung).await.is_err() {
                self.locks.lock().out_of_time(ticket);
            }
        }
        let turn = if matches!(first, Turn::UnderWay(_)) { self.locks.lock().turn(ticket) } else { first };
        match turn {
            Turn::Ruled(ruling) => Some(ruling),
            Turn::UnderWay(_) | Turn::Forgotten => None,
        }
    }

    fn lock_answer(&self, ruling: Ruling, call: &LockCall) -> LockAnswer {
        match ruling {
            Ruling::Done => LockAnswer::Done { version: self.version_behind(call) },
            Ruling::Denied { by_us } => LockAnswer::Denied { by_us },
            Ruling::Deadlock => LockAnswer::Deadlock,
            Ruling::TooMany => LockAnswer::TooMany,
            Ruling::Pending => LockAnswer::Pending,
            Ruling::Cancelled => LockAnswer::Cancelled,
        }
    }

    /// The version that the inode has at a moment after the lock was granted. A file that is gone has none that anybody could miss.
    fn version_behind(&self, call: &LockCall) -> u64 {
        let LockCall::Set { claim: LockClaim { ino, mode: Some(_), .. }, .. } = call else { return 0 };
        let version = |ino: Ino| self.read(|reader| read::attributes(reader, ino)).map(|attributes| attributes.version);
        version(*ino).unwrap_or(0)
    }

    pub(super) fn test_lock(&self, caller: &Caller, session: SessionId, claim: &LockClaim) -> Result<MasterReply, MasterError> {
        check(claim)?;
        let seen = self.for_session(caller, session, |master| master.locks.lock().test(session, claim))?;
        Ok(MasterReply::LockTest(seen))
    }

    pub(super) fn assert_locks(
        &self,
        caller: &Caller,
        session: SessionId,
        claims: Vec<LockClaim>,
        last: bool,
    ) -> Result<MasterReply, MasterError> {
        claims.iter().try_for_each(check)?;
        let refused = self.for_session(caller, session, |master| master.locks.lock().assert(session, claims, last))?;
        Ok(MasterReply::LocksAsserted { refused })
    }

    /// Does `work` while the session is there: it can't end meanwhile.
    fn for_session<T>(&self, caller: &Caller, session: SessionId, work: impl FnOnce(&Self) -> T) -> Result<T, MasterError> {
        let mut sessions = self.sessions.lock();
        if !sessions.hear(session, caller.name(), self.runtime.now()) {
            return Err(MasterError::NoSuchSession(session));
        }
        Ok(work(self))
    }
}

fn check(claim: &LockClaim) -> Result<(), MasterError> {
    if claim.range.first > claim.range.last {
        return Err(MasterError::Malformed(format!("a lock of inode {} ends before it begins", claim.ino)));
    }
    Ok(())
}
