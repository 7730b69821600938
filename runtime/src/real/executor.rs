//! Tasks on a tokio runtime.

use crate::task::{Abort, BoxFuture, Executor, TaskHandle};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Spawns on the runtime of a handle; blocking work goes to that runtime's bounded pool of threads.
#[derive(Debug, Clone)]
pub struct TokioExecutor {
    handle: Handle,
}

impl TokioExecutor {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Executor for TokioExecutor {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let report = PanicReport { task: name };
        let task = self.handle.spawn(async move {
            let _report = report;
            future.await;
        });
        TaskHandle::new(Arc::new(TokioTask(task.abort_handle())))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        // Not waited for: the caller hears of the end through what `work` itself does.
        drop(self.handle.spawn_blocking(work));
    }
}

struct TokioTask(AbortHandle);

impl Abort for TokioTask {
    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Says which task it was that panicked: tokio keeps the panic for a join that nobody makes.
struct PanicReport {
    task: &'static str,
}

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.task, "a task panicked and is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TokioExecutor;
    use crate::task::Executor;
    use tokio::sync::oneshot;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_task_runs_and_can_be_ended_early() {
        let runtime = runtime();
        let executor = TokioExecutor::new(runtime.handle().clone());
        runtime.block_on(async {
            let (send, receive) = oneshot::channel();
            let task = executor.spawn("sender", Box::pin(async move { send.send(5).unwrap() }));
            assert_eq!(receive.await, Ok(5));
            tokio::task::yield_now().await;
            assert!(task.is_finished());

            let (send, receive) = oneshot::channel::<()>();
            let stuck = executor.spawn(
                "stuck",
                Box::pin(async move {
                    std::future::pending::<()>().await;
                    drop(send);
                }),
            );
            drop(stuck.abort_on_drop());
            assert!(receive.await.is_err(), "an aborted task must drop what it holds");
        });
    }

    #[test]
    fn blocking_work_does_not_hold_up_the_tasks() {
        let runtime = runtime();
        let executor = TokioExecutor::new(runtime.handle().clone());
        runtime.block_on(async {
            let (to_work, from_task) = std::sync::mpsc::channel();
            let (done, wait) = oneshot::channel();
            executor.blocking(Box::new(move || done.send(from_task.recv()).unwrap()));
            to_work.send(1).unwrap();
            assert_eq!(wait.await.unwrap(), Ok(1));
        });
    }
}
