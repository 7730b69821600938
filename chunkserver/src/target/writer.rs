//! The writing task of a target: gathers what is queued into batches, one at a time, and flushes the index now and then.
//! While a batch is being written the next one gathers: that is the group commit.
//!
//! | event | what follows |
//! |---|---|
//! | a request arrives | it and all others queued (up to the bounds of a batch) are carried out together |
//! | the flush is due (interval, or many changes) | records are synced, the index is frozen, and written to redb beside the next batches |
//! | the flush is done | segments that nothing needs are removed; the interval starts again with the next change |
//! | very many changes while a flush runs | requests wait for the flush |
//! | a request to close, or nobody is left to ask | the task ends; to close, after a last flush |

use super::batch::{Request, WriteState, run_batch};
use super::core::Core;
use crate::index::{Flush, IndexError};
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::clock::Moment;
use cairn_runtime::task::BoxFuture;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The task. There is one per target, and it alone appends.
pub struct Writer {
    core: Arc<Core>,
    queue: mpsc::Receiver<Request>,
    state: WriteState,
    flush: Option<BoxFuture<'static, FlushOutcome>>,
    flush_due: Option<Moment>,
    /// After a flush that found no room the next one waits, however many changes there are.
    flush_not_before: Moment,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushOutcome {
    Done,
    /// The changes are among the recent ones again.
    NotDone,
}

enum Event {
    Request(Request),
    FlushDue,
    FlushEnded(FlushOutcome),
    Deserted,
}

impl Writer {
    pub fn new(core: Arc<Core>, queue: mpsc::Receiver<Request>, state: WriteState) -> Self {
        Self { core, queue, state, flush: None, flush_due: None, flush_not_before: Moment::default() }
    }

    pub async fn run(mut self) {
        loop {
            self.plan_flush();
            match self.next_event().await {
                Event::Request(first) => {
                    let (batch, close) = self.gather(first);
                    self = self.carry_out(batch).await;
                    if let Some(reply) = close {
                        return self.close(reply).await;
                    }
                }
                Event::FlushDue => self = self.start_flush().await,
                Event::FlushEnded(outcome) => self.end_flush(outcome),
                Event::Deserted => return,
            }
        }
    }

    /// Sets the time of the next flush.
    fn plan_flush(&mut self) {
        let settings = &self.core.settings;
        let now = self.core.runtime.now();
        self.flush_due = if self.flush.is_some() || self.core.has_failed() || !self.core.index.has_changes() {
            None
        } else if self.core.index.unflushed() >= settings.flush_entries {
            Some(self.flush_not_before.max(now))
        } else {
            self.flush_due.or_else(|| Some(now.plus(settings.flush_interval)))
        };
    }

    async fn next_event(&mut self) -> Event {
        let must_wait = self.flush.is_some() && self.core.index.unflushed() >= self.core.settings.unflushed_max();
        let due = self.flush_due;
        let clock = self.core.runtime.clock.clone();
        let flush_due = async move {
            match due {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let flush = &mut self.flush;
        let flush_done = async move {
            match flush {
                Some(flush) => flush.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = flush_done => Event::FlushEnded(outcome),
            () = flush_due => Event::FlushDue,
            request = self.queue.recv(), if !must_wait => request.map_or(Event::Deserted, Event::Request),
        }
    }

    /// Everything that waits, as far as it fits into one batch. A request to close ends it.
    fn gather(&mut self, first: Request) -> (Vec<Request>, Option<oneshot::Sender<Result<(), ChunkserverError>>>) {
        let settings = &self.core.settings;
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            if let Request::Close { reply } = request {
                return (batch, Some(reply));
            }
            bytes += request.bytes();
            batch.push(request);
            let is_full = batch.len() >= settings.batch_requests || bytes >= settings.batch_bytes;
            next = if is_full { None } else { self.queue.try_recv().ok() };
        }
        (batch, None)
    }

    async fn carry_out(mut self, batch: Vec<Request>) -> Self {
        let (core, mut state) = (self.core.clone(), self.state);
        core.note_writing(Some(core.runtime.now()));
        self.state = self
            .core
            .runtime
            .blocking(move || {
                run_batch(&core, &mut state, batch);
                core.note_writing(None);
                state
            })
            .await;
        self
    }

    /// Syncs and freezes between two batches; redb is written beside the following ones.
    async fn start_flush(mut self) -> Self {
        let (core, mut state) = (self.core.clone(), self.state);
        core.note_writing(Some(core.runtime.now()));
        let (state, flush) = self
            .core
            .runtime
            .blocking(move || {
                let flush = state.prepare_flush(&core);
                core.note_writing(None);
                (state, flush)
            })
            .await;
        self.state = state;
        self.flush_due = None;
        match flush {
            Ok(flush) => {
                let core = self.core.clone();
                let runtime = self.core.runtime.clone();
                self.flush = Some(Box::pin(async move { runtime.blocking(move || finish_flush(&core, &flush)).await }));
            }
            Err(error) => self.core.fail(error.to_string()),
        }
        self
    }

    fn end_flush(&mut self, outcome: FlushOutcome) {
        self.flush = None;
        if outcome == FlushOutcome::NotDone {
            self.flush_not_before = self.core.runtime.now().plus(self.core.settings.flush_interval);
        }
    }

    async fn close(mut self, reply: oneshot::Sender<Result<(), ChunkserverError>>) {
        if let Some(flush) = self.flush.take() {
            flush.await;
        }
        if !self.core.has_failed() {
            self = self.start_flush().await;
            if let Some(flush) = self.flush.take() {
                flush.await;
            }
        }
        // Whoever asked may have gone.
        let _ = reply.send(self.core.failure().map_or(Ok(()), Err));
    }
}

/// Writes a frozen index and removes the segments that are spent by it. Blocks.
fn finish_flush(core: &Core, flush: &Flush) -> FlushOutcome {
    match core.index.flush(flush) {
        Ok(()) => {
            remove_spent(core, flush);
            return FlushOutcome::Done;
        }
        Err(error @ IndexError::NoSpace(_)) => tracing::warn!("target {}: {error}; trying again", core.id()),
        Err(error) => core.fail(error.to_string()),
    }
    FlushOutcome::NotDone
}

fn remove_spent(core: &Core, flush: &Flush) {
    if flush.spent().is_empty() {
        return;
    }
    match core.files.remove(flush.spent()) {
        Ok(()) => {
            tracing::debug!("target {}: removed {} empty segments", core.id(), flush.spent().len());
            core.index.forget_segments(flush.spent());
        }
        Err(error) => tracing::warn!("target {}: cannot remove empty segments: {error}", core.id()),
    }
}
