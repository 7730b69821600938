//! Content goes to the pool of its file, or where the master says that it is already.

use super::cluster::{assert_same, pattern, with_cluster};
use super::fake_targets::{COPIES, POOL};
use cairn_common::ids::{Ino, PoolId};
use std::time::Duration;

const MIB: usize = 1 << 20;

#[test]
fn files_of_two_pools_are_not_packed_together() {
    with_cluster(1, "4+2", |cluster| async move {
        let mut files = Vec::new();
        for number in 10..30 {
            let pool = if number % 2 == 0 { POOL } else { COPIES };
            let attributes = cluster.master.create_in(Ino(number), pool);
            let file = cluster.store.file(Ino(number));
            file.opened(&attributes, &Default::default(), true);
            file.write(0, &pattern(number, 10_000)).await.expect("written");
            files.push((file, pool));
        }
        cluster.store.flush_all().await.expect("flushed");
        assert_eq!(cluster.store.counters().chunks_put, 2);
        let reader = cluster.stranger();
        for (file, pool) in files {
            let number = file.ino().0;
            assert_eq!(pools_of(&cluster.master.open(file.ino()).1.chunks), [pool]);
            assert_same(&cluster.open_in(&reader, number).read(0, MIB).await.expect("read"), &pattern(number, 10_000), "content");
        }
    });
}

#[test]
fn a_stream_goes_to_the_pool_of_its_file() {
    with_cluster(2, "8+2", |cluster| async move {
        let attributes = cluster.master.create_in(Ino(10), COPIES);
        let file = cluster.store.file(Ino(10));
        file.opened(&attributes, &Default::default(), true);
        file.write(0, &pattern(3, 10 * MIB)).await.expect("written");
        file.flush().await.expect("flushed");
        let chunks = cluster.master.open(Ino(10)).1.chunks;
        assert_eq!(pools_of(&chunks), [COPIES; 3], "cut as that pool wants it, not as 8+2 does");
        assert!(chunks.iter().all(|chunk| chunk.scheme.is_copies()));
    });
}

#[test]
fn what_is_elsewhere_already_is_put_there_and_stable() {
    for durable in [false, true] {
        with_cluster(3, "4+2", |cluster| async move {
            cluster.master.have_all_in(COPIES);
            let file = cluster.create(10);
            let content = pattern(4, 5 * MIB + 100);
            file.write(0, &content).await.expect("written");
            if durable {
                file.sync().await.expect("synced")
            } else {
                file.flush().await.expect("flushed")
            }
            let chunks = cluster.master.open(Ino(10)).1.chunks;
            assert!(pools_of(&chunks).iter().all(|pool| *pool == COPIES), "{chunks:?}");
            assert_same(&file.read(0, 6 * MIB).await.expect("read"), &content, "as the writer sees it");
            assert_same(&cluster.open_in(&cluster.stranger(), 10).read(0, 6 * MIB).await.expect("read"), &content, "as others do");
        });
    }
}

#[test]
fn a_commit_holds_files_of_one_pool() {
    with_cluster(4, "4+2", |cluster| async move {
        let files = [(10, POOL), (11, COPIES), (12, POOL)].map(|(number, pool)| {
            let attributes = cluster.master.create_in(Ino(number), pool);
            let file = cluster.store.file(Ino(number));
            file.opened(&attributes, &Default::default(), true);
            file
        });
        for file in &files {
            file.write(0, &pattern(5, 9 * MIB)).await.expect("written");
        }
        // Nobody waits for it: all that is put is committed together after a while. The master in memory takes no files of two pools.
        cluster.runtime.sleep(Duration::from_secs(20)).await;
        assert!(files.iter().all(|file| !file.has_dirty()), "nobody is forgotten for others' sake");
    });
}

fn pools_of(chunks: &[cairn_common::extent::ChunkInfo]) -> Vec<PoolId> {
    chunks.iter().map(|chunk| chunk.pool).collect()
}
