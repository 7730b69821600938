//! Several ways to the same answer: a slow or failing one must not hold up the others.

use cairn_runtime::Runtime;
use cairn_runtime::task::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::Duration;

/// The first answer.
pub struct Success<T> {
    pub value: T,
    /// Which attempt it is of.
    pub attempt: usize,
    /// Whether some attempt was started because none had answered for long.
    pub is_hedged: bool,
}

/// Makes the attempts in order: the next one starts when one has failed, or when none has answered for `delay`. The first
/// success wins and the rest is dropped; otherwise all the failures, in the order in which they came.
pub async fn first_success<'a, T, E>(
    runtime: &Runtime,
    delay: Duration,
    attempts: Vec<BoxFuture<'a, Result<T, E>>>,
    on_hedge: impl Fn(),
) -> Result<Success<T>, Vec<E>> {
    let numbered = |(attempt, future): (usize, BoxFuture<'a, Result<T, E>>)| async move { (attempt, future.await) };
    let mut waiting = attempts.into_iter().enumerate().map(numbered);
    let mut is_hedged = false;
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    running.extend(waiting.next());
    while !running.is_empty() {
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            answer = running.next() => match answer {
                Some((attempt, Ok(value))) => return Ok(Success { value, attempt, is_hedged }),
                Some((_, Err(error))) => {
                    failures.push(error);
                    running.extend(waiting.next());
                }
                None => {}
            },
            () = runtime.sleep(delay), if more => {
                on_hedge();
                is_hedged = true;
                running.extend(waiting.next());
            }
        }
    }
    Err(failures)
}
