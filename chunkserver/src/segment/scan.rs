//! Walks through the records of a segment, past holes and damage.

use super::header::FIRST_RECORD;
use super::record::{FIXED_BYTES, MAGIC, Record, RecordShape, Stand};
use super::{PAGE_BYTES, Place, Position, SegmentNumber, TargetUuid};
use cairn_runtime::disk::DiskFile;
use std::io;
use std::sync::Arc;

/// How much is read at once while looking for the next record.
const WINDOW_BYTES: usize = 64 * PAGE_BYTES;

/// What the scan came across.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Record {
        record: Record,
        place: Place,
    },
    /// Pages that are neither zero nor a record: a damaged record, or the payload of one.
    Damaged {
        from: u64,
        to: u64,
    },
}

/// A scan of one segment from a position to an end.
pub struct Scan {
    file: Arc<dyn DiskFile>,
    uuid: TargetUuid,
    segment: SegmentNumber,
    offset: u64,
    end: u64,
}

impl Scan {
    /// Scans records that start at `from` or later and lie before `end` as a whole.
    pub fn new(file: Arc<dyn DiskFile>, uuid: TargetUuid, from: Position, end: u64) -> Self {
        let offset = from.offset.max(FIRST_RECORD);
        Self { file, uuid, segment: from.segment, offset, end }
    }

    /// The next finding; `None` at the end. After an error the scan can't go on.
    pub fn find_next(&mut self) -> io::Result<Option<Found>> {
        while self.offset < self.end {
            if let Some((record, place)) = self.record_here()? {
                self.offset = place.end();
                return Ok(Some(Found::Record { record, place }));
            }
            let from = self.offset;
            if self.skip()? {
                return Ok(Some(Found::Damaged { from, to: self.offset }));
            }
        }
        Ok(None)
    }

    fn record_here(&self) -> io::Result<Option<(Record, Place)>> {
        let mut head = vec![0; PAGE_BYTES];
        let read = self.file.read_at(&mut head, self.offset)?;
        let at = Position { segment: self.segment, offset: self.offset };
        if read < FIXED_BYTES {
            return Ok(None);
        }
        let Ok(shape) = RecordShape::peek(&head[..read], Stand { uuid: self.uuid, at }) else { return Ok(None) };
        let place = shape.place(at);
        if place.end() > self.end {
            return Ok(None);
        }
        if shape.head_bytes > PAGE_BYTES {
            head.resize(shape.head_bytes, 0);
            self.file.read_exact_at(&mut head, self.offset)?;
        }
        Ok(Record::decode_head(&head, &shape).ok().map(|record| (record, place)))
    }

    /// Moves on to the next page that might start a record. Says whether anything but zeros was passed.
    fn skip(&mut self) -> io::Result<bool> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut damaged = false;
        let mut first = true;
        while self.offset < self.end {
            let wanted = WINDOW_BYTES.min(usize::try_from(self.end - self.offset).unwrap_or(WINDOW_BYTES));
            let read = self.file.read_at(&mut window[..wanted], self.offset)?;
            if read == 0 {
                self.offset = self.end;
                break;
            }
            for page in window[..read].chunks(PAGE_BYTES) {
                if page.starts_with(MAGIC) && !first {
                    return Ok(damaged);
                }
                damaged |= page.iter().any(|byte| *byte != 0);
                first = false;
                self.offset += page.len() as u64;
            }
        }
        Ok(damaged)
    }
}
