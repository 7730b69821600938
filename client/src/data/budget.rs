//! The bound on written data in memory, over all files. Who needs memory takes a [`Charge`] and keeps it next to the
//! buffer; dropping both gives the memory back. Waiting is first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What one permit stands for.
const UNIT_BYTES: usize = 4096;

/// Memory that is taken.
#[derive(Debug, Default)]
pub struct Charge(Option<OwnedSemaphorePermit>);

impl Charge {
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |permit| permit.num_permits() * UNIT_BYTES)
    }

    /// Adds memory to this charge.
    pub fn merge(&mut self, other: Charge) {
        match (&mut self.0, other.0) {
            (Some(permit), Some(other)) => permit.merge(other),
            (empty @ None, other) => *empty = other,
            (Some(_), None) => {}
        }
    }

    /// Takes `bytes` out of this charge, if it has so many.
    pub fn split(&mut self, bytes: usize) -> Option<Charge> {
        let units = bytes.div_ceil(UNIT_BYTES);
        if units == 0 {
            return Some(Charge::default());
        }
        self.0.as_mut()?.split(units).map(|permit| Charge(Some(permit)))
    }
}

/// The bound.
pub struct Budget {
    units: Arc<Semaphore>,
    total_bytes: usize,
    waiting: AtomicUsize,
    /// Rung when somebody begins to wait.
    pub pressure: Notify,
}

impl Budget {
    pub fn new(total_bytes: usize) -> Self {
        let units = total_bytes / UNIT_BYTES;
        Self {
            units: Arc::new(Semaphore::new(units)),
            total_bytes: units * UNIT_BYTES,
            waiting: AtomicUsize::new(0),
            pressure: Notify::new(),
        }
    }

    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    pub fn used_bytes(&self) -> usize {
        self.total_bytes - self.units.available_permits() * UNIT_BYTES
    }

    /// Whether somebody waits for memory.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Memory, if there is enough at once and nobody waits for it.
    pub fn try_take(&self, bytes: usize) -> Option<Charge> {
        if self.is_wanted() {
            return None;
        }
        let permit = Arc::clone(&self.units).try_acquire_many_owned(units_of(bytes)).ok()?;
        Some(Charge(Some(permit)))
    }

    /// Memory, when there is enough. `bytes` must not exceed the whole.
    pub async fn take(&self, bytes: usize) -> Charge {
        if let Some(charge) = self.try_take(bytes) {
            return charge;
        }
        let _waiting = Waiting::begin(&self.waiting);
        self.pressure.notify_one();
        let permit = Arc::clone(&self.units).acquire_many_owned(units_of(bytes.min(self.total_bytes))).await;
        // The semaphore is never closed.
        Charge(permit.ok())
    }
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Counts somebody who waits, also if they give up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use futures_util::FutureExt;

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let budget = Budget::new(64 << 10);
        let mut first = budget.try_take(48 << 10).expect("room");
        assert!(budget.try_take(32 << 10).is_none());
        let mut waiter = Box::pin(budget.take(32 << 10));
        assert!(waiter.as_mut().now_or_never().is_none());
        assert!(budget.is_wanted());
        assert!(budget.try_take(4 << 10).is_none(), "nobody overtakes who waits");
        drop(first.split(16 << 10));
        let second = waiter.as_mut().now_or_never().expect("room now");
        drop(waiter);
        assert_eq!((first.bytes(), second.bytes(), budget.used_bytes()), (32 << 10, 32 << 10, 64 << 10));
        first.merge(second);
        drop(first);
        assert_eq!((budget.used_bytes(), budget.is_wanted()), (0, false));
    }
}
