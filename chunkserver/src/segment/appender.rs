//! The writing end of a target: gathers records, writes them in one piece, makes them durable, and starts new segments.
//!
//! Invariants:
//! - `end` is on a page boundary, and nothing was ever written at or behind it while its segment is open.
//! - After a failed write nothing more is written to that segment: the next record starts a new one, whose header tells
//!   where the good records of the old one ended.

use super::files::SegmentFiles;
use super::header::{FIRST_RECORD, SegmentHeader};
use super::record::{Record, Stand};
use super::{PAGE_BYTES, Place, Position, SegmentNumber, TargetUuid};
use bytes::Bytes;
use cairn_common::planted::{Bug, is_planted};
use cairn_runtime::disk::DiskFile;
use std::io;
use std::sync::Arc;

/// Why records could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing of the batch counts; the target goes on.
    #[error("the disk is full: {0}")]
    NoSpace(io::Error),
    /// Nothing may be written to the target any more: what was written since the last sync is in doubt.
    #[error("{0}")]
    Failed(io::Error),
}

impl AppendError {
    /// For writes: lack of room leaves what was written before as it is.
    fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(error),
            _ => Self::Failed(error),
        }
    }
}

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Appends records to the newest segment. One per target; whoever holds it is the only writer.
pub struct Appender {
    files: Arc<SegmentFiles>,
    uuid: TargetUuid,
    segment_bytes: u64,
    /// The end of everything good. Where the next record goes, if there is an active segment.
    end: Position,
    /// The newest segment made here. Always synced through this handle, for it is the one that learns of failed write-back.
    newest: Option<Arc<dyn DiskFile>>,
    /// Whether the newest segment takes more records: not after a failed write.
    is_open: bool,
    /// The number that the next segment gets.
    next_number: SegmentNumber,
    /// Records that have a place but are not written yet, and where the first of them goes.
    pending: Vec<Bytes>,
    pending_from: u64,
    /// Something was written to the active segment since the last sync.
    unsynced: bool,
}

impl Appender {
    /// Goes on behind `end`, in a new segment with at least the number `next_number`.
    pub fn new(files: Arc<SegmentFiles>, uuid: TargetUuid, segment_bytes: u64, end: Position, next_number: SegmentNumber) -> Self {
        debug_assert!(next_number > end.segment);
        Self {
            files,
            uuid,
            segment_bytes,
            end,
            newest: None,
            is_open: false,
            next_number,
            pending: Vec::new(),
            pending_from: 0,
            unsynced: false,
        }
    }

    /// The end of everything written, and of what is pending.
    pub fn position(&self) -> Position {
        self.end
    }

    pub fn next_number(&self) -> SegmentNumber {
        self.next_number
    }

    /// The segment being filled: it must not be removed.
    pub fn active_segment(&self) -> Option<SegmentNumber> {
        self.is_open.then_some(self.end.segment)
    }

    pub fn has_unsynced(&self) -> bool {
        self.unsynced || !self.pending.is_empty()
    }

    /// Gives a record its place. It is written by the next [`write`](Self::write), or earlier if the segment is full.
    pub fn push(&mut self, record: &Record, payload: Bytes) -> Result<Place, AppendError> {
        let shape = record.shape();
        debug_assert_eq!(shape.payload_bytes, payload.len());
        let is_full = self.end.offset + shape.record_bytes() as u64 > self.segment_bytes && self.end.offset > FIRST_RECORD;
        if !self.is_open || is_full {
            self.start_segment()?;
        }
        if self.pending.is_empty() {
            self.pending_from = self.end.offset;
        }
        let place = shape.place(self.end);
        self.pending.push(record.encode_head(Stand { uuid: self.uuid, at: self.end }).into());
        if !payload.is_empty() {
            self.pending.push(payload);
            self.pending.push(Bytes::from_static(&ZEROS[..shape.padding()]));
        }
        self.end.offset = place.end();
        Ok(place)
    }

    /// Writes what is pending. After an error the segment is given up and its remains are punched.
    pub fn write(&mut self) -> Result<(), AppendError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let Some(file) = self.newest.clone() else { unreachable!("records get their places in an active segment") };
        let pieces: Vec<&[u8]> = self.pending.iter().map(|piece| &piece[..]).filter(|piece| !piece.is_empty()).collect();
        let written = file.write_at(&pieces, self.pending_from);
        // Even a failed write may have left something behind that must be synced before the next segment is made.
        self.unsynced = true;
        if let Err(error) = written {
            self.give_up_segment(&*file);
            return Err(AppendError::of_write(error));
        }
        self.pending.clear();
        Ok(())
    }

    /// Makes everything pushed so far durable. After an error the target must not be written to any more.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.write()?;
        if self.unsynced {
            // Even lack of room is fatal here: what was accepted did not get to the disk.
            if !is_planted(Bug::SegmentSyncSkipped) {
                self.newest.as_ref().map_or(Ok(()), |file| file.sync_data()).map_err(AppendError::Failed)?;
            }
            self.unsynced = false;
        }
        Ok(())
    }

    /// Forgets what is pending, after another part of the batch failed.
    pub fn discard_pending(&mut self) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.end.offset = self.pending_from;
        }
    }

    fn start_segment(&mut self) -> Result<(), AppendError> {
        self.sync()?;
        self.is_open = false;
        let number = self.next_number;
        let header = SegmentHeader { uuid: self.uuid, number, previous: self.end };
        // Even if making it fails the number is spent: what is left of the file must not be met again.
        self.next_number = number.next();
        self.files.finish(self.end.segment);
        self.newest = Some(self.files.create(number, &header.encode()).map_err(AppendError::of_write)?);
        self.is_open = true;
        self.end = Position { segment: number, offset: FIRST_RECORD };
        Ok(())
    }

    fn give_up_segment(&mut self, file: &dyn DiskFile) {
        let torn = self.pending_from..self.end.offset;
        self.discard_pending();
        self.is_open = false;
        if let Err(error) = file.punch_hole(torn.start, torn.end - torn.start) {
            tracing::warn!("cannot give back {torn:?} of {} after a failed write: {error}", self.end.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::ShardMeta;
    use super::*;
    use cairn_common::ids::ChunkId;
    use cairn_common::scheme::Scheme;
    use cairn_common::time::Timestamp;
    use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};
    use cairn_runtime::disk::OpenMode;
    use cairn_runtime::sim::block_on_world;
    use std::path::{Path, PathBuf};

    const UUID: TargetUuid = TargetUuid([3; 16]);

    fn shard(bytes: u32) -> (Record, Bytes) {
        let key = ShardKey { chunk: ChunkId([1; 32]), scheme: Scheme::copies(0), index: 0 };
        let header = ShardHeader { key, chunk_bytes: bytes, data_hashes: Vec::new(), parity_hashes: Vec::new() };
        let meta = ShardMeta { header, blocks: Vec::new(), ticket: Timestamp::EPOCH, payload_bytes: bytes };
        (Record::Shard(meta), Bytes::from(vec![7; bytes as usize]))
    }

    #[test]
    fn after_a_failed_write_records_go_to_a_new_segment_which_tells_the_end() {
        block_on_world(1, |world| async move {
            let node = world.node("disk");
            let disk = node.runtime().disk;
            disk.create_directory_all(Path::new("/segments")).expect("made");
            let files = Arc::new(SegmentFiles::new(disk.clone(), PathBuf::from("/segments")));
            let mut appender = Appender::new(files.clone(), UUID, 1 << 20, Position::default(), SegmentNumber(1));
            let (small, payload) = shard(100);
            let good = appender.push(&small, payload.clone()).expect("placed");
            appender.write().expect("written");

            node.disk().set_capacity(node.disk().used() + 20_000);
            let (large, large_payload) = shard(100_000);
            let torn = appender.push(&large, large_payload).expect("placed");
            assert_eq!((torn.segment, torn.offset), (SegmentNumber(1), good.end()));
            assert!(matches!(appender.write(), Err(AppendError::NoSpace(_))));
            assert_eq!(appender.position(), Position { segment: SegmentNumber(1), offset: good.end() });

            node.disk().set_capacity(1 << 30);
            let next = appender.push(&small, payload).expect("placed");
            appender.sync().expect("synced");
            assert_eq!((next.segment, next.offset), (SegmentNumber(2), FIRST_RECORD));
            let mut page = vec![0; PAGE_BYTES];
            disk.open(&files.path(SegmentNumber(2)), OpenMode::Read).expect("there").read_exact_at(&mut page, 0).expect("read");
            let header = SegmentHeader::decode(&page).expect("a header");
            assert_eq!(header.previous, Position { segment: SegmentNumber(1), offset: good.end() });
        });
    }
}
