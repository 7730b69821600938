//! Looks after data that nobody asks for: puts what has grown old, tries again what has failed, and makes room when
//! memory is short.

use super::core::Core;
use super::file::FileData;
use super::limits::{DIRTY_AGE_MAX, DIRTY_CHECK_INTERVAL};
use std::sync::Arc;

/// Looks after things for ever.
pub async fn run(core: Arc<Core>) {
    let mut ticks = 0u64;
    loop {
        if !core.files.has_dirty() {
            core.files.dirtied.notified().await;
            continue;
        }
        tokio::select! {
            biased;
            () = core.budget.pressure.notified() => make_room(&core),
            () = core.runtime.sleep(DIRTY_CHECK_INTERVAL) => {
                ticks += 1;
                look_after(&core, ticks.is_multiple_of(DIRTY_AGE_MAX.as_secs()));
            }
        }
    }
}

fn look_after(core: &Arc<Core>, retry_failed: bool) {
    let now = core.runtime.now();
    for file in core.files.dirty() {
        if file.open_since().is_some_and(|since| now.since(since) >= DIRTY_AGE_MAX) {
            core.pack_queue.ask(&file, false);
        }
        if retry_failed {
            file.retry_failed();
        }
        core.commit_queue.offer(&file, now);
    }
    if core.budget.is_wanted() {
        make_room(core);
    }
}

/// Seals the oldest open runs until sealed ones, which are on their way out, hold half of the memory; gives up what has failed.
fn make_room(core: &Arc<Core>) {
    let mut files: Vec<Arc<FileData>> = core.files.dirty();
    files.iter().for_each(|file| file.abandon_failed());
    files.sort_by_key(|file| file.open_since());
    let mut open_bytes: usize = files.iter().map(|file| file.open_bytes()).sum();
    for file in files.iter().filter(|file| file.open_since().is_some()) {
        if open_bytes <= core.budget.total_bytes() / 2 {
            break;
        }
        open_bytes -= file.open_bytes().min(open_bytes);
        core.pack_queue.ask(file, false);
    }
    core.commit_queue.ring();
}
