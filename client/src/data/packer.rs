//! Gathers what many files want to be put into as few chunks as possible. Rounds overlap a little; what is asked for while
//! all of them are under way waits for the next one and shares it. So a lone caller waits for nobody, and a crowd is served
//! together.

use super::core::Core;
use super::file::FileData;
use super::pack::{RunShape, group_runs};
use super::put_job::{Member, PutContent, PutJob};
use super::written::RunParts;
use bytes::Bytes;
use cairn_common::ids::{Ino, PoolId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A file whose open run shall be put.
struct Request {
    file: Arc<FileData>,
    /// Somebody waits for it to be stable.
    sync: bool,
}

/// The files whose open runs shall be put next; each once.
#[derive(Default)]
pub struct PackQueue {
    requests: Mutex<BTreeMap<Ino, Request>>,
    wake: Notify,
}

impl PackQueue {
    pub fn ask(&self, file: &Arc<FileData>, sync: bool) {
        let mut requests = self.requests.lock();
        requests.entry(file.ino()).or_insert_with(|| Request { file: Arc::clone(file), sync }).sync |= sync;
        drop(requests);
        self.wake.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.requests.lock().is_empty()
    }

    fn take(&self) -> BTreeMap<Ino, Request> {
        std::mem::take(&mut *self.requests.lock())
    }
}

/// Serves the queue for ever.
pub async fn run(core: Arc<Core>) {
    loop {
        core.pack_queue.wake.notified().await;
        while !core.pack_queue.is_empty() {
            let Ok(slot) = Arc::clone(&core.pack_slots).acquire_owned().await else { return };
            pack_round(&core, slot);
        }
    }
}

/// A sealed run that waits for its place.
struct Sealed {
    file: Arc<FileData>,
    run: RunParts,
    sync: bool,
}

/// Seals the open runs of all files that asked, packs them, and starts their puts.
fn pack_round(core: &Arc<Core>, slot: OwnedSemaphorePermit) {
    let mut by_pool: BTreeMap<PoolId, Vec<Sealed>> = BTreeMap::new();
    for Request { file, sync } in core.pack_queue.take().into_values() {
        if let Some((run, is_alone)) = file.seal() {
            // With other puts to sync, one sync of the target afterwards does it for this one, too.
            let sealed = Sealed { run, sync: sync && is_alone, file };
            by_pool.entry(sealed.file.pool()).or_default().push(sealed);
        }
    }
    let slot = Arc::new(slot);
    for (pool, sealed) in by_pool {
        let shapes: Vec<RunShape> = sealed.iter().map(|sealed| sealed.run.shape).collect();
        let chunk_bytes_max = core.chunk_bytes_max(pool);
        let mut waiting: Vec<Option<Sealed>> = sealed.into_iter().map(Some).collect();
        for pack in group_runs(&shapes, chunk_bytes_max) {
            let pack = pack.into_iter().filter_map(|position| waiting[position].take()).collect();
            start_pack(core, pool, pack, &slot);
        }
    }
}

fn start_pack(core: &Arc<Core>, pool: PoolId, pack: Vec<Sealed>, slot: &Arc<OwnedSemaphorePermit>) {
    let sync = pack.iter().any(|sealed| sealed.sync);
    let mut parts: Vec<Bytes> = Vec::new();
    let mut members = Vec::with_capacity(pack.len());
    let mut bases = Vec::with_capacity(pack.len());
    let mut base = 0;
    for Sealed { file, run, .. } in pack {
        bases.push(base);
        base += run.shape.live_bytes as u32;
        parts.extend(run.parts);
        members.push(Member { file, run: run.run });
    }
    let job = PutJob::new(PutContent::Parts(parts), pool, sync, members);
    for (member, base) in job.members.iter().zip(bases) {
        member.file.assign_run(member.run, &job, base);
    }
    core.start(job, Some(Arc::clone(slot)));
}
