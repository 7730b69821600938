//! Tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs tasks and blocking work. All tasks of a role run on one thread.
pub trait Executor: Send + Sync {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> TaskHandle;
    /// Runs work on a pool of threads (real) or in place (simulated). Bounded: excess work queues.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// What an executor must offer to end a task early.
pub trait Abort: Send + Sync {
    fn abort(&self);
    fn is_finished(&self) -> bool;
}

/// A task that runs on its own. Dropping the handle leaves it running.
#[derive(Clone)]
pub struct TaskHandle(Arc<dyn Abort>);

impl TaskHandle {
    pub fn new(abort: Arc<dyn Abort>) -> Self {
        Self(abort)
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// A guard that aborts the task when dropped.
    pub fn abort_on_drop(self) -> TaskGuard {
        TaskGuard(self)
    }
}

/// Aborts its task when dropped.
pub struct TaskGuard(TaskHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
