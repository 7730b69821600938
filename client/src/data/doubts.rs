//! Telling a target that one of its shards is missing or not what it should be, so that it is repaired now and not when the
//! scrub comes by. Best effort: the reader does not wait for it, and what is too much is not told.

use super::limits::{DOUBT_AGAIN_AFTER, DOUBTS_AT_ONCE, DOUBTS_REMEMBERED_MAX, GET_LIMIT};
use crate::ports::Targets;
use bytes::Bytes;
use cairn_common::ids::TargetId;
use cairn_common::wire::chunkserver::{ChunkserverRequest, ShardKey};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What was told lately.
pub struct Doubts {
    told: Mutex<BTreeMap<(TargetId, ShardKey), Moment>>,
    turns: Arc<Semaphore>,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { told: Mutex::default(), turns: Arc::new(Semaphore::new(DOUBTS_AT_ONCE)) }
    }
}

impl Doubts {
    /// Tells the target, unless it was told a moment ago.
    pub fn tell(&self, runtime: &Runtime, targets: &Arc<dyn Targets>, target: TargetId, key: ShardKey) {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else { return };
        if !self.is_news(runtime.now(), target, key) {
            return;
        }
        let targets = Arc::clone(targets);
        runtime.spawn("tell a target of a doubt", async move {
            let _turn = turn;
            let request = ChunkserverRequest::Doubt { target, keys: vec![key] };
            if let Err(error) = targets.call(target, request, Bytes::new(), GET_LIMIT).await {
                tracing::debug!(%target, %error, "a target was not told of a shard that could not be read");
            }
        });
    }

    fn is_news(&self, now: Moment, target: TargetId, key: ShardKey) -> bool {
        let mut told = self.told.lock();
        if told.len() >= DOUBTS_REMEMBERED_MAX {
            told.retain(|_, when| now.since(*when) < DOUBT_AGAIN_AFTER);
        }
        let is_known = told.get(&(target, key)).is_some_and(|when| now.since(*when) < DOUBT_AGAIN_AFTER);
        let has_room = told.len() < DOUBTS_REMEMBERED_MAX;
        if !is_known && has_room {
            told.insert((target, key), now);
        }
        !is_known && has_room
    }
}

#[cfg(test)]
mod tests {
    use super::{DOUBTS_REMEMBERED_MAX, Doubts};
    use cairn_common::ids::{ChunkId, TargetId};
    use cairn_common::scheme::Scheme;
    use cairn_common::wire::chunkserver::ShardKey;
    use cairn_runtime::clock::Moment;

    #[test]
    fn the_same_doubt_is_told_now_and_then_and_memory_is_bounded() {
        let doubts = Doubts::default();
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let key = |number: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            ShardKey { chunk: ChunkId(id), scheme: Scheme::copies(2), index: 0 }
        };
        assert!(doubts.is_news(at(0), TargetId(1), key(0)));
        assert!(!doubts.is_news(at(1), TargetId(1), key(0)));
        assert!(doubts.is_news(at(1), TargetId(2), key(0)));
        assert!(doubts.is_news(at(60), TargetId(1), key(0)));
        let told = (0..2 * DOUBTS_REMEMBERED_MAX).filter(|number| doubts.is_news(at(61), TargetId(3), key(*number))).count();
        assert_eq!((told, doubts.told.lock().len()), (DOUBTS_REMEMBERED_MAX - 1, DOUBTS_REMEMBERED_MAX));
        assert!(doubts.is_news(at(200), TargetId(3), key(0)), "old ones make room");
    }
}
