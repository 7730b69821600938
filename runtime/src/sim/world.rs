//! The world: its nodes, and the loop that drives them.

use crate::clock::Moment;
use crate::sim::clock::Sleep;
use crate::sim::disk::SimDisk;
use crate::sim::executor::{Scheduler, Step, TaskControl};
use crate::sim::network::SimNetwork;
use crate::sim::node::{Crash, Node, NodeId, NodeState};
use crate::sim::trace::{Event, Now, Trace};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Virtual time that one `run_until` may take, unless told otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Polls at one moment of virtual time after which the world counts as spinning.
const POLLS_AT_ONE_MOMENT_MAX: u64 = 5_000_000;

/// What all parts of a world share.
pub(super) struct Shared {
    pub(super) seed: u64,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) trace: Arc<Trace>,
    pub(super) network: SimNetwork,
    nodes: Mutex<Vec<Arc<NodeState>>>,
    time_limit_nanos: AtomicU64,
    /// Whether `run_until` is on the stack.
    running: AtomicBool,
}

impl Shared {
    fn new(seed: u64) -> Self {
        let now = Now::default();
        let trace = Arc::new(Trace::new(now.clone()));
        let scheduler = Arc::new(Scheduler::new(seed, now, trace.clone()));
        Self {
            seed,
            network: SimNetwork::new(seed, scheduler.clone(), trace.clone()),
            scheduler,
            trace,
            nodes: Mutex::default(),
            time_limit_nanos: AtomicU64::new(TIME_LIMIT.as_nanos() as u64),
            running: AtomicBool::new(false),
        }
    }

    /// Ends every life and breaks the circles of references between tasks and world.
    fn end(&self) {
        let nodes = self.nodes.lock().clone();
        for node in nodes {
            node.end_life(self, Crash::Kill);
        }
        self.scheduler.drop_work_of(|_| true);
        self.network.clear();
        self.scheduler.drop_timers();
    }

    fn crash_failed_nodes(&self) {
        for id in self.scheduler.take_failed_nodes() {
            let node = self.nodes.lock()[id.0 as usize].clone();
            node.end_life(self, Crash::PowerLoss);
        }
    }
}

/// A simulated world. A clone is another handle; the world ends when the handle that `World::new` gave is dropped.
pub struct World {
    shared: Arc<Shared>,
    is_owner: bool,
}

impl World {
    /// The world of a seed, empty.
    pub fn new(seed: u64) -> Self {
        Self { shared: Arc::new(Shared::new(seed)), is_owner: true }
    }

    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The node of a name, made at its first mention.
    pub fn node(&self, name: &str) -> Node {
        let mut nodes = self.shared.nodes.lock();
        let found = nodes.iter().find(|node| node.name() == name).cloned();
        let state = found.unwrap_or_else(|| {
            let id = NodeId(u32::try_from(nodes.len()).expect("fewer than 2^32 nodes"));
            let disk = SimDisk::new(self.shared.seed, id, name, self.shared.scheduler.clone(), self.shared.trace.clone());
            let state = Arc::new(NodeState::new(id, name, disk));
            nodes.push(state.clone());
            state
        });
        Node { shared: self.shared.clone(), state }
    }

    /// The network, to set its faults.
    pub fn network(&self) -> SimNetwork {
        self.shared.network.clone()
    }

    /// Virtual time since the world began.
    pub fn now(&self) -> Moment {
        self.shared.scheduler.now()
    }

    /// Waits in virtual time; for the future that `run_until` drives.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        Sleep::new(self.shared.scheduler.clone(), self.now().plus(duration))
    }

    /// Sets the virtual time that one `run_until` may take.
    pub fn set_time_limit(&self, limit: Duration) {
        self.shared.time_limit_nanos.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Drives everything until `future` is ready.
    ///
    /// # Panics
    /// If the future can never become ready (nothing is ready, no timer runs), if the time limit passes, if the world spins without time
    /// moving, or if a task panics. The message names the seed.
    pub fn run_until<F: Future>(&self, future: F) -> F::Output {
        let was_running = self.shared.running.swap(true, Ordering::Relaxed);
        assert!(!was_running, "run_until must not be called inside the world; await the future instead");
        let _epitaph = Epitaph(&self.shared);
        let limit = self.now().plus(Duration::from_nanos(self.shared.time_limit_nanos.load(Ordering::Relaxed)));
        let control = self.shared.scheduler.new_control();
        control.enqueue();
        let mut root = Root { waker: Waker::from(control.clone()), control, future: pin!(future) };
        let (mut moment, mut polls) = (self.now(), 0);
        loop {
            let next = self.shared.scheduler.next(limit);
            match next {
                Step::Poll(id) if id == root.control.id() => {
                    if let Poll::Ready(output) = root.poll(&self.shared.trace) {
                        self.shared.crash_failed_nodes();
                        return output;
                    }
                }
                Step::Poll(id) => self.judge(self.shared.scheduler.poll(id)),
                Step::Fire(timers) => {
                    for timer in timers {
                        self.judge(self.shared.scheduler.fire(timer));
                    }
                }
                Step::Idle => self.give_up("nothing will ever happen again, but the test still waits (deadlock)"),
                Step::PastLimit => self.give_up("the time limit passed (World::set_time_limit)"),
            }
            self.shared.crash_failed_nodes();
            polls = if self.now() == moment { polls + 1 } else { 0 };
            moment = self.now();
            if polls > POLLS_AT_ONE_MOMENT_MAX {
                self.give_up("tasks wake each other without end while no time passes (livelock)");
            }
        }
    }

    /// Lets a stretch of virtual time pass.
    pub fn run_for(&self, duration: Duration) {
        self.run_until(self.sleep(duration));
    }

    /// Collects the trace as text from now on.
    pub fn collect_trace(&self) {
        self.shared.trace.collect_text();
    }

    /// What was collected since `collect_trace`: one line for each event, beginning with the virtual time in seconds.
    pub fn trace(&self) -> Vec<String> {
        self.shared.trace.text()
    }

    /// Fingerprint of everything that has happened. Equal seeds and equal programs give equal fingerprints.
    pub fn trace_digest(&self) -> u64 {
        self.shared.trace.digest()
    }

    /// Adds a line of the test's own to the trace, and to its digest.
    pub fn note(&self, text: &str) {
        self.shared.trace.add(Event::Note { text });
    }

    fn judge(&self, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            panic!("{reason}");
        }
    }

    fn give_up(&self, reason: &str) -> ! {
        panic!("{reason}. Tasks that exist:\n{}", self.shared.scheduler.describe_tasks());
    }
}

impl Clone for World {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), is_owner: false }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.is_owner {
            self.shared.end();
        }
    }
}

/// The future that the test waits for.
struct Root<'a, F> {
    control: Arc<TaskControl>,
    waker: Waker,
    future: std::pin::Pin<&'a mut F>,
}

impl<F: Future> Root<'_, F> {
    fn poll(&mut self, trace: &Trace) -> Poll<F::Output> {
        self.control.begin_poll();
        trace.add(Event::TaskPolled { task: self.control.id() });
        let poll = self.future.as_mut().poll(&mut Context::from_waker(&self.waker));
        if poll.is_ready() {
            self.control.finish();
        }
        poll
    }
}

/// Leaves the world in order, and says how to see a failure again.
struct Epitaph<'a>(&'a Shared);

impl Drop for Epitaph<'_> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
        if std::thread::panicking() {
            let seed = self.0.seed;
            let time = Duration::from_nanos(self.0.scheduler.now().nanos());
            eprintln!(
                "The simulated world of seed {seed} failed at {time:?} of virtual time. CAIRN_SIM_SEED={seed} replays it; CAIRN_SIM_TRACE=1 prints its events."
            );
        }
    }
}

/// Runs one future in the world of a seed and ends the world.
pub fn block_on_world<T, F: Future<Output = T>>(seed: u64, body: impl FnOnce(World) -> F) -> T {
    let world = World::new(seed);
    world.run_until(body(world.clone()))
}

/// Calls `body` with the seeds `0..count`, one after the other. The environment may say otherwise: `CAIRN_SIM_SEED=n` replays that one seed,
/// `CAIRN_SIM_SEEDS=n` tries n of them (for a long night).
pub fn for_each_seed(count: u64, body: impl Fn(u64)) {
    if let Some(seed) = number_from_environment("CAIRN_SIM_SEED") {
        return body(seed);
    }
    let count = number_from_environment("CAIRN_SIM_SEEDS").unwrap_or(count);
    for seed in 0..count {
        body(seed);
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}
