//! Tasks and timers. The scheduler picks at random, by the seed, among the tasks that are ready: that explores
//! interleavings. No lock of this module is held while a task is polled or dropped.

use crate::clock::Moment;
use crate::sim::disk::SimDisk;
use crate::sim::node::{Life, NodeId};
use crate::sim::random::Random;
use crate::sim::trace::{Event, Now, Trace};
use crate::task::{Abort, BoxFuture, Executor, TaskHandle};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Blocking work begins this long after it was asked for, at most, on a disk of normal speed.
const BLOCKING_DELAY_NANOS_MAX: u64 = 500_000;

pub(super) type TaskId = u64;

/// A timer, in the order in which timers fire.
pub(super) type TimerKey = (Moment, u64);

/// What happens when a timer fires.
pub(super) enum Timer {
    Wake(Waker),
    /// Blocking work of a life, or a message that arrives (of no life).
    Run(Option<Arc<Life>>, Box<dyn FnOnce() + Send>),
}

/// What the world must do next.
pub(super) enum Step {
    Poll(TaskId),
    Fire(Vec<Timer>),
    /// Nothing is ready and no timer runs.
    Idle,
    /// The next timer lies beyond the limit.
    PastLimit,
}

struct Task {
    name: &'static str,
    life: Arc<Life>,
    /// Taken out while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    control: Arc<TaskControl>,
}

/// Wakes and aborts one task. May outlive it.
pub(super) struct TaskControl {
    id: TaskId,
    ready: Arc<Mutex<Vec<TaskId>>>,
    queued: AtomicBool,
    aborted: AtomicBool,
    finished: AtomicBool,
}

impl TaskControl {
    pub(super) fn id(&self) -> TaskId {
        self.id
    }

    pub(super) fn enqueue(&self) {
        if !self.finished.load(Ordering::Relaxed) && !self.queued.swap(true, Ordering::Relaxed) {
            // In order of id: tokio's `watch` wakes its waiters in an order drawn from a generator that nobody can seed.
            let mut ready = self.ready.lock();
            let place = ready.partition_point(|other| *other < self.id);
            ready.insert(place, self.id);
        }
    }

    /// To be called before a poll: from here on, waking means another poll.
    pub(super) fn begin_poll(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }

    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }
}

impl Wake for TaskControl {
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}

impl Abort for TaskControl {
    fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.enqueue();
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

/// All tasks and timers of a world.
pub(super) struct Scheduler {
    now: Now,
    trace: Arc<Trace>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    state: Mutex<State>,
    /// Nodes whose power failed in the middle of a poll: they crash right after it.
    failed_nodes: Mutex<Vec<NodeId>>,
}

struct State {
    random: Random,
    tasks: BTreeMap<TaskId, Task>,
    timers: BTreeMap<TimerKey, Timer>,
    next_id: u64,
}

impl State {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Scheduler {
    pub(super) fn new(seed: u64, now: Now, trace: Arc<Trace>) -> Self {
        let random = Random::derive(seed, "scheduler");
        let state = State { random, tasks: BTreeMap::new(), timers: BTreeMap::new(), next_id: 0 };
        Self { now, trace, ready: Arc::default(), state: Mutex::new(state), failed_nodes: Mutex::default() }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::from_nanos(self.now.nanos())
    }

    /// A waker for something that is not a task of a node: the future that a test waits for.
    pub(super) fn new_control(&self) -> Arc<TaskControl> {
        let id = self.state.lock().fresh_id();
        Arc::new(TaskControl {
            id,
            ready: self.ready.clone(),
            queued: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        })
    }

    pub(super) fn spawn(&self, life: &Arc<Life>, name: &'static str, future: BoxFuture<'static, ()>) -> Arc<TaskControl> {
        let control = self.new_control();
        if life.has_ended() {
            control.finish();
            return control;
        }
        let task = Task { name, life: life.clone(), future: Some(future), control: control.clone() };
        self.state.lock().tasks.insert(control.id, task);
        self.trace.add(Event::TaskStarted { node: life.node, task: control.id, name });
        control.enqueue();
        control
    }

    pub(super) fn wake_at(&self, moment: Moment, waker: Waker) -> TimerKey {
        self.add_timer(moment, Timer::Wake(waker))
    }

    pub(super) fn run_at(&self, moment: Moment, life: Option<Arc<Life>>, work: Box<dyn FnOnce() + Send>) {
        self.add_timer(moment, Timer::Run(life, work));
    }

    fn add_timer(&self, moment: Moment, timer: Timer) -> TimerKey {
        let mut state = self.state.lock();
        let key = (moment, state.fresh_id());
        state.timers.insert(key, timer);
        key
    }

    /// Runs blocking work of a life, some time from now.
    fn run_soon(&self, life: &Arc<Life>, slowness: u64, work: Box<dyn FnOnce() + Send>) {
        let delay = 1_000 + self.state.lock().random.below(BLOCKING_DELAY_NANOS_MAX - 1_000);
        let delay = Duration::from_nanos(delay.saturating_mul(slowness));
        self.run_at(self.now().plus(delay), Some(life.clone()), work);
    }

    /// Replaces the waker of a timer that has not fired yet.
    pub(super) fn rewake(&self, key: TimerKey, waker: Waker) {
        let old = match self.state.lock().timers.get_mut(&key) {
            Some(Timer::Wake(old)) => Some(std::mem::replace(old, waker)),
            Some(Timer::Run(..)) | None => None,
        };
        drop(old);
    }

    pub(super) fn cancel(&self, key: TimerKey) {
        let timer = self.state.lock().timers.remove(&key);
        drop(timer);
    }

    /// Picks what happens next. Moves the time if it must, but not beyond `limit`.
    pub(super) fn next(&self, limit: Moment) -> Step {
        let mut state = self.state.lock();
        let mut ready = self.ready.lock();
        if !ready.is_empty() {
            let index = state.random.index(ready.len());
            return Step::Poll(ready.remove(index));
        }
        drop(ready);
        let Some((&(moment, _), _)) = state.timers.first_key_value() else { return Step::Idle };
        if moment > limit {
            return Step::PastLimit;
        }
        self.now.advance_to(moment.nanos());
        let later = state.timers.split_off(&(Moment::from_nanos(moment.nanos().saturating_add(1)), 0));
        let due = std::mem::replace(&mut state.timers, later);
        Step::Fire(due.into_values().collect())
    }

    /// Polls a task once. The error says which task panicked, and why.
    pub(super) fn poll(&self, id: TaskId) -> Result<(), String> {
        let (name, life, future, control) = {
            let mut state = self.state.lock();
            let Some(task) = state.tasks.get_mut(&id) else { return Ok(()) };
            (task.name, task.life.clone(), task.future.take(), task.control.clone())
        };
        let Some(mut future) = future else { return Ok(()) };
        control.begin_poll();
        self.trace.add(Event::TaskPolled { task: id });
        let waker = Waker::from(control.clone());
        let aborted = control.aborted.load(Ordering::Relaxed);
        let outcome = if aborted {
            Ok(Poll::Ready(()))
        } else {
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))))
        };
        let mut future = Some(future);
        if let (Ok(Poll::Pending), Some(task)) = (&outcome, self.state.lock().tasks.get_mut(&id)) {
            task.future = future.take();
        }
        if let Some(future) = future {
            drop(future);
            let task = self.state.lock().tasks.remove(&id);
            drop(task);
            control.finish();
            self.trace.add(Event::TaskEnded { task: id, name });
        }
        outcome.map(|_| ()).map_err(|panic| format!("the task {name:?} of {} panicked: {}", life.name, panic_text(panic.as_ref())))
    }

    /// Does what a timer is for. The error says what panicked.
    pub(super) fn fire(&self, timer: Timer) -> Result<(), String> {
        match timer {
            Timer::Wake(waker) => waker.wake(),
            Timer::Run(None, work) => work(),
            Timer::Run(Some(life), work) => {
                if life.has_ended() {
                    return Ok(());
                }
                self.trace.add(Event::BlockingRan { node: life.node });
                catch_unwind(AssertUnwindSafe(work))
                    .map_err(|panic| format!("blocking work of {} panicked: {}", life.name, panic_text(panic.as_ref())))?;
            }
        }
        Ok(())
    }

    /// Drops all tasks and all blocking work of the lives that `ends` names (they must have been marked as ended).
    pub(super) fn drop_work_of(&self, ends: impl Fn(&Life) -> bool) {
        let (tasks, timers) = {
            let mut state = self.state.lock();
            let is_over = |timer: &Timer| matches!(timer, Timer::Run(Some(life), _) if ends(life));
            let tasks = take_where(&mut state.tasks, |task| ends(&task.life));
            let timers = take_where(&mut state.timers, is_over);
            (tasks, timers)
        };
        for task in tasks {
            task.control.finish();
            drop(task);
        }
        drop(timers);
    }

    /// Drops every timer: the world ends.
    pub(super) fn drop_timers(&self) {
        let timers = std::mem::take(&mut self.state.lock().timers);
        drop(timers);
    }

    pub(super) fn fail_node(&self, node: NodeId) {
        self.failed_nodes.lock().push(node);
    }

    pub(super) fn take_failed_nodes(&self) -> Vec<NodeId> {
        std::mem::take(&mut self.failed_nodes.lock())
    }

    /// The tasks that exist, for a message to a human.
    pub(super) fn describe_tasks(&self) -> String {
        const SHOWN: usize = 40;
        let state = self.state.lock();
        let mut lines: Vec<String> = state.tasks.values().take(SHOWN).map(|task| format!("  {}: {}", task.life.name, task.name)).collect();
        if state.tasks.len() > SHOWN {
            lines.push(format!("  and {} more", state.tasks.len() - SHOWN));
        }
        lines.join("\n")
    }
}

/// Takes the values that `wanted` names out of a map, in order of their keys.
fn take_where<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, wanted: impl Fn(&V) -> bool) -> Vec<V> {
    let keys: Vec<K> = map.iter().filter(|(_, value)| wanted(value)).map(|(key, _)| *key).collect();
    keys.iter().filter_map(|key| map.remove(key)).collect()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}

/// The executor of one life of a node.
pub(super) struct SimExecutor {
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) life: Arc<Life>,
    pub(super) disk: SimDisk,
}

impl Executor for SimExecutor {
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> TaskHandle {
        TaskHandle::new(self.scheduler.spawn(&self.life, name, future))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) {
        if self.life.has_ended() {
            return;
        }
        self.scheduler.run_soon(&self.life, self.disk.slowness(), work);
    }
}
