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
use cairn_client::FileSystem;
use cairn_common::limits::DELETION_GRACE;
use cairn_runtime::sim::{NetworkFaults, World};
use history::{Counts, Shared, Workplace};
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
/// Written data is with the cluster after this time even if nobody asks: its age, and that of its commit, with some room.
const WRITTEN_BACK_AFTER: Duration = Duration::from_secs(10);
const CONNECT_TRIES: usize = 12;
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
    Weather::new(machines).rage().await;
    shared.history().is_stormy = false;
    wait_for_clients(shared, WORK_LIMIT, "while things broke").await;
    heal(machines).await;
    if !work_again(shared).await {
        return;
    }
    // By now even what nobody has closed is with the cluster.
    shared.world.sleep(WRITTEN_BACK_AFTER).await;
    shared.history().workplaces.iter_mut().for_each(Workplace::written_back);
    if findings.is_collected {
        shared.world.sleep(DELETION_GRACE + DELETION_GRACE / 5).await;
    }
    if let Some(observer) = connect(machines, "observer").await {
        findings.look_through(shared, &observer).await;
        let _ = observer.shutdown().await;
    }
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
    if let Some(observer) = connect(machines, "healer").await {
        tokio::select! {
            biased;
            () = machines.cluster.wait_until_whole(&observer) => {}
            () = world.sleep(PROGRESS_LIMIT) => shared.violation("some chunkserver does not serve, although everything was healed".to_owned()),
        }
        let _ = observer.shutdown().await;
    }
}

/// Everybody does a little more, and everything has to work.
async fn work_again(shared: &Shared) -> bool {
    {
        let mut history = shared.history();
        history.failures_excused = false;
        history.is_healed = true;
        history.finished.fill(false);
    }
    wait_for_clients(shared, PROGRESS_LIMIT, "although everything was healed").await
}

/// A client of those who look at the world from outside.
async fn connect(machines: &Machines, name: &str) -> Option<FileSystem> {
    let runtime = machines.cluster.world.node(name).runtime();
    for _ in 0..CONNECT_TRIES {
        let settings = machines.cluster.client_settings(name);
        if let Ok(fs) = FileSystem::connect(runtime.clone(), settings).await {
            return Some(fs);
        }
    }
    machines.shared.violation("no client can connect, although everything was healed".to_owned());
    None
}

/// Whether they have got it done.
async fn wait_for_clients(shared: &Shared, limit: Duration, when: &str) -> bool {
    let deadline = shared.world.now().plus(limit);
    while !shared.history().finished.iter().all(|finished| *finished) {
        if shared.world.now() > deadline {
            shared.violation(format!("the clients did not get their work done within {limit:?} {when}"));
            return false;
        }
        shared.world.sleep(POLL).await;
    }
    true
}
