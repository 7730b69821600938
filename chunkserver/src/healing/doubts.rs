//! Shards that somebody could not read: looked at, and if need be rebuilt, at once and before all other work.

use super::Healer;
use super::comparison::MissingShard;
use super::duty::{Belonging, belonging};
use super::pull::InPlace;
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
/// How long a damaged shard that does not belong here is left alone: the audit will delete it.
const UNNEEDED_PAUSE: Duration = Duration::from_secs(600);

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
    /// It is sound, or not there and not needed.
    Fine,
    Restored,
    /// It is damaged, and nobody needs it here.
    Unneeded,
    /// To be tried again.
    NotYet,
}

/// Shards that are not looked at before a moment, and whether they are needed.
type Resting = BTreeMap<ShardKey, (Moment, bool)>;

impl Healer {
    /// The task of one target.
    pub(super) async fn look_at_doubts(self: Arc<Self>, number: usize) {
        let patient = self.patient(number);
        let mut resting = Resting::new();
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
            keys.extend(resting.keys());
            resting.retain(|_, (until, _)| *until > now);
            keys.retain(|key| !resting.contains_key(key));
            if !keys.is_empty() {
                self.settle_doubts(number, id, keys, &mut resting).await;
            }
            let needed = resting.values().filter(|(_, is_needed)| *is_needed).count();
            patient.progress.set_damaged(needed as u64);
        }
    }

    async fn settle_doubts(&self, number: usize, id: TargetId, keys: BTreeSet<ShardKey>, resting: &mut Resting) {
        let mut restored = 0;
        for key in keys {
            let (pause, is_needed) = match self.settle_doubt(number, id, key).await {
                Verdict::Fine => continue,
                Verdict::Restored => {
                    restored += 1;
                    continue;
                }
                Verdict::Unneeded => (UNNEEDED_PAUSE, false),
                Verdict::NotYet => (RETRY_PAUSE, true),
            };
            if resting.len() < WAITING_MAX {
                resting.insert(key, (self.runtime.now().plus(pause), is_needed));
            }
        }
        if restored > 0 {
            tracing::info!(target = %id, "{restored} missing or damaged shards were restored");
            if let Err(error) = self.patient(number).target.sync().await {
                tracing::warn!(target = %id, "{error}");
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
        let unneeded = if was_damaged { Verdict::Unneeded } else { Verdict::Fine };
        let (chunk, ticket) = match self.master.chunk(key.chunk).await {
            Ok(Some(found)) => found,
            Ok(None) => return unneeded,
            Err(_) => return Verdict::NotYet,
        };
        let map = self.master.map();
        let Belonging::Here { is_settled } = belonging(&map, &chunk, &key, id) else { return unneeded };
        if !was_damaged && !is_settled {
            // It comes with the rest of the slot, at the pace that is set for that: readers would have it all pulled at once.
            return Verdict::Fine;
        }
        let missing = MissingShard { chunk, key, is_settled, ticket };
        let in_place = if was_damaged { InPlace::Damaged } else { InPlace::Nothing };
        match self.pull(&map, number, id, &missing, in_place).await {
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
