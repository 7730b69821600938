//! Time.

use crate::task::BoxFuture;
use cairn_common::time::Timestamp;
use std::time::Duration;

/// A point in monotonic time, in nanoseconds since an origin that only this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How much later this is than `earlier`; zero if it is not later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Monotonic and wall-clock time. The two drift apart: the wall clock may jump, and in the simulated world it does.
pub trait Clock: Send + Sync {
    fn now(&self) -> Moment;
    fn wall(&self) -> Timestamp;
    /// Ready once `now()` has reached `moment`, never before.
    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()>;
}
