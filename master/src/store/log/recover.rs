//! What a start makes of the log it finds. Decided per record, in order of index, from the segment that holds the first
//! record behind the tables (`applied`):
//!
//! | found at the place of record j | then |
//! |---|---|
//! | record j, intact | it is replayed, if j > `applied` |
//! | not intact, the next segment begins with j | go on there: an earlier start dropped the tail of this segment |
//! | not intact, j <= `applied` | refuse: the tables were written only after j was on stable storage |
//! | not intact, some intact record behind says that j was durable | refuse: the disk lost what it had promised to keep |
//! | not intact, nothing behind says so | the torn tail: drop it and everything behind |
//!
//! After this the files hold exactly what was replayed, all of it durable, and later segments are gone for good. New records
//! go to a new segment with a new key, so nothing that was dropped can come back.

use super::record::{RECORD_ALIGNMENT, SegmentKey, decode_at, record_bytes};
use super::segment::{SEGMENT_HEADER_BYTES, decode_header, list_segments, segment_path};
use crate::store::tables::{StoreError, disk_error};
use cairn_common::ids::LogIndex;
use cairn_common::planted::{Bug, is_planted};
use cairn_runtime::disk::{Disk, OpenMode};
use std::io;
use std::path::Path;

/// How much of a segment is written again at once.
const PIECE_BYTES: usize = 1 << 20;

/// What is called with each command to replay.
pub type Replay<'r> = &'r mut dyn FnMut(LogIndex, &[u8]) -> Result<(), StoreError>;

/// What is left of the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last command, in the log or (if the log holds none behind them) in the tables.
    pub last: LogIndex,
    /// First indices of the segments that are kept.
    pub segments: Vec<LogIndex>,
}

/// Reads the log and hands every command behind `applied` to `replay`, in order. Blocks.
pub fn recover(disk: &dyn Disk, directory: &Path, applied: LogIndex, replay: Replay<'_>) -> Result<Recovered, StoreError> {
    let mut segments = list_segments(disk, directory)?;
    // Trimming removes the oldest first, but a power loss may undo any of it.
    let start = segments.iter().rposition(|first| *first <= applied.next()).unwrap_or(0);
    remove(disk, directory, segments.drain(..start))?;
    // What a mere crash of the process left is replayed, and may be in the tables soon: a power failure must not lose it then.
    make_durable(disk, directory, &segments)?;
    let mut walk = Walk { disk, directory, applied, replay, next: segments.first().copied().unwrap_or(applied.next()) };
    if walk.next > applied.next() {
        let (found, wanted) = (walk.next, applied.next());
        return Err(StoreError::Corrupt(format!("the log begins with command {found}, but the tables need it from {wanted} on")));
    }
    let mut kept = 0;
    for first in &segments {
        if *first != walk.next {
            break;
        }
        walk.segment(*first, segments.get(kept + 1).copied())?;
        kept += 1;
    }
    let torn = walk.next;
    let remains = segments.split_off(kept);
    for first in &remains {
        refuse_if_durable(&Content::read(disk, directory, *first)?, SEGMENT_HEADER_BYTES, torn)?;
    }
    if torn <= applied {
        return Err(damaged(torn));
    }
    remove(disk, directory, remains.into_iter())?;
    // Before any new segment is made: what was dropped must not come back behind it.
    disk.sync_directory(directory).map_err(|error| disk_error("sync", directory, &error))?;
    let last = LogIndex(torn.0 - 1);
    Ok(Recovered { last, segments })
}

/// A segment in memory.
struct Content {
    key: SegmentKey,
    bytes: Vec<u8>,
}

impl Content {
    fn read(disk: &dyn Disk, directory: &Path, first: LogIndex) -> Result<Self, StoreError> {
        let path = segment_path(directory, first);
        let bytes = read_whole(disk, &path).map_err(|error| disk_error("read", &path, &error))?;
        let key = decode_header(&bytes).map_err(|problem| StoreError::Corrupt(format!("{} cannot be used: {problem}", path.display())))?;
        Ok(Self { key, bytes })
    }
}

fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn write_again(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let file = disk.open(path, OpenMode::ReadWrite)?;
    let len = file.len()?;
    let mut piece = vec![0; PIECE_BYTES];
    let rewritten = if is_planted(Bug::LogNotWrittenAgain) { 0 } else { len };
    for offset in (0..rewritten).step_by(PIECE_BYTES) {
        let piece = &mut piece[..PIECE_BYTES.min((len - offset) as usize)];
        file.read_exact_at(piece, offset)?;
        file.write_at(&[piece], offset)?;
    }
    file.sync_data()
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    applied: LogIndex,
    replay: Replay<'a>,
    /// The index that comes next.
    next: LogIndex,
}

impl Walk<'_> {
    /// Replays a segment as far as it is intact. `following`: where the next one begins.
    fn segment(&mut self, first: LogIndex, following: Option<LogIndex>) -> Result<(), StoreError> {
        let content = Content::read(self.disk, self.directory, first)?;
        let mut offset = SEGMENT_HEADER_BYTES;
        while following != Some(self.next)
            && let Some(record) = decode_at(&content.key, &content.bytes, offset).filter(|record| record.index == self.next)
        {
            if record.index > self.applied || (is_planted(Bug::ReplayedTwice) && record.index == self.applied) {
                (self.replay)(record.index, record.payload)?;
            }
            offset += record_bytes(record.payload.len());
            self.next = self.next.next();
        }
        if following == Some(self.next) { Ok(()) } else { refuse_if_durable(&content, offset, self.next) }
    }
}

/// Looks behind a record that is not intact for one that says that it was durable.
fn refuse_if_durable(content: &Content, offset: usize, torn: LogIndex) -> Result<(), StoreError> {
    let mut candidates = (offset..content.bytes.len()).step_by(RECORD_ALIGNMENT);
    let witness = candidates.find_map(|at| decode_at(&content.key, &content.bytes, at).filter(|record| record.durable >= torn));
    if witness.is_some() { Err(damaged(torn)) } else { Ok(()) }
}

fn damaged(index: LogIndex) -> StoreError {
    StoreError::Corrupt(format!(
        "command {index} is missing from the log or damaged, although it had been written to stable storage: the disk lost data; \
         restore the master's directory from a backup (cairn load)"
    ))
}

fn remove(disk: &dyn Disk, directory: &Path, segments: impl Iterator<Item = LogIndex>) -> Result<(), StoreError> {
    for first in segments {
        let path = segment_path(directory, first);
        disk.remove_file(&path).map_err(|error| disk_error("remove", &path, &error))?;
    }
    Ok(())
}

/// Makes everything that the segments show survive a loss of power. A sync alone would not do: if one has failed before the start, the kernel
/// shows pages that never reached the disk and believes that they have, so they are written again.
fn make_durable(disk: &dyn Disk, directory: &Path, segments: &[LogIndex]) -> Result<(), StoreError> {
    for first in segments {
        let path = segment_path(directory, *first);
        write_again(disk, &path).map_err(|error| disk_error("write again", &path, &error))?;
    }
    disk.sync_directory(directory).map_err(|error| disk_error("sync", directory, &error))
}
