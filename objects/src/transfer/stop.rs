//! Being asked to stop: what is under way comes to a clean end, and nothing new begins.

use crate::failure::{Failure, Reason};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Set once, by whoever hears the user. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_set: AtomicBool,
    rung: Notify,
}

impl Stop {
    pub fn set(&self) {
        self.0.is_set.store(true, Ordering::Relaxed);
        self.0.rung.notify_waiters();
    }

    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
    }

    /// Ready when it is set.
    pub async fn wait(&self) {
        let mut rung = std::pin::pin!(self.0.rung.notified());
        // From here on nothing is missed.
        rung.as_mut().enable();
        if !self.is_set() {
            rung.await;
        }
    }

    /// Fails if it is set.
    pub fn check(&self, object: impl Display) -> Result<(), Failure> {
        if self.is_set() { Err(Failure::new(object, Reason::Interrupted)) } else { Ok(()) }
    }
}
