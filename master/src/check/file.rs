//! The extents of one file after the other: in order, without overlaps, within the file's size and within their chunks.
//!
//! Chunks are looked up in order of id, many at a time: their ids are hashes, so that in the order of files every look would go
//! to another page of the table.

use super::problem::Problem;
use super::walk::Lookup;
use crate::keys;
use crate::state::record::{ChunkRecord, ExtentRecord, Inode, Place, Shrinking, Span, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::{ChunkId, Ino};

/// Extents whose chunks are looked up together.
const REACHES_MAX: usize = if cfg!(test) { 4 } else { 1 << 16 };

/// The file whose extents are being read.
struct File {
    ino: Ino,
    /// `None` if there is no such inode, or none that can be read.
    size: Option<u64>,
    /// From here on content is being removed, and counts as absent.
    cut: Option<u64>,
    /// Whether its inode counts its bytes.
    is_counted: bool,
    last_end: u64,
    content_end: u64,
}

/// How far an extent reaches into its chunk, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reach {
    chunk: ChunkId,
    end: u64,
    place: Place,
    offset: u64,
}

/// See the module.
#[derive(Default)]
pub struct Files {
    file: Option<File>,
    reaches: Vec<Reach>,
}

impl Files {
    /// Takes in the next extent. Whether its bytes count as those of an inode.
    pub fn extent(
        &mut self,
        reader: &dyn Reader,
        ino: Ino,
        end: u64,
        record: &ExtentRecord,
        problems: &mut Vec<Problem>,
    ) -> Result<bool, StoreError> {
        let mut file = match self.file.take() {
            Some(file) if file.ino == ino => file,
            before => {
                finish(before, problems);
                File::begin(reader, ino)?
            }
        };
        file.place(end, record, problems);
        let reach = u64::from(record.chunk_offset) + u64::from(record.bytes);
        self.reaches.push(Reach {
            chunk: record.chunk,
            end: reach,
            place: Place { ino, end },
            offset: end.saturating_sub(record.bytes.into()),
        });
        if self.reaches.len() >= REACHES_MAX {
            self.look_at_chunks(reader, problems)?;
        }
        let is_counted = file.is_counted;
        self.file = Some(file);
        Ok(is_counted)
    }

    /// After the last one.
    pub fn end(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        finish(self.file.take(), problems);
        self.look_at_chunks(reader, problems)
    }

    fn look_at_chunks(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        let mut reaches = std::mem::take(&mut self.reaches);
        reaches.sort_unstable();
        let mut known: Option<(ChunkId, Lookup<ChunkRecord>)> = None;
        let mut unnamed: Option<(ChunkId, Span)> = None;
        for Reach { chunk, end, place, offset } in reaches {
            let ino = place.ino;
            if known.as_ref().is_none_or(|(id, _)| *id != chunk) {
                problems.extend(unnamed.take().map(|(chunk, span)| Problem::Unnamed { chunk, span }));
                known = Some((chunk, Lookup::of(fetch(reader, Table::Chunks, &keys::chunk(chunk)))?));
            }
            if let Some((_, Lookup::Found(record))) = &known
                && !record.named.covers(place)
            {
                let span = unnamed.map_or(Span::of(place), |(_, span)| span.and(Span::of(place)));
                unnamed = Some((chunk, span));
            }
            match &known {
                Some((_, Lookup::Missing)) => problems.push(Problem::NoChunk { ino, offset, chunk }),
                Some((_, Lookup::Found(record))) if end > u64::from(record.stored.bytes) => {
                    problems.push(Problem::BeyondChunk { ino, offset, chunk, reach: end, bytes: record.stored.bytes.into() });
                }
                _ => {}
            }
        }
        problems.extend(unnamed.map(|(chunk, span)| Problem::Unnamed { chunk, span }));
        Ok(())
    }
}

fn finish(file: Option<File>, problems: &mut Vec<Problem>) {
    let Some(File { ino, size: Some(size), content_end, .. }) = file else { return };
    if content_end > size {
        problems.push(Problem::BeyondSize { ino, end: content_end, size });
    }
}

impl File {
    fn begin(reader: &dyn Reader, ino: Ino) -> Result<Self, StoreError> {
        let row = |is_needed: bool| -> Result<Option<u64>, StoreError> {
            let row = if is_needed { Lookup::of(fetch::<Shrinking>(reader, Table::Meta, &keys::shrinking(ino)))?.found() } else { None };
            Ok(row.map(|row| row.from))
        };
        let (size, cut, is_counted) = match Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(ino)))? {
            Lookup::Found(inode) => (Some(inode.size), inode.cut(), true),
            // Of a removed inode everything in the queue is garbage; other content has lost its inode.
            Lookup::Missing => {
                let cut = row(true)?;
                (None, cut, cut.is_none())
            }
            Lookup::Unreadable => (None, row(true)?, false),
        };
        Ok(Self { ino, size, cut, is_counted, last_end: 0, content_end: 0 })
    }

    fn place(&mut self, end: u64, record: &ExtentRecord, problems: &mut Vec<Problem>) {
        let ino = self.ino;
        if record.bytes == 0 || u64::from(record.bytes) > end {
            problems.push(Problem::EmptyExtent { ino, end });
            return;
        }
        let offset = end - u64::from(record.bytes);
        if offset < self.last_end {
            problems.push(Problem::Overlap { ino, offset });
        }
        self.last_end = end;
        match self.cut {
            Some(cut) if offset >= cut => return,
            Some(cut) if end > cut => problems.push(Problem::AcrossCut { ino, offset, cut }),
            _ => {}
        }
        self.content_end = end;
    }
}
