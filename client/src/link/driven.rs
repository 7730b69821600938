//! Work that must not stop half-way because its caller has left.

use cairn_runtime::Runtime;
use cairn_runtime::task::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that, when it is dropped before its end, goes on as a task of its own.
pub struct Driven<T: Send + 'static> {
    runtime: Runtime,
    work: Option<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> Driven<T> {
    pub fn new(runtime: Runtime, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { runtime, work: Some(Box::pin(work)) }
    }
}

impl<T: Send + 'static> Future for Driven<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = self.work.as_mut() else {
            // Polled after its end: nothing will ever come.
            return Poll::Pending;
        };
        let result = work.as_mut().poll(context);
        if result.is_ready() {
            self.work = None;
        }
        result
    }
}

impl<T: Send + 'static> Drop for Driven<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn("abandoned mutation", async move {
                work.await;
            });
        }
    }
}
