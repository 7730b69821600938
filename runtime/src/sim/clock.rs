//! Virtual time, as a node sees it.

use crate::clock::{Clock, Moment};
use crate::sim::executor::{Scheduler, TimerKey};
use crate::task::BoxFuture;
use cairn_common::time::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

/// Wall-clock time at the beginning of every world: 2026-01-01 00:00 UTC.
const WALL_BASE_NANOS: i64 = 1_767_225_600_000_000_000;

pub(super) struct SimClock {
    scheduler: Arc<Scheduler>,
    /// How far the wall clock of this node runs ahead, in nanoseconds.
    skew: Arc<AtomicI64>,
}

impl SimClock {
    pub(super) fn new(scheduler: Arc<Scheduler>, skew: Arc<AtomicI64>) -> Self {
        Self { scheduler, skew }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Moment {
        self.scheduler.now()
    }

    fn wall(&self) -> Timestamp {
        let elapsed = i64::try_from(self.scheduler.now().nanos()).unwrap_or(i64::MAX);
        let skew = self.skew.load(Ordering::Relaxed);
        Timestamp::from_nanos(WALL_BASE_NANOS.saturating_add(elapsed).saturating_add(skew))
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::new(self.scheduler.clone(), moment))
    }
}

/// Ready once virtual time has reached a moment.
pub(super) struct Sleep {
    scheduler: Arc<Scheduler>,
    moment: Moment,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn new(scheduler: Arc<Scheduler>, moment: Moment) -> Self {
        Self { scheduler, moment, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.scheduler.now() >= self.moment {
            return Poll::Ready(());
        }
        match self.timer {
            Some(key) => self.scheduler.rewake(key, context.waker().clone()),
            None => self.timer = Some(self.scheduler.wake_at(self.moment, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.scheduler.cancel(key);
        }
    }
}
