//! One seed, one world: clients work while things break, then everything is healed and has to work, and then all that was promised is looked for.
//!
//! [`plan`] says what kind of world it is, [`machines`] keeps the roles running, [`weather`] breaks things, [`client`] works and tells [`history`]
//! what it was promised, [`inspection`] looks at what is left, and [`crate::checkers`] judge.

pub mod client;
pub mod dice;
pub mod history;
pub mod inspection;
pub mod machines;
pub mod plan;
pub mod weather;

use crate::checkers::{Violation, check_all};
use crate::cluster::SimCluster;
use cairn_common::limits::DELETION_GRACE;
use cairn_runtime::sim::{NetworkFaults, World};
use history::{Counts, Shared};
use inspection::Findings;
use machines::Machines;
use plan::{Mood, Plan};
use std::sync::Arc;
use std::time::Duration;
use weather::Weather;

/// How long clients may take for what they do while things break, in virtual time beyond the naps.
const WORK_LIMIT: Duration = Duration::from_secs(3 * 3600);
/// ... and after everything was healed.
const PROGRESS_LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(50);

/// What became of a world.
pub struct Outcome {
    pub plan: Plan,
    pub digest: u64,
    /// Virtual time that it lasted.
    pub lasted: Duration,
    pub operations: Counts,
    pub faults: Counts,
    pub violations: Vec<Violation>,
    /// Every event, if asked for.
    pub trace: Vec<String>,
}

/// Lives through the world of a seed. Panics if something in it does.
pub fn live_through(seed: u64, with_trace: bool) -> Outcome {
    let world = World::new(seed);
    world.set_time_limit(WORK_LIMIT * 2);
    if with_trace {
        world.collect_trace();
    }
    let plan = Plan::draw(&world);
    world.note(&format!("{plan:?}"));
    let shared = Arc::new(Shared::new(world.clone(), plan.clone()));
    let findings = world.run_until(story(shared.clone()));
    let history = shared.history();
    let during = history.violations.iter().map(|text| Violation { checker: "clients", text: text.clone() });
    let violations = during.chain(check_all(&history, &findings)).collect();
    Outcome {
        plan,
        digest: world.trace_digest(),
        lasted: Duration::from_nanos(world.now().nanos()),
        operations: history.operations.clone(),
        faults: history.faults.clone(),
        violations,
        trace: world.trace(),
    }
}

async fn story(shared: Arc<Shared>) -> Findings {
    let world = shared.world.clone();
    let cluster = SimCluster::off(world.clone(), shared.plan.scheme, shared.plan.chunkservers);
    let machines = Machines::new(cluster, shared.clone());
    let mut findings = Findings {
        had_blackout: shared.plan.has_blackout(),
        was_calm: shared.plan.mood == Mood::Calm,
        is_collected: shared.plan.patience,
        ..Findings::default()
    };
    tokio::select! {
        biased;
        () = machines.look_after() => {}
        () = act(&machines, &mut findings) => {}
    }
    machines.stop_all();
    findings.look_at_disks(&machines).await;
    findings
}

/// First trouble and safety, then health and progress, then a look at everything.
async fn act(machines: &Machines, findings: &mut Findings) {
    let shared = &machines.shared;
    let weather = Weather::new(machines);
    weather.rage().await;
    wait_for_clients(shared, WORK_LIMIT, "while things broke").await;
    heal(machines).await;
    shared.history().is_healed = true;
    shared.history().finished.fill(false);
    wait_for_clients(shared, PROGRESS_LIMIT, "although everything was healed").await;
    if findings.is_collected {
        shared.world.sleep(DELETION_GRACE + DELETION_GRACE / 5).await;
    }
    let (_, observer) = machines.cluster.client("observer").await;
    findings.look_through(shared, &observer).await;
    let _ = observer.shutdown().await;
}

async fn heal(machines: &Machines) {
    let (shared, world) = (&machines.shared, &machines.shared.world);
    world.note("everything heals");
    world.network().heal();
    world.network().set_faults(NetworkFaults::default());
    machines.release_all();
    world.sleep(Duration::from_secs(2)).await;
    if shared.plan.has_blackout() {
        shared.count_fault("blackout");
        machines.black_out();
        world.sleep(Duration::from_secs(1)).await;
        machines.release_all();
    }
    let (_, observer) = machines.cluster.client("healer").await;
    machines.cluster.wait_until_whole(&observer).await;
    let _ = observer.shutdown().await;
    shared.history().failures_excused = false;
}

async fn wait_for_clients(shared: &Shared, limit: Duration, when: &str) {
    let deadline = shared.world.now().plus(limit);
    while !shared.history().finished.iter().all(|finished| *finished) {
        if shared.world.now() > deadline {
            return shared.violation(format!("the clients did not get their work done within {limit:?} {when}"));
        }
        shared.world.sleep(POLL).await;
    }
}
