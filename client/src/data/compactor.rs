//! Compaction (design section 4): rewrites what the master says is fragmented or mostly dead into fresh chunks, one piece at a time.
//!
//! | step | if it fails, or somebody dies here |
//! |---|---|
//! | ask the master for work | ask again later |
//! | read the content of the extents, verified as for any reader | the master gives the work to another after a while |
//! | put it, durably: what it replaces may be deleted | likewise; the shards are found by the next comparison and deleted |
//! | publish: what has changed meanwhile stays as it is | likewise; done twice it does nothing the second time |
//!
//! Whatever is published has the same bytes as before, so nobody's caches go stale. Pure parts: [`reads`], [`replacement`].

use super::chunk_reader::shard_ranges;
use super::chunk_source::fetch_range;
use super::chunk_writer::{Elsewhere, PutChunk, PutChunks};
use super::core::Core;
use super::extent_map::PlacedExtent;
use super::limits::{
    COMPACTION_BREATH, COMPACTION_EXTENTS_MANY, COMPACTION_IDLE_PAUSE, COMPACTION_READ_GAP, COMPACTION_READS_AT_ONCE, COMPACTION_TRIES,
};
use super::put_job::PutContent;
use crate::ports::CommitError;
use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::collections::FastMap;
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, Extent, NewChunk};
use cairn_common::ids::ChunkId;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{CompactionWork, FileCompaction, FileExtents};
use cairn_runtime::clock::Moment;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How much this client scatters: whoever does finds work for its compactor.
#[derive(Default)]
pub struct Scatter {
    extents: AtomicUsize,
    many: Notify,
}

impl Scatter {
    /// So many extents were committed.
    pub fn note(&self, extents: usize) {
        if self.extents.fetch_add(extents, Ordering::Relaxed) + extents >= COMPACTION_EXTENTS_MANY {
            self.extents.store(0, Ordering::Relaxed);
            self.many.notify_one();
        }
    }
}

/// Rewrites for ever, at most `bytes_per_second`.
pub async fn run(core: Arc<Core>, bytes_per_second: u64) {
    let mut done = false;
    wait_for_work(&core).await;
    loop {
        let started = core.runtime.now();
        // The master logs why it refuses, and the link why it can't be asked.
        let rewritten = match core.metadata.compaction_work(done).await {
            Ok(Some(work)) => rewrite(&core, &work).await.map(Some),
            Ok(None) | Err(_) => Ok(None),
        };
        done = matches!(rewritten, Ok(Some(_)));
        match rewritten {
            Ok(Some(bytes)) => core.runtime.clock.sleep_until(paid_for(started, bytes, bytes_per_second)).await,
            Ok(None) => wait_for_work(&core).await,
            Err(error) => {
                tracing::info!(%error, "a compaction did not work out; it is tried again later");
                core.runtime.sleep(COMPACTION_IDLE_PAUSE).await;
            }
        }
    }
}

/// Until it makes sense to ask again.
async fn wait_for_work(core: &Core) {
    let idle = async {
        core.runtime.sleep(COMPACTION_BREATH).await;
        core.scatter.many.notified().await;
    };
    tokio::select! {
        biased;
        () = idle => {}
        () = core.runtime.sleep(COMPACTION_IDLE_PAUSE) => {}
    }
}

/// When as much time has passed as reading `bytes` and writing them anew may take.
fn paid_for(started: Moment, bytes: u64, bytes_per_second: u64) -> Moment {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    started.plus(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Does one piece of work; how many bytes were moved.
async fn rewrite(core: &Arc<Core>, work: &CompactionWork) -> Result<u64, FsError> {
    let parts = read(core, work).await?;
    let bytes = parts.iter().map(|part| part.len() as u64).sum();
    let mut elsewhere = Elsewhere::new();
    for _ in 0..COMPACTION_TRIES {
        let put = core.writer.put(PutContent::Parts(parts.clone()), work.pool, !is_planted(Bug::CompactedUnsynced), &elsewhere).await?;
        let (files, chunks) = replacement(&work.files, &put);
        match core.metadata.compact(files.clone(), chunks).await {
            Ok(published) => {
                core.counts.compactions.add(1);
                core.counts.compacted_bytes.add(published);
                if published > 0 {
                    tell_readers(core, &files, &put);
                }
                return Ok(bytes);
            }
            Err(CommitError::PutAgain) => {}
            Err(CommitError::PutElsewhere(chunks)) => elsewhere.extend(chunks),
            // Nothing is held back for a compaction: it belongs to no session.
            Err(CommitError::SessionGone) => return Err(FsError::Io),
            Err(CommitError::Fs(error)) => return Err(error),
        }
        core.counts.chunks_put_again.add(put.0.len() as u64);
    }
    Err(FsError::Busy)
}

/// Files that are open here look into the new chunks from now on: they need not find out when the old ones are gone.
fn tell_readers(core: &Core, files: &[FileCompaction], put: &PutChunks) {
    let infos: FastMap<ChunkId, ChunkInfo> = put.0.iter().map(|put| (put.chunk.info.id, put.chunk.info)).collect();
    for compaction in files {
        let Some(file) = core.files.get(compaction.ino) else { continue };
        let place = |extent: &Extent| infos.get(&extent.chunk).map(|chunk| PlacedExtent { extent: *extent, chunk: *chunk });
        file.compacted(&compaction.old, &compaction.new.iter().filter_map(place).collect::<Vec<_>>());
    }
}

/// The content of all extents, in order.
async fn read(core: &Arc<Core>, work: &CompactionWork) -> Result<Vec<Bytes>, FsError> {
    let infos: FastMap<ChunkId, ChunkInfo> = work.chunks.iter().map(|chunk| (chunk.id, *chunk)).collect();
    let wanted = reads(work.files.iter().flat_map(|file| &file.extents), &infos).ok_or_else(|| {
        tracing::error!("the master gave extents without their chunk to compact");
        FsError::Io
    })?;
    let fetches = wanted.into_iter().map(|(chunk, range)| async move {
        let bytes = read_range(core, &chunk, range.clone()).await?;
        Ok::<_, FsError>(((chunk.id, range.start), bytes))
    });
    let found: BTreeMap<(ChunkId, u32), Bytes> = stream::iter(fetches).buffer_unordered(COMPACTION_READS_AT_ONCE).try_collect().await?;
    let slice = |extent: &Extent| {
        let (key, bytes) = found.range(..=(extent.chunk, extent.chunk_offset)).next_back()?;
        let start = (extent.chunk_offset - key.1) as usize;
        let end = start + extent.bytes as usize;
        (key.0 == extent.chunk && end <= bytes.len()).then(|| bytes.slice(start..end))
    };
    work.files.iter().flat_map(|file| &file.extents).map(|extent| slice(extent).ok_or(FsError::Io)).collect()
}

/// Verified bytes of a chunk. Not kept in the cache: what nobody asked for must not push out what somebody did.
async fn read_range(core: &Arc<Core>, chunk: &ChunkInfo, range: Range<u32>) -> Result<Bytes, FsError> {
    let mut whole = Buffer::with_len(range.len());
    let mut fill = |at: u32, bytes: &[u8]| {
        // Whole blocks are read: what is around the range is cut off.
        let (from, to) = (at.max(range.start), (at + bytes.len() as u32).min(range.end));
        if from < to {
            whole[(from - range.start) as usize..(to - range.start) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
    };
    if let Some(pieces) = core.source.cached(chunk, range.clone()) {
        let mut at = range.start;
        for piece in pieces {
            fill(at, &piece);
            at += piece.len() as u32;
        }
    } else {
        for part in shard_ranges(chunk.scheme.layout(chunk.bytes), fetch_range(chunk, range.clone())) {
            fill(part.chunk_offset, &core.source.reader.read(chunk, &part).await?);
        }
    }
    Ok(whole.freeze())
}

/// The ranges of chunks to be read for some extents: those that lie close together as one. `None` if a chunk is not known, or too short.
fn reads<'a>(extents: impl Iterator<Item = &'a Extent>, chunks: &FastMap<ChunkId, ChunkInfo>) -> Option<Vec<(ChunkInfo, Range<u32>)>> {
    let mut ranges: Vec<(ChunkId, Range<u32>)> = Vec::new();
    for extent in extents {
        let end = extent.chunk_offset.checked_add(extent.bytes)?;
        chunks.get(&extent.chunk).filter(|chunk| end <= chunk.bytes)?;
        ranges.push((extent.chunk, extent.chunk_offset..end));
    }
    ranges.sort_unstable_by_key(|(chunk, range)| (*chunk, range.start));
    let mut joined: Vec<(ChunkInfo, Range<u32>)> = Vec::new();
    for (id, range) in ranges {
        match joined.last_mut() {
            Some((chunk, last)) if chunk.id == id && range.start <= last.end.saturating_add(COMPACTION_READ_GAP) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push((*chunks.get(&id)?, range)),
        }
    }
    Some(joined)
}

/// Where everything is now: the content of all extents was put one after the other.
fn replacement(files: &[FileExtents], put: &PutChunks) -> (Vec<FileCompaction>, Vec<NewChunk>) {
    let mut position = 0;
    let mut chunks: BTreeMap<ChunkId, NewChunk> = BTreeMap::new();
    let mut replaced = Vec::with_capacity(files.len());
    for FileExtents { ino, extents } in files {
        let mut new: Vec<Extent> = Vec::new();
        for old in extents {
            for (extent, PutChunk { chunk, .. }) in put.extents(old.file_offset, position, old.bytes) {
                chunks.insert(extent.chunk, *chunk);
                match new.last_mut() {
                    Some(last) if continues(last, &extent) => last.bytes += extent.bytes,
                    _ => new.push(extent),
                }
            }
            position += old.bytes;
        }
        replaced.push(FileCompaction { ino: *ino, old: extents.clone(), new });
    }
    (replaced, chunks.into_values().collect())
}

fn continues(earlier: &Extent, later: &Extent) -> bool {
    earlier.chunk == later.chunk
        && earlier.file_end() == later.file_offset
        && u64::from(earlier.chunk_offset) + u64::from(earlier.bytes) == u64::from(later.chunk_offset)
}

#[cfg(test)]
mod tests {
    use super::{continues, paid_for, reads, replacement};
    use crate::data::chunk_writer::{PutChunk, PutChunks};
    use bytes::Bytes;
    use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
    use cairn_common::ids::{ChunkId, Ino, MapEpoch, PoolId};
    use cairn_common::scheme::Scheme;
    use cairn_common::time::Timestamp;
    use cairn_common::wire::master::FileExtents;
    use cairn_runtime::clock::Moment;
    use std::time::Duration;

    fn info(number: u8, bytes: u32) -> ChunkInfo {
        ChunkInfo { id: ChunkId([number; 32]), bytes, pool: PoolId(1), scheme: Scheme::copies(2), slots: SlotMask(7) }
    }

    fn extent(file_offset: u64, bytes: u32, chunk: u8, chunk_offset: u32) -> Extent {
        Extent { file_offset, bytes, chunk: ChunkId([chunk; 32]), chunk_offset }
    }

    #[test]
    fn neighbours_are_read_together() {
        let chunks = [info(1, 1 << 20), info(2, 8192)].map(|chunk| (chunk.id, chunk)).into_iter().collect();
        let extents = [extent(0, 4096, 1, 500_000), extent(4096, 100, 2, 0), extent(9000, 4096, 1, 8192), extent(5000, 4096, 1, 0)];
        let found = reads(extents.iter(), &chunks).expect("all are known");
        let found: Vec<_> = found.into_iter().map(|(chunk, range)| (chunk.id.0[0], range)).collect();
        assert_eq!(found, [(1, 0..12_288), (1, 500_000..504_096), (2, 0..100)]);
        assert!(reads([extent(0, 8193, 2, 0)].iter(), &chunks).is_none(), "beyond the chunk");
        assert!(reads([extent(0, 1, 3, 0)].iter(), &chunks).is_none(), "unknown");
    }

    #[test]
    fn what_was_put_in_order_is_found_in_order() {
        let put = |offset: u32, number: u8, bytes: u32| PutChunk {
            offset,
            chunk: NewChunk { info: info(number, bytes), epoch: MapEpoch(1), ticket: Timestamp::EPOCH },
            bytes: Bytes::new(),
            shards: Vec::new(),
        };
        let files = [
            FileExtents { ino: Ino(5), extents: vec![extent(100, 10, 1, 0), extent(110, 5, 2, 7), extent(200, 10, 1, 50)] },
            FileExtents { ino: Ino(6), extents: vec![extent(0, 10, 1, 0)] },
        ];
        // The chunk was cut in two within the third extent.
        let (files, chunks) = replacement(&files, &PutChunks(vec![put(0, 8, 20), put(20, 9, 15)]));
        assert_eq!(files[0].new, [extent(100, 15, 8, 0), extent(200, 5, 8, 15), extent(205, 5, 9, 0)]);
        assert_eq!(files[1].new, [extent(0, 10, 9, 5)]);
        assert_eq!(chunks.len(), 2);
        assert!(files.iter().all(|file| file.new.windows(2).all(|pair| !continues(&pair[0], &pair[1]))));
    }

    #[test]
    fn bytes_take_their_time() {
        let start = Moment::from_nanos(7);
        assert_eq!(paid_for(start, 3 << 20, 1 << 20), start.plus(Duration::from_secs(3)));
    }
}
