//! The segment files of a target: names, listing, making and removing, and a bounded number of open handles.

use super::SegmentNumber;
use crate::cache::Cache;
use cairn_runtime::disk::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Handles kept open for reading. Well below the usual limit of 1024 descriptors a process.
const OPEN_FILES_MAX: usize = 256;

/// The `segments` directory of a target.
pub struct SegmentFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    open: Mutex<Cache<SegmentNumber, Arc<dyn DiskFile>>>,
}

impl SegmentFiles {
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self { disk, directory, open: Mutex::new(Cache::new(OPEN_FILES_MAX)) }
    }

    pub fn path(&self, number: SegmentNumber) -> PathBuf {
        self.directory.join(format!("{:010}.seg", number.0))
    }

    /// The segments there are, in order. Other files are ignored.
    pub fn list(&self) -> io::Result<Vec<SegmentNumber>> {
        let entries = self.disk.list(&self.directory)?;
        let mut numbers: Vec<_> = entries.iter().filter_map(|entry| number_of(&entry.path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The handle of a segment, if it is open already.
    pub fn cached(&self, number: SegmentNumber) -> Option<Arc<dyn DiskFile>> {
        self.open.lock().get(&number)
    }

    /// Opens a segment that exists. Blocks.
    pub fn open(&self, number: SegmentNumber) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.cached(number) {
            return Ok(file);
        }
        let file = self.disk.open(&self.path(number), OpenMode::ReadWrite)?;
        self.open.lock().insert(number, file.clone(), 1);
        Ok(file)
    }

    /// Makes a segment that starts with `header`, durably. On failure no file is left behind, as far as that is possible.
    pub fn create(&self, number: SegmentNumber, header: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(number);
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        let written = file.write_at(&[header], 0).and_then(|()| file.sync_data()).and_then(|()| self.disk.sync_directory(&self.directory));
        if let Err(error) = written {
            if let Err(left) = self.disk.remove_file(&path) {
                tracing::warn!("cannot remove the unfinished {}: {left}", path.display());
            }
            return Err(error);
        }
        self.open.lock().insert(number, file.clone(), 1);
        Ok(file)
    }

    /// Nothing more is written to a segment: its handle goes, and with it the descriptor for large writes. Readers open their own.
    pub fn finish(&self, number: SegmentNumber) {
        self.open.lock().remove(&number);
    }

    /// Removes segments, durably. Readers that hold a handle go on reading.
    pub fn remove(&self, numbers: &[SegmentNumber]) -> io::Result<()> {
        for number in numbers {
            self.open.lock().remove(number);
            match self.disk.remove_file(&self.path(*number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        self.disk.sync_directory(&self.directory)
    }
}

fn number_of(path: &Path) -> Option<SegmentNumber> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    stem.parse().ok().map(SegmentNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_fit() {
        assert_eq!(number_of(Path::new("/d/segments/0000000012.seg")), Some(SegmentNumber(12)));
        assert_eq!(number_of(Path::new("/d/segments/12345678901.seg")), Some(SegmentNumber(12_345_678_901)));
        assert_eq!(number_of(Path::new("/d/segments/notes.txt")), None);
        assert_eq!(number_of(Path::new("/d/segments/x.seg")), None);
    }
}
