//! Reading: dirty bytes from memory, holes from nowhere, everything else from verified chunks.

use super::extent_map::{Part, PlacedExtent};
use super::file::{FileData, FileState};
use super::limits::{EXTENT_FETCH_ALIGN, EXTENT_FETCHES_MAX, READ_LIMIT};
use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::error::FsError;
use cairn_common::limits::{FILE_BYTES_MAX, MIB};
use futures_util::future::join_all;
use std::ops::Range;

/// What holes are made of.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Fetches without exclusive right before a reader keeps commits away to get a map that holds still.
const HASTY_FETCHES: u32 = 3;

/// A part of a read.
#[derive(Debug, Clone)]
enum Segment {
    Ready(Bytes),
    Hole(u64),
    Stored(PlacedExtent),
    Unknown,
}

impl FileData {
    /// Reads without waiting: `None` unless everything is in memory. Shorter than asked only at the end of the file.
    pub fn try_read(&self, offset: u64, len: usize) -> Option<Result<Bytes, FsError>> {
        let (range, segments) = {
            let state = self.state.lock();
            let range = state.clip(offset, len);
            let segments = state.look(range.clone());
            (range, segments)
        };
        let mut pieces = Vec::with_capacity(segments.len());
        for (_, segment) in segments {
            match segment {
                Segment::Ready(bytes) => pieces.push(bytes),
                Segment::Hole(bytes) => pieces.extend(zeros(bytes)),
                Segment::Stored(placed) => pieces.extend(self.core().source.cached(&placed.chunk, placed.chunk_range())?),
                Segment::Unknown => return None,
            }
        }
        self.read_ahead(&range);
        Some(Ok(self.joined(pieces)))
    }

    /// Reads verified bytes. Shorter than asked only at the end of the file, as this client knows it.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes, FsError> {
        let range = self.state.lock().clip(offset, len);
        let segments = self.plan(range.clone()).await?;
        self.read_ahead(&range);
        let runtime = &self.core().runtime;
        let start = runtime.now();
        let error = match self.fetch(&segments).await {
            Ok(pieces) => return Ok(self.joined(pieces)),
            Err(error) => error,
        };
        // The chunk may have been replaced and collected since we learned of it: look once whether the master says so.
        let left = READ_LIMIT.saturating_sub(runtime.now().since(start));
        let again = async {
            self.forget_extents();
            let fresh = self.plan(range).await?;
            if stored(&fresh).eq(stored(&segments)) {
                tracing::error!(ino = %self.ino(), offset, len, "a part of a file can't be read: too few shards of its chunks can be");
                return Err(error);
            }
            self.fetch(&fresh).await
        };
        match runtime.timeout(left, again).await {
            Ok(pieces) => Ok(self.joined(pieces?)),
            Err(_) => Err(error),
        }
    }

    /// The ranges of `range` that hold data (the rest are holes), in order, as far as the file goes. For SEEK_DATA and SEEK_HOLE.
    pub async fn extents(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, FsError> {
        let end = range.end.min(self.local_size());
        let mut data: Vec<Range<u64>> = Vec::new();
        let mut position = range.start;
        let mut fetches = 0;
        while position < end {
            let segments = self.state.lock().kinds(position..end);
            for (range, is_data) in segments {
                let Some(is_data) = is_data else { break };
                position = range.end;
                match data.last_mut() {
                    Some(last) if is_data && last.end == range.start => last.end = range.end,
                    _ if is_data => data.push(range),
                    _ => {}
                }
            }
            if position < end {
                self.learn_extents(position, &mut fetches).await?;
            }
        }
        Ok(data)
    }

    /// All segments of a range, fetching extents as needed.
    async fn plan(&self, range: Range<u64>) -> Result<Vec<Segment>, FsError> {
        let mut segments = Vec::new();
        let mut position = range.start;
        let mut fetches = 0;
        while position < range.end {
            let looked = self.state.lock().look(position..range.end);
            for (part, segment) in looked {
                if matches!(segment, Segment::Unknown) {
                    break;
                }
                position = part.end;
                segments.push(segment);
            }
            if position < range.end {
                self.learn_extents(position, &mut fetches).await?;
            }
        }
        Ok(segments)
    }

    /// Asks the master for the extents from `position` on. An answer that our own changes have overtaken does not count.
    async fn learn_extents(&self, position: u64, fetches: &mut u32) -> Result<(), FsError> {
        if *fetches >= EXTENT_FETCHES_MAX {
            tracing::error!(ino = %self.ino(), position, "the extents of a file could not be learned");
            return Err(FsError::Io);
        }
        // A reader that went backwards, or waits, has no use for what comes before.
        let start = if *fetches == 0 { position / EXTENT_FETCH_ALIGN * EXTENT_FETCH_ALIGN } else { position };
        let hold = if *fetches >= HASTY_FETCHES { Some(self.hold().await) } else { None };
        *fetches += 1;
        let before = self.state.lock().extent_changes;
        let page = self.core().metadata.extents(self.ino(), start, FILE_BYTES_MAX).await?;
        let mut state = self.state.lock();
        if state.extent_changes == before {
            state.extents.learn(start..FILE_BYTES_MAX, &page);
            if page.more_from.is_none_or(|more| more > position) {
                *fetches = 0;
            }
        }
        drop(state);
        drop(hold);
        Ok(())
    }

    /// The bytes of all segments, in order; those that come from chunks side by side.
    async fn fetch(&self, segments: &[Segment]) -> Result<Vec<Bytes>, FsError> {
        let source = &self.core().source;
        let fetch_one = |segment: Segment| async move {
            match segment {
                Segment::Ready(bytes) => Ok(vec![bytes]),
                Segment::Hole(bytes) => Ok(zeros(bytes)),
                Segment::Stored(placed) => source.read(&placed.chunk, placed.chunk_range()).await,
                Segment::Unknown => Err(FsError::Io),
            }
        };
        let pieces = join_all(segments.iter().cloned().map(fetch_one)).await;
        Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn read_ahead(&self, read: &Range<u64>) {
        if read.is_empty() {
            return;
        }
        let core = self.core();
        let placed: Vec<PlacedExtent> = {
            let mut state = self.state.lock();
            let Some(ahead) = state.readahead.on_read(read.clone(), core.settings.readahead_bytes) else { return };
            // Up to the end of a shard, in a file of full chunks.
            let ahead = ahead.start..ahead.end.next_multiple_of(MIB).min(state.size);
            let stored = |part: &(Range<u64>, Part)| match part.1 {
                Part::Stored(placed) => Some(placed),
                Part::Hole | Part::Unknown => None,
            };
            if ahead.is_empty() { Vec::new() } else { state.extents.parts(ahead).iter().filter_map(stored).collect() }
        };
        for placed in placed {
            core.source.prefetch(&placed.chunk, placed.chunk_range());
        }
    }

    fn joined(&self, mut pieces: Vec<Bytes>) -> Bytes {
        let total: usize = pieces.iter().map(Bytes::len).sum();
        self.core().counts.read_bytes.add(total as u64);
        match pieces.len() {
            0 => Bytes::new(),
            1 => pieces.swap_remove(0),
            _ => {
                let mut joined = Buffer::with_len(total);
                let mut position = 0;
                for piece in &pieces {
                    joined[position..position + piece.len()].copy_from_slice(piece);
                    position += piece.len();
                }
                joined.freeze()
            }
        }
    }
}

impl FileState {
    /// The part of a read that lies within the file.
    fn clip(&self, offset: u64, len: usize) -> Range<u64> {
        let end = offset.saturating_add(len as u64).min(self.size);
        offset.min(end)..end
    }

    /// What each part of a range is made of: dirty data first, extents below.
    fn look(&self, range: Range<u64>) -> Vec<(Range<u64>, Segment)> {
        let mut segments = Vec::new();
        let mut position = range.start;
        for (part, bytes) in self.written.read(range.clone()) {
            self.look_below(position..part.start, &mut segments);
            position = part.end;
            segments.push((part, Segment::Ready(bytes)));
        }
        self.look_below(position..range.end, &mut segments);
        segments
    }

    fn look_below(&self, gap: Range<u64>, segments: &mut Vec<(Range<u64>, Segment)>) {
        if gap.is_empty() {
            return;
        }
        for (range, part) in self.extents.parts(gap) {
            let segment = match part {
                Part::Stored(placed) => Segment::Stored(placed),
                Part::Hole => Segment::Hole(range.end - range.start),
                Part::Unknown => Segment::Unknown,
            };
            segments.push((range, segment));
        }
    }

    /// Which parts of a range are data; `None` where that is unknown.
    fn kinds(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<bool>)> {
        let mut kinds = Vec::new();
        let mut position = range.start;
        let below = |gap: Range<u64>, kinds: &mut Vec<(Range<u64>, Option<bool>)>| {
            if gap.is_empty() {
                return;
            }
            kinds.extend(self.extents.parts(gap).into_iter().map(|(range, part)| match part {
                Part::Stored(_) => (range, Some(true)),
                Part::Hole => (range, Some(false)),
                Part::Unknown => (range, None),
            }));
        };
        for dirty in self.written.ranges(range.clone()) {
            below(position..dirty.start, &mut kinds);
            position = dirty.end;
            kinds.push((dirty, Some(true)));
        }
        below(position..range.end, &mut kinds);
        kinds
    }
}

impl PlacedExtent {
    fn chunk_range(&self) -> Range<u32> {
        self.extent.chunk_offset..self.extent.chunk_offset + self.extent.bytes
    }
}

fn stored(segments: &[Segment]) -> impl Iterator<Item = &PlacedExtent> {
    segments.iter().filter_map(|segment| match segment {
        Segment::Stored(placed) => Some(placed),
        Segment::Ready(_) | Segment::Hole(_) | Segment::Unknown => None,
    })
}

/// `bytes` zeros, without memory of their own.
fn zeros(bytes: u64) -> Vec<Bytes> {
    let whole = bytes / ZEROS.len() as u64;
    let rest = (bytes % ZEROS.len() as u64) as usize;
    let mut pieces = vec![Bytes::from_static(&ZEROS); whole as usize];
    if rest > 0 {
        pieces.push(Bytes::from_static(&ZEROS[..rest]));
    }
    pieces
}
