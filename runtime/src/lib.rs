//! The machine, behind seams: clock, tasks, randomness, disk and network. Every role takes a [`Runtime`] and touches
//! nothing else of the outside, so that the same code runs on a real machine ([`real`]) and, together with a whole
//! cluster, in one seeded, single-threaded, simulated world ([`sim`]).
//!
//! Rules for code above this crate, so that one seed stays one world:
//! - time, tasks, randomness, files and sockets only from here (clippy.toml bans the ambient ones);
//! - `tokio::sync` is fine; `tokio::select!` must be `biased;`; `tokio::spawn`, `tokio::time` and `tokio::net` are not;
//! - collections that are iterated have a fixed order (`BTreeMap`, or `common::collections`).

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod network;
pub mod pki;
pub mod real;
pub mod redb_file;
pub mod sim;
pub mod task;

use crate::clock::{Clock, Moment};
use crate::disk::Disk;
use crate::entropy::Entropy;
use crate::network::Network;
use crate::task::{BoxFuture, Executor, TaskHandle};
use cairn_common::time::Timestamp;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// One machine, as a role sees it. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    pub clock: Arc<dyn Clock>,
    pub executor: Arc<dyn Executor>,
    pub entropy: Arc<dyn Entropy>,
    pub network: Arc<dyn Network>,
    /// The file system of the machine. Paths are those that the user gave.
    pub disk: Arc<dyn Disk>,
}

/// The deadline passed before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct Elapsed(pub Duration);

impl Runtime {
    /// Monotonic time.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Wall-clock time.
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.sleep_until(self.now().plus(duration))
    }

    /// Runs a future for at most `limit`; dropped when the time is over.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        let mut sleep = self.sleep(limit);
        std::future::poll_fn(move |context| {
            use std::task::Poll;
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            sleep.as_mut().poll(context).map(|()| Err(Elapsed(limit)))
        })
        .await
    }

    /// Starts a task. It ends with its process (in the simulated world: when its node crashes), or when aborted.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.executor.spawn(name, Box::pin(future))
    }

    /// Runs work that blocks (disk) or computes for long (hashing a chunk) away from the task's thread, and waits for it.
    /// In the simulated world it runs in place, after a delay drawn from the seed.
    ///
    /// The work runs to its end even if the returned future is dropped.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.executor.blocking(Box::new(move || {
            // The waiting task may be gone; then nobody wants the result.
            let _ = sender.send(work());
        }));
        match receiver.await {
            Ok(value) => value,
            // The pool drops work only when the process (or the simulated node) is ending: wait to be dropped, too.
            Err(_) => std::future::pending().await,
        }
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }
}
