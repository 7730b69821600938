use crate::sim::{Crash, World, block_on_world, for_each_seed};
use crate::task::TaskHandle;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

const MILLISECOND: Duration = Duration::from_millis(1);

fn panic_text(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("it must panic");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn timers_fire_in_order_and_exactly_on_time() {
    block_on_world(1, |world| async move {
        let runtime = world.node("a").runtime();
        let (sender, mut fired) = mpsc::channel(16);
        for delay in [30, 10, 20, 10, 0] {
            let (timer, sender) = (runtime.clone(), sender.clone());
            runtime.spawn("timer", async move {
                timer.sleep(MILLISECOND * delay).await;
                sender.send((delay, timer.now())).await.unwrap();
            });
        }
        let begin = runtime.now();
        for expected in [0, 10, 10, 20, 30] {
            let (delay, moment) = fired.recv().await.unwrap();
            assert_eq!(delay, expected);
            assert_eq!(moment.since(begin), MILLISECOND * expected);
        }
    });
}

#[test]
fn timeout_gives_up_on_time_and_lets_the_quick_through() {
    block_on_world(1, |world| async move {
        let runtime = world.node("a").runtime();
        let begin = runtime.now();
        assert!(runtime.timeout(MILLISECOND * 5, std::future::pending::<()>()).await.is_err());
        assert_eq!(runtime.now().since(begin), MILLISECOND * 5);
        assert_eq!(runtime.timeout(MILLISECOND * 5, async { 7 }).await, Ok(7));
    });
}

#[test]
fn blocking_work_runs_later_and_even_if_nobody_waits() {
    block_on_world(1, |world| async move {
        let runtime = world.node("a").runtime();
        let begin = runtime.now();
        assert_eq!(runtime.blocking(|| 40 + 2).await, 42);
        let taken = runtime.now().since(begin);
        assert!(taken >= Duration::from_micros(1) && taken <= Duration::from_micros(500), "{taken:?}");

        let ran = Arc::new(AtomicU32::new(0));
        let counter = ran.clone();
        let work = runtime.blocking(move || counter.fetch_add(1, Ordering::Relaxed));
        assert!(runtime.timeout(Duration::from_nanos(1), work).await.is_err());
        runtime.sleep(MILLISECOND).await;
        assert_eq!(ran.load(Ordering::Relaxed), 1);
    });
}

/// Tells when it is dropped.
struct Tombstone(Arc<AtomicU32>);

impl Drop for Tombstone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_crash_drops_the_tasks_and_the_blocking_work_of_its_node_only() {
    block_on_world(1, |world| async move {
        let (crashed, other) = (world.node("crashed"), world.node("other"));
        let dropped = Arc::new(AtomicU32::new(0));
        let bell = Arc::new(Notify::new());
        let spawn = |node: &crate::sim::Node| -> TaskHandle {
            let (runtime, stone, bell) = (node.runtime(), Tombstone(dropped.clone()), bell.clone());
            runtime.clone().spawn("waits", async move {
                let _stone = stone;
                bell.notified().await;
                runtime.sleep(Duration::from_secs(1000)).await;
            })
        };
        let (lost, kept) = (spawn(&crashed), spawn(&other));
        world.sleep(MILLISECOND).await;
        crashed.crash(Crash::Kill);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert!(lost.is_finished() && !kept.is_finished());
        // The waker of the dead task may be anywhere: it must do nothing.
        bell.notify_waiters();
        world.sleep(MILLISECOND).await;
        assert!(!crashed.is_running() && other.is_running());
    });
}

#[test]
fn a_dead_life_can_neither_spawn_nor_work() {
    block_on_world(1, |world| async move {
        let node = world.node("a");
        let dead = node.runtime();
        let ran = Arc::new(AtomicU32::new(0));
        let counter = ran.clone();
        dead.executor.blocking(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        let _next = node.runtime();
        let counter = ran.clone();
        let task = dead.spawn("zombie", async move {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        assert!(task.is_finished());
        world.sleep(MILLISECOND * 10).await;
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_destructor_may_use_the_world_while_its_node_crashes() {
    struct Meddler(crate::Runtime);
    impl Drop for Meddler {
        fn drop(&mut self) {
            self.0.spawn("never runs", std::future::pending());
            assert!(self.0.disk.create_directory_all("/never".as_ref()).is_err());
        }
    }
    block_on_world(1, |world| async move {
        let node = world.node("a");
        let runtime = node.runtime();
        let meddler = Meddler(runtime.clone());
        runtime.spawn("holds", async move {
            let _meddler = meddler;
            std::future::pending::<()>().await;
        });
        world.sleep(MILLISECOND).await;
        node.crash(Crash::PowerLoss);
    });
}

#[test]
fn abort_ends_a_task_at_its_await() {
    block_on_world(1, |world| async move {
        let runtime = world.node("a").runtime();
        let dropped = Arc::new(AtomicU32::new(0));
        let stone = Tombstone(dropped.clone());
        let task = runtime.spawn("forever", async move {
            let _stone = stone;
            std::future::pending::<()>().await;
        });
        runtime.sleep(MILLISECOND).await;
        assert!(!task.is_finished());
        drop(task.clone().abort_on_drop());
        runtime.sleep(MILLISECOND).await;
        assert!(task.is_finished());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn different_seeds_explore_different_interleavings() {
    let orders: Mutex<Vec<Vec<u32>>> = Mutex::default();
    for_each_seed(20, |seed| {
        let order: Arc<Mutex<Vec<u32>>> = Arc::default();
        let result = order.clone();
        block_on_world(seed, |world| async move {
            let runtime = world.node("a").runtime();
            for number in 0..4 {
                let order = order.clone();
                runtime.spawn("append", async move { order.lock().push(number) });
            }
            runtime.sleep(MILLISECOND).await;
        });
        orders.lock().push(result.lock().clone());
    });
    let mut orders = orders.into_inner();
    orders.sort();
    orders.dedup();
    assert!(orders.len() > 5, "only {orders:?}");
}

#[test]
fn the_panic_of_a_task_names_the_task() {
    let text = panic_text(|| {
        block_on_world(1, |world| async move {
            let runtime = world.node("unlucky").runtime();
            runtime.spawn("breaks", async { panic!("number {}", 13) });
            runtime.sleep(MILLISECOND).await;
        });
    });
    assert_eq!(text, "the task \"breaks\" of unlucky panicked: number 13");
}

#[test]
fn a_deadlock_and_a_passed_limit_are_told() {
    let text = panic_text(|| {
        block_on_world(1, |world| async move {
            let runtime = world.node("a").runtime();
            runtime.spawn("stuck", std::future::pending());
            std::future::pending::<()>().await;
        });
    });
    assert!(text.contains("deadlock") && text.contains("a: stuck"), "{text}");

    let text = panic_text(|| {
        let world = World::new(1);
        world.set_time_limit(Duration::from_secs(10));
        world.run_for(Duration::from_secs(11));
    });
    assert!(text.contains("time limit"), "{text}");
}

#[test]
fn wall_clocks_differ_by_their_skew_and_monotonic_ones_do_not() {
    block_on_world(1, |world| async move {
        let (a, b) = (world.node("a"), world.node("b"));
        let (here, there) = (a.runtime(), b.runtime());
        assert_eq!(here.wall(), there.wall());
        b.set_clock_skew(-2_000_000_000);
        world.sleep(Duration::from_secs(1)).await;
        assert_eq!(here.wall().since(there.wall()), Duration::from_secs(2));
        assert_eq!(here.now(), there.now());
    });
}

#[test]
fn randomness_differs_by_node_and_life_but_not_by_run() {
    let draw = |seed| {
        block_on_world(seed, |world| async move {
            let (a, b) = (world.node("a"), world.node("b"));
            [a.runtime().random_u64(), a.runtime().random_u64(), b.runtime().random_u64()]
        })
    };
    let first = draw(5);
    assert_eq!(first, draw(5));
    assert_ne!(first, draw(6));
    assert!(first[0] != first[1] && first[0] != first[2]);
}
