//! A loss of power at every write and every sync: a fixed workload is cut off after n operations of its disk, for every n, and what is
//! left must hold all that was acknowledged. Then the same again while the first recovery is under way.

pub mod chunkserver;
pub mod master;

use cairn_runtime::Runtime;
use cairn_runtime::sim::{Crash, World};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a run of crash points has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations of the disk that the workload takes.
    pub operations: u64,
    /// Losses of power, those in recoveries included.
    pub crashes: u64,
    pub violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations, {} crashes, {} violations", self.operations, self.crashes, self.violations.len())
    }
}

/// A part of the system with a disk of its own, and what it was promised.
trait Subject: Send + Sync + 'static {
    /// Works until it is done or its disk fails, and notes what was acknowledged.
    fn work(self: Arc<Self>, runtime: Runtime) -> impl Future<Output = ()> + Send;
    /// Recovers, and says what is wrong.
    fn recover(self: Arc<Self>, runtime: Runtime) -> impl Future<Output = Vec<String>> + Send;
}

/// How long a workload may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Cuts the workload of `make` off after each of the numbers of operations that `stride` leaves, in a world of each seed.
fn enumerate<S: Subject>(seeds: Range<u64>, stride: u64, make: impl Fn() -> S) -> Report {
    let mut report = Report::default();
    for seed in seeds {
        let (total, violations) = crash_after(seed, u64::MAX, None, make());
        report.operations = report.operations.max(total);
        report.violations.extend(violations.into_iter().map(|text| format!("seed {seed}, no crash: {text}")));
        for point in (seed % stride..total).step_by(stride as usize) {
            // Every third time the power goes again while the first recovery is under way.
            let second = (point.is_multiple_of(3)).then_some(point / 3 % 40);
            let (_, violations) = crash_after(seed, point, second, make());
            report.crashes += 1 + u64::from(second.is_some());
            let named = violations.into_iter().map(|text| format!("seed {seed}, crash after {point} operations, then {second:?}: {text}"));
            report.violations.extend(named);
        }
    }
    report
}

/// Operations that the workload has done, and what is wrong afterwards.
fn crash_after<S: Subject>(seed: u64, point: u64, second: Option<u64>, subject: S) -> (u64, Vec<String>) {
    let world = World::new(seed);
    let node = world.node("machine");
    let subject = Arc::new(subject);
    world.run_until(async {
        let begun = node.runtime();
        let before = node.disk().operations();
        if point < u64::MAX {
            node.disk().power_off_after(point);
        }
        if in_life(&world, &begun, subject.clone().work(begun.clone())).await == Life::Hangs {
            return (0, vec!["the workload hangs".to_owned()]);
        }
        let operations = node.disk().operations() - before;
        node.crash(Crash::PowerLoss);
        for planned in second.map(Some).into_iter().chain([None]) {
            let next = node.runtime();
            if let Some(count) = planned {
                node.disk().power_off_after(count);
            }
            match in_life(&world, &next, subject.clone().recover(next.clone())).await {
                Life::Done(violations) if violations.is_empty() => {}
                // What goes wrong on a disk that fails at that moment is no more than a failed start.
                Life::Done(_) if node.disk().has_crashed() => {}
                Life::Done(violations) => return (operations, violations),
                Life::Crashed if planned.is_some() => {}
                Life::Crashed | Life::Hangs => return (operations, vec!["does not recover on a healthy disk".to_owned()]),
            }
            node.crash(Crash::PowerLoss);
        }
        (operations, Vec::new())
    })
}

/// How something that ran in one life of a node has ended.
#[derive(PartialEq, Eq)]
enum Life<T> {
    Done(T),
    Crashed,
    Hangs,
}

async fn in_life<T: Send + 'static>(world: &World, runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> Life<T> {
    let (sender, receiver) = oneshot::channel();
    runtime.spawn("subject", async move {
        // Whoever waits may have gone.
        let _ = sender.send(work.await);
    });
    tokio::select! {
        biased;
        done = receiver => done.map_or(Life::Crashed, Life::Done),
        () = world.sleep(LIMIT) => Life::Hangs,
    }
}

#[cfg(test)]
mod tests {
    use super::{chunkserver, master};

    #[test]
    fn a_master_loses_nothing_at_any_operation_of_its_disk() {
        let report = master::enumerate(0..1, 1);
        assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations);
        assert!(report.operations > 100, "{report}");
    }

    #[test]
    fn a_chunkserver_loses_nothing_at_any_operation_of_its_disk() {
        let report = chunkserver::enumerate(0..1, 1);
        assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations);
        assert!(report.operations > 100, "{report}");
    }
}
