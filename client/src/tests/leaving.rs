//! Callers that leave in the middle: a signal has called them away.

use super::world::Pair;
use crate::OpenFlags;
use cairn_common::attributes::AttributeChange;
use cairn_common::ids::Ino;
use cairn_runtime::sim::{Crash, block_on_world};
use futures_util::FutureExt;
use std::time::Duration;

fn cut_to(size: u64) -> AttributeChange {
    AttributeChange { size: Some(size), ..AttributeChange::default() }
}

/// A file with 100 bytes that the master does not have yet; its inode.
async fn written_file(pair: &Pair) -> Ino {
    let ino = pair.master.make("f");
    let opened = pair.fs.open(ino, OpenFlags::READ_WRITE).await.expect("it is there");
    assert_eq!(pair.fs.write(opened.handle, 0, &[1; 100]).await, Ok(100));
    ino
}

#[test]
fn a_truncation_that_was_sent_is_known_here_when_it_is_done() {
    block_on_world(5, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = written_file(&pair).await;
        pair.master.with(|state| state.faults.dropped = 100);
        let mut cutting = Box::pin(pair.fs.set_attributes(ino, cut_to(10), None));
        assert!(cutting.as_mut().now_or_never().is_none());
        world.sleep(Duration::from_millis(5)).await;
        drop(cutting);
        pair.master.with(|state| state.faults.dropped = 0);
        world.sleep(Duration::from_secs(3)).await;
        assert_eq!(pair.fs.attributes(ino).await.map(|attributes| attributes.size), Ok(10));
    });
}

#[test]
fn a_truncation_that_was_never_sent_is_given_up() {
    block_on_world(5, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = written_file(&pair).await;
        pair.master_node.crash(Crash::Kill);
        world.sleep(Duration::from_secs(30)).await;
        let mut cutting = Box::pin(pair.fs.set_attributes(ino, cut_to(10), None));
        assert!(cutting.as_mut().now_or_never().is_none());
        world.sleep(Duration::from_secs(1)).await;
        drop(cutting);
        pair.restart_master(Duration::ZERO).await;
        world.sleep(Duration::from_secs(10)).await;
        assert_eq!(pair.fs.attributes(ino).await.map(|attributes| attributes.size), Ok(100));
        assert_eq!(pair.fs.set_attributes(ino, cut_to(20), None).await.map(|attributes| attributes.size), Ok(20), "nothing is held");
    });
}

#[test]
fn an_opening_that_is_left_while_it_truncates_leaves_nothing_open() {
    block_on_world(5, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        let file = pair.fs.0.data.file(ino);
        let hold = file.hold().await;
        let flags = OpenFlags { truncate: true, ..OpenFlags::READ_WRITE };
        {
            let opening = std::pin::pin!(pair.runtime.timeout(Duration::from_secs(2), pair.fs.open(ino, flags)));
            assert!(opening.await.is_err(), "it waits for the hold");
        }
        drop(hold);
        assert!(!pair.fs.0.link.opens().is_open(ino));
    });
}
