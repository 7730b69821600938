//! Threads for roles: each role of a process (a master, a chunkserver, a client) has one thread with a single-threaded tokio runtime, and
//! a few more for what blocks. Measured with QUIC, that does 2.5 times the calls of a work-stealing runtime for less CPU.

use crate::Runtime;
use crate::real::spin::{self, Spinner};
use crate::real::{descriptors, machine};
use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads of a role for blocking work (disk, hashing), beside those its settings add. More work queues.
const BLOCKING_THREADS_MAX: usize = 16;
/// How long an idle one of them lives.
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(10);
/// Polls of tasks between two looks at sockets and timers: a busy role must not keep its network waiting.
const POLLS_PER_EVENT_CHECK: u32 = 31;
/// Polls of local tasks between two looks at what other threads (FUSE, blocking work) handed over.
const POLLS_PER_HANDOVER_CHECK: u32 = 15;
/// After the role has ended, its network may still say goodbye for this long.
const GOODBYE: Duration = Duration::from_millis(10);
/// After that, blocking work may take this long to end before the process stops waiting for it.
const BLOCKING_WORK_LIMIT: Duration = Duration::from_secs(5);

/// How the thread of a role behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoleSettings {
    /// How long the thread goes on looking at its sockets after a message before it parks; zero (the default) for not at all. It gives way to
    /// other threads, but costs CPU time (and heat) for latency, so it is for machines with cores to spare.
    pub spin: Duration,
    /// Threads for blocking work beyond the usual number: as many as devices that hang can hold. None by default; they are started
    /// only when needed.
    pub extra_blocking_threads: usize,
}

/// Runs a role on a thread of its own, named `name`. The thread ends with the future; its tasks end then too.
pub fn run_role<T, F>(name: &str, role: impl FnOnce(Runtime) -> F + Send + 'static) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    run_role_with(RoleSettings::default(), name, role)
}

/// The same with settings.
pub fn run_role_with<T, F>(
    settings: RoleSettings,
    name: &str,
    role: impl FnOnce(Runtime) -> F + Send + 'static,
) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (tokio, spinner) = build(settings, name)?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Some(spinner) = spinner {
            spin::enable(settings.spin);
            tokio.spawn(spinner.run());
        }
        drive(tokio, role)
    })
}

/// Runs a role on this thread until its future ends.
pub fn run_role_here<T, F>(name: &str, role: impl FnOnce(Runtime) -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let (tokio, _) = build(RoleSettings::default(), name)?;
    Ok(drive(tokio, role))
}

fn build(settings: RoleSettings, name: &str) -> io::Result<(tokio::runtime::Runtime, Option<Spinner>)> {
    descriptors::raise_limit();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX + settings.extra_blocking_threads)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .thread_name(format!("{name}-blocking"))
        .event_interval(POLLS_PER_EVENT_CHECK)
        .global_queue_interval(POLLS_PER_HANDOVER_CHECK);
    let spinner = (!settings.spin.is_zero()).then(Spinner::default);
    if let Some(spinner) = spinner.clone() {
        builder.on_thread_park(move || spinner.before_park());
    }
    Ok((builder.build()?, spinner))
}

#[expect(clippy::disallowed_methods, reason = "the role is over; this is below Runtime::sleep")]
fn drive<T, F: Future<Output = T>>(tokio: tokio::runtime::Runtime, role: impl FnOnce(Runtime) -> F) -> T {
    let runtime = machine(tokio.handle().clone());
    let result = tokio.block_on(async {
        let result = role(runtime).await;
        tokio::time::sleep(GOODBYE).await;
        result
    });
    tokio.shutdown_timeout(BLOCKING_WORK_LIMIT);
    result
}

#[cfg(test)]
mod tests {
    use super::{BLOCKING_THREADS_MAX, RoleSettings, run_role, run_role_here, run_role_with};
    use crate::real::spin;
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    #[test]
    fn a_role_runs_on_its_own_named_thread() {
        let role = run_role("test-role", |runtime| async move {
            let name = std::thread::current().name().map(str::to_owned);
            let before = runtime.now();
            runtime.sleep(Duration::from_millis(2)).await;
            let worker = runtime.blocking(|| std::thread::current().name().map(str::to_owned)).await;
            (name, worker, runtime.now().since(before))
        });
        let (name, worker, slept) = role.unwrap().join().unwrap();
        assert_eq!(name.as_deref(), Some("test-role"));
        assert_eq!(worker.as_deref(), Some("test-role-blocking"));
        assert!(slept >= Duration::from_millis(2));
    }

    #[test]
    fn a_spinning_role_still_sleeps_and_ends() {
        let settings = RoleSettings { spin: Duration::from_micros(200), ..RoleSettings::default() };
        let role = run_role_with(settings, "spinning", |runtime| async move {
            for _ in 0..3 {
                spin::touch();
                runtime.sleep(Duration::from_millis(3)).await;
            }
            runtime.blocking(|| 7).await
        });
        assert_eq!(role.unwrap().join().unwrap(), 7);
    }

    #[test]
    fn a_role_has_the_blocking_threads_it_asks_for() {
        let settings = RoleSettings { extra_blocking_threads: 4, ..RoleSettings::default() };
        let role = run_role_with(settings, "many-threads", |runtime| async move {
            // Nobody gets past it before all have got there, each on a thread of its own.
            let all = Arc::new(Barrier::new(BLOCKING_THREADS_MAX + 4));
            for _ in 1..BLOCKING_THREADS_MAX + 4 {
                let all = all.clone();
                runtime.executor.blocking(Box::new(move || {
                    all.wait();
                }));
            }
            runtime.timeout(Duration::from_secs(20), runtime.blocking(move || all.wait())).await.is_ok()
        });
        assert!(role.unwrap().join().unwrap());
    }

    #[test]
    fn a_timeout_ends_what_takes_too_long() {
        let result = run_role_here("here", |runtime| async move {
            let slow = runtime.timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
            let fast = runtime.timeout(Duration::from_secs(60), async { 3 }).await;
            (slow.is_err(), fast.ok())
        });
        assert_eq!(result.unwrap(), (true, Some(3)));
    }
}
