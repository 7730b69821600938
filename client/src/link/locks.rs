//! Asking for locks. Each call is done once, however often it has to be sent; one that its caller leaves is taken back.

use super::calls::{AskError, Link};
use super::driven::Driven;
use super::lock_book::LockPlace;
use super::session::Session;
use cairn_common::error::FsError;
use cairn_common::ids::Sequence;
use cairn_common::lock::LockClaim;
use cairn_common::wire::master::{LockAnswer, LockCall, LockPatience, LockSeen, MasterError, MasterReply, MasterRequest};
use std::sync::Arc;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// With the version of the inode at a moment after it.
    Done {
        version: u64,
    },
    Denied {
        by_us: bool,
    },
}

/// The number of a call; when it is dropped, the master may forget the call.
struct Order {
    session: Arc<Session>,
    number: Sequence,
}

impl Order {
    fn next(session: &Arc<Session>) -> Self {
        Self { number: session.begin_lock(), session: Arc::clone(session) }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.session.lock_answered(self.number);
    }
}

/// A claim that its caller may leave before it is ruled on.
struct Claiming {
    link: Arc<Link>,
    claim: LockClaim,
    /// The call that may be under way.
    order: Option<Order>,
}

impl Drop for Claiming {
    fn drop(&mut self) {
        if let Some(order) = self.order.take() {
            let (link, claim) = (Arc::clone(&self.link), self.claim);
            self.link.runtime.spawn("abandoned lock", async move { link.take_back(order, claim).await });
        }
    }
}

impl Link {
    /// Locks or lets go; waits as the patience says. Who leaves meanwhile has no more than before.
    pub async fn lock(self: &Arc<Self>, claim: LockClaim, patience: LockPatience) -> Result<Locked, AskError> {
        let mut claiming = Claiming { link: Arc::clone(self), claim, order: None };
        loop {
            let turn = match patience {
                LockPatience::None => None,
                LockPatience::Waits | LockPatience::WaitsIfItEnds => Some(self.lock_waits.acquire().await.map_err(|_| AskError::Closed)?),
            };
            let session = Arc::clone(&self.line(self.deadline()).await?.session);
            let order = claiming.order.insert(Order::next(&session));
            let (session, number) = (Arc::clone(&order.session), order.number);
            let answer = self.lock_call(&session, number, LockCall::Set { claim, patience }).await;
            claiming.order = None;
            drop(turn);
            let answer = match answer {
                // A new session begins without locks, and asks for this one like for any other.
                Err(AskError::Unknown) => continue,
                answer => answer?,
            };
            match answer {
                LockAnswer::Pending | LockAnswer::Cancelled => {}
                LockAnswer::Done { version } => {
                    self.locks.note(&claim);
                    return Ok(Locked::Done { version });
                }
                LockAnswer::Denied { by_us } => return Ok(Locked::Denied { by_us }),
                LockAnswer::Deadlock => return Err(AskError::Refused(MasterError::Fs(FsError::Deadlock))),
                LockAnswer::TooMany => return Err(AskError::Refused(MasterError::Fs(FsError::NoLocks))),
            }
        }
    }

    /// Lets go of everything that an owner has of a file; to its end, whoever asked for it. It counts as under way from the call on.
    pub fn surrender(self: &Arc<Self>, place: LockPlace) -> Driven<Result<(), AskError>> {
        let (link, surrender) = (Arc::clone(self), self.locks.surrender());
        let work = async move {
            let done = link.lock(place.surrender(), LockPatience::None).await;
            if done.is_ok() {
                link.locks.surrendered(place);
            }
            drop(surrender);
            done.map(drop)
        };
        Driven::new(self.runtime.clone(), work)
    }

    /// What is in the way of a claim.
    pub async fn test_lock(&self, claim: LockClaim) -> Result<Option<LockSeen>, AskError> {
        match self.ask_in_session(|session| MasterRequest::TestLock { session, claim }).await? {
            MasterReply::LockTest(seen) => Ok(seen),
            other => Err(AskError::unexpected(&other)),
        }
    }

    /// One call, sent until it is answered. A session that has ended meanwhile has no locks.
    async fn lock_call(&self, session: &Arc<Session>, order: Sequence, call: LockCall) -> Result<LockAnswer, AskError> {
        let make = || MasterRequest::Lock { session: session.id, order, acknowledged: session.locks_acknowledged(), call };
        match self.ask_of_session(session, make).await? {
            MasterReply::Lock(answer) => Ok(answer),
            other => Err(AskError::unexpected(&other)),
        }
    }

    /// The caller of a claim has left. What it was granted all the same is given back.
    async fn take_back(self: Arc<Self>, order: Order, claim: LockClaim) {
        let session = Arc::clone(&order.session);
        let cancel = Order::next(&session);
        let cancelled = self.lock_call(&session, cancel.number, LockCall::Cancel { order: order.number }).await;
        drop(cancel);
        let answer = match cancelled {
            // Asked for again, it is answered as it was ruled on.
            Ok(_) => self.lock_call(&session, order.number, LockCall::Set { claim, patience: LockPatience::None }).await,
            Err(error) => Err(error),
        };
        drop(order);
        match answer {
            Ok(LockAnswer::Done { .. }) if claim.mode.is_some() => {
                for back in self.locks.restoration(&claim) {
                    // It can't be denied: it is less than what is held.
                    let _ = self.lock(back, LockPatience::None).await;
                }
            }
            Ok(LockAnswer::Done { .. }) => self.locks.note(&claim),
            Ok(_) => {}
            Err(error) => tracing::debug!("a lock of inode {} was left, and its session with it: {error}", claim.ino),
        }
    }
}
