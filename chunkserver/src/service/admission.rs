//! How much may be in progress at once. Beyond it requests wait a moment, and are then refused, so that the client asks
//! elsewhere. Each target has limits of its own: one that hangs must not use up what the others need.

use cairn_common::ids::TargetId;
use cairn_common::limits::MIB;
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::Runtime;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests in progress on one target.
const REQUESTS_MAX: usize = 256;
/// Bytes of bodies in progress on one target: shards that arrive, and ranges that are read.
const BODY_BYTES_MAX: usize = 128 * MIB as usize;
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Unit in which body bytes are counted.
const UNIT_BYTES: usize = 4096;

/// The limits of one target.
struct Limits {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The limits of all targets. Those of ids that are not here share one set, which their refusal needs only briefly.
#[derive(Default)]
pub struct Admission {
    limits: Mutex<BTreeMap<Option<TargetId>, Arc<Limits>>>,
}

/// The right to carry out one request; ends when dropped.
pub struct Turn {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    /// Waits for the turn of a request with a body of `body_bytes`. `target` is one that is here, or `None`.
    pub async fn turn(&self, runtime: &Runtime, target: Option<TargetId>, body_bytes: usize) -> Result<Turn, ChunkserverError> {
        let limits = self.limits_of(target);
        let units = body_bytes.min(BODY_BYTES_MAX).div_ceil(UNIT_BYTES) as u32;
        let wait = async {
            let request = limits.requests.clone().acquire_owned().await.ok()?;
            let bytes = limits.bytes.clone().acquire_many_owned(units).await.ok()?;
            Some(Turn { _request: request, _bytes: bytes })
        };
        runtime.timeout(WAIT_MAX, wait).await.ok().flatten().ok_or(ChunkserverError::Unavailable)
    }

    fn limits_of(&self, target: Option<TargetId>) -> Arc<Limits> {
        let new =
            || Limits { requests: Arc::new(Semaphore::new(REQUESTS_MAX)), bytes: Arc::new(Semaphore::new(BODY_BYTES_MAX / UNIT_BYTES)) };
        self.limits.lock().entry(target).or_insert_with(|| Arc::new(new())).clone()
    }
}
