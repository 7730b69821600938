//! Compaction: the content stays, in other chunks.

use super::cluster::{Cluster, assert_same, pattern};
use super::fake_targets::Behaviour;
use cairn_common::ids::Ino;
use cairn_runtime::sim::block_on_world;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

const FILE: u64 = 10;
const BYTES: usize = 400_000;
/// Longer than a compactor waits before it asks again.
const A_WHILE: Duration = Duration::from_secs(7);

fn with_compactor<F: Future<Output = ()>>(seed: u64, scheme: &str, body: impl FnOnce(Arc<Cluster>) -> F) {
    block_on_world(seed, |world| body(Arc::new(Cluster::new(world, scheme, |settings| settings.compaction_bytes_per_second = 8 << 20))));
}

/// A file that was overwritten here and there; with a hole.
async fn fragmented(cluster: &Cluster) -> Vec<u8> {
    let file = cluster.create(FILE);
    let mut content = pattern(FILE, BYTES);
    file.write(0, &content).await.expect("written");
    file.flush().await.expect("flushed");
    for round in 0..3 {
        for at in (round * 1000..BYTES - 5000).step_by(21_000) {
            let bytes = pattern(at as u64 + 7, 4096 - round * 13);
            file.write(at as u64, &bytes).await.expect("written");
            content[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        file.flush().await.expect("flushed");
    }
    file.write(BYTES as u64 + 100_000, b"island").await.expect("written");
    file.flush().await.expect("flushed");
    content.extend(vec![0; 100_000]);
    content.extend(b"island");
    content
}

#[test]
fn a_fragmented_file_becomes_whole() {
    for (seed, scheme) in [(1, "4+2"), (2, "2+1"), (3, "1+2")] {
        with_compactor(seed, scheme, |cluster| async move {
            let content = fragmented(&cluster).await;
            let before = cluster.master.open(Ino(FILE)).0;
            assert!(cluster.master.extents_of(Ino(FILE)) > 50);
            cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
            cluster.runtime.sleep(A_WHILE).await;
            // The chunk may be cut in two; the hole and the end stay.
            assert!(cluster.master.extents_of(Ino(FILE)) <= 4);
            assert_eq!(cluster.master.open(Ino(FILE)).0, before);
            assert_eq!(cluster.master.compactions_done(), 1);
            assert_eq!(cluster.store.counters().compacted_bytes, BYTES as u64 + 6);
            let strange = cluster.open_in(&cluster.stranger(), FILE);
            assert_same(&strange.read(0, 1 << 20).await.expect("read"), &content, scheme);
        });
    }
}

#[test]
fn what_was_rewritten_is_durable() {
    with_compactor(4, "4+2", |cluster| async move {
        let content = fragmented(&cluster).await;
        cluster.store.file(Ino(FILE)).sync().await.expect("synced");
        cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
        cluster.runtime.sleep(A_WHILE).await;
        assert_eq!(cluster.master.compactions_published(), 1);
        cluster.targets.ids().into_iter().for_each(|target| cluster.targets.restart(target, true));
        let strange = cluster.open_in(&cluster.stranger(), FILE);
        assert_same(&strange.read(0, 1 << 20).await.expect("read"), &content, "after the loss of power");
    });
}

#[test]
fn open_files_look_into_the_new_chunks() {
    with_compactor(5, "4+2", |cluster| async move {
        let content = fragmented(&cluster).await;
        let file = cluster.open_in(&cluster.store, FILE);
        file.write(50, b"not flushed").await.expect("written");
        cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
        cluster.runtime.sleep(A_WHILE).await;
        let pages = cluster.master.requests().pages;
        let mut expected = content;
        expected[50..61].copy_from_slice(b"not flushed");
        assert_same(&file.read(0, 1 << 20).await.expect("read"), &expected, "through an open file");
        assert_eq!(cluster.master.requests().pages, pages, "the master was not asked");
    });
}

#[test]
fn chunks_are_put_again_when_the_map_moves() {
    with_compactor(6, "4+2", |cluster| async move {
        fragmented(&cluster).await;
        cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
        cluster.master.demand_puts_again(2);
        cluster.runtime.sleep(A_WHILE).await;
        assert_eq!(cluster.master.compactions_published(), 1);
    });
}

#[test]
fn what_can_not_be_read_is_left_to_others() {
    with_compactor(7, "4+2", |cluster| async move {
        let content = fragmented(&cluster).await;
        let extents = cluster.master.extents_of(Ino(FILE));
        cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
        cluster.targets.behave_all(Behaviour::Unreachable);
        cluster.runtime.sleep(A_WHILE * 10).await;
        cluster.targets.behave_all(Behaviour::Good);
        assert_eq!((cluster.master.extents_of(Ino(FILE)), cluster.master.compactions_done()), (extents, 0));
        // The next piece is taken up.
        cluster.master.want_compaction(Ino(FILE), 0..1 << 20);
        cluster.runtime.sleep(A_WHILE).await;
        assert_eq!(cluster.master.compactions_done(), 1);
        let strange = cluster.open_in(&cluster.stranger(), FILE);
        assert_same(&strange.read(0, 1 << 20).await.expect("read"), &content, "in the end");
    });
}

#[test]
fn work_is_paced() {
    with_compactor(8, "1+2", |cluster| async move {
        let file = cluster.create(FILE);
        let content = pattern(1, 4 << 20);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        for _ in 0..20 {
            cluster.master.want_compaction(Ino(FILE), 0..4 << 20);
        }
        cluster.runtime.sleep(A_WHILE).await;
        // Half a second for each.
        let done = cluster.master.compactions_done();
        assert!((3..=5).contains(&done), "{done}");
    });
}
