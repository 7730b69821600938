//! Segment files of the command log: `log/<index of the first record, 20 digits>.log`.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic |
//! | 8..12 | version of the format |
//! | 12..16 | zero |
//! | 16..48 | key of the records' checksums, random |
//! | 48..64 | first 16 bytes of BLAKE3 over bytes 0..48 |
//! | 64.. | records, then zeros |
//!
//! A segment is made under a name ending in `.new`, synced, and renamed when it is needed: a file with the name of a segment
//! always has a sound header, or the disk is to blame.

use super::record::SegmentKey;
use crate::store::tables::{StoreError, disk_error};
use cairn_common::ids::LogIndex;
use cairn_runtime::Runtime;
use cairn_runtime::disk::{Disk, DiskFile, OpenMode};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"CAIRNLOG";
const FORMAT_VERSION: u32 = 1;
const CHECKED_BYTES: usize = 48;
const SUFFIX: &str = ".log";
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
const SPARE_SUFFIX: &str = ".new";

/// A segment that has no name yet.
#[derive(Debug)]
pub struct Spare {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    key: SegmentKey,
}

/// A segment that takes records.
#[derive(Debug)]
pub struct Segment {
    pub first: LogIndex,
    pub file: Arc<dyn DiskFile>,
    pub key: SegmentKey,
}

impl Spare {
    /// Makes a segment of `bytes`, durable but for its name. Blocks.
    pub fn create(runtime: &Runtime, directory: &Path, bytes: u64) -> io::Result<Self> {
        // A random name: one may be made in the background while another is needed at once.
        let path = directory.join(format!("{:016x}{SPARE_SUFFIX}", runtime.random_u64()));
        let file = runtime.disk.open(&path, OpenMode::CreateNew)?;
        file.allocate(0, bytes)?;
        // Overwriting what was written before needs no journal of the file system: syncs take a quarter less time (measured).
        for offset in (0..bytes).step_by(ZEROS.len()) {
            let piece = (bytes - offset).min(ZEROS.len() as u64) as usize;
            file.write_at(&[&ZEROS[..piece]], offset)?;
        }
        let key = runtime.random_bytes();
        file.write_at(&[&encode_header(&key)], 0)?;
        file.sync_data()?;
        Ok(Self { path, file, key })
    }

    /// Gives the segment its name. It is durable only after `sync_directory`.
    pub fn into_segment(self, disk: &dyn Disk, directory: &Path, first: LogIndex) -> io::Result<Segment> {
        disk.rename(&self.path, &segment_path(directory, first))?;
        Ok(Segment { first, file: self.file, key: self.key })
    }
}

pub fn segment_path(directory: &Path, first: LogIndex) -> PathBuf {
    directory.join(format!("{:020}{SUFFIX}", first.0))
}

/// The first indices of all segments, in order. Removes spares that were left over. Blocks.
pub fn list_segments(disk: &dyn Disk, directory: &Path) -> Result<Vec<LogIndex>, StoreError> {
    let mut found = Vec::new();
    for entry in disk.list(directory).map_err(|error| disk_error("list", directory, &error))? {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(SPARE_SUFFIX) {
            disk.remove_file(&entry.path).map_err(|error| disk_error("remove", &entry.path, &error))?;
            continue;
        }
        let index = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok());
        let index = index.ok_or_else(|| StoreError::Corrupt(format!("{} does not belong into the log", entry.path.display())))?;
        found.push(LogIndex(index));
    }
    found.sort_unstable();
    Ok(found)
}

fn encode_header(key: &SegmentKey) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..48].copy_from_slice(key);
    let hash = blake3::hash(&header[..CHECKED_BYTES]);
    header[CHECKED_BYTES..].copy_from_slice(&hash.as_bytes()[..SEGMENT_HEADER_BYTES - CHECKED_BYTES]);
    header
}

/// The key of a segment's records, or what is wrong with its header.
pub fn decode_header(segment: &[u8]) -> Result<SegmentKey, String> {
    let header = segment.first_chunk::<SEGMENT_HEADER_BYTES>().ok_or("its header is cut off")?;
    if header[..8] != MAGIC {
        return Err("it does not begin like a segment of a command log".to_owned());
    }
    let hash = blake3::hash(&header[..CHECKED_BYTES]);
    if hash.as_bytes()[..SEGMENT_HEADER_BYTES - CHECKED_BYTES] != header[CHECKED_BYTES..] {
        return Err("its header is damaged".to_owned());
    }
    let version = u32::from_le_bytes(std::array::from_fn(|at| header[8 + at]));
    if version != FORMAT_VERSION {
        return Err(format!("it has format {version}; this version of CairnFS knows only {FORMAT_VERSION}"));
    }
    Ok(std::array::from_fn(|at| header[16 + at]))
}
