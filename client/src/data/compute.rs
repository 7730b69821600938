//! Where computing happens.

use super::limits::COMPUTE_INLINE_BYTES_MAX;
use cairn_runtime::Runtime;

/// Runs work over `bytes` bytes: short work in place, for a hop to another thread costs as much as hashing 64 KiB; long
/// work away from the task's thread.
pub async fn compute<T: Send + 'static>(runtime: &Runtime, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= COMPUTE_INLINE_BYTES_MAX { work() } else { runtime.blocking(work).await }
}
