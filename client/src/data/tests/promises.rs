//! What fsync promises: after a loss of power everywhere, the data is there.

use super::cluster::{Cluster, assert_same, pattern, with_cluster};
use super::fake_targets::Behaviour;
use cairn_common::ids::TargetId;
use cairn_runtime::sim::block_on_world;

const MIB: usize = 1 << 20;

fn lose_power(cluster: &Cluster) {
    cluster.targets.ids().into_iter().for_each(|target| cluster.targets.restart(target, true));
    cluster.master.lose_power();
}

async fn check(cluster: &Cluster, number: u64, content: &[u8]) {
    let reader = cluster.open_in(&cluster.stranger(), number);
    assert_same(&reader.read(0, content.len() + 1).await.expect("read"), content, "content");
}

#[test]
fn synced_data_survives_a_loss_of_power() {
    for (seed, bytes) in [(1, 10), (2, 70_000), (3, 10 * MIB), (4, 4 * MIB)] {
        with_cluster(seed, "4+2", |cluster| async move {
            let file = cluster.create(10);
            let content = pattern(seed, bytes);
            file.write(0, &content).await.expect("written");
            file.sync().await.expect("synced");
            lose_power(&cluster);
            check(&cluster, 10, &content).await;
        });
    }
}

#[test]
fn data_flushed_before_is_made_durable_by_a_later_sync() {
    with_cluster(5, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(5, 300_000);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        assert_eq!(cluster.master.requests().durable_commits, 0);
        file.sync().await.expect("synced");
        assert_eq!(cluster.master.requests().log_syncs, 1);
        let before = (cluster.master.requests(), cluster.targets.requests());
        file.sync().await.expect("synced");
        assert_eq!((cluster.master.requests(), cluster.targets.requests()), before, "nothing is left to do");
        lose_power(&cluster);
        check(&cluster, 10, &content).await;
    });
}

#[test]
fn shards_lost_by_restarted_targets_are_put_again_from_memory() {
    block_on_world(6, |world| async move {
        // So much room that nothing is committed early.
        let cluster = Cluster::new(world, "4+2", |settings| settings.write_buffer_bytes = 256 * MIB);
        let file = cluster.create(10);
        let content = pattern(6, 12 * MIB);
        file.write(0, &content).await.expect("written");
        // The chunks are put but neither synced nor committed yet.
        cluster.runtime.sleep(std::time::Duration::from_millis(100)).await;
        assert!(cluster.targets.shards_of(TargetId(1)) > 0);
        cluster.targets.ids().into_iter().for_each(|target| cluster.targets.restart(target, true));
        assert_eq!(cluster.targets.shards_of(TargetId(1)), 0);
        file.sync().await.expect("synced");
        assert!(cluster.store.counters().shards_restored >= 18);
        lose_power(&cluster);
        check(&cluster, 10, &content).await;
    });
}

#[test]
fn shards_lost_after_the_commit_are_put_again_from_the_others() {
    with_cluster(7, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(7, 4 * MIB);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        cluster.targets.restart(TargetId(2), true);
        cluster.targets.restart(TargetId(3), true);
        file.sync().await.expect("synced");
        assert_eq!(cluster.store.counters().shards_restored, 2);
        lose_power(&cluster);
        check(&cluster, 10, &content).await;
    });
}

#[test]
fn data_lost_for_good_fails_the_sync_of_every_descriptor() {
    with_cluster(8, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let descriptor = file.descriptor();
        file.write(0, &pattern(8, 4 * MIB)).await.expect("written");
        file.flush().await.expect("flushed");
        cluster.targets.ids().into_iter().for_each(|target| cluster.targets.restart(target, true));
        assert!(file.sync().await.is_err());
        assert!(file.take_error(&descriptor).is_some());
        assert!(file.take_error(&descriptor).is_none());
    });
}

#[test]
fn a_sync_tolerates_up_to_m_targets_that_went_away() {
    with_cluster(9, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(9, 9 * MIB);
        file.write(0, &content).await.expect("written");
        cluster.runtime.sleep(std::time::Duration::from_millis(100)).await;
        cluster.targets.behave(TargetId(1), Behaviour::Hung);
        cluster.targets.behave(TargetId(2), Behaviour::Unreachable);
        file.sync().await.expect("synced");
        lose_power(&cluster);
        check(&cluster, 10, &content).await;
    });
}

#[test]
fn overwriting_synced_data_never_brings_back_what_was_before() {
    with_cluster(10, "4+2", |cluster| async move {
        let file = cluster.create(10);
        for round in 0..30u64 {
            file.write(0, &pattern(round, 5000)).await.expect("written");
            let syncing = file.sync();
            let overwriting = async {
                cluster.runtime.sleep(std::time::Duration::from_micros(round * 70)).await;
                file.write(1000, &pattern(round + 1000, 2000)).await.expect("written");
            };
            futures_util::future::join(syncing, overwriting).await.0.expect("synced");
            let reader = cluster.open_in(&cluster.stranger(), 10);
            let found = reader.read(0, 5000).await.expect("read");
            let (old, new) = (pattern(round, 5000), pattern(round + 1000, 2000));
            assert_eq!(found[..1000], old[..1000]);
            assert!(found[1000..3000] == old[1000..3000] || found[1000..3000] == new);
            assert_eq!(found[3000..], old[3000..]);
        }
    });
}

#[test]
fn many_unsynced_shards_are_synced_in_the_background() {
    with_cluster(11, "1+2", |cluster| async move {
        for number in 0..1500u64 {
            let file = cluster.create(10 + number);
            file.write(0, &pattern(number, 100)).await.expect("written");
            file.flush().await.expect("flushed");
        }
        cluster.runtime.sleep(std::time::Duration::from_secs(1)).await;
        assert!(cluster.targets.requests().syncs >= 3);
    });
}
