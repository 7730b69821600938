//! Master, six chunkservers and two clients in one seeded world, with crashes and lost messages, against a model.

use cairn_common::scheme::Scheme;
use cairn_runtime::sim::{Crash, NetworkFaults, World, for_each_seed};
use cairn_tests::cluster::SimCluster;
use cairn_tests::workload::Workload;
use std::time::Duration;

const CHUNKSERVERS: usize = 6;
const STEPS: usize = 30;

/// What a world was like: its fingerprint, how long it lasted, and if wanted its events.
struct Story {
    digest: u64,
    nanos: u64,
    events: Vec<String>,
}

fn live_through(seed: u64, with_events: bool) -> Story {
    let world = World::new(seed);
    world.set_time_limit(Duration::from_secs(3600));
    if with_events {
        world.collect_trace();
    }
    world.run_until(story(world.clone()));
    Story { digest: world.trace_digest(), nanos: world.now().nanos(), events: world.trace() }
}

async fn story(world: World) {
    let cluster = SimCluster::start(world.clone(), Scheme::new(4, 2).unwrap(), CHUNKSERVERS).await;
    let (first_runtime, first_fs) = cluster.client("client-1").await;
    let (second_runtime, second_fs) = cluster.client("client-2").await;
    cluster.wait_until_whole(&first_fs).await;
    cluster.wait_until_whole(&second_fs).await;
    let mut first = Workload::new(first_runtime, first_fs, "first").await;
    let mut second = Workload::new(second_runtime, second_fs, "second").await;
    world.network().set_faults(NetworkFaults::lossy());
    let trouble = trouble(&cluster);
    futures_util::join!(first.run(STEPS), second.run(STEPS), trouble);
    world.network().set_faults(NetworkFaults::default());
    let (_, observer) = cluster.client("observer").await;
    first.compare_all_through(&observer).await.expect("the first client's files are readable");
    second.compare_all_through(&observer).await.expect("the second client's files are readable");
}

/// Kills the master and chunkservers (never more than two of these at a time) while the clients work.
async fn trouble(cluster: &SimCluster) {
    let world = &cluster.world;
    let first = (world.seed() % CHUNKSERVERS as u64) as usize;
    let second = (first + 1 + (world.seed() / 7 % (CHUNKSERVERS as u64 - 1)) as usize) % CHUNKSERVERS;
    for round in 0..3 {
        world.sleep(Duration::from_millis(150)).await;
        cluster.crash_chunkserver(first, Crash::Kill);
        world.sleep(Duration::from_millis(400)).await;
        cluster.crash_chunkserver(second, Crash::Kill);
        if round == 1 {
            cluster.crash_master(Crash::Kill);
            world.sleep(Duration::from_millis(300)).await;
            cluster.start_master().await;
        }
        world.sleep(Duration::from_secs(2)).await;
        cluster.start_chunkserver(first).await;
        cluster.start_chunkserver(second).await;
        world.sleep(Duration::from_secs(5)).await;
    }
}

#[test]
fn files_survive_crashes_and_lost_messages() {
    for_each_seed(12, |seed| {
        live_through(seed, false);
    });
}

#[test]
fn the_same_seed_is_the_same_world() {
    let (once, again) = (live_through(5, true), live_through(5, true));
    if let Some(at) = (0..once.events.len()).find(|at| once.events.get(*at) != again.events.get(*at)) {
        let before = once.events[at.saturating_sub(5)..at].join("\n");
        panic!("after\n{before}\nonce came\n{}\nand again\n{:?}", once.events[at], again.events.get(at));
    }
    assert_eq!((again.digest, again.nanos), (once.digest, once.nanos));
    assert_ne!(live_through(6, false).digest, once.digest);
}
