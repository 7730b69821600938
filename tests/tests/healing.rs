//! A cluster that loses servers heals by itself. The proof is always the same: when the map says that everything is where it
//! belongs, two more servers are killed at once, and every byte is still there.

use cairn_client::FileSystem;
use cairn_common::ids::TargetId;
use cairn_common::map::ClusterMap;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::ServerChange;
use cairn_runtime::sim::{Crash, World};
use cairn_tests::cluster::{SimCluster, live};
use cairn_tests::operator::Operator;
use cairn_tests::workload::Workload;
use std::collections::BTreeSet;
use std::time::Duration;

const STEPS: usize = 25;
/// A server counts as dead after 30 s.
const DEAD: Duration = Duration::from_secs(31);

fn holders(map: &ClusterMap) -> BTreeSet<TargetId> {
    map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots).filter_map(|slot| slot.holder).collect()
}

/// A cluster with something in it.
async fn start(world: &World, chunkservers: usize) -> (SimCluster, Operator, Workload, FileSystem) {
    let cluster = SimCluster::start(world.clone(), Scheme::new(4, 2).unwrap(), chunkservers).await;
    let operator = Operator::new(&cluster);
    let (runtime, fs) = cluster.client("client").await;
    cluster.wait_until_whole(&fs).await;
    let mut workload = Workload::new(runtime, fs.clone(), "directory").await;
    workload.run(STEPS).await;
    (cluster, operator, workload, fs)
}

/// Kills two servers and reads everything.
async fn prove(cluster: &SimCluster, workload: &Workload, victims: [usize; 2]) {
    for victim in victims {
        cluster.crash_chunkserver(victim, Crash::Kill);
    }
    let (_, observer) = cluster.client("observer").await;
    workload.compare_all_through(&observer).await.expect("every file is readable");
}

#[test]
fn a_lost_server_is_rebuilt_on_the_others() {
    live(3, |world| async move {
        let (cluster, operator, workload, _fs) = start(&world, 8).await;
        cluster.crash_chunkserver(0, Crash::PowerLoss);
        world.sleep(DEAD).await;
        operator.wait_until_whole().await;
        prove(&cluster, &workload, [1, 2]).await;
    });
}

#[test]
fn writing_goes_on_while_a_server_is_rebuilt() {
    live(3, |world| async move {
        let (cluster, operator, mut workload, _fs) = start(&world, 8).await;
        cluster.crash_chunkserver(3, Crash::PowerLoss);
        world.sleep(DEAD - Duration::from_secs(2)).await;
        workload.run(2 * STEPS).await;
        operator.wait_until_whole().await;
        prove(&cluster, &workload, [6, 7]).await;
    });
}

#[test]
fn a_server_that_comes_back_early_is_welcome() {
    live(3, |world| async move {
        let (mut cluster, operator, mut workload, _fs) = start(&world, 7).await;
        // So slow that the server is back before it is rebuilt.
        cluster.healing.repair_bytes_per_second = 64 << 10;
        for server in 1..7 {
            cluster.crash_chunkserver(server, Crash::Kill);
            cluster.start_chunkserver(server).await;
        }
        cluster.crash_chunkserver(0, Crash::Kill);
        world.sleep(DEAD + Duration::from_secs(3)).await;
        workload.run(5).await;
        cluster.start_chunkserver(0).await;
        world.sleep(Duration::from_secs(2)).await;
        let map = operator.wait_until_whole().await;
        assert_eq!(holders(&map).len(), 7, "its slots are its own again");
        prove(&cluster, &workload, [4, 5]).await;
    });
}

#[test]
fn a_second_loss_during_the_repair_of_the_first() {
    live(3, |world| async move {
        let (cluster, operator, workload, _fs) = start(&world, 8).await;
        cluster.crash_chunkserver(0, Crash::PowerLoss);
        world.sleep(Duration::from_secs(2)).await;
        cluster.crash_chunkserver(1, Crash::PowerLoss);
        world.sleep(DEAD).await;
        operator.wait_until_whole().await;
        prove(&cluster, &workload, [2, 3]).await;
    });
}

#[test]
fn repair_goes_on_where_it_was_whoever_restarts() {
    live(4, |world| async move {
        let (mut cluster, operator, mut workload, _fs) = start(&world, 8).await;
        cluster.healing.repair_bytes_per_second = 256 << 10;
        for server in 1..8 {
            cluster.crash_chunkserver(server, Crash::Kill);
            cluster.start_chunkserver(server).await;
        }
        cluster.crash_chunkserver(0, Crash::PowerLoss);
        world.sleep(DEAD).await;
        for round in 0..4u64 {
            let victim = 1 + (world.seed() + round * 3) as usize % 7;
            world.sleep(Duration::from_millis(300 + (world.seed() * 211 + round * 97) % 400)).await;
            // Two servers in all may lose what was not synced: 4+2 does not promise more.
            cluster.crash_chunkserver(victim, if round == 0 { Crash::PowerLoss } else { Crash::Kill });
            if round == 1 {
                cluster.crash_master(Crash::PowerLoss);
                world.sleep(Duration::from_millis(200)).await;
                cluster.start_master().await;
            }
            world.sleep(Duration::from_millis(500)).await;
            cluster.start_chunkserver(victim).await;
            // The client finds it again: an fsync may miss two servers, and one is gone already.
            world.sleep(Duration::from_secs(4)).await;
            workload.run(3).await;
        }
        operator.wait_until_whole().await;
        // The audit restores what a power loss has taken of shards that were not synced.
        world.sleep(Duration::from_secs(40)).await;
        operator.wait_until_whole().await;
        prove(&cluster, &workload, [5, 6]).await;
    });
}

#[test]
fn a_drained_server_can_go() {
    live(3, |world| async move {
        let (cluster, operator, mut workload, _fs) = start(&world, 7).await;
        let leaving = operator.status().await.servers.iter().map(|server| server.id).next().expect("there are servers");
        operator.change(leaving, ServerChange::Drain).await;
        workload.run(10).await;
        world.sleep(Duration::from_secs(2)).await;
        let map = operator.wait_until_whole().await;
        let target = map.targets.iter().find(|target| target.server == leaving).expect("it is still there");
        assert!(!holders(&map).contains(&target.id));
        operator.change(leaving, ServerChange::Remove).await;
        let gone = cluster.chunkservers.iter().position(|node| node.address(0).ip() == target.address.ip()).expect("one of ours");
        cluster.crash_chunkserver(gone, Crash::PowerLoss);
        prove(&cluster, &workload, [(gone + 1) % 7, (gone + 3) % 7]).await;
    });
}

#[test]
fn new_servers_fill_up_by_themselves() {
    live(3, |world| async move {
        let (mut cluster, operator, mut workload, _fs) = start(&world, 6).await;
        for number in 7..=8 {
            cluster.chunkservers.push(world.node(&format!("chunkserver-{number}")));
            cluster.start_chunkserver(number - 1).await;
        }
        workload.run(10).await;
        world.sleep(Duration::from_secs(2)).await;
        let map = operator.wait_until_whole().await;
        assert_eq!(holders(&map).len(), 8);
        prove(&cluster, &workload, [0, 3]).await;
    });
}

/// Shards on all targets, and the repairs of damaged ones.
async fn shards(operator: &Operator) -> (u64, u64) {
    let status = operator.status().await;
    let reports = || status.servers.iter().flat_map(|server| &server.targets).filter_map(|(_, report)| report.as_ref());
    (reports().map(|report| report.shards).sum(), reports().map(|report| report.healing.damaged_repaired).sum())
}

#[test]
fn rot_is_found_by_the_scrub_and_rebuilt() {
    live(2, |world| async move {
        let (mut cluster, operator, workload, _fs) = start(&world, 7).await;
        cluster.healing.scrub_bytes_per_second = Some(1 << 20);
        for server in 0..7 {
            cluster.crash_chunkserver(server, Crash::Kill);
            cluster.start_chunkserver(server).await;
        }
        let mut flipped = 0;
        for server in [0, 1] {
            let disk = cluster.chunkservers[server].disk();
            for path in disk.files().into_iter().filter(|path| path.parent().is_some_and(|parent| parent.ends_with("segments"))) {
                let length = disk.read(&path).expect("it is there").len() as u64;
                for offset in (6000..length).step_by(20_011) {
                    disk.flip_bit(&path, offset, 3).expect("within the file");
                    flipped += 1;
                }
            }
        }
        assert!(flipped > 4, "{flipped}");
        world.sleep(Duration::from_secs(120)).await;
        let (_, repaired) = shards(&operator).await;
        assert!(repaired > 0 && repaired <= flipped, "{repaired} of {flipped}: some bits lie between shards");
        prove(&cluster, &workload, [2, 3]).await;
    });
}

#[test]
fn nothing_that_nobody_refers_to_stays() {
    live(2, |world| async move {
        let (cluster, operator, mut workload, _fs) = start(&world, 6).await;
        // One that dies between its puts and its commits, and one that is away while shards are deleted.
        let (runtime, dying) = cluster.client("dying").await;
        let mut lost = Workload::new(runtime, dying, "lost").await;
        {
            let mut work = std::pin::pin!(lost.run(STEPS));
            let runtime = cluster.world.node("observer").runtime();
            let _ = runtime.timeout(Duration::from_millis(400), &mut work).await;
        }
        cluster.world.node("dying").crash(Crash::Kill);
        lost.forget_everything(&cluster.client("second").await.1).await;
        workload.remove_everything().await;
        world.sleep(Duration::from_secs(14 * 60)).await;
        for _ in 0..20 {
            cluster.crash_chunkserver(0, Crash::Kill);
            world.sleep(Duration::from_secs(20)).await;
            cluster.start_chunkserver(0).await;
            world.sleep(Duration::from_secs(1)).await;
        }
        assert!(shards(&operator).await.0 > 0, "shards were left over");
        world.sleep(Duration::from_secs(2 * 3600)).await;
        assert_eq!(shards(&operator).await.0, 0);
    });
}
