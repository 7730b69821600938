//! What becomes of data that is held back when its session is lost.

use super::cluster::{Cluster, assert_same, pattern, with_cluster};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;

const NUMBER: u64 = 10;

async fn check(cluster: &Cluster, content: &[u8]) {
    let reader = cluster.open_in(&cluster.stranger(), NUMBER);
    assert_same(&reader.read(0, content.len() + 1).await.expect("read"), content, "content");
}

#[test]
fn it_is_stored_if_nobody_has_changed_the_file() {
    with_cluster(1, "2+1", |cluster| async move {
        let (file, content) = (cluster.create(NUMBER), pattern(1, 30_000));
        file.write(0, &content).await.expect("written");
        cluster.master.end_session();
        file.session_lost(0);
        assert_eq!(file.flush().await, Ok(()));
        check(&cluster, &content).await;
    });
}

#[test]
fn it_is_dropped_if_somebody_has_and_its_writers_are_told_once() {
    with_cluster(2, "2+1", |cluster| async move {
        let (file, content) = (cluster.create(NUMBER), pattern(2, 30_000));
        let descriptor = file.descriptor();
        file.write(0, &content).await.expect("written");
        cluster.master.end_session();
        file.session_lost(0);
        cluster.master.touch(Ino(NUMBER));
        assert_eq!(file.flush().await, Err(FsError::Io));
        assert_eq!((file.take_error(&descriptor), file.take_error(&descriptor)), (Some(FsError::Io), None));
        assert_eq!((file.has_dirty(), file.local_size(), cluster.store.counters().files_fenced), (false, 0, 1));
        check(&cluster, &[]).await;
        file.write(0, &content).await.expect("it works again");
        assert_eq!(file.flush().await, Ok(()));
        check(&cluster, &content).await;
    });
}

#[test]
fn a_commit_of_our_own_that_was_never_answered_is_no_change_of_others() {
    with_cluster(3, "2+1", |cluster| async move {
        let (file, content) = (cluster.create(NUMBER), pattern(3, 30_000));
        file.write(0, &content).await.expect("written");
        // The hook of the session's loss runs before the answer is missed.
        file.session_lost(0);
        cluster.master.lose_session_after_commit();
        assert_eq!(file.flush().await, Ok(()));
        check(&cluster, &content).await;
    });
}
