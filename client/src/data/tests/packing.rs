//! How many chunks, commits and bytes of memory writing takes.

use super::cluster::{Cluster, assert_same, pattern, with_cluster};
use super::fake_targets::Behaviour;
use crate::data::HashedChunk;
use cairn_runtime::sim::block_on_world;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;

#[test]
fn five_hundred_small_files_flushed_together_become_one_chunk() {
    with_cluster(1, "4+2", |cluster| async move {
        let files: Vec<_> = (0..500).map(|number| cluster.create(10 + number)).collect();
        for (number, file) in files.iter().enumerate() {
            let content = pattern(number as u64, 3000 + number);
            assert_eq!(file.try_write(0, &content), Some(Ok(content.len())));
        }
        join_all(files.iter().map(|file| file.flush())).await.into_iter().for_each(|result| result.expect("flushed"));
        assert_eq!(cluster.store.counters().chunks_put, 1);
        assert_eq!(cluster.master.requests().commits, 1);
        assert!(!cluster.store.has_dirty());
        assert_eq!(cluster.store.write_buffer_used_bytes(), 0);
        let reader = cluster.stranger();
        for number in 0..500 {
            let content = pattern(number, 3000 + number as usize);
            assert_same(&cluster.open_in(&reader, 10 + number).read(0, MIB).await.expect("read"), &content, "content");
        }
    });
}

#[test]
fn a_thousand_scattered_writes_become_one_chunk() {
    with_cluster(2, "4+2", |cluster| async move {
        let file = cluster.create(10);
        for number in 0..1000u64 {
            let offset = number * 7919 % 1000 * 65_536;
            assert_eq!(file.try_write(offset, &pattern(offset, 4096)), Some(Ok(4096)));
        }
        file.sync().await.expect("synced");
        assert_eq!(cluster.store.counters().chunks_put, 1);
        assert_eq!(cluster.master.requests().commits, 1);
        assert_eq!(cluster.master.requests().committed_extents, 1000);
        let reader = cluster.open_in(&cluster.stranger(), 10);
        for number in [0u64, 1, 500, 999] {
            let offset = number * 65_536;
            assert_same(&reader.read(offset, 4096).await.expect("read"), &pattern(offset, 4096), "content");
            assert!(reader.read(offset + 4096, 4096).await.expect("read").iter().all(|byte| *byte == 0));
        }
    });
}

#[test]
fn a_stream_becomes_full_chunks_while_it_is_written() {
    with_cluster(3, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(5, MIB);
        for number in 0..64u64 {
            file.write(number * MIB as u64, &content).await.expect("written");
        }
        file.flush().await.expect("flushed");
        let counters = cluster.store.counters();
        assert_eq!((counters.chunks_put, counters.chunk_bytes_put), (16, 64 * MIB as u64));
        assert_eq!(cluster.master.extents_of(ino(10)), 16);
        assert_eq!(cluster.targets.requests().puts, 16 * 6);
    });
}

#[test]
fn a_hashed_chunk_is_put_as_it_is() {
    with_cluster(3, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(5, 4 * MIB);
        let mut chunk = HashedChunk::new(content.clone().into(), "4+2".parse().expect("a scheme"));
        file.write_chunk(0, chunk.clone()).await.expect("written");
        assert_eq!(cluster.store.write_buffer_used_bytes(), 4 * MIB, "it counts as memory");
        file.flush().await.expect("flushed");
        assert_eq!(cluster.store.write_buffer_used_bytes(), 0);
        assert_eq!((cluster.store.counters().chunks_put, cluster.master.extents_of(ino(10))), (1, 1));
        let reader = cluster.open_in(&cluster.stranger(), 10);
        assert_same(&reader.read(0, 4 * MIB).await.expect("read"), &content, "content");

        // What was hashed is taken for true here, and not by those who store it.
        chunk.id.0[0] ^= 1;
        file.write_chunk(0, chunk).await.expect("taken");
        file.flush().await.expect_err("refused");
    });
}

#[test]
fn a_file_rewritten_in_memory_is_put_once() {
    with_cluster(4, "4+2", |cluster| async move {
        let file = cluster.create(10);
        for number in 0..1000u64 {
            file.write(0, &pattern(number, 8192)).await.expect("written");
        }
        assert!(cluster.store.write_buffer_used_bytes() <= 16 << 10);
        file.flush().await.expect("flushed");
        assert_eq!(cluster.store.counters().chunk_bytes_put, 8192);
        assert_same(&file.read(0, 8192).await.expect("read"), &pattern(999, 8192), "content");
    });
}

#[test]
fn memory_stays_bounded_under_a_fast_writer_and_slow_targets() {
    block_on_world(5, |world| async move {
        let cluster = Cluster::new(world, "4+2", |settings| settings.write_buffer_bytes = 16 * MIB);
        cluster.targets.behave_all(Behaviour::Slow(Duration::from_millis(200)));
        let files: Vec<_> = (0..8).map(|number| cluster.create(10 + number)).collect();
        let write_all = files.iter().map(|file| async {
            for number in 0..40u64 {
                let content = pattern(number, 300_000);
                if file.try_write(number * 300_000, &content).is_none() {
                    file.write(number * 300_000, &content).await.expect("written");
                }
                assert!(cluster.store.write_buffer_used_bytes() <= 16 * MIB);
            }
        });
        join_all(write_all).await;
        cluster.store.flush_all().await.expect("flushed");
        for file in &files {
            let content = file.read(39 * 300_000, 300_000).await.expect("read");
            assert_eq!(content, pattern(39, 300_000));
        }
        assert_eq!(cluster.store.write_buffer_used_bytes(), 0);
    });
}

#[test]
fn old_data_is_put_and_committed_without_being_asked() {
    with_cluster(6, "4+2", |cluster| async move {
        let file = cluster.create(10);
        file.write(0, b"forgotten").await.expect("written");
        cluster.runtime.sleep(Duration::from_secs(9)).await;
        assert!(!file.has_dirty());
        assert_same(&cluster.open_in(&cluster.stranger(), 10).read(0, 100).await.expect("read"), b"forgotten".as_slice(), "content");
    });
}

#[test]
fn awkward_tails_are_cut_and_still_read_right() {
    with_cluster(7, "4+2", |cluster| async move {
        let file = cluster.create(10);
        let content = pattern(3, 2 * MIB + 100_001);
        file.write(0, &content).await.expect("written");
        file.flush().await.expect("flushed");
        assert_eq!(cluster.store.counters().chunks_put, 2);
        assert_same(&cluster.open_in(&cluster.stranger(), 10).read(0, 4 * MIB).await.expect("read"), &content, "content");
    });
}

#[test]
fn concurrent_syncs_share_puts_and_commits() {
    with_cluster(8, "4+2", |cluster| async move {
        let files: Vec<_> = (0..64).map(|number| cluster.create(10 + number)).collect();
        let sync_often = files.iter().map(|file| {
            let file = Arc::clone(file);
            async move {
                for round in 0..10u64 {
                    file.write(round * 4096, &pattern(round, 4096)).await.expect("written");
                    file.sync().await.expect("synced");
                }
            }
        });
        join_all(sync_often).await;
        let commits = cluster.master.requests().commits;
        assert!(commits <= 300, "640 syncs took {commits} commits");
        assert_eq!(cluster.targets.requests().puts, cluster.targets.requests().synced_puts);
    });
}

fn ino(number: u64) -> cairn_common::ids::Ino {
    cairn_common::ids::Ino(number)
}
