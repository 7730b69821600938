//! Shards that somebody could not read: looked at, and if need be rebuilt, at once and before all other work.

use super::Healer;
use super::comparison::MissingShard;
use super::duty::{Belonging, belonging};
use cairn_common::ids::TargetId;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey};
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Doubts that wait; what comes on top is forgotten, for readers will come again, and so will the scrub.
const WAITING_MAX: usize = 4096;
/// How often shards that the target itself found damaged are looked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a shard that could not be restored is left alone.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// The queue of one target.
#[derive(Default)]
pub struct Doubts {
    waiting: Mutex<BTreeSet<ShardKey>>,
    added: Notify,
}

impl Doubts {
    pub fn add(&self, keys: &[ShardKey]) {
        let mut waiting = self.waiting.lock();
        let room = WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(keys.iter().take(room));
        self.added.notify_one();
    }

    fn take(&self) -> BTreeSet<ShardKey> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// What became of a doubt.
enum Verdict {
    /// It is sound, or nobody needs it.
    Fine,
    Restored,
    /// To be tried again.
    NotYet,
}

impl Healer {
    /// The task of one target.
    pub(super) async fn look_at_doubts(self: Arc<Self>, number: usize) {
        let patient = self.patient(number);
        let mut not_before: BTreeMap<ShardKey, Moment> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = patient.doubts.added.notified() => {}
                () = self.runtime.sleep(POLL_INTERVAL) => {}
            }
            let Some(id) = self.id_on_map(number) else { continue };
            let now = self.runtime.now();
            let mut keys = patient.doubts.take();
            keys.extend(patient.target.damaged());
            keys.extend(not_before.keys());
            not_before.retain(|_, moment| *moment > now);
            let mut restored = 0;
            for key in keys.into_iter().filter(|key| !not_before.contains_key(key)).collect::<Vec<_>>() {
                match self.settle_doubt(number, id, key).await {
                    Verdict::Fine => {}
                    Verdict::Restored => restored += 1,
                    Verdict::NotYet if not_before.len() < WAITING_MAX => {
                        not_before.insert(key, now.plus(RETRY_PAUSE));
                    }
                    Verdict::NotYet => {}
                }
            }
            if restored > 0 {
                tracing::info!(target = %id, "{restored} missing or damaged shards were restored");
                if let Err(error) = patient.target.sync().await {
                    tracing::warn!(target = %id, "{error}");
                }
            }
        }
    }

    async fn settle_doubt(&self, number: usize, id: TargetId, key: ShardKey) -> Verdict {
        let patient = self.patient(number);
        let was_damaged = match patient.target.examine(key).await {
            Ok(_) => return Verdict::Fine,
            Err(ChunkserverError::Corrupt(_)) => true,
            Err(ChunkserverError::NoSuchShard(_)) => false,
            Err(_) => return Verdict::NotYet,
        };
        let (chunk, ticket) = match self.master.chunk(key.chunk).await {
            Ok(Some(found)) => found,
            // Nobody needs it; a damaged one goes with the audit.
            Ok(None) => return Verdict::Fine,
            Err(_) => return Verdict::NotYet,
        };
        let map = self.master.map();
        let Belonging::Here { is_settled } = belonging(&map, &chunk, &key, id) else { return Verdict::Fine };
        let missing = MissingShard { chunk, key, is_settled, ticket };
        match self.pull(&map, &patient.target, id, &missing).await {
            Ok(()) => {
                patient.progress.repaired(None, missing.bytes(), was_damaged, self.runtime.now());
                Verdict::Restored
            }
            Err(error) => {
                tracing::warn!(target = %id, ?key, "a missing or damaged shard can't be restored yet: {error}");
                Verdict::NotYet
            }
        }
    }
}
